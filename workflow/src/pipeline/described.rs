//! A pipeline with one setting: operators with their parameters, in an order in which they can run.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::document::{RawStage, Setting, Template};
use super::error::{PipelineError, Spot};
use super::graph::{Graph, Reading};
use super::node::{Key, Node, Place};
use super::operator::{Operator, OperatorKind, Slot};
use super::operators;
use super::params::Params;
use crate::suggest::nearest;

/// A pipeline.
pub struct Pipeline {
    file: Arc<str>,
    name: String,
    version: String,
    setting: Map<String, Value>,
    stages: Vec<Stage>,
}

/// A stage of a [`Pipeline`].
pub struct Stage {
    pub(crate) name: String,
    pub(crate) kind: &'static OperatorKind,
    pub(crate) operator: Box<dyn Operator>,
    /// What it reads; `stage` indexes the pipeline's stages.
    pub(crate) inputs: Vec<Reading>,
    /// The stage whose artifact it applies.
    pub(crate) fit: Option<Reading>,
    pub(crate) params: Map<String, Value>,
    written: Vec<(Key, Node)>,
    pub(crate) place: Place,
}

impl Stage {
    /// The stage's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its operator.
    pub fn op(&self) -> &'static str {
        self.kind.name
    }

    /// Its parameters, defaults included.
    pub fn params(&self) -> &Map<String, Value> {
        &self.params
    }

    /// Where `text` stands in the parameter `param`, else where the parameter stands, else where the stage does.
    pub(crate) fn place_of(&self, param: &str, text: &str) -> Place {
        let node = self.written.iter().find(|(k, _)| k.name == param);
        node.map_or(self.place, |(_, n)| {
            n.entry(text).map(|(place, _)| place).or_else(|| n.find(text)).unwrap_or(n.place)
        })
    }
}

impl Pipeline {
    /// The template's pipeline of one setting.
    ///
    /// Errors: `UnknownOperator`, `Unknown`, `MissingParam`, `BadValue`, `DuplicateName`, `Cycle`, `Inputs`, each with
    /// line and column.
    pub fn new(template: &Template, setting: &Setting) -> Result<Self, PipelineError> {
        let raw = template.stages(setting)?;
        let name = template.name().to_string();
        Self::build(template.file(), name, setting.version.clone(), setting.values(), raw)
    }

    /// The pipeline that [`Pipeline::describe`] described; `what` is named in errors.
    ///
    /// Errors: `Syntax` when `text` is no description, and when another version of an operator is needed.
    pub fn from_description(what: &str, text: &str) -> Result<Self, PipelineError> {
        let file: Arc<str> = what.into();
        let bad = |message: String| PipelineError::Syntax { at: Spot::new(&file, Place::default()), message };
        let value: Value = serde_json::from_str(text).map_err(|e| bad(format!("not a pipeline's description: {e}")))?;
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(String::from);
        let incomplete = || bad("not a pipeline's description: a key is missing".into());
        let mut raw = Vec::new();
        for stage in value.get("stages").and_then(Value::as_array).ok_or_else(incomplete)? {
            let op = text(stage, "op").ok_or_else(incomplete)?;
            let version = stage.get("version").and_then(Value::as_u64).ok_or_else(incomplete)?;
            if let Some(kind) = operators::find(&op).filter(|k| u64::from(k.version) != version) {
                let ours = kind.version;
                return Err(bad(format!("{op} of version {version} is needed; this build has version {ours}")));
            }
            let place = Place::default();
            let inputs = stage.get("inputs").and_then(Value::as_array).ok_or_else(incomplete)?;
            let params = stage.get("params").and_then(Value::as_object).ok_or_else(incomplete)?;
            raw.push(RawStage {
                name: text(stage, "name").ok_or_else(incomplete)?,
                place,
                op,
                op_place: place,
                inputs: inputs.iter().filter_map(Value::as_str).map(|s| (s.to_string(), place)).collect(),
                fit: text(stage, "fit").map(|s| (s, place)),
                params: params.iter().map(|(k, v)| (Key { place, name: k.clone() }, Node::of(v, place))).collect(),
            });
        }
        let setting = value.get("setting").and_then(Value::as_object).cloned().unwrap_or_default();
        let name = text(&value, "name").ok_or_else(incomplete)?;
        Self::build(&file, name, text(&value, "version").unwrap_or_default(), setting, raw)
    }

