//! What is answered on the codes is what decoded values answer: a float64 copy of what is read has no codes to work on.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, UInt32Array};
use common::{request, store, table, tensor};
use mistique_engine::{Code, IfExists, LogOptions, ModelKey, ModelSpec, Store, TensorSpec};
use mistique_query::diagnostics::{
    By, Extreme, Labelled, Masks, Thresholds, confusion, dist, netdissect, select, topk, unit_thresholds,
};
use mistique_query::{ChunkReader, Column, PlanChoice, Predicate, QueryError, Request, RowSelection, Wanted};

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
        let store = store();
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

/// Values with many zeros and ties, NaN and infinities where the scheme holds them.
fn activations(n: usize, special: bool) -> Vec<f32> {
    let mut state = 7u64;
    (0..n)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = ((state >> 40) as f32 / (1 << 24) as f32 - 0.6) * 4.0;
            match i % 997 {
                13 if special => f32::NAN,
                14 if special => f32::NEG_INFINITY,
                _ => (x.max(0.0) * 64.0).round() / 64.0,
            }
        })
        .collect()
}

const LAYER_SCHEMES: [&str; 8] =
    ["f32", "f16", "bf16", "kbit(8)", "kbit(3)", "kbit(4,unit)", "threshold(0.9)", "pool(2)+kbit(8)"];

