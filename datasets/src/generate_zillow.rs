//! Generated Zillow: the three files of the Zillow home value competition (2016), in any size.
//!
//! Names, types, joins, missing-value rates and rough distributions follow the real files, which work in their place.
//! Property r, its sale and its line in the submission depend on the seed and r alone, so that a smaller data set is the
//! beginning of a larger one. Sales stand in the order of the properties; the real file's are sorted by date.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Array, Int64Builder, StringBuilder,
};
use arrow::record_batch::RecordBatch;

use crate::generate_zillow_property::{Property, sales};
use crate::table::{Table, arrow_error};
use crate::table_set::Generator;
use crate::{DatasetError, Loader, Spec, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "generated:zillow",
    usage: "generated:zillow[?rows=100000&seed=1][&label=COLUMN]",
    about: "homes and sales like those of the Zillow competition, three files that join; the homes are the rows",
    target: Target::Nothing,
    options: &["rows", "seed", "label"],
    path_options: &[],
    open: |spec| {
        let batch = properties_batch(seed(spec)?, 0..n_rows(spec)?)?;
        Ok(Box::new(Table::new(&spec.to_string(), batch, spec.option("label"))?))
    },
};

pub(crate) const TABLES: Generator = Generator {
    loader: LOADER.name,
    files: &[PROPERTIES, TRAIN, SUBMISSION],
    version: 1,
    n_rows,
    make: |spec, file, rows| match file {
        TRAIN => train_batch(seed(spec)?, rows),
        SUBMISSION => submission_batch(seed(spec)?, rows),
        _ => properties_batch(seed(spec)?, rows),
    },
};

const PROPERTIES: &str = "properties_2016.csv";
const TRAIN: &str = "train_2016_v2.csv";
const SUBMISSION: &str = "sample_submission.csv";

/// Dates of prediction: October to December of 2016 and of 2017.
const MONTHS: [&str; 6] = ["201610", "201611", "201612", "201710", "201711", "201712"];

fn n_rows(spec: &Spec) -> Result<u64, DatasetError> {
    spec.number("rows", 100_000, 1..=50_000_000)
}

fn seed(spec: &Spec) -> Result<u64, DatasetError> {
    spec.number("seed", 1, 0..=u64::MAX)
}

/// A value of a column; the variant is the column's type.
pub(crate) enum Cell {
    Int(Option<i64>),
    Float(Option<f64>),
    Bool(Option<bool>),
    Text(Option<String>),
    /// Days since 1970-01-01.
    Date(Option<i32>),
}

enum Column {
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Date(Date32Builder),
}

impl Column {
    fn like(cell: &Cell) -> Column {
        match cell {
            Cell::Int(_) => Column::Int(Int64Builder::new()),
            Cell::Float(_) => Column::Float(Float64Builder::new()),
            Cell::Bool(_) => Column::Bool(BooleanBuilder::new()),
            Cell::Text(_) => Column::Text(StringBuilder::new()),
            Cell::Date(_) => Column::Date(Date32Builder::new()),
        }
    }

    /// Every row builds its cells by the same expression, so that a column's cells are all of one variant.
    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Column::Int(column), Cell::Int(value)) => column.append_option(value),
            (Column::Float(column), Cell::Float(value)) => column.append_option(value),
            (Column::Bool(column), Cell::Bool(value)) => column.append_option(value),
            (Column::Text(column), Cell::Text(value)) => column.append_option(value),
            (Column::Date(column), Cell::Date(value)) => column.append_option(value),
            _ => debug_assert!(false, "a cell of another type than its column"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Int(column) => ArrayBuilder::finish(column),
            Column::Float(column) => ArrayBuilder::finish(column),
            Column::Bool(column) => ArrayBuilder::finish(column),
            Column::Text(column) => ArrayBuilder::finish(column),
            Column::Date(column) => ArrayBuilder::finish(column),
        }
    }
}

