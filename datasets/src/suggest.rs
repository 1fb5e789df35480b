//! "Did you mean …": the known name nearest to a mistyped one.

/// The candidate nearest to `word` by edit distance, when it is near enough to be a likely typing mistake.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (distance(&lower, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= (c.chars().count().max(3) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c.to_string())
}

/// Levenshtein distance in characters, two neighbours in the wrong order counting once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 0..a.len() {
        let mut next = vec![i + 1];
        for j in 0..b.len() {
            let swapped = i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j];
            let changed = row[j] + usize::from(a[i] != b[j]);
            let value = changed.min(row[j + 1] + 1).min(next[j] + 1);
            next.push(if swapped { value.min(before[j - 1] + 1) } else { value });
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!((distance("mian", "main"), distance("ab", "ba"), distance("abcd", "badc")), (1, 1, 2));
    }

    #[test]
    fn only_likely_mistakes_are_suggested() {
        assert_eq!(nearest("kernal", ["out", "kernel"]), Some("kernel".into()));
        assert_eq!(nearest("CONV1", ["conv1", "conv2"]), Some("conv1".into()));
        assert_eq!(nearest("zebra", ["out", "kernel"]), None);
    }
}
