//! GetConstructionRecency: how many years before a given year a home was built, as a new column; null where that is not
//! known.
//!
//! Parameters: `column`, the year of construction (default `yearbuilt`); `year` (default 2016); `output`, the new
//! column's name (default `construction_recency`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "GetConstructionRecency", version: 2, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct GetConstructionRecency {
    column: String,
    year: u16,
    output: String,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(GetConstructionRecency {
        column: params.text_or("column", "yearbuilt")?,
        year: params.whole_or("year", 2016, 0..=9999)? as u16,
        output: params.text_or("output", "construction_recency")?,
    }))
}

impl Operator for GetConstructionRecency {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let year = |t: &DataType| matches!(t, DataType::Int64 | DataType::Float64 | DataType::Float32);
        let found = columns.of_type("column", &self.column, "a year as a number", year)?;
        let recency = if found == DataType::Int64 { DataType::Int64 } else { DataType::Float64 };
        columns.add("output", &self.output, recency)?;
        Ok(Checked::table(columns))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let built = table.column("column", &self.column)?;
        let recency: ArrayRef = if let Some(built) = built.as_primitive_opt::<Int64Type>() {
            let since = |y: i64| i64::from(self.year).checked_sub(y);
            let is_too_large = |i: &usize| built.is_valid(*i) && since(built.value(*i)).is_none();
            if let Some(at) = (0..built.len()).find(is_too_large) {
                let why = format!("{} - {} is beyond int64", self.year, built.value(at));
                return Err(OperatorError::NoValue { row: table.rows().get(at).copied(), why });
            }
            let recency: Int64Array = built.unary(|y| since(y).unwrap_or(y));
            Arc::new(recency)
        } else {
            let recency: Float64Array =
                table.numbers("column", &self.column)?.unary::<_, Float64Type>(|y| f64::from(self.year) - y);
            Arc::new(recency)
        };
        Ok(Outcome::table(table.with_columns(vec![(self.output.clone(), recency)])?))
    }
}
