//! From text to raw stages: the file's outer structure, its settings, and `${…}`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{PipelineError, Spot};
use super::node::{Key, Kind, Node, Place, given_twice};
use crate::suggest::nearest;

/// A pipeline's file: stages with places for parameters, and the settings that fill them.
#[derive(Debug, Clone)]
pub struct Template {
    file: Arc<str>,
    name: String,
    project: Option<String>,
    description: String,
    defaults: Vec<(Key, Node)>,
    settings: Vec<Setting>,
    stages: Vec<Node>,
}

/// One choice of a template's parameters.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The model's version; empty without a grid.
    pub version: String,
    values: Vec<(Key, Node)>,
    /// Which of the grid's it is, from 1, and its place; `None` without a grid.
    in_grid: Option<(usize, Place)>,
}

impl Setting {
    /// The parameters' values by name.
    pub fn values(&self) -> Map<String, Value> {
        self.values.iter().map(|(k, v)| (k.name.clone(), v.value())).collect()
    }
}

/// A stage as written, its parameters filled in.
#[derive(Clone)]
pub(crate) struct RawStage {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) op: String,
    pub(crate) op_place: Place,
    pub(crate) inputs: Vec<(String, Place)>,
    pub(crate) fit: Option<(String, Place)>,
    pub(crate) params: Vec<(Key, Node)>,
}

/// Keys of the file's outer map.
const KEYS: [&str; 6] = ["name", "project", "description", "defaults", "grid", "stages"];
/// Keys of a stage beside the parameters of its operator.
const OWN: [&str; 5] = ["name", "op", "input", "inputs", "fit"];
/// The same, with the parameter that looks like one of them.
const MEANT: [&str; 6] = ["name", "op", "input", "inputs", "fit", "on"];
/// A grid of more settings is a mistake.
const MAX_SETTINGS: usize = 10_000;

/// Whether `text` is a pipeline's: a map with `stages`, however it is written.
pub fn is_pipeline(text: &str) -> bool {
    let root = Node::parse(text).map(|node| node.kind);
    matches!(root, Ok(Kind::Map(map)) if map.iter().any(|(key, _)| key.name == "stages"))
}

