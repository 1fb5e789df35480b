//! Traditional pipelines: YAML files of named stages, each an operator, run over tables and logged stage by stage.
//!
//! A new operator is one file in `operators/` and one line there.

mod columns;
mod error;
mod node;
mod operator;
mod operators;
mod params;
mod table;

pub use columns::{Columns, type_name};
pub use error::{OperatorError, PipelineError, Spot};
pub use operator::{Checked, Given, Input, Inputs, Learnt, Operator, OperatorKind, Outcome, Slot};
pub use params::Params;
pub use table::Table;
