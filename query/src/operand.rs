//! Operands: one value a row, of a column or of a reduction over all columns; what predicates compare, what groups and
//! labels are named by.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::DataType;
use mistique_engine::{Content, IntermediateRecord, Key, RowSet};

use crate::answer::Data;
use crate::code_column::CodeColumn;
use crate::codes::CodeScan;
use crate::column::{Column, Number};
use crate::columns::{self, Columns};
use crate::error::{QueryError, Result};
use crate::plan::PlanChoice;
use crate::predicate::{Comparison, Term};
use crate::reader::{ChunkReader, Demand, Request};
use crate::reduction::Reduction;
use crate::scan::{Block, Scan};
use crate::together;

/// Which column stands for a table that is named whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its first column of numbers, dates or times.
    Number,
    /// Its first column of text.
    Text,
    /// Its first column of text, else its first.
    Name,
}

/// One value a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The columns it is made of.
    pub key: Key,
    reduction: Option<Reduction>,
}

impl Operand {
    /// The same, but the largest of a tensor's columns where there are several and nothing says which.
    ///
    /// Errors: `NotFound`, `Columns`.
    pub fn argmax_of_many(mut self, reader: &ChunkReader<'_>) -> Result<Self> {
        let record = reader.store().intermediate(&self.key.intermediate)?;
        let selector = self.key.columns.as_ref().map(|(text, quoted)| (text.as_str(), *quoted));
        if let (Columns::Tensor(columns), Content::Tensor(t), None) =
            (columns::resolve(&record, selector)?, &*record.content, self.reduction)
            && columns.iter().map(|c| c.stored(&t.layout).len()).sum::<usize>() > 1
        {
            self.reduction = Some(Reduction::Argmax);
        }
        Ok(self)
    }
}

/// An operand whose rows are read a range at a time.
pub struct OperandScan<'r, 'a> {
    scan: Scan<'r, 'a>,
    reduction: Option<Reduction>,
    name: String,
}

impl OperandScan<'_, '_> {
    /// Row_ids that it has.
    pub fn rows(&self) -> &RowSet {
        self.scan.rows()
    }

    /// As it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scan behind it.
    pub fn scan(&self) -> &Scan<'_, '_> {
        &self.scan
    }

    /// Values of some rows that it has.
    ///
    /// Errors: as [`Scan::read`].
    pub fn read(&self, rows: &[u64]) -> Result<Column> {
        if let Some(reduction) = self.reduction
            && let Some(values) = self.scan.on_codes_of(rows, |codes| reduction.of_codes(codes))?
        {
            return Ok(reduced(reduction, values.into_iter()));
        }
        self.column(self.scan.read(rows)?)
    }

    /// Its codes and another's of rows that both have, where each is one column that is READ and not float64.
    fn codes_beside(&self, other: &Self, rows: &[u64]) -> Result<Option<(CodeColumn, CodeColumn)>> {
        if [self, other].iter().any(|o| o.reduction.is_some() || !o.scan.has_codes()) {
            return Ok(None);
        }
        let left = self.scan.on_codes_of(rows, CodeColumn::of)?;
        let right = other.scan.on_codes_of(rows, CodeColumn::of)?;
        Ok(left.zip(right))
    }

    /// Values of `rows` as text, whatever it lacks as `None`.
    ///
    /// Errors: as [`Scan::read`].
    pub fn texts(&self, rows: &[u64]) -> Result<Vec<Option<String>>> {
        let mut out = vec![None; rows.len()];
        for positions in self.present(rows).chunks(self.scan.block_rows()) {
            let ids: Vec<u64> = positions.iter().filter_map(|p| rows.get(*p).copied()).collect();
            let column = self.read(&ids)?;
            for (i, p) in positions.iter().enumerate() {
                if let Some(slot) = out.get_mut(*p) {
                    *slot = column.text(i);
                }
            }
        }
        Ok(out)
    }