impl Template {
    /// The template in `text`; `file` is named in errors.
    ///
    /// Errors: `Syntax`, `Unknown`, `BadValue`, `DuplicateName`, each with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, PipelineError> {
        let file: Arc<str> = file.into();
        let root = Node::parse(text).map_err(|e| {
            let place = e.location().map_or(Place::default(), |l| Place { line: l.line(), column: l.column() });
            PipelineError::Syntax { at: Spot::new(&file, place), message: in_words(&e) }
        })?;
        let reader = Reader { file: &file };
        if matches!(root.kind, Kind::Null) {
            let message = "the file is empty; a pipeline needs `name: ...` and `stages: [...]`".into();
            return Err(PipelineError::Syntax { at: Spot::new(&file, root.place), message });
        }
        let Kind::Map(entries) = &root.kind else {
            return Err(reader.bad("the file", "a map with the keys `name` and `stages`", &root));
        };
        for (key, _) in entries {
            if !KEYS.contains(&key.name.as_str()) {
                return Err(reader.unknown("key", key, &KEYS));
            }
        }
        let get = |name: &str| entries.iter().find(|(k, _)| k.name == name).map(|(_, n)| n);
        let text_of = |name: &str| get(name).map(|n| reader.text(name, n)).transpose();
        let missing = |what: &str| PipelineError::Syntax {
            at: Spot::new(&file, root.place),
            message: format!("a pipeline needs `{what}`"),
        };
        let name = text_of("name")?.ok_or_else(|| missing("name: ..."))?;
        let project = text_of("project")?;
        let description = text_of("description")?.unwrap_or_default();
        let defaults = match get("defaults") {
            None => Vec::new(),
            Some(node) => reader.map("defaults", node)?.to_vec(),
        };
        let settings = match get("grid") {
            None => vec![Setting { version: String::new(), values: defaults.clone(), in_grid: None }],
            Some(node) => reader.grid(node, &defaults)?,
        };
        let stages = match get("stages") {
            None => return Err(missing("stages: [...]")),
            Some(node) => reader.stages(node)?,
        };
        let template = Self { name, project, description, defaults, settings, stages, file: Arc::clone(&file) };
        template.unused(&reader)?;
        Ok(template)
    }

    /// Parameters that no stage uses are mistakes.
    fn unused(&self, reader: &Reader<'_>) -> Result<(), PipelineError> {
        let mut used = Vec::new();
        self.stages.iter().for_each(|s| names_in(s, &mut used));
        let all = self.defaults.iter().chain(self.settings.iter().flat_map(|s| &s.values));
        for (key, _) in all {
            if !used.contains(&key.name) {
                let used: Vec<&str> = used.iter().map(String::as_str).collect();
                return Err(reader.unknown("parameter: no stage has ${} of it:", key, &used));
            }
        }
        Ok(())
    }

    /// A value that the stages use and other settings of the grid have is missing in the setting, not in the stages.
    fn complete(&self, setting: &Setting) -> Result<(), PipelineError> {
        let Some((number, place)) = setting.in_grid else { return Ok(()) };
        let mut used = Vec::new();
        self.stages.iter().for_each(|s| names_in(s, &mut used));
        let has = |s: &Setting, name: &str| s.values.iter().any(|(key, _)| key.name == name);
        let lacking = used.iter().find(|name| !has(setting, name) && self.settings.iter().any(|s| has(s, name)));
        let Some(name) = lacking else { return Ok(()) };
        let at = Spot::new(&self.file, place);
        let use_of = format!("setting {number} of the grid has no {name}, which the stages use as ${{{name}}}");
        let message = format!("{use_of}; give it one there, or one for all settings under `defaults`");
        Err(PipelineError::Syntax { at, message })
    }

    /// The file's name, as given.
    pub(crate) fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Name of the models.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Project of the models, where the file names one.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// Free text.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// One a model.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The stages with the parameters of `setting`.
    ///
    /// Errors: `Unknown` for a `${name}` that has no value, `Syntax` where only other settings have one; `BadValue` and
    /// `MissingParam` for a malformed stage.
    pub(crate) fn stages(&self, setting: &Setting) -> Result<Vec<RawStage>, PipelineError> {
        self.complete(setting)?;
        let reader = Reader { file: &self.file };
        self.stages.iter().map(|s| reader.stage(&reader.fill(s, &setting.values)?)).collect()
    }
}

/// What is wrong with a text that is no tree, and what to do; the reader's own words speak of how it is called.
fn in_words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => given_twice(key),
        Error::MultipleDocuments { .. } => {
            "a second document begins behind the line `---`; a file holds one pipeline, so give each a file".into()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias stands inside of what it stands for, without an end; write there what is meant".into()
        }
        Error::NonFiniteFloat { value, .. } => {
            format!("{value} is not a finite number, as all numbers of a pipeline are; write one, or quote it")
        }
        Error::AliasError { error, .. } => in_words(error),
        other => other.to_string(),
    }
}

/// Names of all `${…}` in a tree.
fn names_in(node: &Node, out: &mut Vec<String>) {
    match &node.kind {
        Kind::Text(text) => {
            let mut rest = text.as_str();
            while let Some((_, after)) = rest.split_once("${") {
                let Some((name, behind)) = after.split_once('}') else { break };
                out.push(name.trim().to_string());
                rest = behind;
            }
        }
        Kind::List(list) => list.iter().for_each(|n| names_in(n, out)),
        Kind::Map(map) => map.iter().for_each(|(_, n)| names_in(n, out)),
        _ => {}
    }
}

struct Reader<'a> {
    file: &'a Arc<str>,
}

