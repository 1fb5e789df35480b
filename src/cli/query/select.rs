//! `mistique query where`.

use clap::Args;
use serde_json::{Value, json};

use super::beside::Beside;
use super::{PlanArgs, versions};
use crate::cli::Result;
use crate::cli::output::{Rows, count, pretty};
use crate::diagnostics::select;
use crate::{IntermediateKey, ModelKey, Predicate, Store};

/// Rows that a table on the terminal shows.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub struct WhereArgs {
    /// Such as 'p.m.logits.u3 > 0.5 and not p.m.label = 2 and row_id < 100'; operands may be compared with each other.
    predicate: String,
    /// Ask about the rows of this intermediate, and look operands up in its model first.
    #[arg(long, value_name = "KEY")]
    of: Option<IntermediateKey>,
    /// Columns to show beside each row, separated by commas.
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    join: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Of a model whose version is a pattern, wherever it is named, each version is asked in turn.
pub fn run(args: &WhereArgs, store: &Store, as_json: bool) -> Result<String> {
    let predicate = Predicate::parse(&args.predicate)?;
    let of = args.of.as_ref().map(ToString::to_string);
    let mut keys: Vec<&str> = predicate.operands();
    keys.extend(of.as_deref());
    keys.extend(args.join.iter().map(String::as_str));
    let Some(pattern) = keys.into_iter().find_map(versions::pattern_of) else {
        return ask(args, &predicate, args.of.as_ref(), &args.join, store, as_json);
    };
    let models = versions::versions(store, &pattern)?;
    let of_version = |model: &ModelKey| {
        let moved = |text: &str| versions::moved(text, &pattern, model);
        let of = of.as_deref().map(|of| moved(of).parse()).transpose()?;
        let join: Vec<String> = args.join.iter().map(|key| moved(key)).collect();
        ask(args, &predicate.renamed(&moved), of.as_ref(), &join, store, as_json)
    };
    let answers = models.iter().map(of_version).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = models.iter().map(ToString::to_string).collect();
    versions::together(&names, &answers, as_json)
}

fn ask(
    args: &WhereArgs,
    predicate: &Predicate,
    of: Option<&IntermediateKey>,
    join: &[String],
    store: &Store,
    as_json: bool,
) -> Result<String> {
    let reader = args.plan.reader(store);
    let selected = select(&reader, predicate, of, args.plan.demand())?;
    let shown = if as_json { &selected.rows[..] } else { &selected.rows[..selected.rows.len().min(SHOWN)] };
    let beside = Beside::open(&reader, of, join, shown, args.plan.demand())?;
    let source: Vec<String> = selected.sources.iter().map(ToString::to_string).collect();
    let source = if source.is_empty() { "the rows' own numbers".to_string() } else { source.join(", ") };
    if as_json {
        let rows: Vec<Value> = shown.iter().map(|row| beside.json(*row, json!({"row_id": row}))).collect();
        return Ok(pretty(&json!({"where": predicate.to_string(), "rows": rows, "n_rows": selected.n_rows,
            "unknown_rows": selected.n_unknown, "source": source})));
    }
    let titles = beside.titles(&[">row_id"]);
    let mut table = Rows::new(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    for row in shown {
        table.push(beside.cells(*row, vec![row.to_string()]), Value::Null);
    }
    let unknown = match selected.n_unknown {
        0 => String::new(),
        n => format!("; {} left open by nulls or rows that an operand lacks", count(n)),
    };
    let more = match selected.rows.len() - shown.len() {
        0 => String::new(),
        n => format!("; {} more (--json prints all)", count(n as u64)),
    };
    let (n, of) = (count(selected.rows.len() as u64), count(selected.n_rows));
    Ok(format!("{}{n} of {of} rows; source: {source}{more}{unknown}\n", table.table()))
}
