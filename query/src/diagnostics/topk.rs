//! TOPK: the rows with the most extreme values.
//!
//! NaN never ranks; ties go to the smaller row_id. A unit's maximum over its map passes over NaNs; its mean and norm are
//! NaN where the map holds one.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Neg;
use std::str::FromStr;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use mistique_engine::{CodePage, Content};
use rayon::prelude::*;

use crate::answer::{Data, Source};
use crate::codes::{CodeScan, CodeUnit};
use crate::column::{Cell, Column};
use crate::error::{QueryError, Result};
use crate::operand::bad_operand;
use crate::reader::{ChunkReader, Request};
use crate::scan::{Scan, Unit};

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extreme {
    /// Largest first.
    #[default]
    Highest,
    /// Smallest first.
    Lowest,
    /// Farthest from zero first.
    Farthest,
}

/// What can be ranked: floats, and integers that float64 does not tell apart beyond 2^53.
pub(crate) trait Ranked: Copy + PartialOrd + Neg<Output = Self> {
    /// A key that every value's is at or below, and one that none's is.
    const WORST: Self;
    const NONE: Self;

    fn abs(self) -> Self;

    /// A key of which the smallest ranks first.
    fn key(self, extreme: Extreme) -> Self {
        match extreme {
            Extreme::Highest => -self,
            Extreme::Lowest => self,
            Extreme::Farthest => -self.abs(),
        }
    }
}

impl Ranked for f64 {
    const WORST: Self = Self::INFINITY;
    const NONE: Self = Self::NAN;

    fn abs(self) -> Self {
        self.abs()
    }
}

/// Of integers with 64 bits.
impl Ranked for i128 {
    const WORST: Self = Self::MAX;
    const NONE: Self = Self::MIN;

    fn abs(self) -> Self {
        self.abs()
    }
}

/// What is ranked of a unit's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The one value of a vector's unit, of a cell or of a table's column.
    Value,
    /// Largest value of the map.
    Max,
    /// Mean of the map.
    Mean,
    /// Euclidean norm of the map.
    Norm,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Value, Self::Max, Self::Mean, Self::Norm];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Norm => "norm",
        }
    }

    /// The number that is ranked; NaN for an empty map.
    pub fn of(self, map: &[f64]) -> f64 {
        match self {
            Self::Value => map.first().copied().unwrap_or(f64::NAN),
            Self::Max => map.iter().copied().fold(f64::NAN, f64::max),
            Self::Mean => map.iter().sum::<f64>() / map.len() as f64,
            Self::Norm if map.is_empty() => f64::NAN,
            Self::Norm => map.iter().map(|v| v * v).sum::<f64>().sqrt(),
        }
    }
}

impl By {
    /// As [`By::of`], of float32.
    fn of_f32(self, map: &[f32]) -> f64 {
        match self {
            Self::Value => map.first().copied().map_or(f64::NAN, f64::from),
            Self::Max => f64::from(map.iter().copied().fold(f32::NAN, f32::max)),
            Self::Mean => map.iter().copied().map(f64::from).sum::<f64>() / map.len() as f64,
            Self::Norm if map.is_empty() => f64::NAN,
            Self::Norm => map.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt(),
        }
    }
}

impl FromStr for By {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|b| b.name() == text).ok_or_else(|| QueryError::Parse {
            what: "way to rank a map",
            given: text.to_string(),
            why: "expected value, max, mean or norm".into(),
            at: 1,
        })
    }
}

/// The best `k` of what it is shown.
#[derive(Debug, Clone)]
pub struct Ranking<V = f64> {
    k: usize,
    extreme: Extreme,
    entries: Vec<(u64, V)>,
    /// Key of the k-th best when the entries were last sorted; what is worse cannot rank.
    bound: V,
    /// Values that were NaN or null.
    pub n_nan: u64,
}

#[expect(private_bounds, reason = "only floats and integers are ranked")]
impl<V: Ranked> Ranking<V> {
    /// An empty one.
    pub fn new(k: usize, extreme: Extreme) -> Self {
        let bound = if k == 0 { V::NONE } else { V::WORST };
        Self { k, extreme, entries: Vec::new(), bound, n_nan: 0 }
    }

    /// Shows it a row's value.
    pub fn push(&mut self, row: u64, value: V) {
        // NaN alone is not equal to itself.
        self.n_nan += u64::from(value.partial_cmp(&value).is_none());
        if self.admits(value) {
            self.entries.push((row, value));
            // Sorting seldom, so that a row costs a comparison.
            if self.entries.len() >= 2 * self.k.max(16) {
                self.shrink();
            }
        }
    }

    /// What the key of a value (smallest first) must not exceed to rank still.
    pub(crate) fn bound(&self) -> V {
        self.bound
    }

