//! What a workflow offers the engine: to run a stored model again.

use crate::error::Result;
use crate::model::ModelRecord;

/// Rows of one intermediate, as a RERUN produced them.
#[derive(Debug, Clone, PartialEq)]
pub struct RerunOutput {
    /// Shape of a row.
    pub shape: Vec<usize>,
    /// Values, row-major, in the order in which rows were asked for.
    pub values: Vec<f32>,
}

/// Runs models again. Implemented by workflows, one a kind of model; the engine knows none of them.
pub trait Rerun: Send + Sync {
    /// Whether this workflow runs models of that kind.
    fn runs(&self, model: &ModelRecord) -> bool;

    /// The device on which it runs models, under which their costs are kept.
    fn device(&self) -> String;

    /// Whether `model` is ready to run: its description, weights and dataset are in memory.
    fn is_loaded(&self, model: &ModelRecord) -> bool;

    /// Why `model` cannot be run again here and now; `None` when it can. Cheap: called for plans.
    fn unavailable(&self, model: &ModelRecord) -> Option<String>;

    /// The given intermediates for the given rows.
    ///
    /// Shape: one output an intermediate, in the order of `intermediates`.
    /// Errors: `Rerun`.
    fn rerun(&self, model: &ModelRecord, intermediates: &[String], rows: &[u64]) -> Result<Vec<RerunOutput>>;
}
