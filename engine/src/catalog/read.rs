//! What the MetadataDB answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use mistique_quantize::{Code, Params, UnitError};
use rusqlite::{OptionalExtension, Row, params};

use super::Catalog;
use super::block_row::{BLOCK_COLUMNS, BlockRow, RawBlockRow};
use super::packed::unpack;
use super::withheld::WITHHELD;
use crate::chunk::{ChunkHash, base_name};
use crate::counters::Running;
use crate::error::{CatalogContext, EngineError, Result, nearest};
use crate::format::MAX_ROW_VALUES;
use crate::key::{IntermediateKey, ModelKey};
use crate::model::{
    Content, DatasetSpec, Fingerprint, IntermediateRecord, ModelKind, ModelRecord, ModelSpec, TableContent,
    TensorContent, TensorLayout, UnitAxis, fingerprint, schema_from_bytes,
};
use crate::partition::{Base, ChunkPlace, FinishedPartition};
use crate::rows::RowSet;

/// A RowBlock.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its number inside the intermediate.
    pub block_no: i64,
    /// Row_ids in stored order.
    pub rows: Arc<RowSet>,
    /// One chunk a group.
    pub chunks: Vec<i64>,
}

/// A stored chunk.
#[derive(Debug, Clone, Copy)]
pub struct ChunkRow {
    /// Number in the catalogue.
    pub id: i64,
    /// Content hash.
    pub hash: ChunkHash,
    /// Where it lies.
    pub place: ChunkPlace,
    /// Bytes that coding it against another one saved.
    pub saved_bytes: u64,
}

/// What the reduction of an intermediate cost.
#[derive(Debug, Clone)]
pub struct ErrorRecord {
    /// One a unit.
    pub units: Vec<UnitError>,
    /// Rows on which it was measured.
    pub measured_rows: u64,
    /// Values that the scheme could not hold and that were clamped.
    pub clamped: u64,
}

/// A stored operator.
#[derive(Debug, Clone)]
pub struct OperatorRecord {
    /// Hash of its content.
    pub hash: Fingerprint,
    /// Length of its file.
    pub len_bytes: u64,
    /// Format of its bytes.
    pub kind: String,
}

/// A measured cost: running mean and variance (Welford).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostRecord {
    /// Measurements.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Their variance.
    pub variance: f64,
    /// Seconds since 1970 of the last one.
    pub updated: i64,
}

fn bad(table: &str, what: &str) -> EngineError {
    EngineError::corrupt("catalog.db", 0, format!("{table}: {what}"))
}

fn blob<const N: usize>(bytes: Vec<u8>, table: &str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| bad(table, "a hash of another length"))
}

fn shape(text: &str, table: &str) -> Result<Vec<usize>> {
    serde_json::from_str(text).map_err(|_| bad(table, "a shape that is none"))
}

pub(super) const MODEL: &str =
    "SELECT m.id, m.project, m.name, m.version, m.kind, m.description, m.weights, m.complete, m.created,
    d.name, d.source, d.fingerprint, d.n_rows, d.row_shape, m.packed FROM models m LEFT JOIN datasets d ON d.id = m.dataset_id";

pub(super) struct RawModel {
    id: i64,
    key: ModelKey,
    kind: String,
    description: String,
    packed: Option<Vec<u8>>,
    weights: Option<Vec<u8>>,
    complete: bool,
    created: i64,
    dataset: Option<(String, String, Vec<u8>, u64, String)>,
}

impl RawModel {
    pub fn of(r: &Row<'_>) -> rusqlite::Result<Self> {
        let dataset: Option<String> = r.get(9)?;
        Ok(Self {
            id: r.get(0)?,
            key: ModelKey { project: r.get(1)?, model: r.get(2)?, version: r.get(3)? },
            kind: r.get(4)?,
            description: r.get(5)?,
            packed: r.get(14)?,
            weights: r.get(6)?,
            complete: r.get(7)?,
            created: r.get(8)?,
            dataset: match dataset {
                None => None,
                Some(name) => Some((name, r.get(10)?, r.get(11)?, r.get(12)?, r.get(13)?)),
            },
        })
    }

