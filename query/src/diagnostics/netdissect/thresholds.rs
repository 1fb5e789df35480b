//! T_k: above what a unit counts as active. Computed once for each α and kept in the store.

use std::cell::RefCell;
use std::collections::BTreeMap;

use mistique_engine::{CodePage, IndexKind, IndexValues, RowSet, thresholds_index};
use rayon::prelude::*;

use super::quantile::Top;
use crate::answer::{Data, Source};
use crate::codes::{CodeScan, CodeUnit};
use crate::diagnostics::finite::Finite;
use crate::error::{QueryError, Result};
use crate::reader::{ChunkReader, Request};
use crate::scan::{Scan, Unit};

/// Above what a unit counts as active.
#[derive(Debug, Clone, PartialEq)]
pub enum Thresholds {
    /// T_k of each unit.
    Values(Vec<f64>),
    /// The store holds only whether a value lies above the threshold that was fitted when it was logged.
    Stored {
        /// Whether every unit had its own.
        per_unit: bool,
    },
}

/// Thresholds that were found.
pub(super) struct Found {
    pub thresholds: Thresholds,
    /// Why they are not kept.
    pub note: Option<String>,
}

/// α that a threshold store was logged for, and whether by unit; `None` for any other scheme.
fn stored_alpha(source: &Source) -> Option<(Option<f64>, bool)> {
    let Source::Read { scheme, .. } = source else { return None };
    let arguments = scheme.rsplit('+').next()?.strip_prefix("threshold(")?.strip_suffix(')')?;
    let (quantile, per_unit) = match arguments.split_once(',') {
        Some((quantile, _)) => (quantile, true),
        None => (arguments, false),
    };
    Some((quantile.parse::<f64>().ok().map(|q| 1.0 - q), per_unit))
}

