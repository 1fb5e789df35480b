//! TrainElasticNet: linear regression with both penalties, as scikit-learn's ElasticNet; numeric, boolean and date columns
//! without missing values.
//!
//! Parameters: `target`, `features` (default: every column but text), `exclude`, `alpha` 1, `l1_ratio` 0.5, `tol` 0.0001,
//! `max_iter` 1000, `normalize` false (each column is centred and divided by its vector's length before, as scikit-learn
//! did up to 1.1).

use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::models::features::Features;
use crate::pipeline::models::linear::Elastic;
use crate::pipeline::models::{FORMAT, Model, Task, Trained};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

const NAME: &str = "TrainElasticNet";

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: NAME, version: 1, inputs: &[Slot::Table], fit: false, parse };

#[derive(Debug)]
struct TrainElasticNet {
    features: Features,
    elastic: Elastic,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let elastic = Elastic {
        alpha: params.number_or("alpha", 1.0, "a number of at least 0", |n| (0.0..1e30).contains(&n))?,
        l1_ratio: params.number_or("l1_ratio", 0.5, "a number from 0 to 1", |n| (0.0..=1.0).contains(&n))?,
        tol: params.number_or("tol", 1e-4, "a number above 0", |n| n > 0.0 && n < 1e30)?,
        max_iter: params.whole_or("max_iter", 1000, 1..=1_000_000)? as u32,
        normalize: params.flag_or("normalize", false)?,
    };
    Ok(Box::new(TrainElasticNet { features: Features::parse(params)?, elastic }))
}

impl Operator for TrainElasticNet {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        Ok(Trained::checked(self.features.check(given.table()?)?, Task::Regression))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let (matrix, target) = self.features.read(inputs.table(0)?, Task::Regression)?;
        let model = Model::Linear(self.elastic.train(&matrix, &target)?);
        Trained::new(Task::Regression, matrix.names, model).to_bytes().map(Some)
    }

    fn format(&self) -> &'static str {
        FORMAT
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        Ok(Trained::from_bytes(NAME, inputs.own(NAME)?)?.outcome())
    }
}
