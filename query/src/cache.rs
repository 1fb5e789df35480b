//! Answers given before: a session's repeats are cheap. Held under a byte budget, forgotten when the catalogue changes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::answer::{Answer, Data};
use crate::reader::Request;
use crate::rows::RowSelection;

/// What a cache of answers did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerStats {
    /// Requests that were answered from it.
    pub hits: u64,
    /// Requests that were not.
    pub misses: u64,
    /// Bytes held.
    pub held_bytes: usize,
    /// Bytes that may be held.
    pub budget_bytes: usize,
}

struct Held {
    request: Request,
    answer: Answer,
    bytes: usize,
    used: u64,
}

#[derive(Default)]
struct Inner {
    /// The catalogue that the answers are of.
    version: (i64, u64),
    held: HashMap<u64, Held>,
    clock: u64,
    stats: AnswerStats,
}

/// Answers by request.
pub(crate) struct AnswerCache(Mutex<Inner>);

impl AnswerCache {
    /// An empty cache of `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        let stats = AnswerStats { budget_bytes, ..AnswerStats::default() };
        Self(Mutex::new(Inner { stats, ..Inner::default() }))
    }

    fn at(&self, version: (i64, u64)) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.version != version {
            inner.version = version;
            inner.held.clear();
            inner.stats.held_bytes = 0;
        }
        inner
    }

    /// The answer that a request had while the catalogue was as it is now.
    pub fn get(&self, request: &Request, version: (i64, u64)) -> Option<Answer> {
        let mut inner = self.at(version);
        inner.clock += 1;
        let now = inner.clock;
        let found = inner.held.get_mut(&hash(request)).filter(|h| h.request == *request);
        let answer = found.map(|held| {
            held.used = now;
            held.answer.clone()
        });
        match answer {
            Some(_) => inner.stats.hits += 1,
            None => inner.stats.misses += 1,
        }
        answer
    }

    /// Holds an answer; those used least recently leave for it. One of more than a quarter of the budget is not held.
    pub fn put(&self, request: &Request, answer: &Answer, version: (i64, u64)) {
        let bytes = bytes_of(answer);
        let mut inner = self.at(version);
        if bytes > inner.stats.budget_bytes / 4 {
            return;
        }
        inner.clock += 1;
        let held = Held { request: request.clone(), answer: answer.clone(), bytes, used: inner.clock };
        inner.stats.held_bytes += bytes;
        if let Some(old) = inner.held.insert(hash(request), held) {
            inner.stats.held_bytes -= old.bytes;
        }
        while inner.stats.held_bytes > inner.stats.budget_bytes {
            let oldest = inner.held.iter().min_by_key(|(_, h)| h.used).map(|(k, _)| *k);
            let Some(gone) = oldest.and_then(|k| inner.held.remove(&k)) else { break };
            inner.stats.held_bytes -= gone.bytes;
        }
    }

    /// Hits, misses, bytes.
    pub fn stats(&self) -> AnswerStats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stats
    }
}

fn bytes_of(answer: &Answer) -> usize {
    let values = match &answer.data {
        Data::F32(v) => size_of_val(&**v),
        Data::F64(v) => size_of_val(&**v),
        Data::Table(batch) => batch.get_array_memory_size(),
    };
    let names: usize = answer.columns.iter().map(|c| c.len() + size_of::<String>()).sum();
    values + names + size_of_val(&*answer.rows) + size_of::<Held>()
}

fn hash(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.key.hash(&mut hasher);
    request.exact.hash(&mut hasher);
    match &request.rows {
        RowSelection::All => 0u8.hash(&mut hasher),
        RowSelection::Range(range) => range.hash(&mut hasher),
        RowSelection::List(ids) => ids.hash(&mut hasher),
        RowSelection::Where(predicate) => format!("{predicate:?}").hash(&mut hasher),
    }
    hasher.finish()
}
