//! Images held in memory as bytes and converted batch by batch.

use crate::dataset::checked_row;
use crate::fingerprint::Fingerprint;
use crate::{Dataset, DatasetError};

/// Labelled images of one byte a value.
pub(crate) struct ByteImages {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    shape: Vec<usize>,
    class_names: Option<Vec<String>>,
    white: f32,
    fingerprint: [u8; 16],
}

impl ByteImages {
    /// Images of `shape`, row after row in `pixels`, of which byte `white` stands for 1. `class_names` is dropped where a
    /// label has none. The caller has checked that there are as many images as labels.
    pub(crate) fn new(
        pixels: Vec<u8>,
        labels: Vec<u32>,
        shape: Vec<usize>,
        white: u8,
        class_names: Option<Vec<String>>,
    ) -> ByteImages {
        debug_assert_eq!(pixels.len(), labels.len() * shape.iter().product::<usize>());
        let mut fingerprint = Fingerprint::new("byte images");
        fingerprint.number(u64::from(white));
        fingerprint.shape(labels.len(), &shape);
        fingerprint.bytes(&pixels);
        fingerprint.labels(Some(&labels));
        let class_names = class_names.filter(|names| labels.iter().all(|&label| (label as usize) < names.len()));
        ByteImages { pixels, labels, shape, class_names, white: f32::from(white), fingerprint: fingerprint.finish() }
    }
}

impl Dataset for ByteImages {
    fn n_rows(&self) -> usize {
        self.labels.len()
    }

    fn row_shape(&self) -> &[usize] {
        &self.shape
    }

    fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    fn read_rows(&self, rows: &[u64], out: &mut Vec<f32>) -> Result<(), DatasetError> {
        let len = self.row_len();
        out.clear();
        out.reserve(rows.len() * len);
        for &row in rows {
            let start = checked_row(row, self.n_rows())? * len;
            out.extend(self.pixels[start..start + len].iter().map(|&byte| f32::from(byte) / self.white));
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[u32]> {
        Some(&self.labels)
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }
}
