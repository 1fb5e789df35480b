//! Integers beyond 2^53, which float64 rounds: what that takes from them, so that their differences and their order stay
//! exact.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use crate::answer::Data;
use crate::column::Column;
use crate::error::Result;
use crate::scan::Block;

/// Values of a column that are widened at a time.
const WIDENED: usize = 1 << 16;
/// From half of 2^53 on, differences from a column's first value lose no more than the values themselves.
const LARGE: f64 = (1u64 << 52) as f64;

/// Whether a type holds integers that float64 does not.
pub(super) fn is_wide(kind: &DataType) -> bool {
    use DataType::{Date64, Duration, Int64, Time64, Timestamp, UInt64};
    matches!(kind, Int64 | UInt64 | Date64 | Time64(_) | Timestamp(..) | Duration(_))
}

/// A power of two by which values of this size are near 1, so that their squares neither overflow nor vanish.
pub(super) fn scale(largest: f64) -> f64 {
    let power = if largest.is_finite() { largest.log2().floor() as i32 } else { 0 };
    2f64.powi(-power.clamp(-1000, 1000))
}

/// What is left of an integer of 64 bits or less beyond the float64 that stands for it.
fn rest(v: i128) -> f64 {
    (v - (v as f64) as i128) as f64
}

/// What rounding takes from each value of a column, nulls as 0; `None` where it takes nothing.
pub(super) fn rests_of(column: &Column) -> Option<Vec<f64>> {
    let (Column::Int(values) | Column::Time(values, _)) = column else { return None };
    let rests: Vec<f64> = values.iter().map(|v| v.map_or(0.0, rest)).collect();
    rests.iter().any(|r| *r != 0.0).then_some(rests)
}

/// The same of a block, rows × columns.
pub(super) fn rests(block: &Block) -> Result<Option<Vec<f64>>> {
    let Data::Table(batch) = &block.data else { return Ok(None) };
    let (n, width) = (batch.num_rows(), batch.num_columns());
    let mut out: Option<Vec<f64>> = None;
    for (c, column) in batch.columns().iter().enumerate().filter(|(_, column)| is_wide(column.data_type())) {
        for first in (0..n).step_by(WIDENED) {
            let part = Column::from_array(&column.slice(first, WIDENED.min(n - first)))?;
            let Some(part) = rests_of(&part) else { continue };
            let out = out.get_or_insert_with(|| vec![0.0; n * width]);
            for (slot, rest) in out.iter_mut().skip(first * width + c).step_by(width).zip(part) {
                *slot = rest;
            }
        }
    }
    Ok(out)
}

/// What each column of a table may be taken less, so that float64 holds the differences: the first value of a column of
/// integers, where that is large, else 0.
pub(super) fn offsets(batch: &RecordBatch, values: &[f64]) -> Vec<f64> {
    let width = batch.num_columns().max(1);
    let offset = |(c, column): (usize, &ArrayRef)| {
        let first = values.iter().skip(c).step_by(width).find(|v| v.is_finite()).copied();
        first.filter(|v| is_wide(column.data_type()) && v.abs() >= LARGE).unwrap_or(0.0)
    };
    batch.columns().iter().enumerate().map(offset).collect()
}

/// Takes each column's offset from its values, which are more than `values` by `rests`.
pub(super) fn take(values: &mut [f64], rests: Option<&[f64]>, offsets: &[f64]) {
    if offsets.iter().all(|o| *o == 0.0) {
        return;
    }
    let width = offsets.len();
    for row in values.chunks_exact_mut(width) {
        row.iter_mut().zip(offsets).for_each(|(v, offset)| *v -= offset);
    }
    values.iter_mut().zip(rests.unwrap_or_default()).for_each(|(v, rest)| *v += rest);
}

/// A column of numbers, each a float64 and what rounding to it took.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub values: Vec<f64>,
    /// As many, or none where all are 0.
    pub rests: Vec<f64>,
}

