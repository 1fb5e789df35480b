//! The list of loaders.

use crate::{
    Dataset, DatasetError, Spec, cifar, csv_file, digits, generate_housing, generate_images, generate_table,
    generate_zillow, idx, npy_dataset, parquet_file,
};

/// Every loader. The first whose name a spec starts with reads it.
pub const LOADERS: &[&Loader] = &[
    &digits::LOADER,
    &cifar::LOADER,
    &idx::MNIST,
    &idx::FASHION_MNIST,
    &csv_file::LOADER,
    &parquet_file::LOADER,
    &npy_dataset::LOADER,
    &generate_images::LOADER,
    &generate_table::LOADER,
    &generate_housing::LOADER,
    &generate_zillow::LOADER,
];

/// What follows a loader's name in a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the data is built in or generated.
    Nothing,
    /// `:DIR`, a directory.
    Dir,
    /// `:FILE`, a file.
    File,
}

/// A kind of dataset.
#[derive(Debug)]
pub struct Loader {
    /// Name with which its specs begin.
    pub name: &'static str,
    /// Form of its specs, for help texts.
    pub usage: &'static str,
    /// One sentence on what it reads.
    pub about: &'static str,
    /// What follows the name.
    pub target: Target,
    /// Options it knows.
    pub options: &'static [&'static str],
    /// Those of `options` whose values are paths.
    pub path_options: &'static [&'static str],
    pub(crate) open: fn(&Spec) -> Result<Box<dyn Dataset>, DatasetError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_begin_the_usage() {
        for (i, loader) in LOADERS.iter().enumerate() {
            assert!(loader.usage.starts_with(loader.name), "{}", loader.name);
            assert!(LOADERS[..i].iter().all(|other| other.name != loader.name), "{}", loader.name);
            for option in loader.options {
                assert!(loader.usage.contains(&format!("{option}=")), "{}: {option} is not in the usage", loader.name);
            }
            assert!(loader.path_options.iter().all(|option| loader.options.contains(option)));
        }
    }
}
