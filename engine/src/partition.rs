//! Partition files: written once, made durable, then read by map.

use std::borrow::Cow;
use std::hash::Hasher;
use std::io::IoSlice;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::chunk::{BaseName, ChunkHash, base_name};
use crate::error::{EngineError, Result};
use crate::format::{
    CHUNK_ALIGN, CURRENT, FOOTER_ENTRY_LEN, Le, OLDEST_READABLE, PARTITION_END, PARTITION_HEADER_LEN, PARTITION_MAGIC,
    PARTITION_TRAILER_LEN,
};
use crate::storage::{ReadFile, Storage, WriteFile};

/// Folder of the partitions.
pub const DIR: &str = "partitions";

/// Path of a partition.
pub fn path(id: u64) -> String {
    format!("{DIR}/{id:010}.mqp")
}

/// The number in a partition's file name.
pub fn id_of(file_name: &str) -> Option<u64> {
    file_name.strip_suffix(".mqp")?.parse().ok()
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Partition.
    pub partition: u64,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub len: u64,
    /// The chunk that it is coded against.
    pub base: Option<Base>,
}

/// A chunk that another one is coded against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its number.
    pub id: i64,
    /// How the other one names it.
    pub name: BaseName,
}

impl Base {
    /// The chunk of that number and content hash.
    pub fn of(id: i64, hash: &ChunkHash) -> Self {
        Self { id, name: base_name(hash) }
    }
}

/// A partition being written.
pub struct PartitionWriter {
    file: Box<dyn WriteFile>,
    id: u64,
    offset: u64,
    footer: Vec<u8>,
}

/// A finished partition.
#[derive(Debug, Clone, Copy)]
pub struct FinishedPartition {
    /// Its number.
    pub id: u64,
    /// Length of the file.
    pub len_bytes: u64,
    /// Chunks in it.
    pub n_chunks: u64,
    /// Whether all of them are as small as `compact` makes them.
    pub compact: bool,
}

impl PartitionWriter {
    /// Begins partition `id`.
    ///
    /// Errors: `Io`.
    pub fn create(storage: &dyn Storage, id: u64) -> Result<Self> {
        let mut file = storage.create(&path(id))?;
        let mut header = [0u8; PARTITION_HEADER_LEN];
        header[0..8].copy_from_slice(&PARTITION_MAGIC);
        header[8..10].copy_from_slice(&CURRENT.to_le_bytes());
        header[16..24].copy_from_slice(&id.to_le_bytes());
        let checksum = XxHash3_64::oneshot(&header[..56]);
        header[56..].copy_from_slice(&checksum.to_le_bytes());
        file.append(&header)?;
        Ok(Self { file, id, offset: header.len() as u64, footer: Vec::new() })
    }

    /// Bytes written.
    pub fn len_bytes(&self) -> u64 {
        self.offset
    }

    /// Appends a chunk that lies in pieces, padded in one write.
    ///
    /// Errors: `Io`.
    pub fn append(&mut self, hash: &ChunkHash, pieces: &[&[u8]], base: Option<Base>) -> Result<ChunkPlace> {
        const ZEROS: [u8; CHUNK_ALIGN as usize] = [0; CHUNK_ALIGN as usize];
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let place = ChunkPlace { partition: self.id, offset: self.offset, len: len as u64, base };
        let padded = self.offset + (len as u64).next_multiple_of(CHUNK_ALIGN);
        let padding = &ZEROS[..(padded - self.offset) as usize - len];
        let mut all: Vec<IoSlice<'_>> = pieces.iter().chain([&padding]).map(|piece| IoSlice::new(piece)).collect();
        self.file.append_all(&mut all)?;
        self.offset = padded;
        self.footer.extend_from_slice(hash);
        self.footer.extend_from_slice(&place.offset.to_le_bytes());
        self.footer.extend_from_slice(&place.len.to_le_bytes());
        Ok(place)
    }

    /// Writes footer and trailer and makes the file durable.
    ///
    /// Errors: `Io`.
    pub fn finish(mut self) -> Result<FinishedPartition> {
        let n_chunks = (self.footer.len() / FOOTER_ENTRY_LEN) as u64;
        let len_bytes = self.offset + (self.footer.len() + PARTITION_TRAILER_LEN) as u64;
        let mut trailer = [0u8; PARTITION_TRAILER_LEN];
        trailer[0..8].copy_from_slice(&self.offset.to_le_bytes());
        trailer[8..16].copy_from_slice(&n_chunks.to_le_bytes());
        trailer[16..24].copy_from_slice(&len_bytes.to_le_bytes());
        trailer[48..56].copy_from_slice(&PARTITION_END);
        let mut hasher = XxHash3_64::new();
        hasher.write(&self.footer);
        hasher.write(&trailer[..56]);
        trailer[56..].copy_from_slice(&hasher.finish().to_le_bytes());
        self.file.append(&self.footer)?;
        self.file.append(&trailer)?;
        self.file.finish()?;
        Ok(FinishedPartition { id: self.id, len_bytes, n_chunks, compact: false })
    }
}

