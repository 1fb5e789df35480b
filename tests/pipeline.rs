//! Pipelines on the command line.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

struct Cli {
    dir: tempfile::TempDir,
}

impl Cli {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Whether the command succeeded, and what it printed.
    fn run(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mistique"));
        command.env("MISTIQUE_STORE", self.dir.path().join("s.mq")).current_dir(self.dir.path()).stdin(Stdio::null());
        let out = command.args(args).output().unwrap();
        let text = if out.status.success() { out.stdout } else { out.stderr };
        (out.status.success(), String::from_utf8(text).unwrap())
    }

    fn ok(&self, args: &[&str]) -> String {
        let (ok, text) = self.run(args);
        assert!(ok, "{args:?}: {text}");
        text
    }

    fn fails(&self, args: &[&str]) -> String {
        let (ok, text) = self.run(args);
        assert!(!ok && !text.contains("panicked"), "{args:?}: {text}");
        text
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }
}

const PIPELINE: &str = "
name: homes
project: town
defaults: {seed: 1}
grid: [{seed: 1}, {seed: 2}]
stages:
  - {name: homes, op: ReadCSV, file: housing.csv}
  - {name: filled, op: FillNA, inputs: [homes], strategy: median, columns: [total_bedrooms]}
  - {name: split, op: TrainTestSplit, inputs: [filled], test: 0.25, seed: '${seed}'}
  - {name: scaled, op: Scaling, inputs: [split/train], columns: [median_income]}
  - {name: scaled_test, op: Scaling, inputs: [split/test], fit: scaled}
";
const DATA: &str = "generated:housing?rows=3000";

