//! The check before the run: columns and types followed through all stages, and the fingerprint of every stage.

use std::collections::BTreeMap;

use mistique_engine::{Fingerprint, fingerprint};
use serde_json::Value;

use super::columns::Columns;
use super::data::Data;
use super::described::{Pipeline, Stage, slots_in_words, sort_keys};
use super::error::{OperatorError, PipelineError, Spot};
use super::graph::Reading;
use super::operator::{Checked, Given, Slot};
use crate::suggest::nearest;

/// A pipeline over certain data, checked: it can run.
pub struct Plan {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// One a stage.
    pub stages: Vec<StagePlan>,
}

/// What is known of a stage before it runs.
#[derive(Debug, Clone)]
pub struct StagePlan {
    /// Hash of operator, parameters, inputs and the content of the files read: two stages of one fingerprint give the same
    /// values.
    pub fingerprint: Fingerprint,
    /// Names of its intermediates (the stage's, or `stage/output`), and their columns.
    pub outputs: Vec<(String, Columns)>,
    /// Whether it learns something that is kept, or applied what another stage learnt: `None`, or its own or the other's
    /// index.
    pub learns: Option<usize>,
    /// What it reads.
    pub inputs: Vec<ReadFrom>,
    needs: Option<Columns>,
    about: BTreeMap<&'static str, String>,
}

impl StagePlan {
    /// A stage that was checked before, and ran.
    pub(crate) fn known(
        fingerprint: Fingerprint,
        outputs: Vec<(String, Columns)>,
        learns: Option<usize>,
        inputs: Vec<ReadFrom>,
    ) -> Self {
        Self { fingerprint, outputs, learns, inputs, needs: None, about: BTreeMap::new() }
    }
}

/// An input of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// A table of another stage.
    Table {
        /// Index of the stage.
        stage: usize,
        /// Index of the output.
        output: usize,
    },
    /// What another stage has learnt.
    Learnt {
        /// Index of the stage.
        stage: usize,
    },
}

impl ReadFrom {
    /// Index of the stage.
    pub fn stage(self) -> usize {
        match self {
            ReadFrom::Table { stage, .. } | ReadFrom::Learnt { stage } => stage,
        }
    }
}

/// Fingerprint of an output of the stage of `fingerprint`.
pub fn output_fingerprint(stage: &Fingerprint, output: usize) -> Fingerprint {
    let mut bytes = stage.to_vec();
    bytes.extend_from_slice(&(output as u64).to_le_bytes());
    fingerprint(&bytes)
}

/// Columns of the outputs of stages that ran before, by the stage's fingerprint.
pub type KnownOutputs<'a> = &'a dyn Fn(&Fingerprint) -> Option<Vec<Columns>>;

impl Plan {
    /// Checks `pipeline` over `data`. Where `known` has a stage's columns, they are taken, and a file whose stage is known
    /// is hashed but not parsed.
    ///
    /// Errors: `Check` for columns that are missing or of a type that does not fit, `Inputs`, `Unknown` for an output that
    /// a stage does not have; each with line and column. `Dataset` for files.
    pub fn new(pipeline: Pipeline, data: &Data, known: KnownOutputs<'_>) -> Result<Self, PipelineError> {
        let mut stages: Vec<StagePlan> = Vec::with_capacity(pipeline.stages().len());
        for (index, stage) in pipeline.stages().iter().enumerate() {
            let plan = Checker { pipeline: &pipeline, stage, done: &stages, data }.check(index, known)?;
            stages.push(plan);
        }
        Ok(Self { pipeline, stages })
    }

    /// Index of stage and output of the intermediate called `name`.
    pub fn intermediate(&self, name: &str) -> Option<(usize, usize)> {
        let of = |s: &StagePlan| s.outputs.iter().position(|(n, _)| n == name);
        self.stages.iter().enumerate().find_map(|(i, s)| Some((i, of(s)?)))
    }
}

