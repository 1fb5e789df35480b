//! Predictions beside labels: which class was predicted for each row, and which was true.

use std::collections::BTreeMap;

use mistique_engine::{Content, RowSet};

use super::groups::compare_names;
use crate::column::Column;
use crate::error::{QueryError, Result};
use crate::operand::{OperandScan, Wanted, bad_operand};
use crate::reader::{ChunkReader, Demand};
use crate::scan;

/// A class: its number, or its text where that is all there is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Its number.
    Index(i128),
    /// Its text.
    Text(String),
}

/// Predictions and labels over the rows that both have.
pub struct Labelled<'r, 'a> {
    /// What was predicted: a class a row.
    pub predicted: OperandScan<'r, 'a>,
    /// What was true.
    pub label: OperandScan<'r, 'a>,
    /// What the label's numbers are called.
    named: Option<OperandScan<'r, 'a>>,
    names: BTreeMap<i128, String>,
    /// Above which a score predicts class 1, else 0.
    threshold: Option<f64>,
    /// Rows that both have.
    pub rows: Vec<u64>,
    /// Rows of predictions, and of labels, that the other lacks.
    pub unshared: [u64; 2],
}

impl<'r, 'a> Labelled<'r, 'a> {
    /// Opens predictions, and labels named relative to the predictions' model. A tensor of several columns predicts its
    /// largest column; a table of labels that is named whole gives numbers and names.
    ///
    /// Errors: `NotFound` with the nearest names; as [`ChunkReader::scan`].
    pub fn open(
        reader: &'r ChunkReader<'a>,
        predicted: OperandScan<'r, 'a>,
        label: &str,
        demand: impl Into<Demand>,
    ) -> Result<Self> {
        let demand = demand.into();
        let near = reader.store().intermediate(predicted.scan().key())?;
        let numbers = reader.operand(Some(&near), label, Wanted::Number)?;
        let texts = reader.operand(Some(&near), label, Wanted::Text)?;
        let whole_table = texts != numbers
            && matches!(&*reader.store().intermediate(&numbers.key.intermediate)?.content, Content::Table(_));
        let named = whole_table.then(|| reader.operand_scan(&texts, demand)).transpose()?;
        let label = reader.operand_scan(&numbers, demand)?;
        let (rows, unshared) = scan::shared(&[predicted.rows(), label.rows()]);
        let unshared = [unshared.first().copied().unwrap_or_default(), unshared.get(1).copied().unwrap_or_default()];
        Ok(Self { predicted, label, named, names: BTreeMap::new(), threshold: None, rows, unshared })
    }

    /// Only the rows of a selection.
    #[must_use]
    pub fn among(mut self, rows: &RowSet) -> Self {
        self.rows = scan::shared(&[&RowSet::from_ids(&self.rows), rows]).0;
        self
    }

    /// The same where predictions are scores: class 1 from `threshold` on, 0 below, none for NaN.
    ///
    /// Errors: `Mismatch` where they are classes already, the largest of several columns.
    pub fn with_threshold(mut self, threshold: Option<f64>) -> Result<Self> {
        if threshold.is_some() && self.predicted.scan().columns().len() > 1 {
            return Err(QueryError::Mismatch {
                what: self.predicted.name().to_string(),
                why: "a threshold is of one column of scores; of several, the largest is predicted".into(),
            });
        }
        self.threshold = threshold;
        Ok(self)
    }

    /// Rows that are read at a time.
    pub fn block_rows(&self) -> usize {
        self.predicted.scan().block_rows().min(self.label.scan().block_rows())
    }

    /// The classes of some rows, and what they are called is remembered.
    ///
    /// Errors: `Mismatch` where one side has numbers and the other text; as [`crate::Scan::read`].
    pub fn read(&mut self, rows: &[u64]) -> Result<Vec<(Option<Class>, Option<Class>)>> {
        let mut labels = self.label.read(rows)?;
        let mut predicted = self.predicted.read(rows)?;
        if let Some(threshold) = self.threshold {
            let scores = predicted.to_f64(self.predicted.name())?;
            let class = |v: f64| (!v.is_nan()).then_some(i128::from(v >= threshold));
            predicted = Column::Int(scores.into_iter().map(class).collect());
        }
        if let Some(named) = &self.named {
            let texts = named.read(rows)?;
            if matches!(predicted, Column::Text(_)) {
                labels = texts;
            } else if let (Column::Int(numbers), Column::Text(texts)) = (&labels, texts) {
                for (number, text) in numbers.iter().zip(texts) {
                    if let (Some(number), Some(text)) = (number, text) {
                        self.names.entry(*number).or_insert(text);
                    }
                }
            }
        }
        let (p, l) = (classes(&predicted, self.predicted.name())?, classes(&labels, self.label.name())?);
        let kinds = |v: &[Option<Class>], text: bool| v.iter().flatten().any(|c| matches!(c, Class::Text(_)) == text);
        if (kinds(&p, true) && kinds(&l, false)) || (kinds(&p, false) && kinds(&l, true)) {
            return Err(QueryError::Mismatch {
                what: format!("{} and {}", self.predicted.name(), self.label.name()),
                why: "one holds numbers of classes and the other text; name a column of the same kind".into(),
            });
        }
        Ok(p.into_iter().zip(l).collect())
    }

    /// What a class is called, as far as labels were read.
    pub fn name(&self, class: &Class) -> String {
        match class {
            Class::Index(i) => self.names.get(i).cloned().unwrap_or_else(|| i.to_string()),
            Class::Text(t) => t.clone(),
        }
    }

    /// Classes in the order in which they are shown.
    pub fn sort(&self, classes: &mut [Class]) {
        classes.sort_by(|a, b| match (a, b) {
            (Class::Index(a), Class::Index(b)) => a.cmp(b),
            _ => compare_names(&self.name(a), &self.name(b)),
        });
    }
}

/// Classes of a column: whole numbers or text.
pub(crate) fn classes(column: &Column, operand: &str) -> Result<Vec<Option<Class>>> {
    Ok(match column {
        Column::Int(v) | Column::Time(v, _) => v.iter().map(|v| v.map(Class::Index)).collect(),
        Column::Text(v) => v.iter().map(|v| v.clone().map(Class::Text)).collect(),
        Column::Float(v) => v
            .iter()
            .map(|v| match v {
                None => Ok(None),
                Some(v) if v.is_nan() => Ok(None),
                Some(v) if v.fract() == 0.0 && v.abs() < 1e15 => Ok(Some(Class::Index(*v as i128))),
                Some(v) => {
                    let why = format!("{v} is no class; name a column of whole numbers or text, or say from which score on class 1 is predicted (--threshold)");
                    Err(bad_operand(operand, &why))
                }
            })
            .collect::<Result<_>>()?,
    })
}

impl<'a> ChunkReader<'a> {
    /// Opens an operand that predicts a class: a tensor of several columns predicts the largest.
    ///
    /// Errors: as [`ChunkReader::operand_scan`].
    pub fn prediction<'r>(&'r self, text: &str, demand: impl Into<Demand>) -> Result<OperandScan<'r, 'a>> {
        let operand = self.operand(None, text, Wanted::Number)?;
        self.operand_by(&operand.argmax_of_many(self)?, demand.into())
    }
}
