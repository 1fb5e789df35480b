//! "Did you mean …": the known name nearest to a mistyped one.

pub(crate) use mistique_datasets::nearest;

/// ` (did you mean "…"?)`, or nothing.
pub(crate) fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default()
}
