//! Adaptive materialization of a real network: answers are the same under every mode, values set in by γ, answers are
//! held for repeats, and workloads are replayed without harm to the store.

use std::ops::Range;
use std::path::PathBuf;

use mistique::pipeline::{Data, PipelineOptions, PipelineRerun, Template, log_pipelines, plan_template};
use mistique::workload::{Category, WorkloadQuery, generate, replay};
use mistique::{
    ChunkReader, Device, Input, Materialize, ModelKey, Network, NetworkRerun, PlanChoice, Request, RowSelection,
    RunOptions, Scheme, Source, Spec, Store, Weights, log_intermediates,
};

const NETWORK: &str = "
name: small
input: {shape: [1, 8, 8]}
layers:
  - {name: stem, op: conv2d, out: 16, kernel: 3, padding: 1, activation: relu}
  - {name: body, op: conv2d, out: 32, kernel: 3, padding: 1, activation: relu}
  - {name: pool, op: global_pool, mode: avg}
  - {name: logits, op: linear, out: 10}
";
const ROWS: usize = 1500;

struct World {
    dir: tempfile::TempDir,
    spec: Spec,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let values: Vec<f32> = (0..ROWS * 64).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.4).collect();
        mistique::datasets::write_npy(std::fs::File::create(&path).unwrap(), &[ROWS, 1, 8, 8], &values).unwrap();
        Self { spec: format!("npy:{}", path.display()).parse().unwrap(), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, name: &str, mode: Materialize) -> Store {
        self.store_as(name, mode, "f32")
    }

    fn store_as(&self, name: &str, mode: Materialize, scheme: &str) -> Store {
        let store = Store::open_or_create(self.path(name)).unwrap();
        store.set_materialize(mode).unwrap();
        let dataset = mistique::datasets::open(&self.spec).unwrap();
        let input = Input { name: "images".into(), spec: &self.spec, dataset: &*dataset };
        let network = Network::parse(NETWORK).unwrap();
        let options = RunOptions { scheme: Some(scheme.parse::<Scheme>().unwrap()), ..RunOptions::new().unwrap() };
        let key = ModelKey::new("p", "m");
        let weights = Weights::init(&network, 5);
        log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
        store
    }
}

fn reader(store: &Store) -> ChunkReader<'_> {
    ChunkReader::new(store).with_workflow(Box::new(NetworkRerun::new(store, Device::Cpu)))
}

fn request(key: &str, rows: Option<&str>) -> Request {
    let request = Request::new(key.parse().unwrap());
    rows.map_or(request.clone(), |rows| request.with_rows(rows.parse().unwrap()))
}

fn withheld(store: &Store, name: &str) -> u64 {
    store.intermediate(&ModelKey::new("p", "m").intermediate(name)).unwrap().n_withheld
}

#[test]
fn answers_are_the_same_under_every_mode() {
    let world = World::new();
    let all = world.store("all.mq", Materialize::All);
    let stored = all.stats().unwrap().chunk_bytes;
    let queries: Vec<Request> = [
        ("p.m.body.u3", None),
        ("p.m.logits", None),
        ("p.m.stem.u1..4,u9[2,3]", Some("1499,0,77,77")),
        ("p.m.pool", Some("10..1400")),
        ("p.m.body", Some("0..40")),
    ]
    .map(|(key, rows)| request(key, rows))
    .into();
    let filter = mistique::Predicate::parse("logits.argmax = 3").unwrap();
    let queries = [queries, vec![request("p.m.pool.u2", None).with_rows(RowSelection::Where(filter))]].concat();
    let want: Vec<_> = queries.iter().map(|q| reader(&all).get(q).unwrap()).collect();
    let budget = Materialize::Budget { bytes: stored / 5, gamma_min: 0.0 };
    for mode in [Materialize::None, Materialize::Adaptive { gamma_min: 1e-6 }, budget] {
        let store = world.store(&format!("{mode}.mq"), mode);
        assert_eq!(store.stats().unwrap().n_chunks, 0, "{mode}");
        for _ in 0..3 {
            let reader = reader(&store);
            for (query, want) in queries.iter().zip(&want) {
                let found = reader.get(query).unwrap();
                let bits = |a: &mistique::Answer| -> Vec<u32> {
                    a.clone().into_f32().unwrap().iter().map(|v| v.to_bits()).collect()
                };
                assert_eq!((&found.rows, &found.columns, &found.shape), (&want.rows, &want.columns, &want.shape));
                assert!(bits(&found) == bits(want), "{mode}: {:?} by {}", query, found.source);
            }
            let report = reader.finish_materializing();
            assert!(!report.is_some_and(|r| r.failed > 0 || r.dropped > 0), "{mode}");
        }
        let after = store.stats().unwrap();
        match mode {
            Materialize::None => assert_eq!(after.n_chunks, 0),
            Materialize::Budget { bytes, .. } => assert!(after.chunk_bytes > 0 && after.chunk_bytes <= bytes),
            _ => assert!(after.chunk_bytes > 0 && after.chunk_bytes < stored),
        }
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().damage, []);
    }
}

