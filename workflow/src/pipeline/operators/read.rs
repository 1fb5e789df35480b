//! What ReadCSV and ReadParquet share: their parameters, and the table made of what was read.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use crate::pipeline::columns::{TYPES, type_name, type_of_name};
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

/// Parameters of an operator that reads a file.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) file: String,
    pub(super) types: Vec<(String, DataType)>,
    pub(super) columns: Option<Vec<String>>,
}

impl Reading {
    pub(super) fn parse(params: &mut Params, what: &str) -> Result<Self, PipelineError> {
        let file = params.text("file", what)?;
        let named = params.texts_by_name("types")?;
        let types: Option<Vec<(String, DataType)>> =
            named.iter().map(|(name, t)| Some((name.clone(), type_of_name(t)?))).collect();
        let known: Vec<&str> = TYPES.iter().map(type_name).collect();
        let types = types.ok_or_else(|| params.unfit("types", format!("types among {}", known.join(", "))))?;
        Ok(Self { file, types, columns: params.texts_opt("columns")? })
    }
}

/// The table of what was read: rows by position, columns converted and chosen as asked.
pub(super) fn adapt(reading: &Reading, batch: RecordBatch) -> Result<Table, OperatorError> {
    let rows = Arc::new((0..batch.num_rows() as u64).collect());
    let mut table = Table::new(rows, batch)?;
    for (name, wanted) in &reading.types {
        let column = table.column("types", name)?;
        if column.data_type() != wanted {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let column: ArrayRef = cast_with_options(column, wanted, &options).map_err(|e| OperatorError::Param {
                param: "types",
                why: format!("column {name} cannot become {}: {e}", type_name(wanted)),
            })?;
            table = table.with_columns(vec![(name.clone(), column)])?;
        }
    }
    match &reading.columns {
        None => Ok(table),
        Some(columns) => table.select("columns", columns),
    }
}
