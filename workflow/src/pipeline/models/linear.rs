//! Linear models: a number a column, and an intercept.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_elasticnet::ElasticNetParams;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, ShapeBuilder};
use serde::{Deserialize, Serialize};

use super::features::Matrix;
use crate::pipeline::error::OperatorError;
use crate::pipeline::table::constant;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Linear {
    pub(crate) intercept: f64,
    pub(crate) coefficients: Vec<f64>,
    /// Passes over the data that training took; 0 where it does not say.
    pub(crate) iterations: u32,
}

/// How to train an elastic net; least is 1/(2n)·|y − Xw|² + alpha·l1_ratio·|w|₁ + alpha·(1 − l1_ratio)/2·|w|².
#[derive(Debug)]
pub(crate) struct Elastic {
    pub(crate) alpha: f64,
    pub(crate) l1_ratio: f64,
    pub(crate) tol: f64,
    pub(crate) max_iter: u32,
    /// Whether every column is divided by the length of its centred vector before.
    pub(crate) normalize: bool,
}

/// How to train a logistic regression; least is the sum of log losses + |w|²/(2·c).
#[derive(Debug)]
pub(crate) struct Logistic {
    pub(crate) c: f64,
    pub(crate) tol: f64,
    pub(crate) max_iter: u64,
}

/// What the sum of all squares and the penalty stay below: far beyond columns on which the solver gets on, and so small
/// that their products while training are finite.
const ROOM: f64 = 1e40;
/// The share of the loss below which a gain may be lost in rounding.
const ROUNDING: f64 = 1e-9;

fn library<E: std::error::Error>(doing: &'static str) -> impl Fn(E) -> OperatorError {
    move |e| OperatorError::Library { doing, source: e.to_string().into() }
}

/// The columns in memory one after another, as coordinate descent walks over them.
fn array(values: Vec<f64>, n_rows: usize, n_columns: usize) -> Result<Array2<f64>, OperatorError> {
    Array2::from_shape_vec((n_rows, n_columns).f(), values).map_err(library("laying out the columns"))
}

impl Elastic {
    /// Trains; a column of one value has the weight 0.
    ///
    /// Errors: `Value` for a missing value, `Overflow`, `Library`.
    pub(crate) fn train(&self, matrix: &Matrix, target: &[f64]) -> Result<Linear, OperatorError> {
        matrix.check(false)?;
        let n = matrix.n_rows();
        let mut values = Vec::with_capacity(matrix.values.len());
        let mut centres = Vec::with_capacity(matrix.names.len());
        for (_, column) in matrix.columns() {
            // A mean that is not exact would leave a column of one value something to be weighed.
            let only = constant(column.iter().copied());
            let mean = only.unwrap_or_else(|| column.iter().sum::<f64>() / n as f64);
            let squares: f64 = column.iter().map(|v| (v - mean).powi(2)).sum();
            if !squares.is_finite() {
                return Err(OperatorError::Overflow);
            }
            let length = if self.normalize && squares > 0.0 { squares.sqrt() } else { 1.0 };
            values.extend(column.iter().map(|v| (v - mean) / length));
            centres.push((mean, length));
        }
        // linfa centres the target alone, so the columns are centred here.
        let data = DatasetBase::new(array(values, n, centres.len())?, Array1::from_vec(target.to_vec()));
        let params = ElasticNetParams::new().penalty(self.alpha).l1_ratio(self.l1_ratio);
        let params = params.tolerance(self.tol).max_iterations(self.max_iter).with_intercept(true);
        let model = params.fit(&data).map_err(library("training the elastic net"))?;
        let weights = model.hyperplane().iter().zip(&centres);
        let coefficients: Vec<f64> = weights.map(|(w, (_, length))| w / length).collect();
        let shift: f64 = coefficients.iter().zip(&centres).map(|(c, (mean, _))| c * mean).sum();
        Ok(Linear { intercept: model.intercept() - shift, coefficients, iterations: model.n_steps() })
    }
}

