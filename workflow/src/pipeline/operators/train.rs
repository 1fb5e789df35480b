//! What the training operators share: each learns a model from a table's columns, and keeps its bytes.

use std::fmt::Debug;

use crate::pipeline::data::Data;
use crate::pipeline::error::OperatorError;
use crate::pipeline::models::boosting::Boost;
use crate::pipeline::models::features::{Features, Matrix};
use crate::pipeline::models::linear::{Elastic, Logistic};
use crate::pipeline::models::{FORMAT, Model, Task, Trained};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, Outcome};

/// A way to learn a model.
pub(super) trait Learner: Debug + Send + Sync {
    /// The model of a matrix of columns and a target.
    ///
    /// Errors: any.
    fn learn(&self, matrix: &Matrix, target: &[f64]) -> Result<Model, OperatorError>;
}

impl Learner for Boost {
    fn learn(&self, matrix: &Matrix, target: &[f64]) -> Result<Model, OperatorError> {
        self.train(matrix, target).map(Model::Boosting)
    }
}

impl Learner for Elastic {
    fn learn(&self, matrix: &Matrix, target: &[f64]) -> Result<Model, OperatorError> {
        self.train(matrix, target).map(Model::Linear)
    }
}

impl Learner for Logistic {
    fn learn(&self, matrix: &Matrix, target: &[f64]) -> Result<Model, OperatorError> {
        self.train(matrix, target).map(Model::Linear)
    }
}

/// A training operator.
#[derive(Debug)]
pub(super) struct Train<L> {
    /// The operator's name.
    pub(super) name: &'static str,
    /// What is predicted.
    pub(super) task: Task,
    /// Target, and the columns to learn from.
    pub(super) features: Features,
    /// How.
    pub(super) learner: L,
}

impl<L: Learner> Operator for Train<L> {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        Ok(Trained::checked(self.features.check(given.table()?)?, self.task))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let (matrix, target) = self.features.read(inputs.table(0)?, self.task)?;
        let model = self.learner.learn(&matrix, &target)?;
        Trained::new(self.task, matrix.names, model).to_bytes().map(Some)
    }

    fn format(&self) -> &'static str {
        FORMAT
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        Ok(Trained::from_bytes(self.name, inputs.own(self.name)?)?.outcome())
    }
}
