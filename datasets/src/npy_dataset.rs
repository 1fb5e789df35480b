//! An `.npy` array as a dataset: its first axis is the rows.

use std::path::Path;

use crate::dataset::checked_row;
use crate::fingerprint::Fingerprint;
use crate::{Dataset, DatasetError, Loader, NpyArray, NpyData, Spec, Target, read_npy};

pub(crate) const LOADER: Loader = Loader {
    name: "npy",
    usage: "npy:FILE[?labels=FILE][&scale=S]",
    about: "a numpy array of floats or integers, first axis rows, values divided by S (255 for images of bytes)",
    target: Target::File,
    options: &["labels", "scale"],
    path_options: &["labels"],
    open,
};

struct ArrayDataset {
    data: NpyData,
    n_rows: usize,
    row_shape: Vec<usize>,
    scale: f32,
    labels: Option<Vec<u32>>,
    fingerprint: [u8; 16],
}

fn open(spec: &Spec) -> Result<Box<dyn Dataset>, DatasetError> {
    let path = spec.target();
    let NpyArray { shape, data } = read_npy(&path)?;
    let Some((&n_rows, row_shape)) = shape.split_first() else {
        return Err(DatasetError::Unsupported {
            origin: path.display().to_string(),
            what: "an array without axes".to_owned(),
            hint: "save an array whose first axis is the rows",
        });
    };
    let scale = match spec.option("scale").map(str::parse::<f32>) {
        None => 1.0,
        Some(Ok(scale)) if scale.is_normal() => scale,
        Some(_) => {
            return Err(spec.bad("scale is not a number by which values can be divided", "write for example scale=255"));
        }
    };
    let labels = spec.option("labels").map(|path| read_labels(Path::new(path), n_rows)).transpose()?;
    let mut fingerprint = Fingerprint::new("array");
    fingerprint.shape(n_rows, row_shape);
    fingerprint.number(u64::from(scale.to_bits()));
    data.hash_into(&mut fingerprint);
    fingerprint.labels(labels.as_deref());
    let (row_shape, fingerprint) = (row_shape.to_vec(), fingerprint.finish());
    Ok(Box::new(ArrayDataset { data, n_rows, row_shape, scale, labels, fingerprint }))
}

fn read_labels(path: &Path, n_rows: usize) -> Result<Vec<u32>, DatasetError> {
    let NpyArray { shape, data } = read_npy(path)?;
    if shape != [n_rows] {
        return Err(DatasetError::WrongFormat {
            path: path.to_owned(),
            expected: "labels of the array",
            why: format!("its shape is {shape:?}, expected [{n_rows}]"),
            hint: "save one whole number a row",
        });
    }
    fn convert<T: Copy + TryInto<u32> + ToString>(path: &Path, values: &[T]) -> Result<Vec<u32>, DatasetError> {
        let convert_one = |(row, &value): (usize, &T)| {
            value.try_into().map_err(|_| DatasetError::BadLabel {
                origin: path.display().to_string(),
                row: row as u64,
                found: value.to_string(),
                expected: "a whole number from 0 to 4294967295".to_owned(),
            })
        };
        values.iter().enumerate().map(convert_one).collect()
    }
    match &data {
        NpyData::I8(values) => convert(path, values),
        NpyData::I16(values) => convert(path, values),
        NpyData::I32(values) => convert(path, values),
        NpyData::I64(values) => convert(path, values),
        NpyData::U8(values) => convert(path, values),
        NpyData::U16(values) => convert(path, values),
        NpyData::U32(values) => convert(path, values),
        NpyData::U64(values) => convert(path, values),
        NpyData::Bool(values) => Ok(values.iter().map(|&value| u32::from(value)).collect()),
        NpyData::F16(_) | NpyData::F32(_) | NpyData::F64(_) => Err(DatasetError::Unsupported {
            origin: path.display().to_string(),
            what: format!("labels of type {}", data.dtype()),
            hint: "save them as integers",
        }),
    }
}

impl Dataset for ArrayDataset {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn row_shape(&self) -> &[usize] {
        &self.row_shape
    }

    fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    fn read_rows(&self, rows: &[u64], out: &mut Vec<f32>) -> Result<(), DatasetError> {
        let len = self.row_len();
        out.clear();
        out.reserve(rows.len() * len);
        for &row in rows {
            let start = checked_row(row, self.n_rows)? * len;
            self.data.extend_f32(start..start + len, out);
        }
        if self.scale != 1.0 {
            out.iter_mut().for_each(|value| *value /= self.scale);
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::{open, write_npy};

    fn save<T: npyz::AutoSerialize>(path: &Path, shape: &[u64], values: &[T]) {
        use npyz::WriterBuilder;
        let file = File::create(path).unwrap();
        let mut npy = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
        npy.extend(values).unwrap();
        npy.finish().unwrap();
    }

    #[test]
    fn rows_labels_and_scale() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
        save(&x, &[3, 2, 1], &[0u8, 51, 102, 153, 204, 255]);
        save(&y, &[3], &[4i64, 0, 2]);
        let load = |options: String| open(&format!("npy:{}{options}", x.display()).parse().unwrap());
        let plain = load(String::new()).unwrap();
        assert_eq!((plain.n_rows(), plain.row_shape(), plain.labels()), (3, &[2, 1][..], None));
        let mut out = Vec::new();
        plain.read_rows(&[2, 0], &mut out).unwrap();
        assert_eq!(out, [204.0, 255.0, 0.0, 51.0]);
        assert!(plain.read_rows(&[3], &mut out).is_err());

        let scaled = load(format!("?scale=255&labels={}", y.display())).unwrap();
        scaled.read_rows(&[1], &mut out).unwrap();
        assert_eq!((out, scaled.labels()), (vec![0.4, 0.6], Some(&[4, 0, 2][..])));
        assert_ne!(plain.fingerprint(), scaled.fingerprint());

        assert!(load("?scale=0".to_owned()).err().unwrap().to_string().contains("scale=255"));
        save(&y, &[2], &[4i64, 0]);
        assert!(load(format!("?labels={}", y.display())).err().unwrap().to_string().contains("expected [3]"));
        save(&y, &[3], &[4i64, 0, -1]);
        assert!(load(format!("?labels={}", y.display())).err().unwrap().to_string().contains("label of row 2 is -1"));
        save(&y, &[3], &[0.5f32; 3]);
        assert!(load(format!("?labels={}", y.display())).err().unwrap().to_string().contains("labels of type float32"));
    }

    #[test]
    fn fingerprint_is_of_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for (name, shape, values) in [
            ("a", [2, 2], [1.0, 2.0, 3.0, 4.0]),
            ("b", [2, 2], [1.0, 2.0, 3.0, 4.0]),
            ("c", [4, 1], [1.0, 2.0, 3.0, 4.0]),
        ] {
            let path = dir.path().join(name);
            write_npy(File::create(&path).unwrap(), &shape, &values).unwrap();
            seen.push(open(&format!("npy:{}", path.display()).parse().unwrap()).unwrap().fingerprint());
        }
        assert_eq!(seen[0], seen[1]);
        assert_ne!(seen[0], seen[2]);
    }
}
