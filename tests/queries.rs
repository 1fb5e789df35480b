//! `mistique query`: the commands of docs/queries.md, and what READ and RERUN answer alike.

mod common;

use std::path::Path;

use common::{Cli, fails, ok};
use serde_json::Value;

/// Words of a command line, those in single quotes whole.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// The masks that docs/queries.md makes with numpy: the digits' ink, and the ink beside paper on each of four sides.
fn write_masks(dir: &Path) {
    let digits = mistique::datasets::open(&"digits".parse().unwrap()).unwrap();
    let rows: Vec<u64> = (0..digits.n_rows() as u64).collect();
    let mut values = Vec::new();
    digits.read_rows(&rows, &mut values).unwrap();
    let masks = dir.join("masks");
    std::fs::create_dir(&masks).unwrap();
    for (name, (down, right)) in
        [("ink", (9, 9)), ("top", (-1, 0)), ("bottom", (1, 0)), ("left", (0, -1)), ("right", (0, 1))]
    {
        let shown = |image: &[f32], y: i32, x: i32| {
            let inside = (0..8).contains(&y) && (0..8).contains(&x);
            inside && image[(y * 8 + x) as usize] >= 0.5
        };
        let pixel = |image: &[f32], i: i32| shown(image, i / 8, i % 8) && !shown(image, i / 8 + down, i % 8 + right);
        let mask = values.chunks(64).flat_map(|image| (0..64).map(move |i| f32::from(u8::from(pixel(image, i)))));
        let file = std::fs::File::create(masks.join(format!("{name}.npy"))).unwrap();
        mistique::datasets::write_npy(file, &[rows.len(), 8, 8], &mask.collect::<Vec<_>>()).unwrap();
    }
}

