//! The dataset trait and the way to one.

use std::fmt;

use arrow::record_batch::RecordBatch;

use crate::{DatasetError, Spec};

/// Rows with a fixed shape, addressed by position, with optional labels and an optional Arrow table.
///
/// A dataset never changes while it is open.
pub trait Dataset: Send + Sync {
    /// Number of rows; row ids run from 0 to one less.
    fn n_rows(&self) -> usize;

    /// Shape of one row as [`read_rows`](Self::read_rows) gives it: `[3, 32, 32]` for a colour image (channel, row,
    /// column), `[k]` for a table with k numeric feature columns.
    fn row_shape(&self) -> &[usize];

    /// Values in one row: the product of [`row_shape`](Self::row_shape).
    fn row_len(&self) -> usize {
        self.row_shape().iter().product()
    }

    /// XXH3-128 of the content: values, shape and labels; for tables names and types too. Paths, compression and file
    /// format play no part. Image generators hash their parameters and a version instead, which determine the content.
    fn fingerprint(&self) -> [u8; 16];

    /// Replaces the content of `out` by the rows asked for.
    ///
    /// Shape: `rows.len() * row_len()` values, row-major, in the order of `rows`, which may repeat and come in any order.
    /// Units: images 0 to 1 (a byte over 255); tables and arrays as stored, null as NaN.
    /// Errors: `RowOutOfRange`, after which `out` holds nothing of use.
    fn read_rows(&self, rows: &[u64], out: &mut Vec<f32>) -> Result<(), DatasetError>;

    /// Label of every row, if the dataset has labels.
    fn labels(&self) -> Option<&[u32]>;

    /// Name of every class: label `i` is called `class_names()[i]`. Where present, every label has a name.
    fn class_names(&self) -> Option<&[String]> {
        None
    }

    /// Name of every value of a row, for tables: column `i` of `read_rows` is called `feature_names()[i]`.
    fn feature_names(&self) -> Option<&[String]> {
        None
    }

    /// Columns of a table that are neither features nor the label, since they are no numbers.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    /// The whole table, for tabular data: also its text columns and the label column.
    fn table(&self) -> Option<&RecordBatch> {
        None
    }
}

/// A column that is no feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub column: String,
    /// What it is instead of numbers, such as `text: line 17 has "n/a"`.
    pub found: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.column, self.found)
    }
}

/// Opens the dataset that `spec` names.
///
/// Errors: `NotFound` for missing files, `BadSpec` for option values out of range, `WrongFormat`, `WrongLength` or
/// `BadRow` for files that are not what the spec says.
pub fn open(spec: &Spec) -> Result<Box<dyn Dataset>, DatasetError> {
    (spec.loader().open)(spec)
}

/// The row id as an index, if it is one of `n_rows` rows.
pub(crate) fn checked_row(row: u64, n_rows: usize) -> Result<usize, DatasetError> {
    match usize::try_from(row) {
        Ok(index) if index < n_rows => Ok(index),
        _ => Err(DatasetError::RowOutOfRange { row, n_rows: n_rows as u64 }),
    }
}
