//! Reading tensors.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Instant;

use super::{Store, chunks_of};
use crate::chunk::ChunkView;
use crate::error::{EngineError, Result};
use crate::model::IntermediateRecord;
use crate::read::{self, Chunks};
use crate::row_plan::RowPlan;

impl Store {
    /// Fills `out` (rows × columns, row-major) with stored columns of a tensor, as f32.
    ///
    /// `columns` count stored cells, unit by unit. Errors: `Shape` when `out` has another length; `Corrupt`, `Io`.
    pub fn read_f32(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        columns: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<()> {
        self.read_through(record, plan, columns, out, true)
    }

    /// As [`Store::read_f32`], but without the InMemoryStore, as a request reads that is too large for it.
    ///
    /// Errors: as there.
    pub fn read_past_memory(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        columns: &[Range<usize>],
        out: &mut [f32],
    ) -> Result<()> {
        self.read_through(record, plan, columns, out, false)
    }

    fn read_through(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        columns: &[Range<usize>],
        out: &mut [f32],
        may_hold: bool,
    ) -> Result<()> {
        let n = record.tensor()?.layout.stored_values();
        if let Some(bad) = columns.iter().find(|c| c.start > c.end || c.end > n) {
            return Err(EngineError::Shape {
                key: record.key.to_string(),
                what: "columns",
                expected: format!("within 0..{n}"),
                got: format!("{bad:?}"),
            });
        }
        if plan.n_rows() == 0 && out.is_empty() {
            // A scheme may not be settled before the first row.
            return Ok(());
        }
        let begun = Instant::now();
        let codec = self.codec(record)?;
        let group_cols = codec.content().layout.group_units * codec.content().layout.stored.cells();
        let groups: BTreeSet<usize> =
            columns.iter().flat_map(|c| c.start / group_cols..c.end.div_ceil(group_cols)).collect();
        self.check_materialized(record, plan, &groups)?;
        let looking = Instant::now();
        let places = self.load_places(chunks_of(&plan.blocks, &groups))?;
        let looked = looking.elapsed().as_secs_f64();
        let meter = read::read_f32(self, &codec, record, (plan, columns), out, may_hold)?;
        self.keep_read(record, &meter, out.len(), (places, groups.len(), looked), begun);
        Ok(())
    }

    /// Errors: `NotMaterialized` when values of `groups` are withheld.
    pub(super) fn check_materialized(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        groups: &BTreeSet<usize>,
    ) -> Result<()> {
        let groups: Vec<usize> = groups.iter().copied().collect();
        match plan.lacking(&groups) {
            (0, _) => Ok(()),
            (lacking, touched) => {
                let what = format!("columns in {lacking} of {touched} RowBlocks");
                Err(EngineError::NotMaterialized { key: record.key.to_string(), what })
            }
        }
    }

    /// Codes of stored columns of a tensor, as the bytes of their stored type: `[rows][columns]`.
    ///
    /// Errors: `Corrupt`, `Io`, `Shape`.
    pub fn read_codes(&self, record: &IntermediateRecord, plan: &RowPlan) -> Result<Vec<u8>> {
        let begun = Instant::now();
        self.refresh()?;
        let layout = record.tensor()?.layout;
        self.check_materialized(record, plan, &(0..layout.n_groups()).collect())?;
        let width = layout.code.width();
        let row_len = layout.stored_values() * width;
        let mut out = vec![0u8; plan.n_rows() * row_len];
        let damaged = |why: &str| EngineError::corrupt("catalog.db", 0, why);
        for group in 0..layout.n_groups() {
            let start = group * layout.group_units * layout.stored.cells() * width;
            let n_cols = layout.units_of_group(group).len() * layout.stored.cells() * width;
            // Scattered rows come back to the same chunks: each is decoded once.
            let mut decoded: HashMap<usize, Vec<u8>> = HashMap::new();
            for (block, position, at, len) in plan.runs() {
                let codes = match decoded.entry(block) {
                    Entry::Occupied(held) => held.into_mut(),
                    Entry::Vacant(empty) => {
                        let chunk = plan.blocks.get(block).and_then(|b| b.chunks.get(group)).copied();
                        empty.insert(self.chunk_codes(chunk.ok_or_else(|| damaged("a RowBlock lacks a chunk"))?)?)
                    }
                };
                for i in 0..len {
                    let (from, to) = ((position + i) * n_cols, (at + i) * row_len + start);
                    let row = codes.get(from..from + n_cols);
                    let row = row.ok_or_else(|| damaged("a chunk has fewer rows than its RowBlock"))?;
                    out[to..to + n_cols].copy_from_slice(row);
                }
            }
        }
        self.keep_codes_read(record, plan, begun.elapsed().as_secs_f64());
        Ok(out)
    }

    fn chunk_codes(&self, chunk: i64) -> Result<Vec<u8>> {
        let (partition, place) = self.place(chunk)?;
        let bytes = partition.chunk(place)?;
        let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
        Ok(self.decode(&view, place)?.codes)
    }
}
