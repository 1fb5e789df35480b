//! Representation similarity: how alike two layers, two models or two epochs see the same examples.

mod cca;
mod cka;
mod moments;
mod panels;
mod points;
mod products;
mod tile;

use std::collections::BTreeSet;

use crate::answer::Source;
use crate::error::{QueryError, Result};
use crate::reader::{ChunkReader, Request};
use crate::scan::Joined;

use moments::{Moments, Precision};
pub use points::MapsAs;
use points::Points;

/// Covariances of one pass over the rows take at most this, where one pair does not take more.
const PASS_BYTES: usize = 1 << 30;
/// Columns beyond which a covariance alone takes 512 MB.
const MAX_COLUMNS: usize = 8192;

/// A measure of similarity; every one is 0 for independent and 1 for equal representations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// Canonical correlations of the directions that explain a share of each side's variance (Alg. 1; Raghu et al. 2017).
    Svcca {
        /// The share, 0.99 in the source.
        threshold: f64,
    },
    /// Canonical correlations of everything that varies.
    Cca,
    /// The same, weighted by how much of the smaller side each direction carries (Morcos et al. 2018).
    Pwcca,
    /// Centred kernel alignment of linear kernels (Kornblith et al. 2019).
    LinearCka,
    /// Centred kernel alignment of Gaussian kernels.
    RbfCka {
        /// Bandwidth, as a share of the median distance between two data points.
        fraction: f64,
        /// Data points that enter at most: the time grows with their square. More are thinned evenly.
        max_points: usize,
    },
}

impl Measure {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svcca { .. } => "SVCCA",
            Self::Cca => "CCA",
            Self::Pwcca => "PWCCA",
            Self::LinearCka => "linear CKA",
            Self::RbfCka { .. } => "RBF CKA",
        }
    }

    fn check(self) -> Result<()> {
        let share = |what, v: f64| match v > 0.0 && v <= 1.0 {
            true => Ok(()),
            false => {
                Err(QueryError::Undefined { what, why: format!("a share above 0 and up to 1 is needed, got {v}") })
            }
        };
        match self {
            Self::Svcca { threshold } => share("the threshold of SVCCA".into(), threshold),
            Self::RbfCka { fraction, .. } if !(fraction.is_finite() && fraction > 0.0) => Err(QueryError::Undefined {
                what: "the bandwidth of RBF CKA".into(),
                why: format!("a number above 0 is needed, got {fraction}"),
            }),
            Self::RbfCka { max_points, .. } if max_points < 2 => Err(QueryError::Undefined {
                what: "the data points of RBF CKA".into(),
                why: format!("at least two are needed, got {max_points}"),
            }),
            _ => Ok(()),
        }
    }
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Key of its intermediate.
    pub key: String,
    /// Where its values came from.
    pub source: Source,
    /// Columns that were compared.
    pub n_columns: usize,
    /// Rows that another side lacks.
    pub unshared: u64,
    /// Columns of text of a table that was named whole.
    pub left_out: Vec<String>,
}

/// How alike two sides are.
#[derive(Debug, Clone, PartialEq)]
pub struct Similarity {
    /// The measure's value. For SVCCA and CCA the mean of the coefficients, for PWCCA their weighted mean.
    pub value: f64,
    /// Canonical correlations, largest first; none for CKA.
    pub coefficients: Vec<f64>,
    /// Directions that each side kept; for CKA its columns that are not constant.
    pub directions: [usize; 2],
    /// Constant columns of each side, such as dead units. They do not count.
    pub constant: [usize; 2],
}

/// Similarities over the rows that all sides hold.
#[derive(Debug)]
pub struct Similarities {
    /// The sides, in the order of the requests.
    pub sides: Vec<Side>,
    /// Rows that all sides hold.
    pub n_rows: u64,
    /// Data points that were compared: rows, or cells of rows.
    pub n_points: u64,
    /// What became of maps.
    pub maps: MapsAs,
    /// One for each pair: `Undefined` where a side does not vary, `NotFinite` naming the first column of a side that holds
    /// NaN or infinity.
    pub values: Vec<Result<Similarity>>,
}

