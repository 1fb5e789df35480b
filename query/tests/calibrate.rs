//! `calibrate` measures reads in every manner that their costs are kept by.

use std::sync::Arc;
use std::time::Duration;

use mistique_engine::cost::{self, Manner, Target, read_subject};
use mistique_engine::{
    IfExists, IntermediateKey, LogOptions, MemoryStorage, ModelKey, ModelSpec, Store, StoreOptions, TensorSpec,
};
use mistique_query::ChunkReader;

/// More values than a read that tells a rate has, and than memory that is not fresh holds.
const ROWS: u64 = 1100;
const WIDTH: usize = 8192;

#[test]
fn every_manner_of_reading_is_measured() {
    let store = Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap();
    let model = ModelKey::new("p", "m");
    let mut log = store.logger(LogOptions::default()).unwrap();
    let id = log.model(&ModelSpec::raw(model.clone()), IfExists::Continue).unwrap();
    let handle = log.tensor(id, &TensorSpec::new("t", &[WIDTH]).with_scheme("f16".parse().unwrap())).unwrap();
    let rows: Vec<u64> = (0..ROWS).collect();
    log.append(handle, &rows, vec![0.5f32; ROWS as usize * WIDTH]).unwrap();
    log.commit().unwrap();
    drop(log);
    let record = store.intermediate(&IntermediateKey { model, intermediate: "t".into() }).unwrap();
    let models = store.models().unwrap();
    let done = ChunkReader::new(&store).calibrate(&models, Duration::from_secs(60), &mut |_, _, _| {}).unwrap();
    assert_eq!(done.missing, [""; 0]);
    assert!(done.made > 0);
    for target in [Target::Memory, Target::Answer] {
        for in_part in [false, true] {
            let known = |again| {
                let subject = read_subject("f16", Manner { target, again, in_part }, Some(record.id));
                store.cost(cost::READ, &subject).unwrap().is_some()
            };
            assert!(known(false), "{target:?}, in part {in_part}");
            // Again it is read from the file, or from memory.
            let held = store.cost(cost::HELD, "f16").unwrap().is_some();
            assert!(target == Target::Answer || known(true) || held, "{target:?}, in part {in_part}, again");
        }
    }
}
