//! Models: canonical Huffman codes of bytes, made once for a part of all pages of a chunk.
//!
//! Since it is stored once, a model can afford a code for each of some *contexts*. A symbol's context is that of the
//! symbol before it in its stream, of 0 at a stream's begin: in smooth maps, neighbours have like exponents. Contexts
//! are ranges of symbols. Codes have 10 bits at most, so that the tables of eight contexts stay in the first-level
//! cache; up to six streams decode side by side, one symbol of each after another.
//!
//! Layout: number of contexts less one u8; the first symbol of each context but the first, ascending; the code lengths
//! of each context, as in a [`huffman`] block but of at most 10 bits.
//!
//! Layout of coded bytes: 0 and the least stream size u16, by which each size is greater u8; or 1 and each size u32;
//! then the streams. There is 1 stream below 64 symbols, 4 below 1024, else 6; symbols are spread over them as evenly
//! as possible, in order, the last one short.

use super::huffman::{self, BitWriter, Histogram, Lengths, Words};
use crate::{
    error::{Result, corrupt},
    simd,
};

/// Longest code.
pub(crate) const MODEL_LEN: u32 = 10;
/// Entries of a context's table.
pub(crate) const MODEL_TABLE: usize = 1 << MODEL_LEN;
/// Most contexts of a model.
pub(crate) const MODEL_CONTEXTS: usize = 8;
const PART: &str = "shared tables";
const BLOCK: &str = "coded block";

/// Streams at most.
const MAX_STREAMS: usize = 6;

const fn n_streams(n: usize) -> usize {
    match n {
        0..64 => 1,
        64..1024 => 4,
        _ => MAX_STREAMS,
    }
}

/// Symbols of each stream but the last.
fn per_stream(n: usize) -> usize {
    n.div_ceil(n_streams(n)).max(1)
}

/// How often each symbol follows each other one.
pub(crate) struct Counts {
    pairs: Vec<Histogram>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self { pairs: vec![[0; 256]; 256] }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(per_stream(bytes.len())) {
            let mut before = 0;
            for &b in part {
                self.pairs[usize::from(before)][usize::from(b)] += 1;
                before = b;
            }
        }
    }
}

fn merged(a: &Histogram, b: &Histogram) -> Histogram {
    std::array::from_fn(|i| a[i] + b[i])
}

/// Bits of an ideal code, about: logarithms are taken as linear between powers of two.
fn entropy(h: &Histogram) -> i64 {
    // c log2 c in 1/16 bits.
    let each = |c: u32| {
        let c = u64::from(c.max(1));
        let log = c.ilog2();
        (c * (u64::from(log) * 16 + ((c << 4) >> log) - 16)) as i64
    };
    each(h.iter().sum()) - h.iter().map(|&c| each(c)).sum::<i64>()
}

/// The codes of a part's contexts.
pub(crate) struct Model {
    /// First symbol of each context but the first.
    starts: Vec<u8>,
    lens: Vec<Lengths>,
    words: Vec<Words>,
    /// Context of each symbol.
    context: [u8; 256],
}

impl Model {
    /// The best model of at most `most` contexts for these counts, and the bytes that it and all it was made for will take.
    pub(crate) fn train(counts: &Counts, most: usize) -> Result<Option<(Self, usize)>> {
        let weights: Vec<u64> = counts.pairs.iter().map(|h| h.iter().map(|&c| u64::from(c)).sum()).collect();
        let total: u64 = weights.iter().sum();
        // Ranges of symbols that occur about equally often; then the neighbours that differ least become one.
        let mut ranges: Vec<(u8, Histogram)> = Vec::new();
        let mut weight = 0;
        for (s, (h, w)) in counts.pairs.iter().zip(&weights).enumerate() {
            let fine = 3 * MODEL_CONTEXTS as u64;
            match ranges.last_mut() {
                Some(last) if weight * fine < total || *w == 0 => last.1 = merged(&last.1, h),
                _ => {
                    ranges.push((s as u8, *h));
                    weight = 0;
                }
            }
            weight += w;
        }
        let mut bits: Vec<i64> = ranges.iter().map(|r| entropy(&r.1)).collect();
        // What a range would lose by becoming one with the next.
        let loss = |r: &[(u8, Histogram)], bits: &[i64], i: usize| match (r.get(i..i + 2), bits.get(i..i + 2)) {
            (Some([a, b]), Some([a_bits, b_bits])) => entropy(&merged(&a.1, &b.1)) - a_bits - b_bits,
            _ => i64::MAX,
        };
        let mut losses: Vec<i64> = (0..ranges.len()).map(|i| loss(&ranges, &bits, i)).collect();
        let mut best: Option<(Self, usize)> = None;
        loop {
            if ranges.len() <= most
                && matches!(ranges.len(), MODEL_CONTEXTS | 4 | 1)
                && let Some((model, size)) = Self::new(&ranges)?
            {
                // One context decodes faster: more of them must be worth it.
                let must = if ranges.len() == 1 { size - size / 200 } else { size };
                if best.as_ref().is_none_or(|b| must < b.1) {
                    best = Some((model, size));
                }
            }
            let least = (0..ranges.len().saturating_sub(1)).min_by_key(|&i| losses[i]);
            let Some(i) = least else { return Ok(best) };
            let (_, next) = ranges.remove(i + 1);
            bits.remove(i + 1);
            losses.remove(i + 1);
            ranges[i].1 = merged(&ranges[i].1, &next);
            bits[i] = entropy(&ranges[i].1);
            for i in [i.saturating_sub(1), i] {
                losses[i] = loss(&ranges, &bits, i);
            }
        }
    }

