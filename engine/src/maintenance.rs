//! `gc` and `compact`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mistique_quantize::Effort;

use crate::catalog::{Catalog, ChunkRow};
use crate::chunk::{ChunkCodes, ChunkView, Extra, Near, salted, write_against, write_chunk};
use crate::cost;
use crate::error::{EngineError, Result};
use crate::format::PARTITION_TARGET_BYTES;
use crate::log::pays;
use crate::model::hex;
use crate::partition::{self, Base, ChunkPlace, FinishedPartition, PartitionReader, PartitionWriter};
use crate::read::Chunks;
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
    /// Chunks written anew.
    pub n_chunks: u64,
    /// Bytes of partition files before.
    pub before_bytes: u64,
    /// Bytes of partition files after.
    pub after_bytes: u64,
}

impl Store {
    /// Frees chunks and operators that nothing refers to: partitions that hold such chunks are written anew.
    ///
    /// Errors: `Locked`, `Io`, `Catalog`; the store is then as it was.
    pub fn gc(&self) -> Result<GcReport> {
        let _guard = self.writer_lock()?;
        let freed_indexes = self.remove_orphan_indexes()?;
        let (chunks, live, partitions, dead_operators, before) = {
            let catalog = self.catalog();
            let (live, partitions) = (live_chunks(&catalog)?, catalog.partitions()?);
            let mut used: BTreeSet<[u8; 16]> = catalog.models()?.iter().filter_map(|m| m.spec.weights).collect();
            used.extend(catalog.artifacts()?);
            let operators = catalog.operators()?;
            let before: u64 =
                partitions.iter().map(|(_, l)| l).sum::<u64>() + operators.iter().map(|o| o.len_bytes).sum::<u64>();
            let dead: Vec<[u8; 16]> = operators.into_iter().map(|o| o.hash).filter(|h| !used.contains(h)).collect();
            (catalog.chunks()?, live, partitions, dead, before)
        };
        let dead: Vec<i64> = chunks.iter().map(|c| c.id).filter(|id| !live.contains(id)).collect();
        let mut touched: BTreeSet<u64> =
            chunks.iter().filter(|c| !live.contains(&c.id)).map(|c| c.place.partition).collect();
        // Of some all chunks were damaged and written anew elsewhere.
        let named: BTreeSet<u64> = chunks.iter().map(|c| c.place.partition).collect();
        touched.extend(partitions.iter().map(|(id, _)| *id).filter(|id| !named.contains(id)));
        let kept: Vec<ChunkRow> =
            chunks.into_iter().filter(|c| touched.contains(&c.place.partition) && live.contains(&c.id)).collect();
        self.rewrite(&kept, &touched, &dead, &dead_operators, None, &mut |_, _| {})?;
        let after = {
            let catalog = self.catalog();
            catalog.partitions()?.iter().map(|(_, l)| l).sum::<u64>()
                + catalog.operators()?.iter().map(|o| o.len_bytes).sum::<u64>()
        };
        Ok(GcReport {
            n_chunks: dead.len() as u64,
            n_operators: dead_operators.len() as u64,
            freed_bytes: before.saturating_sub(after) + freed_indexes,
        })
    }

