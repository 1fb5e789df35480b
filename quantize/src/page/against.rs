//! A column's page coded against another column's: what a model makes of the other one's values, and by how much it is
//! wrong.

mod number;
mod pair;

use number::*;
use pair::Pair;

use super::decimal::POWERS;
use super::{Effort, Encoding, Habit, decode_page, encode_page};
use crate::Code;
use crate::error::{QuantizeError, Result, check_len, corrupt};

/// One column's codes in a page, to code another one's against.
#[derive(Debug, Clone, Copy)]
pub struct BasePage<'a> {
    /// Type of a code.
    pub code: Code,
    /// One code a row.
    pub codes: &'a [u8],
    /// One byte a row, 0 where it is null.
    pub valid: Option<&'a [u8]>,
}

impl BasePage<'_> {
    fn is_valid(&self, row: usize) -> bool {
        is_valid(self.valid, row)
    }
}

fn is_valid(valid: Option<&[u8]>, row: usize) -> bool {
    valid.is_none_or(|v| v.get(row) != Some(&0))
}

/// How a row's code is predicted from the base's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Model {
    /// The same code, and `fill` where the base is null: columns without change, or whose nulls were filled.
    Copy { fill: u64 },
    /// (x − a) / d, and `fill` where the base is null: scaled columns and columns of another type.
    Affine { a: f64, d: f64, fill: u64 },
    /// Multiples of 10^−exponent, `fill` of them where the base is null: columns of rounded numbers, as format version 2
    /// has them.
    Decimal { exponent: u8, fill: i64 },
    /// a + b · x multiples of 10^−exponent, and `fill` where the base is null: columns of rounded numbers, such as
    /// predictions of models of near hyperparameters.
    Linear { exponent: u8, a: f64, b: f64, fill: i64 },
}

const COPY: u8 = 0;
const AFFINE: u8 = 1;
const DECIMAL: u8 = 2;
const LINEAR: u8 = 3;
/// How many times fewer bytes than bits / 8 residuals are thought to take at best.
const MOST_ALIKE: u64 = 2;
/// Rows by which bases are compared.
const COMPARED: usize = 256;

/// Codes `codes` against `base` and appends what it takes; `valid` says which rows are not null, whose codes are zeros.
/// `alone` is what the page takes alone: a model that is wrong by far more is not tried.
///
/// Returns `false`, and appends nothing, where the two have other lengths or no model is near enough.
/// Errors: as [`encode_page`].
pub fn encode_against(
    code: Code,
    codes: &[u8],
    valid: Option<&[u8]>,
    base: BasePage<'_>,
    alone: usize,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Some((given, from)) = load_both(code, codes, base)? else { return Ok(false) };
    let pair = Pair { code, given: &given, valid, base, from: &from };
    let best = pair.best(true);
    // Residuals that are alike take fewer bytes than their bits, but not that many fewer.
    let most = (alone as u64).saturating_mul(8 * MOST_ALIKE);
    let Some((_, model, residuals)) = best.filter(|(bits, ..)| *bits <= most) else { return Ok(false) };
    write(&model, code, &residuals, out)?;
    Ok(true)
}

/// About how many bits [`encode_against`] has to code, by some of the rows; `None` where it can do nothing.
///
/// Errors: as [`encode_page`].
pub fn estimate_against(code: Code, codes: &[u8], valid: Option<&[u8]>, base: BasePage<'_>) -> Result<Option<u64>> {
    code.check()?;
    base.code.check()?;
    let (width, base_width) = (code.width(), base.code.width());
    let n = codes.len() / width;
    if n == 0 || base.codes.len() / base_width != n {
        return Ok(None);
    }
    let step = n.div_ceil(COMPARED);
    let some = |bytes: &[u8], width: usize| -> Vec<u8> {
        bytes.chunks_exact(width).step_by(step).flatten().copied().collect()
    };
    let (codes, of_base) = (some(codes, width), some(base.codes, base_width));
    let (valid, base_valid) = (valid.map(|v| some(v, 1)), base.valid.map(|v| some(v, 1)));
    let base = BasePage { code: base.code, codes: &of_base, valid: base_valid.as_deref() };
    let (given, from) = (load(code, &codes), load(base.code, base.codes));
    let pair = Pair { code, given: &given, valid: valid.as_deref(), base, from: &from };
    Ok(pair.best(false).map(|(bits, ..)| bits * n as u64 / given.len() as u64))
}

