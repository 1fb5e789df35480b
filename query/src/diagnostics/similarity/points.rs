//! Data points: rows of a scan as a matrix of points × columns.

use std::sync::OnceLock;

use mistique_engine::{Code, Content};
use rayon::prelude::*;

use super::products::Real;
use crate::answer::{Data, Source};
use crate::diagnostics::finite::Finite;
use crate::diagnostics::rounding;
use crate::diagnostics::sums::sum_of;
use crate::error::{QueryError, Result};
use crate::scan::{Block, Scan, Unit};

/// Bytes of values, as f32, that are read at a time: what is made of them stays in the caches, and in memory that an
/// allocator gives again.
const BLOCK_BYTES: usize = 4 << 20;

/// What becomes of a unit's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapsAs {
    /// A map counts by its mean: a row is a data point, a unit a column.
    #[default]
    Mean,
    /// Every cell is a data point, as SVCCA's paper treats convolutions: both sides need maps of one size.
    Points,
    /// Every cell is a column.
    Columns,
}

impl MapsAs {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Mean => "maps by their mean",
            Self::Points => "cells as data points",
            Self::Columns => "cells as columns",
        }
    }
}

/// A scan seen as data points.
pub(super) struct Points<'s, 'r, 'a> {
    scan: &'s Scan<'r, 'a>,
    units: Vec<Unit>,
    maps: MapsAs,
    per_row: usize,
    /// What the columns of a table are taken less: no measure depends on it, and float64 holds what is left of integers.
    offsets: OnceLock<Vec<f64>>,
}

/// Points × columns.
pub(super) enum Values<T> {
    Read(Vec<f32>),
    Made(Vec<T>),
}

/// Data points in memory.
pub(super) struct Gathered {
    /// points × columns.
    pub values: Vec<f32>,
    pub n_points: usize,
    pub n_columns: usize,
    pub name: String,
}

impl<'s, 'r, 'a> Points<'s, 'r, 'a> {
    pub fn new(scan: &'s Scan<'r, 'a>, maps: MapsAs) -> Result<Self> {
        let units = scan.units();
        let per_row = match (maps, units.first()) {
            (MapsAs::Points, Some(first)) => first.columns.len(),
            _ => 1,
        };
        if maps == MapsAs::Points && units.iter().any(|u| u.columns.len() != per_row) {
            return Err(QueryError::Mismatch {
                what: format!("cells as data points of {}", scan.key()),
                why: "its columns are units and single cells; name one kind".into(),
            });
        }
        Ok(Self { scan, units, maps, per_row, offsets: OnceLock::new() })
    }

    pub fn name(&self) -> String {
        self.scan.key().to_string()
    }

    pub fn source(&self) -> Source {
        self.scan.source()
    }

    pub fn scan(&self) -> &Scan<'r, 'a> {
        self.scan
    }

    /// Data points that a row makes.
    pub fn per_row(&self) -> usize {
        self.per_row
    }

    pub fn n_columns(&self) -> usize {
        match self.maps {
            MapsAs::Columns => self.scan.columns().len(),
            _ => self.units.len(),
        }
    }

    pub fn block_rows(&self) -> usize {
        self.scan.block_rows_of(BLOCK_BYTES)
    }

    pub fn column_name(&self, column: usize) -> String {
        let name = match self.maps {
            MapsAs::Columns => self.scan.columns().get(column).cloned(),
            _ => self.units.get(column).map(|u| u.name.clone()),
        };
        name.unwrap_or_else(|| column.to_string())
    }

    /// Whether its values have no more digits than an f32 holds.
    pub fn are_f32(&self) -> bool {
        matches!(&*self.scan.record().content, Content::Tensor(t) if t.dtype != Code::F64)
    }

