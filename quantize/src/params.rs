//! Fitted parameters: kept beside the codes, so that later rows are encoded alike.
//!
//! Layout, little-endian: version u8 (1), kind u8, then by kind: none (0) nothing; codebooks (1) bits u8, count u32
//! and per codebook n_codes u16, `n_codes - 1` edges f32, `n_codes` representatives f32; thresholds (2) count u32
//! and as many f32.

use crate::{
    codebook::Codebook,
    error::{QuantizeError, Result, corrupt},
};

/// Version written in front of the bytes.
pub const PARAMS_VERSION: u8 = 1;

const PART: &str = "parameters";

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Kind {
    #[default]
    None,
    Codebooks {
        bits: u8,
        books: Vec<Codebook>,
    },
    Thresholds(Vec<f32>),
}

/// Fitted parameters of a scheme: codebooks or thresholds, for the whole intermediate or one per unit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Params {
    pub(crate) kind: Kind,
}

impl Params {
    /// The parameters of schemes that need none.
    #[must_use]
    pub const fn none() -> Self {
        Self { kind: Kind::None }
    }

    /// Whether these are the parameters of schemes that need none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self.kind, Kind::None)
    }

    /// The parameters as bytes: equal parameters give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![PARAMS_VERSION];
        let floats = |out: &mut Vec<u8>, v: &[f32]| {
            out.extend(v.iter().flat_map(|x| x.to_le_bytes()));
        };
        match &self.kind {
            Kind::None => out.push(0),
            Kind::Codebooks { bits, books } => {
                out.extend([1, *bits]);
                out.extend((books.len() as u32).to_le_bytes());
                for book in books {
                    out.extend((book.reps().len() as u16).to_le_bytes());
                    floats(&mut out, book.edges());
                    floats(&mut out, book.reps());
                }
            }
            Kind::Thresholds(t) => {
                out.push(2);
                out.extend((t.len() as u32).to_le_bytes());
                floats(&mut out, t);
            }
        }
        out
    }

    /// The parameters written by [`Params::to_bytes`].
    ///
    /// Errors: `UnknownId` for another version; `Corrupt` for anything that `to_bytes` does not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader(bytes);
        let version = r.u8()?;
        if version != PARAMS_VERSION {
            return Err(QuantizeError::UnknownId { what: "parameters version", id: version });
        }
        let kind = match r.u8()? {
            0 => Kind::None,
            1 => {
                let bits = r.u8()?;
                if !(1..=8).contains(&bits) {
                    return Err(corrupt(PART, "bits"));
                }
                let n = r.count(2)?;
                let mut books = Vec::with_capacity(n);
                for _ in 0..n {
                    let n_codes = usize::from(r.u16()?);
                    if n_codes == 0 || n_codes > 1 << bits {
                        return Err(corrupt(PART, "codes of a codebook"));
                    }
                    let edges = r.floats(n_codes - 1)?;
                    books.push(Codebook::from_parts(edges, r.floats(n_codes)?)?);
                }
                Kind::Codebooks { bits, books }
            }
            2 => {
                let n = r.count(4)?;
                let t = r.floats(n)?;
                if t.iter().any(|x| x.is_nan()) {
                    return Err(corrupt(PART, "threshold"));
                }
                Kind::Thresholds(t)
            }
            id => {
                return Err(QuantizeError::UnknownId { what: "parameters kind", id });
            }
        };
        if r.0.is_empty() { Ok(Self { kind }) } else { Err(corrupt(PART, "bytes after the end")) }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk().ok_or_else(|| corrupt(PART, "cut short"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// A count of items of at least `min_bytes` each, refused when the bytes left cannot hold them.
    fn count(&mut self, min_bytes: usize) -> Result<usize> {
        let n = u32::from_le_bytes(self.array()?) as usize;
        if n > self.0.len() / min_bytes {
            return Err(corrupt(PART, "count"));
        }
        Ok(n)
    }

    fn floats(&mut self, n: usize) -> Result<Vec<f32>> {
        let (head, tail) = self.0.split_at_checked(4 * n).ok_or_else(|| corrupt(PART, "cut short"))?;
        self.0 = tail;
        Ok(head.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}
