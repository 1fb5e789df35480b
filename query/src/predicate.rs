//! Row predicates: `logits.argmax = 3`, `p.m@v2.conv1.u3 > 0.5 and not label = 2`.
//!
//! An operand names an intermediate of the same model (or a full key) and a column, or one of `argmax`, `max`, `min`,
//! `mean`, `norm` over all columns. It is compared with a number, with text, a date or a time in single quotes, or with
//! another operand; `is null` and `is not null` ask whether there is a value. `row_id` is a row's own number. Comparisons
//! join with `and`, `or`, `not` and parentheses. Integers are compared exactly.

use std::cmp::Ordering;
use std::fmt;

use crate::error::{QueryError, Result};

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Comparison {
    /// Whether two values that stand in this order pass; those without an order (NaN) pass `!=` alone.
    pub fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Eq => order == Some(Ordering::Equal),
            Self::Ne => order != Some(Ordering::Equal),
            Self::Lt => order == Some(Ordering::Less),
            Self::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Gt => order == Some(Ordering::Greater),
            Self::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    /// Whether all values between two that stand in these orders to a number pass, or none does; `None` where that is
    /// open.
    pub(crate) fn decided(self, least: Option<Ordering>, greatest: Option<Ordering>) -> Option<bool> {
        let (least, greatest) = (least?, greatest?);
        match self {
            // Only a range that holds one value decides equality.
            Self::Eq | Self::Ne => {
                let apart = least == Ordering::Greater || greatest == Ordering::Less;
                let same = least == Ordering::Equal && greatest == Ordering::Equal;
                (apart || same).then_some((self == Self::Eq) == same)
            }
            _ => {
                let (a, b) = (self.holds(Some(least)), self.holds(Some(greatest)));
                (a == b).then_some(a)
            }
        }
    }

    /// The operator for its two sides in the other order.
    pub(crate) fn flipped(self) -> Self {
        match self {
            Self::Eq | Self::Ne => self,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

/// What an operand is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// An integer.
    Int(i128),
    /// A number with a point or an exponent.
    Number(f64),
    /// Text, or a date or time.
    Text(String),
    /// Another operand.
    Operand(String),
    /// No value: `is null`, with [`Comparison::Eq`], or `is not null`, with [`Comparison::Ne`].
    Null,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            // With a point, so that it is read as what it is.
            Self::Number(n) => write!(f, "{n:?}"),
            Self::Text(t) => write!(f, "'{}'", t.replace('\'', "''")),
            Self::Operand(o) => f.write_str(o),
            Self::Null => f.write_str("null"),
        }
    }
}

/// A condition on rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Operand, operator, what it is compared with.
    Compare(String, Comparison, Term),
    /// Both.
    And(Box<Predicate>, Box<Predicate>),
    /// Either.
    Or(Box<Predicate>, Box<Predicate>),
    /// Not.
    Not(Box<Predicate>),
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(operand, Comparison::Ne, Term::Null) => write!(f, "{operand} is not null"),
            Self::Compare(operand, _, Term::Null) => write!(f, "{operand} is null"),
            Self::Compare(operand, op, term) => write!(f, "{operand} {} {term}", op.text()),
            Self::And(a, b) => write!(f, "({a} and {b})"),
            Self::Or(a, b) => write!(f, "({a} or {b})"),
            Self::Not(a) => write!(f, "not {a}"),
        }
    }
}

/// Answers one comparison for every row.
/// `None` where the value is null.
pub type Compare<'a> = &'a mut dyn FnMut(&str, Comparison, &Term) -> Result<Vec<Option<bool>>>;