    /// Whether a row of this value could still rank.
    pub fn admits(&self, value: V) -> bool {
        value.key(self.extreme) <= self.bound
    }

    /// Adds what another one was shown.
    pub fn merge(&mut self, other: Self) {
        self.n_nan += other.n_nan;
        self.entries.extend(other.entries);
        self.shrink();
    }

    fn shrink(&mut self) {
        let key = |v: V| v.key(self.extreme);
        self.entries
            .sort_unstable_by(|a, b| key(a.1).partial_cmp(&key(b.1)).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0)));
        self.entries.truncate(self.k);
        if let Some(worst) = self.k.checked_sub(1).and_then(|i| self.entries.get(i)) {
            self.bound = worst.1.key(self.extreme);
        }
    }

    /// The best, best first: `(row_id, value)`.
    pub fn finish(mut self) -> Vec<(u64, V)> {
        self.shrink();
        self.entries
    }
}

/// The `k` rows with the most extreme values, most extreme first: `(row_id, value)`.
///
/// Shape: `values` and `rows` have one entry a row; fewer than `k` come back where there are fewer.
pub fn top_k(rows: &[u64], values: &[f32], k: usize, extreme: Extreme) -> Vec<(u64, f32)> {
    let mut ranking = Ranking::new(k, extreme);
    rows.iter().zip(values).for_each(|(row, v)| ranking.push(*row, f64::from(*v)));
    ranking.finish().into_iter().map(|(row, v)| (row, v as f32)).collect()
}

/// How one unit's rows are ranked.
#[derive(Debug, Clone)]
enum Ranks {
    Floats(Ranking),
    /// And the type of dates and times.
    Ints(Ranking<i128>, Option<DataType>),
}

/// Values of a column that are widened at a time.
const WIDENED: usize = 1 << 16;

impl Ranks {
    /// Shows it a table's column, which is called `name`: a value alone is its own maximum and mean.
    fn column(&mut self, rows: &[u64], column: &ArrayRef, name: &str, by: By) -> Result<()> {
        for (first, rows) in (0..).step_by(WIDENED).zip(rows.chunks(WIDENED)) {
            let part = Column::from_array(&column.slice(first, rows.len()))?;
            match (&mut *self, part) {
                (Self::Ints(ranking, _), Column::Int(values) | Column::Time(values, _)) => {
                    for (row, value) in rows.iter().zip(values) {
                        match value {
                            Some(value) if by == By::Norm => ranking.push(*row, value.abs()),
                            Some(value) => ranking.push(*row, value),
                            None => ranking.n_nan += 1,
                        }
                    }
                }
                (Self::Floats(ranking), part) => {
                    rows.iter().zip(part.to_f64(name)?).for_each(|(row, v)| ranking.push(*row, by.of(&[v])));
                }
                (Self::Ints(..), _) => {
                    return Err(bad_operand(name, "it was logged as integers and is read as floats"));
                }
            }
        }
        Ok(())
    }

    fn top(self, unit: String) -> Top {
        match self {
            Self::Floats(ranking) => Top { unit, n_nan: ranking.n_nan, rows: ranking.finish(), cells: None },
            Self::Ints(ranking, kind) => {
                let n_nan = ranking.n_nan;
                let entries = ranking.finish();
                let values = entries.iter().map(|e| Some(e.1)).collect();
                let column = match kind {
                    Some(kind) => Column::Time(values, kind),
                    None => Column::Int(values),
                };
                let cells = Some((0..column.len()).filter_map(|i| column.cell(i)).collect());
                Top { unit, rows: entries.into_iter().map(|(row, v)| (row, v as f64)).collect(), cells, n_nan }
            }
        }
    }
}

/// The rows that rank first for one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    /// The unit, as a selector.
    pub unit: String,
    /// `(row_id, value)`, best first; integers beyond 2^53 rounded.
    pub rows: Vec<(u64, f64)>,
    /// The same values as they are, of a column of integers, dates or times.
    pub cells: Option<Vec<Cell>>,
    /// Rows that do not rank because their value is NaN or null.
    pub n_nan: u64,
}

/// An answer of [`topk`].
#[derive(Debug, Clone, PartialEq)]
pub struct TopAnswer {
    /// One entry a unit, in the order asked for.
    pub units: Vec<Top>,
    /// What was ranked.
    pub by: By,
    /// Rows that were looked at.
    pub n_rows: u64,
    /// Where the values came from.
    pub source: Source,
}

