//! Schemes: what is done to the values of an intermediate, as text and as a value.
//!
//! Grammar: `[pool(σ) | pool(σ,max) | pool(S) | pool(S,max) '+'] value`, where value is one of `f32 f16 bf16 f64`,
//! `kbit(k[,unit])`, `lloyd(k[,unit])`, `threshold(α[,unit])`, `threshold(=v)`; or `auto(tol)` alone.
//!
//! Source: MISTIQUE's quantization schemes `LP_QT`, `KBIT_QT`, `THRESHOLD_QT` and `POOL_QT`.

use std::{fmt, str::FromStr};

use crate::{Code, MapShape, QuantizeError, codebook::Bins, error::Result};

/// A finite float with the identity of its bits; −0 is made 0, so `Eq` and `Hash` agree with `==`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Real(u64);

impl Real {
    fn new(v: f64) -> Option<Self> {
        v.is_finite().then(|| Self((v + 0.0).to_bits()))
    }

    pub(crate) const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// First step of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pool {
    None,
    Mean(usize),
    Max(usize),
    Whole,
    WholeMax,
}

/// Second step of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Float(Code),
    Kbit { bits: u8, per_unit: bool, bins: Bins },
    Threshold { alpha: Real, per_unit: bool },
    ThresholdAt(Real),
    Auto(Real),
}

/// What is done to values before they are encoded: pool, then quantize. Printing and parsing round-trip.
///
/// `pool(1)` does nothing and is dropped when parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scheme {
    pub(crate) pool: Pool,
    pub(crate) value: Value,
}

impl Scheme {
    pub(crate) const fn of(pool: Pool, value: Value) -> Self {
        Self { pool, value }
    }

    /// The tolerance of `auto(tol)`, none for any other scheme.
    #[must_use]
    pub const fn is_auto(&self) -> Option<f64> {
        match self.value {
            Value::Auto(tol) => Some(tol.get()),
            _ => None,
        }
    }

    /// Whether [`Scheme::fit`] must see a sample before a reducer can be made.
    #[must_use]
    pub const fn needs_fit(&self) -> bool {
        matches!(self.value, Value::Kbit { .. } | Value::Threshold { .. })
    }

    /// Whether each unit has a codebook or a threshold of its own.
    #[must_use]
    pub const fn is_per_unit(&self) -> bool {
        matches!(self.value, Value::Kbit { per_unit: true, .. } | Value::Threshold { per_unit: true, .. })
    }

    /// Whether every value of type `src` comes back exactly.
    #[must_use]
    pub fn is_lossless_for(&self, src: Code) -> bool {
        use Code::{BF16, F16, F32, F64, Int};
        let Value::Float(code) = self.value else {
            return false;
        };
        self.pool == Pool::None
            && match code {
                F64 => src.is_float() || matches!(src, Int(1 | 2 | 4)),
                F32 => matches!(src, F32 | F16 | BF16 | Int(1 | 2)),
                F16 | BF16 => src == code || src == Int(1),
                _ => false,
            }
    }

    /// Type of the codes this scheme makes; for `auto`, that of its last resort, f32.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self.value {
            Value::Float(code) => code,
            Value::Kbit { bits, .. } => Code::Kbit(bits),
            Value::Threshold { .. } | Value::ThresholdAt(_) => Code::Bit,
            Value::Auto(_) => Code::F32,
        }
    }

    /// Shape of a map after pooling: `ceil(h/σ) × ceil(w/σ)`; windows at the edge are smaller.
    #[must_use]
    pub fn stored_map(&self, map: MapShape) -> MapShape {
        match self.pool {
            Pool::None => map,
            Pool::Whole | Pool::WholeMax => MapShape::VECTOR,
            Pool::Mean(s) | Pool::Max(s) => MapShape { h: map.h.div_ceil(s), w: map.w.div_ceil(s) },
        }
    }

    /// The cells of a map that pooling makes one of, at the lower and right edge fewer.
    #[must_use]
    pub fn window(&self, map: MapShape) -> MapShape {
        let (h, w) = crate::pool::window(self.pool, map);
        MapShape { h, w }
    }

    /// The scheme taken when none is asked for: f64 and bf16 as they are, maps `pool(2)+f16`, vectors `f16`.
    #[must_use]
    pub const fn default_for(map: MapShape, src: Code) -> Self {
        match src {
            Code::F64 => Self::of(Pool::None, Value::Float(Code::F64)),
            Code::BF16 => Self::of(Pool::None, Value::Float(Code::BF16)),
            _ if map.cells() > 1 => Self::of(Pool::Mean(2), Value::Float(Code::F16)),
            _ => Self::of(Pool::None, Value::Float(Code::F16)),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pool {
            Pool::None => {}
            Pool::Mean(s) => write!(f, "pool({s})+")?,
            Pool::Max(s) => write!(f, "pool({s},max)+")?,
            Pool::Whole => write!(f, "pool(S)+")?,
            Pool::WholeMax => write!(f, "pool(S,max)+")?,
        }
        let unit = |per_unit| if per_unit { ",unit" } else { "" };
        match self.value {
            Value::Float(Code::F16) => write!(f, "f16"),
            Value::Float(Code::BF16) => write!(f, "bf16"),
            Value::Float(Code::F64) => write!(f, "f64"),
            Value::Float(_) => write!(f, "f32"),
            Value::Kbit { bits, per_unit, bins } => write!(f, "{}({bits}{})", bins.name(), unit(per_unit)),
            Value::Threshold { alpha, per_unit } => {
                write!(f, "threshold({}{})", alpha.get(), unit(per_unit))
            }
            Value::ThresholdAt(v) => write!(f, "threshold(={})", v.get() as f32),
            Value::Auto(tol) => write!(f, "auto({})", tol.get()),
        }
    }
}

