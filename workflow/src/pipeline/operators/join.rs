//! Join: the rows of the left table with the columns of the right table's row of the same key. The result has the left
//! table's order and row_ids. A null key has no counterpart; −0 is 0.
//!
//! Parameters: `on`, the key's columns; or `left_on` and `right_on`, where they have other names; `how`, `left` (default:
//! rows without a counterpart stay, with nulls) or `inner`; `on_duplicate`, what happens when several rows of the right
//! side have one key: `error` (default), `first`, `last`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, UInt32Array};
use arrow::compute::{is_not_null, take};
use arrow::datatypes::{ArrowPrimitiveType, Float32Type, Float64Type, Int64Type};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::array_value_to_string;

use crate::pipeline::columns::type_name;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Join", version: 1, inputs: &[Slot::Table, Slot::Table], fit: None, parse };

#[derive(Debug)]
struct Join {
    left: Vec<String>,
    right: Vec<String>,
    inner: bool,
    on_duplicate: &'static str,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let inner = params.choice_or("how", "left", &["left", "inner"])? == "inner";
    let on_duplicate = params.choice_or("on_duplicate", "error", &["error", "first", "last"])?;
    let (on, left, right) = (params.texts_opt("on")?, params.texts_opt("left_on")?, params.texts_opt("right_on")?);
    for (param, names) in [("on", &on), ("left_on", &left), ("right_on", &right)] {
        if names.as_ref().is_some_and(Vec::is_empty) {
            return Err(params.unfit(param, "at least one column, the key"));
        }
    }
    let (left, right) = match (on, left, right) {
        (Some(on), None, None) => (on.clone(), on),
        (None, Some(left), Some(right)) if left.len() == right.len() => (left, right),
        (None, Some(_), Some(_)) => return Err(params.unfit("right_on", "as many columns as `left_on`")),
        (Some(_), ..) => {
            let one_way = "the key either by `on` or by `left_on` and `right_on`; leave out the one or the others";
            return Err(params.unfit("on", one_way));
        }
        _ => return Err(params.missing("on", "the key's columns; or `left_on` and `right_on`")),
    };
    Ok(Box::new(Join { left, right, inner, on_duplicate }))
}

/// A key's column with 0 for −0, which has other bits and the same value.
fn comparable(column: &ArrayRef) -> ArrayRef {
    fn positive<T: ArrowPrimitiveType>(column: &ArrayRef, zero: T::Native) -> Option<ArrayRef> {
        let values = column.as_primitive_opt::<T>()?;
        let values: PrimitiveArray<T> = values.unary(|v| if v == zero { zero } else { v });
        Some(Arc::new(values))
    }
    let floats = positive::<Float64Type>(column, 0.0).or_else(|| positive::<Float32Type>(column, 0.0));
    floats.unwrap_or_else(|| Arc::clone(column))
}

impl Join {
    fn param(&self, left: bool) -> &'static str {
        match (self.left == self.right, left) {
            (true, _) => "on",
            (false, true) => "left_on",
            (false, false) => "right_on",
        }
    }
}

impl Operator for Join {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [left, right] = inputs else { return Ok(Checked::default()) };
        let (mut columns, right) = (left.table()?.clone(), right.table()?);
        for (l, r) in self.left.iter().zip(&self.right) {
            let expected = columns.get(self.param(true), l)?;
            let same = format!("{}, as {l} of the left side", type_name(&expected));
            right.of_type(self.param(false), r, &same, |t| *t == expected)?;
        }
        for (name, data_type) in right.known() {
            if self.right.contains(name) {
                continue;
            }
            if columns.has(name) {
                let why = format!("both sides have a column {name}; drop or rename it on one side first");
                return Err(OperatorError::Columns { why });
            }
            columns.set(name, data_type.clone());
        }
        right.open().iter().for_each(|(prefix, t)| columns.open_to(prefix, t.clone()));
        Ok(Checked::table(columns))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let (left, right) = (inputs.table(0)?, inputs.table(1)?);
        let key = |table: &Table, names: &[String], param| {
            names.iter().map(|n| table.column(param, n).map(comparable)).collect::<Result<Vec<ArrayRef>, _>>()
        };
        let left_key = key(left, &self.left, self.param(true))?;
        let right_key = key(right, &self.right, self.param(false))?;
        let found = match (left_key.as_slice(), right_key.as_slice()) {
            ([l], [r])
                if l.as_primitive_opt::<Int64Type>().is_some() && r.as_primitive_opt::<Int64Type>().is_some() =>
            {
                let keys = |c: &ArrayRef| c.as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
                self.look_up(&keys(l), &keys(r), &right_key)?
            }
            _ => {
                let fields = left_key.iter().map(|c| SortField::new(c.data_type().clone())).collect();
                let converter = RowConverter::new(fields)?;
                let keys = |columns: &[ArrayRef], n: usize| -> Result<Vec<Option<OwnedRow>>, OperatorError> {
                    let rows = converter.convert_columns(columns)?;
                    let valid = |i: usize| columns.iter().all(|c| c.is_valid(i));
                    Ok((0..n).map(|i| valid(i).then(|| rows.row(i).owned())).collect())
                };
                self.look_up(&keys(&left_key, left.n_rows())?, &keys(&right_key, right.n_rows())?, &right_key)?
            }
        };
        let (left, found) = if self.inner {
            let keep: BooleanArray = is_not_null(&found)?;
            let found = arrow::compute::filter(&found, &keep)?.as_primitive().clone();
            (left.filter(&keep)?, found)
        } else {
            (left.clone(), found)
        };
        let mut columns = left.columns();
        // Two tables of one order: the right one's columns are the result's.
        let as_they_are = found.len() == right.n_rows() && found.iter().zip(0..).all(|(f, row)| f == Some(row));
        for (name, column) in right.columns().into_iter().filter(|(n, _)| !self.right.contains(n)) {
            columns.push((name, if as_they_are { column } else { take(&column, &found, None)? }));
        }
        Ok(Outcome::table(Table::of(Arc::clone(left.rows()), columns)?))
    }
}

impl Join {
    /// The right row of each left row's key.
    fn look_up<K: Eq + std::hash::Hash>(
        &self,
        left: &[Option<K>],
        right: &[Option<K>],
        columns: &[ArrayRef],
    ) -> Result<UInt32Array, OperatorError> {
        let mut rows: HashMap<&K, u32> = HashMap::with_capacity(right.len());
        for (row, key) in right.iter().enumerate().filter_map(|(i, k)| Some((i as u32, k.as_ref()?))) {
            let first = *rows.entry(key).or_insert(row);
            if first == row || self.on_duplicate == "first" {
                continue;
            }
            if self.on_duplicate == "error" {
                let value = columns.iter().map(|c| array_value_to_string(c, row as usize));
                return Err(OperatorError::DuplicateKey {
                    column: self.right.join(", "),
                    value: value.collect::<Result<Vec<_>, _>>()?.join(", "),
                    count: right.iter().filter(|k| k.as_ref() == Some(key)).count(),
                });
            }
            rows.insert(key, row);
        }
        Ok(left.iter().map(|k| k.as_ref().and_then(|k| rows.get(k).copied())).collect())
    }
}
