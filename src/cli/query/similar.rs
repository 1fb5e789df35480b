//! `mistique query similar`, and what it shares with `top-group`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs};
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::{ByExample, Demand, Examples, IndexUse, Key, MapValue, Norm, Store};

/// A group of units, and how a question about it is answered.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// project.model[@version].intermediate.
    pub key: String,
    /// The group: 3,17 or 0..8 or cells such as 3[4,7].
    #[arg(long, value_name = "UNITS")]
    pub units: String,
    /// Rows wanted.
    #[arg(short, default_value_t = 10)]
    pub k: usize,
    /// What of a unit's map is its activation: max, mean, or all its cells.
    #[arg(long, value_name = "max|mean|cells")]
    by: Option<MapValue>,
    /// How distances, or the group's activation, are measured.
    #[arg(long, default_value = "l2", value_name = "l1|l2|linf")]
    metric: Norm,
    #[command(flatten)]
    rows: RowArgs,
    /// Look at all rows, whatever indexes there are.
    #[arg(long)]
    no_index: bool,
    #[command(flatten)]
    plan: PlanArgs,
}

impl GroupArgs {
    /// Answers, by `question` of key, units and k.
    pub fn run(&self, key: &str, store: &Store, as_json: bool, question: impl Fn(&Key) -> ByExample) -> Result<String> {
        let key: Key = key.parse()?;
        if let Some((columns, _)) = &key.columns {
            return Err(crate::cli::CliError::Usage(format!(
                "{}: name the layer, and its units by --units ({columns})",
                key.intermediate
            )));
        }
        // A single cell is asked for by naming it.
        let by = self.by.unwrap_or(if self.units.contains('[') { MapValue::Cells } else { MapValue::Max });
        let Demand { plan, exact } = self.plan.demand();
        let index = if self.no_index { IndexUse::Never } else { IndexUse::Auto };
        let question = question(&key).with_norm(self.metric).with_by(by).with_plan(plan).with_exact(exact);
        let question = question.with_rows(self.rows.selection()?).with_index(index);
        let answer = self.plan.reader(store).by_example(&question)?;
        Ok(render(&answer, self.k, self.metric, as_json))
    }
}

#[derive(Debug, Args)]
pub struct SimilarArgs {
    #[command(flatten)]
    pub group: GroupArgs,
    /// The row that others are compared with.
    #[arg(long, value_name = "ROW_ID")]
    row: u64,
}

pub fn run(args: &SimilarArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let group = &args.group;
    group.run(key, store, as_json, |key| ByExample::similar(key.intermediate.clone(), &*group.units, args.row, group.k))
}

/// Columns shown beside a row.
const SHOWN_COLUMNS: usize = 6;

fn render(answer: &Examples, k: usize, metric: Norm, as_json: bool) -> String {
    let what = if answer.of.is_some() { "distance" } else { "activation" };
    let used = &answer.used;
    let source = used.source.as_ref().map_or("nothing was read".to_string(), ToString::to_string);
    if as_json {
        let values = |v: &[f64]| -> Vec<Value> { v.iter().map(|v| number(*v)).collect() };
        let example = |e: &crate::Example| json!({"row_id": e.row, what: number(e.score), "values": values(&e.values)});
        let examples: Vec<Value> = answer.examples.iter().map(example).collect();
        return pretty(&json!({
            "key": answer.key.to_string(), "metric": metric.name(), "columns": answer.columns, "examples": examples,
            "of": answer.of.as_deref().map(values), "source": source, "index": used.index, "index_built": used.built,
            "n_rows": used.n_rows, "fewer_than_k": answer.examples.len() < k, "candidates": used.candidates, "touched": used.touched, "note": used.note,
        }));
    }
    let shown = &answer.columns[..answer.columns.len().min(SHOWN_COLUMNS)];
    let right = |t: &str| format!(">{t}");
    let titles: Vec<String> = ["row_id", what].into_iter().map(right).chain(shown.iter().map(|c| right(c))).collect();
    let mut rows = Rows::new(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    for e in &answer.examples {
        let values = e.values.iter().take(SHOWN_COLUMNS).map(|v| float(*v));
        rows.push([e.row.to_string(), float(e.score)].into_iter().chain(values).collect(), Value::Null);
    }
    let few = if answer.examples.len() < k { format!("; fewer than {} rank", count(k as u64)) } else { String::new() };
    let more = match answer.columns.len() - shown.len() {
        0 => String::new(),
        n => format!("; {} more columns", count(n as u64)),
    };
    let index = match used.index {
        _ if used.built => format!("index {} was built for this: ", used.index.unwrap_or_default()),
        Some(id) => format!("by-example index {id}: {} can matter, ", count(used.candidates)),
        None => "no index: ".to_string(),
    };
    let note = used.note.as_ref().map_or(String::new(), |n| format!("{n}\n"));
    format!(
        "{}{}; {index}{} of {} rows looked at{few}{more}; source: {source}\n{note}",
        rows.table(),
        metric.name(),
        count(used.touched),
        count(used.n_rows),
    )
}
