//! Rates of each kernel, as a share of memcpy of the same float32 values, and sizes, as a share of `zstd -3`.
//!
//! `rates [FILE.bin N_UNITS H W [SCHEME...]]`: FILE holds float32 values, rows × units × H × W. Without one, a map like those
//! after a ReLU is made up. Rates are of one thread; a page is 8,192 values of one unit where that is possible.

use std::{hint::black_box, time::Instant};

use mistique_quantize::{
    Code, Effort, MapShape, OnUnholdable, Reducer, Result, Scheme, SharedDecoder, SharedEncoder, UnitError,
    decode_page, decode_page_f32, encode_page,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const PAGE_VALUES: usize = 8192;
/// Pages of a chunk, which share tables.
const CHUNK_PAGES: usize = 16;
const SCHEMES: [&str; 10] = [
    "f32",
    "f16",
    "bf16",
    "pool(2)+f16",
    "pool(2,max)+f16",
    "kbit(8)",
    "lloyd(8)",
    "kbit(4)",
    "kbit(8,unit)",
    "threshold(0.95)",
];
const MAX_VALUES: usize = 1 << 23;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(1);
    let (values, n_units, map) = match args.first() {
        Some(path) => {
            let bytes = std::fs::read(path).expect("file");
            let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (values, number(1), MapShape { h: number(2), w: number(3) })
        }
        None => (made_up(), 16, MapShape { h: 16, w: 16 }),
    };
    let row = n_units * map.cells();
    let rows = values.len().min(MAX_VALUES) / row;
    let values = &values[..rows * row];
    let zeros = values.iter().filter(|v| v.to_bits() == 0).count();
    println!("{} values, {:.0}% zeros", values.len(), 100.0 * zeros as f64 / values.len() as f64);
    // Unit by unit, as column groups are stored.
    let by_unit: Vec<f32> = (0..n_units)
        .flat_map(|u| values.chunks_exact(map.cells()).skip(u).step_by(n_units).flatten().copied())
        .collect();
    let memcpy = rate(values.len(), &mut vec![0f32; values.len()], |out| out.copy_from_slice(black_box(values)));
    println!("memcpy {:.2} GB/s of float32; all rates below are shares of it", memcpy * 4.0);

    let asked: Vec<&str> = args.iter().skip(4).map(String::as_str).collect();
    for text in if asked.is_empty() { &SCHEMES[..] } else { &asked } {
        let scheme: Scheme = text.parse()?;
        let sample = &values[..(rows / 8).max(1) * row];
        let reducer = Reducer::new(&scheme, map, n_units, scheme.fit(map, n_units, sample)?)?;
        report(text, &reducer, values, &by_unit, memcpy)?;
    }
    Ok(())
}

