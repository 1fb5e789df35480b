//! Runs that produce intermediates: networks on candle.
//!
//! A [`Network`] is a validated description (YAML or JSON) of named layers, [`Weights`] are its named tensors, an
//! [`Executor`] runs the two and hands out every wanted layer's output, and a [`Trainer`] fits the weights. Running
//! can start from the network's input or from stored layer outputs ([`Executor::forward_from`]).
//!
//! A new layer kind is one file in `layers/` and one line in `layers::KINDS`.

mod builtin;
mod conv;
mod device;
mod error;
mod executor;
mod gather;
mod graph;
mod layers;
mod log;
mod network;
mod parse;
mod pattern;
pub mod pipeline;
mod rerun;
mod rng;
mod slices;
mod source;
mod suggest;
mod train;
mod weights;

pub use builtin::BUILTIN;
pub use device::Device;
pub use error::{At, NetworkError};
pub use executor::{Executor, Timings};
pub use gather::Indexed;
pub use layers::kinds;
pub use log::{Input, Progress, RunOptions, RunReport, TrainingLogger, WorkflowError, log_intermediates};
pub use network::{Layer, Network, ParamInfo, Source};
pub use pattern::LayerPattern;
pub use rerun::NetworkRerun;
pub use source::CandleSource;
pub use train::{BatchReport, Trainer};
pub use weights::{Weight, Weights};
