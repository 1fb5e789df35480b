//! Values for RowBlocks that lack them: what logging would have stored, stored afterwards.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::take;
use mistique_quantize::OnUnholdable;
use twox_hash::XxHash3_64;

use super::columns::NamedColumn;
use super::growing::GrowingChunk;
use super::source::Values;
use super::table::conform;
use super::writer::ChunkWriter;
use crate::catalog::{Block, Fill, WITHHELD};
use crate::codec::{BatchView, TensorCodec};
use crate::error::{EngineError, Result};
use crate::model::{Content, IntermediateRecord};
use crate::rerun::RerunValues;
use crate::rows::RowSet;

/// How many times as many RowBlocks as its rows need an intermediate may have: parts of RowBlocks become RowBlocks of their
/// own, each of which costs chunks, and a look at it in every answer.
const MOST_PARTS: usize = 8;

/// Whether rows of a RowBlock can be stored without the others: none of its groups is, and the intermediate is not in too
/// many pieces.
pub fn is_divisible(record: &IntermediateRecord, block: &Block, n_blocks: usize) -> bool {
    let needed = (record.n_rows as usize).div_ceil(record.content.block_rows().max(1)).max(1);
    n_blocks < needed * MOST_PARTS && block.chunks.iter().all(|chunk| *chunk == WITHHELD)
}

/// Values at full precision for groups of an intermediate.
pub struct FillJob {
    /// The intermediate.
    pub record: IntermediateRecord,
    /// Whether each group is wanted.
    pub groups: Vec<bool>,
    /// Row_ids of the values, each once.
    pub rows: Vec<u64>,
    /// The values, in their order.
    pub values: RerunValues,
}

impl FillJob {
    /// Stores the wanted groups of every RowBlock that lacks some and whose rows are all here, and of those rows that are
    /// here where the RowBlock can be divided.
    ///
    /// Errors: `Shape`, `Quantize`, and those of the writer.
    pub fn run(&self, writer: &mut ChunkWriter, pool: &rayon::ThreadPool, on_bad: OnUnholdable) -> Result<Vec<Fill>> {
        let at: HashMap<u64, usize> = self.rows.iter().enumerate().map(|(i, row)| (*row, i)).collect();
        let mut fills = Vec::new();
        let slabs = Arc::default();
        let blocks = writer.catalog().blocks(&self.record, 0, u64::MAX)?;
        let mut n_blocks = blocks.len();
        for block in blocks {
            let wanted = block.chunks.iter().zip(&self.groups).enumerate();
            let lacking: Vec<usize> =
                wanted.filter(|(_, (chunk, wanted))| **chunk == WITHHELD && **wanted).map(|(g, _)| g).collect();
            let (held, positions): (Vec<u64>, Vec<usize>) =
                block.rows.iter().filter_map(|row| Some((row, *at.get(&row)?))).unzip();
            let is_part = held.len() < block.rows.len();
            if held.is_empty() || lacking.is_empty() || (is_part && !is_divisible(&self.record, &block, n_blocks)) {
                continue;
            }
            // What was before it, the part, and what was after it.
            n_blocks += if is_part { 2 } else { 0 };
            let held = RowSet::from_ids(&held);
            let chunks = match (&*self.record.content, &self.values) {
                (Content::Tensor(content), RerunValues::Tensor { values, .. }) => {
                    let codec = TensorCodec::new(&self.record.key, content)?;
                    let n = content.layout.row_values();
                    if values.len() != n * self.rows.len() {
                        return Err(self.other_shape((n * self.rows.len()).to_string(), values.len().to_string()));
                    }
                    let mut rows = Vec::with_capacity(n * positions.len());
                    for run in runs(&positions) {
                        rows.extend_from_slice(values.get(run.start * n..run.end * n).unwrap_or_default());
                    }
                    let ids: Vec<u64> = held.iter().collect();
                    let batch = BatchView::new(Values::F32(&rows), &ids, &codec, on_bad)?;
                    let mut chunks = Vec::with_capacity(lacking.len());
                    for group in &lacking {
                        let shape = content.layout.chunk_shape(*group, positions.len());
                        let mut chunk = GrowingChunk::new(shape, &slabs);
                        let (mut codes, mut page) = (Vec::new(), Vec::new());
                        for (row, id) in ids.iter().enumerate() {
                            codes.clear();
                            let encoded = codec.encode_row(&batch, row, *group..*group + 1, on_bad, &mut codes);
                            encoded.map_err(|e| codec.failed_at(*id, e))?;
                            chunk.push_row(&codes, &mut page).map_err(|e| codec.failed(e))?;
                        }
                        chunks.push(chunk);
                    }
                    writer.put(&mut chunks, &self.record.key, pool)?
                }
                (Content::Table(content), RerunValues::Table(batch)) => {
                    let batch = conform(&self.record.key, &content.schema, batch)?;
                    let index = UInt64Array::from_iter_values(positions.iter().map(|p| *p as u64));
                    let columns = lacking.iter().filter_map(|g| batch.columns().get(*g));
                    let arrays: Vec<ArrayRef> = columns.map(|c| Ok(take(c, &index, None)?)).collect::<Result<_>>()?;
                    let rows = XxHash3_64::oneshot(&held.to_bytes());
                    let fields = lacking.iter().filter_map(|g| content.schema.fields().get(*g));
                    let named = arrays.iter().zip(fields);
                    let columns: Vec<_> = named.map(|(array, f)| NamedColumn { array, name: f.name() }).collect();
                    writer.reading(|w| w.put_columns(self.record.id, &columns, rows, &self.record.key, pool))?
                }
                (Content::Tensor(_), RerunValues::Table(_)) => {
                    return Err(self.other_shape("a tensor".into(), "a table".into()));
                }
                (Content::Table(_), RerunValues::Tensor { .. }) => {
                    return Err(self.other_shape("a table".into(), "a tensor".into()));
                }
            };
            let chunks = lacking.into_iter().zip(chunks).collect();
            fills.push(Fill { intermediate_id: self.record.id, block, part: is_part.then_some(held), chunks });
        }
        Ok(fills)
    }

    fn other_shape(&self, expected: String, got: String) -> EngineError {
        EngineError::Shape { key: self.record.key.to_string(), what: "rerun values", expected, got }
    }
}

/// Consecutive positions as ranges.
fn runs(positions: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &p in positions {
        match runs.last_mut() {
            Some(run) if run.end == p => run.end += 1,
            _ => runs.push(p..p + 1),
        }
    }
    runs
}
