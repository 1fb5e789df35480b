//! What running a model's stages, and reading them instead, would cost for some rows (Eqs. 5.2 and 5.3).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use mistique_engine::cost::{self, Estimate};
use mistique_engine::{
    Code, Content, Given, IntermediateRecord, ModelRecord, Rerun, RerunValues, RowPlan, RowSet, Rows, StageNode,
    UnitAxis,
};

use super::cut::{Cut, Node, Wanted, cheapest};
use super::{Context, Resolved};
use crate::error::{QueryError, Result};

/// Seconds to read weights, and to open a dataset, until they were measured.
const UNMEASURED_LOAD: f64 = 5e-3;
/// Seconds of a stage that was never measured: it is avoided where there is another way.
const UNMEASURED_STAGE: f64 = 0.1;
/// Seconds a value that a run hands over or takes in, until measured: a copy into fresh memory.
const UNMEASURED_OUTPUT: f64 = 1e-9;
/// Seconds of a stage whose file is in memory, until measured.
const UNMEASURED_HELD_INPUT: f64 = 50e-6;
/// Seconds a row of input, until measured.
const UNMEASURED_INPUT: f64 = 2e-6;

/// A stored copy of a stage, exactly as it was logged.
pub(crate) struct Copy<'a> {
    pub record: &'a IntermediateRecord,
    estimate: Estimate,
    bytes: f64,
}

/// How a cut's price is made up.
pub(crate) struct Price {
    /// Seconds; `None` where a stage was never measured.
    pub estimate: Option<Estimate>,
    /// Bytes read.
    pub bytes: f64,
}

/// The stages of a model with what each costs for some rows.
pub(crate) struct Stages<'a> {
    pub workflow: &'a dyn Rerun,
    pub model: &'a ModelRecord,
    pub graph: Arc<Vec<StageNode>>,
    /// Why the dataset cannot be read; a run from stored ancestors does not need it.
    pub no_dataset: Option<String>,
    records: Arc<Vec<IntermediateRecord>>,
    rows: &'a RowSet,
    n_dataset: u64,
    /// Stages that have to run over all rows, since a stage after them does.
    all_rows: Vec<bool>,
    subject: String,
    device: String,
    load: Estimate,
    dataset: Estimate,
    verify: bool,
    /// Why stages that were asked for cannot be run: every plan asks anew.
    lacks: RefCell<HashMap<usize, Option<String>>>,
    /// Seconds of them.
    seconds: RefCell<HashMap<usize, Option<Estimate>>>,
}

impl<'a> Stages<'a> {
    /// The stages of a model, or why it cannot be run.
    pub(crate) fn price(
        context: &'a Context<'a>,
        model: &'a ModelRecord,
        rows: &'a RowSet,
    ) -> Result<std::result::Result<Self, String>> {
        let Some(workflow) = context.workflows.iter().find(|w| w.runs(model)).map(|w| &**w as &dyn Rerun) else {
            let (key, kind) = (&model.spec.key, model.spec.kind.name());
            return Ok(Err(format!("{key} was logged as {kind} values; nothing can run it")));
        };
        let unavailable = if context.verify { workflow.verify(model) } else { workflow.unavailable(model) };
        if let Some(why) = unavailable {
            return Ok(Err(why));
        }
        let graph = match workflow.graph(model) {
            Ok(graph) => graph,
            Err(e) => return Ok(Err(e.to_string())),
        };
        let no_dataset =
            if context.verify { workflow.verify_dataset(model) } else { workflow.dataset_unavailable(model) };
        let mut all_rows = vec![false; graph.len()];
        for (v, stage) in graph.iter().enumerate().rev() {
            if stage.whole
                && let Some(all) = all_rows.get_mut(v)
            {
                *all = true;
            }
            if all_rows.get(v).copied().unwrap_or_default() {
                mark(&mut all_rows, &stage.inputs);
            }
        }
        let store = context.store;
        let device = workflow.device();
        let subject = cost::model_subject(&model.spec.description, &device);
        let guess = |seconds: f64| Estimate::guess(seconds);
        let load = match (workflow.is_loaded(model), store.cost(cost::LOAD, &subject)?) {
            (true, _) => Estimate::default(),
            (_, Some(measured)) => measured.into(),
            // Nothing was run again yet: what logging measured, and the time to read the operators.
            _ => guess(UNMEASURED_LOAD) + store.cost(cost::PREPARE, &subject)?.map_or(guess(0.0), Estimate::from),
        };
        let n_dataset = model.spec.dataset.as_ref().map_or(0, |d| d.n_rows);
        let fingerprint =
            model.spec.dataset.as_ref().map_or_else(String::new, |d| mistique_engine::hex(&d.fingerprint));
        // Where stages run whole, the first of them read the dataset themselves, in their own time.
        let unmeasured = if workflow.batch_rows().is_some() { UNMEASURED_INPUT } else { 0.0 };
        let per_row = store.cost(cost::INPUT, &fingerprint)?.map_or(guess(unmeasured), Estimate::from);
        let mut dataset = per_row.times(rows.len() as f64);
        if !workflow.holds_dataset(model) {
            let opened = store.cost(cost::OPEN_DATASET, &fingerprint)?;
            dataset += opened.map_or(guess(UNMEASURED_LOAD), Estimate::from);
        }
        let records = store.intermediates_of(model.id)?;
        Ok(Ok(Self {
            workflow,
            model,
            graph,
            no_dataset,
            records,
            rows,
            n_dataset,
            all_rows,
            subject,
            device,
            load,
            dataset,
            verify: context.verify,
            lacks: RefCell::default(),
            seconds: RefCell::default(),
        }))
    }

