//! Pipelines on the command line.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Cli, write_npy};
use mistique::pipeline::{Pipeline, PipelineError, Template};
use serde_json::{Map, Value};

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
fn a_file_is_one_dataset_however_it_is_named_and_a_grid_is_replaced_with_it() {
    let cli = Cli::new();
    std::fs::create_dir(cli.dir.path().join("in")).unwrap();
    let stages = "stages: [{name: t, op: ReadCSV, file: t.csv}, {name: x, op: Expression, inputs: [t], columns: {s: 'a + ${n}'}}]";
    cli.write("town.yaml", &format!("name: town\ngrid: [{{n: 1}}, {{n: 2}}]\n{stages}\n"));
    cli.write("in/t.csv", "a\n1\n2\n");
    cli.ok(&["log", "town.yaml", "--data", "in"]);
    for data in ["in/t.csv", "in/../in"] {
        assert!(cli.ok(&["log", "town.yaml", "--data", data]).contains("all 4 stages were stored already"), "{data}");
    }
    // Replaced over the same data, too, although its settings share a stage.
    cli.ok(&["log", "town.yaml", "--data", "in", "--replace"]);
    for (version, values) in [("v1", [2, 3]), ("v2", [3, 4])] {
        let answer = cli.json(&["get", &format!("pipelines.town@{version}.x.s"), "--plan", "read"]);
        assert_eq!(answer[0]["values"], serde_json::json!(values), "{version}");
    }
    cli.write("other.yaml", &format!("name: town\ngrid: [{{n: 3}}]\n{stages}\n"));
    let text = cli.fails(&["log", "other.yaml", "--data", "in"]);
    assert!(text.contains("another description") && text.contains("another `name` in its file"), "{text}");

    cli.write("in/t.csv", "a\n1\n2\n5\n");
    let text = cli.fails(&["log", "town.yaml", "--data", "in"]);
    assert!(text.contains("another content") && text.contains("pass --replace"), "{text}");
    // Where another model stays over the old content, the new one has another name.
    cli.write("new.yaml", &format!("name: new\ngrid: [{{n: 1}}]\n{stages}\n"));
    let text = cli.fails(&["log", "new.yaml", "--data", "in"]);
    assert!(text.contains("give the new content a name of its own with --dataset NAME"), "{text}");
    cli.ok(&["log", "new.yaml", "--data", "in", "--dataset", "longer"]);
    assert!(cli.ok(&["log", "town.yaml", "--data", "in", "--replace"]).contains("pipelines.town@v2: 2 stages"));
    for version in ["v1", "v2"] {
        let answer = cli.json(&["get", &format!("pipelines.town@{version}.x.s"), "--rows", "2..3", "--plan", "rerun"]);
        assert_eq!(answer[0]["row_ids"], serde_json::json!([2]), "{version}");
    }
}

