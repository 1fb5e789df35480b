//! What a read of a table will cost here and now: its work counted, its rates looked up, and both kept after every read.

use std::time::Instant;

use arrow::datatypes::DataType;

use crate::catalog::Block;
use crate::cost::{self, Estimate};
use crate::error::Result;
use crate::model::{IntermediateRecord, TableContent};
use crate::read::{Chunks, Count};
use crate::read_cost::{SAMPLE, START_SECONDS, unmeasured};
use crate::row_plan::RowPlan;
use crate::store::Store;

/// Classes of types: `other` first, which a type that is none of these counts as.
const CLASSES: [&str; 5] = ["other", "bool", "integer", "float", "text"];
/// Rows from which on putting a column together tells a rate.
const RATE_ROWS: usize = 1024;
/// Rows up to which it tells what a column takes whatever its rows.
const FEW_ROWS: usize = 16;
/// Columns for each thread from which on a column's chunks are read one after the other.
const COLUMNS_A_THREAD: usize = 4;

/// The place of a type's class, by which its decoding is measured.
fn class_of(data_type: &DataType) -> usize {
    match data_type {
        DataType::Boolean => 1,
        t if t.is_integer() => 2,
        t if t.is_floating() => 3,
        DataType::Utf8 | DataType::LargeUtf8 => 4,
        _ => 0,
    }
}

fn gather_subject(class: &str, scattered: bool) -> String {
    if scattered { format!("{class}, scattered") } else { class.to_string() }
}

/// One task is done where it is asked for; several have threads to wake, and columns that keep all of them busy wake all.
fn start_subject(n_columns: usize, n_blocks: usize) -> &'static str {
    match n_columns * n_blocks {
        0 | 1 => "table, one task",
        _ if is_wide(n_columns) => "table, wide",
        _ => cost::TABLE,
    }
}

/// Whether so many columns keep all threads busy, so that the chunks of each are read one after the other.
pub(crate) fn is_wide(n_columns: usize) -> bool {
    n_columns >= COLUMNS_A_THREAD * rayon::current_num_threads()
}

/// On how many threads so many tasks run.
fn beside(tasks: usize) -> f64 {
    (tasks as f64).clamp(1.0, rayon::current_num_threads() as f64)
}

/// What reading columns of a table has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableWork {
    n_blocks: usize,
    /// Rows wanted.
    n_rows: usize,
    scattered: bool,
    /// Chunks whose place has to be looked up.
    places: usize,
    columns: Vec<ColumnWork>,
}

/// What reading a column of a table has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ColumnWork {
    column: usize,
    /// Chunks to take from memory.
    held: usize,
    /// Chunks to read and decode.
    opens: usize,
    /// Their rows.
    rows: usize,
}

impl TableWork {
    /// Of so many RowBlocks, none of whose chunks is held, and all of whose rows are wanted.
    fn of_blocks(n_blocks: usize, n_rows: usize, columns: &[usize]) -> Self {
        let column = |c: &usize| ColumnWork { column: *c, held: 0, opens: n_blocks, rows: n_rows };
        let columns: Vec<ColumnWork> = columns.iter().map(column).collect();
        Self { n_blocks, n_rows, scattered: false, places: n_blocks * columns.len(), columns }
    }

    /// Chunks to take from memory.
    pub fn held(&self) -> usize {
        self.columns.iter().map(|c| c.held).sum()
    }

    /// Chunks to read and decode.
    pub fn fresh(&self) -> usize {
        self.columns.iter().map(|c| c.opens).sum()
    }

    /// Bytes of the values to decode, before compression.
    pub fn bytes(&self) -> f64 {
        self.columns.iter().map(|c| c.rows as f64 * 8.0).sum()
    }

    /// Columns and rows to decode of each class.
    fn by_class(&self, table: &TableContent) -> [(usize, usize); CLASSES.len()] {
        let mut classes = [(0, 0); CLASSES.len()];
        for work in &self.columns {
            let class = table.schema.fields().get(work.column).map_or(0, |f| class_of(f.data_type()));
            if let Some((columns, rows)) = classes.get_mut(class) {
                *columns += 1;
                *rows += work.rows;
            }
        }
        classes
    }
}

/// What was measured of reads of tables, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct TableRates {
    start: Estimate,
    place: Estimate,
    open: Estimate,
    held: Estimate,
    column: Estimate,
    /// Of each class: a row decoded, and a value put together.
    classes: [(Estimate, Estimate); CLASSES.len()],
}

