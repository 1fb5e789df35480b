//! Whether chunks of earlier logs are still what was written: what is de-duplicated against a damaged one would be lost.

use std::collections::{HashMap, HashSet};

use crate::catalog::Catalog;
use crate::chunk::ChunkView;
use crate::error::{EngineError, Result};
use crate::partition::PartitionReader;
use crate::storage::Storage;

/// Partitions that are held open at a time.
const MOST_OPEN: usize = 64;

/// What was looked at in this log.
#[derive(Default)]
pub struct Whole {
    partitions: HashMap<u64, PartitionReader>,
    chunks: HashSet<i64>,
}

impl Whole {
    /// Whether every byte of a chunk, and of the one that it is coded against, is there and has its checksum.
    ///
    /// Errors: `Catalog`.
    pub fn holds(&mut self, id: i64, catalog: &Catalog, storage: &dyn Storage) -> Result<bool> {
        if self.chunks.contains(&id) {
            return Ok(true);
        }
        match self.look(id, catalog, storage) {
            Ok(()) => {
                self.chunks.insert(id);
                Ok(true)
            }
            Err(e @ EngineError::Catalog { .. }) => Err(e),
            Err(e) => {
                tracing::warn!("a chunk that is logged again is written anew: {e}");
                Ok(false)
            }
        }
    }

    fn look(&mut self, id: i64, catalog: &Catalog, storage: &dyn Storage) -> Result<()> {
        let place = catalog.chunk_place(id)?;
        if !self.partitions.contains_key(&place.partition) {
            if self.partitions.len() >= MOST_OPEN {
                self.partitions.clear();
            }
            let partition = PartitionReader::open(storage, place.partition, catalog.partition_len(place.partition)?)?;
            self.partitions.insert(place.partition, partition);
        }
        if let Some(partition) = self.partitions.get(&place.partition) {
            let bytes = partition.chunk(place)?;
            let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
            (0..view.shape().n_pages()).try_for_each(|page| view.page(page).map(drop))?;
        }
        match place.base {
            Some(base) if !self.chunks.contains(&base.id) => self.look(base.id, catalog, storage),
            _ => Ok(()),
        }
    }
}
