//! `mistique get` and `mistique explain`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};

use super::answer_files::row_shape;
use super::cells::{cells, json_values};
use super::output::{Rows, bytes, count, pretty, seconds, shape_text, times};
use super::parts::Parts;
use super::progress::Progress;
use super::{CliError, Result};
use crate::{
    Answer, ChunkReader, Device, EngineError, Explanation, Key, NetworkRerun, PlanChoice, Predicate, QueryError,
    Request, RowSelection, RowSet, Serving, Store,
};

/// Rows and columns that a table on the terminal shows.
const SHOWN_ROWS: usize = 20;
const SHOWN_COLUMNS: usize = 8;

/// Reads `--plan`: the kinds of plans that there are.
pub fn plan_parser() -> impl TypedValueParser<Value = PlanChoice> {
    let values = PlanChoice::all().map(|(choice, about)| PossibleValue::new(choice.name()).help(about));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<PlanChoice>())
}

/// What a request is made of.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// project.model[@version].intermediate[.columns], columns such as u35, u35[4,7], u0..64 or *.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// Rows: 0..100 or 3,17,42.
    #[arg(long, conflicts_with = "filter")]
    rows: Option<String>,
    /// Rows that pass, such as 'logits.argmax = 3'.
    #[arg(long = "where", value_name = "EXPR")]
    filter: Option<String>,
    /// How to answer.
    #[arg(long, value_parser = plan_parser(), default_value = "auto")]
    plan: PlanChoice,
    /// Never answer from a lossy copy.
    #[arg(long)]
    exact: bool,
    /// Where a model runs again: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Append the query to a workload that `mistique workload run` replays.
    #[arg(long, env = "MISTIQUE_RECORD", value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Write to a file: .npy, .parquet, .arrow, .csv or .safetensors.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Only plan; do not run the choice.
    #[arg(long)]
    dry: bool,
    /// Run every possible plan three times, each time in a session of its own within this process, and show the shortest
    /// time beside the predicted one.
    #[arg(long, conflicts_with = "dry")]
    all: bool,
}

impl RequestArgs {
    /// Writes the query down, where it is recorded.
    fn record(&self) -> Result<()> {
        let Some(file) = &self.record else { return Ok(()) };
        let (keys, rows, filter, exact) = (self.keys.clone(), self.rows.clone(), self.filter.clone(), self.exact);
        super::workload::record(file, &crate::workload::WorkloadQuery { category: None, keys, rows, filter, exact })
    }

    fn requests(&self) -> Result<Vec<Request>> {
        let rows = match (&self.rows, &self.filter) {
            (Some(rows), _) => rows.parse()?,
            (None, Some(filter)) => RowSelection::Where(Predicate::parse(filter)?),
            (None, None) => RowSelection::All,
        };
        let plan = self.plan;
        let request = |key: &String| {
            let key: Key = key.parse()?;
            Ok(Request::new(key).with_rows(rows.clone()).with_plan(plan).with_exact(self.exact))
        };
        self.keys.iter().map(request).collect()
    }
}

/// A reader that can also run what the store's workflows logged, and that tells once what its answers leave out.
pub fn reader(store: &Store, device: Device) -> ChunkReader<'_> {
    let told = Mutex::new(BTreeSet::new());
    let tell = move |notice: &str| {
        if told.lock().is_ok_and(|mut told| told.insert(notice.to_string())) {
            eprintln!("note: {notice}");
        }
    };
    ChunkReader::new(store)
        .with_notices(tell)
        .with_workflow(Box::new(NetworkRerun::new(store, device)))
        .with_workflow(Box::new(crate::pipeline::PipelineRerun::new(store)))
}

