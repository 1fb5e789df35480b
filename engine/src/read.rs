//! Reading: from rows and columns to the pages that hold them, each decoded once, in parallel, straight into the
//! caller's buffer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mistique_quantize::QuantizeError;

use crate::beside;
use crate::chunk::{ChunkCodes, ChunkView};
use crate::codec::TensorCodec;
use crate::error::{EngineError, Result};
use crate::model::{IntermediateRecord, TensorLayout};
use crate::out::Out;
use crate::partition::{ChunkPlace, PartitionReader};
use crate::pool::InMemoryStore;
use crate::row_plan::RowPlan;
use crate::stream;

/// Part of a request that lies in one group: columns `cols` of its chunks go to columns from `out_col` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub group: usize,
    pub cols: Range<usize>,
    pub out_col: usize,
}

pub(crate) fn pieces(layout: &TensorLayout, columns: &[Range<usize>]) -> Vec<Piece> {
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

/// Consecutive rows of one page that go to consecutive rows of the answer.
#[derive(Debug, Clone, Copy)]
struct Strip {
    page: usize,
    row: usize,
    out: usize,
    len: usize,
}

/// Access to the chunks of a store, as reading needs it.
pub(crate) trait Chunks: Sync {
    /// Where a chunk lies, and its partition.
    fn place(&self, chunk: i64) -> Result<(PartitionReader, ChunkPlace)>;
    /// The pool of decoded pages.
    fn pool(&self) -> &InMemoryStore;

    /// A chunk that others are coded against, or one that is coded against it, decoded; the former is held in the pool.
    ///
    /// Errors: `Corrupt`, `Io`, `Catalog`.
    fn decode(&self, view: &ChunkView<'_>, place: ChunkPlace) -> Result<ChunkCodes> {
        let named = view.base();
        if named != place.base.map(|b| b.name) {
            return Err(view.corrupt(0, "the catalogue names another chunk as the one that it is coded against"));
        }
        let base = place.base.map(|b| self.base(b.id)).transpose()?;
        view.decode(base.as_deref())
    }

    /// A chunk that others are coded against.
    ///
    /// Errors: `Corrupt`, `Io`, `Catalog`.
    fn base(&self, chunk: i64) -> Result<Arc<ChunkCodes>> {
        if let Some(held) = self.pool().get_whole(chunk) {
            return Ok(held);
        }
        let (partition, place) = self.place(chunk)?;
        let bytes = partition.chunk(place)?;
        let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
        if place.base.is_some() {
            return Err(view.corrupt(0, "others are coded against it, and it is coded against another one"));
        }
        let content = Arc::new(view.decode(None)?);
        self.pool().put_whole(chunk, Arc::clone(&content));
        Ok(content)
    }
}

/// What a read did and how long its tasks took, summed over all threads.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Chunks opened, and nanoseconds for that.
    pub opens: Count,
    /// Values of pages decoded.
    pub values: Count,
    /// Pages found in the InMemoryStore.
    pub held_pages: Count,
    /// Values wanted of these.
    pub held_values: Count,
    /// Tasks for threads beside each other.
    pub tasks: usize,
    /// Whether the InMemoryStore was used.
    pub admitted: bool,
}

/// How many of something, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Count {
    n: AtomicU64,
    nanos: AtomicU64,
}

