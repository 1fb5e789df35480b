//! A workflow whose results are looked at on their way to the answer: values that are worth storing are copied.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mistique_engine::{Given, IntermediateRecord, ModelRecord, Rerun, RerunValues, Result, StageNode, Verifier};

/// A model's number and an intermediate's name.
type Name = (i64, String);

/// What is wanted of the values that a RERUN gives.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub record: IntermediateRecord,
    /// Whether each group is.
    pub groups: Vec<bool>,
}

/// Values that a RERUN gave and that are wanted.
pub(crate) struct Caught {
    pub wanted: Wanted,
    pub rows: Vec<u64>,
    pub values: RerunValues,
}

/// What the taps of a reader share.
#[derive(Default)]
pub(crate) struct Net {
    wanted: Mutex<HashMap<Name, Wanted>>,
    caught: Mutex<Vec<Caught>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    /// Wants the values of an intermediate until [`Net::take`].
    pub fn want(&self, wanted: Wanted) {
        lock(&self.wanted).insert((wanted.record.model_id, wanted.record.key.intermediate.clone()), wanted);
    }

    /// What was caught; nothing more is wanted.
    pub fn take(&self) -> Vec<Caught> {
        lock(&self.wanted).clear();
        std::mem::take(&mut *lock(&self.caught))
    }
}

/// A workflow with a tap.
pub(crate) struct Tap<'a> {
    pub inner: Box<dyn Rerun + 'a>,
    pub net: Arc<Net>,
}

impl Rerun for Tap<'_> {
    fn runs(&self, model: &ModelRecord) -> bool {
        self.inner.runs(model)
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn is_loaded(&self, model: &ModelRecord) -> bool {
        self.inner.is_loaded(model)
    }

    fn unavailable(&self, model: &ModelRecord) -> Option<String> {
        self.inner.unavailable(model)
    }

    fn verify(&self, model: &ModelRecord) -> Option<String> {
        self.inner.verify(model)
    }

    fn dataset_unavailable(&self, model: &ModelRecord) -> Option<String> {
        self.inner.dataset_unavailable(model)
    }

    fn verify_dataset(&self, model: &ModelRecord) -> Option<String> {
        self.inner.verify_dataset(model)
    }

    fn stage_unavailable(&self, model: &ModelRecord, stage: &str, verify: bool) -> Option<String> {
        self.inner.stage_unavailable(model, stage, verify)
    }

    fn verifier(&self) -> Verifier {
        self.inner.verifier()
    }

    fn holds_dataset(&self, model: &ModelRecord) -> bool {
        self.inner.holds_dataset(model)
    }

    fn holds_input(&self, model: &ModelRecord, stage: &str) -> bool {
        self.inner.holds_input(model, stage)
    }

    fn input_bytes(&self, model: &ModelRecord, stages: &[&str], n_rows: u64, from_dataset: bool) -> u64 {
        self.inner.input_bytes(model, stages, n_rows, from_dataset)
    }

    fn batch_rows(&self) -> Option<u64> {
        self.inner.batch_rows()
    }

    fn graph(&self, model: &ModelRecord) -> Result<Arc<Vec<StageNode>>> {
        self.inner.graph(model)
    }

    fn rerun(
        &self,
        model: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<RerunValues>> {
        let outputs = self.inner.rerun(model, intermediates, rows, given)?;
        for (name, values) in intermediates.iter().zip(&outputs) {
            let wanted = lock(&self.net.wanted).get(&(model.id, name.clone())).cloned();
            if let Some(wanted) = wanted {
                lock(&self.net.caught).push(Caught { wanted, rows: rows.to_vec(), values: values.clone() });
            }
        }
        Ok(outputs)
    }
}
