//! A ColumnChunk that grows page by page while its rows arrive: each page is hashed and encoded once, while it is in the
//! cache, and waits in slabs for the chunk to be written.

use std::sync::Arc;
use std::time::Instant;

use mistique_quantize::{Effort, QuantizeError};
use twox_hash::xxhash3_128::Hasher as Xxh3Hasher;

use super::slabs::{Slabbed, Slabs};
use crate::chunk::{ChunkHash, ChunkShape, ChunkView, Extra, PageEntry, append_page, write_chunk, write_header};
use crate::error::{EngineError, Result};
use crate::format::{CHUNK_HEADER_LEN, Le, PAGE_ALIGN, PAGE_ENTRY_LEN};

/// A chunk of a tensor's RowBlock that is being logged.
pub struct GrowingChunk {
    /// That of a full RowBlock, until the end.
    shape: ChunkShape,
    full_rows: usize,
    hasher: Xxh3Hasher,
    n_rows: usize,
    pages: Slabbed,
    /// Where pages begin is counted from the first one, until the end.
    entries: Vec<PageEntry>,
    /// Codes of the unfinished page.
    codes: Vec<u8>,
    /// The chunk's bytes, where they were encoded again.
    again: Option<Vec<u8>>,
    /// Nanoseconds that hashing took.
    pub search_ns: u64,
    /// Nanoseconds that encoding pages took.
    pub work_ns: u64,
}

impl GrowingChunk {
    /// An empty chunk that may grow to `shape`, in memory of `slabs`.
    pub fn new(shape: ChunkShape, slabs: &Arc<Slabs>) -> Self {
        Self {
            shape,
            full_rows: shape.n_rows,
            hasher: shape.hasher(Extra::default()),
            n_rows: 0,
            pages: Slabbed::new(slabs),
            entries: Vec::with_capacity(shape.n_pages()),
            codes: Vec::new(),
            again: None,
            search_ns: 0,
            work_ns: 0,
        }
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.pages.held_bytes() + self.codes.len()
    }

    /// Rows of the unfinished page.
    pub fn page_rows_held(&self) -> usize {
        self.n_rows % self.shape.page_rows
    }

    /// Bytes of a row's codes.
    pub fn row_code_bytes(&self) -> usize {
        self.shape.row_bytes()
    }

    /// Appends the codes of a row; `page` is room to encode a page in.
    ///
    /// Errors: those of the page's encoding.
    pub fn push_row(&mut self, codes: &[u8], page: &mut Vec<u8>) -> std::result::Result<(), QuantizeError> {
        if self.codes.capacity() == 0 {
            self.codes.reserve(self.shape.page_rows * self.shape.row_bytes());
        }
        self.codes.extend_from_slice(codes);
        self.n_rows += 1;
        if self.n_rows.is_multiple_of(self.shape.page_rows) { self.end_page(page) } else { Ok(()) }
    }

    fn end_page(&mut self, page: &mut Vec<u8>) -> std::result::Result<(), QuantizeError> {
        let begun = Instant::now();
        self.hasher.write(&self.codes);
        let hashed = begun.elapsed();
        page.clear();
        let mut entry = append_page(&self.shape, &self.codes, Effort::Fast, page)?;
        let padding = self.pages.len().next_multiple_of(PAGE_ALIGN) - self.pages.len();
        self.pages.append(&[0; PAGE_ALIGN][..padding]);
        entry[0..4].copy_from_slice(&(self.pages.len() as u32).to_le_bytes());
        self.pages.append(page);
        self.entries.push(entry);
        self.search_ns += hashed.as_nanos() as u64;
        self.work_ns += (begun.elapsed() - hashed).as_nanos() as u64;
        self.codes.clear();
        Ok(())
    }

    /// Gives back the memory of the unfinished page where there is none: the next page is of another chunk, and shall lie
    /// where this one did.
    pub fn pause(&mut self) {
        if self.codes.is_empty() {
            self.codes = Vec::new();
        }
    }

    /// Ends the last page. Beyond [`Effort::Fast`], the whole chunk is encoded again.
    ///
    /// Errors: `Quantize`.
    pub fn end(&mut self, effort: Effort, key: &dyn std::fmt::Display) -> Result<()> {
        if !self.codes.is_empty() {
            let ended = self.end_page(&mut Vec::new());
            ended.map_err(|source| EngineError::Quantize { key: key.to_string(), source })?;
        }
        self.codes = Vec::new();
        self.shape.n_rows = self.n_rows;
        let head = head_len(&self.shape);
        for entry in &mut self.entries {
            let start = head as u32 + entry.u32_at(0).unwrap_or_default();
            entry[0..4].copy_from_slice(&start.to_le_bytes());
        }
        let whole = self.shape.n_rows == self.full_rows;
        if whole && effort == Effort::Fast {
            return Ok(());
        }
        let head = self.head();
        let mut bytes = self.pieces(&head).concat();
        let view = ChunkView::parse(&bytes, WHERE, 0)?;
        let mut codes = Vec::new();
        // The hash begins with the number of rows, which was to be another one.
        self.hasher = self.shape.hasher(Extra::default());
        for number in 0..self.shape.n_pages() {
            let page = view.page(number)?;
            let from = if effort == Effort::Fast { 0 } else { codes.len() };
            codes.resize(from + page.n_codes * self.shape.code.width(), 0);
            page.codes(None, &mut codes[from..]).map_err(|e| EngineError::corrupt(WHERE, 0, e.to_string()))?;
            self.hasher.write(&codes[from..]);
        }
        if effort != Effort::Fast {
            write_chunk(&self.shape, &codes, Extra::default(), effort, key, &mut bytes)?;
            self.again = Some(bytes);
        }
        Ok(())
    }

    /// Content hash; after the end.
    pub fn hash(&self) -> ChunkHash {
        self.hasher.finish_128().to_le_bytes()
    }

    /// What lies before its pages, as they were encoded at first; after the end.
    pub fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(head_len(&self.shape));
        head.resize(CHUNK_HEADER_LEN, 0);
        self.entries.iter().for_each(|entry| head.extend_from_slice(entry));
        let len = head.len() + self.pages.len();
        write_header(&self.shape, 0, 0, None, len, &mut head);
        head
    }

    /// The chunk's bytes, in pieces; after the end. `head` is its [`head`](Self::head).
    pub fn pieces<'a>(&'a self, head: &'a [u8]) -> Vec<&'a [u8]> {
        match &self.again {
            Some(again) => vec![again],
            None => [head].into_iter().chain(self.pages.pieces()).collect(),
        }
    }

    /// Bytes that a row takes; after the end.
    pub fn row_bytes(&self) -> f32 {
        let encoded = head_len(&self.shape) + self.pages.len();
        self.again.as_ref().map_or(encoded, Vec::len) as f32 / self.n_rows.max(1) as f32
    }
}

/// How errors name what is not stored yet.
const WHERE: &str = "a chunk being logged";

/// Bytes before the first page of a chunk without dictionary and tables.
fn head_len(shape: &ChunkShape) -> usize {
    CHUNK_HEADER_LEN + shape.n_pages() * PAGE_ENTRY_LEN
}
