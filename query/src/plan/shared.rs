//! SHARED: several requests for the same rows of one model are answered by one run of it.

use std::collections::HashMap;

use mistique_engine::cost::Estimate;

use super::cut::{Cut, Wanted};
use super::stages::{Copy, Stages};
use super::{Answered, Considered, PlanChoice, PlanKind, Planning, Resolved, cheapest, output};
use crate::error::Result;

pub(crate) const NAME: &str = "SHARED";

impl PlanChoice {
    /// One run of the model for several requests.
    pub const SHARED: Self = Self::Only(NAME);
}

pub(super) struct Shared;

/// One run for several requests.
struct Together<'s> {
    /// The requests that it answers, by their place in the batch, with their stages.
    members: Vec<(usize, usize)>,
    cut: Cut,
    copies: HashMap<usize, Copy<'s>>,
}

/// The cheapest run that answers this request together with others; `None` where there is nothing to share.
fn find<'s>(planning: &Planning<'_>, stages: &'s Stages<'_>) -> Result<Option<Together<'s>>> {
    let (context, request) = (planning.context, planning.request);
    // A run from the input is demanded by `rerun`; then nothing is read.
    let from_input = request.choice == PlanChoice::RERUN;
    let mut members = Vec::new();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (at, other) in planning.batch.iter().enumerate() {
        let same = other.model.id == request.model.id && other.rows == request.rows && other.choice == request.choice;
        let Ok(stage) = stages.stage(&other.record.key.intermediate) else { continue };
        if !same {
            continue;
        }
        let read = planning.earlier.get(at).and_then(|c| c.first()).filter(|c| c.unavailable.is_none());
        let read = read.and_then(|c| c.predicted).filter(|_| request.choice == PlanChoice::Auto);
        members.push((at, stage));
        wanted.push(Wanted { node: stage, read: read.map(|d| d.as_nanos() as u64) });
    }
    if members.len() < 2 {
        return Ok(None);
    }
    let nodes: Vec<usize> = members.iter().map(|(_, stage)| *stage).collect();
    let needed = stages.needed(&nodes);
    let copies = if from_input { HashMap::new() } else { stages.copies(context, &needed)? };
    let cut = stages.cut(context, &wanted, &needed, &copies, stages.no_dataset.is_none())?;
    let Some(cut) = cut else { return Ok(None) };
    members.retain(|(_, stage)| cut.run.contains(stage));
    let takes_part = members.iter().any(|(at, _)| *at == planning.at);
    Ok((members.len() > 1 && takes_part).then_some(Together { members, cut, copies }))
}

fn requests<'b>(planning: &Planning<'b>, together: &Together<'_>) -> Vec<&'b Resolved> {
    together.members.iter().filter_map(|(at, _)| planning.batch.get(*at)).collect()
}

impl PlanKind for Shared {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "One run for several keys of a model"
    }

    fn inapplicable(&self) -> &'static str {
        "it needs two or more keys of one model"
    }

    /// The predicted time is this request's share of the run, in proportion to what the requests would cost alone: so
    /// either all of them are cheaper together, or none.
    fn consider(&self, planning: &Planning<'_>) -> Result<Option<Considered>> {
        let Ok(stages) = planning.stages()? else { return Ok(None) };
        let Some(together) = find(planning, stages)? else { return Ok(None) };
        let requests = requests(planning, &together);
        let price = stages.total(planning.context, &together.cut, &together.copies, &requests)?;
        let alone = |at: usize| -> Option<f64> {
            let considered = planning.earlier.get(at)?;
            let best = considered.get(cheapest(considered, planning.request.choice)?)?;
            best.predicted.map(|d| d.as_secs_f64())
        };
        let all: Option<f64> = together.members.iter().map(|(at, _)| alone(*at)).sum();
        let share = match (alone(planning.at), all) {
            (Some(own), Some(all)) if all > 0.0 => own / all,
            _ => 1.0 / requests.len() as f64,
        };
        let in_all = price.estimate.map_or("not measured".to_string(), |e| format!("{:.2?}", e.duration()));
        let names: Vec<&str> = requests.iter().map(|r| r.record.key.intermediate.as_str()).collect();
        let sources = stages.sources(&together.cut, &together.copies);
        let read = if sources.is_empty() { String::new() } else { format!("read {sources}, ") };
        let run = stages.describe_run(&together.cut);
        let how = format!("{read}{run}, once for {}: {in_all} in all, this its share", names.join(", "));
        let estimate = price.estimate.map(|e: Estimate| e.times(share));
        let source = output::source(planning.request, (!sources.is_empty()).then_some(sources));
        Ok(Some(Considered::new(NAME, how, estimate, price.bytes * share).from(source)))
    }

    fn run(&self, planning: &Planning<'_>) -> Result<Vec<Answered>> {
        let stages = planning.stages()?.or_else(|why| planning.refuse(NAME, why))?;
        let Some(together) = find(planning, stages)? else {
            return planning.refuse(NAME, "there is nothing that one run would answer together");
        };
        let requests = requests(planning, &together);
        let names: Vec<String> = requests.iter().map(|r| r.record.key.intermediate.clone()).collect();
        let values = stages.run(planning.context, &together.cut, &together.copies, &names)?;
        let sources = (!together.cut.read.is_empty()).then(|| stages.sources(&together.cut, &together.copies));
        let mut answered = Vec::with_capacity(requests.len());
        for (((at, _), request), values) in together.members.iter().zip(requests).zip(values) {
            let data = output::shape(planning.context, request, Some(values))?;
            answered.push((*at, data, output::source(request, sources.clone())));
        }
        Ok(answered)
    }
}
