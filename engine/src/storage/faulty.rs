//! A storage that fails at its n-th operation, for trying every point at which a disk can fill or a machine stop.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use super::{FileInfo, ReadFile, Storage, WriteFile};
use crate::error::{EngineError, Result};

/// What happens from the n-th operation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultMode {
    /// That operation fails, later ones work.
    Once,
    /// That operation and all later ones fail, as after a crash; a write leaves half of its bytes.
    Crash,
}

#[derive(Debug)]
struct Countdown {
    done: AtomicU64,
    fail_at: u64,
    mode: FaultMode,
}

impl Countdown {
    fn step(&self, path: &str, op: &'static str) -> Result<()> {
        let n = self.done.fetch_add(1, Ordering::SeqCst);
        let fails = match self.mode {
            FaultMode::Once => n == self.fail_at,
            FaultMode::Crash => n >= self.fail_at,
        };
        if fails {
            let injected = std::io::Error::new(std::io::ErrorKind::StorageFull, format!("injected at operation {n}"));
            return Err(EngineError::io(path, op, injected));
        }
        Ok(())
    }
}

/// Wraps a storage; operations are counted from 0.
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    countdown: Arc<Countdown>,
}

impl FaultyStorage {
    /// `inner`, failing at operation `fail_at`.
    pub fn new(inner: Arc<dyn Storage>, fail_at: u64, mode: FaultMode) -> Self {
        Self { inner, countdown: Arc::new(Countdown { done: AtomicU64::new(0), fail_at, mode }) }
    }

    /// How many operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.countdown.done.load(Ordering::SeqCst)
    }
}

impl Storage for FaultyStorage {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        self.countdown.step(path, "create")?;
        let inner = self.inner.create(path)?;
        Ok(Box::new(FaultyWrite { inner, path: path.to_string(), countdown: Arc::clone(&self.countdown) }))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        self.countdown.step(path, "open")?;
        self.inner.open(path)
    }

    fn list(&self, dir: &str) -> Result<Vec<FileInfo>> {
        self.countdown.step(dir, "list")?;
        self.inner.list(dir)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.countdown.step(path, "remove")?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.countdown.step(dir, "sync folder")?;
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        self.inner.free_bytes()
    }

    fn open_catalog(&self) -> Result<Connection> {
        self.countdown.step("catalog.db", "open")?;
        self.inner.open_catalog()
    }

    fn before_catalog_commit(&self) -> Result<()> {
        self.countdown.step("catalog.db", "commit")?;
        self.inner.before_catalog_commit()
    }

    fn lock_writer(&self) -> Result<Box<dyn Send + Sync>> {
        self.inner.lock_writer()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn medium(&self) -> String {
        self.inner.medium()
    }
}

struct FaultyWrite {
    inner: Box<dyn WriteFile>,
    path: String,
    countdown: Arc<Countdown>,
}

impl WriteFile for FaultyWrite {
    fn append_all(&mut self, pieces: &mut [IoSlice<'_>]) -> Result<()> {
        if let Err(e) = self.countdown.step(&self.path, "write") {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            self.inner.append(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
            return Err(e);
        }
        self.inner.append_all(pieces)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.countdown.step(&self.path, "sync")?;
        self.inner.finish()
    }
}
