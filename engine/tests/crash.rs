//! A machine that stops, a disk that fails once or is full: at every file operation of a workload.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use common::{batch, damage, key, read_table, read_tensor, spec, stored, strays, table, visible};
use mistique_engine::{
    DatasetSpec, EngineError, FaultMode, FaultyStorage, IfExists, LogOptions, Logger, MemoryStorage, ModelHandle,
    ModelKey, ModelSpec, Result, Rows, Storage, Store, StoreOptions, fingerprint,
};

const TENSORS: [(&str, &[usize], &str); 3] =
    [("maps", &[3, 6, 5], "f32"), ("pooled", &[2, 7, 6], "pool(2)+f16"), ("codes", &[16], "kbit(8)")];
const WEIGHTS: &[u8] = b"the weights of a network";

/// Steps of the workload that were reported done.
const OPERATOR: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 3;
const COLLECTED: usize = 4;
const COMPACTED: usize = 5;

fn open(storage: Arc<dyn Storage>) -> Result<Store> {
    Store::on(storage, true, StoreOptions::default())
}

fn options() -> LogOptions {
    // Several partitions a commit, so that some are synced while others are written.
    LogOptions::default().with_partition_bytes(6 << 10)
}

fn append_missing(log: &mut Logger, model: ModelHandle, rows: &[u64]) -> Result<()> {
    for (name, shape, scheme) in TENSORS {
        let handle = log.tensor(model, &spec(name, shape, scheme))?;
        let missing = log.missing(handle, rows)?;
        for part in missing.chunks(17) {
            log.append(handle, part, batch(part, shape.iter().product()))?;
        }
    }
    let handle = log.table(model, "table", 9, &table(&[]).schema())?;
    let missing = log.missing(handle, rows)?;
    log.append_table(handle, &missing, &table(&missing))
}

/// A pipeline whose first stage is stored once, and whose second one is like that of others.
fn pipeline(log: &mut Logger, name: &str, of: impl Fn(f64) -> Option<f64>) -> Result<()> {
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", name)), IfExists::Continue)?;
    let mut numbers = common::Numbers::new(5);
    let values: Vec<f64> = (0..300).map(|_| numbers.below(1 << 50) as f64 / (1u64 << 50) as f64).collect();
    let batch = |values: Vec<Option<f64>>| {
        let column: ArrayRef = Arc::new(Float64Array::from(values));
        RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap()
    };
    let rows: Vec<u64> = (0..300).collect();
    for (position, stage) in [("read", [1; 16]), ("change", fingerprint(name.as_bytes()))].into_iter().enumerate() {
        let (stage, print) = stage;
        if log.link_stage(model, stage, position as i64, &print)? {
            continue;
        }
        let values = values.iter().map(|x| if position == 0 { Some(*x) } else { of(*x) }).collect();
        let batch = batch(values);
        let handle = log.table(model, stage, position as i64, &batch.schema())?;
        log.append_table(handle, &rows, &batch)?;
        log.set_stage(handle, &print)?;
    }
    Ok(())
}

/// `steps` counts what was reported done, up to `until`. Run again, it goes on where it stopped.
fn workload(store: &Store, until: usize, steps: &mut usize) -> Result<()> {
    *steps = 0;
    if until < OPERATOR {
        return Ok(());
    }
    let weights = store.put_operator(WEIGHTS, "bytes")?;
    store.put_operator(b"of no model", "bytes")?;
    *steps = OPERATOR;
    if until < FIRST {
        return Ok(());
    }
    let dataset =
        DatasetSpec { name: "d".into(), source: String::new(), fingerprint: [7; 16], n_rows: 99, row_shape: vec![4] };
    let m = ModelSpec { weights: Some(weights), dataset: Some(dataset), ..ModelSpec::raw(ModelKey::new("p", "m")) };
    let old = ModelSpec::raw(ModelKey::new("p", "old"));
    {
        let mut log = store.logger(options())?;
        let model = log.model(&m, IfExists::Continue)?;
        append_missing(&mut log, model, &(0..40).collect::<Vec<_>>())?;
        let model = log.model(&old, IfExists::Replace)?;
        let handle = log.tensor(model, &spec("t", &[50], "f32"))?;
        let rows: Vec<u64> = (500..560).collect();
        log.append(handle, &rows, batch(&rows, 50))?;
        pipeline(&mut log, "first", Some)?;
        log.commit()?;
    }
    *steps = FIRST;
    if until < SECOND {
        return Ok(());
    }
    {
        let mut log = store.logger(options())?;
        let model = log.model(&m, IfExists::Continue)?;
        let mut rows: Vec<u64> = (30..70).chain([1000, 90]).collect();
        rows.reverse();
        append_missing(&mut log, model, &rows)?;
        log.complete(model)?;
        let model = log.model(&old, IfExists::Replace)?;
        let handle = log.tensor(model, &spec("t", &[3], "f32"))?;
        log.append(handle, &[4, 2], batch(&[4, 2], 3))?;
        pipeline(&mut log, "second", |x| (x > 0.1).then_some(x))?;
        log.commit()?;
    }
    *steps = SECOND;
    if until < COLLECTED {
        return Ok(());
    }
    store.gc()?;
    *steps = COLLECTED;
    if until < COMPACTED {
        return Ok(());
    }
    store.compact(&mut |_, _| {})?;
    *steps = COMPACTED;
    Ok(())
}

