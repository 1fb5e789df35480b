//! `stats`, `verify`, `gc` and `compact`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mistique_quantize::Effort;

use crate::catalog::{ChunkRow, WITHHELD};
use crate::chunk::{ChunkHash, ChunkView, Extra, salted, write_chunk};
use crate::error::{EngineError, Result};
use crate::format::PARTITION_TARGET_BYTES;
use crate::model::{IntermediateRecord, hex};
use crate::partition::{self, ChunkPlace, FinishedPartition, PartitionReader, PartitionWriter};
use crate::store::Store;

/// Bytes of one intermediate.
#[derive(Debug, Clone)]
pub struct IntermediateStats {
    /// The intermediate.
    pub record: IntermediateRecord,
    /// Bytes of its values at the precision in which they were logged.
    pub logical_bytes: u64,
    /// Bytes of its chunks, each counted in full.
    pub chunk_bytes: u64,
    /// S(i): bytes of its chunks, each divided by the number of references to it.
    pub stored_bytes: f64,
    /// ColumnChunks that it refers to.
    pub n_chunks: u64,
}

/// Bytes of a store.
#[derive(Debug, Clone)]
pub struct StoreStats {
    /// One an intermediate.
    pub intermediates: Vec<IntermediateStats>,
    /// Distinct chunks.
    pub n_chunks: u64,
    /// Bytes of the distinct chunks that are referred to.
    pub chunk_bytes: u64,
    /// Bytes that exact de-duplication saved.
    pub dedup_saved_bytes: u64,
    /// Bytes of the chunks that nothing refers to; `gc` frees them.
    pub garbage_bytes: u64,
    /// Bytes of all partition files.
    pub partition_bytes: u64,
    /// Bytes of all operators.
    pub operator_bytes: u64,
}

