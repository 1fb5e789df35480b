//! The ChunkReader: answers `get_intermediates` by READ or RERUN, whichever the cost model finds cheaper.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Instant;

use mistique_engine::{
    Content, EngineError, IntermediateKey, IntermediateRecord, Key, ModelRecord, Rerun, RowSet, Rows, Store, UnitAxis,
};

use crate::answer::{Answer, Data, Source};
use crate::cache::{AnswerCache, AnswerStats};
use crate::column::Column;
use crate::columns::{self, Columns};
use crate::error::{QueryError, Result};
use crate::materialize::{Background, Net, Repeats, Tap, Verified};
use crate::operand::Wanted;
use crate::plan::{self, Context, Explanation, Part, PlanChoice, Resolved};
use crate::predicate::{Predicate, Term};
use crate::rows::RowSelection;

/// How values are to be got: those asked for, and those of every column that rows are chosen, grouped or labelled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// By which plan.
    pub plan: PlanChoice,
    /// Whether a lossy copy will not do.
    pub exact: bool,
}

impl From<PlanChoice> for Demand {
    fn from(plan: PlanChoice) -> Self {
        Self { plan, exact: false }
    }
}

/// What a caller wants of one intermediate.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub(crate) key: Key,
    pub(crate) rows: RowSelection,
    pub(crate) plan: PlanChoice,
    pub(crate) exact: bool,
}

impl Request {
    /// All rows of the key's columns, by the cheapest plan.
    pub fn new(key: Key) -> Self {
        Self { key, rows: RowSelection::All, plan: PlanChoice::Auto, exact: false }
    }

    /// The key.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The rows.
    pub const fn rows(&self) -> &RowSelection {
        &self.rows
    }

    /// The plan that is wanted.
    pub const fn plan(&self) -> PlanChoice {
        self.plan
    }

    /// The same for other rows.
    #[must_use]
    pub fn with_rows(mut self, rows: RowSelection) -> Self {
        self.rows = rows;
        self
    }

    /// The same by a given plan.
    #[must_use]
    pub fn with_plan(mut self, plan: PlanChoice) -> Self {
        self.plan = plan;
        self
    }

    /// The same, but never from a lossy copy.
    #[must_use]
    pub fn with_exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// The same, got as demanded.
    #[must_use]
    pub fn with_demand(self, demand: Demand) -> Self {
        self.with_plan(demand.plan).with_exact(demand.exact)
    }

    pub(crate) fn demand(&self) -> Demand {
        Demand { plan: self.plan, exact: self.exact }
    }
}

/// Reads intermediates of a store, and reruns models through workflows.
pub struct ChunkReader<'a> {
    store: &'a Store,
    workflows: Vec<Box<dyn Rerun + 'a>>,
    net: Arc<Net>,
    background: Background,
    repeats: Repeats,
    verified: Verified,
    answers: AnswerCache,
    /// Whether requests count as queries, of which materialization hangs.
    counts: bool,
    /// The rows that stand for all.
    about: RowSelection,
    /// Who hears what an answer leaves out without an error.
    notices: Option<Notices<'a>>,
}

/// Hears what an answer leaves out.
type Notices<'a> = Box<dyn Fn(&str) + Send + Sync + 'a>;

/// Bytes of answers that are held for repeats, where nothing else was said.
const ANSWER_BYTES: usize = 64 << 20;

/// What a row's own number is called in predicates, where no column has that name.
const ROW_ID: &str = "row_id";

const NOTHING_STORED: &str = "nothing of it is stored; log it again";

/// The rows of a request, and where they are stored.
pub(crate) struct Found {
    pub rows: RowSet,
    pub stored: Result<mistique_engine::RowPlan, String>,
    pub part: Option<Part>,
}

