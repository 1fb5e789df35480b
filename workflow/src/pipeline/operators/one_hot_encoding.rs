//! OneHotEncoding: each column replaced by one boolean column a category, called `column=category`, behind the others, in
//! ascending order of the categories. A missing value, and a category that was not there when it was learnt, is false in
//! all.
//!
//! Parameters: `columns`; `max_categories`, to keep only the most frequent ones of each column (default: all, at most
//! 4,096). What was learnt can be applied to another table by `fit`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::category::Category;
use crate::pipeline::columns::{Columns, type_name};
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::learnt;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "OneHotEncoding", version: 1, inputs: &[Slot::Table], fit: Some(&[]), parse };

/// More columns than this come of a mistake.
const MAX_CATEGORIES: usize = 4096;

#[derive(Debug)]
struct OneHotEncoding {
    columns: Vec<String>,
    max_categories: Option<usize>,
}

/// Categories of a column, in ascending order.
#[derive(Debug, Serialize, Deserialize)]
struct Encoded {
    column: String,
    r#type: String,
    categories: Vec<Category>,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(OneHotEncoding {
        columns: params.texts("columns", "names of columns")?,
        max_categories: params.whole_opt("max_categories", 1..=MAX_CATEGORIES as u64)?.map(|n| n as usize),
    }))
}

impl Operator for OneHotEncoding {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let mut columns = given.table()?.clone();
        let needs = self.columns.iter().map(|n| Ok((n.clone(), columns.get("columns", n)?)));
        let needs = Columns::new(needs.collect::<Result<_, OperatorError>>()?);
        for name in &self.columns {
            columns.remove(name);
            columns.open_to(format!("{name}="), DataType::Boolean);
        }
        Ok(Checked::table(columns).learning(needs))
    }

    fn learn(&self, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let table = inputs.table(0)?;
        let mut encoded = Vec::new();
        for name in &self.columns {
            let column = table.column("columns", name)?;
            let mut counts: HashMap<Category, usize> = HashMap::new();
            Category::of(column)?.into_iter().flatten().for_each(|c| *counts.entry(c).or_default() += 1);
            let mut counts: Vec<(Category, usize)> = counts.into_iter().collect();
            if let Some(most) = self.max_categories {
                counts.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
                counts.truncate(most);
            } else if counts.len() > MAX_CATEGORIES {
                let why = format!(
                    "column {name} has {} categories; choose another column, or keep some by `max_categories`",
                    counts.len()
                );
                return Err(OperatorError::Columns { why });
            }
            let mut categories: Vec<Category> = counts.into_iter().map(|(c, _)| c).collect();
            categories.sort_unstable();
            encoded.push(Encoded { column: name.clone(), r#type: type_name(column.data_type()).into(), categories });
        }
        learnt::write(&encoded)
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let encoded: Vec<Encoded> = learnt::read(KIND.name, inputs.own(KIND.name)?)?;
        let mut columns = table.columns();
        columns.retain(|(n, _)| !encoded.iter().any(|e| e.column == *n));
        for Encoded { column: name, categories, .. } in &encoded {
            let column = table.column("fit", name)?;
            let place: HashMap<&Category, usize> = categories.iter().enumerate().map(|(i, c)| (c, i)).collect();
            let of_row: Vec<Option<usize>> =
                Category::of(column)?.iter().map(|c| c.as_ref().and_then(|c| place.get(c).copied())).collect();
            for (i, category) in categories.iter().enumerate() {
                let hot: BooleanArray = of_row.iter().map(|r| Some(*r == Some(i))).collect();
                columns.push((format!("{name}={}", category.name(column.data_type())), Arc::new(hot) as ArrayRef));
            }
        }
        Ok(Outcome::table(Table::of(Arc::clone(table.rows()), columns)?))
    }
}
