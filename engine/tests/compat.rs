//! Stores written by earlier versions stay readable: one fixture each, whose content a function knows.
//!
//! A fixture is written once, by `cargo test --release -p mistique-engine --test compat -- --ignored write_fixture`, and
//! never changed.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use common::{batch, damage, key, parse, read_table, read_tensor, relu_maps, spec, stored, table};
use mistique_engine::{
    DatasetSpec, Effort, FileInfo, IfExists, LocalStorage, LogOptions, ModelKey, ModelKind, ModelSpec, ReadFile, Rows,
    Storage, Store, StoreOptions, WriteFile, fingerprint, format,
};

const TENSORS: [(&str, &[usize], &str); 7] = [
    ("maps", &[3, 8, 9], "f32"),
    ("half", &[2, 8, 8], "f16"),
    ("pooled", &[2, 7, 6], "pool(2)+f16"),
    ("codes", &[16], "kbit(8)"),
    ("bits", &[33], "threshold(=0.5)"),
    ("vector", &[5], "f32"),
    ("scalar", &[], "f32"),
];
const RELU_ROWS: u64 = 40;
const OPERATOR: &[u8] = b"an operator";
const STAGE: [u8; 16] = *b"what computed it";
const HOMES: u64 = 900;

fn rows() -> Vec<u64> {
    (0..20).chain([1 << 33, 25, 24]).collect()
}

/// Values of two intermediates for which noise and repetition ask for encodings of their own.
fn noise() -> Vec<f32> {
    (0..200u32).map(|i| f32::from_bits(0x3F80_0000 | i.wrapping_mul(0x9E37_79B9) >> 9)).collect()
}

fn repeated() -> Vec<f32> {
    (0..1500).map(|i| ((i % 20 + 1) as f32).sqrt()).collect()
}

/// Maps whose chunks have several pages, and so tables that these share; their scheme, and the type of their codes.
const SHARED: [(&str, &str, u8); 5] = [
    ("relu-f32", "f32", 3),
    ("relu-f16", "f16", 1),
    ("relu-bf16", "bf16", 2),
    ("relu-codes", "kbit(8)", 24),
    ("relu-bits", "threshold(=0.5)", 0),
];

/// Their values: under `f32` as they are, else of 16 levels, so that every scheme of them is exact.
fn relu(scheme: &str) -> Vec<f32> {
    let values = relu_maps(RELU_ROWS as usize, 2, 15, 17, 3).into_iter();
    match scheme {
        "f32" => values.collect(),
        "threshold(=0.5)" => values.map(|x| f32::from(u8::from(x > 0.5))).collect(),
        _ => values.map(|x| (x * 8.0).ceil().min(15.0) / 8.0).collect(),
    }
}

