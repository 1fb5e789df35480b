//! NetDissect against numpy (`fixtures/make_netdissect.py`), and what has no answer.

use std::sync::Arc;

use mistique_engine::{IfExists, LogOptions, MemoryStorage, ModelKey, ModelSpec, Store, StoreOptions, TensorSpec};
use mistique_query::diagnostics::{Dissection, Masks, Thresholds, netdissect, unit_thresholds};
use mistique_query::{ChunkReader, QueryError, Request, RowSelection};
use serde_json::Value;

struct InMemory {
    names: Vec<String>,
    masks: Vec<((usize, usize), Vec<bool>)>,
}

impl Masks for InMemory {
    fn concepts(&self) -> &[String] {
        &self.names
    }

    fn size(&self, concept: usize) -> (usize, usize) {
        self.masks[concept].0
    }

    fn mask(&self, concept: usize, row: u64) -> Result<Option<Vec<bool>>, QueryError> {
        let ((h, w), on) = &self.masks[concept];
        let mask = on[row as usize * h * w..(row as usize + 1) * h * w].to_vec();
        // An example without the concept needs no mask.
        Ok(mask.contains(&true).then_some(mask))
    }
}

struct Fixture {
    json: Value,
    shape: Vec<usize>,
    maps: Vec<f32>,
    masks: InMemory,
    alpha: f64,
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().flat_map(|x| x.as_f64().map_or_else(|| floats(x), |x| vec![x])).collect()
}

fn fixture() -> Fixture {
    let json: Value = serde_json::from_str(include_str!("fixtures/netdissect.json")).unwrap();
    let masks = json["masks"].as_object().unwrap();
    let mask = |m: &Value| {
        let size = floats(&m["size"]);
        ((size[0] as usize, size[1] as usize), m["pixels"].as_str().unwrap().bytes().map(|b| b == b'1').collect())
    };
    Fixture {
        shape: floats(&json["shape"]).iter().map(|n| *n as usize).collect(),
        maps: floats(&json["maps"]).iter().map(|v| *v as f32).collect(),
        masks: InMemory { names: masks.keys().cloned().collect(), masks: masks.values().map(mask).collect() },
        alpha: json["alpha"].as_f64().unwrap(),
        json,
    }
}

fn store(shape: &[usize], schemes: &[&str], maps: &[f32]) -> Store {
    let store = Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let rows: Vec<u64> = (0..(maps.len() / shape.iter().product::<usize>()) as u64).collect();
    for (i, scheme) in schemes.iter().enumerate() {
        let spec = TensorSpec::new(format!("t{i}"), shape).with_scheme(scheme.parse().unwrap());
        let handle = log.tensor(model, &spec).unwrap();
        log.append(handle, &rows, maps.to_vec()).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    store
}

fn dissect(store: &Store, key: &str, f: &Fixture, alpha: f64) -> Result<Dissection, QueryError> {
    let request = Request::new(key.parse().unwrap());
    netdissect(&ChunkReader::new(store), &request, &f.masks, alpha, None, &mut |_, _| {})
}

fn assert_near(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
    assert!(got.iter().zip(want).all(near), "{got:?} instead of {want:?}");
}

#[test]
fn as_numpy_finds_it() {
    let f = fixture();
    let store = store(&f.shape, &["f32", "threshold(0.95,unit)", "kbit(8,unit)", "threshold(=1)"], &f.maps);
    let full = dissect(&store, "p.m.t0", &f, f.alpha).unwrap();
    // Concepts come in the order of the fixture's (sorted) names.
    assert_near(&full.iou, &floats(&f.json["iou"]));
    let Thresholds::Values(thresholds) = &full.thresholds else { panic!("{:?}", full.thresholds) };
    assert_near(thresholds, &floats(&f.json["thresholds"]));
    assert_eq!((full.n_rows, full.units.len()), (30, 5));

    // What is known is not computed again, and a unit alone is as it was among the others.
    let reader = ChunkReader::new(&store);
    let one = Request::new("p.m.t0.u2".parse().unwrap());
    let known = unit_thresholds(&reader, &one, f.alpha, &mut |_, _| {}).unwrap();
    assert_eq!(known, Thresholds::Values(vec![thresholds[2]]));
    let mut heard = Vec::new();
    let again = netdissect(&reader, &one, &f.masks, f.alpha, Some(known), &mut |a, b| heard.push((a, b))).unwrap();
    assert_near(&again.iou, &floats(&f.json["iou"])[6..9]);
    assert_eq!(heard.last(), Some(&(30, 30)));

    let bits = dissect(&store, "p.m.t1", &f, f.alpha).unwrap();
    assert_eq!(bits.thresholds, Thresholds::Stored { per_unit: true });
    assert_near(&bits.iou, &floats(&f.json["iou_of_bits"]));

    // Codes are taken at the values that they stand for.
    let codes = dissect(&store, "p.m.t2", &f, f.alpha).unwrap();
    let decoded = reader.get(&Request::new("p.m.t2".parse().unwrap())).unwrap().into_f32().unwrap();
    let as_values = self::store(&f.shape, &["f32"], &decoded);
    assert_near(&codes.iou, &dissect(&as_values, "p.m.t0", &f, f.alpha).unwrap().iou);
}

#[test]
fn what_has_no_answer_says_why() {
    let f = fixture();
    let mut maps = f.maps.clone();
    let bad = self::store(&f.shape, &["f32", "threshold(0.95)", "threshold(=1)"], &maps);
    for (key, alpha) in [("p.m.t1", 0.01), ("p.m.t2", 0.05)] {
        let error = dissect(&bad, key, &f, alpha).unwrap_err().to_string();
        assert!(error.contains("ask for exact values") && error.contains(&format!("alpha {alpha}")), "{error}");
    }
    assert_eq!(dissect(&bad, "p.m.t1", &f, 0.05).unwrap().thresholds, Thresholds::Stored { per_unit: false });
    for alpha in [0.0, 1.0, f64::NAN, -0.1] {
        assert!(matches!(dissect(&bad, "p.m.t0", &f, alpha), Err(QueryError::Undefined { .. })), "{alpha}");
    }
    let reader = ChunkReader::new(&bad);
    let request = Request::new("p.m.t0".parse().unwrap());
    let none = InMemory { names: vec![], masks: vec![] };
    assert!(netdissect(&reader, &request, &none, 0.05, None, &mut |_, _| {}).is_err());
    let short = Some(Thresholds::Values(vec![0.5]));
    let error = netdissect(&reader, &request, &f.masks, 0.05, short, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("1 thresholds for 5 units"), "{error}");
    let no_rows = request.with_rows(RowSelection::Range(90..99));
    let error = netdissect(&reader, &no_rows, &f.masks, 0.05, None, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("no rows"), "{error}");

    maps[7] = f32::NAN;
    let with_nan = self::store(&f.shape, &["f32"], &maps);
    let error = dissect(&with_nan, "p.m.t0", &f, f.alpha).unwrap_err();
    assert!(matches!(error, QueryError::NotFinite { count: 1, .. }), "{error}");

    struct Wrong;
    impl Masks for Wrong {
        fn concepts(&self) -> &[String] {
            static NAMES: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| vec!["wrong".into()]);
            &NAMES
        }
        fn size(&self, _: usize) -> (usize, usize) {
            (4, 3)
        }
        fn mask(&self, _: usize, _: u64) -> Result<Option<Vec<bool>>, QueryError> {
            Ok(Some(vec![true; 11]))
        }
    }
    let request = Request::new("p.m.t0".parse().unwrap());
    let error = netdissect(&reader, &request, &Wrong, 0.05, None, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, QueryError::Mask { .. }), "{error}");
}

