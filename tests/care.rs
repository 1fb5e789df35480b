//! A store looked after: what is damaged is named and the rest served, and only questions count as queries.

mod common;

use std::path::Path;

use common::{fails, json, ok, output, write_npy};
use serde_json::Value;

/// Logs `digits_cnn` under a key.
fn log(dir: &Path, key: &str, more: &[&str]) -> String {
    let args = ["log", key, "--arch", "digits_cnn", "--init", "1", "--data", "digits"];
    ok(dir, &[&args, more].concat())
}

fn sql(dir: &Path, statement: &str) {
    let catalog = rusqlite::Connection::open(dir.join("s.mq/catalog.db")).unwrap();
    assert!(catalog.execute(statement, []).unwrap() > 0, "{statement}");
}

fn n_queries(dir: &Path) -> Vec<u64> {
    let all = json(dir, &["materialize"]);
    all["intermediates"].as_array().unwrap().iter().map(|g| g["n_query"].as_u64().unwrap()).collect()
}

#[test]
fn a_damaged_model_leaves_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.bad", &["--rows", "0..20"]);
    log(dir, "d.good@1", &["--rows", "0..20"]);
    sql(dir, "UPDATE models SET packed = x'5858585858585858' WHERE name = 'bad'");
    let found = output(dir, &["verify"]);
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(!found.status.success() && said.contains("model d.bad: a packed description"), "{said}");
    assert!(!said.contains("d.good"), "{said}");

    for command in ["ls", "stats"] {
        let out = output(dir, &[command]);
        let (text, warned) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
        assert!(out.status.success() && warned.contains("model d.bad: a packed description"), "{warned}");
        assert!(text.contains("d.good@1"), "{text}");
    }
    assert!(ok(dir, &["show", "d.good"]).contains("network"));
    ok(dir, &["get", "d.good.logits", "--rows", "3"]);
    let out = output(dir, &["export", "out", "--json"]);
    let manifest: Value = serde_json::from_slice(&out.stdout).unwrap();
    let exported = manifest["intermediates"].as_array().unwrap();
    assert!(!out.status.success(), "an export that lacks something is none");
    assert_eq!(exported.len(), 7, "{manifest}");
    for one in exported {
        assert!(one["key"].as_str().unwrap().starts_with("d.good@1."), "{one}");
        assert!(dir.join("out").join(one["file"].as_str().unwrap()).exists());
    }
    assert!(manifest["damage"].to_string().contains("d.bad.conv1"), "{manifest}");
    // It can be removed, and then nothing is damaged.
    ok(dir, &["rm", "d.bad"]);
    ok(dir, &["gc"]);
    assert!(ok(dir, &["verify"]).contains("no damage"));
    ok(dir, &["export", "all"]);
}

#[test]
fn a_damaged_catalogue_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.n", &["--layers", "logits", "--rows", "0..20"]);
    let file = dir.join("s.mq/catalog.db");
    let whole = std::fs::read(&file).unwrap();
    let catalog = rusqlite::Connection::open(&file).unwrap();
    let number = |sql: &str| catalog.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap() as usize;
    let page_len = number("PRAGMA page_size");
    let roots =
        ["models", "partitions"].map(|t| number(&format!("SELECT rootpage FROM sqlite_master WHERE name = '{t}'")));
    drop(catalog);
    let put = |bytes: &[u8]| {
        for beside in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.join(format!("s.mq/catalog.db{beside}")));
        }
        std::fs::write(&file, bytes).unwrap();
    };
    let lost = |what: &str| {
        for args in [&["ls"][..], &["verify"], &["get", "d.n.logits"], &["gc"]] {
            let said = fails(dir, args);
            let named = said.contains(&format!("{}: damaged: ", file.display()));
            assert!(named && said.contains("put the store back from a copy"), "{what}, {args:?}: {said}");
            assert!(!said.contains("`mistique verify`"), "it would say the same: {said}");
        }
    };
    for bytes in [&whole[..whole.len() / 2], &whole[..100], &[], &[b'x'; 5000]] {
        put(bytes);
        lost(&format!("{} bytes", bytes.len()));
    }
    std::fs::remove_file(&file).unwrap();
    lost("no file");
    // A page of one table: the rest is named by `verify`.
    for root in roots {
        let mut bytes = whole.clone();
        bytes[(root - 1) * page_len..root * page_len].fill(0x77);
        put(&bytes);
        let said = fails(dir, &["gc"]);
        assert!(said.contains(&format!("{}: damaged: cannot ", file.display())), "{said}");
        assert!(said.contains("`mistique verify` lists all damage") && said.contains("from a copy"), "{said}");
        let found = String::from_utf8(output(dir, &["verify"]).stdout).unwrap();
        assert!(found.contains("damaged: catalog.db: "), "{found}");
    }
    put(&whole);
    assert!(ok(dir, &["verify"]).contains("no damage"));
}

