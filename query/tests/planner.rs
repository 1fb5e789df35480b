//! The planner on costs that were made up, so that its predictions can be reckoned by hand; the model that it plans for
//! is a chain with a skip: `c = a + b`, `b = 2a + 1`, `a = row_id`.

use std::sync::{Arc, Mutex};

use mistique_engine::{
    DatasetSpec, EngineError, Given, IfExists, LogOptions, MemoryStorage, ModelKey, ModelKind, ModelRecord, ModelSpec,
    Rerun, RerunValues, StageNode, Store, StoreOptions, TensorSpec, cost,
};
use mistique_query::diagnostics::{MapsAs, Measure, diff, dist, select, similarities};
use mistique_query::{ChunkReader, Explanation, PlanChoice, Predicate, Request, RowSelection, get_together};

const ROWS: u64 = 256;
const WIDTH: usize = 4;

#[derive(Default)]
struct Seen {
    /// The intermediates given to each run.
    given: Vec<Vec<String>>,
    broken: Option<String>,
    no_dataset: Option<String>,
}

struct Fake(Arc<Mutex<Seen>>);

impl Rerun for Fake {
    fn runs(&self, model: &ModelRecord) -> bool {
        model.spec.kind == ModelKind::Network
    }

    fn device(&self) -> String {
        "cpu".into()
    }

    fn is_loaded(&self, _: &ModelRecord) -> bool {
        false
    }

    fn unavailable(&self, _: &ModelRecord) -> Option<String> {
        self.0.lock().unwrap().broken.clone()
    }

    fn dataset_unavailable(&self, _: &ModelRecord) -> Option<String> {
        self.0.lock().unwrap().no_dataset.clone()
    }

    fn batch_rows(&self) -> Option<u64> {
        Some(256)
    }

    fn graph(&self, _: &ModelRecord) -> Result<Arc<Vec<StageNode>>, EngineError> {
        let node = |name: &str, inputs: &[usize]| StageNode {
            name: name.into(),
            inputs: inputs.to_vec(),
            takes_dataset: inputs.is_empty(),
            whole: false,
        };
        Ok(Arc::new(vec![node("a", &[]), node("b", &[0]), node("c", &[1, 0])]))
    }

    fn rerun(
        &self,
        _: &ModelRecord,
        intermediates: &[String],
        rows: &[u64],
        given: &[Given<'_>],
    ) -> Result<Vec<RerunValues>, EngineError> {
        self.0.lock().unwrap().given.push(given.iter().map(|g| g.intermediate.to_string()).collect());
        let stored = |name: &str| {
            given.iter().find(|g| g.intermediate == name).map(|g| match g.values {
                RerunValues::Tensor { values, .. } => values.clone(),
                RerunValues::Table(_) => unreachable!(),
            })
        };
        let a = stored("a").unwrap_or_else(|| rows.iter().flat_map(|r| [*r as f32; WIDTH]).collect());
        let b = stored("b").unwrap_or_else(|| a.iter().map(|a| 2.0 * a + 1.0).collect());
        let c = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let all = [("a", a), ("b", b), ("c", c)];
        let value = |name: &String| all.iter().find(|(n, _)| n == name).unwrap().1.clone();
        Ok(intermediates.iter().map(|n| RerunValues::Tensor { shape: vec![WIDTH], values: value(n) }).collect())
    }
}

struct World {
    store: Store,
    seen: Arc<Mutex<Seen>>,
}

/// A store that knows all three intermediates and holds `rows` of those that are named.
fn world(stored: &[(&str, &str, std::ops::Range<u64>)]) -> World {
    let store = Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap();
    let spec = ModelSpec {
        key: ModelKey::new("p", "m"),
        kind: ModelKind::Network,
        description: "chain".into(),
        weights: None,
        dataset: Some(DatasetSpec {
            name: "d".into(),
            source: "d".into(),
            fingerprint: [7; 16],
            n_rows: ROWS,
            row_shape: vec![1],
        }),
    };
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&spec, IfExists::Continue).unwrap();
    for (name, factor, offset) in [("a", 1.0, 0.0), ("b", 2.0, 1.0), ("c", 3.0, 1.0)] {
        let found = stored.iter().find(|(n, ..)| *n == name);
        let scheme = found.map_or("f32", |(_, scheme, _)| *scheme).parse().unwrap();
        let handle = log.tensor(model, &TensorSpec::new(name, &[WIDTH]).with_scheme(scheme)).unwrap();
        if let Some((_, _, rows)) = found {
            let values: Vec<f32> = rows.clone().flat_map(|r| [r as f32 * factor + offset; WIDTH]).collect();
            log.append(handle, &rows.clone().collect::<Vec<_>>(), values).unwrap();
        }
    }
    log.complete(model).unwrap();
    log.commit().unwrap();
    drop(log);
    World { store, seen: Arc::default() }
}

