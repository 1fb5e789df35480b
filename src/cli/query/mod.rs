//! `mistique query`: diagnostic questions, one file each. A further one is a file, a line among the modules, a variant
//! and a line in [`run`].

mod beside;
mod confusion;
mod corr;
mod diff;
mod dist;
mod knn;
mod mean;
mod metrics;
mod netdissect;
mod rowdiff;
mod select;
mod similar;
mod similarity;
mod top_group;
mod topk;
mod versions;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Result;
use super::get::plan_parser;
use super::output::{count, number};
use crate::diagnostics::Labelled;
use crate::operands::{Cell, OperandScan, Wanted};
use crate::{ChunkReader, Demand, Device, Key, PlanChoice, Predicate, Request, RowSelection, Store};

#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// Canonical correlations of what explains most of two sides' variance: 1 for equal representations.
    Svcca(similarity::SvccaArgs),
    /// Mean canonical correlation of everything that varies.
    Cca(similarity::CcaArgs),
    /// Canonical correlations weighted by what they carry.
    Pwcca(similarity::CcaArgs),
    /// Centred kernel alignment.
    Cka(similarity::CkaArgs),
    /// Which concepts the high activations of each unit cover (NetDissect).
    Netdissect(netdissect::NetdissectArgs),
    /// The rows with the highest, lowest or most extreme values, for each unit.
    Topk(topk::TopkArgs),
    /// The rows that pass a predicate.
    Where(select::WhereArgs),
    /// How values are distributed: histogram and quantiles, by group.
    Dist(dist::DistArgs),
    /// How two models or versions differ, and which predictions changed.
    Diff(diff::DiffArgs),
    /// How two examples differ, column by column.
    Rowdiff(rowdiff::RowdiffArgs),
    /// Predictions against labels, and the examples of a cell.
    Confusion(confusion::ConfusionArgs),
    /// Accuracy, AUROC, curves and calibration of classes; errors of numbers.
    Metrics(metrics::MetricsArgs),
    /// Which columns go with a target.
    Corr(corr::CorrArgs),
    /// Mean of every unit by group.
    Mean(mean::MeanArgs),
    /// The rows nearest to examples or vectors.
    Knn(knn::KnnArgs),
    /// The rows whose activations of a group of units are nearest to those of a row.
    Similar(similar::SimilarArgs),
    /// The rows that activate a group of units most.
    TopGroup(top_group::TopGroupArgs),
}

/// Answers a question.
pub fn run(command: &QueryCommand, store: &Store, as_json: bool) -> Result<String> {
    let each = |key: &str, ask: &dyn Fn(&str) -> Result<String>| versions::each(store, key, as_json, ask);
    match command {
        QueryCommand::Svcca(args) => similarity::svcca(args, store, as_json),
        QueryCommand::Cca(args) => similarity::cca(args, store, as_json),
        QueryCommand::Pwcca(args) => similarity::pwcca(args, store, as_json),
        QueryCommand::Cka(args) => similarity::cka(args, store, as_json),
        QueryCommand::Netdissect(args) => each(&args.key, &|key| netdissect::run(args, key, store, as_json)),
        QueryCommand::Topk(args) => each(&args.key, &|key| topk::run(args, key, store, as_json)),
        QueryCommand::Where(args) => select::run(args, store, as_json),
        QueryCommand::Dist(args) => each(&args.key, &|key| dist::run(args, key, store, as_json)),
        // Either side may be several versions; of both, each with each.
        QueryCommand::Diff(args) => {
            each(&args.key1, &|key1| each(&args.key2, &|key2| diff::run(args, key1, key2, store, as_json)))
        }
        QueryCommand::Rowdiff(args) => each(&args.key, &|key| rowdiff::run(args, key, store, as_json)),
        QueryCommand::Confusion(args) => each(&args.predicted, &|key| confusion::run(args, key, store, as_json)),
        QueryCommand::Metrics(args) => each(&args.predicted, &|key| metrics::run(args, key, store, as_json)),
        QueryCommand::Corr(args) => each(&args.key, &|key| corr::run(args, key, store, as_json)),
        QueryCommand::Mean(args) => each(&args.key, &|key| mean::run(args, key, store, as_json)),
        QueryCommand::Knn(args) => each(&args.key, &|key| knn::run(args, key, store, as_json)),
        QueryCommand::Similar(args) => each(&args.group.key, &|key| similar::run(args, key, store, as_json)),
        QueryCommand::TopGroup(args) => each(&args.group.key, &|key| top_group::run(args, key, store, as_json)),
    }
}

/// Which rows a question is about.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// Rows: 0..100 or 3,17,42.
    #[arg(long, conflicts_with = "filter")]
    rows: Option<String>,
    /// Rows that pass, such as 'logits.argmax = 3'.
    #[arg(long = "where", value_name = "EXPR")]
    filter: Option<String>,
}

