//! Pooling of maps: the mean or maximum of σ×σ windows. Windows at the lower and right edge are smaller.
//!
//! Sums run down each column first, then across, so that every kernel adds in the same order and agrees bit for bit.
//!
//! Source: MISTIQUE's `POOL_QT`.

use crate::{MapShape, scheme::Pool, simd};

/// Height and width of the windows for a map of this shape.
pub(crate) fn window(pool: Pool, map: MapShape) -> (usize, usize) {
    match pool {
        Pool::None => (1, 1),
        Pool::Mean(s) | Pool::Max(s) => (s.min(map.h), s.min(map.w)),
        Pool::Whole | Pool::WholeMax => (map.h, map.w),
    }
}

/// Bits of +∞: those of no finite magnitude are as large.
const INFINITE: u32 = 0x7F80_0000;

/// Pools whole maps; appends the stored maps to `out`. `column` is scratch.
///
/// NaN in a window makes the result NaN. A mean is finite whenever its window is.
pub(crate) fn pool(pool: Pool, map: MapShape, maps: &[f32], column: &mut Vec<f32>, out: &mut Vec<f32>) {
    let (wh, ww) = window(pool, map);
    let max = matches!(pool, Pool::Max(_) | Pool::WholeMax);
    if (wh, ww, max) == (2, 2, false) && map.w.is_multiple_of(2) && map.h.is_multiple_of(2) {
        // Maps of whole pairs of rows follow each other like rows of one map.
        let from = out.len();
        out.resize(from + maps.len() / 4, 0.0);
        simd::mean_2x2(maps, map.w, &mut out[from..]);
        let stored = map.cells() / 4;
        if simd::max_abs_bits(&out[from..]) >= INFINITE {
            maps.chunks_exact(map.cells())
                .zip(out[from..].chunks_exact_mut(stored))
                .for_each(|(one, pooled)| repair(one, map, (wh, ww), pooled));
        }
        return;
    }
    column.resize(map.w, 0.0);
    for one in maps.chunks_exact(map.cells()) {
        let from = out.len();
        for rows in one.chunks(wh * map.w) {
            let (first, rest) = rows.split_at(map.w);
            column.copy_from_slice(first);
            for row in rest.chunks_exact(map.w) {
                if max {
                    simd::max_into(column, row);
                } else {
                    simd::add_into(column, row);
                }
            }
            let h = rows.len() / map.w;
            out.extend(column.chunks(ww).map(|c| {
                if max {
                    c[1..].iter().fold(c[0], |m, &x| simd::max_nan(m, x))
                } else {
                    c[1..].iter().fold(c[0], |s, &x| s + x) * (1.0 / (h * c.len()) as f32)
                }
            }));
        }
        if !max {
            repair(one, map, (wh, ww), &mut out[from..]);
        }
    }
}

/// A sum of finite values may overflow where their mean does not: those means are taken again in f64.
fn repair(one: &[f32], map: MapShape, (wh, ww): (usize, usize), pooled: &mut [f32]) {
    if simd::max_abs_bits(pooled) < INFINITE {
        return;
    }
    let stored_w = map.w.div_ceil(ww);
    for (i, p) in pooled.iter_mut().enumerate().filter(|(_, p)| !p.is_finite()) {
        let (r0, c0) = (i / stored_w * wh, i % stored_w * ww);
        let (r1, c1) = ((r0 + wh).min(map.h), (c0 + ww).min(map.w));
        let sum: f64 = (r0..r1).flat_map(|r| &one[r * map.w + c0..r * map.w + c1]).map(|&x| f64::from(x)).sum();
        *p = (sum / ((r1 - r0) * (c1 - c0)) as f64) as f32;
    }
}
