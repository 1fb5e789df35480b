//! ReadParquet: a Parquet file. Its rows are numbered by their position in the file: that is their row_id.
//!
//! Parameters: `file`, found by `--data`; `types`, such as `{parcelid: int64}`, to which columns are converted (a value that
//! the type does not hold, as 1.7 in int64, is refused); `columns`, to keep only some.

use mistique_datasets::read_parquet;

use super::read::{Format, Reading};
use crate::pipeline::error::PipelineError;
use crate::pipeline::opened::Opened;
use crate::pipeline::operator::{Operator, OperatorKind};
use crate::pipeline::params::Params;

pub(crate) const KIND: OperatorKind = OperatorKind { name: "ReadParquet", version: 2, inputs: &[], fit: None, parse };

fn parse(params: &mut Params) -> Result<Box<dyn Operator>, PipelineError> {
    Ok(Box::new(Reading::parse(
        params,
        Format { name: "Parquet", open: |path, _| Ok(Opened::Read(read_parquet(path)?)) },
    )?))
}
