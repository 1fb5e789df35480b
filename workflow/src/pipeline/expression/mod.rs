//! Expressions over the columns of a table: parsed once, typed before anything runs, evaluated with Arrow's kernels.

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use arrow::array::ArrayRef;
use arrow::compute::kernels::cast_utils::Parser as _;
use arrow::datatypes::{DataType, Date32Type};

use super::columns::{Columns, type_name};
use super::error::OperatorError;
use super::table::Table;

/// A parsed expression.
#[derive(Clone, PartialEq)]
pub(crate) struct Expression {
    text: String,
    root: Expr,
}

/// A node of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Whole(i64),
    Number(f64),
    Text(String),
    Boolean(bool),
    Null,
    Column(String),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    /// The first term, and the others in order: a long chain must not be a deep tree.
    Arithmetic(Box<Expr>, Vec<(Arithmetic, Expr)>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Vec<Expr>),
    Or(Box<Expr>, Vec<Expr>),
    In(Box<Expr>, Vec<Expr>),
    /// Conditions with values, and the value otherwise.
    When(Vec<(Expr, Expr)>, Box<Expr>),
    Call(Function, Vec<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Abs,
    Sqrt,
    Exp,
    Log,
    Log1p,
    Floor,
    Ceil,
    Round,
    Year,
    Month,
    Day,
    Min,
    Max,
    Coalesce,
    Float,
    Int,
}

/// Names of the functions, `when` aside.
pub(crate) const FUNCTIONS: [(&str, Function); 16] = [
    ("abs", Function::Abs),
    ("sqrt", Function::Sqrt),
    ("exp", Function::Exp),
    ("log", Function::Log),
    ("log1p", Function::Log1p),
    ("floor", Function::Floor),
    ("ceil", Function::Ceil),
    ("round", Function::Round),
    ("year", Function::Year),
    ("month", Function::Month),
    ("day", Function::Day),
    ("min", Function::Min),
    ("max", Function::Max),
    ("coalesce", Function::Coalesce),
    ("float", Function::Float),
    ("int", Function::Int),
];

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    /// The expression in `text`.
    ///
    /// Errors: what was expected, and where, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.into(), root: parse::parse(text)? })
    }

    /// Type of the expression over tables of these columns; `param` holds it.
    ///
    /// Errors: `NoColumn`, `Param` for types that do not go together.
    pub(crate) fn check(&self, param: &'static str, columns: &Columns) -> Result<DataType, OperatorError> {
        let checker = Checker { param, columns };
        match checker.type_of(&self.root)? {
            DataType::Null => Err(OperatorError::Param { param, why: format!("{:?} is always null", self.text) }),
            found => Ok(found),
        }
    }

    /// The expression's value for every row.
    ///
    /// Errors: as [`Expression::check`]; `Arrow` for an overflow or a division of whole numbers by zero; `NotWhole`.
    pub(crate) fn evaluate(&self, param: &'static str, table: &Table) -> Result<ArrayRef, OperatorError> {
        let columns = Columns::of(&table.schema());
        let result = self.check(param, &columns)?;
        evaluate::evaluate(param, table, &columns, &self.root, &result)
    }
}

struct Checker<'a> {
    param: &'static str,
    columns: &'a Columns,
}

fn is_number(t: &DataType) -> bool {
    matches!(t, DataType::Int64 | DataType::Float64 | DataType::Float32 | DataType::Null)
}

fn is_date_pair(a: &DataType, b: &DataType) -> bool {
    matches!((a, b), (DataType::Date32, DataType::Utf8) | (DataType::Utf8, DataType::Date32))
}

/// The type that can hold values of both.
pub(crate) fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (DataType::Null, t) | (t, DataType::Null) => Some(t.clone()),
        (a, b) if is_number(a) && is_number(b) => Some(DataType::Float64),
        _ => None,
    }
}