#[test]
fn only_questions_count() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.n", &["--rows", "0..64"]);
    ok(dir, &["calibrate", "--seconds", "1"]);
    ok(dir, &["explain", "d.n.logits", "--all"]);
    ok(dir, &["export", "out"]);
    assert_eq!(n_queries(dir), [0; 7]);
    ok(dir, &["get", "d.n.logits"]);
    assert_eq!(n_queries(dir).iter().sum::<u64>(), 1);
}

#[test]
fn stats_take_the_version_logged_last() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for key in ["d.n@1", "d.n@2"] {
        log(dir, key, &["--layers", "conv1,logits", "--rows", "0..20"]);
    }
    let stats = json(dir, &["stats", "d.n.conv1", "--by", "intermediate"]);
    let keys: Vec<&Value> = stats["by_intermediate"].as_array().unwrap().iter().map(|s| &s["key"]).collect();
    assert_eq!(keys, ["d.n@2.conv1"]);
    assert_eq!(json(dir, &["show", "d.n.conv1"])["key"], "d.n@2.conv1");
    let all = json(dir, &["stats", "d.n", "--by", "intermediate"]);
    assert_eq!(all["by_intermediate"].as_array().unwrap().len(), 6, "a model's key means all versions");
    assert!(!output(dir, &["stats", "d.n.conv9"]).status.success());
}

#[test]
fn stats_tell_savings_in_one_way() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let values: Vec<f32> = (0..4000).map(|i| (i as f32 * 0.37).sin()).collect();
    write_npy(&dir.join("x.npy"), &[1000, 4], &values);
    for key in ["p.first.x", "p.second.x"] {
        ok(dir, &["append", key, "x.npy", "--scheme", "f32"]);
    }
    let saved = |rows: &Value| -> Vec<Value> { rows.as_array().unwrap().iter().map(|s| s["saved"].clone()).collect() };
    let of = |key: &str| {
        let stats = json(dir, &["stats", key, "--by", "model"]);
        let (schemes, models) = (saved(&stats["by_scheme"]), saved(&stats["by_model"]));
        // One scheme and all of them, and one model.
        assert_eq!(schemes, [models[0].clone(), models[0].clone()], "{key}: {stats}");
        (models[0]["exact_bytes"].as_f64().unwrap(), stats["by_model"][0]["stored_bytes"].as_f64().unwrap())
    };
    let ((none, share), (all, same_share)) = (of("p.first"), of("p.second"));
    assert_eq!((none, share), (0.0, same_share));
    assert!(all > 0.0 && all == 2.0 * share, "{all} bytes were not added, of which each has {share}");
    let whole = json(dir, &["stats"]);
    assert_eq!(whole["saved"], saved(&whole["by_scheme"])[0]);
    let text = ok(dir, &["stats", "p.second"]);
    assert!(text.contains("the first of equal ones saved nothing\nthe whole store: 1 distinct chunks"), "{text}");
}

#[test]
fn a_log_says_which_rows_it_added() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.n", &["--layers", "logits", "--rows", "0..1000"]);
    let said = log(dir, "d.n", &["--layers", "logits"]);
    assert!(said.contains("1 layers of 797 rows"), "{said}");
    let said = log(dir, "d.n", &["--layers", "logits"]);
    assert!(said.contains("all rows of 1 layers are stored already"), "{said}");
}

#[test]
fn a_log_says_where_values_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let layers = ["--layers", "conv1,logits", "--rows", "0..64"];
    log(dir, "d.n", &[&layers[..], &["--materialize", "none"]].concat());
    ok(dir, &["materialize", "--mode", "all"]);
    let said = log(dir, "d.n", &layers);
    assert!(said.contains("known already") && said.contains("of 2 not all values are kept"), "{said}");
    assert!(said.contains("materialize --mode all --apply"), "{said}");
    ok(dir, &["materialize", "--mode", "all", "--apply"]);
    assert!(log(dir, "d.n", &layers).contains("all rows of 2 layers are stored already"));
}

