//! What operators have learnt, as JSON: floats round-trip bit for bit, and those that JSON has no number for are texts.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::OperatorError;

/// A float64 in JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Num(pub(crate) f64);

impl Serialize for Num {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            v if v.is_finite() => serializer.serialize_f64(v),
            v if v.is_nan() => serializer.serialize_str("nan"),
            v => serializer.serialize_str(if v > 0.0 { "inf" } else { "-inf" }),
        }
    }
}

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(v) => Ok(Num(v)),
            Either::Text(t) => match t.as_str() {
                "nan" => Ok(Num(f64::NAN)),
                "inf" => Ok(Num(f64::INFINITY)),
                "-inf" => Ok(Num(f64::NEG_INFINITY)),
                _ => Err(D::Error::custom("not a number")),
            },
        }
    }
}

/// JSON of what an operator has learnt.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<Option<Vec<u8>>, OperatorError> {
    let bytes = serde_json::to_vec(value);
    bytes.map(Some).map_err(|e| OperatorError::Library { doing: "write what was learnt", source: e.into() })
}

/// What [`write`] wrote.
///
/// Errors: `Learnt`.
pub(crate) fn read<T: DeserializeOwned>(operator: &'static str, bytes: &[u8]) -> Result<T, OperatorError> {
    serde_json::from_slice(bytes).map_err(|e| OperatorError::Learnt { operator, why: e.to_string() })
}