impl Count {
    /// Counts `n` more, done since then.
    pub fn add(&self, n: usize, since: Instant) {
        self.n.fetch_add(n as u64, Ordering::Relaxed);
        self.nanos.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// How many.
    pub fn n(&self) -> f64 {
        self.n.load(Ordering::Relaxed) as f64
    }

    /// Seconds in all.
    pub fn seconds(&self) -> f64 {
        self.nanos.load(Ordering::Relaxed) as f64 * 1e-9
    }
}

/// Values of pages up to which a read stays on the thread that asks: waking another takes as long as decoding these.
const FEW_VALUES: usize = 1 << 16;
/// Chunks up to which it does.
const FEW_CHUNKS: usize = 16;

/// Whether a read of so many pages of so many chunks is done where it is asked for.
pub(crate) fn on_one_thread(layout: &TensorLayout, n_pages: usize, n_chunks: usize) -> bool {
    let page_values = layout.page_rows * layout.group_units * layout.stored.cells();
    n_chunks <= FEW_CHUNKS && n_pages * page_values <= FEW_VALUES
}

/// Into how many parts the pages of a chunk are divided where a read touches `n_chunks`: a task is one chunk, so that
/// its tables are built once and stay in the cache; where there are few chunks, a part of its pages.
pub(crate) fn parts_of(n_chunks: usize) -> usize {
    (4 * rayon::current_num_threads()).div_ceil(n_chunks.max(1))
}

/// Fills `out` (rows × columns, row-major) with the columns of the planned rows, and says what that took. Pages go through
/// the InMemoryStore where it admits the request and `may_hold` is set.
///
/// Errors: `Shape` when `out` has another length, `Corrupt`, `Io`.
pub(crate) fn read_f32(
    chunks: &dyn Chunks,
    codec: &TensorCodec,
    record: &IntermediateRecord,
    (plan, columns): (&RowPlan, &[Range<usize>]),
    out: &mut [f32],
    may_hold: bool,
) -> Result<Meter> {
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
        return Ok(Meter::default());
    }
    let pieces = pieces(layout, columns);
    let blocks = strips(plan, layout.page_rows);
    let n_pages: usize = blocks.iter().map(|strips| strips.chunk_by(|a, b| a.page == b.page).count()).sum();
    let page_bytes = layout.page_rows * layout.group_units * layout.stored.cells() * layout.code.width();
    let first = || {
        let (block, strips) = plan.blocks.iter().zip(&blocks).find(|(_, strips)| !strips.is_empty())?;
        Some((*block.chunks.get(pieces.first()?.group)?, strips.first()?.page as u32))
    };
    let pool_bytes = n_pages * pieces.len() * page_bytes;
    let cached = may_hold && first().is_some_and(|first| chunks.pool().admits_pages(pool_bytes, first));
    let n_chunks = pieces.len() * blocks.iter().filter(|b| !b.is_empty()).count();
    let alone = on_one_thread(layout, n_pages * pieces.len(), n_chunks);
    let parts = if alone { 1 } else { parts_of(n_chunks) };
    let cut: Vec<(usize, &[Strip])> = blocks
        .iter()
        .enumerate()
        .flat_map(|(block, strips)| cut_at_pages(strips, parts).into_iter().map(move |part| (block, part)))
        .collect();
    // Neighbours have other rows, so that threads beside each other do not fault in the same pages of a fresh answer.
    let tasks: Vec<(usize, &Piece, &[Strip])> =
        pieces.iter().flat_map(|piece| cut.iter().map(move |(block, part)| (*block, piece, *part))).collect();
    let n_tasks = if alone { 1 } else { tasks.len() };
    let meter = Meter { tasks: n_tasks, admitted: cached, ..Meter::default() };
    let reader = Reader { chunks, codec, plan, out: Out::new(out, row_len), cached, meter };
    let run = |scratch: &mut Scratch, (block, piece, strips): &(usize, &Piece, &[Strip])| {
        let read = reader.chunk(*block, piece, strips, scratch);
        stream::fence();
        read
    };
    if n_tasks == 1 {
        let mut scratch = Scratch::default();
        tasks.iter().try_for_each(|task| run(&mut scratch, task))?;
    } else {
        beside::try_each(&tasks, Scratch::default, run)?;
    }
    Ok(reader.meter)
}

/// The strips of each block, by page.
fn strips(plan: &RowPlan, page_rows: usize) -> Vec<Vec<Strip>> {
    let mut blocks: Vec<Vec<Strip>> = plan.blocks.iter().map(|_| Vec::new()).collect();
    for (block, start, out, len) in plan.runs() {
        let Some(strips) = blocks.get_mut(block) else { continue };
        let mut position = start;
        while position < start + len {
            let page = position / page_rows;
            let take = (start + len).min((page + 1) * page_rows) - position;
            strips.push(Strip { page, row: position - page * page_rows, out: out + position - start, len: take });
            position += take;
        }
    }
    blocks.iter_mut().for_each(|strips| strips.sort_by_key(|s| s.page));
    blocks
}

/// `strips` in about `parts` parts, no page in two of them.
fn cut_at_pages(strips: &[Strip], parts: usize) -> Vec<&[Strip]> {
    let pages: Vec<&[Strip]> = strips.chunk_by(|a, b| a.page == b.page).collect();
    let mut rest = strips;
    let mut cut = Vec::new();
    for some in pages.chunks(pages.len().div_ceil(parts).max(1)) {
        let (part, after) = rest.split_at(some.iter().map(|p| p.len()).sum());
        cut.push(part);
        rest = after;
    }
    cut
}

