//! Questions by example about layers that are not stored, against running the model over all rows; and approximate
//! neighbours against exact ones.

mod common;

use std::time::Instant;

use common::{at_least, at_most, images, plain, scratch, trained, wanted};
use mistique::diagnostics::{Metric, nearest_rows};
use mistique::{
    ByExample, ChunkReader, DatasetSpec, Device, Examples, IfExists, IndexUse, LogOptions, MapValue, ModelKey,
    ModelKind, ModelSpec, Network, NetworkRerun, Norm, PlanChoice, Request, RowSelection, Store, TensorSpec, Weights,
};

/// DeepEverest's best (VLDB 2022): its fastest queries against running the network over everything.
const WANTED_SPEEDUP: f64 = 63.0;

fn main() {
    if wanted("by-example") {
        by_example("cifar10_cnn", &["conv2", "conv4", "dense1"], true);
        by_example("vgg16", &["block3_conv1", "block5_conv1"], false);
    }
    if wanted("hnsw") {
        hnsw();
    }
}

/// A model of which nothing but weights and layers' names is stored.
fn unmaterialized(store: &Store, network: &Network, weights: &Weights, rows: u64) -> ModelKey {
    let spec = images(rows as usize);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let key = ModelKey::new("bench", network.name());
    let mut log = store.logger(LogOptions::default()).unwrap();
    let hash = log.put_operator(&weights.to_safetensors().unwrap(), "safetensors").unwrap();
    let dataset = DatasetSpec {
        name: spec.name(),
        source: spec.absolute().to_string(),
        fingerprint: dataset.fingerprint(),
        n_rows: dataset.n_rows() as u64,
        row_shape: dataset.row_shape().to_vec(),
    };
    let (description, weights) = (network.to_json(), Some(hash));
    let spec = ModelSpec { key: key.clone(), kind: ModelKind::Network, description, weights, dataset: Some(dataset) };
    let model = log.model(&spec, IfExists::Continue).unwrap();
    for (i, layer) in network.layers().iter().enumerate() {
        log.tensor(model, &TensorSpec::new(layer.name(), layer.shape()).at(i as i64)).unwrap();
    }
    log.commit().unwrap();
    key
}

fn by_example(name: &str, layers: &[&str], is_trained: bool) {
    let network = Network::builtin(name).unwrap();
    let weights = if is_trained { trained(&network, &images(4000)) } else { Weights::init(&network, 1) };
    let dir = scratch();
    let store = Store::open_or_create(dir.path()).unwrap();
    let key = unmaterialized(&store, &network, &weights, 4000);
    let reader = ChunkReader::new(&store).with_workflow(Box::new(NetworkRerun::new(&store, Device::Cpu)));
    for layer in layers {
        let Some(index) = network.layers().iter().position(|l| l.name() == *layer) else {
            println!("\n{name} has no layer {layer}");
            continue;
        };
        let shape = network.layers()[index].shape().to_vec();
        let of = key.intermediate(*layer);
        let begun = Instant::now();
        let made = reader.create_by_example_index(&of, MapValue::Max, true, 0.2, &mut |_, _| {}).unwrap();
        let build = begun.elapsed().as_secs_f64();
        let n_rows: u64 = made.param("rows").unwrap().parse().unwrap();
        let full = n_rows as f64 * shape.iter().product::<usize>() as f64 * 4.0;
        println!(
            "\n{name}.{layer} {shape:?}, {n_rows} images, {:.0} MB, not stored; weights {}",
            full / 1e6,
            if is_trained { "trained" } else { "at random" }
        );
        plain("  building the index (a full RERUN included)", build, "s");
        at_most("  index, of the float32 bytes", 100.0 * made.len_bytes as f64 / full, "%", 20.0);
        let rerun = full_rerun(&reader, &of, n_rows);
        plain("  a full RERUN", rerun, "s");
        for units in ["0", "3,17,5", "0..10"] {
            for similar in [true, false] {
                for norm in [Norm::L1, Norm::L2, Norm::LInf] {
                    ask(&reader, &of, units, similar, norm, n_rows, rerun);
                }
            }
        }
    }
}

/// Seconds to run the layer over all rows, batch by batch.
fn full_rerun(reader: &ChunkReader<'_>, of: &mistique::IntermediateKey, n_rows: u64) -> f64 {
    let key = format!("{of}").parse().unwrap();
    let request = Request::new(key).with_plan(PlanChoice::RERUN).with_exact(true);
    let begun = Instant::now();
    for start in (0..n_rows).step_by(256) {
        let rows = RowSelection::List((start..n_rows.min(start + 256)).collect());
        std::hint::black_box(reader.get(&request.clone().with_rows(rows)).unwrap());
    }
    begun.elapsed().as_secs_f64()
}

