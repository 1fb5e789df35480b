//! Scores of a group's activations, and what an index says of them before they are known.

use std::str::FromStr;

use mistique_engine::ByExampleColumn;

use crate::error::QueryError;

/// How distances, and activations of a group, are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Norm {
    /// Sums.
    L1,
    /// Roots of sums of squares.
    #[default]
    L2,
    /// The largest.
    LInf,
}

impl Norm {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::LInf => "linf",
        }
    }
}

impl FromStr for Norm {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        [Self::L1, Self::L2, Self::LInf].into_iter().find(|n| n.name() == text).ok_or_else(|| QueryError::Parse {
            what: "norm",
            given: text.to_string(),
            why: "expected l1, l2 or linf".into(),
            at: 1,
        })
    }
}

/// What rows are ranked by, lowest first. Every step is monotone in every activation, in floating point too, so that
/// bounds of activations give bounds of costs that hold exactly.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cost {
    /// Distance to these activations.
    Distance(Norm, Vec<f64>),
    /// The negated activation of the group.
    Activation(Norm),
}

impl Cost {
    fn norm(&self) -> Norm {
        match self {
            Self::Distance(norm, _) | Self::Activation(norm) => *norm,
        }
    }

    fn start(&self) -> f64 {
        match self {
            Self::Activation(Norm::LInf) => f64::NEG_INFINITY,
            _ => 0.0,
        }
    }

    /// NaN stays.
    fn add(&self, sum: f64, term: f64) -> f64 {
        match self.norm() {
            Norm::LInf if term > sum || term.is_nan() => term,
            Norm::LInf => sum,
            _ => sum + term,
        }
    }

    fn finish(&self, sum: f64) -> f64 {
        let measured = if self.norm() == Norm::L2 { sum.abs().sqrt().copysign(sum) } else { sum };
        if matches!(self, Self::Distance(..)) { measured } else { -measured }
    }

    /// What one activation adds.
    fn term(&self, column: usize, value: f64) -> f64 {
        match self {
            Self::Distance(norm, of) => {
                let apart = (value - of.get(column).copied().unwrap_or(f64::NAN)).abs();
                if *norm == Norm::L2 { apart * apart } else { apart }
            }
            Self::Activation(Norm::L2) => value * value.abs(),
            Self::Activation(_) => value,
        }
    }

    /// The least and the most that an activation between `low` and `high` adds.
    fn terms(&self, column: usize, low: f64, high: f64) -> (f64, f64) {
        let (a, b) = (self.term(column, low), self.term(column, high));
        match self {
            Self::Activation(_) => (a, b),
            Self::Distance(_, of) => {
                let at = of.get(column).copied().unwrap_or(f64::NAN);
                // `max` and `min` leave NaN (two infinities that meet) out.
                (if low <= at && at <= high { 0.0 } else { a.min(b) }, a.max(b))
            }
        }
    }

    /// The cost of one row; NaN where one of its activations is.
    pub fn of(&self, row: &[f64]) -> f64 {
        let add = |sum, (c, v): (usize, &f64)| self.add(sum, self.term(c, *v));
        self.finish(row.iter().enumerate().fold(self.start(), add))
    }

    /// For each row of an index the least and the most that its cost can be; `None` for a row that has a NaN.
    ///
    /// `slack` is by how much activations may differ from those of which the index was built, in terms of the largest one.
    pub fn bounds(&self, columns: &[ByExampleColumn], slack: f64) -> Vec<Option<(f64, f64)>> {
        let n_rows = columns.first().map_or(0, |c| c.codes.len());
        let mut sums = vec![Some((self.start(), self.start())); n_rows];
        let mut terms = Vec::new();
        for (c, column) in columns.iter().enumerate() {
            let ends = column.bounds.iter().flat_map(|(low, high)| [low, high]).filter(|v| v.is_finite());
            let slack = slack * ends.fold(0.0, |most: f64, v| most.max(f64::from(v.abs())));
            let between = |low: f32, high: f32| {
                (low <= high).then(|| self.terms(c, f64::from(low) - slack, f64::from(high) + slack))
            };
            let of_range: Vec<Option<(f64, f64)>> = column.bounds.iter().map(|(l, h)| between(*l, *h)).collect();
            terms.clear();
            terms.extend(column.codes.iter().map(|code| of_range.get(usize::from(*code)).copied().flatten()));
            for (row, value) in &column.top {
                if let Some(term) = terms.get_mut(*row as usize) {
                    *term = between(*value, *value);
                }
            }
            for (sum, term) in sums.iter_mut().zip(&terms) {
                *sum = sum.zip(*term).map(|(s, t)| (self.add(s.0, t.0), self.add(s.1, t.1)));
            }
        }
        let finish = |(least, most): (f64, f64)| {
            let (a, b) = match self {
                Self::Distance(..) => (self.finish(least), self.finish(most)),
                Self::Activation(_) => (self.finish(most), self.finish(least)),
            };
            (if a.is_nan() { f64::NEG_INFINITY } else { a }, if b.is_nan() { f64::INFINITY } else { b })
        };
        sums.into_iter().map(|s| s.map(finish)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_by_hand() {
        let row = [3.0, -4.0];
        let distance = |n| Cost::Distance(n, vec![0.0, 0.0]).of(&row);
        assert_eq!([Norm::L1, Norm::L2, Norm::LInf].map(distance), [7.0, 5.0, 4.0]);
        // 3·3 − 4·4 = −7: a unit that is held back counts against the group.
        let activation = |n| -Cost::Activation(n).of(&row);
        assert_eq!([Norm::L1, Norm::L2, Norm::LInf].map(activation), [-1.0, -7f64.sqrt(), 3.0]);
        for norm in [Norm::L1, Norm::L2, Norm::LInf] {
            assert_eq!(-Cost::Activation(norm).of(&[-2.5]), -2.5, "of one unit it is the activation itself");
            assert!(Cost::Activation(norm).of(&[1.0, f64::NAN, 2.0]).is_nan());
            assert!(Cost::Distance(norm, vec![0.0; 3]).of(&[1.0, f64::NAN, 2.0]).is_nan());
        }
    }
}
