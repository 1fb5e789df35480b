//! `gc` and `compact`.

mod rewrite;

use std::collections::{BTreeSet, HashMap};

use mistique_quantize::Effort;

use rewrite::{Rewrite, SIZES, Sizes};

use crate::catalog::{Catalog, ChunkRow};
use crate::chunk::{ChunkCodes, ChunkView, Extra, salted};
use crate::cost;
use crate::error::Result;
use crate::partition::FinishedPartition;
use crate::store::Store;

/// What `gc` freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Chunks that nothing referred to.
    pub n_chunks: u64,
    /// Operators that nothing referred to.
    pub n_operators: u64,
    /// Bytes of files before, less bytes after.
    pub freed_bytes: u64,
}

/// What `compact` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Chunks written anew; none where all were as small as they get.
    pub n_chunks: u64,
    /// Bytes of partition files before.
    pub before_bytes: u64,
    /// Bytes of partition files after.
    pub after_bytes: u64,
}

impl Store {
    /// Frees chunks and operators that nothing refers to: partitions that hold such chunks are written anew, some at a time.
    ///
    /// Errors: `Locked`, `Io`, `Catalog`; no answer has changed then, and what was freed is.
    pub fn gc(&self) -> Result<GcReport> {
        self.gc_by(SIZES)
    }

    fn gc_by(&self, sizes: Sizes) -> Result<GcReport> {
        let _guard = self.writer_lock()?;
        let freed_indexes = self.remove_orphan_indexes()?;
        let content = self.content()?;
        let (dead_operators, operator_bytes) = {
            let catalog = self.catalog();
            let mut used: BTreeSet<[u8; 16]> = catalog.models()?.iter().filter_map(|m| m.spec.weights).collect();
            used.extend(catalog.artifacts()?);
            let dead: Vec<_> = catalog.operators()?.into_iter().filter(|o| !used.contains(&o.hash)).collect();
            (dead.iter().map(|o| o.hash).collect::<Vec<_>>(), dead.iter().map(|o| o.len_bytes).sum::<u64>())
        };
        let before = content.partition_bytes();
        let mut todo = content.with_dead_chunks();
        // What takes no room first: a disk can be full.
        let live = content.live_by_partition();
        todo.sort_by_key(|p| {
            let bytes = live.get(&p.id).map_or(0, |l| l.bytes);
            (bytes > 0, p.compact, bytes, p.id)
        });
        let (n_chunks, n_operators) = (content.dead.len() as u64, dead_operators.len() as u64);
        let work = Rewrite { todo, kept: content.live, dead_chunks: content.dead, dead_operators, effort: None };
        self.rewrite(work, sizes, &mut |_, _| {})?;
        let after: u64 = self.catalog().partitions()?.iter().map(|p| p.len_bytes).sum();
        let freed_bytes = before.saturating_sub(after) + operator_bytes + freed_indexes;
        Ok(GcReport { n_chunks, n_operators, freed_bytes })
    }

