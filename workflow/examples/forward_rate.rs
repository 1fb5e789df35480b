//! Images per second of a builtin network: this crate's executor against the tensor library's own convolution.
//!
//! `cargo run --release -p mistique-workflow --example forward_rate [network] [images] [batch]`

use std::time::Instant;

use candle_core::{Device as CandleDevice, Tensor};
use mistique_workflow::{Device, Executor, Network, NetworkError, Source, Weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "vgg16".into());
    let n: usize = args.next().map_or(Ok(256), |a| a.parse())?;
    let batch: usize = args.next().map_or(Ok(128), |a| a.parse())?;

    let network = Network::builtin(&name)?;
    let weights = Weights::init(&network, 1);
    let executor = Executor::new(&network, &weights, Device::Cpu)?;
    let row_len: usize = network.input_shape().iter().product();
    let values: Vec<f32> = (0..n * row_len).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 1000.0).collect();
    let last = network.layers().len() - 1;

    let run = |keep: &mut Vec<f32>| -> Result<Vec<f64>, NetworkError> {
        let mut seconds = vec![0.0; network.layers().len()];
        keep.clear();
        for rows in values.chunks(batch * row_len) {
            let timings = executor.forward(&executor.batch(rows)?, &[last], &mut |_, t| {
                keep.extend(t.flatten_all().and_then(|t| t.to_vec1::<f32>()).unwrap_or_default());
                Ok(())
            })?;
            seconds.iter_mut().zip(&timings.seconds).for_each(|(a, b)| *a += b);
        }
        Ok(seconds)
    };
    let mut ours = Vec::new();
    run(&mut ours)?;
    let mut best = f64::INFINITY;
    let mut layers = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        layers = run(&mut ours)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name} {}: {:.0} images/s", executor.describe(), n as f64 / best);
    for (layer, seconds) in network.layers().iter().zip(&layers) {
        println!("  {:<16} {:>8.2} ms per 100 images", layer.name(), seconds * 1e5 / n as f64);
    }

    if network.layers().iter().any(|l| !matches!(l.op(), "conv2d" | "max_pool" | "flatten" | "linear" | "dropout")) {
        return Ok(());
    }
    let mut theirs = Vec::new();
    let mut best = f64::INFINITY;
    for _ in 0..2 {
        theirs.clear();
        let start = Instant::now();
        for rows in values.chunks(batch * row_len) {
            theirs.extend(by_library(&network, &weights, &executor.batch(rows)?)?);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name} cpu: candle conv2d: {:.0} images/s", n as f64 / best);
    let largest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let scale = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    println!("largest difference {largest:e} of scores up to {scale:.3}");
    Ok(())
}

/// The scores of a chain by the tensor library's own operations.
fn by_library(network: &Network, weights: &Weights, x: &Tensor) -> candle_core::Result<Vec<f32>> {
    let tensor = |name: String| {
        let weight = weights.get(&name).ok_or_else(|| candle_core::Error::Msg(name))?;
        Tensor::from_slice(weight.values(), weight.shape(), &CandleDevice::Cpu)
    };
    let mut x = x.clone();
    for layer in network.layers() {
        assert!(matches!(layer.inputs(), [Source::Input | Source::Layer(_)]));
        let settings = layer.settings();
        let number = |key: &str| settings.get(key).and_then(|v| v.as_u64()).unwrap_or(0) as usize;
        let name = layer.name();
        x = match layer.op() {
            "conv2d" => {
                let bias = tensor(format!("{name}.bias"))?.reshape((1, (), 1, 1))?;
                let weight = tensor(format!("{name}.weight"))?;
                x.conv2d(&weight, number("padding"), number("stride"), 1, 1)?.broadcast_add(&bias)?
            }
            "max_pool" => x.max_pool2d(number("kernel"))?,
            "flatten" => x.flatten_from(1)?,
            "linear" => {
                let bias = tensor(format!("{name}.bias"))?;
                x.matmul(&tensor(format!("{name}.weight"))?.t()?)?.broadcast_add(&bias)?
            }
            _ => x,
        };
        if settings.get("activation").and_then(|v| v.as_str()) == Some("relu") {
            x = x.relu()?;
        }
    }
    x.flatten_all()?.to_vec1::<f32>()
}
