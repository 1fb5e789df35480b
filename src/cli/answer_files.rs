//! The files that `mistique get -o` writes. A file appears when all of it is there; one that was there before stays until then.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::cells::{csv_cells, csv_quoted};
use super::export::{parquet_writer, write_part};
use super::parts::Parts;
use super::{CliError, Result, file_error};
use crate::{Answer, Code, Content, Data, EngineError, Store};

const ROW_ID: &str = "row_id";

/// Writes answers as the file's extension says; `wrote` is told how many rows, of all keys, were written.
pub fn write(path: &Path, answers: &Parts<'_, '_>, store: &Store, wrote: &mut dyn FnMut(usize)) -> Result<()> {
    let content = |why: String| CliError::Content { path: path.to_path_buf(), why };
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    whole(path, |out| match (extension, answers.n_keys()) {
        ("npy", 1) => write_npy(out, answers, store, path, wrote),
        ("npy", _) => {
            Err(content("an .npy file holds one array; name one key, or write .parquet or .safetensors".into()))
        }
        ("safetensors", _) => write_safetensors(out, answers, store, path, wrote),
        ("parquet", _) => {
            let first = joined(&answers.all(0)?)?;
            let mut writer = parquet_writer(out, &first).map_err(content)?;
            each_batch(first, answers, wrote, &mut |batch| write_part(&mut writer, batch).map_err(content))?;
            writer.close().map(drop).map_err(|e| content(e.to_string()))
        }
        ("arrow", _) => {
            let first = joined(&answers.all(0)?)?;
            let writer = arrow::ipc::writer::FileWriter::try_new(out, &first.schema()).map_err(EngineError::from);
            let mut writer = writer?;
            each_batch(first, answers, wrote, &mut |batch| writer.write(batch).map_err(|e| content(e.to_string())))?;
            writer.finish().map_err(|e| content(e.to_string()))
        }
        ("csv", _) => {
            for part in 0..answers.n_parts() {
                let answers = answers.all(part)?;
                write_csv(out, &answers, part == 0, file_error(path))?;
                wrote(answers.first().map_or(0, |a| a.rows.len()));
            }
            Ok(())
        }
        _ => Err(content(format!("cannot write .{extension}; give .npy, .parquet, .arrow, .csv or .safetensors"))),
    })
}

/// Has all parts written, of which the first is there.
fn each_batch(
    first: RecordBatch,
    answers: &Parts<'_, '_>,
    wrote: &mut dyn FnMut(usize),
    write: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut next = Some(first);
    for part in 0..answers.n_parts() {
        let batch = match next.take() {
            Some(first) => first,
            None => joined(&answers.all(part)?)?,
        };
        write(&batch)?;
        wrote(batch.num_rows());
    }
    Ok(())
}

/// Lets `fill` write a file beside `path` that takes its place when it is whole. What is no regular file is written to.
fn whole(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    // What a link leads to is written, and the link stays.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let before = std::fs::metadata(path).ok();
    let is_other = before.as_ref().is_some_and(|m| !m.is_file());
    let part: PathBuf = path.with_file_name(format!(".mistique-{}.part", std::process::id()));
    let target = if is_other { path } else { &part };
    let file = match is_other {
        true => std::fs::OpenOptions::new().write(true).open(target),
        false => File::create(target),
    };
    let mut out = BufWriter::with_capacity(1 << 20, file.map_err(file_error(path))?);
    let written = fill(&mut out).and_then(|()| out.flush().map_err(file_error(path)));
    drop(out);
    if is_other {
        return written;
    }
    let keep_permissions = || match before {
        Some(before) => std::fs::set_permissions(&part, before.permissions()),
        None => Ok(()),
    };
    let moved =
        written.and_then(|()| keep_permissions().and_then(|()| std::fs::rename(&part, path)).map_err(file_error(path)));
    if moved.is_err() {
        // What went wrong first says more than that this part of a file could not be removed either.
        let _ = std::fs::remove_file(&part);
    }
    moved
}

/// The shape of a row: that of a single value where it was logged as one.
pub fn row_shape<'a>(answer: &'a Answer, content: &Content) -> &'a [usize] {
    match content {
        Content::Tensor(t) if t.shape.is_empty() && answer.columns.len() == 1 => &[],
        _ => &answer.shape,
    }
}

