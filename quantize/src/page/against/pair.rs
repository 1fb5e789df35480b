//! What a model makes of the base's values, and which model is wrong by least.

use super::number::{number, ordered, to_code, unordered, wrap, zigzag};
use super::{BasePage, Model, bits_of, is_valid};
use crate::Code;
use crate::page::decimal::{self, POWERS};

/// Rows on which a model is fitted.
const SAMPLE: usize = 64;

/// A page and the one that it is coded against.
pub(super) struct Pair<'a> {
    pub(super) code: Code,
    pub(super) given: &'a [u64],
    pub(super) valid: Option<&'a [u8]>,
    pub(super) base: BasePage<'a>,
    pub(super) from: &'a [u64],
}

impl Pair<'_> {
    /// The base's value of a row.
    fn x(&self, row: usize) -> f64 {
        number(self.base.code, self.from[row])
    }

    /// What the model says of a row that is not null, as an ordered number.
    fn predicted(&self, model: &Model, row: usize) -> i64 {
        let bits = match model {
            Model::Copy { fill } => {
                if self.base.is_valid(row) {
                    self.from[row]
                } else {
                    *fill
                }
            }
            Model::Affine { a, d, fill } => match self.base.is_valid(row) {
                true => to_code(self.code, (self.x(row) - a) / d),
                false => *fill,
            },
            // Of multiples, not of codes.
            Model::Decimal { .. } | Model::Linear { .. } => 0,
        };
        ordered(self.code, bits)
    }

    /// Multiples that the base says.
    fn multiples(&self, exponent: u8, fill: i64, row: usize) -> i64 {
        if self.base.is_valid(row) { (self.x(row) * POWERS[usize::from(exponent)]).round() as i64 } else { fill }
    }

    /// Multiples that a linear model says, as [`decimal::multiple`] numbers them.
    pub(super) fn linear(&self, a: f64, b: f64, fill: i64, row: usize) -> i64 {
        if self.base.is_valid(row) { decimal::multiple(a + b * self.x(row), 0) } else { fill }
    }

    /// The model that leaves the fewest bits, how many, and what it leaves; `refine`, to the last bits of its parameters.
    pub(super) fn best(&self, refine: bool) -> Option<(u64, Model, Vec<u64>)> {
        let mut best: Option<(u64, Model, Vec<u64>)> = None;
        let mut keep = |model: Model, residuals: Vec<u64>| {
            let cost = bits_of(&residuals);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, model, residuals));
            }
            // A bit a row is little enough.
            best.as_ref().is_some_and(|(least, ..)| *least <= self.given.len() as u64)
        };
        for fit in [|p: &Self, _| p.copy(), |p: &Self, refine| p.affine(refine)] {
            if let Some(model) = fit(self, refine)
                && keep(model, self.residuals(&model))
            {
                return best;
            }
        }
        let Some((exponent, multiples)) = self.decimals() else { return best };
        for line in [Some((0.0, POWERS[usize::from(exponent)])), self.line(&multiples)] {
            let Some((a, b)) = line else { continue };
            let fill = self.filled().map_or(0, |row| multiples[row]);
            let residual = |(row, given): (usize, &i64)| match is_valid(self.valid, row) {
                true => zigzag(given.wrapping_sub(self.linear(a, b, fill, row)), 64),
                false => 0,
            };
            let residuals = multiples.iter().enumerate().map(residual).collect();
            if keep(Model::Linear { exponent, a, b, fill }, residuals) {
                return best;
            }
        }
        best
    }

    /// By how much a model of codes is wrong, row by row.
    pub(super) fn residuals(&self, model: &Model) -> Vec<u64> {
        let rows = 0..self.given.len();
        let bits = 8 * self.code.width() as u32;
        let residual = |row: usize| {
            let predicted = if is_valid(self.valid, row) { self.predicted(model, row) } else { ordered(self.code, 0) };
            zigzag(wrap(ordered(self.code, self.given[row]).wrapping_sub(predicted), bits), bits)
        };
        rows.map(residual).collect()
    }

    /// A row's code, from by how much the model is wrong there.
    pub(super) fn restore(&self, model: &Model, row: usize, residual: u64) -> u64 {
        let residual = (residual >> 1).cast_signed() ^ -((residual & 1).cast_signed());
        let valid = is_valid(self.valid, row);
        if let Model::Decimal { exponent, fill } = *model {
            if !valid {
                return 0;
            }
            let multiples = self.multiples(exponent, fill, row).wrapping_add(residual);
            return to_code(self.code, multiples as f64 / POWERS[usize::from(exponent)]);
        }
        if let Model::Linear { exponent, a, b, fill } = *model {
            if !valid {
                return 0;
            }
            let multiples = self.linear(a, b, fill, row).wrapping_add(residual);
            return to_code(self.code, decimal::value(multiples, exponent));
        }
        let predicted = if valid { self.predicted(model, row) } else { ordered(self.code, 0) };
        unordered(self.code, wrap(predicted.wrapping_add(residual), 8 * self.code.width() as u32))
    }

    /// The first code in a row that is null in the base alone.
    pub(super) fn fill(&self) -> u64 {
        self.filled().map_or(0, |row| self.given[row])
    }

    /// Rows, evenly spread, that are finite numbers in both.
    fn sample(&self) -> Vec<usize> {
        let usable = |row: &usize| {
            let both = self.base.is_valid(*row) && is_valid(self.valid, *row);
            both && self.x(*row).is_finite() && number(self.code, self.given[*row]).is_finite()
        };
        let step = (self.given.len() / (4 * SAMPLE)).max(1);
        let rows: Vec<usize> = (0..self.given.len()).step_by(step).filter(usable).collect();
        rows.iter().copied().step_by((rows.len() / SAMPLE).max(1)).collect()
    }

    pub(super) fn copy(&self) -> Option<Model> {
        (self.code == self.base.code).then(|| Model::Copy { fill: self.fill() })
    }

    fn affine(&self, refine: bool) -> Option<Model> {
        let sample = self.sample();
        let by_x = |a: &&usize, b: &&usize| self.x(**a).total_cmp(&self.x(**b));
        let (&low, &high) = (sample.iter().min_by(by_x)?, sample.iter().max_by(by_x)?);
        let y = |row: usize| number(self.code, self.given[row]);
        let fill = self.fill();
        // Bits of what is left; of equal ones, the one that is off by less in all.
        let wrong = |a: f64, d: f64| -> (u64, u64) {
            let model = Model::Affine { a, d, fill };
            let off = |row: &usize| ordered(self.code, self.given[*row]).abs_diff(self.predicted(&model, *row));
            let add = |(bits, sum): (u64, u64), off: u64| {
                (bits + u64::from(64 - off.leading_zeros()), sum.saturating_add(off))
            };
            sample.iter().map(off).fold((0, 0), add)
        };
        if wrong(0.0, 1.0).0 == 0 {
            return Some(Model::Affine { a: 0.0, d: 1.0, fill });
        }
        let mut d = (self.x(high) - self.x(low)) / (y(high) - y(low));
        let mut a = self.x(low) - y(low) * d;
        if !(a.is_finite() && d.is_finite() && d != 0.0) {
            return None;
        }
        // Two points give the last bits of neither: look around them.
        let mut least = wrong(a, d);
        if least.0 > 24 * sample.len() as u64 {
            return None;
        }
        if !refine {
            return Some(Model::Affine { a, d, fill });
        }
        for step in (0..14).rev().map(|k| 1i64 << k).chain([2, 1]) {
            for by in [step, -step] {
                for (near_a, near_d) in
                    [(a, near(d, by)), (near(a, by), d), (near(a, by), near(d, by)), (near(a, by), near(d, -by))]
                {
                    let here = wrong(near_a, near_d);
                    if here < least {
                        (least, a, d) = (here, near_a, near_d);
                    }
                }
            }
            if least.0 == 0 {
                break;
            }
        }
        Some(Model::Affine { a, d, fill })
    }

    /// Places and multiples of this column's decimals; zeros where it is null.
    fn decimals(&self) -> Option<(u8, Vec<i64>)> {
        let numbers = || self.given.iter().map(|bits| number(self.code, *bits)).collect::<Vec<_>>();
        matches!(self.code, Code::F32 | Code::F64).then(|| decimal::multiples(self.code, &numbers()))?
    }

    /// Offset and slope of the line through the base's values that is nearest to this column's multiples, by least squares.
    fn line(&self, multiples: &[i64]) -> Option<(f64, f64)> {
        let both = |row: &usize| self.base.is_valid(*row) && is_valid(self.valid, *row) && self.x(*row).is_finite();
        let rows: Vec<usize> = (0..multiples.len()).filter(both).collect();
        let n = rows.len().max(1) as f64;
        let mean_x = rows.iter().map(|row| self.x(*row)).sum::<f64>() / n;
        let mean_y = rows.iter().map(|row| multiples[*row] as f64).sum::<f64>() / n;
        let (mut xx, mut xy) = (0.0, 0.0);
        for row in &rows {
            let x = self.x(*row) - mean_x;
            xx += x * x;
            xy += x * (multiples[*row] as f64 - mean_y);
        }
        let b = xy / xx;
        let a = mean_y - b * mean_x;
        (a.is_finite() && b.is_finite()).then_some((a, b))
    }

    /// The first row that is null in the base alone.
    fn filled(&self) -> Option<usize> {
        let filled = |row: &usize| !self.base.is_valid(*row) && is_valid(self.valid, *row);
        (0..self.given.len()).find(filled)
    }
}

/// The float `by` steps away.
fn near(x: f64, by: i64) -> f64 {
    f64::from_bits(x.to_bits().wrapping_add_signed(by))
}
