//! Covariances of data points that stream by.

use std::collections::{BTreeMap, BTreeSet};

use faer::{Mat, MatRef};
use mistique_engine::beside;

use super::panels::Panels;
use super::points::{Points, Values};
use super::products::{Real, Strip};
use crate::diagnostics::finite::Finite;
use crate::diagnostics::rounding;
use crate::error::Result;
use crate::scan::Block;
use crate::together;

/// Sums of products of deviations from the mean, of the pairs that were asked for.
pub(super) struct Moments {
    /// Column means.
    means: BTreeMap<usize, Vec<f64>>,
    /// By pair `(a, b)` with a ≤ b: columns of a × columns of b.
    products: BTreeMap<(usize, usize), Mat<f64>>,
    n_points: usize,
    /// What was seen of each side: the products of one that is not finite are none.
    finite: BTreeMap<usize, Finite>,
}

/// What the products are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// float64: directions of little variance keep their digits.
    Double,
    /// float32 of what is float32, over a thousand points at a time, added up in float64: norms keep six digits.
    Single,
}

/// Points whose means all are shifted by.
const SHIFT_POINTS: usize = 256;

/// A side's deviations from its shift, block by block.
struct Side<'p, 's, 'r, 'a, T> {
    number: usize,
    points: &'p Points<'s, 'r, 'a>,
    width: usize,
    /// What its values are multiplied by.
    scale: f64,
    /// Means of the first points.
    shift: Option<Vec<f64>>,
    /// Sums of the deviations.
    sums: Vec<f64>,
    finite: Finite,
    /// Those of the last rows that were read.
    deviations: Panels<T>,
}

impl<T: Real> Side<'_, '_, '_, '_, T> {
    /// Reads some rows, where they did not come from a run already: how many points they make.
    fn read(&mut self, rows: &[u64], ran: Option<Block>) -> Result<usize> {
        Ok(match self.points.block::<T>(rows, ran)? {
            Values::Read(values) => self.take(&values),
            Values::Made(values) => self.take(&values),
        })
    }

    fn take<V: Real>(&mut self, values: &[V]) -> usize {
        if self.scale == 1.0 {
            return self.add(values);
        }
        let scaled: Vec<f64> = values.iter().map(|v| Into::<f64>::into(*v) * self.scale).collect();
        self.add(&scaled)
    }

    fn add<V: Real>(&mut self, values: &[V]) -> usize {
        let width = self.width.max(1);
        let first = values.get(..SHIFT_POINTS * width).unwrap_or(values);
        let shift = self.shift.get_or_insert_with(|| column_means(first, width));
        let shift: Vec<T> = shift.iter().map(|m| T::from_f64(*m)).collect();
        self.deviations.fill(values, &shift, &mut self.sums);
        // A value that is not finite leaves its sum so.
        if !self.sums.iter().all(|s| s.is_finite()) {
            self.finite.see(values);
        }
        values.len() / width
    }
}

/// Zeros that were written. Memory that comes zeroed is one shared page until it is written to, and a page that is read
/// first, as a sum is, then has to be taken out of every core's tables: that took a fifth of linear CKA's time.
fn zeros(n: usize) -> Vec<f64> {
    let mut zeros = Vec::with_capacity(n);
    zeros.resize(n, 0.0);
    zeros
}