/// Values of an answer in one type, row-major: that which they were logged in, where they still are of it.
struct Values<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Values<'a> {
    /// Of an answer, or of a part of one, whose type no value of another part may change.
    fn of(answer: &'a Answer, store: &Store, is_part: bool) -> Result<Self> {
        let content = store.intermediate(&answer.key)?.content;
        let shape = std::iter::once(answer.rows.len()).chain(row_shape(answer, &content).iter().copied()).collect();
        let (dtype, bytes) = match &answer.data {
            Data::F64(v) => (Dtype::F64, in_place(v, f64::to_le_bytes)),
            Data::F32(v) => match &*content {
                Content::Tensor(t)
                    if t.dtype == Code::F16
                        && (!is_part || t.layout.code == Code::F16)
                        && v.iter().all(|x| same(*x, f16::from_f32(*x).to_f32())) =>
                {
                    (Dtype::F16, le(v.iter().map(|x| f16::from_f32(*x).to_le_bytes())).into())
                }
                Content::Tensor(t)
                    if t.dtype == Code::BF16
                        && (!is_part || t.layout.code == Code::BF16)
                        && v.iter().all(|x| same(*x, bf16::from_f32(*x).to_f32())) =>
                {
                    (Dtype::BF16, le(v.iter().map(|x| bf16::from_f32(*x).to_le_bytes())).into())
                }
                _ => (Dtype::F32, in_place(v, f32::to_le_bytes)),
            },
            Data::Table(batch) => return Self::of_table(answer, batch),
        };
        Ok(Self { dtype, shape, bytes })
    }

    /// Columns of one type; one alone is a vector.
    fn of_table(answer: &Answer, batch: &RecordBatch) -> Result<Self> {
        let unfit =
            |why: String| CliError::Usage(format!("{}: {why}; write .parquet to keep types and nulls", answer.key));
        let mut columns: Vec<(Dtype, Vec<u8>)> = Vec::with_capacity(batch.num_columns());
        for (name, array) in answer.columns.iter().zip(batch.columns()) {
            let is_float = array.data_type().is_floating();
            if array.null_count() > 0 && !is_float {
                return Err(unfit(format!("an array holds no nulls, and {name} has {}", array.null_count())));
            }
            let column =
                plain(array).ok_or_else(|| unfit(format!("an array holds no {}: {name}", array.data_type())))?;
            if columns.first().is_some_and(|(dtype, _)| *dtype != column.0) {
                return Err(unfit("an array holds values of one type; name columns that share theirs".into()));
            }
            columns.push(column);
        }
        let n_rows = answer.rows.len();
        let dtype = columns.first().map_or(Dtype::F64, |(dtype, _)| *dtype);
        let width = columns.first().map_or(0, |(_, bytes)| bytes.len() / n_rows.max(1));
        let shape = if columns.len() == 1 { vec![n_rows] } else { vec![n_rows, columns.len()] };
        let mut bytes = Vec::with_capacity(n_rows * width * columns.len());
        for row in 0..n_rows {
            for (_, column) in &columns {
                bytes.extend_from_slice(column.get(row * width..(row + 1) * width).unwrap_or_default());
            }
        }
        Ok(Self { dtype, shape, bytes: bytes.into() })
    }
}

/// Whether two values have one bit pattern, or are both NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Values of a column of numbers or booleans, nulls of floats as NaN.
fn plain(array: &ArrayRef) -> Option<(Dtype, Vec<u8>)> {
    macro_rules! integers {
        ($t:ty) => {
            le(array.as_primitive::<$t>().values().iter().map(|v| v.to_le_bytes()))
        };
    }
    macro_rules! floats {
        ($t:ty, $nan:expr) => {
            le(array.as_primitive::<$t>().iter().map(|v| v.unwrap_or($nan).to_le_bytes()))
        };
    }
    Some(match array.data_type() {
        DataType::Boolean => (Dtype::BOOL, array.as_boolean().values().iter().map(u8::from).collect()),
        DataType::Int8 => (Dtype::I8, integers!(Int8Type)),
        DataType::Int16 => (Dtype::I16, integers!(Int16Type)),
        DataType::Int32 => (Dtype::I32, integers!(Int32Type)),
        DataType::Int64 => (Dtype::I64, integers!(Int64Type)),
        DataType::UInt8 => (Dtype::U8, integers!(UInt8Type)),
        DataType::UInt16 => (Dtype::U16, integers!(UInt16Type)),
        DataType::UInt32 => (Dtype::U32, integers!(UInt32Type)),
        DataType::UInt64 => (Dtype::U64, integers!(UInt64Type)),
        DataType::Float16 => (Dtype::F16, floats!(Float16Type, f16::NAN)),
        DataType::Float32 => (Dtype::F32, floats!(Float32Type, f32::NAN)),
        DataType::Float64 => (Dtype::F64, floats!(Float64Type, f64::NAN)),
        _ => return None,
    })
}

