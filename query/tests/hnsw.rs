//! The HNSW index finds nearly all neighbours, is the same file each time, and damage in it is told and not met.

use std::sync::Arc;

use mistique_engine::{
    Code, IfExists, IntermediateKey, LogOptions, MemoryStorage, ModelKey, ModelSpec, Storage, Store, StoreOptions,
    TensorSpec,
};
use mistique_query::diagnostics::{Metric, Queries, knn, nearest_rows};
use mistique_query::{ChunkReader, QueryError, Request};

const WIDTH: usize = 24;

fn layer() -> IntermediateKey {
    ModelKey::new("p", "m").intermediate("t")
}

/// Vectors around a few centres.
fn vectors(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let centres: Vec<f32> = (0..16 * WIDTH).map(|_| random() * 4.0).collect();
    (0..n * WIDTH).map(|i| centres[i / WIDTH % 16 * WIDTH + i % WIDTH] + random()).collect()
}

fn log(store: &Store, rows: std::ops::Range<u64>, values: Vec<f32>) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t", &[WIDTH]).with_scheme("f32".parse().unwrap())).unwrap();
    log.append(handle, &rows.collect::<Vec<_>>(), values).unwrap();
    log.commit().unwrap();
}

fn store() -> (Arc<dyn Storage>, Store) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(None).unwrap());
    let store = Store::on(Arc::clone(&storage), true, StoreOptions::default()).unwrap();
    (storage, store)
}

fn bytes_of(storage: &Arc<dyn Storage>, path: &str) -> Vec<u8> {
    let file = storage.open(path).unwrap();
    file.read(0..file.len_bytes()).unwrap().into_owned()
}

#[test]
fn distances_are_those_of_the_values() {
    let (_, store) = store();
    log(&store, 0..300, vectors(300, 9));
    let reader = ChunkReader::new(&store);
    let whole = Request::new(reader.key(&layer()));
    for metric in [Metric::L2, Metric::Cosine] {
        reader.create_hnsw_index(&layer(), metric, false, &mut |_, _| {}).unwrap();
        let index = reader.neighbours(&layer(), metric, false).unwrap().unwrap();
        let queries = Queries::Rows(vec![3, 250]);
        let exact = knn(&reader, &whole, &queries, 300, metric).unwrap().queries;
        for (found, all) in index.of_queries(&reader, &whole, &queries, 10).unwrap().iter().zip(&exact) {
            assert_eq!(found.rows.len(), 10);
            assert!(found.rows.iter().all(|near| all.rows.contains(near)), "{metric:?}: {found:?}");
        }
    }
}

#[test]
fn neighbours_are_found() {
    let (storage, store) = store();
    let mut values = vectors(600, 3);
    values[7 * WIDTH] = f32::NAN;
    log(&store, 0..500, values[..500 * WIDTH].to_vec());
    let reader = ChunkReader::new(&store);
    for metric in [Metric::L2, Metric::Cosine] {
        assert!(reader.neighbours(&layer(), metric, false).unwrap().is_none());
        let made = reader.create_hnsw_index(&layer(), metric, false, &mut |_, _| {}).unwrap();
        assert!(made.recall > 0.98 && made.sample == (100, 10), "{made:?}");
        assert_eq!(made.index.param("rows").as_deref(), Some("499"));
        let first = bytes_of(&storage, &made.index.file);
        let again = reader.create_hnsw_index(&layer(), metric, false, &mut |_, _| {}).unwrap();
        let again = bytes_of(&storage, &again.index.file);
        // All but the number and the checksum over it.
        assert_eq!((&first[..16], &first[24..56], &first[64..]), (&again[..16], &again[24..56], &again[64..]));
    }
    assert_eq!(store.indexes(None).unwrap().len(), 2);
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().damage, []);
    // Rows that came later are found too.
    log(&store, 500..600, values[500 * WIDTH..].to_vec());
    for metric in [Metric::L2, Metric::Cosine] {
        let index = reader.neighbours(&layer(), metric, false).unwrap().unwrap();
        let (mut hits, mut wanted) = (0, 0);
        for query in [1usize, 50, 410, 550, 599] {
            let query = &values[query * WIDTH..][..WIDTH];
            let rows: Vec<u64> = (0..600).filter(|r| *r != 7).collect();
            let kept: Vec<f32> = rows.iter().flat_map(|r| values[*r as usize * WIDTH..][..WIDTH].to_vec()).collect();
            let exact = nearest_rows(&rows, &kept, query, 20, metric).unwrap();
            let found = index.nearest(query, 20).unwrap();
            assert_eq!(found.len(), 20);
            hits += found.iter().filter(|f| exact.iter().any(|e| e.0 == f.0)).count();
            wanted += exact.len();
            assert_eq!(found[0].0, exact[0].0);
            assert!((found[0].1 - exact[0].1).abs() < 1e-2);
        }
        assert!(hits * 100 >= wanted * 95, "{hits} of {wanted}");
        assert!(index.nearest(&[0.0; WIDTH], 10_000).unwrap().len() >= 200);
        assert!(matches!(index.nearest(&[0.0; 3], 1), Err(QueryError::Mismatch { .. })));
        assert!(matches!(index.nearest(&[f32::NAN; WIDTH], 1), Err(QueryError::Mismatch { .. })));
    }
}

