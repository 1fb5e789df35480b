//! Reading: from rows and columns to the pages that hold them, each decoded once, in parallel, straight into the
//! caller's buffer.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::catalog::Block;
use crate::chunk::ChunkView;
use crate::codec::TensorCodec;
use crate::error::{EngineError, Result};
use crate::model::{IntermediateRecord, TensorLayout};
use crate::partition::{ChunkPlace, PartitionReader};
use crate::pool::InMemoryStore;
use crate::rows::RowSet;
use crate::stream;

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

/// Consecutive rows of a RowBlock that go to consecutive rows of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    block: usize,
    position: usize,
    out: usize,
    len: usize,
}

/// The rows of an answer: their ids, and where they lie.
#[derive(Debug)]
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
        match rows {
            Rows::All => Ok(Self::in_range(blocks, 0..u64::MAX)),
            Rows::Range(range) => Ok(Self::in_range(blocks, range.clone())),
            Rows::List(ids) => Self::listed(record, blocks, ids),
        }
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

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
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
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> + '_ {
        self.runs.iter().map(|r| (r.block, r.position, r.out, r.len))
    }
}

fn push_run(runs: &mut Vec<Run>, block: usize, position: usize, out: usize) {
    match runs.last_mut() {
        Some(last) if last.block == block && last.position + last.len == position => last.len += 1,
        _ => runs.push(Run { block, position, out, len: 1 }),
    }
}

/// Part of a request that lies in one group: columns `cols` of its chunks go to columns from `out_col` on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    group: usize,
    cols: Range<usize>,
    out_col: usize,
}

fn pieces(layout: &TensorLayout, columns: &[Range<usize>]) -> Vec<Piece> {
    let group_cols = layout.group_units * layout.stored.cells();
    let mut out = Vec::new();
    let mut out_col = 0;
    for range in columns {
        let mut at = range.start;
        while at < range.end {
            let group = at / group_cols;
            let end = range.end.min((group + 1) * group_cols);
            out.push(Piece { group, cols: at - group * group_cols..end - group * group_cols, out_col });
            out_col += end - at;
            at = end;
        }
    }
    out
}

/// Rows of one page that go to `out`, whose rows have the request's length.
struct Strip<'a> {
    block: usize,
    page: usize,
    row: usize,
    out: &'a mut [f32],
}

/// Access to the chunks of a store, as reading needs it.
pub(crate) trait Chunks: Sync {
    /// Where a chunk lies, and its partition.
    fn place(&self, chunk: i64) -> Result<(PartitionReader, ChunkPlace)>;
    /// The pool of decoded pages.
    fn pool(&self) -> &InMemoryStore;
}

/// Fills `out` (rows × columns, row-major) with the columns of the planned rows.
///
/// Errors: `Shape` when `out` has another length, `Corrupt`, `Io`.
pub(crate) fn read_f32(
    chunks: &dyn Chunks,
    codec: &TensorCodec,
    record: &IntermediateRecord,
    plan: &RowPlan,
    columns: &[Range<usize>],
    out: &mut [f32],
) -> Result<()> {
    let layout = &codec.content().layout;
    let row_len: usize = columns.iter().map(Range::len).sum();
    if out.len() != plan.n_rows() * row_len {
        return Err(EngineError::Shape {
            key: record.key.to_string(),
            what: "length of the output buffer",
            expected: (plan.n_rows() * row_len).to_string(),
            got: out.len().to_string(),
        });
    }
    if out.is_empty() {
        return Ok(());
    }
    let pieces = pieces(layout, columns);
    let streamed = std::mem::size_of_val(out) >= stream::STREAM_BYTES;
    let mut strips = strips(plan, layout, row_len, out);
    strips.sort_by_key(|s| (s.block, s.page));
    let mut pages: Vec<Vec<Strip<'_>>> = Vec::new();
    for strip in strips {
        match pages.last_mut().filter(|p| p.first().is_some_and(|f| (f.block, f.page) == (strip.block, strip.page))) {
            Some(page) => page.push(strip),
            None => pages.push(vec![strip]),
        }
    }
    let page_bytes = layout.page_rows * layout.group_units * layout.stored.cells() * layout.code.width();
    let cached = chunks.pool().admits(pages.len() * pieces.len() * page_bytes);
    let reader = Reader { chunks, codec, plan, row_len, cached, streamed };
    if pages.len() >= 2 * rayon::current_num_threads() || pieces.len() == 1 {
        return pages.into_par_iter().try_for_each_init(Scratch::default, |scratch, mut strips| {
            let read = pieces.iter().try_for_each(|piece| reader.piece(piece, &mut strips, 0, scratch));
            stream::fence();
            read
        });
    }
    // Few pages: the groups of each are shared out instead, every row cut at their borders.
    let mut tasks = Vec::new();
    for page in pages {
        let mut split: Vec<Vec<Strip<'_>>> = pieces.iter().map(|_| Vec::new()).collect();
        for strip in page {
            for (i, mut rest) in strip.out.chunks_mut(row_len).enumerate() {
                for (piece, strips) in pieces.iter().zip(&mut split) {
                    let (out, after) = rest.split_at_mut(piece.cols.len());
                    strips.push(Strip { block: strip.block, page: strip.page, row: strip.row + i, out });
                    rest = after;
                }
            }
        }
        tasks.extend(pieces.iter().zip(split));
    }
    tasks.into_par_iter().try_for_each_init(Scratch::default, |scratch, (piece, mut strips)| {
        let reader = Reader { row_len: piece.cols.len(), ..reader };
        let read = reader.piece(piece, &mut strips, piece.out_col, scratch);
        stream::fence();
        read
    })
}

