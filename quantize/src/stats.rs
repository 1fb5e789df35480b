//! Statistics of pages, for zone maps.

use half::{bf16, f16};

use crate::{
    Code,
    error::{QuantizeError, Result},
    simd,
};

/// Range and counts of the values of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageStats {
    /// Least value that is not NaN; +∞ if there is none.
    pub min: f64,
    /// Greatest value that is not NaN; −∞ if there is none.
    pub max: f64,
    /// NaNs.
    pub n_nan: u64,
    /// Zeros, of either sign.
    pub n_zero: u64,
}

const LANES: usize = 32;

/// Range and counts of a page's codes; for `Bit` and `Kbit` those of the raw codes.
///
/// Integers of 8 bytes are rounded to f64.
/// Errors: `Length` where the bytes are no whole number of codes; `UnsupportedCode`.
pub fn page_stats(code: Code, codes: &[u8]) -> Result<PageStats> {
    code.check()?;
    let w = code.width();
    if !codes.len().is_multiple_of(w) {
        return Err(QuantizeError::Length { what: "codes", expected: codes.len() / w * w, got: codes.len() });
    }
    Ok(simd::range_of(code, codes))
}

/// [`page_stats`] of whole codes, to be compiled for wider registers.
#[inline(always)]
pub(crate) fn range_of(code: Code, codes: &[u8]) -> PageStats {
    match code {
        Code::F16 => float16(codes, 0x7c00, |k| f16::from_bits(k).to_f64()),
        Code::BF16 => float16(codes, 0x7f80, |k| bf16::from_bits(k).to_f64()),
        Code::F32 => float32(codes),
        Code::F64 => float64(codes),
        Code::Bit | Code::Kbit(_) => bytes(codes, |b| b, f64::from),
        Code::Int(1) => bytes(codes, |b| b ^ 0x80, |b| f64::from((b ^ 0x80).cast_signed())),
        Code::Int(2) => integers(codes, |b: [u8; 2]| i16::from_le_bytes(b)),
        Code::Int(4) => integers(codes, |b: [u8; 4]| i32::from_le_bytes(b)),
        Code::Int(_) => integers(codes, |b: [u8; 8]| i64::from_le_bytes(b)),
    }
}

/// Values between two folds of the lanes; small enough for 16-bit counters.
const STRETCH: usize = LANES * 1024;

/// Floats are compared as integers of the same order (negative ones with their lower bits turned over), which compiles
/// to a few vector instructions; -0 lies just below 0.
macro_rules! floats {
    ($name:ident, $int:ty, $uint:ty, $n:literal, ($($extra:ident: $ty:ty),*), $inf:expr, $value:expr) => {
        #[inline(always)]
        fn $name(codes: &[u8] $(, $extra: $ty)*) -> PageStats {
            const LOW: $int = <$int>::MAX;
            const SIGN: u32 = <$int>::BITS - 1;
            let inf: $int = $inf;
            let (lowest, highest) = (<$int>::MIN, <$int>::MAX);
            let (mut min_key, mut max_key) = (highest, lowest);
            let (mut n_nan, mut n_zero) = (0u64, 0u64);
            for stretch in codes.as_chunks::<$n>().0.chunks(STRETCH) {
                let (mut min, mut max) = ([highest; LANES], [lowest; LANES]);
                let (mut nans, mut zeros) = ([0 as $uint; LANES], [0 as $uint; LANES]);
                let (groups, rest) = stretch.as_chunks::<LANES>();
                let mut one = |lane: usize, b: &[u8; $n]| {
                    let bits = <$int>::from_le_bytes(*b);
                    let key = bits ^ ((bits >> SIGN) & LOW);
                    let nan = (bits & LOW) > inf;
                    nans[lane] += nan as $uint;
                    zeros[lane] += ((bits & LOW) == 0) as $uint;
                    let (below, above) = if nan { (highest, lowest) } else { (key, key) };
                    min[lane] = min[lane].min(below);
                    max[lane] = max[lane].max(above);
                };
                for group in groups {
                    for lane in 0..LANES {
                        one(lane, &group[lane]);
                    }
                }
                for (lane, b) in rest.iter().enumerate() {
                    one(lane, b);
                }
                min_key = min.iter().fold(min_key, |a, &b| a.min(b));
                max_key = max.iter().fold(max_key, |a, &b| a.max(b));
                n_nan += nans.iter().map(|&n| u64::from(n)).sum::<u64>();
                n_zero += zeros.iter().map(|&n| u64::from(n)).sum::<u64>();
            }
            let value = $value;
            let of = |key: $int| -> f64 { value((key ^ ((key >> SIGN) & LOW)).cast_unsigned()) };
            let none = min_key == highest && max_key == lowest;
            PageStats {
                min: if none { f64::INFINITY } else { of(min_key) },
                max: if none { f64::NEG_INFINITY } else { of(max_key) },
                n_nan,
                n_zero,
            }
        }
    };
}

