//! The data model (5.3.1): project → model (with versions) → intermediate → column, over datasets whose row_ids they share.

use std::io::Read;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use mistique_quantize::{Code, MapShape, Params, Scheme};

use crate::chunk::ChunkShape;
use crate::column::code_of;
use crate::error::{EngineError, Result};
use crate::format::{MAX_BLOCK_BYTES, MAX_BLOCK_ROWS, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, PAGE_VALUES};
use crate::key::{IntermediateKey, ModelKey};

/// 128-bit content hash of a description, dataset or operator.
pub type Fingerprint = [u8; 16];

/// Hexadecimal text of a fingerprint.
pub fn hex(fingerprint: &[u8]) -> String {
    fingerprint.iter().map(|b| format!("{b:02x}")).collect()
}

/// Content hash of bytes (xxh3-128).
pub fn fingerprint(bytes: &[u8]) -> Fingerprint {
    twox_hash::XxHash3_128::oneshot(bytes).to_le_bytes()
}

/// The named input that row_ids belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Name, unique in the store.
    pub name: String,
    /// How a workflow opens it again; empty when nothing can.
    pub source: String,
    /// Hash of its content.
    pub fingerprint: Fingerprint,
    /// Rows.
    pub n_rows: u64,
    /// Shape of a row.
    pub row_shape: Vec<usize>,
}

/// What produced a model's intermediates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Values appended from outside; RERUN is not possible.
    Raw,
    /// A network, described by its layers.
    Network,
    /// A pipeline of operators.
    Pipeline,
}

impl ModelKind {
    /// Its name in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Network => "network",
            Self::Pipeline => "pipeline",
        }
    }

    /// Whether running a model of this kind again gives intermediates like that one: networks give tensors; a
    /// table beside them, such as the labels, must be kept.
    pub fn gives(self, content: &Content) -> bool {
        match self {
            Self::Raw => false,
            Self::Network => matches!(content, Content::Tensor(_)),
            Self::Pipeline => true,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Network, Self::Pipeline].into_iter().find(|k| k.name() == name)
    }
}

/// A model to log under.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Its key.
    pub key: ModelKey,
    /// What produces its intermediates.
    pub kind: ModelKind,
    /// Text that its workflow runs again (canonical JSON); empty for raw values.
    pub description: String,
    /// Hash of the operator that holds its weights.
    pub weights: Option<Fingerprint>,
    /// The dataset of its row_ids.
    pub dataset: Option<DatasetSpec>,
}

impl ModelSpec {
    /// A model of which only values are known.
    pub fn raw(key: ModelKey) -> Self {
        Self { key, kind: ModelKind::Raw, description: String::new(), weights: None, dataset: None }
    }
}

/// A model in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRecord {
    /// Number in the catalogue.
    pub id: i64,
    /// As it was logged.
    pub spec: ModelSpec,
    /// Whether its log was finished.
    pub complete: bool,
    /// Seconds since 1970.
    pub created: i64,
}

/// Which axis of a tensor's row counts its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnitAxis {
    /// Channels first: `[C, H, W]`, `[N]`.
    #[default]
    First,
    /// Channels last: `[H, W, C]`, `[tokens, dim]`.
    Last,
}

/// How a tensor's rows are divided into units, and these into chunks and pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorLayout {
    /// Units in a row.
    pub n_units: usize,
    /// A unit's map as logged.
    pub map: MapShape,
    /// A unit's map as stored.
    pub stored: MapShape,
    /// Cells as logged that a stored one stands for: 1 × 1 unless maps are pooled.
    pub window: MapShape,
    /// Type of a code.
    pub code: Code,
    /// Units in a ColumnChunk; the last chunk of a row may have fewer.
    pub group_units: usize,
    /// Rows in a full RowBlock.
    pub block_rows: usize,
    /// Rows in a page.
    pub page_rows: usize,
}

fn prev_power_of_two(n: usize) -> usize {
    if n == 0 { 1 } else { 1 << n.ilog2() }
}

/// Units and map of a row of `shape`.
pub fn units_of(shape: &[usize], axis: UnitAxis) -> (usize, MapShape) {
    let (units, rest) = match (axis, shape) {
        (_, []) => (1, &[][..]),
        (_, [n]) => (*n, &[][..]),
        (UnitAxis::First, [n, rest @ ..]) => (*n, rest),
        (UnitAxis::Last, [rest @ .., n]) => (*n, rest),
    };
    let w = rest.last().copied().unwrap_or(1);
    let h = rest.iter().rev().skip(1).product();
    (units, MapShape { h, w })
}

