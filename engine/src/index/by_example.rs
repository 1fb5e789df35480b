//! The by-example index (DeepEverest, VLDB 2022, section 4): for each unit, in which range of its activations every row
//! lies (the Neural Partition Index), and of a top share of the rows the activation itself (the Maximum Activation Index).

use mistique_quantize::{pack, packed_len, unpack};
use rayon::prelude::*;

use super::{IndexKind, IndexValues, NewIndex};
use crate::error::{EngineError, Result};
use crate::format::{INDEX_ENTRY_LEN, INDEX_HEADER_LEN, Le, MAX_PARTITION_BITS};
use crate::rows::RowSet;

/// Bytes of a column before its bounds.
const FIXED_LEN: usize = 8;
/// Bytes of a partition's bounds, and of a row of the top share.
const PAIR_LEN: usize = 8;
/// Most rows of a column whose activation itself is kept.
const TOP_SHARE: f64 = 0.05;
/// Bits of a partition's number go before the top share as long as the latter keeps so many rows.
const LEAST_TOP_SHARE: f64 = 0.01;

/// What of a unit's map is its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapValue {
    /// The largest value; NaN where there is none but NaN.
    #[default]
    Max,
    /// The mean.
    Mean,
    /// Every cell by itself.
    Cells,
}

impl MapValue {
    /// All.
    pub const ALL: [Self; 3] = [Self::Max, Self::Mean, Self::Cells];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Cells => "cells",
        }
    }

    /// Appends the activations of units whose maps of `cells` values follow each other; `narrow` rounds a mean, or a NaN.
    pub fn reduce<T: Copy + PartialOrd + Into<f64>>(
        self,
        maps: &[T],
        cells: usize,
        narrow: impl Fn(f64) -> T,
        out: &mut Vec<T>,
    ) {
        let maps_of = maps.chunks_exact(cells.max(1));
        let nan = narrow(f64::NAN);
        let larger = |a: T, v: T| if v > a || a.into().is_nan() { v } else { a };
        match self {
            Self::Cells => out.extend_from_slice(maps),
            Self::Max => out.extend(maps_of.map(|m| m.iter().copied().fold(nan, larger))),
            Self::Mean => {
                let sum = |m: &[T]| m.iter().map(|v| (*v).into()).sum::<f64>();
                out.extend(maps_of.map(|m| narrow(sum(m) / cells.max(1) as f64)));
            }
        }
    }
}

impl std::str::FromStr for MapValue {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|v| v.name() == text).ok_or_else(|| EngineError::Invalid {
            what: "value of a map",
            given: text.to_string(),
            why: "expected max, mean or cells".into(),
        })
    }
}

/// How much a column of a by-example index keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByExampleSize {
    /// Bits of a partition's number: a unit's activations fall into 2^bits ranges at most.
    pub bits: u8,
    /// Rows whose activation itself is kept, of those above the unit's floor.
    pub n_top: usize,
}

impl ByExampleSize {
    /// Whether an index of `n_columns` columns of the rows has room in `budget_bytes`, whatever their values are.
    pub fn has_room(rows: &RowSet, n_columns: usize, budget_bytes: f64) -> bool {
        let full = Floor { value: f32::NAN, n_rows: 0 };
        let one = Self { bits: 1, n_top: 0 };
        of_file(rows) + (n_columns * (INDEX_ENTRY_LEN + one.column_len(rows.len(), full))) as f64 <= budget_bytes
    }

    /// The finest that takes at most `budget_bytes` for these values (as those of [`by_example_index`]), the file's own
    /// bytes included; the coarsest where none does.
    pub fn within(rows: &[u64], values: &[f32], n_columns: usize, budget_bytes: f64) -> Self {
        let n_rows = rows.len();
        let floors = Floor::of_columns(values, n_columns);
        let of_columns = budget_bytes - of_file(&RowSet::from_ids(rows)) - (n_columns * INDEX_ENTRY_LEN) as f64;
        let left = |bits: u8| {
            let one = Self { bits, n_top: 0 };
            of_columns - floors.iter().map(|f| one.column_len(n_rows, *f)).sum::<usize>() as f64
        };
        // Units that are the same for all rows have no top.
        let live = floors.iter().filter(|f| f.n_rows < n_rows).count();
        let of_top = (PAIR_LEN * live.max(1)) as f64;
        let least = LEAST_TOP_SHARE * n_rows as f64 * of_top;
        let bits = (2..=MAX_PARTITION_BITS).rev().find(|b| left(*b) >= least).unwrap_or(1);
        let n_top = (left(bits) / of_top).min(TOP_SHARE * n_rows as f64).max(0.0) as usize;
        Self { bits, n_top }
    }

