//! A ColumnChunk's bytes: header, page directory, dictionary, tables that its pages share, pages. Each page is checked and
//! decoded without its neighbours.

use std::hash::Hasher;

use mistique_quantize::{
    BasePage, Code, Effort, Encoding, Habit, QuantizeError, SharedDecoder, SharedEncoder, decode_against, decode_page,
    decode_page_f32, encode_against, encode_copied, encode_page, estimate_against, page_stats,
};
use twox_hash::{XxHash3_64, XxHash3_128, xxhash3_128::Hasher as Xxh3Hasher};

use crate::error::{EngineError, Result};
use crate::format::{CHUNK_HEADER_LEN, CHUNK_MAGIC, Le, PAGE_ALIGN, PAGE_ENTRY_LEN};

/// Content hash of a chunk: its shape and its codes, before compression.
pub type ChunkHash = [u8; 16];

/// How a chunk names the one that it is coded against: the first bytes of that one's content hash, as the catalogue has it.
pub type BaseName = [u8; 12];

/// The name of the chunk of a content hash.
pub fn base_name(hash: &ChunkHash) -> BaseName {
    std::array::from_fn(|i| hash[i])
}

/// A chunk's content, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkCodes {
    /// Its shape.
    pub shape: ChunkShape,
    /// Codes, row-major.
    pub codes: Vec<u8>,
    /// One byte a row (1: valid), where rows can be null.
    pub validity: Option<Vec<u8>>,
}

impl ChunkCodes {
    /// Bytes that it holds in memory.
    pub fn held_bytes(&self) -> usize {
        self.codes.len() + self.validity.as_ref().map_or(0, Vec::len)
    }

    /// A page to code another one's against.
    fn page(&self, page: usize) -> Option<BasePage<'_>> {
        let first = page * self.shape.page_rows;
        let rows = first..first + self.shape.rows_of(page);
        let bytes = rows.start * self.shape.row_bytes()..rows.end * self.shape.row_bytes();
        let valid = match &self.validity {
            None => None,
            Some(v) => Some(v.get(rows)?),
        };
        Some(BasePage { code: self.shape.code, codes: self.codes.get(bytes)?, valid })
    }

    /// Whether a chunk of `shape` can be coded against it.
    pub fn is_base_of(&self, shape: &ChunkShape) -> bool {
        let divided = |s: &ChunkShape| (s.n_rows, s.n_cols, s.page_rows);
        shape.n_cols == 1 && divided(&self.shape) == divided(shape)
    }
}

/// What the codes of a chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkShape {
    /// Type of a code.
    pub code: Code,
    /// Rows.
    pub n_rows: usize,
    /// Codes in a row.
    pub n_cols: usize,
    /// Rows in a page; the last page may have fewer.
    pub page_rows: usize,
    /// Width of a unit's stored map, the context of the page encodings.
    pub map_w: usize,
}

impl ChunkShape {
    /// Number of pages.
    pub fn n_pages(&self) -> usize {
        self.n_rows.div_ceil(self.page_rows.max(1))
    }

    /// Rows of a page.
    pub fn rows_of(&self, page: usize) -> usize {
        self.page_rows.min(self.n_rows.saturating_sub(page * self.page_rows))
    }

    /// Bytes of a row's codes.
    pub fn row_bytes(&self) -> usize {
        self.n_cols * self.code.width()
    }

    /// Content hash of `codes` under this shape.
    pub fn hash(&self, codes: &[u8], extra: Extra<'_>) -> ChunkHash {
        let mut hasher = self.hasher(extra);
        hasher.write(codes);
        hasher.write(extra.validity.unwrap_or_default());
        hasher.write(extra.dictionary.unwrap_or_default());
        hasher.finish_128().to_le_bytes()
    }

    /// A content hash that has seen the shape; the codes are next.
    pub fn hasher(&self, extra: Extra<'_>) -> Xxh3Hasher {
        let mut hasher = Xxh3Hasher::new();
        let mut head = [0u8; 40];
        head[0] = self.code.to_id();
        head[1] = extra.flags();
        head[4..8].copy_from_slice(&(extra.dictionary.map_or(0, <[u8]>::len) as u32).to_le_bytes());
        head[8..16].copy_from_slice(&(self.n_rows as u64).to_le_bytes());
        head[16..24].copy_from_slice(&(self.n_cols as u64).to_le_bytes());
        head[24..32].copy_from_slice(&(self.page_rows as u64).to_le_bytes());
        head[32..40].copy_from_slice(&(self.map_w as u64).to_le_bytes());
        hasher.write(&head);
        hasher
    }
}

