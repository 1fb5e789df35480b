//! The numbers of FORMAT.md that code and document share; `tests/format_doc.rs` compares the two.

/// Format version written.
pub const CURRENT: u16 = 3;
/// Oldest format version read.
pub const OLDEST_READABLE: u16 = 1;
/// Version of the catalogue's tables (`meta.schema_version`).
pub const CATALOG_VERSION: i64 = 5;
/// Oldest version of the catalogue's tables that is brought up to date.
pub const OLDEST_CATALOG_VERSION: i64 = 1;

/// First bytes of a partition.
pub const PARTITION_MAGIC: [u8; 8] = *b"MISTIQP1";
/// Last bytes of a partition.
pub const PARTITION_END: [u8; 8] = *b"MISTIQPE";
/// Length of a partition's header, and of its trailer.
pub const PARTITION_HEADER_LEN: usize = 64;
/// Length of a partition's trailer.
pub const PARTITION_TRAILER_LEN: usize = 64;
/// Length of one footer entry.
pub const FOOTER_ENTRY_LEN: usize = 32;

/// First bytes of a ColumnChunk.
pub const CHUNK_MAGIC: [u8; 4] = *b"CHNK";
/// Length of a ColumnChunk's fixed header.
pub const CHUNK_HEADER_LEN: usize = 64;
/// Length of one page's directory entry.
pub const PAGE_ENTRY_LEN: usize = 48;
/// ColumnChunks begin at multiples of this.
pub const CHUNK_ALIGN: u64 = 64;
/// Pages begin at multiples of this inside their chunk.
pub const PAGE_ALIGN: usize = 8;

/// First bytes of an index file.
pub const INDEX_MAGIC: [u8; 8] = *b"MISTIQI1";
/// Length of an index file's header.
pub const INDEX_HEADER_LEN: usize = 64;
/// Length of one entry of an index file's directory.
pub const INDEX_ENTRY_LEN: usize = 24;
/// Largest number of bits of a partition's number in a by-example index.
pub const MAX_PARTITION_BITS: u8 = 8;

/// Largest number of values in a row: a chunk of one row must stay below 4 GiB.
pub const MAX_ROW_VALUES: usize = 1 << 28;
/// Largest number of rows in a tensor's RowBlock.
pub const MAX_BLOCK_ROWS: usize = 1024;
/// Rows in a full RowBlock of a table.
pub const TABLE_BLOCK_ROWS: usize = 8192;
/// A partition is closed once it is longer.
pub const PARTITION_TARGET_BYTES: u64 = 64 << 20;
/// Units are bundled until a chunk of a full RowBlock has this many bytes of codes.
pub const MIN_CHUNK_BYTES: usize = 64 << 10;
/// RowBlocks are shortened until a chunk of one unit has at most this many bytes of codes.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;
/// RowBlocks are shortened until all their chunks together have at most this many bytes of codes.
pub const MAX_BLOCK_BYTES: usize = 32 << 20;
/// Pages are cut by rows until they have at most this many values.
pub const PAGE_VALUES: usize = 8 << 10;

/// Little-endian reads that cannot go out of bounds.
pub(crate) trait Le {
    fn u16_at(&self, at: usize) -> Option<u16>;
    fn u32_at(&self, at: usize) -> Option<u32>;
    fn u64_at(&self, at: usize) -> Option<u64>;
    fn array_at<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
}

impl Le for [u8] {
    fn u16_at(&self, at: usize) -> Option<u16> {
        self.array_at(at).map(u16::from_le_bytes)
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        self.array_at(at).map(u32::from_le_bytes)
    }

    fn u64_at(&self, at: usize) -> Option<u64> {
        self.array_at(at).map(u64::from_le_bytes)
    }

    fn array_at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}