#[test]
fn data_that_moved_is_found_again_and_what_is_gone_keeps_nothing_else_back() {
    let cli = Cli::new();
    for (name, values) in [("gone", "a\n1\n2\n"), ("kept", "a\n5\n6\n7\n")] {
        std::fs::create_dir(cli.dir.path().join(name)).unwrap();
        cli.write(&format!("{name}/t.csv"), values);
        let stages = "stages: [{name: t, op: ReadCSV, file: t.csv}, {name: x, op: Expression, inputs: [t], columns: {s: a + 1}}]";
        cli.write(&format!("{name}.yaml"), &format!("name: {name}\n{stages}\n"));
        cli.ok(&["log", &format!("{name}.yaml"), "--data", name, "--materialize", "none"]);
    }
    std::fs::rename(cli.dir.path().join("gone"), cli.dir.path().join("moved")).unwrap();
    let text = cli.fails(&["materialize", "--mode", "all", "--apply"]);
    assert!(text.contains("pipelines.gone.t is left out") && text.contains("2 intermediates are left out"), "{text}");
    assert_eq!(cli.json(&["get", "pipelines.kept.x.s", "--plan", "read"])[0]["values"], serde_json::json!([6, 7, 8]));
    let text = cli.fails(&["export", "some"]);
    assert!(text.contains("pipelines.gone.x is left out"), "{text}");
    let manifest = std::fs::read(cli.dir.path().join("some/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let keys = |of: &str| -> Vec<String> {
        manifest[of].as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(keys("intermediates"), ["pipelines.kept.t", "pipelines.kept.x"]);
    assert_eq!(keys("left_out"), ["pipelines.gone.t", "pipelines.gone.x"]);
    // Logged again from where it lies now, it is the same dataset, and is run from there.
    cli.fails(&["get", "pipelines.gone.x.s", "--plan", "rerun"]);
    cli.ok(&["log", "gone.yaml", "--data", "moved"]);
    for plan in ["rerun", "auto"] {
        let answer = cli.json(&["get", "pipelines.gone.x.s", "--plan", plan]);
        assert_eq!(answer[0]["values"], serde_json::json!([2, 3]), "{plan}");
    }
    assert!(cli.ok(&["show", "pipelines.gone"]).contains("moved/t.csv"));
    cli.ok(&["export", "all"]);
    // What is replaced over the same file knows its rows.
    let filter = |n: u32| {
        format!(
            "name: r\nstages: [{{name: t, op: ReadCSV, file: t.csv}}, {{name: k, op: Filter, inputs: [t], where: a > {n}}}]\n"
        )
    };
    cli.write("r.yaml", &filter(5));
    cli.write("t.csv", "a\n5\n6\n8\n");
    cli.ok(&["log", "r.yaml", "--data", "t.csv"]);
    cli.write("r.yaml", &filter(6));
    cli.ok(&["log", "r.yaml", "--data", "t.csv", "--replace"]);
    assert_eq!(cli.json(&["show", "pipelines.r"])["dataset"]["rows"], 3);
}

#[test]
fn what_is_advised_for_pipelines_can_be_done() {
    let cli = Cli::new();
    cli.write("p.yaml", PIPELINE);
    let text = cli.fails(&["log", "p.yaml", "--data", DATA, "--max-bytes", "100B"]);
    assert!(text.contains("raise the limit") && text.contains("--materialize none"), "{text}");
    assert!(!text.contains("--scheme") && !text.contains("--layers"), "{text}");
    cli.write("t.csv", "a\n1\n2\n");
    cli.write("q.yaml", "name: q\nproject: town\nstages: [{name: t, op: ReadCSV, file: t.csv}]\n");
    cli.ok(&["log", "q.yaml", "--data", "t.csv"]);
    write_npy(&cli.path("a.npy"), &[2], &[1.0, 2.0]);
    let text = cli.fails(&["append", "town.q.t", "a.npy", "--replace"]);
    assert!(text.contains("another kind (pipeline)") && text.contains("name another model"), "{text}");
    assert!(!text.contains("pass --replace"), "{text}");
}

#[test]
fn a_grid_whose_replacement_fails_keeps_what_was_not_replaced() {
    let cli = Cli::new();
    // Under the second setting, a value of 5 is beyond 64 bits.
    cli.write("g.yaml", "name: g\ngrid: [{n: 2}, {n: 4611686018427387904}]\nstages: [{name: t, op: ReadCSV, file: t.csv}, {name: x, op: Expression, inputs: [t], columns: {s: 'a * ${n}'}}]\n");
    cli.write("t.csv", "a\n1\n1\n");
    cli.ok(&["log", "g.yaml", "--data", "t.csv"]);
    cli.write("t.csv", "a\n1\n1\n5\n");
    cli.fails(&["log", "g.yaml", "--data", "t.csv", "--replace"]);
    let read = |version: &str| {
        let key = format!("pipelines.g@{version}.x.s");
        cli.json(&["get", &key, "--plan", "read"])[0]["values"].clone()
    };
    let (old, large) = (serde_json::json!([2, 2]), serde_json::json!([1u64 << 62, 1u64 << 62]));
    assert_eq!((read("v1"), read("v2")), (serde_json::json!([2, 2, 10]), large.clone()));
    let shown = cli.ok(&["show", "pipelines.g@v2"]);
    assert!(!shown.contains("3 rows"), "{shown}");
    // Its dataset has gone with the name: it is not run again over the new one, nor taken for one of it.
    let refused = cli.fails(&["get", "pipelines.g@v2.x.s", "--plan", "rerun"]);
    assert!(refused.contains("dataset"), "{refused}");
    cli.fails(&["log", "g.yaml", "--data", "t.csv"]);
    assert_eq!(read("v2"), large);
    // The first that fails leaves both as they were, with their dataset.
    cli.write("t.csv", "a\n1\n1\n");
    cli.write("g.yaml", "name: g\ngrid: [{n: 2}, {n: 3}]\nstages: [{name: t, op: ReadCSV, file: t.csv}, {name: x, op: Expression, inputs: [t], columns: {s: 'a * ${n}'}}]\n");
    cli.ok(&["log", "g.yaml", "--data", "t.csv", "--replace"]);
    cli.write("g.yaml", "name: g\ngrid: [{n: 9223372036854775807}, {n: 3}]\nstages: [{name: t, op: ReadCSV, file: t.csv}, {name: x, op: Expression, inputs: [t], columns: {s: 'a + ${n}'}}]\n");
    cli.fails(&["log", "g.yaml", "--data", "t.csv", "--replace"]);
    assert_eq!((read("v1"), read("v2")), (old, serde_json::json!([3, 3])));
    assert_eq!(cli.json(&["get", "pipelines.g@v1.x.s", "--plan", "rerun"])[0]["values"], read("v1"));
}

#[test]
fn what_is_the_same_under_other_inputs_is_shared_and_does_not_follow() {
    let cli = Cli::new();
    cli.write("t.csv", "a,b\n1,2\n2,0\n3,4\n4,1\n");
    for (name, extra) in [("one", "x"), ("two", "y")] {
        let stages = format!(
            "stages:
  - {{name: t, op: ReadCSV, file: t.csv}}
  - {{name: more, op: Expression, inputs: [t], columns: {{{extra}: a + b, old: a > 2}}}}
  - {{name: target, op: SelectColumn, inputs: [more], columns: [a, old]}}
  - {{name: model, op: TrainLogisticRegression, inputs: [target], target: old}}"
        );
        cli.write("p.yaml", &format!("name: {name}\n{stages}\n"));
        cli.ok(&["log", "p.yaml", "--data", "t.csv"]);
    }
    let diff = cli.json(&["diff", "pipelines.one", "pipelines.two"]);
    assert_eq!(diff["shared"], serde_json::json!(["t", "target"]));
    assert_eq!(diff["follow"], serde_json::json!([]));
    assert_eq!(diff["different"], serde_json::json!(["more"]));
    // How far the training got is said.
    let model = &cli.json(&["show", "pipelines.one"])["stages"][3]["metrics"];
    assert!(model["nonzero"].is_number() && model["iterations"].is_number() && model["converged"] == 1.0, "{model}");
}

#[test]
fn yaml_files_are_pipelines_however_they_are_written() {
    let cli = Cli::new();
    let stage = "{name: homes, op: ReadCSV, file: housing.csv}";
    cli.write("flow.yaml", &format!("{{name: flow, stages: [{stage}]}}"));
    cli.write("quoted.yml", &format!("\"name\": quoted\n\"stages\":\n  - {stage}\n"));
    for file in ["flow.yaml", "quoted.yml"] {
        assert!(cli.ok(&["log", file, "--data", DATA]).contains("1 stages, "), "{file}");
    }
    cli.write("empty.yaml", "");
    cli.write("stage.yaml", &format!("name: p\nstage: [{stage}]\n"));
    cli.write("net.yaml", "name: n\ninput: {shape: [1, 8, 8]}\nlayers:\n  - {name: flat, op: flatten}\n");
    for (file, data, part) in [
        ("empty.yaml", DATA, "the file is empty; a pipeline needs `name: ...`"),
        ("stage.yaml", DATA, "stage.yaml:2:1: unknown key stage at line 2: did you mean stages?"),
        ("nope.yaml", DATA, "nope.yaml: No such file"),
        ("net.yaml", DATA, "to log a network, write project.model --arch"),
        ("flow.yaml", "generated:housing?row=5", "has no option 'row'; did you mean 'rows'?"),
    ] {
        let text = cli.fails(&["log", file, "--data", data]);
        assert!(text.contains(part), "{file}: {text}");
    }
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

/// Words of a command line, those in single quotes whole.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
    }
    words
}

fn documented() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipelines.md")).unwrap()
}

