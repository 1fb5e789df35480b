//! `mistique log` and `show` of pipelines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::log::WriteArgs;
use super::output::{Rows, bytes, count, float, pretty, seconds, times};
use super::progress::Progress;
use super::{CliError, Result, file_error};
use crate::engine_types::{IntermediateStats, StageRecord};
use crate::pipeline::{
    Data, Fate, ModelReport, PipelineOptions, Plan, Template, is_pipeline, log_pipelines, plan_template,
};
use crate::{ModelRecord, Network, Store};

/// The pipelines that `mistique log` was given without `--arch`: files whose names end as YAML's do, apart from networks.
pub fn files(given: &[String]) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for name in given {
        let path = Path::new(name);
        if path.extension().is_none_or(|e| e != "yaml" && e != "yml") {
            continue;
        }
        let text = std::fs::read_to_string(path).map_err(file_error(path))?;
        if is_pipeline(&text) || Network::parse(&text).is_err() {
            files.push((path.to_path_buf(), text));
        }
    }
    match files.len() {
        0 => Ok(files),
        n if n == given.len() => Ok(files),
        _ => Err(CliError::Usage("name pipelines (files with `stages`) alone, or one model with --arch".into())),
    }
}

/// What the command line says of pipelines.
pub struct PipelineArgs<'a> {
    pub data: &'a str,
    pub dataset: Option<String>,
    pub project: Option<String>,
    pub checkpoint: Duration,
    pub options: &'a WriteArgs,
}

pub fn log(files: &[(PathBuf, String)], args: &PipelineArgs<'_>, store: &Path, as_json: bool) -> Result<String> {
    let data = Data::open(args.data)?;
    let templates = files.iter().map(|(path, text)| Template::parse(&path.display().to_string(), text));
    let templates = templates.collect::<std::result::Result<Vec<_>, _>>()?;
    // Everything is checked before a store is made.
    let existing = Store::open(store).ok();
    let mut groups: Vec<(String, Vec<Plan>)> = Vec::new();
    for template in &templates {
        let project = args.project.as_deref().or(template.project()).unwrap_or("pipelines").to_string();
        let plans = plan_template(template, &data, existing.as_ref())?;
        match groups.iter_mut().find(|(p, _)| *p == project) {
            Some((_, all)) => all.extend(plans),
            None => groups.push((project, plans)),
        }
    }
    drop(existing);
    let store = Store::open_or_create(store)?;
    args.options.set_mode(&store)?;
    let mut out = Output::default();
    let mut progress = Progress::stages("logging", as_json);
    for (project, plans) in groups {
        let options = PipelineOptions {
            project,
            dataset: args.dataset.clone(),
            if_exists: args.options.if_exists(),
            log: args.options.log_options(),
            checkpoint: args.checkpoint,
            ..PipelineOptions::default()
        };
        let logged = log_pipelines(&store, &plans, &data, &options, &mut |p| {
            progress.stage(p.model, p.stage, p.done as u64, p.total as u64);
        });
        match logged {
            Ok(report) => out.add(&report, as_json),
            Err(e) => {
                progress.finish();
                return Err(e.into());
            }
        }
    }
    progress.finish();
    Ok(out.render(as_json))
}

/// What was logged, for people and as JSON.
#[derive(Default)]
struct Output {
    models: Vec<Value>,
    text: String,
    totals: [f64; 8],
}

/// Names of the totals, in JSON.
const TOTALS: [&str; 8] = [
    "stages_run",
    "stages_shared",
    "seconds",
    "operator_seconds",
    "logical_bytes",
    "written_bytes",
    "saved_bytes",
    "commits",
];

impl Output {
    fn add(&mut self, report: &crate::pipeline::PipelineReport, as_json: bool) {
        for model in &report.models {
            let ran = model.stages.iter().filter(|s| s.fate == Fate::Ran).count();
            let shared = model.stages.len() - ran;
            let add = [ran as f64, shared as f64];
            self.totals.iter_mut().zip(add).for_each(|(t, a)| *t += a);
            if as_json {
                self.models.push(model_json(model));
                continue;
            }
            let metrics: Vec<String> = model.metrics.iter().map(|(k, v)| format!("{k} {}", float(*v))).collect();
            let metrics = if metrics.is_empty() { String::new() } else { format!("; {}", metrics.join(", ")) };
            let key = &model.key;
            self.text += &format!("{key}: {} stages, {ran} run, {shared} shared{metrics}\n", model.stages.len());
        }
        let log = report.log;
        let add = [report.seconds, report.run_seconds];
        let counted = [log.logical_bytes, log.written_bytes, log.saved_bytes, report.commits as u64];
        let add = add.into_iter().chain(counted.map(|n| n as f64));
        self.totals.iter_mut().skip(2).zip(add).for_each(|(t, a)| *t += a);
    }

    fn render(mut self, as_json: bool) -> String {
        let [ran, shared, took, operators, logical, written, saved, _] = self.totals;
        if as_json {
            let mut map: Map<String, Value> =
                TOTALS.iter().map(|n| n.to_string()).zip(self.totals.map(whole)).collect();
            map.insert("models".into(), Value::Array(self.models));
            return pretty(&Value::Object(map));
        }
        if ran == 0.0 {
            self.text += &format!("all {shared} stages were stored already\n");
            return self.text;
        }
        self.text += &format!(
            "{ran} stages run, {shared} shared, in {} ({} in operators); {} became {} ({} smaller), {} saved by de-duplication\n",
            seconds(took),
            seconds(operators),
            bytes(logical as u64),
            bytes(written as u64),
            times(logical, written),
            bytes(saved as u64),
        );
        self.text
    }
}

