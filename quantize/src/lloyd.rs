//! Bins of least squared error (`lloyd`): many where values are dense, and yet enough where they are few and large.
//!
//! The error is least where codes lie as densely as the cube root of the values' density (P. F. Panter and W. Dite,
//! Quantization distortion in pulse-count modulation with nonuniform spacing of levels, 1951). From there each edge is moved
//! between the means of its bins (S. P. Lloyd, Least squares quantization in PCM, 1982, method I), which lessens the error
//! with every round.

use crate::codebook::{Bin, Run};

/// Rounds: after so many the error of activations is within a thousandth of where hundreds lead.
const ROUNDS: usize = 12;

/// What each value weighs where bins are to hold equal weights: n values in a gap of width w are n/w dense, of which the
/// cube root over the width of the gap is n^(1/3) w^(2/3).
pub(crate) fn weights(runs: &[Run]) -> Vec<f64> {
    let at = |i: usize| runs.get(i).map(|r| f64::from(r.0));
    let weight = |(i, run): (usize, &Run)| {
        let x = f64::from(run.0);
        let below = i.checked_sub(1).and_then(at).unwrap_or(x);
        let gap = (at(i + 1).unwrap_or(x) - below) / 2.0;
        (run.1 as f64).cbrt() * gap.cbrt().powi(2)
    };
    runs.iter().enumerate().map(weight).collect()
}

/// Summed bin by bin: a value that is huge takes no digits from bins that it is not in.
fn mean(runs: &[Run]) -> f64 {
    let add = |(n, sum): (f64, f64), (x, count): &Run| (n + *count as f64, sum + f64::from(*x) * *count as f64);
    let (n, sum) = runs.iter().fold((0.0, 0.0), add);
    sum / n
}

/// Moves the edges between bins that touch, in place.
pub(crate) fn settle(runs: &[Run], bins: &mut [Bin]) {
    let mut means = Vec::with_capacity(bins.len());
    for _ in 0..ROUNDS {
        means.clear();
        means.extend(bins.iter().map(|b| mean(&runs[b.first..=b.last])));
        let mut moved = false;
        for i in 1..bins.len() {
            let (left, right) = bins.split_at_mut(i);
            let (below, above) = (&mut left[i - 1], &mut right[0]);
            if below.atom || above.atom {
                continue;
            }
            let edge = means[i - 1] / 2.0 + means[i] / 2.0;
            // Neither is left empty.
            let (from, to) = (below.first + 1, above.last + 1);
            let first = (from + runs[from..to].partition_point(|r| f64::from(r.0) < edge)).min(above.last);
            moved |= first != above.first;
            (below.last, above.first) = (first - 1, first);
        }
        if !moved {
            break;
        }
    }
}
