//! `mistique query diff`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, by_operand, left_out, ungrouped, unshared};
use crate::Store;
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, pretty};
use crate::diagnostics::diff;

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// One side: project.model[@version].intermediate[.columns].
    pub key1: String,
    /// The other, of as many columns.
    pub key2: String,
    /// A column to group rows by, such as label; named relative to the first side's model, or whole.
    #[arg(long, value_name = "COLUMN")]
    by: Option<String>,
    /// Changed examples to show.
    #[arg(short, default_value_t = 10)]
    k: usize,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &DiffArgs, key1: &str, key2: &str, store: &Store, as_json: bool) -> Result<String> {
    let reader = args.plan.reader_about(store, &args.rows)?;
    let a = args.plan.request(key1)?.with_rows(args.rows.selection()?);
    let b = args.plan.request(key2)?;
    let by = by_operand(&reader, key1, args.by.as_deref(), &args.plan)?;
    let answer = diff(&reader, &a, &b, by.as_ref())?;
    if as_json {
        let groups: Vec<Value> = answer
            .groups
            .iter()
            .map(|g| {
                json!({"group": g.group, "n_rows": g.n_rows, "mean_abs": g.mean_abs, "rms": g.rms, "max_abs": g.max_abs,
                    "max_row": g.max_row, "not_finite": g.n_not_finite, "changed": answer.changed.as_ref().map(|_| g.n_changed)})
            })
            .collect();
        let changed = answer
            .changed
            .as_ref()
            .map(|c| c.iter().map(|c| json!({"row_id": c.row, "from": c.a, "to": c.b})).collect::<Vec<_>>());
        return Ok(pretty(&json!({"from": key1, "to": key2, "groups": groups, "changed": changed,
            "text_left_out": reader.left_out(&key1.parse()?)?, "unshared_rows": answer.unshared,
            "ungrouped_rows": answer.n_ungrouped, "sources": answer.sources.map(|s| s.to_string())})));
    }
    let mut rows = Rows::new(&["group", ">rows", ">mean |a−b|", ">rms", ">max", ">in row", ">changed"]);
    let some = |v: Option<f64>| v.map_or("-".into(), float);
    for g in &answer.groups {
        let changed = if answer.changed.is_some() { count(g.n_changed) } else { "-".into() };
        rows.push(
            vec![
                g.group.clone().unwrap_or_else(|| "all".into()),
                count(g.n_rows),
                some(g.mean_abs),
                some(g.rms),
                if g.mean_abs.is_some() { float(g.max_abs) } else { "-".into() },
                g.max_row.map_or("-".into(), |r| r.to_string()),
                changed,
            ],
            Value::Null,
        );
    }
    let mut out = rows.table();
    if let Some(changed) = answer.changed.as_ref().filter(|c| !c.is_empty() && args.k > 0) {
        let mut rows = Rows::new(&[">row_id", ">from", ">to"]);
        for c in changed.iter().take(args.k) {
            rows.push(vec![c.row.to_string(), c.a.clone(), c.b.clone()], Value::Null);
        }
        out += &format!("\n{}", rows.table());
        if changed.len() > args.k {
            out += &format!("{} more changed (-k, or --json for all)\n", count((changed.len() - args.k) as u64));
        }
    }
    let [first, second] = &answer.sources;
    // Values of which there is no difference are in no mean: a mean of nothing must not look like equality.
    let not_finite = match answer.groups.first().map_or(0, |g| g.n_not_finite) {
        0 => String::new(),
        n => format!("; {} values not finite on one side left out", count(n)),
    };
    let left = left_out(&reader, key1)? + &ungrouped(answer.n_ungrouped) + &unshared(&answer.unshared);
    Ok(format!("{out}sources: {first}, {second}{not_finite}{left}\n"))
}
