//! Lossless encodings of the codes of a page.
//!
//! A page is decoded alone; what it may refer to outside it is the tables that all pages of its chunk share.
//! [`encode_page`] writes the smallest of the encodings that the effort allows; the order of [`Encoding::ALL`] breaks
//! ties.

mod against;
mod bitmap;
mod block;
mod decimal;
mod habit;
mod huffman;
mod model;
mod pack;
mod pco;
mod shared;
mod sparse;
mod zstd;

pub use against::{BasePage, decode_against, encode_against, encode_copied, estimate_against};
pub use habit::Habit;
pub(crate) use huffman::{MAX_LEN, STORE, TABLE};
pub(crate) use model::{MODEL_CONTEXTS, MODEL_LEN, MODEL_TABLE};
pub use pack::{pack, packed_len, unpack};
pub use shared::{SharedDecoder, SharedEncoder};

use std::cell::RefCell;

use crate::{
    Code,
    error::{QuantizeError, Result, check_len, corrupt},
};

/// How hard to look for a small encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effort {
    /// On the path of a running model: one pass, nothing entropy coded.
    Fast,
    /// In the background: the smallest there is.
    Small,
    /// For columns of tables: the smallest there is for a few thousand numbers.
    Column,
    /// As `Column`, trying only what served the rows before, since a column keeps its nature, and quickly.
    Like(Habit),
}

impl Effort {
    /// Whether it is for columns of tables.
    #[must_use]
    pub fn is_column(self) -> bool {
        matches!(self, Self::Column | Self::Like(_))
    }
}

/// Stored identifier of a page's encoding; explicit and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// The codes themselves.
    Plain = 0,
    /// One code, repeated.
    Constant = 1,
    /// `Bit` and `Kbit` codes of k bits each, from the lowest bit of each byte up.
    Packed = 2,
    /// A bitmap of the codes that are not the most common one, then those.
    Sparse = 3,
    /// As `Sparse`, each part entropy coded by byte planes.
    Entropy = 4,
    /// A zstd frame of the codes.
    Zstd = 5,
    /// A zstd frame of the codes' byte planes, lowest first.
    ShuffledZstd = 6,
    /// As `Entropy`, but parts may be coded by tables that the pages of a chunk share.
    Shared = 7,
    /// A pco stream of the codes.
    Pco = 8,
    /// By how much a model of another chunk's page is wrong.
    Against = 9,
    /// Floats as multiples of a power of ten, themselves a page.
    Decimal = 10,
}

impl Encoding {
    /// All encodings, in order of identifier.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Constant,
        Self::Packed,
        Self::Sparse,
        Self::Entropy,
        Self::Zstd,
        Self::ShuffledZstd,
        Self::Shared,
        Self::Pco,
        Self::Against,
        Self::Decimal,
    ];

    /// Whether decoding takes much longer than copying the codes does.
    pub fn is_costly(self) -> bool {
        !matches!(self, Self::Plain | Self::Constant | Self::Packed | Self::Sparse)
    }
}

impl TryFrom<u8> for Encoding {
    type Error = QuantizeError;

    fn try_from(id: u8) -> Result<Self> {
        Self::ALL.into_iter().find(|e| *e as u8 == id).ok_or(QuantizeError::UnknownId { what: "encoding", id })
    }
}

/// zstd level of pages.
const LEVEL: i32 = 3;
/// A page of floats is tried with zstd only where its first quarter, quickly compressed, promises as much.
const PROBE: usize = 4;

