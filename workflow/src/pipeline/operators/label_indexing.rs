//! LabelIndexing: each column's values replaced by their index among the column's categories in ascending order, as int64.
//! A missing value stays null, and so becomes a category that was not there when it was learnt.
//!
//! Parameters: `columns`. What was learnt can be applied to another table by `fit`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::category::Category;
use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::learnt;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "LabelIndexing", version: 1, inputs: &[Slot::Table], fit: Some(&[]), parse };

#[derive(Debug)]
struct LabelIndexing {
    columns: Vec<String>,
}

/// Categories of a column, in ascending order.
#[derive(Debug, Serialize, Deserialize)]
struct Indexed {
    column: String,
    categories: Vec<Category>,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(LabelIndexing { columns: params.texts("columns", "names of columns")? }))
}

impl Operator for LabelIndexing {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let needs = self.columns.iter().map(|n| Ok((n.clone(), columns.get("columns", n)?)));
        let needs = Columns::new(needs.collect::<Result<_, OperatorError>>()?);
        self.columns.iter().for_each(|name| columns.set(name, DataType::Int64));
        Ok(Checked::table(columns).learning(needs))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let table = inputs.table(0)?;
        let mut indexed = Vec::new();
        for name in &self.columns {
            let categories: BTreeSet<Category> =
                Category::of(table.column("columns", name)?)?.into_iter().flatten().collect();
            indexed.push(Indexed { column: name.clone(), categories: categories.into_iter().collect() });
        }
        learnt::write(&indexed)
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let indexed: Vec<Indexed> = learnt::read(KIND.name, inputs.own(KIND.name)?)?;
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for Indexed { column: name, categories } in &indexed {
            let place: HashMap<&Category, i64> = categories.iter().zip(0..).collect();
            let index = Category::of(table.column("fit", name)?)?;
            let index: Int64Array = index.iter().map(|c| c.as_ref().and_then(|c| place.get(c).copied())).collect();
            columns.push((name.clone(), Arc::new(index)));
        }
        Ok(Outcome::table(table.with_columns(columns)?))
    }
}
