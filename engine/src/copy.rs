//! A copy of a store.

use std::path::Path;

use crate::error::Result;
use crate::partition;
use crate::storage::{LocalStorage, Storage};
use crate::store::Store;

/// Bytes copied at a time.
const PIECE: u64 = 16 << 20;

impl Store {
    /// Writes a copy of all that is committed into the folder `path`, which is made. Nothing is written here meanwhile.
    ///
    /// Errors: `Locked` while another process writes; `Io`, `Catalog`.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let target = LocalStorage::create(path)?;
        // Files that a `gc` removed while they are read would be missed.
        let _guard = self.keep_writers_out()?;
        for dir in [partition::DIR, "operators"] {
            for file in self.storage().list(dir)? {
                self.copy_file(&target, &format!("{dir}/{}", file.name))?;
            }
            target.sync_dir(dir)?;
        }
        self.catalog().copy_to(&target)
    }

    fn copy_file(&self, target: &LocalStorage, path: &str) -> Result<()> {
        let from = self.storage().open(path)?;
        let mut to = target.create(path)?;
        let len = from.len_bytes();
        let mut at = 0;
        while at < len {
            let end = len.min(at + PIECE);
            to.append(&from.read(at..end)?)?;
            at = end;
        }
        to.finish()
    }
}
