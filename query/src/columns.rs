//! Column selectors: `u35`, `u35[4,7]`, `u0..64`, `*`, names of table columns, and comma lists of these.

use std::ops::Range;

use arrow::datatypes::DataType;
use mistique_engine::{Content, IntermediateRecord, Key, TensorContent, TensorLayout, nearest};

use crate::error::{QueryError, Result};

/// The columns of one intermediate that a request wants, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Columns {
    /// Columns of a tensor, counted over units and cells.
    Tensor(Vec<TensorColumns>),
    /// Columns of a table, by index.
    Table(Vec<usize>),
}

/// The columns of text of a table that a key names whole; none where it names columns.
pub fn texts(record: &IntermediateRecord, key: &Key) -> Vec<usize> {
    let (Content::Table(table), None) = (&*record.content, &key.columns) else { return Vec::new() };
    let fields = table.schema.fields().iter().enumerate();
    fields.filter(|(_, f)| *f.data_type() == DataType::Utf8).map(|(i, _)| i).collect()
}

/// Units, or one cell of one unit, of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorColumns {
    /// Units.
    pub units: Range<usize>,
    /// A cell `[y, x]` of the map as it was logged; all cells for `None`.
    pub cell: Option<(usize, usize)>,
}

impl Columns {
    /// A selector that names them: `*` for all, a table column's name in quotes.
    pub(crate) fn text(&self, record: &IntermediateRecord) -> String {
        match (self, &*record.content) {
            (Self::Table(columns), Content::Table(table)) => {
                let n = table.schema.fields().len();
                if columns.len() == n && (0..n).all(|i| columns.contains(&i)) {
                    return "*".into();
                }
                let name = |i: &usize| table.schema.fields().get(*i).map_or_else(String::new, |f| f.name().clone());
                match &columns[..] {
                    [one] => format!("\"{}\"", name(one)),
                    some => some.iter().map(name).collect::<Vec<_>>().join(","),
                }
            }
            (Self::Tensor(columns), Content::Tensor(tensor)) => {
                let n = tensor.layout.n_units;
                let text = |c: &TensorColumns| match c.cell {
                    None if c.units == (0..n) => "*".into(),
                    None if c.units.len() == 1 => format!("u{}", c.units.start),
                    None => format!("u{}..{}", c.units.start, c.units.end),
                    Some((y, x)) => format!("u{}[{y},{x}]", c.units.start),
                };
                columns.iter().map(text).collect::<Vec<_>>().join(",")
            }
            _ => "*".into(),
        }
    }

    /// Reads what [`Columns::text`] wrote.
    pub(crate) fn from_text(record: &IntermediateRecord, text: &str) -> Result<Self> {
        let name = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        resolve(record, Some(name.map_or((text, false), |name| (name, true))))
    }

