//! CSV files as Arrow tables with inferred types.

mod quotes;
mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, GenericStringBuilder, Int64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use csv::{ByteRecord, ReaderBuilder};

use self::quotes::unclosed;
use self::types::{Inferred, Look, parse_bool, parse_date, parse_float, parse_int, parse_single};
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
    let file = CsvFile::open(&path, &[])?;
    let (batch, first_texts) = (file.whole()?, file.first_texts);
    let schema = batch.schema();
    let why = |name: &str| {
        let (line, text) = first_texts.get(schema.index_of(name).ok()?)?.as_ref()?;
        Some(format!("line {line} has {text:?}"))
    };
    let table = Table::new(&path.display().to_string(), batch, spec.option("label"))?;
    Ok(Box::new(table.explained(why)))
}

/// The table in a CSV file.
///
/// The first line names the columns; an unnamed one is called `column_3` by its place. The type of a column is the first
/// of int64, float64, boolean (`true`, `false`), date (`2024-02-29`) that fits all its values, else text; an empty field
/// is null, and a column of nothing else is text. A whole number beyond int64 is text too, unless another number of its
/// column has a point or an exponent: identifiers would lose digits as float64. A number beyond float64 is text. Blank
/// lines are skipped; in a file of one column, where nothing else could stand for a null, those behind the header and
/// before the last value are rows. UTF-8, with or without a byte order mark.
///
/// Errors: `NotFound`; `BadRow` for a line with too few or too many fields, or that is not UTF-8, and where a quote opens that
/// is not closed.
pub fn read_csv(path: impl AsRef<Path>) -> Result<RecordBatch, DatasetError> {
    read_csv_as(path, &[])
}

/// As [`read_csv`], with some columns of given types: int64, float64, float32, boolean, date or text.
///
/// Errors: as there; `NoSuchColumn` for a type of a column that the file does not have, `Unsupported` for another type,
/// `BadRow` naming line and column of a value that is not of its type.
pub fn read_csv_as(path: impl AsRef<Path>, types: &[(String, DataType)]) -> Result<RecordBatch, DatasetError> {
    CsvFile::open(path, types)?.whole()
}

/// A CSV file every line of which was looked at: its columns are known, and its values can be read.
pub struct CsvFile {
    path: PathBuf,
    bytes: Vec<u8>,
    schema: SchemaRef,
    /// Line and beginning of the value for which a column is text, by column.
    first_texts: Vec<Option<(u64, String)>>,
    n_rows: usize,
}

/// What CSV files of other systems begin with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl CsvFile {
    /// Looks at a file, as [`read_csv_as`] does.
    ///
    /// Errors: as there.
    pub fn open(path: impl AsRef<Path>, types: &[(String, DataType)]) -> Result<Self, DatasetError> {
        let path = path.as_ref();
        let mut bytes = read_file(path, "a CSV file", "check the path")?;
        if bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        let (names, columns, n_rows) = infer(path, &bytes, types)?;
        let field = |(name, column): (&String, &Look)| Field::new(name, column.data_type(), true);
        let schema = Arc::new(Schema::new(names.iter().zip(&columns).map(field).collect::<Vec<_>>()));
        let first_texts = columns.into_iter().map(Look::first_text).collect();
        Ok(Self { path: path.to_owned(), bytes, schema, first_texts, n_rows })
    }

    fn whole(&self) -> Result<RecordBatch, DatasetError> {
        let mut whole = RecordBatch::new_empty(self.schema());
        self.read(usize::MAX, &mut |batch| {
            whole = batch;
            Ok::<_, DatasetError>(())
        })?;
        Ok(whole)
    }

    /// Names and types of its columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Number of its rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Gives all rows in order, so many at a time; of a file without rows an empty batch.
    ///
    /// Errors: those of `each`; `BadRow`.
    pub fn read<E: From<DatasetError>>(
        &self,
        rows: usize,
        each: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let fields = self.schema.fields().iter();
        let mut builders: Vec<ColumnBuilder> = fields.map(|field| ColumnBuilder::of(field.data_type())).collect();
        let (mut pending, mut given) = (0, false);
        let mut give = |builders: &mut [ColumnBuilder]| {
            let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
            let batch = RecordBatch::try_new(self.schema(), arrays);
            each(batch.map_err(arrow_error(&self.path.display().to_string()))?)
        };
        for_each_record(&self.path, &self.bytes, |record, _| {
            for (builder, text) in builders.iter_mut().zip(texts(record)) {
                builder.push(text.unwrap_or_default());
            }
            pending += 1;
            if pending == rows {
                (pending, given) = (0, true);
                give(&mut builders)?;
            }
            Ok::<_, E>(())
        })?;
        if pending > 0 || !given { give(&mut builders) } else { Ok(()) }
    }
}

