//! Interpretation by example (DeepEverest, VLDB 2022): which rows activate a group of units most, and which do so most
//! like a given row. Answers are exact; an index only says which rows need not be looked at.
//!
//! Rows are looked at in the order of the least cost that the index allows them, taken over all units of the group
//! together, until the k best are below that of every other row. The source's Neural Threshold Algorithm expands the ranges
//! of each unit by itself, round by round, and stops by the same rule; a bound over all units (as in VA-files, Weber and
//! Blott 1998) can only be tighter, so that no more rows are looked at.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use mistique_engine::{
    ByExampleColumn, EngineError, IndexFile, IndexKind, IndexRecord, IndexValues, IntermediateKey, MapValue, RowMask,
};

use super::bounds::{Cost, Norm};
use super::build::{self, INDEX_SHARE};
use super::group::{Group, Layer};
use crate::answer::Source;
use crate::error::{QueryError, Result};
use crate::plan::PlanChoice;
use crate::reader::{ChunkReader, Demand};
use crate::rows::RowSelection;

/// Rows looked at first; each further batch has twice as many, up to the last of these.
const BATCH_ROWS: (usize, usize) = (16, 256);
/// By how much values that are run again may differ, as a share of the unit's largest: sums in float32 depend on how
/// many rows are run together.
const RERUN_SLACK: f64 = 1e-5;

/// Why float64 and integers have no index.
pub(super) const WIDE: &str =
    "an index holds float32, to which float64 and integers would be rounded: every row is looked at";

/// Whether a question may use an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexUse {
    /// Where it is faster; one is built where every row would have to be run again.
    #[default]
    Auto,
    /// Always; one is built where there is none.
    Always,
    /// Never.
    Never,
}

/// A question about a group of units of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct ByExample {
    key: IntermediateKey,
    units: String,
    row: Option<u64>,
    k: usize,
    by: MapValue,
    norm: Norm,
    rows: RowSelection,
    exact: bool,
    plan: PlanChoice,
    index: IndexUse,
}

impl ByExample {
    /// The `k` rows that activate `units` (`3,17`, `0..8`) most: by the sum of the units' activations under L1, by the
    /// signed root of the sum of their signed squares under L2 (the norm, where none is negative), by the highest under L∞.
    pub fn highest(key: IntermediateKey, units: impl Into<String>, k: usize) -> Self {
        let (units, by, norm, plan, index) = (units.into(), MapValue::Max, Norm::L2, PlanChoice::Auto, IndexUse::Auto);
        Self { key, units, row: None, k, by, norm, rows: RowSelection::All, exact: false, plan, index }
    }

    /// The `k` other rows whose activations of `units` are nearest to those of `row`.
    pub fn similar(key: IntermediateKey, units: impl Into<String>, row: u64, k: usize) -> Self {
        Self { row: Some(row), ..Self::highest(key, units, k) }
    }

    /// The same by another norm (default: L2).
    #[must_use]
    pub fn with_norm(mut self, norm: Norm) -> Self {
        self.norm = norm;
        self
    }

    /// The same of another activation of a unit's map (default: its maximum).
    #[must_use]
    pub fn with_by(mut self, by: MapValue) -> Self {
        self.by = by;
        self
    }

    /// The same among some rows (default: all); the row that others are compared with need not be one of them.
    #[must_use]
    pub fn with_rows(mut self, rows: RowSelection) -> Self {
        self.rows = rows;
        self
    }

    /// The same of the model's own values, never of a lossy copy (default: of what is stored, where something is).
    #[must_use]
    pub fn with_exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// The same by a given plan.
    #[must_use]
    pub fn with_plan(mut self, plan: PlanChoice) -> Self {
        self.plan = plan;
        self
    }

    /// The same with or without an index.
    #[must_use]
    pub fn with_index(mut self, index: IndexUse) -> Self {
        self.index = index;
        self
    }
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The row.
    pub row: u64,
    /// Its distance, or the group's activation.
    pub score: f64,
    /// Activations of the group's columns.
    pub values: Vec<f64>,
}

/// What an answer cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    /// The index that was used; number 0 for one that could not be kept.
    pub index: Option<i64>,
    /// Whether it was built for this question.
    pub built: bool,
    /// Rows that the question is about.
    pub n_rows: u64,
    /// Rows that could matter by the index alone.
    pub candidates: u64,
    /// Rows whose values were fetched.
    pub touched: u64,
    /// Where the values came from; `None` where none were needed.
    pub source: Option<Source>,
    /// Why an index that is there was not used, or one that was built is not kept.
    pub note: Option<String>,
}

