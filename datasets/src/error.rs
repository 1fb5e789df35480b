//! What can go wrong with a dataset.

use std::path::PathBuf;

/// Why a dataset could not be opened, read or fetched. Every message names the file or spec, what was expected, and what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The spec is not one that any loader reads.
    #[error("dataset '{spec}': {why}; {hint}")]
    BadSpec {
        /// The spec as given.
        spec: String,
        /// What is wrong with it.
        why: String,
        /// What to write instead.
        hint: String,
    },
    /// A file or directory that the dataset needs is not there.
    #[error("{path}: not found, expected {expected}; {hint}")]
    NotFound {
        /// The missing file or directory.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
        /// What to do.
        hint: String,
    },
    /// The operating system refused an operation.
    #[error("{path}: cannot {operation}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation, as a verb.
        operation: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file is shorter or longer than its format or its own header says.
    #[error(
        "{path}: {found_bytes} bytes, expected {expected}; the file is truncated or foreign: copy or download it again"
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length, after decompression where it is compressed.
        found_bytes: u64,
        /// The expected length, in words.
        expected: String,
    },
    /// A file is not of the format that was asked for, or is damaged.
    #[error("{path}: not {expected}: {why}; {hint}")]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// The expected format.
        expected: &'static str,
        /// What was found.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A line of a text table cannot be read.
    #[error("{path}: line {line}, column {column}: {why}; correct or remove the line")]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Line number in the file, from 1.
        line: u64,
        /// Name of the column, or its number from 1 where it has none.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// A label is missing or cannot be used as one.
    #[error("{origin}: label of row {row} is {found}, expected {expected}")]
    BadLabel {
        /// The file or generator.
        origin: String,
        /// The row id.
        row: u64,
        /// The value found.
        found: String,
        /// What a label may be.
        expected: String,
    },
    /// A named column does not exist.
    #[error("{origin}: no column '{column}'; the columns are {present}")]
    NoSuchColumn {
        /// The file or generator.
        origin: String,
        /// The name asked for.
        column: String,
        /// The names there are.
        present: String,
    },
    /// The data is well formed, but of a kind that is not supported.
    #[error("{origin}: {what} is not supported; {hint}")]
    Unsupported {
        /// The file or generator.
        origin: String,
        /// The unsupported thing.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A row id is not below the number of rows.
    #[error("row {row} is out of range: the dataset has {n_rows} rows, ids 0 to {}", n_rows.saturating_sub(1))]
    RowOutOfRange {
        /// The row id asked for.
        row: u64,
        /// Rows in the dataset.
        n_rows: u64,
    },
    /// Arrow refused a table.
    #[error("{origin}: {source}; check that the file is complete and was written by a recent writer")]
    Arrow {
        /// The file or generator.
        origin: String,
        /// Arrow's reason.
        source: arrow::error::ArrowError,
    },
    /// A Parquet file cannot be read.
    #[error("{path}: not a readable Parquet file: {source}; check that the file is complete")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        source: parquet::errors::ParquetError,
    },
    /// No dataset of this name can be downloaded.
    #[error("'{name}' is not a dataset that can be fetched; known: {known}")]
    UnknownDownload {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The host cannot be reached.
    #[error(
        "cannot reach {host}: {why}; the machine seems to be offline; download {url} yourself on another machine and put {file} in {dir}"
    )]
    Offline {
        /// The host.
        host: String,
        /// The network's reason.
        why: String,
        /// The address to download.
        url: String,
        /// Name under which the file is expected.
        file: String,
        /// Directory in which it is expected.
        dir: PathBuf,
    },
    /// The server answered something else than the file.
    #[error("{url}: {why}; try later, or download the file yourself and put {file} in {dir}")]
    Http {
        /// The address.
        url: String,
        /// The server's answer or the protocol error.
        why: String,
        /// Name under which the file is expected.
        file: String,
        /// Directory in which it is expected.
        dir: PathBuf,
    },
    /// The connection broke before the end; what arrived is kept.
    #[error(
        "{url}: connection lost after {done_bytes} of {total_bytes} bytes ({why}); fetch again to resume from {part}"
    )]
    Interrupted {
        /// The address.
        url: String,
        /// Bytes on disk.
        done_bytes: u64,
        /// Bytes of the whole file.
        total_bytes: u64,
        /// The network's reason.
        why: String,
        /// The partial file.
        part: PathBuf,
    },
    /// A file has not the published digest.
    #[error("{path}: SHA-256 is {found}, published {expected}; {hint}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// The published digest, in hexadecimal.
        expected: String,
        /// The digest found, in hexadecimal.
        found: String,
        /// What was done and what to do.
        hint: &'static str,
    },
}

// Results pass errors by value: growth beyond this would be felt by every caller.
const _: () = assert!(size_of::<DatasetError>() <= 136);
