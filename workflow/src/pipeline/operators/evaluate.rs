//! Evaluate: how good predictions are, as metrics of the run; it gives no table.
//!
//! Inputs: predictions, and a table that has the truth for the same rows. Parameters: `target`, the column with the truth;
//! `prediction` (`prediction`); `metrics`, any of `mse` and `mae` (the default), `accuracy` (the share of rows where the
//! prediction is 0.5 or more and the target 1, or less and 0) and `auroc` (the chance that a row of target 1 has a higher
//! prediction than one of target 0, ties counting half).

use super::super::models::Task;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::{Params, one_of};

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Evaluate", version: 1, inputs: &[Slot::Table, Slot::Table], fit: None, parse };

#[derive(Debug)]
struct Evaluate {
    target: String,
    prediction: String,
    metrics: Vec<&'static Metric>,
}

/// A figure of predictions and truths, of which there is at least one.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    task: Task,
    of: fn(&[(f64, f64)]) -> Option<f64>,
}

const METRICS: [Metric; 4] = [
    Metric { name: "mse", task: Task::Regression, of: |pairs| mean(pairs, |(p, t)| (p - t).powi(2)) },
    Metric { name: "mae", task: Task::Regression, of: |pairs| mean(pairs, |(p, t)| (p - t).abs()) },
    Metric {
        name: "accuracy",
        task: Task::Classification,
        of: |pairs| mean(pairs, |(p, t)| f64::from(u8::from((p >= 0.5) == (t == 1.0)))),
    },
    Metric { name: "auroc", task: Task::Classification, of: auroc },
];

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let names = params.texts_opt("metrics")?.unwrap_or_else(|| vec!["mse".to_owned(), "mae".to_owned()]);
    let some_of = |name: &str| one_of("some of", name, &METRICS.each_ref().map(|m| m.name));
    let found = |name: &String| match METRICS.iter().find(|m| m.name == name) {
        Some(metric) => Ok(metric),
        None => Err(params.unfit_entry("metrics", name, some_of(name))),
    };
    let metrics = names.iter().map(found).collect::<Result<Vec<_>, _>>()?;
    if metrics.is_empty() {
        return Err(params.unfit("metrics", some_of("")));
    }
    Ok(Box::new(Evaluate {
        metrics,
        target: params.text("target", "name of the column with the truth")?,
        prediction: params.text_or("prediction", "prediction")?,
    }))
}

fn mean(pairs: &[(f64, f64)], of: impl Fn((f64, f64)) -> f64) -> Option<f64> {
    Some(pairs.iter().map(|pair| of(*pair)).sum::<f64>() / pairs.len() as f64)
}

/// From the sum of the ranks of the ones (Mann and Whitney); none where all truths are the same.
fn auroc(pairs: &[(f64, f64)]) -> Option<f64> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ones, mut rank_sum, mut before) = (0.0, 0.0, 0.0);
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let (n, n_ones) = (ties.len() as f64, ties.iter().filter(|(_, t)| *t == 1.0).count() as f64);
        // Ties share the mean of their ranks.
        rank_sum += n_ones * (before + (n + 1.0) / 2.0);
        ones += n_ones;
        before += n;
    }
    let zeros = before - ones;
    (ones > 0.0 && zeros > 0.0).then(|| (rank_sum - ones * (ones + 1.0) / 2.0) / (ones * zeros))
}

impl Operator for Evaluate {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [predictions, truths] = inputs else { return Ok(Checked::default()) };
        predictions.table()?.number("prediction", &self.prediction)?;
        truths.table()?.number("target", &self.target)?;
        Ok(Checked::default())
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let (predictions, truths) = (inputs.table(0)?, inputs.table(1)?);
        if predictions.rows() != truths.rows() {
            let why = "the predictions have other rows than the truth; evaluate them on the table they were made of";
            return Err(OperatorError::Columns { why: why.to_owned() });
        }
        if predictions.n_rows() == 0 {
            return Err(OperatorError::Empty { what: "the table of predictions".to_owned() });
        }
        let needs_classes = self.metrics.iter().any(|m| m.task == Task::Classification);
        let columns = predictions.numbers("prediction", &self.prediction)?;
        let targets = truths.numbers("target", &self.target)?;
        let mut pairs = Vec::with_capacity(predictions.n_rows());
        for ((row, prediction), target) in predictions.rows().iter().zip(&columns).zip(&targets) {
            let bad = |column: &str, value: Option<f64>, expected: &str| OperatorError::Value {
                column: column.to_owned(),
                row: *row,
                found: value.map_or_else(|| "nothing".to_owned(), |v| v.to_string()),
                expected: expected.to_owned(),
            };
            let number = "a number in every row";
            let p = prediction.filter(|v| !v.is_nan()).ok_or_else(|| bad(&self.prediction, prediction, number))?;
            let t = target.filter(|v| !v.is_nan()).ok_or_else(|| bad(&self.target, target, number))?;
            if needs_classes && t != 0.0 && t != 1.0 {
                return Err(bad(&self.target, target, "0 or 1, or false or true, for accuracy and auroc"));
            }
            pairs.push((p, t));
        }
        let mut outcome = Outcome::default();
        for metric in &self.metrics {
            let figure = (metric.of)(&pairs).ok_or_else(|| OperatorError::Param {
                param: "target",
                why: format!("it has the same value in every row, of which there is no {}", metric.name),
            })?;
            outcome.metrics.insert(metric.name.to_owned(), figure);
        }
        Ok(outcome)
    }
}
