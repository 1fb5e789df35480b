//! `mistique index`, and the questions that indexes serve, as a user meets them.

mod common;

use common::{json, run};
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
