//! Materialization beside the answers: a thread with a byte budget takes what RERUNs produced and stores it the way logging
//! does, one commit an intermediate: whole RowBlocks, and parts of those that have no values yet. Other rows wait until
//! their RowBlock is whole. Values that do not fit the budget are dropped
//! and not waited for; they come again with the next RERUN. Which values are worth it follows from counts and costs that
//! the MetadataDB keeps, so that a restart loses no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mistique_quantize::Effort;

use super::decide::{Candidate, within_budget};
use super::gamma::Demand;
use super::gather::{Gathered, value_bytes};
use super::mode::Materialize;
use super::sizes::GroupSize;
use crate::catalog::{Block, WITHHELD};
use crate::error::{EngineError, Result};
use crate::log::{LogOptions, is_divisible, step_back};
use crate::model::{Content, IntermediateRecord, ModelRecord};
use crate::rerun::{RerunValues, Verifier};
use crate::row_plan::Rows;
use crate::store::Store;

/// How long whoever else writes is waited for before values are let go.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);

/// Values that a RERUN produced and that are worth storing.
pub struct Offer {
    /// Their intermediate.
    pub record: IntermediateRecord,
    /// Whether each of its groups is worth it.
    pub groups: Vec<bool>,
    /// Their row_ids.
    pub rows: Vec<u64>,
    /// All columns at full precision, in the order of the rows.
    pub values: RerunValues,
    /// What else is stored and asked for, where the store has a byte budget.
    pub balance: Option<Balance>,
}

/// What queries asked for, by which a byte budget is shared.
#[derive(Clone, Default)]
pub struct Balance {
    /// Queries of each intermediate.
    pub demands: BTreeMap<i64, Demand>,
    /// Who can tell whether a model can be run again: values of one that none of them runs never leave.
    pub verifiers: Vec<Verifier>,
}

/// What a materializer did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaterializeReport {
    /// Offers that came.
    pub offered: u64,
    /// Offers after which RowBlocks were stored.
    pub stored: u64,
    /// Offers let go since the budget was used up.
    pub dropped: u64,
    /// Offers let go since another process was writing.
    pub gave_way: u64,
    /// Offers that failed; `last_error` says why the last one did.
    pub failed: u64,
    /// Bytes of chunks written.
    pub written_bytes: u64,
    /// Column groups that left the store.
    pub evicted_groups: u64,
    /// Bytes that they took.
    pub evicted_bytes: u64,
    /// Rows that wait for the rest of their RowBlock.
    pub waiting_rows: u64,
    /// Bytes held in memory.
    pub held_bytes: usize,
    /// Most bytes that were held.
    pub most_held_bytes: usize,
    /// Why the last failure failed.
    pub last_error: Option<String>,
}

enum Job {
    Offer(Box<Offer>, usize),
    Wait(SyncSender<()>),
}

struct Shared {
    budget: usize,
    held: AtomicUsize,
    report: Mutex<MaterializeReport>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, MaterializeReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes, if they fit. What is alone always fits, as in a log.
    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| (held == 0 || held + bytes <= self.budget).then_some(held + bytes);
        let taken = self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits);
        if let Ok(before) = taken {
            let mut report = self.report();
            report.most_held_bytes = report.most_held_bytes.max(before + bytes);
        }
        taken.is_ok()
    }
}

