//! What a store materializes.

use std::fmt;
use std::str::FromStr;

use crate::catalog::Catalog;
use crate::error::{EngineError, Result};

/// Name under which the catalogue keeps the mode.
const SETTING: &str = "materialize";

/// Which values of models that can be run again a store keeps. Values that nothing can run again are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Materialize {
    /// All, as they are logged.
    #[default]
    All,
    /// None: models, intermediates and row_ids are known, values are rerun.
    None,
    /// What queries have shown to be worth it (Alg. 3): none is kept when logged, and columns are once their γ reaches
    /// `gamma_min`.
    Adaptive {
        /// Least γ, in seconds of query time saved per GB stored.
        gamma_min: f64,
    },
    /// The same, while all values take at most so many bytes: the lowest γ leaves first.
    Budget {
        /// Most bytes of values.
        bytes: u64,
        /// Least γ, as above.
        gamma_min: f64,
    },
}

impl Materialize {
    /// The mode of a store.
    pub(crate) fn of(catalog: &Catalog) -> Result<Self> {
        catalog.setting(SETTING)?.map_or(Ok(Self::default()), |text| text.parse())
    }

    pub(crate) fn keep(self, catalog: &Catalog) -> Result<()> {
        catalog.set_setting(SETTING, &self.to_string())
    }

    /// Least γ at which values are kept.
    pub fn gamma_min(self) -> f64 {
        match self {
            Self::All => f64::NEG_INFINITY,
            Self::None => f64::INFINITY,
            Self::Adaptive { gamma_min } | Self::Budget { gamma_min, .. } => gamma_min,
        }
    }

    /// Most bytes of values.
    pub fn budget(self) -> Option<u64> {
        if let Self::Budget { bytes, .. } = self { Some(bytes) } else { None }
    }
}

impl fmt::Display for Materialize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all"),
            Self::None => write!(f, "none"),
            Self::Adaptive { gamma_min } => write!(f, "adaptive({gamma_min})"),
            Self::Budget { bytes, gamma_min } => write!(f, "budget({bytes},{gamma_min})"),
        }
    }
}

impl FromStr for Materialize {
    type Err = EngineError;

    /// Reads `all`, `none`, `adaptive(γ_min)` and `budget(BYTES[,γ_min])`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| EngineError::Invalid {
            what: "mode of materialization",
            given: text.to_string(),
            why: format!("{why}; expected all, none, adaptive(SECONDS PER GB) or budget(BYTES[,SECONDS PER GB])"),
        };
        let gamma = |t: &str| {
            let gamma = t.trim().parse::<f64>().ok().filter(|g| g.is_finite() && *g >= 0.0);
            gamma.ok_or_else(|| bad("γ_min is not a number of seconds per GB"))
        };
        let (name, arguments) = match text.trim().strip_suffix(')').and_then(|t| t.split_once('(')) {
            Some((name, arguments)) => (name.trim(), Some(arguments)),
            None => (text.trim(), None),
        };
        match (name, arguments) {
            ("all", None) => Ok(Self::All),
            ("none", None) => Ok(Self::None),
            ("adaptive", Some(arguments)) => Ok(Self::Adaptive { gamma_min: gamma(arguments)? }),
            ("budget", Some(arguments)) => {
                let (bytes, gamma_min) = arguments.split_once(',').unwrap_or((arguments, "0"));
                let bytes = parse_bytes(bytes).map_err(|why| bad(&why))?;
                Ok(Self::Budget { bytes, gamma_min: gamma(gamma_min)? })
            }
            ("adaptive" | "budget", None) => Err(bad("its argument is missing")),
            _ => Err(bad("there is no such mode")),
        }
    }
}

/// Bytes as people write them: `100`, `64kB`, `2 GB`, `256MiB`.
///
/// Errors: what was expected.
pub fn parse_bytes(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| "expected bytes such as 500MB or 2GiB".to_string())?;
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024f64.powi(2),
        "gib" => 1024f64.powi(3),
        "tib" => 1024f64.powi(4),
        other => return Err(format!("unknown unit {other:?}; use B, kB, MB, GB, KiB, MiB or GiB")),
    };
    Ok((number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back() {
        for (text, mode) in [
            ("all", Materialize::All),
            ("none", Materialize::None),
            ("adaptive(0.5)", Materialize::Adaptive { gamma_min: 0.5 }),
            ("budget(2 GB)", Materialize::Budget { bytes: 2_000_000_000, gamma_min: 0.0 }),
            (" budget( 64KiB , 10 ) ", Materialize::Budget { bytes: 65_536, gamma_min: 10.0 }),
        ] {
            assert_eq!(text.parse::<Materialize>().unwrap(), mode);
            assert_eq!(mode.to_string().parse::<Materialize>().unwrap(), mode);
        }
        for bad in ["", "some", "adaptive", "adaptive()", "adaptive(-1)", "adaptive(NaN)", "budget(lots)", "all(1)"] {
            let said = bad.parse::<Materialize>().unwrap_err().to_string();
            assert!(said.contains("expected all, none, adaptive("), "{said}");
        }
    }

    #[test]
    fn bytes_parse() {
        assert_eq!(parse_bytes("256MiB").unwrap(), 256 << 20);
        assert_eq!(parse_bytes("1.5 GB").unwrap(), 1_500_000_000);
        assert_eq!(parse_bytes("12").unwrap(), 12);
        assert!(parse_bytes("lots").is_err() && parse_bytes("5 lots").is_err() && parse_bytes("").is_err());
    }
}
