//! The query cost model (5.5.1, Eqs. 5.1 to 5.4): names under which measured costs are kept, so that who measures and
//! who plans agree, and pure functions from counted work and measured rates to seconds.
//!
//! ```text
//! (5.1)  t_diag = t_fetch + t_compute
//! (5.2)  t_rerun(i) = Σ_{s ≤ i} t_read_xformer(s) + t_read_xformer_input(s) + t_exec_xformer(s)
//! (5.3)  t_rerun_NN(i) = t_model_load + n_ex · sizeof(ex) / ρ + n_ex / bt_size · Σ_{s ≤ i} t_fwd(s, bt_size)
//! (5.4)  t_read(i) = n_ex · sizeof(ex) / ρ_d
//! ```
//!
//! t_compute is the same under every plan, so t_fetch alone is modelled. Beyond the equations, the sums run over the
//! stages that a plan really runs (those between what is read and what is wanted, over a graph and not a chain), t_fwd
//! is measured stage by stage at several batch sizes, and ρ_d is not one rate: a read opens chunks, decodes whole
//! pages, takes pages from the InMemoryStore, and writes the answer, on as many threads as it has tasks.

use std::ops::{Add, AddAssign};
use std::sync::OnceLock;
use std::time::Duration;

use crate::catalog::CostRecord;

/// Seconds to load a model from the store, its dataset open; subject: [`model_subject`]. Measured by RERUN.
pub const LOAD: &str = "load";
/// Seconds to make a model ready from operators in memory; subject: [`model_subject`]. Measured by logging.
pub const PREPARE: &str = "prepare";
/// Seconds to open a dataset and take its fingerprint; subject: the dataset's fingerprint.
pub const OPEN_DATASET: &str = "open-dataset";
/// Seconds a row to read a dataset's rows as input; subject: the dataset's fingerprint.
pub const INPUT: &str = "input";
/// Seconds to run a stage over a batch; subject: [`stage_subject`] with the batch's rows.
pub const STAGE: &str = "stage";
/// Seconds of a stage that reads the dataset itself, when what it reads is in memory; subject: [`stage_subject`] of one row.
pub const HELD_INPUT: &str = "held-input";
/// Seconds a value to hand a stage's output over, or to take a stored one in; subject: the device, [`sized`]; to pick rows
/// of a table that was run whole; subject: [`picked`].
pub const OUTPUT: &str = "output";
/// Seconds a value, as logged, to pool a RERUN's output as its stored copy is; subject: the pool, such as `pool(2)`, [`sized`].
pub const POOL: &str = "pool";
/// Seconds of a read outside of its tasks; subject: `tensor` ([`Manner::repeated`]) or [`TABLE`], `, one task` where it is one.
pub const READ_START: &str = "read-start";
/// Seconds to look up where a chunk lies; subject: [`place_subject`].
pub const READ_PLACE: &str = "read-place";
/// Seconds to open a chunk: header and the tables that its pages share; subject: the scheme ([`Manner::repeated`]), or [`TABLE`].
pub const READ_OPEN: &str = "read-open";
/// Seconds a value of a page to read and decode it; subject: [`read_subject`].
pub const READ: &str = "read";
/// Seconds a value (float32) to touch memory that comes from the system afresh, on one thread; no subject.
pub const FRESH: &str = "fresh";
/// Seconds a page to find it in the InMemoryStore; no subject.
pub const HELD_PAGE: &str = "held-page";
/// Seconds a value wanted to decode it from pages held in memory; subject: the scheme.
pub const HELD: &str = "held";
/// The subject of what is the same for all tables.
pub const TABLE: &str = "table";
/// Seconds a row to decode a ColumnChunk of a table; subject: [`table_subject`].
pub const READ_TABLE: &str = "read-table";
/// Seconds to take a ColumnChunk of a table from the InMemoryStore; no subject.
pub const HELD_TABLE: &str = "held-table";
/// Seconds to put together a table's column, whatever its rows; no subject.
pub const GATHER_COLUMN: &str = "gather-column";
/// Seconds a value to put together a table's column from its chunks; subject: a type class, `, scattered` where most rows
/// lie apart.
pub const GATHER: &str = "gather";