impl Numbers {
    /// None yet, of so many to come.
    pub fn with_capacity(n: usize) -> Self {
        Self { values: Vec::with_capacity(n), rests: Vec::new() }
    }

    pub fn push(&mut self, value: f64, rest: f64) {
        if rest != 0.0 && self.rests.is_empty() {
            self.rests = vec![0.0; self.values.len()];
        }
        if rest != 0.0 || !self.rests.is_empty() {
            self.rests.push(rest);
        }
        self.values.push(value);
    }

    /// As [`Numbers::push`], of several.
    pub fn extend(&mut self, values: Vec<f64>, rests: Option<Vec<f64>>) {
        match rests {
            None if self.rests.is_empty() => self.values.extend(values),
            None => values.into_iter().for_each(|v| self.push(v, 0.0)),
            Some(rests) => values.into_iter().zip(rests).for_each(|(v, rest)| self.push(v, rest)),
        }
    }

    fn rest(&self, i: usize) -> f64 {
        self.rests.get(i).copied().unwrap_or(0.0)
    }

    /// Pairs of which both are finite.
    pub fn finite_pairs(&self, other: &Self) -> (Self, Self) {
        let (mut a, mut b) = (Self::default(), Self::default());
        for (i, (x, y)) in self.values.iter().zip(&other.values).enumerate() {
            if x.is_finite() && y.is_finite() {
                a.push(*x, self.rest(i));
                b.push(*y, other.rest(i));
            }
        }
        (a, b)
    }

    /// Less the first of them where rounding took something, so that float64 tells them apart.
    pub fn moved(&self) -> Vec<f64> {
        let Some(first) = self.values.first().filter(|_| !self.rests.is_empty()) else { return self.values.clone() };
        self.values.iter().zip(&self.rests).map(|(v, rest)| (v - first) + rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rounding_takes() {
        // Of 2^60 + k a float64 keeps multiples of 256; beyond 2^63 of 2,048.
        let big = 1i128 << 60;
        assert_eq!([0, 5, -5, 127, 128, 129].map(|k| rest(big + k)), [0.0, 5.0, -5.0, 127.0, 128.0, -127.0]);
        let ends = [i128::from(i64::MIN), i128::from(i64::MAX), i128::from(u64::MAX), -7];
        assert_eq!(ends.map(rest), [0.0, -1.0, -1.0, 0.0]);
        let column = Column::Int(vec![Some(big + 3), None, Some(big), Some(2)]);
        assert_eq!(rests_of(&column), Some(vec![3.0, 0.0, 0.0, 0.0]));
        assert_eq!(rests_of(&Column::Int(vec![Some(1), None])), None);
        assert_eq!(rests_of(&Column::Float(vec![Some(1e300)])), None);
    }

    #[test]
    fn scales_bring_values_near_one() {
        for v in [1.0, 1.5, 1e-200, 1e200, 1e300, 3e-300] {
            assert!((0.9..2.1).contains(&(v * scale(v))), "{v:e}");
        }
        // As near as a power of two goes that is a float64 and whose inverse is one.
        assert!([f64::MAX, 5e-324].iter().all(|v| (1e-30..1e30).contains(&(v * scale(*v)))));
        assert_eq!(scale(f64::INFINITY), 1.0);
    }

    #[test]
    fn numbers_with_rests() {
        let mut x = Numbers::with_capacity(4);
        [(1.0, 0.0), (1e18, 3.0), (f64::NAN, 0.0), (1e18, 0.0)].into_iter().for_each(|(v, r)| x.push(v, r));
        assert_eq!(x.rests, [0.0, 3.0, 0.0, 0.0]);
        let y = Numbers { values: vec![f64::INFINITY, 1.0, 2.0, 3.0], rests: Vec::new() };
        let (x, y) = x.finite_pairs(&y);
        assert_eq!((x.moved(), y.moved()), (vec![3.0, 0.0], vec![1.0, 3.0]));
    }
}
