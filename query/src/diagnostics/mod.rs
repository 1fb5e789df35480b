//! Diagnostic techniques (Table 5.1). One file each. What runs over many rows reads them a range at a time.

mod binary;
mod confusion;
mod corr;
mod curves;
mod diff;
mod dist;
mod finite;
mod groups;
mod histogram;
mod knn;
mod labels;
mod mean;
mod metrics;
mod netdissect;
mod rounding;
mod rowdiff;
mod select;
mod similarity;
mod sums;
mod topk;

pub use binary::{BinaryMetrics, binary_metrics};
pub use confusion::{ClassScores, Confusion, confusion};
pub use corr::{CorrAnswer, Correlation, corr, pearson, ranks};
pub use curves::{Calibration, Curves, ReliabilityBin, curves};
pub use diff::{Changed, DiffAnswer, Difference, GroupDifference, diff, difference};
pub use dist::{DistAnswer, Distribution, QUANTILES, dist};
pub use histogram::{Histogram, histogram};
pub use knn::{KnnAnswer, Metric, Neighbours, Queries, knn, nearest_rows};
pub use labels::{Class, Labelled};
pub use mean::{MeanAnswer, mean};
pub use metrics::{ClassCurves, ClassMetrics, NumberMetrics, Scores, class_metrics, number_metrics};
pub use netdissect::{Dissection, Masks, Thresholds, netdissect, unit_thresholds};
pub use rowdiff::{ColumnDifference, rowdiff};
pub use select::{Selected, select};
pub use similarity::{MapsAs, Measure, Side, Similarities, Similarity, similarities, similarity};
pub use topk::{By, Extreme, Ranking, Top, TopAnswer, top_k, topk};