#[test]
fn vectors_far_from_zero_and_of_any_size_are_told_apart() {
    for (offset, scale) in [(0.0, 1.0), (1e3, 1.0), (-1e4, 1.0), (0.0, 1e-6), (0.0, 1e6), (1e4, 1e4)] {
        let (_, store) = store();
        let near = vectors(600, 8);
        // One column far off would do as well as all of them.
        let values: Vec<f32> =
            near.iter().enumerate().map(|(i, v)| v * scale + if i % 3 == 0 { offset } else { 0.0 }).collect();
        log(&store, 0..600, values.clone());
        let reader = ChunkReader::new(&store);
        let made = reader.create_hnsw_index(&layer(), Metric::L2, false, &mut |_, _| {}).unwrap();
        let index = reader.neighbours(&layer(), Metric::L2, false).unwrap().unwrap();
        let rows: Vec<u64> = (0..600).collect();
        let mut hits = 0;
        for query in (0..600).step_by(30) {
            let query = &values[query * WIDTH..][..WIDTH];
            let exact = nearest_rows(&rows, &values, query, 10, Metric::L2).unwrap();
            let found = index.nearest(query, 10).unwrap();
            hits += found.iter().filter(|f| exact.iter().any(|e| e.0 == f.0)).count();
            assert!(
                (found[9].1 - exact[9].1).abs() <= 0.02 * exact[9].1,
                "{offset} {scale}: {:?} {:?}",
                found[9],
                exact[9]
            );
        }
        assert!(hits >= 190 && made.recall > 0.95, "{offset} {scale}: {hits} of 200, {made:?}");
    }
    // The share that is said to be found is of the values themselves: these differ in digits that f32 alone keeps.
    let (_, store) = store();
    let side = |i: usize| if (i / WIDTH).is_multiple_of(2) { 1.0 } else { -1.0 };
    log(&store, 0..600, vectors(600, 8).iter().enumerate().map(|(i, v)| side(i) + v * 1e-5).collect());
    let made = ChunkReader::new(&store).create_hnsw_index(&layer(), Metric::L2, false, &mut |_, _| {}).unwrap();
    assert!(made.recall < 0.9, "{made:?}");
}

#[test]
fn few_rows_and_what_cannot_be_indexed() {
    let (_, store) = store();
    log(&store, 5..6, vectors(1, 1));
    let reader = ChunkReader::new(&store);
    let made = reader.create_hnsw_index(&layer(), Metric::L2, false, &mut |_, _| {}).unwrap();
    assert_eq!((made.recall, made.sample), (1.0, (1, 0)));
    let index = reader.neighbours(&layer(), Metric::L2, false).unwrap().unwrap();
    assert_eq!(index.nearest(&[0.0; WIDTH], 3).unwrap().iter().map(|f| f.0).collect::<Vec<_>>(), [5]);
    let error = reader.create_hnsw_index(&layer(), Metric::Dot, false, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("no metric"), "{error}");
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let wide = TensorSpec { dtype: Code::F64, ..TensorSpec::new("wide", &[2]) };
    let handle = log.tensor(model, &wide.with_scheme("f64".parse().unwrap())).unwrap();
    let near: Vec<f64> = (0..40).map(|i| 1e9 + f64::from(i) / 8.0).collect();
    log.append(handle, &(0..20).collect::<Vec<_>>(), near.clone()).unwrap();
    log.commit().unwrap();
    let key = ModelKey::new("p", "m").intermediate("wide");
    let error = reader.create_hnsw_index(&key, Metric::L2, false, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("float64"), "{error}");
    // Exact neighbours are of all digits, of vectors as of rows.
    let request = Request::new("p.m.wide".parse().unwrap());
    let answer = knn(&reader, &request, &Queries::Vectors(near[14..16].to_vec()), 2, Metric::L2).unwrap();
    assert_eq!(answer.queries[0].rows[0], (7, 0.0));
}

#[test]
fn a_graph_that_names_points_that_are_not_there_is_refused() {
    let (storage, store) = store();
    log(&store, 0..200, vectors(200, 5));
    let reader = ChunkReader::new(&store);
    let made = reader.create_hnsw_index(&layer(), Metric::L2, false, &mut |_, _| {}).unwrap();
    let whole = bytes_of(&storage, &made.index.file);
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let n_sections = u64_at(&whole, 32);
    let directory = 64..64 + 24 * n_sections;
    for section in 1..n_sections {
        let mut bytes = whole.clone();
        let (start, len) = (u64_at(&bytes, 64 + 24 * section), u64_at(&bytes, 72 + 24 * section));
        // A number that fits nothing, under checksums that fit.
        bytes[start..start + 4].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[start..start + len]);
        bytes[80 + 24 * section..88 + 24 * section].copy_from_slice(&sum.to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&[&bytes[..56], &bytes[directory.clone()]].concat());
        bytes[56..64].copy_from_slice(&sum.to_le_bytes());
        storage.remove(&made.index.file).unwrap();
        let mut file = storage.create(&made.index.file).unwrap();
        file.append(&bytes).unwrap();
        file.finish().unwrap();
        let error = reader.neighbours(&layer(), Metric::L2, false).err().unwrap_or_else(|| panic!("section {section}"));
        assert!(error.to_string().contains("damaged"), "{section}: {error}");
    }
}
