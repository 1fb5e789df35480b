//! Values of stages that others still need, held in memory under a budget.

use std::collections::{HashMap, HashSet};

use mistique_engine::Fingerprint;

use super::operator::Learnt;
use super::table::Table;

/// A stage's values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    pub(crate) tables: Vec<Table>,
    pub(crate) learnt: Option<Learnt>,
}

/// Values by the fingerprint of their stage.
pub(crate) struct Cache {
    budget_bytes: usize,
    held: HashMap<Fingerprint, Values>,
    /// How often the stages that are still to run will ask for a stage.
    uses: HashMap<Fingerprint, usize>,
}

impl Cache {
    /// An empty cache; `uses` counts how often each stage will be asked for.
    pub(crate) fn new(budget_bytes: usize, uses: HashMap<Fingerprint, usize>) -> Self {
        Self { budget_bytes, held: HashMap::new(), uses }
    }

    pub(crate) fn get(&self, stage: &Fingerprint) -> Option<&Values> {
        self.held.get(stage)
    }

    /// Keeps a stage's values when somebody will ask for them.
    pub(crate) fn put(&mut self, stage: Fingerprint, values: Values) {
        if self.uses.get(&stage).is_some_and(|n| *n > 0) {
            self.held.insert(stage, values);
            self.shrink(&stage);
        }
    }

    /// Says that a use of the stage is over.
    pub(crate) fn used(&mut self, stage: &Fingerprint) {
        if let Some(n) = self.uses.get_mut(stage) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.held.remove(stage);
            }
        }
    }

    /// Lets go of the largest tables, `keep` last: they can be read from the store.
    fn shrink(&mut self, keep: &Fingerprint) {
        while self.held_bytes() > self.budget_bytes {
            let bytes = |v: &Values| v.tables.iter().map(Table::memory_bytes).sum::<usize>();
            let others = self.held.iter().filter(|(f, v)| *f != keep && !v.tables.is_empty());
            let largest = others.max_by_key(|(f, v)| (bytes(v), **f)).map(|(f, _)| *f);
            match largest {
                Some(stage) => self.held.remove(&stage),
                None => break,
            };
        }
    }

    /// Bytes of the columns held; a column that several tables share counts once.
    fn held_bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for table in self.held.values().flat_map(|v| &v.tables) {
            for column in table.batch().columns() {
                let data = column.to_data();
                for buffer in data.buffers() {
                    if seen.insert(buffer.as_ptr()) {
                        bytes += buffer.capacity();
                    }
                }
            }
        }
        bytes
    }
}
