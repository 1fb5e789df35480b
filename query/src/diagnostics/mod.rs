//! Diagnostic techniques over fetched values (Table 5.1). One file each.

mod diff;
mod finite;
mod histogram;
mod knn;
mod netdissect;
mod similarity;
mod topk;

pub use diff::{Difference, difference};
pub use histogram::{Histogram, histogram};
pub use knn::{Metric, nearest_rows};
pub use netdissect::{Dissection, Masks, Thresholds, netdissect, unit_thresholds};
pub use similarity::{MapsAs, Measure, Side, Similarities, Similarity, similarities, similarity};
pub use topk::{By, Extreme, Ranking, Top, TopAnswer, top_k, topk};
