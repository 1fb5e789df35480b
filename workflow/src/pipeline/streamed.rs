//! Rows of a stage that are logged while the stage runs.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use mistique_engine::format::TABLE_BLOCK_ROWS;
use mistique_engine::{Fingerprint, Handle, Logger, ModelHandle};

use super::error::OperatorError;
use super::operator::Parts;
use super::table::Table;

/// Gives a stage's rows to the log, a RowBlock at a time.
pub(crate) struct Streamed<'a> {
    log: &'a mut Logger,
    model: ModelHandle,
    name: &'a str,
    position: i64,
    stage: Fingerprint,
    /// Once the first rows have come.
    handle: Option<Handle>,
    rows: Vec<u64>,
    parts: Vec<RecordBatch>,
    whole: bool,
}

impl<'a> Streamed<'a> {
    /// For the intermediate of that name and place that the stage gives.
    pub(crate) fn new(
        log: &'a mut Logger,
        model: ModelHandle,
        name: &'a str,
        position: i64,
        stage: Fingerprint,
    ) -> Self {
        Self { log, model, name, position, stage, handle: None, rows: Vec::new(), parts: Vec::new(), whole: false }
    }

    /// Whether all rows of the stage were given.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

impl Parts for Streamed<'_> {
    fn n_rows(&self) -> usize {
        TABLE_BLOCK_ROWS
    }

    fn take(&mut self, part: Table) -> Result<(), OperatorError> {
        let handle = match self.handle {
            Some(handle) => handle,
            None => *self.handle.insert(self.log.table(self.model, self.name, self.position, &part.schema())?),
        };
        self.log.append_table(handle, part.rows(), part.batch())?;
        self.rows.extend_from_slice(part.rows());
        self.parts.push(part.batch().clone());
        Ok(())
    }

    fn whole(&mut self) -> Result<Table, OperatorError> {
        let handle = self.handle.ok_or_else(|| OperatorError::Empty { what: "what was read".into() })?;
        self.log.set_stage(handle, &self.stage)?;
        self.whole = true;
        let batch = self.log.join(std::mem::take(&mut self.parts))?;
        Table::new(Arc::new(std::mem::take(&mut self.rows)), batch)
    }
}
