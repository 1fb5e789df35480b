//! FillNA: missing values (nulls, and NaN in floats) replaced.
//!
//! Parameters: `strategy`, `constant` (default), `mean`, `median` or `mode` (the most frequent value; of equals the
//! smallest); `value`, the constant; `columns` (default: all that the strategy can fill: numbers for mean and median,
//! columns of the constant's kind for constant). Mean and median make a whole-number column float64, and so does a constant
//! that int64 does not hold. What was learnt can be applied to another table by `fit`. A column without any value stays as
//! it is.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::{cast, is_null, kernels::zip::zip, or};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::category::Category;
use crate::pipeline::columns::{Columns, type_name};
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::learnt::{self, Num};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "FillNA", version: 2, inputs: &[Slot::Table], fit: Some(&[]), parse };

#[derive(Debug)]
struct FillNa {
    strategy: &'static str,
    value: Option<Fill>,
    columns: Option<Vec<String>>,
}

/// What a missing value becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fill {
    Number(Num),
    /// A whole number that a float need not hold.
    Whole(i64),
    Boolean(bool),
    Text(String),
    Date(i32),
}

impl Fill {
    fn whole(i: i64) -> Self {
        if i.unsigned_abs() <= 1 << 53 { Fill::Number(Num(i as f64)) } else { Fill::Whole(i) }
    }
}

/// Column and value, in the order of the table; null for a column without any value.
#[derive(Debug, Serialize, Deserialize)]
struct Fills {
    fills: Vec<(String, Option<Fill>)>,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let strategy = params.choice_or("strategy", "constant", &["constant", "mean", "median", "mode"])?;
    let columns = params.texts_opt("columns")?;
    let node = params.take("value")?;
    let value = match node.as_ref().map(|n| n.value()) {
        None => None,
        Some(Value::Number(n)) => n.as_i64().map(Fill::whole).or_else(|| n.as_f64().map(|v| Fill::Number(Num(v)))),
        Some(Value::Bool(b)) => Some(Fill::Boolean(b)),
        Some(Value::String(s)) => Some(Fill::Text(s)),
        Some(_) => None,
    };
    match (&value, &node, strategy == "constant") {
        (None, Some(node), _) => return Err(params.bad("value", "a number, a text, true or false", node)),
        (Some(_), Some(node), false) => {
            return Err(params.bad("value", format!("none, since the strategy is {strategy}"), node));
        }
        (None, None, true) => return Err(params.missing("value", "what missing values become")),
        _ => {}
    }
    if let Some(node) = &node {
        let canonical = if let Some(Fill::Number(Num(v))) = &value { json!(v) } else { node.value() };
        params.keep("value", canonical);
    }
    Ok(Box::new(FillNa { strategy, value, columns }))
}

fn is_number(t: &DataType) -> bool {
    matches!(t, DataType::Float64 | DataType::Float32 | DataType::Int64)
}

impl FillNa {
    /// Whether columns of type `t` can be filled.
    fn fits(&self, t: &DataType) -> bool {
        match (self.strategy, &self.value) {
            ("mean" | "median", _) | (_, Some(Fill::Number(_) | Fill::Whole(_))) => is_number(t),
            (_, Some(Fill::Boolean(_))) => *t == DataType::Boolean,
            (_, Some(Fill::Text(_))) => *t == DataType::Utf8,
            _ => true,
        }
    }

    /// The filled column's type.
    fn filled_type(&self, t: &DataType) -> DataType {
        let whole = match (self.strategy, &self.value) {
            ("mean" | "median", _) => false,
            (_, Some(Fill::Number(Num(v)))) => as_whole(*v).is_some(),
            _ => true,
        };
        if *t == DataType::Int64 && !whole { DataType::Float64 } else { t.clone() }
    }

    fn chosen(&self, columns: &Columns) -> Result<Vec<(String, DataType)>, OperatorError> {
        let Some(names) = &self.columns else {
            return Ok(columns.known().iter().filter(|(_, t)| self.fits(t)).cloned().collect());
        };
        let expected = match (self.strategy, &self.value) {
            ("constant", Some(Fill::Text(_))) => "text, as the constant",
            ("constant", Some(Fill::Boolean(_))) => "boolean, as the constant",
            _ => "a number",
        };
        let typed = |n: &String| Ok((n.clone(), columns.of_type("columns", n, expected, |t| self.fits(t))?));
        names.iter().map(typed).collect()
    }

    /// Refuses a constant that would become infinite.
    fn check_range(&self, name: &str, t: &DataType) -> Result<(), OperatorError> {
        match &self.value {
            Some(Fill::Number(Num(v))) if *t == DataType::Float32 && (*v as f32).is_infinite() => {
                let why = format!("column {name} is float32, which does not hold {v:e}; leave it out or convert it");
                Err(OperatorError::Param { param: "value", why })
            }
            _ => Ok(()),
        }
    }

