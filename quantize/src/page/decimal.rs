//! Floats that are decimals of few places, as integers: 0.0575 is 575 ten-thousandths.
//!
//! A multiple of a power of ten is not the float that its product with the power's inverse rounds to, so that codes of
//! floats by a common factor spend bits on the difference. The quotient is exact.
//!
//! Layout: exponent u8; width of the integers u8; the encoding of their page u8; the page.

use super::{Effort, Encoding, decode_page, encode_page, pco};
use crate::Code;
use crate::error::{Result, corrupt};

/// Powers of ten that are exact; a decimal has at most so many places less one.
pub(super) const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Integers up to it are exact as f64.
pub(super) const MOST: f64 = (1u64 << 53) as f64;
/// Rows by which the number of places is found.
const SAMPLE: usize = 64;

/// Whether codes of this type can be decimals.
pub(super) const fn holds(code: Code) -> bool {
    matches!(code, Code::F32 | Code::F64)
}

/// How many 10^−exponent a number is. Of negative ones, one less, so that −0 has a number of its own; 0 of NaN, of whose
/// sign machines make different things.
pub(super) fn multiple(x: f64, exponent: u8) -> i64 {
    if x.is_nan() {
        return 0;
    }
    let whole = (x.abs() * POWERS[usize::from(exponent)]).round() as i64;
    if x.is_sign_negative() { !whole } else { whole }
}

/// Undoes [`multiple`].
pub(super) fn value(multiple: i64, exponent: u8) -> f64 {
    let magnitude = (multiple ^ (multiple >> 63)) as f64 / POWERS[usize::from(exponent)];
    if multiple < 0 { -magnitude } else { magnitude }
}

/// [`multiple`], where the number is just that decimal in the type of its code.
pub(super) fn exact(code: Code, x: f64, exponent: u8) -> Option<i64> {
    let whole = multiple(x, exponent);
    let back = value(whole, exponent);
    let same = match code {
        Code::F32 => (back as f32).to_bits() == (x as f32).to_bits(),
        _ => back.to_bits() == x.to_bits(),
    };
    (same && (whole ^ (whole >> 63)) as f64 <= MOST).then_some(whole)
}

/// The fewest places with which all numbers are decimals, and these; `None` where there are none such.
pub(super) fn multiples(code: Code, numbers: &[f64]) -> Option<(u8, Vec<i64>)> {
    let step = (numbers.len() / SAMPLE).max(1);
    let mut from = 0;
    'places: while usize::from(from) < POWERS.len() {
        let sample = |e: &u8| numbers.iter().step_by(step).all(|x| exact(code, *x, *e).is_some());
        let exponent = (from..POWERS.len() as u8).find(sample)?;
        let mut all = Vec::with_capacity(numbers.len());
        for x in numbers {
            let Some(whole) = exact(code, *x, exponent) else {
                from = exponent + 1;
                continue 'places;
            };
            all.push(whole);
        }
        return Some((exponent, all));
    }
    None
}

/// The numbers of float codes.
fn numbers(code: Code, codes: &[u8]) -> Vec<f64> {
    match code {
        Code::F32 => codes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        _ => codes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
    }
}

/// Appends the codes as decimals, by pco where that is smaller than the integers; `false`, and nothing appended,
/// where they are none.
pub(super) fn compress(code: Code, codes: &[u8], search: pco::Search, out: &mut Vec<u8>) -> Result<bool> {
    let Some((exponent, all)) = multiples(code, &numbers(code, codes)) else { return Ok(false) };
    let widest = all.iter().fold(0, |bits, m| bits | (m ^ (m >> 63)));
    let width = match 64 - widest.leading_zeros() {
        0..=15 => 2,
        16..=31 => 4,
        _ => 8u8,
    };
    let mut bytes = Vec::with_capacity(all.len() * usize::from(width));
    all.iter().for_each(|m| bytes.extend_from_slice(&m.to_le_bytes()[..usize::from(width)]));
    let at = out.len();
    out.extend_from_slice(&[exponent, width, Encoding::Pco as u8]);
    pco::compress(Code::Int(width), &bytes, search, out)?;
    if out.len() - at > bytes.len() {
        out.truncate(at + 2);
        out.push(0);
        let encoding = encode_page(Code::Int(width), &bytes, 1, Effort::Fast, None, out)?;
        out[at + 2] = encoding as u8;
    }
    Ok(true)
}

/// The pco stream in a page, and the type of its codes.
pub(super) fn stream(page: &[u8]) -> Option<(Code, &[u8])> {
    let (&[_, width, encoding], stream) = page.split_first_chunk()?;
    (encoding == Encoding::Pco as u8).then_some((Code::Int(width), stream))
}

