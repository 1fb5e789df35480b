//! The second reader's entropy coded pages: blocks, Huffman codes, and the tables that pages of a chunk share.

use super::parse::{bit, expand, width_and_bits};

pub fn entropy(code: u8, page: &[u8], n: usize, map_w: usize, tables: Option<&Tables>) -> Vec<u8> {
    let (width, _) = width_and_bits(code);
    let flags = page[0];
    let mut rest = &page[1..];
    let (mut fill, mut bitmap) = (0, vec![0xFF; n.div_ceil(8)]);
    if !n.is_multiple_of(8) {
        bitmap[n / 8] = (1 << (n % 8)) - 1;
    }
    assert!([0, 1, 3].contains(&flags));
    let model = |part: usize| tables.and_then(|t| t.models[part].as_ref());
    if flags & 1 != 0 {
        if width == 1 {
            fill = rest[0];
            rest = &rest[1..];
        }
        bitmap = block(&mut rest, n.div_ceil(8), model(0));
        if flags & 2 != 0 {
            assert!(map_w > 0);
            for i in map_w..n {
                let above = bit(&bitmap, i - map_w);
                bitmap[i / 8] ^= u8::from(above) << (i % 8);
            }
        }
    }
    let n_dense = (0..n).filter(|i| bit(&bitmap, *i)).count();
    let n_planes = if n_dense > 0 { width } else { 0 };
    let planes: Vec<Vec<u8>> = (0..n_planes).map(|p| block(&mut rest, n_dense, model(1 + p))).collect();
    assert!(rest.is_empty());
    let mut dense = Vec::new();
    for i in 0..n_dense {
        let top_first = planes.iter().fold(0u64, |v, plane| v << 8 | u64::from(plane[i]));
        let value = match code {
            2 => u64::from((top_first as u16).rotate_right(1)),
            3 => u64::from((top_first as u32).rotate_right(1)),
            4 => top_first.rotate_right(1),
            _ => top_first,
        };
        dense.extend_from_slice(&value.to_le_bytes()[..width]);
    }
    expand(width, fill, &bitmap, &dense, n)
}

/// Takes a block of `n` bytes off the front; `model` is that of its part.
fn block(bytes: &mut &[u8], n: usize, model: Option<&Model>) -> Vec<u8> {
    let mut take = |k: usize| {
        let (head, tail) = bytes.split_at(k);
        *bytes = tail;
        head
    };
    match take(1)[0] {
        0 => take(n).to_vec(),
        1 => take(1).repeat(n),
        2 => huffman(bytes, n),
        3 => {
            let low = take(1)[0] & 1;
            let packed = take((7 * n).div_ceil(8));
            let seven = |i: usize| (0..7).map(|k| u8::from(bit(packed, 7 * i + k)) << k).sum::<u8>();
            (0..n).map(|i| seven(i) << 1 | low).collect()
        }
        4 => model.expect("a model of this part").decode(bytes, n),
        way => panic!("block of way {way}"),
    }
}

/// Bits from the top of each byte down.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn next(&mut self) -> usize {
        let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
        self.at += 1;
        usize::from(bit)
    }

    fn number(&mut self, n: usize) -> usize {
        (0..n).fold(0, |v, _| v << 1 | self.next())
    }
}

/// A code: by length and bits, the value.
#[derive(Debug)]
struct Codes(std::collections::HashMap<(usize, usize), u8>);

impl Codes {
    /// Takes code lengths off the front and makes the canonical code of them.
    fn read(bytes: &mut &[u8], longest: usize) -> Self {
        let (first, last) = (usize::from(bytes[0]), usize::from(bytes[1]));
        let mut bits = Bits { bytes: &bytes[2..], at: 0 };
        let mut lengths = [0; 256];
        let mut before = 0;
        for length in &mut lengths[first..=last] {
            *length = match () {
                () if bits.next() == 0 => before,
                () if bits.next() == 0 => 0,
                () if bits.next() == 0 => match bits.next() {
                    0 => before + 1,
                    _ => before - 1,
                },
                () => bits.number(4),
            };
            if *length > 0 {
                before = *length;
            }
        }
        *bytes = &bytes[2 + bits.at.div_ceil(8)..];
        assert!(lengths.iter().all(|l| *l <= longest));
        // Canonical codes: by length, then by value.
        let mut codes = std::collections::HashMap::new();
        let mut next = 0usize;
        for length in 1..=longest {
            next <<= 1;
            for symbol in (0..256).filter(|s| lengths[*s] == length) {
                codes.insert((length, next), symbol as u8);
                next += 1;
            }
        }
        assert_eq!(next, 1 << longest, "the code is complete");
        Self(codes)
    }

