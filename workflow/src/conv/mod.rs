//! Convolution on the CPU, faster than the tensor library's own: matrices made for a cache-sized block of images,
//! multiplied, and written back with bias and ReLU in one pass; blocks run in parallel.
//!
//! A row's result does not depend on the batch that it came in, nor on the number of threads.

use candle_core::{Result, Storage, Tensor};

mod im2col;
mod product;
mod training;
mod winograd;

pub(crate) use training::TrainedConv;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) channels: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) out: usize,
    pub(crate) out_h: usize,
    pub(crate) out_w: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
}

impl Geometry {
    fn image_len(&self) -> usize {
        self.channels * self.h * self.w
    }

    fn out_len(&self) -> usize {
        self.out * self.out_h * self.out_w
    }
}

/// Which algorithm runs this geometry. Below eight channels the transforms cost more than they save.
fn use_winograd(g: &Geometry) -> bool {
    g.kernel == 3 && g.stride == 1 && g.dilation == 1 && g.groups == 1 && g.channels >= 8 && g.out >= 8
}

/// The weights `[out, channels/groups, kernel, kernel]` in the layout of the algorithm that runs `g`.
pub(crate) fn pack(g: &Geometry, weight: &Tensor) -> Result<Tensor> {
    if use_winograd(g) { winograd::pack(g, weight) } else { im2col::pack(g, weight) }
}

/// The convolution of a batch `[n, channels, h, w]` on the CPU, plus bias, through a ReLU if asked.
///
/// Shape: `[n, out, out_h, out_w]`. `packed` is of [`pack`].
pub(crate) fn forward(g: &Geometry, x: &Tensor, packed: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let n = x.dim(0)?;
    let bias = match bias {
        Some(bias) => bias.to_vec1::<f32>()?,
        None => vec![0.0; g.out],
    };
    let out = cpu_values(x, |x| forward_values(g, x, packed, &Finish { bias: &bias, relu }))??;
    Tensor::from_vec(out, (n, g.out, g.out_h, g.out_w), x.device())
}

fn forward_values(g: &Geometry, x: &[f32], packed: &Tensor, finish: &Finish) -> Result<Vec<f32>> {
    let mut out = vec![0f32; x.len() / g.image_len() * g.out_len()];
    if out.is_empty() {
        return Ok(out);
    }
    if use_winograd(g) {
        winograd::forward(g, x, packed, finish, &mut out)?;
    } else {
        im2col::forward(g, x, packed, finish, &mut out)?;
    }
    Ok(out)
}

/// Images in a block, of at most `most` and of `n` in all: as many blocks for each thread, of about the same size.
fn block_images(most: usize, n: usize) -> usize {
    let n_blocks = n.div_ceil(most.max(1)).next_multiple_of(rayon::current_num_threads());
    n.div_ceil(n_blocks).max(1)
}

/// Columns to multiply for `n` of them, in whole vectors.
///
/// The matrix product takes another path, with another order of summation, for fewer than two columns, and for at most
/// 64 columns and 64 rows of more than 512 terms; padding past those limits keeps a row's result independent of its
/// batch.
fn padded_columns(n: usize, out: usize, depth: usize) -> usize {
    let least = if out <= 64 && depth > 512 { 80 } else { 16 };
    n.next_multiple_of(16).max(least)
}

/// What happens to each value before it is written.
struct Finish<'a> {
    bias: &'a [f32],
    relu: bool,
}

impl Finish<'_> {
    /// The lower bound of the output.
    fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// `max(value, floor)` that keeps NaN, as ReLU does elsewhere.
#[inline(always)]
fn at_least(value: f32, floor: f32) -> f32 {
    if value < floor { floor } else { value }
}

/// Calls `f` with the values of a tensor that lies on the CPU, copied only if they are not contiguous.
pub(crate) fn cpu_values<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let not_here = || candle_core::Error::Msg("expected contiguous f32 values on the CPU".into());
    match &*storage {
        Storage::Cpu(storage) => {
            let (start, end) = layout.contiguous_offsets().ok_or_else(not_here)?;
            Ok(f(storage.as_slice::<f32>()?.get(start..end).ok_or_else(not_here)?))
        }
        _ => Err(not_here()),
    }
}

#[cfg(test)]
mod tests;
