//! What the tests of the store share: data of known values, and how it is logged and read.

#![allow(dead_code, reason = "every test file uses a part")]

pub mod parse;
mod parse_entropy;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch, StringArray};
use mistique_engine::{EngineError, IntermediateKey, ModelKey, Result, Rows, Store, TensorSpec};

/// Value `i` of a row. All of `VALUES`, whatever the row: so kbit(8) fits them exactly.
pub fn value(row: u64, i: usize) -> f32 {
    VALUES[(row as usize * 7 + i * 3 + i / 16) % 16]
}

pub const VALUES: [f32; 16] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.0, 1.0, 1.5, 0.0, 2.0, -1.0, 0.0, 3.0, 0.75];

pub fn batch(rows: &[u64], n: usize) -> Vec<f32> {
    rows.iter().flat_map(|&r| (0..n).map(move |i| value(r, i))).collect()
}

/// What a row of `shape` reads back as under `scheme`; the schemes are those whose codes need no sample, and kbit(8).
pub fn stored(row: u64, shape: &[usize], scheme: &str) -> Vec<f32> {
    let values = batch(&[row], shape.iter().product());
    match scheme {
        "f32" | "kbit(8)" => values,
        "f16" => values.into_iter().map(to_f16).collect(),
        "threshold(=0.5)" => values.into_iter().map(|x| f32::from(u8::from(x > 0.5))).collect(),
        "pool(2)+f16" => {
            let &[_, h, w] = shape else { panic!("maps have three sides") };
            let mut out = Vec::new();
            for map in values.chunks(h * w) {
                for (r, c) in (0..h).step_by(2).flat_map(|r| (0..w).step_by(2).map(move |c| (r, c))) {
                    let (r1, c1) = ((r + 2).min(h), (c + 2).min(w));
                    let column = |c: usize| (r..r1).map(|r| map[r * w + c]).sum::<f32>();
                    let sum: f32 = (c..c1).map(column).sum();
                    out.push(to_f16(sum * (1.0 / ((r1 - r) * (c1 - c)) as f32)));
                }
            }
            out
        }
        other => panic!("no expectation for {other}"),
    }
}

fn to_f16(x: f32) -> f32 {
    half::f16::from_f32(x).to_f32()
}

/// Rows of a table with text, nulls and numbers.
pub fn table(rows: &[u64]) -> RecordBatch {
    let text = rows.iter().map(|r| (r % 3 != 0).then(|| ["a", "", "ünï", "long text, stored once"][*r as usize % 4]));
    let columns: [(&str, ArrayRef); 4] = [
        ("text", Arc::new(StringArray::from_iter(text))),
        ("int", Arc::new(Int32Array::from_iter(rows.iter().map(|r| (r % 5 != 2).then_some(*r as i32 - 3))))),
        ("float", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| 1.0 / (*r as f64 + 1.0))))),
        ("flag", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| (r % 4 != 1).then_some(r % 2 == 0))))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()
}

pub fn spec(name: &str, shape: &[usize], scheme: &str) -> TensorSpec {
    TensorSpec::new(name, shape).with_scheme(scheme.parse().unwrap())
}

pub fn key(model: &str, intermediate: &str) -> IntermediateKey {
    ModelKey::new("p", model).intermediate(intermediate)
}

/// All stored columns of a tensor.
pub fn read_tensor(store: &Store, key: &IntermediateKey, rows: &Rows) -> Result<(Vec<u64>, Vec<f32>)> {
    let record = store.intermediate(key)?;
    let n = record.tensor()?.layout.stored_values();
    let plan = store.plan_rows(&record, rows)?;
    let mut out = vec![f32::NAN; plan.n_rows() * n];
    store.read_f32(&record, &plan, std::slice::from_ref(&(0..n)), &mut out)?;
    Ok((plan.rows.iter().collect(), out))
}

