//! The value of an expression for every row of a table.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Datum, Float64Array, Int64Array, NullArray, Scalar, StringArray,
    UInt32Array, UInt64Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::{cmp, merge::merge, numeric, zip::zip};
use arrow::compute::{
    CastOptions, DatePart, and_kleene, cast_with_options, date_part, filter, is_null, not, or_kleene, take,
};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

use super::{Arithmetic, Checker, Comparison, Expr, Function, common, is_date_pair};
use crate::pipeline::columns::{Columns, type_name};
use crate::pipeline::error::OperatorError;
use crate::pipeline::table::Table;

type Result<T> = std::result::Result<T, OperatorError>;

/// A column, or one value that stands for a column of it.
struct Value {
    array: ArrayRef,
    one: bool,
}

impl Value {
    fn one(array: impl Array + 'static) -> Self {
        Self { array: Arc::new(array), one: true }
    }

    fn datum(&self) -> Box<dyn Datum> {
        if self.one { Box::new(Scalar::new(Arc::clone(&self.array))) } else { Box::new(Arc::clone(&self.array)) }
    }

    fn cast(self, to: &DataType) -> Result<Self> {
        if self.array.data_type() == to {
            return Ok(self);
        }
        if *self.array.data_type() == DataType::Null {
            return Ok(Self { array: new_null_array(to, self.array.len()), one: self.one });
        }
        let from = if *self.array.data_type() == DataType::Date32 && *to != DataType::Utf8 {
            cast_with_options(&self.array, &DataType::Int32, &CastOptions::default())?
        } else {
            Arc::clone(&self.array)
        };
        // A text that is no date must not become a null silently.
        let strict = *from.data_type() == DataType::Utf8;
        let options = CastOptions { safe: !strict, ..CastOptions::default() };
        let array = cast_with_options(&from, to, &options).map_err(|e| unread(&from, to, e))?;
        Ok(Self { array, one: self.one })
    }

    /// A column of `n` rows.
    fn column(self, n: usize) -> Result<ArrayRef> {
        match self.one {
            true => Ok(take(&self.array, &UInt32Array::from(vec![0; n]), None)?),
            false => Ok(self.array),
        }
    }
}

/// The values of `root`, whose type is `result`, for a table of these columns.
pub(super) fn evaluate(
    param: &'static str,
    table: &Table,
    columns: &Columns,
    root: &Expr,
    result: &DataType,
) -> Result<ArrayRef> {
    let evaluator = Evaluator { param, table, columns, at: None };
    evaluator.value(root)?.cast(result)?.column(table.n_rows())
}

/// Computes values for rows of a table.
#[derive(Clone)]
struct Evaluator<'a> {
    param: &'static str,
    table: &'a Table,
    columns: &'a Columns,
    /// Positions of the rows; `None` for all.
    at: Option<UInt64Array>,
}

