//! Questions by example give what a brute force over all values gives, with an index or without one, whatever the values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mistique_engine::{
    Code, DatasetSpec, EngineError, Given, IfExists, IntermediateKey, LogOptions, MapValue, MemoryStorage, ModelKey,
    ModelKind, ModelRecord, ModelSpec, Rerun, RerunValues, Scheme, StageNode, Storage, Store, StoreOptions, TensorSpec,
};
use mistique_query::{ByExample, ChunkReader, Examples, IndexUse, Norm, PlanChoice, QueryError, RowSelection, Source};
use proptest::prelude::*;

fn key() -> ModelKey {
    ModelKey::new("p", "m")
}

fn layer() -> IntermediateKey {
    key().intermediate("t")
}

fn memory() -> (Arc<dyn Storage>, Store) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(None).unwrap());
    let store = Store::on(Arc::clone(&storage), true, StoreOptions::default()).unwrap();
    (storage, store)
}

fn log(store: &Store, shape: &[usize], scheme: &str, rows: &[u64], values: &[f32]) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(key()), IfExists::Continue).unwrap();
    let spec = TensorSpec::new("t", shape).with_scheme(scheme.parse::<Scheme>().unwrap());
    let handle = log.tensor(model, &spec).unwrap();
    log.append(handle, rows, values.to_vec()).unwrap();
    log.commit().unwrap();
}

/// The definition, by sorting all rows.
fn brute_force(rows: &[u64], activations: &[Vec<f32>], like: Option<u64>, norm: Norm, k: usize) -> Vec<(u64, f64)> {
    let like = like.map(|row| (row, activations[rows.iter().position(|r| *r == row).unwrap()].clone()));
    let mut scored: Vec<(u64, f64)> = Vec::new();
    for (row, of) in rows.iter().zip(activations) {
        if like.as_ref().is_some_and(|(l, _)| l == row) || of.iter().any(|v| v.is_nan()) {
            continue;
        }
        let of = of.iter().map(|v| f64::from(*v));
        let score = match &like {
            Some((_, other)) => {
                let apart = of.zip(other).map(|(a, b)| (a - f64::from(*b)).abs());
                match norm {
                    Norm::L1 => apart.sum(),
                    Norm::L2 => apart.map(|a| a * a).sum::<f64>().sqrt(),
                    // Infinities that meet are NaN, and stay so.
                    Norm::LInf => {
                        apart.fold(0.0, |m: f64, a| if a.is_nan() || m.is_nan() { f64::NAN } else { m.max(a) })
                    }
                }
            }
            None => match norm {
                Norm::L1 => of.sum(),
                Norm::L2 => {
                    let s: f64 = of.map(|v| v * v.abs()).sum();
                    if s < 0.0 { -(-s).sqrt() } else { s.sqrt() }
                }
                Norm::LInf => of.fold(f64::NEG_INFINITY, f64::max),
            },
        };
        if !score.is_nan() {
            scored.push((*row, score));
        }
    }
    let sign = if like.is_some() { 1.0 } else { -1.0 };
    scored.sort_by(|a, b| (sign * a.1).partial_cmp(&(sign * b.1)).unwrap().then(a.0.cmp(&b.0)));
    scored.truncate(k);
    scored
}

fn found(answer: &Examples) -> Vec<(u64, f64)> {
    answer.examples.iter().map(|e| (e.row, e.score + 0.0)).collect()
}

