//! A second reader of partitions, written from FORMAT.md alone: slow, plain, and sharing no code with the engine but
//! xxh3 and zstd. It panics where a reader must refuse.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use super::parse_entropy::Tables;
use super::parse_entropy::entropy;

/// A field of a file: where it lies, what it is, what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub at: usize,
    pub len: usize,
    pub text: String,
}

#[derive(Debug)]
pub struct Partition {
    pub version: u16,
    pub id: u64,
    pub chunks: Vec<Chunk>,
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Chunk {
    pub hash: u128,
    pub at: usize,
    pub len: usize,
    pub code: u8,
    pub flags: u8,
    pub n_rows: usize,
    pub n_cols: usize,
    pub page_rows: usize,
    pub map_w: usize,
    /// First bytes of the hash of the chunk that it is coded against.
    pub base: Option<[u8; 12]>,
    /// Dictionary as stored.
    pub dictionary_bytes: Vec<u8>,
    pub dictionary: Vec<String>,
    /// Where the shared tables lie in the file.
    pub tables: std::ops::Range<usize>,
    pub pages: Vec<Page>,
}

#[derive(Debug)]
pub struct Page {
    pub encoding: u8,
    /// How validity is stored.
    pub form: u8,
    pub n_null: u32,
    pub min: f64,
    pub max: f64,
    pub n_nan: u32,
    pub n_zero: u32,
    /// Codes as bytes.
    pub codes: Vec<u8>,
    /// One a row.
    pub valid: Vec<bool>,
}

impl Chunk {
    pub fn codes(&self) -> Vec<u8> {
        self.pages.iter().flat_map(|p| p.codes.clone()).collect()
    }

    pub fn valid(&self) -> Vec<bool> {
        self.pages.iter().flat_map(|p| p.valid.clone()).collect()
    }

    pub fn f32s(&self) -> Vec<f32> {
        assert_eq!(self.code, 3);
        self.codes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn texts(&self) -> Vec<Option<String>> {
        let codes = self.codes();
        let codes = codes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        codes.zip(self.valid()).map(|(c, valid)| valid.then(|| self.dictionary[usize::from(c)].clone())).collect()
    }

    /// Content hash of the decoded chunk.
    pub fn content_hash(&self) -> u128 {
        let has_dictionary = self.flags & 2 != 0;
        let dictionary = if has_dictionary { &self.dictionary_bytes[..] } else { &[] };
        let mut bytes = vec![self.code, self.flags & 3, 0, 0];
        bytes.extend((dictionary.len() as u32).to_le_bytes());
        for n in [self.n_rows, self.n_cols, self.page_rows, self.map_w] {
            bytes.extend((n as u64).to_le_bytes());
        }
        bytes.extend(self.codes());
        if self.flags & 1 != 0 {
            bytes.extend(self.valid().iter().map(|v| u8::from(*v)));
        }
        bytes.extend(dictionary);
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

/// Reads fields one after another and remembers them.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    fields: Vec<Field>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, name: &str, text: impl FnOnce(&[u8]) -> String) -> &'a [u8] {
        let bytes = &self.bytes[self.at..self.at + len];
        if len > 0 {
            let text = text(bytes);
            let text = if text.is_empty() { name.to_string() } else { format!("{name} {text}") };
            self.fields.push(Field { at: self.at, len, text });
        }
        self.at += len;
        bytes
    }

    fn number(&mut self, len: usize, name: &str) -> u64 {
        let value = |b: &[u8]| b.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        // A checksum's value says nothing.
        value(self.take(len, name, |b| if name == "checksum" { String::new() } else { value(b).to_string() }))
    }

    fn float(&mut self, name: &str) -> f64 {
        let value = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap());
        value(self.take(8, name, |b| value(b).to_string()))
    }

    fn hash(&mut self, len: usize, name: &str) -> &'a [u8] {
        self.take(len, name, |_| String::new())
    }

    fn magic(&mut self, want: &[u8]) {
        assert_eq!(self.take(want.len(), "magic", |b| String::from_utf8_lossy(b).into()), want);
    }

    fn zeros(&mut self, len: usize, name: &str) {
        assert!(self.take(len, name, |_| String::new()).iter().all(|b| *b == 0), "{name} is not zero");
    }
}

/// Reads a partition from its first to its last byte; chunks are coded against none.
pub fn partition(bytes: &[u8]) -> Partition {
    partition_with(bytes, &[])
}

