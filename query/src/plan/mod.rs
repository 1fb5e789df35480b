//! Plans: the ways in which a request can be answered, each with its predicted cost. A further way is one more file and
//! one more line in [`KINDS`].

mod ancestor;
mod cut;
mod output;
mod read;
mod rerun;
mod shared;
mod split;
mod stages;

use std::cell::OnceCell;
use std::time::Duration;

use mistique_engine::{
    IntermediateRecord, ModelRecord, Rerun, RowPlan, RowSet, Store, TensorContent, TensorLayout, cost::Estimate,
};

use crate::answer::{Data, Source};
use crate::columns::Columns;
use crate::error::{QueryError, Result};
pub(crate) use read::NAME as READ;
pub(crate) use shared::NAME as SHARED;
use stages::Stages;

/// Which plan a caller wants. Every kind of plan has a constant for it, in its own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlanChoice {
    /// The cheapest by the cost model.
    #[default]
    Auto,
    /// Plans of this name alone.
    Only(&'static str),
}

impl PlanChoice {
    /// All of them, each with what it means.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        let auto = (Self::Auto, "The cheapest by the measured costs");
        std::iter::once(auto).chain(KINDS.iter().map(|kind| (Self::Only(kind.name()), kind.about())))
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Only(name) => name.to_lowercase(),
        }
    }

    fn allows(self, kind: Self) -> bool {
        self == Self::Auto || self == kind || (self == Self::RERUN && kind == Self::SHARED)
    }
}

impl std::str::FromStr for PlanChoice {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self> {
        Self::all().map(|(choice, _)| choice).find(|choice| choice.name() == text).ok_or_else(|| {
            let names: Vec<String> = Self::all().map(|(choice, _)| choice.name()).collect();
            let why = format!("expected {}", names.join(", "));
            QueryError::Parse { what: "plan", given: text.to_string(), why, at: 1 }
        })
    }
}

/// A request with its names looked up.
#[derive(Clone)]
pub struct Resolved {
    /// The intermediate.
    pub record: IntermediateRecord,
    /// Its model.
    pub model: ModelRecord,
    /// The columns, in order.
    pub columns: Columns,
    /// The rows, in order.
    pub rows: RowSet,
    /// Where the rows are stored, or why not all of them are.
    pub stored: std::result::Result<RowPlan, String>,
    /// The rows that are stored where some are not.
    pub part: Option<Part>,
    /// Whether a lossy copy will not do.
    pub exact: bool,
    /// The plan that the caller wants.
    pub choice: PlanChoice,
}

/// The rows of a request that are stored, and those that are not.
#[derive(Clone)]
pub struct Part {
    /// Where the stored ones lie.
    pub plan: RowPlan,
    /// For each row of the request, whether it is stored.
    pub is_stored: Vec<bool>,
}

impl Resolved {
    /// How the answer's rows are divided: as stored, or as logged where exactness was asked for.
    pub(crate) fn layout(&self, content: &TensorContent) -> TensorLayout {
        let layout = content.layout;
        if self.exact { layout.unpooled() } else { layout }
    }

    fn key(&self) -> String {
        self.record.key.to_string()
    }
}

/// What plans work with.
pub struct Context<'a> {
    /// The store.
    pub store: &'a Store,
    /// Who runs models again.
    pub workflows: &'a [Box<dyn Rerun + 'a>],
    /// Whether models and datasets are compared with what was logged before a plan is called possible. It reads them.
    pub verify: bool,
}

/// A plan that was considered.
#[derive(Debug, Clone, PartialEq)]
pub struct Considered {
    /// READ, RERUN, ANCESTOR, SPLIT or SHARED.
    pub plan: &'static str,
    /// How it would go.
    pub how: String,
    /// Predicted time; `None` where nothing was measured yet.
    pub predicted: Option<Duration>,
    /// One standard deviation of the predicted time, from the variance of what was measured.
    pub deviation: Option<Duration>,
    /// Bytes that it reads: codes of the store before compression, weights that are not loaded, the dataset's rows as
    /// float32 or its whole files; values that a generator makes are none.
    pub read_bytes: u64,
    /// Why it is not possible; `None` when it is.
    pub unavailable: Option<String>,
    /// What its answer would say of where it came from.
    pub source: Option<Source>,
    /// How long it took, where it ran.
    pub actual: Option<Duration>,
}

