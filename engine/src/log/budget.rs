//! The byte budget of a log: who appends waits while the bytes in flight would pass it.

use crate::format::MAX_BLOCK_BYTES;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Used {
    queued: usize,
    built: usize,
    closed: bool,
}

/// Bytes queued for the worker, and bytes that it holds in unfinished RowBlocks.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    /// What the worker needs beside: a table's RowBlock as it is encoded, or what a tensor's tasks work in.
    spare: usize,
    used: Mutex<Used>,
    freed: Condvar,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, spare: MAX_BLOCK_BYTES.min(limit / 4), used: Mutex::default(), freed: Condvar::new() }
    }

    /// What unfinished RowBlocks may hold: one that is sealed early is a smaller one for good, and is decoded to be hashed
    /// by its number of rows.
    pub fn most_built(&self) -> usize {
        self.limit / 4 * 3
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` fit, and takes them. One batch always passes when nothing else is queued.
    pub fn take(&self, bytes: usize) {
        let mut used = self.lock();
        while !used.closed && used.queued > 0 && used.queued + used.built + self.spare + bytes > self.limit {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        used.queued += bytes;
    }

    /// Gives back the bytes of a batch that was encoded, and says how many unfinished RowBlocks hold now.
    pub fn done(&self, bytes: usize, built: usize) {
        let mut used = self.lock();
        used.queued = used.queued.saturating_sub(bytes);
        used.built = built;
        drop(used);
        self.freed.notify_all();
    }

    /// Lets everyone pass: the worker has ended.
    pub fn close(&self) {
        self.lock().closed = true;
        self.freed.notify_all();
    }
}
