//! Answers from a store: keys and selectors, plans, the [`ChunkReader`], and diagnostics.
//!
//! A [`Request`] names columns of an intermediate and rows; the [`ChunkReader`] answers it by READ or RERUN, whichever
//! the measured costs make cheaper, and says which it was.

#![deny(missing_docs)]

mod answer;
mod cache;
mod calibrate;
mod code_column;
mod codes;
mod column;
mod columns;
pub mod diagnostics;
mod error;
mod heatmap;
mod index;
mod materialize;
mod operand;
mod plan;
mod predicate;
mod reader;
mod reduction;
mod rows;
mod scan;
mod together;

pub use answer::{Answer, Data, Source};
pub use cache::AnswerStats;
pub use calibrate::{Calibration, Figure};
pub use column::{Cell, Column};
pub use columns::{Columns, TensorColumns};
pub use error::{QueryError, Result};
pub use heatmap::{HeatMap, Picture};
pub use index::{ByExample, Example, Examples, HnswMade, IndexUse, Neighbours, Norm, Serving, Used};
pub use materialize::GammaRecord;
pub use operand::{Operand, OperandScan, Wanted};
pub use plan::{Considered, Explanation, PlanChoice};
pub use predicate::{Compare, Comparison, Predicate, Term};
pub use reader::{ChunkReader, Demand, Request};
pub use rows::RowSelection;
pub use scan::{Block, Joined, Scan, Unit};
pub use together::get_together;