impl Found {
    /// The same for groups of columns whose values some RowBlocks may not hold: READ needs all of them.
    pub fn holding(self, groups: &[usize]) -> Self {
        let Self { rows, mut stored, mut part } = self;
        if let Ok(plan) = &stored
            && let (lacking @ 1.., touched) = plan.lacking(groups)
        {
            if lacking < touched {
                let (plan, is_stored) = plan.holding(groups);
                part = Some(Part { plan, is_stored });
            }
            stored = Err(format!(
                "{lacking} of {touched} RowBlocks do not hold these columns' values (`mistique materialize` says which are kept)"
            ));
        }
        part = part.filter(|part| part.plan.lacking(groups).0 == 0);
        Self { rows, stored, part }
    }
}

impl<'a> ChunkReader<'a> {
    /// A reader that can only READ.
    pub fn new(store: &'a Store) -> Self {
        Self {
            store,
            workflows: Vec::new(),
            net: Arc::default(),
            background: Background::default(),
            repeats: Repeats::default(),
            verified: Verified::default(),
            answers: AnswerCache::new(ANSWER_BYTES),
            counts: true,
            about: RowSelection::All,
            notices: None,
        }
    }

    /// The same, telling `hear` what answers leave out without an error: rows that a predicate selects by leave it open.
    /// A scan may say so again.
    #[must_use]
    pub fn with_notices(mut self, hear: impl Fn(&str) + Send + Sync + 'a) -> Self {
        self.notices = Some(Box::new(hear));
        self
    }

    /// The same with a workflow that runs models again.
    #[must_use]
    pub fn with_workflow(mut self, workflow: Box<dyn Rerun + 'a>) -> Self {
        self.workflows.push(Box::new(Tap { inner: workflow, net: Arc::clone(&self.net) }));
        self
    }

    /// The same, holding answers of so many bytes for repeats (default 64 MiB; 0 for none).
    #[must_use]
    pub fn with_answer_bytes(mut self, bytes: usize) -> Self {
        self.answers = AnswerCache::new(bytes);
        self
    }

