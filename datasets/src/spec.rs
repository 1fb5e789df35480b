//! Dataset specs: how a dataset is named on the command line and in a catalog.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{DatasetError, LOADERS, Loader, Target, nearest};

/// A dataset spec: `LOADER[:PATH][?OPTION=VALUE[&OPTION=VALUE]...]`.
///
/// The text after the last `?` is the options if it is empty or contains `=`; a path that would be misread is written with
/// a `?` behind it. In option values `%26` stands for `&`, `%3F` for `?` and `%25` for `%`. A spec prints as it was
/// given, apart from needless escapes.
#[derive(Debug, Clone)]
pub struct Spec {
    loader: &'static Loader,
    target: String,
    options: Vec<(String, String)>,
}

impl Spec {
    /// The loader that reads this spec.
    pub fn loader(&self) -> &'static Loader {
        self.loader
    }

    /// The file or directory, for loaders that have one.
    pub fn path(&self) -> Option<&Path> {
        (self.loader.target != Target::Nothing).then(|| Path::new(self.target.as_str()))
    }

    /// Value of an option, if given.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Default name of the dataset: the loader's name, followed by the file's stem (`csv-housing`) or by a split other
    /// than `train` (`cifar10-test`); `generated-images` for a generator.
    pub fn name(&self) -> String {
        let name = self.loader.name.replace(':', "-");
        match self.loader.target {
            Target::File => match Path::new(&self.target).file_stem().and_then(|stem| stem.to_str()) {
                Some(stem) => format!("{name}-{stem}"),
                None => name,
            },
            Target::Dir | Target::Nothing => match self.option("split") {
                Some(split) if split != "train" => format!("{name}-{split}"),
                _ => name,
            },
        }
    }

    /// The same spec with absolute paths, for recording. A path that cannot be made absolute, as when the working
    /// directory no longer exists, stays as it is.
    #[must_use]
    pub fn absolute(&self) -> Spec {
        let mut spec = self.clone();
        if spec.loader.target != Target::Nothing {
            spec.target = absolute(&spec.target);
        }
        for (name, value) in &mut spec.options {
            if spec.loader.path_options.contains(&name.as_str()) {
                *value = absolute(value);
            }
        }
        spec
    }

    /// A whole-number option within `range`, or `default` where it is not given.
    pub(crate) fn number(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, DatasetError> {
        let Some(text) = self.option(name) else { return Ok(default) };
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(self.bad(
                format!("{name} is '{text}'"),
                format!("write a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// The file or directory of a loader that has one.
    pub(crate) fn target(&self) -> PathBuf {
        PathBuf::from(&self.target)
    }

    pub(crate) fn bad(&self, why: impl Into<String>, hint: impl Into<String>) -> DatasetError {
        DatasetError::BadSpec { spec: self.to_string(), why: why.into(), hint: hint.into() }
    }
}

/// The loader with whose name `text` begins, and what follows.
pub(crate) fn named(text: &str) -> Option<(&'static Loader, &str)> {
    LOADERS.iter().find_map(|loader| {
        let rest = text.strip_prefix(loader.name)?;
        (rest.is_empty() || rest.starts_with([':', '?'])).then_some((*loader, rest))
    })
}

fn absolute(path: &str) -> String {
    match std::path::absolute(path).map(|path| path.into_os_string().into_string()) {
        Ok(Ok(text)) => text,
        _ => path.to_owned(),
    }
}

impl FromStr for Spec {
    type Err = DatasetError;

    fn from_str(text: &str) -> Result<Spec, DatasetError> {
        let bad = |why: String, hint: String| DatasetError::BadSpec { spec: text.to_owned(), why, hint };
        let Some((loader, rest)) = named(text) else {
            let usages = LOADERS.iter().map(|loader| loader.usage).collect::<Vec<_>>().join(", ");
            let guess = match Path::new(text).extension().and_then(|extension| extension.to_str()) {
                Some(known @ ("csv" | "parquet" | "npy")) => format!("did you mean '{known}:{text}'? "),
                _ => String::new(),
            };
            return Err(bad("no loader of this name".to_owned(), format!("{guess}write one of {usages}")));
        };
        let (target, options) = match rest.rsplit_once('?') {
            Some((target, options)) if options.is_empty() || options.contains('=') => (target, options),
            _ => (rest, ""),
        };
        let target = match (loader.target, target.strip_prefix(':')) {
            (Target::Nothing, None) if target.is_empty() => "",
            (Target::Dir | Target::File, Some(path)) if !path.is_empty() => path,
            (Target::Nothing, _) => {
                return Err(bad(format!("'{}' takes no path", loader.name), format!("write {}", loader.usage)));
            }
            _ => return Err(bad("the path is missing".to_owned(), format!("write {}", loader.usage))),
        };
        let mut spec = Spec { loader, target: target.to_owned(), options: Vec::new() };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let Some((name, value)) = option.split_once('=') else {
                return Err(bad(format!("option '{option}' has no value"), format!("write {option}=VALUE")));
            };
            if !loader.options.contains(&name) {
                let near = nearest(name, loader.options.iter().copied());
                let near = near.map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
                return Err(bad(
                    format!("'{}' has no option '{name}'", loader.name),
                    format!("{near}write {}", loader.usage),
                ));
            }
            if spec.option(name).is_some() {
                return Err(bad(format!("option '{name}' is given twice"), "give it once".to_owned()));
            }
            spec.options.push((name.to_owned(), unescape(value)));
        }
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.loader.name)?;
        if self.loader.target != Target::Nothing {
            write!(f, ":{}", self.target)?;
        }
        for (i, (name, value)) in self.options.iter().enumerate() {
            write!(f, "{}{name}={}", if i == 0 { '?' } else { '&' }, escape(value))?;
        }
        let ambiguous = |tail: &str| tail.is_empty() || tail.contains('=');
        if self.options.is_empty() && self.target.rsplit_once('?').is_some_and(|(_, tail)| ambiguous(tail)) {
            f.write_str("?")?;
        }
        Ok(())
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Spec) -> bool {
        self.loader.name == other.loader.name && self.target == other.target && self.options == other.options
    }
}

impl Eq for Spec {}

const ESCAPES: [(char, &str); 3] = [('&', "%26"), ('?', "%3F"), ('%', "%25")];

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let escaped =
            ESCAPES.iter().find(|(_, code)| rest.get(..3).is_some_and(|head| head.eq_ignore_ascii_case(code)));
        let (decoded, len) = escaped.map_or(('%', 1), |(decoded, code)| (*decoded, code.len()));
        out.push(decoded);
        rest = &rest[len..];
    }
    out + rest
}

