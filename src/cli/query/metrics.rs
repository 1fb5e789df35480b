//! `mistique query metrics`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, labelled, unshared};
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::cli::{CliError, Result};
use crate::diagnostics::{
    BinaryMetrics, ClassScores, Curves, Labelled, NumberMetrics, ReliabilityBin, Scores, binary_metrics, class_metrics,
    number_metrics,
};
use crate::operands::Column;
use crate::{ChunkReader, Store};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Task {
    /// Classes: several columns predict the largest, one column holds the class.
    Classes,
    /// One column of scores against labels of 0 and 1.
    Binary,
    /// Numbers.
    Regression,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ScoresArg {
    /// Shares that add to 1.
    Probabilities,
    /// Numbers before a softmax.
    Logits,
}

#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Predictions: logits or probabilities (a column a class), a column of classes, of scores or of numbers.
    pub predicted: String,
    /// Labels or actual values, named relative to the predictions' model (label) or whole.
    label: String,
    /// What is predicted (default: classes for several columns or whole numbers and text, else binary where all labels
    /// are 0 or 1, else regression).
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// What several columns hold (default: probabilities where every row looks like them).
    #[arg(long, value_enum)]
    scores: Option<ScoresArg>,
    /// Of one column of scores: class 1 is predicted from this one on (default: a probability of ½).
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// Bins of the calibration.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    bins: u32,
    /// Print the ROC, precision and recall curve of this class (JSON: of all).
    #[arg(long, value_name = "CLASS")]
    curve: Option<String>,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &MetricsArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let reader = args.plan.reader_about(store, &args.rows)?;
    let both = labelled(&reader, key, &args.label, &args.rows, &args.plan)?;
    if both.rows.is_empty() && !as_json {
        return Ok(no_rows(&both.predicted.scan().source().to_string(), &both.unshared));
    }
    let scores = args.scores.map(|s| match s {
        ScoresArg::Probabilities => Scores::Probabilities,
        ScoresArg::Logits => Scores::Logits,
    });
    let task = match args.task {
        Some(task) => task,
        None => guess(&both)?,
    };
    match task {
        Task::Classes => classes(args, key, &reader, &mut both.with_threshold(args.threshold)?, scores, as_json),
        Task::Binary => {
            let (source, unshared) = (both.predicted.scan().source().to_string(), both.unshared);
            let metrics = binary_metrics(both, scores, args.threshold, args.bins as usize)?;
            binary(args, &metrics, &source, &unshared, as_json)
        }
        Task::Regression => {
            let metrics = number_metrics(&both.predicted, &both.label, &both.rows)?;
            Ok(regression(&metrics, &both, as_json))
        }
    }
}

/// What is said in place of metrics of nothing.
fn no_rows(source: &str, unshared_rows: &[u64]) -> String {
    let why = match unshared_rows.iter().all(|n| *n == 0) {
        true => "no row was selected",
        false => "no row that was selected is on both sides",
    };
    format!("0 rows: {why}; source: {source}{}\n", unshared(unshared_rows))
}

fn guess(both: &Labelled<'_, '_>) -> Result<Task> {
    if both.predicted.scan().columns().len() > 1 {
        return Ok(Task::Classes);
    }
    let mut labels_binary = true;
    for rows in both.rows.chunks(both.block_rows()) {
        if !matches!(both.predicted.read(rows)?, Column::Float(_)) {
            return Ok(Task::Classes);
        }
        match both.label.read(rows)? {
            Column::Text(_) => return Ok(Task::Classes),
            labels => {
                labels_binary &= labels.to_f64(both.label.name())?.iter().all(|l| l.is_nan() || *l == 0.0 || *l == 1.0)
            }
        }
    }
    Ok(if labels_binary { Task::Binary } else { Task::Regression })
}

fn curves_json(c: &Curves) -> Value {
    let numbers = |v: &[f64]| v.iter().map(|v| number(*v)).collect::<Vec<_>>();
    json!({"auroc": c.auroc, "average_precision": c.average_precision, "thresholds": numbers(&c.thresholds),
        "false_positive_rate": numbers(&c.false_positive_rate), "true_positive_rate": numbers(&c.true_positive_rate),
        "precision": numbers(&c.precision)})
}

/// At most twenty points of a curve, and of how many.
fn curve_table(c: &Curves) -> String {
    let mut rows = Rows::new(&[">score ≥", ">false positives", ">recall", ">precision"]);
    let n = c.thresholds.len();
    let points = n.min(20);
    for p in 0..points {
        let i = if points > 1 { p * (n - 1) / (points - 1) } else { 0 };
        let at = |v: &[f64]| v.get(i).copied().map_or("-".into(), float);
        let cells = vec![at(&c.thresholds), at(&c.false_positive_rate), at(&c.true_positive_rate), at(&c.precision)];
        rows.push(cells, Value::Null);
    }
    let thinned = match points < n {
        true => format!("{points} of the curve's {} points, spread evenly; --json gives all\n", count(n as u64)),
        false => String::new(),
    };
    rows.table() + &thinned
}

