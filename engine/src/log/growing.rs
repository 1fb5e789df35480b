//! A ColumnChunk that grows page by page while its rows arrive: each page is hashed and encoded once, while it is in the
//! cache, into the place that it has in the chunk.

use std::time::Instant;

use mistique_quantize::{Effort, QuantizeError};
use twox_hash::xxhash3_128::Hasher as Xxh3Hasher;

use crate::chunk::{ChunkHash, ChunkShape, ChunkView, Extra, PageEntry, append_page, write_chunk, write_header};
use crate::error::{EngineError, Result};
use crate::format::{CHUNK_HEADER_LEN, Le, PAGE_ENTRY_LEN};

/// A chunk of a tensor's RowBlock that is being logged.
pub struct GrowingChunk {
    /// That of a full RowBlock, until the end.
    shape: ChunkShape,
    full_rows: usize,
    hasher: Xxh3Hasher,
    n_rows: usize,
    /// Room for the head of a full RowBlock, then pages.
    bytes: Vec<u8>,
    entries: Vec<PageEntry>,
    /// Codes of the unfinished page.
    codes: Vec<u8>,
    /// Nanoseconds that hashing took.
    pub search_ns: u64,
    /// Nanoseconds that encoding pages took.
    pub work_ns: u64,
}

impl GrowingChunk {
    /// An empty chunk that may grow to `shape`; `bytes` is a buffer to use again.
    pub fn new(shape: ChunkShape, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(head_len(&shape), 0);
        let entries = Vec::with_capacity(shape.n_pages());
        let hasher = shape.hasher(Extra::default());
        Self {
            shape,
            full_rows: shape.n_rows,
            hasher,
            n_rows: 0,
            bytes,
            entries,
            codes: Vec::new(),
            search_ns: 0,
            work_ns: 0,
        }
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + self.codes.len()
    }

    /// Rows of the unfinished page.
    pub fn page_rows_held(&self) -> usize {
        self.n_rows % self.shape.page_rows
    }

    /// Appends the codes of a row.
    ///
    /// Errors: those of the page's encoding.
    pub fn push_row(&mut self, codes: &[u8]) -> std::result::Result<(), QuantizeError> {
        if self.codes.capacity() == 0 {
            self.codes.reserve(self.shape.page_rows * self.shape.row_bytes());
        }
        self.codes.extend_from_slice(codes);
        self.n_rows += 1;
        if self.n_rows.is_multiple_of(self.shape.page_rows) { self.end_page() } else { Ok(()) }
    }

    /// Bytes of a row's codes.
    pub fn row_code_bytes(&self) -> usize {
        self.shape.row_bytes()
    }

    fn end_page(&mut self) -> std::result::Result<(), QuantizeError> {
        let begun = Instant::now();
        self.hasher.write(&self.codes);
        let hashed = begun.elapsed();
        self.entries.push(append_page(&self.shape, &self.codes, Effort::Fast, &mut self.bytes)?);
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

    /// Ends the last page and writes the head. Beyond [`Effort::Fast`], the whole chunk is encoded again.
    ///
    /// Errors: `Quantize`.
    pub fn end(&mut self, effort: Effort, key: &dyn std::fmt::Display) -> Result<()> {
        if !self.codes.is_empty() {
            self.end_page().map_err(|source| EngineError::Quantize { key: key.to_string(), source })?;
        }
        self.codes = Vec::new();
        let reserved = head_len(&self.shape);
        self.shape.n_rows = self.n_rows;
        let head = head_len(&self.shape);
        // Pages keep their alignment: what is missing are whole entries.
        self.bytes.drain(head..reserved);
        for (page, entry) in self.entries.iter_mut().enumerate() {
            let start = entry.u32_at(0).unwrap_or_default() - (reserved - head) as u32;
            entry[0..4].copy_from_slice(&start.to_le_bytes());
            self.bytes[CHUNK_HEADER_LEN + page * PAGE_ENTRY_LEN..][..PAGE_ENTRY_LEN].copy_from_slice(entry);
        }
        write_header(&self.shape, 0, 0, head, None, &mut self.bytes);
        let whole = self.shape.n_rows == self.full_rows;
        if whole && effort == Effort::Fast {
            return Ok(());
        }
        let content = ChunkView::parse(&self.bytes, "a chunk being logged", 0)?.decode(None)?;
        if !whole {
            // The hash begins with the number of rows, which was to be another one.
            self.hasher = self.shape.hasher(Extra::default());
            self.hasher.write(&content.codes);
        }
        if effort != Effort::Fast {
            write_chunk(&self.shape, &content.codes, Extra::default(), effort, key, &mut self.bytes)?;
        }
        Ok(())
    }

    /// Content hash; after the end.
    pub fn hash(&self) -> ChunkHash {
        self.hasher.finish_128().to_le_bytes()
    }

    /// The chunk's bytes; after the end.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Its buffer, to use again.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes that a row takes; after the end.
    pub fn row_bytes(&self) -> f32 {
        self.bytes.len() as f32 / self.n_rows.max(1) as f32
    }
}

/// Bytes before the first page of a chunk without dictionary and tables.
fn head_len(shape: &ChunkShape) -> usize {
    CHUNK_HEADER_LEN + shape.n_pages() * PAGE_ENTRY_LEN
}
