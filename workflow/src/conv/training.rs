//! A convolution with its gradients, for training on the CPU.

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Finish, Geometry, cpu_values, forward_values, im2col, pack};

/// The convolution of (maps, weights `[out, channels, kernel, kernel]`, bias), through a ReLU if asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrainedConv {
    geometry: Geometry,
    relu: bool,
}

impl TrainedConv {
    /// The operation, or `None` for strides, dilations, groups and paddings whose gradients it does not know.
    pub(crate) fn new(geometry: Geometry, relu: bool) -> Option<Self> {
        let g = &geometry;
        let known = g.stride == 1 && g.dilation == 1 && g.groups == 1 && g.padding < g.kernel;
        known.then_some(Self { geometry, relu })
    }

    /// The gradient before the ReLU, where the output is positive.
    fn through_relu(&self, output: &Tensor, gradient: &Tensor) -> Result<Vec<f32>> {
        let mut gradient = cpu_values(gradient, <[f32]>::to_vec)?;
        if self.relu {
            cpu_values(output, |output| {
                gradient.par_iter_mut().zip(output).with_min_len(4096).for_each(|(g, y)| {
                    if *y <= 0.0 {
                        *g = 0.0;
                    }
                });
            })?;
        }
        Ok(gradient)
    }

    /// The gradient of the maps: the convolution of the output's gradient with the kernels turned by half a turn.
    fn of_maps(&self, weight: &Tensor, gradient: &[f32]) -> Result<Vec<f32>> {
        let g = &self.geometry;
        let area = g.kernel * g.kernel;
        let mut turned = vec![0f32; weight.elem_count()];
        cpu_values(weight, |weight| {
            for (i, taps) in weight.chunks_exact(area).enumerate() {
                let (o, c) = (i / g.channels, i % g.channels);
                for (to, from) in turned[(c * g.out + o) * area..][..area].iter_mut().zip(taps.iter().rev()) {
                    *to = *from;
                }
            }
        })?;
        let back = Geometry {
            channels: g.out,
            h: g.out_h,
            w: g.out_w,
            out: g.channels,
            out_h: g.h,
            out_w: g.w,
            padding: g.kernel - 1 - g.padding,
            ..*g
        };
        let turned = Tensor::from_vec(turned, (g.channels, g.out, g.kernel, g.kernel), &Device::Cpu)?;
        let zero = vec![0.0; g.channels];
        forward_values(&back, gradient, &pack(&back, &turned)?, &Finish { bias: &zero, relu: false })
    }

    /// The gradient of the weights: the output's gradient times the windows, summed over blocks in a fixed order.
    fn of_weights(&self, x: &[f32], gradient: &[f32]) -> Result<Tensor> {
        let g = &self.geometry;
        let depth = g.channels * g.kernel * g.kernel;
        let cells = g.out_h * g.out_w;
        let images = im2col::images_per_block(g, depth);
        let blocks: Vec<Tensor> = x
            .par_chunks(images * g.image_len())
            .zip(gradient.par_chunks(images * g.out_len()))
            .map(|(x, gradient)| {
                let width = gradient.len() / g.out;
                let mut columns = vec![0f32; depth * width];
                im2col::fill(g, x, 0, &mut columns, width);
                let mut by_channel = vec![0f32; g.out * width];
                for (i, image) in gradient.chunks_exact(g.out_len()).enumerate() {
                    for (o, map) in image.chunks_exact(cells).enumerate() {
                        by_channel[o * width + i * cells..][..cells].copy_from_slice(map);
                    }
                }
                let columns = Tensor::from_vec(columns, (depth, width), &Device::Cpu)?;
                Tensor::from_vec(by_channel, (g.out, width), &Device::Cpu)?.matmul(&columns.t()?)
            })
            .collect::<Result<_>>()?;
        let mut sum = Tensor::zeros((g.out, depth), candle_core::DType::F32, &Device::Cpu)?;
        for block in blocks {
            sum = (sum + block)?;
        }
        sum.reshape((g.out, g.channels, g.kernel, g.kernel))
    }
}

/// The contiguous values behind a layout.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let not_contiguous = || candle_core::Error::Msg("expected contiguous values".into());
    let (start, end) = layout.contiguous_offsets().ok_or_else(not_contiguous)?;
    storage.as_slice::<f32>()?.get(start..end).ok_or_else(not_contiguous)
}

impl CustomOp3 for TrainedConv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let shape = (g.out, g.channels, g.kernel, g.kernel);
        let weight = Tensor::from_slice(slice(weight, weight_layout)?, shape, &Device::Cpu)?;
        let finish = Finish { bias: slice(bias, bias_layout)?, relu: self.relu };
        let out = forward_values(g, slice(x, x_layout)?, &pack(g, &weight)?, &finish)?;
        let n = out.len() / g.out_len();
        Ok((CpuStorage::F32(out), Shape::from((n, g.out, g.out_h, g.out_w))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = &self.geometry;
        let gradient = self.through_relu(output, gradient)?;
        let of_maps = if x.track_op() {
            Some(Tensor::from_vec(self.of_maps(weight, &gradient)?, x.shape(), &Device::Cpu)?)
        } else {
            None
        };
        let of_weights =
            if weight.track_op() { Some(cpu_values(x, |x| self.of_weights(x, &gradient))??) } else { None };
        let of_bias = if bias.track_op() {
            let mut sums = vec![0f32; g.out];
            for (i, map) in gradient.chunks_exact(g.out_h * g.out_w).enumerate() {
                sums[i % g.out] += map.iter().sum::<f32>();
            }
            Some(Tensor::from_vec(sums, g.out, &Device::Cpu)?)
        } else {
            None
        };
        Ok((of_maps, of_weights, of_bias))
    }
}
