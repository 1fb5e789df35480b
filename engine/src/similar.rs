//! Which stored columns are like a new one: MinHash over discretised values, and an index of its bands (5.4.2).
//!
//! A value is discretised by its rank among the chunk's own, so that columns that were scaled, rounded, or whose nulls
//! were filled stay alike, as do the predictions of models of near hyperparameters. The most frequent value says nothing:
//! without it, two columns of mostly zeros are not alike. What is hashed are (row, rank) pairs.

use std::collections::HashMap;

use mistique_quantize::Code;
use probabilistic_collections::SipHasherBuilder;
use probabilistic_collections::similarity::MinHash;
use twox_hash::XxHash3_64;

use crate::catalog::{Catalog, LshRow};
use crate::error::Result;

/// Similarity from which on a chunk is likely to be found.
pub const THRESHOLD: f64 = 0.5;
/// Hashes of a signature.
const HASHES: usize = 24;
/// Rows that a signature looks at.
const SAMPLE: usize = 256;
/// Ranks that are told apart.
const RANKS: usize = 16;
/// Chunks that are looked at for one band.
const MOST_PER_BAND: usize = 8;
/// Band of the hash of a column's name: the same column of another stage is the likeliest of all.
const NAME_BAND: u8 = 0;

/// A (row, rank) pair.
type Item = (u32, u32);

/// How many bands of how many hashes find chunks of similarity τ with probability one half or more: n = bands × rows, where
/// (1 / bands)^(1 / rows) is nearest to τ.
pub fn bands_for(threshold: f64, n_hashes: usize) -> (usize, usize) {
    let splits = (1..=n_hashes).filter(|rows| n_hashes.is_multiple_of(*rows)).map(|rows| (n_hashes / rows, rows));
    let off = |(bands, rows): &(usize, usize)| ((1.0 / *bands as f64).powf(1.0 / *rows as f64) - threshold).abs();
    splits.min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or((n_hashes, 1))
}

/// What a column's chunk is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// Its places in the index, one a band.
    places: Vec<i64>,
}

/// Makes sketches; always the same of the same column.
pub struct Sketcher {
    minhash: MinHash<std::vec::IntoIter<Item>, Item>,
    rows: usize,
}

impl Default for Sketcher {
    fn default() -> Self {
        // Fixed seeds: what one process wrote, another one has to find.
        let seeds = [SipHasherBuilder::from_seed(0x6D69, 0x7374), SipHasherBuilder::from_seed(0x6971, 0x7565)];
        Self { minhash: MinHash::with_hashers(HASHES, seeds), rows: bands_for(THRESHOLD, HASHES).1 }
    }
}

impl Sketcher {
    /// The sketch of a column; `rows` and `name` are hashes of its row_ids and of its name.
    pub fn sketch(&self, code: Code, codes: &[u8], validity: Option<&[u8]>, rows: u64, name: u64) -> Sketch {
        let mut places = vec![place(rows, NAME_BAND, name)];
        let items = items(code, codes, validity);
        // Of no items there is no smallest hash.
        if !items.is_empty() {
            let hashes = self.minhash.get_min_hashes(items.into_iter());
            for (band, part) in (1u8..).zip(hashes.chunks(self.rows)) {
                let bytes: Vec<u8> = part.iter().flat_map(|h| h.to_le_bytes()).collect();
                places.push(place(rows, band, XxHash3_64::oneshot(&bytes)));
            }
        }
        Sketch { places }
    }
}

/// Where a band's hash lies in the index: 16 bits of the hash of the row_ids, 4 of the band, 28 of its hash. Columns of the
/// same rows lie side by side, so that look-ups for one RowBlock stay on few pages of the index, however large it is. Less
/// than 2^47 either way: SQLite keeps it in six bytes.
fn place(rows: u64, band: u8, hash: u64) -> i64 {
    let rows = (rows >> 48).cast_signed() - (1 << 15);
    rows << 32 | i64::from(band & 15) << 28 | (hash & 0xFFF_FFFF).cast_signed()
}

