//! RowBlocks without values, or with those of some groups only: a group that is not materialized has the chunk number 0.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Transaction, params};

use super::block_row::{BLOCK_COLUMNS, BlockRow, RawBlockRow};
use super::write::insert_block;
use super::{Block, Catalog, NewBlock};
use crate::error::{CatalogContext, EngineError, Result};
use crate::rows::RowSet;
use crate::storage::Storage;

/// The chunk number of a group that is not materialized.
pub const WITHHELD: i64 = 0;

/// Chunks of groups that a RowBlock lacked.
#[derive(Debug, Clone)]
pub struct Fill {
    /// Number of its intermediate.
    pub intermediate_id: i64,
    /// The RowBlock.
    pub block: Block,
    /// The rows that the chunks hold where those are not all: they become a RowBlock of their own.
    pub part: Option<RowSet>,
    /// Groups and their chunks.
    pub chunks: Vec<(usize, i64)>,
}

/// Groups of an intermediate whose values leave the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Withhold {
    /// Number of the intermediate.
    pub intermediate_id: i64,
    /// Whether each group leaves.
    pub groups: Vec<bool>,
    /// Bytes that a row of each group takes, kept as the estimate of S(i).
    pub group_bytes: Vec<f32>,
}

/// Adds chunks to a RowBlock where it lacks them, or to a part of one that has none; other groups stay as they are.
pub(super) fn fill_block(tx: &Transaction<'_>, fill: &Fill) -> Result<()> {
    const DOING: &str = "fill a RowBlock";
    let (id, rows) = (fill.intermediate_id, &fill.block.rows);
    let min_row = rows.bounds().unwrap_or_default().0;
    let sql = format!(
        "SELECT {BLOCK_COLUMNS}, s.rows FROM row_blocks b JOIN row_sets s ON s.id = b.row_set_id
         WHERE b.intermediate_id = ?1 AND b.min_row = ?2 AND b.block_no = ?3"
    );
    let mut statement = tx.prepare_cached(&sql).doing(DOING)?;
    let found = statement
        .query_row(params![id, min_row, fill.block.block_no], |r| Ok((RawBlockRow::of(r)?, r.get::<_, Vec<u8>>(8)?)));
    let found = found.optional().doing(DOING)?;
    // Another fill may have taken it apart.
    let is_same = |bytes: &[u8]| RowSet::from_bytes(bytes).is_some_and(|now| now.iter().eq(rows.iter()));
    let Some((raw, _)) = found.filter(|(_, bytes)| is_same(bytes)) else {
        let name = format!("{} at row {min_row} of intermediate {id}", fill.block.block_no);
        return Err(EngineError::NotFound { what: "RowBlock", name, nearest: vec![] });
    };
    let mut row = raw.row()?;
    let mut filled = 0;
    let before = row.chunks.clone();
    for (group, chunk) in &fill.chunks {
        if let Some(place) = row.chunks.get_mut(*group).filter(|c| **c == WITHHELD) {
            *place = *chunk;
            filled += 1;
        }
    }
    let Some(part) = &fill.part else {
        row.replace(tx)?;
        let sql = "UPDATE intermediates SET n_withheld = n_withheld - ?2 WHERE id = ?1";
        tx.prepare_cached(sql).doing(DOING)?.execute(params![id, filled]).doing(DOING)?;
        return Ok(());
    };
    let sql = "DELETE FROM row_blocks WHERE intermediate_id = ?1 AND min_row = ?2 AND block_no = ?3";
    tx.prepare_cached(sql).doing(DOING)?.execute(params![id, min_row, fill.block.block_no]).doing(DOING)?;
    let withheld = before.iter().filter(|c| **c == WITHHELD).count();
    let sql = "UPDATE intermediates SET n_rows = n_rows - ?2, n_withheld = n_withheld - ?3 WHERE id = ?1";
    tx.prepare_cached(sql).doing(DOING)?.execute(params![id, rows.len() as u64, withheld]).doing(DOING)?;
    insert_block(tx, &NewBlock { intermediate_id: id, rows: part.clone(), chunks: row.chunks })?;
    for rest in remainder(rows, part) {
        let rest = NewBlock { intermediate_id: id, rows: RowSet::from_ids(&rest), chunks: before.clone() };
        insert_block(tx, &rest)?;
    }
    Ok(())
}

/// What is left of a RowBlock without a part: what was before it and what was after it where the part lay in one piece, so
/// that consecutive rows stay so.
fn remainder(rows: &RowSet, part: &RowSet) -> Vec<Vec<u64>> {
    let held: HashSet<u64> = part.iter().collect();
    let is_held = |row: &u64| held.contains(row);
    let ids: Vec<u64> = rows.iter().collect();
    let runs: Vec<&[u64]> = ids.chunk_by(|a, b| is_held(a) == is_held(b)).collect();
    let left = runs.iter().filter(|run| !run.first().is_some_and(is_held)).map(|run| run.to_vec());
    if runs.iter().filter(|run| run.first().is_some_and(is_held)).count() <= 1 {
        left.collect()
    } else {
        vec![left.flatten().collect()]
    }
}