/// The same, where chunks may be coded against one of these, or one before them in the partition.
pub fn partition_with(bytes: &[u8], bases: &[Chunk]) -> Partition {
    // The trailer says where the footer begins, and the footer where the chunks lie.
    let trailer = bytes.len() - 64;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let footer = word(trailer);
    let n_chunks = word(trailer + 8);
    assert_eq!(footer + 32 * n_chunks, trailer);
    let mut r = Reader { bytes, at: 0, fields: Vec::new() };
    r.magic(b"MISTIQP1");
    let version = r.number(2, "version") as u16;
    r.zeros(6, "reserved");
    let id = r.number(8, "id");
    r.zeros(32, "reserved");
    assert_eq!(r.number(8, "checksum"), xxh3_64(&bytes[..56]));
    let mut chunks: Vec<Chunk> = Vec::new();
    for i in 0..n_chunks {
        let entry = footer + 32 * i;
        let hash = u128::from_le_bytes(bytes[entry..entry + 16].try_into().unwrap());
        let (at, len) = (word(entry + 16), word(entry + 24));
        assert!(at.is_multiple_of(64));
        r.zeros(at - r.at, "padding");
        let chunk = chunk(&mut r, hash, len, bases, &chunks);
        chunks.push(chunk);
    }
    r.zeros(footer - r.at, "padding");
    for _ in 0..n_chunks {
        r.hash(16, "content hash");
        r.number(8, "offset");
        r.number(8, "length");
    }
    r.number(8, "footer offset");
    r.number(8, "n_chunks");
    assert_eq!(r.number(8, "file length"), bytes.len() as u64);
    r.zeros(24, "reserved");
    r.magic(b"MISTIQPE");
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[footer..trailer + 56]);
    assert_eq!(r.number(8, "checksum"), hasher.digest());
    assert_eq!(r.at, bytes.len());
    Partition { version, id, chunks, fields: r.fields }
}

