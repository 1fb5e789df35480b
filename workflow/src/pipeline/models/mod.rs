//! What the training operators learn: a model and the columns that it reads, kept as compressed JSON.
//!
//! Numbers are written so that they read back bit for bit; the same model gives the same bytes on every machine.

pub(crate) mod boosting;
pub(crate) mod features;
pub(crate) mod linear;
mod log_loss;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::boosting::Boosting;
use self::features::Matrix;
use self::linear::Linear;
use super::columns::Columns;
use super::error::OperatorError;
use super::operator::{Checked, Outcome};

/// Format of the bytes: JSON under zstd.
pub(crate) const FORMAT: &str = "json.zst";
/// Raised when an older build could not read what this one writes.
const VERSION: u32 = 1;
const LEVEL: i32 = 19;
/// More than any model takes: a damaged length must not take all memory.
const MAX_BYTES: usize = 1 << 30;

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Task {
    /// A number.
    Regression,
    /// The probability that a target of 0 and 1 is 1.
    Classification,
}

impl Task {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Task::Regression => "regression",
            Task::Classification => "classification",
        }
    }
}

/// A trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trained {
    version: u32,
    pub(crate) task: Task,
    /// Columns that it reads, in order.
    pub(crate) features: Vec<String>,
    pub(crate) model: Model,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Model {
    Boosting(Boosting),
    Linear(Linear),
}

impl Trained {
    pub(crate) fn new(task: Task, features: Vec<String>, model: Model) -> Self {
        Self { version: VERSION, task, features, model }
    }

    /// The bytes to keep.
    ///
    /// Errors: `Overflow` for a model with a number that is none: it could not be read again; `Library`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, OperatorError> {
        if !self.model.is_finite() {
            return Err(OperatorError::Overflow);
        }
        let failed = |source| OperatorError::Library { doing: "writing the model", source };
        let json = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        zstd::bulk::compress(&json, LEVEL).map_err(|e| failed(e.into()))
    }

    /// The model of such bytes.
    ///
    /// Errors: `Learnt`.
    pub(crate) fn from_bytes(operator: &'static str, bytes: &[u8]) -> Result<Self, OperatorError> {
        let failed = |why: String| OperatorError::Learnt { operator, why };
        let json = zstd::bulk::decompress(bytes, zstd_len(bytes)).map_err(|e| failed(e.to_string()))?;
        let trained: Self = serde_json::from_slice(&json).map_err(|e| failed(e.to_string()))?;
        if trained.version != VERSION {
            return Err(failed(format!("its version is {}, readable is {VERSION}", trained.version)));
        }
        trained.model.check(trained.features.len()).map_err(failed)?;
        Ok(trained)
    }

    /// A value a row: the prediction, or the probability of 1.
    ///
    /// Errors: `Value` for a missing value where the model has no place for one.
    pub(crate) fn predict(&self, matrix: &Matrix) -> Result<Vec<f64>, OperatorError> {
        let mut scores = match &self.model {
            Model::Boosting(model) => model.predict(matrix),
            Model::Linear(model) => model.predict(matrix)?,
        };
        if self.task == Task::Classification {
            scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp()));
        }
        Ok(scores)
    }

    /// What a training stage announces that reads the columns `needs`.
    pub(crate) fn checked(needs: Columns, task: Task) -> Checked {
        Checked { needs: Some(needs), about: [("task", task.name().to_owned())].into(), ..Checked::default() }
    }

    /// What a training stage gives: no table, but figures.
    pub(crate) fn outcome(&self) -> Outcome {
        let figures: Vec<(&str, f64)> = match &self.model {
            Model::Boosting(m) => vec![("trees", m.n_trees() as f64), ("leaves", m.n_leaves() as f64)],
            Model::Linear(m) => {
                let is_said = m.iterations > 0 || m.converged.is_some();
                let iterations = is_said.then(|| ("iterations", f64::from(m.iterations)));
                let converged = m.converged.map(|c| ("converged", f64::from(u8::from(c))));
                iterations.into_iter().chain(converged).chain([("nonzero", m.n_nonzero() as f64)]).collect()
            }
        };
        let all = figures.into_iter().chain([("features", self.features.len() as f64)]);
        Outcome { metrics: all.map(|(name, value)| (name.to_owned(), value)).collect(), ..Outcome::default() }
    }
}

/// Refuses a target of classes that is always the same.
fn check_classes(target: &[f64]) -> Result<(), OperatorError> {
    if target.iter().all(|t| Some(t) == target.first()) {
        let why = "it has the same value in every row: there is nothing to tell apart".to_owned();
        return Err(OperatorError::Param { param: "target", why });
    }
    Ok(())
}

/// The length that the frame itself states, within bounds.
fn zstd_len(bytes: &[u8]) -> usize {
    zstd::bulk::Decompressor::upper_bound(bytes).unwrap_or(MAX_BYTES).min(MAX_BYTES)
}

impl Model {
    /// Whether all its numbers are finite; those of a training that overflowed are not.
    fn is_finite(&self) -> bool {
        match self {
            Model::Boosting(model) => model.is_finite(),
            Model::Linear(model) => model.is_finite(),
        }
    }

    /// Whether it fits `n_features` columns; a damaged one would not.
    fn check(&self, n_features: usize) -> Result<(), String> {
        match self {
            Model::Boosting(model) => model.check(n_features),
            Model::Linear(model) => model.check(n_features),
        }
    }
}
