//! `mistique append KEY FILE`: values of any framework.

use std::path::{Path, PathBuf};

use arrow::array::{Array, FixedSizeListArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema};
use clap::Args;
use half::{bf16, f16};
use mistique_datasets::{NpyArray, NpyData, read_npy, read_parquet};
use serde_json::json;

use super::log::WriteArgs;
use super::output::{bytes, count, pretty};
use super::{CliError, Result, file_error};
use crate::{
    IfExists, IntermediateKey, LogReport, Logger, ModelHandle, ModelKey, ModelSpec, Rows, Scheme, Store, TensorSource,
    TensorSpec, UnitAxis,
};

#[derive(Debug, Args)]
pub struct AppendArgs {
    /// project.model[@version].intermediate; for a .safetensors file of several tensors, project.model[@version].
    key: String,
    /// .npy, .safetensors, .parquet or .arrow; the first axis counts rows.
    file: PathBuf,
    /// What to do to the values of a tensor.
    #[arg(long)]
    scheme: Option<Scheme>,
    /// Row_ids: a .npy file of integers, or one a line (default: a row_id column, else on from the last row stored).
    #[arg(long, value_name = "FILE")]
    row_ids: Option<PathBuf>,
    /// The last axis counts units ([H, W, C], [tokens, dim]).
    #[arg(long)]
    channels_last: bool,
    #[command(flatten)]
    options: WriteArgs,
}

/// What a file holds.
enum Item {
    Tensor {
        name: Option<String>,
        shape: Vec<usize>,
        values: Box<dyn TensorSource>,
        rows: Option<Vec<u64>>,
        /// Integers: stored exactly unless a scheme is given.
        exact: bool,
    },
    Table {
        batch: RecordBatch,
        rows: Option<Vec<u64>>,
    },
}

pub fn run(args: &AppendArgs, path: &Path, as_json: bool) -> Result<String> {
    let items = read(&args.file)?;
    let given_rows = args.row_ids.as_deref().map(row_ids).transpose()?;
    let (model_key, name) = match args.key.parse::<IntermediateKey>() {
        Ok(key) => (key.model, Some(key.intermediate)),
        Err(e) => match args.key.parse::<ModelKey>() {
            Ok(model) => (model, None),
            Err(_) => return Err(e.into()),
        },
    };
    if let (Some(_), true) = (&name, items.len() > 1) {
        return Err(content(
            &args.file,
            "it holds several tensors; name a model (project.model) and each becomes an intermediate",
        ));
    }
    let named = |item: &Item| match (&name, item) {
        (Some(name), _) => Ok(name.clone()),
        (None, Item::Tensor { name: Some(name), .. }) => Ok(name.clone()),
        _ => Err(CliError::Usage(format!("{}: name an intermediate too: project.model.intermediate", args.key))),
    };
    let names = items.iter().map(named).collect::<Result<Vec<_>>>()?;

    let store = Store::open_or_create(path)?;
    args.options.set_mode(&store)?;
    let mut log = store.logger(args.options.log_options())?;
    let model = log.model(&ModelSpec::raw(model_key.clone()), IfExists::Continue)?;
    if args.options.replace {
        // Only what the file brings is replaced; other intermediates of the model stay.
        names.iter().try_for_each(|name| log.replace(model, name))?;
    }
    let mut appended = Vec::new();
    for (position, (item, name)) in items.into_iter().zip(names).enumerate() {
        let key = model_key.intermediate(name.clone());
        let rows = |n: usize, own: Option<Vec<u64>>| row_numbers(&store, args, &key, n, given_rows.clone().or(own));
        let n = match item {
            Item::Tensor { shape, values, rows: own, exact, .. } => {
                let rows = |n: usize| rows(n, own.clone());
                append_tensor(&mut log, model, args, &name, position, shape, values, exact, rows)?
            }
            Item::Table { batch, rows: own } => {
                if args.scheme.is_some() {
                    return Err(CliError::Usage("--scheme is for tensors; a table is stored as it is".into()));
                }
                let handle = log.table(model, &name, position as i64, &batch.schema())?;
                let ids = rows(batch.num_rows(), own)?;
                log.reserve(batch.get_array_memory_size() as u64)?;
                log.append_table(handle, &ids, &batch)?;
                batch.num_rows()
            }
        };
        appended.push((key, n));
    }
    log.complete(model)?;
    let report = log.commit()?;
    super::log::clamp_note(&report);
    Ok(describe(&appended, &report, as_json))
}