/// Keeps what a row of each group takes.
pub(super) fn write_group_bytes(tx: &Transaction<'_>, id: i64, bytes: &[f32]) -> Result<()> {
    const DOING: &str = "keep estimated sizes";
    let blob: Vec<u8> = bytes.iter().flat_map(|b| b.to_le_bytes()).collect();
    let sql = "UPDATE intermediates SET group_bytes = ?2 WHERE id = ?1";
    tx.prepare_cached(sql).doing(DOING)?.execute(params![id, blob]).doing(DOING)?;
    Ok(())
}

impl Catalog {
    /// Takes the values of groups out of all RowBlocks of their intermediates, in one transaction: rows and records stay.
    ///
    /// Errors: `Catalog`, `Corrupt`, or the storage's; then everything is as it was.
    pub fn withhold(&mut self, storage: &dyn Storage, all: &[Withhold]) -> Result<()> {
        const DOING: &str = "evict values";
        let tx = self.conn.transaction().doing(DOING)?;
        for one in all {
            let sql = format!("SELECT {BLOCK_COLUMNS} FROM row_blocks b WHERE b.intermediate_id = ?1");
            let mut statement = tx.prepare_cached(&sql).doing(DOING)?;
            let rows = statement.query_map([one.intermediate_id], RawBlockRow::of).doing(DOING)?;
            let mut left = 0;
            for raw in rows.collect::<Vec<_>>() {
                let mut row: BlockRow = raw.doing(DOING)?.row()?;
                let leaves = one.groups.iter().zip(&mut row.chunks).filter(|(leaves, c)| **leaves && **c != WITHHELD);
                let n = leaves.map(|(_, chunk)| *chunk = WITHHELD).count();
                if n > 0 {
                    row.replace(&tx)?;
                    left += n;
                }
            }
            let sql = "UPDATE intermediates SET n_withheld = n_withheld + ?2 WHERE id = ?1";
            tx.prepare_cached(sql).doing(DOING)?.execute(params![one.intermediate_id, left]).doing(DOING)?;
            write_group_bytes(&tx, one.intermediate_id, &one.group_bytes)?;
        }
        storage.before_catalog_commit()?;
        tx.commit().doing(DOING)
    }

    /// Bytes that a row of each group of an intermediate takes, as estimated when its values were withheld; empty where
    /// they never were.
    ///
    /// Errors: `Catalog`.
    pub fn group_bytes(&self, intermediate_id: i64) -> Result<Vec<f32>> {
        const DOING: &str = "read estimated sizes";
        let mut statement =
            self.conn.prepare_cached("SELECT group_bytes FROM intermediates WHERE id = ?1").doing(DOING)?;
        let blob: Option<Option<Vec<u8>>> =
            statement.query_row([intermediate_id], |r| r.get(0)).optional().doing(DOING)?;
        let (floats, _) = blob.as_ref().and_then(Option::as_ref).map_or((&[][..], &[][..]), |b| b.as_chunks::<4>());
        Ok(floats.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Queries of an intermediate by columns, as they were written down.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn column_queries(&self, intermediate_id: i64) -> Result<Vec<(String, u64)>> {
        const DOING: &str = "read counts of queries";
        let sql = "SELECT columns, n_query FROM column_queries WHERE intermediate_id = ?1 ORDER BY columns";
        let mut statement = self.conn.prepare_cached(sql).doing(DOING)?;
        let rows = statement.query_map([intermediate_id], |r| Ok((r.get(0)?, r.get(1)?))).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// Numbers of the intermediates that queries asked for, as they were written down.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn queried(&self) -> Result<Vec<i64>> {
        const DOING: &str = "read counts of queries";
        let mut statement =
            self.conn.prepare_cached("SELECT DISTINCT intermediate_id FROM column_queries").doing(DOING)?;
        let rows = statement.query_map([], |r| r.get(0)).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// Sets all counts of queries to nothing.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn reset_queries(&self) -> Result<()> {
        let sql = "DELETE FROM column_queries; UPDATE intermediates SET n_query = 0";
        self.conn.execute_batch(sql).doing("forget counts of queries")
    }

    /// A setting of the store.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn setting(&self, key: &str) -> Result<Option<String>> {
        const DOING: &str = "read a setting";
        let mut statement = self.conn.prepare_cached("SELECT value FROM meta WHERE key = ?1").doing(DOING)?;
        statement.query_row([key], |r| r.get(0)).optional().doing(DOING)
    }

    /// Changes a setting of the store.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn set_setting(&self, key: &str, value: &str) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)";
        self.conn.execute(sql, params![key, value]).doing("change a setting")?;
        Ok(())
    }
}
