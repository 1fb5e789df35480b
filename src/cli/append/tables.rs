//! Tables of Parquet and Arrow IPC files.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use mistique_datasets::NpyData;

use super::super::{Result, file_error};
use super::{Item, arrays, content, row_ids};

/// The table of an Arrow IPC file or stream.
pub fn read_arrow(path: &Path) -> Result<RecordBatch> {
    let bad = |e: arrow::error::ArrowError| content(path, format!("not an Arrow IPC file or stream: {e}"));
    let bytes = std::fs::read(path).map_err(file_error(path))?;
    let cursor = std::io::Cursor::new(&bytes);
    let (schema, batches) = if bytes.starts_with(b"ARROW1") {
        let reader = arrow::ipc::reader::FileReader::try_new(cursor, None).map_err(bad)?;
        (reader.schema(), reader.collect::<std::result::Result<Vec<_>, _>>().map_err(bad)?)
    } else {
        let reader = arrow::ipc::reader::StreamReader::try_new(cursor, None).map_err(bad)?;
        (reader.schema(), reader.collect::<std::result::Result<Vec<_>, _>>().map_err(bad)?)
    };
    concat_batches(&schema, &batches).map_err(bad)
}

/// A table; a `row_id` column names its rows, and a single column of lists of one length is a tensor.
pub fn items(path: &Path, batch: RecordBatch) -> Result<Vec<Item>> {
    let mut rows = None;
    let mut keep: Vec<usize> = (0..batch.num_columns()).collect();
    if let Some(i) = batch.schema().fields().iter().position(|f| f.name() == "row_id") {
        rows = Some(row_ids::column(path, batch.column(i))?);
        keep.remove(i);
    }
    if keep.is_empty() {
        return Err(content(path, "it has no column of values"));
    }
    let batch = batch.project(&keep).map_err(|e| content(path, e.to_string()))?;
    if let [column] = batch.columns()
        && let Some((width, values)) = list(path, column)?
    {
        return Ok(vec![tensor(path, batch.schema().field(0), column.len(), width, &values, rows)?]);
    }
    Ok(vec![Item::Table { name: None, batch, rows }])
}

/// Numbers in a row and all numbers of a column of lists; `None` for another column.
fn list(path: &Path, column: &ArrayRef) -> Result<Option<(usize, ArrayRef)>> {
    let is_list =
        matches!(column.data_type(), DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_));
    if is_list && column.null_count() > 0 {
        return Err(content(path, "a tensor column with nulls; fill them, or leave these rows out"));
    }
    if let Some(list) = column.as_fixed_size_list_opt() {
        return Ok(Some((list.value_length().unsigned_abs() as usize, list.values().clone())));
    }
    let (ends, values): (Vec<usize>, _) = if let Some(list) = column.as_list_opt::<i32>() {
        (list.value_offsets().iter().map(|o| o.unsigned_abs() as usize).collect(), list.values())
    } else if let Some(list) = column.as_list_opt::<i64>() {
        (list.value_offsets().iter().map(|o| o.unsigned_abs() as usize).collect(), list.values())
    } else {
        return Ok(None);
    };
    let width = ends.windows(2).map(|w| w[1] - w[0]).next().unwrap_or_default();
    if let Some(row) = ends.windows(2).position(|w| w[1] - w[0] != width) {
        let why = format!(
            "a tensor's rows have equally many values: row 0 has {width}, row {row} has {}; pad them to one length",
            ends[row + 1] - ends[row]
        );
        return Err(content(path, why));
    }
    let first = ends.first().copied().unwrap_or_default();
    Ok(Some((width, values.slice(first, width * column.len()))))
}

/// The tensor of `n` rows of `width` values; the shape of a row is what Arrow's metadata says, or `[width]`.
fn tensor(
    path: &Path,
    field: &Field,
    n: usize,
    width: usize,
    values: &ArrayRef,
    rows: Option<Vec<u64>>,
) -> Result<Item> {
    let shape = field
        .metadata()
        .get("ARROW:extension:metadata")
        .and_then(|m| serde_json::from_str::<serde_json::Value>(m).ok());
    let shape = shape.and_then(|m| serde_json::from_value::<Vec<usize>>(m.get("shape")?.clone()).ok());
    let row_shape = shape.filter(|s| s.iter().product::<usize>() == width).unwrap_or_else(|| vec![width]);
    if values.null_count() > 0 || values.len() != n * width {
        return Err(content(path, "a tensor column with nulls; fill them, with NaN where nothing else is right"));
    }
    let shape = std::iter::once(n).chain(row_shape).collect();
    arrays::item(path, Some(field.name().clone()), shape, numbers(path, field, values)?, rows)
}

/// The numbers of an array: floats as they are, integers at 64 bits.
fn numbers(path: &Path, field: &Field, values: &ArrayRef) -> Result<NpyData> {
    let arrow = |e: arrow::error::ArrowError| content(path, e.to_string());
    Ok(match values.data_type() {
        DataType::Float16 => {
            NpyData::F16(values.as_primitive::<Float16Type>().values().iter().map(|v| v.to_bits()).collect())
        }
        DataType::Float32 => NpyData::F32(values.as_primitive::<Float32Type>().values().to_vec()),
        DataType::Float64 => NpyData::F64(values.as_primitive::<Float64Type>().values().to_vec()),
        DataType::Boolean => {
            let bits = values.as_any().downcast_ref::<BooleanArray>();
            NpyData::Bool(bits.map(|b| b.values().iter().collect()).unwrap_or_default())
        }
        DataType::UInt64 => NpyData::U64(values.as_primitive::<UInt64Type>().values().to_vec()),
        t if t.is_integer() => {
            let wide = cast(values, &DataType::Int64).map_err(arrow)?;
            NpyData::I64(wide.as_primitive::<Int64Type>().values().to_vec())
        }
        other => {
            let why = format!(
                "column {:?} has lists of {other}; a tensor's are of floats, integers or booleans: flatten or convert them",
                field.name()
            );
            return Err(content(path, why));
        }
    })
}