/// Bytes that the chunks of a partition take, padding included.
pub fn chunk_room(len_bytes: u64, n_chunks: u64) -> u64 {
    let around = (PARTITION_HEADER_LEN + PARTITION_TRAILER_LEN) as u64 + n_chunks * FOOTER_ENTRY_LEN as u64;
    len_bytes.saturating_sub(around)
}

/// A partition open for reading.
#[derive(Clone)]
pub struct PartitionReader {
    file: Arc<dyn ReadFile>,
    path: Arc<str>,
}

/// One entry of a partition's footer.
#[derive(Debug, Clone, Copy)]
pub struct FooterEntry {
    /// Content hash.
    pub hash: ChunkHash,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub len: u64,
}

impl PartitionReader {
    /// Opens partition `id`, whose file must have `len_bytes`, and checks its header.
    ///
    /// Errors: `Io`, `Corrupt`, `UnsupportedVersion`.
    pub fn open(storage: &dyn Storage, id: u64, len_bytes: u64) -> Result<Self> {
        let path = path(id);
        let file = storage.open(&path)?;
        let bad = |at, why: String| EngineError::corrupt(&path, at, why);
        if file.len_bytes() != len_bytes {
            return Err(bad(0, format!("the file has {} bytes, the catalogue says {len_bytes}", file.len_bytes())));
        }
        {
            let header = file.read(0..PARTITION_HEADER_LEN as u64)?;
            if header.get(..8) != Some(&PARTITION_MAGIC) {
                return Err(bad(0, "not a partition (magic differs)".into()));
            }
            if header.u64_at(56) != Some(XxHash3_64::oneshot(&header[..56])) {
                return Err(bad(0, "header checksum differs".into()));
            }
            let version = header.u16_at(8).unwrap_or_default();
            if !(OLDEST_READABLE..=CURRENT).contains(&version) {
                let (found, oldest, current) = (version.into(), OLDEST_READABLE.into(), CURRENT.into());
                return Err(EngineError::UnsupportedVersion { path, found, oldest, current });
            }
            if header.u64_at(16) != Some(id) {
                return Err(bad(16, format!("another partition's file ({:?})", header.u64_at(16))));
            }
        }
        Ok(Self { file, path: path.into() })
    }

    /// How errors name the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The bytes of a chunk.
    ///
    /// Errors: `Corrupt` when the file has no such range.
    pub fn chunk(&self, place: ChunkPlace) -> Result<Cow<'_, [u8]>> {
        self.file.read(place.offset..place.offset.saturating_add(place.len))
    }

    /// The footer's entries, trailer checked.
    ///
    /// Errors: `Corrupt`.
    pub fn footer(&self) -> Result<Vec<FooterEntry>> {
        let len = self.file.len_bytes();
        let bad = |why: &str| EngineError::corrupt(&*self.path, len.saturating_sub(64), why);
        let trailer_at = len.checked_sub(PARTITION_TRAILER_LEN as u64).ok_or_else(|| bad("trailer cut off"))?;
        let trailer = self.file.read(trailer_at..len)?;
        if trailer.get(48..56) != Some(&PARTITION_END) || trailer.u64_at(16) != Some(len) {
            return Err(bad("trailer is not one"));
        }
        let (start, n) = (trailer.u64_at(0).unwrap_or_default(), trailer.u64_at(1 << 3).unwrap_or_default());
        if n.checked_mul(FOOTER_ENTRY_LEN as u64).and_then(|l| l.checked_add(start)) != Some(trailer_at) {
            return Err(bad("footer's size does not agree"));
        }
        let footer = self.file.read(start..trailer_at)?;
        let mut hasher = XxHash3_64::new();
        hasher.write(&footer);
        hasher.write(&trailer[..56]);
        if trailer.u64_at(56) != Some(hasher.finish()) {
            return Err(bad("footer checksum differs"));
        }
        let entry = |e: &[u8]| Some(FooterEntry { hash: e.array_at(0)?, offset: e.u64_at(16)?, len: e.u64_at(24)? });
        footer.chunks_exact(FOOTER_ENTRY_LEN).map(|e| entry(e).ok_or_else(|| bad("footer entry cut off"))).collect()
    }

    /// Checks what lies between the chunks: only zeros may.
    ///
    /// Errors: `Corrupt`.
    pub fn check_padding(&self, entries: &[FooterEntry]) -> Result<()> {
        let mut at = PARTITION_HEADER_LEN as u64;
        let end = self.file.len_bytes() - (PARTITION_TRAILER_LEN + entries.len() * FOOTER_ENTRY_LEN) as u64;
        let ends = entries.iter().map(|e| (e.offset, e.offset.saturating_add(e.len))).chain([(end, end)]);
        for (start, next) in ends {
            if start < at || self.file.read(at..start)?.iter().any(|&b| b != 0) {
                return Err(EngineError::corrupt(&*self.path, at, "bytes between chunks"));
            }
            at = next;
        }
        Ok(())
    }
}