fn strips<'a>(plan: &RowPlan, layout: &TensorLayout, row_len: usize, out: &'a mut [f32]) -> Vec<Strip<'a>> {
    let mut strips = Vec::new();
    let mut rest = out;
    for run in &plan.runs {
        let mut position = run.position;
        let end = run.position + run.len;
        while position < end {
            let page = position / layout.page_rows;
            let take = end.min((page + 1) * layout.page_rows) - position;
            let (out, after) = std::mem::take(&mut rest).split_at_mut(take * row_len);
            strips.push(Strip { block: run.block, page, row: position - page * layout.page_rows, out });
            rest = after;
            position += take;
        }
    }
    strips
}

#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    codes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    chunks: &'a dyn Chunks,
    codec: &'a TensorCodec,
    plan: &'a RowPlan,
    row_len: usize,
    cached: bool,
    streamed: bool,
}

impl Reader<'_> {
    fn copy(&self, out: &mut [f32], values: &[f32]) {
        if self.streamed { stream::copy(out, values) } else { out.copy_from_slice(values) }
    }

    /// Fills the columns of `piece` in the strips of one page; `shift` is the column at which the strips begin.
    fn piece(&self, piece: &Piece, strips: &mut [Strip<'_>], shift: usize, scratch: &mut Scratch) -> Result<()> {
        let Some((block, page)) = strips.first().map(|s| (s.block, s.page)) else { return Ok(()) };
        let chunk = self.plan.blocks.get(block).and_then(|b| b.chunks.get(piece.group)).copied();
        let chunk = chunk.ok_or_else(|| EngineError::corrupt("catalog.db", 0, "a RowBlock lacks a chunk"))?;
        let layout = &self.codec.content().layout;
        let units = layout.units_of_group(piece.group);
        let n_cols = units.len() * layout.stored.cells();
        let to = piece.out_col - shift..piece.out_col - shift + piece.cols.len();

        let pool = self.chunks.pool();
        let key = (chunk, page as u32);
        if self.cached
            && let Some(codes) = pool.get(key)
        {
            return self
                .fill(piece, strips, &to, n_cols, units.start, &codes, scratch)
                .map_err(|why| EngineError::corrupt("memory", 0, format!("a held page does not decode: {why}")));
        }
        let (partition, place) = self.chunks.place(chunk)?;
        let bytes = partition.chunk(place)?;
        let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
        let shape = view.shape();
        let stored = self.plan.blocks.get(block).map_or(0, |b| b.rows.len());
        if (shape.n_cols, shape.code, shape.page_rows, shape.n_rows) != (n_cols, layout.code, layout.page_rows, stored)
        {
            return Err(view.corrupt(page, "the chunk has another shape than the catalogue says"));
        }
        let page_view = view.page(page)?;
        let bad = |e: mistique_quantize::QuantizeError| view.corrupt(page, e);
        if self.cached {
            let mut codes = vec![0u8; page_view.n_codes * layout.code.width()];
            page_view.codes(&mut codes).map_err(bad)?;
            let codes: Arc<[u8]> = codes.into();
            self.fill(piece, strips, &to, n_cols, units.start, &codes, scratch).map_err(bad)?;
            pool.put(key, codes);
            return Ok(());
        }
        if !self.codec.decodes_pages() {
            scratch.codes.resize(page_view.n_codes * layout.code.width(), 0);
            page_view.codes(&mut scratch.codes).map_err(bad)?;
            let codes = std::mem::take(&mut scratch.codes);
            let done = self.fill(piece, strips, &to, n_cols, units.start, &codes, scratch).map_err(bad);
            scratch.codes = codes;
            return done;
        }
        if let [strip] = strips
            && self.row_len == n_cols
            && piece.cols == (0..n_cols)
            && strip.row == 0
            && strip.out.len() == page_view.n_codes
        {
            return page_view.f32(strip.out).map_err(bad);
        }
        scratch.floats.resize(page_view.n_codes, 0.0);
        page_view.f32(&mut scratch.floats).map_err(bad)?;
        for strip in strips {
            let rows = scratch.floats.chunks_exact(n_cols).skip(strip.row);
            for (out, row) in strip.out.chunks_exact_mut(self.row_len).zip(rows) {
                self.copy(&mut out[to.clone()], &row[piece.cols.clone()]);
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the places of one piece, known only to its caller")]
    fn fill(
        &self,
        piece: &Piece,
        strips: &mut [Strip<'_>],
        to: &Range<usize>,
        n_cols: usize,
        first_unit: usize,
        codes: &[u8],
        scratch: &mut Scratch,
    ) -> std::result::Result<(), mistique_quantize::QuantizeError> {
        let layout = &self.codec.content().layout;
        let (width, cells) = (layout.code.width(), layout.stored.cells());
        // Codes are decoded by whole units: those that the piece touches.
        let touched = piece.cols.start / cells..piece.cols.end.div_ceil(cells);
        let code_cols = touched.start * cells..touched.end * cells;
        let (first_unit, n_units) = (first_unit + touched.start, touched.len());
        let whole_rows = code_cols == (0..n_cols);
        let row_bytes = n_cols * width;
        for strip in strips {
            let n_rows = strip.out.len() / self.row_len;
            let rows = &codes[strip.row * row_bytes..(strip.row + n_rows) * row_bytes];
            if whole_rows && self.row_len == n_cols && piece.cols == code_cols {
                self.codec.decode_rows(first_unit, n_units, rows, strip.out)?;
                continue;
            }
            let skip = piece.cols.start - code_cols.start;
            if whole_rows {
                scratch.floats.resize(n_rows * n_cols, 0.0);
                self.codec.decode_rows(first_unit, n_units, rows, &mut scratch.floats)?;
                for (out, row) in strip.out.chunks_exact_mut(self.row_len).zip(scratch.floats.chunks_exact(n_cols)) {
                    self.copy(&mut out[to.clone()], &row[piece.cols.clone()]);
                }
                continue;
            }
            scratch.floats.resize(code_cols.len(), 0.0);
            for (out, row) in strip.out.chunks_exact_mut(self.row_len).zip(rows.chunks_exact(row_bytes)) {
                let row_codes = &row[code_cols.start * width..code_cols.end * width];
                self.codec.decode_rows(first_unit, n_units, row_codes, &mut scratch.floats)?;
                self.copy(&mut out[to.clone()], &scratch.floats[skip..skip + piece.cols.len()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnitAxis;

    #[test]
    fn pieces_cut_at_groups() {
        let scheme: mistique_quantize::Scheme = "f16".parse().unwrap();
        // 100 units of one cell, 32 a group.
        let layout = TensorLayout::new(&[100], UnitAxis::First, &scheme, scheme.code());
        assert_eq!(layout.group_units, 32);
        let p = pieces(&layout, &[30..34, 5..6]);
        assert_eq!(
            p,
            [
                Piece { group: 0, cols: 30..32, out_col: 0 },
                Piece { group: 1, cols: 0..2, out_col: 2 },
                Piece { group: 0, cols: 5..6, out_col: 4 },
            ]
        );
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
}
