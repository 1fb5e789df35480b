//! Reading tables.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use rayon::prelude::*;

use super::{Store, chunks_of};
use crate::catalog::{Block, WITHHELD};
use crate::chunk::{ChunkCodes, ChunkShape, ChunkView};
use crate::column;
use crate::error::{EngineError, Result};
use crate::model::{IntermediateRecord, TableContent};
use crate::read::Chunks;
use crate::row_plan::RowPlan;
use crate::table_cost::{TableMeter, is_wide};

/// A chunk of a table's column, decoded.
struct Part {
    content: Arc<ChunkCodes>,
    words: Option<column::Words>,
}

impl Store {
    /// Columns of a table, in the order of `columns` and of the plan.
    ///
    /// Errors: `Corrupt`, `Io`, `Arrow`.
    pub fn read_table(&self, record: &IntermediateRecord, plan: &RowPlan, columns: &[usize]) -> Result<RecordBatch> {
        self.refresh()?;
        let begun = Instant::now();
        let table = record.table()?;
        let groups = columns.iter().copied().collect();
        self.check_materialized(record, plan, &groups)?;
        let looking = Instant::now();
        let fresh = self.pool.lacks_whole(chunks_of(&plan.blocks, &groups));
        let places = (self.load_places(fresh.into_iter())?, looking.elapsed().as_secs_f64());
        let fields = table.schema.fields();
        let field = |c: &usize| {
            let missing = || EngineError::NotFound { what: "column", name: c.to_string(), nearest: vec![] };
            fields.get(*c).map(Arc::clone).ok_or_else(missing)
        };
        let chosen: Vec<FieldRef> = columns.iter().map(field).collect::<Result<_>>()?;
        let block_rows: usize = plan.blocks.iter().map(|b| b.rows.len()).sum();
        let held = self.pool.admits(block_rows * table.held_row_bytes(columns));
        let meter = TableMeter {
            n_rows: plan.n_rows(),
            n_blocks: plan.blocks.len(),
            n_columns: columns.len(),
            scattered: plan.is_scattered(),
            places,
            ..TableMeter::default()
        };
        let read = |&c: &usize| self.table_column(table, plan, c, held, &meter);
        // Waking a thread takes longer than a small task does.
        let arrays: Vec<ArrayRef> = match columns {
            [one] => vec![read(one)?],
            _ => columns.par_iter().map(read).collect::<Result<_>>()?,
        };
        self.keep_table_read(record, &meter, begun);
        let options = RecordBatchOptions::new().with_row_count(Some(plan.n_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(chosen)), arrays, &options)?)
    }

    /// Decodes columns of the planned rows and holds them in memory, as far as a read would.
    ///
    /// Errors: as [`Store::read_table`].
    pub(crate) fn hold_table(&self, record: &IntermediateRecord, plan: &RowPlan, columns: &[usize]) -> Result<()> {
        self.refresh()?;
        let table = record.table()?;
        let block_rows: usize = plan.blocks.iter().map(|b| b.rows.len()).sum();
        if !self.pool.admits(block_rows * table.held_row_bytes(columns)) {
            return Ok(());
        }
        for (block, column) in plan.blocks.iter().flat_map(|b| columns.iter().map(move |c| (b, *c))) {
            let (Some(chunk), Some(field)) = (block.chunks.get(column), table.schema.fields().get(column)) else {
                continue;
            };
            if *chunk != WITHHELD {
                self.column_chunk(*chunk, field.data_type(), block.rows.len(), true, &TableMeter::default())?;
            }
        }
        Ok(())
    }

    /// A column of the planned rows, put together from its chunks: one task each, where the columns do not keep all threads
    /// busy.
    fn table_column(
        &self,
        table: &TableContent,
        plan: &RowPlan,
        column_index: usize,
        held: bool,
        meter: &TableMeter,
    ) -> Result<ArrayRef> {
        let data_type = table.schema.field(column_index).data_type();
        let mut needed = vec![false; plan.blocks.len()];
        for (block, ..) in plan.runs() {
            if let Some(needed) = needed.get_mut(block) {
                *needed = true;
            }
        }
        let read = |(block, needed): (&Block, bool)| -> Result<Option<Part>> {
            let chunk = block.chunks.get(column_index).copied();
            let chunk = chunk.ok_or_else(|| EngineError::corrupt("catalog.db", 0, "a RowBlock lacks a chunk"))?;
            needed.then(|| self.column_chunk(chunk, data_type, block.rows.len(), held, meter)).transpose()
        };
        let parts: Vec<Option<Part>> = if plan.blocks.len() == 1 || is_wide(meter.n_columns) {
            plan.blocks.iter().zip(needed).map(read).collect::<Result<_>>()?
        } else {
            plan.blocks.par_iter().zip(needed).map(read).collect::<Result<_>>()?
        };
        if plan.n_rows() == 0 {
            return Ok(column::empty(data_type));
        }
        let begun = Instant::now();
        let parts = &parts;
        let runs = plan.runs().filter_map(move |(block, position, _, len)| {
            let part = parts.get(block).and_then(Option::as_ref)?;
            Some(column::Run { content: &part.content, words: part.words.as_ref(), position, len })
        });
        let gathered = column::gather(data_type, plan.n_rows(), runs);
        meter.gathers.of_type(data_type).add(plan.n_rows(), begun);
        gathered.map_err(|why| EngineError::corrupt("partitions", 0, why))
    }

    fn column_chunk(
        &self,
        chunk: i64,
        data_type: &DataType,
        n_rows: usize,
        held: bool,
        meter: &TableMeter,
    ) -> Result<Part> {
        let begun = Instant::now();
        let text = *data_type == DataType::Utf8;
        let expected = |shape: &ChunkShape| {
            (shape.n_rows, shape.n_cols, Some(shape.code)) == (n_rows, 1, column::code_of(data_type))
        };
        // A dictionary is in the chunk alone.
        if let Some(content) = (held && !text).then(|| self.pool.get_whole(chunk)).flatten()
            && expected(&content.shape)
        {
            meter.held.add(1, begun);
            return Ok(Part { content, words: None });
        }
        let (partition, place) = self.place(chunk)?;
        let bytes = partition.chunk(place)?;
        let view = ChunkView::parse(&bytes, partition.path(), place.offset)?;
        if !expected(&view.shape()) {
            return Err(view.corrupt(0, "the chunk has another shape than the catalogue says"));
        }
        meter.opens.add(1, begun);
        let begun = Instant::now();
        let words = match view.dictionary() {
            None => None,
            Some(d) => Some(column::read_dictionary(d).ok_or_else(|| view.corrupt(0, "its dictionary is damaged"))?),
        };
        let content = Arc::new(self.decode(&view, place)?);
        if held && !text {
            self.pool.put_whole(chunk, Arc::clone(&content));
        }
        meter.rows.of_type(data_type).add(n_rows, begun);
        Ok(Part { content, words })
    }
}
