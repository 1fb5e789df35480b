//! Kernels on slices: each has a form in plain Rust, and faster ones that agree with it bit for bit, chosen at run
//! time so that one binary serves every machine.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod scalar;
pub(crate) mod scalar_huffman;
pub(crate) mod scalar_page;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use crate::Code;
use crate::page::TABLE;
use crate::stats::{self, PageStats};

pub(crate) use scalar::{Sums, max_nan};

/// What the machine can do.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Scalar,
    Avx2,
    Avx512,
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn level() -> Level {
    use std::sync::LazyLock;
    static LEVEL: LazyLock<Level> = LazyLock::new(|| {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("movbe");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2");
        match (avx2, avx512) {
            (true, true) => Level::Avx512,
            (true, false) => Level::Avx2,
            _ => Level::Scalar,
        }
    });
    *LEVEL
}

/// Functions that run the best form of a kernel.
macro_rules! kernels {
    ($($plain:ident: fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[inline]
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            match level() {
                // SAFETY: `level` found every feature that the module's functions are compiled for.
                Level::Avx512 => return unsafe { avx512::$name($($arg),*) },
                // SAFETY: as above.
                Level::Avx2 => return unsafe { avx2::$name($($arg),*) },
                Level::Scalar => {}
            }
            $plain::$name($($arg),*)
        }
    )*};
}

kernels! {
    stats: fn range_of(code: Code, codes: &[u8]) -> PageStats;
    scalar: fn max_into(acc: &mut [f32], row: &[f32]);
    scalar: fn add_into(acc: &mut [f32], row: &[f32]);
    scalar: fn mean_2x2(rows: &[f32], w: usize, out: &mut [f32]);
    scalar: fn max_abs_bits(v: &[f32]) -> u32;
    scalar: fn f32_to_f16(v: &[f32], out: &mut [u8]);
    scalar: fn f16_to_f32(bytes: &[u8], out: &mut [f32]);
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