/// Prints the answer, and only then waits for what is stored of it.
pub fn get(args: &GetArgs, store: &Store, as_json: bool) -> Result<()> {
    let reader = reader(store, args.request.device);
    let requests = args.request.requests()?;
    let answers = match (&args.output, as_json) {
        // Every value is printed.
        (None, true) => reader.get_intermediates(&requests).map(Parts::Whole).map_err(CliError::from),
        _ => Parts::of(&reader, &requests),
    };
    let answers = answers.map_err(|e| with_lack(e, store, args.request.device, &requests))?;
    args.request.record()?;
    let n_rows = answers.rows().len();
    if let ([first, others @ ..], None, None) = (&requests[..], &args.request.rows, &args.request.filter) {
        for other in others {
            let other = store.intermediate(&other.key().intermediate)?;
            if other.n_rows > n_rows as u64 {
                let (all, some, of) = (count(other.n_rows), count(n_rows as u64), &first.key().intermediate);
                eprintln!("note: {} has {all} rows; these are the {some} of {of}", other.key);
            }
        }
    }
    let text = match &args.output {
        Some(path) => {
            let mut progress = Progress::rows("writing", as_json);
            let mut done = 0;
            super::answer_files::write(path, &answers, store, &mut |rows| {
                done += rows as u64;
                progress.at(done, n_rows as u64);
            })?;
            progress.finish();
            match as_json {
                true => pretty(&json!({"file": path, "rows": n_rows})),
                false => format!("{}: {} rows\n", path.display(), count(n_rows as u64)),
            }
        }
        None if as_json => {
            let values = answers.all(0)?.iter().map(|answer| as_value(answer, store)).collect::<Result<Vec<_>>>();
            pretty(&Value::Array(values?))
        }
        None => table(&answers.head(SHOWN_ROWS)?, n_rows, store)?,
    };
    super::print(&text)?;
    super::materialize::note(reader.finish_materializing());
    Ok(())
}

/// Rows that are written out where they are not consecutive.
const LISTED_ROWS: usize = 10;

/// An error; that a key lacks rows of the first one is said in full.
fn with_lack(e: CliError, store: &Store, device: Device, requests: &[Request]) -> CliError {
    match lack(&e, store, device, requests) {
        Ok(Some(said)) => CliError::Usage(said),
        _ => e,
    }
}

/// How many rows of the first key the one that an error names lacks, and for which rows both can be asked.
fn lack(e: &CliError, store: &Store, device: Device, requests: &[Request]) -> Result<Option<String>> {
    let CliError::Query(QueryError::Engine(EngineError::NoSuchRow { key, row, .. })) = e else { return Ok(None) };
    let Some((first, others)) = requests.split_first() else { return Ok(None) };
    let session = reader(store, device).uncounted();
    let scan = session.scan(first)?;
    let rows: Vec<u64> = scan.rows().iter().collect();
    for other in others {
        let record = store.intermediate(&other.key().intermediate)?;
        if record.key.to_string() != *key {
            continue;
        }
        let (both, is_stored) = store.plan_stored(&record, &rows)?;
        let lacking = is_stored.iter().filter(|stored| !**stored).count();
        let advice = match &both.rows {
            _ if both.n_rows() == 0 => "ask for each by itself".to_string(),
            RowSet::Range(shared) => format!("ask for rows that both have: --rows {}..{}", shared.start, shared.end),
            RowSet::List(shared) if shared.len() <= LISTED_ROWS => {
                let shared: Vec<String> = shared.iter().map(u64::to_string).collect();
                format!("ask for rows that both have: --rows {}", shared.join(","))
            }
            RowSet::List(_) => "name rows that both have with --rows, or ask for each by itself".to_string(),
        };
        let (lacking, all) = (count(lacking as u64), count(rows.len() as u64));
        return Ok(Some(format!(
            "{key} lacks {lacking} of these {all} rows of {}, the first of them row_id {row}; {advice}",
            scan.key()
        )));
    }
    Ok(None)
}

/// How often `explain --all` runs each plan; the shortest time counts, since other work only ever adds to it.
const RUNS: usize = 3;

pub fn explain(args: &ExplainArgs, store: &Store, as_json: bool) -> Result<()> {
    args.request.record()?;
    let requests = args.request.requests()?;
    let reader = reader(store, args.request.device);
    let explanations = reader.explain_intermediates(&requests).map_err(CliError::from);
    let mut explanations = explanations.map_err(|e| with_lack(e, store, args.request.device, &requests))?;
    if args.all {
        measure_all(store, args.request.device, &requests, &mut explanations)?;
    } else if !args.dry {
        let answers = Parts::of(&reader, &requests)?;
        for (key, explanation) in explanations.iter_mut().enumerate() {
            let (ran, took) = ran(&answers, key)?;
            explanation.chosen =
                explanation.considered.iter().position(|c| Some(c.plan) == ran).unwrap_or(explanation.chosen);
            explanation.actual = took;
        }
    }
    let indexes = requests.iter().map(|r| reader.serving(r)).collect::<std::result::Result<Vec<_>, _>>()?;
    let all = explanations.iter().zip(&indexes).zip(&args.request.keys);
    let text = match as_json {
        true => pretty(&Value::Array(all.map(|((e, indexes), key)| explanation_json(key, e, indexes)).collect())),
        false => {
            all.map(|((e, indexes), key)| format!("{key}\n{}{}", explanation_text(e), indexes_text(indexes))).collect()
        }
    };
    super::print(&text)?;
    super::materialize::note(reader.finish_materializing());
    Ok(())
}

