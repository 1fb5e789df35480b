//! Logging and reading back, on a store in memory.

use std::sync::Arc;

use mistique_engine::{
    Code, EngineError, IfExists, IntermediateKey, LogOptions, MemoryStorage, ModelKey, ModelSpec, Rows, Store,
    StoreOptions, TensorSpec, UnitAxis,
};

fn store() -> (Arc<MemoryStorage>, Store) {
    let storage = Arc::new(MemoryStorage::new(None).unwrap());
    let store = Store::on(storage.clone(), true, StoreOptions::default()).unwrap();
    (storage, store)
}

fn value(row: u64, i: usize) -> f32 {
    let x = ((row as f32 * 0.37 + i as f32 * 1.3).sin() * 3.0).max(0.0);
    if (row as usize + i).is_multiple_of(17) { -0.0 } else { x }
}

fn batch(rows: &[u64], n: usize) -> Vec<f32> {
    rows.iter().flat_map(|&r| (0..n).map(move |i| value(r, i))).collect()
}

fn key(model: &str, intermediate: &str) -> IntermediateKey {
    ModelKey::new("p", model).intermediate(intermediate)
}

fn spec(name: &str, shape: &[usize], scheme: &str) -> TensorSpec {
    TensorSpec::new(name, shape).with_scheme(scheme.parse().unwrap())
}

fn read(store: &Store, key: &IntermediateKey, rows: &Rows) -> (Vec<u64>, Vec<f32>) {
    let record = store.intermediate(key).unwrap();
    let n = record.tensor().unwrap().layout.stored_values();
    let plan = store.plan_rows(&record, rows).unwrap();
    let mut out = vec![f32::NAN; plan.n_rows() * n];
    store.read_f32(&record, &plan, &[0..n], &mut out).unwrap();
    (plan.rows.iter().collect(), out)
}

