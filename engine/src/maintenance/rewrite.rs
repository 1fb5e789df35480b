//! Partitions written anew, some at a time.

use std::collections::{BTreeMap, BTreeSet};

use mistique_quantize::Effort;

use super::check_hash;
use crate::catalog::ChunkRow;
use crate::chunk::{ChunkView, Extra, Near, write_against, write_chunk};
use crate::error::{EngineError, Result};
use crate::format::PARTITION_TARGET_BYTES;
use crate::log::pays;
use crate::model::hex;
use crate::partition::{self, Base, ChunkPlace, FinishedPartition, PartitionReader, PartitionWriter};
use crate::read::Chunks;
use crate::store::Store;

/// How partitions are written anew.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Bytes of partitions at a time: that much room the disk must have, and that much work an interruption undoes.
    pub(super) step: u64,
    /// Bytes after which a new partition is closed.
    pub(super) partition: u64,
}

pub(super) const SIZES: Sizes = Sizes { step: 1 << 30, partition: PARTITION_TARGET_BYTES };

/// Partitions to be written anew, and what is forgotten with them.
pub(super) struct Rewrite {
    pub(super) todo: Vec<FinishedPartition>,
    /// Chunks that are used, of these partitions and others, in the order in which they are to lie.
    pub(super) kept: Vec<ChunkRow>,
    pub(super) dead_chunks: Vec<i64>,
    pub(super) dead_operators: Vec<[u8; 16]>,
    /// `None` where chunks stay as they are encoded.
    pub(super) effort: Option<Effort>,
}

/// What was written.
#[derive(Default)]
struct Written {
    /// Files begun.
    created: Vec<u64>,
    partitions: Vec<FinishedPartition>,
    /// Chunks: number, new place, and what coding against a base saves.
    moved: Vec<(i64, ChunkPlace, u64)>,
}

/// The partitions in steps of about so many bytes; compact ones `apart` from others.
fn cut(todo: &[FinishedPartition], step_bytes: u64, apart: bool) -> Vec<&[FinishedPartition]> {
    let mut bytes = 0;
    let together = |a: &FinishedPartition, b: &FinishedPartition| {
        bytes += a.len_bytes;
        let goes_on = bytes + b.len_bytes <= step_bytes && !(apart && a.compact != b.compact);
        if !goes_on {
            bytes = 0;
        }
        goes_on
    };
    todo.chunk_by(together).collect()
}

impl Store {
    /// Writes partitions anew, so many bytes at a time, each time swapped for the old ones in one transaction; then removes
    /// the old files. What is dead is forgotten with the first of them.
    pub(super) fn rewrite(&self, work: Rewrite, sizes: Sizes, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let Rewrite { todo, kept, mut dead_chunks, mut dead_operators, effort } = work;
        let ids: BTreeSet<u64> = todo.iter().map(|p| p.id).collect();
        let total = kept.iter().filter(|c| ids.contains(&c.place.partition)).map(|c| c.place.len).sum();
        let mut done = 0;
        // Chunks that stay as they are make no partition compact.
        let mut steps = cut(&todo, sizes.step, effort.is_none());
        // What is not used of the catalogue alone is forgotten too.
        if steps.is_empty() && effort.is_none() {
            steps.push(&[]);
        }
        for step in steps {
            let ids: BTreeSet<u64> = step.iter().map(|p| p.id).collect();
            let kept: Vec<&ChunkRow> = kept.iter().filter(|c| ids.contains(&c.place.partition)).collect();
            let begun = done;
            let mut advance = |bytes: u64| {
                done = begun + bytes;
                progress(done, total);
            };
            let mut new = Written::default();
            if let Err(e) = self.write_anew(&kept, step, effort, sizes.partition, &mut advance, &mut new) {
                for id in new.created {
                    if let Err(e) = self.storage().remove(&partition::path(id)) {
                        tracing::debug!("partition {id} is left for the next log to remove: {e}");
                    }
                }
                return Err(e);
            }
            let is_compact = effort.is_some() || step.iter().all(|p| p.compact);
            new.partitions.iter_mut().for_each(|p| p.compact = is_compact);
            let (chunks, operators) = (std::mem::take(&mut dead_chunks), std::mem::take(&mut dead_operators));
            let old: Vec<u64> = ids.into_iter().collect();
            // Whether a transaction that failed is durable only the catalogue can say, when it is next opened: until then
            // all files stay.
            let storage = &**self.storage();
            self.catalog().relocate(storage, &new.moved, &new.partitions, &chunks, &old, &operators)?;
            self.forget();
            // The swap is durable: a file that cannot be removed now is an orphan that the next log removes.
            let old = old.into_iter().map(partition::path);
            for path in old.chain(operators.iter().map(|h| format!("operators/{}", hex(h)))) {
                if let Err(e) = self.storage().remove(&path) {
                    tracing::debug!("{path} is left for the next log to remove: {e}");
                }
            }
        }
        Ok(())
    }

