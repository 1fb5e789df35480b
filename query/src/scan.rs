//! Values a row range at a time: what diagnostics over many rows read through, so that their memory is bounded by their
//! answers and not by the intermediate.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mistique_engine::{Code, Content, IntermediateKey, IntermediateRecord, Key, ModelKind, RowMask, RowSet, Rows};

use crate::answer::{Answer, Data, Source};
use crate::codes::CodeScan;
use crate::columns::{self, Columns};
use crate::error::Result;
use crate::plan::{self, Explanation, PlanChoice, Resolved};
use crate::reader::{self, ChunkReader, Request};
use crate::rows::RowSelection;

/// Bytes of values, as f32, that a block holds at most, where a page is not larger.
const BLOCK_BYTES: usize = 16 << 20;
/// Bytes of values, as f32, up to which a scan that runs a model holds what it gave: some diagnostics pass over their rows
/// several times.
const RUN_BYTES: usize = 64 << 20;

/// The columns of a scan that belong to one unit, or one column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its selector: `u35`, `u35[4,7]`, or a column's name.
    pub name: String,
    /// Its columns among the scan's.
    pub columns: Range<usize>,
}

/// Rows of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Row_ids.
    pub rows: Vec<u64>,
    /// Columns.
    pub width: usize,
    /// rows × columns, row-major.
    pub data: Data,
}

impl Block {
    /// The values as f64, rows × columns; nulls are NaN.
    ///
    /// Errors: `Unsupported` for text columns.
    pub fn into_f64(self) -> Result<Vec<f64>> {
        match self.data {
            Data::F32(values) => Ok(values.into_iter().map(f64::from).collect()),
            Data::F64(values) => Ok(values),
            Data::Table(batch) => crate::answer::table_f64(&batch),
        }
    }

    /// The values as f32, rows × columns; nulls are NaN, float64 is rounded.
    ///
    /// Errors: `Unsupported` for text columns.
    pub fn into_f32(self) -> Result<Vec<f32>> {
        match self.data {
            Data::F32(values) => Ok(values),
            Data::F64(values) => Ok(values.into_iter().map(|v| v as f32).collect()),
            Data::Table(batch) => Ok(crate::answer::table_f64(&batch)?.into_iter().map(|v| v as f32).collect()),
        }
    }
}

/// A request whose rows are read a range at a time, all by the plan that is cheapest for the whole.
pub struct Scan<'r, 'a> {
    pub(crate) reader: &'r ChunkReader<'a>,
    pub(crate) resolved: Resolved,
    explanation: Explanation,
    columns: Vec<String>,
    /// Blocks that a run gave, by their first row.
    ran: Mutex<HashMap<u64, Block>>,
}