#[test]
fn the_documented_commands_run() {
    let cli = Cli::new();
    let doc = documented();
    let file = doc.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    cli.write("homes.yaml", file);
    cli.write("mistaken.yaml", &file.replace("[predict, split/test]", "[predict, split/train]"));
    // Figures differ a little between processors.
    let first = |text: &str| -> Vec<String> {
        let line = text.lines().next().unwrap_or_default().split(';').next().unwrap_or_default();
        let figure = |w: &str| w.contains('.') && w.trim_end_matches(',').parse::<f64>().is_ok();
        line.split_whitespace().filter(|w| !figure(w)).map(String::from).collect()
    };
    let lines: Vec<&str> = doc.lines().collect();
    let mut n = 0;
    for (line, shown) in lines.iter().zip(&lines[1..]) {
        let Some(command) = line.strip_prefix("    $ mistique ") else { continue };
        let ran = cli.run(&words(command));
        let ok = ran.is_ok();
        let text = ran.unwrap_or_else(|e| e);
        assert_eq!(first(&text), first(shown), "{command}: {text}");
        assert_eq!(ok, !shown.starts_with("    error:"), "{command}");
        n += 1;
    }
    assert!(n >= 7, "{n} commands");
}

/// What docs/pipelines.md says of an operator.
#[derive(Default)]
struct Documented {
    n_inputs: usize,
    fit: bool,
    /// Default, and what it is, by parameter.
    params: BTreeMap<String, (String, String)>,
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn documented_operators(doc: &str) -> BTreeMap<String, Documented> {
    let mut operators: BTreeMap<String, Documented> = BTreeMap::new();
    let mut named: Vec<String> = Vec::new();
    for line in doc.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| operator ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [names, what, _, default, about] = cells[..] else { panic!("five cells: {line}") };
        if names.is_empty() {
            for (name, of) in quoted(what).flat_map(|name| named.iter().map(move |of| (name, of))) {
                let params = &mut operators.get_mut(of).unwrap().params;
                assert!(params.insert(name.into(), (default.into(), about.into())).is_none(), "{of}: {name} twice");
            }
            continue;
        }
        named = names.split("**").filter(|n| n.starts_with(char::is_uppercase)).map(String::from).collect();
        let (reads, gives) = what.split_once(" → ").unwrap();
        let n_inputs = reads.split(", ").filter(|r| !["nothing", "…"].contains(r)).count();
        for name in &named {
            let operator = operators.entry(name.clone()).or_default();
            (operator.n_inputs, operator.fit) = (n_inputs, gives.contains("`fit`"));
        }
    }
    operators
}

