//! `mistique append KEY FILE`: values of any framework.

mod arrays;
mod row_ids;
mod tables;

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use clap::Args;
use mistique_datasets::read_parquet;
use serde_json::json;

use super::log::WriteArgs;
use super::output::{bytes, count, pretty, shape_text};
use super::{CliError, Result};
use crate::{
    Code, EngineError, IfExists, IntermediateKey, LogReport, Logger, ModelHandle, ModelKey, ModelSpec, Rows, Scheme,
    Store, TensorSource, TensorSpec, UnitAxis,
};

#[derive(Debug, Args)]
pub struct AppendArgs {
    /// project.model[@version].intermediate; for a .safetensors file of several tensors, project.model[@version].
    key: String,
    /// .npy, .safetensors, .parquet or .arrow; the first axis counts rows.
    file: PathBuf,
    /// What to do to the values of tensors: of a file's several, to those of floats; others are stored as they are.
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
        name: Option<String>,
        batch: RecordBatch,
        rows: Option<Vec<u64>>,
    },
}

impl Item {
    /// Its name in the file, where it has one.
    fn name(&self) -> Option<&String> {
        match self {
            Self::Tensor { name, .. } | Self::Table { name, .. } => name.as_ref(),
        }
    }
}

/// Which scheme the tensors of a file get.
struct Schemes<'a> {
    given: Option<&'a Scheme>,
    /// Whether there are tensors of floats, which the scheme is meant for where integers are beside them.
    has_floats: bool,
}

impl<'a> Schemes<'a> {
    /// Errors: `Usage` for a scheme where no tensor is.
    fn of(args: &'a AppendArgs, items: &[Item]) -> Result<Self> {
        let given = args.scheme.as_ref();
        if given.is_some() && items.iter().all(|item| matches!(item, Item::Table { .. })) {
            return Err(CliError::Usage("--scheme is for tensors; a table is stored as it is".into()));
        }
        let has_floats = items.iter().any(|item| matches!(item, Item::Tensor { exact: false, .. }));
        Ok(Self { given, has_floats })
    }

    /// That of a tensor; `None` for the default of its shape and type.
    fn of_tensor(&self, exact: bool, dtype: Code) -> Option<Scheme> {
        let given = self.given.filter(|_| !(exact && self.has_floats));
        let lossless = if dtype == Code::F64 { "f64" } else { "f32" };
        given.cloned().or_else(|| if exact { lossless.parse().ok() } else { None })
    }
}

pub fn run(args: &AppendArgs, path: &Path, as_json: bool) -> Result<String> {
    let items = read(&args.file)?;
    let given_rows = args.row_ids.as_deref().map(row_ids::file).transpose()?;
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
    let schemes = Schemes::of(args, &items)?;
    let unnamed = || CliError::Usage(format!("{}: name an intermediate too: project.model.intermediate", args.key));
    let named = |item: &Item| name.as_ref().or(item.name()).cloned().ok_or_else(unnamed);
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
                let scheme = schemes.of_tensor(exact, values.dtype());
                append_tensor(&mut log, model, args, &name, position, shape, values, scheme, rows)?
            }
            Item::Table { batch, rows: own, .. } => {
                let handle = log.table(model, &name, position as i64, &batch.schema()).map_err(of_file(&args.file))?;
                let ids = rows(batch.num_rows(), own)?;
                log.reserve(batch.get_array_memory_size() as u64)?;
                log.append_table(handle, &ids, &batch).map_err(of_file(&args.file))?;
                batch.num_rows()
            }
        };
        appended.push((key, n));
    }
    let report = log.complete(model).and_then(|()| log.commit()).map_err(of_file(&args.file))?;
    super::log::report_note(&report);
    super::log::error_note(&store, appended.iter().map(|(key, _)| key))?;
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
    scheme: Option<Scheme>,
    rows: impl Fn(usize) -> Result<Vec<u64>>,
) -> Result<usize> {
    let [n, row_shape @ ..] = &shape[..] else {
        return Err(content(&args.file, format!("{name} is a single number; the first axis must count rows")));
    };
    let spec = TensorSpec {
        name: name.to_string(),
        position: position as i64,
        shape: row_shape.to_vec(),
        dtype: values.dtype(),
        unit_axis: if args.channels_last { UnitAxis::Last } else { UnitAxis::First },
        scheme,
    };
    let ids = rows(*n)?;
    let handle = log.tensor(model, &spec).map_err(of_file(&args.file))?;
    let most = log.max_bytes(handle, *n as u64)?;
    eprintln!("appending {n} rows of {}, at most {}", shape_text(row_shape), bytes(most));
    log.reserve(most)?;
    log.append_boxed(handle, &ids, values).map_err(of_file(&args.file))?;
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

/// What the store says of values, with the file that they came from.
fn of_file(path: &Path) -> impl Fn(EngineError) -> CliError {
    move |e| if is_of_values(&e) { content(path, e.to_string()) } else { e.into() }
}

fn is_of_values(e: &EngineError) -> bool {
    match e {
        EngineError::LogFailed(e) => is_of_values(e),
        EngineError::Arrow(_)
        | EngineError::Conflict { .. }
        | EngineError::DuplicateRow { .. }
        | EngineError::Quantize { .. }
        | EngineError::Shape { .. }
        | EngineError::Unholdable { .. }
        | EngineError::Unsupported { .. } => true,
        _ => false,
    }
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
            let why = format!("{key}: {n} rows come, and {} row_ids are given; one a row is needed", ids.len());
            return Err(content(&args.file, why));
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

fn read(path: &Path) -> Result<Vec<Item>> {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "npy" => arrays::npy(path).map(|item| vec![item]),
        "safetensors" => arrays::safetensors(path),
        "parquet" => tables::items(path, read_parquet(path)?),
        "arrow" | "ipc" | "feather" => tables::items(path, tables::read_arrow(path)?),
        other => Err(content(path, format!("cannot read .{other} files; give .npy, .safetensors, .parquet or .arrow"))),
    }
}
