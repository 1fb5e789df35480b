//! Diagnostics against numpy, scipy and scikit-learn, and against plain loops over what a store answers.

mod common;

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, StringArray, UInt32Array, UInt64Array};
use common::{request, store, table, tensor};
use mistique_engine::Store;
use mistique_query::diagnostics::{
    By, Extreme, Labelled, MapsAs, Measure, Metric, Queries, class_metrics, confusion, corr, diff, dist, knn, mean,
    number_metrics, rowdiff, select, similarities, topk,
};
use mistique_query::{Cell, ChunkReader, PlanChoice, Predicate, QueryError, RowSelection, Wanted};
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/diagnostics.json")).unwrap()
}

fn f64s(v: &Value) -> Vec<f64> {
    match v {
        Value::Array(v) => v.iter().flat_map(f64s).collect(),
        v => vec![v.as_f64().unwrap_or(f64::NAN)],
    }
}

fn f32s(v: &Value) -> Vec<f32> {
    f64s(v).into_iter().map(|v| v as f32).collect()
}

fn u64s(v: &Value) -> Vec<u64> {
    f64s(v).into_iter().map(|v| v as u64).collect()
}

/// The fixture's values in a store.
fn filled() -> (Store, Value) {
    let (store, f) = (store(), fixture());
    let n = f["label"].as_array().unwrap().len();
    let rows: Vec<u64> = (0..n as u64).collect();
    tensor(&store, "m", "logits", &[4], &rows, f32s(&f["logits"]), "f32");
    tensor(&store, "m", "features", &[5], &rows, f32s(&f["features"]), "f32");
    tensor(&store, "m", "hidden", &[6], &rows, f32s(&f["hidden"]), "f32");
    let labels: Vec<u32> = u64s(&f["label"]).into_iter().map(|l| l as u32).collect();
    let names: StringArray = labels.iter().map(|l| Some(["frog", "ship", "cat", "dog"][*l as usize])).collect();
    let index: ArrayRef = Arc::new(UInt32Array::from(labels));
    table(&store, "m", "label", &rows, vec![("index", index), ("name", Arc::new(names))]);
    let price: ArrayRef = Arc::new(Float64Array::from(f64s(&f["actual"])));
    let guess: ArrayRef = Arc::new(Float64Array::from(f64s(&f["predicted"])));
    table(&store, "m", "homes", &rows, vec![("price", price), ("guess", guess)]);
    (store, f)
}

fn close(got: f64, want: &Value, tolerance: f64, what: &str) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}: {got}, expected {want}");
}

#[test]
fn classes_as_scikit_learn() {
    let (store, f) = filled();
    let reader = ChunkReader::new(&store);
    let open = || {
        Labelled::open(&reader, reader.prediction("p.m.logits", PlanChoice::Auto).unwrap(), "label", PlanChoice::Auto)
            .unwrap()
    };
    let want = &f["classes"];
    let m = class_metrics(&reader, &request("p.m.logits"), &mut open(), None, 15).unwrap();
    assert_eq!(m.confusion.classes, ["frog", "ship", "cat", "dog"]);
    assert_eq!(m.confusion.counts, want["confusion"].as_array().unwrap().iter().map(u64s).collect::<Vec<_>>());
    close(m.confusion.accuracy().unwrap(), &want["accuracy"], 1e-12, "accuracy");
    close(m.macro_mean(|c| c.f1).unwrap(), &want["macro_f1"], 1e-12, "macro F1");
    close(m.log_loss.unwrap(), &want["log_loss"], 1e-12, "log loss");
    close(m.calibration_error.unwrap(), &want["calibration_error"], 1e-12, "calibration");
    for (c, class) in m.classes.iter().enumerate() {
        close(class.precision.unwrap(), &want["precision"][c], 1e-12, "precision");
        close(class.recall.unwrap(), &want["recall"][c], 1e-12, "recall");
        close(class.f1.unwrap(), &want["f1"][c], 1e-12, "F1");
        close(m.curves[c].curves.auroc.unwrap(), &want["auroc"][c], 1e-12, "AUROC");
        close(m.curves[c].curves.average_precision.unwrap(), &want["average_precision"][c], 1e-12, "AP");
    }
    let curve = &m.curves[0].curves;
    for (got, name) in
        [(&curve.false_positive_rate, "fpr"), (&curve.true_positive_rate, "tpr"), (&curve.thresholds, "thresholds")]
    {
        let want = f64s(&want["roc_0"][name]);
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{name}");
    }
    // The examples of a cell, by name and by number, are those that a loop finds.
    let (logits, labels) = (f64s(&f["logits"]), u64s(&f["label"]));
    let argmax = |r: &[f64]| (0..4).rev().max_by(|a, b| r[*a].total_cmp(&r[*b])).unwrap() as u64;
    let cell: Vec<u64> = (0..labels.len())
        .filter(|i| argmax(&logits[i * 4..i * 4 + 4]) == 0 && labels[*i] == 1)
        .map(|i| i as u64)
        .collect();
    for (predicted, actual) in [("frog", "ship"), ("0", "1")] {
        let found = confusion(&mut open(), Some(predicted), Some(actual)).unwrap();
        assert_eq!(found.examples.iter().map(|e| e.0).collect::<Vec<_>>(), cell);
    }
    let e = confusion(&mut open(), Some("frogg"), None).unwrap_err().to_string();
    assert!(e.contains("nearest: frog"), "{e}");
}