/// The last line of an answer, without figures and where values came from: the planner is free.
fn last_line(text: &str) -> String {
    let figure = |word: &str| word.chars().any(|c| c.is_ascii_digit());
    let said = |part: &str| {
        let before_source = part.split("source").next().unwrap_or_default();
        let words = before_source.split_whitespace().map(|word| if figure(word) { "#" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().last().unwrap_or_default().split(';').map(said).collect::<Vec<_>>().join(";")
}

#[test]
fn the_documented_queries_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ok(dir, &["demo", "--epochs", "2"]);
    write_masks(dir);
    let doc = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/queries.md")).unwrap();
    let lines: Vec<&str> = doc.lines().collect();
    let mut n = 0;
    for (i, line) in lines.iter().enumerate() {
        let Some(command) = line.strip_prefix("    $ mistique ") else { continue };
        let args = words(command);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = ok(dir, &args);
        // Figures differ a little between processors; what is said of them does not.
        let printed = lines[i + 1..].iter().take_while(|l| l.starts_with("    ") || l.is_empty());
        let printed: Vec<&str> = printed.copied().take_while(|l| !l.starts_with("    $ ")).collect();
        let printed = printed.iter().rposition(|l| !l.is_empty()).map_or(&[][..], |last| &printed[..=last]);
        let titles = |t: &str| t.split_whitespace().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(titles(out.lines().next().unwrap_or_default()), titles(printed[0]), "{command}");
        assert_eq!(last_line(out.trim_end()), last_line(printed.last().unwrap()), "{command}");
        // The same as JSON.
        let json: Value = serde_json::from_str(&ok(dir, &[&args[..], &["--json"]].concat())).unwrap();
        assert!(json.is_object() || json.is_array(), "{command}");
        n += 1;
    }
    assert!(n >= 25, "{n} commands");
    assert!(std::fs::read(dir.join("vis.png")).unwrap().starts_with(b"\x89PNG"));
    let args = ["query", "netdissect", "digits.cnn@epoch-2.conv1.u12", "--masks", "masks", "--alpha", "0.05", "--json"];
    let dissected: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    let iou = dissected["units"][0]["iou"].as_object().unwrap();
    let of = |concept: &str| iou[concept].as_f64().unwrap();
    assert!(of("bottom") > 0.25 && iou.keys().all(|c| c == "bottom" || of(c) < of("bottom")), "{iou:?}");
    let pixels = &dissected["concept_pixels"];
    assert_eq!((&pixels["ink"], &pixels["top"], &pixels["left"]), (&37151.into(), &14141.into(), &16962.into()));

    // READ and RERUN answer alike at full precision.
    for question in [
        &["topk", "digits.cnn@epoch-2.conv2.u3,u5", "-k", "7"][..],
        &["topk", "digits.cnn@epoch-2.dense1.u0..9", "--lowest"],
        &["dist", "digits.cnn@epoch-2.conv1.u2", "--by", "label"],
        &["knn", "digits.cnn@epoch-2.dense1", "--row", "51,3", "--join", "label"],
        &["metrics", "digits.cnn@epoch-2.logits", "label", "--rows", "100..900"],
        &["confusion", "digits.cnn@epoch-2.logits", "label"],
        &["mean", "digits.cnn@epoch-2.conv2", "--by", "label"],
        &["corr", "digits.cnn@epoch-2.dense1", "label"],
        &["rowdiff", "digits.cnn@epoch-2.dense1", "5", "6"],
    ] {
        let answer = |plan| {
            let args = [&["query"][..], question, &["--plan", plan, "--json"]].concat();
            let mut json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
            let source = json.as_object_mut().unwrap().remove("source").unwrap();
            assert!(source.as_str().unwrap().starts_with(plan), "{question:?}: {source}");
            json
        };
        // Counting codes and summing values round in another order.
        let (read, rerun) = (answer("read"), answer("rerun"));
        assert!(alike(&read, &rerun), "{question:?}: {read} {rerun}");
    }

    // Versions in turn, wherever they are named.
    let answers = |args: &[&str]| -> Vec<Value> {
        let json: Value = serde_json::from_str(&ok(dir, &[&["query"], args, &["--json"]].concat())).unwrap();
        json.as_array().unwrap().clone()
    };
    let alone = |epoch: u8| {
        let question = format!("digits.cnn@epoch-{epoch}.logits.argmax != label");
        let args = ["query", "where", &question, "--of", &format!("digits.cnn@epoch-{epoch}.logits"), "--json"];
        serde_json::from_str::<Value>(&ok(dir, &args)).unwrap()
    };
    for args in [
        &["where", "logits.argmax != label", "--of", "digits.cnn@epoch-*.logits"][..],
        &["where", "digits.cnn@*.logits.argmax != label", "--of", "digits.cnn@*.logits"],
    ] {
        let found = answers(args);
        assert_eq!((found[0]["key"].as_str(), found.len()), (Some("digits.cnn@epoch-1"), 2));
        for (epoch, found) in (1..).zip(&found) {
            assert_eq!(found["rows"], alone(epoch)["rows"], "{args:?}");
        }
        assert_ne!(found[0]["rows"], found[1]["rows"]);
    }
    for args in [
        ["diff", "digits.cnn@*.logits", "digits.cnn@epoch-2.logits"],
        ["diff", "digits.cnn@epoch-2.logits", "digits.cnn@*.logits"],
    ] {
        let found = answers(&args);
        let changed: Vec<usize> = found.iter().map(|f| f["changed"].as_array().unwrap().len()).collect();
        assert!(changed[0] > 0 && changed[1] == 0, "{args:?}: {changed:?}");
    }
    let e = fails(dir, &["query", "where", "digits.cnn@run-*.logits.u3 > 0"]);
    assert!(e.contains("no version digits.cnn@") && e.contains("digits.cnn@epoch-1"), "{e}");
    let e = fails(dir, &["query", "svcca", "digits.cnn@epoch-2.cnv*"]);
    assert!(e.contains("digits.cnn@epoch-2.conv1"), "{e}");
    let e = fails(dir, &["query", "svcca", "digit.cnn@*.conv*"]);
    assert!(e.contains("digits.cnn@epoch-1"), "{e}");

    // What is not there, and what does not fit, is said.
    let e = fails(dir, &["query", "topk", "digits.cnn@epoch-2.dense.u3"]);
    assert!(e.contains("dense1"), "{e}");
    let e = fails(dir, &["query", "topk", "digits.cnn@epoch-2.conv2.u3", "--by", "value"]);
    assert!(e.contains("64 cells"), "{e}");
    let e = fails(dir, &["query", "knn", "digits.cnn@epoch-2.dense1", "--row", "999999"]);
    assert!(e.contains("999999"), "{e}");
    let few = ok(dir, &["query", "topk", "digits.cnn@epoch-2.dense1.u12", "-k", "5", "--rows", "0..3"]);
    assert!(few.contains("fewer than 5 rank"), "{few}");
    for (question, is_few) in [
        (&["topk", "digits.cnn@epoch-2.dense1.u12", "-k", "5", "--rows", "0..3"][..], true),
        (&["topk", "digits.cnn@epoch-2.dense1.u12", "-k", "3", "--rows", "0..3"], false),
        (&["knn", "digits.cnn@epoch-2.dense1", "--row", "1", "-k", "5", "--rows", "0..3"], true),
        (&["similar", "digits.cnn@epoch-2.dense1", "--units", "3", "--row", "51", "-k", "2"], false),
    ] {
        let json: Value = serde_json::from_str(&ok(dir, &[&["query"][..], question, &["--json"]].concat())).unwrap();
        assert_eq!(json["fewer_than_k"], Value::from(is_few), "{question:?}");
    }
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| alike(v, w)))
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        _ => a == b,
    }
}

