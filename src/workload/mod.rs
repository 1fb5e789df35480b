//! Workloads: sequences of queries, recorded or generated, and their replay under several modes of materialization
//! (5.8.5, Fig. 5-12).

mod generate;
mod replay;

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::{Key, Predicate, QueryError, Request, RowSelection};

pub use generate::generate;
pub(crate) use replay::fill;
pub use replay::{ModeRun, QueryRun, replay};

/// How many columns and rows a query asks for (5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Few columns, few rows.
    Fcfr,
    /// Few columns, many rows.
    Fcmr,
    /// Many columns, few rows.
    Mcfr,
    /// Many columns, many rows.
    Mcmr,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fcfr, Self::Fcmr, Self::Mcfr, Self::Mcmr];

    /// Whether it asks for many columns, and for many rows.
    pub fn many(self) -> (bool, bool) {
        (matches!(self, Self::Mcfr | Self::Mcmr), matches!(self, Self::Fcmr | Self::Mcmr))
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Fcfr => "FCFR",
            Self::Fcmr => "FCMR",
            Self::Mcfr => "MCFR",
            Self::Mcmr => "MCMR",
        };
        f.pad(name)
    }
}

impl FromStr for Category {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|c| c.to_string().eq_ignore_ascii_case(text.trim()));
        found.ok_or_else(|| format!("{text:?} is no category of queries; expected FCFR, FCMR, MCFR or MCMR"))
    }
}

/// A line of a workload: what one `mistique get` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadQuery {
    /// How much it asks for, where that was said.
    pub category: Option<Category>,
    /// Keys, as written.
    pub keys: Vec<String>,
    /// Rows, as written (`0..100`, `3,17,42`); all for none.
    pub rows: Option<String>,
    /// Condition that rows pass.
    pub filter: Option<String>,
    /// Whether a lossy copy will not do.
    pub exact: bool,
}

impl WorkloadQuery {
    /// Its requests.
    ///
    /// Errors: `Parse` and others of what is written.
    pub fn requests(&self) -> Result<Vec<Request>, QueryError> {
        let rows = match (&self.rows, &self.filter) {
            (Some(rows), _) => rows.parse()?,
            (None, Some(filter)) => RowSelection::Where(Predicate::parse(filter)?),
            (None, None) => RowSelection::All,
        };
        let request = |key: &String| {
            let key: Key = key.parse()?;
            Ok(Request::new(key).with_rows(rows.clone()).with_exact(self.exact))
        };
        self.keys.iter().map(request).collect()
    }

    /// The line.
    pub fn to_line(&self) -> String {
        let mut line = json!({ "keys": self.keys });
        if let Value::Object(map) = &mut line {
            let texts = [
                ("category", self.category.map(|c| c.to_string())),
                ("rows", self.rows.clone()),
                ("where", self.filter.clone()),
            ];
            map.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_string(), Value::String(text?)))));
            if self.exact {
                map.insert("exact".into(), Value::Bool(true));
            }
        }
        line.to_string()
    }

    /// Reads a line.
    ///
    /// Errors: what was expected.
    pub fn from_line(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let object = value.as_object().ok_or("expected an object such as {\"keys\": [\"p.m.logits\"]}")?;
        let known = ["category", "keys", "rows", "where", "exact"];
        if let Some(other) = object.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(format!("{other:?} is not known; expected {}", known.join(", ")));
        }
        let text = |name: &str| match object.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{name} is not a text")),
        };
        let keys = object.get("keys").and_then(Value::as_array).ok_or("keys is not a list of keys")?;
        let keys: Vec<String> = keys
            .iter()
            .map(|k| k.as_str().map(str::to_string).ok_or("a key is not a text"))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("keys is empty".into());
        }
        let exact = match object.get("exact") {
            None => false,
            Some(value) => value.as_bool().ok_or("exact is not true or false")?,
        };
        let category = text("category")?.map(|c| c.parse()).transpose()?;
        let query = Self { category, keys, rows: text("rows")?, filter: text("where")?, exact };
        query.requests().map_err(|e| e.to_string())?;
        Ok(query)
    }
}

/// Reads a workload: one query a line, empty lines skipped.
///
/// Errors: the line, counted from 1, and what was expected.
pub fn parse(text: &str) -> Result<Vec<WorkloadQuery>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| WorkloadQuery::from_line(line).map_err(|why| format!("line {}: {why}", i + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let query = WorkloadQuery {
            category: Some(Category::Mcfr),
            keys: vec!["p.m.\"layer1.0\".u3".into(), "p.m.logits".into()],
            rows: Some("3,17".into()),
            filter: None,
            exact: true,
        };
        assert_eq!(WorkloadQuery::from_line(&query.to_line()).unwrap(), query);
        assert_eq!(parse("\n{\"keys\": [\"p.m.t\"]}\n\n").unwrap().len(), 1);
        for (line, said) in [
            ("{}", "keys"),
            ("{\"keys\": []}", "empty"),
            ("{\"keys\": [\"p.m.t\"], \"row\": \"3\"}", "\"row\" is not known"),
            ("{\"keys\": [\"p.m.t\"], \"rows\": \"x\"}", "row selection"),
            ("{\"keys\": [\"p\"]}", "key"),
            ("{\"keys\": [\"p.m.t\"], \"category\": \"ABCD\"}", "expected FCFR"),
            ("nonsense", "expected"),
        ] {
            let why = parse(&format!("{{\"keys\": [\"p.m.t\"]}}\n{line}")).unwrap_err();
            assert!(why.starts_with("line 2: ") && why.contains(said), "{why}");
        }
    }
}
