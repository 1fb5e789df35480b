//! Stored values as codes: what ranks, compares and counts them reads the pages that matter, and decodes no more than a
//! unit's map at a time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use mistique_engine::{Code, CodePage, EngineError, IntermediateRecord, RowPlan, Store, TensorCodec};

use crate::columns::TensorColumns;
use crate::error::Result;

/// One unit of a scan, or one cell of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodeUnit {
    /// Its number in the intermediate.
    pub unit: usize,
    /// The group of units in whose chunks it lies.
    pub group: usize,
    /// Cells of its stored map.
    pub cells: Range<usize>,
}

/// Units of a scan that lie one after another in their chunks and are decoded alike, as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodeRun {
    /// Place of its first value among the scan's columns.
    pub column: usize,
    /// The first of them, with the cells of all.
    pub unit: CodeUnit,
}

/// A READ of a tensor, on its codes.
pub(crate) struct CodeScan<'s> {
    store: &'s Store,
    record: &'s IntermediateRecord,
    plan: &'s RowPlan,
    codec: Arc<TensorCodec>,
    units: Vec<CodeUnit>,
    /// Whether the codes of all units ascend as their values do, so that zone maps bound values.
    ordered: bool,
}

impl<'s> CodeScan<'s> {
    /// The codes of columns; `None` for float64, which f32 would round.
    pub fn new(
        store: &'s Store,
        record: &'s IntermediateRecord,
        plan: &'s RowPlan,
        columns: &[TensorColumns],
    ) -> Result<Option<Self>> {
        let codec = store.codec(record)?;
        let layout = codec.content().layout;
        if layout.code == Code::F64 {
            return Ok(None);
        }
        let cells = layout.stored.cells();
        let mut units = Vec::new();
        for c in columns {
            for unit in c.units.clone() {
                let group = unit / layout.group_units;
                let cells = match c.cell {
                    None => 0..cells,
                    Some(_) => {
                        let at = c.stored(&layout).start - unit * cells;
                        at..at + 1
                    }
                };
                units.push(CodeUnit { unit, group, cells });
            }
        }
        let ordered = units.iter().all(|u| codec.code_values(u.unit).is_none_or(<[f32]>::is_sorted));
        Ok(Some(Self { store, record, plan, codec, units, ordered }))
    }

    pub fn store(&self) -> &'s Store {
        self.store
    }

    /// Of the intermediate.
    pub fn key(&self) -> String {
        self.record.key.to_string()
    }

    /// In the order of the scan's units.
    pub fn units(&self) -> &[CodeUnit] {
        &self.units
    }

    /// The units in runs, in their order.
    pub fn runs(&self) -> Vec<CodeRun> {
        let map = self.codec.content().layout.stored.cells();
        let mut runs: Vec<CodeRun> = Vec::new();
        let mut column = 0;
        for unit in &self.units {
            let follows = |last: &CodeRun| {
                let next = last.unit.unit * map + last.unit.cells.end;
                last.unit.group == unit.group
                    && next == unit.unit * map + unit.cells.start
                    && self.code_values(&last.unit) == self.code_values(unit)
            };
            match runs.last_mut().filter(|last| follows(last)) {
                Some(last) => last.unit.cells.end += unit.cells.len(),
                None => runs.push(CodeRun { column, unit: unit.clone() }),
            }
            column += unit.cells.len();
        }
        runs
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.plan.rows.len()
    }

    /// Row_ids by position.
    pub fn rows(&self) -> Vec<u64> {
        self.plan.rows.iter().collect()
    }

    /// Type of a code.
    pub fn code(&self) -> Code {
        self.codec.content().layout.code
    }

    /// The pages of all units.
    pub fn pages(&self) -> Result<Vec<CodePage>> {
        let groups: BTreeSet<usize> = self.units.iter().map(|u| u.group).collect();
        Ok(self.store.code_pages(self.record, self.plan, &groups)?)
    }

    /// What each code of a unit stands for; `None` where codes are floats.
    pub fn code_values(&self, unit: &CodeUnit) -> Option<&[f32]> {
        self.codec.code_values(unit.unit)
    }

    /// The least and greatest value that a page can hold of a unit, NaN aside; `None` where that is not known.
    pub fn range(&self, page: &CodePage, unit: &CodeUnit) -> Option<(f64, f64)> {
        let (min, max) = (page.zone.min, page.zone.max);
        // A page of NaN alone has no range: +∞ to −∞, which holds nothing.
        if !self.ordered || min > max {
            return None;
        }
        match self.code_values(unit) {
            None => Some((min, max)),
            Some(values) => {
                let at = |code: f64| values.get(code as usize).or(values.last()).copied().map(f64::from);
                Some((at(min)?, at(max)?))
            }
        }
    }

    /// The codes of a unit's cells in a row of a page.
    pub fn codes<'c>(&self, page: &CodePage, bytes: &'c [u8], row: usize, unit: &CodeUnit) -> &'c [u8] {
        let layout = &self.codec.content().layout;
        let width = layout.code.width();
        let start = row * page.row_codes + (unit.unit - page.units.start) * layout.stored.cells() + unit.cells.start;
        bytes.get(start * width..(start + unit.cells.len()) * width).unwrap_or_default()
    }

    /// The values of a unit's cells in a row of a page, decoded into `map`.
    pub fn map<'m>(
        &self,
        page: &CodePage,
        bytes: &[u8],
        row: usize,
        unit: &CodeUnit,
        map: &'m mut Vec<f32>,
    ) -> Result<&'m [f32]> {
        let codes = self.codes(page, bytes, row, unit);
        map.resize(unit.cells.len(), 0.0);
        match self.code_values(unit) {
            Some(values) => {
                let last = values.last().copied().unwrap_or_default();
                for (out, code) in map.iter_mut().zip(codes) {
                    *out = values.get(usize::from(*code)).copied().unwrap_or(last);
                }
            }
            None => mistique_quantize::to_f32(self.code(), codes, map)
                .map_err(|source| EngineError::Quantize { key: self.key(), source })?,
        }
        Ok(map)
    }
}
