//! Tables between stages: Arrow columns of six types, and the row_id of every row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, filter, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::array_value_to_string;

use super::columns::type_name;
use super::error::OperatorError;
use crate::suggest::nearest;

/// What a stage yields: columns of type float64, float32, int64, boolean, date (days) or UTF-8, with nulls, and the
/// row_ids to which its rows belong. Cheap to clone: columns are shared.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Arc<Vec<u64>>,
    batch: RecordBatch,
}

/// The type under which pipelines hold a column of type `t`; `None` for one that they do not hold.
pub fn held_type(t: &DataType) -> Option<DataType> {
    match t {
        DataType::Float64 | DataType::Float32 | DataType::Int64 | DataType::Boolean | DataType::Date32 => {
            Some(t.clone())
        }
        DataType::Float16 => Some(DataType::Float32),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some(DataType::Int64),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Some(DataType::Int64),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(DataType::Utf8),
        DataType::Dictionary(_, value) => held_type(value),
        _ => None,
    }
}

/// Says which value of a column the type `held` does not hold.
fn not_held(name: &str, column: &ArrayRef, held: &DataType, error: &ArrowError) -> OperatorError {
    // Such a value becomes null here.
    let converted = cast_with_options(column, held, &CastOptions::default()).ok();
    let at = converted.and_then(|to| (0..to.len()).find(|&i| to.is_null(i) && column.is_valid(i)));
    let held = type_name(held);
    let why = match at.and_then(|at| array_value_to_string(column, at).ok()) {
        Some(value) => {
            format!("column {name} holds {value}, which {held} does not hold; leave it out or write another type")
        }
        None => format!("column {name} cannot become {held}: {error}; leave it out or write another type"),
    };
    OperatorError::Columns { why }
}