    /// Points × columns of some rows; float32 as it is read where nothing is to be put together.
    /// `ran` are the rows' values where they are there already.
    pub fn block<T: Real>(&self, rows: &[u64], ran: Option<Block>) -> Result<Values<T>> {
        let width = self.scan.columns().len().max(1);
        let as_read = self.maps == MapsAs::Columns || self.units.len() == width;
        let block = ran.map_or_else(|| self.scan.read(rows), Ok)?;
        let rests = rounding::rests(&block)?;
        Ok(match block.data {
            Data::F32(values) if as_read => Values::Read(values),
            Data::F32(values) => Values::Made(self.arrange(&values, width)),
            Data::F64(values) => Values::Made(self.wide(&values, width, as_read)),
            Data::Table(batch) => {
                let mut values = crate::answer::table_f64(&batch)?;
                let offsets = self.offsets.get_or_init(|| rounding::offsets(&batch, &values));
                rounding::take(&mut values, rests.as_deref(), offsets);
                Values::Made(self.wide(&values, width, as_read))
            }
        })
    }

    fn wide<T: Real>(&self, values: &[f64], width: usize, as_read: bool) -> Vec<T> {
        if as_read { values.iter().map(|v| T::from_f64(*v)).collect() } else { self.arrange(values, width) }
    }

    fn arrange<V: Real, T: Real>(&self, values: &[V], width: usize) -> Vec<T> {
        let of = |v: &V| -> f64 { (*v).into() };
        let out_width = (self.per_row * self.units.len()).max(1);
        let mut out = vec![T::from_f64(0.0); values.len() / width * out_width];
        let arrange = |(out, row): (&mut [T], &[V])| {
            let map = |unit: &Unit| row.get(unit.columns.clone()).unwrap_or_default();
            if self.maps == MapsAs::Mean {
                for (out, unit) in out.iter_mut().zip(&self.units) {
                    let (sum, n_nan) = sum_of(map(unit));
                    *out = T::from_f64(if n_nan > 0 { f64::NAN } else { sum / map(unit).len() as f64 });
                }
                return;
            }
            for (cell, out) in out.chunks_exact_mut(self.units.len().max(1)).enumerate() {
                for (out, unit) in out.iter_mut().zip(&self.units) {
                    *out = T::from_f64(map(unit).get(cell).map_or(f64::NAN, of));
                }
            }
        };
        out.par_chunks_exact_mut(out_width).zip(values.par_chunks_exact(width)).for_each(arrange);
        out
    }

    /// All points of some rows, thinned evenly to at most `max_points`.
    ///
    /// Errors: `NotFinite`.
    pub fn gather(&self, rows: &[u64], max_points: usize, progress: &mut dyn FnMut(u64)) -> Result<Gathered> {
        let total = rows.len() * self.per_row;
        let n_points = total.min(max_points.max(2));
        let width = self.n_columns().max(1);
        // Point i of the answer is point i·total/n of all; rows that hold none are not read.
        let wanted = |i: usize| (i as u128 * total as u128 / n_points as u128) as usize;
        let mut values = Vec::with_capacity(n_points * width);
        let mut checker = Finite::new(width);
        let mut next = 0;
        while next < n_points {
            let mut part = Vec::new();
            let first = next;
            while next < n_points && part.len() < self.block_rows() {
                let row = wanted(next) / self.per_row;
                if part.last() != Some(&row) {
                    part.push(row);
                }
                next += 1;
            }
            // A row's points stay together.
            while next < n_points && part.last() == Some(&(wanted(next) / self.per_row)) {
                next += 1;
            }
            let ids: Vec<u64> = part.iter().filter_map(|r| rows.get(*r).copied()).collect();
            let (Values::Read(block) | Values::Made(block)) = self.block::<f32>(&ids, None)?;
            let mut at = 0;
            for i in first..next {
                let point = wanted(i);
                while part.get(at).is_some_and(|r| *r < point / self.per_row) {
                    at += 1;
                }
                let from = (at * self.per_row + point % self.per_row) * width;
                let point = block.get(from..from + width).unwrap_or_default();
                checker.see(point);
                values.extend_from_slice(point);
            }
            progress(part.last().map_or(0, |r| *r as u64 + 1));
        }
        checker.verdict(|c| (self.name(), self.column_name(c)))?;
        Ok(Gathered { values, n_points, n_columns: width, name: self.name() })
    }
}
