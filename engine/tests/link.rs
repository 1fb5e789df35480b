//! Intermediates that hold what others hold: linked by the computation that gave them, with no value touched.

mod common;

use std::sync::Arc;

use common::{batch, damage, fingerprint_of, key, spec, table};
use mistique_engine::{
    EngineError, Fingerprint, IfExists, LogOptions, Logger, MemoryStorage, ModelHandle, ModelKey, ModelSpec, Result,
    Store, StoreOptions,
};

const STAGE: Fingerprint = [7; 16];
const CODES: Fingerprint = [8; 16];

fn store() -> Store {
    Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap()
}

fn model(log: &mut Logger, name: &str) -> ModelHandle {
    log.model(&ModelSpec::raw(ModelKey::new("p", name)), IfExists::Continue).unwrap()
}

/// Logs a table and a tensor under `name`, or links them; tells whether they were linked.
fn run(log: &mut Logger, name: &str) -> Result<bool> {
    let rows: Vec<u64> = (5..2500).collect();
    let model = model(log, name);
    let linked = log.link_stage(model, "table", 0, &STAGE)?;
    assert_eq!(log.knows_stage(&STAGE)?, linked);
    if !linked {
        let handle = log.table(model, "table", 0, &table(&[]).schema())?;
        log.append_table(handle, &rows, &table(&rows))?;
        log.set_stage(handle, &STAGE)?;
        log.set_stage(handle, &STAGE)?;
        assert!(matches!(log.set_stage(handle, &CODES), Err(EngineError::Conflict { .. })));
        assert!(matches!(log.append_table(handle, &[9000], &table(&[9000])), Err(EngineError::Unsupported { .. })));
    }
    if !log.link_stage(model, "codes", 1, &CODES)? {
        let handle = log.tensor(model, &spec("codes", &[16], "kbit(8)").at(1))?;
        log.append(handle, &rows, batch(&rows, 16))?;
        log.set_stage(handle, &CODES)?;
    }
    log.complete(model)?;
    Ok(linked)
}

#[test]
fn a_stage_is_stored_once_and_read_under_every_name() {
    let store = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    // Within one commit, and over commits.
    assert!(!run(&mut log, "a").unwrap());
    assert!(run(&mut log, "b").unwrap());
    let first = log.commit().unwrap();
    assert!(run(&mut log, "c").unwrap());
    let second = log.commit().unwrap();
    assert_eq!(
        (first.rows, first.new_chunks, first.written_bytes),
        (second.rows, second.new_chunks, second.written_bytes)
    );
    drop(log);
    for name in ["table", "codes"] {
        let source = store.intermediate(&key("a", name)).unwrap();
        for other in ["b", "c"] {
            let linked = store.intermediate(&key(other, name)).unwrap();
            assert_eq!(fingerprint_of(&store, &linked.key).unwrap(), fingerprint_of(&store, &source.key).unwrap());
            assert_eq!((linked.stage, linked.n_rows, linked.max_span), (source.stage, source.n_rows, source.max_span));
            assert_eq!((linked.position, linked.n_query), (source.position, 0));
            assert_eq!(linked.content.scheme_text(), source.content.scheme_text());
            let errors = |id| store.catalog().errors(id).unwrap().map(|e| (e.units, e.measured_rows, e.clamped));
            assert_eq!(errors(linked.id), errors(source.id));
        }
    }
    assert_eq!(store.intermediate_by_stage(&STAGE).unwrap().unwrap().key, key("a", "table"));
    assert!(store.intermediate_by_stage(&[1; 16]).unwrap().is_none());
    assert!(store.models().unwrap().iter().all(|m| m.complete));
    assert_eq!(damage(&store), []);
    // Every chunk has three users, each of which bears a third of it.
    let stats = store.stats().unwrap();
    let of = |name: &str| -> Vec<f64> {
        let mine = stats.intermediates.iter().filter(|i| i.record.key.intermediate == name);
        mine.map(|i| i.stored_bytes).collect()
    };
    for name in ["table", "codes"] {
        assert!(of(name).len() == 3 && of(name).windows(2).all(|w| w[0] == w[1]), "{:?}", of(name));
    }
    assert!((3.0 * (of("table")[0] + of("codes")[0]) - stats.chunk_bytes as f64).abs() < 1e-6);
}

