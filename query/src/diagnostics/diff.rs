//! COL_DIFF: how the same columns differ between two models or versions.

use crate::error::{QueryError, Result};

/// Differences between two sets of values over the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Mean of |a − b| over all values that are finite on both sides.
    pub mean_abs: f64,
    /// Largest |a − b|.
    pub max_abs: f64,
    /// Row_id of the largest.
    pub max_row: Option<u64>,
    /// Rows whose largest column is another one: `(row_id, in a, in b)`.
    pub changed_argmax: Vec<(u64, usize, usize)>,
}

/// How `b` differs from `a`.
///
/// Shape: both are rows × columns, row-major. Errors: `Mismatch` when their sizes differ.
pub fn difference(rows: &[u64], a: &[f32], b: &[f32]) -> Result<Difference> {
    let width = if rows.is_empty() { 0 } else { a.len() / rows.len() };
    if a.len() != b.len() || width * rows.len() != a.len() {
        return Err(QueryError::Mismatch {
            what: "difference".into(),
            why: format!("{} rows with {} values on one side and {} on the other", rows.len(), a.len(), b.len()),
        });
    }
    let mut out = Difference { mean_abs: 0.0, max_abs: 0.0, max_row: None, changed_argmax: Vec::new() };
    let (mut sum, mut n) = (0.0, 0u64);
    for (i, &row) in rows.iter().enumerate() {
        let (ra, rb) = (&a[i * width..(i + 1) * width], &b[i * width..(i + 1) * width]);
        for (x, y) in ra.iter().zip(rb) {
            let d = (f64::from(*x) - f64::from(*y)).abs();
            if d.is_finite() {
                sum += d;
                n += 1;
                if d > out.max_abs {
                    (out.max_abs, out.max_row) = (d, Some(row));
                }
            }
        }
        let (ia, ib) = (argmax(ra), argmax(rb));
        if ia != ib {
            out.changed_argmax.push((row, ia, ib));
        }
    }
    out.mean_abs = if n == 0 { 0.0 } else { sum / n as f64 };
    Ok(out)
}

/// Index of the largest value; the first of equals, 0 where there is none.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] || (row[best].is_nan() && !v.is_nan()) {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let d = difference(&[7, 8], &[1.0, 2.0, 5.0, 0.0], &[1.0, 0.5, 5.0, f32::NAN]).unwrap();
        assert_eq!(d.mean_abs, 0.5);
        assert_eq!((d.max_abs, d.max_row), (1.5, Some(7)));
        assert_eq!(d.changed_argmax, [(7, 1, 0)]);
        assert!(difference(&[1], &[1.0], &[1.0, 2.0]).is_err());
        assert_eq!(difference(&[], &[], &[]).unwrap().max_row, None);
    }
}