/// Names and types of the columns, and the number of rows; checks every line.
fn infer(
    path: &Path,
    bytes: &[u8],
    types: &[(String, DataType)],
) -> Result<(Vec<String>, Vec<Look>, usize), DatasetError> {
    let mut names: Vec<String> = Vec::new();
    let bad = |line, column: String, why: String| DatasetError::BadRow { path: path.to_owned(), line, column, why };
    let header = header(path, bytes)?;
    for (i, name) in header.iter().enumerate() {
        let name =
            std::str::from_utf8(name).map_err(|_| bad(1, format!("{}", i + 1), "the name is not UTF-8".to_owned()))?;
        names.push(if name.is_empty() { format!("column_{}", i + 1) } else { name.to_owned() });
    }
    let mut columns: Vec<Look> = names.iter().map(|_| Look::Inferred(Inferred::default())).collect();
    let origin = path.display().to_string();
    for (name, data_type) in types {
        let column = names.iter().position(|n| n == name).and_then(|at| columns.get_mut(at));
        let column = column.ok_or_else(|| DatasetError::NoSuchColumn {
            origin: origin.clone(),
            column: name.clone(),
            present: names.join(", "),
        })?;
        *column = Look::given(data_type).ok_or_else(|| DatasetError::Unsupported {
            origin: origin.clone(),
            what: format!("column '{name}' as {data_type}"),
            hint: "use int64, float64, float32, boolean, date or text",
        })?;
    }
    let mut n_rows = 0;
    for_each_record(path, bytes, |record, line| {
        if record.len() != names.len() {
            let (found, expected) = (record.len(), names.len());
            let column = names.get(found).cloned().unwrap_or_else(|| format!("{}", expected + 1));
            return Err(bad(line, column, format!("the line has {found} fields, the header {expected}")));
        }
        for ((text, column), name) in texts(record).zip(&mut columns).zip(&names) {
            let text = text.ok_or_else(|| bad(line, name.clone(), "the text is not UTF-8".to_owned()))?;
            column.update(text, line).map_err(|what| bad(line, name.clone(), format!("{text:?} is not {what}")))?;
        }
        n_rows += 1;
        Ok::<_, DatasetError>(())
    })?;
    Ok((names, columns, n_rows))
}

fn header(path: &Path, bytes: &[u8]) -> Result<ByteRecord, DatasetError> {
    let mut reader = ReaderBuilder::new().has_headers(true).flexible(true).from_reader(bytes);
    match reader.byte_headers() {
        Ok(header) if !header.is_empty() => closed(path, bytes, 0).map(|()| header.clone()),
        _ => Err(DatasetError::WrongFormat {
            path: path.to_owned(),
            expected: "a CSV file",
            why: "it is empty".to_owned(),
            hint: "the first line must name the columns",
        }),
    }
}

/// Checks that every quote is closed that opens in the record at `start`.
fn closed(path: &Path, bytes: &[u8], start: usize) -> Result<(), DatasetError> {
    let Some((at, field)) = unclosed(bytes.get(start..).unwrap_or_default()) else { return Ok(()) };
    let lines = bytes.iter().take(start + at).filter(|byte| **byte == b'\n').count() as u64;
    let why = "the quote that opens here is not closed".to_owned();
    Err(DatasetError::BadRow { path: path.to_owned(), line: lines + 1, column: (field + 1).to_string(), why })
}

