//! Scans read together: a model that several of them have to run is run once for all of them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use mistique_engine::RowSet;

use crate::answer::{Answer, Data, Source};
use crate::error::Result;
use crate::plan::{self, PlanChoice, Resolved};
use crate::reader;
use crate::scan::{Block, Scan};

/// What scans must have in common to share a run: the reader, the model, and whether nothing may be read.
type Run = (usize, i64, bool);

/// What a run gave for one of the scans.
struct Ran {
    part: Resolved,
    data: Data,
    source: Source,
    /// Of the run for all of them, in equal shares.
    took: Duration,
}

/// The values of some rows of those scans that share a run of their model; `None` for others, which are read by
/// themselves.
pub(crate) fn blocks(scans: &[&Scan<'_, '_>], rows: &[u64]) -> Vec<Option<Block>> {
    let open: Vec<usize> =
        scans.iter().enumerate().filter(|(_, s)| s.may_share() && !s.holds(rows)).map(|(i, _)| i).collect();
    let mut ran = run(scans, &open, rows);
    scans.iter().enumerate().map(|(i, scan)| Some(scan.hold(rows, ran.remove(&i)?.data))).collect()
}

/// What [`Scan::get`] answers for each of several scans.
///
/// Errors: as there.
pub fn get_together(scans: &[Scan<'_, '_>], rows: &[u64]) -> Result<Vec<Answer>> {
    let all: Vec<usize> = (0..scans.len()).collect();
    let mut ran = run(&scans.iter().collect::<Vec<_>>(), &all, rows);
    let answers = scans.iter().enumerate().map(|(i, scan)| match ran.remove(&i) {
        Some(Ran { part, data, source, took }) => {
            let mut explanation = scan.explanation().clone();
            explanation.actual = Some(took);
            Ok(reader::answer(&part, data, source, explanation))
        }
        None => scan.get(rows),
    });
    answers.collect()
}

/// Runs the models that two or more of the `open` scans have to run, once each. What fails is left to each scan's own
/// plans.
fn run(scans: &[&Scan<'_, '_>], open: &[usize], rows: &[u64]) -> HashMap<usize, Ran> {
    let mut models: BTreeMap<Run, Vec<(usize, &Scan<'_, '_>)>> = BTreeMap::new();
    for (i, scan) in open.iter().filter_map(|i| Some((*i, *scans.get(*i)?))).filter(|(_, scan)| scan.may_share()) {
        // A run from the input is demanded by `rerun`, and then nothing is read.
        let from_input = scan.resolved.choice == PlanChoice::RERUN;
        // Scans of another store's reader have models of the same numbers.
        let reader = std::ptr::from_ref(scan.reader).addr();
        models.entry((reader, scan.resolved.model.id, from_input)).or_default().push((i, scan));
    }
    let mut ran = HashMap::new();
    for ((_, _, from_input), members) in models.into_iter().filter(|(_, members)| members.len() > 1) {
        let choice = if from_input { PlanChoice::RERUN } else { PlanChoice::SHARED };
        match run_once(&members, rows, choice) {
            Ok(some) => ran.extend(some),
            Err(e) => tracing::debug!("one run for {} scans failed: {e}", members.len()),
        }
    }
    ran
}

fn run_once(members: &[(usize, &Scan<'_, '_>)], rows: &[u64], choice: PlanChoice) -> Result<Vec<(usize, Ran)>> {
    let begun = Instant::now();
    let part = |scan: &Scan<'_, '_>| Resolved {
        rows: RowSet::from_ids(rows),
        stored: Err("it is run with others".into()),
        part: None,
        choice,
        ..scan.resolved.clone()
    };
    let batch: Vec<Resolved> = members.iter().map(|(_, scan)| part(scan)).collect();
    let Some((_, first)) = members.first() else { return Ok(Vec::new()) };
    let reader = first.reader;
    reader.want_values(members.iter().map(|(_, scan)| (&scan.resolved, scan.explanation())));
    let answered = plan::run(&reader.context(false), &batch, 0, plan::SHARED)?;
    reader.store_values();
    let took = begun.elapsed() / answered.len().max(1) as u32;
    let one = |(at, data, source): plan::Answered| {
        let ((i, _), part) = (members.get(at)?, batch.get(at)?.clone());
        Some((*i, Ran { part, data, source, took }))
    };
    Ok(answered.into_iter().filter_map(one).collect())
}
