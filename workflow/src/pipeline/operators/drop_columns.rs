//! DropColumns: a table without some of its columns.
//!
//! Parameters: `columns`, the names.

use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "DropColumns", version: 1, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct DropColumns {
    columns: Vec<String>,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(DropColumns { columns: params.texts("columns", "names of columns")? }))
}

impl Operator for DropColumns {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        for name in &self.columns {
            columns.get("columns", name)?;
            columns.remove(name);
        }
        Ok(Checked::table(columns))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        for name in &self.columns {
            table.column("columns", name)?;
        }
        let names: Vec<String> = table.names().into_iter().filter(|n| !self.columns.contains(n)).collect();
        Ok(Outcome::table(table.select("columns", &names)?))
    }
}