impl Evaluator<'_> {
    fn n_rows(&self) -> usize {
        self.at.as_ref().map_or_else(|| self.table.n_rows(), Array::len)
    }

    /// For those of the rows for which `chosen` is true.
    fn only(&self, chosen: &BooleanArray) -> Result<Self> {
        let at = match &self.at {
            Some(at) => filter(at, chosen)?,
            None => filter(&UInt64Array::from_iter_values(0..self.table.n_rows() as u64), chosen)?,
        };
        Ok(Self { at: Some(at.as_primitive::<UInt64Type>().clone()), ..*self })
    }

    /// Row_id of the row at `position`.
    fn row(&self, position: usize) -> Option<u64> {
        let position = match &self.at {
            Some(at) => *at.values().get(position)? as usize,
            None => position,
        };
        self.table.rows().get(position).copied()
    }

    fn checker(&self) -> Checker<'_> {
        Checker { param: self.param, columns: self.columns }
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        let column = self.table.column(self.param, name)?;
        match &self.at {
            Some(at) => Ok(take(column, at, None)?),
            None => Ok(Arc::clone(column)),
        }
    }

    fn value(&self, expr: &Expr) -> Result<Value> {
        Ok(match expr {
            Expr::Whole(n) => Value::one(Int64Array::from(vec![*n])),
            Expr::Number(n) => Value::one(Float64Array::from(vec![*n])),
            Expr::Text(t) => Value::one(StringArray::from(vec![t.as_str()])),
            Expr::Boolean(b) => Value::one(BooleanArray::from(vec![*b])),
            Expr::Null => Value::one(NullArray::new(1)),
            Expr::Column(name) => Value { array: self.column(name)?, one: false },
            Expr::Negate(of) => {
                let of = self.number(of)?;
                let array = numeric::neg(&of.array).map_err(|e| self.not_negated(&of, e))?;
                Value { array, one: of.one }
            }
            Expr::Not(of) => {
                let of = self.value(of)?.cast(&DataType::Boolean)?;
                Value { array: Arc::new(not(of.array.as_boolean())?), one: of.one }
            }
            Expr::IsNull(of) => {
                let of = self.value(of)?;
                Value { array: Arc::new(is_null(&of.array)?), one: of.one }
            }
            Expr::Arithmetic(first, others) => {
                let first = self.number(first)?;
                others.iter().try_fold(first, |left, (op, right)| self.arithmetic(*op, left, self.number(right)?))?
            }
            Expr::Compare(comparison, a, b) => compare(*comparison, self.value(a)?, self.value(b)?)?,
            Expr::And(first, others) => self.logical(first, others, and_kleene)?,
            Expr::Or(first, others) => self.logical(first, others, or_kleene)?,
            Expr::In(of, among) => {
                let mut any = Value::one(BooleanArray::from(vec![false])).column(self.n_rows())?;
                for item in among {
                    let equal = compare(Comparison::Equal, self.value(of)?, self.value(item)?)?;
                    let equal = equal.column(self.n_rows())?;
                    any = Arc::new(or_kleene(any.as_boolean(), equal.as_boolean())?);
                }
                Value { array: any, one: false }
            }
            Expr::When(cases, otherwise) => self.when(&self.checker().type_of(expr)?, cases, otherwise)?,
            Expr::Call(function, arguments) => self.call(*function, arguments)?,
        })
    }

    /// A number as int64 or float64.
    fn number(&self, expr: &Expr) -> Result<Value> {
        let value = self.value(expr)?;
        let to = if *value.array.data_type() == DataType::Int64 { DataType::Int64 } else { DataType::Float64 };
        value.cast(&to)
    }

    fn boolean(&self, expr: &Expr) -> Result<BooleanArray> {
        let column = self.value(expr)?.cast(&DataType::Boolean)?.column(self.n_rows())?;
        Ok(column.as_boolean().clone())
    }

    fn logical(
        &self,
        first: &Expr,
        others: &[Expr],
        kernel: fn(&BooleanArray, &BooleanArray) -> std::result::Result<BooleanArray, ArrowError>,
    ) -> Result<Value> {
        let mut all = self.boolean(first)?;
        for other in others {
            all = kernel(&all, &self.boolean(other)?)?;
        }
        Ok(Value { array: Arc::new(all), one: false })
    }

    /// Each condition is computed for the rows that no case before took, and each value for those that take it, so that
    /// what cannot be computed for other rows does no harm.
    fn when(&self, to: &DataType, cases: &[(Expr, Expr)], otherwise: &Expr) -> Result<Value> {
        let mut left = self.clone();
        let mut parts = Vec::new();
        let mut last = otherwise;
        for (condition, value) in cases {
            let taken = is_true(&left.boolean(condition)?);
            match taken.true_count() {
                0 => {}
                n if n == taken.len() => {
                    last = value;
                    break;
                }
                _ => {
                    let part = left.only(&taken)?.value(value)?.cast(to)?;
                    left = left.only(&not(&taken)?)?;
                    parts.push((taken, part));
                }
            }
        }
        let last = left.value(last)?.cast(to)?;
        merged(parts, last)
    }

    /// Each argument is computed for the rows alone for which all before it are null.
    fn coalesce(&self, to: &DataType, arguments: &[Expr]) -> Result<Value> {
        let mut left = self.clone();
        let mut parts = Vec::new();
        let mut last = Value::one(NullArray::new(1)).cast(to)?;
        for argument in arguments {
            let value = left.value(argument)?.cast(to)?;
            let missing = is_null(&value.array)?;
            match missing.true_count() {
                0 => {
                    last = value;
                    break;
                }
                n if n == missing.len() => {}
                _ => {
                    let there = not(&missing)?;
                    let part = Value { array: filter(&value.array, &there)?, one: false };
                    left = left.only(&missing)?;
                    parts.push((there, part));
                }
            }
        }
        merged(parts, last)
    }

    fn call(&self, function: Function, arguments: &[Expr]) -> Result<Value> {
        let Some(argument) = arguments.first() else {
            return Err(OperatorError::Param { param: self.param, why: format!("{} takes a value", function.name()) });
        };
        let date = |part| -> Result<Value> {
            let of = self.value(argument)?;
            Value { array: date_part(&of.array, part)?, one: of.one }.cast(&DataType::Int64)
        };
        let mapped = |of: Value, f: fn(f64) -> f64| -> Result<Value> {
            let of = of.cast(&DataType::Float64)?;
            let array: Float64Array = of.array.as_primitive::<Float64Type>().unary(f);
            Ok(Value { array: Arc::new(array), one: of.one })
        };
        let float = |f: fn(f64) -> f64| mapped(self.value(argument)?, f);
        let either = |f: fn(f64) -> f64, whole: fn(i64) -> Option<i64>| -> Result<Value> {
            let of = self.number(argument)?;
            match of.array.as_primitive_opt::<Int64Type>() {
                None => mapped(of, f),
                Some(numbers) => {
                    let is_too_large = |i: &usize| numbers.is_valid(*i) && whole(numbers.value(*i)).is_none();
                    if let Some(at) = (0..numbers.len()).find(is_too_large) {
                        let (name, n) = (function.name(), numbers.value(at));
                        let why = format!(
                            "{name}({n}) is beyond int64; compute with float64 there, as in `{name}(float(a))`"
                        );
                        return Err(OperatorError::NoValue { row: if of.one { None } else { self.row(at) }, why });
                    }
                    let array: Int64Array = numbers.unary(|n| whole(n).unwrap_or(n));
                    Ok(Value { array: Arc::new(array), one: of.one })
                }
            }
        };
        match function {
            Function::Abs => either(f64::abs, i64::checked_abs),
            Function::Floor => either(f64::floor, Some),
            Function::Ceil => either(f64::ceil, Some),
            Function::Round => either(f64::round_ties_even, Some),
            Function::Sqrt => float(f64::sqrt),
            Function::Exp => float(f64::exp),
            Function::Log => float(f64::ln),
            Function::Log1p => float(f64::ln_1p),
            Function::Float => self.value(argument)?.cast(&DataType::Float64),
            Function::Int => self.whole(self.value(argument)?),
            Function::Year => date(DatePart::Year),
            Function::Month => date(DatePart::Month),
            Function::Day => date(DatePart::Day),
            Function::Min | Function::Max => self.extreme(function, arguments),
            Function::Coalesce => self.coalesce(&self.checker().call(function, arguments)?, arguments),
        }
    }

    fn arithmetic(&self, op: Arithmetic, a: Value, b: Value) -> Result<Value> {
        let whole = |v: &Value| *v.array.data_type() == DataType::Int64;
        let to = if whole(&a) && whole(&b) && op != Arithmetic::Divide { DataType::Int64 } else { DataType::Float64 };
        let (a, b) = (a.cast(&to)?, b.cast(&to)?);
        let one = a.one && b.one;
        let (left, right) = (a.datum(), b.datum());
        let array = match op {
            Arithmetic::Add => numeric::add(&*left, &*right),
            Arithmetic::Subtract => numeric::sub(&*left, &*right),
            Arithmetic::Multiply => numeric::mul(&*left, &*right),
            Arithmetic::Divide => numeric::div(&*left, &*right),
            Arithmetic::Remainder => numeric::rem(&*left, &*right),
        };
        let array = array.map_err(|e| self.not_whole(op, &a, &b, e))?;
        Ok(Value { array, one })
    }

    /// Names the first two whole numbers that have no result within int64, and their row.
    fn not_whole(&self, op: Arithmetic, a: &Value, b: &Value, error: ArrowError) -> OperatorError {
        let numbers = |v: &Value| v.array.as_primitive_opt::<Int64Type>().cloned();
        let (Some(left), Some(right)) = (numbers(a), numbers(b)) else { return error.into() };
        let of = |numbers: &Int64Array, one: bool, i: usize| {
            let i = if one { 0 } else { i };
            (i < numbers.len() && numbers.is_valid(i)).then(|| numbers.value(i))
        };
        let n = if a.one { right.len() } else { left.len() };
        let failed = (0..n).find_map(|i| {
            let (x, y) = (of(&left, a.one, i)?, of(&right, b.one, i)?);
            let result = match op {
                Arithmetic::Add => x.checked_add(y),
                Arithmetic::Subtract => x.checked_sub(y),
                Arithmetic::Multiply => x.checked_mul(y),
                Arithmetic::Divide => x.checked_div(y),
                Arithmetic::Remainder => x.checked_rem(y),
            };
            result.is_none().then_some((i, x, y))
        });
        let Some((at, x, y)) = failed else { return error.into() };
        let name = op.name();
        let why = match y {
            0 if op == Arithmetic::Remainder => {
                format!("{x} {name} 0 has no value; give such rows another, as in `when(b = 0, null, a % b)`")
            }
            _ => format!("{x} {name} {y} is beyond int64; compute with float64 there, as in `float(a) {name} b`"),
        };
        OperatorError::NoValue { row: if a.one && b.one { None } else { self.row(at) }, why }
    }

    /// Names the row of the one whole number that has no counterpart of the other sign.
    fn not_negated(&self, of: &Value, error: ArrowError) -> OperatorError {
        let Some(numbers) = of.array.as_primitive_opt::<Int64Type>() else { return error.into() };
        let at = (0..numbers.len()).find(|&i| numbers.is_valid(i) && numbers.value(i) == i64::MIN);
        let why = format!("-({}) is beyond int64; compute with float64 there, as in `-float(a)`", i64::MIN);
        OperatorError::NoValue { row: at.filter(|_| !of.one).and_then(|at| self.row(at)), why }
    }

    /// Numbers cut off at the point.
    fn whole(&self, of: Value) -> Result<Value> {
        let before = Arc::clone(&of.array);
        let whole = of.cast(&DataType::Int64)?;
        if whole.array.null_count() == before.logical_null_count() {
            return Ok(whole);
        }
        // What int64 does not hold has become null.
        let at = (0..before.len()).find(|&i| whole.array.is_null(i) && before.is_valid(i)).unwrap_or_default();
        match self.row(at) {
            Some(row) => Err(OperatorError::NotWhole { row, found: array_value_to_string(&before, at)? }),
            // A constant, and no rows.
            None => Ok(whole),
        }
    }

    /// min and max of two values or more.
    fn extreme(&self, function: Function, arguments: &[Expr]) -> Result<Value> {
        let mut result = Value::one(NullArray::new(1));
        for (i, argument) in arguments.iter().enumerate() {
            let next = self.value(argument)?;
            let to = common(result.array.data_type(), next.array.data_type()).unwrap_or(DataType::Null);
            let (left, right) = (result.cast(&to)?, next.cast(&to)?);
            if i == 0 {
                result = right;
                continue;
            }
            let n = self.n_rows();
            let (left, right) = (left.column(n)?, right.column(n)?);
            let less = if function == Function::Min { Comparison::Less } else { Comparison::Greater };
            let both = |a: &ArrayRef| Value { array: Arc::clone(a), one: false };
            let less = compare(less, both(&right), both(&left))?.array;
            // A null on either side is the result, else a NaN on either side, so the right one is taken where it is
            // null, and where it is NaN unless the left one is null.
            let null = is_null(&right)?;
            let less = less.as_boolean();
            let better = |i| is_nan(&right, i) && left.is_valid(i) || less.is_valid(i) && less.value(i);
            let choose_right = BooleanArray::from_iter((0..n).map(|i| Some(null.value(i) || better(i))));
            result = Value { array: zip(&choose_right, &right, &left)?, one: false };
        }
        Ok(result)
    }
}