    fn fill_of(&self, table: &Table, name: &str) -> Result<Option<Fill>, OperatorError> {
        let column = table.column("columns", name)?;
        if let Some(value) = &self.value {
            return Ok(Some(value.clone()));
        }
        if self.strategy == "mode" {
            return mode(column);
        }
        let numbers = table.numbers("columns", name)?;
        let mut present: Vec<f64> = numbers.iter().flatten().filter(|v| !v.is_nan()).collect();
        if present.is_empty() {
            return Ok(None);
        }
        let value = match self.strategy {
            "mean" => present.iter().sum::<f64>() / present.len() as f64,
            _ => median(&mut present),
        };
        Ok(Some(Fill::Number(Num(value))))
    }
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(values.len() / 2, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if !odd => (lower + *upper) / 2.0,
        _ => *upper,
    }
}

fn as_whole(v: f64) -> Option<i64> {
    (v.fract() == 0.0 && v.abs() < 2f64.powi(63)).then_some(v as i64)
}

fn mode(column: &ArrayRef) -> Result<Option<Fill>, OperatorError> {
    let mut counts: HashMap<Category, usize> = HashMap::new();
    for category in Category::of(column)?.into_iter().flatten() {
        *counts.entry(category).or_default() += 1;
    }
    let most = counts.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then_with(|| b.cmp(a)));
    Ok(most.map(|(category, _)| match category {
        Category::Boolean(b) => Fill::Boolean(b),
        Category::Whole(i) if *column.data_type() == DataType::Date32 => Fill::Date(i as i32),
        Category::Whole(i) => Fill::whole(i),
        Category::Float(_) => Fill::Number(Num(category.number().unwrap_or_default())),
        Category::Text(t) => Fill::Text(t.to_string()),
    }))
}

/// The column with `fill` where it is missing, of type `filled`.
fn fill(column: &ArrayRef, fill: &Fill, filled: &DataType) -> Result<ArrayRef, OperatorError> {
    let column = cast(column, filled)?;
    let missing = match filled {
        DataType::Float64 => nan(column.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::is_nan))),
        DataType::Float32 => nan(column.as_primitive::<Float32Type>().iter().map(|v| v.map(f32::is_nan))),
        _ => is_null(&column)?,
    };
    let missing = or(&missing, &is_null(&column)?)?;
    let scalar: ArrayRef = match (filled, fill) {
        (DataType::Int64, Fill::Number(Num(v))) => Arc::new(Int64Array::from(vec![as_whole(*v).unwrap_or_default()])),
        (_, Fill::Whole(i)) => cast(&Int64Array::from(vec![*i]), filled)?,
        (_, Fill::Number(Num(v))) => cast(&Float64Array::from(vec![*v]), filled)?,
        (_, Fill::Boolean(b)) => Arc::new(BooleanArray::from(vec![*b])),
        (_, Fill::Text(t)) => Arc::new(StringArray::from(vec![t.as_str()])),
        (_, Fill::Date(d)) => Arc::new(arrow::array::Date32Array::from(vec![*d])),
    };
    if scalar.data_type() != filled {
        let why =
            format!("learnt from a column of type {}, applied to {}", type_name(scalar.data_type()), type_name(filled));
        return Err(OperatorError::Learnt { operator: KIND.name, why });
    }
    Ok(zip(&missing, &arrow::array::Scalar::new(scalar), &column)?)
}

fn nan(values: impl Iterator<Item = Option<bool>>) -> BooleanArray {
    values.map(|v| Some(v.unwrap_or(true))).collect()
}

impl Operator for FillNa {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let chosen = self.chosen(&columns)?;
        for (name, data_type) in &chosen {
            self.check_range(name, data_type)?;
            columns.set(name, self.filled_type(data_type));
        }
        Ok(Checked::table(columns).learning(Columns::new(chosen)))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let table = inputs.table(0)?;
        let chosen = self.chosen(&Columns::of(&table.schema()))?;
        let fills = chosen.into_iter().map(|(name, _)| Ok((name.clone(), self.fill_of(table, &name)?)));
        learnt::write(&Fills { fills: fills.collect::<Result<_, OperatorError>>()? })
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let Fills { fills } = learnt::read(KIND.name, inputs.own(KIND.name)?)?;
        let mut filled = Vec::new();
        for (name, value) in &fills {
            let column = table.column("fit", name)?;
            let to = self.filled_type(column.data_type());
            let column = match value {
                Some(value) => fill(column, value, &to)?,
                None => cast(column, &to)?,
            };
            filled.push((name.clone(), column));
        }
        Ok(Outcome::table(table.with_columns(filled)?))
    }
}
