//! Adaptive materialization (5.8.5): 25 queries of all four categories over a network and over a pipeline, with everything
//! stored, with nothing stored, and with what γ says; how fast each is once materialization has set in, and its bytes.
//!
//! `cargo bench --bench adaptive -- seed=7` draws other queries; `queries` as an argument lists each of them.

mod common;

use std::path::Path;

use common::{at_least, at_most, images, plain, scratch, trained, wanted};
use mistique::pipeline::{Data, PipelineOptions, Template, log_pipelines, plan_template};
use mistique::workload::{Category, ModeRun, QueryRun, generate, replay};
use mistique::{Device, Input, LayerPattern, Materialize, ModelKey, Network, RunOptions, Store, log_intermediates};

const QUERIES: usize = 25;
/// A query that comes once a pass may become worth storing at its second time: from the third pass on materialization has
/// set in, and of a query's times the middle one counts, since most take less than a millisecond.
const PASSES: usize = 5;
const SET_IN: usize = 2;
const IMAGES: u64 = 2000;
const PROPERTIES: u64 = 20_000;
/// Seconds of query time that a GB must save. The source takes 0.5 s per KB for tables of a few MB; here that stores nothing.
const GAMMA_MIN: f64 = 20.0;

fn main() {
    let seed = std::env::args().find_map(|a| a.strip_prefix("seed=").and_then(|s| s.parse().ok())).unwrap_or(1);
    println!("Adaptive materialization: {QUERIES} queries of seed {seed}, γ_min {GAMMA_MIN} s/GB");
    if wanted("network") {
        network(seed);
    }
    if wanted("pipeline") {
        pipeline(seed);
    }
}

fn network(seed: u64) {
    let dir = scratch();
    let path = dir.path().join("s.mq");
    let network = Network::builtin("cifar10_cnn").unwrap();
    let spec = images(IMAGES as usize);
    let weights = trained(&network, &spec);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let store = Store::open_or_create(&path).unwrap();
    let input = Input { name: "images".into(), spec: &spec, dataset: &*dataset };
    let options = RunOptions {
        layers: LayerPattern::new("*").unwrap(),
        rows: Some(0..IMAGES.min(dataset.n_rows() as u64)),
        ..RunOptions::new().unwrap()
    };
    let key = ModelKey::new("cifar", "cnn");
    log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
    measure(&format!("cifar10_cnn, {IMAGES} images of {}", spec.name()), &store, &path, seed);
}

fn pipeline(seed: u64) {
    let dir = scratch();
    let path = dir.path().join("s.mq");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/zillow/P1.yaml");
    let template = Template::parse("P1.yaml", &std::fs::read_to_string(file).unwrap()).unwrap();
    let data = Data::open(&format!("generated:zillow?rows={PROPERTIES}")).unwrap();
    let store = Store::open_or_create(&path).unwrap();
    let mut plans = plan_template(&template, &data, Some(&store)).unwrap();
    plans.truncate(1);
    log_pipelines(&store, &plans, &data, &PipelineOptions::default(), &mut |_| {}).unwrap();
    measure(&format!("Zillow template P1, {PROPERTIES} properties"), &store, &path, seed);
}

fn measure(what: &str, store: &Store, path: &Path, seed: u64) {
    let queries = generate(store, QUERIES, seed, &Category::ALL).unwrap();
    let modes = [Materialize::All, Materialize::None, Materialize::Adaptive { gamma_min: GAMMA_MIN }];
    let runs = replay(store, path, &queries, &modes, PASSES, Device::Cpu, &mut |_, _| {}).unwrap();
    let [all, none, adaptive] = &runs[..] else { unreachable!("three modes were asked for") };
    println!("\n{what}");
    for (run, name) in [(all, "all"), (none, "none"), (adaptive, "adaptive")] {
        plain(&format!("  {name}: first pass"), run.seconds(0) * 1e3, "ms");
        plain(&format!("  {name}: a pass once it has set in"), settled(run) * 1e3, "ms");
        plain(&format!("  {name}: values in the store after it"), run.end_bytes() as f64 / 1e6, "MB");
    }
    let last = adaptive.passes[PASSES - 1].iter().zip(&all.passes[PASSES - 1]).zip(&queries);
    let every = std::env::args().any(|a| a == "queries");
    for ((run, of_all), query) in last.filter(|((run, _), _)| every || run.plan != "READ") {
        println!(
            "  adaptive: {} in the last pass, {:.2} ms (all: {} {:.2} ms): {}",
            run.plan,
            run.seconds * 1e3,
            of_all.plan,
            of_all.seconds * 1e3,
            query.to_line()
        );
    }
    if every {
        let after = |run: &QueryRun| format!("{:.2}", run.stored_bytes as f64 / 1e6);
        for pass in &adaptive.passes {
            println!("  adaptive: MB after each query: {}", pass.iter().map(after).collect::<Vec<_>>().join(" "));
        }
    }
    let share = adaptive.end_bytes() as f64 / all.end_bytes() as f64;
    at_least("  speed of adaptive against all, once it has set in", settled(all) / settled(adaptive), "×", 0.9);
    at_most("  bytes of adaptive against all", share, "×", 0.2);
    plain("  the same speed while it sets in", all.seconds(0) / adaptive.seconds(0), "×");
    plain("  speed of none against all", settled(all) / settled(none), "×");
}

/// Seconds of a pass, each query taking the middle of its times in the passes from `SET_IN` on.
fn settled(run: &ModeRun) -> f64 {
    let middle = |query: usize| {
        let mut times: Vec<f64> = run.passes[SET_IN..].iter().map(|pass| pass[query].seconds).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    (0..QUERIES).map(middle).sum()
}
