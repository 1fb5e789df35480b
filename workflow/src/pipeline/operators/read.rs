//! What ReadCSV and ReadParquet share: all but how the bytes of a file are read.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use mistique_datasets::{DatasetError, TableFile};

use super::convert::{Unfit, convert};
use crate::pipeline::columns::{Columns, TYPES, type_name, type_of_name};
use crate::pipeline::data::Data;
use crate::pipeline::error::{OperatorError, PipelineError};
use crate::pipeline::opened::Opened;
use crate::pipeline::operator::{Checked, Given, Inputs, Operator, Outcome, Parts};
use crate::pipeline::params::{Params, one_of};
use crate::pipeline::table::Table;
use crate::suggest::nearest;

/// Looks at the file at a path, its columns of the types that were asked for by name.
type OpenFile = fn(&Path, &[(String, DataType)]) -> Result<Opened, DatasetError>;

/// A format of files: its name, and how one is looked at.
pub(super) struct Format {
    pub(super) name: &'static str,
    pub(super) open: OpenFile,
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// An operator that reads a file.
#[derive(Debug)]
pub(super) struct Reading {
    format: Format,
    file: String,
    types: Vec<(String, DataType)>,
    columns: Option<Vec<String>>,
}

impl Reading {
    pub(super) fn parse(params: &mut Params, format: Format) -> Result<Self, PipelineError> {
        let file = params.text("file", &format!("name of a {} file", format.name))?;
        let named = params.texts_by_name("types")?;
        let typed = |(name, t): &(String, String)| match type_of_name(t) {
            Some(data_type) => Ok((name.clone(), data_type)),
            None => Err(params.unfit_entry("types", name, one_of("types among", t, &TYPES.map(|t| type_name(&t))))),
        };
        let types = named.iter().map(typed).collect::<Result<_, _>>()?;
        Ok(Self { format, file, types, columns: params.texts_opt("columns")? })
    }

    /// All that the file's values depend on.
    fn key(&self) -> String {
        format!("{self:?}")
    }

    fn open(&self, data: &Data) -> Result<Arc<Opened>, OperatorError> {
        data.opened(&self.file, &self.key(), || {
            Ok(match data.file(&self.file)? {
                TableFile::Path(path) => (self.format.open)(path.as_ref(), &self.types).map_err(of_types)?,
                TableFile::Generated(generated) => Opened::Read(generated.make()?),
            })
        })
    }

    fn read(&self, data: &Data) -> Result<Table, OperatorError> {
        data.parsed(&self.file, &self.key(), || {
            let opened = self.open(data)?;
            let mut whole = opened.held();
            opened.read(usize::MAX, &mut |batch| {
                whole = batch;
                Ok::<_, OperatorError>(())
            })?;
            adapt(self, 0, whole)
        })
    }
}

impl Operator for Reading {
    fn check(&self, _: &[Given], data: &Data) -> Result<Checked, OperatorError> {
        let schema = match data.held(&self.key()) {
            Some(table) => table.schema(),
            None => adapt(self, 0, self.open(data)?.held())?.schema(),
        };
        Ok(Checked::table(Columns::of(&schema)))
    }

    fn run(&self, inputs: &Inputs<'_>) -> Result<Outcome, OperatorError> {
        Ok(Outcome::table(self.read(inputs.data)?))
    }

    fn run_in_parts(&self, inputs: &Inputs<'_>, parts: &mut dyn Parts) -> Result<Outcome, OperatorError> {
        let opened = self.open(inputs.data)?;
        let mut first = 0;
        opened.read(parts.n_rows(), &mut |batch| {
            let part = adapt(self, first, batch)?;
            first += part.n_rows() as u64;
            parts.take(part)
        })?;
        // The file's bytes are not held beside its values.
        inputs.data.close(&self.key());
        drop(opened);
        Ok(Outcome::table(parts.whole()?))
    }