impl Moments {
    /// One pass over `rows`.
    ///
    /// Values are shifted by the means of the first points, so that a large mean costs no digits; sums are in f64.
    /// Errors: those of reading.
    pub fn of(
        sides: &[Points<'_, '_, '_>],
        pairs: &[(usize, usize)],
        rows: &[u64],
        precision: Precision,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let ones = vec![1.0; sides.len()];
        let single = precision == Precision::Single
            && pairs.iter().flat_map(|&(a, b)| [a, b]).all(|i| sides.get(i).is_some_and(Points::are_f32));
        if single {
            let sums = Self::sum::<f32>(sides, pairs, rows, &ones, progress)?;
            // Values so large or small that their squares leave float32 are summed up once more.
            if sums.fit_single() {
                return Ok(sums);
            }
        }
        let sums = Self::sum::<f64>(sides, pairs, rows, &ones, progress)?;
        if sums.fit_double() {
            return Ok(sums);
        }
        let scales = scales(sides, pairs, rows)?;
        if scales == ones { Ok(sums) } else { Self::sum::<f64>(sides, pairs, rows, &scales, progress) }
    }

    /// Whether products of every side's variances have a place in float64, and its values their squares.
    fn fit_double(&self) -> bool {
        let own = self.known().filter(|((a, b), _)| a == b);
        let largest = |p: &Mat<f64>| p.diagonal().column_vector().iter().copied().fold(0.0, f64::max);
        // Without variance, a side is constant, unless its squares vanished.
        let is_constant = |side: usize| {
            let tiny = |mean: &f64| *mean != 0.0 && mean.abs() < 1e-100;
            self.means.get(&side).is_none_or(|means| !means.iter().any(tiny))
        };
        own.map(|((side, _), p)| (side, largest(p)))
            .all(|(side, v)| (1e-120..1e120).contains(&v) || v == 0.0 && is_constant(*side))
            && self.known().all(|(_, p)| p.col_iter().all(|c| c.iter().all(|v| v.is_finite())))
    }

    /// The products of sides whose values are finite.
    fn known(&self) -> impl Iterator<Item = (&(usize, usize), &Mat<f64>)> {
        let finite = |side| self.finite.get(side).is_some_and(Finite::all);
        self.products.iter().filter(move |((a, b), _)| finite(a) && finite(b))
    }

    /// Errors: `NotFinite` for a side that holds a value that is not, which has no covariances.
    pub fn check(&self, side: usize, points: &Points<'_, '_, '_>) -> Result<()> {
        let Some(finite) = self.finite.get(&side) else { return Ok(()) };
        finite.verdict(|c| (points.name(), points.column_name(c)))
    }

    /// Whether every side's largest variance has a place in float32, a thousand points of it and a thousandth of a
    /// thousandth of it too.
    fn fit_single(&self) -> bool {
        let own = self.known().filter(|((a, b), _)| a == b);
        own.map(|(_, p)| p.diagonal().column_vector().iter().copied().fold(0.0, f64::max) / self.n_points as f64)
            .all(|variance| (1e-24..1e32).contains(&variance))
            && self.known().all(|(_, p)| p.col_iter().all(|c| c.iter().all(|v| v.is_finite())))
    }

    fn sum<T: Real>(
        sides: &[Points<'_, '_, '_>],
        pairs: &[(usize, usize)],
        rows: &[u64],
        scales: &[f64],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let wanted: BTreeSet<(usize, usize)> =
            pairs.iter().flat_map(|&(a, b)| [(a, a), (b, b), (a.min(b), a.max(b))]).collect();
        let side = |&(a, b): &(usize, usize)| {
            let points = sides.get(a).filter(|_| a == b)?;
            let width = points.n_columns();
            let (sums, finite) = (vec![0.0; width], Finite::new(width));
            let deviations = Panels::new(width, T::available());
            let scale = scales.get(a).copied().unwrap_or(1.0);
            Some(Side { number: a, points, width, scale, shift: None, sums, finite, deviations })
        };
        let mut used: Vec<Side<'_, '_, '_, '_, T>> = wanted.iter().filter_map(side).collect();
        let width = |i: usize| sides.get(i).map_or(0, Points::n_columns);
        let mut products: BTreeMap<(usize, usize), Vec<f64>> =
            wanted.iter().map(|&(a, b)| ((a, b), zeros(width(a) * width(b)))).collect();
        let mut n_points = 0;
        let block_rows = used.iter().map(|s| s.points.block_rows()).min().unwrap_or(1).max(1);
        for (done, part) in rows.chunks(block_rows).enumerate() {
            let mut n_block = 0;
            let ran = together::blocks(&used.iter().map(|s| s.points.scan()).collect::<Vec<_>>(), part);
            for (side, ran) in used.iter_mut().zip(ran) {
                n_block = side.read(part, ran)?;
            }
            n_points += n_block;
            progress((done * block_rows + part.len()) as u64);
            // Of a side that is not finite, what is left only counts such values.
            let side = |i: usize| used.iter().find(|s| s.number == i && s.finite.all()).map(|s| &s.deviations);
            let mut strips: Vec<Strip<'_, T>> = Vec::new();
            for (&(a, b), product) in &mut products {
                if let (Some(x), Some(y)) = (side(a), side(b)) {
                    strips.extend(Strip::of(product, x, y, a == b));
                }
            }
            beside::each(strips, Strip::add);
        }
        let n = n_points as f64;
        let sums = |i: usize| used.iter().find(|s| s.number == i).map_or(&[][..], |s| s.sums.as_slice());
        let centred = |((a, b), product): ((usize, usize), Vec<f64>)| {
            let mut product = MatRef::from_column_major_slice(&product, width(a), width(b)).to_owned();
            for (j, (column, sb)) in product.col_iter_mut().zip(sums(b)).enumerate() {
                for (i, (v, sa)) in column.iter_mut().zip(sums(a)).enumerate() {
                    if a != b || i >= j {
                        *v -= sa * sb / n;
                    }
                }
            }
            if a == b {
                mirror(&mut product);
            }
            ((a, b), product)
        };
        let products = products.into_iter().map(centred).collect();
        let mean = |side: &Side<'_, '_, '_, '_, T>| {
            let shift = side.shift.iter().flatten().zip(&side.sums);
            (side.number, shift.map(|(m, s)| T::from_f64(*m).into() + s / n).collect())
        };
        let means = used.iter().map(mean).collect();
        Ok(Self { means, products, n_points, finite: used.into_iter().map(|s| (s.number, s.finite)).collect() })
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

/// Powers of two that bring the largest value of each side that is paired near 1; 1 for values of usual size.
fn scales(sides: &[Points<'_, '_, '_>], pairs: &[(usize, usize)], rows: &[u64]) -> Result<Vec<f64>> {
    let used: BTreeSet<usize> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    let mut scales = vec![1.0; sides.len()];
    for (side, scale) in sides.iter().zip(&mut scales).enumerate().filter(|(i, _)| used.contains(i)).map(|(_, s)| s) {
        let mut largest = 0f64;
        for part in rows.chunks(side.block_rows().max(1)) {
            largest = match side.block::<f64>(part, None)? {
                Values::Read(values) => values.iter().fold(largest, |l, v| l.max(f64::from(v.abs()))),
                Values::Made(values) => values.iter().fold(largest, |l, v| l.max(v.abs())),
            };
        }
        if largest > 0.0 && largest.is_finite() && !(1e-30..1e30).contains(&largest) {
            *scale = rounding::scale(largest);
        }
    }
    Ok(scales)
}

fn column_means<T: Real>(values: &[T], width: usize) -> Vec<f64> {
    let mut means = vec![0.0; width];
    for row in values.chunks_exact(width) {
        means.iter_mut().zip(row).for_each(|(m, v)| *m += (*v).into());
    }
    let n = (values.len() / width).max(1) as f64;
    // A side that is not finite has no covariances anyway.
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
