//! What a workflow offers the engine: to run a stored model again.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::model::ModelRecord;
use crate::store::Store;

/// Rows of one intermediate at full precision.
#[derive(Debug, Clone, PartialEq)]
pub enum RerunValues {
    /// A tensor.
    Tensor {
        /// Shape of a row.
        shape: Vec<usize>,
        /// Values, row-major.
        values: Vec<f32>,
    },
    /// A table, without its row_ids.
    Table(RecordBatch),
}

/// An intermediate from which a run can start, since it was read from the store.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Its name.
    pub intermediate: &'a str,
    /// Its values, exactly as they were logged.
    pub values: &'a RerunValues,
}

/// A layer or stage, as a node of its model's graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageNode {
    /// Name of the intermediate that it gives.
    pub name: String,
    /// The stages that it takes, by their place in the graph.
    pub inputs: Vec<usize>,
    /// Whether it also takes the dataset.
    pub takes_dataset: bool,
    /// Whether a row of it depends on other rows of its inputs, so that it runs over all of them or none.
    pub whole: bool,
}

/// Whether a model of a store can be run again, its operators and its dataset read and compared with what was logged; else
/// why not. It outlives the session that it is of: values leave the store in the background.
pub type Verifier = Arc<dyn Fn(&Store, &ModelRecord) -> std::result::Result<(), String> + Send + Sync>;

/// Runs models again. Implemented by workflows, one a kind of model; the engine knows none of them.
pub trait Rerun: Send + Sync {
    /// Whether this workflow runs models of that kind.
    fn runs(&self, model: &ModelRecord) -> bool;

    /// The device on which it runs models, under which their costs are kept.
    fn device(&self) -> String;

    /// Whether `model` is ready to run: its description, weights and dataset are in memory.
    fn is_loaded(&self, model: &ModelRecord) -> bool;

    /// Why none of `model` can be run again here and now; `None` when it can. Cheap: called for plans.
    fn unavailable(&self, model: &ModelRecord) -> Option<String>;

    /// As [`Rerun::unavailable`], but after reading the operators and comparing them with what was logged.
    fn verify(&self, model: &ModelRecord) -> Option<String> {
        self.unavailable(model)
    }

    /// Why the model's dataset cannot be read, where that is told apart from `unavailable`: a run that starts from stored
    /// intermediates may not need it. Cheap.
    fn dataset_unavailable(&self, _model: &ModelRecord) -> Option<String> {
        None
    }

    /// As [`Rerun::dataset_unavailable`], but after reading the dataset and comparing its fingerprint.
    fn verify_dataset(&self, model: &ModelRecord) -> Option<String> {
        self.dataset_unavailable(model)
    }

    /// Why one stage of a model cannot be run, of a model whose stages have operators or files of their own; read and compared
    /// with what was logged where `verify` is set. Cheap otherwise.
    fn stage_unavailable(&self, model: &ModelRecord, stage: &str, verify: bool) -> Option<String> {
        let _ = (model, stage, verify);
        None
    }

    /// Why not all of `model` can be run, its operators and its dataset read and compared with what was logged where `verify`
    /// is set.
    fn lacks(&self, model: &ModelRecord, verify: bool) -> Option<String> {
        let operators = if verify { self.verify(model) } else { self.unavailable(model) };
        let dataset = || if verify { self.verify_dataset(model) } else { self.dataset_unavailable(model) };
        let stages = || match self.graph(model) {
            Ok(graph) => graph.iter().find_map(|stage| self.stage_unavailable(model, &stage.name, verify)),
            Err(e) => Some(e.to_string()),
        };
        operators.or_else(dataset).or_else(stages)
    }

    /// Tells for any store whether its models can be run again by such a workflow; without one of its own, none can, and
    /// values never leave.
    fn verifier(&self) -> Verifier {
        Arc::new(|_, model| Err(format!("nobody can tell whether {} can be run again", model.spec.key)))
    }

    /// Whether the model's dataset is open.
    fn holds_dataset(&self, model: &ModelRecord) -> bool {
        self.is_loaded(model)
    }

    /// Whether what a stage reads of the dataset is in memory already, where stages read it themselves.
    fn holds_input(&self, model: &ModelRecord, stage: &str) -> bool {
        let _ = (model, stage);
        false
    }

    /// Bytes that a run of the named stages over `n_rows` takes beside stored intermediates: operators that are not loaded,
    /// and, `from_dataset`, the rows as float32, or whole files that are not in memory; generated values are none. Cheap.
    fn input_bytes(&self, model: &ModelRecord, stages: &[&str], n_rows: u64, from_dataset: bool) -> u64 {
        let _ = (model, stages, n_rows, from_dataset);
        0
    }

    /// Rows that run at a time; `None` where a stage runs over all rows at once.
    fn batch_rows(&self) -> Option<u64> {
        None
    }

    /// The stages of `model` in an order in which they can run. Cheap after the first call: called for plans.
    ///
    /// Errors: `Rerun` when its description cannot be read.
    fn graph(&self, model: &ModelRecord) -> Result<Arc<Vec<StageNode>>>;

    /// The named intermediates for the given rows, run from `given` as far as that lies on the way, else from the dataset.
    ///
    /// `given` holds values of exactly `rows`, in their order; where the stages that follow are `whole`, of all rows.
    /// Shape: one output an intermediate, in the order of `intermediates`, its rows in the order of `rows`.
    /// Errors: `Rerun`.
    fn rerun(
        &self,
        model: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<RerunValues>>;
}
