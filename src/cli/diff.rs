//! `mistique diff`: in what two models differ, and which intermediates they share.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Result;
use super::output::{Rows, pretty};
use super::pipeline::{reads, strings, value_text};
use crate::engine_types::StageRecord;
use crate::{Content, IntermediateRecord, ModelKey, ModelRecord, Store};

/// A stage or layer, as far as it is compared.
struct Part {
    op: String,
    reads: Vec<String>,
    params: Map<String, Value>,
    /// What tells whether it gives the same values, when that is known.
    fingerprint: Option<Vec<u8>>,
    /// Names of its intermediates, and what else it gave.
    outputs: Vec<String>,
    learnt: (Option<[u8; 16]>, String),
}

/// How a stage or layer differs.
struct Change {
    name: String,
    what: String,
    first: Value,
    second: Value,
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn part_of_stage(stage: &StageRecord) -> Part {
    let description = parsed(&stage.description);
    let mut params = description.get("params").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(input) = description.pointer("/input/fingerprint") {
        params.insert("content of the file".into(), input.clone());
    }
    let fingerprint = Some(stage.fingerprint.to_vec());
    let outputs = strings(description.get("outputs"));
    let learnt = (stage.artifact, stage.metrics.clone());
    Part { op: stage.operator.clone(), reads: reads(stage), params, fingerprint, outputs, learnt }
}

fn part_of_layer(layer: &Value) -> Option<(String, Part)> {
    let mut params = layer.as_object()?.clone();
    let name = params.remove("name")?.as_str()?.to_string();
    let op = params.remove("op").and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
    let reads = params.remove("inputs").map(|v| value_text(&v)).into_iter().collect();
    Some((name, Part { op, reads, params, fingerprint: None, outputs: Vec::new(), learnt: (None, String::new()) }))
}

/// The stages or layers of a model by name, in order.
fn parts(store: &Store, model: &ModelRecord) -> Result<Vec<(String, Part)>> {
    let stages = store.catalog().stages(model.id)?;
    if !stages.is_empty() {
        return Ok(stages.iter().map(|s| (s.name.clone(), part_of_stage(s))).collect());
    }
    let description = parsed(&model.spec.description);
    let layers = description.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(layers.iter().filter_map(part_of_layer).collect())
}

/// Whether two intermediates hold the same values: of one stage, or made of the same chunks under the same names of columns.
fn same(store: &Store, a: &IntermediateRecord, b: &IntermediateRecord) -> Result<bool> {
    if a.stage.is_some() && a.stage == b.stage {
        return Ok(true);
    }
    if let (Content::Table(x), Content::Table(y)) = (&*a.content, &*b.content)
        && x.schema != y.schema
    {
        return Ok(false);
    }
    let chunks = |r: &IntermediateRecord| -> Result<Vec<(Vec<u64>, Vec<i64>)>> {
        let blocks = store.catalog().blocks(r, 0, u64::MAX)?;
        Ok(blocks.iter().map(|b| (b.rows.iter().collect(), b.chunks.clone())).collect())
    };
    Ok(a.n_rows == b.n_rows && a.n_rows > 0 && chunks(a)? == chunks(b)?)
}

/// In what stages or layers differ; and those that differ in nothing but what they read, and in what they gave.
fn changes(first: &[(String, Part)], second: &[(String, Part)], shared: &[String]) -> (Vec<Change>, Vec<String>) {
    let find = |list: &'_ [(String, Part)], name: &str| list.iter().position(|(n, _)| n == name);
    let mut changes = Vec::new();
    let mut follows = Vec::new();
    for (name, a) in first {
        let change =
            |what: &str, first: Value, second: Value| Change { name: name.clone(), what: what.into(), first, second };
        let Some((_, b)) = find(second, name).and_then(|i| second.get(i)) else {
            changes.push(change("stage", json!(a.op), Value::Null));
            continue;
        };
        let before = changes.len();
        if a.op != b.op {
            changes.push(change("operator", json!(a.op), json!(b.op)));
        }
        if a.reads != b.reads {
            changes.push(change("inputs", json!(a.reads), json!(b.reads)));
        }
        let keys: BTreeMap<&String, ()> = a.params.keys().chain(b.params.keys()).map(|k| (k, ())).collect();
        for key in keys.into_keys() {
            let (x, y) = (a.params.get(key), b.params.get(key));
            if x != y {
                changes.push(change(key, x.cloned().unwrap_or_default(), y.cloned().unwrap_or_default()));
            }
        }
        let gave_the_same = a.learnt == b.learnt && a.outputs.iter().all(|o| shared.contains(o));
        if changes.len() == before && a.fingerprint != b.fingerprint && !gave_the_same {
            follows.push(name.clone());
        }
    }
    for (name, b) in second.iter().filter(|(n, _)| find(first, n).is_none()) {
        let (name, what) = (name.clone(), "stage".into());
        changes.push(Change { name, what, first: Value::Null, second: json!(b.op) });
    }
    (changes, follows)
}

pub fn run(store: &Store, first: &str, second: &str, as_json: bool) -> Result<String> {
    let model = |text: &str| -> Result<ModelRecord> { Ok(store.model(&text.parse::<ModelKey>()?)?) };
    let (first, second) = (model(first)?, model(second)?);
    let (a, b) = (store.intermediates(&first)?, store.intermediates(&second)?);
    let (mut shared, mut different, mut only) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for x in &a {
        let name = x.key.intermediate.clone();
        match b.iter().find(|y| y.key.intermediate == name) {
            None => only[0].push(name),
            Some(y) if same(store, x, y)? => shared.push(name),
            Some(_) => different.push(name),
        }
    }
    let (changes, follows) = changes(&parts(store, &first)?, &parts(store, &second)?, &shared);
    let missing = |y: &&IntermediateRecord| !a.iter().any(|x| x.key.intermediate == y.key.intermediate);
    only[1].extend(b.iter().filter(missing).map(|y| y.key.intermediate.clone()));
    let hex = |w: Option<[u8; 16]>| w.map(|w| w.iter().map(|b| format!("{b:02x}")).collect::<String>());
    let weights = [hex(first.spec.weights), hex(second.spec.weights)];
    let keys = [first.spec.key.to_string(), second.spec.key.to_string()];
    if as_json {
        let change = |c: &Change| json!({"stage": c.name, "what": c.what, "first": c.first, "second": c.second});
        return Ok(pretty(&json!({
            "first": keys[0], "second": keys[1], "changes": changes.iter().map(change).collect::<Vec<_>>(),
            "follow": follows, "weights": weights, "shared": shared, "different": different,
            "only_first": only[0], "only_second": only[1],
        })));
    }
    let mut out = String::new();
    if changes.is_empty() {
        out += &format!("{} and {} have the same stages and parameters\n", keys[0], keys[1]);
    } else {
        let mut rows = Rows::new(&["stage", "what", &keys[0], &keys[1]]);
        let text = |v: &Value| if v.is_null() { "-".to_string() } else { value_text(v) };
        for c in &changes {
            rows.push(vec![c.name.clone(), c.what.clone(), text(&c.first), text(&c.second)], Value::Null);
        }
        out += &rows.table();
    }
    if weights[0] != weights[1] {
        out += "the weights differ\n";
    }
    let list = |what: &str, names: &[String]| match names.is_empty() {
        true => String::new(),
        false => format!("{what} ({}): {}\n", names.len(), names.join(", ")),
    };
    out += &list("other values, since what they read differs", &follows);
    out += &list("intermediates that both share", &shared);
    out += &list("intermediates that differ", &different);
    out += &list(&format!("intermediates of {} alone", keys[0]), &only[0]);
    out += &list(&format!("intermediates of {} alone", keys[1]), &only[1]);
    Ok(out)
}