/// Columns that the stage did not learn from whose artifact is applied: they stay what they are, though the operator would
/// have chosen them by their type.
fn untouched(needs: &Columns, given: &[Given], checked: &mut Checked) {
    let (Some(Given::Table(table)), Some((_, columns))) = (given.first(), checked.tables.first_mut()) else { return };
    for (name, data_type) in table.known().iter().filter(|(n, _)| !needs.has(n)) {
        if columns.has(name) {
            columns.set(name, data_type.clone());
        }
    }
}

struct Checker<'a> {
    pipeline: &'a Pipeline,
    stage: &'a Stage,
    done: &'a [StagePlan],
    data: &'a Data,
}

impl Checker<'_> {
    fn check(&self, index: usize, known: KnownOutputs<'_>) -> Result<StagePlan, PipelineError> {
        let stage = self.stage;
        let mut inputs = Vec::new();
        let mut given = Vec::new();
        for (i, reading) in stage.inputs.iter().enumerate() {
            let slot = stage.kind.inputs.get(i).or(stage.kind.inputs.last()).copied().unwrap_or(Slot::Table);
            let (from, columns) = if slot == Slot::Learnt { self.learnt(reading)? } else { self.table(reading)? };
            inputs.push(from);
            given.push(columns);
        }
        let fit = match &stage.fit {
            None => None,
            Some(reading) => Some(self.fit(reading, &given)?),
        };
        let fingerprint = self.fingerprint(&inputs, fit)?;
        let stored = known(&fingerprint);
        let mut checked = match (&stored, stage.operator.file()) {
            (Some(columns), Some(_)) => {
                Checked { tables: columns.iter().map(|c| ("", c.clone())).collect(), ..Checked::default() }
            }
            _ => stage.operator.check(&given, self.data).map_err(|e| self.failed(e))?,
        };
        if let Some(StagePlan { needs: Some(needs), .. }) = fit.and_then(|stage| self.done.get(stage)) {
            untouched(needs, &given, &mut checked);
        }
        if checked.tables.iter().any(|(_, columns)| columns.known().is_empty() && columns.is_closed()) {
            let why = "no column would be left; a table has at least one".to_owned();
            return Err(self.failed(OperatorError::Param { param: "columns", why }));
        }
        let name = |output: &str| {
            if output.is_empty() { stage.name.clone() } else { format!("{}/{output}", stage.name) }
        };
        let mut outputs: Vec<(String, Columns)> = checked.tables.into_iter().map(|(o, c)| (name(o), c)).collect();
        if let Some(columns) = stored.filter(|c| c.len() == outputs.len()) {
            outputs.iter_mut().zip(columns).for_each(|(o, c)| o.1 = c);
        }
        let learns = fit.or(checked.needs.is_some().then_some(index));
        Ok(StagePlan { fingerprint, outputs, learns, inputs, needs: checked.needs, about: checked.about })
    }

    fn failed(&self, source: OperatorError) -> PipelineError {
        let place = source.param().map_or(self.stage.place, |(param, text)| self.stage.place_of(param, text));
        PipelineError::Check {
            at: Spot::new(self.pipeline.file(), place),
            stage: self.stage.name.clone(),
            op: self.stage.kind.name.into(),
            source: Box::new(source),
        }
    }

    fn wrong_input(&self, reading: &Reading, found: String) -> PipelineError {
        PipelineError::Inputs {
            at: Spot::new(self.pipeline.file(), reading.place),
            stage: self.stage.name.clone(),
            op: self.stage.kind.name.into(),
            expected: slots_in_words(self.stage.kind.inputs),
            found,
        }
    }

    fn table(&self, reading: &Reading) -> Result<(ReadFrom, Given), PipelineError> {
        let stage = reading.stage;
        let Some(read) = self.done.get(stage) else {
            return Err(self.wrong_input(reading, "a stage that has not been checked".into()));
        };
        let name = self.pipeline.reference(reading);
        if let Some(output) = read.outputs.iter().position(|(n, _)| *n == name) {
            let columns = read.outputs.get(output).map(|(_, c)| c.clone()).unwrap_or_default();
            return Ok((ReadFrom::Table { stage, output }, Given::Table(columns)));
        }
        if read.outputs.is_empty() {
            return Err(self.wrong_input(reading, format!("{name}, which gives no table")));
        }
        Err(PipelineError::Unknown {
            at: Spot::new(self.pipeline.file(), reading.place),
            what: "output".into(),
            nearest: nearest(&name, read.outputs.iter().map(|(n, _)| n.as_str())),
            known: read.outputs.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", "),
            name,
        })
    }

    fn learnt(&self, reading: &Reading) -> Result<(ReadFrom, Given), PipelineError> {
        let read = self.done.get(reading.stage).zip(self.pipeline.stages().get(reading.stage));
        match read {
            Some((StagePlan { needs: Some(needs), about, .. }, stage)) if reading.output.is_none() => {
                let given = Given::Learnt { operator: stage.kind.name, needs: needs.clone(), about: about.clone() };
                Ok((ReadFrom::Learnt { stage: reading.stage }, given))
            }
            _ => Err(self.wrong_input(reading, self.not_learnt(reading))),
        }
    }

    /// What a reading of no artifact is, in words.
    fn not_learnt(&self, reading: &Reading) -> String {
        let name = self.pipeline.reference(reading);
        let read = self.done.get(reading.stage).zip(self.pipeline.stages().get(reading.stage));
        let (Some((plan, stage)), Some(output)) = (read, &reading.output) else {
            return format!("{name}, which has learnt nothing");
        };
        let outputs: Vec<&str> = plan.outputs.iter().map(|(n, _)| n.as_str()).collect();
        if outputs.contains(&name.as_str()) {
            return format!("{name}, which has learnt nothing");
        }
        let outputs = if outputs.is_empty() { "none".to_owned() } else { outputs.join(", ") };
        let learnt =
            if plan.needs.is_some() { format!("; {} alone is what it has learnt", stage.name) } else { String::new() };
        format!("{name}: {} has no output {output} (its outputs: {outputs}){learnt}", stage.name)
    }

    /// The stage whose artifact is applied: it needs columns that the input has.
    fn fit(&self, reading: &Reading, given: &[Given]) -> Result<usize, PipelineError> {
        let name = self.pipeline.reference(reading);
        let Some(StagePlan { needs: Some(needs), .. }) = self.done.get(reading.stage) else {
            return Err(self.wrong_input(reading, format!("`fit: {name}`, which has learnt nothing itself")));
        };
        if let Some(Given::Table(columns)) = given.first() {
            for (column, expected) in needs.known() {
                let fits = columns.of_type("fit", column, super::columns::type_name(expected), |t| t == expected);
                fits.map_err(|e| self.failed(e))?;
            }
        }
        Ok(reading.stage)
    }

    fn fingerprint(&self, inputs: &[ReadFrom], fit: Option<usize>) -> Result<Fingerprint, PipelineError> {
        let mut bytes = Vec::new();
        let mut text = |t: &str| {
            bytes.extend_from_slice(&(t.len() as u64).to_le_bytes());
            bytes.extend_from_slice(t.as_bytes());
        };
        text("mistique stage 1");
        text(self.stage.kind.name);
        text(&self.stage.kind.version.to_string());
        let mut params = Value::Object(self.stage.params.clone());
        sort_keys(&mut params);
        text(&params.to_string());
        let of = |stage: usize| self.done.get(stage).map_or([0; 16], |s| s.fingerprint);
        for input in inputs {
            match input {
                ReadFrom::Table { stage, output } => {
                    bytes.push(0);
                    bytes.extend_from_slice(&output_fingerprint(&of(*stage), *output));
                }
                ReadFrom::Learnt { stage } => {
                    bytes.push(1);
                    bytes.extend_from_slice(&of(*stage));
                }
            }
        }
        if let Some(stage) = fit {
            bytes.push(2);
            bytes.extend_from_slice(&of(stage));
        }
        if let Some(file) = self.stage.operator.file() {
            bytes.push(3);
            bytes.extend_from_slice(&self.data.fingerprint(file).map_err(|e| self.failed(e.into()))?);
        }
        Ok(fingerprint(&bytes))
    }
}
