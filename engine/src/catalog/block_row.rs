//! Rows of `row_blocks`: chunk numbers in few bytes, and a checksum over all of a row.

use rusqlite::{Row, Transaction, params};
use twox_hash::XxHash3_64;

use crate::error::{CatalogContext, EngineError, Result};

/// The columns that [`RawBlockRow::of`] takes, in its order.
pub(super) const BLOCK_COLUMNS: &str =
    "b.intermediate_id, b.block_no, b.min_row, b.max_row, b.n_rows, b.row_set_id, b.chunks, b.checksum";

/// A RowBlock's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockRow {
    pub intermediate_id: i64,
    pub block_no: i64,
    pub min_row: i64,
    pub max_row: i64,
    pub n_rows: i64,
    pub row_set_id: i64,
    pub chunks: Vec<i64>,
}

/// The same as it is stored.
pub(super) struct RawBlockRow {
    /// All but chunks, in the order of [`BLOCK_COLUMNS`].
    numbers: [i64; 6],
    chunks: Vec<u8>,
    /// `None` in rows of the catalogue's version 1, whose chunks are plain numbers.
    checksum: Option<i64>,
}

fn hash(numbers: &[i64; 6], chunks: &[u8]) -> i64 {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend_from_slice(chunks);
    XxHash3_64::oneshot(&bytes).cast_signed()
}

impl RawBlockRow {
    pub fn of(r: &Row<'_>) -> rusqlite::Result<Self> {
        let numbers = [r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?];
        Ok(Self { numbers, chunks: r.get(6)?, checksum: r.get(7)? })
    }

    /// The row, checked.
    ///
    /// Errors: `Corrupt` when it is not what was written.
    pub fn row(self) -> Result<BlockRow> {
        let [intermediate_id, block_no, min_row, max_row, n_rows, row_set_id] = self.numbers;
        let bad = |what: &str| {
            let why =
                format!("row_blocks: RowBlock {block_no} at row {min_row} of intermediate {intermediate_id} {what}");
            EngineError::corrupt("catalog.db", 0, why)
        };
        if self.checksum.is_some_and(|checksum| checksum != hash(&self.numbers, &self.chunks)) {
            return Err(bad("does not have its checksum"));
        }
        let chunks = match self.checksum {
            Some(_) => ids_from_bytes(&self.chunks),
            None => Some(self.chunks.chunks(8).filter_map(|b| b.try_into().ok()).map(i64::from_le_bytes).collect()),
        };
        let chunks = chunks.ok_or_else(|| bad("has chunk numbers that are none"))?;
        Ok(BlockRow { intermediate_id, block_no, min_row, max_row, n_rows, row_set_id, chunks })
    }
}

impl BlockRow {
    /// Adds it with its checksum.
    ///
    /// Errors: `Catalog`.
    pub fn insert(&self, tx: &Transaction<'_>) -> Result<()> {
        self.write(tx, "INSERT")
    }

    /// Puts it in the place of the one of the same key.
    ///
    /// Errors: `Catalog`.
    pub fn replace(&self, tx: &Transaction<'_>) -> Result<()> {
        self.write(tx, "INSERT OR REPLACE")
    }

    fn write(&self, tx: &Transaction<'_>, verb: &str) -> Result<()> {
        const DOING: &str = "write a RowBlock";
        let numbers = [self.intermediate_id, self.block_no, self.min_row, self.max_row, self.n_rows, self.row_set_id];
        let chunks = ids_to_bytes(&self.chunks);
        let sql = format!(
            "{verb} INTO row_blocks (intermediate_id, block_no, min_row, max_row, n_rows, row_set_id, chunks, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
        );
        let mut statement = tx.prepare_cached(&sql).doing(DOING)?;
        let [a, b, c, d, e, f] = numbers;
        statement.execute(params![a, b, c, d, e, f, chunks, hash(&numbers, &chunks)]).doing(DOING)?;
        Ok(())
    }
}

/// Chunk numbers as runs of consecutive ones: for each, how far its first one is from one past the last one's end
/// (zigzag), and how many follow it; both LEB128.
fn ids_to_bytes(ids: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut expected = 0i64;
    let mut rest = ids;
    while let Some(&first) = rest.first() {
        let len = rest.iter().zip(first..).take_while(|(id, want)| **id == *want).count();
        let distance = first.wrapping_sub(expected);
        write_varint(((distance << 1) ^ (distance >> 63)).cast_unsigned(), &mut out);
        write_varint(len as u64 - 1, &mut out);
        expected = first.wrapping_add(len as i64);
        rest = rest.get(len..).unwrap_or_default();
    }
    out
}

fn ids_from_bytes(mut bytes: &[u8]) -> Option<Vec<i64>> {
    /// Far more groups than a RowBlock has; a run beyond it is damage.
    const MOST: u64 = 1 << 28;
    let mut ids = Vec::new();
    let mut expected = 0i64;
    while !bytes.is_empty() {
        let distance = read_varint(&mut bytes)?;
        let len = read_varint(&mut bytes)?.checked_add(1).filter(|n| *n <= MOST)?;
        let first = expected.wrapping_add((distance >> 1).cast_signed() ^ -((distance & 1).cast_signed()));
        expected = first.checked_add(len.cast_signed())?;
        ids.extend(first..expected);
    }
    Some(ids)
}

fn write_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunk_numbers_round_trip(ids in prop_oneof![
            proptest::collection::vec(0i64..1 << 62, 0..80),
            proptest::collection::vec(1i64..300, 0..80),
            (1i64..1 << 40, 0i64..2000).prop_map(|(a, n)| (a..a + n).collect::<Vec<_>>()),
        ]) {
            let bytes = ids_to_bytes(&ids);
            prop_assert!(bytes.len() <= 10 * ids.len());
            prop_assert_eq!(ids_from_bytes(&bytes), Some(ids));
        }
    }

    #[test]
    fn runs_by_hand() {
        assert_eq!(ids_to_bytes(&[7, 8, 9, 4, 5]), [14, 2, 11, 1]);
        assert_eq!(ids_from_bytes(&[14, 2, 11, 1]), Some(vec![7, 8, 9, 4, 5]));
        assert_eq!(ids_from_bytes(&[14]), None);
        assert_eq!(ids_from_bytes(&[0x80]), None);
        assert_eq!(ids_from_bytes(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), None);
    }
}