/// Where a condition is true: a null one is not.
fn is_true(condition: &BooleanArray) -> BooleanArray {
    let values = condition.values();
    BooleanArray::new(condition.nulls().map_or_else(|| values.clone(), |nulls| values & nulls.inner()), None)
}

/// The values of all rows: of each part those for which its mask is true, among the rows that the parts before left; of
/// the rest `last`.
fn merged(parts: Vec<(BooleanArray, Value)>, last: Value) -> Result<Value> {
    parts.into_iter().rev().try_fold(last, |rest, (taken, part)| {
        Ok(Value { array: merge(&taken, &*part.datum(), &*rest.datum())?, one: false })
    })
}

/// Whether a value is NaN; one that is null may be, too.
fn is_nan(array: &ArrayRef, i: usize) -> bool {
    array.as_primitive_opt::<Float64Type>().is_some_and(|a| a.value(i).is_nan())
        || array.as_primitive_opt::<Float32Type>().is_some_and(|a| a.value(i).is_nan())
}

/// Names the first text that is no value of the type `to`.
fn unread(texts: &ArrayRef, to: &DataType, error: ArrowError) -> OperatorError {
    // Such a text becomes null here.
    let read = cast_with_options(texts, to, &CastOptions::default()).ok();
    let at = read.and_then(|read| (0..read.len()).find(|&i| read.is_null(i) && texts.is_valid(i)));
    let Some(text) = at.and_then(|at| array_value_to_string(texts, at).ok()) else { return error.into() };
    let why = match to {
        DataType::Date32 => format!("'{text}' is compared with a date and is none; dates are written as '2016-01-31'"),
        _ => format!("'{text}' cannot be read as {}", type_name(to)),
    };
    OperatorError::NoValue { row: None, why }
}

