//! MNIST and its likes: images and labels in idx files, plain or gzipped.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::files::{io_error, read_file};
use crate::images::ByteImages;
use crate::{Dataset, DatasetError, Loader, Spec, Split, Target};

pub(crate) const MNIST: Loader = Loader {
    name: "mnist",
    usage: "mnist:DIR[?split=train|test|all]",
    about: "MNIST or a data set of its layout: idx files such as train-images-idx3-ubyte, plain or .gz",
    target: Target::Dir,
    options: &["split"],
    path_options: &[],
    open: |spec| open(spec, &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]),
};

pub(crate) const FASHION_MNIST: Loader = Loader {
    name: "fashion-mnist",
    usage: "fashion-mnist:DIR[?split=train|test|all]",
    about: "Fashion-MNIST: the files of MNIST's layout, with the names of the ten kinds of clothing",
    open: |spec| {
        open(
            spec,
            &["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
        )
    },
    ..MNIST
};

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
const HINT: &str = "fetch the data set, or give the directory that holds its idx files";

fn open(spec: &Spec, names: &[&str]) -> Result<Box<dyn Dataset>, DatasetError> {
    let (split, dir) = (Split::of(spec)?, spec.target());
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let mut size = None;
    let parts = [("train", split.has_train()), ("t10k", split.has_test())];
    for (part, _) in parts.into_iter().filter(|(_, wanted)| *wanted) {
        let (images_path, dims, mut bytes) = read_idx(&dir, part, "images", IMAGES_MAGIC)?;
        let (labels_path, label_dims, label_bytes) = read_idx(&dir, part, "labels", LABELS_MAGIC)?;
        let wrong = |path: &Path, why: String| DatasetError::WrongFormat {
            path: path.to_owned(),
            expected: "the companion of the other idx files",
            why,
            hint: "take all files from the same data set",
        };
        if dims[0] != label_dims[0] {
            return Err(wrong(&labels_path, format!("{} labels for {} images", label_dims[0], dims[0])));
        }
        if *size.get_or_insert([dims[1], dims[2]]) != dims[1..] {
            return Err(wrong(
                &images_path,
                format!("images of {}×{}, unlike those of the training part", dims[1], dims[2]),
            ));
        }
        pixels.append(&mut bytes);
        labels.extend(label_bytes.into_iter().map(u32::from));
    }
    let [height, width] = size.unwrap_or_default();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Ok(Box::new(ByteImages::new(pixels, labels, vec![1, height, width], u8::MAX, Some(names))))
}

/// Path, dimensions and values of one idx file of bytes.
fn read_idx(dir: &Path, part: &str, kind: &str, magic: u32) -> Result<(PathBuf, Vec<usize>, Vec<u8>), DatasetError> {
    let n_dims = (magic & 0xff) as usize;
    // Both spellings are found in the wild: the dot is the original's, the hyphen the mirrors'.
    let candidates: Vec<PathBuf> = ['-', '.']
        .iter()
        .flat_map(|dot| ["", ".gz"].map(|end| dir.join(format!("{part}-{kind}{dot}idx{n_dims}-ubyte{end}"))))
        .collect();
    let path = candidates.iter().find(|path| path.exists()).unwrap_or(&candidates[0]).clone();
    let raw = read_file(&path, "an idx file, plain or with .gz behind its name", HINT)?;
    let mut reader: Box<dyn Read> = match raw.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(MultiGzDecoder::new(Cursor::new(raw))),
        false => Box::new(Cursor::new(raw)),
    };
    let (dims, bytes) = parse(&mut reader, &path, magic)?;
    Ok((path, dims, bytes))
}