/// Subject of costs of a model on a device.
pub fn model_subject(description: &str, device: &str) -> String {
    format!("{}@{device}", crate::model::hex(&crate::model::fingerprint(description.as_bytes())))
}

/// Subject of a stage's cost for batches of `n_rows`; `model` is of [`model_subject`].
pub fn stage_subject(model: &str, stage: &str, n_rows: u64) -> String {
    format!("{model}/{stage}#{n_rows}")
}

/// Values (float32, 32 MiB) from which on memory for them comes from the system afresh each time, so that the first touch
/// of its pages weighs in every rate: the largest threshold of glibc's allocator.
pub const LARGE_VALUES: f64 = 8_388_608.0;
/// Values below which fixed costs weigh more than what a value takes: they tell no rate.
pub const RATE_VALUES: f64 = 65_536.0;

/// So many of an answer's values lie in fresh memory.
pub fn fresh_values(n_values: f64) -> f64 {
    if n_values >= LARGE_VALUES { n_values } else { 0.0 }
}

/// The subject of a rate, apart for so many values that their memory is fresh.
pub fn sized(subject: &str, n_values: f64) -> String {
    let size = if n_values >= LARGE_VALUES { "/large" } else { "" };
    format!("{subject}{size}")
}

/// The subject of picking rows of tables on a device: rows that follow each other, or rows that may lie apart.
pub fn picked(device: &str, scattered: bool) -> String {
    format!("{device}, table{}", if scattered { ", scattered" } else { "" })
}

/// Where a page's codes go when they have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Straight into the answer: requests that the InMemoryStore does not admit.
    Answer,
    /// Into the InMemoryStore, and from there into the answer.
    Memory,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Memory => "memory",
        }
    }
}

/// Chunks of a RowBlock from which on looking up their places, which mostly follow each other, is one question.
const RUN: usize = 4;

/// Subject of looking up places, of so many chunks of each RowBlock.
pub fn place_subject(n_chunks: usize) -> &'static str {
    if n_chunks >= RUN { "in runs" } else { "" }
}

const AGAIN: &str = ", again";

/// What the rates of reads are kept apart by, beside the scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Where pages go.
    pub target: Target,
    /// Whether it is a small read of what this process has read before, since it knew where all its chunks lie: nothing is
    /// faulted in. Of large reads that is little.
    pub again: bool,
    /// Whether less than half of what is decoded is wanted: it stays in the caches, as little goes to the answer.
    pub in_part: bool,
}

impl Manner {
    /// The manner of a read that looks up so many places, decodes so many values, and wants so many of these.
    pub fn of(admitted: bool, places: f64, values: f64, wanted: f64) -> Self {
        let target = if admitted { Target::Memory } else { Target::Answer };
        Self { target, again: admitted && places < 1.0, in_part: 2.0 * wanted < values }
    }

    /// This one, then those that are closest to it: one that was not measured is taken to be like the next.
    pub fn nearest(self) -> impl Iterator<Item = Self> {
        let first = Self { again: false, ..self };
        [self].into_iter().chain(self.again.then_some(first)).chain([Self { in_part: !self.in_part, ..first }])
    }

    /// A subject apart for what is read again.
    pub fn repeated(self, subject: &str) -> String {
        [subject, if self.again { AGAIN } else { "" }].concat()
    }
}

/// Subject of the rate at which pages of a scheme are read; of one intermediate where its number is given.
pub fn read_subject(scheme: &str, manner: Manner, intermediate: Option<i64>) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(scheme.len() + 48);
    text.extend([scheme, "/", manner.target.name()]);
    if let Some(id) = intermediate {
        // Writing to a text does not fail.
        let _ = write!(text, "#{id}");
    }
    if manner.in_part {
        text.push_str(", in part");
    }
    if manner.again {
        text.push_str(AGAIN);
    }
    text
}

/// Subject of the rate at which columns of a class of types (`bool`, `integer`, `float`, `text`, `other`) are decoded; of
/// one table where its number is given.
pub fn table_subject(class: &str, intermediate: Option<i64>) -> String {
    intermediate.map_or_else(|| class.to_string(), |id| format!("{class}#{id}"))
}

