//! Every plan of a pipeline gives the same values, with and without its files.

mod common;

use common::Cli;
use mistique::pipeline::PipelineRerun;
use mistique::{ChunkReader, Data, Materialize, ModelKey, PlanChoice, Request, RowSelection, Store};

const ROWS: u64 = 30_000;
const PIPELINE: &str = "
name: plans
project: town
stages:
  - {name: homes, op: ReadCSV, file: homes.csv}
  - {name: filled, op: FillNA, inputs: [homes], strategy: median, columns: [rooms]}
  - {name: scaled, op: Scaling, inputs: [filled], columns: [rooms, price]}
  - {name: coded, op: OneHotEncoding, inputs: [scaled], columns: [kind]}
  - {name: split, op: TrainTestSplit, inputs: [coded], test: 0.25, seed: 3}
  - {name: again, op: Scaling, inputs: [split/train], columns: [price]}
";
const STAGES: [&str; 7] = ["homes", "filled", "scaled", "coded", "\"split/train\"", "\"split/test\"", "again"];

fn logged() -> (Cli, Store) {
    let cli = Cli::new();
    std::fs::create_dir(cli.path("data")).unwrap();
    let mut csv = String::from("id,rooms,price,kind\n");
    for i in 0..ROWS {
        let rooms = if i % 7 == 3 { String::new() } else { format!("{}", (i * 7919) % 9 + 1) };
        let kind = ["house", "flat", "farm"][(i * i % 3) as usize];
        csv += &format!("{i},{rooms},{}.25,{kind}\n", (i * 104_729) % 100_003);
    }
    std::fs::write(cli.path("data/homes.csv"), csv).unwrap();
    cli.write("plans.yaml", PIPELINE);
    cli.ok(&["log", "plans.yaml", "--data", "data"]);
    let store = Store::open(cli.path("s.mq")).unwrap();
    (cli, store)
}

fn session(store: &Store) -> ChunkReader<'_> {
    ChunkReader::new(store).with_workflow(Box::new(PipelineRerun::new(store)))
}

fn request(stage: &str) -> Request {
    Request::new(format!("town.plans.{stage}").parse().unwrap())
}

fn rows_of(store: &Store, stage: &str) -> Vec<u64> {
    session(store).get(&request(stage).with_plan(PlanChoice::READ)).unwrap().rows
}

fn values(store: &Store, request: &Request) -> (Vec<u64>, Data) {
    let answer = session(store).get(request).unwrap();
    (answer.rows, answer.data)
}

#[test]
fn every_plan_gives_the_same_values() {
    let (_cli, store) = logged();
    let mut seen = Vec::new();
    for stage in STAGES {
        let all = rows_of(&store, stage);
        let some: Vec<u64> = [all.len() - 1, 0, 17, 4321, 17].map(|i| all[i]).to_vec();
        for rows in [RowSelection::All, RowSelection::Range(all[10]..all[2000]), RowSelection::List(some)] {
            let wanted = request(stage).with_rows(rows);
            let read = values(&store, &wanted.clone().with_plan(PlanChoice::READ));
            for considered in session(&store).explain(&wanted).unwrap().considered {
                if considered.unavailable.is_none() {
                    assert_eq!(values(&store, &wanted.clone().with_plan(considered.choice())), read, "{considered:?}");
                    seen.push(considered.plan);
                }
            }
        }
    }
    for plan in ["READ", "RERUN", "ANCESTOR"] {
        assert!(seen.iter().filter(|s| **s == plan).count() >= 15, "{plan}: {seen:?}");
    }
    // One run for several stages.
    let wanted: Vec<Request> = ["filled", "coded", "scaled"].map(|s| request(s).with_plan(PlanChoice::SHARED)).into();
    let together = session(&store).get_intermediates(&wanted).unwrap();
    for (answer, alone) in together.into_iter().zip(wanted) {
        assert_eq!((answer.rows, answer.data), values(&store, &alone.with_plan(PlanChoice::READ)));
    }
}

