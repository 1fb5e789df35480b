//! Plans: the ways in which a request can be answered, each with its predicted cost. A further way is one more file and
//! one more line in [`KINDS`].

mod read;
mod rerun;

use std::time::Duration;

use mistique_engine::{IntermediateRecord, ModelRecord, Rerun, RowPlan, RowSet, Store, TensorContent, TensorLayout};

use crate::answer::Data;
use crate::columns::Columns;
use crate::error::{QueryError, Result};

/// Which plan a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlanChoice {
    /// The cheapest by the cost model.
    #[default]
    Auto,
    /// What is stored.
    Read,
    /// The model, run again.
    Rerun,
}

impl PlanChoice {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Read => "read",
            Self::Rerun => "rerun",
        }
    }
}

/// A request with its names looked up.
pub struct Resolved {
    /// The intermediate.
    pub record: IntermediateRecord,
    /// Its model.
    pub model: ModelRecord,
    /// The columns, in order.
    pub columns: Columns,
    /// The rows, in order.
    pub rows: RowSet,
    /// Where the rows are stored, or why they are not.
    pub stored: std::result::Result<RowPlan, String>,
    /// Whether a lossy copy will not do.
    pub exact: bool,
}

impl Resolved {
    /// How the answer's rows are divided: as stored, or as logged where exactness was asked for.
    pub(crate) fn layout(&self, content: &TensorContent) -> TensorLayout {
        let layout = content.layout;
        if self.exact { TensorLayout { stored: layout.map, ..layout } } else { layout }
    }
}

/// What plans work with.
pub struct Context<'a> {
    /// The store.
    pub store: &'a Store,
    /// Who runs models again.
    pub workflows: &'a [Box<dyn Rerun + 'a>],
}

/// A plan that was considered.
#[derive(Debug, Clone, PartialEq)]
pub struct Considered {
    /// READ or RERUN.
    pub plan: &'static str,
    /// How it would go.
    pub how: String,
    /// Predicted time; `None` where nothing was measured yet.
    pub predicted: Option<Duration>,
    /// Bytes that it reads from the store.
    pub read_bytes: u64,
    /// Why it is not possible; `None` when it is.
    pub unavailable: Option<String>,
}

/// All plans for a request, and the choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Plans, in the order of [`KINDS`].
    pub considered: Vec<Considered>,
    /// Index of the chosen plan.
    pub chosen: usize,
    /// How long it took, once it ran.
    pub actual: Option<Duration>,
}

impl Explanation {
    /// The plans to try: the chosen one, and under `auto` the other possible ones after it.
    pub(crate) fn order(&self, choice: PlanChoice) -> Vec<usize> {
        let others = (0..self.considered.len()).filter(|i| {
            choice == PlanChoice::Auto
                && *i != self.chosen
                && self.considered.get(*i).is_some_and(|c| c.unavailable.is_none())
        });
        std::iter::once(self.chosen).chain(others).collect()
    }
}

/// A kind of plan.
pub(crate) trait PlanKind: Sync {
    /// The choice that demands it.
    fn choice(&self) -> PlanChoice;
    /// Its predicted cost for a request. Runs nothing.
    fn consider(&self, context: &Context<'_>, request: &Resolved) -> Result<Considered>;
    /// Answers a request, and keeps what it measured.
    fn run(&self, context: &Context<'_>, request: &Resolved) -> Result<Data>;
}

pub(crate) const KINDS: [&dyn PlanKind; 2] = [&read::Read, &rerun::RerunPlan];

/// Considers every plan and picks one.
///
/// Errors: `Plan` when the demanded plan is not possible, or none is.
pub(crate) fn explain(context: &Context<'_>, request: &Resolved, choice: PlanChoice) -> Result<Explanation> {
    let considered = KINDS.iter().map(|k| k.consider(context, request)).collect::<Result<Vec<_>>>()?;
    let possible = |i: &usize| {
        let wanted = choice == PlanChoice::Auto || KINDS.get(*i).is_some_and(|k| k.choice() == choice);
        wanted && considered.get(*i).is_some_and(|c| c.unavailable.is_none())
    };
    // What was never measured is tried last: READ stands first, so an unmeasured store is read.
    let cost = |i: &usize| considered.get(*i).and_then(|c| c.predicted).map_or(f64::MAX, |d| d.as_secs_f64());
    let chosen = (0..considered.len()).filter(possible).min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let Some(chosen) = chosen else {
        let why = considered
            .iter()
            .zip(KINDS)
            .filter(|(_, k)| choice == PlanChoice::Auto || k.choice() == choice)
            .filter_map(|(c, _)| c.unavailable.as_ref().map(|why| format!("{}: {why}", c.plan)))
            .collect::<Vec<_>>()
            .join("; ");
        let plan = if choice == PlanChoice::Auto { "an answer" } else { choice.name() };
        return Err(QueryError::Plan { key: request.record.key.to_string(), plan, why });
    };
    Ok(Explanation { considered, chosen, actual: None })
}
