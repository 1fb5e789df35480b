//! TrainTestSplit: the rows of a table in two tables, `train` and `test`. A row's side depends on its row_id and the seed
//! alone, so that it stays where it is when rows are added.
//!
//! Parameters: `test`, the share of rows that go to `test` (default 0.2); `seed` (default 0).

use arrow::array::BooleanArray;
use arrow::compute::not;
use twox_hash::XxHash3_64;

use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome, Slot};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind =
    OperatorKind { name: "TrainTestSplit", version: 1, inputs: &[Slot::Table], fit: None, parse };

#[derive(Debug)]
struct TrainTestSplit {
    test: f64,
    seed: u64,
}

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    let test = params.number_or("test", 0.2, "a share between 0 and 1", |v| v > 0.0 && v < 1.0)?;
    Ok(Box::new(TrainTestSplit { test, seed: params.whole_or("seed", 0, 0..=u64::MAX)? }))
}

impl Operator for TrainTestSplit {
    fn check(&self, inputs: &[Given], _: &Data) -> Result<Checked, OperatorError> {
        let [given] = inputs else { return Ok(Checked::default()) };
        let columns = given.table()?;
        Ok(Checked { tables: vec![("train", columns.clone()), ("test", columns.clone())], ..Checked::default() })
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        let table = inputs.table(0)?;
        let limit = (self.test * 2f64.powi(64)) as u64;
        let test = |row: &u64| Some(XxHash3_64::oneshot_with_seed(self.seed, &row.to_le_bytes()) < limit);
        let test: BooleanArray = table.rows().iter().map(test).collect();
        Ok(Outcome { tables: vec![table.filter(&not(&test)?)?, table.filter(&test)?], ..Outcome::default() })
    }
}
