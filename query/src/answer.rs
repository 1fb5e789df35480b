//! Answers: values with their row_ids, as f32 or as Arrow.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Float64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use mistique_engine::{EngineError, IntermediateKey};

use crate::error::{QueryError, Result};
use crate::plan::Explanation;

/// Values of an answer, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// float32: rows × columns.
    F32(Vec<f32>),
    /// float64, where the store holds that: rows × columns.
    F64(Vec<f64>),
    /// Named, typed columns.
    Table(RecordBatch),
}

/// Where an answer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// READ under the scheme.
    Read {
        /// What had been done to the values.
        scheme: String,
        /// Whether they are exactly what was logged.
        exact: bool,
    },
    /// RERUN, from the input or from what was read of the stages before.
    Rerun {
        /// Whether the values are those of full precision; a pooled intermediate is pooled.
        exact: bool,
        /// What it ran from, such as `f32 of conv2`; `None` for the input.
        read: Option<String>,
    },
    /// READ for the rows that are stored, RERUN for the others.
    Split {
        /// Rows read.
        read: usize,
        /// What had been done to the values of these.
        scheme: String,
        /// Rows run.
        rerun: usize,
        /// Where these came from.
        from: Box<Source>,
        /// Whether the rows read are exactly what was logged.
        exact: bool,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read { scheme, exact: true } => write!(f, "read {scheme} exact"),
            Self::Read { scheme, exact: false } => write!(f, "read {scheme}"),
            Self::Rerun { exact: true, read: None } => write!(f, "rerun exact"),
            Self::Rerun { exact: false, read: None } => write!(f, "rerun pooled"),
            Self::Rerun { exact: true, read: Some(read) } => write!(f, "rerun from read {read}"),
            Self::Rerun { exact: false, read: Some(read) } => write!(f, "rerun pooled from read {read}"),
            Self::Split { read, scheme, rerun, from, exact } => {
                let exact = if *exact { " exact" } else { "" };
                write!(f, "read {read} rows of {scheme}{exact}, rerun {rerun}")?;
                match &**from {
                    Self::Rerun { read: Some(read), .. } => write!(f, " from read {read}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// What a request got.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The intermediate, with its model's version.
    pub key: IntermediateKey,
    /// Row_ids, in the order asked for.
    pub rows: Vec<u64>,
    /// Names of the columns, as selectors.
    pub columns: Vec<String>,
    /// Shape of a row of the values.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Data,
    /// Where they came from.
    pub source: Source,
    /// The plans considered, the choice, and the time it took.
    pub explanation: Explanation,
}

impl Answer {
    /// The values as f32, rows × columns: float64 rounded, table columns that are numbers converted, nulls as NaN.
    ///
    /// Errors: `Unsupported` for text columns.
    pub fn into_f32(self) -> Result<Vec<f32>> {
        match self.data {
            Data::F32(values) => Ok(values),
            Data::F64(values) => Ok(values.into_iter().map(|v| v as f32).collect()),
            Data::Table(batch) => Ok(table_f64(&batch)?.into_iter().map(|v| v as f32).collect()),
        }
    }

    /// The values as f64, rows × columns.
    ///
    /// Errors: `Unsupported` for text columns.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        match &self.data {
            Data::F32(values) => Ok(values.iter().copied().map(f64::from).collect()),
            Data::F64(values) => Ok(values.clone()),
            Data::Table(batch) => table_f64(batch),
        }
    }

    /// The answer as Arrow: column `row_id`, then the table's columns, or one column of
    /// `arrow.fixed_shape_tensor`s named after the intermediate.
    ///
    /// Errors: `Arrow` when the values do not fit Arrow's sizes.
    pub fn to_arrow(&self) -> Result<RecordBatch> {
        let mut fields = vec![Arc::new(Field::new("row_id", DataType::UInt64, false))];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(self.rows.clone()))];
        let (values, item): (ArrayRef, DataType) = match &self.data {
            Data::Table(batch) => {
                fields.extend(batch.schema().fields().iter().cloned());
                columns.extend(batch.columns().iter().cloned());
                return Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
            }
            Data::F32(values) => (Arc::new(Float32Array::from(values.clone())), DataType::Float32),
            Data::F64(values) => (Arc::new(Float64Array::from(values.clone())), DataType::Float64),
        };
        let width: usize = self.shape.iter().product();
        let (list, extension) = if self.shape.is_empty() {
            (values, HashMap::new())
        } else {
            let size = i32::try_from(width).map_err(|_| too_wide(&self.key, width))?;
            let field = Arc::new(Field::new_list_field(item, true));
            let list = FixedSizeListArray::try_new(field, size, values, None)?;
            let shape = format!("{{\"shape\":{:?}}}", self.shape);
            let extension = HashMap::from([
                ("ARROW:extension:name".to_string(), "arrow.fixed_shape_tensor".to_string()),
                ("ARROW:extension:metadata".to_string(), shape),
            ]);
            (Arc::new(list) as ArrayRef, extension)
        };
        let field = Field::new(&self.key.intermediate, list.data_type().clone(), false).with_metadata(extension);
        fields.push(Arc::new(field));
        columns.push(list);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

fn too_wide(key: &IntermediateKey, width: usize) -> QueryError {
    QueryError::Engine(EngineError::Unsupported {
        what: key.to_string(),
        why: format!("rows of {width} values do not fit an Arrow list; name fewer columns"),
    })
}

pub(crate) fn table_f64(batch: &RecordBatch) -> Result<Vec<f64>> {
    let schema = batch.schema();
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(c, f)| Ok(mistique_engine::column_to_f64(c, f.name())?))
        .collect::<Result<Vec<_>>>()?;
    Ok((0..batch.num_rows()).flat_map(|r| columns.iter().filter_map(move |c| c.get(r).copied())).collect())
}