    fn new(ranges: &[(u8, Histogram)]) -> Result<Option<(Self, usize)>> {
        let starts: Vec<u8> = ranges.iter().skip(1).map(|r| r.0).collect();
        let mut lens = Vec::with_capacity(ranges.len());
        let mut bits = 0;
        for (_, h) in ranges {
            let mut h = *h;
            // A code needs two symbols.
            for s in 0..2 {
                if h.iter().filter(|&&c| c > 0).count() < 2 {
                    h[s] = h[s].max(1);
                }
            }
            let Some(l) = huffman::lengths(&h, MODEL_LEN) else { return Ok(None) };
            bits += h.iter().zip(&l).map(|(&c, &l)| u64::from(c) * u64::from(l)).sum::<u64>();
            lens.push(l);
        }
        let words = lens.iter().map(huffman::words).collect::<Result<_>>()?;
        let context = contexts(&starts);
        let model = Self { starts, lens, words, context };
        let mut bytes = Vec::new();
        model.write(&mut bytes);
        Ok(Some((model, bytes.len() + (bits / 8) as usize)))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.starts.len() as u8);
        out.extend_from_slice(&self.starts);
        self.lens.iter().for_each(|l| huffman::write_lengths(l, out));
    }

    /// Appends the coded bytes; `false`, and nothing appended, where a symbol has no code.
    pub(crate) fn encode(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut streams = Vec::with_capacity(bytes.len());
        let mut sizes = Vec::with_capacity(MAX_STREAMS);
        for part in bytes.chunks(per_stream(bytes.len())) {
            let before = streams.len();
            let mut w = BitWriter::new(&mut streams);
            let mut words = &self.words[0];
            for &b in part {
                let (word, len) = words[usize::from(b)];
                if len == 0 {
                    return false;
                }
                w.put(word, len);
                words = &self.words[usize::from(self.context[usize::from(b)])];
            }
            w.finish();
            sizes.push(streams.len() - before);
        }
        let least = sizes.iter().copied().min().unwrap_or(0);
        if least <= 0xFFFF && sizes.iter().all(|s| s - least <= 0xFF) {
            out.push(0);
            out.extend_from_slice(&(least as u16).to_le_bytes());
            out.extend(sizes.iter().map(|s| (s - least) as u8));
        } else {
            out.push(1);
            out.extend(sizes.iter().flat_map(|s| (*s as u32).to_le_bytes()));
        }
        out.extend_from_slice(&streams);
        true
    }
}

fn contexts(starts: &[u8]) -> [u8; 256] {
    std::array::from_fn(|s| starts.iter().filter(|&&start| usize::from(start) <= s).count() as u8)
}

/// Where the streams of `n` symbols lie in coded bytes, and where the last one ends.
fn bounds(bytes: &[u8], n: usize) -> Result<(usize, [usize; MAX_STREAMS + 1])> {
    let bad = |why| corrupt(BLOCK, why);
    let s = n_streams(n);
    let (wide, rest) = bytes.split_first().ok_or(bad("cut short"))?;
    let mut sizes = [0; MAX_STREAMS];
    let mut bounds = [0; MAX_STREAMS + 1];
    match *wide {
        0 => {
            let head = rest.get(..2 + s).ok_or(bad("cut short"))?;
            let least = usize::from(u16::from_le_bytes([head[0], head[1]]));
            sizes.iter_mut().zip(&head[2..]).for_each(|(size, more)| *size = least + usize::from(*more));
            bounds[0] = 3 + s;
        }
        1 => {
            let head = rest.get(..4 * s).ok_or(bad("cut short"))?;
            let each = head.as_chunks::<4>().0;
            sizes.iter_mut().zip(each).for_each(|(size, b)| *size = u32::from_le_bytes(*b) as usize);
            bounds[0] = 1 + 4 * s;
        }
        _ => return Err(bad("size width")),
    }
    for i in 0..s {
        bounds[i + 1] = bounds[i].saturating_add(sizes[i]);
    }
    if bounds[s] > bytes.len() { Err(bad("cut short")) } else { Ok((bounds[s], bounds)) }
}

/// The look-up tables of a model.
pub(crate) struct ModelTables {
    entries: Vec<u16>,
}