impl Predicate {
    /// Reads a predicate.
    ///
    /// Errors: `Parse` with the place.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let predicate = parser.or()?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.error("something follows the predicate"));
        }
        Ok(predicate)
    }

    /// Whether rows pass, given each comparison's own answer. Nulls follow SQL's three-valued logic: what they decide
    /// is `None`, and such a row does not pass.
    ///
    /// Errors: those of `compare`.
    pub fn evaluate(&self, compare: Compare<'_>) -> Result<Vec<Option<bool>>> {
        match self {
            Self::Compare(operand, op, term) => compare(operand, *op, term),
            Self::Not(a) => Ok(a.evaluate(compare)?.into_iter().map(|x| x.map(|x| !x)).collect()),
            Self::And(a, b) => {
                let (a, b) = (a.evaluate(&mut *compare)?, b.evaluate(compare)?);
                let and = |(a, b)| match (a, b) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                Ok(a.into_iter().zip(b).map(and).collect())
            }
            Self::Or(a, b) => {
                let (a, b) = (a.evaluate(&mut *compare)?, b.evaluate(compare)?);
                let or = |(a, b)| match (a, b) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                };
                Ok(a.into_iter().zip(b).map(or).collect())
            }
        }
    }

    /// Every operand, from the left: at least one.
    pub fn operands(&self) -> Vec<&str> {
        match self {
            Self::Compare(a, _, Term::Operand(b)) => vec![a, b],
            Self::Compare(a, ..) => vec![a],
            Self::And(a, b) | Self::Or(a, b) => [a.operands(), b.operands()].concat(),
            Self::Not(a) => a.operands(),
        }
    }

    /// The same condition on other operands.
    pub fn renamed(&self, name: &dyn Fn(&str) -> String) -> Self {
        let inner = |p: &Self| Box::new(p.renamed(name));
        match self {
            Self::Compare(a, op, Term::Operand(b)) => Self::Compare(name(a), *op, Term::Operand(name(b))),
            Self::Compare(a, op, term) => Self::Compare(name(a), *op, term.clone()),
            Self::And(a, b) => Self::And(inner(a), inner(b)),
            Self::Or(a, b) => Self::Or(inner(a), inner(b)),
            Self::Not(a) => Self::Not(inner(a)),
        }
    }
}