    /// Seconds of handing so many values over, or of pooling them: at the rate of as large answers, else of smaller ones
    /// and of fresh memory.
    fn moved(&self, context: &Context<'_>, what: &str, subject: &str, n_values: f64) -> Result<Estimate> {
        if let Some(rate) = context.store.cost(what, &cost::sized(subject, n_values))? {
            return Ok(Estimate::from(rate).times(n_values));
        }
        let small = context.store.cost(what, subject)?.map_or(Estimate::guess(UNMEASURED_OUTPUT), Estimate::from);
        let fresh = context.store.fresh_estimate()?;
        Ok(small.times(n_values) + fresh.times(cost::fresh_values(n_values)))
    }

    /// The stage of an intermediate.
    pub(crate) fn stage(&self, intermediate: &str) -> std::result::Result<usize, String> {
        let found = self.graph.iter().position(|s| s.name == intermediate);
        found.ok_or_else(|| format!("{} has no stage {intermediate:?}", self.model.spec.key))
    }

    fn n_rows(&self, stage: usize) -> u64 {
        let all = self.all_rows.get(stage).copied().unwrap_or_default();
        if all { self.n_dataset } else { self.rows.len() as u64 }
    }

    /// The stages that the wanted ones need, themselves included.
    pub(crate) fn needed(&self, wanted: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.graph.len()];
        mark(&mut needed, wanted);
        for (v, stage) in self.graph.iter().enumerate().rev() {
            if needed.get(v).copied().unwrap_or_default() {
                mark(&mut needed, &stage.inputs);
            }
        }
        needed
    }

    /// Why one of these stages cannot be run, if one cannot.
    pub(crate) fn lacks(&self, stages: &[usize]) -> Option<String> {
        stages.iter().find_map(|stage| {
            let mut known = self.lacks.borrow_mut();
            let look = || self.workflow.stage_unavailable(self.model, &self.graph.get(*stage)?.name, self.verify);
            known.entry(*stage).or_insert_with(look).clone()
        })
    }

    /// The copies of needed stages that hold exactly what was logged for the rows.
    pub(crate) fn copies(&self, context: &Context<'_>, needed: &[bool]) -> Result<HashMap<usize, Copy<'_>>> {
        let mut copies = HashMap::new();
        let mut doubtful = Vec::new();
        for record in self.records.iter().filter(|r| r.n_rows > 0) {
            let Ok(stage) = self.stage(&record.key.intermediate) else { continue };
            if !needed.get(stage).copied().unwrap_or_default() || !is_exact_copy(record) {
                continue;
            }
            // A stage that runs whole may give fewer rows than the dataset has: a finished log has all of them.
            let all = self.all_rows.get(stage).copied().unwrap_or_default();
            if record.is_whole() && (record.n_rows == self.n_dataset || (all && self.model.complete)) {
                let (estimate, bytes) = self.read(context, record, stage)?;
                copies.insert(stage, Copy { record, estimate, bytes });
            } else if !all {
                doubtful.push((stage, record));
            }
        }
        let asked: Vec<&IntermediateRecord> = doubtful.iter().map(|(_, record)| *record).collect();
        let holding = if asked.is_empty() { Vec::new() } else { context.store.holding(&asked, self.rows)? };
        for ((stage, record), _) in doubtful.into_iter().zip(holding).filter(|(_, holds)| *holds) {
            let (estimate, bytes) = self.read(context, record, stage)?;
            copies.insert(stage, Copy { record, estimate, bytes });
        }
        Ok(copies)
    }

    fn read(&self, context: &Context<'_>, record: &IntermediateRecord, stage: usize) -> Result<(Estimate, f64)> {
        let store = context.store;
        let every = self.all_rows.get(stage).copied().unwrap_or_default();
        let n = if every { record.n_rows } else { self.rows.len() as u64 } as f64;
        match &*record.content {
            Content::Tensor(t) => {
                let all = RowSet::Range(0..record.n_rows);
                let rows = if every { &all } else { self.rows };
                let work = store.read_work_in_order(record, rows)?;
                let taken = self.moved(context, cost::OUTPUT, &self.device, n * t.layout.row_values() as f64)?;
                Ok((store.read_estimate(record, &work)? + taken, work.bytes))
            }
            Content::Table(_) if every => {
                let work = store.whole_table_work(record)?;
                Ok((store.table_estimate(record, &work)?, work.bytes()))
            }
            Content::Table(t) => {
                let columns: Vec<usize> = (0..t.schema.fields().len()).collect();
                let work = store.table_work_if_stored(record, n as usize, &columns, false)?;
                Ok((store.table_estimate(record, &work)?, work.bytes()))
            }
        }
    }

    fn seconds(&self, context: &Context<'_>, stage: usize) -> Result<Option<Estimate>> {
        if let Some(known) = self.seconds.borrow().get(&stage) {
            return Ok(*known);
        }
        let seconds = self.measured_seconds(context, stage)?;
        self.seconds.borrow_mut().insert(stage, seconds);
        Ok(seconds)
    }

    fn measured_seconds(&self, context: &Context<'_>, stage: usize) -> Result<Option<Estimate>> {
        let Some(node) = self.graph.get(stage) else { return Ok(None) };
        if node.whole && node.takes_dataset && self.workflow.holds_input(self.model, &node.name) {
            let held = context.store.cost(cost::HELD_INPUT, &cost::stage_subject(&self.subject, &node.name, 1))?;
            return Ok(Some(held.map_or(Estimate::guess(UNMEASURED_HELD_INPUT), Estimate::from)));
        }
        if node.whole {
            return Ok(context.store.whole_stage_estimate(&self.subject, &node.name)?);
        }
        let n = self.n_rows(stage);
        let batch = self.workflow.batch_rows().unwrap_or(n.max(1));
        Ok(context.store.stage_estimate(&self.subject, &node.name, n, batch)?)
    }

    /// The cheapest cut for the wanted stages among `copies`; `None` when there is no way to them.
    pub(crate) fn cut(
        &self,
        context: &Context<'_>,
        wanted: &[Wanted],
        needed: &[bool],
        copies: &HashMap<usize, Copy<'_>>,
        with_dataset: bool,
    ) -> Result<Option<Cut>> {
        let nanos = |e: Estimate| ((e.seconds * 1e9) as u64).max(1);
        let mut nodes = Vec::with_capacity(self.graph.len());
        for (v, stage) in self.graph.iter().enumerate() {
            let is_needed = needed.get(v).copied().unwrap_or_default();
            let can_run = is_needed && self.lacks(&[v]).is_none();
            let seconds = if can_run { self.seconds(context, v)? } else { None };
            nodes.push(Node {
                run: can_run.then(|| nanos(seconds.unwrap_or(Estimate::guess(UNMEASURED_STAGE)))),
                read: copies.get(&v).map(|c| nanos(c.estimate)),
                inputs: &stage.inputs,
                takes_dataset: stage.takes_dataset,
            });
        }
        let dataset = with_dataset.then(|| nanos(self.dataset));
        Ok(cheapest(&nodes, wanted, dataset, nanos(self.load)))
    }

    /// The cut that runs everything from the dataset.
    pub(crate) fn cut_at_dataset(&self, needed: &[bool]) -> Cut {
        let run: Vec<usize> = (0..self.graph.len()).filter(|v| needed.get(*v).copied().unwrap_or_default()).collect();
        Cut { run, read: Vec::new(), dataset: true, cost: 0 }
    }

    /// What a cut costs, answers of `requests` included.
    pub(crate) fn total(
        &self,
        context: &Context<'_>,
        cut: &Cut,
        copies: &HashMap<usize, Copy<'_>>,
        requests: &[&Resolved],
    ) -> Result<Price> {
        let mut total = if cut.run.is_empty() { Estimate::default() } else { self.load };
        if cut.dataset {
            total += self.dataset;
        }
        let mut measured = true;
        for stage in &cut.run {
            match self.seconds(context, *stage)? {
                Some(e) => total += e,
                None => measured = false,
            }
        }
        let names: Vec<&str> = cut.run.iter().filter_map(|v| self.graph.get(*v)).map(|s| s.name.as_str()).collect();
        let mut bytes = self.workflow.input_bytes(self.model, &names, self.rows.len() as u64, cut.dataset) as f64;
        for copy in cut.read.iter().filter_map(|v| copies.get(v)) {
            total += copy.estimate;
            bytes += copy.bytes;
        }
        for request in requests {
            match &*request.record.content {
                Content::Tensor(t) => {
                    let values = (request.rows.len() * t.layout.row_values()) as f64;
                    total += self.moved(context, cost::OUTPUT, &self.device, values)?;
                    if let Some(pool) = super::output::pool_of(request, t) {
                        total += self.moved(context, cost::POOL, &pool, values)?;
                    }
                }
                Content::Table(t) if (request.rows.len() as u64) < request.record.n_rows => {
                    let values = (request.rows.len() * t.schema.fields().len()) as f64;
                    let subject = cost::picked(&self.device, matches!(request.rows, RowSet::List(_)));
                    total += self.moved(context, cost::OUTPUT, &subject, values)?;
                }
                Content::Table(_) => {}
            }
        }
        Ok(Price { estimate: measured.then_some(total), bytes })
    }

    /// Reads what the cut reads and runs what it runs.
    ///
    /// Errors: those of the store and the workflow; `Plan` when a copy lacks rows after all.
    pub(crate) fn run(
        &self,
        context: &Context<'_>,
        cut: &Cut,
        copies: &HashMap<usize, Copy<'_>>,
        wanted: &[String],
    ) -> Result<Vec<RerunValues>> {
        let ids: Vec<u64> = self.rows.iter().collect();
        let mut values = Vec::with_capacity(cut.read.len());
        for stage in &cut.read {
            let Some(copy) = copies.get(stage) else { continue };
            let all = self.all_rows.get(*stage).copied().unwrap_or_default();
            let rows = match (all, self.rows) {
                (true, _) => Rows::All,
                (false, RowSet::Range(r)) => Rows::Range(r.clone()),
                (false, RowSet::List(ids)) => Rows::List(ids.clone()),
            };
            let plan = context.store.plan_rows(copy.record, &rows)?;
            if !all && plan.n_rows() != ids.len() {
                return Err(QueryError::Plan {
                    key: copy.record.key.to_string(),
                    plan: "a run from it",
                    why: format!("it holds {} of {} rows", plan.n_rows(), ids.len()),
                });
            }
            values.push((copy.record.key.intermediate.as_str(), read_whole(context, copy.record, &plan)?));
        }
        let given: Vec<Given<'_>> =
            values.iter().map(|(intermediate, values)| Given { intermediate, values }).collect();
        Ok(self.workflow.rerun(self.model, wanted, &ids, &given)?)
    }

    /// What a cut reads, for people: `f32 of conv1 and f32 of pool2`.
    pub(crate) fn sources(&self, cut: &Cut, copies: &HashMap<usize, Copy<'_>>) -> String {
        let one = |c: &Copy<'_>| format!("{} of {}", c.record.content.scheme_text(), c.record.key.intermediate);
        cut.read.iter().filter_map(|v| copies.get(v)).map(one).collect::<Vec<_>>().join(" and ")
    }

    /// Where the stages of a cut run, for people.
    pub(crate) fn describe_run(&self, cut: &Cut) -> String {
        let name = |v: &usize| self.graph.get(*v).map_or("", |s| s.name.as_str());
        let stages = match cut.run.as_slice() {
            [one] => name(one).to_string(),
            [first, .., last] => format!("{} stages, {} to {}", cut.run.len(), name(first), name(last)),
            [] => "nothing".into(),
        };
        format!("run {stages} on {}", self.device)
    }
}

