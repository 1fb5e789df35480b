//! Values that are withheld, filled, evicted and filled again; what a crash and a busy writer leave.

mod common;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use common::{damage, key, spec, strays};
use mistique_engine::{
    Balance, ColumnDemand, Demand, EngineError, FaultMode, FaultyStorage, IfExists, IntermediateRecord, LogOptions,
    Logger, Materialize, Materializer, MemoryStorage, ModelKey, ModelKind, ModelRecord, ModelSpec, Offer, RerunValues,
    Result, Rows, Storage, Store, StoreOptions, Verifier,
};

const TENSORS: [(&str, &[usize], &str); 4] = [
    ("maps", &[3, 6, 5], "f32"),
    ("pooled", &[40, 9, 8], "pool(2)+f16"),
    ("codes", &[16], "kbit(8)"),
    ("auto", &[9], "auto(0.01)"),
];
const ROWS: u64 = 1500;

fn memory() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new(None).unwrap())
}

fn open(storage: Arc<dyn Storage>) -> Store {
    Store::on(storage, true, StoreOptions::default()).unwrap()
}

/// Values of `n` cells a row, half of them 0, no cell like another; four digits, so that f32 and kbit hold them.
fn batch(rows: &[u64], n: usize) -> Vec<f32> {
    let value = |row: u64, i: usize| {
        let x = (row * 1_000_003 + i as u64 * 7919 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        if x.is_multiple_of(2) { 0.0 } else { (x % 2000) as f32 / 64.0 }
    };
    rows.iter().flat_map(|&row| (0..n).map(move |i| value(row, i))).collect()
}

fn table(rows: &[u64]) -> RecordBatch {
    let x: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| (r % 7 != 3).then_some(*r as f64 / 3.0))));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| format!("home {}", r % 50))));
    let id: ArrayRef = Arc::new(UInt64Array::from(rows.to_vec()));
    RecordBatch::try_from_iter_with_nullable([("x", x, true), ("name", name, true), ("id", id, true)]).unwrap()
}

/// Logs as workflows do, in batches, every row that is missing.
fn log(store: &Store, kind: ModelKind) {
    log_some(store, kind, &["maps", "pooled", "codes", "auto", "table"]);
}

fn log_some(store: &Store, kind: ModelKind, names: &[&str]) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    let spec_of = ModelSpec { kind, description: "d".into(), ..ModelSpec::raw(ModelKey::new("p", "m")) };
    let model = log.model(&spec_of, IfExists::Continue).unwrap();
    let append = |log: &mut Logger, rows: &[u64]| {
        for (name, shape, scheme) in TENSORS.into_iter().filter(|t| names.contains(&t.0)) {
            let handle = log.tensor(model, &spec(name, shape, scheme)).unwrap();
            log.append(handle, rows, batch(rows, shape.iter().product())).unwrap();
        }
        if names.contains(&"table") {
            let handle = log.table(model, "table", 9, &table(&[]).schema()).unwrap();
            log.append_table(handle, rows, &table(rows)).unwrap();
        }
    };
    let rows: Vec<u64> = (0..ROWS).collect();
    rows.chunks(300).for_each(|rows| append(&mut log, rows));
    log.complete(model).unwrap();
    log.commit().unwrap();
}

fn values(name: &str, rows: &[u64]) -> RerunValues {
    match TENSORS.iter().find(|t| t.0 == name) {
        Some((_, shape, _)) => {
            RerunValues::Tensor { shape: shape.to_vec(), values: batch(rows, shape.iter().product()) }
        }
        None => RerunValues::Table(table(rows)),
    }
}

fn records(store: &Store) -> Vec<IntermediateRecord> {
    store.catalog().intermediates(None).unwrap()
}

fn fill(store: &Store, name: &str, groups: Option<&[usize]>, rows: std::ops::Range<u64>) -> Result<u64> {
    let record = store.intermediate(&key("m", name))?;
    let n = record.content.n_groups();
    let wanted = (0..n).map(|g| groups.is_none_or(|some| some.contains(&g))).collect();
    let rows: Vec<u64> = rows.collect();
    let mut log = store.logger(LogOptions::default())?;
    log.fill(&record, wanted, rows.clone(), values(name, &rows))?;
    Ok(log.commit()?.written_bytes)
}

