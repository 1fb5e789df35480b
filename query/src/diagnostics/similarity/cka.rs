//! Centred kernel alignment.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::Similarity;
use super::moments::Moments;
use super::points::Gathered;
use crate::error::{QueryError, Result};

/// Points of a block of a kernel.
const BLOCK: usize = 512;
/// Points up to which the median distance is found exactly; beyond, to a millionth or so, by counting.
const EXACT_MEDIAN: usize = 2048;
/// Bits of a float32 that a counter of distances does not tell apart.
const COARSE: u32 = 10;

/// ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centred columns. Errors: why it is undefined.
pub(super) fn linear(moments: &Moments, (a, b): (usize, usize)) -> std::result::Result<Similarity, String> {
    let norm = |a, b| Ok::<f64, String>(moments.product(a, b).ok_or("the pair was not asked for")?.norm_l2());
    let varying = [moments.varying(a).len(), moments.varying(b).len()];
    if varying.contains(&0) {
        return Err("no column of a side varies".into());
    }
    // One quotient at a time: products of norms of very large or small values leave float64.
    let between = norm(a, b)?;
    let value = (between / norm(a, a)?) * (between / norm(b, b)?);
    let constant = [moments.n_columns(a) - varying[0], moments.n_columns(b) - varying[1]];
    Ok(Similarity { value: value.clamp(0.0, 1.0), coefficients: Vec::new(), directions: varying, constant })
}

/// One side's points, centred, in blocks.
struct Kernel {
    /// By block: points × columns, row-major.
    blocks: Vec<Vec<f64>>,
    /// Squared length of each point.
    norms: Vec<f64>,
    width: usize,
    varying: usize,
    /// Factor of squared distances in the exponent.
    rate: f64,
}

impl Kernel {
    fn new(points: &Gathered, fraction: f64) -> Result<Self> {
        let (n, width) = (points.n_points, points.n_columns);
        let (mut means, mut low, mut high) =
            (vec![0.0; width], vec![f32::INFINITY; width], vec![f32::NEG_INFINITY; width]);
        for row in points.values.chunks_exact(width) {
            for (((mean, low), high), v) in means.iter_mut().zip(&mut low).zip(&mut high).zip(row) {
                *mean += f64::from(*v) / n as f64;
                (*low, *high) = (low.min(*v), high.max(*v));
            }
        }
        let varying = low.iter().zip(&high).filter(|(l, h)| l < h).count();
        let centred = |rows: &[f32]| -> Vec<f64> {
            rows.chunks_exact(width).flat_map(|r| r.iter().zip(&means).map(|(v, m)| f64::from(*v) - m)).collect()
        };
        let blocks: Vec<Vec<f64>> = points.values.chunks(BLOCK * width).map(centred).collect();
        let norms = blocks.iter().flat_map(|b| b.chunks_exact(width).map(|r| r.iter().map(|v| v * v).sum())).collect();
        let mut kernel = Self { blocks, norms, width, varying, rate: 0.0 };
        let median = kernel.median();
        if median <= 0.0 {
            return Err(QueryError::Undefined {
                what: format!("RBF CKA of {}", points.name),
                why: "more than half of its data points are equal, so that the median distance is 0".into(),
            });
        }
        kernel.rate = -1.0 / (2.0 * fraction * fraction * median);
        Ok(kernel)
    }

    /// Pairs of blocks on and above the diagonal.
    fn tiles(&self) -> Vec<(usize, usize)> {
        let n = self.blocks.len();
        (0..n).flat_map(|i| (i..n).map(move |j| (i, j))).collect()
    }

    /// Squared distances of the points of block `i` to those of block `j`: `out` is column-major.
    fn distances(&self, i: usize, j: usize, out: &mut Mat<f64>) {
        let block = |b: usize| {
            let values = self.blocks.get(b).map_or(&[][..], Vec::as_slice);
            MatRef::from_row_major_slice(values, values.len() / self.width, self.width)
        };
        let (x, y) = (block(i), block(j));
        if (out.nrows(), out.ncols()) != (x.nrows(), y.nrows()) {
            *out = Mat::zeros(x.nrows(), y.nrows());
        }
        matmul(out.as_mut(), Accum::Replace, x, y.transpose(), -2.0, Par::Seq);
        let norms = |b: usize, n: usize| self.norms.get(b * BLOCK..b * BLOCK + n).unwrap_or_default();
        let (nx, ny) = (norms(i, x.nrows()), norms(j, y.nrows()));
        for (c, (column, ny)) in out.col_iter_mut().zip(ny).enumerate() {
            for (r, (v, nx)) in column.iter_mut().zip(nx).enumerate() {
                *v = if i == j && r == c { 0.0 } else { (*v + nx + ny).max(0.0) };
            }
        }
    }

