//! Where a store's files live. Every file operation of the engine goes through [`Storage`], so that crashes and full
//! disks can be tried at every one of them.

mod faulty;
mod local;
mod memory;

use std::borrow::Cow;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::Connection;

pub use faulty::{FaultMode, FaultyStorage};
pub use local::LocalStorage;
pub use memory::MemoryStorage;

use crate::error::Result;

/// A file's name and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Name inside its folder.
    pub name: String,
    /// Length.
    pub len_bytes: u64,
}

/// The files of one store. Paths are relative to the store, with `/`, and are made by the engine alone: names that
/// users give never become paths.
pub trait Storage: Send + Sync {
    /// A new file to write; an existing one of that path is an error.
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>>;
    /// A file to read.
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>>;
    /// The files of a folder, in no order; an absent folder is empty.
    fn list(&self, dir: &str) -> Result<Vec<FileInfo>>;
    /// Removes a file.
    fn remove(&self, path: &str) -> Result<()>;
    /// Makes the folder's entries durable.
    fn sync_dir(&self, dir: &str) -> Result<()>;
    /// Bytes that can still be written, where that is known.
    fn free_bytes(&self) -> Result<Option<u64>>;
    /// A connection to the MetadataDB.
    fn open_catalog(&self) -> Result<Connection>;
    /// A connection that only reads, for media that cannot be written; `None` where the storage has no such thing, or
    /// what was committed last would not be seen.
    fn open_catalog_read_only(&self) -> Result<Option<Connection>> {
        Ok(None)
    }
    /// Called before each transaction of the MetadataDB commits; an error rolls it back.
    fn before_catalog_commit(&self) -> Result<()> {
        Ok(())
    }
    /// Takes the right to write until the guard is dropped.
    fn lock_writer(&self) -> Result<Box<dyn Send + Sync>>;
    /// How messages name this store.
    fn describe(&self) -> String;
    /// What the files lie on, under which the times of reads are kept; empty where that is not known.
    fn medium(&self) -> String {
        String::new()
    }
}

/// A file being written.
pub trait WriteFile: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.append_all(&mut [IoSlice::new(bytes)])
    }
    /// Appends pieces, one after another, as one operation. What is left of `pieces` has no meaning.
    fn append_all(&mut self, pieces: &mut [IoSlice<'_>]) -> Result<()>;
    /// Makes the content durable and ends the writing.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// An immutable file.
pub trait ReadFile: Send + Sync {
    /// Length.
    fn len_bytes(&self) -> u64;
    /// The bytes of each range, in order; borrowed where the file is mapped. A range past the end is an error.
    fn read_many<'a>(&'a self, ranges: &[Range<u64>]) -> Result<Vec<Cow<'a, [u8]>>>;
    /// The bytes of one range.
    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        Ok(self.read_many(std::slice::from_ref(&range))?.pop().unwrap_or_default())
    }
}

/// Ranges of a slice, checked; `path` names it in errors.
pub(crate) fn slice_ranges<'a>(path: &str, bytes: &'a [u8], ranges: &[Range<u64>]) -> Result<Vec<Cow<'a, [u8]>>> {
    ranges
        .iter()
        .map(|r| {
            let (start, end) = (usize::try_from(r.start), usize::try_from(r.end));
            match (start, end) {
                (Ok(start), Ok(end)) => bytes.get(start..end),
                _ => None,
            }
            .map(Cow::Borrowed)
            .ok_or_else(|| {
                crate::EngineError::corrupt(
                    path,
                    r.start,
                    format!("bytes {}..{} are needed, the file has {}", r.start, r.end, bytes.len()),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let storages: [&dyn Storage; 2] =
            [&LocalStorage::create(dir.path()).unwrap(), &MemoryStorage::new(None).unwrap()];
        // More than a system call takes, some of them empty, the first and the last too.
        let parts: Vec<Vec<u8>> = (0..5000usize).map(|i| vec![i as u8; (i * 7) % 50]).chain([vec![]]).collect();
        for storage in storages {
            let mut file = storage.create("f").unwrap();
            file.append(b"begun ").unwrap();
            file.append_all(&mut parts.iter().map(|p| IoSlice::new(p)).collect::<Vec<_>>()).unwrap();
            file.append_all(&mut []).unwrap();
            file.append_all(&mut [IoSlice::new(&[])]).unwrap();
            file.finish().unwrap();
            let file = storage.open("f").unwrap();
            let found = file.read(0..file.len_bytes()).unwrap();
            assert!(found[..6] == b"begun "[..] && found[6..] == parts.concat(), "{}", storage.describe());
        }
    }
}
