//! What an operator is: one file in `operators/`, listed there.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::data::Data;

use super::columns::Columns;
use super::error::{OperatorError, PipelineError};
use super::params::Params;
use super::table::Table;

/// A kind of operator.
pub struct OperatorKind {
    /// Its name in descriptions, such as `OneHotEncoding`.
    pub name: &'static str,
    /// Raised when its results change, so that stages stored by an older build are not taken for its own.
    pub version: u32,
    /// What it reads from other stages.
    pub inputs: &'static [Slot],
    /// Where `fit: STAGE` may name a stage of the same operator whose learnt artifact it applies: the parameters that may
    /// then differ from that stage's. All others were decided when it learnt.
    pub fit: Option<&'static [&'static str]>,
    /// Reads its parameters; what it does not take is reported as unknown.
    pub parse: fn(&mut Params) -> Result<Box<dyn Operator>, PipelineError>,
}

/// What an operator reads from another stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A table.
    Table,
    /// One table or more; only as the last.
    Tables,
    /// What a stage has learnt, such as a trained model.
    Learnt,
}

/// What is known of an input before anything runs.
#[derive(Debug, Clone)]
pub enum Given {
    /// A table of these columns.
    Table(Columns),
    /// What a stage of `operator` will have learnt.
    Learnt {
        /// Name of the operator.
        operator: &'static str,
        /// Columns that a table must have to apply it.
        needs: Columns,
        /// What else whoever applies it has to know, as the operator likes.
        about: BTreeMap<&'static str, String>,
    },
}

impl Given {
    /// The table's columns.
    ///
    /// Errors: `Columns` when it is none; the framework checks the slots before.
    pub fn table(&self) -> Result<&Columns, OperatorError> {
        match self {
            Given::Table(columns) => Ok(columns),
            Given::Learnt { operator, .. } => {
                Err(OperatorError::Columns { why: format!("a table is needed, not what {operator} learnt") })
            }
        }
    }
}

/// What an operator gives, as far as it is known before anything runs.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Its tables: one with an empty name, or several with names; a stage's table is read as `stage` or `stage/name`.
    pub tables: Vec<(&'static str, Columns)>,
    /// When it learns: columns that a table must have to apply what it learns.
    pub needs: Option<Columns>,
    /// When it learns: what else whoever applies it has to know.
    pub about: BTreeMap<&'static str, String>,
}

impl Checked {
    /// One table.
    pub fn table(columns: Columns) -> Self {
        Self { tables: vec![("", columns)], ..Self::default() }
    }

    /// The same of an operator that learns something applicable to tables with the columns `needs`.
    #[must_use]
    pub fn learning(mut self, needs: Columns) -> Self {
        self.needs = Some(needs);
        self
    }
}

/// What a stage has learnt: bytes of a documented format, stored once per content.
#[derive(Debug, Clone)]
pub struct Learnt {
    /// Name of the operator.
    pub operator: &'static str,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

/// A value that a stage reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// A table.
    Table(Table),
    /// What another stage has learnt.
    Learnt(Learnt),
}

/// What an operator works on.
pub struct Inputs<'a> {
    /// In the order of the slots.
    pub values: Vec<Input>,
    /// What this stage (or the one that `fit` names) has learnt.
    pub learnt: Option<Learnt>,
    /// The files that `--data` names.
    pub data: &'a Data,
}

impl Inputs<'_> {
    /// Table `i`.
    ///
    /// Errors: `Columns` when it is none; the framework checks the slots before.
    pub fn table(&self, i: usize) -> Result<&Table, OperatorError> {
        match self.values.get(i) {
            Some(Input::Table(table)) => Ok(table),
            _ => Err(OperatorError::Columns { why: format!("input {i} is no table") }),
        }
    }

    /// All tables, in order.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.values.iter().filter_map(|v| if let Input::Table(t) = v { Some(t) } else { None })
    }

    /// What the stage of input `i` has learnt.
    ///
    /// Errors: `Columns` when it is a table; the framework checks the slots before.
    pub fn learnt_by(&self, i: usize) -> Result<&Learnt, OperatorError> {
        match self.values.get(i) {
            Some(Input::Learnt(learnt)) => Ok(learnt),
            _ => Err(OperatorError::Columns { why: format!("input {i} is a table") }),
        }
    }

    /// The bytes that this stage, or the one that `fit` names, has learnt.
    ///
    /// Errors: `Learnt` when there are none; the framework provides them.
    pub fn own(&self, operator: &'static str) -> Result<&[u8], OperatorError> {
        let own = self.learnt.as_ref().filter(|l| l.operator == operator);
        own.map(|l| &*l.bytes).ok_or_else(|| OperatorError::Learnt { operator, why: "there is nothing".into() })
    }
}

/// What a stage yields.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The tables that `check` announced, in its order.
    pub tables: Vec<Table>,
    /// Named figures, kept with the run.
    pub metrics: BTreeMap<String, f64>,
}

impl Outcome {
    /// One table.
    pub fn table(table: Table) -> Self {
        Self { tables: vec![table], metrics: BTreeMap::new() }
    }
}

/// Takes the rows of a stage's only table while the stage still runs.
pub trait Parts {
    /// How many rows it takes at a time; the last ones may be fewer.
    fn n_rows(&self) -> usize;

    /// Takes rows, in order.
    ///
    /// Errors: `Engine`.
    fn take(&mut self, part: Table) -> Result<(), OperatorError>;

    /// The table of all that was taken.
    ///
    /// Errors: `Engine`.
    fn whole(&mut self) -> Result<Table, OperatorError>;
}

/// An operator with its parameters. It must give the same bits for the same inputs, however often and with however many
/// threads it runs: RERUN and the store rely on it.
pub trait Operator: Debug + Send + Sync {
    /// What the operator will give for such inputs; nothing runs. `data` is asked only by operators that read files.
    ///
    /// Errors: `NoColumn`, `ColumnType` and the like; the parameter that they name says where.
    fn check(&self, inputs: &[Given], data: &Data) -> Result<Checked, OperatorError>;

    /// Learns from the inputs (`None`: nothing to learn). Not called when the artifact is stored already, or taken from
    /// another stage by `fit`.
    ///
    /// Errors: any.
    fn learn(&self, _inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        Ok(None)
    }

    /// Format of the bytes that `learn` gives, for the list of operators.
    fn format(&self) -> &'static str {
        "json"
    }

    /// The operator's tables, from its inputs and what it learnt. Called by RERUN too.
    ///
    /// Errors: any.
    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError>;

    /// As [`Operator::run`], giving rows to `parts` as they come, for operators that have some before they have all.
    ///
    /// Errors: any.
    fn run_in_parts(&self, inputs: &Inputs<'_>, _parts: &mut dyn Parts) -> Result<Outcome, OperatorError> {
        self.run(inputs)
    }

    /// The file that it reads, for operators that read one: its content is part of the stage's fingerprint.
    fn file(&self) -> Option<&str> {
        None
    }
}
