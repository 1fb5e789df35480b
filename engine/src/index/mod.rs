//! Index files: what makes queries touch less. Written once, checksummed by section, and never needed for an answer.

mod by_example;
mod thresholds;
mod values;

use std::borrow::Cow;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use twox_hash::XxHash3_64;

pub use by_example::{ByExampleColumn, ByExampleOf, ByExampleSize, MapValue, by_example_index};
pub use thresholds::thresholds_index;
pub use values::IndexValues;

use crate::catalog::IndexRecord;
use crate::error::{EngineError, Result};
use crate::format::{CURRENT, INDEX_ENTRY_LEN, INDEX_HEADER_LEN, INDEX_MAGIC, Le, OLDEST_READABLE};
use crate::model::IntermediateRecord;
use crate::rows::RowSet;
use crate::storage::ReadFile;
use crate::store::Store;
use crate::verify::{Damage, VerifyReport};

/// Folder of the index files.
pub const DIR: &str = "indexes";

/// Path of an index file.
pub fn path(id: i64) -> String {
    format!("{DIR}/{id:010}.mqi")
}

/// The number in an index file's name.
pub fn id_of(file_name: &str) -> Option<i64> {
    file_name.strip_suffix(".mqi")?.parse().ok()
}

/// What an index is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// Ranges of activations by unit (DeepEverest): exact questions about groups of units.
    ByExample,
    /// A graph of neighbours (HNSW): approximate nearest neighbours.
    Hnsw,
    /// The value that a share of each unit's cells lies above: T_k of NetDissect.
    Thresholds,
}

impl IndexKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ByExample, Self::Hnsw, Self::Thresholds];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ByExample => "by-example",
            Self::Hnsw => "hnsw",
            Self::Thresholds => "thresholds",
        }
    }

    /// Fields of `params` in which two indexes of an intermediate agree when one takes the other's place.
    fn same(self) -> &'static [&'static str] {
        match self {
            Self::ByExample => &["by", "values"],
            Self::Hnsw => &["metric", "values"],
            Self::Thresholds => &["alpha", "values"],
        }
    }

    /// Its number in files.
    pub fn id(self) -> u8 {
        match self {
            Self::ByExample => 1,
            Self::Hnsw => 2,
            Self::Thresholds => 3,
        }
    }
}

/// An index before it has a file: the rows that it covers, and its sections.
#[derive(Debug, Clone)]
pub struct NewIndex {
    /// What it is for.
    pub kind: IndexKind,
    /// How it was built: a JSON object.
    pub params: String,
    /// The rows, in the order in which sections count them.
    pub rows: RowSet,
    /// What it holds.
    pub sections: Vec<Vec<u8>>,
}

impl NewIndex {
    /// The bytes of its file.
    fn to_bytes(&self, id: i64) -> Vec<u8> {
        let rows = self.rows.to_bytes();
        let sections = || std::iter::once(&rows).chain(&self.sections);
        let n_sections = self.sections.len() + 1;
        let body = INDEX_HEADER_LEN + n_sections * INDEX_ENTRY_LEN;
        let len = body + sections().map(Vec::len).sum::<usize>();
        let mut out = vec![0u8; INDEX_HEADER_LEN];
        out.reserve_exact(len - INDEX_HEADER_LEN);
        out[..8].copy_from_slice(&INDEX_MAGIC);
        out[8..10].copy_from_slice(&CURRENT.to_le_bytes());
        out[10] = self.kind.id();
        out[16..24].copy_from_slice(&id.to_le_bytes());
        out[24..32].copy_from_slice(&(self.rows.len() as u64).to_le_bytes());
        out[32..40].copy_from_slice(&(n_sections as u64).to_le_bytes());
        out[40..48].copy_from_slice(&(len as u64).to_le_bytes());
        let mut at = body;
        for section in sections() {
            out.extend_from_slice(&(at as u64).to_le_bytes());
            out.extend_from_slice(&(section.len() as u64).to_le_bytes());
            out.extend_from_slice(&XxHash3_64::oneshot(section).to_le_bytes());
            at += section.len();
        }
        let checksum = header_checksum(&out[..56], &out[INDEX_HEADER_LEN..]);
        out[56..64].copy_from_slice(&checksum.to_le_bytes());
        sections().for_each(|s| out.extend_from_slice(s));
        out
    }

