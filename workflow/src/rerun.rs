//! RERUN of networks: from the stored description, weights and dataset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use mistique_datasets::{Dataset, DatasetError, Spec};
use mistique_engine::{
    DatasetSpec, EngineError, Given, ModelKind, ModelRecord, Rerun, RerunValues, Result, StageNode, Store, Verifier,
    cost, hex,
};

use crate::conv::cpu_values;
use crate::device::Device;
use crate::error::NetworkError;
use crate::executor::Executor;
use crate::log::WorkflowError;
use crate::network::{Network, Source};
use crate::weights::Weights;

/// Rows that a RERUN runs at a time: as many as a log does, so that the results are the same on every device.
const BATCH_ROWS: usize = 256;

/// Runs the networks of a store again.
///
/// On the CPU a row's result does not depend on the batch that it runs in, so a RERUN equals what logging at full
/// precision gave bit for bit. On other devices that holds for batches of 256 rows, the log's default; with another batch
/// the libraries there sum in another order, and results agree to about 10⁻⁵ of the largest value of a layer.
pub struct NetworkRerun<'a> {
    store: &'a Store,
    device: Device,
    loaded: Mutex<HashMap<i64, Arc<Executor>>>,
    datasets: Mutex<HashMap<String, Arc<dyn Dataset>>>,
    graphs: Mutex<HashMap<i64, Arc<Vec<StageNode>>>>,
    /// Bytes of a row of a model's input, as float32, and of its weights.
    bytes: Mutex<HashMap<i64, (u64, u64)>>,
    /// Whether what it takes to open and run models is kept: not of what nobody waits for.
    measures: bool,
    /// What was found to be wrong: with a model, and with its dataset.
    failed: Mutex<HashMap<(i64, Part), String>>,
}

