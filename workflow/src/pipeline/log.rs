//! Pipelines run and logged: each stage once, whichever pipelines share it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use mistique_engine::{
    DatasetSpec, Fingerprint, IfExists, LogOptions, LogReport, Logger, ModelHandle, ModelKey, ModelKind, ModelSpec,
    StageRecord, Store, cost, fingerprint,
};
use serde_json::Value;

use super::cache::{Cache, Values};
use super::check::{Plan, ReadFrom, StagePlan, output_fingerprint};
use super::data::Data;
use super::described::Pipeline;
use super::document::Template;
use super::error::PipelineError;
use super::operator::{Input, Learnt, Parts};
use super::run::Ran;
use super::stored::{Timing, key_of, known_outputs, read_table};
use super::streamed::Streamed;

/// Device under which pipelines' costs are kept.
pub(crate) const DEVICE: &str = "cpu";

/// How pipelines are logged.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Project of the models (default `pipelines`).
    pub project: String,
    /// Name of the dataset in the store (default: from the data).
    pub dataset: Option<String>,
    /// What happens when a model exists.
    pub if_exists: IfExists,
    /// How the log works.
    pub log: LogOptions,
    /// How often what is done so far is committed, so that an interrupted run goes on there (default: 5 seconds). A stage
    /// that fails commits those before it.
    pub checkpoint: Duration,
    /// Bytes of stages' values that are held in memory for later stages (default 1 GiB); others are read from the store.
    pub memory_bytes: usize,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            project: "pipelines".into(),
            dataset: None,
            if_exists: IfExists::Continue,
            log: LogOptions::default(),
            checkpoint: Duration::from_secs(5),
            memory_bytes: 1 << 30,
        }
    }
}

/// What became of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It ran, and its values were stored.
    Ran,
    /// Its values were there: another pipeline, or an earlier run, has the same stage.
    Shared,
}

/// A stage of a logged pipeline.
#[derive(Debug, Clone)]
pub struct StageReport {
    /// Name.
    pub name: String,
    /// Operator.
    pub op: &'static str,
    /// Whether it ran.
    pub fate: Fate,
    /// Seconds that it took when it ran, be it now or before.
    pub seconds: f64,
    /// Rows that it gave.
    pub n_rows: u64,
}

/// A logged pipeline.
#[derive(Debug, Clone)]
pub struct ModelReport {
    /// Its key.
    pub key: ModelKey,
    /// Its stages, in the order in which they ran.
    pub stages: Vec<StageReport>,
    /// Named figures of its stages.
    pub metrics: BTreeMap<String, f64>,
}

/// What a run over pipelines did.
#[derive(Debug, Clone)]
pub struct PipelineReport {
    /// One a model.
    pub models: Vec<ModelReport>,
    /// What was written.
    pub log: LogReport,
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds in operators.
    pub run_seconds: f64,
    /// Commits.
    pub commits: usize,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct PipelineProgress<'a> {
    /// Stages done, of all models.
    pub done: usize,
    /// Stages of all models.
    pub total: usize,
    /// The model that is running.
    pub model: &'a str,
    /// The stage that begins.
    pub stage: &'a str,
}

/// The plans of all settings of a template over `data`, all checked before any runs. A file whose content `store` knows is
/// not parsed.
///
/// Errors: those of [`Pipeline::new`] and [`Plan::new`].
pub fn plan_template(template: &Template, data: &Data, store: Option<&Store>) -> Result<Vec<Plan>, PipelineError> {
    let known = |f: &Fingerprint| store.and_then(|s| known_outputs(s, f));
    template.settings().iter().map(|s| Plan::new(Pipeline::new(template, s)?, data, &known)).collect()
}

