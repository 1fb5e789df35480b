//! `mistique index`, and the questions that indexes serve, as a user meets them.

mod common;

use common::{Cli, json, run};
use serde_json::Value;

#[test]
fn indexes_are_made_listed_used_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let values: Vec<f32> = (0..400 * 6).map(|i| (i * 7919 % 1009) as f32 / 10.0).collect();
    mistique::datasets::write_npy(std::fs::File::create(dir.join("a.npy")).unwrap(), &[400, 6], &values).unwrap();
    run(dir, &["append", "p.m.t", "a.npy", "--scheme", "f32"]).unwrap();
    let question = ["query", "similar", "p.m.t", "--units", "1,3", "--row", "9", "-k", "5"];
    let without = json(dir, &question);
    assert!(run(dir, &["index", "create", "p.m.t.u3"]).unwrap_err().contains("whole layer"));
    let made = json(dir, &["index", "create", "p.m.t"]);
    assert_eq!((&made["id"], &made["rows"], &made["key"]), (&1.into(), &400.into(), &"p.m.t".into()));
    assert!(made["share"].as_f64().unwrap() <= 0.2, "{made}");
    let listed = json(dir, &["index", "ls"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]), (1, &made));
    assert!(run(dir, &["index", "ls"]).unwrap().contains("by-example"));
    // Five nearest by hand, with the index and without.
    let apart = |row: usize| {
        let d = |c: usize| f64::from(values[row * 6 + c]) - f64::from(values[9 * 6 + c]);
        (d(1) * d(1) + d(3) * d(3)).sqrt()
    };
    let mut rows: Vec<usize> = (0..400).filter(|r| *r != 9).collect();
    rows.sort_by(|a, b| apart(*a).total_cmp(&apart(*b)).then(a.cmp(b)));
    let of = |answer: &Value| -> Vec<usize> {
        let examples = answer["examples"].as_array().unwrap();
        examples.iter().map(|e| e["row_id"].as_u64().unwrap() as usize).collect()
    };
    let with = json(dir, &question);
    assert_eq!((of(&without), of(&with)), (rows[..5].to_vec(), rows[..5].to_vec()));
    assert_eq!(of(&json(dir, &[&question[..], &["--no-index"]].concat())), rows[..5]);
    // Among some rows; the row that others are compared with is none of them.
    let some = json(dir, &[&question[..], &["--where", "t.u0 < 50 and row_id >= 20"]].concat());
    let passes = |row: &&usize| **row >= 20 && values[**row * 6] < 50.0;
    let among: Vec<usize> = rows.iter().filter(passes).copied().collect();
    assert_eq!((of(&some), &some["n_rows"]), (among[..5].to_vec(), &among.len().into()));
    assert!(of(&some) != of(&with), "{some}");
    let listed = json(dir, &[&question[..], &["--rows", "300,9,7", "--no-index"]].concat());
    let mut three = vec![300, 7];
    three.sort_by(|a, b| apart(*a).total_cmp(&apart(*b)));
    assert_eq!((of(&listed), &listed["n_rows"]), (three, &3.into()));
    assert!(run(dir, &[&question[..], &["--rows", "7,900"]].concat()).unwrap_err().contains("900"));
    let shown = run(dir, &["query", "top-group", "p.m.t", "--units", "0..3", "-k", "500", "--metric", "l1"]).unwrap();
    assert!(shown.contains("fewer than 500 rank") && shown.contains("400 of 400 rows"), "{shown}");
    assert!(run(dir, &["query", "similar", "p.m.t", "--units", "9", "--row", "1"]).unwrap_err().contains("u9"));
    assert!(run(dir, &["query", "similar", "p.m.t", "--units", "1", "--row", "900"]).unwrap_err().contains("900"));

    let knn = ["query", "knn", "p.m.t", "--row", "9", "-k", "3"];
    let none = run(dir, &[&knn[..], &["--approximate"]].concat()).unwrap_err();
    assert!(none.contains("mistique index create p.m.t --kind hnsw"), "{none}");
    let made = run(dir, &["index", "create", "p.m.t", "--kind", "hnsw"]).unwrap();
    assert!(made.contains("nearest rows, measured on"), "{made}");
    let near = |answer: Value| -> Vec<Value> {
        let rows = answer["queries"][0]["neighbours"].as_array().unwrap().clone();
        rows.into_iter().map(|n| n["row_id"].clone()).collect()
    };
    assert_eq!(near(json(dir, &[&knn[..], &["--approximate"]].concat())), near(json(dir, &knn)));
    // `explain` says what each is for, `stats` what they take together.
    let listed = json(dir, &["index", "ls"]);
    let explained = json(dir, &["explain", "p.m.t.u1,u3", "--rows", "5..9", "--dry"])[0]["indexes"].clone();
    let fields = |name: &str| -> Vec<Value> { explained.as_array().unwrap().iter().map(|i| i[name].clone()).collect() };
    assert_eq!(fields("kind"), ["row_id", "zone maps", "by-example", "hnsw"]);
    assert_eq!(fields("unused"), [Value::Null, Value::Null, Value::Null, Value::Null]);
    assert_eq!(fields("id"), [Value::Null, Value::Null, listed[0]["id"].clone(), listed[1]["id"].clone()]);
    assert_eq!(fields("bytes")[2..], [listed[0]["bytes"].clone(), listed[1]["bytes"].clone()]);
    assert!(fields("what")[0].as_str().unwrap().ends_with("in 1 of 1"), "{explained}");
    let text = run(dir, &["explain", "p.m.t", "--dry"]).unwrap();
    assert!(text.contains("by-example 1") && text.contains("similar and top-group by max"), "{text}");
    let sum: u64 = listed.as_array().unwrap().iter().map(|i| i["bytes"].as_u64().unwrap()).sum();
    assert_eq!(json(dir, &["stats"])["index_bytes"], sum);
    // Rows that are logged later are said.
    mistique::datasets::write_npy(std::fs::File::create(dir.join("b.npy")).unwrap(), &[50, 6], &values[..300]).unwrap();
    run(dir, &["append", "p.m.t", "b.npy", "--scheme", "f32"]).unwrap();
    let text = run(dir, &["explain", "p.m.t", "--dry"]).unwrap();
    assert!(text.contains("; 50 rows that it does not cover"), "{text}");
    assert_eq!(json(dir, &["index", "drop", "1"])["dropped"], serde_json::json!([1]));
    assert!(run(dir, &["index", "drop", "1"]).unwrap_err().contains("no index 1"));
    assert_eq!(json(dir, &["index", "ls"]).as_array().unwrap().len(), 1);
}

