//! The unfinished RowBlock of a table intermediate.

use arrow::array::ArrayRef;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::error::{EngineError, Result};
use crate::key::IntermediateKey;
use crate::model::TableContent;

/// Builds the RowBlocks of one table intermediate.
pub struct TableBuilder {
    content: TableContent,
    rows: Vec<u64>,
    parts: Vec<RecordBatch>,
    has_sealed: bool,
    rows_only: bool,
}

/// A full or flushed RowBlock of a table.
pub struct SealedTable {
    /// Row_ids in stored order.
    pub rows: Vec<u64>,
    /// One a column; none where only rows are kept.
    pub columns: Vec<ArrayRef>,
}

impl TableBuilder {
    /// A builder for new rows.
    pub fn new(content: TableContent) -> Self {
        Self { content, rows: Vec::new(), parts: Vec::new(), has_sealed: false, rows_only: false }
    }

    /// Names of the columns.
    pub fn names(&self) -> Vec<String> {
        self.content.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Bytes of a row as logged.
    pub fn logical_row_bytes(&self) -> u64 {
        self.content.logical_row_bytes()
    }

    /// Bytes that the unfinished RowBlock holds.
    pub fn held_bytes(&self) -> usize {
        self.parts.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Adds a batch; full RowBlocks go to `sealed`.
    ///
    /// Errors: `Unsupported`, `Arrow`.
    pub fn append(
        &mut self,
        rows: &[u64],
        batch: &RecordBatch,
        sealed: &mut dyn FnMut(SealedTable) -> Result<()>,
    ) -> Result<()> {
        if self.rows_only {
            return self.append_rows(rows, sealed);
        }
        let mut done = 0;
        while done < rows.len() {
            let take = (self.content.block_rows - self.rows.len()).min(rows.len() - done);
            self.rows.extend_from_slice(&rows[done..done + take]);
            self.parts.push(batch.slice(done, take));
            done += take;
            if self.rows.len() == self.content.block_rows {
                self.flush(sealed)?;
            }
        }
        Ok(())
    }

    /// Adds rows without values: their RowBlocks lack all groups.
    ///
    /// Errors: those of `sealed`.
    pub fn append_rows(&mut self, rows: &[u64], sealed: &mut dyn FnMut(SealedTable) -> Result<()>) -> Result<()> {
        self.keep_rows_only();
        let mut rest = rows;
        while !rest.is_empty() {
            let (now, later) = rest.split_at((self.content.block_rows - self.rows.len()).min(rest.len()));
            self.rows.extend_from_slice(now);
            rest = later;
            if self.rows.len() == self.content.block_rows {
                self.flush(sealed)?;
            }
        }
        Ok(())
    }

    /// From now on only rows are kept.
    pub fn keep_rows_only(&mut self) {
        self.rows_only = true;
        self.parts.clear();
    }

    /// Whether a RowBlock was sealed.
    pub fn has_sealed(&self) -> bool {
        self.has_sealed
    }

    /// Columns of the table.
    pub fn n_columns(&self) -> usize {
        self.content.schema.fields().len()
    }

    /// Seals what there is.
    ///
    /// Errors: as [`TableBuilder::append`].
    pub fn flush(&mut self, sealed: &mut dyn FnMut(SealedTable) -> Result<()>) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.has_sealed = true;
        let parts = std::mem::take(&mut self.parts);
        if self.rows_only {
            return sealed(SealedTable { rows: std::mem::take(&mut self.rows), columns: Vec::new() });
        }
        // A single part stays where it lies.
        let columns = concat_batches(&self.content.schema, &parts)?.columns().to_vec();
        sealed(SealedTable { rows: std::mem::take(&mut self.rows), columns })
    }
}

/// The batch under the table's schema: text and dictionaries become UTF-8; other types must agree.
///
/// Errors: `Shape` naming the column that differs.
pub fn conform(key: &IntermediateKey, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let names =
        |s: &arrow::datatypes::Schema| s.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    if batch.num_columns() != schema.fields().len() {
        return Err(EngineError::Shape {
            key: key.to_string(),
            what: "columns",
            expected: names(schema),
            got: names(&batch.schema()),
        });
    }
    let given = batch.schema();
    let pairs = schema.fields().iter().zip(given.fields()).zip(batch.columns());
    let columns = pairs
        .map(|((want, got), column)| {
            // Text is UTF-8 here, and a dictionary its values.
            let unpacked = match got.data_type() {
                DataType::Dictionary(_, value) => value,
                kind => kind,
            };
            let text = want.data_type() == &DataType::Utf8;
            if want.name() != got.name() || (!text && want.data_type() != unpacked) {
                return Err(EngineError::Shape {
                    key: key.to_string(),
                    what: "column",
                    expected: format!("{} of type {}", want.name(), want.data_type()),
                    got: format!("{} of type {}", got.name(), got.data_type()),
                });
            }
            let as_is = want.data_type() == got.data_type();
            Ok(if as_is { std::sync::Arc::clone(column) } else { cast(column, want.data_type())? })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(std::sync::Arc::clone(schema), columns)?)
}