/// How many rows each side has that others lack.
fn alone(sides: &[Side]) -> String {
    let counts: Vec<String> = sides
        .iter()
        .filter(|side| side.unshared > 0)
        .map(|side| format!("{} of {}", side.unshared, side.key))
        .collect();
    if counts.is_empty() { String::new() } else { format!(" (others lack {})", counts.join(", ")) }
}

/// How alike the sides of each of `pairs` (indices into `requests`) are, over the rows that all sides hold.
///
/// SVCCA keeps the fewest directions whose variances add up to the threshold, and divides the sum of the coefficients by
/// the smaller number of directions, so that a layer is 1 similar to itself; CCA and PWCCA keep what varies by more than
/// 10⁻¹⁰ of the largest variance, units scaled alike. Values stream through a pass or more: memory is that of the
/// covariances (8 bytes × columns × columns), for RBF CKA that of two sides' data points. `progress` hears rows read and
/// rows to read. Errors: those of [`ChunkReader::scan`];
/// `Mismatch` for maps of different sizes as points, and too many columns; `Undefined` for fewer than two data points.
///
/// Source: Alg. 1 (5.1.1); weights as in the code of PWCCA's authors; bandwidth as in that of CKA's.
pub fn similarities(
    reader: &ChunkReader<'_>,
    requests: &[Request],
    pairs: &[(usize, usize)],
    measure: Measure,
    maps: MapsAs,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Similarities> {
    measure.check()?;
    let scans = requests.iter().map(|r| reader.scan_numbers(r)).collect::<Result<Vec<_>>>()?;
    let joined = Joined::new(scans);
    let sides: Vec<Points<'_, '_, '_>> = joined.scans.iter().map(|s| Points::new(s, maps)).collect::<Result<_>>()?;
    let described = sides.iter().zip(&joined.unshared).zip(requests).map(|((p, unshared), request)| {
        Ok(Side {
            key: p.name(),
            source: p.source(),
            n_columns: p.n_columns(),
            unshared: *unshared,
            left_out: reader.left_out(&request.key)?,
        })
    });
    let described = described.collect::<Result<Vec<Side>>>()?;
    let n_rows = joined.rows.len();
    let per_row = sides.iter().map(Points::per_row).max().unwrap_or(1);
    if let Some(other) = sides.iter().find(|p| p.per_row() != per_row) {
        return Err(QueryError::Mismatch {
            what: format!("cells as data points of {}", other.name()),
            why: format!("a row has {} cells, another side's {per_row}; compare their means", other.per_row()),
        });
    }
    let n_points = (n_rows * per_row) as u64;
    if n_points < 2 {
        return Err(QueryError::Undefined {
            what: measure.name().into(),
            why: format!(
                "{n_rows} rows are shared by all sides{}; at least two data points are needed",
                alone(&described)
            ),
        });
    }
    let get = |i: usize| sides.get(i).ok_or_else(|| no_side(i, sides.len()));
    for &(a, b) in pairs {
        for side in [get(a)?, get(b)?] {
            if side.n_columns() > MAX_COLUMNS && !matches!(measure, Measure::RbfCka { .. }) {
                return Err(QueryError::Mismatch {
                    what: format!("{} of {}", measure.name(), side.name()),
                    why: format!(
                        "{} columns are more than {MAX_COLUMNS}; compare the means of maps, or fewer units",
                        side.n_columns()
                    ),
                });
            }
        }
    }
    let mut values = Vec::with_capacity(pairs.len());
    let mut n_used = n_points;
    if let Measure::RbfCka { fraction, max_points } = measure {
        let total = pairs.iter().map(|(a, b)| if a == b { 1 } else { 2 } * n_rows as u64).sum();
        let mut done = 0;
        for &(a, b) in pairs {
            let mut read = |i: usize| {
                let points = get(i)?.gather(&joined.rows, max_points, &mut |n| progress(done + n, total))?;
                done += n_rows as u64;
                Ok::<_, QueryError>(points)
            };
            let mut value = || {
                let (x, y) = (read(a)?, if a == b { None } else { Some(read(b)?) });
                n_used = x.n_points as u64;
                cka::rbf(&x, y.as_ref().unwrap_or(&x), fraction)
            };
            values.push(keep_refused(value())?);
        }
    } else {
        let passes = passes(pairs, &sides);
        let total = (passes.len() * n_rows) as u64;
        for (i, pass) in passes.iter().enumerate() {
            let read = |n| (i * n_rows) as u64 + n;
            // CKA adds squares up; whitening divides by the least of variances.
            let precision = if measure == Measure::LinearCka { Precision::Single } else { Precision::Double };
            let moments = Moments::of(&sides, pass, &joined.rows, precision, &mut |n| progress(read(n), total))?;
            let threshold = if let Measure::Svcca { threshold } = measure { threshold } else { 1.0 };
            let mut whitener = cca::Whitener::new(&moments, threshold);
            for &(a, b) in pass {
                let (x, y) = (get(a)?, get(b)?);
                let mut value = || {
                    moments.check(a, x)?;
                    moments.check(b, y)?;
                    let value = match measure {
                        Measure::LinearCka => cka::linear(&moments, (a, b)),
                        Measure::Pwcca => cca::pwcca(&mut whitener, (a, b)),
                        _ => cca::cca(&mut whitener, (a, b)),
                    };
                    let what = || format!("{} with {}", x.name(), y.name());
                    value.map_err(|why| QueryError::Undefined { what: what(), why })
                };
                values.push(keep_refused(value())?);
            }
        }
    }
    Ok(Similarities { sides: described, n_rows: n_rows as u64, n_points: n_used, maps, values })
}

/// How alike two intermediates are: [`similarities`] of one pair.
///
/// Errors: as there, and those of the pair.
pub fn similarity(
    reader: &ChunkReader<'_>,
    left: &Request,
    right: &Request,
    measure: Measure,
    maps: MapsAs,
) -> Result<Similarity> {
    let requests = [left.clone(), right.clone()];
    let mut all = similarities(reader, &requests, &[(0, 1)], measure, maps, &mut |_, _| {})?;
    all.values.pop().unwrap_or_else(|| Err(no_side(1, 0)))
}

fn no_side(i: usize, n: usize) -> QueryError {
    QueryError::Mismatch { what: "pairs of sides".into(), why: format!("side {i} of {n} was asked for") }
}

/// What two sides hold is a pair's own answer; any other error ends them all.
fn keep_refused(value: Result<Similarity>) -> Result<Result<Similarity>> {
    match value {
        Err(e) if !matches!(e, QueryError::Undefined { .. } | QueryError::NotFinite { .. }) => Err(e),
        other => Ok(other),
    }
}

/// Pairs in runs whose covariances fit a pass.
fn passes(pairs: &[(usize, usize)], sides: &[Points<'_, '_, '_>]) -> Vec<Vec<(usize, usize)>> {
    let width = |i: usize| sides.get(i).map_or(0, Points::n_columns);
    let bytes = |wanted: &BTreeSet<(usize, usize)>| wanted.iter().map(|&(a, b)| width(a) * width(b) * 8).sum::<usize>();
    let mut passes: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut wanted = BTreeSet::new();
    for &(a, b) in pairs {
        let mut with = wanted.clone();
        with.extend([(a, a), (b, b), (a.min(b), a.max(b))]);
        match passes.last_mut() {
            Some(pass) if bytes(&with) <= PASS_BYTES => {
                pass.push((a, b));
                wanted = with;
            }
            _ => {
                passes.push(vec![(a, b)]);
                wanted = BTreeSet::from([(a, a), (b, b), (a.min(b), a.max(b))]);
            }
        }
    }
    passes
}
