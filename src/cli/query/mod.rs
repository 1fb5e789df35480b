//! `mistique query`: diagnostic questions, one file each. A further one is a file, a line among the modules, a variant
//! and a line in [`run`].

mod netdissect;
mod similarity;
mod topk;

use clap::{Args, Subcommand};

use super::Result;
use super::get::PlanArg;
use crate::{ChunkReader, Device, Key, Predicate, Request, RowSelection, Store};

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
}

/// Answers a question.
pub fn run(command: &QueryCommand, store: &Store, as_json: bool) -> Result<String> {
    match command {
        QueryCommand::Svcca(args) => similarity::svcca(args, store, as_json),
        QueryCommand::Cca(args) => similarity::cca(args, store, as_json),
        QueryCommand::Pwcca(args) => similarity::pwcca(args, store, as_json),
        QueryCommand::Cka(args) => similarity::cka(args, store, as_json),
        QueryCommand::Netdissect(args) => netdissect::run(args, store, as_json),
        QueryCommand::Topk(args) => topk::run(args, store, as_json),
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
    /// The selection; all rows where none was named.
    pub fn selection(&self) -> Result<RowSelection> {
        Ok(match (&self.rows, &self.filter) {
            (Some(rows), _) => rows.parse()?,
            (None, Some(filter)) => RowSelection::Where(Predicate::parse(filter)?),
            (None, None) => RowSelection::All,
        })
    }
}

/// How the values of a question are got.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// How to answer.
    #[arg(long, value_enum, default_value = "auto")]
    plan: PlanArg,
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

    /// A request for all rows of a key.
    pub fn request(&self, key: &str) -> Result<Request> {
        Ok(Request::new(key.parse::<Key>()?).with_plan(self.plan.into()).with_exact(self.exact))
    }
}
