//! Reading tables.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use rayon::prelude::*;

use super::Store;
use crate::catalog::Block;
use crate::chunk::{ChunkCodes, ChunkShape, ChunkView};
use crate::column;
use crate::error::{EngineError, Result};
use crate::model::{Content, IntermediateRecord, TableContent};
use crate::read::Chunks;
use crate::read_cost::TableMeter;
use crate::row_plan::RowPlan;

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
        let Content::Table(table) = &*record.content else {
            return Err(EngineError::Unsupported {
                what: record.key.to_string(),
                why: "it is a tensor, not a table".into(),
            });
        };
        let groups = columns.iter().copied().collect();
        self.check_materialized(record, plan, &groups)?;
        self.load_places(&plan.blocks, &groups)?;
        let fields = table.schema.fields();
        let field = |c: &usize| {
            let missing = || EngineError::NotFound { what: "column", name: c.to_string(), nearest: vec![] };
            fields.get(*c).map(Arc::clone).ok_or_else(missing)
        };
        let chosen: Vec<FieldRef> = columns.iter().map(field).collect::<Result<_>>()?;
        let row_bytes: usize = chosen.iter().map(|f| column::code_of(f.data_type()).map_or(0, |c| c.width() + 1)).sum();
        let held = self.pool.admits(plan.blocks.iter().map(|b| b.rows.len()).sum::<usize>() * row_bytes);
        let (begun, meter) = (Instant::now(), TableMeter::default());
        let read = |&c: &usize| self.table_column(table, plan, c, held, &meter);
        let arrays: Vec<ArrayRef> = columns.par_iter().map(read).collect::<Result<_>>()?;
        self.keep_table_read(table, columns, plan.is_scattered(), &meter, begun.elapsed().as_secs_f64());
        let options = RecordBatchOptions::new().with_row_count(Some(plan.n_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(chosen)), arrays, &options)?)
    }

    /// A column of the planned rows: one task a chunk, copied to where the answer has its rows.
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
        let parts: Vec<Option<Part>> = plan.blocks.par_iter().zip(needed).map(read).collect::<Result<_>>()?;
        if plan.n_rows() == 0 {
            return Ok(column::empty(data_type));
        }
        let begun = Instant::now();
        let runs = plan.runs().filter_map(|(block, position, _, len)| {
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
        let words = match view.dictionary() {
            None => None,
            Some(d) => Some(column::read_dictionary(d).ok_or_else(|| view.corrupt(0, "its dictionary is damaged"))?),
        };
        let content = Arc::new(self.decode(&view, place)?);
        if held && !text {
            self.pool.put_whole(chunk, Arc::clone(&content));
        }
        meter.chunks.of_type(data_type).add(1, begun);
        Ok(Part { content, words })
    }
}
