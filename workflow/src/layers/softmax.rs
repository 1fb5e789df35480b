//! `softmax` along an axis (default: the last).

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{Expected, Kind, Op, OpError, only, resolve_axis};

pub(crate) const SOFTMAX: Kind =
    Kind { name: "softmax", version: 1, parse: |fields| Ok(Box::new(Softmax { axis: fields.axis_or("axis", -1)? })) };

#[derive(Debug)]
struct Softmax {
    axis: i64,
}

impl Op for Softmax {
    fn kind(&self) -> &'static str {
        SOFTMAX.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("axis", json!(self.axis))])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let shape = inputs.concat();
        resolve_axis(self.axis, shape.len())?;
        Ok(shape)
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        let axis = resolve_axis(self.axis, x.rank() - 1).map_err(|e| candle_core::Error::Msg(e.0))?;
        Ok(candle_nn::ops::softmax(x, axis + 1)?)
    }
}