fn chunk(r: &mut Reader<'_>, hash: u128, len: usize, bases: &[Chunk], before: &[Chunk]) -> Chunk {
    let (bytes, start) = (r.bytes, r.at);
    r.magic(b"CHNK");
    let code = r.number(1, "code") as u8;
    let flags = r.number(1, "flags") as u8;
    assert!(flags <= 15);
    r.zeros(2, "reserved");
    let n_rows = r.number(4, "n_rows") as usize;
    let n_cols = r.number(4, "n_cols") as usize;
    let page_rows = r.number(4, "page_rows") as usize;
    let n_pages = r.number(4, "n_pages") as usize;
    let map_w = r.number(4, "map_w") as usize;
    let dictionary_len = r.number(4, "dictionary length") as usize;
    let tables_len = r.number(4, "tables length") as usize;
    assert!((flags & 2 != 0 || dictionary_len == 0) && (flags & 4 != 0 || tables_len == 0));
    let base = match flags & 8 {
        0 => {
            r.zeros(12, "no base");
            None
        }
        _ => Some(<[u8; 12]>::try_from(r.hash(12, "base")).unwrap()),
    };
    let named = |c: &&Chunk| Some(&c.hash.to_le_bytes()[..12]) == base.as_ref().map(|b| &b[..]);
    let base_chunk = bases.iter().chain(before).find(named);
    assert_eq!(base_chunk.is_some(), base.is_some(), "the base is known");
    assert!(base_chunk.is_none_or(|b| b.base.is_none() && (b.n_rows, b.n_cols, b.page_rows) == (n_rows, 1, page_rows)));
    assert_eq!(r.number(8, "length"), len as u64);
    let checksum = r.number(8, "checksum");
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[start..start + 56]);
    hasher.update(&bytes[start + 64..start + 64 + 48 * n_pages + dictionary_len + tables_len]);
    assert_eq!(checksum, hasher.digest());
    assert_eq!(n_pages, n_rows.div_ceil(page_rows));
    let mut directory = Vec::new();
    for _ in 0..n_pages {
        let offset = r.number(4, "offset") as usize;
        let len = r.number(4, "length") as usize;
        let encoding = r.number(1, "encoding") as u8;
        let form = r.number(1, "validity") as u8;
        r.zeros(2, "reserved");
        let n_null = r.number(4, "n_null") as u32;
        let (min, max) = (r.float("min"), r.float("max"));
        let (n_nan, n_zero) = (r.number(4, "n_nan") as u32, r.number(4, "n_zero") as u32);
        assert_eq!(r.number(8, "checksum"), xxh3_64(&bytes[start + offset..start + offset + len]));
        let page = Page { encoding, form, n_null, min, max, n_nan, n_zero, codes: Vec::new(), valid: Vec::new() };
        directory.push((offset, len, page));
    }
    let mut dictionary = Vec::new();
    let dictionary_bytes = bytes[r.at..r.at + dictionary_len].to_vec();
    if flags & 2 != 0 {
        let encoding = r.number(1, "dictionary encoding") as u8;
        let n_raw = r.number(4, "dictionary size") as usize;
        let page = r.take(dictionary_len - 5, "dictionary", |_| String::new());
        let raw = decode(33, encoding, page, n_raw, 1, None);
        let word = |i: usize| u32::from_le_bytes(raw[4 * i..4 * i + 4].try_into().unwrap()) as usize;
        let mut at = 4 + 4 * word(0);
        for i in 0..word(0) {
            dictionary.push(String::from_utf8(raw[at..at + word(1 + i)].to_vec()).unwrap());
            at += word(1 + i);
        }
        assert_eq!(at, raw.len());
        assert!(dictionary.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
    }
    let tables_at = r.at;
    let tables_bytes = r.take(tables_len, "tables", |_| String::new());
    let tables = (flags & 4 != 0).then(|| Tables::read(tables_bytes, width_and_bits(code).0));
    let mut left = n_rows;
    let mut pages = Vec::new();
    for (i, (offset, len, mut page)) in directory.into_iter().enumerate() {
        assert!(offset.is_multiple_of(8));
        r.zeros(start + offset - r.at, "padding");
        let rows = left.min(page_rows);
        left -= rows;
        let base_page = base_chunk.map(|b| (b.code, &b.pages[i]));
        let begin = r.at;
        let bitmap = match (page.n_null, page.form) {
            (0, 0) => vec![0xFF; rows.div_ceil(8)],
            (_, 0) => r.take(rows.div_ceil(8), "validity", |_| String::new()).to_vec(),
            (_, 1) => {
                let encoding = r.number(1, "encoding of validity") as u8;
                let len = r.number(4, "length of validity") as usize;
                let coded = r.take(len, "validity", |_| String::new());
                decode(33, encoding, coded, rows.div_ceil(8), 1, None)
            }
            (_, 2) => Vec::new(),
            (_, form) => panic!("validity of form {form}"),
        };
        page.valid = match page.form {
            2 => base_page.unwrap().1.valid.clone(),
            _ => (0..rows).map(|i| bit(&bitmap, i)).collect(),
        };
        assert_eq!(page.valid.iter().filter(|v| !**v).count(), page.n_null as usize);
        let codes = r.take(begin + len - r.at, "codes", |_| String::new());
        page.codes = match page.encoding {
            9 => against(code, codes, &page.valid, base_page.unwrap()),
            encoding => decode(code, encoding, codes, rows * n_cols, map_w, tables.as_ref()),
        };
        pages.push(page);
    }
    assert_eq!(r.at, start + len);
    let tables = tables_at..tables_at + tables_len;
    Chunk {
        hash,
        at: start,
        len,
        code,
        flags,
        n_rows,
        n_cols,
        page_rows,
        map_w,
        base,
        dictionary_bytes,
        dictionary,
        tables,
        pages,
    }
}

/// Bytes of a code, and its bits.
pub fn width_and_bits(code: u8) -> (usize, usize) {
    match code {
        0 => (1, 1),
        1 | 2 => (2, 16),
        3 => (4, 32),
        4 => (8, 64),
        17..=24 => (1, usize::from(code - 16)),
        33 | 34 | 36 | 40 => (usize::from(code - 32), 8 * usize::from(code - 32)),
        _ => panic!("code {code}"),
    }
}

pub fn bit(bytes: &[u8], i: usize) -> bool {
    bytes[i / 8] >> (i % 8) & 1 == 1
}