/// What a store must show after so many steps, by a function that knows nothing of stores.
fn check(store: &Store, steps: usize, baseline: &[BTreeMap<String, String>], at: &str) {
    assert_eq!(damage(store), [], "{at}");
    assert_eq!(strays(store), [] as [String; 0], "{at}");
    let seen = visible(store).unwrap();
    assert!(seen == baseline[steps], "{at}: other content than after {steps} steps");
    let operators = store.catalog().operators().unwrap().len();
    // An operator that no model uses leaves with gc.
    let wanted: &[usize] = match steps {
        0 => &[0, 1],
        OPERATOR..=SECOND => &[2],
        _ => &[1],
    };
    assert!(wanted.contains(&operators), "{at}: {operators} operators");
    if steps >= OPERATOR {
        assert_eq!(store.operator(&fingerprint(WEIGHTS)).unwrap(), WEIGHTS, "{at}");
    }
    if steps < FIRST {
        assert!(seen.is_empty() && store.models().unwrap().is_empty(), "{at}: something is visible");
        return;
    }
    let mut rows: Vec<u64> = (0..40).collect();
    if steps >= SECOND {
        rows.extend((40..70).chain([90, 1000]));
    }
    for (name, shape, scheme) in TENSORS {
        let want: Vec<f32> = rows.iter().flat_map(|&r| stored(r, shape, scheme)).collect();
        assert!(read_tensor(store, &key("m", name), &Rows::All).unwrap() == (rows.clone(), want), "{at}: {name}");
    }
    let (ids, batch) = read_table(store, &key("m", "table"), &Rows::All).unwrap();
    assert!((ids, batch) == (rows.clone(), table(&rows)), "{at}: table");
    let old = store.intermediate(&key("old", "t")).unwrap();
    assert_eq!(old.n_rows, if steps >= SECOND { 2 } else { 60 }, "{at}");
    assert_eq!(store.models().unwrap()[0].complete, steps >= SECOND, "{at}");
}

/// What is visible after each number of steps when nothing fails, and the operations that it takes.
fn baseline() -> (Vec<BTreeMap<String, String>>, u64) {
    let run = |until: usize| {
        let memory = Arc::new(MemoryStorage::new(None).unwrap());
        let counting = Arc::new(FaultyStorage::new(memory, u64::MAX, FaultMode::Once));
        let store = open(counting.clone()).unwrap();
        let mut steps = 0;
        workload(&store, until, &mut steps).unwrap();
        assert_eq!(steps, until);
        let n = counting.operations();
        (visible(&store).unwrap(), n)
    };
    ((0..=COMPACTED).map(|until| run(until).0).collect(), run(COMPACTED).1)
}

/// Opens what a crash left, checks it, and runs the workload to its end.
fn recover(memory: &MemoryStorage, steps: usize, baseline: &[BTreeMap<String, String>], at: &str) {
    memory.crash();
    let store = open(Arc::new(memory.clone())).unwrap();
    check(&store, steps, baseline, at);
    let mut again = 0;
    workload(&store, COMPACTED, &mut again).unwrap_or_else(|e| panic!("{at}: not again: {e}"));
    check(&store, COMPACTED, baseline, &format!("{at}, again"));
}

