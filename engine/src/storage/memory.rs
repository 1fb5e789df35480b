//! A store in memory, which knows what was made durable: [`MemoryStorage::crash`] forgets the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::{FileInfo, ReadFile, Storage, WriteFile, slice_ranges};
use crate::error::{CatalogContext, EngineError, Result};

#[derive(Default, Clone)]
struct MemoryFile {
    bytes: Arc<Vec<u8>>,
    synced: bool,
    /// Whether the folder's entry is durable too.
    linked: bool,
}

type Files = Arc<Mutex<BTreeMap<String, MemoryFile>>>;

/// Files in memory; clones share them.
#[derive(Clone)]
pub struct MemoryStorage {
    files: Files,
    writing: Arc<Mutex<bool>>,
    capacity_bytes: Option<u64>,
    catalog_uri: String,
    // A shared in-memory database lives as long as one connection to it.
    _keep: Arc<Mutex<Connection>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStorage {
    /// An empty store; `capacity_bytes` bounds its files, as a disk does.
    ///
    /// Errors: `Catalog` when SQLite cannot make an in-memory database.
    pub fn new(capacity_bytes: Option<u64>) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let catalog_uri = format!("file:mistique-{}?mode=memory&cache=shared", NEXT.fetch_add(1, Ordering::Relaxed));
        let keep = open_uri(&catalog_uri)?;
        Ok(Self {
            files: Files::default(),
            writing: Arc::default(),
            capacity_bytes,
            catalog_uri,
            _keep: Arc::new(Mutex::new(keep)),
        })
    }

    /// Forgets every file that was not made durable, entry and content, as a power cut does.
    pub fn crash(&self) {
        lock(&self.files).retain(|_, f| f.synced && f.linked);
    }

    /// The same files on a disk of another size.
    #[must_use]
    pub fn resized(&self, capacity_bytes: Option<u64>) -> Self {
        Self { capacity_bytes, ..self.clone() }
    }

    /// Changes a stored file, to try how damage is met.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(file) = lock(&self.files).get_mut(path) {
            change(Arc::make_mut(&mut file.bytes));
        }
    }
}

fn open_uri(uri: &str) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).doing("open the catalog in memory")
}

fn not_found(path: &str, op: &'static str) -> EngineError {
    EngineError::io(path, op, std::io::ErrorKind::NotFound.into())
}

impl Storage for MemoryStorage {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        let mut files = lock(&self.files);
        if files.contains_key(path) {
            return Err(EngineError::io(path, "create", std::io::ErrorKind::AlreadyExists.into()));
        }
        files.insert(path.to_string(), MemoryFile::default());
        Ok(Box::new(MemoryWrite {
            files: Arc::clone(&self.files),
            path: path.to_string(),
            capacity_bytes: self.capacity_bytes,
        }))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        let files = lock(&self.files);
        let file = files.get(path).ok_or_else(|| not_found(path, "open"))?;
        Ok(Arc::new(MemoryRead { bytes: Arc::clone(&file.bytes), path: path.to_string() }))
    }

    fn list(&self, dir: &str) -> Result<Vec<FileInfo>> {
        let files = lock(&self.files);
        let inside = files.iter().filter_map(|(path, f)| {
            let name = path.strip_prefix(dir)?.strip_prefix('/')?;
            Some(FileInfo { name: name.to_string(), len_bytes: f.bytes.len() as u64 })
        });
        Ok(inside.collect())
    }

    fn remove(&self, path: &str) -> Result<()> {
        lock(&self.files).remove(path).map(|_| ()).ok_or_else(|| not_found(path, "remove"))
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        for (path, file) in lock(&self.files).iter_mut() {
            file.linked |= path.strip_prefix(dir).is_some_and(|p| p.starts_with('/'));
        }
        Ok(())
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let used: u64 = lock(&self.files).values().map(|f| f.bytes.len() as u64).sum();
        Ok(self.capacity_bytes.map(|c| c.saturating_sub(used)))
    }

    fn open_catalog(&self) -> Result<Connection> {
        open_uri(&self.catalog_uri)
    }

    fn lock_writer(&self) -> Result<Box<dyn Send + Sync>> {
        let mut writing = lock(&self.writing);
        if *writing {
            return Err(EngineError::Locked { path: self.describe() });
        }
        *writing = true;
        Ok(Box::new(WriterGuard(Arc::clone(&self.writing))))
    }

    fn describe(&self) -> String {
        "memory".to_string()
    }

    fn medium(&self) -> String {
        "memory".into()
    }
}

struct WriterGuard(Arc<Mutex<bool>>);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        *lock(&self.0) = false;
    }
}

struct MemoryWrite {
    files: Files,
    path: String,
    capacity_bytes: Option<u64>,
}

impl WriteFile for MemoryWrite {
    fn append_all(&mut self, pieces: &mut [IoSlice<'_>]) -> Result<()> {
        let mut files = lock(&self.files);
        let used: u64 = files.values().map(|f| f.bytes.len() as u64).sum();
        let more: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.capacity_bytes.is_some_and(|c| used + more > c) {
            return Err(EngineError::io(&self.path, "write", std::io::ErrorKind::StorageFull.into()));
        }
        let file = files.get_mut(&self.path).ok_or_else(|| not_found(&self.path, "write"))?;
        let bytes = Arc::make_mut(&mut file.bytes);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        match lock(&self.files).get_mut(&self.path) {
            Some(file) => file.synced = true,
            None => return Err(not_found(&self.path, "sync")),
        }
        Ok(())
    }
}

struct MemoryRead {
    bytes: Arc<Vec<u8>>,
    path: String,
}

impl ReadFile for MemoryRead {
    fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_many<'a>(&'a self, ranges: &[Range<u64>]) -> Result<Vec<Cow<'a, [u8]>>> {
        slice_ranges(&self.path, &self.bytes, ranges)
    }
}
