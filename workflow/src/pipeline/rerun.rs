//! RERUN of pipelines: any stage again without learning, from the files or from stored ancestors.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::UInt32Array;
use mistique_datasets::TableFile;
use mistique_engine::{
    EngineError, Given, ModelKind, ModelRecord, Rerun, RerunValues, Result, Rows, StageNode, StageRecord, Store,
    Verifier, cost, hex,
};
use serde_json::Value;

use super::check::{Plan, ReadFrom};
use super::data::Data;
use super::described::Pipeline;
use super::error::PipelineError;
use super::log::DEVICE;
use super::operator::{Input, Learnt};
use super::table::Table;

/// Values from which on picking them tells a rate.
const RATE_VALUES: usize = 4096;

/// Version of the catalogue; why what a stage learnt cannot be used, by the stage.
type Gone = ((i64, u64), Arc<HashMap<usize, String>>);

struct Loaded {
    plan: Plan,
    records: Vec<StageRecord>,
    graph: Arc<Vec<StageNode>>,
    /// Stage and output of each node.
    nodes: Vec<(usize, usize)>,
}

/// Runs the pipelines of a store again.
pub struct PipelineRerun<'a> {
    store: &'a Store,
    loaded: Mutex<HashMap<i64, Arc<Loaded>>>,
    data: Mutex<HashMap<String, Arc<Data>>>,
    /// By model, which of its stages' operators are gone, and the version of the catalogue that said so.
    gone: Mutex<HashMap<i64, Gone>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(model: &ModelRecord, why: impl ToString) -> EngineError {
    EngineError::Rerun { key: model.spec.key.to_string(), why: why.to_string() }
}

/// The reason alone.
fn why(e: EngineError) -> String {
    match e {
        EngineError::Rerun { why, .. } => why,
        other => other.to_string(),
    }
}

impl<'a> PipelineRerun<'a> {
    /// Runs what `store` holds.
    pub fn new(store: &'a Store) -> Self {
        Self { store, loaded: Mutex::default(), data: Mutex::default(), gone: Mutex::default() }
    }

    fn load(&self, model: &ModelRecord) -> Result<Arc<Loaded>> {
        if let Some(loaded) = lock(&self.loaded).get(&model.id) {
            return Ok(Arc::clone(loaded));
        }
        let what = format!("the description of {}", model.spec.key);
        let pipeline = Pipeline::from_description(&what, &model.spec.description).map_err(|e| refuse(model, e))?;
        let records = self.store.catalog().stages(model.id)?;
        let unfit = "its stages were not all logged; run `mistique log` on its file again";
        let plan = Plan::of_records(pipeline, &records).ok_or_else(|| refuse(model, unfit))?;
        let nodes: Vec<(usize, usize)> =
            plan.stages.iter().enumerate().flat_map(|(s, p)| (0..p.outputs.len()).map(move |o| (s, o))).collect();
        let node = |&(index, output): &(usize, usize)| {
            let stage = plan.stages.get(index)?;
            let inputs = stage.inputs.iter().filter_map(|from| match *from {
                ReadFrom::Table { stage, output } => nodes.iter().position(|n| *n == (stage, output)),
                ReadFrom::Learnt { .. } => None,
            });
            let takes_dataset = plan.pipeline.stages().get(index)?.operator.file().is_some();
            let name = stage.outputs.get(output)?.0.clone();
            Some(StageNode { name, inputs: inputs.collect(), takes_dataset, whole: true })
        };
        let graph = Arc::new(nodes.iter().filter_map(node).collect());
        let loaded = Arc::new(Loaded { plan, records, graph, nodes });
        lock(&self.loaded).insert(model.id, Arc::clone(&loaded));
        Ok(loaded)
    }

    fn data(&self, model: &ModelRecord) -> Result<Arc<Data>> {
        let dataset = model.spec.dataset.as_ref().ok_or_else(|| refuse(model, "it names no dataset"))?;
        if let Some(data) = lock(&self.data).get(&dataset.source) {
            return Ok(Arc::clone(data));
        }
        let data = Data::open(&dataset.source).map_err(|e| refuse(model, format!("dataset {}: {e}", dataset.name)))?;
        let data = Arc::new(data);
        lock(&self.data).insert(dataset.source.clone(), Arc::clone(&data));
        Ok(data)
    }

