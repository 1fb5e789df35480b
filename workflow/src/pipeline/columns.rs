//! What is known of a table before anything runs: its columns and their types, as far as they do not depend on data.

use arrow::datatypes::{DataType, SchemaRef};

use super::error::OperatorError;
use crate::suggest::nearest;

/// Names and types of a table's columns. Where the names depend on data, as OneHotEncoding's do, the table is open: it may
/// have more columns, whose names begin with one of the prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    known: Vec<(String, DataType)>,
    open: Vec<(String, DataType)>,
}

impl Columns {
    /// Exactly these columns.
    pub fn new(known: Vec<(String, DataType)>) -> Self {
        Self { known, open: Vec::new() }
    }

    /// Exactly the columns of `schema`.
    pub fn of(schema: &SchemaRef) -> Self {
        Self::new(schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect())
    }

    /// Columns that are there for certain, in order.
    pub fn known(&self) -> &[(String, DataType)] {
        &self.known
    }

    /// Prefixes and types of columns that there may be besides.
    pub fn open(&self) -> &[(String, DataType)] {
        &self.open
    }

    /// Whether all columns are known.
    pub fn is_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the column is there for certain.
    pub fn has(&self, name: &str) -> bool {
        self.known.iter().any(|(n, _)| n == name)
    }

    /// Type of the column `name`, which the parameter `param` asks for.
    ///
    /// Errors: `NoColumn` when it cannot be there.
    pub fn get(&self, param: &'static str, name: &str) -> Result<DataType, OperatorError> {
        let known = self.known.iter().find(|(n, _)| n == name);
        let open = || self.open.iter().find(|(prefix, _)| name.starts_with(prefix.as_str()));
        known.or_else(open).map(|(_, t)| t.clone()).ok_or_else(|| {
            let names = self.known.iter().map(|(n, _)| n.clone());
            let known: Vec<String> = names.chain(self.open.iter().map(|(p, _)| format!("{p}…"))).collect();
            OperatorError::NoColumn {
                param,
                column: name.into(),
                nearest: nearest(name, self.known.iter().map(|(n, _)| n.as_str())),
                known: known.join(", "),
            }
        })
    }

    /// As [`Columns::get`], for a column that must not be text.
    ///
    /// Errors: `NoColumn`, `ColumnType`.
    pub fn number(&self, param: &'static str, name: &str) -> Result<DataType, OperatorError> {
        self.of_type(param, name, "a number, boolean or date", |t| *t != DataType::Utf8)
    }

    /// As [`Columns::get`], for a column whose type passes `fits`; `expected` says which in words.
    ///
    /// Errors: `NoColumn`, `ColumnType`.
    pub fn of_type(
        &self,
        param: &'static str,
        name: &str,
        expected: &str,
        fits: impl Fn(&DataType) -> bool,
    ) -> Result<DataType, OperatorError> {
        let found = self.get(param, name)?;
        if fits(&found) {
            return Ok(found);
        }
        let (column, expected, found) = (name.into(), expected.into(), type_name(&found).into());
        Err(OperatorError::ColumnType { param, column, expected, found })
    }

    /// The same with a column of that name, in place of one or behind the others.
    pub fn set(&mut self, name: impl Into<String>, data_type: DataType) {
        let name = name.into();
        match self.known.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = data_type,
            None => self.known.push((name, data_type)),
        }
    }

    /// As [`Columns::set`], for a new column, whose name the parameter `param` gives.
    ///
    /// Errors: `Param` when there is a column of that name, which would be lost.
    pub fn add(&mut self, param: &'static str, name: &str, data_type: DataType) -> Result<(), OperatorError> {
        if self.has(name) {
            let why = format!("there is a column {name} already; choose another name, or drop that column before");
            return Err(OperatorError::Param { param, why });
        }
        self.set(name, data_type);
        Ok(())
    }

    /// Takes a column away.
    pub fn remove(&mut self, name: &str) {
        self.known.retain(|(n, _)| n != name);
    }

    /// Says that there may be more columns of type `data_type` whose names begin with `prefix`.
    pub fn open_to(&mut self, prefix: impl Into<String>, data_type: DataType) {
        self.open.push((prefix.into(), data_type));
    }
}

/// A type's name in messages and descriptions.
pub fn type_name(t: &DataType) -> &'static str {
    match t {
        DataType::Float64 => "float64",
        DataType::Float32 => "float32",
        DataType::Int64 => "int64",
        DataType::Boolean => "boolean",
        DataType::Date32 => "date",
        DataType::Utf8 => "text",
        _ => "another type",
    }
}

/// The type of a name; the inverse of [`type_name`].
pub fn type_of_name(name: &str) -> Option<DataType> {
    TYPES.iter().find(|t| type_name(t) == name).cloned()
}

/// All types that columns of pipelines have.
pub const TYPES: [DataType; 6] =
    [DataType::Float64, DataType::Float32, DataType::Int64, DataType::Boolean, DataType::Date32, DataType::Utf8];