#[test]
fn batches_of_any_size_and_order_come_back() {
    let (_, store) = store();
    let shapes: [&[usize]; 5] = [&[3, 5, 7], &[10], &[70], &[2, 40, 41], &[]];
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handles: Vec<_> =
        shapes.iter().enumerate().map(|(i, s)| log.tensor(model, &spec(&format!("t{i}"), s, "f32")).unwrap()).collect();
    // 2,500 rows, in batches of odd sizes, each in another order.
    let mut order: Vec<u64> = (0..2500).collect();
    order.sort_by_key(|r| (r / 700 * 700) + (r * 7919) % 700);
    let mut at = 0;
    for size in [1usize, 33, 900, 7, 1024, 535] {
        let rows = &order[at..at + size];
        for (handle, shape) in handles.iter().zip(shapes) {
            log.append(*handle, rows, batch(rows, shape.iter().product())).unwrap();
        }
        at += size;
    }
    assert_eq!(at, 2500);
    assert!(store.models().unwrap().is_empty(), "nothing is visible before the commit");
    log.commit().unwrap();
    drop(log);
    for (i, shape) in shapes.iter().enumerate() {
        let n: usize = shape.iter().product();
        let (rows, values) = read(&store, &key("m", &format!("t{i}")), &Rows::All);
        assert_eq!(rows, (0..2500).collect::<Vec<_>>());
        let want = batch(&rows, n);
        assert!(values.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "t{i}");
        let list = vec![2499, 0, 700, 700, 3, 1300];
        let (rows, values) = read(&store, &key("m", &format!("t{i}")), &Rows::List(list.clone()));
        assert_eq!(rows, list);
        assert_eq!(values, batch(&list, n));
        let (rows, values) = read(&store, &key("m", &format!("t{i}")), &Rows::Range(600..800));
        assert_eq!(rows, (600..800).collect::<Vec<_>>());
        assert_eq!(values, batch(&rows, n));
    }
    assert!(store.verify(&mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn columns_are_read_alone() {
    let (_, store) = store();
    for scheme in ["f32", "f16", "bf16", "kbit(8)", "kbit(3,unit)", "threshold(0.9)", "pool(2)+f16", "pool(S)+f32"] {
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", scheme)), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[6, 16, 17], scheme)).unwrap();
        let rows: Vec<u64> = (0..300).collect();
        log.append(handle, &rows, batch(&rows, 6 * 16 * 17)).unwrap();
        log.commit().unwrap();
        drop(log);
        let record = store.intermediate(&key(scheme, "t")).unwrap();
        let layout = record.tensor().unwrap().layout;
        let (n, cells) = (layout.stored_values(), layout.stored.cells());
        let (_, all) = read(&store, &key(scheme, "t"), &Rows::All);
        for pool in [false, true] {
            for columns in [vec![0..1], vec![cells * 2..cells * 3], vec![5 * cells..n, 0..1], vec![n - 1..n, 3..5]] {
                let plan = store.plan_rows(&record, &Rows::List(vec![299, 4, 5, 6])).unwrap();
                let width: usize = columns.iter().map(|c| c.len()).sum();
                let mut out = vec![f32::NAN; 4 * width];
                store.read_f32(&record, &plan, &columns, &mut out).unwrap();
                let want: Vec<f32> = [299usize, 4, 5, 6]
                    .iter()
                    .flat_map(|r| {
                        columns.iter().flat_map(|c| all[r * n + c.start..r * n + c.end].to_vec()).collect::<Vec<_>>()
                    })
                    .collect();
                assert_eq!(out, want, "{scheme} {columns:?} {pool}");
            }
            if !pool {
                store.clear_pool();
            }
        }
    }
}

#[test]
fn equal_content_is_stored_once() {
    let (_, store) = store();
    let rows: Vec<u64> = (0..1000).collect();
    let mut written = Vec::new();
    for epoch in 0..3 {
        let mut log = store.logger(LogOptions::default()).unwrap();
        let key = ModelKey::new("p", "m").at(format!("epoch-{epoch}"));
        let model = log.model(&ModelSpec::raw(key), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[8, 8, 8], "f16")).unwrap();
        log.append(handle, &rows, batch(&rows, 512)).unwrap();
        written.push(log.commit().unwrap());
    }
    assert!(written[0].written_bytes > 0);
    assert_eq!((written[1].written_bytes, written[2].new_chunks), (0, 0));
    let stats = store.stats().unwrap();
    assert_eq!(stats.dedup_saved_bytes, 2 * stats.chunk_bytes);
    let amortised: f64 = stats.intermediates.iter().map(|i| i.stored_bytes).sum();
    assert!((amortised - stats.chunk_bytes as f64).abs() < 1e-6);
}

#[test]
fn rows_are_added_later_and_never_twice() {
    let (_, store) = store();
    let raw = ModelSpec::raw(ModelKey::new("p", "m"));
    for range in [0..100u64, 100..150] {
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&raw, IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[4], "kbit(8)")).unwrap();
        let rows: Vec<u64> = range.collect();
        log.append(handle, &rows, batch(&rows, 4)).unwrap();
        log.commit().unwrap();
        let again = log.append(handle, &[1000, 7], batch(&[1000, 7], 4));
        assert!(matches!(again, Err(EngineError::DuplicateRow { row: 7, .. })), "{again:?}");
        assert_eq!(log.missing(handle, &[7, 1000]).unwrap(), [1000]);
    }
    let (rows, _) = read(&store, &key("m", "t"), &Rows::All);
    assert_eq!(rows.len(), 150);
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&raw, IfExists::Continue).unwrap();
    assert!(matches!(log.tensor(model, &spec("t", &[5], "kbit(8)")), Err(EngineError::Conflict { what: "shape", .. })));
    assert!(matches!(log.tensor(model, &spec("t", &[4], "f16")), Err(EngineError::Conflict { what: "scheme", .. })));
    let other = ModelSpec { description: "x".into(), ..raw.clone() };
    assert!(log.model(&ModelSpec { key: ModelKey::new("p", "n"), ..other.clone() }, IfExists::Continue).is_ok());
    drop(log);
    let mut log = store.logger(LogOptions::default()).unwrap();
    assert!(matches!(log.model(&other, IfExists::Continue), Err(EngineError::Conflict { what: "description", .. })));
    let model = log.model(&other, IfExists::Replace).unwrap();
    let handle = log.tensor(model, &spec("t", &[2], "f32")).unwrap();
    log.append(handle, &[5], vec![1.0f32, 2.0]).unwrap();
    log.commit().unwrap();
    drop(log);
    assert_eq!(read(&store, &key("m", "t"), &Rows::All), (vec![5], vec![1.0, 2.0]));
    assert!(store.gc().unwrap().n_chunks > 0);
    assert_eq!(read(&store, &key("m", "t"), &Rows::All), (vec![5], vec![1.0, 2.0]));
}

#[test]
fn compact_changes_bytes_and_no_answer() {
    let (storage, store) = store();
    let rows: Vec<u64> = (0..2000).collect();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[8, 8, 8], "f16")).unwrap();
    log.append(handle, &rows, batch(&rows, 512)).unwrap();
    log.commit().unwrap();
    drop(log);
    let before = read(&store, &key("m", "t"), &Rows::All);
    let report = store.compact(&mut |_, _| {}).unwrap();
    assert!(report.after_bytes < report.before_bytes, "{report:?}");
    assert_eq!(read(&store, &key("m", "t"), &Rows::All), before);
    let again = Store::on(storage, false, StoreOptions::default()).unwrap();
    assert_eq!(read(&again, &key("m", "t"), &Rows::All), before);
    assert!(again.verify(&mut |_, _| {}).unwrap().damage.is_empty());
}

