//! Metrics of scores by hand: what they are taken for, and which rows they leave out.

mod common;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array};
use common::{request, store, table, tensor};
use mistique_query::diagnostics::{Labelled, Scores, binary_metrics, class_metrics, confusion};
use mistique_query::{ChunkReader, PlanChoice};

#[test]
fn scores_are_told_by_what_they_add_up_to() {
    // Shares of which a few bits are left, which add up to 1 in the mean; the same times two; and numbers below 0.
    let share = |i: usize, j: usize| if i % 10 == j { 0.82 + 0.01 * (i % 9) as f32 - 0.04 } else { 0.02 };
    let shares: Vec<f32> = (0..900).flat_map(|i| (0..10).map(move |j| share(i, j))).collect();
    let store = store();
    let rows: Vec<u64> = (0..900).collect();
    let truth: ArrayRef = Arc::new(Int64Array::from((0..900).map(|i| i % 10).collect::<Vec<_>>()));
    table(&store, "m", "y", &rows, vec![("truth", truth)]);
    for (name, by, less, want) in [
        ("shares", 1.0, 0.0, Scores::Probabilities),
        ("more", 1.15, 0.0, Scores::Logits),
        ("logits", 3.0, 1.0, Scores::Logits),
    ] {
        let values = shares.iter().map(|v| v * by - less).collect();
        tensor(&store, "m", name, &[10], &rows, values, "f32");
        let reader = ChunkReader::new(&store);
        let predicted = reader.prediction(&format!("p.m.{name}"), PlanChoice::Auto).unwrap();
        let mut both = Labelled::open(&reader, predicted, "y.truth", PlanChoice::Auto).unwrap();
        let m = class_metrics(&reader, &request(&format!("p.m.{name}")), &mut both, None, 10).unwrap();
        assert_eq!(m.scores, Some(want), "{name}");
        if want == Scores::Probabilities {
            let loss = (0..900).map(|i| -f64::from(share(i, i % 10)).ln()).sum::<f64>() / 900.0;
            assert!((m.log_loss.unwrap() - loss).abs() < 1e-6, "{:?} {loss}", m.log_loss);
        }
    }
}

#[test]
fn scores_that_are_nan_are_counted() {
    let store = store();
    let truth: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 0, 1]));
    let scores = vec![0.9, 0.1, 0.2, 0.8, f32::NAN, 0.7, 0.4, 0.6];
    tensor(&store, "m", "s", &[2], &[0, 1, 2, 3], scores, "f32");
    table(&store, "m", "y", &[0, 1, 2, 3], vec![("truth", truth)]);
    let reader = ChunkReader::new(&store);
    let predicted = reader.prediction("p.m.s", PlanChoice::Auto).unwrap();
    let mut both = Labelled::open(&reader, predicted, "y.truth", PlanChoice::Auto).unwrap();
    let m = class_metrics(&reader, &request("p.m.s"), &mut both, Some(Scores::Probabilities), 10).unwrap();
    assert_eq!(m.n_nan, 1);
    assert_eq!(m.n_other, 0);
    // The row is in the curve of b alone, where three of four pairs stand right.
    assert_eq!(m.curves.iter().map(|c| c.curves.thresholds.len()).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(m.curves[1].curves.auroc, Some(0.75));
    // A label that no column stands for is told.
    let truth: ArrayRef = Arc::new(Int64Array::from(vec![0, 7, 0, 1]));
    table(&store, "m", "z", &[0, 1, 2, 3], vec![("truth", truth)]);
    let predicted = reader.prediction("p.m.s", PlanChoice::Auto).unwrap();
    let mut both = Labelled::open(&reader, predicted, "z.truth", PlanChoice::Auto).unwrap();
    let m = class_metrics(&reader, &request("p.m.s"), &mut both, Some(Scores::Probabilities), 10).unwrap();
    assert_eq!((m.n_other, m.confusion.n_rows()), (1, 4));
}

