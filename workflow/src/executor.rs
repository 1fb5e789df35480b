//! Running a network forward, handing out every wanted layer's output.

use std::time::Instant;

use candle_core::{DType, Tensor};

use crate::device::Device;
use crate::error::NetworkError;
use crate::layers::OpError;
use crate::network::{Layer, Network, Source};
use crate::weights::Weights;

/// Seconds that a batch took, layer by layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timings {
    /// Rows in the batch.
    pub n_rows: usize,
    /// Wall seconds by layer index, the freeing of what it read last included; 0 for layers that did not run. The
    /// receiver's own time is not in it.
    pub seconds: Vec<f64>,
}

impl Timings {
    /// Seconds of all layers together.
    pub fn total(&self) -> f64 {
        self.seconds.iter().sum()
    }

    /// Adds what another part of the same batch took.
    pub(crate) fn add(&mut self, part: &Self) {
        self.seconds.iter_mut().zip(&part.seconds).for_each(|(a, b)| *a += b);
    }
}

/// A network with its weights on a device, ready to run.
#[derive(Debug)]
pub struct Executor {
    network: Network,
    device: Device,
    target: candle_core::Device,
    /// By layer index: what each layer's `forward` takes.
    params: Vec<Vec<Tensor>>,
}

impl Executor {
    /// `network` with `weights`, moved to `device`.
    ///
    /// Errors: those of [`Weights::check`] and [`Device::open`].
    pub fn new(network: &Network, weights: &Weights, device: Device) -> Result<Self, NetworkError> {
        weights.check(network)?;
        let target = device.open()?;
        let params = network.layers().iter().map(|layer| {
            let raw = layer_tensors(layer, weights, &target)?;
            layer.implementation().prepare(raw, &layer.input_shapes()).map_err(|e| failed(layer, e.into()))
        });
        Ok(Self { network: network.clone(), device, params: params.collect::<Result<_, _>>()?, target })
    }

    /// The network that runs.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Which implementation runs, for reports: `cpu: winograd/im2col+gemm` or `cuda:0: candle`.
    pub fn describe(&self) -> String {
        match self.device {
            Device::Cpu => "cpu: winograd/im2col+gemm".into(),
            other => format!("{other}: candle"),
        }
    }

    /// `values` as a batch of input rows, row-major.
    ///
    /// Errors: [`NetworkError::PartialRow`] when they are not whole rows.
    pub fn batch(&self, values: &[f32]) -> Result<Tensor, NetworkError> {
        batch(&self.network, values)
    }

