//! Columns of tables as codes: fixed-width values as they are, text as codes into a sorted dictionary.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, BooleanArray, StringArray, make_array, new_null_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mistique_quantize::{Code, Effort, Encoding, decode_page, encode_page};

use crate::chunk::ChunkCodes;
use crate::error::{EngineError, Result};
use crate::format::Le;

/// A column's rows, ready to be a chunk.
#[derive(Debug)]
pub struct ColumnCodes {
    /// Type of a code.
    pub code: Code,
    /// One code a row.
    pub codes: Vec<u8>,
    /// One byte a row (1: valid); `None` when the column has no nulls.
    pub validity: Option<Vec<u8>>,
    /// Dictionary of a text column, as in FORMAT.md, "Dictionaries".
    pub dictionary: Option<Vec<u8>>,
}

/// The type under which a column is stored; `None` for one that tables cannot hold.
fn stored_type(t: &DataType) -> Option<DataType> {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::Dictionary(_, value) => stored_type(value),
        DataType::Boolean => Some(DataType::Boolean),
        t if code_of(t).is_some() => Some(t.clone()),
        _ => None,
    }
}

/// The code under which a column of a stored type lies.
pub fn code_of(t: &DataType) -> Option<Code> {
    match t {
        DataType::Float16 => Some(Code::F16),
        DataType::Float32 => Some(Code::F32),
        DataType::Float64 => Some(Code::F64),
        DataType::Boolean => Some(Code::Bit),
        DataType::Utf8 => Some(Code::Int(2)),
        DataType::Int8 | DataType::UInt8 => Some(Code::Int(1)),
        DataType::Int16 | DataType::UInt16 => Some(Code::Int(2)),
        DataType::Int32 | DataType::UInt32 | DataType::Date32 | DataType::Time32(_) => Some(Code::Int(4)),
        DataType::Int64
        | DataType::UInt64
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Duration(_) => Some(Code::Int(8)),
        _ => None,
    }
}

/// The schema under which a table of `schema` is stored: text types become UTF-8, dictionaries their values.
///
/// Errors: `Unsupported` naming the first column of a type that tables cannot hold.
pub fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let field = |f: &Arc<Field>| match stored_type(f.data_type()) {
        Some(t) => Ok(Field::new(f.name(), t, true)),
        None => Err(EngineError::Unsupported {
            what: format!("column {:?} of type {}", f.name(), f.data_type()),
            why: if f.data_type().is_list() {
                "beside other columns lists are not held; alone in a file, or beside row_id, one is a tensor".into()
            } else {
                "tables hold floats, integers, booleans, text, dates and times; convert it first".into()
            },
        }),
    };
    let mut names = HashSet::new();
    if let Some(twice) = schema.fields().iter().find(|f| !names.insert(f.name())) {
        return Err(EngineError::Unsupported {
            what: format!("two columns called {:?}", twice.name()),
            why: "a column is found by its name; rename one".into(),
        });
    }
    Ok(Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Result<Vec<_>>>()?)))
}

/// The codes of a column of a stored type.
///
/// Errors: `Unsupported`, `Arrow`.
pub fn to_codes(column: &ArrayRef) -> Result<ColumnCodes> {
    let n = column.len();
    let nulls = column.nulls().filter(|v| v.null_count() > 0);
    let validity = nulls.map(|v| bytes_of(v.inner()));
    let code = code_of(column.data_type()).ok_or_else(|| EngineError::Unsupported {
        what: format!("a column of type {}", column.data_type()),
        why: "tables hold floats, integers, booleans, text, dates and times".into(),
    })?;
    if let Some(text) = column.as_any().downcast_ref::<StringArray>() {
        // Distinct words are numbered as they come, and sorted only then: most columns have few.
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut rows: Vec<Option<usize>> = Vec::with_capacity(n);
        for word in text.iter() {
            let next = numbers.len();
            rows.push(word.map(|w| *numbers.entry(w).or_insert(next)));
        }
        let mut words: Vec<(&str, usize)> = numbers.into_iter().collect();
        words.sort_unstable();
        let mut code_of = vec![0u16; words.len()];
        for (code, (_, number)) in words.iter().enumerate() {
            code_of[*number] = code as u16;
        }
        let words: Vec<&str> = words.into_iter().map(|(word, _)| word).collect();
        let codes = rows.iter().flat_map(|number| number.map_or(0, |n| code_of[n]).to_le_bytes()).collect();
        return Ok(ColumnCodes { code, codes, validity, dictionary: Some(write_dictionary(&words)?) });
    }
    let width = code.width();
    let mut codes = if let Some(bits) = column.as_any().downcast_ref::<BooleanArray>() {
        bytes_of(bits.values())
    } else {
        let data = column.to_data();
        let start = data.offset() * width;
        let values = data.buffers().first().map(Buffer::as_slice).and_then(|b| b.get(start..start + n * width));
        values.unwrap_or_default().to_vec()
    };
    codes.resize(n * width, 0);
    // What lies under a null is undefined; zeros make equal columns equal bytes.
    if let Some(valid) = &validity {
        match width {
            1 => keep_valid::<1>(&mut codes, valid),
            2 => keep_valid::<2>(&mut codes, valid),
            4 => keep_valid::<4>(&mut codes, valid),
            _ => keep_valid::<8>(&mut codes, valid),
        }
    }
    Ok(ColumnCodes { code, codes, validity, dictionary: None })
}

