//! Operands: one value a row, of a column or of a reduction over all columns; what predicates compare, what groups and
//! labels are named by.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use mistique_engine::{Content, IntermediateRecord, Key, RowSet};

use crate::answer::Data;
use crate::codes::CodeScan;
use crate::columns::{self, Columns};
use crate::error::{QueryError, Result};
use crate::plan::PlanChoice;
use crate::predicate::{Comparison, Term};
use crate::reader::{ChunkReader, Demand, Request};
use crate::reduction::Reduction;
use crate::scan::{Block, Scan};

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

/// Values of an operand, one a row; `None` for nulls.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Integers, booleans as 0 and 1.
    Int(Vec<Option<i128>>),
    /// Dates and times, as integers of their type.
    Time(Vec<Option<i128>>, DataType),
    /// Floats.
    Float(Vec<Option<f64>>),
    /// Text.
    Text(Vec<Option<String>>),
}

/// A value of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// An integer; 0 and 1 for booleans.
    Int(i128),
    /// A float.
    Float(f64),
    /// Text, and dates and times as they are written.
    Text(String),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v) => f.write_str(v),
        }
    }
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(v) | Self::Time(v, _) => v.len(),
            Self::Float(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as f64, nulls as NaN; integers beyond 2^53 are rounded.
    ///
    /// Errors: `Unsupported` for text, naming `operand`.
    pub fn to_f64(&self, operand: &str) -> Result<Vec<f64>> {
        match self {
            Self::Int(v) | Self::Time(v, _) => Ok(v.iter().map(|v| v.map_or(f64::NAN, |v| v as f64)).collect()),
            Self::Float(v) => Ok(v.iter().map(|v| v.unwrap_or(f64::NAN)).collect()),
            Self::Text(_) => Err(bad_operand(operand, "it is text; a column of numbers is needed")),
        }
    }

    /// The numbers of rows.
    pub(crate) fn ids(rows: &[u64]) -> Self {
        Self::Int(rows.iter().map(|row| Some(i128::from(*row))).collect())
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Int(v) | Self::Time(v, _) => v.get(row).is_none_or(Option::is_none),
            Self::Float(v) => v.get(row).is_none_or(Option::is_none),
            Self::Text(v) => v.get(row).is_none_or(Option::is_none),
        }
    }

    /// The value of a row; `None` for nulls.
    pub fn cell(&self, row: usize) -> Option<Cell> {
        match self {
            Self::Int(v) => v.get(row).copied().flatten().map(Cell::Int),
            Self::Time(v, kind) => v.get(row).copied().flatten().map(|v| Cell::Text(time_text(v, kind))),
            Self::Float(v) => v.get(row).copied().flatten().map(Cell::Float),
            Self::Text(v) => v.get(row).cloned().flatten().map(Cell::Text),
        }
    }

    /// The value of a row as text, as groups and labels are called; `None` for nulls.
    pub fn text(&self, row: usize) -> Option<String> {
        self.cell(row).map(|v| v.to_string())
    }

    /// The values of an Arrow column.
    pub(crate) fn from_array(array: &ArrayRef) -> Result<Self> {
        let as_i128 = |to: &DataType| -> Result<Vec<Option<i128>>> {
            let cast = cast(array, to)?;
            Ok(match to {
                DataType::UInt64 => cast.as_primitive::<UInt64Type>().iter().map(|v| v.map(i128::from)).collect(),
                _ => cast.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect(),
            })
        };
        match array.data_type() {
            DataType::UInt64 => Ok(Self::Int(as_i128(&DataType::UInt64)?)),
            t if t.is_integer() || *t == DataType::Boolean => Ok(Self::Int(as_i128(&DataType::Int64)?)),
            t if t.is_floating() => {
                let cast = cast(array, &DataType::Float64)?;
                Ok(Self::Float(cast.as_primitive::<Float64Type>().iter().collect()))
            }
            DataType::Utf8 => {
                Ok(Self::Text(array.as_string::<i32>().iter().map(|v| v.map(ToString::to_string)).collect()))
            }
            t @ (DataType::Date32 | DataType::Time32(_)) => {
                let days = cast(array, &DataType::Int32)?;
                Ok(Self::Time(as_int(&days)?, t.clone()))
            }
            t => Ok(Self::Time(as_int(array)?, t.clone())),
        }
    }

    /// How each value stands to `term`, which is no operand; `None` for nulls.
    pub(crate) fn compare(&self, operand: &str, op: Comparison, term: &Term) -> Result<Vec<Option<bool>>> {
        let number = |term: &Term| match term {
            Term::Int(n) => Ok(Number::Int(*n)),
            Term::Number(n) => Ok(Number::Float(*n)),
            Term::Text(_) | Term::Operand(_) | Term::Null => {
                Err(bad_operand(operand, "it holds numbers; compare it with one"))
            }
        };
        if *term == Term::Null {
            return Ok((0..self.len()).map(|row| Some(self.is_null(row) == (op == Comparison::Eq))).collect());
        }
        match self {
            Self::Int(v) => {
                let n = number(term)?;
                Ok(v.iter().map(|v| v.map(|v| op.holds(Number::Int(v).order(n)))).collect())
            }
            Self::Float(v) => {
                let n = number(term)?;
                Ok(v.iter().map(|v| v.map(|v| op.holds(Number::Float(v).order(n)))).collect())
            }
            Self::Text(v) => match term {
                Term::Text(t) => Ok(v.iter().map(|v| v.as_ref().map(|v| op.holds(Some(v.cmp(t))))).collect()),
                _ => Err(bad_operand(operand, "it holds text; compare it with 'text'")),
            },
            Self::Time(v, kind) => match term {
                Term::Text(t) => {
                    let word: ArrayRef = std::sync::Arc::new(StringArray::from(vec![t.as_str()]));
                    let read = cast(&word, &in_utc(kind)).ok().map(|a| as_int(&a)).transpose()?;
                    let Some(Some(time)) = read.and_then(|v| v.first().copied()) else {
                        return Err(bad_operand(operand, &format!("it holds {kind}, and '{t}' is none")));
                    };
                    Ok(v.iter().map(|v| v.map(|v| op.holds(Some(v.cmp(&time))))).collect())
                }
                _ => Err(bad_operand(operand, "it holds dates or times; compare it with one such as '2024-05-31'")),
            },
        }
    }

    /// How each value stands to the other column's of the same row.
    fn compare_columns(&self, op: Comparison, other: &Self, operand: &str) -> Result<Vec<Option<bool>>> {
        fn each<A, B>(a: &[Option<A>], b: &[Option<B>], f: impl Fn(&A, &B) -> bool) -> Vec<Option<bool>> {
            a.iter().zip(b).map(|(a, b)| Some(f(a.as_ref()?, b.as_ref()?))).collect()
        }
        use Number::{Float, Int};
        Ok(match (self, other) {
            (Self::Int(a), Self::Int(b)) => each(a, b, |a, b| op.holds(Some(a.cmp(b)))),
            (Self::Int(a), Self::Float(b)) => each(a, b, |a, b| op.holds(Int(*a).order(Float(*b)))),
            (Self::Float(a), Self::Int(b)) => each(a, b, |a, b| op.holds(Float(*a).order(Int(*b)))),
            (Self::Float(a), Self::Float(b)) => each(a, b, |a, b| op.holds(a.partial_cmp(b))),
            (Self::Text(a), Self::Text(b)) => each(a, b, |a, b| op.holds(Some(a.cmp(b)))),
            (Self::Time(a, s), Self::Time(b, t)) if s == t => each(a, b, |a, b| op.holds(Some(a.cmp(b)))),
            _ => return Err(bad_operand(operand, "the two columns hold values of different kinds")),
        })
    }
}

