//! Gradient boosted trees: trained by forust, kept without what prediction does not need, and predicted here with the
//! same sums in the same order.

use forust_ml::gradientbooster::{GradientBooster, GrowPolicy};
use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::features::Matrix;
use super::{Task, check_classes};
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::params::Params;

/// Rows that a thread predicts at a time.
const BLOCK: usize = 4096;
/// Smaller trainings are quicker on one thread; the trees are the same.
const PARALLEL_CELLS: usize = 1 << 20;

/// How to train.
#[derive(Debug)]
pub(crate) struct Boost {
    pub(crate) task: Task,
    pub(crate) rounds: u64,
    pub(crate) learning_rate: f64,
    /// `None`: no limit.
    pub(crate) max_depth: Option<usize>,
    /// `None`: no limit, and trees grow level by level; otherwise by the best leaf.
    pub(crate) max_leaves: Option<usize>,
    pub(crate) l1: f64,
    pub(crate) l2: f64,
    /// Least sum of the loss's second derivatives in a leaf: for squared loss the number of its rows.
    pub(crate) min_leaf_weight: f64,
    /// Share of the rows, and of the columns, that are drawn for each tree.
    pub(crate) rows_share: f64,
    pub(crate) columns_share: f64,
    pub(crate) max_bin: u16,
    pub(crate) seed: u64,
}

/// Parameters that both trainers have, under the names of either library.
pub(crate) struct Common {
    pub(crate) task: Task,
    pub(crate) rounds: u64,
    pub(crate) learning_rate: f64,
    pub(crate) max_depth: Option<usize>,
    pub(crate) l1: f64,
    pub(crate) l2: f64,
    pub(crate) rows_share: f64,
    pub(crate) columns_share: f64,
    pub(crate) max_bin: u16,
    pub(crate) seed: u64,
}

/// Defaults in which the libraries differ.
pub(crate) struct Defaults {
    pub(crate) learning_rate: f64,
    pub(crate) max_depth: f64,
    pub(crate) l2: f64,
    pub(crate) max_bin: u64,
}

const ALIASES: [(&str, &str); 22] = [
    ("eta", "learning_rate"),
    ("shrinkage_rate", "learning_rate"),
    ("reg_lambda", "lambda"),
    ("lambda_l2", "lambda"),
    ("reg_alpha", "alpha"),
    ("lambda_l1", "alpha"),
    ("n_estimators", "num_boost_round"),
    ("num_boost_rounds", "num_boost_round"),
    ("num_iterations", "num_boost_round"),
    ("num_rounds", "num_boost_round"),
    ("subsample", "bagging_fraction"),
    ("sub_row", "bagging_fraction"),
    ("sub_feature", "feature_fraction"),
    ("colsample_bytree", "feature_fraction"),
    ("min_data_in_leaf", "min_data"),
    ("min_child_samples", "min_data"),
    ("min_sum_hessian_in_leaf", "min_hessian"),
    ("min_child_weight", "min_hessian"),
    ("num_leaf", "num_leaves"),
    ("max_leaves", "num_leaves"),
    ("random_state", "seed"),
    ("application", "objective"),
];

const OBJECTIVES: [(&str, Task); 8] = [
    ("regression", Task::Regression),
    ("regression_l2", Task::Regression),
    ("reg:linear", Task::Regression),
    ("reg:squarederror", Task::Regression),
    ("classification", Task::Classification),
    ("binary", Task::Classification),
    ("binary:logistic", Task::Classification),
    ("reg:logistic", Task::Classification),
];

impl Common {
    pub(crate) fn parse(params: &mut Params, defaults: &Defaults) -> Result<Self, PipelineError> {
        for (alias, name) in ALIASES {
            params.alias(alias, name);
        }
        let objective = params.choice_or("objective", "regression", &OBJECTIVES.map(|(name, _)| name))?;
        let task = OBJECTIVES.iter().find(|(name, _)| *name == objective).map_or(Task::Regression, |(_, task)| *task);
        let share = "a number above 0 and up to 1";
        let is_share = |n: f64| n > 0.0 && n <= 1.0;
        let (weight, is_weight) = ("a number of at least 0", |n: f64| (0.0..1e30).contains(&n));
        let limit = "a whole number; 0 or -1 for no limit";
        let depth = params.number_or("max_depth", defaults.max_depth, limit, |n| n >= -1.0 && n.fract() == 0.0)?;
        Ok(Self {
            task,
            rounds: params.whole_or("num_boost_round", 100, 1..=1_000_000)?,
            learning_rate: params.number_or("learning_rate", defaults.learning_rate, share, is_share)?,
            max_depth: (depth > 0.0).then_some(depth as usize),
            l1: params.number_or("alpha", 0.0, weight, is_weight)?,
            l2: params.number_or("lambda", defaults.l2, weight, is_weight)?,
            rows_share: params.number_or("bagging_fraction", 1.0, share, is_share)?,
            columns_share: params.number_or("feature_fraction", 1.0, share, is_share)?,
            max_bin: params.whole_or("max_bin", defaults.max_bin, 2..=60_000)? as u16,
            seed: params.whole_or("seed", 0, 0..=u64::MAX)?,
        })
    }
}

