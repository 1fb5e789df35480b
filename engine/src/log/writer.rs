//! From codes to stored chunks: hash, look up, look for a similar one, and only for what is new encode and write.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use lru::LruCache;
use mistique_quantize::Effort;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Dedup;
use crate::catalog::{Catalog, LshRow, NewChunk};
use crate::chunk::{
    ChunkCodes, ChunkHash, ChunkShape, ChunkView, Extra, base_name, salted, write_against, write_chunk,
};
use crate::column::ColumnCodes;
use crate::error::{EngineError, Result};
use crate::partition::{self, Base, FinishedPartition, PartitionReader, PartitionWriter};
use crate::similar::{SimilarIndex, Sketch, Sketcher};
use crate::storage::Storage;

/// Chunks of at most so many bytes are not worth to be coded against others.
const MIN_ALONE_BYTES: usize = 384;
/// Similar chunks that a new one is tried against.
const MOST_TRIED: usize = 3;
/// Decoded chunks that are kept to code others against, in bytes.
const BASES_BYTES: usize = 64 << 20;

/// Whether a chunk of `len` bytes, coded against another one, is so much smaller than alone that reading two pays: by an
/// eighth and 64 bytes.
pub(crate) fn pays(len: usize, alone: usize) -> bool {
    len + alone / 8 + 64 <= alone
}

/// Codes of one group of a RowBlock.
pub struct GroupCodes<'a> {
    /// Their shape.
    pub shape: ChunkShape,
    /// Row-major codes.
    pub codes: &'a [u8],
    /// What a table's column has beside them.
    pub extra: Extra<'a>,
    /// Of a table's column, a hash of its name and of its rows.
    pub column: Option<u64>,
}

impl ColumnCodes {
    /// These codes as a group of a RowBlock of a table; `rows` is a hash of its row_ids.
    pub fn group(&self, n_rows: usize, name: &str, rows: u64) -> GroupCodes<'_> {
        GroupCodes {
            shape: ChunkShape { code: self.code, n_rows, n_cols: 1, page_rows: n_rows, map_w: 1 },
            codes: &self.codes,
            extra: Extra { validity: self.validity.as_deref(), dictionary: self.dictionary.as_deref() },
            column: Some(xxh3_64_with_seed(name.as_bytes(), rows)),
        }
    }
}

/// What a log has written so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Rows, summed over intermediates.
    pub rows: u64,
    /// Bytes of the values at the precision in which they were given.
    pub logical_bytes: u64,
    /// Chunks written.
    pub new_chunks: u64,
    /// Chunks that were stored already.
    pub duplicate_chunks: u64,
    /// Chunks written that are coded against a similar one.
    pub similar_chunks: u64,
    /// Bytes of the chunks written.
    pub written_bytes: u64,
    /// Bytes that the duplicates would have taken.
    pub saved_bytes: u64,
    /// Bytes more that the chunks coded against others would have taken.
    pub similar_saved_bytes: u64,
    /// Values that their scheme cannot hold and that were clamped, in the intermediates of this log, earlier logs
    /// included.
    pub clamped: u64,
    /// Nanoseconds that hashing, signatures and look-ups took, summed over threads.
    pub search_ns: u64,
    /// Nanoseconds that the log worked, summed over threads.
    pub work_ns: u64,
}

/// Writes chunks into partitions, each content once.
pub struct ChunkWriter {
    storage: Arc<dyn Storage>,
    catalog: Catalog,
    next_chunk: i64,
    next_partition: u64,
    current: Option<PartitionWriter>,
    finishing: Vec<JoinHandle<Result<FinishedPartition>>>,
    uncommitted: HashMap<ChunkHash, (i64, u64)>,
    new_chunks: Vec<NewChunk>,
    created: Vec<u64>,
    scratch: Vec<Vec<u8>>,
    effort: Effort,
    dedup: Dedup,
    sketcher: Sketcher,
    index: SimilarIndex,
    bases: Bases,
    max_bytes: Option<u64>,
    target_bytes: u64,
    /// What was written.
    pub report: LogReport,
}

