//! Measured costs and query counts: kept in memory while a process works, written down now and then, so that no answer
//! waits for the disk.

use std::collections::{BTreeMap, HashMap};

use crate::catalog::{Catalog, CostRecord};
use crate::cost::machine;
use crate::error::Result;

/// Changes after which the counters are written down.
const FLUSH_EVERY: usize = 256;

/// A running mean and variance (Welford).
#[derive(Debug, Clone, Copy, Default)]
pub struct Running {
    /// Measurements.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared differences from the mean.
    pub m2: f64,
    /// Seconds since 1970 of the last one.
    pub updated: i64,
}

impl Running {
    fn add(&mut self, value: f64) {
        self.n += 1;
        let delta = value - self.mean;
        self.mean += delta / self.n as f64;
        self.m2 += delta * (value - self.mean);
        self.updated = crate::catalog::now();
    }

    fn record(&self) -> CostRecord {
        let variance = self.m2 / (self.n.max(2) - 1) as f64;
        CostRecord { n: self.n, mean: self.mean, variance, updated: self.updated }
    }
}

type Key = (String, String);

/// Costs known so far, and what is not yet written down.
#[derive(Default)]
pub struct Counters {
    costs: HashMap<Key, Option<Running>>,
    dirty: std::collections::BTreeSet<Key>,
    queries: HashMap<(i64, String), u64>,
    changes: usize,
}

impl Counters {
    fn load<'a>(&'a mut self, catalog: &Catalog, what: &str, subject: &str) -> Result<&'a mut Option<Running>> {
        let key = (what.to_string(), subject.to_string());
        if !self.costs.contains_key(&key) {
            let found = catalog.cost(machine(), what, subject)?;
            self.costs.insert(key.clone(), found);
        }
        Ok(self.costs.entry(key).or_default())
    }

    /// A measured cost of this machine.
    pub fn cost(&mut self, catalog: &Catalog, what: &str, subject: &str) -> Result<Option<CostRecord>> {
        Ok(self.load(catalog, what, subject)?.as_ref().map(Running::record))
    }

    /// Adds one measurement.
    pub fn add(&mut self, catalog: &Catalog, what: &str, subject: &str, value: f64) -> Result<()> {
        self.load(catalog, what, subject)?.get_or_insert_default().add(value);
        self.dirty.insert((what.to_string(), subject.to_string()));
        self.changed(catalog)
    }

    /// Counts a query of columns of an intermediate.
    pub fn count_query(&mut self, catalog: &Catalog, intermediate_id: i64, columns: &str) -> Result<()> {
        *self.queries.entry((intermediate_id, columns.to_string())).or_default() += 1;
        self.changed(catalog)
    }

    /// Queries of an intermediate by the columns that they asked for, those not yet written down included.
    pub fn column_queries(&self, catalog: &Catalog, intermediate_id: i64) -> Result<Vec<(String, u64)>> {
        let mut counts: BTreeMap<String, u64> = catalog.column_queries(intermediate_id)?.into_iter().collect();
        for ((_, columns), n) in self.queries.iter().filter(|((id, _), _)| *id == intermediate_id) {
            *counts.entry(columns.clone()).or_default() += n;
        }
        Ok(counts.into_iter().collect())
    }

    /// Numbers of the intermediates with queries that are not yet written down.
    pub fn counted(&self) -> impl Iterator<Item = i64> + '_ {
        self.queries.keys().map(|(id, _)| *id)
    }

    /// Forgets the queries that are not yet written down.
    pub fn forget_queries(&mut self) {
        self.queries.clear();
    }

    fn changed(&mut self, catalog: &Catalog) -> Result<()> {
        self.changes += 1;
        if self.changes >= FLUSH_EVERY { self.flush(catalog) } else { Ok(()) }
    }

    /// Writes down what has changed.
    pub fn flush(&mut self, catalog: &Catalog) -> Result<()> {
        self.changes = 0;
        let dirty = std::mem::take(&mut self.dirty);
        let costs = dirty.iter().filter_map(|key| Some((key, self.costs.get(key).copied().flatten()?)));
        let costs: Vec<(&str, &str, Running)> = costs.map(|((w, s), r)| (w.as_str(), s.as_str(), r)).collect();
        let counted = std::mem::take(&mut self.queries);
        let queries: Vec<(i64, &str, u64)> = counted.iter().map(|((id, c), n)| (*id, c.as_str(), *n)).collect();
        if costs.is_empty() && queries.is_empty() {
            return Ok(());
        }
        catalog.write_counters(machine(), &costs, &queries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance_by_hand() {
        let mut r = Running::default();
        for v in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            r.add(v);
        }
        let record = r.record();
        assert_eq!((record.n, record.mean), (8, 5.0));
        assert!((record.variance - 32.0 / 7.0).abs() < 1e-12);
    }
}
