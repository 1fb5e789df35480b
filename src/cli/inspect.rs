//! `mistique ls` and `show`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::output::{Rows, bytes, count, damage_note, float, plain, pretty};
use super::{CliError, Result};
use crate::engine_types::IntermediateStats;
use crate::{Code, Content, EngineError, IntermediateKey, ModelKey, ModelKind, ModelRecord, Store};

/// Shape and type of an intermediate's rows.
fn kind(content: &Content) -> String {
    let dtype = |code: Code| format!("{code:?}").to_lowercase();
    match content {
        Content::Tensor(t) if t.shape.is_empty() => format!("one {}", dtype(t.dtype)),
        Content::Tensor(t) => format!("{} {:?}", dtype(t.dtype), t.shape),
        Content::Table(t) => format!("table of {} columns", t.schema.fields().len()),
    }
}

/// Whether `text` matches `pattern` with `*` and `?`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Where to go on when the last * has to take one more.
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || *c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    i = at + 1;
                    j = taken + 1;
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

pub fn ls(store: &Store, pattern: Option<&str>, as_json: bool) -> Result<String> {
    let stats = store.stats()?;
    damage_note(&stats.damage);
    let complete: BTreeMap<i64, bool> =
        store.catalog().readable_models().rows.iter().map(|m| (m.id, m.complete)).collect();
    let wanted = |key: &str| pattern.is_none_or(|p| matches(p, key) || matches(&format!("{p}.*"), key));
    let mut rows = Rows::new(&["key", "rows of", ">rows", "scheme", ">logged", ">stored", ""]);
    let mut n = 0;
    for s in &stats.intermediates {
        let key = s.record.key.to_string();
        if !wanted(&key) {
            continue;
        }
        n += 1;
        let done = complete.get(&s.record.model_id).copied();
        let scheme = s.record.content.scheme_text();
        let json = json!({
            "key": key, "kind": kind(&s.record.content), "rows": s.record.n_rows, "scheme": scheme,
            "logical_bytes": s.logical_bytes, "stored_bytes": s.stored_bytes, "complete": done,
            "damaged": done.is_none(),
        });
        let cells = vec![
            key,
            kind(&s.record.content),
            count(s.record.n_rows),
            scheme,
            bytes(s.logical_bytes),
            bytes(s.stored_bytes as u64),
            match done {
                Some(true) => String::new(),
                Some(false) => "incomplete".into(),
                None => "its model is damaged".into(),
            },
        ];
        rows.push(cells, json);
    }
    match pattern {
        Some(p) if n == 0 && !stats.intermediates.is_empty() => {
            let keys: Vec<String> = stats.intermediates.iter().map(|s| s.record.key.to_string()).collect();
            let nearest = crate::engine_types::nearest(p, keys.iter().map(String::as_str), 3);
            Err(EngineError::NotFound { what: "intermediate like", name: p.to_string(), nearest }.into())
        }
        _ => Ok(rows.render(as_json)),
    }
}

pub fn show(store: &Store, key: &str, as_json: bool) -> Result<String> {
    match key.parse::<IntermediateKey>() {
        Ok(key) => show_intermediate(store, &key, as_json),
        Err(e) => match key.parse::<ModelKey>() {
            Ok(key) => show_model(store, &store.model(&key)?, as_json),
            Err(_) => Err(e.into()),
        },
    }
}

fn model_json(model: &ModelRecord) -> Value {
    let spec = &model.spec;
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    json!({
        "key": spec.key.to_string(), "kind": spec.kind.name(), "complete": model.complete, "created": model.created,
        "weights": spec.weights.map(|w| hex(&w)),
        "dataset": spec.dataset.as_ref().map(|d| json!({
            "name": d.name, "source": d.source, "fingerprint": hex(&d.fingerprint), "rows": d.n_rows, "shape": d.row_shape,
        })),
    })
}