impl<'a> ChunkReader<'a> {
    /// Looks a request up and plans it; nothing is read yet. It counts as one query.
    ///
    /// Errors: as [`ChunkReader::get`].
    pub fn scan<'r>(&'r self, request: &Request) -> Result<Scan<'r, 'a>> {
        self.scan_resolved(self.resolve(request, None)?)
    }

    /// As [`ChunkReader::scan`], for what computes with numbers: of a table that is named whole, its columns of text are
    /// left out where it has others.
    ///
    /// Errors: as there.
    pub fn scan_numbers<'r>(&'r self, request: &Request) -> Result<Scan<'r, 'a>> {
        self.scan_resolved(self.resolve_numbers(request, None)?)
    }

    /// The shape of a row that [`ChunkReader::scan_numbers`] gives; nothing is planned.
    ///
    /// Errors: `NotFound`, `Columns`.
    pub fn row_shape(&self, request: &Request) -> Result<Vec<usize>> {
        let resolved = self.resolve_numbers(request, Some(&RowSet::Range(0..0)))?;
        Ok(reader::names_and_shape(&resolved).1)
    }

    fn resolve_numbers(&self, request: &Request, rows: Option<&RowSet>) -> Result<Resolved> {
        let mut resolved = self.resolve(request, rows)?;
        let texts = columns::texts(&resolved.record, &request.key);
        if let Columns::Table(columns) = &mut resolved.columns
            && texts.len() < columns.len()
        {
            columns.retain(|c| !texts.contains(c));
        }
        Ok(resolved)
    }

    /// Columns of text that [`ChunkReader::scan_numbers`] leaves out of a key.
    ///
    /// Errors: `NotFound`.
    pub fn left_out(&self, key: &Key) -> Result<Vec<String>> {
        let record = self.store().intermediate(&key.intermediate)?;
        let Content::Table(table) = &*record.content else { return Ok(Vec::new()) };
        let texts = columns::texts(&record, key);
        let fields = table.schema.fields();
        let some = if texts.len() < fields.len() { &texts[..] } else { &[] };
        Ok(some.iter().filter_map(|i| fields.get(*i)).map(|f| f.name().clone()).collect())
    }

    fn scan_resolved<'r>(&'r self, resolved: Resolved) -> Result<Scan<'r, 'a>> {
        let batch = std::slice::from_ref(&resolved);
        let explanation =
            plan::explain(&self.context(false), batch)?.pop().ok_or_else(|| reader::no_plan(&resolved))?;
        self.count(&resolved.record, &resolved.columns);
        self.repeats().count(&resolved);
        let (columns, _) = reader::names_and_shape(&resolved);
        Ok(Scan { reader: self, resolved, explanation, columns, ran: Mutex::default() })
    }
}

impl Scan<'_, '_> {
    /// The intermediate, with its model's version.
    pub fn key(&self) -> &IntermediateKey {
        &self.resolved.record.key
    }

    /// Row_ids, in the order asked for.
    pub fn rows(&self) -> &RowSet {
        &self.resolved.rows
    }

    /// Names of the columns, as selectors.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The columns by unit; a cell that was asked for alone stands alone.
    pub fn units(&self) -> Vec<Unit> {
        let (Content::Tensor(t), Columns::Tensor(columns)) = (&*self.resolved.record.content, &self.resolved.columns)
        else {
            let one = |(i, name): (usize, &String)| Unit { name: name.clone(), columns: i..i + 1 };
            return self.columns.iter().enumerate().map(one).collect();
        };
        let cells = self.resolved.layout(t).stored.cells();
        let mut units = Vec::new();
        let mut at = 0;
        for c in columns {
            for unit in c.units.clone() {
                let len = if c.cell.is_some() { 1 } else { cells };
                let name = match c.cell {
                    Some((y, x)) => format!("u{unit}[{y},{x}]"),
                    None => format!("u{unit}"),
                };
                units.push(Unit { name, columns: at..at + len });
                at += len;
            }
        }
        units
    }

    /// Height and width of a unit's map.
    pub fn map(&self, unit: &Unit) -> (usize, usize) {
        match &*self.resolved.record.content {
            Content::Tensor(t) if unit.columns.len() == self.resolved.layout(t).stored.cells() => {
                let map = self.resolved.layout(t).stored;
                (map.h, map.w)
            }
            _ => (1, unit.columns.len()),
        }
    }

    /// The plans considered, and the choice.
    pub fn explanation(&self) -> &Explanation {
        &self.explanation
    }

    /// Where the values come from, as planned.
    pub fn source(&self) -> Source {
        let chosen = self.explanation.considered.get(self.explanation.chosen);
        let read = || Source::Read { scheme: self.resolved.record.content.scheme_text(), exact: false };
        chosen.and_then(|c| c.source.clone()).unwrap_or_else(read)
    }