/// The `n` codes of a page of a chunk with these tables.
pub fn decode(code: u8, encoding: u8, page: &[u8], n: usize, map_w: usize, tables: Option<&Tables>) -> Vec<u8> {
    let (width, bits) = width_and_bits(code);
    match encoding {
        0 => {
            assert_eq!(page.len(), n * width);
            page.to_vec()
        }
        1 => {
            assert_eq!(page.len(), width);
            page.repeat(n)
        }
        2 => {
            assert_eq!((width, page.len()), (1, (n * bits).div_ceil(8)));
            let code = |i: usize| (0..bits).map(|k| u8::from(bit(page, i * bits + k)) << k).sum();
            (0..n).map(code).collect()
        }
        3 => {
            let (fill, rest) = if width == 1 { (page[0], &page[1..]) } else { (0, page) };
            let (bitmap, dense) = rest.split_at(n.div_ceil(8));
            expand(width, fill, bitmap, dense, n)
        }
        4 => entropy(code, page, n, map_w, None),
        5 => unzstd(page, n * width),
        6 => {
            let planes = unzstd(page, n * width);
            (0..n).flat_map(|i| (0..width).map(|p| planes[p * n + i]).collect::<Vec<_>>()).collect()
        }
        7 => entropy(code, page, n, map_w, Some(tables.expect("tables of the chunk"))),
        8 => unpco(code, page, n),
        10 => {
            let (places, integers) = (page[0], usize::from(page[1]));
            assert!(matches!(code, 3 | 4) && places <= 9 && matches!(integers, 2 | 4 | 8));
            let multiples = decode(32 + page[1], page[2], &page[3..], n, 1, None);
            let number = |m: &[u8]| {
                let bits = m.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b)) << (64 - 8 * integers);
                decimal(bits as i64 >> (64 - 8 * integers), places)
            };
            let numbers = multiples.chunks_exact(integers).map(number);
            match code {
                3 => numbers.flat_map(|x| (x as f32).to_le_bytes()).collect(),
                _ => numbers.flat_map(f64::to_le_bytes).collect(),
            }
        }
        _ => panic!("encoding {encoding}"),
    }
}

pub fn expand(width: usize, fill: u8, bitmap: &[u8], dense: &[u8], n: usize) -> Vec<u8> {
    let mut dense = dense.chunks_exact(width);
    let mut out = Vec::new();
    for i in 0..n {
        match bit(bitmap, i) {
            true => out.extend(dense.next().unwrap()),
            false => out.extend(std::iter::repeat_n(fill, width)),
        }
    }
    assert!(dense.next().is_none() && (n..8 * bitmap.len()).all(|i| !bit(bitmap, i)));
    out
}

fn unzstd(page: &[u8], len: usize) -> Vec<u8> {
    use zstd::zstd_safe::{DCtx, DParameter, FrameFormat};
    let mut context = DCtx::create();
    context.set_parameter(DParameter::Format(FrameFormat::Magicless)).unwrap();
    let mut out = vec![0; len];
    assert_eq!(context.decompress(&mut out[..], page).unwrap(), len);
    out
}

fn unpco(code: u8, page: &[u8], n: usize) -> Vec<u8> {
    use pco::standalone::simple_decompress;
    fn bytes<T: Copy, const W: usize>(numbers: &[T], to: impl Fn(T) -> [u8; W]) -> Vec<u8> {
        numbers.iter().flat_map(|x| to(*x)).collect()
    }
    let out = match code {
        1 => bytes(&simple_decompress::<half::f16>(page).unwrap(), half::f16::to_le_bytes),
        3 => bytes(&simple_decompress::<f32>(page).unwrap(), f32::to_le_bytes),
        4 => bytes(&simple_decompress::<f64>(page).unwrap(), f64::to_le_bytes),
        34 => bytes(&simple_decompress::<i16>(page).unwrap(), i16::to_le_bytes),
        36 => bytes(&simple_decompress::<i32>(page).unwrap(), i32::to_le_bytes),
        40 => bytes(&simple_decompress::<i64>(page).unwrap(), i64::to_le_bytes),
        _ => panic!("pco of code {code}"),
    };
    assert_eq!(out.len(), n * width_and_bits(code).0);
    out
}

/// The decimal of a multiple, of which negative ones are one less.
fn decimal(multiple: i64, places: u8) -> f64 {
    let ten = 10f64.powi(places.into());
    if multiple < 0 { -((-(multiple + 1)) as f64 / ten) } else { multiple as f64 / ten }
}