/// The thread that materializes, and the way to it. Dropping it waits for what was offered.
pub struct Materializer {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Materializer {
    /// Starts a thread that writes to `store` through a handle of its own and holds at most `budget_bytes` of values.
    ///
    /// Errors: `Io` when no thread can be started; those of opening a store.
    pub fn start(store: &Store, budget_bytes: usize) -> Result<Self> {
        let own = store.beside()?;
        let shared = Arc::new(Shared { budget: budget_bytes, held: AtomicUsize::new(0), report: Mutex::default() });
        let (jobs, receiver) = channel();
        let shared_too = Arc::clone(&shared);
        let worker = Worker { store: own, shared: shared_too, gathered: BTreeMap::new(), verified: BTreeMap::new() };
        let thread = std::thread::Builder::new()
            .name("mistique-materialize".into())
            .spawn(move || worker.run(&receiver))
            .map_err(|e| EngineError::io("materialize", "start a thread", e))?;
        Ok(Self { shared, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands values over and returns at once; `false` when they were dropped.
    pub fn offer(&self, offer: Offer) -> bool {
        let bytes = value_bytes(&offer.values);
        self.shared.report().offered += 1;
        let sent = self.shared.take(bytes)
            && self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Offer(Box::new(offer), bytes)).is_ok());
        if !sent {
            self.shared.report().dropped += 1;
        }
        sent
    }

    /// What was done so far.
    pub fn report(&self) -> MaterializeReport {
        let mut report = self.shared.report().clone();
        report.held_bytes = self.shared.held.load(Ordering::SeqCst);
        report
    }

    /// Waits for all that was offered, and returns what was done.
    pub fn finish(&self) -> MaterializeReport {
        let (reply, done) = sync_channel(1);
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Wait(reply)).is_ok()) {
            // The thread ends only when this is dropped; if it panicked, there is nothing to wait for.
            let _ = done.recv();
        }
        self.report()
    }
}

impl Drop for Materializer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that materializes panicked");
        }
    }
}

struct Worker {
    store: Store,
    shared: Arc<Shared>,
    gathered: BTreeMap<i64, Gathered>,
    /// By model: whether it could be run again, and when that was seen.
    verified: BTreeMap<i64, (Instant, bool)>,
}