/// Values as they lie in memory, where that is how files have them.
fn in_place<T: bytemuck::NoUninit, const N: usize>(values: &[T], to_le: fn(T) -> [u8; N]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => Cow::Owned(le(values.iter().map(|v| to_le(*v)))),
    }
}

fn le<const N: usize>(words: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    words.flatten().collect()
}

/// The values of a part of an answer, which must be of the type of the first part.
fn values<'a>(answer: &'a Answer, store: &Store, parts: &Parts<'_, '_>, first: Option<Dtype>) -> Result<Values<'a>> {
    let values = Values::of(answer, store, parts.n_parts() > 1)?;
    match first.filter(|d| *d != values.dtype) {
        None => Ok(values),
        Some(first) => Err(CliError::Usage(format!(
            "{}: rows from {:?} on are of type {:?}, those before of {first:?}; ask for them apart",
            answer.key,
            answer.rows.first(),
            values.dtype
        ))),
    }
}

/// Writes one array as `.npy` (version 1.0); numpy has no bfloat16, which becomes float32.
fn write_npy(
    out: &mut impl Write,
    parts: &Parts<'_, '_>,
    store: &Store,
    path: &Path,
    wrote: &mut dyn FnMut(usize),
) -> Result<()> {
    let mut dtype = None;
    for part in 0..parts.n_parts() {
        let answer = parts.one(0, part)?;
        let mut values = values(&answer, store, parts, dtype)?;
        if dtype.replace(values.dtype).is_none() {
            if let Some(rows) = values.shape.first_mut() {
                *rows = parts.rows().len();
            }
            out.write_all(&npy_header(&values)).map_err(file_error(path))?;
        }
        let wide;
        let bytes = match values.dtype {
            Dtype::BF16 => {
                let (words, _) = values.bytes.as_chunks::<2>();
                wide = le(words.iter().map(|w| bf16::from_le_bytes(*w).to_f32().to_le_bytes()));
                &wide
            }
            _ => &*values.bytes,
        };
        out.write_all(bytes).map_err(file_error(path))?;
        wrote(answer.rows.len());
    }
    Ok(())
}

fn npy_header(values: &Values<'_>) -> Vec<u8> {
    let descr = match values.dtype {
        Dtype::BOOL => "|b1",
        Dtype::I8 => "|i1",
        Dtype::U8 => "|u1",
        Dtype::I16 => "<i2",
        Dtype::U16 => "<u2",
        Dtype::I32 => "<i4",
        Dtype::U32 => "<u4",
        Dtype::I64 => "<i8",
        Dtype::U64 => "<u8",
        Dtype::F16 => "<f2",
        Dtype::BF16 | Dtype::F32 => "<f4",
        _ => "<f8",
    };
    let sides: String = values.shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version and length take 10 bytes; the whole is a multiple of 64 and ends with a line's end.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header += &" ".repeat(padded - header.len() - 1);
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes()].concat()
}

/// Writes answers as one safetensors file: a tensor each, named by its intermediate, and `row_id`. The format's header comes
/// first, and lies before values that are written a part at a time.
fn write_safetensors(
    out: &mut impl Write,
    parts: &Parts<'_, '_>,
    store: &Store,
    path: &Path,
    wrote: &mut dyn FnMut(usize),
) -> Result<()> {
    let n_rows = parts.rows().len();
    // Name, type, shape and key; row_ids are of none.
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Option<usize>)> =
        vec![(ROW_ID.to_string(), Dtype::U64, vec![n_rows], None)];
    // A row tells type and shape, where there are parts.
    let answers = parts.head(1)?;
    for (key, answer) in answers.iter().enumerate() {
        let others = |same| has_like(&answers, key, same);
        let name = if others(|a, b| a.key == b.key) {
            format!("{}.{}", answer.key, selector(answer))
        } else if answer.key.intermediate == ROW_ID || others(|a, b| a.key.intermediate == b.key.intermediate) {
            answer.key.to_string()
        } else {
            answer.key.intermediate.clone()
        };
        if tensors.iter().any(|t| t.0 == name) {
            let why = format!("{name} is asked for twice");
            return Err(CliError::Content { path: path.to_path_buf(), why });
        }
        let mut values = values(answer, store, parts, None)?;
        if let Some(rows) = values.shape.first_mut() {
            *rows = n_rows;
        }
        tensors.push((name, values.dtype, values.shape, Some(key)));
    }
    // The widest first, so that each is aligned.
    tensors.sort_by_key(|t| std::cmp::Reverse(t.1.bitsize()));
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, dtype, shape, _) in &tensors {
        let end = at + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(file_error(path));
    write(&(header.len() as u64).to_le_bytes())?;
    write(header.as_bytes())?;
    for (_, dtype, _, key) in &tensors {
        let Some(key) = key else {
            write(&le(parts.rows().iter().map(|r| r.to_le_bytes())))?;
            continue;
        };
        for part in 0..parts.n_parts() {
            let answer = parts.one(*key, part)?;
            write(&values(&answer, store, parts, Some(*dtype))?.bytes)?;
            if *key == 0 {
                wrote(answer.rows.len());
            }
        }
    }
    Ok(())
}