/// Runs the pipelines and logs every stage's tables as intermediates. A stage that the store holds, or that another of the
/// pipelines has, does not run again and is not stored again.
///
/// Errors: `Stage` for the first stage that fails: what came before it is committed, the model is incomplete, and the same
/// call goes on from there. `Engine` with `Conflict` for other content under a used key.
pub fn log_pipelines(
    store: &Store,
    plans: &[Plan],
    data: &Data,
    options: &PipelineOptions,
    progress: &mut dyn FnMut(PipelineProgress<'_>),
) -> Result<PipelineReport, PipelineError> {
    let begun = Instant::now();
    let log = store.logger(options.log)?;
    let mut session = Session {
        store,
        data,
        options,
        log,
        cache: Cache::new(options.memory_bytes, HashMap::new()),
        records: HashMap::new(),
        uncommitted: HashSet::new(),
        committed: Instant::now(),
        commits: 0,
        replaces: false,
        run_seconds: 0.0,
        costs: Vec::new(),
    };
    if options.if_exists == IfExists::Replace {
        let keys: Vec<ModelKey> = plans.iter().map(|p| key_of(&p.pipeline, &options.project)).collect();
        session.log.will_replace(&keys)?;
    }
    session.cache = Cache::new(options.memory_bytes, session.uses(plans)?);
    let total = plans.iter().map(|p| p.stages.len()).sum();
    let mut done = 0;
    let mut models = Vec::with_capacity(plans.len());
    for plan in plans {
        let logged = session.model(plan, &mut |stage| {
            let model = plan.pipeline.model_name();
            progress(PipelineProgress { done, total, model: &model, stage });
            done += 1;
        });
        match logged {
            Ok(model) => models.push(model),
            Err(e) => {
                // What came before the failure stays, unless that would take what it replaces away; why the stage failed
                // matters more than why this would.
                if !session.replaces
                    && let Err(again) = session.log.commit()
                {
                    tracing::debug!("the stages before the failure are not kept: {again}");
                }
                return Err(e);
            }
        }
    }
    let log = session.commit()?;
    session.keep_costs()?;
    let (run_seconds, commits) = (session.run_seconds, session.commits);
    drop(session);
    Ok(PipelineReport { models, log, seconds: begun.elapsed().as_secs_f64(), run_seconds, commits })
}

struct Session<'a> {
    store: &'a Store,
    data: &'a Data,
    options: &'a PipelineOptions,
    log: Logger,
    cache: Cache,
    /// Stages that ran, in this session or before.
    records: HashMap<Fingerprint, Option<StageRecord>>,
    /// Stages whose values are not yet visible to a reader.
    uncommitted: HashSet<Fingerprint>,
    committed: Instant,
    commits: usize,
    /// Whether the model that is being logged comes in place of another.
    replaces: bool,
    run_seconds: f64,
    costs: Vec<(String, String, f64)>,
}