    /// The column groups that hold them, each once.
    pub(crate) fn groups(&self, content: &Content) -> Vec<usize> {
        let mut groups: Vec<usize> = match (self, content) {
            (Self::Table(columns), _) => columns.clone(),
            (Self::Tensor(columns), Content::Tensor(tensor)) => {
                let units = tensor.layout.group_units.max(1);
                columns.iter().flat_map(|c| c.units.start / units..c.units.end.div_ceil(units)).collect()
            }
            (Self::Tensor(_), Content::Table(_)) => Vec::new(),
        };
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

impl TensorColumns {
    /// The stored columns: cells are counted unit by unit, row by row of the stored map. A cell of a pooled map is the
    /// window that holds it.
    pub fn stored(&self, layout: &TensorLayout) -> Range<usize> {
        let cells = layout.stored.cells();
        match self.cell {
            None => self.units.start * cells..self.units.end * cells,
            Some((y, x)) => {
                let window = layout.window;
                let at = self.units.start * cells + y / window.h.max(1) * layout.stored.w + x / window.w.max(1);
                at..at + 1
            }
        }
    }
}

fn refuse<T>(record: &IntermediateRecord, given: &str, why: impl Into<String>) -> Result<T> {
    Err(QueryError::Columns { key: record.key.to_string(), given: given.to_string(), why: why.into() })
}

/// The columns that `selector` names; all of them for `None`. A quoted selector is one table column's name.
///
/// Errors: `Columns` naming what does not fit, with the nearest names for tables.
pub fn resolve(record: &IntermediateRecord, selector: Option<(&str, bool)>) -> Result<Columns> {
    let (text, quoted) = selector.unwrap_or(("*", false));
    match &*record.content {
        Content::Table(table) => {
            let names: Vec<&str> = table.schema.fields().iter().map(|f| f.name().as_str()).collect();
            if text == "*" && !quoted {
                return Ok(Columns::Table((0..names.len()).collect()));
            }
            let find = |name: &str| match names.iter().position(|n| *n == name) {
                Some(i) => Ok(i),
                None => refuse(
                    record,
                    text,
                    format!("no column {name:?}; nearest: {}", nearest(name, names.iter().copied(), 3).join(", ")),
                ),
            };
            if quoted || names.contains(&text) {
                return Ok(Columns::Table(vec![find(text)?]));
            }
            Ok(Columns::Table(text.split(',').map(|n| find(n.trim())).collect::<Result<_>>()?))
        }
        Content::Tensor(tensor) => {
            let items = split_items(text).into_iter().map(|item| tensor_item(record, tensor, item.trim()));
            Ok(Columns::Tensor(items.collect::<Result<_>>()?))
        }
    }
}

/// Splits at commas outside of brackets.
pub(crate) fn split_items(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    items.push(&text[start..]);
    items
}

fn tensor_item(record: &IntermediateRecord, tensor: &TensorContent, item: &str) -> Result<TensorColumns> {
    let layout = &tensor.layout;
    let n = layout.n_units;
    if item == "*" {
        return Ok(TensorColumns { units: 0..n, cell: None });
    }
    let grammar = "expected u35, u35[4,7], u0..64 or *";
    let Some(body) = item.strip_prefix('u') else { return refuse(record, item, grammar) };
    let (unit, cell) = match body.split_once('[') {
        None => (body, None),
        Some((unit, rest)) => match rest.strip_suffix(']') {
            None => return refuse(record, item, grammar),
            Some(cell) => (unit, Some(cell)),
        },
    };
    let number = |t: &str| t.trim().parse::<usize>().ok();
    let units = match unit.split_once("..") {
        None => number(unit).map(|u| u..u + 1),
        Some((a, b)) => number(a).zip(number(b.strip_prefix('u').unwrap_or(b))).map(|(a, b)| a..b),
    };
    let Some(units) = units.filter(|u| u.start < u.end) else { return refuse(record, item, grammar) };
    if units.end > n {
        return refuse(record, item, format!("it has units u0 to u{}", n.saturating_sub(1)));
    }
    let cell = match cell {
        None => None,
        Some(cell) => {
            let map = layout.map;
            let at = match cell.split(',').map(number).collect::<Vec<_>>()[..] {
                [Some(y), Some(x)] => Some((y, x)),
                [Some(x)] if map.h == 1 => Some((0, x)),
                _ => None,
            };
            match at {
                Some((y, x)) if y < map.h && x < map.w && units.len() == 1 => Some((y, x)),
                _ => return refuse(record, item, format!("cells of one unit are [0..{}, 0..{}]", map.h, map.w)),
            }
        }
    };
    Ok(TensorColumns { units, cell })
}

/// How a stored cell is selected: by the first cell, as it was logged, of the window that it stands for.
pub fn cell_name(layout: &TensorLayout, cell: usize) -> String {
    let (y, x) = (cell / layout.stored.w.max(1), cell % layout.stored.w.max(1));
    format!("[{},{}]", y * layout.window.h, x * layout.window.w)
}

/// Names of stored columns, as selectors.
pub fn names(layout: &TensorLayout, columns: &[TensorColumns]) -> Vec<String> {
    let map = layout.stored;
    // Wide layers have tens of thousands of columns in every answer: what units share is written once.
    let cells: Vec<String> = (0..map.cells()).map(|i| cell_name(layout, i)).collect();
    let mut names = Vec::new();
    for c in columns {
        for unit in c.units.clone() {
            let unit = format!("u{unit}");
            match c.cell {
                Some((y, x)) => names.push(format!("{unit}[{y},{x}]")),
                None if map.cells() == 1 => names.push(unit),
                None => names.extend(cells.iter().map(|cell| [&*unit, cell].concat())),
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use mistique_engine::{ModelKey, Scheme, UnitAxis};

    fn record(shape: &[usize], scheme: &str) -> IntermediateRecord {
        let scheme: Scheme = scheme.parse().unwrap();
        let layout = TensorLayout::new(shape, UnitAxis::First, &scheme, scheme.code());
        let content = TensorContent {
            shape: shape.to_vec(),
            dtype: mistique_engine::Code::F32,
            unit_axis: UnitAxis::First,
            params: scheme_params(),
            scheme,
            layout,
        };
        IntermediateRecord {
            id: 1,
            model_id: 1,
            key: ModelKey::new("p", "m").intermediate("t"),
            position: 0,
            content: std::sync::Arc::new(Content::Tensor(content)),
            n_rows: 0,
            max_span: 0,
            n_query: 0,
            n_withheld: 0,
            stage: None,
            linked: false,
        }
    }

    fn scheme_params() -> mistique_quantize::Params {
        mistique_quantize::Params::none()
    }

    fn stored(shape: &[usize], scheme: &str, selector: &str) -> Result<Vec<Range<usize>>> {
        let record = record(shape, scheme);
        let Columns::Tensor(columns) = resolve(&record, Some((selector, false)))? else { unreachable!() };
        let layout = record.tensor().unwrap().layout;
        Ok(columns.iter().map(|c| c.stored(&layout)).collect())
    }

    #[test]
    fn selectors_are_written_and_grouped() {
        let record = record(&[64, 8, 9], "pool(2)+f16");
        for (given, text) in [("*", "*"), ("u0..64", "*"), ("u3,u1..9,u5[4,7]", "u3,u1..9,u5[4,7]")] {
            let columns = resolve(&record, Some((given, false))).unwrap();
            assert_eq!(columns.text(&record), text);
            assert_eq!(Columns::from_text(&record, text).unwrap(), columns);
        }
        // A unit's 20 cells of f16 in 1,024 rows are 40 KiB: one a group.
        let layout = record.tensor().unwrap().layout;
        assert_eq!(layout.group_units, 1);
        let columns = resolve(&record, Some(("u7,u3..5,u4[1,1]", false))).unwrap();
        assert_eq!(columns.groups(&record.content), [3, 4, 7]);
    }

    #[test]
    fn selectors_of_the_design() {
        assert_eq!(stored(&[64, 8, 9], "f32", "u35").unwrap(), [35 * 72..36 * 72]);
        assert_eq!(stored(&[64, 8, 9], "f32", "u35[4,7]").unwrap(), [35 * 72 + 43..35 * 72 + 44]);
        assert_eq!(stored(&[64, 8, 9], "f32", "u0..64").unwrap(), [0..64 * 72]);
        assert_eq!(stored(&[64], "f32", "u3, u1..2,u5").unwrap(), [3..4, 1..2, 5..6]);
        // 8×9 pooled by 2 is 4×5; cell [4,7] lies in window [2,3].
        assert_eq!(stored(&[64, 8, 9], "pool(2)+f16", "u1[4,7]").unwrap(), [20 + 13..20 + 14]);
        assert_eq!(stored(&[64, 8, 9], "pool(S)+f16", "u1[4,7]").unwrap(), [1..2]);
        // 9×5 pooled by 4 is 3×2: rows 0..4, 4..8 and 8.
        for (cell, at) in [("3,3", 0), ("3,4", 1), ("4,3", 2), ("7,4", 3), ("8,0", 4)] {
            assert_eq!(stored(&[2, 9, 5], "pool(4)+f16", &format!("u1[{cell}]")).unwrap(), [6 + at..7 + at], "{cell}");
        }
        for scheme in ["f32", "pool(2)+f16", "pool(4)+f16", "pool(S)+f16"] {
            let record = record(&[2, 9, 5], scheme);
            let layout = record.tensor().unwrap().layout;
            let all = names(&layout, &[TensorColumns { units: 0..2, cell: None }]);
            assert_eq!(all.len(), layout.stored_values(), "{scheme}");
            for (at, name) in all.iter().enumerate() {
                assert_eq!(stored(&[2, 9, 5], scheme, name).unwrap(), [at..at + 1], "{scheme} {name}");
            }
        }
        for bad in ["u64", "u1..65", "u1[8,0]", "u1[0,9]", "x", "u", "u1[1", "u5..5", "u1..3[0,0]", ""] {
            assert!(stored(&[64, 8, 9], "f32", bad).is_err(), "{bad}");
        }
    }
}
