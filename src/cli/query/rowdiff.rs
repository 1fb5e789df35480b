//! `mistique query rowdiff`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, cell_json};
use crate::Store;
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::diagnostics::rowdiff;
use crate::operands::Cell;

#[derive(Debug, Args)]
pub struct RowdiffArgs {
    /// project.model[@version].intermediate[.columns].
    pub key: String,
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

pub fn run(args: &RowdiffArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let request = args.plan.request(key)?;
    let (columns, source) = rowdiff(&args.plan.reader(store), &request, args.a, args.b)?;
    let n_columns = columns.len();
    if as_json {
        let columns: Vec<Value> = columns
            .iter()
            .map(|c| {
                json!({"column": c.column, "a": cell_json(c.a.as_ref()), "b": cell_json(c.b.as_ref()),
                "difference": c.difference.map(number)})
            })
            .collect();
        return Ok(pretty(&json!({"key": key, "rows": [args.a, args.b], "n_columns": n_columns,
            "columns": columns, "source": source.to_string()})));
    }
    let mut rows = Rows::new(&["column", &format!(">{}", args.a), &format!(">{}", args.b), ">difference"]);
    let shown = |v: &Option<Cell>| match v {
        None => "null".into(),
        Some(Cell::Float(v)) => float(*v),
        Some(v) => v.to_string(),
    };
    for c in columns.iter().take(args.k) {
        let difference = c.difference.map_or("-".into(), float);
        rows.push(vec![c.column.clone(), shown(&c.a), shown(&c.b), difference], Value::Null);
    }
    let more = match n_columns.saturating_sub(args.k) {
        0 => String::new(),
        n => format!("; {} more columns (-k, or --json for all)", count(n as u64)),
    };
    Ok(format!("{}{} columns; source: {source}{more}\n", rows.table(), count(n_columns as u64)))
}
