//! Any convolution as a matrix product: each output cell's window is a column.

use candle_core::{Result, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::product::{multiply, threads, with_buffers};
use super::{Finish, Geometry, at_least, cpu_values, padded_columns};

/// Aim for blocks whose column matrix holds about this many values (2 MiB).
const BLOCK_VALUES: usize = 512 * 1024;

/// Images in a block when one has `depth` rows in its column matrix.
pub(super) fn images_per_block(g: &Geometry, depth: usize) -> usize {
    (BLOCK_VALUES / (depth * g.out_h * g.out_w).max(1)).max(1)
}

/// The weights as `[groups, out/groups, channels/groups · kernel²]`.
pub(super) fn pack(g: &Geometry, weight: &Tensor) -> Result<Tensor> {
    weight.reshape((g.groups, g.out / g.groups, ()))?.contiguous()
}

pub(super) fn forward(g: &Geometry, x: &[f32], packed: &Tensor, finish: &Finish, out: &mut [f32]) -> Result<()> {
    let depth = packed.dim(2)?;
    let images = super::block_images(images_per_block(g, depth), x.len() / g.image_len());
    let threads = threads((x.len() / g.image_len()).div_ceil(images));
    cpu_values(packed, |packed| {
        out.par_chunks_mut(images * g.out_len())
            .zip(x.par_chunks(images * g.image_len()))
            .for_each(|(out, x)| block(g, x, packed, depth, (finish, threads), out));
    })
}

/// The images `x`, group by group.
fn block(
    g: &Geometry,
    x: &[f32],
    packed: &[f32],
    depth: usize,
    (finish, threads): (&Finish, Parallelism),
    out: &mut [f32],
) {
    let n = x.len() / g.image_len();
    let cells = g.out_h * g.out_w;
    let group_out = g.out / g.groups;
    let width = padded_columns(n * cells, group_out, depth);
    for (group, weights) in packed.chunks_exact(group_out * depth).enumerate() {
        with_buffers([depth * width, group_out * width], |columns, product| {
            // Windows that reach over the edge leave out cells, which are zeros.
            columns.fill(0.0);
            fill(g, x, group, columns, width);
            multiply([group_out, depth, width], weights, columns, product, threads);
            for (o, row) in product.chunks_exact(width).enumerate() {
                let channel = group * group_out + o;
                let (bias, floor) = (finish.bias[channel], finish.floor());
                for (image, cells_in) in row.chunks_exact(cells).take(n).enumerate() {
                    let start = image * g.out_len() + channel * cells;
                    for (to, from) in out[start..start + cells].iter_mut().zip(cells_in) {
                        *to = at_least(from + bias, floor);
                    }
                }
            }
        });
    }
}

/// Writes the windows of one group's channels: a row per (channel, ky, kx), a column per (image, y, x).
pub(super) fn fill(g: &Geometry, x: &[f32], group: usize, columns: &mut [f32], width: usize) {
    let channels = g.channels / g.groups;
    let taps = (0..channels).flat_map(|c| (0..g.kernel).flat_map(move |ky| (0..g.kernel).map(move |kx| (c, ky, kx))));
    for (row, (c, ky, kx)) in columns.chunks_exact_mut(width).zip(taps) {
        for (image, to) in x.chunks_exact(g.image_len()).zip(row.chunks_exact_mut(g.out_h * g.out_w)) {
            let start = (group * channels + c) * g.h * g.w;
            let map = &image[start..start + g.h * g.w];
            for (y, to) in to.chunks_exact_mut(g.out_w).enumerate() {
                let Some(from_y) = (y * g.stride + ky * g.dilation).checked_sub(g.padding) else { continue };
                if from_y >= g.h {
                    continue;
                }
                copy_row(g, &map[from_y * g.w..][..g.w], kx * g.dilation, to);
            }
        }
    }
}

/// One output row's cells of one tap: `to[x] = from[x·stride + offset − padding]`, zero where that lies outside.
fn copy_row(g: &Geometry, from: &[f32], offset: usize, to: &mut [f32]) {
    let first = g.padding.saturating_sub(offset).div_ceil(g.stride).min(to.len());
    let end = (g.w + g.padding).saturating_sub(offset).div_ceil(g.stride).clamp(first, to.len());
    if first == end {
        return;
    }
    let start = first * g.stride + offset - g.padding;
    if g.stride == 1 {
        to[first..end].copy_from_slice(&from[start..start + end - first]);
    } else {
        for (to, from) in to[first..end].iter_mut().zip(from[start..].iter().step_by(g.stride)) {
            *to = *from;
        }
    }
}