#[test]
fn numbers_as_scikit_learn_and_scipy() {
    let (store, f) = filled();
    let reader = ChunkReader::new(&store);
    let near = store.intermediate(&"p.m.homes".parse().unwrap()).unwrap();
    let open = |text: &str| {
        let operand = reader.operand(Some(&near), text, Wanted::Number).unwrap();
        reader.operand_scan(&operand, PlanChoice::Auto).unwrap()
    };
    let (guess, price) = (open("homes.guess"), open("homes.price"));
    let rows: Vec<u64> = guess.rows().iter().collect();
    let m = number_metrics(&guess, &price, &rows).unwrap();
    close(m.mse.unwrap(), &f["regression"]["mse"], 1e-12, "mse");
    close(m.mae.unwrap(), &f["regression"]["mae"], 1e-12, "mae");
    close(m.r2.unwrap(), &f["regression"]["r2"], 1e-12, "r2");
    let none = number_metrics(&guess, &price, &[]).unwrap();
    assert_eq!((none.n, none.mse, none.r2), (0, None, None));
    assert_eq!(number_metrics(&guess, &price, &[3]).unwrap().r2, None, "one actual value has no variance");

    let c = corr(&reader, &request("p.m.features"), &price, Some(&guess)).unwrap();
    for (i, column) in c.columns.iter().enumerate() {
        if i == 2 {
            assert_eq!((column.pearson, column.spearman), (None, None), "a constant goes with nothing");
            continue;
        }
        close(column.pearson.unwrap(), &f["pearson"][i], 1e-12, "Pearson");
        close(column.spearman.unwrap(), &f["spearman"][i], 1e-12, "Spearman");
    }
    assert_eq!(c.columns[4].n, rows.len() as u64 - 1, "a NaN is left out");
}

