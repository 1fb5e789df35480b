//! Columns coded against similar ones: found, read alone, kept alive, counted, and checked.

mod common;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use common::{Numbers, damage, key, names_damage, parse, read_table, visible};
use mistique_engine::{
    Dedup, EngineError, IfExists, LogOptions, LogReport, MemoryStorage, ModelKey, ModelSpec, Rows, Storage, Store,
    StoreOptions,
};

const N: usize = 20_000;

fn memory() -> (MemoryStorage, Store) {
    let storage = MemoryStorage::new(None).unwrap();
    let store = Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    (storage, store)
}

/// Columns as a housing table has them: amounts with nulls, numbers with decimals, few words, flags.
struct Table {
    amount: Vec<Option<f64>>,
    ratio: Vec<f64>,
    word: Vec<Option<&'static str>>,
}

fn table() -> Table {
    let mut numbers = Numbers::new(7);
    let mut amount = Vec::new();
    let mut ratio = Vec::new();
    let mut word = Vec::new();
    for _ in 0..N {
        amount.push((numbers.below(5) > 0).then(|| 1000.0 + numbers.below(3_000_000) as f64));
        ratio.push(numbers.below(1 << 40) as f64 / 1e9);
        word.push(
            (numbers.below(9) > 0).then(|| ["a", "bb", "ccc", "residential", "industrial"][numbers.below(5) as usize]),
        );
    }
    Table { amount, ratio, word }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn original(t: &Table) -> RecordBatch {
    batch(vec![
        ("amount", Arc::new(Float64Array::from(t.amount.clone()))),
        ("ratio", Arc::new(Float64Array::from(t.ratio.clone()))),
        ("word", Arc::new(StringArray::from(t.word.clone()))),
    ])
}

/// What pipelines make of it: nulls filled, scaled, cast, rounded, a word for nulls, one-hot.
fn derived(t: &Table) -> RecordBatch {
    let filled = |with: f64| t.amount.iter().map(move |x| x.unwrap_or(with));
    batch(vec![
        ("amount", Arc::new(Float64Array::from_iter_values(filled(1_483_211.25)))),
        ("median", Arc::new(Float64Array::from_iter_values(filled(1_500_000.0)))),
        ("scaled", Arc::new(Float64Array::from_iter_values(filled(0.0).map(|x| (x - 1_201_333.7) / 812_444.1)))),
        ("cast", Arc::new(Int64Array::from_iter(t.amount.iter().map(|x| x.map(|x| x as i64))))),
        ("ratio", Arc::new(Float64Array::from_iter_values(t.ratio.iter().map(|x| if *x > 1099.0 { 0.0 } else { *x })))),
        ("word", Arc::new(StringArray::from_iter_values(t.word.iter().map(|w| w.unwrap_or("zzz"))))),
        ("is_a", Arc::new(BooleanArray::from_iter(t.word.iter().map(|w| Some(*w == Some("a")))))),
    ])
}

fn log(store: &Store, model: &str, batch: &RecordBatch, dedup: Dedup) -> LogReport {
    let mut log = store.logger(LogOptions::default().with_dedup(dedup)).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", model)), IfExists::Continue).unwrap();
    let handle = log.table(model, "t", 0, &batch.schema()).unwrap();
    let rows: Vec<u64> = (0..batch.num_rows() as u64).collect();
    // Odd batches: RowBlocks are cut the same all the same.
    for (at, rows) in rows.chunks(3001).enumerate() {
        log.append_table(handle, rows, &batch.slice(at * 3001, rows.len())).unwrap();
    }
    log.commit().unwrap()
}

fn assert_reads(store: &Store, model: &str, want: &RecordBatch) {
    let (rows, got) = read_table(store, &key(model, "t"), &Rows::All).unwrap();
    assert_eq!(rows.len(), want.num_rows());
    assert!(got == *want, "{model} reads as something else");
    let some = vec![19_999, 0, 8191, 8192, 5, 5];
    let (_, got) = read_table(store, &key(model, "t"), &Rows::List(some.clone())).unwrap();
    let index = arrow::array::UInt64Array::from(some);
    assert!(got == arrow::compute::take_record_batch(want, &index).unwrap());
}

#[test]
fn derived_columns_cost_their_difference_and_read_the_same() {
    let t = table();
    let mut written = Vec::new();
    for dedup in [Dedup::Off, Dedup::Exact, Dedup::Approximate] {
        let (_, store) = memory();
        let first = log(&store, "a", &original(&t), dedup);
        let second = log(&store, "b", &derived(&t), dedup);
        // The same again, in another version.
        let third = log(&store, "c", &derived(&t), dedup);
        for (name, want) in [("a", original(&t)), ("b", derived(&t)), ("c", derived(&t))] {
            assert_reads(&store, name, &want);
            store.clear_pool();
            assert_reads(&store, name, &want);
        }
        assert_eq!(damage(&store), []);
        assert_eq!(third.written_bytes == 0, dedup != Dedup::Off, "{dedup}");
        assert_eq!(second.similar_chunks > 0, dedup == Dedup::Approximate, "{dedup}");
        let before = visible(&store).unwrap();
        store.compact(&mut |_, _| {}).unwrap();
        assert!(visible(&store).unwrap() == before);
        assert_eq!(damage(&store), []);
        assert_eq!(store.stats().unwrap().n_similar, second.similar_chunks, "what pays stays");
        written.push((first.written_bytes, second.written_bytes));
        assert!(first.search_ns > 0 && first.work_ns >= first.search_ns);
    }
    let [off, exact, approximate] = written[..] else { panic!() };
    // The first table has nothing to be like.
    assert_eq!((off.0, exact.0), (exact.0, approximate.0));
    assert!(exact.1 <= off.1);
    println!("derived columns: exact {} bytes, approximate {}", exact.1, approximate.1);
    assert!(approximate.1 * 4 < exact.1, "{} of {}", approximate.1, exact.1);
}

#[test]
fn a_column_that_differs_in_one_row_block_shares_the_rest() {
    let t = table();
    let (_, store) = memory();
    for dedup in [Dedup::Exact, Dedup::Approximate] {
        let name = format!("a-{dedup}");
        log(&store, &name, &original(&t), dedup);
        let mut changed = table();
        changed.amount[10_000] = if t.amount[10_000].is_some() { None } else { Some(1.0) };
        changed.word[10_000] = if t.word[10_000] == Some("a") { None } else { Some("a") };
        let report = log(&store, &format!("b-{dedup}"), &original(&changed), dedup);
        // Three RowBlocks of three columns; validity and dictionary are part of the content. The second time all is there.
        let want = if dedup == Dedup::Exact { (2, 7) } else { (0, 9) };
        assert_eq!((report.new_chunks, report.duplicate_chunks), want, "{dedup}");
        assert_reads(&store, &format!("b-{dedup}"), &original(&changed));
    }
    // Nulls alone make a difference.
    let zeros = batch(vec![("x", Arc::new(Int64Array::from(vec![Some(0), Some(0), Some(1)])))]);
    let nulls = batch(vec![("x", Arc::new(Int64Array::from(vec![Some(0), None, Some(1)])))]);
    for (name, values) in [("zeros", &zeros), ("nulls", &nulls)] {
        assert_eq!(log(&store, name, values, Dedup::Approximate).new_chunks, 1);
        assert_eq!(read_table(&store, &key(name, "t"), &Rows::All).unwrap().1, *values);
    }
    // So do words, which have the same codes.
    for word in ["x", "y"] {
        let values = batch(vec![("x", Arc::new(StringArray::from(vec![word; 3])))]);
        assert_eq!(log(&store, word, &values, Dedup::Approximate).new_chunks, 1);
        assert_eq!(read_table(&store, &key(word, "t"), &Rows::All).unwrap().1, values);
    }
}

#[test]
fn a_base_lives_as_long_as_what_is_coded_against_it() {
    let t = table();
    let (_, store) = memory();
    log(&store, "a", &original(&t), Dedup::Approximate);
    log(&store, "b", &derived(&t), Dedup::Approximate);
    log(&store, "c", &derived(&t), Dedup::Approximate);
    let n_similar = store.stats().unwrap().n_similar;
    assert!(n_similar > 6);
    store.remove_model(&ModelKey::new("p", "a")).unwrap();
    store.gc().unwrap();
    for compacted in [false, true] {
        if compacted {
            store.compact(&mut |_, _| {}).unwrap();
        }
        assert_reads(&store, "b", &derived(&t));
        assert_eq!(damage(&store), []);
        let stats = store.stats().unwrap();
        assert_eq!((stats.n_similar, stats.garbage_bytes), (n_similar, 0));
        // One level deep, and every base is there.
        let chunks = store.catalog().chunks().unwrap();
        for base in chunks.iter().filter_map(|c| c.place.base) {
            let base = chunks.iter().find(|c| c.id == base.id).unwrap();
            assert!(base.place.base.is_none());
        }
    }
    for name in ["b", "c"] {
        store.remove_model(&ModelKey::new("p", name)).unwrap();
    }
    store.gc().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.n_chunks, stats.partition_bytes), (0, 0));
    // Nothing is found that is gone.
    let report = log(&store, "d", &derived(&t), Dedup::Approximate);
    assert!(report.new_chunks > 0);
    assert_reads(&store, "d", &derived(&t));
    assert_eq!(damage(&store), []);
}

