//! COL_DIST: histogram and quantiles of columns, whole and by group, exact and in bounded memory.
//!
//! Values are read two or more times and never held: quantiles are found by counting leading bits of the values, as a
//! radix sort would, a further 16 bits each time.

use std::collections::{BTreeSet, HashMap};

use arrow::datatypes::DataType;
use mistique_engine::{CodePage, Content, EngineError};

use super::groups::Groups;
use super::histogram::{Binning, Histogram};
use super::rounding;
use crate::answer::{Data, Source};
use crate::codes::CodeScan;
use crate::column::Column;
use crate::error::{QueryError, Result};
use crate::operand::OperandScan;
use crate::reader::{ChunkReader, Request};
use crate::scan::{self, Scan, Unit};

/// Quantiles that are reported where none are asked for.
pub const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];
/// Each group has tables of 512 KiB.
const MAX_GROUPS: usize = 256;
const MAX_BINS: usize = 1_000_000;

/// How the values of a group are distributed. All but the standard deviation is less by the answer's offset.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The group; `None` for all rows.
    pub group: Option<String>,
    /// Finite values.
    pub n: u64,
    /// Mean of the finite values; `None` where there are none.
    pub mean: Option<f64>,
    /// Their standard deviation (of the population).
    pub std: Option<f64>,
    /// Their smallest and largest.
    pub range: Option<(f64, f64)>,
    /// `(q, value)` over the finite values, interpolated linearly as numpy does; none where there are no values.
    pub quantiles: Vec<(f64, f64)>,
    /// Bins between the smallest and largest finite value of all groups, so that groups can be compared.
    pub histogram: Histogram,
}

/// An answer of [`dist`].
#[derive(Debug, Clone, PartialEq)]
pub struct DistAnswer {
    /// All rows first, then each group.
    pub groups: Vec<Distribution>,
    /// Rows that the column of groups lacks.
    pub unshared: u64,
    /// Rows whose group is null: among all rows, and in no group.
    pub n_ungrouped: u64,
    /// What all values are given less: not 0 for integers beyond 2^53 that are close to each other, which float64 would
    /// not tell apart.
    pub offset: i128,
    /// Type of the values, where all are dates or times of one: they are counted in its units.
    pub times: Option<DataType>,
    /// Where the values came from.
    pub source: Source,
}

impl DistAnswer {
    /// A value (not a standard deviation) as it is written where a float64 is not: as a date or time, to the next whole
    /// unit, or an integer beyond 2^53; `None` for others.
    pub fn time(&self, value: f64) -> Option<String> {
        let finite = value.is_finite().then_some(value);
        match &self.times {
            Some(kind) => {
                let units = finite.map(|v| self.offset + v.round() as i128);
                Column::Time(vec![units], kind.clone()).text(0)
            }
            None if self.offset == 0 => None,
            None => finite.map(|v| sum_text(self.offset, v)),
        }
    }
}

/// A large integer and a number as one decimal number.
fn sum_text(integer: i128, v: f64) -> String {
    let floor = integer + v.floor() as i128;
    let part = v - v.floor();
    if part == 0.0 {
        return floor.to_string();
    }
    // Digits after the point lead away from zero.
    let (whole, part) = if floor < 0 { (floor + 1, 1.0 - part) } else { (floor, part) };
    format!("{whole}{}", part.to_string().trim_start_matches('0'))
}

/// What a scan's values are counted less: the smallest, where all are integers that float64 rounds and their differences
/// are none; else 0.
fn offset(scan: &Scan<'_, '_>, all: &Moments) -> f64 {
    let Content::Table(table) = &*scan.record().content else { return 0.0 };
    let is_wide =
        |unit: &Unit| table.schema.field_with_name(&unit.name).is_ok_and(|f| rounding::is_wide(f.data_type()));
    let large = all.n > 0 && all.min.abs().max(all.max.abs()) >= 2f64.powi(53);
    let close = all.max - all.min < 2f64.powi(52);
    if large && close && scan.units().iter().all(is_wide) { all.min } else { 0.0 }
}

