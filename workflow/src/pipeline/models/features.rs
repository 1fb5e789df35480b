//! The columns that a model is trained on, and their values as a matrix.

use arrow::array::Array;
use arrow::datatypes::DataType;

use crate::pipeline::columns::Columns;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::models::Task;
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

/// Which columns a model reads: parameters `target`, `features` (default: every column that is not text) and `exclude`.
#[derive(Debug)]
pub(crate) struct Features {
    target: String,
    features: Option<Vec<String>>,
    exclude: Vec<String>,
}

/// Numbers by column; nulls are NaN.
pub(crate) struct Matrix {
    pub(crate) names: Vec<String>,
    /// Row_ids.
    pub(crate) rows: std::sync::Arc<Vec<u64>>,
    /// One column after another.
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    /// The columns `names` of `table`.
    ///
    /// Errors: `NoColumn`; `ColumnType` for text.
    pub(crate) fn new(table: &Table, param: &'static str, names: &[String]) -> Result<Self, OperatorError> {
        let mut values = Vec::with_capacity(names.len() * table.n_rows());
        for name in names {
            let column = table.numbers(param, name)?;
            match column.null_count() {
                0 => values.extend_from_slice(column.values()),
                _ => values.extend(column.iter().map(|v| v.unwrap_or(f64::NAN))),
            }
        }
        Ok(Self { names: names.to_vec(), rows: std::sync::Arc::clone(table.rows()), values })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Names and values of the columns.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&str, &[f64])> {
        let n = self.n_rows();
        self.names
            .iter()
            .enumerate()
            .map(move |(i, name)| (name.as_str(), self.values.get(i * n..(i + 1) * n).unwrap_or_default()))
    }

    /// Refuses infinite values, and where they are not allowed missing ones.
    ///
    /// Errors: `Value`.
    pub(crate) fn check(&self, allows_missing: bool) -> Result<(), OperatorError> {
        let fits = |v: f64| v.is_finite() || (allows_missing && v.is_nan());
        for (name, values) in self.columns() {
            if let Some((row, value)) = self.rows.iter().zip(values).find(|(_, v)| !fits(**v)) {
                let found = if value.is_nan() { "nothing".to_owned() } else { value.to_string() };
                let expected = match value.is_nan() {
                    true => "a number in every row; put FillNA before, or leave the column out".to_owned(),
                    false => "a finite number".to_owned(),
                };
                return Err(OperatorError::Value { column: name.to_owned(), row: *row, found, expected });
            }
        }
        Ok(())
    }
}

impl Features {
    pub(crate) fn parse(params: &mut Params) -> Result<Self, PipelineError> {
        Ok(Self {
            target: params.text("target", "name of the column to predict")?,
            features: params.texts_opt("features")?,
            exclude: params.texts_opt("exclude")?.unwrap_or_default(),
        })
    }

    /// Columns that are read for certain; the table may be open.
    ///
    /// Errors: `NoColumn`, `ColumnType`, `Param`.
    pub(crate) fn check(&self, table: &Columns) -> Result<Columns, OperatorError> {
        table.number("target", &self.target)?;
        for name in &self.exclude {
            table.get("exclude", name)?;
        }
        let Some(features) = &self.features else {
            let known = table.known().iter().filter(|(n, t)| *t != DataType::Utf8 && !self.is_left_out(n));
            let needs = Columns::new(known.cloned().collect());
            if needs.known().is_empty() && table.is_closed() {
                return Err(self.nothing());
            }
            return Ok(needs);
        };
        if features.contains(&self.target) {
            let why = format!("{} is the target: a model must not read what it is to predict", self.target);
            return Err(OperatorError::Param { param: "features", why });
        }
        let typed = features.iter().filter(|n| !self.exclude.contains(n));
        let typed = typed.map(|n| Ok((n.clone(), table.number("features", n)?)));
        let needs = Columns::new(typed.collect::<Result<_, OperatorError>>()?);
        if needs.known().is_empty() { Err(self.nothing()) } else { Ok(needs) }
    }

    fn nothing(&self) -> OperatorError {
        let why = "no column is left to learn from: all others are text or excluded".to_owned();
        OperatorError::Param { param: "target", why }
    }

    fn is_left_out(&self, name: &str) -> bool {
        name == self.target || self.exclude.iter().any(|n| n == name)
    }

    /// The features and the target of a table.
    ///
    /// Errors: `Empty`; `Value` for a target that is missing, infinite, or in a classification neither 0 nor 1.
    pub(crate) fn read(&self, table: &Table, task: Task) -> Result<(Matrix, Vec<f64>), OperatorError> {
        if table.n_rows() == 0 {
            return Err(OperatorError::Empty { what: "the training table".to_owned() });
        }
        let names: Vec<String> = match &self.features {
            Some(features) => features.iter().filter(|n| !self.exclude.contains(n)).cloned().collect(),
            None => {
                let schema = table.schema();
                let fields = schema.fields().iter().filter(|f| *f.data_type() != DataType::Utf8);
                fields.map(|f| f.name().clone()).filter(|n| !self.is_left_out(n)).collect()
            }
        };
        if names.is_empty() {
            return Err(self.nothing());
        }
        let matrix = Matrix::new(table, "features", &names)?;
        let column = table.numbers("target", &self.target)?;
        let mut target = Vec::with_capacity(table.n_rows());
        for (row, value) in table.rows().iter().zip(&column) {
            let fits = |v: &f64| match task {
                Task::Regression => v.is_finite(),
                Task::Classification => *v == 0.0 || *v == 1.0,
            };
            let expected = match task {
                Task::Regression => "a finite number in every row",
                Task::Classification => "0 or 1, or false or true, in every row",
            };
            let found = value.map_or_else(|| "nothing".to_owned(), |v| v.to_string());
            let (column, expected) = (self.target.clone(), expected.to_owned());
            let bad = || OperatorError::Value { column, row: *row, found, expected };
            target.push(value.filter(fits).ok_or_else(bad)?);
        }
        Ok((matrix, target))
    }
}
