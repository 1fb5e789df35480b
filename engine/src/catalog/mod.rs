//! The MetadataDB: a SQLite database that says what is stored where. One transaction makes a commit visible.

mod read;
mod write;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

pub(crate) use read::stored_code;
pub use read::{Block, ChunkRow, CostRecord, ErrorRecord, OperatorRecord};
pub use write::{Commit, IntermediateProgress, NewBlock, NewIntermediate, NewModel};

use crate::error::{CatalogContext, EngineError, Result};
use crate::format::CATALOG_VERSION;
use crate::partition;
use crate::storage::Storage;

/// A connection to the MetadataDB.
pub struct Catalog {
    conn: Connection,
    describe: String,
}

impl Catalog {
    /// Opens the catalogue; `create` makes its tables where there are none.
    ///
    /// Errors: `Catalog`, `UnsupportedVersion`, `NoStore`.
    pub fn open(storage: &dyn Storage, create: bool) -> Result<Self> {
        let mut conn = storage.open_catalog()?;
        conn.busy_timeout(std::time::Duration::from_secs(20)).doing("set the busy timeout")?;
        conn.set_prepared_statement_cache_capacity(64);
        // FULL: a commit that was reported must survive a power cut.
        let configured = conn
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 268435456;")
            .doing("configure the catalogue");
        if let Err(e) = configured {
            // Read-only media and full disks: what is stored can still be read.
            let read_only = if create { None } else { storage.open_catalog_read_only()? };
            conn = read_only.ok_or(e)?;
        }
        let exists: Option<i64> = conn
            .query_row("SELECT 1 FROM sqlite_master WHERE name = 'meta'", [], |r| r.get(0))
            .optional()
            .doing("look for the catalogue's tables")?;
        if exists.is_none() {
            if !create {
                return Err(EngineError::NoStore { path: storage.describe().into() });
            }
            create_tables(&mut conn, storage)?;
        }
        let version: i64 = conn
            .query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |r| r.get(0))
            .doing("read the catalogue's version")?;
        if version != CATALOG_VERSION {
            let (found, readable) = (version.unsigned_abs(), CATALOG_VERSION.unsigned_abs());
            let path = format!("{}/catalog.db", storage.describe());
            return Err(EngineError::UnsupportedVersion { path, found, oldest: readable, current: readable });
        }
        Ok(Self { conn, describe: storage.describe() })
    }

    /// How messages name the store.
    pub fn describe(&self) -> &str {
        &self.describe
    }

    /// A number that changes when another connection commits.
    ///
    /// Errors: `Catalog`.
    pub fn data_version(&self) -> Result<i64> {
        let mut statement = self.conn.prepare_cached("PRAGMA data_version").doing("read the catalogue's version")?;
        statement.query_row([], |r| r.get(0)).doing("read the catalogue's version")
    }

    /// SQLite's own check of the catalogue.
    ///
    /// Errors: `Corrupt`.
    pub fn check_integrity(&self) -> Result<()> {
        let answer: String =
            self.conn.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0)).doing("check the catalogue")?;
        if answer == "ok" { Ok(()) } else { Err(EngineError::corrupt("catalog.db", 0, answer)) }
    }

    fn next_id(&self, table: &'static str) -> Result<i64> {
        self.conn
            .query_row("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0) + 1", [table], |r| {
                r.get(0)
            })
            .doing("number new rows of the catalogue")
    }
}

fn create_tables(conn: &mut Connection, storage: &dyn Storage) -> Result<()> {
    const DOING: &str = "create the catalogue";
    // A catalogue that was lost must not be taken for a new store: its partitions would be orphans, and removed.
    if let Some(file) = storage.list(partition::DIR)?.iter().find(|f| partition::id_of(&f.name).is_some()) {
        let why = format!("it is missing, but {}/{} is there: put the catalogue back", partition::DIR, file.name);
        return Err(EngineError::corrupt("catalog.db", 0, why));
    }
    // IMMEDIATE: another process may be creating the same store.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(DOING)?;
    let made: i64 =
        tx.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'meta'", [], |r| r.get(0)).doing(DOING)?;
    if made == 0 {
        tx.execute_batch(include_str!("schema.sql")).doing(DOING)?;
        tx.execute("INSERT INTO meta VALUES ('schema_version', ?1)", [CATALOG_VERSION]).doing(DOING)?;
    }
    storage.before_catalog_commit()?;
    tx.commit().doing(DOING)
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() as i64)
}