/// Every question of a group, with an index and without, against the brute force. Returns the fewest rows touched.
fn check(store: &Store, rows: &[u64], activations: &[Vec<f32>], units: &[usize], by: MapValue, k: usize) {
    let group: Vec<Vec<f32>> = activations.iter().map(|row| units.iter().map(|u| row[*u]).collect()).collect();
    let text = units.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let reader = ChunkReader::new(store);
    for norm in [Norm::L1, Norm::L2, Norm::LInf] {
        for like in [None, rows.first().copied(), rows.get(rows.len() / 2).copied()] {
            let question = match like {
                None => ByExample::highest(layer(), &*text, k),
                Some(row) => ByExample::similar(layer(), &*text, row, k),
            };
            let question = question.with_norm(norm).with_by(by);
            let is_nan =
                like.is_some_and(|l| group[rows.iter().position(|r| *r == l).unwrap()].iter().any(|v| v.is_nan()));
            for index in [IndexUse::Never, IndexUse::Always, IndexUse::Auto] {
                let answer = reader.by_example(&question.clone().with_index(index));
                if is_nan {
                    assert!(matches!(answer, Err(QueryError::Mismatch { .. })));
                    continue;
                }
                let answer = answer.unwrap();
                let want = brute_force(rows, &group, like, norm, k);
                assert_eq!(found(&answer), want, "{norm:?} {like:?} {index:?} {units:?}");
                for e in &answer.examples {
                    let row = &group[rows.iter().position(|r| *r == e.row).unwrap()];
                    assert_eq!(e.values, row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
                }
                // The same among every third row.
                let some: Vec<u64> = rows.iter().copied().step_by(3).filter(|r| like != Some(*r)).collect();
                let answer = question.clone().with_index(index).with_rows(RowSelection::List(some.clone()));
                let answer = reader.by_example(&answer).unwrap();
                let mut want = brute_force(rows, &group, like, norm, rows.len());
                want.retain(|(row, _)| some.contains(row));
                want.truncate(k);
                assert_eq!(found(&answer), want, "among some: {norm:?} {like:?} {index:?} {units:?}");
                assert_eq!(answer.used.n_rows, some.len() as u64);
            }
        }
    }
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![6 => -4.0f32..4.0, 4 => Just(0.0), 1 => (-3i32..3).prop_map(|v| v as f32), 1 => Just(-0.0)]
}

fn strange() -> impl Strategy<Value = f32> {
    prop_oneof![8 => value(), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn vectors(values in proptest::collection::vec(value(), 5 * 150..=5 * 400), k in 1usize..30, start in 0u64..9) {
        let n = values.len() / 5;
        let rows: Vec<u64> = (start..start + n as u64).rev().collect();
        let (_, store) = memory();
        log(&store, &[5], "f32", &rows, &values[..n * 5]);
        let activations: Vec<Vec<f32>> = values.chunks_exact(5).map(<[f32]>::to_vec).collect();
        for units in [&[2][..], &[4, 0], &[0, 1, 2, 3, 4], &[1, 1]] {
            check(&store, &rows, &activations, units, MapValue::Max, k);
        }
        prop_assert_eq!(store.indexes(None).unwrap().len(), 1);
    }

    #[test]
    fn strange_values(values in proptest::collection::vec(strange(), 3 * 200..=3 * 260), k in 1usize..20) {
        let n = values.len() / 3;
        let rows: Vec<u64> = (0..n as u64).collect();
        let (_, store) = memory();
        log(&store, &[3], "f32", &rows, &values[..n * 3]);
        let activations: Vec<Vec<f32>> = values.chunks_exact(3).map(<[f32]>::to_vec).collect();
        for units in [&[0][..], &[1, 2], &[0, 1, 2]] {
            check(&store, &rows, &activations, units, MapValue::Max, k);
        }
    }

    #[test]
    fn maps(values in proptest::collection::vec(value(), 12 * 40..=12 * 60), k in 1usize..9) {
        let n = values.len() / 12;
        let rows: Vec<u64> = (0..n as u64).collect();
        let (_, store) = memory();
        log(&store, &[3, 2, 2], "f32", &rows, &values[..n * 12]);
        for by in MapValue::ALL {
            let activations: Vec<Vec<f32>> = values
                .chunks_exact(12)
                .map(|row| {
                    row.chunks_exact(4)
                        .flat_map(|map| match by {
                            MapValue::Max => vec![map.iter().copied().fold(f32::NEG_INFINITY, f32::max)],
                            MapValue::Mean => vec![(map.iter().map(|v| f64::from(*v)).sum::<f64>() / 4.0) as f32],
                            MapValue::Cells => map.to_vec(),
                        })
                        .collect()
                })
                .collect();
            if by == MapValue::Cells {
                let units: Vec<usize> = (4..8).collect();
                let group: Vec<Vec<f32>> = activations.iter().map(|a| units.iter().map(|u| a[*u]).collect()).collect();
                let question = ByExample::similar(layer(), "1", 3, k).with_by(by).with_index(IndexUse::Always);
                let reader = ChunkReader::new(&store);
                let answer = reader.by_example(&question).unwrap();
                prop_assert_eq!(found(&answer), brute_force(&rows, &group, Some(3), Norm::L2, k));
                let answer = reader.by_example(&ByExample::highest(layer(), "1[0,1]", k).with_by(by)).unwrap();
                let cell: Vec<Vec<f32>> = activations.iter().map(|a| vec![a[5]]).collect();
                prop_assert_eq!(found(&answer), brute_force(&rows, &cell, None, Norm::L2, k));
            } else {
                check(&store, &rows, &activations, &[2, 0], by, k);
            }
        }
    }
}

/// Rows whose only good neighbours are few, so that an index can leave most alone.
fn clustered(n: usize, width: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n * width).map(|_| (random() * 8.0 - 3.0).max(0.0)).collect()
}

/// A model of one layer that gives the values it was made with, and counts the rows it was run for.
struct Fake {
    width: usize,
    values: Vec<f32>,
    ran: Arc<AtomicU64>,
}

impl Rerun for Fake {
    fn runs(&self, _: &ModelRecord) -> bool {
        true
    }

    fn device(&self) -> String {
        "fake".into()
    }

    fn is_loaded(&self, _: &ModelRecord) -> bool {
        true
    }

    fn unavailable(&self, _: &ModelRecord) -> Option<String> {
        None
    }

    fn graph(&self, _: &ModelRecord) -> mistique_engine::Result<Arc<Vec<StageNode>>> {
        let node = StageNode { name: "t".into(), inputs: vec![], takes_dataset: true, whole: false };
        Ok(Arc::new(vec![node]))
    }

    fn rerun(
        &self,
        _: &ModelRecord,
        _: &[String],
        rows: &[u64],
        _: &[Given<'_>],
    ) -> mistique_engine::Result<Vec<RerunValues>> {
        self.ran.fetch_add(rows.len() as u64, Ordering::SeqCst);
        let row = |r: &u64| self.values[*r as usize * self.width..][..self.width].to_vec();
        Ok(vec![RerunValues::Tensor { shape: vec![self.width], values: rows.iter().flat_map(row).collect() }])
    }
}

/// A layer of which nothing is stored, of a model that can be run.
fn unmaterialized(store: &Store, n_rows: u64, width: usize) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    let dataset =
        DatasetSpec { name: "d".into(), source: String::new(), fingerprint: [1; 16], n_rows, row_shape: vec![1] };
    let spec = ModelSpec { kind: ModelKind::Network, dataset: Some(dataset), ..ModelSpec::raw(key()) };
    let model = log.model(&spec, IfExists::Continue).unwrap();
    log.tensor(model, &TensorSpec::new("t", &[width])).unwrap();
    log.commit().unwrap();
}

#[test]
fn what_is_not_stored_is_run_again_for_few_rows() {
    let (n, width) = (4000usize, 16);
    let values = clustered(n, width);
    let rows: Vec<u64> = (0..n as u64).collect();
    let (_, store) = memory();
    unmaterialized(&store, n as u64, width);
    let ran = Arc::new(AtomicU64::new(0));
    let fake = Fake { width, values: values.clone(), ran: Arc::clone(&ran) };
    let reader = ChunkReader::new(&store).with_workflow(Box::new(fake));
    let group = |units: &[usize]| -> Vec<Vec<f32>> {
        values.chunks_exact(width).map(|row| units.iter().map(|u| row[*u]).collect()).collect()
    };
    // The first question builds the index in one run over everything.
    let question = ByExample::similar(layer(), "3,7,11", 17, 10);
    let first = reader.by_example(&question).unwrap();
    assert!(first.used.built && first.used.index == Some(1), "{:?}", first.used);
    assert!(matches!(first.used.source, Some(Source::Rerun { exact: true, .. })), "{:?}", first.used);
    let index = &store.indexes(None).unwrap()[0];
    assert!(index.len_bytes as f64 <= 0.2 * (n * width * 4) as f64, "{} bytes", index.len_bytes);
    let want = brute_force(&rows, &group(&[3, 7, 11]), Some(17), Norm::L2, 10);
    assert_eq!(found(&first), want);
    for norm in [Norm::L1, Norm::L2, Norm::LInf] {
        let before = ran.load(Ordering::SeqCst);
        let answer = reader.by_example(&question.clone().with_norm(norm)).unwrap();
        assert_eq!(found(&answer), brute_force(&rows, &group(&[3, 7, 11]), Some(17), norm, 10));
        let touched = ran.load(Ordering::SeqCst) - before;
        assert_eq!((answer.used.built, answer.used.index), (false, Some(1)));
        // Rows that the reader holds from the question before are looked at and not run.
        assert!(touched <= answer.used.touched, "{touched} of {}", answer.used.touched);
        assert!(touched < n as u64 / 20, "{norm:?}: {touched} rows");
        let answer = reader.by_example(&ByExample::highest(layer(), "0..5", 5).with_norm(norm)).unwrap();
        assert_eq!(found(&answer), brute_force(&rows, &group(&[0, 1, 2, 3, 4]), None, norm, 5));
    }
    // Another reader that cannot run the model says so.
    let error = ChunkReader::new(&store).by_example(&question).unwrap_err();
    assert!(matches!(error, QueryError::Plan { .. }), "{error}");
}

#[test]
fn dead_units_and_ties_touch_few_rows() {
    let n = 3000usize;
    let (_, store) = memory();
    unmaterialized(&store, n as u64, 2);
    let ran = Arc::new(AtomicU64::new(0));
    let values: Vec<f32> = (0..n).flat_map(|i| [0.0, (i % 3) as f32]).collect();
    let reader = ChunkReader::new(&store).with_workflow(Box::new(Fake { width: 2, values, ran: Arc::clone(&ran) }));
    let dead = |units: &str| reader.by_example(&ByExample::similar(layer(), units, 5, 4)).unwrap();
    dead("0");
    let before = ran.load(Ordering::SeqCst);
    assert_eq!(found(&dead("0")), [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0)]);
    assert_eq!(found(&dead("0,1")), [(2, 0.0), (8, 0.0), (11, 0.0), (14, 0.0)]);
    assert!(ran.load(Ordering::SeqCst) - before < 60);
    let top = reader.by_example(&ByExample::highest(layer(), "0", 3)).unwrap();
    assert_eq!(found(&top), [(0, 0.0), (1, 0.0), (2, 0.0)]);
}

