//! How well one column of scores tells class 1 from class 0.

use super::confusion::{ClassScores, Confusion, confusion};
use super::curves::{Calibration, Curves, ReliabilityBin, curves};
use super::labels::{Class, Labelled};
use super::metrics::Scores;
use crate::error::{QueryError, Result};

/// How good scores of class 1 are.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryMetrics {
    /// ROC, precision and recall over all thresholds.
    pub curves: Curves,
    /// The score from which on class 1 is predicted.
    pub threshold: f64,
    /// Those predictions against labels.
    pub confusion: Confusion,
    /// Precision, recall and F1 of class 1; `None` where it is neither predicted nor true.
    pub positive: Option<ClassScores>,
    /// What the scores were taken for.
    pub scores: Scores,
    /// Mean of −ln p of the true class, p no less than 2⁻⁵²; `None` without rows.
    pub log_loss: Option<f64>,
    /// Expected calibration error of the probability of class 1.
    pub calibration_error: Option<f64>,
    /// The bins of that: the mean probability of class 1, and the share of rows that are of it.
    pub reliability: Vec<ReliabilityBin>,
}

/// The metrics of scores against labels of 0 and 1 (or false and true). What is not said is found: scores that all lie
/// in 0..1 are probabilities, others logits; class 1 is predicted from a probability of ½ on. Rows whose score or label is null or NaN are left out.
///
/// Errors: `Mismatch` for other labels; as [`crate::Scan::read`].
pub fn binary_metrics(
    labelled: Labelled<'_, '_>,
    scores: Option<Scores>,
    threshold: Option<f64>,
    n_bins: usize,
) -> Result<BinaryMetrics> {
    let (mut values, mut is_positive) = (Vec::with_capacity(labelled.rows.len()), Vec::new());
    for ids in labelled.rows.chunks(labelled.block_rows()) {
        let scores = labelled.predicted.read(ids)?.to_f64(labelled.predicted.name())?;
        for (score, l) in scores.into_iter().zip(labelled.label.read(ids)?.to_f64(labelled.label.name())?) {
            if l != 0.0 && l != 1.0 && !l.is_nan() {
                return Err(QueryError::Mismatch {
                    what: labelled.label.name().to_string(),
                    why: format!("scores of one column need labels of 0 and 1, found {l}"),
                });
            }
            // A row without a label says nothing, like one without a score.
            values.push(if l.is_nan() { f64::NAN } else { score });
            is_positive.push(l == 1.0);
        }
    }
    let like = |v: &f64| v.is_nan() || (0.0..=1.0).contains(v);
    let guess = || if values.iter().all(like) { Scores::Probabilities } else { Scores::Logits };
    let scores = scores.unwrap_or_else(guess);
    let (half, probability): (f64, fn(f64) -> f64) = match scores {
        Scores::Probabilities => (0.5, |v| v),
        Scores::Logits => (0.0, |v| 1.0 / (1.0 + (-v).exp())),
    };
    let threshold = threshold.unwrap_or(half);
    let mut calibration = Calibration::new(n_bins);
    let (mut loss, mut n) = (0.0, 0u64);
    for (score, is_positive) in values.iter().zip(&is_positive).filter(|(v, _)| !v.is_nan()) {
        let p = probability(*score);
        calibration.add(p, *is_positive);
        let of_truth = if *is_positive { p } else { 1.0 - p };
        loss -= of_truth.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln();
        n += 1;
    }
    let mut labelled = labelled.with_threshold(Some(threshold))?;
    let confusion = confusion(&mut labelled, None, None)?;
    let positive = labelled.name(&Class::Index(1));
    Ok(BinaryMetrics {
        curves: curves(&values, &is_positive),
        threshold,
        positive: confusion.by_class().into_iter().find(|c| c.class == positive),
        confusion,
        scores,
        log_loss: (n > 0).then(|| loss / n as f64),
        calibration_error: calibration.expected_error(),
        reliability: calibration.bins(),
    })
}
