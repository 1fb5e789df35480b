//! Pages without their most common code: a bitmap of where it is not, and the others one after another.
//!
//! Post-ReLU maps are mostly +0. For floats and integers only the code of all zero bits is left out, so −0 survives;
//! for codes of one byte it is the most common one (in `Sparse`, of a sample), stored in front.
//!
//! `Sparse` keeps both parts as they are, to be written quickly. `Entropy` stores the bitmap and each byte plane of
//! the others as a [`block`]: exponents are far from uniform, mantissas are noise. Floats with exponents of 8 bits
//! and more are rotated by one bit first, so that the top plane is exponent alone.
//!
//! Layout of `Sparse`: the fill, for codes of one byte; the bitmap, n / 8 bytes rounded up; the other codes.
//! Layout of `Entropy`: flags u8 (1 a bitmap, 3 a bitmap XORed with itself one map row earlier, 0 neither, in which
//! case all codes follow); with a bitmap the fill, for codes of one byte, and the bitmap as a block; then the byte
//! planes of the codes as blocks, top byte first.
//! Layout of `Shared`: as `Entropy`, but blocks may be coded by the models of the chunk.

use std::cell::RefCell;

use super::{SharedDecoder, SharedEncoder, bitmap, block, huffman};
use crate::{
    Code,
    error::{Result, corrupt},
    simd::{self, scalar_page::COMPRESS_SLACK},
};

/// Bytes beyond the last value that vector kernels may read.
const SLACK: usize = 64;
/// Flags of an `Entropy` page.
const HAS_BITMAP: u8 = 1;
const XOR_ABOVE: u8 = 2;

/// Buffers that pages of one thread share.
pub(crate) struct Scratch {
    table: huffman::Table,
    bits: Vec<u8>,
    words: Vec<u64>,
    planes: Vec<u8>,
    dense: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        table: huffman::Table::new(),
        bits: Vec::new(),
        words: Vec::new(),
        planes: Vec::new(),
        dense: Vec::new(),
    });
}

/// Bits by which a code is rotated left before it is cut into planes.
const fn rotation(code: Code) -> u32 {
    match code {
        Code::BF16 | Code::F32 | Code::F64 => 1,
        _ => 0,
    }
}

/// A page split in two: where the fill is not, and what is there.
pub(crate) struct Split {
    pub fill: u8,
    pub bits: Vec<u8>,
    pub dense: Vec<u8>,
}

pub(crate) fn split(code: Code, codes: &[u8]) -> Split {
    let fill = if code.width() == 1 { most_common(&huffman::histogram(codes)).0 } else { 0 };
    let mut bits = vec![0; (codes.len() / code.width()).div_ceil(8)];
    let mut dense = vec![0; codes.len() + COMPRESS_SLACK];
    let len = simd::compress(code.width(), codes, fill, &mut bits, &mut dense);
    dense.truncate(len);
    Split { fill, bits, dense }
}

/// The most common byte, the first of equals, and how often it is there.
fn most_common(hist: &huffman::Histogram) -> (u8, u32) {
    let count = |b: u8| hist[usize::from(b)];
    let byte = (0..=255u8).rev().max_by_key(|&b| count(b)).unwrap_or(0);
    (byte, count(byte))
}

/// Of codes of one byte, this many of every [`SAMPLE_EVERY`] tell the most common one.
const SAMPLE: usize = 64;
const SAMPLE_EVERY: usize = 512;

/// Writes a `Sparse` page where that takes fewer than `limit` bytes; `false`, and nothing written, where not. Of codes of
/// one byte the fill is the most common one of a sample.
pub(crate) fn write_if_smaller(code: Code, codes: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    let width = code.width();
    let n_bits = (codes.len() / width).div_ceil(8);
    let mut fill = 0;
    if width == 1 {
        let n = codes.chunks(SAMPLE_EVERY).map(|c| c.len().min(SAMPLE)).sum::<usize>();
        let (byte, count) =
            most_common(&huffman::histogram_of(codes.chunks(SAMPLE_EVERY).map(|c| &c[..c.len().min(SAMPLE)])));
        fill = byte;
        let others = codes.len() * (n - count as usize) / n.max(1);
        // A sample errs: only what is far from it is not tried.
        if n_bits + others > limit + limit / 8 {
            return false;
        }
    }
    SCRATCH.with_borrow_mut(|s| {
        let (bits, dense) = (grown(&mut s.bits, n_bits), grown(&mut s.dense, codes.len() + COMPRESS_SLACK));
        let len = simd::compress(width, codes, fill, bits, dense);
        if n_bits + len + usize::from(width == 1) >= limit {
            return false;
        }
        if width == 1 {
            out.push(fill);
        }
        out.extend_from_slice(bits);
        out.extend_from_slice(&dense[..len]);
        true
    })
}