    /// Most bytes of a column's section.
    fn column_len(self, n_rows: usize, floor: Floor) -> usize {
        let above = n_rows - floor.n_rows;
        let codes = floor.apart_len(n_rows, self.bits).min(packed_len(self.bits.into(), n_rows));
        FIXED_LEN + PAIR_LEN * ((above + 1).min(1 << self.bits) + self.n_top.min(above)) + codes
    }
}

fn of_file(rows: &RowSet) -> f64 {
    (INDEX_HEADER_LEN + INDEX_ENTRY_LEN + rows.to_bytes().len()) as f64
}

/// The smallest activation of a unit (0 after a ReLU), and how many rows have it.
#[derive(Debug, Clone, Copy)]
struct Floor {
    value: f32,
    n_rows: usize,
}

impl Floor {
    fn of_columns(values: &[f32], n_columns: usize) -> Vec<Self> {
        let mut floors = vec![Self { value: f32::NAN, n_rows: 0 }; n_columns];
        for row in values.chunks_exact(n_columns.max(1)) {
            floors.iter_mut().zip(row).for_each(|(floor, v)| floor.add(*v));
        }
        floors
    }

    fn add(&mut self, value: f32) {
        if value < self.value || self.value.is_nan() {
            *self = Self { value, n_rows: usize::from(!value.is_nan()) };
        } else if value == self.value {
            self.n_rows += 1;
        }
    }

    /// Bytes of a bit for each row that says whether it lies above the floor, and of numbers of those that do.
    fn apart_len(self, n_rows: usize, bits: u8) -> usize {
        packed_len(1, n_rows) + packed_len(bits.into(), n_rows - self.n_rows)
    }

    /// Whether that is less than numbers for all.
    fn is_apart(self, n_rows: usize, bits: u8) -> bool {
        self.apart_len(n_rows, bits) < packed_len(bits.into(), n_rows)
    }
}

/// Of which values a by-example index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByExampleOf {
    /// What of a unit's map is its activation.
    pub by: MapValue,
    /// Whose values.
    pub values: IndexValues,
}

impl ByExampleOf {
    fn params(self, n_rows: usize) -> String {
        let (by, values) = (self.by.name(), self.values.name());
        format!(r#"{{"by":"{by}","values":"{values}","rows":{n_rows}}}"#)
    }
}

/// The index of a matrix of activations. `values` has one row for each of `rows`, in any order; the index has them by
/// row_id.
///
/// Errors: `Shape` when `values` has another size.
pub fn by_example_index(
    rows: &[u64],
    values: &[f32],
    n_columns: usize,
    size: ByExampleSize,
    of: ByExampleOf,
) -> Result<NewIndex> {
    let params = of.params(rows.len());
    if values.len() != rows.len() * n_columns {
        return Err(EngineError::Shape {
            key: "index".into(),
            what: "activations",
            expected: format!("{} rows of {n_columns}", rows.len()),
            got: values.len().to_string(),
        });
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|i| rows[*i]);
    let ids: Vec<u64> = order.iter().map(|i| rows[*i]).collect();
    // A few columns at a time: one pass over the rows serves them all.
    let columns: Vec<usize> = (0..n_columns).collect();
    let sections = columns.par_chunks(16).flat_map_iter(|some| {
        let mut of: Vec<Vec<f32>> = some.iter().map(|_| Vec::with_capacity(rows.len())).collect();
        for &i in &order {
            let row = &values[i * n_columns..][..n_columns];
            of.iter_mut().zip(some).for_each(|(column, &c)| column.push(row[c]));
        }
        of.into_iter().map(|column| encode(&column, size)).collect::<Vec<_>>()
    });
    Ok(NewIndex { kind: IndexKind::ByExample, params, rows: RowSet::from_ids(&ids), sections: sections.collect() })
}

/// Cuts sorted values into at most `most` ranges of about equally many; equal values stay together. Returns the first
/// position of each range.
fn partitions(sorted: &[f32], most: usize) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut start = 0;
    while start < sorted.len() {
        starts.push(start);
        if starts.len() == most {
            break;
        }
        let depth = (sorted.len() - start).div_ceil(most + 1 - starts.len());
        let end_of_run = |at: usize| at + sorted[at..].partition_point(|v| *v <= sorted[at]);
        let start_of_run = |at: usize| sorted.partition_point(|v| *v < sorted[at]);
        // The run of equal values at the cut goes wholly to the side where more of it is; a long one stands alone.
        let cut = (start + depth - 1).min(sorted.len() - 1);
        let (run, end) = (start_of_run(cut).max(start), end_of_run(cut));
        start = if run > start && (end - run >= depth || end - start > depth + depth / 2) { run } else { end };
    }
    starts
}