/// Encoding chosen for a page; its bytes are appended to `out`. Equal input gives equal bytes.
///
/// Shape: `codes` holds whole codes, row-major; `map_w` is the width of the stored maps (1 for vectors). Tables in
/// `shared` serve [`Effort::Small`] where they make the page smaller; those of any chunk will do.
/// Errors: `Length`, `UnsupportedCode`; `Corrupt` for `Bit` and `Kbit` codes beyond their range.
pub fn encode_page(
    code: Code,
    codes: &[u8],
    map_w: usize,
    effort: Effort,
    shared: Option<&SharedEncoder>,
    out: &mut Vec<u8>,
) -> Result<Encoding> {
    code.check()?;
    let w = code.width();
    if !codes.len().is_multiple_of(w) {
        return Err(QuantizeError::Length { what: "codes", expected: codes.len() / w * w, got: codes.len() });
    }
    if matches!(code, Code::Bit | Code::Kbit(..8)) && codes.iter().fold(0, |m, &b| m | b) >> code.bits() != 0 {
        return Err(corrupt("codes", "beyond the bits of their type"));
    }
    if codes.len() > w && codes[w..] == codes[..codes.len() - w] {
        out.extend_from_slice(&codes[..w]);
        return Ok(Encoding::Constant);
    }
    if let Effort::Like(habit) = effort
        && let Some(enc) = encode_like(code, codes, map_w, habit, out)?
    {
        return Ok(enc);
    }
    let packs = code.width() == 1 && code.bits() < 8;
    let whole = if packs { packed_len(code.bits(), codes.len()) } else { codes.len() };
    // Copying is faster than expanding: a tie would not do.
    let limit = whole - whole / 17;
    let from = out.len();
    if matches!(effort, Effort::Small | Effort::Column) && codes.len() > w {
        let split = sparse::split(code, codes);
        let sparse = split.bits.len() + split.dense.len() + usize::from(w == 1);
        let enc = encode_small(code, codes, &split, map_w, effort, shared, out)?;
        if out.len() - from < if sparse < limit { sparse } else { whole } {
            return Ok(enc);
        }
        out.truncate(from);
        if sparse < limit {
            sparse::write_sparse(code, &split, out);
            return Ok(Encoding::Sparse);
        }
    } else if sparse::write_if_smaller(code, codes, limit, out) {
        return Ok(Encoding::Sparse);
    }
    if packs {
        pack(code.bits(), codes, out);
        return Ok(Encoding::Packed);
    }
    out.extend_from_slice(codes);
    Ok(Encoding::Plain)
}

/// Encodes by habit where that takes fewer bytes than the codes; `None`, and nothing appended, where not, or where the
/// encoding is one whose size is known without trying.
fn encode_like(code: Code, codes: &[u8], map_w: usize, habit: Habit, out: &mut Vec<u8>) -> Result<Option<Encoding>> {
    let from = out.len();
    let Habit { encoding: enc, differences } = habit;
    let quick = pco::Search::Quick { differences };
    match enc {
        Encoding::Entropy => sparse::write_entropy(code, codes, &sparse::split(code, codes), map_w, out)?,
        Encoding::Pco if pco::holds(code) => pco::compress(code, codes, quick, out)?,
        Encoding::Decimal if decimal::holds(code) => {
            if !decimal::compress(code, codes, quick, out)? {
                return Ok(None);
            }
        }
        Encoding::Zstd => zstd::compress(codes, LEVEL, out)?,
        Encoding::ShuffledZstd if code.width() > 1 => {
            let mut planes = vec![0; codes.len()];
            pack::shuffle(code.width(), codes, &mut planes);
            zstd::compress(&planes, LEVEL, out)?;
        }
        _ => return Ok(None),
    }
    if out.len() - from < codes.len() {
        return Ok(Some(enc));
    }
    out.truncate(from);
    Ok(None)
}

fn encode_small(
    code: Code,
    codes: &[u8],
    split: &sparse::Split,
    map_w: usize,
    effort: Effort,
    shared: Option<&SharedEncoder>,
    out: &mut Vec<u8>,
) -> Result<Encoding> {
    let from = out.len();
    sparse::write_entropy(code, codes, split, map_w, out)?;
    let mut best = Encoding::Entropy;
    let mut other = Vec::new();
    if let Some(shared) = shared {
        sparse::write_shared(code, codes, split, map_w, shared, &mut other)?;
        // Own tables take time to read: they must save some bytes.
        let own = out.len() - from;
        if other.len() - other.len() / 64 < own {
            out.truncate(from);
            out.extend_from_slice(&other);
            best = Encoding::Shared;
        }
        other.clear();
    }
    if effort == Effort::Column && pco::holds(code) {
        pco::compress(code, codes, pco::Search::Small, &mut other)?;
        if other.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&other);
            best = Encoding::Pco;
        }
        other.clear();
    }
    if effort == Effort::Column
        && decimal::holds(code)
        && decimal::compress(code, codes, pco::Search::Small, &mut other)?
    {
        if other.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&other);
            best = Encoding::Decimal;
        }
        other.clear();
    }
    let float = matches!(code, Code::F16 | Code::BF16 | Code::F32);
    if float || code.width() == 1 {
        let probe = &codes[..(codes.len() / PROBE).max(1)];
        zstd::compress(probe, 1, &mut other)?;
        if other.len() * PROBE > out.len() - from {
            return Ok(best);
        }
    }
    let shuffled = (!float && code.width() > 1).then(|| {
        let mut planes = vec![0; codes.len()];
        pack::shuffle(code.width(), codes, &mut planes);
        planes
    });
    let candidates = [(Encoding::Zstd, Some(codes)), (Encoding::ShuffledZstd, shuffled.as_deref())];
    for (enc, bytes) in candidates {
        let Some(bytes) = bytes else { continue };
        other.clear();
        zstd::compress(bytes, LEVEL, &mut other)?;
        if other.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&other);
            best = enc;
        }
    }
    Ok(best)
}