/// The hash of a chunk that was stored without de-duplication: its number makes it its own.
pub fn salted(mut hash: ChunkHash, id: i64) -> ChunkHash {
    let salt = XxHash3_128::oneshot(&id.to_le_bytes()).to_le_bytes();
    hash.iter_mut().zip(salt).for_each(|(a, b)| *a ^= b);
    hash
}

/// What a chunk of a table's column has beside its codes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra<'a> {
    /// One byte a row (1: valid).
    pub validity: Option<&'a [u8]>,
    /// Dictionary of a text column.
    pub dictionary: Option<&'a [u8]>,
}

impl Extra<'_> {
    fn flags(&self) -> u8 {
        u8::from(self.validity.is_some()) | (u8::from(self.dictionary.is_some()) << 1)
    }
}

/// Zone map of a page. For `kbit` and `threshold` codes min and max are codes, otherwise values; strings have none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Zone {
    /// Smallest non-NaN value, +∞ when there is none.
    pub min: f64,
    /// Largest non-NaN value, −∞ when there is none.
    pub max: f64,
    /// NaNs.
    pub n_nan: u32,
    /// Nulls.
    pub n_null: u32,
}

/// Writes a chunk to `out`, which is emptied first. `codes` are its rows, row-major; `extra` is for chunks of one table column.
///
/// Errors: `Quantize` when the codes do not fit their type.
pub fn write_chunk(
    shape: &ChunkShape,
    codes: &[u8],
    extra: Extra<'_>,
    effort: Effort,
    key: &dyn std::fmt::Display,
    out: &mut Vec<u8>,
) -> Result<()> {
    let tables = match effort {
        Effort::Small => SharedEncoder::train(shape.code, codes, shape.page_rows * shape.n_cols, shape.map_w),
        _ => None,
    };
    let help = Help { effort, tables: tables.as_ref(), base: None, near: Near::Any(0) };
    let used = write_with(shape, codes, extra, help, key, out)?;
    // Every page may be smaller without.
    let without = Help { tables: None, ..help };
    if tables.is_some() && !used { write_with(shape, codes, extra, without, key, out).map(drop) } else { Ok(()) }
}

/// How much like its base a chunk must be, to be coded against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// Nearly all of its rows have the base's values, or one value where the base is null.
    Copied,
    /// As much as saves something, where the chunk takes so many bytes alone.
    Any(usize),
}

/// Writes a chunk coded against `base`, whose name is given; `false`, with `out` of no use, where it is not so near.
///
/// Errors: as [`write_chunk`].
pub fn write_against(
    shape: &ChunkShape,
    codes: &[u8],
    extra: Extra<'_>,
    base: (BaseName, &ChunkCodes),
    near: Near,
    key: &dyn std::fmt::Display,
    out: &mut Vec<u8>,
) -> Result<bool> {
    if !base.1.is_base_of(shape) {
        return Ok(false);
    }
    write_with(shape, codes, extra, Help { effort: Effort::Column, tables: None, base: Some(base), near }, key, out)
}

/// About how many bits are left to code of a chunk, given another one; `None` where it cannot be coded against that.
///
/// Errors: `Quantize`.
pub fn bits_against(content: &ChunkCodes, base: &ChunkCodes, key: &dyn std::fmt::Display) -> Result<Option<u64>> {
    if !base.is_base_of(&content.shape) {
        return Ok(None);
    }
    let mut sum = Some(0);
    for (page, base) in (0..content.shape.n_pages()).filter_map(|page| content.page(page).zip(base.page(page))) {
        let bits = estimate_against(page.code, page.codes, page.valid, base);
        let bits = bits.map_err(|source| EngineError::Quantize { key: key.to_string(), source })?;
        sum = sum.zip(bits).map(|(sum, bits)| sum + bits);
    }
    Ok(sum)
}

