//! `mistique log`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::output::{bytes, count, pretty, seconds, times};
use super::progress::Progress;
use super::{CliError, Result, file_error, pipeline};
use crate::datasets::Dataset;
use crate::{
    Dedup, Device, Effort, IfExists, Input, IntermediateKey, LayerPattern, LogOptions, MapValue, Materialize, ModelKey,
    Network, OnUnholdable, RunOptions, Scheme, Spec, Store, Weights, log_intermediates,
};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("start").args(["weights", "init"])))]
pub struct LogArgs {
    /// project.model or project.model@version with --arch; or pipelines: YAML files with `stages`.
    #[arg(required = true, value_name = "MODEL|PIPELINE.yaml")]
    what: Vec<String>,
    /// A built-in network (digits_cnn, cifar10_cnn, vgg16, resnet20) or a YAML or JSON file.
    #[arg(long, value_name = "NAME|FILE", requires = "start")]
    arch: Option<String>,
    /// Weights, named as PyTorch names them.
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// Random weights from this seed instead.
    #[arg(long, value_name = "SEED")]
    init: Option<u64>,
    /// The dataset, such as digits, cifar10:DIR or npy:FILE; `mistique dataset ls` lists all. Of a pipeline: where its files
    /// are, a folder, one file, or generated:NAME.
    #[arg(long, value_name = "SPEC")]
    data: String,
    /// Project of a pipeline's models (default: what its file says, else `pipelines`).
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Name of the dataset in the store (default: from --data).
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Which layers, with * and commas.
    #[arg(long, default_value = "*", value_name = "PATTERN")]
    layers: String,
    /// What to do to the values, such as pool(2)+f16, lloyd(8) or auto(0.01) (default: pool(2)+f16 for maps, f16 for
    /// vectors).
    #[arg(long)]
    scheme: Option<Scheme>,
    /// Rows a batch.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Rows of the dataset, such as 0..10000 (default: all).
    #[arg(long, value_name = "A..B")]
    rows: Option<String>,
    /// Build an index of each layer's activations meanwhile; where the scheme pools maps, it serves questions with --exact.
    #[arg(long, value_enum, requires = "arch")]
    index: Option<IndexArg>,
    /// Seconds between commits, from which an interrupted log goes on.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    checkpoint: f64,
    #[command(flatten)]
    options: WriteArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum IndexArg {
    /// Ranges of each unit's activations, for questions about groups of units.
    ByExample,
}

/// What all writing commands take.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Replace what was logged before: the whole model for `log`, the intermediate for `append`.
    #[arg(long)]
    pub replace: bool,
    /// Bytes that waiting batches may hold.
    #[arg(long, default_value = "256MiB", value_name = "BYTES", value_parser = mistique_engine::parse_bytes)]
    pub budget: u64,
    /// Refuse to write more than this.
    #[arg(long, value_name = "BYTES", value_parser = mistique_engine::parse_bytes)]
    pub max_bytes: Option<u64>,
    /// Clamp and count values that the scheme cannot hold instead of failing.
    #[arg(long)]
    pub clamp: bool,
    /// What the store keeps of values that can be rerun, from now on: all, none, adaptive(SECONDS PER GB) or
    /// budget(BYTES[,SECONDS PER GB]) (default: as `mistique materialize` says).
    #[arg(long, value_name = "MODE")]
    pub materialize: Option<Materialize>,
    /// Compress as small as possible while writing (`mistique compact` does so later).
    #[arg(long)]
    pub small: bool,
    /// Which chunks are not stored in full: those equal to stored ones (exact), besides columns like stored ones
    /// (approximate), or none (off).
    #[arg(long, default_value_t, value_name = "off|exact|approximate")]
    pub dedup: Dedup,
}

impl WriteArgs {
    pub fn log_options(&self) -> LogOptions {
        LogOptions::default()
            .with_budget_bytes(usize::try_from(self.budget).unwrap_or(usize::MAX))
            .with_max_bytes(self.max_bytes)
            .with_effort(if self.small { Effort::Small } else { Effort::Fast })
            .with_dedup(self.dedup)
            .with_on_unholdable(if self.clamp { OnUnholdable::Clamp } else { OnUnholdable::Error })
    }

    /// Says what the store keeps, where that was asked for.
    pub fn set_mode(&self, store: &Store) -> Result<()> {
        Ok(self.materialize.map_or(Ok(()), |mode| store.set_materialize(mode))?)
    }

    pub fn if_exists(&self) -> IfExists {
        if self.replace { IfExists::Replace } else { IfExists::Continue }
    }
}