impl TensorLayout {
    /// The layout of rows of `shape` under `scheme`. It depends on nothing else, so that equal values give equal chunks
    /// whenever they are logged.
    pub fn new(shape: &[usize], axis: UnitAxis, scheme: &Scheme, code: Code) -> Self {
        let (n_units, map) = units_of(shape, axis);
        let (stored, window) = (scheme.stored_map(map), scheme.window(map));
        let unit_bytes = (stored.cells() * code.width()).max(1);
        let row_bytes = (unit_bytes * n_units).max(1);
        let block_rows =
            prev_power_of_two((MAX_BLOCK_BYTES / row_bytes).min(MAX_CHUNK_BYTES / unit_bytes)).clamp(1, MAX_BLOCK_ROWS);
        let group_units = (MIN_CHUNK_BYTES / (unit_bytes * block_rows)).clamp(1, n_units.max(1));
        let group_values = (group_units * stored.cells()).max(1);
        let page_rows = prev_power_of_two(PAGE_VALUES / group_values).clamp(1, block_rows);
        Self { n_units, map, stored, window, code, group_units, block_rows, page_rows }
    }

    /// The layout of the same values before they are pooled.
    pub fn unpooled(self) -> Self {
        Self { stored: self.map, window: MapShape { h: 1, w: 1 }, ..self }
    }

    /// ColumnChunks in a RowBlock.
    pub fn n_groups(&self) -> usize {
        self.n_units.div_ceil(self.group_units)
    }

    /// Units of a group.
    pub fn units_of_group(&self, group: usize) -> std::ops::Range<usize> {
        let start = group * self.group_units;
        start..(start + self.group_units).min(self.n_units)
    }

    /// Shape of the chunk of a group in a RowBlock of `n_rows`.
    pub fn chunk_shape(&self, group: usize, n_rows: usize) -> ChunkShape {
        ChunkShape {
            code: self.code,
            n_rows,
            n_cols: self.units_of_group(group).len() * self.stored.cells(),
            page_rows: self.page_rows,
            map_w: self.stored.w,
        }
    }

    /// Values in a row as logged.
    pub fn row_values(&self) -> usize {
        self.n_units * self.map.cells()
    }

    /// Values in a row as stored.
    pub fn stored_values(&self) -> usize {
        self.n_units * self.stored.cells()
    }
}

/// What an intermediate's columns are.
#[derive(Debug, Clone)]
pub enum Content {
    /// A tensor: every row has the same shape.
    Tensor(TensorContent),
    /// Named, typed columns.
    Table(TableContent),
}

/// A tensor intermediate.
#[derive(Debug, Clone)]
pub struct TensorContent {
    /// Shape of a row.
    pub shape: Vec<usize>,
    /// Type of the values as logged.
    pub dtype: Code,
    /// Which axis counts units.
    pub unit_axis: UnitAxis,
    /// What was done to the values.
    pub scheme: Scheme,
    /// Codebooks or thresholds of the scheme.
    pub params: Params,
    /// Division into chunks.
    pub layout: TensorLayout,
}

impl TensorContent {
    /// Most bytes that `n_rows` more rows can take in the store: codes before compression, and their directories.
    pub(crate) fn max_bytes(&self, n_rows: u64) -> u64 {
        let values = self.layout.stored_values() as u64 * n_rows;
        // Under `auto` the scheme is not yet known; full precision is the most it can choose.
        let code = match self.scheme.is_auto() {
            Some(_) if self.dtype != Code::F64 => Code::F32,
            Some(_) => Code::F64,
            None => self.layout.code,
        };
        let pages = n_rows.div_ceil(self.layout.page_rows as u64) * self.layout.n_groups() as u64;
        values * u64::from(code.bits()) / 8 + pages * 64 + 4096
    }
}

/// A table intermediate.
#[derive(Debug, Clone)]
pub struct TableContent {
    /// Names and types.
    pub schema: SchemaRef,
    /// Rows in a full RowBlock.
    pub block_rows: usize,
}

impl TableContent {
    /// Bytes that a row of `columns` takes decoded, validity included.
    pub(crate) fn held_row_bytes(&self, columns: &[usize]) -> usize {
        let fields = columns.iter().filter_map(|c| self.schema.fields().get(*c));
        fields.map(|f| code_of(f.data_type()).map_or(0, |code| code.width() + 1)).sum()
    }

    /// As [`Content::logical_row_bytes`].
    pub fn logical_row_bytes(&self) -> u64 {
        let width = |t: &DataType| if *t == DataType::Boolean { 1 } else { t.primitive_width().unwrap_or(16) };
        self.schema.fields().iter().map(|f| width(f.data_type()) as u64).sum()
    }
}

impl Content {
    /// ColumnChunks in a RowBlock.
    pub fn n_groups(&self) -> usize {
        match self {
            Self::Tensor(t) => t.layout.n_groups(),
            Self::Table(t) => t.schema.fields().len(),
        }
    }

    /// Rows in a full RowBlock.
    pub fn block_rows(&self) -> usize {
        match self {
            Self::Tensor(t) => t.layout.block_rows,
            Self::Table(t) => t.block_rows,
        }
    }

    /// Bytes of a row at the precision in which it was logged; booleans are counted at 1, strings at 16.
    pub fn logical_row_bytes(&self) -> u64 {
        match self {
            Self::Tensor(t) => (t.layout.row_values() * t.dtype.width()) as u64,
            Self::Table(t) => t.logical_row_bytes(),
        }
    }