/// The type of all columns, if it is one of dates or times.
fn times(scan: &Scan<'_, '_>) -> Option<DataType> {
    let Content::Table(table) = &*scan.record().content else { return None };
    let kind = |unit: &Unit| table.schema.field_with_name(&unit.name).ok().map(|f| f.data_type().clone());
    let mut kinds = scan.units().iter().map(kind).collect::<Option<Vec<_>>>()?;
    kinds.dedup();
    kinds.pop().filter(|kind| kinds.is_empty() && kind.is_temporal())
}

#[derive(Debug, Clone, Default)]
struct Moments {
    n: u64,
    /// What values are multiplied by before they are summed.
    scale: f64,
    mean: f64,
    m2: f64,
    min: f64,
    max: f64,
    n_nan: u64,
    n_infinite: u64,
}

impl Moments {
    fn new(scale: f64) -> Self {
        Self { scale, min: f64::INFINITY, max: f64::NEG_INFINITY, ..Self::default() }
    }

    /// None yet, of values like these: by a power of two where their squares left the range of float64.
    fn again(&self) -> Self {
        Self::new(if self.fit() { 1.0 } else { rounding::scale(self.min.abs().max(self.max.abs())) })
    }

    /// Whether the squares neither overflowed nor vanished.
    fn fit(&self) -> bool {
        self.m2.is_finite() && (self.m2 > 1e-280 || self.min >= self.max)
    }

    fn mean(&self) -> f64 {
        self.mean / self.scale
    }

    fn std(&self) -> f64 {
        (self.m2 / self.n as f64).sqrt() / self.scale
    }

    fn add(&mut self, v: f64) {
        if !v.is_finite() {
            self.n_nan += u64::from(v.is_nan());
            self.n_infinite += u64::from(v.is_infinite());
            return;
        }
        self.n += 1;
        let scaled = v * self.scale;
        let d = scaled - self.mean;
        self.mean += d / self.n as f64;
        self.m2 += d * (scaled - self.mean);
        self.min = self.min.min(v);
        self.max = self.max.max(v);
    }
}

