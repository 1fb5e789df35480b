//! Random operations on a store, against a map in memory.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{Numbers, batch, damage, key, spec, stored, strays};
use mistique_engine::{
    Dedup, Effort, EngineError, IfExists, IntermediateKey, LogOptions, MemoryStorage, ModelKey, ModelSpec, Rows, Store,
    StoreOptions,
};
use proptest::prelude::*;

/// Shapes with the schemes that fit them; the chunks of some hold one unit, of others all.
const KINDS: [(&[usize], &str); 8] = [
    (&[5], "f32"),
    (&[2, 3, 5], "f32"),
    (&[40], "f16"),
    (&[16], "kbit(8)"),
    (&[3, 4, 4], "threshold(=0.5)"),
    (&[2, 6, 7], "pool(2)+f16"),
    (&[20, 30, 30], "f32"),
    (&[], "f32"),
];
const MODELS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
struct Append {
    model: usize,
    kind: usize,
    first: u64,
    len: u64,
    order: u64,
}

#[derive(Debug, Clone)]
enum Op {
    /// A log: batches, commits after some of them, and whether what is left is committed too.
    Log {
        appends: Vec<(Append, bool)>,
        commit: bool,
        small: bool,
        dedup: bool,
    },
    /// A model logged anew.
    Replace(Append),
    Remove(usize),
    Gc,
    Compact,
    Reopen,
    Crash,
}

