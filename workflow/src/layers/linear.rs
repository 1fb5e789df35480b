//! `linear`: x·Wᵀ + b over the last axis, with an optional fused activation.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{Activation, Expected, Init, Kind, Op, OpError, ParamSpec, Step, nth, only};

pub(crate) const LINEAR: Kind = Kind {
    name: "linear",
    version: 1,
    parse: |fields| {
        Ok(Box::new(Linear {
            out: fields.size("out")?,
            bias: fields.flag_or("bias", true)?,
            activation: Activation::fused(fields)?,
        }))
    },
};

#[derive(Debug)]
struct Linear {
    out: usize,
    bias: bool,
    activation: Option<Activation>,
}

impl Linear {
    /// x·Wᵀ + b, with at least `least_rows` rows multiplied.
    fn compute(&self, x: &Tensor, params: &[Tensor], least_rows: usize) -> candle_core::Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let n_in = shape.pop().unwrap_or(1);
        shape.push(self.out);
        let rows = x.contiguous()?.reshape(((), n_in))?;
        let n_rows = rows.dim(0)?;
        let padded = rows.pad_with_zeros(0, 0, least_rows.saturating_sub(n_rows))?;
        let mut y = padded.matmul(&nth(params, 0)?.t()?)?.narrow(0, 0, n_rows)?;
        if self.bias {
            y = y.broadcast_add(nth(params, 1)?)?;
        }
        y.reshape(shape)
    }

    /// Rows to multiply so that a row's result does not depend on its batch: below this, the matrix product takes
    /// other paths, which sum in another order (a single row, up to 256 results, up to 64 by 64 of them).
    fn least_rows(&self) -> usize {
        (256 / self.out + 1).max(if self.out <= 64 { 65 } else { 2 })
    }
}

impl Op for Linear {
    fn kind(&self) -> &'static str {
        LINEAR.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([
            ("out", json!(self.out)),
            ("bias", json!(self.bias)),
            ("activation", json!(self.activation.map(Activation::name))),
        ])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let mut shape = inputs.concat();
        match shape.last_mut() {
            Some(last) => *last = self.out,
            None => return Expected::err("at least one axis"),
        }
        Ok(shape)
    }

    fn params(&self, inputs: &[&[usize]]) -> Vec<ParamSpec> {
        let n_in = inputs.concat().last().copied().unwrap_or(1);
        let init = match self.activation {
            Some(Activation::Relu | Activation::Gelu) => Init::he(n_in),
            _ => Init::glorot(n_in, self.out),
        };
        let mut specs = vec![ParamSpec::trained("weight", vec![self.out, n_in], init)];
        if self.bias {
            specs.push(ParamSpec::trained("bias", vec![self.out], Init::Constant(0.0)));
        }
        specs
    }

    fn forward(&self, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, OpError> {
        let y = self.compute(only(inputs)?, params, self.least_rows())?;
        Ok(self.activation.map_or(Ok(y.clone()), |a| a.infer(&y))?)
    }

    fn train(&self, inputs: &[&Tensor], params: &[Tensor], _step: &mut Step) -> Result<Tensor, OpError> {
        let y = self.compute(only(inputs)?, params, 0)?;
        Ok(self.activation.map_or(Ok(y.clone()), |a| a.train(&y))?)
    }
}