/// A column of an answer's values.
fn values(cli: &Cli, key: &str, more: &[&str]) -> Vec<Vec<f64>> {
    let answer = cli.json(&[&["get", key], more].concat());
    let all: Vec<f64> = answer[0]["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    all.chunks_exact(answer[0]["columns"].as_array().unwrap().len()).map(<[f64]>::to_vec).collect()
}

/// What is pooled and what is not are other values: neither stands for the other, whichever is asked first.
#[test]
fn pooled_and_full_maps_are_kept_apart() {
    let cli = Cli::new();
    cli.digits("d.cnn", &["--layers", "conv2", "--materialize", "none"]);
    std::fs::create_dir(cli.path("masks")).unwrap();
    common::write_npy(&cli.path("masks/all.npy"), &[1797, 8, 8], &vec![1.0; 1797 * 64]);
    let whole = ["--plan", "rerun"];
    let exact = ["--plan", "rerun", "--exact"];
    // numpy's linear quantile.
    let quantile = |values: &[Vec<f64>], q: f64| {
        let mut all: Vec<f64> = values.concat();
        all.sort_by(f64::total_cmp);
        let at = q * (all.len() - 1) as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        all[low] + (all[low + 1] - all[low]) * part
    };
    let maps = [values(&cli, "d.cnn.conv2.u3", &whole), values(&cli, "d.cnn.conv2.u3", &exact)];
    assert_eq!(maps.each_ref().map(|m| m[0].len()), [16, 64]);
    let thresholds = maps.each_ref().map(|m| quantile(m, 0.99));
    assert!(thresholds[1] > thresholds[0] * 1.01, "{thresholds:?}");
    let highest = maps.each_ref().map(|m| m.iter().map(|row| row.iter().copied().fold(f64::MIN, f64::max)));
    let highest = highest.map(|all| all.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap());
    assert!(highest[1].1 > highest[0].1 * 1.01, "{highest:?}");
    for order in [[0, 1, 0, 1], [1, 0, 1, 0]] {
        for at in order {
            let more = if at == 1 { &["--exact"][..] } else { &[] };
            let ask = ["query", "netdissect", "d.cnn.conv2.u3", "--masks", "masks", "--alpha", "0.01"];
            let dissected = cli.json(&[&ask[..], more].concat());
            let found = dissected["units"][0]["threshold"].as_f64().unwrap();
            assert!((found - thresholds[at]).abs() <= 1e-6 * thresholds[at], "{found} {thresholds:?} {order:?}");
            for plan in [&[][..], &["--plan", "rerun"]] {
                let ask = ["query", "top-group", "d.cnn.conv2", "--units", "3", "-k", "1"];
                let top = cli.json(&[&ask[..], more, plan].concat());
                let (row, score) = (&top["examples"][0]["row_id"], top["examples"][0]["score"].as_f64());
                let score = score.or(top["examples"][0]["activation"].as_f64()).unwrap();
                assert_eq!(row.as_u64(), Some(highest[at].0 as u64), "{top}");
                assert!((score - highest[at].1).abs() <= 1e-5 * highest[at].1, "{top}");
            }
        }
        cli.ok(&["index", "drop", "d.cnn.conv2"]);
    }
    // A stored layer, run again without --exact, is pooled as it is stored.
    cli.digits("d.cnn@kept", &["--layers", "conv2"]);
    let ask = ["query", "top-group", "d.cnn@kept.conv2", "--units", "3", "-k", "1", "--plan", "rerun"];
    let top = cli.json(&ask);
    assert_eq!(top["examples"][0]["row_id"].as_u64(), Some(highest[0].0 as u64), "{top}");
    assert_eq!(top["source"], "rerun pooled", "{top}");
}