/// Content hashes of the chunks of every RowBlock, by intermediate.
fn chunks(store: &Store) -> Vec<(String, Vec<String>)> {
    let catalog = store.storage().open_catalog().unwrap();
    let hash = |id: i64| -> String {
        let sql = "SELECT hex(hash) FROM chunks WHERE id = ?1";
        if id == 0 { "withheld".into() } else { catalog.query_row(sql, [id], |r| r.get(0)).unwrap() }
    };
    let of = |record: &IntermediateRecord| {
        let mut statement =
            catalog.prepare("SELECT chunks FROM row_blocks WHERE intermediate_id = ?1 ORDER BY min_row").unwrap();
        let blocks = statement.query_map([record.id], |r| r.get::<_, Vec<u8>>(0)).unwrap();
        let numbers = blocks.flat_map(|b| common::parse::chunk_numbers(&b.unwrap()));
        (record.key.intermediate.clone(), numbers.map(hash).collect())
    };
    records(store).iter().map(of).collect()
}

fn offer(store: &Store, name: &str, rows: std::ops::Range<u64>) -> Offer {
    let record = store.intermediate(&key("m", name)).unwrap();
    let rows: Vec<u64> = rows.collect();
    let values = values(name, &rows);
    Offer { groups: vec![true; record.content.n_groups()], record, rows, values, balance: None }
}

#[test]
fn what_is_filled_is_what_logging_stores() {
    let all = open(memory());
    log(&all, ModelKind::Pipeline);
    let store = open(memory());
    store.set_materialize(Materialize::None).unwrap();
    log(&store, ModelKind::Pipeline);
    assert_eq!(store.stats().unwrap().n_chunks, 0);
    assert!(chunks(&store).iter().all(|(_, c)| c.iter().all(|c| c == "withheld")));
    for record in records(&store) {
        assert_eq!(record.n_rows, ROWS);
        assert!(!record.is_whole());
        let plan = store.plan_rows(&record, &Rows::All).unwrap();
        assert_eq!(plan.n_rows() as u64, ROWS);
        // What it would take was estimated from its first rows: near what it does take.
        let sizes = all.group_sizes(&records(&all)).unwrap();
        let same = records(&all).into_iter().find(|r| r.key == record.key).unwrap();
        let stored: f64 = sizes[&same.id].iter().map(|s| s.stored_bytes).sum();
        let estimated: f64 = store.estimated_group_bytes(&record).unwrap().iter().sum();
        assert!((0.5..2.0).contains(&(estimated / stored)), "{}: {estimated} for {stored}", record.key);
    }
    assert_eq!(damage(&store), []);
    // Part of the groups, then of the rows, then the rest.
    fill(&store, "pooled", Some(&[1, 0]), 0..ROWS).unwrap();
    fill(&store, "table", Some(&[1]), 0..ROWS).unwrap();
    assert_eq!(damage(&store), []);
    for (name, ..) in TENSORS {
        fill(&store, name, None, 0..1024).unwrap();
        fill(&store, name, None, 1024..ROWS).unwrap();
    }
    fill(&store, "table", None, 0..ROWS).unwrap();
    assert!(records(&store).iter().all(IntermediateRecord::is_whole), "{:?}", records(&store));
    assert_eq!(chunks(&store), chunks(&all));
    assert_eq!(fill(&store, "maps", None, 0..ROWS).unwrap(), 0);
    assert_eq!((damage(&store), strays(&store)), (vec![], vec![]));
}

