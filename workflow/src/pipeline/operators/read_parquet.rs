//! ReadParquet: a Parquet file. Its rows are numbered by their position in the file: that is their row_id.
//!
//! Parameters: `file`, found by `--data`; `types`, such as `{parcelid: int64}`, to which columns are converted;
//! `columns`, to keep only some.

use mistique_datasets::{TableFile, read_parquet};

use super::read::{Reading, adapt};
use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind = OperatorKind { name: "ReadParquet", version: 1, inputs: &[], fit: false, parse };

#[derive(Debug)]
struct ReadParquet(Reading);

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(ReadParquet(Reading::parse(params, "name of a Parquet file")?)))
}

impl ReadParquet {
    fn read(&self, data: &Data) -> Result<Table, OperatorError> {
        data.parsed(&self.0.file, &format!("{self:?}"), || {
            let batch = match data.file(&self.0.file)? {
                TableFile::Path(path) => read_parquet(path)?,
                TableFile::Generated(generated) => generated.make()?,
            };
            adapt(&self.0, batch)
        })
    }
}

impl Operator for ReadParquet {
    fn check(&self, _: &[Given], data: &Data) -> Result<Checked, OperatorError> {
        Ok(Checked::table(Columns::of(&self.read(data)?.schema())))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        Ok(Outcome::table(self.read(inputs.data)?))
    }

    fn file(&self) -> Option<&str> {
        Some(&self.0.file)
    }
}
