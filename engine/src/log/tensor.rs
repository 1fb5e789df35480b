//! The unfinished RowBlock of a tensor intermediate.

use std::ops::Range;
use std::sync::Arc;

use mistique_quantize::{Code, OnUnholdable, Params, QuantizeError, UnitError};
use rayon::prelude::*;

use super::growing::GrowingChunk;
use super::slabs::Slabs;
use super::source::{TensorSource, Values};
use crate::catalog::IntermediateProgress;
use crate::codec::{BatchView, TensorCodec, sample_f32};
use crate::error::{EngineError, Result};
use crate::key::IntermediateKey;
use crate::model::{TensorContent, TensorLayout};

/// Rows from which codebooks are fitted and `auto` chooses.
const FIT_ROWS: usize = 256;
/// Values of a unit from which a codebook of its own is fitted: fewer would cut its tails.
const FIT_UNIT_VALUES: usize = 2048;
/// Values that are enough of a sample, for a codebook and for one of each unit: rows are picked evenly until there are as
/// many.
const FIT_VALUES: [usize; 2] = [1 << 20, 1 << 22];
/// Values on which `auto` tries schemes.
const CHOOSE_VALUES: usize = 1 << 17;
/// After the first page, one row in this many is measured for reduction errors.
const MEASURE_EVERY: usize = 32;
/// Below this many values a batch is encoded without the thread pool.
const PARALLEL_VALUES: usize = 1 << 15;
/// Values of the pages that one task fills side by side: their codes stay in a core's second-level cache, and of each row
/// it reads a stretch long enough to be fetched ahead.
const TASK_VALUES: usize = 1 << 17;
/// Tasks that a batch is divided into at least, where it has as many groups.
const MIN_TASKS: usize = 4;

/// A full or flushed RowBlock.
pub struct SealedBlock {
    /// Row_ids in stored order.
    pub rows: Vec<u64>,
    /// The chunk of each group, still open.
    pub chunks: Vec<GrowingChunk>,
}

/// Where a sealed block goes.
pub type Sealed<'a> = &'a mut dyn FnMut(&TensorContent, SealedBlock) -> Result<()>;

/// What a builder works with.
pub struct Tools<'a> {
    /// Threads of the log.
    pub pool: &'a rayon::ThreadPool,
    /// Memory of pages.
    pub slabs: &'a Arc<Slabs>,
    /// Where sealed blocks go.
    pub sealed: Sealed<'a>,
}

struct Pending {
    rows: Vec<u64>,
    source: Box<dyn TensorSource>,
}

/// Builds the RowBlocks of one tensor intermediate.
pub struct TensorBuilder {
    /// Its key, for messages.
    pub key: IntermediateKey,
    content: TensorContent,
    codec: Option<Arc<TensorCodec>>,
    /// Batches that wait for enough of a sample.
    pending: Vec<Pending>,
    rows: Vec<u64>,
    chunks: Vec<GrowingChunk>,
    progress: IntermediateProgress,
    seen_rows: usize,
    on_bad: OnUnholdable,
    /// Whether the scheme, the layout or the parameters were settled since the last commit.
    settled: bool,
    /// Whether values are no longer encoded.
    rows_only: bool,
}

impl TensorBuilder {
    /// A builder for new rows of an intermediate. `progress` carries what earlier logs measured.
    ///
    /// Errors: `Quantize` when the scheme does not fit.
    pub fn new(
        key: IntermediateKey,
        content: TensorContent,
        progress: IntermediateProgress,
        on_bad: OnUnholdable,
    ) -> Result<Self> {
        let mut this = Self {
            key,
            content,
            codec: None,
            pending: Vec::new(),
            rows: Vec::new(),
            chunks: Vec::new(),
            progress,
            seen_rows: 0,
            on_bad,
            settled: false,
            rows_only: false,
        };
        let waits = this.content.scheme.is_auto().is_some()
            || (this.content.scheme.needs_fit() && this.content.params.is_none());
        if !waits {
            this.bind()?;
        }
        Ok(this)
    }

    fn bind(&mut self) -> Result<()> {
        let codec = TensorCodec::new(&self.key, &self.content)?;
        if self.progress.errors.is_none() && !codec.is_lossless() {
            self.progress.errors = Some(vec![UnitError::default(); self.content.layout.n_units]);
        }
        self.codec = Some(Arc::new(codec));
        Ok(())
    }

