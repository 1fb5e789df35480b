//! VIS: mean activation of every unit by group.

use rayon::prelude::*;

use super::groups::Groups;
use super::sums::sum_of;
use crate::answer::{Data, Source, table_f64};
use crate::error::Result;
use crate::operand::OperandScan;
use crate::reader::{ChunkReader, Request};
use crate::scan::{self, Unit};

/// An answer of [`mean`].
#[derive(Debug, Clone, PartialEq)]
pub struct MeanAnswer {
    /// Units, as selectors.
    pub units: Vec<String>,
    /// Groups by name, and the rows of each.
    pub groups: Vec<(String, u64)>,
    /// groups × units, row-major; NaN where a group has no value of a unit.
    pub means: Vec<f64>,
    /// Values that are NaN, in no mean.
    pub n_nan: u64,
    /// Rows without a group.
    pub n_ungrouped: u64,
    /// Rows of the units, and of the column of groups, that the other lacks.
    pub unshared: [u64; 2],
    /// Where the values came from.
    pub source: Source,
}

/// Shares of the units, each one thread's at a time.
const SHARES: usize = 16;

/// Sums of some units, by group.
struct Share<'u> {
    units: &'u [Unit],
    /// groups × units: sum and number of values.
    sums: Vec<(f64, u64)>,
    n_nan: u64,
}

impl<'u> Share<'u> {
    fn of(units: &'u [Unit]) -> Self {
        Self { units, sums: Vec::new(), n_nan: 0 }
    }

    /// Adds rows of `width` columns, each to its group.
    fn add<V: Copy + Into<f64>>(&mut self, values: &[V], width: usize, of: &[Option<usize>], n_groups: usize) {
        let n_units = self.units.len();
        self.sums.resize(n_groups * n_units, (0.0, 0));
        for (row, group) in values.chunks_exact(width).zip(of) {
            let Some(group) = group else { continue };
            let sums = self.sums.get_mut(group * n_units..(group + 1) * n_units).unwrap_or_default();
            for (unit, (sum, n)) in self.units.iter().zip(sums) {
                let map = row.get(unit.columns.clone()).unwrap_or_default();
                let (more, n_nan) = sum_of(map);
                *sum += more;
                *n += map.len() as u64 - n_nan;
                self.n_nan += n_nan;
            }
        }
    }

    fn means(&self, group: usize) -> impl Iterator<Item = f64> + '_ {
        let n_units = self.units.len();
        let sums = self.sums.get(group * n_units..(group + 1) * n_units).unwrap_or_default();
        sums.iter().map(|(sum, n)| sum / *n as f64)
    }
}

/// The mean of every unit of a request (over its map and rows) in each group of `by`.
///
/// Errors: `Mismatch` for too many groups; as [`ChunkReader::get`].
pub fn mean(reader: &ChunkReader<'_>, request: &Request, by: &OperandScan<'_, '_>) -> Result<MeanAnswer> {
    let scan = reader.scan_numbers(request)?;
    let units = scan.units();
    let (rows, unshared) = scan::shared_among(request, &[scan.rows(), by.rows()]);
    let mut groups = Groups::default();
    let mut n_rows: Vec<u64> = Vec::new();
    let mut shares: Vec<Share<'_>> = units.chunks(units.len().div_ceil(SHARES).max(1)).map(Share::of).collect();
    let mut n_ungrouped = 0;
    for ids in rows.chunks(scan.block_rows()) {
        let of = groups.of(&by.read(ids)?, by.name())?;
        n_rows.resize(groups.len(), 0);
        for group in &of {
            match group.and_then(|g| n_rows.get_mut(g)) {
                Some(n) => *n += 1,
                None => n_ungrouped += 1,
            }
        }
        let block = scan.read(ids)?;
        let width = block.width.max(1);
        let n_groups = groups.len();
        match block.data {
            Data::F32(values) => shares.par_iter_mut().for_each(|s| s.add(&values, width, &of, n_groups)),
            Data::F64(values) => shares.par_iter_mut().for_each(|s| s.add(&values, width, &of, n_groups)),
            Data::Table(batch) => {
                let values = table_f64(&batch)?;
                shares.par_iter_mut().for_each(|s| s.add(&values, width, &of, n_groups));
            }
        }
    }
    let n_nan = shares.iter().map(|s| s.n_nan).sum();
    let order = groups.sorted();
    let means = |g: &usize| shares.iter().flat_map(|s| s.means(*g)).collect::<Vec<_>>();
    let named = |g: &usize| (groups.name(*g).to_string(), n_rows.get(*g).copied().unwrap_or_default());
    let unshared = [unshared.first().copied().unwrap_or_default(), unshared.get(1).copied().unwrap_or_default()];
    Ok(MeanAnswer {
        groups: order.iter().map(named).collect(),
        means: order.iter().flat_map(means).collect(),
        units: units.iter().map(|u| u.name.clone()).collect(),
        n_nan,
        n_ungrouped,
        unshared,
        source: scan.source(),
    })
}