fn compare(comparison: Comparison, a: Value, b: Value) -> Result<Value> {
    let (ta, tb) = (a.array.data_type().clone(), b.array.data_type().clone());
    let to = if is_date_pair(&ta, &tb) { DataType::Date32 } else { common(&ta, &tb).unwrap_or(DataType::Null) };
    let one = a.one && b.one;
    if to == DataType::Null {
        return Ok(Value::one(BooleanArray::from(vec![None])));
    }
    let to = if to == DataType::Float32 { DataType::Float64 } else { to };
    let (a, b) = (a.cast(&to)?, b.cast(&to)?);
    if to == DataType::Float64 {
        return Ok(compare_floats(comparison, &a, &b));
    }
    let (left, right) = (a.datum(), b.datum());
    let array = match comparison {
        Comparison::Equal => cmp::eq(&*left, &*right)?,
        Comparison::Unequal => cmp::neq(&*left, &*right)?,
        Comparison::Less => cmp::lt(&*left, &*right)?,
        Comparison::LessEqual => cmp::lt_eq(&*left, &*right)?,
        Comparison::Greater => cmp::gt(&*left, &*right)?,
        Comparison::GreaterEqual => cmp::gt_eq(&*left, &*right)?,
    };
    Ok(Value { array: Arc::new(array), one })
}

