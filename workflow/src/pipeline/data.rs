//! The files that a pipeline reads: opened once, hashed once, parsed once for the check and the run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mistique_datasets::{DatasetError, TableFile, TableSet};
use mistique_engine::Fingerprint;

use super::error::OperatorError;
use super::table::Table;

/// What `--data` names, with what is known of it.
pub struct Data {
    set: Box<dyn TableSet>,
    fingerprints: Mutex<HashMap<String, Fingerprint>>,
    /// File and table by key.
    parsed: Mutex<HashMap<String, (String, Table)>>,
    n_rows: Mutex<HashMap<String, u64>>,
    /// Seconds that it took to parse a file before its stage ran.
    seconds: Mutex<HashMap<String, f64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Data {
    /// The tables of a folder, a file or a generator (`generated:housing?rows=1000`).
    ///
    /// Errors: `BadSpec`.
    pub fn open(text: &str) -> Result<Self, DatasetError> {
        Ok(Self::new(mistique_datasets::open_tables(text)?))
    }

    /// Any set of tables.
    pub fn new(set: Box<dyn TableSet>) -> Self {
        Self {
            set,
            fingerprints: Mutex::default(),
            parsed: Mutex::default(),
            n_rows: Mutex::default(),
            seconds: Mutex::default(),
        }
    }

    /// The tables.
    pub fn set(&self) -> &dyn TableSet {
        &*self.set
    }

    /// The file or generated table called `file`.
    ///
    /// Errors: `NotFound` with the names that there are.
    pub fn file(&self, file: &str) -> Result<TableFile, DatasetError> {
        self.set.file(file)
    }

    /// Hash of the content of `file`, computed once.
    ///
    /// Errors: `NotFound`, `Io`.
    pub fn fingerprint(&self, file: &str) -> Result<Fingerprint, DatasetError> {
        if let Some(known) = lock(&self.fingerprints).get(file) {
            return Ok(*known);
        }
        let fingerprint = self.set.file(file)?.fingerprint()?;
        lock(&self.fingerprints).insert(file.into(), fingerprint);
        Ok(fingerprint)
    }

    /// The table that `read` makes of `file`; `key` says all that it depends on. Made once, and kept until
    /// [`Data::forget`].
    ///
    /// Errors: those of `read`.
    pub fn parsed(
        &self,
        file: &str,
        key: &str,
        read: impl FnOnce() -> Result<Table, OperatorError>,
    ) -> Result<Table, OperatorError> {
        if let Some((_, table)) = lock(&self.parsed).get(key) {
            return Ok(table.clone());
        }
        let begun = Instant::now();
        let table = read()?;
        lock(&self.seconds).insert(file.into(), begun.elapsed().as_secs_f64());
        lock(&self.n_rows).insert(file.into(), table.n_rows() as u64);
        lock(&self.parsed).insert(key.into(), (file.into(), table.clone()));
        Ok(table)
    }

    /// Whether `file` is kept parsed.
    pub(crate) fn holds(&self, file: &str) -> bool {
        lock(&self.parsed).values().any(|(of, _)| of == file)
    }

    /// Seconds that parsing `file` took since this was last asked.
    pub(crate) fn take_seconds(&self, file: &str) -> f64 {
        lock(&self.seconds).remove(file).unwrap_or_default()
    }

    /// Rows of `file`, when it was parsed.
    pub(crate) fn n_rows(&self, file: &str) -> Option<u64> {
        lock(&self.n_rows).get(file).copied()
    }

    /// Lets go of what [`Data::parsed`] keeps of `file`.
    pub(crate) fn forget(&self, file: &str) {
        lock(&self.parsed).retain(|_, (of, _)| of != file);
    }
}
