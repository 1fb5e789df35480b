//! Columns shown beside rows: predictions and labels of neighbours and examples.

use std::collections::HashMap;

use serde_json::Value;

use crate::cli::Result;
use crate::operands::Wanted;
use crate::{ChunkReader, Demand, IntermediateKey};

/// Values of some operands for some rows.
pub struct Beside {
    names: Vec<String>,
    values: HashMap<u64, Vec<Option<String>>>,
}

impl Beside {
    /// Reads operands, relative to the model of `near`, for `rows`; a tensor of several columns shows its largest.
    pub fn open(
        reader: &ChunkReader<'_>,
        near: Option<&IntermediateKey>,
        operands: &[String],
        rows: &[u64],
        demand: Demand,
    ) -> Result<Self> {
        let near = near.map(|near| reader.store().intermediate(near)).transpose()?;
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup();
        let mut values: HashMap<u64, Vec<Option<String>>> = HashMap::new();
        for operand in operands {
            let found = reader.operand(near.as_ref(), operand, Wanted::Name)?.argmax_of_many(reader)?;
            let scan = reader.operand_scan(&found, demand)?;
            let mut texts = scan.texts(&rows)?.into_iter();
            for row in &rows {
                values.entry(*row).or_default().push(texts.next().flatten());
            }
        }
        Ok(Self { names: operands.to_vec(), values })
    }

    /// Titles with those of the operands behind.
    pub fn titles(&self, titles: &[&str]) -> Vec<String> {
        titles.iter().map(ToString::to_string).chain(self.names.iter().map(|n| format!(">{n}"))).collect()
    }

    /// Cells with those of a row behind.
    pub fn cells(&self, row: u64, mut cells: Vec<String>) -> Vec<String> {
        let values = self.values.get(&row).into_iter().flatten();
        cells.extend(values.map(|v| v.clone().unwrap_or_else(|| "-".into())));
        cells
    }

    /// An object with a row's values added.
    pub fn json(&self, row: u64, mut object: Value) -> Value {
        if let Some(map) = object.as_object_mut() {
            for (name, value) in self.names.iter().zip(self.values.get(&row).into_iter().flatten()) {
                map.insert(name.clone(), value.clone().map_or(Value::Null, Value::String));
            }
        }
        object
    }
}
