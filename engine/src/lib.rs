//! The DataStore of Mistique: data model, MetadataDB, partitions of ColumnChunks, InMemoryStore and exact
//! de-duplication.
//!
//! A [`Store`] is opened on a [`Storage`]; a [`Logger`] writes intermediates into it; [`Store::read_f32`] and
//! [`Store::read_table`] read them back. What a file holds, byte by byte, is in FORMAT.md.

#[cfg(target_endian = "big")]
compile_error!("stores are little-endian and mapped; a big-endian port has to swap bytes in codec.rs and column.rs");

mod amortised;
pub mod beside;
mod catalog;
mod chunk;
mod code_pages;
mod codec;
mod column;
mod copy;
pub mod cost;
mod counters;
mod error;
pub mod format;
mod index;
mod key;
mod log;
mod maintenance;
mod materialize;
mod model;
mod out;
mod partition;
mod pool;
mod read;
mod read_cost;
mod rerun;
mod row_plan;
mod rows;
mod run_cost;
mod similar;
mod stats;
mod storage;
mod store;
mod stream;
mod table_cost;
mod verify;

pub use catalog::{Catalog, CostRecord, ErrorRecord, IndexRecord, OperatorRecord, Readable, StageRecord};
pub use chunk::Zone;
pub use code_pages::{CodePage, PageRows};
pub use codec::TensorCodec;
pub use column::to_f64 as column_to_f64;
pub use error::{EngineError, Result, article, nearest};
pub use index::{
    ByExampleColumn, ByExampleOf, ByExampleSize, IndexFile, IndexKind, IndexValues, MapValue, NewIndex,
    by_example_index, thresholds_index,
};
pub use key::{IntermediateKey, Key, ModelKey, quote};
pub use log::{Dedup, Handle, IfExists, LogOptions, LogReport, Logger, ModelHandle, TensorSource, TensorSpec, Values};
pub use maintenance::{CompactReport, GcReport};
pub use materialize::{
    Balance, Candidate, ColumnDemand, Demand, GroupSize, Materialize, MaterializeReport, Materializer, Offer, gamma,
    parse_bytes, within_budget, worth_storing,
};
pub use mistique_quantize::{Code, Effort, MapShape, OnUnholdable, Scheme, UnitError};
pub use model::{
    Content, DatasetSpec, Fingerprint, IntermediateRecord, ModelKind, ModelRecord, ModelSpec, TableContent,
    TensorContent, TensorLayout, UnitAxis, fingerprint, hex,
};
pub use pool::PoolStats;
pub use rerun::{Given, Rerun, RerunValues, StageNode, Verifier};
pub use row_plan::{RowPlan, Rows};
pub use rows::{RowMask, RowSet};
pub use stats::{IntermediateStats, Saved, StoreStats};
pub use storage::{FaultMode, FaultyStorage, FileInfo, LocalStorage, MemoryStorage, ReadFile, Storage, WriteFile};
pub use store::{Store, StoreOptions};
pub use table_cost::TableWork;
pub use verify::{Damage, VerifyReport};
