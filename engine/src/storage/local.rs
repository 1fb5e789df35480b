//! A store in a folder of the local file system, read by `mmap`.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memmap2::Mmap;
use rusqlite::{Connection, OpenFlags};

use super::{FileInfo, ReadFile, Storage, WriteFile, slice_ranges};
use crate::error::{CatalogContext, EngineError, Result};

/// A folder.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
}

const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

impl LocalStorage {
    /// The store in `root`, which is created where it is absent.
    ///
    /// Errors: `Io` when the folder cannot be made; `DamagedCatalog` where only the catalogue is gone.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let this = Self { root: root.into() };
        if !this.root.join("catalog.db").is_file() {
            crate::catalog::check_not_lost(&this)?;
        }
        for dir in ["partitions", "operators", "indexes"] {
            let path = this.root.join(dir);
            fs::create_dir_all(&path).map_err(|e| EngineError::io(path.display().to_string(), "create folder", e))?;
        }
        this.sync_dir("")?;
        Ok(this)
    }

    /// The store in `root`, which must exist.
    ///
    /// Errors: `NoStore`; `DamagedCatalog` where only the catalogue is gone.
    pub fn existing(root: impl Into<PathBuf>) -> Result<Self> {
        let this = Self { root: root.into() };
        if this.root.join("catalog.db").is_file() {
            return Ok(this);
        }
        crate::catalog::check_not_lost(&this)?;
        Err(EngineError::NoStore { path: this.root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

fn io(path: &Path, op: &'static str) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.display().to_string();
    move |e| EngineError::io(path, op, e)
}

/// File system and device of the mount that `path` lies in, by Linux's list of them (`man 5 proc_pid_mountinfo`).
fn medium(path: &Path, mounts: &str) -> Option<String> {
    let mount = |line: &str| {
        let (of_mount, of_system) = line.split_once(" - ")?;
        let point = of_mount.split(' ').nth(4)?.replace("\\040", " ");
        let mut of_system = of_system.split(' ');
        let (kind, device) = (of_system.next()?, of_system.next()?);
        path.starts_with(&point).then(|| (point.len(), format!("{kind} {device}")))
    };
    // Of several on one folder the last one is seen.
    mounts.lines().filter_map(mount).max_by_key(|(len, _)| *len).map(|(_, medium)| medium)
}

impl Storage for LocalStorage {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        let path = self.path(path);
        // Stores of earlier versions lack the folders that were added since.
        if let Some(dir) = path.parent().filter(|d| !d.exists()) {
            fs::create_dir(dir).map_err(io(dir, "create folder"))?;
            self.sync_dir("")?;
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io(&path, "create"))?;
        Ok(Box::new(LocalWrite { file, path }))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        let path = self.path(path);
        let file = File::open(&path).map_err(io(&path, "open"))?;
        let len = file.metadata().map_err(io(&path, "stat"))?.len();
        let map = if len == 0 {
            None
        } else {
            // SAFETY: partition and operator files are written once, fsynced, then never changed or truncated by us;
            // readers check the length against the catalogue before they trust offsets.
            #[expect(unsafe_code, reason = "mmap is five times faster than pread here")]
            let map = unsafe { Mmap::map(&file) }.map_err(io(&path, "map"))?;
            Some(map)
        };
        Ok(Arc::new(LocalRead { map, path: path.display().to_string() }))
    }

    fn list(&self, dir: &str) -> Result<Vec<FileInfo>> {
        let path = self.path(dir);
        let entries = match fs::read_dir(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io(&path, "list"))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io(&path, "list"))?;
            let meta = entry.metadata().map_err(io(&path, "stat"))?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push(FileInfo { name, len_bytes: meta.len() });
            }
        }
        Ok(files)
    }

    fn remove(&self, path: &str) -> Result<()> {
        let path = self.path(path);
        fs::remove_file(&path).map_err(io(&path, "remove"))
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let path = self.path(dir);
        File::open(&path).and_then(|f| f.sync_all()).map_err(io(&path, "sync folder"))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|e| io(&self.root, "stat")(e.into()))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn open_catalog(&self) -> Result<Connection> {
        Connection::open(self.path("catalog.db")).doing("open catalog.db")
    }

    fn open_catalog_read_only(&self) -> Result<Option<Connection>> {
        // Without a writable folder SQLite cannot keep the WAL's index; an empty or absent WAL is not needed.
        let wal = self.path("catalog.db-wal");
        if fs::metadata(&wal).is_ok_and(|m| m.len() > 0) {
            return Ok(None);
        }
        let path = self.path("catalog.db").display().to_string();
        let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let uri = format!("file:{escaped}?immutable=1");
        Connection::open_with_flags(uri, flags).map(Some).doing("open catalog.db to read")
    }

    fn lock_writer(&self) -> Result<Box<dyn Send + Sync>> {
        let path = self.path("writer.lock");
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(io(&path, "open"))?;
        // A program that this process starts has copies of its files for a moment, and with them a lock just given back.
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Box::new(file)),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(fs::TryLockError::Error(e)) => return Err(io(&path, "lock")(e)),
            }
        }
        Err(EngineError::Locked { path: path.display().to_string() })
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn medium(&self) -> String {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = self.root.canonicalize().unwrap_or_else(|_| self.root.clone());
        medium(&root, &mounts).unwrap_or_default()
    }
}

struct LocalWrite {
    file: File,
    path: PathBuf,
}

impl WriteFile for LocalWrite {
    fn append_all(&mut self, mut pieces: &mut [IoSlice<'_>]) -> Result<()> {
        // Empty ones first, so that a write of nothing means that nothing could be written.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match self.file.write_vectored(pieces) {
                Ok(0) => return Err(io(&self.path, "write")(ErrorKind::WriteZero.into())),
                Ok(n) => IoSlice::advance_slices(&mut pieces, n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(io(&self.path, "write")(e)),
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.sync_all().map_err(io(&self.path, "sync"))
    }
}

struct LocalRead {
    map: Option<Mmap>,
    path: String,
}

impl ReadFile for LocalRead {
    fn len_bytes(&self) -> u64 {
        self.map.as_ref().map_or(0, |m| m.len() as u64)
    }

    fn read_many<'a>(&'a self, ranges: &[Range<u64>]) -> Result<Vec<Cow<'a, [u8]>>> {
        slice_ranges(&self.path, self.map.as_deref().unwrap_or_default(), ranges)
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let bytes = self.map.as_deref().unwrap_or_default();
        match bytes.get(range.start as usize..range.end as usize) {
            Some(slice) => Ok(Cow::Borrowed(slice)),
            None => Ok(slice_ranges(&self.path, bytes, &[range])?.pop().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_medium_of_a_path() {
        let mounts = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:5 / /data rw - xfs /dev/sdb1 rw\n\
                      31 22 0:6 /sub /my\\040disk rw - nfs host:/export rw\nnonsense";
        let of = |path: &str| medium(Path::new(path), mounts);
        assert_eq!(of("/home/x/s.mq").as_deref(), Some("ext4 /dev/sda1"));
        assert_eq!(of("/data/s.mq").as_deref(), Some("xfs /dev/sdb1"));
        assert_eq!(of("/database/s.mq").as_deref(), Some("ext4 /dev/sda1"));
        assert_eq!(of("/my disk/s.mq").as_deref(), Some("nfs host:/export"));
        assert_eq!(medium(Path::new("/x"), ""), None);
    }
}
