//! The errors of this crate: every one names what it is about, what was expected and what to do.

use std::path::PathBuf;
use std::sync::Arc;

use mistique_quantize::QuantizeError;
use rusqlite::ErrorCode;

/// Result of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A file operation failed.
    #[error("{path}: cannot {op}: {source}")]
    Io {
        /// File or folder, relative to the store where it lies inside.
        path: String,
        /// The operation.
        op: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The path holds no store.
    #[error("{path}: no store here; `mistique log` or `mistique append` creates one, or name another with --store")]
    NoStore {
        /// The path that was tried.
        path: PathBuf,
    },
    /// Another process is writing.
    #[error("{path}: another process is writing to this store; wait for it, or write to another store")]
    Locked {
        /// The lock file.
        path: String,
    },
    /// Values that the store does not keep.
    #[error(
        "{key}: {what} of it are not materialized; ask with --plan rerun, or keep them with `mistique materialize`"
    )]
    NotMaterialized {
        /// The intermediate.
        key: String,
        /// How much.
        what: String,
    },
    /// A store that can be read only.
    #[error("{path}: the store can be read, but not written: {why}")]
    ReadOnly {
        /// The store.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// A format version that this build does not read.
    #[error("{path}: format version {found}, this build reads {oldest} to {current}; use a newer mistique")]
    UnsupportedVersion {
        /// The file.
        path: String,
        /// The version found.
        found: u64,
        /// Oldest readable version.
        oldest: u64,
        /// The version written by this build.
        current: u64,
    },
    /// Bytes that are not what was written.
    #[error("{path}: damaged at byte {offset}: {why}; `mistique verify` lists all damage, other data stays readable")]
    Corrupt {
        /// The file.
        path: String,
        /// Offset of the damaged part.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A catalogue that is damaged, or gone.
    #[error("{path}: damaged: {why}; {advice}")]
    DamagedCatalog {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
        /// What of the store can still be read, and what to do.
        advice: &'static str,
    },
    /// The MetadataDB failed.
    #[error("catalog: {context}: {source}")]
    Catalog {
        /// What was being done.
        context: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A name or key that cannot be used.
    #[error("{given:?} is not {} {what}: {why}", article(.what))]
    Invalid {
        /// What was expected.
        what: &'static str,
        /// What was given.
        given: String,
        /// Why it is not one.
        why: String,
    },
    /// Nothing of that name.
    #[error("no {what} {name}{}", nearest_text(.nearest))]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// The name looked for.
        name: String,
        /// Existing names that come nearest.
        nearest: Vec<String>,
    },
    /// Other content under a name already used.
    #[error("{key} was logged with another {what} ({logged}) than the one given ({given}); {advice}")]
    Conflict {
        /// The key.
        key: String,
        /// What differs.
        what: &'static str,
        /// What the store has.
        logged: String,
        /// What was given.
        given: String,
        /// What to do.
        advice: &'static str,
    },
    /// A row_id that is already stored, or twice in one batch.
    #[error("{key}: row_id {row} is already logged; every row is logged once (use a new version, or --replace)")]
    DuplicateRow {
        /// The intermediate.
        key: String,
        /// The row.
        row: u64,
    },
    /// A row_id that is not stored.
    #[error("{key}: row_id {row} is not stored ({n_rows} rows are)")]
    NoSuchRow {
        /// The intermediate.
        key: String,
        /// The row.
        row: u64,
        /// Rows that are stored.
        n_rows: u64,
    },
    /// A shape or size that does not fit.
    #[error("{key}: {what}: expected {expected}, got {got}")]
    Shape {
        /// The intermediate.
        key: String,
        /// What was measured.
        what: &'static str,
        /// What fits.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A scheme that does not fit the data, or values that it cannot hold.
    #[error("{key}: {source}")]
    Quantize {
        /// The intermediate.
        key: String,
        /// The quantizer's reason.
        source: QuantizeError,
    },
    /// A value that the scheme cannot hold.
    #[error(
        "{key}: value {value} of row_id {row} cannot be held by {scheme}; pass --clamp to store the nearest that can (`mistique show` counts them), or another --scheme: {other}"
    )]
    Unholdable {
        /// The intermediate.
        key: String,
        /// The value, pooled where the scheme pools.
        value: f64,
        /// Its row.
        row: u64,
        /// The scheme.
        scheme: String,
        /// What would hold it.
        other: &'static str,
    },
    /// The bytes will not fit.
    #[error("this log takes up to {needed} bytes, {available} are {limit}; {advice}")]
    NoSpace {
        /// Bytes it may take.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// Which limit.
        limit: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Something else that the store cannot do.
    #[error("{what}: {why}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A log that failed earlier; nothing after its last commit is stored.
    #[error("the log failed, nothing after its last commit is stored: {0}")]
    LogFailed(Arc<EngineError>),
    /// RERUN failed.
    #[error("{key}: RERUN is not possible: {why}")]
    Rerun {
        /// The model or intermediate.
        key: String,
        /// Why.
        why: String,
    },
    /// A value that Arrow cannot take.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Of a catalogue that tells nothing.
const LOST: &str = "nothing of the store can be read without it: put the store back from a copy (the catalogue alone where nothing \
                    was written since), or log again into another one (--store PATH)";
/// Of a catalogue of which a part is damaged.
const PARTLY: &str = "`mistique verify` lists all damage, other data stays readable; put the store back from a copy, or log again \
                      into another one (--store PATH)";

/// Whether the catalogue is not what was written.
fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(e, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..))
}

