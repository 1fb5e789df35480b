//! IsResidential: whether a home's land-use code is among those given, as a new boolean column; false where the code is
//! missing. The column is one of numbers or texts; of numbers, all codes must be some.
//!
//! Parameters: `codes`, a list of numbers or texts; `column` (default `propertylandusetypeid`); `output`, the new column's
//! name (default `is_residential`).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use serde_json::json;

use crate::pipeline::columns::type_name;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::node::Kind;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "IsResidential", version: 2, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct IsResidential {
    column: String,
    /// The codes that int64 holds, for columns of it: as floats, large ones would fall together.
    wholes: HashSet<i64>,
    numbers: Vec<f64>,
    texts: HashSet<String>,
    /// The first code that is no number.
    no_number: Option<String>,
    output: String,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    const EXPECTED: &str = "a list of codes, such as [261, 263]";
    let column = params.text_or("column", "propertylandusetypeid")?;
    let output = params.text_or("output", "is_residential")?;
    let node = params.take("codes")?.ok_or_else(|| params.missing("codes", EXPECTED))?;
    let Kind::List(list) = &node.kind else { return Err(params.bad("codes", EXPECTED, &node)) };
    let (mut wholes, mut numbers, mut texts) = (HashSet::new(), Vec::new(), HashSet::new());
    let mut no_number = None;
    for code in list {
        match &code.kind {
            Kind::Number(n) => {
                wholes.extend(n.as_i64().or_else(|| n.as_f64().and_then(as_whole)));
                numbers.extend(n.as_f64());
                texts.insert(n.to_string());
            }
            Kind::Text(t) => {
                let number = t.parse::<f64>().ok();
                wholes.extend(t.parse::<i64>().ok().or_else(|| number.and_then(as_whole)));
                if number.is_none() && no_number.is_none() {
                    no_number = Some(t.clone());
                }
                numbers.extend(number);
                texts.insert(t.clone());
            }
            _ => return Err(params.bad("codes", EXPECTED, code)),
        }
    }
    params.keep("codes", json!(node.value()));
    Ok(Box::new(IsResidential { column, wholes, numbers, texts, no_number, output }))
}

/// The whole number that a float is, within int64.
fn as_whole(v: f64) -> Option<i64> {
    (v.fract() == 0.0 && v.abs() < 2f64.powi(63)).then_some(v as i64)
}

impl Operator for IsResidential {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let fits = |t: &DataType| !matches!(t, DataType::Boolean | DataType::Date32);
        let found = columns.of_type("column", &self.column, "a code: a number or a text", fits)?;
        if let Some(code) = self.no_number.as_ref().filter(|_| found != DataType::Utf8) {
            let why = format!("column {} is {}, so {code:?} is none of its codes", self.column, type_name(&found));
            return Err(OperatorError::Param { param: "codes", why });
        }
        columns.add("output", &self.output, DataType::Boolean)?;
        Ok(Checked::table(columns))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let column = table.column("column", &self.column)?;
        let among: BooleanArray = if let Some(texts) = column.as_string_opt::<i32>() {
            texts.iter().map(|t| Some(t.is_some_and(|t| self.texts.contains(t)))).collect()
        } else if let Some(wholes) = column.as_primitive_opt::<Int64Type>() {
            wholes.iter().map(|n| Some(n.is_some_and(|n| self.wholes.contains(&n)))).collect()
        } else {
            let numbers = table.numbers("column", &self.column)?;
            numbers.iter().map(|n| Some(n.is_some_and(|n| self.numbers.contains(&n)))).collect()
        };
        Ok(Outcome::table(table.with_columns(vec![(self.output.clone(), Arc::new(among))])?))
    }
}