fn show_model(store: &Store, model: &ModelRecord, as_json: bool) -> Result<String> {
    let spec = &model.spec;
    let description: Option<Value> = serde_json::from_str(&spec.description).ok();
    let stats = store.stats()?;
    let own: Vec<&IntermediateStats> = stats.intermediates.iter().filter(|s| s.record.model_id == model.id).collect();
    if as_json {
        let mut value = model_json(model);
        if let Value::Object(map) = &mut value {
            let names = own.iter().map(|s| s.record.key.to_string()).collect::<Vec<_>>();
            map.insert("intermediates".into(), json!(names));
            map.insert("description".into(), description.unwrap_or(Value::Null));
            if spec.kind == ModelKind::Pipeline {
                map.insert("stages".into(), super::pipeline::stages_json(&store.catalog().stages(model.id)?));
            }
        }
        return Ok(pretty(&value));
    }
    let key = spec.key.to_string();
    let incomplete = if model.complete { "" } else { ", incomplete" };
    let mut out = format!("{}: {}{incomplete}\n", plain(&key, &[]), spec.kind.name());
    match &spec.dataset {
        Some(d) => {
            let of = if d.row_shape.is_empty() { String::new() } else { format!(" of {:?}", d.row_shape) };
            out += &format!("dataset {} ({}), {} rows{of}\n", d.name, d.source, count(d.n_rows));
        }
        None => out += "no dataset is known; RERUN is not possible\n",
    }
    if spec.kind == ModelKind::Pipeline {
        return Ok(out + &super::pipeline::show(store, model, &own)?);
    }
    let layers = description.as_ref().and_then(|d| d.get("layers")?.as_array().cloned()).unwrap_or_default();
    let mut rows = Rows::new(&["intermediate", "made by", "rows of", ">rows", "scheme", ">stored"]);
    for s in own {
        let name = &s.record.key.intermediate;
        let layer = layers.iter().find(|l| l.get("name").and_then(Value::as_str) == Some(name));
        let by = layer.map_or(String::new(), |l| {
            let inputs: Vec<&str> = l
                .get("inputs")
                .and_then(Value::as_array)
                .map(|a| a.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            format!("{}({})", l.get("op").and_then(Value::as_str).unwrap_or("?"), inputs.join(", "))
        });
        let cells = vec![
            name.clone(),
            by,
            kind(&s.record.content),
            count(s.record.n_rows),
            s.record.content.scheme_text(),
            bytes(s.stored_bytes as u64),
        ];
        rows.push(cells, Value::Null);
    }
    Ok(out + &rows.table())
}

fn show_intermediate(store: &Store, key: &IntermediateKey, as_json: bool) -> Result<String> {
    let record = store.intermediate(key)?;
    let stats = store.stats()?;
    let own = stats.intermediates.iter().find(|s| s.record.id == record.id);
    let own = own.ok_or_else(|| CliError::Usage(format!("{key} is gone")))?;
    let model = store.model(&record.key.model)?;
    let errors = store.catalog().errors(record.id)?;
    let mut pairs = vec![
        ("key", json!(record.key.to_string())),
        ("rows of", json!(kind(&record.content))),
        ("rows", json!(record.n_rows)),
        ("scheme", json!(record.content.scheme_text())),
        ("logged bytes", json!(own.logical_bytes)),
        ("stored bytes", json!(own.stored_bytes as u64)),
        ("chunks", json!(own.n_chunks)),
        ("queries", json!(record.n_query)),
        (
            "RERUN",
            json!(if model.spec.description.is_empty() { "not possible: only values are known" } else { "possible" }),
        ),
    ];
    match &*record.content {
        Content::Tensor(t) => {
            let l = &t.layout;
            pairs.push(("units", json!(l.n_units)));
            pairs.push(("stored map", json!([l.stored.h, l.stored.w])));
            pairs.push(("rows a RowBlock", json!(l.block_rows)));
            pairs.push(("units a ColumnChunk", json!(l.group_units)));
            pairs.push(("rows a page", json!(l.page_rows)));
        }
        Content::Table(t) => {
            let columns: Vec<String> =
                t.schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
            pairs.push(("columns", json!(columns)));
        }
    }
    let mut worst = Vec::new();
    if let Some(e) = &errors {
        let mut all = crate::UnitError::default();
        e.units.iter().for_each(|u| all.merge(u));
        // Of a sample: a row that was not measured may have a larger one.
        pairs.push(("error: rows measured", json!(e.measured_rows)));
        pairs.push(("error: root mean square", json!(all.rms())));
        pairs.push(("error: largest of rows measured", json!(all.max())));
        pairs.push(("error: relative", json!(all.relative())));
        pairs.push(("values clamped", json!(e.clamped)));
        worst = e.units.iter().enumerate().collect();
        worst.sort_by(|a, b| b.1.relative().total_cmp(&a.1.relative()));
    } else if matches!(&*record.content, Content::Tensor(_)) {
        pairs.push(("error", json!("none: stored exactly")));
    }
    let unit = |(i, u): &(usize, &crate::UnitError)| json!({"unit": format!("u{i}"), "rms": u.rms(), "largest": u.max(), "relative": u.relative()});
    if as_json {
        let mut value =
            Value::Object(pairs.into_iter().map(|(k, v)| (k.replace(": ", "_").replace(' ', "_"), v)).collect());
        if let Value::Object(map) = &mut value {
            worst.sort_by_key(|(i, _)| *i);
            map.insert("units_error".into(), worst.iter().map(unit).collect());
        }
        return Ok(pretty(&value));
    }
    let mut out = String::new();
    for (name, value) in pairs {
        let text = match (&value, name.ends_with("bytes")) {
            (Value::Number(n), true) => bytes(n.as_u64().unwrap_or_default()),
            (Value::Number(n), _) if n.is_f64() => float(n.as_f64().unwrap_or_default()),
            (Value::Number(n), _) => count(n.as_u64().unwrap_or_default()),
            (Value::String(s), _) => s.clone(),
            (other, _) => other.to_string(),
        };
        out += &format!("{name:32} {}\n", plain(&text, &[]));
    }
    if worst.len() > 1 {
        out += "units with the largest relative error, of the rows measured:\n";
        let mut rows = Rows::new(&["unit", ">rms", ">largest", ">relative"]);
        for (i, u) in worst.iter().take(5) {
            rows.push(vec![format!("u{i}"), float(u.rms()), float(u.max()), float(u.relative())], Value::Null);
        }
        out += &rows.table();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (p, t, want) in [
            ("a*", "abc", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?", "abc", false),
            ("*b*d", "abcbd", true),
            ("x", "y", false),
        ] {
            assert_eq!(matches(p, t), want, "{p} {t}");
        }
    }
}