/// A column's section.
fn encode(values: &[f32], size: ByExampleSize) -> Vec<u8> {
    let mut order: Vec<u32> = (0..values.len() as u32).filter(|i| !values[*i as usize].is_nan()).collect();
    // Equal values by position, so that the file depends on nothing but the values; −0 equals 0.
    order.sort_unstable_by(|a, b| {
        let (x, y) = (values[*a as usize], values[*b as usize]);
        x.partial_cmp(&y).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b))
    });
    let sorted: Vec<f32> = order.iter().map(|i| values[*i as usize]).collect();
    let has_nan = order.len() < values.len();
    let value = sorted.first().copied().unwrap_or(f32::NAN);
    let floor = Floor { value, n_rows: sorted.partition_point(|v| *v <= value) };
    let apart = floor.is_apart(values.len(), size.bits);
    let most = (1 << size.bits) - usize::from(has_nan);
    let starts = match apart {
        // The floor is the first partition, and the others are divided among the rest.
        true => std::iter::once(0)
            .chain(partitions(&sorted[floor.n_rows..], most - 1).into_iter().map(|start| floor.n_rows + start))
            .collect(),
        false => partitions(&sorted, most),
    };
    let n_partitions = starts.len() + usize::from(has_nan);
    let n_top = size.n_top.min(order.len() - floor.n_rows);
    let mut out = vec![size.bits, u8::from(apart)];
    out.extend_from_slice(&(n_partitions as u16).to_le_bytes());
    out.extend_from_slice(&(n_top as u32).to_le_bytes());
    let mut codes = vec![starts.len() as u8; values.len()];
    let ends = starts.iter().skip(1).copied().chain([sorted.len()]);
    for (number, (start, end)) in starts.iter().copied().zip(ends).enumerate() {
        let (low, high) = (sorted[start], sorted[end - 1]);
        out.extend_from_slice(&low.to_le_bytes());
        out.extend_from_slice(&high.to_le_bytes());
        order[start..end].iter().for_each(|i| codes[*i as usize] = number as u8);
    }
    if has_nan {
        out.extend_from_slice(&f32::INFINITY.to_le_bytes());
        out.extend_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    }
    let top = &order[order.len() - n_top..];
    top.iter().rev().for_each(|i| out.extend_from_slice(&i.to_le_bytes()));
    top.iter().rev().for_each(|i| out.extend_from_slice(&values[*i as usize].to_le_bytes()));
    if apart {
        let above: Vec<u8> = codes.iter().map(|c| u8::from(*c > 0)).collect();
        pack(1, &above, &mut out);
        codes.retain(|c| *c > 0);
    }
    pack(size.bits.into(), &codes, &mut out);
    out
}

/// What is known of one column's activations.
#[derive(Debug, Clone, PartialEq)]
pub struct ByExampleColumn {
    /// Smallest and largest activation of each range; +∞ and −∞ for that of rows that are NaN.
    pub bounds: Vec<(f32, f32)>,
    /// Rows (by their place among those of the index) whose activation is known, highest first.
    pub top: Vec<(u32, f32)>,
    /// The range of each row.
    pub codes: Vec<u8>,
}

