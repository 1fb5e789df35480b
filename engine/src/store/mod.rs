//! The DataStore: opens a store, reads intermediates, begins logs.

mod counts;
mod tables;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::catalog::{Block, Catalog};
use crate::chunk::ChunkView;
use crate::codec::TensorCodec;
use crate::counters::Counters;
use crate::error::{EngineError, Result};
use crate::key::{IntermediateKey, ModelKey};
use crate::log::{LogOptions, Logger};
use crate::model::{Fingerprint, IntermediateRecord, ModelRecord, fingerprint, hex};
use crate::partition::{self, ChunkPlace, PartitionReader};
use crate::pool::InMemoryStore;
use crate::read::{self, Chunks};
use crate::row_plan::{RowPlan, Rows};
use crate::rows::{RowMask, RowSet};
use crate::storage::{LocalStorage, Storage};

/// Folder of the operators.
const OPERATORS: &str = "operators";
/// Counters of hits and misses that the catalogue keeps: of pages, and of answers.
const POOL: [&str; 2] = ["pool_hits", "pool_misses"];
const ANSWERS: [&str; 2] = ["answer_hits", "answer_misses"];
/// Places of chunks that are remembered.
const PLACES: usize = 1 << 18;
/// Models whose intermediates are remembered.
const MODELS: usize = 1 << 12;
/// Tables whose RowBlocks are remembered.
const TABLES: usize = 256;

/// Ranges of row_ids that are remembered of an intermediate.
const RANGES: usize = 1 << 12;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    pool_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { pool_bytes: 256 << 20 }
    }
}

impl StoreOptions {
    /// Bytes that decoded pages may hold in memory (default 256 MiB).
    #[must_use]
    pub fn with_pool_bytes(mut self, bytes: usize) -> Self {
        self.pool_bytes = bytes;
        self
    }
}

/// What is remembered of the catalogue and the files until either changes.
#[derive(Default)]
struct Known {
    version: i64,
    partitions: HashMap<u64, PartitionReader>,
    places: HashMap<i64, ChunkPlace>,
    codecs: HashMap<i64, Arc<TensorCodec>>,
    models: HashMap<i64, Arc<Vec<IntermediateRecord>>>,
    /// Row_ids of intermediates as ranges, ascending.
    rows: HashMap<i64, Vec<Range<u64>>>,
    /// All RowBlocks of tables.
    blocks: HashMap<i64, Arc<Vec<Block>>>,
}

/// A store of model intermediates.
pub struct Store {
    storage: Arc<dyn Storage>,
    catalog: Mutex<Catalog>,
    known: Mutex<Known>,
    pool: Arc<InMemoryStore>,
    counters: Mutex<Counters>,
    writer: Mutex<Weak<dyn Send + Sync>>,
    /// Changes that its own connection does not see as changes.
    own_changes: AtomicU64,
    /// Requests answered from memory, and others.
    answers: [AtomicU64; 2],
    /// At which batch sizes stages were measured, by a hash of model and stage.
    batches: Mutex<HashMap<u64, u16>>,
}

struct NoWriter;

/// Rows of sets as ranges, ascending and apart.
fn ranges_of(sets: &[Arc<RowSet>]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for set in sets {
        match &**set {
            RowSet::Range(r) => ranges.push(r.clone()),
            RowSet::List(ids) => ranges.extend(ids.iter().map(|id| *id..id + 1)),
        }
    }
    ranges.sort_unstable_by_key(|r| r.start);
    ranges.dedup_by(|next, before| {
        let joins = next.start <= before.end;
        if joins {
            before.end = before.end.max(next.end);
        }
        joins
    });
    ranges
}

/// The chunks of `groups` of `blocks`.
pub(crate) fn chunks_of<'a>(blocks: &'a [Block], groups: &'a BTreeSet<usize>) -> impl Iterator<Item = i64> + 'a {
    blocks.iter().flat_map(|b| groups.iter().filter_map(|g| b.chunks.get(*g).copied()))
}