    fn column(&self, block: Block) -> Result<Column> {
        let width = block.width.max(1);
        match (&block.data, self.reduction) {
            (Data::Table(batch), None) => match batch.columns().first() {
                Some(column) => Column::from_array(column),
                None => Err(bad_operand(&self.name, "it has no column")),
            },
            (_, reduction) => {
                let values = block.into_f64()?;
                let values = values.chunks_exact(width);
                Ok(match reduction {
                    Some(reduction) => reduced(reduction, values.map(|row| reduction.of(row))),
                    None => Column::Float(values.map(|row| row.first().copied()).collect()),
                })
            }
        }
    }

    /// Rows of `rows` that it has, as positions.
    fn present(&self, rows: &[u64]) -> Vec<usize> {
        let has: Box<dyn Fn(&u64) -> bool> = match self.rows() {
            RowSet::Range(range) => Box::new(|r| range.contains(r)),
            RowSet::List(ids) => {
                let ids: HashSet<u64> = ids.iter().copied().collect();
                Box::new(move |r| ids.contains(r))
            }
        };
        rows.iter().enumerate().filter(|(_, r)| has(r)).map(|(i, _)| i).collect()
    }

    /// As [`OperandScan::compare`], on the codes of a column that is READ: what the zone map of a page decides is not
    /// decoded. `None` where it is not one column.
    fn compare_codes(
        &self,
        codes: &CodeScan<'_>,
        rows: &[u64],
        op: Comparison,
        number: Number,
    ) -> Result<Option<Vec<Option<bool>>>> {
        let [unit] = codes.units() else { return Ok(None) };
        let passes = |v: f32| op.holds(Number::Float(f64::from(v)).order(number));
        let by_code: Option<Vec<bool>> = codes.code_values(unit).map(|v| v.iter().map(|v| passes(*v)).collect());
        let mut by_position = vec![None; self.rows().len()];
        let mut map = Vec::new();
        let pages = codes.pages()?;
        let mut open = Vec::new();
        for page in &pages {
            let decided = codes
                .range(page, unit)
                .filter(|_| page.zone.n_nan == 0)
                .and_then(|(min, max)| op.decided(Number::Float(min).order(number), Number::Float(max).order(number)));
            match decided {
                None => open.push(page),
                Some(all) => {
                    for some in &page.rows {
                        let slots = by_position.get_mut(some.position..some.position + some.len);
                        slots.unwrap_or_default().fill(Some(all));
                    }
                }
            }
        }
        codes.store().visit_pages(
            &open,
            |_| true,
            |page, bytes| {
                for some in &page.rows {
                    for i in 0..some.len {
                        let pass = match &by_code {
                            Some(by_code) => {
                                let code = codes.codes(page, bytes, some.row + i, unit).first();
                                code.and_then(|c| by_code.get(usize::from(*c)).or(by_code.last())).copied()
                            }
                            None => codes.map(page, bytes, some.row + i, unit, &mut map)?.first().map(|v| passes(*v)),
                        };
                        if let Some(slot) = by_position.get_mut(some.position + i) {
                            *slot = pass;
                        }
                    }
                }
                Ok::<(), QueryError>(())
            },
        )?;
        if self.rows().len() == rows.len() && self.rows().iter().eq(rows.iter().copied()) {
            return Ok(Some(by_position));
        }
        let place: HashMap<u64, Option<bool>> = self.rows().iter().zip(by_position).collect();
        Ok(Some(rows.iter().map(|r| place.get(r).copied().flatten()).collect()))
    }

    /// How the value of each of `rows` stands to the row's own number; `None` for nulls and rows that it lacks.
    pub(crate) fn compare_ids(&self, rows: &[u64], op: Comparison) -> Result<Vec<Option<bool>>> {
        let mut out = vec![None; rows.len()];
        for positions in self.present(rows).chunks(self.scan.block_rows()) {
            let ids: Vec<u64> = positions.iter().filter_map(|p| rows.get(*p).copied()).collect();
            let passes = self.read(&ids)?.compare_columns(op, &Column::ids(&ids), &self.name)?;
            for (p, pass) in positions.iter().zip(passes) {
                if let Some(slot) = out.get_mut(*p) {
                    *slot = pass;
                }
            }
        }
        Ok(out)
    }

