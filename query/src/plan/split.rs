//! SPLIT: READ the rows that are stored and run the model for the others.

use arrow::compute::interleave_record_batch;
use mistique_engine::{Code, Content, EngineError, RowSet};

use super::{Answered, Considered, KINDS, Part, PlanChoice, PlanKind, Planning, Resolved, read, rerun};
use crate::answer::{Data, Source};
use crate::error::Result;

const NAME: &str = "SPLIT";

impl PlanChoice {
    /// The rows that are stored, and the model for the others.
    pub const SPLIT: Self = Self::Only(NAME);
}

pub(super) struct Split;

/// The request for the rows that are stored, and the one for the others.
fn halves(request: &Resolved, part: &Part) -> [Resolved; 2] {
    let pick = |stored: bool| -> Vec<u64> {
        request.rows.iter().zip(&part.is_stored).filter(|(_, s)| **s == stored).map(|(id, _)| id).collect()
    };
    let half = |ids: &[u64], stored| Resolved { rows: RowSet::from_ids(ids), stored, part: None, ..request.clone() };
    let stored = half(&pick(true), Ok(part.plan.clone()));
    let others = half(&pick(false), Err("these rows are not stored".into()));
    [Resolved { choice: PlanChoice::READ, ..stored }, Resolved { choice: PlanChoice::Auto, ..others }]
}

/// READ for the first half, and the cheapest way for the second.
fn plans(planning: &Planning<'_>, halves: &[Resolved; 2]) -> Result<std::result::Result<[Considered; 2], String>> {
    let mut chosen = Vec::with_capacity(2);
    for (at, half) in halves.iter().enumerate() {
        let Some(inner) = Planning::new(planning.context, halves, at, &[]) else { continue };
        let mut considered = Vec::new();
        for kind in KINDS.iter().filter(|k| half.choice.allows(PlanChoice::Only(k.name())) && k.name() != NAME) {
            considered.extend(kind.consider(&inner)?);
        }
        match super::cheapest(&considered, half.choice) {
            Some(i) => chosen.push(considered.swap_remove(i)),
            None => {
                let why = considered.into_iter().filter_map(|c| Some(format!("{}: {}", c.plan, c.unavailable?)));
                return Ok(Err(why.collect::<Vec<_>>().join("; ")));
            }
        }
    }
    let chosen: std::result::Result<[Considered; 2], _> = chosen.try_into();
    Ok(chosen.map_err(|_| "it has no two halves".to_string()))
}

/// Why a request has no two halves: what is stored of it, and the plan that answers it whole.
fn undivided(planning: &Planning<'_>) -> Result<String> {
    let request = planning.request;
    let is_stored = request.stored.is_ok();
    let mut said = if is_stored { "all of its rows are stored" } else { unstored(planning)? }.to_string();
    let kinds: [&dyn PlanKind; 2] = [&read::Read, &rerun::FromInput];
    for kind in kinds.iter().skip(usize::from(!is_stored)) {
        match kind.consider(planning)?.map(|considered| considered.unavailable) {
            Some(None) => return Ok(format!("{said}; use --plan {}", kind.name().to_lowercase())),
            Some(Some(why)) => said += &format!("; {}: {why}", kind.name()),
            None => {}
        }
    }
    Ok(said)
}

