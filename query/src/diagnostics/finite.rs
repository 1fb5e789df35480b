//! Values that are not finite, counted before a measure refuses them.

use crate::error::{QueryError, Result};

/// Counts what is not finite, column by column.
pub(super) struct Finite {
    width: usize,
    counts: Option<Vec<u64>>,
}

impl Finite {
    /// Counts in rows of `width` columns.
    pub fn new(width: usize) -> Self {
        Self { width: width.max(1), counts: None }
    }

    /// Counts whole rows. Returns whether everything seen so far is finite.
    pub fn see<T: Copy + Into<f64>>(&mut self, values: &[T]) -> bool {
        // Without a branch for every value.
        let all = |some: &[T]| some.iter().fold(true, |all, v| all & (*v).into().is_finite());
        if !values.chunks(4096).all(all) {
            let counts = self.counts.get_or_insert_with(|| vec![0; self.width]);
            for row in values.chunks_exact(self.width) {
                for (count, v) in counts.iter_mut().zip(row) {
                    *count += u64::from(!(*v).into().is_finite());
                }
            }
        }
        self.all()
    }

    /// Whether everything seen so far is finite.
    pub fn all(&self) -> bool {
        self.counts.is_none()
    }

    /// Errors: `NotFinite` naming the first column; `name` gives the key and a column's name.
    pub fn verdict(&self, name: impl Fn(usize) -> (String, String)) -> Result<()> {
        let Some(counts) = &self.counts else { return Ok(()) };
        let bad = counts.iter().filter(|c| **c > 0).count();
        let Some((column, count)) = counts.iter().enumerate().find(|(_, c)| **c > 0) else { return Ok(()) };
        let (key, column) = name(column);
        Err(QueryError::NotFinite { key, column, count: *count, others: bad.saturating_sub(1) })
    }
}
