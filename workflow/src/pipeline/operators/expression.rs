//! Expression: new columns computed from others, row by row.
//!
//! Parameters: `columns`, expressions by name of the new column, such as `{rooms_each: total_rooms / households}`; one of the
//! name of a column takes its place, as in `{rooms: rooms + 1}`, and a later one uses those before it. An expression has numbers, 'texts', true, false, null; columns by name (double-quoted where
//! the name is no word); `+ - * / %`; `= != < <= > >=`; `and or not`; `is null`, `is not null`; `in (1, 2)`;
//! `when(condition, value, ..., otherwise)`, each value computed for the rows alone that take it; abs, sqrt, exp, log, log1p,
//! floor, ceil, round, year, month, day, min, max, coalesce, float, int. As in SQL, a null makes its result null, except in `and`, `or` and `coalesce` where the other side decides. `/` gives float64.

use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::expression::Expression;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "Expression", version: 2, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct Columns {
    columns: Vec<(String, Expression)>,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let texts = params.texts_by_name("columns")?;
    if texts.is_empty() {
        return Err(params.missing("columns", "expressions by name, such as {ratio: a / b}"));
    }
    let mut columns = Vec::new();
    for (name, text) in texts {
        let expression = Expression::parse(&text)
            .map_err(|why| params.unfit_entry("columns", &name, format!("for {name}: {why}")))?;
        columns.push((name, expression));
    }
    Ok(Box::new(Columns { columns }))
}

/// An error of the expression for that column.
fn of(name: &str) -> impl FnOnce(OperatorError) -> OperatorError {
    move |source| {
        let source = Box::new(match source {
            // Of which parameter is said already.
            OperatorError::Param { why, .. } => OperatorError::Columns { why },
            other => other,
        });
        OperatorError::Entry { param: "columns", entry: name.to_owned(), source }
    }
}

impl Operator for Columns {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        for (name, expression) in &self.columns {
            let data_type = expression.check("columns", &columns).map_err(of(name))?;
            columns.set(name, data_type);
        }
        Ok(Checked::table(columns))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let mut table = inputs.table(0)?.clone();
        for (name, expression) in &self.columns {
            let column = expression.evaluate("columns", &table).map_err(of(name))?;
            table = table.with_columns(vec![(name.clone(), column)])?;
        }
        Ok(Outcome::table(table))
    }
}
