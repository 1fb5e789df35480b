//! The parameters of a stage, taken one by one; what is left at the end is unknown, and what was taken, with its defaults,
//! is the canonical form from which fingerprints are made.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::{PipelineError, Spot};
use super::node::{Key, Kind, Node, Place};
use crate::suggest::nearest;

/// Entries of a map, or of a list of maps of one entry: the canonical form, which keeps their order.
fn entries(node: &Node) -> Option<Vec<(Key, Node)>> {
    match &node.kind {
        Kind::Map(map) => Some(map.clone()),
        Kind::List(list) => list
            .iter()
            .map(|n| match &n.kind {
                Kind::Map(map) => <[_; 1]>::try_from(map.clone()).ok().map(|[entry]| entry),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// The names that there are, behind `words`, and the one of them that is nearest to `name`.
pub(crate) fn one_of(words: &str, name: &str, known: &[&str]) -> String {
    let near = nearest(name, known.iter().copied()).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
    format!("{words} {}{near}", known.join(", "))
}

/// Parameters as written.
pub(crate) type Written = Vec<(Key, Node)>;

/// The parameters of one stage.
pub struct Params {
    pub(crate) file: Arc<str>,
    pub(crate) stage: String,
    pub(crate) op: String,
    pub(crate) place: Place,
    left: Vec<(Key, Node)>,
    /// All as written, to find the place of a text later.
    written: Vec<(Key, Node)>,
    known: Vec<&'static str>,
    /// The first parameter that is missing; said when all others are known to be right.
    lacking: Option<PipelineError>,
    canonical: Map<String, Value>,
}

impl Params {
    pub(crate) fn new(file: &Arc<str>, stage: &str, op: &str, place: Place, keys: Vec<(Key, Node)>) -> Self {
        Self {
            file: Arc::clone(file),
            stage: stage.into(),
            op: op.into(),
            place,
            written: keys.clone(),
            left: keys,
            known: Vec::new(),
            lacking: None,
            canonical: Map::new(),
        }
    }

    /// Lets the parameter `alias` be written for `key`.
    pub fn alias(&mut self, alias: &'static str, key: &'static str) {
        for (k, _) in self.left.iter_mut().chain(&mut self.written).filter(|(k, _)| k.name == alias) {
            k.name = key.into();
        }
    }

    /// Says that the stage may have the key `key`, which is no parameter of the operator.
    pub(crate) fn allow(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// The value of `key` as written; not yet part of the canonical form (see [`Params::keep`]).
    pub(crate) fn take(&mut self, key: &'static str) -> Result<Option<Node>, PipelineError> {
        self.known.push(key);
        let Some(at) = self.left.iter().position(|(k, _)| k.name == key) else { return Ok(None) };
        let (_, node) = self.left.remove(at);
        if let Some((again, _)) = self.left.iter().find(|(k, _)| k.name == key) {
            let at = Spot::new(&self.file, again.place);
            let found = "given twice, under two names".into();
            return Err(PipelineError::BadValue { at, param: key.into(), expected: "one value".into(), found });
        }
        Ok(Some(node).filter(|n| !matches!(n.kind, Kind::Null)))
    }

    /// Adds what a key means to the canonical form.
    pub(crate) fn keep(&mut self, key: &str, value: Value) {
        self.canonical.insert(key.into(), value);
    }

    /// A `MissingParam`. An operator that needs it to go on takes all its other parameters before, since one that is unknown
    /// matters more.
    pub fn missing(&self, key: &str, expected: impl Into<String>) -> PipelineError {
        PipelineError::MissingParam {
            at: Spot::new(&self.file, self.place),
            stage: self.stage.clone(),
            op: self.op.clone(),
            param: key.into(),
            expected: expected.into(),
        }
    }

    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>, node: &Node) -> PipelineError {
        PipelineError::BadValue {
            at: Spot::new(&self.file, node.place),
            param: key.into(),
            expected: expected.into(),
            found: node.shown(),
        }
    }

    /// A `BadValue` for a parameter that was taken and turned out not to fit.
    pub fn unfit(&self, key: &str, expected: impl Into<String>) -> PipelineError {
        let node = self.written.iter().find(|(k, _)| k.name == key).map(|(_, n)| n.clone());
        self.bad(key, expected, &node.unwrap_or(Node { place: self.place, kind: Kind::Null }))
    }

    /// The same for the entry called `entry` of a parameter with several.
    pub fn unfit_entry(&self, key: &str, entry: &str, expected: impl Into<String>) -> PipelineError {
        let node = self.written.iter().find(|(k, _)| k.name == key).and_then(|(_, n)| n.entry(entry));
        match node {
            Some((place, node)) => self.bad(key, expected, &node.at(place)),
            None => self.unfit(key, expected),
        }
    }

    /// An optional number for which `valid` holds; `expected` says so in words.
    pub fn number_opt(
        &mut self,
        key: &'static str,
        expected: &str,
        valid: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(None) };
        let number = if let Kind::Number(n) = &node.kind { n.as_f64() } else { None };
        match number {
            Some(n) if valid(n) => {
                self.keep(key, json!(n));
                Ok(Some(n))
            }
            _ => Err(self.bad(key, expected, &node)),
        }
    }

    /// A number for which `valid` holds, or the default.
    pub fn number_or(
        &mut self,
        key: &'static str,
        default: f64,
        expected: &str,
        valid: impl Fn(f64) -> bool,
    ) -> Result<f64, PipelineError> {
        let number = self.number_opt(key, expected, valid)?.unwrap_or(default);
        self.keep(key, json!(number));
        Ok(number)
    }

    /// An optional whole number in `range`.
    pub fn whole_opt(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(None) };
        let number = match &node.kind {
            Kind::Number(n) => {
                n.as_u64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64))
            }
            _ => None,
        };
        match number {
            Some(n) if range.contains(&n) => {
                self.keep(key, json!(n));
                Ok(Some(n))
            }
            _ => Err(self.bad(key, format!("a whole number from {} to {}", range.start(), range.end()), &node)),
        }
    }

    /// A whole number in `range`, or the default.
    pub fn whole_or(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, PipelineError> {
        let number = self.whole_opt(key, range)?.unwrap_or(default);
        self.keep(key, json!(number));
        Ok(number)
    }

    /// A truth value, or the default.
    pub fn flag_or(&mut self, key: &'static str, default: bool) -> Result<bool, PipelineError> {
        let flag = match self.take(key)? {
            None => default,
            Some(Node { kind: Kind::Bool(b), .. }) => b,
            Some(node) => return Err(self.bad(key, "true or false", &node)),
        };
        self.keep(key, json!(flag));
        Ok(flag)
    }

    /// An optional text.
    pub fn text_opt(&mut self, key: &'static str) -> Result<Option<String>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(None) };
        match node.text() {
            Some(text) => {
                let text = text.to_string();
                self.keep(key, json!(text));
                Ok(Some(text))
            }
            None => Err(self.bad(key, "a text (quote it)", &node)),
        }
    }

    /// A text that must be given; `expected` says what it is. Where it is missing, an empty one stands for it until
    /// [`Params::finish`].
    pub fn text(&mut self, key: &'static str, expected: &str) -> Result<String, PipelineError> {
        let text = self.text_opt(key)?;
        Ok(text.unwrap_or_else(|| self.lack(key, expected)))
    }

    fn lack<T: Default>(&mut self, key: &str, expected: &str) -> T {
        if self.lacking.is_none() {
            self.lacking = Some(self.missing(key, expected));
        }
        T::default()
    }

    /// A text, or the default.
    pub fn text_or(&mut self, key: &'static str, default: &str) -> Result<String, PipelineError> {
        let text = self.text_opt(key)?.unwrap_or_else(|| default.into());
        self.keep(key, json!(text));
        Ok(text)
    }

    /// A list of texts, none of them twice; one text stands for a list of one.
    pub fn texts_opt(&mut self, key: &'static str) -> Result<Option<Vec<String>>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(None) };
        let texts: Option<Vec<String>> = match &node.kind {
            Kind::Text(text) => Some(vec![text.clone()]),
            Kind::List(list) => list.iter().map(|n| n.text().map(String::from)).collect(),
            _ => None,
        };
        let Some(texts) = texts else { return Err(self.bad(key, "a list of texts, such as [a, b]", &node)) };
        if let Some((i, twice)) = texts.iter().enumerate().find(|(i, t)| texts.iter().take(*i).any(|o| o == *t)) {
            let place = if let Kind::List(list) = &node.kind {
                list.get(i).map_or(node.place, |n| n.place)
            } else {
                node.place
            };
            let at = Spot::new(&self.file, place);
            let (expected, found) = ("each name once".into(), format!("{twice:?} twice"));
            return Err(PipelineError::BadValue { at, param: key.into(), expected, found });
        }
        self.keep(key, json!(texts));
        Ok(Some(texts))
    }

    /// A list of at least one text that must be given; `expected` says what they are. Where it is missing, an empty one
    /// stands for it until [`Params::finish`].
    pub fn texts(&mut self, key: &'static str, expected: &str) -> Result<Vec<String>, PipelineError> {
        let texts = self.texts_opt(key)?.filter(|texts| !texts.is_empty());
        Ok(texts.unwrap_or_else(|| self.lack(key, expected)))
    }

    /// A choice among names, or the default.
    pub fn choice_or(
        &mut self,
        key: &'static str,
        default: &'static str,
        choices: &[&'static str],
    ) -> Result<&'static str, PipelineError> {
        let Some(node) = self.take(key)? else {
            self.keep(key, json!(default));
            return Ok(default);
        };
        match node.text().and_then(|text| choices.iter().find(|c| **c == text)) {
            Some(choice) => {
                self.keep(key, json!(choice));
                Ok(choice)
            }
            None => Err(self.bad(key, one_of("one of", node.text().unwrap_or_default(), choices), &node)),
        }
    }

    /// A map of numbers by name, in the order of the file.
    pub fn numbers_by_name(&mut self, key: &'static str) -> Result<Vec<(String, f64)>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(Vec::new()) };
        let number = |n: &Node| if let Kind::Number(n) = &n.kind { n.as_f64() } else { None };
        let entry = |(k, v): &(Key, Node)| Some((k.name.clone(), number(v)?));
        let map: Option<Vec<(String, f64)>> = entries(&node).and_then(|e| e.iter().map(entry).collect());
        let Some(map) = map else { return Err(self.bad(key, "numbers by name, such as {a: 0.5, b: 1}", &node)) };
        self.keep(key, map.iter().map(|(k, v)| json!({ k.as_str(): v })).collect());
        Ok(map)
    }

    /// A list of numbers.
    pub fn numbers_opt(&mut self, key: &'static str) -> Result<Option<Vec<f64>>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(None) };
        let number = |n: &Node| if let Kind::Number(n) = &n.kind { n.as_f64() } else { None };
        let list: Option<Vec<f64>> =
            if let Kind::List(list) = &node.kind { list.iter().map(number).collect() } else { None };
        let Some(list) = list else { return Err(self.bad(key, "a list of numbers, such as [0.5, 1]", &node)) };
        self.keep(key, json!(list));
        Ok(Some(list))
    }

    /// A map of texts by name, in the order of the file.
    pub fn texts_by_name(&mut self, key: &'static str) -> Result<Vec<(String, String)>, PipelineError> {
        let Some(node) = self.take(key)? else { return Ok(Vec::new()) };
        let text = |(k, v): &(Key, Node)| Some((k.name.clone(), v.text()?.to_string()));
        let map: Option<Vec<(String, String)>> = entries(&node).and_then(|e| e.iter().map(text).collect());
        let Some(map) = map else { return Err(self.bad(key, "texts by name, such as {a: x, b: y}", &node)) };
        self.keep(key, map.iter().map(|(k, v)| json!({ k.as_str(): v })).collect());
        Ok(map)
    }

    fn unknown(&self, key: &Key) -> PipelineError {
        let mut known = [&self.known[..], &["name", "op", "inputs"]].concat();
        known.sort_unstable();
        known.dedup();
        PipelineError::Unknown {
            at: Spot::new(&self.file, key.place),
            what: format!("parameter of {}", self.op),
            name: key.name.clone(),
            nearest: nearest(&key.name, known.iter().copied()),
            known: known.join(", "),
        }
    }

    /// What was `parsed`, the canonical form, and all as written; checks that every parameter was understood.
    ///
    /// Errors: that of a parameter's value; else `Unknown`; else `MissingParam`.
    pub(crate) fn finish<T>(
        mut self,
        parsed: Result<T, PipelineError>,
    ) -> Result<(T, Map<String, Value>, Written), PipelineError> {
        let parsed = match self.lacking.take() {
            Some(lacking) if parsed.is_ok() => Err(lacking),
            _ => parsed,
        };
        match (self.left.first(), parsed) {
            (Some((key, _)), Ok(_) | Err(PipelineError::MissingParam { .. })) => Err(self.unknown(key)),
            (_, parsed) => Ok((parsed?, self.canonical, self.written)),
        }
    }
}