/// Parameters without which an operator is not complete.
fn needed(operator: &str) -> &'static str {
    match operator {
        "ReadCSV" | "ReadParquet" => "file: a.csv",
        "Join" => "on: a",
        "SelectColumn" | "DropColumns" | "OneHotEncoding" | "LabelIndexing" => "columns: a",
        "Filter" => "where: a",
        "FillNA" => "value: 1",
        "Avg" => "columns: a, output: b",
        "IsResidential" => "codes: [1]",
        "Expression" => "columns: {b: a}",
        "Evaluate" => "target: a",
        _ if operator.starts_with("Train") && operator != "TrainTestSplit" => "target: a",
        _ => "",
    }
}

/// Parameters of a stage, defaults included.
fn params_of(operator: &str, n_inputs: usize, given: &[&str]) -> Result<Map<String, Value>, PipelineError> {
    let own = format!("name: it, op: {operator}, inputs: [{}]", vec!["d"; n_inputs].join(", "));
    let all = [&[own.as_str()][..], given].concat();
    let all: Vec<&str> = all.into_iter().filter(|part| !part.is_empty()).collect();
    let text = format!("name: t\nstages:\n  - {{name: d, op: ReadCSV, file: a.csv}}\n  - {{{}}}\n", all.join(", "));
    let template = Template::parse("t.yaml", &text)?;
    let pipeline = Pipeline::new(&template, &template.settings()[0])?;
    Ok(pipeline.stages().iter().find(|s| s.name() == "it").unwrap().params().clone())
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64())
}