/// S(i) by hand: X has the base alone; Y and Z refer to one chunk coded against it, Z twice.
#[test]
fn the_amortised_size_counts_bases() {
    let (_, store) = memory();
    let mut numbers = Numbers::new(3);
    let base: Vec<f64> = (0..4000).map(|_| numbers.below(1 << 50) as f64 / 1024.0).collect();
    let near: Vec<f64> = base.iter().enumerate().map(|(i, x)| if i % 50 == 0 { 0.5 } else { *x }).collect();
    let column = |x: &[f64]| -> ArrayRef { Arc::new(Float64Array::from(x.to_vec())) };
    log(&store, "x", &batch(vec![("v", column(&base))]), Dedup::Approximate);
    let report = log(&store, "y", &batch(vec![("v", column(&near))]), Dedup::Approximate);
    assert_eq!((report.new_chunks, report.similar_chunks), (1, 1));
    log(&store, "z", &batch(vec![("v", column(&near)), ("w", column(&near))]), Dedup::Approximate);
    let chunks = store.catalog().chunks().unwrap();
    assert_eq!(chunks.len(), 2);
    let b = chunks.iter().find(|c| c.place.base.is_none()).unwrap().place.len;
    let d = chunks.iter().find(|c| c.place.base.is_some()).unwrap().place.len;
    let stats = store.stats().unwrap();
    // Of the base: one reference of X, one through Y, two through Z.
    let (b_share, d_share) = (b as f64 / 4.0, d as f64 / 3.0);
    let want = [b_share, d_share + b_share, 2.0 * (d_share + b_share)];
    for (i, want) in stats.intermediates.iter().zip(want) {
        assert!((i.stored_bytes - want).abs() < 1e-9, "{}: {} is not {want}", i.record.key, i.stored_bytes);
        // What a byte budget is shared by is the same.
        let sizes = store.group_sizes(std::slice::from_ref(&i.record)).unwrap();
        let bytes: f64 = sizes[&i.record.id].iter().map(|s| s.stored_bytes).sum();
        assert!((bytes - want).abs() < 1e-9, "{}: {bytes} is not {want}", i.record.key);
    }
    assert_eq!((stats.chunk_bytes, stats.garbage_bytes), (b + d, 0));
    let saved: Vec<(u64, u64)> = stats.intermediates.iter().map(|i| (i.saved.exact, i.saved.similar)).collect();
    assert_eq!(saved, [(0, 0), (0, report.similar_saved_bytes), (2 * d, 0)]);
    assert_eq!(stats.dedup_saved_bytes, 2 * d);
    assert!(report.similar_saved_bytes > d, "coding against the base pays");
    // A base stays as long as something is coded against it, and is counted there.
    store.remove_model(&ModelKey::new("p", "x")).unwrap();
    store.gc().unwrap();
    let records = store.catalog().intermediates(None).unwrap();
    let all: f64 = store.group_sizes(&records).unwrap().values().flatten().map(|s| s.stored_bytes).sum();
    assert_eq!((all.round() as u64, store.stats().unwrap().chunk_bytes), (b + d, b + d));
}

