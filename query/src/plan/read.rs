//! READ: decode what is stored (Eq. 5.4).

use std::ops::Range;

use mistique_engine::{Code, Content};

use super::{Answered, Considered, PlanChoice, PlanKind, Planning, Resolved};
use crate::answer::{Data, Source};
use crate::columns::Columns;
use crate::error::Result;

pub(crate) const NAME: &str = "READ";

impl PlanChoice {
    /// What is stored.
    pub const READ: Self = Self::Only(NAME);
}

pub(super) struct Read;

/// Whether the stored copy of a request is exactly what was logged.
pub(super) fn is_lossless(request: &Resolved) -> bool {
    match &*request.record.content {
        Content::Tensor(t) => t.scheme.is_lossless_for(t.dtype),
        Content::Table(_) => true,
    }
}

fn ranges(request: &Resolved) -> Result<Vec<Range<usize>>> {
    let Columns::Tensor(columns) = &request.columns else { return Ok(Vec::new()) };
    let layout = &request.record.tensor()?.layout;
    Ok(columns.iter().map(|c| c.stored(layout)).collect())
}

/// The column groups that a request reads.
fn groups(request: &Resolved) -> Result<Vec<usize>> {
    Ok(match &request.columns {
        Columns::Table(columns) => columns.clone(),
        Columns::Tensor(columns) => {
            let n = request.record.tensor()?.layout.group_units.max(1);
            let groups = columns.iter().flat_map(|c| c.units.start / n..c.units.end.div_ceil(n));
            groups.collect::<std::collections::BTreeSet<usize>>().into_iter().collect()
        }
    })
}

pub(super) fn source(request: &Resolved) -> Source {
    Source::Read { scheme: request.record.content.scheme_text(), exact: is_lossless(request) }
}

impl PlanKind for Read {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "What is stored"
    }

    fn consider(&self, planning: &Planning<'_>) -> Result<Option<Considered>> {
        let (store, request) = (planning.context.store, planning.request);
        let scheme = request.record.content.scheme_text();
        let plan = match &request.stored {
            Err(why) => return Ok(Some(Considered::impossible(NAME, why.clone()))),
            Ok(plan) => plan,
        };
        let (how, estimate, bytes) = match (&*request.record.content, &request.columns) {
            (Content::Table(_), Columns::Table(columns)) => {
                let work = store.table_work(plan, columns);
                let mut how = Vec::new();
                if work.fresh() > 0 || work.held() == 0 {
                    how.push(format!("decode {} ColumnChunks", work.fresh()));
                }
                if work.held() > 0 {
                    how.push(format!("take {} ColumnChunks from memory", work.held()));
                }
                (how.join(", "), store.table_estimate(&request.record, &work)?, work.bytes())
            }
            _ => {
                let work = store.read_work(&request.record, plan, &ranges(request)?)?;
                let mut how = Vec::new();
                if work.values > 0.0 || work.held_pages == 0.0 {
                    how.push(format!("decode {:.0} values of {scheme}", work.values));
                }
                if work.held_pages > 0.0 {
                    how.push(format!("take {:.0} from {:.0} pages in memory", work.held_values, work.held_pages));
                }
                (how.join(", "), store.read_estimate(&request.record, &work)?, work.bytes)
            }
        };
        let mut considered = Considered::new(NAME, how, Some(estimate), bytes).from(source(request));
        let (lacking, touched) = plan.lacking(&groups(request)?);
        if lacking > 0 {
            considered.unavailable = Some(format!("its values in {lacking} of {touched} RowBlocks are not kept"));
        }
        if request.exact && !is_lossless(request) {
            considered.unavailable = Some(format!("the stored copy is {scheme}, and exact values were asked for"));
        }
        Ok(Some(considered))
    }

    fn run(&self, planning: &Planning<'_>) -> Result<Vec<Answered>> {
        let (store, request) = (planning.context.store, planning.request);
        let plan = match &request.stored {
            Ok(plan) => plan,
            Err(why) => return planning.refuse(NAME, why.clone()),
        };
        let data = match &request.columns {
            Columns::Table(columns) => Data::Table(store.read_table(&request.record, plan, columns)?),
            Columns::Tensor(_) => {
                let layout = &request.record.tensor()?.layout;
                let ranges = ranges(request)?;
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
        Ok(vec![(planning.at, data, source(request))])
    }
}
