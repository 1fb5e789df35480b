//! One stored column as codes: two of them are compared without a copy of their values.

use mistique_engine::{Code, EngineError};

use crate::codes::CodeScan;
use crate::error::{QueryError, Result};
use crate::predicate::Comparison;

/// Codes of one column, one a row.
pub(crate) struct CodeColumn {
    key: String,
    codes: Vec<u8>,
    /// Bytes of a code.
    width: usize,
    values: Values,
}

/// What a code stands for.
enum Values {
    /// The values by code.
    Table(Vec<f32>),
    /// Itself.
    Floats(Code),
}

impl CodeColumn {
    /// The codes of a scan's rows, in their order; `None` where it has several columns.
    ///
    /// Errors: `Corrupt`, `Io`.
    pub fn of(scan: &CodeScan<'_>) -> Result<Option<Self>> {
        let [unit] = scan.units() else { return Ok(None) };
        if unit.cells.len() != 1 {
            return Ok(None);
        }
        let width = scan.code().width();
        let mut codes = vec![0; scan.n_rows() * width];
        let pages = scan.pages()?;
        let pages: Vec<_> = pages.iter().collect();
        scan.store().visit_pages(
            &pages,
            |_| true,
            |page, bytes| {
                for rows in &page.rows {
                    for i in 0..rows.len {
                        let code = scan.codes(page, bytes, rows.row + i, unit);
                        let at = (rows.position + i) * width;
                        match codes.get_mut(at..at + width) {
                            Some(slot) if slot.len() == code.len() => slot.copy_from_slice(code),
                            _ => {
                                let why = "a page has fewer codes than rows".to_string();
                                return Err(EngineError::Corrupt { path: scan.key(), offset: 0, why }.into());
                            }
                        }
                    }
                }
                Ok::<(), QueryError>(())
            },
        )?;
        let values = match scan.code_values(unit) {
            Some(values) => Values::Table(values.to_vec()),
            None => Values::Floats(scan.code()),
        };
        Ok(Some(Self { key: scan.key(), codes, width, values }))
    }

    fn value(&self, code: &[u8]) -> Result<f32> {
        match &self.values {
            Values::Table(values) => {
                let code = code.first().map_or(0, |c| usize::from(*c));
                Ok(values.get(code).or(values.last()).copied().unwrap_or_default())
            }
            Values::Floats(kind) => {
                let mut value = [0.0];
                mistique_quantize::to_f32(*kind, code, &mut value)
                    .map_err(|source| EngineError::Quantize { key: self.key.clone(), source })?;
                Ok(value[0])
            }
        }
    }

    /// How the value of each row stands to the other column's of the same row.
    ///
    /// Errors: `Quantize`.
    pub fn compare(&self, op: Comparison, other: &Self) -> Result<Vec<Option<bool>>> {
        let (a, b) = (self.codes.chunks_exact(self.width), other.codes.chunks_exact(other.width));
        a.zip(b).map(|(a, b)| Ok(Some(op.holds(self.value(a)?.partial_cmp(&other.value(b)?))))).collect()
    }
}