impl FromStr for Scheme {
    type Err = QuantizeError;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|why| QuantizeError::BadScheme { text: text.chars().take(80).collect(), why })
    }
}

type Parse<T> = std::result::Result<T, &'static str>;

fn parse(text: &str) -> Parse<Scheme> {
    let (name, args) = call(text.trim())?;
    if name != "pool" {
        return Ok(Scheme::of(Pool::None, parse_value(name, args)?));
    }
    // The first `+` after the closing bracket, so that signs and exponents in arguments stay whole.
    let close = text.find(')').ok_or("missing `)`")?;
    let (head, tail) = text.split_at(close + 1);
    let Some(value) = tail.trim_start().strip_prefix('+') else {
        return Err("pooling alone does not say how values are stored: write pool(2)+f16");
    };
    let (name, args) = call(value.trim())?;
    let value = parse_value(name, args)?;
    if matches!(value, Value::Auto(_)) {
        return Err("auto(tol) chooses the pooling itself: write auto(tol) alone");
    }
    let (_, args) = call(head.trim())?;
    let pool = parse_pool(args.ok_or("pool needs a size: pool(2) or pool(S)")?)?;
    Ok(Scheme::of(pool, value))
}

/// Splits `name(args)`; only the part up to the first `)` when the text starts with `pool`.
fn call(text: &str) -> Parse<(&str, Option<&str>)> {
    let Some((name, rest)) = text.split_once('(') else {
        return Ok((text, None));
    };
    if name == "pool" {
        let (args, _) = rest.split_once(')').ok_or("missing `)`")?;
        return Ok((name, Some(args)));
    }
    let args = rest.strip_suffix(')').ok_or("missing `)` at the end")?;
    Ok((name.trim(), Some(args)))
}

fn parse_pool(args: &str) -> Parse<Pool> {
    let (size, kind) = match args.split_once(',') {
        None => (args.trim(), ""),
        Some((size, kind)) => (size.trim(), kind.trim()),
    };
    match (size, kind) {
        ("S", "") => return Ok(Pool::Whole),
        ("S", "max") => return Ok(Pool::WholeMax),
        _ => {}
    }
    let size: u32 = size.parse().map_err(|_| "pool size must be a whole number or S")?;
    match (size, kind) {
        (0, _) => Err("pool size must be at least 1"),
        (1, "" | "max") => Ok(Pool::None),
        (s, "") => Ok(Pool::Mean(s as usize)),
        (s, "max") => Ok(Pool::Max(s as usize)),
        _ => Err("the only other kind of pooling is max: pool(2,max) or pool(S,max)"),
    }
}

