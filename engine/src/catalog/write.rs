//! One commit: everything that a log adds, in one transaction.

use mistique_quantize::UnitError;
use rusqlite::{Transaction, params};

use super::block_row::{BLOCK_COLUMNS, BlockRow, RawBlockRow};
use super::packed::pack;
use super::stages::{NewStage, insert_stage};
use super::withheld::{Fill, WITHHELD, fill_block, write_group_bytes};
use super::{Catalog, now};
use crate::chunk::ChunkHash;
use crate::counters::Running;
use crate::error::{CatalogContext, EngineError, Result};
use crate::model::{Content, Fingerprint, ModelSpec, TensorContent, UnitAxis, fingerprint, schema_to_bytes};
use crate::partition::{ChunkPlace, FinishedPartition};
use crate::rows::RowSet;
use crate::storage::Storage;

/// A model to add.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Its number.
    pub id: i64,
    /// Its content.
    pub spec: ModelSpec,
}

/// An intermediate to add.
#[derive(Debug, Clone)]
pub struct NewIntermediate {
    /// Its number.
    pub id: i64,
    /// Number of its model.
    pub model_id: i64,
    /// Name.
    pub name: String,
    /// Place among its siblings.
    pub position: i64,
    /// Columns.
    pub content: Content,
}

/// An intermediate to add that holds what another one holds.
#[derive(Debug, Clone)]
pub struct NewLink {
    /// Its number.
    pub id: i64,
    /// Number of its model.
    pub model_id: i64,
    /// Name.
    pub name: String,
    /// Place among its siblings.
    pub position: i64,
    /// Number of the other one, stored or of this commit.
    pub source: i64,
}

/// A RowBlock to add.
#[derive(Debug, Clone)]
pub struct NewBlock {
    /// Number of its intermediate.
    pub intermediate_id: i64,
    /// Row_ids in stored order; not empty.
    pub rows: RowSet,
    /// Chunk of each group.
    pub chunks: Vec<i64>,
}

/// What a log did to an intermediate since the last commit.
#[derive(Debug, Clone, Default)]
pub struct IntermediateProgress {
    /// Number of the intermediate.
    pub id: i64,
    /// Reduction errors since the log began or went on, one a unit; they replace what this log wrote before.
    pub errors: Option<Vec<UnitError>>,
    /// Rows on which they were measured.
    pub measured_rows: u64,
    /// Values clamped, in all.
    pub clamped: u64,
    /// Scheme, parameters and layout, when they were settled since.
    pub settled: Option<TensorContent>,
}

/// A chunk to add.
#[derive(Debug, Clone, Copy)]
pub struct NewChunk {
    /// Its number.
    pub id: i64,
    /// Content hash.
    pub hash: ChunkHash,
    /// Where it lies.
    pub place: ChunkPlace,
    /// Bytes that coding it against another one saved.
    pub saved_bytes: u64,
}

/// One band of a chunk's signature.
#[derive(Debug, Clone, Copy)]
pub struct LshRow {
    /// Its place in the index of similar columns.
    pub place: i64,
    /// The chunk.
    pub chunk: i64,
}

