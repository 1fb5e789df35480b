//! Rows of a request: which are asked for, and in which RowBlocks they lie.

use std::collections::HashMap;
use std::ops::Range;

use crate::catalog::{Block, WITHHELD};
use crate::error::{EngineError, Result};
use crate::model::IntermediateRecord;
use crate::rows::RowSet;

/// Which rows of an intermediate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// All that are stored, by row_id.
    All,
    /// Those stored with an id in the range, by row_id.
    Range(Range<u64>),
    /// Exactly these, in this order; one that is not stored is an error.
    List(Vec<u64>),
}

/// Rows of a run that are too few to hide what finding it takes.
const SHORT_RUN: usize = 16;

/// Consecutive rows of a RowBlock that go to consecutive rows of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    block: usize,
    position: usize,
    out: usize,
    len: usize,
}

/// The rows of an answer: their ids, and where they lie.
#[derive(Debug, Clone)]
pub struct RowPlan {
    /// Row_ids in the order of the answer.
    pub rows: RowSet,
    pub(crate) blocks: Vec<Block>,
    runs: Vec<Run>,
}

impl RowPlan {
    /// Finds the rows among the blocks that can hold them.
    ///
    /// Errors: `NoSuchRow`.
    pub(crate) fn new(record: &IntermediateRecord, blocks: Vec<Block>, rows: &Rows) -> Result<Self> {
        let mut plan = match rows {
            Rows::All => Self::in_range(blocks, 0..u64::MAX),
            Rows::Range(range) => Self::in_range(blocks, range.clone()),
            Rows::List(ids) => Self::listed(record, blocks, ids)?,
        };
        plan.drop_untouched();
        Ok(plan)
    }

    /// Lets go of blocks that could have held rows and hold none.
    fn drop_untouched(&mut self) {
        let mut touched = vec![false; self.blocks.len()];
        self.runs.iter().for_each(|r| touched.iter_mut().skip(r.block).take(1).for_each(|t| *t = true));
        if touched.iter().all(|t| *t) {
            return;
        }
        let mut kept = 0;
        let new: Vec<usize> = touched
            .iter()
            .map(|t| {
                kept += usize::from(*t);
                kept - usize::from(*t)
            })
            .collect();
        self.runs.iter_mut().for_each(|r| r.block = new.get(r.block).copied().unwrap_or_default());
        let mut touched = touched.into_iter();
        self.blocks.retain(|_| touched.next().unwrap_or_default());
    }

    fn in_range(blocks: Vec<Block>, range: Range<u64>) -> Self {
        let mut runs = Vec::new();
        let mut n = 0;
        let mut last = None;
        let ordered = blocks.iter().all(|b| {
            let RowSet::Range(r) = &*b.rows else { return false };
            let after = last.is_none_or(|end| r.start >= end);
            last = Some(r.end);
            after
        });
        if ordered {
            let (mut first, mut contiguous, mut ids) = (None, true, Vec::new());
            for (block, b) in blocks.iter().enumerate() {
                let RowSet::Range(r) = &*b.rows else { continue };
                let (start, end) = (r.start.max(range.start), r.end.min(range.end));
                if start >= end {
                    continue;
                }
                let len = (end - start) as usize;
                runs.push(Run { block, position: (start - r.start) as usize, out: n, len });
                contiguous &= *first.get_or_insert(start) + n as u64 == start;
                ids.push(start..end);
                n += len;
            }
            let first = first.unwrap_or_default();
            let rows = if contiguous {
                RowSet::Range(first..first + n as u64)
            } else {
                RowSet::List(ids.into_iter().flatten().collect())
            };
            return Self { rows, blocks, runs };
        }
        let mut all: Vec<(u64, usize, usize)> = Vec::new();
        for (block, b) in blocks.iter().enumerate() {
            all.extend(b.rows.iter().enumerate().filter(|(_, id)| range.contains(id)).map(|(p, id)| (id, block, p)));
        }
        all.sort_unstable();
        for (out, &(_, block, position)) in all.iter().enumerate() {
            push_run(&mut runs, block, position, out);
        }
        let ids: Vec<u64> = all.iter().map(|(id, ..)| *id).collect();
        Self { rows: RowSet::from_ids(&ids), blocks, runs }
    }

    fn listed(record: &IntermediateRecord, blocks: Vec<Block>, ids: &[u64]) -> Result<Self> {
        // Blocks of consecutive rows are searched; rows of others go into a table.
        let mut ranges: Vec<(Range<u64>, usize)> = Vec::new();
        let mut scattered: HashMap<u64, (usize, usize)> = HashMap::new();
        for (block, b) in blocks.iter().enumerate() {
            match &*b.rows {
                RowSet::Range(r) => ranges.push((r.clone(), block)),
                RowSet::List(list) => scattered.extend(list.iter().enumerate().map(|(p, &id)| (id, (block, p)))),
            }
        }
        ranges.sort_unstable_by_key(|(r, _)| r.start);
        let mut runs = Vec::new();
        for (out, &id) in ids.iter().enumerate() {
            let after = ranges.partition_point(|(r, _)| r.start <= id);
            let in_range = after.checked_sub(1).and_then(|i| ranges.get(i)).filter(|(r, _)| r.contains(&id));
            let place = match in_range {
                Some((r, block)) => Some((*block, (id - r.start) as usize)),
                None => scattered.get(&id).copied(),
            };
            let Some((block, position)) = place else {
                return Err(EngineError::NoSuchRow { key: record.key.to_string(), row: id, n_rows: record.n_rows });
            };
            push_run(&mut runs, block, position, out);
        }
        Ok(Self { rows: RowSet::from_ids(ids), blocks, runs })
    }