    /// Its record, of an intermediate to be named.
    fn record(&self, id: i64, len_bytes: u64) -> IndexRecord {
        let (kind, params) = (self.kind.name().to_string(), self.params.clone());
        IndexRecord { id, intermediate_id: 0, kind, params, file: path(id), len_bytes, created: crate::catalog::now() }
    }

    /// The index open for reading without a file, where none can be written.
    ///
    /// Errors: never; it is checked as a file is.
    pub fn into_file(self) -> Result<IndexFile> {
        let bytes = self.to_bytes(0);
        let len = bytes.len() as u64;
        IndexFile::parse(Arc::new(Held(bytes)), "an index in memory", 0, len, self.kind)
    }
}

fn header_checksum(header: &[u8], directory: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(header);
    hasher.write(directory);
    hasher.finish()
}

struct Held(Vec<u8>);

impl ReadFile for Held {
    fn len_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_many<'a>(&'a self, ranges: &[Range<u64>]) -> Result<Vec<Cow<'a, [u8]>>> {
        crate::storage::slice_ranges("an index in memory", &self.0, ranges)
    }
}

/// An index open for reading.
pub struct IndexFile {
    file: Arc<dyn ReadFile>,
    path: String,
    rows: RowSet,
    directory: Vec<u8>,
}

impl IndexFile {
    fn parse(file: Arc<dyn ReadFile>, path: &str, id: i64, len_bytes: u64, kind: IndexKind) -> Result<Self> {
        let bad = |at: u64, why: String| EngineError::corrupt(path, at, why);
        let found = file.len_bytes();
        if found != len_bytes || found < INDEX_HEADER_LEN as u64 {
            return Err(bad(0, format!("the file has {found} bytes, the catalogue says {len_bytes}")));
        }
        let header = file.read(0..INDEX_HEADER_LEN as u64)?.into_owned();
        if header.get(..8) != Some(&INDEX_MAGIC) {
            return Err(bad(0, "not an index (magic differs)".into()));
        }
        let n_sections = header.u64_at(32).unwrap_or_default();
        let end = n_sections.checked_mul(INDEX_ENTRY_LEN as u64).and_then(|l| l.checked_add(INDEX_HEADER_LEN as u64));
        let Some(end) = end.filter(|e| n_sections > 0 && *e <= found) else {
            return Err(bad(32, format!("{n_sections} sections do not fit the file")));
        };
        let directory = file.read(INDEX_HEADER_LEN as u64..end)?.into_owned();
        if header.u64_at(56) != Some(header_checksum(header.get(..56).unwrap_or_default(), &directory)) {
            return Err(bad(0, "header checksum differs".into()));
        }
        let version = header.u16_at(8).unwrap_or_default();
        if !(OLDEST_READABLE..=CURRENT).contains(&version) {
            let (found, oldest, current) = (version.into(), OLDEST_READABLE.into(), CURRENT.into());
            return Err(EngineError::UnsupportedVersion { path: path.into(), found, oldest, current });
        }
        if header.get(10) != Some(&kind.id()) || header.u64_at(16) != Some(id.unsigned_abs()) {
            return Err(bad(10, "another index's file".into()));
        }
        let mut this = Self { file, path: path.to_string(), rows: RowSet::Range(0..0), directory };
        let rows = RowSet::from_bytes(&this.section(0)?).filter(|r| Some(r.len() as u64) == header.u64_at(24));
        this.rows = rows.ok_or_else(|| bad(24, "its rows are none".into()))?;
        Ok(this)
    }

