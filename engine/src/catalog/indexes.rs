//! Table `indexes`: which index files there are, and what they serve.

use rusqlite::{Row, params};

use super::Catalog;
use crate::error::{CatalogContext, Result};
use crate::storage::Storage;

const SELECT: &str = "SELECT id, intermediate_id, kind, params, file, len_bytes, created FROM indexes";

/// An index in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRecord {
    /// Number in the catalogue.
    pub id: i64,
    /// Number of the intermediate that it serves.
    pub intermediate_id: i64,
    /// What kind of index it is.
    pub kind: String,
    /// How it was built: a JSON object.
    pub params: String,
    /// Its file.
    pub file: String,
    /// Length of the file.
    pub len_bytes: u64,
    /// Seconds since 1970.
    pub created: i64,
}

impl IndexRecord {
    /// One of its `params`, as text; `None` where it has no such one.
    pub fn param(&self, name: &str) -> Option<String> {
        let params: serde_json::Value = serde_json::from_str(&self.params).ok()?;
        params.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string))
    }
}

fn record(r: &Row<'_>) -> rusqlite::Result<IndexRecord> {
    Ok(IndexRecord {
        id: r.get(0)?,
        intermediate_id: r.get(1)?,
        kind: r.get(2)?,
        params: r.get(3)?,
        file: r.get(4)?,
        len_bytes: r.get(5)?,
        created: r.get(6)?,
    })
}

impl Catalog {
    /// The indexes of one intermediate, or all, oldest first.
    ///
    /// Errors: `Catalog`.
    pub fn indexes(&self, intermediate: Option<i64>) -> Result<Vec<IndexRecord>> {
        const DOING: &str = "list indexes";
        let sql = format!("{SELECT} WHERE ?1 IS NULL OR intermediate_id = ?1 ORDER BY id");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let rows = statement.query_map([intermediate], record).doing(DOING)?;
        rows.collect::<rusqlite::Result<Vec<_>>>().doing(DOING)
    }

    /// The next free number of an index.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn next_index_id(&self) -> Result<i64> {
        self.next_id("indexes")
    }

    /// Registers an index whose file is durable, in place of others.
    ///
    /// Errors: `Catalog`, or the storage's; then nothing has changed.
    pub(crate) fn add_index(&mut self, storage: &dyn Storage, new: &IndexRecord, replaced: &[i64]) -> Result<()> {
        const DOING: &str = "register an index";
        let tx = self.conn.transaction().doing(DOING)?;
        for id in replaced {
            tx.execute("DELETE FROM indexes WHERE id = ?1", [id]).doing(DOING)?;
        }
        let sql = "INSERT INTO indexes (id, intermediate_id, kind, params, file, len_bytes, created)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        tx.execute(
            sql,
            params![new.id, new.intermediate_id, new.kind, new.params, new.file, new.len_bytes, new.created],
        )
        .doing(DOING)?;
        storage.before_catalog_commit()?;
        tx.commit().doing(DOING)
    }

    /// Forgets an index.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn remove_index(&mut self, id: i64) -> Result<()> {
        self.conn.execute("DELETE FROM indexes WHERE id = ?1", [id]).doing("forget an index")?;
        Ok(())
    }
}