/// What served the first page of a written chunk; `None` of a chunk without pages.
pub fn first_habit(chunk: &[u8]) -> Option<Habit> {
    let page = ChunkView::parse(chunk, "a chunk", 0).ok()?.page(0).ok()?;
    Some(Habit::of_page(page.code, page.encoding, page.bytes))
}

/// What there is to make pages small.
#[derive(Clone, Copy)]
struct Help<'a> {
    effort: Effort,
    tables: Option<&'a SharedEncoder>,
    base: Option<(BaseName, &'a ChunkCodes)>,
    near: Near,
}

/// Writes a chunk with that help; tells whether a page needs tables or base.
fn write_with(
    shape: &ChunkShape,
    codes: &[u8],
    extra: Extra<'_>,
    help: Help<'_>,
    key: &dyn std::fmt::Display,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Help { tables, base, .. } = help;
    let n_pages = shape.n_pages();
    let mut used = false;
    let dir_end = CHUNK_HEADER_LEN + n_pages * PAGE_ENTRY_LEN;
    out.clear();
    out.resize(dir_end, 0);
    out.extend_from_slice(extra.dictionary.unwrap_or_default());
    let dictionary_end = out.len();
    if let Some(tables) = tables {
        out.extend_from_slice(&tables.to_bytes());
    }
    let head_end = out.len();
    let row_len = shape.row_bytes();
    for page in 0..n_pages {
        let first = page * shape.page_rows;
        let rows = first..first + shape.rows_of(page);
        let content = BasePage {
            code: shape.code,
            codes: codes.get(rows.start * row_len..rows.end * row_len).unwrap_or_default(),
            valid: extra.validity.map(|v| v.get(rows).unwrap_or_default()),
        };
        let base_page = base.and_then(|(_, b)| b.page(page));
        let written = write_page(content, shape.map_w, help, base_page, out);
        let written = written.map_err(|source| EngineError::Quantize { key: key.to_string(), source })?;
        let Some((entry, needs)) = written else { return Ok(false) };
        used |= needs;
        out[CHUNK_HEADER_LEN + page * PAGE_ENTRY_LEN..][..PAGE_ENTRY_LEN].copy_from_slice(&entry);
    }
    let flags = extra.flags() | (u8::from(tables.is_some()) << 2) | (u8::from(base.is_some()) << 3);
    let len = out.len();
    write_header(shape, flags, dictionary_end - dir_end, base.map(|(name, _)| name), len, &mut out[..head_end]);
    Ok(used)
}

/// A page's entry in its chunk's directory.
pub type PageEntry = [u8; PAGE_ENTRY_LEN];

/// Appends a page of a chunk that begins where `out` does, and returns its entry.
///
/// Errors: `Quantize`'s, where the codes do not fit their type.
pub fn append_page(
    shape: &ChunkShape,
    codes: &[u8],
    effort: Effort,
    out: &mut Vec<u8>,
) -> std::result::Result<PageEntry, QuantizeError> {
    let content = BasePage { code: shape.code, codes, valid: None };
    let help = Help { effort, tables: None, base: None, near: Near::Any(0) };
    Ok(write_page(content, shape.map_w, help, None, out)?.map_or([0; PAGE_ENTRY_LEN], |(entry, _)| entry))
}

