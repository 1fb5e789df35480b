//! The errors of this crate.

use mistique_engine::EngineError;

/// Result of this crate.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

/// What went wrong with a question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A column selector that is none, or that the intermediate does not have.
    #[error("{key}: columns {given:?}: {why}")]
    Columns {
        /// The intermediate.
        key: String,
        /// What was written.
        given: String,
        /// Why it does not fit.
        why: String,
    },
    /// A row selection or predicate that cannot be read.
    #[error("{given:?} is not {} {what}: {why} (at character {at})", mistique_engine::article(.what))]
    Parse {
        /// What was expected.
        what: &'static str,
        /// What was written.
        given: String,
        /// Why it is not one.
        why: String,
        /// Where, counted from 1.
        at: usize,
    },
    /// A plan that was asked for and cannot be followed.
    #[error("{key}: {plan} is not possible: {why}")]
    Plan {
        /// The intermediate.
        key: String,
        /// The plan.
        plan: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// Two sides of a comparison that do not fit each other.
    #[error("{what}: {why}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// How they differ.
        why: String,
    },
    /// Values that a measure cannot take.
    #[error("{key}: column {column} holds {count} values that are not finite{}; leave it or those rows out", also(*.others))]
    NotFinite {
        /// The intermediate.
        key: String,
        /// The first such column.
        column: String,
        /// How many of its values.
        count: u64,
        /// How many further columns.
        others: usize,
    },
    /// A measure that has no value for what it was given.
    #[error("{what}: {why}")]
    Undefined {
        /// What was to be measured.
        what: String,
        /// Why it has no value.
        why: String,
    },
    /// A concept's mask that does not fit.
    #[error("mask of {concept:?} for row {row}: {why}")]
    Mask {
        /// The concept.
        concept: String,
        /// The example.
        row: u64,
        /// What does not fit.
        why: String,
    },
    /// A picture that cannot be drawn.
    #[error("{why}")]
    Picture {
        /// Why, and what to do.
        why: String,
    },
}

fn also(others: usize) -> String {
    if others == 0 { String::new() } else { format!(", and {others} more columns do") }
}

impl From<arrow::error::ArrowError> for QueryError {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::Engine(EngineError::Arrow(e))
    }
}
