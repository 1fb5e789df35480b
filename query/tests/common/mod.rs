//! A store in memory and what tests put into it, under the project `p`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use mistique_engine::{
    IfExists, LogOptions, MemoryStorage, ModelKey, ModelSpec, Scheme, Store, StoreOptions, TensorSpec,
};
use mistique_query::Request;

pub fn store() -> Store {
    Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap()
}

pub fn tensor(store: &Store, model: &str, name: &str, shape: &[usize], rows: &[u64], values: Vec<f32>, scheme: &str) {
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", model)), IfExists::Continue).unwrap();
    let mut spec = TensorSpec::new(name, shape);
    spec.scheme = Some(scheme.parse::<Scheme>().unwrap());
    let handle = log.tensor(model, &spec).unwrap();
    log.append(handle, rows, values).unwrap();
    log.complete(model).unwrap();
    log.commit().unwrap();
}

pub fn table(store: &Store, model: &str, name: &str, rows: &[u64], columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", model)), IfExists::Continue).unwrap();
    let handle = log.table(model, name, 9, &batch.schema()).unwrap();
    log.append_table(handle, rows, &batch).unwrap();
    log.complete(model).unwrap();
    log.commit().unwrap();
}

pub fn request(key: &str) -> Request {
    Request::new(key.parse().unwrap())
}