#[test]
fn rows_that_came_later_are_looked_at_and_a_replaced_layer_has_no_index() {
    let values = clustered(600, 4);
    let rows: Vec<u64> = (0..600).map(|r| r * 3).collect();
    let (_, store) = memory();
    log(&store, &[4], "f32", &rows[..400], &values[..1600]);
    let reader = ChunkReader::new(&store);
    let made = reader.create_by_example_index(&layer(), MapValue::Max, false, 0.2, &mut |_, _| {}).unwrap();
    assert_eq!(made.param("rows").as_deref(), Some("400"));
    log(&store, &[4], "f32", &rows[400..], &values[1600..]);
    let activations: Vec<Vec<f32>> = values.chunks_exact(4).map(<[f32]>::to_vec).collect();
    check(&store, &rows, &activations, &[0, 3], MapValue::Max, 7);
    let question = ByExample::similar(layer(), "0,3", 6, 7).with_index(IndexUse::Always);
    let answer = reader.by_example(&question).unwrap();
    assert_eq!((answer.used.index, answer.used.built), (Some(made.id), false));
    assert!((200..350).contains(&answer.used.touched), "{:?}", answer.used);
    // Made anew, it covers all.
    let anew = reader.create_by_example_index(&layer(), MapValue::Max, false, 0.2, &mut |_, _| {}).unwrap();
    assert_eq!(store.indexes(None).unwrap(), std::slice::from_ref(&anew));
    let answer = reader.by_example(&question).unwrap();
    assert!(answer.used.index == Some(anew.id) && answer.used.touched < 150, "{:?}", answer.used);
    // The layer logged anew.
    let other: Vec<f32> = values.iter().map(|v| 1.0 - v).collect();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(key()), IfExists::Continue).unwrap();
    log.replace(model, "t").unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t", &[4]).with_scheme("f32".parse().unwrap())).unwrap();
    log.append(handle, &rows, other.clone()).unwrap();
    log.commit().unwrap();
    drop(log);
    let activations: Vec<Vec<f32>> = other.chunks_exact(4).map(<[f32]>::to_vec).collect();
    check(&store, &rows, &activations, &[0, 3], MapValue::Max, 7);
}

