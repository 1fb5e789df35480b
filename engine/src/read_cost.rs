//! What a read of a tensor will cost here and now: its work counted, its rates looked up, and both kept after every read.

use std::ops::Range;
use std::time::Instant;

use mistique_quantize::Code;

use crate::catalog::{Block, CostRecord};
use crate::cost::{self, Estimate, Manner, ReadRates, ReadWork, read_seconds};
use crate::error::{EngineError, Result};
use crate::model::{IntermediateRecord, TensorLayout};
use crate::pool::InMemoryStore;
use crate::read::{Chunks, Meter, Piece, on_one_thread, parts_of, pieces};
use crate::row_plan::RowPlan;
use crate::rows::RowSet;
use crate::store::Store;

/// Pages and chunks of a request that are looked up in memory; the others are taken to be like them.
pub(crate) const SAMPLE: usize = 64;
/// Reads whose tasks take longer do not tell what a read takes beside them.
pub(crate) const START_SECONDS: f64 = 1e-3;

/// Until they were measured on this machine: seconds of each part of a read.
pub(crate) mod unmeasured {
    pub const START: f64 = 60e-6;
    pub const PLACE: f64 = 8e-6;
    pub const OPEN: f64 = 8e-6;
    pub const VALUE: f64 = 1e-9;
    pub const FRESH: f64 = 2e-9;
    pub const HELD_PAGE: f64 = 3e-7;
    pub const HELD_VALUE: f64 = 1e-9;
    pub const ROW: f64 = 3e-9;
    pub const HELD_CHUNK: f64 = 5e-7;
    pub const COLUMN: f64 = 1e-6;
}

/// The pages that rows touch, counted over all blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Touched {
    /// One a block that is touched: its number, and its pages.
    blocks: Vec<(usize, Vec<u32>)>,
    /// Pages.
    pages: usize,
    /// Rows in these pages.
    rows: usize,
    /// Rows wanted.
    wanted: usize,
}

impl Touched {
    /// The pages of `page_rows` rows that the planned rows lie in.
    fn by_plan(plan: &RowPlan, page_rows: usize) -> Self {
        let sizes: Vec<usize> = plan.blocks.iter().map(|b| b.rows.len()).collect();
        Self::count(&sizes, page_rows, plan.runs().map(|(block, start, _, len)| (block, start, len)))
    }

    /// The same where row_id n lies at place n, as a log in order leaves them.
    fn in_order(rows: &RowSet, n_rows: usize, block_rows: usize, page_rows: usize) -> Self {
        let sizes: Vec<usize> = (0..n_rows).step_by(block_rows).map(|at| block_rows.min(n_rows - at)).collect();
        match rows {
            RowSet::Range(r) => {
                let (start, end) = (r.start as usize, (r.end as usize).min(n_rows));
                let blocks = start / block_rows..end.div_ceil(block_rows).max(start / block_rows);
                let run = |b: usize| {
                    let (from, to) = (start.max(b * block_rows), end.min((b + 1) * block_rows));
                    (b, from - b * block_rows, to.saturating_sub(from))
                };
                Self::count(&sizes, page_rows, blocks.map(run))
            }
            RowSet::List(ids) => {
                let place = |id: &u64| (*id as usize / block_rows, *id as usize % block_rows, 1);
                Self::count(&sizes, page_rows, ids.iter().map(place))
            }
        }
    }

    fn count(sizes: &[usize], page_rows: usize, runs: impl Iterator<Item = (usize, usize, usize)>) -> Self {
        let page_rows = page_rows.max(1);
        let mut bits: Vec<Vec<u64>> = sizes.iter().map(|_| Vec::new()).collect();
        let mut touched = Self::default();
        for (block, start, len) in runs {
            let Some(bits) = bits.get_mut(block).filter(|_| len > 0) else { continue };
            touched.wanted += len;
            let last = (start + len - 1) / page_rows;
            if bits.len() <= last / 64 {
                bits.resize(last / 64 + 1, 0);
            }
            (start / page_rows..=last).for_each(|page| bits[page / 64] |= 1 << (page % 64));
        }
        for (block, (bits, size)) in bits.iter().zip(sizes).enumerate() {
            let one = |(word, bits): (usize, &u64)| {
                let bits = *bits;
                (0..64).filter(move |b| bits >> b & 1 == 1).map(move |b| (word * 64 + b) as u32)
            };
            let pages: Vec<u32> = bits.iter().enumerate().flat_map(one).collect();
            if !pages.is_empty() {
                touched.pages += pages.len();
                touched.rows +=
                    pages.iter().map(|p| page_rows.min(size.saturating_sub(*p as usize * page_rows))).sum::<usize>();
                touched.blocks.push((block, pages));
            }
        }
        touched
    }
}

