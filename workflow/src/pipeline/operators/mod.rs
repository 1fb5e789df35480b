//! The operators, one file each. A new one is a file and a line in [`OPERATORS`].

mod avg;
mod drop_columns;
mod select_column;

use super::operator::OperatorKind;

/// All operators.
pub(crate) const OPERATORS: &[&OperatorKind] = &[&avg::KIND, &drop_columns::KIND, &select_column::KIND];

/// The operator called `name`.
pub(crate) fn find(name: &str) -> Option<&'static OperatorKind> {
    OPERATORS.iter().find(|k| k.name == name).copied()
}
