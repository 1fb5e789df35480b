//! Pure functions on values: pooling, quantizers and page encodings.
//!
//! An intermediate has, per row, one map of h × w cells for each unit. A [`Scheme`] says how values are reduced:
//! pooled, then quantized to *codes*. A [`Reducer`] runs it. [`encode_page`] packs the codes of a page without loss.

mod code;
mod codebook;
mod convert;
mod error;
mod fit;
mod lloyd;
mod measure;
mod page;
mod params;
mod pool;
mod quantiles;
mod reduce;
mod scheme;
mod simd;
mod stats;

pub use code::{Code, MapShape, OnUnholdable};
pub use convert::to_f32;
pub use error::{QuantizeError, Result};
pub use measure::UnitError;
pub use page::{
    BasePage, Effort, Encoding, Habit, SharedDecoder, SharedEncoder, decode_against, decode_page, decode_page_f32,
    encode_against, encode_copied, encode_page, estimate_against, pack, packed_len, unpack,
};
pub use params::{PARAMS_VERSION, Params};
pub use reduce::Reducer;
pub use scheme::Scheme;
pub use stats::{PageStats, page_stats};
