//! Tables: Arrow data with a numeric view.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::dataset::checked_row;
use crate::fingerprint::Fingerprint;
use crate::table_hash::hash_column;
use crate::{Dataset, DatasetError, LeftOut};

/// An Arrow table; its numeric columns but the label are the features.
pub(crate) struct Table {
    batch: RecordBatch,
    /// The numeric columns as `f32`, row-major.
    features: Vec<f32>,
    feature_names: Vec<String>,
    left_out: Vec<LeftOut>,
    shape: [usize; 1],
    labels: Option<Vec<u32>>,
    class_names: Option<Vec<String>>,
    fingerprint: [u8; 16],
}

impl Table {
    /// A dataset of `batch`, with labels from column `label`. `origin` names the file or generator in errors.
    pub(crate) fn new(origin: &str, batch: RecordBatch, label: Option<&str>) -> Result<Table, DatasetError> {
        let schema = batch.schema();
        for (i, field) in schema.fields().iter().enumerate() {
            if schema.fields()[..i].iter().any(|other| other.name() == field.name()) {
                return Err(DatasetError::Unsupported {
                    origin: origin.to_owned(),
                    what: format!("two columns called '{}'", field.name()),
                    hint: "rename one of them",
                });
            }
        }
        let (labels, class_names) = match label {
            None => (None, None),
            Some(name) => {
                let column = batch.column_by_name(name).ok_or_else(|| DatasetError::NoSuchColumn {
                    origin: origin.to_owned(),
                    column: name.to_owned(),
                    present: schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", "),
                })?;
                let (labels, names) = labels_of(origin, column)?;
                (Some(labels), names)
            }
        };
        let mut fingerprint = Fingerprint::new("table");
        fingerprint.shape(batch.num_rows(), &[batch.num_columns()]);
        let (mut feature_names, mut columns, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            fingerprint.text(field.name());
            hash_column(&mut fingerprint, origin, field.name(), column)?;
            if Some(field.name().as_str()) == label {
                continue;
            }
            if !field.data_type().is_numeric() {
                left_out.push(LeftOut { column: field.name().clone(), found: in_words(field.data_type()) });
                continue;
            }
            feature_names.push(field.name().clone());
            columns.push(cast(column, &DataType::Float32).map_err(arrow_error(origin))?);
        }
        fingerprint.labels(labels.as_deref());
        let width = columns.len();
        let mut features = vec![f32::NAN; batch.num_rows() * width];
        for (at, column) in columns.iter().enumerate() {
            let values = column.as_primitive::<Float32Type>();
            for (row, value) in values.iter().enumerate() {
                features[row * width + at] = value.unwrap_or(f32::NAN);
            }
        }
        let (shape, fingerprint) = ([width], fingerprint.finish());
        Ok(Table { batch, features, feature_names, left_out, shape, labels, class_names, fingerprint })
    }

    /// The same, saying why columns are left out where `why` knows it.
    #[must_use]
    pub(crate) fn explained(mut self, why: impl Fn(&str) -> Option<String>) -> Table {
        for column in &mut self.left_out {
            if let Some(why) = why(&column.column) {
                column.found = format!("{}: {why}", column.found);
            }
        }
        self
    }
}

/// A type that is no number's.
fn in_words(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Date32 | DataType::Date64 => "dates".to_owned(),
        other => other.to_string(),
    }
}

/// Labels from a column: whole numbers as they are; texts and booleans numbered in sorted order, with names.
fn labels_of(origin: &str, column: &ArrayRef) -> Result<(Vec<u32>, Option<Vec<String>>), DatasetError> {
    let bad = |row: usize, found: String, expected: &str| DatasetError::BadLabel {
        origin: origin.to_owned(),
        row: row as u64,
        found,
        expected: expected.to_owned(),
    };
    if let Some(row) = (0..column.len()).find(|&row| column.is_null(row)) {
        return Err(bad(row, "missing".to_owned(), "a value in every row"));
    }
    if column.data_type().is_numeric() {
        let values = cast(column, &DataType::Float64).map_err(arrow_error(origin))?;
        let values = values.as_primitive::<Float64Type>().values().iter().enumerate();
        let convert = |(row, &value): (usize, &f64)| {
            let whole = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
            if whole {
                Ok(value as u32)
            } else {
                Err(bad(row, value.to_string(), "a whole number from 0 to 4294967295, or a text"))
            }
        };
        return Ok((values.map(convert).collect::<Result<_, _>>()?, None));
    }
    let text = cast(column, &DataType::LargeUtf8).map_err(arrow_error(origin))?;
    let text = text.as_string::<i64>();
    let mut names: Vec<&str> = text.iter().flatten().collect();
    names.sort_unstable();
    names.dedup();
    let labels = text.iter().flatten().map(|value| names.partition_point(|name| *name < value) as u32).collect();
    Ok((labels, Some(names.into_iter().map(str::to_owned).collect())))
}

/// One batch of many; `batches` share `schema`.
pub(crate) fn concat(
    origin: &str,
    schema: &arrow::datatypes::SchemaRef,
    batches: &[RecordBatch],
) -> Result<RecordBatch, DatasetError> {
    concat_batches(schema, batches).map_err(arrow_error(origin))
}

/// Turns an Arrow error into one that names the file or generator.
pub(crate) fn arrow_error(origin: &str) -> impl FnOnce(ArrowError) -> DatasetError {
    move |source| DatasetError::Arrow { origin: origin.to_owned(), source }
}

impl Dataset for Table {
    fn n_rows(&self) -> usize {
        self.batch.num_rows()
    }

    fn row_shape(&self) -> &[usize] {
        &self.shape
    }

    fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    fn read_rows(&self, rows: &[u64], out: &mut Vec<f32>) -> Result<(), DatasetError> {
        let [len] = self.shape;
        out.clear();
        out.reserve(rows.len() * len);
        for &row in rows {
            let start = checked_row(row, self.n_rows())? * len;
            out.extend_from_slice(&self.features[start..start + len]);
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    fn feature_names(&self) -> Option<&[String]> {
        Some(&self.feature_names)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn table(&self) -> Option<&RecordBatch> {
        Some(&self.batch)
    }
}
