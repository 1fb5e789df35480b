//! Questions over versions: a key whose version is a pattern, such as p.m@epoch-*.conv2, is asked of each version that fits.

use serde_json::Value;

use crate::cli::inspect::matches;
use crate::cli::output::pretty;
use crate::cli::{CliError, Result};
use crate::{EngineError, Key, ModelKey, QueryError, Store};

fn is_pattern(key: &Key) -> bool {
    key.intermediate.model.version.contains(['*', '?'])
}

/// The model whose version is a pattern, where `text` is a key of one.
pub fn pattern_of(text: &str) -> Option<ModelKey> {
    text.parse::<Key>().ok().filter(is_pattern).map(|key| key.intermediate.model)
}

/// The models that a pattern fits, in the order in which they were logged: those that have a version.
///
/// Errors: `NotFound` where it fits none, with the versions that are there.
pub fn versions(store: &Store, wanted: &ModelKey) -> Result<Vec<ModelKey>> {
    // Those that can be read: damage of others is for `verify` to say.
    let models = store.catalog().readable_models().rows;
    let of_model =
        || models.iter().map(|m| &m.spec.key).filter(|k| (&k.project, &k.model) == (&wanted.project, &wanted.model));
    let fitting: Vec<ModelKey> =
        of_model().filter(|k| !k.version.is_empty() && matches(&wanted.version, &k.version)).cloned().collect();
    if fitting.is_empty() {
        let nearest = of_model().map(ToString::to_string).collect();
        return Err(EngineError::NotFound { what: "version", name: wanted.to_string(), nearest }.into());
    }
    Ok(fitting)
}

/// `text`, where it is a key of the model `from`, as the key of `to`.
pub fn moved(text: &str, from: &ModelKey, to: &ModelKey) -> String {
    match text.parse::<Key>() {
        Ok(Key { intermediate, columns }) if intermediate.model == *from => {
            Key { intermediate: to.intermediate(intermediate.intermediate), columns }.to_string()
        }
        _ => text.to_string(),
    }
}

/// The answer to `ask` for a key; for a pattern, those of all its versions.
pub fn each(store: &Store, key: &str, as_json: bool, ask: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let pattern: Key = key.parse()?;
    if !is_pattern(&pattern) {
        return ask(key);
    }
    let wanted = &pattern.intermediate.model;
    let keys: Vec<String> = versions(store, wanted)?.iter().map(|model| moved(key, wanted, model)).collect();
    together(&keys, keys.iter().map(|key| ask(key)), as_json)
}

/// Answers below each other under their names, or an array of objects that hold them as `key`. A version that lacks what is
/// asked about is left out, and told, where another has it.
pub fn together(names: &[String], answers: impl Iterator<Item = Result<String>>, as_json: bool) -> Result<String> {
    let mut found: (Vec<&String>, Vec<String>) = Default::default();
    let mut lacking = Vec::new();
    for (name, answer) in names.iter().zip(answers) {
        match answer {
            Ok(answer) => {
                found.0.push(name);
                found.1.push(answer);
            }
            Err(e) if is_not_there(&e) => lacking.push((name, e)),
            Err(e) => return Err(e),
        }
    }
    let (names, answers) = found;
    match lacking.pop() {
        Some((_, e)) if names.is_empty() => return Err(e),
        last => lacking.extend(last),
    }
    lacking.iter().for_each(|(name, e)| eprintln!("note: {name} is left out: {e}"));
    if !as_json {
        let parts: Vec<String> = names.iter().zip(&answers).map(|(name, answer)| format!("{name}\n{answer}")).collect();
        return Ok(parts.join("\n"));
    }
    let named = |(name, answer): (&&String, &String)| {
        let mut answer: Value = serde_json::from_str(answer)?;
        if let Some(map) = answer.as_object_mut() {
            map.insert("key".into(), Value::from(name.as_str()));
        }
        Ok(answer)
    };
    let answers = names.iter().zip(&answers).map(named).collect::<std::result::Result<Vec<_>, serde_json::Error>>();
    let answers = answers.map_err(|e| CliError::Usage(e.to_string()))?.into_iter();
    // Of two patterns, pairs in one list.
    let flat = answers.flat_map(|answer| match answer {
        Value::Array(inner) => inner,
        one => vec![one],
    });
    Ok(pretty(&Value::Array(flat.collect())))
}

/// Whether an intermediate is not there.
fn is_not_there(e: &CliError) -> bool {
    let missing = |e: &EngineError| matches!(e, EngineError::NotFound { what: "intermediate", .. });
    match e {
        CliError::Engine(e) => missing(e),
        CliError::Query(QueryError::Engine(e)) => missing(e),
        _ => false,
    }
}

/// Errors: `Usage` where a pattern stands for a column beside the key's, which are named relative to its model.
pub fn no_pattern(text: &str) -> Result<()> {
    match pattern_of(text) {
        None => Ok(()),
        Some(model) => {
            let whole = text.parse::<Key>().map(|key| key.to_string()).unwrap_or_default();
            let relative = whole.strip_prefix(&format!("{model}.")).unwrap_or(text);
            Err(CliError::Usage(format!(
                "{text} is of many versions; name it relative to the key's model, as {relative}, or of one version"
            )))
        }
    }
}

/// Errors: `Usage` for a pattern, which a picture cannot be drawn of.
pub fn only_one(key: &str, drawn: bool) -> Result<()> {
    if drawn && is_pattern(&key.parse()?) {
        return Err(CliError::Usage(format!("{key}: -o draws one picture; name one version")));
    }
    Ok(())
}
