//! Diagnostic techniques over fetched values (Table 5.1). One file each.

mod diff;
mod histogram;
mod knn;
mod topk;

pub use diff::{Difference, difference};
pub use histogram::{Histogram, histogram};
pub use knn::{Metric, nearest_rows};
pub use topk::{By, Extreme, Ranking, Top, TopAnswer, top_k, topk};
