//! CSV files as Arrow tables with inferred types.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, GenericStringBuilder, Int64Builder,
    OffsetSizeTrait,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use csv::{ByteRecord, ReaderBuilder};

use crate::files::read_file;
use crate::table::{Table, arrow_error};
use crate::{Dataset, DatasetError, Loader, Spec, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "csv",
    usage: "csv:FILE[?label=COLUMN]",
    about: "a CSV file with a header line; its numeric columns are the features",
    target: Target::File,
    options: &["label"],
    path_options: &[],
    open,
};

fn open(spec: &Spec) -> Result<Box<dyn Dataset>, DatasetError> {
    let path = spec.target();
    Ok(Box::new(Table::new(&path.display().to_string(), read_csv(&path)?, spec.option("label"))?))
}

/// The table in a CSV file.
///
/// The first line names the columns; an unnamed one is called `column_3` by its place. The type of a column is the first
/// of int64, float64, boolean (`true`, `false`), date (`2024-02-29`) that fits all its values, else text; an empty field
/// is null, and a column of nothing else is text. Blank lines are skipped. UTF-8, with or without a byte order mark.
///
/// Errors: `NotFound`; `BadRow` for a line with too few or too many fields, or that is not UTF-8.
pub fn read_csv(path: impl AsRef<Path>) -> Result<RecordBatch, DatasetError> {
    read_csv_as(path, &[])
}

/// As [`read_csv`], with some columns of given types: int64, float64, float32, boolean, date or text.
///
/// Errors: as there; `NoSuchColumn` for a type of a column that the file does not have, `Unsupported` for another type,
/// `BadRow` naming line and column of a value that is not of its type.
pub fn read_csv_as(path: impl AsRef<Path>, types: &[(String, DataType)]) -> Result<RecordBatch, DatasetError> {
    let path = path.as_ref();
    let bytes = read_file(path, "a CSV file", "check the path")?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let (names, columns) = infer(path, bytes)?;
    let origin = path.display().to_string();
    let mut builders: Vec<ColumnBuilder> = columns.iter().map(Inferred::builder).collect();
    for (name, data_type) in types {
        let builder = names.iter().position(|n| n == name).and_then(|at| builders.get_mut(at));
        let builder = builder.ok_or_else(|| DatasetError::NoSuchColumn {
            origin: origin.clone(),
            column: name.clone(),
            present: names.join(", "),
        })?;
        *builder = ColumnBuilder::of(data_type).ok_or_else(|| DatasetError::Unsupported {
            origin: origin.clone(),
            what: format!("column '{name}' as {data_type}"),
            hint: "use int64, float64, float32, boolean, date or text",
        })?;
    }
    for_each_record(path, bytes, |record, line| {
        for ((builder, field), name) in builders.iter_mut().zip(record).zip(&names) {
            let text = std::str::from_utf8(field).unwrap_or_default();
            if !builder.push(text) {
                let why = format!("{text:?} is not {}", builder.describe());
                return Err(DatasetError::BadRow { path: path.to_owned(), line, column: name.clone(), why });
            }
        }
        Ok(())
    })?;
    let arrays: Vec<ArrayRef> = builders.into_iter().map(ColumnBuilder::finish).collect();
    let fields: Vec<Field> =
        names.iter().zip(&arrays).map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(arrow_error(&origin))
}

