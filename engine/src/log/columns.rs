//! Columns of tables to stored chunks: what is known is not looked at, what is new is coded against a like column where that
//! pays, and encoded alone elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::ArrayRef;
use mistique_quantize::Effort;
use rayon::prelude::*;
use twox_hash::XxHash3_64;

use super::bases::Like;
use super::habits::Served;
use super::writer::{ChunkWriter, add_time, timed};
use super::{Dedup, pays};
use crate::chunk::{ChunkCodes, ChunkHash, ChunkShape, Extra, Near, bits_against, salted, write_against, write_chunk};
use crate::column::{ColumnCodes, to_codes};
use crate::error::{EngineError, Result};
use crate::partition::Base;
use crate::similar::{SimilarIndex, Sketch, Sketcher};

/// Chunks of at most so many bytes are not worth to be coded against others.
const MIN_ALONE_BYTES: usize = 384;
/// Chunks of a column's name and rows that it may be a copy of.
const MOST_COPIED: usize = 3;
/// Similar chunks of which the nearest is tried.
const MOST_COMPARED: usize = 8;

/// How many times fewer bits than were estimated a chunk may take: of more than it takes alone, nothing is tried.
const BITS_ALIKE: u64 = 2;

/// A key, for messages.
type Key<'a> = &'a (dyn std::fmt::Display + Sync);

/// A column of a RowBlock of a table.
#[derive(Clone, Copy)]
pub struct NamedColumn<'a> {
    /// Its values, under the type under which they are stored.
    pub array: &'a ArrayRef,
    /// Its name.
    pub name: &'a str,
}

impl NamedColumn<'_> {
    /// Its codes, as a chunk has them, and the dictionary of a text column.
    fn content(&self) -> Result<(ChunkCodes, Option<Vec<u8>>)> {
        let ColumnCodes { code, codes, validity, dictionary } = to_codes(self.array)?;
        let n_rows = self.array.len();
        let shape = ChunkShape { code, n_rows, n_cols: 1, page_rows: n_rows, map_w: 1 };
        Ok((ChunkCodes { shape, codes, validity }, dictionary))
    }
}

/// A column whose content the store does not have.
struct Fresh {
    id: i64,
    hash: ChunkHash,
    content: Arc<ChunkCodes>,
    dictionary: Option<Vec<u8>>,
    /// A hash of its row_ids.
    rows: u64,
    /// Of its name.
    name: u64,
    /// Of its name and type.
    kind: u64,
}

impl Fresh {
    fn extra(&self) -> Extra<'_> {
        Extra { validity: self.content.validity.as_deref(), dictionary: self.dictionary.as_deref() }
    }

    /// As a chunk to code others of the same RowBlock against.
    fn as_base(&self, len: usize) -> Like {
        Like { base: Base::of(self.id, &self.hash), codes: Arc::clone(&self.content), len: len as u64 }
    }

    /// Its bytes against another chunk, where it is that near.
    fn against(&self, like: &Like, near: Near, key: Key<'_>) -> Result<Option<Vec<u8>>> {
        let (mut out, base) = (Vec::new(), (like.base.name, &*like.codes));
        let wrote = write_against(&self.content.shape, &self.content.codes, self.extra(), base, near, key, &mut out)?;
        Ok(wrote.then_some(out))
    }
}

/// What became of a fresh column.
struct Made {
    /// How it came out alone, where that says something of the rows after it.
    served: Option<Served>,
    bytes: Vec<u8>,
    base: Option<Base>,
    saved: u64,
    /// Of one that others can be coded against.
    sketch: Option<Sketch>,
}

