//! Which indexes questions about an intermediate use.

use mistique_engine::{IndexKind, IndexRecord, IndexValues, MapValue, Rows};

use super::group::Layer;
use crate::codes::CodeScan;
use crate::columns::Columns;
use crate::error::Result;
use crate::reader::{ChunkReader, Request};

/// An index, and what it does for questions about a request's columns and rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// `row_id`, `zone maps`, or the kind of one that was made.
    pub kind: String,
    /// Its number; `None` for those that every intermediate has.
    pub id: Option<i64>,
    /// Bytes of its file; 0 for what lies in the catalogue and in chunks.
    pub bytes: u64,
    /// Which questions use it, and what for.
    pub what: String,
    /// Why they do not; `None` where they do.
    pub unused: Option<String>,
}

impl ChunkReader<'_> {
    /// The indexes that there are for questions about a request: those that every intermediate has, then those that were
    /// made or kept, oldest first. Reads headers only, and does not count as a query.
    ///
    /// Errors: as [`ChunkReader::explain`]; `Corrupt`, `Io`.
    pub fn serving(&self, request: &Request) -> Result<Vec<Serving>> {
        let resolved = self.resolve(request, None)?;
        let record = &resolved.record;
        let own = |kind: &str, what: String, unused: Option<String>| Serving {
            kind: kind.into(),
            id: None,
            bytes: 0,
            what,
            unused,
        };
        let find = "every question finds RowBlocks by it";
        let skip = |pages: &str| format!("topk, where and netdissect leave out {pages} whose range cannot matter");
        let mut all = Vec::new();
        match &resolved.stored {
            Err(why) => {
                all.push(own("row_id", find.into(), Some(why.clone())));
                all.push(own("zone maps", skip("pages"), Some(why.clone())));
            }
            Ok(plan) => {
                let (_, all_blocks) = self.store().plan_rows(record, &Rows::All)?.lacking(&[]);
                let (_, blocks) = plan.lacking(&[]);
                let what = format!("{find}: these rows lie in {blocks} of {all_blocks}");
                all.push(own("row_id", what, None));
                let codes = match &resolved.columns {
                    Columns::Tensor(columns) => CodeScan::new(self.store(), record, plan, columns)?,
                    Columns::Table(_) => None,
                };
                all.push(match codes {
                    Some(codes) => own("zone maps", skip(&format!("those of {} pages", codes.pages()?.len())), None),
                    None => own("zone maps", skip("pages"), Some("tables and float64 are read as values".into())),
                });
            }
        }
        let made = self.store().indexes(Some(record))?;
        if !made.is_empty() {
            let layer = Layer::new(self, &record.key, MapValue::Max, request.exact, request.plan)?;
            all.extend(made.iter().map(|index| serving(index, &layer)));
        }
        Ok(all)
    }
}

fn serving(index: &IndexRecord, layer: &Layer) -> Serving {
    let param = |name: &str| index.param(name).unwrap_or_default();
    let n_rows = layer.rows.len();
    let covered: usize = param("rows").parse().unwrap_or_default();
    let other_values = (param("values") != layer.of.values.name()).then(|| {
        let (of, asked) = (IndexValues::about(&param("values")), IndexValues::about(layer.of.values.name()));
        format!("it is of {of}, the question of {asked}")
    });
    let rest = match n_rows.saturating_sub(covered) {
        0 => String::new(),
        n => format!("; {n} rows that it does not cover are looked at besides"),
    };
    let (what, unused) = match IndexKind::ALL.into_iter().find(|k| k.name() == index.kind) {
        Some(IndexKind::ByExample) => {
            let by = param("by");
            let what =
                format!("similar and top-group by {by} fetch only rows that can rank, where that is faster{rest}");
            (what, other_values)
        }
        Some(IndexKind::Hnsw) => {
            (format!("knn --approximate by {} walks its graph{rest}", param("metric")), other_values)
        }
        Some(IndexKind::Thresholds) => {
            let of = IndexValues::about(&param("values"));
            let what = format!("netdissect --alpha {} of {of} takes no pass for T_k", param("alpha"));
            let stale = (covered != n_rows).then(|| format!("it is of {covered} rows, and there are {n_rows}"));
            (what, stale)
        }
        None => (String::new(), Some("this build knows no such kind".into())),
    };
    Serving { kind: index.kind.clone(), id: Some(index.id), bytes: index.len_bytes, what, unused }
}
