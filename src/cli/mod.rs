//! The command line: arguments here, one file a group of commands.

mod answer_files;
mod append;
mod calibrate;
mod cells;
mod dataset;
mod demo;
mod diff;
mod export;
mod get;
mod index;
mod inspect;
mod log;
mod maintain;
mod materialize;
mod output;
mod parts;
mod pipeline;
mod progress;
mod query;
mod stats;
mod wait;
mod workload;

pub(crate) use get::reader;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{DatasetError, EngineError, QueryError, Store, WorkflowError};

/// Store, read and diagnose model intermediates.
#[derive(Debug, Parser)]
#[command(name = "mistique", version, about, max_term_width = 100)]
struct Args {
    /// The store; the first write makes it.
    #[arg(long, global = true, env = "MISTIQUE_STORE", default_value = DEFAULT_STORE, value_name = "PATH")]
    store: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// Where another process writes to the store: how long to wait for it, before it is an error.
    #[arg(long, global = true, env = "MISTIQUE_WAIT", default_value = "0", value_name = "SECONDS", value_parser = seconds)]
    wait: Duration,
    #[command(subcommand)]
    command: Command,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a network over a dataset, or pipelines over tables, and log every layer or stage.
    Log(log::LogArgs),
    /// Append values of any framework from a file.
    Append(append::AppendArgs),
    /// List intermediates.
    Ls {
        /// Which keys, with * and ?.
        pattern: Option<String>,
    },
    /// Describe a model or an intermediate.
    Show {
        /// project.model or project.model.intermediate.
        key: String,
    },
    /// In what two models differ, and which intermediates they share.
    Diff {
        /// project.model or project.model@version.
        first: String,
        /// The other model.
        second: String,
    },
    /// Bytes logical and stored, by scheme, and what de-duplication saved.
    Stats {
        /// project.model or project.model.intermediate; all for none.
        key: Option<String>,
        /// Of what to tell the savings of each kind.
        #[arg(long, value_enum, default_value_t = stats::Level::Model)]
        by: stats::Level,
    },
    /// Print or write values.
    Get(get::GetArgs),
    /// Show the plans for a request and the choice, then run it.
    Explain(get::ExplainArgs),
    /// Make, list and drop indexes; queries use them without being told.
    Index {
        #[command(subcommand)]
        command: index::IndexCommand,
    },
    /// Ask a diagnostic question: top-k, neighbours, differences, distributions and so on.
    Query {
        #[command(subcommand)]
        command: query::QueryCommand,
    },
    /// Measure what the cost model lacks: load, run and read times of this machine.
    Calibrate(calibrate::CalibrateArgs),
    /// What the store keeps of values that can be rerun, and γ of every intermediate.
    Materialize(materialize::MaterializeArgs),
    /// Sequences of queries, and their replay under several modes of materialization.
    Workload {
        #[command(subcommand)]
        command: workload::WorkloadCommand,
    },
    /// Read every byte and name all damage.
    Verify,
    /// Free what nothing refers to, and what a byte budget has no room for.
    Gc,
    /// Write everything anew, as small as it gets.
    Compact,
    /// Remove a model; `gc` then frees its bytes.
    Rm {
        /// project.model or project.model@version, as `ls` prints it.
        model: String,
    },
    /// Write all intermediates as Parquet files.
    Export {
        /// A new or empty folder.
        dir: PathBuf,
    },
    /// Known datasets, and how to name one.
    Dataset {
        #[command(subcommand)]
        command: dataset::DatasetCommand,
    },
    /// Train a small network on real digits, log every layer of every epoch, and ask questions.
    Demo(demo::DemoArgs),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Whatever ends a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A question.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A run.
    #[error(transparent)]
    Workflow(Box<WorkflowError>),
    /// A network.
    #[error(transparent)]
    Network(Box<crate::NetworkError>),
    /// A pipeline.
    #[error(transparent)]
    Pipeline(Box<crate::pipeline::PipelineError>),
    /// A dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A file named on the command line.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        source: std::io::Error,
    },
    /// A file that is not what was expected.
    #[error("{path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        why: String,
    },
    /// Masks of concepts.
    #[error(transparent)]
    Masks(#[from] crate::MaskError),
    /// Arguments that do not fit each other.
    #[error("{0}")]
    Usage(String),
    /// `verify` found damage.
    #[error("{0} damaged places; nothing else is affected")]
    Damaged(usize),
    /// Intermediates that could not be had, each of which was named.
    #[error("{0} intermediates are left out; all others are there")]
    LeftOut(usize),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// The store's error, where it is one.
    fn engine(&self) -> Option<&EngineError> {
        match self {
            Self::Engine(e) | Self::Query(QueryError::Engine(e)) => Some(e),
            Self::Workflow(e) => match &**e {
                WorkflowError::Engine(e) => Some(e),
                _ => None,
            },
            Self::Pipeline(e) => match &**e {
                crate::pipeline::PipelineError::Engine(e) => Some(e),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<WorkflowError> for CliError {
    fn from(e: WorkflowError) -> Self {
        Self::Workflow(Box::new(e))
    }
}

impl From<crate::NetworkError> for CliError {
    fn from(e: crate::NetworkError) -> Self {
        Self::Network(Box::new(e))
    }
}

impl From<crate::pipeline::PipelineError> for CliError {
    fn from(e: crate::pipeline::PipelineError) -> Self {
        Self::Pipeline(Box::new(e))
    }
}

type Result<T, E = CliError> = std::result::Result<T, E>;

/// Runs the command that the process was called with.
pub fn run() -> ExitCode {
    let args = Args::parse();
    match wait::for_writers(&args.store, args.wait, || execute(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        // `mistique ls | head` is no failure.
        Err(CliError::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let hint = if wait::is_locked(&e) { " (--wait SECONDS waits for it)" } else { "" };
            let damaged = e.engine().and_then(|e| e.in_catalog_of(&args.store.display().to_string()));
            let said = damaged.map_or_else(|| e.to_string(), |damaged| damaged.to_string());
            eprintln!("error: {}{hint}", output::plain(&said, &LINES));
            ExitCode::FAILURE
        }
    }
}

/// The store where none is named.
const DEFAULT_STORE: &str = "./store.mq";

fn execute(args: &Args) -> Result<()> {
    let open = || Ok::<_, CliError>(Store::open(&args.store)?);
    let text = match &args.command {
        Command::Log(a) => log::run(a, &args.store, args.json)?,
        Command::Append(a) => append::run(a, &args.store, args.json)?,
        Command::Ls { pattern } => inspect::ls(&open()?, pattern.as_deref(), args.json)?,
        Command::Show { key } => inspect::show(&open()?, key, args.json)?,
        Command::Diff { first, second } => diff::run(&open()?, first, second, args.json)?,
        Command::Stats { key, by } => stats::run(&open()?, key.as_deref(), *by, args.json)?,
        Command::Index { command } => index::run(command, &open()?, args.json)?,
        Command::Get(a) => return get::get(a, &open()?, args.json),
        Command::Explain(a) => return get::explain(a, &open()?, args.json),
        Command::Materialize(a) => materialize::run(a, &open()?, args.json)?,
        Command::Workload { command } => workload::run(command, &args.store, args.json)?,
        Command::Query { command } => query::run(command, &open()?, args.json)?,
        Command::Calibrate(a) => calibrate::run(a, &open()?, args.json)?,
        Command::Verify => return maintain::verify(&open()?, args.json),
        Command::Gc => maintain::gc(&open()?, args.json)?,
        Command::Compact => maintain::compact(&open()?, args.json)?,
        Command::Rm { model } => maintain::rm(&open()?, model, args.json)?,
        Command::Export { dir } => return export::run(&open()?, dir, args.json),
        Command::Dataset { command } => dataset::run(command, args.json)?,
        Command::Demo(a) => return demo::run(a, &args.store),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "mistique", &mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
    };
    print(&text)
}

/// What divides a printed text.
const LINES: [char; 2] = ['\n', '\t'];

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(output::plain(text, &LINES).as_bytes())?;
    Ok(out.flush()?)
}

fn file_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> CliError {
    let path = path.to_path_buf();
    move |source| CliError::File { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
