//! Datasets: the named, fingerprinted inputs that row ids belong to.
//!
//! A row id is a position: row 7 of a dataset is the same example wherever it is read. A [`Spec`] names a dataset as on
//! the command line (`cifar10:DIR?split=test`), [`open`] loads it, and a [`Dataset`] hands out rows as `f32`, labels, and
//! for tabular data the whole table as Arrow. Its [`fingerprint`](Dataset::fingerprint) depends on the content alone, so
//! that a store notices when a path holds other data than before.
//!
//! ```
//! use mistique_datasets::{open, Spec};
//!
//! let spec: Spec = "digits".parse()?;
//! let digits = open(&spec)?;
//! assert_eq!((digits.n_rows(), digits.row_shape()), (1797, &[1, 8, 8][..]));
//!
//! let mut values = Vec::new();
//! digits.read_rows(&[0, 42], &mut values)?;
//! assert_eq!(values.len(), 2 * digits.row_len());
//! # Ok::<(), mistique_datasets::DatasetError>(())
//! ```
//!
//! A new kind of dataset is one new file with a [`Loader`] and one line in `loaders.rs`.

mod cifar;
mod csv_file;
mod dataset;
mod detmath;
mod digits;
mod error;
mod fetch;
mod files;
mod fingerprint;
mod generate_housing;
mod generate_images;
mod generate_table;
mod generate_zillow;
mod generate_zillow_property;
mod idx;
mod images;
mod known;
mod loaders;
mod npy;
mod npy_dataset;
mod parquet_file;
mod prng;
mod spec;
mod split;
mod suggest;
mod table;
mod table_hash;
mod table_set;
mod tar;

pub use csv_file::{CsvFile, read_csv, read_csv_as};
pub use dataset::{Dataset, LeftOut, open};
pub use error::DatasetError;
pub use fetch::fetch;
pub use generate_housing::housing_batch;
pub use generate_table::table_batch;
pub use known::{KNOWN, Known, KnownFile, known};
pub use loaders::{LOADERS, Loader, Target};
pub use npy::{NpyArray, NpyData, read_npy, read_npy_from, write_npy};
pub use parquet_file::read_parquet;
pub use spec::Spec;
pub use split::Split;
pub use suggest::nearest;
pub use table_set::{Generated, TableFile, TableSet, open_tables};
