//! Reductions over all columns of a row that an operand can name in place of a column.

use crate::codes::CodeScan;
use crate::error::{QueryError, Result};

/// A reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The first of the columns with the largest value.
    Argmax,
    Max,
    Min,
    Mean,
    /// The root of the sum of squares.
    Norm,
}

impl Reduction {
    pub const ALL: [Self; 5] = [Self::Argmax, Self::Max, Self::Min, Self::Mean, Self::Norm];

    pub fn name(self) -> &'static str {
        match self {
            Self::Argmax => "argmax",
            Self::Max => "max",
            Self::Min => "min",
            Self::Mean => "mean",
            Self::Norm => "norm",
        }
    }

    /// One number of a row; NaN for an empty row. Ties of `argmax` go to the first.
    pub fn of(self, row: &[f64]) -> f64 {
        let mut seen = Seen::new(self);
        row.iter().enumerate().for_each(|(column, v)| seen.see(column, *v));
        seen.value()
    }

    /// The number of each row of a scan, by position, on its codes; `None` where these come in another order than the
    /// columns, and a sum would round otherwise.
    pub fn of_codes(self, codes: &CodeScan<'_>) -> Result<Option<Vec<f64>>> {
        let runs = codes.runs();
        let ascend = runs.is_sorted_by_key(|run| (run.unit.group, run.unit.unit, run.unit.cells.start));
        if !ascend && matches!(self, Self::Mean | Self::Norm) {
            return Ok(None);
        }
        let mut seen = vec![Seen::new(self); codes.n_rows()];
        let pages = codes.pages()?;
        let pages: Vec<_> = pages.iter().collect();
        let mut map = Vec::new();
        codes.store().visit_pages(
            &pages,
            |_| true,
            |page, bytes| {
                for run in runs.iter().filter(|run| run.unit.group == page.group) {
                    for rows in &page.rows {
                        for i in 0..rows.len {
                            let values = codes.map(page, bytes, rows.row + i, &run.unit, &mut map)?;
                            let Some(seen) = seen.get_mut(rows.position + i) else { continue };
                            for (column, v) in (run.column..).zip(values) {
                                seen.see(column, f64::from(*v));
                            }
                        }
                    }
                }
                Ok::<(), QueryError>(())
            },
        )?;
        Ok(Some(seen.into_iter().map(Seen::value).collect()))
    }
}

/// What is known of a row after some of its values.
#[derive(Clone, Copy)]
struct Seen {
    reduction: Reduction,
    /// The best column and its value, or the number of values and their sum.
    column: usize,
    value: f64,
}

impl Seen {
    fn new(reduction: Reduction) -> Self {
        let value = match reduction {
            Reduction::Mean | Reduction::Norm => 0.0,
            _ => f64::NAN,
        };
        Self { reduction, column: 0, value }
    }

    /// A further value, in any order of columns.
    fn see(&mut self, column: usize, v: f64) {
        match self.reduction {
            Reduction::Mean => (self.column, self.value) = (self.column + 1, self.value + v),
            Reduction::Norm => (self.column, self.value) = (self.column + 1, self.value + v * v),
            Reduction::Min => self.keep(column, v, v < self.value),
            Reduction::Argmax | Reduction::Max => self.keep(column, v, v > self.value),
        }
    }

    fn keep(&mut self, column: usize, v: f64, better: bool) {
        let first = self.value.is_nan() && !v.is_nan();
        if better || first || (v == self.value && column < self.column) {
            (self.column, self.value) = (column, v);
        }
    }

    fn value(self) -> f64 {
        match self.reduction {
            Reduction::Argmax if self.value.is_nan() => f64::NAN,
            Reduction::Argmax => self.column as f64,
            Reduction::Max | Reduction::Min => self.value,
            Reduction::Mean => self.value / self.column as f64,
            // The norm of nothing is not 0 but unknown, as its mean is.
            Reduction::Norm if self.column == 0 => f64::NAN,
            Reduction::Norm => self.value.sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let row = [f64::NAN, 2.0, -1.0, 2.0];
        let of = |row: &[f64]| Reduction::ALL.map(|r| r.of(row));
        assert_eq!(of(&row)[..3], [1.0, 2.0, -1.0]);
        assert!(of(&row)[3].is_nan() && of(&row)[4].is_nan());
        assert_eq!(of(&[3.0, -4.0]), [0.0, 3.0, -4.0, -0.5, 5.0]);
        assert!(of(&[]).iter().all(|v| v.is_nan()));
        assert!(of(&[f64::NAN]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn the_first_of_equals_wins_in_any_order() {
        let mut seen = Seen::new(Reduction::Argmax);
        [(5, 1.0), (2, f64::NAN), (3, 1.0), (4, 0.5)].into_iter().for_each(|(column, v)| seen.see(column, v));
        assert_eq!(seen.value(), 3.0);
    }
}
