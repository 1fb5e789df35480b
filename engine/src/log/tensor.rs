//! The unfinished RowBlock of a tensor intermediate.

use std::sync::Arc;

use mistique_quantize::{OnUnholdable, Params, UnitError};
use rayon::prelude::*;

use super::source::{TensorSource, Values};
use crate::catalog::IntermediateProgress;
use crate::codec::{BatchView, TensorCodec, sample_f32};
use crate::error::{EngineError, Result};
use crate::key::IntermediateKey;
use crate::model::{TensorContent, TensorLayout};

/// Rows from which codebooks are fitted and `auto` chooses.
const FIT_ROWS: usize = 256;
/// Values that are enough of a sample: rows are picked evenly until there are as many.
const FIT_VALUES: usize = 1 << 17;
/// After the first page, one row in this many is measured for reduction errors.
const MEASURE_EVERY: usize = 32;
/// Below this many values a batch is encoded without the thread pool.
const PARALLEL_VALUES: usize = 1 << 15;

/// Buffers of sealed RowBlocks, used again: fresh ones would cost their page faults each time.
#[derive(Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes a sealed block's buffers back.
    pub fn give_back(&mut self, block: SealedBlock) {
        self.0.extend(block.groups.into_iter().map(|mut b| {
            b.clear();
            b
        }));
    }

    /// Bytes held for use again.
    pub fn held_bytes(&self) -> usize {
        self.0.iter().map(Vec::capacity).sum()
    }

    /// Frees all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A full or flushed RowBlock, before hashing.
pub struct SealedBlock {
    /// Row_ids in stored order.
    pub rows: Vec<u64>,
    /// Codes of each group, row-major.
    pub groups: Vec<Vec<u8>>,
}

/// Where a sealed block goes.
pub type Sealed<'a> = &'a mut dyn FnMut(&TensorContent, SealedBlock, &mut Buffers) -> Result<()>;

/// What a builder works with.
pub struct Tools<'a> {
    /// Threads of the log.
    pub pool: &'a rayon::ThreadPool,
    /// Buffers to use again.
    pub buffers: &'a mut Buffers,
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
    groups: Vec<Vec<u8>>,
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
            groups: Vec::new(),
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
        pending + self.groups.iter().map(Vec::len).sum::<usize>()
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
        if n_rows >= FIT_ROWS || n_values >= FIT_VALUES { self.settle(with) } else { Ok(()) }
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
        self.groups.clear();
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

    /// From now on only rows are kept, if the scheme is settled. Returns how many rows are unfinished, and their codes,
    /// where there are some that were encoded.
    pub fn keep_rows_only(&mut self) -> Option<(usize, Vec<Vec<u8>>)> {
        if self.rows_only || self.codec.is_none() || self.seen_rows == 0 {
            return None;
        }
        self.rows_only = true;
        let codes = std::mem::take(&mut self.groups);
        (!self.rows.is_empty()).then_some((self.rows.len(), codes))
    }

    /// Chooses and fits from what is pending, then encodes it.
    fn settle(&mut self, with: &mut Tools<'_>) -> Result<()> {
        let layout = &self.content.layout;
        let (units, map, axis) = (layout.n_units, layout.map, self.content.unit_axis);
        let mut sample = Vec::new();
        let n_rows: usize = self.pending.iter().map(|p| p.rows.len()).sum();
        // Batches can be of any size; a larger sample only makes fitting slow.
        let every = (n_rows * layout.row_values()).div_ceil(FIT_VALUES).max(1);
        for p in &self.pending {
            let mut add = |v: Values<'_>| sample.extend(sample_f32(v, every, axis, units, map.cells()));
            p.source.with(&mut add).map_err(|why| unreadable(&self.key, why))?;
        }
        let quantize = |e| EngineError::quantize(&self.key, e);
        if let Some(tolerance) = self.content.scheme.is_auto() {
            let scheme = mistique_quantize::Scheme::choose(tolerance, map, units, &sample).map_err(quantize)?;
            let code = crate::catalog::stored_code(&scheme, self.content.dtype);
            self.content.layout = TensorLayout::new(&self.content.shape, axis, &scheme, code);
            self.content.scheme = scheme;
        }
        self.content.params = match self.content.scheme.needs_fit() {
            true => self.content.scheme.fit(map, units, &sample).map_err(quantize)?,
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

    fn encode(&mut self, rows: &[u64], source: &dyn TensorSource, with: &mut Tools<'_>) -> Result<()> {
        let mut result = Ok(());
        source
            .with(&mut |values| result = self.encode_values(rows, values, with))
            .map_err(|why| unreadable(&self.key, why))?;
        result
    }

    fn encode_values(&mut self, rows: &[u64], values: Values<'_>, with: &mut Tools<'_>) -> Result<()> {
        let Some(codec) = self.codec.clone() else { return Ok(()) };
        let batch = BatchView::new(values, rows.len(), &codec, self.on_bad)?;
        let layout = self.content.layout;
        let mut done = 0;
        while done < rows.len() {
            if self.groups.is_empty() {
                self.groups.resize_with(layout.n_groups(), || with.buffers.take());
            }
            let take = (layout.block_rows - self.rows.len()).min(rows.len() - done);
            let span = done..done + take;
            let (seen, on_bad) = (self.seen_rows, self.on_bad);
            let encode_group = |group: usize, out: &mut Vec<u8>, errors: Option<&mut [UnitError]>| -> Result<u64> {
                let start = out.len();
                let clamped = codec.encode_group(&batch, span.clone(), group, on_bad, out)?;
                let row_bytes = (out.len() - start) / take.max(1);
                if let Some(errors) = errors {
                    for i in (0..take).filter(|i| is_measured(seen + i, layout.page_rows)) {
                        let codes = &out[start + i * row_bytes..start + (i + 1) * row_bytes];
                        codec.measure_group(&batch, span.start + i, group, codes, errors)?;
                    }
                }
                Ok(clamped)
            };
            let errors = self.progress.errors.as_deref_mut();
            let mut no_errors = Vec::new();
            let errors: Vec<Option<&mut [UnitError]>> = match errors {
                Some(e) => e.chunks_mut(layout.group_units).map(Some).collect(),
                None => {
                    no_errors.resize_with(layout.n_groups(), || None);
                    no_errors
                }
            };
            let work = self.groups.iter_mut().zip(errors).enumerate().collect::<Vec<_>>();
            self.progress.clamped += if values.len() < PARALLEL_VALUES {
                work.into_iter().map(|(g, (out, e))| encode_group(g, out, e)).sum::<Result<u64>>()?
            } else {
                with.pool.install(|| {
                    work.into_par_iter().map(|(g, (out, e))| encode_group(g, out, e)).sum::<Result<u64>>()
                })?
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
        let block = SealedBlock { rows: std::mem::take(&mut self.rows), groups: std::mem::take(&mut self.groups) };
        (with.sealed)(&self.content, block, with.buffers)
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

/// The first rows are measured all, then a sample.
fn is_measured(row: usize, page_rows: usize) -> bool {
    row < page_rows.min(64) || row.is_multiple_of(MEASURE_EVERY)
}

fn unreadable(key: &IntermediateKey, why: String) -> EngineError {
    EngineError::Unsupported { what: key.to_string(), why: format!("the batch cannot be read: {why}") }
}
