//! The confusion matrix, and the examples of one of its cells ("predicted frog, was ship").

use std::collections::{BTreeMap, BTreeSet};

use super::labels::{Class, Labelled};
use crate::error::{QueryError, Result};
use mistique_engine::nearest;

/// How predictions and labels meet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confusion {
    /// Classes that occur on either side.
    pub classes: Vec<String>,
    /// Rows by `[actual][predicted]`.
    pub counts: Vec<Vec<u64>>,
    /// Rows without a prediction or a label.
    pub n_missing: u64,
    /// Rows of the cells that were asked for, in the order of the rows: `(row_id, predicted, actual)`.
    pub examples: Vec<(u64, String, String)>,
}

impl Confusion {
    /// Rows counted.
    pub fn n_rows(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Share of the rows whose prediction is true; `None` without rows.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = self.counts.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum();
        let n = self.n_rows();
        (n > 0).then(|| right as f64 / n as f64)
    }

    /// Precision, recall and F1 of each class.
    pub fn by_class(&self) -> Vec<ClassScores> {
        let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
        (0..self.classes.len())
            .map(|c| {
                let right = self.counts.get(c).and_then(|row| row.get(c)).copied().unwrap_or_default();
                let n_actual: u64 = self.counts.get(c).into_iter().flatten().sum();
                let n_predicted: u64 = self.counts.iter().filter_map(|row| row.get(c)).sum();
                ClassScores {
                    class: self.classes.get(c).cloned().unwrap_or_default(),
                    n_actual,
                    n_predicted,
                    precision: ratio(right, n_predicted),
                    recall: ratio(right, n_actual),
                    f1: ratio(2 * right, n_actual + n_predicted),
                }
            })
            .collect()
    }
}

/// How well a class is found.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// The class.
    pub class: String,
    /// Rows that are of it.
    pub n_actual: u64,
    /// Rows that were taken for it.
    pub n_predicted: u64,
    /// Share of those predicted that are of it; `None` where none was predicted.
    pub precision: Option<f64>,
    /// Share of those of it that were predicted; `None` where there is none.
    pub recall: Option<f64>,
    /// Harmonic mean of both.
    pub f1: Option<f64>,
}

/// Counts predictions against labels; keeps the rows whose prediction and label are those asked for (any, where only one
/// is).
///
/// Errors: `Mismatch` naming the nearest classes for a class that does not occur; as [`Labelled::read`].
pub fn confusion(labelled: &mut Labelled<'_, '_>, predicted: Option<&str>, actual: Option<&str>) -> Result<Confusion> {
    let mut counts: BTreeMap<(Class, Class), u64> = BTreeMap::new();
    let mut examples = Vec::new();
    let mut n_missing = 0;
    let wanted = predicted.is_some() || actual.is_some();
    let rows = labelled.rows.clone();
    for ids in rows.chunks(labelled.block_rows()) {
        for (&row, (p, l)) in ids.iter().zip(labelled.read(ids)?) {
            let (Some(p), Some(l)) = (p, l) else {
                n_missing += 1;
                continue;
            };
            // What a class is called may be known only later: `17` and `frog` both name it.
            if wanted {
                examples.push((row, p.clone(), l.clone()));
            }
            *counts.entry((l, p)).or_default() += 1;
        }
    }
    let occurring: BTreeSet<Class> = counts.keys().flat_map(|(l, p)| [l.clone(), p.clone()]).collect();
    let mut classes: Vec<Class> = occurring.into_iter().collect();
    labelled.sort(&mut classes);
    let find = |name: Option<&str>| -> Result<Option<Class>> {
        let Some(name) = name else { return Ok(None) };
        let is = |c: &&Class| labelled.name(c) == name || matches!(c, Class::Index(i) if i.to_string() == name);
        match classes.iter().find(is) {
            Some(class) => Ok(Some(class.clone())),
            None => {
                let names: Vec<String> = classes.iter().map(|c| labelled.name(c)).collect();
                Err(QueryError::Mismatch {
                    what: format!("class {name:?}"),
                    why: format!(
                        "it does not occur; nearest: {}",
                        nearest(name, names.iter().map(String::as_str), 3).join(", ")
                    ),
                })
            }
        }
    };
    let (predicted, actual) = (find(predicted)?, find(actual)?);
    let passes = |c: &Class, wanted: &Option<Class>| wanted.as_ref().is_none_or(|w| w == c);
    let examples = examples
        .into_iter()
        .filter(|(_, p, l)| passes(p, &predicted) && passes(l, &actual))
        .map(|(row, p, l)| (row, labelled.name(&p), labelled.name(&l)))
        .collect();
    let count = |l: &Class, p: &Class| counts.get(&(l.clone(), p.clone())).copied().unwrap_or_default();
    Ok(Confusion {
        counts: classes.iter().map(|l| classes.iter().map(|p| count(l, p)).collect()).collect(),
        classes: classes.iter().map(|c| labelled.name(c)).collect(),
        n_missing,
        examples,
    })
}