#[test]
fn distributions_and_means_as_numpy() {
    let (store, f) = filled();
    let reader = ChunkReader::new(&store);
    let near = store.intermediate(&"p.m.features".parse().unwrap()).unwrap();
    let by = reader.operand(Some(&near), "label.index", Wanted::Name).unwrap();
    let by = reader.operand_scan(&by, PlanChoice::Auto).unwrap();
    let q = f64s(&f["q"]);
    let d = dist(&reader, &request("p.m.features.u0"), Some(&by), 7, &q).unwrap();
    assert_eq!(d.groups.len(), 5);
    for (got, want) in d.groups.iter().zip(std::iter::once(&f["dist"]).chain(f["dist_by_label"].as_array().unwrap())) {
        assert_eq!(got.histogram.counts, u64s(&want["counts"]));
        assert_eq!(got.n, want["n"].as_u64().unwrap());
        close(got.mean.unwrap(), &want["mean"], 1e-12, "mean");
        close(got.std.unwrap(), &want["std"], 1e-12, "std");
        for (i, (_, value)) in got.quantiles.iter().enumerate() {
            close(*value, &want["quantiles"][i], 1e-14, "quantile");
        }
    }
    let m = mean(&reader, &request("p.m.features.u0..4"), &by).unwrap();
    assert_eq!(m.groups.iter().map(|g| g.0.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let want = f64s(&f["mean_by_label"]);
    assert!(m.means.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{:?} {want:?}", m.means);
}

#[test]
fn neighbours_as_scikit_learn() {
    let (store, f) = filled();
    let reader = ChunkReader::new(&store);
    for metric in [Metric::L2, Metric::Cosine] {
        let want = &f["knn"][metric.name()];
        let queries = Queries::Rows(vec![0, 7, 20]);
        let answer = knn(&reader, &request("p.m.hidden"), &queries, 11, metric).unwrap();
        for (i, found) in answer.queries.iter().enumerate() {
            // scikit-learn counts the example itself (or its twin) first.
            let (rows, distances) = (u64s(&want["rows"][i]), f64s(&want["distance"][i]));
            let expected: Vec<(u64, f64)> =
                rows.into_iter().zip(distances).filter(|(r, _)| Some(*r) != found.of).take(11).collect();
            for (got, want) in found.rows.iter().zip(&expected) {
                assert_eq!(got.0, want.0, "{metric:?}");
                assert!((got.1 - want.1).abs() < 1e-6, "{metric:?}: {got:?} {want:?}");
            }
            assert_eq!(found.rows.len(), 11);
        }
        // A vector that is not in the store finds the example that it is.
        let vector = Queries::Vectors(f32s(&f["hidden"])[..6].iter().map(|v| f64::from(*v)).collect());
        let answer = knn(&reader, &request("p.m.hidden"), &vector, 1, metric).unwrap();
        assert_eq!(answer.queries[0].rows[0].0, 0);
    }
    let bad = |q: Queries, metric| knn(&reader, &request("p.m.hidden"), &q, 3, metric).unwrap_err();
    assert!(matches!(bad(Queries::Vectors(vec![1.0; 7]), Metric::L2), QueryError::Mismatch { .. }));
    assert!(matches!(bad(Queries::Vectors(vec![f64::NAN; 6]), Metric::L2), QueryError::Mismatch { .. }));
    assert!(matches!(bad(Queries::Vectors(vec![0.0; 6]), Metric::Cosine), QueryError::Mismatch { .. }));
    assert!(matches!(bad(Queries::Rows(vec![9999]), Metric::L2), QueryError::Engine(_)));
    let all = knn(&reader, &request("p.m.hidden"), &Queries::Rows(vec![3]), 1000, Metric::L2).unwrap();
    assert_eq!(all.queries[0].rows.len(), 89, "as many as there are");
}

#[test]
fn integers_times_and_columns_compare_exactly() {
    let store = store();
    let rows = [3, 1, 2, 0];
    let big = 9_007_199_254_740_993i64;
    let id: ArrayRef = Arc::new(Int64Array::from(vec![Some(big), Some(big - 1), None, Some(-5)]));
    let hash: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX - 1, 1, 0]));
    let day: ArrayRef = Arc::new(Date32Array::from(vec![19_000, 19_001, 19_002, 19_003]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a", "c"]));
    table(&store, "m", "t", &rows, vec![("id", id), ("hash", hash), ("day", day), ("text", text)]);
    tensor(&store, "m", "x", &[2], &[0, 1, 2, 5], vec![0.0, 1.0, 2.0, 1.0, 3.0, 3.0, 9.0, 9.0], "f32");
    tensor(&store, "other", "x", &[2], &[0, 1, 2, 3], vec![0.0, 5.0, 1.0, 5.0, 3.0, 5.0, 9.0, 5.0], "f32");
    let reader = ChunkReader::new(&store);
    let ask = |text: &str| {
        let s = select(&reader, &Predicate::parse(text).unwrap(), None, PlanChoice::Auto).unwrap();
        (s.rows, s.n_unknown)
    };
    // As f64, 2^53 + 1 would equal 2^53.
    assert_eq!(ask("p.m.t.id = 9007199254740993"), (vec![3], 1));
    assert_eq!(ask("p.m.t.id < 9007199254740993"), (vec![0, 1], 1));
    assert_eq!(ask("p.m.t.hash > 18446744073709551614"), (vec![3], 0));
    assert_eq!(ask("p.m.t.hash >= 0.5"), (vec![1, 2, 3], 0));
    assert_eq!(ask("p.m.t.day >= '2022-01-09'"), (vec![0, 1, 2], 0));
    assert_eq!(ask("p.m.t.text = 'a' and not t.id = -5"), (vec![3], 1));
    // A whole table stands for its first column of the kind that is compared.
    assert_eq!(ask("p.m.t = 'c'"), (vec![0], 0));
    // Columns of one model, and of two over the rows that both have.
    assert_eq!(ask("p.m.x.u0 >= x.u1"), (vec![1, 2, 5], 0));
    assert_eq!(ask("p.m.x.u0 > p.other.x.u0"), (vec![1], 1));
    assert_eq!(ask("p.m.x.u0 = p.other.x.u0 or p.m.x.u0 > 8"), (vec![0, 2, 5], 0));
    for (bad, says) in [
        ("p.m.t.day > 3", "'2024-05-31'"),
        ("p.m.t.day > 'soon'", "is none"),
        ("p.m.t.text > 3", "compare it with 'text'"),
        ("p.m.t.text = p.m.t.id", "different kinds"),
        ("p.m.x > 3", "it has 2 columns"),
        ("p.m.y.u0 > 3", "nearest"),
        ("p.m.x.u7 > 3", "u0 to u1"),
    ] {
        let e = select(&reader, &Predicate::parse(bad).unwrap(), None, PlanChoice::Auto).unwrap_err().to_string();
        assert!(e.contains(says), "{bad}: {e}");
    }
}

#[test]
fn differences_by_hand() {
    let store = store();
    let class: ArrayRef = Arc::new(UInt32Array::from(vec![0, 0, 1, 1]));
    tensor(&store, "a", "x", &[2], &[0, 1, 2, 3], vec![1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 5.0, f32::NAN], "f32");
    tensor(&store, "b", "x", &[2], &[1, 2, 3, 9], vec![2.5, 3.0, 0.0, 1.0, 4.0, 7.0, 0.0, 0.0], "f32");
    table(&store, "a", "label", &[0, 1, 2, 3], vec![("index", class)]);
    let reader = ChunkReader::new(&store);
    let near = store.intermediate(&"p.a.x".parse().unwrap()).unwrap();
    let by = reader.operand(Some(&near), "label", Wanted::Name).unwrap();
    let by = reader.operand_scan(&by, PlanChoice::Auto).unwrap();
    let d = diff(&reader, &request("p.a.x"), &request("p.b.x"), Some(&by)).unwrap();
    assert_eq!(d.unshared, [1, 1]);
    let all = &d.groups[0];
    // Row 1: 0.5 and 2; row 2: equal; row 3: 1 and a NaN.
    assert_eq!((all.n_rows, all.max_abs, all.max_row, all.n_not_finite), (3, 2.0, Some(1), 1));
    assert_eq!(all.mean_abs, Some(3.5 / 5.0));
    assert_eq!(all.rms, Some((5.25f64 / 5.0).sqrt()));
    let changed: Vec<(u64, &str, &str)> =
        d.changed.as_ref().unwrap().iter().map(|c| (c.row, c.a.as_str(), c.b.as_str())).collect();
    assert_eq!(changed, [(1, "0", "1"), (3, "0", "1")]);
    assert_eq!(d.groups[1].group.as_deref(), Some("0"));
    assert_eq!((d.groups[1].n_rows, d.groups[1].n_changed, d.groups[2].n_changed), (1, 1, 1));
    assert_eq!(diff(&reader, &request("p.a.x.u0"), &request("p.b.x.u0"), None).unwrap().changed, None);
    let e = diff(&reader, &request("p.a.x"), &request("p.b.x.u0"), None).unwrap_err();
    assert!(matches!(e, QueryError::Mismatch { .. }), "{e}");

    let (columns, _) = rowdiff(&reader, &request("p.a.x"), 1, 3).unwrap();
    assert_eq!((columns[0].column.as_str(), columns[0].difference), ("u0", Some(3.0)));
    assert_eq!((&columns[0].a, &columns[0].b), (&Some(Cell::Float(2.0)), &Some(Cell::Float(5.0))));
    assert!(columns[1].difference.unwrap().is_nan(), "NaN comes last");
    assert!(rowdiff(&reader, &request("p.a.x"), 1, 77).is_err());
}

#[test]
fn questions_about_differences_keep_large_integers() {
    let store = store();
    let big = 1i64 << 60;
    let column = |v: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(v)) };
    let ends = vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX];
    let columns = vec![
        ("a", column((big..big + 6).collect())),
        ("y", column((0..6).collect())),
        ("ends", column(ends)),
        ("c", column([1, 1, 2, 5, 4, 3].map(|k| big + k).to_vec())),
    ];
    table(&store, "m", "t", &[0, 1, 2, 3, 4, 5], columns);
    let reader = ChunkReader::new(&store);

    let near = |key: &str, row, metric| {
        let found = knn(&reader, &request(key), &Queries::Rows(vec![row]), 3, metric).unwrap();
        found.queries[0].rows.clone()
    };
    assert_eq!(near("p.m.t.a", 0, Metric::L2), [(1, 1.0), (2, 2.0), (3, 3.0)]);
    assert_eq!(near("p.m.t.a", 4, Metric::L2), [(3, 1.0), (5, 1.0), (2, 2.0)]);
    // By a and y both, the distance is √2 a row.
    let diagonal = [1.0f64, 2.0, 3.0].map(|k| (2.0 * k * k).sqrt());
    assert_eq!(near("p.m.t.a,y", 0, Metric::L2), [(1, diagonal[0]), (2, diagonal[1]), (3, diagonal[2])]);
    assert_eq!(near("p.m.t.ends", 0, Metric::L2)[0], (1, 1.0));
    assert_eq!(near("p.m.t.ends", 3, Metric::L2)[..2], [(2, 1.0), (4, 1.0)]);

    let operand = reader.operand(None, "p.m.t.y", Wanted::Number).unwrap();
    let y = reader.operand_scan(&operand, PlanChoice::Auto).unwrap();
    let operand = reader.operand(None, "p.m.t.a", Wanted::Number).unwrap();
    let a = reader.operand_scan(&operand, PlanChoice::Auto).unwrap();
    let found = corr(&reader, &request("p.m.t"), &y, None).unwrap().columns;
    // By numpy, of the values less 2^60, and in extended precision of the ends of the range.
    let want = [
        ("a", 1.0, 1.0),
        ("y", 1.0, 1.0),
        ("ends", 0.923_093_083_245_744_2, 1.0),
        ("c", 0.720_119_037_778_774_8, 0.753_702_346_348_183),
    ];
    for (c, (name, pearson, spearman)) in found.iter().zip(want) {
        assert_eq!((c.column.as_str(), c.n), (name, 6));
        assert!((c.pearson.unwrap() - pearson).abs() < 1e-12, "{name}: {:?}", c.pearson);
        assert!((c.spearman.unwrap() - spearman).abs() < 1e-12, "{name}: {:?}", c.spearman);
    }
    let by_norm = |key: &str| {
        let found = topk(&reader, &request(key), 3, Some(By::Norm), Extreme::Highest).unwrap().units.remove(0);
        let cells: Vec<String> = found.cells.unwrap().iter().map(ToString::to_string).collect();
        (found.rows.iter().map(|r| r.0).collect::<Vec<_>>(), cells)
    };
    assert_eq!(by_norm("p.m.t.a").0, [5, 4, 3]);
    let most = ["9223372036854775808", "9223372036854775807", "9223372036854775807"].map(String::from);
    assert_eq!(by_norm("p.m.t.ends"), (vec![0, 1, 5], most.to_vec()));

    let d = dist(&reader, &request("p.m.t.a"), Some(&y), 3, &[0.0, 0.5, 1.0]).unwrap();
    let all = &d.groups[0];
    assert_eq!((d.offset, all.n, all.mean, all.range), (i128::from(big), 6, Some(2.5), Some((0.0, 5.0))));
    assert_eq!(
        (all.quantiles.as_slice(), &all.histogram.counts[..]),
        (&[(0.0, 0.0), (0.5, 2.5), (1.0, 5.0)][..], &[2; 3][..])
    );
    assert!((all.std.unwrap() - (35.0f64 / 12.0).sqrt()).abs() < 1e-12);
    assert_eq!(d.groups[4].range, Some((3.0, 3.0)));
    let written = [0.0, 2.5, 5.0].map(|v| d.time(v).unwrap());
    assert_eq!(written, ["1152921504606846976", "1152921504606846978.5", "1152921504606846981"]);
    // Their differences would be rounded as they are.
    let d = dist(&reader, &request("p.m.t.ends"), None, 3, &[0.4, 0.6]).unwrap();
    assert_eq!((d.offset, &d.groups[0].quantiles[..]), (0, &[(0.4, -1.0), (0.6, 0.0)][..]));

    // A target of large integers, and one that is what they are more than others.
    let found = corr(&reader, &request("p.m.t.y"), &a, None).unwrap().columns;
    assert!((found[0].pearson.unwrap() - 1.0).abs() < 1e-12);
    let found = corr(&reader, &request("p.m.t.a"), &a, Some(&y)).unwrap().columns;
    assert_eq!(found[0].pearson, None, "what is left is constant");

    for measure in [Measure::Svcca { threshold: 0.99 }, Measure::Cca, Measure::Pwcca, Measure::LinearCka] {
        let both = [request("p.m.t.a"), request("p.m.t.y")];
        let found = similarities(&reader, &both, &[(0, 1)], measure, MapsAs::Mean, &mut |_, _| {}).unwrap();
        let value = found.values[0].as_ref().unwrap().value;
        assert!((value - 1.0).abs() < 1e-9, "{measure:?}: {value}");
    }
}