impl Considered {
    fn new(plan: &'static str, how: String, predicted: Option<Estimate>, read_bytes: f64) -> Self {
        Self {
            plan,
            how,
            predicted: predicted.map(Estimate::duration),
            deviation: predicted.map(Estimate::deviation),
            read_bytes: read_bytes as u64,
            unavailable: None,
            source: None,
            actual: None,
        }
    }

    fn from(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    fn impossible(plan: &'static str, why: String) -> Self {
        Self { unavailable: Some(why), ..Self::new(plan, String::new(), None, 0.0) }
    }

    /// Predicted seconds; what was never measured is tried last.
    fn seconds(&self) -> f64 {
        self.predicted.map_or(f64::MAX, |d| d.as_secs_f64())
    }

    /// The choice that demands this plan.
    pub fn choice(&self) -> PlanChoice {
        PlanChoice::Only(self.plan)
    }
}

/// All plans for a request, and the choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The plans, always in the same order; SPLIT and SHARED where they apply.
    pub considered: Vec<Considered>,
    /// Index of the chosen plan.
    pub chosen: usize,
    /// How long it took, once it ran.
    pub actual: Option<Duration>,
    /// Whether the answer was held from before, so that nothing ran.
    pub cached: bool,
}

impl Explanation {
    /// The plans to try: the chosen one, then the other possible ones that were allowed.
    pub(crate) fn order(&self, choice: PlanChoice) -> Vec<usize> {
        let mut others: Vec<usize> = possible(&self.considered, choice).filter(|i| *i != self.chosen).collect();
        let seconds = |i: &usize| self.considered.get(*i).map_or(f64::MAX, Considered::seconds);
        others.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        std::iter::once(self.chosen).chain(others).collect()
    }
}

fn possible(considered: &[Considered], choice: PlanChoice) -> impl Iterator<Item = usize> + '_ {
    considered
        .iter()
        .enumerate()
        .filter(move |(_, c)| c.unavailable.is_none() && choice.allows(c.choice()))
        .map(|(i, _)| i)
}

/// The cheapest possible plan.
fn cheapest(considered: &[Considered], choice: PlanChoice) -> Option<usize> {
    let seconds = |i: &usize| considered.get(*i).map_or(f64::MAX, Considered::seconds);
    possible(considered, choice).min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
}

/// A request among those asked for together, and what is known of running its model.
pub(crate) struct Planning<'a> {
    pub context: &'a Context<'a>,
    pub batch: &'a [Resolved],
    pub at: usize,
    pub request: &'a Resolved,
    /// The model's stages, once a plan asked for them: READ does without.
    stages: OnceCell<std::result::Result<Stages<'a>, String>>,
    /// Plans that were considered before for every request of the batch.
    pub earlier: &'a [Vec<Considered>],
}

impl<'a> Planning<'a> {
    pub(crate) fn new(
        context: &'a Context<'a>,
        batch: &'a [Resolved],
        at: usize,
        earlier: &'a [Vec<Considered>],
    ) -> Option<Self> {
        let request = batch.get(at)?;
        Some(Self { context, batch, at, request, stages: OnceCell::new(), earlier })
    }

    /// The model's stages, priced; or why it cannot be run.
    ///
    /// Errors: those of the store.
    pub(crate) fn stages(&self) -> Result<std::result::Result<&Stages<'a>, String>> {
        let stages = match self.stages.get() {
            Some(stages) => stages,
            None => {
                let priced = Stages::price(self.context, &self.request.model, &self.request.rows)?;
                self.stages.get_or_init(|| priced)
            }
        };
        Ok(stages.as_ref().map_err(Clone::clone))
    }

    fn refuse<T>(&self, plan: &'static str, why: impl Into<String>) -> Result<T> {
        Err(QueryError::Plan { key: self.request.key(), plan, why: why.into() })
    }
}

/// Values for one request of the batch, by its place, and where they came from.
pub(crate) type Answered = (usize, Data, Source);

