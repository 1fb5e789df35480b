//! Of which values of an intermediate an index is: it serves questions about these alone.

/// Whose values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexValues {
    /// Those that READ gives.
    Stored,
    /// The model's own, pooled as the stored ones are.
    Pooled,
    /// The model's own, at the resolution of the layer.
    Exact,
}

impl IndexValues {
    /// How `params.values` says it (FORMAT.md, section 17).
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Pooled => "pooled",
            Self::Exact => "exact",
        }
    }

    /// In words, of what `params.values` says.
    pub fn about(name: &str) -> &'static str {
        match name {
            "stored" => "the stored copy's values",
            "pooled" => "the model's own values, pooled",
            _ => "the model's own values",
        }
    }
}
