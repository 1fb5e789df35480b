//! What a store has of pipelines: the record of each stage, and stages' values read back.

use std::sync::Arc;

use mistique_engine::{Content, Fingerprint, IntermediateRecord, ModelKey, Rows, StageRecord, Store, hex};
use serde_json::{Map, Value, json};

use super::check::{Plan, ReadFrom, StagePlan, output_fingerprint};
use super::columns::{Columns, type_name};
use super::data::Data;
use super::described::Pipeline;
use super::error::{OperatorError, PipelineError};
use super::table::Table;

/// Columns of the outputs of the stage of `fingerprint`, when all of them are in the store.
pub(crate) fn known_outputs(store: &Store, fingerprint: &Fingerprint) -> Option<Vec<Columns>> {
    let mut outputs = Vec::new();
    while let Ok(Some(record)) = store.intermediate_by_stage(&output_fingerprint(fingerprint, outputs.len())) {
        let Content::Table(table) = &*record.content else { return None };
        outputs.push(Columns::of(&table.schema));
    }
    if outputs.is_empty() { None } else { Some(outputs) }
}

/// All rows of a stored table.
pub(crate) fn read_table(store: &Store, record: &IntermediateRecord) -> Result<Table, PipelineError> {
    let plan = store.plan_rows(record, &Rows::All)?;
    let n = if let Content::Table(table) = &*record.content { table.schema.fields().len() } else { 0 };
    let batch = store.read_table(record, &plan, &(0..n).collect::<Vec<_>>())?;
    Table::new(Arc::new(plan.rows.iter().collect()), batch).map_err(|e| stored_wrong(record.key.to_string(), e))
}

pub(crate) fn stored_wrong(what: String, source: OperatorError) -> PipelineError {
    PipelineError::Stage { model: what, stage: "-".into(), op: "read from the store".into(), source: Box::new(source) }
}

/// What is written down of a stage beside its values.
pub(crate) struct Timing {
    pub(crate) seconds: f64,
    pub(crate) learn_seconds: f64,
}

impl Plan {
    /// The record of stage `index`.
    pub(crate) fn record(
        &self,
        index: usize,
        data: &Data,
        timing: &Timing,
        artifact: Option<Fingerprint>,
        tables: &[u64],
        metrics: &std::collections::BTreeMap<String, f64>,
    ) -> Result<StageRecord, PipelineError> {
        let nothing = || PipelineError::Inputs {
            at: super::error::Spot::new(self.pipeline.file(), super::node::Place::default()),
            stage: index.to_string(),
            op: String::new(),
            expected: "a stage of the plan".into(),
            found: "none".into(),
        };
        let (stage, plan) = self.pipeline.stages().get(index).zip(self.stages.get(index)).ok_or_else(nothing)?;
        let mut description = json!({
            "params": stage.params, "version": stage.kind.version, "learn_seconds": timing.learn_seconds,
            "outputs": plan.outputs.iter().map(|(n, _)| n).collect::<Vec<_>>(), "rows": tables,
        });
        if let (Value::Object(map), Some(fit)) = (&mut description, &stage.fit) {
            map.insert("fit".into(), json!(self.pipeline.reference(fit)));
        }
        if let (Value::Object(map), Some(file)) = (&mut description, stage.operator.file()) {
            let columns = plan.outputs.first().map(|(_, c)| c.clone()).unwrap_or_default();
            let types: Map<String, Value> =
                columns.known().iter().map(|(n, t)| (n.clone(), json!(type_name(t)))).collect();
            let input = json!({
                "file": file, "fingerprint": hex(&data.fingerprint(file)?), "rows": tables.first(), "types": types,
            });
            map.insert("input".into(), input);
        }
        let inputs: Vec<String> = stage.inputs.iter().map(|r| self.pipeline.reference(r)).collect();
        let metrics: Map<String, Value> = metrics.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        Ok(StageRecord {
            position: index as i64,
            name: stage.name.clone(),
            operator: stage.kind.name.into(),
            description: description.to_string(),
            inputs: json!(inputs).to_string(),
            fingerprint: plan.fingerprint,
            artifact,
            seconds: timing.seconds,
            n_rows: tables.iter().sum(),
            metrics: Value::Object(metrics).to_string(),
        })
    }

    /// The plan of a pipeline that has run, from its records: it can run again without looking at its data first.
    ///
    /// Errors: `None` when the records do not fit the pipeline.
    pub(crate) fn of_records(pipeline: Pipeline, records: &[StageRecord]) -> Option<Self> {
        let mut stages: Vec<StagePlan> = Vec::new();
        for (index, stage) in pipeline.stages().iter().enumerate() {
            let record = records.get(index).filter(|r| r.name == stage.name && r.operator == stage.kind.name)?;
            let description: Value = serde_json::from_str(&record.description).ok()?;
            let outputs = description.get("outputs")?.as_array()?;
            let outputs: Vec<(String, Columns)> =
                outputs.iter().map(|o| Some((o.as_str()?.to_string(), Columns::default()))).collect::<Option<_>>()?;
            let inputs = stage.inputs.iter().map(|reading| {
                let (of, name) = (stages.get(reading.stage)?, pipeline.reference(reading));
                Some(match of.outputs.iter().position(|(n, _)| *n == name) {
                    Some(output) => ReadFrom::Table { stage: reading.stage, output },
                    None => ReadFrom::Learnt { stage: reading.stage },
                })
            });
            let inputs = inputs.collect::<Option<Vec<_>>>()?;
            let own = record.artifact.map(|_| index);
            let learns = stage.fit.as_ref().map(|f| f.stage).or(own);
            stages.push(StagePlan::known(record.fingerprint, outputs, learns, inputs));
        }
        (records.len() == stages.len()).then_some(Self { pipeline, stages })
    }
}

/// `project.model@version` of a pipeline.
pub(crate) fn key_of(pipeline: &Pipeline, project: &str) -> ModelKey {
    ModelKey::new(project, pipeline.name()).at(pipeline.version())
}
