//! `mistique export`.

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
use crate::{Key, PlanChoice, Request, RowSelection, Store};

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