#[test]
fn links_outlive_what_they_were_linked_to() {
    let store = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    for name in ["a", "b"] {
        run(&mut log, name).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    let want = fingerprint_of(&store, &key("a", "table")).unwrap();
    store.remove_model(&ModelKey::new("p", "a")).unwrap();
    assert_eq!(store.gc().unwrap().n_chunks, 0);
    store.compact(&mut |_, _| {}).unwrap();
    assert_eq!(fingerprint_of(&store, &key("b", "table")).unwrap(), want);
    assert_eq!(store.intermediate_by_stage(&STAGE).unwrap().unwrap().key, key("b", "table"));
    assert_eq!(damage(&store), []);
    store.remove_model(&ModelKey::new("p", "b")).unwrap();
    assert!(store.gc().unwrap().n_chunks > 0);
    assert!(store.intermediate_by_stage(&STAGE).unwrap().is_none());
    assert_eq!(store.stats().unwrap().partition_bytes, 0);
}

#[test]
fn what_is_replaced_is_nothing_to_link_to() {
    let store = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    run(&mut log, "a").unwrap();
    log.commit().unwrap();
    let a = log.model(&ModelSpec::raw(ModelKey::new("p", "a")), IfExists::Continue).unwrap();
    log.replace(a, "codes").unwrap();
    assert!(!log.knows_stage(&CODES).unwrap());
    assert!(log.knows_stage(&STAGE).unwrap());
    drop(log);
    let mut log = store.logger(LogOptions::default()).unwrap();
    log.model(&ModelSpec::raw(ModelKey::new("p", "a")), IfExists::Replace).unwrap();
    assert!(!run(&mut log, "b").unwrap());
    log.commit().unwrap();
    drop(log);
    assert_eq!(store.intermediate_by_stage(&STAGE).unwrap().unwrap().key, key("b", "table"));
    assert_eq!(damage(&store), []);
}

#[test]
fn an_interrupted_intermediate_is_replaced_and_others_are_conflicts() {
    let store = store();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let b = model(&mut log, "b");
    let handle = log.table(b, "table", 0, &table(&[]).schema()).unwrap();
    log.append_table(handle, &[1, 2], &table(&[1, 2])).unwrap();
    log.commit().unwrap();
    drop(log);
    let mut log = store.logger(LogOptions::default()).unwrap();
    run(&mut log, "a").unwrap();
    assert!(run(&mut log, "b").unwrap());
    let b = model(&mut log, "b");
    assert!(log.link_stage(b, "table", 0, &STAGE).unwrap(), "again is no harm");
    assert!(matches!(log.link_stage(b, "table", 0, &CODES), Err(EngineError::Conflict { what: "stage", .. })));
    assert!(matches!(log.table(b, "table", 0, &table(&[]).schema()), Err(EngineError::Conflict { .. })));
    log.commit().unwrap();
    let record = store.intermediate(&key("a", "codes")).unwrap();
    assert!(matches!(log.link_intermediate(b, "table", 0, &record), Err(EngineError::Conflict { .. })));
    log.link_intermediate(b, "copy", 5, &record).unwrap();
    log.commit().unwrap();
    // Whole stages go on with nothing to do.
    let handle = log.table(b, "table", 0, &table(&[]).schema()).unwrap();
    assert_eq!(log.missing(handle, &[5, 2499]).unwrap(), [] as [u64; 0]);
    drop(log);
    assert_eq!(fingerprint_of(&store, &key("b", "copy")).unwrap(), fingerprint_of(&store, &key("a", "codes")).unwrap());
    assert_eq!(store.intermediate(&key("b", "table")).unwrap().n_rows, 2495);
    assert_eq!(damage(&store), []);
}
