//! `batch_norm`: each channel normalised by its running statistics, or by the batch's while training.

use std::collections::BTreeMap;

use candle_core::Tensor;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Expected, Init, Kind, Op, OpError, ParamSpec, Step, nth, only, over_channels};
use crate::conv::cpu_values;

pub(crate) const BATCH_NORM: Kind = Kind {
    name: "batch_norm",
    version: 1,
    parse: |fields| {
        Ok(Box::new(BatchNorm {
            eps: fields.number_or("eps", 1e-5, "a number above 0", |e| e > 0.0 && e.is_finite())?,
            momentum: fields.number_or("momentum", 0.1, "a number from 0 to 1", |m| (0.0..=1.0).contains(&m))?,
        }))
    },
};

#[derive(Debug)]
struct BatchNorm {
    eps: f64,
    /// Weight of the newest batch in the running statistics (PyTorch's meaning).
    momentum: f64,
}

const WEIGHT: usize = 0;
const BIAS: usize = 1;
const MEAN: usize = 2;
const VAR: usize = 3;

impl BatchNorm {
    /// Scale and shift per channel: y = x·scale + shift.
    fn affine(&self, params: &[Tensor], mean: &Tensor, var: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        let scale = (nth(params, WEIGHT)? / (var + self.eps)?.sqrt()?)?;
        let shift = (nth(params, BIAS)? - (mean * &scale)?)?;
        Ok((scale, shift))
    }
}

fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_mul(&over_channels(scale, x.rank())?)?.broadcast_add(&over_channels(shift, x.rank())?)
}

/// [`scale_shift`] in one parallel pass.
fn on_cpu(x: &Tensor, scale: &Tensor, shift: &Tensor) -> candle_core::Result<Tensor> {
    let (scale, shift) = (scale.to_vec1::<f32>()?, shift.to_vec1::<f32>()?);
    let row_len = x.elem_count() / x.dim(0)?.max(1);
    let channel_len = (row_len / scale.len().max(1)).max(1);
    let mut out = vec![0f32; x.elem_count()];
    cpu_values(x, |values| {
        out.par_chunks_mut(row_len.max(1)).zip(values.par_chunks(row_len.max(1))).for_each(|(out, row)| {
            let channels = out.chunks_exact_mut(channel_len).zip(row.chunks_exact(channel_len));
            for ((out, cells), (scale, shift)) in channels.zip(scale.iter().zip(&shift)) {
                for (to, from) in out.iter_mut().zip(cells) {
                    *to = from * scale + shift;
                }
            }
        });
    })?;
    Tensor::from_vec(out, x.shape(), x.device())
}

impl Op for BatchNorm {
    fn kind(&self) -> &'static str {
        BATCH_NORM.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("eps", json!(self.eps)), ("momentum", json!(self.momentum))])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        Ok(inputs.concat())
    }

    fn params(&self, inputs: &[&[usize]]) -> Vec<ParamSpec> {
        let shape = vec![inputs.concat().first().copied().unwrap_or(1)];
        let statistic =
            |suffix, value| ParamSpec { suffix, shape: shape.clone(), init: Init::Constant(value), trainable: false };
        vec![
            ParamSpec::trained("weight", shape.clone(), Init::Constant(1.0)),
            ParamSpec::trained("bias", shape.clone(), Init::Constant(0.0)),
            statistic("running_mean", 0.0),
            statistic("running_var", 1.0),
        ]
    }

    fn prepare(&self, params: Vec<Tensor>, _inputs: &[&[usize]]) -> candle_core::Result<Vec<Tensor>> {
        let (scale, shift) = self.affine(&params, nth(&params, MEAN)?, nth(&params, VAR)?)?;
        Ok(vec![scale, shift])
    }

    fn forward(&self, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, OpError> {
        let (x, scale, shift) = (only(inputs)?, nth(params, 0)?, nth(params, 1)?);
        Ok(if x.device().is_cpu() { on_cpu(x, scale, shift)? } else { scale_shift(x, scale, shift)? })
    }

    fn train(&self, inputs: &[&Tensor], params: &[Tensor], step: &mut Step) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        if step.frozen {
            let (scale, shift) = self.affine(params, nth(params, MEAN)?, nth(params, VAR)?)?;
            return Ok(scale_shift(x, &scale, &shift)?);
        }
        let per_channel = x.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
        let n = per_channel.dim(1)? as f64;
        let mean = per_channel.mean(1)?;
        let centred = per_channel.broadcast_sub(&mean.unsqueeze(1)?)?;
        let var = centred.sqr()?.mean(1)?;
        let unbiased = (var.detach() * (n / (n - 1.0).max(1.0)))?;
        for (index, now) in [(MEAN, mean.detach()), (VAR, unbiased)] {
            let kept = (nth(params, index)?.detach() * (1.0 - self.momentum))?;
            step.updates.push((index, (kept + (now * self.momentum)?)?));
        }
        let (scale, shift) = self.affine(params, &mean, &var)?;
        Ok(scale_shift(x, &scale, &shift)?)
    }
}