#[test]
fn distributions_at_the_ends_of_float64() {
    let store = store();
    let column = |v: [f64; 4]| -> ArrayRef { Arc::new(Float64Array::from(v.to_vec())) };
    let columns = vec![
        ("large", column([1e308, 1e308, -1e308, f64::NAN])),
        ("two", column([-1e308, 1e308, f64::NAN, f64::INFINITY])),
        ("small", column([3e-200, 0.0, 3e-200, 0.0])),
    ];
    table(&store, "m", "t", &[0, 1, 2, 3], columns);
    let reader = ChunkReader::new(&store);
    let of =
        |name: &str| dist(&reader, &request(&format!("p.m.t.{name}")), None, 2, &[0.25, 0.5]).unwrap().groups.remove(0);
    let near =
        |got: Option<f64>, want: f64| assert!((got.unwrap() / want - 1.0).abs() < 1e-12, "{got:?}, not {want:e}");
    let large = of("large");
    near(large.mean, 1e308 / 3.0);
    near(large.std, 8f64.sqrt() / 3.0 * 1e308);
    assert_eq!((large.range, &large.histogram.counts[..]), (Some((-1e308, 1e308)), &[1, 2][..]));
    let two = of("two");
    assert_eq!((two.mean, two.std), (Some(0.0), Some(1e308)));
    assert_eq!((&two.quantiles[..], &two.histogram.counts[..]), (&[(0.25, -5e307), (0.5, 0.0)][..], &[1, 1][..]));
    let small = of("small");
    near(small.mean, 1.5e-200);
    near(small.std, 1.5e-200);
}

