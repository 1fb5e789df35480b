//! `mistique query dist`.

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, by_operand, left_out, ungrouped, unshared};
use crate::Store;
use crate::cli::Result;
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::diagnostics::{DistAnswer, Distribution, QUANTILES, dist};

#[derive(Debug, Args)]
pub struct DistArgs {
    /// project.model[@version].intermediate[.columns]: all values named are one distribution.
    pub key: String,
    /// A column to group rows by, such as label.
    #[arg(long, value_name = "COLUMN")]
    by: Option<String>,
    /// Bins of the histogram.
    #[arg(long, default_value_t = 50)]
    bins: usize,
    /// Quantiles, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "Q,…")]
    quantiles: Vec<f64>,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &DistArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let reader = args.plan.reader_about(store, &args.rows)?;
    let request = args.plan.request(key)?.with_rows(args.rows.selection()?);
    let by = by_operand(&reader, key, args.by.as_deref(), &args.plan)?;
    let quantiles = if args.quantiles.is_empty() { &QUANTILES[..] } else { &args.quantiles };
    let answer = dist(&reader, &request, by.as_ref(), args.bins, quantiles)?;
    if as_json {
        let groups: Vec<Value> = answer.groups.iter().map(|g| as_value(&answer, g)).collect();
        return Ok(pretty(&json!({"key": key, "groups": groups, "unshared_rows": answer.unshared,
            "text_left_out": reader.left_out(&key.parse()?)?, "ungrouped_rows": answer.n_ungrouped,
            "source": answer.source.to_string()})));
    }
    let mut titles = vec!["group".to_string(), ">n".into(), ">mean".into(), ">std".into(), ">min".into()];
    titles.extend(quantiles.iter().map(|q| format!(">{}%", float(q * 100.0))));
    titles.extend([">max".into(), "histogram".into()]);
    let mut rows = Rows::new(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    let some = |v: Option<f64>| v.map_or("-".into(), |v| answer.time(v).unwrap_or_else(|| float(v)));
    for g in &answer.groups {
        let std = g.std.map_or("-".into(), float);
        let mut cells = vec![g.group.clone().unwrap_or_else(|| "all".into()), count(g.n), some(g.mean), std];
        cells.push(some(g.range.map(|r| r.0)));
        cells.extend(quantiles.iter().enumerate().map(|(i, _)| some(g.quantiles.get(i).map(|q| q.1))));
        cells.push(some(g.range.map(|r| r.1)));
        cells.push(sparkline(&g.histogram.counts));
        rows.push(cells, Value::Null);
    }
    let (nan, infinite) = answer.groups.first().map_or((0, 0), |g| (g.histogram.n_nan, g.histogram.n_infinite));
    let not_finite = match nan + infinite {
        0 => String::new(),
        _ => format!("; left out {} NaN and {} infinite", count(nan), count(infinite)),
    };
    let ungrouped = left_out(&reader, key)? + &ungrouped(answer.n_ungrouped);
    Ok(format!("{}source: {}{not_finite}{ungrouped}{}\n", rows.table(), answer.source, unshared(&[answer.unshared])))
}

fn as_value(answer: &DistAnswer, g: &Distribution) -> Value {
    let number = |v: f64| answer.time(v).map_or_else(|| number(v), Value::String);
    let quantiles: Vec<Value> = g.quantiles.iter().map(|(q, v)| json!({"q": q, "value": number(*v)})).collect();
    let h = &g.histogram;
    json!({"group": g.group, "n": g.n, "mean": g.mean.map(number), "std": g.std, "min": g.range.map(|r| number(r.0)),
        "max": g.range.map(|r| number(r.1)), "quantiles": quantiles, "nan": h.n_nan, "infinite": h.n_infinite,
        "histogram": {"from": number(h.min), "to": number(h.max), "counts": h.counts}})
}

/// Counts as a line of bars, at most 25 of them.
fn sparkline(counts: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let sums: Vec<u64> = counts.chunks(counts.len().div_ceil(25).max(1)).map(|c| c.iter().sum()).collect();
    let most = sums.iter().copied().max().unwrap_or_default().max(1);
    let bar = |n: u64| match n {
        0 => ' ',
        n => BARS.get((n * 8).div_ceil(most).saturating_sub(1) as usize).copied().unwrap_or('█'),
    };
    sums.into_iter().map(bar).collect()
}
