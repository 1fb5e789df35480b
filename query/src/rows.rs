//! Row selections: all, a range, a list, or a predicate.

use std::ops::Range;
use std::str::FromStr;

use crate::error::{QueryError, Result};
use crate::predicate::Predicate;

/// Which rows a request wants.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RowSelection {
    /// All that are stored, by row_id.
    #[default]
    All,
    /// Those stored with an id in the range, by row_id.
    Range(Range<u64>),
    /// Exactly these, in this order; one that is not there is an error.
    List(Vec<u64>),
    /// Those that pass, by row_id.
    Where(Predicate),
}

impl FromStr for RowSelection {
    type Err = QueryError;

    /// Reads `0..100` or `3,17,42`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str, at: usize| QueryError::Parse {
            what: "row selection",
            given: text.to_string(),
            why: why.to_string(),
            at,
        };
        if let Some((start, end)) = text.split_once("..") {
            let number = |t: &str, at| t.trim().parse::<u64>().map_err(|_| bad("expected START..END", at));
            let (start_id, end_id) = (number(start, 1)?, number(end, start.len() + 3)?);
            if start_id > end_id {
                return Err(bad("the range ends before it starts", 1));
            }
            return Ok(Self::Range(start_id..end_id));
        }
        let mut at = 1;
        let mut ids = Vec::new();
        for item in text.split(',') {
            ids.push(
                item.trim()
                    .parse()
                    .map_err(|_| bad("expected row_ids such as 3,17,42 or a range such as 0..100", at))?,
            );
            at += item.chars().count() + 1;
        }
        Ok(Self::List(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_parse() {
        assert_eq!("0..100".parse::<RowSelection>().unwrap(), RowSelection::Range(0..100));
        assert_eq!("3, 17,42".parse::<RowSelection>().unwrap(), RowSelection::List(vec![3, 17, 42]));
        for bad in ["", "a", "5..2", "1,,2", "1..", "-1"] {
            assert!(bad.parse::<RowSelection>().is_err(), "{bad:?}");
        }
    }
}