    /// Refuses a file whose content is not what was logged.
    fn check_file(&self, model: &ModelRecord, data: &Data, record: &StageRecord, file: &str) -> Result<()> {
        let description: Value = serde_json::from_str(&record.description).unwrap_or_default();
        let logged = description.get("input").and_then(|i| i.get("fingerprint")).and_then(Value::as_str);
        let found = data.fingerprint(file).map_err(|e| refuse(model, e))?;
        match logged {
            Some(logged) if logged == hex(&found) => Ok(()),
            _ => Err(refuse(
                model,
                format!(
                    "{file} of {} has changed: its fingerprint is {}, logged was {}",
                    data.set().source(),
                    hex(&found),
                    logged.unwrap_or("none")
                ),
            )),
        }
    }

    /// Which of what its stages learnt is gone; looked up once for each version of the catalogue.
    fn gone(&self, model: &ModelRecord, loaded: &Loaded) -> Result<Arc<HashMap<usize, String>>> {
        let version = self.store.catalog_version()?;
        if let Some((of, gone)) = lock(&self.gone).get(&model.id)
            && *of == version
        {
            return Ok(Arc::clone(gone));
        }
        let mut gone = HashMap::new();
        for (stage, record) in loaded.records.iter().enumerate() {
            let Some(hash) = record.artifact else { continue };
            if self.store.catalog().operator(&hash)?.is_none() {
                gone.insert(stage, format!("what {} learnt ({}) is no longer in operators/", record.name, hex(&hash)));
            }
        }
        let gone = Arc::new(gone);
        lock(&self.gone).insert(model.id, (version, Arc::clone(&gone)));
        Ok(gone)
    }

    /// Refuses a stage whose operator, or file, is gone, or has other content where `verify` is set.
    fn check_stage(&self, model: &ModelRecord, loaded: &Loaded, stage: usize, verify: bool) -> Result<()> {
        let Some((described, own)) = loaded.plan.pipeline.stages().get(stage).zip(loaded.plan.stages.get(stage)) else {
            return Ok(());
        };
        let inputs = own.inputs.iter().filter_map(|from| match *from {
            ReadFrom::Learnt { stage } => Some(stage),
            ReadFrom::Table { .. } => None,
        });
        for learnt in inputs.chain(own.learns) {
            if let Some(why) = self.gone(model, loaded)?.get(&learnt) {
                return Err(refuse(model, why));
            }
            if verify && loaded.records.get(learnt).is_some_and(|r| r.artifact.is_some()) {
                self.learnt(model, loaded, learnt)?;
            }
        }
        let Some(file) = described.operator.file() else { return Ok(()) };
        let data = self.data(model)?;
        match loaded.records.get(stage) {
            Some(record) if verify => self.check_file(model, &data, record, file),
            _ => Ok(()),
        }
    }

    fn learnt(&self, model: &ModelRecord, loaded: &Loaded, stage: usize) -> Result<Learnt> {
        let hash = loaded.records.get(stage).and_then(|r| r.artifact);
        let hash = hash.ok_or_else(|| refuse(model, "what a stage learnt was not stored"))?;
        let operator = loaded.plan.pipeline.stages().get(stage).map_or("", |s| s.op());
        let name = loaded.records.get(stage).map_or("", |r| r.name.as_str());
        let bytes = self.store.operator(&hash).map_err(|e| refuse(model, format!("what {name} learnt: {e}")))?;
        Ok(Learnt { operator, bytes: bytes.into() })
    }

    /// Row_ids of a given table: of all its rows, or of those asked for.
    fn given(&self, model: &ModelRecord, given: &Given<'_>, rows: &[u64]) -> Result<Table> {
        let RerunValues::Table(batch) = given.values else {
            return Err(refuse(model, format!("{} was given as a tensor", given.intermediate)));
        };
        let record = self.store.intermediate(&model.spec.key.intermediate(given.intermediate))?;
        let ids: Vec<u64> = match batch.num_rows() as u64 == record.n_rows {
            true => self.store.plan_rows(&record, &Rows::All)?.rows.iter().collect(),
            false => rows.to_vec(),
        };
        Table::new(Arc::new(ids), batch.clone()).map_err(|e| refuse(model, e))
    }

