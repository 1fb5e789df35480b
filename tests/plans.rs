//! Every plan of a real network gives the same values, and says why it is not possible where it is not.

use std::path::{Path, PathBuf};

use mistique::{
    ChunkReader, Device, IfExists, Input, LayerPattern, LogOptions, ModelKey, ModelSpec, Network, NetworkRerun,
    PlanChoice, Request, RowSelection, RunOptions, Spec, Store, TensorSpec, Weights, log_intermediates,
};

/// A branch, a skip connection around two layers, and a head.
const NETWORK: &str = "
name: skip
input: {shape: [1, 8, 8]}
layers:
  - {name: stem, op: conv2d, out: 8, kernel: 3, padding: 1, activation: relu}
  - {name: left, op: conv2d, input: stem, out: 8, kernel: 3, padding: 1, activation: relu}
  - {name: right, op: conv2d, out: 8, kernel: 3, padding: 1}
  - {name: both, op: add, inputs: [right, stem]}
  - {name: after, op: conv2d, out: 8, kernel: 3, padding: 1, activation: relu}
  - {name: pool, op: global_pool, mode: avg}
  - {name: logits, op: linear, out: 10}
";
const ROWS: usize = 300;

struct World {
    dir: tempfile::TempDir,
    network: Network,
    weights: Weights,
    spec: Spec,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::parse(NETWORK).unwrap();
        let weights = Weights::init(&network, 5);
        let this = Self {
            spec: format!("npy:{}", dir.path().join("x.npy").display()).parse().unwrap(),
            dir,
            network,
            weights,
        };
        this.write_images(0.0);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_images(&self, shift: f32) {
        let values: Vec<f32> = (0..ROWS * 64).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.4 + shift).collect();
        let file = std::fs::File::create(self.path("x.npy")).unwrap();
        mistique::datasets::write_npy(file, &[ROWS, 1, 8, 8], &values).unwrap();
    }

    /// Logs `layers` of rows `0..n`.
    fn log(&self, store: &Store, model: &str, layers: &str, scheme: &str, n: u64) {
        let dataset = mistique::datasets::open(&self.spec).unwrap();
        let input = Input { name: "images".into(), spec: &self.spec, dataset: &*dataset };
        let options = RunOptions {
            layers: LayerPattern::new(layers).unwrap(),
            scheme: Some(scheme.parse().unwrap()),
            rows: Some(0..n),
            ..RunOptions::new().unwrap()
        };
        let key = ModelKey::new("p", model);
        log_intermediates(store, &key, &self.network, &self.weights, &input, &options, &mut |_| {}).unwrap();
    }
}

fn session(store: &Store) -> ChunkReader<'_> {
    ChunkReader::new(store).with_workflow(Box::new(NetworkRerun::new(store, Device::Cpu)))
}

fn request(key: &str) -> Request {
    Request::new(key.parse().unwrap())
}

/// The values of a request under every plan that is possible, with its source.
fn every_plan(store: &Store, request: &Request) -> Vec<(PlanChoice, String, Vec<f32>)> {
    let explained = session(store).explain(request).unwrap();
    let possible = explained.considered.iter().filter(|c| c.unavailable.is_none());
    possible
        .map(|c| {
            let answer = session(store).get(&request.clone().with_plan(c.choice())).unwrap();
            (c.choice(), answer.source.to_string(), answer.into_f32().unwrap())
        })
        .collect()
}