/// One batch of all answers, which share their rows.
fn joined(answers: &[Answer]) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (i, answer) in answers.iter().enumerate() {
        let batch = answer.to_arrow()?;
        let skip = usize::from(i > 0);
        // Two versions of one layer would have one name.
        let others = |same| has_like(answers, i, same);
        let twice = others(|a, b| a.key.intermediate == b.key.intermediate);
        // Units of one layer are told apart by their selectors.
        let units = if others(|a, b| a.key == b.key) { format!(".{}", selector(answer)) } else { String::new() };
        let rename = |f: &std::sync::Arc<arrow::datatypes::Field>| {
            let field = f.as_ref().clone();
            match (twice || f.name() == ROW_ID, f.name() == &answer.key.intermediate) {
                (false, _) => field,
                (true, true) => field.with_name(format!("{}{units}", answer.key)),
                (true, false) => field.with_name(format!("{}.{}", answer.key, f.name())),
            }
        };
        fields.extend(batch.schema().fields().iter().skip(skip).take(1 - skip).cloned());
        fields.extend(batch.schema().fields().iter().skip(1).map(rename).map(std::sync::Arc::new));
        columns.extend(batch.columns().iter().skip(skip).cloned());
    }
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    Ok(RecordBatch::try_new(schema, columns).map_err(EngineError::from)?)
}

/// Whether another one of the answers is like the one at `at`.
fn has_like(answers: &[Answer], at: usize, same: fn(&Answer, &Answer) -> bool) -> bool {
    let Some(answer) = answers.get(at) else { return false };
    answers.iter().enumerate().any(|(other, a)| other != at && same(a, answer))
}

/// The columns of an answer: the first and the last of them.
fn selector(answer: &Answer) -> String {
    match &answer.columns[..] {
        [] => String::new(),
        [one] => one.clone(),
        [first, .., last] => format!("{first}..{last}"),
    }
}

