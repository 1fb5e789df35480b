//! What is answered on the codes is what decoded values answer: a float64 copy of what is read has no codes to work on.

use std::sync::Arc;

use mistique_engine::{
    Code, IfExists, LogOptions, MemoryStorage, ModelKey, ModelSpec, Store, StoreOptions, TensorSpec,
};
use mistique_query::diagnostics::{Labelled, Masks, Thresholds, confusion, netdissect, unit_thresholds};
use mistique_query::{ChunkReader, Column, PlanChoice, QueryError, Request, RowSelection, Wanted};

const SCHEMES: [&str; 6] = ["f32", "f16", "kbit(8)", "kbit(4,unit)", "threshold(0.9)", "pool(2)+f16"];
const ROWS: u64 = 2500;

/// Noise with many zeros, and ties.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 50) as f32 - 8192.0) / 4096.0
    };
    (0..n).map(|_| next().max(0.0)).collect()
}

/// Row_ids in an order of arrival that is not theirs.
fn shuffled() -> Vec<u64> {
    (0..ROWS).map(|r| r * 1201 % ROWS).collect()
}

struct Stores {
    store: Store,
    keys: Vec<String>,
}

impl Stores {
    /// A layer under every scheme as `p.m.tN`, and beside each `p.m.dN`: what READ gives of it, in float64.
    fn new(shape: &[usize], values: &[f32]) -> Self {
        let store = Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap();
        let log = |specs: &[(TensorSpec, Vec<f64>)]| {
            let mut log = store.logger(LogOptions::default()).unwrap();
            let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
            for (spec, values) in specs {
                let handle = log.tensor(model, spec).unwrap();
                let width = values.len() / ROWS as usize;
                for (rows, values) in shuffled().chunks(700).zip(values.chunks(700 * width)) {
                    match spec.dtype {
                        Code::F64 => log.append(handle, rows, values.to_vec()).unwrap(),
                        _ => log.append(handle, rows, values.iter().map(|v| *v as f32).collect::<Vec<_>>()).unwrap(),
                    }
                }
            }
            log.commit().unwrap();
        };
        let wide: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let spec = |(i, s): (usize, &&str)| TensorSpec::new(format!("t{i}"), shape).with_scheme(s.parse().unwrap());
        log(&SCHEMES.iter().enumerate().map(spec).map(|s| (s, wide.clone())).collect::<Vec<_>>());
        let decoded: Vec<_> = (0..SCHEMES.len())
            .map(|i| {
                let request = Request::new(format!("p.m.t{i}").parse().unwrap());
                let got = ChunkReader::new(&store).get(&request.with_rows(RowSelection::List(shuffled()))).unwrap();
                let spec = TensorSpec { dtype: Code::F64, ..TensorSpec::new(format!("d{i}"), &got.shape) };
                (spec.with_scheme("f64".parse().unwrap()), got.to_f64().unwrap())
            })
            .collect();
        log(&decoded);
        Self { store, keys: SCHEMES.iter().map(ToString::to_string).collect() }
    }
}

#[test]
fn reductions_of_rows() {
    // Units of 36 cells lie in chunks of their own; ten units without a map in one.
    for shape in [&[4, 6, 6][..], &[10]] {
        let stores = Stores::new(shape, &noise(ROWS as usize * shape.iter().product::<usize>(), 3));
        let reader = ChunkReader::new(&stores.store);
        let read = |key: &str, reduction: &str, rows: &[u64]| -> Column {
            let operand = reader.operand(None, &format!("{key}.{reduction}"), Wanted::Number).unwrap();
            reader.operand_scan(&operand, PlanChoice::Auto).unwrap().read(rows).unwrap()
        };
        for (i, scheme) in stores.keys.iter().enumerate() {
            for reduction in ["argmax", "max", "min", "mean", "norm"] {
                for rows in [shuffled(), vec![7, 2400, 3], (100..1300).collect()] {
                    let [codes, values] = ["t", "d"].map(|k| read(&format!("p.m.{k}{i}"), reduction, &rows));
                    assert_eq!(codes, values, "{scheme} {reduction}");
                    assert_eq!(codes.len(), rows.len());
                }
            }
        }
    }
}

#[test]
fn confusion_of_predictions() {
    let stores = Stores::new(&[5], &noise(5 * ROWS as usize, 11));
    let reader = ChunkReader::new(&stores.store);
    let count = |key: &str| {
        let predicted = reader.prediction(key, PlanChoice::Auto).unwrap();
        let mut labelled = Labelled::open(&reader, predicted, "p.m.d0.argmax", PlanChoice::Auto).unwrap();
        confusion(&mut labelled, None, None).unwrap()
    };
    for (i, scheme) in stores.keys.iter().enumerate() {
        let [codes, values] = ["t", "d"].map(|k| count(&format!("p.m.{k}{i}")));
        assert_eq!(codes, values, "{scheme}");
        assert_eq!(codes.n_rows(), ROWS);
    }
    // Of full precision, predictions are the labels; of one bit they are not.
    assert_eq!(count("p.m.t0").accuracy(), Some(1.0));
    assert!(count("p.m.t4").accuracy().unwrap() < 0.9);
}

/// Two concepts as stripes, of two sizes.
struct Stripes([String; 2]);

impl Masks for Stripes {
    fn concepts(&self) -> &[String] {
        &self.0
    }

    fn size(&self, concept: usize) -> (usize, usize) {
        [(16, 16), (9, 20)][concept]
    }

    fn mask(&self, concept: usize, row: u64) -> Result<Option<Vec<bool>>, QueryError> {
        let (h, w) = self.size(concept);
        let on = |i: usize| (i / w + row as usize).is_multiple_of(3) || (i % w) == row as usize % 5;
        Ok((row % 4 != concept as u64).then(|| (0..h * w).map(on).collect()))
    }
}

#[test]
fn netdissect_of_codes() {
    let stores = Stores::new(&[4, 6, 6], &noise(4 * 36 * ROWS as usize, 5));
    let reader = ChunkReader::new(&stores.store);
    let masks = Stripes(["a".into(), "b".into()]);
    for (i, scheme) in stores.keys.iter().enumerate() {
        for (columns, rows) in
            [("", RowSelection::All), (".u2,u0", RowSelection::Range(300..1700)), (".u1[2,3]", RowSelection::All)]
        {
            let of = |k: &str| {
                let key = format!("p.m.{k}{i}{columns}");
                // A cell of the map as it was logged is another one of a pooled map's copy.
                if columns.contains('[') && scheme.starts_with("pool") {
                    return None;
                }
                let request = Request::new(key.parse().unwrap()).with_rows(rows.clone());
                // One bit has no quantiles.
                let known = match scheme.starts_with("threshold") {
                    true => {
                        Thresholds::Values(vec![0.5; if columns.is_empty() { 4 } else { columns.matches('u').count() }])
                    }
                    false => unit_thresholds(&reader, &request, 0.02, &mut |_, _| {}).unwrap(),
                };
                let found = netdissect(&reader, &request, &masks, 0.02, Some(known), &mut |_, _| {}).unwrap();
                Some((found.iou, found.n_pixels, found.thresholds, found.units, found.n_rows))
            };
            assert_eq!(of("t"), of("d"), "{scheme}{columns}");
        }
    }
}
