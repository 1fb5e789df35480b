//! Index files: written once, checked by section, replaced and removed as a whole, damaged without harm; and read back by
//! a reader that knows FORMAT.md only.

mod common;

use std::sync::Arc;

use common::spec;
use mistique_engine::{
    ByExampleOf, ByExampleSize, EngineError, FaultMode, FaultyStorage, IfExists, IndexKind, IndexValues,
    IntermediateRecord, LogOptions, MapValue, MemoryStorage, ModelKey, ModelSpec, NewIndex, RowSet, Storage, Store,
    StoreOptions, by_example_index,
};

fn open(storage: &Arc<dyn Storage>) -> Store {
    Store::on(Arc::clone(storage), true, StoreOptions::default()).unwrap()
}

/// A store with one layer of three units.
fn layer(storage: &Arc<dyn Storage>) -> IntermediateRecord {
    let store = open(storage);
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[3], "f32")).unwrap();
    log.append(handle, &[4, 5, 6, 7], (0..12).map(|v| v as f32).collect::<Vec<f32>>()).unwrap();
    log.commit().unwrap();
    store.intermediate(&ModelKey::new("p", "m").intermediate("t")).unwrap()
}

const VALUES: [f32; 12] = [0.0, 1.0, f32::NAN, 0.0, -2.0, 5.0, 3.0, 1.5, 5.0, 0.0, 0.5, -1.0];

fn index(by: MapValue) -> NewIndex {
    let size = ByExampleSize { bits: 2, n_top: 1 };
    by_example_index(&[7, 4, 6, 5], &VALUES, 3, size, ByExampleOf { by, values: IndexValues::Exact }).unwrap()
}

fn files(storage: &Arc<dyn Storage>) -> Vec<String> {
    let mut names: Vec<String> = storage.list("indexes").unwrap().into_iter().map(|f| f.name).collect();
    names.sort();
    names
}

fn bytes_of(storage: &Arc<dyn Storage>, path: &str) -> Vec<u8> {
    let file = storage.open(path).unwrap();
    file.read(0..file.len_bytes()).unwrap().into_owned()
}

#[test]
fn an_index_is_what_the_document_says() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(None).unwrap());
    let record = layer(&storage);
    let store = open(&storage);
    let written = store.put_index(&record, &index(MapValue::Max)).unwrap();
    assert_eq!((written.id, &*written.kind, &*written.file), (1, "by-example", "indexes/0000000001.mqi"));
    let bytes = bytes_of(&storage, &written.file);
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let f32_at = |bytes: &[u8], at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((&bytes[..8], &bytes[8..11]), (&b"MISTIQI1"[..], &[mistique_engine::format::CURRENT as u8, 0, 1][..]));
    assert_eq!([16, 24, 32, 40].map(u64_at), [1, 4, 4, bytes.len() as u64]);
    assert_eq!(u64_at(56), xxhash_rust::xxh3::xxh3_64(&[&bytes[..56], &bytes[64..160]].concat()));
    let sections: Vec<&[u8]> = (0..4)
        .map(|s| {
            let (at, len) = (u64_at(64 + 24 * s) as usize, u64_at(72 + 24 * s) as usize);
            assert_eq!(u64_at(80 + 24 * s), xxhash_rust::xxh3::xxh3_64(&bytes[at..at + len]));
            &bytes[at..at + len]
        })
        .collect();
    assert_eq!(sections[0], RowSet::Range(4..8).to_bytes());
    assert_eq!(sections.iter().map(|s| s.len()).sum::<usize>() + 160, bytes.len());
    // Column 0 of rows 4 to 7: 0, 0, 3, 0. Zeros stand alone.
    let c = sections[1];
    assert_eq!(
        (&c[..8], [8, 12, 16, 20].map(|at| f32_at(c, at))),
        (&[2, 0, 2, 0, 1, 0, 0, 0][..], [0.0, 0.0, 3.0, 3.0])
    );
    assert_eq!((&c[24..28], f32_at(c, 28), &c[32..]), (&[2, 0, 0, 0][..], 3.0, &[0b01_0000][..]));
    // Column 2: 5, −1, 5, NaN; the fives are together, the NaN has the empty range.
    let c = sections[3];
    let bounds = [8, 12, 16, 20, 24, 28].map(|at| f32_at(c, at));
    assert_eq!(bounds, [-1.0, -1.0, 5.0, 5.0, f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!((&c[32..36], f32_at(c, 36), &c[40..]), (&[2, 0, 0, 0][..], 5.0, &[0b10_01_00_01][..]));
    let file = store.open_index(&written).unwrap();
    assert_eq!((file.rows(), file.n_sections()), (&RowSet::Range(4..8), 3));
    assert_eq!(file.by_example_column(2).unwrap().codes, [1, 0, 1, 2]);
    assert!(file.by_example_column(3).is_err());
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert_eq!((report.n_indexes, report.damage), (1, vec![]));
}

#[test]
fn indexes_are_replaced_dropped_and_go_with_their_model() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(None).unwrap());
    let record = layer(&storage);
    let store = open(&storage);
    for (by, names) in [
        (MapValue::Max, &["0000000001.mqi"][..]),
        (MapValue::Mean, &["0000000001.mqi", "0000000002.mqi"]),
        (MapValue::Max, &["0000000002.mqi", "0000000003.mqi"]),
    ] {
        store.put_index(&record, &index(by)).unwrap();
        assert_eq!(files(&storage), names);
    }
    let graph =
        NewIndex { kind: IndexKind::Hnsw, params: "{}".into(), rows: RowSet::Range(0..9), sections: vec![vec![1]] };
    store.put_index(&record, &graph).unwrap();
    let kinds: Vec<String> = store.indexes(Some(&record)).unwrap().into_iter().map(|i| i.kind).collect();
    assert_eq!(kinds, ["by-example", "by-example", "hnsw"]);
    assert_eq!(store.drop_index(2).unwrap().id, 2);
    assert!(matches!(store.drop_index(2), Err(EngineError::NotFound { what: "index", .. })));
    assert_eq!(files(&storage), ["0000000003.mqi", "0000000004.mqi"]);
    store.remove_model(&ModelKey::new("p", "m")).unwrap();
    assert_eq!(store.indexes(None).unwrap(), []);
    let freed = store.gc().unwrap().freed_bytes;
    assert_eq!((files(&storage).len(), freed > 100), (0, true));
    // A number is never used again.
    drop(store);
    let record = layer(&storage);
    let store = open(&storage);
    assert_eq!(store.put_index(&record, &index(MapValue::Max)).unwrap().id, 5);
    // Logging the layer anew drops what was known of the old one.
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    log.replace(model, "t").unwrap();
    let handle = log.tensor(model, &spec("t", &[3], "f32")).unwrap();
    log.append(handle, &[0], vec![1.0f32, 2.0, 3.0]).unwrap();
    log.commit().unwrap();
    drop(log);
    assert_eq!(store.indexes(None).unwrap(), []);
    drop(store);
    open(&storage);
    assert_eq!(files(&storage), [""; 0]);
}

