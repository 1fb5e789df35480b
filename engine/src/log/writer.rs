//! From codes to stored chunks: hash, look up, and only for what is new encode and write.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use mistique_quantize::Effort;
use rayon::prelude::*;

use crate::catalog::Catalog;
use crate::chunk::{ChunkHash, ChunkShape, Extra, salted, write_chunk};
use crate::column::ColumnCodes;
use crate::error::{EngineError, Result};
use crate::partition::{self, ChunkPlace, FinishedPartition, PartitionWriter};
use crate::storage::Storage;

/// Codes of one group of a RowBlock.
pub struct GroupCodes<'a> {
    /// Their shape.
    pub shape: ChunkShape,
    /// Row-major codes.
    pub codes: &'a [u8],
    /// What a table's column has beside them.
    pub extra: Extra<'a>,
}

impl ColumnCodes {
    /// These codes as a group of a RowBlock of a table.
    pub fn group(&self, n_rows: usize) -> GroupCodes<'_> {
        GroupCodes {
            shape: ChunkShape { code: self.code, n_rows, n_cols: 1, page_rows: n_rows, map_w: 1 },
            codes: &self.codes,
            extra: Extra { validity: self.validity.as_deref(), dictionary: self.dictionary.as_deref() },
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
    /// Bytes of the chunks written.
    pub written_bytes: u64,
    /// Bytes that the duplicates would have taken.
    pub saved_bytes: u64,
    /// Values that their scheme cannot hold and that were clamped, in the intermediates of this log, earlier logs
    /// included.
    pub clamped: u64,
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
    new_chunks: Vec<(i64, ChunkHash, ChunkPlace)>,
    created: Vec<u64>,
    scratch: Vec<Vec<u8>>,
    effort: Effort,
    dedup: bool,
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
        dedup: bool,
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
        let hash = |g: &GroupCodes<'_>| g.shape.hash(g.codes, g.extra);
        let parallel = groups.len() > 1;
        let mut hashes: Vec<ChunkHash> = if parallel {
            pool.install(|| groups.par_iter().map(hash).collect())
        } else {
            groups.iter().map(hash).collect()
        };
        if !self.dedup {
            for (id, h) in (self.next_chunk..).zip(&mut hashes) {
                *h = salted(*h, id);
            }
        }
        let mut ids = Vec::with_capacity(groups.len());
        let mut fresh = Vec::new();
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
        self.scratch.resize_with(self.scratch.len().max(fresh.len()), Vec::new);
        let effort = self.effort;
        let work = fresh.iter().zip(&mut self.scratch);
        let encode = |((i, _), out): (&(usize, i64), &mut Vec<u8>)| {
            write_chunk(&groups[*i].shape, groups[*i].codes, groups[*i].extra, effort, key, out)
        };
        if parallel {
            let work: Vec<_> = work.collect();
            pool.install(|| work.into_par_iter().try_for_each(encode))?;
        } else {
            work.into_iter().try_for_each(encode)?;
        }
        let mut encoded = std::mem::take(&mut self.scratch);
        let stored =
            fresh.iter().zip(&mut encoded).try_for_each(|((i, id), bytes)| self.store(*id, &hashes[*i], bytes));
        self.scratch = encoded;
        stored?;
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
            write_chunk(&g.shape, g.codes, g.extra, effort, key, &mut out)?;
            Ok(out.len() as f32 / g.shape.n_rows.max(1) as f32)
        };
        pool.install(|| groups.par_iter().map(measure).collect())
    }

    fn store(&mut self, id: i64, hash: &ChunkHash, bytes: &mut Vec<u8>) -> Result<()> {
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
        let place = current.append(hash, bytes)?;
        let full = current.len_bytes() >= self.target_bytes;
        self.uncommitted.insert(*hash, (id, place.len));
        self.new_chunks.push((id, *hash, place));
        self.report.new_chunks += 1;
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
    #[expect(clippy::type_complexity, reason = "the two lists go straight into a Commit")]
    pub fn finish(&mut self) -> Result<(Vec<FinishedPartition>, Vec<(i64, ChunkHash, ChunkPlace)>)> {
        self.roll()?;
        let mut partitions = Vec::new();
        for thread in std::mem::take(&mut self.finishing) {
            let finished = thread.join().map_err(|_| {
                EngineError::io("partitions", "sync", std::io::Error::other("the thread that syncs panicked"))
            })?;
            partitions.push(finished?);
        }
        if !partitions.is_empty() {
            self.storage.sync_dir(partition::DIR)?;
        }
        Ok((partitions, std::mem::take(&mut self.new_chunks)))
    }

    /// Called when the commit has reached the catalogue.
    pub fn committed(&mut self) {
        self.uncommitted.clear();
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