/// By source and fingerprint of a dataset: why it cannot be used.
type Looked = HashMap<(String, [u8; 16]), Option<String>>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Model,
    Dataset,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> NetworkRerun<'a> {
    /// Runs on `device`.
    pub fn new(store: &'a Store, device: Device) -> Self {
        Self {
            store,
            device,
            loaded: Mutex::default(),
            datasets: Mutex::default(),
            graphs: Mutex::default(),
            bytes: Mutex::default(),
            measures: true,
            failed: Mutex::default(),
        }
    }

    /// Remembers why something cannot be had, so that plans know.
    fn failed<T>(&self, model: &ModelRecord, part: Part, found: std::result::Result<T, String>) -> Result<T> {
        found.map_err(|why| {
            lock(&self.failed).insert((model.id, part), why.clone());
            EngineError::Rerun { key: model.spec.key.to_string(), why }
        })
    }

    fn weights(&self, model: &ModelRecord) -> std::result::Result<Weights, String> {
        let hash = model.spec.weights.ok_or("no weights were stored with it")?;
        let bytes = self.store.operator(&hash).map_err(|e| format!("its weights: {e}"))?;
        Weights::load_safetensors(&bytes).map_err(|e| format!("its weights: {e}"))
    }

    fn executor(&self, model: &ModelRecord) -> Result<Arc<Executor>> {
        if let Some(executor) = lock(&self.loaded).get(&model.id) {
            return Ok(Arc::clone(executor));
        }
        let begun = Instant::now();
        let load = || {
            let network = Network::parse(&model.spec.description).map_err(|e| e.to_string())?;
            Executor::new(&network, &self.weights(model)?, self.device).map_err(|e| e.to_string())
        };
        let executor = Arc::new(self.failed(model, Part::Model, load())?);
        self.keep(cost::LOAD, &self.subject(model), begun.elapsed().as_secs_f64());
        lock(&self.loaded).insert(model.id, Arc::clone(&executor));
        Ok(executor)
    }

    fn open_dataset(&self, record: &DatasetSpec) -> std::result::Result<Arc<dyn Dataset>, String> {
        let begun = Instant::now();
        let refuse = |why: String| format!("dataset {}: {why}", record.name);
        let spec: Spec = record.source.parse().map_err(|e: DatasetError| refuse(e.to_string()))?;
        let dataset: Arc<dyn Dataset> = mistique_datasets::open(&spec).map_err(|e| refuse(e.to_string()))?.into();
        let (found, logged) = (hex(&dataset.fingerprint()), hex(&record.fingerprint));
        if found != logged {
            let source = &record.source;
            return Err(refuse(format!("{source} has changed: its fingerprint is {found}, logged was {logged}")));
        }
        self.keep(cost::OPEN_DATASET, &logged, begun.elapsed().as_secs_f64());
        Ok(dataset)
    }

    fn dataset(&self, model: &ModelRecord) -> Result<Arc<dyn Dataset>> {
        let record = model.spec.dataset.as_ref().ok_or_else(|| "it names no dataset".to_string());
        let record = self.failed(model, Part::Dataset, record)?;
        if let Some(dataset) = lock(&self.datasets).get(&record.source)
            && dataset.fingerprint() == record.fingerprint
        {
            return Ok(Arc::clone(dataset));
        }
        let dataset = self.failed(model, Part::Dataset, self.open_dataset(record))?;
        lock(&self.datasets).insert(record.source.clone(), Arc::clone(&dataset));
        Ok(dataset)
    }

    fn subject(&self, model: &ModelRecord) -> String {
        cost::model_subject(&model.spec.description, &self.device.to_string())
    }

    /// A store on read-only media is used all the same: its figures are this process's.
    fn keep(&self, what: &str, subject: &str, seconds: f64) {
        if self.measures
            && let Err(e) = self.store.add_cost(what, subject, seconds)
        {
            tracing::debug!("a measured time is not kept: {e}");
        }
    }

    fn run(
        &self,
        model: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> std::result::Result<Vec<RerunValues>, WorkflowError> {
        let executor = self.executor(model)?;
        let network = executor.network();
        let layers =
            intermediates.iter().map(|n| network.layer_index(n)).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut wanted = layers.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let given_layers =
            given.iter().map(|g| network.layer_index(g.intermediate)).collect::<std::result::Result<Vec<_>, _>>()?;
        let dataset = match network.plan(&given_layers, &wanted, false) {
            Ok(_) => None,
            Err(_) => Some(self.dataset(model)?),
        };
        let shape = |layer: &usize| network.layers().get(*layer).map(|l| l.shape().to_vec()).unwrap_or_default();
        let mut outputs: Vec<Vec<f32>> =
            layers.iter().map(|l| Vec::with_capacity(rows.len() * shape(l).iter().product::<usize>())).collect();
        let subject = self.subject(model);
        let mut values = Vec::new();
        let (mut reading, mut moving, mut moved) = (Duration::ZERO, Duration::ZERO, 0);
        for (i, batch) in rows.chunks(BATCH_ROWS).enumerate() {
            let begun = Instant::now();
            let input = match &dataset {
                Some(dataset) => {
                    dataset.read_rows(batch, &mut values)?;
                    Some(executor.batch(&values)?)
                }
                None => None,
            };
            reading += begun.elapsed();
            let begun = Instant::now();
            let taken = given_batch(network, given, i * BATCH_ROWS, batch.len())?;
            moved += taken.iter().map(|(_, t)| t.elem_count()).sum::<usize>();
            moving += begun.elapsed();
            let timings = executor.forward_with(input.as_ref(), taken, &wanted, &mut |layer, tensor| {
                let begun = Instant::now();
                for (_, out) in layers.iter().zip(&mut outputs).filter(|(l, _)| **l == layer) {
                    hand_over(&tensor, out)?;
                    moved += tensor.elem_count();
                }
                moving += begun.elapsed();
                Ok(())
            })?;
            for (layer, seconds) in network.layers().iter().zip(&timings.seconds).filter(|(_, s)| **s > 0.0) {
                self.store.add_stage_cost(&subject, layer.name(), batch.len() as u64, *seconds)?;
            }
        }
        if let Some(dataset) = dataset.filter(|_| !rows.is_empty()) {
            self.keep(cost::INPUT, &hex(&dataset.fingerprint()), reading.as_secs_f64() / rows.len() as f64);
        }
        if moved as f64 >= cost::RATE_VALUES {
            let subject = cost::sized(&self.device(), moved as f64);
            self.keep(cost::OUTPUT, &subject, moving.as_secs_f64() / moved as f64);
        }
        let tensor = |(layer, values)| RerunValues::Tensor { shape: shape(layer), values };
        Ok(layers.iter().zip(outputs).map(tensor).collect())
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

/// Appends a layer's output to an answer.
fn hand_over(tensor: &Tensor, out: &mut Vec<f32>) -> std::result::Result<(), NetworkError> {
    let copied = tensor.to_dtype(DType::F32).and_then(|t| cpu_values(&t, |values| out.extend_from_slice(values)));
    copied.map_err(|e| NetworkError::Compute { layer: "output".into(), op: "copy".into(), source: e.into() })
}

impl Rerun for NetworkRerun<'_> {
    fn runs(&self, model: &ModelRecord) -> bool {
        model.spec.kind == ModelKind::Network
    }

    fn device(&self) -> String {
        self.device.to_string()
    }

    fn is_loaded(&self, model: &ModelRecord) -> bool {
        lock(&self.loaded).contains_key(&model.id)
    }

    fn holds_dataset(&self, model: &ModelRecord) -> bool {
        model.spec.dataset.as_ref().is_some_and(|d| lock(&self.datasets).contains_key(&d.source))
    }

    fn input_bytes(&self, model: &ModelRecord, _stages: &[&str], n_rows: u64, from_dataset: bool) -> u64 {
        // Known once the graph is.
        let Some((row, weights)) = lock(&self.bytes).get(&model.id).copied() else { return 0 };
        let rows = if from_dataset { row * n_rows } else { 0 };
        rows + if self.is_loaded(model) { 0 } else { weights }
    }

    fn batch_rows(&self) -> Option<u64> {
        Some(BATCH_ROWS as u64)
    }

    fn unavailable(&self, model: &ModelRecord) -> Option<String> {
        if self.is_loaded(model) {
            return None;
        }
        if let Some(why) = lock(&self.failed).get(&(model.id, Part::Model)) {
            return Some(why.clone());
        }
        let Some(hash) = model.spec.weights else { return Some("no weights were stored with it".into()) };
        match self.store.catalog().operator(&hash) {
            Ok(Some(_)) => self.device.open().err().map(|e| e.to_string()),
            Ok(None) => Some(format!("its weights ({}) are no longer in operators/", hex(&hash))),
            Err(e) => Some(e.to_string()),
        }
    }

    fn verify(&self, model: &ModelRecord) -> Option<String> {
        self.unavailable(model).or_else(|| {
            let network = Network::parse(&model.spec.description).map_err(|e| e.to_string());
            let check = |n: Network| self.weights(model)?.check(&n).map_err(|e| format!("its weights: {e}"));
            self.failed(model, Part::Model, network.and_then(check)).err().map(|e| match e {
                EngineError::Rerun { why, .. } => why,
                other => other.to_string(),
            })
        })
    }

    fn dataset_unavailable(&self, model: &ModelRecord) -> Option<String> {
        if let Some(why) = lock(&self.failed).get(&(model.id, Part::Dataset)) {
            return Some(why.clone());
        }
        let Some(dataset) = &model.spec.dataset else { return Some("it names no dataset".into()) };
        if self.holds_dataset(model) {
            return None;
        }
        match dataset.source.parse::<Spec>() {
            Err(e) => Some(format!("dataset {}: {e}", dataset.name)),
            Ok(spec) => {
                let path = spec.path().filter(|p| !p.exists())?;
                Some(format!("dataset {}: {} is not there any more", dataset.name, path.display()))
            }
        }
    }

    fn verify_dataset(&self, model: &ModelRecord) -> Option<String> {
        self.dataset_unavailable(model).or_else(|| {
            let dataset = model.spec.dataset.as_ref().filter(|_| !self.holds_dataset(model))?;
            // Opened to be compared and let go again, so that a plan's prediction still counts it.
            self.open_dataset(dataset).err()
        })
    }

    fn verifier(&self) -> Verifier {
        let device = self.device;
        // Epochs share their dataset: it is read once.
        let datasets: Mutex<Looked> = Mutex::default();
        Arc::new(move |store, model| {
            let anew = NetworkRerun { measures: false, ..NetworkRerun::new(store, device) };
            if !anew.runs(model) {
                return Err("it is no network".into());
            }
            if let Some(why) = anew.verify(model) {
                return Err(why);
            }
            let dataset = model.spec.dataset.as_ref().map(|d| (d.source.clone(), d.fingerprint)).unwrap_or_default();
            let mut datasets = lock(&datasets);
            datasets.entry(dataset).or_insert_with(|| anew.verify_dataset(model)).clone().map_or(Ok(()), Err)
        })
    }

    fn graph(&self, model: &ModelRecord) -> Result<Arc<Vec<StageNode>>> {
        if let Some(graph) = lock(&self.graphs).get(&model.id) {
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
        let row: usize = network.input_shape().iter().product();
        let weights = model.spec.weights.and_then(|hash| self.store.catalog().operator(&hash).ok().flatten());
        lock(&self.bytes).insert(model.id, (4 * row as u64, weights.map_or(0, |w| w.len_bytes)));
        lock(&self.graphs).insert(model.id, Arc::clone(&graph));
        Ok(graph)
    }

    fn rerun(
        &self,
        model: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<RerunValues>> {
        self.run(model, intermediates, rows, given).map_err(|e| match e {
            WorkflowError::Engine(e) => e,
            other => EngineError::Rerun { key: model.spec.key.to_string(), why: other.to_string() },
        })
    }
}
