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
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use super::cells::{csv_cells, csv_quoted};
use super::{CliError, Result, file_error};
use crate::{Answer, Code, Content, Data, EngineError, Store};

/// Writes answers as the file's extension says.
pub fn write(path: &Path, answers: &[Answer], store: &Store) -> Result<()> {
    let content = |why: String| CliError::Content { path: path.to_path_buf(), why };
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    whole(path, |out| match (extension, answers) {
        ("npy", [answer]) => write_npy(out, &Values::of(answer, store)?, file_error(path)),
        ("npy", _) => {
            Err(content("an .npy file holds one array; name one key, or write .parquet or .safetensors".into()))
        }
        ("safetensors", _) => {
            let bytes = tensors(answers, store).and_then(|bytes| bytes.map_err(content))?;
            out.write_all(&bytes).map_err(file_error(path))
        }
        ("parquet", _) => super::export::write_parquet(out, &joined(answers)?).map_err(content),
        ("arrow", _) => {
            let batch = joined(answers)?;
            let writer = arrow::ipc::writer::FileWriter::try_new(out, &batch.schema()).map_err(EngineError::from);
            let mut writer = writer?;
            writer.write(&batch).and_then(|()| writer.finish()).map_err(|e| content(e.to_string()))
        }
        ("csv", _) => write_csv(out, answers, file_error(path)),
        _ => Err(content(format!("cannot write .{extension}; give .npy, .parquet, .arrow, .csv or .safetensors"))),
    })
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

/// Values of an answer in one type, row-major: that which they were logged in, where they still are of it.
struct Values<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Values<'a> {
    fn of(answer: &'a Answer, store: &Store) -> Result<Self> {
        let shape = std::iter::once(answer.rows.len()).chain(answer.shape.iter().copied()).collect();
        let (dtype, bytes) = match &answer.data {
            Data::F64(v) => (Dtype::F64, in_place(v, f64::to_le_bytes)),
            Data::F32(v) => match &*store.intermediate(&answer.key)?.content {
                Content::Tensor(t)
                    if t.dtype == Code::F16 && v.iter().all(|x| same(*x, f16::from_f32(*x).to_f32())) =>
                {
                    (Dtype::F16, le(v.iter().map(|x| f16::from_f32(*x).to_le_bytes())).into())
                }
                Content::Tensor(t)
                    if t.dtype == Code::BF16 && v.iter().all(|x| same(*x, bf16::from_f32(*x).to_f32())) =>
                {
                    (Dtype::BF16, le(v.iter().map(|x| bf16::from_f32(*x).to_le_bytes())).into())
                }
                _ => (Dtype::F32, in_place(v, f32::to_le_bytes)),
            },
            Data::Table(batch) => return Self::of_table(answer, batch),
        };
        Ok(Self { dtype, shape, bytes })
    }

    fn view(&self) -> std::result::Result<TensorView<'_>, SafeTensorError> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes)
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

/// Writes one array as `.npy` (version 1.0); numpy has no bfloat16, which becomes float32.
fn write_npy(out: &mut impl Write, values: &Values<'_>, error: impl Fn(std::io::Error) -> CliError) -> Result<()> {
    let wide;
    let (descr, bytes): (_, &[u8]) = match values.dtype {
        Dtype::BOOL => ("|b1", &values.bytes),
        Dtype::I8 => ("|i1", &values.bytes),
        Dtype::U8 => ("|u1", &values.bytes),
        Dtype::I16 => ("<i2", &values.bytes),
        Dtype::U16 => ("<u2", &values.bytes),
        Dtype::I32 => ("<i4", &values.bytes),
        Dtype::U32 => ("<u4", &values.bytes),
        Dtype::I64 => ("<i8", &values.bytes),
        Dtype::U64 => ("<u8", &values.bytes),
        Dtype::F16 => ("<f2", &values.bytes),
        Dtype::BF16 => {
            let (words, _) = values.bytes.as_chunks::<2>();
            wide = le(words.iter().map(|w| bf16::from_le_bytes(*w).to_f32().to_le_bytes()));
            ("<f4", &wide)
        }
        Dtype::F32 => ("<f4", &values.bytes),
        _ => ("<f8", &values.bytes),
    };
    let sides: String = values.shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version and length take 10 bytes; the whole is a multiple of 64 and ends with a line's end.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header += &" ".repeat(padded - header.len() - 1);
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), bytes]
        .into_iter()
        .try_for_each(|b| out.write_all(b))
        .map_err(error)
}

/// Answers as one safetensors file: a tensor each, named by its intermediate, and `row_id`.
fn tensors(answers: &[Answer], store: &Store) -> Result<std::result::Result<Vec<u8>, String>> {
    let rows = answers.first().map_or(&[][..], |a| &a.rows);
    let row_ids = le(rows.iter().map(|r| r.to_le_bytes()));
    let mut tensors =
        vec![("row_id".to_string(), Values { dtype: Dtype::U64, shape: vec![rows.len()], bytes: row_ids.into() })];
    for answer in answers {
        let taken = |n: &str| tensors.iter().any(|(t, _)| t == n);
        let name = match taken(&answer.key.intermediate) {
            false => answer.key.intermediate.clone(),
            true if !taken(&answer.key.to_string()) => answer.key.to_string(),
            true => return Ok(Err(format!("{} is asked for twice", answer.key))),
        };
        tensors.push((name, Values::of(answer, store)?));
    }
    let views = tensors.iter().map(|(name, v)| v.view().map(|view| (name, view)));
    let views = views.collect::<std::result::Result<Vec<_>, _>>();
    Ok(views.and_then(|views| safetensors::serialize(views, None)).map_err(|e| e.to_string()))
}

/// One batch of all answers, which share their rows.
fn joined(answers: &[Answer]) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (i, answer) in answers.iter().enumerate() {
        let batch = answer.to_arrow()?;
        let skip = usize::from(i > 0);
        // Two versions of one layer would have one name.
        let rename = |f: &std::sync::Arc<arrow::datatypes::Field>| {
            let twice =
                answers.iter().enumerate().any(|(j, a)| j != i && a.key.intermediate == answer.key.intermediate);
            let field = f.as_ref().clone();
            match (twice, f.name() == &answer.key.intermediate) {
                (false, _) => field,
                (true, true) => field.with_name(answer.key.to_string()),
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

/// CSV has no lists: every cell is a column, named by its selector.
fn write_csv(out: &mut impl Write, answers: &[Answer], error: impl Fn(std::io::Error) -> CliError) -> Result<()> {
    let title = |a: &Answer, c: &String| if answers.len() > 1 { format!("{}.{c}", a.key) } else { c.clone() };
    let columns: Vec<String> =
        answers.iter().flat_map(|a| a.columns.iter().map(|c| csv_quoted(&title(a, c)))).collect();
    writeln!(out, "row_id,{}", columns.join(",")).map_err(&error)?;
    let text = answers.iter().map(csv_cells).collect::<Result<Vec<_>>>()?;
    for (r, row) in answers.first().map_or(&[][..], |a| &a.rows).iter().enumerate() {
        let cells: Vec<&str> = text.iter().filter_map(|t| t.get(r)).flatten().map(String::as_str).collect();
        writeln!(out, "{row},{}", cells.join(",")).map_err(&error)?;
    }
    Ok(())
}
