//! RERUN of networks: from the stored description, weights and dataset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::{DType, Tensor};
use mistique_datasets::{Dataset, Spec};
use mistique_engine::{EngineError, ModelKind, ModelRecord, Rerun, RerunOutput, Result, Store, cost, hex};

use crate::device::Device;
use crate::executor::Executor;
use crate::log::WorkflowError;
use crate::network::Network;
use crate::weights::Weights;

/// Rows that a RERUN runs at a time.
const BATCH_ROWS: usize = 256;
/// Runs of fewer rows are not kept as measurements.
const MEASURED_ROWS: usize = 32;

struct Loaded {
    executor: Executor,
    dataset: Arc<dyn Dataset>,
}

/// Runs the networks of a store again.
pub struct NetworkRerun<'a> {
    store: &'a Store,
    device: Device,
    loaded: Mutex<HashMap<i64, Arc<Loaded>>>,
    datasets: Mutex<HashMap<String, Arc<dyn Dataset>>>,
}

impl<'a> NetworkRerun<'a> {
    /// Runs on `device`.
    pub fn new(store: &'a Store, device: Device) -> Self {
        Self { store, device, loaded: Mutex::default(), datasets: Mutex::default() }
    }

    fn load(&self, model: &ModelRecord) -> Result<Arc<Loaded>> {
        if let Some(loaded) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&model.id) {
            return Ok(Arc::clone(loaded));
        }
        let begun = Instant::now();
        let refuse = |why: String| EngineError::Rerun { key: model.spec.key.to_string(), why };
        let network = Network::parse(&model.spec.description).map_err(|e| refuse(e.to_string()))?;
        let hash = model.spec.weights.ok_or_else(|| refuse("no weights were stored with it".into()))?;
        let weights = Weights::load_safetensors(&self.store.operator(&hash)?).map_err(|e| refuse(e.to_string()))?;
        let record = model.spec.dataset.as_ref().ok_or_else(|| refuse("it names no dataset".into()))?;
        let known = self.datasets.lock().unwrap_or_else(PoisonError::into_inner).get(&record.source).cloned();
        let dataset: Arc<dyn Dataset> = match known {
            Some(dataset) => dataset,
            None => {
                let spec: Spec = record.source.parse().map_err(|e| refuse(format!("dataset {}: {e}", record.name)))?;
                let opened = mistique_datasets::open(&spec);
                opened.map_err(|e| refuse(format!("dataset {}: {e}", record.name)))?.into()
            }
        };
        if dataset.fingerprint() != record.fingerprint {
            return Err(refuse(format!(
                "dataset {} ({}) has changed: its fingerprint is {}, logged was {}",
                record.name,
                record.source,
                hex(&dataset.fingerprint()),
                hex(&record.fingerprint)
            )));
        }
        self.datasets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.source.clone(), Arc::clone(&dataset));
        let executor = Executor::new(&network, &weights, self.device).map_err(|e| refuse(e.to_string()))?;
        let subject = cost::model_subject(&model.spec.description, &self.device());
        if let Err(e) = self.store.add_cost(cost::LOAD, &subject, begun.elapsed().as_secs_f64()) {
            tracing::debug!("the load's time is not kept: {e}");
        }
        let loaded = Arc::new(Loaded { executor, dataset });
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(model.id, Arc::clone(&loaded));
        Ok(loaded)
    }

    fn run(
        &self,
        model: &ModelRecord,
        loaded: &Loaded,
        intermediates: &[String],
        rows: &[u64],
    ) -> std::result::Result<Vec<RerunOutput>, WorkflowError> {
        let executor = &loaded.executor;
        let network = executor.network();
        let layers =
            intermediates.iter().map(|n| network.layer_index(n)).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut outputs: Vec<RerunOutput> = layers
            .iter()
            .map(|l| RerunOutput {
                shape: network.layers().get(*l).map(|l| l.shape().to_vec()).unwrap_or_default(),
                values: Vec::new(),
            })
            .collect();
        let mut wanted = layers.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let mut values = Vec::new();
        let running = Instant::now();
        for batch in rows.chunks(BATCH_ROWS) {
            loaded.dataset.read_rows(batch, &mut values)?;
            executor.forward(&executor.batch(&values)?, &wanted, &mut |layer, tensor| {
                let flat = flat(&tensor)?;
                for (_, out) in layers.iter().zip(&mut outputs).filter(|(l, _)| **l == layer) {
                    out.values.extend_from_slice(&flat);
                }
                Ok(())
            })?;
        }
        // A few rows alone cost more a row than a batch does: they would make every later prediction too high.
        if let ([layer], true) = (intermediates, rows.len() >= MEASURED_ROWS) {
            let subject = cost::layer_subject(&model.spec.description, &self.device(), layer);
            let seconds = running.elapsed().as_secs_f64() / rows.len() as f64;
            if let Err(e) = self.store.add_cost(cost::FORWARD, &subject, seconds) {
                tracing::debug!("the run's time is not kept: {e}");
            }
        }
        Ok(outputs)
    }
}

fn flat(tensor: &Tensor) -> std::result::Result<Vec<f32>, crate::error::NetworkError> {
    let values = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F32)).and_then(|t| t.to_vec1::<f32>());
    values.map_err(|e| crate::error::NetworkError::Compute {
        layer: "output".into(),
        op: "copy".into(),
        source: e.into(),
    })
}

impl Rerun for NetworkRerun<'_> {
    fn runs(&self, model: &ModelRecord) -> bool {
        model.spec.kind == ModelKind::Network
    }

    fn device(&self) -> String {
        self.device.to_string()
    }

    fn is_loaded(&self, model: &ModelRecord) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&model.id)
    }

    fn unavailable(&self, model: &ModelRecord) -> Option<String> {
        if self.is_loaded(model) {
            return None;
        }
        let Some(hash) = model.spec.weights else { return Some("no weights were stored with it".into()) };
        match self.store.catalog().operator(&hash) {
            Ok(Some(_)) => {}
            Ok(None) => return Some(format!("its weights ({}) are no longer in operators/", hex(&hash))),
            Err(e) => return Some(e.to_string()),
        }
        let Some(dataset) = &model.spec.dataset else { return Some("it names no dataset".into()) };
        match dataset.source.parse::<Spec>() {
            Err(e) => Some(format!("dataset {}: {e}", dataset.name)),
            Ok(spec) => match spec.path() {
                Some(path) if !path.exists() => {
                    Some(format!("dataset {}: {} is not there any more", dataset.name, path.display()))
                }
                _ => self.device.open().err().map(|e| e.to_string()),
            },
        }
    }

    fn rerun(&self, model: &ModelRecord, intermediates: &[String], rows: &[u64]) -> Result<Vec<RerunOutput>> {
        let loaded = self.load(model)?;
        self.run(model, &loaded, intermediates, rows).map_err(|e| match e {
            WorkflowError::Engine(e) => e,
            other => EngineError::Rerun { key: model.spec.key.to_string(), why: other.to_string() },
        })
    }
}
