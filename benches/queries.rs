//! Diagnostic questions against their peers: exact neighbours against FAISS's flat index, top-k of a unit against h5py.
//!
//! `MISTIQUE_BENCH_ROWS` changes the number of rows (default 50,000: 1.6 GB of float16 maps, twice).

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use mistique::diagnostics::{Extreme, Metric, QUANTILES, Queries, dist, knn, select, topk};
use mistique::{
    ChunkReader, IfExists, LogOptions, ModelKey, ModelSpec, PlanChoice, Predicate, Request, Store, TensorSpec,
};

const WIDTH: usize = 512;
const MAP: [usize; 3] = [64, 16, 16];
const BATCH: usize = 1000;

/// Half zeros, the rest positive and different from row to row, as after a ReLU.
fn values(rows: std::ops::Range<usize>, width: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ (rows.start as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mut out = Vec::with_capacity(rows.len() * width);
    for _ in 0..rows.len() * width {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let x = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
        out.push(f16::from_f32(x.max(0.0) * (1.0 + x * x * 7.0)).to_f32());
    }
    out
}

fn best(times: usize, mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    };
    (0..times).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let n: usize = std::env::var("MISTIQUE_BENCH_ROWS").ok().and_then(|v| v.parse().ok()).unwrap_or(50_000);
    let dir = common::cache().join("queries");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let store = Store::open_or_create(dir.join("s.mq")).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("b", "m")), IfExists::Continue).unwrap();
    for (name, shape, file) in [("vectors", &[WIDTH][..], "vectors.f16"), ("maps", &MAP, "maps.f16")] {
        let mut spec = TensorSpec::new(name, shape);
        spec.scheme = Some("f16".parse().unwrap());
        let handle = log.tensor(model, &spec).unwrap();
        let mut raw = std::io::BufWriter::new(std::fs::File::create(dir.join(file)).unwrap());
        for start in (0..n).step_by(BATCH) {
            let rows = start..(start + BATCH).min(n);
            let batch = values(rows.clone(), shape.iter().product());
            let mut half = vec![f16::ZERO; batch.len()];
            half.convert_from_f32_slice(&batch);
            half.iter().for_each(|v| raw.write_all(&v.to_le_bytes()).unwrap());
            log.append(handle, &rows.map(|r| r as u64).collect::<Vec<_>>(), batch).unwrap();
        }
        raw.flush().unwrap();
    }
    log.complete(model).unwrap();
    log.commit().unwrap();
    drop(log);

    let reader = ChunkReader::new(&store);
    let request = |key: &str| Request::new(key.parse().unwrap()).with_plan(PlanChoice::READ);
    let queries = Queries::Rows((0..100).map(|i| i * n as u64 / 100).collect());
    println!("{n} rows; best of several; ratios are what counts, the machine may be busy\n");
    let cold = |run: &mut dyn FnMut()| {
        let once = |_| {
            store.clear_pool();
            best(1, &mut *run)
        };
        (0..3).map(once).fold(f64::INFINITY, f64::min)
    };
    let ours_knn = best(5, || {
        let found = knn(&reader, &request("b.m.vectors"), &queries, 50, Metric::L2).unwrap();
        assert!(found.queries.iter().all(|q| q.rows.len() == 50));
    });
    let ours_topk = cold(&mut || {
        let found = topk(&reader, &request("b.m.maps.u17"), 10, None, Extreme::Highest).unwrap();
        assert_eq!(found.units[0].rows.len(), 10);
    });
    println!("knn, 100 queries over {n} × {WIDTH}, k = 50, from f16: {:.1} ms", ours_knn * 1e3);
    println!("topk of a unit over {n} × {MAP:?}, k = 10, from f16:   {:.2} ms", ours_topk * 1e3);
    let t = cold(&mut || drop(dist(&reader, &request("b.m.maps.u17"), None, 50, &QUANTILES).unwrap()));
    println!("dist of a unit:                                       {:.1} ms", t * 1e3);
    let predicate = Predicate::parse("b.m.vectors.u3 > 0.9").unwrap();
    let t = cold(&mut || drop(select(&reader, &predicate, None, PlanChoice::Auto).unwrap()));
    println!("where vectors.u3 > 0.9:                               {:.2} ms\n", t * 1e3);

    let venv = common::cache().join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().is_ok_and(|s| s.success());
        let packages = ["install", "-q", "numpy", "h5py", "faiss-cpu"];
        let installed = made && Command::new(venv.join("bin/pip")).args(packages).status().is_ok_and(|s| s.success());
        if !installed {
            println!(
                "NOT COMPARED: python3 with numpy, h5py and faiss-cpu could not be installed in {}",
                venv.display()
            );
            return;
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/queries.py");
    let out = Command::new(&python).arg(script).arg(&dir).arg(n.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        println!("NOT COMPARED: {}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let figure = |name: &str| -> f64 {
        text.lines().find_map(|l| l.strip_prefix(name)).and_then(|v| v.trim().parse().ok()).unwrap_or(f64::NAN)
    };
    print!("{}", text.lines().filter(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect::<String>());
    let (faiss, h5py) = (figure("knn"), figure("topk"));
    println!(
        "FAISS flat, vectors in memory: {:.1} ms; ours has {:.2} of its speed (wanted 0.8)",
        faiss * 1e3,
        faiss / ours_knn
    );
    println!(
        "h5py, read the unit and sort: {:.1} ms; ours is {:.0}× faster (wanted 20×)",
        h5py * 1e3,
        h5py / ours_topk
    );
    std::fs::remove_dir_all(&dir).unwrap();
}
