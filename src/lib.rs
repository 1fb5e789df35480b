//! Mistique stores model intermediates (every layer's activations, for every example and every epoch) small, and answers
//! diagnostic questions about them by reading what is stored or running the model again, whichever is faster.
//!
//! This crate is the face: it re-exports what a program needs of the parts below it, and holds the `mistique` command.
//!
//! ```
//! use mistique::{ChunkReader, IfExists, LogOptions, ModelKey, ModelSpec, Request, Store, TensorSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("store.mq");
//! let store = Store::open_or_create(&path)?;
//! let mut log = store.logger(LogOptions::default())?;
//! let model = log.model(&ModelSpec::raw(ModelKey::new("demo", "mlp")), IfExists::Continue)?;
//! let hidden = log.tensor(model, &TensorSpec::new("hidden", &[4]))?;
//! log.append(hidden, &[0, 1], vec![0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])?;
//! log.commit()?;
//!
//! let reader = ChunkReader::new(&store);
//! let answer = reader.get(&Request::new("demo.mlp.hidden.u3".parse()?))?;
//! assert_eq!(answer.rows, [0, 1]);
//! assert_eq!(answer.into_f32()?, [3.0, 7.0]);
//! # Ok(()) }
//! ```

#[doc(hidden)]
pub mod cli;
pub mod workload;

use cli::reader as cli_reader;

mod masks;

/// What only the command line needs of the engine.
mod engine_types {
    pub use mistique_engine::{IntermediateStats, Saved, StageRecord, nearest};
}

pub use masks::{MaskError, MaskFolder};
pub use mistique_datasets as datasets;
pub use mistique_datasets::{Dataset, DatasetError, Spec};
pub use mistique_engine::{
    Candidate, Code, ColumnDemand, CompactReport, Content, Damage, DatasetSpec, Dedup, Effort, EngineError,
    Fingerprint, GcReport, Handle, IfExists, IndexRecord, IntermediateKey, IntermediateRecord, Key, LocalStorage,
    LogOptions, LogReport, Logger, MapValue, Materialize, MaterializeReport, ModelHandle, ModelKey, ModelKind,
    ModelRecord, ModelSpec, OnUnholdable, Rerun, RerunValues, RowSet, Rows, Scheme, Storage, Store, StoreOptions,
    StoreStats, TensorSource, TensorSpec, UnitAxis, UnitError, Values, VerifyReport, gamma, within_budget,
};
pub use mistique_query::{
    Answer, AnswerStats, ByExample, Calibration, ChunkReader, Considered, Data, Demand, Example, Examples, Explanation,
    Figure, GammaRecord, HeatMap, HnswMade, IndexUse, Neighbours, Norm, Picture, PlanChoice, Predicate, QueryError,
    Request, RowSelection, Scan, Serving, Source, diagnostics, get_together,
};
pub use mistique_workflow::pipeline;

/// One value a row: what predicates, groups and labels are made of.
pub mod operands {
    pub use mistique_query::{Cell, Column, Operand, OperandScan, Wanted};
}

pub use mistique_workflow::{
    CandleSource, Device, Executor, Input, LayerPattern, Network, NetworkError, NetworkRerun, RunOptions, RunReport,
    Trainer, TrainingLogger, Weights, WorkflowError, log_intermediates,
};
