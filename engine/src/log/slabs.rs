//! Memory of pages that wait until their RowBlock is full: slabs of one size, which go from chunk to chunk. Fresh memory
//! would be faulted in and cleared page by page each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a slab: a chunk leaves half of one unused on average, and there are thousands of chunks.
const SLAB_BYTES: usize = 16 << 10;

/// The slabs that no chunk uses now.
#[derive(Debug, Default)]
pub struct Slabs(Mutex<Vec<Vec<u8>>>);

impl Slabs {
    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        let free = self.free().pop();
        free.unwrap_or_else(|| Vec::with_capacity(SLAB_BYTES))
    }

    /// Bytes of all slabs that no chunk uses.
    pub fn free_bytes(&self) -> usize {
        self.free().len() * SLAB_BYTES
    }

    /// Gives at least `bytes` back to the system, where there are as many. Returns how many it gave.
    pub fn shed(&self, bytes: usize) -> usize {
        let mut free = self.free();
        let kept = free.len().saturating_sub(bytes.div_ceil(SLAB_BYTES));
        let shed = free.split_off(kept);
        drop(free);
        shed.len() * SLAB_BYTES
    }
}

/// Bytes that are only appended to, in slabs.
pub struct Slabbed {
    source: Arc<Slabs>,
    slabs: Vec<Vec<u8>>,
    len: usize,
}

impl Slabbed {
    /// No bytes; slabs come from `source` and go back there.
    pub fn new(source: &Arc<Slabs>) -> Self {
        Self { source: Arc::clone(source), slabs: Vec::new(), len: 0 }
    }

    /// Bytes appended.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of its slabs.
    pub fn held_bytes(&self) -> usize {
        self.slabs.len() * SLAB_BYTES
    }

    /// Appends bytes.
    pub fn append(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            if self.slabs.last().is_none_or(|slab| slab.len() == SLAB_BYTES) {
                self.slabs.push(self.source.take());
            }
            let Some(slab) = self.slabs.last_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(SLAB_BYTES - slab.len()));
            slab.extend_from_slice(now);
            bytes = later;
        }
    }

    /// All of them, in pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.slabs.iter().map(Vec::as_slice)
    }
}

impl Drop for Slabbed {
    fn drop(&mut self) {
        self.slabs.iter_mut().for_each(Vec::clear);
        self.source.free().append(&mut self.slabs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_order_and_slabs_are_used_again() {
        let slabs = Arc::new(Slabs::default());
        for round in 0..3u8 {
            let mut some = Slabbed::new(&slabs);
            let mut expected = Vec::new();
            for len in [0, 1, SLAB_BYTES - 1, 1, SLAB_BYTES, 3 * SLAB_BYTES + 5, 7] {
                let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 ^ round).collect();
                some.append(&bytes);
                expected.extend(bytes);
            }
            assert_eq!((some.len(), some.held_bytes()), (expected.len(), 6 * SLAB_BYTES));
            assert_eq!(slabs.free_bytes(), 0, "a second round takes those of the first");
            assert_eq!(some.pieces().collect::<Vec<_>>().concat(), expected);
            drop(some);
            assert_eq!(slabs.free_bytes(), 6 * SLAB_BYTES);
        }
        assert_eq!(slabs.shed(SLAB_BYTES + 1), 2 * SLAB_BYTES);
        assert_eq!(slabs.shed(usize::MAX), 4 * SLAB_BYTES);
        assert_eq!((slabs.shed(1), slabs.free_bytes()), (0, 0));
    }
}
