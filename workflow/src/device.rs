//! Which device a network runs on.

use std::fmt;
use std::str::FromStr;

use crate::error::NetworkError;

/// A device to run on. Parses from, and prints as, `cpu` or `cuda:0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by number. Needs the cargo feature `cuda`.
    Cuda(usize),
}

impl Device {
    /// The tensor library's handle of this device.
    ///
    /// Errors: [`NetworkError::NoCuda`] without the cargo feature `cuda`, [`NetworkError::DeviceFailed`] when the
    /// machine has no such GPU.
    pub fn open(self) -> Result<candle_core::Device, NetworkError> {
        match self {
            Device::Cpu => Ok(candle_core::Device::Cpu),
            Device::Cuda(_) if !cfg!(feature = "cuda") => Err(NetworkError::NoCuda { device: self.to_string() }),
            Device::Cuda(number) => candle_core::Device::new_cuda(number)
                .map_err(|source| NetworkError::DeviceFailed { device: self.to_string(), source: Box::new(source) }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let unknown = || NetworkError::UnknownDevice { found: text.to_string() };
        match text.trim() {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            other => {
                let number = other.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Device::Cuda).map_err(|_| unknown())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_devices_parse_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for bad in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(matches!(bad.parse::<Device>(), Err(NetworkError::UnknownDevice { .. })), "{bad}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_without_the_feature_says_how_to_build() {
        let error = Device::Cuda(0).open().unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}
