//! Products of blocks of data points, cut into strips of columns: each strip is one thread's, without a barrier between
//! them, so that a busy machine slows one and not all; of a product with itself only the lower half is computed.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Columns of a strip.
const STRIP: usize = 128;
/// Points whose products are summed in f32 before they are added in f64.
const POINTS: usize = 1024;

/// float32 or float64.
pub(super) trait Real: Copy + Into<f64> + Send + Sync + 'static {
    /// The nearest one.
    fn from_f64(v: f64) -> Self;
    /// The difference.
    fn minus(self, other: Self) -> Self;
    /// Adds `xᵀ · y` to `out`.
    fn add_product(out: MatMut<'_, f64>, x: MatRef<'_, Self>, y: MatRef<'_, Self>);
}

impl Real for f64 {
    fn from_f64(v: f64) -> Self {
        v
    }

    fn minus(self, other: Self) -> Self {
        self - other
    }

    fn add_product(out: MatMut<'_, f64>, x: MatRef<'_, f64>, y: MatRef<'_, f64>) {
        matmul(out, Accum::Add, x.transpose(), y, 1.0, Par::Seq);
    }
}

impl Real for f32 {
    fn from_f64(v: f64) -> Self {
        v as f32
    }

    fn minus(self, other: Self) -> Self {
        self - other
    }

    fn add_product(mut out: MatMut<'_, f64>, x: MatRef<'_, f32>, y: MatRef<'_, f32>) {
        let mut part = Mat::<f32>::zeros(x.ncols(), y.ncols());
        for first in (0..x.nrows()).step_by(POINTS) {
            let n = POINTS.min(x.nrows() - first);
            let (x, y) = (x.subrows(first, n), y.subrows(first, n));
            matmul(part.as_mut(), Accum::Replace, x.transpose(), y, 1.0, Par::Seq);
            for (out, part) in out.as_mut().col_iter_mut().zip(part.col_iter()) {
                out.iter_mut().zip(part.iter()).for_each(|(out, v)| *out += f64::from(*v));
            }
        }
    }
}

/// Some columns of a product, and what is to be added to them.
pub(super) struct Strip<'m, T> {
    /// Column-major.
    out: &'m mut [f64],
    x: MatRef<'m, T>,
    y: MatRef<'m, T>,
    /// Rows above are not computed.
    first_row: usize,
}

impl<'m, T: Real> Strip<'m, T> {
    /// The strips of `product`, columns of x × columns of y and column-major; of which `symmetric` ones need their lower
    /// half only.
    pub fn of(
        product: &'m mut [f64],
        x: MatRef<'m, T>,
        y: MatRef<'m, T>,
        symmetric: bool,
    ) -> impl Iterator<Item = Self> + use<'m, T> {
        product.chunks_mut((STRIP * x.ncols()).max(1)).enumerate().map(move |(i, out)| {
            let first = i * STRIP;
            let y = y.subcols(first, STRIP.min(y.ncols() - first));
            Self { out, x, y, first_row: if symmetric { first } else { 0 } }
        })
    }

    /// Adds to them.
    pub fn add(self) {
        let (rows, columns) = (self.x.ncols(), self.y.ncols());
        let out = MatMut::from_column_major_slice_mut(self.out, rows, columns);
        let left = rows - self.first_row;
        T::add_product(out.subrows_mut(self.first_row, left), self.x.subcols(self.first_row, left), self.y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product<T: Real>(x: &[f64], y: &[f64], n: usize, symmetric: bool) -> Vec<f64> {
        let typed = |v: &[f64]| v.iter().map(|v| T::from_f64(*v)).collect::<Vec<T>>();
        let (x, y) = (typed(x), typed(y));
        let (a, b) = (x.len() / n, y.len() / n);
        let mut out = vec![1.0; a * b];
        let (x, y) = (MatRef::from_row_major_slice(&x, n, a), MatRef::from_row_major_slice(&y, n, b));
        Strip::of(&mut out, x, y, symmetric).for_each(Strip::add);
        out
    }

    #[test]
    fn strips_add_up_to_the_product() {
        // More points than are summed in f32, and columns that do not fill the last strip.
        let (n, a, b) = (POINTS + 7, 5, STRIP + 3);
        // Small integers: every sum is exact in either type.
        let values =
            |width: usize, step: usize| -> Vec<f64> { (0..n * width).map(|i| (i * step % 7) as f64 - 3.0).collect() };
        let (x, y) = (values(a, 5), values(b, 3));
        let dot = |x: &[f64], i: usize, a: usize, y: &[f64], j: usize, b: usize| -> f64 {
            1.0 + (0..n).map(|r| x[r * a + i] * y[r * b + j]).sum::<f64>()
        };
        for out in [product::<f32>(&x, &y, n, false), product::<f64>(&x, &y, n, false)] {
            assert!((0..a * b).all(|at| out[at] == dot(&x, at % a, a, &y, at / a, b)));
        }
        for out in [product::<f32>(&y, &y, n, true), product::<f64>(&y, &y, n, true)] {
            let lower = (0..b * b).filter(|at| at % b >= at / b);
            assert!(lower.into_iter().all(|at| out[at] == dot(&y, at % b, b, &y, at / b, b)));
        }
    }
}