/// Seconds of a read of a table (Eq. 5.4 with ρ_d by what is read and from where): what happens once, and what the tasks
/// do beside each other: chunks, and columns put together from them.
fn table_seconds(work: &TableWork, classes: &[(usize, usize)], rates: &TableRates) -> Estimate {
    let mut chunks = rates.open.times(work.fresh() as f64) + rates.held.times(work.held() as f64);
    let mut columns = rates.column.times(work.columns.len() as f64);
    for ((n_columns, rows), (row, value)) in classes.iter().zip(rates.classes) {
        chunks += row.times(*rows as f64);
        columns += value.times((n_columns * work.n_rows) as f64);
    }
    rates.start
        + rates.place.times(work.places as f64)
        + chunks.times(1.0 / beside(work.columns.len() * work.n_blocks))
        + columns.times(1.0 / beside(work.columns.len()))
}

impl Store {
    /// What reading columns of the planned rows of a table has to do.
    pub fn table_work(&self, plan: &RowPlan, columns: &[usize]) -> TableWork {
        self.work_of_blocks(&plan.blocks, columns, plan.n_rows(), plan.is_scattered())
    }

    /// The same for all columns of all rows.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn whole_table_work(&self, record: &IntermediateRecord) -> Result<TableWork> {
        let blocks = self.all_blocks(record)?;
        let columns: Vec<usize> = (0..record.content.n_groups()).collect();
        Ok(self.work_of_blocks(&blocks, &columns, record.n_rows as usize, false))
    }

    /// What reading columns of `n_rows` rows would have to do, were they stored: from memory as far as that holds them, if
    /// `in_memory`.
    ///
    /// Errors: `Unsupported` for a tensor.
    pub fn table_work_if_stored(
        &self,
        record: &IntermediateRecord,
        n_rows: usize,
        columns: &[usize],
        in_memory: bool,
    ) -> Result<TableWork> {
        let table = record.table()?;
        let n_blocks = n_rows.div_ceil(table.block_rows.max(1)).max(1);
        let mut work = TableWork::of_blocks(n_blocks, n_rows, columns);
        if in_memory && self.pool().admits(n_rows * table.held_row_bytes(columns)) {
            // Text is not held: its dictionary is in the chunk alone.
            let is_text =
                |c: &ColumnWork| table.schema.fields().get(c.column).is_none_or(|f| class_of(f.data_type()) == 4);
            for column in work.columns.iter_mut().filter(|c| !is_text(c)) {
                *column = ColumnWork { column: column.column, held: n_blocks, opens: 0, rows: 0 };
            }
            work.places = work.fresh();
        }
        Ok(work)
    }

    fn work_of_blocks(&self, blocks: &[Block], columns: &[usize], n_rows: usize, scattered: bool) -> TableWork {
        let step = blocks.len().div_ceil(SAMPLE).max(1);
        let sampled: Vec<&Block> = blocks.iter().step_by(step).collect();
        let sampled_rows: usize = sampled.iter().map(|b| b.rows.len()).sum();
        let all_rows: usize = blocks.iter().map(|b| b.rows.len()).sum();
        let chunks = |c: usize| sampled.iter().filter_map(move |b| Some((b.chunks.get(c).copied()?, b.rows.len())));
        let column = |c: &usize| {
            let (held, held_rows) = self.pool().holds_whole(chunks(*c));
            let held = (blocks.len() * held).div_ceil(sampled.len().max(1));
            let held_rows = (all_rows * held_rows).div_ceil(sampled_rows.max(1));
            ColumnWork { column: *c, held, opens: blocks.len() - held, rows: all_rows.saturating_sub(held_rows) }
        };
        let fresh = self.pool().lacks_whole(columns.iter().flat_map(|c| chunks(*c)).map(|(chunk, _)| chunk));
        let unknown = fresh.len() - self.known_places(fresh.iter().copied());
        let n_chunks = columns.len() * sampled.len();
        let places = (columns.len() * blocks.len() * unknown).div_ceil(n_chunks.max(1));
        let columns = columns.iter().map(column).collect();
        TableWork { n_blocks: blocks.len(), n_rows, scattered, places, columns }
    }

    /// Seconds that the work takes by the rates measured on this machine (Eq. 5.4).
    ///
    /// Errors: `Catalog`, `Unsupported` for a tensor.
    pub fn table_estimate(&self, record: &IntermediateRecord, work: &TableWork) -> Result<Estimate> {
        let classes = work.by_class(record.table()?);
        let mut rates = TableRates {
            start: self.rate(cost::READ_START, start_subject(work.columns.len(), work.n_blocks), unmeasured::START)?,
            place: self.place_rate(work.columns.len())?,
            open: self.rate(cost::READ_OPEN, cost::TABLE, unmeasured::OPEN)?,
            held: self.rate(cost::HELD_TABLE, "", unmeasured::HELD_CHUNK)?,
            column: self.rate(cost::GATHER_COLUMN, "", unmeasured::COLUMN)?,
            ..TableRates::default()
        };
        for ((class, (columns, rows)), (row, value)) in CLASSES.iter().zip(classes).zip(&mut rates.classes) {
            if rows > 0 {
                *row = match self.cost(cost::READ_TABLE, &cost::table_subject(class, Some(record.id)))? {
                    Some(own) => own.into(),
                    None => self.rate(cost::READ_TABLE, class, unmeasured::ROW)?,
                };
            }
            if columns > 0 {
                *value = self.rate(cost::GATHER, &gather_subject(class, work.scattered), unmeasured::VALUE)?;
            }
        }
        Ok(table_seconds(work, &classes, &rates))
    }

    /// Keeps what a read of a table measured that began then.
    pub(crate) fn keep_table_read(&self, record: &IntermediateRecord, meter: &TableMeter, begun: Instant) {
        let keep = |what: &str, subject: &str, seconds: f64, n: f64| {
            if n > 0.0
                && let Err(e) = self.add_cost(what, subject, seconds / n)
            {
                tracing::debug!("the read's time is not kept: {e}");
            }
        };
        keep(cost::READ_PLACE, cost::place_subject(meter.n_columns), meter.places.1, meter.places.0 as f64);
        keep(cost::READ_OPEN, cost::TABLE, meter.opens.seconds(), meter.opens.n());
        keep(cost::HELD_TABLE, "", meter.held.seconds(), meter.held.n());
        let mut chunks = meter.opens.seconds() + meter.held.seconds();
        let mut columns = 0.0;
        for (class, (rows, gathers)) in CLASSES.iter().zip(meter.rows.0.iter().zip(&meter.gathers.0)) {
            keep(cost::READ_TABLE, class, rows.seconds(), rows.n());
            keep(cost::READ_TABLE, &cost::table_subject(class, Some(record.id)), rows.seconds(), rows.n());
            chunks += rows.seconds();
            columns += gathers.seconds();
        }
        if meter.n_rows > 0 && meter.n_rows <= FEW_ROWS {
            keep(cost::GATHER_COLUMN, "", columns, meter.n_columns as f64);
        }
        if meter.n_rows >= RATE_ROWS {
            let column = self.rate(cost::GATHER_COLUMN, "", 0.0).map_or(0.0, |e| e.seconds);
            for (class, gathers) in CLASSES.iter().zip(&meter.gathers.0) {
                let fixed = column * gathers.n() / meter.n_rows as f64;
                let seconds = (gathers.seconds() - fixed).max(0.0);
                keep(cost::GATHER, &gather_subject(class, meter.scattered), seconds, gathers.n());
            }
        }
        let tasks = meter.n_columns * meter.n_blocks;
        let tasked = chunks / beside(tasks) + columns / beside(meter.n_columns);
        if tasks > 0 && tasked < START_SECONDS {
            // What keeping the figures took is part of the read.
            let start = (begun.elapsed().as_secs_f64() - meter.places.1 - tasked).max(0.0);
            keep(cost::READ_START, start_subject(meter.n_columns, meter.n_blocks), start, 1.0);
        }
    }
}

