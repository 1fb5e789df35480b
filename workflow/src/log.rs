//! `log_intermediates`: run a network over a dataset and log its layers; and logging from a training loop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use candle_core::{DType, Device as CandleDevice, Tensor};
use mistique_datasets::{Dataset, DatasetError, Spec};
use mistique_engine::{
    DatasetSpec, EngineError, Handle, IfExists, LogOptions, LogReport, Logger, MapValue, ModelHandle, ModelKey,
    ModelKind, ModelSpec, Scheme, Store, TensorSpec, cost, fingerprint, hex,
};

use crate::device::Device;
use crate::error::NetworkError;
use crate::executor::{Executor, Timings};
use crate::gather::{Gather, Indexed};
use crate::network::Network;
use crate::pattern::LayerPattern;
use crate::slices::{self, Slices};
use crate::source::CandleSource;
use crate::weights::Weights;

/// What went wrong in a run that logs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// candle.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
    /// A dataset whose rows are no input of the network.
    #[error("{network} takes rows of shape {expected:?}, {dataset} has {found:?}; choose another --arch or --data")]
    InputShape {
        /// The network.
        network: String,
        /// The dataset.
        dataset: String,
        /// The network's input.
        expected: Vec<usize>,
        /// The dataset's rows.
        found: Vec<usize>,
    },
    /// Rows that the dataset does not have.
    #[error("{dataset} has rows 0..{n_rows}, {given:?} were asked for")]
    NoSuchRows {
        /// The dataset.
        dataset: String,
        /// Its rows.
        n_rows: u64,
        /// The rows asked for.
        given: std::ops::Range<u64>,
    },
    /// A tensor whose first axis does not count the given rows.
    #[error("{name}: {rows} row_ids for a tensor of shape {shape:?}; its first axis must count the rows")]
    Rows {
        /// Name of the tensor.
        name: String,
        /// Row_ids given.
        rows: usize,
        /// The tensor's shape.
        shape: Vec<usize>,
    },
}

/// Rows that are run where the store keeps no values: they settle schemes, and measure what a RERUN takes.
const WITHHELD_RUN_ROWS: u64 = 512;

/// How a run is logged.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Which layers (default: all).
    pub layers: LayerPattern,
    /// What to do to the values; `None` for each layer's default.
    pub scheme: Option<Scheme>,
    /// Rows a batch (default 256).
    pub batch_rows: usize,
    /// Where to run (default: the CPU).
    pub device: Device,
    /// Which rows of the dataset (default: all).
    pub rows: Option<std::ops::Range<u64>>,
    /// What happens when the model exists.
    pub if_exists: IfExists,
    /// How the log works.
    pub log: LogOptions,
    /// Which activations of each layer a by-example index is built of while logging (default: none is built).
    pub index: Option<MapValue>,
    /// How often what is done so far is committed, so that an interrupted run goes on there (default: 5 seconds). A model
    /// that replaces another is committed whole.
    pub checkpoint: Duration,
}

impl RunOptions {
    /// All layers of all rows on the CPU, under each layer's default scheme.
    ///
    /// Errors: never, but the pattern is checked like any other.
    pub fn new() -> Result<Self, NetworkError> {
        Ok(Self {
            layers: LayerPattern::new("*")?,
            scheme: None,
            batch_rows: 256,
            device: Device::Cpu,
            rows: None,
            if_exists: IfExists::Continue,
            log: LogOptions::default(),
            index: None,
            checkpoint: Duration::from_secs(5),
        })
    }
}

/// A dataset and how to open it again.
pub struct Input<'a> {
    /// Name in the store.
    pub name: String,
    /// How to open it again; made absolute when it is recorded.
    pub spec: &'a Spec,
    /// The rows.
    pub dataset: &'a dyn Dataset,
}