/// CSV has no lists: every cell is a column, named by its selector.
fn write_csv(
    out: &mut impl Write,
    answers: &[Answer],
    titled: bool,
    error: impl Fn(std::io::Error) -> CliError,
) -> Result<()> {
    if titled {
        let several = answers.len() > 1;
        let title = |a: &Answer, c: &String| if several || c == ROW_ID { format!("{}.{c}", a.key) } else { c.clone() };
        let columns: Vec<String> =
            answers.iter().flat_map(|a| a.columns.iter().map(|c| csv_quoted(&title(a, c)))).collect();
        writeln!(out, "row_id,{}", columns.join(",")).map_err(&error)?;
    }
    let text = answers.iter().map(csv_cells).collect::<Result<Vec<_>>>()?;
    for (r, row) in answers.first().map_or(&[][..], |a| &a.rows).iter().enumerate() {
        let cells: Vec<&str> = text.iter().filter_map(|t| t.get(r)).flatten().map(String::as_str).collect();
        writeln!(out, "{row},{}", cells.join(",")).map_err(&error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::{ChunkReader, IfExists, LogOptions, ModelKey, ModelSpec, Request, RowSelection, TensorSpec};

    /// Rows out of order, some more than once.
    const ROWS: [u64; 23] = [4, 0, 2, 9, 9, 1, 22, 3, 5, 21, 6, 7, 8, 11, 10, 12, 13, 20, 14, 15, 16, 17, 4];

    fn store(dir: &Path) -> Store {
        let store = Store::open_or_create(dir.join("s.mq")).unwrap();
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
        let rows: Vec<u64> = (0..23).collect();
        let whole = |name: &str| TensorSpec::new(name, &[2, 3, 3]).with_scheme("f32".parse().unwrap());
        let maps: Vec<f32> = (0..23 * 18).map(|i| i as f32 / 7.0 - 20.0).collect();
        let handle = log.tensor(model, &whole("maps")).unwrap();
        log.append(handle, &rows, maps).unwrap();
        let halves: Vec<f16> = (0..23 * 4).map(|i| f16::from_f32(i as f32 / 3.0)).collect();
        let spec = TensorSpec::new("halves", &[4]).of(Code::F16);
        let handle = log.tensor(model, &spec).unwrap();
        log.append(handle, &rows, halves).unwrap();
        let handle = log.tensor(model, &TensorSpec::new("single", &[])).unwrap();
        log.append(handle, &rows, rows.iter().map(|r| *r as f32 / 2.0).collect::<Vec<_>>()).unwrap();
        let fields = [("n", DataType::Int64), ("is", DataType::Boolean), ("text", DataType::Utf8)];
        let schema = Arc::new(Schema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new((0..23).map(|i| (i % 5 != 0).then_some(i)).collect::<Int64Array>()),
            Arc::new((0..23).map(|i| Some(i % 3 == 0)).collect::<BooleanArray>()),
            Arc::new((0..23).map(|i| (i != 4).then(|| format!("a,\"{i}\""))).collect::<StringArray>()),
        ];
        let handle = log.table(model, "table", 9, &schema).unwrap();
        log.append_table(handle, &rows, &RecordBatch::try_new(schema, columns).unwrap()).unwrap();
        log.commit().unwrap();
        drop(log);
        store
    }

    /// All rows; `None` of none.
    fn rows_of(path: &Path) -> Option<RecordBatch> {
        let file = File::open(path).unwrap();
        let all: Vec<RecordBatch> = match path.extension().unwrap().to_str().unwrap() {
            "arrow" => arrow::ipc::reader::FileReader::try_new(file, None).unwrap().map(|b| b.unwrap()).collect(),
            _ => parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1024)
                .unwrap()
                .map(|b| b.unwrap())
                .collect(),
        };
        all.first().map(|first| arrow::compute::concat_batches(&first.schema(), &all).unwrap())
    }

    #[test]
    fn files_written_in_parts_are_those_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let reader = ChunkReader::new(&store);
        for keys in
            [&["maps"][..], &["halves"], &["single"], &["table"], &["maps.u1", "halves", "table"], &["table.is"]]
        {
            for rows in [&ROWS[..], &ROWS[..1], &[]] {
                let request = |key: &&str| {
                    Request::new(format!("p.m.{key}").parse().unwrap()).with_rows(RowSelection::List(rows.to_vec()))
                };
                let requests: Vec<Request> = keys.iter().map(request).collect();
                let whole = Parts::Whole(reader.get_intermediates(&requests).unwrap());
                for step in [1, 7, 23, 100] {
                    let scans = requests.iter().map(|r| reader.scan(r).unwrap()).collect();
                    let parts = Parts::Scans { scans, rows: rows.to_vec(), step };
                    for kind in ["npy", "safetensors", "parquet", "arrow", "csv"] {
                        let [a, b] = ["a", "b"].map(|n| dir.path().join(format!("{n}.{kind}")));
                        let mut wrote = 0;
                        let told = write(&a, &whole, &store, &mut |_| {}).map_err(|e| e.to_string());
                        let said = write(&b, &parts, &store, &mut |n| wrote += n).map_err(|e| e.to_string());
                        let what = format!("{keys:?}, {} rows by {step} as {kind}", rows.len());
                        if told.is_err() {
                            assert_eq!(said.is_err(), told.is_err(), "{what}");
                            continue;
                        }
                        assert_eq!((said, wrote), (Ok(()), rows.len()), "{what}");
                        match kind {
                            "parquet" | "arrow" => assert_eq!(rows_of(&a), rows_of(&b), "{what}"),
                            _ => assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "{what}"),
                        }
                        if kind == "safetensors" {
                            let bytes = std::fs::read(&b).unwrap();
                            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                            let ids = file.tensor("row_id").unwrap().data().to_vec();
                            assert_eq!(ids, le(rows.iter().map(|r| r.to_le_bytes())), "{what}");
                            if keys.contains(&"halves") {
                                assert_eq!(file.tensor("halves").unwrap().dtype(), Dtype::F16, "{what}");
                            }
                        }
                    }
                }
            }
        }
    }
}