impl World {
    fn reader(&self) -> ChunkReader<'_> {
        ChunkReader::new(&self.store).with_workflow(Box::new(Fake(Arc::clone(&self.seen))))
    }

    /// Times in milliseconds: load, opening the dataset, the stages a, b, c; a read starts in `read` and costs nothing more.
    fn costs(&self, load: f64, open: f64, stages: [f64; 3], read: f64) {
        let store = &self.store;
        let model = cost::model_subject("chain", "cpu");
        let dataset = mistique_engine::hex(&[7; 16]);
        let add = |what: &str, subject: &str, ms: f64| store.add_cost(what, subject, ms * 1e-3).unwrap();
        add(cost::LOAD, &model, load);
        add(cost::OPEN_DATASET, &dataset, open);
        add(cost::INPUT, &dataset, 0.0);
        add(cost::OUTPUT, "cpu", 0.0);
        for (stage, ms) in ["a", "b", "c"].into_iter().zip(stages) {
            store.add_stage_cost(&model, stage, 256, ms * 1e-3).unwrap();
        }
        for tasks in ["tensor", "tensor, one task"] {
            add(cost::READ_START, tasks, read);
        }
        add(cost::READ_PLACE, "", 0.0);
        for scheme in ["f32", "f16"] {
            add(cost::READ_OPEN, scheme, 0.0);
            let manner = cost::Manner::of(true, 1.0, 1.0, 1.0);
            add(cost::READ, &cost::read_subject(scheme, manner, None), 0.0);
        }
    }
}

fn request(intermediate: &str) -> Request {
    Request::new(format!("p.m.{intermediate}").parse().unwrap())
}

/// Predicted milliseconds of a plan; `None` where it is not possible.
fn ms(explanation: &Explanation, plan: &str) -> Option<f64> {
    let found = explanation.considered.iter().find(|c| c.plan == plan)?;
    found.unavailable.is_none().then(|| found.predicted.unwrap().as_secs_f64() * 1e3)
}

fn chosen(explanation: &Explanation) -> &str {
    explanation.considered[explanation.chosen].plan
}

fn near(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|f| (f - expected).abs() < 1e-3), "{found:?}, expected {expected}");
}

#[test]
fn costs_by_hand() {
    let world = world(&[("a", "f32", 0..ROWS), ("c", "f16", 0..ROWS)]);
    world.costs(10.0, 2.0, [5.0, 7.0, 3.0], 1.0);
    let e = world.reader().explain(&request("c")).unwrap();
    near(ms(&e, "READ"), 1.0);
    // Load, open the dataset, and all three stages (Eq. 5.3).
    near(ms(&e, "RERUN"), 10.0 + 2.0 + 5.0 + 7.0 + 3.0);
    // Load, read a instead of running it.
    near(ms(&e, "ANCESTOR"), 10.0 + 1.0 + 7.0 + 3.0);
    assert_eq!(chosen(&e), "READ");
    // A lossy copy will not do where exactness is asked for, and is no ancestor.
    let e = world.reader().explain(&request("c").with_exact(true)).unwrap();
    assert_eq!((ms(&e, "READ"), chosen(&e)), (None, "ANCESTOR"));
    let answer = world.reader().get(&request("c").with_exact(true)).unwrap();
    assert_eq!(answer.source.to_string(), "rerun from read f32 of a");
    assert_eq!(world.seen.lock().unwrap().given, [["a"]]);
}

#[test]
fn the_cheapest_is_chosen() {
    let stored = [("a", "f32", 0..ROWS), ("b", "f32", 0..ROWS), ("c", "f32", 0..ROWS)];
    // Reading costs nothing, a millisecond, more than running one stage from one copy, more than running everything.
    for (read, expected) in [(0.0, "READ"), (1.0, "READ"), (40.0, "RERUN")] {
        let world = world(&stored);
        world.costs(0.0, 0.0, [5.0, 7.0, 3.0], read);
        assert_eq!(chosen(&world.reader().explain(&request("c")).unwrap()), expected, "{read}");
    }
    // c needs a and b: both are read where that is cheaper, else one, and b from a.
    for (stages, read, expected) in [
        ([50.0, 70.0, 3.0], 1.0, vec!["a", "b"]),
        ([50.0, 0.5, 3.0], 1.0, vec!["a"]),
        ([0.5, 70.0, 3.0], 1.0, vec!["b"]),
    ] {
        let world = world(&stored);
        world.costs(0.0, 0.0, stages, read);
        let answer = world.reader().get(&request("c").with_plan(PlanChoice::ANCESTOR)).unwrap();
        assert_eq!(world.seen.lock().unwrap().given, [expected]);
        let values: Vec<f32> = (0..ROWS).flat_map(|r| [r as f32 * 3.0 + 1.0; WIDTH]).collect();
        assert_eq!(answer.into_f32().unwrap(), values);
    }
}

