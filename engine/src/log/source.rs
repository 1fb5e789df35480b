//! Where a batch's values come from. A source is owned by the log until its values are encoded, so that a framework's
//! own buffer can be handed over without a copy.

use half::{bf16, f16};
use mistique_quantize::Code;

/// Values of a batch, row-major.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Values<'a> {
    /// float32.
    F32(&'a [f32]),
    /// float16.
    F16(&'a [f16]),
    /// bfloat16.
    BF16(&'a [bf16]),
    /// float64.
    F64(&'a [f64]),
}

impl Values<'_> {
    /// Type of a value.
    pub fn dtype(&self) -> Code {
        match self {
            Self::F32(_) => Code::F32,
            Self::F16(_) => Code::F16,
            Self::BF16(_) => Code::BF16,
            Self::F64(_) => Code::F64,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F16(v) => v.len(),
            Self::BF16(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice(v),
            Self::F16(v) => bytemuck::cast_slice(v),
            Self::BF16(v) => bytemuck::cast_slice(v),
            Self::F64(v) => bytemuck::cast_slice(v),
        }
    }
}

/// A batch of tensor rows that the log may keep until it is encoded.
pub trait TensorSource: Send {
    /// Type of the values.
    fn dtype(&self) -> Code;
    /// Number of values.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Calls `f` once with the values.
    ///
    /// Errors: a text, where the values cannot be had.
    fn with(&self, f: &mut dyn FnMut(Values<'_>)) -> Result<(), String>;
}

macro_rules! vec_source {
    ($($t:ty => $variant:ident),*) => {$(
        impl TensorSource for Vec<$t> {
            fn dtype(&self) -> Code {
                Code::$variant
            }
            fn len(&self) -> usize {
                Vec::len(self)
            }
            fn with(&self, f: &mut dyn FnMut(Values<'_>)) -> Result<(), String> {
                f(Values::$variant(self));
                Ok(())
            }
        }
        impl TensorSource for std::sync::Arc<[$t]> {
            fn dtype(&self) -> Code {
                Code::$variant
            }
            fn len(&self) -> usize {
                self.as_ref().len()
            }
            fn with(&self, f: &mut dyn FnMut(Values<'_>)) -> Result<(), String> {
                f(Values::$variant(self));
                Ok(())
            }
        }
    )*};
}

vec_source!(f32 => F32, f16 => F16, bf16 => BF16, f64 => F64);
