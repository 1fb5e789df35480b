//! `global_pool`: one value per channel, the mean or the maximum of its map. The output is a vector of channels.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{Expected, Kind, Op, OpError, as_map, only};

pub(crate) const GLOBAL_POOL: Kind = Kind {
    name: "global_pool",
    version: 1,
    parse: |fields| Ok(Box::new(GlobalPool { mode: fields.choice("mode", &["avg", "max"])? })),
};

#[derive(Debug)]
struct GlobalPool {
    mode: &'static str,
}

impl Op for GlobalPool {
    fn kind(&self) -> &'static str {
        GLOBAL_POOL.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("mode", json!(self.mode))])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let [channels, _, _] = as_map(&inputs.concat())?;
        Ok(vec![channels])
    }

    fn forward(&self, inputs: &[&Tensor], _params: &[Tensor]) -> Result<Tensor, OpError> {
        let cells = only(inputs)?.flatten_from(2)?;
        Ok(if self.mode == "max" { cells.max(2)? } else { cells.mean(2)? })
    }
}
