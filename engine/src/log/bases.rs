//! Decoded chunks to code others against, the least recently used leaving first.

use std::sync::Arc;

use lru::LruCache;

use crate::catalog::Catalog;
use crate::chunk::{ChunkCodes, ChunkView};
use crate::error::{EngineError, Result};
use crate::partition::{Base, PartitionReader};
use crate::storage::Storage;

/// Bytes that are held.
const MOST_BYTES: usize = 64 << 20;

/// A stored chunk that another one may be like.
#[derive(Clone)]
pub struct Like {
    /// Its number and name.
    pub base: Base,
    /// Its content.
    pub codes: Arc<ChunkCodes>,
    /// Bytes that it takes.
    pub len: u64,
}

/// Chunks of this log and of earlier ones.
pub struct Bases {
    held: LruCache<i64, Like>,
    bytes: usize,
}

impl Default for Bases {
    fn default() -> Self {
        Self { held: LruCache::unbounded(), bytes: 0 }
    }
}

impl Bases {
    /// Holds a chunk.
    pub fn add(&mut self, like: Like) {
        self.bytes += like.codes.held_bytes();
        if let Some((_, old)) = self.held.push(like.base.id, like) {
            self.bytes -= old.codes.held_bytes();
        }
        while self.bytes > MOST_BYTES {
            let Some((_, old)) = self.held.pop_lru() else { break };
            self.bytes -= old.codes.held_bytes();
        }
    }

    /// A chunk to code another one against; `None` for one that is not to be had.
    ///
    /// Errors: `Catalog`, `Io`.
    pub fn get(&mut self, id: i64, catalog: &Catalog, storage: &dyn Storage) -> Result<Option<Like>> {
        if let Some(known) = self.held.get(&id) {
            return Ok(Some(known.clone()));
        }
        // Of this log, and no longer held: its partition may still be open. Or gone since it was indexed.
        let place = match catalog.chunk_place(id) {
            Err(EngineError::Corrupt { .. }) => return Ok(None),
            place => place?,
        };
        if place.base.is_some() {
            return Ok(None);
        }
        let len = catalog.partition_len(place.partition)?;
        let decode = || -> Result<ChunkCodes> {
            let partition = PartitionReader::open(storage, place.partition, len)?;
            ChunkView::parse(&partition.chunk(place)?, partition.path(), place.offset)?.decode(None)
        };
        // A damaged chunk is no reason that a log fails.
        let codes = match decode() {
            Ok(codes) => Arc::new(codes),
            Err(e) => {
                tracing::warn!("a similar chunk is damaged, and not used: {e}");
                return Ok(None);
            }
        };
        let like = Like { base: Base::of(id, &catalog.chunk_hash(id)?), codes, len: place.len };
        self.add(like.clone());
        Ok(Some(like))
    }
}
