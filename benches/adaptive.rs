//! Adaptive materialization (5.8.5): 25 queries of all four categories over a network and over a pipeline, with everything
//! stored, with nothing stored, and with what γ says; how fast each is once materialization has set in, and its bytes.
//!
//! `cargo bench --bench adaptive -- seed=7 gamma=50` draws other queries and takes another γ_min; `queries` as an argument
//! lists each of them.

mod common;

use std::path::Path;
use std::str::FromStr;

use common::{at_least, at_most, images, plain, scratch, trained, wanted};
use mistique::pipeline::{Data, PipelineOptions, Template, log_pipelines, plan_template};
use mistique::workload::{Category, ModeRun, QueryRun, generate, replay};
use mistique::{Device, Input, LayerPattern, Materialize, ModelKey, Network, RunOptions, Store, log_intermediates};

const QUERIES: usize = 25;
/// A query that comes once a pass may become worth storing at its second time: from the third pass on materialization has
/// set in, and of a query's times the shortest counts: most take less than a millisecond, and a pause of the machine thirty.
const PASSES: usize = 7;
const SET_IN: usize = 2;
/// Modes take turns, each time from the start: the machine is not the same from one second to the next, and most of these
/// times are those of threads that wake up.
const TURNS: usize = 5;
/// Where nothing sets in, and a pass takes ten seconds.
const PASSES_OF_NONE: usize = 3;
const IMAGES: u64 = 2000;
const PROPERTIES: u64 = 20_000;
/// Seconds of query time that a GB must save. The source takes 0.5 s per KB for tables of a few MB; here that stores nothing.
const GAMMA_MIN: f64 = 100.0;

fn main() {
    let seed = argument("seed=").unwrap_or(1);
    println!("Adaptive materialization: {QUERIES} queries of seed {seed}, γ_min {} s/GB", gamma_min());
    if wanted("network") {
        network(seed);
    }
    if wanted("pipeline") {
        pipeline(seed);
    }
}

fn argument<T: FromStr>(name: &str) -> Option<T> {
    std::env::args().find_map(|a| a.strip_prefix(name).and_then(|s| s.parse().ok()))
}

fn gamma_min() -> f64 {
    argument("gamma=").unwrap_or(GAMMA_MIN)
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
    let run =
        |mode, passes| replay(store, path, &queries, &[mode], passes, Device::Cpu, &mut |_, _| {}).unwrap().remove(0);
    let none = [run(Materialize::None, PASSES_OF_NONE)];
    let turn = |_| (run(Materialize::All, PASSES), run(Materialize::Adaptive { gamma_min: gamma_min() }, PASSES));
    let (alls, adaptives): (Vec<ModeRun>, Vec<ModeRun>) = (0..TURNS).map(turn).unzip();
    let (all, adaptive) = (&alls[TURNS - 1], &adaptives[TURNS - 1]);
    println!("\n{what}");
    for (runs, name) in [(&alls[..], "all"), (&none, "none"), (&adaptives, "adaptive")] {
        let last = &runs[runs.len() - 1];
        plain(&format!("  {name}: first pass"), last.seconds(0) * 1e3, "ms");
        plain(&format!("  {name}: a pass once it has set in"), settled(runs) * 1e3, "ms");
        plain(&format!("  {name}: values in the store after it"), last.end_bytes() as f64 / 1e6, "MB");
    }
    let every = std::env::args().any(|a| a == "queries");
    for (at, query) in queries.iter().enumerate() {
        let plan = |mode: &ModeRun| mode.passes[PASSES - 1][at].plan;
        if every || plan(adaptive) != "READ" {
            println!(
                "  adaptive: {} in the last pass, at best {:.3} ms (all: {} {:.3} ms): {}",
                plan(adaptive),
                shortest(&adaptives, at) * 1e3,
                plan(all),
                shortest(&alls, at) * 1e3,
                query.to_line()
            );
        }
    }
    if every {
        let after = |run: &QueryRun| format!("{:.2}", run.stored_bytes as f64 / 1e6);
        for pass in &adaptive.passes {
            println!("  adaptive: MB after each query: {}", pass.iter().map(after).collect::<Vec<_>>().join(" "));
        }
    }
    let share = adaptive.end_bytes() as f64 / all.end_bytes() as f64;
    at_least("  speed of adaptive against all, once it has set in", settled(&alls) / settled(&adaptives), "×", 0.9);
    at_most("  bytes of adaptive against all", share, "×", 0.2);
    plain("  the same speed while it sets in", all.seconds(0) / adaptive.seconds(0), "×");
    plain("  speed of none against all", settled(&alls) / settled(&none), "×");
}

/// Seconds of a pass, each query taking the shortest of its times in the passes from `SET_IN` on.
fn settled(runs: &[ModeRun]) -> f64 {
    (0..QUERIES).map(|query| shortest(runs, query)).sum()
}

fn shortest(runs: &[ModeRun], query: usize) -> f64 {
    let passes = runs.iter().flat_map(|run| &run.passes[SET_IN..]);
    passes.map(|pass| pass[query].seconds).fold(f64::INFINITY, f64::min)
}