    fn next(&self, bits: &mut Bits<'_>) -> u8 {
        let (mut length, mut code) = (0, 0);
        loop {
            code = code << 1 | bits.next();
            length += 1;
            if let Some(symbol) = self.0.get(&(length, code)) {
                return *symbol;
            }
            assert!(length < 16);
        }
    }
}

/// A number of `size` bytes, taken off the front.
fn number(bytes: &mut &[u8], size: usize) -> usize {
    let (head, tail) = bytes.split_at(size);
    *bytes = tail;
    head.iter().rev().fold(0, |v, b| v << 8 | usize::from(*b))
}

/// `n` bytes of streams of these sizes, taken off the front; `codes` tells the code after which byte of a stream.
fn streams<'a>(bytes: &mut &[u8], n: usize, sizes: &[usize], codes: impl Fn(Option<u8>) -> &'a Codes) -> Vec<u8> {
    let per = n.div_ceil(sizes.len());
    let mut out = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        let mut bits = Bits { bytes: &bytes[..size], at: 0 };
        let mut before = None;
        for _ in i * per..n.min((i + 1) * per) {
            let symbol = codes(before).next(&mut bits);
            out.push(symbol);
            before = Some(symbol);
        }
        assert_eq!(bits.at.div_ceil(8), size);
        while !bits.at.is_multiple_of(8) {
            assert_eq!(bits.next(), 0);
        }
        *bytes = &bytes[size..];
    }
    out
}

fn huffman(bytes: &mut &[u8], n: usize) -> Vec<u8> {
    let codes = Codes::read(bytes, 11);
    let wide = number(bytes, 1);
    assert!(wide <= 1);
    let sizes: Vec<usize> = (0..if n < 256 { 1 } else { 4 }).map(|_| number(bytes, 2 + 2 * wide)).collect();
    streams(bytes, n, &sizes, |_| &codes)
}

/// Tables that the pages of a chunk share: by part, its model.
#[derive(Debug)]
pub struct Tables {
    models: Vec<Option<Model>>,
}

impl Tables {
    /// The tables of a chunk whose codes have so many bytes.
    pub fn read(mut bytes: &[u8], width: usize) -> Self {
        let parts = number(&mut bytes, 2);
        assert_eq!(parts >> (1 + width), 0);
        let models = (0..=width).map(|part| (parts >> part & 1 == 1).then(|| Model::read(&mut bytes))).collect();
        assert!(bytes.is_empty());
        Self { models }
    }
}

#[derive(Debug)]
struct Model {
    /// First symbol of each context.
    starts: Vec<u8>,
    codes: Vec<Codes>,
}

impl Model {
    fn read(bytes: &mut &[u8]) -> Self {
        let n = number(bytes, 1);
        assert!(n < 8);
        let mut starts = vec![0];
        starts.extend((0..n).map(|_| number(bytes, 1) as u8));
        assert!(starts.is_sorted_by(|a, b| a < b));
        let codes = starts.iter().map(|_| Codes::read(bytes, 10)).collect();
        Self { starts, codes }
    }

    fn decode(&self, bytes: &mut &[u8], n: usize) -> Vec<u8> {
        let n_streams = match n {
            0..64 => 1,
            64..1024 => 4,
            _ => 6,
        };
        let sizes: Vec<usize> = match number(bytes, 1) {
            0 => {
                let least = number(bytes, 2);
                (0..n_streams).map(|_| least + number(bytes, 1)).collect()
            }
            1 => (0..n_streams).map(|_| number(bytes, 4)).collect(),
            form => panic!("sizes of form {form}"),
        };
        streams(bytes, n, &sizes, |before| {
            let context = before.map_or(0, |b| self.starts.iter().rposition(|start| *start <= b).unwrap());
            &self.codes[context]
        })
    }
}
