//! TrainElasticNet: linear regression with both penalties, as scikit-learn's ElasticNet; numeric, boolean and date columns
//! without missing values.
//!
//! Parameters: `target`, `features` (default: every column but text), `exclude`, `alpha` 1, `l1_ratio` 0.5, `tol` 0.0001,
//! `max_iter` 1000, `normalize` false (each column is centred and divided by its vector's length before, as scikit-learn
//! did up to 1.1).

use super::train::Train;
use crate::pipeline::error::PipelineError;
use crate::pipeline::models::Task;
use crate::pipeline::models::features::Features;
use crate::pipeline::models::linear::Elastic;
use crate::pipeline::operator::{Operator, OperatorKind, Slot};
use crate::pipeline::params::Params;

const NAME: &str = "TrainElasticNet";

pub(crate) const KIND: OperatorKind = OperatorKind { name: NAME, version: 2, inputs: &[Slot::Table], fit: None, parse };

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let elastic = Elastic {
        alpha: params.number_or("alpha", 1.0, "a number of at least 0", |n| (0.0..1e30).contains(&n))?,
        l1_ratio: params.number_or("l1_ratio", 0.5, "a number from 0 to 1", |n| (0.0..=1.0).contains(&n))?,
        tol: params.number_or("tol", 1e-4, "a number above 0", |n| n > 0.0 && n < 1e30)?,
        max_iter: params.whole_or("max_iter", 1000, 1..=1_000_000)? as u32,
        normalize: params.flag_or("normalize", false)?,
    };
    Ok(Box::new(Train { name: NAME, task: Task::Regression, features: Features::parse(params)?, learner: elastic }))
}
