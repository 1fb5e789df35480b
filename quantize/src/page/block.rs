//! Blocks: byte sequences of known length, stored in the cheapest of five ways. First byte: the way.

use super::{
    huffman::{self, Table},
    model::{Model, ModelTables},
};
use crate::error::{Result, corrupt};

const RAW: u8 = 0;
const CONSTANT: u8 = 1;
const HUFFMAN: u8 = 2;
/// The lowest bit of every byte is the same: seven bits each.
const SEVEN: u8 = 3;
/// By the model that the pages of a chunk share for this part.
const MODEL: u8 = 4;

/// Share of the raw size below which entropy coding is worth its decoding.
pub(crate) const WORTH: f64 = 0.98;

/// A way to store a sequence, and its size in bytes.
pub(crate) struct Plan {
    way: u8,
    lens: Option<Box<huffman::Lengths>>,
    header: Vec<u8>,
    pub size: usize,
}

pub(crate) fn plan(bytes: &[u8]) -> Plan {
    let hist = huffman::histogram(bytes);
    let mut plan = Plan { way: RAW, lens: None, header: Vec::new(), size: 1 + bytes.len() };
    let Some(lens) = huffman::lengths(&hist, huffman::MAX_LEN) else {
        if !bytes.is_empty() {
            plan.way = CONSTANT;
            plan.size = 2;
        }
        return plan;
    };
    let odd: u32 = hist.iter().skip(1).step_by(2).sum();
    if odd == 0 || odd as usize == bytes.len() {
        plan.way = SEVEN;
        plan.size = 2 + (7 * bytes.len()).div_ceil(8);
    }
    let bits: u64 = hist.iter().zip(&lens).map(|(&n, &l)| u64::from(n) * u64::from(l)).sum();
    huffman::write_lengths(&lens, &mut plan.header);
    let coded = 2 + plan.header.len() + (bits / 8) as usize + 3 * huffman::n_streams(bytes.len());
    if (coded as f64) < WORTH * plan.size as f64 {
        plan.way = HUFFMAN;
        plan.size = coded;
        plan.lens = Some(Box::new(lens));
    }
    plan
}

pub(crate) fn write(plan: &Plan, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.push(plan.way);
    match (plan.way, &plan.lens) {
        (HUFFMAN, Some(lens)) => {
            out.extend_from_slice(&plan.header);
            huffman::write_streams(lens, bytes, out)?;
        }
        (CONSTANT, _) => out.extend(bytes.first()),
        (SEVEN, _) => {
            out.extend(bytes.first().map(|b| b & 1));
            for eight in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..eight.len()].copy_from_slice(eight);
                let packed = squeeze(u64::from_le_bytes(word) >> 1).to_le_bytes();
                out.extend_from_slice(&packed[..(7 * eight.len()).div_ceil(8)]);
            }
        }
        _ => out.extend_from_slice(bytes),
    }
    Ok(())
}

/// [`write`]s by the model where that is smaller.
pub(crate) fn write_shared(plan: &Plan, model: Option<&Model>, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let from = out.len();
    if let Some(model) = model {
        out.push(MODEL);
        if model.encode(bytes, out) {
            let size = out.len() - from;
            // An own table takes time to read: it must save some bytes.
            let must = if plan.way == HUFFMAN { size - size / 32 } else { size };
            if must <= plan.size {
                return Ok(());
            }
        }
        out.truncate(from);
    }
    write(plan, bytes, out)
}

/// Reads one block from the front of `bytes` into `out` and takes it off.
pub(crate) fn read(bytes: &mut &[u8], table: &mut Table, model: Option<&ModelTables>, out: &mut [u8]) -> Result<()> {
    let short = || corrupt("block", "cut short");
    let (way, rest) = bytes.split_first().ok_or_else(short)?;
    *bytes = match *way {
        RAW => {
            let (raw, rest) = rest.split_at_checked(out.len()).ok_or_else(short)?;
            out.copy_from_slice(raw);
            rest
        }
        CONSTANT => {
            let (byte, rest) = rest.split_first().ok_or_else(short)?;
            out.fill(*byte);
            rest
        }
        HUFFMAN => {
            let taken = huffman::read(rest, table, out)?;
            rest.get(taken..).ok_or_else(short)?
        }
        SEVEN => {
            let (low, rest) = rest.split_first().ok_or_else(short)?;
            let (packed, rest) = rest.split_at_checked((7 * out.len()).div_ceil(8)).ok_or_else(short)?;
            let low = u64::from(*low & 1) * 0x0101_0101_0101_0101;
            let (wholes, tail) = out.as_chunks_mut::<8>();
            for (o, p) in wholes.iter_mut().zip(packed.as_chunks::<7>().0) {
                let [a, b, c, d, e, f, g] = *p;
                let word = u64::from_le_bytes([a, b, c, d, e, f, g, 0]);
                *o = (spread(word) << 1 | low).to_le_bytes();
            }
            let mut word = [0; 8];
            for (w, p) in word.iter_mut().zip(packed.get(7 * wholes.len()..).unwrap_or_default()) {
                *w = *p;
            }
            let last = (spread(u64::from_le_bytes(word)) << 1 | low).to_le_bytes();
            for (o, b) in tail.iter_mut().zip(last) {
                *o = b;
            }
            rest
        }
        MODEL => {
            let model = model.ok_or(corrupt("block", "no model for this part"))?;
            let taken = model.decode(rest, table.padded(), out)?;
            rest.get(taken..).ok_or_else(short)?
        }
        _ => return Err(corrupt("block", "way")),
    };
    Ok(())
}

/// Eight bytes of seven bits to 56 bits.
const fn squeeze(v: u64) -> u64 {
    let v = v & 0x007F_007F_007F_007F | (v & 0x7F00_7F00_7F00_7F00) >> 1;
    let v = v & 0x0000_3FFF_0000_3FFF | (v & 0x3FFF_0000_3FFF_0000) >> 2;
    v & 0x0FFF_FFFF | (v & 0x0FFF_FFFF_0000_0000) >> 4
}

/// Undoes [`squeeze`].
const fn spread(v: u64) -> u64 {
    let v = v & 0x0FFF_FFFF | v << 4 & 0x0FFF_FFFF_0000_0000;
    let v = v & 0x0000_3FFF_0000_3FFF | v << 2 & 0x3FFF_0000_3FFF_0000;
    v & 0x007F_007F_007F_007F | v << 1 & 0x7F00_7F00_7F00_7F00
}
