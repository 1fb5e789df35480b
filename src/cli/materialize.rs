//! `mistique materialize`.

use clap::Args;
use serde_json::{Value, json};

use super::get::reader;
use super::output::{Rows, bytes, count, float, object, pretty, seconds};
use super::{CliError, Result};
use crate::{Candidate, Device, GammaRecord, Materialize, MaterializeReport, Store, within_budget};

#[derive(Debug, Args)]
pub struct MaterializeArgs {
    /// What to keep from now on: all, none, adaptive(SECONDS PER GB) or budget(BYTES[,SECONDS PER GB]).
    #[arg(long)]
    mode: Option<Materialize>,
    /// Also make what is stored what the mode keeps: values leave, or under `all` are rerun and stored.
    #[arg(long)]
    apply: bool,
    /// Where a model runs again: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
}

pub fn run(args: &MaterializeArgs, store: &Store, as_json: bool) -> Result<String> {
    let before = store.materialize()?;
    if let Some(mode) = args.mode {
        store.set_materialize(mode)?;
    }
    let mode = store.materialize()?;
    let mut applied = None;
    if args.apply {
        let done = apply(store, mode, args.device);
        if done.is_err() {
            store.set_materialize(before)?;
        }
        applied = Some(done?);
    }
    let gammas = reader(store, args.device).gammas()?;
    let mut rows = Rows::new(&[
        "key",
        ">n_query",
        ">γ (s/GB)",
        ">rerun",
        ">read",
        ">S",
        ">stored",
        ">of its values",
        "kept because",
    ]);
    for g in &gammas {
        let (stored, whole) = (g.stored_bytes(), g.whole_bytes());
        let cells = g.sizes.len() as f64 * g.record.n_rows as f64;
        let share = g.sizes.iter().map(|s| s.stored_rows as f64).sum::<f64>() / cells.max(1.0);
        let largest = |of: fn(&crate::ColumnDemand) -> f64| g.demand.columns.iter().map(of).reduce(f64::max);
        let (t_rerun, t_read) = (largest(|c| c.t_rerun), largest(|c| c.t_read));
        let time = |t: Option<f64>| t.map_or("-".into(), seconds);
        let why = g.fixed.clone().unwrap_or_default();
        rows.push(
            vec![
                g.record.key.to_string(),
                count(g.demand.n_query()),
                float(g.gamma),
                time(t_rerun),
                time(t_read),
                bytes(whole as u64),
                bytes(stored as u64),
                format!("{:.0}%", 100.0 * share),
                why.clone(),
            ],
            json!({
                "key": g.record.key.to_string(), "n_query": g.demand.n_query(), "gamma": g.gamma,
                "group_gammas": g.group_gammas, "rerun_seconds": t_rerun, "read_seconds": t_read,
                "whole_bytes": whole, "stored_bytes": stored, "stored_share": share, "fixed": g.fixed,
            }),
        );
    }
    if as_json {
        let applied = applied.map_or(Value::Null, Value::String);
        let pairs = [("mode", json!(mode.to_string())), ("applied", applied), ("intermediates", rows.json())];
        return Ok(pretty(&object(pairs)));
    }
    Ok(format!("mode: {mode}\n{}{}", applied.map_or(String::new(), |a| a + "\n"), rows.table()))
}

/// Makes what is stored what the mode keeps, and says what was done.
fn apply(store: &Store, mode: Materialize, device: Device) -> Result<String> {
    if mode == Materialize::All {
        let filled = crate::workload::fill(store, device)?;
        filled.failed.iter().for_each(|(key, why)| eprintln!("warning: {key} is left out: {why}"));
        return match filled.failed.len() {
            0 => Ok(format!("{} intermediates were rerun and stored", count(filled.stored))),
            n => Err(CliError::LeftOut(n)),
        };
    }
    let gammas = reader(store, device).gammas()?;
    let not_worth = gammas.iter().map(|g| g.not_worth(mode)).collect();
    let left = evict(store, &gammas, not_worth)? + keep_budget(store, device)?;
    let gc = store.gc()?;
    Ok(format!("values of {} left the store; {} freed", bytes(left as u64), bytes(gc.freed_bytes)))
}

