//! `layer_norm`: each vector along the last axis normalised to mean 0 and variance 1, then scaled and shifted.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};
use serde_json::{Value, json};

use super::{Expected, Init, Kind, Op, OpError, ParamSpec, nth, only};

pub(crate) const LAYER_NORM: Kind = Kind {
    name: "layer_norm",
    version: 1,
    parse: |fields| {
        let eps = fields.number_or("eps", 1e-5, "a number above 0", |e| e > 0.0 && e.is_finite())?;
        Ok(Box::new(LayerNorm { eps }))
    },
};

#[derive(Debug)]
struct LayerNorm {
    eps: f64,
}

impl Op for LayerNorm {
    fn kind(&self) -> &'static str {
        LAYER_NORM.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("eps", json!(self.eps))])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        Ok(inputs.concat())
    }

    fn params(&self, inputs: &[&[usize]]) -> Vec<ParamSpec> {
        let shape = vec![inputs.concat().last().copied().unwrap_or(1)];
        vec![
            ParamSpec::trained("weight", shape.clone(), Init::Constant(1.0)),
            ParamSpec::trained("bias", shape, Init::Constant(0.0)),
        ]
    }

    fn forward(&self, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let var = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(var + self.eps)?.sqrt()?)?;
        Ok(normed.broadcast_mul(nth(params, 0)?)?.broadcast_add(nth(params, 1)?)?)
    }
}