/// The `k` highest, lowest or most extreme rows of every unit of a request; `by` is the maximum for units with maps, the
/// value for others, unless it is given.
///
/// Errors: `Columns` where the value of a whole map is asked for; as [`ChunkReader::get`].
pub fn topk(
    reader: &ChunkReader<'_>,
    request: &Request,
    k: usize,
    by: Option<By>,
    extreme: Extreme,
) -> Result<TopAnswer> {
    let scan = reader.scan_numbers(request)?;
    let units = scan.units();
    let by = ranked_by(&scan, &units, by)?;
    let rankings = vec![Ranking::new(k, extreme); units.len()];
    if let Some(rankings) = scan.on_codes(|codes| rank_codes(codes, by, rankings.clone()).map(Some))? {
        return Ok(answer(&scan, units, rankings.into_iter().map(Ranks::Floats).collect(), by));
    }
    // A column of a table is ranked as it is.
    let table = match &*scan.record().content {
        Content::Table(table) => Some(table),
        Content::Tensor(_) => None,
    };
    let ranks = |(unit, ranking): (&Unit, Ranking)| {
        let kind = table.and_then(|t| Some(t.schema.field_with_name(&unit.name).ok()?.data_type().clone()));
        let is_time = |kind: &DataType| kind.is_temporal() && by == By::Value;
        match kind.filter(|kind| kind.is_integer() || is_time(kind) || *kind == DataType::Boolean) {
            Some(kind) => Ranks::Ints(Ranking::new(k, extreme), kind.is_temporal().then_some(kind)),
            None => Ranks::Floats(ranking),
        }
    };
    let mut ranks: Vec<Ranks> = units.iter().zip(rankings).map(ranks).collect();
    scan.for_each(|block| {
        if let (Some(_), Data::Table(batch)) = (table, &block.data) {
            let columns = ranks.par_iter_mut().zip(&units).zip(batch.columns());
            return columns.try_for_each(|((ranks, unit), column)| ranks.column(&block.rows, column, &unit.name, by));
        }
        let (rows, width) = (block.rows.clone(), block.width);
        let values = block.into_f64()?;
        ranks.par_iter_mut().zip(&units).for_each(|(ranks, unit)| {
            let Ranks::Floats(ranking) = ranks else { return };
            for (row, values) in rows.iter().zip(values.chunks_exact(width.max(1))) {
                ranking.push(*row, by.of(values.get(unit.columns.clone()).unwrap_or_default()));
            }
        });
        Ok(())
    })?;
    Ok(answer(&scan, units, ranks, by))
}

fn answer(scan: &Scan<'_, '_>, units: Vec<Unit>, ranks: Vec<Ranks>, by: By) -> TopAnswer {
    TopAnswer {
        units: units.into_iter().zip(ranks).map(|(unit, ranks)| ranks.top(unit.name)).collect(),
        by,
        n_rows: scan.rows().len() as u64,
        source: scan.source(),
    }
}

/// The pages of a group of units, and the units that are ranked.
type Group<'g> = (Vec<&'g CodePage>, Vec<(&'g CodeUnit, &'g mut Ranking)>);

/// Ranks what is stored: pages with the best zone maps first, and only those that can still hold a row that ranks.
fn rank_codes(codes: &CodeScan<'_>, by: By, mut rankings: Vec<Ranking>) -> Result<Vec<Ranking>> {
    let row_ids = codes.rows();
    let pages = codes.pages()?;
    // Groups of units have chunks of their own: each is ranked without the others.
    let mut groups: BTreeMap<usize, Group<'_>> = BTreeMap::new();
    pages.iter().for_each(|p| groups.entry(p.group).or_default().0.push(p));
    for (unit, ranking) in codes.units().iter().zip(&mut rankings) {
        groups.entry(unit.group).or_default().1.push((unit, ranking));
    }
    groups.into_par_iter().try_for_each(|(_, (pages, mut units))| {
        let Some(extreme) = units.first().map(|(_, ranking)| ranking.extreme) else { return Ok(()) };
        // What the best row of a page could be, over all units: a key, smallest first.
        let hope = |page: &CodePage, units: &[(&CodeUnit, &mut Ranking)]| {
            units.iter().map(|(unit, _)| best_key(codes, page, unit, by, extreme)).fold(f64::INFINITY, f64::min)
        };
        let mut by_hope: Vec<(f64, &CodePage)> = pages.iter().map(|p| (hope(p, &units), *p)).collect();
        by_hope.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Chunks by their best page, so that each is opened once.
        let mut chunks: Vec<Vec<&CodePage>> = Vec::new();
        let mut place: HashMap<i64, usize> = HashMap::new();
        for (_, page) in by_hope {
            let at = *place.entry(page.chunk()).or_insert_with(|| {
                chunks.push(Vec::new());
                chunks.len() - 1
            });
            chunks.get_mut(at).into_iter().for_each(|c| c.push(page));
        }
        let units = RefCell::new(&mut units);
        let mut map = Vec::new();
        for pages in chunks {
            codes.store().visit_pages(
                &pages,
                |page| {
                    // NaNs are counted, so their pages are read.
                    page.zone.n_nan > 0
                        || units
                            .borrow()
                            .iter()
                            .any(|(unit, ranking)| best_key(codes, page, unit, by, ranking.extreme) <= ranking.bound)
                },
                |page, bytes| {
                    for (unit, ranking) in units.borrow_mut().iter_mut() {
                        for rows in &page.rows {
                            for i in 0..rows.len {
                                let value = codes.map(page, bytes, rows.row + i, unit, &mut map)?;
                                let value = by.of_f32(value);
                                if let Some(row) = row_ids.get(rows.position + i) {
                                    ranking.push(*row, value);
                                }
                            }
                        }
                    }
                    Ok::<(), QueryError>(())
                },
            )?;
        }
        Ok::<(), QueryError>(())
    })?;
    Ok(rankings)
}

