//! Generated housing: districts like those of the California housing data (1990 census), in any number.
//!
//! Columns, types, ranges and rough joint distribution follow the real table: coast and inland lie where they do, bigger
//! districts have more of everything, incomes and the sea make homes dear, 1% of `total_bedrooms` is missing. Row r
//! depends on the seed and r alone.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringBuilder};
use arrow::record_batch::RecordBatch;

use crate::detmath::exp;
use crate::generate_table::round;
use crate::prng::Rng;
use crate::table::{Table, arrow_error};
use crate::table_set::Generator;
use crate::{DatasetError, Loader, Spec, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "generated:housing",
    usage: "generated:housing[?rows=20640&seed=1][&label=COLUMN]",
    about: "districts with the columns and the rough statistics of the California housing data",
    target: Target::Nothing,
    options: &["rows", "seed", "label"],
    path_options: &[],
    open: |spec| {
        let batch = housing_batch(seed(spec)?, 0..n_rows(spec)?)?;
        Ok(Box::new(Table::new(&spec.to_string(), batch, spec.option("label"))?))
    },
};

pub(crate) const TABLES: Generator = Generator {
    loader: LOADER.name,
    files: &["housing.csv"],
    version: 1,
    n_rows,
    make: |spec, _, rows| housing_batch(seed(spec)?, rows),
};

fn n_rows(spec: &Spec) -> Result<u64, DatasetError> {
    spec.number("rows", 20_640, 1..=50_000_000)
}

fn seed(spec: &Spec) -> Result<u64, DatasetError> {
    spec.number("seed", 1, 0..=u64::MAX)
}

const NUMERIC: [&str; 9] = [
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
    "median_house_value",
];
const TOTAL_BEDROOMS: usize = 4;
const MISSING: f64 = 0.01;

/// A stretch of land: districts lie along the line between two places, given as longitude and latitude.
struct Region {
    /// Share of all districts, in ten thousandths.
    share: u64,
    ocean_proximity: &'static str,
    ends: [[f64; 2]; 2],
    spread: f64,
    /// Means of age in years, of log income and of the log of value over income.
    age: f64,
    log_income: f64,
    dearness: f64,
}

const REGIONS: [Region; 8] = [
    region(3300, "<1H OCEAN", [[-118.5, 34.2], [-117.85, 33.75]], 0.13, 30.0, 1.33, 0.20),
    region(1127, "<1H OCEAN", [[-122.0, 37.4], [-121.6, 36.7]], 0.2, 27.0, 1.38, 0.22),
    region(1600, "INLAND", [[-117.4, 34.0], [-119.2, 35.6]], 0.35, 23.0, 1.06, -0.20),
    region(1573, "INLAND", [[-119.8, 36.7], [-121.6, 39.4]], 0.5, 25.5, 1.06, -0.20),
    region(1110, "NEAR BAY", [[-122.45, 37.75], [-122.05, 37.85]], 0.12, 38.0, 1.30, 0.28),
    region(700, "NEAR OCEAN", [[-118.4, 33.85], [-117.15, 32.7]], 0.1, 28.0, 1.27, 0.30),
    region(588, "NEAR OCEAN", [[-121.9, 36.6], [-124.0, 40.8]], 0.15, 30.0, 1.25, 0.24),
    region(2, "ISLAND", [[-118.48, 33.43], [-118.32, 33.33]], 0.01, 42.0, 0.98, 0.80),
];

const fn region(
    share: u64,
    ocean_proximity: &'static str,
    ends: [[f64; 2]; 2],
    spread: f64,
    age: f64,
    log_income: f64,
    dearness: f64,
) -> Region {
    Region { share, ocean_proximity, ends, spread, age, log_income, dearness }
}

/// Rows `rows` of the table that `generated:housing` gives for `seed`: nine float64 columns and the text column
/// `ocean_proximity`, named as in the California housing data.
///
/// Errors: `Arrow` if a column outgrows Arrow's arrays.
pub fn housing_batch(seed: u64, rows: Range<u64>) -> Result<RecordBatch, DatasetError> {
    let mut numbers: [Float64Builder; NUMERIC.len()] = std::array::from_fn(|_| Float64Builder::new());
    let mut proximity = StringBuilder::new();
    for row in rows {
        let mut rng = Rng::new(seed, row, 0);
        let (region, district) = district(&mut rng);
        let missing = rng.unit() < MISSING;
        for (i, (builder, value)) in numbers.iter_mut().zip(district).enumerate() {
            builder.append_option((i != TOTAL_BEDROOMS || !missing).then_some(value));
        }
        proximity.append_value(region.ocean_proximity);
    }
    let numbers = numbers.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
    let mut columns: Vec<(&str, ArrayRef, bool)> =
        NUMERIC.into_iter().zip(numbers).map(|(name, column)| (name, column, true)).collect();
    columns.push(("ocean_proximity", Arc::new(proximity.finish()), true));
    RecordBatch::try_from_iter_with_nullable(columns).map_err(arrow_error("generated:housing"))
}