/// An answer: the best rows, best first; ties by row_id.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// The layer, with its model's version.
    pub key: IntermediateKey,
    /// Names of the group's columns.
    pub columns: Vec<String>,
    /// The rows; fewer than k where there are fewer. Rows with a NaN never rank.
    pub examples: Vec<Example>,
    /// The activations of the row that others are compared with.
    pub of: Option<Vec<f64>>,
    /// What it cost.
    pub used: Used,
}

/// A cost that is ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ranked(f64, u64);

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        // −0 equals 0: then the row decides.
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal).then(self.1.cmp(&other.1))
    }
}

impl ChunkReader<'_> {
    /// Answers a question about a group of units.
    ///
    /// Of stored values the answer is exact as to what READ gives, of the model's own as to what RERUN gives.
    /// Errors: `NotFound`, `Columns`; `Unsupported` for tables; `NoSuchRow`; `Mismatch` when the row to compare with has a NaN;
    /// what fetching values meets. A damaged index is left aside, and the answer says so.
    pub fn by_example(&self, question: &ByExample) -> Result<Examples> {
        let layer = Layer::new(self, &question.key, question.by, question.exact, question.plan)?;
        let group = Group::new(&layer, &question.units)?;
        let among = self.among(&layer, question)?;
        let n_rows = layer.rows.iter().filter(|row| among.as_ref().is_none_or(|a| a.contains(*row))).count() as u64;
        let used = Used { index: None, built: false, n_rows, candidates: n_rows, touched: 0, source: None, note: None };
        let mut search = Search { reader: self, layer, group, among, used, best: Vec::new(), k: question.k };
        let cost = search.cost(question)?;
        let columns = search.index(question.index)?;
        search.run(&cost, question, columns)?;
        let Search { layer, group, used, best, .. } = search;
        let sign = if question.row.is_some() { 1.0 } else { -1.0 };
        let example = |(Ranked(cost, row), values)| Example { row, score: sign * cost, values };
        Ok(Examples {
            columns: group.names(&layer),
            key: layer.record.key,
            examples: best.into_iter().map(example).collect(),
            of: if let Cost::Distance(_, of) = cost { Some(of) } else { None },
            used,
        })
    }

    /// The rows that a question is about, where these are not all of the layer's.
    fn among(&self, layer: &Layer, question: &ByExample) -> Result<Option<RowMask>> {
        if question.rows == RowSelection::All {
            return Ok(None);
        }
        let model = self.store().catalog().model_by_id(layer.record.model_id)?;
        let demand = Demand { plan: question.plan, exact: question.exact };
        let mut among = RowMask::default();
        among.extend(&self.rows(&layer.record, &model, &question.rows, demand)?.rows);
        Ok(Some(among))
    }
}

struct Search<'a, 'b> {
    reader: &'a ChunkReader<'b>,
    layer: Layer,
    group: Group,
    /// The rows that the question is about; all where `None`.
    among: Option<RowMask>,
    used: Used,
    /// The best so far, in order.
    best: Vec<(Ranked, Vec<f64>)>,
    k: usize,
}

impl Search<'_, '_> {
    fn fetch(&mut self, rows: &[u64]) -> Result<Vec<f64>> {
        let (values, source) = self.layer.activations(self.reader, &self.group.selector, rows)?;
        self.touch(rows.len() as u64);
        self.used.source = Some(source);
        Ok(values)
    }

    /// Counts rows that were fetched; one that is fetched again is no further row.
    fn touch(&mut self, n: u64) {
        self.used.touched = (self.used.touched + n).min(self.used.n_rows);
    }

    fn cost(&mut self, question: &ByExample) -> Result<Cost> {
        let Some(row) = question.row else { return Ok(Cost::Activation(question.norm)) };
        if !self.layer.rows.iter().any(|r| r == row) {
            let key = self.layer.record.key.to_string();
            return Err(EngineError::NoSuchRow { key, row, n_rows: self.layer.rows.len() as u64 }.into());
        }
        let of = self.fetch(&[row])?;
        if let Some(at) = of.iter().position(|v| v.is_nan()) {
            let name = self.group.names(&self.layer).get(at).cloned().unwrap_or_default();
            return Err(QueryError::Mismatch {
                what: format!("rows similar to {row}"),
                why: format!("{name} of row {row} is NaN, which is at no distance from anything; leave that unit out"),
            });
        }
        Ok(Cost::Distance(question.norm, of))
    }

