//! De-duplication of tables: what finding similar columns costs, whether it stays quick, what it saves, what reading
//! costs after it.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use common::{at_least, at_most, median, median_after, plain, scratch, wanted};
use mistique::{Dedup, IfExists, LogOptions, LogReport, ModelKey, ModelSpec, Rows, Store};

const N: usize = 100_000;
const COLUMNS: usize = 24;
/// Logs beside many chunks.
const LOGS: usize = 8;

fn main() {
    if wanted("saved") {
        saved();
    }
    if wanted("read") {
        read();
    }
    if wanted("lookup") {
        lookup();
    }
}

/// Numbers between 0 and 1, the same for the same place and salt.
fn noise(i: usize, salt: usize) -> f64 {
    let x = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (salt as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (x.rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11) as f64 / (1u64 << 53) as f64
}

/// A column as homes have them: a third amounts with nulls, a third small integers, a third words.
fn column(c: usize, salt: usize) -> Vec<Option<f64>> {
    let value = |i: usize| match c % 3 {
        0 => (noise(i, c + 1000) > 0.1).then(|| (noise(i, c + salt) * 500_000.0).round()),
        1 => Some((noise(i, c + salt) * noise(i, c + 77) * 12.0).floor()),
        _ => Some((noise(i, c + salt).powi(3) * 300.0).floor()),
    };
    (0..N).map(value).collect()
}

fn raw() -> RecordBatch {
    let columns = (0..COLUMNS).map(|c| {
        let values = column(c, 0);
        let array: ArrayRef = match c % 3 {
            2 => Arc::new(StringArray::from_iter(values.iter().map(|x| x.map(|x| format!("zone-{x}"))))),
            _ => Arc::new(Float64Array::from(values)),
        };
        (format!("c{c}"), array, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// A stage of variation `v`: nulls filled, two columns scaled, a prediction near that of the last one.
fn stage(v: usize) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for c in (0..COLUMNS).filter(|c| c % 3 == 0) {
        let fill = 200_000.0 + v as f64;
        let filled = column(c, 0).into_iter().map(|x| x.unwrap_or(fill));
        let array: ArrayRef = match c {
            0 | 3 => {
                Arc::new(Float64Array::from_iter_values(filled.map(|x| (x - 249_871.53) / (144_022.7 + v as f64))))
            }
            _ => Arc::new(Float64Array::from_iter_values(filled)),
        };
        columns.push((format!("c{c}"), array));
    }
    let prediction = (0..N).map(|i| ((noise(i, 5) * 0.2 + noise(i, 900 + v) * 0.0004) * 1e4).round() / 1e4);
    columns.push(("prediction".into(), Arc::new(Float64Array::from_iter_values(prediction))));
    columns
        .push(("label".into(), Arc::new(Int64Array::from_iter_values(column(1, 0).iter().map(|x| x.unwrap() as i64)))));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn log(store: &Store, model: &str, batch: &RecordBatch, dedup: Dedup) -> (LogReport, f64) {
    let begun = Instant::now();
    let mut log = store.logger(LogOptions::default().with_dedup(dedup)).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("bench", model)), IfExists::Continue).unwrap();
    let handle = log.table(model, "t", 0, &batch.schema()).unwrap();
    log.append_table(handle, &(0..batch.num_rows() as u64).collect::<Vec<_>>(), batch).unwrap();
    (log.commit().unwrap(), begun.elapsed().as_secs_f64())
}

/// Bytes of a store's files.
fn bytes_of(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes_of(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

fn saved() {
    let (raw, stages): (RecordBatch, Vec<RecordBatch>) = (raw(), (0..8).map(stage).collect());
    println!("\nA table of {COLUMNS} columns × {N} rows, and eight stages made of it");
    let mut total = Vec::new();
    for dedup in [Dedup::Off, Dedup::Exact, Dedup::Approximate] {
        let dir = scratch();
        let path = dir.path().join("s.mq");
        let store = Store::open_or_create(&path).unwrap();
        let (first, seconds) = log(&store, "raw", &raw, dedup);
        let (mut sum, mut all) = (first, seconds);
        for (v, stage) in stages.iter().enumerate() {
            let (report, seconds) = log(&store, &format!("m{v}"), stage, dedup);
            all += seconds;
            sum.written_bytes += report.written_bytes;
            sum.search_ns += report.search_ns;
            sum.work_ns += report.work_ns;
        }
        drop(store);
        plain(&format!("  {dedup}: chunks"), sum.written_bytes as f64 / 1e6, "MB");
        plain(&format!("  {dedup}: all files"), bytes_of(&path) as f64 / 1e6, "MB");
        plain(&format!("  {dedup}: logging"), all, "s");
        at_most(
            &format!("  {dedup}: hashes, signatures, look-ups"),
            100.0 * sum.search_ns as f64 / sum.work_ns as f64,
            "%",
            10.0,
        );
        total.push((sum.written_bytes - first.written_bytes) as f64);
    }
    at_least("  the stages, smaller by similarity than by equality alone", total[1] / total[2], "×", 3.0);
}

fn read() {
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    log(&store, "raw", &raw(), Dedup::Approximate);
    log(&store, "equal", &raw(), Dedup::Approximate);
    let (report, _) = log(&store, "similar", &stage(1), Dedup::Approximate);
    assert!(report.similar_chunks > 0);
    println!("\nOne column of {N} rows");
    for (what, model, column) in [
        ("amounts, stored alone", "raw", 0),
        ("words, stored alone", "raw", 2),
        ("amounts, equal to stored ones", "equal", 0),
        ("amounts, coded against stored ones", "similar", 2),
        ("amounts scaled, coded against stored ones", "similar", 0),
    ] {
        let key = ModelKey::new("bench", model).intermediate("t");
        let mut rows = 0;
        let mut once = || {
            let record = store.intermediate(&key).unwrap();
            let plan = store.plan_rows(&record, &Rows::All).unwrap();
            rows = store.read_table(&record, &plan, &[column]).unwrap().num_rows();
        };
        let cold = median_after(21, || store.clear_pool(), &mut once);
        let warm = median(21, &mut once);
        assert_eq!(rows, N);
        at_most(&format!("  {what}"), cold.as_secs_f64() * 1e3, "ms", 2.0);
        plain("    held in memory", warm.as_secs_f64() * 1e3, "ms");
    }
}

/// Columns of a RowBlock, where a store has many of those.
const COLUMNS_OF_BLOCK: i64 = 1000;

fn lookup() {
    let [few, many] = [10_000, 1_000_000];
    let slower = |what: &str, blocks_of: fn(i64) -> i64| {
        println!("\nFinding similar columns in a large store, {what}");
        let [a, b] = [few, many].map(|n| look_up_beside(n, blocks_of(n)));
        at_most("  slower by, the quickest", b / a, "×", 1.1);
    };
    slower("of more and more rows", |n| n / COLUMNS_OF_BLOCK);
    slower("of more and more columns of the same rows", |_| (N as i64) / 8192 + 1);
}

/// Microseconds of a chunk beside `n` others that lie in so many RowBlocks.
fn look_up_beside(n: i64, n_blocks: i64) -> f64 {
    let dir = scratch();
    let path = dir.path().join("s.mq");
    log(&Store::open_or_create(&path).unwrap(), "raw", &raw(), Dedup::Approximate);
    let conn = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -400000; BEGIN")
        .unwrap();
    {
        let partition: i64 = conn.query_row("SELECT min(id) FROM partitions", [], |r| r.get(0)).unwrap();
        let sql =
            "INSERT INTO chunks (id, hash, partition_id, offset, len_bytes) VALUES (?1, randomblob(16), ?2, 64, 64)";
        let mut chunk = conn.prepare(sql).unwrap();
        // The log's own RowBlocks come first among them.
        let mut own = conn.prepare("SELECT DISTINCT place >> 32 FROM lsh").unwrap();
        let own: Vec<i64> = own.query_map([], |r| r.get(0)).unwrap().map(|b| b.unwrap()).collect();
        let block = |id: i64| match usize::try_from(id % n_blocks).unwrap() {
            i if i < own.len() => own[i],
            i => i as i64,
        };
        let mut place = conn.prepare("INSERT INTO lsh VALUES (?1, ?2)").unwrap();
        for id in 10_000..10_000 + n {
            chunk.execute([id, partition]).unwrap();
            for b in 0..9i64 {
                let hash = (id * 9 + b).wrapping_mul(0x9E37_79B9) & 0xFFF_FFFF;
                place.execute([block(id) << 32 | b << 28 | hash, id]).unwrap();
            }
        }
    }
    conn.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(conn);
    let store = Store::open(&path).unwrap();
    // A hundred chunks take five milliseconds, in which the machine may do something else.
    let log_one = |v: usize| {
        let (report, _) = log(&store, &format!("similar-{v}"), &stage(v), Dedup::Approximate);
        report.search_ns as f64 / (report.new_chunks + report.duplicate_chunks) as f64 / 1e3
    };
    let each: Vec<f64> = (3..3 + LOGS).map(log_one).collect();
    let shortest = each.iter().copied().fold(f64::INFINITY, f64::min);
    plain(&format!("  hash, signature and look-up of a chunk beside {n}, the first of {LOGS} logs"), each[0], "µs");
    plain("  the same, the quickest of them", shortest, "µs");
    shortest
}