#[expect(clippy::too_many_arguments, reason = "the parts of one tensor of one file")]
fn append_tensor(
    log: &mut Logger,
    model: ModelHandle,
    args: &AppendArgs,
    name: &str,
    position: usize,
    shape: Vec<usize>,
    values: Box<dyn TensorSource>,
    exact: bool,
    rows: impl Fn(usize) -> Result<Vec<u64>>,
) -> Result<usize> {
    let [n, row_shape @ ..] = &shape[..] else {
        return Err(content(&args.file, "a single number; the first axis must count rows"));
    };
    let lossless = exact.then_some(if values.dtype() == crate::Code::F64 { "f64" } else { "f32" });
    let spec = TensorSpec {
        name: name.to_string(),
        position: position as i64,
        shape: row_shape.to_vec(),
        dtype: values.dtype(),
        unit_axis: if args.channels_last { UnitAxis::Last } else { UnitAxis::First },
        scheme: args.scheme.clone().or_else(|| lossless.and_then(|s| s.parse().ok())),
    };
    let ids = rows(*n)?;
    let handle = log.tensor(model, &spec)?;
    let most = spec.max_bytes(*n as u64);
    eprintln!("appending {n} rows of {row_shape:?}, at most {}", bytes(most));
    log.reserve(most)?;
    log.append_boxed(handle, &ids, values)?;
    Ok(*n)
}

fn describe(appended: &[(IntermediateKey, usize)], report: &LogReport, as_json: bool) -> String {
    if as_json {
        let rows: Vec<_> = appended.iter().map(|(k, n)| json!({"key": k.to_string(), "rows": n})).collect();
        return pretty(&json!({
            "appended": rows, "logical_bytes": report.logical_bytes, "written_bytes": report.written_bytes,
            "saved_bytes": report.saved_bytes, "clamped": report.clamped,
        }));
    }
    let mut out = String::new();
    for (key, n) in appended {
        out += &format!("{key}: {} rows appended\n", count(*n as u64));
    }
    out + &format!("{} became {}\n", bytes(report.logical_bytes), bytes(report.written_bytes))
}

fn content(path: &Path, why: impl Into<String>) -> CliError {
    CliError::Content { path: path.to_path_buf(), why: why.into() }
}

/// Row_ids of new rows: as given, else on from the largest that is stored.
fn row_numbers(
    store: &Store,
    args: &AppendArgs,
    key: &IntermediateKey,
    n: usize,
    given: Option<Vec<u64>>,
) -> Result<Vec<u64>> {
    if let Some(ids) = given {
        if ids.len() != n {
            return Err(CliError::Usage(format!("{} row_ids for {n} rows", ids.len())));
        }
        return Ok(ids);
    }
    let start = match store.model(&key.model) {
        Ok(model) if model.spec.key == key.model && !args.options.replace => {
            let records = store.intermediates(&model)?;
            match records.iter().find(|r| r.key == *key) {
                Some(record) => store.plan_rows(record, &Rows::All)?.rows.bounds().map_or(0, |(_, max)| max + 1),
                None => 0,
            }
        }
        _ => 0,
    };
    Ok((start..start + n as u64).collect())
}

