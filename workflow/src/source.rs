//! candle tensors as batches of a log, without a copy.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use mistique_engine::{Code, TensorSource, Values};

use crate::log::WorkflowError;

/// A contiguous tensor on the CPU, handed over to a log as it is: the log shares candle's buffer until it is encoded.
pub struct CandleSource {
    tensor: Tensor,
    dtype: Code,
}

impl CandleSource {
    /// The source of `tensor`'s values; moved to the CPU and made contiguous where it is not. Integer tensors become
    /// f32.
    ///
    /// Errors: `Candle` when that fails.
    pub fn new(tensor: &Tensor) -> Result<Self, WorkflowError> {
        let tensor = tensor.detach().to_device(&Device::Cpu)?.contiguous()?;
        let (tensor, dtype) = match tensor.dtype() {
            DType::F32 => (tensor, Code::F32),
            DType::F16 => (tensor, Code::F16),
            DType::BF16 => (tensor, Code::BF16),
            DType::F64 => (tensor, Code::F64),
            _ => (tensor.to_dtype(DType::F32)?, Code::F32),
        };
        Ok(Self { tensor, dtype })
    }
}

impl TensorSource for CandleSource {
    fn dtype(&self) -> Code {
        self.dtype
    }

    fn len(&self) -> usize {
        self.tensor.elem_count()
    }

    fn with(&self, f: &mut dyn FnMut(Values<'_>)) -> Result<(), String> {
        let (storage, layout) = self.tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else { return Err("the tensor is not contiguous".into()) };
        let values = match &*storage {
            Storage::Cpu(CpuStorage::F32(v)) => v.get(start..end).map(Values::F32),
            Storage::Cpu(CpuStorage::F16(v)) => v.get(start..end).map(Values::F16),
            Storage::Cpu(CpuStorage::BF16(v)) => v.get(start..end).map(Values::BF16),
            Storage::Cpu(CpuStorage::F64(v)) => v.get(start..end).map(Values::F64),
            _ => None,
        };
        f(values.ok_or("the tensor is not on the CPU")?);
        Ok(())
    }
}
