//! Building by-example indexes: one pass over the layer, by READ or RERUN.

use mistique_engine::{ByExampleSize, EngineError, IndexRecord, IntermediateKey, MapValue, NewIndex, by_example_index};

use super::by_example::WIDE;
use super::group::Layer;
use crate::error::{QueryError, Result};
use crate::plan::PlanChoice;
use crate::reader::ChunkReader;

/// Bytes of a layer that an index may take, as a share of its float32 bytes.
pub const INDEX_SHARE: f64 = 0.2;
/// Bytes of activations held at a time; layers of more take several passes.
const HELD_BYTES: usize = 1 << 30;
/// Bytes of values fetched at a time.
const FETCHED_BYTES: usize = 64 << 20;
/// Rows fetched at a time, at most: a RowBlock's.
const FETCHED_ROWS: usize = 1024;

impl ChunkReader<'_> {
    /// Builds the by-example index of a layer and keeps it in place of an earlier one of the same values. Its bytes are at
    /// most `share` of the layer's in float32; `progress` is told how many rows of how many were fetched.
    ///
    /// Errors: `NotFound`, `Unsupported` for tables; `Mismatch` for a layer so small that an index of that share has no room;
    /// `Locked`, `Io`; what fetching the layer's values meets.
    pub fn create_by_example_index(
        &self,
        key: &IntermediateKey,
        by: MapValue,
        exact: bool,
        share: f64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<IndexRecord> {
        let layer = Layer::new(self, key, by, exact, PlanChoice::Auto)?;
        if layer.is_wide {
            return Err(EngineError::Unsupported { what: key.to_string(), why: WIDE.into() }.into());
        }
        let new = build(self, &layer, share, progress)?;
        Ok(keep(self, &layer, &new)?)
    }
}

pub(super) fn keep(reader: &ChunkReader<'_>, layer: &Layer, new: &NewIndex) -> mistique_engine::Result<IndexRecord> {
    reader.store().put_index(&layer.record, new)
}

/// Whether there is room for an index of the layer.
pub(super) fn has_room(layer: &Layer, share: f64) -> bool {
    ByExampleSize::has_room(&layer.rows, layer.n_columns(), share * layer.full_bytes())
}

pub(super) fn build(
    reader: &ChunkReader<'_>,
    layer: &Layer,
    share: f64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<NewIndex> {
    let rows: Vec<u64> = layer.rows.iter().collect();
    if !has_room(layer, share) {
        return Err(QueryError::Mismatch {
            what: format!("index of {}", layer.record.key),
            why: format!(
                "{} rows are too few for an index of {:.0}% of their bytes; reading them is as fast",
                rows.len(),
                100.0 * share
            ),
        });
    }
    let layout = &layer.layout;
    let unit_columns = layer.n_columns() / layout.n_units.max(1);
    let row_bytes = (layout.row_values() * 4).max(1);
    let batch = (FETCHED_BYTES / row_bytes).clamp(1, FETCHED_ROWS);
    let pass_units = (HELD_BYTES / (rows.len() * unit_columns * 4).max(1)).clamp(1, layout.n_units.max(1));
    let n_passes = layout.n_units.div_ceil(pass_units) as u64;
    let mut index: Option<NewIndex> = None;
    for (pass, first) in (0..layout.n_units).step_by(pass_units).enumerate() {
        let units = first..(first + pass_units).min(layout.n_units);
        let selector =
            if units.len() == layout.n_units { "*".to_string() } else { format!("u{}..{}", units.start, units.end) };
        let mut values = Vec::with_capacity(rows.len() * units.len() * unit_columns);
        for some in rows.chunks(batch) {
            values.extend(layer.fetch(reader, &selector, some)?.0);
            let done = values.len() / (units.len() * unit_columns).max(1);
            progress((pass * rows.len() + done) as u64, n_passes * rows.len() as u64);
        }
        // Each pass has its part of the bytes.
        let budget = share * layer.full_bytes() * units.len() as f64 / layout.n_units as f64;
        let n_columns = units.len() * unit_columns;
        let size = ByExampleSize::within(&rows, &values, n_columns, budget);
        let part = by_example_index(&rows, &values, n_columns, size, layer.of)?;
        match &mut index {
            None => index = Some(part),
            Some(index) => index.sections.extend(part.sections),
        }
    }
    index.ok_or_else(|| QueryError::Mismatch {
        what: format!("index of {}", layer.record.key),
        why: "the layer has no units".into(),
    })
}