fn fixture(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

fn m() -> ModelSpec {
    let key = ModelKey::new("p", "m").at("epoch-1");
    let dataset = DatasetSpec {
        name: "digits".into(),
        source: "file:digits.npy".into(),
        fingerprint: [9; 16],
        n_rows: 100,
        row_shape: vec![1, 28, 28],
    };
    let (kind, description) = (ModelKind::Network, "{\"layers\":[]}".to_string());
    ModelSpec { key, kind, description, weights: Some(fingerprint(OPERATOR)), dataset: Some(dataset) }
}

/// Writes the store that [`check`] expects.
fn build(path: &Path) {
    let store = Store::open_or_create(path).unwrap();
    store.put_operator(OPERATOR, "bytes").unwrap();
    // As logged, and as small as it gets, which is what compaction writes.
    for effort in [Effort::Fast, Effort::Small] {
        let mut log = store.logger(LogOptions::default().with_effort(effort)).unwrap();
        let mut spec_of = m();
        if effort == Effort::Small {
            // Other rows, or the chunks would be the same.
            spec_of = ModelSpec::raw(ModelKey::new("p", "small"));
        }
        let model = log.model(&spec_of, IfExists::Continue).unwrap();
        let rows: Vec<u64> = rows().into_iter().map(|r| r + u64::from(effort == Effort::Small)).collect();
        for (i, (name, shape, scheme)) in TENSORS.into_iter().enumerate() {
            let handle = log.tensor(model, &spec(name, shape, scheme).at(i as i64)).unwrap();
            for part in rows.chunks(9) {
                log.append(handle, part, batch(part, shape.iter().product())).unwrap();
            }
        }
        let handle = log.table(model, "table", 9, &table(&[]).schema()).unwrap();
        log.append_table(handle, &rows, &table(&rows)).unwrap();
        for (name, values) in [("noise", noise()), ("repeated", repeated()), ("constant", vec![1.5; 50])] {
            let handle = log.tensor(model, &spec(name, &[1, 1, values.len()], "f32")).unwrap();
            let of_effort = |x: &f32| if effort == Effort::Small { -x } else { *x };
            log.append(handle, &[9, 3], values.iter().chain(&values).map(of_effort).collect::<Vec<f32>>()).unwrap();
        }
        if effort == Effort::Small {
            for (name, scheme, _) in SHARED {
                let handle = log.tensor(model, &spec(name, &[2, 15, 17], scheme)).unwrap();
                log.append(handle, &(0..RELU_ROWS).collect::<Vec<_>>(), relu(scheme)).unwrap();
            }
        }
        log.complete(model).unwrap();
        log.commit().unwrap();
    }
    // Since version 2: columns by pco and against others, validity in few bytes, linked stages.
    let mut log = store.logger(LogOptions::default()).unwrap();
    for (name, fill) in [("raw", None), ("filled", Some(512.5))] {
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", name)), IfExists::Continue).unwrap();
        if !log.link_stage(model, "stage", 1, &STAGE).unwrap() {
            let values = homes(None);
            let handle = log.table(model, "stage", 1, &values.schema()).unwrap();
            log.append_table(handle, &(0..HOMES).collect::<Vec<_>>(), &values).unwrap();
            log.set_stage(handle, &STAGE).unwrap();
        }
        if fill.is_some() {
            let values = homes(fill);
            let handle = log.table(model, "made", 2, &values.schema()).unwrap();
            log.append_table(handle, &(0..HOMES).collect::<Vec<_>>(), &values).unwrap();
        }
        log.complete(model).unwrap();
    }
    log.commit().unwrap();
}

/// Columns of homes, or what a pipeline makes of them.
fn homes(fill: Option<f64>) -> RecordBatch {
    let mut numbers = common::Numbers::new(17);
    let amount: Vec<Option<f64>> =
        (0..HOMES).map(|_| (numbers.below(4) > 0).then(|| numbers.below(3_000_000) as f64)).collect();
    let rounded: Vec<f64> = (0..HOMES).map(|_| numbers.below(9000) as f64 / 1e4).collect();
    let names = ["amount", if fill.is_some() { "scaled" } else { "rounded" }, "near"];
    let columns: Vec<ArrayRef> = match fill {
        None => vec![Arc::new(Float64Array::from(amount)), Arc::new(Float64Array::from(rounded))],
        Some(fill) => {
            let filled = amount.iter().map(|x| x.unwrap_or(fill));
            let scaled = amount.iter().map(|x| x.map(|x| (x - 1_499_003.5) / 866_001.25));
            let near = rounded.iter().enumerate().map(|(i, x)| ((x * 1e4).round() + (i % 4) as f64) / 1e4);
            vec![
                Arc::new(Float64Array::from_iter_values(filled)),
                Arc::new(Float64Array::from_iter(scaled)),
                Arc::new(Float64Array::from_iter_values(near)),
            ]
        }
    };
    RecordBatch::try_from_iter_with_nullable(names.into_iter().zip(columns).map(|(n, c)| (n, c, true))).unwrap()
}

fn check(path: &Path, version: u16) {
    let store = Store::open(path).unwrap();
    let models = store.models().unwrap();
    assert_eq!(models[0].spec, m());
    assert!(models.iter().all(|m| m.complete && m.created > 0));
    assert_eq!(store.operator(&fingerprint(OPERATOR)).unwrap(), OPERATOR);
    assert_eq!(damage(&store), []);
    for (key_of, shift, sign) in [("m", 0, 1.0), ("small", 1, -1.0)] {
        let mut rows: Vec<u64> = rows().into_iter().map(|r| r + shift).collect();
        for (position, (name, shape, scheme)) in TENSORS.into_iter().enumerate() {
            let record = store.intermediate(&key(key_of, name)).unwrap();
            assert_eq!((record.position, record.tensor().unwrap().shape.as_slice()), (position as i64, shape));
            assert_eq!(record.tensor().unwrap().scheme, scheme.parse().unwrap());
            // In the order asked for, and in the order of rows.
            for sorted in [false, true] {
                let request = if sorted { Rows::All } else { Rows::List(rows.clone()) };
                let mut want = rows.clone();
                if sorted {
                    want.sort_unstable();
                }
                let values: Vec<f32> = want.iter().flat_map(|&r| stored(r, shape, scheme)).collect();
                assert!(read_tensor(&store, &record.key, &request).unwrap() == (want, values), "{}", record.key);
            }
        }
        rows.sort_unstable();
        assert!(read_table(&store, &key(key_of, "table"), &Rows::All).unwrap() == (rows.clone(), table(&rows)));
        for (name, values) in [("noise", noise()), ("repeated", repeated()), ("constant", vec![1.5; 50])] {
            let values = values.iter().chain(&values).map(|x| x * sign).collect();
            assert!(read_tensor(&store, &key(key_of, name), &Rows::All).unwrap() == (vec![3, 9], values), "{name}");
        }
    }
    for (name, scheme, _) in SHARED {
        let want = ((0..RELU_ROWS).collect(), relu(scheme));
        assert!(read_tensor(&store, &key("small", name), &Rows::All).unwrap() == want, "{name}");
    }
    let partitions: Vec<u64> = store.catalog().partitions().unwrap().into_iter().map(|p| p.id).collect();
    let (mut encodings, mut shared, mut forms) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    if version > 1 {
        for (key_of, fill) in
            [(key("raw", "stage"), None), (key("filled", "stage"), None), (key("filled", "made"), Some(512.5))]
        {
            let want = ((0..HOMES).collect(), homes(fill));
            assert!(read_table(&store, &key_of, &Rows::All).unwrap() == want, "{key_of}");
        }
        let [raw, filled] = ["raw", "filled"].map(|name| store.intermediate(&key(name, "stage")).unwrap());
        assert_eq!((raw.stage, raw.linked, filled.stage, filled.linked), (Some(STAGE), false, Some(STAGE), true));
    }
    for id in partitions {
        let bytes = fs::read(path.join(format!("partitions/{id:010}.mqp"))).unwrap();
        for chunk in parse::partition(&bytes).chunks {
            forms.extend(chunk.pages.iter().map(|p| p.form));
            // The second reader agrees, byte for byte.
            assert_eq!(chunk.hash, chunk.content_hash());
            encodings.extend(chunk.pages.iter().map(|p| p.encoding));
            if chunk.pages.iter().any(|p| p.encoding == 7) {
                assert!(!chunk.tables.is_empty());
                shared.insert(chunk.code);
            }
        }
    }
    // Plain, Constant, Packed, Sparse, Entropy, Zstd, ShuffledZstd, Shared; Pco, which has taken the place of ShuffledZstd,
    // Against; Decimal.
    let (all, all_forms): (&[u8], &[u8]) = match version {
        1 => (&[0, 1, 2, 3, 4, 5, 6, 7], &[0]),
        2 => (&[0, 1, 2, 3, 4, 5, 7, 8, 9], &[0, 2]),
        _ => (&[0, 1, 2, 3, 4, 5, 7, 8, 9, 10], &[0, 2]),
    };
    assert_eq!(encodings, all.iter().copied().collect());
    assert_eq!(forms, all_forms.iter().copied().collect());
    // The types of code of which pages are Shared.
    assert!(shared.is_superset(&SHARED.map(|(_, _, code)| code).into()), "{shared:?}");
}

fn copy(from: &Path, to: &Path) -> u64 {
    fs::create_dir_all(to).unwrap();
    let mut bytes = 0;
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        bytes += match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).unwrap(),
        };
    }
    bytes
}

