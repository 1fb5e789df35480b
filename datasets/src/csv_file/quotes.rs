//! Quotes in CSV records that are not closed: a reader takes all that follows, up to another quote or the end, for one field.

/// What the next byte of a record belongs to.
enum At {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote inside a quoted field: it closes the field, unless another quote follows.
    Quote,
}

/// Position of the opening quote, and index of its field, when a quoted field of the record at the start of `bytes` does not
/// end before `bytes` do, or ends lines later at a quote that has text behind it: the opening one of another field.
pub(super) fn unclosed(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut opened, mut field, mut crossed) = (At::FieldStart, 0, 0, false);
    let first = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    for (position, byte) in bytes.iter().enumerate().skip(first) {
        at = match (at, byte) {
            (At::FieldStart, b'"') => {
                (opened, crossed) = (position, false);
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quote, b'"') => At::Quoted,
            (At::Quoted, byte) => {
                crossed |= *byte == b'\n';
                At::Quoted
            }
            (_, b',') => {
                field += 1;
                At::FieldStart
            }
            (_, b'\r' | b'\n') => return None,
            (At::Quote, _) if crossed => return Some((opened, field)),
            _ => At::Plain,
        };
    }
    matches!(at, At::Quoted).then_some((opened, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quote_that_stays_open_is_found() {
        for (record, expected) in [
            ("1,\"x\n2,3\n", Some((2, 1))),
            ("\r\n\"a", Some((2, 0))),
            ("\"a\"\",b", Some((0, 0))),
            ("\"a\"\"\",b", None),
            ("\"a\"", None),
            ("a\"b,c\n\"", None),
            ("\"a\"b\"c", None),
            ("a,b\n\"", None),
            ("1,\"x\n2,\"y\"\n", Some((2, 1))),
            ("1,\"x\n2\",\"y\"z\n", None),
            ("", None),
        ] {
            assert_eq!(unclosed(record.as_bytes()), expected, "{record:?}");
        }
    }
}