/// The work of a read of pieces of columns from `blocks`.
fn tensor_work(
    layout: &TensorLayout,
    pieces: &[Piece],
    touched: &Touched,
    blocks: &[Block],
    pool: &InMemoryStore,
    known: impl Fn(&mut dyn Iterator<Item = i64>) -> usize,
) -> ReadWork {
    let cells = layout.stored.cells();
    let group_values = |p: &Piece| layout.units_of_group(p.group).len() * cells;
    let row = RowOf {
        pieces: pieces.len(),
        values: pieces.iter().map(group_values).sum(),
        wanted: pieces.iter().map(|p| p.cols.len()).sum(),
    };
    let n_pages = touched.pages * pieces.len();
    let n_chunks = touched.blocks.len() * pieces.len();
    let chunk = |block: usize, piece: &Piece| blocks.get(block)?.chunks.get(piece.group).copied();
    let step = n_pages.div_ceil(SAMPLE).max(1);
    let first = || {
        let (block, pages) = touched.blocks.first()?;
        Some((chunk(*block, pieces.first()?)?, *pages.first()?))
    };
    let admitted = first().is_some_and(|first| pool.would_hold(n_pages * page_bytes(layout), first));
    let held = if admitted {
        let pages = touched.blocks.iter().flat_map(|(block, pages)| {
            pieces.iter().flat_map(move |piece| pages.iter().map(move |page| (*block, piece, *page)))
        });
        let keys = pages.step_by(step).filter_map(|(block, piece, page)| Some((chunk(block, piece)?, page)));
        pool.holds(keys) as f64 / n_pages.div_ceil(step).max(1) as f64
    } else {
        0.0
    };
    let step = n_chunks.div_ceil(SAMPLE).max(1);
    let chunks = touched.blocks.iter().flat_map(|(b, _)| pieces.iter().map(move |p| (*b, p)));
    let mut ids = chunks.step_by(step).filter_map(|(block, piece)| chunk(block, piece));
    let unknown = 1.0 - known(&mut ids) as f64 / n_chunks.div_ceil(step).max(1) as f64;
    work_of(layout, &row, touched, admitted, held, unknown)
}

/// What of a row is read: pieces of columns, the values of the pages that hold them, and those wanted of these.
struct RowOf {
    pieces: usize,
    values: usize,
    wanted: usize,
}

fn page_bytes(layout: &TensorLayout) -> usize {
    layout.page_rows * layout.group_units * layout.stored.cells() * layout.code.width()
}

/// The work of a read that the InMemoryStore admits or not, of which the shares `held` of its pages are in memory, and
/// `unknown` of its chunks to be looked up.
fn work_of(layout: &TensorLayout, row: &RowOf, touched: &Touched, admitted: bool, held: f64, unknown: f64) -> ReadWork {
    let n_pages = touched.pages * row.pieces;
    let n_chunks = touched.blocks.len() * row.pieces;
    let alone = on_one_thread(layout, n_pages, n_chunks);
    let parts = if alone { 1 } else { parts_of(n_chunks) };
    let opens = row.pieces * touched.blocks.iter().map(|(_, pages)| pages.len().min(parts)).sum::<usize>();
    let fresh = 1.0 - held;
    let values = touched.rows as f64 * row.values as f64 * fresh;
    let out_values = touched.wanted as f64 * row.wanted as f64;
    ReadWork {
        places: n_chunks as f64 * unknown,
        of_block: row.pieces,
        opens: opens as f64 * fresh,
        values,
        held_pages: n_pages as f64 * held,
        held_values: out_values * held,
        out_values,
        fresh_values: cost::fresh_values(out_values),
        bytes: values * f64::from(layout.code.bits()) / 8.0,
        tasks: if alone { opens.min(1) } else { opens } as f64,
        admitted,
    }
}