impl ByExampleColumn {
    /// Reads a section; `None` for what is none.
    pub fn parse(bytes: &[u8], n_rows: usize) -> Option<Self> {
        let (bits, apart) = (*bytes.first()?, *bytes.get(1)?);
        let (n_partitions, n_top) = (usize::from(bytes.u16_at(2)?), bytes.u32_at(4)? as usize);
        let wanted = 1..=MAX_PARTITION_BITS;
        if !wanted.contains(&bits) || apart > 1 || n_partitions > 1 << bits || n_top > n_rows {
            return None;
        }
        let codes_at = FIXED_LEN + (n_partitions + n_top) * PAIR_LEN;
        let packed = bytes.get(codes_at..)?;
        let float = |at: usize| bytes.u32_at(at).map(f32::from_bits);
        let pair = |i: usize| Some((float(FIXED_LEN + PAIR_LEN * i)?, float(FIXED_LEN + PAIR_LEN * i + 4)?));
        let bounds: Vec<(f32, f32)> = (0..n_partitions).map(pair).collect::<Option<_>>()?;
        if bounds.iter().any(|(low, high)| low.is_nan() || high.is_nan()) {
            return None;
        }
        let top_at = FIXED_LEN + n_partitions * PAIR_LEN;
        let one = |i: usize| Some((bytes.u32_at(top_at + 4 * i)?, float(top_at + 4 * (n_top + i))?));
        let top: Vec<(u32, f32)> = (0..n_top).map(one).collect::<Option<_>>()?;
        if top.iter().any(|(row, value)| *row as usize >= n_rows || value.is_nan()) {
            return None;
        }
        let bits = u32::from(bits);
        let mut codes = vec![0; n_rows];
        if apart == 1 {
            let (above, packed) = packed.split_at_checked(packed_len(1, n_rows))?;
            unpack(1, above, &mut codes).ok()?;
            let mut numbers = vec![0; codes.iter().filter(|a| **a == 1).count()];
            unpack(bits, packed, &mut numbers).ok()?;
            codes.iter_mut().filter(|a| **a == 1).zip(numbers).for_each(|(code, number)| *code = number);
        } else {
            unpack(bits, packed, &mut codes).ok()?;
        }
        let known = codes.iter().all(|c| usize::from(*c) < n_partitions);
        known.then_some(Self { bounds, top, codes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF: ByExampleOf = ByExampleOf { by: MapValue::Max, values: IndexValues::Exact };

    fn column(values: &[f32], bits: u8, n_top: usize) -> ByExampleColumn {
        let bytes = encode(values, ByExampleSize { bits, n_top });
        ByExampleColumn::parse(&bytes, values.len()).unwrap()
    }

    proptest! {
        #[test]
        fn every_row_lies_in_its_range(
            values in proptest::collection::vec(prop_oneof![
                3 => Just(0.0f32), 1 => Just(-0.0), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY),
                1 => Just(f32::NEG_INFINITY), 6 => -9.0f32..9.0,
            ], 0..300),
            bits in 1u8..=8,
            n_top in 0usize..40,
        ) {
            let column = column(&values, bits, n_top);
            prop_assert_eq!(column.codes.len(), values.len());
            prop_assert!(column.bounds.len() <= 1 << bits);
            for (value, code) in values.iter().zip(&column.codes) {
                let (low, high) = column.bounds[usize::from(*code)];
                prop_assert!(value.is_nan() && low > high || low <= *value && *value <= high);
            }
            let mut sorted: Vec<f32> = values.iter().copied().filter(|v| !v.is_nan()).collect();
            sorted.sort_by(|a, b| b.partial_cmp(a).unwrap());
            let top: Vec<f32> = column.top.iter().map(|t| t.1).collect();
            let above = sorted.iter().filter(|v| Some(*v) > sorted.last()).count();
            prop_assert_eq!(&top[..], &sorted[..n_top.min(above)]);
            prop_assert!(column.top.iter().all(|(i, v)| values[*i as usize] == *v));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), n in 0usize..40) {
            let _ = ByExampleColumn::parse(&bytes, n);
        }
    }

    #[test]
    fn ranges_are_of_equal_depth_and_equal_values_stay_together() {
        let of = |values: &[f32], most| partitions(values, most);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 4), [0, 2, 4, 6]);
        // Half are zeros: they stand alone, and the others are divided among the rest.
        let relu: Vec<f32> = (0..8).map(|_| 0.0).chain((1..=6).map(|v| v as f32)).collect();
        assert_eq!(of(&relu, 4), [0, 8, 10, 12]);
        assert_eq!(of(&[1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 4.0, 5.0], 4), [0, 2, 7, 8]);
        assert_eq!(of(&[7.0; 5], 4), [0]);
        assert_eq!(of(&[], 4), [0usize; 0]);
    }

    #[test]
    fn sizes_keep_within_the_budget() {
        for (n_rows, n_columns, cells, zeros) in [
            (10_000, 512, 1, 0),
            (10_000, 512, 1, 68),
            (1000, 64, 1, 10),
            (400, 10, 1, 0),
            (5000, 300, 1, 100),
            (2000, 64, 1024, 50),
        ] {
            let ids: Vec<u64> = (0..n_rows as u64).collect();
            let budget = 0.2 * (n_rows * n_columns * cells * 4) as f64;
            assert!(ByExampleSize::has_room(&RowSet::Range(0..n_rows as u64), n_columns, budget));
            let value = |i: usize| if i * 31 % 100 < zeros { 0.0 } else { (1 + i * 7919 % 104_729) as f32 };
            let values: Vec<f32> = (0..n_rows * n_columns).map(value).collect();
            let size = ByExampleSize::within(&ids, &values, n_columns, budget);
            let bytes = by_example_index(&ids, &values, n_columns, size, OF).unwrap().to_bytes(1).len() as f64;
            assert!(bytes <= budget, "{n_rows} {n_columns}: {bytes} of {budget}");
            let is_fine = size.bits == MAX_PARTITION_BITS || bytes > budget * 0.75;
            assert!(is_fine, "{n_rows} {n_columns}: {bytes} of {budget}");
        }
        assert!(!ByExampleSize::has_room(&RowSet::Range(0..20), 4, 0.2 * 320.0));
    }

    #[test]
    fn rows_at_the_floor_stand_apart() {
        // 12 of 16 rows are 0: a bit for each and 2 bits for four rows are 3 bytes, 2 bits for all would be 4.
        let mut values = vec![0.0; 16];
        for (at, value) in [(3, 5.0), (4, f32::NAN), (9, 1.0), (15, 7.0)] {
            values[at] = value;
        }
        let bytes = encode(&values, ByExampleSize { bits: 2, n_top: 9 });
        // Floor, 1 to 5, 7 (or 1, 5 to 7), NaN; the top are the three rows above the floor.
        assert_eq!((&bytes[..8], bytes.len()), (&[2, 1, 4, 0, 3, 0, 0, 0][..], 8 + 8 * (4 + 3) + 2 + 1));
        assert_eq!(bytes[8 + 8 * 7..][..2], [0b0001_1000, 0b1000_0010]);
        let column = ByExampleColumn::parse(&bytes, 16).unwrap();
        assert_eq!(column.bounds[0], (0.0, 0.0));
        assert_eq!(column.top, [(15, 7.0), (3, 5.0), (9, 1.0)]);
        assert_eq!([0, 3, 4, 9, 15].map(|i| column.codes[i]), [0, column.codes[3], 3, 1, 2]);
        // A unit that is dead costs a bit a row.
        assert_eq!(encode(&[0.0; 80], ByExampleSize { bits: 8, n_top: 9 }).len(), 8 + 8 + 10);
        assert!(ByExampleColumn::parse(&bytes[..bytes.len() - 1], 16).is_none());
    }

    #[test]
    fn maps_are_reduced() {
        let mut out = Vec::new();
        let maps = [1.0, f32::NAN, -3.0, -4.0];
        MapValue::Max.reduce(&maps, 2, |v| v as f32, &mut out);
        MapValue::Mean.reduce(&maps[2..], 2, |v| v as f32, &mut out);
        MapValue::Cells.reduce(&maps[2..], 2, |v| v as f32, &mut out);
        assert_eq!(out, [1.0, -3.0, -3.5, -3.0, -4.0]);
    }
}
