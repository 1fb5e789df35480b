//! CIFAR-10, binary version: records of a label byte and 3,072 pixel bytes, channel first.

use std::path::{Path, PathBuf};

use crate::files::read_file;
use crate::images::ByteImages;
use crate::{Dataset, DatasetError, Loader, Spec, Split, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "cifar10",
    usage: "cifar10:DIR[?split=train|test|all]",
    about: "CIFAR-10, binary version: data_batch_1.bin to data_batch_5.bin (as many as there are) and test_batch.bin",
    target: Target::Dir,
    options: &["split"],
    path_options: &[],
    open,
};

const IMAGE_LEN_BYTES: usize = 3 * 32 * 32;
const RECORD_LEN_BYTES: usize = 1 + IMAGE_LEN_BYTES;
const N_CLASSES: usize = 10;
const CLASS_NAMES: [&str; N_CLASSES] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const EXPECTED: &str = "a batch of the CIFAR-10 binary version";
const HINT: &str = "fetch cifar10, or give the directory into which cifar-10-binary.tar.gz was unpacked";

fn open(spec: &Spec) -> Result<Box<dyn Dataset>, DatasetError> {
    let split = Split::of(spec)?;
    let dir = batch_dir(&spec.target());
    let mut batches = Vec::new();
    if split.has_train() {
        batches.extend((1..=5).map(|i| dir.join(format!("data_batch_{i}.bin"))).filter(|path| path.exists()));
        if batches.is_empty() {
            let hint =
                if dir.join("test_batch.bin").exists() { "only the test part is there: add ?split=test" } else { HINT };
            return Err(missing(dir.join("data_batch_1.bin"), hint));
        }
    }
    if split.has_test() {
        batches.push(dir.join("test_batch.bin"));
    }
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in &batches {
        read_batch(path, &mut pixels, &mut labels)?;
    }
    let names = class_names(&dir)?;
    Ok(Box::new(ByteImages::new(pixels, labels, vec![3, 32, 32], u8::MAX, Some(names))))
}

/// `dir`, or the directory that the archive creates when it is unpacked there.
fn batch_dir(dir: &Path) -> PathBuf {
    let unpacked = dir.join("cifar-10-batches-bin");
    if unpacked.is_dir() { unpacked } else { dir.to_owned() }
}

fn missing(path: PathBuf, hint: &str) -> DatasetError {
    DatasetError::NotFound { path, expected: EXPECTED, hint: hint.to_owned() }
}

