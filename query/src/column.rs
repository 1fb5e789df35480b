//! Columns of one value a row, and how their values stand to numbers, texts, times and each other: exactly, whatever
//! their types.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};

use crate::error::Result;
use crate::operand::bad_operand;
use crate::predicate::{Comparison, Term};

/// Values of an operand, one a row; `None` for nulls.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Integers, booleans as 0 and 1.
    Int(Vec<Option<i128>>),
    /// Dates and times, as integers of their type.
    Time(Vec<Option<i128>>, DataType),
    /// Floats.
    Float(Vec<Option<f64>>),
    /// Text.
    Text(Vec<Option<String>>),
}

/// A value of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// An integer; 0 and 1 for booleans.
    Int(i128),
    /// A float.
    Float(f64),
    /// Text, and dates and times as they are written.
    Text(String),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v) => f.write_str(v),
        }
    }
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(v) | Self::Time(v, _) => v.len(),
            Self::Float(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as f64, nulls as NaN; integers beyond 2^53 are rounded.
    ///
    /// Errors: `Unsupported` for text, naming `operand`.
    pub fn to_f64(&self, operand: &str) -> Result<Vec<f64>> {
        match self {
            Self::Int(v) | Self::Time(v, _) => Ok(v.iter().map(|v| v.map_or(f64::NAN, |v| v as f64)).collect()),
            Self::Float(v) => Ok(v.iter().map(|v| v.unwrap_or(f64::NAN)).collect()),
            Self::Text(_) => Err(bad_operand(operand, "it is text; a column of numbers is needed")),
        }
    }

    /// What the value of a row is more than another column's, integers exactly; NaN where either is null.
    ///
    /// Errors: `Unsupported` for text, naming `operand`.
    pub(crate) fn minus(&self, other: &Self, operand: &str) -> Result<Vec<f64>> {
        let (Self::Int(a) | Self::Time(a, _), Self::Int(b) | Self::Time(b, _)) = (self, other) else {
            let (a, b) = (self.to_f64(operand)?, other.to_f64(operand)?);
            return Ok(a.into_iter().zip(b).map(|(a, b)| a - b).collect());
        };
        let difference = |(a, b): (&Option<i128>, &Option<i128>)| a.zip(*b).map_or(f64::NAN, |(a, b)| (a - b) as f64);
        Ok(a.iter().zip(b).map(difference).collect())
    }

    /// The numbers of rows.
    pub(crate) fn ids(rows: &[u64]) -> Self {
        Self::Int(rows.iter().map(|row| Some(i128::from(*row))).collect())
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Int(v) | Self::Time(v, _) => v.get(row).is_none_or(Option::is_none),
            Self::Float(v) => v.get(row).is_none_or(Option::is_none),
            Self::Text(v) => v.get(row).is_none_or(Option::is_none),
        }
    }

    /// The value of a row; `None` for nulls.
    pub fn cell(&self, row: usize) -> Option<Cell> {
        match self {
            Self::Int(v) => v.get(row).copied().flatten().map(Cell::Int),
            Self::Time(v, kind) => v.get(row).copied().flatten().map(|v| Cell::Text(time_text(v, kind))),
            Self::Float(v) => v.get(row).copied().flatten().map(Cell::Float),
            Self::Text(v) => v.get(row).cloned().flatten().map(Cell::Text),
        }
    }

    /// The column of one of its rows.
    pub(crate) fn only(&self, row: usize) -> Self {
        match self {
            Self::Int(v) => Self::Int(v.get(row).copied().into_iter().collect()),
            Self::Time(v, kind) => Self::Time(v.get(row).copied().into_iter().collect(), kind.clone()),
            Self::Float(v) => Self::Float(v.get(row).copied().into_iter().collect()),
            Self::Text(v) => Self::Text(v.get(row).cloned().into_iter().collect()),
        }
    }

    /// The value of a row as text, as groups and labels are called, −0 as 0; `None` for nulls.
    pub fn text(&self, row: usize) -> Option<String> {
        Some(match self.cell(row)? {
            Cell::Float(v) => (v + 0.0).to_string(),
            other => other.to_string(),
        })
    }

    /// The values of an Arrow column.
    pub(crate) fn from_array(array: &ArrayRef) -> Result<Self> {
        let as_i128 = |to: &DataType| -> Result<Vec<Option<i128>>> {
            let cast = cast(array, to)?;
            Ok(match to {
                DataType::UInt64 => cast.as_primitive::<UInt64Type>().iter().map(|v| v.map(i128::from)).collect(),
                _ => cast.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect(),
            })
        };
        match array.data_type() {
            DataType::UInt64 => Ok(Self::Int(as_i128(&DataType::UInt64)?)),
            t if t.is_integer() || *t == DataType::Boolean => Ok(Self::Int(as_i128(&DataType::Int64)?)),
            t if t.is_floating() => {
                let cast = cast(array, &DataType::Float64)?;
                Ok(Self::Float(cast.as_primitive::<Float64Type>().iter().collect()))
            }
            DataType::Utf8 => {
                Ok(Self::Text(array.as_string::<i32>().iter().map(|v| v.map(ToString::to_string)).collect()))
            }
            t @ (DataType::Date32 | DataType::Time32(_)) => {
                let days = cast(array, &DataType::Int32)?;
                Ok(Self::Time(as_int(&days)?, t.clone()))
            }
            t => Ok(Self::Time(as_int(array)?, t.clone())),
        }
    }

    /// How each value stands to `term`, which is no operand; `None` for nulls.
    pub(crate) fn compare(&self, operand: &str, op: Comparison, term: &Term) -> Result<Vec<Option<bool>>> {
        let number = |term: &Term| match term {
            Term::Int(n) => Ok(Number::Int(*n)),
            Term::Number(n) => Ok(Number::Float(*n)),
            Term::Text(_) | Term::Operand(_) | Term::Null => {
                Err(bad_operand(operand, "it holds numbers; compare it with one"))
            }
        };
        if *term == Term::Null {
            return Ok((0..self.len()).map(|row| Some(self.is_null(row) == (op == Comparison::Eq))).collect());
        }
        match self {
            Self::Int(v) => {
                let n = number(term)?;
                Ok(v.iter().map(|v| v.map(|v| op.holds(Number::Int(v).order(n)))).collect())
            }
            Self::Float(v) => {
                let n = number(term)?;
                Ok(v.iter().map(|v| v.map(|v| op.holds(Number::Float(v).order(n)))).collect())
            }
            Self::Text(v) => match term {
                Term::Text(t) => Ok(v.iter().map(|v| v.as_ref().map(|v| op.holds(Some(v.cmp(t))))).collect()),
                _ => Err(bad_operand(operand, "it holds text; compare it with 'text'")),
            },
            Self::Time(v, kind) => match term {
                Term::Text(t) => {
                    let word: ArrayRef = Arc::new(StringArray::from(vec![t.as_str()]));
                    let read = cast(&word, &in_utc(kind)).ok().map(|a| as_int(&a)).transpose()?;
                    let Some(Some(time)) = read.and_then(|v| v.first().copied()) else {
                        return Err(bad_operand(operand, &format!("it holds {kind}, and '{t}' is none")));
                    };
                    Ok(v.iter().map(|v| v.map(|v| op.holds(Some(v.cmp(&time))))).collect())
                }
                _ => Err(bad_operand(operand, "it holds dates or times; compare it with one such as '2024-05-31'")),
            },
        }
    }

    /// How each value stands to the other column's of the same row.
    pub(crate) fn compare_columns(&self, op: Comparison, other: &Self, operand: &str) -> Result<Vec<Option<bool>>> {
        fn each<A, B>(a: &[Option<A>], b: &[Option<B>], f: impl Fn(&A, &B) -> bool) -> Vec<Option<bool>> {
            a.iter().zip(b).map(|(a, b)| Some(f(a.as_ref()?, b.as_ref()?))).collect()
        }
        use Number::{Float, Int};
        Ok(match (self, other) {
            (Self::Int(a), Self::Int(b)) => each(a, b, |a, b| op.holds(Some(a.cmp(b)))),
            (Self::Int(a), Self::Float(b)) => each(a, b, |a, b| op.holds(Int(*a).order(Float(*b)))),
            (Self::Float(a), Self::Int(b)) => each(a, b, |a, b| op.holds(Float(*a).order(Int(*b)))),
            (Self::Float(a), Self::Float(b)) => each(a, b, |a, b| op.holds(a.partial_cmp(b))),
            (Self::Text(a), Self::Text(b)) => each(a, b, |a, b| op.holds(Some(a.cmp(b)))),
            (Self::Time(a, s), Self::Time(b, t)) if s == t => each(a, b, |a, b| op.holds(Some(a.cmp(b)))),
            _ => return Err(bad_operand(operand, "the two columns hold values of different kinds")),
        })
    }
}

