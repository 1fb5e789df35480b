//! Reading, encoding and sizes, as ratios against memcpy (M) and zstd in the same run.

mod common;

use common::{
    activations, at_least, at_most, median, median_after, memcpy_fresh_rate, memcpy_rate, plain, rate, scratch, wanted,
};
use mistique::{
    Effort, IfExists, IntermediateRecord, LogOptions, ModelKey, ModelSpec, Rows, Scheme, Store, TensorSpec,
};
use mistique_quantize::{MapShape, OnUnholdable, Params, Reducer, UnitError};

fn main() {
    if wanted("encode") {
        encode();
    }
    if wanted("decode") {
        decode();
    }
    if wanted("access") {
        access();
    }
    if wanted("sizes") {
        sizes();
    }
}

/// Reducers alone, one thread.
fn encode() {
    let (shape, values) = activations("conv1", 1000);
    let m = memcpy_rate(&values);
    println!(
        "\nEncoding on one core: conv1 of a trained cifar10_cnn, {} MB, memcpy M = {m:.1} GB/s",
        values.len() * 4 / 1_000_000
    );
    let map = MapShape { h: shape[1], w: shape[2] };
    for (text, target) in
        [("f16", 0.8), ("pool(2)+f16", 0.6), ("kbit(8)", 0.4), ("lloyd(8)", 0.4), ("threshold(0.995)", 0.8)]
    {
        let scheme: Scheme = text.parse().unwrap();
        let params = match scheme.needs_fit() {
            true => scheme.fit(map, shape[0], &values[..64 * shape.iter().product::<usize>()]).unwrap(),
            false => Params::none(),
        };
        let reducer = Reducer::new(&scheme, map, shape[0], params).unwrap();
        let mut out = Vec::new();
        let row = shape.iter().product::<usize>();
        let t = median(5, || {
            out.clear();
            for maps in values.chunks_exact(row) {
                reducer.encode(0, maps, OnUnholdable::Clamp, &mut out).unwrap();
            }
        });
        at_least(&format!("  {text}"), rate(values.len(), t) / m, "M", target);
    }
}

