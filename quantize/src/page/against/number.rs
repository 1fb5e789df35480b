//! Codes as numbers of one order, and back.

use half::{bf16, f16};

use crate::Code;

pub(super) fn load(code: Code, codes: &[u8]) -> Vec<u64> {
    match code.width() {
        1 => codes.iter().map(|b| u64::from(*b)).collect(),
        2 => codes.as_chunks().0.iter().map(|b| u64::from(u16::from_le_bytes(*b))).collect(),
        4 => codes.as_chunks().0.iter().map(|b| u64::from(u32::from_le_bytes(*b))).collect(),
        _ => codes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
    }
}

pub(super) fn store(code: Code, values: &[u64]) -> Vec<u8> {
    let width = code.width();
    let mut out = Vec::with_capacity(values.len() * width);
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()[..width]));
    out
}

/// The low `bits` as a signed number.
pub(super) fn wrap(x: i64, bits: u32) -> i64 {
    x << (64 - bits) >> (64 - bits)
}

pub(super) fn zigzag(x: i64, bits: u32) -> u64 {
    ((x << 1) ^ (x >> 63)).cast_unsigned() & (u64::MAX >> (64 - bits))
}

/// The code as a signed number; of floats, one that grows with their value.
pub(super) fn ordered(code: Code, bits: u64) -> i64 {
    let width = 8 * code.width() as u32;
    let signed = wrap(bits.cast_signed(), width);
    if code.is_float() { signed ^ ((signed >> 63).cast_unsigned() >> (65 - width)).cast_signed() } else { signed }
}

/// Undoes [`ordered`].
pub(super) fn unordered(code: Code, x: i64) -> u64 {
    let width = 8 * code.width() as u32;
    let signed = if code.is_float() { x ^ ((x >> 63).cast_unsigned() >> (65 - width)).cast_signed() } else { x };
    signed.cast_unsigned() & (u64::MAX >> (64 - width))
}

/// The value of a code.
pub(super) fn number(code: Code, bits: u64) -> f64 {
    match code {
        Code::F16 => f16::from_bits(bits as u16).to_f64(),
        Code::BF16 => bf16::from_bits(bits as u16).to_f64(),
        Code::F32 => f64::from(f32::from_bits(bits as u32)),
        Code::F64 => f64::from_bits(bits),
        Code::Bit | Code::Kbit(_) => bits as f64,
        Code::Int(_) => wrap(bits.cast_signed(), 8 * code.width() as u32) as f64,
    }
}

/// The code nearest to a value: floats to even; integers away from zero, within their range. NaN is the float's quiet
/// one without sign and payload, since machines differ in theirs, and 0 of integers.
pub(super) fn to_code(code: Code, x: f64) -> u64 {
    match code {
        Code::F16 if x.is_nan() => 0x7E00,
        Code::BF16 if x.is_nan() => 0x7FC0,
        Code::F32 if x.is_nan() => 0x7FC0_0000,
        Code::F64 if x.is_nan() => 0x7FF8 << 48,
        Code::F16 => u64::from(f16::from_f64(x).to_bits()),
        Code::BF16 => u64::from(bf16::from_f64(x).to_bits()),
        Code::F32 => u64::from((x as f32).to_bits()),
        Code::F64 => x.to_bits(),
        Code::Bit | Code::Kbit(_) => (x.round() as u64).min((1 << code.bits()) - 1),
        Code::Int(1) => u64::from((x.round() as i8).cast_unsigned()),
        Code::Int(2) => u64::from((x.round() as i16).cast_unsigned()),
        Code::Int(4) => u64::from((x.round() as i32).cast_unsigned()),
        Code::Int(_) => (x.round() as i64).cast_unsigned(),
    }
}
