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
    #[error("{given:?} is not a {what}: {why} (at character {at})")]
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
    /// A picture that cannot be drawn.
    #[error("{why}")]
    Picture {
        /// Why, and what to do.
        why: String,
    },
}

impl From<arrow::error::ArrowError> for QueryError {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::Engine(EngineError::Arrow(e))
    }
}