    fn run(
        &self,
        model: &ModelRecord,
        loaded: &Loaded,
        wanted: &[(usize, usize)],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<Table>> {
        let plan = &loaded.plan;
        let subject = cost::model_subject(&model.spec.description, DEVICE);
        let mut held: HashMap<(usize, usize), Table> = HashMap::new();
        for given in given {
            let place = plan.intermediate(given.intermediate);
            let place = place.ok_or_else(|| refuse(model, format!("it has no intermediate {}", given.intermediate)))?;
            held.insert(place, self.given(model, given, rows)?);
        }
        let mut needed = BTreeSet::new();
        let mut stack: Vec<usize> = wanted.iter().filter(|w| !held.contains_key(w)).map(|w| w.0).collect();
        while let Some(stage) = stack.pop() {
            if !needed.insert(stage) {
                continue;
            }
            for from in plan.stages.get(stage).map_or(&[][..], |s| &s.inputs) {
                if let ReadFrom::Table { stage, output } = *from
                    && !held.contains_key(&(stage, output))
                {
                    stack.push(stage);
                }
            }
        }
        let no_data = Arc::new(Data::none());
        for stage in needed {
            let Some((described, own)) = plan.pipeline.stages().get(stage).zip(plan.stages.get(stage)) else {
                continue;
            };
            // A run from what is stored may do without the files.
            let data = match described.operator.file() {
                Some(_) => self.data(model)?,
                None => Arc::clone(&no_data),
            };
            let was_held = described.operator.file().is_some_and(|file| data.holds(file));
            let checking = Instant::now();
            if let (Some(file), Some(record)) = (described.operator.file(), loaded.records.get(stage)) {
                self.check_file(model, &data, record, file)?;
            }
            let mut values = Vec::with_capacity(own.inputs.len());
            for from in &own.inputs {
                values.push(match *from {
                    ReadFrom::Learnt { stage } => Input::Learnt(self.learnt(model, loaded, stage)?),
                    ReadFrom::Table { stage, output } => {
                        let table = held.get(&(stage, output)).cloned();
                        Input::Table(table.ok_or_else(|| refuse(model, "a stage was not run"))?)
                    }
                });
            }
            // Reading a file begins with a look at whether it is the one that was logged.
            let begun = if described.operator.file().is_some() { checking } else { Instant::now() };
            let learnt = own.learns.map(|s| self.learnt(model, loaded, s)).transpose()?;
            let ran = plan.run_stage(stage, values, learnt, &data, None).map_err(|e| match e {
                PipelineError::Engine(e) => e,
                other => refuse(model, other),
            })?;
            let seconds = begun.elapsed().as_secs_f64();
            for (name, _) in &own.outputs {
                let kept = match was_held {
                    true => self.store.add_cost(cost::HELD_INPUT, &cost::stage_subject(&subject, name, 1), seconds),
                    false => self.store.add_whole_stage_cost(&subject, name, seconds),
                };
                if let Err(e) = kept {
                    tracing::debug!("the stage's time is not kept: {e}");
                }
            }
            for (output, table) in ran.outcome.tables.into_iter().enumerate() {
                held.entry((stage, output)).or_insert(table);
            }
        }
        let table = |w: &(usize, usize)| held.get(w).cloned().ok_or_else(|| refuse(model, "a stage gave no table"));
        wanted.iter().map(table).collect()
    }
}

/// Whether rows follow each other.
fn is_run(rows: &[u64]) -> bool {
    rows.windows(2).all(|pair| pair.last() == pair.first().map(|row| row + 1).as_ref())
}

/// The rows asked for, in their order.
fn pick(model: &ModelRecord, table: &Table, rows: &[u64]) -> Result<RerunValues> {
    if table.rows().as_slice() == rows {
        return Ok(RerunValues::Table(table.batch().clone()));
    }
    let place = |row: &u64| table.rows().binary_search(row).map(|i| i as u32);
    let places = rows.iter().map(|r| place(r).map_err(|_| refuse(model, format!("a rerun does not give row {r}"))));
    let places = UInt32Array::from(places.collect::<Result<Vec<u32>>>()?);
    let columns = table.batch().columns().iter().map(|c| arrow::compute::take(c, &places, None));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RerunValues::Table(arrow::record_batch::RecordBatch::try_new_with_options(table.schema(), columns, &options)?))
}