#[test]
fn similarities_at_the_ends_of_float64() {
    let store = store();
    let rows: Vec<u64> = (0..8).collect();
    let x = [[1.0, 5.0, -2.0, 0.5, 3.0, -4.0, 2.0, 1.0], [2.0, -1.0, 0.0, 4.0, 1.0, 1.5, -3.0, 0.0]];
    let y = [0.0, 4.0, -1.0, 3.0, 1.0, -5.0, 1.0, 2.0];
    let column =
        |v: &[f64], scale: f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(v.iter().map(|v| v * scale))) };
    table(&store, "m", "y", &rows, vec![("y", column(&y, 1.0))]);
    let powers = [-1000, -540, -340, 0, 340, 500, 515, 1000];
    for (i, power) in powers.into_iter().enumerate() {
        let scale = 2f64.powi(power);
        let columns = vec![("a", column(&x[0], scale)), ("b", column(&x[1], scale))];
        table(&store, "m", &format!("x{i}"), &rows, columns);
    }
    let reader = ChunkReader::new(&store);
    // By numpy: linear CKA, and the one canonical correlation with both columns.
    let measures = [
        (Measure::LinearCka, 0.612_950_527_360_475_3),
        (Measure::Cca, 0.873_855_590_759_860_2),
        (Measure::Pwcca, 0.873_855_590_759_860_2),
    ];
    for (measure, want) in measures.into_iter().chain([(Measure::Svcca { threshold: 0.99 }, 0.873_855_590_759_860_2)]) {
        for (i, power) in powers.into_iter().enumerate() {
            let both = [request(&format!("p.m.x{i}")), request("p.m.y")];
            let found = similarities(&reader, &both, &[(0, 1)], measure, MapsAs::Mean, &mut |_, _| {}).unwrap();
            let value = found.values[0].as_ref().unwrap().value;
            assert!((value - want).abs() < 1e-9, "{measure:?} at 2^{power}: {value}, not {want}");
        }
    }
}