    /// The index's rows and the group's columns of it, where one is there or worth building.
    fn index(&mut self, index_use: IndexUse) -> Result<Option<(IndexFile, Vec<ByExampleColumn>)>> {
        if index_use == IndexUse::Never || self.k == 0 {
            return Ok(None);
        }
        if self.layer.is_wide {
            self.used.note = (index_use == IndexUse::Always).then(|| WIDE.into());
            return Ok(None);
        }
        let found = self.reader.store().indexes(Some(&self.layer.record))?;
        let of_others = |i: &&IndexRecord| serves_kind(i, &self.layer) && !serves(i, &self.layer);
        if let Some(other) = found.iter().rev().find(of_others) {
            let (of, asked) = (other.param("values").unwrap_or_default(), self.layer.of.values.name());
            let advice = if of == IndexValues::Exact.name() { "; it serves questions with --exact" } else { "" };
            let (of, asked) = (IndexValues::about(&of), IndexValues::about(asked));
            let why = format!("it is of {of}, the question of {asked}{advice}");
            self.used.note = Some(format!("index {} is not used: {why}", other.id));
        }
        let found = found.into_iter().rev().find(|i| serves(i, &self.layer));
        if let Some(index) = found {
            match self.columns_of(self.reader.store().open_index(&index)) {
                Ok(columns) => {
                    (self.used.index, self.used.note) = (Some(index.id), None);
                    return Ok(Some(columns));
                }
                Err(e) => {
                    self.used.note = Some(format!("index {} is not used: {e}; drop it and create it anew", index.id));
                    return Ok(None);
                }
            }
        }
        // Building takes a pass over all rows: a question about some of them takes less.
        let worth = index_use == IndexUse::Always || (self.layer.reruns && self.among.is_none());
        if !worth || !build::has_room(&self.layer, INDEX_SHARE) {
            return Ok(None);
        }
        let new = build::build(self.reader, &self.layer, INDEX_SHARE, &mut |_, _| {})?;
        self.touch(self.layer.rows.len() as u64);
        self.used.built = true;
        match build::keep(self.reader, &self.layer, &new) {
            Ok(index) => self.used.index = Some(index.id),
            Err(e) => {
                self.used.index = Some(0);
                self.used.note = Some(format!("the index built for this question is not kept: {e}"));
            }
        }
        Ok(Some(self.columns_of(new.into_file())?))
    }

    fn columns_of(
        &self,
        file: mistique_engine::Result<IndexFile>,
    ) -> mistique_engine::Result<(IndexFile, Vec<ByExampleColumn>)> {
        let file = file?;
        let columns = self.group.columns.iter().map(|c| file.by_example_column(*c)).collect::<Result<_, _>>()?;
        Ok((file, columns))
    }

    fn run(
        &mut self,
        cost: &Cost,
        question: &ByExample,
        index: Option<(IndexFile, Vec<ByExampleColumn>)>,
    ) -> Result<()> {
        let among = self.among.take();
        let wanted = |row: u64| question.row != Some(row) && among.as_ref().is_none_or(|a| a.contains(row));
        if self.k == 0 {
            self.used.candidates = 0;
            return Ok(());
        }
        let Some((file, columns)) = index else { return self.scan(cost, wanted) };
        let slack = if self.layer.reruns { RERUN_SLACK } else { 0.0 };
        let bounds = cost.bounds(&columns, slack);
        // Rows that were logged after the index was made can cost anything; rows that are gone do not count.
        let same = *file.rows() == self.layer.rows;
        let (mut covered, mut there) = (RowMask::default(), RowMask::default());
        if !same {
            covered.extend(file.rows());
            there.extend(&self.layer.rows);
        }
        let ranked = file.rows().iter().zip(&bounds);
        let ranked = ranked.filter(|(row, _)| wanted(*row) && (same || there.contains(*row)));
        let mut known: Vec<(f64, f64, u64)> =
            ranked.filter_map(|(row, b)| b.map(|(least, most)| (least, most, row))).collect();
        if !same {
            let later = self.layer.rows.iter().filter(|row| wanted(*row) && !covered.contains(*row));
            known.extend(later.map(|row| (f64::NEG_INFINITY, f64::INFINITY, row)));
        }
        // What at least k rows cannot exceed bounds what can matter at all.
        let mut most: Vec<f64> = known.iter().map(|k| k.1).collect();
        let kth = if most.len() > self.k {
            *most.select_nth_unstable_by(self.k - 1, f64::total_cmp).1
        } else {
            f64::INFINITY
        };
        known.retain(|k| k.0 <= kth);
        self.used.candidates = known.len() as u64;
        if question.index == IndexUse::Auto && !self.used.built && self.scan_is_faster(&known, &wanted)? {
            self.used.index = None;
            self.used.note =
                Some("reading the units of all rows is predicted to be faster than what the index leaves".into());
            return self.scan(cost, wanted);
        }
        let mut queue: BinaryHeap<Reverse<Ranked>> =
            known.into_iter().map(|(least, _, row)| Reverse(Ranked(least, row))).collect();
        let mut size = BATCH_ROWS.0.max(self.k);
        while let Some(batch) = self.next_batch(&mut queue, size) {
            self.look_at(cost, &batch)?;
            size = (size * 2).min(BATCH_ROWS.1.max(self.k));
        }
        Ok(())
    }

