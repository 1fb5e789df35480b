//! A tensor intermediate's way from values to codes and back: its scheme bound to its layout.

use std::ops::Range;

use half::{bf16, f16};
use mistique_quantize::{Code, OnUnholdable, QuantizeError, Reducer, UnitError, to_f32};

use crate::error::{EngineError, Result};
use crate::key::IntermediateKey;
use crate::log::Values;
use crate::model::{TensorContent, UnitAxis};

/// Encodes and decodes the rows of one tensor intermediate.
pub struct TensorCodec {
    key: IntermediateKey,
    content: TensorContent,
    /// `None` where the values are stored as they are.
    reducer: Option<Reducer>,
}

impl TensorCodec {
    /// The codec of an intermediate whose parameters are known.
    ///
    /// Errors: `Quantize` when scheme, layout and parameters do not fit each other.
    pub fn new(key: &IntermediateKey, content: &TensorContent) -> Result<Self> {
        let lossless = content.scheme.is_lossless_for(content.dtype) && content.dtype.is_float();
        let reducer = if lossless {
            None
        } else {
            let (l, params) = (&content.layout, content.params.clone());
            Some(Reducer::new(&content.scheme, l.map, l.n_units, params).map_err(|e| EngineError::quantize(key, e))?)
        };
        Ok(Self { key: key.clone(), content: content.clone(), reducer })
    }

    /// The intermediate's content.
    pub fn content(&self) -> &TensorContent {
        &self.content
    }

    /// A quantizer's error, with the intermediate's name.
    pub fn failed(&self, e: QuantizeError) -> EngineError {
        EngineError::quantize(&self.key, e)
    }

    /// The same, of values of the row of number `row`: of one that the scheme cannot hold it says which, and what to do.
    pub fn failed_at(&self, row: u64, e: EngineError) -> EngineError {
        match e {
            EngineError::Quantize { source: QuantizeError::Unholdable { value, .. }, .. } => {
                self.unholdable(row, f64::from(value))
            }
            other => other,
        }
    }

    fn unholdable(&self, row: u64, value: f64) -> EngineError {
        let (key, scheme) = (self.key.to_string(), self.content.scheme.to_string());
        let other = if self.content.dtype == Code::F64 { "f64 holds all values" } else { "f32 holds all values" };
        EngineError::Unholdable { key, value, row, scheme, other }
    }

    /// Whether each unit is encoded by a table of its own.
    pub fn has_tables(&self) -> bool {
        self.reducer.as_ref().is_some_and(Reducer::has_tables)
    }

    /// Whether decoding gives back exactly what was logged.
    pub fn is_lossless(&self) -> bool {
        self.reducer.is_none()
    }

    /// Appends the codes of one row of a batch, of the units of the consecutive `groups`, to `out`. Returns how many values
    /// were clamped.
    ///
    /// Errors: `Quantize` for values that the scheme cannot hold.
    pub fn encode_row(
        &self,
        batch: &BatchView<'_>,
        row: usize,
        groups: Range<usize>,
        on_bad: OnUnholdable,
        out: &mut Vec<u8>,
    ) -> Result<u64> {
        let (first_unit, columns) = self.columns(row, groups);
        let Some(reducer) = &self.reducer else {
            let width = self.content.dtype.width();
            let bytes = batch.bytes().get(columns.start * width..columns.end * width);
            out.extend_from_slice(bytes.unwrap_or_default());
            return Ok(0);
        };
        let maps = batch.f32().get(columns).unwrap_or_default();
        reducer.encode(first_unit, maps, on_bad, out).map_err(|e| self.failed(e))
    }

    /// Adds the error of one row's codes of the consecutive `groups` against its values to `errors` (one a unit).
    ///
    /// Errors: `Quantize`.
    pub fn measure_row(
        &self,
        batch: &BatchView<'_>,
        row: usize,
        groups: Range<usize>,
        codes: &[u8],
        errors: &mut [UnitError],
    ) -> Result<()> {
        let Some(reducer) = &self.reducer else { return Ok(()) };
        let (first_unit, columns) = self.columns(row, groups);
        let maps = batch.f32().get(columns).unwrap_or_default();
        reducer.measure(first_unit, maps, codes, errors).map_err(|e| self.failed(e))
    }

    /// The first unit of the consecutive `groups`, and where in a batch their values of a row lie.
    fn columns(&self, row: usize, groups: Range<usize>) -> (usize, Range<usize>) {
        let layout = &self.content.layout;
        let (cells, start) = (layout.map.cells(), row * layout.row_values());
        let first_unit = layout.units_of_group(groups.start).start;
        let last_unit = groups.last().map_or(first_unit, |group| layout.units_of_group(group).end);
        (first_unit, start + first_unit * cells..start + last_unit * cells)
    }

    /// Decodes rows of the codes of `n_units` units, from `first_unit` on, to f32.
    ///
    /// Errors: a quantizer's, when the codes are none of the scheme's.
    pub fn decode_rows(
        &self,
        first_unit: usize,
        n_units: usize,
        codes: &[u8],
        out: &mut [f32],
    ) -> std::result::Result<(), mistique_quantize::QuantizeError> {
        match &self.reducer {
            Some(reducer) => reducer.decode_rows(first_unit, n_units, codes, out),
            None => to_f32(self.content.dtype, codes, out),
        }
    }