#[test]
fn integers_that_float64_does_not_tell_apart() {
    let store = store();
    let most = i64::MAX;
    let values = [Some(5), Some(most - 2), None, Some(most), Some(i64::MIN), Some(most - 1)];
    let other = [Some(5), Some(most - 3), Some(0), Some(most), Some(i64::MIN + 1), Some(most)];
    let rows = [0, 1, 2, 3, 4, 5];
    let big = |v: [Option<i64>; 6]| -> ArrayRef { Arc::new(Int64Array::from(v.to_vec())) };
    let day: ArrayRef = Arc::new(Date32Array::from(vec![1, 2, 0, 19_000, 4, 5]));
    let text = |of: &str| -> ArrayRef { Arc::new(StringArray::from(vec![of; 6])) };
    table(&store, "m", "a", &rows, vec![("big", big(values)), ("day", day.clone()), ("text", text("x"))]);
    table(&store, "m", "b", &rows, vec![("big", big(other)), ("day", day), ("text", text("y"))]);
    let reader = ChunkReader::new(&store);
    let top = |key: &str, extreme| {
        let found = topk(&reader, &request(key), 3, None, extreme).unwrap().units.remove(0);
        let cells: Vec<String> = found.cells.unwrap().iter().map(ToString::to_string).collect();
        (found.rows.iter().map(|r| r.0).collect::<Vec<_>>(), cells, found.n_nan)
    };
    let (found, cells, n_null) = top("p.m.a.big", Extreme::Highest);
    assert_eq!((found, n_null), (vec![3, 5, 1], 1));
    assert_eq!(cells, [most, most - 1, most - 2].map(|v| v.to_string()));
    assert_eq!(top("p.m.a.big", Extreme::Lowest).0, [4, 0, 1]);
    assert_eq!(top("p.m.a.big", Extreme::Farthest).0, [4, 3, 5]);
    assert_eq!(top("p.m.a.day", Extreme::Highest).1, ["2022-01-08", "1970-01-06", "1970-01-05"]);
    let days = dist(&reader, &request("p.m.a.day"), None, 5, &[0.5]).unwrap();
    let (range, middle) = (days.groups[0].range.unwrap(), days.groups[0].quantiles[0].1);
    let written = [range.0, middle, range.1, f64::INFINITY].map(|v| days.time(v));
    assert_eq!(
        written.each_ref().map(Option::as_deref),
        [Some("1970-01-01"), Some("1970-01-04"), Some("2022-01-08"), None]
    );
    assert_eq!(dist(&reader, &request("p.m.a.big"), None, 5, &[0.5]).unwrap().time(0.0), None);

    let (columns, _) = rowdiff(&reader, &request("p.m.a"), 5, 3).unwrap();
    assert_eq!(columns.iter().find(|c| c.column == "big").unwrap().difference, Some(1.0));

    let d = diff(&reader, &request("p.m.a.big"), &request("p.m.b.big"), None).unwrap();
    let all = &d.groups[0];
    assert_eq!((all.max_abs, all.max_row, all.n_changed, all.n_not_finite), (1.0, Some(1), 4, 1));
    assert_eq!(all.mean_abs, Some(3.0 / 5.0));
    // A table that is named whole is compared by its numbers, text aside.
    let d = diff(&reader, &request("p.m.a"), &request("p.m.b"), None).unwrap();
    assert_eq!((d.groups[0].mean_abs, d.groups[0].n_not_finite), (Some(3.0 / 11.0), 1));
    let (a, b) = (request("p.m.a.big,text"), request("p.m.b.big,text"));
    assert_eq!(diff(&reader, &a, &b, None).unwrap().groups[0].mean_abs, Some(3.0 / 5.0));
    // More rows than rank, in any order.
    let n = 5000u64;
    let many: Vec<Option<i64>> = (0..n).map(|i| Some(most - ((i * 2654435761) % 1009) as i64)).collect();
    let all: Vec<u64> = (0..n).collect();
    table(&store, "m", "many", &all, vec![("big", Arc::new(Int64Array::from(many.clone())))]);
    let found = topk(&reader, &request("p.m.many"), 40, None, Extreme::Highest).unwrap().units.remove(0);
    let mut sorted = all.clone();
    sorted.sort_by_key(|row| (std::cmp::Reverse(many[*row as usize]), *row));
    assert_eq!(found.rows.iter().map(|r| r.0).collect::<Vec<_>>(), sorted[..40]);

    let scan = |of: &str| {
        let operand = reader.operand(None, of, mistique_query::Wanted::Number).unwrap();
        reader.operand_scan(&operand, PlanChoice::Auto).unwrap()
    };
    let m = number_metrics(&scan("p.m.a.big"), &scan("p.m.b.big"), &rows).unwrap();
    assert_eq!((m.mae, m.n), (Some(3.0 / 5.0), 5));
    // Reductions are of a table's numbers too, of all or of some.
    let passes = |text: &str| {
        select(&reader, &mistique_query::Predicate::parse(text).unwrap(), None, PlanChoice::Auto).unwrap().rows
    };
    assert_eq!(passes("p.m.a.max > 1e18"), [1, 3, 5]);
    assert_eq!(passes("p.m.a.big,day.argmax = 1"), [2, 4]);
}