#[test]
fn what_is_withheld_is_not_read() {
    let store = open(memory());
    store.set_materialize(Materialize::Adaptive { gamma_min: 1.0 }).unwrap();
    log(&store, ModelKind::Pipeline);
    let record = store.intermediate(&key("m", "pooled")).unwrap();
    let plan = store.plan_rows(&record, &Rows::Range(0..10)).unwrap();
    let cells = 5 * 4;
    let mut out = vec![0f32; 10 * cells];
    let refused = store.read_f32(&record, &plan, &[0..cells], &mut out).unwrap_err();
    assert!(matches!(refused, EngineError::NotMaterialized { .. }), "{refused}");
    assert!(refused.to_string().contains("--plan rerun"), "{refused}");
    assert!(store.read_codes(&record, &plan).is_err());
    let table = store.intermediate(&key("m", "table")).unwrap();
    let rows = store.plan_rows(&table, &Rows::All).unwrap();
    assert!(store.read_table(&table, &rows, &[0]).is_err());
    // A column of it can be there without the others.
    fill(&store, "table", Some(&[0]), 0..ROWS).unwrap();
    let rows = store.plan_rows(&table, &Rows::All).unwrap();
    assert_eq!(store.read_table(&table, &rows, &[0]).unwrap().num_rows() as u64, ROWS);
    assert!(store.read_table(&table, &rows, &[0, 1]).is_err());
    // Values that nothing can run again are kept whatever the mode.
    let network = open(memory());
    network.set_materialize(Materialize::None).unwrap();
    log(&network, ModelKind::Network);
    let kept: Vec<String> =
        records(&network).iter().filter(|r| r.is_whole()).map(|r| r.key.intermediate.clone()).collect();
    assert_eq!(kept, ["table"]);
    let raw = open(memory());
    raw.set_materialize(Materialize::None).unwrap();
    log(&raw, ModelKind::Raw);
    assert!(records(&raw).iter().all(IntermediateRecord::is_whole));
    let all: Vec<_> = records(&raw).into_iter().map(|r| (r.clone(), vec![true; r.content.n_groups()])).collect();
    assert!(raw.evict(&all).unwrap_err().to_string().contains("would be lost"));
}

#[test]
fn what_leaves_is_freed_and_comes_back() {
    let store = open(memory());
    log(&store, ModelKind::Pipeline);
    let before = chunks(&store);
    let bytes = store.stats().unwrap().chunk_bytes;
    let pooled = store.intermediate(&key("m", "pooled")).unwrap();
    let n = pooled.content.n_groups();
    assert!(n > 2);
    let first: Vec<bool> = (0..n).map(|g| g == 0).collect();
    let freed = store.evict(&[(pooled.clone(), first)]).unwrap();
    assert!(freed > 0.0);
    let record = store.intermediate(&pooled.key).unwrap();
    assert_eq!((record.n_rows, record.n_withheld), (ROWS, 2));
    assert_eq!(store.stats().unwrap().garbage_bytes, freed.round() as u64);
    assert_eq!(store.gc().unwrap().n_chunks, 2);
    assert_eq!(store.stats().unwrap().chunk_bytes, bytes - freed.round() as u64);
    // Its size is remembered, other groups are still read.
    let (sizes, estimate) =
        (store.group_sizes(std::slice::from_ref(&record)).unwrap(), store.estimated_group_bytes(&record).unwrap());
    assert!((estimate[0] - freed).abs() < 1.0 && sizes[&record.id][0].stored_bytes == 0.0);
    let all: Vec<_> = records(&store).into_iter().map(|r| (r.clone(), vec![true; r.content.n_groups()])).collect();
    store.evict(&all).unwrap();
    store.gc().unwrap();
    assert_eq!(store.stats().unwrap().partition_bytes, 0);
    for name in TENSORS.map(|t| t.0).into_iter().chain(["table"]) {
        fill(&store, name, None, 0..ROWS).unwrap();
    }
    assert_eq!(chunks(&store), before);
    assert_eq!(damage(&store), []);
}