fn append() -> impl Strategy<Value = Append> {
    let len = prop_oneof![4 => 0u64..40, 1 => 900u64..1300];
    let first = prop_oneof![3 => 0u64..60, 2 => 0u64..3000, 1 => Just(1 << 40)];
    (0..MODELS.len(), 0..KINDS.len(), first, len, any::<u64>()).prop_map(|(model, kind, first, len, order)| {
        // Rows of 72,000 bytes are logged few at a time.
        let len = if KINDS[kind].0.len() == 3 && KINDS[kind].0[0] == 20 { len % 20 } else { len };
        Append { model, kind, first, len, order }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (prop::collection::vec((append(), prop::bool::weighted(0.2)), 0..5), prop::bool::weighted(0.8), any::<bool>(),
              prop::bool::weighted(0.8))
            .prop_map(|(appends, commit, small, dedup)| Op::Log { appends, commit, small, dedup }),
        1 => append().prop_map(Op::Replace),
        1 => (0..MODELS.len()).prop_map(Op::Remove),
        1 => Just(Op::Gc),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

/// Rows of each intermediate of each model.
type Oracle = BTreeMap<(usize, usize), BTreeSet<u64>>;

struct Case {
    storage: MemoryStorage,
    store: Store,
    oracle: Oracle,
    models: BTreeSet<usize>,
}

fn model_key(model: usize) -> ModelKey {
    ModelKey::new("p", MODELS[model])
}

fn name(kind: usize) -> String {
    format!("{:?} {}", KINDS[kind].0, KINDS[kind].1)
}

fn intermediate(model: usize, kind: usize) -> IntermediateKey {
    key(MODELS[model], &name(kind))
}

fn rows(append: &Append) -> Vec<u64> {
    let mut rows: Vec<u64> = (append.first..append.first + append.len).collect();
    match append.order % 3 {
        0 => {}
        1 => rows.reverse(),
        _ => Numbers::new(append.order).shuffle(&mut rows),
    }
    rows
}

impl Case {
    fn new() -> Self {
        let storage = MemoryStorage::new(None).unwrap();
        let store = Self::open(&storage);
        Self { storage, store, oracle: Oracle::new(), models: BTreeSet::new() }
    }

    fn open(storage: &MemoryStorage) -> Store {
        // A pool so small that pages leave it.
        Store::on(Arc::new(storage.clone()), true, StoreOptions::default().with_pool_bytes(100_000)).unwrap()
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Log { appends, commit, small, dedup } => self.log(appends, *commit, *small, *dedup, IfExists::Continue),
            Op::Replace(append) => {
                self.oracle.retain(|(model, _), _| *model != append.model);
                self.log(&[(append.clone(), false)], true, false, true, IfExists::Replace);
            }
            Op::Remove(model) => {
                if self.models.remove(model) {
                    let id = self.store.model(&model_key(*model)).unwrap().id;
                    self.store.catalog().remove_model(id).unwrap();
                    self.oracle.retain(|(m, _), _| m != model);
                }
            }
            Op::Gc => {
                self.store.gc().unwrap();
            }
            Op::Compact => {
                self.store.compact(&mut |_, _| {}).unwrap();
            }
            Op::Reopen => self.store = Self::open(&self.storage),
            Op::Crash => {
                self.storage.crash();
                self.store = Self::open(&self.storage);
            }
        }
    }

    fn log(&mut self, appends: &[(Append, bool)], commit: bool, small: bool, dedup: bool, exists: IfExists) {
        let options = LogOptions::default()
            .with_effort(if small { Effort::Small } else { Effort::Fast })
            .with_budget_bytes(if small { 200_000 } else { 64 << 20 })
            .with_dedup(if dedup { Dedup::Approximate } else { Dedup::Off })
            .with_partition_bytes(100_000);
        let mut log = self.store.logger(options).unwrap();
        let (mut oracle, mut models) = (self.oracle.clone(), self.models.clone());
        for (append, then_commit) in appends {
            let model = log.model(&ModelSpec::raw(model_key(append.model)), exists).unwrap();
            models.insert(append.model);
            let (shape, scheme) = KINDS[append.kind];
            let handle = log.tensor(model, &spec(&name(append.kind), shape, scheme)).unwrap();
            let have = oracle.entry((append.model, append.kind)).or_default();
            let rows = rows(append);
            let missing: Vec<u64> = rows.iter().copied().filter(|r| !have.contains(r)).collect();
            assert_eq!(log.missing(handle, &rows).unwrap(), missing);
            let n = shape.iter().product();
            if missing.len() < rows.len() {
                // All of a batch is refused with one row of it.
                let refused = log.append(handle, &rows, batch(&rows, n));
                assert!(
                    matches!(refused, Err(EngineError::DuplicateRow { row, .. }) if have.contains(&row)),
                    "{refused:?}"
                );
            }
            log.append(handle, &missing, batch(&missing, n)).unwrap();
            have.extend(missing);
            if *then_commit {
                log.commit().unwrap();
                (self.oracle, self.models) = (oracle.clone(), models.clone());
            }
        }
        if commit {
            log.commit().unwrap();
            (self.oracle, self.models) = (oracle, models);
        }
    }

    fn check(&self, numbers: &mut Numbers) {
        let models: BTreeSet<String> = self.store.models().unwrap().into_iter().map(|m| m.spec.key.model).collect();
        assert_eq!(models, self.models.iter().map(|m| MODELS[*m].to_string()).collect());
        assert_eq!(strays(&self.store), [] as [String; 0]);
        for model in 0..MODELS.len() {
            for kind in 0..KINDS.len() {
                let Some(rows) = self.oracle.get(&(model, kind)) else {
                    let found = self.store.intermediate(&intermediate(model, kind));
                    assert!(matches!(found, Err(EngineError::NotFound { .. })));
                    continue;
                };
                let sorted: Vec<u64> = rows.iter().copied().collect();
                assert_eq!(self.store.intermediate(&intermediate(model, kind)).unwrap().n_rows, sorted.len() as u64);
                self.read(model, kind, &Rows::All, &sorted, numbers);
                let (a, b) = (numbers.below(3000), numbers.below(3000));
                let (a, b) = (a.min(b), a.max(b));
                let want: Vec<u64> = rows.range(a..b).copied().collect();
                self.read(model, kind, &Rows::Range(a..b), &want, numbers);
                if sorted.is_empty() {
                    continue;
                }
                let n = numbers.below(50);
                let list: Vec<u64> = (0..n).map(|_| sorted[numbers.below(sorted.len() as u64) as usize]).collect();
                self.read(model, kind, &Rows::List(list.clone()), &list, numbers);
                let record = self.store.intermediate(&intermediate(model, kind)).unwrap();
                let absent = (0..).find(|r| !rows.contains(r)).unwrap();
                let refused = self.store.plan_rows(&record, &Rows::List(vec![sorted[0], absent]));
                assert!(matches!(refused, Err(EngineError::NoSuchRow { row, .. }) if row == absent));
            }
        }
    }

    fn read(&self, model: usize, kind: usize, rows: &Rows, want: &[u64], numbers: &mut Numbers) {
        let (shape, scheme) = KINDS[kind];
        let record = self.store.intermediate(&intermediate(model, kind)).unwrap();
        let plan = self.store.plan_rows(&record, rows).unwrap();
        assert_eq!(plan.rows.iter().collect::<Vec<_>>(), want);
        let n = record.tensor().unwrap().layout.stored_values();
        // Everything, or up to three stretches of columns in any order, overlapping or empty.
        let columns = match numbers.below(2) {
            0 => std::iter::once(0..n).collect(),
            _ => {
                let mut one = || {
                    let (a, b) = (numbers.below(n as u64 + 1) as usize, numbers.below(n as u64 + 1) as usize);
                    a.min(b)..a.max(b)
                };
                vec![one(), one(), one()]
            }
        };
        let width: usize = columns.iter().map(|c| c.len()).sum();
        let mut out = vec![f32::NAN; want.len() * width];
        self.store.read_f32(&record, &plan, &columns, &mut out).unwrap();
        let mut got = out.chunks(width.max(1));
        for row in want {
            let values = stored(*row, shape, scheme);
            let expected: Vec<u32> =
                columns.iter().flat_map(|c| values[c.clone()].iter().map(|v| v.to_bits())).collect();
            let got: Vec<u32> =
                if width == 0 { vec![] } else { got.next().unwrap().iter().map(|v| v.to_bits()).collect() };
            assert!(got == expected, "{} row {row} columns {columns:?}", record.key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map(ops in prop::collection::vec(op(), 1..9), seed in any::<u64>()) {
        let mut case = Case::new();
        let mut numbers = Numbers::new(seed);
        for op in &ops {
            case.run(op);
            case.check(&mut numbers);
        }
        prop_assert_eq!(damage(&case.store), []);
    }
}

fn committed(store: &Store, scheme: &str, parts: &[&[u64]]) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    for rows in parts {
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[16], scheme)).unwrap();
        log.append(handle, rows, batch(rows, 16)).unwrap();
        log.commit().unwrap();
    }
}

/// Scheme, parameters and layout are settled by the first rows, which may come after the first commit.
#[test]
fn an_intermediate_without_rows_is_committed_first() {
    for scheme in ["kbit(8)", "lloyd(8)", "auto(0.000001)", "auto(0.1)", "threshold(0.9)", "f32"] {
        for same_log in [true, false] {
            let storage = MemoryStorage::new(None).unwrap();
            let store = Case::open(&storage);
            committed(&store, scheme, &[&[]]);
            let (rows, values) = common::read_tensor(&store, &key("m", "t"), &Rows::All).unwrap();
            assert!(rows.is_empty() && values.is_empty());
            assert_eq!(damage(&store), []);
            let rows: Vec<u64> = (0..50).collect();
            match same_log {
                true => {
                    let other = MemoryStorage::new(None).unwrap();
                    let store = Case::open(&other);
                    committed(&store, scheme, &[&[], &rows]);
                    check_settled(&store, scheme, &rows);
                }
                false => {
                    committed(&store, scheme, &[&rows]);
                    check_settled(&store, scheme, &rows);
                }
            }
        }
    }
}

fn check_settled(store: &Store, scheme: &str, rows: &[u64]) {
    let record = store.intermediate(&key("m", "t")).unwrap();
    assert!(record.tensor().unwrap().scheme.is_auto().is_none());
    let (got, values) = common::read_tensor(store, &key("m", "t"), &Rows::All).unwrap();
    assert_eq!(got, rows);
    if !scheme.starts_with("threshold") {
        let worst = values.iter().zip(batch(rows, 16)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < if scheme == "auto(0.1)" { 1.0 } else { 1e-6 }, "{scheme}: {worst}");
    }
    // And it goes on.
    committed(store, scheme, &[&[1000]]);
    assert_eq!(common::read_tensor(store, &key("m", "t"), &Rows::All).unwrap().0.len(), rows.len() + 1);
}

#[test]
fn shapes_without_values_are_refused() {
    let store = Case::open(&MemoryStorage::new(None).unwrap());
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    for shape in [&[0][..], &[3, 0], &[0, 4, 4], &[1 << 29], &[1 << 40, 1 << 40], &[usize::MAX, 2]] {
        for scheme in ["f32", "kbit(8)", "pool(2)+f16"] {
            let refused = log.tensor(model, &spec("t", shape, scheme));
            assert!(matches!(refused, Err(EngineError::Shape { .. })), "{shape:?} {scheme}");
        }
    }
    // The log goes on.
    let handle = log.tensor(model, &spec("t", &[1], "f32")).unwrap();
    log.append(handle, &[0], vec![1.0f32]).unwrap();
    log.commit().unwrap();
}
