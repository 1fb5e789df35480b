//! How a log works, and what a tensor to log is.

use mistique_quantize::{Code, Effort, MapShape, OnUnholdable, Params, Scheme};

use crate::catalog::stored_code;
use crate::error::{EngineError, Result};
use crate::format::PARTITION_TARGET_BYTES;
use crate::model::{TensorContent, TensorLayout, UnitAxis, units_of};

/// How a log works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogOptions {
    pub(super) budget_bytes: usize,
    pub(super) max_bytes: Option<u64>,
    pub(super) effort: Effort,
    pub(super) on_unholdable: OnUnholdable,
    pub(super) dedup: Dedup,
    pub(super) partition_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            budget_bytes: 256 << 20,
            max_bytes: None,
            effort: Effort::Fast,
            on_unholdable: OnUnholdable::Error,
            dedup: Dedup::default(),
            partition_bytes: PARTITION_TARGET_BYTES,
        }
    }
}

impl LogOptions {
    /// Bytes that queued batches and unfinished RowBlocks may hold (default 256 MiB).
    #[must_use]
    pub fn with_budget_bytes(mut self, bytes: usize) -> Self {
        self.budget_bytes = bytes;
        self
    }

    /// Bytes that this log may write (default: as many as the disk has).
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How hard pages are compressed (default: fast, so that the model does not wait; `compact` makes them small).
    #[must_use]
    pub fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// What to do with values that the scheme cannot hold (default: an error).
    #[must_use]
    pub fn with_on_unholdable(mut self, on: OnUnholdable) -> Self {
        self.on_unholdable = on;
        self
    }

    /// Which chunks are not stored in full (default: [`Dedup::Approximate`]; less only to measure what each saves).
    #[must_use]
    pub fn with_dedup(mut self, dedup: Dedup) -> Self {
        self.dedup = dedup;
        self
    }

    /// Length at which a partition is closed (default 64 MiB).
    #[must_use]
    pub fn with_partition_bytes(mut self, bytes: u64) -> Self {
        self.partition_bytes = bytes;
        self
    }
}

/// Which chunks a log does not store in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dedup {
    /// All are stored.
    Off,
    /// Those of equal content are stored once.
    Exact,
    /// Besides, columns of tables are coded against similar ones.
    #[default]
    Approximate,
}

impl std::str::FromStr for Dedup {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "off" => Ok(Self::Off),
            "exact" => Ok(Self::Exact),
            "approximate" => Ok(Self::Approximate),
            _ => Err(EngineError::Invalid {
                what: "kind of de-duplication",
                given: text.into(),
                why: "use off, exact or approximate".into(),
            }),
        }
    }
}

impl std::fmt::Display for Dedup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Exact => "exact",
            Self::Approximate => "approximate",
        })
    }
}

/// What happens when a model of that key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfExists {
    /// Goes on where it is the same model; another one is an error.
    #[default]
    Continue,
    /// What was logged under the key goes with the next commit.
    Replace,
}

/// A tensor intermediate to log.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Name of the layer or stage.
    pub name: String,
    /// Place among the model's intermediates, from the input on.
    pub position: i64,
    /// Shape of a row.
    pub shape: Vec<usize>,
    /// Type of the values.
    pub dtype: Code,
    /// Which axis counts units.
    pub unit_axis: UnitAxis,
    /// What to do to the values; `None` for the default of shape and type.
    pub scheme: Option<Scheme>,
}

impl TensorSpec {
    /// float32 rows of `shape`, channels first, under the default scheme.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        let (name, shape) = (name.into(), shape.to_vec());
        Self { name, position: 0, shape, dtype: Code::F32, unit_axis: UnitAxis::First, scheme: None }
    }

    /// The same under `scheme`.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// The same at `position`.
    #[must_use]
    pub fn at(mut self, position: i64) -> Self {
        self.position = position;
        self
    }

    /// The same with values of type `dtype`.
    #[must_use]
    pub fn of(mut self, dtype: Code) -> Self {
        self.dtype = dtype;
        self
    }

    pub(super) fn content(&self) -> TensorContent {
        let (_, map) = units_of(&self.shape, self.unit_axis);
        // Only [C, H, W] has maps: neighbours in [tokens, dim] have nothing to do with each other.
        let map = if self.shape.len() == 3 { map } else { MapShape::VECTOR };
        let scheme = self.scheme.clone().unwrap_or_else(|| Scheme::default_for(map, self.dtype));
        let code = stored_code(&scheme, self.dtype);
        let layout = TensorLayout::new(&self.shape, self.unit_axis, &scheme, code);
        let (shape, dtype, unit_axis, params) = (self.shape.clone(), self.dtype, self.unit_axis, Params::none());
        TensorContent { shape, dtype, unit_axis, scheme, params, layout }
    }
}