#[test]
fn every_plan_gives_the_same_values() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "truth", "*", "f32", ROWS as u64);
    for scheme in ["f32", "f16", "kbit(8)", "pool(2)+f16"] {
        let model = scheme.replace(['(', ')', '+'], "_");
        world.log(&store, &model, "stem,right,pool", "f32", ROWS as u64);
        world.log(&store, &model, "both,after,logits", scheme, ROWS as u64);
        let scattered = RowSelection::List(vec![299, 0, 257, 77, 78, 77, 3]);
        for layer in ["both", "after", "after.u3", "logits"] {
            for rows in [RowSelection::All, RowSelection::Range(250..260), scattered.clone()] {
                let wanted = request(&format!("p.{model}.{layer}")).with_rows(rows.clone());
                let truth = request(&format!("p.truth.{layer}")).with_rows(rows);
                let logged = session(&store).get(&truth.with_plan(PlanChoice::READ)).unwrap().into_f32().unwrap();
                // At full precision every plan gives, bit for bit, what was logged.
                let all = every_plan(&store, &wanted.clone().with_exact(true));
                assert!(all.len() >= 2, "{layer} {scheme}: {all:?}");
                for (plan, source, values) in &all {
                    assert_eq!(values, &logged, "{layer} {scheme} {plan:?}: {source}");
                }
                // Otherwise the stored copy may be lossy, a little, but has the same shape.
                let all = every_plan(&store, &wanted);
                assert_eq!(all.len(), 3, "{layer} {scheme}");
                let (_, read_source, read) = &all[0];
                for (plan, source, values) in &all[1..] {
                    assert_eq!(values, &all[1].2, "{plan:?}");
                    assert_eq!(values.len(), read.len(), "{layer} {scheme} {plan:?}");
                    let squares = |of: &mut dyn Iterator<Item = f32>| of.map(|v| f64::from(v).powi(2)).sum::<f64>();
                    let off = squares(&mut values.iter().zip(read).map(|(a, b)| a - b));
                    let relative = (off / squares(&mut values.iter().copied())).sqrt();
                    assert!(relative <= 0.1, "{layer} {scheme}: off by {relative}");
                    assert!(source.starts_with("rerun"), "{source}");
                }
                assert!(read_source.starts_with(&format!("read {scheme}")), "{read_source}");
            }
        }
    }
    // The skip connection needs both of its sides: one at least is read, the other where that is cheaper than to run it, and
    // the answer says so.
    let both = request("p.f16.both").with_plan(PlanChoice::ANCESTOR);
    let source = session(&store).get(&both).unwrap().source.to_string();
    let cuts = ["f32 of stem and f32 of right", "f32 of stem", "f32 of right"];
    assert!(cuts.iter().any(|cut| source == format!("rerun from read {cut}")), "{source}");
}

#[test]
fn a_rerun_does_not_depend_on_its_batch() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "m", "*", "f32", ROWS as u64);
    for layer in ["left", "after", "logits"] {
        for n in [1u64, 2, 7, 65, 256, 257] {
            let wanted = request(&format!("p.m.{layer}")).with_rows(RowSelection::Range(20..20 + n));
            let read = session(&store).get(&wanted.clone().with_plan(PlanChoice::READ)).unwrap();
            let rerun = session(&store).get(&wanted.with_plan(PlanChoice::RERUN)).unwrap();
            assert_eq!(read.into_f32().unwrap(), rerun.into_f32().unwrap(), "{layer}, {n} rows");
        }
    }
}

#[test]
fn rows_are_read_and_run() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "truth", "*", "f32", ROWS as u64);
    world.log(&store, "part", "after", "f32", 200);
    let rows = RowSelection::Range(100..300);
    let split =
        session(&store).get(&request("p.part.after").with_rows(rows.clone()).with_plan(PlanChoice::SPLIT)).unwrap();
    assert_eq!(split.source.to_string(), "read 100 rows of f32 exact, rerun 100");
    let truth = session(&store).get(&request("p.truth.after").with_rows(rows).with_plan(PlanChoice::READ)).unwrap();
    assert_eq!(split.rows, truth.rows);
    assert_eq!(split.into_f32().unwrap(), truth.into_f32().unwrap());
}

#[test]
fn bits_and_values_are_not_halves_of_one_answer() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "bits", "after", "threshold(0.5)", 200);
    let ask =
        |rows: std::ops::Range<u64>| session(&store).get(&request("p.bits.after").with_rows(RowSelection::Range(rows)));
    let is_bit = |v: &f32| *v == 0.0 || *v == 1.0;
    assert!(ask(100..200).unwrap().into_f32().unwrap().iter().all(is_bit));
    // Some of these rows are stored, and all are run.
    let both = ask(100..300).unwrap();
    assert!(!both.source.to_string().contains("read"), "{}", both.source);
    let alone = ask(250..300).unwrap().into_f32().unwrap();
    let both = both.into_f32().unwrap();
    assert!(!alone.iter().all(is_bit) && !both[..both.len() / 2].iter().all(is_bit));
    let refused = session(&store)
        .get(&request("p.bits.after").with_rows(RowSelection::Range(100..300)).with_plan(PlanChoice::SPLIT))
        .unwrap_err();
    assert!(refused.to_string().contains("bits"), "{refused}");
}

#[test]
fn what_is_not_divided_says_which_plan_answers_it() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "m", "after", "f16", 200);
    let split = |row| request("p.m.after").with_rows(RowSelection::List(vec![row])).with_plan(PlanChoice::SPLIT);
    let lossy = "READ: the stored copy is f16, and exact values were asked for";
    for (request, want) in [
        (split(3), "all of its rows are stored; use --plan read".to_string()),
        (split(3).with_exact(true), format!("all of its rows are stored; {lossy}; use --plan rerun")),
        (split(250), "no values of its rows are stored; use --plan rerun".to_string()),
    ] {
        let refused = session(&store).get(&request).unwrap_err().to_string();
        assert_eq!(refused, format!("p.m.after: SPLIT is not possible: SPLIT: {want}"));
        let (_, plan) = want.rsplit_once("--plan ").unwrap();
        session(&store).get(&request.with_plan(plan.parse().unwrap())).unwrap();
    }
    // Where nothing can run it, nothing is advised.
    let refused = ChunkReader::new(&store).get(&split(250)).unwrap_err().to_string();
    assert!(
        refused.contains("no values of its rows are stored; RERUN: ") && !refused.contains("use --plan"),
        "{refused}"
    );
}