    /// The same values as codes, where they are READ.
    ///
    /// Errors: `Quantize`, when what is stored does not fit its scheme.
    fn codes(&self) -> Result<Option<CodeScan<'_>>> {
        match (self.chosen() == PlanChoice::READ, &self.resolved.stored, &self.resolved.columns) {
            (true, Ok(plan), Columns::Tensor(columns)) => {
                CodeScan::new(self.reader.store(), &self.resolved.record, plan, columns)
            }
            _ => Ok(None),
        }
    }

    /// Whether it reads codes that are worked on as they are.
    pub(crate) fn has_codes(&self) -> bool {
        let has = |content: &Content| matches!(content, Content::Tensor(t) if t.layout.code != Code::F64);
        self.chosen() == PlanChoice::READ && has(&self.resolved.record.content)
    }

    /// What `work` makes of the codes; `None` where there are none, where it makes nothing of them, and where it fails and
    /// another plan may still answer.
    ///
    /// Errors: as [`Scan::codes`]; those of `work`.
    pub(crate) fn on_codes<T>(&self, work: impl FnOnce(&CodeScan<'_>) -> Result<Option<T>>) -> Result<Option<T>> {
        self.or_another_plan(self.codes().and_then(|codes| codes.as_ref().map_or(Ok(None), work)))
    }

    /// As [`Scan::on_codes`], of some rows in their order.
    pub(crate) fn on_codes_of<T>(
        &self,
        rows: &[u64],
        work: impl FnOnce(&CodeScan<'_>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let (whole, Columns::Tensor(columns)) = (&self.resolved, &self.resolved.columns) else { return Ok(None) };
        if self.chosen() != PlanChoice::READ {
            return Ok(None);
        }
        let found = self.place(rows)?;
        let Ok(plan) = found.stored else { return Ok(None) };
        let codes = CodeScan::new(self.reader.store(), &whole.record, &plan, columns);
        self.or_another_plan(codes.and_then(|codes| codes.as_ref().map_or(Ok(None), work)))
    }

    /// Some of its rows, and where they are stored.
    fn place(&self, rows: &[u64]) -> Result<reader::Found> {
        let whole = &self.resolved;
        let found = self.reader.place(&whole.record, &whole.model, Rows::List(rows.to_vec()), whole.choice)?;
        Ok(found.holding(&whole.columns.groups(&whole.record.content)))
    }

    fn or_another_plan<T>(&self, found: Result<Option<T>>) -> Result<Option<T>> {
        match found {
            Err(e) if self.resolved.choice == PlanChoice::Auto => {
                tracing::debug!("{}: not on the codes: {e}", self.key());
                Ok(None)
            }
            found => found,
        }
    }

    /// The intermediate's record.
    pub(crate) fn record(&self) -> &IntermediateRecord {
        &self.resolved.record
    }

    /// Numbers of the units, where all columns are of whole units; `None` where some are single cells, or of a table.
    pub(crate) fn whole_units(&self) -> Option<Vec<usize>> {
        match &self.resolved.columns {
            Columns::Tensor(columns) => {
                let whole = columns.iter().all(|c| c.cell.is_none());
                whole.then(|| columns.iter().flat_map(|c| c.units.clone()).collect())
            }
            Columns::Table(_) => None,
        }
    }

    /// Whether it has all rows that there are.
    pub(crate) fn has_all_rows(&self) -> bool {
        let (record, model) = (&self.resolved.record, &self.resolved.model);
        let all = match record.n_rows {
            0 => model.spec.dataset.as_ref().map_or(0, |d| d.n_rows),
            n => n,
        };
        // As many rows may be others, some of which are run.
        self.rows().len() as u64 == all
            && self.reader.all_rows(record).is_ok_and(|all| {
                let mut there = RowMask::default();
                there.extend(&RowSet::from_ids(&all));
                self.rows().iter().all(|row| there.contains(row))
            })
    }

    /// Rows that are read at a time.
    pub fn block_rows(&self) -> usize {
        self.block_rows_of(BLOCK_BYTES)
    }

    /// Rows whose values, as f32, take at most so many bytes, where a page is not larger.
    pub(crate) fn block_rows_of(&self, bytes: usize) -> usize {
        let reruns = self.chosen() != PlanChoice::READ;
        // A pipeline's stages may need all rows of their inputs: running it in parts would run them again each time.
        if reruns && self.resolved.model.spec.kind == ModelKind::Pipeline {
            return self.rows().len().max(1);
        }
        let rows = bytes / (4 * self.columns.len()).max(1);
        let page_rows = match &*self.resolved.record.content {
            Content::Tensor(t) => t.layout.page_rows,
            Content::Table(t) => t.block_rows,
        };
        (rows / page_rows.max(1) * page_rows).max(page_rows).max(1)
    }

    fn chosen(&self) -> PlanChoice {
        self.explanation.considered.get(self.explanation.chosen).map_or(PlanChoice::READ, |c| c.choice())
    }

    /// The values of some rows, in the order of `rows`.
    ///
    /// Errors: `NoSuchRow`; `Corrupt`; what a RERUN meets.
    pub fn read(&self, rows: &[u64]) -> Result<Block> {
        match self.held(rows) {
            Some(block) => Ok(block),
            None => self.read_anew(rows),
        }
    }

    /// What a run gave for these rows before, where it is held.
    pub(crate) fn held(&self, rows: &[u64]) -> Option<Block> {
        rows.first().and_then(|first| self.ran().get(first).filter(|b| b.rows == rows).cloned())
    }

    /// Holds what a run gave, where that is not too much.
    pub(crate) fn hold(&self, rows: &[u64], data: Data) -> Block {
        let block = Block { rows: rows.to_vec(), width: self.columns.len(), data };
        if let Some(first) = rows.first()
            && self.rows().len() * self.columns.len() * 4 <= RUN_BYTES
        {
            self.ran().insert(*first, block.clone());
        }
        block
    }

    /// Whether that is held.
    pub(crate) fn holds(&self, rows: &[u64]) -> bool {
        rows.first().is_some_and(|first| self.ran().get(first).is_some_and(|b| b.rows == rows))
    }

    /// Whether its model is to be run for all of its rows, and may be run for others' columns too: who demands a run from
    /// stored stages wants that one.
    pub(crate) fn may_share(&self) -> bool {
        let runs = matches!(self.chosen(), PlanChoice::RERUN | PlanChoice::ANCESTOR);
        runs && matches!(self.resolved.choice, PlanChoice::Auto | PlanChoice::RERUN)
    }

    fn ran(&self) -> MutexGuard<'_, HashMap<u64, Block>> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`ChunkReader::get`] answers, of some of its rows, in the order of `rows`.
    ///
    /// Errors: as [`Scan::read`].
    pub fn get(&self, rows: &[u64]) -> Result<Answer> {
        self.answer(rows, true)
    }

    /// The same of rows that are but looked at: nothing of them is stored, whatever the store keeps of what is rerun.
    ///
    /// Errors: as [`Scan::read`].
    pub fn peek(&self, rows: &[u64]) -> Result<Answer> {
        self.answer(rows, false)
    }

    fn answer(&self, rows: &[u64], may_store: bool) -> Result<Answer> {
        let begun = Instant::now();
        let (plan, part, data, source) = self.follow(rows, may_store)?;
        let mut explanation = self.explanation.clone();
        explanation.chosen = explanation.considered.iter().position(|c| c.plan == plan).unwrap_or(explanation.chosen);
        explanation.actual = Some(begun.elapsed());
        Ok(reader::answer(&part, data, source, explanation))
    }

    fn read_anew(&self, rows: &[u64]) -> Result<Block> {
        let (plan, _, data, _) = self.follow(rows, true)?;
        match plan == plan::READ {
            true => Ok(Block { rows: rows.to_vec(), width: self.columns.len(), data }),
            false => Ok(self.hold(rows, data)),
        }
    }

    /// Follows the plan of the whole for some of its rows: which it was in the end, what was asked, the values, and where
    /// they came from. What a run gives may be stored, where that is asked for.
    fn follow(&self, rows: &[u64], may_store: bool) -> Result<(&'static str, Resolved, Data, Source)> {
        let whole = &self.resolved;
        let found = self.place(rows)?;
        // Of a request that is divided, a block's rows may all be stored, or none: each is got as it was said to be.
        let is_split = self.chosen() == PlanChoice::SPLIT;
        let choice = match (&found.stored, &found.part) {
            _ if !is_split => whole.choice,
            (Ok(_), _) => PlanChoice::READ,
            (Err(_), Some(_)) => PlanChoice::SPLIT,
            (Err(_), None) => PlanChoice::Auto,
        };
        let part = [Resolved {
            record: whole.record.clone(),
            model: whole.model.clone(),
            columns: whole.columns.clone(),
            rows: found.rows,
            stored: found.stored,
            part: found.part,
            exact: whole.exact,
            choice,
        }];
        let context = self.reader.context(false);
        let anew = if is_split { plan::explain(&context, &part)?.pop() } else { None };
        if may_store {
            self.reader.want_values(std::iter::once((whole, &self.explanation)));
        }
        let (plan, answered) = self.reader.follow(&context, &part, 0, anew.as_ref().unwrap_or(&self.explanation))?;
        self.reader.store_values();
        let [part] = part;
        let (_, data, source) = answered.into_iter().next().ok_or_else(|| reader::no_plan(whole))?;
        Ok((plan, part, data, source))
    }

    /// Reads all rows, a block at a time, in order.
    ///
    /// Errors: as [`Scan::read`]; those of `visit`.
    pub fn for_each(&self, mut visit: impl FnMut(Block) -> Result<()>) -> Result<()> {
        let rows: Vec<u64> = self.rows().iter().collect();
        rows.chunks(self.block_rows()).try_for_each(|rows| visit(self.read(rows)?))
    }
}

/// The rows that all sets have, in the order of the first, and how many of each set another lacks.
pub(crate) fn shared(sets: &[&RowSet]) -> (Vec<u64>, Vec<u64>) {
    let mut rows: Vec<u64> = sets.first().map_or_else(Vec::new, |s| s.iter().collect());
    for set in sets.iter().skip(1) {
        match set {
            RowSet::Range(range) => rows.retain(|r| range.contains(r)),
            RowSet::List(ids) => {
                let ids: HashSet<u64> = ids.iter().copied().collect();
                rows.retain(|r| ids.contains(r));
            }
        }
    }
    let unshared = sets.iter().map(|s| (s.len() as u64).saturating_sub(rows.len() as u64)).collect();
    (rows, unshared)
}

/// As [`shared`], where the first set is the rows of `request`: what the others have beyond a selection is not missed.
pub(crate) fn shared_among(request: &Request, sets: &[&RowSet]) -> (Vec<u64>, Vec<u64>) {
    let (rows, mut unshared) = shared(sets);
    if request.rows != RowSelection::All {
        unshared.iter_mut().skip(1).for_each(|n| *n = 0);
    }
    (rows, unshared)
}

/// Several scans over the rows that all of them have, in the order of the first.
pub struct Joined<'r, 'a> {
    /// The scans.
    pub scans: Vec<Scan<'r, 'a>>,
    /// Rows that all have.
    pub rows: Vec<u64>,
    /// How many rows of each scan another lacks.
    pub unshared: Vec<u64>,
}

impl<'r, 'a> Joined<'r, 'a> {
    /// Joins scans by row_id.
    pub fn new(scans: Vec<Scan<'r, 'a>>) -> Self {
        let (rows, unshared) = shared(&scans.iter().map(Scan::rows).collect::<Vec<_>>());
        Self { scans, rows, unshared }
    }
}