/// The bits of each byte as bytes.
const SPREAD: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut i = 0;
    while i < 2048 {
        table[i / 8][i % 8] = ((i / 8) >> (i % 8) & 1) as u8;
        i += 1;
    }
    table
};

/// Bits as bytes, 0 and 1.
fn bytes_of(bits: &BooleanBuffer) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bits.len().next_multiple_of(64));
    for word in bits.bit_chunks().iter_padded() {
        word.to_le_bytes().iter().for_each(|b| bytes.extend_from_slice(&SPREAD[usize::from(*b)]));
    }
    bytes.truncate(bits.len());
    bytes
}

/// Zeroes codes of `W` bytes where `valid` is 0.
fn keep_valid<const W: usize>(codes: &mut [u8], valid: &[u8]) {
    for (code, valid) in codes.as_chunks_mut::<W>().0.iter_mut().zip(valid) {
        code.iter_mut().for_each(|b| *b &= valid.wrapping_neg());
    }
}

fn write_dictionary(words: &[&str]) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    raw.extend_from_slice(&(words.len() as u32).to_le_bytes());
    for w in words {
        raw.extend_from_slice(&(w.len() as u32).to_le_bytes());
    }
    words.iter().for_each(|w| raw.extend_from_slice(w.as_bytes()));
    let mut out = vec![0u8; 5];
    let encoding = encode_page(Code::Int(1), &raw, 1, Effort::Small, None, &mut out)
        .map_err(|e| EngineError::quantize("a dictionary", e))?;
    out[0] = encoding as u8;
    out[1..5].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    Ok(out)
}

/// The words of a dictionary, one after another.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Words {
    /// The bytes of a word, which are UTF-8.
    fn get(&self, code: u16) -> Option<&[u8]> {
        let code = usize::from(code);
        let end = *self.ends.get(code)? as usize;
        let start = code.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or_default() as usize);
        self.bytes.get(start..end)
    }
}

/// The words of a dictionary; `None` when the bytes are none.
pub fn read_dictionary(bytes: &[u8]) -> Option<Words> {
    let encoding = Encoding::try_from(*bytes.first()?).ok()?;
    let n_raw = bytes.u32_at(1)? as usize;
    // A dictionary of a RowBlock cannot be larger than this; a larger number is damage.
    if n_raw > 1 << 31 {
        return None;
    }
    let mut raw = vec![0u8; n_raw];
    decode_page(Code::Int(1), encoding, bytes.get(5..)?, n_raw, 1, None, &mut raw).ok()?;
    let n = raw.u32_at(0)? as usize;
    let first = 4usize.checked_add(n.checked_mul(4)?)?;
    // All at once, and that no word ends within a character: as if each were looked at.
    let text = std::str::from_utf8(raw.get(first..)?).ok()?;
    let mut ends = Vec::with_capacity(n);
    let mut at = 0usize;
    for i in 0..n {
        at = at.checked_add(raw.u32_at(4 + i * 4)? as usize)?;
        if !text.is_char_boundary(at) {
            return None;
        }
        ends.push(u32::try_from(at).ok()?);
    }
    (at == text.len()).then(|| Words { bytes: text.as_bytes().to_vec(), ends })
}

/// Rows of a chunk that follow each other in an answer.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The chunk.
    pub content: &'a ChunkCodes,
    /// Its dictionary.
    pub words: Option<&'a Words>,
    /// First row.
    pub position: usize,
    /// Rows.
    pub len: usize,
}

/// The values of runs, one array of `W` bytes each.
fn values<'a, const W: usize>(n: usize, runs: impl Iterator<Item = Run<'a>>) -> Result<Vec<u8>, String> {
    let mut values: Vec<[u8; W]> = Vec::with_capacity(n);
    append(&mut values, runs, |content| Some(content.codes.as_chunks::<W>().0))?;
    Ok(values.into_flattened())
}