const MAX_DEPTH: usize = 100;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, why: &str) -> QueryError {
        let at = self.text.get(..self.at).map_or(0, |t| t.chars().count()) + 1;
        QueryError::Parse { what: "predicate", given: self.text.to_string(), why: why.to_string(), at }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn word(&mut self, word: &str) -> bool {
        self.space();
        let rest = self.rest();
        let head = rest.get(..word.len()).is_some_and(|h| h.eq_ignore_ascii_case(word));
        let ends = rest
            .get(word.len()..)
            .is_some_and(|t| !t.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.'));
        if head && ends {
            self.at += word.len();
        }
        head && ends
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn or(&mut self) -> Result<Predicate> {
        let mut left = self.and()?;
        while self.word("or") {
            left = Predicate::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Predicate> {
        let mut left = self.not()?;
        while self.word("and") {
            left = Predicate::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Predicate> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("it is nested too deeply"));
        }
        let found = if self.word("not") {
            Predicate::Not(Box::new(self.not()?))
        } else if self.symbol("(") {
            let inner = self.or()?;
            if !self.symbol(")") {
                return Err(self.error("expected )"));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(found)
    }

    fn comparison(&mut self) -> Result<Predicate> {
        self.space();
        let operand = self.operand()?;
        let operators = [
            ("<=", Comparison::Le),
            (">=", Comparison::Ge),
            ("!=", Comparison::Ne),
            ("==", Comparison::Eq),
            ("=", Comparison::Eq),
            ("<", Comparison::Lt),
            (">", Comparison::Gt),
        ];
        if self.word("is") {
            let op = if self.word("not") { Comparison::Ne } else { Comparison::Eq };
            return match self.word("null") {
                true => Ok(Predicate::Compare(operand, op, Term::Null)),
                false => Err(self.error("expected null or not null")),
            };
        }
        let Some((_, mut op)) = operators.into_iter().find(|(text, _)| self.symbol(text)) else {
            return Err(self.error("expected one of = != < <= > >=, is null or is not null"));
        };
        self.space();
        let term = if self.symbol("'") {
            let mut text = String::new();
            loop {
                let Some(end) = self.rest().find('\'') else { return Err(self.error("a quote is not closed")) };
                text.push_str(self.rest().get(..end).unwrap_or_default());
                self.at += end + 1;
                if !self.rest().starts_with('\'') {
                    break Term::Text(text);
                }
                text.push('\'');
                self.at += 1;
            }
        } else {
            let end = self.rest().find(|c: char| c.is_whitespace() || c == ')').unwrap_or(self.rest().len());
            let word = self.rest().get(..end).unwrap_or_default();
            let number = match word.to_ascii_lowercase().as_str() {
                "true" => Some((op, Term::Int(1))),
                "false" => Some((op, Term::Int(0))),
                _ => match word.parse() {
                    Ok(n) => Some((op, Term::Int(n))),
                    Err(_) => word.parse().map(|v| exactly(op, word, v)).ok(),
                },
            };
            match number {
                Some((exact, number)) => {
                    self.at += end;
                    op = exact;
                    number
                }
                None if word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '"') => {
                    Term::Operand(self.operand()?)
                }
                None => return Err(self.error("expected a number, true, false, 'text' or another operand")),
            }
        };
        Ok(Predicate::Compare(operand, op, term))
    }

    /// A key as it is written: everything up to a space or operator, quoted parts and what is bracketed in a name whole.
    fn operand(&mut self) -> Result<String> {
        let start = self.at;
        let mut quoted = false;
        let mut brackets = 0;
        let mut end = self.text.len();
        for (i, c) in self.rest().char_indices() {
            match c {
                '"' => quoted = !quoted,
                _ if quoted => {}
                '[' => brackets += 1,
                // Within a name, as in `kbit(8)`; before one it opens a group.
                '(' if i > 0 => brackets += 1,
                ']' | ')' if brackets > 0 => brackets -= 1,
                _ if brackets > 0 => {}
                c if c.is_whitespace() || "=!<>()".contains(c) => {
                    end = start + i;
                    break;
                }
                _ => {}
            }
        }
        self.at = end;
        if self.at == start {
            return Err(self.error("expected a comparison such as logits.argmax = 3"));
        }
        Ok(self.text.get(start..self.at).unwrap_or_default().to_string())
    }
}

/// A comparison with the number `text`, whose nearest float64 is `v`. Where all float64 are whole, an integer that it
/// lies above stands for it: rounded, it would pass by others.
fn exactly(op: Comparison, text: &str, v: f64) -> (Comparison, Term) {
    let range = 2f64.powi(52)..=2f64.powi(65);
    let Some((floor, is_whole)) = range.contains(&v.abs()).then(|| floor(text)).flatten() else {
        return (op, Term::Number(v));
    };
    match op {
        _ if is_whole => (op, Term::Int(floor)),
        Comparison::Lt | Comparison::Le => (Comparison::Le, Term::Int(floor)),
        Comparison::Gt | Comparison::Ge => (Comparison::Gt, Term::Int(floor)),
        // No value is between two integers.
        Comparison::Eq | Comparison::Ne => (op, Term::Number(f64::NAN)),
    }
}

/// The largest integer that a decimal number is not below, and whether that is the number; `None` where it has no digits
/// or too many.
fn floor(text: &str) -> Option<(i128, bool)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let negative = mantissa.starts_with('-');
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let all = [whole, part].concat();
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) - i64::try_from(zeros).ok()?;
    let point = usize::try_from(point).ok()?;
    let (head, tail) = digits.split_at_checked(point.min(digits.len()))?;
    let zeros = u32::try_from(point - head.len()).ok()?;
    let size = head.parse::<i128>().ok()?.checked_mul(10i128.checked_pow(zeros)?)?;
    let is_whole = tail.chars().all(|c| c == '0');
    Some((if negative { -size - i128::from(!is_whole) } else { size }, is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_parse() {
        let p = Predicate::parse("logits.argmax = 3").unwrap();
        assert_eq!(p, Predicate::Compare("logits.argmax".into(), Comparison::Eq, Term::Int(3)));
        let p = Predicate::parse("not (a.u3>=0.5 or b.\"x y\" != 'it''s') AND c.u1[2, 3] < -1e3").unwrap();
        assert_eq!(p.to_string(), "(not (a.u3 >= 0.5 or b.\"x y\" != 'it''s') and c.u1[2, 3] < -1000.0)");
        assert_eq!(Predicate::parse(&p.to_string()).unwrap(), p);
        assert_eq!(p.operands(), ["a.u3", "b.\"x y\"", "c.u1[2, 3]"]);
        let p = p.renamed(&|name| name.replace("c.", "d."));
        assert_eq!(p.to_string(), "(not (a.u3 >= 0.5 or b.\"x y\" != 'it''s') and d.u1[2, 3] < -1000.0)");
        let p = Predicate::parse("a.u1 <= p.\"m\".b.u2 and (c = d)").unwrap();
        assert_eq!(p.to_string(), "(a.u1 <= p.\"m\".b.u2 and c = d)");
        assert_eq!(p.operands(), ["a.u1", "p.\"m\".b.u2", "c", "d"]);
        let p = Predicate::parse("(schemes.kbit(8).x is not null or (a is  NULL))").unwrap();
        assert_eq!(p.to_string(), "(schemes.kbit(8).x is not null or a is null)");
        assert_eq!(Predicate::parse(&p.to_string()).unwrap(), p);
        let p = Predicate::parse("id = 9007199254740993").unwrap();
        assert_eq!(p, Predicate::Compare("id".into(), Comparison::Eq, Term::Int(9_007_199_254_740_993)));
    }

    #[test]
    fn numbers_beyond_float64_are_exact() {
        let read = |text: &str| match Predicate::parse(&format!("a {text}")).unwrap() {
            Predicate::Compare(_, op, Term::Int(n)) => (op, n),
            other => panic!("{other}"),
        };
        let big = 1i128 << 60;
        for (text, want) in [
            ("> 1152921504606846978.5", (Comparison::Gt, big + 2)),
            (">= 1152921504606846978.5", (Comparison::Gt, big + 2)),
            ("< 1152921504606846978.5", (Comparison::Le, big + 2)),
            ("<= 1.1529215046068469785E18", (Comparison::Le, big + 2)),
            ("> -1152921504606846978.5", (Comparison::Gt, -big - 3)),
            ("< -1152921504606846978.5", (Comparison::Le, -big - 3)),
            (">= +01152921504606846978.0", (Comparison::Ge, big + 2)),
            ("= 115292150460684697800e-2", (Comparison::Eq, big + 2)),
            ("!= 1e18", (Comparison::Ne, 1_000_000_000_000_000_000)),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
        for text in ["= 9007199254740993.5", "!= -9007199254740993.5"] {
            let p = Predicate::parse(&format!("a {text}")).unwrap();
            assert!(matches!(p, Predicate::Compare(_, _, Term::Number(v)) if v.is_nan()), "{p}");
        }
        // Smaller numbers are the nearest float64, as floats are, and larger ones are no integer of 64 bits.
        for (text, want) in [("> 0.1", 0.1), ("< -1e300", -1e300), ("> 4e15", 4e15), ("< inf", f64::INFINITY)] {
            let p = Predicate::parse(&format!("a {text}")).unwrap();
            assert_eq!(p.to_string(), format!("a {}{want:?}", &text[..2]));
        }
    }

    #[test]
    fn bad_predicates_say_where() {
        for (bad, at) in [
            ("", 1),
            ("a", 2),
            ("a =", 4),
            ("a = ?", 5),
            ("(a = 1", 7),
            ("a = 1 b", 7),
            ("a ~ 1", 3),
            ("a = 'x", 6),
            ("a is 3", 6),
        ] {
            match Predicate::parse(bad) {
                Err(QueryError::Parse { at: found, .. }) => assert_eq!(found, at, "{bad:?}"),
                other => panic!("{bad:?}: {other:?}"),
            }
        }
        assert!(Predicate::parse(&"(".repeat(100_000)).is_err());
    }

    #[test]
    fn logic_by_hand() {
        let mut answer = |operand: &str, _: Comparison, _: &Term| {
            Ok(match operand {
                "a" => vec![Some(true), Some(true), Some(false), Some(false)],
                "b" => vec![Some(true), Some(false), Some(true), Some(false)],
                _ => vec![None; 4],
            })
        };
        let mut eval = |text: &str| Predicate::parse(text).unwrap().evaluate(&mut answer).unwrap();
        let some = |v: [bool; 4]| v.map(Some).to_vec();
        assert_eq!(eval("a = 1 and b = 1"), some([true, false, false, false]));
        assert_eq!(eval("a = 1 or b = 1"), some([true, true, true, false]));
        assert_eq!(eval("not a = 1 and b = 1"), some([false, false, true, false]));
        assert_eq!(eval("not n = 1"), [None; 4]);
        assert_eq!(eval("a = 1 or n = 1"), [Some(true), Some(true), None, None]);
        assert_eq!(eval("a = 1 and n = 1"), [None, None, Some(false), Some(false)]);
        assert!(!Comparison::Eq.holds(None) && Comparison::Ne.holds(None) && !Comparison::Le.holds(None));
    }
}
