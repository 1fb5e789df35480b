//! RERUN: run the model again from its stored operators and its dataset.

use std::time::Duration;

use mistique_engine::{MapShape, OnUnholdable, RerunValues, TensorContent, UnitAxis, cost};
use mistique_quantize::{Params, Reducer, Scheme};

use super::{Considered, Context, PlanChoice, PlanKind, Resolved};
use crate::answer::Data;
use crate::columns::Columns;
use crate::error::{QueryError, Result};

/// Seconds to read weights and dataset, until the first RERUN measured it.
const UNMEASURED_LOAD: f64 = 5e-3;

pub(super) struct RerunPlan;

fn refuse<T>(request: &Resolved, why: impl Into<String>) -> Result<T> {
    Err(QueryError::Plan { key: request.record.key.to_string(), plan: "RERUN", why: why.into() })
}

impl PlanKind for RerunPlan {
    fn choice(&self) -> PlanChoice {
        PlanChoice::Rerun
    }

    fn consider(&self, context: &Context<'_>, request: &Resolved) -> Result<Considered> {
        let model = &request.model;
        let workflow = context.workflows.iter().find(|w| w.runs(model));
        let unavailable = match workflow {
            None => {
                Some(format!("{} was logged as {} values; nothing can run it", model.spec.key, model.spec.kind.name()))
            }
            Some(workflow) => workflow.unavailable(model),
        };
        let device = workflow.map_or_else(String::new, |w| w.device());
        let description = &model.spec.description;
        let layer = cost::layer_subject(description, &device, &request.record.key.intermediate);
        let subject = cost::model_subject(description, &device);
        let load = match workflow {
            Some(workflow) if workflow.is_loaded(model) => 0.0,
            _ => match context.store.cost(cost::LOAD, &subject)? {
                Some(measured) => measured.mean,
                // Nothing was run again yet: what logging measured, and the time to read weights and dataset.
                None => UNMEASURED_LOAD + context.store.cost(cost::PREPARE, &subject)?.map_or(0.0, |c| c.mean),
            },
        };
        let forward = context.store.cost(cost::FORWARD, &layer)?;
        let rows = request.rows.len();
        let predicted = forward.map(|f| Duration::from_secs_f64(load + f.mean * rows as f64));
        Ok(Considered {
            plan: "RERUN",
            how: format!("run {} rows from the input to {}", rows, request.record.key.intermediate),
            predicted,
            read_bytes: 0,
            unavailable,
        })
    }

    fn run(&self, context: &Context<'_>, request: &Resolved) -> Result<Data> {
        let Some(workflow) = context.workflows.iter().find(|w| w.runs(&request.model)) else {
            return refuse(request, "no workflow runs this kind of model");
        };
        let rows: Vec<u64> = request.rows.iter().collect();
        let names = [request.record.key.intermediate.clone()];
        let mut outputs = workflow.rerun(&request.model, &names, &rows, &[])?;
        let (columns, shape, values) = match (outputs.pop(), &request.columns) {
            (Some(RerunValues::Tensor { shape, values }), Columns::Tensor(columns)) => (columns, shape, values),
            (Some(RerunValues::Table(batch)), Columns::Table(columns)) => {
                return Ok(Data::Table(batch.project(columns).map_err(mistique_engine::EngineError::from)?));
            }
            _ => return refuse(request, "the workflow gave another kind of columns than were logged"),
        };
        let content = request.record.tensor()?;
        let layout = &request.layout(content);
        if values.len() != rows.len() * layout.row_values() {
            return refuse(
                request,
                format!("the model now gives rows of shape {:?}, stored are {:?}", shape, content.shape),
            );
        }
        // Answers have one shape under every plan: a pooled intermediate is pooled here too, but not quantized.
        let stored = pooled(request, content, &values)?;
        let ranges: Vec<_> = columns.iter().map(|c| c.stored(layout)).collect();
        let n = layout.stored_values();
        if ranges.len() == 1 && ranges.first() == Some(&(0..n)) {
            return Ok(Data::F32(stored));
        }
        let pick = |row: &[f32]| {
            ranges.iter().flat_map(|c| row.get(c.clone()).unwrap_or_default()).copied().collect::<Vec<_>>()
        };
        Ok(Data::F32(stored.chunks_exact(n.max(1)).flat_map(pick).collect()))
    }
}

fn pooled(request: &Resolved, content: &TensorContent, values: &[f32]) -> Result<Vec<f32>> {
    let layout = &content.layout;
    let text = content.scheme.to_string();
    let quantize = |source| mistique_engine::EngineError::Quantize { key: request.record.key.to_string(), source };
    let by_unit = if content.unit_axis == UnitAxis::Last && layout.map.cells() > 1 {
        units_first(values, layout.n_units, layout.map)
    } else {
        values.to_vec()
    };
    let pool = text.split('+').next().filter(|t| t.starts_with("pool") && !request.exact);
    let Some(pool) = pool else { return Ok(by_unit) };
    let scheme: Scheme = format!("{pool}+f32").parse().map_err(quantize)?;
    let reducer = Reducer::new(&scheme, layout.map, layout.n_units, Params::none()).map_err(quantize)?;
    let mut codes = Vec::new();
    for row in by_unit.chunks_exact(layout.row_values().max(1)) {
        reducer.encode(0, row, OnUnholdable::Error, &mut codes).map_err(quantize)?;
    }
    let mut out = vec![0f32; codes.len() / 4];
    mistique_quantize::to_f32(scheme.code(), &codes, &mut out).map_err(quantize)?;
    Ok(out)
}

fn units_first(values: &[f32], units: usize, map: MapShape) -> Vec<f32> {
    let cells = map.cells();
    let row = |row: &[f32]| {
        (0..units).flat_map(|u| row.iter().skip(u).step_by(units).copied().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    values.chunks_exact((units * cells).max(1)).flat_map(row).collect()
}
