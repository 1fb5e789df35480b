//! What a store counts: measured costs, queries, hits and misses.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ANSWERS, POOL, Store, lock};
use crate::catalog::CostRecord;
use crate::error::{EngineError, Result};
use crate::model::IntermediateRecord;
use crate::pool::PoolStats;

impl Store {
    /// Hits and misses of the InMemoryStore.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Hits and misses of the InMemoryStore over all processes that used the store, this one included.
    ///
    /// Errors: `Catalog`.
    pub fn lifetime_pool_stats(&self) -> Result<(u64, u64)> {
        let now = self.pool.stats();
        let catalog = self.catalog();
        Ok((catalog.total(POOL[0])? + now.hits, catalog.total(POOL[1])? + now.misses))
    }

    /// Counts a request that was answered from what was held of an earlier one, or was not. Written down later.
    pub fn count_answer(&self, held: bool) {
        let [hits, misses] = &self.answers;
        if held { hits } else { misses }.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were answered from what was held of an earlier one, and that were not, over all processes that used
    /// the store.
    ///
    /// Errors: `Catalog`.
    pub fn lifetime_answers(&self) -> Result<(u64, u64)> {
        let [hits, misses] = &self.answers;
        let catalog = self.catalog();
        let total = |name, now: &AtomicU64| Ok::<u64, EngineError>(catalog.total(name)? + now.load(Ordering::Relaxed));
        Ok((total(ANSWERS[0], hits)?, total(ANSWERS[1], misses)?))
    }

    /// A measured cost of this machine; see [`crate::cost`] for `what` and `subject`.
    ///
    /// Errors: `Catalog`.
    pub fn cost(&self, what: &str, subject: &str) -> Result<Option<CostRecord>> {
        lock(&self.counters).cost(&self.catalog(), what, subject)
    }

    /// The first of these that was measured.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn first_cost(&self, what: &str, subjects: impl Iterator<Item = String>) -> Result<Option<CostRecord>> {
        let (mut counters, catalog) = (lock(&self.counters), self.catalog());
        for subject in subjects {
            if let Some(found) = counters.cost(&catalog, what, &subject)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All measured costs of this machine: what, subject and figure; see [`crate::cost`].
    ///
    /// Errors: `Catalog`.
    pub fn costs(&self) -> Result<Vec<(String, String, CostRecord)>> {
        let mut counters = lock(&self.counters);
        let catalog = self.catalog();
        if let Err(e) = counters.flush(&catalog) {
            tracing::debug!("measured costs are not kept: {e}");
        }
        counters.costs(&catalog)
    }

    /// Adds one measurement to a cost, in seconds. It is written down later: nobody waits for it.
    ///
    /// Errors: `Catalog`.
    pub fn add_cost(&self, what: &str, subject: &str, seconds: f64) -> Result<()> {
        lock(&self.counters).add(&self.catalog(), what, subject, seconds)
    }

    /// Forgets what was measured of these kinds.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn forget_costs(&self, kinds: &[&str]) -> Result<()> {
        lock(&self.counters).forget_costs(&self.catalog(), kinds)
    }

    /// Counts a query of `columns` (a selector's text, `*` for all) of an intermediate. It is written down later: nobody
    /// waits for it.
    ///
    /// Errors: `Catalog`.
    pub fn count_query(&self, record: &IntermediateRecord, columns: &str) -> Result<()> {
        lock(&self.counters).count_query(&self.catalog(), record.id, columns)
    }

    /// Queries of an intermediate, by the columns that they asked for: the text of a selector, and n_query.
    ///
    /// Errors: `Catalog`.
    pub fn column_queries(&self, intermediate_id: i64) -> Result<Vec<(String, u64)>> {
        lock(&self.counters).column_queries(&self.catalog(), intermediate_id)
    }

    /// Numbers of all intermediates that queries asked for.
    ///
    /// Errors: `Catalog`.
    pub fn queried(&self) -> Result<BTreeSet<i64>> {
        let mut ids: BTreeSet<i64> = self.catalog().queried()?.into_iter().collect();
        ids.extend(lock(&self.counters).counted());
        Ok(ids)
    }

    /// Sets all counts of queries to nothing, as for a new workload.
    ///
    /// Errors: `Catalog`.
    pub fn reset_queries(&self) -> Result<()> {
        lock(&self.counters).forget_queries();
        self.catalog().reset_queries()
    }
}