impl Table {
    /// A table of `batch`, one row_id a row, its columns under the types that pipelines hold.
    ///
    /// Errors: `Columns` for a repeated name or a value that does not fit in int64, `ColumnType` for a type that is not
    /// held, `RowCount`.
    pub fn new(rows: Arc<Vec<u64>>, batch: RecordBatch) -> Result<Self, OperatorError> {
        if rows.len() != batch.num_rows() {
            return Err(OperatorError::RowCount { expected: rows.len(), found: batch.num_rows() });
        }
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let held = held_type(field.data_type()).ok_or_else(|| OperatorError::ColumnType {
                param: "",
                column: field.name().clone(),
                expected: "float64, float32, int64, boolean, text or date; leave it out or convert it".into(),
                found: field.data_type().to_string(),
            })?;
            let column = if held == *column.data_type() {
                Arc::clone(column)
            } else {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(column, &held, &options).map_err(|e| not_held(field.name(), column, &held, &e))?
            };
            Ok((field.name().clone(), column))
        });
        Self::of(rows, columns.collect::<Result<_, OperatorError>>()?)
    }

    /// A table of columns that have the types that pipelines hold.
    ///
    /// Errors: `Columns` for a repeated name, `Arrow` for columns of other lengths than `rows`.
    pub fn of(rows: Arc<Vec<u64>>, columns: Vec<(String, ArrayRef)>) -> Result<Self, OperatorError> {
        let mut names: Vec<&str> = columns.iter().map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w.first() == w.last()).and_then(|w| w.first()) {
            return Err(OperatorError::Columns { why: format!("two columns would be called {twice:?}; rename one") });
        }
        let fields: Vec<Field> = columns.iter().map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let arrays = columns.into_iter().map(|(_, c)| c).collect();
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
        Ok(Self { rows, batch })
    }

    /// Row_id of each row.
    pub fn rows(&self) -> &Arc<Vec<u64>> {
        &self.rows
    }

    /// The columns.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.batch.schema()
    }

    /// Names of the columns, in order.
    pub fn names(&self) -> Vec<String> {
        self.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Names and columns, in order.
    pub fn columns(&self) -> Vec<(String, ArrayRef)> {
        self.names().into_iter().zip(self.batch.columns().iter().cloned()).collect()
    }

    /// The column `name`, which the parameter `param` asked for.
    ///
    /// Errors: `NoColumn`.
    pub fn column(&self, param: &'static str, name: &str) -> Result<&ArrayRef, OperatorError> {
        self.batch.column_by_name(name).ok_or_else(|| {
            let names = self.names();
            OperatorError::NoColumn {
                param,
                column: name.into(),
                nearest: nearest(name, names.iter().map(String::as_str)),
                known: names.join(", "),
            }
        })
    }

    /// The column `name` as float64: booleans are 0 and 1, dates days since 1970; nulls stay nulls.
    ///
    /// Errors: `NoColumn`; `ColumnType` for text.
    pub fn numbers(&self, param: &'static str, name: &str) -> Result<Float64Array, OperatorError> {
        numbers(param, name, self.column(param, name)?)
    }

    /// The same table with `columns` in place of those of their names, new ones behind the others.
    ///
    /// Errors: `Arrow` for a column of another length.
    pub fn with_columns(&self, columns: Vec<(String, ArrayRef)>) -> Result<Self, OperatorError> {
        let mut all = self.columns();
        for (name, column) in columns {
            match all.iter_mut().find(|(n, _)| *n == name) {
                Some(slot) => slot.1 = column,
                None => all.push((name, column)),
            }
        }
        Self::of(Arc::clone(&self.rows), all)
    }

    /// The columns of these names, in this order.
    ///
    /// Errors: `NoColumn`.
    pub fn select(&self, param: &'static str, names: &[String]) -> Result<Self, OperatorError> {
        let columns = names.iter().map(|n| Ok((n.clone(), Arc::clone(self.column(param, n)?))));
        Self::of(Arc::clone(&self.rows), columns.collect::<Result<_, OperatorError>>()?)
    }

    /// The rows for which `keep` is true (null is not), with their row_ids.
    ///
    /// Errors: `Arrow` for a mask of another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, OperatorError> {
        let ids = arrow::array::UInt64Array::from(self.rows.to_vec());
        let ids = filter(&ids, keep)?;
        let rows = ids.as_primitive::<arrow::datatypes::UInt64Type>().values().to_vec();
        Ok(Self { rows: Arc::new(rows), batch: filter_record_batch(&self.batch, keep)? })
    }

    /// The rows at these positions, with their row_ids.
    ///
    /// Errors: `Arrow` for a position that there is not.
    pub fn take(&self, positions: &UInt32Array) -> Result<Self, OperatorError> {
        let rows = positions.values().iter().map(|&p| self.rows.get(p as usize).copied()).collect::<Option<Vec<_>>>();
        let rows = rows.ok_or(OperatorError::RowCount { expected: self.n_rows(), found: positions.len() })?;
        let columns = self.columns().into_iter().map(|(n, c)| Ok((n, take(&c, positions, None)?)));
        Self::of(Arc::new(rows), columns.collect::<Result<_, OperatorError>>()?)
    }

    /// Bytes that the table holds in memory.
    pub fn memory_bytes(&self) -> usize {
        self.batch.get_array_memory_size() + self.rows.len() * 8
    }
}

/// The value that all finite ones of a column equal, if there is one: its mean, which a sum need not give exactly.
pub(crate) fn constant(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut finite = values.filter(|v| v.is_finite());
    let first = finite.next()?;
    finite.all(|v| v == first).then_some(first)
}

/// A column as float64: booleans are 0 and 1, dates days since 1970; nulls stay nulls.
///
/// Errors: `ColumnType` for text.
pub(crate) fn numbers(param: &'static str, name: &str, column: &ArrayRef) -> Result<Float64Array, OperatorError> {
    let cast =
        |c: &ArrayRef, t: &DataType| cast_with_options(c, t, &CastOptions { safe: false, ..CastOptions::default() });
    let column = match column.data_type() {
        DataType::Utf8 => {
            return Err(OperatorError::ColumnType {
                param,
                column: name.into(),
                expected: "a number, boolean or date".into(),
                found: "text".into(),
            });
        }
        DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Float64)?,
        _ => cast(column, &DataType::Float64)?,
    };
    Ok(column.as_primitive::<Float64Type>().clone())
}