/// The fields of a record; `None` for one that is not UTF-8. All are looked at together, which is quicker.
fn texts(record: &ByteRecord) -> impl Iterator<Item = Option<&str>> {
    let whole = std::str::from_utf8(record.as_slice()).ok();
    (0..record.len()).map(move |at| match whole {
        Some(whole) => whole.get(record.range(at)?),
        None => std::str::from_utf8(record.get(at)?).ok(),
    })
}

/// How many blank lines there are at `start`, where the reader stopped: it may do so inside of a line's end.
fn blank_lines(bytes: &[u8], start: usize) -> u64 {
    let before = start.checked_sub(1).and_then(|at| bytes.get(at));
    let mut rest = bytes.get(start..).unwrap_or_default();
    if before == Some(&b'\r') {
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    let mut n = 0;
    while let [b'\r', b'\n', behind @ ..] | [b'\r' | b'\n', behind @ ..] = rest {
        rest = behind;
        n += 1;
    }
    n
}

/// Calls `visit` with every record and its line number.
fn for_each_record<E: From<DatasetError>>(
    path: &Path,
    bytes: &[u8],
    mut visit: impl FnMut(&ByteRecord, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = ReaderBuilder::new().has_headers(true).flexible(true).from_reader(bytes);
    let has_one_column = reader.byte_headers().is_ok_and(|header| header.len() == 1);
    let blank = ByteRecord::from(vec![""]);
    let mut record = ByteRecord::new();
    loop {
        let read = reader.read_byte_record(&mut record);
        let start = record.position().unwrap_or_else(|| reader.position());
        // Positions of records lie before the line ends and blank lines that it skips.
        let skipped = bytes.get(start.byte() as usize..).unwrap_or_default().iter();
        let skipped = skipped.take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|&&byte| byte == b'\n');
        let line = start.line() + skipped.count() as u64;
        match read {
            Ok(true) => {
                // A quote that is not closed takes in lines, or all up to the end.
                let end = reader.position();
                if end.byte() as usize >= bytes.len() || end.line() > start.line() + 1 {
                    closed(path, bytes, start.byte() as usize)?;
                }
                // The reader skips them, and in one column they are records.
                let n_blank = if has_one_column { blank_lines(bytes, start.byte() as usize) } else { 0 };
                for above in (1..=n_blank).rev() {
                    visit(&blank, line.saturating_sub(above))?;
                }
                visit(&record, line)?;
            }
            Ok(false) => return Ok(()),
            Err(error) => {
                let (column, why) = ("1".to_owned(), error.to_string());
                return Err(DatasetError::BadRow { path: path.to_owned(), line, column, why }.into());
            }
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
    fn of(data_type: &DataType) -> ColumnBuilder {
        match data_type {
            DataType::Int64 => ColumnBuilder::Int(Int64Builder::new()),
            DataType::Float64 => ColumnBuilder::Float(Float64Builder::new()),
            DataType::Float32 => ColumnBuilder::Float32(Float32Builder::new()),
            DataType::Boolean => ColumnBuilder::Bool(BooleanBuilder::new()),
            DataType::Date32 => ColumnBuilder::Date(Date32Builder::new()),
            DataType::LargeUtf8 => ColumnBuilder::LargeText(GenericStringBuilder::new()),
            _ => ColumnBuilder::Text(GenericStringBuilder::new()),
        }
    }

    /// Appends a value of the column's type, nothing for an empty text.
    fn push(&mut self, text: &str) {
        let word = (!text.is_empty()).then_some(text);
        match self {
            ColumnBuilder::Int(builder) => builder.append_option(parse_int(text)),
            ColumnBuilder::Float(builder) => builder.append_option(parse_float(text)),
            ColumnBuilder::Float32(builder) => builder.append_option(parse_single(text)),
            ColumnBuilder::Bool(builder) => builder.append_option(parse_bool(text)),
            ColumnBuilder::Date(builder) => builder.append_option(parse_date(text)),
            ColumnBuilder::Text(builder) => builder.append_option(word),
            ColumnBuilder::LargeText(builder) => builder.append_option(word),
        }
    }

    /// The column so far; what is appended next begins another one.
    fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Int(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float32(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Bool(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()),
            ColumnBuilder::LargeText(builder) => Arc::new(builder.finish()),
        }
    }
}

#[cfg(test)]
mod tests;
