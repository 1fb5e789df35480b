//! Traditional pipelines: YAML files of named stages, each an operator, run over tables and logged stage by stage.
//!
//! A [`Template`] is a file; each of its settings gives a [`Pipeline`]; a [`Plan`] is a pipeline checked against the data
//! that it will read. A new operator is one file in `operators/` and one line there.

mod cache;
mod check;
mod columns;
mod data;
mod described;
mod document;
mod error;
mod expression;
mod graph;
mod learnt;
mod log;
mod models;
mod node;
mod opened;
mod operator;
mod operators;
mod params;
mod rerun;
mod run;
mod stored;
mod streamed;
mod table;
#[cfg(test)]
mod testing;

pub use check::{KnownOutputs, Plan, ReadFrom, StagePlan, output_fingerprint};
pub use columns::{Columns, type_name};
pub use data::Data;
pub use described::{Pipeline, Stage};
pub use document::{Setting, Template, is_pipeline};
pub use error::{OperatorError, PipelineError, Spot};
pub use log::{
    Fate, ModelReport, PipelineOptions, PipelineProgress, PipelineReport, StageReport, log_pipelines, plan_template,
};
pub use operator::{Checked, Given, Input, Inputs, Learnt, Operator, OperatorKind, Outcome, Parts, Slot};
pub use params::Params;
pub use rerun::PipelineRerun;
pub use run::Ran;
pub use table::Table;