#[test]
fn pages_in_memory_are_counted_on() {
    let world = world(&[("a", "f32", 0..ROWS)]);
    let reader = world.reader();
    let some = request("a").with_rows(RowSelection::Range(0..10)).with_plan(PlanChoice::READ);
    let how = || reader.explain(&some).unwrap().considered[0].how.clone();
    // As they are logged, pages decode as fast as they would be copied; compacted ones are held.
    reader.get(&some).unwrap();
    assert!(!how().contains("in memory"), "{}", how());
    world.store.compact(&mut |_, _| {}).unwrap();
    assert!(!how().contains("in memory"), "{}", how());
    // Other rows of the page: the same ones would be answered as they were.
    reader.get(&request("a").with_rows(RowSelection::Range(5..12)).with_plan(PlanChoice::READ)).unwrap();
    assert!(how().contains("1 pages in memory"), "{}", how());
}

#[test]
fn rows_are_divided() {
    let world = world(&[("c", "f32", 0..200)]);
    world.costs(1.0, 0.0, [5.0, 7.0, 3.0], 1.0);
    let reader = world.reader();
    let ids = vec![250, 3, 199, 200, 7];
    let request = request("c").with_rows(RowSelection::List(ids.clone()));
    let e = reader.explain(&request).unwrap();
    assert!(e.considered[0].unavailable.as_ref().unwrap().contains("250"));
    assert!(ms(&e, "SPLIT").is_some() && ms(&e, "RERUN").is_some());
    let answer = reader.get(&request.clone().with_plan(PlanChoice::SPLIT)).unwrap();
    assert_eq!(answer.source.to_string(), "read 3 rows of f32 exact, rerun 2");
    let expected: Vec<f32> = ids.iter().flat_map(|r| [*r as f32 * 3.0 + 1.0; WIDTH]).collect();
    assert_eq!((answer.rows.clone(), answer.into_f32().unwrap()), (ids, expected.clone()));
    assert_eq!(reader.get(&request.with_plan(PlanChoice::RERUN)).unwrap().into_f32().unwrap(), expected);
    // A range counts the dataset's rows where they can be run, and stored ones where only reading is wanted.
    let range = crate::request("c").with_rows(RowSelection::Range(190..1000));
    assert_eq!(reader.get(&range).unwrap().rows, (190..ROWS).collect::<Vec<_>>());
    assert_eq!(reader.get(&range.with_plan(PlanChoice::READ)).unwrap().rows, (190..200).collect::<Vec<_>>());
}

#[test]
fn one_run_answers_several() {
    let world = world(&[]);
    world.costs(20.0, 1.0, [5.0, 7.0, 3.0], 1.0);
    let reader = world.reader();
    let requests = [request("b"), request("c")];
    let explained = reader.explain_intermediates(&requests).unwrap();
    assert!(explained.iter().all(|e| chosen(e) == "SHARED"), "{explained:?}");
    // 20 + 1 + 15 in all, in proportion to 33 and 36 alone.
    near(ms(&explained[0], "SHARED"), 36.0 * 33.0 / 69.0);
    near(ms(&explained[1], "SHARED"), 36.0 * 36.0 / 69.0);
    let answers = reader.get_intermediates(&requests).unwrap();
    assert_eq!(world.seen.lock().unwrap().given.len(), 1, "the model ran once");
    for (answer, (factor, offset)) in answers.into_iter().zip([(2.0, 1.0), (3.0, 1.0)]) {
        let expected: Vec<f32> = (0..ROWS).flat_map(|r| [r as f32 * factor + offset; WIDTH]).collect();
        assert_eq!(answer.into_f32().unwrap(), expected);
    }
    // Alone there is nothing to share.
    let error = reader.get(&request("c").with_plan(PlanChoice::SHARED)).unwrap_err().to_string();
    assert!(error.contains("two or more keys"), "{error}");
}

#[test]
fn a_diagnostic_with_several_passes_runs_the_model_once() {
    let world = world(&[]);
    let reader = world.reader();
    let found = dist(&reader, &request("c"), None, 4, &[0.5]).unwrap();
    // c = 3 · row_id + 1.
    let all = &found.groups[0];
    assert_eq!((all.n, all.range), (ROWS * WIDTH as u64, Some((1.0, 3.0 * 255.0 + 1.0))));
    assert_eq!(all.quantiles, [(0.5, 3.0 * 127.5 + 1.0)]);
    assert_eq!(world.seen.lock().unwrap().given.len(), 1);
}