/// The table of `rows`, each an array of named cells; `like` is any row, for names and types.
fn table<const N: usize>(
    like: [(&'static str, Cell); N],
    rows: impl Iterator<Item = [(&'static str, Cell); N]>,
) -> Result<RecordBatch, DatasetError> {
    let mut columns = like.each_ref().map(|(_, cell)| Column::like(cell));
    for row in rows {
        for (column, (_, cell)) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    let named = like.iter().zip(&mut columns).map(|((name, _), column)| (*name, column.finish(), true));
    RecordBatch::try_from_iter_with_nullable(named).map_err(arrow_error("generated:zillow"))
}

fn properties_batch(seed: u64, rows: Range<u64>) -> Result<RecordBatch, DatasetError> {
    table(Property::new(seed, 0).cells(), rows.map(|row| Property::new(seed, row).cells()))
}

/// The sales of the properties `rows`: about three in a hundred are sold, a few of them twice.
fn train_batch(seed: u64, rows: Range<u64>) -> Result<RecordBatch, DatasetError> {
    let sale = |parcel: i64, error: f64, day: i32| {
        [
            ("parcelid", Cell::Int(Some(parcel))),
            ("logerror", Cell::Float(Some(error))),
            ("transactiondate", Cell::Date(Some(day))),
        ]
    };
    table(
        sale(0, 0.0, 0),
        rows.flat_map(|row| sales(seed, row)).map(|sold| sale(sold.parcel, sold.log_error, sold.day)),
    )
}

fn submission_batch(seed: u64, rows: Range<u64>) -> Result<RecordBatch, DatasetError> {
    let zeros: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| 0)));
    let parcels = Int64Array::from_iter_values(rows.map(|row| Property::parcel_of(seed, row)));
    let columns = [("ParcelId", Arc::new(parcels) as ArrayRef, true)].into_iter();
    let columns = columns.chain(MONTHS.map(|month| (month, zeros.clone(), true)));
    RecordBatch::try_from_iter_with_nullable(columns).map_err(arrow_error("generated:zillow"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::{Array, AsArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::table_hash::hash_column;
    use crate::{TableFile, open_tables, read_csv};

    #[test]
    fn rows_stand_alone() {
        for batch in [properties_batch, train_batch, submission_batch] {
            let all = batch(3, 0..2000).unwrap();
            let parts = [batch(3, 0..700).unwrap(), batch(3, 700..2000).unwrap()];
            assert_eq!(concat_batches(&all.schema(), &parts).unwrap(), all);
            assert_ne!(batch(4, 0..2000).unwrap(), all);
        }
    }

    /// Share of missing values in percent of the competition's properties_2016.csv, column by column.
    const MISSING: [(&str, f64); 58] = [
        ("parcelid", 0.0),
        ("airconditioningtypeid", 72.82),
        ("architecturalstyletypeid", 99.80),
        ("basementsqft", 99.95),
        ("bathroomcnt", 0.38),
        ("bedroomcnt", 0.38),
        ("buildingclasstypeid", 99.58),
        ("buildingqualitytypeid", 35.06),
        ("calculatedbathnbr", 4.32),
        ("decktypeid", 99.43),
        ("finishedfloor1squarefeet", 93.21),
        ("calculatedfinishedsquarefeet", 1.86),
        ("finishedsquarefeet12", 9.25),
        ("finishedsquarefeet13", 99.74),
        ("finishedsquarefeet15", 93.61),
        ("finishedsquarefeet50", 93.21),
        ("finishedsquarefeet6", 99.26),
        ("fips", 0.38),
        ("fireplacecnt", 89.53),
        ("fullbathcnt", 4.32),
        ("garagecarcnt", 70.41),
        ("garagetotalsqft", 70.41),
        ("hashottuborspa", 97.69),
        ("heatingorsystemtypeid", 39.49),
        ("latitude", 0.38),
        ("longitude", 0.38),
        ("lotsizesquarefeet", 9.25),
        ("poolcnt", 82.66),
        ("poolsizesum", 99.06),
        ("pooltypeid10", 98.76),
        ("pooltypeid2", 98.93),
        ("pooltypeid7", 83.74),
        ("propertycountylandusecode", 0.41),
        ("propertylandusetypeid", 0.38),
        ("propertyzoningdesc", 33.72),
        ("rawcensustractandblock", 0.38),
        ("regionidcity", 2.11),
        ("regionidcounty", 0.38),
        ("regionidneighborhood", 61.26),
        ("regionidzip", 0.47),
        ("roomcnt", 0.38),
        ("storytypeid", 99.95),
        ("threequarterbathnbr", 89.56),
        ("typeconstructiontypeid", 99.77),
        ("unitcnt", 33.76),
        ("yardbuildingsqft17", 97.31),
        ("yardbuildingsqft26", 99.91),
        ("yearbuilt", 2.01),
        ("numberofstories", 77.15),
        ("fireplaceflag", 99.83),
        ("structuretaxvaluedollarcnt", 1.84),
        ("taxvaluedollarcnt", 1.43),
        ("assessmentyear", 0.38),
        ("landtaxvaluedollarcnt", 2.27),
        ("taxamount", 1.05),
        ("taxdelinquencyflag", 98.11),
        ("taxdelinquencyyear", 98.11),
        ("censustractandblock", 2.52),
    ];

    #[test]
    fn names_and_missing_rates_are_those_of_the_real_file() {
        let n = 60_000;
        let batch = properties_batch(1, 0..n).unwrap();
        assert_eq!(batch.num_columns(), MISSING.len());
        for ((field, column), (name, percent)) in batch.schema().fields().iter().zip(batch.columns()).zip(MISSING) {
            assert_eq!(field.name(), name);
            let found = column.null_count() as f64 / n as f64 * 100.0;
            // Three in a hundred for what whole zip codes share, and what chance leaves of the rare ones.
            let allowed = if name == "regionidneighborhood" { 3.0 } else { 0.08 + 0.02 * percent.min(100.0 - percent) };
            assert!((found - percent).abs() < allowed, "{name}: {found} % missing instead of {percent}");
        }
    }

    #[test]
    fn distributions_are_near_those_of_the_real_file() {
        let batch = properties_batch(1, 0..40_000).unwrap();
        // Tenth percentile, median and ninetieth percentile of the real file, roughly.
        let real = [
            ("calculatedfinishedsquarefeet", [984.0, 1572.0, 2815.0]),
            ("yearbuilt", [1935.0, 1963.0, 1990.0]),
            ("taxvaluedollarcnt", [110_000.0, 306_000.0, 800_000.0]),
            ("taxamount", [1700.0, 3990.0, 9800.0]),
            ("bedroomcnt", [2.0, 3.0, 4.0]),
            ("latitude", [33_740_000.0, 34_000_000.0, 34_250_000.0]),
            ("longitude", [-118_600_000.0, -118_170_000.0, -117_780_000.0]),
        ];
        for (name, expected) in real {
            let column =
                arrow::compute::cast(batch.column_by_name(name).unwrap(), &arrow::datatypes::DataType::Float64);
            let mut values: Vec<f64> = column.unwrap().as_primitive::<Float64Type>().iter().flatten().collect();
            values.sort_by(f64::total_cmp);
            for (tenths, expected) in [1, 5, 9].into_iter().zip(expected) {
                let found = values[values.len() * tenths / 10];
                assert!((found / expected - 1.0).abs() < 0.25, "{name}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn files_join() {
        let set = open_tables("generated:zillow?rows=20000&seed=7").unwrap();
        let tables = [PROPERTIES, TRAIN, SUBMISSION].map(|file| match set.file(file).unwrap() {
            TableFile::Generated(generated) => generated.make().unwrap(),
            TableFile::Path(path) => panic!("{}", path.display()),
        });
        let ids = |table: &RecordBatch| table.column(0).as_primitive::<Int64Type>().values().to_vec();
        let parcels = ids(&tables[0]);
        let distinct: HashSet<i64> = parcels.iter().copied().collect();
        assert_eq!(distinct.len(), 20_000);
        assert_eq!(ids(&tables[2]), parcels);
        let sold = ids(&tables[1]);
        assert!(sold.iter().all(|parcel| distinct.contains(parcel)));
        assert!((520..690).contains(&sold.len()), "{} sales", sold.len());
        assert_eq!(tables[2].schema().fields().len(), 7);
        // Of three million, a few dozen fewer than the sales are sold once only; of 20,000 hardly any twice.
        assert!(sold.iter().collect::<HashSet<_>>().len() + 10 > sold.len());
    }

    #[test]
    fn written_files_read_back() {
        let dir = tempfile::tempdir().unwrap();
        // More than one block.
        let set = open_tables("generated:zillow?rows=70000").unwrap();
        for file in set.files() {
            let TableFile::Generated(generated) = set.file(&file).unwrap() else { panic!("{file}") };
            let path = dir.path().join(&file);
            let mut out = std::fs::File::create(&path).unwrap();
            let n_rows = generated.write_csv(&mut out, &path).unwrap();
            let (made, read) = (generated.make().unwrap(), read_csv(&path).unwrap());
            assert_eq!(n_rows, made.num_rows() as u64);
            assert_eq!(read, made, "{file}");
        }
    }

    #[test]
    fn errors_of_the_estimate_hang_on_the_property() {
        let (mut with, mut squares, mut n) = (0.0, 0.0, 0.0);
        let (mut sum, mut mean_sum) = (0.0, 0.0);
        for row in 0..400_000 {
            for sale in sales(1, row) {
                let expected = Property::new(1, row).expected_log_error(sale.day);
                (sum, mean_sum, n) = (sum + sale.log_error, mean_sum + expected, n + 1.0);
                with += (sale.log_error - expected).powi(2);
                squares += sale.log_error.powi(2);
            }
        }
        let explained = 1.0 - (with / n) / (squares / n - (sum / n).powi(2));
        assert!((0.05..0.4).contains(&explained), "{explained}");
        // The real mean and deviation are 0.0115 and 0.161.
        assert!(
            (sum / n - 0.0115).abs() < 0.01 && ((squares / n).sqrt() - 0.161).abs() < 0.04,
            "{} {}",
            sum / n,
            squares / n
        );
        assert!((mean_sum / n - sum / n).abs() < 0.005);
    }

    #[test]
    fn pinned_for_ever() {
        let mut fingerprint = Fingerprint::new("test");
        for batch in [properties_batch(1, 0..300).unwrap(), train_batch(1, 0..3000).unwrap()] {
            for column in batch.columns() {
                hash_column(&mut fingerprint, "", "", column).unwrap();
            }
        }
        let print: String = fingerprint.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(print, "5fb2d65eef3d672cb58f4acc6999508b");
    }
}