/// The (row, rank) pairs of a sample of rows.
fn items(code: Code, codes: &[u8], validity: Option<&[u8]>) -> Vec<Item> {
    let width = code.width();
    let n_rows = codes.len() / width;
    let step = n_rows.div_ceil(SAMPLE).max(1);
    // Nulls come first, as 0.
    let value = |row: usize| -> u64 {
        if validity.is_some_and(|v| v.get(row) == Some(&0)) {
            return 0;
        }
        let mut word = [0; 8];
        let bytes = codes.get(row * width..(row + 1) * width).unwrap_or_default();
        word[..bytes.len()].copy_from_slice(bytes);
        ordered(code, u64::from_le_bytes(word)).saturating_add(1)
    };
    let mut sorted: Vec<(u64, u32)> = (0..n_rows).step_by(step).map(|row| (value(row), row as u32)).collect();
    sorted.sort_unstable();
    let runs: Vec<&[(u64, u32)]> = sorted.chunk_by(|a, b| a.0 == b.0).collect();
    let frequent = runs.iter().enumerate().filter(|(_, run)| run.len() > 1);
    let most = frequent.max_by_key(|(i, run)| (run.len(), usize::MAX - i)).map(|(i, _)| i);
    let left = sorted.len() - most.and_then(|i| runs.get(i)).map_or(0, |run| run.len());
    let mut items = Vec::with_capacity(left);
    let mut before = 0;
    for (i, run) in runs.iter().enumerate() {
        if Some(i) == most {
            continue;
        }
        let rank = (2 * before + run.len()) * RANKS / (2 * left.max(1));
        items.extend(run.iter().map(|(_, row)| (*row, rank as u32)));
        before += run.len();
    }
    items
}

/// A number that grows with the code's value.
fn ordered(code: Code, bits: u64) -> u64 {
    let top = 1u64 << (8 * code.width() - 1);
    match code {
        Code::F16 | Code::BF16 | Code::F32 | Code::F64 if bits & top != 0 => !bits & (top | (top - 1)),
        Code::F16 | Code::BF16 | Code::F32 | Code::F64 => bits | top,
        Code::Int(_) => bits ^ top,
        Code::Bit | Code::Kbit(_) => bits,
    }
}

/// Each chunk once, those found most often first, of those the newest.
fn by_bands_shared(found: Vec<i64>) -> Vec<i64> {
    let mut shared: HashMap<i64, usize> = HashMap::new();
    for chunk in found {
        *shared.entry(chunk).or_default() += 1;
    }
    let mut found: Vec<(usize, i64)> = shared.into_iter().map(|(chunk, n)| (n, chunk)).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, chunk)| chunk).collect()
}

/// Sketches of the chunks of a log, and those in the catalogue.
#[derive(Default)]
pub struct SimilarIndex {
    /// Not yet committed.
    recent: HashMap<i64, Vec<i64>>,
    rows: Vec<LshRow>,
}

impl SimilarIndex {
    /// Chunks that share a band with the sketch, those that share most first, of those the newest.
    ///
    /// Errors: `Catalog`.
    pub fn candidates(&self, catalog: &Catalog, sketch: &Sketch) -> Result<Vec<i64>> {
        let mut found = Vec::new();
        for &place in &sketch.places {
            found.extend(self.recent_at(place));
            found.extend(catalog.similar_chunks(place, MOST_PER_BAND)?);
        }
        Ok(by_bands_shared(found))
    }

    /// As [`SimilarIndex::candidates`], of those not yet committed.
    pub fn among_recent(&self, sketch: &Sketch) -> Vec<i64> {
        by_bands_shared(sketch.places.iter().flat_map(|&place| self.recent_at(place)).collect())
    }

    /// Chunks of columns of those rows and that name (their hashes), the newest first.
    ///
    /// Errors: `Catalog`.
    pub fn of_name(&self, catalog: &Catalog, rows: u64, name: u64) -> Result<Vec<i64>> {
        let place = place(rows, NAME_BAND, name);
        let mut found: Vec<i64> = self.recent_at(place).collect();
        found.extend(catalog.similar_chunks(place, MOST_PER_BAND)?);
        Ok(found)
    }

    fn recent_at(&self, place: i64) -> impl Iterator<Item = i64> {
        let recent = self.recent.get(&place).map(Vec::as_slice).unwrap_or_default();
        recent.iter().rev().take(MOST_PER_BAND).copied()
    }

    /// Adds a chunk, in memory until [`SimilarIndex::take_rows`] and the commit.
    pub fn add(&mut self, sketch: &Sketch, chunk: i64) {
        for &place in &sketch.places {
            self.recent.entry(place).or_default().push(chunk);
            self.rows.push(LshRow { place, chunk });
        }
    }

    /// What a commit has to add to the catalogue.
    pub fn take_rows(&mut self) -> Vec<LshRow> {
        std::mem::take(&mut self.rows)
    }

