//! KNN: the rows most similar to given ones, exactly.
//!
//! All queries meet a block of rows in one matrix product of f32. What its rounding could let into the best `k` is scored
//! again in f64, so that the answer is that of a scan in f64 throughout. Ties go to the smaller row_id. A row with a NaN
//! never ranks; nor does, for the cosine, a row of zeros, which has no direction.

use std::str::FromStr;

use gemm::Parallelism;
use rayon::prelude::*;

use super::rounding;
use super::topk::{Extreme, Ranking};
use crate::answer::{Data, Source};
use crate::error::{QueryError, Result};
use crate::reader::{ChunkReader, Request};
use crate::scan::Scan;

/// How similarity is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metric {
    /// Euclidean distance; smallest first.
    #[default]
    L2,
    /// Cosine of the angle; largest first.
    Cosine,
    /// Inner product; largest first.
    Dot,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::L2, Self::Cosine, Self::Dot];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Cosine => "cosine",
            Self::Dot => "dot",
        }
    }

    /// Whether a row, or a query, of that squared length has no distance to anything.
    fn has_no_place(self, norm2: f64) -> bool {
        norm2.is_nan() || (self == Self::Cosine && norm2 == 0.0)
    }

    fn extreme(self) -> Extreme {
        if self == Self::L2 { Extreme::Lowest } else { Extreme::Highest }
    }

    /// Distance or similarity in f64.
    pub fn exact<A: Copy + Into<f64>, B: Copy + Into<f64>>(self, a: &[A], b: &[B]) -> f64 {
        match self {
            Self::L2 => sum(a, b, |a, b| (a - b) * (a - b)).sqrt(),
            Self::Dot => sum(a, b, |a, b| a * b),
            Self::Cosine => sum(a, b, |a, b| a * b) / (norm2(a).sqrt() * norm2(b).sqrt()),
        }
    }
}

/// Σ f(a, b), in lanes that do not wait for each other.
fn sum<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B], f: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f((*a).into(), (*b).into());
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f((*a).into(), (*b).into())).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The Euclidean distance of values that are more than `a` and `b` by what rounding took from them: integers that are
/// close to each other and far from 0 keep it.
fn distance((a, a_rest): (&[f64], &[f64]), (b, b_rest): (&[f64], &[f64])) -> f64 {
    let pairs = a.iter().zip(b).zip(a_rest.iter().zip(b_rest));
    pairs.map(|((a, b), (c, d))| ((a - b) + (c - d)).powi(2)).sum::<f64>().sqrt()
}

fn norm2<T: Copy + Into<f64>>(v: &[T]) -> f64 {
    sum(v, v, |a, b| a * b)
}

impl FromStr for Metric {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| QueryError::Parse {
            what: "metric",
            given: text.to_string(),
            why: "expected l2, cosine or dot".into(),
            at: 1,
        })
    }
}

/// The best rows so far of many queries.
struct Search<'q> {
    metric: Metric,
    width: usize,
    queries: &'q [f32],
    norms: Vec<f64>,
    /// Row that each query is itself, which is no neighbour.
    own: &'q [Option<u64>],
    best: Vec<Ranking>,
    products: Vec<f32>,
    /// Rows that are near to nothing.
    n_unranked: u64,
}

impl<'q> Search<'q> {
    fn new(queries: &'q [f32], own: &'q [Option<u64>], width: usize, k: usize, metric: Metric) -> Self {
        let norms: Vec<f64> = queries.chunks_exact(width).map(norm2).collect();
        let best = vec![Ranking::new(k, metric.extreme()); norms.len()];
        Self { metric, width, queries, norms, own, best, products: Vec::new(), n_unranked: 0 }
    }