impl Logistic {
    /// Trains on a target of 0 and 1.
    ///
    /// Errors: `Value` for a missing value, `Param` for a target that is always the same, `Overflow` for columns
    /// with which the solver does not get on, `Library`.
    pub(crate) fn train(&self, matrix: &Matrix, target: &[f64]) -> Result<Linear, OperatorError> {
        matrix.check(false)?;
        let classes: Array1<bool> = target.iter().map(|t| *t == 1.0).collect();
        if classes.iter().all(|c| Some(c) == classes.first()) {
            let why = "it has the same value in every row: there is nothing to tell apart".to_owned();
            return Err(OperatorError::Param { param: "target", why });
        }
        let penalty = 1.0 / self.c;
        let squares: Vec<f64> = matrix.columns().map(|(_, column)| column.iter().map(|v| v * v).sum()).collect();
        // The solver's line search never ends once the loss is NaN.
        if squares.iter().sum::<f64>() + penalty >= ROOM {
            return Err(OperatorError::Overflow);
        }
        let data = DatasetBase::new(array(matrix.values.clone(), matrix.n_rows(), matrix.names.len())?, classes);
        let params = LogisticRegression::default().alpha(penalty).max_iterations(self.max_iter);
        let model = params.gradient_tolerance(self.tol).fit(&data).map_err(library("training the regression"))?;
        // linfa calls the more frequent class the positive one.
        let sign = if model.labels().pos.class { 1.0 } else { -1.0 };
        let coefficients: Vec<f64> = model.params().iter().map(|w| w * sign).collect();
        let intercept = model.intercept() * sign;
        let has_moved = intercept != 0.0 || coefficients.iter().any(|w| *w != 0.0);
        if !has_moved && self.could_move(matrix, target, &squares) {
            return Err(OperatorError::Overflow);
        }
        Ok(Linear { intercept, coefficients, iterations: 0 })
    }

    /// Whether the start, where all is 0, is not yet the end: the gradient there is above the tolerance, and a step along
    /// one column alone would lower the loss by more than rounding does.
    fn could_move(&self, matrix: &Matrix, target: &[f64], squares: &[f64]) -> bool {
        let n = target.len() as f64;
        // Every row is predicted as 1/2 there.
        let residuals = || target.iter().map(|t| 0.5 - t);
        let slope = |column: &[f64]| residuals().zip(column).map(|(r, v)| r * v).sum::<f64>();
        // A logistic loss curves by no more than a quarter.
        let columns = matrix.columns().zip(squares).map(|((_, c), s)| (slope(c), s / 4.0 + 1.0 / self.c));
        let all: Vec<(f64, f64)> = columns.chain([(residuals().sum::<f64>(), n / 4.0)]).collect();
        let length = all.iter().map(|&(slope, _)| slope * slope).sum::<f64>().sqrt();
        let least = ROUNDING * n * std::f64::consts::LN_2;
        length >= self.tol && all.iter().any(|&(slope, curve)| slope * slope > 2.0 * curve * least)
    }
}

impl Linear {
    pub(crate) fn n_nonzero(&self) -> usize {
        self.coefficients.iter().filter(|c| **c != 0.0).count()
    }

    pub(super) fn is_finite(&self) -> bool {
        self.intercept.is_finite() && self.coefficients.iter().all(|c| c.is_finite())
    }

    pub(super) fn check(&self, n_features: usize) -> Result<(), String> {
        match self.coefficients.len() {
            n if n == n_features => Ok(()),
            n => Err(format!("it has {n} coefficients for {n_features} columns")),
        }
    }

    /// The intercept and the columns' shares, added in their order.
    ///
    /// Errors: `Value` for a missing value.
    pub(super) fn predict(&self, matrix: &Matrix) -> Result<Vec<f64>, OperatorError> {
        matrix.check(false)?;
        let mut out = vec![self.intercept; matrix.n_rows()];
        for ((_, column), &coefficient) in matrix.columns().zip(&self.coefficients).filter(|(_, c)| **c != 0.0) {
            out.iter_mut().zip(column).for_each(|(sum, value)| *sum += coefficient * value);
        }
        Ok(out)
    }
}
