//! ROW_DIFF: how two examples differ, column by column.

use crate::answer::{Data, Source};
use crate::column::{Cell, Column};
use crate::error::Result;
use crate::reader::{ChunkReader, Request};
use crate::rows::RowSelection;

/// A column of two examples.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDifference {
    /// Its selector or name.
    pub column: String,
    /// Value in the first; `None` for null.
    pub a: Option<Cell>,
    /// Value in the second.
    pub b: Option<Cell>,
    /// Second − first; `None` for text and nulls.
    pub difference: Option<f64>,
}

/// Every column of rows `a` and `b` of a request, the largest differences first: texts and nulls that differ, then
/// numbers by |b − a|, then NaN, then texts that are equal. Ties are in the order of the columns.
///
/// Errors: `NoSuchRow`; as [`ChunkReader::get`].
pub fn rowdiff(reader: &ChunkReader<'_>, request: &Request, a: u64, b: u64) -> Result<(Vec<ColumnDifference>, Source)> {
    let answer = reader.get(&request.clone().with_rows(RowSelection::List(vec![a, b])))?;
    let mut columns = Vec::with_capacity(answer.columns.len());
    match &answer.data {
        Data::Table(batch) => {
            for (name, array) in answer.columns.iter().zip(batch.columns()) {
                let column = Column::from_array(array)?;
                let (x, y) = (column.cell(0), column.cell(1));
                let known = x.is_some() && y.is_some();
                let (first, second) = (column.only(0), column.only(1));
                let difference = second.minus(&first, name).ok().and_then(|d| d.first().copied()).filter(|_| known);
                columns.push(ColumnDifference { column: name.clone(), a: x, b: y, difference });
            }
        }
        Data::F32(_) | Data::F64(_) => {
            let values = answer.to_f64()?;
            let (x, y) = values.split_at(values.len() / 2);
            for ((column, x), y) in answer.columns.into_iter().zip(x).zip(y) {
                let (a, b) = (Some(Cell::Float(*x)), Some(Cell::Float(*y)));
                columns.push(ColumnDifference { column, a, b, difference: Some(y - x) });
            }
        }
    }
    let rank = |c: &ColumnDifference| match c.difference {
        None if c.a != c.b => (0, 0.0),
        Some(d) if !d.is_nan() => (1, -d.abs()),
        Some(_) => (2, 0.0),
        None => (3, 0.0),
    };
    columns.sort_by(|x, y| {
        let (x, y) = (rank(x), rank(y));
        x.0.cmp(&y.0).then(x.1.total_cmp(&y.1))
    });
    Ok((columns, answer.source))
}
