//! The cheapest way through a model's graph: which stages to run and which to read, so that what is wanted is there.
//!
//! A stage that runs costs its time and needs its inputs; an input is there when it runs too or is read; the dataset and
//! the model are paid once. The cheapest choice is a minimum cut between "wanted" and "paid" (project selection): on a
//! chain it is the nearest stored ancestor that is worth reading, where the graph branches it is a set of them.

use std::collections::VecDeque;

/// A stage, priced in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    /// To run it over the rows it needs; `None` where it cannot.
    pub run: Option<u64>,
    /// To read it instead, where it is stored as it was logged.
    pub read: Option<u64>,
    /// The stages it takes.
    pub inputs: &'a [usize],
    /// Whether it takes the dataset.
    pub takes_dataset: bool,
}

/// A stage that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The stage.
    pub node: usize,
    /// What its answer costs when it is read; `None` where it has to run.
    pub read: Option<u64>,
}

/// What the cheapest way does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cut {
    /// Stages that run, in their order.
    pub run: Vec<usize>,
    /// Stages that are read to run from, in their order.
    pub read: Vec<usize>,
    /// Whether the dataset is needed.
    pub dataset: bool,
    /// Nanoseconds.
    pub cost: u64,
}

/// More than any sum of times.
const NEVER: u64 = 1 << 60;