impl LogArgs {
    /// Refuses what says how a network is run, where a pipeline is.
    fn check_pipeline(&self) -> Result<()> {
        let given = [
            ("--rows", self.rows.is_some()),
            ("--layers", self.layers != "*"),
            ("--scheme", self.scheme.is_some()),
            ("--weights", self.weights.is_some()),
            ("--init", self.init.is_some()),
            ("--device", self.device != Device::Cpu),
            ("--clamp", self.options.clamp),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((name, _)) => Err(CliError::Usage(format!(
                "{name} is of networks: a pipeline runs on the processor, all rows of all stages, which are stored as they are"
            ))),
        }
    }
}

/// A built-in network or a description file.
pub fn network(arch: &str) -> Result<Network> {
    let path = Path::new(arch);
    if path.is_file() {
        let text = std::fs::read_to_string(path).map_err(file_error(path))?;
        return Network::parse(&text).map_err(|e| CliError::Content { path: path.to_path_buf(), why: e.to_string() });
    }
    if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
        return Err(CliError::Content { path: path.to_path_buf(), why: "there is no such file".into() });
    }
    Ok(Network::builtin(arch)?)
}

fn row_range(text: &str) -> Result<std::ops::Range<u64>> {
    match text.parse()? {
        crate::RowSelection::Range(range) => Ok(range),
        _ => Err(CliError::Usage(format!("--rows {text}: log takes a range such as 0..10000"))),
    }
}

pub fn run(args: &LogArgs, store: &Path, as_json: bool) -> Result<String> {
    let checkpoint = std::time::Duration::try_from_secs_f64(args.checkpoint)
        .map_err(|e| CliError::Usage(format!("--checkpoint {}: {e}", args.checkpoint)))?;
    let pipelines = if args.arch.is_none() { pipeline::files(&args.what)? } else { Vec::new() };
    if !pipelines.is_empty() {
        args.check_pipeline()?;
        let (dataset, project) = (args.dataset.clone(), args.project.clone());
        let args = pipeline::PipelineArgs { data: &args.data, dataset, project, checkpoint, options: &args.options };
        return pipeline::log(&pipelines, &args, store, as_json);
    }
    let ([model], Some(arch)) = (args.what.as_slice(), &args.arch) else {
        let what = args.what.join(" ");
        return Err(CliError::Usage(format!(
            "{what}: to log a network, write project.model --arch NAME|FILE with --weights FILE or --init SEED; to log a \
             pipeline, write the name of its YAML file (with `stages`)"
        )));
    };
    let key: ModelKey = model.parse()?;
    let network = network(arch)?;
    let weights = match (&args.weights, args.init) {
        (Some(path), _) => {
            let bytes = std::fs::read(path).map_err(file_error(path))?;
            let weights = Weights::load_safetensors(&bytes);
            let content = |e: crate::NetworkError| CliError::Content { path: path.clone(), why: e.to_string() };
            let weights = weights.map_err(content)?;
            weights.check(&network).map_err(content)?;
            weights
        }
        (None, seed) => Weights::init(&network, seed.unwrap_or_default()),
    };
    let spec: Spec = args.data.parse()?;
    let dataset = crate::datasets::open(&spec)?;
    if !as_json {
        left_out_note(&*dataset);
    }
    let options = RunOptions {
        layers: LayerPattern::new(&args.layers)?,
        scheme: args.scheme.clone(),
        batch_rows: args.batch as usize,
        device: args.device,
        rows: args.rows.as_deref().map(row_range).transpose()?,
        if_exists: args.options.if_exists(),
        log: args.options.log_options(),
        index: args.index.map(|IndexArg::ByExample| MapValue::Max),
        checkpoint,
    };
    // Everything is checked before a store is made.
    options.layers.select(&network)?;
    let store = Store::open_or_create(store)?;
    args.options.set_mode(&store)?;
    let name = args.dataset.clone().unwrap_or_else(|| spec.name());
    let input = Input { name, spec: &spec, dataset: &*dataset };
    let mut progress = Progress::rows("logging", as_json);
    let mut announced = false;
    let report = log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |p| {
        if !std::mem::replace(&mut announced, true) && !as_json {
            eprintln!(
                "logging {key}: {} rows, at most {} in {}",
                count(p.total_rows),
                bytes(p.max_bytes),
                store.storage().describe()
            );
        }
        progress.at(p.done_rows, p.total_rows);
    });
    progress.finish();
    let report = report?;
    let without_values = without_values(&store, &key, &report.layers)?;
    let log = report.log;
    if as_json {
        return Ok(pretty(&json!({
            "model": key.to_string(), "layers": report.layers, "rows_added": report.added_rows,
            "rows_run": report.run_rows, "layers_without_all_values": without_values, "executor": report.executor,
            "seconds": report.seconds, "forward_seconds": report.forward_seconds, "logical_bytes": log.logical_bytes,
            "written_bytes": log.written_bytes, "new_chunks": log.new_chunks, "duplicate_chunks": log.duplicate_chunks,
            "saved_bytes": log.saved_bytes, "clamped": log.clamped,
            "left_out": left_out_json(&*dataset), "indexes": report.indexed.made.iter().map(|i| i.id).collect::<Vec<_>>(),
        })));
    }
    if report.added_rows == 0 {
        let (n, without) = (report.layers.len(), without_values.len());
        return Ok(match without {
            0 => format!("{key}: all rows of {n} layers are stored already\n"),
            _ => format!(
                "{key}: all rows of {n} layers are known already, but of {without} not all values are kept: they are rerun \
                 when asked for; `mistique materialize --mode all --apply` stores them\n"
            ),
        });
    }
    report_note(&log);
    let keys: Vec<_> = report.layers.iter().map(|layer| key.intermediate(layer)).collect();
    error_note(&store, &keys)?;
    for (layer, why) in &report.indexed.left_out {
        eprintln!("{key}.{layer} is not indexed: {why}; `mistique index create` does it");
    }
    let indexes = match report.indexed.made.len() {
        0 => String::new(),
        n => format!("; {n} indexes of {}", bytes(report.indexed.made.iter().map(|i| i.len_bytes).sum())),
    };
    Ok(format!(
        "{key}: {} layers of {} rows in {} ({} in the network, {}); {} became {} ({} smaller), {} saved by de-duplication{indexes}\n",
        report.layers.len(),
        count(report.added_rows),
        seconds(report.seconds),
        seconds(report.forward_seconds),
        report.executor,
        bytes(log.logical_bytes),
        bytes(log.written_bytes),
        times(log.logical_bytes as f64, log.written_bytes as f64),
        bytes(log.saved_bytes),
    ))
}

