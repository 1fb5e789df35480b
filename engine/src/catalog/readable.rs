//! Lists that leave out what is damaged and name it, so that the rest can be answered.

use std::collections::BTreeMap;

use rusqlite::{Params, Row};

use super::Catalog;
use super::block_row::{BLOCK_COLUMNS, RawBlockRow};
use super::read::{ChunkRow, INTERMEDIATE, MODEL, RawIntermediate, RawModel, chunk_row, chunks_sql};
use super::stages::{COLUMNS as STAGE, RawStage};
use super::withheld::WITHHELD;
use crate::error::{CatalogContext, EngineError, Result};
use crate::key::ModelKey;
use crate::model::{IntermediateRecord, ModelRecord};
use crate::verify::Damage;

/// What could be read of a list, and what is damaged of it.
#[derive(Debug, Clone)]
pub struct Readable<T> {
    /// Rows that could be read, in the list's order.
    pub rows: Vec<T>,
    /// One for each that could not.
    pub damage: Vec<Damage>,
}

/// A part of the catalogue that is not what was written.
pub(crate) fn damaged(what: &str, e: EngineError, key: Option<String>) -> Damage {
    let why = match e {
        // The place says the file already, and there is no byte to name.
        EngineError::Corrupt { why, .. } => why,
        other => other.to_string(),
    };
    Damage { place: "catalog.db".into(), why: format!("{what}: {why}"), keys: key.into_iter().collect() }
}

/// A text that may be none.
fn text(r: &Row<'_>, column: usize) -> String {
    let bytes = r.get_ref(column).ok().and_then(|v| v.as_bytes().ok());
    bytes.map_or_else(|| "?".to_string(), |b| String::from_utf8_lossy(b).into_owned())
}

/// The key of a model whose names are in three columns, from `first` on.
fn model_key(r: &Row<'_>, first: usize) -> ModelKey {
    ModelKey { project: text(r, first), model: text(r, first + 1), version: text(r, first + 2) }
}

impl Catalog {
    /// Rows of a query, each as it could be read. `of` says what a row is called and what it holds; where SQLite itself
    /// fails the list ends with that.
    fn sift<T>(
        &self,
        doing: &'static str,
        sql: &str,
        params: impl Params,
        of: impl Fn(&Row<'_>) -> (String, Option<String>, Result<T>),
    ) -> Readable<T> {
        let mut found = Readable { rows: Vec::new(), damage: Vec::new() };
        let read = |found: &mut Readable<T>| -> Result<()> {
            let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
            let mut rows = statement.query(params).doing(doing)?;
            while let Some(row) = rows.next().doing(doing)? {
                let (what, key, held) = of(row);
                match held {
                    Ok(held) => found.rows.push(held),
                    Err(e) => found.damage.push(damaged(&what, e, key)),
                }
            }
            Ok(())
        };
        if let Err(e) = read(&mut found) {
            found.damage.push(damaged("the catalogue", e, None));
        }
        found
    }

    /// All models that can be read, oldest first.
    pub fn readable_models(&self) -> Readable<ModelRecord> {
        const DOING: &str = "list the models";
        self.sift(DOING, &format!("{MODEL} ORDER BY m.id"), [], |r| {
            let key = model_key(r, 1).to_string();
            (format!("model {key}"), Some(key), RawModel::of(r).doing(DOING).and_then(RawModel::record))
        })
    }

    /// All intermediates that can be read, model by model, from the input on.
    pub fn readable_intermediates(&self) -> Readable<IntermediateRecord> {
        const DOING: &str = "list the intermediates";
        self.sift(DOING, &format!("{INTERMEDIATE} ORDER BY i.model_id, i.position, i.id"), [], |r| {
            let key = model_key(r, 2).intermediate(text(r, 5)).to_string();
            (
                format!("intermediate {key}"),
                Some(key),
                RawIntermediate::of(r).doing(DOING).and_then(RawIntermediate::record),
            )
        })
    }

    /// All stages of models that can be read.
    pub(super) fn readable_stages(&self) -> Readable<()> {
        const DOING: &str = "list the stages of a model";
        let sql = STAGE.replacen(" FROM", ", m.project, m.name, m.version FROM", 1);
        self.sift(DOING, &format!("SELECT {sql} ORDER BY s.model_id, s.position"), [], |r| {
            let key = model_key(r, 12).to_string();
            let stage = RawStage::of(r).doing(DOING).and_then(RawStage::record);
            (format!("stage {} of {key}", text(r, 1)), Some(key), stage.map(drop))
        })
    }

    /// All chunks that can be read, by place.
    pub(crate) fn readable_chunks(&self) -> Readable<ChunkRow> {
        self.sift("list the chunks", &chunks_sql(), [], |r| {
            (format!("chunk {}", r.get(5).unwrap_or(WITHHELD)), None, chunk_row(r))
        })
    }

    /// As [`Catalog::chunk_references`], of the RowBlocks that can be read.
    pub(crate) fn readable_references(&self) -> Readable<((i64, i64), u64)> {
        const DOING: &str = "count references to chunks";
        let sql = format!("SELECT {BLOCK_COLUMNS} FROM row_blocks b");
        let blocks = self.sift(DOING, &sql, [], |r| {
            ("RowBlocks".into(), None, RawBlockRow::of(r).doing(DOING).and_then(RawBlockRow::row))
        });
        let mut references: BTreeMap<(i64, i64), u64> = BTreeMap::new();
        for row in blocks.rows {
            for chunk in row.chunks.into_iter().filter(|c| *c != WITHHELD) {
                *references.entry((row.intermediate_id, chunk)).or_default() += 1;
            }
        }
        Readable { rows: references.into_iter().collect(), damage: blocks.damage }
    }
}
