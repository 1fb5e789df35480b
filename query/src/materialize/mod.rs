//! Adaptive materialization (5.4.3, Alg. 3) as queries drive it: γ from what the planner predicts and what queries asked
//! for, and values of RERUNs on their way into the store.

mod repeats;
mod tap;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mistique_engine::{
    Balance, ColumnDemand, Content, Demand, GroupSize, IntermediateRecord, Materialize, MaterializeReport,
    Materializer, ModelRecord, Offer, RowSet, Rows, Store, gamma, worth_storing,
};

use crate::columns::Columns;
use crate::error::Result;
use crate::plan::{self, Context, Explanation, PlanChoice, Resolved};
use crate::reader::ChunkReader;
pub(crate) use repeats::Repeats;
pub(crate) use tap::{Net, Tap, Wanted};

/// Bytes of values that wait to be stored, at most.
const QUEUE_BYTES: usize = 256 << 20;
/// Bytes of a chunk whatever its rows: its head, its place in the catalogue, its share of a RowBlock's entry.
const CHUNK_BYTES: f64 = 256.0;

/// How long what was found of a model's weights and dataset is believed: files may change while a session lasts.
const VERIFIED_FOR: Duration = Duration::from_secs(60);

/// By model: why it cannot be run again, its weights and its dataset read to see.
#[derive(Default)]
pub(crate) struct Verified(Mutex<HashMap<i64, (Instant, Option<String>)>>);

impl Verified {
    fn get_or(&self, model_id: i64, look: impl FnOnce() -> Option<String>) -> Option<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&model_id) {
            Some((then, why)) if then.elapsed() < VERIFIED_FOR => why.clone(),
            _ => known.entry(model_id).insert_entry((Instant::now(), look())).get().1.clone(),
        }
    }
}

/// The background thread of a reader, once there was something to store.
#[derive(Default)]
pub(crate) struct Background(Mutex<Option<Arc<Materializer>>>);

impl Background {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Materializer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread, where there is one.
    fn get(&self) -> Option<Arc<Materializer>> {
        self.lock().clone()
    }

    fn get_or_start(&self, store: &Store) -> Result<Arc<Materializer>> {
        let mut thread = self.lock();
        Ok(match &*thread {
            Some(thread) => Arc::clone(thread),
            None => Arc::clone(thread.insert(Arc::new(Materializer::start(store, QUEUE_BYTES)?))),
        })
    }
}

/// γ of an intermediate, and what it is made of.
#[derive(Debug, Clone)]
pub struct GammaRecord {
    /// The intermediate.
    pub record: IntermediateRecord,
    /// What queries asked for, with t_rerun and t_read.
    pub demand: Demand,
    /// Its groups, as stored or estimated.
    pub sizes: Vec<GroupSize>,
    /// γ of Eq. 5.5, in seconds per GB.
    pub gamma: f64,
    /// γ of each group.
    pub group_gammas: Vec<f64>,
    /// Why it cannot be rerun, and so never leaves the store; `None` where it can.
    pub fixed: Option<String>,
}

impl GammaRecord {
    /// Bytes stored, amortised.
    pub fn stored_bytes(&self) -> f64 {
        self.sizes.iter().map(|s| s.stored_bytes).sum()
    }

    /// S(i): bytes when all of it is stored.
    pub fn whole_bytes(&self) -> f64 {
        self.sizes.iter().map(|s| s.whole_bytes).sum()
    }

    /// Which groups a store of that mode would not keep.
    pub fn not_worth(&self, mode: Materialize) -> Vec<bool> {
        if self.fixed.is_some() {
            return vec![false; self.sizes.len()];
        }
        worth_storing(mode, &self.group_gammas).into_iter().map(|worth| !worth).collect()
    }
}