#[test]
fn what_is_but_looked_at_is_not_stored() {
    let world = World::new();
    let store = world.store("s.mq", Materialize::Adaptive { gamma_min: 0.0 });
    let reader = reader(&store);
    let scan = reader.scan(&request("p.m.body", None)).unwrap();
    let rows: Vec<u64> = scan.rows().iter().collect();
    let looked = scan.peek(&rows[..20]).unwrap();
    reader.finish_materializing();
    assert_eq!(store.stats().unwrap().n_chunks, 0);
    let whole = scan.get(&rows).unwrap();
    reader.finish_materializing();
    assert!(store.stats().unwrap().n_chunks > 0);
    assert_eq!((looked.rows.as_slice(), looked.columns == whole.columns), (&rows[..20], true));
    let (looked, whole) = (looked.into_f32().unwrap(), whole.into_f32().unwrap());
    assert!(!looked.is_empty() && looked == whole[..looked.len()]);
}

#[test]
fn columns_set_in_once_they_are_worth_it() {
    let world = World::new();
    let store = world.store("s.mq", Materialize::Adaptive { gamma_min: 1e-6 });
    let reader = reader(&store).with_answer_bytes(0);
    let first = reader.get(&request("p.m.body.u3", None)).unwrap();
    assert!(matches!(first.source, Source::Rerun { exact: true, .. }), "{}", first.source);
    reader.finish_materializing().unwrap();
    // The unit's column group alone came in, of two RowBlocks; reading it is possible, reading others is not.
    let record = store.intermediate(&ModelKey::new("p", "m").intermediate("body")).unwrap();
    let layout = record.tensor().unwrap().layout;
    assert_eq!(record.n_withheld, 2 * (layout.n_groups() as u64 - 1));
    let read = |key: &str| reader.get(&request(key, None).with_plan(PlanChoice::READ));
    let again = read("p.m.body.u3").unwrap();
    assert_eq!(again.clone().into_f32().unwrap(), first.into_f32().unwrap());
    let refused = read("p.m.body.u31").unwrap_err().to_string();
    assert!(refused.contains("do not hold these columns' values") && refused.contains("--plan rerun"), "{refused}");
    // γ by hand, from what it is made of.
    let gammas = reader.gammas().unwrap();
    let body = gammas.iter().find(|g| g.record.key.intermediate == "body").unwrap();
    let counted: u64 = body.demand.columns.iter().map(|c| c.n_query).sum();
    assert_eq!(counted, 2, "{:?}", body.demand);
    let group = 3 / layout.group_units;
    let of = body.demand.columns.iter().find(|c| c.groups[group]).unwrap();
    let by_hand = (of.t_rerun - of.t_read) * of.n_query as f64 / (body.sizes[group].whole_bytes / 1e9);
    assert!((body.group_gammas[group] / by_hand - 1.0).abs() < 1e-9, "{} for {by_hand}", body.group_gammas[group]);
    assert_eq!(body.group_gammas[layout.n_groups() - 1], 0.0);
    // Everything that is asked for under `all` comes in whole.
    store.set_materialize(Materialize::All).unwrap();
    reader.get(&request("p.m.body.u31", None)).unwrap();
    reader.finish_materializing();
    assert_eq!(withheld(&store, "body"), 0);
    // A threshold that nothing reaches keeps everything out.
    store.set_materialize(Materialize::Adaptive { gamma_min: 1e15 }).unwrap();
    reader.get(&request("p.m.stem", None)).unwrap();
    reader.finish_materializing();
    assert!(withheld(&store, "stem") > 0);
}

