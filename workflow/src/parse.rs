//! From text to raw layers: YAML or JSON, with the line of each layer where the syntax gives it.

use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::error::{At, NetworkError};
use crate::suggest::nearest;

/// A description as written, before any layer is understood.
pub(crate) struct RawNetwork {
    pub(crate) name: String,
    pub(crate) input_shape: Vec<usize>,
    pub(crate) layers: Vec<RawLayer>,
}

/// One layer's keys as written.
pub(crate) struct RawLayer {
    pub(crate) line: Option<u64>,
    pub(crate) keys: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<L> {
    #[serde(default)]
    name: Option<String>,
    input: InputSpec,
    layers: Vec<L>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSpec {
    shape: Vec<usize>,
}

/// The raw layers of `text`.
///
/// Text that starts with `{` is tried as JSON first (tabs are legal there), everything else is YAML.
pub(crate) fn parse(text: &str) -> Result<RawNetwork, NetworkError> {
    if text.trim_start().starts_with('{')
        && let Ok(document) = serde_json::from_str::<Document<Map<String, Value>>>(text)
    {
        let layers = document.layers.into_iter().map(|keys| RawLayer { line: None, keys });
        return Ok(RawNetwork {
            name: document.name.unwrap_or_else(|| "network".into()),
            input_shape: document.input.shape,
            layers: layers.collect(),
        });
    }
    let document: Document<Spanned<Map<String, Value>>> = serde_saphyr::from_str(text).map_err(|e| {
        NetworkError::Syntax { line: e.location().map(|l| l.line()).filter(|&l| l > 0), message: e.to_string() }
    })?;
    let layers = document
        .layers
        .into_iter()
        .map(|spanned| RawLayer { line: Some(spanned.referenced.line()).filter(|&l| l > 0), keys: spanned.value });
    Ok(RawNetwork {
        name: document.name.unwrap_or_else(|| "network".into()),
        input_shape: document.input.shape,
        layers: layers.collect(),
    })
}

/// The keys of one layer, taken one by one; what is left at the end is unknown.
pub(crate) struct Fields {
    pub(crate) at: Box<At>,
    pub(crate) op: String,
    keys: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    pub(crate) fn new(at: Box<At>, keys: Map<String, Value>) -> Self {
        Self { at, op: String::new(), keys, known: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.keys.remove(key).filter(|v| !v.is_null())
    }

    fn missing(&self, key: &str, expected: &str) -> NetworkError {
        NetworkError::MissingKey {
            at: self.at.clone(),
            op: if self.op.is_empty() { "a layer".into() } else { self.op.clone() },
            key: key.into(),
            expected: expected.into(),
        }
    }

    /// A [`NetworkError::BadValue`] for `key`.
    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>, found: &Value) -> NetworkError {
        NetworkError::BadValue {
            at: self.at.clone(),
            key: key.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// A required whole number of at least one.
    pub(crate) fn size(&mut self, key: &'static str) -> Result<usize, NetworkError> {
        self.size_opt(key)?.ok_or_else(|| self.missing(key, "a whole number of at least 1"))
    }

    /// An optional whole number of at least one.
    pub(crate) fn size_opt(&mut self, key: &'static str) -> Result<Option<usize>, NetworkError> {
        self.whole(key, 1)
    }

    /// An optional whole number of at least zero.
    pub(crate) fn count_or(&mut self, key: &'static str, default: usize) -> Result<usize, NetworkError> {
        Ok(self.whole(key, 0)?.unwrap_or(default))
    }

    fn whole(&mut self, key: &'static str, least: u64) -> Result<Option<usize>, NetworkError> {
        /// Far beyond any real size, and small enough that products of two do not overflow.
        const MOST: u64 = 1 << 31;
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if (least..=MOST).contains(&n) => Ok(Some(n as usize)),
            _ => Err(self.bad(key, format!("a whole number from {least} to {MOST}"), &value)),
        }
    }

    /// An optional axis of one row: 0 is the first axis after the batch, negative counts from the end.
    pub(crate) fn axis_or(&mut self, key: &'static str, default: i64) -> Result<i64, NetworkError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.as_i64() {
            Some(n) if (-4..4).contains(&n) => Ok(n),
            _ => Err(self.bad(key, "a whole number from -4 to 3", &value)),
        }
    }

    /// An optional number for which `valid` holds; `expected` says so in words.
    pub(crate) fn number_or(
        &mut self,
        key: &'static str,
        default: f64,
        expected: &str,
        valid: impl Fn(f64) -> bool,
    ) -> Result<f64, NetworkError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.as_f64() {
            Some(n) if valid(n) => Ok(n),
            _ => Err(self.bad(key, expected, &value)),
        }
    }

    /// An optional truth value.
    pub(crate) fn flag_or(&mut self, key: &'static str, default: bool) -> Result<bool, NetworkError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(key, "true or false", &value))
    }

    /// An optional text.
    pub(crate) fn text_opt(&mut self, key: &'static str) -> Result<Option<String>, NetworkError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.bad(key, "a text (quote it)", &value)),
        }
    }

    /// A required text.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<String, NetworkError> {
        self.text_opt(key)?.ok_or_else(|| self.missing(key, "a text"))
    }

    /// An optional choice among names.
    pub(crate) fn choice_opt(
        &mut self,
        key: &'static str,
        choices: &[&'static str],
    ) -> Result<Option<&'static str>, NetworkError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str().and_then(|text| choices.iter().find(|c| **c == text)) {
            Some(choice) => Ok(Some(choice)),
            None => Err(self.bad(key, format!("one of {}", choices.join(", ")), &value)),
        }
    }

    /// A required choice among names.
    pub(crate) fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Result<&'static str, NetworkError> {
        self.choice_opt(key, choices)?.ok_or_else(|| self.missing(key, &format!("one of {}", choices.join(", "))))
    }

    /// The layer's input names: `input: a`, `inputs: [a, b]`, or none.
    pub(crate) fn inputs(&mut self) -> Result<Option<Vec<String>>, NetworkError> {
        let one = self.text_opt("input")?;
        let Some(value) = self.take("inputs") else { return Ok(one.map(|name| vec![name])) };
        if one.is_some() {
            return Err(self.bad("inputs", "either `input` or `inputs`, not both", &value));
        }
        let names = value.as_array().and_then(|list| list.iter().map(|v| v.as_str().map(String::from)).collect());
        match names {
            Some(names) => Ok(Some(names)),
            None => Err(self.bad("inputs", "a list of layer names, such as [conv1, conv2]", &value)),
        }
    }

    /// Checks that every key was understood.
    pub(crate) fn finish(self) -> Result<(), NetworkError> {
        match self.keys.keys().next() {
            None => Ok(()),
            Some(key) => Err(NetworkError::UnknownKey {
                nearest: nearest(key, self.known.iter().copied()),
                known: self.known.join(", "),
                key: key.clone(),
                at: self.at,
                op: self.op,
            }),
        }
    }
}