/// Names and types of the columns; checks every line.
fn infer(path: &Path, bytes: &[u8]) -> Result<(Vec<String>, Vec<Inferred>), DatasetError> {
    let mut names: Vec<String> = Vec::new();
    let mut columns = Vec::new();
    let bad = |line, column: String, why: String| DatasetError::BadRow { path: path.to_owned(), line, column, why };
    let header = header(path, bytes)?;
    for (i, name) in header.iter().enumerate() {
        let name =
            std::str::from_utf8(name).map_err(|_| bad(1, format!("{}", i + 1), "the name is not UTF-8".to_owned()))?;
        names.push(if name.is_empty() { format!("column_{}", i + 1) } else { name.to_owned() });
        columns.push(Inferred::default());
    }
    for_each_record(path, bytes, |record, line| {
        if record.len() != names.len() {
            let (found, expected) = (record.len(), names.len());
            let column = names.get(found).cloned().unwrap_or_else(|| format!("{}", expected + 1));
            return Err(bad(line, column, format!("the line has {found} fields, the header {expected}")));
        }
        for ((field, column), name) in record.iter().zip(&mut columns).zip(&names) {
            match std::str::from_utf8(field) {
                Ok(text) => column.update(text),
                Err(_) => return Err(bad(line, name.clone(), "the text is not UTF-8".to_owned())),
            }
        }
        Ok(())
    })?;
    Ok((names, columns))
}

fn header(path: &Path, bytes: &[u8]) -> Result<ByteRecord, DatasetError> {
    let mut reader = ReaderBuilder::new().has_headers(true).flexible(true).from_reader(bytes);
    match reader.byte_headers() {
        Ok(header) if !header.is_empty() => Ok(header.clone()),
        _ => Err(DatasetError::WrongFormat {
            path: path.to_owned(),
            expected: "a CSV file",
            why: "it is empty".to_owned(),
            hint: "the first line must name the columns",
        }),
    }
}

/// Calls `visit` with every record and its line number.
fn for_each_record(
    path: &Path,
    bytes: &[u8],
    mut visit: impl FnMut(&ByteRecord, u64) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let mut reader = ReaderBuilder::new().has_headers(true).flexible(true).from_reader(bytes);
    let mut record = ByteRecord::new();
    loop {
        let read = reader.read_byte_record(&mut record);
        let start = record.position().unwrap_or_else(|| reader.position());
        // Positions of records lie before the line ends and blank lines that it skips.
        let skipped = bytes.get(start.byte() as usize..).unwrap_or_default().iter();
        let skipped = skipped.take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|&&byte| byte == b'\n');
        let line = start.line() + skipped.count() as u64;
        match read {
            Ok(true) => visit(&record, line)?,
            Ok(false) => return Ok(()),
            Err(error) => {
                let (column, why) = ("1".to_owned(), error.to_string());
                return Err(DatasetError::BadRow { path: path.to_owned(), line, column, why });
            }
        }
    }
}

/// Types that still fit all values of a column.
struct Inferred {
    int: bool,
    float: bool,
    boolean: bool,
    date: bool,
    any: bool,
    text_len_bytes: usize,
}

impl Default for Inferred {
    fn default() -> Inferred {
        Inferred { int: true, float: true, boolean: true, date: true, any: false, text_len_bytes: 0 }
    }
}

impl Inferred {
    fn update(&mut self, text: &str) {
        self.text_len_bytes += text.len();
        if text.is_empty() {
            return;
        }
        self.any = true;
        let digits = text.trim().trim_start_matches(['+', '-']);
        let is_int = parse_int(text).is_some();
        // A whole number beyond int64 is an identifier: as a float it would lose digits.
        let overlong = !is_int && digits.bytes().all(|byte| byte.is_ascii_digit());
        self.float &= !overlong && parse_float(text).is_some();
        self.int &= is_int;
        self.boolean = self.boolean && parse_bool(text).is_some();
        self.date = self.date && parse_date(text).is_some();
    }

    fn builder(&self) -> ColumnBuilder {
        match self {
            Inferred { any: true, int: true, .. } => ColumnBuilder::Int(Int64Builder::new()),
            Inferred { any: true, float: true, .. } => ColumnBuilder::Float(Float64Builder::new()),
            Inferred { any: true, boolean: true, .. } => ColumnBuilder::Bool(BooleanBuilder::new()),
            Inferred { any: true, date: true, .. } => ColumnBuilder::Date(Date32Builder::new()),
            // Utf8 counts its bytes in an i32.
            _ if self.text_len_bytes > i32::MAX as usize => ColumnBuilder::LargeText(GenericStringBuilder::new()),
            _ => ColumnBuilder::Text(GenericStringBuilder::new()),
        }
    }
}

