//! Elementary functions from additions, multiplications and divisions alone.
//!
//! The standard library's call the platform's, which differ in the last bits; generated data must be the same everywhere.

/// e to the power of `x`, to about 1e-13 for |x| up to 10.
pub(crate) fn exp(x: f64) -> f64 {
    // exp(x) = exp(x/256)^256, and the series converges at once for small arguments.
    let y = x / 256.0;
    let series = (1..=8).rev().fold(1.0, |sum, n| 1.0 + sum * y / f64::from(n));
    (0..8).fold(series, |power, _| power * power)
}

/// Sine and cosine of `turns` full turns, to about 1e-12.
pub(crate) fn sin_cos_turns(turns: f64) -> (f64, f64) {
    let y = (turns - turns.round()) * std::f64::consts::TAU / 4.0;
    let square = y * y;
    let series = |first: f64| {
        (0..9).rev().fold(1.0, |sum, n| {
            let n = 2.0 * f64::from(n) + first;
            1.0 - sum * square / ((n + 1.0) * (n + 2.0))
        })
    };
    let (mut sin, mut cos) = (y * series(1.0), series(0.0));
    for _ in 0..2 {
        (sin, cos) = (2.0 * sin * cos, cos * cos - sin * sin);
    }
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_platform() {
        for i in -1000..=1000 {
            let x = f64::from(i) / 100.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "exp({x})");
            let (sin, cos) = sin_cos_turns(x);
            let (expected_sin, expected_cos) = (x * std::f64::consts::TAU).sin_cos();
            assert!((sin - expected_sin).abs() < 1e-12 && (cos - expected_cos).abs() < 1e-12, "{x}: {sin} {cos}");
        }
    }
}
