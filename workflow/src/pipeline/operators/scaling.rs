//! Scaling: numeric columns shifted and scaled, as float64. Nulls and NaN are left out when it learns, and stay.
//!
//! Parameters: `method`, `standard` (default: mean 0 and standard deviation 1, of the whole set, as scikit-learn) or
//! `min_max` (to 0 ... 1); `columns` (default: all floats and whole numbers). A column of one value becomes 0. What was
//! learnt can be applied to another table by `fit`, where of such a column that value is subtracted, and no more.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use serde::{Deserialize, Serialize};

use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::learnt::{self, Num};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::constant;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Scaling", version: 1, inputs: &[Slot::Table], fit: Some(&[]), parse };

#[derive(Debug)]
struct Scaling {
    min_max: bool,
    columns: Option<Vec<String>>,
}

/// A value becomes (value - shift) / scale.
#[derive(Debug, Serialize, Deserialize)]
struct Scaled {
    column: String,
    shift: Num,
    scale: Num,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let min_max = params.choice_or("method", "standard", &["standard", "min_max"])? == "min_max";
    Ok(Box::new(Scaling { min_max, columns: params.texts_opt("columns")? }))
}

impl Scaling {
    fn chosen(&self, columns: &Columns) -> Result<Vec<(String, DataType)>, OperatorError> {
        let number = |t: &DataType| matches!(t, DataType::Float64 | DataType::Float32 | DataType::Int64);
        match &self.columns {
            None => Ok(columns.known().iter().filter(|(_, t)| number(t)).cloned().collect()),
            Some(names) => {
                let typed = |n: &String| Ok((n.clone(), columns.of_type("columns", n, "a number", number)?));
                names.iter().map(typed).collect()
            }
        }
    }

    fn learn_column(&self, values: &Float64Array) -> (f64, f64) {
        let present = || values.iter().flatten().filter(|v| !v.is_nan());
        if let Some(value) = constant(present()) {
            return (value, 1.0);
        }
        let n = present().count() as f64;
        if n == 0.0 {
            return (0.0, 1.0);
        }
        let (shift, scale) = if self.min_max {
            let (low, high) = (present().fold(f64::INFINITY, f64::min), present().fold(f64::NEG_INFINITY, f64::max));
            (low, high - low)
        } else {
            let mean = present().sum::<f64>() / n;
            (mean, (present().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt())
        };
        (shift, if scale == 0.0 { 1.0 } else { scale })
    }
}

impl Operator for Scaling {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let chosen = self.chosen(&columns)?;
        chosen.iter().for_each(|(name, _)| columns.set(name, DataType::Float64));
        Ok(Checked::table(columns).learning(Columns::new(chosen)))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let table = inputs.table(0)?;
        let mut scaled = Vec::new();
        for (column, _) in self.chosen(&Columns::of(&table.schema()))? {
            let (shift, scale) = self.learn_column(&table.numbers("columns", &column)?);
            scaled.push(Scaled { column, shift: Num(shift), scale: Num(scale) });
        }
        learnt::write(&scaled)
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let scaled: Vec<Scaled> = learnt::read(KIND.name, inputs.own(KIND.name)?)?;
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for Scaled { column, shift, scale } in &scaled {
            let values = table.numbers("fit", column)?;
            let values: Float64Array = values.unary::<_, Float64Type>(|v| (v - shift.0) / scale.0);
            columns.push((column.clone(), Arc::new(values)));
        }
        Ok(Outcome::table(table.with_columns(columns)?))
    }
}