/// The indefinite article of a word.
pub fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn nearest_text(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        many => format!("; nearest: {}", many.join(", ")),
    }
}

impl EngineError {
    /// An I/O error with its file and operation.
    pub fn io(path: impl Into<String>, op: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), op, source }
    }

    pub(crate) fn corrupt(path: impl Into<String>, offset: u64, why: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), offset, why: why.into() }
    }

    /// A catalogue of the store at `store` that tells nothing.
    pub(crate) fn lost_catalog(store: &str, why: String) -> Self {
        Self::DamagedCatalog { path: format!("{store}/catalog.db"), why, advice: LOST }
    }

    /// The same error; damage that was met while a catalogue was opened names the store.
    pub(crate) fn on_opening(self, store: &str) -> Self {
        match self {
            Self::Catalog { context, source } if is_damage(&source) => {
                Self::lost_catalog(store, format!("cannot {context}: {source}"))
            }
            other => other,
        }
    }

    /// What damage of the catalogue that was met while it was in use says of the store at `store`; `None` for any other
    /// error.
    pub fn in_catalog_of(&self, store: &str) -> Option<Self> {
        match self {
            Self::Catalog { context, source } if is_damage(source) => {
                let why = format!("cannot {context}: {source}");
                Some(Self::DamagedCatalog { path: format!("{store}/catalog.db"), why, advice: PARTLY })
            }
            Self::LogFailed(e) => e.in_catalog_of(store).map(|e| Self::LogFailed(Arc::new(e))),
            _ => None,
        }
    }

    /// Whether a part of the store is not what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Catalog { source, .. } => is_damage(source),
            _ => false,
        }
    }

    pub(crate) fn quantize(key: impl ToString, source: QuantizeError) -> Self {
        Self::Quantize { key: key.to_string(), source }
    }
}

/// Adds to a SQLite error what was being done.
pub(crate) trait CatalogContext<T> {
    fn doing(self, context: &'static str) -> Result<T>;
}

impl<T> CatalogContext<T> for rusqlite::Result<T> {
    fn doing(self, context: &'static str) -> Result<T> {
        self.map_err(|source| EngineError::Catalog { context, source })
    }
}

/// The `limit` names among `names` that come nearest to `name`, by edit distance.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>, limit: usize) -> Vec<String> {
    let mut scored: Vec<(usize, &str)> = names.into_iter().map(|n| (edit_distance(name, n), n)).collect();
    scored.sort();
    scored.dedup();
    let n = name.chars().count();
    // A misspelling has one likely meaning; for anything else the nearest few are listed, however far they are.
    let worst = match scored.first() {
        Some((best, _)) if *best <= n / 3 => best + 1,
        Some((best, _)) => n.max(3).max(*best),
        None => 0,
    };
    scored.into_iter().filter(|(d, _)| *d <= worst).take(limit).map(|(_, n)| n.to_string()).collect()
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_misspelling() {
        assert_eq!(nearest("con1", ["conv1", "pool", "logits"], 1), ["conv1"]);
        // Nothing is near: what there is.
        assert_eq!(nearest("q", ["a.model", "another.one"], 3), ["a.model"]);
        assert_eq!(nearest("q", [], 3), [] as [&str; 0]);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
