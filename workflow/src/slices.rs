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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::weights::Weights;

    /// A layer, some rows, and the bits of their values.
    type Part = (usize, Range<usize>, Vec<u32>);

    /// Every output, in order.
    fn outputs(executor: &Executor, slices: Option<Slices>, batch: &Tensor, wanted: &[usize]) -> (Vec<Part>, Timings) {
        let mut found = Vec::new();
        let timings = forward(executor, slices, batch, wanted, &mut |layer, rows, output| {
            assert_eq!(output.dims()[0], rows.len());
            let values = output.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            found.push((layer, rows, values.into_iter().map(f32::to_bits).collect()));
            Ok(())
        });
        (found, timings.unwrap())
    }

    #[test]
    fn slices_give_the_bits_of_the_whole_batch() {
        const N: usize = 67;
        for name in ["vgg16", "cifar10_cnn", "resnet20"] {
            let network = Network::builtin(name).unwrap();
            let executor = Executor::new(&network, &Weights::init(&network, 5), Device::Cpu).unwrap();
            let n_values = N * network.input_shape().iter().product::<usize>();
            let values: Vec<f32> = (0..n_values).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
            let batch = executor.batch(&values).unwrap();
            let n_layers = network.layers().len();
            let Slices { last, .. } = Slices::of(&network).unwrap();
            let wanted: [Vec<usize>; 3] = [(0..n_layers).collect(), vec![n_layers - 1], vec![1, last]];
            for wanted in &wanted {
                let (whole, timed) = outputs(&executor, None, &batch, wanted);
                // As it is cut, in slices of which the last is short; and cut to the last layer.
                for slices in [Slices { last, rows: 32 }, Slices { last: n_layers - 1, rows: 5 }] {
                    let (parts, took) = outputs(&executor, Some(slices), &batch, wanted);
                    for (layer, _, bits) in &whole {
                        let of_layer = || parts.iter().filter(|(l, ..)| l == layer);
                        let rows: Vec<usize> = of_layer().flat_map(|(_, rows, _)| rows.clone()).collect();
                        assert!(rows.into_iter().eq(0..N), "{name} {layer}");
                        let joined: Vec<u32> = of_layer().flat_map(|(.., bits)| bits.iter().copied()).collect();
                        assert!(joined == *bits, "{name} {}", network.layers()[*layer].name());
                    }
                    assert!(parts.iter().all(|(l, ..)| wanted.contains(l)));
                    let ran = |t: &Timings| t.seconds.iter().map(|s| *s > 0.0).collect::<Vec<_>>();
                    assert_eq!((took.n_rows, ran(&took)), (N, ran(&timed)), "{name}");
                }
            }
        }
    }

    #[test]
    fn early_layers_are_cut_where_rows_are_large() {
        let layer = |name: &str, network: &Network| network.layer_index(name).unwrap();
        let vgg16 = Network::builtin("vgg16").unwrap();
        // 256 kB a row at the first layer; the last layer of more than 48 kB is block3_conv3, and its pool follows.
        assert_eq!(Slices::of(&vgg16), Some(Slices { last: layer("block3_pool", &vgg16), rows: 32 }));
        assert_eq!(Slices::of(&Network::builtin("digits_cnn").unwrap()), None);
    }
}
