//! `embedding`: a row of the table for each id. Ids are whole numbers, held as f32 like every input.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use super::{Expected, Init, Kind, Op, OpError, ParamSpec, nth, only};

pub(crate) const EMBEDDING: Kind = Kind {
    name: "embedding",
    version: 1,
    parse: |fields| Ok(Box::new(Embedding { vocab: fields.size("vocab")?, dim: fields.size("dim")? })),
};

#[derive(Debug)]
struct Embedding {
    vocab: usize,
    dim: usize,
}

impl Op for Embedding {
    fn kind(&self) -> &'static str {
        EMBEDDING.name
    }

    fn settings(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("vocab", json!(self.vocab)), ("dim", json!(self.dim))])
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Expected> {
        let mut shape = inputs.concat();
        if shape.len() > 3 {
            return Expected::err("ids in at most three axes");
        }
        shape.push(self.dim);
        Ok(shape)
    }

    fn params(&self, _inputs: &[&[usize]]) -> Vec<ParamSpec> {
        vec![ParamSpec::trained("weight", vec![self.vocab, self.dim], Init::Uniform(1.0))]
    }

    fn forward(&self, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, OpError> {
        let x = only(inputs)?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let row_len = (values.len() / x.dim(0)?.max(1)).max(1);
        let valid = |id: f32| id >= 0.0 && id.fract() == 0.0 && (id as usize) < self.vocab;
        if let Some(i) = values.iter().position(|&id| !valid(id)) {
            return Err(OpError::BadId { row: i / row_len, found: values[i], vocab: self.vocab });
        }
        let ids = x.flatten_all()?.to_dtype(DType::U32)?;
        let mut shape = x.dims().to_vec();
        shape.push(self.dim);
        Ok(nth(params, 0)?.index_select(&ids, 0)?.reshape(shape)?)
    }
}
