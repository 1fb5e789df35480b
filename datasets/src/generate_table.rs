//! Generated tables: numbers, counts, categories and missing values that hang together.
//!
//! Every row has a hidden factor, on which all its columns depend more or less. Row r depends on the seed and r alone,
//! and a column not on how many there are.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;

use crate::detmath::exp;
use crate::prng::Rng;
use crate::table::{Table, arrow_error};
use crate::{DatasetError, Loader, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "generated:table",
    usage: "generated:table[?rows=1000&cols=8&seed=1][&label=COLUMN]",
    about: "a table of numbers, counts, categories and numbers with gaps, in turn, and a column 'target'",
    target: Target::Nothing,
    options: &["rows", "cols", "seed", "label"],
    path_options: &[],
    open: |spec| {
        let n_rows = spec.number("rows", 1000, 1..=100_000_000)?;
        let n_cols = spec.number("cols", 8, 1..=10_000)?;
        if n_rows * n_cols > MAX_CELLS {
            return Err(
                spec.bad(format!("{n_rows} rows of {n_cols} columns"), format!("ask for at most {MAX_CELLS} cells"))
            );
        }
        let batch = table_batch(spec.number("seed", 1, 0..=u64::MAX)?, n_cols as usize, 0..n_rows)?;
        Ok(Box::new(Table::new(&spec.to_string(), batch, spec.option("label"))?))
    },
};

const MAX_CELLS: u64 = 1_000_000_000;
/// Share of missing values in the columns that have any.
const MISSING: f64 = 0.05;
const STREAM_FACTOR: u64 = u64::MAX;
const STREAM_TARGET: u64 = u64::MAX - 1;
const STREAM_COLUMN: u64 = u64::MAX;

/// Rows `rows` of the table that `generated:table` gives for `seed` and `n_cols`.
///
/// Columns: in turn `num_0` (float64), `count_1` (int64), `cat_2` (text, three to eight categories) and `gap_3` (float64,
/// 5% null), and after `n_cols` of them `target` (float64).
/// Errors: `Arrow` if a column outgrows Arrow's arrays.
pub fn table_batch(seed: u64, n_cols: usize, rows: Range<u64>) -> Result<RecordBatch, DatasetError> {
    let factors: Vec<f64> = rows.clone().map(|row| Rng::new(seed, row, STREAM_FACTOR).normal()).collect();
    let mut columns: Vec<(String, ArrayRef)> = Vec::with_capacity(n_cols + 1);
    for col in 0..n_cols {
        let mut rng = Rng::new(seed, STREAM_COLUMN, col as u64);
        let (weight, scale, shift) = (rng.between(0.3, 0.9), rng.between(0.5, 20.0), rng.between(-10.0, 50.0));
        let n_levels = 3 + rng.below(6);
        // Of deviation 1, correlated with the factor by `weight`.
        let cells = rows.clone().zip(&factors).map(|(row, factor)| {
            let mut rng = Rng::new(seed, row, col as u64);
            let value = weight * factor + (1.0 - weight * weight).sqrt() * rng.normal();
            (value, rng)
        });
        let number = |value: f64| round(shift + scale * value, 1000.0);
        columns.push(match col % 4 {
            0 => {
                (format!("num_{col}"), Arc::new(Float64Array::from_iter_values(cells.map(|(value, _)| number(value)))))
            }
            1 => {
                let counts = cells.map(|(value, _)| exp(1.5 + 0.6 * value) as i64);
                (format!("count_{col}"), Arc::new(Int64Array::from_iter_values(counts)))
            }
            2 => {
                let levels = ["a", "b", "c", "d", "e", "f", "g", "h"];
                let level =
                    |value: f64| ((value + 2.0) / 4.0 * n_levels as f64).clamp(0.0, n_levels as f64 - 1.0) as usize;
                let categories = cells.map(|(value, _)| levels[level(value)]);
                (format!("cat_{col}"), Arc::new(StringArray::from_iter_values(categories)))
            }
            _ => {
                let gaps = cells.map(|(value, mut rng)| (rng.unit() >= MISSING).then(|| number(value)));
                (format!("gap_{col}"), Arc::new(gaps.collect::<Float64Array>()))
            }
        });
    }
    let targets = rows
        .zip(&factors)
        .map(|(row, factor)| round(3.0 * factor + 0.5 * Rng::new(seed, row, STREAM_TARGET).normal(), 1000.0));
    columns.push(("target".to_owned(), Arc::new(Float64Array::from_iter_values(targets))));
    let nullable = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(nullable).map_err(arrow_error("generated:table"))
}

/// `value` to the nearest 1/`parts`.
pub(crate) fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;

    use super::*;
    use crate::open;

    #[test]
    fn rows_and_columns_stand_alone() {
        let all = table_batch(5, 9, 0..200).unwrap();
        assert_eq!(table_batch(5, 9, 50..60).unwrap(), all.slice(50, 10));
        let narrow = table_batch(5, 3, 0..200).unwrap();
        assert_eq!(narrow.column_by_name("target"), all.column_by_name("target"));
        assert_eq!(narrow.columns()[..3], all.columns()[..3]);
        assert_ne!(table_batch(6, 9, 0..200).unwrap(), all);
    }

    #[test]
    fn shape_of_the_data() {
        let table = open(&"generated:table?rows=4000&cols=4&label=cat_2".parse().unwrap()).unwrap();
        assert_eq!(table.feature_names().unwrap(), ["num_0", "count_1", "gap_3", "target"]);
        assert_eq!(
            table.labels().unwrap().iter().max().map(|&max| max as usize + 1),
            table.class_names().map(<[_]>::len)
        );
        let batch = table.table().unwrap();
        let missing = batch.column_by_name("gap_3").unwrap().null_count();
        assert!((120..280).contains(&missing), "{missing} missing");
        let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec();
        let (x, y) = (column("num_0"), column("target"));
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (mx, my) = (mean(&x), mean(&y));
        let covariance =
            |a: &[f64], ma: f64, b: &[f64], mb: f64| a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>();
        let correlation = covariance(&x, mx, &y, my) / (covariance(&x, mx, &x, mx) * covariance(&y, my, &y, my)).sqrt();
        assert!(correlation > 0.25, "{correlation}");
        let too_big = open(&"generated:table?rows=100000000&cols=10000".parse().unwrap());
        assert!(too_big.err().unwrap().to_string().contains("at most 1000000000 cells"));
    }

    #[test]
    fn pinned_for_ever() {
        let table = open(&"generated:table?rows=100".parse().unwrap()).unwrap();
        let print: String = table.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(print, "b329f9683e709687ce6aeafc3d444b2f");
    }
}
