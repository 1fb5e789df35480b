//! The upper quantile of a stream whose length is known, from its highest values alone.

/// The highest values of a stream.
pub(super) struct Top {
    /// Values that must be held.
    keep: usize,
    /// Place of the quantile between the two lowest that are kept.
    part: f64,
    cut: f64,
    values: Vec<f64>,
}

impl Top {
    /// For `n` values, of which a share `alpha` lies above the quantile.
    pub fn new(n: usize, alpha: f64) -> Self {
        let at = (n.saturating_sub(1)) as f64 * (1.0 - alpha);
        let below = at.floor();
        let keep = n.saturating_sub(below as usize).max(1);
        Self { keep, part: at - below, cut: f64::NEG_INFINITY, values: Vec::new() }
    }

    /// Whether a value could be among the highest.
    pub fn admits(&self, v: f64) -> bool {
        self.values.len() < self.keep || v > self.cut
    }

    /// A value that occurs `n` times.
    pub fn push_n(&mut self, v: f64, n: u64) {
        (0..n.min(self.keep as u64)).for_each(|_| self.push(v));
    }

    /// A further value.
    pub fn push(&mut self, v: f64) {
        if !self.admits(v) {
            return;
        }
        self.values.push(v);
        if self.values.len() >= 2 * self.keep + 1024 {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.values.len() > self.keep {
            let (_, lowest, _) = self.values.select_nth_unstable_by(self.keep - 1, |a, b| b.total_cmp(a));
            self.cut = *lowest;
            self.values.truncate(self.keep);
        }
    }

    /// The quantile, interpolated as numpy does; NaN for no values.
    pub fn quantile(mut self) -> f64 {
        self.shrink();
        self.values.sort_unstable_by(f64::total_cmp);
        let (Some(&a), t) = (self.values.first(), self.part) else { return f64::NAN };
        let b = self.values.get(1).copied().unwrap_or(a);
        if t < 0.5 { a + (b - a) * t } else { b - (b - a) * (1.0 - t) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_sorting_finds_it() {
        for n in [1usize, 2, 3, 200, 5000] {
            let values: Vec<f64> = (0..n as u64).map(|i| f64::from((i * 7919 % 1009) as u32)).collect();
            for alpha in [0.005, 0.1, 0.5, 0.999] {
                let mut top = Top::new(n, alpha);
                values.iter().for_each(|v| top.push(*v));
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                let at = (n - 1) as f64 * (1.0 - alpha);
                let (a, b) = (sorted[at as usize], sorted[(at as usize + 1).min(n - 1)]);
                let want = a + (b - a) * at.fract();
                assert!((top.quantile() - want).abs() < 1e-9, "{n} {alpha}");
            }
        }
    }
}
