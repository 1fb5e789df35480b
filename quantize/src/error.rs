//! What can go wrong: one enum for the crate.

use crate::Code;

/// Why a pure function on values refused its input.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The text is not a scheme.
    #[error("scheme `{text}`: {why}")]
    BadScheme {
        /// The text as given.
        text: String,
        /// What is wrong and how to write it.
        why: &'static str,
    },
    /// `auto(tol)` must be resolved with [`crate::Scheme::choose`] first.
    #[error("scheme `auto` must be chosen from a sample before it can run")]
    Unresolved,
    /// The scheme needs parameters of another kind, or for another number of units.
    #[error("parameters do not fit the scheme: {why}")]
    WrongParams {
        /// What differs.
        why: &'static str,
    },
    /// A fitted scheme got a sample without a single usable value.
    #[error("the sample holds no finite value to fit on")]
    EmptySample,
    /// A buffer's length is not what the layout asks for.
    #[error("{what}: expected {expected} elements, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Length asked for.
        expected: usize,
        /// Length given.
        got: usize,
    },
    /// Units outside the layout.
    #[error("units {first}..{end} of {n_units}")]
    UnitRange {
        /// First unit asked for.
        first: usize,
        /// One past the last unit asked for.
        end: usize,
        /// Units there are.
        n_units: usize,
    },
    /// A layout too large, or with a zero side.
    #[error("map of {h}x{w} with {n_units} units is empty or too large")]
    BadShape {
        /// Rows of a map.
        h: usize,
        /// Columns of a map.
        w: usize,
        /// Units.
        n_units: usize,
    },
    /// A value the scheme cannot hold, under [`crate::OnUnholdable::Error`].
    #[error("value {value} at index {index} cannot be held by {code:?}")]
    Unholdable {
        /// The value.
        value: f32,
        /// Index into the (pooled) values given.
        index: usize,
        /// Code it was to become.
        code: Code,
    },
    /// No conversion or encoding exists for this code.
    #[error("{what} is not defined for {code:?}")]
    UnsupportedCode {
        /// The operation.
        what: &'static str,
        /// The code.
        code: Code,
    },
    /// A stored one-byte identifier is not known.
    #[error("unknown {what} id {id}")]
    UnknownId {
        /// Which table of identifiers.
        what: &'static str,
        /// The byte found.
        id: u8,
    },
    /// Stored bytes that no encoder writes.
    #[error("corrupt {part}: {why}")]
    Corrupt {
        /// Which structure.
        part: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A page coded by the shared tables of its chunk, without those tables.
    #[error("the page needs the shared tables of its chunk")]
    NoSharedTables,
    /// The page is coded against one of another chunk: [`crate::decode_against`] takes both.
    #[error("the page needs the chunk that it is coded against")]
    NoBase,
    /// The compressor refused; not expected on any input.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// The compressor refused; not expected on any input.
    #[error("pco: {0}")]
    Pco(String),
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, QuantizeError>;

const _: () = assert!(size_of::<QuantizeError>() <= 48);

pub(crate) fn check_len(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(QuantizeError::Length { what, expected, got }) }
}

pub(crate) const fn corrupt(part: &'static str, why: &'static str) -> QuantizeError {
    QuantizeError::Corrupt { part, why }
}