    pub fn record(self) -> Result<ModelRecord> {
        let dataset = match self.dataset {
            None => None,
            Some((name, source, fingerprint, n_rows, row_shape)) => Some(DatasetSpec {
                name,
                source,
                fingerprint: blob(fingerprint, "datasets")?,
                n_rows,
                row_shape: shape(&row_shape, "datasets")?,
            }),
        };
        let spec = ModelSpec {
            key: self.key,
            kind: ModelKind::from_name(&self.kind)
                .ok_or_else(|| bad("models", "a kind that this build does not know"))?,
            description: match self.packed {
                Some(packed) => unpack(&packed, "")?,
                None => self.description,
            },
            weights: self.weights.map(|w| blob(w, "models")).transpose()?,
            dataset,
        };
        Ok(ModelRecord { id: self.id, spec, complete: self.complete, created: self.created })
    }
}

pub(super) const INTERMEDIATE: &str =
    "SELECT i.id, i.model_id, m.project, m.name, m.version, i.name, i.position, i.kind, i.shape,
    i.dtype, i.unit_axis, i.scheme, i.params, i.block_rows, i.group_units, i.page_rows,
    coalesce((SELECT bytes FROM schemas WHERE hash = i.schema), i.schema), i.n_rows, i.max_span,
    i.n_query, i.stage, i.n_withheld, i.linked FROM intermediates i JOIN models m ON m.id = i.model_id";

/// Shape, type, unit axis, scheme, parameters and units a chunk, as the catalogue has them.
type RawTensor = (String, u8, i64, String, Option<Vec<u8>>, usize);

pub(super) struct RawIntermediate {
    record: (i64, i64, IntermediateKey, i64, u64, u64, u64),
    kind: String,
    tensor: Option<RawTensor>,
    block_rows: usize,
    page_rows: usize,
    schema: Option<Vec<u8>>,
    stage: Option<Vec<u8>>,
    n_withheld: u64,
    linked: bool,
}

impl RawIntermediate {
    pub fn of(r: &Row<'_>) -> rusqlite::Result<Self> {
        let model = ModelKey { project: r.get(2)?, model: r.get(3)?, version: r.get(4)? };
        let key = model.intermediate(r.get::<_, String>(5)?);
        let shape: Option<String> = r.get(8)?;
        Ok(Self {
            record: (r.get(0)?, r.get(1)?, key, r.get(6)?, r.get(17)?, r.get(18)?, r.get(19)?),
            kind: r.get(7)?,
            tensor: match shape {
                None => None,
                Some(s) => Some((s, r.get(9)?, r.get(10)?, r.get(11)?, r.get(12)?, r.get(14)?)),
            },
            block_rows: r.get(13)?,
            page_rows: r.get(15)?,
            schema: r.get(16)?,
            stage: r.get(20)?,
            n_withheld: r.get(21)?,
            linked: r.get(22)?,
        })
    }

    pub fn record(self) -> Result<IntermediateRecord> {
        const T: &str = "intermediates";
        let (id, model_id, key, position, n_rows, max_span, n_query) = self.record;
        let content = match (self.kind.as_str(), self.tensor, self.schema) {
            ("tensor", Some((row_shape, dtype, axis, scheme, params, group_units)), _) => {
                let shape = shape(&row_shape, T)?;
                let n_values = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
                if !n_values.is_some_and(|n| (1..=MAX_ROW_VALUES).contains(&n)) {
                    return Err(bad(T, "a shape that is none"));
                }
                let quantize = |source| EngineError::Quantize { key: key.to_string(), source };
                let scheme: mistique_quantize::Scheme = scheme.parse().map_err(quantize)?;
                let dtype = Code::from_id(dtype).map_err(quantize)?;
                let params = params.map_or(Ok(Params::none()), |p| Params::from_bytes(&p)).map_err(quantize)?;
                let unit_axis = if axis == 0 { UnitAxis::First } else { UnitAxis::Last };
                let (block_rows, page_rows) = (self.block_rows, self.page_rows);
                // The stored division counts, not today's constants.
                let code = stored_code(&scheme, dtype);
                let layout = TensorLayout {
                    group_units: group_units.max(1),
                    block_rows: block_rows.max(1),
                    page_rows: page_rows.max(1),
                    ..TensorLayout::new(&shape, unit_axis, &scheme, code)
                };
                Content::Tensor(TensorContent { shape, dtype, unit_axis, scheme, params, layout })
            }
            ("table", _, Some(schema)) => {
                let schema = schema_from_bytes(&schema).map_err(|e| bad(T, &e.to_string()))?;
                Content::Table(TableContent { schema, block_rows: self.block_rows.max(1) })
            }
            _ => return Err(bad(T, "a kind that this build does not know")),
        };
        let (content, stage) = (Arc::new(content), self.stage.map(|s| blob(s, T)).transpose()?);
        let (n_withheld, linked) = (self.n_withheld, self.linked);
        Ok(IntermediateRecord {
            id,
            model_id,
            key,
            position,
            content,
            n_rows,
            max_span,
            n_query,
            stage,
            n_withheld,
            linked,
        })
    }
}

