//! Codes of fewer than eight bits packed, and bytes by plane.

use crate::{
    Code,
    error::{Result, corrupt},
    simd,
};

/// Bytes of `n` packed codes of `bits` bits each.
pub const fn packed_len(bits: u32, n: usize) -> usize {
    // Eight codes take `bits` bytes, so this does not overflow where `8 * n` would.
    n / 8 * bits as usize + (n % 8 * bits as usize).div_ceil(8)
}

/// Appends codes of 1 to 8 bits each, from the lowest bit of each byte up; spare bits are 0.
pub fn pack(bits: u32, codes: &[u8], out: &mut Vec<u8>) {
    for eight in codes.chunks(8) {
        let word = eight.iter().rev().fold(0u64, |w, &c| w << bits | u64::from(c));
        out.extend_from_slice(&word.to_le_bytes()[..packed_len(bits, eight.len())]);
    }
}

/// Undoes [`pack`] for as many codes as `out` has room for.
///
/// Errors: `Corrupt` for bytes of another length, or spare bits that are not 0.
pub fn unpack(bits: u32, bytes: &[u8], out: &mut [u8]) -> Result<()> {
    let spare = out.len() * bits as usize % 8;
    if bytes.len() != packed_len(bits, out.len()) || (spare > 0 && bytes.last().is_some_and(|last| last >> spare != 0))
    {
        return Err(corrupt("packed codes", "length or spare bits"));
    }
    simd::unpack(bits, bytes, out);
    Ok(())
}

pub(crate) fn read(code: Code, bytes: &[u8], out: &mut [u8]) -> Result<()> {
    if code.width() != 1 || bytes.len() != packed_len(code.bits(), out.len()) {
        return Err(corrupt("packed page", "length"));
    }
    simd::unpack(code.bits(), bytes, out);
    Ok(())
}

/// Byte planes of values of `width` bytes, lowest first.
pub(crate) fn shuffle(width: usize, codes: &[u8], planes: &mut [u8]) {
    let n = codes.len() / width;
    for (i, plane) in planes.chunks_exact_mut(n.max(1)).enumerate() {
        for (o, c) in plane.iter_mut().zip(codes.chunks_exact(width)) {
            *o = c[i];
        }
    }
}

/// Undoes [`shuffle`].
pub(crate) fn unshuffle(width: usize, planes: &[u8], codes: &mut [u8]) {
    let n = codes.len() / width;
    for (i, plane) in planes.chunks_exact(n.max(1)).enumerate() {
        for (c, p) in codes.chunks_exact_mut(width).zip(plane) {
            c[i] = *p;
        }
    }
}