/// Everything that one commit makes visible.
#[derive(Debug, Default)]
pub struct Commit {
    /// Models whose content is removed first (`--replace`).
    pub replaced_models: Vec<i64>,
    /// Models that keep their content, and of which no dataset is known any more.
    pub unbound_models: Vec<i64>,
    /// Intermediates whose content is removed first.
    pub replaced_intermediates: Vec<i64>,
    /// Unfinished pipelines that go on under another description; the record of their stages is written anew.
    pub redescribed: Vec<NewModel>,
    /// Models whose dataset, the same by content, has another name or lies elsewhere now.
    pub rebound: Vec<NewModel>,
    /// New models.
    pub models: Vec<NewModel>,
    /// New intermediates.
    pub intermediates: Vec<NewIntermediate>,
    /// New partitions.
    pub partitions: Vec<FinishedPartition>,
    /// New chunks; one that others are coded against comes before them.
    pub chunks: Vec<NewChunk>,
    /// What similar chunks are found by.
    pub lsh: Vec<LshRow>,
    /// New RowBlocks.
    pub blocks: Vec<NewBlock>,
    /// Errors, clamps and parameters.
    pub progress: Vec<IntermediateProgress>,
    /// Stages of pipelines that ran.
    pub runs: Vec<NewStage>,
    /// The computations that gave intermediates all of whose rows are there.
    pub stages: Vec<(i64, Fingerprint)>,
    /// Intermediates that hold what others hold, after everything above.
    pub links: Vec<NewLink>,
    /// Values that RowBlocks lacked.
    pub fills: Vec<Fill>,
    /// Bytes that a row of each group of an intermediate takes, estimated where its values are withheld.
    pub group_bytes: Vec<(i64, Vec<f32>)>,
    /// Models whose log is finished (or not, after it went on).
    pub complete: Vec<(i64, bool)>,
}

impl Catalog {
    /// The next free number of models, intermediates, chunks and partitions.
    ///
    /// Errors: `Catalog`.
    pub fn next_ids(&self) -> Result<(i64, i64, i64, u64)> {
        let partition = self.next_id("partitions")?;
        Ok((self.next_id("models")?, self.next_id("intermediates")?, self.next_id("chunks")?, partition.unsigned_abs()))
    }

    /// Applies a commit, durably, in one transaction.
    ///
    /// Errors: `Catalog`, or the storage's; then nothing of it is visible.
    pub fn commit(&mut self, storage: &dyn Storage, commit: &Commit) -> Result<()> {
        const DOING: &str = "commit";
        let tx = self.conn.transaction().doing(DOING)?;
        for id in &commit.unbound_models {
            tx.execute("UPDATE models SET dataset_id = NULL WHERE id = ?1", [id]).doing("unbind a model")?;
        }
        for id in &commit.replaced_models {
            tx.execute("DELETE FROM models WHERE id = ?1", [id]).doing(DOING)?;
        }
        for id in &commit.replaced_intermediates {
            tx.execute("DELETE FROM intermediates WHERE id = ?1", [id]).doing(DOING)?;
        }
        for model in &commit.redescribed {
            redescribe(&tx, model)?;
        }
        for model in &commit.rebound {
            let dataset_id = insert_dataset(&tx, &model.spec)?;
            let sql = "UPDATE models SET dataset_id = ?2 WHERE id = ?1";
            tx.execute(sql, params![model.id, dataset_id]).doing("find a dataset elsewhere")?;
        }
        for model in &commit.models {
            insert_model(&tx, model)?;
        }
        for intermediate in &commit.intermediates {
            insert_intermediate(&tx, intermediate)?;
        }
        insert_partitions(&tx, &commit.partitions, DOING)?;
        // A damaged chunk that was written anew keeps its number.
        let sql = "INSERT INTO chunks (id, hash, partition_id, offset, len_bytes, base_id, saved_bytes)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (id) DO UPDATE SET partition_id = excluded.partition_id, offset = excluded.offset,
                     len_bytes = excluded.len_bytes, base_id = excluded.base_id, saved_bytes = excluded.saved_bytes
                   WHERE hash = excluded.hash";
        let mut statement = tx.prepare_cached(sql).doing(DOING)?;
        for NewChunk { id, hash, place, saved_bytes } in &commit.chunks {
            let base = place.base.map(|b| b.id);
            statement
                .execute(params![id, &hash[..], place.partition, place.offset, place.len, base, saved_bytes])
                .doing(DOING)?;
        }
        drop(statement);
        let mut statement = tx.prepare_cached("INSERT OR IGNORE INTO lsh VALUES (?1, ?2)").doing(DOING)?;
        for LshRow { place, chunk } in &commit.lsh {
            statement.execute(params![place, chunk]).doing(DOING)?;
        }
        drop(statement);
        for block in &commit.blocks {
            insert_block(&tx, block)?;
        }
        for fill in &commit.fills {
            fill_block(&tx, fill)?;
        }
        for (id, bytes) in &commit.group_bytes {
            write_group_bytes(&tx, *id, bytes)?;
        }
        for p in &commit.progress {
            update_progress(&tx, p)?;
        }
        for (id, stage) in &commit.stages {
            tx.execute("UPDATE intermediates SET stage = ?2 WHERE id = ?1", params![id, &stage[..]]).doing(DOING)?;
        }
        for link in &commit.links {
            insert_link(&tx, link)?;
        }
        for run in &commit.runs {
            insert_stage(&tx, run)?;
        }
        for (id, complete) in &commit.complete {
            tx.execute("UPDATE models SET complete = ?2 WHERE id = ?1", params![id, complete]).doing(DOING)?;
        }
        storage.before_catalog_commit()?;
        tx.commit().doing(DOING)
    }

