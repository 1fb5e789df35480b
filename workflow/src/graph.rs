//! Which layer reads from which: names resolved to indices, and graphs that cannot run refused.

use std::collections::BTreeMap;

use crate::error::{At, NetworkError};
use crate::network::Source;
use crate::suggest::nearest;

/// The name by which layers read the network's input.
pub(crate) const INPUT: &str = "input";

/// The layers' names and the names that they read, as described.
pub(crate) struct Graph {
    layers: Vec<(Box<At>, Option<Vec<String>>)>,
    by_name: BTreeMap<String, usize>,
}

impl Graph {
    /// The graph of these layers: where each stands, and the names that it reads (`None`: the layer before it).
    ///
    /// Errors: [`NetworkError::DuplicateName`].
    pub(crate) fn new(layers: Vec<(Box<At>, Option<Vec<String>>)>) -> Result<Self, NetworkError> {
        let mut by_name = BTreeMap::new();
        for (index, (at, _)) in layers.iter().enumerate() {
            if let Some(first) = by_name.insert(at.layer.clone(), index) {
                return Err(NetworkError::DuplicateName { at: at.clone(), first_line: layers[first].0.line });
            }
        }
        Ok(Self { layers, by_name })
    }

    /// The index of each name.
    pub(crate) fn into_names(self) -> BTreeMap<String, usize> {
        self.by_name
    }

    /// Where layer `index` reads from: only the input and layers above it.
    ///
    /// Errors: [`NetworkError::UnknownInput`], [`NetworkError::UsedBeforeDefined`], [`NetworkError::Cycle`].
    pub(crate) fn sources(&self, index: usize) -> Result<Vec<Source>, NetworkError> {
        let (at, names) = &self.layers[index];
        let Some(names) = names else {
            return Ok(vec![index.checked_sub(1).map_or(Source::Input, Source::Layer)]);
        };
        let sources = names.iter().map(|name| match self.by_name.get(name) {
            _ if name == INPUT => Ok(Source::Input),
            Some(&i) if i < index => Ok(Source::Layer(i)),
            Some(&i) => Err(match self.cycle(index, i) {
                Some(path) => NetworkError::Cycle { at: at.clone(), path },
                None => NetworkError::UsedBeforeDefined { at: at.clone(), input: name.clone() },
            }),
            None => Err(NetworkError::UnknownInput {
                at: at.clone(),
                input: name.clone(),
                nearest: nearest(name, self.by_name.keys().map(String::as_str)),
            }),
        });
        sources.collect()
    }

    /// The layers that layer `index` reads, as far as they exist.
    fn read_by(&self, index: usize) -> Vec<usize> {
        match &self.layers[index].1 {
            Some(names) => names.iter().filter_map(|n| self.by_name.get(n).copied()).collect(),
            None => index.checked_sub(1).into_iter().collect(),
        }
    }

    /// The circle `start -> … -> start`, in the direction of the data, when `from`, which `start` reads, needs `start`.
    fn cycle(&self, start: usize, from: usize) -> Option<String> {
        let mut reader = BTreeMap::from([(from, start)]);
        let mut stack = vec![from];
        while let Some(index) = stack.pop() {
            if index == start {
                let mut path = vec![start];
                let mut at = *reader.get(&start)?;
                while at != start {
                    path.push(at);
                    at = *reader.get(&at)?;
                }
                path.push(start);
                let names: Vec<&str> = path.iter().map(|&i| self.layers[i].0.layer.as_str()).collect();
                return Some(names.join(" -> "));
            }
            for next in self.read_by(index) {
                if next == start || !reader.contains_key(&next) {
                    reader.entry(next).or_insert(index);
                    stack.push(next);
                }
            }
        }
        None
    }
}
