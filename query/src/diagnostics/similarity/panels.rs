//! Data points as products take them: shifted, and panel by panel where the machine multiplies panels.

use mistique_engine::beside;

use super::products::Real;
use super::tile::PANEL;

/// Points of a group: their products are summed in `T` before they are added in f64.
pub(super) const POINTS: usize = 1024;
/// Points that are spread at a time, so that they are still in the cache when their last panel is.
const SPREAD: usize = 64;

/// Some points: groups of [`POINTS`], each of panels of columns, each row-major; the last panel is filled up with anything.
pub(super) struct Panels<T> {
    values: Vec<T>,
    n_columns: usize,
    /// Whether panels are [`PANEL`] columns wide; else one holds all columns.
    tiles: bool,
}

impl<T: Real> Panels<T> {
    /// None, of so many columns.
    pub fn new(n_columns: usize, tiles: bool) -> Self {
        Self { values: Vec::new(), n_columns, tiles }
    }

    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Whether panels are [`PANEL`] columns wide; else one holds all columns.
    pub fn are_tiles(&self) -> bool {
        self.tiles
    }

    /// Columns of a panel.
    fn panel(&self) -> usize {
        if self.tiles { PANEL } else { self.n_columns.max(1) }
    }

    /// Columns of all panels.
    fn padded(&self) -> usize {
        self.n_columns.next_multiple_of(self.panel())
    }

    /// Takes points × columns in place of what it holds, less `shift`; adds what is left, column by column, to `sums`.
    /// The threads change no bit of it.
    pub fn fill<V: Real>(&mut self, points: &[V], shift: &[T], sums: &mut [f64]) {
        let (width, padded, panel) = (self.n_columns.max(1), self.padded(), self.panel());
        let n_points = points.len() / width;
        self.values.resize(n_points * padded, T::from_f64(0.0));
        let one = |((to, points), sums): ((&mut [T], &[V]), &mut [f64])| {
            let n = points.len() / width;
            for (first, points) in (0..).step_by(SPREAD).zip(points.chunks(SPREAD * width)) {
                for (p, (shift, sums)) in shift.chunks(panel).zip(sums.chunks_mut(panel)).enumerate() {
                    let to = &mut to[(p * n + first) * panel..];
                    for (to, point) in to.chunks_exact_mut(panel).zip(points.chunks_exact(width)) {
                        let point = &point[p * panel..][..shift.len()];
                        for (((to, v), shift), sum) in to.iter_mut().zip(point).zip(shift).zip(&mut *sums) {
                            *to = T::from_f64((*v).into()).minus(*shift);
                            *sum += (*to).into();
                        }
                    }
                }
            }
        };
        let groups = self.values.chunks_mut(POINTS * padded.max(1)).zip(points.chunks(POINTS * width));
        let mut parts = vec![0.0; n_points.div_ceil(POINTS) * width];
        beside::each(groups.zip(parts.chunks_mut(width)).collect(), one);
        for part in parts.chunks(width) {
            sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
        }
    }

    /// The groups of points.
    pub fn groups(&self) -> impl Iterator<Item = Group<'_, T>> {
        self.values.chunks((POINTS * self.padded()).max(1)).map(|values| Group { values, panels: self })
    }
}

/// Some points of [`Panels`].
pub(super) struct Group<'p, T> {
    values: &'p [T],
    panels: &'p Panels<T>,
}

impl<'p, T> Group<'p, T> {
    /// All columns as one matrix of points × columns, where they are one panel.
    pub fn whole(&self) -> &'p [T] {
        self.values
    }

    /// The columns of panel `p` point by point, where panels are tiles.
    pub fn panel(&self, p: usize) -> &'p [[T; PANEL]] {
        let n = self.values.len() / self.panels.n_columns.next_multiple_of(PANEL).max(1);
        &self.values.as_chunks().0[p * n..][..n]
    }
}
