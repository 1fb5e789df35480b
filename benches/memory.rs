//! What questions hold in memory: the most anonymous memory of a process that asks one, over what it had before. Files that are
//! read are mapped, and their pages are the system's to take back; they do not count.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{at_most, plain, scratch, wanted};
use mistique::diagnostics::{
    Extreme, MapsAs, Measure, Metric, QUANTILES, Queries, diff, dist, knn, rowdiff, select, similarity, topk,
};
use mistique::{
    ChunkReader, IfExists, LogOptions, ModelKey, ModelSpec, PlanChoice, Predicate, Request, Store, TensorSpec,
};

const CHILD: &str = "MISTIQUE_BENCH_QUESTION";
const STORE: &str = "MISTIQUE_BENCH_STORE";
const MIB: f64 = (1 << 20) as f64;
/// Of the InMemoryStore.
const PAGE_CACHE: f64 = 256.0 * MIB;

const MAPS: [usize; 3] = [64, 16, 16];
const MAP_ROWS: usize = 20_000;
const COLUMNS: usize = 4096;
const ROWS: usize = 50_000;
const BATCH: usize = 500;

/// A question, by what it asks of; and bytes of its answer, and of what its method works with.
type Question = (&'static str, fn(&ChunkReader<'_>), f64);

/// Bytes of a matrix of columns × columns in float64.
const MATRIX: f64 = (COLUMNS * COLUMNS * 8) as f64;

const QUESTIONS: [Question; 9] = [
    ("topk of every unit", |r| drop(topk(r, &maps(), 10, None, Extreme::Highest).unwrap()), 0.0),
    ("dist of a layer", |r| drop(dist(r, &maps(), None, 50, &QUANTILES).unwrap()), 0.0),
    ("where max of a layer", |r| drop(select(r, &of("b.m.maps.max > 1"), None, PlanChoice::Auto).unwrap()), 0.0),
    ("diff of two layers", |r| drop(diff(r, &maps(), &maps(), None).unwrap()), 0.0),
    ("knn, ten examples by all cells", |r| drop(knn(r, &maps(), &examples(), 10, Metric::L2).unwrap()), 0.0),
    ("rowdiff", |r| drop(rowdiff(r, &maps(), 3, 7).unwrap()), 0.0),
    ("SVCCA of means of maps", |r| alike(r, [maps(), maps()], Measure::Svcca { threshold: 0.99 }), 0.0),
    // XᵀX, YᵀY and XᵀY.
    ("linear CKA of 50,000 × 4,096", |r| alike(r, vectors(), Measure::LinearCka), 3.0 * MATRIX),
    // These, and of each side eigenvectors and what is made of them.
    ("SVCCA of 50,000 × 4,096", |r| alike(r, vectors(), Measure::Svcca { threshold: 0.99 }), 9.0 * MATRIX),
];

fn request(key: &str) -> Request {
    Request::new(key.parse().unwrap())
}

fn maps() -> Request {
    request("b.m.maps")
}

fn vectors() -> [Request; 2] {
    [request("b.m.x"), request("b.m.y")]
}

fn of(text: &str) -> Predicate {
    Predicate::parse(text).unwrap()
}

fn examples() -> Queries {
    Queries::Rows((0..10).map(|i| i * 1000).collect())
}

fn alike(reader: &ChunkReader<'_>, [a, b]: [Request; 2], measure: Measure) {
    similarity(reader, &a, &b, measure, MapsAs::Mean).unwrap();
}

fn main() {
    if let (Ok(question), Ok(store)) = (std::env::var(CHILD), std::env::var(STORE)) {
        return child(question.parse().unwrap(), Path::new(&store));
    }
    if !wanted("memory") {
        return;
    }
    let dir = scratch();
    let path = dir.path().join("s.mq");
    fill(&path);
    println!(
        "\nMost memory of a question, over {MAP_ROWS} × {MAPS:?} (1.3 GB as float32) or 50,000 × 4,096 (0.8 GB a side)"
    );
    for (i, (name, _, method)) in QUESTIONS.iter().enumerate() {
        let (bytes, seconds) = ask(i, &path);
        let text = format!("  {name}, in {seconds:.1} s");
        at_most(&text, bytes / MIB, "MiB", (PAGE_CACHE + method) / MIB);
    }
    plain("  of that the InMemoryStore may take", PAGE_CACHE / MIB, "MiB");
}

fn fill(path: &PathBuf) {
    let store = Store::open_or_create(path).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("b", "m")), IfExists::Continue).unwrap();
    for (seed, (name, shape, n)) in
        [("maps", &MAPS[..], MAP_ROWS), ("x", &[COLUMNS], ROWS), ("y", &[COLUMNS], ROWS)].into_iter().enumerate()
    {
        let handle = log.tensor(model, &TensorSpec::new(name, shape).with_scheme("f16".parse().unwrap())).unwrap();
        let width: usize = shape.iter().product();
        let mut state = 0x9E37_79B9_7F4A_7C15u64 + seed as u64;
        for start in (0..n as u64).step_by(BATCH) {
            let mut value = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1 << 23) as f32 - 0.9).max(0.0)
            };
            let values: Vec<f32> = (0..BATCH * width).map(|_| value()).collect();
            log.append(handle, &(start..start + BATCH as u64).collect::<Vec<_>>(), values).unwrap();
        }
    }
    log.complete(model).unwrap();
    log.commit().unwrap();
}

/// Most bytes, and seconds, of a question in a process of its own.
fn ask(question: usize, store: &Path) -> (f64, f64) {
    let exe = std::env::current_exe().unwrap();
    let out = Command::new(exe).env(CHILD, question.to_string()).env(STORE, store).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap());
    let next = |n: Option<f64>| n.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    (next(numbers.next()), next(numbers.next()))
}

fn child(question: usize, path: &Path) {
    let store = Store::open(path).unwrap();
    let reader = ChunkReader::new(&store);
    let before = anonymous_bytes();
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut most = 0f64;
            while !done.load(Ordering::Relaxed) {
                most = most.max(anonymous_bytes());
                std::thread::sleep(Duration::from_micros(500));
            }
            most
        })
    };
    let begun = std::time::Instant::now();
    QUESTIONS[question].1(&reader);
    let seconds = begun.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    println!("{} {seconds}", watch.join().unwrap() - before);
}

fn anonymous_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("the kernel tells RssAnon");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).expect("a number") * 1024.0
}
