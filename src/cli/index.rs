//! `mistique index`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Result;
use super::output::{Rows, bytes, count, date, pretty};
use super::progress::Progress;
use crate::EngineError::NotFound;
use crate::diagnostics::Metric;
use crate::{Content, Device, IndexRecord, Key, MapValue, Store};

#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Make an index of a layer, in place of an earlier one of the same values.
    Create(CreateArgs),
    /// List indexes.
    Ls,
    /// Drop an index and its file.
    Drop {
        /// Its number, as `ls` prints it, or the key of a layer, all of whose indexes go.
        #[arg(value_name = "ID|KEY")]
        which: String,
    },
}

/// What a by-example index may take of its layer's bytes, where nothing was said.
const SHARE: f64 = 0.2;

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// project.model[@version].intermediate.
    key: String,
    /// What it is for.
    #[arg(long, value_enum, default_value = "by-example")]
    kind: KindArg,
    /// For hnsw: l2 or cosine.
    #[arg(long, value_enum, default_value = "l2")]
    metric: MetricArg,
    /// What of a unit's map is its activation: max, mean, or all its cells.
    #[arg(long, default_value = "max", value_name = "max|mean|cells")]
    by: MapValue,
    /// Of the model's own values, where a lossy copy is stored.
    #[arg(long)]
    exact: bool,
    /// For by-example: bytes that it may take, as a share of the layer's in float32 (default: 0.2).
    #[arg(long)]
    share: Option<f64>,
    /// Where a model runs again: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum KindArg {
    /// Ranges of each unit's activations: exact answers about groups of units that look at few rows.
    ByExample,
    /// A graph of neighbours: approximate answers of `query knn --approximate`.
    Hnsw,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum MetricArg {
    L2,
    Cosine,
}

pub fn run(command: &IndexCommand, store: &Store, as_json: bool) -> Result<String> {
    match command {
        IndexCommand::Create(args) => create(args, store, as_json),
        IndexCommand::Ls => ls(store, as_json),
        IndexCommand::Drop { which } => drop_indexes(which, store, as_json),
    }
}

fn drop_indexes(which: &str, store: &Store, as_json: bool) -> Result<String> {
    let ids = match which.parse::<i64>() {
        Ok(id) => vec![id],
        Err(_) => {
            let key: Key = which.parse()?;
            if let Some((columns, _)) = &key.columns {
                return Err(super::CliError::Usage(format!("{which}: an index is of a whole layer, not of {columns}")));
            }
            let record = store.intermediate(&key.intermediate)?;
            store.indexes(Some(&record))?.iter().map(|index| index.id).collect()
        }
    };
    if ids.is_empty() {
        return Err(super::CliError::Usage(format!("{which} has no index; `mistique index ls` lists all")));
    }
    let mut freed = 0;
    for id in &ids {
        freed += store.drop_index(*id)?.len_bytes;
    }
    let all: Vec<String> = ids.iter().map(ToString::to_string).collect();
    Ok(match as_json {
        true => pretty(&json!({"dropped": ids, "bytes": freed})),
        false => format!("dropped: index {}; {} are free\n", all.join(", "), bytes(freed)),
    })
}

fn create(args: &CreateArgs, store: &Store, as_json: bool) -> Result<String> {
    let key: Key = args.key.parse()?;
    if let Some((columns, _)) = &key.columns {
        return Err(super::CliError::Usage(format!("{}: an index is of a whole layer, not of {columns}", args.key)));
    }
    if args.kind == KindArg::Hnsw && args.share.is_some() {
        return Err(super::CliError::Usage(
            "--share is for by-example indexes; an hnsw index takes what its neighbours need".into(),
        ));
    }
    let share = args.share.unwrap_or(SHARE);
    let reader = super::get::reader(store, args.device);
    let mut bar = Progress::rows("indexing", as_json);
    let key = &key.intermediate;
    let progress = &mut |done, total| bar.at(done, total);
    let (made, recall) = match args.kind {
        KindArg::ByExample => (reader.create_by_example_index(key, args.by, args.exact, share, progress), None),
        KindArg::Hnsw => {
            let metric = match args.metric {
                MetricArg::L2 => Metric::L2,
                MetricArg::Cosine => Metric::Cosine,
            };
            let made = reader.create_hnsw_index(key, metric, args.exact, progress);
            let recall = made.as_ref().ok().map(|m| (m.recall, m.sample));
            (made.map(|m| m.index), recall)
        }
    };
    bar.finish();
    let made = made?;
    let recall = recall.map_or(String::new(), |(recall, (n, k))| {
        format!("; it finds {:.1}% of the {k} nearest rows, measured on {n} of its rows", 100.0 * recall)
    });
    let served = Served::of(store, &made)?;
    Ok(match as_json {
        true => pretty(&served.json(&made)),
        false => format!(
            "index {} of {}: {}, {} of the layer's {} in float32{recall}\n",
            made.id,
            served.key,
            bytes(made.len_bytes),
            served.share(&made),
            bytes(served.full_bytes)
        ),
    })
}

fn ls(store: &Store, as_json: bool) -> Result<String> {
    let mut rows = Rows::new(&[">id", "key", "kind", "of", ">rows", ">bytes", ">of float32", ">created"]);
    for index in store.indexes(None)? {
        let served = Served::of(store, &index)?;
        let of =
            ["by", "metric", "alpha", "values"].iter().filter_map(|p| index.param(p)).collect::<Vec<_>>().join(", ");
        let cells = vec![
            index.id.to_string(),
            served.key.clone(),
            index.kind.clone(),
            of,
            count(served.rows),
            bytes(index.len_bytes),
            served.share(&index),
            date(index.created),
        ];
        rows.push(cells, served.json(&index));
    }
    Ok(rows.render(as_json))
}

/// What an index serves.
struct Served {
    key: String,
    rows: u64,
    full_bytes: u64,
}

impl Served {
    fn of(store: &Store, index: &IndexRecord) -> Result<Self> {
        let records = store.catalog().intermediates(None)?;
        let record = records.iter().find(|r| r.id == index.intermediate_id).ok_or_else(|| NotFound {
            what: "intermediate",
            name: index.intermediate_id.to_string(),
            nearest: vec![],
        })?;
        let rows = index.param("rows").and_then(|r| r.parse().ok()).unwrap_or_default();
        let row_values = match &*record.content {
            Content::Tensor(t) => t.shape.iter().product::<usize>() as u64,
            Content::Table(_) => 0,
        };
        Ok(Self { key: record.key.to_string(), rows, full_bytes: rows * row_values * 4 })
    }

    fn share(&self, index: &IndexRecord) -> String {
        format!("{:.2}%", 100.0 * index.len_bytes as f64 / self.full_bytes.max(1) as f64)
    }

    fn json(&self, index: &IndexRecord) -> serde_json::Value {
        let params: serde_json::Value = serde_json::from_str(&index.params).unwrap_or_default();
        json!({
            "id": index.id, "key": self.key, "kind": index.kind, "params": params, "rows": self.rows,
            "bytes": index.len_bytes, "share": index.len_bytes as f64 / self.full_bytes.max(1) as f64,
            "created": index.created,
        })
    }
}
