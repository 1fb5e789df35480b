//! Canonical Huffman codes of bytes, in streams that decode side by side.
//!
//! A page is small, so its tables must be too: code lengths (11 at most) are written as differences between
//! neighbours. Streams are read from the top bit of each byte down. A chain of table look-ups waits on memory; four
//! independent ones keep the core busy.
//!
//! Source: D. A. Huffman, 1952.

use crate::{
    error::{Result, corrupt},
    simd,
};

/// Longest code.
pub(crate) const MAX_LEN: u32 = 11;
pub(crate) const TABLE: usize = 1 << MAX_LEN;
const PART: &str = "huffman block";

pub(crate) type Histogram = [u32; 256];
pub(crate) type Lengths = [u8; 256];

pub(crate) fn histogram(bytes: &[u8]) -> Histogram {
    histogram_of([bytes])
}

/// [`histogram`] of pieces.
pub(crate) fn histogram_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Histogram {
    // Four tables, so that runs of one byte do not wait on their own counter.
    let mut h = [[0u32; 256]; 4];
    for bytes in pieces {
        let (quads, tail) = bytes.as_chunks::<4>();
        for q in quads {
            for (h, b) in h.iter_mut().zip(q) {
                h[usize::from(*b)] += 1;
            }
        }
        for b in tail {
            h[0][usize::from(*b)] += 1;
        }
    }
    std::array::from_fn(|i| h[0][i] + h[1][i] + h[2][i] + h[3][i])
}

/// Code lengths of at most `max_len` bits that come close to the least total; none below two distinct bytes.
pub(crate) fn lengths(hist: &Histogram, max_len: u32) -> Option<Lengths> {
    let mut leaves: Vec<(u32, u8)> =
        (0..=255u8).filter_map(|s| Some((hist[usize::from(s)], s)).filter(|l| l.0 > 0)).collect();
    if leaves.len() < 2 {
        return None;
    }
    leaves.sort_unstable();
    // Two queues: leaves by weight, and inner nodes, which are made in order of weight.
    let n = leaves.len();
    let mut inner: Vec<u64> = Vec::with_capacity(n);
    let mut parent = vec![0u16; 2 * n];
    let (mut l, mut i) = (0, 0);
    while inner.len() < n - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let leaf = leaves.get(l).map_or(u64::MAX, |x| u64::from(x.0));
            let node = inner.get(i).copied().unwrap_or(u64::MAX);
            if leaf <= node {
                weight += leaf;
                parent[l] = (n + inner.len()) as u16;
                l += 1;
            } else {
                weight += node;
                parent[n + i] = (n + inner.len()) as u16;
                i += 1;
            }
        }
        inner.push(weight);
    }
    let mut depth = vec![0u8; 2 * n - 1];
    for node in (0..2 * n - 2).rev() {
        depth[node] = depth[usize::from(parent[node])].saturating_add(1);
    }
    // Cut to the limit, then lengthen the rarest codes that can grow until the code is possible again.
    let limit = max_len as u8;
    let mut lens: Vec<u8> = depth[..n].iter().map(|d| (*d).min(limit)).collect();
    let cost = |len: u8| 1i64 << (max_len - u32::from(len));
    let mut over = lens.iter().map(|&l| cost(l)).sum::<i64>() - cost(0);
    while over > 0 {
        let rarest = lens.iter().position(|&l| l < limit)?;
        lens[rarest] += 1;
        over -= cost(lens[rarest]);
    }
    // Give what is left over to the most common.
    for len in lens.iter_mut().rev() {
        while *len > 1 && over + cost(*len) <= 0 {
            over += cost(*len);
            *len -= 1;
        }
    }
    let mut out = [0; 256];
    for ((_, s), len) in leaves.iter().zip(lens) {
        out[usize::from(*s)] = len;
    }
    Some(out)
}

/// Code of each byte and its length, 0 where there is none; codes of one length follow in order of byte.
pub(crate) type Words = [(u32, u32); 256];