    /// Median of the squared distances of all ordered pairs, a point with itself among them.
    fn median(&self) -> f64 {
        let n = self.norms.len();
        let above = |i: usize, j: usize, d: &Mat<f64>, see: &mut dyn FnMut(f64)| {
            for (c, column) in d.col_iter().enumerate() {
                column.iter().take(if i == j { c } else { d.nrows() }).for_each(|v| see(*v));
            }
        };
        // In order, the n zeros of the diagonal come first, then every distance twice.
        let total = n * n;
        let ranks = [(total - 1) / 2, total / 2].map(|r| r.checked_sub(n).map(|r| r / 2));
        if n <= EXACT_MEDIAN {
            let mut all = Vec::with_capacity(total / 2);
            let mut d = Mat::zeros(0, 0);
            for (i, j) in self.tiles() {
                self.distances(i, j, &mut d);
                above(i, j, &d, &mut |v| all.push(v));
            }
            let mut at = |rank: Option<usize>| match rank {
                Some(r) if r < all.len() => *all.select_nth_unstable_by(r, f64::total_cmp).1,
                _ => 0.0,
            };
            return (at(ranks[0]) + at(ranks[1])) / 2.0;
        }
        let counted = || (vec![0u64; 1 << (31 - COARSE)], Mat::zeros(0, 0));
        let count = |(mut counts, mut d): (Vec<u64>, Mat<f64>), (i, j): (usize, usize)| {
            self.distances(i, j, &mut d);
            above(i, j, &d, &mut |v| {
                if let Some(c) = counts.get_mut(((v as f32).to_bits() >> COARSE) as usize) {
                    *c += 1;
                }
            });
            (counts, d)
        };
        let add = |(mut a, d): (Vec<u64>, Mat<f64>), (b, _): (Vec<u64>, Mat<f64>)| {
            a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
            (a, d)
        };
        let (counts, _) = self.tiles().into_par_iter().with_min_len(8).fold(counted, count).reduce(counted, add);
        let Some(rank) = ranks[1] else { return 0.0 };
        let mut before = 0;
        for (bin, count) in (0u32..).zip(&counts) {
            if before + count > rank as u64 {
                let edge = |b: u32| f64::from(f32::from_bits(b << COARSE));
                let part = ((rank as u64 - before) as f64 + 0.5) / *count as f64;
                return edge(bin) + (edge(bin + 1) - edge(bin)) * part;
            }
            before += count;
        }
        0.0
    }
}

/// Sums over a kernel pair that the alignment needs: no matrix of points × points is held.
struct Sums {
    kl: f64,
    kk: f64,
    ll: f64,
    k: Vec<f64>,
    l: Vec<f64>,
}

impl Sums {
    fn zero(n: usize) -> Self {
        Self { kl: 0.0, kk: 0.0, ll: 0.0, k: vec![0.0; n], l: vec![0.0; n] }
    }

    fn plus(mut self, other: &Self) -> Self {
        (self.kl, self.kk, self.ll) = (self.kl + other.kl, self.kk + other.kk, self.ll + other.ll);
        self.k.iter_mut().zip(&other.k).for_each(|(a, b)| *a += b);
        self.l.iter_mut().zip(&other.l).for_each(|(a, b)| *a += b);
        self
    }

    /// Adds a tile of both kernels; one above the diagonal stands for its mirror image too.
    fn tile(&mut self, i: usize, j: usize, k: &Mat<f64>, l: &Mat<f64>) {
        let twice = if i == j { 1.0 } else { 2.0 };
        let (mut kl, mut kk, mut ll) = (0.0, 0.0, 0.0);
        for (c, (kc, lc)) in k.col_iter().zip(l.col_iter()).enumerate() {
            let (mut sum_k, mut sum_l) = (0.0, 0.0);
            for (r, (k, l)) in kc.iter().zip(lc.iter()).enumerate() {
                (kl, kk, ll) = (kl + k * l, kk + k * k, ll + l * l);
                (sum_k, sum_l) = (sum_k + k, sum_l + l);
                if i != j
                    && let (Some(a), Some(b)) = (self.k.get_mut(i * BLOCK + r), self.l.get_mut(i * BLOCK + r))
                {
                    (*a, *b) = (*a + k, *b + l);
                }
            }
            if let (Some(a), Some(b)) = (self.k.get_mut(j * BLOCK + c), self.l.get_mut(j * BLOCK + c)) {
                (*a, *b) = (*a + sum_k, *b + sum_l);
            }
        }
        (self.kl, self.kk, self.ll) = (self.kl + twice * kl, self.kk + twice * kk, self.ll + twice * ll);
    }
}

/// HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) of Gaussian kernels whose bandwidth is `fraction` of the median distance.
///
/// Errors: `Undefined` where more than half of a side's points are equal.
pub(super) fn rbf(x: &Gathered, y: &Gathered, fraction: f64) -> Result<Similarity> {
    let (kx, ky) = (Kernel::new(x, fraction)?, Kernel::new(y, fraction)?);
    let n = x.n_points.min(y.n_points);
    let empty = || (Sums::zero(n), Mat::zeros(0, 0), Mat::zeros(0, 0));
    let exp = |m: &mut Mat<f64>, rate: f64| {
        m.col_iter_mut().for_each(|c| c.iter_mut().for_each(|v| *v = (*v * rate).exp()));
    };
    let add = |(mut sums, mut k, mut l): (Sums, Mat<f64>, Mat<f64>), (i, j): (usize, usize)| {
        kx.distances(i, j, &mut k);
        exp(&mut k, kx.rate);
        ky.distances(i, j, &mut l);
        exp(&mut l, ky.rate);
        sums.tile(i, j, &k, &l);
        (sums, k, l)
    };
    let sums = kx.tiles().into_par_iter().with_min_len(4).fold(empty, add).map(|(sums, ..)| sums);
    let sums = sums.reduce(|| Sums::zero(n), |a, b| a.plus(&b));
    let points = n as f64;
    let centred = |product: f64, a: &[f64], b: &[f64]| {
        let rows: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        product - 2.0 * rows / points + a.iter().sum::<f64>() * b.iter().sum::<f64>() / (points * points)
    };
    let (kl, kk, ll) =
        (centred(sums.kl, &sums.k, &sums.l), centred(sums.kk, &sums.k, &sums.k), centred(sums.ll, &sums.l, &sums.l));
    let value = (kl / (kk * ll).sqrt()).clamp(0.0, 1.0);
    let directions = [kx.varying, ky.varying];
    let constant = [kx.width - kx.varying, ky.width - ky.varying];
    Ok(Similarity { value, coefficients: Vec::new(), directions, constant })
}