impl RowArgs {
    /// The selection; all rows where none was named. A row that is named twice is one row all the same.
    pub fn selection(&self) -> Result<RowSelection> {
        Ok(match (&self.rows, &self.filter) {
            (Some(rows), _) => match rows.parse()? {
                RowSelection::List(ids) => {
                    let mut seen = BTreeSet::new();
                    RowSelection::List(ids.into_iter().filter(|id| seen.insert(*id)).collect())
                }
                other => other,
            },
            (None, Some(filter)) => {
                let predicate = Predicate::parse(filter)?;
                predicate.operands().into_iter().try_for_each(versions::no_pattern)?;
                RowSelection::Where(predicate)
            }
            (None, None) => RowSelection::All,
        })
    }
}

/// How the values of a question are got.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// How to answer.
    #[arg(long, value_parser = plan_parser(), default_value = "auto")]
    plan: PlanChoice,
    /// Never answer from a lossy copy.
    #[arg(long)]
    exact: bool,
    /// Where a model runs again: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
}

impl PlanArgs {
    /// A reader that runs models where it was said.
    pub fn reader<'a>(&self, store: &'a Store) -> ChunkReader<'a> {
        super::get::reader(store, self.device)
    }

    /// As [`PlanArgs::reader`], for a question with several sides: each is asked for the rows that were chosen.
    pub fn reader_about<'a>(&self, store: &'a Store, rows: &RowArgs) -> Result<ChunkReader<'a>> {
        Ok(self.reader(store).about(rows.selection()?))
    }

    /// How the question's values are to be got, and those of the columns that it names beside.
    pub fn demand(&self) -> Demand {
        Demand { plan: self.plan, exact: self.exact }
    }

    /// A request for all rows of a key.
    pub fn request(&self, key: &str) -> Result<Request> {
        Ok(Request::new(key.parse::<Key>()?).with_demand(self.demand()))
    }
}

/// The column that rows are grouped by, named relative to the model of `key` or whole.
fn by_operand<'r, 'a>(
    reader: &'r ChunkReader<'a>,
    key: &str,
    by: Option<&str>,
    plan: &PlanArgs,
) -> Result<Option<OperandScan<'r, 'a>>> {
    let Some(by) = by else { return Ok(None) };
    versions::no_pattern(by)?;
    let near = reader.store().intermediate(&key.parse::<Key>()?.intermediate)?;
    let operand = reader.operand(Some(&near), by, Wanted::Name)?.argmax_of_many(reader)?;
    Ok(Some(reader.operand_scan(&operand, plan.demand())?))
}

/// Predictions beside labels, over the rows chosen.
fn labelled<'r, 'a>(
    reader: &'r ChunkReader<'a>,
    predicted: &str,
    label: &str,
    rows: &RowArgs,
    plan: &PlanArgs,
) -> Result<Labelled<'r, 'a>> {
    versions::no_pattern(label)?;
    let predictions = reader.prediction(predicted, plan.demand())?;
    let key = predictions.scan().key().clone();
    let both = Labelled::open(reader, predictions, label, plan.demand())?;
    let [lacking, _] = both.unshared;
    if rows.rows.is_some() && lacking > 0 {
        let of = count(both.predicted.rows().len() as u64);
        eprintln!(
            "note: {label} lacks {} of the {of} rows asked for, which are left out; labels are logged with their rows",
            count(lacking)
        );
    }
    Ok(match rows.selection()? {
        RowSelection::All => both,
        some => {
            both.among(reader.scan(&Request::new(reader.key(&key)).with_rows(some).with_demand(plan.demand()))?.rows())
        }
    })
}

/// Columns of text that a question about numbers leaves out.
fn left_out(reader: &ChunkReader<'_>, key: &str) -> Result<String> {
    let names = reader.left_out(&key.parse()?)?;
    Ok(if names.is_empty() { String::new() } else { format!("; text left out: {}", names.join(", ")) })
}

/// Rows in no group, since the column that they are grouped by is null there.
fn ungrouped(n: u64) -> String {
    if n == 0 { String::new() } else { format!("; {} rows in no group: null there", count(n)) }
}

/// Rows that only one side of a comparison has.
fn unshared(n: &[u64]) -> String {
    if n.iter().all(|n| *n == 0) {
        return String::new();
    }
    let n: Vec<String> = n.iter().map(|n| count(*n)).collect();
    format!("; rows that only one side has: {}", n.join(", "))
}

/// A cell as JSON: an integer as a number where JSON's readers hold it, else as text.
fn cell_json(cell: Option<&Cell>) -> Value {
    match cell {
        None => Value::Null,
        Some(Cell::Int(v)) => i64::try_from(*v).map_or_else(|_| Value::String(v.to_string()), Value::from),
        Some(Cell::Float(v)) => number(*v),
        Some(Cell::Text(v)) => Value::from(v.as_str()),
    }
}