/// The canonical code of these lengths, which must be complete.
pub(crate) fn words(lens: &Lengths) -> Result<Words> {
    let mut count = [0u32; MAX_LEN as usize + 1];
    for &l in lens {
        *count.get_mut(usize::from(l)).ok_or(corrupt(PART, "code length"))? += 1;
    }
    let mut start = [0u32; MAX_LEN as usize + 1];
    let mut next = 0;
    for len in 1..=MAX_LEN as usize {
        start[len] = next;
        next += count[len] << (MAX_LEN as usize - len);
    }
    if next != TABLE as u32 {
        return Err(corrupt(PART, "incomplete code"));
    }
    let mut words = [(0, 0); 256];
    for (word, &len) in words.iter_mut().zip(lens) {
        if len > 0 {
            let shift = MAX_LEN - u32::from(len);
            *word = (start[usize::from(len)] >> shift, u32::from(len));
            start[usize::from(len)] += 1 << shift;
        }
    }
    Ok(words)
}

/// Number of streams for this many symbols.
pub(crate) const fn n_streams(n: usize) -> usize {
    match n {
        0..256 => 1,
        _ => 4,
    }
}

/// Writes bits from the top of each byte down.
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    acc: u64,
    used: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, acc: 0, used: 0 }
    }

    /// Appends the low `len` bits (32 at most) of `value`.
    #[inline(always)]
    pub(crate) fn put(&mut self, value: u32, len: u32) {
        self.acc |= u64::from(value) << (64 - self.used - len);
        self.used += len;
        if self.used >= 32 {
            self.out.extend_from_slice(&((self.acc >> 32) as u32).to_be_bytes());
            self.acc <<= 32;
            self.used -= 32;
        }
    }

    pub(crate) fn finish(self) {
        let n = self.used.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.acc.to_be_bytes()[..n]);
    }
}

/// Writes code lengths: per symbol, from first to last used: `0` same as the last length that was not 0, `10` none,
/// `110` and sign one more or less, `111` and four bits the length itself.
pub(crate) fn write_lengths(lens: &Lengths, out: &mut Vec<u8>) {
    let first = lens.iter().position(|&l| l > 0).unwrap_or(0);
    let last = lens.iter().rposition(|&l| l > 0).unwrap_or(0);
    out.extend([first as u8, last as u8]);
    let mut w = BitWriter::new(out);
    let mut before = 0i32;
    for &len in &lens[first..=last] {
        let len = i32::from(len);
        match len - before {
            _ if len == 0 => w.put(0b10, 2),
            0 => w.put(0, 1),
            1 => w.put(0b1100, 4),
            -1 => w.put(0b1101, 4),
            _ => w.put(0b111_0000 | len as u32, 7),
        }
        if len > 0 {
            before = len;
        }
    }
    w.finish();
}

/// How to read one length by its first seven bits: the bits taken; what stays of the last length; what is added.
const TAKEN: [u8; 128] = {
    let mut taken = [0; 128];
    let mut i = 0;
    while i < 128 {
        taken[i] = match i {
            0..64 => 1,
            64..96 => 2,
            96..112 => 4,
            _ => 7,
        };
        i += 1;
    }
    taken
};
const KEEP_ADD: [(u8, u8); 128] = {
    let mut steps = [(0, 0); 128];
    let mut i = 0;
    while i < 128 {
        steps[i] = match i {
            0..64 => (0xFF, 0),
            64..96 => (0, 0),
            96..104 => (0xFF, 1),
            104..112 => (0xFF, 0xFF),
            _ => (0, i as u8 & 15),
        };
        i += 1;
    }
    steps
};

/// Code lengths as read: those of the symbols from `first` on, each symbol's rank among those of its length, and how
/// many of each length there are.
pub(crate) struct Code {
    first: usize,
    n: usize,
    lens: Lengths,
    ranks: [u8; 256],
    counts: [u16; 16],
}