/// Appends a page; its entry, and whether it needs tables or base. `None` where it is not near enough to its base.
fn write_page(
    content: BasePage<'_>,
    map_w: usize,
    help: Help<'_>,
    base: Option<BasePage<'_>>,
    out: &mut Vec<u8>,
) -> std::result::Result<Option<(PageEntry, bool)>, QuantizeError> {
    let BasePage { code, codes, valid } = content;
    let stats = page_stats(code, codes)?;
    out.resize(out.len().next_multiple_of(PAGE_ALIGN), 0);
    let start = out.len();
    let n_null = valid.map_or(0, |v| v.iter().filter(|&&b| b == 0).count());
    let mut validity_form = VALIDITY_BITMAP;
    if let (Some(valid), true) = (valid, n_null > 0) {
        validity_form = write_validity(valid, help.effort, base.and_then(|b| b.valid), out)?;
    }
    let against = match (base, help.near) {
        (None, _) => false,
        (Some(base), Near::Copied) => encode_copied(code, codes, valid, base, out)?,
        (Some(base), Near::Any(alone)) => encode_against(code, codes, valid, base, alone, out)?,
    };
    let encoding = match against {
        true => Encoding::Against,
        false if help.near == Near::Copied => return Ok(None),
        false => encode_page(code, codes, map_w, help.effort, help.tables, out)?,
    };
    let needs = matches!(encoding, Encoding::Shared | Encoding::Against) || validity_form == VALIDITY_OF_BASE;
    let mut entry = [0u8; PAGE_ENTRY_LEN];
    entry[0..4].copy_from_slice(&(start as u32).to_le_bytes());
    entry[4..8].copy_from_slice(&((out.len() - start) as u32).to_le_bytes());
    entry[8] = encoding as u8;
    entry[9] = validity_form;
    entry[12..16].copy_from_slice(&(n_null as u32).to_le_bytes());
    entry[16..24].copy_from_slice(&stats.min.to_le_bytes());
    entry[24..32].copy_from_slice(&stats.max.to_le_bytes());
    entry[32..36].copy_from_slice(&(stats.n_nan as u32).to_le_bytes());
    entry[36..40].copy_from_slice(&(stats.n_zero as u32).to_le_bytes());
    entry[40..48].copy_from_slice(&XxHash3_64::oneshot(&out[start..]).to_le_bytes());
    Ok(Some((entry, needs)))
}

/// Writes the fixed header of a chunk of `len` bytes; `out` is what lies before its pages: room for it, the directory,
/// dictionary and tables.
pub fn write_header(
    shape: &ChunkShape,
    flags: u8,
    dictionary_len: usize,
    base: Option<BaseName>,
    len: usize,
    out: &mut [u8],
) {
    let n_pages = shape.n_pages();
    let tables_len = out.len() - CHUNK_HEADER_LEN - n_pages * PAGE_ENTRY_LEN - dictionary_len;
    out[0..4].copy_from_slice(&CHUNK_MAGIC);
    out[4] = shape.code.to_id();
    out[5] = flags;
    out[8..12].copy_from_slice(&(shape.n_rows as u32).to_le_bytes());
    out[12..16].copy_from_slice(&(shape.n_cols as u32).to_le_bytes());
    out[16..20].copy_from_slice(&(shape.page_rows as u32).to_le_bytes());
    out[20..24].copy_from_slice(&(n_pages as u32).to_le_bytes());
    out[24..28].copy_from_slice(&(shape.map_w as u32).to_le_bytes());
    out[28..32].copy_from_slice(&(dictionary_len as u32).to_le_bytes());
    out[32..36].copy_from_slice(&(tables_len as u32).to_le_bytes());
    if let Some(name) = base {
        out[36..48].copy_from_slice(&name);
    }
    out[48..56].copy_from_slice(&(len as u64).to_le_bytes());
    let checksum = header_checksum(out);
    out[56..64].copy_from_slice(&checksum.to_le_bytes());
}

/// How a page says which of its rows are valid.
const VALIDITY_BITMAP: u8 = 0;
const VALIDITY_CODED: u8 = 1;
const VALIDITY_OF_BASE: u8 = 2;

/// Appends which rows are valid, in the form that is returned.
fn write_validity(
    valid: &[u8],
    effort: Effort,
    base: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> std::result::Result<u8, QuantizeError> {
    if base == Some(valid) {
        return Ok(VALIDITY_OF_BASE);
    }
    let byte = |byte: &[u8]| byte.iter().enumerate().fold(0u8, |acc, (i, &b)| acc | ((b & 1) << i));
    let bitmap: Vec<u8> = valid.chunks(8).map(byte).collect();
    if effort.is_column() {
        let at = out.len();
        out.extend_from_slice(&[0; 5]);
        out[at] = encode_page(Code::Int(1), &bitmap, 1, effort, None, out)? as u8;
        let len = out.len() - at - 5;
        if len + 5 < bitmap.len() {
            out[at + 1..at + 5].copy_from_slice(&(len as u32).to_le_bytes());
            return Ok(VALIDITY_CODED);
        }
        out.truncate(at);
    }
    out.extend_from_slice(&bitmap);
    Ok(VALIDITY_BITMAP)
}

/// xxh3 of header, directory, dictionary and shared tables, without the checksum's own eight bytes.
fn header_checksum(header: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(header.get(..56).unwrap_or_default());
    hasher.write(header.get(CHUNK_HEADER_LEN..).unwrap_or_default());
    hasher.finish()
}

/// A chunk's bytes, header checked.
#[derive(Debug, Clone, Copy)]
pub struct ChunkView<'a> {
    bytes: &'a [u8],
    shape: ChunkShape,
    flags: u8,
    dictionary: &'a [u8],
    tables: &'a [u8],
    at: u64,
    path: &'a str,
}

