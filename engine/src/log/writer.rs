//! From codes to stored chunks: hash, look up, and only for what is new encode and write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use mistique_quantize::Effort;
use rayon::prelude::*;

use super::bases::Bases;
use super::growing::GrowingChunk;
use super::habits::Habits;
use super::seen::Seen;
use super::whole::Whole;
use super::{Dedup, LogOptions, advice};
use crate::catalog::{Catalog, LshRow, NewChunk};
use crate::chunk::{ChunkHash, salted};
use crate::error::{EngineError, Result};
use crate::partition::{self, Base, FinishedPartition, PartitionWriter};
use crate::similar::{SimilarIndex, Sketcher};
use crate::storage::Storage;

/// Whether a chunk of `len` bytes, coded against another one, is so much smaller than alone that reading two pays: by an
/// eighth and 64 bytes.
pub(crate) fn pays(len: usize, alone: usize) -> bool {
    len + alone / 8 + 64 <= alone
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
    /// Chunks that were stored before and found to be damaged or gone, written anew.
    pub rewritten_chunks: u64,
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
    pub(super) storage: Arc<dyn Storage>,
    pub(super) catalog: Catalog,
    pub(super) next_chunk: i64,
    next_partition: u64,
    current: Option<PartitionWriter>,
    finishing: Vec<JoinHandle<Result<FinishedPartition>>>,
    uncommitted: HashMap<ChunkHash, (i64, u64)>,
    new_chunks: Vec<NewChunk>,
    created: Vec<u64>,
    effort: Effort,
    pub(super) dedup: Dedup,
    pub(super) sketcher: Sketcher,
    pub(super) index: SimilarIndex,
    pub(super) bases: Bases,
    pub(super) seen: Seen,
    pub(super) habits: Habits,
    whole: Whole,
    /// Damaged chunks that are written anew; others may be coded against them, so that they are stored alone.
    pub(super) rewritten: HashSet<i64>,
    /// Columns, by intermediate and kind, that no other is like.
    pub(super) unlike: HashSet<(i64, u64)>,
    max_bytes: Option<u64>,
    target_bytes: u64,
    /// What was written.
    pub report: LogReport,
}

impl ChunkWriter {
    /// A writer with a connection of its own; the caller holds the writer's lock.
    ///
    /// Errors: `Catalog`.
    pub fn new(storage: Arc<dyn Storage>, options: &LogOptions) -> Result<Self> {
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
            effort: options.effort,
            dedup: options.dedup,
            sketcher: Sketcher::default(),
            index: SimilarIndex::default(),
            bases: Bases::default(),
            seen: Seen::new(options.budget_bytes / 2),
            habits: Habits::default(),
            whole: Whole::default(),
            rewritten: HashSet::new(),
            unlike: HashSet::new(),
            max_bytes: options.max_bytes,
            target_bytes: options.partition_bytes,
            report: LogReport::default(),
        })
    }

    /// The catalogue's connection.
    pub fn catalog(&mut self) -> &mut Catalog {
        &mut self.catalog
    }

    /// The number of the chunk of a content, and whether it is a new one.
    ///
    /// Errors: `Catalog`.
    pub(super) fn number(&mut self, hash: &ChunkHash) -> Result<(i64, bool)> {
        let known = match self.uncommitted.get(hash) {
            Some(known) => Some(*known),
            None => self.catalog.chunk_by_hash(hash)?,
        };
        let id = match known {
            Some((id, len)) if self.is_whole(hash, id)? => {
                self.report.duplicate_chunks += 1;
                self.report.saved_bytes += len;
                return Ok((id, false));
            }
            // Under its number, so that all that name it have it again.
            Some((id, _)) => {
                self.rewritten.insert(id);
                self.report.rewritten_chunks += 1;
                id
            }
            None => {
                self.next_chunk += 1;
                self.next_chunk - 1
            }
        };
        self.uncommitted.insert(*hash, (id, 0));
        Ok((id, true))
    }

    fn is_whole(&mut self, hash: &ChunkHash, id: i64) -> Result<bool> {
        Ok(self.uncommitted.contains_key(hash) || self.whole.holds(id, &self.catalog, &*self.storage)?)
    }

    /// Stores the chunks of a tensor's RowBlock, which ends them, and returns the number of each.
    ///
    /// Errors: `Io`, `NoSpace` past `max_bytes`, `Catalog`, `Quantize`.
    pub fn put(
        &mut self,
        chunks: &mut [GrowingChunk],
        key: &(dyn std::fmt::Display + Sync),
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<i64>> {
        end_all(chunks, self.effort, key, pool)?;
        let mut ids = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let looked_up = Instant::now();
            let mut hash = chunk.hash();
            if self.dedup == Dedup::Off {
                hash = salted(hash, self.next_chunk);
            }
            let (id, is_new) = self.number(&hash)?;
            let searched = looked_up.elapsed().as_nanos() as u64 + chunk.search_ns;
            ids.push(id);
            let stored = Instant::now();
            if is_new {
                let head = chunk.head();
                self.store(id, &hash, &chunk.pieces(&head), None, 0)?;
            }
            self.report.search_ns += searched;
            self.report.work_ns += searched + chunk.work_ns + stored.elapsed().as_nanos() as u64;
        }
        Ok(ids)
    }

    /// Bytes that a row of each of these chunks would take, each stored alone.
    ///
    /// Errors: `Quantize`.
    pub fn measure(
        &self,
        chunks: &mut [GrowingChunk],
        key: &(dyn std::fmt::Display + Sync),
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<f32>> {
        end_all(chunks, self.effort, key, pool)?;
        Ok(chunks.iter().map(GrowingChunk::row_bytes).collect())
    }

    /// Bytes that the chunk of a content takes.
    ///
    /// Errors: `Catalog`.
    pub(super) fn stored_len(&self, hash: &ChunkHash) -> Result<u64> {
        let known = match self.uncommitted.get(hash) {
            Some(known) => Some(*known),
            None => self.catalog.chunk_by_hash(hash)?,
        };
        Ok(known.map_or(0, |(_, len)| len))
    }

    /// Writes a chunk that lies in pieces.
    ///
    /// Errors: `Io`, `NoSpace` past `max_bytes`.
    pub(super) fn store(
        &mut self,
        id: i64,
        hash: &ChunkHash,
        pieces: &[&[u8]],
        base: Option<Base>,
        saved_bytes: u64,
    ) -> Result<()> {
        let after = self.report.written_bytes + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if let Some(max) = self.max_bytes.filter(|max| after > *max) {
            let (limit, advice) = ("allowed by --max-bytes", advice::KEEP_LESS);
            return Err(EngineError::NoSpace { needed: after, available: max, limit, advice });
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
        let place = current.append(hash, pieces, base)?;
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
        self.unlike.clear();
        self.rewritten.clear();
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

fn end_all(
    chunks: &mut [GrowingChunk],
    effort: Effort,
    key: &(dyn std::fmt::Display + Sync),
    pool: &rayon::ThreadPool,
) -> Result<()> {
    // Only heads are left to write, unless all is encoded again.
    if effort == Effort::Fast {
        return chunks.iter_mut().try_for_each(|chunk| chunk.end(effort, key));
    }
    pool.install(|| chunks.par_iter_mut().try_for_each(|chunk| chunk.end(effort, key)))
}

/// Adds the time since then.
pub(super) fn add_time(total: &AtomicU64, since: Instant) {
    total.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
}

/// Adds the time that `f` takes.
pub(super) fn timed<T>(total: &AtomicU64, f: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = f();
    add_time(total, started);
    done
}