    /// Registers an operator's file.
    ///
    /// Errors: `Catalog`, or the storage's.
    pub fn add_operator(&mut self, storage: &dyn Storage, hash: &[u8; 16], len_bytes: u64, kind: &str) -> Result<()> {
        const DOING: &str = "register an operator";
        let tx = self.conn.transaction().doing(DOING)?;
        tx.execute("INSERT INTO operators VALUES (?1, ?2, ?3, ?4)", params![&hash[..], len_bytes, kind, now()])
            .doing(DOING)?;
        storage.before_catalog_commit()?;
        tx.commit().doing(DOING)
    }

    /// Moves chunks to other places, of which it says what coding against a base saved there, and forgets chunks and
    /// partitions, in one transaction (`gc`, `compact`).
    ///
    /// Errors: `Catalog`, or the storage's; then nothing has changed.
    pub fn relocate(
        &mut self,
        storage: &dyn Storage,
        moved: &[(i64, ChunkPlace, u64)],
        new: &[FinishedPartition],
        dead_chunks: &[i64],
        dead_partitions: &[u64],
        dead_operators: &[[u8; 16]],
    ) -> Result<()> {
        const DOING: &str = "relocate chunks";
        let tx = self.conn.transaction().doing(DOING)?;
        insert_partitions(&tx, new, DOING)?;
        // Chunks go before those that they are coded against, and after.
        tx.execute_batch("PRAGMA defer_foreign_keys = ON").doing(DOING)?;
        for (id, place, saved_bytes) in moved {
            let sql = "UPDATE chunks SET partition_id = ?2, offset = ?3, len_bytes = ?4, base_id = ?5, saved_bytes = ?6
                       WHERE id = ?1";
            let base = place.base.map(|b| b.id);
            tx.execute(sql, params![id, place.partition, place.offset, place.len, base, saved_bytes]).doing(DOING)?;
        }
        for id in dead_chunks {
            tx.execute("DELETE FROM chunks WHERE id = ?1", [id]).doing(DOING)?;
        }
        if !dead_chunks.is_empty() {
            tx.execute("DELETE FROM lsh WHERE chunk_id NOT IN (SELECT id FROM chunks)", []).doing(DOING)?;
        }
        for id in dead_partitions {
            tx.execute("DELETE FROM partitions WHERE id = ?1", [id]).doing(DOING)?;
        }
        for hash in dead_operators {
            tx.execute("DELETE FROM operators WHERE hash = ?1", [&hash[..]]).doing(DOING)?;
        }
        tx.execute("DELETE FROM row_sets WHERE id NOT IN (SELECT row_set_id FROM row_blocks)", []).doing(DOING)?;
        let unused =
            "DELETE FROM schemas WHERE hash NOT IN (SELECT schema FROM intermediates WHERE schema IS NOT NULL)";
        tx.execute(unused, []).doing(DOING)?;
        storage.before_catalog_commit()?;
        tx.commit().doing(DOING)
    }