#[test]
fn logged_shown_compared_and_asked() {
    let cli = Cli::new();
    cli.write("homes.yaml", PIPELINE);
    let out = cli.ok(&["log", "homes.yaml", "--data", DATA]);
    assert!(out.contains("town.homes@v1: 5 stages, 5 run, 0 shared"), "{out}");
    assert!(out.contains("town.homes@v2: 5 stages, 3 run, 2 shared"), "{out}");
    assert!(out.contains("8 stages run, 2 shared, in "), "{out}");
    let again = cli.ok(&["log", "homes.yaml", "--data", DATA]);
    assert!(again.contains("all 10 stages were stored already"), "{again}");

    let shown = cli.ok(&["show", "town.homes@v2"]);
    for part in
        ["setting seed: 2", "input housing.csv: 3,000 rows of 10 columns", "TrainTestSplit", "fit scaled", "5 stages"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = cli.json(&["show", "town.homes@v2"]);
    assert_eq!(shown["kind"], "pipeline");
    assert_eq!(shown["stages"][2]["params"]["seed"], 2);
    assert_eq!(shown["stages"][2]["outputs"], serde_json::json!(["split/train", "split/test"]));
    assert_eq!(shown["stages"][0]["input"]["types"]["ocean_proximity"], "text");
    assert!(shown["stages"][3]["artifact"].is_string() && shown["stages"][4]["artifact"].is_null());

    let diff = cli.json(&["diff", "town.homes@v1", "town.homes@v2"]);
    assert_eq!(diff["changes"], serde_json::json!([{"stage": "split", "what": "seed", "first": 1, "second": 2}]));
    assert_eq!(diff["shared"], serde_json::json!(["homes", "filled"]));
    assert_eq!(diff["follow"], serde_json::json!(["scaled", "scaled_test"]));
    assert_eq!(diff["different"].as_array().unwrap().len(), 4);
    let diff = cli.ok(&["diff", "town.homes@v1", "town.homes@v2"]);
    assert!(diff.contains("intermediates that both share (2): homes, filled"), "{diff}");

    // Read and run again, the same values.
    let key = "town.homes@v1.scaled_test.median_income";
    let read = cli.ok(&["get", key, "--plan", "read", "-o", "read.csv"]);
    assert!(read.contains("read.csv"), "{read}");
    cli.ok(&["get", key, "--plan", "rerun", "-o", "rerun.csv"]);
    let of = |name: &str| std::fs::read_to_string(cli.dir.path().join(name)).unwrap();
    assert!(of("read.csv").lines().count() > 600 && of("read.csv") == of("rerun.csv"));
    // What was learnt outlives `gc`, and everything is sound.
    cli.ok(&["rm", "town.homes@v2"]);
    cli.ok(&["gc"]);
    cli.ok(&["verify"]);
    cli.ok(&["get", key, "--plan", "rerun", "-o", "again.csv"]);
    assert!(of("read.csv") == of("again.csv"));
}

#[test]
fn what_another_build_logged_is_read_where_it_cannot_be_run() {
    let cli = Cli::new();
    cli.write("homes.yaml", PIPELINE);
    cli.ok(&["log", "homes.yaml", "--data", DATA]);
    // As a later version of an operator would have left it, texts unpacked.
    let catalog = rusqlite::Connection::open(cli.dir.path().join("s.mq/catalog.db")).unwrap();
    let (id, packed): (i64, Vec<u8>) = catalog
        .query_row("SELECT id, packed FROM models WHERE version = 'v1'", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap();
    let unpack = |packed: &[u8], known: &str| {
        let frame = zstd::stream::read::Decoder::with_dictionary(packed, known.as_bytes()).unwrap();
        std::io::read_to_string(frame).unwrap()
    };
    let text = unpack(&packed, "");
    let sql = "SELECT position, description FROM stages WHERE model_id = ?1 AND typeof(description) = 'blob'";
    let mut statement = catalog.prepare(sql).unwrap();
    let stages = statement.query_map([id], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    let stages: Vec<(i64, Vec<u8>)> = stages.map(|r| r.unwrap()).collect();
    drop(statement);
    for (position, packed) in stages {
        let sql = "UPDATE stages SET description = ?3 WHERE model_id = ?1 AND position = ?2";
        catalog.execute(sql, (id, position, unpack(&packed, &text))).unwrap();
    }
    let mut described: Value = serde_json::from_str(&text).unwrap();
    let stages = described["stages"].as_array_mut().unwrap();
    stages.iter_mut().find(|s| s["op"] == "Scaling").unwrap()["version"] = 99.into();
    let sql = "UPDATE models SET description = ?2, packed = NULL WHERE id = ?1";
    catalog.execute(sql, (id, described.to_string())).unwrap();
    drop(catalog);
    let key = "town.homes@v1.scaled.median_income";
    let explained = cli.ok(&["explain", key]);
    assert!(explained.contains("Scaling of version 99 is needed; this build has version"), "{explained}");
    assert!(cli.ok(&["get", key, "--rows", "0..3"]).contains("source: read"));
    let refused = cli.fails(&["get", key, "--plan", "rerun"]);
    assert!(refused.contains("Scaling of version 99 is needed"), "{refused}");
}

#[test]
fn mistakes_are_said_before_a_store_is_made() {
    let cli = Cli::new();
    cli.write("p.yaml", &PIPELINE.replace("op: Scaling, inputs: [split/train]", "op: Scalling, inputs: [split/train]"));
    let text = cli.fails(&["log", "p.yaml", "--data", DATA]);
    assert!(text.contains("p.yaml:10:24: unknown operator Scalling at line 10: did you mean Scaling?"), "{text}");
    cli.write("q.yaml", &PIPELINE.replace("columns: [median_income]", "columns: [median_incom]"));
    let text = cli.fails(&["log", "q.yaml", "--data", DATA]);
    assert!(
        text.contains("q.yaml:10:") && text.contains("no column median_incom: did you mean median_income?"),
        "{text}"
    );
    cli.write("r.yaml", PIPELINE);
    let text = cli.fails(&["log", "r.yaml", "--data", "nowhere"]);
    assert!(text.contains("neither a folder, a file nor a generator of tables"), "{text}");
    let text = cli.fails(&["log", "r.yaml", "town.m", "--data", DATA]);
    assert!(text.contains("name pipelines"), "{text}");
    let text = cli.fails(&["log", "town.m", "--data", DATA]);
    assert!(text.contains("--weights FILE or --init SEED"), "{text}");
    assert!(!cli.dir.path().join("s.mq").exists());
}

#[test]
fn a_stage_is_asked_for_the_rows_that_it_has() {
    let cli = Cli::new();
    let none = "  - {name: none, op: Filter, inputs: [homes], where: 'median_income < 0'}\n";
    cli.write("p.yaml", &format!("{PIPELINE}{none}"));
    cli.ok(&["log", "p.yaml", "--data", DATA]);
    let rows = |key: &str, range: &str, plan: &str| -> Vec<u64> {
        let answer = cli.json(&["get", key, "--rows", range, "--plan", plan]);
        answer[0]["row_ids"].as_array().unwrap().iter().map(|r| r.as_u64().unwrap()).collect()
    };
    let [train, test] = ["split/train", "split/test"].map(|s| format!("town.homes@v1.{s}.median_income"));
    for plan in ["auto", "read", "rerun"] {
        // What the one lacks the other has.
        let mut both = [rows(&train, "0..40", plan), rows(&test, "0..40", plan)].concat();
        assert!(rows(&test, "0..40", plan).len() < 20);
        both.sort_unstable();
        assert_eq!(both, (0..40).collect::<Vec<_>>(), "{plan}");
        assert!(rows("town.homes@v1.none", "0..40", plan).is_empty(), "{plan}");
    }
    let held = rows(&test, "0..40", "read");
    let lacking = (0..40).find(|r| !held.contains(r)).unwrap().to_string();
    assert!(cli.fails(&["get", &test, "--rows", &lacking]).contains(&lacking));
}

#[test]
fn networks_are_compared_by_layers_and_values() {
    let cli = Cli::new();
    for version in ["a", "b"] {
        let model = format!("d.m@{version}");
        cli.ok(&["log", &model, "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--rows", "0..64"]);
    }
    cli.ok(&["log", "d.m@c", "--arch", "digits_cnn", "--init", "2", "--data", "digits", "--rows", "0..64"]);
    let same = cli.json(&["diff", "d.m@a", "d.m@b"]);
    assert_eq!((same["changes"].as_array().unwrap().len(), same["shared"].as_array().unwrap().len()), (0, 7));
    let other = cli.json(&["diff", "d.m@a", "d.m@c"]);
    assert_eq!(other["different"].as_array().unwrap().len(), 6);
    assert!(cli.ok(&["diff", "d.m@a", "d.m@c"]).contains("the weights differ"));
}