    fn build(
        file: &Arc<str>,
        name: String,
        version: String,
        setting: Map<String, Value>,
        raw: Vec<RawStage>,
    ) -> Result<Self, PipelineError> {
        let graph = Graph::new(file, &raw)?;
        let mut position = vec![0; raw.len()];
        graph.order.iter().enumerate().for_each(|(at, &index)| position[index] = at);
        let mut raw: Vec<Option<(RawStage, Vec<Reading>)>> = raw.into_iter().zip(graph.readings).map(Some).collect();
        let mut stages: Vec<Stage> = Vec::with_capacity(raw.len());
        for index in graph.order {
            let Some((stage, mut readings)) = raw.get_mut(index).and_then(Option::take) else { continue };
            readings.iter_mut().for_each(|r| r.stage = position[r.stage]);
            let fit = if stage.fit.is_some() { readings.pop() } else { None };
            let fitted = fit.as_ref().and_then(|f| stages.get(f.stage));
            if let Some(fitted) = fitted {
                let learnt = fitted.fit.as_ref().and_then(|f| stages.get(f.stage));
                check_fitted(file, &stage, fitted, learnt)?;
            }
            let built = build_stage(file, inherit(&stage, fitted), readings, fit)?;
            if let Some(fitted) = fitted {
                check_fit(file, &stage.params, &built, fitted)?;
            }
            stages.push(built);
        }
        Ok(Self { file: Arc::clone(file), name, version, setting, stages })
    }

    pub(crate) fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Name of its model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Version of its model; empty without a grid.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `name@version`, for messages.
    pub(crate) fn model_name(&self) -> String {
        if self.version.is_empty() { self.name.clone() } else { format!("{}@{}", self.name, self.version) }
    }

    /// Values of the template's parameters.
    pub fn setting(&self) -> &Map<String, Value> {
        &self.setting
    }

    /// The stages, in an order in which they can run.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// A reading as it is written in `inputs`.
    pub(crate) fn reference(&self, reading: &Reading) -> String {
        let stage = self.stages.get(reading.stage).map_or("?", |s| &s.name);
        reading.output.as_ref().map_or_else(|| stage.to_string(), |o| format!("{stage}/{o}"))
    }

    /// The operator graph with all parameters, as JSON from which [`Pipeline::from_description`] makes the same
    /// pipeline.
    pub fn describe(&self) -> String {
        let stages = self.stages.iter().map(|s| {
            let mut value = json!({
                "name": s.name, "op": s.kind.name, "version": s.kind.version, "params": s.params,
                "inputs": s.inputs.iter().map(|r| self.reference(r)).collect::<Vec<_>>(),
            });
            if let (Some(fit), Value::Object(map)) = (&s.fit, &mut value) {
                map.insert("fit".into(), json!(self.reference(fit)));
            }
            value
        });
        let stages: Vec<Value> = stages.collect();
        let mut value = json!({"name": self.name, "version": self.version, "setting": self.setting, "stages": stages});
        sort_keys(&mut value);
        value.to_string()
    }
}

/// Objects by sorted key, whatever map serde_json was built with: equal values have equal text.
pub(crate) fn sort_keys(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(sort_keys),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, mut value) in entries {
                sort_keys(&mut value);
                map.insert(key, value);
            }
        }
        _ => {}
    }
}

/// A stage that applies what another of its operator learnt has that stage's parameters, where it gives none.
fn inherit(stage: &RawStage, fitted: Option<&Stage>) -> RawStage {
    let mut stage = stage.clone();
    for (key, node) in fitted.filter(|f| f.kind.name == stage.op).map_or(&[][..], |f| &f.written) {
        if !stage.params.iter().any(|(k, _)| k.name == key.name) {
            stage.params.push((Key { place: stage.place, name: key.name.clone() }, node.at(stage.place)));
        }
    }
    stage
}

