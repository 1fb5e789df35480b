//! From what a run gave to what was asked for: the columns wanted, pooled as the stored copy is, so that answers have one
//! shape under every plan.

use std::time::Instant;

use mistique_engine::{
    Content, EngineError, MapShape, OnUnholdable, RerunValues, TensorContent, TensorLayout, UnitAxis, cost,
};
use mistique_quantize::{Params, Reducer, Scheme};
use rayon::prelude::*;

use super::{Context, Resolved};
use crate::answer::{Data, Source};
use crate::columns::Columns;
use crate::error::{QueryError, Result};

fn refuse<T>(request: &Resolved, why: impl Into<String>) -> Result<T> {
    Err(QueryError::Plan { key: request.record.key.to_string(), plan: "RERUN", why: why.into() })
}

/// How the answer to a request is pooled: `pool(2)`; `None` where it is not.
pub(super) fn pool_of(request: &Resolved, content: &TensorContent) -> Option<String> {
    if request.exact || content.layout.stored == content.layout.map {
        return None;
    }
    content.scheme.to_string().split('+').next().filter(|t| t.starts_with("pool")).map(str::to_string)
}

/// Where a run's values come from, for its answer; `read` says what it read.
pub(super) fn source(request: &Resolved, read: Option<String>) -> Source {
    let pooled = match &*request.record.content {
        Content::Tensor(t) => t.scheme.to_string().starts_with("pool"),
        Content::Table(_) => false,
    };
    Source::Rerun { exact: !pooled || request.exact, read }
}

/// The columns of a request from the values that a run gave for its rows.
///
/// Errors: `Plan` when they are not what was logged.
pub(super) fn shape(context: &Context<'_>, request: &Resolved, values: Option<RerunValues>) -> Result<Data> {
    let n_rows = request.rows.len();
    let (columns, shape, values) = match (values, &request.columns) {
        (Some(RerunValues::Tensor { shape, values }), Columns::Tensor(columns)) => (columns, shape, values),
        (Some(RerunValues::Table(batch)), Columns::Table(columns)) => {
            return Ok(Data::Table(batch.project(columns).map_err(EngineError::from)?));
        }
        _ => return refuse(request, "the workflow gave another kind of columns than were logged"),
    };
    let content = request.record.tensor()?;
    let layout = &request.layout(content);
    if values.len() != n_rows * layout.row_values() {
        return refuse(
            request,
            format!("the model now gives rows of shape {shape:?}, logged were {:?}", content.shape),
        );
    }
    let by_unit = if content.unit_axis == UnitAxis::Last && layout.map.cells() > 1 {
        units_first(&values, layout.n_units, layout.map)
    } else {
        values
    };
    let stored = match pool_of(request, content) {
        None => by_unit,
        Some(pool) => {
            let begun = Instant::now();
            let out = pooled(request, content, &by_unit)?;
            let n = by_unit.len() as f64;
            let seconds = begun.elapsed().as_secs_f64() / n.max(1.0);
            if n >= cost::RATE_VALUES
                && let Err(e) = context.store.add_cost(cost::POOL, &cost::sized(&pool, n), seconds)
            {
                tracing::debug!("the pooling's time is not kept: {e}");
            }
            out
        }
    };
    Ok(Data::F32(picked(stored, columns, layout)))
}

fn picked(stored: Vec<f32>, columns: &[crate::columns::TensorColumns], layout: &TensorLayout) -> Vec<f32> {
    let ranges: Vec<_> = columns.iter().map(|c| c.stored(layout)).collect();
    let n = layout.stored_values();
    if ranges.len() == 1 && ranges.first() == Some(&(0..n)) {
        return stored;
    }
    let width: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    let mut out = Vec::with_capacity(stored.len() / n.max(1) * width);
    for row in stored.chunks_exact(n.max(1)) {
        ranges.iter().for_each(|c| out.extend_from_slice(row.get(c.clone()).unwrap_or_default()));
    }
    out
}

/// The values pooled as the scheme says, but not quantized.
fn pooled(request: &Resolved, content: &TensorContent, values: &[f32]) -> Result<Vec<f32>> {
    let layout = &content.layout;
    let text = content.scheme.to_string();
    let quantize = |source| EngineError::Quantize { key: request.record.key.to_string(), source };
    let scheme: Scheme = format!("{}+f32", text.split('+').next().unwrap_or_default()).parse().map_err(quantize)?;
    let (from, to) = (layout.row_values().max(1), layout.stored_values().max(1));
    let mut out = vec![0f32; values.len() / from * to];
    let rows = (values.len() / from).div_ceil(4 * rayon::current_num_threads()).max(1);
    let parts = out.par_chunks_mut(rows * to).zip(values.par_chunks(rows * from));
    parts.try_for_each(|(out, values)| -> Result<(), EngineError> {
        let reducer = Reducer::new(&scheme, layout.map, layout.n_units, Params::none()).map_err(quantize)?;
        let mut codes = Vec::with_capacity(to * 4);
        for (out, row) in out.chunks_exact_mut(to).zip(values.chunks_exact(from)) {
            codes.clear();
            reducer.encode(0, row, OnUnholdable::Error, &mut codes).map_err(quantize)?;
            mistique_quantize::to_f32(scheme.code(), &codes, out).map_err(quantize)?;
        }
        Ok(())
    })?;
    Ok(out)
}

fn units_first(values: &[f32], units: usize, map: MapShape) -> Vec<f32> {
    let cells = map.cells();
    let row = |row: &[f32]| {
        (0..units).flat_map(|u| row.iter().skip(u).step_by(units).copied().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    values.chunks_exact((units * cells).max(1)).flat_map(row).collect()
}