fn mark(marks: &mut [bool], at: &[usize]) {
    for i in at {
        if let Some(mark) = marks.get_mut(*i) {
            *mark = true;
        }
    }
}

/// Whether a stored copy holds exactly the values that were logged, in the order of the tensor.
fn is_exact_copy(record: &IntermediateRecord) -> bool {
    match &*record.content {
        Content::Tensor(t) => {
            let in_order = t.unit_axis == UnitAxis::First || t.layout.map.cells() == 1;
            t.dtype == Code::F32 && t.scheme.is_lossless_for(t.dtype) && in_order && t.layout.stored == t.layout.map
        }
        Content::Table(_) => true,
    }
}

fn read_whole(context: &Context<'_>, record: &IntermediateRecord, plan: &RowPlan) -> Result<RerunValues> {
    match &*record.content {
        Content::Tensor(t) => {
            let n = t.layout.stored_values();
            let mut values = vec![0f32; plan.n_rows() * n];
            context.store.read_f32(record, plan, &[0..n], &mut values)?;
            Ok(RerunValues::Tensor { shape: t.shape.clone(), values })
        }
        Content::Table(t) => {
            let columns: Vec<usize> = (0..t.schema.fields().len()).collect();
            Ok(RerunValues::Table(context.store.read_table(record, plan, &columns)?))
        }
    }
}
