//! The run record of pipelines: one row a stage, written once.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Catalog;
use super::packed::{pack, unpack};
use crate::error::{CatalogContext, EngineError, Result};
use crate::model::Fingerprint;

/// A stage of a pipeline, as it ran.
#[derive(Debug, Clone, PartialEq)]
pub struct StageRecord {
    /// Place among the stages of its model, in an order in which they can run.
    pub position: i64,
    /// Name.
    pub name: String,
    /// Operator.
    pub operator: String,
    /// JSON object: parameters and whatever else its workflow wants to know of it.
    pub description: String,
    /// JSON list of what it reads.
    pub inputs: String,
    /// Hash of operator, parameters, inputs and data: two stages of one fingerprint give the same values.
    pub fingerprint: Fingerprint,
    /// Hash of the operator that it learnt.
    pub artifact: Option<Fingerprint>,
    /// Seconds that it took when it ran.
    pub seconds: f64,
    /// Rows that it gave, in all its tables.
    pub n_rows: u64,
    /// JSON object of named figures.
    pub metrics: String,
}

/// A stage to add to a model's record.
#[derive(Debug, Clone)]
pub struct NewStage {
    /// Number of the model.
    pub model_id: i64,
    /// The stage.
    pub record: StageRecord,
}

pub(super) const COLUMNS: &str =
    "s.position, s.name, s.operator, s.description, s.inputs, s.fingerprint, s.artifact, s.seconds,
    s.n_rows, s.metrics, m.description, m.packed FROM stages s JOIN models m ON m.id = s.model_id";

/// A row of [`COLUMNS`].
pub(super) struct RawStage {
    /// Without description and hashes.
    record: StageRecord,
    description: Value,
    fingerprint: Vec<u8>,
    artifact: Option<Vec<u8>>,
    /// What its model says.
    model: (String, Option<Vec<u8>>),
}

impl RawStage {
    pub fn of(r: &Row<'_>) -> rusqlite::Result<Self> {
        let record = StageRecord {
            position: r.get(0)?,
            name: r.get(1)?,
            operator: r.get(2)?,
            description: String::new(),
            inputs: r.get(4)?,
            fingerprint: [0; 16],
            artifact: None,
            seconds: r.get(7)?,
            n_rows: r.get(8)?,
            metrics: r.get(9)?,
        };
        let (description, fingerprint, artifact) = (r.get(3)?, r.get(5)?, r.get(6)?);
        Ok(Self { record, description, fingerprint, artifact, model: (r.get(10)?, r.get(11)?) })
    }

    pub fn record(self) -> Result<StageRecord> {
        let bad = |what: &str| EngineError::corrupt("catalog.db", 0, format!("stages: {what}"));
        let hash = |bytes: Vec<u8>| bytes.try_into().map_err(|_| bad("a hash of another length"));
        let description = match self.description {
            Value::Text(text) => text,
            Value::Blob(packed) => unpack(&packed, &described(self.model)?)?,
            _ => return Err(bad("a description that is none")),
        };
        let (fingerprint, artifact) = (hash(self.fingerprint)?, self.artifact.map(hash).transpose()?);
        Ok(StageRecord { description, fingerprint, artifact, ..self.record })
    }
}

/// A model's description.
fn described((text, packed): (String, Option<Vec<u8>>)) -> Result<String> {
    packed.map_or(Ok(text), |packed| unpack(&packed, ""))
}

impl Catalog {
    /// The stages of a model, in the order in which they ran; none for a model that is no pipeline.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn stages(&self, model_id: i64) -> Result<Vec<StageRecord>> {
        const DOING: &str = "list the stages of a model";
        let sql = format!("SELECT {COLUMNS} WHERE s.model_id = ?1 ORDER BY s.position");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let rows = statement.query_map([model_id], RawStage::of).doing(DOING)?;
        rows.map(|r| r.doing(DOING)?.record()).collect()
    }

    /// A stage of that fingerprint, of any model.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn stage(&self, fingerprint: &Fingerprint) -> Result<Option<StageRecord>> {
        const DOING: &str = "find a stage";
        let sql = format!("SELECT {COLUMNS} WHERE s.fingerprint = ?1 ORDER BY s.model_id LIMIT 1");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let found = statement.query_row([&fingerprint[..]], RawStage::of).optional().doing(DOING)?;
        found.map(RawStage::record).transpose()
    }

    /// Operators that stages have learnt.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn artifacts(&self) -> Result<Vec<Fingerprint>> {
        const DOING: &str = "list the operators of stages";
        let mut statement =
            self.conn.prepare_cached("SELECT DISTINCT artifact FROM stages WHERE artifact IS NOT NULL").doing(DOING)?;
        let rows = statement.query_map([], |r| r.get::<_, Vec<u8>>(0)).doing(DOING)?;
        let bad = |_| EngineError::corrupt("catalog.db", 0, "stages: a hash of another length");
        rows.map(|r| r.doing(DOING)?.try_into().map_err(bad)).collect()
    }
}

/// Adds a stage; one that is there stays as it was recorded first.
pub(super) fn insert_stage(tx: &Transaction<'_>, new: &NewStage) -> Result<()> {
    const DOING: &str = "record a stage";
    let r = &new.record;
    let mut statement = tx.prepare_cached("SELECT description, packed FROM models WHERE id = ?1").doing(DOING)?;
    let model = statement.query_row([new.model_id], |r| Ok((r.get(0)?, r.get(1)?))).doing(DOING)?;
    let packed = pack(&r.description, &described(model)?)?;
    let description = packed.map_or_else(|| Value::Text(r.description.clone()), Value::Blob);
    let mut statement = tx
        .prepare_cached(
            "INSERT INTO stages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
        )
        .doing(DOING)?;
    statement
        .execute(params![
            new.model_id,
            r.position,
            r.name,
            r.operator,
            description,
            r.inputs,
            &r.fingerprint[..],
            r.artifact.as_ref().map(|a| &a[..]),
            r.seconds,
            r.n_rows,
            r.metrics
        ])
        .doing(DOING)?;
    Ok(())
}