#[test]
fn a_damaged_index_is_left_aside_and_said() {
    let values = clustered(500, 4);
    let rows: Vec<u64> = (0..500).collect();
    let (storage, store) = memory();
    log(&store, &[4], "f32", &rows, &values);
    let reader = ChunkReader::new(&store);
    let made = reader.create_by_example_index(&layer(), MapValue::Max, false, 0.2, &mut |_, _| {}).unwrap();
    let file = storage.open(&made.file).unwrap();
    let mut bytes = file.read(0..file.len_bytes()).unwrap().into_owned();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    storage.remove(&made.file).unwrap();
    let mut anew = storage.create(&made.file).unwrap();
    anew.append(&bytes).unwrap();
    anew.finish().unwrap();
    let question = ByExample::similar(layer(), "3", 6, 7).with_index(IndexUse::Always);
    let answer = reader.by_example(&question).unwrap();
    let note = answer.used.note.clone().unwrap();
    assert!(answer.used.index.is_none() && note.contains("index 1 is not used") && note.contains("checksum"), "{note}");
    let group: Vec<Vec<f32>> = values.chunks_exact(4).map(|row| vec![row[3]]).collect();
    assert_eq!(found(&answer), brute_force(&rows, &group, Some(6), Norm::L2, 7));
    // The damage is in unit 3 alone.
    let answer = reader.by_example(&ByExample::similar(layer(), "0", 6, 7).with_index(IndexUse::Always)).unwrap();
    assert_eq!((answer.used.index, answer.used.note), (Some(1), None));
}