/// The plan that gave one of the answers in the end, and how long that took in all its parts.
fn ran(answers: &Parts<'_, '_>, key: usize) -> Result<(Option<&'static str>, Option<Duration>)> {
    let (mut plan, mut took) = (None, Some(Duration::ZERO));
    for part in 0..answers.n_parts() {
        let explanation = &answers.one(key, part)?.explanation;
        plan = explanation.considered.get(explanation.chosen).map(|c| c.plan);
        took = took.zip(explanation.actual).map(|(sum, part)| sum + part);
    }
    Ok((plan, took))
}

/// Runs every possible plan as a new session would: nothing is loaded and nothing is held in memory. No run counts as a
/// query.
pub fn measure_all(
    store: &Store,
    device: Device,
    requests: &[Request],
    explanations: &mut [Explanation],
) -> Result<()> {
    let shared =
        |e: &Explanation| e.considered.iter().find(|c| c.choice() == PlanChoice::SHARED).and_then(|c| c.predicted);
    let together: f64 = explanations.iter().filter_map(shared).map(|d| d.as_secs_f64()).sum();
    let Some(first) = requests.first() else { return Ok(()) };
    let rows: Vec<u64> = reader(store, device).uncounted().scan(first)?.rows().iter().collect();
    for (explanation, request) in explanations.iter_mut().zip(requests) {
        let request = request.clone().with_rows(RowSelection::List(rows.clone()));
        for considered in explanation.considered.iter_mut().filter(|c| c.unavailable.is_none()) {
            let choice = considered.choice();
            let mut shortest = Duration::MAX;
            for _ in 0..RUNS {
                store.clear_pool();
                let session = reader(store, device).uncounted();
                let took = if choice == PlanChoice::SHARED {
                    let all: Vec<Request> = requests.iter().map(|r| r.clone().with_plan(choice)).collect();
                    let answers = session.get_intermediates(&all)?;
                    // Nothing predicted: each has as much of the run.
                    let share = match (considered.predicted, together > 0.0) {
                        (Some(predicted), true) => predicted.as_secs_f64() / together,
                        _ => 1.0 / requests.len() as f64,
                    };
                    answers.first().and_then(|a| a.explanation.actual).map(|d| d.mul_f64(share))
                } else {
                    ran(&Parts::of(&session, &[request.clone().with_plan(choice)])?, 0)?.1
                };
                shortest = shortest.min(took.unwrap_or(Duration::MAX));
            }
            considered.actual = Some(shortest);
        }
        explanation.actual = explanation.considered.get(explanation.chosen).and_then(|c| c.actual);
    }
    Ok(())
}

pub fn explanation_text(e: &Explanation) -> String {
    let measured = e.considered.iter().any(|c| c.actual.is_some());
    let mut titles = vec!["", "plan", ">predicted", ">±"];
    titles.extend(measured.then_some(">measured"));
    titles.extend([">reads", "how"]);
    let mut rows = Rows::new(&titles);
    let time = |d: Duration| seconds(d.as_secs_f64());
    for (i, c) in e.considered.iter().enumerate() {
        let mark = if i == e.chosen { "→" } else { "" };
        if let Some(why) = &c.unavailable {
            let mut cells = vec![mark.into(), c.plan.into(), "-".into(), String::new()];
            cells.extend(measured.then(String::new));
            cells.extend([String::new(), format!("not possible: {why}")]);
            rows.push(cells, Value::Null);
            continue;
        }
        let predicted = c.predicted.map_or("not measured".into(), time);
        let mut cells = vec![mark.into(), c.plan.into(), predicted, c.deviation.map_or(String::new(), time)];
        cells.extend(measured.then(|| c.actual.map_or(String::new(), time)));
        cells.extend([bytes(c.read_bytes), c.how.clone()]);
        rows.push(cells, Value::Null);
    }
    let fastest = e.considered.iter().filter(|c| c.actual.is_some()).min_by_key(|c| c.actual);
    let said = match (measured, e.actual, fastest.zip(e.considered.get(e.chosen))) {
        (true, Some(took), Some((fastest, chosen))) if fastest.plan != chosen.plan => {
            let lost = times(took.as_secs_f64(), fastest.actual.unwrap_or(took).as_secs_f64());
            format!("{} was fastest; the choice, {}, took {lost} its time\n", fastest.plan, chosen.plan)
        }
        (true, Some(_), Some((fastest, _))) => format!("{} was chosen, and was the fastest\n", fastest.plan),
        (_, Some(took), _) if e.cached => format!("cached: held from an earlier answer; took {}\n", time(took)),
        (_, Some(took), _) => format!("took {}\n", time(took)),
        _ => String::new(),
    };
    rows.table() + &said
}

