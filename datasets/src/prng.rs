//! The random numbers of the generators: SplitMix64, whose outputs are fixed by its definition and the same everywhere.
//!
//! Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Changing anything here
//! changes every generated dataset.

/// A stream of random numbers.
pub(crate) struct Rng(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of a seed and of two numbers that say what it is for, such as a row and a column.
    pub(crate) fn new(seed: u64, what: u64, which: u64) -> Rng {
        let state = mix(seed.wrapping_add(GAMMA));
        let state = mix((state ^ what).wrapping_add(GAMMA));
        Rng(mix((state ^ which).wrapping_add(GAMMA)))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Uniform in 0 to 1, exclusive of 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low` to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0 to `n`, exclusive of `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Nearly normal with mean 0 and deviation 1, within ±6: the sum of twelve uniform numbers, which unlike the usual
    /// transforms needs no logarithm and is therefore the same on every machine.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// As [`normal`](Self::normal) but within ±3.5 and from one draw: the sum of four 16-bit numbers.
    pub(crate) fn rough_normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|lane| bits >> (16 * lane) & 0xffff).sum();
        // A uniform 16-bit number has deviation 65536/√12; four of them together 65536/√3.
        (sum as f32 - 131_070.0) * (1.732_050_8 / 65_536.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_outputs() {
        // The first outputs of the reference implementation for state 1234567.
        let mut rng = Rng(1_234_567);
        assert_eq!([rng.bits(), rng.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn moments() {
        let mut rng = Rng::new(1, 2, 3);
        let n = 20_000;
        type Draw = fn(&mut Rng) -> f64;
        let draws: [(Draw, f64, f64); 3] =
            [(Rng::unit, 0.5, 1.0 / 12.0), (Rng::normal, 0.0, 1.0), (|rng| f64::from(rng.rough_normal()), 0.0, 1.0)];
        for (draw, mean, variance) in draws {
            let values: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
            let found = values.iter().sum::<f64>() / f64::from(n);
            let spread = values.iter().map(|value| (value - found).powi(2)).sum::<f64>() / f64::from(n);
            assert!((found - mean).abs() < 0.03 && (spread / variance - 1.0).abs() < 0.04, "{found} {spread}");
        }
        assert!((0..1000).all(|_| rng.below(7) < 7));
    }
}
