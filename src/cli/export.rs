//! `mistique export`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::output::{count, damage_json, damage_note, pretty};
use super::progress::Progress;
use super::{CliError, Result, file_error};
use crate::{
    ChunkReader, Damage, EngineError, IntermediateRecord, Key, PlanChoice, QueryError, Request, RowSelection, Store,
};

/// Rows that an export holds in memory at a time.
const BATCH_VALUES: usize = 1 << 24;

/// A writer of Parquet files, whose rows come a batch at a time.
pub fn parquet_writer<W: Write + Send>(out: W, batch: &RecordBatch) -> std::result::Result<ArrowWriter<W>, String> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    ArrowWriter::try_new(out, with_parquet_types(batch)?.schema(), Some(properties)).map_err(|e| e.to_string())
}

/// Parquet has no days in milliseconds and no times in seconds: without another type they are read as integers.
fn with_parquet_types(batch: &RecordBatch) -> std::result::Result<RecordBatch, String> {
    let known = |t: &DataType| match t {
        DataType::Date64 => DataType::Date32,
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        t => t.clone(),
    };
    let schema = batch.schema();
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_data_type(known(f.data_type())));
    let fields: Vec<Field> = fields.collect();
    let columns = batch.columns().iter().zip(&fields).map(|(c, f)| cast(c, f.data_type()));
    let columns = columns.collect::<std::result::Result<_, _>>().map_err(|e| e.to_string())?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(|e| e.to_string())
}

/// Bytes of a batch that are encoded at a time, and encoded bytes of a row group.
const SLICE_BYTES: usize = 16 << 20;
const GROUP_BYTES: usize = 64 << 20;

/// Writes a batch a slice at a time: what the writer holds does not grow with it.
pub fn write_part<W: Write + Send>(
    writer: &mut ArrowWriter<W>,
    batch: &RecordBatch,
) -> std::result::Result<(), String> {
    let n_rows = batch.num_rows();
    let row_bytes = batch.get_array_memory_size() / n_rows.max(1);
    let step = (SLICE_BYTES / row_bytes.max(1)).max(1);
    for start in (0..n_rows).step_by(step) {
        let slice = with_parquet_types(&batch.slice(start, step.min(n_rows - start)))?;
        writer.write(&slice).map_err(|e| e.to_string())?;
        if writer.in_progress_size() > GROUP_BYTES {
            writer.flush().map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

pub fn run(store: &Store, dir: &Path, as_json: bool) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(file_error(dir))?;
    if std::fs::read_dir(dir).map_err(file_error(dir))?.next().is_some() {
        return Err(CliError::Content {
            path: dir.to_path_buf(),
            why: "the folder is not empty; name a new one".into(),
        });
    }
    let reader = super::get::reader(store, crate::Device::Cpu).with_answer_bytes(0).uncounted();
    let (mut damage, records) = {
        let catalog = store.catalog();
        (catalog.readable_models().damage, catalog.readable_intermediates())
    };
    damage.extend(records.damage);
    let records = records.rows;
    let mut progress = Progress::rows("exporting", as_json);
    let total: u64 = records.iter().map(|r| r.n_rows).sum();
    let mut done = 0;
    let (mut manifest, mut left_out) = (Vec::new(), Vec::new());
    for (i, record) in records.iter().enumerate() {
        // Names are data and never become paths: files are numbered, the manifest says what they hold.
        let name = format!("{i:05}.parquet");
        let path = dir.join(&name);
        match export(&reader, record, &path, &mut |n| {
            done += n;
            progress.at(done, total);
        }) {
            Ok(()) => manifest.push(json!({
                "file": name, "key": record.key.to_string(), "rows": record.n_rows, "scheme": record.content.scheme_text(),
            })),
            // What is damaged, or neither stored nor to be run again, is left out, and the rest is exported.
            Err(e @ (CliError::Engine(_) | CliError::Query(_))) => {
                if path.exists() {
                    std::fs::remove_file(&path).map_err(file_error(&path))?;
                }
                let key = record.key.to_string();
                if is_damage(&e) {
                    let why = format!("{key} is left out: {e}");
                    damage.push(Damage { place: name, why, keys: vec![key] });
                } else {
                    left_out.push((key, e.to_string()));
                }
            }
            Err(e) => return Err(e),
        }
    }
    progress.finish();
    let n = manifest.len();
    let lacking: Vec<_> = left_out.iter().map(|(key, why)| json!({ "key": key, "why": why })).collect();
    let manifest = json!({ "intermediates": manifest, "left_out": lacking, "damage": damage_json(&damage) });
    let path = dir.join("manifest.json");
    std::fs::write(&path, pretty(&manifest)).map_err(file_error(&path))?;
    super::print(&if as_json {
        pretty(&manifest)
    } else {
        format!("{}: {} intermediates, named in manifest.json\n", dir.display(), count(n as u64))
    })?;
    damage_note(&damage);
    left_out.iter().for_each(|(key, why)| eprintln!("warning: {key} is left out: {why}"));
    match (damage.len(), left_out.len()) {
        (0, 0) => Ok(()),
        (0, n) => Err(CliError::LeftOut(n)),
        (n, _) => Err(CliError::Damaged(n)),
    }
}

fn is_damage(e: &CliError) -> bool {
    matches!(
        e,
        CliError::Engine(EngineError::Corrupt { .. } | EngineError::Io { .. })
            | CliError::Query(QueryError::Engine(EngineError::Corrupt { .. } | EngineError::Io { .. }))
    )
}

/// Writes all rows of an intermediate; `wrote` is told how many were written.
fn export(
    reader: &ChunkReader<'_>,
    record: &IntermediateRecord,
    path: &Path,
    wrote: &mut dyn FnMut(u64),
) -> Result<()> {
    let content = |why: String| CliError::Content { path: path.to_path_buf(), why };
    let rows: Vec<u64> = reader.store().plan_rows(record, &crate::Rows::All)?.rows.iter().collect();
    let width = (record.content.logical_row_bytes() / 4).max(1) as usize;
    let mut writer = None;
    // Of no rows a file is written too: it has the columns.
    let none = [&rows[..0]];
    let parts = rows.chunks((BATCH_VALUES / width).max(1)).chain(none.into_iter().filter(|_| rows.is_empty()));
    for part in parts {
        let key = Key { intermediate: record.key.clone(), columns: None };
        // What is stored is exported as it is stored; what is not is run again.
        let plan = if record.is_whole() { PlanChoice::READ } else { PlanChoice::Auto };
        let request = Request::new(key).with_rows(RowSelection::List(part.to_vec())).with_plan(plan);
        let batch = reader.get(&request)?.to_arrow()?;
        let open = match &mut writer {
            Some(open) => open,
            None => {
                let file = File::create(path).map_err(file_error(path))?;
                writer.insert(parquet_writer(file, &batch).map_err(content)?)
            }
        };
        write_part(open, &batch).map_err(content)?;
        wrote(part.len() as u64);
    }
    if let Some(writer) = writer {
        writer.close().map_err(|e| content(e.to_string()))?;
    }
    Ok(())
}