    /// How the values of `rows` stand to `term`; `None` for nulls and rows that it lacks.
    pub(crate) fn compare(
        &self,
        rows: &[u64],
        op: Comparison,
        term: &Term,
        other: Option<&OperandScan<'_, '_>>,
    ) -> Result<Vec<Option<bool>>> {
        let number = match term {
            Term::Int(n) => Some(Number::Int(*n)),
            Term::Number(n) => Some(Number::Float(*n)),
            Term::Text(_) | Term::Operand(_) | Term::Null => None,
        };
        if let (None, None, Some(number)) = (other, self.reduction, number)
            && let Some(passes) = self.scan.on_codes(|codes| self.compare_codes(codes, rows, op, number))?
        {
            return Ok(passes);
        }
        let mut out = vec![None; rows.len()];
        let mut positions = self.present(rows);
        let mut block_rows = self.scan.block_rows();
        if let Some(other) = other {
            let has: HashSet<usize> = other.present(rows).into_iter().collect();
            positions.retain(|p| has.contains(p));
            block_rows = block_rows.min(other.scan.block_rows());
        }
        for positions in positions.chunks(block_rows) {
            let ids: Vec<u64> = positions.iter().filter_map(|p| rows.get(*p).copied()).collect();
            let passes = match other {
                None => self.read(&ids)?.compare(&self.name, op, term)?,
                Some(other) => match self.codes_beside(other, &ids)? {
                    Some((left, right)) => left.compare(op, &right)?,
                    None => {
                        let mut ran = together::blocks(&[&self.scan, &other.scan], &ids).into_iter();
                        let mut read = |of: &OperandScan<'_, '_>| match ran.next().flatten() {
                            Some(block) => of.column(block),
                            None => of.read(&ids),
                        };
                        let left = read(self)?;
                        left.compare_columns(op, &read(other)?, &self.name)?
                    }
                },
            };
            for (p, pass) in positions.iter().zip(passes) {
                if let Some(slot) = out.get_mut(*p) {
                    *slot = pass;
                }
            }
        }
        Ok(out)
    }
}

impl<'a> ChunkReader<'a> {
    /// What `text` means: relative to the model of `near` first, then as a whole key. A table that is named whole stands
    /// for one of its columns.
    ///
    /// Errors: `NotFound` with the nearest names; `Parse`.
    pub fn operand(&self, near: Option<&IntermediateRecord>, text: &str, wanted: Wanted) -> Result<Operand> {
        let relative = near.map(|near| format!("{}.{text}", near.key.model));
        // A column of the table that the question is about.
        let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        let name = quoted.map_or_else(|| text.to_string(), |t| t.replace("\"\"", "\""));
        let own = near.filter(|near| match &*near.content {
            Content::Table(table) => table.schema.field_with_name(&name).is_ok(),
            Content::Tensor(_) => false,
        });
        let own = own.map(|near| Key { intermediate: near.key.clone(), columns: Some((name, true)) }.to_string());
        let mut errors = Vec::new();
        for text in relative.as_deref().into_iter().chain(own.as_deref()).chain([text]) {
            match self.named(text, wanted) {
                Ok(found) => return Ok(found),
                // A column that an intermediate lacks says more than a model that is none.
                Err(e @ QueryError::Columns { .. }) if own.is_none() => return Err(e),
                Err(e) => errors.push(e),
            }
        }
        // A name that begins with a project's was meant whole.
        let project = text.parse::<Key>().ok().map(|key| key.intermediate.model.project);
        let whole = match project {
            Some(project) => self.store().models()?.iter().any(|m| m.spec.key.project == project),
            None => false,
        };
        let error = if whole { errors.pop() } else { errors.into_iter().next() };
        Err(error.unwrap_or_else(|| bad_operand(text, "it names nothing")))
    }