#[test]
fn lossy_stores_answer_of_what_is_stored_or_of_the_model() {
    let values = clustered(800, 4);
    let rows: Vec<u64> = (0..800).collect();
    let (_, store) = memory();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let dataset =
        DatasetSpec { name: "d".into(), source: String::new(), fingerprint: [1; 16], n_rows: 800, row_shape: vec![1] };
    let spec = ModelSpec { kind: ModelKind::Network, dataset: Some(dataset), ..ModelSpec::raw(key()) };
    let model = log.model(&spec, IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t", &[4]).with_scheme("kbit(3)".parse().unwrap())).unwrap();
    log.append(handle, &rows, values.clone()).unwrap();
    log.commit().unwrap();
    drop(log);
    let fake = Fake { width: 4, values: values.clone(), ran: Arc::default() };
    let reader = ChunkReader::new(&store).with_workflow(Box::new(fake));
    let group = |values: &[f32]| -> Vec<Vec<f32>> { values.chunks_exact(4).map(|r| vec![r[1], r[2]]).collect() };
    let read = mistique_query::Request::new("p.m.t".parse().unwrap()).with_plan(PlanChoice::READ);
    let stored = reader.get(&read).unwrap().into_f32().unwrap();
    for index in [IndexUse::Never, IndexUse::Always] {
        let question = ByExample::similar(layer(), "1,2", 9, 10).with_index(index);
        let answer = reader.by_example(&question).unwrap();
        assert_eq!(found(&answer), brute_force(&rows, &group(&stored), Some(9), Norm::L2, 10));
        assert!(matches!(answer.used.source, Some(Source::Read { exact: false, .. })));
        for exact in [question.clone().with_exact(true), question.clone().with_plan(PlanChoice::RERUN)] {
            let answer = reader.by_example(&exact).unwrap();
            assert_eq!(found(&answer), brute_force(&rows, &group(&values), Some(9), Norm::L2, 10));
            assert!(matches!(answer.used.source, Some(Source::Rerun { exact: true, .. })), "{:?}", answer.used);
        }
        let error = reader.by_example(&question.with_exact(true).with_plan(PlanChoice::READ)).unwrap_err();
        assert!(error.to_string().contains("kbit(3)"), "{error}");
    }
    let values: Vec<_> = store.indexes(None).unwrap().iter().map(|i| i.param("values").unwrap()).collect();
    assert_eq!(values, ["stored", "exact"]);
}

#[test]
fn float64_is_not_rounded_to_float32() {
    let values = [16_777_217.0, 16_777_216.0, 16_777_219.0, 0.0];
    for (values, nearest) in [
        (values, vec![(1, 1.0), (2, 2.0), (3, 16_777_217.0)]),
        ([1e300, 1e-300, 2e300, 1e200], vec![(1, 1e300), (2, 1e300), (3, 1e300)]),
    ] {
        let (_, store) = memory();
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(key()), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &TensorSpec { dtype: Code::F64, ..TensorSpec::new("t", &[1]) }).unwrap();
        log.append(handle, &[0, 1, 2, 3], values.to_vec()).unwrap();
        log.commit().unwrap();
        drop(log);
        let reader = ChunkReader::new(&store);
        for index in [IndexUse::Never, IndexUse::Auto, IndexUse::Always] {
            let near = ByExample::similar(layer(), "0", 0, 3).with_norm(Norm::L1).with_index(index);
            assert_eq!(found(&reader.by_example(&near).unwrap()), nearest, "{index:?}");
            let mut highest: Vec<(u64, f64)> = (0..4).zip(values).collect();
            highest.sort_by(|a, b| b.1.total_cmp(&a.1));
            let question = ByExample::highest(layer(), "0", 4).with_norm(Norm::LInf).with_index(index);
            assert_eq!(found(&reader.by_example(&question).unwrap()), highest, "{index:?}");
        }
        let error = reader.create_by_example_index(&layer(), MapValue::Max, false, 0.9, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("an index holds float32"), "{error}");
    }
}