    /// Writes chunks into new partitions, each closed when it is `full`, durably.
    fn write_anew(
        &self,
        kept: &[&ChunkRow],
        from: &[FinishedPartition],
        effort: Option<Effort>,
        full: u64,
        progress: &mut dyn FnMut(u64),
        written: &mut Written,
    ) -> Result<()> {
        use rayon::prelude::*;
        let (_, _, _, mut next) = self.catalog().next_ids()?;
        let lens: BTreeMap<u64, u64> = from.iter().map(|p| (p.id, p.len_bytes)).collect();
        let mut done = 0;
        let mut writer: Option<PartitionWriter> = None;
        for batch in kept.chunks(64) {
            let mut readers: BTreeMap<u64, PartitionReader> = BTreeMap::new();
            for id in batch.iter().map(|c| c.place.partition) {
                if let std::collections::btree_map::Entry::Vacant(e) = readers.entry(id) {
                    let len = lens.get(&id).copied().unwrap_or_default();
                    e.insert(PartitionReader::open(&**self.storage(), id, len)?);
                }
            }
            let encode = |c: &&ChunkRow| -> Result<Encoded> {
                let reader = readers.get(&c.place.partition);
                let reader = reader.ok_or_else(|| EngineError::corrupt("catalog.db", 0, "no partition"))?;
                let bytes = reader.chunk(c.place)?;
                let view = ChunkView::parse(&bytes, reader.path(), c.place.offset)?;
                match effort {
                    None => {
                        // A damaged chunk must not move as if it were whole.
                        (0..view.shape().n_pages()).try_for_each(|p| view.page(p).map(|_| ()))?;
                        Ok(Encoded { bytes: bytes.into_owned(), base: c.place.base, saved_bytes: c.saved_bytes })
                    }
                    Some(effort) => self.encode_anew(&view, c, effort),
                }
            };
            let encoded: Vec<Encoded> = batch.par_iter().map(encode).collect::<Result<_>>()?;
            for (chunk, Encoded { bytes, base, saved_bytes }) in batch.iter().zip(encoded) {
                let open = match &mut writer {
                    Some(open) => open,
                    None => {
                        written.created.push(next);
                        let open = PartitionWriter::create(&**self.storage(), next)?;
                        next += 1;
                        writer.insert(open)
                    }
                };
                written.moved.push((chunk.id, open.append(&chunk.hash, &[&bytes], base)?, saved_bytes));
                if open.len_bytes() >= full
                    && let Some(whole) = writer.take()
                {
                    written.partitions.push(whole.finish()?);
                }
            }
            done += batch.iter().map(|c| c.place.len).sum::<u64>();
            progress(done);
        }
        if let Some(last) = writer {
            written.partitions.push(last.finish()?);
        }
        if written.partitions.is_empty() { Ok(()) } else { self.storage().sync_dir(partition::DIR) }
    }
}

/// A chunk to be written to another place.
struct Encoded {
    bytes: Vec<u8>,
    base: Option<Base>,
    saved_bytes: u64,
}

impl Store {
    /// Encodes a chunk as small as it gets: against its base, where it has one and that still pays.
    fn encode_anew(&self, view: &ChunkView<'_>, chunk: &ChunkRow, effort: Effort) -> Result<Encoded> {
        let content = self.decode(view, chunk.place)?;
        check_hash(view, &content, chunk)?;
        let extra = Extra { validity: content.validity.as_deref(), dictionary: view.dictionary() };
        // A code a row is a column's.
        let effort = if content.shape.n_cols == 1 { Effort::Column } else { effort };
        let mut bytes = Vec::new();
        write_chunk(&content.shape, &content.codes, extra, effort, &"a chunk", &mut bytes)?;
        let Some(base) = chunk.place.base else { return Ok(Encoded { bytes, base: None, saved_bytes: 0 }) };
        let mut against = Vec::new();
        let of_base = (base.name, &*self.base(base.id)?);
        let near = Near::Any(bytes.len());
        let wrote = write_against(&content.shape, &content.codes, extra, of_base, near, &"a chunk", &mut against)?;
        if !wrote || !pays(against.len(), bytes.len()) {
            return Ok(Encoded { bytes, base: None, saved_bytes: 0 });
        }
        let saved_bytes = (bytes.len() - against.len()) as u64;
        Ok(Encoded { bytes: against, base: Some(base), saved_bytes })
    }
}