fn row_ids(path: &Path) -> Result<Vec<u64>> {
    if path.extension().is_some_and(|e| e == "npy") {
        let NpyArray { data, .. } = read_npy(path)?;
        let signed = |v: Vec<i64>| {
            v.into_iter()
                .map(|x| u64::try_from(x).map_err(|_| content(path, format!("row_id {x} is negative"))))
                .collect()
        };
        return match data {
            NpyData::U64(v) => Ok(v),
            NpyData::I64(v) => signed(v),
            NpyData::I32(v) => signed(v.into_iter().map(i64::from).collect()),
            NpyData::U32(v) => Ok(v.into_iter().map(u64::from).collect()),
            other => Err(content(path, format!("row_ids are integers, this holds {}", other.dtype()))),
        };
    }
    let text = std::fs::read_to_string(path).map_err(file_error(path))?;
    let line = |(i, l): (usize, &str)| {
        l.trim().parse().map_err(|_| content(path, format!("line {}: expected a row_id, found {l:?}", i + 1)))
    };
    text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).map(line).collect()
}

fn read(path: &Path) -> Result<Vec<Item>> {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "npy" => npy(path).map(|item| vec![item]),
        "safetensors" => safetensors(path),
        "parquet" => table(path, read_parquet(path)?),
        "arrow" | "ipc" | "feather" => table(path, read_arrow(path)?),
        other => Err(content(path, format!("cannot read .{other} files; give .npy, .safetensors, .parquet or .arrow"))),
    }
}

fn npy(path: &Path) -> Result<Item> {
    let NpyArray { shape, data } = read_npy(path)?;
    if let ([n], false) = (&shape[..], matches!(data, NpyData::F16(_) | NpyData::F32(_) | NpyData::F64(_))) {
        // A vector of integers or booleans (labels, predictions) is a column.
        return Ok(Item::Table { batch: column(data, *n)?, rows: None });
    }
    let exact = !matches!(data, NpyData::F16(_) | NpyData::F32(_) | NpyData::F64(_));
    let wide = |v: Vec<f64>| -> Box<dyn TensorSource> { Box::new(v) };
    let values: Box<dyn TensorSource> = match data {
        NpyData::F32(v) => Box::new(v),
        NpyData::F64(v) => Box::new(v),
        NpyData::F16(v) => Box::new(v.into_iter().map(f16::from_bits).collect::<Vec<_>>()),
        NpyData::U8(v) => Box::new(v.into_iter().map(f32::from).collect::<Vec<_>>()),
        NpyData::I8(v) => Box::new(v.into_iter().map(f32::from).collect::<Vec<_>>()),
        NpyData::U16(v) => Box::new(v.into_iter().map(f32::from).collect::<Vec<_>>()),
        NpyData::I16(v) => Box::new(v.into_iter().map(f32::from).collect::<Vec<_>>()),
        NpyData::Bool(v) => Box::new(v.into_iter().map(|b| f32::from(u8::from(b))).collect::<Vec<_>>()),
        NpyData::I32(v) => wide(v.into_iter().map(f64::from).collect()),
        NpyData::U32(v) => wide(v.into_iter().map(f64::from).collect()),
        other => {
            let why =
                format!("{} arrays of more than one axis are not stored; convert to float64 first", other.dtype());
            return Err(content(path, why));
        }
    };
    Ok(Item::Tensor { name: None, shape, values, rows: None, exact })
}

fn column(data: NpyData, n: usize) -> Result<RecordBatch> {
    use arrow::array::{
        ArrayRef, BooleanArray, Int8Array, Int16Array, Int32Array, Int64Array, UInt8Array, UInt16Array, UInt32Array,
    };
    use std::sync::Arc;
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
        other => return Err(CliError::Usage(format!("{} values are no column of {n} rows", other.dtype()))),
    };
    Ok(RecordBatch::try_from_iter([("value", array)]).map_err(crate::EngineError::from)?)
}

