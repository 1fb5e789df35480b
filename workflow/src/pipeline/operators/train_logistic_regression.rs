//! TrainLogisticRegression: the probability that a target of 0 and 1 (or false and true) is 1, as scikit-learn's
//! LogisticRegression; numeric, boolean and date columns without missing values. Put Scaling before it: the optimiser
//! does not get far with columns of very different size.
//!
//! Parameters: `target`, `features` (default: every column but text), `exclude`, `C` 1 (the inverse of the penalty), `tol`
//! 0.0001 (the gradient's length at which training ends), `max_iter` 1000. Figure `converged` is 0 where it did not get there.

use super::train::Train;
use crate::pipeline::error::PipelineError;
use crate::pipeline::models::Task;
use crate::pipeline::models::features::Features;
use crate::pipeline::models::linear::Logistic;
use crate::pipeline::operator::{Operator, OperatorKind, Slot};
use crate::pipeline::params::Params;

const NAME: &str = "TrainLogisticRegression";

pub(crate) const KIND: OperatorKind = OperatorKind { name: NAME, version: 2, inputs: &[Slot::Table], fit: None, parse };

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let positive = |n: f64| n > 0.0 && n < 1e30;
    let logistic = Logistic {
        c: params.number_or("C", 1.0, "a number above 0", positive)?,
        tol: params.number_or("tol", 1e-4, "a number above 0", positive)?,
        max_iter: params.whole_or("max_iter", 1000, 1..=1_000_000)?,
    };
    Ok(Box::new(Train {
        name: NAME,
        task: Task::Classification,
        features: Features::parse(params)?,
        learner: logistic,
    }))
}
