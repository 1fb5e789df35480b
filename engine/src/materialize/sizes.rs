//! S(i): the bytes of intermediates by group, as stored or as estimated; and taking values out of the store.

use std::collections::BTreeMap;

use super::mode::Materialize;
use crate::amortised::Amortised;
use crate::catalog::{WITHHELD, Withhold};
use crate::error::{EngineError, Result};
use crate::model::IntermediateRecord;
use crate::store::Store;

/// Bytes of one column group of an intermediate, all RowBlocks together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GroupSize {
    /// Bytes stored: of its chunks, and of those that they are coded against, each divided by the number of references to it.
    pub stored_bytes: f64,
    /// Bytes when all rows are stored: as they are, or in proportion to what is stored, or as estimated when logged.
    pub whole_bytes: f64,
    /// Rows that are stored.
    pub stored_rows: u64,
    /// Bytes of its chunks, each counted in full.
    pub chunk_bytes: f64,
}

impl GroupSize {
    /// Bytes of a row, were the group stored anew when what shares its chunks has left, too; of `n_rows` rows in all.
    fn row_bytes_anew(&self, n_rows: u64) -> f64 {
        match self.stored_rows {
            0 => self.whole_bytes / n_rows.max(1) as f64,
            rows => self.chunk_bytes / rows as f64,
        }
    }
}

/// Share of a scheme's codes that chunks take, where nothing was ever encoded.
const UNMEASURED_SHARE: f64 = 0.5;

impl Store {
    /// What the store materializes.
    ///
    /// Errors: `Catalog`.
    pub fn materialize(&self) -> Result<Materialize> {
        Materialize::of(&self.catalog())
    }

    /// Changes what the store materializes from now on; values that are stored stay until they are evicted.
    ///
    /// Errors: `ReadOnly`, `Catalog`.
    pub fn set_materialize(&self, mode: Materialize) -> Result<()> {
        self.check_writable()?;
        mode.keep(&self.catalog())
    }

    /// Sizes of an intermediate's groups without asking what de-duplication shares; for decisions that cannot wait.
    ///
    /// Errors: `Catalog`.
    pub fn estimated_group_bytes(&self, record: &IntermediateRecord) -> Result<Vec<f64>> {
        let row_bytes = self.catalog().group_bytes(record.id)?;
        Ok(whole_bytes(record, &row_bytes))
    }

    /// Sizes of the groups of the given intermediates.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn group_sizes(&self, records: &[IntermediateRecord]) -> Result<BTreeMap<i64, Vec<GroupSize>>> {
        let catalog = self.catalog();
        let references = catalog.chunk_references()?;
        let chunks = Amortised::new(catalog.chunks()?, references.into_iter().map(|((_, chunk), n)| (chunk, n)));
        let mut sizes = BTreeMap::new();
        for record in records {
            let estimate = whole_bytes(record, &catalog.group_bytes(record.id)?);
            let mut groups = vec![GroupSize::default(); record.content.n_groups()];
            for block in catalog.blocks(record, 0, u64::MAX)? {
                for (group, chunk) in groups.iter_mut().zip(&block.chunks).filter(|(_, c)| **c != WITHHELD) {
                    group.chunk_bytes += chunks.len(*chunk) as f64;
                    group.stored_bytes += chunks.share(*chunk);
                    group.stored_rows += block.rows.len() as u64;
                }
            }
            for (group, estimate) in groups.iter_mut().zip(estimate) {
                group.whole_bytes = match group.stored_rows {
                    0 => estimate,
                    rows => group.stored_bytes * record.n_rows as f64 / rows as f64,
                };
            }
            sizes.insert(record.id, groups);
        }
        Ok(sizes)
    }

    /// Takes the values of groups (one flag each) out of the store in one transaction, and returns their amortised bytes.
    /// Records and row_ids stay; `gc` frees the bytes.
    ///
    /// Errors: `Unsupported` for values that nothing can run again; `Locked`, `Catalog`; then all are still there.
    pub fn evict(&self, leaving: &[(IntermediateRecord, Vec<bool>)]) -> Result<f64> {
        for (record, _) in leaving {
            if !self.catalog().model_by_id(record.model_id)?.spec.kind.gives(&record.content) {
                let why = "nothing can run it again: its values would be lost; `mistique rm` removes its model".into();
                return Err(EngineError::Unsupported { what: record.key.to_string(), why });
            }
        }
        let _guard = self.writer_lock()?;
        let records: Vec<IntermediateRecord> = leaving.iter().map(|(r, _)| r.clone()).collect();
        let sizes = self.group_sizes(&records)?;
        let mut freed = 0.0;
        let mut all = Vec::with_capacity(leaving.len());
        for (record, groups) in leaving {
            let sizes = sizes.get(&record.id).map(Vec::as_slice).unwrap_or_default();
            freed += groups.iter().zip(sizes).filter(|(g, _)| **g).map(|(_, s)| s.stored_bytes).sum::<f64>();
            let group_bytes = sizes.iter().map(|s| s.row_bytes_anew(record.n_rows) as f32).collect();
            all.push(Withhold { intermediate_id: record.id, groups: groups.clone(), group_bytes });
        }
        let storage = &**self.storage();
        self.catalog().withhold(storage, &all)?;
        self.forget();
        Ok(freed)
    }
}

/// Bytes of each group for all rows, from the bytes of a row, else from the codes.
fn whole_bytes(record: &IntermediateRecord, row_bytes: &[f32]) -> Vec<f64> {
    let rows = record.n_rows as f64;
    let n_groups = record.content.n_groups();
    if row_bytes.len() == n_groups {
        return row_bytes.iter().map(|b| f64::from(*b) * rows).collect();
    }
    let group = |g: usize| match &*record.content {
        crate::model::Content::Tensor(t) => {
            let values = (t.layout.units_of_group(g).len() * t.layout.stored.cells()) as f64;
            values * f64::from(t.layout.code.bits()) / 8.0
        }
        crate::model::Content::Table(t) => {
            let width = t.schema.fields().get(g).and_then(|f| f.data_type().primitive_width());
            width.unwrap_or(16) as f64
        }
    };
    (0..n_groups).map(|g| group(g) * rows * UNMEASURED_SHARE).collect()
}