fn stored(store: &Store, shape: &[usize], values: &[f32], scheme: &str) -> IntermediateRecord {
    let key = ModelKey::new("bench", scheme);
    let row = shape.iter().product::<usize>();
    let n = (values.len() / row) as u64;
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(key.clone()), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t", shape).with_scheme(scheme.parse().unwrap())).unwrap();
    for start in (0..n).step_by(256) {
        let end = (start + 256).min(n);
        let rows: Vec<u64> = (start..end).collect();
        log.append(handle, &rows, values[start as usize * row..end as usize * row].to_vec()).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    store.intermediate(&key.intermediate("t")).unwrap()
}

/// A whole intermediate to float32, checksums on, two cores, from pages as small as they get.
fn decode() {
    let (shape, values) = activations("conv1", 2000);
    let m = memcpy_rate(&values);
    let fresh = memcpy_fresh_rate(&values);
    println!(
        "\nReading a whole intermediate to float32: conv1, {} MB, memcpy M = {m:.1} GB/s warm, {fresh:.1} GB/s fresh",
        values.len() * 4 / 1_000_000
    );
    for effort in [Effort::Small, Effort::Fast] {
        for (scheme, target) in [("f16", 0.9), ("kbit(8)", 0.8), ("f32", 0.25)] {
            let dir = scratch();
            let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
            let record = stored(&store, &shape, &values, scheme);
            if effort == Effort::Small {
                store.compact(&mut |_, _| {}).unwrap();
            }
            let n = record.tensor().unwrap().layout.stored_values();
            let plan = store.plan_rows(&record, &Rows::All).unwrap();
            let mut out = vec![0f32; values.len()];
            // From the files: what is asked for again may be held.
            let first = || store.clear_pool();
            let t = median_after(7, first, || store.read_f32(&record, &plan, &[0..n], &mut out).unwrap());
            let name = if effort == Effort::Small { "compacted" } else { "as logged" };
            at_least(&format!("  {scheme}, {name}, warm buffer"), rate(values.len(), t) / m, "M", target);
            let t = median_after(5, first, || {
                let mut out = vec![0f32; values.len()];
                store.read_f32(&record, &plan, &[0..n], &mut out).unwrap();
                std::hint::black_box(&mut out);
            });
            at_least(&format!("  {scheme}, {name}, fresh allocation"), rate(values.len(), t) / fresh, "M", target);
        }
    }
}

/// One unit, one row, scattered rows of 4,000 × 64 × 16 × 16.
fn access() {
    let (shape, values) = activations("conv3", 4000);
    println!("\nParts of conv3, 4000 × {shape:?}, {} MB", values.len() * 4 / 1_000_000);
    for scheme in ["f16", "f32", "kbit(8)"] {
        let dir = scratch();
        let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
        let record = stored(&store, &shape, &values, scheme);
        store.compact(&mut |_, _| {}).unwrap();
        let n = record.tensor().unwrap().layout.stored_values();
        let cells = shape[1] * shape[2];
        let mut out = vec![0f32; values.len()];
        let plan = store.plan_rows(&record, &Rows::All).unwrap();
        let first = || store.clear_pool();
        let whole = median_after(5, first, || store.read_f32(&record, &plan, &[0..n], &mut out).unwrap());
        let mut time = |rows: &dyn Fn(u64) -> Rows, columns: std::ops::Range<usize>| {
            let mut round = 0;
            // Other rows each time, nothing held or known: what a first question costs, from page cache.
            let first = || store.clear_pool();
            median_after(21, first, || {
                round += 1;
                let plan = store.plan_rows(&record, &rows(round)).unwrap();
                let len = plan.n_rows() * columns.len();
                store.read_f32(&record, &plan, std::slice::from_ref(&columns), &mut out[..len]).unwrap();
            })
            .as_secs_f64()
        };
        let unit = time(&|_| Rows::All, 35 * cells..36 * cells);
        at_most(&format!("  {scheme}: one unit of all rows"), unit * 1e3, "ms", 1.0);
        at_most(&format!("  {scheme}: one unit, share of the whole"), unit / whole.as_secs_f64() * 100.0, "%", 2.0);
        let row = time(&|r| Rows::List(vec![(r * 1499) % 4000]), 0..n);
        at_most(&format!("  {scheme}: one row"), row * 1e3, "ms", if scheme == "f32" { 3.0 } else { 1.0 });
        let rows = time(&|r| Rows::List((0..100).map(|i| (i * 1499 + r * 7) % 4000).collect()), 0..n);
        at_most(&format!("  {scheme}: 100 scattered rows"), rows * 1e3, "ms", 20.0);
        plain(&format!("  {scheme}: the whole"), whole.as_secs_f64() * 1e3, "ms");
    }
}

/// Bytes of compacted chunks against zstd level 3 of the same bytes.
fn sizes() {
    for layer in ["conv1", "conv2", "conv3", "conv4"] {
        let (shape, values) = activations(layer, 1000);
        println!("\nSizes of {layer}, 1000 × {shape:?}");
        let f32_bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f16_bytes: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
        let zeros = values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64;
        plain("  zeros", zeros * 100.0, "%");
        for (scheme, plain_bytes, target) in [("f32", &f32_bytes, 0.82), ("f16", &f16_bytes, 0.75)] {
            let dir = scratch();
            let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
            stored(&store, &shape, &values, scheme);
            let fast = store.stats().unwrap().chunk_bytes as f64;
            store.compact(&mut |_, _| {}).unwrap();
            let small = store.stats().unwrap().chunk_bytes as f64;
            let zstd = zstd::bulk::compress(plain_bytes, 3).unwrap().len() as f64;
            let pco = pco_bytes(&shape, &values, scheme == "f16") as f64;
            plain(&format!("  {scheme}: zstd -3 makes it smaller by"), plain_bytes.len() as f64 / zstd, "×");
            plain(&format!("  {scheme}: pco level 8, unit by unit"), plain_bytes.len() as f64 / pco, "×");
            plain(&format!("  {scheme}: as logged"), plain_bytes.len() as f64 / fast, "×");
            plain(&format!("  {scheme}: compacted"), plain_bytes.len() as f64 / small, "×");
            at_most(&format!("  {scheme}: compacted against zstd -3"), small / zstd, "", target);
        }
        for scheme in ["kbit(8)", "lloyd(8)"] {
            let dir = scratch();
            let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
            let record = stored(&store, &shape, &values, scheme);
            store.compact(&mut |_, _| {}).unwrap();
            let small = store.stats().unwrap().chunk_bytes as f64;
            plain(&format!("  {scheme}: compacted"), f32_bytes.len() as f64 / small, "×");
            let mut error = UnitError::default();
            let errors = store.catalog().errors(record.id).unwrap().unwrap();
            errors.units.iter().for_each(|u| error.merge(u));
            plain(&format!("  {scheme}: relative error"), error.relative() * 100.0, "%");
        }
    }
}

/// Bytes that pco level 8 makes of the values, unit by unit.
fn pco_bytes(shape: &[usize], values: &[f32], halves: bool) -> usize {
    let config = pco::ChunkConfig::default().with_compression_level(8);
    let cells: usize = shape[1..].iter().product();
    let row = shape[0] * cells;
    let mut bytes = 0;
    for unit in 0..shape[0] {
        let column: Vec<f32> =
            values.chunks_exact(row).flat_map(|r| &r[unit * cells..(unit + 1) * cells]).copied().collect();
        bytes += if halves {
            let column: Vec<half::f16> = column.iter().map(|v| half::f16::from_f32(*v)).collect();
            pco::standalone::simple_compress(&column, &config).unwrap().len()
        } else {
            pco::standalone::simple_compress(&column, &config).unwrap().len()
        };
    }
    bytes
}