fn some(v: Option<f64>) -> String {
    v.map_or("-".into(), |v| format!("{v:.4}"))
}

fn classes(
    args: &MetricsArgs,
    key: &str,
    reader: &ChunkReader<'_>,
    both: &mut Labelled<'_, '_>,
    scores: Option<Scores>,
    as_json: bool,
) -> Result<String> {
    let request = args.plan.request(key)?;
    let m = class_metrics(reader, &request, both, scores, args.bins as usize)?;
    let source = both.predicted.scan().source();
    let summary = [
        ("accuracy", m.confusion.accuracy()),
        ("macro_precision", m.macro_mean(|c| c.precision)),
        ("macro_recall", m.macro_mean(|c| c.recall)),
        ("macro_f1", m.macro_mean(|c| c.f1)),
        ("mean_auroc", m.mean_auroc()),
        ("log_loss", m.log_loss),
        ("calibration_error", m.calibration_error),
    ];
    if as_json {
        let class = |c: &ClassScores| {
            json!({"class": c.class, "n_actual": c.n_actual, "n_predicted": c.n_predicted, "precision": c.precision,
                "recall": c.recall, "f1": c.f1})
        };
        let mut out = json!({"task": "classes", "n_rows": m.confusion.n_rows(), "missing_rows": m.confusion.n_missing,
            "nan_rows": m.n_nan, "other_rows": m.n_other, "classes": m.classes.iter().map(class).collect::<Vec<_>>(),
            "curves": m.curves.iter().map(|c| json!({"class": c.class, "curves": curves_json(&c.curves)})).collect::<Vec<_>>(),
            "scores": m.scores.map(scores_name), "reliability": reliability_json(&m.reliability),
            "unshared_rows": both.unshared, "source": source.to_string()});
        if let Some(map) = out.as_object_mut() {
            map.extend(summary.map(|(name, v)| (name.to_string(), json!(v))));
        }
        return Ok(pretty(&out));
    }
    let mut out = String::new();
    if let Some(class) = &args.curve {
        let found = m.curves.iter().find(|c| c.class == *class);
        let Some(found) = found else {
            let known: Vec<&str> = m.curves.iter().map(|c| c.class.as_str()).collect();
            return Err(CliError::Usage(format!("no curve of class {class:?}; there are {}", known.join(", "))));
        };
        out += &curve_table(&found.curves);
    } else {
        let mut rows = Rows::new(&["class", ">rows", ">precision", ">recall", ">F1", ">AUROC", ">average precision"]);
        for c in &m.classes {
            let curves = m.curves.iter().find(|k| k.class == c.class).map(|k| &k.curves);
            rows.push(
                vec![
                    c.class.clone(),
                    count(c.n_actual),
                    some(c.precision),
                    some(c.recall),
                    some(c.f1),
                    some(curves.and_then(|c| c.auroc)),
                    some(curves.and_then(|c| c.average_precision)),
                ],
                Value::Null,
            );
        }
        out += &rows.table();
        if m.reliability.iter().any(|b| b.n > 0) {
            out += &format!("\n{}", reliability_table("confidence", "accuracy", &m.reliability));
        }
    }
    let known = summary.iter().filter(|(_, v)| v.is_some());
    let summary: Vec<String> = known.map(|(name, v)| format!("{} {}", name.replace('_', " "), some(*v))).collect();
    let missing = match m.confusion.n_missing {
        0 => String::new(),
        n => format!("; {} rows without a prediction or label", count(n)),
    };
    let nan = match m.n_nan {
        0 => String::new(),
        n => format!("; {} rows with scores that are NaN, not in the curves of those", count(n)),
    };
    let other = match m.n_other {
        0 => String::new(),
        n => format!("; {} rows with a label that has no column: in precision, recall and accuracy alone", count(n)),
    };
    Ok(format!(
        "{out}{} rows: {}{}; source: {source}{missing}{nan}{other}{}\n",
        count(m.confusion.n_rows()),
        summary.join(", "),
        m.scores.map(scores_name).map_or(String::new(), |s| format!(" (columns are {s})")),
        unshared(&both.unshared)
    ))
}

fn scores_name(scores: Scores) -> &'static str {
    if scores == Scores::Logits { "logits" } else { "probabilities" }
}

fn reliability_json(bins: &[ReliabilityBin]) -> Vec<Value> {
    let bin = |b: &ReliabilityBin| json!({"from": b.from, "to": b.to, "n": b.n, "confidence": b.confidence, "accuracy": b.accuracy});
    bins.iter().map(bin).collect()
}

