//! 3×3 convolutions of stride 1 by Winograd's F(2×2, 3×3): each 2×2 tile of the output takes 16 products per
//! channel instead of 36.
//!
//! Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1. With tiles d of
//! 4×4 inputs that overlap by two, Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A; the sum over channels of the elementwise product
//! is a matrix product for each of the 16 places. F(2×2) rounds about as plain summation does; the larger F(4×4)
//! would save more but lose two digits.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::product::{multiply, threads, with_buffers};
use super::{Finish, Geometry, at_least, cpu_values, padded_columns};

/// Values in a 4×4 input tile.
const PLACES: usize = 16;

/// Aim for blocks whose transformed input and output hold about this many values (3 MiB).
const BLOCK_VALUES: usize = 768 * 1024;

/// The transformed weights G g Gᵀ, `[16, out, channels]`.
pub(super) fn pack(g: &Geometry, weight: &Tensor) -> Result<Tensor> {
    let mut packed = vec![0f32; PLACES * g.out * g.channels];
    cpu_values(weight, |weight| {
        for (pair, taps) in weight.chunks_exact(9).enumerate() {
            let mut rows = [[0f32; 3]; 4];
            for j in 0..3 {
                let (a, b, c) = (taps[j], taps[3 + j], taps[6 + j]);
                rows[0][j] = a;
                rows[1][j] = (a + b + c) / 2.0;
                rows[2][j] = (a - b + c) / 2.0;
                rows[3][j] = c;
            }
            for (i, [a, b, c]) in rows.into_iter().enumerate() {
                for (j, value) in [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c].into_iter().enumerate() {
                    packed[(i * 4 + j) * g.out * g.channels + pair] = value;
                }
            }
        }
    })?;
    Tensor::from_vec(packed, (PLACES, g.out, g.channels), &Device::Cpu)
}

/// How a block of images is cut into tiles.
struct Tiling {
    /// Tiles down and across one map.
    down: usize,
    across: usize,
    /// Row length of the matrices: all tiles of the block, rounded up to whole vectors.
    width: usize,
}

pub(super) fn forward(g: &Geometry, x: &[f32], packed: &Tensor, finish: &Finish, out: &mut [f32]) -> Result<()> {
    let (down, across) = (g.out_h.div_ceil(2), g.out_w.div_ceil(2));
    let per_image = PLACES * (g.channels + g.out) * down * across;
    let images = super::block_images(BLOCK_VALUES / per_image, x.len() / g.image_len());
    let threads = threads((x.len() / g.image_len()).div_ceil(images));
    cpu_values(packed, |packed| {
        out.par_chunks_mut(images * g.out_len()).zip(x.par_chunks(images * g.image_len())).for_each(|(out, x)| {
            let tiles = x.len() / g.image_len() * down * across;
            let width = padded_columns(tiles, g.out, g.channels);
            let tiling = Tiling { down, across, width };
            with_buffers([PLACES * g.channels * width, PLACES * g.out * width], |input, product| {
                transform_input(g, x, &tiling, input);
                let inputs = input.chunks_exact(g.channels * width);
                let places = packed.chunks_exact(g.out * g.channels).zip(inputs);
                for ((weights, input), product) in places.zip(product.chunks_exact_mut(g.out * width)) {
                    multiply([g.out, g.channels, width], weights, input, product, threads);
                }
                transform_output(g, product, &tiling, finish, out);
            });
        });
    })
}

/// Bᵀ d B of every tile: `to` is `[16, channels, width]`.
fn transform_input(g: &Geometry, x: &[f32], t: &Tiling, to: &mut [f32]) {
    let padded_w = 2 * t.across + 2;
    let padded_h = 2 * t.down + 2;
    let mut padded = vec![0f32; padded_h * padded_w];
    let mut tiles = vec![0f32; PLACES * t.width];
    let rows = (padded_h - g.padding.min(padded_h)).min(g.h);
    let cols = (padded_w - g.padding.min(padded_w)).min(g.w);
    for c in 0..g.channels {
        for (i, image) in x.chunks_exact(g.image_len()).enumerate() {
            let map = &image[c * g.h * g.w..][..g.h * g.w];
            for y in 0..rows {
                padded[(y + g.padding) * padded_w + g.padding..][..cols].copy_from_slice(&map[y * g.w..][..cols]);
            }
            for ty in 0..t.down {
                let first = (i * t.down + ty) * t.across;
                for (dy, row) in padded[2 * ty * padded_w..].chunks(padded_w).take(4).enumerate() {
                    deinterleave(row, dy, first, t, &mut tiles);
                }
            }
        }
        combine_input(&tiles, c, g.channels, t.width, to);
    }
}