/// A float's bits in the order of its value; −0 as 0.
fn key(v: f64) -> u64 {
    let bits = (v + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn from_key(k: u64) -> f64 {
    f64::from_bits(if k >> 63 == 1 { k ^ 1 << 63 } else { !k })
}

/// Ranks of one group whose values are being found.
#[derive(Debug, Clone, Default)]
struct Search {
    /// `(rank, prefix found so far, rank within the prefix)`.
    targets: Vec<(u64, u64, u64)>,
    /// Counts of the next 16 bits under each prefix.
    counts: HashMap<u64, Box<[u32]>>,
}

impl Search {
    fn new(ranks: BTreeSet<u64>) -> Self {
        Self { targets: ranks.into_iter().map(|r| (r, 0, r)).collect(), counts: HashMap::new() }
    }

    fn begin(&mut self) {
        let prefixes: BTreeSet<u64> = self.targets.iter().map(|t| t.1).collect();
        self.counts = prefixes.into_iter().map(|p| (p, vec![0u32; 1 << 16].into_boxed_slice())).collect();
    }

    fn add(&mut self, key: u64, level: u32) {
        let prefix = if level == 0 { 0 } else { key >> (64 - 16 * level) };
        if let Some(counts) = self.counts.get_mut(&prefix) {
            let digit = (key >> (48 - 16 * level)) & 0xFFFF;
            if let Some(n) = counts.get_mut(digit as usize) {
                *n += 1;
            }
        }
    }

    /// Lengthens every target's prefix by the digit that holds its rank.
    fn end(&mut self) {
        for (_, prefix, rank) in &mut self.targets {
            let Some(counts) = self.counts.get(prefix) else { continue };
            for (digit, &n) in counts.iter().enumerate() {
                if *rank < u64::from(n) {
                    *prefix = *prefix << 16 | digit as u64;
                    break;
                }
                *rank -= u64::from(n);
            }
        }
        self.counts.clear();
    }

    fn value(&self, rank: u64) -> f64 {
        self.targets.iter().find(|t| t.0 == rank).map_or(f64::NAN, |t| from_key(t.1))
    }
}

/// The distribution of all values of a request, in `n_bins` bins, and of each group of `by`.
///
/// Errors: `Mismatch` for quantiles outside 0..1, no bins or more than a million, or too many groups; as
/// [`ChunkReader::get`].
pub fn dist(
    reader: &ChunkReader<'_>,
    request: &Request,
    by: Option<&OperandScan<'_, '_>>,
    n_bins: usize,
    quantiles: &[f64],
) -> Result<DistAnswer> {
    let refusal = |why: String| QueryError::Mismatch { what: "distribution".into(), why };
    if !(1..=MAX_BINS).contains(&n_bins) {
        return Err(refusal(format!("a histogram has 1 to {MAX_BINS} bins, not {n_bins}")));
    }
    if let Some(q) = quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
        return Err(refusal(format!("quantile {q} is not between 0 and 1")));
    }
    let scan = reader.scan_numbers(request)?;
    let mut sets = vec![scan.rows()];
    sets.extend(by.map(OperandScan::rows));
    let (rows, unshared) = scan::shared(&sets);

    let counted = scan.on_codes(|codes| {
        let mut groups = Groups::default();
        let counted = count_codes(codes, &rows, by, &mut groups)?;
        Ok(counted.map(|(counts, n_ungrouped)| (from_counts(&counts, &groups, n_bins, quantiles), n_ungrouped)))
    })?;
    let unshared = unshared.first().copied().unwrap_or_default();
    if let Some((groups, n_ungrouped)) = counted {
        let (times, source) = (times(&scan), scan.source());
        return Ok(DistAnswer { groups, unshared, n_ungrouped, offset: 0, times, source });
    }
    let mut groups = Groups::default();
    let mut moments = vec![Moments::new(1.0)];
    let (mut wide, mut n_ungrouped) = (false, 0);
    // The first group is that of all rows.
    let mut each = |offset: f64, visit: &mut dyn FnMut(usize, &[f64], bool)| -> Result<usize> {
        n_ungrouped = 0;
        for ids in rows.chunks(scan.block_rows()) {
            let of = match by {
                None => vec![None; ids.len()],
                Some(by) => groups.of(&by.read(ids)?, by.name())?,
            };
            n_ungrouped += ungrouped(by, &of);
            if groups.len() > MAX_GROUPS {
                return Err(refusal(format!("more than {MAX_GROUPS} groups; name a column of classes")));
            }
            let block = scan.read(ids)?;
            let (width, wide) = (block.width.max(1), !matches!(block.data, Data::F32(_)));
            let rests = if offset == 0.0 { None } else { rounding::rests(&block)? };
            let mut values = block.into_f64()?;
            rounding::take(&mut values, rests.as_deref(), &vec![offset; width]);
            for (row, group) in values.chunks_exact(width).zip(&of) {
                visit(0, row, wide);
                if let Some(g) = group {
                    visit(g + 1, row, wide);
                }
            }
        }
        Ok(groups.len())
    };
    let n_groups = each(0.0, &mut |g, row, is_wide| {
        wide |= is_wide;
        if g >= moments.len() {
            moments.resize(g + 1, Moments::new(1.0));
        }
        if let Some(m) = moments.get_mut(g) {
            row.iter().for_each(|v| m.add(*v));
        }
    })?;
    moments.resize(n_groups + 1, Moments::new(1.0));
    let offset = moments.first().map_or(0.0, |all| offset(&scan, all));
    if offset != 0.0 || !moments.iter().all(Moments::fit) {
        moments = moments.iter().map(Moments::again).collect();
        each(offset, &mut |g, row, _| {
            if let Some(m) = moments.get_mut(g) {
                row.iter().for_each(|v| m.add(*v));
            }
        })?;
    }

    let (min, max) = moments.first().map_or((f64::INFINITY, f64::NEG_INFINITY), |m| (m.min, m.max));
    let binning = Binning::new(min, max, n_bins);
    let mut histograms: Vec<Histogram> = moments.iter().map(|m| binning.empty(m.n_nan, m.n_infinite)).collect();
    let ranks = |m: &Moments| -> BTreeSet<u64> {
        let at = |q: &f64| q * m.n.saturating_sub(1) as f64;
        quantiles.iter().filter(|_| m.n > 0).flat_map(|q| [at(q).floor() as u64, at(q).ceil() as u64]).collect()
    };
    let mut searches: Vec<Search> = moments.iter().map(|m| Search::new(ranks(m))).collect();
    // A float32 as float64 has its 29 last bits zero, or one when it is negative: three digits hold the others.
    let levels = if wide { 4 } else { 3 };
    for level in 0..levels {
        searches.iter_mut().for_each(Search::begin);
        each(offset, &mut |g, row, _| {
            if let (Some(search), Some(histogram)) = (searches.get_mut(g), histograms.get_mut(g)) {
                for v in row.iter().filter(|v| v.is_finite()) {
                    search.add(key(*v), level);
                    if level == 0 {
                        binning.count(*v, histogram);
                    }
                }
            }
        })?;
        searches.iter_mut().for_each(Search::end);
    }
    if !wide {
        for (_, prefix, _) in searches.iter_mut().flat_map(|s| &mut s.targets) {
            let negative = *prefix >> 47 == 0;
            *prefix = *prefix << 16 | if negative { 0xFFFF } else { 0 };
        }
    }

    let order: Vec<usize> = std::iter::once(0).chain(groups.sorted().into_iter().map(|g| g + 1)).collect();
    let mut out = Vec::with_capacity(order.len());
    for g in order {
        let (Some(m), Some(search), Some(histogram)) = (moments.get(g), searches.get(g), histograms.get(g)) else {
            continue;
        };
        let some = m.n > 0;
        let quantile = |q: f64| {
            let at = q * m.n.saturating_sub(1) as f64;
            let (low, high) = (search.value(at.floor() as u64), search.value(at.ceil() as u64));
            (q, lerp(low, high, at - at.floor()))
        };
        out.push(Distribution {
            group: g.checked_sub(1).map(|g| groups.name(g).to_string()),
            n: m.n,
            mean: some.then(|| m.mean()),
            std: some.then(|| m.std()),
            range: some.then_some((m.min, m.max)),
            quantiles: if some { quantiles.iter().map(|q| quantile(*q)).collect() } else { Vec::new() },
            histogram: histogram.clone(),
        });
    }
    let (offset, times, source) = (offset as i128, times(&scan), scan.source());
    Ok(DistAnswer { groups: out, unshared, n_ungrouped, offset, times, source })
}

/// Rows of no group, where there are groups.
fn ungrouped(by: Option<&OperandScan<'_, '_>>, of: &[Option<usize>]) -> u64 {
    by.map_or(0, |_| of.iter().filter(|g| g.is_none()).count() as u64)
}

/// How often each value occurs, of all rows and of each group, and how many rows have no group: the codes of 16 bits and
/// less are counted and nothing is decoded. `None` for wider ones.
fn count_codes(
    codes: &CodeScan<'_>,
    rows: &[u64],
    by: Option<&OperandScan<'_, '_>>,
    groups: &mut Groups,
) -> Result<Option<(Vec<Values>, u64)>> {
    let width = codes.code().width();
    if width > 2 {
        return Ok(None);
    }
    // The group of each position; rows that the groups lack are in none, and are not counted.
    let mut group_of: HashMap<u64, Option<usize>> = HashMap::new();
    let mut n_ungrouped = 0;
    if let Some(by) = by {
        for ids in rows.chunks(by.scan().block_rows()) {
            let of = groups.of(&by.read(ids)?, by.name())?;
            n_ungrouped += ungrouped(Some(by), &of);
            group_of.extend(ids.iter().copied().zip(of));
        }
        if groups.len() > MAX_GROUPS {
            return Ok(None);
        }
    }
    let row_ids = codes.rows();
    let first = codes.units().first().and_then(|u| codes.code_values(u));
    let own_values = codes.units().iter().any(|u| codes.code_values(u) != first);
    let n_codes = if width == 1 { 256 } else { 1 << 16 };
    let tables = if own_values { codes.units().len() } else { 1 };
    let mut counts = vec![vec![0u64; n_codes * tables]; groups.len() + 1];
    let pages = codes.pages()?;
    let pages: Vec<&CodePage> = pages.iter().collect();
    codes.store().visit_pages(
        &pages,
        |_| true,
        |page, bytes| {
            for (u, unit) in codes.units().iter().enumerate().filter(|(_, u)| u.group == page.group) {
                let first = if own_values { u * n_codes } else { 0 };
                for some in &page.rows {
                    for i in 0..some.len {
                        let Some(row) = row_ids.get(some.position + i) else { continue };
                        let group = match by {
                            None => None,
                            Some(_) => match group_of.get(row) {
                                None => continue,
                                Some(group) => *group,
                            },
                        };
                        let row_codes = codes.codes(page, bytes, some.row + i, unit);
                        for g in [Some(0), group.map(|g| g + 1)].into_iter().flatten() {
                            let Some(counts) = counts.get_mut(g).and_then(|c| c.get_mut(first..first + n_codes)) else {
                                continue;
                            };
                            if width == 1 {
                                row_codes.iter().for_each(|c| count(counts, usize::from(*c)));
                            } else {
                                let (codes, _) = row_codes.as_chunks::<2>();
                                codes.iter().for_each(|c| count(counts, usize::from(u16::from_le_bytes(*c))));
                            }
                        }
                    }
                }
            }
            Ok::<(), QueryError>(())
        },
    )?;
    let value = |i: usize| -> Result<f64> {
        let unit = codes.units().get(i / n_codes).or(codes.units().first());
        let code = i % n_codes;
        match unit.and_then(|u| codes.code_values(u)) {
            Some(values) => Ok(values.get(code).or(values.last()).copied().map_or(f64::NAN, f64::from)),
            None => {
                let mut out = [0f32];
                let bytes = (code as u16).to_le_bytes();
                mistique_quantize::to_f32(codes.code(), &bytes, &mut out)
                    .map_err(|source| EngineError::Quantize { key: "codes".into(), source })?;
                Ok(f64::from(out[0]))
            }
        }
    };
    let mut out = Vec::with_capacity(counts.len());
    for counts in counts {
        let mut values = Values::default();
        for (i, n) in counts.into_iter().enumerate().filter(|(_, n)| *n > 0) {
            let v = value(i)?;
            if v.is_finite() {
                values.finite.push((v + 0.0, n));
            } else {
                values.n_nan += if v.is_nan() { n } else { 0 };
                values.n_infinite += if v.is_nan() { 0 } else { n };
            }
        }
        values.finite.sort_by(|a, b| a.0.total_cmp(&b.0));
        out.push(values);
    }
    Ok(Some((out, n_ungrouped)))
}

fn count(counts: &mut [u64], code: usize) {
    if let Some(n) = counts.get_mut(code) {
        *n += 1;
    }
}

/// Values of a group and how often each occurs, ascending.
#[derive(Debug, Clone, Default)]
struct Values {
    finite: Vec<(f64, u64)>,
    n_nan: u64,
    n_infinite: u64,
}

fn from_counts(counts: &[Values], groups: &Groups, n_bins: usize, quantiles: &[f64]) -> Vec<Distribution> {
    let all = counts.first().map_or(&[][..], |v| &v.finite);
    let range = all.first().zip(all.last()).map(|(a, b)| (a.0, b.0));
    let (min, max) = range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
    let binning = Binning::new(min, max, n_bins);
    let order: Vec<usize> = std::iter::once(0).chain(groups.sorted().into_iter().map(|g| g + 1)).collect();
    let mut out = Vec::with_capacity(order.len());
    for g in order {
        let Some(values) = counts.get(g) else { continue };
        let n: u64 = values.finite.iter().map(|v| v.1).sum();
        let mut histogram = binning.empty(values.n_nan, values.n_infinite);
        values.finite.iter().for_each(|(v, n)| binning.count_n(*v, *n, &mut histogram));
        let mean = values.finite.iter().map(|(v, n)| v * *n as f64).sum::<f64>() / n as f64;
        let m2: f64 = values.finite.iter().map(|(v, n)| (v - mean).powi(2) * *n as f64).sum();
        let mut ends = Vec::with_capacity(values.finite.len());
        values.finite.iter().fold(0, |sum, (_, n)| {
            ends.push(sum + n);
            sum + n
        });
        let at = |rank: u64| {
            let i = ends.partition_point(|end| *end <= rank);
            values.finite.get(i).map_or(f64::NAN, |v| v.0)
        };
        let quantile = |q: f64| {
            let place = q * n.saturating_sub(1) as f64;
            (q, lerp(at(place.floor() as u64), at(place.ceil() as u64), place - place.floor()))
        };
        let some = n > 0;
        out.push(Distribution {
            group: g.checked_sub(1).map(|g| groups.name(g).to_string()),
            n,
            mean: some.then_some(mean),
            std: some.then(|| (m2 / n as f64).sqrt()),
            range: values.finite.first().zip(values.finite.last()).map(|(a, b)| (a.0, b.0)),
            quantiles: if some { quantiles.iter().map(|q| quantile(*q)).collect() } else { Vec::new() },
            histogram,
        });
    }
    out
}

/// numpy's interpolation: from the nearer end.
fn lerp(a: f64, b: f64, t: f64) -> f64 {
    let d = b - a;
    if d.is_infinite() {
        return a * (1.0 - t) + b * t;
    }
    if t >= 0.5 { b - d * (1.0 - t) } else { a + d * t }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order_and_come_back() {
        let v = [f64::MIN, -2.0, -1e-300, 0.0, 1e-300, 1.0, f64::MAX];
        assert!(v.map(key).is_sorted());
        assert_eq!(v.map(key).map(from_key), v);
        assert_eq!(key(-0.0), key(0.0));
    }

    #[test]
    fn large_sums_as_text() {
        let big = 1i128 << 60;
        assert_eq!(
            [0.0, 2.5, 5.0].map(|v| sum_text(big, v)),
            ["1152921504606846976", "1152921504606846978.5", "1152921504606846981"]
        );
        assert_eq!(
            [0.0, 2.25, 3.0].map(|v| sum_text(-big, v)),
            ["-1152921504606846976", "-1152921504606846973.75", "-1152921504606846973"]
        );
    }

    #[test]
    fn between_values_whose_difference_overflows() {
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|t| lerp(-1e308, 1e308, t)), [-1e308, -5e307, 0.0, 1e308]);
    }

    #[test]
    fn every_rank_is_found() {
        let values: Vec<f64> = (0..999).map(|i| f64::from((i * 7919 % 997) - 500) / 3.0).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let mut search = Search::new((0..999).collect());
        for level in 0..4 {
            search.begin();
            values.iter().for_each(|v| search.add(key(*v), level));
            search.end();
        }
        assert!((0..999).all(|r| search.value(r) == sorted[r as usize]));
    }
}
