//! The MetadataDB: a SQLite database that says what is stored where. One transaction makes a commit visible.

mod block_row;
mod check;
mod indexes;
mod packed;
mod read;
mod readable;
mod stages;
mod withheld;
mod write;

use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, TransactionBehavior};

pub use indexes::IndexRecord;
pub(crate) use read::stored_code;
pub use read::{Block, ChunkRow, CostRecord, ErrorRecord, OperatorRecord};
pub use readable::Readable;
pub(crate) use readable::damaged;
pub use stages::{NewStage, StageRecord};
pub use withheld::{Fill, WITHHELD, Withhold};
pub use write::{Commit, IntermediateProgress, LshRow, NewBlock, NewChunk, NewIntermediate, NewLink, NewModel};

use crate::error::{CatalogContext, EngineError, Result};
use crate::format::{CATALOG_VERSION, OLDEST_CATALOG_VERSION};
use crate::partition;
use crate::storage::Storage;

const MIGRATING: &str = "bring the catalogue up to date";
/// What leads from the version before to each version of the tables; `schema.sql` has the first.
const MIGRATIONS: [(i64, &str); 4] = [
    (2, include_str!("schema_2.sql")),
    (3, include_str!("schema_3.sql")),
    (4, include_str!("schema_4.sql")),
    (5, include_str!("schema_5.sql")),
];

/// With less than this free, SQLite cannot begin to write.
const NEEDED_BYTES: u64 = 1 << 16;

/// A connection to the MetadataDB.
pub struct Catalog {
    conn: Connection,
    describe: String,
    /// Why it can only be read, where that is so.
    read_only: Option<String>,
}

impl Catalog {
    /// Opens the catalogue; `create` makes its tables where there are none.
    ///
    /// Errors: `Catalog`, `DamagedCatalog`, `UnsupportedVersion`, `NoStore`.
    pub fn open(storage: &dyn Storage, create: bool) -> Result<Self> {
        Self::connect(storage, create).map_err(|e| e.on_opening(&storage.describe()))
    }

    fn connect(storage: &dyn Storage, create: bool) -> Result<Self> {
        let mut conn = storage.open_catalog()?;
        conn.busy_timeout(Duration::from_secs(20)).doing("set the busy timeout")?;
        // FULL: a commit that was reported must survive a power cut.
        let configured = conn
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 2147418112;")
            .doing("configure the catalogue");
        let mut why_read_only = None;
        if let Err(e) = configured {
            // Read-only media and full disks: what is stored can still be read.
            let read_only = if create { None } else { storage.open_catalog_read_only()? };
            let why = e.to_string();
            conn = read_only.ok_or(e)?;
            why_read_only = Some(why);
        }
        conn.set_prepared_statement_cache_capacity(64);
        // Else each new value bound to an indexed column has its statement compiled again: plans need no such advice.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).doing("configure the catalogue")?;
        let exists: Option<i64> = conn
            .query_row("SELECT 1 FROM sqlite_master WHERE name = 'meta'", [], |r| r.get(0))
            .optional()
            .doing("look for the catalogue's tables")?;
        if exists.is_none() {
            check_not_lost(storage)?;
            if !create {
                return Err(EngineError::NoStore { path: storage.describe().into() });
            }
            create_tables(&mut conn, storage)?;
        }
        let version = version(&conn)?;
        if !(OLDEST_CATALOG_VERSION..=CATALOG_VERSION).contains(&version) {
            let path = format!("{}/catalog.db", storage.describe());
            let (oldest, current) = (OLDEST_CATALOG_VERSION.unsigned_abs(), CATALOG_VERSION.unsigned_abs());
            return Err(EngineError::UnsupportedVersion { path, found: version.unsigned_abs(), oldest, current });
        }
        let is_read_only = conn.is_readonly(MAIN_DB).doing("look whether the catalogue can be written")?;
        if version < CATALOG_VERSION && is_read_only {
            // Media that cannot be written: a copy in memory is brought up to date.
            let mut copy = Connection::open_in_memory().doing(MIGRATING)?;
            Backup::new(&conn, &mut copy)
                .doing(MIGRATING)?
                .run_to_completion(4096, Duration::ZERO, None)
                .doing(MIGRATING)?;
            migrate(&mut copy, storage)?;
            conn = copy;
        } else if version < CATALOG_VERSION {
            migrate(&mut conn, storage)?;
        }
        let read_only = why_read_only.or_else(|| is_read_only.then(|| "its catalogue only opens for reading".into()));
        Ok(Self { conn, describe: storage.describe(), read_only })
    }