fn safetensors(path: &Path) -> Result<Vec<Item>> {
    let bytes = std::fs::read(path).map_err(file_error(path))?;
    let file =
        safetensors::SafeTensors::deserialize(&bytes).map_err(|e| content(path, format!("not safetensors: {e}")))?;
    let mut names: Vec<String> = file.names().into_iter().map(ToString::to_string).collect();
    names.sort();
    // What `get -o` and `export` write: the row_ids beside the tensors.
    let ids = names.iter().position(|n| n == "row_id").map(|i| names.remove(i));
    let rows = match ids.map(|n| file.tensor(&n)).transpose().map_err(|e| content(path, e.to_string()))? {
        Some(view) if view.dtype() == safetensors::Dtype::U64 => Some(words(view.data(), u64::from_le_bytes)),
        Some(_) => return Err(content(path, "tensor row_id is not of type U64")),
        None => None,
    };
    let item = |name: String| {
        let view = file.tensor(&name).map_err(|e| content(path, e.to_string()))?;
        let data = view.data();
        let values: Box<dyn TensorSource> = match view.dtype() {
            safetensors::Dtype::F32 => Box::new(words(data, f32::from_le_bytes)),
            safetensors::Dtype::F64 => Box::new(words(data, f64::from_le_bytes)),
            safetensors::Dtype::F16 => Box::new(words(data, f16::from_le_bytes)),
            safetensors::Dtype::BF16 => Box::new(words(data, bf16::from_le_bytes)),
            other => return Err(content(path, format!("tensor {name:?} has type {other:?}; floats are stored"))),
        };
        Ok(Item::Tensor { name: Some(name), shape: view.shape().to_vec(), values, rows: rows.clone(), exact: false })
    };
    names.into_iter().map(item).collect()
}

fn words<const N: usize, T>(data: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).filter_map(|b| b.try_into().ok()).map(of).collect()
}

fn read_arrow(path: &Path) -> Result<RecordBatch> {
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

/// A table; a `row_id` column names its rows, and a single column of fixed-size lists is a tensor.
fn table(path: &Path, batch: RecordBatch) -> Result<Vec<Item>> {
    let arrow = |e: arrow::error::ArrowError| content(path, e.to_string());
    let mut rows = None;
    let mut keep: Vec<usize> = (0..batch.num_columns()).collect();
    if let Some(i) = batch.schema().fields().iter().position(|f| f.name() == "row_id") {
        let ids = cast(batch.column(i), &DataType::UInt64).map_err(arrow)?;
        let ids = ids.as_any().downcast_ref::<UInt64Array>().filter(|a| a.null_count() == 0);
        let ids = ids.ok_or_else(|| content(path, "column row_id has nulls or negative values"))?;
        rows = Some(ids.values().to_vec());
        keep.remove(i);
    }
    let batch = batch.project(&keep).map_err(arrow)?;
    if let [column] = batch.columns()
        && let Some(list) = column.as_any().downcast_ref::<FixedSizeListArray>()
    {
        return tensor_column(path, &batch.schema(), list, rows);
    }
    Ok(vec![Item::Table { batch, rows }])
}

fn tensor_column(path: &Path, schema: &Schema, list: &FixedSizeListArray, rows: Option<Vec<u64>>) -> Result<Vec<Item>> {
    let field = schema.field(0);
    let width = list.value_length().unsigned_abs() as usize;
    let shape = field
        .metadata()
        .get("ARROW:extension:metadata")
        .and_then(|m| serde_json::from_str::<serde_json::Value>(m).ok());
    let shape = shape.and_then(|m| serde_json::from_value::<Vec<usize>>(m.get("shape")?.clone()).ok());
    let row_shape = shape.filter(|s| s.iter().product::<usize>() == width).unwrap_or_else(|| vec![width]);
    let values = cast(list.values(), &DataType::Float32).map_err(|e| content(path, e.to_string()))?;
    let values = values.as_any().downcast_ref::<arrow::array::Float32Array>().map(|a| a.values().to_vec());
    let values =
        values.filter(|v| v.len() == width * list.len()).ok_or_else(|| content(path, "a tensor column with nulls"))?;
    let shape = std::iter::once(list.len()).chain(row_shape).collect();
    Ok(vec![Item::Tensor { name: Some(field.name().clone()), shape, values: Box::new(values), rows, exact: false }])
}
