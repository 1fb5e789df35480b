//! What a question leaves out is counted, or named.

mod common;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use common::{request, store, table, tensor};
use mistique_query::ChunkReader;
use mistique_query::diagnostics::{MapsAs, Measure, Metric, Queries, knn, similarities};

#[test]
fn rows_that_are_near_to_nothing_are_counted() {
    let store = store();
    let values = [[1.0f32, 2.0], [f32::NAN, 0.0], [0.0, 0.0], [3.0, 4.0], [f32::INFINITY, 0.0]];
    tensor(&store, "m", "x", &[2], &[0, 1, 2, 3, 4], values.concat(), "f32");
    let column = |i: usize| -> ArrayRef { Arc::new(Float64Array::from_iter_values(values.map(|v| f64::from(v[i])))) };
    table(&store, "m", "t", &[0, 1, 2, 3, 4], vec![("a", column(0)), ("b", column(1))]);
    let reader = ChunkReader::new(&store);
    for key in ["p.m.x", "p.m.t"] {
        let near = |metric| knn(&reader, &request(key), &Queries::Rows(vec![0]), 5, metric).unwrap();
        let l2 = near(Metric::L2);
        let ranked: Vec<u64> = l2.queries[0].rows.iter().map(|r| r.0).collect();
        assert_eq!((ranked, l2.n_rows, l2.n_unranked), (vec![2, 3, 4], 5, Some(1)), "{key}");
        // Zeros have no direction.
        assert_eq!(near(Metric::Cosine).n_unranked, Some(2), "{key}");
        assert_eq!(near(Metric::Dot).n_unranked, Some(1), "{key}");
    }
}

#[test]
fn sides_that_share_no_row_are_named() {
    let store = store();
    tensor(&store, "m", "x", &[2], &[0, 1, 2], vec![1.0; 6], "f32");
    tensor(&store, "m", "y", &[2], &[7, 8], vec![1.0; 4], "f32");
    let reader = ChunkReader::new(&store);
    let both = [request("p.m.x"), request("p.m.y")];
    let e = similarities(&reader, &both, &[(0, 1)], Measure::LinearCka, MapsAs::Mean, &mut |_, _| {}).unwrap_err();
    assert!(e.to_string().contains("0 rows are shared by all sides (others lack 3 of p.m.x, 2 of p.m.y)"), "{e}");
}