    /// Shows every query the rows of a block.
    fn add(&mut self, rows: &[u64], values: &[f32]) {
        let (n, width) = (rows.len(), self.width);
        let n_queries = self.norms.len();
        let lengths = |row| {
            let norm = norm2(row);
            (norm, norm.sqrt())
        };
        let row_norms: Vec<(f64, f64)> = values.par_chunks(width).with_min_len(64).map(lengths).collect();
        self.n_unranked += row_norms.iter().filter(|(norm, _)| self.metric.has_no_place(*norm)).count() as u64;
        self.products.resize(n_queries * n, 0.0);
        product(self.queries, values, n_queries, n, width, &mut self.products);
        let (metric, queries) = (self.metric, self.queries);
        // A sum of `width` products of f32, in any order and with or without fused rounding, is off by at most this
        // share of ‖a‖‖b‖ (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); doubled, against what the bound
        // itself is rounded by.
        let share = 2.0 * (width as f64 + 2.0) * f64::from(f32::EPSILON);
        let tiny = f64::from(f32::MIN_POSITIVE) * width as f64;
        let each = self.best.par_iter_mut().zip(self.products.par_chunks(n)).enumerate();
        each.for_each(|(q, (best, products))| {
            let query = queries.get(q * width..(q + 1) * width).unwrap_or_default();
            let query_norm = self.norms.get(q).copied().unwrap_or_default();
            let own = self.own.get(q).copied().flatten();
            let query_length = query_norm.sqrt();
            for (i, (&product, &(row_norm, row_length))) in products.iter().zip(&row_norms).enumerate() {
                let off = share * query_length * row_length + tiny;
                // Less than nothing where the row certainly does not rank; a product that overflowed f32 leaves that open.
                let bound = best.bound();
                let hope = match metric {
                    Metric::L2 => {
                        bound * bound * (1.0 + 1e-12) - (query_norm + row_norm - 2.0 * (f64::from(product) + off))
                    }
                    Metric::Dot => bound + f64::from(product) + off,
                    Metric::Cosine => bound * query_length * row_length + f64::from(product) + off,
                };
                if hope < 0.0 && product.is_finite() {
                    continue;
                }
                let Some(&row) = rows.get(i).filter(|row| own != Some(**row)) else { continue };
                best.push(row, metric.exact(values.get(i * width..(i + 1) * width).unwrap_or_default(), query));
            }
        });
    }
}