impl Boost {
    /// The parameters in common; leaves may be as small as can be.
    pub(crate) fn new(common: Common, max_leaves: Option<usize>) -> Self {
        let Common { task, rounds, learning_rate, max_depth, l1, l2, rows_share, columns_share, max_bin, seed } =
            common;
        let min_leaf_weight = 0.0;
        Self {
            task,
            rounds,
            learning_rate,
            max_depth,
            max_leaves,
            l1,
            l2,
            min_leaf_weight,
            rows_share,
            columns_share,
            max_bin,
            seed,
        }
    }

    /// Trains; a column without two different values is not split on.
    ///
    /// Errors: `Value` for an infinite value, `Param` for classes of which there is one alone, `Library`.
    pub(crate) fn train(&self, matrix: &Matrix, target: &[f64]) -> Result<Boosting, OperatorError> {
        let booster = self.fit(matrix, target)?;
        Boosting::from_booster(&booster, matrix.names.len())
    }

    fn fit(&self, matrix: &Matrix, target: &[f64]) -> Result<GradientBooster, OperatorError> {
        matrix.check(true)?;
        if self.task == Task::Classification {
            check_classes(target)?;
        }
        let failed = |e: forust_ml::errors::ForustError| OperatorError::Library {
            doing: "training the trees",
            source: e.to_string().into(),
        };
        let n_columns = matrix.names.len();
        // At least one column is drawn.
        let columns_share = self.columns_share.max((1.0 / n_columns as f64).min(1.0));
        let sample = if self.rows_share < 1.0 { SampleMethod::Random } else { SampleMethod::None };
        let objective = match self.task {
            Task::Regression => ObjectiveType::SquaredLoss,
            Task::Classification => ObjectiveType::LogLoss,
        };
        let grow = if self.max_leaves.is_some() { GrowPolicy::LossGuide } else { GrowPolicy::DepthWise };
        let mut booster = GradientBooster::default()
            .set_objective_type(objective)
            .set_iterations(self.rounds as usize)
            .set_learning_rate(self.learning_rate as f32)
            .set_max_depth(self.max_depth.unwrap_or(usize::MAX))
            .set_max_leaves(self.max_leaves.unwrap_or(usize::MAX))
            .set_l1(self.l1 as f32)
            .set_l2(self.l2 as f32)
            .set_min_leaf_weight(self.min_leaf_weight as f32)
            .set_subsample(self.rows_share as f32)
            .set_sample_method(sample)
            .set_colsample_bytree(columns_share)
            .set_nbins(self.max_bin)
            .set_seed(self.seed)
            .set_initialize_base_score(true)
            .set_parallel(matrix.values.len() >= PARALLEL_CELLS);
        booster.grow_policy = grow;
        let data = forust_ml::Matrix::new(&matrix.values, matrix.n_rows(), n_columns);
        booster.fit_unweighted(&data, target, None).map_err(failed)?;
        Ok(booster)
    }
}

/// Trees, each a list of nodes in which a node comes before its branches, the left one first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Boosting {
    /// What the trees' values are added to.
    base: f64,
    /// Per column, the values at which trees split it, ascending.
    cuts: Vec<Vec<f64>>,
    trees: Vec<Tree>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Tree {
    /// Per node the column that it splits, or -1 for a leaf.
    column: Vec<i32>,
    /// Per split the index of its cut; values below it go left.
    cut: Vec<u32>,
    /// Per split 1 if missing values go right, otherwise 0.
    missing: Vec<u8>,
    /// Per leaf its value.
    value: Vec<f32>,
}

/// A node as prediction walks over it.
#[derive(Clone, Copy)]
struct Step {
    /// Index of the column, `u32::MAX` for a leaf.
    column: u32,
    left: u32,
    right: u32,
    missing: u32,
    /// The cut, or the leaf's value.
    value: f64,
}

const LEAF: u32 = u32::MAX;