/// A page: its checked bytes and how to decode them.
#[derive(Debug, Clone, Copy)]
pub struct PageView<'a> {
    /// Encoding of the values.
    pub encoding: Encoding,
    /// Encoded values.
    pub bytes: &'a [u8],
    /// Number of codes.
    pub n_codes: usize,
    validity: ValidityView<'a>,
    rows: usize,
    /// Type of a code.
    pub code: Code,
    map_w: usize,
}

/// Which rows of a page are valid, as it is stored.
#[derive(Debug, Clone, Copy)]
enum ValidityView<'a> {
    All,
    Bitmap(&'a [u8]),
    Coded(Encoding, &'a [u8]),
    OfBase,
}

/// Tables that the pages of a chunk share, where it has them.
pub type Tables<'a> = Option<&'a SharedDecoder>;

impl PageView<'_> {
    /// Decodes to codes, with the chunk's tables.
    ///
    /// Errors: a quantizer's, when the bytes are not what was written.
    pub fn codes(&self, tables: Tables<'_>, out: &mut [u8]) -> std::result::Result<(), QuantizeError> {
        decode_page(self.code, self.encoding, self.bytes, self.n_codes, self.map_w, tables, out)
    }

    /// One byte a row, 1 where it is valid; `None` where all are.
    fn valid(&self, base: Option<BasePage<'_>>) -> std::result::Result<Option<Vec<u8>>, QuantizeError> {
        let bytes = |bits: &[u8]| (0..self.rows).map(|i| bits.get(i / 8).map_or(0, |b| b >> (i % 8) & 1)).collect();
        Ok(match self.validity {
            ValidityView::All => None,
            ValidityView::Bitmap(bits) => Some(bytes(bits)),
            ValidityView::Coded(encoding, page) => {
                let mut bits = vec![0; self.rows.div_ceil(8)];
                decode_page(Code::Int(1), encoding, page, bits.len(), 1, None, &mut bits)?;
                Some(bytes(&bits))
            }
            ValidityView::OfBase => base.ok_or(QuantizeError::NoBase)?.valid.map(<[u8]>::to_vec),
        })
    }

    /// Decodes float codes to f32.
    ///
    /// Errors: as [`PageView::codes`].
    pub fn f32(&self, tables: Tables<'_>, out: &mut [f32]) -> std::result::Result<(), QuantizeError> {
        decode_page_f32(self.code, self.encoding, self.bytes, self.n_codes, self.map_w, tables, out)
    }
}