#[test]
fn rows_that_are_not_asked_about_are_told() {
    let store = store();
    tensor(&store, "m", "x", &[1], &[0, 1, 2, 3], vec![1.0, 0.0, 1.0, 0.0], "f32");
    tensor(&store, "m", "y", &[1], &[2, 3, 10, 11, 12], vec![0.0, 1.0, 1.0, 1.0, 1.0], "f32");
    let reader = ChunkReader::new(&store);
    let ask = |text: &str| {
        let predicate = mistique_query::Predicate::parse(text).unwrap();
        select(&reader, &predicate, None, PlanChoice::Auto).unwrap()
    };
    let found = ask("p.m.x.u0 > 0 or p.m.y.u0 > 0");
    assert_eq!((found.rows, found.n_rows), (vec![0, 2, 3], 4));
    assert_eq!(found.unshared.iter().map(|(k, n)| (k.to_string(), *n)).collect::<Vec<_>>(), [("p.m.y".into(), 3)]);
    let found = ask("p.m.y.u0 > 0 or p.m.x.u0 > 0");
    assert_eq!((found.rows, found.n_rows, found.unshared[0].1), (vec![2, 3, 10, 11, 12], 5, 2));
    assert!(ask("p.m.x.u0 > 0 and row_id < 2").unshared.is_empty());
}

#[test]
fn nothing_one_row_and_nan_are_defined() {
    let store = store();
    tensor(&store, "m", "x", &[3], &[4], vec![1.0, f32::NAN, 2.0], "f32");
    let class: ArrayRef = Arc::new(UInt32Array::from(vec![2]));
    table(&store, "m", "label", &[4], vec![("index", class)]);
    let reader = ChunkReader::new(&store);
    let near = store.intermediate(&"p.m.x".parse().unwrap()).unwrap();
    let by = reader.operand(Some(&near), "label", Wanted::Name).unwrap();
    let by = reader.operand_scan(&by, PlanChoice::Auto).unwrap();
    let none = RowSelection::Range(0..0);
    let top = topk(&reader, &request("p.m.x"), 5, None, Extreme::Highest).unwrap();
    assert_eq!(top.units[0].rows, [(4, 1.0)]);
    assert_eq!((top.units[1].rows.len(), top.units[1].n_nan), (0, 1));
    let top = topk(&reader, &request("p.m.x").with_rows(none.clone()), 5, None, Extreme::Highest).unwrap();
    assert!(top.n_rows == 0 && top.units.iter().all(|u| u.rows.is_empty()));
    for request in [request("p.m.x"), request("p.m.x.u1"), request("p.m.x").with_rows(none.clone())] {
        let d = dist(&reader, &request, Some(&by), 4, &[0.5]).unwrap();
        assert_eq!(d.groups[0].n, if d.groups[0].mean.is_some() { 2 } else { 0 });
        let c = corr(&reader, &request, &by, None).unwrap();
        assert!(c.columns.iter().all(|c| c.pearson.is_none()));
        assert!(mean(&reader, &request, &by).is_ok());
    }
    let alone = knn(&reader, &request("p.m.x.u0"), &Queries::Rows(vec![4]), 3, Metric::L2).unwrap();
    assert!(alone.queries[0].rows.is_empty(), "its own neighbour it is not");
    let mut both =
        Labelled::open(&reader, reader.prediction("p.m.x", PlanChoice::Auto).unwrap(), "label", PlanChoice::Auto)
            .unwrap();
    let m = class_metrics(&reader, &request("p.m.x"), &mut both, None, 15).unwrap();
    assert_eq!(m.confusion.accuracy(), Some(1.0));
    assert!(dist(&reader, &request("p.m.x"), None, 0, &[]).is_err());
    assert!(dist(&reader, &request("p.m.x"), None, 3, &[1.5]).is_err());
    let e = topk(&reader, &request("p.m.y"), 1, None, Extreme::Highest).unwrap_err().to_string();
    assert!(e.contains('x'), "the nearest are named: {e}");
}