    /// The next rows that can still be among the best; `None` when there are none.
    fn next_batch(&self, queue: &mut BinaryHeap<Reverse<Ranked>>, size: usize) -> Option<Vec<u64>> {
        let kth = if self.best.len() == self.k { self.best.last().map(|b| b.0) } else { None };
        let mut batch = Vec::new();
        while batch.len() < size {
            match queue.peek() {
                Some(Reverse(next)) if kth.is_none_or(|kth| *next < kth) => batch.push(next.1),
                _ => break,
            }
            queue.pop();
        }
        // By row_id, as they lie.
        batch.sort_unstable();
        (!batch.is_empty()).then_some(batch)
    }

    fn look_at(&mut self, cost: &Cost, rows: &[u64]) -> Result<()> {
        let values = self.fetch(rows)?;
        let width = self.group.columns.len().max(1);
        for (row, values) in rows.iter().zip(values.chunks_exact(width)) {
            let ranked = Ranked(cost.of(values), *row);
            if ranked.0.is_nan() || (self.best.len() == self.k && self.best.last().is_some_and(|b| b.0 <= ranked)) {
                continue;
            }
            let at = self.best.partition_point(|b| b.0 < ranked);
            self.best.insert(at, (ranked, values.to_vec()));
            self.best.truncate(self.k);
        }
        Ok(())
    }

    fn scan(&mut self, cost: &Cost, wanted: impl Fn(u64) -> bool) -> Result<()> {
        self.used.candidates = self.used.n_rows;
        let rows: Vec<u64> = self.layer.rows.iter().filter(|r| wanted(*r)).collect();
        // Requests of at most so many values, and whole RowBlocks where these are small.
        let width = self.group.columns.len().max(1) * self.layer.layout.stored.cells();
        let batch = ((16 << 20) / width.max(1)).clamp(1024, 1 << 20);
        rows.chunks(batch).try_for_each(|some| self.look_at(cost, some))
    }

    fn scan_is_faster(&self, known: &[(f64, f64, u64)], wanted: &impl Fn(u64) -> bool) -> Result<bool> {
        let predicted = |rows: RowSelection| -> Result<Option<std::time::Duration>> {
            let explanation = self.reader.explain(&self.layer.request(&self.group.selector, rows))?;
            Ok(explanation.considered.get(explanation.chosen).and_then(|c| c.predicted))
        };
        let mut rows: Vec<u64> = known.iter().map(|k| k.2).collect();
        rows.sort_unstable();
        let all = self.layer.rows.iter().filter(|r| wanted(*r)).collect();
        Ok(match (predicted(RowSelection::List(all))?, predicted(RowSelection::List(rows))?) {
            (Some(scan), Some(some)) => scan <= some,
            _ => false,
        })
    }
}

/// Whether an index is of these values.
fn serves(index: &IndexRecord, layer: &Layer) -> bool {
    serves_kind(index, layer) && index.param("values").as_deref() == Some(layer.of.values.name())
}

/// Whether it is of the same activations, be they the stored copy's or the model's own.
fn serves_kind(index: &IndexRecord, layer: &Layer) -> bool {
    index.kind == IndexKind::ByExample.name() && index.param("by").as_deref() == Some(layer.of.by.name())
}
