//! `mistique query top-group`.

use clap::Args;

use super::similar::GroupArgs;
use crate::cli::Result;
use crate::{ByExample, Store};

#[derive(Debug, Args)]
pub struct TopGroupArgs {
    #[command(flatten)]
    pub group: GroupArgs,
}

pub fn run(args: &TopGroupArgs, key: &str, store: &Store, as_json: bool) -> Result<String> {
    let group = &args.group;
    group.run(key, store, as_json, |key| ByExample::highest(key.intermediate.clone(), &*group.units, group.k))
}