/// How long what was found of a model's operators and dataset is believed: files may change while a session lasts.
const VERIFIED_FOR: Duration = Duration::from_secs(60);

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        step_back();
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Wait(reply) => {
                    // Whoever waited may have gone.
                    let _ = reply.send(());
                }
                Job::Offer(offer, bytes) => {
                    let id = offer.record.id;
                    let before = self.gathered.get(&id).map_or(0, Gathered::bytes);
                    let result = self.take(*offer);
                    let after = self.gathered.get(&id).map_or(0, Gathered::bytes);
                    self.shared.held.fetch_sub(bytes, Ordering::SeqCst);
                    self.held_now(before, after);
                    self.make_room();
                    let mut report = self.shared.report();
                    match result {
                        Ok(stored) => report.stored += u64::from(stored),
                        Err(EngineError::Locked { .. }) => report.gave_way += 1,
                        Err(e) => {
                            report.failed += 1;
                            report.last_error = Some(e.to_string());
                        }
                    }
                    report.waiting_rows = self.gathered.values().map(|g| g.len() as u64).sum();
                }
            }
        }
    }

    fn held_now(&self, before: usize, after: usize) {
        match after.checked_sub(before) {
            Some(more) => self.shared.held.fetch_add(more, Ordering::SeqCst),
            None => self.shared.held.fetch_sub(before - after, Ordering::SeqCst),
        };
    }

    /// Rows that wait take at most half of the budget: then the largest collection goes.
    fn make_room(&mut self) {
        while self.gathered.values().map(Gathered::bytes).sum::<usize>() > self.shared.budget / 2 {
            let largest = self.gathered.iter().max_by_key(|(_, g)| g.bytes()).map(|(id, _)| *id);
            let Some(gone) = largest.and_then(|id| self.gathered.remove(&id)) else { break };
            self.held_now(gone.bytes(), 0);
            self.shared.report().dropped += 1;
        }
    }

    /// Stores the RowBlocks that are whole now, and parts of those that have no values yet; tells whether there were some.
    fn take(&mut self, offer: Offer) -> Result<bool> {
        let Offer { record, mut groups, rows, values, balance } = offer;
        // As it is now: somebody else may have filled, or removed, it.
        let Some(record) = self.store.catalog().intermediate_by_id(record.id)? else { return Ok(false) };
        let lacks = |b: &Block| b.chunks.iter().zip(&groups).any(|(chunk, wanted)| *wanted && *chunk == WITHHELD);
        let blocks = self.store.catalog().blocks(&record, 0, u64::MAX)?;
        let n_blocks = blocks.len();
        let earlier = self.gathered.remove(&record.id);
        let is_first = earlier.is_none();
        let mut gathered = earlier.unwrap_or_default();
        gathered.add(&rows, values);
        let is_ready = |b: &&Block| {
            let mut held = b.rows.iter().map(|row| gathered.holds(row));
            if is_divisible(&record, b, n_blocks) { held.any(|h| h) } else { held.all(|h| h) }
        };
        let (storable, part): (Vec<&Block>, Vec<&Block>) = blocks.iter().filter(|b| lacks(b)).partition(is_ready);
        let held = |blocks: &[&Block]| -> Vec<u64> {
            blocks.iter().flat_map(|b| b.rows.iter()).filter(|row| gathered.holds(*row)).collect()
        };
        let (ready, waiting) = (held(&storable), held(&part));
        if !waiting.is_empty() {
            let mut rest = Gathered::default();
            rest.add(&waiting, gathered.select(&waiting)?);
            self.gathered.insert(record.id, rest);
        }
        if ready.is_empty() {
            return Ok(false);
        }
        // Usually one RERUN gave all rows: then they are not copied.
        let (rows, values) = match is_first.then(|| gathered.pop()).flatten() {
            Some(values) => (rows, values),
            None => {
                let values = gathered.select(&ready)?;
                (ready, values)
            }
        };
        if let Some(balance) = &balance {
            groups = self.balance(balance, Some((&record, &groups)))?;
            if !groups.contains(&true) {
                return Ok(false);
            }
        }
        // Nobody waits for it: it may be small from the beginning.
        let options = LogOptions::default().with_budget_bytes(self.shared.budget).with_effort(Effort::Small);
        let mut log = self.patiently(|store| store.logger(options))?;
        let stored = Rows::List(rows.clone());
        let columns: Vec<usize> = groups.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(g, _)| g).collect();
        log.fill(&record, groups, rows, values)?;
        self.shared.report().written_bytes += log.commit()?.written_bytes;
        drop(log);
        if matches!(*record.content, Content::Table(_)) {
            // Read back, so that the next READ finds it in memory, as a run finds its inputs.
            self.store.hold_table(&record, &self.store.plan_rows(&record, &stored)?, &columns)?;
        }
        if let Some(balance) = &balance {
            // What was stored may be larger than it was estimated to be.
            self.balance(balance, None)?;
        }
        Ok(true)
    }

    /// Tries until nobody else writes, but not for long.
    fn patiently<T>(&self, work: impl Fn(&Store) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            match work(&self.store) {
                Err(EngineError::Locked { .. }) if begun.elapsed() < PATIENCE => std::thread::sleep(RETRY),
                result => return result,
            }
        }
    }

    /// Lets the lowest γ leave until what is stored, and what is wanted beside it, fits the budget: of models that can be
    /// run again here and now. Returns which groups of the wanted ones are to be stored.
    fn balance(&mut self, balance: &Balance, wanted: Option<(&IntermediateRecord, &[bool])>) -> Result<Vec<bool>> {
        let Some(budget) = self.store.materialize()?.budget() else {
            return Ok(wanted.map(|(_, groups)| groups.to_vec()).unwrap_or_default());
        };
        let models: BTreeMap<i64, ModelRecord> = self.store.models()?.into_iter().map(|m| (m.id, m)).collect();
        // Only a model whose values are to leave is looked at, which may show that they must not.
        let mut kept = BTreeSet::new();
        // What shares its chunks with others leaves its share of them to these: they are weighed again.
        loop {
            let records = self.store.catalog().intermediates(None)?;
            let sizes = self.store.group_sizes(&records)?;
            let share = Share { budget: budget as f64, records: &records, sizes: &sizes, models: &models, kept: &kept };
            let (leaving, stored) = share.decide(&balance.demands, wanted);
            let touched: BTreeSet<i64> =
                records.iter().filter(|r| leaving.contains_key(&r.id)).map(|r| r.model_id).collect();
            let mut cannot = |id: &i64| !models.get(id).is_some_and(|m| self.can_rerun(m, &balance.verifiers));
            let fixed: Vec<i64> = touched.into_iter().filter(&mut cannot).collect();
            if fixed.is_empty() && leaving.is_empty() {
                return Ok(stored);
            }
            if fixed.is_empty() {
                self.leave(&records, leaving)?;
            }
            kept.extend(fixed);
        }
    }

    /// Whether a model can be run again, looked up anew after a while.
    fn can_rerun(&mut self, model: &ModelRecord, verifiers: &[Verifier]) -> bool {
        match self.verified.get(&model.id) {
            Some((then, can)) if then.elapsed() < VERIFIED_FOR => *can,
            _ => {
                let can = verifiers.iter().any(|verify| verify(&self.store, model).is_ok());
                self.verified.insert(model.id, (Instant::now(), can));
                can
            }
        }
    }

    fn leave(&self, records: &[IntermediateRecord], leaving: BTreeMap<i64, Vec<bool>>) -> Result<()> {
        let of = |id: i64, groups| Some((records.iter().find(|r| r.id == id)?.clone(), groups));
        let leaving: Vec<_> = leaving.into_iter().filter_map(|(id, groups)| of(id, groups)).collect();
        let bytes = self.patiently(|store| store.evict(&leaving))?;
        {
            let mut report = self.shared.report();
            report.evicted_bytes += bytes as u64;
            report.evicted_groups += leaving.iter().flat_map(|(_, g)| g).filter(|g| **g).count() as u64;
        }
        self.patiently(Store::gc).map(drop)
    }
}