/// Writes the four columns of a tile row's cells: place (dy, dx) of tile k is `row[2k + dx]`.
fn deinterleave(row: &[f32], dy: usize, first: usize, t: &Tiling, tiles: &mut [f32]) {
    let pairs = row.as_chunks::<2>().0;
    let places = &mut tiles[dy * 4 * t.width..][..4 * t.width];
    let (left, right) = places.split_at_mut(2 * t.width);
    for (half, pairs) in [(left, pairs), (right, pairs.get(1..).unwrap_or_default())] {
        let (even, odd) = half.split_at_mut(t.width);
        let (even, odd) = (&mut even[first..][..t.across], &mut odd[first..][..t.across]);
        for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
            [*even, *odd] = *pair;
        }
    }
}

/// The sixteen sums of one channel's tiles.
fn combine_input(tiles: &[f32], c: usize, channels: usize, width: usize, to: &mut [f32]) {
    for start in (0..width).step_by(16) {
        let mut d = [[0f32; 16]; PLACES];
        for (d, row) in d.iter_mut().zip(tiles.chunks_exact(width)) {
            d.copy_from_slice(&row[start..start + 16]);
        }
        let mut r = [[0f32; 16]; PLACES];
        for j in 0..4 {
            for k in 0..16 {
                r[j][k] = d[j][k] - d[8 + j][k];
                r[4 + j][k] = d[4 + j][k] + d[8 + j][k];
                r[8 + j][k] = d[8 + j][k] - d[4 + j][k];
                r[12 + j][k] = d[4 + j][k] - d[12 + j][k];
            }
        }
        for i in 0..4 {
            let [mut a, mut b, mut p, mut q] = [[0f32; 16]; 4];
            for k in 0..16 {
                a[k] = r[4 * i][k] - r[4 * i + 2][k];
                b[k] = r[4 * i + 1][k] + r[4 * i + 2][k];
                p[k] = r[4 * i + 2][k] - r[4 * i + 1][k];
                q[k] = r[4 * i + 1][k] - r[4 * i + 3][k];
            }
            for (j, values) in [a, b, p, q].iter().enumerate() {
                to[((4 * i + j) * channels + c) * width + start..][..16].copy_from_slice(values);
            }
        }
    }
}

/// Aᵀ m A of every tile, plus bias and ReLU, into the maps: `product` is `[16, out, width]`.
fn transform_output(g: &Geometry, product: &[f32], t: &Tiling, finish: &Finish, out: &mut [f32]) {
    let floor = finish.floor();
    let mut cells = vec![0f32; 4 * t.width];
    for (o, &bias) in finish.bias.iter().enumerate() {
        combine_output(product, o, g.out, t.width, bias, floor, &mut cells);
        for (i, image) in out.chunks_exact_mut(g.out_len()).enumerate() {
            let map = &mut image[o * g.out_h * g.out_w..][..g.out_h * g.out_w];
            for (y, row) in map.chunks_exact_mut(g.out_w).enumerate() {
                let first = (i * t.down + y / 2) * t.across;
                let left = &cells[2 * (y % 2) * t.width + first..][..t.across];
                let right = &cells[(2 * (y % 2) + 1) * t.width + first..][..t.across];
                let (pairs, last) = row.as_chunks_mut::<2>();
                for ((pair, left), right) in pairs.iter_mut().zip(left).zip(right) {
                    *pair = [*left, *right];
                }
                if let ([cell], Some(left)) = (last, left.last()) {
                    *cell = *left;
                }
            }
        }
    }
}

/// The four output cells of every tile of channel `o`: `cells` is `[4, width]`.
fn combine_output(product: &[f32], o: usize, out: usize, width: usize, bias: f32, floor: f32, cells: &mut [f32]) {
    for start in (0..width).step_by(16) {
        let mut s = [[0f32; 16]; 8];
        for j in 0..4 {
            let m = |i: usize| &product[((4 * i + j) * out + o) * width + start..][..16];
            let (m0, m1, m2, m3) = (m(0), m(1), m(2), m(3));
            for k in 0..16 {
                s[j][k] = m0[k] + m1[k] + m2[k];
                s[4 + j][k] = m1[k] - m2[k] - m3[k];
            }
        }
        for i in 0..2 {
            let [mut left, mut right] = [[0f32; 16]; 2];
            for k in 0..16 {
                left[k] = at_least(s[4 * i][k] + s[4 * i + 1][k] + s[4 * i + 2][k] + bias, floor);
                right[k] = at_least(s[4 * i + 1][k] - s[4 * i + 2][k] - s[4 * i + 3][k] + bias, floor);
            }
            cells[2 * i * width + start..][..16].copy_from_slice(&left);
            cells[(2 * i + 1) * width + start..][..16].copy_from_slice(&right);
        }
    }
}
