//! READ: decode what is stored.

use std::time::{Duration, Instant};

use mistique_engine::{Code, Content, cost};

use super::{Considered, Context, PlanChoice, PlanKind, Resolved};
use crate::answer::Data;
use crate::columns::Columns;
use crate::error::{QueryError, Result};

/// Reads of fewer values measure the start of a read, not its rate.
const RATE_VALUES: usize = 1 << 18;
/// Seconds a value, until the first read was measured: half of what two cores decode.
const UNMEASURED_READ: f64 = 1e-9;
/// Seconds before the first value, until measured.
const UNMEASURED_START: f64 = 200e-6;

pub(super) struct Read;

impl Read {
    /// Values that must be decoded: whole pages of whole groups.
    fn decoded_values(request: &Resolved) -> u64 {
        let n = request.rows.len() as u64;
        match (&*request.record.content, &request.columns) {
            (Content::Tensor(t), Columns::Tensor(columns)) => {
                let layout = &t.layout;
                let groups: std::collections::BTreeSet<usize> = columns
                    .iter()
                    .flat_map(|c| c.units.start / layout.group_units..c.units.end.div_ceil(layout.group_units))
                    .collect();
                let row_values: usize =
                    groups.iter().map(|g| layout.units_of_group(*g).len() * layout.stored.cells()).sum();
                let pages = request.stored.as_ref().map_or(0, |plan| plan.n_pages(layout.page_rows)) as u64;
                (pages * layout.page_rows as u64).max(n) * row_values as u64
            }
            (Content::Table(t), Columns::Table(columns)) => {
                let blocks = request.stored.as_ref().map_or(0, |plan| plan.n_pages(t.block_rows)) as u64;
                (blocks * t.block_rows as u64).min(request.record.n_rows.max(n)) * columns.len() as u64
            }
            _ => 0,
        }
    }

    fn measured(context: &Context<'_>, what: &str, scheme: &str, otherwise: f64) -> Result<f64> {
        let cost = context.store.cost(what, scheme)?;
        Ok(cost.map_or(otherwise, |c| c.mean))
    }
}

impl PlanKind for Read {
    fn choice(&self) -> PlanChoice {
        PlanChoice::Read
    }

    fn consider(&self, context: &Context<'_>, request: &Resolved) -> Result<Considered> {
        let content = &request.record.content;
        let scheme = content.scheme_text();
        let lossless = match &**content {
            Content::Tensor(t) => t.scheme.is_lossless_for(t.dtype),
            Content::Table(_) => true,
        };
        let unavailable = match &request.stored {
            Err(why) => Some(why.clone()),
            Ok(_) if request.exact && !lossless => {
                Some(format!("the stored copy is {scheme}, and exact values were asked for"))
            }
            Ok(_) => None,
        };
        let values = Self::decoded_values(request);
        let start = Self::measured(context, cost::READ_START, &scheme, UNMEASURED_START)?;
        let rate = Self::measured(context, cost::READ, &scheme, UNMEASURED_READ)?;
        let bits = match &**content {
            Content::Tensor(t) => u64::from(t.layout.code.bits()),
            Content::Table(_) => 64,
        };
        Ok(Considered {
            plan: "READ",
            how: format!("decode {values} values of {scheme}"),
            predicted: Some(Duration::from_secs_f64(start + rate * values as f64)),
            read_bytes: values * bits / 8,
            unavailable,
        })
    }

    fn run(&self, context: &Context<'_>, request: &Resolved) -> Result<Data> {
        let store = context.store;
        let plan = request.stored.as_ref().map_err(|why| QueryError::Plan {
            key: request.record.key.to_string(),
            plan: "READ",
            why: why.clone(),
        })?;
        let begun = Instant::now();
        let data = match &request.columns {
            Columns::Table(columns) => Data::Table(store.read_table(&request.record, plan, columns)?),
            Columns::Tensor(columns) => {
                let layout = &request.record.tensor()?.layout;
                let ranges: Vec<_> = columns.iter().map(|c| c.stored(layout)).collect();
                if layout.code == Code::F64 {
                    let codes = store.read_codes(&request.record, plan)?;
                    let row: Vec<&[u8]> = codes.chunks_exact(8).collect();
                    let n = layout.stored_values();
                    let pick = |r: usize| ranges.iter().flat_map(move |c| c.clone().map(move |i| r * n + i));
                    let float =
                        |i: usize| row.get(i).and_then(|b| (*b).try_into().ok()).map_or(f64::NAN, f64::from_le_bytes);
                    Data::F64((0..plan.n_rows()).flat_map(pick).map(float).collect())
                } else {
                    let width: usize = ranges.iter().map(ExactSizeIterator::len).sum();
                    let mut out = vec![0f32; plan.n_rows() * width];
                    store.read_f32(&request.record, plan, &ranges, &mut out)?;
                    Data::F32(out)
                }
            }
        };
        self.record(context, request, begun.elapsed())?;
        Ok(data)
    }
}

impl Read {
    /// Keeps the measured time: short reads tell the start, long ones the rate.
    fn record(&self, context: &Context<'_>, request: &Resolved, took: Duration) -> Result<()> {
        let values = Self::decoded_values(request);
        let scheme = request.record.content.scheme_text();
        let seconds = took.as_secs_f64();
        let (what, value) = if values as usize >= RATE_VALUES {
            (cost::READ, seconds / values as f64)
        } else {
            (cost::READ_START, seconds)
        };
        // A store on read-only media is still read: its figures are then this process's alone.
        if let Err(e) = context.store.add_cost(what, &scheme, value) {
            tracing::debug!("the read's time is not kept: {e}");
        }
        Ok(())
    }
}
