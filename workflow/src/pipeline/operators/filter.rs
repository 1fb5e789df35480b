//! Filter: the rows for which a condition is true; they keep their row_ids. A row for which the condition is null does not
//! stay.
//!
//! Parameters: `where`, an expression such as `bathroomcnt > 0 and latitude is not null` (see Expression).

use arrow::array::AsArray;
use arrow::datatypes::DataType;

use crate::pipeline::columns::type_name;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::expression::Expression;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Filter", version: 2, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct Filter {
    condition: Expression,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let Some(text) = params.text_opt("where")? else {
        return Err(params.missing("where", "a condition, such as `price > 0`"));
    };
    Ok(Box::new(Filter { condition: Expression::parse(&text).map_err(|why| params.unfit("where", why))? }))
}

impl Operator for Filter {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let columns = given.table()?;
        match self.condition.check("where", columns)? {
            DataType::Boolean => Ok(Checked::table(columns.clone())),
            other => {
                let why = format!("a condition is true or false; this is {}", type_name(&other));
                Err(OperatorError::Param { param: "where", why })
            }
        }
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let keep = self.condition.evaluate("where", table)?;
        Ok(Outcome::table(table.filter(keep.as_boolean())?))
    }
}