/// Escapes what would be misread, so that `100%` stays as written.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        let tail = &value[at..];
        let needed = c != '%'
            || ESCAPES.iter().any(|(_, code)| tail.get(..3).is_some_and(|head| head.eq_ignore_ascii_case(code)));
        match ESCAPES.iter().find(|(plain, _)| *plain == c && needed) {
            Some((_, code)) => out.push_str(code),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Spec {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn specs_print_as_given() {
        for text in [
            "digits",
            "cifar10:../shared/data/cifar10-sample",
            "cifar10:a dir/b?split=test",
            "mnist:/x/y?split=all",
            "fashion-mnist:.",
            "csv:what?.csv",
            "csv:a=b.csv",
            "csv:odd?k=v.csv?",
            "csv:odd??",
            "csv:odd?k=v.csv?label=a%26b%3F=%2525 100%",
            "parquet:C:/t.parquet?label=y",
            "npy:a.npy?labels=b.npy&scale=255",
            "generated:images?rows=10&size=8&channels=1&seed=7&classes=2",
            "generated:table",
        ] {
            let spec = parse(text);
            assert_eq!(spec.to_string(), text);
            assert_eq!(parse(&spec.to_string()), spec);
        }
        assert_eq!(parse("csv:odd?k=v.csv?").path(), Some(Path::new("odd?k=v.csv")));
        assert_eq!(parse("csv:f?label=a%26b%3f=%2525 100%").option("label"), Some("a&b?=%25 100%"));
        assert_eq!(parse("digits?").to_string(), "digits");
    }

    #[test]
    fn names() {
        for (text, name) in [
            ("digits", "digits"),
            ("cifar10:x", "cifar10"),
            ("cifar10:x?split=train", "cifar10"),
            ("cifar10:x?split=test", "cifar10-test"),
            ("npy:dir/acts.npy", "npy-acts"),
            ("csv:housing.csv?label=y", "csv-housing"),
            ("generated:housing?rows=5", "generated-housing"),
        ] {
            assert_eq!(parse(text).name(), name);
        }
    }

    #[test]
    fn absolute_reaches_path_options() {
        let here = std::env::current_dir().unwrap();
        let spec = parse("npy:a/b.npy?labels=c.npy").absolute();
        assert_eq!(spec.path(), Some(here.join("a/b.npy").as_path()));
        assert_eq!(spec.option("labels"), here.join("c.npy").to_str());
        assert_eq!(spec.absolute(), spec);
        assert_eq!(parse("generated:table?rows=3").absolute(), parse("generated:table?rows=3"));
    }

    #[test]
    fn bad_specs_say_what_to_write() {
        for (text, part) in [
            ("", "write one of digits"),
            ("digit", "no loader"),
            ("housing.csv", "did you mean 'csv:housing.csv'?"),
            ("cifar10", "the path is missing"),
            ("cifar10:", "the path is missing"),
            ("digits:x", "takes no path"),
            ("generated:imagesque", "no loader"),
            ("cifar10:x?part=test", "no option 'part'"),
            ("generated:zillow?row=1", "has no option 'row'; did you mean 'rows'? write generated:zillow"),
            ("generated:images?rows=1&rows=2", "given twice"),
            ("generated:images?rows=1&size", "has no value"),
        ] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let spec = parse("generated:images?rows=-3");
        assert!(spec.number("rows", 1, 1..=9).unwrap_err().to_string().contains("from 1 to 9"));
    }
}