impl Checker<'_> {
    fn wrong(&self, what: &str, expected: &str, found: &[&DataType]) -> OperatorError {
        let found: Vec<&str> = found.iter().map(|t| name(t)).collect();
        let why = format!("{what} takes {expected}, found {}", found.join(" and "));
        OperatorError::Param { param: self.param, why }
    }

    fn number(&self, what: &str, expr: &Expr) -> Result<DataType, OperatorError> {
        let found = self.type_of(expr)?;
        if is_number(&found) { Ok(found) } else { Err(self.wrong(what, "numbers", &[&found])) }
    }

    fn boolean(&self, what: &str, expr: &Expr) -> Result<(), OperatorError> {
        match self.type_of(expr)? {
            DataType::Boolean | DataType::Null => Ok(()),
            found => Err(self.wrong(what, "true or false", &[&found])),
        }
    }

    fn comparable(&self, what: &str, a: &Expr, b: &Expr) -> Result<(), OperatorError> {
        let types = (self.type_of(a)?, self.type_of(b)?);
        match &types {
            (DataType::Date32, DataType::Utf8) => self.dates(b),
            (DataType::Utf8, DataType::Date32) => self.dates(a),
            (x, y) if common(x, y).is_some() => Ok(()),
            (x, y) => Err(self.wrong(what, "two values of one kind", &[x, y])),
        }
    }

    /// Refuses a written text that is compared with a date and is none.
    fn dates(&self, expr: &Expr) -> Result<(), OperatorError> {
        match expr {
            Expr::Text(text) if Date32Type::parse(text).is_none() => {
                let why = format!("'{text}' is compared with a date and is none; write it as '2016-01-31'");
                Err(OperatorError::Param { param: self.param, why })
            }
            Expr::When(cases, otherwise) => {
                cases.iter().try_for_each(|(_, value)| self.dates(value))?;
                self.dates(otherwise)
            }
            Expr::Call(Function::Coalesce, arguments) => arguments.iter().try_for_each(|a| self.dates(a)),
            _ => Ok(()),
        }
    }

    fn type_of(&self, expr: &Expr) -> Result<DataType, OperatorError> {
        Ok(match expr {
            Expr::Whole(_) => DataType::Int64,
            Expr::Number(_) => DataType::Float64,
            Expr::Text(_) => DataType::Utf8,
            Expr::Boolean(_) => DataType::Boolean,
            Expr::Null => DataType::Null,
            Expr::Column(name) => self.columns.get(self.param, name)?,
            Expr::Negate(of) => match self.number("-", of)? {
                DataType::Int64 => DataType::Int64,
                _ => DataType::Float64,
            },
            Expr::Not(of) => {
                self.boolean("not", of)?;
                DataType::Boolean
            }
            Expr::IsNull(of) => {
                self.type_of(of)?;
                DataType::Boolean
            }
            Expr::Arithmetic(first, others) => {
                let mut found = self.number(others.first().map_or("+", |(op, _)| op.name()), first)?;
                for (op, other) in others {
                    let both = [found, self.number(op.name(), other)?];
                    let whole = both.iter().all(|t| *t == DataType::Int64) && *op != Arithmetic::Divide;
                    found = if whole { DataType::Int64 } else { DataType::Float64 };
                }
                found
            }
            Expr::Compare(_, a, b) => {
                self.comparable("a comparison", a, b)?;
                DataType::Boolean
            }
            Expr::And(first, others) | Expr::Or(first, others) => {
                self.boolean("and/or", first)?;
                others.iter().try_for_each(|other| self.boolean("and/or", other))?;
                DataType::Boolean
            }
            Expr::In(of, among) => {
                among.iter().try_for_each(|b| self.comparable("in", of, b))?;
                DataType::Boolean
            }
            Expr::When(cases, otherwise) => {
                let mut found = self.type_of(otherwise)?;
                for (condition, value) in cases {
                    self.boolean("when", condition)?;
                    let value = self.type_of(value)?;
                    found = common(&found, &value)
                        .ok_or_else(|| self.wrong("when", "values of one kind", &[&found, &value]))?;
                }
                found
            }
            Expr::Call(function, arguments) => self.call(*function, arguments)?,
        })
    }

    fn call(&self, function: Function, arguments: &[Expr]) -> Result<DataType, OperatorError> {
        let what = function.name();
        let types = arguments.iter().map(|a| self.type_of(a)).collect::<Result<Vec<_>, _>>()?;
        let least = if matches!(function, Function::Min | Function::Max | Function::Coalesce) { 2 } else { 1 };
        if types.len() < least || (least == 1 && types.len() > 1) {
            let why = format!("{what} takes {least} value{}", if least == 1 { "" } else { "s or more" });
            return Err(OperatorError::Param { param: self.param, why });
        }
        let all = |fits: fn(&DataType) -> bool, expected: &str| match types.iter().find(|t| !fits(t)) {
            None => Ok(()),
            Some(t) => Err(self.wrong(what, expected, &[t])),
        };
        let merged = || types.iter().try_fold(DataType::Null, |a, b| common(&a, b));
        match function {
            Function::Year | Function::Month | Function::Day => {
                all(|t| *t == DataType::Date32, "a date")?;
                Ok(DataType::Int64)
            }
            Function::Float | Function::Int => {
                all(|t| *t != DataType::Utf8, "a number, boolean or date")?;
                Ok(if function == Function::Int { DataType::Int64 } else { DataType::Float64 })
            }
            Function::Coalesce => {
                merged().ok_or_else(|| self.wrong(what, "values of one kind", &types.iter().collect::<Vec<_>>()))
            }
            Function::Abs | Function::Min | Function::Max | Function::Floor | Function::Ceil | Function::Round => {
                all(is_number, "numbers")?;
                Ok(if types.iter().all(|t| *t == DataType::Int64) { DataType::Int64 } else { DataType::Float64 })
            }
            Function::Sqrt | Function::Exp | Function::Log | Function::Log1p => {
                all(is_number, "a number")?;
                Ok(DataType::Float64)
            }
        }
    }
}

fn name(t: &DataType) -> &'static str {
    if *t == DataType::Null { "null" } else { type_name(t) }
}

impl Arithmetic {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

impl Function {
    pub(crate) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, f)| *f == self).map_or("?", |(n, _)| n)
    }
}
