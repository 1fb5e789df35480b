//! How good predictions are: of classes or of numbers, over any rows.

use super::confusion::{ClassScores, Confusion, confusion};
use super::curves::{Calibration, Curves, ReliabilityBin, curves};
use super::diff::argmax;
use super::labels::{Class, Labelled};
use crate::error::Result;
use crate::operand::OperandScan;
use crate::reader::{ChunkReader, Request};
use crate::scan::Scan;

/// Bytes of scores that are held at a time.
const HELD_BYTES: usize = 64 << 20;

/// What the columns of a prediction are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Shares that add to 1.
    Probabilities,
    /// Numbers before a softmax (before a sigmoid, where there is one column).
    Logits,
}

/// One class against the others.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassCurves {
    /// The class.
    pub class: String,
    /// ROC, precision and recall over its scores.
    pub curves: Curves,
}

/// How good predicted classes are.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMetrics {
    /// Predictions against labels.
    pub confusion: Confusion,
    /// Precision, recall and F1 of each class.
    pub classes: Vec<ClassScores>,
    /// What the scores were taken for; `None` where only classes are known, or there is no row and nothing says it.
    pub scores: Option<Scores>,
    /// Rows with a label of which some score is NaN: they are in no curve of that class, and where scores are logits in none.
    pub n_nan: u64,
    /// Rows whose label is none of the columns: in the confusion matrix alone.
    pub n_other: u64,
    /// Mean of −ln p of the true class, p no less than 2⁻⁵²; `None` without scores.
    pub log_loss: Option<f64>,
    /// Each class against the others, by its probability; empty without scores.
    pub curves: Vec<ClassCurves>,
    /// Expected calibration error of the predicted class's probability.
    pub calibration_error: Option<f64>,
    /// The bins of that.
    pub reliability: Vec<ReliabilityBin>,
}

impl ClassMetrics {
    /// Mean over the classes of a score that some may lack; `None` where all do.
    pub fn macro_mean(&self, of: impl Fn(&ClassScores) -> Option<f64>) -> Option<f64> {
        mean(self.classes.iter().filter(|c| c.n_actual > 0 || c.n_predicted > 0).map(|c| of(c).unwrap_or(0.0)))
    }

