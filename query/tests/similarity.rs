//! SVCCA, CCA, PWCCA and CKA against numpy and scipy (`fixtures/make_similarity.py`), and what has no answer.

use std::sync::Arc;

use mistique_engine::{IfExists, LogOptions, MemoryStorage, ModelKey, ModelSpec, Store, StoreOptions, TensorSpec};
use mistique_query::diagnostics::{MapsAs, Measure, Similarity, similarities, similarity};
use mistique_query::{ChunkReader, QueryError, Request, RowSelection};
use serde_json::Value;

type Named<'a> = (&'a str, &'a [usize], &'a [u64], Vec<f32>);

fn store(arrays: &[Named<'_>]) -> Store {
    let store = Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    for (name, shape, rows, values) in arrays {
        let handle = log.tensor(model, &TensorSpec::new(*name, shape).with_scheme("f32".parse().unwrap())).unwrap();
        log.append(handle, rows, values.clone()).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    store
}

fn request(key: &str) -> Request {
    Request::new(key.parse().unwrap())
}

fn compare(store: &Store, a: &str, b: &str, measure: Measure, maps: MapsAs) -> Result<Similarity, QueryError> {
    similarity(&ChunkReader::new(store), &request(a), &request(b), measure, maps)
}

const RBF: Measure = Measure::RbfCka { fraction: 1.0, max_points: 10_000 };

#[test]
fn the_scale_of_values_changes_nothing() {
    let mut state = 11u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let rows: Vec<u64> = (0..400).collect();
    let x: Vec<f32> = (0..400 * 5).map(|_| random()).collect();
    let y: Vec<f32> = x.iter().map(|v| v * 0.7 + 0.6 * random()).collect();
    // Powers of two, so that no digit is lost by the scaling itself.
    let scales = [0, 60, 66, -40, -70, -80].map(|power| 2f32.powi(power));
    let named: Vec<String> = (0..scales.len()).map(|i| format!("x{i}")).collect();
    let mut arrays: Vec<Named<'_>> = vec![("y", &[5], &rows, y)];
    for (name, scale) in named.iter().zip(scales) {
        arrays.push((name, &[5], &rows, x.iter().map(|v| v * scale).collect()));
    }
    let store = store(&arrays);
    let alike = |name: &str, other: &str| {
        let (a, b) = (format!("p.m.{name}"), format!("p.m.{other}"));
        compare(&store, &a, &b, Measure::LinearCka, MapsAs::Mean).unwrap().value
    };
    let want = alike("x0", "y");
    assert!((0.3..0.9).contains(&want), "{want}");
    for (name, scale) in named.iter().zip(scales) {
        assert!((alike(name, "y") - want).abs() < 1e-6 * want, "{scale:e}: {} for {want}", alike(name, "y"));
        assert!((alike(name, "x0") - 1.0).abs() < 1e-6, "{scale:e}");
        assert!((alike(name, name) - 1.0).abs() < 1e-6, "{scale:e}");
    }
}

#[test]
fn as_numpy_and_scipy_find_it() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/similarity.json")).unwrap();
    let n = fixture["n"].as_u64().unwrap();
    let rows: Vec<u64> = (0..n).collect();
    let floats = |v: &Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    let arrays: Vec<(String, Vec<usize>, Vec<f32>)> = fixture["arrays"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, a)| {
            let shape = floats(&a["shape"]).iter().map(|n| *n as usize).collect();
            (name.clone(), shape, floats(&a["values"]).iter().map(|v| *v as f32).collect())
        })
        .collect();
    let arrays: Vec<_> = arrays.iter().map(|(n, s, v)| (n.as_str(), &s[..], &rows[..], v.clone())).collect();
    let store = store(&arrays);
    for (case, a, b, maps) in [
        ("vectors", "p.m.x", "p.m.y", MapsAs::Mean),
        ("maps_mean", "p.m.maps", "p.m.other", MapsAs::Mean),
        ("maps_points", "p.m.maps", "p.m.other", MapsAs::Points),
        ("maps_columns", "p.m.maps.u0", "p.m.other.u1..3", MapsAs::Columns),
        ("maps_with_vector", "p.m.maps", "p.m.x", MapsAs::Mean),
        ("one_column", "p.m.x", "p.m.y.u4", MapsAs::Mean),
    ] {
        for (name, measure) in [
            ("svcca", Measure::Svcca { threshold: 0.99 }),
            ("svcca_0.9", Measure::Svcca { threshold: 0.9 }),
            ("cca", Measure::Cca),
            ("pwcca", Measure::Pwcca),
            ("linear_cka", Measure::LinearCka),
            ("rbf_cka", RBF),
            ("rbf_cka_0.5", Measure::RbfCka { fraction: 0.5, max_points: 10_000 }),
        ] {
            let want = fixture[case][name].as_f64().unwrap();
            for (left, right) in [(a, b), (b, a)] {
                let got = compare(&store, left, right, measure, maps).unwrap();
                assert!((got.value / want - 1.0).abs() < 1e-4, "{case} {name}: {} instead of {want}", got.value);
                if name == "svcca" {
                    let want = floats(&fixture[case]["svcca_coefficients"]);
                    assert_eq!(got.coefficients.len(), want.len(), "{case}");
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
                    assert!(got.coefficients.iter().zip(&want).all(near), "{case}: {:?} {want:?}", got.coefficients);
                }
            }
        }
    }
    let vectors = compare(&store, "p.m.x", "p.m.y", Measure::Cca, MapsAs::Mean).unwrap();
    assert_eq!((vectors.constant, vectors.directions), ([1, 1], [10, 8]));
    let alike = compare(&store, "p.m.x", "p.m.x", Measure::Svcca { threshold: 0.99 }, MapsAs::Mean).unwrap();
    assert!((alike.value - 1.0).abs() < 1e-9);
}