fn indexes_text(indexes: &[Serving]) -> String {
    let mut rows = Rows::new(&["index", ">bytes", "used by"]);
    for index in indexes {
        let name = index.id.map_or(index.kind.clone(), |id| format!("{} {id}", index.kind));
        let size = index.id.map_or(String::new(), |_| bytes(index.bytes));
        let what = match &index.unused {
            Some(why) => format!("not used: {why}"),
            None => index.what.clone(),
        };
        rows.push(vec![name, size, what], Value::Null);
    }
    rows.table()
}

fn explanation_json(key: &str, e: &Explanation, indexes: &[Serving]) -> Value {
    let secs = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
    let considered: Vec<Value> = e
        .considered
        .iter()
        .map(|c| {
            json!({"plan": c.plan, "how": c.how, "predicted_seconds": secs(c.predicted),
                   "deviation_seconds": secs(c.deviation), "read_bytes": c.read_bytes,
                   "unavailable": c.unavailable, "actual_seconds": secs(c.actual)})
        })
        .collect();
    let chosen = e.considered.get(e.chosen).map(|c| c.plan);
    let index = |i: &Serving| json!({"kind": i.kind, "id": i.id, "bytes": i.bytes, "what": i.what, "unused": i.unused});
    let indexes: Vec<Value> = indexes.iter().map(index).collect();
    json!({"key": key, "considered": considered, "chosen": chosen, "actual_seconds": secs(e.actual), "cached": e.cached,
           "indexes": indexes})
}

/// The first of so many rows of answers.
fn table(answers: &[Answer], n_rows: usize, store: &Store) -> Result<String> {
    let mut out = String::new();
    for answer in answers {
        let (shown_rows, n_columns) = (answer.rows.len().min(SHOWN_ROWS), answer.columns.len().min(SHOWN_COLUMNS));
        let titles: Vec<String> = answer.columns.iter().take(n_columns).map(|c| format!(">{c}")).collect();
        let titles: Vec<&str> = std::iter::once(">row_id").chain(titles.iter().map(String::as_str)).collect();
        let mut text = Rows::new(&titles);
        for (row, cells) in answer.rows.iter().zip(cells(answer, shown_rows, n_columns)?) {
            text.push(std::iter::once(row.to_string()).chain(cells).collect(), Value::Null);
        }
        out += &text.table();
        let more = |n: usize, shown: usize, what: &str| {
            if n > shown { format!("; {} more {what}", count((n - shown) as u64)) } else { String::new() }
        };
        let of = if answer.rows.len() < n_rows { ", these rows" } else { "" };
        let took = answer.explanation.actual.map_or(String::new(), |d| format!("{of} in {}", seconds(d.as_secs_f64())));
        out += &format!(
            "{}: {} rows of {}; source: {}{took}{}{}\n",
            answer.key,
            count(n_rows as u64),
            shape_text(row_shape(answer, &store.intermediate(&answer.key)?.content)),
            answer.source,
            more(n_rows, shown_rows, "rows"),
            more(answer.columns.len(), n_columns, "columns (write them with -o)"),
        );
    }
    Ok(out)
}

fn as_value(answer: &Answer, store: &Store) -> Result<Value> {
    let content = store.intermediate(&answer.key)?.content;
    Ok(json!({
        "key": answer.key.to_string(), "row_ids": answer.rows, "columns": answer.columns,
        "shape": row_shape(answer, &content),
        "values": json_values(answer)?, "source": answer.source.to_string(),
        "seconds": answer.explanation.actual.map(|d| d.as_secs_f64()),
    }))
}
