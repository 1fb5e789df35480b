//! Types of CSV columns: which values are of them, and which fits all values of a column.

use arrow::datatypes::DataType;

/// What is known of a column while lines are looked at.
pub(super) enum Look {
    /// Its type was given.
    Given(DataType, usize),
    /// Its type is what fits all values.
    Inferred(Inferred),
}

impl Look {
    pub(super) fn given(data_type: &DataType) -> Option<Look> {
        use DataType::{Boolean, Date32, Float32, Float64, Int64, Utf8};
        matches!(data_type, Int64 | Float64 | Float32 | Boolean | Date32 | Utf8)
            .then(|| Look::Given(data_type.clone(), 0))
    }

    /// Looks at a value on that line; says what it should be where it is not that.
    pub(super) fn update(&mut self, text: &str, line: u64) -> Result<(), &'static str> {
        let (data_type, len) = match self {
            Look::Inferred(inferred) => {
                inferred.update(text, line);
                return Ok(());
            }
            Look::Given(data_type, len) => (data_type, len),
        };
        *len += text.len();
        let (fits, what) = match data_type {
            DataType::Int64 => (parse_int(text).is_some(), "a whole number"),
            DataType::Float64 => (parse_float(text).is_some(), "a number within float64"),
            DataType::Float32 => (parse_single(text).is_some(), "a number within float32"),
            DataType::Boolean => (parse_bool(text).is_some(), "true or false"),
            DataType::Date32 => (parse_date(text).is_some(), "a date such as 2016-01-31"),
            _ => (true, "a text"),
        };
        if fits || text.is_empty() { Ok(()) } else { Err(what) }
    }

    /// Line and beginning of the value for which a column whose type was not given is text.
    pub(super) fn first_text(self) -> Option<(u64, String)> {
        match self {
            Look::Given(..) => None,
            Look::Inferred(inferred) => inferred.first_text(),
        }
    }

    pub(super) fn data_type(&self) -> DataType {
        match self {
            Look::Given(DataType::Utf8, len) => text_type(*len),
            Look::Given(data_type, _) => data_type.clone(),
            Look::Inferred(inferred) => inferred.data_type(),
        }
    }
}

/// The type of texts of so many bytes: Utf8 counts its bytes in an i32.
fn text_type(len_bytes: usize) -> DataType {
    if len_bytes > i32::MAX as usize { DataType::LargeUtf8 } else { DataType::Utf8 }
}

/// So much of a value says which it is.
const SHOWN_CHARS: usize = 40;

/// Types that still fit all values of a column.
pub(super) struct Inferred {
    int: bool,
    float: bool,
    boolean: bool,
    date: bool,
    any: bool,
    /// Whether a number has a point or an exponent: it measures something, as those beside it do.
    measures: bool,
    /// Line and beginning of the first whole number beyond int64.
    overlong: Option<(u64, String)>,
    /// Line and beginning of the value since which none fits but text.
    first_text: Option<(u64, String)>,
    text_len_bytes: usize,
}

impl Default for Inferred {
    fn default() -> Inferred {
        Inferred {
            int: true,
            float: true,
            boolean: true,
            date: true,
            any: false,
            measures: false,
            overlong: None,
            first_text: None,
            text_len_bytes: 0,
        }
    }
}

impl Inferred {
    fn update(&mut self, text: &str, line: u64) {
        self.text_len_bytes += text.len();
        if text.is_empty() {
            return;
        }
        self.any = true;
        // Nothing fits any more but text.
        if self.first_text.is_some() {
            return;
        }
        // A whole number is a float too, and neither a boolean nor a date.
        if self.int && parse_int(text).is_some() {
            (self.boolean, self.date) = (false, false);
            return;
        }
        self.int = false;
        let beginning = || Some((line, text.chars().take(SHOWN_CHARS).collect()));
        let number = if self.float { parse_float(text) } else { None };
        if let Some(number) = number {
            let digits = text.trim().trim_start_matches(['+', '-']);
            let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
            self.measures |= !is_whole && number.is_finite();
            if is_whole && self.overlong.is_none() && parse_int(text).is_none() {
                self.overlong = beginning();
            }
        }
        self.float = number.is_some();
        self.boolean = self.boolean && parse_bool(text).is_some();
        self.date = self.date && parse_date(text).is_some();
        if !(self.float || self.boolean || self.date) {
            self.first_text = beginning();
        }
    }

    /// Whether a whole number beyond int64 is an identifier, as those are among whole numbers alone: as a float it would
    /// lose digits.
    fn has_identifiers(&self) -> bool {
        self.overlong.is_some() && !self.measures
    }

    fn first_text(self) -> Option<(u64, String)> {
        let identifier = if self.has_identifiers() { self.overlong } else { None };
        identifier.into_iter().chain(self.first_text).min()
    }

    fn data_type(&self) -> DataType {
        match self {
            Inferred { any: true, int: true, .. } => DataType::Int64,
            Inferred { any: true, float: true, .. } if !self.has_identifiers() => DataType::Float64,
            Inferred { any: true, boolean: true, .. } => DataType::Boolean,
            Inferred { any: true, date: true, .. } => DataType::Date32,
            _ => text_type(self.text_len_bytes),
        }
    }
}

pub(super) fn parse_int(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

pub(super) fn parse_float(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() || is_word(text)).then_some(number)
}

pub(super) fn parse_single(text: &str) -> Option<f32> {
    let single: f32 = text.trim().parse().ok()?;
    (single.is_finite() || is_word(text)).then_some(single)
}

/// Whether an infinite number was written as such (`inf`): one with digits is beyond the type, and is not of it.
fn is_word(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_digit())
}

pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let is = |word: &str| text.trim().eq_ignore_ascii_case(word);
    if is("true") { Some(true) } else { is("false").then_some(false) }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar written `YYYY-MM-DD`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let text = text.trim();
    let shape_fits = |(i, byte): (usize, u8)| if i == 4 || i == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    if text.len() != 10 || !text.bytes().enumerate().all(shape_fits) {
        return None;
    }
    let (year, month, day): (i32, i32, i32) =
        (text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_len = match month {
        2 => 28 + i32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_len).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_before_month + day
            - 1
            - 719_468,
    )
}