/// Decodes what [`compress`] wrote.
///
/// Errors: `Corrupt` for bytes that it does not write.
pub(super) fn decompress(code: Code, bytes: &[u8], out: &mut [u8]) -> Result<()> {
    let bad = |why| corrupt("decimal page", why);
    if !holds(code) {
        return Err(bad("type of code"));
    }
    let (&[exponent, width, encoding], page) = bytes.split_first_chunk().ok_or(bad("length"))?;
    if usize::from(exponent) >= POWERS.len() || !matches!(width, 2 | 4 | 8) {
        return Err(bad("exponent or width"));
    }
    let n = out.len() / code.width();
    let mut all = vec![0; n * usize::from(width)];
    decode_page(Code::Int(width), Encoding::try_from(encoding)?, page, n, 1, None, &mut all)?;
    let multiples: Vec<i64> = match width {
        2 => all.as_chunks().0.iter().map(|b| i64::from(i16::from_le_bytes(*b))).collect(),
        4 => all.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        _ => all.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
    };
    let numbers = multiples.iter().map(|m| value(*m, exponent));
    match code {
        Code::F32 => {
            out.as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(o, x)| *o = (x as f32).to_le_bytes());
        }
        _ => out.as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(o, x)| *o = x.to_le_bytes()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUICK: pco::Search = pco::Search::Quick { differences: true };

    fn round_trip(code: Code, codes: &[u8]) -> Option<usize> {
        let mut page = Vec::new();
        if !compress(code, codes, pco::Search::Small, &mut page).unwrap() {
            assert!(page.is_empty());
            return None;
        }
        let mut back = vec![0xAA; codes.len()];
        decompress(code, &page, &mut back).unwrap();
        assert_eq!(back, codes);
        Some(page.len())
    }

    fn f64s(values: impl IntoIterator<Item = f64>) -> Vec<u8> {
        values.into_iter().flat_map(f64::to_le_bytes).collect()
    }

    #[test]
    fn decimals_cost_their_integers() {
        let thousand = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 1000;
        let rounded = f64s((0..8192).map(|i| (thousand(i) as f64 - 300.0) / 1e4));
        // Ten bits a row, less what thousand is short of 1024.
        let len = round_trip(Code::F64, &rounded).unwrap();
        assert!(len < 8192 * 10 / 8 + 600, "{len}");
        let singles: Vec<u8> = (0..8192).flat_map(|i| (thousand(i) as f32 / 100.0).to_le_bytes()).collect();
        assert!(round_trip(Code::F32, &singles).unwrap() < 8192 * 10 / 8 + 600);
    }

    #[test]
    fn signs_of_zero_large_numbers_and_few_rows_survive() {
        assert!(round_trip(Code::F64, &f64s([0.0, -0.0, 0.5, -0.5, -1.0])).is_some());
        assert!(round_trip(Code::F64, &f64s([-0.0])).is_some());
        assert!(round_trip(Code::F64, &[]).is_some());
        assert!(round_trip(Code::F64, &f64s([MOST, -MOST, 1.0, -40_000.0])).is_some());
        // A row that the sample does not see has more places.
        let late = |i: usize| if i == 4001 { 0.12345 } else { (i % 7) as f64 / 10.0 };
        assert!(round_trip(Code::F64, &f64s((0..8192).map(late))).is_some());
        for other in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 1e-300, std::f64::consts::PI, MOST * 4.0] {
            assert_eq!(round_trip(Code::F64, &f64s([1.0, other])), None, "{other}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let mut page = Vec::new();
        assert!(compress(Code::F64, &f64s([0.5, 0.25, -3.0]), QUICK, &mut page).unwrap());
        let mut out = [0; 24];
        for cut in 0..page.len() {
            assert!(decompress(Code::F64, &page[..cut], &mut out).is_err(), "{cut}");
        }
        assert!(decompress(Code::Int(8), &page, &mut out).is_err());
        assert!(decompress(Code::F64, &[10, 2, 1, 0, 0], &mut out).is_err());
        assert!(decompress(Code::F64, &[1, 3, 1, 0, 0, 0], &mut out).is_err());
        assert!(decompress(Code::F64, &[1, 2, 10, 0, 0], &mut out).is_err());
    }

    proptest! {
        #[test]
        fn anything_round_trips_or_is_left_alone(
            bits in proptest::collection::vec((any::<u64>(), -1_000_000i64..1_000_000, 0u8..10, 0..20u8), 0..50),
        ) {
            let number = |(bits, whole, exponent, kind): &(u64, i64, u8, u8)| match kind {
                0 => f64::from_bits(*bits),
                1 => -0.0,
                _ => *whole as f64 / POWERS[usize::from(*exponent)],
            };
            round_trip(Code::F64, &f64s(bits.iter().map(number)));
            let singles: Vec<u8> = bits.iter().flat_map(|b| (number(b) as f32).to_le_bytes()).collect();
            round_trip(Code::F32, &singles);
        }

        #[test]
        fn arbitrary_pages_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decompress(Code::F64, &bytes, &mut [0; 72]);
        }
    }
}