impl Session<'_> {
    /// The record of a stage all of whose values are in the store or in this log.
    fn record(&mut self, plan: &Plan, index: usize) -> Result<Option<StageRecord>, PipelineError> {
        let Some(stage) = plan.stages.get(index) else { return Ok(None) };
        let found = match self.records.get(&stage.fingerprint) {
            Some(known) => known.clone(),
            None => {
                let found = self.store.catalog().stage(&stage.fingerprint)?;
                self.records.insert(stage.fingerprint, found.clone());
                found
            }
        };
        let Some(record) = found else { return Ok(None) };
        for output in 0..stage.outputs.len() {
            if !self.log.knows_stage(&output_fingerprint(&stage.fingerprint, output))? {
                return Ok(None);
            }
        }
        let learns = stage.learns == Some(index);
        let kept = match record.artifact {
            // One that is gone or damaged is learnt anew.
            Some(hash) => self.store.operator(&hash).is_ok(),
            None => !learns,
        };
        Ok(kept.then_some(record))
    }

    /// How often the stages that will run ask for each stage.
    fn uses(&mut self, plans: &[Plan]) -> Result<HashMap<Fingerprint, usize>, PipelineError> {
        let mut uses = HashMap::new();
        let mut seen = HashSet::new();
        for plan in plans {
            for (index, stage) in plan.stages.iter().enumerate() {
                let stays = self.options.if_exists == IfExists::Continue;
                if !seen.insert(stage.fingerprint) || (stays && self.record(plan, index)?.is_some()) {
                    continue;
                }
                for read in reads(plan, index) {
                    *uses.entry(read).or_default() += 1;
                }
            }
        }
        Ok(uses)
    }

    fn model(&mut self, plan: &Plan, begins: &mut dyn FnMut(&str)) -> Result<ModelReport, PipelineError> {
        let key = key_of(&plan.pipeline, &self.options.project);
        let description = plan.pipeline.describe();
        let spec = ModelSpec {
            key: key.clone(),
            kind: ModelKind::Pipeline,
            description: description.clone(),
            weights: None,
            dataset: Some(self.dataset(plan)?),
        };
        // What is replaced goes with the next commit: one before it, of what other models gave, and one when it is whole.
        self.replaces =
            self.options.if_exists == IfExists::Replace && self.store.catalog().model_exact(&key)?.is_some();
        if self.replaces {
            self.commit()?;
        }
        let model = self.log.model(&spec, self.options.if_exists)?;
        if self.options.if_exists == IfExists::Continue {
            self.forget_others(plan, model, &key)?;
        }
        self.log.incomplete(model)?;
        let mut report = ModelReport { key, stages: Vec::new(), metrics: BTreeMap::new() };
        let mut position = 0;
        for (index, stage) in plan.stages.iter().enumerate() {
            let Some(described) = plan.pipeline.stages().get(index) else { continue };
            begins(described.name());
            let (record, fate) = match self.record(plan, index)? {
                Some(record) => {
                    for (output, (name, _)) in stage.outputs.iter().enumerate() {
                        let fingerprint = output_fingerprint(&stage.fingerprint, output);
                        self.log.link_stage(model, name, position + output as i64, &fingerprint)?;
                    }
                    (self.own_record(plan, index, record)?, Fate::Shared)
                }
                None => (self.run(plan, index, model, position)?, Fate::Ran),
            };
            position += stage.outputs.len() as i64;
            if let Ok(Value::Object(metrics)) = serde_json::from_str(&record.metrics) {
                let several = |name: &String| format!("{}.{name}", record.name);
                let named = metrics.iter().filter_map(|(k, v)| Some((several(k), v.as_f64()?)));
                report.metrics.extend(named);
            }
            self.cost(plan, index, &description, &record)?;
            report.stages.push(StageReport {
                name: record.name.clone(),
                op: described.op(),
                fate,
                seconds: record.seconds,
                n_rows: record.n_rows,
            });
            self.log.stage(model, record)?;
            if !self.replaces && self.committed.elapsed() >= self.options.checkpoint {
                self.commit()?;
            }
        }
        self.log.complete(model)?;
        if self.replaces {
            self.commit()?;
            self.replaces = false;
        }
        Ok(report)
    }

    /// Takes away what an interrupted run of another description left under the model: intermediates of other stages.
    fn forget_others(&mut self, plan: &Plan, model: ModelHandle, key: &ModelKey) -> Result<(), PipelineError> {
        let Some(existing) = self.store.catalog().model_exact(key)? else { return Ok(()) };
        for record in self.store.intermediates(&existing)? {
            let name = &record.key.intermediate;
            let wanted = plan
                .intermediate(name)
                .and_then(|(stage, output)| Some(output_fingerprint(&plan.stages.get(stage)?.fingerprint, output)));
            if record.stage != wanted {
                self.log.replace(model, name)?;
            }
        }
        Ok(())
    }

    /// The record of a stage that ran elsewhere, under this pipeline's names.
    fn own_record(&self, plan: &Plan, index: usize, of: StageRecord) -> Result<StageRecord, PipelineError> {
        let description: Value = serde_json::from_str(&of.description).unwrap_or_default();
        let learn_seconds = description.get("learn_seconds").and_then(Value::as_f64).unwrap_or_default();
        let rows = description.get("rows").and_then(Value::as_array).cloned().unwrap_or_default();
        let rows: Vec<u64> = rows.iter().filter_map(Value::as_u64).collect();
        // JSON has no NaN: it is written as null.
        let metrics: BTreeMap<String, Option<f64>> = serde_json::from_str(&of.metrics).unwrap_or_default();
        let metrics = metrics.into_iter().map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect();
        let timing = Timing { seconds: of.seconds, learn_seconds };
        plan.record(index, self.data, &timing, of.artifact, &rows, &metrics)
    }

    /// Runs a stage, stores what it gave, and keeps it for those that will ask.
    fn run(
        &mut self,
        plan: &Plan,
        index: usize,
        model: ModelHandle,
        position: i64,
    ) -> Result<StageRecord, PipelineError> {
        let Some(stage) = plan.stages.get(index) else {
            return plan.record(index, self.data, &NO_TIME, None, &[], &BTreeMap::new());
        };
        let mut values = Vec::with_capacity(stage.inputs.len());
        for from in &stage.inputs {
            values.push(match *from {
                ReadFrom::Table { stage, output } => self.table(plan, stage, output)?,
                ReadFrom::Learnt { stage } => Input::Learnt(self.learnt(plan, stage)?),
            });
        }
        let learnt = match stage.learns {
            Some(other) if other != index => Some(self.learnt(plan, other)?),
            // What was learnt before an interruption is not learnt again.
            Some(_) => self.kept(plan, index)?,
            None => None,
        };
        let before = learnt.is_some();
        let file = plan.pipeline.stages().get(index).and_then(|s| s.operator.file());
        let data = self.data;
        let mut streamed = match (file, &stage.outputs[..]) {
            (Some(_), [(name, _)]) => self.streamed(model, name, position, stage)?,
            _ => None,
        };
        let parts = streamed.as_mut().map(|parts| parts as &mut dyn Parts);
        let ran = plan.run_stage(index, values, learnt.clone(), data, parts)?;
        let is_logged = streamed.is_some_and(|s| s.is_whole());
        let Ran { outcome, learnt: own, learn_seconds, seconds } = ran;
        self.run_seconds += seconds;
        if let Some(file) = file {
            self.data.forget(file);
        }
        reads(plan, index).iter().for_each(|f| self.cache.used(f));
        let artifact = match &own {
            Some(own) => {
                let format = plan.pipeline.stages().get(index).map_or("json", |s| s.operator.format());
                Some(self.log.put_operator(&own.bytes, format)?)
            }
            None if before && stage.learns == Some(index) => {
                self.records.get(&stage.fingerprint).and_then(|r| r.as_ref()?.artifact)
            }
            None => None,
        };
        let tables = outcome.tables.iter().zip(&stage.outputs).enumerate().filter(|_| !is_logged);
        for (output, (table, (name, _))) in tables {
            let fingerprint = output_fingerprint(&stage.fingerprint, output);
            let position = position + output as i64;
            if !self.log.link_stage(model, name, position, &fingerprint)? {
                let handle = self.log.table(model, name, position, &table.schema())?;
                self.log.append_table(handle, table.rows(), table.batch())?;
                self.log.set_stage(handle, &fingerprint)?;
            }
        }
        let rows: Vec<u64> = outcome.tables.iter().map(|t| t.n_rows() as u64).collect();
        let timing = Timing { seconds, learn_seconds };
        let record = plan.record(index, self.data, &timing, artifact, &rows, &outcome.metrics)?;
        self.records.insert(stage.fingerprint, Some(record.clone()));
        self.uncommitted.insert(stage.fingerprint);
        let learnt = own.or(learnt.filter(|_| stage.learns == Some(index)));
        self.cache.put(stage.fingerprint, Values { tables: outcome.tables, learnt });
        Ok(record)
    }

    /// Where the rows of a stage that reads a file go as they are read; `None` where the log has them.
    fn streamed<'b>(
        &'b mut self,
        model: ModelHandle,
        name: &'b str,
        position: i64,
        stage: &StagePlan,
    ) -> Result<Option<Streamed<'b>>, PipelineError> {
        let fingerprint = output_fingerprint(&stage.fingerprint, 0);
        if self.log.link_stage(model, name, position, &fingerprint)? {
            return Ok(None);
        }
        Ok(Some(Streamed::new(&mut self.log, model, name, position, fingerprint)))
    }

    fn fingerprint(plan: &Plan, stage: usize) -> Fingerprint {
        plan.stages.get(stage).map(|s| s.fingerprint).unwrap_or_default()
    }

    /// A table of another stage, from memory or from the store.
    fn table(&mut self, plan: &Plan, stage: usize, output: usize) -> Result<Input, PipelineError> {
        let of = Self::fingerprint(plan, stage);
        if let Some(table) = self.cache.get(&of).and_then(|v| v.tables.get(output)) {
            return Ok(Input::Table(table.clone()));
        }
        if self.uncommitted.contains(&of) {
            self.commit()?;
        }
        let fingerprint = output_fingerprint(&of, output);
        let record = self.store.intermediate_by_stage(&fingerprint)?;
        let record = record.ok_or_else(|| self.gone(plan, stage))?;
        if !record.is_whole() {
            return self.again(plan, stage, output);
        }
        Ok(Input::Table(read_table(self.store, &record)?))
    }

    /// A table whose values the store does not keep: its stage runs again.
    fn again(&mut self, plan: &Plan, index: usize, output: usize) -> Result<Input, PipelineError> {
        let Some(stage) = plan.stages.get(index) else { return Err(self.gone(plan, index)) };
        let mut values = Vec::with_capacity(stage.inputs.len());
        for from in &stage.inputs {
            values.push(match *from {
                ReadFrom::Table { stage, output } => self.table(plan, stage, output)?,
                ReadFrom::Learnt { stage } => Input::Learnt(self.learnt(plan, stage)?),
            });
        }
        let learnt = stage.learns.map(|of| self.learnt(plan, of)).transpose()?;
        let ran = plan.run_stage(index, values, learnt, self.data, None)?;
        self.run_seconds += ran.seconds;
        let table = ran.outcome.tables.get(output).cloned().ok_or_else(|| self.gone(plan, index))?;
        self.cache.put(stage.fingerprint, Values { tables: ran.outcome.tables, learnt: None });
        Ok(Input::Table(table))
    }

    /// What another stage has learnt, from memory or from the store.
    fn learnt(&mut self, plan: &Plan, stage: usize) -> Result<Learnt, PipelineError> {
        if let Some(learnt) = self.cache.get(&Self::fingerprint(plan, stage)).and_then(|v| v.learnt.clone()) {
            return Ok(learnt);
        }
        self.kept(plan, stage)?.ok_or_else(|| self.gone(plan, stage))
    }

    /// What a stage has learnt in an earlier run, when it is in operators/.
    fn kept(&mut self, plan: &Plan, stage: usize) -> Result<Option<Learnt>, PipelineError> {
        let of = Self::fingerprint(plan, stage);
        let known = self.records.get(&of).cloned().flatten();
        let record = match known {
            Some(record) => Some(record),
            None => self.store.catalog().stage(&of)?,
        };
        let Some(hash) = record.and_then(|r| r.artifact) else { return Ok(None) };
        let operator = plan.pipeline.stages().get(stage).map_or("", |s| s.op());
        // One that is gone or damaged is learnt anew.
        Ok(self.store.operator(&hash).ok().map(|bytes| Learnt { operator, bytes: bytes.into() }))
    }

    fn gone(&self, plan: &Plan, stage: usize) -> PipelineError {
        let name = plan.pipeline.stages().get(stage).map_or("?", |s| s.name());
        PipelineError::Engine(mistique_engine::EngineError::NotFound {
            what: "values of the stage",
            name: format!("{}.{name}", plan.pipeline.model_name()),
            nearest: vec![],
        })
    }

    /// The dataset of a pipeline: the files that it reads.
    fn dataset(&mut self, plan: &Plan) -> Result<DatasetSpec, PipelineError> {
        let mut n_rows = 0;
        for (index, stage) in plan.pipeline.stages().iter().enumerate() {
            if let Some(file) = stage.operator.file() {
                // Also of one whose values go, as those of a model that is replaced: its file is the same.
                self.record(plan, index)?;
                let known = plan.stages.get(index).and_then(|s| self.records.get(&s.fingerprint)?.as_ref());
                let logged = known.map(|r| r.n_rows);
                n_rows = n_rows.max(logged.or(self.data.n_rows(file)).unwrap_or_default());
            }
        }
        let mut files: Vec<&str> = plan.pipeline.stages().iter().filter_map(|s| s.operator.file()).collect();
        files.sort_unstable();
        files.dedup();
        let mut bytes = Vec::new();
        for file in &files {
            bytes.extend_from_slice(&(file.len() as u64).to_le_bytes());
            bytes.extend_from_slice(file.as_bytes());
            bytes.extend_from_slice(&self.data.fingerprint(file)?);
        }
        let name = self.options.dataset.clone().unwrap_or_else(|| self.data.set().name());
        Ok(DatasetSpec {
            // Which files belong to it, since another pipeline may read others of the same folder.
            name: format!("{name}/{}", files.join("+")),
            source: self.data.set().source(),
            fingerprint: fingerprint(&bytes),
            // Row_ids are positions in one of the files: of the longest at most.
            n_rows,
            row_shape: Vec::new(),
        })
    }

    fn commit(&mut self) -> Result<LogReport, PipelineError> {
        let report = self.log.commit()?;
        self.uncommitted.clear();
        self.committed = Instant::now();
        self.commits += 1;
        Ok(report)
    }

    /// Remembers what a RERUN of the stage will take: its time without learning.
    fn cost(
        &mut self,
        plan: &Plan,
        index: usize,
        description: &str,
        record: &StageRecord,
    ) -> Result<(), PipelineError> {
        let own: Value = serde_json::from_str(&record.description).unwrap_or_default();
        let learning = own.get("learn_seconds").and_then(Value::as_f64).unwrap_or_default();
        let subject = cost::model_subject(description, DEVICE);
        for (name, _) in plan.stages.get(index).map_or(&[][..], |s| &s.outputs) {
            self.costs.push((subject.clone(), name.clone(), (record.seconds - learning).max(0.0)));
        }
        Ok(())
    }

    fn keep_costs(&mut self) -> Result<(), PipelineError> {
        for (subject, stage, seconds) in std::mem::take(&mut self.costs) {
            self.store.add_whole_stage_cost(&subject, &stage, seconds)?;
        }
        Ok(())
    }
}

const NO_TIME: Timing = Timing { seconds: 0.0, learn_seconds: 0.0 };

/// Stages that a stage asks for, each once.
fn reads(plan: &Plan, index: usize) -> HashSet<Fingerprint> {
    let Some(stage) = plan.stages.get(index) else { return HashSet::new() };
    let others = stage.inputs.iter().map(|i| i.stage()).chain(stage.learns.filter(|l| *l != index));
    others.filter_map(|s| plan.stages.get(s).map(|p| p.fingerprint)).collect()
}