/// `out[q][r]` = inner product of query q and row r.
#[expect(unsafe_code, reason = "gemm takes pointers")]
fn product(queries: &[f32], rows: &[f32], n_queries: usize, n_rows: usize, width: usize, out: &mut [f32]) {
    assert!(queries.len() == n_queries * width && rows.len() == n_rows * width && out.len() == n_queries * n_rows);
    let (w, n) = (width as isize, n_rows as isize);
    // SAFETY: the three lengths were just checked against the sizes and strides that are passed.
    unsafe {
        gemm::gemm(
            n_queries,
            n_rows,
            width,
            out.as_mut_ptr(),
            1,
            n,
            false,
            queries.as_ptr(),
            1,
            w,
            rows.as_ptr(),
            w,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

/// The `k` rows nearest to `query`, nearest first: `(row_id, distance or similarity)`.
///
/// Shape: `values` is rows × columns, row-major, `query` has one value a column. Errors: `Mismatch` when the sizes do not
/// agree.
pub fn nearest_rows(rows: &[u64], values: &[f32], query: &[f32], k: usize, metric: Metric) -> Result<Vec<(u64, f32)>> {
    let width = query.len();
    if rows.len() * width != values.len() {
        return Err(QueryError::Mismatch {
            what: "nearest neighbours".into(),
            why: format!(
                "{} rows of {width} columns need {} values, got {}",
                rows.len(),
                rows.len() * width,
                values.len()
            ),
        });
    }
    if width == 0 {
        return Ok(Vec::new());
    }
    let mut search = Search::new(query, &[None], width, k, metric);
    search.add(rows, values);
    let best = search.best.pop().map(Ranking::finish).unwrap_or_default();
    Ok(best.into_iter().map(|(row, v)| (row, v as f32)).collect())
}

/// What neighbours are looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Queries {
    /// Of examples of the intermediate; none is its own neighbour.
    Rows(Vec<u64>),
    /// Of vectors: queries × columns, row-major.
    Vectors(Vec<f64>),
}

/// The neighbours of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// The example, where the query is one.
    pub of: Option<u64>,
    /// `(row_id, distance or similarity)`, nearest first.
    pub rows: Vec<(u64, f64)>,
}

/// An answer of [`knn`].
#[derive(Debug, Clone, PartialEq)]
pub struct KnnAnswer {
    /// One entry a query.
    pub queries: Vec<Neighbours>,
    /// Rows that were looked at.
    pub n_rows: u64,
    /// Those of them that hold a NaN or, for the cosine, are zero: they are nobody's neighbours. `None` where an index,
    /// which lacks them, answered.
    pub n_unranked: Option<u64>,
    /// Where the values came from.
    pub source: Source,
}

/// The `k` rows of a request that are nearest to each query.
///
/// Errors: `NoSuchRow` for an example that is not there; `Mismatch` for vectors of another length, and for queries that
/// hold a NaN or, for the cosine, are zero; as [`ChunkReader::get`].
pub fn knn(
    reader: &ChunkReader<'_>,
    request: &Request,
    queries: &Queries,
    k: usize,
    metric: Metric,
) -> Result<KnnAnswer> {
    let scan = reader.scan_numbers(request)?;
    let width = scan.columns().len();
    let mut query_rests = None;
    let (own, vectors): (Vec<Option<u64>>, Vec<f64>) = match queries {
        Queries::Rows(rows) => {
            let block = scan.read(rows)?;
            query_rests = rounding::rests(&block)?;
            (rows.iter().copied().map(Some).collect(), block.into_f64()?)
        }
        Queries::Vectors(values) => {
            let n = values.len() / width.max(1);
            if n * width != values.len() {
                return Err(refusal(&scan, format!("vectors of {width} values are needed, got {}", values.len())));
            }
            (vec![None; n], values.clone())
        }
    };
    for query in vectors.chunks_exact(width.max(1)) {
        let norm = norm2(query);
        if norm.is_nan() {
            return Err(refusal(&scan, "a query holds NaN, which is near to nothing".into()));
        }
        if metric == Metric::Cosine && norm == 0.0 {
            return Err(refusal(&scan, "a query is all zeros, which has no direction; use l2".into()));
        }
    }
    let extreme = metric.extreme();
    let narrow: Vec<f32> = vectors.iter().map(|v| *v as f32).collect();
    let mut search = Search::new(&narrow, &own, width.max(1), k, metric);
    let rows: Vec<u64> = scan.rows().iter().collect();
    let mut wide: Vec<Ranking> = Vec::new();
    let mut n_unranked = 0;
    for ids in rows.chunks(scan.block_rows()) {
        let block = scan.read(ids)?;
        if let Data::F32(values) = &block.data {
            search.add(ids, values);
            continue;
        }
        // float64 and tables are scored in f64 alone.
        wide.resize(own.len(), Ranking::new(k, extreme));
        let rests = rounding::rests(&block)?;
        let values = block.into_f64()?;
        let unranked = values.par_chunks(width.max(1)).filter(|row| metric.has_no_place(norm2(row)));
        n_unranked += unranked.count() as u64;
        let is_rounded = metric == Metric::L2 && (rests.is_some() || query_rests.is_some());
        let none = if is_rounded { vec![0.0; values.len().max(vectors.len())] } else { Vec::new() };
        let (rests, query_rests) = (rests.as_deref().unwrap_or(&none), query_rests.as_deref().unwrap_or(&none));
        let of = |i: usize| i * width..(i + 1) * width;
        let each = wide.par_iter_mut().zip(vectors.par_chunks(width.max(1))).zip(&own).enumerate();
        each.for_each(|(q, ((best, query), own))| {
            let query_rest = query_rests.get(of(q)).unwrap_or_default();
            for (i, (&row, values)) in ids.iter().zip(values.chunks_exact(width.max(1))).enumerate() {
                if *own == Some(row) {
                    continue;
                }
                let score = match is_rounded {
                    true => distance((values, rests.get(of(i)).unwrap_or_default()), (query, query_rest)),
                    false => metric.exact(values, query),
                };
                best.push(row, score);
            }
        });
    }
    n_unranked += search.n_unranked;
    let best = if wide.is_empty() { search.best } else { wide };
    let queries = own.iter().zip(best).map(|(of, best)| Neighbours { of: *of, rows: best.finish() }).collect();
    Ok(KnnAnswer { queries, n_rows: rows.len() as u64, n_unranked: Some(n_unranked), source: scan.source() })
}

fn refusal(scan: &Scan<'_, '_>, why: String) -> QueryError {
    QueryError::Mismatch { what: format!("neighbours by {}", scan.key()), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = [0, 1, 2];
        let values = [0.0, 0.0, 3.0, 4.0, 1.0, 0.0];
        let near = nearest_rows(&rows, &values, &[0.0, 0.0], 2, Metric::L2).unwrap();
        assert_eq!(near, [(0, 0.0), (2, 1.0)]);
        let near = nearest_rows(&rows, &values, &[6.0, 8.0], 1, Metric::Cosine).unwrap();
        assert_eq!(near, [(1, 1.0)]);
        let near = nearest_rows(&rows, &values, &[1.0, 1.0], 3, Metric::Dot).unwrap();
        assert_eq!(near, [(1, 7.0), (2, 1.0), (0, 0.0)]);
        assert!(nearest_rows(&rows, &values, &[1.0], 3, Metric::Dot).is_err());
    }

    /// Values of very different size, many equal, so that an f32 product alone would rank them wrongly.
    fn hard(n: usize, width: usize) -> Vec<f32> {
        let mut state = 1u64;
        (0..n * width)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let x = (state >> 40) as f32 / (1 << 24) as f32;
                match i / width % 5 {
                    0 => 1000.0 + x * 1e-3,
                    1 => 0.0,
                    2 => (x * 8.0).floor(),
                    3 => 1000.0,
                    _ => x - 0.5,
                }
            })
            .collect()
    }

    #[test]
    fn several_queries_of_values_that_overflow_f32() {
        let (n, width) = (300, 33);
        let rows: Vec<u64> = (0..n as u64).collect();
        for scale in [1e18f32, 3e19, 1e30, 1e35] {
            let values: Vec<f32> = hard(n, width).iter().map(|v| (v - 0.3) * scale).filter(|v| v.is_finite()).collect();
            let rows = &rows[..values.len() / width];
            let values = &values[..rows.len() * width];
            for metric in Metric::ALL {
                let mut search = Search::new(&values[..7 * width], &[None; 7], width, 9, metric);
                search.add(rows, values);
                for (query, found) in values.chunks_exact(width).zip(search.best) {
                    let mut all = Ranking::new(9, metric.extreme());
                    rows.iter().zip(values.chunks_exact(width)).for_each(|(r, v)| all.push(*r, metric.exact(v, query)));
                    assert_eq!(found.finish(), all.finish(), "{metric:?} at {scale:e}");
                }
            }
        }
    }

    #[test]
    fn as_a_scan_in_f64() {
        let (n, width) = (700, 33);
        let mut values = hard(n, width);
        values[5 * width] = f32::NAN;
        values[12 * width] = 3e38;
        values[13 * width] = f32::INFINITY;
        let rows: Vec<u64> = (0..n as u64).map(|r| (r * 37) % 1009).collect();
        for metric in Metric::ALL {
            for q in [0usize, 3, 7, 12, 699] {
                let query = values[q * width..(q + 1) * width].to_vec();
                let score = |v: &[f32]| {
                    let pairs = || v.iter().zip(&query).map(|(a, b)| (f64::from(*a), f64::from(*b)));
                    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
                    let square = |v: &[f32]| v.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
                    match metric {
                        Metric::L2 => pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
                        Metric::Dot => dot,
                        Metric::Cosine => dot / (square(v) * square(&query)).sqrt(),
                    }
                };
                let mut all: Vec<(u64, f64)> = rows
                    .iter()
                    .zip(values.chunks_exact(width))
                    .map(|(r, v)| (*r, score(v)))
                    .filter(|(_, s)| !s.is_nan())
                    .collect();
                let sign = if metric == Metric::L2 { 1.0 } else { -1.0 };
                all.sort_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)).then(a.0.cmp(&b.0)));
                for k in [1, 10, 300] {
                    let mut search = Search::new(&query, &[None], width, k, metric);
                    for (rows, values) in rows.chunks(128).zip(values.chunks(128 * width)) {
                        search.add(rows, values);
                    }
                    let found = search.best.pop().unwrap().finish();
                    assert_eq!(found.len(), k.min(all.len()));
                    let near = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-11 * b.abs();
                    for (f, a) in found.iter().zip(&all) {
                        assert!(f.0 == a.0 || near(f.1, a.1), "{metric:?} {q} {k}: {f:?} {a:?}");
                        assert!(near(f.1, a.1), "{metric:?} {q} {k}: {f:?} {a:?}");
                    }
                }
            }
        }
    }
}