/// One district, its numbers in the order of `NUMERIC`.
fn district(rng: &mut Rng) -> (&'static Region, [f64; NUMERIC.len()]) {
    let mut ticket = rng.below(REGIONS.iter().map(|region| region.share).sum());
    let mut region = &REGIONS[0];
    for candidate in &REGIONS {
        region = candidate;
        if ticket < candidate.share {
            break;
        }
        ticket -= candidate.share;
    }
    let along = rng.unit();
    let mut place = |axis: usize| {
        let [from, to] = region.ends.map(|end| end[axis]);
        round(from + (to - from) * along + region.spread * rng.normal(), 100.0)
    };
    let (longitude, latitude) = (place(0).clamp(-124.35, -114.31), place(1).clamp(32.54, 41.95));
    let age = (region.age + 12.0 * rng.normal()).round().clamp(1.0, 52.0);
    // Young districts were built bigger.
    let households = exp(6.0 + 0.012 * (28.0 - age) + 0.65 * rng.normal()).round().clamp(1.0, 6082.0);
    let log_income = region.log_income + 0.42 * rng.normal();
    let income = round(exp(log_income).clamp(0.4999, 15.0001), 10_000.0);
    let rooms_each = 4.9 * exp(0.35 * (log_income - 1.25) + 0.12 * rng.normal());
    let rooms = (households * rooms_each).round().clamp(2.0, 39_320.0);
    let bedrooms = (households * 1.07 * exp(0.07 * rng.normal())).round().clamp(1.0, 6445.0);
    let population =
        (households * 2.9 * exp(-0.1 * (log_income - 1.25) + 0.22 * rng.normal())).round().clamp(3.0, 35_682.0);
    let log_value = 12.02 + region.dearness + 0.75 * (log_income - 1.25) + 0.003 * (age - 28.0) + 0.26 * rng.normal();
    // The census capped values at 500,001.
    let value = round(exp(log_value - 10.0) * 22_026.465_794_806_718, 0.01);
    let value = if value > 500_000.0 { 500_001.0 } else { value.max(14_999.0) };
    (region, [longitude, latitude, age, rooms, bedrooms, population, households, income, value])
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;

    use super::*;
    use crate::open;

    #[test]
    fn rows_stand_alone() {
        let all = housing_batch(3, 0..300).unwrap();
        assert_eq!(housing_batch(3, 100..150).unwrap(), all.slice(100, 50));
        assert_ne!(housing_batch(4, 0..300).unwrap(), all);
    }

    #[test]
    fn statistics_are_near_those_of_the_real_table() {
        let table = open(&"generated:housing?label=ocean_proximity".parse().unwrap()).unwrap();
        let batch = table.table().unwrap();
        // Tenth, median and ninetieth percentile of the real table.
        let real = [
            ("longitude", [-122.29, -118.49, -117.25]),
            ("latitude", [33.63, 34.26, 38.48]),
            ("housing_median_age", [13.0, 29.0, 46.0]),
            ("total_rooms", [941.0, 2127.0, 4656.0]),
            ("total_bedrooms", [198.0, 435.0, 965.0]),
            ("population", [510.0, 1166.0, 2566.0]),
            ("households", [184.0, 409.0, 890.0]),
            ("median_income", [1.9038, 3.5349, 6.1593]),
            ("median_house_value", [82_300.0, 179_700.0, 376_600.0]),
        ];
        for (name, expected) in real {
            let column = batch.column_by_name(name).unwrap().as_primitive::<Float64Type>();
            let mut values: Vec<f64> = column.iter().flatten().collect();
            values.sort_by(f64::total_cmp);
            for (tenths, expected) in [1, 5, 9].into_iter().zip(expected) {
                let found = values[values.len() * tenths / 10];
                assert!((found / expected - 1.0).abs() < 0.25, "{name}: {found} instead of {expected}");
            }
        }
        let missing = batch.column_by_name("total_bedrooms").unwrap().null_count();
        assert!((150..270).contains(&missing), "{missing} missing");
        assert_eq!(table.class_names().unwrap(), ["<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN"]);
        let inland = table.labels().unwrap().iter().filter(|&&label| label == 1).count();
        assert!((6_200..6_900).contains(&inland), "{inland} inland");
    }

    #[test]
    fn pinned_for_ever() {
        let table = open(&"generated:housing?rows=100".parse().unwrap()).unwrap();
        let print: String = table.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(print, "fd9b0ba37bfc62f69fefbce9954d144d");
    }
}
