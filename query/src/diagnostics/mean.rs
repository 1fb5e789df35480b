//! VIS: mean activation of every unit by group.

use super::groups::Groups;
use crate::answer::Source;
use crate::error::Result;
use crate::operand::OperandScan;
use crate::reader::{ChunkReader, Request};
use crate::scan;

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

/// The mean of every unit of a request (over its map and rows) in each group of `by`.
///
/// Errors: `Mismatch` for too many groups; as [`ChunkReader::get`].
pub fn mean(reader: &ChunkReader<'_>, request: &Request, by: &OperandScan<'_, '_>) -> Result<MeanAnswer> {
    let scan = reader.scan(request)?;
    let units = scan.units();
    let (rows, unshared) = scan::shared(&[scan.rows(), by.rows()]);
    let mut groups = Groups::default();
    let mut n_rows: Vec<u64> = Vec::new();
    let mut sums: Vec<(f64, u64)> = Vec::new();
    let (mut n_nan, mut n_ungrouped) = (0, 0);
    for ids in rows.chunks(scan.block_rows()) {
        let of = groups.of(&by.read(ids)?, by.name())?;
        n_rows.resize(groups.len(), 0);
        sums.resize(groups.len() * units.len(), (0.0, 0));
        let block = scan.read(ids)?;
        let width = block.width.max(1);
        for (row, group) in block.into_f64()?.chunks_exact(width).zip(of) {
            let Some(group) = group else {
                n_ungrouped += 1;
                continue;
            };
            n_rows.get_mut(group).into_iter().for_each(|n| *n += 1);
            let sums = sums.get_mut(group * units.len()..(group + 1) * units.len()).unwrap_or_default();
            for (unit, (sum, n)) in units.iter().zip(sums) {
                for v in row.get(unit.columns.clone()).unwrap_or_default() {
                    if v.is_nan() {
                        n_nan += 1;
                    } else {
                        *sum += v;
                        *n += 1;
                    }
                }
            }
        }
    }
    let order = groups.sorted();
    let means = |g: &usize| {
        let sums = sums.get(g * units.len()..(g + 1) * units.len()).unwrap_or_default();
        sums.iter().map(|(sum, n)| sum / *n as f64).collect::<Vec<_>>()
    };
    let named = |g: &usize| (groups.name(*g).to_string(), n_rows.get(*g).copied().unwrap_or_default());
    let unshared = [unshared.first().copied().unwrap_or_default(), unshared.get(1).copied().unwrap_or_default()];
    Ok(MeanAnswer {
        groups: order.iter().map(named).collect(),
        means: order.iter().flat_map(means).collect(),
        units: units.into_iter().map(|u| u.name).collect(),
        n_nan,
        n_ungrouped,
        unshared,
        source: scan.source(),
    })
}
