//! COL_DIST: how the values of a column are distributed.

/// Counts in bins of equal width.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Smallest finite value; the first bin begins here.
    pub min: f64,
    /// Largest finite value; the last bin ends here, and holds it.
    pub max: f64,
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// NaNs, in no bin.
    pub n_nan: u64,
    /// Infinities, in no bin.
    pub n_infinite: u64,
}

/// The histogram of `values` in `n_bins` bins of equal width between the smallest and the largest finite value
/// (numpy.histogram's bins). All counts are zero where nothing is finite.
pub fn histogram(values: &[f32], n_bins: usize) -> Histogram {
    let finite = || values.iter().copied().filter(|v| v.is_finite()).map(f64::from);
    let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let mut counts = vec![0u64; n_bins];
    // numpy widens an empty range by half on each side.
    let (min, max) = if min == max { (min - 0.5, max + 0.5) } else { (min, max) };
    for v in finite() {
        let bin = ((v - min) / (max - min) * n_bins as f64) as usize;
        if let Some(count) = counts.get_mut(bin.min(n_bins.saturating_sub(1))) {
            *count += 1;
        }
    }
    let n_nan = values.iter().filter(|v| v.is_nan()).count() as u64;
    let n_infinite = values.iter().filter(|v| v.is_infinite()).count() as u64;
    Histogram { min, max, counts, n_nan, n_infinite }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numpy_does() {
        // numpy.histogram([0, 1, 1, 2, 4], bins=4) = [1, 2, 1, 1]
        let h = histogram(&[0.0, 1.0, 1.0, 2.0, 4.0, f32::NAN, f32::INFINITY], 4);
        assert_eq!((h.counts, h.n_nan, h.n_infinite), (vec![1, 2, 1, 1], 1, 1));
        let h = histogram(&[3.0; 5], 2);
        assert_eq!((h.min, h.max, h.counts), (2.5, 3.5, vec![0, 5]));
        assert_eq!(histogram(&[], 3).counts, [0, 0, 0]);
    }
}