/// Whether ranges, ascending and apart, hold all of the rows.
fn holds(ranges: &[Range<u64>], rows: &RowSet) -> bool {
    let one = |wanted: Range<u64>| {
        let after = ranges.partition_point(|r| r.start <= wanted.start);
        let around = after.checked_sub(1).and_then(|i| ranges.get(i));
        wanted.is_empty() || around.is_some_and(|r| wanted.end <= r.end)
    };
    match rows {
        RowSet::Range(r) => one(r.clone()),
        RowSet::List(ids) => ids.iter().all(|id| one(*id..id + 1)),
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// The store in the folder `path`, which must exist.
    ///
    /// Errors: `NoStore`, `UnsupportedVersion`, `Catalog`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let storage = LocalStorage::existing(path.as_ref())?;
        Self::on(Arc::new(storage), false, StoreOptions::default())
    }

    /// The store in the folder `path`, made where there is none.
    ///
    /// Errors: `Io`, `UnsupportedVersion`, `Catalog`.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        let storage = LocalStorage::create(path.as_ref())?;
        Self::on(Arc::new(storage), true, StoreOptions::default())
    }

    /// The store on any storage.
    ///
    /// Errors: as [`Store::open`].
    pub fn on(storage: Arc<dyn Storage>, create: bool, options: StoreOptions) -> Result<Self> {
        Self::with_pool(storage, create, Arc::new(InMemoryStore::new(options.pool_bytes)))
    }

    /// Another handle on the same store, for another thread: what one of them reads is held for both.
    ///
    /// Errors: as [`Store::open`].
    pub(crate) fn beside(&self) -> Result<Self> {
        Self::with_pool(Arc::clone(&self.storage), false, Arc::clone(&self.pool))
    }

    fn with_pool(storage: Arc<dyn Storage>, create: bool, pool: Arc<InMemoryStore>) -> Result<Self> {
        let catalog = Catalog::open(&*storage, create)?;
        let none: Weak<NoWriter> = Weak::new();
        let this = Self {
            storage,
            catalog: Mutex::new(catalog),
            known: Mutex::default(),
            pool,
            counters: Mutex::default(),
            writer: Mutex::new(none),
            own_changes: AtomicU64::new(0),
            answers: Default::default(),
            batches: Mutex::default(),
        };
        // What a crash left is removed by whoever comes next and may write; a store being written is left alone.
        match this.writer_lock() {
            Ok(guard) => {
                this.remove_orphans()?;
                drop(guard);
            }
            Err(e) => tracing::debug!("orphans are not looked for: {e}"),
        }
        Ok(this)
    }

    /// Where the files live.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The MetadataDB, locked for the caller.
    pub fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }

    pub(crate) fn writer_lock(&self) -> Result<Arc<dyn Send + Sync>> {
        let mut writer = lock(&self.writer);
        if writer.upgrade().is_some() {
            return Err(EngineError::Locked { path: self.storage.describe() });
        }
        let guard: Arc<dyn Send + Sync> = Arc::new(self.storage.lock_writer()?);
        *writer = Arc::downgrade(&guard);
        Ok(guard)
    }

    /// Removes files that no commit names. The caller holds the writer's lock.
    pub(crate) fn remove_orphans(&self) -> Result<()> {
        self.remove_orphan_indexes()?;
        let catalog = self.catalog();
        let known: std::collections::HashSet<u64> = catalog.partitions()?.into_iter().map(|(id, _)| id).collect();
        let operators: std::collections::HashSet<String> =
            catalog.operators()?.into_iter().map(|o| hex(&o.hash)).collect();
        for file in self.storage.list(partition::DIR)? {
            if partition::id_of(&file.name).is_some_and(|id| !known.contains(&id)) {
                self.storage.remove(&format!("{}/{}", partition::DIR, file.name))?;
            }
        }
        for file in self.storage.list(OPERATORS)? {
            let ours = file.name.len() == 32 && file.name.bytes().all(|b| b.is_ascii_hexdigit());
            if ours && !operators.contains(&file.name) {
                self.storage.remove(&format!("{OPERATORS}/{}", file.name))?;
            }
        }
        Ok(())
    }

    /// Begins a log. One at a time, over all processes.
    ///
    /// Errors: `Locked`, `Io`, `Catalog`.
    pub fn logger(&self, options: LogOptions) -> Result<Logger> {
        let guard = self.writer_lock()?;
        self.remove_orphans()?;
        Logger::begin(Arc::clone(&self.storage), guard, options)
    }

    /// Stores an operator's bytes once per content and returns their hash.
    ///
    /// Errors: `Locked` while another process logs; `Io`, `Catalog`.
    pub fn put_operator(&self, bytes: &[u8], kind: &str) -> Result<Fingerprint> {
        let hash = fingerprint(bytes);
        if self.catalog().operator(&hash)?.is_some() {
            return Ok(hash);
        }
        let _guard = self.writer_lock()?;
        // An earlier try may have left its file.
        self.remove_orphans()?;
        write_operator(&*self.storage, &mut self.catalog(), bytes, kind)
    }

    /// An operator's bytes, checked against their hash.
    ///
    /// Errors: `NotFound`, `Corrupt`, `Io`.
    pub fn operator(&self, hash: &Fingerprint) -> Result<Vec<u8>> {
        let name = hex(hash);
        if self.catalog().operator(hash)?.is_none() {
            return Err(EngineError::NotFound { what: "operator", name, nearest: vec![] });
        }
        let path = format!("{OPERATORS}/{name}");
        let file = self.storage.open(&path)?;
        let bytes = file.read(0..file.len_bytes())?.into_owned();
        if fingerprint(&bytes) != *hash {
            return Err(EngineError::corrupt(path, 0, "the content does not have the hash of its name"));
        }
        Ok(bytes)
    }

    /// All models, oldest first.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn models(&self) -> Result<Vec<ModelRecord>> {
        self.catalog().models()
    }

    /// The model of a key; without a version, the unversioned one, else the one logged last.
    ///
    /// Errors: `NotFound`, `Catalog`.
    pub fn model(&self, key: &ModelKey) -> Result<ModelRecord> {
        self.catalog().model(key)
    }

    /// The intermediates of a model, from the input on.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn intermediates(&self, model: &ModelRecord) -> Result<Vec<IntermediateRecord>> {
        self.catalog().intermediates(Some(model.id))
    }

    /// The intermediates of a model by its number, from the input on, remembered until another connection commits; their
    /// counts of queries may be older.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn intermediates_of(&self, model_id: i64) -> Result<Arc<Vec<IntermediateRecord>>> {
        self.refresh()?;
        if let Some(found) = lock(&self.known).models.get(&model_id) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(self.catalog().intermediates(Some(model_id))?);
        let mut known = lock(&self.known);
        if known.models.len() >= MODELS {
            known.models.clear();
        }
        known.models.insert(model_id, Arc::clone(&found));
        Ok(found)
    }

    /// The intermediate of a key.
    ///
    /// Errors: `NotFound` with the nearest names, `Catalog`.
    pub fn intermediate(&self, key: &IntermediateKey) -> Result<IntermediateRecord> {
        self.catalog().intermediate(key)
    }

    /// The oldest intermediate that a computation gave, whole.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn intermediate_by_stage(&self, stage: &Fingerprint) -> Result<Option<IntermediateRecord>> {
        Ok(self.catalog().intermediates_by_stage(stage)?.into_iter().next())
    }

    /// Finds rows.
    ///
    /// Errors: `NoSuchRow`, `Catalog`.
    pub fn plan_rows(&self, record: &IntermediateRecord, rows: &Rows) -> Result<RowPlan> {
        let (min, max) = match rows {
            Rows::All => (0, u64::MAX),
            Rows::Range(r) if r.is_empty() => return RowPlan::new(record, Vec::new(), rows),
            Rows::Range(r) => (r.start, r.end - 1),
            Rows::List(ids) => match (ids.iter().min(), ids.iter().max()) {
                (Some(&min), Some(&max)) => (min, max),
                _ => return RowPlan::new(record, Vec::new(), rows),
            },
        };
        let blocks = self.catalog().blocks(record, min, max)?;
        RowPlan::new(record, blocks, rows)
    }

    /// All RowBlocks of a table, remembered: plans ask for those of every ancestor.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub(crate) fn all_blocks(&self, table: &IntermediateRecord) -> Result<Arc<Vec<Block>>> {
        self.refresh()?;
        if let Some(found) = lock(&self.known).blocks.get(&table.id) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(self.catalog().blocks(table, 0, u64::MAX)?);
        let mut known = lock(&self.known);
        if known.blocks.len() >= TABLES {
            known.blocks.clear();
        }
        known.blocks.insert(table.id, Arc::clone(&found));
        Ok(found)
    }

    /// Finds those of the rows that are stored, in their order, and says of each whether it is.
    ///
    /// Errors: `Catalog`.
    pub fn plan_stored(&self, record: &IntermediateRecord, ids: &[u64]) -> Result<(RowPlan, Vec<bool>)> {
        let (Some(&min), Some(&max)) = (ids.iter().min(), ids.iter().max()) else {
            return Ok((RowPlan::new(record, Vec::new(), &Rows::List(Vec::new()))?, Vec::new()));
        };
        let blocks = self.catalog().blocks(record, min, max)?;
        let mut held = RowMask::default();
        blocks.iter().for_each(|b| held.extend(&b.rows));
        let is_stored: Vec<bool> = ids.iter().map(|id| held.contains(*id)).collect();
        let stored = ids.iter().zip(&is_stored).filter(|(_, s)| **s).map(|(id, _)| *id).collect();
        Ok((RowPlan::new(record, blocks, &Rows::List(stored))?, is_stored))
    }

    /// Of each intermediate, whether it holds all of the rows; what it holds is remembered.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn holding(&self, records: &[&IntermediateRecord], rows: &RowSet) -> Result<Vec<bool>> {
        self.refresh()?;
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let known = lock(&self.known).rows.get(&record.id).map(|held| holds(held, rows));
            all.push(match known {
                Some(known) => known,
                None => {
                    let held = ranges_of(&self.row_sets(record)?);
                    let answer = holds(&held, rows);
                    if held.len() <= RANGES {
                        lock(&self.known).rows.insert(record.id, held);
                    }
                    answer
                }
            });
        }
        Ok(all)
    }

    /// The codec of a tensor intermediate.
    ///
    /// Errors: `Quantize`, `Unsupported` for a table.
    pub fn codec(&self, record: &IntermediateRecord) -> Result<Arc<TensorCodec>> {
        self.refresh()?;
        if let Some(codec) = lock(&self.known).codecs.get(&record.id) {
            return Ok(Arc::clone(codec));
        }
        let codec = Arc::new(TensorCodec::new(&record.key, record.tensor()?)?);
        lock(&self.known).codecs.insert(record.id, Arc::clone(&codec));
        Ok(codec)
    }

    pub(crate) fn batches(&self) -> MutexGuard<'_, HashMap<u64, u16>> {
        lock(&self.batches)
    }

    /// Forgets what is remembered when another connection has committed. What chunks hold stays: a number is never used
    /// again, and a chunk's codes never change.
    fn refresh(&self) -> Result<()> {
        let version = self.catalog().data_version()?;
        let mut known = lock(&self.known);
        if known.version != version {
            *known = Known { version, ..Known::default() };
        }
        Ok(())
    }

    /// Fills `out` (rows × columns, row-major) with stored columns of a tensor, as f32.
    ///
    /// `columns` count stored cells, unit by unit. Errors: `Shape` when `out` has another length; `Corrupt`, `Io`.
    pub fn read_f32(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        columns: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<()> {
        self.read_through(record, plan, columns, out, true)
    }

    /// As [`Store::read_f32`], but without the InMemoryStore, as a request reads that is too large for it.
    ///
    /// Errors: as there.
    pub fn read_past_memory(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        columns: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<()> {
        self.read_through(record, plan, columns, out, false)
    }

    fn read_through(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        columns: &[Range<usize>],
        out: &mut [f32],
        may_hold: bool,
    ) -> Result<()> {
        let n = record.tensor()?.layout.stored_values();
        if let Some(bad) = columns.iter().find(|c| c.start > c.end || c.end > n) {
            return Err(EngineError::Shape {
                key: record.key.to_string(),
                what: "columns",
                expected: format!("within 0..{n}"),
                got: format!("{bad:?}"),
            });
        }
        if plan.n_rows() == 0 && out.is_empty() {
            // A scheme may not be settled before the first row.
            return Ok(());
        }
        let begun = Instant::now();
        let codec = self.codec(record)?;
        let group_cols = codec.content().layout.group_units * codec.content().layout.stored.cells();
        let groups: BTreeSet<usize> =
            columns.iter().flat_map(|c| c.start / group_cols..c.end.div_ceil(group_cols)).collect();
        self.check_materialized(record, plan, &groups)?;
        let looking = Instant::now();
        let places = self.load_places(chunks_of(&plan.blocks, &groups))?;
        let looked = looking.elapsed().as_secs_f64();
        let meter = read::read_f32(self, &codec, record, (plan, columns), out, may_hold)?;
        self.keep_read(record, &meter, out.len(), (places, looked), begun);
        Ok(())
    }

    /// Errors: `NotMaterialized` when values of `groups` are withheld.
    fn check_materialized(&self, record: &IntermediateRecord, plan: &RowPlan, groups: &BTreeSet<usize>) -> Result<()> {
        let groups: Vec<usize> = groups.iter().copied().collect();
        match plan.lacking(&groups) {
            (0, _) => Ok(()),
            (lacking, touched) => {
                let what = format!("columns in {lacking} of {touched} RowBlocks");
                Err(EngineError::NotMaterialized { key: record.key.to_string(), what })
            }
        }
    }

    /// Codes of stored columns of a tensor, as the bytes of their stored type: `[rows][columns]`.
    ///
    /// Errors: `Corrupt`, `Io`, `Shape`.
    pub fn read_codes(&self, record: &IntermediateRecord, plan: &RowPlan) -> Result<Vec<u8>> {
        let begun = Instant::now();
        self.refresh()?;
        let layout = record.tensor()?.layout;
        self.check_materialized(record, plan, &(0..layout.n_groups()).collect())?;
        let width = layout.code.width();
        let row_len = layout.stored_values() * width;
        let mut out = vec![0u8; plan.n_rows() * row_len];
        let damaged = |why: &str| EngineError::corrupt("catalog.db", 0, why);
        for group in 0..layout.n_groups() {
            let start = group * layout.group_units * layout.stored.cells() * width;
            let n_cols = layout.units_of_group(group).len() * layout.stored.cells() * width;
            // Scattered rows come back to the same chunks: each is decoded once.
            let mut decoded: HashMap<usize, Vec<u8>> = HashMap::new();
            for (block, position, at, len) in plan.runs() {
                let codes = match decoded.entry(block) {
                    Entry::Occupied(held) => held.into_mut(),
                    Entry::Vacant(empty) => {
                        let chunk = plan.blocks.get(block).and_then(|b| b.chunks.get(group)).copied();
                        empty.insert(self.chunk_codes(chunk.ok_or_else(|| damaged("a RowBlock lacks a chunk"))?)?)
                    }
                };
                for i in 0..len {
                    let (from, to) = ((position + i) * n_cols, (at + i) * row_len + start);
                    let row = codes.get(from..from + n_cols);
                    let row = row.ok_or_else(|| damaged("a chunk has fewer rows than its RowBlock"))?;
                    out[to..to + n_cols].copy_from_slice(row);
                }
            }
        }
        self.keep_codes_read(record, plan, begun.elapsed().as_secs_f64());
        Ok(out)
    }

    fn chunk_codes(&self, chunk: i64) -> Result<Vec<u8>> {
        let (partition, place) = self.place(chunk)?;
        let bytes = partition.chunk(place)?;
        let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
        Ok(self.decode(&view, place)?.codes)
    }

    /// Remembers where chunks lie, so that reading them asks the catalogue once.
    ///
    /// Returns how many were not known.
    pub(crate) fn load_places(&self, chunks: impl Iterator<Item = i64>) -> Result<usize> {
        let missing: Vec<i64> = {
            let mut known = lock(&self.known);
            if known.places.len() > PLACES {
                known.places.clear();
            }
            chunks.filter(|id| !known.places.contains_key(id)).take(PLACES).collect()
        };
        let catalog = self.catalog();
        let mut places = missing.iter().map(|&id| Ok((id, catalog.chunk_place(id)?))).collect::<Result<Vec<_>>>()?;
        let bases: BTreeSet<i64> = places.iter().filter_map(|(_, place)| place.base.map(|b| b.id)).collect();
        for id in bases {
            places.push((id, catalog.chunk_place(id)?));
        }
        drop(catalog);
        lock(&self.known).places.extend(places);
        Ok(missing.len())
    }

    /// How many of these chunks are known to lie where.
    pub(crate) fn known_places(&self, chunks: impl Iterator<Item = i64>) -> usize {
        let known = lock(&self.known);
        chunks.filter(|id| known.places.contains_key(id)).count()
    }

    /// Row_ids that an intermediate holds, in stored order.
    ///
    /// Errors: `Catalog`.
    pub fn row_sets(&self, record: &IntermediateRecord) -> Result<Vec<Arc<RowSet>>> {
        Ok(self.catalog().blocks(record, 0, u64::MAX)?.into_iter().map(|b| b.rows).collect())
    }

    /// Two numbers, one of which differs when anything was committed in between: by others, and by this handle itself.
    ///
    /// Errors: `Catalog`.
    pub fn catalog_version(&self) -> Result<(i64, u64)> {
        Ok((self.catalog().data_version()?, self.own_changes.load(Ordering::SeqCst)))
    }

    /// Forgets places, files and pages after chunks have moved.
    pub(crate) fn forget(&self) {
        self.own_changes.fetch_add(1, Ordering::SeqCst);
        *lock(&self.known) = Known::default();
        self.pool.clear();
    }

    /// Removes a model of exactly that key with all it holds; `gc` then frees the bytes.
    ///
    /// Errors: `NotFound`, `Locked`, `Catalog`.
    pub fn remove_model(&self, key: &ModelKey) -> Result<ModelRecord> {
        let _guard = self.writer_lock()?;
        let mut catalog = self.catalog();
        let model = match catalog.model_exact(key)? {
            Some(model) => model,
            // Removing "the latest" of a name would be a surprise: the version must be said.
            None => {
                let nearest = catalog.model(key).map_or_else(
                    |e| if let EngineError::NotFound { nearest, .. } = e { nearest } else { vec![] },
                    |m| vec![m.spec.key.to_string()],
                );
                return Err(EngineError::NotFound { what: "model", name: key.to_string(), nearest });
            }
        };
        catalog.remove_model(model.id)?;
        drop(catalog);
        // The store's own connection does not see its own change as one.
        self.forget();
        Ok(model)
    }

    /// Forgets decoded pages, so that the next read is a first one.
    pub fn clear_pool(&self) {
        self.pool.clear();
    }
}

/// Writes an operator's file, unless there is one of its content. The caller holds the writer's lock and has removed
/// orphans.
pub(crate) fn write_operator(
    storage: &dyn Storage,
    catalog: &mut Catalog,
    bytes: &[u8],
    kind: &str,
) -> Result<Fingerprint> {
    let hash = fingerprint(bytes);
    if catalog.operator(&hash)?.is_some() {
        return Ok(hash);
    }
    let mut file = storage.create(&format!("{OPERATORS}/{}", hex(&hash)))?;
    file.append(bytes)?;
    file.finish()?;
    storage.sync_dir(OPERATORS)?;
    catalog.add_operator(storage, &hash, bytes.len() as u64, kind)?;
    Ok(hash)
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(e) = lock(&self.counters).flush(&self.catalog()) {
            tracing::debug!("measured costs are not kept: {e}");
        }
        let stats = self.pool.stats();
        let [answered, others] = self.answers.each_ref().map(|n| n.load(Ordering::Relaxed));
        let totals = [(POOL[0], stats.hits), (POOL[1], stats.misses), (ANSWERS[0], answered), (ANSWERS[1], others)];
        // Counters alone are lost when this fails, as on read-only media.
        if let Err(e) = self.catalog().add_totals(&totals) {
            tracing::debug!("hits and misses are not kept: {e}");
        }
    }
}

