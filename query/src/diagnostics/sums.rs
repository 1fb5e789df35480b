//! Sums of maps.

/// Values that are summed beside each other.
const LANES: usize = 16;

/// The sum of the values that are not NaN, and how many are.
pub(super) fn sum_of<V: Copy + Into<f64>>(values: &[V]) -> (f64, u64) {
    let (mut sums, mut nans) = ([0f64; LANES], [0u64; LANES]);
    let (whole, rest) = values.as_chunks::<LANES>();
    for lanes in whole {
        for ((sum, nan), v) in sums.iter_mut().zip(&mut nans).zip(lanes) {
            let v: f64 = (*v).into();
            *sum += if v.is_nan() { 0.0 } else { v };
            *nan += u64::from(v.is_nan());
        }
    }
    for ((sum, nan), v) in sums.iter_mut().zip(&mut nans).zip(rest) {
        let v: f64 = (*v).into();
        *sum += if v.is_nan() { 0.0 } else { v };
        *nan += u64::from(v.is_nan());
    }
    (sums.iter().sum(), nans.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_leave_nans_out() {
        // Small integers: every sum is exact in any order.
        for n in [0, 1, LANES - 1, LANES, 3 * LANES + 5] {
            let values: Vec<f32> = (0..n).map(|i| if i % 7 == 3 { f32::NAN } else { i as f32 - 4.0 }).collect();
            let some = values.iter().filter(|v| !v.is_nan());
            let want: f64 = some.clone().map(|v| f64::from(*v)).sum();
            assert_eq!(sum_of(&values), (want, (n - some.count()) as u64), "{n}");
        }
        assert_eq!(sum_of(&[1.0f64, f64::INFINITY]), (f64::INFINITY, 0));
    }
}