#[test]
fn rows_that_are_asked_for_again_are_stored_without_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/zillow/P1.yaml");
    let template = Template::parse("P1.yaml", &std::fs::read_to_string(file).unwrap()).unwrap();
    let data = Data::open("generated:zillow?rows=20000").unwrap();
    let mut plans = plan_template(&template, &data, Some(&store)).unwrap();
    plans.truncate(1);
    store.set_materialize(Materialize::Adaptive { gamma_min: 1e15 }).unwrap();
    log_pipelines(&store, &plans, &data, &PipelineOptions::default(), &mut |_| {}).unwrap();
    let reader = ChunkReader::new(&store).with_workflow(Box::new(PipelineRerun::new(&store))).with_answer_bytes(0);
    let few = request("pipelines.P1.homes_joined.taxamount", Some("4100..4110"));
    let read = |query: &Request| reader.get(&query.clone().with_plan(PlanChoice::READ));
    let ask = |query: &Request| {
        let answer = reader.get(query).unwrap();
        reader.finish_materializing();
        answer
    };
    let first = ask(&few);
    // All rows would have to be asked for eight times as often, these ten are worth it at the second time.
    let gammas = reader.gammas().unwrap();
    let joined = gammas.iter().find(|g| g.record.key.intermediate == "homes_joined").unwrap();
    let of_all = joined.group_gammas.iter().copied().fold(0.0, f64::max);
    assert!(of_all > 0.0);
    store.set_materialize(Materialize::Adaptive { gamma_min: 8.0 * of_all }).unwrap();
    let other = request("pipelines.P1.homes_joined.taxamount", Some("100..110"));
    ask(&other);
    assert!(read(&other).is_err() && read(&few).is_err());
    ask(&few);
    assert_eq!(read(&few).unwrap().data, first.data);
    let refused = read(&other).unwrap_err().to_string();
    assert!(refused.contains("do not hold"), "{refused}");
    assert!(read(&request("pipelines.P1.homes_joined.taxamount", None)).is_err());
}

#[test]
fn repeats_are_held_until_the_catalogue_changes() {
    let world = World::new();
    let store = world.store("s.mq", Materialize::All);
    let reader = reader(&store);
    let query = request("p.m.pool", Some("0..100"));
    let first = reader.get(&query).unwrap();
    assert!(!first.explanation.cached);
    let again = reader.get(&query).unwrap();
    assert!(again.explanation.cached);
    assert_eq!(again.data, first.data);
    assert!(!reader.get(&request("p.m.pool", Some("0..101"))).unwrap().explanation.cached);
    assert!(!reader.get(&query.clone().with_exact(true)).unwrap().explanation.cached);
    assert!(!reader.get(&query.clone().with_plan(PlanChoice::READ)).unwrap().explanation.cached);
    let stats = reader.answer_stats();
    assert!(stats.hits == 1 && stats.held_bytes > 0 && stats.held_bytes <= stats.budget_bytes, "{stats:?}");
    // Every query counts, also one that was answered from memory.
    let pool = store.intermediate(&ModelKey::new("p", "m").intermediate("pool")).unwrap();
    assert_eq!(store.column_queries(pool.id).unwrap(), [("*".to_string(), 5)]);
    // Another handle evicts: what was held is of a catalogue that is no more.
    let other = Store::open(world.path("s.mq")).unwrap();
    other.evict(&[(pool.clone(), vec![true; pool.content.n_groups()])]).unwrap();
    let rerun = reader.get(&query).unwrap();
    assert!(!rerun.explanation.cached);
    assert!(matches!(rerun.source, Source::Rerun { exact: true, .. }), "{}", rerun.source);
    assert_eq!(rerun.data, first.data);
}

