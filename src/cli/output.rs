//! Tables for people, JSON for programs, from the same rows.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Rows of named cells: what is shown, and what JSON says.
#[derive(Default)]
pub struct Rows {
    titles: Vec<String>,
    right: Vec<bool>,
    shown: Vec<Vec<String>>,
    json: Vec<Value>,
}

impl Rows {
    /// Columns; a title that begins with `>` is aligned right.
    pub fn new(titles: &[&str]) -> Self {
        let right = titles.iter().map(|t| t.starts_with('>')).collect();
        let titles = titles.iter().map(|t| plain(t.strip_prefix('>').unwrap_or(t), &[]).into_owned()).collect();
        Self { titles, right, ..Self::default() }
    }

    /// Adds a row: its cells, and the same for JSON.
    pub fn push(&mut self, cells: Vec<String>, json: Value) {
        self.shown.push(cells.into_iter().map(|c| plain(&c, &[]).into_owned()).collect());
        self.json.push(json);
    }

    /// The text of the table.
    pub fn table(&self) -> String {
        /// Wider cells stand out of their column.
        const WIDEST: usize = 200;
        let lines = || std::iter::once(&self.titles).chain(&self.shown);
        let widest =
            |c: usize| lines().filter_map(|l| l.get(c)).map(|t| t.chars().count()).max().unwrap_or(0).min(WIDEST);
        let widths: Vec<usize> = (0..self.titles.len()).map(widest).collect();
        let line = |l: &Vec<String>| {
            let pad = |((cell, width), right): ((&String, &usize), &bool)| {
                if *right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
            };
            let cells: Vec<String> = l.iter().zip(&widths).zip(&self.right).map(pad).collect();
            cells.join("  ").trim_end().to_string() + "\n"
        };
        lines().map(line).collect()
    }

    /// The rows as JSON.
    pub fn json(self) -> Value {
        Value::Array(self.json)
    }

    /// Table or JSON.
    pub fn render(self, json: bool) -> String {
        if json { pretty(&self.json()) } else { self.table() }
    }
}

/// A text with its control characters escaped, but those `kept`: names are data, and a terminal obeys what it is sent.
pub fn plain<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    // Controls are one byte, or two that begin with this one.
    const FIRST: u8 = 0xC2;
    let is_bad = |c: char| c.is_control() && !kept.contains(&c);
    if !text.bytes().any(|b| b == FIRST || is_bad(char::from(b))) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_bad(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Says on standard error what is damaged of the catalogue, where the answer is of the rest.
pub fn damage_note(damage: &[crate::Damage]) {
    for d in damage {
        eprintln!("warning: damaged: {}: {}", d.place, d.why);
    }
    if !damage.is_empty() {
        eprintln!("warning: the answer is of what can be read; `mistique verify` lists all damage");
    }
}

/// What is damaged of the catalogue, for JSON.
pub fn damage_json(damage: &[crate::Damage]) -> Value {
    damage.iter().map(|d| serde_json::json!({"place": d.place, "why": d.why, "keys": d.keys})).collect()
}

/// JSON text with a line's end.
pub fn pretty(value: &Value) -> String {
    let text = format!("{value:#}\n");
    // Controls above the first 32, which JSON may hold as they are, and a terminal obeys.
    let is_bad = |c: char| c.is_control() && c != '\n';
    if !text.contains(is_bad) {
        return text;
    }
    text.chars().map(|c| if is_bad(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

/// A JSON object of pairs.
pub fn object<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Object(pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect::<Map<_, _>>())
}

/// A number; JSON has no NaN and no infinities, which are written as text.
pub fn number(v: f64) -> Value {
    serde_json::Number::from_f64(v).map_or_else(|| Value::String(v.to_string()), Value::Number)
}

/// Bytes in the unit that suits them (powers of 1,000).
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// Seconds since 1970 as a date and time of UTC (Howard Hinnant's days to civil dates).
pub fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest % 3600 / 60)
}

/// Seconds in the unit that suits them.
pub fn seconds(s: f64) -> String {
    match s {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

/// A number with separators between thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// What a row of that shape is.
pub fn shape_text(shape: &[usize]) -> String {
    if shape.is_empty() { "one value".into() } else { format!("{shape:?}") }
}

/// A value to six significant digits at most.
pub fn float(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return format!("{v}");
    }
    let magnitude = v.abs().log10().floor() as i32;
    if (-5..7).contains(&magnitude) {
        let text = format!("{v:.*}", (5 - magnitude).clamp(0, 12) as usize);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    } else {
        format!("{v:.5e}")
    }
}

/// How many times larger `a` is than `b`.
pub fn times(a: f64, b: f64) -> String {
    if b <= 0.0 {
        return "-".into();
    }
    let r = a / b;
    if r >= 100.0 {
        format!("{r:.0}×")
    } else if r >= 10.0 {
        format!("{r:.1}×")
    } else {
        format!("{r:.2}×")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_escaped() {
        assert_eq!(plain("a\x1b[31m\nb\u{9b}ä€", &[]), "a\\u{1b}[31m\\nb\\u{9b}ä€");
        assert_eq!(plain("a\n\tb\r", &['\n', '\t']), "a\n\tb\\r");
        assert!(matches!(plain("a\n", &['\n']), Cow::Borrowed(_)));
    }

    #[test]
    fn tables_of_any_width() {
        let mut rows = Rows::new(&["key", ">n"]);
        let long = "x".repeat(70_000);
        rows.push(vec![long.clone(), "1".into()], Value::Null);
        rows.push(vec!["y".into(), "22".into()], Value::Null);
        let table = rows.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], format!("{long}   1"));
        assert_eq!((lines[0].len(), lines[2].len()), (204, 204));
    }

    #[test]
    fn units_by_hand() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.00 kB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(float(0.1), "0.1");
        assert_eq!(float(-1234.5678), "-1234.57");
        assert_eq!(float(1e20), "1.00000e20");
        assert_eq!(seconds(0.000_25), "250 µs");
        assert_eq!(
            [0, 951_782_399, 951_782_400, 1_700_000_000].map(date),
            ["1970-01-01 00:00", "2000-02-28 23:59", "2000-02-29 00:00", "2023-11-14 22:13"]
        );
    }
}
