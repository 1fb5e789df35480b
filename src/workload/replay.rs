//! Replay: the same queries under each mode, each on a copy of the store in the same state.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::cli_reader as reader;
use crate::{
    Device, IntermediateRecord, Materialize, PlanChoice, QueryError, Request, RowSelection, Store, StoreOptions,
};

use super::WorkloadQuery;

/// One query of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryRun {
    /// Seconds until its answer was there.
    pub seconds: f64,
    /// The plan that answered its first key.
    pub plan: &'static str,
    /// Bytes of values in the store after it, once the background had done its work.
    pub stored_bytes: u64,
}

/// A workload under one mode.
#[derive(Debug, Clone, PartialEq)]
pub struct ModeRun {
    /// The mode.
    pub mode: Materialize,
    /// Bytes of values before the first query.
    pub start_bytes: u64,
    /// The queries, pass after pass.
    pub passes: Vec<Vec<QueryRun>>,
}

impl ModeRun {
    /// Seconds of all queries of a pass.
    pub fn seconds(&self, pass: usize) -> f64 {
        self.passes.get(pass).map_or(0.0, |queries| queries.iter().map(|q| q.seconds).sum())
    }

    /// Bytes of values after the last query.
    pub fn end_bytes(&self) -> u64 {
        self.passes.last().and_then(|p| p.last()).map_or(self.start_bytes, |q| q.stored_bytes)
    }
}

/// A copy of a store that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn of(store: &Store, beside: &Path) -> Result<Self, QueryError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut name = beside.file_name().unwrap_or_default().to_os_string();
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".workload-{}-{n}", std::process::id()));
        let scratch = Self(beside.with_file_name(name));
        if n == 0 {
            name_abandoned(beside);
        }
        store.copy_to(&scratch.0)?;
        Ok(scratch)
    }
}

/// Names copies of runs that were killed. They are not removed: whether a run of another machine or container still uses
/// one cannot be told.
fn name_abandoned(beside: &Path) {
    let (Some(name), Some(folder)) = (beside.file_name(), beside.parent()) else { return };
    let prefix = format!("{}.workload-", name.to_string_lossy());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mine = format!("{prefix}{}-", std::process::id());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && !name.starts_with(&mine) {
            eprintln!("note: {} is a copy of another run; remove it if none is running", entry.path().display());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} is left behind: {e}", self.0.display());
        }
    }
}

/// Runs the queries under each mode, `passes` times, and measures. Each mode has a copy of the store beside it, which is removed
/// afterwards; the store itself does not change. Under `all` every value is materialized before the first query; under
/// the other modes no value is that can be rerun. Counts of queries begin at nothing, answers are not held for repeats.
/// After each query the background is waited for, beside the time that is measured.
///
/// Errors: those of the queries; `Engine` with `Io` where there is no room for a copy.
pub fn replay(
    store: &Store,
    path: &Path,
    queries: &[WorkloadQuery],
    modes: &[Materialize],
    passes: usize,
    device: Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<ModeRun>, QueryError> {
    let requests = queries.iter().map(WorkloadQuery::requests).collect::<Result<Vec<_>, _>>()?;
    let total = modes.len() * passes * queries.len();
    let mut done = 0;
    let mut runs = Vec::with_capacity(modes.len());
    for mode in modes {
        let scratch = Scratch::of(store, path)?;
        {
            let copy = Store::open(&scratch.0)?;
            copy.set_materialize(Materialize::All)?;
            match mode {
                Materialize::All => {
                    if let Some((_, why)) = fill(&copy, device)?.failed.pop() {
                        return Err(why);
                    }
                }
                _ => empty(&copy, device)?,
            }
            copy.gc()?;
            copy.reset_queries()?;
            copy.set_materialize(*mode)?;
        }
        let copy =
            Store::on(std::sync::Arc::new(crate::LocalStorage::existing(&scratch.0)?), false, StoreOptions::default())?;
        let reader = reader(&copy, device).with_answer_bytes(0);
        let mut run = ModeRun { mode: *mode, start_bytes: copy.stats()?.chunk_bytes, passes: Vec::new() };
        for _ in 0..passes {
            let mut measured = Vec::with_capacity(requests.len());
            for requests in &requests {
                let begun = Instant::now();
                let answers = reader.get_intermediates(requests)?;
                let seconds = begun.elapsed().as_secs_f64();
                reader.finish_materializing();
                let explanation = answers.first().map(|a| &a.explanation);
                let plan = explanation.and_then(|e| e.considered.get(e.chosen)).map_or("", |c| c.plan);
                measured.push(QueryRun { seconds, plan, stored_bytes: copy.stats()?.chunk_bytes });
                done += 1;
                progress(done, total);
            }
            run.passes.push(measured);
        }
        runs.push(run);
    }
    Ok(runs)
}

/// What became of what was not stored.
pub(crate) struct Filled {
    /// Intermediates that were rerun and stored.
    pub stored: u64,
    /// Those that could not be, by their keys.
    pub failed: Vec<(String, QueryError)>,
}

/// Materializes everything that can be rerun: that one cannot keeps no other from it.
///
/// Errors: `Engine`.
pub(crate) fn fill(store: &Store, device: Device) -> Result<Filled, QueryError> {
    let reader = reader(store, device).with_answer_bytes(0);
    let mut filled = Filled { stored: 0, failed: Vec::new() };
    let lacking: Vec<IntermediateRecord> =
        store.catalog().intermediates(None)?.into_iter().filter(|r| !r.is_whole()).collect();
    for record in &lacking {
        let request = Request::new(reader.key(&record.key)).with_rows(RowSelection::All).with_plan(PlanChoice::RERUN);
        match reader.get(&request) {
            Ok(_) => filled.stored += 1,
            Err(e) => filled.failed.push((record.key.to_string(), e)),
        }
        reader.finish_materializing();
    }
    Ok(filled)
}

/// Lets all values leave that can be rerun here.
///
/// Errors: `Engine`.
pub(crate) fn empty(store: &Store, device: Device) -> Result<(), QueryError> {
    let reader = reader(store, device);
    let leaving: Vec<_> = reader
        .gammas()?
        .into_iter()
        .filter(|g| g.fixed.is_none() && g.record.n_rows > 0)
        .map(|g| (g.record.clone(), vec![true; g.sizes.len()]))
        .collect();
    store.evict(&leaving)?;
    Ok(())
}
