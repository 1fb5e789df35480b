//! Indexes: built by running a question's fetches once, used by questions without being told.

mod bounds;
mod build;
mod by_example;
mod group;
mod hnsw;
mod serving;

pub use bounds::Norm;
pub use by_example::{ByExample, Example, Examples, IndexUse, Used};
pub use hnsw::{HnswMade, Neighbours};
pub use serving::Serving;
