//! pco streams: numbers by how they are distributed, for columns of tables.

use half::f16;
use pco::data_types::Number;
use pco::metadata::DeltaEncoding;
use pco::standalone::{DecompressorItem, FileDecompressor, simple_compress};
use pco::{ChunkConfig, DeltaSpec};

use crate::Code;
use crate::error::{QuantizeError, Result, corrupt};

/// Whether codes of this type can be a pco stream.
pub(crate) const fn holds(code: Code) -> bool {
    matches!(code, Code::F16 | Code::F32 | Code::F64 | Code::Int(2 | 4 | 8))
}

/// Calls a function of a number type with the type of a code.
macro_rules! by_type {
    ($code:expr, $f:ident($($arg:expr),*)) => {
        match $code {
            Code::F16 => $f::<f16, 2>($($arg,)* |b| f16::from_le_bytes(b), |x| x.to_le_bytes()),
            Code::F32 => $f::<f32, 4>($($arg,)* f32::from_le_bytes, f32::to_le_bytes),
            Code::F64 => $f::<f64, 8>($($arg,)* f64::from_le_bytes, f64::to_le_bytes),
            Code::Int(2) => $f::<i16, 2>($($arg,)* i16::from_le_bytes, i16::to_le_bytes),
            Code::Int(4) => $f::<i32, 4>($($arg,)* i32::from_le_bytes, i32::to_le_bytes),
            Code::Int(8) => $f::<i64, 8>($($arg,)* i64::from_le_bytes, i64::to_le_bytes),
            code => Err(QuantizeError::UnsupportedCode { what: "a pco stream", code }),
        }
    };
}

/// How hard streams are looked for that are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Long.
    Small,
    /// Two fifths of the time, and 3% more bytes (columns of homes); less where differences of numbers are not tried.
    Quick { differences: bool },
}

impl Search {
    fn config(self) -> ChunkConfig {
        let (level, differences) = match self {
            Self::Small => (8, true),
            Self::Quick { differences } => (6, differences),
        };
        let delta = if differences { DeltaSpec::Auto } else { DeltaSpec::NoOp };
        ChunkConfig::default().with_compression_level(level).with_delta_spec(delta)
    }
}

/// Appends the codes as a pco stream.
///
/// Errors: `UnsupportedCode`, `Pco`.
pub(crate) fn compress(code: Code, codes: &[u8], search: Search, out: &mut Vec<u8>) -> Result<()> {
    by_type!(code, compress_as(codes, search, out))
}

/// Whether a stream holds differences of numbers; also where that cannot be told.
pub(crate) fn has_differences(code: Code, bytes: &[u8]) -> bool {
    let found: Result<bool> = by_type!(code, has_differences_as(bytes));
    found.unwrap_or(true)
}

/// Decodes exactly `out.len()` bytes of codes.
///
/// Errors: `UnsupportedCode`; `Corrupt` for a stream of more or fewer numbers, of another type, or with bytes after it.
pub(crate) fn decompress(code: Code, bytes: &[u8], out: &mut [u8]) -> Result<()> {
    by_type!(code, decompress_as(bytes, out))
}

fn compress_as<T: Number, const W: usize>(
    codes: &[u8],
    search: Search,
    out: &mut Vec<u8>,
    from: impl Fn([u8; W]) -> T,
    _: impl Fn(T) -> [u8; W],
) -> Result<()> {
    let numbers: Vec<T> = codes.as_chunks::<W>().0.iter().map(|b| from(*b)).collect();
    let stream = simple_compress(&numbers, &search.config()).map_err(|e| QuantizeError::Pco(e.to_string()))?;
    out.extend_from_slice(&stream);
    Ok(())
}

fn has_differences_as<T: Number, const W: usize>(
    bytes: &[u8],
    _: impl Fn([u8; W]) -> T,
    _: impl Fn(T) -> [u8; W],
) -> Result<bool> {
    let bad = |_| corrupt("pco stream", "contents");
    let (file, rest) = FileDecompressor::new(bytes).map_err(bad)?;
    match file.chunk_decompressor::<T, _>(rest).map_err(bad)? {
        DecompressorItem::Chunk(chunk) => Ok(chunk.meta().delta_encoding != DeltaEncoding::NoOp),
        DecompressorItem::EndOfData(_) => Ok(false),
    }
}

fn decompress_as<T: Number + Default, const W: usize>(
    bytes: &[u8],
    out: &mut [u8],
    _: impl Fn([u8; W]) -> T,
    to: impl Fn(T) -> [u8; W],
) -> Result<()> {
    let bad = |_| corrupt("pco stream", "contents");
    let places = out.as_chunks_mut::<W>().0;
    let mut numbers = vec![T::default(); places.len()];
    let mut at = 0;
    let (file, mut rest) = FileDecompressor::new(bytes).map_err(bad)?;
    loop {
        match file.chunk_decompressor::<T, _>(rest).map_err(bad)? {
            DecompressorItem::EndOfData(after) if at == numbers.len() && after.is_empty() => break,
            DecompressorItem::EndOfData(_) => return Err(corrupt("pco stream", "length")),
            DecompressorItem::Chunk(mut chunk) => {
                let progress = chunk.read(&mut numbers[at..]).map_err(bad)?;
                if !progress.finished || progress.n_processed == 0 {
                    return Err(corrupt("pco stream", "length"));
                }
                at += progress.n_processed;
                rest = chunk.into_src();
            }
        }
    }
    places.iter_mut().zip(numbers).for_each(|(place, x)| *place = to(x));
    Ok(())
}