/// The cheapest way to the wanted stages; `dataset` and `model` are paid once, where they are needed. `None` when there
/// is no way, because what it needs is neither stored nor can be run (nor the dataset read: `dataset` is `None`).
pub(crate) fn cheapest(nodes: &[Node<'_>], wanted: &[Wanted], dataset: Option<u64>, model: u64) -> Option<Cut> {
    const WANTED: usize = 0;
    const PAID: usize = 1;
    const DATASET: usize = 2;
    const MODEL: usize = 3;
    let there = |v: usize| 4 + 2 * v;
    let runs = |v: usize| 5 + 2 * v;
    let first_answer = 4 + 2 * nodes.len();
    let mut flow = Flow::new(first_answer + wanted.len());
    flow.edge(DATASET, PAID, dataset.unwrap_or(NEVER).min(NEVER));
    flow.edge(MODEL, PAID, model);
    let mut needed = vec![false; nodes.len()];
    for w in wanted {
        if let Some(n) = needed.get_mut(w.node) {
            *n = true;
        }
    }
    for (v, node) in nodes.iter().enumerate().rev() {
        if !needed.get(v).copied().unwrap_or_default() {
            continue;
        }
        flow.edge(there(v), runs(v), node.read.unwrap_or(NEVER));
        flow.edge(runs(v), PAID, node.run.unwrap_or(NEVER));
        flow.edge(runs(v), MODEL, NEVER);
        if node.takes_dataset {
            flow.edge(runs(v), DATASET, NEVER);
        }
        for input in node.inputs.iter().filter(|i| **i < v) {
            flow.edge(runs(v), there(*input), NEVER);
            if let Some(n) = needed.get_mut(*input) {
                *n = true;
            }
        }
    }
    for (i, w) in wanted.iter().enumerate() {
        flow.edge(WANTED, first_answer + i, NEVER);
        flow.edge(first_answer + i, runs(w.node), w.read.unwrap_or(NEVER));
    }
    let cost = flow.maximum(WANTED, PAID)?;
    let chosen = flow.reached(WANTED);
    let is = |at: usize| chosen.get(at).copied().unwrap_or_default();
    let all = 0..nodes.len();
    Some(Cut {
        run: all.clone().filter(|v| is(runs(*v))).collect(),
        read: all.filter(|v| is(there(*v)) && !is(runs(*v))).collect(),
        dataset: is(DATASET),
        cost,
    })
}

/// Maximum flow by shortest augmenting paths (Edmonds and Karp).
struct Flow {
    /// Edges that leave a vertex, by number; edge `e ^ 1` is its reverse.
    leaving: Vec<Vec<usize>>,
    to: Vec<usize>,
    left: Vec<u64>,
}

impl Flow {
    fn new(n_vertices: usize) -> Self {
        Self { leaving: vec![Vec::new(); n_vertices], to: Vec::new(), left: Vec::new() }
    }

    fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        for (from, to, capacity) in [(from, to, capacity), (to, from, 0)] {
            if let Some(leaving) = self.leaving.get_mut(from) {
                leaving.push(self.to.len());
            }
            self.to.push(to);
            self.left.push(capacity);
        }
    }

    /// For every vertex that can still be reached, the edge by which.
    fn search(&self, from: usize) -> Vec<Option<usize>> {
        let mut by: Vec<Option<usize>> = vec![None; self.leaving.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            for &e in self.leaving.get(at).into_iter().flatten() {
                let (Some(&to), Some(&left)) = (self.to.get(e), self.left.get(e)) else { continue };
                if left > 0
                    && to != from
                    && let Some(slot @ None) = by.get_mut(to)
                {
                    *slot = Some(e);
                    queue.push_back(to);
                }
            }
        }
        by
    }

    /// The flow from one vertex to another; `None` when nothing bounds it.
    fn maximum(&mut self, from: usize, to: usize) -> Option<u64> {
        let mut total = 0u64;
        loop {
            let by = self.search(from);
            let mut path = Vec::new();
            let mut at = to;
            while let Some(e) = by.get(at).copied().flatten() {
                path.push(e);
                at = self.to.get(e ^ 1).copied()?;
            }
            let Some(bottleneck) = path.iter().filter_map(|e| self.left.get(*e)).min().copied() else {
                return Some(total);
            };
            total += bottleneck;
            if total >= NEVER {
                return None;
            }
            for e in path {
                if let Some(left) = self.left.get_mut(e) {
                    *left -= bottleneck;
                }
                if let Some(left) = self.left.get_mut(e ^ 1) {
                    *left += bottleneck;
                }
            }
        }
    }

    fn reached(&self, from: usize) -> Vec<bool> {
        self.search(from).iter().enumerate().map(|(v, by)| v == from || by.is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(run: u64, read: Option<u64>, inputs: &[usize]) -> Node<'_> {
        Node { run: Some(run), read, inputs, takes_dataset: inputs.is_empty() }
    }

    fn run(node: usize) -> [Wanted; 1] {
        [Wanted { node, read: None }]
    }

    #[test]
    fn a_chain_by_hand() {
        // 0 → 1 → 2 → 3; stage 1 can be read for 5.
        let nodes = [node(10, None, &[]), node(10, Some(5), &[0]), node(10, None, &[1]), node(10, None, &[2])];
        let cut = cheapest(&nodes, &run(3), Some(3), 2).unwrap();
        assert_eq!(cut, Cut { run: vec![2, 3], read: vec![1], dataset: false, cost: 2 + 5 + 20 });
        // Not worth its price, it is run from the dataset: 2 + 3 + 40 < 2 + 30 + 20.
        let nodes = [node(10, None, &[]), node(10, Some(30), &[0]), node(10, None, &[1]), node(10, None, &[2])];
        let cut = cheapest(&nodes, &run(3), Some(3), 2).unwrap();
        assert_eq!(cut, Cut { run: vec![0, 1, 2, 3], read: vec![], dataset: true, cost: 45 });
        // Without the dataset it is the only way; without either there is none.
        assert_eq!(cheapest(&nodes, &run(3), None, 2).unwrap().read, [1]);
        assert_eq!(cheapest(&nodes, &run(0), None, 2), None);
        // Where stage 1 cannot run either, it is read; what stage 0 lacks does not matter then.
        let cannot = |read| Node { run: None, ..node(0, read, &[0]) };
        let nodes = [Node { run: None, ..node(0, None, &[]) }, cannot(Some(30)), node(10, None, &[1])];
        assert_eq!(cheapest(&nodes, &run(2), Some(3), 2).unwrap().read, [1]);
        assert_eq!(cheapest(&nodes, &run(1), Some(3), 2), None);
    }

    #[test]
    fn a_skip_connection_by_hand() {
        // 0 → 1 → 2 → 3 = 2 + 0: reading 2 alone does not do, 0 is needed too.
        let nodes = [node(10, Some(4), &[]), node(50, None, &[0]), node(50, Some(6), &[1]), node(1, None, &[2, 0])];
        let cut = cheapest(&nodes, &run(3), Some(3), 0).unwrap();
        assert_eq!(cut, Cut { run: vec![3], read: vec![0, 2], dataset: false, cost: 1 + 4 + 6 });
        // Where 0 is dear to read, it is run beside the read of 2.
        let nodes = [node(10, Some(99), &[]), node(50, None, &[0]), node(50, Some(6), &[1]), node(1, None, &[2, 0])];
        let cut = cheapest(&nodes, &run(3), Some(3), 0).unwrap();
        assert_eq!(cut, Cut { run: vec![0, 3], read: vec![2], dataset: true, cost: 1 + 6 + 10 + 3 });
    }

    #[test]
    fn one_run_for_several() {
        // 0 → 1 → 2: both 1 and 2 are wanted, and can be read for 12 each; together they run for 3 + 30.
        let nodes = [node(10, None, &[]), node(10, None, &[0]), node(10, None, &[1])];
        let wanted = |read| [Wanted { node: 1, read: Some(read) }, Wanted { node: 2, read: Some(read) }];
        assert_eq!(cheapest(&nodes, &wanted(12), Some(3), 0).unwrap().cost, 24);
        let cut = cheapest(&nodes, &wanted(40), Some(3), 0).unwrap();
        assert_eq!((cut.cost, cut.run), (33, vec![0, 1, 2]));
        // One that has to run carries the other, up to what its answer costs alone.
        let wanted = [Wanted { node: 1, read: Some(40) }, Wanted { node: 2, read: None }];
        assert_eq!(cheapest(&nodes, &wanted, Some(3), 0).unwrap().cost, 33);
    }

    /// Every set of stages to run, tried.
    fn exhaustive(nodes: &[Node<'_>], wanted: &[Wanted], dataset: Option<u64>, model: u64) -> Option<u64> {
        let mut best = None;
        'sets: for runs in 0u32..1 << nodes.len() {
            let is = |v: usize| runs >> v & 1 == 1;
            let mut cost = if runs == 0 { 0 } else { model };
            let (mut reads, mut takes) = (0u32, false);
            for (v, node) in nodes.iter().enumerate().filter(|(v, _)| is(*v)) {
                let Some(run) = node.run else { continue 'sets };
                cost += run;
                takes |= node.takes_dataset;
                node.inputs.iter().filter(|i| !is(**i)).for_each(|i| reads |= 1 << i);
                let _ = v;
            }
            for (v, node) in nodes.iter().enumerate().filter(|(v, _)| reads >> v & 1 == 1) {
                let _ = v;
                let Some(read) = node.read else { continue 'sets };
                cost += read;
            }
            for w in wanted.iter().filter(|w| !is(w.node)) {
                let Some(read) = w.read else { continue 'sets };
                cost += read;
            }
            if takes {
                let Some(dataset) = dataset else { continue };
                cost += dataset;
            }
            best = Some(best.map_or(cost, |b: u64| b.min(cost)));
        }
        best
    }

    #[test]
    fn no_other_set_of_stages_is_cheaper() {
        let mut state = 7u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..300 {
            let n = 2 + random(7) as usize;
            let inputs: Vec<Vec<usize>> =
                (0..n).map(|v| (0..v).filter(|_| random(3) == 0).collect::<Vec<_>>()).collect();
            let nodes: Vec<Node<'_>> = inputs
                .iter()
                .map(|i| Node {
                    run: (random(8) > 0).then(|| 1 + random(50)),
                    read: (random(2) == 0).then(|| 1 + random(80)),
                    inputs: i,
                    takes_dataset: i.is_empty() || random(5) == 0,
                })
                .collect();
            let wanted: Vec<Wanted> = (0..1 + random(2) as usize)
                .map(|i| Wanted { node: n - 1 - i, read: (random(2) == 0).then(|| 1 + random(90)) })
                .collect();
            let dataset = (random(4) > 0).then(|| random(20));
            let model = random(20);
            let cut = cheapest(&nodes, &wanted, dataset, model);
            assert_eq!(
                cut.as_ref().map(|c| c.cost),
                exhaustive(&nodes, &wanted, dataset, model),
                "{nodes:?} {wanted:?}"
            );
        }
    }
}