impl Reader<'_> {
    fn bad(&self, what: &str, expected: &str, node: &Node) -> PipelineError {
        PipelineError::BadValue {
            at: Spot::new(self.file, node.place),
            param: what.into(),
            expected: expected.into(),
            found: node.shown(),
        }
    }

    fn unknown(&self, what: &str, key: &Key, known: &[&str]) -> PipelineError {
        PipelineError::Unknown {
            at: Spot::new(self.file, key.place),
            what: what.into(),
            name: key.name.clone(),
            nearest: nearest(&key.name, known.iter().copied()),
            known: if known.is_empty() { "none".into() } else { known.join(", ") },
        }
    }

    fn text(&self, what: &str, node: &Node) -> Result<String, PipelineError> {
        match node.text() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_string()),
            Some(_) => Err(self.bad(what, "a text that is not empty", node)),
            None => Err(self.bad(what, "a text (quote it)", node)),
        }
    }

    fn map<'n>(&self, what: &str, node: &'n Node) -> Result<&'n [(Key, Node)], PipelineError> {
        match &node.kind {
            Kind::Map(map) => Ok(map),
            _ => Err(self.bad(what, "names with values, such as {learning_rate: 0.1}", node)),
        }
    }

    /// The settings of a grid: a list of them, or the cross product of lists.
    fn grid(&self, node: &Node, defaults: &[(Key, Node)]) -> Result<Vec<Setting>, PipelineError> {
        let mut settings: Vec<Setting> = Vec::new();
        match &node.kind {
            Kind::List(list) if !list.is_empty() => {
                for (i, item) in list.iter().enumerate() {
                    let given = self.map("a setting of the grid", item)?;
                    let written = given.iter().find(|(k, _)| k.name == "version").map(|(_, node)| node);
                    let version = match written {
                        None => format!("v{}", i + 1),
                        Some(node) => self.text("version", node)?,
                    };
                    self.is_new(&settings, &version, item, written)?;
                    let given = given.iter().filter(|(k, _)| k.name != "version");
                    let in_grid = Some((i + 1, item.place));
                    settings.push(Setting { version, values: over(defaults, given), in_grid });
                }
            }
            Kind::Map(map) if !map.is_empty() => {
                let mut chosen: Vec<Vec<(Key, Node)>> = vec![Vec::new()];
                for (key, values) in map {
                    let values = match &values.kind {
                        Kind::List(list) if !list.is_empty() => list,
                        _ => return Err(self.bad(&key.name, "a list of values", values)),
                    };
                    let longer = |c: &Vec<(Key, Node)>| {
                        let c = c.clone();
                        values.iter().map(move |v| [c.clone(), vec![(key.clone(), v.clone())]].concat())
                    };
                    if chosen.len() * values.len() > MAX_SETTINGS {
                        return Err(self.bad("grid", &format!("at most {MAX_SETTINGS} settings"), node));
                    }
                    chosen = chosen.iter().flat_map(longer).collect();
                }
                for (i, given) in chosen.iter().enumerate() {
                    let (version, in_grid) = (format!("v{}", i + 1), Some((i + 1, node.place)));
                    settings.push(Setting { version, values: over(defaults, given.iter()), in_grid });
                }
            }
            _ => return Err(self.bad("grid", "a list of settings, or lists of values by name", node)),
        }
        Ok(settings)
    }

    /// Two settings of one version would be one model. `written`: the version that the setting `item` gives.
    fn is_new(
        &self,
        before: &[Setting],
        version: &str,
        item: &Node,
        written: Option<&Node>,
    ) -> Result<(), PipelineError> {
        if !before.iter().any(|s| s.version == version) {
            return Ok(());
        }
        let expected = match written {
            Some(_) => "another version than those above",
            None => "another than those above: it is that of the setting's place, so give the setting a `version`",
        };
        let place = written.map_or(item.place, |node| node.place);
        Err(self.bad("version", expected, &Node { place, kind: Kind::Text(version.to_owned()) }))
    }

    /// The stages, each a map with its name; a map of stages by name is brought into that form.
    fn stages(&self, node: &Node) -> Result<Vec<Node>, PipelineError> {
        match &node.kind {
            Kind::List(list) if !list.is_empty() => Ok(list.clone()),
            Kind::Map(map) if !map.is_empty() => map
                .iter()
                .map(|(key, stage)| {
                    let own = self.map(&key.name, stage)?;
                    let name = Node { place: key.place, kind: Kind::Text(key.name.clone()) };
                    let name = (Key { place: key.place, name: "name".into() }, name);
                    let entries = std::iter::once(name).chain(own.iter().cloned()).collect();
                    Ok(Node { place: key.place, kind: Kind::Map(entries) })
                })
                .collect(),
            _ => Err(self.bad("stages", "a list of stages such as {name: a, op: ReadCSV, file: a.csv}", node)),
        }
    }

    /// The tree with every `${name}` replaced; the places stay those of the stage.
    fn fill(&self, node: &Node, values: &[(Key, Node)]) -> Result<Node, PipelineError> {
        let kind = match &node.kind {
            Kind::Text(text) if text.contains("${") => self.fill_text(text, node.place, values)?,
            Kind::List(list) => Kind::List(list.iter().map(|n| self.fill(n, values)).collect::<Result<_, _>>()?),
            Kind::Map(map) => {
                let filled = map.iter().map(|(k, n)| Ok((k.clone(), self.fill(n, values)?)));
                Kind::Map(filled.collect::<Result<_, PipelineError>>()?)
            }
            other => other.clone(),
        };
        Ok(Node { place: node.place, kind })
    }

    fn fill_text(&self, text: &str, place: Place, values: &[(Key, Node)]) -> Result<Kind, PipelineError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else {
                let node = Node { place, kind: Kind::Text(text.into()) };
                return Err(self.bad("a parameter", "a closing brace: ${name}", &node));
            };
            let name = name.trim();
            let Some((_, value)) = values.iter().find(|(k, _)| k.name == name) else {
                let known: Vec<&str> = values.iter().map(|(k, _)| k.name.as_str()).collect();
                let key = Key { place, name: name.into() };
                return Err(self.unknown("parameter", &key, &known));
            };
            if before.is_empty() && behind.is_empty() && out.is_empty() {
                return Ok(value.at(place).kind);
            }
            out += before;
            match &value.kind {
                Kind::Text(text) => out += text,
                _ => out += &value.value().to_string(),
            }
            rest = behind;
        }
        Ok(Kind::Text(out + rest))
    }

    fn stage(&self, node: &Node) -> Result<RawStage, PipelineError> {
        let entries = self.map("a stage", node)?;
        let get = |name: &str| entries.iter().find(|(k, _)| k.name == name).map(|(_, n)| n);
        // A key that looks like the missing one is what is wrong.
        let mistyped = |wanted: &str| {
            let meant = |k: &&Key| nearest(&k.name, MEANT.iter().copied()).as_deref() == Some(wanted);
            let key = entries.iter().map(|(k, _)| k).find(meant);
            key.map(|k| self.unknown("key of a stage", k, &OWN))
        };
        let Some(named) = get("name") else {
            return Err(mistyped("name").unwrap_or_else(|| self.bad("a stage", "a key `name`", node)));
        };
        let name = self.text("name", named)?;
        if name.contains('/') {
            return Err(self.bad("name", "a name without `/`, which separates a stage from its output", named));
        }
        let Some(op) = get("op") else {
            let lacking = || self.bad(&format!("stage {name}"), "a key `op` that names its operator", node);
            return Err(mistyped("op").unwrap_or_else(lacking));
        };
        let reference = |what: &str, n: &Node| Ok::<_, PipelineError>((self.text(what, n)?, n.place));
        let inputs = match (get("input"), get("inputs")) {
            (Some(_), Some(both)) => return Err(self.bad("inputs", "either `input` or `inputs`, not both", both)),
            (None, None) => Vec::new(),
            (Some(one), None) | (None, Some(one)) => match &one.kind {
                Kind::List(list) => list.iter().map(|n| reference("an input", n)).collect::<Result<_, _>>()?,
                _ => vec![reference("an input", one)?],
            },
        };
        Ok(RawStage {
            name,
            place: node.place,
            op: self.text("op", op)?,
            op_place: op.place,
            inputs,
            fit: get("fit").map(|n| reference("fit", n)).transpose()?,
            params: entries.iter().filter(|(k, _)| !OWN.contains(&k.name.as_str())).cloned().collect(),
        })
    }
}

/// `defaults` with what is `given` in their place or beside them.
fn over<'a>(defaults: &[(Key, Node)], given: impl Iterator<Item = &'a (Key, Node)>) -> Vec<(Key, Node)> {
    let mut all = defaults.to_vec();
    for (key, node) in given {
        match all.iter_mut().find(|(k, _)| k.name == key.name) {
            Some(slot) => *slot = (key.clone(), node.clone()),
            None => all.push((key.clone(), node.clone())),
        }
    }
    all
}

#[cfg(test)]
mod tests;
