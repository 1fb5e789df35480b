//! ANCESTOR: run the model again, but from stored copies of the stages before: the nearest one worth reading on a chain,
//! the cheapest set of them where the graph branches. Only copies that hold exactly what was logged are used, so that
//! the values are those of a RERUN.

use std::collections::HashMap;

use super::cut::{Cut, Wanted};
use super::stages::{Copy, Stages};
use super::{Answered, Considered, Context, PlanChoice, PlanKind, Planning, Resolved, output};
use crate::error::Result;

const NAME: &str = "ANCESTOR";

impl PlanChoice {
    /// The model, run again from what is stored of the stages before.
    pub const ANCESTOR: Self = Self::Only(NAME);
}

pub(super) struct FromAncestor;

type Found<'s> = std::result::Result<(Cut, HashMap<usize, Copy<'s>>), String>;

/// The cheapest cut that reads something.
fn find<'s>(context: &Context<'_>, stages: &'s Stages<'_>, request: &Resolved) -> Result<Found<'s>> {
    let name = &request.record.key.intermediate;
    let target = match stages.stage(name) {
        Err(why) => return Ok(Err(why)),
        Ok(target) => target,
    };
    let needed = stages.needed(&[target]);
    let mut copies = stages.copies(context, &needed)?;
    copies.remove(&target);
    if !copies.is_empty() {
        let wanted = [Wanted { node: target, read: None }];
        // With the dataset a run from it may be cheapest, which is no plan of this kind: then the best without it.
        for with_dataset in [stages.no_dataset.is_none(), false] {
            let cut = stages.cut(context, &wanted, &needed, &copies, with_dataset)?;
            if let Some(cut) = cut.filter(|c| !c.read.is_empty()) {
                return Ok(Ok((cut, copies)));
            }
        }
    }
    let lacks = stages.lacks(&[target]).map_or(String::new(), |why| format!("; {why}"));
    Ok(Err(format!("nothing that {name} can be run from is stored exactly for these rows{lacks}")))
}

impl PlanKind for FromAncestor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "Run the model again from stored stages before"
    }

    fn consider(&self, planning: &Planning<'_>) -> Result<Option<Considered>> {
        let (context, request) = (planning.context, planning.request);
        let stages = match planning.stages()? {
            Err(why) => return Ok(Some(Considered::impossible(NAME, why))),
            Ok(stages) => stages,
        };
        let (cut, copies) = match find(context, stages, request)? {
            Err(why) => return Ok(Some(Considered::impossible(NAME, why))),
            Ok(found) => found,
        };
        let price = stages.total(context, &cut, &copies, &[request])?;
        let dataset = if cut.dataset { " and the dataset" } else { "" };
        let how = format!("read {}{dataset}, {}", stages.sources(&cut, &copies), stages.describe_run(&cut));
        let source = output::source(request, Some(stages.sources(&cut, &copies)));
        Ok(Some(Considered::new(NAME, how, price.estimate, price.bytes).from(source)))
    }

    fn run(&self, planning: &Planning<'_>) -> Result<Vec<Answered>> {
        let (context, request) = (planning.context, planning.request);
        let stages = planning.stages()?.or_else(|why| planning.refuse(NAME, why))?;
        let (cut, copies) = find(context, stages, request)?.or_else(|why| planning.refuse(NAME, why))?;
        let values = stages.run(context, &cut, &copies, std::slice::from_ref(&request.record.key.intermediate))?.pop();
        let data = output::shape(context, request, values)?;
        Ok(vec![(planning.at, data, output::source(request, Some(stages.sources(&cut, &copies))))])
    }
}