/// As [`encode_against`], where nearly every row has the base's value, be it of another type, or one value where the base is
/// null; `false` elsewhere, found out quickly.
///
/// Errors: as [`encode_page`].
pub fn encode_copied(
    code: Code,
    codes: &[u8],
    valid: Option<&[u8]>,
    base: BasePage<'_>,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Some((given, from)) = load_both(code, codes, base)? else { return Ok(false) };
    let pair = Pair { code, given: &given, valid, base, from: &from };
    // Of another type, as the same number.
    let model = pair.copy().unwrap_or_else(|| Model::Affine { a: 0.0, d: 1.0, fill: pair.fill() });
    let residuals = pair.residuals(&model);
    if bits_of(&residuals) > given.len() as u64 {
        return Ok(false);
    }
    write(&model, code, &residuals, out)?;
    Ok(true)
}

/// The codes of both; `None` where there are none or they have other lengths.
fn load_both(code: Code, codes: &[u8], base: BasePage<'_>) -> Result<Option<(Vec<u64>, Vec<u64>)>> {
    code.check()?;
    base.code.check()?;
    let n = codes.len() / code.width();
    if n == 0 || base.codes.len() / base.code.width() != n {
        return Ok(None);
    }
    Ok(Some((load(code, codes), load(base.code, base.codes))))
}

fn bits_of(residuals: &[u64]) -> u64 {
    residuals.iter().map(|r| u64::from(64 - r.leading_zeros())).sum()
}

fn write(model: &Model, code: Code, residuals: &[u64], out: &mut Vec<u8>) -> Result<()> {
    model.write(code, out);
    let at = out.len();
    out.push(0);
    let width = model.residual_code(code);
    // Of residuals that differ much, pco is the smallest.
    let many = bits_of(residuals) > 3 * residuals.len() as u64;
    let effort = if many { Effort::Like(Habit::of(Encoding::Pco)) } else { Effort::Column };
    let encoding = encode_page(width, &store(width, residuals), 1, effort, None, out)?;
    out[at] = encoding as u8;
    Ok(())
}

/// Decodes what [`encode_against`] wrote, given the same `valid` and `base`.
///
/// Errors: `Corrupt` for bytes that it does not write; `Length` of `out` or of the base.
pub fn decode_against(
    code: Code,
    mut bytes: &[u8],
    valid: Option<&[u8]>,
    base: BasePage<'_>,
    out: &mut [u8],
) -> Result<()> {
    code.check()?;
    base.code.check()?;
    let from = load(base.code, base.codes);
    check_len("codes of the base", from.len().saturating_mul(code.width()), out.len())?;
    let model = Model::read(code, &mut bytes)?;
    if matches!(model, Model::Copy { .. }) && code != base.code {
        return Err(corrupt("page against a base", "the base has codes of another type"));
    }
    let (&encoding, page) = bytes.split_first().ok_or(corrupt("page against a base", "length"))?;
    let encoding = Encoding::try_from(encoding)?;
    let width = model.residual_code(code);
    let mut residuals = vec![0; from.len() * width.width()];
    decode_page(width, encoding, page, from.len(), 1, None, &mut residuals)?;
    let residuals = load(width, &residuals);
    let pair = Pair { code, given: &[], valid, base, from: &from };
    let codes: Vec<u64> = residuals.iter().enumerate().map(|(row, r)| pair.restore(&model, row, *r)).collect();
    out.copy_from_slice(&store(code, &codes));
    if code.width() == 1 && code.bits() < 8 && out.iter().fold(0, |m, &b| m | b) >> code.bits() != 0 {
        return Err(corrupt("page", "codes beyond the bits of their type"));
    }
    Ok(())
}

impl Model {
    fn write(&self, code: Code, out: &mut Vec<u8>) {
        match self {
            Self::Copy { fill } => {
                out.push(COPY);
                out.extend_from_slice(&fill.to_le_bytes()[..code.width()]);
            }
            Self::Affine { a, d, fill } => {
                out.push(AFFINE);
                out.extend_from_slice(&a.to_le_bytes());
                out.extend_from_slice(&d.to_le_bytes());
                out.extend_from_slice(&fill.to_le_bytes()[..code.width()]);
            }
            Self::Decimal { exponent, fill } => {
                out.extend_from_slice(&[DECIMAL, *exponent]);
                out.extend_from_slice(&fill.to_le_bytes());
            }
            Self::Linear { exponent, a, b, fill } => {
                out.extend_from_slice(&[LINEAR, *exponent]);
                out.extend_from_slice(&a.to_le_bytes());
                out.extend_from_slice(&b.to_le_bytes());
                out.extend_from_slice(&fill.to_le_bytes());
            }
        }
    }

