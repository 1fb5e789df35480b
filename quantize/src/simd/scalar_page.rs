//! The kernels of pages in plain Rust.

use half::f16;

/// Positions of the set bits of a bitmap, in order.
#[inline(always)]
fn set_bits(bits: &[u8]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(i, &b)| {
        let mut left = b;
        std::iter::from_fn(move || {
            let k = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (k < 8).then_some(8 * i + k as usize)
        })
    })
}

/// Bytes that vector forms of [`compress`] may write behind what they keep.
pub(crate) const COMPRESS_SLACK: usize = 64;

/// Writes the bitmap of the codes that are not `fill` in every byte, and those codes. Returns the bytes of the latter.
///
/// Shape: `bits` has a bit a code, rounded up to bytes; `dense` as many bytes as `codes`, and [`COMPRESS_SLACK`].
pub(crate) fn compress(width: usize, codes: &[u8], fill: u8, bits: &mut [u8], dense: &mut [u8]) -> usize {
    fn run<const W: usize>(codes: &[u8], fill: u8, bits: &mut [u8], dense: &mut [u8]) -> usize {
        let mut at = 0;
        for (eight, bits) in codes.as_chunks::<W>().0.chunks(8).zip(bits) {
            let mut byte = 0;
            for (i, c) in eight.iter().enumerate() {
                if *c != [fill; W] {
                    byte |= 1 << i;
                    if let Some(to) = dense.get_mut(at..at + W) {
                        to.copy_from_slice(c);
                    }
                    at += W;
                }
            }
            *bits = byte;
        }
        at
    }
    match width {
        1 => run::<1>(codes, fill, bits, dense),
        2 => run::<2>(codes, fill, bits, dense),
        4 => run::<4>(codes, fill, bits, dense),
        _ => run::<8>(codes, fill, bits, dense),
    }
}

/// Undoes [`compress`]; codes for which `dense` is too short become `fill`.
pub(crate) fn expand(width: usize, bits: &[u8], dense: &[u8], fill: u8, out: &mut [u8]) {
    out.fill(fill);
    for (at, code) in set_bits(bits).zip(dense.chunks_exact(width)) {
        if let Some(o) = out.get_mut(at * width..(at + 1) * width) {
            o.copy_from_slice(code);
        }
    }
}

fn expand_with<const W: usize>(bits: &[u8], dense: &[u8], out: &mut [f32], f: impl Fn([u8; W]) -> f32) {
    out.fill(0.0);
    for (at, code) in set_bits(bits).zip(dense.as_chunks::<W>().0) {
        if let Some(o) = out.get_mut(at) {
            *o = f(*code);
        }
    }
}

/// [`expand`] of f16 codes, to f32.
pub(crate) fn expand_f16(bits: &[u8], dense: &[u8], out: &mut [f32]) {
    expand_with(bits, dense, out, |b| f16::from_le_bytes(b).to_f32_const());
}

/// [`expand`] of bf16 codes, to f32.
pub(crate) fn expand_bf16(bits: &[u8], dense: &[u8], out: &mut [f32]) {
    expand_with(bits, dense, out, |[a, b]: [u8; 2]| f32::from_le_bytes([0, 0, a, b]));
}

/// [`expand`] of f32 codes, to f32.
pub(crate) fn expand_f32(bits: &[u8], dense: &[u8], out: &mut [f32]) {
    expand_with(bits, dense, out, f32::from_le_bytes);
}

/// Byte planes of codes rotated left, top byte first.
#[inline(always)]
pub(crate) fn to_planes(width: usize, rotation: u32, codes: &[u8], planes: &mut [u8]) {
    let n = codes.len() / width;
    let (first, rest) = planes.split_at_mut(n);
    match width {
        1 => first.copy_from_slice(codes),
        2 => {
            for ((c, hi), lo) in codes.as_chunks::<2>().0.iter().zip(first).zip(rest) {
                [*hi, *lo] = u16::from_le_bytes(*c).rotate_left(rotation).to_be_bytes();
            }
        }
        4 => {
            let (b, rest) = rest.split_at_mut(n);
            let (c, d) = rest.split_at_mut(n);
            for ((((v, a), b), c), d) in codes.as_chunks::<4>().0.iter().zip(first).zip(b).zip(c).zip(d) {
                [*a, *b, *c, *d] = u32::from_le_bytes(*v).rotate_left(rotation).to_be_bytes();
            }
        }
        _ => {
            for (i, v) in codes.as_chunks::<8>().0.iter().enumerate() {
                let bytes = u64::from_le_bytes(*v).rotate_left(rotation).to_be_bytes();
                first[i] = bytes[0];
                for (k, b) in bytes[1..].iter().enumerate() {
                    rest[k * n + i] = *b;
                }
            }
        }
    }
}

/// Undoes [`to_planes`].
#[inline(always)]
pub(crate) fn from_planes(width: usize, rotation: u32, planes: &[u8], codes: &mut [u8]) {
    let n = codes.len() / width;
    let (first, rest) = planes.split_at(n);
    match width {
        1 => codes.copy_from_slice(first),
        2 => {
            for ((c, hi), lo) in codes.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(rest) {
                *c = (u16::from(*hi) << 8 | u16::from(*lo)).rotate_right(rotation).to_le_bytes();
            }
        }
        4 => {
            let (b, rest) = rest.split_at(n);
            let (c, d) = rest.split_at(n);
            for ((((v, a), b), c), d) in codes.as_chunks_mut::<4>().0.iter_mut().zip(first).zip(b).zip(c).zip(d) {
                let word = u32::from(*a) << 24 | u32::from(*b) << 16 | u32::from(*c) << 8 | u32::from(*d);
                *v = word.rotate_right(rotation).to_le_bytes();
            }
        }
        _ => {
            for (i, v) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let word = rest[i..].iter().step_by(n).take(7).fold(u64::from(first[i]), |w, b| w << 8 | u64::from(*b));
                *v = word.rotate_right(rotation).to_le_bytes();
            }
        }
    }
}

/// Unpacks codes of `bits` bits each, from the lowest bit up.
#[inline(always)]
pub(crate) fn unpack(bits: u32, bytes: &[u8], out: &mut [u8]) {
    #[inline(always)]
    fn run<const B: usize>(bytes: &[u8], out: &mut [u8]) {
        let mut word = [0u8; 8];
        for (eight, b) in out.chunks_mut(8).zip(bytes.chunks(B)) {
            word[..b.len()].copy_from_slice(b);
            let w = u64::from_le_bytes(word);
            let codes: [u8; 8] = std::array::from_fn(|i| (w >> (i * B)) as u8 & ((1u16 << B) - 1) as u8);
            eight.copy_from_slice(&codes[..eight.len()]);
        }
    }
    match bits {
        1 => run::<1>(bytes, out),
        2 => run::<2>(bytes, out),
        3 => run::<3>(bytes, out),
        4 => run::<4>(bytes, out),
        5 => run::<5>(bytes, out),
        6 => run::<6>(bytes, out),
        7 => run::<7>(bytes, out),
        _ => run::<8>(bytes, out),
    }
}
