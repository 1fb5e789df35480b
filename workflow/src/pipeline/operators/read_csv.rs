//! ReadCSV: a CSV file with a header line. Its rows are numbered by their position in the file: that is their row_id.
//!
//! Parameters: `file`, found by `--data`; `types`, such as `{parcelid: int64, hashottuborspa: boolean}`, for columns whose
//! type is not the first of int64, float64, boolean, date (`2016-01-31`) that fits all values, else text; `columns`, to
//! keep only some. An empty field is null.

use mistique_datasets::{TableFile, read_csv_as};

use super::read::{Reading, adapt};
use crate::pipeline::columns::Columns;
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, OperatorKind, Outcome};
use crate::pipeline::params::Params;
use crate::pipeline::table::Table;

pub(crate) const KIND: OperatorKind = OperatorKind { name: "ReadCSV", version: 1, inputs: &[], fit: false, parse };

#[derive(Debug)]
struct ReadCsv(Reading);

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(ReadCsv(Reading::parse(params, "name of a CSV file")?)))
}

impl ReadCsv {
    fn read(&self, data: &Data) -> Result<Table, OperatorError> {
        let Reading { file, types, .. } = &self.0;
        data.parsed(&self.0.file, &format!("{self:?}"), || {
            let batch = match data.file(file)? {
                TableFile::Path(path) => read_csv_as(path, types)?,
                TableFile::Generated(generated) => generated.make()?,
            };
            adapt(&self.0, batch)
        })
    }
}

impl Operator for ReadCsv {
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
