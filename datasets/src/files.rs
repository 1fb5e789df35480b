//! Reading whole files with errors that name them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::DatasetError;

/// Opens `path`; `expected` says what it should be and `hint` what to do if it is not there.
pub(crate) fn open_file(path: &Path, expected: &'static str, hint: &str) -> Result<File, DatasetError> {
    File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => DatasetError::NotFound { path: path.to_owned(), expected, hint: hint.to_owned() },
        _ => io_error(path, "open")(source),
    })
}

/// All bytes of `path`.
pub(crate) fn read_file(path: &Path, expected: &'static str, hint: &str) -> Result<Vec<u8>, DatasetError> {
    let mut bytes = Vec::new();
    open_file(path, expected, hint)?.read_to_end(&mut bytes).map_err(io_error(path, "read"))?;
    Ok(bytes)
}

/// Turns an I/O error into one that names the file and the operation.
pub(crate) fn io_error(path: &Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> DatasetError {
    move |source| DatasetError::Io { path: path.to_owned(), operation, source }
}
