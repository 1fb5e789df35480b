//! COL_DIFF: how the same columns differ between two models or versions.
//!
//! Differences count where both sides are finite. A row's prediction is its largest column, the first of equals; NaN is
//! never the largest.

use super::groups::Groups;
use crate::answer::{Data, Source};
use crate::column::Column;
use crate::error::{QueryError, Result};
use crate::operand::OperandScan;
use crate::reader::{ChunkReader, Request};
use crate::scan::{self, Block, Scan};
use crate::together;

/// Differences between two sets of values over the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Mean of |a − b| over all values that are finite on both sides.
    pub mean_abs: f64,
    /// Largest |a − b|.
    pub max_abs: f64,
    /// Row_id of the largest.
    pub max_row: Option<u64>,
    /// Rows whose largest column is another one: `(row_id, in a, in b)`.
    pub changed_argmax: Vec<(u64, usize, usize)>,
}

/// How `b` differs from `a`.
///
/// Shape: both are rows × columns, row-major. Errors: `Mismatch` when their sizes differ.
pub fn difference(rows: &[u64], a: &[f32], b: &[f32]) -> Result<Difference> {
    let width = if rows.is_empty() { 0 } else { a.len() / rows.len() };
    if a.len() != b.len() || width * rows.len() != a.len() {
        return Err(QueryError::Mismatch {
            what: "difference".into(),
            why: format!("{} rows with {} values on one side and {} on the other", rows.len(), a.len(), b.len()),
        });
    }
    let mut sums = Sums::default();
    let mut changed_argmax = Vec::new();
    for ((&row, ra), rb) in rows.iter().zip(a.chunks_exact(width.max(1))).zip(b.chunks_exact(width.max(1))) {
        let wide = |r: &[f32]| r.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (ra, rb) = (wide(ra), wide(rb));
        sums.add(row, &ra.iter().zip(&rb).map(|(a, b)| a - b).collect::<Vec<_>>());
        let (ia, ib) = (argmax(&ra).unwrap_or_default(), argmax(&rb).unwrap_or_default());
        if ia != ib {
            changed_argmax.push((row, ia, ib));
        }
    }
    let (mean_abs, max_abs) = (sums.mean_abs().unwrap_or_default(), sums.max_abs);
    Ok(Difference { mean_abs, max_abs, max_row: sums.max_row, changed_argmax })
}

