//! The by-example index (DeepEverest, VLDB 2022, section 4): for each unit, in which range of its activations every row
//! lies (the Neural Partition Index), and of a top share of the rows the activation itself (the Maximum Activation Index).

use rayon::prelude::*;

use super::{IndexKind, NewIndex};
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

    /// Appends the activations of units whose maps of `cells` values follow each other.
    pub fn reduce(self, maps: &[f32], cells: usize, out: &mut Vec<f32>) {
        let maps_of = maps.chunks_exact(cells.max(1));
        match self {
            Self::Cells => out.extend_from_slice(maps),
            Self::Max => {
                out.extend(maps_of.map(|m| m.iter().fold(f32::NAN, |a, &v| if v > a || a.is_nan() { v } else { a })))
            }
            Self::Mean => out
                .extend(maps_of.map(|m| (m.iter().copied().map(f64::from).sum::<f64>() / cells.max(1) as f64) as f32)),
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
    /// Rows whose activation itself is kept.
    pub n_top: usize,
}

impl ByExampleSize {
    /// The finest that takes at most `budget_bytes` for `n_columns` columns of `n_rows` rows, the file's own bytes
    /// included; `None` where not even one bit fits.
    pub fn within(n_rows: usize, n_columns: usize, rows: &RowSet, budget_bytes: f64) -> Option<Self> {
        let of_file = INDEX_HEADER_LEN + INDEX_ENTRY_LEN + rows.to_bytes().len();
        let of_column =
            (budget_bytes - of_file as f64) / n_columns.max(1) as f64 - (INDEX_ENTRY_LEN + FIXED_LEN) as f64;
        let left = |bits: u8| of_column - ((PAIR_LEN << bits) + (n_rows * usize::from(bits)).div_ceil(8)) as f64;
        let least = |bits: u8| if bits == 1 { 0.0 } else { LEAST_TOP_SHARE * (n_rows * PAIR_LEN) as f64 };
        let bits = (1..=MAX_PARTITION_BITS).rev().find(|b| left(*b) >= least(*b))?;
        let n_top = (left(bits) / PAIR_LEN as f64).min(TOP_SHARE * n_rows as f64) as usize;
        Some(Self { bits, n_top })
    }
}

/// Of which values a by-example index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByExampleOf {
    /// What of a unit's map is its activation.
    pub by: MapValue,
    /// Whether of the model's own values, at the resolution of the layer; else of those that READ gives.
    pub exact: bool,
}

impl ByExampleOf {
    /// How `params` say which values they are.
    pub fn values(self) -> &'static str {
        if self.exact { "exact" } else { "stored" }
    }

    fn params(self, size: ByExampleSize, n_rows: usize) -> String {
        let (by, values, bits, top) = (self.by.name(), self.values(), size.bits, size.n_top);
        format!(r#"{{"by":"{by}","values":"{values}","bits":{bits},"top":{top},"rows":{n_rows}}}"#)
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
    let params = of.params(size, rows.len());
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
    let starts = partitions(&sorted, (1 << size.bits) - usize::from(has_nan));
    let n_partitions = starts.len() + usize::from(has_nan);
    let n_top = size.n_top.min(order.len());
    let mut out = vec![size.bits, 0];
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
    let at = out.len();
    let bits = usize::from(size.bits);
    out.resize(at + (values.len() * bits).div_ceil(8), 0);
    for (i, code) in codes.iter().enumerate() {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let wide = u16::from(*code) << shift;
        out[at + byte] |= wide as u8;
        if wide > 0xff {
            out[at + byte + 1] |= (wide >> 8) as u8;
        }
    }
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
        let (bits, reserved) = (*bytes.first()?, *bytes.get(1)?);
        let (n_partitions, n_top) = (usize::from(bytes.u16_at(2)?), bytes.u32_at(4)? as usize);
        let wanted = 1..=MAX_PARTITION_BITS;
        if !wanted.contains(&bits) || reserved != 0 || n_partitions > 1 << bits || n_top > n_rows {
            return None;
        }
        let codes_at = FIXED_LEN + (n_partitions + n_top) * PAIR_LEN;
        let bits = usize::from(bits);
        if bytes.len() != codes_at + (n_rows * bits).div_ceil(8) {
            return None;
        }
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
        let packed = bytes.get(codes_at..)?;
        let byte = |i: usize| packed.get(i).copied().map_or(0, u16::from);
        let mask = (1u16 << bits) - 1;
        let code = |i: usize| {
            let (at, shift) = (i * bits / 8, i * bits % 8);
            ((byte(at) | byte(at + 1) << 8) >> shift & mask) as u8
        };
        let codes: Vec<u8> = (0..n_rows).map(code).collect();
        let known = codes.iter().all(|c| usize::from(*c) < n_partitions);
        let spare = n_rows * bits % 8;
        let clean = spare == 0 || packed.last().is_none_or(|last| last >> spare == 0);
        (known && clean).then_some(Self { bounds, top, codes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF: ByExampleOf = ByExampleOf { by: MapValue::Max, exact: true };

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
            prop_assert_eq!(&top[..], &sorted[..n_top.min(sorted.len())]);
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
        for (n_rows, n_columns, cells) in
            [(10_000, 512, 1), (1000, 64, 1), (400, 10, 1), (50_000, 4096, 1), (2000, 64, 1024)]
        {
            let rows = RowSet::Range(0..n_rows as u64);
            let budget = 0.2 * (n_rows * n_columns * cells * 4) as f64;
            let size = ByExampleSize::within(n_rows, n_columns, &rows, budget).unwrap();
            let values: Vec<f32> = (0..n_rows * n_columns).map(|i| (i * 7919 % 104_729) as f32).collect();
            let values = &values[..n_rows * n_columns.min(64)];
            let ids: Vec<u64> = (0..n_rows as u64).collect();
            let index = by_example_index(&ids, values, n_columns.min(64), size, OF).unwrap();
            let bytes = index.to_bytes(1).len() * n_columns / n_columns.min(64);
            assert!(bytes as f64 <= budget * 1.01, "{n_rows} {n_columns}: {bytes} of {budget}");
            assert!(cells > 1 || bytes as f64 > budget * 0.6, "{n_rows} {n_columns}: {bytes} of {budget}");
        }
        assert_eq!(ByExampleSize::within(20, 4, &RowSet::Range(0..20), 0.2 * 320.0), None);
    }

    #[test]
    fn maps_are_reduced() {
        let mut out = Vec::new();
        let maps = [1.0, f32::NAN, -3.0, -4.0];
        MapValue::Max.reduce(&maps, 2, &mut out);
        MapValue::Mean.reduce(&maps[2..], 2, &mut out);
        MapValue::Cells.reduce(&maps[2..], 2, &mut out);
        assert_eq!(out, [1.0, -3.0, -3.5, -3.0, -4.0]);
    }
}
