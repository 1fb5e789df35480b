//! Covariances of data points that stream by.

use std::collections::{BTreeMap, BTreeSet};

use faer::linalg::matmul::{matmul, triangular};
use faer::{Accum, Mat, MatRef, Par};

use super::points::Points;
use crate::diagnostics::finite::Finite;
use crate::error::Result;

/// Sums of products of deviations from the mean, of the pairs that were asked for.
pub(super) struct Moments {
    /// Column means.
    means: BTreeMap<usize, Vec<f64>>,
    /// By pair `(a, b)` with a ≤ b: columns of a × columns of b.
    products: BTreeMap<(usize, usize), Mat<f64>>,
    n_points: usize,
}

impl Moments {
    /// One pass over `rows`.
    ///
    /// Values are shifted by the means of the first block, so that a large mean costs no digits; sums are in f64.
    /// Errors: `NotFinite`; those of reading.
    pub fn of(
        sides: &[Points<'_, '_, '_>],
        pairs: &[(usize, usize)],
        rows: &[u64],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let wanted: BTreeSet<(usize, usize)> =
            pairs.iter().flat_map(|&(a, b)| [(a, a), (b, b), (a.min(b), a.max(b))]).collect();
        let used: BTreeMap<usize, &Points<'_, '_, '_>> =
            wanted.iter().filter(|(a, b)| a == b).filter_map(|&(a, _)| Some((a, sides.get(a)?))).collect();
        let width = |i: usize| used.get(&i).map_or(0, |p| p.n_columns());
        let mut products: BTreeMap<(usize, usize), Mat<f64>> =
            wanted.iter().map(|&(a, b)| ((a, b), Mat::zeros(width(a), width(b)))).collect();
        let mut shifts: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let mut sums: BTreeMap<usize, Vec<f64>> = used.keys().map(|&i| (i, vec![0.0; width(i)])).collect();
        let mut finite: BTreeMap<usize, Finite> = used.keys().map(|&i| (i, Finite::new(width(i)))).collect();
        let mut n_points = 0;
        let block_rows = used.values().map(|p| p.block_rows()).min().unwrap_or(1).max(1);
        let mut all_finite = true;
        for (done, part) in rows.chunks(block_rows).enumerate() {
            let mut blocks: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
            let mut n_block = 0;
            for (&i, points) in &used {
                let mut values = points.read(part)?;
                let width = width(i).max(1);
                n_block = values.len() / width;
                all_finite &= finite.get_mut(&i).is_none_or(|f| f.see(&values));
                let shift = shifts.entry(i).or_insert_with(|| column_means(&values, width));
                if let Some(sum) = sums.get_mut(&i) {
                    for row in values.chunks_exact_mut(width) {
                        for ((v, shift), sum) in row.iter_mut().zip(shift.iter()).zip(sum.iter_mut()) {
                            *v -= shift;
                            *sum += *v;
                        }
                    }
                }
                blocks.insert(i, values);
            }
            n_points += n_block;
            progress((done * block_rows + part.len()) as u64);
            // What is left only counts the values that are not finite.
            if !all_finite {
                continue;
            }
            let view = |i: usize| {
                let values = blocks.get(&i).map_or(&[][..], Vec::as_slice);
                MatRef::from_row_major_slice(values, values.len() / width(i).max(1), width(i))
            };
            for (&(a, b), product) in &mut products {
                let (x, y) = (view(a), view(b));
                if a == b {
                    let (full, lower) =
                        (triangular::BlockStructure::Rectangular, triangular::BlockStructure::TriangularLower);
                    let out = product.as_mut();
                    triangular::matmul(out, lower, Accum::Add, x.transpose(), full, x, full, 1.0, Par::rayon(0));
                } else {
                    matmul(product.as_mut(), Accum::Add, x.transpose(), y, 1.0, Par::rayon(0));
                }
            }
        }
        for (i, f) in &finite {
            if let Some(points) = used.get(i) {
                f.verdict(|c| (points.name(), points.column_name(c)))?;
            }
        }
        let n = n_points as f64;
        for (&(a, b), product) in &mut products {
            let (Some(sa), Some(sb)) = (sums.get(&a), sums.get(&b)) else { continue };
            for (j, (column, sb)) in product.col_iter_mut().zip(sb).enumerate() {
                for (i, (v, sa)) in column.iter_mut().zip(sa).enumerate() {
                    if a != b || i >= j {
                        *v -= sa * sb / n;
                    }
                }
            }
            if a == b {
                mirror(product);
            }
        }
        for (i, shift) in &mut shifts {
            let sum = sums.get(i).map_or(&[][..], Vec::as_slice);
            shift.iter_mut().zip(sum).for_each(|(m, s)| *m += s / n);
        }
        Ok(Self { means: shifts, products, n_points })
    }

    /// The sums of a side with itself, or of two sides: columns of `a` × columns of `b`.
    pub fn product(&self, a: usize, b: usize) -> Option<MatRef<'_, f64>> {
        if a <= b {
            self.products.get(&(a, b)).map(Mat::as_ref)
        } else {
            self.products.get(&(b, a)).map(|m| m.transpose())
        }
    }

    /// Columns of a side that vary: beyond what rounding leaves of a constant.
    pub fn varying(&self, side: usize) -> Vec<usize> {
        let Some(own) = self.product(side, side) else { return Vec::new() };
        let means = self.means.get(&side).map_or(&[][..], Vec::as_slice);
        let diagonal = own.diagonal().column_vector();
        let varies = |(i, mean): (usize, &f64)| {
            let noise = 1e-12 * mean.abs();
            let spread = diagonal.get(i);
            (*spread > noise * noise * self.n_points as f64 && *spread > 0.0).then_some(i)
        };
        means.iter().enumerate().filter_map(varies).collect()
    }

    /// Columns of a side.
    pub fn n_columns(&self, side: usize) -> usize {
        self.means.get(&side).map_or(0, Vec::len)
    }
}

fn column_means(values: &[f64], width: usize) -> Vec<f64> {
    let mut means = vec![0.0; width];
    for row in values.chunks_exact(width) {
        means.iter_mut().zip(row).for_each(|(m, v)| *m += v);
    }
    let n = (values.len() / width).max(1) as f64;
    // A value that is not finite ends in an error anyway.
    means.iter().map(|m| if m.is_finite() { m / n } else { 0.0 }).collect()
}

/// Copies the lower half to the upper.
fn mirror(m: &mut Mat<f64>) {
    for j in 0..m.ncols() {
        for i in 0..j {
            m[(i, j)] = m[(j, i)];
        }
    }
}