/// What a read of a table did.
#[derive(Debug, Default)]
pub(crate) struct TableMeter {
    pub n_rows: usize,
    pub n_blocks: usize,
    pub n_columns: usize,
    pub scattered: bool,
    /// Places looked up, and seconds for that.
    pub places: (usize, f64),
    /// Chunks opened.
    pub opens: Count,
    /// Rows decoded.
    pub rows: ByClass,
    /// Chunks taken from the InMemoryStore.
    pub held: Count,
    /// Values put together to columns.
    pub gathers: ByClass,
}

/// Counts of each class of types.
#[derive(Debug, Default)]
pub(crate) struct ByClass([Count; CLASSES.len()]);

impl ByClass {
    /// The count of a type's class.
    pub fn of_type(&self, data_type: &DataType) -> &Count {
        &self.0[class_of(data_type)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::key::ModelKey;
    use crate::log::{IfExists, LogOptions};
    use crate::model::ModelSpec;
    use crate::row_plan::Rows;
    use crate::storage::MemoryStorage;
    use crate::store::StoreOptions;

    fn sure(seconds: f64) -> Estimate {
        Estimate { seconds, variance: 0.0 }
    }

    #[test]
    fn chunks_in_memory_are_counted() {
        let storage = Arc::new(MemoryStorage::new(None).unwrap());
        let store = Store::on(storage, true, StoreOptions::default()).unwrap();
        let n = 10_000u64;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n as i64));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("w{}", i % 7))));
        let batch = RecordBatch::try_from_iter([("a", numbers), ("b", words)]).unwrap();
        let key = ModelKey::new("p", "m");
        let mut log = store.logger(LogOptions::default()).unwrap();
        let model = log.model(&ModelSpec::raw(key.clone()), IfExists::Continue).unwrap();
        let handle = log.table(model, "t", 0, &batch.schema()).unwrap();
        log.append_table(handle, &(0..n).collect::<Vec<_>>(), &batch).unwrap();
        log.commit().unwrap();
        drop(log);
        let record = store.intermediate(&key.intermediate("t")).unwrap();
        let (first, second) = (8_192, n as usize - 8_192);
        let column = |column, held, opens, rows| ColumnWork { column, held, opens, rows };
        let work = store.whole_table_work(&record).unwrap();
        assert_eq!((work.places, work.n_blocks), (4, 2));
        assert_eq!(work.columns, [column(0, 0, 2, n as usize), column(1, 0, 2, n as usize)]);
        assert_eq!(work, store.table_work_if_stored(&record, n as usize, &[0, 1], false).unwrap());
        // The first RowBlock is read: its numbers are held, its words are not, whose dictionary is in the chunk alone.
        let plan = store.plan_rows(&record, &Rows::Range(0..5)).unwrap();
        store.read_table(&record, &plan, &[0, 1]).unwrap();
        let work = store.whole_table_work(&record).unwrap();
        assert_eq!(work.columns, [column(0, 1, 1, second), column(1, 0, 2, n as usize)]);
        assert_eq!((work.places, work.held(), work.fresh()), (2, 1, 3));
        let few = store.table_work(&plan, &[0, 1]);
        assert_eq!(few.columns, [column(0, 1, 0, 0), column(1, 0, 1, first)]);
        assert_eq!((few.places, few.n_rows), (0, 5));
        // Less work takes less time.
        let seconds = |work: &TableWork| store.table_estimate(&record, work).unwrap().seconds;
        assert!(seconds(&few) < seconds(&work));
    }

    #[test]
    fn a_table_by_hand() {
        let threads = rayon::current_num_threads() as f64;
        let column = |held, opens, rows| ColumnWork { column: 0, held, opens, rows };
        // Two RowBlocks of 8,192 and 1,808 rows; the second column has its first chunk in memory; 100 rows are wanted.
        let work = TableWork {
            n_blocks: 2,
            n_rows: 100,
            scattered: false,
            places: 3,
            columns: vec![column(0, 2, 10_000), column(1, 1, 1_808)],
        };
        assert_eq!((work.held(), work.fresh(), work.bytes()), (1, 3, 11_808.0 * 8.0));
        let mut rates = TableRates {
            start: sure(50e-6),
            place: sure(5e-6),
            open: sure(10e-6),
            held: sure(1e-6),
            column: sure(2e-6),
            ..TableRates::default()
        };
        rates.classes[3] = (sure(4e-9), sure(1e-9));
        rates.classes[4] = (sure(9.0), sure(9.0));
        let mut classes = [(0, 0); CLASSES.len()];
        classes[3] = (2, 11_808);
        let chunks = 3.0 * 10e-6 + 1e-6 + 11_808.0 * 4e-9;
        let columns = 2.0 * 2e-6 + 200.0 * 1e-9;
        let expected = 50e-6 + 15e-6 + chunks / threads.min(4.0) + columns / threads.min(2.0);
        let found = table_seconds(&work, &classes, &rates).seconds;
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}