/// Decodes a page of `n` codes into `out`, of `n * code.width()` bytes.
///
/// Shape: `shared` holds the tables that the page was encoded with; only a `Shared` page uses them.
/// Errors: `Length` of `out`; `NoSharedTables`; `Corrupt` for bytes that [`encode_page`] does not write, in which case
/// `out` holds unspecified codes.
pub fn decode_page(
    code: Code,
    enc: Encoding,
    bytes: &[u8],
    n: usize,
    map_w: usize,
    shared: Option<&SharedDecoder>,
    out: &mut [u8],
) -> Result<()> {
    code.check()?;
    let w = code.width();
    check_len("codes", out.len(), n.saturating_mul(w))?;
    match enc {
        Encoding::Plain => {
            if bytes.len() != out.len() {
                return Err(corrupt("plain page", "length"));
            }
            out.copy_from_slice(bytes);
        }
        Encoding::Constant => {
            if bytes.len() != w {
                return Err(corrupt("constant page", "length"));
            }
            if let [byte] = bytes {
                out.fill(*byte);
            } else {
                out.chunks_exact_mut(w).for_each(|c| c.copy_from_slice(bytes));
            }
        }
        Encoding::Packed => pack::read(code, bytes, out)?,
        Encoding::Sparse => sparse::read_sparse(code, bytes, n, |p| p.codes(w, out))?,
        Encoding::Entropy => sparse::read_entropy(code, bytes, n, map_w, None, |p| p.codes(w, out))?,
        Encoding::Shared => {
            let shared = Some(shared.ok_or(QuantizeError::NoSharedTables)?);
            sparse::read_entropy(code, bytes, n, map_w, shared, |p| p.codes(w, out))?;
        }
        Encoding::Zstd => zstd::decompress(bytes, out)?,
        Encoding::Pco => pco::decompress(code, bytes, out)?,
        Encoding::Against => return Err(QuantizeError::NoBase),
        Encoding::Decimal => decimal::decompress(code, bytes, out)?,
        Encoding::ShuffledZstd => with_buffer(out.len(), |planes| {
            zstd::decompress(bytes, planes)?;
            pack::unshuffle(w, planes, out);
            Ok(())
        })?,
    }
    if w == 1 && code.bits() < 8 && out.iter().fold(0, |m, &b| m | b) >> code.bits() != 0 {
        return Err(corrupt("page", "codes beyond the bits of their type"));
    }
    Ok(())
}

/// Decodes a page of `n` float codes (F16, BF16, F32, F64) straight to f32.
///
/// Errors: as [`decode_page`]; `UnsupportedCode` for other codes.
pub fn decode_page_f32(
    code: Code,
    enc: Encoding,
    bytes: &[u8],
    n: usize,
    map_w: usize,
    shared: Option<&SharedDecoder>,
    out: &mut [f32],
) -> Result<()> {
    if !code.is_float() {
        return Err(QuantizeError::UnsupportedCode { what: "decode_page_f32", code });
    }
    check_len("values", out.len(), n)?;
    let w = code.width();
    if code != Code::F64 {
        match enc {
            Encoding::Plain if bytes.len() == n.saturating_mul(w) => return crate::to_f32(code, bytes, out),
            Encoding::Constant if bytes.len() == w => {
                let mut one = [0.0];
                crate::to_f32(code, bytes, &mut one)?;
                out.fill(one[0]);
                return Ok(());
            }
            Encoding::Sparse => return sparse::read_sparse(code, bytes, n, |p| p.floats(code, out)),
            Encoding::Entropy => return sparse::read_entropy(code, bytes, n, map_w, None, |p| p.floats(code, out)),
            Encoding::Shared => {
                let shared = Some(shared.ok_or(QuantizeError::NoSharedTables)?);
                return sparse::read_entropy(code, bytes, n, map_w, shared, |p| p.floats(code, out));
            }
            _ => {}
        }
    }
    let mut codes = vec![0; n.saturating_mul(w)];
    decode_page(code, enc, bytes, n, map_w, shared, &mut codes)?;
    crate::to_f32(code, &codes, out)
}

fn with_buffer<T>(len: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|b| {
        b.resize(len, 0);
        f(b)
    })
}
