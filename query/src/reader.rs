//! The ChunkReader: answers `get_intermediates` by READ or RERUN, whichever the cost model finds cheaper.

use std::time::Instant;

use arrow::array::Array;

use mistique_engine::{
    Content, EngineError, IntermediateKey, IntermediateRecord, Key, ModelRecord, Rerun, RowSet, Rows, Store,
};

use crate::answer::{Answer, Data, Source};
use crate::columns::{self, Columns};
use crate::error::{QueryError, Result};
use crate::plan::{self, Context, Explanation, Part, PlanChoice, Resolved};
use crate::predicate::{Comparison, Literal, Predicate};
use crate::rows::RowSelection;

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
}

/// Reads intermediates of a store, and reruns models through workflows.
pub struct ChunkReader<'a> {
    store: &'a Store,
    workflows: Vec<Box<dyn Rerun + 'a>>,
}

const NOTHING_STORED: &str = "nothing of it is stored; log it again, or run the model with --plan rerun";

/// The rows of a request, and where they are stored.
pub(crate) struct Found {
    pub rows: RowSet,
    pub stored: Result<mistique_engine::RowPlan, String>,
    pub part: Option<Part>,
}

/// Reductions over all columns of a row that a predicate can name in place of a column.
const REDUCTIONS: [&str; 5] = ["argmax", "max", "min", "mean", "norm"];

impl<'a> ChunkReader<'a> {
    /// A reader that can only READ.
    pub fn new(store: &'a Store) -> Self {
        Self { store, workflows: Vec::new() }
    }