#[test]
fn a_workload_is_replayed_on_copies() {
    let world = World::new();
    let path = world.path("s.mq");
    let store = world.store("s.mq", Materialize::All);
    let queries = generate(&store, 12, 3, &Category::ALL).unwrap();
    assert_eq!(queries, generate(&store, 12, 3, &Category::ALL).unwrap());
    assert_ne!(queries, generate(&store, 12, 4, &Category::ALL).unwrap());
    let lines: String = queries.iter().map(|q| q.to_line() + "\n").collect();
    assert_eq!(mistique::workload::parse(&lines).unwrap(), queries);
    for query in &queries {
        let (columns, rows) = query.category.unwrap().many();
        assert_eq!(query.rows.is_none(), rows, "{}", query.to_line());
        assert_eq!(query.keys[0].split('.').count() == 3, columns, "{}", query.to_line());
    }
    let (before, ids) = (store.stats().unwrap(), store.queried().unwrap());
    let whole = WorkloadQuery {
        category: None,
        keys: vec!["p.m.body".into(), "p.m.logits".into()],
        rows: None,
        filter: None,
        exact: false,
    };
    let queries = [queries, vec![whole]].concat();
    let modes = [Materialize::All, Materialize::None, Materialize::Adaptive { gamma_min: 1e-6 }];
    let runs = replay(&store, &path, &queries, &modes, 2, Device::Cpu, &mut |_, _| {}).unwrap();
    assert_eq!(runs.len(), 3);
    let after = store.stats().unwrap();
    assert_eq!((after.n_chunks, after.partition_bytes), (before.n_chunks, before.partition_bytes));
    assert_eq!((store.queried().unwrap(), store.materialize().unwrap()), (ids, Materialize::All));
    let strays = std::fs::read_dir(world.dir.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("workload"));
    assert_eq!(strays.count(), 0);
    let bytes = |i: usize| runs[i].passes.iter().flatten().map(|q| q.stored_bytes).collect::<Vec<_>>();
    assert!(bytes(0).iter().all(|b| *b == runs[0].start_bytes) && runs[0].start_bytes == before.chunk_bytes);
    assert!(bytes(1).iter().all(|b| *b == 0) && runs[1].start_bytes == 0);
    assert!(bytes(2).is_sorted() && runs[2].start_bytes == 0 && runs[2].end_bytes() > 0);
    assert!(runs[1].passes.iter().flatten().all(|q| q.plan != "READ"));
}

/// Standard output and error of a command that must succeed.
fn run(dir: &std::path::Path, args: &[&str]) -> (String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mistique"));
    let out = command.env("MISTIQUE_STORE", dir.join("s.mq")).current_dir(dir).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    (text(&out.stdout), text(&out.stderr))
}

#[test]
fn the_command_line_materializes_after_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| run(dir.path(), args);
    let log = ["log", "digits.cnn", "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--materialize"];
    run(&[&log[..], &["adaptive(0.001)"]].concat());
    let (shown, _) = run(&["materialize"]);
    assert!(shown.starts_with("mode: adaptive(0.001)\n") && shown.contains("0%"), "{shown}");
    let (answer, note) = run(&["get", "digits.cnn.conv2.u3", "--record", "w.jsonl"]);
    assert!(answer.contains("source: rerun"), "{answer}");
    assert!(note.contains("are materialized now"), "{note}");
    let (answer, note) = run(&["get", "digits.cnn.conv2.u3", "--plan", "read", "--record", "w.jsonl"]);
    assert!(answer.contains("source: read") && note.is_empty(), "{answer}{note}");
    let json =
        |args: &[&str]| -> serde_json::Value { serde_json::from_str(&run(&[args, &["--json"]].concat()).0).unwrap() };
    let of = |shown: &serde_json::Value, key: &str| {
        let list = shown["intermediates"].as_array().unwrap();
        list.iter().find(|i| i["key"] == key).unwrap().clone()
    };
    let shown = json(&["materialize"]);
    let conv2 = of(&shown, "digits.cnn.conv2");
    assert_eq!(conv2["n_query"], 2);
    assert!(conv2["gamma"].as_f64().unwrap() > 0.0 && conv2["stored_bytes"].as_f64().unwrap() > 0.0);
    // Emptied, the store answers by RERUN alone; filled, by READ.
    // A budget holds from the next `gc` on: what was asked for stays, the lowest γ leave; with room, nothing does.
    run(&["materialize", "--mode", "all", "--apply"]);
    let stored = |shown: &serde_json::Value| -> f64 {
        shown["intermediates"].as_array().unwrap().iter().map(|i| i["stored_bytes"].as_f64().unwrap()).sum()
    };
    let full = stored(&json(&["materialize", "--mode", "budget(1GB)"]));
    assert_eq!(json(&["gc"])["left_bytes"], 0);
    run(&["materialize", "--mode", &format!("budget({})", (full / 2.0) as u64)]);
    let freed = json(&["gc"]);
    let shown = json(&["materialize"]);
    assert!(freed["left_bytes"].as_f64().unwrap() > 0.0 && freed["freed_bytes"].as_f64().unwrap() > 0.0, "{freed}");
    assert!((0.1..=0.5).contains(&(stored(&shown) / full)), "{} of {full}", stored(&shown));
    assert!(of(&shown, "digits.cnn.conv2")["stored_bytes"].as_f64().unwrap() > 0.0);
    let emptied = json(&["materialize", "--mode", "none", "--apply"]);
    assert_eq!(of(&emptied, "digits.cnn.conv2")["stored_bytes"], 0.0);
    assert!(run(&["get", "digits.cnn.logits"]).0.contains("source: rerun"));
    let filled = json(&["materialize", "--mode", "all", "--apply"]);
    assert!(filled["intermediates"].as_array().unwrap().iter().all(|i| i["stored_share"] == 1.0), "{filled}");
    assert!(run(&["verify"]).0.contains("no damage"));
    // What was recorded, and what is generated, is replayed.
    let replayed = json(&["workload", "run", "w.jsonl", "--mode", "all", "--mode", "none", "--passes", "1"]);
    assert_eq!(replayed["queries"].as_array().unwrap().len(), 2);
    // No run gives the labels: they stay.
    let labels = of(&emptied, "digits.cnn.label")["stored_bytes"].as_f64().unwrap();
    assert_eq!(replayed["modes"][1]["end_bytes"].as_f64(), Some(labels));
    run(&["workload", "generate", "--queries", "5", "--mix", "FCFR,MCMR", "-o", "g.jsonl"]);
    let (table, _) = run(&["workload", "run", "g.jsonl"]);
    assert!(table.contains("MCMR") && table.contains("adaptive(1)") && table.contains("response time from"), "{table}");
}