/// What there is of a request that is not stored, and of which no part can be read.
fn unstored(planning: &Planning<'_>) -> Result<&'static str> {
    let request = planning.request;
    let ids: Vec<u64> = request.rows.iter().collect();
    let (stored, _) = planning.context.store.plan_stored(&request.record, &ids)?;
    let groups = request.columns.groups(&request.record.content);
    let is_somewhere = |groups: &[usize]| {
        let (lacking, touched) = stored.lacking(groups);
        lacking < touched
    };
    Ok(if is_somewhere(&groups) {
        "some of its rows are stored, but not all of their values"
    } else if groups.iter().any(|group| is_somewhere(&[*group])) {
        "some of these columns are stored, but of no row all of them"
    } else {
        "no values of its rows are stored"
    })
}

fn split_source(request: &Resolved, [read, rerun]: [usize; 2], from: Source) -> Source {
    let scheme = request.record.content.scheme_text();
    Source::Split { read, scheme, rerun, from: Box::new(from), exact: read::is_lossless(request) }
}

impl PlanKind for Split {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "What is stored, and a run for the other rows"
    }

    fn consider(&self, planning: &Planning<'_>) -> Result<Option<Considered>> {
        let Some(part) = &planning.request.part else {
            let is_demanded = planning.request.choice == PlanChoice::SPLIT;
            let why = is_demanded.then(|| undivided(planning)).transpose()?;
            return Ok(why.map(|why| Considered::impossible(NAME, why)));
        };
        // Whether a value lies above a threshold, and the value itself, are no two halves of one answer.
        if matches!(&*planning.request.record.content, Content::Tensor(t) if t.layout.code == Code::Bit) {
            let why = "what is stored are bits, and what is run are values; use --plan rerun for all rows";
            return Ok(Some(Considered::impossible(NAME, why.into())));
        }
        let halves = halves(planning.request, part);
        let [stored, others] = match plans(planning, &halves)? {
            Err(why) => return Ok(Some(Considered::impossible(NAME, why))),
            Ok(plans) => plans,
        };
        let [n, m] = [halves[0].rows.len(), halves[1].rows.len()];
        let root = |a: f64, b: f64| (a * a + b * b).sqrt();
        let sum = |a: Option<std::time::Duration>, b: Option<std::time::Duration>| Some(a? + b?);
        let deviation = |a: std::time::Duration, b: std::time::Duration| {
            std::time::Duration::from_secs_f64(root(a.as_secs_f64(), b.as_secs_f64()))
        };
        Ok(Some(Considered {
            plan: NAME,
            how: format!("{n} rows: {}; {m} rows: {}", stored.how, others.how),
            predicted: sum(stored.predicted, others.predicted),
            deviation: stored.deviation.zip(others.deviation).map(|(a, b)| deviation(a, b)),
            read_bytes: stored.read_bytes + others.read_bytes,
            unavailable: None,
            source: others.source.map(|from| split_source(planning.request, [n, m], from)),
            actual: None,
        }))
    }

    fn run(&self, planning: &Planning<'_>) -> Result<Vec<Answered>> {
        let request = planning.request;
        let Some(part) = &request.part else {
            return planning.refuse(NAME, undivided(planning)?);
        };
        let halves = halves(request, part);
        let plans = plans(planning, &halves)?.or_else(|why| planning.refuse(NAME, why))?;
        let mut parts = Vec::with_capacity(2);
        for (at, considered) in plans.iter().enumerate() {
            parts.extend(super::run(planning.context, &halves, at, considered.plan)?);
        }
        let mut parts = parts.into_iter();
        let (Some((_, stored, _)), Some((_, others, from))) = (parts.next(), parts.next()) else {
            return planning.refuse(NAME, "a half of it was not answered");
        };
        let source = split_source(request, [halves[0].rows.len(), halves[1].rows.len()], from);
        match merged(stored, others, &part.is_stored)? {
            Some(data) => Ok(vec![(planning.at, data, source)]),
            None => planning.refuse(NAME, "its halves have values of two kinds"),
        }
    }
}

/// Rows of two halves in the order of the request.
fn merged(stored: Data, others: Data, is_stored: &[bool]) -> Result<Option<Data>> {
    fn rows<T: Copy>(stored: &[T], others: &[T], is_stored: &[bool]) -> Vec<T> {
        let width = (stored.len() + others.len()) / is_stored.len().max(1);
        let (mut a, mut b) = (stored.chunks_exact(width.max(1)), others.chunks_exact(width.max(1)));
        is_stored.iter().filter_map(|s| if *s { a.next() } else { b.next() }).flatten().copied().collect()
    }
    Ok(match (stored, others) {
        (Data::F32(a), Data::F32(b)) => Some(Data::F32(rows(&a, &b, is_stored))),
        (Data::F64(a), Data::F64(b)) => Some(Data::F64(rows(&a, &b, is_stored))),
        (Data::F64(a), Data::F32(b)) => {
            let b: Vec<f64> = b.into_iter().map(f64::from).collect();
            Some(Data::F64(rows(&a, &b, is_stored)))
        }
        (Data::Table(a), Data::Table(b)) => {
            let (mut i, mut j) = (0, 0);
            let next = |s: &bool| {
                let (half, at) = if *s { (0, &mut i) } else { (1, &mut j) };
                *at += 1;
                (half, *at - 1)
            };
            let order: Vec<(usize, usize)> = is_stored.iter().map(next).collect();
            Some(Data::Table(interleave_record_batch(&[&a, &b], &order).map_err(EngineError::from)?))
        }
        _ => None,
    })
}
