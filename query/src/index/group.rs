//! A group of units of one layer, as columns of requests and of indexes.

use mistique_engine::{
    ByExampleOf, Code, IndexValues, IntermediateKey, IntermediateRecord, Key, MapValue, RowSet, Rows, TensorLayout,
};

use crate::answer::Source;
use crate::columns::{self, Columns, TensorColumns};
use crate::error::{QueryError, Result};
use crate::plan::PlanChoice;
use crate::reader::{ChunkReader, Request};
use crate::rows::RowSelection;

/// A layer, and which of its values a question or an index is about.
pub(super) struct Layer {
    pub record: IntermediateRecord,
    /// Division of a row, at the resolution of the values.
    pub layout: TensorLayout,
    /// Which values it is about.
    pub of: ByExampleOf,
    plan: PlanChoice,
    /// The rows there are.
    pub rows: RowSet,
    /// Whether values that are fetched again can differ in their last bits.
    pub reruns: bool,
    /// Whether they are float64 or integers, which float32, and so an index, would round.
    pub is_wide: bool,
}

impl Layer {
    /// The layer of a key. Values are those stored unless none are, or `exact` or `plan` ask for the model's own; these are
    /// pooled as the stored ones are, unless `exact` asks for the resolution of the layer.
    pub fn new(
        reader: &ChunkReader<'_>,
        key: &IntermediateKey,
        by: MapValue,
        exact: bool,
        plan: PlanChoice,
    ) -> Result<Self> {
        let record = reader.store().intermediate(key)?;
        let content = record.tensor()?.clone();
        let lossless = content.scheme.is_lossless_for(content.dtype);
        let whole = Request::new(Key { intermediate: record.key.clone(), columns: None });
        let readable = record.n_rows > 0 && reader.explain(&whole.with_plan(PlanChoice::READ)).is_ok();
        let own = exact || lossless || !readable || plan == PlanChoice::RERUN;
        let pools = content.layout.stored != content.layout.map;
        let values = match (own, exact || !pools) {
            (false, _) => IndexValues::Stored,
            (true, false) => IndexValues::Pooled,
            (true, true) => IndexValues::Exact,
        };
        let layout = if values == IndexValues::Exact { content.layout.unpooled() } else { content.layout };
        let rows = if record.n_rows > 0 {
            reader.store().plan_rows(&record, &Rows::All)?.rows
        } else {
            let model = reader.store().catalog().model_by_id(record.model_id)?;
            RowSet::Range(0..model.spec.dataset.map_or(0, |d| d.n_rows))
        };
        // A map of one cell has one activation however it is taken.
        let by = if layout.stored.cells() == 1 { MapValue::Max } else { by };
        let plan = match values {
            IndexValues::Stored => PlanChoice::READ,
            // Rows that are stored are not mixed with those that are run: their values are rounded.
            IndexValues::Pooled if plan == PlanChoice::Auto && record.n_rows > 0 => PlanChoice::RERUN,
            _ => plan,
        };
        let reruns = own && !(lossless && readable && plan != PlanChoice::RERUN);
        let of = ByExampleOf { by, values };
        let code = if values == IndexValues::Stored { content.layout.code } else { content.dtype };
        let is_wide = matches!(code, Code::F64 | Code::Int(_));
        Ok(Self { record, layout, of, plan, rows, reruns, is_wide })
    }

    /// Columns of an index of the whole layer.
    pub fn n_columns(&self) -> usize {
        if self.of.by == MapValue::Cells { self.layout.stored_values() } else { self.layout.n_units }
    }

    /// Bytes of the layer in float32, as it was logged.
    pub fn full_bytes(&self) -> f64 {
        (self.layout.row_values() * self.rows.len() * 4) as f64
    }

    /// A request for `columns` (a selector) of `rows`.
    pub fn request(&self, columns: &str, rows: RowSelection) -> Request {
        let columns = Some((columns.to_string(), false));
        let key = Key { intermediate: self.record.key.clone(), columns };
        Request::new(key).with_rows(rows).with_plan(self.plan).with_exact(self.of.values == IndexValues::Exact)
    }

    /// Activations of `columns` for `rows`: one row after another.
    pub fn activations(&self, reader: &ChunkReader<'_>, columns: &str, rows: &[u64]) -> Result<(Vec<f64>, Source)> {
        if !self.is_wide {
            let (values, source) = self.fetch(reader, columns, rows)?;
            return Ok((values.into_iter().map(f64::from).collect(), source));
        }
        let answer = reader.get(&self.request(columns, RowSelection::List(rows.to_vec())))?;
        let source = answer.source.clone();
        let mut out = Vec::new();
        self.of.by.reduce(&answer.to_f64()?, self.layout.stored.cells(), |v| v, &mut out);
        Ok((out, source))
    }

    /// The same in float32, as indexes have them.
    pub fn fetch(&self, reader: &ChunkReader<'_>, columns: &str, rows: &[u64]) -> Result<(Vec<f32>, Source)> {
        let answer = reader.get(&self.request(columns, RowSelection::List(rows.to_vec())))?;
        let source = answer.source.clone();
        let values = answer.into_f32()?;
        Ok((self.reduce(&values), source))
    }

    fn reduce(&self, values: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.of.by.reduce(values, self.layout.stored.cells(), |v| v as f32, &mut out);
        out
    }
}

/// Some units, or cells, of a layer.
pub(super) struct Group {
    /// As a column selector.
    pub selector: String,
    /// Columns of an index of the whole layer.
    pub columns: Vec<usize>,
}

impl Group {
    /// The group that `units` (`3,17`, `0..8`, `3[4,7]`) names.
    ///
    /// Errors: `Columns`.
    pub fn new(layer: &Layer, units: &str) -> Result<Self> {
        let named = |item: &str| if item.starts_with(['u', '*']) { item.to_string() } else { format!("u{item}") };
        let items: Vec<String> = columns::split_items(units).into_iter().map(|i| named(i.trim())).collect();
        let selector = items.join(",");
        let Columns::Tensor(columns) = columns::resolve(&layer.record, Some((&selector, false)))? else {
            return Err(refuse(layer, units, "it is a table; name a layer"));
        };
        let column = |c: &TensorColumns| match (c.cell, layer.of.by) {
            (Some(_), by) if by != MapValue::Cells => Err(refuse(layer, units, "a cell is one of --by cells")),
            (_, MapValue::Cells) => Ok(c.stored(&layer.layout)),
            _ => Ok(c.units.clone()),
        };
        let columns: Vec<usize> =
            columns.iter().map(column).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Self { selector, columns })
    }

    /// Names of its columns.
    pub fn names(&self, layer: &Layer) -> Vec<String> {
        let cells = layer.layout.stored.cells();
        let name = |c: &usize| match layer.of.by {
            MapValue::Cells => {
                format!("u{}{}", c / cells, columns::cell_name(&layer.layout, c % cells))
            }
            _ => format!("u{c}"),
        };
        self.columns.iter().map(name).collect()
    }
}

fn refuse(layer: &Layer, given: &str, why: &str) -> QueryError {
    QueryError::Columns { key: layer.record.key.to_string(), given: given.to_string(), why: why.to_string() }
}