impl Boosting {
    fn from_booster(booster: &GradientBooster, n_columns: usize) -> Result<Self, OperatorError> {
        let odd = || OperatorError::Library { doing: "keeping the trees", source: "a node is out of range".into() };
        let mut cuts: Vec<Vec<f64>> = vec![Vec::new(); n_columns];
        for node in booster.trees.iter().flat_map(|tree| &tree.nodes).filter(|node| !node.is_leaf) {
            cuts.get_mut(node.split_feature).ok_or_else(odd)?.push(node.split_value);
        }
        for cuts in &mut cuts {
            cuts.sort_by(f64::total_cmp);
            cuts.dedup();
        }
        let mut trees = Vec::with_capacity(booster.trees.len());
        for from in &booster.trees {
            let mut tree = Tree::default();
            let mut next = vec![0usize];
            while let Some(at) = next.pop() {
                let node = from.nodes.get(at).ok_or_else(odd)?;
                if node.is_leaf {
                    tree.column.push(-1);
                    tree.value.push(node.weight_value);
                    continue;
                }
                let known = cuts.get(node.split_feature).ok_or_else(odd)?;
                let cut = known.binary_search_by(|c| c.total_cmp(&node.split_value)).map_err(|_| odd())?;
                tree.column.push(node.split_feature as i32);
                tree.cut.push(cut as u32);
                tree.missing.push(u8::from(node.missing_node == node.right_child));
                next.extend([node.right_child, node.left_child]);
            }
            trees.push(tree);
        }
        Ok(Self { base: booster.base_score, cuts, trees })
    }

    pub(crate) fn n_trees(&self) -> usize {
        self.trees.len()
    }

    pub(crate) fn n_leaves(&self) -> usize {
        self.trees.iter().map(|tree| tree.value.len()).sum()
    }

    pub(super) fn is_finite(&self) -> bool {
        self.base.is_finite()
            && self.cuts.iter().flatten().all(|cut| cut.is_finite())
            && self.trees.iter().flat_map(|tree| &tree.value).all(|value| value.is_finite())
    }

    pub(super) fn check(&self, n_features: usize) -> Result<(), String> {
        if self.cuts.len() != n_features {
            return Err(format!("it splits {} columns and reads {n_features}", self.cuts.len()));
        }
        let steps: Option<Vec<_>> = self.trees.iter().map(|tree| tree.steps(&self.cuts)).collect();
        steps.map(drop).ok_or_else(|| "a tree is not whole".to_owned())
    }

    /// The base and the trees' values, added in their order.
    pub(super) fn predict(&self, matrix: &Matrix) -> Vec<f64> {
        let trees: Vec<Vec<Step>> = self.trees.iter().filter_map(|tree| tree.steps(&self.cuts)).collect();
        let (n_rows, n_columns) = (matrix.n_rows(), matrix.names.len());
        let mut out = vec![self.base; n_rows];
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
            // Row by row, so that a row's values lie together for all trees.
            let first = block * BLOCK;
            let mut rows = vec![0.0; out.len() * n_columns];
            for (column, (_, values)) in matrix.columns().enumerate() {
                let values = values.iter().skip(first);
                rows.iter_mut().skip(column).step_by(n_columns.max(1)).zip(values).for_each(|(to, from)| *to = *from);
            }
            for tree in &trees {
                for (sum, row) in out.iter_mut().zip(rows.chunks_exact(n_columns.max(1))) {
                    *sum += leaf(tree, row);
                }
            }
        });
        out
    }
}

/// Value of the leaf in which a row ends; [`Tree::steps`] has checked that all indices are within.
fn leaf(steps: &[Step], row: &[f64]) -> f64 {
    let mut at = 0u32;
    while let Some(step) = steps.get(at as usize) {
        if step.column == LEAF {
            return step.value;
        }
        let value = row.get(step.column as usize).copied().unwrap_or(f64::NAN);
        at = match value {
            v if v.is_nan() => step.missing,
            v if v < step.value => step.left,
            _ => step.right,
        };
    }
    0.0
}