    /// Called when the commit has reached the catalogue.
    pub fn committed(&mut self) {
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f64s(values: impl Iterator<Item = f64>) -> Vec<u8> {
        values.flat_map(f64::to_le_bytes).collect()
    }

    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11) as f64
            / (1u64 << 53) as f64
    }

    fn shared(a: &Sketch, b: &Sketch) -> usize {
        a.places.iter().filter(|place| b.places.contains(place)).count()
    }

    #[test]
    fn bands_follow_from_the_threshold() {
        assert_eq!(bands_for(0.5, 24), (8, 3));
        assert_eq!(bands_for(1.0, 24), (1, 24));
        assert_eq!(bands_for(0.05, 24), (24, 1));
        assert_eq!(bands_for(0.8, 24), (4, 6));
        // Found with probability 1 − (1 − τ^rows)^bands, at least a half at τ itself.
        let (bands, rows) = bands_for(THRESHOLD, HASHES);
        let found = |s: f64| 1.0 - (1.0 - s.powi(rows as i32)).powi(bands as i32);
        assert!(found(THRESHOLD) > 0.5 && found(0.9) > 0.99 && found(0.1) < 0.01);
    }

    #[test]
    fn like_columns_are_found_and_others_not() {
        let sketcher = Sketcher::default();
        let valid: Vec<u8> = (0..8192u64).map(|i| u8::from(!i.is_multiple_of(5))).collect();
        let base = f64s((0..8192).map(|i| if i % 5 == 0 { 0.0 } else { noise(i) }));
        let original = sketcher.sketch(Code::F64, &base, Some(&valid), 1, 1);
        assert_eq!(original, sketcher.sketch(Code::F64, &base, Some(&valid), 1, 1), "no chance is involved");
        let filled = f64s((0..8192).map(|i| if i % 5 == 0 { 0.437 } else { noise(i) }));
        let scaled = f64s((0..8192).map(|i| if i % 5 == 0 { 0.1 } else { (noise(i) - 0.5) / 0.29 }));
        let near = f64s((0..8192).map(|i| if i % 5 == 0 { 0.437 } else { noise(i) + 0.004 * noise(i + 9999) }));
        let other = f64s((0..8192).map(|i| noise(i + 1_000_000)));
        for (what, column, least, most) in
            [("filled", filled, 8, 8), ("scaled", scaled, 8, 8), ("near", near, 1, 8), ("other", other, 0, 0)]
        {
            let n = shared(&original, &sketcher.sketch(Code::F64, &column, None, 1, 2));
            assert!((least..=most).contains(&n), "{what}: {n} bands");
        }
        // The same name and rows are found whatever the values.
        let other = f64s((0..8192).map(|i| noise(i + 1_000_000)));
        assert_eq!(shared(&original, &sketcher.sketch(Code::F64, &other, None, 1, 1)), 1);
        // Columns of mostly one value are not alike for it; constants have a name alone.
        let flags = |k: u64| (0..8192u64).map(|i| u8::from(noise(i + k * 10_000) < 0.1)).collect::<Vec<u8>>();
        let [a, b] = [7, 8].map(|k| sketcher.sketch(Code::Bit, &flags(k), None, 1, k));
        assert_eq!(shared(&a, &b), 0);
        assert_eq!(sketcher.sketch(Code::Bit, &[1; 500], None, 1, 1).places.len(), 1);
        assert_eq!(sketcher.sketch(Code::Bit, &[], None, 1, 1).places.len(), 1);
    }

    #[test]
    fn columns_of_the_same_rows_lie_side_by_side() {
        let sketcher = Sketcher::default();
        let of = |rows: u64, salt: u64| {
            let column = f64s((0..1024).map(|i| noise(i + salt)));
            sketcher.sketch(Code::F64, &column, None, rows, salt).places
        };
        let [low, middle, high] = [1u64 << 48, 1 << 63, u64::MAX].map(|rows| [of(rows, 0), of(rows, 5000)].concat());
        for (a, b) in [(&low, &middle), (&middle, &high)] {
            assert!(a.iter().max() < b.iter().min(), "{a:?} {b:?}");
        }
        // The same column of other rows is not like it, and every place takes six bytes.
        assert!(low.iter().chain(&high).all(|place| place.abs() <= 1 << 47));
        assert_eq!(low.len(), 18);
    }

    #[test]
    fn the_estimate_is_the_similarity() {
        // An exact count of pairs as oracle; 24 hashes err by 0.1 (one standard deviation), of 40 pairs of columns the mean by
        // far less.
        let sketcher = Sketcher::default();
        let (mut off, mut squares) = (0.0, 0.0);
        for k in 0..40u64 {
            let column = |share: f64| {
                let value = |i: u64| if noise(i + 77 * k) < share { noise(i) } else { noise(i + 5_000_000 * (k + 1)) };
                f64s((0..2048).map(value))
            };
            let [a, b] = [1.0, k as f64 / 40.0].map(|s| items(Code::F64, &column(s), None));
            let both = a.iter().filter(|item| b.contains(item)).count();
            let exact = both as f64 / (a.len() + b.len() - both) as f64;
            let [a, b] = [a, b].map(|items| sketcher.minhash.get_min_hashes(items.into_iter()));
            let estimate = sketcher.minhash.get_similarity_from_hashes(&a, &b);
            off += (estimate - exact) / 40.0;
            squares += (estimate - exact).powi(2) / 40.0;
        }
        assert!(off.abs() < 0.06 && squares.sqrt() < 0.15, "{off} {}", squares.sqrt());
    }
}
