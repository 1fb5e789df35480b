//! A column's values as categories: what OneHotEncoding, LabelIndexing and FillNA's mode count and order.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use serde::{Deserialize, Serialize};

use crate::pipeline::error::OperatorError;

/// A value that is neither null nor NaN; ordered by value, floats with −0 equal to 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Category {
    Boolean(bool),
    /// Whole numbers, and dates as days since 1970.
    Whole(i64),
    /// A float's bits, so turned that they are ordered as the floats.
    Float(i64),
    Text(Box<str>),
}

/// A mapping of a float's bits that keeps the floats' order, and is its own inverse.
fn ordered(bits: i64) -> i64 {
    bits ^ ((((bits >> 63) as u64) >> 1) as i64)
}

impl Category {
    /// The categories of a column; `None` for nulls and NaN.
    pub(super) fn of(column: &ArrayRef) -> Result<Vec<Option<Category>>, OperatorError> {
        let float = |v: f64| (!v.is_nan()).then(|| Category::Float(ordered((v + 0.0).to_bits() as i64)));
        Ok(match column.data_type() {
            DataType::Boolean => column.as_boolean().iter().map(|v| v.map(Category::Boolean)).collect(),
            DataType::Utf8 => column.as_string::<i32>().iter().map(|v| v.map(|t| Category::Text(t.into()))).collect(),
            DataType::Float64 => column.as_primitive::<Float64Type>().iter().map(|v| v.and_then(float)).collect(),
            DataType::Float32 => {
                column.as_primitive::<Float32Type>().iter().map(|v| v.and_then(|v| float(f64::from(v)))).collect()
            }
            DataType::Date32 => {
                let days = cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?;
                days.as_primitive::<Int64Type>().iter().map(|v| v.map(Category::Whole)).collect()
            }
            _ => column.as_primitive::<Int64Type>().iter().map(|v| v.map(Category::Whole)).collect(),
        })
    }

    /// The number, of a number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Category::Float(turned) => Some(f64::from_bits(ordered(*turned) as u64)),
            Category::Whole(i) => Some(*i as f64),
            _ => None,
        }
    }

    /// The category in a column's name: dates as 2016-01-31.
    pub(super) fn name(&self, of: &DataType) -> String {
        match self {
            Category::Boolean(b) => b.to_string(),
            Category::Whole(days) if *of == DataType::Date32 => {
                let date = arrow::array::Date32Array::from(vec![*days as i32]);
                arrow::util::display::array_value_to_string(&date, 0).unwrap_or_else(|_| days.to_string())
            }
            Category::Whole(i) => i.to_string(),
            Category::Float(_) => self.number().unwrap_or_default().to_string(),
            Category::Text(t) => t.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;

    use super::*;

    #[test]
    fn floats_are_ordered_and_round_trip() {
        let values = [f64::NEG_INFINITY, -2.5, -1e-300, 0.0, 1e-300, 2.5, f64::INFINITY];
        let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let categories: Vec<Category> = Category::of(&column).unwrap().into_iter().flatten().collect();
        assert!(categories.is_sorted_by(|a, b| a < b));
        let back: Vec<f64> = categories.iter().filter_map(Category::number).collect();
        assert_eq!(back, values);
        let odd: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, f64::NAN]));
        assert_eq!(Category::of(&odd).unwrap(), [Some(categories[3].clone()), None]);
    }
}
