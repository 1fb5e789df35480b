//! Rows that RERUNs gave of one intermediate, until they make whole RowBlocks.

use std::collections::HashMap;

use arrow::array::UInt64Array;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;

use crate::error::{EngineError, Result};
use crate::rerun::RerunValues;

/// Values by row_id.
#[derive(Default)]
pub struct Gathered {
    parts: Vec<RerunValues>,
    /// Part and place of each row.
    at: HashMap<u64, (usize, usize)>,
    /// Rows of the parts before each one.
    starts: Vec<usize>,
    n_rows: usize,
}

impl Gathered {
    /// Adds values of rows; of those that are there already, these stand.
    pub fn add(&mut self, rows: &[u64], values: RerunValues) {
        let part = self.parts.len();
        self.at.extend(rows.iter().enumerate().map(|(i, row)| (*row, (part, i))));
        self.parts.push(values);
        self.starts.push(self.n_rows);
        self.n_rows += rows.len();
    }

    /// Whether a row is there.
    pub fn holds(&self, row: u64) -> bool {
        self.at.contains_key(&row)
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(value_bytes).sum::<usize>() + self.at.len() * size_of::<(u64, usize, usize)>()
    }

    /// The values that were added last, as they were given.
    pub fn pop(&mut self) -> Option<RerunValues> {
        self.parts.pop()
    }

    /// Values of some of the rows, in their order.
    ///
    /// Errors: `NotFound` for a row that is not there; `Arrow`.
    pub fn select(&self, rows: &[u64]) -> Result<RerunValues> {
        let lost = |row: &u64| EngineError::NotFound { what: "gathered row", name: row.to_string(), nearest: vec![] };
        let places: Vec<(usize, usize)> =
            rows.iter().map(|row| self.at.get(row).copied().ok_or_else(|| lost(row))).collect::<Result<_>>()?;
        let tables: Vec<&RecordBatch> =
            self.parts.iter().filter_map(|p| if let RerunValues::Table(b) = p { Some(b) } else { None }).collect();
        if let Some(first) = tables.first() {
            let whole = concat_batches(&first.schema(), tables.iter().copied())?;
            let start = |part: usize| self.starts.get(part).copied().unwrap_or_default();
            let index = UInt64Array::from_iter_values(places.iter().map(|(part, i)| (start(*part) + i) as u64));
            return Ok(RerunValues::Table(take_record_batch(&whole, &index)?));
        }
        let mut shape = Vec::new();
        let mut out = Vec::new();
        for (row, (part, i)) in rows.iter().zip(places) {
            let Some(RerunValues::Tensor { shape: s, values }) = self.parts.get(part) else { return Err(lost(row)) };
            let n: usize = s.iter().product();
            out.extend_from_slice(values.get(i * n..(i + 1) * n).ok_or_else(|| lost(row))?);
            shape.clone_from(s);
        }
        Ok(RerunValues::Tensor { shape, values: out })
    }
}

/// Bytes of values in memory.
pub fn value_bytes(values: &RerunValues) -> usize {
    match values {
        RerunValues::Tensor { values, .. } => size_of_val(&**values),
        RerunValues::Table(batch) => batch.get_array_memory_size(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_reruns_come_together() {
        let tensor = |values: &[f32]| RerunValues::Tensor { shape: vec![2], values: values.to_vec() };
        let mut gathered = Gathered::default();
        gathered.add(&[3, 5], tensor(&[30.0, 31.0, 50.0, 51.0]));
        gathered.add(&[4], tensor(&[40.0, 41.0]));
        assert!(gathered.holds(4) && !gathered.holds(6));
        assert_eq!(gathered.select(&[5, 4]).unwrap(), tensor(&[50.0, 51.0, 40.0, 41.0]));
        assert!(gathered.select(&[6]).is_err());
        let table = |ids: &[u64]| {
            let column: arrow::array::ArrayRef = std::sync::Arc::new(UInt64Array::from(ids.to_vec()));
            RerunValues::Table(RecordBatch::try_from_iter([("x", column)]).unwrap())
        };
        let mut gathered = Gathered::default();
        gathered.add(&[10, 11], table(&[100, 110]));
        gathered.add(&[7, 8], table(&[70, 80]));
        assert_eq!(gathered.select(&[8, 10]).unwrap(), table(&[80, 100]));
        assert!(gathered.bytes() > 0);
    }
}
