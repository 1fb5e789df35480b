//! Opening large stores, and point reads from large catalogues.

mod common;

use std::time::Duration;

use common::{at_most, median, median_after, plain, scratch, wanted};
use mistique::{IfExists, LogOptions, ModelKey, ModelSpec, Rows, Store, TensorSpec};

fn main() {
    if wanted("open") {
        open();
    }
    if wanted("point") {
        point();
    }
}

/// A small store, whose catalogue then gets rows of chunks that no one reads.
fn small_store(path: &std::path::Path) -> Store {
    let store = Store::open_or_create(path).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("bench", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t", &[64]).with_scheme("f32".parse().unwrap())).unwrap();
    let rows: Vec<u64> = (0..4096).collect();
    log.append(handle, &rows, vec![1.5f32; 4096 * 64]).unwrap();
    log.commit().unwrap();
    drop(log);
    store
}

fn catalog(path: &std::path::Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -400000").unwrap();
    conn
}

fn open() {
    let dir = scratch();
    let path = dir.path().join("s.mq");
    drop(small_store(&path));
    let conn = catalog(&path);
    let partition: i64 = conn.query_row("SELECT min(id) FROM partitions", [], |r| r.get(0)).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    {
        let mut insert = conn.prepare("INSERT INTO chunks (id, hash, partition_id, offset, len_bytes) VALUES (?1, randomblob(16), ?2, 64, 64)").unwrap();
        for id in 1_000_000..2_000_000 {
            insert.execute([id, partition]).unwrap();
        }
    }
    conn.execute_batch("COMMIT").unwrap();
    drop(conn);
    println!("\nA store of one million chunks");
    let t = median(5, || drop(Store::open(&path).unwrap()));
    at_most("  opening it", t.as_secs_f64() * 1e3, "ms", 100.0);
}

fn point_read(path: &std::path::Path) -> Duration {
    let store = Store::open(path).unwrap();
    let key = ModelKey::new("bench", "m").intermediate("t");
    let mut out = vec![0f32; 64];
    let mut row = 0;
    let first = || store.clear_pool();
    median_after(101, first, || {
        row = (row + 1499) % 4096;
        let record = store.intermediate(&key).unwrap();
        let plan = store.plan_rows(&record, &Rows::List(vec![row])).unwrap();
        store.read_f32(&record, &plan, &[0..64], &mut out).unwrap();
        assert_eq!(out[0], 1.5);
    })
}

fn point() {
    let dir = scratch();
    let path = dir.path().join("s.mq");
    drop(small_store(&path));
    let small = point_read(&path);
    let conn = catalog(&path);
    conn.execute_batch("BEGIN").unwrap();
    {
        // 1,000 other intermediates of 10,000 RowBlocks each.
        let mut intermediate = conn
            .prepare("INSERT INTO intermediates SELECT ?1, model_id, 'x' || ?1, position, kind, shape, dtype, unit_axis, scheme, params, block_rows, group_units, page_rows, schema, n_rows, max_span, 0, 0, 0, NULL, NULL, 0, 0, NULL FROM intermediates WHERE name = 't'")
            .unwrap();
        let mut block = conn
            .prepare("INSERT INTO row_blocks SELECT ?1, block_no, ?2, ?2 + 1023, n_rows, row_set_id, chunks, checksum FROM row_blocks WHERE intermediate_id = 1 AND min_row = 0")
            .unwrap();
        for i in 1000i64..2000 {
            intermediate.execute([i]).unwrap();
            for b in 0..10_000i64 {
                block.execute([i, b * 1024]).unwrap();
            }
        }
    }
    conn.execute_batch("COMMIT").unwrap();
    drop(conn);
    let large = point_read(&path);
    println!("\nA point read beside ten million RowBlocks");
    plain("  with four RowBlocks in the catalogue", small.as_secs_f64() * 1e6, "µs");
    plain("  with ten million", large.as_secs_f64() * 1e6, "µs");
    at_most("  slower by", large.as_secs_f64() / small.as_secs_f64(), "×", 2.0);
}