impl Rerun for PipelineRerun<'_> {
    fn runs(&self, model: &ModelRecord) -> bool {
        model.spec.kind == ModelKind::Pipeline
    }

    fn device(&self) -> String {
        DEVICE.into()
    }

    fn is_loaded(&self, model: &ModelRecord) -> bool {
        lock(&self.loaded).contains_key(&model.id)
    }

    fn holds_input(&self, model: &ModelRecord, stage: &str) -> bool {
        let (Some(loaded), Some(dataset)) = (lock(&self.loaded).get(&model.id).cloned(), &model.spec.dataset) else {
            return false;
        };
        let data = lock(&self.data).get(&dataset.source).cloned();
        let file =
            loaded.plan.intermediate(stage).and_then(|(s, _)| loaded.plan.pipeline.stages().get(s)?.operator.file());
        file.zip(data).is_some_and(|(file, data)| data.holds(file))
    }

    fn input_bytes(&self, model: &ModelRecord, stages: &[&str], _n_rows: u64, _from_dataset: bool) -> u64 {
        let (Ok(loaded), Ok(data)) = (self.load(model), self.data(model)) else { return 0 };
        let file_of = |name: &&str| {
            let (stage, _) = loaded.plan.intermediate(name)?;
            loaded.plan.pipeline.stages().get(stage)?.operator.file()
        };
        let files = stages.iter().filter_map(file_of).filter(|file| !data.holds(file));
        let bytes = |file: &str| match data.file(file) {
            Ok(TableFile::Path(path)) => std::fs::metadata(path).map_or(0, |m| m.len()),
            _ => 0,
        };
        files.map(bytes).sum()
    }

    fn unavailable(&self, model: &ModelRecord) -> Option<String> {
        self.load(model).err().map(why)
    }

    fn stage_unavailable(&self, model: &ModelRecord, stage: &str, verify: bool) -> Option<String> {
        let check = || {
            let loaded = self.load(model)?;
            let place = loaded.plan.intermediate(stage);
            place.map_or(Ok(()), |(stage, _)| self.check_stage(model, &loaded, stage, verify))
        };
        check().err().map(why)
    }

    fn verifier(&self) -> Verifier {
        Arc::new(|store, model| {
            let anew = PipelineRerun::new(store);
            if !anew.runs(model) {
                return Err("it is no pipeline".into());
            }
            anew.lacks(model, true).map_or(Ok(()), Err)
        })
    }

    fn graph(&self, model: &ModelRecord) -> Result<Arc<Vec<StageNode>>> {
        Ok(Arc::clone(&self.load(model)?.graph))
    }

    fn rerun(
        &self,
        model: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<RerunValues>> {
        let loaded = self.load(model)?;
        let place = |name: &String| {
            let node = loaded.graph.iter().position(|n| n.name == *name);
            let place = node.and_then(|n| loaded.nodes.get(n)).copied();
            place.ok_or_else(|| refuse(model, format!("it has no intermediate {name}")))
        };
        let wanted = intermediates.iter().map(place).collect::<Result<Vec<_>>>()?;
        let tables = self.run(model, &loaded, &wanted, rows, given)?;
        let begun = Instant::now();
        let picked = tables.iter().map(|t| pick(model, t, rows)).collect::<Result<Vec<_>>>()?;
        let columns: usize = tables.iter().filter(|t| t.n_rows() != rows.len()).map(|t| t.batch().num_columns()).sum();
        let seconds = begun.elapsed().as_secs_f64() / (columns * rows.len()).max(1) as f64;
        if columns * rows.len() >= RATE_VALUES
            && let Err(e) = self.store.add_cost(cost::OUTPUT, &cost::picked(DEVICE, !is_run(rows)), seconds)
        {
            tracing::debug!("the time of picking rows is not kept: {e}");
        }
        Ok(picked)
    }
}
