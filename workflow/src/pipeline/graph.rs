//! Which stage reads from which: names resolved, an order in which the stages can run, and circles refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::RawStage;
use super::error::{PipelineError, Spot};
use super::node::Place;
use crate::suggest::nearest;

/// A reading of another stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Index of the stage.
    pub(crate) stage: usize,
    /// The output named behind the slash.
    pub(crate) output: Option<String>,
    /// Where it is written.
    pub(crate) place: Place,
}

/// Readings of each stage, `fit` last, and an order in which the stages can run: that of the file as far as possible.
pub(crate) struct Graph {
    pub(crate) readings: Vec<Vec<Reading>>,
    pub(crate) order: Vec<usize>,
}

impl Graph {
    /// The graph of these stages.
    ///
    /// Errors: `DuplicateName`, `Unknown` for an input that no stage gives, `Cycle`.
    pub(crate) fn new(file: &Arc<str>, stages: &[RawStage]) -> Result<Self, PipelineError> {
        let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, stage) in stages.iter().enumerate() {
            if let Some(first) = by_name.insert(&stage.name, index) {
                let first = stages.get(first).map_or(0, |s| s.place.line);
                let at = Spot::new(file, stage.place);
                return Err(PipelineError::DuplicateName { at, name: stage.name.clone(), first });
            }
        }
        let resolve = |(text, place): &(String, Place)| {
            let (name, output) = text.split_once('/').map_or((text.as_str(), None), |(n, o)| (n, Some(o.to_string())));
            match by_name.get(name) {
                Some(&stage) => Ok(Reading { stage, output, place: *place }),
                None => Err(PipelineError::Unknown {
                    at: Spot::new(file, *place),
                    what: "stage".into(),
                    name: name.into(),
                    nearest: nearest(name, by_name.keys().copied()),
                    known: stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "),
                }),
            }
        };
        let readings = stages
            .iter()
            .map(|s| s.inputs.iter().chain(&s.fit).map(resolve).collect::<Result<Vec<_>, _>>())
            .collect::<Result<Vec<_>, _>>()?;
        let order = order(file, stages, &readings)?;
        Ok(Self { readings, order })
    }
}

/// Depth first in the order of the file; a stage met again while its inputs are being visited closes a circle.
fn order(file: &Arc<str>, stages: &[RawStage], readings: &[Vec<Reading>]) -> Result<Vec<usize>, PipelineError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; stages.len()];
    let mut order = Vec::with_capacity(stages.len());
    for root in 0..stages.len() {
        if state[root] != State::New {
            continue;
        }
        let mut path: Vec<(usize, usize)> = vec![(root, 0)];
        state[root] = State::Open;
        while let Some((stage, next)) = path.last_mut() {
            let stage = *stage;
            let Some(reading) = readings[stage].get(*next) else {
                state[stage] = State::Done;
                order.push(stage);
                path.pop();
                continue;
            };
            *next += 1;
            match state[reading.stage] {
                State::Done => {}
                State::New => {
                    state[reading.stage] = State::Open;
                    path.push((reading.stage, 0));
                }
                State::Open => {
                    let from = path.iter().position(|(s, _)| *s == reading.stage).unwrap_or_default();
                    let mut names: Vec<&str> =
                        path[from..].iter().rev().map(|(s, _)| stages[*s].name.as_str()).collect();
                    // In the direction of the data, closed at the stage at which it was noticed.
                    names.insert(0, &stages[reading.stage].name);
                    let at = Spot::new(file, reading.place);
                    return Err(PipelineError::Cycle { at, path: names.join(" -> ") });
                }
            }
        }
    }
    Ok(order)
}
