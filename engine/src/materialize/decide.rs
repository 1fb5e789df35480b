//! Which values to keep: Alg. 3, and a byte budget.

use super::mode::Materialize;

/// Which groups are stored when their values are at hand (Alg. 3, line 4): those whose γ reaches γ_min.
pub fn worth_storing(mode: Materialize, gammas: &[f64]) -> Vec<bool> {
    gammas.iter().map(|gamma| *gamma >= mode.gamma_min()).collect()
}

/// Values that take part in a byte budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Number of the intermediate.
    pub intermediate_id: i64,
    /// The group.
    pub group: usize,
    /// Its γ, in seconds per GB.
    pub gamma: f64,
    /// S: bytes that it takes, amortised.
    pub bytes: f64,
    /// Whether it is stored already.
    pub is_stored: bool,
}

/// Which candidates stay, or are stored, under a budget: by falling γ as long as they fit, so that the lowest leaves first.
/// What alone is larger than the budget is passed over. Of equal γ, what is stored stays.
pub fn within_budget(budget: f64, candidates: &[Candidate]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let at = |i: &usize| candidates.get(*i).copied();
    order.sort_by(|a, b| match (at(a), at(b)) {
        (Some(a), Some(b)) => b.gamma.total_cmp(&a.gamma).then(b.is_stored.cmp(&a.is_stored)),
        _ => std::cmp::Ordering::Equal,
    });
    let mut keep = vec![false; candidates.len()];
    let mut total = 0.0;
    for (i, candidate) in order.into_iter().filter_map(|i| Some((i, at(&i)?))) {
        if candidate.bytes > budget {
            continue;
        }
        total += candidate.bytes;
        if total > budget {
            break;
        }
        if let Some(place) = keep.get_mut(i) {
            *place = true;
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithm_3_by_hand() {
        let gammas = [0.0, 9.9, 10.0, f64::INFINITY];
        assert_eq!(worth_storing(Materialize::All, &gammas), [true; 4]);
        assert_eq!(worth_storing(Materialize::None, &gammas[..3]), [false; 3]);
        let adaptive = Materialize::Adaptive { gamma_min: 10.0 };
        assert_eq!(worth_storing(adaptive, &gammas), [false, false, true, true]);
    }

    #[test]
    fn the_lowest_gamma_leaves_first() {
        let one = |gamma, bytes, is_stored| Candidate { intermediate_id: 1, group: 0, gamma, bytes, is_stored };
        let stored = [one(5.0, 40.0, true), one(1.0, 30.0, true), one(3.0, 30.0, true)];
        assert_eq!(within_budget(100.0, &stored), [true, true, true]);
        assert_eq!(within_budget(99.0, &stored), [true, false, true]);
        assert_eq!(within_budget(69.0, &stored), [true, false, false]);
        // A new one takes the place of lower ones only.
        let with = |new| [stored[0], stored[1], stored[2], new];
        assert_eq!(within_budget(100.0, &with(one(4.0, 30.0, false))), [true, false, true, true]);
        assert_eq!(within_budget(100.0, &with(one(0.5, 30.0, false))), [true, true, true, false]);
        assert_eq!(within_budget(100.0, &with(one(1.0, 30.0, false))), [true, true, true, false]);
        // Larger than the budget: passed over, whatever its γ.
        assert_eq!(within_budget(100.0, &with(one(99.0, 101.0, false))), [true, true, true, false]);
        assert_eq!(within_budget(0.0, &stored), [false; 3]);
    }
}
