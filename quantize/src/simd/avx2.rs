//! The kernels for AVX2 with F16C: mostly the plain ones, compiled for wider registers.

use std::arch::x86_64::{
    _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_loadu_ps,
    _mm256_storeu_ps,
};

use super::{Sums, scalar, scalar_huffman, scalar_page};
use crate::Code;
use crate::page::TABLE;
use crate::stats::{self, PageStats};

macro_rules! recompiled {
    ($($plain:ident: fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[target_feature(enable = "avx2,f16c,bmi1,bmi2,popcnt,lzcnt,movbe")]
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
    scalar: fn look_up(table: &[f32; 256], codes: &[u8], out: &mut [f32]);
    scalar: fn error_sums(v: &[f32], approx: &[f32]) -> Sums;
    scalar_page: fn compress(width: usize, codes: &[u8], fill: u8, bits: &mut [u8], dense: &mut [u8]) -> usize;
    scalar_page: fn expand(width: usize, bits: &[u8], dense: &[u8], fill: u8, out: &mut [u8]);
    scalar_page: fn expand_f16(bits: &[u8], dense: &[u8], out: &mut [f32]);
    scalar_page: fn expand_bf16(bits: &[u8], dense: &[u8], out: &mut [f32]);
    scalar_page: fn expand_f32(bits: &[u8], dense: &[u8], out: &mut [f32]);
    scalar_page: fn to_planes(width: usize, rotation: u32, codes: &[u8], planes: &mut [u8]);
    scalar_page: fn from_planes(width: usize, rotation: u32, planes: &[u8], codes: &mut [u8]);
    scalar_page: fn unpack(bits: u32, bytes: &[u8], out: &mut [u8]);
    scalar_huffman: fn fill_table(order: &[(u8, u8)], entries: &mut [u16]);
    scalar_huffman: fn huffman_streams(n: usize, bytes: &[u8], bounds: &[usize; 5], table: &[u16; TABLE], out: &mut [u8]) -> bool;
    scalar_huffman: fn model_streams(bytes: &[u8], bounds: &[usize], table: &[u16], out: &mut [u8]) -> bool;
}

#[target_feature(enable = "avx2,f16c")]
pub(crate) fn f32_to_f16(v: &[f32], out: &mut [u8]) {
    let ((vs, v_tail), (outs, out_tail)) = (v.as_chunks::<8>(), out.as_chunks_mut::<16>());
    for (x, o) in vs.iter().zip(outs) {
        // SAFETY: an array of 8 floats is readable, one of 16 bytes writable.
        unsafe {
            let h = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
            _mm_storeu_si128(o.as_mut_ptr().cast(), h);
        }
    }
    scalar::f32_to_f16(v_tail, out_tail);
}

#[target_feature(enable = "avx2,f16c")]
pub(crate) fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    let (outs, out_tail) = out.as_chunks_mut::<8>();
    let done = 16 * outs.len();
    for (b, o) in bytes.as_chunks::<16>().0.iter().zip(outs) {
        // SAFETY: an array of 16 bytes is readable, one of 8 floats writable.
        unsafe { _mm256_storeu_ps(o.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(b.as_ptr().cast()))) };
    }
    scalar::f16_to_f32(bytes.get(done..).unwrap_or_default(), out_tail);
}
