//! Reduction errors that a log measures, against those of what is read back.

mod common;

use common::{key, spec};
use mistique_engine::{IfExists, LogOptions, ModelKey, ModelSpec, Rows, Store};

const UNITS: usize = 256;
const CELLS: usize = 4;
/// The rows that are all measured, one by one.
const ROWS: usize = 64;

#[test]
fn each_unit_has_the_error_of_its_own_values() {
    let n = UNITS * CELLS;
    // Each unit has a range of its own, so that the codes of one are wrong for another.
    let value = |row: usize, column: usize| {
        ((row * 7919 + column * 104_729) % 1009) as f32 / 1024.0 * (1 + column / CELLS) as f32
    };
    let values: Vec<f32> = (0..ROWS * n).map(|i| value(i / n, i % n)).collect();
    let rows: Vec<u64> = (0..ROWS as u64).collect();
    // Units in several groups that one task encodes: with a codebook each, with one of all, and without.
    for scheme in ["kbit(5,unit)", "kbit(5)", "f16"] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(dir.path()).unwrap();
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[UNITS, 2, 2], scheme)).unwrap();
        log.append(handle, &rows, values.clone()).unwrap();
        log.commit().unwrap();
        let record = store.intermediate(&key("m", "t")).unwrap();
        assert!(record.tensor().unwrap().layout.n_groups() > 4, "{scheme}");
        let plan = store.plan_rows(&record, &Rows::All).unwrap();
        let mut read = vec![0.0; values.len()];
        store.read_f32(&record, &plan, std::slice::from_ref(&(0..n)), &mut read).unwrap();
        let found = store.catalog().errors(record.id).unwrap().unwrap();
        assert_eq!((found.units.len(), found.measured_rows), (UNITS, ROWS as u64));
        for (unit, error) in found.units.iter().enumerate() {
            let of_unit = |i: &usize| i % n / CELLS == unit;
            let differences = (0..values.len()).filter(of_unit).map(|i| f64::from(values[i]) - f64::from(read[i]));
            let expected: f64 = differences.map(|d| d * d).sum();
            assert_eq!(error.n, (ROWS * CELLS) as u64, "{scheme} unit {unit}");
            let near = (error.sum_sq_err - expected).abs() <= 1e-9 * expected.max(1e-9);
            assert!(near, "{scheme} unit {unit}: {} for {expected}", error.sum_sq_err);
        }
    }
}

#[test]
fn codebooks_are_fitted_on_rows_from_all_of_the_first_values() {
    // Values that only rows beyond the first two hundred have: of vectors by unit; and of the sixth of sixteen large maps.
    for (shape, scheme, n_rows, per_batch, large) in [
        (&[16usize][..], "kbit(8,unit)", 2048usize, 64usize, 300..2048usize),
        (&[16], "lloyd(8,unit)", 2048, 512, 300..2048),
        (&[4, 128, 128], "lloyd(8)", 16, 16, 5..6),
    ] {
        let n: usize = shape.iter().product();
        let value = |row: usize, i: usize| {
            ((row * 7919 + i * 104_729) % 1009) as f32 / 1024.0 * if large.contains(&row) { 9.0 } else { 1.0 }
        };
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(dir.path()).unwrap();
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", shape, scheme)).unwrap();
        for first in (0..n_rows).step_by(per_batch) {
            let rows = first..first + per_batch;
            let values: Vec<f32> = rows.clone().flat_map(|r| (0..n).map(move |i| value(r, i))).collect();
            log.append(handle, &rows.map(|r| r as u64).collect::<Vec<_>>(), values).unwrap();
        }
        log.commit().unwrap();
        let record = store.intermediate(&key("m", "t")).unwrap();
        let plan = store.plan_rows(&record, &Rows::All).unwrap();
        let mut read = vec![0.0; n_rows * n];
        store.read_f32(&record, &plan, std::slice::from_ref(&(0..n)), &mut read).unwrap();
        let (mut error, mut all) = (0.0, 0.0);
        for (i, v) in read.iter().enumerate() {
            let x = f64::from(value(i / n, i % n));
            (error, all) = (error + (x - f64::from(*v)).powi(2), all + x * x);
        }
        let relative = f64::sqrt(error / all);
        assert!(relative < 0.02, "{scheme} of {shape:?}: {relative}");
    }
}
