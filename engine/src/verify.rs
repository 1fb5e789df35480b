//! `verify`: reads everything, and names what is not what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::catalog::{Block, ChunkRow, WITHHELD, damaged};
use crate::chunk::ChunkView;
use crate::codec::TensorCodec;
use crate::error::{EngineError, Result};
use crate::maintenance::check_hash;
use crate::model::{Content, Fingerprint, IntermediateRecord, hex};
use crate::partition::{self, FinishedPartition, PartitionReader};
use crate::read::Chunks;
use crate::store::Store;

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
    /// Indexes read.
    pub n_indexes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// All damage.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Reads every byte of every file and every row of the catalogue, decodes every page, and names all damage.
    ///
    /// Errors: none today; what cannot be read is damage.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let (partitions, chunks, operators, records) = {
            let catalog = self.catalog();
            let (models, records) = (catalog.readable_models(), catalog.readable_intermediates());
            let chunks = catalog.readable_chunks();
            report.damage = catalog.damage(&records.rows);
            report.damage.extend(models.damage.into_iter().chain(records.damage).chain(chunks.damage));
            let partitions = listed(&mut report, "partitions", catalog.partitions());
            (partitions, chunks.rows, listed(&mut report, "operators", catalog.operators()), records.rows)
        };
        let users = self.users(&records);
        let total: u64 = partitions.iter().map(|p| p.len_bytes).sum();
        let mut by_partition: BTreeMap<u64, Vec<ChunkRow>> = BTreeMap::new();
        self.verify_blocks(&records, &mut report);
        let stored: BTreeSet<i64> = chunks.iter().map(|c| c.id).collect();
        for chunk in chunks {
            by_partition.entry(chunk.place.partition).or_default().push(chunk);
        }
        for (chunk, keys) in users.iter().filter(|(c, _)| !stored.contains(c)) {
            let why = format!("a RowBlock names chunk {chunk}, which is not there");
            report.damage.push(Damage { place: "catalog.db".into(), why, keys: keys.iter().cloned().collect() });
        }
        for FinishedPartition { id, len_bytes: len, .. } in partitions {
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
                        if let Err(e) = check_chunk(self, &reader, chunk) {
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
                report.damage.push(Damage { place, why: e.to_string(), keys: self.operator_users(&operator.hash) });
            }
        }
        self.verify_indexes(&records, &mut report);
        Ok(report)
    }

    /// Keys of the models that name an operator, of those that can be read.
    fn operator_users(&self, hash: &Fingerprint) -> Vec<String> {
        let catalog = self.catalog();
        let learnt = |id| catalog.stages(id).unwrap_or_default().iter().any(|s| s.artifact.as_ref() == Some(hash));
        let models = catalog.readable_models().rows.into_iter();
        let users = models.filter(|m| m.spec.weights.as_ref() == Some(hash) || learnt(m.id));
        users.map(|m| m.spec.key.to_string()).collect()
    }

    /// Names the intermediates whose RowBlocks are not what their records say, and whose parameters are not their scheme's.
    fn verify_blocks(&self, records: &[IntermediateRecord], report: &mut VerifyReport) {
        for record in records {
            let blocks = self.catalog().blocks(record, 0, u64::MAX);
            let rows = |blocks: &[Block]| blocks.iter().map(|b| b.rows.len() as u64).sum::<u64>();
            let checked = match blocks {
                Err(e) => Err(e),
                Ok(blocks) if blocks.iter().any(|b| b.chunks.len() != record.content.n_groups()) => {
                    Err(EngineError::corrupt("catalog.db", 0, "a RowBlock has more or fewer chunks than groups"))
                }
                Ok(blocks) if rows(&blocks) != record.n_rows => {
                    let why = format!("{} rows are in RowBlocks, {} should be", rows(&blocks), record.n_rows);
                    Err(EngineError::corrupt("catalog.db", 0, why))
                }
                // A log that was interrupted before its first rows may have settled nothing yet.
                Ok(blocks) if blocks.is_empty() => Ok(()),
                Ok(_) => match &*record.content {
                    Content::Tensor(t) => TensorCodec::new(&record.key, t).map(drop),
                    Content::Table(_) => Ok(()),
                },
            };
            let key = record.key.to_string();
            report.damage.extend(checked.err().map(|e| damaged(&format!("intermediate {key}"), e, Some(key))));
        }
    }

    /// Keys of the intermediates that use each chunk.
    fn users(&self, records: &[IntermediateRecord]) -> HashMap<i64, BTreeSet<String>> {
        let mut users: HashMap<i64, BTreeSet<String>> = HashMap::new();
        for record in records {
            // RowBlocks that cannot be read are named by `verify_blocks`.
            let blocks = self.catalog().blocks(record, 0, u64::MAX).unwrap_or_default();
            for chunk in blocks.into_iter().flat_map(|b| b.chunks).filter(|c| *c != WITHHELD) {
                users.entry(chunk).or_default().insert(record.key.to_string());
            }
        }
        users
    }
}

/// What a list holds; nothing, and damage that says so, where it cannot be read.
fn listed<T>(report: &mut VerifyReport, what: &str, found: Result<Vec<T>>) -> Vec<T> {
    found.unwrap_or_else(|e| {
        report.damage.push(damaged(what, e, None));
        Vec::new()
    })
}

fn check_chunk(store: &Store, reader: &PartitionReader, chunk: &ChunkRow) -> Result<()> {
    let bytes = reader.chunk(chunk.place)?;
    let view = ChunkView::parse(&bytes, reader.path(), chunk.place.offset)?;
    view.check_padding()?;
    let content = store.decode(&view, chunk.place)?;
    check_hash(&view, &content, chunk)?;
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