impl Input<'_> {
    fn record(&self) -> DatasetSpec {
        DatasetSpec {
            name: self.name.clone(),
            source: self.spec.absolute().to_string(),
            fingerprint: self.dataset.fingerprint(),
            n_rows: self.dataset.n_rows() as u64,
            row_shape: self.dataset.row_shape().to_vec(),
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows run, or found stored already.
    pub done_rows: u64,
    /// Rows in all.
    pub total_rows: u64,
    /// Most bytes that the run can take in the store.
    pub max_bytes: u64,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// What the log wrote.
    pub log: LogReport,
    /// Layers logged.
    pub layers: Vec<String>,
    /// Rows of which some layer had none before.
    pub added_rows: u64,
    /// Rows that were run: whole batches, of which some layer lacked a row; fewer where only rows are kept.
    pub run_rows: u64,
    /// Wall seconds, the last commit included.
    pub seconds: f64,
    /// Wall seconds spent in the network itself.
    pub forward_seconds: f64,
    /// Which implementation ran.
    pub executor: String,
    /// The indexes built, where they were asked for.
    pub indexed: Indexed,
}

/// Runs `network` with `weights` over the input and logs the chosen layers under `key`. Weights go into `operators/`.
/// Rows that are stored already are not run again, so calling it again goes on with an interrupted run.
///
/// Errors: `InputShape`; `Engine` with `NoSpace` before anything runs, `Conflict` for other content under a used key;
/// what network, dataset and store meet.
pub fn log_intermediates(
    store: &Store,
    key: &ModelKey,
    network: &Network,
    weights: &Weights,
    input: &Input<'_>,
    options: &RunOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<RunReport, WorkflowError> {
    let begun = Instant::now();
    let dataset = input.dataset;
    if dataset.row_shape() != network.input_shape() {
        return Err(WorkflowError::InputShape {
            network: network.name().to_string(),
            dataset: input.name.clone(),
            expected: network.input_shape().to_vec(),
            found: dataset.row_shape().to_vec(),
        });
    }
    let layers = options.layers.select(network)?;
    let n_rows = dataset.n_rows() as u64;
    let range = options.rows.clone().unwrap_or(0..n_rows);
    if range.start >= range.end || range.end > n_rows {
        return Err(WorkflowError::NoSuchRows { dataset: input.name.clone(), n_rows, given: range });
    }

    let loading = Instant::now();
    let executor = Executor::new(network, weights, options.device)?;
    let load_seconds = loading.elapsed().as_secs_f64();
    let slices = if options.device == Device::Cpu { Slices::of(network) } else { None };
    let mut log = store.logger(options.log)?;
    let operator = weights.to_safetensors()?;
    let spec = ModelSpec {
        key: key.clone(),
        kind: ModelKind::Network,
        description: network.to_json(),
        weights: Some(fingerprint(&operator)),
        dataset: Some(input.record()),
    };
    // What is replaced goes with the first commit: that is the last one, so that a failure leaves what there was.
    let replaces = options.if_exists == IfExists::Replace && store.catalog().model_exact(key)?.is_some();
    let model = log.model(&spec, options.if_exists)?;
    let mut handles = Vec::with_capacity(layers.len());
    let mut max_bytes = 0;
    for &layer in &layers {
        let Some(info) = network.layers().get(layer) else { continue };
        let mut tensor = TensorSpec::new(info.name(), info.shape()).at(layer as i64);
        tensor.scheme.clone_from(&options.scheme);
        let handle = log.tensor(model, &tensor)?;
        if !log.withholds(handle)? {
            max_bytes += log.max_bytes(handle, range.end - range.start)?;
        }
        handles.push((layer, handle));
    }
    let mut gather = options.index.map(Gather::new);
    for layer in handles.iter().filter_map(|(l, _)| network.layers().get(*l).map(|info| (*l, info))) {
        if let Some(gather) = &mut gather {
            gather.add(layer.0, layer.1.name(), layer.1.shape());
        }
    }
    log.reserve(max_bytes)?;
    // A log that is refused leaves no weights behind.
    log.put_operator(&operator, "safetensors")?;
    drop(operator);
    log.incomplete(model)?;

    let total_rows = range.end - range.start;
    let mut report = RunReport {
        log: LogReport::default(),
        layers: layers.iter().filter_map(|l| network.layers().get(*l)).map(|l| l.name().to_string()).collect(),
        added_rows: 0,
        run_rows: 0,
        seconds: 0.0,
        forward_seconds: 0.0,
        executor: executor.describe(),
        indexed: Indexed::default(),
    };
    let mut measured = Measured::default();
    let mut values = Vec::new();
    let mut committed = Instant::now();
    let mut at = range.start;
    progress(Progress { done_rows: 0, total_rows, max_bytes });
    while at < range.end {
        let end = range.end.min(at + options.batch_rows.max(1) as u64);
        let rows: Vec<u64> = (at..end).collect();
        let mut wanted = Vec::new();
        let mut missing: HashMap<usize, (Handle, Vec<u64>)> = HashMap::new();
        let mut added = BTreeSet::new();
        for (layer, handle) in &handles {
            let rows = log.missing(*handle, &rows)?;
            added.extend(rows.iter().copied());
            if !rows.is_empty() && report.run_rows >= WITHHELD_RUN_ROWS && log.withholds(*handle)? {
                log.append_rows(*handle, &rows)?;
                continue;
            }
            if !rows.is_empty() {
                wanted.push(*layer);
                missing.insert(*layer, (*handle, rows));
            }
        }
        report.added_rows += added.len() as u64;
        if !wanted.is_empty() {
            let reading = Instant::now();
            dataset.read_rows(&rows, &mut values)?;
            let batch = executor.batch(&values)?;
            measured.input(rows.len(), reading.elapsed());
            let forward = Instant::now();
            let mut appending = Duration::ZERO;
            let mut failed = None;
            let timings = slices::forward(&executor, slices, &batch, &wanted, &mut |layer, part, output| {
                let begun = Instant::now();
                if let (None, Some((handle, some))) = (&failed, missing.get(&layer)) {
                    let rows = &rows[part];
                    let gathered = gather.as_mut().map_or(Ok(()), |g| g.take(layer, rows, &output));
                    let appended = gathered.map_err(WorkflowError::from);
                    failed = appended.and_then(|()| append(&mut log, *handle, rows, some, &output)).err();
                }
                appending += begun.elapsed();
                Ok(())
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
            report.forward_seconds += (forward.elapsed() - appending).as_secs_f64();
            report.run_rows += rows.len() as u64;
            measured.batch(timings);
        }
        at = end;
        progress(Progress { done_rows: at - range.start, total_rows, max_bytes });
        // At multiples of 1,024 rows RowBlocks are full, so that checkpoints leave no short ones.
        // A model that takes long for so many is committed in between all the same.
        let whole = (at - range.start).is_multiple_of(1024);
        let due = options.checkpoint * if whole { 1 } else { 4 };
        if committed.elapsed() >= due && at < range.end && !replaces {
            log.commit()?;
            committed = Instant::now();
        }
    }
    log_labels(&mut log, model, network, dataset, range)?;
    log.complete(model)?;
    report.log = log.commit()?;
    drop(log);
    if let Some(gather) = gather {
        let records = store.intermediates(&store.model(key)?)?;
        report.indexed = gather.finish(store, &records)?;
    }
    if report.run_rows > 0 {
        let subject = cost::model_subject(&spec.description, &options.device.to_string());
        store.add_cost(cost::PREPARE, &subject, load_seconds)?;
        measured.keep(store, network, &subject, &hex(&dataset.fingerprint()))?;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Name of the table that holds each row's label, so that a store says itself what was true.
const LABELS: &str = "label";

/// Logs the dataset's labels as a table: `index`, and `name` where the classes have names. A layer that has taken the
/// table's name keeps it.
fn log_labels(
    log: &mut Logger,
    model: ModelHandle,
    network: &Network,
    dataset: &dyn Dataset,
    range: std::ops::Range<u64>,
) -> Result<(), WorkflowError> {
    let Some(labels) = dataset.labels() else { return Ok(()) };
    if network.layer_index(LABELS).is_ok() {
        return Ok(());
    }
    let names = dataset.class_names();
    let mut fields = vec![Field::new("index", DataType::UInt32, true)];
    fields.extend(names.map(|_| Field::new("name", DataType::Utf8, true)));
    let schema = Arc::new(Schema::new(fields));
    let handle = log.table(model, LABELS, network.layers().len() as i64, &schema)?;
    let rows = log.missing(handle, &range.collect::<Vec<_>>())?;
    if rows.is_empty() {
        return Ok(());
    }
    let label = |row: &u64| labels.get(*row as usize).copied();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(rows.iter().map(label).collect::<UInt32Array>())];
    if let Some(names) = names {
        let name = |row: &u64| label(row).and_then(|l| names.get(l as usize)).map(String::as_str);
        columns.push(Arc::new(rows.iter().map(name).collect::<StringArray>()));
    }
    let batch = RecordBatch::try_new(schema, columns).map_err(EngineError::from)?;
    Ok(log.append_table(handle, &rows, &batch)?)
}

/// Logs the rows of `output` that are in `missing`, which ascends as `rows` do; all of them are handed over without a copy.
fn append(
    log: &mut Logger,
    handle: Handle,
    rows: &[u64],
    missing: &[u64],
    output: &Tensor,
) -> Result<(), WorkflowError> {
    let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let some = &missing[missing.partition_point(|r| *r < first)..missing.partition_point(|r| *r <= last)];
    if some.len() == rows.len() {
        log.append(handle, rows, CandleSource::new(output)?)?;
        return Ok(());
    }
    let picks: Vec<u32> = some.iter().map(|r| (r - first) as u32).collect();
    let picks = Tensor::new(picks, &CandleDevice::Cpu)?;
    log.append(handle, some, CandleSource::new(&output.index_select(&picks, 0)?)?)?;
    Ok(())
}

/// What a run measured, for plans. The log's own threads disturb it, so that the shortest of equal batches counts.
#[derive(Default)]
struct Measured {
    by_rows: HashMap<usize, Vec<f64>>,
    input: (usize, Duration),
}

impl Measured {
    fn input(&mut self, n_rows: usize, took: Duration) {
        self.input = (self.input.0 + n_rows, self.input.1 + took);
    }

    fn batch(&mut self, timings: Timings) {
        let shortest = self.by_rows.entry(timings.n_rows).or_insert_with(|| timings.seconds.clone());
        shortest.iter_mut().zip(&timings.seconds).for_each(|(a, b)| *a = a.min(*b));
    }

    fn keep(&self, store: &Store, network: &Network, subject: &str, dataset: &str) -> Result<(), WorkflowError> {
        store.add_cost(cost::INPUT, dataset, self.input.1.as_secs_f64() / self.input.0.max(1) as f64)?;
        for (n_rows, seconds) in &self.by_rows {
            for (layer, seconds) in network.layers().iter().zip(seconds).filter(|(_, s)| **s > 0.0) {
                store.add_stage_cost(subject, layer.name(), *n_rows as u64, *seconds)?;
            }
        }
        Ok(())
    }
}

/// Logs named tensors from a training loop of one's own.
///
/// ```no_run
/// # use mistique_engine::{LogOptions, ModelKey, Store};
/// # use mistique_workflow::TrainingLogger;
/// # fn step() -> (Vec<u64>, candle_core::Tensor) { unimplemented!() }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::open_or_create("store.mq")?;
/// for epoch in 0..3 {
///     let version = ModelKey::new("mnist", "mlp").at(format!("epoch-{epoch}"));
///     let mut log = TrainingLogger::new(&store, &version, LogOptions::default())?;
///     for _batch in 0..10 {
///         let (row_ids, hidden) = step();
///         log.log(&row_ids, "hidden", &hidden)?;
///     }
///     log.finish()?;
/// }
/// # Ok(()) }
/// ```
pub struct TrainingLogger {
    log: Logger,
    model: ModelHandle,
    handles: HashMap<String, Handle>,
    scheme: Option<Scheme>,
}

impl TrainingLogger {
    /// A log of the model `key`, whose values are all that the store will know of it.
    ///
    /// Errors: `Engine` with `Locked` or `Conflict`.
    pub fn new(store: &Store, key: &ModelKey, options: LogOptions) -> Result<Self, WorkflowError> {
        let mut log = store.logger(options)?;
        let model = log.model(&ModelSpec::raw(key.clone()), IfExists::Continue)?;
        log.incomplete(model)?;
        Ok(Self { log, model, handles: HashMap::new(), scheme: None })
    }

    /// The same with all tensors under `scheme`.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// Logs the rows of a tensor; its first axis counts `rows`. Returns when the tensor is queued, without a copy where
    /// it is contiguous on the CPU.
    ///
    /// Errors: `Rows`; `Engine` with `Shape` when a later batch has another shape, `DuplicateRow`.
    pub fn log(&mut self, rows: &[u64], name: &str, tensor: &Tensor) -> Result<(), WorkflowError> {
        let (n, shape) = match tensor.dims() {
            [n, shape @ ..] => (*n, shape.to_vec()),
            [] => (0, vec![]),
        };
        if n != rows.len() || tensor.dims().is_empty() {
            return Err(WorkflowError::Rows { name: name.into(), rows: rows.len(), shape: tensor.dims().to_vec() });
        }
        let handle = match self.handles.get(name) {
            Some(handle) => *handle,
            None => {
                let mut spec = TensorSpec::new(name, &shape).at(self.handles.len() as i64);
                spec.dtype = match tensor.dtype() {
                    DType::F16 => mistique_engine::Code::F16,
                    DType::BF16 => mistique_engine::Code::BF16,
                    DType::F64 => mistique_engine::Code::F64,
                    _ => mistique_engine::Code::F32,
                };
                spec.scheme.clone_from(&self.scheme);
                let handle = self.log.tensor(self.model, &spec)?;
                self.handles.insert(name.to_string(), handle);
                handle
            }
        };
        self.log.append(handle, rows, CandleSource::new(tensor)?)?;
        Ok(())
    }

    /// Makes everything so far durable and visible.
    ///
    /// Errors: `Engine` with `LogFailed`.
    pub fn commit(&mut self) -> Result<LogReport, WorkflowError> {
        Ok(self.log.commit()?)
    }

    /// Commits, and says that the model's log is finished.
    ///
    /// Errors: as [`TrainingLogger::commit`].
    pub fn finish(mut self) -> Result<LogReport, WorkflowError> {
        self.log.complete(self.model)?;
        self.commit()
    }
}
