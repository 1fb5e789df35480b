//! Fingerprints of content.

use twox_hash::xxhash3_128::Hasher as Xxh3Hasher;

/// A running XXH3-128 over a canonical form of a dataset: every number little-endian, every text and list preceded by its
/// length, so that different contents never give the same stream.
pub(crate) struct Fingerprint(Box<Xxh3Hasher>);

impl Fingerprint {
    /// Starts a fingerprint of a kind of content; the kind carries the version of its canonical form.
    pub(crate) fn new(kind: &str) -> Fingerprint {
        let mut fingerprint = Fingerprint(Box::new(Xxh3Hasher::new()));
        fingerprint.text("mistique dataset 1");
        fingerprint.text(kind);
        fingerprint
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.write(text.as_bytes());
    }

    pub(crate) fn shape(&mut self, n_rows: usize, row_shape: &[usize]) {
        self.number(1 + row_shape.len() as u64);
        self.number(n_rows as u64);
        row_shape.iter().for_each(|&dim| self.number(dim as u64));
    }

    /// Bytes whose number the stream has said already.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Values whose number the stream has said already.
    pub(crate) fn values<T: Copy>(&mut self, values: &[T], put_le: impl Fn(T, &mut Vec<u8>)) {
        let mut buffer = Vec::new();
        for block in values.chunks(4096) {
            buffer.clear();
            block.iter().for_each(|&value| put_le(value, &mut buffer));
            self.0.write(&buffer);
        }
    }

    pub(crate) fn labels(&mut self, labels: Option<&[u32]>) {
        self.number(labels.map_or(0, |labels| 1 + labels.len() as u64));
        self.values(labels.unwrap_or_default(), |label, out| out.extend_from_slice(&label.to_le_bytes()));
    }

    /// The digest, in the byte order in which `xxhsum` prints it.
    pub(crate) fn finish(&self) -> [u8; 16] {
        self.0.finish_128().to_be_bytes()
    }
}