/// One task is done where it is asked for; several have threads to wake.
fn start_subject(tasks: f64) -> &'static str {
    if tasks > 1.0 { "tensor" } else { "tensor, one task" }
}

impl Store {
    /// What reading `columns` (stored cells of a tensor, see [`Store::read_f32`]) of the planned rows has to do.
    ///
    /// Errors: `Unsupported` for a table.
    pub fn read_work(&self, record: &IntermediateRecord, plan: &RowPlan, columns: &[Range<usize>]) -> Result<ReadWork> {
        let layout = &record.tensor()?.layout;
        if layout.code == Code::F64 {
            // Codes are read by whole chunks of all columns, one after the other.
            let values = (Touched::by_plan(plan, layout.block_rows).rows * layout.stored_values()) as f64;
            let out_values = (plan.n_rows() * columns.iter().map(Range::len).sum::<usize>()) as f64;
            return Ok(ReadWork { values, out_values, bytes: values * 8.0, tasks: 1.0, ..ReadWork::default() });
        }
        let touched = Touched::by_plan(plan, layout.page_rows);
        let known = |ids: &mut dyn Iterator<Item = i64>| self.known_places(ids);
        Ok(tensor_work(layout, &pieces(layout, columns), &touched, &plan.blocks, self.pool(), known))
    }

    /// The same for all columns of rows of an intermediate that was logged in the order of its `n_rows` row_ids, without
    /// asking the MetadataDB where they lie; pages held in memory are not counted.
    ///
    /// Errors: `Unsupported` for a table.
    pub fn read_work_in_order(&self, record: &IntermediateRecord, rows: &RowSet) -> Result<ReadWork> {
        let layout = &record.tensor()?.layout;
        let touched = Touched::in_order(rows, record.n_rows as usize, layout.block_rows, layout.page_rows);
        let n = layout.stored_values();
        let row = RowOf { pieces: layout.n_groups(), values: n, wanted: n };
        let admitted = self.pool().holds_at_once(touched.pages * row.pieces * page_bytes(layout));
        Ok(work_of(layout, &row, &touched, admitted, 0.0, 1.0))
    }

    /// Seconds that the work takes by the rates measured on this machine (Eq. 5.4).
    ///
    /// Errors: `Catalog`.
    pub fn read_estimate(&self, record: &IntermediateRecord, work: &ReadWork) -> Result<Estimate> {
        let scheme = record.content.scheme_text();
        let manner = Manner::of(work.admitted, work.places, work.values, work.out_values - work.held_values);
        let or = |cost: Option<CostRecord>, guess: f64| cost.map_or_else(|| Estimate::guess(guess), Estimate::from);
        let once = |what: &str, subject: &str, guess: f64| {
            let found = self.first_cost(what, manner.nearest().map(|m| m.repeated(subject)))?;
            Ok::<_, EngineError>(or(found, guess))
        };
        let own_then_any = |m: Manner| [Some(record.id), None].into_iter().map(move |of| (m, of));
        let value = manner.nearest().flat_map(own_then_any).map(|(m, of)| cost::read_subject(&scheme, m, of));
        let rates = ReadRates {
            start: once(cost::READ_START, start_subject(work.tasks), unmeasured::START)?,
            place: self.place_rate(work.of_block)?,
            open: once(cost::READ_OPEN, &scheme, unmeasured::OPEN)?,
            value: or(self.first_cost(cost::READ, value)?, unmeasured::VALUE),
            held_page: self.rate(cost::HELD_PAGE, "", unmeasured::HELD_PAGE)?,
            held_value: self.rate(cost::HELD, &scheme, unmeasured::HELD_VALUE)?,
            fresh_value: self.fresh_estimate()?,
            threads: rayon::current_num_threads() as f64,
        };
        Ok(read_seconds(work, &rates))
    }

