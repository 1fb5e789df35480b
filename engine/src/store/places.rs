//! Where chunks lie.

use std::collections::BTreeSet;

use super::{Store, lock};
use crate::catalog::Block;
use crate::error::Result;
use crate::partition::{ChunkPlace, PartitionReader};
use crate::pool::InMemoryStore;
use crate::read::Chunks;

/// Places of chunks that are remembered.
const PLACES: usize = 1 << 18;

/// The chunks of `groups` of `blocks`.
pub(crate) fn chunks_of<'a>(blocks: &'a [Block], groups: &'a BTreeSet<usize>) -> impl Iterator<Item = i64> + 'a {
    blocks.iter().flat_map(|b| groups.iter().filter_map(|g| b.chunks.get(*g).copied()))
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
        let mut places = Vec::with_capacity(missing.len());
        // Chunks of a RowBlock mostly follow each other: one question for those that do.
        for run in missing.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let found = catalog.chunk_places(*first, *last)?;
            if found.len() != run.len() {
                // Says which one there is not.
                run.iter().try_for_each(|id| catalog.chunk_place(*id).map(drop))?;
            }
            places.extend(found);
        }
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