    /// Writes chunks anew as small as they get, packed into full partitions, some partitions at a time: those that were
    /// written so are not looked at again, unless chunks of theirs are no longer used. Answers do not change.
    ///
    /// Errors: `Locked`, `Io`, `Corrupt`, `Catalog`; no answer has changed then, and what was done stays.
    pub fn compact(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<CompactReport> {
        self.compact_by(SIZES, progress)
    }

    fn compact_by(&self, sizes: Sizes, progress: &mut dyn FnMut(u64, u64)) -> Result<CompactReport> {
        let _guard = self.writer_lock()?;
        let content = self.content()?;
        let before_bytes = content.partition_bytes();
        let todo = content.to_compact(sizes);
        let mut kept = content.live;
        // Chunks come to lie behind those that they are coded against.
        let order: HashMap<i64, usize> = kept.iter().enumerate().map(|(i, c)| (c.id, i)).collect();
        kept.sort_by_key(|c| {
            let base = c.place.base.map_or(c.id, |b| b.id);
            (order.get(&base).copied(), order.get(&c.id).copied())
        });
        let ids: BTreeSet<u64> = todo.iter().map(|p| p.id).collect();
        let n_chunks = kept.iter().filter(|c| ids.contains(&c.place.partition)).count() as u64;
        let effort = Some(Effort::Small);
        let work = Rewrite { todo, kept, dead_chunks: content.dead, dead_operators: Vec::new(), effort };
        let done = self.rewrite(work, sizes, progress);
        if n_chunks > 0 {
            // Pages are encoded otherwise now: what it took to read them tells nothing any more.
            self.forget_costs(&[cost::READ, cost::READ_OPEN, cost::READ_TABLE, cost::HELD])?;
        }
        done?;
        let after_bytes = self.catalog().partitions()?.iter().map(|p| p.len_bytes).sum();
        Ok(CompactReport { n_chunks, before_bytes, after_bytes })
    }

    fn content(&self) -> Result<Content> {
        let catalog = self.catalog();
        let used = live_chunks(&catalog)?;
        let (live, dead): (Vec<ChunkRow>, Vec<ChunkRow>) =
            catalog.chunks()?.into_iter().partition(|c| used.contains(&c.id));
        Ok(Content { partitions: catalog.partitions()?, live, dead: dead.into_iter().map(|c| c.id).collect() })
    }
}

/// What a store's partitions hold.
struct Content {
    partitions: Vec<FinishedPartition>,
    /// Chunks that are used.
    live: Vec<ChunkRow>,
    /// Those that are not.
    dead: Vec<i64>,
}

/// The chunks of a partition that are used.
#[derive(Default)]
struct Live {
    n_chunks: u64,
    bytes: u64,
}

impl Content {
    fn partition_bytes(&self) -> u64 {
        self.partitions.iter().map(|p| p.len_bytes).sum()
    }

    fn live_by_partition(&self) -> HashMap<u64, Live> {
        let mut live: HashMap<u64, Live> = HashMap::new();
        for chunk in &self.live {
            let of = live.entry(chunk.place.partition).or_default();
            of.n_chunks += 1;
            of.bytes += chunk.place.len;
        }
        live
    }

    /// Partitions in which chunks lie that are not used: also such as the catalogue has forgotten, or has elsewhere now.
    fn with_dead_chunks(&self) -> Vec<FinishedPartition> {
        let live = self.live_by_partition();
        let holds = |p: &&FinishedPartition| live.get(&p.id).map_or(0, |l| l.n_chunks) < p.n_chunks;
        self.partitions.iter().filter(holds).copied().collect()
    }

