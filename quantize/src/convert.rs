//! Conversions of source values that are not f32.

use crate::{
    Code,
    error::{QuantizeError, Result, check_len},
    simd,
};

/// Converts little-endian values of type `src` to f32, rounding to nearest where f32 is narrower.
///
/// Errors: `Length`; `UnsupportedCode` for `Bit` and `Kbit`, whose values need a [`crate::Reducer`].
pub fn to_f32(src: Code, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    src.check()?;
    check_len("bytes", bytes.len(), out.len().saturating_mul(src.width()))?;
    match src {
        Code::F16 => simd::f16_to_f32(bytes, out),
        Code::BF16 => simd::bf16_to_f32(bytes, out),
        Code::F32 => simd::bytes_to_f32(bytes, out),
        Code::F64 => simd::f64_to_f32(bytes, out),
        Code::Int(1) => ints(bytes, out, |b: [u8; 1]| i8::from_le_bytes(b).into()),
        Code::Int(2) => ints(bytes, out, |b: [u8; 2]| i16::from_le_bytes(b).into()),
        Code::Int(4) => ints(bytes, out, |b: [u8; 4]| i32::from_le_bytes(b) as f32),
        Code::Int(8) => ints(bytes, out, |b: [u8; 8]| i64::from_le_bytes(b) as f32),
        code => return Err(QuantizeError::UnsupportedCode { what: "to_f32", code }),
    }
    Ok(())
}

fn ints<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (b, o) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *o = f(*b);
    }
}