impl<'a> ChunkView<'a> {
    /// Checks the header of the chunk that lies at byte `at` of file `path`.
    ///
    /// Errors: `Corrupt`.
    pub fn parse(bytes: &'a [u8], path: &'a str, at: u64) -> Result<Self> {
        let bad = |why: &str| EngineError::corrupt(path, at, format!("ColumnChunk: {why}"));
        let fixed = bytes.get(..CHUNK_HEADER_LEN).ok_or_else(|| bad("header cut off"))?;
        if fixed[..4] != CHUNK_MAGIC {
            return Err(bad("no chunk begins here"));
        }
        let field = |i: usize| fixed.u32_at(i).unwrap_or_default() as usize;
        let n_pages = field(20);
        let header = n_pages
            .checked_mul(PAGE_ENTRY_LEN)
            .and_then(|n| n.checked_add(CHUNK_HEADER_LEN + field(28) + field(32)))
            .and_then(|n| bytes.get(..n))
            .ok_or_else(|| bad("page directory cut off"))?;
        if fixed.u64_at(56) != Some(header_checksum(header)) {
            return Err(bad("header checksum differs"));
        }
        if fixed[5] > 15 || fixed[6..8] != [0; 2] || (fixed[5] & 8 == 0 && fixed[36..48] != [0; 12]) {
            return Err(bad("it uses what this format version keeps free"));
        }
        let code = Code::from_id(fixed[4]).map_err(|e| bad(&e.to_string()))?;
        let shape = ChunkShape { code, n_rows: field(8), n_cols: field(12), page_rows: field(16), map_w: field(24) };
        let unflagged = |bit: u8, at: usize| fixed[5] & bit == 0 && field(at) != 0;
        if shape.page_rows == 0
            || shape.n_pages() != n_pages
            || fixed.u64_at(48) != Some(bytes.len() as u64)
            || unflagged(2, 28)
            || unflagged(4, 32)
        {
            return Err(bad("sizes do not agree"));
        }
        let behind = header.get(CHUNK_HEADER_LEN + n_pages * PAGE_ENTRY_LEN..).unwrap_or_default();
        let (dictionary, tables) = behind.split_at_checked(field(28)).ok_or_else(|| bad("sizes do not agree"))?;
        Ok(Self { bytes, shape, flags: fixed[5], dictionary, tables, at, path })
    }

    /// The chunk's shape.
    pub fn shape(&self) -> ChunkShape {
        self.shape
    }

    /// The name of the chunk that this one is coded against.
    pub fn base(&self) -> Option<BaseName> {
        (self.flags & 8 != 0).then(|| self.bytes.array_at(36)).flatten()
    }

    /// All of the chunk's content; `base` is that of the chunk that it is coded against.
    ///
    /// Errors: `Corrupt`.
    pub fn decode(&self, base: Option<&ChunkCodes>) -> Result<ChunkCodes> {
        let shape = self.shape;
        if base.is_some() != self.base().is_some() || base.is_some_and(|b| !b.is_base_of(&shape)) {
            return Err(self.corrupt(0, "the chunk that it is coded against is not of its kind"));
        }
        let tables = self.tables()?;
        let mut codes = Vec::new();
        let mut validity = self.has_validity().then(|| Vec::with_capacity(shape.n_rows));
        for page in 0..shape.n_pages() {
            let view = self.page(page)?;
            let base_page = base.and_then(|b| b.page(page));
            let start = codes.len();
            codes.resize(start + view.n_codes * shape.code.width(), 0);
            let out = &mut codes[start..];
            let bad = |e: QuantizeError| self.corrupt(page, e);
            let valid = view.valid(base_page).map_err(bad)?;
            match (view.encoding, base_page) {
                (Encoding::Against, Some(base)) => {
                    decode_against(shape.code, view.bytes, valid.as_deref(), base, out).map_err(bad)?;
                }
                _ => view.codes(tables.as_ref(), out).map_err(bad)?,
            }
            if let Some(validity) = &mut validity {
                match valid {
                    Some(valid) => validity.extend(valid),
                    None => validity.extend(std::iter::repeat_n(1, view.rows)),
                }
            }
        }
        Ok(ChunkCodes { shape, codes, validity })
    }

    /// Whether rows can be null.
    pub fn has_validity(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The dictionary of a text column.
    pub fn dictionary(&self) -> Option<&'a [u8]> {
        (self.flags & 2 != 0).then_some(self.dictionary)
    }

    /// The tables that the pages share, ready to decode with.
    ///
    /// Errors: `Corrupt`.
    pub fn tables(&self) -> Result<Option<SharedDecoder>> {
        let read = |bytes| SharedDecoder::from_bytes(bytes).map_err(|e| self.corrupt(0, e));
        (self.flags & 4 != 0).then(|| read(self.tables)).transpose()
    }