    /// Removes a model and what it holds; its chunks stay until `gc`.
    ///
    /// Errors: `Catalog`.
    pub fn remove_model(&mut self, id: i64) -> Result<()> {
        self.conn.execute("DELETE FROM models WHERE id = ?1", [id]).doing("remove a model")?;
        Ok(())
    }

    /// Forgets what was measured of a kind.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn forget_costs(&self, what: &str) -> Result<()> {
        self.conn.execute("DELETE FROM costs WHERE what = ?1", [what]).doing("forget costs")?;
        Ok(())
    }

    /// Writes down costs and query counts, in one transaction that a power cut may lose.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn write_counters(
        &self,
        costs: &[(String, String, String, Running)],
        queries: &[(i64, &str, u64)],
    ) -> Result<()> {
        const DOING: &str = "write measured costs";
        self.conn.execute_batch("PRAGMA synchronous = NORMAL").doing(DOING)?;
        let written = (|| {
            let tx = self.conn.unchecked_transaction()?;
            for (machine, what, subject, r) in costs {
                let sql = "INSERT OR REPLACE INTO costs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
                tx.prepare_cached(sql)?.execute(params![machine, what, subject, r.n, r.mean, r.m2, r.updated])?;
            }
            for (id, columns, n) in queries {
                let sql = "UPDATE intermediates SET n_query = n_query + ?2 WHERE id = ?1";
                tx.prepare_cached(sql)?.execute(params![id, n])?;
                // Not of an intermediate that was removed since.
                let sql = "INSERT INTO column_queries SELECT id, ?2, ?3 FROM intermediates WHERE id = ?1
                           ON CONFLICT DO UPDATE SET n_query = n_query + ?3";
                tx.prepare_cached(sql)?.execute(params![id, columns, n])?;
            }
            tx.commit()
        })();
        self.conn.execute_batch("PRAGMA synchronous = FULL").doing(DOING)?;
        written.doing(DOING)
    }

    /// Adds to lifetime counters.
    ///
    /// Errors: `Catalog`.
    pub(crate) fn add_totals(&self, totals: &[(&str, u64)]) -> Result<()> {
        const DOING: &str = "keep counters";
        let sql = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = value + ?2";
        for (name, n) in totals.iter().filter(|(_, n)| *n > 0) {
            self.conn.execute(sql, params![name, n]).doing(DOING)?;
        }
        Ok(())
    }
}

fn insert_dataset(tx: &Transaction<'_>, spec: &ModelSpec) -> Result<Option<i64>> {
    const DOING: &str = "add a dataset";
    let Some(d) = &spec.dataset else { return Ok(None) };
    let shape = serde_json::to_string(&d.row_shape).unwrap_or_default();
    tx.execute(
        "INSERT INTO datasets (name, source, fingerprint, n_rows, row_shape, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO UPDATE SET source = ?2, fingerprint = ?3,
         n_rows = ?4, row_shape = ?5",
        params![d.name, d.source, &d.fingerprint[..], d.n_rows, shape, now()],
    )
    .doing(DOING)?;
    Ok(Some(tx.query_row("SELECT id FROM datasets WHERE name = ?1", [&d.name], |r| r.get(0)).doing(DOING)?))
}

fn redescribe(tx: &Transaction<'_>, model: &NewModel) -> Result<()> {
    const DOING: &str = "describe a model anew";
    let dataset_id = insert_dataset(tx, &model.spec)?;
    let packed = pack(&model.spec.description, "")?;
    let text = if packed.is_some() { "" } else { &model.spec.description };
    let sql = "UPDATE models SET description = ?2, packed = ?3, dataset_id = ?4 WHERE id = ?1";
    tx.execute(sql, params![model.id, text, packed, dataset_id]).doing(DOING)?;
    tx.execute("DELETE FROM stages WHERE model_id = ?1", [model.id]).doing(DOING)?;
    Ok(())
}