impl Chunks for Store {
    fn place(&self, chunk: i64) -> Result<(PartitionReader, ChunkPlace)> {
        let known = lock(&self.known);
        let place = known.places.get(&chunk).copied();
        if let Some(place) = place
            && let Some(partition) = known.partitions.get(&place.partition)
        {
            return Ok((partition.clone(), place));
        }
        drop(known);
        // What is remembered may have moved since, and so may what was just looked up: `compact` and `gc` of another
        // handle do not wait for readers.
        let mut found = self.find(chunk, place);
        for _ in 0..3 {
            if found.is_ok() {
                break;
            }
            found = self.find(chunk, None);
        }
        let (partition, place) = found?;
        let mut known = lock(&self.known);
        known.places.insert(chunk, place);
        known.partitions.insert(place.partition, partition.clone());
        Ok((partition, place))
    }

    fn pool(&self) -> &InMemoryStore {
        &self.pool
    }
}

impl Store {
    fn find(&self, chunk: i64, place: Option<ChunkPlace>) -> Result<(PartitionReader, ChunkPlace)> {
        let catalog = self.catalog();
        let place = place.map_or_else(|| catalog.chunk_place(chunk), Ok)?;
        let len = catalog.partition_len(place.partition)?;
        drop(catalog);
        let opened = lock(&self.known).partitions.get(&place.partition).cloned();
        let partition = match opened {
            Some(partition) => partition,
            None => PartitionReader::open(&*self.storage, place.partition, len)?,
        };
        Ok((partition, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_by_ranges() {
        let sets = [RowSet::Range(4..8), RowSet::List(vec![20, 3, 9]), RowSet::Range(8..9)].map(Arc::new);
        let ranges = ranges_of(&sets);
        assert_eq!(ranges, [3..10, 20..21]);
        assert!(holds(&ranges, &RowSet::Range(3..10)) && holds(&ranges, &RowSet::List(vec![20, 5])));
        assert!(!holds(&ranges, &RowSet::Range(9..11)) && !holds(&ranges, &RowSet::Range(2..4)));
        assert!(!holds(&ranges, &RowSet::List(vec![5, 19])) && holds(&ranges, &RowSet::Range(0..0)));
    }
}
