//! Data sets that can be fetched.

/// A data set to download.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Name by which it is fetched, and of the loader that reads it.
    pub name: &'static str,
    /// What it is, and its licence as far as one is stated.
    pub about: &'static str,
    /// Its files.
    pub files: &'static [KnownFile],
}

/// A file of a data set; its name is the last part of the address.
#[derive(Debug, Clone, Copy)]
pub struct KnownFile {
    /// Where it is published.
    pub url: &'static str,
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'static str,
    /// Its length.
    pub len_bytes: u64,
}

impl KnownFile {
    /// Name of the file on disk.
    pub fn file_name(&self) -> &'static str {
        self.url.rsplit_once('/').map_or(self.url, |(_, name)| name)
    }
}

/// Every data set that can be fetched.
pub const KNOWN: &[Known] = &[
    Known {
        name: "cifar10",
        about: "CIFAR-10, binary version: 60,000 colour images of 32×32 in ten classes; no licence stated",
        files: &[KnownFile {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            len_bytes: 170_052_171,
        }],
    },
    Known {
        name: "mnist",
        about: "MNIST: 70,000 handwritten digits of 28×28; no licence stated",
        files: &[
            KnownFile {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
                sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                len_bytes: 9_912_422,
            },
            KnownFile {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
                sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                len_bytes: 28_881,
            },
            KnownFile {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
                sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                len_bytes: 1_648_877,
            },
            KnownFile {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
                sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                len_bytes: 4_542,
            },
        ],
    },
    Known {
        name: "fashion-mnist",
        about: "Fashion-MNIST: 70,000 articles of clothing of 28×28 in ten classes; MIT licence",
        files: &[
            KnownFile {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
                sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                len_bytes: 26_421_880,
            },
            KnownFile {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
                sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                len_bytes: 29_515,
            },
            KnownFile {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
                sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                len_bytes: 4_422_102,
            },
            KnownFile {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
                sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                len_bytes: 5_148,
            },
        ],
    },
];

/// The data set of this name, if it can be fetched.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::LOADERS;
    use crate::fetch::sha256_of;

    #[test]
    fn every_entry_is_complete_and_has_a_loader() {
        for known in KNOWN {
            assert!(LOADERS.iter().any(|loader| loader.name == known.name), "{}", known.name);
            for file in known.files {
                assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
                assert!(!file.file_name().is_empty() && file.len_bytes > 0);
            }
        }
    }

    #[test]
    fn fashion_mnist_digests() {
        let dir = Path::new("../../shared/data/fashion-mnist");
        if !dir.exists() {
            eprintln!("skipped: {} is not there", dir.display());
            return;
        }
        for file in known("fashion-mnist").unwrap().files {
            let path = dir.join(file.file_name());
            assert_eq!(path.metadata().unwrap().len(), file.len_bytes);
            assert_eq!(sha256_of(&path).unwrap(), file.sha256);
        }
    }
}