fn insert_partitions(tx: &Transaction<'_>, partitions: &[FinishedPartition], doing: &'static str) -> Result<()> {
    let mut statement = tx.prepare_cached("INSERT INTO partitions VALUES (?1, ?2, ?3, ?4)").doing(doing)?;
    for p in partitions {
        statement.execute(params![p.id, p.len_bytes, p.n_chunks, p.compact]).doing(doing)?;
    }
    Ok(())
}

fn insert_model(tx: &Transaction<'_>, model: &NewModel) -> Result<()> {
    const DOING: &str = "add a model";
    let spec = &model.spec;
    let dataset_id = insert_dataset(tx, spec)?;
    let weights = spec.weights.as_ref().map(|w| &w[..]);
    let key = &spec.key;
    let packed = pack(&spec.description, "")?;
    let text = if packed.is_some() { "" } else { &spec.description };
    tx.execute(
        "INSERT INTO models (id, project, name, version, kind, description, packed, weights, dataset_id, complete, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10)",
        params![
            model.id,
            key.project,
            key.model,
            key.version,
            spec.kind.name(),
            text,
            packed,
            weights,
            dataset_id,
            now()
        ],
    )
    .doing(DOING)?;
    Ok(())
}

fn insert_intermediate(tx: &Transaction<'_>, new: &NewIntermediate) -> Result<()> {
    const DOING: &str = "add an intermediate";
    let (id, model_id, name, position) = (new.id, new.model_id, &new.name, new.position);
    match &new.content {
        Content::Tensor(t) => {
            let shape = serde_json::to_string(&t.shape).unwrap_or_default();
            let params = (!t.params.is_none()).then(|| t.params.to_bytes());
            let axis = match t.unit_axis {
                UnitAxis::First => 0,
                UnitAxis::Last => 1,
            };
            tx.execute(
                "INSERT INTO intermediates (id, model_id, name, position, kind, shape, dtype, unit_axis, scheme, params,
                 block_rows, group_units, page_rows, n_rows, max_span) VALUES
                 (?1, ?2, ?3, ?4, 'tensor', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0)",
                params![
                    id, model_id, name, position, shape, t.dtype.to_id(), axis, t.scheme.to_string(), params,
                    t.layout.block_rows, t.layout.group_units, t.layout.page_rows
                ],
            )
            .doing(DOING)?;
        }
        Content::Table(t) => {
            let schema = schema_to_bytes(&t.schema)?;
            let hash = fingerprint(&schema);
            let mut statement = tx
                .prepare_cached("INSERT INTO schemas (hash, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
                .doing(DOING)?;
            statement.execute(params![&hash[..], schema]).doing(DOING)?;
            tx.execute(
                "INSERT INTO intermediates (id, model_id, name, position, kind, schema, block_rows, page_rows, n_rows, max_span)
                 VALUES (?1, ?2, ?3, ?4, 'table', ?5, ?6, ?6, 0, 0)",
                params![id, model_id, name, position, &hash[..], t.block_rows],
            )
            .doing(DOING)?;
        }
    }
    Ok(())
}