#[test]
fn one_run_gives_several_layers() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "m", "*", "pool(2)+f16", ROWS as u64);
    let keys = ["p.m.left", "p.m.both.u1..3", "p.m.logits"];
    let all = |choice| -> Vec<Request> {
        keys.iter().map(|k| request(k).with_rows(RowSelection::Range(5..90)).with_plan(choice)).collect()
    };
    let together = session(&store).get_intermediates(&all(PlanChoice::SHARED)).unwrap();
    for (answer, alone) in together.into_iter().zip(all(PlanChoice::RERUN)) {
        let alone = session(&store).get(&alone).unwrap();
        assert_eq!((&answer.rows, &answer.shape), (&alone.rows, &alone.shape));
        assert_eq!(answer.into_f32().unwrap(), alone.into_f32().unwrap());
    }
}

/// The only file of a folder.
fn only(dir: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn what_is_gone_is_said_and_the_rest_still_works() {
    let world = World::new();
    let store = Store::open_or_create(world.path("s.mq")).unwrap();
    world.log(&store, "m", "*", "f32", ROWS as u64);
    let wanted = request("p.m.after").with_rows(RowSelection::Range(0..10));
    let why = |plan: &str| {
        let explained = session(&store).explain(&wanted).unwrap();
        explained.considered.iter().find(|c| c.plan == plan).unwrap().unavailable.clone()
    };
    assert_eq!((why("READ"), why("RERUN"), why("ANCESTOR")), (None, None, None));
    let before = session(&store).get(&wanted).unwrap().into_f32().unwrap();

    // Another dataset under the same name: a run from the input would give other values, one from a stored layer not.
    world.write_images(0.5);
    assert!(why("RERUN").unwrap().contains("has changed"), "{:?}", why("RERUN"));
    assert_eq!((why("READ"), why("ANCESTOR")), (None, None));
    for plan in [PlanChoice::Auto, PlanChoice::READ, PlanChoice::ANCESTOR] {
        let answer = session(&store).get(&wanted.clone().with_plan(plan)).unwrap();
        assert_eq!(answer.into_f32().unwrap(), before);
    }
    let error = session(&store).get(&wanted.clone().with_plan(PlanChoice::RERUN)).unwrap_err().to_string();
    assert!(error.contains("fingerprint"), "{error}");

    // Weights of another content, then none.
    let weights = only(&world.path("s.mq/operators"));
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert!(why("RERUN").unwrap().contains("hash") && why("ANCESTOR").unwrap().contains("hash"), "{:?}", why("RERUN"));
    std::fs::remove_file(&weights).unwrap();
    assert!(why("RERUN").unwrap().contains("weights"), "{:?}", why("RERUN"));
    assert_eq!(session(&store).get(&wanted).unwrap().source.to_string(), "read f32 exact");

    // A layer that another build computes otherwise.
    let newer = world.network.to_json().replacen("\"op\":\"conv2d\"", "\"op\":\"conv2d\",\"version\":9", 1);
    let record = session(&store).store().model(&ModelKey::new("p", "m")).unwrap();
    let spec = ModelSpec { key: ModelKey::new("p", "newer"), description: newer, ..record.spec };
    let mut log = store.logger(LogOptions::default()).unwrap();
    let weights = world.weights.to_safetensors().unwrap();
    log.put_operator(&weights, "weights").unwrap();
    let model = log.model(&spec, IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("logits", &[10])).unwrap();
    log.append(handle, &[0, 1], vec![0.5f32; 20]).unwrap();
    log.commit().unwrap();
    drop(log);
    let explained = session(&store).explain(&request("p.newer.logits")).unwrap();
    let why = explained.considered[1].unavailable.clone().unwrap();
    assert!(why.contains("this build has no other version of conv2d"), "{why}");
    assert_eq!(explained.considered[0].unavailable, None);

    // A device that is not there.
    if !cfg!(feature = "cuda") {
        let reader = ChunkReader::new(&store).with_workflow(Box::new(NetworkRerun::new(&store, Device::Cuda(0))));
        let explained = reader.explain(&wanted).unwrap();
        assert!(explained.considered[1].unavailable.as_ref().unwrap().contains("--features cuda"));
    }
}