impl Code {
    /// Bytes and the lengths of their codes in order of code, and how many. Errors: `Corrupt` unless the code is
    /// complete with codes of at most `max_len` bits.
    pub(crate) fn order(&self, max_len: u32) -> Result<([(u8, u8); 256], usize)> {
        // First place of each length in order of code, where shorter codes come first.
        let mut places = [0u8; 16];
        let (mut n, mut space) = (0, 0);
        for (len, &count) in self.counts.iter().enumerate().skip(1) {
            if len > max_len as usize && count > 0 {
                return Err(corrupt(PART, "code length"));
            }
            places[len] = n as u8;
            n += usize::from(count);
            space += (usize::from(count) << max_len) >> len;
        }
        if space != 1 << max_len {
            return Err(corrupt(PART, "incomplete code"));
        }
        let mut order = [(0u8, 0u8); 256];
        for (i, (&len, &rank)) in self.lens.iter().zip(&self.ranks).take(self.n).enumerate() {
            if len > 0 {
                let place = places[usize::from(len & 15)].wrapping_add(rank);
                order[usize::from(place)] = ((self.first + i) as u8, len);
            }
        }
        Ok((order, n))
    }
}

/// Reads what [`write_lengths`] wrote; returns also the bytes taken.
pub(crate) fn read_lengths(bytes: &[u8]) -> Result<(Code, usize)> {
    let [first, last, bits @ ..] = bytes else {
        return Err(corrupt(PART, "cut short"));
    };
    let first = usize::from(*first);
    let n = (usize::from(*last) + 1).checked_sub(first).ok_or(corrupt(PART, "symbols"))?;
    let mut code = Code { first, n, lens: [0; 256], ranks: [0; 256], counts: [0; 16] };
    let mut at = 0usize;
    let mut before = 0u8;
    let groups = code.lens.as_chunks_mut::<8>().0.iter_mut().zip(code.ranks.as_chunks_mut::<8>().0);
    for (i, (lens, ranks)) in groups.take(n.div_ceil(8)).enumerate() {
        let word = match bits.get(at / 8..).and_then(|b| b.first_chunk()) {
            Some(word) => *word,
            None => std::array::from_fn(|i| bits.get(at / 8 + i).copied().unwrap_or(0)),
        };
        // Eight steps of seven bits are left of 64 after at most seven are dropped.
        let mut acc = u64::from_be_bytes(word) << (at % 8);
        for (len, rank) in lens.iter_mut().zip(ranks).take(n - 8 * i) {
            let seven = (acc >> 57) as usize;
            let taken = TAKEN[seven];
            acc <<= taken;
            at += usize::from(taken);
            let (keep, add) = KEEP_ADD[seven];
            // Below 16: a length that is too long is found by the counts.
            *len = (before & keep).wrapping_add(add) & 15;
            let count = &mut code.counts[usize::from(*len)];
            *rank = *count as u8;
            *count += 1;
            before = if *len > 0 { *len } else { before };
        }
    }
    match at.div_ceil(8) {
        taken if taken <= bits.len() => Ok((code, 2 + taken)),
        _ => Err(corrupt(PART, "cut short")),
    }
}

/// Appends the streams of `bytes`, each of which must have a code, behind their sizes: as u16, or as u32 where the first
/// byte is 1.
pub(crate) fn write_streams(lens: &Lengths, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let codes = words(lens)?;
    let s = n_streams(bytes.len());
    let mut streams = Vec::with_capacity(bytes.len());
    let mut sizes = Vec::with_capacity(s);
    for part in bytes.chunks(bytes.len().div_ceil(s).max(1)) {
        let before = streams.len();
        let mut w = BitWriter::new(&mut streams);
        let (pairs, tail) = part.as_chunks::<2>();
        for [a, b] in pairs {
            let ((a, a_len), (b, b_len)) = (codes[usize::from(*a)], codes[usize::from(*b)]);
            w.put(a << b_len | b, a_len + b_len);
        }
        for b in tail {
            let (code, len) = codes[usize::from(*b)];
            w.put(code, len);
        }
        w.finish();
        sizes.push(streams.len() - before);
    }
    let wide = sizes.iter().any(|&x| x > 0xFFFF);
    out.push(u8::from(wide));
    for size in &sizes[..sizes.len() - 1] {
        out.extend_from_slice(&(*size as u32).to_le_bytes()[..if wide { 4 } else { 2 }]);
    }
    // The last size too, so that a block knows its end.
    out.extend_from_slice(&(sizes[sizes.len() - 1] as u32).to_le_bytes()[..if wide { 4 } else { 2 }]);
    out.extend_from_slice(&streams);
    Ok(())
}

