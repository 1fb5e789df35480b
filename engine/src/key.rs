//! Keys: `project.model[@version].intermediate[.columns]`. A part that holds a dot, an `@` or a quote is double-quoted as
//! in SQL. Names are data: any non-empty text is one.

use std::fmt;
use std::str::FromStr;

use crate::error::{EngineError, Result};

/// A model, with its version where one is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey {
    /// Project.
    pub project: String,
    /// Model.
    pub model: String,
    /// Version (epoch, step, checkpoint); empty for the unversioned model.
    pub version: String,
}

/// An intermediate of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntermediateKey {
    /// The model.
    pub model: ModelKey,
    /// Layer or stage.
    pub intermediate: String,
}

/// A key as written: an intermediate, and the text of a column selector where one follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The intermediate.
    pub intermediate: IntermediateKey,
    /// The column selector: its text, and whether it was quoted (then it is a column's name).
    pub columns: Option<(String, bool)>,
}

impl ModelKey {
    /// The model `project.model`, unversioned.
    pub fn new(project: impl Into<String>, model: impl Into<String>) -> Self {
        Self { project: project.into(), model: model.into(), version: String::new() }
    }

    /// The same model at `version`.
    #[must_use]
    pub fn at(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The intermediate of that name.
    pub fn intermediate(&self, name: impl Into<String>) -> IntermediateKey {
        IntermediateKey { model: self.clone(), intermediate: name.into() }
    }

    /// Checks that the names are not empty.
    ///
    /// Errors: `Invalid`.
    pub fn check(&self) -> Result<()> {
        for (what, name) in [("project", &self.project), ("model", &self.model)] {
            if name.is_empty() {
                return Err(invalid("key", &self.to_string(), format!("the {what}'s name is empty")));
            }
        }
        Ok(())
    }
}

fn invalid(what: &'static str, given: &str, why: impl Into<String>) -> EngineError {
    EngineError::Invalid { what, given: given.to_string(), why: why.into() }
}

/// A part of a key as it must be written.
pub fn quote(name: &str) -> String {
    let plain =
        !name.is_empty() && !name.contains(['.', '"', '@', '*', '?', ',', '\'']) && !name.contains(char::is_whitespace);
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.project), quote(&self.model))?;
        if !self.version.is_empty() {
            write!(f, "@{}", quote(&self.version))?;
        }
        Ok(())
    }
}

impl fmt::Display for IntermediateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.model, quote(&self.intermediate))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.intermediate)?;
        match &self.columns {
            None => Ok(()),
            Some((name, true)) => write!(f, ".\"{}\"", name.replace('"', "\"\"")),
            Some((text, false)) => write!(f, ".{text}"),
        }
    }
}

/// One part of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Part {
    name: String,
    quoted: bool,
    version: Option<String>,
}

/// Splits at dots outside of quotes; an `@` begins a version. The fourth part (columns) takes the rest as it stands.
fn parts(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        if parts.len() == 3 && !rest.starts_with('"') {
            parts.push(Part { name: rest.to_string(), ..Part::default() });
            break;
        }
        let mut part = Part::default();
        (part.name, part.quoted, rest) = word(text, rest)?;
        if let Some(after) = rest.strip_prefix('@') {
            let (version, _, remaining) = word(text, after)?;
            if version.is_empty() {
                return Err(invalid("key", text, "a version follows the @; leave the @ out for the model without one"));
            }
            (part.version, rest) = (Some(version), remaining);
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => break,
            None => return Err(invalid("key", text, format!("unexpected {rest:?} after a closing quote"))),
        }
    }
    Ok(parts)
}

/// A quoted or plain word at the start of `rest`: its text, whether it was quoted, what follows.
fn word<'a>(text: &str, rest: &'a str) -> Result<(String, bool, &'a str)> {
    let Some(mut inner) = rest.strip_prefix('"') else {
        let end = rest.find(['.', '@']).unwrap_or(rest.len());
        let (name, remaining) = rest.split_at(end);
        if name.contains('"') {
            return Err(invalid("key", text, "a quote inside of a part; write \"a\"\"b\" for the name a\"b"));
        }
        return Ok((name.to_string(), false, remaining));
    };
    let mut name = String::new();
    loop {
        let Some(end) = inner.find('"') else {
            return Err(invalid("key", text, "a quote is not closed"));
        };
        name.push_str(&inner[..end]);
        inner = &inner[end + 1..];
        match inner.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                inner = after;
            }
            None => return Ok((name, true, inner)),
        }
    }
}

fn model_key(text: &str, parts: &[Part]) -> Result<ModelKey> {
    let [project, model, ..] = parts else {
        return Err(invalid("key", text, "expected project.model.intermediate"));
    };
    let key = ModelKey {
        project: project.name.clone(),
        model: model.name.clone(),
        version: model.version.clone().unwrap_or_default(),
    };
    key.check()?;
    if parts.iter().enumerate().any(|(i, p)| i != 1 && p.version.is_some()) {
        return Err(invalid("key", text, "only the model has a version (project.model@version.intermediate)"));
    }
    Ok(key)
}

impl FromStr for ModelKey {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        let parts = parts(text)?;
        if parts.len() != 2 {
            return Err(invalid("model", text, "expected project.model or project.model@version"));
        }
        model_key(text, &parts)
    }
}

impl FromStr for IntermediateKey {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        let key: Key = text.parse()?;
        match key.columns {
            None => Ok(key.intermediate),
            Some(_) => {
                Err(invalid("key of an intermediate", text, "it names columns; expected project.model.intermediate"))
            }
        }
    }
}

impl FromStr for Key {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        let parts = parts(text)?;
        if !(3..=4).contains(&parts.len()) {
            return Err(invalid(
                "key",
                text,
                "expected project.model.intermediate[.columns]; double-quote a part that holds a dot",
            ));
        }
        let model = model_key(text, &parts)?;
        if parts[2].name.is_empty() || parts.get(3).is_some_and(|c| c.name.is_empty()) {
            return Err(invalid("key", text, "a part is empty"));
        }
        Ok(Self {
            intermediate: model.intermediate(parts[2].name.clone()),
            columns: parts.get(3).map(|c| (c.name.clone(), c.quoted)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_design() {
        let key: Key = "cifar.resnet18.\"layer1.0.conv1\".u35".parse().unwrap();
        assert_eq!(key.intermediate.intermediate, "layer1.0.conv1");
        assert_eq!(key.columns, Some(("u35".into(), false)));
        let key: Key = "p.vgg16@epoch-3.logits".parse().unwrap();
        assert_eq!(key.intermediate.model.version, "epoch-3");
        let key: Key = "p.m.conv1.u35[4,7]".parse().unwrap();
        assert_eq!(key.columns, Some(("u35[4,7]".into(), false)));
    }

    #[test]
    fn bad_keys_say_why() {
        for bad in [
            "",
            "a",
            "a.b",
            "a..c",
            "a.b.",
            ".b.c",
            "a.\"b.c",
            "a.b\"c.d",
            "a@1.b.c",
            "a.b.\"c\"x",
            "a.b@.c",
            "a.b@\"\".c",
        ] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?} was taken");
        }
        assert!("a.b@".parse::<ModelKey>().unwrap_err().to_string().contains("a version follows the @"));
    }

    proptest! {
        #[test]
        fn any_names_print_and_parse(p in ".+", m in ".+", v in ".*", i in ".+", c in ".+") {
            let key = Key {
                intermediate: ModelKey { project: p, model: m, version: v }.intermediate(i),
                columns: Some((c, true)),
            };
            prop_assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        }
    }
}