impl ChunkReader<'_> {
    /// γ of every intermediate, by store order.
    ///
    /// Errors: `Engine`.
    pub fn gammas(&self) -> Result<Vec<GammaRecord>> {
        let store = self.store();
        let records = store.catalog().intermediates(None)?;
        let mut sizes = store.group_sizes(&records)?;
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let model = store.catalog().model_by_id(record.model_id)?;
            let sizes = sizes.remove(&record.id).unwrap_or_default();
            let demand = self.demand(&record, &model)?;
            let whole: Vec<f64> = sizes.iter().map(|s| s.whole_bytes).collect();
            let (gamma, group_gammas) = (demand.gamma(whole.iter().sum()), demand.gammas(&whole));
            let kind = model.spec.kind;
            let fixed = match kind.gives(&record.content) {
                true => self.cannot_rerun(&model),
                false => Some(format!("no run of a {} gives it", kind.name())),
            };
            all.push(GammaRecord { record, demand, sizes, gamma, group_gammas, fixed });
        }
        Ok(all)
    }

    /// What queries asked of an intermediate, and the seconds that its RERUN and READ take for all rows.
    pub(crate) fn demand(&self, record: &IntermediateRecord, model: &ModelRecord) -> Result<Demand> {
        let store = self.store();
        let counts = store.column_queries(record.id)?;
        if counts.is_empty() || record.n_rows == 0 {
            return Ok(Demand::default());
        }
        let rows = store.plan_rows(record, &Rows::All)?.rows;
        let Some(t_rerun) = rerun_seconds(&self.context(false), record, model, rows.clone())? else {
            return Ok(Demand::default());
        };
        let n_groups = record.content.n_groups();
        let mut columns = Vec::with_capacity(counts.len());
        for (text, n_query) in counts {
            // A selector of columns that it no longer has says nothing of those it has.
            let Ok(chosen) = Columns::from_text(record, &text) else { continue };
            let wanted = chosen.groups(&record.content);
            let t_read = self.read_seconds(record, model, &rows, &wanted)?;
            let groups = (0..n_groups).map(|g| wanted.contains(&g)).collect();
            columns.push(ColumnDemand { groups, n_query, t_rerun, t_read });
        }
        Ok(Demand { columns })
    }

    /// Seconds to read groups of rows, were they stored: from memory, where a run would find its inputs there.
    fn read_seconds(
        &self,
        record: &IntermediateRecord,
        model: &ModelRecord,
        rows: &RowSet,
        groups: &[usize],
    ) -> Result<f64> {
        let store = self.store();
        match &*record.content {
            Content::Tensor(_) => {
                let work = store.read_work_in_order(record, rows)?;
                let share = groups.len() as f64 / record.content.n_groups().max(1) as f64;
                Ok(store.read_estimate(record, &work)?.seconds * share)
            }
            Content::Table(_) => {
                let work = store.table_work_if_stored(record, rows.len(), groups, self.holds_inputs(model))?;
                Ok(store.table_estimate(record, &work)?.seconds)
            }
        }
    }

    /// Whether everything that a run of the model reads of its dataset is in memory.
    fn holds_inputs(&self, model: &ModelRecord) -> bool {
        let Some(workflow) = self.workflows().iter().find(|w| w.runs(model)) else { return false };
        let Ok(graph) = workflow.graph(model) else { return false };
        graph.iter().filter(|s| s.takes_dataset).all(|s| workflow.holds_input(model, &s.name))
    }

    /// Why what is stored of a model must not leave: that its files are there is not enough, they must be the same.
    fn cannot_rerun(&self, model: &ModelRecord) -> Option<String> {
        match self.workflows().iter().find(|w| w.runs(model)) {
            None => Some(format!("{} values cannot be run again", model.spec.kind.name())),
            Some(workflow) => self.verified().get_or(model.id, || workflow.lacks(model, true)),
        }
    }

    /// Says which values of the requests are wanted, should a RERUN produce them (Alg. 3). Of what is READ none are: to
    /// find that out takes as long as a small READ does.
    pub(crate) fn want_values<'r>(&self, requests: impl Iterator<Item = (&'r Resolved, &'r Explanation)>) {
        let is_read = |e: &Explanation| e.considered.get(e.chosen).is_some_and(|c| c.plan == plan::READ);
        for (request, explanation) in requests.filter(|(r, e)| self.counts() && !r.record.is_whole() && !is_read(e)) {
            match self.worth(request, explanation) {
                Ok(Some(groups)) => self.net().want(Wanted { record: request.record.clone(), groups }),
                Ok(None) => {}
                Err(e) => tracing::debug!("{} is not considered for the store: {e}", request.record.key),
            }
        }
    }

    fn worth(&self, request: &Resolved, explanation: &Explanation) -> Result<Option<Vec<bool>>> {
        let mode = self.store().materialize()?;
        let n_groups = request.record.content.n_groups();
        let groups = match mode {
            Materialize::None => return Ok(None),
            Materialize::All => vec![true; n_groups],
            Materialize::Adaptive { .. } | Materialize::Budget { .. } => {
                let bytes = self.store().estimated_group_bytes(&request.record)?;
                let mut groups = worth_storing(mode, &self.demand(&request.record, &request.model)?.gammas(&bytes));
                // A budget is shared by the γ of all rows.
                if let Materialize::Adaptive { gamma_min } = mode
                    && self.gamma_of_rows(request, explanation, &bytes)? >= gamma_min
                {
                    for group in request.columns.groups(&request.record.content) {
                        groups.iter_mut().skip(group).take(1).for_each(|g| *g = true);
                    }
                }
                groups
            }
        };
        Ok(groups.contains(&true).then_some(groups))
    }

    /// γ of the rows and columns of a request by themselves, in seconds per GB, n_query being the times that this session
    /// asked for just these before.
    fn gamma_of_rows(&self, request: &Resolved, explanation: &Explanation, bytes: &[f64]) -> Result<f64> {
        let Resolved { record, model, rows, .. } = request;
        let n_query = self.repeats().of(request);
        let chosen = explanation.considered.get(explanation.chosen).and_then(|c| c.predicted);
        let (Some(t_rerun), 1.., true) = (chosen, n_query, (rows.len() as u64) < record.n_rows) else { return Ok(0.0) };
        let groups = request.columns.groups(&record.content);
        let t_read = self.read_seconds(record, model, rows, &groups)?;
        let share = rows.len() as f64 / record.n_rows as f64;
        let group_bytes = |g: &usize| bytes.get(*g).copied().unwrap_or_default() * share + CHUNK_BYTES;
        let bytes: f64 = groups.iter().map(group_bytes).sum();
        Ok(gamma(t_rerun.as_secs_f64(), t_read, n_query as f64, bytes))
    }

    /// Hands what RERUNs gave and is wanted over to the background; nobody waits for it.
    pub(crate) fn store_values(&self) {
        let caught = self.net().take();
        for caught in caught {
            let Wanted { record, groups } = caught.wanted;
            let offered = self.balance().and_then(|balance| {
                let offer = Offer { record, groups, rows: caught.rows, values: caught.values, balance };
                Ok(self.background().get_or_start(self.store())?.offer(offer))
            });
            match offered {
                Ok(true) => {}
                Ok(false) => tracing::debug!("values of a RERUN are dropped: the queue is full"),
                Err(e) => tracing::debug!("values of a RERUN are not stored: {e}"),
            }
        }
    }

    /// What else is asked for, where the store has a byte budget.
    fn balance(&self) -> Result<Option<Balance>> {
        let store = self.store();
        if store.materialize()?.budget().is_none() {
            return Ok(None);
        }
        let verifiers = self.workflows().iter().map(|w| w.verifier()).collect();
        let mut balance = Balance { verifiers, ..Balance::default() };
        for id in store.queried()? {
            let Some(record) = store.catalog().intermediate_by_id(id)? else { continue };
            let model = store.catalog().model_by_id(record.model_id)?;
            balance.demands.insert(id, self.demand(&record, &model)?);
        }
        Ok(Some(balance))
    }

    /// Waits until what RERUNs gave and is worth it is stored, and says what was done; `None` where nothing was.
    pub fn finish_materializing(&self) -> Option<MaterializeReport> {
        self.background().get().map(|thread| thread.finish())
    }

    /// What was stored in the background so far; `None` where nothing was worth it.
    pub fn materialized(&self) -> Option<MaterializeReport> {
        self.background().get().map(|thread| thread.report())
    }
}

/// Seconds of the cheapest way to an intermediate without reading it; `None` where there is none, or none was measured.
fn rerun_seconds(
    context: &Context<'_>,
    record: &IntermediateRecord,
    model: &ModelRecord,
    rows: RowSet,
) -> Result<Option<f64>> {
    let request = Resolved {
        record: record.clone(),
        model: model.clone(),
        columns: Columns::from_text(record, "*")?,
        rows,
        stored: Err("what it takes without it is asked".into()),
        part: None,
        exact: false,
        choice: PlanChoice::Auto,
    };
    // No plan at all: it cannot be run again.
    let Ok(explained) = plan::explain(context, &[request]) else { return Ok(None) };
    let chosen = explained.first().and_then(|e| e.considered.get(e.chosen)).and_then(|c| c.predicted);
    Ok(chosen.map(|d| d.as_secs_f64()))
}