#[test]
fn the_second_reader_reads_what_is_coded_against_another() {
    let t = table();
    let (storage, store) = memory();
    log(&store, "a", &original(&t), Dedup::Approximate);
    log(&store, "b", &derived(&t), Dedup::Approximate);
    let bytes = |id: u64| {
        let file = storage.open(&format!("partitions/{id:010}.mqp")).unwrap();
        file.read(0..file.len_bytes()).unwrap().into_owned()
    };
    let first = parse::partition(&bytes(1));
    let second = parse::partition_with(&bytes(2), &first.chunks);
    assert!(first.chunks.iter().all(|c| c.base.is_none() && c.hash == c.content_hash()));
    assert!(second.chunks.iter().filter(|c| c.base.is_some()).count() > 6);
    assert!(second.chunks.iter().all(|c| c.hash == c.content_hash()));
    let used = |encoding: u8| second.chunks.iter().any(|c| c.pages.iter().any(|p| p.encoding == encoding));
    assert!(used(9));
    let form = |n: u8| [&first, &second].iter().any(|p| p.chunks.iter().any(|c| c.pages.iter().any(|p| p.form == n)));
    assert!(form(0) && form(1) && form(2), "validity as it is, coded, and of the base");
    let pco = first.chunks.iter().any(|c| c.pages.iter().any(|p| p.encoding == 8));
    assert!(pco, "no column is a pco stream");
}