    /// Writes all chunks anew as small as they get, packed into full partitions. Answers do not change.
    ///
    /// Errors: `Locked`, `Io`, `Corrupt`, `Catalog`; the store is then as it was.
    pub fn compact(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<CompactReport> {
        let _guard = self.writer_lock()?;
        let (chunks, live, partitions) = {
            let catalog = self.catalog();
            (catalog.chunks()?, live_chunks(&catalog)?, catalog.partitions()?)
        };
        let before_bytes = partitions.iter().map(|(_, l)| l).sum();
        let dead: Vec<i64> = chunks.iter().map(|c| c.id).filter(|id| !live.contains(id)).collect();
        let mut kept: Vec<ChunkRow> = chunks.into_iter().filter(|c| live.contains(&c.id)).collect();
        // Chunks come to lie behind those that they are coded against.
        let order: HashMap<i64, usize> = kept.iter().enumerate().map(|(i, c)| (c.id, i)).collect();
        kept.sort_by_key(|c| {
            let base = c.place.base.map_or(c.id, |b| b.id);
            (order.get(&base).copied(), order.get(&c.id).copied())
        });
        let touched = partitions.into_iter().map(|(id, _)| id).collect();
        self.rewrite(&kept, &touched, &dead, &[], Some(Effort::Small), progress)?;
        // Pages are encoded otherwise now: what it took to read them tells nothing any more.
        self.forget_costs(&[cost::READ, cost::READ_OPEN, cost::READ_TABLE, cost::HELD])?;
        let after_bytes = self.catalog().partitions()?.iter().map(|(_, l)| l).sum();
        Ok(CompactReport { n_chunks: kept.len() as u64, before_bytes, after_bytes })
    }

    /// Writes `kept` into new partitions, swaps them for `touched` in one transaction, then removes the old files.
    fn rewrite(
        &self,
        kept: &[ChunkRow],
        touched: &BTreeSet<u64>,
        dead_chunks: &[i64],
        dead_operators: &[[u8; 16]],
        effort: Option<Effort>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let (_, _, _, mut next) = self.catalog().next_ids()?;
        let lens: BTreeMap<u64, u64> = self.catalog().partitions()?.into_iter().collect();
        let mut new = Vec::new();
        let mut moved: Vec<(i64, ChunkPlace, u64)> = Vec::new();
        let mut created = Vec::new();
        let written = self.write_anew(kept, &lens, effort, &mut next, &mut created, &mut new, &mut moved, progress);
        let synced = written.and_then(|()| match new.is_empty() {
            true => Ok(()),
            false => self.storage().sync_dir(partition::DIR),
        });
        if let Err(e) = synced {
            for id in created {
                if let Err(e) = self.storage().remove(&partition::path(id)) {
                    tracing::debug!("partition {id} is left for the next log to remove: {e}");
                }
            }
            return Err(e);
        }
        let dead_partitions: Vec<u64> = touched.iter().copied().collect();
        // Whether a transaction that failed is durable only the catalogue can say, when it is next opened: until then
        // all files stay.
        let storage = &**self.storage();
        self.catalog().relocate(storage, &moved, &new, dead_chunks, &dead_partitions, dead_operators)?;
        self.forget();
        // The swap is durable: a file that cannot be removed now is an orphan that the next log removes.
        let old = touched.iter().map(|id| partition::path(*id));
        for path in old.chain(dead_operators.iter().map(|h| format!("operators/{}", hex(h)))) {
            if let Err(e) = self.storage().remove(&path) {
                tracing::debug!("{path} is left for the next log to remove: {e}");
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one loop's state, which its caller needs also when it fails")]
    fn write_anew(
        &self,
        kept: &[ChunkRow],
        lens: &BTreeMap<u64, u64>,
        effort: Option<Effort>,
        next: &mut u64,
        created: &mut Vec<u64>,
        new: &mut Vec<FinishedPartition>,
        moved: &mut Vec<(i64, ChunkPlace, u64)>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        use rayon::prelude::*;
        let total: u64 = kept.iter().map(|c| c.place.len).sum();
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
            let encode = |c: &ChunkRow| -> Result<Encoded> {
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
                        created.push(*next);
                        let open = PartitionWriter::create(&**self.storage(), *next)?;
                        *next += 1;
                        writer.insert(open)
                    }
                };
                moved.push((chunk.id, open.append(&chunk.hash, &[&bytes], base)?, saved_bytes));
                if open.len_bytes() >= PARTITION_TARGET_BYTES
                    && let Some(full) = writer.take()
                {
                    new.push(full.finish()?);
                }
            }
            done += batch.iter().map(|c| c.place.len).sum::<u64>();
            progress(done, total);
        }
        if let Some(last) = writer {
            new.push(last.finish()?);
        }
        Ok(())
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
