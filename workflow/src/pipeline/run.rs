//! One stage, run. Knows nothing of the store: what a stage gives here is what the store must hold.

use std::time::Instant;

use super::check::{Plan, ReadFrom};
use super::data::Data;
use super::error::{OperatorError, PipelineError};
use super::operator::{Input, Inputs, Learnt, Outcome, Parts};
use super::table::Table;

/// What a stage gave.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// Tables and metrics.
    pub outcome: Outcome,
    /// What it learnt itself.
    pub learnt: Option<Learnt>,
    /// Seconds that learning took.
    pub learn_seconds: f64,
    /// Seconds that the stage took, learning included.
    pub seconds: f64,
}

impl Plan {
    /// Runs stage `index` of the plan on `values`, the values of its inputs in order. `learnt` is what it has learnt
    /// before, or what the stage that `fit` names has; otherwise it learns. `parts` takes rows as they come.
    ///
    /// Errors: `Stage`.
    pub fn run_stage(
        &self,
        index: usize,
        values: Vec<Input>,
        learnt: Option<Learnt>,
        data: &Data,
        parts: Option<&mut dyn Parts>,
    ) -> Result<Ran, PipelineError> {
        let Some((stage, plan)) = self.pipeline.stages().get(index).zip(self.stages.get(index)) else {
            return Ok(Ran::default());
        };
        let failed = |source: OperatorError| match source {
            OperatorError::Engine(e) => PipelineError::Engine(e),
            source => PipelineError::Stage {
                model: self.pipeline.model_name(),
                stage: stage.name.clone(),
                op: stage.kind.name.into(),
                source: Box::new(source),
            },
        };
        // What the check looked at is part of the stage's work, and what the stage itself looks at is counted once.
        let file = stage.operator.file();
        let looked_before = file.map_or(0.0, |f| data.take_seconds(f));
        let begun = Instant::now();
        let mut inputs = Inputs { values, learnt, data };
        let mut own = None;
        if inputs.learnt.is_none() && plan.learns == Some(index) {
            let bytes = stage.operator.learn(&inputs).map_err(failed)?;
            own = bytes.map(|b| Learnt { operator: stage.kind.name, bytes: b.into() });
            inputs.learnt.clone_from(&own);
        }
        let learn_seconds = begun.elapsed().as_secs_f64();
        let outcome = match parts {
            Some(parts) => stage.operator.run_in_parts(&inputs, parts),
            None => stage.operator.run(&inputs),
        };
        let outcome = outcome.map_err(failed)?;
        let seconds = looked_before + begun.elapsed().as_secs_f64();
        if let Some(file) = file {
            data.take_seconds(file);
        }
        check_tables(&outcome.tables, plan.outputs.len()).map_err(failed)?;
        Ok(Ran { outcome, learnt: own, learn_seconds, seconds })
    }

    /// Runs all stages without a store, and gives each one's values to `sink`.
    ///
    /// Errors: `Stage`, or those of `sink`.
    pub fn run(
        &self,
        data: &Data,
        mut sink: impl FnMut(usize, &Ran) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        let mut last_use = vec![0; self.stages.len()];
        for (index, stage) in self.stages.iter().enumerate() {
            stage.inputs.iter().map(|f| f.stage()).chain(stage.learns).for_each(|s| last_use[s] = index);
        }
        let mut done: Vec<Option<Ran>> = Vec::with_capacity(self.stages.len());
        for (index, stage) in self.stages.iter().enumerate() {
            let held = |s: usize| done.get(s).and_then(Option::as_ref);
            let values = stage.inputs.iter().filter_map(|from| match *from {
                ReadFrom::Table { stage, output } => held(stage)?.outcome.tables.get(output).cloned().map(Input::Table),
                ReadFrom::Learnt { stage } => held(stage)?.learnt.clone().map(Input::Learnt),
            });
            let learnt = stage.learns.filter(|s| *s != index).and_then(|s| held(s)?.learnt.clone());
            let ran = self.run_stage(index, values.collect(), learnt, data, None)?;
            sink(index, &ran)?;
            done.push(Some(ran));
            for (s, last) in last_use.iter().enumerate() {
                if *last == index
                    && let Some(slot) = done.get_mut(s).filter(|_| s != index)
                {
                    *slot = None;
                }
            }
        }
        Ok(())
    }
}

/// As many tables as announced, each with a column, their rows in ascending order of row_id: so that they are read back as they were.
fn check_tables(tables: &[Table], announced: usize) -> Result<(), OperatorError> {
    if tables.len() != announced {
        let why = format!("it gave {} tables and had announced {announced}", tables.len());
        return Err(OperatorError::Columns { why });
    }
    if tables.iter().any(|t| t.names().is_empty()) {
        return Err(OperatorError::Columns { why: "no column is left; a table has at least one".into() });
    }
    match tables.iter().any(|t| !t.rows().is_sorted_by(|a, b| a < b)) {
        true => Err(OperatorError::Columns { why: "its rows are not in ascending order of row_id".into() }),
        false => Ok(()),
    }
}