#[test]
fn a_matrix_is_its_pairs_over_shared_rows() {
    let noise = |seed: u32, n: usize| -> Vec<f32> {
        (0..n as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7).collect()
    };
    let rows: Vec<u64> = (0..40).collect();
    let later: Vec<u64> = (10..50).collect();
    let store = store(&[
        ("a", &[3], &rows, noise(1, 120)),
        ("b", &[5], &later, noise(99, 200)),
        ("dead", &[2], &rows, vec![2.5; 80]),
    ]);
    let reader = ChunkReader::new(&store);
    let requests = ["p.m.a", "p.m.b", "p.m.dead"].map(request);
    let pairs = [(0, 0), (0, 1), (1, 0), (0, 2), (2, 2)];
    for measure in [Measure::Svcca { threshold: 0.99 }, Measure::Pwcca, Measure::LinearCka, RBF] {
        let mut heard = (0, 0);
        let all = similarities(&reader, &requests, &pairs, measure, MapsAs::Mean, &mut |a, b| heard = (a, b)).unwrap();
        assert_eq!((all.n_rows, all.n_points), (30, 30));
        assert_eq!(all.sides.iter().map(|s| s.unshared).collect::<Vec<_>>(), [10, 10, 10]);
        let value = |i: usize| all.values[i].as_ref().unwrap().value;
        assert!((value(0) - 1.0).abs() < 1e-9, "{measure:?}");
        assert!((value(1) - value(2)).abs() < 1e-9);
        for dead in [3, 4] {
            assert!(matches!(all.values[dead], Err(QueryError::Undefined { .. })), "{:?}", all.values[dead]);
        }
        let rows = RowSelection::Range(10..40);
        let [a, b] = ["p.m.a", "p.m.b"].map(|k| request(k).with_rows(rows.clone()));
        let alone = similarity(&reader, &a, &b, measure, MapsAs::Mean).unwrap().value;
        assert!((alone - value(1)).abs() < 1e-9);
        assert_eq!(heard.0, heard.1);
    }
}