    /// The content, once scheme and parameters are settled.
    pub fn content(&self) -> &TensorContent {
        &self.content
    }

    /// Whether the content was settled since the last call.
    pub fn take_settled(&mut self) -> bool {
        std::mem::take(&mut self.settled)
    }

    /// Errors, clamps and measured rows so far.
    pub fn progress(&self) -> IntermediateProgress {
        self.progress.clone()
    }

    /// Bytes that the unfinished RowBlock holds.
    pub fn held_bytes(&self) -> usize {
        let pending: usize = self.pending.iter().map(|p| p.source.len() * p.source.dtype().width()).sum();
        pending + self.chunks.iter().map(GrowingChunk::held_bytes).sum::<usize>()
    }

    /// Adds a batch; full RowBlocks go to `with.sealed`.
    ///
    /// Errors: `Quantize`, `Unsupported` when the source cannot give its values.
    pub fn append(&mut self, rows: Vec<u64>, source: Box<dyn TensorSource>, with: &mut Tools<'_>) -> Result<()> {
        if self.rows_only {
            return self.append_rows(&rows, with);
        }
        if self.codec.is_some() {
            return self.encode(&rows, &*source, with);
        }
        self.pending.push(Pending { rows, source });
        let n_rows: usize = self.pending.iter().map(|p| p.rows.len()).sum();
        let n_values: usize = self.pending.iter().map(|p| p.source.len()).sum();
        let (rows, values) = self.enough();
        if n_rows >= rows || n_values >= values { self.settle(with) } else { Ok(()) }
    }

    /// The rows, and the values, of which one is enough of a sample.
    fn enough(&self) -> (usize, usize) {
        let [one, each] = FIT_VALUES;
        match self.content.scheme.is_per_unit() {
            true => (FIT_ROWS.max(FIT_UNIT_VALUES / self.content.layout.map.cells().max(1)), each),
            false => (FIT_ROWS, one),
        }
    }

    /// Adds rows without values: their RowBlocks lack all groups.
    ///
    /// Errors: `Unsupported` before the first rows with values, which settle the scheme.
    pub fn append_rows(&mut self, rows: &[u64], with: &mut Tools<'_>) -> Result<()> {
        if self.codec.is_none() {
            let why = "its first rows must come with values, which settle its scheme".to_string();
            return Err(EngineError::Unsupported { what: self.key.to_string(), why });
        }
        self.rows_only = true;
        self.chunks.clear();
        let mut rest = rows;
        while !rest.is_empty() {
            let (now, later) = rest.split_at((self.content.layout.block_rows - self.rows.len()).min(rest.len()));
            self.rows.extend_from_slice(now);
            rest = later;
            if self.rows.len() == self.content.layout.block_rows {
                self.seal(with)?;
            }
        }
        Ok(())
    }

    /// From now on only rows are kept, if the scheme is settled. Returns the chunks of the rows that are unfinished, where
    /// there are some.
    pub fn keep_rows_only(&mut self) -> Option<Vec<GrowingChunk>> {
        if self.rows_only || self.codec.is_none() || self.seen_rows == 0 {
            return None;
        }
        self.rows_only = true;
        let chunks = std::mem::take(&mut self.chunks);
        (!self.rows.is_empty()).then_some(chunks)
    }

