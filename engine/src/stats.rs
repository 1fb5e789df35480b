//! `stats`: what is stored, what that costs each intermediate, and what was saved how.

use std::collections::{BTreeMap, HashMap};

use crate::amortised::Amortised;
use crate::error::Result;
use crate::format::CHUNK_ALIGN;
use crate::model::IntermediateRecord;
use crate::partition::chunk_room;
use crate::store::Store;
use crate::verify::Damage;

/// Bytes that were not stored, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// By storing chunks of equal content once: a chunk's length for each reference to it after the first one, in the order
    /// in which the intermediates were logged.
    pub exact: u64,
    /// The same, where the reference is a linked intermediate's.
    pub linked: u64,
    /// By coding chunks against similar ones: what each would have taken alone less what it takes, once.
    pub similar: u64,
}

impl std::ops::AddAssign for Saved {
    fn add_assign(&mut self, other: Self) {
        self.exact += other.exact;
        self.linked += other.linked;
        self.similar += other.similar;
    }
}

/// Bytes of one intermediate.
#[derive(Debug, Clone)]
pub struct IntermediateStats {
    /// The intermediate.
    pub record: IntermediateRecord,
    /// Bytes of its values at the precision in which they were logged.
    pub logical_bytes: u64,
    /// Bytes of its chunks, each counted in full.
    pub chunk_bytes: u64,
    /// S(i), the amortised size: bytes of its chunks, and of those that they are coded against, each divided by the number
    /// of references to it. A chunk is referred to by RowBlocks that name it, and by each reference to a chunk that is
    /// coded against it. The sum over all intermediates is the store's `chunk_bytes`.
    pub stored_bytes: f64,
    /// ColumnChunks that it refers to.
    pub n_chunks: u64,
    /// What its chunks did not take.
    pub saved: Saved,
}

/// Bytes of a store.
#[derive(Debug, Clone)]
pub struct StoreStats {
    /// One an intermediate.
    pub intermediates: Vec<IntermediateStats>,
    /// Distinct chunks.
    pub n_chunks: u64,
    /// Chunks that are coded against others.
    pub n_similar: u64,
    /// Bytes of the distinct chunks that are referred to, or that others are coded against.
    pub chunk_bytes: u64,
    /// Bytes that storing equal content once saved: `saved.exact + saved.linked`.
    pub dedup_saved_bytes: u64,
    /// What was saved, by reason.
    pub saved: Saved,
    /// Bytes of the chunks that nothing refers to; `gc` frees them.
    pub garbage_bytes: u64,
    /// Bytes of all partition files.
    pub partition_bytes: u64,
    /// Bytes of all operators.
    pub operator_bytes: u64,
    /// Bytes of all indexes.
    pub index_bytes: u64,
    /// What of the catalogue could not be read and is not in these figures.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Bytes by intermediate, and what de-duplication saved, of all that can be read.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn stats(&self) -> Result<StoreStats> {
        let catalog = self.catalog();
        let (chunks, references) = (catalog.readable_chunks(), catalog.readable_references());
        let records = catalog.readable_intermediates();
        let knows_all = chunks.damage.is_empty();
        let damage = chunks.damage.into_iter().chain(references.damage).chain(records.damage);
        let damage = damage.chain(catalog.readable_models().damage).collect();
        let (references, records) = (references.rows, records.rows);
        let chunks = Amortised::new(chunks.rows, references.iter().map(|((_, chunk), n)| (*chunk, *n)));
        let partitions = catalog.partitions()?;
        let partition_bytes = partitions.iter().map(|p| p.len_bytes).sum();
        let operator_bytes = catalog.operators()?.iter().map(|o| o.len_bytes).sum();
        let index_bytes = catalog.indexes(None)?.iter().map(|i| i.len_bytes).sum();
        drop(catalog);
        let linked: HashMap<i64, bool> = records.iter().map(|r| (r.id, r.linked)).collect();
        let mut of: BTreeMap<i64, (u64, f64, u64, Saved)> = BTreeMap::new();
        let mut seen = std::collections::HashSet::new();
        // In order of intermediates: the first one pays.
        for &((intermediate, chunk), n) in &references {
            let (bytes, stored, count, saved) = of.entry(intermediate).or_default();
            *bytes += n * chunks.len(chunk);
            *stored += n as f64 * chunks.share(chunk);
            *count += n;
            let first = seen.insert(chunk);
            let again = (n - u64::from(first)) * chunks.len(chunk);
            match linked.get(&intermediate) {
                Some(true) => saved.linked += again,
                _ => saved.exact += again,
            }
            if first {
                saved.similar += chunks.chunk(chunk).map_or(0, |c| c.saved_bytes);
            }
        }
        let intermediates: Vec<IntermediateStats> = records
            .into_iter()
            .map(|record| {
                let (chunk_bytes, stored_bytes, n_chunks, saved) = of.get(&record.id).copied().unwrap_or_default();
                let logical_bytes = record.content.logical_row_bytes() * record.n_rows;
                IntermediateStats { record, logical_bytes, chunk_bytes, stored_bytes, n_chunks, saved }
            })
            .collect();
        let mut saved = Saved::default();
        intermediates.iter().for_each(|i| saved += i.saved);
        let live = chunks.live();
        let total: u64 = chunks.chunks().map(|c| c.place.len).sum();
        // Chunks that the catalogue has forgotten, or has elsewhere now: `gc` was interrupted, or they were damaged.
        let in_files: u64 = partitions.iter().map(|p| chunk_room(p.len_bytes, p.n_chunks)).sum();
        let known: u64 = chunks.chunks().map(|c| c.place.len.next_multiple_of(CHUNK_ALIGN)).sum();
        let forgotten = if knows_all { in_files.saturating_sub(known) } else { 0 };
        Ok(StoreStats {
            intermediates,
            n_chunks: chunks.chunks().count() as u64,
            n_similar: chunks.chunks().filter(|c| c.place.base.is_some()).count() as u64,
            chunk_bytes: live,
            dedup_saved_bytes: saved.exact + saved.linked,
            saved,
            garbage_bytes: total - live + forgotten,
            partition_bytes,
            operator_bytes,
            index_bytes,
            damage,
        })
    }
}