#[test]
fn every_readable_version_reads() {
    for version in format::OLDEST_READABLE..=format::CURRENT {
        let dir = tempfile::tempdir().unwrap();
        let bytes = copy(&fixture(version), dir.path());
        assert!(bytes < 150_000, "{bytes} bytes are much for a repository");
        let header = fs::read(fixture(version).join("partitions/0000000001.mqp")).unwrap();
        assert_eq!(header[8..10], version.to_le_bytes());
        check(dir.path(), version);
        // It can be written on, too.
        let store = Store::open(dir.path()).unwrap();
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&m(), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("codes", &[16], "kbit(8)")).unwrap();
        log.append(handle, &[77], batch(&[77], 16)).unwrap();
        log.commit().unwrap();
        drop(log);
        store.compact(&mut |_, _| {}).unwrap();
        assert_eq!(read_tensor(&store, &key("m", "codes"), &Rows::List(vec![77])).unwrap().1, batch(&[77], 16));
        assert_eq!(damage(&store), []);
    }
}

#[test]
fn what_is_written_today_reads_alike() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    check(dir.path(), format::CURRENT);
}

#[test]
#[ignore = "writes the fixture of the current version; for a new format version, once it is final"]
fn write_fixture() {
    let path = fixture(format::CURRENT);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    build(&path);
    let catalog = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
    // Into one file, and a small one; opening makes it WAL again.
    catalog.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA page_size = 1024; VACUUM;").unwrap();
    drop(catalog);
    fs::remove_file(path.join("writer.lock")).unwrap();
    let copied = tempfile::tempdir().unwrap();
    copy(&path, copied.path());
    check(copied.path(), format::CURRENT);
}

