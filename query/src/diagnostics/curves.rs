//! Curves of a score that is to tell one class from the others: ROC, precision and recall, calibration. As scikit-learn
//! defines them.

/// Points of one threshold each, from the highest score down.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    /// Scores at and above which a row is taken for the class.
    pub thresholds: Vec<f64>,
    /// Share of the others that are taken for it, at each threshold.
    pub false_positive_rate: Vec<f64>,
    /// Share of its own that are: recall.
    pub true_positive_rate: Vec<f64>,
    /// Share of those taken for it that are of it.
    pub precision: Vec<f64>,
    /// Area under the ROC curve; `None` where one side has no row.
    pub auroc: Option<f64>,
    /// Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ; `None` where no row is of the class.
    pub average_precision: Option<f64>,
}

/// The curves of scores and whether each row is of the class. Rows whose score is NaN are left out.
pub fn curves(scores: &[f64], positive: &[bool]) -> Curves {
    let mut pairs: Vec<(f64, bool)> =
        scores.iter().copied().zip(positive.iter().copied()).filter(|(s, _)| !s.is_nan()).collect();
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let n_positive = pairs.iter().filter(|p| p.1).count() as f64;
    let n_negative = pairs.len() as f64 - n_positive;
    let mut out = Curves::default();
    let (mut tp, mut fp) = (0.0, 0.0);
    let (mut area, mut average) = (0.0, 0.0);
    for same in pairs.chunk_by(|a, b| a.0 == b.0) {
        let n = same.iter().filter(|p| p.1).count() as f64;
        let (tp_before, fp_before) = (tp, fp);
        tp += n;
        fp += same.len() as f64 - n;
        area += (fp - fp_before) * (tp + tp_before) / 2.0;
        average += (tp - tp_before) * tp / (tp + fp);
        out.thresholds.extend(same.first().map(|p| p.0));
        out.false_positive_rate.push(fp / n_negative);
        out.true_positive_rate.push(tp / n_positive);
        out.precision.push(tp / (tp + fp));
    }
    out.auroc = (n_positive > 0.0 && n_negative > 0.0).then(|| area / (n_positive * n_negative));
    out.average_precision = (n_positive > 0.0).then(|| average / n_positive);
    out
}

/// How confidence and truth agree in one range of confidence.
#[derive(Debug, Clone, PartialEq)]
pub struct ReliabilityBin {
    /// Least confidence, not included but for 0.
    pub from: f64,
    /// Greatest confidence, included.
    pub to: f64,
    /// Rows.
    pub n: u64,
    /// Mean confidence; `None` without rows.
    pub confidence: Option<f64>,
    /// Share of the rows whose prediction is true.
    pub accuracy: Option<f64>,
}

/// Confidence against truth, in bins of equal width over 0..1.
#[derive(Debug, Clone)]
pub struct Calibration {
    bins: Vec<(u64, f64, u64)>,
}

impl Calibration {
    /// `n_bins` empty bins, at least one.
    pub fn new(n_bins: usize) -> Self {
        Self { bins: vec![(0, 0.0, 0); n_bins.max(1)] }
    }

    /// Adds a row's confidence in its prediction, and whether that is true. NaN is left out.
    pub fn add(&mut self, confidence: f64, right: bool) {
        if confidence.is_nan() {
            return;
        }
        let n = self.bins.len();
        let bin = ((confidence * n as f64).ceil() as usize).clamp(1, n) - 1;
        if let Some((count, sum, rights)) = self.bins.get_mut(bin) {
            *count += 1;
            *sum += confidence;
            *rights += u64::from(right);
        }
    }

    /// The bins.
    pub fn bins(&self) -> Vec<ReliabilityBin> {
        let n = self.bins.len() as f64;
        let bin = |(i, (count, sum, right)): (usize, &(u64, f64, u64))| ReliabilityBin {
            from: i as f64 / n,
            to: (i + 1) as f64 / n,
            n: *count,
            confidence: (*count > 0).then(|| sum / *count as f64),
            accuracy: (*count > 0).then(|| *right as f64 / *count as f64),
        };
        self.bins.iter().enumerate().map(bin).collect()
    }

    /// Expected calibration error: mean over the rows of |accuracy − confidence| of their bin. `None` without rows.
    /// Source: Guo et al., On Calibration of Modern Neural Networks (2017), eq. 3.
    pub fn expected_error(&self) -> Option<f64> {
        let n: u64 = self.bins.iter().map(|b| b.0).sum();
        let gap = |(_, sum, right): &(u64, f64, u64)| (*right as f64 - sum).abs();
        (n > 0).then(|| self.bins.iter().map(gap).sum::<f64>() / n as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // The example of scikit-learn's documentation: AUROC 0.75, average precision 0.83.
        let c = curves(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]);
        assert_eq!(c.auroc, Some(0.75));
        assert!((c.average_precision.unwrap() - 0.833_333_333).abs() < 1e-8);
        assert_eq!(c.thresholds, [0.8, 0.4, 0.35, 0.1]);
        assert_eq!(c.true_positive_rate, [0.5, 0.5, 1.0, 1.0]);
        assert_eq!(c.false_positive_rate, [0.0, 0.5, 0.5, 1.0]);
        // Ties count half; one side alone has no curve.
        assert_eq!(curves(&[0.5, 0.5], &[true, false]).auroc, Some(0.5));
        assert_eq!(curves(&[0.5, f64::NAN], &[true, false]).auroc, None);
        assert_eq!(curves(&[], &[]).average_precision, None);
    }

    #[test]
    fn calibration_by_hand() {
        let mut c = Calibration::new(2);
        assert_eq!(c.expected_error(), None);
        for (confidence, right) in [(0.5, true), (0.3, false), (1.0, true), (0.9, false), (f64::NAN, true)] {
            c.add(confidence, right);
        }
        let bins = c.bins();
        assert_eq!((bins[0].n, bins[0].confidence, bins[0].accuracy), (2, Some(0.4), Some(0.5)));
        assert_eq!((bins[1].from, bins[1].to, bins[1].n), (0.5, 1.0, 2));
        assert!((c.expected_error().unwrap() - (0.1 * 2.0 + 0.45 * 2.0) / 4.0).abs() < 1e-12);
    }
}