    /// Number of RowBlocks that hold the rows.
    pub fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// How many of the RowBlocks that the rows touch lack values of some of `groups`, and how many they touch.
    pub fn lacking(&self, groups: &[usize]) -> (usize, usize) {
        let mut touched: Vec<usize> = self.runs.iter().map(|r| r.block).collect();
        touched.sort_unstable();
        touched.dedup();
        (touched.iter().filter(|b| self.lacks(**b, groups)).count(), touched.len())
    }

    fn lacks(&self, block: usize, groups: &[usize]) -> bool {
        let block = self.blocks.get(block);
        block.is_some_and(|b| groups.iter().any(|g| b.chunks.get(*g) == Some(&WITHHELD)))
    }

    /// The rows whose RowBlocks hold values of all `groups`, and for each row whether it is one of them.
    pub fn holding(&self, groups: &[usize]) -> (Self, Vec<bool>) {
        let mut held = vec![false; self.rows.len()];
        let mut runs = Vec::new();
        let mut n = 0;
        for run in self.runs.iter().filter(|run| !self.lacks(run.block, groups)) {
            held.get_mut(run.out..run.out + run.len).unwrap_or_default().fill(true);
            runs.push(Run { out: n, ..*run });
            n += run.len;
        }
        let ids: Vec<u64> = self.rows.iter().zip(&held).filter(|(_, held)| **held).map(|(id, _)| id).collect();
        let mut part = Self { rows: RowSet::from_ids(&ids), blocks: self.blocks.clone(), runs };
        part.drop_untouched();
        (part, held)
    }

    /// Whether most rows lie apart: then what a row takes is more than what a value of many in a row takes.
    pub fn is_scattered(&self) -> bool {
        self.runs.len() * SHORT_RUN > self.rows.len()
    }

    /// Pages of `page_rows` rows that hold the rows.
    pub fn n_pages(&self, page_rows: usize) -> usize {
        let pages = |r: &Run| r.position / page_rows..(r.position + r.len).div_ceil(page_rows);
        if self.runs.len() <= self.blocks.len() {
            return self.runs.iter().map(|r| pages(r).len()).sum();
        }
        let mut touched: Vec<(usize, usize)> =
            self.runs.iter().flat_map(|r| pages(r).map(move |p| (r.block, p))).collect();
        touched.sort_unstable();
        touched.dedup();
        touched.len()
    }

    /// The runs of each block, in the order of the answer: `(block, position, out, len)`.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> + Clone + '_ {
        self.runs.iter().map(|r| (r.block, r.position, r.out, r.len))
    }
}

fn push_run(runs: &mut Vec<Run>, block: usize, position: usize, out: usize) {
    match runs.last_mut() {
        Some(last) if last.block == block && last.position + last.len == position => last.len += 1,
        _ => runs.push(Run { block, position, out, len: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn rows_that_hold_values_are_told_apart() {
        let block = |rows, chunks| Block { block_no: 0, rows: Arc::new(rows), chunks };
        let blocks = vec![
            block(RowSet::Range(0..4), vec![1, WITHHELD]),
            block(RowSet::Range(4..6), vec![WITHHELD, WITHHELD]),
            block(RowSet::Range(6..8), vec![2, 3]),
        ];
        let plan = RowPlan::in_range(blocks, 2..8);
        let (part, held) = plan.holding(&[0]);
        assert_eq!(part.rows.iter().collect::<Vec<_>>(), [2, 3, 6, 7]);
        assert_eq!(held, [true, true, false, false, true, true]);
        assert_eq!(part.n_blocks(), 2, "no chunk is looked for that holds nothing");
        assert_eq!(part.runs().collect::<Vec<_>>(), [(0, 2, 0, 2), (1, 0, 2, 2)]);
        assert_eq!(plan.holding(&[0, 1]).1, [false, false, false, false, true, true]);
        assert_eq!(plan.lacking(&[0, 1]), (2, 3));
    }

    #[test]
    fn rows_are_found_in_any_order() {
        let block = |rows| Block { block_no: 0, rows: Arc::new(rows), chunks: vec![] };
        let blocks = vec![block(RowSet::List(vec![5, 3, 4])), block(RowSet::Range(10..12))];
        let plan = RowPlan::in_range(blocks.clone(), 4..11);
        assert_eq!(plan.rows.iter().collect::<Vec<_>>(), [4, 5, 10]);
        assert_eq!(plan.runs().collect::<Vec<_>>(), [(0, 2, 0, 1), (0, 0, 1, 1), (1, 0, 2, 1)]);
        let plan = RowPlan::in_range(vec![block(RowSet::Range(0..4)), block(RowSet::Range(4..6))], 1..9);
        assert_eq!(plan.rows, RowSet::Range(1..6));
        assert_eq!(plan.runs().collect::<Vec<_>>(), [(0, 1, 0, 3), (1, 0, 3, 2)]);
    }

    #[test]
    fn a_block_around_the_rows_is_not_touched() {
        let block = |rows| Block { block_no: 0, rows: Arc::new(rows), chunks: vec![] };
        let holes = RowSet::List((0..500).chain(510..1024).collect());
        let mut plan = RowPlan::in_range(vec![block(holes), block(RowSet::Range(500..510))], 502..504);
        plan.drop_untouched();
        assert_eq!(plan.n_blocks(), 1);
        assert_eq!(plan.runs().collect::<Vec<_>>(), [(0, 2, 0, 2)]);
    }
}
