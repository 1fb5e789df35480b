//! What `verify` asks of the catalogue itself: that every row which anything reads is one that was written.

use std::collections::BTreeSet;

use rusqlite::types::Value;

use super::Catalog;
use super::readable::damaged;
use crate::error::{CatalogContext, EngineError, Result};
use crate::materialize::Materialize;
use crate::model::IntermediateRecord;
use crate::store::COUNTERS;
use crate::verify::Damage;

/// Reports of SQLite that are shown at most.
const MOST: usize = 20;

impl Catalog {
    /// SQLite's own checks, of its pages and of rows that name others, and damage of the rows that nothing else of `verify`
    /// reads.
    pub(crate) fn damage(&self, intermediates: &[IntermediateRecord]) -> Vec<Damage> {
        let mut found = Vec::new();
        let mut note = |what: &str, checked: Result<()>| found.extend(checked.err().map(|e| damaged(what, e, None)));
        note("SQLite's check", self.texts(&format!("PRAGMA integrity_check({MOST})")).and_then(intact));
        note("rows that name others", self.dangling());
        note("settings", Materialize::of(self).map(drop));
        for name in COUNTERS {
            note("counters", self.total(name).map(drop));
        }
        note("datasets", self.texts("SELECT name FROM datasets").and_then(|names| self.check_datasets(&names)));
        note("artifacts", self.artifacts().map(drop));
        note("indexes", self.indexes(None).map(drop));
        for (table, columns) in [
            ("costs", "machine, what, subject, n, mean, m2, updated"),
            ("column_queries", "intermediate_id, columns, n_query"),
            ("lsh", "place, chunk_id"),
            ("schemas", "hash, bytes"),
        ] {
            note(table, self.read_all(table, columns));
        }
        for record in intermediates {
            let what = format!("intermediate {}", record.key);
            let checked = self.errors(record.id).and_then(|_| self.group_bytes(record.id)).map(drop);
            found.extend(checked.err().map(|e| damaged(&what, e, Some(record.key.to_string()))));
        }
        found.extend(self.readable_stages().damage);
        found
    }

    fn check_datasets(&self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| self.dataset(name).map(drop))
    }

    /// The first column of a query, as text.
    fn texts(&self, sql: &str) -> Result<Vec<String>> {
        const DOING: &str = "check the catalogue";
        let mut statement = self.conn.prepare(sql).doing(DOING)?;
        let rows = statement.query_map([], |r| r.get(0)).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// Fails where a row names one of another table that is not there.
    fn dangling(&self) -> Result<()> {
        const DOING: &str = "check the catalogue's references";
        let mut statement = self.conn.prepare("PRAGMA foreign_key_check").doing(DOING)?;
        let rows = statement.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(2)?))).doing(DOING)?;
        let found = rows.map(|r| r.doing(DOING)).collect::<Result<BTreeSet<_>>>()?;
        if found.is_empty() {
            return Ok(());
        }
        let each =
            found.iter().map(|(table, parent)| format!("a row of {table} names one of {parent} that is not there"));
        Err(EngineError::corrupt("catalog.db", 0, each.collect::<Vec<_>>().join("; ")))
    }

    /// Reads all values of a table, whose types SQLite then has checked.
    fn read_all(&self, table: &str, columns: &str) -> Result<()> {
        const DOING: &str = "read all rows";
        let mut statement = self.conn.prepare(&format!("SELECT {columns} FROM {table}")).doing(DOING)?;
        let n = statement.column_count();
        let mut rows = statement.query([]).doing(DOING)?;
        while let Some(row) = rows.next().doing(DOING)? {
            for column in 0..n {
                if let Value::Null = row.get::<_, Value>(column).doing(DOING)? {
                    return Err(EngineError::corrupt("catalog.db", 0, "a value is missing"));
                }
            }
        }
        Ok(())
    }
}

fn intact(said: Vec<String>) -> Result<()> {
    match &said[..] {
        [one] if one == "ok" => Ok(()),
        said => Err(EngineError::corrupt("catalog.db", 0, said.join("; "))),
    }
}
