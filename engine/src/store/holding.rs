//! Which intermediates hold which rows.

use std::ops::Range;
use std::sync::Arc;

use super::{Store, lock};
use crate::catalog::WITHHELD;
use crate::error::Result;
use crate::model::IntermediateRecord;
use crate::rows::RowSet;

/// Ranges of row_ids that are remembered of an intermediate.
const RANGES: usize = 1 << 12;

/// Rows of sets as ranges, ascending and apart.
fn ranges_of(sets: &[Arc<RowSet>]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for set in sets {
        match &**set {
            RowSet::Range(r) => ranges.push(r.clone()),
            RowSet::List(ids) => ranges.extend(ids.iter().map(|id| *id..id + 1)),
        }
    }
    ranges.sort_unstable_by_key(|r| r.start);
    ranges.dedup_by(|next, before| {
        let joins = next.start <= before.end;
        if joins {
            before.end = before.end.max(next.end);
        }
        joins
    });
    ranges
}

/// Whether ranges, ascending and apart, hold all of the rows.
fn holds(ranges: &[Range<u64>], rows: &RowSet) -> bool {
    let one = |wanted: Range<u64>| {
        let after = ranges.partition_point(|r| r.start <= wanted.start);
        let around = after.checked_sub(1).and_then(|i| ranges.get(i));
        wanted.is_empty() || around.is_some_and(|r| wanted.end <= r.end)
    };
    match rows {
        RowSet::Range(r) => one(r.clone()),
        RowSet::List(ids) => ids.iter().all(|id| one(*id..id + 1)),
    }
}

impl Store {
    /// Of each intermediate, whether it holds the values of all of the rows; what it holds is remembered.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn holding(&self, records: &[&IntermediateRecord], rows: &RowSet) -> Result<Vec<bool>> {
        self.refresh()?;
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let known = lock(&self.known).rows.get(&record.id).map(|held| holds(held, rows));
            all.push(match known {
                Some(known) => known,
                None => {
                    let blocks = self.catalog().blocks(record, 0, u64::MAX)?.into_iter();
                    let whole = blocks.filter(|b| !b.chunks.contains(&WITHHELD)).map(|b| b.rows);
                    let held = ranges_of(&whole.collect::<Vec<_>>());
                    let answer = holds(&held, rows);
                    if held.len() <= RANGES {
                        lock(&self.known).rows.insert(record.id, held);
                    }
                    answer
                }
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_by_ranges() {
        let sets = [RowSet::Range(4..8), RowSet::List(vec![20, 3, 9]), RowSet::Range(8..9)].map(Arc::new);
        let ranges = ranges_of(&sets);
        assert_eq!(ranges, [3..10, 20..21]);
        assert!(holds(&ranges, &RowSet::Range(3..10)) && holds(&ranges, &RowSet::List(vec![20, 5])));
        assert!(!holds(&ranges, &RowSet::Range(9..11)) && !holds(&ranges, &RowSet::Range(2..4)));
        assert!(!holds(&ranges, &RowSet::List(vec![5, 19])) && holds(&ranges, &RowSet::Range(0..0)));
    }
}
