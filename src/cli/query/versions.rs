//! Questions over versions: a key whose version is a pattern, such as p.m@epoch-*.conv2, is asked of each version that fits.

use serde_json::Value;

use crate::cli::inspect::matches;
use crate::cli::output::pretty;
use crate::cli::{CliError, Result};
use crate::{EngineError, Key, Store};

fn is_pattern(key: &Key) -> bool {
    key.intermediate.model.version.contains(['*', '?'])
}

/// The answer to `ask` for a key; for a pattern, those of all its versions in the order in which they were logged: below
/// each other under their keys, or an array of objects that name them.
pub fn each(store: &Store, key: &str, as_json: bool, ask: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let pattern: Key = key.parse()?;
    if !is_pattern(&pattern) {
        return ask(key);
    }
    let wanted = &pattern.intermediate.model;
    // Those that can be read: damage of others is for `verify` to say.
    let models = store.catalog().readable_models().rows;
    let of_model =
        || models.iter().map(|m| &m.spec.key).filter(|k| (&k.project, &k.model) == (&wanted.project, &wanted.model));
    let keys: Vec<String> = of_model()
        .filter(|k| matches(&wanted.version, &k.version))
        .map(|model| {
            let intermediate = model.intermediate(pattern.intermediate.intermediate.clone());
            Key { intermediate, columns: pattern.columns.clone() }.to_string()
        })
        .collect();
    if keys.is_empty() {
        let nearest = of_model().map(ToString::to_string).collect();
        return Err(EngineError::NotFound { what: "version", name: wanted.to_string(), nearest }.into());
    }
    let answers = keys.iter().map(|key| ask(key)).collect::<Result<Vec<_>>>()?;
    if !as_json {
        let parts: Vec<String> = keys.iter().zip(&answers).map(|(key, answer)| format!("{key}\n{answer}")).collect();
        return Ok(parts.join("\n"));
    }
    let named = |(key, answer): (&String, &String)| {
        let mut answer: Value = serde_json::from_str(answer)?;
        if let Some(map) = answer.as_object_mut() {
            map.insert("key".into(), Value::from(key.as_str()));
        }
        Ok(answer)
    };
    let answers = keys.iter().zip(&answers).map(named).collect::<std::result::Result<Vec<_>, serde_json::Error>>();
    Ok(pretty(&Value::Array(answers.map_err(|e| CliError::Usage(e.to_string()))?)))
}

/// Errors: `Usage` for a pattern, which a picture cannot be drawn of.
pub fn only_one(key: &str, drawn: bool) -> Result<()> {
    if drawn && is_pattern(&key.parse()?) {
        return Err(CliError::Usage(format!("{key}: -o draws one picture; name one version")));
    }
    Ok(())
}
