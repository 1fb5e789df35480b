//! `mistique query knn`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::beside::{self, Beside};
use super::{PlanArgs, RowArgs, left_out};
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::cli::{CliError, Result};
use crate::diagnostics::{KnnAnswer, Metric, Neighbours, Queries, knn};
use crate::{ChunkReader, Key, Request, RowSelection, Source, Store};

#[derive(Debug, Args)]
pub struct KnnArgs {
    /// project.model[@version].intermediate[.columns].
    pub key: String,
    /// Examples whose neighbours are wanted: 51, 51,60 or 0..10.
    #[arg(long, value_name = "ROW,…", required_unless_present = "vector", conflicts_with = "vector")]
    row: Option<String>,
    /// A .npy file of one vector, or of one a row, of as many values as the key has columns, or of its rows' shape.
    #[arg(long, value_name = "FILE")]
    vector: Option<PathBuf>,
    /// Neighbours of each.
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// How near is measured.
    #[arg(long, default_value = "l2", value_name = "l2|cosine|dot")]
    metric: Metric,
    /// Look neighbours by l2 or cosine up in the layer's hnsw index, which may miss some (`mistique index create KEY --kind hnsw`).
    #[arg(long, conflicts_with_all = ["filter", "rows"])]
    approximate: bool,
    /// Columns to show beside each neighbour, such as logits,label.
    #[arg(long, value_name = "KEY,…")]
    join: Vec<String>,
    /// Among which rows neighbours are looked for.
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

pub fn run(args: &KnnArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let reader = args.plan.reader(store);
    let request = args.plan.request(key)?.with_rows(args.rows.selection()?);
    let queries = match (&args.row, &args.vector) {
        (Some(rows), _) => match rows.parse::<RowSelection>()? {
            // Of a range those rows that are there, as in --rows.
            range @ RowSelection::Range(_) => {
                let looking = args.plan.reader(store).uncounted();
                let there = looking.scan(&args.plan.request(key)?.with_rows(range))?.rows().iter().collect::<Vec<_>>();
                if there.is_empty() {
                    return Err(CliError::Usage(format!("no row of {rows} is there")));
                }
                Queries::Rows(there)
            }
            RowSelection::List(rows) => Queries::Rows(rows),
            _ => return Err(CliError::Usage("--row takes 51, 51,60 or 0..10".into())),
        },
        (None, Some(path)) => Queries::Vectors(vectors(&reader, &request, path)?),
        (None, None) => return Err(CliError::Usage("name an example with --row, or a --vector".into())),
    };
    let answer = match args.approximate {
        false => knn(&reader, &request, &queries, args.k, args.metric)?,
        true => approximate(args, key, &reader, &request, &queries)?,
    };
    let near = key.parse::<Key>()?.intermediate;
    let rows: Vec<u64> = answer.queries.iter().flat_map(|q| q.rows.iter().map(|r| r.0)).collect();
    let beside = Beside::open(&reader, Some(&near), &beside::keys(&args.join), &rows, args.plan.demand())?;
    let is_few = answer.queries.iter().any(|q| q.rows.len() < args.k);
    if as_json {
        let value = |q: &Neighbours| {
            let neighbour =
                |(row, v): &(u64, f64)| beside.json(*row, json!({"row_id": row, args.metric.name(): number(*v)}));
            json!({"of": q.of, "neighbours": q.rows.iter().map(neighbour).collect::<Vec<_>>()})
        };
        return Ok(pretty(
            &json!({"key": key, "metric": args.metric.name(), "n_rows": answer.n_rows, "fewer_than_k": is_few, "unranked_rows": answer.n_unranked,
            "text_left_out": reader.left_out(&key.parse()?)?, "approximate": args.approximate, "queries": answer.queries.iter().map(value).collect::<Vec<_>>(), "source": answer.source.to_string()}),
        ));
    }
    let titles = beside.titles(&[">of", ">rank", ">row_id", &format!(">{}", args.metric.name())]);
    let mut table = Rows::new(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    for (i, query) in answer.queries.iter().enumerate() {
        let of = query.of.map_or_else(|| format!("vector {i}"), |row| row.to_string());
        for (rank, (row, v)) in query.rows.iter().enumerate() {
            let cells = vec![of.clone(), (rank + 1).to_string(), row.to_string(), float(*v)];
            table.push(beside.cells(*row, cells), Value::Null);
        }
    }
    let few = match is_few {
        true => format!("; there are fewer than {} neighbours", count(args.k as u64)),
        false => String::new(),
    };
    let unranked = match (answer.n_unranked, args.metric) {
        (None | Some(0), _) => String::new(),
        (Some(n), Metric::Cosine) => format!("; {} rows with NaN or without direction are near to nothing", count(n)),
        (Some(n), _) => format!("; {} rows with NaN are near to nothing", count(n)),
    };
    let about = if args.approximate { ", by an hnsw index: some neighbours may be missing" } else { "" };
    let text = left_out(&reader, key)?;
    Ok(format!(
        "{}{} rows; source: {}{about}{few}{unranked}{text}\n",
        table.table(),
        count(answer.n_rows),
        answer.source
    ))
}

/// Vectors of a file, which has one, or one a row; each has a value for every column, in one row or in the shape of the
/// key's rows. Another shape of as many values would be an answer about something else.
fn vectors(reader: &ChunkReader<'_>, request: &Request, path: &Path) -> Result<Vec<f64>> {
    let array = mistique_datasets::read_npy(path)?;
    let row = reader.row_shape(request)?;
    let n_columns: usize = row.iter().product();
    let is_value = |shape: &[usize]| shape.is_empty() && n_columns == 1;
    let is_vector = |shape: &[usize]| *shape == [n_columns] || *shape == *row || is_value(shape);
    let (shape, path) = (&array.shape, path.to_path_buf());
    let are_vectors = || shape.split_first().is_some_and(|(_, rest)| is_vector(rest));
    if !is_vector(shape) && !are_vectors() {
        let map = if row.len() > 1 { format!(", {row:?}") } else { String::new() };
        let why = format!(
            "an array of shape {shape:?}; a vector has {n_columns} values, one a column of {}: [{n_columns}]{map}, or several as rows",
            request.key()
        );
        return Err(CliError::Content { path, why });
    }
    if shape.contains(&0) {
        return Err(CliError::Content { path, why: format!("no vector: an array of shape {shape:?}") });
    }
    Ok(array.to_f64())
}

fn approximate(
    args: &KnnArgs,
    key: &str,
    reader: &ChunkReader<'_>,
    request: &Request,
    queries: &Queries,
) -> Result<KnnAnswer> {
    let parsed = key.parse::<Key>()?;
    if let Some((columns, _)) = &parsed.columns {
        return Err(CliError::Usage(format!("{}: --approximate is of a whole layer, not of {columns}", key)));
    }
    if args.metric == Metric::Dot {
        return Err(CliError::Usage("--approximate is by l2 or cosine; without it, dot is exact".into()));
    }
    let exact = args.plan.demand().exact;
    let Some(index) = reader.neighbours(&parsed.intermediate, args.metric, exact)? else {
        let metric = args.metric.name();
        let exactly = if exact { " --exact" } else { "" };
        return Err(CliError::Usage(format!(
            "{key} has no hnsw index for {metric}; make one with `mistique index create {key} --kind hnsw --metric {metric}{exactly}`"
        )));
    };
    if args.k > index.most() {
        let most = index.most();
        return Err(CliError::Usage(format!(
            "--approximate finds at most {most} neighbours; leave it out, or ask for fewer"
        )));
    }
    // Rows that came after the graph are searched one by one.
    let indexed = index.index().param("rows").and_then(|r| r.parse().ok()).unwrap_or_default();
    let n_rows = reader.store().intermediate(&parsed.intermediate)?.n_rows.max(indexed);
    let queries = index.of_queries(reader, request, queries, args.k)?;
    Ok(KnnAnswer {
        queries,
        n_rows,
        n_unranked: None,
        source: Source::Read { scheme: format!("index {}", index.index().id), exact: false },
    })
}
