//! What a read costs is kept by the manner in which it was read, so that a plan is told by reads like it.

mod common;

use common::{batch, key, spec};
use mistique_engine::cost::{self, Manner, Target, read_subject};
use mistique_engine::{IfExists, LogOptions, ModelKey, ModelSpec, Rows, Store};

/// Values of a row: 16 maps of 16 × 16.
const ROW: usize = 16 * 256;

#[test]
fn costs_are_apart_by_manner() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(dir.path()).unwrap();
    let rows: Vec<u64> = (0..300).collect();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[16, 16, 16], "f16")).unwrap();
    log.append(handle, &rows, batch(&rows, ROW)).unwrap();
    log.commit().unwrap();
    drop(log);
    let record = store.intermediate(&key("m", "t")).unwrap();
    let page_rows = record.tensor().unwrap().layout.page_rows as u64;
    assert!(page_rows > 2, "a page of one row has no part");
    let read = |rows: Rows| {
        let plan = store.plan_rows(&record, &rows).unwrap();
        let mut out = vec![0.0; plan.n_rows() * ROW];
        store.read_f32(&record, &plan, std::slice::from_ref(&(0..ROW)), &mut out).unwrap();
        assert_eq!(out, batch(&plan.rows.iter().collect::<Vec<_>>(), ROW));
    };
    // How often cannot be told: a measurement of half the time of those before begins anew.
    let known = |what: &str, subject: &str| store.cost(what, subject).unwrap().is_some();
    let of = |again, in_part| {
        known(cost::READ, &read_subject("f16", Manner { target: Target::Memory, again, in_part }, Some(record.id)))
    };
    let measured = || [of(false, false), of(true, false), of(false, true), of(true, true)];
    let whole = || Rows::Range(0..2 * page_rows);
    let part = || Rows::List((0..4).map(|i| i * page_rows + 1).collect());

    assert_eq!(measured(), [false; 4]);
    read(whole());
    assert_eq!(measured(), [true, false, false, false]);
    assert!(
        known(cost::READ_PLACE, "in runs") && known(cost::READ_OPEN, "f16") && !known(cost::READ_OPEN, "f16, again")
    );
    read(whole());
    assert_eq!(measured(), [true, true, false, false]);
    read(part());
    assert_eq!(measured(), [true, true, false, true]);
    assert!(known(cost::READ_OPEN, "f16, again"));
    // What was forgotten is read for the first time.
    store.clear_pool();
    read(part());
    assert_eq!(measured(), [true; 4]);
}
