//! The DataStore: opens a store, reads intermediates, begins logs.

mod counts;
mod holding;
mod places;
mod tables;
mod tensors;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::catalog::{Block, Catalog};
use crate::codec::TensorCodec;
use crate::counters::Counters;
use crate::error::{EngineError, Result};
use crate::key::{IntermediateKey, ModelKey};
use crate::log::{LogOptions, Logger};
use crate::model::{Fingerprint, IntermediateRecord, ModelRecord, fingerprint, hex};
use crate::partition::{self, ChunkPlace, PartitionReader};
use crate::pool::InMemoryStore;
use crate::row_plan::{RowPlan, Rows};
use crate::rows::{RowMask, RowSet};
use crate::storage::{LocalStorage, Storage};

pub(crate) use places::chunks_of;

/// Folder of the operators.
const OPERATORS: &str = "operators";
/// Counters of hits and misses that the catalogue keeps: of pages, and of answers.
const POOL: [&str; 2] = ["pool_hits", "pool_misses"];
const ANSWERS: [&str; 2] = ["answer_hits", "answer_misses"];
/// All of these.
pub(crate) const COUNTERS: [&str; 4] = [POOL[0], POOL[1], ANSWERS[0], ANSWERS[1]];
/// Models whose intermediates are remembered.
const MODELS: usize = 1 << 12;
/// Tables whose RowBlocks are remembered.
const TABLES: usize = 256;

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

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// The store in the folder `path`, which must exist.
    ///
    /// Errors: `NoStore`, `UnsupportedVersion`, `Catalog`, `DamagedCatalog`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let storage = LocalStorage::existing(path.as_ref())?;
        Self::on(Arc::new(storage), false, StoreOptions::default())
    }

    /// The store in the folder `path`, made where there is none.
    ///
    /// Errors: `Io`, `UnsupportedVersion`, `Catalog`, `DamagedCatalog`.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        let storage: Arc<dyn Storage> = Arc::new(LocalStorage::create(path.as_ref())?);
        // One that is there may be for reading only; one that is being made has no tables yet.
        match Self::on(Arc::clone(&storage), false, StoreOptions::default()) {
            Err(EngineError::NoStore { .. }) => Self::on(storage, true, StoreOptions::default()),
            opened => opened,
        }
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
        let counters = Mutex::new(Counters::on(storage.medium()));
        let this = Self {
            storage,
            catalog: Mutex::new(catalog),
            known: Mutex::default(),
            pool,
            counters,
            writer: Mutex::new(none),
            own_changes: AtomicU64::new(0),
            answers: Default::default(),
            batches: Mutex::default(),
        };
        // What a crash left is removed by whoever comes next and may write; a store being written is left alone.
        match this.writer_lock() {
            Ok(guard) => {
                match this.remove_orphans() {
                    // Other data stays readable, and `verify` names it: nothing is removed.
                    Err(e) if e.is_damage() => tracing::debug!("orphans are not looked for: {e}"),
                    removed => removed?,
                }
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

    /// Fails where nothing can be written.
    ///
    /// Errors: `ReadOnly`, with the reason and what to do.
    pub fn check_writable(&self) -> Result<()> {
        self.catalog().check_writable(&*self.storage)
    }

    /// The right to write, which one has at a time over all processes.
    ///
    /// Errors: `Locked`, `ReadOnly`, `Io`.
    pub(crate) fn writer_lock(&self) -> Result<Arc<dyn Send + Sync>> {
        self.check_writable()?;
        self.keep_writers_out()
    }

    /// The same, for who only reads and wants nothing to change meanwhile.
    ///
    /// Errors: `Locked`, `Io`.
    pub(crate) fn keep_writers_out(&self) -> Result<Arc<dyn Send + Sync>> {
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
        let known: std::collections::HashSet<u64> = catalog.partitions()?.into_iter().map(|p| p.id).collect();
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
        let path = format!("{OPERATORS}/{}", hex(&hash));
        if self.catalog().operator(&hash)?.is_some() && holds(&*self.storage, &path, bytes) {
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
    /// Errors: `NoSuchRow`, `Catalog`; `Corrupt` where RowBlocks are gone.
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
        if *rows == Rows::All {
            self.check_rows(record, &blocks)?;
        }
        RowPlan::new(record, blocks, rows)
    }

    /// That RowBlocks hold all rows that an intermediate says it has: fewer would pass for an answer.
    fn check_rows(&self, record: &IntermediateRecord, blocks: &[Block]) -> Result<()> {
        let found: u64 = blocks.iter().map(|b| b.rows.len() as u64).sum();
        if found >= record.n_rows {
            return Ok(());
        }
        // It may have been removed, or replaced, since it was looked up.
        match self.catalog().intermediate_by_id(record.id)? {
            Some(now) if now.n_rows > found => {
                let why = format!("row_blocks: {found} of {} rows of {} are left", now.n_rows, record.key);
                Err(EngineError::corrupt("catalog.db", 0, why))
            }
            _ => Ok(()),
        }
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

    /// Removes a model of exactly that key with all it holds, also one that is damaged; `gc` then frees the bytes.
    ///
    /// Errors: `NotFound`, `Locked`, `Catalog`.
    pub fn remove_model(&self, key: &ModelKey) -> Result<()> {
        let _guard = self.writer_lock()?;
        let mut catalog = self.catalog();
        let Some((id, _)) = catalog.model_keys()?.into_iter().find(|(_, k)| k == key) else {
            // Removing "the latest" of a name would be a surprise: the version must be said.
            let nearest = catalog.model(key).map_or_else(
                |e| if let EngineError::NotFound { nearest, .. } = e { nearest } else { vec![] },
                |m| vec![m.spec.key.to_string()],
            );
            return Err(EngineError::NotFound { what: "model", name: key.to_string(), nearest });
        };
        catalog.remove_model(id)?;
        drop(catalog);
        // The store's own connection does not see its own change as one.
        self.forget();
        Ok(())
    }

    /// Forgets decoded pages, open partitions and where chunks lie in them, so that the next read is a first one.
    pub fn clear_pool(&self) {
        self.pool.clear();
        let mut known = lock(&self.known);
        known.places.clear();
        known.partitions.clear();
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
    let is_known = catalog.operator(&hash)?.is_some();
    let path = format!("{OPERATORS}/{}", hex(&hash));
    if is_known && holds(storage, &path, bytes) {
        return Ok(hash);
    }
    // Of a known one the file is gone or damaged.
    if is_known && storage.open(&path).is_ok() {
        storage.remove(&path)?;
    }
    let mut file = storage.create(&path)?;
    file.append(bytes)?;
    file.finish()?;
    storage.sync_dir(OPERATORS)?;
    if !is_known {
        catalog.add_operator(storage, &hash, bytes.len() as u64, kind)?;
    }
    Ok(hash)
}

/// Whether a file has just these bytes.
fn holds(storage: &dyn Storage, path: &str, bytes: &[u8]) -> bool {
    let same = |file: Arc<dyn crate::storage::ReadFile>| {
        let len = file.len_bytes();
        len == bytes.len() as u64 && file.read(0..len).is_ok_and(|read| *read == *bytes)
    };
    storage.open(path).is_ok_and(same)
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