/// What figures are kept apart by: processor and number of cores of this machine.
pub fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = |name: &str| {
            info.lines().find(|l| l.starts_with(name)).and_then(|l| l.split(": ").nth(1)).unwrap_or("?").to_string()
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{} {} {} {cores} cores", host.trim(), line("model name"), line("model\t"))
    })
}

/// What a figure is kept apart by: those of reads also by what the store lies on, which may be another after it was moved.
pub(crate) fn owner(what: &str, medium: &str) -> String {
    let is_read = matches!(what, READ_START | READ_PLACE | READ_OPEN | READ | READ_TABLE);
    if is_read && !medium.is_empty() { format!("{}, {medium}", machine()) } else { machine().to_string() }
}

/// A predicted time: its mean and its variance, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// Variance of the seconds.
    pub variance: f64,
}

impl Estimate {
    /// A time that nobody measured: anything from nothing to twice as long.
    pub fn guess(seconds: f64) -> Self {
        Self { seconds, variance: seconds * seconds }
    }

    /// `n` times this, all of them equally far off.
    #[must_use]
    pub fn times(self, n: f64) -> Self {
        Self { seconds: self.seconds * n, variance: self.variance * n * n }
    }

    /// The mean.
    pub fn duration(self) -> Duration {
        Duration::try_from_secs_f64(self.seconds.max(0.0)).unwrap_or(Duration::MAX)
    }

    /// One standard deviation.
    pub fn deviation(self) -> Duration {
        Duration::try_from_secs_f64(self.variance.max(0.0).sqrt()).unwrap_or(Duration::MAX)
    }
}

impl From<CostRecord> for Estimate {
    fn from(cost: CostRecord) -> Self {
        Self { seconds: cost.mean, variance: cost.variance }
    }
}

impl Add for Estimate {
    type Output = Self;

    /// The sum of two that err independently.
    fn add(self, other: Self) -> Self {
        Self { seconds: self.seconds + other.seconds, variance: self.variance + other.variance }
    }
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Estimate {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What a read of a tensor has to do, counted from the rows' places and the layout.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReadWork {
    /// Chunks whose place has to be looked up.
    pub places: f64,
    /// Chunks of each RowBlock that are read.
    pub of_block: usize,
    /// Times that a task opens a chunk.
    pub opens: f64,
    /// Values in the pages to read and decode.
    pub values: f64,
    /// Pages found in the InMemoryStore.
    pub held_pages: f64,
    /// Values wanted of these.
    pub held_values: f64,
    /// Values of the answer.
    pub out_values: f64,
    /// Those of them whose memory is fresh.
    pub fresh_values: f64,
    /// Bytes of the codes to read, before compression.
    pub bytes: f64,
    /// Tasks that can run beside each other.
    pub tasks: f64,
    /// Whether pages read go through the InMemoryStore.
    pub admitted: bool,
}

/// What was measured of reads, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReadRates {
    /// A read ([`READ_START`]).
    pub start: Estimate,
    /// A chunk's place ([`READ_PLACE`]).
    pub place: Estimate,
    /// A chunk opened ([`READ_OPEN`]).
    pub open: Estimate,
    /// A value of a page ([`READ`]).
    pub value: Estimate,
    /// A page held ([`HELD_PAGE`]).
    pub held_page: Estimate,
    /// A value of held pages ([`HELD`]).
    pub held_value: Estimate,
    /// A value of fresh memory ([`FRESH`]).
    pub fresh_value: Estimate,
    /// Threads that read.
    pub threads: f64,
}

/// Seconds of a read (Eq. 5.4 with ρ_d by what is read and from where): what happens once, and the tasks' work, shared
/// by as many threads as there are tasks.
pub fn read_seconds(work: &ReadWork, rates: &ReadRates) -> Estimate {
    let tasks = rates.open.times(work.opens)
        + rates.value.times(work.values)
        + rates.held_page.times(work.held_pages)
        + rates.held_value.times(work.held_values)
        + rates.fresh_value.times(work.fresh_values);
    let once = rates.start + rates.place.times(work.places);
    once + tasks.times(1.0 / work.tasks.clamp(1.0, rates.threads.max(1.0)))
}