#[test]
fn scans_of_one_model_share_its_run() {
    let values = |factor: f32, offset: f32| -> Vec<f32> {
        (0..ROWS).flat_map(|r| [r as f32 * factor + offset; WIDTH]).collect()
    };
    let runs = |world: &World| std::mem::take(&mut world.seen.lock().unwrap().given);
    for plan in [PlanChoice::Auto, PlanChoice::RERUN] {
        let world = world(&[("a", "f32", 0..ROWS)]);
        let reader = world.reader();
        let scans = ["b", "c"].map(|key| reader.scan(&request(key).with_plan(plan)).unwrap());
        let rows: Vec<u64> = (0..ROWS).collect();
        let answers = get_together(&scans, &rows).unwrap();
        for (answer, (factor, offset)) in answers.into_iter().zip([(2.0, 1.0), (3.0, 1.0)]) {
            assert_eq!((&answer.rows, answer.source.to_string().starts_with("rerun")), (&rows, true));
            assert_eq!(answer.into_f32().unwrap(), values(factor, offset));
        }
        // What is demanded to run from the input reads nothing.
        let given: &[&str] = if plan == PlanChoice::RERUN { &[] } else { &["a"] };
        assert_eq!(runs(&world), [given], "{plan:?}");
        // Some of the rows, in another order; what a run gave is not taken for other rows.
        let some = [7, 3, 200];
        let found = get_together(&scans, &some).unwrap();
        assert_eq!(found[1].rows, some);
        assert_eq!(found[1].clone().into_f32().unwrap(), some.map(|r| [3.0 * r as f32 + 1.0; WIDTH]).concat());
        assert_eq!(runs(&world).len(), 1);
        // Layers that are compared run once for all of them, and one that is stored is read.
        let all = ["a", "b", "c"].map(|key| request(key).with_plan(if key == "a" { PlanChoice::Auto } else { plan }));
        let pairs = [(0, 1), (0, 2), (1, 2)];
        let found = similarities(&reader, &all, &pairs, Measure::LinearCka, MapsAs::Mean, &mut |_, _| {}).unwrap();
        assert!(found.values.iter().all(|v| (v.as_ref().unwrap().value - 1.0).abs() < 1e-9), "{:?}", found.values);
        assert_eq!(runs(&world).len(), 1, "{plan:?}");
    }
    // Two sides of a difference and of a comparison run once.
    let asked = world(&[]);
    let reader = asked.reader();
    let d = diff(&reader, &request("b"), &request("c"), None).unwrap();
    // c − b = row_id.
    assert_eq!((d.groups[0].max_abs, runs(&asked).len()), (255.0, 1));
    let predicate = Predicate::parse("p.m.c.u0 > p.m.b.u1").unwrap();
    assert_eq!(select(&reader, &predicate, None, PlanChoice::Auto).unwrap().rows.len(), 255);
    assert_eq!(runs(&asked).len(), 1);
    // Where the shared run fails, each scan has its own plans.
    let world = world(&[("a", "f32", 0..ROWS)]);
    let reader = world.reader();
    let scans = ["b", "c"].map(|key| reader.scan(&request(key)).unwrap());
    world.seen.lock().unwrap().broken = Some("its weights are gone".into());
    assert!(get_together(&scans, &[1, 2]).is_err());
}

#[test]
fn what_is_not_possible_says_why() {
    let world = world(&[("a", "f32", 0..ROWS), ("c", "f32", 0..ROWS)]);
    let reader = world.reader();
    let error = reader.get(&request("b").with_plan(PlanChoice::READ)).unwrap_err().to_string();
    assert!(error.contains("log it again") && error.contains("--plan rerun"), "{error}");
    // Without the dataset a run from stored ancestors is still possible, without the model none.
    world.seen.lock().unwrap().no_dataset = Some("the dataset has changed".into());
    let e = reader.explain(&request("b")).unwrap();
    assert_eq!((ms(&e, "RERUN"), chosen(&e)), (None, "ANCESTOR"));
    assert!(e.considered[1].unavailable.as_ref().unwrap().contains("has changed"));
    world.seen.lock().unwrap().broken = Some("its weights are gone".into());
    let e = reader.explain(&request("c")).unwrap();
    assert_eq!(chosen(&e), "READ");
    assert!(e.considered[1..].iter().all(|c| c.unavailable.as_ref().unwrap().contains("weights are gone")));
    let error = reader.get(&request("b")).unwrap_err().to_string();
    assert!(error.contains("weights are gone") && error.contains("nothing of it is stored"), "{error}");
    assert!(error.contains("log it again") && !error.contains("--plan rerun"), "{error}");
}