/// The codes of a page that is coded against another one's.
pub fn against(code: u8, page: &[u8], valid: &[bool], (base_code, base): (u8, &Page)) -> Vec<u8> {
    let (width, _) = width_and_bits(code);
    let base_width = width_and_bits(base_code).0;
    let mut rest = page;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        word(head)
    };
    let model = take(1);
    let (mut a, mut d, mut e) = (0.0, 0.0, 0);
    match model {
        0 => assert_eq!(code, base_code),
        1 => (a, d) = (f64::from_bits(take(8)), f64::from_bits(take(8))),
        2 => e = take(1),
        3 => {
            assert!(matches!(code, 3 | 4));
            e = take(1);
            (a, d) = (f64::from_bits(take(8)), f64::from_bits(take(8)));
        }
        _ => panic!("model {model}"),
    }
    let fill = take(if model >= 2 { 8 } else { width });
    let encoding = take(1) as u8;
    assert!(encoding != 7 && encoding < 9 && e <= 9);
    let residual_width = if model >= 2 { 8 } else { width };
    let n = valid.len();
    let residuals = decode(32 + residual_width as u8, encoding, rest, n, 1, None);
    let is_float = |code: u8| matches!(code, 1..=4);
    // Sums wrap at the width: numbers of 64 bits, shifted so that their top is the sign.
    let signed = |bits: u64, width: usize| (bits << (64 - 8 * width)) as i64 >> (64 - 8 * width);
    let flip = |x: i64, width: usize| if x < 0 { x ^ ((1i128 << (8 * width - 1)) - 1) as i64 } else { x };
    let o = |bits: u64| {
        let x = signed(bits, width);
        if is_float(code) { flip(x, width) } else { x }
    };
    let number = |bits: u64| match base_code {
        1 => half::f16::from_bits(bits as u16).to_f64(),
        2 => half::bf16::from_bits(bits as u16).to_f64(),
        3 => f32::from_bits(bits as u32).into(),
        4 => f64::from_bits(bits),
        0 | 17..=24 => bits as f64,
        _ => signed(bits, base_width) as f64,
    };
    let to_code = |x: f64| match code {
        1 if x.is_nan() => 0x7E00,
        2 if x.is_nan() => 0x7FC0,
        3 if x.is_nan() => 0x7FC0_0000,
        4 if x.is_nan() => 0x7FF8_0000_0000_0000,
        1 => half::f16::from_f64(x).to_bits().into(),
        2 => half::bf16::from_f64(x).to_bits().into(),
        3 => (x as f32).to_bits().into(),
        4 => x.to_bits(),
        0 | 17..=24 => x.round().max(0.0).min(((1u64 << width_and_bits(code).1) - 1) as f64) as u64,
        _ => {
            let most = (1i128 << (8 * width - 1)) - 1;
            let whole = (x.round() as i128).clamp(-most - 1, most);
            whole as u64
        }
    };
    let mut out = Vec::new();
    for row in 0..n {
        let z = word(&residuals[row * residual_width..(row + 1) * residual_width]);
        let r = (z >> 1) as i64 ^ -((z & 1) as i64);
        let base_bits = word(&base.codes[row * base_width..(row + 1) * base_width]);
        let bits = match (model, base.valid[row]) {
            (2 | 3, _) if !valid[row] => 0,
            (3, in_base) => {
                let line = (a + d * number(base_bits)).round();
                let whole = line.abs() as i64;
                let signed = if line.is_sign_negative() && !line.is_nan() { !whole } else { whole };
                let p = if in_base { signed } else { fill as i64 };
                to_code(decimal(p.wrapping_add(r), e as u8))
            }
            (2, in_base) => {
                let ten = 10f64.powi(e as i32);
                let p = if in_base { (number(base_bits) * ten).round() as i64 } else { fill as i64 };
                to_code(p.wrapping_add(r) as f64 / ten)
            }
            (_, in_base) => {
                let p = match (model, in_base) {
                    _ if !valid[row] => 0,
                    (0, true) => base_bits,
                    (1, true) => to_code((number(base_bits) - a) / d),
                    _ => fill,
                };
                let sum = signed(o(p).wrapping_add(r) as u64, width);
                if is_float(code) { flip(sum, width) as u64 } else { sum as u64 }
            }
        };
        out.extend_from_slice(&bits.to_le_bytes()[..width]);
    }
    out
}

/// Numbers of chunks, as a RowBlock lists them.
pub fn chunk_numbers(mut bytes: &[u8]) -> Vec<i64> {
    let mut leb = || {
        let len = bytes.iter().position(|b| b & 0x80 == 0).map(|i| i + 1)?;
        let n = bytes[..len].iter().rev().fold(0u64, |n, b| n << 7 | u64::from(b & 0x7F));
        bytes = &bytes[len..];
        Some(n)
    };
    let (mut out, mut end) = (Vec::new(), 0);
    while let Some(distance) = leb() {
        let distance = (distance >> 1) as i64 ^ -((distance & 1) as i64);
        let n = leb().unwrap() as i64;
        out.extend(end + distance..=end + distance + n);
        end += distance + n + 1;
    }
    out
}
