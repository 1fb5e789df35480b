//! `max_pool` and `avg_pool`: square windows over maps. As in PyTorch, windows that do not fit are left out, and
//! padding counts as zeros in an average and never wins a maximum.

use std::collections::BTreeMap;

use candle_core::Tensor;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Expected, Kind, Op, OpError, Step, as_map, only, windows};
use crate::conv::cpu_values;
use crate::error::NetworkError;
use crate::parse::Fields;

pub(crate) const MAX_POOL: Kind = Kind { name: "max_pool", version: 1, parse: |fields| Pool::parse(fields, true) };
pub(crate) const AVG_POOL: Kind = Kind { name: "avg_pool", version: 1, parse: |fields| Pool::parse(fields, false) };

#[derive(Debug)]
struct Pool {
    max: bool,
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Pool {
    fn parse(fields: &mut Fields, max: bool) -> Result<Box<dyn Op>, NetworkError> {
        let kernel = fields.size("kernel")?;
        let stride = fields.size_opt("stride")?.unwrap_or(kernel);
        let padding = fields.count_or("padding", 0)?;
        if padding > kernel / 2 {
            return Err(fields.bad("padding", format!("at most half the kernel ({})", kernel / 2), &json!(padding)));
        }
        Ok(Box::new(Pool { max, kernel, stride, padding }))
    }

    /// The pooled map of one channel, tap by tap over whole rows.
    fn channel(&self, map: &[f32], [h, w]: [usize; 2], out: &mut [f32], out_w: usize) {
        let area = (self.kernel * self.kernel) as f32;
        for (i, row) in out.chunks_exact_mut(out_w).enumerate() {
            row.fill(if self.max { f32::NEG_INFINITY } else { 0.0 });
            for dy in 0..self.kernel {
                let Some(y) = (i * self.stride + dy).checked_sub(self.padding).filter(|&y| y < h) else { continue };
                let from = &map[y * w..][..w];
                if self.max && self.kernel == 2 && self.stride == 2 && self.padding == 0 {
                    for (value, pair) in row.iter_mut().zip(from.as_chunks::<2>().0) {
                        *value = larger(*value, larger(pair[0], pair[1]));
                    }
                    continue;
                }
                for dx in 0..self.kernel {
                    let (first, end) = self.inside(dx, w, out_w);
                    let Some(start) = (first * self.stride + dx).checked_sub(self.padding) else { continue };
                    let from = from.get(start..).unwrap_or_default().iter().step_by(self.stride);
                    for (value, cell) in row[first..end].iter_mut().zip(from) {
                        *value = if self.max { larger(*value, *cell) } else { *value + *cell };
                    }
                }
            }
            if !self.max {
                row.iter_mut().for_each(|value| *value /= area);
            }
        }
    }

    /// The outputs of a row whose tap `dx` lies inside an input row of `w` cells.
    fn inside(&self, dx: usize, w: usize, out_w: usize) -> (usize, usize) {
        let first = self.padding.saturating_sub(dx).div_ceil(self.stride).min(out_w);
        let end = (w + self.padding).saturating_sub(dx).div_ceil(self.stride).clamp(first, out_w);
        (first, end)
    }

    fn on_cpu(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        let (out_h, out_w) = self.output_size(h, w)?;
        let mut out = vec![0f32; n * c * out_h * out_w];
        if !out.is_empty() {
            cpu_values(x, |values| {
                out.par_chunks_mut(out_h * out_w)
                    .zip(values.par_chunks(h * w))
                    .with_min_len(16)
                    .for_each(|(out, map)| self.channel(map, [h, w], out, out_w));
            })?;
        }
        Tensor::from_vec(out, (n, c, out_h, out_w), x.device())
    }

    fn output_size(&self, h: usize, w: usize) -> candle_core::Result<(usize, usize)> {
        let size = |len| windows(len, self.kernel, self.stride, self.padding);
        size(h).zip(size(w)).ok_or_else(|| candle_core::Error::Msg("the pooling window does not fit".into()))
    }

    /// The same by tensor operations: differentiable, and on any device.
    fn by_tensors(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let exact = self.kernel == self.stride && h % self.kernel == 0 && w % self.kernel == 0;
        if exact && self.padding == 0 {
            return if self.max { x.max_pool2d(self.kernel) } else { x.avg_pool2d(self.kernel) };
        }
        let (out_h, out_w) = self.output_size(h, w)?;
        let fill = if self.max { f32::NEG_INFINITY } else { 0.0 };
        let padded = pad(&pad(x, 2, self.padding, fill)?, 3, self.padding, fill)?;
        let picks = |n: usize, offset: usize| {
            let at: Vec<u32> = (0..n).map(|i| (i * self.stride + offset) as u32).collect();
            Tensor::from_vec(at, n, x.device())
        };
        let mut result: Option<Tensor> = None;
        for dy in 0..self.kernel {
            let rows = padded.index_select(&picks(out_h, dy)?, 2)?;
            for dx in 0..self.kernel {
                let cell = rows.index_select(&picks(out_w, dx)?, 3)?;
                result = Some(match result {
                    None => cell,
                    Some(so_far) if self.max => so_far.maximum(&cell)?,
                    Some(so_far) => (so_far + cell)?,
                });
            }
        }
        let result = result.ok_or_else(|| candle_core::Error::Msg("an empty pooling window".into()))?;
        if self.max { Ok(result) } else { result / (self.kernel * self.kernel) as f64 }
    }
}

/// The larger value; NaN wins, as in PyTorch.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// `x` with `by` cells of `value` before and after it along `axis`.
fn pad(x: &Tensor, axis: usize, by: usize, value: f32) -> candle_core::Result<Tensor> {
    if by == 0 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[axis] = by;
    let margin = Tensor::full(value, shape, x.device())?;
    Tensor::cat(&[&margin, x, &margin], axis)
}

impl Op for Pool {
    fn kind(&self) -> &'static str {
        if self.max { MAX_POOL.name } else { AVG_POOL.name }
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([
            ("kernel", json!(self.kernel)),
            ("stride", json!(self.stride)),
            ("padding", json!(self.padding)),
        ])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let [c, h, w] = as_map(&inputs.concat())?;
        let size = |len| windows(len, self.kernel, self.stride, self.padding);
        match size(h).zip(size(w)) {
            Some((h, w)) => Ok(vec![c, h, w]),
            None => Expected::err(format!("a map of at least {0}×{0} with its padding", self.kernel)),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        Ok(if x.device().is_cpu() { self.on_cpu(x)? } else { self.by_tensors(x)? })
    }

    fn train(&self, inputs: &[&Tensor], _params: &[Tensor], _step: &mut Step) -> Result<Tensor, OpError> {
        Ok(self.by_tensors(only(inputs)?)?)
    }
}