    fn entry(&self, page: usize) -> Result<&'a [u8]> {
        let start = CHUNK_HEADER_LEN + page * PAGE_ENTRY_LEN;
        let entry = (page < self.shape.n_pages()).then(|| self.bytes.get(start..start + PAGE_ENTRY_LEN)).flatten();
        entry.ok_or_else(|| EngineError::corrupt(self.path, self.at, format!("ColumnChunk: no page {page}")))
    }

    /// Zone map of a page.
    ///
    /// Errors: `Corrupt` for a page that is not there.
    pub fn zone(&self, page: usize) -> Result<Zone> {
        let entry = self.entry(page)?;
        let float = |i| f64::from_le_bytes(entry.array_at(i).unwrap_or_default());
        let count = |i| entry.u32_at(i).unwrap_or_default();
        Ok(Zone { min: float(16), max: float(24), n_nan: count(32), n_null: count(12) })
    }

    /// A page, its checksum verified.
    ///
    /// Errors: `Corrupt`.
    pub fn page(&self, page: usize) -> Result<PageView<'a>> {
        let entry = self.entry(page)?;
        let (start, len) = (entry.u32_at(0).unwrap_or_default() as usize, entry.u32_at(4).unwrap_or_default() as usize);
        let bad = |why: String| EngineError::corrupt(self.path, self.at + start as u64, format!("page {page}: {why}"));
        if entry[9] > VALIDITY_OF_BASE || entry[10..12] != [0; 2] {
            return Err(bad("it uses what this format version keeps free".into()));
        }
        let bytes = self.bytes.get(start..start + len).ok_or_else(|| bad("cut off".into()))?;
        let (expected, got) = (entry.u64_at(40).unwrap_or_default(), XxHash3_64::oneshot(bytes));
        if expected != got {
            return Err(bad(format!("checksum {got:016x}, expected {expected:016x}")));
        }
        let rows = self.shape.rows_of(page);
        let n_null = entry.u32_at(12).unwrap_or_default();
        let encoding = |id: u8| Encoding::try_from(id).map_err(|e| bad(e.to_string()));
        let split = |at: usize| bytes.split_at_checked(at).ok_or_else(|| bad("validity cut off".into()));
        let (validity, bytes) = match (n_null, entry[9]) {
            (0, VALIDITY_BITMAP) => (ValidityView::All, bytes),
            (0, _) => return Err(bad("it says which of its rows are valid, but has no nulls".into())),
            (_, VALIDITY_BITMAP) => split(rows.div_ceil(8)).map(|(bits, rest)| (ValidityView::Bitmap(bits), rest))?,
            (_, VALIDITY_OF_BASE) => (ValidityView::OfBase, bytes),
            (_, _) => {
                let (head, _) = split(5)?;
                let end = 5usize.saturating_add(head.u32_at(1).unwrap_or_default() as usize);
                let (coded, rest) = split(end)?;
                (ValidityView::Coded(encoding(head[0])?, &coded[5..]), rest)
            }
        };
        Ok(PageView {
            encoding: encoding(entry[8])?,
            bytes,
            n_codes: rows * self.shape.n_cols,
            code: self.shape.code,
            validity,
            rows,
            map_w: self.shape.map_w,
        })
    }

    /// Checks what lies around the pages: only zeros may, as many as alignment asks for.
    ///
    /// Errors: `Corrupt`.
    pub fn check_padding(&self) -> Result<()> {
        let mut at = CHUNK_HEADER_LEN + self.shape.n_pages() * PAGE_ENTRY_LEN;
        at += self.dictionary.len() + self.tables.len();
        for page in 0..self.shape.n_pages() {
            let entry = self.entry(page)?;
            let start = entry.u32_at(0).unwrap_or_default() as usize;
            let padding = self.bytes.get(at..start).ok_or_else(|| self.corrupt(page, "it lies in another"))?;
            if padding.len() >= PAGE_ALIGN || padding.iter().any(|&b| b != 0) {
                return Err(self.corrupt(page, "bytes between pages"));
            }
            at = start + entry.u32_at(4).unwrap_or_default() as usize;
        }
        if at == self.bytes.len() { Ok(()) } else { Err(self.corrupt(self.shape.n_pages(), "bytes after the pages")) }
    }

    /// Names the chunk and page in a quantizer's error.
    pub(crate) fn corrupt(&self, page: usize, why: impl std::fmt::Display) -> EngineError {
        EngineError::corrupt(self.path, self.at, format!("page {page}: {why}"))
    }
}