#[test]
fn ranks_on_codes_are_those_of_the_values() {
    for scheme in LAYER_SCHEMES {
        let special = !scheme.contains("kbit") && !scheme.contains("threshold");
        let store = store();
        // Row_ids out of order, in several blocks.
        let rows: Vec<u64> = (0..1500u64).map(|r| r * 7919 % 1500).collect();
        tensor(&store, "m", "maps", &[5, 6, 6], &rows, activations(1500 * 180, special), scheme);
        tensor(&store, "m", "dense", &[70], &rows, activations(1500 * 70, special), &scheme.replace("pool(2)+", ""));
        let reader = ChunkReader::new(&store);
        for (key, bys) in [
            ("p.m.maps", &[By::Max, By::Mean, By::Norm][..]),
            ("p.m.maps.u3,u1[2,3]", &[By::Max, By::Mean]),
            ("p.m.dense.u0..3,u69", &[By::Value]),
        ] {
            for selection in [RowSelection::All, RowSelection::Range(100..1200), RowSelection::List(vec![7, 1400, 3])] {
                let request = request(key).with_rows(selection);
                let answer = reader.get(&request).unwrap();
                let (values, width) = (answer.to_f64().unwrap(), answer.columns.len());
                let units = reader.scan(&request).unwrap().units();
                for by in bys {
                    for extreme in [Extreme::Highest, Extreme::Lowest, Extreme::Farthest] {
                        let found = topk(&reader, &request, 20, Some(*by), extreme).unwrap();
                        for (unit, top) in units.iter().zip(&found.units) {
                            let score = |i: usize| by.of(&values[i * width..][unit.columns.clone()]);
                            let mut all: Vec<(u64, f64)> =
                                answer.rows.iter().enumerate().map(|(i, r)| (*r, score(i))).collect();
                            let n_nan = all.iter().filter(|a| a.1.is_nan()).count() as u64;
                            all.retain(|a| !a.1.is_nan());
                            let key = |v: f64| match extreme {
                                Extreme::Highest => -v,
                                Extreme::Lowest => v,
                                Extreme::Farthest => -v.abs(),
                            };
                            all.sort_by(|a, b| key(a.1).partial_cmp(&key(b.1)).unwrap().then(a.0.cmp(&b.0)));
                            all.truncate(20);
                            let what = format!("{scheme} {key:?} {by:?} {extreme:?} {}", unit.name, key = request);
                            assert_eq!(top.rows, all, "{what}");
                            assert_eq!(top.n_nan, n_nan, "{what}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn predicates_on_codes_are_those_of_the_values() {
    for scheme in LAYER_SCHEMES {
        let special = !scheme.contains("kbit") && !scheme.contains("threshold");
        let store = store();
        let rows: Vec<u64> = (0..1500u64).map(|r| r * 7919 % 1500).collect();
        // Blocks of rising values, so that zone maps decide some pages.
        let values: Vec<f32> = activations(1500 * 70, special)
            .iter()
            .enumerate()
            .map(|(i, v)| if i / 70 > 1024 { v + 8.0 } else { *v })
            .collect();
        tensor(&store, "m", "dense", &[70], &rows, values, &scheme.replace("pool(2)+", ""));
        let reader = ChunkReader::new(&store);
        let answer = reader.get(&request("p.m.dense.u3")).unwrap();
        let values = answer.to_f64().unwrap();
        type Holds = fn(f64, f64) -> bool;
        let ops: [(&str, Holds); 6] = [
            ("=", |a, b| a == b),
            ("!=", |a, b| a != b),
            ("<", |a, b| a < b),
            ("<=", |a, b| a <= b),
            (">", |a, b| a > b),
            (">=", |a, b| a >= b),
        ];
        let middle = values[700];
        for (op, holds) in ops {
            for x in [0.0, middle, 0.5, 1.0, 7.9, 100.0, -1.0] {
                let predicate = Predicate::parse(&format!("p.m.dense.u3 {op} {x:?}")).unwrap();
                let found = select(&reader, &predicate, None, PlanChoice::Auto).unwrap();
                let want: Vec<u64> =
                    answer.rows.iter().zip(&values).filter(|(_, v)| holds(**v, x)).map(|(r, _)| *r).collect();
                assert_eq!(found.rows, want, "{scheme} {op} {x}");
                assert_eq!((found.n_rows, found.n_unknown), (1500, 0));
            }
        }
    }
}

#[test]
fn columns_on_codes_compare_as_their_values_do() {
    // Every scheme against every other: two that hold a value alike, and two that round it apart.
    let store = store();
    let rows: Vec<u64> = (0..1500u64).map(|r| r * 7919 % 1500).collect();
    let schemes = ["f32", "f16", "bf16", "kbit(8)", "kbit(4,unit)", "threshold(0.9)", "table"];
    for (i, scheme) in schemes[..6].iter().enumerate() {
        let values = activations(1500 * 70, !scheme.contains("kbit") && !scheme.contains("threshold"));
        tensor(&store, "m", &format!("t{i}"), &[70], &rows, values, scheme);
    }
    // What has no codes comes in another order, and lacks rows that the others have.
    let values: ArrayRef = Arc::new(Float32Array::from(activations(1500, true)));
    table(&store, "m", "t6", &(100..1600).collect::<Vec<_>>(), vec![("u3", Arc::clone(&values)), ("u69", values)]);
    let reader = ChunkReader::new(&store);
    type Holds = fn(f64, f64) -> bool;
    let ops: [(&str, Holds); 4] =
        [("=", |a, b| a == b), ("!=", |a, b| a != b), ("<", |a, b| a < b), (">=", |a, b| a >= b)];
    let column = |i: usize, u: usize| -> BTreeMap<u64, f64> {
        let answer = reader.get(&request(&format!("p.m.t{i}.u{u}"))).unwrap();
        answer.rows.iter().copied().zip(answer.to_f64().unwrap()).collect()
    };
    for i in 0..schemes.len() {
        for j in 0..schemes.len() {
            let (left, right) = (column(i, 3), column(j, 69));
            for (op, holds) in ops {
                let predicate = Predicate::parse(&format!("p.m.t{i}.u3 {op} p.m.t{j}.u69")).unwrap();
                let found = select(&reader, &predicate, None, PlanChoice::Auto).unwrap();
                let passes = |r: &u64| Some(holds(*left.get(r)?, *right.get(r)?));
                let want: Vec<u64> = (0..1600).filter(|r| passes(r) == Some(true)).collect();
                let mut rows = found.rows.clone();
                rows.sort_unstable();
                assert_eq!(rows, want, "{} {op} {}", schemes[i], schemes[j]);
                assert!(i == j || !want.is_empty() || op == "=", "{} {op} {}", schemes[i], schemes[j]);
            }
        }
    }
}

#[test]
fn distributions_on_codes_are_those_of_the_values() {
    for scheme in LAYER_SCHEMES {
        let special = !scheme.contains("kbit") && !scheme.contains("threshold");
        let store = store();
        let rows: Vec<u64> = (0..700).collect();
        tensor(&store, "m", "maps", &[5, 6, 6], &rows, activations(700 * 180, special), scheme);
        let class: ArrayRef = Arc::new(UInt32Array::from((0..700).map(|i| i % 3).collect::<Vec<u32>>()));
        table(&store, "m", "label", &rows, vec![("index", class)]);
        let reader = ChunkReader::new(&store);
        let answer = reader.get(&request("p.m.maps.u1..4")).unwrap();
        let (values, width) = (answer.to_f64().unwrap(), answer.columns.len());
        let near = store.intermediate(&"p.m.maps".parse().unwrap()).unwrap();
        let by = reader.operand(Some(&near), "label", Wanted::Name).unwrap();
        let by = reader.operand_scan(&by, PlanChoice::Auto).unwrap();
        let q = [0.0, 0.1, 0.5, 0.99, 1.0];
        let d = dist(&reader, &request("p.m.maps.u1..4"), Some(&by), 10, &q).unwrap();
        assert_eq!(d.groups.len(), 4);
        for (g, got) in d.groups.iter().enumerate() {
            let mut of: Vec<f64> = values
                .chunks(width)
                .enumerate()
                .filter(|(i, _)| g == 0 || i % 3 == g - 1)
                .flat_map(|(_, row)| row.iter().copied())
                .collect();
            let n = of.len();
            of.retain(|v| v.is_finite());
            of.sort_by(f64::total_cmp);
            assert_eq!(got.n as usize, of.len(), "{scheme}");
            assert_eq!((got.histogram.n_nan + got.histogram.n_infinite) as usize, n - of.len());
            assert_eq!(got.range, Some((of[0], of[of.len() - 1])));
            for (q, value) in &got.quantiles {
                let at = q * (of.len() - 1) as f64;
                let (a, b) = (of[at.floor() as usize], of[at.ceil() as usize]);
                assert!((value - (a + (b - a) * at.fract())).abs() < 1e-12, "{scheme} {q}");
            }
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            let std = (of.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / of.len() as f64).sqrt();
            assert!((got.mean.unwrap() - mean).abs() < 1e-9 && (got.std.unwrap() - std).abs() < 1e-9, "{scheme}");
            assert_eq!(got.histogram.counts.iter().sum::<u64>(), got.n);
        }
    }
}
