//! `flatten`: each row as one vector, last axis fastest.

use candle_core::Tensor;

use super::{Expected, Kind, Op, OpError, only};

pub(crate) const FLATTEN: Kind = Kind { name: "flatten", version: 1, parse: |_| Ok(Box::new(Flatten)) };

#[derive(Debug)]
struct Flatten;

impl Op for Flatten {
    fn kind(&self) -> &'static str {
        FLATTEN.name
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        Ok(vec![inputs.concat().iter().product()])
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        Ok(only(inputs)?.flatten_from(1)?)
    }
}
