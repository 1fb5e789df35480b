//! KNN: the rows most similar to a given one.

use rayon::prelude::*;

use super::topk::{Extreme, top_k};
use crate::error::{QueryError, Result};

/// How similarity is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metric {
    /// Euclidean distance; smallest first.
    #[default]
    L2,
    /// Cosine of the angle; largest first.
    Cosine,
    /// Inner product; largest first.
    Dot,
}

/// The `k` rows nearest to `query`, nearest first: `(row_id, distance or similarity)`.
///
/// Shape: `values` is rows × columns, row-major, `query` has one value a column. Sums are in f64; ties go to the smaller
/// row_id. Errors: `Mismatch` when the sizes do not agree.
pub fn nearest_rows(rows: &[u64], values: &[f32], query: &[f32], k: usize, metric: Metric) -> Result<Vec<(u64, f32)>> {
    let width = query.len();
    if rows.len() * width != values.len() {
        return Err(QueryError::Mismatch {
            what: "nearest neighbours".into(),
            why: format!(
                "{} rows of {width} columns need {} values, got {}",
                rows.len(),
                rows.len() * width,
                values.len()
            ),
        });
    }
    if width == 0 {
        return Ok(Vec::new());
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let query_norm = dot(query, query).sqrt();
    let score = |row: &[f32]| match metric {
        Metric::L2 => row.iter().zip(query).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt(),
        Metric::Cosine => dot(row, query) / (dot(row, row).sqrt() * query_norm),
        Metric::Dot => dot(row, query),
    };
    let scores: Vec<f32> = values.par_chunks(width).with_min_len(64).map(|row| score(row) as f32).collect();
    let extreme = if metric == Metric::L2 { Extreme::Lowest } else { Extreme::Highest };
    Ok(top_k(rows, &scores, k, extreme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = [0, 1, 2];
        let values = [0.0, 0.0, 3.0, 4.0, 1.0, 0.0];
        let near = nearest_rows(&rows, &values, &[0.0, 0.0], 2, Metric::L2).unwrap();
        assert_eq!(near, [(0, 0.0), (2, 1.0)]);
        let near = nearest_rows(&rows, &values, &[6.0, 8.0], 1, Metric::Cosine).unwrap();
        assert_eq!(near, [(1, 1.0)]);
        let near = nearest_rows(&rows, &values, &[1.0, 1.0], 3, Metric::Dot).unwrap();
        assert_eq!(near, [(1, 7.0), (2, 1.0), (0, 0.0)]);
        assert!(nearest_rows(&rows, &values, &[1.0], 3, Metric::Dot).is_err());
    }
}