pub(crate) fn write_sparse(code: Code, s: &Split, out: &mut Vec<u8>) {
    if code.width() == 1 {
        out.push(s.fill);
    }
    out.extend_from_slice(&s.bits);
    out.extend_from_slice(&s.dense);
}

/// Writes an `Entropy` page.
pub(crate) fn write_entropy(code: Code, codes: &[u8], s: &Split, map_w: usize, out: &mut Vec<u8>) -> Result<()> {
    let from = out.len();
    write_with_bitmap(code, codes, s, map_w, out)?;
    // Without a bitmap when few codes are left out, or when entropy coding alone takes care of them.
    let width = code.width();
    let few = s.dense.len() * 8 > codes.len() * 7;
    if few || width == 1 {
        let mut whole = vec![0];
        write_planes(code, codes, &mut whole)?;
        if whole.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&whole);
        }
    }
    Ok(())
}

fn write_with_bitmap(code: Code, codes: &[u8], s: &Split, map_w: usize, out: &mut Vec<u8>) -> Result<()> {
    let n = codes.len() / code.width();
    let mut flags = HAS_BITMAP;
    let mut bits = &s.bits;
    let mut plan = block::plan(bits);
    let mixed;
    if (1..n).contains(&map_w) {
        mixed = bitmap::mixed(bits, map_w, n);
        let other = block::plan(&mixed);
        if other.size < plan.size {
            (plan, bits, flags) = (other, &mixed, flags | XOR_ABOVE);
        }
    }
    out.push(flags);
    if code.width() == 1 {
        out.push(s.fill);
    }
    block::write(&plan, bits, out)?;
    write_planes(code, &s.dense, out)
}

fn write_planes(code: Code, dense: &[u8], out: &mut Vec<u8>) -> Result<()> {
    each_plane(code, dense, |_, plane| block::write(&block::plan(plane), plane, out))
}

/// The byte planes of codes, top byte first.
pub(crate) fn to_planes(code: Code, codes: &[u8], planes: &mut [u8]) {
    simd::to_planes(code.width(), rotation(code), codes, planes);
}

fn each_plane(code: Code, dense: &[u8], mut f: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
    let mut planes = vec![0; dense.len()];
    to_planes(code, dense, &mut planes);
    let n = dense.len() / code.width();
    planes.chunks_exact(n.max(1)).enumerate().try_for_each(|(i, plane)| f(i, plane))
}

/// Writes a `Shared` page.
pub(crate) fn write_shared(
    code: Code,
    codes: &[u8],
    s: &Split,
    map_w: usize,
    shared: &SharedEncoder,
    out: &mut Vec<u8>,
) -> Result<()> {
    let n = codes.len() / code.width();
    let xor = shared.xor_above && (1..n).contains(&map_w);
    let mut dense = codes;
    if shared.has_bitmap {
        out.push(if xor { HAS_BITMAP | XOR_ABOVE } else { HAS_BITMAP });
        if code.width() == 1 {
            out.push(s.fill);
        }
        let mixed = xor.then(|| bitmap::mixed(&s.bits, map_w, n));
        let bits = mixed.as_deref().unwrap_or(&s.bits);
        block::write_shared(&block::plan(bits), shared.part(0), bits, out)?;
        dense = &s.dense;
    } else {
        out.push(0);
    }
    each_plane(code, dense, |i, plane| block::write_shared(&block::plan(plane), shared.part(1 + i), plane, out))
}

/// A page's parts: the fill, a bitmap unless all codes are there, and the codes that are, with what follows them.
pub(crate) struct Parts<'a> {
    pub fill: u8,
    pub bits: Option<&'a [u8]>,
    pub dense: &'a [u8],
}

