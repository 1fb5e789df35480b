//! The kernels in plain Rust: the meaning that the others are tested against.

use half::{bf16, f16};

/// Larger of two; NaN if either is.
#[inline(always)]
pub(crate) fn max_nan(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

#[inline(always)]
pub(crate) fn max_into(acc: &mut [f32], row: &[f32]) {
    for (a, &b) in acc.iter_mut().zip(row) {
        *a = max_nan(*a, b);
    }
}

#[inline(always)]
pub(crate) fn add_into(acc: &mut [f32], row: &[f32]) {
    for (a, &b) in acc.iter_mut().zip(row) {
        *a += b;
    }
}

/// Means of 2×2 windows of rows of `w` values, which are taken in pairs. The width stays unknown to the compiler, which
/// unrolls short rows, and leaves them to single values, where it knows it.
#[inline(always)]
pub(crate) fn mean_2x2(rows: &[f32], w: usize, out: &mut [f32]) {
    for (pair, out) in rows.chunks_exact((2 * w).max(1)).zip(out.chunks_exact_mut((w / 2).max(1))) {
        let (top, bottom) = pair.split_at(w);
        let windows = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
        for (([a, b], [c, d]), o) in windows.zip(out) {
            *o = ((a + c) + (b + d)) * 0.25;
        }
    }
}

/// Largest magnitude as bits; at or above 0x7F80_0000 where a value is not finite. 0 if empty.
#[inline(always)]
pub(crate) fn max_abs_bits(v: &[f32]) -> u32 {
    v.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7FFF_FFFF))
}

#[inline(always)]
pub(crate) fn f32_to_f16(v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out.as_chunks_mut::<2>().0) {
        *o = f16::from_f32_const(*x).to_le_bytes();
    }
}

#[inline(always)]
pub(crate) fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *o = f16::from_le_bytes(*b).to_f32_const();
    }
}

#[inline(always)]
pub(crate) fn f32_to_bf16(v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out.as_chunks_mut::<2>().0) {
        *o = bf16::from_f32_const(*x).to_le_bytes();
    }
}

#[inline(always)]
pub(crate) fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    }
}

#[inline(always)]
pub(crate) fn f32_to_bytes(v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out.as_chunks_mut::<4>().0) {
        *o = x.to_le_bytes();
    }
}

#[inline(always)]
pub(crate) fn bytes_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *o = f32::from_le_bytes(*b);
    }
}

#[inline(always)]
pub(crate) fn f32_to_f64(v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out.as_chunks_mut::<8>().0) {
        *o = f64::from(*x).to_le_bytes();
    }
}

#[inline(always)]
pub(crate) fn f64_to_f32(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<8>().0.iter().zip(out) {
        *o = f64::from_le_bytes(*b) as f32;
    }
}

#[inline(always)]
pub(crate) fn greater(v: &[f32], t: f32, out: &mut [u8]) {
    for (x, o) in v.iter().zip(out) {
        *o = u8::from(*x > t);
    }
}

/// Codes by the top 16 bits.
#[inline(always)]
pub(crate) fn table_16(table: &[u8; 1 << 16], v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out) {
        *o = table[(x.to_bits() >> 16) as usize];
    }
}

/// Codes by the top 18 bits.
#[inline(always)]
pub(crate) fn table_18(table: &[u8; 1 << 18], v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out) {
        *o = table[(x.to_bits() >> 14) as usize];
    }
}

/// As [`table_16`], where up to `passes` edges lie inside a cell: `edges[c]` is the one above code c.
#[inline(always)]
pub(crate) fn table_16_edges(table: &[u8; 1 << 16], edges: &[f32; 256], passes: usize, v: &[f32], out: &mut [u8]) {
    for (x, o) in v.iter().zip(out) {
        let mut code = table[(x.to_bits() >> 16) as usize];
        for _ in 0..passes {
            code = code.wrapping_add(u8::from(edges[usize::from(code)] <= *x));
        }
        *o = code;
    }
}

/// Representatives of codes.
#[inline(always)]
pub(crate) fn look_up(table: &[f32; 256], codes: &[u8], out: &mut [f32]) {
    for (c, o) in codes.iter().zip(out) {
        *o = table[usize::from(*c)];
    }
}

/// Lanes of [`Sums`], so that every kernel adds in the same order.
pub(crate) const LANES: usize = 16;

/// Error sums of approximations against values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    pub n: u64,
    pub sq_err: f64,
    pub max_abs: f64,
    pub sq: f64,
}

/// Error sums; pairs with a value or approximation that is not finite count for nothing.
#[inline(always)]
pub(crate) fn error_sums(v: &[f32], approx: &[f32]) -> Sums {
    let mut n = [0u32; LANES];
    let mut max = [0f32; LANES];
    let (mut sq_err, mut sq) = ([0f64; LANES], [0f64; LANES]);
    let mut step = |v: &[f32; LANES], a: &[f32; LANES]| {
        for i in 0..LANES {
            let ok = v[i].abs() < f32::INFINITY && a[i].abs() < f32::INFINITY;
            let x = if ok { v[i] } else { 0.0 };
            let y = if ok { a[i] } else { 0.0 };
            let e = f64::from(x) - f64::from(y);
            n[i] += u32::from(ok);
            // The largest error is kept in f32; a difference of f32s that rounds up stays an upper bound within 2^-24.
            let m = (e as f32).abs();
            max[i] = if m > max[i] { m } else { max[i] };
            sq_err[i] += e * e;
            sq[i] += f64::from(x) * f64::from(x);
        }
    };
    let ((vs, v_tail), (aps, a_tail)) = (v.as_chunks::<LANES>(), approx.as_chunks::<LANES>());
    for (v, a) in vs.iter().zip(aps) {
        step(v, a);
    }
    let (mut v_last, mut a_last) = ([f32::NAN; LANES], [0f32; LANES]);
    v_last[..v_tail.len()].copy_from_slice(v_tail);
    a_last[..a_tail.len()].copy_from_slice(a_tail);
    step(&v_last, &a_last);
    Sums {
        n: n.iter().map(|&n| u64::from(n)).sum(),
        sq_err: sq_err.iter().sum(),
        max_abs: f64::from(max.iter().fold(0f32, |a, &b| a.max(b))),
        sq: sq.iter().sum(),
    }
}

/// 1.0 for every code but 0.
#[inline(always)]
pub(crate) fn bits_to_f32(codes: &[u8], out: &mut [f32]) {
    for (c, o) in codes.iter().zip(out) {
        *o = if *c == 0 { 0.0 } else { 1.0 };
    }
}
