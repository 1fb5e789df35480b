//! ReadCSV: a CSV file with a header line. Its rows are numbered by their position in the file: that is their row_id.
//!
//! Parameters: `file`, found by `--data`; `types`, such as `{parcelid: int64, hashottuborspa: boolean}`, for columns whose
//! type is not the first of int64, float64, boolean, date (`2016-01-31`) that fits all values, else text; `columns`, to
//! keep only some. An empty field is null, and in a file of one column a blank line before the last value is.

use mistique_datasets::CsvFile;

use super::read::{Format, Reading};
use crate::pipeline::error::PipelineError;
use crate::pipeline::opened::Opened;
use crate::pipeline::operator::{Operator, OperatorKind};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind = OperatorKind { name: "ReadCSV", version: 3, inputs: &[], fit: None, parse };

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(Reading::parse(
        params,
        Format { name: "CSV", open: |path, types| Ok(Opened::Csv(CsvFile::open(path, types)?)) },
    )?))
}
