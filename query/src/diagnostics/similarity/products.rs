//! Products of data points, cut into strips of columns: each strip is one thread's, without a barrier between them, so that
//! a busy machine slows one and not all; of a product with itself only the lower half is computed.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use super::panels::{Group, Panels};
use super::tile::{PANEL, Tile};

/// Columns of a strip: whole panels.
const STRIP: usize = 64;

/// float32 or float64.
pub(super) trait Real: Tile + Copy + Into<f64> + Send + Sync + 'static {
    /// The nearest one.
    fn from_f64(v: f64) -> Self;
    /// The difference.
    fn minus(self, other: Self) -> Self;
    /// Adds `xᵀ · y` to `out`, summed in this type.
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
        matmul(part.as_mut(), Accum::Replace, x.transpose(), y, 1.0, Par::Seq);
        for (out, part) in out.as_mut().col_iter_mut().zip(part.col_iter()) {
            out.iter_mut().zip(part.iter()).for_each(|(out, v)| *out += f64::from(*v));
        }
    }
}

/// Some columns of a product, and what is to be added to them.
pub(super) struct Strip<'m, T> {
    /// Column-major.
    out: &'m mut [f64],
    x: &'m Panels<T>,
    y: &'m Panels<T>,
    /// Its first column.
    first: usize,
    /// Rows above the diagonal are not needed.
    symmetric: bool,
}

impl<'m, T: Real> Strip<'m, T> {
    /// The strips of `product`, columns of x × columns of y and column-major; of which `symmetric` ones need their lower
    /// half only. Both sides hold as many points, in panels of one kind.
    pub fn of(
        product: &'m mut [f64],
        x: &'m Panels<T>,
        y: &'m Panels<T>,
        symmetric: bool,
    ) -> impl Iterator<Item = Self> + use<'m, T> {
        let strips = product.chunks_mut((STRIP * x.n_columns()).max(1)).enumerate();
        strips.map(move |(i, out)| Self { out, x, y, first: i * STRIP, symmetric })
    }

    /// Adds to them.
    pub fn add(mut self) {
        for (x, y) in self.x.groups().zip(self.y.groups()) {
            match self.x.are_tiles() {
                true => self.add_tiles(&x, &y),
                false => self.add_whole(&x, &y),
            }
        }
    }

    fn add_tiles(&mut self, x: &Group<'_, T>, y: &Group<'_, T>) {
        let rows = self.x.n_columns();
        let from = if self.symmetric { self.first } else { 0 };
        for row in (from..rows).step_by(PANEL) {
            let x = x.panel(row / PANEL);
            for (column, out) in (self.first..).step_by(PANEL).zip(self.out.chunks_mut(PANEL * rows)) {
                if self.symmetric && row < column {
                    break;
                }
                let size = [PANEL.min(rows - row), out.len() / rows];
                T::add(x, y.panel(column / PANEL), &mut out[row..], rows, size);
            }
        }
    }

    fn add_whole(&mut self, x: &Group<'_, T>, y: &Group<'_, T>) {
        let (rows, columns) = (self.x.n_columns(), self.y.n_columns());
        let from = if self.symmetric { self.first } else { 0 };
        let n = x.whole().len() / rows.max(1);
        let x = MatRef::from_row_major_slice(x.whole(), n, rows).subcols(from, rows - from);
        let y = MatRef::from_row_major_slice(y.whole(), n, columns).subcols(self.first, self.out.len() / rows.max(1));
        let out = MatMut::from_column_major_slice_mut(&mut *self.out, rows, y.ncols());
        T::add_product(out.subrows_mut(from, rows - from), x, y);
    }
}

#[cfg(test)]
mod tests {
    use super::super::panels::POINTS;
    use super::*;

    fn product<T: Real>(x: &[f64], y: &[f64], n: usize, [tiles, symmetric]: [bool; 2]) -> Vec<f64> {
        let panels = |v: &[f64]| {
            let width = v.len() / n;
            let mut panels = Panels::<T>::new(width, tiles);
            let mut sums = vec![0.0; width];
            panels.fill(v, &vec![T::from_f64(1.0); width], &mut sums);
            let by_hand = |c: usize| v.iter().skip(c).step_by(width).map(|v| v - 1.0).sum::<f64>();
            assert!((0..width).all(|c| sums[c] == by_hand(c)));
            panels
        };
        let mut out = vec![1.0; x.len() / n * (y.len() / n)];
        let (x, y) = (panels(x), panels(y));
        Strip::of(&mut out, &x, &y, symmetric).for_each(Strip::add);
        out
    }

    #[test]
    fn strips_add_up_to_the_product() {
        // More points than are summed at a time, and columns that fill neither the last strip nor the last panel.
        let (n, a, b) = (POINTS + 7, 5, STRIP + 35);
        // Small integers: every sum is exact in either type.
        let values =
            |width: usize, step: usize| -> Vec<f64> { (0..n * width).map(|i| (i * step % 7) as f64 - 2.0).collect() };
        let (x, y) = (values(a, 5), values(b, 3));
        let dot = |x: &[f64], i: usize, a: usize, y: &[f64], j: usize, b: usize| -> f64 {
            1.0 + (0..n).map(|r| (x[r * a + i] - 1.0) * (y[r * b + j] - 1.0)).sum::<f64>()
        };
        let tiles = if f32::available() { &[false, true][..] } else { &[false] };
        for &tiles in tiles {
            let how = [tiles, false];
            for out in [product::<f32>(&x, &y, n, how), product::<f64>(&x, &y, n, how)] {
                assert!((0..a * b).all(|at| out[at] == dot(&x, at % a, a, &y, at / a, b)));
            }
            let how = [tiles, true];
            for out in [product::<f32>(&y, &y, n, how), product::<f64>(&y, &y, n, how)] {
                let lower = (0..b * b).filter(|at| at % b >= at / b);
                assert!(lower.into_iter().all(|at| out[at] == dot(&y, at % b, b, &y, at / b, b)));
            }
        }
    }
}