#[test]
fn an_export_has_what_can_be_read_and_names_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_npy(&dir.join("none.npy"), &[0, 3], &[]);
    write_npy(&dir.join("a.npy"), &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    write_npy(&dir.join("b.npy"), &[2, 3], &[7.0, 8.0, 9.0, 4.0, 5.0, 6.5]);
    for (key, file) in [("p.none.x", "none.npy"), ("p.a.x", "a.npy"), ("p.b.x", "b.npy")] {
        ok(dir, &["append", key, file]);
    }
    let keys = |manifest: &Value| -> Vec<String> {
        let all = manifest["intermediates"].as_array().unwrap().iter();
        all.map(|i| i["key"].as_str().unwrap().to_string()).collect()
    };
    // Of no rows too, with its columns.
    assert_eq!(keys(&json_of(&output(dir, &["export", "all", "--json"]).stdout)), ["p.none.x", "p.a.x", "p.b.x"]);
    std::fs::remove_file(dir.join("s.mq/partitions/0000000001.mqp")).unwrap();
    let out = output(dir, &["export", "some", "--json"]);
    let manifest = json_of(&out.stdout);
    assert!(!out.status.success(), "an export that lacks something is none");
    assert_eq!(keys(&manifest), ["p.none.x", "p.b.x"]);
    assert!(manifest["damage"].to_string().contains("p.a.x is left out"), "{manifest}");
    // Appended again, it is there again.
    ok(dir, &["append", "p.a.x", "a.npy", "--replace"]);
    assert_eq!(keys(&json_of(&output(dir, &["export", "again", "--json"]).stdout)).len(), 3);
    ok(dir, &["gc"]);
    ok(dir, &["verify"]);
}

fn json_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn lost_weights_come_back_with_the_next_log() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.a", &["--rows", "0..20", "--materialize", "none"]);
    let weights = std::fs::read_dir(dir.join("s.mq/operators")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&weights).unwrap();
    assert!(fails(dir, &["get", "d.a.logits"]).contains("cannot open"));
    assert!(log(dir, "d.a", &["--rows", "0..20"]).contains("known already"));
    ok(dir, &["get", "d.a.logits"]);
    std::fs::write(&weights, "not them").unwrap();
    log(dir, "d.b", &["--rows", "0..20"]);
    ok(dir, &["get", "d.b.logits"]);
    ok(dir, &["verify"]);
}

#[test]
fn a_mode_that_cannot_be_applied_is_not_set() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.a", &["--rows", "0..20", "--materialize", "none"]);
    fails(dir, &["materialize", "--mode", "all", "--apply", "--device", "cuda:70"]);
    assert_eq!(json(dir, &["materialize"])["mode"], "none");
    fails(dir, &["calibrate", "--device", "cuda:70"]);
}

#[test]
fn a_codebook_that_later_rows_leave_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let values = |scale: f32| (0..3000).map(|i| (i as f32 * 0.37).sin() * scale).collect::<Vec<f32>>();
    write_npy(&dir.join("small.npy"), &[1000, 3], &values(1.0));
    write_npy(&dir.join("large.npy"), &[1000, 3], &values(1000.0));
    let warned = |file: &str| String::from_utf8(output(dir, &["append", "p.m.x", file, "--scheme", "lloyd(8)"]).stderr);
    assert!(!warned("small.npy").unwrap().contains("off by"));
    let said = warned("large.npy").unwrap();
    assert!(said.contains("p.m.x: what is stored is off by 100% of the values' size"), "{said}");
}

#[test]
fn values_too_small_for_sixteen_bits_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wave = |i: usize| (i as f32 * 0.37).sin();
    // The second of three columns is as small as gradients are.
    let one: Vec<f32> = (0..3000).map(|i| if i % 3 == 1 { wave(i) * 1e-9 } else { wave(i) }).collect();
    let maps: Vec<f32> = (0..64 * 32).map(|i| wave(i) * 1e-9).collect();
    write_npy(&dir.join("one.npy"), &[1000, 3], &one);
    write_npy(&dir.join("maps.npy"), &[64, 2, 4, 4], &maps);
    let said = |key: &str, file: &str, scheme: &[&str]| {
        String::from_utf8(output(dir, &[&["append", key, file], scheme].concat()).stderr).unwrap()
    };
    let warned = said("p.m.one", "one.npy", &[]);
    assert!(warned.contains("p.m.one: 1 of 3 units have values too small for f16"), "{warned}");
    let warned = said("p.m.maps", "maps.npy", &[]);
    assert!(warned.contains("p.m.maps: 2 of 2 units have values too small for pool(2)+f16"), "{warned}");
    for (key, file, scheme) in [("p.m.a", "one.npy", "f32"), ("p.m.b", "maps.npy", "f32"), ("p.m.c", "one.npy", "bf16")]
    {
        let warned = said(key, file, &["--scheme", scheme]);
        assert!(!warned.contains("too small"), "{warned}");
    }
}

#[test]
fn a_question_about_no_rows_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log(dir, "d.a", &["--rows", "0..20"]);
    for question in ["confusion", "metrics"] {
        let said = common::ok(dir, &["query", question, "d.a.logits", "label", "--where", "logits.u0 > 1e9"]);
        assert!(said.contains("0 rows: no row was selected"), "{said}");
    }
}