/// The layers of a model of which the store knows rows whose values it does not keep.
fn without_values(store: &Store, key: &ModelKey, layers: &[String]) -> Result<Vec<String>> {
    let records = store.intermediates(&store.model(key)?)?;
    let lacking = records.into_iter().filter(|r| !r.is_whole() && layers.contains(&r.key.intermediate));
    Ok(lacking.map(|r| r.key.intermediate).collect())
}

/// The columns of a table that the network does not see.
pub fn left_out_json(dataset: &dyn Dataset) -> Value {
    dataset.left_out().iter().map(|c| json!({"column": c.column, "found": c.found})).collect()
}

/// Says on standard error which columns of a table the network will not see.
pub fn left_out_note(dataset: &dyn Dataset) {
    let columns: Vec<String> = dataset.left_out().iter().map(ToString::to_string).collect();
    if !columns.is_empty() {
        eprintln!("left out, since they are no numbers: {}", columns.join(", "));
    }
}

/// Warns of intermediates of which little is left: of which a codebook, fitted on the first rows, does not hold what came
/// later, or whose values are too small for 16 bits.
pub fn error_note<'a>(store: &Store, keys: impl IntoIterator<Item = &'a IntermediateKey>) -> Result<()> {
    /// Of the values' own size, root mean square.
    const FAR_OFF: f64 = 0.5;
    for key in keys {
        let record = store.intermediate(key)?;
        let scheme = record.content.scheme_text();
        let Some(errors) = store.catalog().errors(record.id)? else { continue };
        let mut all = crate::UnitError::default();
        errors.units.iter().for_each(|unit| all.merge(unit));
        if all.relative() >= FAR_OFF && (scheme.contains("kbit") || scheme.contains("lloyd")) {
            eprintln!(
                "warning: {key}: what is stored is off by {:.0}% of the values' size: {scheme} was fitted on the first rows, \
                 and later ones lie beyond them, or it has too few bits; log them under a new version, or as f16",
                100.0 * all.relative()
            );
        }
        // Means of a map are far from its cells; nothing but zeros is off by all there was.
        let most = if scheme.contains("pool") { 1.0 } else { FAR_OFF };
        let lost = errors.units.iter().filter(|unit| unit.relative() >= most).count();
        // What was clamped was too large, and is told by its number.
        if lost > 0 && scheme.ends_with("f16") && errors.clamped == 0 {
            eprintln!(
                "warning: {key}: {lost} of {} units have values too small for {scheme}, and are stored as little more than zeros; \
                 log them under a new version with --scheme f32",
                errors.units.len()
            );
        }
    }
    Ok(())
}

/// Says what of a log was clamped, and what of the store it repaired.
pub fn report_note(report: &crate::LogReport) {
    if report.rewritten_chunks > 0 {
        let n = count(report.rewritten_chunks);
        eprintln!(
            "note: {n} chunks of the same content were damaged or gone, and are written anew; `mistique gc` frees the old"
        );
    }
    if report.clamped > 0 {
        eprintln!(
            "warning: {} values did not fit their scheme and were clamped; `mistique show` of an intermediate says how many \
             of its",
            count(report.clamped)
        );
    }
}