impl ChunkWriter {
    /// A writer with a connection of its own; the caller holds the writer's lock.
    ///
    /// Errors: `Catalog`.
    pub fn new(
        storage: Arc<dyn Storage>,
        effort: Effort,
        dedup: Dedup,
        max_bytes: Option<u64>,
        target_bytes: u64,
    ) -> Result<Self> {
        let catalog = Catalog::open(&*storage, false)?;
        let (_, _, next_chunk, next_partition) = catalog.next_ids()?;
        Ok(Self {
            storage,
            catalog,
            next_chunk,
            next_partition,
            current: None,
            finishing: Vec::new(),
            uncommitted: HashMap::new(),
            new_chunks: Vec::new(),
            created: Vec::new(),
            scratch: Vec::new(),
            effort,
            dedup,
            sketcher: Sketcher::default(),
            index: SimilarIndex::default(),
            bases: Bases::default(),
            max_bytes,
            target_bytes,
            report: LogReport::default(),
        })
    }

    /// The catalogue's connection.
    pub fn catalog(&mut self) -> &mut Catalog {
        &mut self.catalog
    }

    /// Stores the groups of a RowBlock and returns the number of each one's chunk.
    ///
    /// Errors: `Io`, `NoSpace` past `max_bytes`, `Catalog`, `Quantize`.
    pub fn put(
        &mut self,
        groups: &[GroupCodes<'_>],
        key: &(dyn std::fmt::Display + Sync),
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<i64>> {
        let (search, work) = (AtomicU64::new(0), AtomicU64::new(0));
        let parallel = groups.len() > 1;
        let hash = |g: &GroupCodes<'_>| timed(&search, || g.shape.hash(g.codes, g.extra));
        let mut hashes: Vec<ChunkHash> = if parallel {
            pool.install(|| groups.par_iter().map(hash).collect())
        } else {
            groups.iter().map(hash).collect()
        };
        if self.dedup == Dedup::Off {
            for (id, h) in (self.next_chunk..).zip(&mut hashes) {
                *h = salted(*h, id);
            }
        }
        let mut ids = Vec::with_capacity(groups.len());
        let mut fresh = Vec::new();
        let looked_up = Instant::now();
        for (i, h) in hashes.iter().enumerate() {
            let known = match self.uncommitted.get(h) {
                Some(known) => Some(*known),
                None => self.catalog.chunk_by_hash(h)?,
            };
            let id = match known {
                Some((id, len)) => {
                    self.report.duplicate_chunks += 1;
                    self.report.saved_bytes += len;
                    id
                }
                None => {
                    let id = self.next_chunk;
                    self.next_chunk += 1;
                    self.uncommitted.insert(*h, (id, 0));
                    fresh.push((i, id));
                    id
                }
            };
            ids.push(id);
        }
        add_time(&search, looked_up);
        let mut encoded = std::mem::take(&mut self.scratch);
        encoded.resize_with(encoded.len().max(fresh.len()), Vec::new);
        let (effort, sketcher) = (self.effort, &self.sketcher);
        let similar = self.dedup == Dedup::Approximate;
        let encode = |((i, _), out): (&(usize, i64), &mut Vec<u8>)| -> Result<Option<Sketch>> {
            let Some(group) = groups.get(*i) else { return Ok(None) };
            let effort = if group.column.is_some() { Effort::Column } else { effort };
            timed(&work, || write_chunk(&group.shape, group.codes, group.extra, effort, key, out))?;
            let name = group.column.filter(|_| similar && out.len() > MIN_ALONE_BYTES);
            let sketch = |name| sketcher.sketch(group.shape.code, group.codes, group.extra.validity, name);
            Ok(name.map(|name| timed(&search, || sketch(name))))
        };
        let jobs: Vec<_> = fresh.iter().zip(&mut encoded).collect();
        let sketches: Vec<Option<Sketch>> = if parallel {
            pool.install(|| jobs.into_par_iter().map(encode).collect::<Result<_>>())?
        } else {
            jobs.into_iter().map(encode).collect::<Result<_>>()?
        };
        let mut written = Ok(());
        for (((i, id), bytes), sketch) in fresh.iter().zip(&mut encoded).zip(sketches) {
            let (Some(group), Some(hash)) = (groups.get(*i), hashes.get(*i)) else { continue };
            written = self.place(*id, hash, group, sketch, bytes, key, (&search, &work));
            if written.is_err() {
                break;
            }
        }
        self.scratch = encoded;
        self.report.search_ns += search.load(Ordering::Relaxed);
        self.report.work_ns += search.load(Ordering::Relaxed) + work.load(Ordering::Relaxed);
        written?;
        Ok(ids)
    }

    /// Bytes that a row of each of these groups would take, each stored alone.
    ///
    /// Errors: `Quantize`.
    pub fn measure(
        &self,
        groups: &[GroupCodes<'_>],
        key: &(dyn std::fmt::Display + Sync),
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<f32>> {
        let effort = self.effort;
        let measure = |g: &GroupCodes<'_>| -> Result<f32> {
            let mut out = Vec::new();
            let effort = if g.column.is_some() { Effort::Column } else { effort };
            write_chunk(&g.shape, g.codes, g.extra, effort, key, &mut out)?;
            Ok(out.len() as f32 / g.shape.n_rows.max(1) as f32)
        };
        pool.install(|| groups.par_iter().map(measure).collect())
    }

    /// Writes a chunk, against a similar one where that pays.
    #[expect(clippy::too_many_arguments, reason = "one step of `put`, which has all of it at hand")]
    fn place(
        &mut self,
        id: i64,
        hash: &ChunkHash,
        group: &GroupCodes<'_>,
        sketch: Option<Sketch>,
        bytes: &mut Vec<u8>,
        key: &(dyn std::fmt::Display + Sync),
        (search, work): (&AtomicU64, &AtomicU64),
    ) -> Result<()> {
        let Some(sketch) = sketch else {
            return timed(work, || self.store(id, hash, bytes, None, 0));
        };
        let found = timed(search, || self.index.candidates(&self.catalog, &sketch))?;
        let alone = bytes.len();
        let mut best: Option<(Base, Vec<u8>)> = None;
        for candidate in found.into_iter().take(MOST_TRIED) {
            let started = Instant::now();
            let Some((base, codes)) = self.base(candidate)? else { continue };
            let mut out = Vec::new();
            let wrote = write_against(&group.shape, group.codes, group.extra, (base.name, &codes), key, &mut out)?;
            let least = best.as_ref().map_or(usize::MAX, |(_, bytes)| bytes.len());
            if wrote && pays(out.len(), alone) && out.len() < least {
                best = Some((base, out));
            }
            add_time(work, started);
            // Hardly more than header and directory: nothing else will be smaller.
            if best.as_ref().is_some_and(|(_, bytes)| bytes.len() < MIN_ALONE_BYTES) {
                break;
            }
        }
        if let Some((base, mut bytes)) = best {
            let saved = (alone - bytes.len()) as u64;
            return timed(work, || self.store(id, hash, &mut bytes, Some(base), saved));
        }
        timed(work, || self.store(id, hash, bytes, None, 0))?;
        self.index.add(&sketch, id);
        let (shape, codes) = (group.shape, group.codes.to_vec());
        let codes = ChunkCodes { shape, codes, validity: group.extra.validity.map(<[u8]>::to_vec) };
        let base = Base { id, name: base_name(hash) };
        self.bases.add(base, Arc::new(codes));
        Ok(())
    }

    /// A chunk to code another one against; `None` for one that is not to be had.
    fn base(&mut self, id: i64) -> Result<Option<(Base, Arc<ChunkCodes>)>> {
        if let Some(known) = self.bases.held.get(&id) {
            return Ok(Some(known.clone()));
        }
        // Of this log, and no longer held: its partition may still be open. Or gone since it was indexed.
        let place = match self.catalog.chunk_place(id) {
            Err(EngineError::Corrupt { .. }) => return Ok(None),
            place => place?,
        };
        if place.base.is_some() {
            return Ok(None);
        }
        let len = self.catalog.partition_len(place.partition)?;
        let partition = PartitionReader::open(&*self.storage, place.partition, len)?;
        let bytes = partition.chunk(place)?;
        // A damaged chunk is no reason that a log fails.
        let codes = match ChunkView::parse(&bytes, partition.path(), place.offset).and_then(|view| view.decode(None)) {
            Ok(codes) => Arc::new(codes),
            Err(e) => {
                tracing::warn!("a similar chunk is damaged, and not used: {e}");
                return Ok(None);
            }
        };
        let base = Base { id, name: base_name(&self.catalog.chunk_hash(id)?) };
        self.bases.add(base, Arc::clone(&codes));
        Ok(Some((base, codes)))
    }

    fn store(
        &mut self,
        id: i64,
        hash: &ChunkHash,
        bytes: &mut Vec<u8>,
        base: Option<Base>,
        saved_bytes: u64,
    ) -> Result<()> {
        let after = self.report.written_bytes + bytes.len() as u64;
        if let Some(max) = self.max_bytes.filter(|max| after > *max) {
            return Err(EngineError::NoSpace { needed: after, available: max, limit: "allowed by --max-bytes" });
        }
        let current = match &mut self.current {
            Some(open) => open,
            None => {
                self.created.push(self.next_partition);
                let new = PartitionWriter::create(&*self.storage, self.next_partition)?;
                self.next_partition += 1;
                self.current.insert(new)
            }
        };
        let place = current.append(hash, bytes, base)?;
        let full = current.len_bytes() >= self.target_bytes;
        self.uncommitted.insert(*hash, (id, place.len));
        self.new_chunks.push(NewChunk { id, hash: *hash, place, saved_bytes });
        self.report.new_chunks += 1;
        self.report.similar_chunks += u64::from(base.is_some());
        self.report.similar_saved_bytes += saved_bytes;
        self.report.written_bytes = after;
        if full { self.roll() } else { Ok(()) }
    }

    /// Closes the partition being written; making it durable goes on beside the log.
    fn roll(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            let spawned = std::thread::Builder::new().name("mistique-sync".into()).spawn(move || current.finish());
            self.finishing.push(spawned.map_err(|e| EngineError::io("partitions", "start a thread to sync", e))?);
        }
        Ok(())
    }

    /// Makes everything durable, and returns what the commit has to name.
    ///
    /// Errors: `Io`.
    pub fn finish(&mut self) -> Result<(Vec<FinishedPartition>, Vec<NewChunk>, Vec<LshRow>)> {
        self.roll()?;
        // All are waited for, whatever one says: a thread that still wrote would do so beside what comes next.
        let threads = std::mem::take(&mut self.finishing);
        let finished: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
        let panicked =
            |_| EngineError::io("partitions", "sync", std::io::Error::other("the thread that syncs panicked"));
        let partitions = finished.into_iter().map(|thread| thread.map_err(panicked)?).collect::<Result<Vec<_>>>()?;
        if !partitions.is_empty() {
            self.storage.sync_dir(partition::DIR)?;
        }
        Ok((partitions, std::mem::take(&mut self.new_chunks), self.index.take_rows()))
    }

    /// Called when the commit has reached the catalogue.
    pub fn committed(&mut self) {
        self.uncommitted.clear();
        self.index.committed();
        self.created.clear();
    }

    /// Removes the files of what was not committed, as far as that is possible: the next log's begin removes the rest.
    pub fn abandon(&mut self) {
        self.current = None;
        for thread in std::mem::take(&mut self.finishing) {
            let _ = thread.join();
        }
        for id in std::mem::take(&mut self.created) {
            if let Err(e) = self.storage.remove(&partition::path(id)) {
                tracing::debug!("partition {id} is left for the next log to remove: {e}");
            }
        }
    }
}

/// Decoded chunks to code others against, the least recently used leaving first.
struct Bases {
    held: LruCache<i64, (Base, Arc<ChunkCodes>)>,
    held_bytes: usize,
}

impl Default for Bases {
    fn default() -> Self {
        Self { held: LruCache::unbounded(), held_bytes: 0 }
    }
}

impl Bases {
    fn add(&mut self, base: Base, codes: Arc<ChunkCodes>) {
        self.held_bytes += codes.held_bytes();
        if let Some((_, old)) = self.held.put(base.id, (base, codes)) {
            self.held_bytes -= old.held_bytes();
        }
        while self.held_bytes > BASES_BYTES {
            let Some((_, (_, codes))) = self.held.pop_lru() else { break };
            self.held_bytes -= codes.held_bytes();
        }
    }
}

fn add_time(total: &AtomicU64, since: Instant) {
    total.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
}

fn timed<T>(total: &AtomicU64, f: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = f();
    add_time(total, started);
    done
}
