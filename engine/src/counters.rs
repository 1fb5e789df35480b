//! Measured costs and query counts: kept in memory while a process works, written down now and then, so that no answer
//! waits for the disk.

use std::collections::{BTreeMap, HashMap};

use crate::catalog::{Catalog, CostRecord};
use crate::cost::{READ, machine, owner};
use crate::error::Result;

/// Changes after which the counters are written down.
const FLUSH_EVERY: usize = 1024;

/// Measurements that count: older ones fade as newer ones come.
const WINDOW: f64 = 16.0;
/// Seconds after which what was measured counts half (a week): disks, drivers and neighbours change.
const HALF_LIFE: f64 = 7.0 * 86_400.0;
/// Measurements whose mean is still in doubt.
const FEW: f64 = 4.0;

/// A running mean and variance (Welford) in which older measurements fade and single outliers do not rule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Running {
    /// Measurements.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared differences from the mean, over the measurements that count.
    pub m2: f64,
    /// Seconds since 1970 of the last one.
    pub updated: i64,
}

impl Running {
    /// How many measurements the mean stands for at the time `now`.
    fn weight(&self, now: i64) -> f64 {
        let age = now.saturating_sub(self.updated).max(0) as f64;
        (self.n as f64).min(WINDOW) * (-age / HALF_LIFE).exp2()
    }

    fn add(&mut self, value: f64, now: i64) {
        let weight = self.weight(now);
        // What disturbs a measurement only ever makes it longer: one of half the time shows that the few before it
        // were disturbed.
        if weight <= FEW && value < self.mean / 2.0 {
            *self = Self { n: 1, mean: value, m2: 0.0, updated: now };
            return;
        }
        let before = (self.n as f64).clamp(1.0, WINDOW);
        let deviation = (self.m2 / (before - 1.0).max(1.0)).sqrt();
        let most = self.mean + (4.0 * deviation).max(self.mean);
        let value = if self.n == 0 || weight < 0.5 { value } else { value.min(most) };
        let kept = weight.clamp(0.0, WINDOW - 1.0);
        let delta = value - self.mean;
        let share = 1.0 / (kept + 1.0);
        self.mean += share * delta;
        // The same for fading: what is kept of the old sum, and the new difference.
        let faded = if self.n == 0 { 0.0 } else { self.m2 * kept / before };
        self.m2 = faded + delta * (value - self.mean);
        // What has faded does not come back with a newer measurement.
        self.n = if weight < before - 0.5 { weight.round() as u64 } else { self.n } + 1;
        self.updated = now;
    }

    pub(crate) fn record(&self) -> CostRecord {
        let counted = (self.n as f64).min(WINDOW);
        let variance = self.m2 / (counted - 1.0).max(1.0);
        CostRecord { n: self.n, mean: self.mean, variance, updated: self.updated }
    }
}

type Key = (String, String);

/// Costs known so far, and what is not yet written down.
#[derive(Default)]
pub struct Counters {
    /// What the store lies on.
    medium: String,
    /// By what and of what: plans look up hundreds, without a text made for each.
    costs: HashMap<String, HashMap<String, Option<Running>>>,
    dirty: std::collections::BTreeSet<Key>,
    queries: HashMap<(i64, String), u64>,
    changes: usize,
}

impl Counters {
    /// Those of a store that lies on `medium`.
    pub fn on(medium: String) -> Self {
        Self { medium, ..Self::default() }
    }

