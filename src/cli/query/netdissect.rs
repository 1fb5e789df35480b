//! `mistique query netdissect`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs};
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::cli::progress::Progress;
use crate::cli::{Result, file_error};
use crate::diagnostics::{Dissection, Thresholds, netdissect};
use crate::{HeatMap, MaskFolder, Picture, RowSelection, Store};

#[derive(Debug, Args)]
pub struct NetdissectArgs {
    /// project.model[@version].intermediate[.units].
    pub key: String,
    /// A folder with CONCEPT/ROW_ID.png, or CONCEPT.npy of rows × height × width.
    #[arg(long, value_name = "DIR")]
    masks: PathBuf,
    /// Share of a unit's cells that count as active.
    #[arg(long, default_value_t = 0.005)]
    alpha: f64,
    /// Concepts shown for each unit.
    #[arg(short, default_value_t = 1)]
    k: usize,
    /// Draw units × concepts: .png or .svg.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &NetdissectArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    super::versions::only_one(&args.key, args.output.is_some())?;
    let picture = args.output.as_deref().map(Picture::of).transpose()?;
    let masks = MaskFolder::open(&args.masks)?;
    let request = args.plan.request(key)?.with_rows(args.rows.selection()?);
    let mut progress = Progress::rows("dissecting", as_json);
    let reader = args.plan.reader(store);
    let found = netdissect(&reader, &request, &masks, args.alpha, None, &mut |a, b| progress.at(a, b));
    progress.finish();
    let mut found = found?;
    let mut notes: Vec<String> = found.note.take().into_iter().collect();
    if let [(concept, n_rows), others @ ..] = &masks.ending_before(found.last_row)[..] {
        let others = and(others);
        notes.push(format!("{concept}.npy{others} has rows 0..{n_rows} alone: later examples show nothing of it"));
    }
    if matches!(args.rows.selection()?, RowSelection::All)
        && let [(concept, n), others @ ..] = &masks.beyond(reader.scan(&request)?.rows())[..]
    {
        let others = and(others);
        notes.push(format!("{concept}{others} has masks of {n} examples that are not there"));
    }
    if let [(concept, (h, w)), others @ ..] = &masks.smaller_than(&reader.row_shape(&request)?)[..] {
        let others = and(others);
        notes.push(format!(
            "{concept}{others} has masks of {h} × {w}, smaller than the maps: what lies between their pixels is not seen"
        ));
    }
    found.note = (!notes.is_empty()).then(|| notes.join("; "));
    if let (Some(path), Some(picture)) = (&args.output, picture) {
        let map = HeatMap::new(found.units.clone(), found.concepts.clone(), found.iou.clone())?
            .with_title(format!("NetDissect of {}, alpha {}", found.key, args.alpha))
            .with_axes("unit", "concept")
            .with_quantity("IoU");
        std::fs::write(path, map.render(picture)?).map_err(file_error(path))?;
    }
    Ok(if as_json { pretty(&as_value(args, key, &found)) } else { text(args, &found) })
}

fn and<T>(others: &[T]) -> String {
    match others.len() {
        0 => String::new(),
        n => format!(" (and {n} others)"),
    }
}

fn threshold(found: &Dissection, unit: usize) -> Option<f64> {
    match &found.thresholds {
        Thresholds::Values(values) => values.get(unit).copied(),
        Thresholds::Stored { .. } => None,
    }
}

fn described(found: &Dissection) -> &'static str {
    match found.thresholds {
        Thresholds::Values(_) => "of each unit, from all its cells in these rows",
        Thresholds::Stored { per_unit: true } => "of each unit, fitted when it was logged",
        Thresholds::Stored { per_unit: false } => "one for all units, fitted when it was logged",
    }
}

fn as_value(args: &NetdissectArgs, key: &str, found: &Dissection) -> Value {
    let n = found.concepts.len().max(1);
    let unit = |(i, (name, iou)): (usize, (&String, &[f64]))| {
        let iou: serde_json::Map<String, Value> =
            found.concepts.iter().cloned().zip(iou.iter().map(|v| number(*v))).collect();
        json!({"unit": name, "threshold": threshold(found, i).map(number), "iou": iou})
    };
    let units: Vec<Value> = found.units.iter().zip(found.iou.chunks(n)).enumerate().map(unit).collect();
    let pixels: serde_json::Map<String, Value> =
        found.concepts.iter().cloned().zip(found.n_pixels.iter().map(|n| Value::from(*n))).collect();
    json!({"key": key, "alpha": args.alpha, "rows": found.n_rows, "thresholds": described(found),
           "concept_pixels": pixels, "units": units, "source": found.source.to_string(), "note": found.note})
}

fn text(args: &NetdissectArgs, found: &Dissection) -> String {
    let mut rows = Rows::new(&["unit", ">threshold", "concept", ">IoU"]);
    let n = found.concepts.len().max(1);
    for (i, (unit, iou)) in found.units.iter().zip(found.iou.chunks(n)).enumerate() {
        let mut best: Vec<(f64, &String)> =
            iou.iter().copied().zip(&found.concepts).filter(|(v, _)| *v > 0.0).collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        best.truncate(args.k);
        let threshold = threshold(found, i).map_or("stored".into(), float);
        if best.is_empty() {
            rows.push(vec![unit.clone(), threshold, "-".into(), "0".into()], Value::Null);
            continue;
        }
        for (value, concept) in best {
            rows.push(vec![unit.clone(), threshold.clone(), concept.clone(), format!("{value:.4}")], Value::Null);
        }
    }
    let unseen: Vec<&str> =
        found.concepts.iter().zip(&found.n_pixels).filter(|(_, n)| **n == 0).map(|(c, _)| c.as_str()).collect();
    let unseen =
        if unseen.is_empty() { String::new() } else { format!("in none of these rows: {}\n", unseen.join(", ")) };
    let note = found.note.as_ref().map_or(String::new(), |note| format!("{note}\n"));
    format!(
        "{}{} rows, {} concepts, alpha {}, thresholds {}; source: {}\n{unseen}{note}",
        rows.table(),
        count(found.n_rows),
        count(found.concepts.len() as u64),
        args.alpha,
        described(found),
        found.source
    )
}