#[test]
fn every_flipped_byte_is_seen() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(None).unwrap());
    let record = layer(&storage);
    let store = open(&storage);
    let written = store.put_index(&record, &index(MapValue::Max)).unwrap();
    let whole = bytes_of(&storage, &written.file);
    let rewrite = |bytes: &[u8]| {
        storage.remove(&written.file).unwrap();
        let mut file = storage.create(&written.file).unwrap();
        file.append(bytes).unwrap();
        file.finish().unwrap();
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        rewrite(&bytes);
        let report = store.verify(&mut |_, _| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "byte {at}");
        assert_eq!(
            (&*report.damage[0].place, &report.damage[0].keys[..]),
            (&*written.file, &["p.m.t".to_string()][..])
        );
        let read = store.open_index(&written).and_then(|f| (0..3).try_for_each(|c| f.by_example_column(c).map(drop)));
        assert!(matches!(read, Err(EngineError::Corrupt { .. } | EngineError::UnsupportedVersion { .. })), "byte {at}");
    }
    for len in [0, 10, 64, whole.len() - 1] {
        rewrite(&whole[..len]);
        assert!(store.open_index(&written).is_err());
    }
    rewrite(&whole);
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().damage, []);
}

#[test]
fn a_fault_at_any_operation_leaves_the_old_index_or_the_new_one() {
    for mode in [FaultMode::Once, FaultMode::Crash] {
        for fail_at in 0.. {
            let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(None).unwrap());
            let record = layer(&storage);
            let first = open(&storage).put_index(&record, &index(MapValue::Max)).unwrap();
            let faulty = Arc::new(FaultyStorage::new(Arc::clone(&storage), fail_at, mode));
            let done = Store::on(faulty.clone(), true, StoreOptions::default())
                .and_then(|store| store.put_index(&record, &index(MapValue::Max)));
            let store = open(&storage);
            let left = store.indexes(None).unwrap();
            let [index] = &left[..] else { panic!("{fail_at}: {left:?}") };
            match &done {
                Ok(new) => assert_eq!(index.id, new.id, "{fail_at}"),
                Err(_) => assert_eq!(*index, first, "{fail_at}"),
            }
            assert_eq!(files(&storage), [index.file.trim_start_matches("indexes/")], "{fail_at}");
            assert_eq!(store.verify(&mut |_, _| {}).unwrap().damage, []);
            if faulty.operations() <= fail_at {
                break;
            }
            assert!(mode == FaultMode::Once || done.is_err() || faulty.operations() > fail_at);
        }
    }
}
