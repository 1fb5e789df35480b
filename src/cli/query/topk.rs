//! `mistique query topk`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, cell_json, left_out};
use crate::Store;
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::diagnostics::{By, Extreme, Top, topk};

#[derive(Debug, Args)]
pub struct TopkArgs {
    /// project.model[@version].intermediate[.columns]: every unit named is ranked.
    pub key: String,
    /// Rows for each unit.
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// What is ranked: a single value, or of a map its max, mean or norm (default: value, and max for maps).
    #[arg(long, value_name = "value|max|mean|norm")]
    by: Option<By>,
    /// Smallest first.
    #[arg(long, conflicts_with = "extreme")]
    lowest: bool,
    /// Farthest from zero first.
    #[arg(long)]
    extreme: bool,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

/// The value of a rank, as it is in its column.
fn cell_or(top: &Top, rank: usize, value: f64) -> Value {
    top.cells.as_ref().and_then(|c| c.get(rank)).map_or_else(|| number(value), |cell| cell_json(Some(cell)))
}

pub fn run(args: &TopkArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let extreme = match (args.lowest, args.extreme) {
        (true, _) => Extreme::Lowest,
        (_, true) => Extreme::Farthest,
        _ => Extreme::Highest,
    };
    let request = args.plan.request(key)?.with_rows(args.rows.selection()?);
    let reader = args.plan.reader(store);
    let answer = topk(&reader, &request, args.k, args.by, extreme)?;
    let is_few = answer.units.iter().any(|t| t.rows.len() < args.k);
    if as_json {
        let unit = |t: &Top| {
            let rows = t.rows.iter().enumerate();
            let rows: Vec<Value> = rows.map(|(i, (r, v))| json!({"row_id": r, "value": cell_or(t, i, *v)})).collect();
            json!({"unit": t.unit, "rows": rows, "nan_rows": t.n_nan})
        };
        let units: Vec<Value> = answer.units.iter().map(unit).collect();
        return Ok(pretty(
            &json!({"key": key, "by": answer.by.name(), "n_rows": answer.n_rows, "fewer_than_k": is_few,
            "text_left_out": reader.left_out(&key.parse()?)?, "units": units, "source": answer.source.to_string()}),
        ));
    }
    let mut rows = Rows::new(&["unit", ">rank", ">row_id", &format!(">{}", answer.by.name())]);
    for top in &answer.units {
        for (rank, (row, value)) in top.rows.iter().enumerate() {
            let value = match top.cells.as_ref().and_then(|c| c.get(rank)) {
                Some(cell) => cell.to_string(),
                None => float(*value),
            };
            rows.push(vec![top.unit.clone(), (rank + 1).to_string(), row.to_string(), value], Value::Null);
        }
    }
    let n_nan: u64 = answer.units.iter().map(|t| t.n_nan).sum();
    let nan = if n_nan > 0 { format!("; {} NaN do not rank", count(n_nan)) } else { String::new() };
    let few = if is_few { format!("; fewer than {} rank", count(args.k as u64)) } else { String::new() };
    let text = left_out(&reader, key)?;
    Ok(format!("{}{} rows; source: {}{few}{nan}{text}\n", rows.table(), count(answer.n_rows), answer.source))
}