#[test]
fn rows_that_are_kept_are_read_and_the_others_run() {
    let (_cli, store) = logged();
    let before = values(&store, &request("coded"));
    let record = |name: &str| store.intermediate(&ModelKey::new("town", "plans").intermediate(name)).unwrap();
    store.evict(&[(record("coded"), vec![true; record("coded").content.n_groups()])]).unwrap();
    assert!(!record("coded").is_whole());
    store.set_materialize(Materialize::All).unwrap();
    // Few rows of a RowBlock come back, the others wait for the rest of it.
    let reader = session(&store);
    reader.get(&request("coded").with_rows(RowSelection::Range(100..200))).unwrap();
    reader.finish_materializing();
    drop(reader);
    store.set_materialize(Materialize::None).unwrap();
    let split = request("coded").with_plan(PlanChoice::SPLIT);
    let answer = session(&store).get(&split).unwrap();
    assert!(answer.source.to_string().starts_with("read "), "{}", answer.source);
    assert!(answer.source.to_string().contains("rerun"), "{}", answer.source);
    assert_eq!((answer.rows, answer.data), before);
}

#[test]
fn ancestors_do_without_the_files() {
    let (cli, store) = logged();
    let before = values(&store, &request("again"));
    std::fs::rename(cli.path("data"), cli.path("elsewhere")).unwrap();
    let explained = session(&store).explain(&request("again")).unwrap();
    let why = |plan: &str| explained.considered.iter().find(|c| c.plan == plan).unwrap().unavailable.clone();
    assert_eq!((why("READ"), why("ANCESTOR")), (None, None));
    assert!(why("RERUN").unwrap().contains("homes"), "{:?}", why("RERUN"));
    assert_eq!(values(&store, &request("again").with_plan(PlanChoice::ANCESTOR)), before);
    assert!(session(&store).get(&request("again").with_plan(PlanChoice::RERUN)).is_err());
}

#[test]
fn only_what_a_plan_needs_is_looked_at() {
    let (cli, store) = logged();
    let before = values(&store, &request("again"));
    let record = store.model(&ModelKey::new("town", "plans")).unwrap();
    let stages = store.catalog().stages(record.id).unwrap();
    let filled = stages.iter().find(|s| s.name == "filled").unwrap().artifact.unwrap();
    let hex: String = filled.iter().map(|byte| format!("{byte:02x}")).collect();
    let learnt = cli.path("s.mq").join("operators").join(hex);
    let why = |stage: &str, plan: &str| {
        let explained = session(&store).explain(&request(stage)).unwrap();
        explained.considered.into_iter().find(|c| c.plan == plan).unwrap().unavailable
    };
    for damage in [true, false] {
        if damage {
            std::fs::write(&learnt, b"other").unwrap();
        } else {
            std::fs::remove_file(&learnt).unwrap();
        }
        for stage in ["filled", "again"] {
            let why = why(stage, "RERUN").unwrap();
            assert!(why.contains("what filled learnt"), "{why}");
        }
        let why_not = why("filled", "ANCESTOR").unwrap();
        assert!(why_not.contains("what filled learnt"), "{why_not}");
        assert_eq!((why("homes", "RERUN"), why("again", "ANCESTOR"), why("scaled", "ANCESTOR")), (None, None, None));
        assert_eq!(values(&store, &request("again").with_plan(PlanChoice::ANCESTOR)), before);
        values(&store, &request("homes").with_plan(PlanChoice::RERUN));
        let error = session(&store).get(&request("again").with_plan(PlanChoice::RERUN)).unwrap_err().to_string();
        assert!(error.contains("filled"), "{error}");
    }
}

#[test]
fn bytes_are_those_of_the_files_and_the_store() {
    let (cli, store) = logged();
    let explained = session(&store).explain(&request("filled")).unwrap();
    let bytes = |plan: &str| explained.considered.iter().find(|c| c.plan == plan).unwrap().read_bytes;
    assert_eq!(bytes("RERUN"), std::fs::metadata(cli.path("data/homes.csv")).unwrap().len());
    assert!(bytes("READ") > 0 && bytes("ANCESTOR") > 0);
}