/// A kind of plan.
pub(crate) trait PlanKind: Sync {
    /// Its name in explanations.
    fn name(&self) -> &'static str;
    /// What it does, in a few words.
    fn about(&self) -> &'static str;
    /// Why it is not among the plans of a request to which it does not apply.
    fn inapplicable(&self) -> &'static str {
        "it does not apply"
    }
    /// Its predicted cost for a request; `None` where it does not apply. Runs nothing.
    fn consider(&self, planning: &Planning<'_>) -> Result<Option<Considered>>;
    /// Answers a request, and what else of the batch comes with it.
    fn run(&self, planning: &Planning<'_>) -> Result<Vec<Answered>>;
}

/// All kinds. READ stands first, so that an unmeasured store is read; SHARED last, since it weighs the others.
pub(crate) const KINDS: [&dyn PlanKind; 5] =
    [&read::Read, &rerun::FromInput, &ancestor::FromAncestor, &split::Split, &shared::Shared];

/// Considers every plan for every request of a batch and picks one each.
///
/// Errors: `Plan` when the demanded plan is not possible, or none is.
pub(crate) fn explain(context: &Context<'_>, batch: &[Resolved]) -> Result<Vec<Explanation>> {
    let mut all: Vec<Vec<Considered>> = vec![Vec::new(); batch.len()];
    let (shared, single) = KINDS.split_last().ok_or_else(|| QueryError::Plan {
        key: String::new(),
        plan: "an answer",
        why: "there are no kinds of plans".into(),
    })?;
    for (at, considered) in all.iter_mut().enumerate() {
        let Some(planning) = Planning::new(context, batch, at, &[]) else { continue };
        for kind in single {
            considered.extend(kind.consider(&planning)?);
        }
    }
    if batch.len() > 1 {
        let earlier = all.clone();
        for (at, considered) in all.iter_mut().enumerate() {
            let Some(planning) = Planning::new(context, batch, at, &earlier) else { continue };
            considered.extend(shared.consider(&planning)?);
        }
    }
    all.into_iter().zip(batch).map(|(considered, request)| choose(considered, request)).collect()
}

fn choose(considered: Vec<Considered>, request: &Resolved) -> Result<Explanation> {
    let choice = request.choice;
    if let Some(chosen) = cheapest(&considered, choice) {
        return Ok(Explanation { considered, chosen, actual: None, cached: false });
    }
    let mut why = considered
        .iter()
        .filter(|c| choice.allows(c.choice()))
        .filter_map(|c| c.unavailable.as_ref().map(|why| format!("{}: {why}", c.plan)))
        .collect::<Vec<_>>()
        .join("; ");
    // A plan that is not possible either is no advice.
    let can_rerun = considered.iter().any(|c| c.choice() == PlanChoice::RERUN && c.unavailable.is_none());
    if choice == PlanChoice::READ && can_rerun {
        why += "; or use --plan rerun";
    }
    let plan = if let PlanChoice::Only(name) = choice { name } else { "an answer" };
    let kind = KINDS.iter().find(|k| k.name() == plan);
    let why = if why.is_empty() { kind.map_or("there is none", |k| k.inapplicable()).into() } else { why };
    Err(QueryError::Plan { key: request.key(), plan, why })
}

/// Runs a considered plan of a request.
///
/// Errors: those of the plan.
pub(crate) fn run(context: &Context<'_>, batch: &[Resolved], at: usize, plan: &str) -> Result<Vec<Answered>> {
    // What each request would cost alone decides who takes part in a shared run.
    let weighs = batch.iter().any(|request| request.choice == PlanChoice::Auto);
    let earlier = if plan == shared::NAME && weighs {
        let alone = |i| -> Result<Vec<Considered>> {
            let Some(planning) = Planning::new(context, batch, i, &[]) else { return Ok(Vec::new()) };
            let single = KINDS.iter().filter(|k| k.name() != shared::NAME);
            let considered = single.map(|k| k.consider(&planning)).collect::<Result<Vec<_>>>()?;
            Ok(considered.into_iter().flatten().collect())
        };
        (0..batch.len()).map(alone).collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let Some(planning) = Planning::new(context, batch, at, &earlier) else { return Ok(Vec::new()) };
    match KINDS.iter().find(|k| k.name() == plan) {
        Some(kind) => kind.run(&planning),
        None => Ok(Vec::new()),
    }
}