#[test]
fn nulls_row_ids_and_text_columns() {
    let store = store();
    let kind: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("a")]));
    let size: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None, Some(4.0)]));
    let rank: ArrayRef = Arc::new(Int64Array::from(vec![4, 3, 2, 1]));
    table(&store, "m", "t", &[0, 1, 2, 3], vec![("kind", kind), ("size", size), ("rank", rank)]);
    tensor(&store, "m", "x", &[2, 1, 2], &[0, 1, 2, 3], (0..16).map(|i| i as f32).collect(), "f16");
    let reader = ChunkReader::new(&store);
    let passing = |text: &str| {
        let of = "p.m.x".parse().unwrap();
        select(&reader, &Predicate::parse(text).unwrap(), Some(&of), PlanChoice::Auto).unwrap().rows
    };
    assert_eq!(passing("t.kind is null or t.size is null"), [1, 2]);
    assert_eq!(passing("t.size is not null and row_id >= 1"), [1, 3]);
    assert_eq!(passing("not t.size is null"), [0, 1, 3]);
    // Ranks fall from 4 to 1 as row_ids rise from 0 to 3.
    assert_eq!((passing("t.rank > row_id"), passing("row_id < t.rank")), (vec![0, 1], vec![0, 1]));
    assert_eq!(passing("row_id = row_id"), [0, 1, 2, 3]);
    // Of a unit's map and of a cell range: u1 of row r holds 4r + 2 and 4r + 3.
    assert_eq!(passing("x.u1.max = 7"), [1]);
    assert_eq!(passing("x.u1.mean > 10"), [2, 3]);
    assert_eq!(passing("x.max = x.u1.max"), [0, 1, 2, 3]);

    // Rows whose group is null are among all rows and in no group, and are counted; codes and values alike.
    let near = store.intermediate(&"p.m.x".parse().unwrap()).unwrap();
    let by = reader.operand(Some(&near), "t.kind", Wanted::Name).unwrap();
    let by = reader.operand_scan(&by, PlanChoice::Auto).unwrap();
    for of in ["p.m.x", "p.m.t.rank"] {
        let d = dist(&reader, &request(of), Some(&by), 4, &[0.5]).unwrap();
        let width = if of == "p.m.x" { 4 } else { 1 };
        assert_eq!((d.n_ungrouped, d.groups[0].n), (1, 4 * width), "{of}");
        assert_eq!(d.groups.iter().skip(1).map(|g| g.n).collect::<Vec<_>>(), [2 * width, width]);
        let d = diff(&reader, &request(of), &request(of), Some(&by)).unwrap();
        assert_eq!((d.n_ungrouped, d.groups[0].n_rows), (1, 4));
    }
    assert!(dist(&reader, &request("p.m.x"), None, usize::MAX, &[0.5]).is_err());

    // What computes with numbers leaves text out of a table that is named whole.
    let target = reader.operand(Some(&near), "x.u0[0,0]", Wanted::Number).unwrap();
    let target = reader.operand_scan(&target, PlanChoice::Auto).unwrap();
    let some = request("p.m.t").with_rows(RowSelection::Range(0..2));
    let c = corr(&reader, &some, &target, None).unwrap();
    assert_eq!(c.columns.iter().map(|c| c.column.as_str()).collect::<Vec<_>>(), ["size", "rank"]);
    assert_eq!(c.unshared, [0, 0], "what the target has beyond the selection is not missed");
    assert!((c.columns[1].pearson.unwrap() + 1.0).abs() < 1e-12);
    assert_eq!(reader.left_out(&"p.m.t".parse().unwrap()).unwrap(), ["kind"]);
    let found = similarities(
        &reader,
        &[request("p.m.t").with_rows(RowSelection::List(vec![0, 1, 3])), request("p.m.x")],
        &[(0, 1)],
        Measure::LinearCka,
        MapsAs::Mean,
        &mut |_, _| {},
    )
    .unwrap();
    assert_eq!((found.sides[0].n_columns, &found.sides[0].left_out[..]), (2, &["kind".to_string()][..]));
    assert_eq!(topk(&reader, &request("p.m.t"), 1, None, Extreme::Highest).unwrap().units.len(), 2);
    assert!(topk(&reader, &request("p.m.t.kind"), 1, None, Extreme::Highest).is_err());
}

#[test]
fn rows_that_a_predicate_leaves_open_are_told() {
    let store = store();
    tensor(&store, "m", "all", &[2], &[0, 1, 2, 3, 4], (0..10).map(|i| i as f32).collect(), "f32");
    tensor(&store, "m", "some", &[1], &[0, 1, 2], vec![1.0, 0.0, 1.0], "f32");
    let told = std::sync::Mutex::new(Vec::new());
    let reader = ChunkReader::new(&store).with_notices(|notice| told.lock().unwrap().push(notice.to_string()));
    let asked = |text: &str| request("p.m.all").with_rows(RowSelection::Where(Predicate::parse(text).unwrap()));
    assert_eq!(reader.get(&asked("some.u0 > 0.5")).unwrap().rows, [0, 2]);
    let first = told.lock().unwrap().first().cloned().unwrap();
    assert!(first.contains("2 of 5 rows of p.m.all are left out") && first.contains("some.u0 > 0.5"), "{first}");
    told.lock().unwrap().clear();
    reader.get(&asked("all.u0 > 3")).unwrap();
    assert!(told.lock().unwrap().is_empty());

    // A whole key that is not there is named as it was given; what is relative, as it was taken.
    let near = store.intermediate(&"p.m.all".parse().unwrap()).unwrap();
    let error = |text: &str| reader.operand(Some(&near), text, Wanted::Number).unwrap_err().to_string();
    let whole = error("p.m.sme.u0");
    assert!(whole.contains("p.m.sme") && whole.contains("some"), "{whole}");
    let relative = error("sme.u0");
    assert!(relative.contains("p.m.sme") && relative.contains("some"), "{relative}");
}
