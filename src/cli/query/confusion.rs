//! `mistique query confusion`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, labelled, unshared};
use crate::Store;
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, pretty};
use crate::diagnostics::confusion;

#[derive(Debug, Args)]
pub struct ConfusionArgs {
    /// Predictions: logits (the largest column), or a column of classes.
    pub predicted: String,
    /// Labels, named relative to the predictions' model (label) or whole.
    label: String,
    /// List the examples taken for this class.
    #[arg(long, value_name = "CLASS")]
    predicted_as: Option<String>,
    /// List the examples of this class.
    #[arg(long, value_name = "CLASS")]
    actual: Option<String>,
    /// Predictions are scores: class 1 from this one on, 0 below.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    threshold: Option<f64>,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &ConfusionArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let reader = args.plan.reader_about(store, &args.rows)?;
    let mut labelled = labelled(&reader, key, &args.label, &args.rows, &args.plan)?.with_threshold(args.threshold)?;
    let answer = confusion(&mut labelled, args.predicted_as.as_deref(), args.actual.as_deref())?;
    let listing = args.predicted_as.is_some() || args.actual.is_some();
    let source = labelled.predicted.scan().source();
    if as_json {
        let examples: Vec<Value> =
            answer.examples.iter().map(|(r, p, l)| json!({"row_id": r, "predicted": p, "actual": l})).collect();
        return Ok(pretty(&json!({"classes": answer.classes, "counts": answer.counts, "n_rows": answer.n_rows(),
            "accuracy": answer.accuracy(), "missing_rows": answer.n_missing, "examples": examples,
            "unshared_rows": labelled.unshared, "source": source.to_string()})));
    }
    if labelled.rows.is_empty() {
        return Ok(format!("0 rows: no row was selected; source: {source}{}\n", unshared(&labelled.unshared)));
    }
    let mut out = String::new();
    if listing {
        let mut rows = Rows::new(&[">row_id", "predicted", "was"]);
        for (row, p, l) in &answer.examples {
            rows.push(vec![row.to_string(), p.clone(), l.clone()], Value::Null);
        }
        out += &format!("{}{} of {} rows", rows.table(), count(answer.examples.len() as u64), count(answer.n_rows()));
    } else {
        let titles: Vec<String> = answer.classes.iter().map(|c| format!(">{c}")).collect();
        let titles: Vec<&str> = std::iter::once("was \\ predicted").chain(titles.iter().map(String::as_str)).collect();
        let mut rows = Rows::new(&titles);
        for (class, counts) in answer.classes.iter().zip(&answer.counts) {
            let cells = counts.iter().map(|n| if *n == 0 { "·".into() } else { count(*n) });
            rows.push(std::iter::once(class.clone()).chain(cells).collect(), Value::Null);
        }
        let accuracy = answer.accuracy().map_or("none".into(), |a| format!("{} %", float(100.0 * a)));
        out += &format!("{}{} rows, accuracy {accuracy}", rows.table(), count(answer.n_rows()));
    }
    let missing = match answer.n_missing {
        0 => String::new(),
        n => format!("; {} rows without a prediction or label", count(n)),
    };
    Ok(format!("{out}; source: {source}{missing}{}\n", unshared(&labelled.unshared)))
}
