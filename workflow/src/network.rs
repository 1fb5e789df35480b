//! A network's description: named layers with explicit inputs, validated before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{At, NetworkError};
use crate::graph::{Graph, INPUT};
use crate::layers::{self, Arity, Op, ParamSpec};
use crate::parse::{self, Fields, RawLayer};
use crate::suggest::nearest;

/// No output row and no layer's parameters may hold more values than this.
const MAX_VALUES: usize = 1 << 31;

/// Where a layer reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The network's input.
    Input,
    /// The output of the layer of this index.
    Layer(usize),
}

/// One layer of a [`Network`].
#[derive(Debug)]
pub struct Layer {
    name: String,
    inputs: Vec<Source>,
    input_shapes: Vec<Vec<usize>>,
    shape: Vec<usize>,
    op: Box<dyn Op>,
}

impl Layer {
    /// The layer's name: free text, unique in the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layer's kind, such as `conv2d`.
    pub fn op(&self) -> &'static str {
        self.op.kind()
    }

    /// Where the layer reads from, in order.
    pub fn inputs(&self) -> &[Source] {
        &self.inputs
    }

    /// Shape of the layer's output for one row, without the batch axis: `[channels, height, width]` for maps.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The kind's settings, defaults included, as they appear in [`Network::to_json`].
    pub fn settings(&self) -> BTreeMap<&'static str, Value> {
        self.op.settings()
    }

    pub(crate) fn implementation(&self) -> &dyn Op {
        self.op.as_ref()
    }

    pub(crate) fn input_shapes(&self) -> Vec<&[usize]> {
        self.input_shapes.iter().map(Vec::as_slice).collect()
    }

    pub(crate) fn param_specs(&self) -> Vec<ParamSpec> {
        self.op.params(&self.input_shapes())
    }
}

/// A tensor that a network needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// `<layer>.weight`, `<layer>.bias`, `<layer>.running_mean` or `<layer>.running_var`.
    pub name: String,
    /// Index of the layer it belongs to.
    pub layer: usize,
    /// Its shape, in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Whether training changes it by gradient (running statistics are not).
    pub trainable: bool,
}

/// A validated network: a directed acyclic graph of named layers, in an order in which they can run.
///
/// Cheap to clone: the layers are shared.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    input_shape: Vec<usize>,
    layers: Arc<[Layer]>,
    by_name: Arc<BTreeMap<String, usize>>,
}

impl Network {
    /// The network that `text` describes, in YAML or JSON.
    ///
    /// Errors: one of the description variants of [`NetworkError`], which name the layer and, for YAML, the line.
    pub fn parse(text: &str) -> Result<Network, NetworkError> {
        let raw = parse::parse(text)?;
        let shape = &raw.input_shape;
        if shape.is_empty() || shape.len() > 4 || volume(shape).is_none_or(|n| n == 0) {
            return Err(NetworkError::BadInputShape { found: raw.input_shape });
        }
        if raw.layers.is_empty() {
            return Err(NetworkError::NoLayers { network: raw.name });
        }
        let drafts = raw.layers.into_iter().enumerate().map(|(i, layer)| Draft::new(i, layer));
        let drafts = drafts.collect::<Result<Vec<_>, _>>()?;
        let graph = Graph::new(drafts.iter().map(|d| (d.at.clone(), d.inputs.clone())).collect())?;
        let mut layers: Vec<Layer> = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.into_iter().enumerate() {
            let inputs = graph.sources(index)?;
            layers.push(draft.build(inputs, &raw.input_shape, &layers)?);
        }
        Ok(Network {
            name: raw.name,
            input_shape: raw.input_shape,
            layers: layers.into(),
            by_name: Arc::new(graph.into_names()),
        })
    }

    /// The network's name (`network` when the description gives none).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of one input row, without the batch axis.
    pub fn input_shape(&self) -> &[usize] {
        &self.input_shape
    }