/// Counts as whole numbers.
fn whole(v: f64) -> Value {
    if v.fract() == 0.0 { json!(v as u64) } else { json!(v) }
}

fn model_json(model: &ModelReport) -> Value {
    let stage = |s: &crate::pipeline::StageReport| json!({"name": s.name, "operator": s.op, "shared": s.fate == Fate::Shared, "seconds": s.seconds, "rows": s.n_rows});
    let metrics: Map<String, Value> =
        model.metrics.iter().map(|(k, v)| (k.clone(), super::output::number(*v))).collect();
    json!({
        "model": model.key.to_string(), "stages": model.stages.iter().map(stage).collect::<Vec<_>>(), "metrics": metrics,
    })
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// The texts of a list.
pub fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|v| v.as_str().map(String::from)).collect()
}

/// What a stage reads, `fit` last.
pub fn reads(stage: &StageRecord) -> Vec<String> {
    let mut reads = strings(Some(&parsed(&stage.inputs)));
    let description = parsed(&stage.description);
    reads.extend(description.get("fit").and_then(Value::as_str).map(|f| format!("fit {f}")));
    reads.extend(description.pointer("/input/file").and_then(Value::as_str).map(String::from));
    reads
}

fn hex(b: &[u8]) -> String {
    b.iter().map(|b| format!("{b:02x}")).collect()
}

/// The stages of a pipeline as JSON.
pub fn stages_json(stages: &[StageRecord]) -> Value {
    let stage = |s: &StageRecord| {
        let mut value = parsed(&s.description);
        if let Value::Object(map) = &mut value {
            let own = [
                ("name", json!(s.name)),
                ("operator", json!(s.operator)),
                ("inputs", parsed(&s.inputs)),
                ("fingerprint", json!(hex(&s.fingerprint))),
                ("artifact", json!(s.artifact.map(|a| hex(&a)))),
                ("seconds", json!(s.seconds)),
                ("n_rows", json!(s.n_rows)),
                ("metrics", parsed(&s.metrics)),
            ];
            map.extend(own.map(|(k, v)| (k.to_string(), v)));
        }
        value
    };
    Value::Array(stages.iter().map(stage).collect())
}

/// A short form of parameters: `columns: [a, b], seed: 1`.
pub fn short(params: Option<&Value>) -> String {
    let Some(Value::Object(map)) = params else { return String::new() };
    let text = map.iter().map(|(k, v)| format!("{k}: {}", value_text(v))).collect::<Vec<_>>().join(", ");
    if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
}

/// A value as it would be written.
pub fn value_text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(value_text).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}: {}", value_text(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// The graph of a pipeline: what each stage reads and gives, its time, its figures.
pub fn show(store: &Store, model: &ModelRecord, own: &[&IntermediateStats]) -> Result<String> {
    let stages = store.catalog().stages(model.id)?;
    let mut out = String::new();
    let description = parsed(&model.spec.description);
    let setting = short(description.get("setting"));
    if !setting.is_empty() {
        out += &format!("setting {setting}\n");
    }
    for stage in &stages {
        let description = parsed(&stage.description);
        let Some(input) = description.get("input") else { continue };
        let text = |key: &str| input.get(key).map(value_text).unwrap_or_default();
        let columns = input.get("types").and_then(Value::as_object).map_or(0, Map::len);
        let rows = input.get("rows").and_then(Value::as_u64).unwrap_or_default();
        out += &format!("input {}: {} rows of {columns} columns, {}\n", text("file"), count(rows), text("fingerprint"));
    }
    let mut rows =
        Rows::new(&["stage", "operator", "reads", "parameters", ">rows", ">columns", ">time", ">stored", ""]);
    for stage in &stages {
        let description = parsed(&stage.description);
        let outputs = strings(description.get("outputs"));
        let given = own.iter().filter(|s| outputs.contains(&s.record.key.intermediate));
        let (mut stored, mut columns) = (0.0, Vec::new());
        for s in given {
            stored += s.stored_bytes;
            if let crate::Content::Table(t) = &*s.record.content {
                columns.push(t.schema.fields().len().to_string());
            }
        }
        let per_output: Vec<String> = description
            .get("rows")
            .and_then(Value::as_array)
            .map(|l| l.iter().filter_map(Value::as_u64).map(count).collect())
            .unwrap_or_default();
        columns.dedup();
        let mut notes: Vec<String> = match parsed(&stage.metrics) {
            Value::Object(map) => {
                map.iter().map(|(k, v)| format!("{k} {}", v.as_f64().map_or("-".into(), float))).collect()
            }
            _ => Vec::new(),
        };
        if let Some(artifact) = stage.artifact {
            notes.push(format!("learnt {}", &hex(&artifact)[..8]));
        }
        let cells = vec![
            stage.name.clone(),
            stage.operator.clone(),
            reads(stage).join(", "),
            short(description.get("params")),
            per_output.join(" + "),
            columns.join(", "),
            seconds(stage.seconds),
            if outputs.is_empty() { String::new() } else { bytes(stored as u64) },
            notes.join(", "),
        ];
        rows.push(cells, Value::Null);
    }
    let whole: f64 = stages.iter().map(|s| s.seconds).sum();
    Ok(out + &rows.table() + &format!("{} stages, {} when they ran\n", stages.len(), seconds(whole)))
}