    /// Partitions that `compact` makes smaller, and small ones to be joined with others.
    fn to_compact(&self, sizes: Sizes) -> Vec<FinishedPartition> {
        let dead: BTreeSet<u64> = self.with_dead_chunks().iter().map(|p| p.id).collect();
        let is_small = |p: &FinishedPartition| p.len_bytes < sizes.partition / 2;
        let (mut todo, done): (Vec<_>, Vec<_>) =
            self.partitions.iter().copied().partition(|p| !p.compact || dead.contains(&p.id));
        let small: Vec<FinishedPartition> = done.into_iter().filter(is_small).collect();
        if !todo.is_empty() || small.len() > 1 {
            todo.extend(small);
        }
        todo.sort_by_key(|p| p.id);
        todo
    }
}

/// Chunks that a RowBlock refers to, and those that these are coded against.
fn live_chunks(catalog: &Catalog) -> Result<BTreeSet<i64>> {
    let mut live: BTreeSet<i64> = catalog.chunk_references()?.into_keys().map(|(_, c)| c).collect();
    let bases = catalog.chunks()?.into_iter().filter(|c| live.contains(&c.id)).filter_map(|c| c.place.base);
    let bases: Vec<i64> = bases.map(|b| b.id).collect();
    live.extend(bases);
    Ok(live)
}

/// Checks that a chunk's content is what was logged.
///
/// Errors: `Corrupt`.
pub(crate) fn check_hash(view: &ChunkView<'_>, content: &ChunkCodes, chunk: &ChunkRow) -> Result<()> {
    let extra = Extra { validity: content.validity.as_deref(), dictionary: view.dictionary() };
    let hash = content.shape.hash(&content.codes, extra);
    if hash == chunk.hash || salted(hash, chunk.id) == chunk.hash {
        return Ok(());
    }
    Err(view.corrupt(0, "the content does not have the hash that the catalogue says"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array};
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::key::ModelKey;
    use crate::log::{IfExists, LogOptions, TensorSpec};
    use crate::model::ModelSpec;
    use crate::storage::{FaultMode, FaultyStorage, MemoryStorage, Storage};
    use crate::store::StoreOptions;

    const SMALL: Sizes = Sizes { step: 36 << 10, partition: 15 << 10 };

    fn open(storage: Arc<dyn Storage>) -> Store {
        Store::on(storage, true, StoreOptions::default()).unwrap()
    }

    /// Logs a model of values that hardly compress, in partitions of about 9 kB.
    fn log(store: &Store, model: &str, seed: u32) {
        let mut log = store.logger(LogOptions::default().with_partition_bytes(9 << 10)).unwrap();
        let to = log.model(&ModelSpec::raw(ModelKey::new("p", model)), IfExists::Continue).unwrap();
        let spec = TensorSpec::new("t", &[16, 2, 2]).with_scheme("f32".parse().unwrap());
        let handle = log.tensor(to, &spec).unwrap();
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state.is_multiple_of(3) { 0.0 } else { (state >> 8) as f32 / 1e5 }
        };
        for rows in [0..512u64, 512..700] {
            let values: Vec<f32> = rows.clone().flat_map(|_| (0..64).map(|_| next()).collect::<Vec<_>>()).collect();
            log.append(handle, &rows.collect::<Vec<_>>(), values).unwrap();
        }
        // A column that is coded against the one beside it.
        let x: Vec<f64> = (0..1000).map(|_| f64::from(next())).collect();
        let y = x.iter().enumerate().map(|(i, x)| if i % 50 == 0 { 0.0 } else { *x });
        let columns: Vec<(&str, ArrayRef)> =
            vec![("x", Arc::new(Float64Array::from(x.clone()))), ("y", Arc::new(y.collect::<Float64Array>()))];
        let table = RecordBatch::try_from_iter(columns).unwrap();
        let handle = log.table(to, "table", 1, &table.schema()).unwrap();
        log.append_table(handle, &(0..1000).collect::<Vec<_>>(), &table).unwrap();
        assert!(log.commit().unwrap().similar_chunks > 0);
    }

    /// All values, by model.
    fn values(store: &Store) -> Vec<(String, Vec<u32>)> {
        let models = store.models().unwrap().into_iter();
        let of = |m: crate::model::ModelRecord| {
            let record = store.intermediate(&m.spec.key.intermediate("t")).unwrap();
            let plan = store.plan_rows(&record, &crate::row_plan::Rows::All).unwrap();
            let mut out = vec![0.0; plan.n_rows() * 64];
            store.read_f32(&record, &plan, &[0..64], &mut out).unwrap();
            (m.spec.key.to_string(), out.into_iter().map(f32::to_bits).collect())
        };
        models.map(of).collect()
    }

    fn files(store: &Store) -> BTreeSet<String> {
        store.storage().list(crate::partition::DIR).unwrap().into_iter().map(|f| f.name).collect()
    }

    fn check(store: &Store, want: &[(String, Vec<u32>)], at: &str) {
        assert!(values(store) == want, "{at}: other values");
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().damage, [], "{at}");
    }