/// All columns of a table.
pub fn read_table(store: &Store, key: &IntermediateKey, rows: &Rows) -> Result<(Vec<u64>, RecordBatch)> {
    let record = store.intermediate(key)?;
    let mistique_engine::Content::Table(content) = &*record.content else { panic!("{key} is no table") };
    let plan = store.plan_rows(&record, rows)?;
    let columns: Vec<usize> = (0..content.schema.fields().len()).collect();
    Ok((plan.rows.iter().collect(), store.read_table(&record, &plan, &columns)?))
}

/// Text of everything that a read of an intermediate gives, so that two can be compared, NaN and −0 included.
pub fn fingerprint_of(store: &Store, key: &IntermediateKey) -> Result<String> {
    let record = store.intermediate(key)?;
    if record.tensor().is_ok() {
        let (rows, values) = read_tensor(store, key, &Rows::All)?;
        let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        return Ok(format!("{rows:?} {bits:x?}"));
    }
    let (rows, batch) = read_table(store, key, &Rows::All)?;
    Ok(format!("{rows:?} {batch:?}"))
}

/// Everything that is visible: what each intermediate reads as.
pub fn visible(store: &Store) -> Result<BTreeMap<String, String>> {
    let records = store.catalog().intermediates(None)?;
    records.iter().map(|r| Ok((r.key.to_string(), fingerprint_of(store, &r.key)?))).collect()
}

/// Rows of maps as ReLU leaves them: smooth, mostly zero, each unit of a scale and sparsity of its own.
pub fn relu_maps(n_rows: usize, units: usize, h: usize, w: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    let mut uniform = || numbers.below(1 << 24) as f32 / (1 << 24) as f32;
    let mut out = Vec::with_capacity(n_rows * units * h * w);
    for i in 0..n_rows * units {
        let unit = (i % units) as f32;
        let (fx, fy, phase, level) = (0.9 * uniform(), 0.9 * uniform(), 6.3 * uniform(), uniform());
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            let wave = (fx * x as f32 + fy * y as f32 + phase).sin();
            let value = (wave + 0.2 * uniform() - 0.3 - level - 0.05 * unit) * (1.0 + 0.25 * unit);
            out.push(value.max(0.0));
        }
    }
    out
}

pub fn damage(store: &Store) -> Vec<mistique_engine::Damage> {
    store.verify(&mut |_, _| {}).unwrap().damage
}

/// Files that the catalogue does not name, and files that it names in vain.
pub fn strays(store: &Store) -> Vec<String> {
    let storage = Arc::clone(store.storage());
    let files = |dir: &str| storage.list(dir).unwrap().into_iter().map(|f| f.name).collect::<Vec<_>>();
    let (partitions, operators) = {
        let catalog = store.catalog();
        let ids = catalog.partitions().unwrap().into_iter().map(|p| format!("{:010}.mqp", p.id));
        let hashes = catalog.operators().unwrap().into_iter().map(|o| mistique_engine::hex(&o.hash));
        (ids.collect::<Vec<_>>(), hashes.collect::<Vec<_>>())
    };
    let mut out = Vec::new();
    for (dir, named) in [("partitions", partitions), ("operators", operators)] {
        let there = files(dir);
        out.extend(there.iter().filter(|f| !named.contains(f)).map(|f| format!("{dir}/{f} is an orphan")));
        out.extend(named.iter().filter(|f| !there.contains(f)).map(|f| format!("{dir}/{f} is missing")));
    }
    out
}

/// Whether an error is one of those that damage may give.
pub fn names_damage(e: &EngineError) -> bool {
    matches!(
        e,
        EngineError::Corrupt { .. }
            | EngineError::UnsupportedVersion { .. }
            | EngineError::Io { .. }
            | EngineError::Catalog { .. }
            | EngineError::DamagedCatalog { .. }
            | EngineError::Quantize { .. }
            | EngineError::NoSuchRow { .. }
    )
}

/// A reproducible stream of numbers.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n.max(1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