#[test]
fn vectors_have_the_shape_of_rows() {
    let cli = Cli::new();
    let values: Vec<f32> = (0..60).map(|v| v as f32).collect();
    common::write_npy(&cli.path("rows.npy"), &[10, 6], &values);
    cli.ok(&["append", "p.m.six", "rows.npy"]);
    common::write_npy(&cli.path("maps.npy"), &[5, 3, 2, 2], &values);
    cli.ok(&["append", "p.m.maps", "maps.npy", "--scheme", "f32"]);
    let ask = |key: &str, shape: &[usize]| {
        let n: usize = shape.iter().product();
        common::write_npy(&cli.path("v.npy"), shape, &values[..n]);
        cli.run(&["query", "knn", key, "--vector", "v.npy", "-k", "1", "--json"])
    };
    let n_vectors = |key: &str, shape: &[usize]| {
        let answer: Value = serde_json::from_str(&ask(key, shape).unwrap()).unwrap();
        answer["queries"].as_array().unwrap().len()
    };
    for (key, shape, n) in [
        ("p.m.six", &[6][..], 1),
        ("p.m.six", &[1, 6][..], 1),
        ("p.m.six", &[2, 6][..], 2),
        ("p.m.maps", &[12][..], 1),
        ("p.m.maps", &[3, 12][..], 3),
        ("p.m.maps", &[3, 2, 2][..], 1),
        ("p.m.maps", &[2, 3, 2, 2][..], 2),
        ("p.m.maps.u1", &[1, 2, 2][..], 1),
        ("p.m.six.u0", &[3][..], 3),
        ("p.m.six.u0", &[1][..], 1),
    ] {
        assert_eq!(n_vectors(key, shape), n, "{key} {shape:?}");
    }
    for shape in [&[4, 3][..], &[12, 1], &[1, 12], &[3, 4], &[12], &[5], &[2, 6, 1]] {
        let error = ask("p.m.six", shape).unwrap_err();
        let said = format!("v.npy: an array of shape {shape:?}; a vector has 6 values");
        assert!(error.contains(&said), "{error}");
    }
    let error = ask("p.m.maps", &[2, 2, 3]).unwrap_err();
    assert!(error.contains("a vector has 12 values") && error.contains("[12], [3, 2, 2]"), "{error}");
    let error = ask("p.m.six", &[0, 6]).unwrap_err();
    assert!(error.contains("v.npy: no vector"), "{error}");
}

#[test]
fn neighbours_are_looked_up_by_what_an_index_can_be_of() {
    let cli = Cli::new();
    common::write_npy(&cli.path("rows.npy"), &[4, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]);
    cli.ok(&["append", "p.m.two", "rows.npy"]);
    let ask = ["query", "knn", "p.m.two", "--row", "1", "--approximate", "--metric"];
    let error = cli.fails(&[&ask[..], &["dot"]].concat());
    assert!(error.contains("--approximate is by l2 or cosine") && !error.contains("index create"), "{error}");
    let error = cli.fails(&[&ask[..], &["cosine"]].concat());
    assert!(error.contains("index create p.m.two --kind hnsw --metric cosine"), "{error}");
    let error = cli.fails(&["index", "create", "p.m.two", "--kind", "hnsw", "--share", "0.1"]);
    assert!(error.contains("--share is for by-example indexes"), "{error}");
}

