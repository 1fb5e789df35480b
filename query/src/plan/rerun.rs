//! RERUN: run the model again from its stored operators and its dataset (Eqs. 5.2 and 5.3).

use std::collections::HashMap;

use super::{Answered, Considered, PlanChoice, PlanKind, Planning, output};
use crate::error::Result;

const NAME: &str = "RERUN";

impl PlanChoice {
    /// The model, run again from its input; once for all requests that need it.
    pub const RERUN: Self = Self::Only(NAME);
}

pub(super) struct FromInput;

impl PlanKind for FromInput {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "Run the model again from its input"
    }

    fn consider(&self, planning: &Planning<'_>) -> Result<Option<Considered>> {
        let request = planning.request;
        let stages = match planning.stages()? {
            Err(why) => return Ok(Some(Considered::impossible(NAME, why))),
            Ok(stages) => stages,
        };
        let target = match stages.stage(&request.record.key.intermediate) {
            Err(why) => return Ok(Some(Considered::impossible(NAME, why))),
            Ok(target) => target,
        };
        let cut = stages.cut_at_dataset(&stages.needed(&[target]));
        let price = stages.total(planning.context, &cut, &HashMap::new(), &[request])?;
        let how = format!("{}, {} rows of the dataset", stages.describe_run(&cut), request.rows.len());
        let source = output::source(request, None);
        let considered = Considered::new(NAME, how, price.estimate, price.bytes).from(source);
        let unavailable = stages.no_dataset.clone().or_else(|| stages.lacks(&cut.run));
        Ok(Some(Considered { unavailable, ..considered }))
    }

    fn run(&self, planning: &Planning<'_>) -> Result<Vec<Answered>> {
        let request = planning.request;
        let stages = planning.stages()?.or_else(|why| planning.refuse(NAME, why))?;
        let target = stages.stage(&request.record.key.intermediate).or_else(|why| planning.refuse(NAME, why))?;
        let cut = stages.cut_at_dataset(&stages.needed(&[target]));
        let name = request.record.key.intermediate.clone();
        let values = stages.run(planning.context, &cut, &HashMap::new(), &[name])?.pop();
        let data = output::shape(planning.context, request, values)?;
        Ok(vec![(planning.at, data, output::source(request, None))])
    }
}
