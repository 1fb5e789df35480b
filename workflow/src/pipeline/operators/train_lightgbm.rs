//! TrainLightGBM: gradient boosted trees that grow by the leaf that gains most, as LightGBM's do; numeric, boolean and
//! date columns, missing values included.
//!
//! Parameters: `target`, `features` (default: every column but text), `exclude`; under LightGBM's names (XGBoost's and
//! those of Table 5.3 are taken too) `objective` (`regression` or `classification`), `learning_rate` 0.1, `num_leaves` 31,
//! `max_depth` none, `min_data` 20, `min_hessian` 0.001, `sub_feature` 1, `bagging_fraction` 1 (rows are drawn anew for
//! every tree), `lambda` 0, `alpha` 0, `num_boost_round` 100, `max_bin` 255, `seed` 0. In a classification, leaves are
//! bounded by the sum of second derivatives, in which a row counts for a quarter at most: `min_data` is taken so.

use super::train::Train;
use crate::pipeline::error::PipelineError;
use crate::pipeline::models::Task;
use crate::pipeline::models::boosting::{Boost, Common, Defaults};
use crate::pipeline::models::features::Features;
use crate::pipeline::operator::{Operator, OperatorKind, Slot};
use crate::pipeline::params::Params;

const NAME: &str = "TrainLightGBM";

pub(crate) const KIND: OperatorKind = OperatorKind { name: NAME, version: 1, inputs: &[Slot::Table], fit: None, parse };

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let defaults = Defaults { learning_rate: 0.1, max_depth: -1.0, l2: 0.0, max_bin: 255 };
    let common = Common::parse(params, &defaults)?;
    let num_leaves = params.whole_or("num_leaves", 31, 2..=1 << 20)?;
    let min_data = params.whole_or("min_data", 20, 0..=1 << 40)? as f64;
    let min_hessian = params.number_or("min_hessian", 1e-3, "a number of at least 0", |n| (0.0..1e30).contains(&n))?;
    let of_a_row = match common.task {
        Task::Regression => 1.0,
        Task::Classification => 0.25,
    };
    let min_leaf_weight = min_hessian.max(min_data * of_a_row);
    let boost = Boost { min_leaf_weight, ..Boost::new(common, Some(num_leaves as usize)) };
    Ok(Box::new(Train { name: NAME, task: boost.task, features: Features::parse(params)?, learner: boost }))
}