/// Rows that passed by, and the answer.
fn passes(store: &Store, request: &Request, f: &Fixture, alpha: f64) -> (u64, Dissection) {
    let mut heard = 0;
    let found = netdissect(&ChunkReader::new(store), request, &f.masks, alpha, None, &mut |done, _| heard = done);
    (heard, found.unwrap())
}

#[test]
fn thresholds_are_computed_once_and_kept() {
    let mut f = fixture();
    let store = store(&f.shape, &["f32", "kbit(8)"], &f.maps);
    let request = |key: &str| Request::new(key.parse().unwrap());
    let whole = request("p.m.t0");
    let kept = || -> Vec<(i64, Option<String>)> {
        let all = store.indexes(None).unwrap();
        assert!(all.iter().all(|i| i.kind == "thresholds"));
        all.iter().map(|i| (i.id, i.param("alpha"))).collect()
    };
    // A unit alone is kept; the others come beside it.
    assert_eq!(passes(&store, &request("p.m.t0.u2"), &f, f.alpha).0, 60);
    assert_eq!(passes(&store, &request("p.m.t0.u2"), &f, f.alpha).0, 30);
    let (two, first) = passes(&store, &whole, &f, f.alpha);
    let (one, second) = passes(&store, &whole, &f, f.alpha);
    assert_eq!((two, one, kept().len()), (60, 30, 1));
    assert_eq!((&first.iou, &first.thresholds, &first.note), (&second.iou, &second.thresholds, &None));
    assert_near(&second.iou, &floats(&f.json["iou"]));
    // Other masks are one pass; another alpha, another scheme and some rows are questions of their own.
    f.masks.masks.reverse();
    f.masks.names.reverse();
    assert_eq!(passes(&store, &whole, &f, f.alpha).0, 30);
    assert_eq!(passes(&store, &whole, &f, 0.2).0, 60);
    assert_eq!(passes(&store, &request("p.m.t1"), &f, f.alpha).0, 60);
    let some = request("p.m.t0").with_rows(RowSelection::Range(0..20));
    assert_eq!([0; 2].map(|_| passes(&store, &some, &f, f.alpha).0), [40, 40]);
    assert_eq!(kept().len(), 3);
    // A writer keeps nothing from being answered, and the answer says what it cost.
    let other = store.logger(LogOptions::default()).unwrap();
    let (two, answer) = passes(&store, &whole, &f, 0.3);
    assert!(two == 60 && answer.note.is_some_and(|n| n.contains("not kept")));
    drop(other);
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().damage, vec![]);

    // Rows that are logged later move quantiles.
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &TensorSpec::new("t0", &f.shape).with_scheme("f32".parse().unwrap())).unwrap();
    log.append(handle, &(30..60).collect::<Vec<u64>>(), f.maps.iter().map(|v| v * 2.0).collect::<Vec<_>>()).unwrap();
    log.commit().unwrap();
    drop(log);
    for mask in &mut f.masks.masks {
        let twice = [mask.1.clone(), mask.1.clone()].concat();
        mask.1 = twice;
    }
    let (more, later) = passes(&store, &whole, &f, f.alpha);
    assert_eq!((more, kept().len()), (120, 3));
    assert_ne!(later.thresholds, first.thresholds);
    assert_eq!(passes(&store, &whole, &f, f.alpha).0, 60);
}
