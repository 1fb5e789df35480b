//! Damaged files of every format: an error or other data, never a panic.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use mistique_datasets::{Spec, open, read_csv, write_npy};

/// Opens `spec` with every byte of `path` flipped in turn and with every truncation, and reads a row.
fn damage(spec: &str, path: &Path) {
    let spec: Spec = spec.parse().unwrap();
    let whole = fs::read(path).unwrap();
    let try_one = |bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        if let Ok(dataset) = open(&spec) {
            let mut out = Vec::new();
            for row in 0..dataset.n_rows().min(3) as u64 {
                dataset.read_rows(&[row], &mut out).unwrap();
                assert_eq!(out.len(), dataset.row_len());
            }
            assert!(dataset.labels().is_none_or(|labels| labels.len() == dataset.n_rows()));
        }
    };
    for len in 0..whole.len() {
        try_one(&whole[..len]);
    }
    for i in 0..whole.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[i] ^= flip;
            try_one(&bytes);
        }
    }
}

#[test]
fn npy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    write_npy(File::create(&path).unwrap(), &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    damage(&format!("npy:{}", path.display()), &path);
}

#[test]
fn csv() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    fs::write(&path, "a,b,day,\"text, quoted\"\n1,,2024-02-29,\"x\"\"y\"\n-2,0.5,2024-03-01,é\r\n").unwrap();
    damage(&format!("csv:{}?label=a", path.display()), &path);
}

#[test]
fn idx() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("train-images-idx3-ubyte.gz");
    let idx: Vec<u8> = [0x803u32, 2, 2, 2].iter().flat_map(|word| word.to_be_bytes()).chain(1..=8).collect();
    let mut gz = flate2::write::GzEncoder::new(File::create(&images).unwrap(), flate2::Compression::fast());
    gz.write_all(&idx).unwrap();
    gz.finish().unwrap();
    let labels: Vec<u8> = [0x801u32, 2].iter().flat_map(|word| word.to_be_bytes()).chain([1, 2]).collect();
    fs::write(dir.path().join("train-labels-idx1-ubyte"), labels).unwrap();
    damage(&format!("mnist:{}", dir.path().display()), &images);
}

#[test]
fn parquet() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, path) = (dir.path().join("x.csv"), dir.path().join("x.parquet"));
    fs::write(&csv, "a,b,text\n1,0.5,x\n2,,y\n3,1.5,\n").unwrap();
    let batch = read_csv(&csv).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    damage(&format!("parquet:{}", path.display()), &path);
}
