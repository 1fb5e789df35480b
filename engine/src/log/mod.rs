//! Logging: `append` hands a batch over and returns; a thread pools, quantizes, hashes, compresses and writes; `commit`
//! makes everything before it durable and visible in one step.

mod advice;
mod bases;
mod budget;
mod columns;
mod fill;
mod growing;
mod habits;
mod options;
mod seen;
mod slabs;
mod source;
mod stages;
mod table;
mod tensor;
mod whole;
mod worker;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

pub(crate) use fill::is_divisible;
pub use options::{Dedup, IfExists, LogOptions, TensorSpec};
pub use source::{TensorSource, Values};
pub(crate) use worker::step_back;
pub use writer::LogReport;
pub(crate) use writer::pays;

use budget::Budget;
use fill::FillJob;
use worker::{Begin, Job, Worker};
use writer::ChunkWriter;

use crate::catalog::{Catalog, IntermediateProgress, NewIntermediate, NewModel};
use crate::column::stored_schema;
use crate::error::{EngineError, Result};
use crate::format::{MAX_ROW_VALUES, TABLE_BLOCK_ROWS};
use crate::key::{IntermediateKey, ModelKey};
use crate::materialize::Materialize;
use crate::model::{
    Content, DatasetSpec, Fingerprint, IntermediateRecord, ModelKind, ModelRecord, ModelSpec, TableContent, hex,
};
use crate::rerun::RerunValues;
use crate::rows::RowMask;
use crate::storage::Storage;

/// A model that a log writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelHandle(i64);

/// An intermediate that a log writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(i64);

struct Open {
    key: IntermediateKey,
    content: Content,
    logged: RowMask,
    /// Given when all rows are there: more are refused.
    stage: Option<Fingerprint>,
    /// Whether only its rows are kept.
    withheld: bool,
}

/// A running log. Dropping it without [`Logger::commit`] leaves what was committed before, and nothing else.
pub struct Logger {
    storage: Arc<dyn Storage>,
    catalog: Catalog,
    budget: Arc<Budget>,
    failed: Arc<OnceLock<Arc<EngineError>>>,
    /// Whether a commit is being waited for.
    awaited: Arc<AtomicBool>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    next_model: i64,
    next_intermediate: i64,
    models: HashMap<i64, (ModelSpec, bool)>,
    open: HashMap<i64, Open>,
    datasets: HashMap<String, DatasetSpec>,
    replaced: HashSet<i64>,
    replaced_models: HashSet<i64>,
    /// Models that this log has not come to yet, and will replace.
    to_replace: HashSet<i64>,
    /// Intermediates of this log by what computed them.
    stages: HashMap<Fingerprint, i64>,
    linked: HashMap<IntermediateKey, Option<Fingerprint>>,
    options: LogOptions,
    materialize: Materialize,
    _lock: Arc<dyn Send + Sync>,
}

