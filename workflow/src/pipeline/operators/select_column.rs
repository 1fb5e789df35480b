//! SelectColumn: some columns of a table, in the order given.
//!
//! Parameters: `columns`, the names.

use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "SelectColumn", version: 1, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct SelectColumn {
    columns: Vec<String>,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(SelectColumn { columns: params.texts("columns", "names of columns")? }))
}

impl Operator for SelectColumn {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let table = given.table()?;
        let columns = self.columns.iter().map(|c| Ok((c.clone(), table.get("columns", c)?)));
        Ok(Checked::table(Columns::new(columns.collect::<Result<_, OperatorError>>()?)))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        Ok(Outcome::table(inputs.table(0)?.select("columns", &self.columns)?))
    }
}