    /// The same, whose requests do not count as queries and make nothing be stored: for work that no user asked for, such as
    /// measuring and exporting.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.counts = false;
        self
    }

    /// The same, for a question about some rows: whatever is asked for all of its rows is asked for these, as far as they can
    /// be had, so that rows which are not stored are run on every side of a comparison. Of a predicate's rows, which are
    /// stored ones, nothing changes.
    #[must_use]
    pub fn about(mut self, rows: RowSelection) -> Self {
        self.about = rows;
        self
    }

    /// Hits and misses of the answers held for repeats.
    pub fn answer_stats(&self) -> AnswerStats {
        self.answers.stats()
    }

    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    pub(crate) fn background(&self) -> &Background {
        &self.background
    }

    pub(crate) fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    pub(crate) fn verified(&self) -> &Verified {
        &self.verified
    }

    /// The store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    pub(crate) fn workflows(&self) -> &[Box<dyn Rerun + 'a>] {
        &self.workflows
    }

    pub(crate) fn context(&self, verify: bool) -> Context<'_> {
        Context { store: self.store, workflows: &self.workflows, verify }
    }

    /// The values of a request.
    ///
    /// Shape: rows in the order asked for × columns in the order named.
    /// Errors: `NotFound`, `Columns`, `Parse`; `Plan` when the demanded plan is not possible; `Corrupt`.
    pub fn get(&self, request: &Request) -> Result<Answer> {
        // Who demands a plan wants it followed.
        let may_repeat = request.plan == PlanChoice::Auto;
        let begun = Instant::now();
        let version = self.store.catalog_version()?;
        let held = if may_repeat { self.answers.get(request, version) } else { None };
        if may_repeat {
            self.store.count_answer(held.is_some());
        }
        if let Some(mut answer) = held {
            let record = self.store.intermediate(&request.key.intermediate)?;
            let selector = request.key.columns.as_ref().map(|(text, quoted)| (text.as_str(), *quoted));
            self.count(&record, &columns::resolve(&record, selector)?);
            answer.explanation.cached = true;
            answer.explanation.actual = Some(begun.elapsed());
            return Ok(answer);
        }
        let mut answers = self.answer(vec![self.resolve(request, None)?])?;
        let answer = answers.pop().ok_or_else(|| none_given(request))?;
        if may_repeat {
            self.answers.put(request, &answer, version);
        }
        Ok(answer)
    }

    /// As [`ChunkReader::get`], for several keys over the rows of the first. Requests that need the same model may be
    /// answered by one run of it.
    ///
    /// Errors: as there.
    pub fn get_intermediates(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        self.answer(self.resolve_all(requests)?)
    }

    /// The plans for a request and the choice, without running it. Models and datasets are compared with what was logged,
    /// so that a plan which is called possible is.
    ///
    /// Errors: as [`ChunkReader::get`].
    pub fn explain(&self, request: &Request) -> Result<Explanation> {
        let explained = plan::explain(&self.context(true), &[self.resolve(request, None)?])?;
        explained.into_iter().next().ok_or_else(|| none_given(request))
    }

    /// As [`ChunkReader::explain`], for requests that [`ChunkReader::get_intermediates`] would answer together.
    ///
    /// Errors: as there.
    pub fn explain_intermediates(&self, requests: &[Request]) -> Result<Vec<Explanation>> {
        plan::explain(&self.context(true), &self.resolve_all(requests)?)
    }

    /// The plans for a request and the choice, as [`ChunkReader::get`] makes them: nothing is read to verify them.
    ///
    /// Errors: as [`ChunkReader::get`].
    pub fn plan(&self, request: &Request) -> Result<Explanation> {
        let explained = plan::explain(&self.context(false), &[self.resolve(request, None)?])?;
        explained.into_iter().next().ok_or_else(|| none_given(request))
    }

    fn resolve_all(&self, requests: &[Request]) -> Result<Vec<Resolved>> {
        let Some((first, rest)) = requests.split_first() else { return Ok(Vec::new()) };
        let mut batch = vec![self.resolve(first, None)?];
        let rows = batch.first().map(|r| r.rows.clone());
        for request in rest {
            batch.push(self.resolve(request, rows.as_ref())?);
        }
        Ok(batch)
    }

    fn answer(&self, batch: Vec<Resolved>) -> Result<Vec<Answer>> {
        let context = self.context(false);
        let mut explanations = plan::explain(&context, &batch)?;
        // Before the answers, so that γ knows of these queries.
        for request in &batch {
            self.count(&request.record, &request.columns);
            self.repeats.count(request);
        }
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        for at in 0..batch.len() {
            let (Some(request), Some(explanation)) = (batch.get(at), explanations.get(at).cloned()) else { continue };
            if answers.get(at).is_some_and(Option::is_some) {
                continue;
            }
            let open = batch.iter().zip(&explanations).zip(&answers).filter(|(_, done)| done.is_none());
            self.want_values(open.map(|(asked, _)| asked));
            let begun = Instant::now();
            let (plan, found) = self.follow(&context, &batch, at, &explanation)?;
            let took = begun.elapsed();
            self.store_values();
            for (i, data, source) in found {
                let (Some(request), Some(explanation), Some(slot)) =
                    (batch.get(i), explanations.get_mut(i), answers.get_mut(i))
                else {
                    continue;
                };
                explanation.chosen =
                    explanation.considered.iter().position(|c| c.plan == plan).unwrap_or(explanation.chosen);
                explanation.actual = Some(took);
                *slot = Some(answer(request, data, source, explanation.clone()));
            }
            if answers.get(at).is_none_or(Option::is_none) {
                return Err(no_plan(request));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Follows the chosen plan of a request, and says which it was in the end: one can fail where it was thought possible
    /// (a damaged chunk, a changed dataset), and then the next one answers.
    pub(crate) fn follow(
        &self,
        context: &Context<'_>,
        batch: &[Resolved],
        at: usize,
        explanation: &Explanation,
    ) -> Result<(&'static str, Vec<plan::Answered>)> {
        let Some(request) = batch.get(at) else { return Ok(("", Vec::new())) };
        let mut first_error = None;
        for chosen in explanation.order(request.choice) {
            let Some(plan) = explanation.considered.get(chosen).map(|c| c.plan) else { continue };
            match plan::run(context, batch, at, plan) {
                Ok(found) => return Ok((plan, found)),
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        Err(first_error.unwrap_or_else(|| no_plan(request)))
    }

    /// Whether requests count as queries.
    pub(crate) fn counts(&self) -> bool {
        self.counts
    }

    pub(crate) fn count(&self, record: &IntermediateRecord, columns: &Columns) {
        if !self.counts {
            return;
        }
        if let Err(e) = self.store.count_query(record, &columns.text(record)) {
            tracing::debug!("the query is not counted: {e}");
        }
    }

    /// Looks a request's names up; `rows` replace its own.
    pub(crate) fn resolve(&self, request: &Request, rows: Option<&RowSet>) -> Result<Resolved> {
        let record = self.store.intermediate(&request.key.intermediate)?;
        let model = self.store.catalog().model_by_id(record.model_id)?;
        let selector = request.key.columns.as_ref().map(|(text, quoted)| (text.as_str(), *quoted));
        let columns = columns::resolve(&record, selector)?;
        let found = match rows {
            Some(rows) => {
                let all = rows.iter().collect();
                self.place(&record, &model, Rows::List(all), request.plan)?
            }
            None => self.rows(&record, &model, &request.rows, request.demand())?,
        };
        let Found { rows, stored, part } = found.holding(&columns.groups(&record.content));
        Ok(Resolved { record, model, columns, rows, stored, part, exact: request.exact, choice: request.plan })
    }

    /// Row_ids of a selection, and where they are stored.
    pub(crate) fn rows(
        &self,
        record: &IntermediateRecord,
        model: &ModelRecord,
        selection: &RowSelection,
        demand: Demand,
    ) -> Result<Found> {
        let rows = match selection {
            RowSelection::All => return self.all_asked(record, model, demand.plan),
            RowSelection::Range(range) => Rows::Range(range.clone()),
            RowSelection::List(ids) => Rows::List(ids.clone()),
            RowSelection::Where(predicate) => Rows::List(self.matching(record, predicate, demand)?),
        };
        self.place(record, model, rows, demand.plan)
    }

    /// All rows, or those that the question is about: of a list those that can be had.
    fn all_asked(&self, record: &IntermediateRecord, model: &ModelRecord, choice: PlanChoice) -> Result<Found> {
        let ids = match &self.about {
            RowSelection::List(ids) => ids,
            RowSelection::Range(range) => return self.place(record, model, Rows::Range(range.clone()), choice),
            RowSelection::All | RowSelection::Where(_) => return self.place(record, model, Rows::All, choice),
        };
        match self.place(record, model, Rows::List(ids.clone()), choice) {
            Ok(found) if found.stored.is_ok() || record.n_rows == 0 || self.may_run(model, choice) => Ok(found),
            Ok(_) | Err(QueryError::Engine(EngineError::NoSuchRow { .. })) => {
                let (plan, _) = self.store.plan_stored(record, ids)?;
                Ok(Found { rows: plan.rows.clone(), stored: Ok(plan), part: None })
            }
            Err(e) => Err(e),
        }
    }

    /// Whether rows that are not stored may be run.
    fn may_run(&self, model: &ModelRecord, choice: PlanChoice) -> bool {
        choice != PlanChoice::READ && self.workflows.iter().any(|w| w.runs(model) && w.unavailable(model).is_none())
    }

    pub(crate) fn place(
        &self,
        record: &IntermediateRecord,
        model: &ModelRecord,
        rows: Rows,
        choice: PlanChoice,
    ) -> Result<Found> {
        let n_dataset = model.spec.dataset.as_ref().map_or(0, |d| d.n_rows);
        let clipped = |range: &std::ops::Range<u64>| range.start.min(n_dataset)..range.end.min(n_dataset);
        // A stage's rows are those that it gave: a split or a filter has others than its dataset, or none.
        let others_can_be_run = record.stage.is_none() && model.spec.kind.gives(&record.content);
        if record.n_rows == 0 && others_can_be_run {
            let rows = match rows {
                Rows::All => RowSet::Range(0..n_dataset),
                Rows::Range(range) => RowSet::Range(clipped(&range)),
                Rows::List(ids) => RowSet::from_ids(&ids),
            };
            return Ok(Found { rows, stored: Err(NOTHING_STORED.into()), part: None });
        }
        let others = |ids: &RowSet, why: String| -> Result<Found> {
            let all: Vec<u64> = ids.iter().collect();
            let (plan, is_stored) = self.store.plan_stored(record, &all)?;
            let part = (plan.n_rows() > 0).then_some(Part { plan, is_stored });
            Ok(Found { rows: ids.clone(), stored: Err(why), part })
        };
        match (self.store.plan_rows(record, &rows), rows) {
            // Rows of the dataset that are not stored can be run, unless only stored ones are wanted.
            (Ok(plan), Rows::Range(range))
                if others_can_be_run
                    && record.n_rows < n_dataset
                    && plan.n_rows() < clipped(&range).count()
                    && self.may_run(model, choice) =>
            {
                let why = format!("{} of these rows are stored; --plan read answers those", plan.n_rows());
                others(&RowSet::Range(clipped(&range)), why)
            }
            (Ok(plan), _) => Ok(Found { rows: plan.rows.clone(), stored: Ok(plan), part: None }),
            (Err(e @ EngineError::NoSuchRow { .. }), Rows::List(ids)) if others_can_be_run => {
                match self.nowhere(record, &ids, n_dataset)? {
                    None => others(&RowSet::from_ids(&ids), e.to_string()),
                    Some(row) => {
                        let key = record.key.to_string();
                        Err(EngineError::NoSuchRow { key, row, n_rows: record.n_rows }.into())
                    }
                }
            }
            (Err(e), _) => Err(e.into()),
        }
    }

    /// The first of some rows that is neither stored nor one of the dataset's.
    fn nowhere(&self, record: &IntermediateRecord, ids: &[u64], n_dataset: u64) -> Result<Option<u64>> {
        let (_, is_stored) = self.store.plan_stored(record, ids)?;
        let mut of_rows = ids.iter().zip(is_stored);
        Ok(of_rows.find(|(id, stored)| !stored && **id >= n_dataset).map(|(id, _)| *id))
    }

    /// All rows of an intermediate: those stored, or where none is, those of the dataset that its model can be run for.
    pub(crate) fn all_rows(&self, record: &IntermediateRecord) -> Result<Vec<u64>> {
        if record.n_rows > 0 || record.stage.is_some() {
            return Ok(self.store.plan_rows(record, &Rows::All)?.rows.iter().collect());
        }
        let model = self.store.catalog().model_by_id(record.model_id)?;
        Ok((0..model.spec.dataset.map_or(0, |d| d.n_rows)).collect())
    }

    /// Row_ids of `record` that pass a predicate.
    fn matching(&self, record: &IntermediateRecord, predicate: &Predicate, demand: Demand) -> Result<Vec<u64>> {
        let ids = self.all_rows(record)?;
        let (passes, _) = self.passes(record, &ids, predicate, demand)?;
        let open = passes.iter().filter(|pass| pass.is_none()).count();
        if let (Some(hear), 1..) = (&self.notices, open) {
            let (key, all) = (&record.key, ids.len());
            hear(&format!(
                "{open} of {all} rows of {key} are left out: nulls or rows that an operand of {predicate} lacks"
            ));
        }
        Ok(ids.into_iter().zip(passes).filter(|(_, pass)| *pass == Some(true)).map(|(id, _)| id).collect())
    }

    /// Whether each of some rows passes a predicate, whose operands are relative to the model of `near`; `None` where a
    /// null or a row that an operand lacks leaves it open. Also where the operands' values came from, each source once.
    ///
    /// Errors: as [`ChunkReader::operand`] and [`ChunkReader::get`].
    pub fn passes(
        &self,
        near: &IntermediateRecord,
        rows: &[u64],
        predicate: &Predicate,
        demand: Demand,
    ) -> Result<(Vec<Option<bool>>, Vec<Source>)> {
        let mut sources = Vec::new();
        let passes = predicate.evaluate(&mut |operand, op, term| {
            let wanted = if matches!(term, Term::Text(_)) { Wanted::Text } else { Wanted::Number };
            let mut open = |text: &str| {
                let scan = self.operand_scan(&self.operand(Some(near), text, wanted)?, demand)?;
                let source = scan.scan().source();
                if !sources.contains(&source) {
                    sources.push(source);
                }
                Ok::<_, QueryError>(scan)
            };
            let is_id = |text: &str| text == ROW_ID && self.operand(Some(near), text, wanted).is_err();
            match term {
                _ if !is_id(operand) => {}
                Term::Operand(other) if is_id(other) => {
                    return Ok(vec![Some(op.holds(Some(Ordering::Equal))); rows.len()]);
                }
                Term::Operand(other) => return open(other)?.compare_ids(rows, op.flipped()),
                _ => return Column::ids(rows).compare(operand, op, term),
            }
            let compared = open(operand)?;
            match term {
                Term::Operand(other) if is_id(other) => compared.compare_ids(rows, op),
                Term::Operand(other) => compared.compare(rows, op, term, Some(&open(other)?)),
                _ => compared.compare(rows, op, term, None),
            }
        })?;
        Ok((passes, sources))
    }

    /// The key of a whole intermediate.
    pub fn key(&self, intermediate: &IntermediateKey) -> Key {
        Key { intermediate: intermediate.clone(), columns: None }
    }
}

fn none_given(request: &Request) -> QueryError {
    let key = request.key.intermediate.to_string();
    QueryError::Plan { key, plan: "an answer", why: "no request was given".into() }
}

pub(crate) fn no_plan(resolved: &Resolved) -> QueryError {
    QueryError::Plan { key: resolved.record.key.to_string(), plan: "an answer", why: "no plan was considered".into() }
}

/// Names of the columns of a request's rows, and the shape of a row.
pub(crate) fn names_and_shape(resolved: &Resolved) -> (Vec<String>, Vec<usize>) {
    match (&*resolved.record.content, &resolved.columns) {
        (Content::Table(t), Columns::Table(columns)) => {
            let name = |i: &usize| t.schema.fields().get(*i).map_or_else(String::new, |f| f.name().clone());
            (columns.iter().map(name).collect(), vec![columns.len()])
        }
        (Content::Tensor(t), Columns::Tensor(columns)) => {
            let layout = resolved.layout(t);
            let map = layout.stored;
            let names = columns::names(&layout, columns);
            let units: usize = columns.iter().map(|c| c.units.len()).sum();
            let axes = match t.unit_axis {
                UnitAxis::First => t.shape.get(1..),
                UnitAxis::Last => t.shape.get(..t.shape.len().saturating_sub(1)),
            };
            let shape = match columns.iter().all(|c| c.cell.is_none()) {
                // A map as it was logged has the axes that it was logged with.
                true if t.shape.len() > 3 && map == layout.map => {
                    std::iter::once(units).chain(axes.into_iter().flatten().copied()).collect()
                }
                true if t.shape.len() >= 3 => vec![units, map.h, map.w],
                true if t.shape.len() == 2 => vec![units, map.cells()],
                _ => vec![names.len()],
            };
            (names, shape)
        }
        _ => (Vec::new(), Vec::new()),
    }
}

pub(crate) fn answer(resolved: &Resolved, data: Data, source: Source, explanation: Explanation) -> Answer {
    let (names, shape) = names_and_shape(resolved);
    Answer {
        key: resolved.record.key.clone(),
        rows: resolved.rows.iter().collect(),
        columns: names,
        shape,
        data,
        source,
        explanation,
    }
}