    /// The layers, in an order in which they can run; a layer's index is its place here.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Every layer's output shape for one row, by layer index.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.layers.iter().map(|l| l.shape.clone()).collect()
    }

    /// The index of the layer called `name`.
    ///
    /// Errors: [`NetworkError::UnknownLayer`].
    pub fn layer_index(&self, name: &str) -> Result<usize, NetworkError> {
        self.by_name.get(name).copied().ok_or_else(|| NetworkError::UnknownLayer {
            name: name.to_string(),
            nearest: nearest(name, self.layers.iter().map(Layer::name)),
            known: self.layer_names(),
        })
    }

    /// All layer names, comma separated.
    pub(crate) fn layer_names(&self) -> String {
        self.layers.iter().map(Layer::name).collect::<Vec<_>>().join(", ")
    }

    /// The tensors that the network needs, in layer order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let params = self.layers.iter().enumerate().flat_map(|(index, layer)| {
            layer.param_specs().into_iter().map(move |spec| ParamInfo {
                name: format!("{}.{}", layer.name, spec.suffix),
                layer: index,
                shape: spec.shape,
                trainable: spec.trainable,
            })
        });
        params.collect()
    }

    /// Number of trainable values.
    pub fn n_params(&self) -> usize {
        self.params().iter().filter(|p| p.trainable).map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// The layers that have to run to produce `wanted` when the outputs of `given` are at hand, in running order.
    ///
    /// A given layer is not run again, and neither is what only it needs. With `from_input` the network's input is
    /// at hand too.
    ///
    /// Errors: [`NetworkError::LayerIndex`]; [`NetworkError::NotSufficient`] when a wanted layer needs the input and
    /// `from_input` is false.
    pub fn plan(&self, given: &[usize], wanted: &[usize], from_input: bool) -> Result<Vec<usize>, NetworkError> {
        let n_layers = self.layers.len();
        let out_of_range = given.iter().chain(wanted).find(|&&i| i >= n_layers);
        if let Some(&found) = out_of_range {
            return Err(NetworkError::LayerIndex { found, n_layers });
        }
        let mut is_given = vec![false; n_layers];
        given.iter().for_each(|&i| is_given[i] = true);
        let mut runs = vec![false; n_layers];
        for &target in wanted {
            let mut stack = vec![target];
            while let Some(index) = stack.pop() {
                if is_given[index] || runs[index] {
                    continue;
                }
                runs[index] = true;
                for source in &self.layers[index].inputs {
                    match source {
                        Source::Layer(i) => stack.push(*i),
                        Source::Input if from_input => {}
                        Source::Input => {
                            return Err(NetworkError::NotSufficient {
                                wanted: self.layers[target].name.clone(),
                                missing: format!("the network's input (for layer {:?})", self.layers[index].name),
                            });
                        }
                    }
                }
            }
        }
        Ok((0..n_layers).filter(|&i| runs[i]).collect())
    }

    /// The canonical JSON text: every setting spelled out, keys sorted. Parses back to an equal network.
    pub fn to_json(&self) -> String {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                let inputs: Vec<&str> = layer.inputs.iter().map(|s| self.source_name(*s)).collect();
                let mut keys = layer.op.settings();
                keys.insert("name", json!(layer.name));
                keys.insert("op", json!(layer.op.kind()));
                if let Some(version) = layers::later_version(layer.op.kind()) {
                    keys.insert("version", json!(version));
                }
                keys.insert("inputs", json!(inputs));
                sorted(keys)
            })
            .collect();
        let input = sorted(BTreeMap::from([("shape", json!(self.input_shape))]));
        sorted(BTreeMap::from([("name", json!(self.name)), ("input", input), ("layers", json!(layers))])).to_string()
    }

    /// xxh3-128 of [`Network::to_json`], little-endian: equal for equal networks however they were written.
    pub fn fingerprint(&self) -> [u8; 16] {
        twox_hash::XxHash3_128::oneshot(self.to_json().as_bytes()).to_le_bytes()
    }

    fn source_name(&self, source: Source) -> &str {
        match source {
            Source::Input => INPUT,
            Source::Layer(i) => &self.layers[i].name,
        }
    }
}

/// An object whose keys are inserted in sorted order, so that the text is the same whether or not some crate of the
/// build switches on serde_json's `preserve_order`.
fn sorted(keys: BTreeMap<&str, Value>) -> Value {
    Value::Object(keys.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

/// Values in one row of this shape, unless beyond [`MAX_VALUES`].
fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).filter(|&n| n <= MAX_VALUES)
}

/// A layer whose kind is understood and whose inputs are still names.
struct Draft {
    at: Box<At>,
    inputs: Option<Vec<String>>,
    op: Box<dyn Op>,
}

impl Draft {
    fn new(index: usize, raw: RawLayer) -> Result<Draft, NetworkError> {
        let at = Box::new(At { layer: format!("#{}", index + 1), line: raw.line });
        let mut fields = Fields::new(at, raw.keys);
        let name = fields.text("name")?;
        fields.at.layer = name;
        if fields.at.layer.is_empty() || fields.at.layer == INPUT {
            return Err(NetworkError::ReservedName { at: fields.at });
        }
        let kind = fields.text("op")?;
        let inputs = fields.inputs()?;
        let op = layers::parse(&kind, &mut fields)?;
        let at = fields.at.clone();
        fields.finish()?;
        Ok(Draft { at, inputs, op })
    }

    fn build(self, inputs: Vec<Source>, input_shape: &[usize], done: &[Layer]) -> Result<Layer, NetworkError> {
        let (expected, ok) = match self.op.arity() {
            Arity::One => ("one input", inputs.len() == 1),
            Arity::Many => ("two or more inputs (`inputs: [a, b]`)", inputs.len() >= 2),
        };
        let op = self.op.kind().to_string();
        if !ok {
            return Err(NetworkError::InputCount { at: self.at, op, expected, found: inputs.len() });
        }
        let input_shapes: Vec<Vec<usize>> = inputs
            .iter()
            .map(|source| match source {
                Source::Input => input_shape.to_vec(),
                Source::Layer(i) => done[*i].shape.clone(),
            })
            .collect();
        let borrowed: Vec<&[usize]> = input_shapes.iter().map(Vec::as_slice).collect();
        let shape = match self.op.output_shape(&borrowed) {
            Ok(shape) => shape,
            Err(expected) => {
                let found = borrowed.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" and ");
                return Err(NetworkError::Shape { at: self.at, op, expected: expected.0, found });
            }
        };
        let too_large = |what| NetworkError::TooLarge { at: self.at.clone(), what, limit: MAX_VALUES };
        volume(&shape).ok_or_else(|| too_large("its output for one row"))?;
        if self.op.params(&borrowed).iter().any(|p| volume(&p.shape).is_none()) {
            return Err(too_large("its parameters"));
        }
        Ok(Layer { name: self.at.layer, inputs, input_shapes, shape, op: self.op })
    }
}
