//! ComputeNeighborhood: a number for the neighbourhood in which a place lies, as a new int64 column; null where the place
//! is not known.
//!
//! Parameters: `method`, `kmeans` (default: the nearest of `clusters` centres, found by k-means from a seeded start) or
//! `grid` (a cell of a grid over the places learnt from, numbered row by row from the south-west); `clusters` (default
//! 20), `seed` (default 0), `iterations` (at most; default 20), `sample` (places at most that centres are learnt from,
//! chosen by row_id; default 20,000); `cells` (a side of the grid; default 10); `latitude`, `longitude`, `output`, names
//! of columns (default `latitude`, `longitude`, `neighborhood`). What was learnt can be applied to another table by `fit`.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::learnt::{self, Num};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind = OperatorKind {
    name: "ComputeNeighborhood",
    version: 1,
    inputs: &[Slot::Table],
    fit: Some(&["latitude", "longitude", "output"]),
    parse,
};

#[derive(Debug)]
struct ComputeNeighborhood {
    method: Method,
    latitude: String,
    longitude: String,
    output: String,
}

#[derive(Debug)]
enum Method {
    KMeans { clusters: usize, seed: u64, iterations: u64, sample: usize },
    Grid { cells: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Map {
    /// Latitude and longitude of each centre.
    Centres(Vec<[Num; 2]>),
    /// South-west corner, and the sides of a cell.
    Grid { corner: [Num; 2], cell: [Num; 2], cells: u32 },
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let method = match params.choice_or("method", "kmeans", &["kmeans", "grid"])? {
        "grid" => Method::Grid { cells: params.whole_or("cells", 10, 1..=1000)? as u32 },
        _ => Method::KMeans {
            clusters: params.whole_or("clusters", 20, 1..=10_000)? as usize,
            seed: params.whole_or("seed", 0, 0..=u64::MAX)?,
            iterations: params.whole_or("iterations", 20, 1..=1000)?,
            sample: params.whole_or("sample", 20_000, 1..=10_000_000)? as usize,
        },
    };
    Ok(Box::new(ComputeNeighborhood {
        method,
        latitude: params.text_or("latitude", "latitude")?,
        longitude: params.text_or("longitude", "longitude")?,
        output: params.text_or("output", "neighborhood")?,
    }))
}

type Place = [f64; 2];

fn distance(a: Place, b: Place) -> f64 {
    let [x, y] = [a[0] - b[0], a[1] - b[1]];
    x * x + y * y
}

/// Index of the nearest centre, and the distance.
fn nearest(place: Place, centres: &[Place]) -> (usize, f64) {
    let distances = centres.iter().map(|c| distance(place, *c)).enumerate();
    distances.fold((0, f64::INFINITY), |best, (i, d)| if d < best.1 { (i, d) } else { best })
}

impl ComputeNeighborhood {
    fn places(&self, table: &Table) -> Result<Vec<Option<Place>>, OperatorError> {
        let latitude = table.numbers("latitude", &self.latitude)?;
        let longitude = table.numbers("longitude", &self.longitude)?;
        let pairs = latitude.iter().zip(longitude.iter());
        Ok(pairs.map(|(a, b)| Some([a?, b?]).filter(|p| p.iter().all(|v| v.is_finite()))).collect())
    }
}

/// k-means++ and Lloyd's iterations over `places`, in their order, so that the result depends on nothing else.
fn k_means(places: &[Place], clusters: usize, seed: u64, iterations: u64) -> Vec<Place> {
    let mut draws = 0u64;
    let mut random = || {
        draws += 1;
        XxHash3_64::oneshot_with_seed(seed, &draws.to_le_bytes()) as f64 / 2f64.powi(64)
    };
    let mut centres: Vec<Place> = Vec::new();
    let mut far = vec![f64::INFINITY; places.len()];
    let first = (random() * places.len() as f64) as usize;
    let mut next = places.get(first.min(places.len().saturating_sub(1))).copied();
    while let Some(centre) = next {
        centres.push(centre);
        far.iter_mut().zip(places).for_each(|(d, p)| *d = d.min(distance(*p, centre)));
        let total: f64 = far.iter().sum();
        if centres.len() >= clusters || total <= 0.0 {
            break;
        }
        let mut ticket = random() * total;
        let drawn = far.iter().position(|d| {
            ticket -= d;
            ticket < 0.0
        });
        next = drawn.and_then(|i| places.get(i)).or(places.last()).copied();
    }
    for _ in 0..iterations {
        let mut sums = vec![([0.0f64; 2], 0u64); centres.len()];
        for place in places {
            if let Some((sum, n)) = sums.get_mut(nearest(*place, &centres).0) {
                *sum = [sum[0] + place[0], sum[1] + place[1]];
                *n += 1;
            }
        }
        let moved = centres.iter().zip(&sums).map(|(c, (s, n))| match n {
            0 => *c,
            n => [s[0] / *n as f64, s[1] / *n as f64],
        });
        let moved: Vec<Place> = moved.collect();
        if moved == centres {
            break;
        }
        centres = moved;
    }
    centres
}

impl Operator for ComputeNeighborhood {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let needs = Columns::new(vec![
            (self.latitude.clone(), columns.number("latitude", &self.latitude)?),
            (self.longitude.clone(), columns.number("longitude", &self.longitude)?),
        ]);
        columns.add("output", &self.output, DataType::Int64)?;
        Ok(Checked::table(columns).learning(needs))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let table = inputs.table(0)?;
        let places = self.places(table)?;
        let known = || places.iter().flatten().copied();
        if known().next().is_none() {
            return Err(OperatorError::Empty { what: format!("every {} or {}", self.latitude, self.longitude) });
        }
        let map = match &self.method {
            Method::Grid { cells } => {
                let low = known().fold([f64::INFINITY; 2], |a, p| [a[0].min(p[0]), a[1].min(p[1])]);
                let high = known().fold([f64::NEG_INFINITY; 2], |a, p| [a[0].max(p[0]), a[1].max(p[1])]);
                let side = |i: usize| Num((high[i] - low[i]) / f64::from(*cells));
                Map::Grid { corner: low.map(Num), cell: [side(0), side(1)], cells: *cells }
            }
            Method::KMeans { clusters, seed, iterations, sample } => {
                let mut rows: Vec<(u64, Place)> = table
                    .rows()
                    .iter()
                    .zip(&places)
                    .filter_map(|(row, p)| Some((XxHash3_64::oneshot_with_seed(*seed, &row.to_le_bytes()), (*p)?)))
                    .collect();
                rows.sort_by_key(|(hash, _)| *hash);
                rows.truncate(*sample);
                let places: Vec<Place> = rows.into_iter().map(|(_, p)| p).collect();
                Map::Centres(k_means(&places, *clusters, *seed, *iterations).into_iter().map(|c| c.map(Num)).collect())
            }
        };
        learnt::write(&map)
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let map: Map = learnt::read(KIND.name, inputs.own(KIND.name)?)?;
        let places = self.places(table)?;
        let numbers: Int64Array = match map {
            Map::Centres(centres) => {
                let centres: Vec<Place> = centres.into_iter().map(|c| c.map(|n| n.0)).collect();
                places.iter().map(|p| p.map(|p| nearest(p, &centres).0 as i64)).collect()
            }
            Map::Grid { corner, cell, cells } => {
                let last = i64::from(cells) - 1;
                let along = |p: Place, i: usize| {
                    let cells_away = (p[i] - corner[i].0) / cell[i].0;
                    if cells_away.is_nan() { 0 } else { (cells_away.floor() as i64).clamp(0, last) }
                };
                places.iter().map(|p| p.map(|p| along(p, 0) * i64::from(cells) + along(p, 1))).collect()
            }
        };
        Ok(Outcome::table(table.with_columns(vec![(self.output.clone(), Arc::new(numbers))])?))
    }
}