    /// The rows that it covers, in the order in which sections count them.
    pub fn rows(&self) -> &RowSet {
        &self.rows
    }

    /// Sections after the rows.
    pub fn n_sections(&self) -> usize {
        (self.directory.len() / INDEX_ENTRY_LEN).saturating_sub(1)
    }

    /// How messages name the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn section(&self, entry: usize) -> Result<Cow<'_, [u8]>> {
        let at = entry * INDEX_ENTRY_LEN;
        let field = |i: usize| self.directory.u64_at(at + 8 * i);
        let (Some(start), Some(len), Some(checksum)) = (field(0), field(1), field(2)) else {
            return Err(EngineError::corrupt(&self.path, 0, format!("no section {entry}")));
        };
        let bytes = self.file.read(start..start.saturating_add(len))?;
        if XxHash3_64::oneshot(&bytes) != checksum {
            return Err(EngineError::corrupt(&self.path, start, "section checksum differs"));
        }
        Ok(bytes)
    }

    /// The bytes of a section, checked.
    ///
    /// Errors: `Corrupt`.
    pub fn bytes(&self, section: usize) -> Result<Cow<'_, [u8]>> {
        self.section(section + 1)
    }

    /// A column of a by-example index, checked.
    ///
    /// Errors: `Corrupt`.
    pub fn by_example_column(&self, column: usize) -> Result<ByExampleColumn> {
        let bytes = self.bytes(column)?;
        ByExampleColumn::parse(&bytes, self.rows.len())
            .ok_or_else(|| EngineError::corrupt(&self.path, 0, format!("column {column} is damaged")))
    }

    /// Checks every byte.
    ///
    /// Errors: `Corrupt`.
    fn check(&self, kind: IndexKind) -> Result<()> {
        let mut at = (INDEX_HEADER_LEN + self.directory.len()) as u64;
        for entry in 0..=self.n_sections() {
            if self.directory.u64_at(entry * INDEX_ENTRY_LEN) != Some(at) {
                return Err(EngineError::corrupt(&self.path, at, "bytes between sections"));
            }
            at += self.section(entry)?.len() as u64;
        }
        if at != self.file.len_bytes() {
            return Err(EngineError::corrupt(&self.path, at, "bytes after the last section"));
        }
        match kind {
            IndexKind::ByExample => (0..self.n_sections()).try_for_each(|c| self.by_example_column(c).map(drop)),
            IndexKind::Thresholds => self.thresholds().map(drop),
            IndexKind::Hnsw => Ok(()),
        }
    }
}

impl Store {
    /// Writes an index of `record` and registers it, in place of an earlier one of the same kind and the same values.
    ///
    /// Errors: `Locked`, `Io`, `Catalog`; then nothing has changed.
    pub fn put_index(&self, record: &IntermediateRecord, new: &NewIndex) -> Result<IndexRecord> {
        let _guard = self.writer_lock()?;
        // An earlier try may have left its file.
        self.remove_orphans()?;
        let like = new.record(0, 0);
        let (id, replaced) = {
            let catalog = self.catalog();
            let agrees = |old: &IndexRecord| {
                old.kind == new.kind.name() && new.kind.same().iter().all(|f| old.param(f) == like.param(f))
            };
            let old = catalog.indexes(Some(record.id))?;
            let replaced: Vec<i64> = old.iter().filter(|o| agrees(o)).map(|o| o.id).collect();
            (catalog.next_index_id()?, replaced)
        };
        let bytes = new.to_bytes(id);
        let index = IndexRecord { intermediate_id: record.id, ..new.record(id, bytes.len() as u64) };
        let file = path(id);
        let mut writing = self.storage().create(&file)?;
        let written = writing.append(&bytes).and_then(|()| writing.finish());
        if let Err(e) = written.and_then(|()| self.storage().sync_dir(DIR)) {
            self.discard(&file);
            return Err(e);
        }
        // Whether a transaction that failed is durable only the catalogue can say: until then the file stays.
        self.catalog().add_index(&**self.storage(), &index, &replaced)?;
        replaced.iter().for_each(|id| self.discard(&path(*id)));
        Ok(index)
    }