    /// The scheme's text.
    pub fn scheme_text(&self) -> String {
        match self {
            Self::Tensor(t) => t.scheme.to_string(),
            Self::Table(_) => "lossless".to_string(),
        }
    }
}

/// An intermediate in the store.
#[derive(Debug, Clone)]
pub struct IntermediateRecord {
    /// Number in the catalogue.
    pub id: i64,
    /// Number of its model.
    pub model_id: i64,
    /// Its key, with the model's version.
    pub key: IntermediateKey,
    /// Place among the model's intermediates, from the input on.
    pub position: i64,
    /// Its columns.
    pub content: Arc<Content>,
    /// Rows stored.
    pub n_rows: u64,
    /// Largest distance between two row_ids of one RowBlock: which blocks can hold a row follows from it.
    pub max_span: u64,
    /// Queries that asked for it.
    pub n_query: u64,
    /// (RowBlock, group) pairs whose values are not materialized: their rows are known, their values are to be rerun.
    pub n_withheld: u64,
    /// The computation that gave it, where that is known: then all of its rows are there, and equal ones gave equal values.
    pub stage: Option<Fingerprint>,
    /// Whether it was registered as holding what another one holds, and no row of it was logged.
    pub linked: bool,
}

impl IntermediateRecord {
    /// Whether the values of all its rows are materialized.
    pub fn is_whole(&self) -> bool {
        self.n_withheld == 0
    }

    /// The tensor, or an error that says that it is a table.
    ///
    /// Errors: `Unsupported`.
    pub fn tensor(&self) -> Result<&TensorContent> {
        match &*self.content {
            Content::Tensor(t) => Ok(t),
            Content::Table(_) => Err(EngineError::Unsupported {
                what: self.key.to_string(),
                why: "it is a table, where a layer is needed".into(),
            }),
        }
    }

    /// The table, or an error that says that it is a tensor.
    ///
    /// Errors: `Unsupported`.
    pub fn table(&self) -> Result<&TableContent> {
        match &*self.content {
            Content::Table(t) => Ok(t),
            Content::Tensor(_) => {
                Err(EngineError::Unsupported { what: self.key.to_string(), why: "it is a tensor, not a table".into() })
            }
        }
    }
}

/// First bytes of a zstd frame; an Arrow stream begins with four bytes of ones.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// No schema is larger; a frame that holds more is damage.
const MAX_SCHEMA_BYTES: u64 = 64 << 20;

/// Arrow IPC bytes of a schema, as a zstd frame: names and types repeat much.
pub(crate) fn schema_to_bytes(schema: &Schema) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut out, schema)?;
    writer.finish()?;
    drop(writer);
    zstd::bulk::compress(&out, 6).map_err(|e| EngineError::io("catalog.db", "compress a schema", e))
}

/// Reads what [`schema_to_bytes`] wrote.
pub(crate) fn schema_from_bytes(bytes: &[u8]) -> Result<SchemaRef> {
    let mut stream = Vec::new();
    if bytes.starts_with(&ZSTD_MAGIC) {
        let frame = zstd::Decoder::new(bytes).and_then(|d| d.take(MAX_SCHEMA_BYTES).read_to_end(&mut stream));
        frame.map_err(|e| EngineError::io("catalog.db", "read a schema", e))?;
    } else {
        // As version 1 of the catalogue has them.
        stream.extend_from_slice(bytes);
    }
    Ok(arrow::ipc::reader::StreamReader::try_new(&*stream, None)?.schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: &[usize], scheme: &str) -> TensorLayout {
        let scheme: Scheme = scheme.parse().unwrap();
        TensorLayout::new(shape, UnitAxis::First, &scheme, scheme.code())
    }

    #[test]
    fn layouts_by_hand() {
        // 64 maps of 16×16, f16: 512 bytes a unit, 32 KiB a row.
        let l = layout(&[64, 16, 16], "f16");
        assert_eq!((l.n_units, l.block_rows, l.group_units, l.page_rows), (64, 1024, 1, 32));
        // VGG's first layer: 128 KiB a row, so 256 rows make the 32 MiB of a block.
        let l = layout(&[64, 32, 32], "f16");
        assert_eq!((l.block_rows, l.group_units, l.page_rows), (256, 1, 8));
        // A dense layer: 32 units of 2 KiB make 64 KiB.
        let l = layout(&[512], "f16");
        assert_eq!((l.block_rows, l.group_units, l.page_rows, l.n_groups()), (1024, 32, 256, 16));
        let l = layout(&[10], "f32");
        assert_eq!((l.group_units, l.n_groups()), (10, 1));
        let l = layout(&[3, 5, 7], "pool(2)+f16");
        assert_eq!(l.stored, MapShape { h: 3, w: 4 });
        assert_eq!(layout(&[], "f32").n_units, 1);
        assert_eq!(units_of(&[7, 9, 4], UnitAxis::Last), (4, MapShape { h: 7, w: 9 }));
    }
}