/// T_k of each unit: the value that a share `alpha` of all cells of its maps lies above (numpy's linear quantile), exact.
///
/// What was found before for the same `alpha` and rows is kept in the store as an index and taken from there; otherwise
/// it takes one pass, on the codes of what is stored, in memory of the highest share of the values.
///
/// Errors: `Undefined` for an `alpha` outside of (0, 1), no rows, and a threshold store of another `alpha`; `NotFinite`;
/// those of [`ChunkReader::scan`]. Source: Alg. 2, lines 2 and 3.
pub fn unit_thresholds(
    reader: &ChunkReader<'_>,
    request: &Request,
    alpha: f64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Thresholds> {
    Ok(of(reader, &reader.scan(request)?, alpha, progress)?.thresholds)
}

/// T_k of a scan's units.
pub(super) fn of(
    reader: &ChunkReader<'_>,
    scan: &Scan<'_, '_>,
    alpha: f64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Found> {
    let what = || format!("NetDissect of {}", scan.key());
    if !(alpha > 0.0 && alpha < 1.0) {
        return Err(QueryError::Undefined { what: what(), why: format!("alpha lies between 0 and 1, got {alpha}") });
    }
    match stored_alpha(&scan.source()) {
        Some((Some(stored), per_unit)) if (stored - alpha).abs() < 1e-9 => {
            return Ok(Found { thresholds: Thresholds::Stored { per_unit }, note: None });
        }
        Some((stored, _)) => {
            let only = stored.map_or("a fixed value".into(), |a| format!("alpha {}", (a * 1e9).round() / 1e9));
            let why = format!(
                "what is stored says only which values lie above {only}, not above alpha {alpha}; ask for exact values, \
                 which runs the model again, or log it under another scheme"
            );
            return Err(QueryError::Undefined { what: what(), why });
        }
        None => {}
    }
    if scan.rows().is_empty() {
        return Err(QueryError::Undefined { what: what(), why: "it has no rows".into() });
    }
    let kept = Kept::of(scan, alpha);
    let (known, mut note) = kept.as_ref().map_or((None, None), |kept| kept.read(reader));
    if let (Some(kept), Some(known)) = (&kept, &known)
        && let Some(values) = kept.of_units(known)
    {
        return Ok(Found { thresholds: Thresholds::Values(values), note });
    }
    let values = compute(scan, alpha, progress)?;
    if let Some(kept) = kept
        && let Err(e) = kept.write(reader, known, &values)
    {
        note = Some(format!("the thresholds found for this question are not kept: {e}"));
    }
    Ok(Found { thresholds: Thresholds::Values(values), note })
}

/// Where the thresholds of a scan are kept: those of whole units over all rows.
struct Kept<'s, 'r, 'a> {
    scan: &'s Scan<'r, 'a>,
    units: Vec<usize>,
    n_units: usize,
    rows: RowSet,
    alpha: f64,
    /// Of which values.
    of: IndexValues,
}

impl<'s, 'r, 'a> Kept<'s, 'r, 'a> {
    fn of(scan: &'s Scan<'r, 'a>, alpha: f64) -> Option<Self> {
        // What READ gives and what a run gives may differ in the last bits, and each answer is to stay what it was.
        let of = match scan.source() {
            Source::Read { .. } => IndexValues::Stored,
            Source::Rerun { exact: false, .. } => IndexValues::Pooled,
            Source::Rerun { exact: true, .. } => IndexValues::Exact,
            Source::Split { .. } => return None,
        };
        let n_units = scan.record().tensor().ok()?.layout.n_units;
        let units = scan.whole_units().filter(|_| scan.has_all_rows())?;
        let mut rows: Vec<u64> = scan.rows().iter().collect();
        rows.sort_unstable();
        Some(Self { scan, units, n_units, rows: RowSet::from_ids(&rows), alpha, of })
    }

    /// What is kept, by unit of the layer, or why it cannot be read.
    fn read(&self, reader: &ChunkReader<'_>) -> (Option<Vec<f64>>, Option<String>) {
        let read = || -> mistique_engine::Result<Option<Vec<f64>>> {
            for index in reader.store().indexes(Some(self.scan.record()))?.iter().rev() {
                let alpha = index.param("alpha").and_then(|a| a.parse::<f64>().ok());
                let of = index.param("values");
                if index.kind == IndexKind::Thresholds.name()
                    && alpha == Some(self.alpha)
                    && of.as_deref() == Some(self.of.name())
                {
                    let file = reader.store().open_index(index)?;
                    let values = file.thresholds()?;
                    // Rows that came or went move a quantile.
                    return Ok((*file.rows() == self.rows && values.len() == self.n_units).then_some(values));
                }
            }
            Ok(None)
        };
        match read() {
            Ok(found) => (found, None),
            Err(e) => (None, Some(format!("kept thresholds are not used: {e}"))),
        }
    }

    /// The scan's units of what is kept, where all are.
    fn of_units(&self, known: &[f64]) -> Option<Vec<f64>> {
        self.units.iter().map(|u| known.get(*u).copied().filter(|v| !v.is_nan())).collect()
    }

    /// Keeps `values` of the scan's units beside those that are known.
    fn write(&self, reader: &ChunkReader<'_>, known: Option<Vec<f64>>, values: &[f64]) -> mistique_engine::Result<()> {
        let mut all = known.unwrap_or_else(|| vec![f64::NAN; self.n_units]);
        for (unit, value) in self.units.iter().zip(values) {
            if let Some(slot) = all.get_mut(*unit) {
                *slot = *value;
            }
        }
        let index = thresholds_index(self.rows.clone(), self.alpha, self.of, &all);
        reader.store().put_index(self.scan.record(), &index).map(drop)
    }
}

fn compute(scan: &Scan<'_, '_>, alpha: f64, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<f64>> {
    let units = scan.units();
    let n_rows = scan.rows().len();
    let new = || -> Vec<Top> { units.iter().map(|u| Top::new(n_rows * u.columns.len(), alpha)).collect() };
    if let Some(tops) = scan.on_codes(|codes| see_codes(codes, new()))? {
        progress(n_rows as u64, n_rows as u64);
        return Ok(tops.into_iter().map(Top::quantile).collect());
    }
    let mut tops = new();
    let mut finite = Finite::new(scan.columns().len());
    let mut done = 0;
    scan.for_each(|block| {
        done += block.rows.len() as u64;
        let width = block.width.max(1);
        match &block.data {
            Data::F32(values) => see(&mut tops, &units, &mut finite, values, width),
            Data::F64(values) => see(&mut tops, &units, &mut finite, values, width),
            Data::Table(batch) => see(&mut tops, &units, &mut finite, &crate::answer::table_f64(batch)?, width),
        }
        progress(done, n_rows as u64);
        Ok(())
    })?;
    finite.verdict(|c| (scan.key().to_string(), scan.columns().get(c).cloned().unwrap_or_default()))?;
    Ok(tops.into_iter().map(Top::quantile).collect())
}

/// Shows a block's values to the units' tops.
fn see<T: Copy + Into<f64> + Sync>(tops: &mut [Top], units: &[Unit], finite: &mut Finite, values: &[T], width: usize) {
    if !finite.see(values) {
        return;
    }
    tops.par_iter_mut().zip(units).for_each(|(top, unit)| {
        for row in values.chunks_exact(width) {
            row.get(unit.columns.clone()).unwrap_or_default().iter().for_each(|v| top.push((*v).into()));
        }
    });
}

/// The pages of a group of units, and the tops of those that are wanted.
type Group<'g> = (Vec<&'g CodePage>, Vec<(&'g CodeUnit, &'g mut Top)>);

/// Shows the codes of what is stored to the units' tops: those of a codebook are counted, of others only the pages are
/// decoded that reach into a unit's top. `None` where a value is not finite, which reading names.
fn see_codes(codes: &CodeScan<'_>, mut tops: Vec<Top>) -> Result<Option<Vec<Top>>> {
    let pages = codes.pages()?;
    // Groups of units have chunks of their own.
    let mut groups: BTreeMap<usize, Group<'_>> = BTreeMap::new();
    pages.iter().for_each(|p| groups.entry(p.group).or_default().0.push(p));
    for (unit, top) in codes.units().iter().zip(&mut tops) {
        groups.entry(unit.group).or_default().1.push((unit, top));
    }
    let finite = groups.into_par_iter().map(|(_, (pages, units))| see_group(codes, &pages, units));
    let finite = finite.try_reduce(|| true, |a, b| Ok(a && b))?;
    Ok(finite.then_some(tops))
}

/// Shows the pages of a group; `false` where a value is not finite.
fn see_group(codes: &CodeScan<'_>, pages: &[&CodePage], units: Vec<(&CodeUnit, &mut Top)>) -> Result<bool> {
    let counted = |(unit, top)| Seen { unit, top, values: codes.code_values(unit), counts: [0; 256] };
    let units: RefCell<Vec<Seen<'_>>> = RefCell::new(units.into_iter().map(counted).collect());
    let finite_page = |page: &CodePage| page.zone.n_nan == 0 && page.zone.min.is_finite() && page.zone.max.is_finite();
    // Zone maps of what has a codebook are of codes.
    let passed = |page: &CodePage, seen: &Seen<'_>| {
        seen.values.is_none() && finite_page(page) && !seen.top.admits(page.zone.max)
    };
    let mut finite = true;
    let mut map = Vec::new();
    codes.store().visit_pages(
        pages,
        |page| !units.borrow().iter().all(|seen| passed(page, seen)),
        |page, bytes| {
            let known = finite_page(page);
            for seen in units.borrow_mut().iter_mut().filter(|seen| !passed(page, seen)) {
                for row in page.rows.iter().flat_map(|r| r.row..r.row + r.len) {
                    if seen.values.is_some() {
                        let codes = codes.codes(page, bytes, row, seen.unit);
                        codes.iter().for_each(|code| seen.counts[usize::from(*code)] += 1);
                        continue;
                    }
                    let values = codes.map(page, bytes, row, seen.unit, &mut map)?;
                    finite &= known || values.iter().all(|v| v.is_finite());
                    values.iter().for_each(|v| seen.top.push(f64::from(*v)));
                }
            }
            Ok::<(), QueryError>(())
        },
    )?;
    for seen in units.into_inner() {
        let Some(values) = seen.values else { continue };
        for (code, n) in seen.counts.into_iter().enumerate().filter(|(_, n)| *n > 0) {
            let value = values.get(code).or(values.last()).copied().unwrap_or(f32::NAN);
            finite &= value.is_finite();
            seen.top.push_n(f64::from(value), n);
        }
    }
    Ok(finite)
}

/// A unit, its top, and how often each code of its codebook was seen.
struct Seen<'g> {
    unit: &'g CodeUnit,
    top: &'g mut Top,
    values: Option<&'g [f32]>,
    counts: [u64; 256],
}
