//! Row_ids that come with values: of a file of their own, a column, or a tensor.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use mistique_datasets::{NpyArray, NpyData, read_npy};

use super::super::{Result, file_error};
use super::content;

/// The row_ids of a `.npy` file of integers, or of a text file with one a line.
pub fn file(path: &Path) -> Result<Vec<u64>> {
    if path.extension().is_some_and(|e| e == "npy") {
        let NpyArray { data, shape } = read_npy(path)?;
        if shape.len() != 1 {
            return Err(content(path, format!("row_ids are one integer a row; this has the shape {shape:?}")));
        }
        return numbers(path, data);
    }
    let text = std::fs::read_to_string(path).map_err(file_error(path))?;
    let line = |(i, l): (usize, &str)| {
        l.trim().parse().map_err(|_| content(path, format!("line {}: expected a row_id, found {l:?}", i + 1)))
    };
    let ids = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).map(line);
    checked(path, ids.collect::<Result<Vec<u64>>>()?)
}

/// The row_ids that an array holds.
pub fn numbers(path: &Path, data: NpyData) -> Result<Vec<u64>> {
    let ids = match data {
        NpyData::U64(v) => v,
        NpyData::I64(v) => signed(path, v)?,
        NpyData::I32(v) => signed(path, v)?,
        NpyData::I16(v) => signed(path, v)?,
        NpyData::I8(v) => signed(path, v)?,
        NpyData::U32(v) => v.into_iter().map(u64::from).collect(),
        NpyData::U16(v) => v.into_iter().map(u64::from).collect(),
        NpyData::U8(v) => v.into_iter().map(u64::from).collect(),
        other => return Err(not_integers(path, other.dtype())),
    };
    checked(path, ids)
}

/// The same, where a store can hold each of them and no two rows share one.
fn checked(path: &Path, ids: Vec<u64>) -> Result<Vec<u64>> {
    if let Some((row, id)) = ids.iter().enumerate().find(|(_, id)| **id > i64::MAX as u64) {
        return Err(content(path, format!("row_id {id} of row {row} is too large: row_ids are below 2^63")));
    }
    if ids.is_sorted_by(|a, b| a < b) {
        return Ok(ids);
    }
    let mut rows = HashMap::with_capacity(ids.len());
    for (row, id) in ids.iter().enumerate() {
        if let Some(first) = rows.insert(*id, row) {
            let why = format!(
                "row_id {id} is given to two rows, {first} and {row} (counted from 0); give each row one of its own"
            );
            return Err(content(path, why));
        }
    }
    Ok(ids)
}

fn signed<T: Into<i64>>(path: &Path, values: Vec<T>) -> Result<Vec<u64>> {
    let one = |x: i64| u64::try_from(x).map_err(|_| content(path, format!("row_id {x} is negative")));
    values.into_iter().map(|x| one(x.into())).collect()
}

fn not_integers(path: &Path, found: &str) -> super::CliError {
    content(path, format!("row_ids are integers, this holds {found}; convert them to int64"))
}

/// The row_ids of a table's column.
pub fn column(path: &Path, column: &ArrayRef) -> Result<Vec<u64>> {
    if !column.data_type().is_integer() {
        return Err(not_integers(path, &format!("a row_id column of {}", column.data_type())));
    }
    let ids = cast(column, &DataType::UInt64).map_err(|e| content(path, e.to_string()))?;
    let ids = ids.as_any().downcast_ref::<UInt64Array>().filter(|a| a.null_count() == 0);
    let ids = ids.ok_or_else(|| content(path, "column row_id has nulls or negative values"))?;
    checked(path, ids.values().to_vec())
}
