//! Avg: the mean of some numeric columns, row by row, as a new float64 column. Nulls are left out of a row's mean; a row
//! of nothing but nulls has none.
//!
//! Parameters: `columns`, the names; `output`, the new column's name.

use std::sync::Arc;

use arrow::array::{Array, Float64Array};
use arrow::datatypes::DataType;

use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Avg", version: 1, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct Avg {
    columns: Vec<String>,
    output: String,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(Avg {
        columns: params.texts("columns", "names of numeric columns")?,
        output: params.text("output", "name of the new column")?,
    }))
}

impl Operator for Avg {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        for name in &self.columns {
            columns.number("columns", name)?;
        }
        columns.add("output", &self.output, DataType::Float64)?;
        Ok(Checked::table(columns))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let numbers = self.columns.iter().map(|c| table.numbers("columns", c)).collect::<Result<Vec<_>, _>>()?;
        let mut sums = vec![0.0f64; table.n_rows()];
        let mut counts = vec![0u32; table.n_rows()];
        for column in &numbers {
            for (row, (sum, count)) in sums.iter_mut().zip(&mut counts).enumerate() {
                if column.is_valid(row) {
                    *sum += column.value(row);
                    *count += 1;
                }
            }
        }
        let means = sums.iter().zip(&counts).map(|(sum, &n)| (n > 0).then(|| sum / f64::from(n)));
        let means: Float64Array = means.collect();
        Ok(Outcome::table(table.with_columns(vec![(self.output.clone(), Arc::new(means))])?))
    }
}