#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    codes: Vec<u8>,
}

struct Reader<'a> {
    chunks: &'a dyn Chunks,
    codec: &'a TensorCodec,
    plan: &'a RowPlan,
    out: Out<'a>,
    cached: bool,
    meter: Meter,
}

/// What is the same for all pages of a task.
struct Task<'a> {
    piece: &'a Piece,
    /// First unit of the chunk.
    first_unit: usize,
    /// Codes in a row of the chunk.
    n_cols: usize,
}

impl Reader<'_> {
    /// Fills the columns of `piece` in rows of one block.
    fn chunk(&self, block: usize, piece: &Piece, strips: &[Strip], scratch: &mut Scratch) -> Result<()> {
        let lacks = || EngineError::corrupt("catalog.db", 0, "a RowBlock lacks a chunk");
        let rows_of = self.plan.blocks.get(block).ok_or_else(lacks)?;
        let chunk = rows_of.chunks.get(piece.group).copied().ok_or_else(lacks)?;
        let layout = &self.codec.content().layout;
        let units = layout.units_of_group(piece.group);
        let n_cols = units.len() * layout.stored.cells();
        let task = Task { piece, first_unit: units.start, n_cols };
        let pages = || strips.chunk_by(|a, b| a.page == b.page);
        let number = |page: &[Strip]| page.first().map_or(0, |s| s.page) as u32;

        // Pages held in memory first: where that is all of them, no file is touched.
        let pool = self.chunks.pool();
        let begun = Instant::now();
        let held = if self.cached { pool.get(chunk, pages().map(number)) } else { Vec::new() };
        let n_held = held.iter().flatten().count();
        if n_held > 0 {
            self.meter.held_pages.add(n_held, begun);
        }
        let mut missing = Vec::new();
        for (page, held) in pages().zip(held.into_iter().chain(std::iter::repeat(None))) {
            let Some(codes) = held else {
                missing.push(page);
                continue;
            };
            let begun = Instant::now();
            self.fill(&task, page, &codes, scratch)
                .map_err(|why| EngineError::corrupt("memory", 0, format!("a held page does not decode: {why}")))?;
            let rows: usize = page.iter().map(|s| s.len).sum();
            self.meter.held_values.add(rows * piece.cols.len(), begun);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let (partition, place) = self.chunks.place(chunk)?;
        let bytes = partition.chunk(place)?;
        let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
        let shape = view.shape();
        let expected = (n_cols, layout.code, layout.page_rows, rows_of.rows.len());
        if (shape.n_cols, shape.code, shape.page_rows, shape.n_rows) != expected {
            return Err(view.corrupt(0, "the chunk has another shape than the catalogue says"));
        }
        if place.base.is_some() {
            // Found equal to a table's column.
            let content = self.chunks.decode(&view, place)?;
            for page in missing {
                let first = page.first().map_or(0, |s| s.page) * layout.page_rows * shape.row_bytes();
                let codes = content.codes.get(first..).unwrap_or_default();
                self.fill(&task, page, codes, scratch).map_err(|e| view.corrupt(0, e))?;
            }
            return Ok(());
        }
        let tables = view.tables()?;
        self.meter.opens.add(1, begun);
        let begun = Instant::now();
        let mut n_values = 0;
        for page in missing {
            let number = page.first().map_or(0, |s| s.page);
            let page_view = view.page(number)?;
            n_values += page_view.n_codes;
            let bad = |e: QuantizeError| view.corrupt(number, e);
            if self.cached && page_view.encoding.is_costly() {
                let mut codes = vec![0u8; page_view.n_codes * layout.code.width()];
                page_view.codes(tables.as_ref(), &mut codes).map_err(bad)?;
                let codes = Arc::new(codes);
                self.fill(&task, page, &codes, scratch).map_err(bad)?;
                pool.put((chunk, number as u32), codes);
            } else if self.codec.decodes_pages() {
                if let [strip] = page
                    && let Some(rows) = self.whole_rows(&task, strip, page_view.n_codes / n_cols)
                {
                    page_view.f32(tables.as_ref(), rows).map_err(bad)?;
                    continue;
                }
                scratch.floats.resize(page_view.n_codes, 0.0);
                page_view.f32(tables.as_ref(), &mut scratch.floats).map_err(bad)?;
                self.spread(&task, page, &scratch.floats, 0);
            } else {
                let mut codes = std::mem::take(&mut scratch.codes);
                codes.resize(page_view.n_codes * layout.code.width(), 0);
                let done =
                    page_view.codes(tables.as_ref(), &mut codes).and_then(|()| self.fill(&task, page, &codes, scratch));
                scratch.codes = codes;
                done.map_err(bad)?;
            }
        }
        self.meter.values.add(n_values, begun);
        Ok(())
    }

    /// The rows of the answer that are `n_rows` whole rows of the chunk from the strip's first on, to be decoded in
    /// place.
    #[expect(unsafe_code, reason = "tasks fill disjoint parts of one buffer")]
    #[expect(clippy::mut_from_ref, reason = "as above")]
    fn whole_rows(&self, task: &Task<'_>, strip: &Strip, n_rows: usize) -> Option<&mut [f32]> {
        let whole = self.out.row_len() == task.n_cols && task.piece.cols == (0..task.n_cols);
        // SAFETY: a row of the answer belongs to one strip, a strip to one task for each piece, and pieces have
        // columns of their own.
        (whole && strip.len == n_rows).then(|| unsafe { self.out.part(strip.out, 0, n_rows * task.n_cols) })
    }

    /// Copies the piece's columns of decoded rows, from row `first` of the page on, to where they go.
    #[expect(unsafe_code, reason = "tasks fill disjoint parts of one buffer")]
    fn spread(&self, task: &Task<'_>, page: &[Strip], values: &[f32], first: usize) {
        let cols = &task.piece.cols;
        for strip in page {
            let rows = values.chunks_exact(task.n_cols).skip(strip.row - first).take(strip.len);
            for (i, row) in rows.enumerate() {
                // SAFETY: as in `whole_rows`.
                let part = unsafe { self.out.part(strip.out + i, task.piece.out_col, cols.len()) };
                self.out.copy(part, &row[cols.clone()]);
            }
        }
    }

    /// Decodes the rows of a page's codes that are asked for.
    #[expect(unsafe_code, reason = "tasks fill disjoint parts of one buffer")]
    fn fill(
        &self,
        task: &Task<'_>,
        page: &[Strip],
        codes: &[u8],
        scratch: &mut Scratch,
    ) -> std::result::Result<(), QuantizeError> {
        let layout = &self.codec.content().layout;
        let (width, cells, cols) = (layout.code.width(), layout.stored.cells(), &task.piece.cols);
        // Codes are decoded by whole units: those that the piece touches.
        let touched = cols.start / cells..cols.end.div_ceil(cells);
        let code_cols = touched.start * cells..touched.end * cells;
        let (first_unit, n_units) = (task.first_unit + touched.start, touched.len());
        let row_bytes = task.n_cols * width;
        for strip in page {
            let rows = &codes[strip.row * row_bytes..(strip.row + strip.len) * row_bytes];
            if let Some(rows_out) = self.whole_rows(task, strip, strip.len) {
                self.codec.decode_rows(first_unit, n_units, rows, rows_out)?;
                continue;
            }
            if code_cols == (0..task.n_cols) {
                scratch.floats.resize(strip.len * task.n_cols, 0.0);
                self.codec.decode_rows(first_unit, n_units, rows, &mut scratch.floats)?;
                self.spread(task, std::slice::from_ref(strip), &scratch.floats, strip.row);
                continue;
            }
            scratch.floats.resize(code_cols.len(), 0.0);
            let skip = cols.start - code_cols.start;
            for (i, row) in rows.chunks_exact(row_bytes).enumerate() {
                let row_codes = &row[code_cols.start * width..code_cols.end * width];
                self.codec.decode_rows(first_unit, n_units, row_codes, &mut scratch.floats)?;
                // SAFETY: as in `whole_rows`.
                let part = unsafe { self.out.part(strip.out + i, task.piece.out_col, cols.len()) };
                self.out.copy(part, &scratch.floats[skip..skip + cols.len()]);
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
    fn parts_never_share_a_page() {
        let strip = |page, out| Strip { page, row: 0, out, len: 1 };
        let strips = [strip(0, 5), strip(0, 1), strip(2, 0), strip(3, 2), strip(3, 3), strip(7, 4)];
        for parts in 1..9 {
            let cut = cut_at_pages(&strips, parts);
            assert_eq!(cut.iter().map(|p| p.len()).sum::<usize>(), strips.len());
            assert!(cut.windows(2).all(|w| w[0].last().unwrap().page < w[1][0].page), "{parts}");
        }
        assert!(cut_at_pages(&[], 4).is_empty());
    }
}