/// A key (smallest first) that no row of a page is better than.
fn best_key(codes: &CodeScan<'_>, page: &CodePage, unit: &CodeUnit, by: By, extreme: Extreme) -> f64 {
    let Some((min, max)) = codes.range(page, unit) else { return f64::NEG_INFINITY };
    let farthest = min.abs().max(max.abs());
    // Sums round: a mean may lie a little outside of the range.
    let slack = 1.0 + 1e-9;
    match (by, extreme) {
        (By::Value | By::Max, Extreme::Highest) => -max,
        (By::Value | By::Max, Extreme::Lowest) => min,
        (By::Value | By::Max, Extreme::Farthest) => -farthest,
        (By::Mean, Extreme::Highest) => -max - farthest * 1e-9,
        (By::Mean, Extreme::Lowest) => min - farthest * 1e-9,
        (By::Mean, Extreme::Farthest) => -farthest * slack,
        (By::Norm, Extreme::Lowest) => 0.0,
        (By::Norm, _) => -farthest * (unit.cells.len() as f64).sqrt() * slack,
    }
}

fn ranked_by(scan: &Scan<'_, '_>, units: &[Unit], by: Option<By>) -> Result<By> {
    let map = units.iter().find(|u| u.columns.len() != 1);
    match (map, by) {
        (Some(map), Some(By::Value)) => Err(QueryError::Columns {
            key: scan.key().to_string(),
            given: map.name.clone(),
            why: format!(
                "its map has {} cells; rank their max, mean or norm, or name one cell such as {}[0,0]",
                map.columns.len(),
                map.name
            ),
        }),
        (_, Some(by)) => Ok(by),
        (Some(_), None) => Ok(By::Max),
        (None, None) => Ok(By::Value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = [10, 11, 12, 13, 14];
        let values = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY];
        assert_eq!(top_k(&rows, &values, 2, Extreme::Highest), [(11, 3.0), (13, 3.0)]);
        assert_eq!(top_k(&rows, &values, 2, Extreme::Lowest), [(14, f32::NEG_INFINITY), (10, 1.0)]);
        assert_eq!(top_k(&rows, &values, 2, Extreme::Farthest), [(14, f32::NEG_INFINITY), (11, 3.0)]);
        assert_eq!(top_k(&rows, &values, 99, Extreme::Highest).len(), 4);
        assert!(top_k(&rows, &values, 0, Extreme::Highest).is_empty());
        assert!(top_k(&[], &[], 3, Extreme::Highest).is_empty());
    }

    #[test]
    fn as_sorting_does_whatever_the_order() {
        let values: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 - 2000.0).collect();
        // Row_ids that fall, so that ties must be found among what came later.
        let rows: Vec<u64> = (0..5000).rev().collect();
        for (extreme, key) in [
            (Extreme::Highest, (|v: f32| -v) as fn(f32) -> f32),
            (Extreme::Lowest, |v| v),
            (Extreme::Farthest, |v| -v.abs()),
        ] {
            let mut all: Vec<(u64, f32)> = rows.iter().copied().zip(values.iter().copied()).collect();
            all.sort_by(|a, b| key(a.1).total_cmp(&key(b.1)).then(a.0.cmp(&b.0)));
            for k in [1, 7, 100, 4999, 6000] {
                assert_eq!(top_k(&rows, &values, k, extreme), all[..k.min(5000)], "{extreme:?} {k}");
            }
        }
    }

    #[test]
    fn maps_become_one_number() {
        let map = [3.0, f64::NAN, -4.0];
        assert_eq!(By::Max.of(&map), 3.0);
        assert!(By::Mean.of(&map).is_nan() && By::Norm.of(&map).is_nan());
        assert_eq!((By::Mean.of(&[3.0, -4.0]), By::Norm.of(&[3.0, -4.0])), (-0.5, 5.0));
        assert!(By::ALL.iter().all(|by| by.of(&[]).is_nan()));
        assert!(By::Max.of(&[f64::NAN]).is_nan());
    }
}
