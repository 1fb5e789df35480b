//! `mistique workload`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::output::{Rows, bytes, pretty, seconds};
use super::progress::Progress;
use super::{CliError, Result, file_error};
use crate::workload::{Category, ModeRun, WorkloadQuery, generate, parse, replay};
use crate::{Device, Materialize, Store};

#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Run a sequence of queries under several modes of materialization, on copies of the store (Fig. 5-12).
    Run {
        /// A query a line, as `generate` and `--record` write them.
        file: PathBuf,
        /// Modes: all, none, adaptive(SECONDS PER GB), budget(BYTES[,SECONDS PER GB]).
        #[arg(long = "mode", value_name = "MODE", default_values = ["all", "none", "adaptive(1)"])]
        modes: Vec<Materialize>,
        /// How often the sequence is run: the second time shows what has set in.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
        passes: u32,
        /// Where a model runs again: cpu or cuda:N.
        #[arg(long, default_value = "cpu")]
        device: Device,
    },
    /// Make a sequence of queries over what is in the store.
    Generate {
        /// Queries.
        #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        queries: u32,
        /// The same seed gives the same queries.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Categories to draw from, each as likely as it is named often.
        #[arg(long, value_delimiter = ',', default_value = "FCFR,FCMR,MCFR,MCMR")]
        mix: Vec<Category>,
        /// Write to a file instead of standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub fn run(command: &WorkloadCommand, path: &Path, as_json: bool) -> Result<String> {
    let store = Store::open(path)?;
    match command {
        WorkloadCommand::Generate { queries, seed, mix, output } => {
            let made = generate(&store, *queries as usize, *seed, mix)?;
            let text: String = made.iter().map(|q| q.to_line() + "\n").collect();
            match output {
                None => Ok(text),
                Some(file) => {
                    std::fs::write(file, text).map_err(file_error(file))?;
                    Ok(format!("{}: {} queries\n", file.display(), made.len()))
                }
            }
        }
        WorkloadCommand::Run { file, modes, passes, device } => {
            let text = std::fs::read_to_string(file).map_err(file_error(file))?;
            let queries = parse(&text).map_err(|why| CliError::Content { path: file.clone(), why })?;
            if queries.is_empty() {
                return Err(CliError::Content { path: file.clone(), why: "there are no queries in it".into() });
            }
            let mut progress = Progress::rows("replaying", as_json);
            let step = &mut |done: usize, total: usize| progress.at(done as u64, total as u64);
            let runs = replay(&store, path, &queries, modes, *passes as usize, *device, step);
            progress.finish();
            let runs = runs?;
            Ok(if as_json { pretty(&as_value(&queries, &runs)) } else { table(&queries, &runs) })
        }
    }
}

fn as_value(queries: &[WorkloadQuery], runs: &[ModeRun]) -> serde_json::Value {
    let run = |r: &ModeRun| {
        let pass = |p: &Vec<crate::workload::QueryRun>| -> Vec<serde_json::Value> {
            let one = |q: &crate::workload::QueryRun| json!({"seconds": q.seconds, "plan": q.plan, "stored_bytes": q.stored_bytes});
            p.iter().map(one).collect()
        };
        json!({"mode": r.mode.to_string(), "start_bytes": r.start_bytes, "end_bytes": r.end_bytes(),
               "seconds": (0..r.passes.len()).map(|p| r.seconds(p)).collect::<Vec<_>>(),
               "passes": r.passes.iter().map(pass).collect::<Vec<_>>()})
    };
    let queries: Vec<String> = queries.iter().map(WorkloadQuery::to_line).collect();
    json!({"queries": queries, "modes": runs.iter().map(run).collect::<Vec<_>>()})
}

/// Fig. 5-12 as text: the response time of each query and the bytes after it, mode by mode, and both as charts.
fn table(queries: &[WorkloadQuery], runs: &[ModeRun]) -> String {
    let mut titles: Vec<String> = vec![">#".into(), "category".into(), "query".into()];
    for run in runs {
        titles.extend([format!(">{}", run.mode), "by".into(), ">bytes".into()]);
    }
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut rows = Rows::new(&titles);
    let passes = runs.first().map_or(0, |r| r.passes.len());
    for pass in 0..passes {
        for (i, query) in queries.iter().enumerate() {
            let mut cells = vec![
                (pass * queries.len() + i + 1).to_string(),
                query.category.map_or("-".into(), |c| c.to_string()),
                format!(
                    "{} {}",
                    query.keys.join(" "),
                    query.rows.as_deref().or(query.filter.as_deref()).unwrap_or("*")
                ),
            ];
            for run in runs {
                match run.passes.get(pass).and_then(|p| p.get(i)) {
                    Some(q) => cells.extend([seconds(q.seconds), q.plan.to_string(), bytes(q.stored_bytes)]),
                    None => cells.extend(["-".into(), "-".into(), "-".into()]),
                }
            }
            rows.push(cells, serde_json::Value::Null);
        }
    }
    let mut out = rows.table() + "\n";
    let mut sums = Rows::new(&[
        "mode",
        ">bytes before",
        ">bytes after",
        ">first pass",
        ">last pass",
        "response time (log)",
        "bytes",
    ]);
    let all = || runs.iter().flat_map(|r| r.passes.iter().flatten());
    let fastest = all().map(|q| q.seconds).fold(f64::MAX, f64::min).max(1e-9);
    let slowest = all().map(|q| q.seconds).fold(0.0, f64::max).max(2.0 * fastest);
    let most = all().map(|q| q.stored_bytes).chain(runs.iter().map(|r| r.start_bytes)).max().unwrap_or(1).max(1) as f64;
    for run in runs {
        let times = run.passes.iter().flatten().map(|q| (q.seconds / fastest).ln() / (slowest / fastest).ln());
        let sizes = run.passes.iter().flatten().map(|q| q.stored_bytes as f64 / most);
        let cells = vec![
            run.mode.to_string(),
            bytes(run.start_bytes),
            bytes(run.end_bytes()),
            seconds(run.seconds(0)),
            seconds(run.seconds(passes.saturating_sub(1))),
            bars(times),
            bars(sizes),
        ];
        sums.push(cells, serde_json::Value::Null);
    }
    out += &sums.table();
    out += &format!(
        "response time from {} (▁) to {} (█), one bar a query in order; bytes up to {}\n",
        seconds(fastest),
        seconds(slowest),
        bytes(most as u64)
    );
    out
}

/// Shares from 0 to 1 as bars.
fn bars(shares: impl Iterator<Item = f64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    shares.map(|s| BARS[((s.clamp(0.0, 1.0) * 7.0).round() as usize).min(7)]).collect()
}

/// Appends a query to the file of a recording.
pub fn record(file: &Path, query: &WorkloadQuery) -> Result<()> {
    let mut out = std::fs::OpenOptions::new().create(true).append(true).open(file).map_err(file_error(file))?;
    // One write a line, so that processes that record together do not mix theirs.
    out.write_all((query.to_line() + "\n").as_bytes()).map_err(file_error(file))
}
