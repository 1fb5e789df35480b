//! YAML as a tree in which every value knows its line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Where a value stands in its file: 1-based; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A YAML value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// Keys in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map with its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) name: String,
}

impl Node {
    /// The tree in a YAML text. Only `true` and `false` are truth values: `y`, `n`, `on` and the like are names.
    pub(crate) fn parse(text: &str) -> Result<Node, serde_saphyr::Error> {
        serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
    }

    /// A tree of plain values, all at one place.
    pub(crate) fn of(value: &Value, place: Place) -> Node {
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(b) => Kind::Bool(*b),
            Value::Number(n) => Kind::Number(n.clone()),
            Value::String(s) => Kind::Text(s.clone()),
            Value::Array(list) => Kind::List(list.iter().map(|v| Node::of(v, place)).collect()),
            Value::Object(map) => {
                Kind::Map(map.iter().map(|(k, v)| (Key { place, name: k.clone() }, Node::of(v, place))).collect())
            }
        };
        Node { place, kind }
    }

    /// The same, all at one place.
    pub(crate) fn at(&self, place: Place) -> Node {
        let kind = match &self.kind {
            Kind::List(list) => Kind::List(list.iter().map(|n| n.at(place)).collect()),
            Kind::Map(map) => {
                Kind::Map(map.iter().map(|(k, n)| (Key { place, name: k.name.clone() }, n.at(place))).collect())
            }
            other => other.clone(),
        };
        Node { place, kind }
    }

    /// The same without places.
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(b) => Value::Bool(*b),
            Kind::Number(n) => Value::Number(n.clone()),
            Kind::Text(s) => Value::String(s.clone()),
            Kind::List(list) => Value::Array(list.iter().map(Node::value).collect()),
            Kind::Map(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.name.clone(), v.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The text, when it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as an error shows it.
    pub(crate) fn shown(&self) -> String {
        let text = self.value().to_string();
        if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
    }

    /// Place and value of the entry called `name` of a map, or of a list of maps; in a list of texts, of that text.
    pub(crate) fn entry(&self, name: &str) -> Option<(Place, &Node)> {
        match &self.kind {
            Kind::Map(map) => map.iter().find(|(k, _)| k.name == name).map(|(k, v)| (k.place, v)),
            Kind::List(list) => list.iter().find_map(|item| match &item.kind {
                Kind::Text(text) => (text == name).then_some((item.place, item)),
                _ => item.entry(name),
            }),
            _ => None,
        }
    }

    /// Place of the scalar `text` in the tree.
    pub(crate) fn find(&self, text: &str) -> Option<Place> {
        match &self.kind {
            Kind::Text(t) if t == text => Some(self.place),
            Kind::List(list) => list.iter().find_map(|n| n.find(text)),
            Kind::Map(map) => {
                map.iter().find_map(|(k, v)| (k.name == text).then_some(k.place).or_else(|| v.find(text)))
            }
            _ => None,
        }
    }
}

/// What is wrong with a map that has a key twice.
pub(crate) fn given_twice(key: &str) -> String {
    format!("the key `{key}` is given twice; keep one of the two")
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    Place { line: spanned.referenced.line(), column: spanned.referenced.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Node { place: place(&spanned), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Kind, E> {
        Ok(Kind::Number(v.into()))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Kind, E> {
        Ok(Kind::Number(v.into()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Kind, E> {
        Number::from_f64(v).map(Kind::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Kind, E> {
        Ok(Kind::Text(v.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Node>()? {
            if entries.iter().any(|(k, _)| k.name == key.value) {
                return Err(A::Error::custom(given_twice(&key.value)));
            }
            entries.push((Key { place: place(&key), name: key.value }, node));
        }
        Ok(Kind::Map(entries))
    }
}