#[test]
fn both_sides_are_run_for_rows_that_are_not_stored() {
    let cli = Cli::new();
    cli.digits("d.cnn@f", &["--scheme", "f32", "--rows", "0..500"]);
    cli.digits("d.cnn@w", &["--scheme", "f32"]);
    let few = "3,490,1700";
    for (rows, n) in [("490..600", 110), ("600..700", 100), ("0..400", 400), (few, 3)] {
        for plan in ["auto", "rerun"] {
            let ask = |question: &[&str]| cli.json(&[&["query"], question, &["--rows", rows, "--plan", plan]].concat());
            let answer = ask(&["diff", "d.cnn@f.logits.u0", "d.cnn@f.logits.u1"]);
            assert_eq!(answer["groups"][0]["n_rows"], n, "{answer}");
            assert_eq!(answer["unshared_rows"], serde_json::json!([0, 0]), "{answer}");
            let answer = ask(&["diff", "d.cnn@w.logits", "d.cnn@f.logits"]);
            assert_eq!(answer["groups"][0]["n_rows"], n, "{answer}");
            assert_eq!(answer["unshared_rows"], serde_json::json!([0, 0]), "{answer}");
            assert!(answer["groups"][0]["max_abs"].as_f64().unwrap() < 1e-4, "{answer}");
            let answer = ask(&["corr", "d.cnn@f.logits.u0", "logits.u1", "--minus", "logits.u2"]);
            assert_eq!(answer["columns"][0]["n"], n, "{answer}");
            let answer = ask(&["confusion", "d.cnn@f.logits", "d.cnn@w.label"]);
            assert_eq!(answer["n_rows"], n, "{answer}");
            assert_eq!(answer["unshared_rows"], serde_json::json!([0, 0]), "{answer}");
        }
    }
    // Labels are of the rows that were logged.
    for (rows, n, lacking) in [("490..600", 10, "100 of the 110"), (few, 2, "1 of the 3")] {
        let args = ["query", "confusion", "d.cnn@f.logits", "label", "--rows", rows];
        let said = String::from_utf8(cli.output(&args).stderr).unwrap();
        assert!(said.contains(&format!("note: label lacks {lacking} rows asked for")), "{said}");
        assert_eq!(cli.json(&args)["n_rows"], n);
    }
    let said = cli.output(&["query", "confusion", "d.cnn@f.logits", "label"]).stderr;
    assert_eq!(String::from_utf8(said).unwrap(), "");

    // Of two rows that are not stored, the one that the dataset lacks too is to blame.
    let error = cli.fails(&["query", "rowdiff", "d.cnn@f.dense1", "600", "9999"]);
    assert!(error.contains("9999") && !error.contains("600"), "{error}");
}

#[test]
fn row_id_alone_asks_for_an_intermediate() {
    let cli = Cli::new();
    common::write_npy(&cli.path("rows.npy"), &[4, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]);
    cli.ok(&["append", "p.m.two", "rows.npy"]);
    let error = cli.fails(&["query", "where", "row_id < 2"]);
    assert!(error.contains("--of KEY"), "{error}");
    for args in [&["row_id < 2", "--of", "p.m.two"][..], &["row_id < 2 and p.m.two.u0 >= 0"]] {
        let answer = cli.json(&[&["query", "where"], args].concat());
        let rows: Vec<&Value> = answer["rows"].as_array().unwrap().iter().map(|row| &row["row_id"]).collect();
        assert_eq!(rows, [0, 1], "{answer}");
    }
}

#[test]
fn columns_that_are_kept_are_no_half_of_a_request() {
    let cli = Cli::new();
    cli.digits("d.cnn", &["--scheme", "f32", "--materialize", "none"]);
    let split = |key: &str| cli.fails(&["get", key, "--plan", "split"]);
    assert!(split("d.cnn.conv1").contains("no values of its rows are stored"));
    cli.ok(&["materialize", "--mode", "adaptive(0.000001)"]);
    for _ in 0..3 {
        cli.ok(&["get", "d.cnn.conv1.u0"]);
    }
    assert!(split("d.cnn.conv1.u0").contains("all of its rows are stored"));
    let error = split("d.cnn.conv1");
    assert!(error.contains("some of these columns are stored, but of no row all of them; use --plan rerun"), "{error}");
}