    /// Chooses and fits from what is pending, then encodes it.
    fn settle(&mut self, with: &mut Tools<'_>) -> Result<()> {
        let layout = &self.content.layout;
        let (units, map, axis) = (layout.n_units, layout.map, self.content.unit_axis);
        let mut sample = Vec::new();
        let n_values: usize = self.pending.iter().map(|p| p.source.len()).sum();
        // Batches can be of any size; a larger sample only makes fitting slow.
        let every = n_values.div_ceil(self.enough().1).max(1);
        let tolerance = self.content.scheme.is_auto();
        // Schemes are tried on float32.
        let mut is_held = true;
        for p in &self.pending {
            let mut add = |v: Values<'_>| {
                if let (Values::F64(values), Some(tolerance)) = (&v, tolerance) {
                    is_held &= float32_holds(values, tolerance);
                }
                sample.extend(sample_f32(v, every, axis, units, map.cells()));
            };
            p.source.with(&mut add).map_err(|why| unreadable(&self.key, why))?;
        }
        if let Some(tolerance) = tolerance {
            let every = sample.len().div_ceil(CHOOSE_VALUES).max(1);
            let few: Vec<f32> = sample.chunks(layout.row_values().max(1)).step_by(every).flatten().copied().collect();
            let scheme = match is_held {
                true => mistique_quantize::Scheme::choose(tolerance, map, units, &few),
                false => "f64".parse(),
            };
            let scheme = scheme.map_err(|e| EngineError::quantize(&self.key, e))?;
            let code = crate::catalog::stored_code(&scheme, self.content.dtype);
            self.content.layout = TensorLayout::new(&self.content.shape, axis, &scheme, code);
            self.content.scheme = scheme;
        }
        self.content.params = match self.content.scheme.needs_fit() {
            true => self.content.scheme.fit(map, units, &sample).map_err(|e| self.unfitted(e))?,
            false => Params::none(),
        };
        drop(sample);
        self.bind()?;
        self.settled = true;
        for p in std::mem::take(&mut self.pending) {
            self.encode(&p.rows, &*p.source, with)?;
        }
        Ok(())
    }

    /// A scheme that what is pending tells nothing about.
    fn unfitted(&self, e: QuantizeError) -> EngineError {
        if e != QuantizeError::EmptySample {
            return EngineError::quantize(&self.key, e);
        }
        let n_rows: usize = self.pending.iter().map(|p| p.rows.len()).sum();
        let other = if self.content.dtype == Code::F64 { "f64" } else { "f32" };
        let why = format!(
            "{} is fitted on the first {n_rows} rows, of which no value is finite; pass another --scheme: {other} holds \
             all values",
            self.content.scheme
        );
        EngineError::Unsupported { what: self.key.to_string(), why }
    }

    fn encode(&mut self, rows: &[u64], source: &dyn TensorSource, with: &mut Tools<'_>) -> Result<()> {
        let mut result = Ok(());
        source
            .with(&mut |values| result = self.encode_values(rows, values, with))
            .map_err(|why| unreadable(&self.key, why))?;
        result
    }

    fn encode_values(&mut self, rows: &[u64], values: Values<'_>, with: &mut Tools<'_>) -> Result<()> {
        let Some(codec) = self.codec.clone() else { return Ok(()) };
        let batch = BatchView::new(values, rows, &codec, self.on_bad)?;
        let layout = self.content.layout;
        let per_task = groups_per_task(&layout, rows.len());
        let mut done = 0;
        while done < rows.len() {
            if self.chunks.is_empty() {
                let chunk = |g| GrowingChunk::new(layout.chunk_shape(g, layout.block_rows), with.slabs);
                self.chunks.extend((0..layout.n_groups()).map(chunk));
            }
            let take = (layout.block_rows - self.rows.len()).min(rows.len() - done);
            let span = done..done + take;
            let seen = self.seen_rows;
            let errors = self.progress.errors.as_deref_mut().unwrap_or_default();
            let mut errors = errors.chunks_mut(per_task * layout.group_units);
            let tasks = self.chunks.chunks_mut(per_task).enumerate();
            let tasks = tasks.map(|(i, chunks)| Task {
                codec: &codec,
                batch: &batch,
                rows,
                span: span.clone(),
                seen_rows: seen,
                first_group: i * per_task,
                chunks,
                errors: errors.next().unwrap_or_default(),
                on_bad: self.on_bad,
            });
            self.progress.clamped += if values.len() < PARALLEL_VALUES {
                tasks.map(Task::run).sum::<Result<u64>>()?
            } else {
                let tasks: Vec<_> = tasks.collect();
                with.pool.install(|| tasks.into_par_iter().map(Task::run).sum::<Result<u64>>())?
            };
            self.progress.measured_rows += (0..take).filter(|i| is_measured(seen + i, layout.page_rows)).count() as u64;
            self.seen_rows += take;
            self.rows.extend_from_slice(&rows[span]);
            done += take;
            if self.rows.len() == layout.block_rows {
                self.seal(with)?;
            }
        }
        Ok(())
    }

    fn seal(&mut self, with: &mut Tools<'_>) -> Result<()> {
        let block = SealedBlock { rows: std::mem::take(&mut self.rows), chunks: std::mem::take(&mut self.chunks) };
        (with.sealed)(&self.content, block)
    }

    /// Seals what there is, also when it is less than a RowBlock.
    ///
    /// Errors: as [`TensorBuilder::append`].
    pub fn flush(&mut self, with: &mut Tools<'_>) -> Result<()> {
        if !self.pending.is_empty() {
            self.settle(with)?;
        }
        if self.rows.is_empty() { Ok(()) } else { self.seal(with) }
    }
}

