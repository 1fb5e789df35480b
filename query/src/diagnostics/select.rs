//! Value predicates: which rows pass.

use std::collections::HashSet;

use crate::answer::Source;
use crate::error::Result;
use crate::operand::Wanted;
use crate::predicate::Predicate;
use crate::reader::{ChunkReader, Demand};
use mistique_engine::IntermediateKey;

/// Rows that pass a predicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Row_ids, ascending.
    pub rows: Vec<u64>,
    /// Rows that were asked about.
    pub n_rows: u64,
    /// Rows left open by a null, or by an operand that does not have them.
    pub n_unknown: u64,
    /// Rows that an operand has and that were not asked about, by intermediate, where there are some.
    pub unshared: Vec<(IntermediateKey, u64)>,
    /// Where the compared values came from, each source once.
    pub sources: Vec<Source>,
}

/// The rows of `of` that pass; operands are relative to its model. Without `of`, the rows of the first operand.
///
/// Errors: `NotFound` with the nearest names; `Parse`; as [`ChunkReader::get`].
pub fn select(
    reader: &ChunkReader<'_>,
    predicate: &Predicate,
    of: Option<&IntermediateKey>,
    demand: impl Into<Demand>,
) -> Result<Selected> {
    let store = reader.store();
    let record = match of {
        Some(key) => store.intermediate(key)?,
        None => {
            let first = predicate.operands().first().copied().unwrap_or_default();
            let first = reader.operand(None, first, Wanted::Number)?;
            store.intermediate(&first.key.intermediate)?
        }
    };
    let ids = reader.all_rows(&record)?;
    let (passes, sources) = reader.passes(&record, &ids, predicate, demand.into())?;
    let mut others: Vec<IntermediateKey> = Vec::new();
    for text in predicate.operands() {
        // `row_id` is of every intermediate.
        let Ok(operand) = reader.operand(Some(&record), text, Wanted::Number) else { continue };
        let key = operand.key.intermediate;
        if key != record.key && !others.contains(&key) {
            others.push(key);
        }
    }
    let mut asked = None;
    let mut unshared = Vec::new();
    for key in others {
        let rows = reader.all_rows(&store.intermediate(&key)?)?;
        // Mostly they are the same.
        if rows != ids {
            let asked: &HashSet<u64> = asked.get_or_insert_with(|| ids.iter().copied().collect());
            unshared.push((key, rows.iter().filter(|row| !asked.contains(row)).count() as u64));
        }
    }
    unshared.retain(|(_, n)| *n > 0);
    let n_unknown = passes.iter().filter(|p| p.is_none()).count() as u64;
    let n_rows = ids.len() as u64;
    let rows = ids.into_iter().zip(passes).filter(|(_, p)| *p == Some(true)).map(|(id, _)| id).collect();
    Ok(Selected { rows, n_rows, n_unknown, unshared, sources })
}