fn as_int(array: &ArrayRef) -> Result<Vec<Option<i128>>> {
    let wide = match array.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(array, &DataType::Int64)?,
    };
    Ok(wide.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect())
}

/// The type with instants in UTC, which need no table of time zones to be read and written.
fn in_utc(kind: &DataType) -> DataType {
    match kind {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        kind => kind.clone(),
    }
}

fn time_text(value: i128, kind: &DataType) -> String {
    let kind = &in_utc(kind);
    let raw: ArrayRef = match kind {
        DataType::Date32 | DataType::Time32(_) => {
            Arc::new(Int32Array::from(vec![i32::try_from(value).unwrap_or_default()]))
        }
        _ => Arc::new(Int64Array::from(vec![i64::try_from(value).unwrap_or_default()])),
    };
    let text = cast(&raw, kind).and_then(|t| cast(&t, &DataType::Utf8));
    text.map_or_else(|_| value.to_string(), |t| t.as_string::<i32>().value(0).to_string())
}

/// A number that is compared exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Int(a), Self::Float(b)) => int_float(a, b),
            (Self::Float(a), Self::Int(b)) => int_float(b, a).map(Ordering::reverse),
        }
    }
}

/// How an integer stands to a float, without rounding either.
fn int_float(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Integers of 64 bits and less lie well within ±2^100, where a floor converts exactly.
    if b.abs() >= 2f64.powi(100) {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = b.floor();
    let by_floor = a.cmp(&(floor as i128));
    Some(if by_floor == Ordering::Equal && b > floor { Ordering::Less } else { by_floor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_compare_exactly() {
        let big = 9_007_199_254_740_993i128; // 2^53 + 1: no f64 is it.
        assert_eq!(int_float(big, 9_007_199_254_740_992.0), Some(Ordering::Greater));
        assert_eq!(int_float(big, 9_007_199_254_740_994.0), Some(Ordering::Less));
        assert_eq!(int_float(3, 3.0), Some(Ordering::Equal));
        assert_eq!(int_float(3, 3.5), Some(Ordering::Less));
        assert_eq!(int_float(-3, -3.5), Some(Ordering::Greater));
        assert_eq!(int_float(i128::from(u64::MAX), f64::INFINITY), Some(Ordering::Less));
        assert_eq!(int_float(0, f64::NAN), None);
    }
}