/// One place where the store is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File, and byte where known.
    pub place: String,
    /// What is wrong.
    pub why: String,
    /// Intermediates that use it; of an operator, models.
    pub keys: Vec<String>,
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Partitions read.
    pub n_partitions: u64,
    /// Chunks decoded.
    pub n_chunks: u64,
    /// Operators read.
    pub n_operators: u64,
    /// Bytes read.
    pub bytes: u64,
    /// All damage.
    pub damage: Vec<Damage>,
}

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
    /// Bytes by intermediate, and what de-duplication saved.
    ///
    /// Errors: `Catalog`.
    pub fn stats(&self) -> Result<StoreStats> {
        let catalog = self.catalog();
        let lens: HashMap<i64, u64> = catalog.chunks()?.iter().map(|c| (c.id, c.place.len)).collect();
        let references = catalog.chunk_references()?;
        let records = catalog.intermediates(None)?;
        let partition_bytes = catalog.partitions()?.iter().map(|(_, len)| len).sum();
        let operator_bytes = catalog.operators()?.iter().map(|o| o.len_bytes).sum();
        drop(catalog);
        let mut uses: HashMap<i64, u64> = HashMap::new();
        for ((_, chunk), n) in &references {
            *uses.entry(*chunk).or_default() += n;
        }
        let len = |chunk: &i64| lens.get(chunk).copied().unwrap_or_default();
        let mut of: BTreeMap<i64, (u64, f64, u64)> = BTreeMap::new();
        for ((intermediate, chunk), n) in &references {
            let (bytes, stored, count) = of.entry(*intermediate).or_default();
            *bytes += n * len(chunk);
            *stored += len(chunk) as f64 * *n as f64 / uses.get(chunk).copied().unwrap_or(1) as f64;
            *count += n;
        }
        let intermediates = records
            .into_iter()
            .map(|record| {
                let (chunk_bytes, stored_bytes, n_chunks) = of.get(&record.id).copied().unwrap_or_default();
                let logical_bytes = record.content.logical_row_bytes() * record.n_rows;
                IntermediateStats { record, logical_bytes, chunk_bytes, stored_bytes, n_chunks }
            })
            .collect();
        let live: u64 = uses.keys().map(len).sum();
        let total: u64 = lens.values().sum();
        let referred: u64 = uses.iter().map(|(c, n)| n * len(c)).sum();
        Ok(StoreStats {
            intermediates,
            n_chunks: lens.len() as u64,
            chunk_bytes: live,
            dedup_saved_bytes: referred - live,
            garbage_bytes: total - live,
            partition_bytes,
            operator_bytes,
        })
    }

    /// Reads every byte of every file, decodes every page, and names all damage.
    ///
    /// Errors: only when the catalogue itself cannot be read.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
        let (partitions, chunks, operators, users) = {
            let catalog = self.catalog();
            catalog.check_integrity()?;
            (catalog.partitions()?, catalog.chunks()?, catalog.operators()?, self.users(&catalog)?)
        };
        let total: u64 = partitions.iter().map(|(_, len)| len).sum();
        let mut report = VerifyReport::default();
        let mut by_partition: BTreeMap<u64, Vec<ChunkRow>> = BTreeMap::new();
        self.verify_blocks(&mut report)?;
        let stored: BTreeSet<i64> = chunks.iter().map(|c| c.id).collect();
        for chunk in chunks {
            by_partition.entry(chunk.place.partition).or_default().push(chunk);
        }
        for (chunk, keys) in users.iter().filter(|(c, _)| !stored.contains(c)) {
            let why = format!("a RowBlock names chunk {chunk}, which is not there");
            report.damage.push(Damage { place: "catalog.db".into(), why, keys: keys.iter().cloned().collect() });
        }
        for (id, len) in partitions {
            let chunks = by_partition.remove(&id).unwrap_or_default();
            let keys_of = |chunks: &mut dyn Iterator<Item = &ChunkRow>| -> Vec<String> {
                let keys: BTreeSet<&String> = chunks.filter_map(|c| users.get(&c.id)).flatten().collect();
                keys.into_iter().cloned().collect()
            };
            match PartitionReader::open(&**self.storage(), id, len) {
                Err(e) => {
                    let keys = keys_of(&mut chunks.iter());
                    report.damage.push(Damage { place: partition::path(id), why: e.to_string(), keys });
                }
                Ok(reader) => {
                    for chunk in &chunks {
                        if let Err(e) = check_chunk(&reader, chunk) {
                            let place = format!("{} at byte {}", partition::path(id), chunk.place.offset);
                            let keys = keys_of(&mut std::iter::once(chunk));
                            report.damage.push(Damage { place, why: e.to_string(), keys });
                        }
                    }
                    let between = reader.footer().and_then(|footer| {
                        let named = |c: &ChunkRow| {
                            footer.iter().any(|f| (f.hash, f.offset, f.len) == (c.hash, c.place.offset, c.place.len))
                        };
                        if let Some(c) = chunks.iter().find(|c| !named(c)) {
                            return Err(EngineError::corrupt(
                                reader.path(),
                                c.place.offset,
                                "the footer lacks this chunk",
                            ));
                        }
                        reader.check_padding(&footer)
                    });
                    if let Err(e) = between {
                        report.damage.push(Damage { place: partition::path(id), why: e.to_string(), keys: vec![] });
                    }
                }
            }
            report.n_partitions += 1;
            report.n_chunks += chunks.len() as u64;
            report.bytes += len;
            progress(report.bytes, total);
        }
        for chunk in by_partition.into_values().flatten() {
            let why = format!("chunk {} lies in partition {}, which is not there", chunk.id, chunk.place.partition);
            let keys = users.get(&chunk.id).into_iter().flatten().cloned().collect();
            report.damage.push(Damage { place: "catalog.db".into(), why, keys });
        }
        for operator in operators {
            report.n_operators += 1;
            report.bytes += operator.len_bytes;
            if let Err(e) = self.operator(&operator.hash) {
                let place = format!("operators/{}", hex(&operator.hash));
                let mut keys = Vec::new();
                for model in self.models()? {
                    let hash = Some(operator.hash);
                    if model.spec.weights == hash || self.catalog().stages(model.id)?.iter().any(|s| s.artifact == hash)
                    {
                        keys.push(model.spec.key.to_string());
                    }
                }
                report.damage.push(Damage { place, why: e.to_string(), keys });
            }
        }
        Ok(report)
    }

    /// Names the intermediates whose RowBlocks are not what their records say.
    fn verify_blocks(&self, report: &mut VerifyReport) -> Result<()> {
        let catalog = self.catalog();
        for record in catalog.intermediates(None)? {
            let why = match catalog.blocks(&record, 0, u64::MAX) {
                Err(e) => e.to_string(),
                Ok(blocks) if blocks.iter().any(|b| b.chunks.len() != record.content.n_groups()) => {
                    "a RowBlock has more or fewer chunks than groups".to_string()
                }
                Ok(blocks) => match blocks.iter().map(|b| b.rows.len() as u64).sum::<u64>() {
                    n if n == record.n_rows => continue,
                    n => format!("{n} rows are in RowBlocks, {} should be", record.n_rows),
                },
            };
            report.damage.push(Damage { place: "catalog.db".into(), why, keys: vec![record.key.to_string()] });
        }
        Ok(())
    }

    fn users(&self, catalog: &crate::catalog::Catalog) -> Result<HashMap<i64, BTreeSet<String>>> {
        let mut users: HashMap<i64, BTreeSet<String>> = HashMap::new();
        for record in catalog.intermediates(None)? {
            // RowBlocks that cannot be read are named by `verify_blocks`.
            let blocks = catalog.blocks(&record, 0, u64::MAX).unwrap_or_default();
            for chunk in blocks.into_iter().flat_map(|b| b.chunks).filter(|c| *c != WITHHELD) {
                users.entry(chunk).or_default().insert(record.key.to_string());
            }
        }
        Ok(users)
    }

    /// Frees chunks and operators that nothing refers to: partitions that hold such chunks are written anew.
    ///
    /// Errors: `Locked`, `Io`, `Catalog`; the store is then as it was.
    pub fn gc(&self) -> Result<GcReport> {
        let _guard = self.writer_lock()?;
        let (chunks, live, dead_operators, before) = {
            let catalog = self.catalog();
            let live: BTreeSet<i64> = catalog.chunk_references()?.into_keys().map(|(_, c)| c).collect();
            let mut used: BTreeSet<[u8; 16]> = catalog.models()?.iter().filter_map(|m| m.spec.weights).collect();
            used.extend(catalog.artifacts()?);
            let operators = catalog.operators()?;
            let before: u64 = catalog.partitions()?.iter().map(|(_, l)| l).sum::<u64>()
                + operators.iter().map(|o| o.len_bytes).sum::<u64>();
            let dead: Vec<[u8; 16]> = operators.into_iter().map(|o| o.hash).filter(|h| !used.contains(h)).collect();
            (catalog.chunks()?, live, dead, before)
        };
        let dead: Vec<i64> = chunks.iter().map(|c| c.id).filter(|id| !live.contains(id)).collect();
        let touched: BTreeSet<u64> =
            chunks.iter().filter(|c| !live.contains(&c.id)).map(|c| c.place.partition).collect();
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
            freed_bytes: before.saturating_sub(after),
        })
    }

    /// Writes all chunks anew as small as they get, packed into full partitions. Answers do not change.
    ///
    /// Errors: `Locked`, `Io`, `Corrupt`, `Catalog`; the store is then as it was.
    pub fn compact(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<CompactReport> {
        let _guard = self.writer_lock()?;
        let (chunks, live, partitions) = {
            let catalog = self.catalog();
            let live: BTreeSet<i64> = catalog.chunk_references()?.into_keys().map(|(_, c)| c).collect();
            (catalog.chunks()?, live, catalog.partitions()?)
        };
        let before_bytes = partitions.iter().map(|(_, l)| l).sum();
        let dead: Vec<i64> = chunks.iter().map(|c| c.id).filter(|id| !live.contains(id)).collect();
        let kept: Vec<ChunkRow> = chunks.into_iter().filter(|c| live.contains(&c.id)).collect();
        let touched = partitions.into_iter().map(|(id, _)| id).collect();
        self.rewrite(&kept, &touched, &dead, &[], Some(Effort::Small), progress)?;
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
        let mut moved: Vec<(i64, ChunkPlace)> = Vec::new();
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
        moved: &mut Vec<(i64, ChunkPlace)>,
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
            let encode = |c: &ChunkRow| -> Result<(i64, ChunkHash, Vec<u8>)> {
                let reader = readers.get(&c.place.partition);
                let reader = reader.ok_or_else(|| EngineError::corrupt("catalog.db", 0, "no partition"))?;
                let bytes = reader.chunk(c.place)?;
                let view = ChunkView::parse(&bytes, reader.path(), c.place.offset)?;
                let bytes = match effort {
                    None => {
                        // A damaged chunk must not move as if it were whole.
                        (0..view.shape().n_pages()).try_for_each(|p| view.page(p).map(|_| ()))?;
                        bytes.into_owned()
                    }
                    Some(effort) => {
                        let content = decode(&view)?;
                        content.check(&view, c)?;
                        let mut out = Vec::new();
                        write_chunk(&view.shape(), &content.codes, content.extra(), effort, &"a chunk", &mut out)?;
                        out
                    }
                };
                Ok((c.id, c.hash, bytes))
            };
            let encoded: Vec<_> = batch.par_iter().map(encode).collect::<Result<_>>()?;
            for (id, hash, mut bytes) in encoded {
                let open = match &mut writer {
                    Some(open) => open,
                    None => {
                        created.push(*next);
                        let open = PartitionWriter::create(&**self.storage(), *next)?;
                        *next += 1;
                        writer.insert(open)
                    }
                };
                moved.push((id, open.append(&hash, &mut bytes)?));
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

/// What a chunk holds, decoded.
struct Decoded<'a> {
    codes: Vec<u8>,
    validity: Option<Vec<u8>>,
    dictionary: Option<&'a [u8]>,
}

impl Decoded<'_> {
    fn extra(&self) -> Extra<'_> {
        Extra { validity: self.validity.as_deref(), dictionary: self.dictionary }
    }

    /// Checks that this is what was logged.
    ///
    /// Errors: `Corrupt`.
    fn check(&self, view: &ChunkView<'_>, chunk: &ChunkRow) -> Result<()> {
        let hash = view.shape().hash(&self.codes, self.extra());
        if hash == chunk.hash || salted(hash, chunk.id) == chunk.hash {
            return Ok(());
        }
        Err(view.corrupt(0, "the content does not have the hash that the catalogue says"))
    }
}

