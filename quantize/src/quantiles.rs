//! Bins of equal numbers of values (`kbit`), the widest of them divided.
//!
//! The last bin of a tail is as wide as the tail is long: of an exponential density, 256 equal bins leave nine tenths of their
//! squared error in it. So an eighth of the codes is kept back and given, one after another, to the bin that leaves the
//! greatest error, which is divided at its median.

use crate::codebook::{Bin, Run, mass};

/// One code of so many is kept back.
const KEPT_BACK: usize = 8;

/// Codes that are kept back.
pub(crate) const fn kept_back(n_codes: usize) -> usize {
    n_codes / KEPT_BACK
}

/// Sum of squared distances from the mean.
fn error(runs: &[Run]) -> f64 {
    let n = mass(runs) as f64;
    let mean = runs.iter().map(|r| f64::from(r.0) * (r.1 as f64 / n)).sum::<f64>();
    runs.iter().map(|r| (f64::from(r.0) - mean).powi(2) * r.1 as f64).sum()
}

/// The first run of the upper half of a bin's values; neither half is empty.
fn median(runs: &[Run]) -> usize {
    let half = mass(runs) / 2;
    let mut seen = 0;
    let below = runs.iter().take_while(|r| {
        seen += r.1;
        seen <= half
    });
    below.count().clamp(1, runs.len() - 1)
}

/// Divides bins, in place, until `n_bins` are there or each holds one value.
pub(crate) fn divide(runs: &[Run], bins: &mut Vec<Bin>, n_bins: usize) {
    let inside = |b: &Bin| &runs[b.first..=b.last];
    let mut errors: Vec<f64> = bins.iter().map(|b| error(inside(b))).collect();
    while bins.len() < n_bins {
        let divisible = (0..bins.len()).filter(|&i| bins[i].first < bins[i].last);
        let Some(i) = divisible.max_by(|&a, &b| errors[a].total_cmp(&errors[b]).then(b.cmp(&a))) else { break };
        let from = bins[i].first + median(inside(&bins[i]));
        let above = Bin { first: from, last: bins[i].last, atom: false };
        bins[i].last = from - 1;
        errors[i] = error(inside(&bins[i]));
        errors.insert(i + 1, error(inside(&above)));
        bins.insert(i + 1, above);
    }
}
