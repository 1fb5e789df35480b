//! How a page came out, to encode pages like it without trying everything.

use super::{Encoding, decimal, pco};
use crate::Code;

/// What served a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Habit {
    /// Its encoding.
    pub encoding: Encoding,
    /// Whether a pco stream may hold differences of numbers, which it takes long to choose between.
    pub differences: bool,
}

impl Habit {
    /// The encoding alone: what it may hold is not known.
    pub const fn of(encoding: Encoding) -> Self {
        Self { encoding, differences: true }
    }

    /// What served the page of these bytes.
    pub fn of_page(code: Code, encoding: Encoding, page: &[u8]) -> Self {
        let stream = match encoding {
            Encoding::Pco => Some((code, page)),
            Encoding::Decimal => decimal::stream(page),
            _ => None,
        };
        Self { encoding, differences: stream.is_none_or(|(code, bytes)| pco::has_differences(code, bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effort, encode_page};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn habit(numbers: impl Iterator<Item = f64>) -> Habit {
        let (mut codes, mut page) = (Vec::new(), Vec::new());
        numbers.for_each(|x| codes.extend_from_slice(&x.to_le_bytes()));
        let like = Effort::Like(Habit::of(Encoding::Decimal));
        assert_eq!(encode_page(Code::F64, &codes, 1, like, None, &mut page).unwrap(), Encoding::Decimal);
        Habit::of_page(Code::F64, Encoding::Decimal, &page)
    }

    #[test]
    fn differences_are_told_from_numbers() {
        let mut rng = StdRng::seed_from_u64(1);
        let numbers: Vec<f64> = (0..4096).map(|_| f64::from(rng.random_range(0..1 << 20))).collect();
        let scattered = habit(numbers.iter().copied());
        assert!(!scattered.differences, "{scattered:?}");
        let mut sum = 0.0;
        let rising = habit(numbers.iter().map(|x| {
            sum += x;
            sum
        }));
        assert!(rising.differences, "{rising:?}");
        // Of damaged bytes, or of those of other encodings, nothing is known.
        assert!(Habit::of_page(Code::F64, Encoding::Pco, &[1, 2]).differences);
        assert!(Habit::of_page(Code::F64, Encoding::Decimal, &[]).differences);
        assert_eq!(Habit::of_page(Code::Bit, Encoding::Zstd, &[0]), Habit::of(Encoding::Zstd));
    }
}