#[test]
fn rows_that_are_kept_are_read_and_the_others_run() {
    let world = World::new();
    // What is read of this scheme is not what a run gives, so that values tell where they came from.
    let store = world.store_as("split.mq", Materialize::Adaptive { gamma_min: 1e-6 }, "f16");
    let ids = |rows: std::ops::Range<u64>| RowSelection::List(rows.collect());
    // Asked for often enough, the rows of the first RowBlock are kept.
    for _ in 0..3 {
        let session = reader(&store);
        session.get(&request("p.m.body", None).with_rows(RowSelection::Range(0..1024))).unwrap();
        session.finish_materializing();
    }
    // From here on nothing more is kept.
    store.set_materialize(Materialize::None).unwrap();
    let session = reader(&store);
    let whole = request("p.m.body", None);
    let rerun = session.get(&whole.clone().with_plan(PlanChoice::RERUN)).unwrap().to_f64().unwrap();
    let kept = whole.clone().with_rows(RowSelection::Range(0..1024)).with_plan(PlanChoice::READ);
    let kept = session.get(&kept).unwrap().to_f64().unwrap();
    assert_ne!(kept[..], rerun[..kept.len()]);
    for rows in [RowSelection::All, ids(1000..1100), ids(5..9), ids(1200..1210)] {
        let request = whole.clone().with_rows(rows.clone());
        let explained = session.explain(&request).unwrap();
        let split = explained.considered.iter().find(|c| c.plan == "SPLIT");
        let mixed = matches!(&rows, RowSelection::All) || rows == ids(1000..1100);
        assert_eq!(split.is_some_and(|s| s.unavailable.is_none()), mixed, "{rows:?}: {explained:?}");
        if !mixed {
            continue;
        }
        let answer = session.get(&request.clone().with_plan(PlanChoice::SPLIT)).unwrap();
        assert!(matches!(answer.source, Source::Split { .. }), "{}", answer.source);
        let width = answer.columns.len();
        let values = answer.to_f64().unwrap();
        for (at, row) in answer.rows.iter().enumerate() {
            let row = *row as usize;
            let expected = if row < 1024 { &kept } else { &rerun };
            assert_eq!(values[at * width..(at + 1) * width], expected[row * width..(row + 1) * width], "row {row}");
        }
        // A block at a time, too.
        let scan = session.scan(&request.with_plan(PlanChoice::SPLIT)).unwrap();
        let mut scanned = Vec::new();
        scan.for_each(|block| {
            scanned.extend(block.into_f64()?);
            Ok(())
        })
        .unwrap();
        assert_eq!(scanned, values);
        // A block of which all rows are kept, and one of which none is.
        let block = |rows: Range<u64>| scan.read(&rows.collect::<Vec<_>>()).unwrap().into_f64().unwrap();
        assert_eq!(block(1000..1010), kept[1000 * width..1010 * width]);
        assert_eq!(block(1050..1060), rerun[1050 * width..1060 * width]);
    }
    // Predicates choose among the rows that a model can be run for, stored or not.
    let some =
        request("p.m.stem.u0", None).with_rows(RowSelection::Where(mistique::Predicate::parse("row_id < 5").unwrap()));
    assert_eq!(session.get(&some).unwrap().rows, [0, 1, 2, 3, 4]);
}