    /// Seconds a value to touch fresh memory, on one thread.
    ///
    /// Errors: `Catalog`.
    pub fn fresh_estimate(&self) -> Result<Estimate> {
        self.rate(cost::FRESH, "", unmeasured::FRESH)
    }

    /// Seconds to look up where one of so many chunks of each RowBlock lies.
    pub(crate) fn place_rate(&self, of_block: usize) -> Result<Estimate> {
        let (one, run) = (cost::place_subject(1), cost::place_subject(usize::MAX));
        let subjects = if cost::place_subject(of_block) == run { [run, one] } else { [one, run] };
        let found = self.first_cost(cost::READ_PLACE, subjects.into_iter().map(String::from))?;
        Ok(found.map_or_else(|| Estimate::guess(unmeasured::PLACE), Estimate::from))
    }

    pub(crate) fn rate(&self, what: &str, subject: &str, otherwise: f64) -> Result<Estimate> {
        Ok(self.cost(what, subject)?.map_or_else(|| Estimate::guess(otherwise), Estimate::from))
    }

    /// Keeps what a read measured that began then. A store on read-only media is read all the same: its figures are this process's.
    pub(crate) fn keep_read(
        &self,
        record: &IntermediateRecord,
        meter: &Meter,
        n_out: usize,
        (places, of_block, looked): (usize, usize, f64),
        begun: Instant,
    ) {
        let scheme = record.content.scheme_text();
        let (n, seconds) = (meter.values.n(), meter.values.seconds());
        let manner = Manner::of(meter.admitted, places as f64, n, n_out as f64 - meter.held_values.n());
        let keep = |what: &str, subject: &str, seconds: f64, n: f64| {
            if n > 0.0
                && let Err(e) = self.add_cost(what, subject, seconds / n)
            {
                tracing::debug!("the read's time is not kept: {e}");
            }
        };
        keep(cost::READ_PLACE, cost::place_subject(of_block), looked, places as f64);
        keep(cost::READ_OPEN, &manner.repeated(&scheme), meter.opens.seconds(), meter.opens.n());
        keep(cost::HELD_PAGE, "", meter.held_pages.seconds(), meter.held_pages.n());
        // Whether fresh memory is touched by pages decoded or by pages held, most of the rate would be its own.
        if n_out as f64 >= cost::LARGE_VALUES {
            return;
        }
        keep(cost::HELD, &scheme, meter.held_values.seconds(), meter.held_values.n());
        keep(cost::READ, &cost::read_subject(&scheme, manner, Some(record.id)), seconds, n);
        if n >= cost::RATE_VALUES {
            keep(cost::READ, &cost::read_subject(&scheme, manner, None), seconds, n);
        }
        let parts = [&meter.opens, &meter.values, &meter.held_pages, &meter.held_values];
        let tasks: f64 = parts.iter().map(|p| p.seconds()).sum();
        let beside = tasks / (meter.tasks as f64).clamp(1.0, rayon::current_num_threads() as f64);
        if meter.tasks > 0 && beside < START_SECONDS {
            // What keeping the figures took is part of the read.
            let looked = if places > 0 { looked } else { 0.0 };
            let start = (begun.elapsed().as_secs_f64() - looked - beside).max(0.0);
            keep(cost::READ_START, &manner.repeated(start_subject(meter.tasks as f64)), start, 1.0);
        }
    }

