//! `mistique export`, and the files that `get` writes.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::output::{count, pretty};
use super::progress::Progress;
use super::{CliError, Result, file_error};
use crate::{Answer, Data, Key, PlanChoice, Request, RowSelection, Store};

/// Rows that an export holds in memory at a time.
const BATCH_VALUES: usize = 1 << 24;

/// Writes a batch as one Parquet file.
pub fn write_parquet(out: impl Write + Send, batch: &RecordBatch) -> std::result::Result<(), String> {
    let mut writer = parquet_writer(out, batch)?;
    writer.write(batch).map_err(|e| e.to_string())?;
    writer.close().map(|_| ()).map_err(|e| e.to_string())
}

fn parquet_writer<W: Write + Send>(out: W, batch: &RecordBatch) -> std::result::Result<ArrowWriter<W>, String> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    ArrowWriter::try_new(out, batch.schema(), Some(properties)).map_err(|e| e.to_string())
}

/// Answers as one safetensors file: a tensor each, named by its intermediate, and `row_id`.
pub fn safetensors(answers: &[Answer]) -> std::result::Result<Vec<u8>, String> {
    let rows = answers.first().map_or(&[][..], |a| &a.rows);
    let mut tensors = vec![(
        "row_id".to_string(),
        safetensors::Dtype::U64,
        vec![rows.len()],
        le(rows.iter().map(|r| r.to_le_bytes())),
    )];
    for answer in answers {
        let shape = std::iter::once(answer.rows.len()).chain(answer.shape.iter().copied()).collect();
        let (dtype, bytes) = match &answer.data {
            Data::F32(v) => (safetensors::Dtype::F32, le(v.iter().map(|x| x.to_le_bytes()))),
            Data::F64(v) => (safetensors::Dtype::F64, le(v.iter().map(|x| x.to_le_bytes()))),
            Data::Table(_) => {
                let values = answer.to_f64().map_err(|e| e.to_string())?;
                (safetensors::Dtype::F64, le(values.iter().map(|x| x.to_le_bytes())))
            }
        };
        let taken = |n: &str| tensors.iter().any(|(t, ..)| t == n);
        let name = match taken(&answer.key.intermediate) {
            false => answer.key.intermediate.clone(),
            true if !taken(&answer.key.to_string()) => answer.key.to_string(),
            true => return Err(format!("{} is asked for twice", answer.key)),
        };
        tensors.push((name, dtype, shape, bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).map(|v| (name.clone(), v))
        })
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    safetensors::serialize(views, None).map_err(|e| e.to_string())
}

/// Writes a float64 array as `.npy` (version 1.0).
pub fn write_npy_f64(mut out: impl Write, shape: &[usize], values: &[f64]) -> std::io::Result<()> {
    let sides: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version and length take 10 bytes; the whole is a multiple of 64 and ends with a line's end.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header += &" ".repeat(padded - header.len() - 1);
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(&le(values.iter().map(|v| v.to_le_bytes())))?;
    out.flush()
}

fn le<const N: usize>(words: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    words.flatten().collect()
}

pub fn run(store: &Store, dir: &Path, as_json: bool) -> Result<String> {
    std::fs::create_dir_all(dir).map_err(file_error(dir))?;
    if std::fs::read_dir(dir).map_err(file_error(dir))?.next().is_some() {
        return Err(CliError::Content {
            path: dir.to_path_buf(),
            why: "the folder is not empty; name a new one".into(),
        });
    }
    let reader = super::get::reader(store, crate::Device::Cpu).with_answer_bytes(0);
    let mut records = Vec::new();
    for model in store.models()? {
        records.extend(store.intermediates(&model)?);
    }
    let mut progress = Progress::rows("exporting", as_json);
    let total: u64 = records.iter().map(|r| r.n_rows).sum();
    let mut done = 0;
    let mut manifest = Vec::new();
    for (i, record) in records.iter().filter(|r| r.n_rows > 0).enumerate() {
        // Names are data and never become paths: files are numbered, the manifest says what they hold.
        let name = format!("{i:05}.parquet");
        let path = dir.join(&name);
        let content = |why: String| CliError::Content { path: path.clone(), why };
        let rows: Vec<u64> = store.plan_rows(record, &crate::Rows::All)?.rows.iter().collect();
        let width = (record.content.logical_row_bytes() / 4).max(1) as usize;
        let mut writer = None;
        for part in rows.chunks((BATCH_VALUES / width).max(1)) {
            let key = Key { intermediate: record.key.clone(), columns: None };
            let request = Request::new(key).with_rows(RowSelection::List(part.to_vec()));
            // What is stored is exported as it is stored; what is not is run again.
            let plan = if record.is_whole() { PlanChoice::Read } else { PlanChoice::Auto };
            let request = request.with_plan(plan);
            let batch = reader.get(&request)?.to_arrow()?;
            let open = match &mut writer {
                Some(open) => open,
                None => {
                    let file = File::create(&path).map_err(file_error(&path))?;
                    writer.insert(parquet_writer(file, &batch).map_err(content)?)
                }
            };
            open.write(&batch).map_err(|e| content(e.to_string()))?;
            done += part.len() as u64;
            progress.at(done, total);
        }
        if let Some(writer) = writer {
            writer.close().map_err(|e| content(e.to_string()))?;
        }
        manifest.push(json!({
            "file": name, "key": record.key.to_string(), "rows": record.n_rows, "scheme": record.content.scheme_text(),
        }));
    }
    progress.finish();
    let n = manifest.len();
    let manifest = json!({ "intermediates": manifest });
    let path = dir.join("manifest.json");
    std::fs::write(&path, pretty(&manifest)).map_err(file_error(&path))?;
    Ok(if as_json {
        pretty(&manifest)
    } else {
        format!("{}: {} intermediates, named in manifest.json\n", dir.display(), count(n as u64))
    })
}
