//! `mistique query where`.

use clap::Args;
use serde_json::{Value, json};

use super::beside::{self, Beside};
use super::{PlanArgs, versions};
use crate::cli::output::{Rows, count, pretty};
use crate::cli::{CliError, Result};
use crate::diagnostics::select;
use crate::operands::Wanted;
use crate::{ChunkReader, IntermediateKey, ModelKey, Predicate, Store};

/// A row's own number, which is of every intermediate.
const ROW_ID: &str = "row_id";

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
    #[arg(long, value_name = "KEY,…")]
    join: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Of a model whose version is a pattern, wherever it is named, each version is asked in turn.
pub fn run(args: &WhereArgs, store: &Store, as_json: bool) -> Result<String> {
    let predicate = Predicate::parse(&args.predicate)?;
    let of = args.of.as_ref().map(ToString::to_string);
    let joined = beside::keys(&args.join);
    let all_keys = || -> Vec<String> {
        let operands = predicate.operands().into_iter().map(ToString::to_string);
        operands.chain(of.clone()).chain(joined.iter().cloned()).collect()
    };
    let Some(pattern) = all_keys().iter().find_map(|key| versions::pattern_of(key)) else {
        return ask(args, &predicate, args.of.as_ref(), &joined, store, as_json);
    };
    let other = |key: &&str| versions::pattern_of(key).is_some_and(|model| model != pattern);
    if let Some(other) = all_keys().into_iter().find(|key| other(&key.as_str())) {
        return Err(CliError::Usage(format!(
            "{other}: only one model's versions can be asked in turn, {pattern} here"
        )));
    }
    let models = versions::versions(store, &pattern)?;
    let of_version = |model: &ModelKey| {
        let moved = |text: &str| versions::moved(text, &pattern, model);
        let of = of.as_deref().map(|of| moved(of).parse()).transpose()?;
        let join: Vec<String> = joined.iter().map(|key| moved(key)).collect();
        ask(args, &predicate.renamed(&moved), of.as_ref(), &join, store, as_json)
    };
    let names: Vec<String> = models.iter().map(ToString::to_string).collect();
    versions::together(&names, models.iter().map(of_version), as_json)
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
    let found = if of.is_none() { of_another(&reader, predicate)? } else { None };
    let of = of.or(found.as_ref());
    let selected = select(&reader, predicate, of, args.plan.demand())?;
    let shown = if as_json { &selected.rows[..] } else { &selected.rows[..selected.rows.len().min(SHOWN)] };
    let beside = Beside::open(&reader, of, join, shown, args.plan.demand())?;
    let source: Vec<String> = selected.sources.iter().map(ToString::to_string).collect();
    let source = if source.is_empty() { "the rows' own numbers".to_string() } else { source.join(", ") };
    if as_json {
        let rows: Vec<Value> = shown.iter().map(|row| beside.json(*row, json!({"row_id": row}))).collect();
        return Ok(pretty(&json!({"where": predicate.to_string(), "rows": rows, "n_rows": selected.n_rows,
            "unknown_rows": selected.n_unknown, "unshared_rows": selected.unshared.iter().map(|(key, n)| json!({"key": key.to_string(), "n": n})).collect::<Vec<_>>(),
            "source": source})));
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
    let other =
        |(key, n): &(IntermediateKey, u64)| format!("; {} rows that only {key} has were not asked about", count(*n));
    let unshared: String = selected.unshared.iter().map(other).collect();
    let more = match selected.rows.len() - shown.len() {
        0 => String::new(),
        n => format!("; {} more (--json prints all)", count(n as u64)),
    };
    let (n, of) = (count(selected.rows.len() as u64), count(selected.n_rows));
    Ok(format!("{}{n} of {of} rows; source: {source}{more}{unknown}{unshared}\n", table.table()))
}

/// Of a predicate that begins with `row_id`, the intermediate of its first other operand.
fn of_another(reader: &ChunkReader<'_>, predicate: &Predicate) -> Result<Option<IntermediateKey>> {
    let operands = predicate.operands();
    if operands.first() != Some(&ROW_ID) {
        return Ok(None);
    }
    match operands.into_iter().find(|operand| *operand != ROW_ID) {
        Some(operand) => Ok(Some(reader.operand(None, operand, Wanted::Number)?.key.intermediate)),
        None => {
            Err(CliError::Usage("row_id is of every intermediate; name the one that is asked about: --of KEY".into()))
        }
    }
}
