//! `dropout`: off at inference; in training each value is zeroed with probability `rate`, the rest scaled up.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{Expected, Kind, Op, OpError, Step, only};

pub(crate) const DROPOUT: Kind = Kind {
    name: "dropout",
    version: 1,
    parse: |fields| {
        let rate = fields.number_or("rate", 0.5, "a number from 0 to below 1", |r| (0.0..1.0).contains(&r))?;
        Ok(Box::new(Dropout { rate }))
    },
};

#[derive(Debug)]
struct Dropout {
    rate: f64,
}

impl Op for Dropout {
    fn kind(&self) -> &'static str {
        DROPOUT.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("rate", json!(self.rate))])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        Ok(inputs.concat())
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        Ok(only(inputs)?.clone())
    }

    fn train(&self, inputs: &[&Tensor], _params: &[Tensor], step: &mut Step) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        let rate = self.rate as f32;
        let kept = 1.0 / (1.0 - rate);
        let mask: Vec<f32> = (0..x.elem_count()).map(|_| if step.rng.unit() < rate { 0.0 } else { kept }).collect();
        Ok((x * Tensor::from_vec(mask, x.shape(), x.device())?)?)
    }
}
