//! From text to an expression, by recursive descent.

use super::{Arithmetic, Comparison, Expr, FUNCTIONS};
use crate::suggest::{hint, nearest};

/// Deeper nesting is refused, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;
/// More terms in a row are refused.
const MAX_TERMS: usize = 1000;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(String),
    Text(String),
    Word(String),
    Quoted(String),
    Symbol(&'static str),
}

const SYMBOLS: [&str; 16] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","];

/// The expression in `text`.
///
/// Errors: what was expected and what was found, in words.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let expr = parser.or()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expr),
        Some((place, token)) => Err(format!("an expression that ends before {} (character {place})", shown(token))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Number(t) | Token::Word(t) => t.clone(),
        Token::Text(t) => format!("'{t}'"),
        Token::Quoted(t) => format!("\"{t}\""),
        Token::Symbol(s) => (*s).into(),
    }
}

/// Tokens with the character, from 1, at which each begins.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied();
    let mut tokens = Vec::new();
    let mut i = 0;
    while let Some(c) = at(i) {
        let begin = i;
        let token = match c {
            c if c.is_whitespace() => {
                i += 1;
                continue;
            }
            '\'' | '"' => {
                let mut word = String::new();
                i += 1;
                loop {
                    match (at(i), at(i + 1)) {
                        (Some(a), Some(b)) if a == c && b == c => {
                            word.push(c);
                            i += 2;
                        }
                        (Some(a), _) if a == c => {
                            i += 1;
                            break;
                        }
                        (Some(a), _) => {
                            word.push(a);
                            i += 1;
                        }
                        (None, _) => return Err(format!("a closing {c} for that of character {}", begin + 1)),
                    }
                }
                if c == '"' { Token::Quoted(word) } else { Token::Text(word) }
            }
            c if c.is_ascii_digit() || (c == '.' && at(i + 1).is_some_and(|d| d.is_ascii_digit())) => {
                while at(i).is_some_and(|c| c.is_ascii_alphanumeric() || c == '.')
                    || (matches!(at(i), Some('+' | '-')) && matches!(at(i - 1), Some('e' | 'E')))
                {
                    i += 1;
                }
                Token::Number(chars.get(begin..i).unwrap_or_default().iter().collect())
            }
            c if c.is_alphabetic() || c == '_' => {
                while at(i).is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    i += 1;
                }
                Token::Word(chars.get(begin..i).unwrap_or_default().iter().collect())
            }
            c => {
                let rest: String = chars.get(i..chars.len().min(i + 2)).unwrap_or_default().iter().collect();
                let symbol = SYMBOLS.iter().find(|s| rest.starts_with(**s));
                let symbol = symbol.ok_or_else(|| format!("no {c:?} (character {})", begin + 1))?;
                i += symbol.len();
                Token::Symbol(symbol)
            }
        };
        tokens.push((begin + 1, token));
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, t)| t)
    }

    fn take_symbol(&mut self, symbols: &[&'static str]) -> Option<&'static str> {
        match self.peek() {
            Some(Token::Symbol(s)) if symbols.contains(s) => {
                let s = *s;
                self.at += 1;
                Some(s)
            }
            _ => None,
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), String> {
        match self.take_symbol(&[symbol]) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(symbol)),
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.tokens.get(self.at) {
            Some((place, token)) => format!("{expected} before {} (character {place})", shown(token)),
            None => format!("{expected} at the end"),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("at most {MAX_DEPTH} nested parentheses and signs"));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn or(&mut self) -> Result<Expr, String> {
        let first = self.and()?;
        let mut others = Vec::new();
        while self.take_word("or") {
            push(&mut others, self.and()?)?;
        }
        Ok(if others.is_empty() { first } else { Expr::Or(first.into(), others) })
    }

    fn and(&mut self) -> Result<Expr, String> {
        let first = self.not()?;
        let mut others = Vec::new();
        while self.take_word("and") {
            push(&mut others, self.not()?)?;
        }
        Ok(if others.is_empty() { first } else { Expr::And(first.into(), others) })
    }

    fn not(&mut self) -> Result<Expr, String> {
        if self.take_word("not") {
            return self.deeper(|p| Ok(Expr::Not(p.not()?.into())));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, String> {
        let left = self.sum()?;
        if self.take_word("is") {
            let not = self.take_word("not");
            if !self.take_word("null") {
                return Err(self.unexpected("null"));
            }
            let is = Expr::IsNull(left.into());
            return Ok(if not { Expr::Not(is.into()) } else { is });
        }
        let before = self.at;
        let not = self.take_word("not");
        if self.take_word("in") {
            self.expect("(")?;
            let is = Expr::In(left.into(), self.list()?);
            return Ok(if not { Expr::Not(is.into()) } else { is });
        }
        self.at = before;
        let comparison = match self.take_symbol(&["==", "=", "!=", "<>", "<=", ">=", "<", ">"]) {
            None => return Ok(left),
            Some("==" | "=") => Comparison::Equal,
            Some("<") => Comparison::Less,
            Some("<=") => Comparison::LessEqual,
            Some(">") => Comparison::Greater,
            Some(">=") => Comparison::GreaterEqual,
            Some(_) => Comparison::Unequal,
        };
        Ok(Expr::Compare(comparison, left.into(), self.sum()?.into()))
    }

    fn sum(&mut self) -> Result<Expr, String> {
        let first = self.product()?;
        let mut others = Vec::new();
        while let Some(symbol) = self.take_symbol(&["+", "-"]) {
            let op = if symbol == "+" { Arithmetic::Add } else { Arithmetic::Subtract };
            push(&mut others, (op, self.product()?))?;
        }
        Ok(if others.is_empty() { first } else { Expr::Arithmetic(first.into(), others) })
    }

    fn product(&mut self) -> Result<Expr, String> {
        let first = self.sign()?;
        let mut others = Vec::new();
        while let Some(symbol) = self.take_symbol(&["*", "/", "%"]) {
            let op = match symbol {
                "*" => Arithmetic::Multiply,
                "/" => Arithmetic::Divide,
                _ => Arithmetic::Remainder,
            };
            push(&mut others, (op, self.sign()?))?;
        }
        Ok(if others.is_empty() { first } else { Expr::Arithmetic(first.into(), others) })
    }

    fn sign(&mut self) -> Result<Expr, String> {
        if self.take_symbol(&["-"]).is_some() {
            // Without its sign the smallest of int64 is none of it.
            if matches!(self.peek(), Some(Token::Number(text)) if text.parse::<u64>() == Ok(1 << 63)) {
                self.at += 1;
                return Ok(Expr::Whole(i64::MIN));
            }
            return self.deeper(|p| {
                Ok(match p.sign()? {
                    Expr::Whole(n) => n.checked_neg().map_or_else(|| Expr::Negate(Expr::Whole(n).into()), Expr::Whole),
                    Expr::Number(n) => Expr::Number(-n),
                    other => Expr::Negate(other.into()),
                })
            });
        }
        self.atom()
    }

    /// What follows an opening parenthesis up to the closing one.
    fn list(&mut self) -> Result<Vec<Expr>, String> {
        let mut list = Vec::new();
        if self.take_symbol(&[")"]).is_some() {
            return Ok(list);
        }
        loop {
            list.push(self.deeper(Self::or)?);
            if self.take_symbol(&[","]).is_none() {
                self.expect(")")?;
                return Ok(list);
            }
        }
    }

    fn atom(&mut self) -> Result<Expr, String> {
        let Some((_, token)) = self.tokens.get(self.at).cloned() else { return Err(self.unexpected("a value")) };
        self.at += 1;
        match token {
            Token::Number(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(n), _) => Ok(Expr::Whole(n)),
                _ if text.bytes().all(|b| b.is_ascii_digit()) => {
                    Err(format!("a whole number of 64 bits instead of {text}; write {text}.0 for a float"))
                }
                (_, Ok(n)) if n.is_finite() => Ok(Expr::Number(n)),
                _ => Err(format!("a number instead of {text}")),
            },
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Quoted(name) => Ok(Expr::Column(name)),
            Token::Symbol("(") => {
                let inner = self.deeper(Self::or)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol(_) => {
                self.at -= 1;
                Err(self.unexpected("a value"))
            }
            Token::Word(word) => {
                if self.take_symbol(&["("]).is_some() {
                    let arguments = self.list()?;
                    return call(&word, arguments);
                }
                Ok(match word.to_ascii_lowercase().as_str() {
                    "true" => Expr::Boolean(true),
                    "false" => Expr::Boolean(false),
                    "null" => Expr::Null,
                    "and" | "or" | "not" | "in" | "is" => {
                        self.at -= 1;
                        return Err(self.unexpected("a value"));
                    }
                    _ => Expr::Column(word),
                })
            }
        }
    }
}

/// Adds a term behind the first one and `others`.
fn push<T>(others: &mut Vec<T>, term: T) -> Result<(), String> {
    others.push(term);
    if others.len() < MAX_TERMS {
        return Ok(());
    }
    Err(format!("at most {MAX_TERMS} terms in a row; put some in parentheses"))
}

fn call(name: &str, mut arguments: Vec<Expr>) -> Result<Expr, String> {
    if name == "when" {
        if arguments.len() < 3 || arguments.len().is_multiple_of(2) {
            return Err("when(condition, value, ..., otherwise)".into());
        }
        let otherwise = arguments.pop().unwrap_or(Expr::Null);
        let mut cases = Vec::new();
        let mut rest = arguments.into_iter();
        while let (Some(condition), Some(value)) = (rest.next(), rest.next()) {
            cases.push((condition, value));
        }
        return Ok(Expr::When(cases, otherwise.into()));
    }
    match FUNCTIONS.iter().find(|(n, _)| *n == name) {
        Some((_, function)) => Ok(Expr::Call(*function, arguments)),
        None => {
            let names = || FUNCTIONS.iter().map(|(n, _)| *n).chain(["when"]);
            let known: Vec<&str> = names().collect();
            Err(format!("one of the functions {} instead of {name}{}", known.join(", "), hint(&nearest(name, names()))))
        }
    }
}