fn parse(reader: &mut dyn Read, path: &Path, magic: u32) -> Result<(Vec<usize>, Vec<u8>), DatasetError> {
    let n_dims = (magic & 0xff) as usize;
    let mut header = Vec::new();
    let header_len = 4 + 4 * n_dims;
    reader.take(header_len as u64).read_to_end(&mut header).map_err(io_error(path, "read"))?;
    let (words, _) = header.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
    if words.first() != Some(&magic) {
        let found = words.first().map_or_else(|| "nothing".to_owned(), |word| format!("{word:#010x}"));
        return Err(DatasetError::WrongFormat {
            path: path.to_owned(),
            expected: if n_dims == 3 { "an idx file of images" } else { "an idx file of labels" },
            why: format!("it begins with {found}, expected {magic:#010x}"),
            hint: "check that images and labels are not swapped and that the download is complete",
        });
    }
    let wrong = |found: u64, expected: String| DatasetError::WrongLength {
        path: path.to_owned(),
        found_bytes: found,
        expected,
    };
    if words.len() != 1 + n_dims {
        return Err(wrong(header.len() as u64, format!("a header of {header_len}")));
    }
    let dims: Vec<usize> = words[1..].iter().map(|&dim| dim as usize).collect();
    let expected = words[1..].iter().try_fold(1u64, |len, &dim| len.checked_mul(u64::from(dim)));
    let expected = expected.ok_or_else(|| wrong(header.len() as u64, format!("an impossible {dims:?} values")))?;
    let mut bytes = Vec::new();
    reader.take(expected.saturating_add(1)).read_to_end(&mut bytes).map_err(io_error(path, "decompress"))?;
    if bytes.len() as u64 != expected {
        let found = (header_len + bytes.len()) as u64;
        return Err(wrong(found, format!("{} for {dims:?} values", header_len as u64 + expected)));
    }
    Ok((dims, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::open;

    fn images(n: u32, first: u8) -> Vec<u8> {
        let mut file: Vec<u8> = [IMAGES_MAGIC, n, 2, 3].iter().flat_map(|word| word.to_be_bytes()).collect();
        file.extend((0..n as usize * 6).map(|i| first + i as u8));
        file
    }

    fn labels(values: &[u8]) -> Vec<u8> {
        [&LABELS_MAGIC.to_be_bytes()[..], &(values.len() as u32).to_be_bytes(), values].concat()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn load(dir: &Path, options: &str) -> Result<Box<dyn Dataset>, DatasetError> {
        open(&format!("mnist:{}{options}", dir.display()).parse().unwrap())
    }

    #[test]
    fn plain_and_gzipped_are_the_same_dataset() {
        let plain = tempfile::tempdir().unwrap();
        fs::write(plain.path().join("train-images-idx3-ubyte"), images(2, 0)).unwrap();
        fs::write(plain.path().join("train-labels.idx1-ubyte"), labels(&[7, 3])).unwrap();
        let zipped = tempfile::tempdir().unwrap();
        fs::write(zipped.path().join("train-images-idx3-ubyte.gz"), gz(&images(2, 0))).unwrap();
        fs::write(zipped.path().join("train-labels-idx1-ubyte.gz"), gz(&labels(&[7, 3]))).unwrap();

        let (a, b) = (load(plain.path(), "").unwrap(), load(zipped.path(), "").unwrap());
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_eq!((a.row_shape(), a.labels()), (&[1, 2, 3][..], Some(&[7, 3][..])));
        let mut out = Vec::new();
        b.read_rows(&[1], &mut out).unwrap();
        assert_eq!(out, [6, 7, 8, 9, 10, 11].map(|byte| byte as f32 / 255.0));

        fs::write(zipped.path().join("t10k-images-idx3-ubyte.gz"), gz(&images(1, 50))).unwrap();
        fs::write(zipped.path().join("t10k-labels-idx1-ubyte.gz"), gz(&labels(&[11]))).unwrap();
        let all = load(zipped.path(), "?split=all").unwrap();
        assert_eq!(all.labels(), Some(&[7, 3, 11][..]));
        assert_eq!(all.class_names(), None, "label 11 has no name");
        assert!(
            load(plain.path(), "?split=test").err().unwrap().to_string().contains("t10k-images-idx3-ubyte: not found")
        );
    }

    #[test]
    fn truncated_and_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        let (image_path, label_path) =
            (dir.path().join("train-images-idx3-ubyte"), dir.path().join("train-labels-idx1-ubyte"));
        fs::write(&label_path, labels(&[1, 2])).unwrap();
        let whole = images(2, 0);
        for len in 0..whole.len() {
            fs::write(&image_path, &whole[..len]).unwrap();
            let error = load(dir.path(), "").err().unwrap();
            match len {
                0..4 => assert!(matches!(error, DatasetError::WrongFormat { .. }), "{len}: {error}"),
                _ => {
                    assert!(matches!(error, DatasetError::WrongLength { found_bytes, .. } if found_bytes == len as u64))
                }
            }
        }
        for (content, part) in [
            (labels(&[1, 2]), "it begins with 0x00000801, expected 0x00000803"),
            (images(3, 0), "2 labels for 3 images"),
            ([images(2, 0), vec![0]].concat(), "29 bytes, expected 28"),
            (gz(&whole)[..30].to_vec(), "cannot decompress"),
            (
                [IMAGES_MAGIC, u32::MAX, u32::MAX, u32::MAX].iter().flat_map(|word| word.to_be_bytes()).collect(),
                "impossible",
            ),
        ] {
            fs::write(&image_path, content).unwrap();
            let error = load(dir.path(), "").err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn fashion_mnist() {
        let dir = Path::new("../../shared/data/fashion-mnist");
        if !dir.exists() {
            eprintln!("skipped: {} is not there", dir.display());
            return;
        }
        let test = open(&format!("fashion-mnist:{}?split=test", dir.display()).parse().unwrap()).unwrap();
        assert_eq!((test.n_rows(), test.row_shape()), (10_000, &[1, 28, 28][..]));
        assert_eq!(test.labels().unwrap().iter().filter(|&&label| label == 8).count(), 1_000);
        assert_eq!(test.class_names().unwrap()[8], "Bag");
    }
}