#[test]
fn channels_last_is_stored_by_unit() {
    let (_, store) = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let last = TensorSpec { unit_axis: UnitAxis::Last, ..spec("t", &[2, 3], "f32") };
    let handle = log.tensor(model, &last).unwrap();
    log.append(handle, &[0], vec![0.0f32, 1.0, 2.0, 10.0, 11.0, 12.0]).unwrap();
    log.commit().unwrap();
    drop(log);
    assert_eq!(read(&store, &key("m", "t"), &Rows::All).1, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
}

#[test]
fn other_float_types_stay_what_they_are() {
    let (_, store) = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let h64 = log.tensor(model, &TensorSpec::new("f64", &[2]).of(Code::F64)).unwrap();
    let hb = log.tensor(model, &TensorSpec::new("bf16", &[2]).of(Code::BF16)).unwrap();
    log.append(h64, &[0], vec![0.1f64, f64::MAX]).unwrap();
    let half = vec![half::bf16::from_f32(1.5), half::bf16::NEG_INFINITY];
    log.append(hb, &[0], half.clone()).unwrap();
    let wrong = log.append(hb, &[1], vec![1.0f32, 2.0]);
    assert!(matches!(wrong, Err(EngineError::Shape { .. })), "{wrong:?}");
    log.commit().unwrap();
    drop(log);
    let codes = |name: &str| {
        let record = store.intermediate(&key("m", name)).unwrap();
        let plan = store.plan_rows(&record, &Rows::All).unwrap();
        store.read_codes(&record, &plan).unwrap()
    };
    assert_eq!(codes("f64"), [0.1f64.to_le_bytes(), f64::MAX.to_le_bytes()].concat());
    assert_eq!(codes("bf16"), half.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<_>>());
}

#[test]
fn auto_keeps_its_promise() {
    let (_, store) = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[16], "auto(0.01)")).unwrap();
    let rows: Vec<u64> = (0..600).collect();
    for part in rows.chunks(50) {
        log.append(handle, part, batch(part, 16)).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    let record = store.intermediate(&key("m", "t")).unwrap();
    assert!(record.tensor().unwrap().scheme.is_auto().is_none());
    let (_, values) = read(&store, &key("m", "t"), &Rows::All);
    let want = batch(&rows, 16);
    let error: f64 = values.iter().zip(&want).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = want.iter().map(|b| f64::from(*b).powi(2)).sum();
    assert!((error / norm).sqrt() < 0.01);
}

#[test]
fn a_request_touches_only_the_pages_it_needs() {
    let (storage, store) = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[2, 16, 16], "f32")).unwrap();
    let rows: Vec<u64> = (0..128).collect();
    log.append(handle, &rows, batch(&rows, 512)).unwrap();
    log.commit().unwrap();
    drop(log);
    let record = store.intermediate(&key("m", "t")).unwrap();
    let layout = record.tensor().unwrap().layout;
    assert_eq!((layout.page_rows, layout.n_groups()), (32, 2));
    // The last byte of the second chunk belongs to the last page of unit 1: zeros that align the end follow it.
    storage.damage("partitions/0000000001.mqp", |bytes| {
        let footer = bytes.len() - 64 - 2 * 32;
        let last = (0..footer).rev().find(|i| bytes[*i] != 0).unwrap();
        bytes[last] ^= 1;
    });
    let store = Store::on(storage, false, StoreOptions::default()).unwrap();
    let read = |rows: Rows, columns: std::ops::Range<usize>| {
        let plan = store.plan_rows(&record, &rows).unwrap();
        let mut out = vec![0f32; plan.n_rows() * columns.len()];
        store.read_f32(&record, &plan, std::slice::from_ref(&columns), &mut out).map(|()| out)
    };
    assert!(read(Rows::All, 0..256).is_ok(), "unit 0 is whole");
    assert!(read(Rows::Range(0..96), 0..512).is_ok(), "the first three pages are whole");
    assert!(read(Rows::List(vec![95, 0]), 256..512).is_ok());
    assert!(matches!(read(Rows::List(vec![96]), 256..512), Err(EngineError::Corrupt { .. })));
    assert!(matches!(read(Rows::All, 0..512), Err(EngineError::Corrupt { .. })));
}

#[test]
fn a_large_read_that_comes_again_is_held() {
    let storage = Arc::new(MemoryStorage::new(None).unwrap());
    let options = StoreOptions::default().with_pool_bytes(1 << 20);
    let store = Store::on(storage, true, options).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    // 128 KiB of codes: more than a thirty-second of the pool, and less than a quarter.
    let handle = log.tensor(model, &spec("t", &[2, 16, 16], "f16")).unwrap();
    let rows: Vec<u64> = (0..128).collect();
    log.append(handle, &rows, batch(&rows, 512)).unwrap();
    log.commit().unwrap();
    drop(log);
    // As small as it gets, so that decoding takes long.
    store.compact(&mut |_, _| {}).unwrap();
    store.clear_pool();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let before = store.pool_stats();
        let (_, values) = read(&store, &key("m", "t"), &Rows::All);
        let after = store.pool_stats();
        seen.push((after.hits - before.hits, after.misses - before.misses, values));
    }
    assert_eq!((seen[0].0, seen[0].1), (0, 0), "the first time nothing is held");
    assert!(seen[1].0 == 0 && seen[1].1 > 0, "the second time it is held");
    assert_eq!((seen[2].0, seen[2].1), (seen[1].1, 0), "then it is there");
    assert!(seen[0].2 == seen[1].2 && seen[1].2 == seen[2].2);
}