/// What a byte budget is shared among.
struct Share<'a> {
    budget: f64,
    records: &'a [IntermediateRecord],
    sizes: &'a BTreeMap<i64, Vec<GroupSize>>,
    models: &'a BTreeMap<i64, ModelRecord>,
    /// Models whose values must stay.
    kept: &'a BTreeSet<i64>,
}

impl Share<'_> {
    /// Which stored groups are to leave, and which of the wanted ones are to be stored.
    fn decide(
        &self,
        demands: &BTreeMap<i64, Demand>,
        wanted: Option<(&IntermediateRecord, &[bool])>,
    ) -> (BTreeMap<i64, Vec<bool>>, Vec<bool>) {
        let mut fixed = 0.0;
        let mut candidates = Vec::new();
        for record in self.records {
            let sizes = self.sizes.get(&record.id).map(Vec::as_slice).unwrap_or_default();
            let gives = self.models.get(&record.model_id).is_some_and(|m| m.spec.kind.gives(&record.content));
            if !gives || self.kept.contains(&record.model_id) {
                fixed += sizes.iter().map(|s| s.stored_bytes).sum::<f64>();
                continue;
            }
            let whole: Vec<f64> = sizes.iter().map(|s| s.whole_bytes).collect();
            let gammas = demands.get(&record.id).map_or_else(|| vec![0.0; whole.len()], |d| d.gammas(&whole));
            for (group, (size, gamma)) in sizes.iter().zip(gammas).enumerate() {
                let is_wanted = wanted.is_some_and(|(r, groups)| r.id == record.id && groups.get(group) == Some(&true));
                if size.stored_rows == 0 && !is_wanted {
                    continue;
                }
                let bytes = if is_wanted { size.whole_bytes } else { size.stored_bytes };
                let is_stored = size.stored_rows > 0;
                candidates.push(Candidate { intermediate_id: record.id, group, gamma, bytes, is_stored });
            }
        }
        let keep = within_budget((self.budget - fixed).max(0.0), &candidates);
        let mut leaving: BTreeMap<i64, Vec<bool>> = BTreeMap::new();
        let mut stored = wanted.map_or_else(Vec::new, |(_, groups)| vec![false; groups.len()]);
        for (candidate, keep) in candidates.iter().zip(keep) {
            if !keep && candidate.is_stored {
                let n_groups = self.sizes.get(&candidate.intermediate_id).map_or(0, Vec::len);
                let groups = leaving.entry(candidate.intermediate_id).or_insert_with(|| vec![false; n_groups]);
                groups.iter_mut().skip(candidate.group).take(1).for_each(|g| *g = true);
            }
            if keep && wanted.is_some_and(|(r, groups)| r.id == candidate.intermediate_id && groups[candidate.group]) {
                stored.iter_mut().skip(candidate.group).take(1).for_each(|g| *g = true);
            }
        }
        (leaving, stored)
    }
}

impl Materialize {
    /// Whether anything that is rerun can be stored.
    pub fn stores_reruns(self) -> bool {
        self != Self::None
    }
}
