//! The kernels for AVX-512 with VBMI2: compress and expand, and the plain ones compiled for wider registers.

use std::arch::x86_64::*;

use super::{Sums, scalar, scalar_huffman, scalar_page};
use crate::Code;
use crate::page::TABLE;
use crate::stats::{self, PageStats};

macro_rules! recompiled {
    ($($plain:ident: fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx2,f16c,bmi1,bmi2,popcnt,lzcnt,movbe")]
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            $plain::$name($($arg),*)
        }
    )*};
}

recompiled! {
    stats: fn range_of(code: Code, codes: &[u8]) -> PageStats;
    scalar: fn max_into(acc: &mut [f32], row: &[f32]);
    scalar: fn add_into(acc: &mut [f32], row: &[f32]);
    scalar: fn mean_2x2(rows: &[f32], w: usize, out: &mut [f32]);
    scalar: fn max_abs_bits(v: &[f32]) -> u32;
    scalar: fn f32_to_bf16(v: &[f32], out: &mut [u8]);
    scalar: fn bf16_to_f32(bytes: &[u8], out: &mut [f32]);
    scalar: fn f32_to_bytes(v: &[f32], out: &mut [u8]);
    scalar: fn bytes_to_f32(bytes: &[u8], out: &mut [f32]);
    scalar: fn f32_to_f64(v: &[f32], out: &mut [u8]);
    scalar: fn f64_to_f32(bytes: &[u8], out: &mut [f32]);
    scalar: fn greater(v: &[f32], t: f32, out: &mut [u8]);
    scalar: fn bits_to_f32(codes: &[u8], out: &mut [f32]);
    scalar: fn table_16(table: &[u8; 1 << 16], v: &[f32], out: &mut [u8]);
    scalar: fn table_18(table: &[u8; 1 << 18], v: &[f32], out: &mut [u8]);
    scalar: fn table_16_edges(table: &[u8; 1 << 16], edges: &[f32; 256], passes: usize, v: &[f32], out: &mut [u8]);
    scalar: fn error_sums(v: &[f32], approx: &[f32]) -> Sums;
    scalar_page: fn to_planes(width: usize, rotation: u32, codes: &[u8], planes: &mut [u8]);
    scalar_page: fn from_planes(width: usize, rotation: u32, planes: &[u8], codes: &mut [u8]);
    scalar_huffman: fn fill_table(order: &[(u8, u8)], entries: &mut [u16]);
    scalar_huffman: fn huffman_streams(n: usize, bytes: &[u8], bounds: &[usize; 5], table: &[u16; TABLE], out: &mut [u8]) -> bool;
    scalar_huffman: fn model_streams(bytes: &[u8], bounds: &[usize], table: &[u16], out: &mut [u8]) -> bool;
}

#[target_feature(enable = "avx512f")]
pub(crate) fn f32_to_f16(v: &[f32], out: &mut [u8]) {
    let ((vs, v_tail), (outs, out_tail)) = (v.as_chunks::<16>(), out.as_chunks_mut::<32>());
    for (x, o) in vs.iter().zip(outs) {
        // SAFETY: an array of 16 floats is readable, one of 32 bytes writable.
        unsafe {
            let h = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(x.as_ptr()));
            _mm256_storeu_si256(o.as_mut_ptr().cast(), h);
        }
    }
    scalar::f32_to_f16(v_tail, out_tail);
}

#[target_feature(enable = "avx512f")]
pub(crate) fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    let (outs, out_tail) = out.as_chunks_mut::<16>();
    let done = 32 * outs.len();
    for (b, o) in bytes.as_chunks::<32>().0.iter().zip(outs) {
        // SAFETY: an array of 32 bytes is readable, one of 16 floats writable.
        unsafe { _mm512_storeu_ps(o.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(b.as_ptr().cast()))) };
    }
    scalar::f16_to_f32(bytes.get(done..).unwrap_or_default(), out_tail);
}

