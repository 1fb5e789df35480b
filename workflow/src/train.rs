//! A small training loop: Adam on cross-entropy, deterministic with a seed.

use candle_core::{DType, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use crate::error::NetworkError;
use crate::executor::{batch, failed, layer_tensors};
use crate::layers::{OpError, Step};
use crate::network::{Network, Source};
use crate::pattern::LayerPattern;
use crate::rng::Rng;
use crate::weights::Weights;

/// How one batch of an epoch went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchReport {
    /// The batch's place in the epoch, from 0.
    pub batch: usize,
    /// Batches in the epoch.
    pub n_batches: usize,
    /// Rows in this batch.
    pub n_rows: usize,
    /// Mean cross-entropy of the batch, in nats.
    pub loss: f32,
    /// Rows of the batch whose highest score was the right class.
    pub n_correct: usize,
}

/// Fits a network's weights to class labels on the CPU.
pub struct Trainer {
    network: Network,
    n_classes: usize,
    /// By layer index, in the order of the layer's parameters.
    params: Vec<Vec<Var>>,
    frozen: Vec<bool>,
    /// By layer index: nothing at or above the layer is trained, so it runs as at inference.
    fixed: Vec<bool>,
    /// By layer index, for fixed layers: what `forward` takes.
    prepared: Vec<Vec<Tensor>>,
    optimizer: AdamW,
    rng: Rng,
}

impl Trainer {
    /// Trains `network` from `weights` by Adam with the learning rate `lr`; `seed` decides order and dropout.
    ///
    /// Errors: those of [`Weights::check`]; [`NetworkError::NotAClassifier`] unless the last layer gives one score
    /// per class; [`NetworkError::BadSetting`] for a learning rate that is not a positive number.
    pub fn new(network: &Network, weights: &Weights, lr: f64, seed: u64) -> Result<Self, NetworkError> {
        Self::with_frozen(network, weights, lr, seed, &[])
    }