fn parse_value(name: &str, args: Option<&str>) -> Parse<Value> {
    let float = |code| match args {
        None => Ok(Value::Float(code)),
        Some(_) => Err("float types take no arguments"),
    };
    let args = |why| args.map(str::trim).ok_or(why);
    match name {
        "f16" => float(Code::F16),
        "bf16" => float(Code::BF16),
        "f32" => float(Code::F32),
        "f64" => float(Code::F64),
        "kbit" | "lloyd" => {
            let bins = if name == Bins::Quantiles.name() { Bins::Quantiles } else { Bins::LeastSquares };
            let (bits, per_unit) = split_unit(args("kbit and lloyd need a number of bits: kbit(8), lloyd(8)")?)?;
            match bits.parse() {
                Ok(bits @ 1..=8) => Ok(Value::Kbit { bits, per_unit, bins }),
                _ => Err("kbit and lloyd take 1 to 8 bits"),
            }
        }
        "threshold" => {
            let args = args("threshold needs a quantile, threshold(0.995), or a value, threshold(=1)")?;
            if let Some(v) = args.strip_prefix('=') {
                let v = real(v).ok_or("threshold(=v) needs a finite number")?;
                // Compared in f32, so kept as one.
                return Real::new(f64::from(v.get() as f32))
                    .map(Value::ThresholdAt)
                    .ok_or("threshold(=v) needs a number that float32 holds");
            }
            let (alpha, per_unit) = split_unit(args)?;
            match real(alpha) {
                Some(alpha) if (0.0..=1.0).contains(&alpha.get()) => Ok(Value::Threshold { alpha, per_unit }),
                _ => Err("threshold takes a quantile from 0 to 1, or `=` and a value"),
            }
        }
        "auto" => match real(args("auto needs a tolerance: auto(0.01)")?) {
            Some(tol) if tol.get() >= 0.0 => Ok(Value::Auto(tol)),
            _ => Err("auto takes a relative error of 0 or more"),
        },
        _ => Err(
            "unknown; one of f32, f16, bf16, f64, kbit(k), lloyd(k), threshold(α), auto(tol), with pool(σ)+ before it",
        ),
    }
}

fn split_unit(args: &str) -> Parse<(&str, bool)> {
    match args.split_once(',') {
        None => Ok((args, false)),
        Some((first, last)) if last.trim() == "unit" => Ok((first.trim(), true)),
        Some(_) => Err("the only second argument is `unit`"),
    }
}

fn real(text: &str) -> Option<Real> {
    text.trim().parse().ok().and_then(Real::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_schemes_parse_back() {
        for text in [
            "f32",
            "f16",
            "bf16",
            "f64",
            "kbit(1)",
            "kbit(8,unit)",
            "lloyd(8)",
            "lloyd(3,unit)",
            "threshold(0.995)",
            "threshold(0.5,unit)",
            "threshold(=-1.5)",
            "threshold(=0)",
            "auto(0.01)",
            "pool(2)+f16",
            "pool(3,max)+kbit(4)",
            "pool(S)+f32",
            "pool(S,max)+kbit(8)",
            "pool(7)+threshold(=0.25)",
        ] {
            let scheme: Scheme = text.parse().unwrap();
            assert_eq!(scheme.to_string(), text);
            assert_eq!(scheme.to_string().parse::<Scheme>().unwrap(), scheme);
        }
        assert_eq!("pool(1)+f16".parse::<Scheme>().unwrap().to_string(), "f16");
        assert_eq!(
            " pool( 2 , max ) + kbit( 4 , unit ) ".parse::<Scheme>().unwrap().to_string(),
            "pool(2,max)+kbit(4,unit)"
        );
        assert_eq!("threshold(=1e+1)".parse::<Scheme>().unwrap().to_string(), "threshold(=10)");
        assert_eq!("threshold(=-0)".parse::<Scheme>().unwrap().to_string(), "threshold(=0)");
    }

    #[test]
    fn bad_schemes_are_refused() {
        for text in [
            "",
            "f8",
            "pool(2)",
            "pool(0)+f16",
            "pool()+f16",
            "pool+f16",
            "pool(2)+",
            "pool(2)+auto(0.1)",
            "pool(2)+pool(2)+f16",
            "kbit",
            "kbit()",
            "kbit(0)",
            "kbit(9)",
            "kbit(8,units)",
            "lloyd",
            "lloyd(0)",
            "lloyd(8,unit,unit)",
            "f16()",
            "threshold",
            "threshold(1.1)",
            "threshold(nan)",
            "threshold(=inf)",
            "threshold(=1e60)",
            "auto(-1)",
            "auto",
            "auto(0.1",
            "pool(2,min)+f16",
            "pool(2",
            ")",
            "(",
            "pool(S,min)+f16",
        ] {
            assert!(text.parse::<Scheme>().is_err(), "{text}");
        }
        let err = "pool(2)".parse::<Scheme>().unwrap_err().to_string();
        assert!(err.contains("pool(2)+f16"), "{err}");
    }
}