/// Index of the largest value, the first of equals; `None` where all are NaN.
pub(crate) fn argmax(row: &[f64]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, &v) in row.iter().enumerate() {
        if !v.is_nan() && best.is_none_or(|(_, b)| v > b) {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

#[derive(Debug, Clone, Default)]
struct Sums {
    n_rows: u64,
    n: u64,
    n_not_finite: u64,
    sum: f64,
    squares: f64,
    max_abs: f64,
    max_row: Option<u64>,
    n_changed: u64,
}

impl Sums {
    /// The differences of a row.
    fn add(&mut self, row: u64, differences: &[f64]) {
        self.n_rows += 1;
        for d in differences.iter().map(|d| d.abs()) {
            if !d.is_finite() {
                self.n_not_finite += 1;
                continue;
            }
            self.n += 1;
            self.sum += d;
            self.squares += d * d;
            if d > self.max_abs {
                (self.max_abs, self.max_row) = (d, Some(row));
            }
        }
    }

    fn mean_abs(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

/// Differences over a group of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupDifference {
    /// The group; `None` for all rows.
    pub group: Option<String>,
    /// Rows compared.
    pub n_rows: u64,
    /// Mean of |a − b| over values finite on both sides; `None` where there are none, as for text.
    pub mean_abs: Option<f64>,
    /// Root of the mean of (a − b)².
    pub rms: Option<f64>,
    /// Largest |a − b|.
    pub max_abs: f64,
    /// Row_id of the largest, the first of equals; `None` where nothing differs.
    pub max_row: Option<u64>,
    /// Values that were not finite on one side.
    pub n_not_finite: u64,
    /// Rows whose prediction, text or integer changed.
    pub n_changed: u64,
}

/// A row whose prediction, text or integer is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Row_id.
    pub row: u64,
    /// On the first side.
    pub a: String,
    /// On the second side.
    pub b: String,
}

/// An answer of [`diff`].
#[derive(Debug, Clone, PartialEq)]
pub struct DiffAnswer {
    /// All rows first, then each group.
    pub groups: Vec<GroupDifference>,
    /// Rows that changed, in the order of the rows; `None` where single floats are compared, which have no classes.
    pub changed: Option<Vec<Changed>>,
    /// Rows of each side that the other (or the column of groups) lacks.
    pub unshared: [u64; 2],
    /// Rows whose group is null: among all rows, and in no group.
    pub n_ungrouped: u64,
    /// Where each side's values came from.
    pub sources: [Source; 2],
}

/// How the columns of `b` differ from those of `a`, over the rows that both have, for all rows and by the groups of `by`.
///
/// Errors: `Mismatch` when they have different numbers of columns; as [`ChunkReader::get`].
pub fn diff(
    reader: &ChunkReader<'_>,
    a: &Request,
    b: &Request,
    by: Option<&OperandScan<'_, '_>>,
) -> Result<DiffAnswer> {
    let (left, right) = (reader.scan_numbers(a)?, reader.scan_numbers(b)?);
    let width = left.columns().len();
    if width != right.columns().len() {
        return Err(QueryError::Mismatch {
            what: format!("{} and {}", left.key(), right.key()),
            why: format!("{width} columns against {}", right.columns().len()),
        });
    }
    let mut sets = vec![left.rows(), right.rows()];
    sets.extend(by.map(OperandScan::rows));
    let (rows, unshared) = scan::shared_among(a, &sets);
    let mut n_ungrouped = 0;
    let mut groups = Groups::default();
    let mut all = Sums::default();
    let mut sums: Vec<Sums> = Vec::new();
    let mut changed = Some(Vec::new());
    let block_rows = left.block_rows().min(right.block_rows());
    for ids in rows.chunks(block_rows) {
        let of = match by {
            None => vec![None; ids.len()],
            Some(by) => {
                let of = groups.of(&by.read(ids)?, by.name())?;
                n_ungrouped += of.iter().filter(|g| g.is_none()).count() as u64;
                of
            }
        };
        sums.resize(groups.len(), Sums::default());
        let mut ran = together::blocks(&[&left, &right], ids).into_iter();
        let mut read =
            |scan: &Scan<'_, '_>| ran.next().flatten().map_or_else(|| scan.read(ids), Ok).and_then(Side::new);
        let (x, y) = (read(&left)?, read(&right)?);
        let differences = x.minus(&y, width)?;
        let n_numbers = differences.len() / ids.len().max(1);
        if !(x.has_classes(width) && y.has_classes(width)) {
            changed = None;
        }
        let classes = match changed {
            Some(_) => Some((x.classes(width)?, y.classes(width)?)),
            None => None,
        };
        for (i, (&row, group)) in ids.iter().zip(&of).enumerate() {
            let class = |of: &[Option<String>]| of.get(i).cloned().flatten();
            let (a, b) = classes.as_ref().map_or((None, None), |(x, y)| (class(x), class(y)));
            let differs = a != b;
            if let (true, Some(changed)) = (differs, &mut changed) {
                let text = |c: Option<String>| c.unwrap_or_else(|| "none".into());
                changed.push(Changed { row, a: text(a), b: text(b) });
            }
            for sums in std::iter::once(&mut all).chain(group.and_then(|g| sums.get_mut(g))) {
                sums.add(row, differences.get(i * n_numbers..(i + 1) * n_numbers).unwrap_or_default());
                sums.n_changed += u64::from(differs);
            }
        }
    }
    let group = |name: Option<String>, s: &Sums| GroupDifference {
        group: name,
        n_rows: s.n_rows,
        mean_abs: s.mean_abs(),
        rms: (s.n > 0).then(|| (s.squares / s.n as f64).sqrt()),
        max_abs: s.max_abs,
        max_row: s.max_row,
        n_not_finite: s.n_not_finite,
        n_changed: s.n_changed,
    };
    let mut out = vec![group(None, &all)];
    for g in groups.sorted() {
        out.extend(sums.get(g).map(|s| group(Some(groups.name(g).to_string()), s)));
    }
    let unshared = [unshared.first().copied().unwrap_or_default(), unshared.get(1).copied().unwrap_or_default()];
    Ok(DiffAnswer { groups: out, changed, unshared, n_ungrouped, sources: [left.source(), right.source()] })
}

/// One side's rows.
enum Side {
    /// rows × columns.
    Numbers(Vec<f64>),
    /// Columns of a table.
    Columns(Vec<Column>),
}

impl Side {
    fn new(block: Block) -> Result<Self> {
        if let Data::Table(batch) = &block.data {
            return Ok(Self::Columns(batch.columns().iter().map(Column::from_array).collect::<Result<_>>()?));
        }
        Ok(Self::Numbers(block.into_f64()?))
    }

    fn has_classes(&self, width: usize) -> bool {
        match self {
            Self::Numbers(_) => width > 1,
            Self::Columns(columns) => match &columns[..] {
                [one] => !matches!(one, Column::Float(_)),
                _ => true,
            },
        }
    }

    /// The prediction of each row, or its only value where that is no float.
    fn classes(&self, width: usize) -> Result<Vec<Option<String>>> {
        let largest = |values: &[f64]| argmax(values).map(|c| c.to_string());
        match self {
            Self::Numbers(values) => Ok(values.chunks_exact(width.max(1)).map(largest).collect()),
            Self::Columns(columns) => match &columns[..] {
                [one] => Ok((0..one.len()).map(|row| one.text(row)).collect()),
                many => {
                    let numbers = many.iter().filter(|c| !matches!(c, Column::Text(_)));
                    let numbers = numbers.map(|c| c.to_f64("")).collect::<Result<Vec<_>>>()?;
                    let n_rows = numbers.first().map_or(0, Vec::len);
                    let row = |i: usize| numbers.iter().filter_map(|c| c.get(i).copied()).collect::<Vec<_>>();
                    Ok((0..n_rows).map(|i| largest(&row(i))).collect())
                }
            },
        }
    }

    /// This side's values less the other's, rows × columns: integers exactly. Text has none.
    fn minus(&self, other: &Self, width: usize) -> Result<Vec<f64>> {
        let (a, b) = match (self, other) {
            (Self::Columns(a), Self::Columns(b)) => {
                let text = |c: &Column| matches!(c, Column::Text(_));
                let numbers = a.iter().zip(b).filter(|(a, b)| !text(a) && !text(b));
                let all = numbers.map(|(a, b)| a.minus(b, "")).collect::<Result<Vec<_>>>()?;
                let n_rows = all.first().map_or(0, Vec::len);
                return Ok((0..n_rows).flat_map(|i| all.iter().filter_map(move |c| c.get(i).copied())).collect());
            }
            (Self::Numbers(a), Self::Numbers(b)) => return Ok(a.iter().zip(b).map(|(a, b)| a - b).collect()),
            (a, b) => (a.numbers(width)?, b.numbers(width)?),
        };
        Ok(a.into_iter().zip(b).map(|(a, b)| a - b).collect())
    }

    fn numbers(&self, width: usize) -> Result<Vec<f64>> {
        match self {
            Self::Numbers(values) => Ok(values.clone()),
            Self::Columns(columns) => {
                let all = columns.iter().map(|c| c.to_f64("")).collect::<Result<Vec<_>>>()?;
                let n_rows = if width == 0 { 0 } else { all.first().map_or(0, Vec::len) };
                Ok((0..n_rows).flat_map(|i| all.iter().filter_map(move |c| c.get(i).copied())).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let d = difference(&[7, 8], &[1.0, 2.0, 5.0, 0.0], &[1.0, 0.5, 5.0, f32::NAN]).unwrap();
        assert_eq!(d.mean_abs, 0.5);
        assert_eq!((d.max_abs, d.max_row), (1.5, Some(7)));
        assert_eq!(d.changed_argmax, [(7, 1, 0)]);
        assert!(difference(&[1], &[1.0], &[1.0, 2.0]).is_err());
        assert_eq!(difference(&[], &[], &[]).unwrap().max_row, None);
    }
}