enum ColumnBuilder {
    Int(Int64Builder),
    Float(Float64Builder),
    Float32(Float32Builder),
    Bool(BooleanBuilder),
    Date(Date32Builder),
    Text(GenericStringBuilder<i32>),
    LargeText(GenericStringBuilder<i64>),
}

impl ColumnBuilder {
    fn of(data_type: &DataType) -> Option<ColumnBuilder> {
        Some(match data_type {
            DataType::Int64 => ColumnBuilder::Int(Int64Builder::new()),
            DataType::Float64 => ColumnBuilder::Float(Float64Builder::new()),
            DataType::Float32 => ColumnBuilder::Float32(Float32Builder::new()),
            DataType::Boolean => ColumnBuilder::Bool(BooleanBuilder::new()),
            DataType::Date32 => ColumnBuilder::Date(Date32Builder::new()),
            DataType::Utf8 => ColumnBuilder::Text(GenericStringBuilder::new()),
            _ => return None,
        })
    }

    /// Appends a value, nothing for an empty text; whether it was of the column's type.
    fn push(&mut self, text: &str) -> bool {
        fn number<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> (Option<T>, bool) {
            let value = parse(text);
            let fits = value.is_some() || text.is_empty();
            (value, fits)
        }
        fn push_text<O: OffsetSizeTrait>(builder: &mut GenericStringBuilder<O>, text: &str) -> bool {
            builder.append_option((!text.is_empty()).then_some(text));
            true
        }
        macro_rules! push {
            ($builder:expr, $parse:expr) => {{
                let (value, fits) = number(text, $parse);
                $builder.append_option(value);
                fits
            }};
        }
        match self {
            ColumnBuilder::Int(builder) => push!(builder, parse_int),
            ColumnBuilder::Float(builder) => push!(builder, parse_float),
            ColumnBuilder::Float32(builder) => push!(builder, |t: &str| t.trim().parse().ok()),
            ColumnBuilder::Bool(builder) => push!(builder, parse_bool),
            ColumnBuilder::Date(builder) => push!(builder, parse_date),
            ColumnBuilder::Text(builder) => push_text(builder, text),
            ColumnBuilder::LargeText(builder) => push_text(builder, text),
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            ColumnBuilder::Int(_) => "a whole number",
            ColumnBuilder::Float(_) | ColumnBuilder::Float32(_) => "a number",
            ColumnBuilder::Bool(_) => "true or false",
            ColumnBuilder::Date(_) => "a date such as 2016-01-31",
            ColumnBuilder::Text(_) | ColumnBuilder::LargeText(_) => "a text",
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            ColumnBuilder::Int(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float32(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Bool(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(mut builder) => Arc::new(builder.finish()),
            ColumnBuilder::LargeText(mut builder) => Arc::new(builder.finish()),
        }
    }
}

fn parse_int(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn parse_float(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn parse_bool(text: &str) -> Option<bool> {
    let is = |word: &str| text.trim().eq_ignore_ascii_case(word);
    if is("true") { Some(true) } else { is("false").then_some(false) }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar written `YYYY-MM-DD`.
fn parse_date(text: &str) -> Option<i32> {
    let text = text.trim();
    let shape_fits = |(i, byte): (usize, u8)| if i == 4 || i == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    if text.len() != 10 || !text.bytes().enumerate().all(shape_fits) {
        return None;
    }
    let (year, month, day): (i32, i32, i32) =
        (text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_len = match month {
        2 => 28 + i32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_len).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_before_month + day
            - 1
            - 719_468,
    )
}

#[cfg(test)]
mod tests;