#[test]
fn the_background_gathers_rows_and_survives_a_restart() {
    let storage = memory();
    let store = open(Arc::clone(&storage) as Arc<dyn Storage>);
    store.set_materialize(Materialize::Adaptive { gamma_min: 1.0 }).unwrap();
    log(&store, ModelKind::Pipeline);
    let materializer = Materializer::start(&store, 64 << 20).unwrap();
    // A part of a RowBlock without values becomes one of its own.
    assert!(materializer.offer(offer(&store, "maps", 0..700)));
    let report = materializer.finish();
    assert_eq!((report.stored, report.waiting_rows), (1, 0));
    let halves = |name: &str| -> Vec<bool> {
        let chunks = chunks(&store).into_iter().find(|(n, _)| n == name).unwrap().1;
        chunks.iter().map(|c| c == "withheld").collect()
    };
    assert_eq!(halves("maps"), [false, false, false, true, true, true, true, true, true]);
    assert!(materializer.offer(offer(&store, "maps", 600..1100)));
    let report = materializer.finish();
    assert_eq!((report.stored, report.waiting_rows), (2, 0));
    assert_eq!(halves("maps").iter().filter(|w| **w).count(), 3);
    let record = store.intermediate(&key("m", "maps")).unwrap();
    assert_eq!((record.n_rows, record.n_withheld), (ROWS, 3));
    // One that has some of its groups waits for the rest of its rows.
    fill(&store, "pooled", Some(&[0]), 0..ROWS).unwrap();
    assert!(materializer.offer(offer(&store, "pooled", 0..30)));
    let report = materializer.finish();
    assert_eq!((report.stored, report.waiting_rows), (2, 30));
    assert!(report.held_bytes > 30 * 40 * 72 * 4);
    assert!(materializer.offer(offer(&store, "pooled", 30..ROWS)));
    assert!(materializer.offer(offer(&store, "maps", 1024..ROWS)));
    assert!(materializer.offer(offer(&store, "table", 0..ROWS)));
    let report = materializer.finish();
    assert_eq!((report.offered, report.stored, report.dropped, report.held_bytes), (6, 5, 0, 0), "{report:?}");
    // The table's columns are in memory, but for text, whose dictionary is in the chunk alone.
    let table = store.intermediate(&key("m", "table")).unwrap();
    let work = store.whole_table_work(&table).unwrap();
    assert_eq!(work, store.table_work_if_stored(&table, ROWS as usize, &[0, 1, 2], true).unwrap());
    assert_eq!((work.held(), work.fresh()), (2, 1));
    let maps = store.intermediate(&key("m", "maps")).unwrap();
    assert!(maps.is_whole());
    let plan = store.plan_rows(&maps, &Rows::List(vec![1400, 3])).unwrap();
    let mut out = vec![0f32; 2 * 90];
    store.read_f32(&maps, &plan, &[0..90], &mut out).unwrap();
    assert_eq!(out, batch(&[1400, 3], 90));
    // Queries are counted over restarts, by column.
    for _ in 0..3 {
        store.count_query(&maps, "u1").unwrap();
    }
    store.count_query(&maps, "*").unwrap();
    let want = vec![("*".to_string(), 1), ("u1".to_string(), 3)];
    assert_eq!(store.column_queries(maps.id).unwrap(), want);
    drop((store, materializer));
    let store = open(storage);
    assert_eq!(store.column_queries(maps.id).unwrap(), want);
    assert_eq!(store.intermediate(&maps.key).unwrap().n_query, 4);
    assert_eq!(store.materialize().unwrap(), Materialize::Adaptive { gamma_min: 1.0 });
    assert!(store.intermediate(&maps.key).unwrap().is_whole());
    assert_eq!(store.queried().unwrap().into_iter().collect::<Vec<_>>(), [maps.id]);
    store.reset_queries().unwrap();
    assert_eq!(store.column_queries(maps.id).unwrap(), []);
}

#[test]
fn parts_of_row_blocks_are_found_like_whole_ones() {
    let store = open(memory());
    store.set_materialize(Materialize::None).unwrap();
    log(&store, ModelKind::Pipeline);
    for (name, shape, _) in TENSORS {
        // Pieces out of the middle, one row, and the rest of a piece.
        for rows in [500..510, 1023..1024, 505..520, 0..ROWS] {
            fill(&store, name, None, rows.clone()).unwrap();
            let record = store.intermediate(&key("m", name)).unwrap();
            let cells: usize = shape.iter().product();
            let stored = TENSORS.iter().all(|t| t.0 != name || t.2 == "f32");
            if stored {
                let wanted: Vec<u64> = rows.clone().rev().collect();
                let plan = store.plan_rows(&record, &Rows::List(wanted.clone())).unwrap();
                let mut out = vec![0f32; wanted.len() * cells];
                store.read_f32(&record, &plan, &[0..cells], &mut out).unwrap();
                assert_eq!(out, batch(&wanted, cells), "{name} {rows:?}");
            }
        }
        let record = store.intermediate(&key("m", name)).unwrap();
        assert!(record.is_whole(), "{name}");
        assert_eq!(record.n_rows, ROWS, "{name}");
    }
    assert!(damage(&store).is_empty());
    // It does not fall to pieces: after some, rows are stored with their RowBlock or not at all.
    for row in (0..ROWS).step_by(20) {
        fill(&store, "table", None, row..row + 1).unwrap();
    }
    let pieces = |name: &str| chunks(&store).into_iter().find(|(n, _)| n == name).unwrap().1.len() / 3;
    assert_eq!(pieces("table"), 8);
    fill(&store, "table", None, 0..ROWS).unwrap();
    assert!(store.intermediate(&key("m", "table")).unwrap().is_whole());
}

