//! `add`: the sum of inputs of equal shape (skip connections).

use candle_core::Tensor;

use super::{Arity, Expected, Kind, Op, OpError, nth};

pub(crate) const ADD: Kind = Kind { name: "add", version: 1, parse: |_| Ok(Box::new(Add)) };

#[derive(Debug)]
struct Add;

impl Op for Add {
    fn kind(&self) -> &'static str {
        ADD.name
    }

    fn arity(&self) -> Arity {
        Arity::Many
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        match inputs {
            [first, rest @ ..] if rest.iter().all(|s| s == first) => Ok(first.to_vec()),
            _ => Expected::err("inputs of equal shape"),
        }
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        let mut sum = (*nth(inputs, 0)?).clone();
        for input in inputs.iter().skip(1) {
            sum = (sum + *input)?;
        }
        Ok(sum)
    }
}
