//! Correlation of every column with a target: "which features go with the residual?"
//!
//! Pairs in which either value is NaN or infinite are left out. A constant side has no correlation. Pearson's coefficient
//! is computed from deviations in f64, Spearman's from ranks whose ties share their mean; integers beyond 2^53 are told
//! apart by both.

use std::cmp::Ordering;
use std::ops::Range;

use rayon::prelude::*;

use super::rounding::{self, Numbers};
use crate::answer::Source;
use crate::error::Result;
use crate::operand::OperandScan;
use crate::reader::{ChunkReader, Request};
use crate::scan;

/// Bytes of columns that are held at a time, as f64.
const HELD_BYTES: usize = 64 << 20;

/// How a column goes with the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    /// The column.
    pub column: String,
    /// Pearson's r; `None` for fewer than two pairs or a constant side.
    pub pearson: Option<f64>,
    /// Spearman's ρ; likewise.
    pub spearman: Option<f64>,
    /// Pairs of finite values.
    pub n: u64,
}

/// An answer of [`corr`].
#[derive(Debug, Clone, PartialEq)]
pub struct CorrAnswer {
    /// In the order of the columns.
    pub columns: Vec<Correlation>,
    /// Rows of the columns, and of the target, that the other lacks.
    pub unshared: Vec<u64>,
    /// Where the columns' values came from.
    pub source: Source,
}

/// The correlation of every column of a request with `target`, or with `target` − `minus`.
///
/// Errors: `Unsupported` for text; as [`ChunkReader::get`].
pub fn corr(
    reader: &ChunkReader<'_>,
    request: &Request,
    target: &OperandScan<'_, '_>,
    minus: Option<&OperandScan<'_, '_>>,
) -> Result<CorrAnswer> {
    let scan = reader.scan_numbers(request)?;
    let mut sets = vec![scan.rows(), target.rows()];
    sets.extend(minus.map(OperandScan::rows));
    let (rows, unshared) = scan::shared_among(request, &sets);
    let mut y = Numbers::with_capacity(rows.len());
    for ids in rows.chunks(target.scan().block_rows()) {
        let part = target.read(ids)?;
        let values = part.to_f64(target.name())?;
        match minus {
            None => y.extend(values, rounding::rests_of(&part)),
            Some(minus) => {
                let other = minus.read(ids)?;
                // Named apart, so that the error is of the side that is text.
                other.to_f64(minus.name())?;
                y.extend(part.minus(&other, target.name())?, None);
            }
        }
    }
    let names = scan.columns();
    let at_once = (HELD_BYTES / (8 * rows.len().max(1))).clamp(1, names.len().max(1));
    let mut columns = Vec::with_capacity(names.len());
    let mut first = 0;
    while first < names.len() {
        let some: Range<usize> = first..(first + at_once).min(names.len());
        let mut held: Vec<Numbers> = some.clone().map(|_| Numbers::with_capacity(rows.len())).collect();
        for ids in rows.chunks(scan.block_rows()) {
            let block = scan.read(ids)?;
            let width = block.width.max(1);
            let rests = rounding::rests(&block)?;
            for (i, row) in block.into_f64()?.chunks_exact(width).enumerate() {
                let rests = rests.as_ref().and_then(|r| r.get(i * width..(i + 1) * width)).unwrap_or_default();
                let rests = rests.get(some.clone()).unwrap_or_default().iter().copied().chain(std::iter::repeat(0.0));
                for ((column, v), rest) in held.iter_mut().zip(row.get(some.clone()).unwrap_or_default()).zip(rests) {
                    column.push(*v, rest);
                }
            }
        }
        columns.par_extend(held.into_par_iter().zip(&names[some.clone()]).map(|(x, name)| {
            let (x, y) = x.finite_pairs(&y);
            let (rank_x, rank_y) = (ranks_of(&x), ranks_of(&y));
            Correlation {
                column: name.clone(),
                pearson: pearson(&x.moved(), &y.moved()),
                spearman: pearson(&rank_x, &rank_y),
                n: x.values.len() as u64,
            }
        }));
        first = some.end;
    }
    Ok(CorrAnswer { columns, unshared, source: scan.source() })
}

/// Pearson's r of two lists of finite values of equal length; `None` where it is not defined.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len();
    let constant = |v: &[f64]| v.windows(2).all(|w| matches!(w, [a, b] if a == b));
    if n < 2 || n != y.len() || constant(x) || constant(y) {
        return None;
    }
    // Scaled by the largest deviation, so that neither squares overflow nor small ones vanish.
    let deviations = |v: &[f64]| {
        let largest = v.iter().fold(0f64, |m, a| m.max(a.abs()));
        let mean = v.iter().map(|a| a / largest).sum::<f64>() / n as f64;
        let d: Vec<f64> = v.iter().map(|a| a / largest - mean).collect();
        let scale = d.iter().fold(0f64, |m, a| m.max(a.abs()));
        d.into_iter().map(|a| a / scale).collect::<Vec<_>>()
    };
    let (dx, dy) = (deviations(x), deviations(y));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let r = dot(&dx, &dy) / (dot(&dx, &dx).sqrt() * dot(&dy, &dy).sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Ranks from 1; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    ranked(values, |_, _| Ordering::Equal)
}

/// As [`ranks`], of integers that float64 does not tell apart too.
fn ranks_of(numbers: &Numbers) -> Vec<f64> {
    if numbers.rests.is_empty() {
        return ranks(&numbers.values);
    }
    // What is rounded up or down still is in order.
    ranked(&numbers.values, |a, b| match (numbers.rests.get(a), numbers.rests.get(b)) {
        (Some(a), Some(b)) => a.total_cmp(b),
        _ => Ordering::Equal,
    })
}

/// The ranks of values, of which `between` orders those that are equal.
fn ranked(values: &[f64], between: impl Fn(usize, usize) -> Ordering) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let value = |i: usize| values.get(i).copied().unwrap_or(f64::NAN) + 0.0;
    order.sort_unstable_by(|a, b| value(*a).total_cmp(&value(*b)).then_with(|| between(*a, *b)));
    let mut out = vec![0.0; values.len()];
    let mut before = 0;
    for same in order.chunk_by(|a, b| value(*a) == value(*b) && between(*a, *b) == Ordering::Equal) {
        let rank = before as f64 + (same.len() as f64 + 1.0) / 2.0;
        for i in same {
            if let Some(slot) = out.get_mut(*i) {
                *slot = rank;
            }
        }
        before += same.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(ranks(&[10.0, -1.0, 10.0, 3.0, -0.0, 0.0]), [5.5, 1.0, 5.5, 4.0, 2.5, 2.5]);
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), Some(1.0));
        assert!(pearson(&[1.0, 2.0, 3.0], &[1e300, -1e300, 1e300]).unwrap().abs() < 1e-15);
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(pearson(&[1.0], &[1.0]), None);
        assert_eq!(pearson(&[], &[]), None);
    }
}
