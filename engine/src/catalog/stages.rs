//! The run record of pipelines: one row a stage, written once.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Catalog;
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

const COLUMNS: &str =
    "position, name, operator, description, inputs, fingerprint, artifact, seconds, n_rows, metrics FROM stages";

fn record(r: &Row<'_>) -> rusqlite::Result<(StageRecord, Vec<u8>, Option<Vec<u8>>)> {
    let record = StageRecord {
        position: r.get(0)?,
        name: r.get(1)?,
        operator: r.get(2)?,
        description: r.get(3)?,
        inputs: r.get(4)?,
        fingerprint: [0; 16],
        artifact: None,
        seconds: r.get(7)?,
        n_rows: r.get(8)?,
        metrics: r.get(9)?,
    };
    Ok((record, r.get(5)?, r.get(6)?))
}

fn with_hashes((mut record, fingerprint, artifact): (StageRecord, Vec<u8>, Option<Vec<u8>>)) -> Result<StageRecord> {
    let hash = |bytes: Vec<u8>| {
        bytes.try_into().map_err(|_| EngineError::corrupt("catalog.db", 0, "stages: a hash of another length"))
    };
    record.fingerprint = hash(fingerprint)?;
    record.artifact = artifact.map(hash).transpose()?;
    Ok(record)
}

impl Catalog {
    /// The stages of a model, in the order in which they ran; none for a model that is no pipeline.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn stages(&self, model_id: i64) -> Result<Vec<StageRecord>> {
        const DOING: &str = "list the stages of a model";
        let sql = format!("SELECT {COLUMNS} WHERE model_id = ?1 ORDER BY position");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let rows = statement.query_map([model_id], record).doing(DOING)?;
        rows.map(|r| with_hashes(r.doing(DOING)?)).collect()
    }

    /// A stage of that fingerprint, of any model.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn stage(&self, fingerprint: &Fingerprint) -> Result<Option<StageRecord>> {
        const DOING: &str = "find a stage";
        let sql = format!("SELECT {COLUMNS} WHERE fingerprint = ?1 ORDER BY model_id LIMIT 1");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let found = statement.query_row([&fingerprint[..]], record).optional().doing(DOING)?;
        found.map(with_hashes).transpose()
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
            r.description,
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
