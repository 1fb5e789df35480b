//! Generated workloads.

use crate::{Content, EngineError, IntermediateRecord, Store};

use super::{Category, WorkloadQuery};

/// Rows of a query of few.
const FEW_ROWS: u64 = 10;
/// Columns of a query of few, at most.
const FEW_COLUMNS: usize = 4;

/// The generator of Steele, Lea and Flood (SplitMix64): the same workload for a seed everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * n.max(1) as u128) >> 64) as usize
    }
}

/// `n` queries over what a store holds, drawn with repetition from two fifths as many different ones, whose categories
/// follow `mix` in turn (5.8.5). Later stages of a model are asked for more often than earlier ones, in proportion to the
/// square of their place: what is asked of a model is mostly what it says.
///
/// Errors: `NotFound` in an empty store; `Catalog`.
pub fn generate(store: &Store, n: usize, seed: u64, mix: &[Category]) -> Result<Vec<WorkloadQuery>, EngineError> {
    let mut random = SplitMix(seed);
    let mut weighted: Vec<(IntermediateRecord, usize)> = Vec::new();
    for model in store.models()? {
        let stages = store.intermediates(&model)?.into_iter().filter(|r| r.n_rows > 0).enumerate();
        weighted.extend(stages.map(|(place, record)| (record, (place + 1) * (place + 1))));
    }
    let total: usize = weighted.iter().map(|(_, weight)| weight).sum();
    if total == 0 || mix.is_empty() {
        let name = store.storage().describe();
        return Err(EngineError::NotFound { what: "intermediate with rows in", name, nearest: vec![] });
    }
    let distinct = (n * 2).div_ceil(5).max(1);
    let mut pool = Vec::with_capacity(distinct);
    for i in 0..distinct {
        let mut at = random.below(total);
        let chosen = weighted.iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        let (Some((record, _)), Some(category)) = (chosen, mix.get(i % mix.len())) else { continue };
        pool.push(query(record, *category, &mut random));
    }
    Ok((0..n).filter_map(|_| pool.get(random.below(pool.len())).cloned()).collect())
}

fn query(record: &IntermediateRecord, category: Category, random: &mut SplitMix) -> WorkloadQuery {
    let (many_columns, many_rows) = category.many();
    let columns = match &*record.content {
        _ if many_columns => None,
        Content::Tensor(t) => {
            let n = t.layout.n_units;
            let some = 1 + random.below(FEW_COLUMNS.min(n));
            let first = random.below(n - some + 1);
            Some(if some == 1 { format!("u{first}") } else { format!("u{first}..{}", first + some) })
        }
        Content::Table(t) => {
            let names: Vec<&str> = t.schema.fields().iter().map(|f| f.name().as_str()).collect();
            let chosen = names.get(random.below(names.len())).copied().unwrap_or_default();
            Some(format!("\"{}\"", chosen.replace('"', "\"\"")))
        }
    };
    let few = FEW_ROWS.min(record.n_rows);
    let first = random.below((record.n_rows - few + 1) as usize) as u64;
    let rows = (!many_rows).then(|| format!("{first}..{}", first + few));
    let key = columns.map_or_else(|| record.key.to_string(), |columns| format!("{}.{columns}", record.key));
    WorkloadQuery { category: Some(category), keys: vec![key], rows, filter: None, exact: false }
}