/// Refuses as `fit` a stage of another operator, and one that has learnt nothing itself but applies what `learnt` has.
fn check_fitted(
    file: &Arc<str>,
    stage: &RawStage,
    fitted: &Stage,
    learnt: Option<&Stage>,
) -> Result<(), PipelineError> {
    let Some((name, place)) = &stage.fit else { return Ok(()) };
    // That an operator is unknown, or has no `fit`, is said when the stage is built.
    let Some(kind) = operators::find(&stage.op).filter(|k| k.fit.is_some()) else { return Ok(()) };
    let (expected, found) = match learnt {
        _ if fitted.kind.name != kind.name => {
            ("a stage of its own operator".to_owned(), format!("is a {}", fitted.kind.name))
        }
        Some(learnt) => {
            let learnt = &learnt.name;
            (format!("a stage that learnt: use `fit: {learnt}`"), format!("applies what {learnt} learnt"))
        }
        None => return Ok(()),
    };
    Err(PipelineError::Inputs {
        at: Spot::new(file, *place),
        stage: stage.name.clone(),
        op: stage.op.clone(),
        expected: format!("as `fit` {expected}"),
        found: format!("`fit: {name}`, which {found}"),
    })
}

/// Refuses parameters other than those of the stage whose artifact is applied, where they were decided when it learnt: they
/// would be shown, and have no effect. Descriptions, whose places are not known, are read as they were written.
fn check_fit(file: &Arc<str>, given: &[(Key, Node)], stage: &Stage, fitted: &Stage) -> Result<(), PipelineError> {
    let own = stage.kind.fit.unwrap_or_default();
    for (key, node) in given.iter().filter(|(k, _)| !own.contains(&k.name.as_str()) && k.place != Place::default()) {
        let decided = fitted.params.get(&key.name);
        if stage.params.get(&key.name) == decided {
            continue;
        }
        let decided = decided.map_or_else(|| "nothing".to_owned(), Value::to_string);
        return Err(PipelineError::BadValue {
            at: Spot::new(file, key.place),
            param: key.name.clone(),
            expected: format!("{decided}, as {} decided, which `fit` applies: leave it out", fitted.name),
            found: node.shown(),
        });
    }
    Ok(())
}

fn build_stage(
    file: &Arc<str>,
    raw: RawStage,
    inputs: Vec<Reading>,
    fit: Option<Reading>,
) -> Result<Stage, PipelineError> {
    let Some(kind) = operators::find(&raw.op) else {
        let names: Vec<&str> = operators::OPERATORS.iter().map(|k| k.name).collect();
        return Err(PipelineError::UnknownOperator {
            at: Spot::new(file, raw.op_place),
            nearest: nearest(&raw.op, names.iter().copied()),
            known: names.join(", "),
            op: raw.op,
        });
    };
    if let (Some((_, place)), None) = (&raw.fit, kind.fit) {
        return Err(PipelineError::Unknown {
            at: Spot::new(file, *place),
            what: format!("parameter of {} (it learns nothing)", raw.op),
            name: "fit".into(),
            nearest: None,
            known: "name, op, inputs and its own".into(),
        });
    }
    let mut params = Params::new(file, &raw.name, &raw.op, raw.place, raw.params);
    if kind.fit.is_some() {
        params.allow("fit");
    }
    let parsed = (kind.parse)(&mut params);
    let (operator, params, written) = params.finish(parsed)?;
    let (least, most) = match kind.inputs {
        [rest @ .., Slot::Tables] => (rest.len() + 1, usize::MAX),
        slots => (slots.len(), slots.len()),
    };
    if !(least..=most).contains(&inputs.len()) {
        return Err(PipelineError::Inputs {
            at: Spot::new(file, raw.inputs.first().map_or(raw.place, |(_, p)| *p)),
            stage: raw.name,
            op: raw.op,
            expected: slots_in_words(kind.inputs),
            found: if inputs.is_empty() { "none; say `inputs: [stage]`".into() } else { inputs.len().to_string() },
        });
    }
    Ok(Stage { name: raw.name, kind, operator, inputs, fit, params, written, place: raw.place })
}

/// What an operator reads, in words.
pub(crate) fn slots_in_words(slots: &[Slot]) -> String {
    let word = |s: &Slot| match s {
        Slot::Table => "a table",
        Slot::Tables => "one table or more",
        Slot::Learnt => "a stage that has learnt something",
    };
    if slots.is_empty() { "no input".into() } else { slots.iter().map(word).collect::<Vec<_>>().join(", then ") }
}
