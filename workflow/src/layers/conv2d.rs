//! `conv2d`: square kernels over maps, with stride, padding, dilation, groups and an optional fused activation.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{
    Activation, Expected, Init, Kind, Op, OpError, ParamSpec, Step, as_map, nth, only, over_channels, windows,
};
use crate::conv::{self, Geometry, TrainedConv};

pub(crate) const CONV2D: Kind = Kind {
    name: "conv2d",
    version: 1,
    parse: |fields| {
        let conv = Conv2d {
            out: fields.size("out")?,
            kernel: fields.size("kernel")?,
            stride: fields.size_opt("stride")?.unwrap_or(1),
            padding: fields.count_or("padding", 0)?,
            dilation: fields.size_opt("dilation")?.unwrap_or(1),
            groups: fields.size_opt("groups")?.unwrap_or(1),
            bias: fields.flag_or("bias", true)?,
            activation: Activation::fused(fields)?,
        };
        if !conv.out.is_multiple_of(conv.groups) {
            return Err(fields.bad("groups", format!("a divisor of `out` ({})", conv.out), &json!(conv.groups)));
        }
        Ok(Box::new(conv))
    },
};

#[derive(Debug)]
struct Conv2d {
    out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    groups: usize,
    bias: bool,
    activation: Option<Activation>,
}

impl Conv2d {
    /// Output height and width, if the kernel fits.
    fn output_size(&self, h: usize, w: usize) -> Option<(usize, usize)> {
        let kernel = self.dilation.checked_mul(self.kernel - 1)?.checked_add(1)?;
        let size = |len| windows(len, kernel, self.stride, self.padding);
        size(h).zip(size(w))
    }

    fn geometry(&self, shape: &[usize]) -> Option<Geometry> {
        let [channels, h, w] = as_map(shape).ok()?;
        let (out_h, out_w) = self.output_size(h, w)?;
        Some(Geometry {
            channels,
            h,
            w,
            out: self.out,
            out_h,
            out_w,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
        })
    }

    fn by_tensors(&self, x: &Tensor, params: &[Tensor]) -> candle_core::Result<Tensor> {
        let weight = nth(params, 0)?;
        let mut y = x.conv2d(weight, self.padding, self.stride, self.dilation, self.groups)?;
        if self.bias {
            y = y.broadcast_add(&over_channels(nth(params, 1)?, 4)?)?;
        }
        Ok(y)
    }
}

impl Op for Conv2d {
    fn kind(&self) -> &'static str {
        CONV2D.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([
            ("out", json!(self.out)),
            ("kernel", json!(self.kernel)),
            ("stride", json!(self.stride)),
            ("padding", json!(self.padding)),
            ("dilation", json!(self.dilation)),
            ("groups", json!(self.groups)),
            ("bias", json!(self.bias)),
            ("activation", json!(self.activation.map(Activation::name))),
        ])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let [channels, h, w] = as_map(&inputs.concat())?;
        if channels % self.groups != 0 {
            return Expected::err(format!("a number of channels that {} groups divide", self.groups));
        }
        match self.output_size(h, w) {
            Some((h, w)) => Ok(vec![self.out, h, w]),
            None => Expected::err(format!("a map that the {0}×{0} kernel fits into with its padding", self.kernel)),
        }
    }

    fn params(&self, inputs: &[&[usize]]) -> Vec<ParamSpec> {
        let channels = inputs.concat().first().copied().unwrap_or(1) / self.groups;
        let area = self.kernel.saturating_mul(self.kernel);
        let fan_in = channels.saturating_mul(area);
        let shape = vec![self.out, channels, self.kernel, self.kernel];
        let mut specs = vec![ParamSpec::trained("weight", shape, Init::he(fan_in))];
        if self.bias {
            specs.push(ParamSpec::trained("bias", vec![self.out], Init::Constant(0.0)));
        }
        specs
    }

    /// On the CPU, the weights in the layout of the faster algorithm follow the original ones.
    fn prepare(&self, mut params: Vec<Tensor>, inputs: &[&[usize]]) -> candle_core::Result<Vec<Tensor>> {
        if let Some(geometry) = self.geometry(&inputs.concat())
            && nth(&params, 0)?.device().is_cpu()
        {
            let packed = conv::pack(&geometry, nth(&params, 0)?)?;
            params.push(packed);
        }
        Ok(params)
    }

    fn forward(&self, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        let geometry = self.geometry(x.dims().get(1..).unwrap_or_default());
        let (Some(geometry), true) = (geometry, x.device().is_cpu()) else {
            let y = self.by_tensors(x, params)?;
            return Ok(self.activation.map_or(Ok(y.clone()), |a| a.infer(&y))?);
        };
        let bias = if self.bias { Some(nth(params, 1)?) } else { None };
        let packed = nth(params, 1 + usize::from(self.bias))?;
        let relu = self.activation == Some(Activation::Relu);
        let y = conv::forward(&geometry, x, packed, bias, relu)?;
        match self.activation {
            Some(activation) if !relu => Ok(activation.infer(&y)?),
            _ => Ok(y),
        }
    }

    fn train(&self, inputs: &[&Tensor], params: &[Tensor], _step: &mut Step) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        let relu = self.activation == Some(Activation::Relu);
        let geometry = self.geometry(x.dims().get(1..).unwrap_or_default()).filter(|_| x.device().is_cpu());
        let Some(conv) = geometry.and_then(|g| TrainedConv::new(g, relu)) else {
            let y = self.by_tensors(x, params)?;
            return Ok(self.activation.map_or(Ok(y.clone()), |a| a.train(&y))?);
        };
        let zeros;
        let bias = if self.bias {
            nth(params, 1)?
        } else {
            zeros = Tensor::zeros(self.out, candle_core::DType::F32, x.device())?;
            &zeros
        };
        let y = x.contiguous()?.apply_op3(nth(params, 0)?, bias, conv)?;
        match self.activation {
            Some(activation) if !relu => Ok(activation.train(&y)?),
            _ => Ok(y),
        }
    }
}