/// Batch sizes under which a stage's times are kept.
pub const BATCHES: [u64; 12] = [1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144];
/// Rows from which on a stage's time grows with the rows, so that other sizes can be counted as the nearest kept one.
const LINEAR_ROWS: u64 = 12;
/// Rows whose time a batch takes beside that of its own rows, until small batches were measured.
const FIXED_ROWS: f64 = 4.0;

/// The size under which a batch of `n_rows` is kept, and what to multiply its seconds by; `None` for sizes that tell
/// nothing of others.
pub fn kept_batch(n_rows: u64) -> Option<(u64, f64)> {
    if BATCHES.contains(&n_rows) {
        return Some((n_rows, 1.0));
    }
    if n_rows < LINEAR_ROWS {
        return None;
    }
    let distance = |b: u64| (b as f64 / n_rows as f64).ln().abs();
    let nearest = BATCHES.into_iter().min_by(|a, b| distance(*a).total_cmp(&distance(*b)))?;
    Some((nearest, nearest as f64 / n_rows as f64))
}

/// Seconds of a stage over one batch of `n_rows`, from those `measured` at some of [`BATCHES`] (ascending): between two
/// sizes on the straight line of their logarithms, beyond the largest in proportion, below the smallest with what a
/// batch takes at least.
pub fn batch_seconds(measured: &[(u64, Estimate)], n_rows: f64) -> Option<Estimate> {
    let above = measured.iter().position(|(b, _)| *b as f64 >= n_rows);
    match above {
        None => measured.last().map(|(b, e)| e.times(n_rows / *b as f64)),
        Some(0) => {
            let (b, e) = measured.first()?;
            if *b as f64 == n_rows {
                return Some(*e);
            }
            let e = e.times((n_rows + FIXED_ROWS) / (*b as f64 + FIXED_ROWS));
            // Close to a measured size that is hardly a guess.
            let doubt = if n_rows * 4.0 > *b as f64 { 0.0 } else { e.seconds / 2.0 };
            Some(Estimate { variance: e.variance + doubt * doubt, ..e })
        }
        Some(i) => {
            let (low, high) = (measured.get(i - 1)?, measured.get(i)?);
            let (a, b) = (low.0 as f64, high.0 as f64);
            let at = (n_rows / a).ln() / (b / a).ln();
            let seconds = (low.1.seconds.max(1e-12).ln() * (1.0 - at) + high.1.seconds.max(1e-12).ln() * at).exp();
            // As uncertain, in proportion, as its neighbours.
            let share = |e: Estimate| e.variance / (e.seconds * e.seconds).max(1e-24);
            let variance = (share(low.1) * (1.0 - at) + share(high.1) * at) * seconds * seconds;
            Some(Estimate { seconds, variance })
        }
    }
}