#[test]
fn damage_of_base_or_difference_is_seen() {
    let t = table();
    let (storage, store) = memory();
    log(&store, "a", &original(&t), Dedup::Approximate);
    log(&store, "b", &derived(&t), Dedup::Approximate);
    drop(store);
    let open = |storage: &MemoryStorage| Store::on(Arc::new(storage.clone()), false, StoreOptions::default()).unwrap();
    let good = visible(&open(&storage)).unwrap();
    for (sql, wrong) in [
        ("UPDATE chunks SET base_id = NULL", true),
        ("UPDATE chunks SET base_id = (SELECT min(id) FROM chunks) WHERE base_id IS NOT NULL", true),
        ("UPDATE chunks SET base_id = 1 WHERE base_id IS NULL", true),
        ("UPDATE chunks SET base_id = 100000 WHERE base_id IS NOT NULL", true),
        ("UPDATE chunks SET base_id = id WHERE base_id IS NOT NULL", true),
        ("UPDATE chunks SET hash = randomblob(16) WHERE base_id IS NULL", true),
        // They serve writing alone.
        ("DELETE FROM lsh", false),
        ("UPDATE lsh SET chunk_id = chunk_id + 100000", false),
    ] {
        let raw = storage.open_catalog().unwrap();
        raw.execute_batch("PRAGMA foreign_keys = OFF; SAVEPOINT all_good").unwrap();
        raw.execute_batch(&format!("CREATE TEMP TABLE c AS SELECT * FROM chunks; {sql}; RELEASE all_good")).unwrap();
        let store = open(&storage);
        let failed: Vec<EngineError> =
            good.keys().filter_map(|k| common::fingerprint_of(&store, &k.parse().unwrap()).err()).collect();
        assert_eq!(!failed.is_empty(), wrong, "{sql}");
        assert!(failed.iter().all(names_damage), "{sql}: {failed:?}");
        let seen = store.verify(&mut |_, _| {}).map_or(true, |report| !report.damage.is_empty());
        assert_eq!(seen, wrong, "{sql}: verify");
        drop(store);
        raw.execute_batch("DELETE FROM chunks; INSERT INTO chunks SELECT * FROM temp.c; DROP TABLE temp.c").unwrap();
    }
    assert!(visible(&open(&storage)).unwrap() == good);
    // A bit of the base's file: what is coded against it does not read, or reads as it was.
    let path = "partitions/0000000001.mqp";
    let len = storage.open(path).unwrap().len_bytes();
    let mut numbers = Numbers::new(1);
    let mut seen = 0;
    for _ in 0..60 {
        let (at, bit) = (numbers.below(len) as usize, 1u8 << numbers.below(8));
        storage.damage(path, |bytes| bytes[at] ^= bit);
        let store = open(&storage);
        for (name, want) in &good {
            match common::fingerprint_of(&store, &name.parse().unwrap()) {
                Ok(got) => assert!(got == *want, "byte {at}: {name} reads as something else"),
                Err(e) => {
                    assert!(names_damage(&e), "{e}");
                    seen += u64::from(name.starts_with("p.b"));
                }
            }
        }
        assert!(!damage(&store).is_empty(), "byte {at}: verify finds nothing");
        storage.damage(path, |bytes| bytes[at] ^= bit);
    }
    assert!(seen > 20);
}

