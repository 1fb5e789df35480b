//! Pages met as codes: their zone maps first, and then, of those that are wanted, the codes. What ranks, compares and
//! counts needs no float32 copy.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{ChunkView, Zone};
use crate::error::{EngineError, Result};
use crate::model::IntermediateRecord;
use crate::read::Chunks;
use crate::row_plan::RowPlan;
use crate::store::{Store, chunks_of};

/// Consecutive rows of a page that are consecutive rows of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRows {
    /// First row in the page.
    pub row: usize,
    /// Its position in the plan.
    pub position: usize,
    /// Rows.
    pub len: usize,
}

/// A page of a tensor's ColumnChunk that holds planned rows.
#[derive(Debug, Clone)]
pub struct CodePage {
    /// Place of its RowBlock among the plan's.
    pub block: usize,
    /// The group of units whose chunk it belongs to.
    pub group: usize,
    /// Units of the group.
    pub units: Range<usize>,
    /// Codes in a row of the page: the stored cells of the units.
    pub row_codes: usize,
    /// The planned rows that it holds.
    pub rows: Vec<PageRows>,
    /// Range and counts of all its codes, wanted or not; minimum and maximum are codes for `kbit` and `threshold`.
    pub zone: Zone,
    chunk: i64,
    page: usize,
    cached: bool,
}

impl CodePage {
    /// The chunk that it belongs to: pages of one are visited together.
    pub fn chunk(&self) -> i64 {
        self.chunk
    }
}

impl Store {
    /// The pages that hold the planned rows of the units of `groups`, chunk by chunk. Only headers are read.
    ///
    /// Errors: `Unsupported` for a table; `Corrupt`, `Io`.
    pub fn code_pages(
        &self,
        record: &IntermediateRecord,
        plan: &RowPlan,
        groups: &BTreeSet<usize>,
    ) -> Result<Vec<CodePage>> {
        let codec = self.codec(record)?;
        let layout = codec.content().layout;
        self.load_places(chunks_of(&plan.blocks, groups))?;
        let mut by_block: Vec<Vec<PageRows>> = plan.blocks.iter().map(|_| Vec::new()).collect();
        for (block, start, position, len) in plan.runs() {
            by_block.get_mut(block).into_iter().for_each(|runs| runs.push(PageRows { row: start, position, len }));
        }
        let lacks = || EngineError::corrupt("catalog.db", 0, "a RowBlock lacks a chunk");
        let mut pages = Vec::new();
        for (at, (block, runs)) in plan.blocks.iter().zip(&by_block).enumerate() {
            let rows = cut_at_pages(runs, layout.page_rows);
            for &group in groups {
                if rows.is_empty() {
                    continue;
                }
                let chunk = block.chunks.get(group).copied().ok_or_else(lacks)?;
                let units = layout.units_of_group(group);
                let row_codes = units.len() * layout.stored.cells();
                let (partition, place) = self.place(chunk)?;
                let bytes = partition.chunk(place)?;
                let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
                let shape = view.shape();
                let expected = (row_codes, layout.code, layout.page_rows, block.rows.len());
                if (shape.n_cols, shape.code, shape.page_rows, shape.n_rows) != expected {
                    return Err(view.corrupt(0, "the chunk has another shape than the catalogue says"));
                }
                for (page, rows) in &rows {
                    let (zone, units, rows) = (view.zone(*page)?, units.clone(), rows.clone());
                    pages.push(CodePage {
                        block: at,
                        group,
                        units,
                        row_codes,
                        rows,
                        zone,
                        chunk,
                        page: *page,
                        cached: false,
                    });
                }
            }
        }
        let bytes: usize = pages.iter().map(|p| layout.page_rows * p.row_codes * layout.code.width()).sum();
        let first = pages.first().map(|p| (p.chunk, p.page as u32));
        let cached = first.is_some_and(|first| self.pool().admits_pages(bytes, first));
        pages.iter_mut().for_each(|p| p.cached = cached);
        Ok(pages)
    }

    /// Decodes pages to codes and shows them, those held in memory first. `wanted` is asked before each, and more than
    /// once. Pages of one chunk should follow each other.
    ///
    /// Errors: `Corrupt`, `Io`; those of `visit`.
    pub fn visit_pages<E: From<EngineError>>(
        &self,
        pages: &[&CodePage],
        mut wanted: impl FnMut(&CodePage) -> bool,
        mut visit: impl FnMut(&CodePage, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut rest = Vec::new();
        for page in pages {
            if !wanted(page) {
                continue;
            }
            let key = (page.chunk, page.page as u32);
            match page.cached.then(|| self.pool().get_page(key)).flatten() {
                Some(codes) => visit(page, &codes)?,
                None => rest.push(*page),
            }
        }
        let mut codes = Vec::new();
        for same in rest.chunk_by(|a, b| a.chunk == b.chunk) {
            let Some(first) = same.first() else { continue };
            let (partition, place) = self.place(first.chunk)?;
            let bytes = partition.chunk(place)?;
            let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
            let tables = view.tables()?;
            for page in same {
                // What was seen meanwhile may have made it needless.
                if !wanted(page) {
                    continue;
                }
                let page_view = view.page(page.page)?;
                codes.resize(page_view.n_codes * page_view.code.width(), 0);
                page_view.codes(tables.as_ref(), &mut codes).map_err(|e| view.corrupt(page.page, e))?;
                if page.cached && page_view.encoding.is_costly() {
                    let held = Arc::new(std::mem::take(&mut codes));
                    self.pool().put((page.chunk, page.page as u32), Arc::clone(&held));
                    visit(page, &held)?;
                } else {
                    visit(page, &codes)?;
                }
            }
        }
        Ok(())
    }
}

/// The rows of each page, by page.
fn cut_at_pages(runs: &[PageRows], page_rows: usize) -> Vec<(usize, Vec<PageRows>)> {
    let mut cut: Vec<(usize, PageRows)> = Vec::new();
    for run in runs {
        let mut at = run.row;
        while at < run.row + run.len {
            let page = at / page_rows;
            let len = (run.row + run.len).min((page + 1) * page_rows) - at;
            cut.push((page, PageRows { row: at - page * page_rows, position: run.position + at - run.row, len }));
            at += len;
        }
    }
    cut.sort_by_key(|(page, _)| *page);
    cut.chunk_by(|a, b| a.0 == b.0)
        .filter_map(|same| Some((same.first()?.0, same.iter().map(|(_, rows)| *rows).collect())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_at_pages() {
        let runs = [PageRows { row: 6, position: 0, len: 4 }, PageRows { row: 1, position: 4, len: 2 }];
        let cut = cut_at_pages(&runs, 4);
        assert_eq!(
            cut,
            [
                (0, vec![PageRows { row: 1, position: 4, len: 2 }]),
                (1, vec![PageRows { row: 2, position: 0, len: 2 }]),
                (2, vec![PageRows { row: 0, position: 2, len: 2 }]),
            ]
        );
    }
}