/// Seconds of a stage over `n_rows` in batches of `batch` (the sum over batches of Eq. 5.3): whole batches and the rest.
pub fn stage_seconds(measured: &[(u64, Estimate)], n_rows: u64, batch: u64) -> Option<Estimate> {
    let batch = batch.clamp(1, n_rows.max(1));
    let (whole, rest) = (n_rows / batch, n_rows % batch);
    let mut total = Estimate::default();
    if whole > 0 {
        total += batch_seconds(measured, batch as f64)?.times(whole as f64);
    }
    if rest > 0 {
        total += batch_seconds(measured, rest as f64)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sure(seconds: f64) -> Estimate {
        Estimate { seconds, variance: 0.0 }
    }

    #[test]
    fn a_read_by_hand() {
        // 2 places of 5 µs, 4 chunks opened in 10 µs, a million values at 1 ns, over two threads; 100 µs to start.
        let work = ReadWork { places: 2.0, opens: 4.0, values: 1e6, tasks: 8.0, ..ReadWork::default() };
        let rates = ReadRates {
            start: sure(100e-6),
            place: sure(5e-6),
            open: sure(10e-6),
            value: Estimate { seconds: 1e-9, variance: 1e-20 },
            held_page: sure(1e-7),
            held_value: sure(5e-10),
            fresh_value: Estimate { seconds: 0.0, variance: 0.0 },
            threads: 2.0,
        };
        let e = read_seconds(&work, &rates);
        assert!((e.seconds - (100e-6 + 10e-6 + (40e-6 + 1e-3) / 2.0)).abs() < 1e-12, "{e:?}");
        // A tenth of a nanosecond off, a million times, on two threads: 50 µs.
        assert!((e.variance.sqrt() - 50e-6).abs() < 1e-12, "{e:?}");
        // The same pages held: 128 of them at 100 ns, 400,000 values wanted at 0.5 ns; one task runs alone.
        let held = ReadWork { held_pages: 128.0, held_values: 4e5, tasks: 1.0, ..ReadWork::default() };
        assert!((read_seconds(&held, &rates).seconds - (100e-6 + 12.8e-6 + 200e-6)).abs() < 1e-12);
    }

    #[test]
    fn manners_by_hand() {
        // Nothing looked up; 8,192 values decoded for 256: again, and in part.
        let one_row = Manner::of(true, 0.0, 8192.0, 256.0);
        assert_eq!(one_row, Manner { target: Target::Memory, again: true, in_part: true });
        let whole = Manner::of(true, 3.0, 8192.0, 8192.0);
        assert_eq!(whole, Manner { target: Target::Memory, again: false, in_part: false });
        // Large reads are the same again.
        let large = Manner { target: Target::Answer, ..whole };
        assert_eq!((Manner::of(false, 3.0, 1e7, 1e7), Manner::of(false, 0.0, 1e7, 1e7)), (large, large));
        assert_eq!(read_subject("f16", one_row, Some(7)), "f16/memory#7, in part, again");
        assert_eq!(read_subject("f16", large, None), "f16/answer");
        assert_eq!((one_row.repeated("tensor"), whole.repeated("tensor")), ("tensor, again".into(), "tensor".into()));
        // Closest first: the same pages for the first time are closer than others again.
        let texts = |m: Manner| m.nearest().map(|m| read_subject("f16", m, None)).collect::<Vec<_>>();
        assert_eq!(texts(one_row), ["f16/memory, in part, again", "f16/memory, in part", "f16/memory"]);
        assert_eq!(texts(large), ["f16/answer", "f16/answer, in part"]);
        assert_eq!([1, 3, 4, 64].map(place_subject), ["", "", "in runs", "in runs"]);
    }

    #[test]
    fn batches_by_hand() {
        let measured = [(1, sure(0.01)), (16, sure(0.04)), (256, sure(0.64))];
        let at = |n: f64| batch_seconds(&measured, n).unwrap().seconds;
        assert!((at(1.0) - 0.01).abs() < 1e-12 && (at(256.0) - 0.64).abs() < 1e-12);
        // From 1 to 16 the time grows by the square root: 4 rows take twice as long as one.
        assert!((at(4.0) - 0.02).abs() < 1e-12);
        // From 16 to 256 it grows with the rows, and so beyond.
        assert!((at(64.0) - 0.16).abs() < 1e-12 && (at(1000.0) - 2.5).abs() < 1e-12);
        // 1,000 rows in batches of 256: three whole ones and 232.
        let total = stage_seconds(&measured, 1000, 256).unwrap().seconds;
        assert!((total - (3.0 * 0.64 + 0.04 * 232.0 / 16.0)).abs() < 1e-9, "{total}");
        assert_eq!(stage_seconds(&measured, 1, 256), batch_seconds(&measured, 1.0));
        assert_eq!(stage_seconds(&measured, 0, 256).unwrap().seconds, 0.0);
        assert!(stage_seconds(&[], 3, 256).is_none());
        // Below the smallest measured batch: 5 of 260 parts for a row of 256, and said to be uncertain.
        let guess = batch_seconds(&[(256, sure(0.52))], 1.0).unwrap();
        assert!((guess.seconds - 0.01).abs() < 1e-12 && (guess.variance.sqrt() - 0.005).abs() < 1e-12);
    }

    #[test]
    fn batches_are_kept_where_they_tell_something() {
        assert_eq!(kept_batch(256), Some((256, 1.0)));
        assert_eq!(kept_batch(232), Some((256, 256.0 / 232.0)));
        assert_eq!(kept_batch(3), None);
        assert_eq!(kept_batch(100).unwrap().0, 64);
    }
}
