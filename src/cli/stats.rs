//! `mistique stats`: what is stored, and what was saved how.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::Result;
use super::output::{Rows, bytes, count, damage_json, damage_note, float, object, pretty, times};
use crate::engine_types::{IntermediateStats, Saved};
use crate::{Damage, EngineError, IntermediateKey, Store};

/// Of what savings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Projects.
    Project,
    /// Models, each version for itself.
    Model,
    /// Intermediates.
    Intermediate,
}

impl Level {
    fn title(self) -> &'static str {
        match self {
            Self::Project => "by_project",
            Self::Model => "by_model",
            Self::Intermediate => "by_intermediate",
        }
    }

    fn name(self, stats: &IntermediateStats) -> String {
        let key = &stats.record.key;
        match self {
            Self::Project => key.model.project.clone(),
            Self::Model => key.model.to_string(),
            Self::Intermediate => key.to_string(),
        }
    }
}

fn saved_json(saved: &Saved) -> Value {
    json!({"exact_bytes": saved.exact, "linked_bytes": saved.linked, "similar_bytes": saved.similar})
}

/// Bytes that were not stored, for any reason.
fn saved_bytes(saved: &Saved) -> u64 {
    saved.exact + saved.linked + saved.similar
}

/// What the columns of both tables mean, where intermediates share what is stored.
const SHARED: &str = "stored: of what several share, each has its part; saved: what each did not add when it was logged, so that the \
                      first of equal ones saved nothing\n";

/// Intermediates of one scheme, or of all.
#[derive(Default)]
struct Total {
    n: u64,
    logical: u64,
    stored: f64,
    saved: Saved,
    error: crate::UnitError,
}

impl Total {
    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.logical += other.logical;
        self.stored += other.stored;
        self.saved += other.saved;
        self.error.merge(&other.error);
    }

    fn push(&self, name: &str, rows: &mut Rows) {
        let relative = self.error.relative();
        let cells = vec![
            name.to_string(),
            count(self.n),
            bytes(self.logical),
            bytes(self.stored.round() as u64),
            times(self.logical as f64, self.stored),
            bytes(saved_bytes(&self.saved)),
            if self.error.n == 0 { "exact".into() } else { float(relative) },
        ];
        let json = json!({
            "scheme": name, "intermediates": self.n, "logical_bytes": self.logical, "stored_bytes": self.stored,
            "saved": saved_json(&self.saved), "relative_error": relative,
        });
        rows.push(cells, json);
    }
}

/// What each kind of de-duplication saved, in the order of logging.
fn savings(chosen: &[&IntermediateStats], by: Level) -> Rows {
    let mut groups: Vec<(String, u64, f64, Saved)> = Vec::new();
    for s in chosen {
        let name = by.name(s);
        let group = match groups.iter_mut().find(|g| g.0 == name) {
            Some(group) => group,
            None => {
                groups.push((name, 0, 0.0, Saved::default()));
                let Some(group) = groups.last_mut() else { continue };
                group
            }
        };
        group.1 += s.logical_bytes;
        group.2 += s.stored_bytes;
        group.3 += s.saved;
    }
    let mut rows = Rows::new(&["key", ">logged", ">stored (its share)", ">saved: equal", ">linked", ">similar"]);
    for (name, logical, stored, saved) in groups {
        let share = stored.round() as u64;
        let of_saved = [saved.exact, saved.linked, saved.similar].map(bytes);
        let cells = [name.clone(), bytes(logical), bytes(share)].into_iter().chain(of_saved).collect();
        let json = json!({
            "key": name, "logical_bytes": logical, "stored_bytes": stored, "saved": saved_json(&saved),
        });
        rows.push(cells, json);
    }
    rows
}