    /// Runs the layers that `wanted` needs on a batch of inputs and hands each wanted output to `sink`.
    ///
    /// `sink` gets the layer's index and its output, in ascending order of index, each layer once, as soon as it is
    /// known; outputs are dropped as soon as no layer needs them.
    /// Shape: `input` is `[rows, …input shape]`; outputs are `[rows, …layer shape]`, contiguous f32 on the CPU.
    /// The same batch gives bit-identical outputs in every run on a device.
    /// Errors: [`NetworkError::BatchShape`], [`NetworkError::LayerIndex`], [`NetworkError::BadId`],
    /// [`NetworkError::Compute`], and whatever `sink` returns.
    pub fn forward(
        &self,
        input: &Tensor,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, Tensor) -> Result<(), NetworkError>,
    ) -> Result<Timings, NetworkError> {
        check_batch("the network's input", self.network.input_shape(), input)?;
        self.run(Some(input), Vec::new(), wanted, sink)
    }

    /// As [`Executor::forward`], but from stored layer outputs: a given layer is not run, only what lies between.
    ///
    /// A wanted layer that is itself given is handed on as it is. The result equals that of `forward` bit for bit
    /// when the given outputs are those of `forward`.
    /// Errors: those of `forward`; [`NetworkError::NotSufficient`] when a wanted layer also needs what was not
    /// given; [`NetworkError::RowCount`] when the given layers differ in rows.
    pub fn forward_from(
        &self,
        given: Vec<(usize, Tensor)>,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, Tensor) -> Result<(), NetworkError>,
    ) -> Result<Timings, NetworkError> {
        self.forward_with(None, given, wanted, sink)
    }

    /// As [`Executor::forward_from`], with the input for what also needs that.
    ///
    /// Errors: those of both.
    pub fn forward_with(
        &self,
        input: Option<&Tensor>,
        given: Vec<(usize, Tensor)>,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, Tensor) -> Result<(), NetworkError>,
    ) -> Result<Timings, NetworkError> {
        if let Some(input) = input {
            check_batch("the network's input", self.network.input_shape(), input)?;
        }
        let mut n_rows = input.and_then(|t| t.dims().first().copied());
        for (index, tensor) in &given {
            let layer = self
                .network
                .layers()
                .get(*index)
                .ok_or(NetworkError::LayerIndex { found: *index, n_layers: self.network.layers().len() })?;
            check_batch(&format!("layer {:?}", layer.name()), layer.shape(), tensor)?;
            let found = tensor.dims().first().copied().unwrap_or(0);
            let expected = *n_rows.get_or_insert(found);
            if expected != found {
                return Err(NetworkError::RowCount { layer: layer.name().into(), expected, found });
            }
        }
        self.run(input, given, wanted, sink)
    }

    fn run(
        &self,
        input: Option<&Tensor>,
        given: Vec<(usize, Tensor)>,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, Tensor) -> Result<(), NetworkError>,
    ) -> Result<Timings, NetworkError> {
        let layers = self.network.layers();
        let given_indices: Vec<usize> = given.iter().map(|(i, _)| *i).collect();
        let plan = self.network.plan(&given_indices, wanted, input.is_some())?;
        let rows = input.or(given.first().map(|(_, t)| t)).and_then(|t| t.dims().first().copied());
        let mut timings = Timings { n_rows: rows.unwrap_or(0), seconds: vec![0.0; layers.len()] };

        let mut readers = vec![0usize; layers.len()];
        for &index in &plan {
            for source in layers[index].inputs() {
                if let Source::Layer(i) = source {
                    readers[*i] += 1;
                }
            }
        }
        let mut is_wanted = vec![false; layers.len()];
        wanted.iter().for_each(|&i| is_wanted[i] = true);
        let mut runs = vec![false; layers.len()];
        plan.iter().for_each(|&i| runs[i] = true);

        let to_device = |what: &str, tensor: &Tensor| {
            tensor.to_device(&self.target).and_then(|t| t.to_dtype(DType::F32)?.contiguous()).map_err(|source| {
                NetworkError::Compute { layer: what.into(), op: "input".into(), source: Box::new(source) }
            })
        };
        let input = input.map(|t| to_device("input", t)).transpose()?;
        let mut outputs: Vec<Option<Tensor>> = vec![None; layers.len()];
        for (index, tensor) in given {
            if is_wanted[index] || readers[index] > 0 {
                outputs[index] = Some(to_device(layers[index].name(), &tensor)?);
            }
        }

        for (index, layer) in layers.iter().enumerate() {
            if runs[index] {
                let start = Instant::now();
                let output = self.run_layer(index, layer, input.as_ref(), &outputs)?;
                for source in layer.inputs() {
                    if let Source::Layer(i) = source {
                        readers[*i] -= 1;
                        if readers[*i] == 0 {
                            outputs[*i] = None;
                        }
                    }
                }
                timings.seconds[index] = start.elapsed().as_secs_f64();
                outputs[index] = Some(output);
            }
            if is_wanted[index]
                && let Some(output) = &outputs[index]
            {
                let on_cpu = output.to_device(&candle_core::Device::Cpu).and_then(|t| t.contiguous());
                sink(index, on_cpu.map_err(|e| failed(layer, e.into()))?)?;
            }
            if readers[index] == 0 {
                outputs[index] = None;
            }
        }
        Ok(timings)
    }

    fn run_layer(
        &self,
        index: usize,
        layer: &Layer,
        input: Option<&Tensor>,
        outputs: &[Option<Tensor>],
    ) -> Result<Tensor, NetworkError> {
        let operands = layer.inputs().iter().map(|source| {
            let operand = match source {
                Source::Input => input,
                Source::Layer(i) => outputs[*i].as_ref(),
            };
            operand.ok_or_else(|| NetworkError::NotSufficient {
                wanted: layer.name().into(),
                missing: format!("{source:?}"),
            })
        });
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        let output = layer.implementation().forward(&operands, &self.params[index]).map_err(|e| failed(layer, e))?;
        if !self.target.is_cpu() {
            self.target.synchronize().map_err(|e| failed(layer, e.into()))?;
        }
        Ok(output)
    }
}

/// The layer's tensors on `device`, in the order of its parameters; `weights` must have been checked.
pub(crate) fn layer_tensors(
    layer: &Layer,
    weights: &Weights,
    device: &candle_core::Device,
) -> Result<Vec<Tensor>, NetworkError> {
    let tensors = layer.param_specs().into_iter().map(|spec| {
        let name = format!("{}.{}", layer.name(), spec.suffix);
        let Some(weight) = weights.get(&name) else {
            return Err(NetworkError::MissingTensor { tensor: name, expected: spec.shape, nearest: None });
        };
        Tensor::from_slice(weight.values(), weight.shape(), device).map_err(|e| failed(layer, e.into()))
    });
    tensors.collect()
}

/// `values` as a batch of the network's input rows on the CPU.
pub(crate) fn batch(network: &Network, values: &[f32]) -> Result<Tensor, NetworkError> {
    let row_len: usize = network.input_shape().iter().product();
    if !values.len().is_multiple_of(row_len) {
        return Err(NetworkError::PartialRow { row_len, found: values.len() });
    }
    let shape = [&[values.len() / row_len], network.input_shape()].concat();
    Tensor::from_slice(values, shape, &candle_core::Device::Cpu).map_err(|source| NetworkError::Compute {
        layer: "input".into(),
        op: "input".into(),
        source: Box::new(source),
    })
}

/// A layer's failure with its name.
pub(crate) fn failed(layer: &Layer, error: OpError) -> NetworkError {
    let name = layer.name().to_string();
    match error {
        OpError::Tensor(source) => {
            NetworkError::Compute { layer: name, op: layer.op().into(), source: Box::new(source) }
        }
        OpError::BadId { row, found, vocab } => NetworkError::BadId { layer: name, row, found, vocab },
    }
}

fn check_batch(what: &str, expected: &[usize], batch: &Tensor) -> Result<(), NetworkError> {
    match batch.dims() {
        [_, row @ ..] if row == expected => Ok(()),
        found => Err(NetworkError::BatchShape { what: what.into(), expected: expected.into(), found: found.into() }),
    }
}