#[test]
fn memory_is_bounded_and_writers_go_first() {
    let storage = memory();
    let store = open(Arc::clone(&storage) as Arc<dyn Storage>);
    store.set_materialize(Materialize::None).unwrap();
    log(&store, ModelKind::Pipeline);
    fill(&store, "pooled", Some(&[0]), 0..ROWS).unwrap();
    let row = 40 * 9 * 8 * 4;
    // While a log runs, the background waits for it a while, then lets go; what comes meanwhile beyond the budget is dropped.
    let busy = store.logger(LogOptions::default()).unwrap();
    let budget = 120 * row;
    let materializer = Materializer::start(&store, budget).unwrap();
    // Of RowBlocks that have some groups, rows wait.
    // All are made before the first is sent, so that they come faster than they can be looked at.
    let offers: Vec<_> = (0..64).map(|_| offer(&store, "pooled", 1400..1440)).collect();
    let sent: Vec<bool> = offers.into_iter().map(|o| materializer.offer(o)).collect();
    assert!(sent.contains(&false) && sent[0], "{sent:?}");
    let report = materializer.finish();
    assert!(report.most_held_bytes <= budget, "{report:?}");
    assert_eq!(report.dropped as usize, sent.iter().filter(|s| !**s).count());
    assert!(materializer.offer(offer(&store, "codes", 0..ROWS)));
    let report = materializer.finish();
    assert_eq!((report.gave_way, report.stored), (1, 0), "{report:?}");
    drop(busy);
    assert!(materializer.offer(offer(&store, "codes", 0..ROWS)));
    assert_eq!(materializer.finish().stored, 1);
    assert!(store.intermediate(&key("m", "codes")).unwrap().is_whole());
}

