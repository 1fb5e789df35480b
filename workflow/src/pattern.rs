//! Picking layers by name: globs joined by commas.

use globset::{Glob, GlobMatcher};

use crate::error::NetworkError;
use crate::network::Network;
use crate::suggest::nearest;

/// A selection of layers such as `conv*,logits`.
///
/// `*`, `?`, `[a-c]` and `{a,b}` mean what they do in a shell, except that `*` also crosses `/` and `.`: names are
/// data, not paths. A comma inside braces or after a backslash does not separate. A part that is exactly a layer's
/// name picks that layer even when it holds glob characters.
#[derive(Clone, Debug)]
pub struct LayerPattern {
    text: String,
    parts: Vec<(String, Option<GlobMatcher>)>,
}

impl LayerPattern {
    /// The pattern written as `text`.
    ///
    /// Errors: [`NetworkError::BadPattern`] when it is empty.
    pub fn new(text: &str) -> Result<Self, NetworkError> {
        let parts: Vec<_> = split(text)
            .into_iter()
            .map(|part| {
                let glob = Glob::new(&part).ok().map(|g| g.compile_matcher());
                (part, glob)
            })
            .collect();
        if parts.is_empty() {
            return Err(NetworkError::BadPattern { pattern: text.into(), message: "it is empty".into() });
        }
        Ok(Self { text: text.into(), parts })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Indices of the network's layers that the pattern picks, ascending.
    ///
    /// Errors: [`NetworkError::NoMatch`] when one of the parts picks none, with the names;
    /// [`NetworkError::BadPattern`] when a part is neither a name nor a valid glob.
    pub fn select(&self, network: &Network) -> Result<Vec<usize>, NetworkError> {
        let mut picked = vec![false; network.layers().len()];
        for (part, glob) in &self.parts {
            if let Ok(index) = network.layer_index(part) {
                picked[index] = true;
                continue;
            }
            let Some(glob) = glob else {
                let message = format!("{part:?} is neither a layer's name nor a valid glob");
                return Err(NetworkError::BadPattern { pattern: self.text.clone(), message });
            };
            let mut found = false;
            for (flag, layer) in picked.iter_mut().zip(network.layers()) {
                if glob.is_match(layer.name()) {
                    *flag = true;
                    found = true;
                }
            }
            if !found {
                return Err(NetworkError::NoMatch {
                    pattern: part.clone(),
                    nearest: nearest(part, network.layers().iter().map(|l| l.name())),
                    known: network.layer_names(),
                });
            }
        }
        Ok((0..picked.len()).filter(|&i| picked[i]).collect())
    }
}

/// The comma-separated parts, trimmed; commas inside braces or brackets and escaped ones do not count.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.into_iter().map(|p| p.trim().to_string()).filter(|p| !p.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::parse(
            r#"{"input": {"shape": [4]}, "layers": [
                {"name": "conv1", "op": "relu"}, {"name": "block/1.conv", "op": "relu"},
                {"name": "a,b", "op": "relu"}, {"name": "odd[", "op": "relu"}, {"name": "logits", "op": "relu"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn picks_by_glob_list_and_exact_name() {
        let pick = |text: &str| LayerPattern::new(text).unwrap().select(&network());
        assert_eq!(pick("conv*, logits").unwrap(), [0, 4]);
        assert_eq!(pick("*conv*").unwrap(), [0, 1], "a star crosses slashes and dots");
        assert_eq!(pick("{conv1,logits}").unwrap(), [0, 4]);
        assert_eq!(pick("*").unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(pick("logits,conv1").unwrap(), [0, 4], "in layer order");
        assert_eq!(pick("a\\,b").unwrap(), [2]);
        assert_eq!(pick("odd[").unwrap(), [3]);
    }

    #[test]
    fn nothing_matched_lists_the_names() {
        let error = LayerPattern::new("logit").unwrap().select(&network()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, NetworkError::NoMatch { .. }));
        assert!(text.contains("did you mean \"logits\"") && text.contains("block/1.conv"), "{text}");
        assert!(matches!(LayerPattern::new(" , "), Err(NetworkError::BadPattern { .. })));
        let bad = LayerPattern::new("x[").unwrap().select(&network());
        assert!(matches!(bad, Err(NetworkError::BadPattern { .. })));
    }
}
