//! TOPK: the rows with the most extreme values.

use std::cmp::Ordering;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extreme {
    /// Largest first.
    #[default]
    Highest,
    /// Smallest first.
    Lowest,
}

/// The `k` rows with the most extreme values, most extreme first: `(row_id, value)`.
///
/// Shape: `values` and `rows` have one entry a row; fewer than `k` come back where there are fewer. NaN never ranks; ties
/// go to the smaller row_id.
pub fn top_k(rows: &[u64], values: &[f32], k: usize, extreme: Extreme) -> Vec<(u64, f32)> {
    let mut pairs: Vec<(u64, f32)> =
        rows.iter().copied().zip(values.iter().copied()).filter(|(_, v)| !v.is_nan()).collect();
    let order = |a: &(u64, f32), b: &(u64, f32)| {
        let by_value = a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal);
        let by_value = if extreme == Extreme::Highest { by_value.reverse() } else { by_value };
        by_value.then(a.0.cmp(&b.0))
    };
    if k < pairs.len() && k > 0 {
        pairs.select_nth_unstable_by(k - 1, order);
    }
    pairs.truncate(k);
    pairs.sort_unstable_by(order);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = [10, 11, 12, 13, 14];
        let values = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY];
        assert_eq!(top_k(&rows, &values, 2, Extreme::Highest), [(11, 3.0), (13, 3.0)]);
        assert_eq!(top_k(&rows, &values, 2, Extreme::Lowest), [(14, f32::NEG_INFINITY), (10, 1.0)]);
        assert_eq!(top_k(&rows, &values, 99, Extreme::Highest).len(), 4);
        assert!(top_k(&rows, &values, 0, Extreme::Highest).is_empty());
        assert!(top_k(&[], &[], 3, Extreme::Highest).is_empty());
    }
}
