//! The layer kinds. A new kind is one file here and one line in [`KINDS`].

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;
use serde_json::Value;

use crate::error::NetworkError;
use crate::parse::Fields;
use crate::rng::Rng;
use crate::suggest::nearest;

mod activation;
mod add;
mod batch_norm;
mod concat;
mod conv2d;
mod dropout;
mod embedding;
mod flatten;
mod global_pool;
mod layer_norm;
mod linear;
mod pool;
mod softmax;

pub(crate) use activation::Activation;

/// Every layer kind, in the order in which they are listed to users.
const KINDS: &[Kind] = &[
    conv2d::CONV2D,
    linear::LINEAR,
    embedding::EMBEDDING,
    activation::RELU,
    activation::GELU,
    activation::SIGMOID,
    activation::TANH,
    softmax::SOFTMAX,
    pool::MAX_POOL,
    pool::AVG_POOL,
    global_pool::GLOBAL_POOL,
    batch_norm::BATCH_NORM,
    layer_norm::LAYER_NORM,
    dropout::DROPOUT,
    flatten::FLATTEN,
    add::ADD,
    concat::CONCAT,
];

/// A layer kind: its name, the version of what it computes, and how its keys are read.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Goes up when the same settings and weights give other values: what an earlier version gave cannot be run again.
    pub(crate) version: usize,
    pub(crate) parse: fn(&mut Fields) -> Result<Box<dyn Op>, NetworkError>,
}

/// The names of all layer kinds.
pub fn kinds() -> Vec<&'static str> {
    KINDS.iter().map(|k| k.name).collect()
}

/// The version of a kind, where it is not the first: descriptions leave that out.
pub(crate) fn later_version(name: &str) -> Option<usize> {
    KINDS.iter().find(|k| k.name == name).map(|k| k.version).filter(|version| *version > 1)
}

/// The layer kind `name` with its settings taken from `fields`.
pub(crate) fn parse(name: &str, fields: &mut Fields) -> Result<Box<dyn Op>, NetworkError> {
    match KINDS.iter().find(|k| k.name == name) {
        Some(kind) => {
            fields.op = name.to_string();
            let version = fields.size_opt("version")?.unwrap_or(1);
            if version != kind.version {
                let why = format!("{}: this build has no other version of {name}", kind.version);
                return Err(fields.bad("version", why, &version.into()));
            }
            (kind.parse)(fields)
        }
        None => Err(NetworkError::UnknownOp {
            at: fields.at.clone(),
            op: name.to_string(),
            nearest: nearest(name, kinds()),
            known: kinds().join(", "),
        }),
    }
}

/// What a layer kind computes. Shapes are those of one row, without the batch axis.
pub(crate) trait Op: fmt::Debug + Send + Sync {
    /// The kind's name in descriptions.
    fn kind(&self) -> &'static str;

    /// Every setting with its value, such that parsing them gives an equal layer.
    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::new()
    }

    /// How many inputs the kind takes.
    fn arity(&self) -> Arity {
        Arity::One
    }

    /// The output's shape, or what the kind expected of its inputs.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected>;

    /// The tensors of a layer with these input shapes; only called with inputs that `output_shape` accepts.
    fn params(&self, _inputs: &[&[usize]]) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// What `forward` is given as parameters, derived once from those of `params`.
    fn prepare(&self, params: Vec<Tensor>, _inputs: &[&[usize]]) -> candle_core::Result<Vec<Tensor>> {
        Ok(params)
    }

    /// The output for a batch at inference; `params` are those of `prepare`. Need not be differentiable.
    fn forward(&self, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, OpError>;

    /// The output for a batch while training, differentiable; `params` are those of `params`.
    fn train(&self, inputs: &[&Tensor], params: &[Tensor], _step: &mut Step) -> Result<Tensor, OpError> {
        self.forward(inputs, params)
    }
}

/// How many inputs a kind takes.
pub(crate) enum Arity {
    One,
    /// Two or more.
    Many,
}

/// In words, what a kind expects of its inputs' shapes.
pub(crate) struct Expected(pub(crate) String);

impl Expected {
    /// An `Err` with these words.
    pub(crate) fn err<T>(words: impl Into<String>) -> Result<T, Expected> {
        Err(Expected(words.into()))
    }
}

/// A tensor that a layer needs.
pub(crate) struct ParamSpec {
    /// `weight`, `bias`, `running_mean` or `running_var`.
    pub(crate) suffix: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) init: Init,
    pub(crate) trainable: bool,
}

impl ParamSpec {
    /// A tensor that training changes by gradient.
    pub(crate) fn trained(suffix: &'static str, shape: Vec<usize>, init: Init) -> Self {
        Self { suffix, shape, init, trainable: true }
    }
}

/// How a tensor starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    Constant(f32),
    /// Uniform in ±limit.
    Uniform(f32),
}

impl Init {
    /// He (Kaiming) uniform: for layers that a ReLU or GELU follows.
    pub(crate) fn he(fan_in: usize) -> Self {
        Init::Uniform((6.0 / fan_in.max(1) as f32).sqrt())
    }

    /// Glorot (Xavier) uniform: for layers without such an activation.
    pub(crate) fn glorot(fan_in: usize, fan_out: usize) -> Self {
        Init::Uniform((6.0 / (fan_in + fan_out).max(1) as f32).sqrt())
    }
}

/// One training step as a layer sees it.
pub(crate) struct Step {
    pub(crate) rng: Rng,
    /// The layer's parameters are not trained: statistics stay as they are.
    pub(crate) frozen: bool,
    /// New values for non-trainable parameters of the current layer: (index in `params`, value).
    pub(crate) updates: Vec<(usize, Tensor)>,
}

/// Why a layer could not be computed.
pub(crate) enum OpError {
    Tensor(candle_core::Error),
    BadId { row: usize, found: f32, vocab: usize },
}

impl From<candle_core::Error> for OpError {
    fn from(error: candle_core::Error) -> Self {
        OpError::Tensor(error)
    }
}

/// The place of `axis` among `rank` row axes, negative from the end.
pub(crate) fn resolve_axis(axis: i64, rank: usize) -> Result<usize, Expected> {
    let resolved = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(resolved)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| Expected(format!("an input with the axis {axis}")))
}

/// A map's channels, height and width.
pub(crate) fn as_map(shape: &[usize]) -> Result<[usize; 3], Expected> {
    shape.try_into().or_else(|_| Expected::err("a map of shape [channels, height, width]"))
}

/// Output length of a window of `kernel` (already dilated) sliding over `len`, if it fits at all.
pub(crate) fn windows(len: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    Some((len + 2 * padding).checked_sub(kernel)? / stride + 1)
}

/// The only input of a layer of [`Arity::One`].
pub(crate) fn only<'a>(inputs: &[&'a Tensor]) -> candle_core::Result<&'a Tensor> {
    nth(inputs, 0).copied()
}

/// The parameter or input `index`.
pub(crate) fn nth<T>(items: &[T], index: usize) -> candle_core::Result<&T> {
    items.get(index).ok_or_else(|| candle_core::Error::Msg(format!("operand {index} is missing")))
}

/// `per_channel` shaped to broadcast over axis 1 of a batch of `rank` axes.
pub(crate) fn over_channels(per_channel: &Tensor, rank: usize) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; rank];
    if let Some(channels) = shape.get_mut(1) {
        *channels = per_channel.elem_count();
    }
    per_channel.reshape(shape)
}
