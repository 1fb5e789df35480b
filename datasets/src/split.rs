//! The train and test parts of datasets that come in two.

use crate::{DatasetError, Spec};

/// Which part of a dataset a spec asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// The training part.
    #[default]
    Train,
    /// The test part.
    Test,
    /// The training part followed by the test part.
    All,
}

impl Split {
    /// The `split` option of `spec`, by default the training part.
    pub(crate) fn of(spec: &Spec) -> Result<Split, DatasetError> {
        match spec.option("split") {
            None => Ok(Split::default()),
            Some("train") => Ok(Split::Train),
            Some("test") => Ok(Split::Test),
            Some("all") => Ok(Split::All),
            Some(other) => Err(spec.bad(format!("split is '{other}'"), "write split=train, split=test or split=all")),
        }
    }

    pub(crate) fn has_train(self) -> bool {
        self != Split::Test
    }

    pub(crate) fn has_test(self) -> bool {
        self != Split::Train
    }
}