fn report(text: &str, reducer: &Reducer, values: &[f32], by_unit: &[f32], memcpy: f64) -> Result<()> {
    let n_units = reducer.n_units();
    let (map, stored, code) = (reducer.map(), reducer.stored_map(), reducer.code());
    let row = n_units * map.cells();
    let mut codes = Vec::with_capacity(values.len() * code.width());
    // A few rows at a time, as batches come.
    let batch = (1 << 16) / row * row;
    let encode = rate(values.len(), &mut codes, |codes| {
        codes.clear();
        for v in values.chunks(batch.max(row)) {
            for r in v.chunks(row) {
                reducer.encode(0, r, OnUnholdable::Clamp, codes).expect("encode");
            }
        }
    });
    let mut errs = vec![UnitError::default(); n_units];
    let measure = rate(values.len(), &mut errs, |errs| {
        for (v, c) in values.chunks(row).zip(codes.chunks(stored.cells() * code.width() * n_units)) {
            reducer.measure(0, v, c, errs).expect("measure");
        }
    });
    let mut total = UnitError::default();
    errs.iter().for_each(|e| total.merge(e));
    println!(
        "{text:16} encode {:.2} measure {:.2} relative error {:.2e}",
        encode / memcpy,
        measure / memcpy,
        total.relative()
    );

    // Unit-major codes, cut to pages of whole maps.
    let unit_values = values.len() / n_units;
    let mut codes = Vec::new();
    for (u, v) in by_unit.chunks(unit_values).enumerate() {
        for m in v.chunks(map.cells()) {
            reducer.encode(u, m, OnUnholdable::Clamp, &mut codes)?;
        }
    }
    let page_maps = (PAGE_VALUES / stored.cells()).clamp(1, unit_values / map.cells());
    let unit_bytes = unit_values / map.cells() * stored.cells() * code.width();
    let page_bytes = page_maps * stored.cells() * code.width();
    let page_values = page_bytes / code.width();
    let chunks: Vec<(usize, &[u8])> = codes
        .chunks(unit_bytes)
        .enumerate()
        .flat_map(|(u, c)| c.chunks(CHUNK_PAGES * page_bytes).map(move |p| (u, p)))
        .collect();
    let n_codes = codes.len() / code.width();
    let mut whole = Vec::new();
    zstd::stream::copy_encode(&codes[..], &mut whole, 3).expect("zstd");
    for effort in [Effort::Fast, Effort::Small] {
        let share = effort == Effort::Small;
        let mut encoded = Vec::new();
        let mut tables = Vec::new();
        let pack = rate(n_codes, &mut encoded, |encoded: &mut Vec<_>| {
            encoded.clear();
            tables.clear();
            for (u, c) in &chunks {
                let shared = share.then(|| SharedEncoder::train(code, c, page_values, stored.w)).flatten();
                for p in c.chunks(page_bytes) {
                    let mut bytes = Vec::new();
                    let enc = encode_page(code, p, stored.w, effort, shared.as_ref(), &mut bytes).expect("page");
                    encoded.push((*u, enc, p.len() / code.width(), tables.len(), bytes));
                }
                tables.push(shared.map(|s| s.to_bytes()));
            }
        });
        let size: usize =
            encoded.iter().map(|e| e.4.len()).sum::<usize>() + tables.iter().flatten().map(Vec::len).sum::<usize>();
        let mut buffers = (vec![0u8; page_bytes], vec![0f32; page_bytes / code.width()]);
        let unpack = rate(n_codes, &mut buffers, |(codes, out)| {
            let (mut of, mut shared) = (usize::MAX, None);
            for (u, enc, n, chunk, bytes) in &encoded {
                if of != *chunk {
                    of = *chunk;
                    shared = tables[of].as_deref().map(|t| SharedDecoder::from_bytes(t).expect("tables"));
                }
                let out = &mut out[..*n];
                if code.is_float() {
                    decode_page_f32(code, *enc, bytes, *n, stored.w, shared.as_ref(), out).expect("decode");
                } else {
                    let codes = &mut codes[..*n];
                    decode_page(code, *enc, bytes, *n, stored.w, shared.as_ref(), codes).expect("decode");
                    reducer.decode_rows(*u, 1, codes, out).expect("decode");
                }
            }
        });
        let mut kinds = [0; 8];
        encoded.iter().for_each(|e| kinds[e.1 as usize] += 1);
        println!(
            "  {effort:?}: page encode {:.2} decode {:.2}, {:.3} bits/value, {:.2}x of the codes, {:.3} of zstd-3, encodings {kinds:?}",
            pack / memcpy,
            unpack / memcpy,
            8.0 * size as f64 / n_codes as f64,
            codes.len() as f64 / size as f64,
            size as f64 / whole.len() as f64,
        );
    }
    by_column(code, &chunks, page_bytes, stored)?;
    Ok(())
}

/// Sizes of the same pages column by column.
fn by_column(code: Code, chunks: &[(usize, &[u8])], page_bytes: usize, stored: MapShape) -> Result<()> {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let w = code.width();
    for p in chunks.iter().flat_map(|(_, c)| c.chunks(page_bytes)) {
        encode_page(code, p, stored.w, Effort::Small, None, &mut rows)?;
        let maps: Vec<&[u8]> = p.chunks_exact(stored.cells() * w).collect();
        let turned: Vec<u8> =
            (0..stored.cells()).flat_map(|c| maps.iter().flat_map(move |m| &m[c * w..(c + 1) * w])).copied().collect();
        // The value above is then a whole map row of columns back.
        encode_page(code, &turned, stored.w * maps.len(), Effort::Small, None, &mut columns)?;
    }
    println!("  column-major pages: {:.3} of the row-major size", columns.len() as f64 / rows.len() as f64);
    Ok(())
}

/// Best of some runs, in values per nanosecond.
fn rate<T>(n_values: usize, state: &mut T, mut f: impl FnMut(&mut T)) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        f(black_box(state));
        best = best.min(start.elapsed().as_secs_f64());
    }
    n_values as f64 / best / 1e9
}

/// Smooth random maps through a ReLU: 512 rows of 16 units of 16×16.
fn made_up() -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut out = Vec::new();
    for _ in 0..512 * 16 {
        let bias: f32 = rng.random_range(-1.2..0.2);
        let mut map = vec![0f32; 18 * 18];
        map.iter_mut().for_each(|v| *v = rng.random_range(-1.5..1.5));
        for y in 1..17 {
            for x in 1..17 {
                let near = [0, 1, 18, 19].iter().map(|d| map[y * 18 + x - d]).sum::<f32>();
                out.push((near + bias).max(0.0));
            }
        }
    }
    out
}