impl Logger {
    pub(crate) fn begin(storage: Arc<dyn Storage>, lock: Arc<dyn Send + Sync>, options: LogOptions) -> Result<Self> {
        let catalog = Catalog::open(&*storage, true)?;
        let materialize = Materialize::of(&catalog)?;
        let (next_model, next_intermediate, ..) = catalog.next_ids()?;
        let budget = Arc::new(Budget::new(options.budget_bytes));
        let failed = Arc::new(OnceLock::new());
        let awaited = Arc::new(AtomicBool::new(false));
        let writer = ChunkWriter::new(Arc::clone(&storage), &options)?;
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let worker = Worker::new(
            Arc::clone(&storage),
            writer,
            Arc::clone(&budget),
            Arc::clone(&failed),
            Arc::clone(&awaited),
            options.on_unholdable,
            n_threads,
        )?;
        let (jobs, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("mistique-log".into())
            .spawn(move || worker.run(&receiver))
            .map_err(|e| EngineError::io("log", "start a thread", e))?;
        Ok(Self {
            storage,
            catalog,
            budget,
            failed,
            awaited,
            jobs: Some(jobs),
            thread: Some(thread),
            next_model,
            next_intermediate,
            models: HashMap::new(),
            open: HashMap::new(),
            datasets: HashMap::new(),
            replaced: HashSet::new(),
            replaced_models: HashSet::new(),
            to_replace: HashSet::new(),
            stages: HashMap::new(),
            linked: HashMap::new(),
            options,
            materialize,
            _lock: lock,
        })
    }

    fn send(&self, job: Job) -> Result<()> {
        if let Some(e) = self.failed.get() {
            return Err(EngineError::LogFailed(Arc::clone(e)));
        }
        match &self.jobs {
            Some(jobs) if jobs.send(job).is_ok() => Ok(()),
            _ => Err(EngineError::io("log", "hand over a batch", std::io::Error::other("the log's thread has ended"))),
        }
    }

    /// Checks that `bytes` more will fit on the disk and under `max_bytes`.
    ///
    /// Errors: `NoSpace`.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        if let Some(max) = self.options.max_bytes.filter(|m| bytes > *m) {
            return Err(no_space(bytes, max, "allowed by --max-bytes"));
        }
        match self.storage.free_bytes()? {
            Some(free) if bytes > free => Err(no_space(bytes, free, "free on the disk")),
            _ => Ok(()),
        }
    }

    /// Says that this log will come to replace these models: they do not keep the name of their dataset from new content.
    ///
    /// Errors: `Catalog`.
    pub fn will_replace<'a>(&mut self, keys: impl IntoIterator<Item = &'a ModelKey>) -> Result<()> {
        for key in keys {
            self.to_replace.extend(self.catalog.model_exact(key)?.map(|m| m.id));
        }
        Ok(())
    }

    /// The model to log under. One that exists goes on when description, weights and dataset are the same (by content: where
    /// it lies now is kept); an unfinished
    /// pipeline goes on with another description and dataset too, since its stages say what gave them: who goes on takes
    /// care of those that are of other stages ([`Logger::replace`]).
    ///
    /// Errors: `Conflict` for other content under a used key (another version or [`IfExists::Replace`] resolves it),
    /// `Invalid` for an empty name.
    pub fn model(&mut self, spec: &ModelSpec, if_exists: IfExists) -> Result<ModelHandle> {
        spec.key.check()?;
        if let Some((&id, (open, _))) = self.models.iter().find(|(_, (open, _))| open.key == spec.key) {
            check_same(open, spec)?;
            return Ok(ModelHandle(id));
        }
        let existing = self.catalog.model_exact(&spec.key)?;
        let replaced = existing.as_ref().filter(|_| if_exists == IfExists::Replace).map(|m| m.id);
        if let Some(dataset) = &spec.dataset {
            let unbound = existing.as_ref().filter(|m| goes_on(m, spec)).map(|m| m.id);
            let stays = existing.is_some() && replaced.or(unbound).is_none();
            self.check_dataset(&spec.key, dataset, replaced.or(unbound), stays)?;
        }
        match (existing, replaced) {
            (Some(existing), None) => {
                match check_same(&existing.spec, spec) {
                    Err(_) if goes_on(&existing, spec) => {
                        self.send(Job::Redescribe(NewModel { id: existing.id, spec: spec.clone() }))?;
                    }
                    Ok(()) if existing.spec.dataset != spec.dataset => {
                        self.send(Job::Rebind(NewModel { id: existing.id, spec: spec.clone() }))?;
                    }
                    same => same?,
                }
                self.models.insert(existing.id, (spec.clone(), false));
                return Ok(ModelHandle(existing.id));
            }
            (_, Some(id)) => {
                self.send(Job::Replace(id))?;
                self.replaced_models.insert(id);
            }
            (None, None) => {}
        }
        let id = self.next_model;
        self.next_model += 1;
        self.send(Job::Model(NewModel { id, spec: spec.clone() }))?;
        self.models.insert(id, (spec.clone(), true));
        Ok(ModelHandle(id))
    }

    /// A dataset's name means one content, unless only models being replaced, or none, still use it. `stays`: the model of
    /// this key is one of those that keep the name.
    fn check_dataset(
        &mut self,
        key: &ModelKey,
        dataset: &DatasetSpec,
        replaced: Option<i64>,
        stays: bool,
    ) -> Result<()> {
        let known = match self.datasets.get(&dataset.name) {
            Some(d) => Some(d.clone()),
            None => {
                let goes = |id: &i64| Some(*id) == replaced || self.to_replace.contains(id);
                let users = self.catalog.dataset_users(&dataset.name)?;
                let known = self.catalog.dataset(&dataset.name)?.map(|(_, d)| d);
                let is_other = known.as_ref().is_some_and(|k| k.fingerprint != dataset.fingerprint);
                if is_other && users.iter().all(goes) {
                    // Until they are replaced, they are no models of the new content.
                    self.send(Job::Unbind(users.iter().copied().filter(|id| Some(*id) != replaced).collect()))?;
                }
                known.filter(|_| users.iter().any(|id| !goes(id)))
            }
        };
        if let Some(known) = known.filter(|k| k.fingerprint != dataset.fingerprint) {
            return Err(EngineError::Conflict {
                key: format!("dataset {} of {key}", dataset.name),
                what: "content",
                logged: hex(&known.fingerprint),
                given: hex(&dataset.fingerprint),
                advice: if stays { advice::REPLACED_DATASET } else { advice::OTHER_DATASET },
            });
        }
        self.datasets.insert(dataset.name.clone(), dataset.clone());
        Ok(())
    }

    /// Stores an operator's bytes once per content and returns their hash. No `gc` can run between it and the commit of
    /// the model that names it.
    ///
    /// Errors: `Io`, `Catalog`.
    pub fn put_operator(&mut self, bytes: &[u8], kind: &str) -> Result<Fingerprint> {
        crate::store::write_operator(&*self.storage, &mut self.catalog, bytes, kind)
    }

    fn key_of(&self, model: ModelHandle, name: &str) -> Result<(IntermediateKey, bool)> {
        let Some((ModelSpec { key, .. }, is_new)) = self.models.get(&model.0) else {
            return Err(EngineError::NotFound { what: "model of this log", name: name.into(), nearest: vec![] });
        };
        if name.is_empty() {
            let why = "the intermediate's name is empty".into();
            return Err(EngineError::Invalid { what: "key", given: key.to_string(), why });
        }
        Ok((key.intermediate(name), *is_new))
    }

    /// Replaces one intermediate of `model`: what was logged of it goes with the next commit, its siblings stay.
    ///
    /// Errors: `NotFound` for another log's handle, `Catalog`.
    pub fn replace(&mut self, model: ModelHandle, name: &str) -> Result<()> {
        let (key, is_new) = self.key_of(model, name)?;
        let records = if is_new { Vec::new() } else { self.catalog.intermediates(Some(model.0))? };
        if let Some(old) = records.iter().find(|i| i.key == key) {
            self.send(Job::ReplaceIntermediate(old.id))?;
            self.replaced.insert(old.id);
        }
        Ok(())
    }

    /// A tensor intermediate of `model`; one that exists goes on when shape, type and scheme are the same.
    ///
    /// Errors: `Shape` or `Conflict` when it was logged otherwise; `Quantize` when the scheme does not fit.
    pub fn tensor(&mut self, model: ModelHandle, spec: &TensorSpec) -> Result<Handle> {
        let n_values = spec.shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
        if !n_values.is_some_and(|n| (1..=MAX_ROW_VALUES).contains(&n)) {
            return Err(EngineError::Shape {
                key: self.key_of(model, &spec.name)?.0.to_string(),
                what: "values in a row",
                expected: format!("1 to {MAX_ROW_VALUES}"),
                got: format!("{:?}", spec.shape),
            });
        }
        let content = Content::Tensor(spec.content());
        self.intermediate(model, &spec.name, spec.position, content, |existing, given| match (existing, given) {
            (Content::Tensor(a), Content::Tensor(b)) if a.shape != b.shape => {
                Some(("shape", format!("{:?}", a.shape), format!("{:?}", b.shape)))
            }
            (Content::Tensor(a), Content::Tensor(b)) if a.dtype != b.dtype => {
                Some(("type", format!("{:?}", a.dtype), format!("{:?}", b.dtype)))
            }
            (Content::Tensor(a), Content::Tensor(b)) => {
                // `auto` goes on with what it chose; no scheme given goes on with what there is.
                let same = spec.scheme.is_none() || b.scheme.is_auto().is_some() || a.scheme == b.scheme;
                (!same).then(|| ("scheme", a.scheme.to_string(), b.scheme.to_string()))
            }
            _ => Some(("kind", "table".into(), "tensor".into())),
        })
    }

    /// A table intermediate of `model`; one that exists goes on when the columns are the same.
    ///
    /// Errors: `Conflict` when it was logged otherwise; `Unsupported` for a column type that tables cannot hold.
    pub fn table(&mut self, model: ModelHandle, name: &str, position: i64, schema: &SchemaRef) -> Result<Handle> {
        let content = Content::Table(TableContent { schema: stored_schema(schema)?, block_rows: TABLE_BLOCK_ROWS });
        self.intermediate(model, name, position, content, |existing, given| match (existing, given) {
            (Content::Table(a), Content::Table(b)) => {
                let text = |t: &TableContent| {
                    let fields = t.schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type()));
                    fields.collect::<Vec<_>>().join(", ")
                };
                (text(a) != text(b)).then(|| ("schema", text(a), text(b)))
            }
            _ => Some(("kind", "tensor".into(), "table".into())),
        })
    }

    fn intermediate(
        &mut self,
        model: ModelHandle,
        name: &str,
        position: i64,
        content: Content,
        differs: impl Fn(&Content, &Content) -> Option<(&'static str, String, String)>,
    ) -> Result<Handle> {
        let (key, model_is_new) = self.key_of(model, name)?;
        let conflict = |(what, logged, given)| EngineError::Conflict {
            key: key.to_string(),
            what,
            logged,
            given,
            advice: advice::NEW_VERSION,
        };
        if let Some((&id, open)) = self.open.iter().find(|(_, o)| o.key == key) {
            return differs(&open.content, &content).map_or(Ok(Handle(id)), |d| Err(conflict(d)));
        }
        if self.linked.contains_key(&key) {
            return Err(conflict(("set of rows", "those of another intermediate".into(), "rows of its own".into())));
        }
        let existing = self.stored(model, model_is_new, &key)?;
        let mut stage = None;
        let (id, is_new, content, logged, progress) = match existing {
            Some(existing) => {
                if let Some(d) = differs(&existing.content, &content) {
                    return Err(conflict(d));
                }
                stage = existing.stage;
                let logged = self.logged_rows(&existing)?;
                let errors = self.catalog.errors(existing.id)?;
                let progress = errors.map_or_else(IntermediateProgress::default, |e| IntermediateProgress {
                    errors: Some(e.units),
                    measured_rows: e.measured_rows,
                    clamped: e.clamped,
                    ..IntermediateProgress::default()
                });
                (existing.id, false, (*existing.content).clone(), logged, progress)
            }
            None => {
                self.next_intermediate += 1;
                (self.next_intermediate - 1, true, content, RowMask::default(), IntermediateProgress::default())
            }
        };
        let record =
            NewIntermediate { id, model_id: model.0, name: name.to_string(), position, content: content.clone() };
        let withheld = self.withholds_of(model, &content);
        self.send(Job::Intermediate(Box::new(Begin { key: key.clone(), record, is_new, withheld, progress })))?;
        self.open.insert(id, Open { key, content, logged, stage, withheld });
        Ok(Handle(id))
    }

    /// The intermediate of that key in the catalogue, unless this log replaces it.
    fn stored(&self, model: ModelHandle, is_new: bool, key: &IntermediateKey) -> Result<Option<IntermediateRecord>> {
        let records = if is_new { Vec::new() } else { self.catalog.intermediates(Some(model.0))? };
        Ok(records.into_iter().find(|i| i.key == *key && !self.replaced.contains(&i.id)))
    }

    fn logged_rows(&self, record: &IntermediateRecord) -> Result<RowMask> {
        let mut mask = RowMask::default();
        for block in self.catalog.blocks(record, 0, u64::MAX)? {
            mask.extend(&block.rows);
        }
        Ok(mask)
    }

    fn opened(&self, handle: Handle) -> Result<&Open> {
        self.open.get(&handle.0).ok_or_else(|| EngineError::NotFound {
            what: "intermediate of this log",
            name: format!("{handle:?}"),
            nearest: vec![],
        })
    }

    /// Which of `rows` the intermediate does not hold yet, in order.
    ///
    /// Errors: `NotFound` for another log's handle.
    pub fn missing(&self, handle: Handle, rows: &[u64]) -> Result<Vec<u64>> {
        let open = self.opened(handle)?;
        Ok(rows.iter().copied().filter(|r| !open.logged.contains(*r)).collect())
    }

    /// Whether values of new rows are withheld: the store does not materialize everything, and the model can be rerun.
    fn withholds_of(&self, model: ModelHandle, content: &Content) -> bool {
        let can_rerun = self.models.get(&model.0).is_some_and(|(spec, _)| spec.kind.gives(content));
        can_rerun && self.materialize != Materialize::All
    }

    /// Most bytes that `n_rows` more rows of a tensor can take in the store, under the scheme that it has: that of the rows
    /// logged before, where there are some.
    ///
    /// Errors: `NotFound` for another log's handle; `Unsupported` for a table.
    pub fn max_bytes(&self, handle: Handle, n_rows: u64) -> Result<u64> {
        let open = self.opened(handle)?;
        match &open.content {
            Content::Tensor(tensor) => Ok(tensor.max_bytes(n_rows)),
            Content::Table(_) => {
                Err(EngineError::Unsupported { what: open.key.to_string(), why: "its rows have no fixed size".into() })
            }
        }
    }

    /// Whether only the row_ids of an intermediate are kept, its values to be rerun (see [`Materialize`]).
    ///
    /// Errors: `NotFound` for another log's handle.
    pub fn withholds(&self, handle: Handle) -> Result<bool> {
        Ok(self.opened(handle)?.withheld)
    }

    /// Logs rows of an intermediate that [`Logger::withholds`] without their values. Its first rows must come with
    /// values: they settle the scheme.
    ///
    /// Errors: `Unsupported` where values are not withheld; `DuplicateRow`, `LogFailed`.
    pub fn append_rows(&mut self, handle: Handle, rows: &[u64]) -> Result<()> {
        let open = self.opened(handle)?;
        if !open.withheld {
            let why = "its values are stored; append them".to_string();
            return Err(EngineError::Unsupported { what: open.key.to_string(), why });
        }
        self.claim(handle, rows)?;
        self.send(Job::Rows { id: handle.0, rows: rows.to_vec() })
    }

    /// Gives values of all columns at full precision (what a RERUN gave for `rows`) to the RowBlocks of a stored
    /// intermediate that lack the wanted groups and whose rows are all among `rows`: what is stored is what logging
    /// them would have stored. Of a RowBlock that has no values yet, the rows that are here become a RowBlock of their own.
    /// One fill of an intermediate a commit.
    ///
    /// Errors: `LogFailed`.
    pub fn fill(
        &mut self,
        record: &IntermediateRecord,
        groups: Vec<bool>,
        rows: Vec<u64>,
        values: RerunValues,
    ) -> Result<()> {
        self.send(Job::Fill(Box::new(FillJob { record: record.clone(), groups, rows, values })))
    }

    /// Takes the rows, or none of them.
    fn claim(&mut self, handle: Handle, rows: &[u64]) -> Result<()> {
        self.opened(handle)?;
        let Some(open) = self.open.get_mut(&handle.0) else { return Ok(()) };
        if open.stage.is_some() && !rows.is_empty() {
            return Err(EngineError::Unsupported {
                what: format!("more rows of {}", open.key),
                why: "all rows of its stage were logged; log them as another version of the model".into(),
            });
        }
        for (i, &row) in rows.iter().enumerate() {
            let too_large = row > i64::MAX as u64;
            if too_large || !open.logged.insert(row) {
                rows[..i].iter().for_each(|r| open.logged.remove(*r));
                let key = open.key.to_string();
                return Err(match too_large {
                    true => EngineError::Invalid {
                        what: "row_id",
                        given: row.to_string(),
                        why: "row_ids are below 2^63".into(),
                    },
                    false => EngineError::DuplicateRow { key, row },
                });
            }
        }
        Ok(())
    }

    /// Logs the values of `rows` (row-major, one shape a row). Returns when the batch is queued; waits while the byte
    /// budget is used up.
    ///
    /// Errors: `Shape` when the values are not `rows` times the row's shape or of another type, `DuplicateRow`,
    /// `LogFailed` when an earlier batch failed.
    pub fn append(&mut self, handle: Handle, rows: &[u64], values: impl TensorSource + 'static) -> Result<()> {
        self.append_boxed(handle, rows, Box::new(values))
    }

    /// As [`Logger::append`].
    ///
    /// Errors: as there.
    pub fn append_boxed(&mut self, handle: Handle, rows: &[u64], values: Box<dyn TensorSource>) -> Result<()> {
        let open = self.opened(handle)?;
        let Content::Tensor(content) = &open.content else {
            return Err(EngineError::Unsupported {
                what: open.key.to_string(),
                why: "it is a table; append a RecordBatch".into(),
            });
        };
        let shape_error = |what, expected: String, got: String| {
            Err(EngineError::Shape { key: open.key.to_string(), what, expected, got })
        };
        if values.dtype() != content.dtype {
            return shape_error("type of the values", format!("{:?}", content.dtype), format!("{:?}", values.dtype()));
        }
        let n_values = content.layout.row_values() * rows.len();
        if values.len() != n_values {
            let expected = format!("{n_values} ({} rows of {:?})", rows.len(), content.shape);
            return shape_error("number of values", expected, values.len().to_string());
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.claim(handle, rows)?;
        let bytes = values.len() * values.dtype().width();
        self.budget.take(bytes);
        self.send(Job::Tensor { id: handle.0, rows: rows.to_vec(), source: values, bytes })
    }

    /// Logs rows of a table.
    ///
    /// Errors: `Shape` when the columns differ or their length is not that of `rows`; otherwise as [`Logger::append`].
    pub fn append_table(&mut self, handle: Handle, rows: &[u64], batch: &RecordBatch) -> Result<()> {
        let open = self.opened(handle)?;
        let Content::Table(content) = &open.content else {
            return Err(EngineError::Unsupported {
                what: open.key.to_string(),
                why: "it is a tensor, not a table".into(),
            });
        };
        if batch.num_rows() != rows.len() {
            return Err(EngineError::Shape {
                key: open.key.to_string(),
                what: "rows",
                expected: rows.len().to_string(),
                got: batch.num_rows().to_string(),
            });
        }
        let batch = table::conform(&open.key, &content.schema, batch)?;
        self.claim(handle, rows)?;
        let bytes = batch.get_array_memory_size();
        self.budget.take(bytes);
        self.send(Job::Table { id: handle.0, rows: rows.to_vec(), batch, bytes })
    }

    /// One batch of batches that were appended in this order, each to its end a RowBlock: what of its columns is given to
    /// this log again is known, and not looked at.
    ///
    /// Errors: `Arrow` for batches of different columns, `LogFailed`.
    pub fn join(&mut self, parts: Vec<RecordBatch>) -> Result<RecordBatch> {
        let schema = parts.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let whole = concat_batches(&schema, &parts)?;
        self.send(Job::Joined { parts, whole: whole.clone() })?;
        Ok(whole)
    }

    /// Says, with the next commit, that the model's log is finished.
    ///
    /// Errors: `LogFailed`.
    pub fn complete(&mut self, model: ModelHandle) -> Result<()> {
        self.send(Job::Complete(model.0, true))
    }

    /// Says, with the next commit, that the model's log is going on, so that an interruption shows.
    ///
    /// Errors: `LogFailed`.
    pub fn incomplete(&mut self, model: ModelHandle) -> Result<()> {
        self.send(Job::Complete(model.0, false))
    }

    /// Waits until everything before it is durable, makes it visible in one step, and returns what was written since
    /// the log began.
    ///
    /// Errors: `LogFailed`; then nothing since the last commit is stored.
    pub fn commit(&mut self) -> Result<LogReport> {
        let (reply, answer) = sync_channel(1);
        self.awaited.store(true, Ordering::Relaxed);
        self.send(Job::Commit(reply))?;
        let report = answer.recv().unwrap_or_else(|_| {
            Err(EngineError::io("log", "commit", std::io::Error::other("the log's thread has ended")))
        })?;
        for (_, is_new) in self.models.values_mut() {
            *is_new = false;
        }
        self.linked.clear();
        Ok(report)
    }
}

/// Whether an unfinished pipeline goes on under another description or dataset.
fn goes_on(existing: &ModelRecord, spec: &ModelSpec) -> bool {
    let pipeline = ModelKind::Pipeline;
    !existing.complete && existing.spec.kind == pipeline && spec.kind == pipeline
}

fn no_space(needed: u64, available: u64, limit: &'static str) -> EngineError {
    EngineError::NoSpace { needed, available, limit, advice: advice::TAKE_LESS }
}

fn check_same(logged: &ModelSpec, given: &ModelSpec) -> Result<()> {
    let text = |hash: Option<[u8; 16]>| hash.map_or("none".to_string(), |h| hex(&h));
    let describe = |s: &ModelSpec| {
        if s.description.is_empty() { "none".into() } else { hex(&crate::model::fingerprint(s.description.as_bytes())) }
    };
    // By content: under another name, or in another place, it is the same dataset.
    let dataset = |s: &ModelSpec| s.dataset.as_ref().map_or("none".into(), |d| hex(&d.fingerprint));
    let pairs = [
        ("kind", logged.kind.name().to_string(), given.kind.name().to_string()),
        ("description", describe(logged), describe(given)),
        ("set of weights", text(logged.weights), text(given.weights)),
        ("dataset", dataset(logged), dataset(given)),
    ];
    match pairs.into_iter().find(|(_, a, b)| a != b) {
        None => Ok(()),
        Some((what, logged_text, given_text)) => {
            let key = given.key.to_string();
            let advice = match given.kind {
                ModelKind::Pipeline => advice::PIPELINE,
                ModelKind::Raw if logged.kind != given.kind => advice::APPENDED,
                ModelKind::Raw | ModelKind::Network => advice::NEW_VERSION,
            };
            Err(EngineError::Conflict { key, what, logged: logged_text, given: given_text, advice })
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread panicked");
        }
    }
}
