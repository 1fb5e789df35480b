//! What logging costs a running network, and what ten epochs of a frozen one take.

mod common;

use std::time::Instant;

use common::{at_least, at_most, images, plain, scratch, wanted};
use mistique::{
    Device, Executor, Input, LogOptions, ModelKey, Network, RunOptions, Scheme, Store, Weights, log_intermediates,
};

fn main() {
    // Memory is measured in a process of its own: a peak never goes down.
    if let Ok(mode) = std::env::var("MISTIQUE_BENCH_PEAK") {
        return peak_child(mode == "log");
    }
    if wanted("overhead pool(2)+f16 f16 kbit(8)") {
        overhead();
    }
    if wanted("frozen") {
        frozen();
    }
    if wanted("memory") {
        memory();
    }
}

const ROWS: u64 = 2048;
const RUNS: usize = 5;

/// Processor seconds of this process so far; other processes do not disturb it as they do wall time.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// Seconds of a plain run of all layers over the same batches.
fn bare(network: &Network, weights: &Weights, dataset: &dyn mistique::Dataset) -> f64 {
    let executor = Executor::new(network, weights, Device::Cpu).unwrap();
    let all: Vec<usize> = (0..network.layers().len()).collect();
    let mut values = Vec::new();
    let begun = Instant::now();
    for start in (0..ROWS).step_by(256) {
        let rows: Vec<u64> = (start..start + 256).collect();
        dataset.read_rows(&rows, &mut values).unwrap();
        executor.forward(&executor.batch(&values).unwrap(), &all, &mut |_, _| Ok(())).unwrap();
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds of the same run, logged and committed.
fn logged(network: &Network, weights: &Weights, dataset: &dyn mistique::Dataset, scheme: &str) -> (f64, f64, u64, u64) {
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let spec = images(0);
    // The weights are stored once a model, not once a run.
    store.put_operator(&weights.to_safetensors().unwrap(), "safetensors").unwrap();
    let input = Input { name: "images".into(), spec: &spec, dataset };
    let options = RunOptions {
        scheme: Some(scheme.parse::<Scheme>().unwrap()),
        rows: Some(0..ROWS),
        ..RunOptions::new().unwrap()
    };
    let key = ModelKey::new("bench", "vgg16");
    let (begun, used) = (Instant::now(), processor_seconds());
    let report = log_intermediates(&store, &key, network, weights, &input, &options, &mut |_| {}).unwrap();
    (begun.elapsed().as_secs_f64(), processor_seconds() - used, report.log.logical_bytes, report.log.written_bytes)
}

fn overhead() {
    let network = Network::builtin("vgg16").unwrap();
    let spec = images(ROWS as usize);
    let weights = Weights::init(&network, 1);
    let dataset = mistique::datasets::open(&spec).unwrap();
    println!(
        "\nLogging all layers of vgg16 while it runs: {ROWS} images of {}, batches of 256, commit included",
        spec.name()
    );
    let _ = bare(&network, &weights, &*dataset);
    for (scheme, target) in [("pool(2)+f16", 1.03), ("f16", 1.05), ("kbit(8)", 1.05)] {
        if !wanted(&format!("overhead {scheme}")) {
            continue;
        }
        // Interleaved, so that a slow spell of the machine meets both.
        let (mut plain_runs, mut logged_runs) = (Vec::new(), Vec::new());
        let (mut bytes, mut processor) = ((0, 0), (0.0, 0.0));
        for _ in 0..RUNS {
            let begun = processor_seconds();
            plain_runs.push(bare(&network, &weights, &*dataset));
            let between = processor_seconds();
            let (seconds, used, logical, written) = logged(&network, &weights, &*dataset, scheme);
            logged_runs.push(seconds);
            bytes = (logical, written);
            processor.0 += between - begun;
            processor.1 += used;
        }
        plain_runs.sort_by(f64::total_cmp);
        logged_runs.sort_by(f64::total_cmp);
        let (a, b) = (plain_runs[RUNS / 2], logged_runs[RUNS / 2]);
        plain(&format!("  {scheme}: images/s without logging"), ROWS as f64 / a, "");
        plain(&format!("  {scheme}: MB/s of float32 logged"), bytes.0 as f64 / b / 1e6, "");
        plain(&format!("  {scheme}: MB/s written"), bytes.1 as f64 / b / 1e6, "");
        plain(&format!("  {scheme}: processor time against not logging"), processor.1 / processor.0, "×");
        plain(&format!("  {scheme}: wall time against not logging, fastest runs"), logged_runs[0] / plain_runs[0], "×");
        at_most(&format!("  {scheme}: wall time against not logging, medians"), b / a, "×", target);
    }
}

/// A vgg16 whose convolutions are frozen over ten epochs: only the dense layers change.
fn frozen() {
    let network = Network::builtin("vgg16").unwrap();
    let spec = images(512);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let mut logical = 0;
    for epoch in 0..10u64 {
        // Dense weights of another seed stand for another epoch: what is measured is that the rest is stored once.
        let mut weights = Weights::init(&network, 1);
        let other = Weights::init(&network, 100 + epoch);
        for name in ["dense1.weight", "dense1.bias", "logits.weight", "logits.bias"] {
            if let Some(w) = other.get(name) {
                weights.insert(name, w.shape(), w.values().to_vec()).unwrap();
            }
        }
        let input = Input { name: "images".into(), spec: &spec, dataset: &*dataset };
        let options = RunOptions { rows: Some(0..1024), ..RunOptions::new().unwrap() };
        let key = ModelKey::new("bench", "vgg16").at(format!("epoch-{epoch}"));
        let report = log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
        logical += report.log.logical_bytes;
    }
    println!("\nTen epochs of vgg16 with frozen convolutions, 1,024 images, default schemes");
    plain("  full precision of all ten", logical as f64 / 1e6, "MB");
    let stats = store.stats().unwrap();
    plain("  as logged", stats.chunk_bytes as f64 / 1e6, "MB");
    at_least("  as logged: smaller by", logical as f64 / stats.chunk_bytes as f64, "×", 60.0);
    store.compact(&mut |_, _| {}).unwrap();
    let stats = store.stats().unwrap();
    at_least("  compacted: smaller by", logical as f64 / stats.chunk_bytes as f64, "×", 60.0);
}

fn peak_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("VmHWM: 0 kB");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

const MEMORY_ROWS: u64 = 40_000;
const MEMORY_BATCH: u64 = 500;
const MEMORY_VALUES: usize = 16 * 1024;

/// Appends batches as fast as it can, so that the queue is always full.
fn peak_child(log_too: bool) {
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&mistique::ModelSpec::raw(ModelKey::new("b", "m")), mistique::IfExists::Continue).unwrap();
    let spec = mistique::TensorSpec::new("t", &[64, 16, 16]).with_scheme("f16".parse().unwrap());
    let handle = log.tensor(model, &spec).unwrap();
    let before = peak_bytes();
    for start in (0..MEMORY_ROWS).step_by(MEMORY_BATCH as usize) {
        let rows: Vec<u64> = (start..start + MEMORY_BATCH).collect();
        let n = MEMORY_BATCH as usize * MEMORY_VALUES;
        let batch: Vec<f32> =
            (0..n).map(|i| ((i as u64 * 2_654_435_761 + start) % 1000) as f32 - 600.0).map(|x| x.max(0.0)).collect();
        if log_too {
            log.append(handle, &rows, batch).unwrap();
        } else {
            std::hint::black_box(&batch);
        }
    }
    log.commit().unwrap();
    println!("{}", peak_bytes() - before);
}

fn memory() {
    let exe = std::env::current_exe().unwrap();
    let peak = |mode: &str| -> f64 {
        let out = std::process::Command::new(&exe).env("MISTIQUE_BENCH_PEAK", mode).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse().unwrap()
    };
    let batch = MEMORY_BATCH as f64 * MEMORY_VALUES as f64 * 4.0;
    println!(
        "\nMemory while appending {} MB in batches of {:.0} MB under a budget of 256 MiB",
        MEMORY_ROWS as usize * MEMORY_VALUES * 4 / 1_000_000,
        batch / 1e6
    );
    let (with, without) = (peak("log"), peak("none"));
    plain("  peak of the process without logging", without / 1e6, "MB");
    plain("  peak with logging", with / 1e6, "MB");
    at_most("  peak of logging", with / 1e6, "MB", (256.0 * 1024.0 * 1024.0 + batch) / 1e6);
}
