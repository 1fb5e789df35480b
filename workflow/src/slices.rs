//! Running a batch so that what is logged of it is still in the cache: early layers, whose outputs are large, run for a
//! few rows at a time. A row's output does not depend on the rows beside it, so that the values are the same.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::NetworkError;
use crate::executor::{Executor, Timings};
use crate::network::Network;

/// Bytes of a layer's output that stay in a machine's last-level cache until they are logged, beside what it was computed from.
const CACHED_BYTES: usize = 8 << 20;
/// Layers whose rows have fewer bytes run for the whole batch: cutting their matrices would cost more than it saves.
const SMALL_ROW_BYTES: usize = 48 << 10;

/// How batches of a network are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slices {
    /// Layers up to this one run slice by slice; those behind need nothing else of the layers before them.
    last: usize,
    /// Rows of a slice.
    rows: usize,
}

impl Slices {
    /// How batches of `network` are cut on a CPU; `None` where its outputs stay in the cache anyway.
    pub fn of(network: &Network) -> Option<Self> {
        let layers = network.layers();
        let bytes = |shape: &[usize]| 4 * shape.iter().product::<usize>();
        let large = layers.iter().rposition(|l| bytes(l.shape()) > SMALL_ROW_BYTES)?;
        let largest = layers.iter().map(|l| bytes(l.shape())).max()?;
        let last = (large + 1..layers.len())
            .find(|&k| {
                let after: Vec<usize> = (k + 1..layers.len()).collect();
                network.plan(&[k], &after, false).is_ok_and(|plan| plan.iter().all(|i| *i > k))
            })
            .unwrap_or(layers.len().saturating_sub(1));
        Some(Self { last, rows: (CACHED_BYTES / largest).max(1) })
    }
}

/// As [`Executor::forward`] of the whole batch; `sink` also gets which rows of the batch an output is of.
///
/// Errors: as there.
pub fn forward(
    executor: &Executor,
    slices: Option<Slices>,
    batch: &Tensor,
    wanted: &[usize],
    sink: &mut dyn FnMut(usize, Range<usize>, Tensor) -> Result<(), NetworkError>,
) -> Result<Timings, NetworkError> {
    let n_rows = batch.dims().first().copied().unwrap_or(0);
    let Some(Slices { last, rows }) = slices.filter(|s| s.rows < n_rows) else {
        return executor.forward(batch, wanted, &mut |layer, output| sink(layer, 0..n_rows, output));
    };
    let candle = |source| NetworkError::Compute { layer: "input".into(), op: "slice".into(), source: Box::new(source) };
    let (before, after): (Vec<usize>, Vec<usize>) = wanted.iter().partition(|l| **l <= last);
    let mut first = before.clone();
    if !after.is_empty() && !before.contains(&last) {
        first.push(last);
    }
    let mut timings = Timings { n_rows, seconds: vec![0.0; executor.network().layers().len()] };
    let mut given = Vec::new();
    for start in (0..n_rows).step_by(rows) {
        let span = start..n_rows.min(start + rows);
        let slice = batch.narrow(0, start, span.len()).map_err(candle)?;
        let took = executor.forward(&slice, &first, &mut |layer, output| {
            if layer == last && !after.is_empty() {
                given.push(output.clone());
            }
            if before.contains(&layer) { sink(layer, span.clone(), output) } else { Ok(()) }
        })?;
        timings.add(&took);
    }
    if !after.is_empty() {
        let given = Tensor::cat(&given, 0).map_err(candle)?;
        timings.add(
            &executor.forward_from(vec![(last, given)], &after, &mut |layer, output| sink(layer, 0..n_rows, output))?,
        );
    }
    Ok(timings)
}