    /// What each code of `unit` stands for, ascending; `None` where the codes are floats.
    pub fn code_values(&self, unit: usize) -> Option<&[f32]> {
        self.reducer.as_ref().and_then(|r| r.code_values(unit))
    }

    /// Whether pages of float codes decode straight to f32, whatever the unit.
    pub fn decodes_pages(&self) -> bool {
        matches!(self.content.layout.code, Code::F16 | Code::BF16 | Code::F32)
    }
}

/// A batch in stored order of units, as f32 where the scheme works on that.
pub struct BatchView<'a> {
    values: Values<'a>,
    reordered: Option<Vec<u8>>,
    floats: Option<Vec<f32>>,
}

impl<'a> BatchView<'a> {
    /// Prepares a batch of these rows for `content`.
    ///
    /// Errors: `Quantize`, `Unholdable` when the values do not convert.
    pub fn new(values: Values<'a>, rows: &[u64], codec: &TensorCodec, on_bad: OnUnholdable) -> Result<Self> {
        let (content, n_rows) = (codec.content(), rows.len());
        let (units, cells) = (content.layout.n_units, content.layout.map.cells());
        let reordered = (content.unit_axis == UnitAxis::Last && units > 1 && cells > 1).then(|| match values {
            Values::F32(v) => bytemuck::cast_slice(&units_first(v, n_rows, units, cells)).to_vec(),
            Values::F16(v) => bytemuck::cast_slice(&units_first(v, n_rows, units, cells)).to_vec(),
            Values::BF16(v) => bytemuck::cast_slice(&units_first(v, n_rows, units, cells)).to_vec(),
            Values::F64(v) => bytemuck::cast_slice(&units_first(v, n_rows, units, cells)).to_vec(),
        });
        let bytes = reordered.as_deref().unwrap_or_else(|| values.bytes());
        let needs_floats = codec.reducer.is_some() && (reordered.is_some() || !matches!(values, Values::F32(_)));
        let floats = match needs_floats {
            false => None,
            true => {
                let mut out = vec![0f32; values.len()];
                to_f32(values.dtype(), bytes, &mut out).map_err(|e| EngineError::quantize(&codec.key, e))?;
                if let Values::F64(_) = values
                    && let Some((index, value)) = narrowed(bytes, &mut out, on_bad)
                {
                    let row = rows.get(index / (units * cells).max(1)).copied().unwrap_or_default();
                    return Err(codec.unholdable(row, value));
                }
                Some(out)
            }
        };
        Ok(Self { values, reordered, floats })
    }

    fn bytes(&self) -> &[u8] {
        self.reordered.as_deref().unwrap_or_else(|| self.values.bytes())
    }

    fn f32(&self) -> &[f32] {
        match (&self.floats, self.values) {
            (Some(floats), _) => floats,
            (None, Values::F32(v)) => v,
            _ => &[],
        }
    }
}

/// Finite float64 values, given as bytes, beyond float32's range are clamped to its ends, or the first is returned with its
/// index.
fn narrowed(given: &[u8], out: &mut [f32], on_bad: OnUnholdable) -> Option<(usize, f64)> {
    let (given, _) = given.as_chunks::<8>();
    for (index, (value, given)) in out.iter_mut().zip(given).enumerate().filter(|(_, (v, _))| v.is_infinite()) {
        let given = f64::from_le_bytes(*given);
        // Infinities that were given stay.
        if given.is_infinite() {
            continue;
        }
        if on_bad == OnUnholdable::Error {
            return Some((index, given));
        }
        *value = value.signum() * f32::MAX;
    }
    None
}

/// Rows `[cell][unit]` as `[unit][cell]`.
fn units_first<T: Copy>(values: &[T], n_rows: usize, units: usize, cells: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for row in values.chunks_exact(units * cells).take(n_rows) {
        for unit in 0..units {
            out.extend(row.iter().skip(unit).step_by(units));
        }
    }
    out
}

/// Every `every`-th row as f32 values for fitting, in stored order of units.
pub fn sample_f32(values: Values<'_>, every: usize, axis: UnitAxis, units: usize, cells: usize) -> Vec<f32> {
    fn rows<T: Copy>(values: &[T], row: usize, every: usize, of: impl Fn(T) -> f32) -> Vec<f32> {
        values.chunks(row.max(1)).step_by(every).flatten().map(|v| of(*v)).collect()
    }
    let row = units * cells;
    let floats = match values {
        Values::F32(v) => rows(v, row, every, |x| x),
        Values::F16(v) => rows(v, row, every, f16::to_f32),
        Values::BF16(v) => rows(v, row, every, bf16::to_f32),
        Values::F64(v) => rows(v, row, every, |x| x as f32),
    };
    let n_rows = floats.len() / row.max(1);
    if axis == UnitAxis::Last && units > 1 && cells > 1 { units_first(&floats, n_rows, units, cells) } else { floats }
}
