//! The InMemoryStore: an LRU buffer pool of decoded pages, and of whole chunks of columns, under a byte budget.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::chunk::ChunkCodes;

/// A page: number of its chunk, number in the chunk.
pub type PageKey = (i64, u32);

/// What the pool did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Pages and chunks found in memory.
    pub hits: u64,
    /// Those that had to be decoded, and were held then.
    pub misses: u64,
    /// Bytes held.
    pub held_bytes: usize,
    /// Bytes that may be held.
    pub budget_bytes: usize,
}

/// The page number under which a whole chunk is held.
const WHOLE: u32 = u32::MAX;

#[derive(Clone)]
enum Held {
    Page(Arc<Vec<u8>>),
    Whole(Arc<ChunkCodes>),
}

impl Held {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Page(codes) => codes.len(),
            Self::Whole(chunk) => chunk.held_bytes(),
        }
    }
}

/// Large requests that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(64).unwrap();

struct Inner {
    pages: LruCache<PageKey, Held>,
    /// First pages of large requests, so that one that comes again is known.
    asked: LruCache<PageKey, ()>,
    stats: PoolStats,
}

impl Inner {
    fn find(&mut self, key: PageKey) -> Option<Held> {
        let found = self.pages.get(&key).cloned();
        self.stats.hits += u64::from(found.is_some());
        found
    }
}

/// Codes of pages, the least recently used leaving first.
pub struct InMemoryStore {
    budget_bytes: usize,
    inner: Mutex<Inner>,
}

impl InMemoryStore {
    /// An empty pool of `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        let stats = PoolStats { budget_bytes, ..PoolStats::default() };
        Self {
            budget_bytes,
            inner: Mutex::new(Inner { pages: LruCache::unbounded(), asked: LruCache::new(REMEMBERED), stats }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The codes of pages of a chunk, where they are held.
    pub fn get(&self, chunk: i64, pages: impl Iterator<Item = u32>) -> Vec<Option<Arc<Vec<u8>>>> {
        let mut inner = self.lock();
        let mut one = |page| match inner.find((chunk, page)) {
            Some(Held::Page(codes)) => Some(codes),
            _ => None,
        };
        pages.map(&mut one).collect()
    }

    /// The codes of a page, where they are held.
    pub fn get_page(&self, key: PageKey) -> Option<Arc<Vec<u8>>> {
        self.get(key.0, std::iter::once(key.1)).pop().flatten()
    }

    /// The content of a chunk, where it is held.
    pub fn get_whole(&self, chunk: i64) -> Option<Arc<ChunkCodes>> {
        match self.lock().find((chunk, WHOLE)) {
            Some(Held::Whole(content)) => Some(content),
            _ => None,
        }
    }

    /// Holds the codes of a page, and lets others go as the budget asks.
    pub fn put(&self, key: PageKey, codes: Arc<Vec<u8>>) {
        self.hold(key, Held::Page(codes));
    }

    /// Holds the content of a chunk, as [`InMemoryStore::put`].
    pub fn put_whole(&self, chunk: i64, content: Arc<ChunkCodes>) {
        self.hold((chunk, WHOLE), Held::Whole(content));
    }

    fn hold(&self, key: PageKey, held: Held) {
        let mut inner = self.lock();
        inner.stats.misses += 1;
        inner.stats.held_bytes += held.len_bytes();
        if let Some(old) = inner.pages.put(key, held) {
            inner.stats.held_bytes -= old.len_bytes();
        }
        while inner.stats.held_bytes > self.budget_bytes {
            let Some((_, left)) = inner.pages.pop_lru() else { break };
            inner.stats.held_bytes -= left.len_bytes();
        }
    }

    /// Whether a request of so many bytes may use the pool: a scan must not empty it.
    pub fn admits(&self, bytes: usize) -> bool {
        bytes <= self.budget_bytes / 4
    }

    /// Whether pages of so many bytes are held when they are first asked for. Holding pages that were not held takes longer
    /// than decoding them (fresh memory), which pays where the same are asked for again: few are held at once, many when
    /// they come for the second time.
    pub fn holds_at_once(&self, bytes: usize) -> bool {
        bytes <= self.budget_bytes / 32
    }

    /// Whether a request for pages of so many bytes, of which that is the first, would be held.
    pub fn would_hold(&self, bytes: usize, first: PageKey) -> bool {
        self.holds_at_once(bytes) || (self.admits(bytes) && self.lock().asked.contains(&first))
    }

    /// As [`InMemoryStore::would_hold`], of a request that is made now.
    pub fn admits_pages(&self, bytes: usize, first: PageKey) -> bool {
        let admitted = self.would_hold(bytes, first);
        if self.admits(bytes) && !self.holds_at_once(bytes) {
            self.lock().asked.put(first, ());
        }
        admitted
    }

    /// How many of these pages are held; asking uses none of them.
    pub fn holds(&self, keys: impl Iterator<Item = PageKey>) -> usize {
        let inner = self.lock();
        keys.filter(|key| inner.pages.contains(key)).count()
    }

    /// How many of these chunks are held whole, and the rows of these; asking uses none of them.
    pub fn holds_whole(&self, chunks: impl Iterator<Item = (i64, usize)>) -> (usize, usize) {
        let inner = self.lock();
        let held = chunks.filter(|(chunk, _)| inner.pages.contains(&(*chunk, WHOLE)));
        held.fold((0, 0), |(n, all), (_, rows)| (n + 1, all + rows))
    }

    /// Those of the chunks that are not held whole; asking uses none of them.
    pub fn lacks_whole(&self, chunks: impl Iterator<Item = i64>) -> Vec<i64> {
        let inner = self.lock();
        chunks.filter(|chunk| !inner.pages.contains(&(*chunk, WHOLE))).collect()
    }

    /// Forgets everything held.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.pages.clear();
        inner.asked.clear();
        inner.stats.held_bytes = 0;
    }

    /// Hits, misses, bytes.
    pub fn stats(&self) -> PoolStats {
        self.lock().stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_leaves_first() {
        let pool = InMemoryStore::new(100);
        for i in 0..3 {
            pool.put((i, 0), vec![0u8; 40].into());
            if i == 1 {
                assert!(pool.get(0, 0..1)[0].is_some());
            }
        }
        assert_eq!(pool.holds([(0, 0), (1, 0), (2, 0)].into_iter()), 2);
        assert_eq!(pool.get(0, 0..3).iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
        assert!(pool.get(1, 0..1)[0].is_none() && pool.get(2, 0..1)[0].is_some());
        let stats = pool.stats();
        assert_eq!((stats.hits, stats.misses, stats.held_bytes), (3, 3, 80));
        assert!(pool.admits(25) && !pool.admits(26));
    }

    #[test]
    fn many_pages_are_held_when_they_come_again() {
        let pool = InMemoryStore::new(100);
        assert!(pool.admits_pages(3, (0, 0)));
        for bytes in [4, 25] {
            let first = (bytes as i64, 0);
            assert!(!pool.would_hold(bytes, first) && !pool.admits_pages(bytes, first));
            assert!(pool.would_hold(bytes, first) && pool.admits_pages(bytes, first));
        }
        assert!(!pool.would_hold(4, (5, 0)), "another request");
        assert!(!pool.admits_pages(26, (0, 0)) && !pool.admits_pages(26, (0, 0)), "a scan must not empty it");
        (0..64).for_each(|i| assert!(!pool.admits_pages(4, (100 + i, 0))));
        assert!(!pool.would_hold(4, (4, 0)), "it is forgotten");
        pool.clear();
        assert!(!pool.would_hold(4, (163, 0)));
    }
}
