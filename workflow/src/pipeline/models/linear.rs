//! Linear models: a number a column, and an intercept.

use argmin::core::{Executor, State, TerminationReason};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_elasticnet::ElasticNetParams;
use ndarray::{Array1, Array2, ShapeBuilder};
use serde::{Deserialize, Serialize};

use super::check_classes;
use super::features::Matrix;
use super::log_loss::LogLoss;
use crate::pipeline::error::OperatorError;
use crate::pipeline::table::constant;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Linear {
    pub(crate) intercept: f64,
    pub(crate) coefficients: Vec<f64>,
    /// Steps that training took; 0 where it needed none, or an earlier build did not say.
    pub(crate) iterations: u32,
    /// Whether training ended because it was done; `None` where an earlier build did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) converged: Option<bool>,
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
/// How many steps the solver looks back to learn how the loss curves.
const HISTORY: usize = 10;

type Search = MoreThuenteLineSearch<Vec<f64>, Vec<f64>, f64>;
type Solver = LBFGS<Search, Vec<f64>, Vec<f64>, f64>;

fn library<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> OperatorError {
    move |e| OperatorError::Library { doing, source: e.to_string().into() }
}

/// The columns in memory one after another, as coordinate descent walks over them.
fn array(values: Vec<f64>, n_rows: usize, n_columns: usize) -> Result<Array2<f64>, OperatorError> {
    Array2::from_shape_vec((n_rows, n_columns).f(), values).map_err(library("laying out the columns"))
}

impl Elastic {
    /// Trains; a column of one value has the weight 0, and under a target of one value every column.
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
        // The solver would not find its end: with all zeros nothing is left to gain.
        if let Some(intercept) = constant(target.iter().copied()) {
            let coefficients = vec![0.0; centres.len()];
            return Ok(Linear { intercept, coefficients, iterations: 0, converged: Some(true) });
        }
        // linfa centres the target alone, so the columns are centred here.
        let data = DatasetBase::new(array(values, n, centres.len())?, Array1::from_vec(target.to_vec()));
        let params = ElasticNetParams::new().penalty(self.alpha).l1_ratio(self.l1_ratio);
        let params = params.tolerance(self.tol).max_iterations(self.max_iter).with_intercept(true);
        let model = params.fit(&data).map_err(library("training the elastic net"))?;
        let weights = model.hyperplane().iter().zip(&centres);
        let coefficients: Vec<f64> = weights.map(|(w, (_, length))| w / length).collect();
        let shift: f64 = coefficients.iter().zip(&centres).map(|(c, (mean, _))| c * mean).sum();
        // The last pass may be the one that was needed. A gap of 1 + tol was not looked at.
        let mean = target.iter().sum::<f64>() / n as f64;
        let squares: f64 = target.iter().map(|t| (t - mean).powi(2)).sum();
        let gap = model.duality_gap();
        let is_small = gap <= self.tol * squares && gap != 1.0 + self.tol;
        let converged = Some(model.n_steps() < self.max_iter || is_small);
        Ok(Linear { intercept: model.intercept() - shift, coefficients, iterations: model.n_steps(), converged })
    }
}

impl Logistic {
    /// Trains on a target of 0 and 1.
    ///
    /// Errors: `Value` for a missing value, `Param` for a target that is always the same, `Overflow` for columns
    /// with which the solver does not get on, `Library`.
    pub(crate) fn train(&self, matrix: &Matrix, target: &[f64]) -> Result<Linear, OperatorError> {
        matrix.check(false)?;
        check_classes(target)?;
        let penalty = 1.0 / self.c;
        let squares: Vec<f64> = matrix.columns().map(|(_, column)| column.iter().map(|v| v * v).sum()).collect();
        // The solver's line search never ends once the loss is NaN.
        if squares.iter().sum::<f64>() + penalty >= ROOM {
            return Err(OperatorError::Overflow);
        }
        let loss = LogLoss { matrix, target, penalty };
        let failed = "training the regression";
        let solver = Solver::new(Search::new(), HISTORY).with_tolerance_grad(self.tol).map_err(library(failed))?;
        let start = vec![0.0; matrix.names.len() + 1];
        let solving = Executor::new(loss, solver).configure(|s| s.param(start.clone()).max_iters(self.max_iter));
        let mut state = solving.run().map_err(library(failed))?.state;
        let mut best = state.take_best_param().unwrap_or(start);
        let could_move = self.could_move(&loss, &best, &squares);
        if could_move && best.iter().all(|w| *w == 0.0) {
            return Err(OperatorError::Overflow);
        }
        // The solver takes a step that changes nothing for the end, too.
        let is_done = matches!(state.get_termination_reason(), Some(TerminationReason::SolverConverged));
        let intercept = best.pop().unwrap_or_default();
        let (iterations, converged) = (state.get_iter() as u32, Some(is_done && !could_move));
        Ok(Linear { intercept, coefficients: best, iterations, converged })
    }

    /// Whether a point is not yet the end: the gradient there is above the tolerance, and a step along one column alone
    /// would lower the loss by more than rounding does.
    fn could_move(&self, loss: &LogLoss<'_>, at: &[f64], squares: &[f64]) -> bool {
        let slopes = loss.slopes(at);
        let length = slopes.iter().map(|slope| slope * slope).sum::<f64>().sqrt();
        // A logistic loss curves by no more than a quarter.
        let curves = squares.iter().map(|s| s / 4.0 + loss.penalty).chain([loss.target.len() as f64 / 4.0]);
        let least = ROUNDING * loss.value(at);
        length >= self.tol && slopes.iter().zip(curves).any(|(slope, curve)| slope * slope > 2.0 * curve * least)
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