fn as_int(array: &ArrayRef) -> Result<Vec<Option<i128>>> {
    let wide = match array.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(array, &DataType::Int64)?,
    };
    Ok(wide.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect())
}

/// The type with instants in UTC, which need no table of time zones to be read and written.
fn in_utc(kind: &DataType) -> DataType {
    match kind {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        kind => kind.clone(),
    }
}

fn time_text(value: i128, kind: &DataType) -> String {
    let kind = &in_utc(kind);
    let raw: ArrayRef = match kind {
        DataType::Date32 | DataType::Time32(_) => {
            std::sync::Arc::new(arrow::array::Int32Array::from(vec![i32::try_from(value).unwrap_or_default()]))
        }
        _ => std::sync::Arc::new(arrow::array::Int64Array::from(vec![i64::try_from(value).unwrap_or_default()])),
    };
    let text = cast(&raw, kind).and_then(|t| cast(&t, &DataType::Utf8));
    text.map_or_else(|_| value.to_string(), |t| t.as_string::<i32>().value(0).to_string())
}

/// A number that is compared exactly.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Int(a), Self::Float(b)) => int_float(a, b),
            (Self::Float(a), Self::Int(b)) => int_float(b, a).map(Ordering::reverse),
        }
    }
}

/// How an integer stands to a float, without rounding either.
fn int_float(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Integers of 64 bits and less lie well within ±2^100, where a floor converts exactly.
    if b.abs() >= 2f64.powi(100) {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = b.floor();
    let by_floor = a.cmp(&(floor as i128));
    Some(if by_floor == Ordering::Equal && b > floor { Ordering::Less } else { by_floor })
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
            (Data::Table(batch), _) => match batch.columns().first() {
                Some(column) => Column::from_array(column),
                None => Err(bad_operand(&self.name, "it has no column")),
            },
            (Data::F32(_) | Data::F64(_), reduction) => {
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
            let left = self.read(&ids)?;
            let passes = match other {
                Some(other) => left.compare_columns(op, &other.read(&ids)?, &self.name)?,
                None => left.compare(&self.name, op, term)?,
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
        let mut first_error = None;
        for text in relative.as_deref().into_iter().chain([text]) {
            match self.named(text, wanted) {
                Ok(found) => return Ok(found),
                // A column that an intermediate lacks says more than a model that is none.
                Err(e @ QueryError::Columns { .. }) => return Err(e),
                Err(e) => first_error.get_or_insert(e),
            };
        }
        Err(first_error.unwrap_or_else(|| bad_operand(text, "it names nothing")))
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
        let reduction =
            key.columns.as_ref().and_then(|(c, quoted)| Reduction::ALL.into_iter().find(|r| !quoted && r.name() == c));
        if reduction.is_some() {
            key.columns = None;
        }
        Ok(Operand { key, reduction })
    }

    /// Opens an operand for reading, as demanded of the question it belongs to. Only what it cannot follow is left to the
    /// cheapest plan: a run of what no model gives, such as labels that were appended, or an ancestor where there is none.
    ///
    /// Errors: as [`ChunkReader::scan`]; `Parse` where it has several columns and names no reduction.
    pub fn operand_scan<'r>(&'r self, operand: &Operand, demand: impl Into<Demand>) -> Result<OperandScan<'r, 'a>> {
        let demand = demand.into();
        match self.operand_by(operand, demand) {
            Err(QueryError::Plan { .. }) if !matches!(demand.plan, PlanChoice::Auto | PlanChoice::Read) => {
                let record = self.store().intermediate(&operand.key.intermediate)?;
                let kind = self.store().catalog().model_by_id(record.model_id)?.spec.kind;
                let demand = match demand.plan {
                    PlanChoice::Rerun if kind.gives(&record.content) => demand,
                    _ => Demand { plan: PlanChoice::Auto, ..demand },
                };
                self.operand_by(operand, demand)
            }
            opened => opened,
        }
    }

    /// As [`ChunkReader::operand_scan`], by the plan demanded or not at all.
    pub(crate) fn operand_by<'r>(&'r self, operand: &Operand, demand: Demand) -> Result<OperandScan<'r, 'a>> {
        let scan = self.scan(&Request::new(operand.key.clone()).with_demand(demand))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_compare_exactly() {
        let big = 9_007_199_254_740_993i128; // 2^53 + 1: no f64 is it.
        assert_eq!(int_float(big, 9_007_199_254_740_992.0), Some(Ordering::Greater));
        assert_eq!(int_float(big, 9_007_199_254_740_994.0), Some(Ordering::Less));
        assert_eq!(int_float(3, 3.0), Some(Ordering::Equal));
        assert_eq!(int_float(3, 3.5), Some(Ordering::Less));
        assert_eq!(int_float(-3, -3.5), Some(Ordering::Greater));
        assert_eq!(int_float(i128::from(u64::MAX), f64::INFINITY), Some(Ordering::Less));
        assert_eq!(int_float(0, f64::NAN), None);
    }
}
