//! Groups of rows, by the values of a column.

use std::collections::HashMap;

use crate::column::Column;
use crate::error::{QueryError, Result};

/// More groups than anyone looks at: a column of that many values is no grouping.
const MAX_GROUPS: usize = 1024;

/// Numbers groups as their values come by.
#[derive(Debug, Default)]
pub struct Groups {
    index: HashMap<String, usize>,
    names: Vec<String>,
}

impl Groups {
    /// The group of each row of a column; `None` for nulls.
    ///
    /// Errors: `Mismatch` when `by` has too many different values.
    pub fn of(&mut self, column: &Column, by: &str) -> Result<Vec<Option<usize>>> {
        let mut out = Vec::with_capacity(column.len());
        for row in 0..column.len() {
            let Some(name) = column.text(row) else {
                out.push(None);
                continue;
            };
            let next = self.names.len();
            let group = *self.index.entry(name).or_insert_with_key(|name| {
                self.names.push(name.clone());
                next
            });
            if group >= MAX_GROUPS {
                return Err(QueryError::Mismatch {
                    what: format!("groups by {by}"),
                    why: format!("it has more than {MAX_GROUPS} different values; name a column of classes"),
                });
            }
            out.push(Some(group));
        }
        Ok(out)
    }

    /// Groups so far.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Name of a group.
    pub fn name(&self, group: usize) -> &str {
        self.names.get(group).map_or("", String::as_str)
    }

    /// The groups by name: numbers by size, then text.
    pub fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_by(|a, b| compare_names(self.name(*a), self.name(*b)));
        order
    }
}

/// Numbers by size, before text by letters.
pub(crate) fn compare_names(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y).then(a.cmp(b)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        _ => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbered_and_sorted() {
        let mut groups = Groups::default();
        let column = Column::Int(vec![Some(10), None, Some(9), Some(10)]);
        assert_eq!(groups.of(&column, "x").unwrap(), [Some(0), None, Some(1), Some(0)]);
        let more = Column::Text(vec![Some("b".into()), Some("9".into())]);
        assert_eq!(groups.of(&more, "x").unwrap(), [Some(2), Some(1)]);
        assert_eq!(groups.sorted().into_iter().map(|g| groups.name(g)).collect::<Vec<_>>(), ["9", "10", "b"]);
        let many = Column::Int((0..2000).map(Some).collect());
        assert!(groups.of(&many, "x").is_err());
    }
}