    /// Mean area under the ROC curves of the classes that have one.
    pub fn mean_auroc(&self) -> Option<f64> {
        mean(self.curves.iter().filter_map(|c| c.curves.auroc))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u64), |(s, n), v| (s + v, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// The metrics of predicted classes: of `request`'s columns, one a class, or of one column of classes or (for two
/// classes, 0 and 1) of scores.
///
/// Errors: as [`confusion`] and [`ChunkReader::get`].
pub fn class_metrics(
    reader: &ChunkReader<'_>,
    request: &Request,
    labelled: &mut Labelled<'_, '_>,
    scores: Option<Scores>,
    n_bins: usize,
) -> Result<ClassMetrics> {
    let confusion = confusion(labelled, None, None)?;
    let mut metrics = ClassMetrics {
        classes: confusion.by_class(),
        confusion,
        scores: None,
        n_nan: 0,
        n_other: 0,
        log_loss: None,
        curves: Vec::new(),
        calibration_error: None,
        reliability: Vec::new(),
    };
    let scan = reader.scan(request)?;
    if scan.columns().len() < 2 {
        return Ok(metrics);
    }
    let rows = labelled.rows.clone();
    let given = scores;
    let scores = match scores {
        Some(scores) => scores,
        None => guess(&scan, &rows)?,
    };
    // What no row shows is not known.
    metrics.scores = if rows.is_empty() { given } else { Some(scores) };
    let n_classes = scan.columns().len();
    let at_once = (HELD_BYTES / (8 * rows.len().max(1))).clamp(1, n_classes);
    let mut calibration = Calibration::new(n_bins);
    let (mut loss, mut n_loss) = (0.0, 0u64);
    let mut truth: Vec<Option<usize>> = Vec::with_capacity(rows.len());
    let mut first = 0;
    while first < n_classes {
        let some = first..(first + at_once).min(n_classes);
        let mut held: Vec<Vec<f64>> = vec![Vec::with_capacity(rows.len()); some.len()];
        for ids in rows.chunks(scan.block_rows()) {
            let block = scan.read(ids)?;
            let labels = if first == 0 { labelled.read(ids)? } else { Vec::new() };
            for (i, row) in block.into_f64()?.chunks_exact(n_classes).enumerate() {
                let p = probabilities(row, scores);
                for (held, p) in held.iter_mut().zip(p.get(some.clone()).unwrap_or_default()) {
                    held.push(*p);
                }
                if first > 0 {
                    continue;
                }
                let class = match labels.get(i).and_then(|(_, l)| l.as_ref()) {
                    Some(Class::Index(c)) => usize::try_from(*c).ok().filter(|c| *c < n_classes),
                    _ => None,
                };
                truth.push(class);
                metrics.n_other += u64::from(class.is_none() && labels.get(i).is_some_and(|(_, l)| l.is_some()));
                metrics.n_nan += u64::from(class.is_some() && row.iter().any(|v| v.is_nan()));
                if let (Some(class), Some(guess)) = (class, argmax(&p)) {
                    let of = |c: usize| p.get(c).copied().unwrap_or(f64::NAN);
                    calibration.add(of(guess), guess == class);
                    if !of(class).is_nan() {
                        loss -= of(class).clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln();
                        n_loss += 1;
                    }
                }
            }
        }
        for (class, held) in some.clone().zip(held) {
            let positive: Vec<bool> = truth.iter().map(|t| *t == Some(class)).collect();
            // Rows whose label is none of the columns are in no curve.
            let known: Vec<f64> =
                held.iter().zip(&truth).map(|(s, t)| if t.is_some() { *s } else { f64::NAN }).collect();
            let class = labelled.name(&Class::Index(class as i128));
            metrics.curves.push(ClassCurves { class, curves: curves(&known, &positive) });
        }
        first = some.end;
    }
    metrics.log_loss = (n_loss > 0).then(|| loss / n_loss as f64);
    metrics.calibration_error = calibration.expected_error();
    metrics.reliability = calibration.bins();
    Ok(metrics)
}

/// Probabilities, where all rows look like them.
fn guess(scan: &Scan<'_, '_>, rows: &[u64]) -> Result<Scores> {
    let width = scan.columns().len().max(1);
    let mut total = 0.0;
    for ids in rows.chunks(scan.block_rows()) {
        // What a few bits hold of a row adds up to about 1, and of all rows to nearly that: bins stand for their means.
        let mut like = |row: &[f64]| {
            let sum = row.iter().sum::<f64>();
            total += sum;
            row.iter().all(|v| (-1e-3..=1.001).contains(v)) && (sum - 1.0).abs() < 0.5
        };
        if !scan.read(ids)?.into_f64()?.chunks_exact(width).all(&mut like) {
            return Ok(Scores::Logits);
        }
    }
    let is_one = (total / rows.len().max(1) as f64 - 1.0).abs() < 0.05;
    Ok(if is_one || rows.is_empty() { Scores::Probabilities } else { Scores::Logits })
}

/// A row's probabilities; a softmax from the largest down, so that nothing overflows.
fn probabilities(row: &[f64], scores: Scores) -> Vec<f64> {
    if scores == Scores::Probabilities {
        return row.to_vec();
    }
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|v| (v - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// How good predicted numbers are.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberMetrics {
    /// Pairs of finite values.
    pub n: u64,
    /// Rows in which either is null, NaN or infinite.
    pub n_missing: u64,
    /// Mean of (predicted − actual)²; this and all that follows `None` without pairs.
    pub mse: Option<f64>,
    /// Its root.
    pub rmse: Option<f64>,
    /// Mean of |predicted − actual|.
    pub mae: Option<f64>,
    /// Mean of predicted − actual.
    pub bias: Option<f64>,
    /// 1 − Σ(actual − predicted)² / Σ(actual − mean)²; `None` where all actual values are equal.
    pub r2: Option<f64>,
}

/// The metrics of predicted numbers against actual ones, over `rows`, which both have.
///
/// Errors: `Parse` for text; as [`crate::Scan::read`].
pub fn number_metrics(
    predicted: &OperandScan<'_, '_>,
    actual: &OperandScan<'_, '_>,
    rows: &[u64],
) -> Result<NumberMetrics> {
    let (mut n, mut n_missing) = (0u64, 0u64);
    let (mut squares, mut abs, mut sum) = (0.0, 0.0, 0.0);
    let (mut mean, mut m2) = (0.0, 0.0);
    for ids in rows.chunks(predicted.scan().block_rows().min(actual.scan().block_rows())) {
        let (p, a) = (predicted.read(ids)?, actual.read(ids)?);
        // Named apart, so that the error is of the side that is text.
        let (numbers, actual) = (p.to_f64(predicted.name())?, a.to_f64(actual.name())?);
        for ((p, a), d) in numbers.into_iter().zip(actual).zip(p.minus(&a, predicted.name())?) {
            if !p.is_finite() || !a.is_finite() {
                n_missing += 1;
                continue;
            }
            n += 1;
            squares += d * d;
            abs += d.abs();
            sum += d;
            let from_mean = a - mean;
            mean += from_mean / n as f64;
            m2 += from_mean * (a - mean);
        }
    }
    let over_n = |v: f64| (n > 0).then(|| v / n as f64);
    Ok(NumberMetrics {
        n,
        n_missing,
        mse: over_n(squares),
        rmse: over_n(squares).map(f64::sqrt),
        mae: over_n(abs),
        bias: over_n(sum),
        r2: (n > 0 && m2 > 0.0).then(|| 1.0 - squares / m2),
    })
}