/// Type of the codes that `scheme` makes of values of type `dtype`.
pub(crate) fn stored_code(scheme: &mistique_quantize::Scheme, dtype: Code) -> Code {
    if scheme.is_lossless_for(dtype) && dtype.is_float() { dtype } else { scheme.code() }
}

/// A chunk's place and, where it is coded against another one, that one's number and hash.
const PLACE: &str = "c.partition_id, c.offset, c.len_bytes, c.base_id, b.hash FROM chunks c
    LEFT JOIN chunks b ON b.id = c.base_id";

struct RawPlace {
    place: ChunkPlace,
    base: Option<i64>,
    hash: Option<Vec<u8>>,
}

impl RawPlace {
    fn of(r: &Row<'_>) -> rusqlite::Result<Self> {
        let place = ChunkPlace { partition: r.get(0)?, offset: r.get(1)?, len: r.get(2)?, base: None };
        Ok(Self { place, base: r.get(3)?, hash: r.get(4)? })
    }

    fn place(self) -> Result<ChunkPlace> {
        let Some(id) = self.base else { return Ok(self.place) };
        let hash =
            self.hash.ok_or_else(|| bad("chunks", &format!("no chunk {id}, against which another one is coded")))?;
        Ok(ChunkPlace { base: Some(Base { id, name: base_name(&blob(hash, "chunks")?) }), ..self.place })
    }
}

/// All chunks, by place; [`chunk_row`] reads what it gives.
pub(super) fn chunks_sql() -> String {
    let columns = PLACE.replacen(" FROM", ", c.id, c.hash, c.saved_bytes FROM", 1);
    format!("SELECT {columns} ORDER BY c.partition_id, c.offset")
}

pub(super) fn chunk_row(r: &Row<'_>) -> Result<ChunkRow> {
    const DOING: &str = "list the chunks";
    let (place, hash) = (RawPlace::of(r).doing(DOING)?.place()?, blob(r.get(6).doing(DOING)?, "chunks")?);
    Ok(ChunkRow { id: r.get(5).doing(DOING)?, hash, place, saved_bytes: r.get(7).doing(DOING)? })
}