/// Look-up by the next [`MAX_LEN`] bits: the symbol in the high byte, its length in the low. Room for one more
/// store lies behind.
pub(crate) struct Table {
    entries: Box<[u16; TABLE + STORE]>,
    /// Copy of a block with nothing behind it.
    padded: Vec<u8>,
}

/// Entries written at once.
pub(crate) const STORE: usize = 16;

impl Table {
    pub(crate) fn new() -> Self {
        Self { entries: Box::new([0; TABLE + STORE]), padded: Vec::new() }
    }

    /// A buffer for blocks with nothing behind them.
    pub(crate) fn padded(&mut self) -> &mut Vec<u8> {
        &mut self.padded
    }

    fn entries(&self) -> &[u16; TABLE] {
        // The length is right, so the default is never taken.
        const EMPTY: &[u16; TABLE] = &[0; TABLE];
        self.entries.first_chunk().unwrap_or(EMPTY)
    }

    fn fill(&mut self, code: &Code) -> Result<()> {
        let (order, n) = code.order(MAX_LEN)?;
        simd::fill_table(&order[..n], &mut self.entries[..]);
        Ok(())
    }
}

/// Decodes lengths and streams from the start of `bytes` into `out`; returns the bytes taken.
pub(crate) fn read(bytes: &[u8], table: &mut Table, out: &mut [u8]) -> Result<usize> {
    let (code, at) = read_lengths(bytes)?;
    table.fill(&code)?;
    let s = n_streams(out.len());
    let wide = *bytes.get(at).ok_or(corrupt(PART, "cut short"))?;
    let width = match wide {
        0 => 2,
        1 => 4,
        _ => return Err(corrupt(PART, "size width")),
    };
    let sizes = bytes.get(at + 1..at + 1 + s * width).ok_or(corrupt(PART, "cut short"))?;
    let mut bounds = [0usize; 5];
    bounds[0] = at + 1 + s * width;
    for (i, size) in sizes.chunks_exact(width).enumerate() {
        let size = size.iter().rev().fold(0, |v, b| v << 8 | usize::from(*b));
        bounds[i + 1] = bounds[i] + size;
    }
    if bounds[s] > bytes.len() {
        return Err(corrupt(PART, "cut short"));
    }
    let ok = if bytes.len() - bounds[s] >= 8 {
        simd::huffman_streams(s, bytes, &bounds, table.entries(), out)
    } else {
        let mut padded = std::mem::take(&mut table.padded);
        padded.clear();
        padded.extend_from_slice(&bytes[..bounds[s]]);
        padded.extend_from_slice(&[0; 8]);
        let ok = simd::huffman_streams(s, &padded, &bounds, table.entries(), out);
        table.padded = padded;
        ok
    };
    if ok { Ok(bounds[s]) } else { Err(corrupt(PART, "stream size")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(bytes: &[u8]) {
        let lens = lengths(&histogram(bytes), MAX_LEN).unwrap();
        let mut out = Vec::new();
        write_lengths(&lens, &mut out);
        write_streams(&lens, bytes, &mut out).unwrap();
        let mut back = vec![0; bytes.len()];
        assert_eq!(read(&out, &mut Table::new(), &mut back).unwrap(), out.len());
        assert_eq!(back, bytes);
    }

    #[test]
    fn round_trips_by_length_and_skew() {
        for n in [2, 3, 7, 255, 256, 257, 1999, 2048, 2051, 70_000] {
            round_trip(&(0..n).map(|i| (i % 2) as u8 * 255).collect::<Vec<_>>());
            round_trip(&(0..n).map(|i| (i * i % 251) as u8).collect::<Vec<_>>());
            // Fibonacci-like weights, which ask for codes longer than the limit.
            round_trip(&(0..n).map(|i: usize| (i + 1).trailing_zeros() as u8).collect::<Vec<_>>());
        }
        let mut fib = vec![];
        let (mut a, mut b) = (1usize, 1usize);
        for s in 0..24u8 {
            fib.extend(std::iter::repeat_n(s, a));
            (a, b) = (b, a + b);
        }
        round_trip(&fib);
    }
}
