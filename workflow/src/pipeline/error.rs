//! What can go wrong with a pipeline: each variant says where, what was expected, and what to do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::error::ArrowError;
use mistique_datasets::DatasetError;
use mistique_engine::EngineError;

use super::node::Place;

/// Where in a pipeline's file an error lies: `P9.yaml:14:9`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// 1-based line; 0 where it is not known.
    pub line: u64,
    /// 1-based column; 0 where it is not known.
    pub column: u64,
}

impl Spot {
    pub(crate) fn new(file: &Arc<str>, place: Place) -> Box<Self> {
        Box::new(Self { file: Arc::clone(file), line: place.line, column: place.column })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

/// `: did you mean X?`, or nothing.
fn guess(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(": did you mean {n}?")).unwrap_or_default()
}

/// `row 14: `, or nothing.
fn of_row(row: Option<u64>) -> String {
    row.map(|row| format!("row {row}: ")).unwrap_or_default()
}

/// ` at line 14`, or nothing.
fn at_line(at: &Spot) -> String {
    if at.line == 0 { String::new() } else { format!(" at line {}", at.line) }
}

/// An error of describing, checking or running a pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The text is no YAML, or its outer structure is not a pipeline's.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Box<Spot>,
        /// What was expected.
        message: String,
    },
    /// No operator has this name.
    #[error("{at}: unknown operator {op}{}{}", at_line(at), match nearest { Some(_) => guess(nearest), None => format!("; known: {known}") })]
    UnknownOperator {
        /// Where.
        at: Box<Spot>,
        /// The operator as written.
        op: String,
        /// The likely intended operator.
        nearest: Option<String>,
        /// All operators, comma separated.
        known: String,
    },
    /// A name that means nothing: a key, a parameter, a stage.
    #[error("{at}: unknown {what} {name}{}{}; known: {known}", at_line(at), guess(nearest))]
    Unknown {
        /// Where.
        at: Box<Spot>,
        /// What kind of name.
        what: String,
        /// The name as written.
        name: String,
        /// The likely intended name.
        nearest: Option<String>,
        /// All names, comma separated.
        known: String,
    },
    /// Something that must be there is not.
    #[error("{at}: stage {stage}: {op} needs `{param}` ({expected})")]
    MissingParam {
        /// Where.
        at: Box<Spot>,
        /// The stage.
        stage: String,
        /// Its operator.
        op: String,
        /// The missing parameter.
        param: String,
        /// What its value must be.
        expected: String,
    },
    /// A value of the wrong type or range.
    #[error("{at}: `{param}` is {found}; expected {expected}")]
    BadValue {
        /// Where.
        at: Box<Spot>,
        /// The parameter.
        param: String,
        /// What was expected.
        expected: String,
        /// The value as written.
        found: String,
    },
    /// Two stages, or two settings, share a name.
    #[error("{at}: the name {name} is already taken on line {first}; give each its own")]
    DuplicateName {
        /// The second of that name.
        at: Box<Spot>,
        /// The name.
        name: String,
        /// Line of the first.
        first: u64,
    },
    /// Stages read from each other in a circle.
    #[error("{at}: the stages form a cycle: {path}; remove one of these inputs")]
    Cycle {
        /// A stage of the circle.
        at: Box<Spot>,
        /// The names along the circle, joined by arrows.
        path: String,
    },
    /// A stage has the wrong number or kind of inputs.
    #[error("{at}: stage {stage}: {op} takes {expected}, found {found}")]
    Inputs {
        /// Where.
        at: Box<Spot>,
        /// The stage.
        stage: String,
        /// Its operator.
        op: String,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// An operator cannot work on the columns that it would get: found before anything ran.
    #[error("{at}: stage {stage} ({op}): {source}")]
    Check {
        /// Where.
        at: Box<Spot>,
        /// The stage.
        stage: String,
        /// Its operator.
        op: String,
        /// Why.
        source: Box<OperatorError>,
    },
    /// A stage failed while it ran.
    #[error("{model}: stage {stage} ({op}) failed: {source}")]
    Stage {
        /// The model.
        model: String,
        /// The stage.
        stage: String,
        /// Its operator.
        op: String,
        /// Why.
        source: Box<OperatorError>,
    },
    /// The pipeline's file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The input.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Results stay cheap to return.
const _: () = assert!(size_of::<PipelineError>() <= 136);

/// Why an operator cannot do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// No column has this name.
    #[error("no column {column}{}; the columns are {known}", guess(nearest))]
    NoColumn {
        /// The parameter that names it.
        param: &'static str,
        /// The name.
        column: String,
        /// The likely intended column.
        nearest: Option<String>,
        /// All columns, comma separated.
        known: String,
    },
    /// A column has a type that does not fit.
    #[error("column {column} is {found}; expected {expected}")]
    ColumnType {
        /// The parameter that names it.
        param: &'static str,
        /// The column.
        column: String,
        /// What was expected.
        expected: String,
        /// Its type.
        found: String,
    },
    /// Columns that cannot stand together.
    #[error("{why}")]
    Columns {
        /// What is wrong, and what to do.
        why: String,
    },
    /// A parameter that does not fit the columns or the other parameters.
    #[error("`{param}`: {why}")]
    Param {
        /// The parameter.
        param: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// One of several entries of a parameter.
    #[error("for {entry}: {source}")]
    Entry {
        /// The parameter.
        param: &'static str,
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        source: Box<OperatorError>,
    },
    /// A value that the operator cannot use.
    #[error("column {column}, row {row}: {found}; expected {expected}")]
    Value {
        /// The column.
        column: String,
        /// The row_id.
        row: u64,
        /// The value.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A value of a file is none of the type that was asked for.
    #[error(
        "{file}: row {row}, column {column}: {found} is not {expected}; give {column} another type in `types`, or correct the file"
    )]
    Cell {
        /// The file, as the stage names it.
        file: String,
        /// The row_id: its position in the file.
        row: u64,
        /// The column.
        column: String,
        /// The value.
        found: String,
        /// What the type holds.
        expected: &'static str,
    },
    /// A number that `int` cannot make whole.
    #[error(
        "row {row}: int takes numbers within int64, found {found}; give such rows another value, as in `when(abs(x) < 9e18, int(x), null)`"
    )]
    NotWhole {
        /// The row_id.
        row: u64,
        /// The number.
        found: String,
    },
    /// An expression has no value.
    #[error("{}{why}", of_row(*row))]
    NoValue {
        /// The row_id, where it is known.
        row: Option<u64>,
        /// What has none, and what to do.
        why: String,
    },
    /// Several rows of a join's right side have one key.
    #[error(
        "the right side of the join has {count} rows whose {column} is {value}; make them unique, or say `on_duplicate: first` or `last`"
    )]
    DuplicateKey {
        /// The key's columns.
        column: String,
        /// The repeated key.
        value: String,
        /// Rows that have it.
        count: usize,
    },
    /// Columns and row_ids of different lengths.
    #[error("{expected} row_ids for {found} rows")]
    RowCount {
        /// Row_ids.
        expected: usize,
        /// Rows.
        found: usize,
    },
    /// What was learnt earlier cannot be used.
    #[error("what {operator} learnt cannot be used: {why}; train again under another version")]
    Learnt {
        /// The operator that should have learnt it.
        operator: &'static str,
        /// What is wrong.
        why: String,
    },
    /// There is nothing to work on.
    #[error("{what} has no rows; check the filters and joins before it")]
    Empty {
        /// What is empty.
        what: String,
    },
    /// Numbers grew beyond what floats hold.
    #[error("the training overflowed: its columns or its target are too large for it; put Scaling before it")]
    Overflow,
    /// A library failed.
    #[error("{doing}: {source}")]
    Library {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The input.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Arrow.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// The log that takes the rows.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl OperatorError {
    /// The parameter that an error is about, and the text in it.
    pub(crate) fn param(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::NoColumn { param, column, .. } | Self::ColumnType { param, column, .. } if !param.is_empty() => {
                Some((param, column))
            }
            Self::Param { param, .. } => Some((param, "")),
            Self::Entry { param, entry, .. } => Some((param, entry)),
            Self::Cell { column, .. } => Some(("types", column)),
            _ => None,
        }
    }
}