    /// The same with a workflow that runs models again.
    #[must_use]
    pub fn with_workflow(mut self, workflow: Box<dyn Rerun + 'a>) -> Self {
        self.workflows.push(workflow);
        self
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
        let mut answers = self.answer(vec![self.resolve(request, None)?])?;
        answers.pop().ok_or_else(|| none_given(request))
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
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        for at in 0..batch.len() {
            let (Some(request), Some(explanation)) = (batch.get(at), explanations.get(at).cloned()) else { continue };
            if answers.get(at).is_some_and(Option::is_some) {
                continue;
            }
            let begun = Instant::now();
            let (plan, found) = self.follow(&context, &batch, at, &explanation)?;
            let took = begun.elapsed();
            for (i, data, source) in found {
                let (Some(request), Some(explanation), Some(slot)) =
                    (batch.get(i), explanations.get_mut(i), answers.get_mut(i))
                else {
                    continue;
                };
                explanation.chosen =
                    explanation.considered.iter().position(|c| c.plan == plan).unwrap_or(explanation.chosen);
                explanation.actual = Some(took);
                self.count(request);
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

    pub(crate) fn count(&self, request: &Resolved) {
        let columns = request.columns.text(&request.record);
        if let Err(e) = self.store.count_query(&request.record, &columns) {
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
            None => self.rows(&record, &model, &request.rows, request.plan)?,
        };
        let Found { rows, stored, part } = found;
        Ok(Resolved { record, model, columns, rows, stored, part, exact: request.exact, choice: request.plan })
    }

    /// Row_ids of a selection, and where they are stored.
    pub(crate) fn rows(
        &self,
        record: &IntermediateRecord,
        model: &ModelRecord,
        selection: &RowSelection,
        choice: PlanChoice,
    ) -> Result<Found> {
        let rows = match selection {
            RowSelection::All => Rows::All,
            RowSelection::Range(range) => Rows::Range(range.clone()),
            RowSelection::List(ids) => Rows::List(ids.clone()),
            RowSelection::Where(predicate) => Rows::List(self.matching(record, predicate)?),
        };
        self.place(record, model, rows, choice)
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
        if record.n_rows == 0 {
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
                if choice != PlanChoice::Read
                    && record.n_rows < n_dataset
                    && plan.n_rows() < clipped(&range).count()
                    && self.workflows.iter().any(|w| w.runs(model) && w.unavailable(model).is_none()) =>
            {
                let why = format!("{} of these rows are stored; --plan read answers those", plan.n_rows());
                others(&RowSet::Range(clipped(&range)), why)
            }
            (Ok(plan), _) => Ok(Found { rows: plan.rows.clone(), stored: Ok(plan), part: None }),
            (Err(e @ EngineError::NoSuchRow { .. }), Rows::List(ids)) if ids.iter().all(|id| *id < n_dataset) => {
                others(&RowSet::from_ids(&ids), e.to_string())
            }
            (Err(e), _) => Err(e.into()),
        }
    }

    /// Row_ids of `record` that pass a predicate.
    fn matching(&self, record: &IntermediateRecord, predicate: &Predicate) -> Result<Vec<u64>> {
        let plan = self.store.plan_rows(record, &Rows::All)?;
        let ids: Vec<u64> = plan.rows.iter().collect();
        let passes =
            predicate.evaluate(&mut |operand, op, literal| self.compare(record, &ids, operand, op, literal))?;
        Ok(ids.into_iter().zip(passes).filter(|(_, pass)| *pass == Some(true)).map(|(id, _)| id).collect())
    }

    fn compare(
        &self,
        record: &IntermediateRecord,
        ids: &[u64],
        operand: &str,
        op: Comparison,
        literal: &Literal,
    ) -> Result<Vec<Option<bool>>> {
        let (key, reduction) = self.operand(record, operand)?;
        let request = Request::new(key).with_rows(RowSelection::List(ids.to_vec()));
        let answer = self.get(&request)?;
        if let (Data::Table(batch), Literal::Text(text)) = (&answer.data, literal) {
            let column = batch.columns().first().filter(|_| batch.num_columns() == 1);
            let column = column.and_then(|c| c.as_any().downcast_ref::<arrow::array::StringArray>());
            let Some(column) = column else { return Err(bad_operand(operand, "it is not one text column")) };
            return Ok(column.iter().map(|v| v.map(|v| op.holds(v, text.as_str()))).collect());
        }
        let Literal::Number(number) = literal else {
            return Err(bad_operand(operand, "it holds numbers; compare it with one"));
        };
        let width = answer.columns.len();
        let values = answer.to_f64()?;
        if values.len() != width * ids.len() || (reduction.is_none() && width != 1) {
            return Err(bad_operand(
                operand,
                &format!("it has {width} columns; name one (such as u3) or one of {}", REDUCTIONS.join(", ")),
            ));
        }
        let reduce = |row: &[f64]| match reduction {
            None => row.first().copied().unwrap_or(f64::NAN),
            Some(r) => reduced(row, r),
        };
        let nulls = match &answer.data {
            Data::Table(batch) => batch.columns().first().and_then(|c| c.logical_nulls()),
            _ => None,
        };
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        let holds = |(i, row): (usize, &[f64])| valid(i).then(|| op.holds(&reduce(row), number));
        Ok(values.chunks_exact(width.max(1)).enumerate().map(holds).collect())
    }

    /// The key that an operand means: relative to the model first, then as a whole key.
    fn operand(&self, record: &IntermediateRecord, operand: &str) -> Result<(Key, Option<&'static str>)> {
        let relative = format!("{}.{operand}", record.key.model);
        let mut first_error = None;
        for text in [relative.as_str(), operand] {
            let found = text.parse::<Key>().map_err(QueryError::from).and_then(|mut key| {
                let found = self.store.intermediate(&key.intermediate)?;
                let is_table = matches!(&*found.content, Content::Table(_));
                let reduction = key
                    .columns
                    .as_ref()
                    .and_then(|(c, quoted)| REDUCTIONS.into_iter().find(|r| !quoted && !is_table && r == c));
                if reduction.is_some() {
                    key.columns = None;
                }
                Ok((key, reduction))
            });
            match found {
                Ok(found) => return Ok(found),
                Err(e) => first_error.get_or_insert(e),
            };
        }
        Err(first_error.unwrap_or_else(|| bad_operand(operand, "it names nothing")))
    }

    /// The key of a whole intermediate.
    pub fn key(&self, intermediate: &IntermediateKey) -> Key {
        Key { intermediate: intermediate.clone(), columns: None }
    }
}

fn bad_operand(operand: &str, why: &str) -> QueryError {
    QueryError::Parse { what: "operand", given: operand.to_string(), why: why.to_string(), at: 1 }
}

fn none_given(request: &Request) -> QueryError {
    let key = request.key.intermediate.to_string();
    QueryError::Plan { key, plan: "an answer", why: "no request was given".into() }
}

pub(crate) fn no_plan(resolved: &Resolved) -> QueryError {
    QueryError::Plan { key: resolved.record.key.to_string(), plan: "an answer", why: "no plan was considered".into() }
}

/// One number of a row; NaN for an empty row. Ties of `argmax` go to the first.
fn reduced(row: &[f64], reduction: &str) -> f64 {
    let by = |better: fn(f64, f64) -> bool| {
        let mut best: Option<(usize, f64)> = None;
        for (i, &v) in row.iter().enumerate() {
            if !v.is_nan() && best.is_none_or(|(_, b)| better(v, b)) {
                best = Some((i, v));
            }
        }
        best
    };
    match reduction {
        "argmax" => by(|a, b| a > b).map_or(f64::NAN, |(i, _)| i as f64),
        "max" => by(|a, b| a > b).map_or(f64::NAN, |(_, v)| v),
        "min" => by(|a, b| a < b).map_or(f64::NAN, |(_, v)| v),
        "mean" => row.iter().sum::<f64>() / row.len() as f64,
        _ => row.iter().map(|v| v * v).sum::<f64>().sqrt(),
    }
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
            let shape = match columns.iter().all(|c| c.cell.is_none()) {
                true if t.shape.len() >= 3 => vec![units, map.h, map.w],
                true if t.shape.len() == 2 => vec![units, map.cells()],
                _ => vec![names.len()],
            };
            (names, shape)
        }
        _ => (Vec::new(), Vec::new()),
    }
}

fn answer(resolved: &Resolved, data: Data, source: Source, explanation: Explanation) -> Answer {
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