    #[test]
    fn what_is_compact_is_not_written_again() {
        let store = open(Arc::new(MemoryStorage::new(None).unwrap()));
        log(&store, "a", 1);
        let before = values(&store);
        let logged = files(&store);
        let mut seen = Vec::new();
        let first = store.compact_by(SMALL, &mut |done, total| seen.push((done, total))).unwrap();
        assert!(first.n_chunks > 4 && first.after_bytes < first.before_bytes, "{first:?}");
        assert!(seen.is_sorted() && seen.last().is_some_and(|(done, total)| done == total), "{seen:?}");
        check(&store, &before, "compact");
        let compact = files(&store);
        assert!(compact.is_disjoint(&logged) && compact.len() > 3, "{compact:?}");
        // Short partitions that steps ended with are joined, until there is one; then nothing is left to do.
        let whole = |store: &Store| {
            let partitions = store.catalog().partitions().unwrap();
            partitions.into_iter().filter(|p| p.len_bytes >= SMALL.partition / 2).map(|p| p.id).collect::<BTreeSet<_>>()
        };
        let stay = whole(&store);
        while store.compact_by(SMALL, &mut |_, _| {}).unwrap().n_chunks > 0 {
            assert!(whole(&store).is_superset(&stay));
        }
        check(&store, &before, "compact again");
        // What is logged then is compacted, and what was is left alone.
        log(&store, "b", 2);
        let both = values(&store);
        let (stay, n_chunks) = (whole(&store), store.stats().unwrap().n_chunks);
        let report = store.compact_by(SMALL, &mut |_, _| {}).unwrap();
        assert!(report.n_chunks > 0 && report.n_chunks < n_chunks, "{report:?} of {n_chunks}");
        let compact: BTreeSet<u64> =
            store.catalog().partitions().unwrap().into_iter().filter(|p| p.compact).map(|p| p.id).collect();
        let old: BTreeSet<u64> = stay.into_iter().filter(|id| compact.contains(id)).collect();
        assert!(old.len() > 1, "{old:?} stay of {compact:?}");
        check(&store, &both, "compact with more");
        // `gc` keeps that.
        store.remove_model(&ModelKey::new("p", "a")).unwrap();
        let freed = store.gc_by(SMALL).unwrap();
        assert!(freed.n_chunks > 0 && freed.freed_bytes > 0, "{freed:?}");
        check(&store, &both[1..], "gc");
        assert!(store.catalog().partitions().unwrap().iter().all(|p| p.compact));
        assert_eq!(store.gc_by(SMALL).unwrap().n_chunks, 0);
    }

    #[test]
    fn an_interruption_between_steps_loses_nothing_and_keeps_what_was_done() {
        // Of three models one is dead, so that there is something to free between what stays.
        let prepared = || {
            let memory = MemoryStorage::new(None).unwrap();
            let store = open(Arc::new(memory.clone()));
            for (model, seed) in [("a", 1), ("b", 2), ("c", 3)] {
                log(&store, model, seed);
            }
            store.remove_model(&ModelKey::new("p", "b")).unwrap();
            (memory, values(&store), files(&store))
        };
        type Work = fn(&Store) -> Result<()>;
        let works: [(&str, Work); 2] =
            [("gc", |s| s.gc_by(SMALL).map(drop)), ("compact", |s| s.compact_by(SMALL, &mut |_, _| {}).map(drop))];
        for (name, work) in works {
            let (mut fail_at, mut kept_some) = (0, false);
            loop {
                let (memory, want, before) = prepared();
                let faulty = Arc::new(FaultyStorage::new(Arc::new(memory.clone()), fail_at, FaultMode::Crash));
                let Ok(store) = Store::on(faulty, false, StoreOptions::default()) else {
                    fail_at += 1;
                    continue;
                };
                let done = work(&store);
                drop(store);
                memory.crash();
                let store = open(Arc::new(memory.clone()));
                check(&store, &want, &format!("{name}, stopped at {fail_at}"));
                kept_some |= done.is_err() && !files(&store).is_superset(&before);
                let has_garbage = !store.content().unwrap().with_dead_chunks().is_empty();
                assert_eq!(store.stats().unwrap().garbage_bytes > 0, has_garbage, "{name}, stopped at {fail_at}");
                // Once more, to the end.
                work(&store).unwrap();
                store.gc_by(SMALL).unwrap();
                check(&store, &want, &format!("{name}, stopped at {fail_at}, again"));
                let n_chunks =
                    |store: &Store| -> u64 { store.catalog().partitions().unwrap().iter().map(|p| p.n_chunks).sum() };
                let used = live_chunks(&store.catalog()).unwrap().len() as u64;
                assert_eq!(n_chunks(&store), used, "{name}, stopped at {fail_at}: dead chunks are left");
                if done.is_ok() {
                    break;
                }
                fail_at += 1;
            }
            assert!(fail_at > 10 && kept_some, "{name}: {fail_at} operations");
        }
    }
}