/// Appends the rows of runs; `of` finds all rows of a chunk.
fn append<'a, T: Copy + 'a>(
    out: &mut Vec<T>,
    runs: impl Iterator<Item = Run<'a>>,
    of: impl Fn(&'a ChunkCodes) -> Option<&'a [T]>,
) -> Result<(), String> {
    for Run { content, position, len, .. } in runs {
        let all = of(content).ok_or("a chunk without what its column has")?;
        // Most rows lie apart, or in long runs.
        if len == 1 {
            out.push(*all.get(position).ok_or("a chunk cut off")?);
        } else {
            out.extend_from_slice(all.get(position..position + len).ok_or("a chunk cut off")?);
        }
    }
    Ok(())
}

/// Which rows of runs are valid, one byte each (1: valid); `None` where no chunk has nulls.
fn validity<'a>(n: usize, runs: impl Iterator<Item = Run<'a>> + Clone) -> Result<Option<Vec<u8>>, String> {
    if runs.clone().all(|run| run.content.validity.is_none()) {
        return Ok(None);
    }
    let mut valid = Vec::with_capacity(n);
    for run in runs {
        match &run.content.validity {
            Some(_) => append(&mut valid, std::iter::once(run), |content| content.validity.as_deref())?,
            None => valid.resize(valid.len() + run.len, 1),
        }
    }
    Ok(Some(valid))
}

/// The words of runs, one after another, and where each ends; those of nulls are empty.
fn words<'a>(
    n: usize,
    runs: impl Iterator<Item = Run<'a>>,
    valid: Option<&[u8]>,
) -> Result<(OffsetBuffer<i32>, Vec<u8>), String> {
    let (mut ends, mut letters) = (Vec::with_capacity(n + 1), Vec::new());
    ends.push(0);
    for Run { content, words, position, len } in runs {
        let words = words.ok_or("a text column without a dictionary")?;
        let codes = content.codes.as_chunks::<2>().0.get(position..position + len).ok_or("codes cut off")?;
        for code in codes {
            if valid.is_none_or(|v| v.get(ends.len() - 1) != Some(&0)) {
                let word = words.get(u16::from_le_bytes(*code)).ok_or("a code outside of the dictionary")?;
                letters.extend_from_slice(word);
            }
            ends.push(i32::try_from(letters.len()).map_err(|_| "more than 2 GiB of text; read fewer rows")?);
        }
    }
    Ok((OffsetBuffer::new(ends.into()), letters))
}

/// A column of type `t` of `n` rows, run by run.
///
/// Errors: a text that says what does not agree.
pub fn gather<'a>(t: &DataType, n: usize, runs: impl Iterator<Item = Run<'a>> + Clone) -> Result<ArrayRef, String> {
    let code = code_of(t).ok_or("a type that tables do not hold")?;
    let given: usize = runs.clone().map(|run| run.len).sum();
    if given != n {
        return Err(format!("{given} rows, {n} should be"));
    }
    let valid = validity(n, runs.clone())?;
    let nulls = valid.as_deref().map(|v| NullBuffer::new(BooleanBuffer::collect_bool(n, |i| v.get(i) == Some(&1))));
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    if *t == DataType::Utf8 {
        let (offsets, letters) = words(n, runs, valid.as_deref())?;
        return Ok(Arc::new(StringArray::try_new(offsets, letters.into(), nulls).map_err(|e| e.to_string())?));
    }
    let codes = match code.width() {
        1 => values::<1>(n, runs),
        2 => values::<2>(n, runs),
        4 => values::<4>(n, runs),
        _ => values::<8>(n, runs),
    }?;
    match t {
        DataType::Boolean => {
            let bits = BooleanBuffer::collect_bool(n, |i| codes.get(i) == Some(&1));
            Ok(Arc::new(BooleanArray::new(bits, nulls)))
        }
        _ => {
            let data = ArrayData::builder(t.clone()).len(n).add_buffer(Buffer::from_vec(codes)).nulls(nulls);
            Ok(make_array(data.align_buffers(true).build().map_err(|e| e.to_string())?))
        }
    }
}

/// A table's column as f64, nulls as NaN; booleans as 0 and 1, dates and times as their number.
///
/// Errors: `Unsupported` for text.
pub fn to_f64(column: &ArrayRef, name: &str) -> Result<Vec<f64>> {
    let numeric = match column.data_type() {
        DataType::Utf8 => Err(EngineError::Unsupported {
            what: format!("column {name:?}"),
            why: "it is text; numbers are needed here".into(),
        }),
        DataType::Date32 | DataType::Time32(_) => Ok(cast(column, &DataType::Int32)?),
        DataType::Date64 | DataType::Time64(_) | DataType::Timestamp(_, _) | DataType::Duration(_) => {
            Ok(cast(column, &DataType::Int64)?)
        }
        _ => Ok(Arc::clone(column)),
    }?;
    let floats = cast(&numeric, &DataType::Float64)?;
    let floats = arrow::array::as_primitive_array::<arrow::datatypes::Float64Type>(&floats);
    Ok(floats.iter().map(|v| v.unwrap_or(f64::NAN)).collect())
}

