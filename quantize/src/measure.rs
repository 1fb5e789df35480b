//! The error of codes against the values they came from, at the original resolution.

use crate::{
    Reducer,
    error::{Result, check_len, corrupt},
    pool, simd,
};

/// Accumulated error of one unit. Values that are not finite, or decode so, are left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UnitError {
    /// Values compared.
    pub n: u64,
    /// Sum of squared differences.
    pub sum_sq_err: f64,
    /// Largest absolute difference.
    pub max_abs_err: f64,
    /// Sum of the squares of the values themselves.
    pub sum_sq: f64,
}

impl UnitError {
    /// Bytes of [`UnitError::to_bytes`].
    pub const LEN_BYTES: usize = 32;

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum_sq_err += other.sum_sq_err;
        self.max_abs_err = self.max_abs_err.max(other.max_abs_err);
        self.sum_sq += other.sum_sq;
    }

    /// Root mean square of the differences; 0 where nothing was compared.
    #[must_use]
    pub fn rms(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.sum_sq_err / self.n as f64).sqrt() }
    }

    /// Largest absolute difference.
    #[must_use]
    pub const fn max(&self) -> f64 {
        self.max_abs_err
    }

    /// Rms difference over rms value: 0 without any difference, infinite where only the values are 0.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.sum_sq_err == 0.0 { 0.0 } else { (self.sum_sq_err / self.sum_sq).sqrt() }
    }

    /// The four fields in order, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN_BYTES] {
        let words = [self.n, self.sum_sq_err.to_bits(), self.max_abs_err.to_bits(), self.sum_sq.to_bits()];
        let mut out = [0; Self::LEN_BYTES];
        for (o, w) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *o = w.to_le_bytes();
        }
        out
    }

    /// The error written by [`UnitError::to_bytes`].
    ///
    /// Errors: `Length`; `Corrupt` for sums that are negative or not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        check_len("unit error", bytes.len(), Self::LEN_BYTES)?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |i: usize| words.get(i).map_or(0, |w| u64::from_le_bytes(*w));
        let sum = |i| {
            let x = f64::from_bits(word(i));
            if x >= 0.0 { Ok(x) } else { Err(corrupt("unit error", "negative or NaN")) }
        };
        Ok(Self { n: word(0), sum_sq_err: sum(1)?, max_abs_err: sum(2)?, sum_sq: sum(3)? })
    }
}

impl Reducer {
    /// Adds to each unit's error that of `codes` against `maps`; a pooled cell stands for its whole window.
    ///
    /// Shape: `maps` holds k maps of the consecutive units from `first_unit`, `codes` their k stored maps,
    /// `errs` k errors.
    /// Errors: `Length`, `UnitRange`.
    pub fn measure(&self, first_unit: usize, maps: &[f32], codes: &[u8], errs: &mut [UnitError]) -> Result<()> {
        let (map, stored) = (self.map(), self.stored_map());
        let k = self.count_units(first_unit, maps.len(), map)?;
        check_len("codes", codes.len(), k * stored.cells() * self.code().width())?;
        check_len("unit errors", errs.len(), k)?;
        let (wh, ww) = pool::window(self.scheme().pool, map);
        let mut values = vec![0f32; k * stored.cells()];
        self.decode(first_unit, codes, &mut values)?;
        if map.cells() == 1 {
            for ((x, y), err) in maps.iter().zip(&values).zip(errs) {
                if x.is_finite() && y.is_finite() {
                    let (x, e) = (f64::from(*x), f64::from(*x) - f64::from(*y));
                    err.merge(&UnitError { n: 1, sum_sq_err: e * e, max_abs_err: e.abs(), sum_sq: x * x });
                }
            }
            return Ok(());
        }
        let mut whole = vec![0f32; if (wh, ww) == (1, 1) { 0 } else { map.cells() }];
        let units = maps.chunks_exact(map.cells()).zip(values.chunks_exact(stored.cells()));
        for ((one, values), err) in units.zip(errs) {
            let approx = if whole.is_empty() {
                values
            } else {
                for (rows, pooled) in whole.chunks_mut(wh * map.w).zip(values.chunks_exact(stored.w)) {
                    let (first, rest) = rows.split_at_mut(map.w);
                    for (window, &p) in first.chunks_mut(ww).zip(pooled) {
                        window.fill(p);
                    }
                    for row in rest.chunks_exact_mut(map.w) {
                        row.copy_from_slice(first);
                    }
                }
                &whole
            };
            let s = simd::error_sums(one, approx);
            err.merge(&UnitError { n: s.n, sum_sq_err: s.sq_err, max_abs_err: s.max_abs, sum_sq: s.sq });
        }
        Ok(())
    }
}
