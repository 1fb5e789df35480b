//! `mistique query rowdiff`.

use clap::Args;
use serde_json::{Value, json};

use super::PlanArgs;
use crate::Store;
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::diagnostics::rowdiff;

#[derive(Debug, Args)]
pub struct RowdiffArgs {
    /// project.model[@version].intermediate[.columns].
    key: String,
    /// Row_id of one example.
    a: u64,
    /// Row_id of the other.
    b: u64,
    /// Columns to show.
    #[arg(short, default_value_t = 20)]
    k: usize,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &RowdiffArgs, store: &Store, as_json: bool) -> Result<String> {
    let request = args.plan.request(&args.key)?;
    let (columns, source) = rowdiff(&args.plan.reader(store), &request, args.a, args.b)?;
    if as_json {
        let columns: Vec<Value> = columns
            .iter()
            .map(|c| json!({"column": c.column, "a": c.a, "b": c.b, "difference": c.difference.map(number)}))
            .collect();
        return Ok(pretty(&json!({"key": args.key, "rows": [args.a, args.b], "columns": columns,
            "source": source.to_string()})));
    }
    let mut rows = Rows::new(&["column", &format!(">{}", args.a), &format!(">{}", args.b), ">difference"]);
    let shown = |v: &Option<String>| match v {
        None => "null".into(),
        Some(v) => v.parse().map_or_else(|_| v.clone(), float),
    };
    for c in columns.iter().take(args.k) {
        let difference = c.difference.map_or("-".into(), float);
        rows.push(vec![c.column.clone(), shown(&c.a), shown(&c.b), difference], Value::Null);
    }
    let more = match columns.len().saturating_sub(args.k) {
        0 => String::new(),
        n => format!("; {} more columns", count(n as u64)),
    };
    Ok(format!("{}{} columns; source: {source}{more}\n", rows.table(), count(columns.len() as u64)))
}