/// Lets the values of the lowest γ leave until a byte budget is kept, and says how many bytes left: none where there is no
/// budget, or room in it.
pub fn keep_budget(store: &Store, device: Device) -> Result<f64> {
    let mut left = 0.0;
    let Some(budget) = store.materialize()?.budget() else { return Ok(left) };
    // What shares its chunks with others leaves its share of them to these: they are weighed again.
    loop {
        let gammas = reader(store, device).gammas()?;
        let freed = evict(store, &gammas, over(budget, &gammas))?;
        if freed == 0.0 {
            return Ok(left);
        }
        left += freed;
    }
}

/// The groups that a budget has no room for, by intermediate.
fn over(budget: u64, gammas: &[GammaRecord]) -> Vec<Vec<bool>> {
    let mut leaving: Vec<Vec<bool>> = gammas.iter().map(|g| vec![false; g.sizes.len()]).collect();
    let fixed: f64 = gammas.iter().filter(|g| g.fixed.is_some()).map(GammaRecord::stored_bytes).sum();
    let mut candidates = Vec::new();
    for g in gammas.iter().filter(|g| g.fixed.is_none()) {
        for (group, (size, gamma)) in g.sizes.iter().zip(&g.group_gammas).enumerate() {
            if size.stored_rows > 0 {
                let (intermediate_id, gamma, bytes) = (g.record.id, *gamma, size.stored_bytes);
                candidates.push(Candidate { intermediate_id, group, gamma, bytes, is_stored: true });
            }
        }
    }
    let keep = within_budget((budget as f64 - fixed).max(0.0), &candidates);
    for (c, _) in candidates.iter().zip(keep).filter(|(_, keep)| !keep) {
        let at = gammas.iter().position(|g| g.record.id == c.intermediate_id);
        let groups = at.and_then(|at| leaving.get_mut(at));
        if let Some(leaves) = groups.and_then(|groups| groups.get_mut(c.group)) {
            *leaves = true;
        }
    }
    leaving
}

/// Lets groups leave, given by intermediate; what cannot be run again stays. Returns the bytes that left.
fn evict(store: &Store, gammas: &[GammaRecord], leaving: Vec<Vec<bool>>) -> Result<f64> {
    let leaving: Vec<_> = gammas
        .iter()
        .zip(leaving)
        .filter(|(g, leaves)| g.fixed.is_none() && leaves.contains(&true))
        .map(|(g, leaves)| (g.record.clone(), leaves))
        .collect();
    if leaving.is_empty() { Ok(0.0) } else { Ok(store.evict(&leaving)?) }
}

/// Says on standard error what was stored after the answer.
pub fn note(report: Option<MaterializeReport>) {
    let Some(r) = report else { return };
    if r.stored > 0 {
        eprintln!("note: values of this RERUN are materialized now ({} written)", bytes(r.written_bytes));
    }
    if r.waiting_rows > 0 {
        eprintln!(
            "note: {} rows were not stored: they are part of a RowBlock of which many parts are stored already; a question of all \
             its rows stores the whole",
            count(r.waiting_rows)
        );
    }
    if r.gave_way > 0 {
        eprintln!("note: values of this RERUN were not stored: another process is writing");
    }
    if r.dropped > 0 {
        eprintln!("note: values of this RERUN were not stored: they are larger than the queue");
    }
    if let Some(why) = r.last_error {
        eprintln!("warning: values of this RERUN were not stored: {why}");
    }
    if r.evicted_groups > 0 {
        eprintln!("note: {} column groups of the lowest γ left ({})", count(r.evicted_groups), bytes(r.evicted_bytes));
    }
}
