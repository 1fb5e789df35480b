//! Codes of fewer than eight bits packed, and bytes by plane.

use crate::{
    Code,
    error::{Result, corrupt},
    simd,
};

pub(crate) const fn size(bits: u32, n: usize) -> usize {
    // Eight codes take `bits` bytes, so this does not overflow where `8 * n` would.
    n / 8 * bits as usize + (n % 8 * bits as usize).div_ceil(8)
}

pub(crate) fn write(bits: u32, codes: &[u8], out: &mut Vec<u8>) {
    for eight in codes.chunks(8) {
        let word = eight.iter().rev().fold(0u64, |w, &c| w << bits | u64::from(c));
        out.extend_from_slice(&word.to_le_bytes()[..size(bits, eight.len())]);
    }
}

pub(crate) fn read(code: Code, bytes: &[u8], out: &mut [u8]) -> Result<()> {
    if code.width() != 1 || bytes.len() != size(code.bits(), out.len()) {
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
