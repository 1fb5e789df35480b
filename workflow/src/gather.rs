//! Activations gathered while a network runs, from which by-example indexes are built when the log is done.

use std::collections::HashMap;

use candle_core::Tensor;
use mistique_engine::{
    ByExampleOf, ByExampleSize, IndexRecord, IndexValues, IntermediateRecord, MapValue, RowSet, Store, by_example_index,
};

use crate::log::WorkflowError;

/// Bytes of a layer that an index may take, as a share of its float32 bytes.
const INDEX_SHARE: f64 = 0.2;

struct Gathered {
    name: String,
    n_units: usize,
    cells: usize,
    rows: Vec<u64>,
    values: Vec<f32>,
}

/// What was built of the activations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Indexed {
    /// The indexes.
    pub made: Vec<IndexRecord>,
    /// Layers without one, and why.
    pub left_out: Vec<(String, String)>,
}

/// The activations of some layers, by layer.
pub struct Gather {
    by: MapValue,
    layers: HashMap<usize, Gathered>,
}

impl Gather {
    /// Nothing of no layers.
    pub fn new(by: MapValue) -> Self {
        Self { by, layers: HashMap::new() }
    }

    /// A layer whose rows have `shape`.
    pub fn add(&mut self, layer: usize, name: &str, shape: &[usize]) {
        let n_units = shape.first().copied().unwrap_or(1);
        let cells = shape.iter().skip(1).product();
        let (name, rows, values) = (name.to_string(), Vec::new(), Vec::new());
        self.layers.insert(layer, Gathered { name, n_units, cells, rows, values });
    }

    /// Takes the activations of a batch.
    ///
    /// Errors: candle's.
    pub fn take(&mut self, layer: usize, rows: &[u64], output: &Tensor) -> candle_core::Result<()> {
        let Some(gathered) = self.layers.get_mut(&layer) else { return Ok(()) };
        let values = output.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        self.by.reduce(&values, gathered.cells, |v| v as f32, &mut gathered.values);
        gathered.rows.extend_from_slice(rows);
        Ok(())
    }

    /// Builds and keeps the indexes of `records`, the layers as they were logged. Layers of which some rows were logged
    /// before this run, or that are too small, get none.
    ///
    /// Errors: `Engine`.
    pub fn finish(self, store: &Store, records: &[IntermediateRecord]) -> Result<Indexed, WorkflowError> {
        let (mut made, mut left_out) = (Vec::new(), Vec::new());
        let mut layers: Vec<(usize, Gathered)> = self.layers.into_iter().collect();
        layers.sort_unstable_by_key(|(layer, _)| *layer);
        for (_, layer) in layers {
            let Some(record) = records.iter().find(|r| r.key.intermediate == layer.name) else { continue };
            let n_rows = layer.rows.len();
            if (n_rows as u64) < record.n_rows {
                let why = format!("{} of its rows were logged before this run", record.n_rows - n_rows as u64);
                left_out.push((layer.name, why));
                continue;
            }
            let by = if layer.cells == 1 { MapValue::Max } else { self.by };
            let n_columns = if by == MapValue::Cells { layer.n_units * layer.cells } else { layer.n_units };
            let budget = INDEX_SHARE * (n_rows * layer.n_units * layer.cells * 4) as f64;
            if !ByExampleSize::has_room(&RowSet::from_ids(&layer.rows), n_columns, budget) {
                left_out.push((layer.name, format!("{n_rows} rows are too few for an index")));
                continue;
            }
            let of = ByExampleOf { by, values: IndexValues::Exact };
            let size = ByExampleSize::within(&layer.rows, &layer.values, n_columns, budget);
            let index = by_example_index(&layer.rows, &layer.values, n_columns, size, of)?;
            made.push(store.put_index(record, &index)?);
        }
        Ok(Indexed { made, left_out })
    }
}
