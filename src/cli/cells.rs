//! Values of answers, as the terminal, CSV and JSON have them.

use arrow::array::{Array, ArrayRef, AsArray, make_array};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use super::Result;
use super::output::{float, number};
use crate::{Answer, Data, EngineError};

/// The column with instants in UTC, which need no table of time zones.
fn displayable(column: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, Some(_)) = column.data_type() else { return Ok(column.clone()) };
    let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
    Ok(make_array(column.to_data().into_builder().data_type(utc).build().map_err(EngineError::from)?))
}

/// Texts of a table's columns, row by row; `None` for nulls.
fn texts(columns: &[ArrayRef], n_rows: usize) -> Result<Vec<Vec<Option<String>>>> {
    let columns = columns.iter().map(displayable).collect::<Result<Vec<_>>>()?;
    let options = FormatOptions::default();
    let formatters = columns
        .iter()
        .map(|c| ArrayFormatter::try_new(c.as_ref(), &options))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(EngineError::from)?;
    let text = |(column, format): (&ArrayRef, &ArrayFormatter<'_>), row: usize| {
        (!column.is_null(row)).then(|| format.value(row).to_string())
    };
    Ok((0..n_rows).map(|r| columns.iter().zip(&formatters).map(|c| text(c, r)).collect()).collect())
}

/// The first rows and columns, as a terminal shows them.
pub fn cells(answer: &Answer, n_rows: usize, n_columns: usize) -> Result<Vec<Vec<String>>> {
    let width = answer.columns.len();
    let floats = |v: &dyn Fn(usize) -> f64| {
        (0..n_rows).map(|r| (0..n_columns).map(|c| float(v(r * width + c))).collect()).collect()
    };
    match &answer.data {
        Data::F32(v) => Ok(floats(&|i| v.get(i).copied().map_or(f64::NAN, f64::from))),
        Data::F64(v) => Ok(floats(&|i| v.get(i).copied().unwrap_or(f64::NAN))),
        Data::Table(batch) => {
            let shown = &batch.columns()[..n_columns.min(batch.num_columns())];
            let cell = |text: Option<String>| text.unwrap_or_else(|| "null".into());
            Ok(texts(shown, n_rows)?.into_iter().map(|row| row.into_iter().map(cell).collect()).collect())
        }
    }
}

/// Every value with every digit, quoted where CSV needs it; a null is empty, an empty text `""`.
pub fn csv_cells(answer: &Answer) -> Result<Vec<Vec<String>>> {
    let width = answer.columns.len().max(1);
    match &answer.data {
        Data::F32(v) => Ok(v.chunks(width).map(|r| r.iter().map(ToString::to_string).collect()).collect()),
        Data::F64(v) => Ok(v.chunks(width).map(|r| r.iter().map(ToString::to_string).collect()).collect()),
        Data::Table(batch) => {
            let rows = texts(batch.columns(), answer.rows.len())?;
            let cell = |text: Option<String>| match text {
                None => String::new(),
                Some(text) if text.is_empty() => "\"\"".to_string(),
                Some(text) => csv_quoted(&text),
            };
            Ok(rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect())
        }
    }
}

/// A text as CSV has it.
pub fn csv_quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

/// All values, row-major: numbers, booleans, texts and nulls as what they are.
pub fn json_values(answer: &Answer) -> Result<Vec<Value>> {
    match &answer.data {
        Data::F32(v) => Ok(v.iter().map(|v| number(f64::from(*v))).collect()),
        Data::F64(v) => Ok(v.iter().map(|v| number(*v)).collect()),
        Data::Table(batch) => {
            let columns = batch.columns().iter().map(json_column).collect::<Result<Vec<_>>>()?;
            let at = |r: usize| columns.iter().filter_map(move |c| c.get(r).cloned());
            Ok((0..answer.rows.len()).flat_map(at).collect())
        }
    }
}

fn json_column(column: &ArrayRef) -> Result<Vec<Value>> {
    let floats = |v: Option<f64>| v.map_or(Value::Null, number);
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().iter().map(Value::from).collect(),
        DataType::Float16 => {
            column.as_primitive::<Float16Type>().iter().map(|v| floats(v.map(|v| v.to_f64()))).collect()
        }
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().map(|v| floats(v.map(f64::from))).collect(),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().map(floats).collect(),
        kind => {
            let is_integer = kind.is_integer();
            let value = |row: Vec<Option<String>>| match row.into_iter().next().flatten() {
                None => Value::Null,
                Some(text) => {
                    let integer = is_integer.then(|| serde_json::from_str(&text).ok()).flatten();
                    integer.unwrap_or(Value::String(text))
                }
            };
            texts(std::slice::from_ref(column), column.len())?.into_iter().map(value).collect()
        }
    })
}