impl Catalog {
    /// All models, oldest first.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn models(&self) -> Result<Vec<ModelRecord>> {
        const DOING: &str = "list the models";
        let mut statement = self.conn.prepare_cached(&format!("{MODEL} ORDER BY m.id")).doing(DOING)?;
        let rows = statement.query_map([], RawModel::of).doing(DOING)?;
        rows.map(|r| r.doing(DOING)?.record()).collect()
    }

    /// The model of exactly that key.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn model_exact(&self, key: &ModelKey) -> Result<Option<ModelRecord>> {
        const DOING: &str = "find a model";
        let sql = format!("{MODEL} WHERE m.project = ?1 AND m.name = ?2 AND m.version = ?3");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let raw =
            statement.query_row(params![key.project, key.model, key.version], RawModel::of).optional().doing(DOING)?;
        raw.map(RawModel::record).transpose()
    }

    /// The model of a key; one without a version means the unversioned model, else the one logged last.
    ///
    /// Errors: `NotFound` with the nearest names, `Catalog`, `Corrupt`.
    pub fn model(&self, key: &ModelKey) -> Result<ModelRecord> {
        if let Some(found) = self.model_exact(key)? {
            return Ok(found);
        }
        // Other models are not read: one of them may be damaged.
        let all = self.model_keys()?;
        let same = |(_, k): &&(i64, ModelKey)| k.project == key.project && k.model == key.model;
        if key.version.is_empty()
            && let Some((last, _)) = all.iter().filter(same).max_by_key(|(id, _)| *id)
        {
            return self.model_by_id(*last);
        }
        let names: Vec<String> = all.iter().map(|(_, key)| key.to_string()).collect();
        let nearest = nearest(&key.to_string(), names.iter().map(String::as_str), 3);
        Err(EngineError::NotFound { what: "model", name: key.to_string(), nearest })
    }

    /// Numbers and keys of all models, oldest first.
    ///
    /// Errors: `Catalog`.
    pub fn model_keys(&self) -> Result<Vec<(i64, ModelKey)>> {
        const DOING: &str = "list the models";
        let sql = "SELECT id, project, name, version FROM models ORDER BY id";
        let mut statement = self.conn.prepare_cached(sql).doing(DOING)?;
        let key = |r: &Row<'_>| -> rusqlite::Result<(i64, ModelKey)> {
            Ok((r.get(0)?, ModelKey { project: r.get(1)?, model: r.get(2)?, version: r.get(3)? }))
        };
        let rows = statement.query_map([], key).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// The model of a number.
    ///
    /// Errors: `NotFound`, `Catalog`, `Corrupt`.
    pub fn model_by_id(&self, id: i64) -> Result<ModelRecord> {
        const DOING: &str = "find a model";
        let mut statement = self.conn.prepare_cached(&format!("{MODEL} WHERE m.id = ?1")).doing(DOING)?;
        let raw = statement.query_row([id], RawModel::of).optional().doing(DOING)?;
        raw.ok_or_else(|| EngineError::NotFound { what: "model", name: id.to_string(), nearest: vec![] })?.record()
    }

    /// Intermediates of a model, from the input on; of all models for `None`.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn intermediates(&self, model_id: Option<i64>) -> Result<Vec<IntermediateRecord>> {
        const DOING: &str = "list the intermediates";
        let filter = if model_id.is_some() { "i.model_id = ?1" } else { "?1 IS NULL" };
        let sql = format!("{INTERMEDIATE} WHERE {filter} ORDER BY i.model_id, i.position, i.id");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let rows = statement.query_map([model_id], RawIntermediate::of).doing(DOING)?;
        rows.map(|r| r.doing(DOING)?.record()).collect()
    }

    /// The intermediate of a key; a model without a version is found as in [`Catalog::model`].
    ///
    /// Errors: `NotFound` with the nearest names, `Catalog`, `Corrupt`.
    pub fn intermediate(&self, key: &IntermediateKey) -> Result<IntermediateRecord> {
        if let Some(found) = self.intermediate_exact(key)? {
            return Ok(found);
        }
        let model = self.model(&key.model)?;
        let resolved = model.spec.key.intermediate(key.intermediate.clone());
        if let Some(found) = self.intermediate_exact(&resolved)? {
            return Ok(found);
        }
        let names: Vec<String> =
            self.intermediates(Some(model.id))?.iter().map(|i| i.key.intermediate.clone()).collect();
        let nearest = nearest(&key.intermediate, names.iter().map(String::as_str), 3);
        Err(EngineError::NotFound { what: "intermediate", name: key.to_string(), nearest })
    }

    /// The intermediate of a number.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn intermediate_by_id(&self, id: i64) -> Result<Option<IntermediateRecord>> {
        const DOING: &str = "find an intermediate";
        let mut statement = self.conn.prepare_cached(&format!("{INTERMEDIATE} WHERE i.id = ?1")).doing(DOING)?;
        let found = statement.query_row([id], RawIntermediate::of).optional().doing(DOING)?;
        found.map(RawIntermediate::record).transpose()
    }

    fn intermediate_exact(&self, key: &IntermediateKey) -> Result<Option<IntermediateRecord>> {
        const DOING: &str = "find an intermediate";
        let sql = format!("{INTERMEDIATE} WHERE m.project = ?1 AND m.name = ?2 AND m.version = ?3 AND i.name = ?4");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let ModelKey { project, model, version } = &key.model;
        let found = statement
            .query_row(params![project, model, version, key.intermediate], RawIntermediate::of)
            .optional()
            .doing(DOING)?;
        found.map(RawIntermediate::record).transpose()
    }

    /// The intermediates that a computation gave, oldest first.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn intermediates_by_stage(&self, stage: &Fingerprint) -> Result<Vec<IntermediateRecord>> {
        const DOING: &str = "find an intermediate by its stage";
        let sql = format!("{INTERMEDIATE} WHERE i.stage = ?1 ORDER BY i.id");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let rows = statement.query_map([&stage[..]], RawIntermediate::of).doing(DOING)?;
        rows.map(|r| r.doing(DOING)?.record()).collect()
    }

    /// RowBlocks of an intermediate that can hold rows of `min_row..=max_row`, by smallest row_id.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn blocks(&self, intermediate: &IntermediateRecord, min_row: u64, max_row: u64) -> Result<Vec<Block>> {
        const DOING: &str = "find RowBlocks";
        let sql = format!(
            "SELECT {BLOCK_COLUMNS}, s.rows, s.hash FROM row_blocks b LEFT JOIN row_sets s ON s.id = b.row_set_id
             WHERE b.intermediate_id = ?1 AND b.max_row >= ?2 AND b.min_row
             BETWEEN ?2 - (SELECT max_span FROM intermediates WHERE id = ?1) AND ?3
             ORDER BY b.min_row, b.block_no"
        );
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let clip = |row: u64| i64::try_from(row).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![intermediate.id, clip(min_row), clip(max_row)], |r| {
                Ok((RawBlockRow::of(r)?, r.get::<_, Option<Vec<u8>>>(8)?, r.get::<_, Option<Vec<u8>>>(9)?))
            })
            .doing(DOING)?;
        let block = |(raw, rows, hash): (RawBlockRow, Option<Vec<u8>>, Option<Vec<u8>>)| {
            let BlockRow { block_no, chunks, .. } = raw.row()?;
            let (rows, hash) = rows.zip(hash).ok_or_else(|| bad("row_sets", "the rows of a RowBlock are gone"))?;
            if fingerprint(&rows)[..] != hash {
                return Err(bad("row_sets", "rows that do not have their hash"));
            }
            let rows = RowSet::from_bytes(&rows).ok_or_else(|| bad("row_sets", "rows that are none"))?;
            Ok(Block { block_no, rows: Arc::new(rows), chunks })
        };
        rows.map(|r| block(r.doing(DOING)?)).collect()
    }

    /// Where a chunk lies.
    ///
    /// Errors: `Corrupt` when there is none of that number; `Catalog`.
    pub fn chunk_place(&self, id: i64) -> Result<ChunkPlace> {
        const DOING: &str = "find a chunk";
        let sql = format!("SELECT {PLACE} WHERE c.id = ?1");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let found = statement.query_row([id], RawPlace::of).optional().doing(DOING)?;
        found.ok_or_else(|| bad("chunks", &format!("no chunk {id}")))?.place()
    }

    /// Where all chunks of the numbers `first` to `last` lie that there are.
    ///
    /// Errors: `Corrupt`, `Catalog`.
    pub fn chunk_places(&self, first: i64, last: i64) -> Result<Vec<(i64, ChunkPlace)>> {
        const DOING: &str = "find chunks";
        let sql = PLACE.replacen(" FROM", ", c.id FROM", 1);
        let sql = format!("SELECT {sql} WHERE c.id BETWEEN ?1 AND ?2");
        let mut statement = self.conn.prepare_cached(&sql).doing(DOING)?;
        let rows = statement.query_map([first, last], |r| Ok((r.get(5)?, RawPlace::of(r)?))).doing(DOING)?;
        rows.map(|row| row.doing(DOING).and_then(|(id, raw)| Ok((id, raw.place()?)))).collect()
    }

    /// The chunk of that content.
    ///
    /// Errors: `Catalog`.
    pub fn chunk_by_hash(&self, hash: &ChunkHash) -> Result<Option<(i64, u64)>> {
        const DOING: &str = "look a chunk up by its hash";
        let mut statement =
            self.conn.prepare_cached("SELECT id, len_bytes FROM chunks WHERE hash = ?1").doing(DOING)?;
        statement.query_row([&hash[..]], |r| Ok((r.get(0)?, r.get(1)?))).optional().doing(DOING)
    }

    /// All chunks, by place.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn chunks(&self) -> Result<Vec<ChunkRow>> {
        const DOING: &str = "list the chunks";
        let mut statement = self.conn.prepare_cached(&chunks_sql()).doing(DOING)?;
        let mut rows = statement.query([]).doing(DOING)?;
        let mut chunks = Vec::new();
        while let Some(row) = rows.next().doing(DOING)? {
            chunks.push(chunk_row(row)?);
        }
        Ok(chunks)
    }

    /// The newest chunks at a place of the index of similar columns.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn similar_chunks(&self, place: i64, most: usize) -> Result<Vec<i64>> {
        const DOING: &str = "look for similar chunks";
        let sql = "SELECT chunk_id FROM lsh WHERE place = ?1 ORDER BY chunk_id DESC LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql).doing(DOING)?;
        let rows = statement.query_map(params![place, most as i64], |r| r.get(0)).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// Content hash of a chunk.
    ///
    /// Errors: `Corrupt` when there is none of that number; `Catalog`.
    pub(crate) fn chunk_hash(&self, id: i64) -> Result<ChunkHash> {
        const DOING: &str = "find a chunk";
        let mut statement = self.conn.prepare_cached("SELECT hash FROM chunks WHERE id = ?1").doing(DOING)?;
        let found: Option<Vec<u8>> = statement.query_row([id], |r| r.get(0)).optional().doing(DOING)?;
        blob(found.ok_or_else(|| bad("chunks", &format!("no chunk {id}")))?, "chunks")
    }

    /// How often each intermediate refers to each chunk: `(intermediate, chunk) → references`.
    ///
    /// Errors: `Catalog`.
    pub fn chunk_references(&self) -> Result<BTreeMap<(i64, i64), u64>> {
        const DOING: &str = "count references to chunks";
        let sql = format!("SELECT {BLOCK_COLUMNS} FROM row_blocks b");
        let mut statement = self.conn.prepare(&sql).doing(DOING)?;
        let mut references = BTreeMap::new();
        for row in statement.query_map([], RawBlockRow::of).doing(DOING)? {
            let row = row.doing(DOING)?.row()?;
            for chunk in row.chunks.into_iter().filter(|c| *c != WITHHELD) {
                *references.entry((row.intermediate_id, chunk)).or_default() += 1;
            }
        }
        Ok(references)
    }

    /// Length of a partition's file.
    ///
    /// Errors: `Corrupt` when there is none of that number; `Catalog`.
    pub fn partition_len(&self, id: u64) -> Result<u64> {
        const DOING: &str = "find a partition";
        let mut statement = self.conn.prepare_cached("SELECT len_bytes FROM partitions WHERE id = ?1").doing(DOING)?;
        let found = statement.query_row([id], |r| r.get(0)).optional().doing(DOING)?;
        found.ok_or_else(|| bad("partitions", &format!("no partition {id}")))
    }

    /// All partitions.
    ///
    /// Errors: `Catalog`.
    pub fn partitions(&self) -> Result<Vec<FinishedPartition>> {
        const DOING: &str = "list the partitions";
        let sql = "SELECT id, len_bytes, n_chunks, compact FROM partitions ORDER BY id";
        let mut statement = self.conn.prepare(sql).doing(DOING)?;
        let partition = |r: &Row<'_>| {
            let (id, len_bytes) = (r.get(0)?, r.get(1)?);
            Ok(FinishedPartition { id, len_bytes, n_chunks: r.get(2)?, compact: r.get(3)? })
        };
        let rows = statement.query_map([], partition).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// What the reduction of an intermediate cost; `None` when nothing was measured (tables).
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn errors(&self, intermediate_id: i64) -> Result<Option<ErrorRecord>> {
        const DOING: &str = "read reduction errors";
        let mut statement = self
            .conn
            .prepare_cached("SELECT errors, measured_rows, clamped FROM intermediates WHERE id = ?1")
            .doing(DOING)?;
        let row: Option<(Option<Vec<u8>>, u64, u64)> = statement
            .query_row([intermediate_id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .optional()
            .doing(DOING)?;
        let Some((Some(bytes), measured_rows, clamped)) = row else { return Ok(None) };
        let units: Option<Vec<UnitError>> =
            bytes.chunks(UnitError::LEN_BYTES).map(|b| UnitError::from_bytes(b).ok()).collect();
        let units = units.ok_or_else(|| bad("intermediates", "errors that are none"))?;
        Ok(Some(ErrorRecord { units, measured_rows, clamped }))
    }

    /// The operator of a hash.
    ///
    /// Errors: `Catalog`.
    pub fn operator(&self, hash: &Fingerprint) -> Result<Option<OperatorRecord>> {
        const DOING: &str = "find an operator";
        let sql = "SELECT len_bytes, kind FROM operators WHERE hash = ?1";
        let mut statement = self.conn.prepare_cached(sql).doing(DOING)?;
        let record = |r: &Row<'_>| Ok(OperatorRecord { hash: *hash, len_bytes: r.get(0)?, kind: r.get(1)? });
        statement.query_row([&hash[..]], record).optional().doing(DOING)
    }

    /// All operators.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn operators(&self) -> Result<Vec<OperatorRecord>> {
        const DOING: &str = "list the operators";
        let mut statement = self.conn.prepare_cached("SELECT hash, len_bytes, kind FROM operators").doing(DOING)?;
        let rows = statement.query_map([], |r| Ok((r.get::<_, Vec<u8>>(0)?, r.get(1)?, r.get(2)?))).doing(DOING)?;
        rows.map(|r| {
            let (hash, len_bytes, kind) = r.doing(DOING)?;
            Ok(OperatorRecord { hash: blob(hash, "operators")?, len_bytes, kind })
        })
        .collect()
    }

    /// Numbers of the models over the dataset of a name.
    ///
    /// Errors: `Catalog`.
    pub fn dataset_users(&self, name: &str) -> Result<Vec<i64>> {
        const DOING: &str = "find a dataset's models";
        let sql = "SELECT m.id FROM models m JOIN datasets d ON d.id = m.dataset_id WHERE d.name = ?1";
        let mut statement = self.conn.prepare_cached(sql).doing(DOING)?;
        let rows = statement.query_map([name], |r| r.get(0)).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// The dataset of a name.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn dataset(&self, name: &str) -> Result<Option<(i64, DatasetSpec)>> {
        const DOING: &str = "find a dataset";
        let mut statement = self
            .conn
            .prepare_cached("SELECT id, name, source, fingerprint, n_rows, row_shape FROM datasets WHERE name = ?1")
            .doing(DOING)?;
        let found = statement
            .query_row([name], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, Vec<u8>>(3)?, r.get(4)?, r.get::<_, String>(5)?))
            })
            .optional()
            .doing(DOING)?;
        let Some((id, name, source, fingerprint, n_rows, row_shape)) = found else { return Ok(None) };
        let (fingerprint, row_shape) = (blob(fingerprint, "datasets")?, shape(&row_shape, "datasets")?);
        Ok(Some((id, DatasetSpec { name, source, fingerprint, n_rows, row_shape })))
    }

    /// A lifetime counter.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn total(&self, name: &str) -> Result<u64> {
        const DOING: &str = "read counters";
        let mut statement = self.conn.prepare_cached("SELECT value FROM meta WHERE key = ?1").doing(DOING)?;
        Ok(statement.query_row([name], |r| r.get(0)).optional().doing(DOING)?.unwrap_or_default())
    }

    /// All measured costs of a machine: what, of what, and the figure.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn costs(&self, machine: &str) -> Result<Vec<(String, String, Running)>> {
        const DOING: &str = "list measured costs";
        let sql = "SELECT what, subject, n, mean, m2, updated FROM costs WHERE machine = ?1 ORDER BY what, subject";
        let mut statement = self.conn.prepare_cached(sql).doing(DOING)?;
        let cost = |r: &Row<'_>| {
            let running = Running { n: r.get(2)?, mean: r.get(3)?, m2: r.get(4)?, updated: r.get(5)? };
            Ok((r.get(0)?, r.get(1)?, running))
        };
        let rows = statement.query_map([machine], cost).doing(DOING)?;
        rows.map(|r| r.doing(DOING)).collect()
    }

    /// A measured cost of a machine, as it was written down.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn cost(&self, machine: &str, what: &str, subject: &str) -> Result<Option<Running>> {
        const DOING: &str = "read a measured cost";
        let mut statement = self
            .conn
            .prepare_cached("SELECT n, mean, m2, updated FROM costs WHERE machine = ?1 AND what = ?2 AND subject = ?3")
            .doing(DOING)?;
        let cost = |r: &Row<'_>| Ok(Running { n: r.get(0)?, mean: r.get(1)?, m2: r.get(2)?, updated: r.get(3)? });
        statement.query_row(params![machine, what, subject], cost).optional().doing(DOING)
    }
}