#[test]
fn unlike_and_small_columns_are_stored_alone() {
    let (_, store) = memory();
    let mut numbers = Numbers::new(11);
    let noise = |numbers: &mut Numbers| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..9000).map(|_| numbers.below(1 << 52) as f64)))
    };
    let small: ArrayRef = Arc::new(Int64Array::from_iter_values((0..9000).map(|i| i / 4000)));
    for name in ["a", "b"] {
        // The same name and rows: tried, and declined.
        let report =
            log(&store, name, &batch(vec![("noise", noise(&mut numbers)), ("few", small.clone())]), Dedup::Approximate);
        assert_eq!(report.similar_chunks, 0);
    }
    assert_eq!(store.stats().unwrap().saved.similar, 0);
    let empty = batch(vec![("x", Arc::new(Float64Array::from(Vec::<f64>::new())))]);
    assert_eq!(log(&store, "empty", &empty, Dedup::Approximate).new_chunks, 0);
    let nulls = batch(vec![("x", Arc::new(Float64Array::from(vec![None::<f64>; 5000])))]);
    log(&store, "nulls", &nulls, Dedup::Approximate);
    assert_eq!(read_table(&store, &key("nulls", "t"), &Rows::All).unwrap().1.column(0).null_count(), 5000);
}

#[test]
fn columns_passed_on_are_stored_once_and_memory_used_again_is_not_taken_for_them() {
    let (_, store) = memory();
    let t = table();
    let whole = original(&t);
    let rows: Vec<u64> = (0..N as u64).collect();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    // As it is, some of its columns as they lie, and copies of all: one content.
    let some = whole.project(&[2, 0]).unwrap();
    let copies = original(&t);
    for (i, (name, batch)) in [("whole", &whole), ("some", &some), ("copies", &copies)].into_iter().enumerate() {
        let handle = log.table(model, name, i as i64, &batch.schema()).unwrap();
        log.append_table(handle, &rows, batch).unwrap();
    }
    let first = log.commit().unwrap();
    let n_blocks = (N as u64).div_ceil(8192);
    assert_eq!((first.new_chunks, first.duplicate_chunks), (3 * n_blocks, 5 * n_blocks));
    assert!(first.saved_bytes > first.written_bytes);
    // Arrays that come and go, likely at one address.
    let fleeting = |k: usize| {
        let values = (0..8192).map(|i| ((i * 7919 + k * 104_729) % 1_000_003) as f64);
        batch(vec![("x", Arc::new(Float64Array::from_iter_values(values)) as ArrayRef)])
    };
    for k in 0..30 {
        let handle = log.table(model, &format!("f{k}"), 10 + k as i64, &fleeting(0).schema()).unwrap();
        log.append_table(handle, &rows[..8192], &fleeting(k)).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    for (name, want) in [("whole", &whole), ("some", &some), ("copies", &copies)] {
        assert!(read_table(&store, &key("m", name), &Rows::All).unwrap().1 == *want, "{name}");
    }
    for k in 0..30 {
        assert!(read_table(&store, &key("m", &format!("f{k}")), &Rows::All).unwrap().1 == fleeting(k), "{k}");
    }
    assert_eq!(damage(&store), []);
}

#[test]
fn a_column_that_changes_its_nature_is_coded_anew() {
    // The first RowBlocks are integers, then noise, nulls, one value, and what no decimal is.
    let (_, store) = memory();
    let value = |i: usize| match i / 8192 {
        0 | 1 => Some((i % 100) as f64),
        2 => Some((i as f64 * 0.731).sin()),
        3 => (!i.is_multiple_of(3)).then_some(-0.0),
        4 => Some(7.0),
        5 => Some([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0][i % 4]),
        _ => None,
    };
    for n in [1, 8192, 8193, 60_000] {
        let want = batch(vec![("x", Arc::new(Float64Array::from_iter((0..n).map(value))) as ArrayRef)]);
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", format!("m{n}"))), IfExists::Continue).unwrap();
        let handle = log.table(model, "t", 0, &want.schema()).unwrap();
        log.append_table(handle, &(0..n as u64).collect::<Vec<_>>(), &want).unwrap();
        log.commit().unwrap();
        let (_, got) = read_table(&store, &key(&format!("m{n}"), "t"), &Rows::All).unwrap();
        let bits = |b: &RecordBatch| -> Vec<Option<u64>> {
            let column = b.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
            column.iter().map(|x| x.map(f64::to_bits)).collect()
        };
        assert!(bits(&got) == bits(&want), "{n}");
    }
    assert_eq!(damage(&store), []);
}