pub(crate) fn read_sparse<T>(code: Code, bytes: &[u8], n: usize, then: impl FnOnce(Parts) -> T) -> Result<T> {
    let bad = |why| corrupt("sparse page", why);
    let (fill, rest) = take_fill(code, bytes)?;
    let (bits, dense) = rest.split_at_checked(n.div_ceil(8)).ok_or(bad("cut short"))?;
    if !bitmap::spare_is_clear(bits, n) || bitmap::count(bits) * code.width() != dense.len() {
        return Err(bad("bitmap"));
    }
    Ok(then(Parts { fill, bits: Some(bits), dense }))
}

/// The first `len` bytes of a buffer that only grows, so that its bytes are cleared once.
fn grown(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

fn take_fill(code: Code, bytes: &[u8]) -> Result<(u8, &[u8])> {
    if code.width() > 1 {
        return Ok((0, bytes));
    }
    let (fill, rest) = bytes.split_first().ok_or(corrupt("sparse page", "cut short"))?;
    Ok((*fill, rest))
}

pub(crate) fn read_entropy<T>(
    code: Code,
    mut bytes: &[u8],
    n: usize,
    map_w: usize,
    shared: Option<&SharedDecoder>,
    then: impl FnOnce(Parts) -> T,
) -> Result<T> {
    let bad = |why| corrupt("entropy page", why);
    SCRATCH.with_borrow_mut(|s| {
        let (flags, rest) = bytes.split_first().ok_or(bad("cut short"))?;
        bytes = rest;
        let width = code.width();
        let mut fill = 0;
        let (n_dense, has_bits) = match *flags {
            0 => (n, false),
            HAS_BITMAP | 3 => {
                (fill, bytes) = take_fill(code, bytes)?;
                let bits = grown(&mut s.bits, n.div_ceil(8));
                block::read(&mut bytes, &mut s.table, shared.and_then(|s| s.part(0)), bits)?;
                if flags & XOR_ABOVE != 0 {
                    if map_w == 0 {
                        return Err(bad("map width"));
                    }
                    bitmap::undo_xor_above(bits, map_w, &mut s.words);
                    bitmap::clear_spare(bits, n);
                }
                if !bitmap::spare_is_clear(bits, n) {
                    return Err(bad("bitmap"));
                }
                (bitmap::count(bits), true)
            }
            _ => return Err(bad("flags")),
        };
        let planes = grown(&mut s.planes, n_dense * width);
        if n_dense > 0 {
            for (i, plane) in planes.chunks_exact_mut(n_dense).enumerate() {
                block::read(&mut bytes, &mut s.table, shared.and_then(|s| s.part(1 + i)), plane)?;
            }
        }
        if !bytes.is_empty() {
            return Err(bad("bytes after the end"));
        }
        let dense = grown(&mut s.dense, n_dense * width + SLACK);
        simd::from_planes(width, rotation(code), planes, &mut dense[..n_dense * width]);
        let bits = has_bits.then(|| &s.bits[..n.div_ceil(8)]);
        Ok(then(Parts { fill, bits, dense }))
    })
}

impl Parts<'_> {
    /// The page's codes.
    pub(crate) fn codes(&self, width: usize, out: &mut [u8]) {
        match self.bits {
            Some(bits) => simd::expand(width, bits, self.dense, self.fill, out),
            None => out.copy_from_slice(&self.dense[..out.len()]),
        }
    }

    /// The page's codes, of type F16, BF16 or else F32, as f32.
    pub(crate) fn floats(&self, code: Code, out: &mut [f32]) {
        match (self.bits, code) {
            (Some(bits), Code::F16) => simd::expand_f16(bits, self.dense, out),
            (Some(bits), Code::BF16) => simd::expand_bf16(bits, self.dense, out),
            (Some(bits), _) => simd::expand_f32(bits, self.dense, out),
            (None, Code::F16) => simd::f16_to_f32(&self.dense[..2 * out.len()], out),
            (None, Code::BF16) => simd::bf16_to_f32(&self.dense[..2 * out.len()], out),
            (None, _) => simd::bytes_to_f32(&self.dense[..4 * out.len()], out),
        }
    }
}