fn decode<'a>(view: &ChunkView<'a>) -> Result<Decoded<'a>> {
    let shape = view.shape();
    let tables = view.tables()?;
    let (mut codes, mut validity) = (Vec::new(), Vec::new());
    for page in 0..shape.n_pages() {
        let page_view = view.page(page)?;
        let start = codes.len();
        codes.resize(start + page_view.n_codes * page_view.code.width(), 0);
        page_view.codes(tables.as_ref(), &mut codes[start..]).map_err(|e| view.corrupt(page, e))?;
        let bit =
            |i: usize| page_view.validity.is_none_or(|b| b.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1));
        validity.extend((0..shape.rows_of(page)).map(|i| u8::from(bit(i))));
    }
    Ok(Decoded { codes, validity: view.has_validity().then_some(validity), dictionary: view.dictionary() })
}

fn check_chunk(reader: &PartitionReader, chunk: &ChunkRow) -> Result<()> {
    let bytes = reader.chunk(chunk.place)?;
    let view = ChunkView::parse(&bytes, reader.path(), chunk.place.offset)?;
    view.check_padding()?;
    let content = decode(&view)?;
    content.check(&view, chunk)?;
    let mut rest = &*content.codes;
    for page in 0..view.shape().n_pages() {
        let (codes, after) = rest.split_at(view.shape().rows_of(page) * view.shape().row_bytes());
        rest = after;
        let stats = mistique_quantize::page_stats(view.shape().code, codes).map_err(|e| view.corrupt(page, e))?;
        let zone = view.zone(page)?;
        // Bit patterns: an empty page's bounds are infinite, and NaN never bounds.
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a == b;
        if !same(zone.min, stats.min) || !same(zone.max, stats.max) || u64::from(zone.n_nan) != stats.n_nan {
            return Err(view.corrupt(page, "its zone map does not agree with its values"));
        }
    }
    if let Some(dictionary) = view.dictionary() {
        crate::column::read_dictionary(dictionary).ok_or_else(|| view.corrupt(0, "its dictionary is damaged"))?;
    }
    Ok(())
}