    fn read(code: Code, bytes: &mut &[u8]) -> Result<Self> {
        let mut take = |n: usize| {
            let (head, tail) = bytes.split_at_checked(n).ok_or(corrupt("page against a base", "length"))?;
            *bytes = tail;
            let mut word = [0; 8];
            word[..n].copy_from_slice(head);
            Ok(u64::from_le_bytes(word))
        };
        match take(1)? as u8 {
            COPY => Ok(Self::Copy { fill: take(code.width())? }),
            AFFINE => {
                let (a, d) = (f64::from_bits(take(8)?), f64::from_bits(take(8)?));
                Ok(Self::Affine { a, d, fill: take(code.width())? })
            }
            id @ (DECIMAL | LINEAR) => {
                let exponent = take(1)? as u8;
                if usize::from(exponent) >= POWERS.len() {
                    return Err(corrupt("page against a base", "exponent"));
                }
                if id == DECIMAL {
                    return Ok(Self::Decimal { exponent, fill: take(8)?.cast_signed() });
                }
                if !matches!(code, Code::F32 | Code::F64) {
                    return Err(corrupt("page against a base", "type of code"));
                }
                let (a, b) = (f64::from_bits(take(8)?), f64::from_bits(take(8)?));
                Ok(Self::Linear { exponent, a, b, fill: take(8)?.cast_signed() })
            }
            id => Err(QuantizeError::UnknownId { what: "model", id }),
        }
    }

