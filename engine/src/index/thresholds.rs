//! The thresholds index: T_k of NetDissect by unit, so that a layer's cells are ranked once for each α.

use super::{IndexFile, IndexKind, IndexValues, NewIndex};
use crate::error::{EngineError, Result};
use crate::rows::RowSet;

/// The index of `values`, T_k by unit of the layer at `alpha`, over `rows`, ascending; NaN where a unit's is not known.
/// `of` says of which values.
pub fn thresholds_index(rows: RowSet, alpha: f64, of: IndexValues, values: &[f64]) -> NewIndex {
    NewIndex {
        kind: IndexKind::Thresholds,
        params: serde_json::json!({"alpha": alpha, "values": of.name(), "rows": rows.len()}).to_string(),
        rows,
        sections: vec![values.iter().flat_map(|v| v.to_le_bytes()).collect()],
    }
}

impl IndexFile {
    /// T_k by unit of a thresholds index, checked; NaN where it is not known.
    ///
    /// Errors: `Corrupt`.
    pub fn thresholds(&self) -> Result<Vec<f64>> {
        let bytes = self.bytes(0)?;
        match (bytes.as_chunks::<8>(), self.n_sections()) {
            ((values, []), 1) => Ok(values.iter().map(|v| f64::from_le_bytes(*v)).collect()),
            _ => Err(EngineError::corrupt(self.path(), 0, "its thresholds are not one number a unit")),
        }
    }
}