#[test]
fn what_has_no_answer_says_why() {
    let mut bad = vec![1.0f32; 40];
    (bad[7], bad[19], bad[3]) = (f32::NAN, f32::INFINITY, f32::NAN);
    let rows: Vec<u64> = (0..10).collect();
    let ramp: Vec<f32> = (0..10).map(|i| i as f32).collect();
    let store = store(&[
        ("bad", &[4], &rows, bad),
        ("ramp", &[1], &rows, ramp.clone()),
        ("maps", &[1, 2, 2], &rows, ramp.iter().flat_map(|v| [*v, v * v, 1.0, 0.0]).collect()),
        ("elsewhere", &[1], &[70, 71], vec![1.0, 2.0]),
        ("two", &[1], &[3, 4], vec![1.0, 2.0]),
    ]);
    for measure in [Measure::Svcca { threshold: 0.99 }, Measure::Cca, Measure::Pwcca, Measure::LinearCka, RBF] {
        let get = |a: &str, b: &str, maps| compare(&store, a, b, measure, maps);
        let error = get("p.m.ramp", "p.m.bad", MapsAs::Mean).unwrap_err();
        assert!(matches!(error, QueryError::NotFinite { count: 3, others: 0, .. }), "{error}");
        assert!(error.to_string().contains("column u3 holds 3"), "{error}");
        let error = get("p.m.ramp", "p.m.elsewhere", MapsAs::Mean).unwrap_err();
        assert!(error.to_string().contains("0 rows are shared"), "{error}");
        let one = request("p.m.ramp").with_rows(RowSelection::List(vec![3]));
        let error =
            similarity(&ChunkReader::new(&store), &one, &request("p.m.ramp"), measure, MapsAs::Mean).unwrap_err();
        assert!(error.to_string().contains("at least two"), "{error}");
        let error = get("p.m.ramp", "p.m.maps", MapsAs::Points).unwrap_err();
        assert!(error.to_string().contains("compare their means"), "{error}");
        assert!(get("p.m.nothing", "p.m.maps", MapsAs::Mean).is_err());
        assert!(get("p.m.maps", "p.m.maps", MapsAs::Points).unwrap().value > 0.999);
    }
    // One side that is not finite costs the others of a matrix nothing, wherever its values lie and whatever they do to sums.
    let values = |seed: usize| (0..4000).map(|i| ((i * 7 + seed * i * i) % 101) as f32 - 50.0).collect::<Vec<_>>();
    let rows: Vec<u64> = (0..1000).collect();
    let mut late = values(5);
    (late[3999], late[17]) = (f32::INFINITY, f32::MAX);
    let matrix =
        self::store(&[("a", &[4], &rows, values(1)), ("b", &[4], &rows, values(2)), ("late", &[4], &rows, late)]);
    let requests = ["p.m.a", "p.m.late", "p.m.b"].map(request);
    let pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (2, 1), (2, 2)];
    for measure in [Measure::Svcca { threshold: 0.99 }, Measure::Cca, Measure::Pwcca, Measure::LinearCka, RBF] {
        let reader = ChunkReader::new(&matrix);
        let all = similarities(&reader, &requests, &pairs, measure, MapsAs::Mean, &mut |_, _| {}).unwrap();
        for (value, (a, b)) in all.values.iter().zip(pairs) {
            match value {
                Err(e) => {
                    assert!(a == 1 || b == 1, "{measure:?} {a} {b}: {e}");
                    assert!(matches!(e, QueryError::NotFinite { count: 1, others: 0, .. }), "{e}");
                }
                Ok(value) => {
                    let alone = similarity(&reader, &requests[a], &requests[b], measure, MapsAs::Mean).unwrap();
                    assert_eq!(value, &alone, "{measure:?} {a} {b}");
                }
            }
        }
        assert_eq!(all.values.iter().filter(|v| v.is_ok()).count(), 3);
    }
    // Two points lie on a line.
    let two = compare(&store, "p.m.ramp", "p.m.two", Measure::Cca, MapsAs::Mean).unwrap();
    assert!((two.value - 1.0).abs() < 1e-9);
    for threshold in [0.0, 1.5, f64::NAN] {
        assert!(compare(&store, "p.m.ramp", "p.m.two", Measure::Svcca { threshold }, MapsAs::Mean).is_err());
    }
    for max_points in [0, 1] {
        let few = Measure::RbfCka { fraction: 1.0, max_points };
        let error = compare(&store, "p.m.ramp", "p.m.ramp", few, MapsAs::Mean).unwrap_err();
        assert!(matches!(error, QueryError::Undefined { .. }), "{error}");
        assert!(error.to_string().contains(&format!("at least two are needed, got {max_points}")), "{error}");
    }
}

/// Of more points than have an exact median, over several tiles and a part of one: against whole matrices.
#[test]
fn large_kernels_are_as_whole_ones() {
    const N: usize = 2300;
    let side = |seed: u64, width: usize| -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..N * width).map(|i| next() + (i / width % 7) as f32 * 0.3).collect()
    };
    let (x, y) = (side(1, 3), side(2, 2));
    let kernel = |values: &[f32], width: usize| -> Vec<f64> {
        let row = |i: usize| &values[i * width..(i + 1) * width];
        let distance = |i: usize, j: usize| -> f64 {
            row(i).iter().zip(row(j)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        let all: Vec<f64> = (0..N * N).map(|i| distance(i / N, i % N)).collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let median = (sorted[N * N / 2 - 1] + sorted[N * N / 2]) / 2.0;
        let mut k: Vec<f64> = all.iter().map(|d| (-d / (2.0 * median)).exp()).collect();
        let means: Vec<f64> = k.chunks_exact(N).map(|r| r.iter().sum::<f64>() / N as f64).collect();
        let all_mean = means.iter().sum::<f64>() / N as f64;
        k.iter_mut().enumerate().for_each(|(i, v)| *v += all_mean - means[i / N] - means[i % N]);
        k
    };
    let (k, l) = (kernel(&x, 3), kernel(&y, 2));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let want = dot(&k, &l) / (dot(&k, &k) * dot(&l, &l)).sqrt();
    let rows: Vec<u64> = (0..N as u64).collect();
    let store = store(&[("x", &[3], &rows, x), ("y", &[2], &rows, y)]);
    let got = compare(&store, "p.m.x", "p.m.y", RBF, MapsAs::Mean).unwrap().value;
    assert!((got / want - 1.0).abs() < 1e-5, "{got} instead of {want}");
}
