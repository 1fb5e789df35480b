//! Rows that a session asks for again: a few of them may be worth storing where all of them are not.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mistique_engine::RowSet;

use crate::plan::Resolved;

/// Requests that are remembered; then all are forgotten, and counting begins anew.
const REQUESTS: usize = 1 << 14;

/// How often each request came, by its intermediate, columns and rows.
#[derive(Default)]
pub(crate) struct Repeats(Mutex<HashMap<u64, u64>>);

impl Repeats {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request.
    pub fn count(&self, request: &Resolved) {
        let mut counts = self.lock();
        if counts.len() >= REQUESTS {
            counts.clear();
        }
        *counts.entry(key(request)).or_default() += 1;
    }

    /// How often a request came before the last time.
    pub fn of(&self, request: &Resolved) -> u64 {
        self.lock().get(&key(request)).map_or(0, |n| n.saturating_sub(1))
    }
}

fn key(request: &Resolved) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.record.id.hash(&mut hasher);
    request.columns.hash(&mut hasher);
    match &request.rows {
        RowSet::Range(range) => range.hash(&mut hasher),
        RowSet::List(ids) => ids.hash(&mut hasher),
    }
    hasher.finish()
}