#[test]
fn a_budget_is_kept_and_the_lowest_gamma_leaves_first() {
    let store = open(memory());
    log(&store, ModelKind::Pipeline);
    let bytes = |name: &str| -> f64 {
        let record = store.intermediate(&key("m", name)).unwrap();
        store.group_sizes(std::slice::from_ref(&record)).unwrap()[&record.id].iter().map(|s| s.stored_bytes).sum()
    };
    let of = |name: &str| store.intermediate(&key("m", name)).unwrap();
    let n_groups = |name: &str| of(name).content.n_groups();
    // `maps` saves the most a byte, `codes` less, all others were never asked for.
    let demand = |name: &str, seconds: f64| {
        let t_rerun = seconds * bytes(name);
        let columns = vec![ColumnDemand { groups: vec![true; n_groups(name)], n_query: 1, t_rerun, t_read: 0.0 }];
        (of(name).id, Demand { columns })
    };
    let verifier = |can: bool| -> Verifier {
        Arc::new(move |_, model: &ModelRecord| match can && model.spec.key == key("m", "maps").model {
            true => Ok(()),
            false => Err("its weights are gone".into()),
        })
    };
    let mut balance =
        Balance { demands: [demand("maps", 3.0), demand("codes", 1.0)].into(), verifiers: vec![verifier(false)] };
    let budget = bytes("maps") + bytes("codes") + 100.0;
    store.set_materialize(Materialize::Budget { bytes: budget as u64, gamma_min: 0.0 }).unwrap();
    store.evict(&[(of("auto"), vec![true; n_groups("auto")])]).unwrap();
    // Values of a model that nobody can run again stay, whatever the budget.
    let before = store.stats().unwrap().partition_bytes;
    let materializer = Materializer::start(&store, 64 << 20).unwrap();
    materializer.offer(Offer { balance: Some(balance.clone()), ..offer(&store, "auto", 0..ROWS) });
    let report = materializer.finish();
    assert_eq!((report.stored, report.evicted_groups, report.failed), (0, 0, 0), "{report:?}");
    assert_eq!(store.stats().unwrap().partition_bytes, before);
    balance.verifiers.push(verifier(true));
    let materializer = Materializer::start(&store, 64 << 20).unwrap();
    // What is offered has no demand: it does not come in, and what has no demand leaves for those that do.
    materializer.offer(Offer { balance: Some(balance.clone()), ..offer(&store, "auto", 0..ROWS) });
    let report = materializer.finish();
    assert_eq!((report.stored, report.failed), (0, 0), "{report:?}");
    let left: Vec<String> =
        records(&store).iter().filter(|r| r.is_whole()).map(|r| r.key.intermediate.clone()).collect();
    assert_eq!(left, ["maps", "codes"]);
    assert!(store.stats().unwrap().partition_bytes as f64 <= 1.1 * budget + 4096.0);
    // Asked for often enough, it takes the place of the lowest.
    let auto = of("auto");
    let columns = vec![ColumnDemand { groups: vec![true; n_groups("auto")], n_query: 9, t_rerun: 1e9, t_read: 0.0 }];
    balance.demands.insert(auto.id, Demand { columns });
    materializer.offer(Offer { balance: Some(balance), ..offer(&store, "auto", 0..ROWS) });
    let report = materializer.finish();
    assert_eq!((report.stored, report.failed), (1, 0), "{report:?}");
    let left: Vec<String> =
        records(&store).iter().filter(|r| r.is_whole()).map(|r| r.key.intermediate.clone()).collect();
    assert_eq!(left, ["maps", "auto"]);
    assert_eq!(damage(&store), []);
}

#[test]
fn a_crash_leaves_all_or_nothing_of_a_fill() {
    let run = |fail_at: u64| -> (u64, bool) {
        let inner = memory();
        {
            let store = open(Arc::clone(&inner) as Arc<dyn Storage>);
            store.set_materialize(Materialize::None).unwrap();
            log_some(&store, ModelKind::Pipeline, &["maps"]);
        }
        let faulty = Arc::new(FaultyStorage::new(Arc::clone(&inner) as Arc<dyn Storage>, fail_at, FaultMode::Crash));
        let filled = Store::on(Arc::clone(&faulty) as Arc<dyn Storage>, false, StoreOptions::default())
            .and_then(|store| Materializer::start(&store, 64 << 20).map(|m| (store, m)))
            .is_ok_and(|(store, materializer)| {
                let record = records(
                    &Store::on(Arc::clone(&inner) as Arc<dyn Storage>, false, StoreOptions::default()).unwrap(),
                )
                .into_iter()
                .find(|r| r.key.intermediate == "maps")
                .unwrap();
                let rows: Vec<u64> = (0..ROWS).collect();
                let groups = vec![true; record.content.n_groups()];
                materializer.offer(Offer { record, groups, values: values("maps", &rows), rows, balance: None });
                let report = materializer.finish();
                drop(store);
                report.stored == 1
            });
        let operations = faulty.operations();
        inner.crash();
        let store = open(inner);
        assert_eq!((damage(&store), strays(&store)), (vec![], vec![]), "at {fail_at}");
        let record = store.intermediate(&key("m", "maps")).unwrap();
        let n_blocks = ROWS.div_ceil(1024);
        let all = n_blocks * record.content.n_groups() as u64;
        assert!(record.is_whole() || record.n_withheld == all, "at {fail_at}: {} lack", record.n_withheld);
        assert!(record.is_whole() >= filled, "at {fail_at}");
        fill(&store, "maps", None, 0..ROWS).unwrap();
        assert!(store.intermediate(&key("m", "maps")).unwrap().is_whole());
        (operations, filled)
    };
    let (operations, filled) = run(u64::MAX);
    assert!(filled && operations > 5, "{operations}");
    for at in 0..operations {
        run(at);
    }
}
