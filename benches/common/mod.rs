//! What the benches share: real activations, memcpy as the measure, and lines that say whether a figure is reached.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mistique::{Device, Executor, LayerPattern, Network, Spec, Trainer, Weights};

/// CIFAR-10 where it lies beside the checkout, generated images elsewhere; the tables say which.
pub fn images(rows: usize) -> Spec {
    let cifar = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/cifar10-sample");
    if cifar.is_dir() {
        format!("cifar10:{}", cifar.display()).parse().unwrap()
    } else {
        format!("generated:images?rows={}&size=32&channels=3", rows.max(2000)).parse().unwrap()
    }
}

pub fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-data");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Weights trained on 4,000 images, a cifar10_cnn for two epochs and a vgg16 for ten; kept between benches.
pub fn trained(network: &Network, spec: &Spec) -> Weights {
    let path = cache().join(format!("{}-{}.safetensors", network.name(), spec.name()));
    if let Ok(bytes) = std::fs::read(&path) {
        let weights = Weights::load_safetensors(&bytes).unwrap();
        if weights.check(network).is_ok() {
            return weights;
        }
    }
    let (epochs, rate) = if network.name() == "vgg16" { (10, 3e-4) } else { (2, 1e-3) };
    eprintln!("training {} on {spec} for {epochs} epochs (once) ...", network.name());
    let dataset = mistique::datasets::open(spec).unwrap();
    let n = dataset.n_rows().min(4000);
    let mut images = Vec::new();
    dataset.read_rows(&(0..n as u64).collect::<Vec<_>>(), &mut images).unwrap();
    let labels = &dataset.labels().unwrap()[..n];
    let mut trainer = Trainer::new(network, &Weights::init(network, 1), rate, 1).unwrap();
    for _ in 0..epochs {
        trainer.train_epoch(&images, labels, 64, |_| {}).unwrap();
    }
    let weights = trainer.weights().unwrap();
    std::fs::write(&path, weights.to_safetensors().unwrap()).unwrap();
    weights
}

/// Activations of one layer of the trained cifar10_cnn: rows × shape.
pub fn activations(layer: &str, rows: usize) -> (Vec<usize>, Vec<f32>) {
    let network = Network::builtin("cifar10_cnn").unwrap();
    let spec = images(rows);
    let weights = trained(&network, &spec);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let wanted = LayerPattern::new(layer).unwrap().select(&network).unwrap();
    let shape = network.layers()[wanted[0]].shape().to_vec();
    let mut values = Vec::with_capacity(rows * shape.iter().product::<usize>());
    let mut batch = Vec::new();
    let n = dataset.n_rows() as u64;
    for start in (0..rows as u64).step_by(250) {
        let ids: Vec<u64> = (start..(start + 250).min(rows as u64)).map(|r| r % n).collect();
        dataset.read_rows(&ids, &mut batch).unwrap();
        executor
            .forward(&executor.batch(&batch).unwrap(), &wanted, &mut |_, t| {
                values.extend(t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                Ok(())
            })
            .unwrap();
    }
    (shape, values)
}

/// The median time of `n` runs after one to warm up.
pub fn median(n: usize, run: impl FnMut()) -> Duration {
    median_after(n, || (), run)
}

/// The same, what comes `before` each run not counted.
pub fn median_after(n: usize, before: impl FnMut(), run: impl FnMut()) -> Duration {
    times_after(n, before, run)[n / 2]
}

/// The shortest of so many runs, each after `before`: other work on the machine only ever adds to a time.
pub fn shortest_after(n: usize, before: impl FnMut(), run: impl FnMut()) -> Duration {
    times_after(n, before, run)[0]
}

/// Times of so many runs, in order of length, after one that is not counted.
fn times_after(n: usize, mut before: impl FnMut(), mut run: impl FnMut()) -> Vec<Duration> {
    before();
    run();
    let mut times: Vec<Duration> = (0..n)
        .map(|_| {
            before();
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times
}

/// GB/s of a single-threaded memcpy of `values` into a warm buffer: M.
pub fn memcpy_rate(values: &[f32]) -> f64 {
    let mut out = vec![1f32; values.len()];
    let t = median(7, || {
        out.copy_from_slice(values);
        std::hint::black_box(&mut out);
    });
    rate(values.len(), t)
}

/// GB/s of a memcpy into a fresh allocation.
pub fn memcpy_fresh_rate(values: &[f32]) -> f64 {
    let t = median(5, || {
        std::hint::black_box(values.to_vec());
    });
    rate(values.len(), t)
}

/// GB/s of float32 that `n` values in time `t` make.
pub fn rate(n: usize, t: Duration) -> f64 {
    n as f64 * 4.0 / t.as_secs_f64() / 1e9
}

/// A figure beside its target.
pub fn line(what: &str, value: f64, unit: &str, reached: bool, target: &str) {
    let mark = if reached { "reached" } else { "MISSED" };
    println!("{what:58} {value:>10.3} {unit:6} {target:>12}  {mark}");
}

/// A figure without a target.
pub fn plain(what: &str, value: f64, unit: &str) {
    println!("{what:58} {value:>10.3} {unit}");
}

pub fn at_least(what: &str, value: f64, unit: &str, target: f64) {
    line(what, value, unit, value >= target, &format!(">= {target}"));
}

pub fn at_most(what: &str, value: f64, unit: &str, target: f64) {
    line(what, value, unit, value <= target, &format!("<= {target}"));
}

/// Whether a part of a bench was asked for: `cargo bench --bench storage -- decode`. Settings (`seed=7`) name no part.
pub fn wanted(part: &str) -> bool {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-') && !a.contains('=')).collect();
    args.is_empty() || args.iter().any(|a| part.contains(a.as_str()))
}

pub fn scratch() -> tempfile::TempDir {
    // Beside the build, so that it lies on the disk that the project lies on and not on one in memory.
    tempfile::Builder::new().prefix("bench-").tempdir_in(cache()).unwrap()
}