    pub(crate) fn keep_codes_read(&self, record: &IntermediateRecord, plan: &RowPlan, seconds: f64) {
        let Ok(content) = record.tensor() else { return };
        let values = Touched::by_plan(plan, content.layout.block_rows).rows * content.layout.stored_values();
        let manner = Manner::of(false, 1.0, values as f64, values as f64);
        let subject = cost::read_subject(&content.scheme.to_string(), manner, Some(record.id));
        if values > 0
            && let Err(e) = self.add_cost(cost::READ, &subject, seconds / values as f64)
        {
            tracing::debug!("the read's time is not kept: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnitAxis;

    #[test]
    fn touched_pages_by_hand() {
        // 2,500 rows in blocks of 1,024, pages of 32: rows 1,000 to 1,100 lie in pages 31 of block 0 and 0 to 2 of 1.
        let t = Touched::in_order(&RowSet::Range(1000..1100), 2500, 1024, 32);
        assert_eq!((t.pages, t.rows, t.wanted), (1 + 3, 4 * 32, 100));
        assert_eq!(t.blocks, [(0, vec![31]), (1, vec![0, 1, 2])]);
        // The last block has 452 rows: 14 pages and one of 4 rows.
        let t = Touched::in_order(&RowSet::Range(2499..2500), 2500, 1024, 32);
        assert_eq!((t.pages, t.rows, t.wanted, t.blocks.len()), (1, 4, 1, 1));
        // Four scattered rows touch four pages, five rows of one page touch one.
        let t = Touched::in_order(&RowSet::List(vec![2000, 3, 700, 64]), 2500, 1024, 32);
        assert_eq!((t.pages, t.rows, t.wanted), (4, 128, 4));
        let t = Touched::in_order(&RowSet::List(vec![4, 3, 2, 1, 0]), 2500, 1024, 32);
        assert_eq!((t.pages, t.rows, t.wanted), (1, 32, 5));
        assert_eq!(Touched::in_order(&RowSet::Range(0..0), 2500, 1024, 32), Touched::default());
    }

    #[test]
    fn work_by_hand() {
        let scheme: mistique_quantize::Scheme = "f16".parse().unwrap();
        // 64 maps of 16×16: one unit a chunk, pages of 32 rows.
        let layout = TensorLayout::new(&[64, 16, 16], UnitAxis::First, &scheme, scheme.code());
        let pool = InMemoryStore::new(1 << 30);
        let touched = Touched::in_order(&RowSet::Range(0..1), 2048, layout.block_rows, layout.page_rows);
        let row = RowOf { pieces: 64, values: 64 * 256, wanted: 64 * 256 };
        let work = work_of(&layout, &row, &touched, true, 0.0, 1.0);
        // One row of all units: a page of 32 × 256 values of each of 64 chunks; 64 × 256 values are wanted.
        assert_eq!((work.places, work.opens, work.values), (64.0, 64.0, 64.0 * 8192.0));
        assert_eq!((work.out_values, work.tasks, work.admitted), (16384.0, 64.0, true));
        // The same pages held: nothing is opened.
        let blocks =
            [Block { block_no: 0, rows: std::sync::Arc::new(RowSet::Range(0..1024)), chunks: (0..64).collect() }];
        (0..64).for_each(|chunk| pool.put((chunk, 0), vec![0u8; 16384].into()));
        let whole = pieces(&layout, &[0..64 * 256]);
        let work = tensor_work(&layout, &whole, &touched, &blocks, &pool, |ids| ids.count());
        assert_eq!((work.places, work.opens, work.values), (0.0, 0.0, 0.0));
        assert_eq!((work.held_pages, work.held_values), (64.0, 16384.0));
        // A request beyond a quarter of the pool goes straight to the answer, one beyond a thirty-second when it comes first.
        let admitted =
            |pool: &InMemoryStore| tensor_work(&layout, &whole, &touched, &blocks, pool, |ids| ids.count()).admitted;
        let (small, middle) = (InMemoryStore::new(1 << 21), InMemoryStore::new(1 << 22));
        assert_eq!((admitted(&pool), admitted(&small), admitted(&middle)), (true, false, false));
        for pool in [&small, &middle] {
            pool.admits_pages(1 << 20, (0, 0));
        }
        assert_eq!((admitted(&small), admitted(&middle)), (false, true));
        // What is larger than the allocator keeps is touched for the first time.
        let touched = Touched::in_order(&RowSet::Range(0..1024), 2048, layout.block_rows, layout.page_rows);
        let work = work_of(&layout, &row, &touched, true, 0.0, 1.0);
        assert_eq!((work.out_values, work.fresh_values), (16_777_216.0, 16_777_216.0));
    }
}
