//! `mistique query corr`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, left_out, unshared, versions};
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, pretty};
use crate::diagnostics::{Correlation, corr};
use crate::operands::Wanted;
use crate::{Key, Store};

#[derive(Debug, Args)]
pub struct CorrArgs {
    /// project.model[@version].intermediate[.columns]: every column is correlated with the target.
    pub key: String,
    /// A column, named relative to the key's model or whole.
    target: String,
    /// Correlate with TARGET − this, such as the residual: actual --minus predicted.
    #[arg(long, value_name = "COLUMN")]
    minus: Option<String>,
    /// Columns to show, the strongest first.
    #[arg(short, default_value_t = 20)]
    k: usize,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &CorrArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let reader = args.plan.reader_about(store, &args.rows)?;
    let near = store.intermediate(&key.parse::<Key>()?.intermediate)?;
    let open =
        |text: &str| reader.operand_scan(&reader.operand(Some(&near), text, Wanted::Number)?, args.plan.demand());
    [Some(&args.target), args.minus.as_ref()].into_iter().flatten().try_for_each(|text| versions::no_pattern(text))?;
    let request = args.plan.request(key)?.with_rows(args.rows.selection()?);
    let target = open(&args.target)?;
    let minus = args.minus.as_deref().map(open).transpose()?;
    let answer = corr(&reader, &request, &target, minus.as_ref())?;
    let mut columns = answer.columns;
    let strength = |c: &Correlation| c.pearson.or(c.spearman).map_or(-1.0, f64::abs);
    columns.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
    if as_json {
        let column =
            |c: &Correlation| json!({"column": c.column, "pearson": c.pearson, "spearman": c.spearman, "n": c.n});
        return Ok(pretty(&json!({"key": key, "target": args.target, "minus": args.minus,
            "columns": columns.iter().map(column).collect::<Vec<_>>(), "text_left_out": reader.left_out(&key.parse()?)?, "unshared_rows": answer.unshared,
            "source": answer.source.to_string()})));
    }
    let mut rows = Rows::new(&["column", ">Pearson", ">Spearman", ">pairs"]);
    let some = |v: Option<f64>| v.map_or("-".into(), float);
    for c in columns.iter().take(args.k) {
        rows.push(vec![c.column.clone(), some(c.pearson), some(c.spearman), count(c.n)], Value::Null);
    }
    let more = match columns.len().saturating_sub(args.k) {
        0 => String::new(),
        n => format!("; {} more columns", count(n as u64)),
    };
    let undefined = match columns.iter().filter(|c| c.pearson.is_none()).count() {
        0 => String::new(),
        n => format!("; {} constant or without pairs", count(n as u64)),
    };
    let left = left_out(&reader, key)? + &unshared(&answer.unshared);
    Ok(format!("{}source: {}{more}{undefined}{left}\n", rows.table(), answer.source))
}