fn reliability_table(of: &str, truth: &str, bins: &[ReliabilityBin]) -> String {
    let mut rows = Rows::new(&[of, ">rows", ">mean", &format!(">{truth}")]);
    for b in bins.iter().filter(|b| b.n > 0) {
        let range = format!("{:.3}–{:.3}", b.from, b.to);
        rows.push(vec![range, count(b.n), some(b.confidence), some(b.accuracy)], Value::Null);
    }
    rows.table()
}

fn binary(args: &MetricsArgs, m: &BinaryMetrics, source: &str, unshared_rows: &[u64], as_json: bool) -> Result<String> {
    if let Some(class) = args.curve.as_deref().filter(|class| *class != "1") {
        return Err(CliError::Usage(format!("no curve of class {class:?}; one column of scores has that of class 1")));
    }
    let of_positive = |f: fn(&ClassScores) -> Option<f64>| m.positive.as_ref().and_then(f);
    let summary = [
        ("accuracy", m.confusion.accuracy()),
        ("precision", of_positive(|c| c.precision)),
        ("recall", of_positive(|c| c.recall)),
        ("f1", of_positive(|c| c.f1)),
        ("auroc", m.curves.auroc),
        ("average_precision", m.curves.average_precision),
        ("log_loss", m.log_loss),
        ("calibration_error", m.calibration_error),
    ];
    let scores = scores_name(m.scores);
    if as_json {
        let mut out = json!({"task": "binary", "n_rows": m.confusion.n_rows(), "missing_rows": m.confusion.n_missing,
            "threshold": m.threshold, "scores": scores, "curves": curves_json(&m.curves),
            "reliability": reliability_json(&m.reliability), "unshared_rows": unshared_rows, "source": source});
        if let Some(map) = out.as_object_mut() {
            map.extend(summary.map(|(name, v)| (name.to_string(), json!(v))));
        }
        return Ok(pretty(&out));
    }
    let table = match args.curve.is_some() {
        true => curve_table(&m.curves),
        false => reliability_table("probability", "share of class 1", &m.reliability),
    };
    let known = summary.iter().filter(|(_, v)| v.is_some());
    let summary: Vec<String> = known.map(|(name, v)| format!("{} {}", name.replace('_', " "), some(*v))).collect();
    let missing = match m.confusion.n_missing {
        0 => String::new(),
        n => format!("; {} rows without a score or label", count(n)),
    };
    Ok(format!(
        "{table}{} rows, class 1 from {} on (the column is {scores}): {}; source: {source}{missing}{}\n",
        count(m.confusion.n_rows()),
        float(m.threshold),
        summary.join(", "),
        unshared(unshared_rows)
    ))
}

fn regression(m: &NumberMetrics, both: &Labelled<'_, '_>, as_json: bool) -> String {
    let source = both.predicted.scan().source();
    if as_json {
        return pretty(&json!({"task": "regression", "n_rows": m.n, "missing_rows": m.n_missing, "mse": m.mse,
            "rmse": m.rmse, "mae": m.mae, "bias": m.bias, "r2": m.r2, "unshared_rows": both.unshared,
            "source": source.to_string()}));
    }
    let missing = if m.n_missing > 0 { format!("; {} rows not finite", count(m.n_missing)) } else { String::new() };
    let some = |v: Option<f64>| v.map_or("-".into(), float);
    format!(
        "{} rows: mse {}, rmse {}, mae {}, bias {}, r2 {}; source: {source}{missing}{}\n",
        count(m.n),
        some(m.mse),
        some(m.rmse),
        some(m.mae),
        some(m.bias),
        some(m.r2),
        unshared(&both.unshared)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_says_what_it_leaves_out() {
        let curve = |n: u32| {
            let points: Vec<f64> = (0..n).map(f64::from).collect();
            Curves { thresholds: points.clone(), precision: points, ..Curves::default() }
        };
        let table = curve_table(&curve(20));
        assert_eq!(table.lines().count(), 1 + 20, "{table}");
        let table = curve_table(&curve(1055));
        assert_eq!(table.lines().count(), 1 + 20 + 1, "{table}");
        assert!(table.ends_with("\n20 of the curve's 1,055 points, spread evenly; --json gives all\n"), "{table}");
        assert!(table.lines().nth(20).is_some_and(|last| last.trim_start().starts_with("1054 ")), "{table}");
    }

    #[test]
    fn no_rows_are_said_plainly() {
        assert_eq!(no_rows("read f32", &[0, 0]), "0 rows: no row was selected; source: read f32\n");
        let apart =
            "0 rows: no row that was selected is on both sides; source: rerun; rows that only one side has: 3, 1,200\n";
        assert_eq!(no_rows("rerun", &[3, 1200]), apart);
    }
}
