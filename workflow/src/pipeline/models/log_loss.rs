//! What a logistic regression makes small, and its slopes.

use argmin::core::{CostFunction, Error, Gradient};
use ndarray::ArrayView1;

use super::features::Matrix;

/// The sum of log losses + penalty/2·|w|². A point is the weights of the columns, and behind them the intercept, which is
/// not penalized.
#[derive(Clone, Copy)]
pub(super) struct LogLoss<'a> {
    pub(super) matrix: &'a Matrix,
    /// 0 or 1 a row.
    pub(super) target: &'a [f64],
    pub(super) penalty: f64,
}

impl LogLoss<'_> {
    /// Every row's log odds of 1.
    fn scores(&self, at: &[f64]) -> Vec<f64> {
        let Some((intercept, weights)) = at.split_last() else { return Vec::new() };
        let mut scores = vec![*intercept; self.target.len()];
        for ((_, column), weight) in self.matrix.columns().zip(weights) {
            scores.iter_mut().zip(column).for_each(|(score, value)| *score += weight * value);
        }
        scores
    }

    /// The loss at a point.
    pub(super) fn value(&self, at: &[f64]) -> f64 {
        let weights = at.split_last().map_or(at, |(_, weights)| weights);
        let penalty = self.penalty / 2.0 * weights.iter().map(|w| w * w).sum::<f64>();
        let losses = self.scores(at).into_iter().zip(self.target).map(|(score, target)| {
            let against = if *target == 1.0 { -score } else { score };
            // ln(1 + exp(against)), which must not overflow.
            against.max(0.0) + (-against.abs()).exp().ln_1p()
        });
        losses.sum::<f64>() + penalty
    }

    /// How steep it is there, along every weight and the intercept.
    pub(super) fn slopes(&self, at: &[f64]) -> Vec<f64> {
        let residuals = self.scores(at).into_iter().zip(self.target);
        let residuals: Vec<f64> = residuals.map(|(score, target)| 1.0 / (1.0 + (-score).exp()) - target).collect();
        let residuals = ArrayView1::<f64>::from(&residuals);
        let along = |((_, column), weight): ((&str, &[f64]), &f64)| {
            ArrayView1::<f64>::from(column).dot(&residuals) + self.penalty * weight
        };
        self.matrix.columns().zip(at).map(along).chain([residuals.sum()]).collect()
    }
}

impl CostFunction for LogLoss<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, at: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.value(at))
    }
}

impl Gradient for LogLoss<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, at: &Vec<f64>) -> Result<Vec<f64>, Error> {
        Ok(self.slopes(at))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn by_hand() {
        let matrix = Matrix { names: vec!["x".to_owned()], rows: Arc::new(vec![0, 1]), values: vec![1.0, -1.0] };
        let loss = LogLoss { matrix: &matrix, target: &[1.0, 0.0], penalty: 0.5 };
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            let is_close = |(f, e): (&f64, &f64)| (f - e).abs() < 1e-12;
            assert!(found.iter().zip(expected).all(is_close), "{found:?} instead of {expected:?}");
        };
        // Both rows are predicted as 1/2, the first 1/2 too low, the second as much too high.
        close(&[loss.value(&[0.0, 0.0])], &[2.0 * 2f64.ln()]);
        close(&loss.slopes(&[0.0, 0.0]), &[-1.0, 0.0]);
        // 3/4 and 1/4: both losses are ln 4/3.
        let w = 3f64.ln();
        close(&[loss.value(&[w, 0.0])], &[2.0 * (4.0 / 3.0f64).ln() + 0.25 * w * w]);
        close(&loss.slopes(&[w, 0.0]), &[-0.5 + 0.5 * w, 0.0]);
        // With an intercept of the same both scores are ln 9 and 0: 9/10 and 1/2.
        close(&[loss.value(&[w, w])], &[(10.0 / 9.0f64).ln() + 2f64.ln() + 0.25 * w * w]);
        close(&loss.slopes(&[w, w]), &[-0.1 - 0.5 + 0.5 * w, 0.4]);
        // As large as scores get, nothing overflows.
        close(&[loss.value(&[0.0, 1e4])], &[1e4]);
        close(&loss.slopes(&[0.0, -1e4]), &[-1.0, -1.0]);
    }
}