/// How many groups a task takes of so many rows.
fn groups_per_task(layout: &TensorLayout, n_rows: usize) -> usize {
    let values = layout.page_rows.min(n_rows) * layout.group_units * layout.map.cells();
    (TASK_VALUES / values.max(1)).clamp(1, layout.n_groups().div_ceil(MIN_TASKS).max(1))
}

/// Some groups of some rows of a batch.
struct Task<'a> {
    codec: &'a TensorCodec,
    batch: &'a BatchView<'a>,
    /// Row_ids of the batch.
    rows: &'a [u64],
    span: Range<usize>,
    /// Rows that were seen before the span.
    seen_rows: usize,
    first_group: usize,
    chunks: &'a mut [GrowingChunk],
    /// One a unit; none where nothing is lost.
    errors: &'a mut [UnitError],
    on_bad: OnUnholdable,
}

impl Task<'_> {
    /// Appends the rows to the chunks. Returns how many values were clamped.
    fn run(self) -> Result<u64> {
        let layout = self.codec.content().layout;
        let n_rows = self.span.len();
        let (mut codes, mut page) = (Vec::new(), Vec::new());
        let mut clamped = 0;
        let mut done = 0;
        while done < n_rows {
            // Row after row, as the values lie; but page after page where each unit has a table that must be at hand.
            let held = self.chunks.first().map_or(0, GrowingChunk::page_rows_held);
            let by_page = self.codec.has_tables();
            let step = if by_page { (layout.page_rows - held).min(n_rows - done) } else { 1 };
            let width = if by_page { 1 } else { self.chunks.len().max(1) };
            let mut errors = self.errors.chunks_mut(width * layout.group_units);
            let mut first = self.first_group;
            for chunks in self.chunks.chunks_mut(width) {
                let groups = first..first + chunks.len();
                first = groups.end;
                let mut errors = errors.next();
                for i in done..done + step {
                    let row = self.span.start + i;
                    codes.clear();
                    let encoded = self.codec.encode_row(self.batch, row, groups.clone(), self.on_bad, &mut codes);
                    clamped += encoded.map_err(|e| self.codec.failed_at(row_id(self.rows, row), e))?;
                    let is_measured = is_measured(self.seen_rows + i, layout.page_rows);
                    if let Some(errors) = errors.as_deref_mut().filter(|_| is_measured) {
                        self.codec.measure_row(self.batch, row, groups.clone(), &codes, errors)?;
                    }
                    let mut rest = &codes[..];
                    for chunk in &mut *chunks {
                        let of_chunk = rest.split_off(..chunk.row_code_bytes()).unwrap_or_default();
                        chunk.push_row(of_chunk, &mut page).map_err(|e| self.codec.failed(e))?;
                    }
                }
            }
            done += step;
        }
        self.chunks.iter_mut().for_each(GrowingChunk::pause);
        Ok(clamped)
    }
}

fn row_id(rows: &[u64], row: usize) -> u64 {
    rows.get(row).copied().unwrap_or_default()
}

/// The first rows are measured all, then a sample.
fn is_measured(row: usize, page_rows: usize) -> bool {
    row < page_rows.min(64) || row.is_multiple_of(MEASURE_EVERY)
}

/// Whether values are finite in float32 where they were, and their relative error there is at most `tolerance`.
fn float32_holds(values: &[f64], tolerance: f64) -> bool {
    let finite = || values.iter().filter(|v| v.is_finite());
    let most = finite().fold(0.0, |most: f64, v| most.max(v.abs()));
    if most > f64::from(f32::MAX) {
        return false;
    }
    // In terms of the largest, so that squares do not vanish.
    let sum = |of: fn(f64) -> f64| finite().map(|v| (of(*v) / most).powi(2)).sum::<f64>();
    let off = sum(|v| v - f64::from(v as f32));
    most == 0.0 || (off / sum(|v| v)).sqrt() <= tolerance
}

fn unreadable(key: &IntermediateKey, why: String) -> EngineError {
    EngineError::Unsupported { what: key.to_string(), why: format!("the batch cannot be read: {why}") }
}
