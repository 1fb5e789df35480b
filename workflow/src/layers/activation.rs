//! `relu`, `gelu`, `sigmoid`, `tanh`: functions of single values, as layers and fused into others.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{Expected, Kind, Op, OpError, Step, only};
use crate::conv::cpu_values;
use crate::error::NetworkError;
use crate::parse::Fields;

pub(crate) const RELU: Kind = Kind { name: "relu", version: 1, parse: |_| Ok(Box::new(Activation::Relu)) };
pub(crate) const GELU: Kind = Kind { name: "gelu", version: 1, parse: |_| Ok(Box::new(Activation::Gelu)) };
pub(crate) const SIGMOID: Kind = Kind { name: "sigmoid", version: 1, parse: |_| Ok(Box::new(Activation::Sigmoid)) };
pub(crate) const TANH: Kind = Kind { name: "tanh", version: 1, parse: |_| Ok(Box::new(Activation::Tanh)) };

/// A function applied to each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Relu,
    /// x·Φ(x) with the exact normal distribution, as PyTorch's default.
    Gelu,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// The optional key `activation` of layers that fuse one.
    pub(crate) fn fused(fields: &mut Fields) -> Result<Option<Activation>, NetworkError> {
        let name = fields.choice_opt("activation", &["relu", "gelu", "sigmoid", "tanh"])?;
        Ok(name.map(|name| match name {
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            "sigmoid" => Activation::Sigmoid,
            _ => Activation::Tanh,
        }))
    }

    /// The name in descriptions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::Gelu => "gelu",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
        }
    }

    /// The function of every value of `x`, differentiable.
    pub(crate) fn train(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Activation::Relu => x.relu(),
            Activation::Gelu => x.gelu_erf(),
            Activation::Sigmoid => candle_nn::ops::sigmoid(x),
            Activation::Tanh => x.tanh(),
        }
    }

    /// The function of every value of `x` at inference. The tensor library's ReLU turns NaN into 0, which would hide
    /// from a diagnosis where it arose; this one keeps it, as PyTorch does.
    pub(crate) fn infer(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Activation::Relu if x.device().is_cpu() => {
                let values = cpu_values(x, |values| values.par_iter().with_min_len(4096).map(|&v| relu(v)).collect())?;
                Tensor::from_vec::<_, f32>(values, x.shape(), x.device())
            }
            other => other.train(x),
        }
    }
}

fn relu(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}

impl Op for Activation {
    fn kind(&self) -> &'static str {
        self.name()
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        Ok(inputs.concat())
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        Ok(self.infer(only(inputs)?)?)
    }

    fn train(&self, inputs: &[&Tensor], _params: &[Tensor], _step: &mut Step) -> Result<Tensor, OpError> {
        Ok(Activation::train(*self, only(inputs)?)?)
    }
}