#[test]
fn a_machine_that_stops_at_any_operation_loses_nothing_reported() {
    let (baseline, n) = baseline();
    assert!(n > 100, "{n} operations");
    for fail_at in 0..n {
        let memory = MemoryStorage::new(None).unwrap();
        let faulty = Arc::new(FaultyStorage::new(Arc::new(memory.clone()), fail_at, FaultMode::Crash));
        let mut steps = 0;
        let store = open(faulty.clone());
        let done = store.as_ref().map(|store| workload(store, COMPACTED, &mut steps));
        // Old files that cannot be removed any more do not make gc and compact fail.
        assert!(!matches!(done, Ok(Ok(()))) || fail_at > n - 20, "operation {fail_at} of {n} was not asked for");
        drop(store);
        recover(&memory, steps, &baseline, &format!("stopped at {fail_at} of {n}"));
    }
}

#[test]
fn a_disk_that_fails_once_is_tried_again() {
    let (baseline, n) = baseline();
    for fail_at in 0..n {
        let memory = MemoryStorage::new(None).unwrap();
        let faulty = Arc::new(FaultyStorage::new(Arc::new(memory.clone()), fail_at, FaultMode::Once));
        let at = format!("failed once at {fail_at} of {n}");
        let mut steps = 0;
        let store = open(faulty.clone()).or_else(|_| open(faulty.clone())).unwrap();
        let failed = workload(&store, COMPACTED, &mut steps);
        if let Err(e) = &failed {
            let e = match e {
                EngineError::LogFailed(e) => e,
                e => e,
            };
            assert!(e.to_string().contains("injected"), "{at}: {e}");
        }
        if fail_at % 2 == 0 {
            drop(store);
            recover(&memory, steps, &baseline, &at);
            continue;
        }
        // The same handle goes on.
        workload(&store, COMPACTED, &mut steps).unwrap_or_else(|e| panic!("{at}: not again: {e}"));
        assert_eq!(damage(&store), [], "{at}");
        assert!(visible(&store).unwrap() == baseline[COMPACTED], "{at}");
        drop(store);
        recover(&memory, COMPACTED, &baseline, &at);
    }
}

#[test]
fn a_full_disk_is_an_error_and_no_damage() {
    let (baseline, _) = baseline();
    let mut completed = false;
    for capacity in (0..).step_by(1500).take_while(|c| *c < 200_000) {
        let memory = MemoryStorage::new(Some(capacity)).unwrap();
        let store = open(Arc::new(memory.clone())).unwrap();
        let mut steps = 0;
        let done = workload(&store, COMPACTED, &mut steps);
        let at = format!("{capacity} bytes");
        if let Err(e) = done {
            let e = match &e {
                EngineError::LogFailed(e) => e,
                e => e,
            };
            let full = |e: &EngineError| match e {
                EngineError::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
                _ => false,
            };
            assert!(full(e), "{at}: {e}");
            assert!(!completed, "{at}: a smaller disk was enough");
            drop(store);
            let store = open(Arc::new(memory.clone())).unwrap();
            check(&store, steps, &baseline, &at);
            drop(store);
            recover(&memory.resized(None), steps, &baseline, &at);
            continue;
        }
        completed = true;
    }
    assert!(completed, "no disk was large enough");
}

#[test]
fn a_limit_of_bytes_is_kept() {
    let memory = Arc::new(MemoryStorage::new(None).unwrap());
    let store = open(memory.clone()).unwrap();
    let mut log = store.logger(options().with_max_bytes(Some(20_000))).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[100], "f32")).unwrap();
    let noise: Vec<f32> =
        (0..100_000).map(|i: u32| f32::from_bits(0x3F80_0000 | i.wrapping_mul(0x9E37_79B9) >> 9)).collect();
    assert!(matches!(log.reserve(20_001), Err(EngineError::NoSpace { .. })));
    log.append(handle, &(0..1000).collect::<Vec<_>>(), noise).unwrap();
    let Err(EngineError::LogFailed(e)) = log.commit() else { panic!("the limit was passed") };
    assert!(matches!(&*e, EngineError::NoSpace { available: 20_000, .. }), "{e}");
    drop(log);
    assert_eq!(strays(&store), [] as [String; 0]);
    assert!(store.models().unwrap().is_empty());
}
