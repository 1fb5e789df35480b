//! Answers as files and tables take them: whole where they are small, in parts where they would fill the memory.

use std::borrow::Cow;

use super::Result;
use crate::{Answer, ChunkReader, PlanChoice, Request, RowSelection, Scan, Store, get_together};

/// Bytes of values as logged beyond which an answer is got in parts, of as many as f32.
const PART_BYTES: usize = 128 << 20;
/// Parts are of so many rows, or of multiples, where so many fit: batches and RowBlocks are not cut.
const ROUND_ROWS: usize = 256;

/// The answers to several requests, which share their rows.
pub enum Parts<'r, 'a> {
    Whole(Vec<Answer>),
    Scans { scans: Vec<Scan<'r, 'a>>, rows: Vec<u64>, step: usize },
}

impl<'r, 'a> Parts<'r, 'a> {
    pub fn of(reader: &'r ChunkReader<'a>, requests: &[Request]) -> Result<Self> {
        let is_large = requests.iter().any(|r| most_bytes(reader.store(), r) > PART_BYTES as u64);
        let Some((first, others)) = requests.split_first().filter(|_| is_large) else {
            return Ok(Self::Whole(reader.get_intermediates(requests)?));
        };
        // Parts share a run wherever several keys run one model; demanded, it is from the input.
        let alone = |request: &Request| match request.plan() {
            PlanChoice::SHARED if !others.is_empty() => request.clone().with_plan(PlanChoice::RERUN),
            _ => request.clone(),
        };
        let mut scans = vec![reader.scan(&alone(first))?];
        let rows: Vec<u64> = scans.iter().flat_map(|s| s.rows().iter()).collect();
        for request in others {
            scans.push(reader.scan(&alone(request).with_rows(RowSelection::List(rows.clone())))?);
        }
        let row_bytes: usize = scans.iter().map(|s| 4 * s.columns().len()).sum();
        let fit = PART_BYTES / row_bytes.max(1);
        let step = if fit >= ROUND_ROWS { fit / ROUND_ROWS * ROUND_ROWS } else { fit };
        // What can only be run whole is got whole.
        let least = scans.iter().map(Scan::block_rows).max().unwrap_or(1);
        Ok(Self::Scans { scans, rows, step: step.max(least).max(1) })
    }

    /// The row_ids, in the order asked for.
    pub fn rows(&self) -> &[u64] {
        match self {
            Self::Whole(answers) => answers.first().map_or(&[], |a| &a.rows),
            Self::Scans { rows, .. } => rows,
        }
    }

    pub fn n_keys(&self) -> usize {
        match self {
            Self::Whole(answers) => answers.len(),
            Self::Scans { scans, .. } => scans.len(),
        }
    }

    /// At least one, be it of no rows.
    pub fn n_parts(&self) -> usize {
        match self {
            Self::Whole(_) => 1,
            Self::Scans { rows, step, .. } => rows.len().div_ceil(*step).max(1),
        }
    }

    /// A part of all answers.
    pub fn all(&self, part: usize) -> Result<Cow<'_, [Answer]>> {
        match self {
            Self::Whole(answers) => Ok(answers.into()),
            Self::Scans { scans, .. } => Ok(get_together(scans, self.part(part))?.into()),
        }
    }

    /// A part of the answer to one of the requests, both by number.
    pub fn one(&self, key: usize, part: usize) -> Result<Cow<'_, Answer>> {
        match self {
            Self::Whole(answers) => Ok(Cow::Borrowed(&answers[key])),
            Self::Scans { scans, .. } => Ok(Cow::Owned(scans[key].get(self.part(part))?)),
        }
    }

    /// The rows of a part.
    fn part(&self, part: usize) -> &[u64] {
        match self {
            Self::Whole(_) => self.rows(),
            Self::Scans { rows, step, .. } => &rows[part * step..rows.len().min((part + 1) * step)],
        }
    }

    /// The first rows of all answers at least, got without the others where there are parts.
    pub fn head(&self, n_rows: usize) -> Result<Cow<'_, [Answer]>> {
        match self {
            Self::Whole(answers) => Ok(answers.into()),
            Self::Scans { scans, rows, .. } => {
                let rows = &rows[..rows.len().min(n_rows)];
                // Looked at alone: nothing of it is stored.
                Ok(scans.iter().map(|s| s.peek(rows)).collect::<std::result::Result<Vec<_>, _>>()?.into())
            }
        }
    }
}

/// Bytes that the answer may take; none of what is not there, of which the answer says more.
fn most_bytes(store: &Store, request: &Request) -> u64 {
    let key = &request.key().intermediate;
    let (Ok(record), Ok(model)) = (store.intermediate(key), store.model(&key.model)) else { return 0 };
    let all = record.n_rows.max(model.spec.dataset.map_or(0, |d| d.n_rows));
    let rows = match request.rows() {
        RowSelection::Range(range) => range.end.saturating_sub(range.start).min(all),
        RowSelection::List(rows) => rows.len() as u64,
        RowSelection::All | RowSelection::Where(_) => all,
    };
    rows.saturating_mul(record.content.logical_row_bytes())
}