    /// As [`Trainer::new`], but the layers that the patterns pick keep their weights and statistics.
    ///
    /// Errors: those of `new`, and of [`LayerPattern`].
    pub fn with_frozen(
        network: &Network,
        weights: &Weights,
        lr: f64,
        seed: u64,
        frozen: &[&str],
    ) -> Result<Self, NetworkError> {
        weights.check(network)?;
        if !(lr.is_finite() && lr > 0.0) {
            let found = lr.to_string();
            return Err(NetworkError::BadSetting { name: "learning rate", found, expected: "a number above 0" });
        }
        let layers = network.layers();
        let n_classes = match layers.last().map(|l| (l.name(), l.shape())) {
            Some((_, &[n])) => n,
            Some((name, shape)) => {
                return Err(NetworkError::NotAClassifier { layer: name.into(), found: shape.into() });
            }
            None => return Err(NetworkError::NoLayers { network: network.name().into() }),
        };
        let mut is_frozen = vec![false; layers.len()];
        for pattern in frozen {
            LayerPattern::new(pattern)?.select(network)?.into_iter().for_each(|i| is_frozen[i] = true);
        }
        let mut params = Vec::new();
        let mut trained = Vec::new();
        let mut fixed: Vec<bool> = Vec::new();
        let mut prepared = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let tensors = layer_tensors(layer, weights, &candle_core::Device::Cpu)?;
            let vars = tensors.iter().map(Var::from_tensor).collect::<Result<Vec<_>, _>>();
            let vars = vars.map_err(|e| failed(layer, e.into()))?;
            if !is_frozen[index] {
                trained
                    .extend(layer.param_specs().iter().zip(&vars).filter(|(s, _)| s.trainable).map(|(_, v)| v.clone()));
            }
            let above = layer.inputs().iter().all(|s| match s {
                Source::Input => true,
                Source::Layer(i) => fixed[*i],
            });
            let is_fixed = above && is_frozen[index];
            prepared.push(if is_fixed {
                layer.implementation().prepare(tensors, &layer.input_shapes()).map_err(|e| failed(layer, e.into()))?
            } else {
                Vec::new()
            });
            fixed.push(is_fixed);
            params.push(vars);
        }
        let settings = ParamsAdamW { lr, weight_decay: 0.0, ..ParamsAdamW::default() };
        let optimizer = AdamW::new(trained, settings).map_err(|e| step_failed(network, e))?;
        let rng = Rng::named(seed, "train");
        Ok(Self { network: network.clone(), n_classes, params, frozen: is_frozen, fixed, prepared, optimizer, rng })
    }

    /// The mean loss over one pass through `images`, in an order drawn from the seed, in batches of `batch_size`.
    ///
    /// Shape: `images` holds whole input rows, `labels` one class for each. `on_batch` is called after each step.
    /// Units: nats.
    /// Errors: [`NetworkError::PartialRow`], [`NetworkError::LabelCount`], [`NetworkError::LabelRange`],
    /// [`NetworkError::BadSetting`] for a batch size or a row count of 0, [`NetworkError::Diverged`],
    /// [`NetworkError::Compute`].
    pub fn train_epoch(
        &mut self,
        images: &[f32],
        labels: &[u32],
        batch_size: usize,
        mut on_batch: impl FnMut(&BatchReport),
    ) -> Result<f32, NetworkError> {
        let all = batch(&self.network, images)?;
        let n_rows = all.dims().first().copied().unwrap_or(0);
        if labels.len() != n_rows {
            return Err(NetworkError::LabelCount { n_labels: labels.len(), n_rows });
        }
        if let Some(row) = labels.iter().position(|&l| l as usize >= self.n_classes) {
            return Err(NetworkError::LabelRange { row, label: labels[row], n_classes: self.n_classes });
        }
        for (name, value) in [("batch size", batch_size), ("number of rows", n_rows)] {
            if value == 0 {
                return Err(NetworkError::BadSetting { name, found: "0".into(), expected: "at least 1" });
            }
        }
        let order = self.rng.permutation(n_rows);
        let n_batches = n_rows.div_ceil(batch_size);
        let mut total = 0f64;
        for (index, rows) in order.chunks(batch_size).enumerate() {
            let picked: Vec<u32> = rows.iter().map(|&r| labels[r]).collect();
            let row_ids: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
            let x = Tensor::new(row_ids, all.device()).and_then(|ids| all.index_select(&ids, 0));
            let x = x.map_err(|e| step_failed(&self.network, e))?;
            let (loss, n_correct) = self.step(&x, &picked)?;
            if !loss.is_finite() {
                return Err(NetworkError::Diverged { loss, batch: index });
            }
            total += f64::from(loss) * rows.len() as f64;
            on_batch(&BatchReport { batch: index, n_batches, n_rows: rows.len(), loss, n_correct });
        }
        Ok((total / n_rows as f64) as f32)
    }

    /// The weights as they are now.
    ///
    /// Errors: [`NetworkError::Compute`] when a tensor cannot be read back.
    pub fn weights(&self) -> Result<Weights, NetworkError> {
        let mut weights = Weights::new();
        for (layer, vars) in self.network.layers().iter().zip(&self.params) {
            for (spec, var) in layer.param_specs().iter().zip(vars) {
                let values = var.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| failed(layer, e.into()))?;
                weights.insert(&format!("{}.{}", layer.name(), spec.suffix), &spec.shape, values)?;
            }
        }
        Ok(weights)
    }

    /// One step on a batch: its loss and the number of rows it had right.
    fn step(&mut self, x: &Tensor, labels: &[u32]) -> Result<(f32, usize), NetworkError> {
        let (scores, updates) = self.forward(x)?;
        let network = self.network.clone();
        let computed = cross_entropy(&scores, labels).map_err(|e| step_failed(&network, e))?;
        let (loss, value, n_correct) = computed;
        if value.is_finite() {
            self.optimizer.backward_step(&loss).map_err(|e| step_failed(&network, e))?;
            for (index, at, tensor) in updates {
                self.params[index][at].set(&tensor).map_err(|e| step_failed(&network, e))?;
            }
        }
        Ok((value, n_correct))
    }

    /// The last layer's output, and new values for statistics: (layer, parameter, value).
    #[allow(clippy::type_complexity)]
    fn forward(&mut self, x: &Tensor) -> Result<(Tensor, Vec<(usize, usize, Tensor)>), NetworkError> {
        let mut outputs: Vec<Tensor> = Vec::new();
        let mut updates = Vec::new();
        let mut step = Step { rng: self.rng.clone(), frozen: false, updates: Vec::new() };
        for (index, layer) in self.network.layers().iter().enumerate() {
            let operands: Vec<&Tensor> = layer
                .inputs()
                .iter()
                .map(|source| match source {
                    Source::Input => x,
                    Source::Layer(i) => &outputs[*i],
                })
                .collect();
            let op = layer.implementation();
            step.frozen = self.frozen[index];
            let output = if self.fixed[index] {
                op.forward(&operands, &self.prepared[index])
            } else {
                let detach = |v: &Var| if step.frozen { v.as_tensor().detach() } else { v.as_tensor().clone() };
                let params: Vec<Tensor> = self.params[index].iter().map(detach).collect();
                op.train(&operands, &params, &mut step)
            };
            outputs.push(output.map_err(|e| failed(layer, e))?);
            updates.extend(step.updates.drain(..).map(|(at, tensor)| (index, at, tensor)));
        }
        self.rng = step.rng;
        let last = outputs.pop().ok_or_else(|| NetworkError::NoLayers { network: self.network.name().into() })?;
        Ok((last, updates))
    }
}

/// The mean cross-entropy as a tensor and as a number, and how many rows have the right class on top.
fn cross_entropy(scores: &Tensor, labels: &[u32]) -> candle_core::Result<(Tensor, f32, usize)> {
    let target = Tensor::new(labels, scores.device())?;
    let loss = candle_nn::loss::cross_entropy(scores, &target)?;
    let right = scores.argmax(1)?.eq(&target)?.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()?;
    let value = loss.to_scalar::<f32>()?;
    Ok((loss, value, right as usize))
}

fn step_failed(network: &Network, error: candle_core::Error) -> NetworkError {
    match network.layers().last() {
        Some(last) => failed(last, OpError::Tensor(error)),
        None => NetworkError::NoLayers { network: network.name().into() },
    }
}
