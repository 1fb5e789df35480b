//! `concat`: inputs joined along an axis (0 = the first axis after the batch, the channels of maps).

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{Arity, Expected, Kind, Op, OpError, nth, resolve_axis};

pub(crate) const CONCAT: Kind =
    Kind { name: "concat", version: 1, parse: |fields| Ok(Box::new(Concat { axis: fields.axis_or("axis", 0)? })) };

#[derive(Debug)]
struct Concat {
    axis: i64,
}

impl Op for Concat {
    fn kind(&self) -> &'static str {
        CONCAT.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("axis", json!(self.axis))])
    }

    fn arity(&self) -> Arity {
        Arity::Many
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let Some(first) = inputs.first() else { return Expected::err("two or more inputs") };
        let axis = resolve_axis(self.axis, first.len())?;
        let same = |s: &&[usize]| {
            s.len() == first.len() && s.iter().zip(*first).enumerate().all(|(i, (a, b))| i == axis || a == b)
        };
        if !inputs.iter().all(same) {
            return Expected::err(format!("inputs that differ only along axis {axis}"));
        }
        let mut shape = first.to_vec();
        shape[axis] = inputs.iter().map(|s| s[axis]).sum();
        Ok(shape)
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        let rank = nth(inputs, 0)?.rank() - 1;
        let axis = resolve_axis(self.axis, rank).map_err(|e| candle_core::Error::Msg(e.0))?;
        Ok(Tensor::cat(inputs, axis + 1)?)
    }
}