    /// Type of what is stored of each row.
    fn residual_code(&self, code: Code) -> Code {
        match self {
            Self::Decimal { .. } | Self::Linear { .. } => Code::Int(8),
            _ => Code::Int(code.width() as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decimal;
    use super::*;
    use proptest::prelude::*;

    const CODES: [Code; 10] = [
        Code::Bit,
        Code::Kbit(3),
        Code::F16,
        Code::BF16,
        Code::F32,
        Code::F64,
        Code::Int(1),
        Code::Int(2),
        Code::Int(4),
        Code::Int(8),
    ];

    fn round_trip(code: Code, codes: &[u8], valid: Option<&[u8]>, base: BasePage<'_>) -> usize {
        let mut page = Vec::new();
        assert!(encode_against(code, codes, valid, base, usize::MAX, &mut page).unwrap());
        let mut back = vec![0xAA; codes.len()];
        decode_against(code, &page, valid, base, &mut back).unwrap();
        assert_eq!(back, codes);
        page.len()
    }

    fn f64s(values: impl Iterator<Item = f64>) -> Vec<u8> {
        values.flat_map(f64::to_le_bytes).collect()
    }

    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11) as f64
            / decimal::MOST
    }

    #[test]
    fn filled_nulls_cost_nothing() {
        let valid: Vec<u8> = (0..8192).map(|i| u8::from(i % 7 != 3)).collect();
        let base = f64s((0..8192).map(|i| if i % 7 == 3 { 0.0 } else { noise(i) }));
        let filled = f64s((0..8192).map(|i| if i % 7 == 3 { 0.123_456 } else { noise(i) }));
        let base = BasePage { code: Code::F64, codes: &base, valid: Some(&valid) };
        assert!(round_trip(Code::F64, &filled, None, base) < 24);
        // Nulls of the page itself are zeros, whatever the base says.
        let fewer: Vec<u8> = (0..8192).map(|i| u8::from(i % 7 != 3 && i % 5 != 0)).collect();
        let nulls = f64s((0..8192).map(|i| if i % 7 == 3 || i % 5 == 0 { 0.0 } else { noise(i) }));
        assert!(round_trip(Code::F64, &nulls, Some(&fewer), base) < 24);
    }

    #[test]
    fn copies_are_told_from_others() {
        let base = f64s((0..8192).map(noise));
        let (base, mut out) = (BasePage { code: Code::F64, codes: &base, valid: None }, Vec::new());
        let one_other = f64s((0..8192).map(|i| if i == 4000 { f64::NAN } else { noise(i) }));
        assert!(encode_copied(Code::F64, &one_other, None, base, &mut out).unwrap());
        let mut back = vec![0; one_other.len()];
        decode_against(Code::F64, &out, None, base, &mut back).unwrap();
        assert!(back == one_other && out.len() < 60, "{}", out.len());
        out.clear();
        let other = f64s((0..8192).map(|i| noise(i + 9)));
        assert!(!encode_copied(Code::F64, &other, None, base, &mut out).unwrap() && out.is_empty());
        assert!(!encode_copied(Code::Int(8), &other, None, base, &mut out).unwrap() && out.is_empty());
        let integers: Vec<u8> = (0..8192i64).flat_map(|i| (i * i % 7919).to_le_bytes()).collect();
        let valid: Vec<u8> = (0..8192).map(|i| u8::from(i % 9 > 0)).collect();
        let as_floats = f64s((0..8192i64).map(|i| if i % 9 > 0 { (i * i % 7919) as f64 } else { 31.5 }));
        let of_integers = BasePage { code: Code::Int(8), codes: &integers, valid: Some(&valid) };
        assert!(encode_copied(Code::F64, &as_floats, None, of_integers, &mut out).unwrap());
        let mut back = vec![0; as_floats.len()];
        decode_against(Code::F64, &out, None, of_integers, &mut back).unwrap();
        assert!(back == as_floats && out.len() < 60, "{}", out.len());
        out.clear();
        assert!(!encode_copied(Code::F64, &other[8..], None, base, &mut out).unwrap() && out.is_empty());
        // Noise against noise is not tried where alone it takes a fortieth.
        assert!(!encode_against(Code::F64, &other, None, base, 1_600, &mut out).unwrap() && out.is_empty());
    }

    #[test]
    fn scaled_columns_cost_little() {
        let integers: Vec<i32> = (0..8192).map(|i| (noise(i) * 20_000.0) as i32).collect();
        let base: Vec<u8> = integers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let base = BasePage { code: Code::Int(4), codes: &base, valid: None };
        let (mean, deviation) = (10_012.345_678, 5_771.123_4);
        let scaled = f64s(integers.iter().map(|x| (f64::from(*x) - mean) / deviation));
        let len = round_trip(Code::F64, &scaled, None, base);
        assert!(len < 2_000, "{len}");
        let as_floats = f64s(integers.iter().map(|x| f64::from(*x)));
        assert!(round_trip(Code::F64, &as_floats, None, base) < 40);
    }

    #[test]
    fn rounded_numbers_near_each_other_cost_their_difference() {
        let rounded = |x: f64| (x * 1e4).round() / 1e4;
        let base = f64s((0..8192).map(|i| rounded(noise(i))));
        let near = f64s((0..8192).map(|i| rounded(noise(i) + 0.0003 * noise(i + 77))));
        let base = BasePage { code: Code::F64, codes: &base, valid: None };
        let len = round_trip(Code::F64, &near, None, base);
        // Four values at most: two bits a row.
        assert!(len < 2_400, "{len}");
    }

    #[test]
    fn predictions_that_shrink_or_touch_zero_cost_their_noise() {
        // Some round to −0, which is no multiple of anything but itself.
        let rounded = |x: f64| (x * 1e4).round() / 1e4;
        let base = f64s((0..8192).map(|i| rounded(noise(i) * 0.2 - 0.1)));
        let other = f64s((0..8192).map(|i| rounded((noise(i) * 0.2 - 0.1) * 0.6 + 0.0003 * noise(i + 77))));
        assert!(other.as_chunks().0.iter().any(|x| f64::from_le_bytes(*x).to_bits() == (-0.0f64).to_bits()));
        let base = BasePage { code: Code::F64, codes: &base, valid: None };
        let len = round_trip(Code::F64, &other, None, base);
        // Four or five values.
        assert!(len < 2_700, "{len}");
        let bits = estimate_against(Code::F64, &other, None, base).unwrap().unwrap();
        let unlike = f64s((0..8192).map(|i| rounded(noise(i + 50_000))));
        let more = estimate_against(Code::F64, &unlike, None, base).unwrap().unwrap();
        assert!(bits < 8192 * 4 && more > 8192 * 9, "{bits} {more}");
        assert_eq!(estimate_against(Code::F64, &other[8..], None, base).unwrap(), None);
    }

    #[test]
    fn pages_of_version_2_still_decode() {
        // Model 2: multiples of 10^−1, the differences 1, −2 and 0 after zigzag, the base's null filled by 7.
        let page =
            [&[DECIMAL, 1][..], &7i64.to_le_bytes(), &[0], &2u64.to_le_bytes(), &3u64.to_le_bytes(), &[0; 8]].concat();
        let codes = f64s([1.5, 2.5, 0.0].into_iter());
        let base = BasePage { code: Code::F64, codes: &codes, valid: Some(&[1, 1, 0]) };
        let mut out = [0; 24];
        decode_against(Code::F64, &page, None, base, &mut out).unwrap();
        assert_eq!(out.to_vec(), f64s([1.6, 2.3, 0.7].into_iter()));
    }

    #[test]
    fn mistakes_and_damage_are_errors() {
        let base = BasePage { code: Code::F64, codes: &[0; 16], valid: None };
        let mut out = Vec::new();
        assert!(!encode_against(Code::F64, &[0; 8], None, base, 8, &mut out).unwrap() && out.is_empty());
        assert!(encode_against(Code::F64, &[1; 16], None, base, 1 << 20, &mut out).unwrap());
        for cut in 0..out.len() {
            assert!(decode_against(Code::F64, &out[..cut], None, base, &mut [0; 16]).is_err(), "{cut}");
        }
        assert!(decode_against(Code::F64, &out, None, base, &mut [0; 8]).is_err());
        assert!(decode_against(Code::F32, &out, None, base, &mut [0; 8]).is_err());
        assert!(decode_against(Code::F64, &[9], None, base, &mut [0; 16]).is_err());
        assert!(
            decode_against(Code::F64, &[DECIMAL, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], None, base, &mut [0; 16]).is_err()
        );
        let linear = |exponent| [&[LINEAR, exponent][..], &[0; 24], &[1], &[0; 8]].concat();
        assert!(decode_against(Code::F64, &linear(9), None, base, &mut [0; 16]).is_ok());
        assert!(decode_against(Code::F64, &linear(10), None, base, &mut [0; 16]).is_err());
        assert!(decode_against(Code::Int(8), &linear(9), None, base, &mut [0; 16]).is_err());
    }

    proptest! {
        /// Any bits of any two types, with any nulls: the oracle is the page itself.
        #[test]
        fn anything_round_trips(
            (a, b, n) in (0..CODES.len(), 0..CODES.len(), 1usize..80),
            seed in any::<u64>(),
            form in 0..4u8,
        ) {
            let (code, of_base) = (CODES[a], CODES[b]);
            let bits = |code: Code, i: usize, salt: u64| {
                let random = (i as u64 ^ seed ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(salt | 1);
                let special = [f64::NAN, f64::INFINITY, -0.0, 0.0, 1.5, -2.25, 1e300, 3.0];
                let bits = match form {
                    0 => random,
                    1 => to_code(code, special[(random % 8) as usize]),
                    2 => to_code(code, (random % 1000) as f64 / 100.0),
                    _ => to_code(code, i as f64),
                };
                bits & (u64::MAX >> (64 - code.bits()))
            };
            let valid: Vec<u8> = (0..n).map(|i| u8::from(!(i as u64 ^ seed).is_multiple_of(3))).collect();
            let base_valid: Vec<u8> = (0..n).map(|i| u8::from(!(i as u64 ^ seed).is_multiple_of(4))).collect();
            let page: Vec<u64> = (0..n).map(|i| if valid[i] == 1 { bits(code, i, 3) } else { 0 }).collect();
            let from: Vec<u64> = (0..n).map(|i| if base_valid[i] == 1 { bits(of_base, i, 5) } else { 0 }).collect();
            let (page, from) = (store(code, &page), store(of_base, &from));
            let base = BasePage { code: of_base, codes: &from, valid: (form % 2 == 0).then_some(&base_valid) };
            for valid in [None, Some(&valid[..])] {
                let mut out = Vec::new();
                prop_assert!(encode_against(code, &page, valid, base, usize::MAX, &mut out).unwrap() || code != of_base);
                let mut copied = Vec::new();
                encode_copied(code, &page, valid, base, &mut copied).unwrap();
                for out in [out, copied].iter().filter(|out| !out.is_empty()) {
                    let mut back = vec![0; page.len()];
                    decode_against(code, out, valid, base, &mut back).unwrap();
                    prop_assert_eq!(&back, &page);
                }
            }
        }

        /// Any bytes for a page decode or fail.
        #[test]
        fn arbitrary_pages_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..60), a in 0..CODES.len(), b in 0..CODES.len()) {
            let (code, of_base) = (CODES[a], CODES[b]);
            let base = vec![1; 9 * of_base.width()];
            let base = BasePage { code: of_base, codes: &base, valid: None };
            let _ = decode_against(code, &bytes, None, base, &mut vec![0; 9 * code.width()]);
        }
    }
}
