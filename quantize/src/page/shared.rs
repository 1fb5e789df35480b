//! Tables that the pages of a chunk share: per part of a page a [`Model`], where one pays.
//!
//! Part 0 of a page is its bitmap; parts 1 and on are the byte planes of its other codes, top byte first. A block of a
//! `Shared` page that is stored by a model takes that of its part.
//!
//! Layout: u16, bit i of which tells that part i has a model; those models in order.

use super::{
    bitmap, block,
    model::{Counts, MODEL_CONTEXTS, Model, ModelTables},
    sparse,
};
use crate::{
    Code,
    error::{Result, corrupt},
};

/// Parts of a page at most: a bitmap and eight byte planes.
const MAX_PARTS: usize = 9;

/// Tables that all pages of a chunk share, for encoding.
pub struct SharedEncoder {
    /// Whether pages leave out their most common code.
    pub(super) has_bitmap: bool,
    /// Whether bitmaps are XORed with themselves one map row earlier.
    pub(super) xor_above: bool,
    parts: Vec<Option<Model>>,
}

/// Counts of a part over all pages, and what the pages would take without sharing.
struct Part {
    counts: Counts,
    bytes: usize,
    own: f64,
}

impl Part {
    fn new() -> Self {
        Self { counts: Counts::new(), bytes: 0, own: 0.0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.counts.add(bytes);
        self.bytes += bytes.len();
        self.own += block::plan(bytes).size as f64;
    }

    /// The model of at most that many contexts, and the bytes saved by it.
    fn finish(self, contexts: usize) -> Result<Option<(Model, f64)>> {
        let Some((model, size)) = Model::train(&self.counts, contexts)? else { return Ok(None) };
        let size = size as f64;
        Ok((size < block::WORTH * self.bytes as f64 && size < self.own).then_some((model, self.own - size)))
    }
}

impl SharedEncoder {
    /// Tables for pages of `page_values` codes each; none where sharing does not pay.
    ///
    /// Shape: `codes` holds the whole codes of all pages, row-major; `map_w` as for [`crate::encode_page`].
    #[must_use]
    pub fn train(code: Code, codes: &[u8], page_values: usize, map_w: usize) -> Option<Self> {
        code.check().ok()?;
        let w = code.width();
        let page_bytes = page_values.checked_mul(w).filter(|&b| b > 0)?;
        if codes.len() <= page_bytes || !codes.len().is_multiple_of(w) {
            return None;
        }
        let pages = || codes.chunks(page_bytes).filter(|p| p.len() > w && p[w..] != p[..p.len() - w]);
        let splits: Vec<_> = pages().map(|p| sparse::split(code, p)).collect();
        let n_dense: usize = splits.iter().map(|s| s.dense.len()).sum();
        let n_all: usize = pages().map(<[u8]>::len).sum();
        // Codes of one byte have no further plane that a bitmap would spare.
        let most = if w == 1 { n_all - n_all / 8 } else { n_all - n_all / 64 };
        let has_bitmap = n_dense <= most;
        let mut parts: Vec<Option<Model>> = Vec::with_capacity(1 + w);
        let mut gain = 0.0;
        let mut xor_above = false;
        if has_bitmap {
            // A bitmap gets one context: more save a percent of it, and take longer to read than that is worth.
            let (mut plain, mut mixed) = (Part::new(), Part::new());
            for (s, p) in splits.iter().zip(pages()) {
                let n = p.len() / w;
                plain.add(&s.bits);
                if (1..n).contains(&map_w) {
                    mixed.add(&bitmap::mixed(&s.bits, map_w, n));
                }
            }
            // What own tables would take is the same choice for both.
            let own = if mixed.bytes == plain.bytes { plain.own.min(mixed.own) } else { plain.own };
            (plain.own, mixed.own) = (own, own);
            let plain = plain.finish(1).ok()?;
            let mixed = if map_w > 0 { mixed.finish(1).ok()? } else { None };
            xor_above = mixed.as_ref().map_or(0.0, |m| m.1) > plain.as_ref().map_or(0.0, |p| p.1);
            let best = if xor_above { mixed } else { plain };
            gain += best.as_ref().map_or(0.0, |b| b.1);
            parts.push(best.map(|b| b.0));
        } else {
            parts.push(None);
        }
        let mut planes: Vec<Part> = (0..w).map(|_| Part::new()).collect();
        let mut buffer = Vec::new();
        for (s, p) in splits.iter().zip(pages()) {
            let dense = if has_bitmap { &s.dense[..] } else { p };
            buffer.resize(dense.len(), 0);
            sparse::to_planes(code, dense, &mut buffer);
            let n = dense.len() / w;
            for (part, plane) in planes.iter_mut().zip(buffer.chunks_exact(n.max(1))) {
                part.add(plane);
            }
        }
        // Codes of one byte make long tables, which take longer to read.
        let contexts = if w == 1 { MODEL_CONTEXTS / 2 } else { MODEL_CONTEXTS };
        for part in planes {
            let best = part.finish(contexts).ok()?;
            gain += best.as_ref().map_or(0.0, |b| b.1);
            parts.push(best.map(|b| b.0));
        }
        let shared = Self { has_bitmap, xor_above, parts };
        (gain > 0.0 && shared.parts.iter().any(Option::is_some)).then_some(shared)
    }

    /// The tables as stored, once per chunk.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mask = self.parts.iter().enumerate().fold(0u16, |m, (i, p)| m | u16::from(p.is_some()) << i);
        let mut out = mask.to_le_bytes().to_vec();
        self.parts.iter().flatten().for_each(|m| m.write(&mut out));
        out
    }

    pub(super) fn part(&self, i: usize) -> Option<&Model> {
        self.parts.get(i)?.as_ref()
    }
}

/// Tables that all pages of a chunk share, for decoding.
pub struct SharedDecoder {
    parts: [Option<ModelTables>; MAX_PARTS],
}

impl SharedDecoder {
    /// Reads what [`SharedEncoder::to_bytes`] wrote. Errors: `Corrupt`.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let bad = |why| corrupt("shared tables", why);
        let (mask, rest) = bytes.split_first_chunk().ok_or(bad("cut short"))?;
        let mask = u16::from_le_bytes(*mask);
        if mask >> MAX_PARTS != 0 {
            return Err(bad("parts"));
        }
        bytes = rest;
        let mut parts = [const { None }; MAX_PARTS];
        for (i, part) in parts.iter_mut().enumerate() {
            if mask >> i & 1 != 0 {
                *part = Some(ModelTables::read(&mut bytes)?);
            }
        }
        if bytes.is_empty() { Ok(Self { parts }) } else { Err(bad("bytes after the end")) }
    }

    pub(super) fn part(&self, i: usize) -> Option<&ModelTables> {
        self.parts.get(i)?.as_ref()
    }
}

impl std::fmt::Debug for SharedEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedEncoder").field("bytes", &self.to_bytes()).finish()
    }
}

impl std::fmt::Debug for SharedDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedDecoder").field("parts", &self.parts.iter().flatten().count()).finish()
    }
}
