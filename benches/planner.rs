//! Whether the planner is right: every plan of a grid of requests, predicted and measured; Figs. 5-9 and 5-10.
//!
//! The figures of the cost model come from logging and one `calibrate`; every prediction is made before the grid is run.
//! `cold` is a new session (nothing loaded, nothing held in memory, files in the page cache), `cached` the same session
//! asked again. Each plan runs three times, once where it takes longer than a second: which is faster is told by the shortest
//! of them, to which other work on the machine only adds; how long it takes, as predictions say it, by the middle one. `cells` as an argument
//! lists every cell.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{at_least, at_most, images, plain, scratch, trained, wanted};
use mistique::pipeline::{Data, PipelineOptions, PipelineRerun, Template, log_pipelines, plan_template};
use mistique::{
    Answer, ChunkReader, Device, IfExists, Input, LayerPattern, LogOptions, ModelKey, ModelSpec, Network, NetworkRerun,
    PlanChoice, Request, RowSelection, RunOptions, Scheme, Spec, Store, TensorSpec, Weights, log_intermediates,
};

const SCHEMES: [&str; 4] = ["f32", "f16", "kbit(8)", "pool(2)+f16"];

/// A network, the layers and numbers of rows of its grid, first to last.
struct Subject {
    network: &'static str,
    layers: [&'static str; 4],
    rows: &'static [u64],
}

/// vgg16's grid takes ten minutes and 5 GB: each run of 10,000 rows takes half a minute.
const SUBJECTS: [Subject; 2] = [
    Subject {
        network: "cifar10_cnn",
        layers: ["conv1", "pool1", "conv4", "logits"],
        rows: &[1, 10, 100, 1_000, 10_000],
    },
    Subject {
        network: "vgg16",
        layers: ["block1_conv1", "block3_conv3", "block5_conv1", "logits"],
        rows: &[1, 10, 100, 1_000, 10_000],
    },
];

/// What a thread needs to fall asleep.
const ASLEEP: Duration = Duration::from_millis(3);
const PROPERTIES: u64 = 10_000;
const STAGES: [&str; 4] = ["properties", "homes_joined", "homes_features", "predict_homes"];

fn main() {
    let mut cells = Vec::new();
    for subject in &SUBJECTS {
        if wanted(&format!("grid fig {}", subject.network)) {
            let found = grid(subject);
            report(subject.network, &found);
            figures(subject, &found);
            cells.extend(found);
        }
    }
    if wanted("grid pipeline") {
        let found = pipeline_grid();
        report("pipeline P1", &found);
        cells.extend(found);
    }
    if cells.len() > 64 {
        report("all grids", &cells);
    }
    if wanted("planning") {
        planning();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Session {
    Cold,
    Cached,
}

/// A plan, in seconds.
#[derive(Clone, Copy)]
struct Ran {
    plan: &'static str,
    predicted: f64,
    times: Times,
}

/// Of three runs.
#[derive(Clone, Copy)]
struct Times {
    shortest: f64,
    middle: f64,
}

impl Ran {
    fn error(&self) -> f64 {
        (self.predicted - self.times.middle).abs() / self.times.middle
    }
}

/// One request in one state, with each plan's predicted and measured seconds.
#[derive(Clone)]
struct Cell {
    layer: &'static str,
    scheme: &'static str,
    /// What is asked for, and what an earlier question of the session asked for.
    key: String,
    load: String,
    n_rows: u64,
    scattered: bool,
    session: Session,
    plans: Vec<Ran>,
    chosen: &'static str,
}

impl Cell {
    fn request(&self, n_all: u64) -> Request {
        Request::new(self.key.parse().unwrap()).with_rows(selection(self.n_rows, self.scattered, n_all))
    }

    fn of(&self, plan: &str) -> Option<Ran> {
        self.plans.iter().find(|p| p.plan == plan).copied()
    }

    /// Seconds of the chosen plan.
    fn took(&self) -> f64 {
        self.of(self.chosen).unwrap().times.shortest
    }

    fn line(&self) -> String {
        let time = |p: &Ran| format!("{} {:.2} ({:.2})", p.plan, p.times.middle * 1e3, p.predicted * 1e3);
        let times: Vec<String> = self.plans.iter().map(time).collect();
        let order = if self.scattered { "scattered" } else { "range" };
        let Self { layer, scheme, n_rows, session, chosen, .. } = self;
        format!(
            "{layer} {scheme} {n_rows} {order} {session:?}: chose {chosen}; ms measured (predicted): {}",
            times.join(", ")
        )
    }

    fn best(&self) -> (&'static str, f64) {
        let best = self.plans.iter().min_by(|a, b| a.times.shortest.total_cmp(&b.times.shortest)).unwrap();
        (best.plan, best.times.shortest)
    }
}

fn version(network: &str, scheme: &str) -> ModelKey {
    ModelKey::new("bench", network).at(scheme)
}

fn request(network: &str, scheme: &str, layer: &str, rows: RowSelection) -> Request {
    let key = version(network, scheme).intermediate(layer).to_string();
    Request::new(key.parse().unwrap()).with_rows(rows)
}

fn session(store: &Store) -> ChunkReader<'_> {
    let network = Box::new(NetworkRerun::new(store, Device::Cpu));
    ChunkReader::new(store).with_workflow(network).with_workflow(Box::new(PipelineRerun::new(store)))
}

/// A range, or as many rows spread over all of them in no order.
fn selection(n: u64, scattered: bool, n_all: u64) -> RowSelection {
    if scattered {
        // 7,919 is prime to the number of rows, so that no row comes twice.
        RowSelection::List((0..n).map(|i| (i * 7919 + 13) % n_all).collect())
    } else {
        RowSelection::Range(0..n)
    }
}

fn seconds_of(answer: &Answer) -> f64 {
    answer.explanation.actual.unwrap().as_secs_f64()
}

/// Three runs, one where that is long.
fn three(mut run: impl FnMut() -> f64) -> Times {
    let mut runs = [run(), 0.0, 0.0];
    if runs[0] >= 1.0 {
        return Times { shortest: runs[0], middle: runs[0] };
    }
    runs[1..].fill_with(&mut run);
    runs.sort_by(f64::total_cmp);
    Times { shortest: runs[0], middle: runs[1] }
}

fn grid(subject: &Subject) -> Vec<Cell> {
    let network = Network::builtin(subject.network).unwrap();
    let most = *subject.rows.last().unwrap();
    let spec: Spec = images(most as usize);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let weights = match subject.network {
        "cifar10_cnn" => trained(&network, &spec),
        _ => Weights::init(&network, 1),
    };
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let begun = Instant::now();
    for scheme in SCHEMES {
        let input = Input { name: "images".into(), spec: &spec, dataset: &*dataset };
        let options = RunOptions {
            layers: LayerPattern::new(&subject.layers.join(",")).unwrap(),
            scheme: Some(scheme.parse::<Scheme>().unwrap()),
            rows: Some(0..most),
            ..RunOptions::new().unwrap()
        };
        let key = version(subject.network, scheme);
        log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
    }
    let logged = begun.elapsed();
    let calibrated = session(&store).calibrate(&store.models().unwrap(), Duration::from_secs(60), &mut |_, _, _| {});
    let calibrated = calibrated.unwrap();
    println!(
        "\n{} on {}, {most} rows: logged in {:.1} s, {} measurements of calibrate in {:.1} s",
        subject.network,
        spec.name(),
        logged.as_secs_f64(),
        calibrated.made,
        calibrated.took.as_secs_f64()
    );
    calibrated.missing.iter().for_each(|m| println!("  missing: {m}"));

    let mut cells = Vec::new();
    for layer in subject.layers {
        for scheme in SCHEMES {
            let key = version(subject.network, scheme).intermediate(layer).to_string();
            let load = version(subject.network, scheme).intermediate(subject.layers[0]).to_string();
            cells.extend(cells_of(layer, scheme, &key, &load, subject.rows, most));
        }
    }
    explore(&store, &mut cells, most);
    cells
}

/// A pipeline read from CSV: a file, a joined table, and predictions. RERUN runs whole stages whatever rows are asked for.
fn pipeline_grid() -> Vec<Cell> {
    let data = Data::open(&format!("generated:zillow?rows={PROPERTIES}")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/zillow/P1.yaml");
    let template = Template::parse("P1.yaml", &std::fs::read_to_string(file).unwrap()).unwrap();
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let mut plans = plan_template(&template, &data, Some(&store)).unwrap();
    plans.truncate(1);
    log_pipelines(&store, &plans, &data, &PipelineOptions::default(), &mut |_| {}).unwrap();
    let calibrated = session(&store).calibrate(&store.models().unwrap(), Duration::from_secs(60), &mut |_, _, _| {});
    println!(
        "\nTemplate P1 over {PROPERTIES} properties: calibrated in {:.1} s",
        calibrated.unwrap().took.as_secs_f64()
    );
    let model = store.models().unwrap().remove(0).spec.key;
    let key = |stage: &str| model.intermediate(stage).to_string();
    let mut cells = Vec::new();
    for stage in STAGES {
        cells.extend(cells_of(stage, "table", &key(stage), &key(STAGES[0]), &[1, 10, 100, 1_000, 10_000], PROPERTIES));
    }
    explore(&store, &mut cells, PROPERTIES);
    cells
}

/// The cells of one intermediate.
fn cells_of(layer: &'static str, scheme: &'static str, key: &str, load: &str, rows: &[u64], most: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &n_rows in rows {
        for scattered in [false, true] {
            if scattered && (n_rows == 1 || n_rows == most) {
                continue;
            }
            for session in [Session::Cold, Session::Cached] {
                let (key, load) = (key.to_string(), load.to_string());
                cells.push(Cell { layer, scheme, key, load, n_rows, scattered, session, plans: vec![], chosen: "" });
            }
        }
    }
    cells
}

/// First every prediction, then every measurement.
fn explore(store: &Store, cells: &mut [Cell], most: u64) {
    let begun = Instant::now();
    for cell in &mut *cells {
        let request = cell.request(most);
        store.clear_pool();
        let reader = session(store);
        if cell.session == Session::Cached {
            reader.get(&request.clone().with_plan(PlanChoice::READ)).unwrap();
            load(&reader, &cell.load);
        }
        let explained = reader.plan(&request).unwrap();
        let possible = explained.considered.iter().filter(|c| c.unavailable.is_none());
        cell.plans = possible
            .map(|c| Ran {
                plan: c.plan,
                predicted: c.predicted.unwrap().as_secs_f64(),
                times: Times { shortest: f64::NAN, middle: f64::NAN },
            })
            .collect();
        cell.chosen = explained.considered[explained.chosen].plan;
    }
    // A run from the input is the same whatever is stored, but for the pooling of its answer.
    let mut runs: BTreeMap<(&str, u64, bool, bool, Session), Times> = BTreeMap::new();
    let n = cells.len();
    for (done, cell) in cells.iter_mut().enumerate() {
        if done % 64 == 0 {
            eprintln!("  {done} of {n} cells measured after {:.0} s", begun.elapsed().as_secs_f64());
        }
        let request = cell.request(most);
        let Cell { layer, scheme, n_rows, scattered, session: state, .. } = *cell;
        for Ran { plan, times, .. } in &mut cell.plans {
            let choice = plan.to_lowercase().parse::<PlanChoice>().unwrap();
            let mut run = || measure(store, &cell.load, &request.clone().with_plan(choice), state);
            *times = if choice == PlanChoice::RERUN {
                let key = (layer, n_rows, scattered, scheme.starts_with("pool"), state);
                *runs.entry(key).or_insert_with(|| three(run))
            } else {
                three(&mut run)
            };
        }
    }
    println!("  {n} cells in {:.0} s", begun.elapsed().as_secs_f64());
}

/// Makes the model and its dataset ready, as an earlier question of the session did.
fn load(reader: &ChunkReader<'_>, key: &str) {
    let one = Request::new(key.parse().unwrap()).with_rows(RowSelection::Range(0..1));
    reader.get(&one.with_plan(PlanChoice::RERUN)).unwrap();
}

fn measure(store: &Store, first: &str, request: &Request, state: Session) -> f64 {
    store.clear_pool();
    let reader = session(store);
    if state == Session::Cached {
        load(&reader, first);
        reader.get(request).unwrap();
    }
    // Between two questions of a person the threads fall asleep.
    std::thread::sleep(ASLEEP);
    seconds_of(&reader.get(request).unwrap())
}

fn report(name: &str, cells: &[Cell]) {
    let good = cells.iter().filter(|c| c.took() <= 1.2 * c.best().1).count();
    let chosen: f64 = cells.iter().map(Cell::took).sum();
    let best: f64 = cells.iter().map(|c| c.best().1).sum();
    let mut errors: Vec<f64> = cells.iter().flat_map(|c| c.plans.iter()).map(Ran::error).collect();
    errors.sort_by(f64::total_cmp);
    println!("\n{name}: {} cells, {} plans run", cells.len(), errors.len());
    at_least("  chosen plan fastest or within 20%", 100.0 * good as f64 / cells.len() as f64, "%", 95.0);
    at_most("  total time against an oracle's", chosen / best, "×", 1.05);
    at_most("  median error of the predicted time", 100.0 * errors[errors.len() / 2], "%", 25.0);
    plain("  nine tenths of the errors are below", 100.0 * errors[errors.len() * 9 / 10], "%");
    for plan in ["READ", "RERUN", "ANCESTOR"] {
        let mut errors: Vec<f64> =
            cells.iter().flat_map(|c| c.plans.iter()).filter(|p| p.plan == plan).map(Ran::error).collect();
        errors.sort_by(f64::total_cmp);
        if !errors.is_empty() {
            plain(&format!("  median error of {plan}"), 100.0 * errors[errors.len() / 2], "%");
        }
    }
    println!("  chosen (down) and fastest (across), cells:");
    println!("  {:10} {:>8} {:>8} {:>8}", "", "READ", "RERUN", "ANCESTOR");
    for chosen in ["READ", "RERUN", "ANCESTOR"] {
        let count = |best: &str| cells.iter().filter(|c| c.chosen == chosen && c.best().0 == best).count();
        println!("  {chosen:10} {:>8} {:>8} {:>8}", count("READ"), count("RERUN"), count("ANCESTOR"));
    }
    if std::env::args().any(|a| a == "cells") {
        cells.iter().for_each(|c| println!("  {}", c.line()));
    }
    let mut wrong: Vec<&Cell> = cells.iter().filter(|c| c.took() > 1.2 * c.best().1).collect();
    wrong.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
    wrong.iter().take(12).for_each(|c| println!("  wrong: {}", c.line()));
}

fn lost(c: &Cell) -> f64 {
    c.took() - c.best().1
}

/// Figs. 5-9 and 5-10 from the cells.
fn figures(subject: &Subject, cells: &[Cell]) {
    let most = *subject.rows.last().unwrap();
    let cell = |layer: &str, scheme: &str, n: u64, session: Session| {
        let same = |c: &&Cell| c.layer == layer && c.scheme == scheme && c.n_rows == n && c.session == session;
        cells.iter().filter(same).find(|c| !c.scattered)
    };
    let pair = |c: Option<&Cell>, plan: &str| {
        let found = c.and_then(|c| c.of(plan));
        found.map_or("-".into(), |p| format!("{:.2} ({:.2})", p.times.middle * 1e3, p.predicted * 1e3))
    };
    println!("\nFig. 5-9a, {}: RERUN of n rows in a warm session, ms measured (predicted)", subject.network);
    let header: String = subject.rows.iter().map(|n| format!("{n:>22}")).collect();
    println!("  {:14}{header}", "layer");
    for layer in subject.layers {
        let row =
            subject.rows.iter().map(|n| format!("{:>22}", pair(cell(layer, "f32", *n, Session::Cached), "RERUN")));
        println!("  {layer:14}{}", row.collect::<String>());
    }
    println!("\nFig. 5-9b, {}: READ of {most} rows in a new session, ms measured (predicted)", subject.network);
    println!("  {:14}{}", "layer", SCHEMES.map(|s| format!("{s:>22}")).concat());
    for layer in subject.layers {
        let row = SCHEMES.map(|s| format!("{:>22}", pair(cell(layer, s, most, Session::Cold), "READ")));
        println!("  {layer:14}{}", row.concat());
    }
    println!("\nFig. 5-10, {}: READ of pool(2)+f16 | RERUN, new session, ms measured (predicted)", subject.network);
    println!("  {:14}{}", "layer", subject.rows.iter().map(|n| format!("{n:>38}")).collect::<String>());
    for layer in subject.layers {
        let both = |n: &u64| {
            let c = cell(layer, "pool(2)+f16", *n, Session::Cold);
            format!("{:>38}", format!("{} | {}", pair(c, "READ"), pair(c, "RERUN")))
        };
        println!("  {layer:14}{}", subject.rows.iter().map(both).collect::<String>());
    }
    crossover(subject, cells);
    let last = *subject.layers.last().unwrap();
    let ratio = |c: &Cell| Some(c.of("RERUN")?.times.middle / c.of("READ")?.times.middle);
    let of_last: Vec<f64> =
        cells.iter().filter(|c| c.layer == last && c.session == Session::Cold).filter_map(ratio).collect();
    let best = of_last.iter().copied().fold(0.0, f64::max);
    plain(
        "  last layer, new session: READ faster than RERUN, least",
        of_last.iter().copied().fold(f64::MAX, f64::min),
        "×",
    );
    at_least("  the same, most", best, "×", 210.0);
}

/// Where on the first layer READ and RERUN change places, measured and predicted, in a warm session.
fn crossover(subject: &Subject, cells: &[Cell]) {
    println!("\nFirst layer, warm session, pages not in memory: which is faster, measured (predicted)");
    for scheme in SCHEMES {
        let row: Vec<String> = cells
            .iter()
            .filter(|c| {
                c.layer == subject.layers[0] && c.scheme == scheme && c.session == Session::Cold && !c.scattered
            })
            .filter_map(|cold| {
                let same = |c: &&Cell| {
                    c.layer == cold.layer
                        && c.scheme == scheme
                        && c.n_rows == cold.n_rows
                        && !c.scattered
                        && c.session == Session::Cached
                };
                let warm = cells.iter().find(same)?;
                let (read, rerun) = (cold.of("READ")?, warm.of("RERUN")?);
                let name = |a: f64, b: f64| if a <= b { "READ" } else { "RERUN" };
                Some(format!(
                    "{} rows {} ({})",
                    cold.n_rows,
                    name(read.times.shortest, rerun.times.shortest),
                    name(read.predicted, rerun.predicted)
                ))
            })
            .collect();
        println!("  {scheme:14}{}", row.join("; "));
    }
}

/// Planning in a store that knows 10,000 intermediates.
fn planning() {
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let network = Network::builtin("vgg16").unwrap();
    let spec = images(2000);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let weights = Weights::init(&network, 1);
    let input = Input { name: "images".into(), spec: &spec, dataset: &*dataset };
    let options = RunOptions {
        scheme: Some("f32".parse().unwrap()),
        rows: Some(0..256),
        layers: LayerPattern::new("block3*,block4*,block5*,flatten,dense1,logits").unwrap(),
        ..RunOptions::new().unwrap()
    };
    let key = version("vgg16", "f32");
    log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    for m in 0..500 {
        let model = log.model(&ModelSpec::raw(ModelKey::new("other", format!("m{m}"))), IfExists::Continue).unwrap();
        for t in 0..20 {
            log.tensor(model, &TensorSpec::new(format!("t{t}"), &[64])).unwrap();
        }
    }
    log.commit().unwrap();
    drop(log);
    let reader = session(&store);
    println!("\nPlanning beside 10,000 other intermediates, vgg16, 256 rows in f32");
    for (layer, what) in [("logits", "last layer, 13 stored ancestors"), ("block3_conv1", "middle layer")] {
        for rows in [RowSelection::Range(0..1), RowSelection::Range(0..256)] {
            let request = request("vgg16", "f32", layer, rows.clone());
            let mut times: Vec<f64> = (0..301)
                .map(|_| {
                    let begun = Instant::now();
                    std::hint::black_box(reader.plan(&request).unwrap());
                    begun.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let n = if let RowSelection::Range(r) = rows { r.end } else { 0 };
            at_most(&format!("  {what}, {n} rows, names looked up too"), times[150] * 1e6, "µs", 100.0);
        }
    }
}
