//! The files that a pipeline reads: hashed once, looked at once for the check, parsed once for the run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mistique_datasets::{DatasetError, TableFile, TableSet};
use mistique_engine::Fingerprint;

use super::error::OperatorError;
use super::opened::Opened;
use super::table::Table;

/// What `--data` names, with what is known of it.
pub struct Data {
    set: Box<dyn TableSet>,
    fingerprints: Mutex<HashMap<String, Fingerprint>>,
    /// File and what is known of it by key, until its table is parsed.
    opened: Mutex<HashMap<String, (String, Arc<Opened>)>>,
    /// File and table by key.
    parsed: Mutex<HashMap<String, (String, Table)>>,
    n_rows: Mutex<HashMap<String, u64>>,
    /// Seconds that it took to look at a file before its stage ran.
    seconds: Mutex<HashMap<String, f64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct NoTables;

impl TableSet for NoTables {
    fn name(&self) -> String {
        String::new()
    }

    fn source(&self) -> String {
        String::new()
    }

    fn files(&self) -> Vec<String> {
        Vec::new()
    }

    fn file(&self, file: &str) -> Result<TableFile, DatasetError> {
        Err(DatasetError::NotFound { path: file.into(), expected: "a table", hint: "no dataset was opened".into() })
    }
}

impl Data {
    /// The tables of a folder, a file or a generator (`generated:housing?rows=1000`).
    ///
    /// Errors: `BadSpec`.
    pub fn open(text: &str) -> Result<Self, DatasetError> {
        Ok(Self::new(mistique_datasets::open_tables(text)?))
    }

    /// No tables at all: for stages that read none.
    pub fn none() -> Self {
        Self::new(Box::new(NoTables))
    }

    /// Any set of tables.
    pub fn new(set: Box<dyn TableSet>) -> Self {
        Self {
            set,
            fingerprints: Mutex::default(),
            opened: Mutex::default(),
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

    /// What `open` sees of `file`; `key` says all that it depends on. Seen once, until the table is parsed or
    /// [`Data::close`].
    ///
    /// Errors: those of `open`.
    pub(crate) fn opened(
        &self,
        file: &str,
        key: &str,
        open: impl FnOnce() -> Result<Opened, OperatorError>,
    ) -> Result<Arc<Opened>, OperatorError> {
        if let Some((_, opened)) = lock(&self.opened).get(key) {
            return Ok(Arc::clone(opened));
        }
        let begun = Instant::now();
        let opened = Arc::new(open()?);
        lock(&self.seconds).insert(file.into(), begun.elapsed().as_secs_f64());
        lock(&self.n_rows).insert(file.into(), opened.n_rows() as u64);
        lock(&self.opened).insert(key.into(), (file.into(), Arc::clone(&opened)));
        Ok(opened)
    }

    /// Lets go of what [`Data::opened`] keeps by `key`.
    pub(crate) fn close(&self, key: &str) {
        lock(&self.opened).remove(key);
    }

    /// The table that was parsed by that key and is still kept.
    pub(crate) fn held(&self, key: &str) -> Option<Table> {
        lock(&self.parsed).get(key).map(|(_, table)| table.clone())
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
        if let Some(table) = self.held(key) {
            return Ok(table);
        }
        let table = read()?;
        self.close(key);
        lock(&self.parsed).insert(key.into(), (file.into(), table.clone()));
        Ok(table)
    }

    /// Whether `file` is kept parsed.
    pub(crate) fn holds(&self, file: &str) -> bool {
        lock(&self.parsed).values().any(|(of, _)| of == file)
    }

    /// Seconds that a look at `file` took since this was last asked.
    pub(crate) fn take_seconds(&self, file: &str) -> f64 {
        lock(&self.seconds).remove(file).unwrap_or_default()
    }

    /// Rows of `file`, when it was looked at.
    pub(crate) fn n_rows(&self, file: &str) -> Option<u64> {
        lock(&self.n_rows).get(file).copied()
    }

    /// Lets go of what is kept of `file`.
    pub(crate) fn forget(&self, file: &str) {
        lock(&self.opened).retain(|_, (of, _)| of != file);
        lock(&self.parsed).retain(|_, (of, _)| of != file);
    }
}