    fn load<'a>(&'a mut self, catalog: &Catalog, what: &str, subject: &str) -> Result<&'a mut Option<Running>> {
        if self.known(what, subject).is_none() {
            let found = catalog.cost(&owner(what, &self.medium), what, subject)?;
            self.costs.entry(what.to_string()).or_default().insert(subject.to_string(), found);
        }
        Ok(self.costs.entry(what.to_string()).or_default().entry(subject.to_string()).or_default())
    }

    fn known(&self, what: &str, subject: &str) -> Option<&Option<Running>> {
        self.costs.get(what)?.get(subject)
    }

    /// A measured cost of this machine.
    pub fn cost(&mut self, catalog: &Catalog, what: &str, subject: &str) -> Result<Option<CostRecord>> {
        match self.known(what, subject) {
            Some(known) => Ok(known.as_ref().map(Running::record)),
            None => Ok(self.load(catalog, what, subject)?.as_ref().map(Running::record)),
        }
    }

    /// Adds one measurement.
    pub fn add(&mut self, catalog: &Catalog, what: &str, subject: &str, value: f64) -> Result<()> {
        self.load(catalog, what, subject)?.get_or_insert_default().add(value, crate::catalog::now());
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

    /// Forgets costs of these kinds, of all machines.
    pub fn forget_costs(&mut self, catalog: &Catalog, kinds: &[&str]) -> Result<()> {
        self.costs.retain(|what, _| !kinds.contains(&what.as_str()));
        self.dirty.retain(|(what, _)| !kinds.contains(&what.as_str()));
        kinds.iter().try_for_each(|what| catalog.forget_costs(what))
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
        let cost = |(what, subject): &(String, String)| {
            Some((owner(what, &self.medium), what.clone(), subject.clone(), self.known(what, subject).copied()??))
        };
        let costs: Vec<(String, String, String, Running)> = dirty.iter().filter_map(cost).collect();
        let counted = std::mem::take(&mut self.queries);
        let queries: Vec<(i64, &str, u64)> = counted.iter().map(|((id, c), n)| (*id, c.as_str(), *n)).collect();
        if costs.is_empty() && queries.is_empty() {
            return Ok(());
        }
        catalog.write_counters(&costs, &queries)
    }

    /// All costs that are written down: what, of what, and the figure.
    pub fn costs(&self, catalog: &Catalog) -> Result<Vec<(String, String, CostRecord)>> {
        let of_reads = owner(READ, &self.medium);
        let mut all = catalog.costs(machine())?;
        if of_reads != machine() {
            all.retain(|(what, ..)| owner(what, &self.medium) == machine());
            all.extend(catalog.costs(&of_reads)?);
        }
        Ok(all.into_iter().map(|(what, subject, running)| (what, subject, running.record())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[f64]) -> CostRecord {
        let mut r = Running::default();
        values.iter().for_each(|v| r.add(*v, 1_000));
        r.record()
    }

    #[test]
    fn mean_and_variance_by_hand() {
        let record = after(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(record.n, 8);
        assert!((record.mean - 5.0).abs() < 1e-12 && (record.variance - 32.0 / 7.0).abs() < 1e-12, "{record:?}");
    }

    #[test]
    fn reads_are_kept_by_what_the_store_lies_on() {
        let storage = crate::storage::MemoryStorage::new(None).unwrap();
        let catalog = Catalog::open(&storage, true).unwrap();
        let mut here = Counters::on("ext4 /dev/sda1".into());
        for (what, seconds) in [(READ, 1.0), (crate::cost::READ_TABLE, 2.0), (crate::cost::STAGE, 3.0)] {
            here.add(&catalog, what, "x", seconds).unwrap();
        }
        here.flush(&catalog).unwrap();
        assert_eq!(here.costs(&catalog).unwrap().len(), 3);
        let mut moved = Counters::on("nfs host:/export".into());
        assert!(moved.cost(&catalog, READ, "x").unwrap().is_none());
        assert!(moved.cost(&catalog, crate::cost::READ_TABLE, "x").unwrap().is_none());
        assert_eq!(moved.cost(&catalog, crate::cost::STAGE, "x").unwrap().unwrap().mean, 3.0);
        assert_eq!(moved.costs(&catalog).unwrap().len(), 1);
        moved.add(&catalog, READ, "x", 9.0).unwrap();
        moved.flush(&catalog).unwrap();
        let mut back = Counters::on("ext4 /dev/sda1".into());
        assert_eq!(back.cost(&catalog, READ, "x").unwrap().unwrap().mean, 1.0);
    }

    #[test]
    fn older_measurements_fade() {
        let mut values = vec![1.0; 100];
        values.extend([1.5; 48]);
        let record = after(&values);
        // Each newer one counts a sixteenth: 1.5 − 0.5 · (15/16)^48.
        assert!((record.mean - (1.5 - 0.5 * (15.0f64 / 16.0).powi(48))).abs() < 1e-12, "{record:?}");
        assert!(record.variance < 0.06, "{record:?}");
        // After two weeks sixteen measurements count as four: 1 + (2 − 1) / 5.
        let mut r = Running::default();
        (0..16).for_each(|_| r.add(1.0, 0));
        r.add(2.0, 14 * 86_400);
        assert!((r.mean - 1.2).abs() < 1e-12, "{r:?}");
    }

    #[test]
    fn outliers_do_not_rule() {
        // The first touch of memory took ten times as long: it is forgotten once a second one says so.
        assert_eq!(after(&[10.0, 1.0, 1.0]).mean, 1.0);
        // A thousandfold measurement moves the mean by no more than a sixteenth of itself.
        let mut values = vec![1.0; 20];
        values.push(1000.0);
        assert!((after(&values).mean - 17.0 / 16.0).abs() < 1e-12);
        // A change that lasts is followed all the same.
        let mut values = vec![1.0; 20];
        values.extend([30.0; 60]);
        assert!(after(&values).mean > 25.0);
    }
}