    /// Fails where the catalogue could only be opened for reading.
    ///
    /// Errors: `ReadOnly`, with the reason and what to do.
    pub(crate) fn check_writable(&self, storage: &dyn Storage) -> Result<()> {
        let Some(why) = &self.read_only else { return Ok(()) };
        let why = match storage.free_bytes()? {
            Some(free) if free < NEEDED_BYTES => {
                format!(
                    "no space is left on the disk ({free} bytes are free); remove something else from it first ({why})"
                )
            }
            _ => format!("{why}; check that its folder can be written"),
        };
        Err(EngineError::ReadOnly { path: self.describe.clone(), why })
    }

    /// How messages name the store.
    pub fn describe(&self) -> &str {
        &self.describe
    }

    /// Writes all of it into the catalogue of `target`, which must be new.
    ///
    /// Errors: `Catalog`.
    pub fn copy_to(&self, target: &dyn Storage) -> Result<()> {
        const DOING: &str = "copy the catalogue";
        let mut copy = target.open_catalog()?;
        let backup = Backup::new(&self.conn, &mut copy).doing(DOING)?;
        backup.run_to_completion(4096, Duration::ZERO, None).doing(DOING)
    }

    /// A number that changes when another connection commits.
    ///
    /// Errors: `Catalog`.
    pub fn data_version(&self) -> Result<i64> {
        let mut statement = self.conn.prepare_cached("PRAGMA data_version").doing("read the catalogue's version")?;
        statement.query_row([], |r| r.get(0)).doing("read the catalogue's version")
    }

    /// What is read from here to [`Catalog::end_reading`] takes its locks once, and not with each statement.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn begin_reading(&self) -> Result<()> {
        self.conn.execute_batch("BEGIN").doing("begin to read the catalogue")
    }

    /// Errors: `Catalog`.
    pub(crate) fn end_reading(&self) -> Result<()> {
        self.conn.execute_batch("COMMIT").doing("end to read the catalogue")
    }

    fn next_id(&self, table: &'static str) -> Result<i64> {
        self.conn
            .query_row("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0) + 1", [table], |r| {
                r.get(0)
            })
            .doing("number new rows of the catalogue")
    }
}

fn version(conn: &Connection) -> Result<i64> {
    conn.query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |r| r.get(0))
        .doing("read the catalogue's version")
}

/// Brings an older catalogue up to date, in one transaction.
fn migrate(conn: &mut Connection, storage: &dyn Storage) -> Result<()> {
    // IMMEDIATE: another process may be doing the same.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(MIGRATING)?;
    let found = version(&tx)?;
    for (_, script) in MIGRATIONS.iter().filter(|(to, _)| *to > found) {
        tx.execute_batch(script).doing(MIGRATING)?;
    }
    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'schema_version'", [CATALOG_VERSION]).doing(MIGRATING)?;
    storage.before_catalog_commit()?;
    tx.commit().doing(MIGRATING)
}

/// A catalogue that was lost must not be taken for a new store: its partitions would be orphans, and removed.
pub(crate) fn check_not_lost(storage: &dyn Storage) -> Result<()> {
    match storage.list(partition::DIR)?.iter().find(|f| partition::id_of(&f.name).is_some()) {
        None => Ok(()),
        Some(file) => {
            let why = format!("it is missing or empty, but {}/{} is there", partition::DIR, file.name);
            Err(EngineError::lost_catalog(&storage.describe(), why))
        }
    }
}

fn create_tables(conn: &mut Connection, storage: &dyn Storage) -> Result<()> {
    const DOING: &str = "create the catalogue";
    // IMMEDIATE: another process may be creating the same store.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(DOING)?;
    let made: i64 =
        tx.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'meta'", [], |r| r.get(0)).doing(DOING)?;
    if made == 0 {
        tx.execute_batch(include_str!("schema.sql")).doing(DOING)?;
        for (_, script) in MIGRATIONS {
            tx.execute_batch(script).doing(DOING)?;
        }
        tx.execute("INSERT INTO meta VALUES ('schema_version', ?1)", [CATALOG_VERSION]).doing(DOING)?;
    }
    storage.before_catalog_commit()?;
    tx.commit().doing(DOING)
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() as i64)
}