    fn named(&self, text: &str, wanted: Wanted) -> Result<Operand> {
        // Of some columns: p.m.conv1.u5.max.
        if let Some((head, tail)) = text.rsplit_once('.')
            && let Some(reduction) = Reduction::ALL.into_iter().find(|r| r.name() == tail)
            && let Ok(key @ Key { columns: Some(_), .. }) = head.parse::<Key>()
        {
            self.store().intermediate(&key.intermediate)?;
            return Ok(Operand { key, reduction: Some(reduction) });
        }
        let mut key: Key = text.parse()?;
        let found = self.store().intermediate(&key.intermediate)?;
        let reduction =
            key.columns.as_ref().and_then(|(c, quoted)| Reduction::ALL.into_iter().find(|r| !quoted && r.name() == c));
        let is_column =
            |name: &str| matches!(&*found.content, Content::Table(t) if t.schema.field_with_name(name).is_ok());
        let reduction = reduction.filter(|r| !is_column(r.name()));
        if reduction.is_some() {
            key.columns = None;
            return Ok(Operand { key, reduction });
        }
        if let Content::Table(table) = &*found.content {
            if key.columns.is_none() {
                let fields = table.schema.fields();
                let text = fields.iter().find(|f| *f.data_type() == DataType::Utf8);
                let number = fields.iter().find(|f| *f.data_type() != DataType::Utf8);
                let column = match wanted {
                    Wanted::Number => number,
                    Wanted::Text => text,
                    Wanted::Name => text.or(fields.first()),
                };
                key.columns = column.or(fields.first()).map(|f| (f.name().clone(), true));
            }
            return Ok(Operand { key, reduction: None });
        }
        Ok(Operand { key, reduction: None })
    }

    /// Opens an operand for reading, as demanded of the question it belongs to. Only what it cannot follow is left to the
    /// cheapest plan: a run of what no model gives, such as labels that were appended, or an ancestor where there is none.
    ///
    /// Errors: as [`ChunkReader::scan`]; `Parse` where it has several columns and names no reduction.
    pub fn operand_scan<'r>(&'r self, operand: &Operand, demand: impl Into<Demand>) -> Result<OperandScan<'r, 'a>> {
        let demand = demand.into();
        match self.operand_by(operand, demand) {
            Err(QueryError::Plan { .. }) if !matches!(demand.plan, PlanChoice::Auto | PlanChoice::READ) => {
                let record = self.store().intermediate(&operand.key.intermediate)?;
                let kind = self.store().catalog().model_by_id(record.model_id)?.spec.kind;
                let demand = match demand.plan {
                    PlanChoice::RERUN if kind.gives(&record.content) => demand,
                    _ => Demand { plan: PlanChoice::Auto, ..demand },
                };
                self.operand_by(operand, demand)
            }
            opened => opened,
        }
    }

    /// As [`ChunkReader::operand_scan`], by the plan demanded or not at all.
    pub(crate) fn operand_by<'r>(&'r self, operand: &Operand, demand: Demand) -> Result<OperandScan<'r, 'a>> {
        let request = Request::new(operand.key.clone()).with_demand(demand);
        // A reduction is of numbers: text beside them is left out.
        let scan = if operand.reduction.is_some() { self.scan_numbers(&request)? } else { self.scan(&request)? };
        let name = match operand.reduction {
            Some(reduction) => format!("{}.{}", operand.key, reduction.name()),
            None => operand.key.to_string(),
        };
        let width = scan.columns().len();
        if operand.reduction.is_none() && width != 1 {
            let all = Reduction::ALL.map(Reduction::name).join(", ");
            let why = format!("it has {width} columns; name one (such as u3) or one of {all}");
            return Err(bad_operand(&name, &why));
        }
        Ok(OperandScan { scan, reduction: operand.reduction, name })
    }
}

/// A reduction's numbers as a column: an argmax is the number of a class; NaN, where a row is all NaN, is no class.
fn reduced(reduction: Reduction, values: impl Iterator<Item = f64>) -> Column {
    match reduction {
        Reduction::Argmax => Column::Int(values.map(|v| (!v.is_nan()).then_some(v as i128)).collect()),
        _ => Column::Float(values.map(Some).collect()),
    }
}

pub(crate) fn bad_operand(operand: &str, why: &str) -> QueryError {
    QueryError::Parse { what: "operand", given: operand.to_string(), why: why.to_string(), at: 1 }
}
