//! What `--exact` and `--plan` demand holds for every column that a question names, not only for the one it is about.

mod common;

use std::path::Path;

use common::ok;
use serde_json::Value;

/// What is answered of `MODEL` in the question, as JSON without the names of models and sources.
fn answer(dir: &Path, model: &str, question: &[&str], demand: &[&str]) -> (Value, String) {
    let words: Vec<String> = question.iter().map(|w| w.replace("MODEL", model)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = ok(dir, &[&words[..], demand, &["--json"]].concat());
    let mut json: Value = serde_json::from_str(&text).unwrap();
    let object = match &mut json {
        Value::Array(answers) => answers[0].as_object_mut().unwrap(),
        json => json.as_object_mut().unwrap(),
    };
    let source = object.remove("source").unwrap().as_str().unwrap().to_string();
    ["key", "where", "target", "seconds"].iter().for_each(|name| drop(object.remove(*name)));
    (json, source)
}

#[test]
fn what_is_demanded_holds_for_every_operand() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (model, scheme) in [("d.exact", "f32"), ("d.lossy", "threshold(0.9)")] {
        let log = ["log", model, "--arch", "digits_cnn", "--init", "1", "--data", "digits", "--rows", "0..400"];
        ok(dir, &[&log[..], &["--scheme", scheme]].concat());
    }
    let questions: [&[&str]; 8] = [
        &["query", "where", "MODEL.dense1.norm > 5 and MODEL.conv2.u3[4,4] > 0.2"],
        &["query", "confusion", "MODEL.logits", "label"],
        &["query", "metrics", "MODEL.logits", "label", "--where", "dense1.norm > 5"],
        &["query", "corr", "d.exact.dense1", "MODEL.logits.u3"],
        &["query", "mean", "d.exact.dense1", "--by", "MODEL.logits"],
        &["query", "dist", "d.exact.dense1", "--by", "MODEL.logits"],
        &["query", "knn", "d.exact.dense1", "--row", "5", "-k", "3", "--join", "MODEL.logits.u3"],
        &["get", "MODEL.logits", "--where", "dense1.norm > 5"],
    ];
    for question in questions {
        let (truth, _) = answer(dir, "d.exact", question, &[]);
        let (lossy, source) = answer(dir, "d.lossy", question, &[]);
        assert_ne!(truth, lossy, "{question:?} cannot tell");
        if question.contains(&"MODEL.logits") && !question.contains(&"--by") || question.contains(&"where") {
            assert!(source.contains("threshold(0.9)"), "{question:?}: {source}");
        }
        for demand in [&["--exact"][..], &["--plan", "rerun"], &["--exact", "--plan", "rerun"]] {
            // Names of joined columns aside, which hold the model's.
            let text = |v: &Value| v.to_string().replace("d.lossy", "d.exact");
            let (found, _) = answer(dir, "d.lossy", question, demand);
            assert_eq!(text(&found), text(&truth), "{question:?} {demand:?}");
        }
    }
    // What no model gives is read, whatever plan is demanded of the rest.
    let (_, source) = answer(dir, "d.lossy", &["query", "where", "d.lossy.label.index = 3"], &["--plan", "rerun"]);
    assert_eq!(source, "read lossless exact");
}