/// As IEEE 754 has it: −0 equals 0, and NaN is unequal to everything (Arrow's kernels order floats by their bits).
fn compare_floats(comparison: Comparison, a: &Value, b: &Value) -> Value {
    let (left, right) = (a.array.as_primitive::<Float64Type>(), b.array.as_primitive::<Float64Type>());
    let n = if a.one { right.len() } else { left.len() };
    let of =
        |v: &Float64Array, one: bool, i: usize| v.values().get(if one { 0 } else { i }).copied().unwrap_or_default();
    let bits = BooleanBuffer::collect_bool(n, |i| {
        let (x, y) = (of(left, a.one, i), of(right, b.one, i));
        match comparison {
            Comparison::Equal => x == y,
            Comparison::Unequal => x != y,
            Comparison::Less => x < y,
            Comparison::LessEqual => x <= y,
            Comparison::Greater => x > y,
            Comparison::GreaterEqual => x >= y,
        }
    });
    let nulls = |v: &Float64Array, one: bool| match (v.nulls(), one) {
        (Some(nulls), true) if nulls.is_null(0) => Some(NullBuffer::new_null(n)),
        (Some(nulls), false) => Some(nulls.clone()),
        _ => None,
    };
    let nulls = NullBuffer::union(nulls(left, a.one).as_ref(), nulls(right, b.one).as_ref());
    Value { array: Arc::new(BooleanArray::new(bits, nulls)), one: a.one && b.one }
}
