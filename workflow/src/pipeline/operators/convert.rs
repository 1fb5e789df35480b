//! Columns of a file under the types that were asked for. A value that the type does not hold is refused: it would be cut,
//! or become infinite or missing, and nobody would see it.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// Why a column cannot be of a type.
pub(super) enum Unfit {
    /// No value of its type can.
    Types(ArrowError),
    /// This one cannot.
    Value { at: usize, found: String, expected: &'static str },
}

/// The column as `wanted`. Nulls stay nulls; floats are rounded where `wanted` has fewer digits, whole numbers are not.
pub(super) fn convert(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Unfit> {
    let cast = |to: &DataType| cast_with_options(column, to, &CastOptions::default()).map_err(Unfit::Types);
    // What cannot be of the type at all becomes null here.
    let converted = cast(wanted)?;
    let before = match (column.data_type(), wanted) {
        (DataType::Float64 | DataType::Float32, DataType::Int64) | (_, DataType::Float32) => {
            Some(cast(&DataType::Float64)?)
        }
        (from, DataType::Boolean) if from.is_numeric() => Some(cast(&DataType::Float64)?),
        _ => None,
    };
    let before = before.as_ref().and_then(|numbers| numbers.as_primitive_opt::<Float64Type>());
    let single = converted.as_primitive_opt::<Float32Type>();
    let double = converted.as_primitive_opt::<Float64Type>();
    let texts = column.as_string_opt::<i32>();
    let is_infinite = |i: usize| {
        single.is_some_and(|single| single.value(i).is_infinite())
            || double.is_some_and(|double| double.value(i).is_infinite())
    };
    // Not `inf`, but a number that was too large.
    let is_beyond = |i: usize| {
        is_infinite(i) && texts.is_some_and(|texts| texts.value(i).bytes().any(|byte| byte.is_ascii_digit()))
    };
    let is_whole_as_float = column.data_type().is_integer() && matches!(wanted, DataType::Float64 | DataType::Float32);
    // A whole number that was rounded comes back as another one.
    let rounded = if is_whole_as_float {
        let back = cast_with_options(&converted, column.data_type(), &CastOptions::default()).map_err(Unfit::Types)?;
        Some(distinct(&back, column).map_err(Unfit::Types)?)
    } else {
        None
    };
    let is_rounded = |i: usize| rounded.as_ref().is_some_and(|rounded| rounded.value(i));
    let is_kept = |i: usize| match (before, single) {
        _ if converted.is_null(i) || is_rounded(i) || is_beyond(i) => false,
        (Some(before), Some(single)) => single.value(i).is_finite() || !before.value(i).is_finite(),
        (Some(before), None) if *wanted == DataType::Boolean => [0.0, 1.0].contains(&before.value(i)),
        (Some(before), None) => before.value(i).fract() == 0.0,
        (None, _) => true,
    };
    match (0..column.len()).find(|&i| column.is_valid(i) && !is_kept(i)) {
        None => Ok(converted),
        Some(at) => {
            let expected = match wanted {
                DataType::Float64 if is_whole_as_float => "a whole number that float64 holds exactly",
                DataType::Float32 if is_whole_as_float => "a whole number that float32 holds exactly",
                _ => held_by(wanted),
            };
            Err(Unfit::Value { at, found: shown(column, at), expected })
        }
    }
}

/// A value as an error shows it.
fn shown(column: &ArrayRef, at: usize) -> String {
    let value = array_value_to_string(column, at).unwrap_or_default();
    if *column.data_type() == DataType::Utf8 { format!("{value:?}") } else { value }
}

/// What a type holds, in words.
fn held_by(wanted: &DataType) -> &'static str {
    match wanted {
        DataType::Int64 => "a whole number within int64",
        DataType::Float32 => "a number within float32",
        DataType::Float64 => "a number within float64",
        DataType::Boolean => "true or false, nor 1 or 0",
        DataType::Date32 => "a date such as 2016-01-31",
        _ => "a text",
    }
}