impl ModelTables {
    /// Takes a model off the front of `bytes`. Errors: `Corrupt`.
    pub(crate) fn read(bytes: &mut &[u8]) -> Result<Self> {
        let bad = |why| corrupt(PART, why);
        let (n, rest) = bytes.split_first().ok_or(bad("cut short"))?;
        let n = usize::from(*n);
        if n >= MODEL_CONTEXTS {
            return Err(bad("number of contexts"));
        }
        let (starts, mut rest) = rest.split_at_checked(n).ok_or(bad("cut short"))?;
        if starts.first() == Some(&0) || starts.windows(2).any(|w| w[0] >= w[1]) {
            return Err(bad("contexts"));
        }
        let context = contexts(starts);
        let mut entries = vec![0; if n == 0 { MODEL_TABLE } else { MODEL_CONTEXTS * MODEL_TABLE }];
        for table in entries.chunks_exact_mut(MODEL_TABLE).take(n + 1) {
            let (code, taken) = huffman::read_lengths(rest)?;
            let (order, n) = code.order(MODEL_LEN)?;
            let mut left = table;
            for &(s, len) in &order[..n] {
                let (these, more) = left.split_at_mut_checked(MODEL_TABLE >> len).ok_or(bad("code"))?;
                these.fill(u16::from(len) << 12 | u16::from(context[usize::from(s)]) << 8 | u16::from(s));
                left = more;
            }
            rest = rest.get(taken..).ok_or(bad("cut short"))?;
        }
        *bytes = rest;
        Ok(Self { entries })
    }

    /// Decodes what [`Model::encode`] wrote from the front of `bytes` into `out`; returns the bytes taken.
    pub(crate) fn decode(&self, bytes: &[u8], padded: &mut Vec<u8>, out: &mut [u8]) -> Result<usize> {
        let (end, bounds) = bounds(bytes, out.len())?;
        let bounds = &bounds[..=n_streams(out.len())];
        let ok = if bytes.len() - end >= 8 {
            simd::model_streams(bytes, bounds, &self.entries, out)
        } else {
            padded.clear();
            padded.extend_from_slice(&bytes[..end]);
            padded.extend_from_slice(&[0; 8]);
            simd::model_streams(padded, bounds, &self.entries, out)
        };
        if ok { Ok(end) } else { Err(corrupt(BLOCK, "stream size")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::scalar_huffman;

    fn trained(pages: &[Vec<u8>], most: usize) -> Model {
        let mut counts = Counts::new();
        pages.iter().for_each(|p| counts.add(p));
        Model::train(&counts, most).unwrap().unwrap().0
    }

    /// Steps of a few values, so that neighbours are alike; lengths around the numbers of streams.
    fn pages() -> Vec<Vec<u8>> {
        let mut x = 7u32;
        let lengths = [1, 2, 5, 63, 64, 65, 255, 1023, 1024, 1025, 1029, 4097, 70_001];
        lengths
            .map(|n| {
                let mut level = 100u8;
                let mut next = || {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    level = level.wrapping_add((x >> 29) as u8).wrapping_sub(3) & 127;
                    level
                };
                (0..n).map(|_| next()).collect()
            })
            .into()
    }

    #[test]
    fn models_round_trip_in_every_form() {
        let pages = pages();
        for most in [1, 4, MODEL_CONTEXTS] {
            let model = trained(&pages, most);
            assert_eq!(model.starts.len() + 1, most);
            let mut bytes = Vec::new();
            model.write(&mut bytes);
            let mut rest = &bytes[..];
            let tables = ModelTables::read(&mut rest).unwrap();
            assert!(rest.is_empty());
            for page in &pages {
                let mut coded = Vec::new();
                assert!(model.encode(page, &mut coded));
                let end = coded.len();
                for behind in [0, 100] {
                    coded.resize(end + behind, 0xA5);
                    let mut out = vec![0; page.len()];
                    assert_eq!(tables.decode(&coded, &mut Vec::new(), &mut out), Ok(end));
                    assert!(&out == page, "{most} contexts, {} symbols", page.len());
                }
                let (_, bounds) = bounds(&coded[..end], page.len()).unwrap();
                let mut out = vec![0; page.len()];
                let bounds = &bounds[..=n_streams(page.len())];
                assert!(scalar_huffman::model_streams(&coded, bounds, &tables.entries, &mut out));
                assert!(&out == page, "plain: {most} contexts, {} symbols", page.len());
            }
        }
    }

    #[test]
    fn symbols_without_a_code_are_refused() {
        let model = trained(&[vec![1, 2, 3, 2, 1, 1, 1]], MODEL_CONTEXTS);
        let mut out = vec![9];
        assert!(!model.encode(&[1, 2, 77], &mut out));
        assert_eq!(out, [9]);
    }

    #[test]
    fn a_single_symbol_has_a_code() {
        let model = trained(&[vec![5; 300]], MODEL_CONTEXTS);
        let (mut bytes, mut coded) = (Vec::new(), Vec::new());
        model.write(&mut bytes);
        assert!(model.encode(&[5; 300], &mut coded));
        let mut out = [0; 300];
        let tables = ModelTables::read(&mut &bytes[..]).unwrap();
        assert_eq!(tables.decode(&coded, &mut Vec::new(), &mut out), Ok(coded.len()));
        assert_eq!(out, [5; 300]);
    }
}
