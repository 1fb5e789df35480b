//! What running stages again will cost: kept by workflows as they log and rerun, asked for by plans.

use twox_hash::XxHash3_64;

use crate::cost::{self, BATCHES, Estimate, kept_batch, stage_seconds, stage_subject};
use crate::error::Result;
use crate::store::Store;

/// The place of one of [`BATCHES`].
fn bit(size: u64) -> u16 {
    BATCHES.iter().position(|b| *b == size).map_or(0, |i| 1 << i)
}

fn batches_key(model: &str, stage: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(model.as_bytes()), stage.as_bytes())
}

impl Store {
    /// Keeps what one batch of `n_rows` through a stage took; `model` is of [`cost::model_subject`].
    ///
    /// Errors: `Catalog`.
    pub fn add_stage_cost(&self, model: &str, stage: &str, n_rows: u64, seconds: f64) -> Result<()> {
        match kept_batch(n_rows) {
            Some((size, factor)) => {
                self.add_cost(cost::STAGE, &stage_subject(model, stage, size), seconds * factor)?;
                if let Some(sizes) = self.batches().get_mut(&batches_key(model, stage)) {
                    *sizes |= bit(size);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// At which of [`BATCHES`] a stage was measured, one bit each: remembered, since plans ask for every stage of a model.
    fn measured_batches(&self, model: &str, stage: &str) -> Result<u16> {
        let key = batches_key(model, stage);
        if let Some(sizes) = self.batches().get(&key) {
            return Ok(*sizes);
        }
        let mut sizes = 0;
        for size in BATCHES {
            if self.cost(cost::STAGE, &stage_subject(model, stage, size))?.is_some() {
                sizes |= bit(size);
            }
        }
        self.batches().insert(key, sizes);
        Ok(sizes)
    }

    /// Keeps what a stage took that always runs over all of its rows.
    ///
    /// Errors: `Catalog`.
    pub fn add_whole_stage_cost(&self, model: &str, stage: &str, seconds: f64) -> Result<()> {
        self.add_stage_cost(model, stage, 1, seconds)
    }

    /// Seconds of a stage that always runs over all of its rows; `None` where it was never measured.
    ///
    /// Errors: `Catalog`.
    pub fn whole_stage_estimate(&self, model: &str, stage: &str) -> Result<Option<Estimate>> {
        self.stage_estimate(model, stage, 1, 1)
    }

    /// Seconds of a stage over `n_rows` in batches of `batch`, from what was measured at the batch sizes next to them;
    /// `None` where the stage was never measured on this machine and device.
    ///
    /// Errors: `Catalog`.
    pub fn stage_estimate(&self, model: &str, stage: &str, n_rows: u64, batch: u64) -> Result<Option<Estimate>> {
        let batch = batch.clamp(1, n_rows.max(1));
        let mut measured: Vec<(u64, Estimate)> = Vec::with_capacity(4);
        let known = self.measured_batches(model, stage)?;
        let sizes = || BATCHES.into_iter().filter(|size| known & bit(*size) != 0);
        for n in [batch, n_rows % batch].into_iter().filter(|n| *n > 0) {
            let find = |size: u64| -> Result<Option<(u64, Estimate)>> {
                Ok(self.cost(cost::STAGE, &stage_subject(model, stage, size))?.map(|c| (size, c.into())))
            };
            let mut above = None;
            for size in sizes().filter(|b| *b >= n) {
                above = find(size)?;
                if above.is_some() {
                    break;
                }
            }
            measured.extend(above);
            if above.is_none_or(|(size, _)| size != n) {
                for size in sizes().rev().filter(|b| *b < n) {
                    if let Some(below) = find(size)? {
                        measured.push(below);
                        break;
                    }
                }
            }
        }
        measured.sort_unstable_by_key(|(size, _)| *size);
        measured.dedup_by_key(|(size, _)| *size);
        Ok(stage_seconds(&measured, n_rows, batch))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::MemoryStorage;
    use crate::store::StoreOptions;

    #[test]
    fn stages_are_measured_by_batch() {
        let store = Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap();
        assert_eq!(store.stage_estimate("m@cpu", "conv", 10, 256).unwrap(), None);
        store.add_stage_cost("m@cpu", "conv", 256, 0.256).unwrap();
        store.add_stage_cost("m@cpu", "conv", 16, 0.032).unwrap();
        store.add_stage_cost("m@cpu", "conv", 3, 9.0).unwrap();
        let at = |n| store.stage_estimate("m@cpu", "conv", n, 256).unwrap().unwrap().seconds;
        assert!((at(256) - 0.256).abs() < 1e-12 && (at(512) - 0.512).abs() < 1e-12);
        assert!((at(16) - 0.032).abs() < 1e-12);
        // A batch of 272 rows is one of 256 and one of 16; between the sizes the logarithms are joined.
        assert!((at(272) - 0.288).abs() < 1e-12);
        assert!((at(64) - (0.032f64 * 0.256).sqrt()).abs() < 1e-9);
        // 250 rows are kept as 256.
        store.add_stage_cost("m@cpu", "dense", 250, 0.025).unwrap();
        let dense = store.stage_estimate("m@cpu", "dense", 256, 256).unwrap().unwrap().seconds;
        assert!((dense - 0.0256).abs() < 1e-12);
        // Another device knows nothing of it.
        assert_eq!(store.stage_estimate("m@cuda:0", "conv", 256, 256).unwrap(), None);
        // Stages that run whole are kept apart from rows.
        store.add_whole_stage_cost("p@cpu", "join", 0.5).unwrap();
        assert_eq!(store.whole_stage_estimate("p@cpu", "join").unwrap().unwrap().seconds, 0.5);
    }
}