fn read_batch(path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<(), DatasetError> {
    let bytes = read_file(path, EXPECTED, HINT)?;
    let (records, rest) = bytes.as_chunks::<RECORD_LEN_BYTES>();
    if records.is_empty() || !rest.is_empty() {
        let n = records.len();
        let expected = format!("a multiple of {RECORD_LEN_BYTES} (it ends {} bytes into image {n})", rest.len());
        return Err(DatasetError::WrongLength { path: path.to_owned(), found_bytes: bytes.len() as u64, expected });
    }
    pixels.reserve(records.len() * IMAGE_LEN_BYTES);
    for (i, [label, image @ ..]) in records.iter().enumerate() {
        if usize::from(*label) >= N_CLASSES {
            return Err(DatasetError::WrongFormat {
                path: path.to_owned(),
                expected: EXPECTED,
                why: format!("image {i} has label {label}, labels are 0 to 9"),
                hint: "take the binary version of CIFAR-10 (not CIFAR-100, not the Python version)",
            });
        }
        labels.push(u32::from(*label));
        pixels.extend_from_slice(image);
    }
    Ok(())
}

fn class_names(dir: &Path) -> Result<Vec<String>, DatasetError> {
    let path = dir.join("batches.meta.txt");
    if !path.exists() {
        return Ok(CLASS_NAMES.map(str::to_owned).into());
    }
    let bytes = read_file(&path, "the class names of CIFAR-10", HINT)?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() == N_CLASSES {
        return Ok(names);
    }
    Err(DatasetError::WrongFormat {
        path,
        expected: "the class names of CIFAR-10",
        why: format!("{} names, expected 10, one a line", names.len()),
        hint: "remove the file to use the standard names",
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::open;

    fn record(label: u8, first: u8) -> Vec<u8> {
        let mut record = vec![label, first];
        record.resize(RECORD_LEN_BYTES, 255);
        record
    }

    fn load(dir: &Path, options: &str) -> Result<Box<dyn Dataset>, DatasetError> {
        open(&format!("cifar10:{}{options}", dir.display()).parse().unwrap())
    }

    #[test]
    fn batches_in_order_and_splits() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("data_batch_2.bin"), record(3, 51)).unwrap();
        fs::write(dir.path().join("data_batch_1.bin"), [record(9, 0), record(1, 102)].concat()).unwrap();
        let error = load(dir.path(), "?split=test").err().unwrap().to_string();
        assert!(error.contains("test_batch.bin: not found"), "{error}");
        fs::write(dir.path().join("test_batch.bin"), record(0, 7)).unwrap();

        let train = load(dir.path(), "").unwrap();
        assert_eq!(train.labels(), Some(&[9, 1, 3][..]));
        assert_eq!(train.row_shape(), [3, 32, 32]);
        let mut out = Vec::new();
        train.read_rows(&[2, 1], &mut out).unwrap();
        assert_eq!([out[0], out[1], out[IMAGE_LEN_BYTES]], [0.2, 1.0, 0.4]);
        assert_eq!(load(dir.path(), "?split=all").unwrap().labels(), Some(&[9, 1, 3, 0][..]));
        let test = load(dir.path(), "?split=test").unwrap();
        assert_eq!(test.labels(), Some(&[0][..]));
        assert_ne!(test.fingerprint(), train.fingerprint());
        assert_eq!(train.class_names().unwrap()[9], "truck");

        let names: Vec<String> = (0..10).map(|i| format!("class{i}\n")).collect();
        fs::write(dir.path().join("batches.meta.txt"), names.concat() + "\n").unwrap();
        assert_eq!(load(dir.path(), "").unwrap().class_names().unwrap()[9], "class9");
        fs::write(dir.path().join("batches.meta.txt"), "cat\n").unwrap();
        assert!(load(dir.path(), "").err().unwrap().to_string().contains("1 names, expected 10"));
        assert!(load(dir.path(), "?split=both").err().unwrap().to_string().contains("split=train"));
    }

    #[test]
    fn foreign_and_truncated_batches() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path(), ""), Err(DatasetError::NotFound { .. })));
        let path = dir.path().join("data_batch_1.bin");
        for len in [0, 1, RECORD_LEN_BYTES - 1, 2 * RECORD_LEN_BYTES - 10] {
            fs::write(&path, vec![0; len]).unwrap();
            let error = load(dir.path(), "").err().unwrap();
            assert!(matches!(error, DatasetError::WrongLength { found_bytes, .. } if found_bytes == len as u64));
            assert!(error.to_string().contains(&format!("{len} bytes, expected a multiple of 3073")), "{error}");
        }
        fs::write(&path, record(10, 0)).unwrap();
        assert!(load(dir.path(), "").err().unwrap().to_string().contains("image 0 has label 10"));
    }

    #[test]
    fn sample() {
        let dir = Path::new("../../shared/data/cifar10-sample");
        if !dir.exists() {
            eprintln!("skipped: {} is not there", dir.display());
            return;
        }
        let all = load(dir, "?split=all").unwrap();
        assert_eq!(all.n_rows(), 12_000);
        let mut counts = [0; 10];
        all.labels().unwrap().iter().for_each(|&label| counts[label as usize] += 1);
        assert!(counts.iter().all(|count| (1_100..1_300).contains(count)), "{counts:?}");
    }
}