fn ask(
    reader: &ChunkReader<'_>,
    of: &mistique::IntermediateKey,
    units: &str,
    similar: bool,
    norm: Norm,
    n_rows: u64,
    rerun: f64,
) {
    let question = |i: u64| match similar {
        true => ByExample::similar(of.clone(), units, i * 401 % n_rows, 10).with_norm(norm).with_exact(true),
        false => ByExample::highest(of.clone(), units, 10).with_norm(norm).with_exact(true),
    };
    let answers: Vec<(f64, Examples)> = (0..if similar { 5 } else { 2 })
        .map(|i| {
            let begun = Instant::now();
            let answer = reader.by_example(&question(i)).unwrap();
            (begun.elapsed().as_secs_f64(), answer)
        })
        .collect();
    assert!(answers.iter().all(|(_, a)| a.used.index.is_some() && !a.used.built && a.examples.len() == 10));
    let mut times: Vec<f64> = answers.iter().map(|a| a.0).collect();
    times.sort_by(f64::total_cmp);
    let touched = answers.iter().map(|a| a.1.used.touched).sum::<u64>() as f64 / answers.len() as f64;
    let kind = if similar { "10 most similar" } else { "10 highest" };
    let what = format!("  {kind} by {}, units {units} ({touched:.0} rows)", norm.name());
    at_least(&what, rerun / times[times.len() / 2], "×", WANTED_SPEEDUP);
    // The answer is that of looking at everything; once for each kind of question is enough.
    if units == "3,17,5" && norm == Norm::L2 {
        let all = reader.by_example(&question(0).with_index(IndexUse::Never)).unwrap();
        let rows = |a: &Examples| a.examples.iter().map(|e| e.row).collect::<Vec<_>>();
        assert_eq!(rows(&all), rows(&answers[0].1), "{kind}: another answer without the index");
    }
}

fn hnsw() {
    let (n, width) = (20_000usize, 128usize);
    let (shape, values) = common::activations("dense1", 2000);
    let dense: usize = shape.iter().product();
    // Real activations, each row ten times with a little noise: few real vectors are at hand.
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2
    };
    let width = width.min(dense);
    let vectors: Vec<f32> = (0..n)
        .flat_map(|r| (0..width).map(move |c| (r, c)))
        .map(|(r, c)| values[r % 2000 * dense + c] + noise())
        .collect();
    let dir = scratch();
    let store = Store::open_or_create(dir.path()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let key = ModelKey::new("bench", "vectors");
    let model = log.model(&ModelSpec::raw(key.clone()), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t", &[width]).with_scheme("f32".parse().unwrap())).unwrap();
    log.append(handle, &(0..n as u64).collect::<Vec<_>>(), vectors.clone()).unwrap();
    log.commit().unwrap();
    drop(log);
    let (reader, of) = (ChunkReader::new(&store), key.intermediate("t"));
    println!("\nHNSW, {n} vectors of {width} (dense1 of a trained cifar10_cnn with noise), L2, k = 10");
    let begun = Instant::now();
    let made = reader.create_hnsw_index(&of, Metric::L2, false, &mut |_, _| {}).unwrap();
    plain("  building (one thread, fixed seed)", begun.elapsed().as_secs_f64(), "s");
    plain("  index, of the float32 bytes", 100.0 * made.index.len_bytes as f64 / (n * width * 4) as f64, "%");
    plain("  recall, as measured when it was made", made.recall, "");
    let begun = Instant::now();
    let index = reader.neighbours(&of, Metric::L2, false).unwrap().unwrap();
    plain("  opening it", begun.elapsed().as_secs_f64() * 1e3, "ms");
    let rows: Vec<u64> = (0..n as u64).collect();
    let query = |i: usize| &vectors[i * 199 % n * width..][..width];
    let (mut hits, mut approximate, mut exact) = (0, Vec::new(), Vec::new());
    for i in 0..100 {
        let begun = Instant::now();
        let near = index.nearest(query(i), 10).unwrap();
        approximate.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let all = nearest_rows(&rows, &vectors, query(i), 10, Metric::L2).unwrap();
        exact.push(begun.elapsed().as_secs_f64());
        hits += near.iter().filter(|n| all.iter().any(|a| a.0 == n.0)).count();
    }
    approximate.sort_by(f64::total_cmp);
    exact.sort_by(f64::total_cmp);
    at_least("  recall@10 of 100 rows against exact", hits as f64 / 1000.0, "", 0.95);
    plain("  one query", approximate[50] * 1e6, "µs");
    plain("  faster than exact, vectors in memory", exact[50] / approximate[50], "×");
}