/// Bytes of a register.
const REG: usize = 64;

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; REG]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(bytes: &mut [u8; REG], v: __m512i) {
    // SAFETY: 64 bytes are writable.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
pub(crate) fn compress(width: usize, codes: &[u8], fill: u8, bits: &mut [u8], dense: &mut [u8]) -> usize {
    let per = REG / width;
    let (regs, rest) = codes.as_chunks::<REG>();
    let fills = _mm512_set1_epi8(fill as i8);
    let mut at = 0;
    let (whole, last) = bits.split_at_mut((regs.len() * per / 8).min(bits.len()));
    for (reg, bits) in regs.iter().zip(whole.chunks_exact_mut(per / 8)) {
        let v = load(reg);
        let (mask, kept) = match width {
            1 => {
                let m = _mm512_cmpneq_epi8_mask(v, fills);
                (m, _mm512_maskz_compress_epi8(m, v))
            }
            2 => {
                let m = _mm512_cmpneq_epi16_mask(v, fills);
                (u64::from(m), _mm512_maskz_compress_epi16(m, v))
            }
            4 => {
                let m = _mm512_cmpneq_epi32_mask(v, fills);
                (u64::from(m), _mm512_maskz_compress_epi32(m, v))
            }
            _ => {
                let m = _mm512_cmpneq_epi64_mask(v, fills);
                (u64::from(m), _mm512_maskz_compress_epi64(m, v))
            }
        };
        bits.copy_from_slice(&mask.to_le_bytes()[..per / 8]);
        // Every store writes a whole register, of which a prefix is kept.
        if let Some(to) = dense.get_mut(at..).and_then(|d| d.first_chunk_mut()) {
            store(to, kept);
        }
        at += mask.count_ones() as usize * width;
    }
    let room = dense.get_mut(at..).unwrap_or_default();
    at + scalar_page::compress(width, rest, fill, last, room)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
pub(crate) fn expand(width: usize, bits: &[u8], dense: &[u8], fill: u8, out: &mut [u8]) {
    let per = REG / width;
    let fills = _mm512_set1_epi8(fill as i8);
    let (mut at, mut done) = (0, 0);
    for (o, b) in out.as_chunks_mut::<REG>().0.iter_mut().zip(bits.chunks_exact(per / 8)) {
        let Some(d) = dense.get(at..).and_then(|d| d.first_chunk()) else {
            break;
        };
        let mut mask = [0; 8];
        mask[..b.len()].copy_from_slice(b);
        let mask = u64::from_le_bytes(mask);
        let v = load(d);
        let wide = match width {
            1 => _mm512_mask_expand_epi8(fills, mask, v),
            2 => _mm512_mask_expand_epi16(fills, mask as u32, v),
            4 => _mm512_mask_expand_epi32(fills, mask as u16, v),
            _ => _mm512_mask_expand_epi64(fills, mask as u8, v),
        };
        store(o, wide);
        at += mask.count_ones() as usize * width;
        done += 1;
    }
    scalar_page::expand(width, &bits[done * per / 8..], &dense[at..], fill, &mut out[done * REG..]);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) fn look_up(table: &[f32; 256], codes: &[u8], out: &mut [f32]) {
    // Byte planes of the table fill half the registers, which pays for many codes only.
    let (regs, _) = if codes.len() < 1024 { Default::default() } else { codes.as_chunks::<REG>() };
    let mut planes = [[[0u8; REG]; 4]; 4];
    if !regs.is_empty() {
        for (k, v) in table.iter().enumerate() {
            for (plane, b) in planes.iter_mut().zip(v.to_le_bytes()) {
                plane[k / REG][k % REG] = b;
            }
        }
    }
    let planes: [[__m512i; 4]; 4] = std::array::from_fn(|p| std::array::from_fn(|q| load(&planes[p][q])));
    // Which of 64 codes goes where so that interleaving, which is by lanes of 128 bits, brings them into order.
    let order: [u8; REG] = std::array::from_fn(|i| (i % 16 / 4 * 16 + i / 16 * 4 + i % 4) as u8);
    let order = load(&order);
    for (c, o) in regs.iter().zip(out.as_chunks_mut::<REG>().0) {
        let v = _mm512_permutexvar_epi8(order, load(c));
        let high = _mm512_movepi8_mask(v);
        let [b0, b1, b2, b3] = planes.map(|[p0, p1, p2, p3]| {
            let (low, up) = (_mm512_permutex2var_epi8(p0, v, p1), _mm512_permutex2var_epi8(p2, v, p3));
            _mm512_mask_blend_epi8(high, low, up)
        });
        let (low01, up01) = (_mm512_unpacklo_epi8(b0, b1), _mm512_unpackhi_epi8(b0, b1));
        let (low23, up23) = (_mm512_unpacklo_epi8(b2, b3), _mm512_unpackhi_epi8(b2, b3));
        let values = [
            _mm512_unpacklo_epi16(low01, low23),
            _mm512_unpackhi_epi16(low01, low23),
            _mm512_unpacklo_epi16(up01, up23),
            _mm512_unpackhi_epi16(up01, up23),
        ];
        for (o, v) in o.as_chunks_mut::<16>().0.iter_mut().zip(values) {
            // SAFETY: an array of 16 floats is writable.
            unsafe { _mm512_storeu_ps(o.as_mut_ptr(), _mm512_castsi512_ps(v)) };
        }
    }
    let done = REG * regs.len();
    scalar::look_up(table, &codes[done..], out.get_mut(done..).unwrap_or_default());
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) fn unpack(bits: u32, bytes: &[u8], out: &mut [u8]) {
    let b = bits as usize;
    if !(1..8).contains(&b) {
        return scalar_page::unpack(bits, bytes, out);
    }
    // Eight codes lie in `b` bytes: those go to the front of a word, from which each code is shifted out.
    let place: [u8; REG] = std::array::from_fn(|i| (i / 8 * b + i % 8).min(63) as u8);
    let shift: [u8; REG] = std::array::from_fn(|i| (i % 8 * b) as u8);
    let (place, shift) = (load(&place), load(&shift));
    let low = _mm512_set1_epi8(((1u32 << b) - 1) as i8);
    let mask = u64::MAX >> (REG - 8 * b);
    let (regs, _) = out.as_chunks_mut::<REG>();
    let done = regs.len();
    for (o, packed) in regs.iter_mut().zip(bytes.chunks_exact(8 * b)) {
        // SAFETY: the mask reads the `8 * b` bytes of the chunk only.
        let v = unsafe { _mm512_maskz_loadu_epi8(mask, packed.as_ptr().cast()) };
        let words = _mm512_permutexvar_epi8(place, v);
        store(o, _mm512_and_si512(_mm512_multishift_epi64_epi8(shift, words), low));
    }
    scalar_page::unpack(bits, bytes.get(done * 8 * b..).unwrap_or_default(), &mut out[done * REG..]);
}

/// A kernel that expands 16 floats at a time.
macro_rules! expand_floats {
    ($name:ident, $width:literal, $load:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
        pub(crate) fn $name(bits: &[u8], dense: &[u8], out: &mut [f32]) {
            let (mut at, mut done) = (0, 0);
            for (o, b) in out.as_chunks_mut::<16>().0.iter_mut().zip(bits.as_chunks::<2>().0) {
                let Some(d) = dense.get(at..).and_then(|d| d.first_chunk::<{ 16 * $width }>()) else {
                    break;
                };
                let mask = u16::from_le_bytes(*b);
                let v = $load(d);
                // SAFETY: an array of 16 floats is writable.
                unsafe { _mm512_storeu_ps(o.as_mut_ptr(), _mm512_maskz_expand_ps(mask, v)) };
                at += mask.count_ones() as usize * $width;
                done += 1;
            }
            scalar_page::$name(&bits[2 * done..], &dense[at..], &mut out[16 * done..]);
        }
    };
}

#[target_feature(enable = "avx512f")]
fn load_f16(d: &[u8; 32]) -> __m512 {
    // SAFETY: 32 bytes are readable.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(d.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
fn load_bf16(d: &[u8; 32]) -> __m512 {
    // SAFETY: 32 bytes are readable.
    let v = unsafe { _mm256_loadu_si256(d.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v)))
}

#[target_feature(enable = "avx512f")]
fn load_f32(d: &[u8; 64]) -> __m512 {
    _mm512_castsi512_ps(load(d))
}

expand_floats!(expand_f16, 2, load_f16);
expand_floats!(expand_bf16, 2, load_bf16);
expand_floats!(expand_f32, 4, load_f32);