impl Tree {
    /// The tree with every branch as an index; `None` if it is not whole.
    fn steps(&self, cuts: &[Vec<f64>]) -> Option<Vec<Step>> {
        if self.cut.len() != self.missing.len() {
            return None;
        }
        let (mut splits, mut values) = (self.cut.iter().zip(&self.missing), self.value.iter());
        let mut steps: Vec<Step> = Vec::with_capacity(self.column.len());
        // Splits whose right branch is still to come.
        let mut waiting: Vec<usize> = Vec::new();
        for (at, &column) in self.column.iter().enumerate() {
            let is_last = at + 1 == self.column.len();
            if let Ok(column) = u32::try_from(column) {
                let (&cut, &missing) = splits.next()?;
                let value = *cuts.get(column as usize)?.get(cut as usize)?;
                let missing = u32::from(missing);
                steps.push(Step { column, left: at as u32 + 1, right: 0, missing, value });
                waiting.push(at);
                continue;
            }
            steps.push(Step { column: LEAF, left: 0, right: 0, missing: 0, value: f64::from(*values.next()?) });
            match waiting.pop() {
                Some(split) => steps.get_mut(split)?.right = at as u32 + 1,
                None if is_last => {}
                None => return None,
            }
        }
        if steps.is_empty() || !waiting.is_empty() || splits.next().is_some() || values.next().is_some() {
            return None;
        }
        let n = steps.len() as u32;
        for step in steps.iter_mut().filter(|step| step.column != LEAF) {
            step.missing = if step.missing == 1 { step.right } else { step.left };
            if step.right >= n {
                return None;
            }
        }
        Some(steps)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Numbers, gaps, a column of nothing but gaps, one of ones and gaps, one that never changes.
    fn matrix(n: usize) -> (Matrix, Vec<f64>) {
        let noise = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 9973) as f64 / 9973.0 - 0.5;
        let columns: [&dyn Fn(usize) -> f64; 6] = [
            &|i| (noise(i, 1) * 1e7).round(),
            &|i| if i % 7 == 0 { f64::NAN } else { noise(i, 2) },
            &|_| f64::NAN,
            &|i| if i % 3 == 0 { f64::NAN } else { 1.0 },
            &|_| 2015.0,
            &|i| if i % 5 == 0 { -0.0 } else { (i % 4) as f64 },
        ];
        let values = columns.iter().flat_map(|of| (0..n).map(of)).collect();
        let names = (0..columns.len()).map(|i| format!("c{i}")).collect();
        let target = (0..n).map(|i| noise(i, 1) + f64::from(i % 3 == 0) + 0.2 * noise(i, 9)).collect();
        (Matrix { names, rows: Arc::new((0..n as u64).collect()), values }, target)
    }

    fn boost(max_leaves: Option<usize>) -> Boost {
        Boost {
            task: Task::Regression,
            rounds: 30,
            learning_rate: 0.2,
            max_depth: Some(6),
            max_leaves,
            l1: 0.0,
            l2: 1.0,
            min_leaf_weight: 2.0,
            rows_share: 0.7,
            columns_share: 0.6,
            max_bin: 64,
            seed: 3,
        }
    }

    #[test]
    fn predicts_what_forust_predicts() {
        for (n, leaves) in [(1, None), (50, Some(5)), (5000, None), (5000, Some(20))] {
            let (matrix, target) = matrix(n);
            let booster = boost(leaves).fit(&matrix, &target).unwrap();
            let kept = Boosting::from_booster(&booster, matrix.names.len()).unwrap();
            let data = forust_ml::Matrix::new(&matrix.values, n, matrix.names.len());
            let expected = booster.predict(&data, false);
            assert!(kept.predict(&matrix).iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{n}");
            // Ones and gaps are told apart.
            assert!(n < 100 || kept.cuts.get(3).is_some_and(|cuts| !cuts.is_empty()));
        }
    }

    #[test]
    fn the_same_trees_on_one_thread_and_on_many() {
        let (matrix, target) = matrix(200_000);
        assert!(matrix.values.len() >= PARALLEL_CELLS);
        let mut boost = boost(Some(20));
        boost.rounds = 3;
        let bytes = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let model = pool.install(|| boost.train(&matrix, &target)).unwrap();
            serde_json::to_string(&model).unwrap()
        };
        assert_eq!(bytes(1), bytes(3));
    }

    #[test]
    fn trees_that_overflowed_are_told_from_others() {
        let (matrix, target) = matrix(300);
        let model = boost(None).train(&matrix, &target).unwrap();
        assert!(model.is_finite());
        let overflows: [fn(&mut Boosting); 3] = [
            |model| model.base = f64::INFINITY,
            |model| model.cuts[0].push(f64::NAN),
            |model| model.trees[0].value[0] = f32::NEG_INFINITY,
        ];
        for overflow in overflows {
            let mut overflowed = model.clone();
            overflow(&mut overflowed);
            assert!(!overflowed.is_finite());
        }
    }

    #[test]
    fn damaged_trees_are_refused() {
        let (matrix, target) = matrix(300);
        let model = boost(None).train(&matrix, &target).unwrap();
        assert!(model.check(6).is_ok() && model.check(5).is_err());
        let damages: [fn(&mut Tree); 5] = [
            |tree| tree.value.truncate(tree.value.len() - 1),
            |tree| tree.column.truncate(tree.column.len() - 1),
            |tree| tree.column.push(-1),
            |tree| tree.cut.push(0),
            |tree| tree.cut.iter_mut().for_each(|cut| *cut = 9999),
        ];
        for damage in damages {
            let mut damaged = model.clone();
            damage(&mut damaged.trees[0]);
            assert!(damaged.check(6).is_err());
        }
    }
}