/// Everything but names, place and queries is that of the source; no value is touched.
fn insert_link(tx: &Transaction<'_>, link: &NewLink) -> Result<()> {
    const DOING: &str = "link an intermediate";
    let added = tx
        .execute(
            "INSERT INTO intermediates (id, model_id, name, position, kind, shape, dtype, unit_axis, scheme, params,
             block_rows, group_units, page_rows, schema, n_rows, max_span, clamped, measured_rows, errors, stage,
             n_withheld, group_bytes, linked)
             SELECT ?1, ?2, ?3, ?4, kind, shape, dtype, unit_axis, scheme, params, block_rows, group_units, page_rows,
             schema, n_rows, max_span, clamped, measured_rows, errors, stage, n_withheld, group_bytes, 1 FROM intermediates
             WHERE id = ?5",
            params![link.id, link.model_id, link.name, link.position, link.source],
        )
        .doing(DOING)?;
    if added == 0 {
        let (what, name) = ("intermediate to link to", link.source.to_string());
        return Err(EngineError::NotFound { what, name, nearest: vec![] });
    }
    let sql = format!("SELECT {BLOCK_COLUMNS} FROM row_blocks b WHERE b.intermediate_id = ?1");
    let mut statement = tx.prepare_cached(&sql).doing(DOING)?;
    let rows = statement.query_map([link.source], RawBlockRow::of).doing(DOING)?;
    for row in rows.collect::<Vec<_>>() {
        BlockRow { intermediate_id: link.id, ..row.doing(DOING)?.row()? }.insert(tx)?;
    }
    Ok(())
}

pub(super) fn insert_block(tx: &Transaction<'_>, block: &NewBlock) -> Result<()> {
    const DOING: &str = "add a RowBlock";
    let rows = block.rows.to_bytes();
    let hash = fingerprint(&rows);
    let mut statement =
        tx.prepare_cached("INSERT INTO row_sets (hash, rows) VALUES (?1, ?2) ON CONFLICT DO NOTHING").doing(DOING)?;
    statement.execute(params![&hash[..], rows]).doing(DOING)?;
    let (min, max) = block.rows.bounds().unwrap_or_default();
    let mut statement = tx
        .prepare_cached(
            "SELECT (SELECT coalesce(max(block_no), -1) + 1 FROM row_blocks WHERE intermediate_id = ?1 AND min_row = ?2),
             id FROM row_sets WHERE hash = ?3",
        )
        .doing(DOING)?;
    let numbers = statement.query_row(params![block.intermediate_id, min, &hash[..]], |r| Ok((r.get(0)?, r.get(1)?)));
    let (block_no, row_set_id) = numbers.doing(DOING)?;
    let n = block.rows.len() as u64;
    let signed = |row: u64| i64::try_from(row).unwrap_or(i64::MAX);
    BlockRow {
        intermediate_id: block.intermediate_id,
        block_no,
        min_row: signed(min),
        max_row: signed(max),
        n_rows: signed(n),
        row_set_id,
        chunks: block.chunks.clone(),
    }
    .insert(tx)?;
    let mut statement = tx
        .prepare_cached(
            "UPDATE intermediates SET n_rows = n_rows + ?2, max_span = max(max_span, ?3), n_withheld = n_withheld + ?4
             WHERE id = ?1",
        )
        .doing(DOING)?;
    let n_withheld = block.chunks.iter().filter(|c| **c == WITHHELD).count();
    statement.execute(params![block.intermediate_id, n, max - min, n_withheld]).doing(DOING)?;
    Ok(())
}

fn update_progress(tx: &Transaction<'_>, p: &IntermediateProgress) -> Result<()> {
    const DOING: &str = "record reduction errors";
    if let Some(errors) = &p.errors {
        let bytes: Vec<u8> = errors.iter().flat_map(|e| e.to_bytes()).collect();
        tx.execute(
            "UPDATE intermediates SET errors = ?2, measured_rows = ?3, clamped = ?4 WHERE id = ?1",
            params![p.id, bytes, p.measured_rows, p.clamped],
        )
        .doing(DOING)?;
    }
    if let Some(t) = &p.settled {
        let params = (!t.params.is_none()).then(|| t.params.to_bytes());
        tx.execute(
            "UPDATE intermediates SET scheme = ?2, params = ?3, block_rows = ?4, group_units = ?5, page_rows = ?6
             WHERE id = ?1",
            params![p.id, t.scheme.to_string(), params, t.layout.block_rows, t.layout.group_units, t.layout.page_rows],
        )
        .doing(DOING)?;
    }
    Ok(())
}