    /// Removes a file that the catalogue does not name; where that fails, the next log does it.
    fn discard(&self, file: &str) {
        if let Err(e) = self.storage().remove(file) {
            tracing::debug!("{file} is left for the next log to remove: {e}");
        }
    }

    /// The indexes of an intermediate, or all, oldest first.
    ///
    /// Errors: `Catalog`.
    pub fn indexes(&self, record: Option<&IntermediateRecord>) -> Result<Vec<IndexRecord>> {
        self.catalog().indexes(record.map(|r| r.id))
    }

    /// An index's file, its header and directory checked; sections are checked as they are read.
    ///
    /// Errors: `Corrupt`, `Io`, `UnsupportedVersion`; `Unsupported` for a kind that this build does not know.
    pub fn open_index(&self, index: &IndexRecord) -> Result<IndexFile> {
        let kind = IndexKind::ALL.into_iter().find(|k| k.name() == index.kind).ok_or_else(|| {
            let why = format!("this build knows no index of kind {:?}; drop it, or use a newer mistique", index.kind);
            EngineError::Unsupported { what: format!("index {}", index.id), why }
        })?;
        if index.file != path(index.id) {
            return Err(EngineError::corrupt("catalog.db", 0, format!("index {} has another's file", index.id)));
        }
        let file = self.storage().open(&index.file)?;
        IndexFile::parse(file, &index.file, index.id, index.len_bytes, kind)
    }

    /// Forgets an index and removes its file.
    ///
    /// Errors: `NotFound`, `Locked`, `Catalog`.
    pub fn drop_index(&self, id: i64) -> Result<IndexRecord> {
        let _guard = self.writer_lock()?;
        let mut catalog = self.catalog();
        let all = catalog.indexes(None)?;
        let Some(index) = all.iter().find(|i| i.id == id) else {
            let nearest = all.iter().map(|i| i.id.to_string()).collect();
            return Err(EngineError::NotFound { what: "index", name: id.to_string(), nearest });
        };
        catalog.remove_index(id)?;
        drop(catalog);
        self.discard(&path(id));
        Ok(index.clone())
    }

    /// Removes index files that the catalogue does not name. The caller holds the writer's lock. Returns their bytes.
    pub(crate) fn remove_orphan_indexes(&self) -> Result<u64> {
        let known: std::collections::HashSet<i64> = self.indexes(None)?.into_iter().map(|i| i.id).collect();
        let mut freed = 0;
        for file in self.storage().list(DIR)? {
            if id_of(&file.name).is_some_and(|id| !known.contains(&id)) {
                self.storage().remove(&format!("{DIR}/{}", file.name))?;
                freed += file.len_bytes;
            }
        }
        Ok(freed)
    }

    /// Reads every byte of every index and names all damage; `records` are the intermediates that there are.
    pub(crate) fn verify_indexes(&self, records: &[IntermediateRecord], report: &mut VerifyReport) {
        // A list that cannot be read is damage of the catalogue, which is named there.
        for index in self.indexes(None).unwrap_or_default() {
            report.n_indexes += 1;
            report.bytes += index.len_bytes;
            let kind = IndexKind::ALL.into_iter().find(|k| k.name() == index.kind).unwrap_or(IndexKind::Hnsw);
            if let Err(e) = self.open_index(&index).and_then(|file| file.check(kind)) {
                let served = records.iter().filter(|k| k.id == index.intermediate_id);
                let keys = served.map(|k| k.key.to_string()).collect();
                report.damage.push(Damage { place: path(index.id), why: e.to_string(), keys });
            }
        }
    }
}
