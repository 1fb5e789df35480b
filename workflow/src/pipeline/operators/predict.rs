//! Predict: what a trained model says of every row of a table, as a table of one float64 column.
//!
//! Inputs: the training stage, the table. Parameters: `column`, the new column's name (`prediction`); `decimals`, to which
//! predictions are rounded, as in files to be submitted (default: not at all). A regression's prediction is the number, a
//! classification's the probability of 1.

use std::sync::Arc;

use arrow::array::Float64Array;
use arrow::datatypes::DataType;

use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::models::Trained;
use crate::pipeline::models::features::Matrix;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Predict", version: 1, inputs: &[Slot::Learnt, Slot::Table], fit: None, parse };

#[derive(Debug)]
struct Predict {
    column: String,
    decimals: Decimals,
}

/// To how many decimals numbers are rounded: parameter `decimals`, default not at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimals(Option<u64>);

impl Decimals {
    pub(crate) fn parse(params: &mut Params) -> Result<Self, PipelineError> {
        Ok(Self(params.whole_opt("decimals", 0..=15)?))
    }

    pub(crate) fn round(self, values: &mut [f64]) {
        let Some(decimals) = self.0 else { return };
        // Powers of ten up to 10^15 are exact.
        let scale = (0..decimals).fold(1.0, |scale, _| scale * 10.0);
        values.iter_mut().for_each(|v| *v = (*v * scale).round() / scale);
    }
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(Predict { column: params.text_or("column", "prediction")?, decimals: Decimals::parse(params)? }))
}

impl Operator for Predict {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [Given::Learnt { operator, needs, about }, given] = inputs else { return Ok(Checked::default()) };
        if !about.contains_key("task") {
            let why =
                format!("{operator} learns no model that predicts; name a training stage, such as TrainElasticNet");
            return Err(OperatorError::Columns { why });
        }
        let table = given.table()?;
        for (name, _) in needs.known() {
            table.number("inputs", name)?;
        }
        Ok(Checked::table(Columns::new(vec![(self.column.clone(), DataType::Float64)])))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let (learnt, table) = (inputs.learnt_by(0)?, inputs.table(1)?);
        let trained = Trained::from_bytes(learnt.operator, &learnt.bytes)?;
        let mut values = trained.predict(&Matrix::new(table, "inputs", &trained.features)?)?;
        self.decimals.round(&mut values);
        let columns = vec![(self.column.clone(), Arc::new(Float64Array::from(values)) as _)];
        Ok(Outcome::table(Table::of(Arc::clone(table.rows()), columns)?))
    }
}
