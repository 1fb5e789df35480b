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

/// Bins of equal width, which hold what numpy.histogram's hold.
#[derive(Debug, Clone)]
pub(crate) struct Binning {
    min: f64,
    max: f64,
    edges: Vec<f64>,
}

impl Binning {
    /// `n_bins` bins from `min` to `max`; an empty range is widened by half on each side, as numpy does.
    pub fn new(min: f64, max: f64, n_bins: usize) -> Self {
        let (min, max) = if min == max { (min - 0.5, max + 0.5) } else { (min, max) };
        let step = (max - min) / n_bins as f64;
        let edge = |i: usize| match step.is_finite() {
            true => i as f64 * step + min,
            false => max * (i as f64 / n_bins as f64) + min * ((n_bins - i) as f64 / n_bins as f64),
        };
        let mut edges: Vec<f64> = (0..n_bins).map(edge).collect();
        edges.push(max);
        Self { min, max, edges }
    }

    /// Bins without a value.
    pub fn empty(&self, n_nan: u64, n_infinite: u64) -> Histogram {
        let counts = vec![0; self.edges.len() - 1];
        Histogram { min: self.min, max: self.max, counts, n_nan, n_infinite }
    }

    /// Counts a value within the range `n` times; what lies outside is in no bin.
    pub fn count_n(&self, v: f64, n: u64, histogram: &mut Histogram) {
        let n_bins = self.edges.len() - 1;
        if n_bins == 0 || !(self.min..=self.max).contains(&v) {
            return;
        }
        // Numpy's correction of the quotient's rounding: an edge belongs to the bin that it begins.
        let (min, max) = (self.min, self.max);
        let share = match (max - min).is_finite() {
            true => (v - min) / (max - min),
            false => (v / 2.0 - min / 2.0) / (max / 2.0 - min / 2.0),
        };
        let mut bin = ((share * n_bins as f64) as usize).min(n_bins - 1);
        let edge = |i: usize| self.edges.get(i).copied().unwrap_or(f64::INFINITY);
        if v < edge(bin) {
            bin = bin.saturating_sub(1);
        } else if v >= edge(bin + 1) && bin + 1 < n_bins {
            bin += 1;
        }
        if let Some(count) = histogram.counts.get_mut(bin) {
            *count += n;
        }
    }

    /// Counts a value within the range.
    pub fn count(&self, v: f64, histogram: &mut Histogram) {
        self.count_n(v, 1, histogram);
    }
}

/// The histogram of `values` in `n_bins` bins of equal width between the smallest and the largest finite value
/// (numpy.histogram's bins). All counts are zero where nothing is finite.
pub fn histogram(values: &[f32], n_bins: usize) -> Histogram {
    let finite = || values.iter().copied().filter(|v| v.is_finite()).map(f64::from);
    let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let n_nan = values.iter().filter(|v| v.is_nan()).count() as u64;
    let n_infinite = values.iter().filter(|v| v.is_infinite()).count() as u64;
    let binning = Binning::new(min, max, n_bins);
    let mut histogram = binning.empty(n_nan, n_infinite);
    finite().for_each(|v| binning.count(v, &mut histogram));
    histogram
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
        // A range beyond the largest float64.
        let wide = Binning::new(-1.5e308, 1.5e308, 4);
        let mut h = wide.empty(0, 0);
        [-1.5e308, -1e308, -1e307, 0.0, 1e308, 1.5e308].iter().for_each(|v| wide.count(*v, &mut h));
        assert_eq!(
            (wide.edges.as_slice(), h.counts),
            (&[-1.5e308, -0.75e308, 0.0, 0.75e308, 1.5e308][..], vec![2, 1, 1, 2])
        );
    }
}