#[test]
fn binary_scores_by_hand() {
    let store = store();
    let (scores, truth) = ([0.9, 0.8, f64::NAN, 0.4, 0.3], [true, false, true, true, false]);
    let columns = |v: &[f64]| -> Vec<(&str, ArrayRef)> {
        let score: ArrayRef = Arc::new(Float64Array::from(v.to_vec()));
        vec![("score", score), ("dear", Arc::new(BooleanArray::from(truth.to_vec())))]
    };
    table(&store, "m", "p", &[0, 1, 2, 3, 4], columns(&scores));
    table(&store, "m", "z", &[0, 1, 2, 3, 4], columns(&scores.map(|p| (p / (1.0 - p)).ln())));
    let reader = ChunkReader::new(&store);
    let open = |of: &str| {
        let predicted = reader.prediction(&format!("p.m.{of}.score"), PlanChoice::Auto).unwrap();
        Labelled::open(&reader, predicted, &format!("{of}.dear"), PlanChoice::Auto).unwrap()
    };
    // Of the pairs of one of each class (0.9 and 0.4 against 0.8 and 0.3) three of four stand in order.
    let m = binary_metrics(open("p"), None, None, 10).unwrap();
    assert_eq!((m.scores, m.threshold, m.curves.auroc), (Scores::Probabilities, 0.5, Some(0.75)));
    assert_eq!((m.confusion.accuracy(), m.confusion.n_missing), (Some(0.5), 1));
    let positive = m.positive.unwrap();
    assert_eq!((positive.precision, positive.recall, positive.f1), (Some(0.5), Some(0.5), Some(0.5)));
    let loss = -(0.9f64.ln() + 0.2f64.ln() + 0.4f64.ln() + 0.7f64.ln()) / 4.0;
    assert!((m.log_loss.unwrap() - loss).abs() < 1e-12);
    // Each alone in its bin: |1 − 0.9|, |0 − 0.8|, |1 − 0.4| and |0 − 0.3|.
    assert!((m.calibration_error.unwrap() - 1.8 / 4.0).abs() < 1e-12);
    let logits = binary_metrics(open("z"), None, None, 10).unwrap();
    assert_eq!((logits.scores, logits.threshold), (Scores::Logits, 0.0));
    assert_eq!(logits.confusion, m.confusion);
    assert!((logits.log_loss.unwrap() - loss).abs() < 1e-9);
    // A label that is null counts like a missing score; whole numbers are scores too, where a threshold is said.
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(90), Some(80), None, Some(40), Some(30)]));
    let dear: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), Some(true), None]));
    table(&store, "m", "w", &[0, 1, 2, 3, 4], vec![("score", whole), ("dear", dear)]);
    let w = binary_metrics(open("w"), None, Some(50.0), 10).unwrap();
    assert_eq!((w.confusion.accuracy(), w.confusion.n_missing, w.curves.auroc), (Some(1.0 / 3.0), 2, Some(0.5)));
    tensor(&store, "m", "two", &[2], &[0, 1], vec![0.0; 4], "f32");
    let two =
        Labelled::open(&reader, reader.prediction("p.m.two", PlanChoice::Auto).unwrap(), "p.dear", PlanChoice::Auto);
    assert!(two.unwrap().with_threshold(Some(0.5)).err().unwrap().to_string().contains("one column"));
    // From 0.35 on, 0.4 is predicted too.
    let lower = binary_metrics(open("p"), None, Some(0.35), 10).unwrap();
    assert_eq!(lower.positive.unwrap().recall, Some(1.0));
    let counts = confusion(&mut open("p").with_threshold(Some(0.35)).unwrap(), None, None).unwrap();
    assert_eq!(counts.counts, [[1, 1], [0, 2]]);
    assert!(confusion(&mut open("p"), None, None).unwrap_err().to_string().contains("--threshold"));
}
