//! CombinePredictions: the weighted sum of several models' predictions for the same rows.
//!
//! Inputs: two tables or more with the column `column` (`prediction`) and the same row_ids. Parameters: `weights`, one a
//! table (default: all the same, with sum 1); `column`; `decimals`, as of Predict.

use std::sync::Arc;

use arrow::array::{Array, Float64Array};
use arrow::datatypes::DataType;

use super::predict::Decimals;
use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "CombinePredictions", version: 1, inputs: &[Slot::Table, Slot::Tables], fit: None, parse };

#[derive(Debug)]
struct CombinePredictions {
    weights: Option<Vec<f64>>,
    column: String,
    decimals: Decimals,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(CombinePredictions {
        weights: params.numbers_opt("weights")?,
        column: params.text_or("column", "prediction")?,
        decimals: Decimals::parse(params)?,
    }))
}

impl Operator for CombinePredictions {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        for given in inputs {
            given.table()?.number("column", &self.column)?;
        }
        match &self.weights {
            Some(weights) if weights.len() != inputs.len() => {
                let why = format!("{} weights for {} tables; give one a table", weights.len(), inputs.len());
                Err(OperatorError::Param { param: "weights", why })
            }
            _ => Ok(Checked::table(Columns::new(vec![(self.column.clone(), DataType::Float64)]))),
        }
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let first = inputs.table(0)?;
        let n_tables = inputs.tables().count();
        let mut sums: Vec<Option<f64>> = vec![Some(0.0); first.n_rows()];
        for (i, table) in inputs.tables().enumerate() {
            if table.rows() != first.rows() {
                let why = format!("input {} has other rows than the first; combine predictions of one table", i + 1);
                return Err(OperatorError::Columns { why });
            }
            let weights = self.weights.as_deref().unwrap_or_default();
            let weight = weights.get(i).copied().unwrap_or(1.0 / n_tables as f64);
            let values = table.numbers("column", &self.column)?;
            sums.iter_mut().zip(&values).for_each(|(sum, v)| *sum = sum.zip(v).map(|(sum, v)| sum + weight * v));
        }
        let sums: Float64Array = sums.into_iter().collect();
        let mut values = sums.values().to_vec();
        self.decimals.round(&mut values);
        let sums = Float64Array::new(values.into(), sums.nulls().cloned());
        let columns = vec![(self.column.clone(), Arc::new(sums) as _)];
        Ok(Outcome::table(Table::of(Arc::clone(first.rows()), columns)?))
    }
}
