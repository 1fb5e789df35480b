//! Files of which columns and number of rows are known, and whose values are yet to be read.

use arrow::record_batch::RecordBatch;
use mistique_datasets::{CsvFile, DatasetError};

/// A file that was looked at.
pub(crate) enum Opened {
    /// Its lines were checked, and its values are read when they are needed.
    Csv(CsvFile),
    /// All of it was read.
    Read(RecordBatch),
}

impl Opened {
    /// Its columns, with the rows that are there already: all or none.
    pub(crate) fn held(&self) -> RecordBatch {
        match self {
            Opened::Csv(file) => RecordBatch::new_empty(file.schema()),
            Opened::Read(batch) => batch.clone(),
        }
    }

    /// Number of its rows.
    pub(crate) fn n_rows(&self) -> usize {
        match self {
            Opened::Csv(file) => file.n_rows(),
            Opened::Read(batch) => batch.num_rows(),
        }
    }

    /// Gives its rows in order, so many at a time as they are read: those that are there already at once.
    ///
    /// Errors: those of `each`; `BadRow`.
    pub(crate) fn read<E: From<DatasetError>>(
        &self,
        rows: usize,
        each: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Opened::Csv(file) => file.read(rows, each),
            Opened::Read(batch) => each(batch.clone()),
        }
    }
}
