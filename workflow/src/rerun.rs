//! RERUN of networks: from the stored description, weights and dataset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::{DType, Tensor};
use mistique_datasets::{Dataset, Spec};
use mistique_engine::{
    EngineError, Given, ModelKind, ModelRecord, Rerun, RerunValues, Result, StageNode, Store, cost, hex,
};

use crate::device::Device;
use crate::executor::Executor;
use crate::log::WorkflowError;
use crate::network::{Network, Source};
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
    graphs: Mutex<HashMap<i64, Arc<Vec<StageNode>>>>,
}

impl<'a> NetworkRerun<'a> {
    /// Runs on `device`.
    pub fn new(store: &'a Store, device: Device) -> Self {
        Self { store, device, loaded: Mutex::default(), datasets: Mutex::default(), graphs: Mutex::default() }
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
        given: &[Given<'_>],
    ) -> std::result::Result<Vec<RerunValues>, WorkflowError> {
        let executor = &loaded.executor;
        let network = executor.network();
        let layers =
            intermediates.iter().map(|n| network.layer_index(n)).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut outputs: Vec<Vec<f32>> = vec![Vec::new(); layers.len()];
        let mut wanted = layers.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let mut values = Vec::new();
        let running = Instant::now();
        for (i, batch) in rows.chunks(BATCH_ROWS).enumerate() {
            let mut sink = |layer: usize, tensor: Tensor| {
                let flat = flat(&tensor)?;
                for (_, out) in layers.iter().zip(&mut outputs).filter(|(l, _)| **l == layer) {
                    out.extend_from_slice(&flat);
                }
                Ok(())
            };
            if given.is_empty() {
                loaded.dataset.read_rows(batch, &mut values)?;
                executor.forward(&executor.batch(&values)?, &wanted, &mut sink)?;
            } else {
                executor.forward_from(given_batch(network, given, i * BATCH_ROWS, batch.len())?, &wanted, &mut sink)?;
            }
        }
        // A few rows alone cost more a row than a batch does: they would make every later prediction too high.
        if let ([layer], [], true) = (intermediates, given, rows.len() >= MEASURED_ROWS) {
            let subject = cost::layer_subject(&model.spec.description, &self.device(), layer);
            let seconds = running.elapsed().as_secs_f64() / rows.len() as f64;
            if let Err(e) = self.store.add_cost(cost::FORWARD, &subject, seconds) {
                tracing::debug!("the run's time is not kept: {e}");
            }
        }
        let shape = |layer: &usize| network.layers().get(*layer).map(|l| l.shape().to_vec()).unwrap_or_default();
        Ok(layers
            .iter()
            .zip(outputs)
            .map(|(layer, values)| RerunValues::Tensor { shape: shape(layer), values })
            .collect())
    }
}

/// Rows `start..start + n_rows` of the given layers, on the network's device.
fn given_batch(
    network: &Network,
    given: &[Given<'_>],
    start: usize,
    n_rows: usize,
) -> std::result::Result<Vec<(usize, Tensor)>, WorkflowError> {
    let one = |g: &Given<'_>| {
        let refuse = |expected: String, got: String| {
            let (key, what) = (g.intermediate.to_string(), "given values");
            WorkflowError::Engine(EngineError::Shape { key, what, expected, got })
        };
        let RerunValues::Tensor { shape, values } = g.values else {
            return Err(refuse("a tensor".into(), "a table".into()));
        };
        let row: usize = shape.iter().product();
        let Some(part) = values.get(start * row..(start + n_rows) * row) else {
            return Err(refuse(format!("{} values", (start + n_rows) * row), format!("{}", values.len())));
        };
        let dims: Vec<usize> = std::iter::once(n_rows).chain(shape.iter().copied()).collect();
        let tensor = Tensor::from_slice(part, dims, &candle_core::Device::Cpu)?;
        Ok((network.layer_index(g.intermediate)?, tensor))
    };
    given.iter().map(one).collect()
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

    fn graph(&self, model: &ModelRecord) -> Result<Arc<Vec<StageNode>>> {
        if let Some(graph) = self.graphs.lock().unwrap_or_else(PoisonError::into_inner).get(&model.id) {
            return Ok(Arc::clone(graph));
        }
        let network = Network::parse(&model.spec.description)
            .map_err(|e| EngineError::Rerun { key: model.spec.key.to_string(), why: e.to_string() })?;
        let node = |layer: &crate::network::Layer| StageNode {
            name: layer.name().to_string(),
            inputs: layer
                .inputs()
                .iter()
                .filter_map(|s| if let Source::Layer(i) = s { Some(*i) } else { None })
                .collect(),
            takes_dataset: layer.inputs().contains(&Source::Input),
            whole: false,
        };
        let graph = Arc::new(network.layers().iter().map(node).collect::<Vec<_>>());
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner).insert(model.id, Arc::clone(&graph));
        Ok(graph)
    }

    fn rerun(
        &self,
        model: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<RerunValues>> {
        let loaded = self.load(model)?;
        self.run(model, &loaded, intermediates, rows, given).map_err(|e| match e {
            WorkflowError::Engine(e) => e,
            other => EngineError::Rerun { key: model.spec.key.to_string(), why: other.to_string() },
        })
    }
}
