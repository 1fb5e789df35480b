//! The command line, as a user meets it.

mod common;

use std::path::Path;
use std::process::{Output, Stdio};

use common::{Cli, npy, write_npy, write_table};
use serde_json::Value;

#[test]
fn a_network_is_logged_and_read_and_rerun() {
    let cli = Cli::new();
    let said = cli.digits("digits.cnn", &["--scheme", "f32"]);
    assert!(said.contains("6 layers of 1,797 rows"), "{said}");
    let list = cli.json(&["ls"]);
    let keys: Vec<&str> = list.as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 7, "six layers and the labels");
    assert_eq!(keys[0], "digits.cnn.conv1");
    // Nothing is logged twice.
    assert!(cli.digits("digits.cnn", &["--scheme", "f32"]).contains("stored already"));
    // READ and RERUN agree bit for bit at full precision, whatever the rows.
    for rows in ["0..300", "1796,0,77,77,5"] {
        for key in ["digits.cnn.conv2", "digits.cnn.logits", "digits.cnn.conv1.u3[4,7]", "digits.cnn.dense1.u5..9,u0"] {
            cli.ok(&["get", key, "--rows", rows, "--plan", "read", "-o", "a.npy"]);
            cli.ok(&["get", key, "--rows", rows, "--plan", "rerun", "-o", "b.npy"]);
            let (a, b) = (npy(&cli.path("a.npy")), npy(&cli.path("b.npy")));
            assert_eq!(a.0, b.0, "{key}");
            assert!(a.1.iter().zip(&b.1).all(|(x, y)| x.to_bits() == y.to_bits()), "{key} of {rows}");
        }
    }
    let (shape, _) = {
        cli.ok(&["get", "digits.cnn.conv2", "--rows", "0..3", "-o", "c.npy"]);
        npy(&cli.path("c.npy"))
    };
    assert_eq!(shape, [3, 32, 8, 8]);
    // A predicate on another intermediate.
    let all = cli.json(&["get", "digits.cnn.logits"]);
    let values: Vec<f64> = all[0]["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let argmax = |row: &[f64]| (0..10).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    let want: Vec<usize> = values.chunks(10).enumerate().filter(|(_, r)| argmax(r) == 3).map(|(i, _)| i).collect();
    let found = cli.json(&["get", "digits.cnn.conv1.u0", "--where", "logits.argmax = 3"]);
    let found: Vec<usize> =
        found[0]["row_ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
    assert_eq!(found, want);
    // What a plan would cost, and that a lossy copy is not exact.
    let plans = cli.json(&["explain", "digits.cnn.conv1", "--dry"]);
    let considered: Vec<&str> =
        plans[0]["considered"].as_array().unwrap().iter().map(|c| c["plan"].as_str().unwrap()).collect();
    assert_eq!(considered, ["READ", "RERUN", "ANCESTOR"]);
    assert!(plans[0]["considered"][2]["unavailable"].as_str().unwrap().contains("nothing that conv1 can be run from"));
    // Every possible plan runs, and its time stands beside the predicted one.
    let all = cli.json(&["explain", "digits.cnn.logits", "--all"]);
    for plan in all[0]["considered"].as_array().unwrap() {
        assert!(plan["predicted_seconds"].as_f64().is_some() && plan["actual_seconds"].as_f64().is_some(), "{plan}");
    }
    let measured = cli.json(&["calibrate", "digits.cnn", "--seconds", "60"]);
    let figures = measured["figures"].as_array().unwrap();
    let stage = |f: &&Value| f["figure"] == "stage" && f["of"] == "digits.cnn@cpu/conv2#16";
    assert!(figures.iter().find(stage).unwrap()["measurements"].as_u64().unwrap() >= 3, "{measured}");
    assert!(cli.ok(&["verify"]).contains("no damage"));
}

#[test]
fn lossy_copies_say_so() {
    let cli = Cli::new();
    cli.digits("digits.cnn", &["--layers", "conv*,logits"]);
    let text = cli.ok(&["get", "digits.cnn.conv1.u2", "--rows", "0..3", "--plan", "read"]);
    assert!(text.contains("source: read pool(2)+f16"), "{text}");
    let exact = cli.fails(&["get", "digits.cnn.logits", "--plan", "read", "--exact"]);
    assert!(exact.contains("exact values were asked for"), "{exact}");
    assert!(cli.ok(&["get", "digits.cnn.logits", "--rows", "0..3", "--exact"]).contains("source: rerun exact"));
    let shown = cli.json(&["show", "digits.cnn.conv1"]);
    assert!(shown["error_relative"].as_f64().unwrap() > 0.0);
    assert_eq!(shown["units_error"].as_array().unwrap().len(), 16);
    assert!(cli.ok(&["show", "digits.cnn"]).contains("conv2d(input)"));
    assert!(cli.ok(&["stats"]).contains("pool(2)+f16"));
}

#[test]
fn content_under_a_used_name_is_refused() {
    let cli = Cli::new();
    cli.digits("d.m", &["--layers", "logits"]);
    let other = ["log", "d.m", "--arch", "digits_cnn", "--init", "2", "--data", "digits", "--layers", "logits"];
    let refused = cli.fails(&other);
    assert!(refused.contains("set of weights") && refused.contains("--replace"), "{refused}");
    assert!(cli.ok(&["gc"]).contains("0 operators"), "what was refused left no weights");
    let versioned = ["log", "d.m@two", "--arch", "digits_cnn", "--init", "2", "--data", "digits", "--layers", "logits"];
    cli.ok(&versioned);
    let before = cli.json(&["get", "d.m.logits", "--plan", "read", "--rows", "0"])[0]["values"].clone();
    let mut replace = other.to_vec();
    replace.push("--replace");
    cli.ok(&replace);
    let after = cli.json(&["get", "d.m.logits", "--plan", "read", "--rows", "0"])[0]["values"].clone();
    assert_ne!(before, after);
    assert_eq!(after, cli.json(&["get", "d.m@two.logits", "--plan", "read", "--rows", "0"])[0]["values"]);
    let gone = cli.fails(&["rm", "d.mm"]);
    assert!(gone.contains("did you mean") || gone.contains("nearest"), "{gone}");
    cli.ok(&["rm", "d.m@two"]);
    assert!(cli.ok(&["gc"]).starts_with("freed"));
    assert_eq!(after, cli.json(&["get", "d.m.logits", "--plan", "read", "--rows", "0"])[0]["values"]);
}

#[test]
fn a_second_writer_can_wait() {
    let cli = Cli::new();
    write_npy(&cli.path("a.npy"), &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    cli.ok(&["append", "p.m.t", "a.npy"]);
    let store = mistique::Store::open(cli.path("s.mq")).unwrap();
    let log = store.logger(mistique::LogOptions::default()).unwrap();
    for args in [&["append", "p.m.t", "a.npy"][..], &["gc"], &["rm", "p.m", "--wait", "0.3"]] {
        let refused = cli.fails(args);
        assert!(refused.contains("another process is writing") && refused.contains("--wait"), "{refused}");
    }
    // Reading waits for nobody.
    assert!(cli.ok(&["get", "p.m.t"]).contains("2 rows"));
    let mut waits = cli.command(&["append", "p.m.t", "a.npy", "--wait", "120"]);
    let mut waits = waits.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(waits.try_wait().unwrap().is_none(), "it waits");
    drop(log);
    let out = waits.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("waiting for it"), "{said}");
    assert!(cli.ok(&["get", "p.m.t"]).contains("4 rows"));
    assert!(cli.fails(&["gc", "--wait=-1"]).contains("--wait"));
    cli.ok(&["gc", "--wait", "1e18"]);
}

#[test]
fn an_interrupted_log_goes_on() {
    let cli = Cli::new();
    let log = |model: &'static str| {
        vec![
            "log",
            model,
            "--arch",
            "cifar10_cnn",
            "--init",
            "3",
            "--data",
            "generated:images?rows=12000&size=32&channels=3",
            "--layers",
            "conv4,logits",
            "--scheme",
            "f16",
            "--checkpoint",
            "0.2",
        ]
    };
    let mut child = cli.command(&log("p.cut")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Kill it once something is committed, but not all.
    let rows = || -> u64 {
        let out = cli.output(&["ls", "p.cut*", "--json"]);
        let list: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        list[0]["rows"].as_u64().unwrap_or_default()
    };
    let begun = std::time::Instant::now();
    let committed = loop {
        let n = rows();
        if n > 0 {
            break n;
        }
        assert!(begun.elapsed().as_secs() < 120, "nothing was committed");
        assert!(child.try_wait().unwrap().is_none(), "the log ended before it could be cut");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(committed < 12000);
    assert!(cli.ok(&["ls"]).contains("incomplete"));
    assert!(cli.ok(&["verify"]).contains("no damage"));
    let report = cli.json(&log("p.cut"));
    let ran = report["rows_run"].as_u64().unwrap();
    assert!(ran <= 12000 - committed, "only the missing rows run: {ran} of {}", 12000 - committed);
    assert!(!cli.ok(&["ls"]).contains("incomplete"));
    cli.ok(&log("p.whole"));
    for layer in ["conv4", "logits"] {
        cli.ok(&["get", &format!("p.cut.{layer}"), "-o", "a.npy", "--plan", "read"]);
        cli.ok(&["get", &format!("p.whole.{layer}"), "-o", "b.npy", "--plan", "read"]);
        assert_eq!(std::fs::read(cli.path("a.npy")).unwrap(), std::fs::read(cli.path("b.npy")).unwrap(), "{layer}");
    }
}

#[test]
fn two_datasets_and_a_network_with_skips_share_a_store() {
    let cli = Cli::new();
    cli.digits("digits.cnn", &["--layers", "logits"]);
    let data = "generated:images?rows=70&size=32&channels=3";
    cli.ok(&[
        "log",
        "other.resnet",
        "--arch",
        "resnet20",
        "--init",
        "1",
        "--data",
        data,
        "--batch",
        "33",
        "--scheme",
        "f32",
    ]);
    let shown = cli.ok(&["show", "other.resnet"]);
    assert!(shown.contains("add("), "{shown}");
    let layers = cli.json(&["ls", "other.resnet"]).as_array().unwrap().len();
    assert!(layers > 20);
    // Rows are added by a second run over more rows.
    let more = "generated:images?rows=70&size=32&channels=3";
    cli.ok(&[
        "log", "add.m", "--arch", "resnet20", "--init", "1", "--data", more, "--layers", "*add*", "--rows", "0..40",
    ]);
    cli.ok(&[
        "log", "add.m", "--arch", "resnet20", "--init", "1", "--data", more, "--layers", "*add*", "--rows", "40..70",
    ]);
    let list = cli.json(&["ls", "add.m"]);
    assert!(list.as_array().unwrap().iter().all(|i| i["rows"] == 70), "{list}");
    // The same name for other rows is refused.
    let changed = "generated:images?rows=71&size=32&channels=3";
    let refused = cli.fails(&["log", "add.m", "--arch", "resnet20", "--init", "1", "--data", changed]);
    assert!(refused.contains("content"), "{refused}");
}

#[test]
fn columns_that_a_network_does_not_see_are_said() {
    let cli = Cli::new();
    std::fs::write(cli.path("t.csv"), "a,b,y\n1,2,0\n2,x,1\n").unwrap();
    let out = cli.output(&["dataset", "show", "csv:t.csv?label=y"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("left out, since they are no numbers: b (text: line 3 has \"x\")"), "{said}");
    let shown = cli.json(&["dataset", "show", "csv:t.csv?label=y"]);
    assert_eq!(shown["left_out"], serde_json::json!([{"column": "b", "found": "text: line 3 has \"x\""}]));
}

#[test]
fn a_key_that_lacks_rows_of_the_first_says_which() {
    let cli = Cli::new();
    write_npy(&cli.path("a.npy"), &[5, 1], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    cli.ok(&["append", "p.a.x", "a.npy"]);
    for (key, ids, lacking, advice) in [
        ("p.run.y", "0 1 2 7 8", "2 of these 5 rows of p.a.x, the first of them row_id 3", "have: --rows 0..3"),
        ("p.apart.y", "0 9 3 8 7", "3 of these 5 rows of p.a.x, the first of them row_id 1", "have: --rows 0,3"),
        ("p.none.y", "5 6 7 8 9", "5 of these 5 rows of p.a.x, the first of them row_id 0", "ask for each by itself"),
    ] {
        cli.write("ids.txt", &ids.replace(' ', "\n"));
        cli.ok(&["append", key, "a.npy", "--row-ids", "ids.txt"]);
        for command in [&["get", "p.a.x", key][..], &["get", "p.a.x", key, "--json"], &["explain", "p.a.x", key]] {
            let said = cli.fails(command);
            assert!(said.contains(&format!("{key} lacks {lacking}; ")) && said.contains(advice), "{said}");
        }
        if let Some((_, rows)) = advice.split_once("--rows ") {
            cli.ok(&["get", "p.a.x", key, "--rows", rows]);
        }
    }
    let said = cli.fails(&["get", "p.a.x", "p.run.y", "--rows", "2,4,3"]);
    assert!(said.contains("p.run.y lacks 2 of these 3 rows of p.a.x, the first of them row_id 4"), "{said}");
    // The first one's own rows.
    assert!(cli.fails(&["get", "p.a.x", "p.run.y", "--rows", "7"]).contains("p.a.x: row_id 7 is not stored"));
}

#[test]
fn a_replacement_that_fails_leaves_what_there_was() {
    let cli = Cli::new();
    let mut images: Vec<f32> = (0..3000 * 64).map(|i| (i % 97) as f32 / 97.0).collect();
    write_npy(&cli.path("x.npy"), &[3000, 1, 8, 8], &images);
    let log = ["log", "p.m", "--arch", "digits_cnn", "--init", "1", "--layers", "logits", "--scheme", "kbit(8)"];
    cli.ok(&[&log[..], &["--data", "npy:x.npy"]].concat());
    let stored = || cli.json(&["get", "p.m.logits", "--rows", "0..5", "--plan", "read"])[0]["values"].clone();
    let before = stored();
    // A value that the scheme cannot hold, long after the first commits would have been due.
    images[2990 * 64] = f32::NAN;
    write_npy(&cli.path("bad.npy"), &[3000, 1, 8, 8], &images);
    let again = ["--data", "npy:bad.npy", "--dataset", "bad", "--replace", "--batch", "16", "--checkpoint", "0"];
    let refused = cli.fails(&[&log[..], &again].concat());
    assert!(refused.contains("NaN"), "{refused}");
    assert_eq!(stored(), before);
    assert!(cli.ok(&["ls", "p.m.logits"]).contains("3,000"));
}

#[test]
fn files_of_one_name_are_told_apart_by_a_name_given() {
    let cli = Cli::new();
    std::fs::create_dir(cli.path("sub")).unwrap();
    for (file, value) in [("x.npy", 1.0), ("sub/x.npy", 2.0)] {
        write_npy(&cli.path(file), &[4, 1, 8, 8], &[value; 256]);
    }
    let log = |model: &str, data: &str, more: &[&str]| {
        let args = ["log", model, "--arch", "digits_cnn", "--init", "1", "--layers", "logits", "--data", data];
        [&args[..], more].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let run = |args: &[String]| cli.output(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = |out: Output| String::from_utf8(out.stderr).unwrap();
    assert!(run(&log("p.m", "npy:x.npy", &[])).status.success());
    let refused = said(run(&log("q.m", "npy:sub/x.npy", &[])));
    assert!(refused.contains("dataset npy-x of q.m") && refused.contains("--dataset NAME"), "{refused}");
    assert!(!refused.contains("--replace"), "{refused}");
    assert!(run(&log("q.m", "npy:sub/x.npy", &["--dataset", "sub-x"])).status.success());
    // The model's own dataset: it is replaced, unless others stay over it.
    assert!(run(&log("r.m", "npy:x.npy", &[])).status.success());
    let refused = said(run(&log("r.m", "npy:sub/x.npy", &[])));
    assert!(refused.contains("pass --replace, and --dataset NAME"), "{refused}");
    assert!(!run(&log("r.m", "npy:sub/x.npy", &["--replace"])).status.success());
    assert!(run(&log("r.m", "npy:sub/x.npy", &["--replace", "--dataset", "sub-x"])).status.success());
    // The same content under the other name is what was logged.
    let again = run(&log("r.m", "npy:sub/x.npy", &["--dataset", "another"]));
    assert!(String::from_utf8(again.stdout).unwrap().contains("are stored already"));
}

#[test]
fn bytes_are_announced_and_bounded() {
    let cli = Cli::new();
    let args = ["log", "d.m", "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--max-bytes", "100kB"];
    let refused = cli.fails(&args);
    assert!(refused.contains("takes up to") && refused.contains("--max-bytes"), "{refused}");
    assert_eq!(cli.json(&["ls"]), serde_json::json!([]));
    let out = cli.output(&["log", "d.m", "--arch", "digits_cnn", "--init", "1", "--data", "digits"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("1,797 rows, at most"), "{said}");
}

#[test]
fn bad_input_is_answered_in_plain_words() {
    let cli = Cli::new();
    assert!(cli.fails(&["ls"]).contains("no store here"));
    cli.digits("d.m", &["--layers", "logits,conv1"]);
    for (args, expected) in [
        (vec!["get", "d.m.logit"], "did you mean logits"),
        (vec!["get", "d.n.logits"], "d.m"),
        (vec!["get", "d.m"], "project.model.intermediate"),
        (vec!["get", "d.m.logits.u10"], "u0 to u9"),
        (vec!["get", "d.m.logits.x"], "expected u35"),
        (vec!["get", "d.m.conv1.u0[8,0]"], "cells of one unit"),
        (vec!["get", "d.m.logits", "--rows", "5..2"], "ends before it starts"),
        (vec!["get", "d.m.logits", "--rows", "99999"], "row_id 99999 is not stored"),
        (vec!["get", "d.m.logits", "--where", "logits.argmax ~ 3"], "at character"),
        (vec!["get", "d.m.logits", "--where", "logits = 3"], "10 columns"),
        (vec!["get", "d.m.logits", "-o", "x.xls"], "cannot write .xls"),
        (vec!["log", "d.x", "--arch", "vgg16", "--init", "1", "--data", "digits"], "takes rows of shape"),
        (vec!["log", "d.x", "--arch", "vgg61", "--init", "1", "--data", "digits"], "vgg16"),
        (vec!["log", "d.x", "--arch", "digits_cnn", "--init", "1", "--data", "digitz"], "digits"),
        (vec!["log", "d.x", "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--layers", "nope*"], "conv1"),
        (vec!["log", "d.x", "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--scheme", "kbit(9)"], "kbit"),
        (vec!["log", "dx", "--arch", "digits_cnn", "--init", "1", "--data", "digits"], "project.model"),
        (
            vec!["log", "d.x", "--arch", "digits_cnn", "--weights", "missing.safetensors", "--data", "digits"],
            "missing.safetensors",
        ),
        (vec!["log", "d.x", "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--device", "cuda:0"], "cuda"),
        (vec!["append", "p.m.t", "missing.npy"], "missing.npy"),
        (vec!["dataset", "fetch", "cifar11"], "cifar10"),
        (vec!["show", "d.m.\"x"], "quote is not closed"),
    ] {
        let text = cli.fails(&args);
        assert!(text.contains(expected), "{args:?} said {text}");
    }
    // A checkpoint that does not fit its architecture, and one that is none.
    std::fs::write(cli.path("bad.safetensors"), b"not a checkpoint").unwrap();
    let text = cli.fails(&["log", "d.x", "--arch", "digits_cnn", "--weights", "bad.safetensors", "--data", "digits"]);
    assert!(text.contains("bad.safetensors"), "{text}");
    // Nothing of all that was stored.
    assert_eq!(cli.json(&["ls"]).as_array().unwrap().len(), 3);
}

#[test]
fn names_are_data() {
    let cli = Cli::new();
    write_npy(&cli.path("a.npy"), &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    for (model, layer) in [("../../x", "../y"), ("a\"b", "c.d"), ("sp ace\n", "🦀"), ("x", "u1")] {
        let quoted = |n: &str| format!("\"{}\"", n.replace('"', "\"\""));
        let key = format!("\"../..\".{}.{}", quoted(model), quoted(layer));
        cli.ok(&["append", &key, "a.npy"]);
        assert_eq!(cli.json(&["get", &format!("{key}.u1")])[0]["values"], serde_json::json!([2.0, 4.0]), "{key}");
    }
    let made: Vec<String> =
        std::fs::read_dir(cli.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(made.iter().all(|n| n == "a.npy" || n == "s.mq"), "{made:?}");
}

#[test]
fn damage_is_named_and_fails() {
    let cli = Cli::new();
    cli.digits("d.m", &["--layers", "conv1,logits"]);
    let partition = std::fs::read_dir(cli.path("s.mq/partitions")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&partition).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&partition, bytes).unwrap();
    let out = cli.output(&["verify"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(!out.status.success() && text.contains("damaged:") && text.contains("d.m.conv1"), "{text}");
    // Other data stays readable.
    cli.ok(&["get", "d.m.logits", "--plan", "read", "--rows", "0..5"]);
}

#[test]
fn rerun_is_refused_with_its_reason() {
    let cli = Cli::new();
    let values: Vec<f32> = (0..3 * 64).map(|i| i as f32 / 200.0).collect();
    write_npy(&cli.path("in.npy"), &[3, 1, 8, 8], &values);
    cli.ok(&["log", "d.m", "--arch", "digits_cnn", "--init", "1", "--data", "npy:in.npy", "--layers", "logits"]);
    cli.ok(&["get", "d.m.logits", "--plan", "rerun"]);
    write_npy(&cli.path("in.npy"), &[3, 1, 8, 8], &vec![0.5; 192]);
    assert!(cli.fails(&["get", "d.m.logits", "--plan", "rerun"]).contains("has changed"));
    cli.ok(&["get", "d.m.logits"]);
    std::fs::remove_file(cli.path("in.npy")).unwrap();
    let text = cli.fails(&["get", "d.m.logits", "--plan", "rerun"]);
    assert!(text.contains("not there any more"), "{text}");
    assert!(cli.ok(&["explain", "d.m.logits"]).contains("not possible"));
    cli.ok(&["get", "d.m.logits"]);
}

#[test]
fn completions_and_help() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(cli.ok(&["completions", shell]).contains("mistique"));
    }
    assert!(cli.ok(&["--help"]).contains("MISTIQUE_STORE"));
    assert!(cli.ok(&["dataset", "ls"]).contains("cifar10"));
    assert_eq!(cli.json(&["dataset", "show", "digits"])["rows"], 1797);
    let into = cli.path("zillow");
    let written = cli.json(&["dataset", "write", "generated:zillow?rows=500", "--into", into.to_str().unwrap()]);
    assert_eq!(written[0]["rows"], 500);
    let properties = mistique::datasets::read_csv(into.join("properties_2016.csv")).unwrap();
    assert_eq!((properties.num_rows(), properties.num_columns()), (500, 58));
}

#[test]
fn the_demo_ends_with_what_to_try_next() {
    let cli = Cli::new();
    let begun = std::time::Instant::now();
    let text = cli.ok(&["demo", "--epochs", "2"]);
    assert!(begun.elapsed().as_secs() < 90, "the demo took {:?}", begun.elapsed());
    for expected in ["READ", "RERUN", "POINTQ", "TOPK", "COL_DIST", "KNN", "COL_DIFF", "pool(2)+f16", "Try next"] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    // The commands that it names work as they stand.
    for line in text.lines().filter(|l| l.trim_start().starts_with("mistique --store")) {
        let line = line.trim().trim_start_matches("mistique ");
        let mut args: Vec<String> = Vec::new();
        let mut quoted = false;
        let mut word = String::new();
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => args.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        args.push(word);
        cli.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn replacing_one_intermediate_keeps_the_others() {
    let cli = Cli::new();
    write_npy(&cli.path("a.npy"), &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    write_npy(&cli.path("b.npy"), &[1, 3], &[7.0, 8.0, 9.0]);
    cli.ok(&["append", "p.m.x", "a.npy"]);
    cli.ok(&["append", "p.m.y", "a.npy"]);
    cli.ok(&["append", "p.m.x", "b.npy", "--replace"]);
    assert_eq!(cli.json(&["get", "p.m.x"])[0]["values"], serde_json::json!([7.0, 8.0, 9.0]));
    assert_eq!(cli.json(&["get", "p.m.y"])[0]["values"], serde_json::json!([1.0, 2.0, 3.0, 4.0]));
    // The demo makes its store anew, but never someone else's.
    let refused = cli.fails(&["demo", "--epochs", "1", "--into", "s.mq"]);
    assert!(refused.contains("not the demo's"), "{refused}");
    assert_eq!(cli.json(&["ls"]).as_array().unwrap().len(), 2);
}

#[test]
fn exact_answers_have_full_resolution() {
    let cli = Cli::new();
    cli.digits("d.pooled", &["--layers", "conv1"]);
    cli.digits("d.full", &["--layers", "conv1", "--scheme", "f32"]);
    cli.ok(&["get", "d.pooled.conv1.u2,u5[3,4]", "--rows", "9,3", "--exact", "-o", "a.npy"]);
    cli.ok(&["get", "d.full.conv1.u2,u5[3,4]", "--rows", "9,3", "--plan", "read", "-o", "b.npy"]);
    let (a, b) = (npy(&cli.path("a.npy")), npy(&cli.path("b.npy")));
    assert_eq!(a.0, [2, 65]);
    assert_eq!(a, b);
}

#[test]
fn clamped_values_are_counted() {
    let cli = Cli::new();
    write_npy(&cli.path("a.npy"), &[1, 3], &[1e6, -1e6, 2.0]);
    assert!(cli.fails(&["append", "p.m.t", "a.npy", "--scheme", "f16"]).contains("cannot be held"));
    let out = cli.output(&["append", "p.m.t", "a.npy", "--scheme", "f16", "--clamp"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("2 values did not fit"), "{said}");
    assert_eq!(cli.json(&["get", "p.m.t"])[0]["values"], serde_json::json!([65504.0, -65504.0, 2.0]));
    assert!(cli.fails(&["log", "d.m", "--arch", "digits_cnn", "--data", "digits"]).contains("--init"));
}

#[test]
fn nulls_decide_nothing() {
    let cli = Cli::new();
    write_table(&cli.path("t.parquet"));
    cli.ok(&["append", "p.m.t", "t.parquet"]);
    let rows = |filter: &str| cli.json(&["get", "p.m.t", "--where", filter])[0]["row_ids"].clone();
    // score: 1: -3, 7: 0.1, 8: null, 9: ∞; name: 1: b, 7: a, 8: b, 9: null.
    assert_eq!(rows("t.score != 0.1"), serde_json::json!([1, 9]));
    assert_eq!(rows("not t.score < 0"), serde_json::json!([7, 9]));
    assert_eq!(rows("not t.name = 'a'"), serde_json::json!([1, 8]));
    assert_eq!(rows("t.name = 'b' or t.score > 0"), serde_json::json!([1, 7, 8, 9]));
}

#[test]
fn a_zillow_template_is_logged_from_its_file() {
    let cli = Cli::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/zillow/P9.yaml");
    let log = ["log", file.to_str().unwrap(), "--data", "generated:zillow?rows=1500"];
    cli.ok(&log);
    let models = cli.ok(&["ls"]);
    assert!((1..=5).all(|v| models.contains(&format!("zillow.P9@v{v}."))), "{models}");
    // The same again has nothing to do.
    cli.ok(&log);
    let get = |plan: &str| {
        let out = cli.path(plan).with_extension("csv");
        cli.ok(&["get", "zillow.P9@v2.predict_homes.prediction", "--plan", plan, "-o", out.to_str().unwrap()]);
        std::fs::read_to_string(out).unwrap()
    };
    let (read, rerun) = (get("read"), get("rerun"));
    assert_eq!((read.lines().count(), &read), (1501, &rerun));
}

#[test]
fn questions_over_versions() {
    let cli = Cli::new();
    for (version, seed) in [("d.n@one", "1"), ("d.n@two", "2")] {
        let log = ["log", version, "--arch", "digits_cnn", "--init", seed, "--data", "digits"];
        cli.ok(&log);
    }
    let questions: [&[&str]; 5] = [
        &["topk", "d.n@*.dense1.u3", "-k", "2"],
        &["dist", "d.n@*.dense1.u3"],
        &["metrics", "d.n@*.logits", "label"],
        &["knn", "d.n@*.dense1", "--row", "3", "-k", "2"],
        &["top-group", "d.n@*.dense1", "--units", "3,5", "-k", "2"],
    ];
    for question in questions {
        let all = cli.json(&[&["query"], question].concat());
        for (at, version) in ["d.n@one", "d.n@two"].iter().enumerate() {
            let one: Vec<String> = question.iter().map(|w| w.replace("d.n@*", version)).collect();
            let one: Vec<&str> = one.iter().map(String::as_str).collect();
            let mut one = cli.json(&[&["query"], &one[..]].concat());
            one["key"] = all[at]["key"].clone();
            assert!(all[at]["key"].as_str().unwrap().starts_with(version));
            // An index may be built by the first question, and used by the next.
            if question[0] != "top-group" {
                assert_eq!(all[at], one, "{question:?}");
            }
        }
        let text = cli.ok(&[&["query"], question].concat());
        assert!(text.starts_with("d.n@one.") && text.contains("\nd.n@two."), "{text}");
    }
    // A model without a version is none, and a version without the layer is left out and told.
    let log = ["log", "d.n", "--arch", "digits_cnn", "--init", "3", "--data", "digits"];
    cli.ok(&log);
    let log = ["log", "d.n@three", "--arch", "digits_cnn", "--init", "3", "--data", "digits", "--layers", "logits"];
    cli.ok(&log);
    let out = cli.output(&["query", "topk", "d.n@*.dense1.u3", "-k", "2", "--json"]);
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    let noted = String::from_utf8(out.stderr).unwrap();
    assert!(noted.contains("note: d.n@three.dense1.u3 is left out"), "{noted}");
    let table = cli.ok(&["query", "svcca", "d.n@*.dense1", "--final-self"]);
    assert!(table.contains("one") && table.contains("two") && !table.contains("three"), "{table}");
    assert!(cli.fails(&["query", "topk", "d.n@*.dense9"]).contains("no intermediate"));
    // What stands beside the key is of its own version.
    for question in [
        &["dist", "d.n@*.dense1.u3", "--by", "d.n@*.label"][..],
        &["metrics", "d.n@*.logits", "d.n@*.label"],
        &["corr", "d.n@*.dense1", "d.n@*.logits.u3"],
        &["topk", "d.n@*.dense1.u3", "--where", "d.n@*.label = 3"],
    ] {
        let told = cli.fails(&[&["query"], question].concat());
        assert!(told.contains("relative to the key's model, as l"), "{question:?}: {told}");
    }
    let told = cli.fails(&["query", "topk", "d.n@*.dense1.u3", "--where", "d.n@*.logits.argmax = 3"]);
    assert!(told.contains("as logits.argmax"), "{told}");
    // Pairs of versions, in one list.
    let pairs = cli.json(&["query", "diff", "d.n@*.dense1", "d.n@*.dense1"]);
    let named: Vec<_> = pairs.as_array().unwrap().iter().map(|p| (p["from"].clone(), p["to"].clone())).collect();
    assert_eq!(named.len(), 4, "{named:?}");
    let nobody = cli.fails(&["query", "knn", "d.n@one.dense1", "--row", "5000..7000"]);
    assert!(nobody.contains("5000..7000"), "{nobody}");
    let two = ["query", "where", "d.n@*.logits.u3 > d.n@t*.logits.u3"];
    assert!(cli.fails(&two).contains("only one model's versions"));
    // A row that is named twice is one row.
    let once = cli.json(&["query", "topk", "d.n@one.dense1.u3", "-k", "9", "--rows", "5,3,5,5"]);
    assert_eq!((&once["n_rows"], once["units"][0]["rows"].as_array().unwrap().len()), (&2.into(), 2));

    let none = cli.fails(&["query", "topk", "d.n@x*.dense1"]);
    assert!(none.contains("d.n@one"), "{none}");
    let drawn = cli.fails(&["query", "mean", "d.n@*.dense1", "--by", "label", "-o", "a.png"]);
    assert!(drawn.contains("one version"), "{drawn}");

    // Rows beside which neighbours are looked for; an index goes by its layer's key.
    let near = cli.json(&["query", "knn", "d.n@one.dense1", "--row", "3", "-k", "50", "--rows", "0..10"]);
    assert_eq!(near["queries"][0]["neighbours"].as_array().unwrap().len(), 9);
    cli.ok(&["index", "create", "d.n@one.dense1"]);
    let exact = cli.ok(&["query", "similar", "d.n@one.dense1", "--units", "3,5", "--row", "3", "-k", "2", "--exact"]);
    assert!(exact.contains("is of the stored copy's values, the question of the model's own values"), "{exact}");
    cli.ok(&["index", "create", "d.n@one.dense1", "--kind", "hnsw"]);
    let dropped = cli.json(&["index", "drop", "d.n@one.dense1"]);
    assert!(dropped["dropped"].as_array().unwrap().len() >= 2, "{dropped}");
    assert!(cli.fails(&["index", "drop", "d.n@one.dense1"]).contains("no index"));
    assert!(cli.fails(&["index", "create", "d.n@one.label"]).contains("a layer is needed"));
}

#[test]
fn a_demo_takes_no_place_of_one_s_own() {
    let cli = Cli::new();
    cli.digits("digits.cnn", &[]);
    let refused = cli.fails(&["demo", "--epochs", "1"]);
    assert!(refused.contains("digits.cnn") && refused.contains("--into"), "{refused}");
    let lone = cli.path("lone.mq").display().to_string();
    cli.ok(&["--store", &lone, "log", "digits.cnn@epoch-1", "--arch", "digits_cnn", "--init", "1", "--data", "digits"]);
    let refused = cli.fails(&["demo", "--epochs", "1", "--store", &lone]);
    assert!(refused.contains("lacks digits.truth"), "{refused}");
    assert!(cli.ok(&["--store", &lone, "ls"]).contains("digits.cnn@epoch-1"));
}