#[test]
fn ancestors_serve_the_rows_that_they_hold() {
    let world = World::new();
    let store = world.store("part.mq", Materialize::Adaptive { gamma_min: 1e-6 });
    // Asked for often enough, the first RowBlock is kept; the session that sees it be stored plans by it at once.
    let session = reader(&store);
    for _ in 0..3 {
        session.get(&request("p.m.body", Some("0..1024"))).unwrap();
        session.finish_materializing();
    }
    let body = store.intermediate(&ModelKey::new("p", "m").intermediate("body")).unwrap();
    assert!(body.n_withheld > 0);
    store.set_materialize(Materialize::None).unwrap();
    for (rows, possible) in [("0..1024", true), ("700,3,20", true), ("1000..1100", false), ("1100..1200", false)] {
        let asked = request("p.m.logits", Some(rows));
        let explained = session.explain(&asked).unwrap();
        let ancestor = explained.considered.iter().find(|c| c.plan == "ANCESTOR").unwrap();
        assert_eq!(ancestor.unavailable.is_none(), possible, "{rows}: {ancestor:?}");
        let rerun = session.get(&asked.clone().with_plan(PlanChoice::RERUN)).unwrap();
        let found = session.get(&asked.with_plan(PlanChoice::ANCESTOR));
        match possible {
            true => assert_eq!(found.unwrap().data, rerun.data, "{rows}"),
            false => assert!(found.unwrap_err().to_string().contains("is stored exactly for these rows")),
        }
    }
    // What is kept can be taken away again.
    let groups = vec![true; body.content.n_groups()];
    store.evict(&[(body, groups)]).unwrap();
    assert!(session.get(&request("p.m.logits", Some("0..1024")).with_plan(PlanChoice::ANCESTOR)).is_err());
}

#[test]
fn values_whose_dataset_or_weights_have_changed_never_leave() {
    for dataset in [true, false] {
        let world = World::new();
        let store = world.store("kept.mq", Materialize::Budget { bytes: 1 << 20, gamma_min: 0.0 });
        let key = ModelKey::new("p", "m");
        let body = key.intermediate("body");
        for _ in 0..3 {
            let session = reader(&store);
            session.get(&request("p.m.pool", None)).unwrap();
            session.finish_materializing();
        }
        let kept = || store.intermediate(&key.intermediate("pool")).unwrap();
        assert!(kept().is_whole());
        assert!(reader(&store).gammas().unwrap().iter().all(|g| g.fixed.is_none()));
        if dataset {
            // As large as before, with one other value.
            let path = world.path("x.npy");
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        } else {
            let operators = store_files(&world.path("kept.mq"), "operators");
            assert_eq!(operators.len(), 1);
            std::fs::write(&operators[0], b"damaged").unwrap();
        }
        let gammas = reader(&store).gammas().unwrap();
        let pool = gammas.iter().find(|g| g.record.key.intermediate == "pool").unwrap();
        assert!(pool.fixed.is_some(), "{dataset}");
        assert!(pool.not_worth(Materialize::None).iter().all(|leaves| !leaves));
        // Room for nothing: what can be run again in this session would leave.
        store.set_materialize(Materialize::Budget { bytes: 1, gamma_min: 0.0 }).unwrap();
        let session = reader(&store);
        assert!(session.get(&Request::new(body.to_string().parse().unwrap())).is_err());
        session.finish_materializing();
        assert!(kept().is_whole());
    }
}

fn store_files(store: &std::path::Path, folder: &str) -> Vec<PathBuf> {
    std::fs::read_dir(store.join(folder)).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect()
}