/// The intermediates of a project, a model with all its versions, or one intermediate: without a version, of the model that
/// `show` and `get` take.
fn of_key<'a>(store: &Store, all: &'a [IntermediateStats], key: &str) -> Result<Vec<&'a IntermediateStats>> {
    let wanted = |s: &&IntermediateStats| {
        let own = s.record.key.to_string();
        own == key || own.starts_with(&format!("{key}.")) || own.starts_with(&format!("{key}@"))
    };
    let chosen: Vec<&IntermediateStats> = all.iter().filter(wanted).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    if let Some(found) = key.parse().ok().and_then(|k: IntermediateKey| store.intermediate(&k).ok()) {
        return Ok(all.iter().filter(|s| s.record.id == found.id).collect());
    }
    let keys: Vec<String> = all.iter().map(|s| s.record.key.to_string()).collect();
    let nearest = crate::engine_types::nearest(key, keys.iter().map(String::as_str), 3);
    Err(EngineError::NotFound { what: "model or intermediate", name: key.to_string(), nearest }.into())
}

pub fn run(store: &Store, key: Option<&str>, by: Level, as_json: bool) -> Result<String> {
    let mut stats = store.stats()?;
    let chosen = match key {
        Some(key) => of_key(store, &stats.intermediates, key)?,
        None => stats.intermediates.iter().collect(),
    };
    let mut schemes: BTreeMap<String, Total> = BTreeMap::new();
    let mut all = Total::default();
    for s in &chosen {
        let (logical, stored, saved) = (s.logical_bytes, s.stored_bytes, s.saved);
        let mut own = Total { n: 1, logical, stored, saved, error: crate::UnitError::default() };
        match store.catalog().errors(s.record.id) {
            Ok(errors) => errors.iter().flat_map(|e| &e.units).for_each(|u| own.error.merge(u)),
            Err(e) => {
                let (key, why) = (s.record.key.to_string(), e.to_string());
                stats.damage.push(Damage { place: "catalog.db".into(), why, keys: vec![key] });
            }
        }
        schemes.entry(s.record.content.scheme_text()).or_default().add(&own);
        all.add(&own);
    }
    damage_note(&stats.damage);
    let mut rows = Rows::new(&[
        "scheme",
        ">intermediates",
        ">logged",
        ">stored",
        ">smaller",
        ">saved by dedup",
        ">relative error",
    ]);
    for (name, total) in &schemes {
        total.push(name, &mut rows);
    }
    all.push("all", &mut rows);
    let is_shared = chosen.iter().any(|s| s.stored_bytes.round() < s.chunk_bytes as f64) || saved_bytes(&all.saved) > 0;
    let note = if is_shared { SHARED } else { "" };
    let of_all = if key.is_some() { "the whole store: " } else { "" };
    let savings = savings(&chosen, by);
    let (pool, answers) = (store.lifetime_pool_stats()?, store.lifetime_answers()?);
    if as_json {
        return Ok(pretty(&object([
            ("by_scheme", rows.json()),
            (by.title(), savings.json()),
            ("saved", saved_json(&stats.saved)),
            ("chunks_coded_against_others", json!(stats.n_similar)),
            ("chunks", json!(stats.n_chunks)),
            ("partition_bytes", json!(stats.partition_bytes)),
            ("operator_bytes", json!(stats.operator_bytes)),
            ("index_bytes", json!(stats.index_bytes)),
            ("garbage_bytes", json!(stats.garbage_bytes)),
            ("dedup_saved_bytes", json!(stats.dedup_saved_bytes)),
            ("pool_hits", json!(pool.0)),
            ("pool_misses", json!(pool.1)),
            ("answer_hits", json!(answers.0)),
            ("answer_misses", json!(answers.1)),
            ("damage", damage_json(&stats.damage)),
        ])));
    }
    Ok(rows.table()
        + "\n"
        + &savings.table()
        + note
        + &format!(
            "{of_all}{} distinct chunks, {} of them coded against others, in {} of partitions, {} of operators, {} of indexes, {} of garbage (`mistique gc`)\nInMemoryStore: {} hits, {} misses; answers held for repeats: {} hits, {} misses\n",
            count(stats.n_chunks),
            count(stats.n_similar),
            bytes(stats.partition_bytes),
            bytes(stats.operator_bytes),
            bytes(stats.index_bytes),
            bytes(stats.garbage_bytes),
            count(pool.0),
            count(pool.1),
            count(answers.0),
            count(answers.1),
        ))
}
