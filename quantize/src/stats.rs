//! Statistics of pages, for zone maps.

use half::{bf16, f16};

use crate::{
    Code,
    error::{QuantizeError, Result},
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
    Ok(match code {
        Code::F16 => stats(codes, |b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
        Code::BF16 => stats(codes, |b: [u8; 2]| bf16::from_le_bytes(b).to_f32()),
        Code::F32 => stats(codes, f32::from_le_bytes),
        Code::F64 => stats(codes, f64::from_le_bytes),
        Code::Bit | Code::Kbit(_) => stats(codes, |[b]: [u8; 1]| f32::from(b)),
        Code::Int(1) => stats(codes, |b: [u8; 1]| f32::from(i8::from_le_bytes(b))),
        Code::Int(2) => stats(codes, |b: [u8; 2]| f32::from(i16::from_le_bytes(b))),
        Code::Int(4) => stats(codes, |b: [u8; 4]| f64::from(i32::from_le_bytes(b))),
        Code::Int(_) => stats(codes, |b: [u8; 8]| i64::from_le_bytes(b) as f64),
    })
}

#[inline(always)]
fn stats<const N: usize, T>(codes: &[u8], value: impl Fn([u8; N]) -> T) -> PageStats
where
    T: Copy + PartialOrd + From<i8> + Into<f64> + std::ops::Div<Output = T>,
{
    let zero = T::from(0);
    let inf = T::from(1) / zero;
    let mut min = [inf; LANES];
    let mut max = [T::from(-1) / zero; LANES];
    let (mut n_nan, mut n_zero) = (0u64, 0u64);
    for group in codes.as_chunks::<N>().0.chunks(LANES) {
        for ((b, min), max) in group.iter().zip(&mut min).zip(&mut max) {
            let x = value(*b);
            n_nan += u64::from(x.partial_cmp(&x).is_none());
            n_zero += u64::from(x == zero);
            *min = if x < *min { x } else { *min };
            *max = if x > *max { x } else { *max };
        }
    }
    PageStats {
        min: min.iter().fold(f64::INFINITY, |a, &b| a.min(b.into())),
        max: max.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b.into())),
        n_nan,
        n_zero,
    }
}