    fn file(&self) -> Option<&str> {
        Some(&self.file)
    }
}

/// A column of `types` that the file does not have is told as one of `columns` is: at its place, with the nearest name.
fn of_types(error: DatasetError) -> OperatorError {
    match error {
        DatasetError::NoSuchColumn { column, present, .. } => OperatorError::NoColumn {
            param: "types",
            nearest: nearest(&column, present.split(", ")),
            column,
            known: present,
        },
        other => other.into(),
    }
}

/// The columns that are kept or converted: the others may be of types that pipelines do not hold.
fn asked_for(reading: &Reading, batch: RecordBatch) -> Result<RecordBatch, OperatorError> {
    let Some(kept) = &reading.columns else { return Ok(batch) };
    let schema = batch.schema();
    // A name that is missing is told with all those that there are.
    let all = Columns::of(&schema);
    let typed = reading.types.iter().map(|(name, _)| ("types", name));
    let asked: Vec<(&'static str, &String)> = typed.chain(kept.iter().map(|name| ("columns", name))).collect();
    for &(param, name) in &asked {
        all.get(param, name)?;
    }
    let is_asked = |name: &String| asked.iter().any(|(_, n)| *n == name);
    let fields = schema.fields().iter().enumerate();
    let indices: Vec<usize> = fields.filter(|(_, f)| is_asked(f.name())).map(|(i, _)| i).collect();
    Ok(batch.project(&indices)?)
}

/// The table of what was read: rows by position, columns converted and chosen as asked.
fn adapt(reading: &Reading, first: u64, batch: RecordBatch) -> Result<Table, OperatorError> {
    let rows = Arc::new((first..first + batch.num_rows() as u64).collect());
    let mut table = Table::new(rows, asked_for(reading, batch)?)?;
    for (name, wanted) in &reading.types {
        let column = table.column("types", name)?;
        if column.data_type() != wanted {
            let column = convert(column, wanted).map_err(|unfit| match unfit {
                Unfit::Types(e) => OperatorError::Param {
                    param: "types",
                    why: format!("column {name} cannot become {}: {e}", type_name(wanted)),
                },
                Unfit::Value { at, found, expected } => OperatorError::Cell {
                    file: reading.file.clone(),
                    row: first + at as u64,
                    column: name.clone(),
                    found,
                    expected,
                },
            })?;
            table = table.with_columns(vec![(name.clone(), column)])?;
        }
    }
    match &reading.columns {
        None => Ok(table),
        Some(columns) => table.select("columns", columns),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray, TimestampSecondArray, UInt64Array};
    use arrow::datatypes::{Float32Type, Float64Type, Int64Type};

    use super::*;

    fn reading(columns: Option<&[&str]>) -> Reading {
        let format = Format { name: "Parquet", open: |p, _| Ok(Opened::Read(mistique_datasets::read_parquet(p)?)) };
        let columns = columns.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        Reading { format, file: "t.parquet".into(), types: Vec::new(), columns }
    }

    #[test]
    fn columns_that_are_left_out_may_be_of_any_type() {
        let k: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let at: ArrayRef = Arc::new(TimestampSecondArray::from(vec![3, 4]));
        let batch = RecordBatch::try_from_iter([("at", at), ("k", k)]).unwrap();
        let of = |columns: Option<&[&str]>| adapt(&reading(columns), 0, batch.clone());
        let table = of(Some(&["k"][..])).unwrap();
        assert_eq!((table.names(), table.n_rows()), (vec!["k".to_owned()], 2));
        for columns in [None, Some(&["k", "at"][..])] {
            let wrong = of(columns).unwrap_err().to_string();
            assert!(wrong.starts_with("column at is Timestamp"), "{wrong}");
        }
        let wrong = of(Some(&["kk"][..])).unwrap_err().to_string();
        assert!(wrong.contains("no column kk") && wrong.contains("the columns are at, k"), "{wrong}");
    }

    /// The column x of these values, of another type, from row 10 on.
    fn converted(x: ArrayRef, wanted: DataType) -> Result<ArrayRef, OperatorError> {
        let reading = Reading { types: vec![("x".to_owned(), wanted)], ..reading(None) };
        let table = adapt(&reading, 10, RecordBatch::try_from_iter([("x", x)]).unwrap())?;
        Ok(Arc::clone(table.column("", "x").unwrap()))
    }

    #[test]
    fn what_a_type_holds_is_converted_and_nulls_stay() {
        let floats = |values: &[Option<f64>]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        let whole = converted(floats(&[Some(2.0), None, Some(-3.0)]), DataType::Int64).unwrap();
        assert_eq!(whole.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), None, Some(-3)]);
        let truths = converted(floats(&[Some(1.0), None, Some(0.0)]), DataType::Boolean).unwrap();
        assert_eq!(truths.as_boolean().iter().collect::<Vec<_>>(), [Some(true), None, Some(false)]);
        let wholes = Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(-(1 << 53)), Some(3)])) as ArrayRef;
        let doubles = converted(wholes, DataType::Float64).unwrap();
        let doubles = doubles.as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
        assert_eq!(doubles, [Some(-9223372036854775808.0), None, Some(-9007199254740992.0), Some(3.0)]);
        // A float32 rounds, as float64 does too; infinity is one of its values.
        let single = converted(floats(&[Some(0.1), None, Some(f64::INFINITY)]), DataType::Float32).unwrap();
        let single = single.as_primitive::<Float32Type>().iter().collect::<Vec<_>>();
        assert_eq!(single, [Some(0.1), None, Some(f32::INFINITY)]);
    }

    #[test]
    fn what_a_type_does_not_hold_is_named_by_file_row_and_column() {
        let floats = |values: &[Option<f64>]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        let texts = |values: &[&str]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let wholes = |values: &[Option<i64>]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        for (x, wanted, expected) in [
            (floats(&[Some(2.0), None, Some(1.7)]), DataType::Int64, "row 12, column x: 1.7 is not a whole number"),
            (floats(&[Some(f64::NAN)]), DataType::Int64, "row 10, column x: NaN is not a whole number within int64"),
            (floats(&[Some(0.0), Some(1e300)]), DataType::Int64, "row 11, column x: 1e300 is not a whole number"),
            (floats(&[Some(3e38), Some(-4e38)]), DataType::Float32, "row 11, column x: -4e38 is not a number within"),
            (texts(&["7", "four"]), DataType::Int64, "row 11, column x: \"four\" is not a whole number within int64"),
            (
                floats(&[Some(1.0), Some(0.0), Some(2.0)]),
                DataType::Boolean,
                "row 12, column x: 2.0 is not true or false",
            ),
            (texts(&["1e39"]), DataType::Float32, "row 10, column x: \"1e39\" is not a number within float32"),
            (texts(&["1e400"]), DataType::Float32, "row 10, column x: \"1e400\" is not a number within float32"),
            (texts(&["inf", "1e400"]), DataType::Float64, "row 11, column x: \"1e400\" is not a number within float64"),
            (
                wholes(&[Some(1 << 53), None, Some((1 << 53) + 1)]),
                DataType::Float64,
                "row 12, column x: 9007199254740993 is not a whole number that float64 holds exactly",
            ),
            (
                wholes(&[Some(i64::MAX)]),
                DataType::Float64,
                "row 10, column x: 9223372036854775807 is not a whole number that float64 holds exactly",
            ),
            (
                wholes(&[Some(1 << 24), Some((1 << 24) + 1)]),
                DataType::Float32,
                "row 11, column x: 16777217 is not a whole number that float32 holds exactly",
            ),
        ] {
            let wrong = converted(x, wanted).unwrap_err().to_string();
            assert!(wrong.starts_with("t.parquet: ") && wrong.contains(expected), "{wrong}");
            assert!(wrong.contains("give x another type in `types`"), "{wrong}");
        }
        let beyond = Arc::new(UInt64Array::from(vec![1, u64::MAX])) as ArrayRef;
        let wrong = converted(beyond, DataType::Int64).unwrap_err().to_string();
        assert!(wrong.contains("column x holds 18446744073709551615, which int64 does not hold"), "{wrong}");
        let wrong = converted(floats(&[Some(1.0)]), DataType::Date32).unwrap_err().to_string();
        assert!(wrong.contains("column x cannot become date"), "{wrong}");
    }
}
