//! TrainXGBoost: gradient boosted trees that grow level by level, as XGBoost's do; numeric, boolean and date columns,
//! missing values included.
//!
//! Parameters: `target`, `features` (default: every column but text), `exclude`; under XGBoost's names (LightGBM's and
//! those of Table 5.3 are taken too) `objective` (`regression` or `classification`), `eta` 0.3, `lambda` 1, `alpha` 0,
//! `max_depth` 6, `num_boost_round` 100, `min_child_weight` 1, `subsample` 1, `colsample_bytree` 1, `max_bin` 256, `seed` 0.
//! Without `alpha` the trees are XGBoost's; under it splits are weighed without the penalty's own cost, and trees differ.

use super::train::Train;
use crate::pipeline::error::PipelineError;
use crate::pipeline::models::boosting::{Boost, Common, Defaults};
use crate::pipeline::models::features::Features;
use crate::pipeline::operator::{Operator, OperatorKind, Slot};
use crate::pipeline::params::Params;

const NAME: &str = "TrainXGBoost";

pub(crate) const KIND: OperatorKind = OperatorKind { name: NAME, version: 1, inputs: &[Slot::Table], fit: None, parse };

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let defaults = Defaults { learning_rate: 0.3, max_depth: 6.0, l2: 1.0, max_bin: 256 };
    let common = Common::parse(params, &defaults)?;
    let min_leaf_weight =
        params.number_or("min_hessian", 1.0, "a number of at least 0", |n| (0.0..1e30).contains(&n))?;
    let boost = Boost { min_leaf_weight, ..Boost::new(common, None) };
    Ok(Box::new(Train { name: NAME, task: boost.task, features: Features::parse(params)?, learner: boost }))
}
