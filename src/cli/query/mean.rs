//! `mistique query mean`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs, by_operand, left_out, ungrouped, unshared};
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::cli::{CliError, Result, file_error};
use crate::diagnostics::mean;
use crate::{HeatMap, Picture, Store};

/// Units that a table on the terminal shows.
const SHOWN_UNITS: usize = 8;

#[derive(Debug, Args)]
pub struct MeanArgs {
    /// project.model[@version].intermediate[.columns].
    pub key: String,
    /// A column to group rows by, such as label.
    #[arg(long, value_name = "COLUMN")]
    by: String,
    /// Draw a heat map: .png or .svg.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &MeanArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    super::versions::only_one(&args.key, args.output.is_some())?;
    let reader = args.plan.reader_about(store, &args.rows)?;
    let request = args.plan.request(key)?.with_rows(args.rows.selection()?);
    let by = by_operand(&reader, key, Some(&args.by), &args.plan)?;
    let by = by.ok_or_else(|| CliError::Usage("--by names no column".into()))?;
    let picture = args.output.as_deref().map(Picture::of).transpose()?;
    let answer = mean(&reader, &request, &by)?;
    let mut drawn = String::new();
    if let (Some(path), Some(picture)) = (&args.output, picture) {
        let groups = answer.groups.iter().map(|g| g.0.clone()).collect();
        let map = HeatMap::new(groups, answer.units.clone(), answer.means.clone())?
            .with_title(format!("mean activation of {}", key))
            .with_axes(&args.by, "unit")
            .with_quantity("mean");
        std::fs::write(path, map.render(picture)?).map_err(file_error(path))?;
        drawn = format!("; drawn in {}", path.display());
    }
    let width = answer.units.len();
    let means = || answer.means.chunks(width.max(1));
    if as_json {
        let groups: Vec<Value> = answer
            .groups
            .iter()
            .zip(means())
            .map(|((name, n), means)| {
                json!({"group": name, "n_rows": n, "means": means.iter().map(|m| number(*m)).collect::<Vec<_>>()})
            })
            .collect();
        return Ok(pretty(&json!({"key": key, "units": answer.units, "groups": groups, "nan": answer.n_nan,
            "text_left_out": reader.left_out(&key.parse()?)?, "ungrouped_rows": answer.n_ungrouped, "unshared_rows": answer.unshared,
            "source": answer.source.to_string()})));
    }
    let shown = width.min(SHOWN_UNITS);
    let titles: Vec<String> = answer.units.iter().take(shown).map(|u| format!(">{u}")).collect();
    let titles: Vec<&str> = ["group", ">rows"].into_iter().chain(titles.iter().map(String::as_str)).collect();
    let mut rows = Rows::new(&titles);
    for ((name, n), means) in answer.groups.iter().zip(means()) {
        let cells = [name.clone(), count(*n)].into_iter().chain(means.iter().take(shown).map(|m| float(*m)));
        rows.push(cells.collect(), Value::Null);
    }
    let more = match width - shown {
        0 => String::new(),
        n => format!("; {} more units (--json prints all)", count(n as u64)),
    };
    let nan = if answer.n_nan > 0 { format!("; {} NaN left out", count(answer.n_nan)) } else { String::new() };
    let left = left_out(&reader, key)? + &ungrouped(answer.n_ungrouped) + &unshared(&answer.unshared);
    Ok(format!("{}source: {}{more}{nan}{drawn}{left}\n", rows.table(), answer.source))
}
