//! S(i): bytes of chunks, divided among what refers to them. RowBlocks refer to the chunks that they name, and each such
//! reference to the chunk that one of them is coded against, too: it stays as long as they do.

use std::collections::HashMap;

use crate::catalog::ChunkRow;

/// Chunks, and how often each is referred to.
pub(crate) struct Amortised {
    chunks: HashMap<i64, ChunkRow>,
    uses: HashMap<i64, u64>,
}

impl Amortised {
    /// Of all chunks, and the times that RowBlocks name each.
    pub fn new(chunks: Vec<ChunkRow>, named: impl Iterator<Item = (i64, u64)>) -> Self {
        let chunks: HashMap<i64, ChunkRow> = chunks.into_iter().map(|c| (c.id, c)).collect();
        let mut all = Self { chunks, uses: HashMap::new() };
        for (chunk, n) in named {
            for used in [Some(chunk), all.base(chunk)].into_iter().flatten() {
                *all.uses.entry(used).or_default() += n;
            }
        }
        all
    }

    fn base(&self, chunk: i64) -> Option<i64> {
        self.chunks.get(&chunk).and_then(|c| c.place.base).map(|b| b.id)
    }

    /// The chunks.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRow> {
        self.chunks.values()
    }

    /// A chunk; `None` for one that is not known.
    pub fn chunk(&self, id: i64) -> Option<&ChunkRow> {
        self.chunks.get(&id)
    }

    /// Bytes of a chunk in full; 0 for one that is not known.
    pub fn len(&self, chunk: i64) -> u64 {
        self.chunk(chunk).map_or(0, |c| c.place.len)
    }

    /// Bytes that one reference to a chunk takes: its part of the chunk, and of the one that this is coded against.
    pub fn share(&self, chunk: i64) -> f64 {
        let part = |chunk: i64| self.len(chunk) as f64 / self.uses.get(&chunk).copied().unwrap_or(1).max(1) as f64;
        part(chunk) + self.base(chunk).map_or(0.0, part)
    }

    /// Bytes of all chunks that something refers to: the sum of all shares.
    pub fn live(&self) -> u64 {
        self.uses.keys().map(|chunk| self.len(*chunk)).sum()
    }
}
