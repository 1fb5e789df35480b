//! Arrays of `.npy` and `.safetensors` files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use half::{bf16, f16};
use mistique_datasets::{NpyArray, NpyData, read_npy};
use safetensors::Dtype;

use super::super::{Result, file_error};
use super::{Item, content, row_ids};
use crate::TensorSource;

/// Integers up to this are exact in float64.
const MAX_EXACT: u64 = 1 << 53;

/// The array of a `.npy` file.
pub fn npy(path: &Path) -> Result<Item> {
    let NpyArray { shape, data } = read_npy(path)?;
    item(path, None, shape, data, None)
}

/// The tensors of a `.safetensors` file; one called `row_id` has the row_ids of all others.
pub fn safetensors(path: &Path) -> Result<Vec<Item>> {
    let bytes = std::fs::read(path).map_err(file_error(path))?;
    let file =
        safetensors::SafeTensors::deserialize(&bytes).map_err(|e| content(path, format!("not safetensors: {e}")))?;
    let mut names: Vec<String> = file.names().into_iter().map(ToString::to_string).collect();
    names.sort();
    let tensor = |name: &str| file.tensor(name).map_err(|e| content(path, e.to_string()));
    // What `get -o` and `export` write: the row_ids beside the tensors.
    let ids = names.iter().position(|n| n == "row_id").map(|i| names.remove(i));
    let rows = ids.map(|n| row_ids::numbers(path, numbers(path, &n, &tensor(&n)?)?)).transpose()?;
    let item_of = |name: String| {
        let view = tensor(&name)?;
        let shape = view.shape().to_vec();
        if view.dtype() == Dtype::BF16 {
            let values = Box::new(words(view.data(), bf16::from_le_bytes));
            return Ok(Item::Tensor { name: Some(name), shape, values, rows: rows.clone(), exact: false });
        }
        let data = numbers(path, &name, &view)?;
        item(path, Some(name), shape, data, rows.clone())
    };
    if names.is_empty() {
        return Err(content(path, "it holds no tensors"));
    }
    names.into_iter().map(item_of).collect()
}

/// The elements of a tensor in their own type.
fn numbers(path: &Path, name: &str, view: &safetensors::tensor::TensorView<'_>) -> Result<NpyData> {
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F16 => NpyData::F16(words(data, u16::from_le_bytes)),
        Dtype::F32 => NpyData::F32(words(data, f32::from_le_bytes)),
        Dtype::F64 => NpyData::F64(words(data, f64::from_le_bytes)),
        Dtype::I8 => NpyData::I8(words(data, i8::from_le_bytes)),
        Dtype::I16 => NpyData::I16(words(data, i16::from_le_bytes)),
        Dtype::I32 => NpyData::I32(words(data, i32::from_le_bytes)),
        Dtype::I64 => NpyData::I64(words(data, i64::from_le_bytes)),
        Dtype::U8 => NpyData::U8(words(data, u8::from_le_bytes)),
        Dtype::U16 => NpyData::U16(words(data, u16::from_le_bytes)),
        Dtype::U32 => NpyData::U32(words(data, u32::from_le_bytes)),
        Dtype::U64 => NpyData::U64(words(data, u64::from_le_bytes)),
        Dtype::BOOL => NpyData::Bool(data.iter().map(|b| *b != 0).collect()),
        other => {
            let why = format!(
                "tensor {name:?} has type {other:?}; floats of 16 bits and more, integers and booleans are taken: \
                 convert it to float32"
            );
            return Err(content(path, why));
        }
    })
}

fn words<const N: usize, T>(data: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).filter_map(|b| b.try_into().ok()).map(of).collect()
}

/// What an array becomes: a vector of integers or booleans (labels, predictions) a table of one column, others a tensor;
/// integers and booleans in one are floats that hold them exactly.
pub fn item(
    path: &Path,
    name: Option<String>,
    shape: Vec<usize>,
    data: NpyData,
    rows: Option<Vec<u64>>,
) -> Result<Item> {
    let exact = !matches!(data, NpyData::F16(_) | NpyData::F32(_) | NpyData::F64(_));
    if exact && shape.len() == 1 {
        return Ok(Item::Table { name, batch: column(path, data)?, rows });
    }
    let values: Box<dyn TensorSource> = match data {
        NpyData::F32(v) => Box::new(v),
        NpyData::F64(v) => Box::new(v),
        NpyData::F16(v) => Box::new(v.into_iter().map(f16::from_bits).collect::<Vec<_>>()),
        NpyData::U8(v) => floats(v),
        NpyData::I8(v) => floats(v),
        NpyData::U16(v) => floats(v),
        NpyData::I16(v) => floats(v),
        NpyData::Bool(v) => floats(v.into_iter().map(u8::from).collect()),
        NpyData::I32(v) => doubles(v.into_iter().map(f64::from).collect()),
        NpyData::U32(v) => doubles(v.into_iter().map(f64::from).collect()),
        NpyData::I64(v) => {
            check_exact(path, v.iter().map(|x| (x.unsigned_abs(), *x < 0)))?;
            doubles(v.into_iter().map(|x| x as f64).collect())
        }
        NpyData::U64(v) => {
            check_exact(path, v.iter().map(|x| (*x, false)))?;
            doubles(v.into_iter().map(|x| x as f64).collect())
        }
        other => {
            return Err(content(path, format!("{} arrays are not taken; convert to float64 first", other.dtype())));
        }
    };
    Ok(Item::Tensor { name, shape, values, rows, exact })
}

fn floats<T: Into<f32>>(values: Vec<T>) -> Box<dyn TensorSource> {
    Box::new(values.into_iter().map(Into::into).collect::<Vec<f32>>())
}

fn doubles(values: Vec<f64>) -> Box<dyn TensorSource> {
    Box::new(values)
}

/// Checks that float64 holds every one of some integers, given as size and whether negative.
fn check_exact(path: &Path, mut values: impl Iterator<Item = (u64, bool)>) -> Result<()> {
    match values.find(|(size, _)| *size > MAX_EXACT) {
        None => Ok(()),
        Some((size, is_negative)) => {
            let sign = if is_negative { "-" } else { "" };
            let is_table = path.extension().is_some_and(|e| e != "npy" && e != "safetensors");
            let columns = match is_table {
                true => "give each number of the lists a column of its own, which holds it as it is",
                false => "write the columns to a Parquet file",
            };
            Err(content(
                path,
                format!(
                    "{sign}{size} is too large for a tensor, which holds integers up to 2^53 exactly; {columns}, or \
                     convert to float64"
                ),
            ))
        }
    }
}

/// A table of one column `value`.
fn column(path: &Path, data: NpyData) -> Result<RecordBatch> {
    let array: ArrayRef = match data {
        NpyData::I8(v) => Arc::new(Int8Array::from(v)),
        NpyData::I16(v) => Arc::new(Int16Array::from(v)),
        NpyData::I32(v) => Arc::new(Int32Array::from(v)),
        NpyData::I64(v) => Arc::new(Int64Array::from(v)),
        NpyData::U8(v) => Arc::new(UInt8Array::from(v)),
        NpyData::U16(v) => Arc::new(UInt16Array::from(v)),
        NpyData::U32(v) => Arc::new(UInt32Array::from(v)),
        NpyData::U64(v) => Arc::new(UInt64Array::from(v)),
        NpyData::Bool(v) => Arc::new(BooleanArray::from(v)),
        other => return Err(content(path, format!("{} values are no column; convert to float64", other.dtype()))),
    };
    Ok(RecordBatch::try_from_iter([("value", array)]).map_err(crate::EngineError::from)?)
}