floats!(float16, i16, u16, 2, (infinity: i16, value: impl Fn(u16) -> f64), infinity, value);
floats!(float32, i32, u32, 4, (), f32::INFINITY.to_bits().cast_signed(), |b: u32| f64::from(f32::from_bits(b)));
floats!(float64, i64, u64, 8, (), f64::INFINITY.to_bits().cast_signed(), f64::from_bits);

/// Bytes in the order of `key`; `value` takes a key back.
#[inline(always)]
fn bytes(codes: &[u8], key: impl Fn(u8) -> u8, value: impl Fn(u8) -> f64) -> PageStats {
    let (mut min, mut max, mut n_zero) = (u8::MAX, u8::MIN, 0u64);
    for &b in codes {
        min = min.min(key(b));
        max = max.max(key(b));
        n_zero += u64::from(b == 0);
    }
    let none = codes.is_empty();
    let (min, max) = if none { (f64::INFINITY, f64::NEG_INFINITY) } else { (value(min), value(max)) };
    PageStats { min, max, n_nan: 0, n_zero }
}

#[inline(always)]
fn integers<const N: usize, T: Copy + Ord + Default + IntoF64>(
    codes: &[u8],
    value: impl Fn([u8; N]) -> T,
) -> PageStats {
    let values = || codes.as_chunks::<N>().0.iter().map(|b| value(*b));
    let n_zero = values().filter(|v| *v == T::default()).count() as u64;
    let min = values().min().map_or(f64::INFINITY, IntoF64::into_f64);
    let max = values().max().map_or(f64::NEG_INFINITY, IntoF64::into_f64);
    PageStats { min, max, n_nan: 0, n_zero }
}

trait IntoF64 {
    fn into_f64(self) -> f64;
}

impl IntoF64 for i16 {
    fn into_f64(self) -> f64 {
        f64::from(self)
    }
}

impl IntoF64 for i32 {
    fn into_f64(self) -> f64 {
        f64::from(self)
    }
}

impl IntoF64 for i64 {
    fn into_f64(self) -> f64 {
        self as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the vectors must agree with.
    fn naive(values: &[f64]) -> PageStats {
        PageStats {
            min: values.iter().copied().filter(|v| !v.is_nan()).fold(f64::INFINITY, f64::min),
            max: values.iter().copied().filter(|v| !v.is_nan()).fold(f64::NEG_INFINITY, f64::max),
            n_nan: values.iter().filter(|v| v.is_nan()).count() as u64,
            n_zero: values.iter().filter(|v| **v == 0.0).count() as u64,
        }
    }

    #[test]
    fn every_f16_and_any_length() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for n in [0, 1, 2, 31, 32, 33, 1000, 31_745, 65_536] {
            for start in [0, 0x7bff, 0x8000] {
                let bits = &all[start.min(all.len() - n)..][..n];
                let codes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
                let values: Vec<f64> = bits.iter().map(|b| f16::from_bits(*b).to_f64()).collect();
                assert_eq!(page_stats(Code::F16, &codes).unwrap(), naive(&values), "{n} from {start}");
                let values: Vec<f64> = bits.iter().map(|b| bf16::from_bits(*b).to_f64()).collect();
                assert_eq!(page_stats(Code::BF16, &codes).unwrap(), naive(&values), "{n} from {start}");
            }
        }
    }

    #[test]
    fn other_codes_by_hand() {
        let f = [1.5f32, -0.0, f32::NAN, f32::NEG_INFINITY, -2.0, 0.0];
        let codes: Vec<u8> = f.iter().flat_map(|v| v.to_le_bytes()).collect();
        let wide: Vec<f64> = f.iter().map(|v| f64::from(*v)).collect();
        assert_eq!(page_stats(Code::F32, &codes).unwrap(), naive(&wide));
        let codes: Vec<u8> = wide.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(page_stats(Code::F64, &codes).unwrap(), naive(&wide));
        assert_eq!(page_stats(Code::Kbit(8), &[3, 0, 200]).unwrap(), naive(&[3.0, 0.0, 200.0]));
        assert_eq!(page_stats(Code::Int(1), &[3, 0, 200]).unwrap(), naive(&[3.0, 0.0, -56.0]));
        let codes: Vec<u8> = [5i16, -7, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(page_stats(Code::Int(2), &codes).unwrap(), naive(&[5.0, -7.0, 0.0]));
        assert_eq!(page_stats(Code::Int(8), &(-9i64).to_le_bytes()).unwrap(), naive(&[-9.0]));
        assert_eq!(page_stats(Code::F32, &[]).unwrap(), naive(&[]));
    }
}