#[test]
fn small_and_wrong_questions() {
    let (_, store) = memory();
    log(&store, &[2], "f32", &[8], &[1.0, 2.0]);
    let reader = ChunkReader::new(&store);
    let ask = |q: ByExample| reader.by_example(&q.with_index(IndexUse::Always));
    // One row: nothing else is similar, and it is the highest.
    assert_eq!(found(&ask(ByExample::similar(layer(), "0", 8, 5)).unwrap()), []);
    assert_eq!(found(&ask(ByExample::highest(layer(), "0,1", 5).with_norm(Norm::L1)).unwrap()), [(8, 3.0)]);
    assert_eq!(found(&ask(ByExample::highest(layer(), "0", 0)).unwrap()), []);
    for (units, why) in [("7", "0..2"), ("x", "u35"), ("", "u35"), ("0[0,0],1", "cell")] {
        let error = ask(ByExample::highest(layer(), units, 1)).unwrap_err();
        assert!(matches!(&error, QueryError::Columns { .. }), "{units}: {error}");
        let _ = why;
    }
    let error = ask(ByExample::similar(layer(), "0", 9, 1)).unwrap_err();
    assert!(matches!(error, QueryError::Engine(EngineError::NoSuchRow { row: 9, .. })), "{error}");
    // Too small for an index: said when one is asked for by name.
    let error = reader.create_by_example_index(&layer(), MapValue::Max, false, 0.2, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("too few"), "{error}");
    // No rows at all.
    let (_, store) = memory();
    unmaterialized(&store, 0, 2);
    let reader =
        ChunkReader::new(&store).with_workflow(Box::new(Fake { width: 2, values: vec![], ran: Arc::default() }));
    assert_eq!(found(&reader.by_example(&ByExample::highest(layer(), "0", 3)).unwrap()), []);
    assert!(reader.create_by_example_index(&layer(), MapValue::Max, false, 0.2, &mut |_, _| {}).is_err());
}