#[test]
fn the_documented_operators_are_those_that_there_are() {
    let documented = documented_operators(&documented());
    let Err(PipelineError::UnknownOperator { known, .. }) = params_of("Nothing", 0, &[]) else { panic!() };
    let known: BTreeSet<&str> = known.split(", ").collect();
    assert!(known.iter().eq(documented.keys()), "{known:?}");
    for (operator, Documented { n_inputs, fit, params }) in documented {
        let needed = needed(&operator);
        // Which parameters there are can hang on one of them.
        let methods: &[&str] = if operator == "ComputeNeighborhood" { &["", "method: grid"] } else { &[""] };
        let (mut names, mut found) = (BTreeSet::new(), Map::new());
        for method in methods.iter().rev() {
            let Err(PipelineError::Unknown { known, .. }) = params_of(&operator, n_inputs, &[needed, method, "odd: 1"])
            else {
                panic!("{operator}")
            };
            names.extend(known.split(", ").filter(|k| !["name", "op", "inputs", "fit"].contains(k)).map(String::from));
            found.extend(params_of(&operator, n_inputs, &[needed, method]).unwrap());
        }
        assert!(names.iter().eq(params.keys()), "{operator}: {names:?}");
        let inputs = vec!["d"; n_inputs].join(", ");
        let learns = [format!("op: {operator}, inputs: [{inputs}]"), needed.into()];
        let learns: Vec<String> = learns.into_iter().filter(|part| !part.is_empty()).collect();
        let text = format!(
            "name: t\nstages:\n  - {{name: d, op: ReadCSV, file: a.csv}}\n  - {{name: f, {}}}\n  - {{name: it, op: {operator}, inputs: [{inputs}], fit: f}}\n",
            learns.join(", ")
        );
        let template = Template::parse("t.yaml", &text).unwrap();
        let fits = Pipeline::new(&template, &template.settings()[0]).is_ok();
        assert_eq!(fits, fit, "{operator}: fit");
        for (name, (default, about)) in &params {
            let written = needed.starts_with(&format!("{name}:")) || needed.contains(&format!(", {name}:"));
            assert_eq!(default == "needed", written, "{operator}: {name} is needed");
            let shown: Vec<&str> = quoted(default).collect();
            let [shown] = shown[..] else { continue };
            if default.len() != shown.len() + 2 {
                continue;
            }
            let expected = serde_json::from_str(shown).unwrap_or_else(|_| Value::from(shown));
            assert!(same(&expected, &found[name.as_str()]), "{operator}: {name} is {}", found[name.as_str()]);
            let also = about.strip_prefix("also ").and_then(|a| a.split(". ").next()).unwrap_or_default();
            for alias in quoted(also) {
                let given = params_of(&operator, n_inputs, &[needed, &format!("{alias}: {shown}")]).unwrap();
                assert_eq!(given, found, "{operator}: {alias}");
            }
        }
    }
}
