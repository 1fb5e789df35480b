//! SVCCA and CKA of 10,000 × 512 with 10,000 × 512, fetch included, against numpy and scipy on arrays in memory; and
//! NetDissect.
//!
//! The peer (`similarity.py`) runs in a virtual environment of its own, which the first run makes.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{at_least, cache, median, plain, scratch, shortest_after, wanted};
use mistique::diagnostics::{MapsAs, Masks, Measure, Similarity, netdissect, similarity, unit_thresholds};
use mistique::{ChunkReader, IfExists, LogOptions, ModelKey, ModelSpec, QueryError, Request, Store, TensorSpec};

const ROWS: usize = 10_000;
const COLUMNS: usize = 512;

fn main() {
    if wanted("similarity") {
        compare();
    }
    if wanted("netdissect") {
        dissect();
    }
}

/// Two layers that see the same examples: random features of shared factors, rectified.
fn layer(seed: u64) -> Vec<f32> {
    const FACTORS: usize = 64;
    let noise = |seed: u64, n: usize| -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    };
    let (factors, mixing, own) =
        (noise(7, ROWS * FACTORS), noise(seed, FACTORS * COLUMNS), noise(seed + 1, ROWS * COLUMNS));
    let mut out = Vec::with_capacity(ROWS * COLUMNS);
    for (row, own) in factors.chunks_exact(FACTORS).zip(own.chunks_exact(COLUMNS)) {
        let mut line = own.to_vec();
        for (f, mix) in row.iter().zip(mixing.chunks_exact(COLUMNS)) {
            line.iter_mut().zip(mix).for_each(|(v, m)| *v += f * m / 4.0);
        }
        out.extend(line.iter().map(|v| v.max(0.0)));
    }
    out
}

fn stored(store: &Store, name: &str, shape: &[usize], scheme: &str, values: &[f32]) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("bench", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new(name, shape).with_scheme(scheme.parse().unwrap())).unwrap();
    let width: usize = shape.iter().product();
    for (i, part) in values.chunks(256 * width).enumerate() {
        let rows: Vec<u64> = (i as u64 * 256..(i * 256 + part.len() / width) as u64).collect();
        log.append(handle, &rows, part.to_vec()).unwrap();
    }
    log.commit().unwrap();
}

/// The interpreter of an environment with numpy and scipy.
fn python() -> Option<PathBuf> {
    let dir = cache().join("venv-similarity");
    let python = dir.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&dir).status();
        let got = Command::new(&python).args(["-m", "pip", "install", "-q", "numpy", "scipy"]).status();
        if !made.is_ok_and(|s| s.success()) || !got.is_ok_and(|s| s.success()) {
            return None;
        }
    }
    Some(python)
}

fn compare() {
    println!("\nSimilarity of {ROWS} × {COLUMNS} with {ROWS} × {COLUMNS}, fetched from f16 as logged");
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let paths = ["x.npy", "y.npy"].map(|n| dir.path().join(n));
    for (name, path, seed) in [("x", &paths[0], 11), ("y", &paths[1], 23)] {
        let values = layer(seed);
        stored(&store, name, &[COLUMNS], "f16", &values);
        // Both sides see the same values.
        let reader = ChunkReader::new(&store);
        let values = reader.get(&Request::new(format!("bench.m.{name}").parse().unwrap())).unwrap().into_f32().unwrap();
        mistique_datasets::write_npy(std::fs::File::create(path).unwrap(), &[ROWS, COLUMNS], &values).unwrap();
    }
    let peer = python().and_then(|python| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/similarity.py");
        let out = Command::new(python).arg(script).args(&paths).output().ok().filter(|o| o.status.success())?;
        serde_json::from_slice::<serde_json::Value>(&out.stdout).ok()
    });
    match &peer {
        Some(peer) => println!("  against {}", peer["versions"].as_str().unwrap_or_default()),
        None => println!("  without a peer: numpy and scipy could not be installed"),
    }
    let reader = ChunkReader::new(&store);
    let [x, y] = ["bench.m.x", "bench.m.y"].map(|k| Request::new(k.parse().unwrap()));
    let line = |what: &str, measure: Measure, n: usize, peers: &[&str]| {
        let mut got: Option<Similarity> = None;
        let first = || store.clear_pool();
        let took = shortest_after(n, first, || {
            got = Some(similarity(&reader, &x, &y, measure, MapsAs::Mean).unwrap());
        });
        let value = got.map_or(f64::NAN, |s| s.value);
        plain(&format!("  {what} = {value:.6}"), took.as_secs_f64(), "s");
        for name in peers {
            let Some(theirs) = peer.as_ref().map(|p| &p[*name]) else { continue };
            let (seconds, expected) = (theirs[0].as_f64().unwrap_or(f64::NAN), theirs[1].as_f64().unwrap_or(f64::NAN));
            assert!((value / expected - 1.0).abs() < 1e-3, "{name}: {expected}");
            at_least(&format!("    {name} takes {seconds:.3} s"), seconds / took.as_secs_f64(), "times", 1.0);
        }
    };
    let svd = ["svcca_svd_f32", "svcca_svd_f64", "svcca_covariance_f64"];
    line("SVCCA", Measure::Svcca { threshold: 0.99 }, 9, &svd);
    line("linear CKA", Measure::LinearCka, 9, &["linear_cka_f32", "linear_cka_f64"]);
    line("RBF CKA", Measure::RbfCka { fraction: 1.0, max_points: ROWS }, 1, &["rbf_cka_f64"]);
}

/// Ten concepts, each in a tenth of the examples, as squares of 32 × 32 pixels.
struct Squares(Vec<String>);

impl Masks for Squares {
    fn concepts(&self) -> &[String] {
        &self.0
    }

    fn size(&self, _: usize) -> (usize, usize) {
        (32, 32)
    }

    fn mask(&self, concept: usize, row: u64) -> Result<Option<Vec<bool>>, QueryError> {
        if row % 10 != concept as u64 {
            return Ok(None);
        }
        let at = (row / 10 % 24) as usize;
        Ok(Some((0..1024).map(|i| (at..at + 8).contains(&(i / 32)) && (at..at + 8).contains(&(i % 32))).collect()))
    }
}

fn dissect() {
    let (shape, values) = common::activations("conv3", 4000);
    println!("\nNetDissect of conv3, 4000 × {shape:?}, ten concepts");
    let masks = Squares((0..10).map(|i| format!("square {i}")).collect());
    for scheme in ["f32", "f16", "kbit(8)", "threshold(0.995,unit)"] {
        let dir = scratch();
        let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
        stored(&store, "t", &shape, scheme, &values);
        let reader = ChunkReader::new(&store);
        let request = Request::new("bench.m.t".parse().unwrap());
        let mut known = None;
        let mut thresholds = || known = Some(unit_thresholds(&reader, &request, 0.005, &mut |_, _| {}).unwrap());
        let first = median(3, || {
            store.indexes(None).unwrap().iter().for_each(|i| drop(store.drop_index(i.id).unwrap()));
            thresholds();
        });
        let kept = median(3, &mut thresholds);
        let one_pass = median(3, || {
            netdissect(&reader, &request, &masks, 0.005, known.clone(), &mut |_, _| {}).unwrap();
        });
        plain(&format!("  {scheme}: thresholds, once"), first.as_secs_f64(), "s");
        plain(&format!("  {scheme}: thresholds, kept"), kept.as_secs_f64(), "s");
        plain(&format!("  {scheme}: IoU of all units, one pass"), one_pass.as_secs_f64(), "s");
    }
}