impl ChunkWriter {
    /// What `work` reads of the catalogue takes its locks once: a RowBlock's columns look hundreds of times.
    ///
    /// Errors: `Catalog`; those of `work`.
    pub fn reading<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.catalog.begin_reading()?;
        let done = work(self);
        self.catalog.end_reading()?;
        done
    }

    /// Stores the columns of a RowBlock and returns the number of each one's chunk; `rows` is a hash of its row_ids.
    ///
    /// Errors: `Io`, `NoSpace` past `max_bytes`, `Catalog`, `Quantize`, `Unsupported`.
    pub fn put_columns(
        &mut self,
        intermediate: i64,
        columns: &[NamedColumn<'_>],
        rows: u64,
        key: Key<'_>,
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<i64>> {
        let (search, work) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut ids = vec![0; columns.len()];
        let mut unknown = Vec::new();
        timed(&search, || {
            for (at, (column, id)) in columns.iter().zip(&mut ids).enumerate() {
                match self.seen.chunk_of(column.array) {
                    Some((chunk, len)) => {
                        *id = chunk;
                        self.report.duplicate_chunks += 1;
                        self.report.saved_bytes += len;
                    }
                    None => unknown.push((at, *column)),
                }
            }
        });
        let read = |(at, column): (usize, NamedColumn<'_>)| -> Result<(usize, Fresh)> {
            let (content, dictionary) = timed(&work, || column.content())?;
            let shape = content.shape;
            let extra = Extra { validity: content.validity.as_deref(), dictionary: dictionary.as_deref() };
            let hash = timed(&search, || shape.hash(&content.codes, extra));
            let name = XxHash3_64::oneshot(column.name.as_bytes());
            let kind = XxHash3_64::oneshot_with_seed(u64::from(shape.code.to_id()), column.name.as_bytes());
            Ok((at, Fresh { id: 0, hash, content: Arc::new(content), dictionary, rows, name, kind }))
        };
        let read: Vec<(usize, Fresh)> =
            pool.install(|| unknown.clone().into_par_iter().map(read).collect::<Result<_>>())?;
        let mut fresh = Vec::new();
        let mut hashes = Vec::with_capacity(read.len());
        let looked_up = Instant::now();
        for (at, mut column) in read {
            if self.dedup == Dedup::Off {
                column.hash = salted(column.hash, self.next_chunk);
            }
            let (id, is_new) = self.number(&column.hash)?;
            hashes.push(column.hash);
            if is_new {
                column.id = id;
                fresh.push(column);
            }
            if let Some(slot) = ids.get_mut(at) {
                *slot = id;
            }
        }
        add_time(&search, looked_up);
        let made = self.make(intermediate, &fresh, key, pool, (&search, &work))?;
        for (column, Made { served, bytes, base, saved, sketch }) in fresh.iter().zip(made) {
            timed(&work, || self.store(column.id, &column.hash, &[&bytes], base, saved))?;
            if let Some(served) = served {
                self.habits.learn(column.kind, served);
            }
            if let Some(sketch) = sketch {
                self.index.add(&sketch, column.id);
                self.bases.add(column.as_base(bytes.len()));
            }
        }
        if self.dedup != Dedup::Off {
            timed(&search, || {
                for ((at, column), hash) in unknown.iter().zip(&hashes) {
                    let Some(id) = ids.get(*at) else { continue };
                    let len = self.stored_len(hash)?;
                    self.seen.add(column.array, *id, len);
                }
                Ok::<_, EngineError>(())
            })?;
        }
        self.report.search_ns += search.load(Ordering::Relaxed);
        self.report.work_ns += search.load(Ordering::Relaxed) + work.load(Ordering::Relaxed);
        Ok(ids)
    }

    /// The bytes of fresh columns: a copy of an earlier stage's, against a like one, or alone.
    fn make(
        &mut self,
        intermediate: i64,
        fresh: &[Fresh],
        key: Key<'_>,
        pool: &rayon::ThreadPool,
        (search, work): (&AtomicU64, &AtomicU64),
    ) -> Result<Vec<Made>> {
        let similar = self.dedup == Dedup::Approximate;
        let mut named = Vec::with_capacity(fresh.len());
        for column in fresh.iter().filter(|_| similar) {
            if self.rewritten.contains(&column.id) {
                named.push(Vec::new());
                continue;
            }
            let found = timed(search, || self.index.of_name(&self.catalog, column.rows, column.name));
            named.push(timed(work, || self.likes(found?, MOST_COPIED))?);
        }
        named.resize_with(fresh.len(), Vec::new);
        let (habits, sketcher) = (&self.habits, &self.sketcher);
        let first = |(column, likes): (&Fresh, Vec<Like>)| -> Result<Made> {
            let copied = timed(work, || copy_of(column, &likes, key))?;
            if let Some(made) = copied {
                return Ok(made);
            }
            let mut bytes = Vec::new();
            let (content, extra) = (&column.content, column.extra());
            let served = timed(work, || habits.encode(column.kind, content, extra, key, &mut bytes))?;
            let worth = similar && bytes.len() > MIN_ALONE_BYTES;
            let sketch = worth.then(|| timed(search, || sketch_of(sketcher, column)));
            Ok(Made { served, bytes, base: None, saved: 0, sketch })
        };
        let jobs: Vec<_> = fresh.iter().zip(named).collect();
        let mut made: Vec<Made> = pool.install(|| jobs.into_par_iter().map(first).collect::<Result<_>>())?;

        // A column that is like nothing in one RowBlock is not in the next one.
        let hopeful = |column: &Fresh| {
            !self.unlike.contains(&(intermediate, column.kind)) && !self.rewritten.contains(&column.id)
        };
        let hopeful: Vec<bool> = fresh.iter().map(hopeful).collect();
        // Against what was there before this RowBlock.
        let mut trials = Vec::new();
        for (at, (made, _)) in made.iter().zip(&hopeful).enumerate().filter(|(_, (_, hopeful))| **hopeful) {
            let Some(sketch) = &made.sketch else { continue };
            let found = timed(search, || self.index.candidates(&self.catalog, sketch))?;
            trials.push((at, timed(work, || self.likes(found, MOST_COMPARED))?));
        }
        for (at, base, bytes) in try_all(fresh, &made, trials, key, pool, work)? {
            if let Some(made) = made.get_mut(at) {
                made.code_against(base, bytes);
            }
        }

        // Against a column of the same RowBlock that is itself stored alone.
        let mut beside = SimilarIndex::default();
        let mut trials = Vec::new();
        for (at, (column, made)) in fresh.iter().zip(&made).enumerate() {
            let Some(sketch) = &made.sketch else { continue };
            let found = timed(search, || match hopeful.get(at) {
                Some(true) => beside.among_recent(sketch),
                _ => Vec::new(),
            });
            let others = found.iter().filter_map(|id| fresh.iter().find(|other| other.id == *id));
            trials.push((at, others.take(MOST_COMPARED).map(|other| other.as_base(0)).collect()));
            timed(search, || beside.add(sketch, column.id));
        }
        for (at, base, bytes) in try_all(fresh, &made, trials, key, pool, work)? {
            let alone = fresh.iter().zip(&made).any(|(other, made)| other.id == base.id && made.base.is_none());
            if let Some(made) = made.get_mut(at).filter(|_| alone) {
                made.code_against(base, bytes);
            }
        }
        for (column, _) in fresh.iter().zip(&made).filter(|(_, made)| made.sketch.is_some()) {
            self.unlike.insert((intermediate, column.kind));
        }
        Ok(made)
    }

    /// The first of these chunks that columns can be coded against.
    fn likes(&mut self, chunks: Vec<i64>, most: usize) -> Result<Vec<Like>> {
        let mut likes = Vec::new();
        for chunk in chunks.into_iter().take(most) {
            likes.extend(self.bases.get(chunk, &self.catalog, &*self.storage)?);
        }
        Ok(likes)
    }

    /// Bytes that a row of each of these columns would take, each stored alone.
    ///
    /// Errors: `Quantize`, `Unsupported`.
    pub fn measure_columns(
        &self,
        columns: &[NamedColumn<'_>],
        key: Key<'_>,
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<f32>> {
        let measure = |column: &NamedColumn<'_>| -> Result<f32> {
            let (content, dictionary) = column.content()?;
            let extra = Extra { validity: content.validity.as_deref(), dictionary: dictionary.as_deref() };
            let mut out = Vec::new();
            write_chunk(&content.shape, &content.codes, extra, Effort::Column, key, &mut out)?;
            Ok(out.len() as f32 / content.shape.n_rows.max(1) as f32)
        };
        pool.install(|| columns.par_iter().map(measure).collect())
    }
}

impl Made {
    /// Takes the bytes against `base` where they are the fewest.
    fn code_against(&mut self, base: Base, bytes: Vec<u8>) {
        let alone = self.bytes.len() + self.saved as usize;
        if bytes.len() < self.bytes.len() && pays(bytes.len(), alone) {
            let saved = (alone - bytes.len()) as u64;
            *self = Self { served: self.served, saved, bytes, base: Some(base), sketch: None };
        }
    }
}

/// The column as a copy of an earlier stage's: found without encoding it alone. What that saves is then told by what the
/// other one takes.
fn copy_of(column: &Fresh, likes: &[Like], key: Key<'_>) -> Result<Option<Made>> {
    for like in likes {
        let copied = column.against(like, Near::Copied, key)?.filter(|bytes| bytes.len() < MIN_ALONE_BYTES);
        if let Some(bytes) = copied.filter(|bytes| pays(bytes.len(), like.len as usize)) {
            let saved = like.len - bytes.len() as u64;
            return Ok(Some(Made { served: None, bytes, base: Some(like.base), saved, sketch: None }));
        }
    }
    Ok(None)
}

fn sketch_of(sketcher: &Sketcher, column: &Fresh) -> Sketch {
    let content = &column.content;
    sketcher.sketch(content.shape.code, &content.codes, content.validity.as_deref(), column.rows, column.name)
}

/// Codes columns, by place, each against the nearest of some others, side by side.
fn try_all(
    fresh: &[Fresh],
    made: &[Made],
    trials: Vec<(usize, Vec<Like>)>,
    key: Key<'_>,
    pool: &rayon::ThreadPool,
    work: &AtomicU64,
) -> Result<Vec<(usize, Base, Vec<u8>)>> {
    let attempt = |(at, likes): (usize, Vec<Like>)| -> Result<Option<(usize, Base, Vec<u8>)>> {
        let (Some(column), Some(made)) = (fresh.get(at), made.get(at)) else { return Ok(None) };
        let mut nearest: Option<(u64, Like)> = None;
        for like in likes {
            let bits = bits_against(&column.content, &like.codes, key)?;
            if let Some(bits) = bits.filter(|b| nearest.as_ref().is_none_or(|(least, _)| b < least)) {
                nearest = Some((bits, like));
            }
        }
        let most = 8 * BITS_ALIKE * made.bytes.len() as u64;
        let Some((_, like)) = nearest.filter(|(bits, _)| *bits < most) else { return Ok(None) };
        let bytes = column.against(&like, Near::Any(made.bytes.len()), key)?;
        Ok(bytes.map(|bytes| (at, like.base, bytes)))
    };
    let attempt = |trial| timed(work, || attempt(trial));
    let done: Vec<_> = pool.install(|| trials.into_par_iter().map(attempt).collect::<Result<_>>())?;
    Ok(done.into_iter().flatten().collect())
}
