//! `mistique verify`, `gc`, `compact`, `rm`.

use serde_json::json;

use super::output::{bytes, count, damage_json, pretty};
use super::progress::Progress;
use super::{CliError, Result};
use crate::{ModelKey, Store};

pub fn verify(store: &Store, as_json: bool) -> Result<()> {
    let mut progress = Progress::bytes("verifying", as_json);
    let report = store.verify(&mut |done, total| progress.at(done, total));
    progress.finish();
    let report = report?;
    let text = if as_json {
        pretty(&json!({
            "partitions": report.n_partitions, "chunks": report.n_chunks, "operators": report.n_operators,
            "bytes": report.bytes, "damage": damage_json(&report.damage),
        }))
    } else {
        let mut text = format!(
            "{} partitions, {} chunks, {} operators, {} read\n",
            count(report.n_partitions),
            count(report.n_chunks),
            count(report.n_operators),
            bytes(report.bytes),
        );
        for d in &report.damage {
            text += &format!("damaged: {}: {}\n", d.place, d.why);
            for key in &d.keys {
                text += &format!("  used by {key}\n");
            }
        }
        if report.damage.is_empty() {
            text += "no damage\n";
        }
        text
    };
    super::print(&text)?;
    if report.damage.is_empty() { Ok(()) } else { Err(CliError::Damaged(report.damage.len())) }
}

pub fn gc(store: &Store, as_json: bool) -> Result<String> {
    let left = super::materialize::keep_budget(store, crate::Device::Cpu)? as u64;
    let r = store.gc()?;
    if as_json {
        let (chunks, operators) = (r.n_chunks, r.n_operators);
        let value = json!({"chunks": chunks, "operators": operators, "freed_bytes": r.freed_bytes, "left_bytes": left});
        return Ok(pretty(&value));
    }
    let mut text =
        format!("freed {}: {} chunks, {} operators\n", bytes(r.freed_bytes), count(r.n_chunks), count(r.n_operators));
    if left > 0 {
        let mode = store.materialize()?;
        text += &format!("values of {} left the store, which keeps {mode}; a RERUN gives them again\n", bytes(left));
    }
    Ok(text)
}

pub fn compact(store: &Store, as_json: bool) -> Result<String> {
    let mut progress = Progress::bytes("compacting", as_json);
    let report = store.compact(&mut |done, total| progress.at(done, total));
    progress.finish();
    let r = report?;
    Ok(if as_json {
        pretty(&json!({"chunks": r.n_chunks, "before_bytes": r.before_bytes, "after_bytes": r.after_bytes}))
    } else if r.n_chunks == 0 && r.after_bytes == r.before_bytes {
        format!("nothing to do: {} are as small as they get\n", bytes(r.before_bytes))
    } else {
        let (chunks, before, after) = (count(r.n_chunks), bytes(r.before_bytes), bytes(r.after_bytes));
        format!("{chunks} chunks written anew: {before} became {after}\n")
    })
}

pub fn rm(store: &Store, model: &str, as_json: bool) -> Result<String> {
    let key: ModelKey = model.parse()?;
    store.remove_model(&key)?;
    let text = key.to_string();
    Ok(if as_json {
        pretty(&json!({ "removed": text }))
    } else {
        format!("{text} is removed; `mistique gc` frees its bytes\n")
    })
}
