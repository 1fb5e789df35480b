//! `--wait`: one process at a time writes to a store, and another may wait for it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{CliError, Result};
use crate::{EngineError, LocalStorage, Storage};

/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a command again when the process that kept it from writing has ended, for at most `wait`. A command that is refused
/// the lock has changed nothing.
pub fn for_writers(store: &Path, wait: Duration, mut command: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        match command() {
            Err(e) if is_locked(&e) && begun.elapsed() < wait => {
                if !said {
                    eprintln!("another process is writing to {}: waiting for it", store.display());
                    said = true;
                }
                loop {
                    std::thread::sleep(LOOK);
                    if !is_written(store) || begun.elapsed() >= wait {
                        break;
                    }
                }
            }
            done => return done,
        }
    }
}

fn is_written(store: &Path) -> bool {
    let lock = LocalStorage::existing(store).and_then(|s| s.lock_writer());
    matches!(lock, Err(EngineError::Locked { .. }))
}

/// Whether a command was kept from writing by another process.
pub fn is_locked(e: &CliError) -> bool {
    matches!(e.engine(), Some(EngineError::Locked { .. }))
}
