//! How columns were encoded last: a column keeps its nature, so that what served some of its rows serves the next ones.

use std::collections::HashMap;
use std::fmt::Display;

use mistique_quantize::{Effort, Encoding, Habit};

use crate::chunk::{ChunkCodes, ChunkShape, Extra, first_habit, write_chunk};
use crate::error::Result;

/// Rows on which all encodings are tried, of a column not seen before.
const SAMPLE: usize = 2048;

/// What served a column, and what that took.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    habit: Habit,
    bytes_a_row: f32,
}

impl Served {
    /// What served a chunk; constants are found without trying anything, and say nothing.
    fn of(chunk: &[u8], n_rows: usize) -> Option<Self> {
        let habit = first_habit(chunk).filter(|habit| habit.encoding != Encoding::Constant)?;
        Some(Self { habit, bytes_a_row: chunk.len() as f32 / n_rows.max(1) as f32 })
    }

    /// Whether `bytes` are about what so many rows take. Tables of a chunk's own values weigh more where there are few.
    fn expects(&self, bytes: usize, n_rows: usize) -> bool {
        bytes as f32 <= self.bytes_a_row * n_rows as f32 * 1.125 + 512.0
    }
}

/// What served columns last, by a hash of name and type.
#[derive(Debug, Default)]
pub struct Habits(HashMap<u64, Served>);

impl Habits {
    /// Encodes a column alone, as it was encoded last or as suits its first rows; where that is no longer so, all encodings
    /// are tried. Returns what to [`Habits::learn`].
    ///
    /// Errors: `Quantize`.
    pub fn encode(
        &self,
        column: u64,
        content: &ChunkCodes,
        extra: Extra<'_>,
        key: &(dyn Display + Sync),
        out: &mut Vec<u8>,
    ) -> Result<Option<Served>> {
        let ChunkCodes { shape, codes, .. } = content;
        let served = match self.0.get(&column) {
            Some(known) => Some(*known),
            None => sample(content, key, out)?,
        };
        if let Some(served) = served {
            write_chunk(shape, codes, extra, Effort::Like(served.habit), key, out)?;
            if served.expects(out.len(), shape.n_rows) {
                let bytes_a_row = out.len() as f32 / shape.n_rows.max(1) as f32;
                return Ok(Some(Served { bytes_a_row, ..served }));
            }
        }
        write_chunk(shape, codes, extra, Effort::Column, key, out)?;
        Ok(Served::of(out, shape.n_rows))
    }

    /// Remembers what served a column.
    pub fn learn(&mut self, column: u64, served: Served) {
        self.0.insert(column, served);
    }
}

/// What serves the first rows of a column; `None` where it has hardly more rows, or where those say nothing.
fn sample(content: &ChunkCodes, key: &(dyn Display + Sync), out: &mut Vec<u8>) -> Result<Option<Served>> {
    let shape = content.shape;
    if shape.n_rows < 2 * SAMPLE {
        return Ok(None);
    }
    let part = ChunkShape { n_rows: SAMPLE, page_rows: shape.page_rows.min(SAMPLE), ..shape };
    let codes = content.codes.get(..SAMPLE * shape.row_bytes()).unwrap_or_default();
    let validity = content.validity.as_deref().and_then(|valid| valid.get(..SAMPLE));
    write_chunk(&part, codes, Extra { validity, dictionary: None }, Effort::Column, key, out)?;
    Ok(Served::of(out, SAMPLE))
}
