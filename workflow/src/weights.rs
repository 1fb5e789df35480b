//! The named tensors of a network, in PyTorch's names and layouts, read from and written to safetensors.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::NetworkError;
use crate::layers::Init;
use crate::network::Network;
use crate::rng::Rng;
use crate::suggest::nearest;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Weight {
    /// The tensor's shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The tensor's values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// The tensors of a network by name: `<layer>.weight`, `<layer>.bias`, `<layer>.running_mean`, `<layer>.running_var`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, Weight>,
}

impl Weights {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Random starting weights: He uniform for convolutions and layers before a ReLU or GELU, Glorot uniform for
    /// other linear layers, biases 0. Equal seeds give equal weights, in every version and on every machine.
    pub fn init(network: &Network, seed: u64) -> Self {
        let mut weights = Self::new();
        for layer in network.layers() {
            for spec in layer.param_specs() {
                let name = format!("{}.{}", layer.name(), spec.suffix);
                let n = spec.shape.iter().product();
                let values = match spec.init {
                    Init::Constant(value) => vec![value; n],
                    Init::Uniform(limit) => {
                        let mut rng = Rng::named(seed, &name);
                        (0..n).map(|_| rng.uniform(limit)).collect()
                    }
                };
                weights.tensors.insert(name, Weight { shape: spec.shape, values });
            }
        }
        weights
    }

    /// Adds or replaces a tensor.
    ///
    /// Errors: [`NetworkError::TensorLength`] when the values do not fill the shape.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<(), NetworkError> {
        let n = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        if n != Some(values.len()) {
            let found = values.len();
            return Err(NetworkError::TensorLength { tensor: name.into(), shape: shape.into(), found });
        }
        self.tensors.insert(name.into(), Weight { shape: shape.into(), values });
        Ok(())
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.tensors.iter().map(|(name, weight)| (name.as_str(), weight))
    }

    /// The tensors of a safetensors file, such as a PyTorch `state_dict` saved with `safetensors.torch.save_file`.
    ///
    /// F16, BF16 and F64 become f32. PyTorch's batch counters (`….num_batches_tracked`) are left out.
    /// Errors: [`NetworkError::Safetensors`] for a damaged file, [`NetworkError::TensorType`] for other types.
    pub fn load_safetensors(bytes: &[u8]) -> Result<Self, NetworkError> {
        let file = SafeTensors::deserialize(bytes).map_err(|source| NetworkError::Safetensors { source })?;
        let mut weights = Self::new();
        for (name, view) in file.tensors() {
            if name.ends_with(".num_batches_tracked") {
                continue;
            }
            let values = to_f32(view.dtype(), view.data()).ok_or_else(|| NetworkError::TensorType {
                tensor: name.clone(),
                found: format!("{:?}", view.dtype()),
            })?;
            weights.insert(&name, view.shape(), values)?;
        }
        Ok(weights)
    }

    /// The tensors as a safetensors file of F32. Equal weights give equal bytes.
    ///
    /// Errors: [`NetworkError::Safetensors`] when the format cannot hold them.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, NetworkError> {
        let failed = |source| NetworkError::Safetensors { source };
        let raw: Vec<(&str, &Weight, Vec<u8>)> =
            self.iter().map(|(name, w)| (name, w, w.values.iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
        let views =
            raw.iter().map(|(name, w, bytes)| Ok((*name, TensorView::new(Dtype::F32, w.shape.clone(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        safetensors::serialize(views, None).map_err(failed)
    }

    /// Checks that these are exactly the tensors that `network` needs.
    ///
    /// Errors: [`NetworkError::MissingTensor`], [`NetworkError::TensorShape`] or [`NetworkError::ExtraTensor`], for
    /// the first that differs in layer order.
    pub fn check(&self, network: &Network) -> Result<(), NetworkError> {
        let needed = network.params();
        for param in &needed {
            match self.get(&param.name) {
                Some(weight) if weight.shape == param.shape => {}
                Some(weight) => {
                    return Err(NetworkError::TensorShape {
                        tensor: param.name.clone(),
                        expected: param.shape.clone(),
                        found: weight.shape.clone(),
                    });
                }
                None => {
                    let unused = self.tensors.keys().filter(|k| needed.iter().all(|p| p.name != **k));
                    return Err(NetworkError::MissingTensor {
                        tensor: param.name.clone(),
                        expected: param.shape.clone(),
                        nearest: nearest(&param.name, unused.map(String::as_str)),
                    });
                }
            }
        }
        match self.tensors.keys().find(|k| needed.iter().all(|p| p.name != **k)) {
            None => Ok(()),
            Some(extra) => Err(NetworkError::ExtraTensor {
                tensor: extra.clone(),
                network: network.name().into(),
                nearest: nearest(extra, needed.iter().map(|p| p.name.as_str())),
            }),
        }
    }

    /// xxh3-128 of names, shapes and values, little-endian.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut hash = twox_hash::xxhash3_128::Hasher::new();
        for (name, weight) in self.iter() {
            hash.write(&(name.len() as u64).to_le_bytes());
            hash.write(name.as_bytes());
            hash.write(&(weight.shape.len() as u64).to_le_bytes());
            weight.shape.iter().for_each(|&s| hash.write(&(s as u64).to_le_bytes()));
            let bytes: Vec<u8> = weight.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.write(&bytes);
        }
        hash.finish_128().to_le_bytes()
    }
}

/// Little-endian values of a floating type as f32.
fn to_f32(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        data.as_chunks::<N>().0.iter().map(|bytes| convert(*bytes)).collect()
    }
    match dtype {
        Dtype::F32 => Some(each(data, f32::from_le_bytes)),
        Dtype::F64 => Some(each(data, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F16 => Some(each(data, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(each(data, |b| bf16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}