/// A column of nulls, for a selection of no rows.
pub fn empty(t: &DataType) -> ArrayRef {
    new_null_array(t, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkShape;
    use arrow::array::{Float64Array, Int64Array};

    fn round_trip(column: ArrayRef) {
        let ColumnCodes { code, codes, validity, dictionary } = to_codes(&column).unwrap();
        let words = dictionary.as_deref().map(|d| read_dictionary(d).unwrap());
        let n = column.len();
        let shape = ChunkShape { code, n_rows: n, n_cols: 1, page_rows: n.max(1), map_w: 1 };
        let content = ChunkCodes { shape, codes, validity };
        let run = |position, len| Run { content: &content, words: words.as_ref(), position, len };
        for cut in 0..=n {
            let back = gather(column.data_type(), n, [run(0, cut), run(cut, n - cut)].into_iter()).unwrap();
            assert_eq!(&back, &column);
        }
        assert!(gather(column.data_type(), n + 1, [run(0, n)].into_iter()).is_err());
        assert!(gather(column.data_type(), n + 1, [run(0, n + 1)].into_iter()).is_err());
    }

    #[test]
    fn columns_round_trip() {
        round_trip(Arc::new(Int64Array::from(vec![Some(3), None, Some(-1)])));
        round_trip(Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, -0.0, 1.5])));
        round_trip(Arc::new(StringArray::from(vec![Some("b"), None, Some("ä"), Some(""), Some("b")])));
        round_trip(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])));
        round_trip(Arc::new(StringArray::from(Vec::<Option<&str>>::new())));
        let sliced = Int64Array::from(vec![Some(1), None, Some(3), Some(4)]).slice(1, 2);
        round_trip(Arc::new(sliced));
    }

    #[test]
    fn bits_become_bytes_wherever_they_begin() {
        let bools: Vec<bool> = (0..300u32).map(|i| i.wrapping_mul(0x9E37_79B9) >> 29 & 1 == 1).collect();
        let all = BooleanBuffer::from(bools.as_slice());
        for start in [0, 1, 7, 8, 13, 64, 299, 300] {
            for len in [0, 1, 63, 64, 65, 128, 200, 300].into_iter().filter(|len| start + len <= 300) {
                let want: Vec<u8> = bools[start..start + len].iter().map(|b| u8::from(*b)).collect();
                assert_eq!(bytes_of(&all.slice(start, len)), want, "{start} {len}");
            }
        }
    }

    #[test]
    fn what_lies_under_a_null_is_zeroed() {
        fn codes_of<T: arrow::datatypes::ArrowPrimitiveType>(of: impl Fn(u32) -> T::Native) -> (Vec<u8>, Vec<u8>) {
            let valid: Vec<bool> = (0..130).map(|i| i % 3 != 1).collect();
            let values = (0..130).map(&of).collect::<Vec<_>>();
            let column = arrow::array::PrimitiveArray::<T>::new(values.into(), Some(valid.clone().into()));
            let found = to_codes(&(Arc::new(column.slice(5, 120)) as ArrayRef)).unwrap();
            assert_eq!(found.validity.unwrap(), valid[5..125].iter().map(|v| u8::from(*v)).collect::<Vec<_>>());
            let kept = (5..125).flat_map(|i| {
                let bytes = of(i);
                let bytes = arrow::datatypes::ToByteSlice::to_byte_slice(&bytes).to_vec();
                if valid[i as usize] { bytes } else { vec![0; bytes.len()] }
            });
            (found.codes, kept.collect())
        }
        use arrow::datatypes::{Float64Type, Int8Type, Int16Type, UInt32Type};
        for (codes, kept) in [
            codes_of::<Int8Type>(|i| i as i8 - 7),
            codes_of::<Int16Type>(|i| -(i as i16)),
            codes_of::<UInt32Type>(|i| i * 0x0101_0101),
            codes_of::<Float64Type>(|i| if i % 2 == 0 { f64::NAN } else { -f64::from(i) }),
        ] {
            assert_eq!(codes, kept);
        }
    }

    #[test]
    fn damaged_dictionaries_are_refused() {
        let good = write_dictionary(&["a", "bc"]).unwrap();
        let words = read_dictionary(&good).unwrap();
        assert_eq!([0, 1, 2].map(|i| words.get(i)), [Some(&b"a"[..]), Some(b"bc"), None]);
        for cut in 0..good.len() {
            assert!(read_dictionary(&good[..cut]).is_none());
        }
    }
}