#[test]
fn an_older_catalogue_is_brought_up_to_date_and_read_where_it_cannot_be() {
    let version = |path: &Path| -> i64 {
        let catalog = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
        catalog.query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |r| r.get(0)).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(1), dir.path());
    assert_eq!(version(dir.path()), 1);
    // As on media that cannot be written: the file stays as it is, and is read all the same.
    let before = fs::read(dir.path().join("catalog.db")).unwrap();
    let storage = ReadOnly(LocalStorage::existing(dir.path()).unwrap(), 1 << 30);
    let store = Store::on(Arc::new(storage), false, StoreOptions::default()).unwrap();
    assert_eq!(store.models().unwrap()[0].spec, m());
    let rows = Rows::List(vec![3]);
    assert_eq!(read_tensor(&store, &key("m", "vector"), &rows).unwrap().1, stored(3, &[5], "f32"));
    drop(store);
    assert!(fs::read(dir.path().join("catalog.db")).unwrap() == before);
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(version(dir.path()), format::CATALOG_VERSION);
}

#[test]
fn a_store_that_only_reads_says_why_it_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(1), dir.path());
    for (free, want) in [(1 << 30, "check that its folder can be written"), (0, "no space is left on the disk")] {
        let storage = ReadOnly(LocalStorage::existing(dir.path()).unwrap(), free);
        let store = Store::on(Arc::new(storage), false, StoreOptions::default()).unwrap();
        for refused in [store.gc().map(drop), store.remove_model(&m().key), store.compact(&mut |_, _| {}).map(drop)] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("can be read, but not written") && said.contains(want), "{said}");
        }
        assert_eq!(store.models().unwrap()[0].spec, m(), "it can be read all the same");
    }
}

/// A storage whose catalogue only reads, with so many bytes free.
struct ReadOnly(LocalStorage, u64);

impl Storage for ReadOnly {
    fn create(&self, path: &str) -> mistique_engine::Result<Box<dyn WriteFile>> {
        self.0.create(path)
    }
    fn open(&self, path: &str) -> mistique_engine::Result<Arc<dyn ReadFile>> {
        self.0.open(path)
    }
    fn list(&self, dir: &str) -> mistique_engine::Result<Vec<FileInfo>> {
        self.0.list(dir)
    }
    fn remove(&self, path: &str) -> mistique_engine::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> mistique_engine::Result<()> {
        self.0.sync_dir(dir)
    }
    fn free_bytes(&self) -> mistique_engine::Result<Option<u64>> {
        Ok(Some(self.1))
    }
    fn open_catalog(&self) -> mistique_engine::Result<rusqlite::Connection> {
        Ok(self.0.open_catalog_read_only()?.unwrap())
    }
    fn open_catalog_read_only(&self) -> mistique_engine::Result<Option<rusqlite::Connection>> {
        self.0.open_catalog_read_only()
    }
    fn lock_writer(&self) -> mistique_engine::Result<Box<dyn Send + Sync>> {
        self.0.lock_writer()
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}
