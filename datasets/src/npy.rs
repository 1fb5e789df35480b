//! The `.npy` format of numpy, read with its element type kept.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use npyz::WriterBuilder;

use crate::DatasetError;
use crate::files::{io_error, open_file};

/// An array of any supported element type, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NpyArray {
    /// Length of every axis; empty for a single value.
    pub shape: Vec<usize>,
    /// The elements; as many as the product of `shape`.
    pub data: NpyData,
}

macro_rules! npy_types {
    ($($variant:ident, $rust:ty, $descr:literal, $name:literal, $as_f32:expr;)*) => {
        /// Elements of an array, in the type of the file.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum NpyData {
            $(#[doc = concat!("numpy's `", $name, "`.")] $variant(Vec<$rust>),)*
        }

        impl NpyData {
            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(NpyData::$variant(values) => values.len(),)* }
            }

            /// numpy's name of the element type.
            pub fn dtype(&self) -> &'static str {
                match self { $(NpyData::$variant(_) => $name,)* }
            }

            /// Appends elements `range` as `f32`, rounded to nearest; booleans become 0 and 1.
            ///
            /// Panics: if `range` is not within the array.
            pub fn extend_f32(&self, range: std::ops::Range<usize>, out: &mut Vec<f32>) {
                match self { $(NpyData::$variant(values) => out.extend(values[range].iter().copied().map($as_f32)),)* }
            }

            /// Element type and elements as little-endian bytes, block by block.
            pub(crate) fn hash_into(&self, fingerprint: &mut crate::fingerprint::Fingerprint) {
                fingerprint.text(self.dtype());
                match self { $(NpyData::$variant(values) => fingerprint.values(values, Element::put_le),)* }
            }

            fn read(descr: &str, big: bool, count: usize, reader: &mut dyn Read) -> Option<io::Result<(NpyData, u64)>> {
                Some(match descr {
                    $($descr => read_elements(count, big, reader).map(|(values, len)| (NpyData::$variant(values), len)),)*
                    _ => return None,
                })
            }

            fn into_row_major(self, shape: &[usize]) -> NpyData {
                match self { $(NpyData::$variant(values) => NpyData::$variant(transpose(&values, shape)),)* }
            }
        }
    };
}

npy_types! {
    F16, u16, "f2", "float16", half_to_f32;
    F32, f32, "f4", "float32", |value| value;
    F64, f64, "f8", "float64", |value| value as f32;
    I8, i8, "i1", "int8", f32::from;
    I16, i16, "i2", "int16", f32::from;
    I32, i32, "i4", "int32", |value| value as f32;
    I64, i64, "i8", "int64", |value| value as f32;
    U8, u8, "u1", "uint8", f32::from;
    U16, u16, "u2", "uint16", f32::from;
    U32, u32, "u4", "uint32", |value| value as f32;
    U64, u64, "u8", "uint64", |value| value as f32;
    Bool, bool, "b1", "bool", |value| if value { 1.0 } else { 0.0 };
}

impl NpyData {
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl NpyArray {
    /// All elements as `f64`, row-major; integers beyond 2^53 are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            NpyData::F64(values) => values.clone(),
            NpyData::I32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            NpyData::U32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            NpyData::I64(values) => values.iter().map(|v| *v as f64).collect(),
            NpyData::U64(values) => values.iter().map(|v| *v as f64).collect(),
            // Of the others, an f32 holds every value.
            _ => self.to_f32().into_iter().map(f64::from).collect(),
        }
    }

    /// All elements as `f32`, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.data.len());
        self.data.extend_f32(0..self.data.len(), &mut out);
        out
    }
}

/// Reads an `.npy` file; `float16` elements are given as their bits.
///
/// Little- and big-endian files and Fortran order are read; the result is row-major.
/// Errors: `NotFound`; `WrongFormat` for another format or a damaged header; `Unsupported` for complex, text, object and
/// record types; `WrongLength` if elements are missing or bytes follow them.
pub fn read_npy(path: impl AsRef<Path>) -> Result<NpyArray, DatasetError> {
    let path = path.as_ref();
    let file = open_file(path, "an .npy file", "check the path")?;
    read_npy_from(&mut io::BufReader::with_capacity(1 << 16, file), path)
}

/// As [`read_npy`], from any reader up to its end; `path` names it in errors.
pub fn read_npy_from(reader: &mut dyn Read, path: impl AsRef<Path>) -> Result<NpyArray, DatasetError> {
    let path = path.as_ref();
    let wrong = |why: String| DatasetError::WrongFormat {
        path: path.to_owned(),
        expected: "an .npy file",
        why,
        hint: "write it with numpy.save",
    };
    let header = read_header(reader).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => wrong(error.to_string()),
        ErrorKind::UnexpectedEof => wrong("it ends within the header".to_owned()),
        _ => io_error(path, "read")(error),
    })?;
    let Header { descr, fortran_order, shape } = parse_header(&header).map_err(wrong)?;
    let count = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
    let count = count
        .filter(|count| count.checked_mul(8).is_some())
        .ok_or_else(|| wrong(format!("impossible shape {shape:?}")))?;
    let (order, kind) = descr.split_at_checked(1).unwrap_or_default();
    let element_len = kind.get(1..).and_then(|len| len.parse::<u64>().ok()).unwrap_or_default();
    let read = match order {
        "<" | ">" | "|" | "=" => NpyData::read(kind, order == ">", count, reader),
        _ => None,
    };
    let Some(read) = read else {
        let origin = path.display().to_string();
        let (what, hint) = match descr.starts_with('[') {
            true => (format!("record type {descr}"), RECORD_HINT),
            false => (format!("element type {descr}"), TYPE_HINT),
        };
        return Err(DatasetError::Unsupported { origin, what, hint });
    };
    let (data, found) = read.map_err(io_error(path, "read"))?;
    let expected = count as u64 * element_len;
    if found != expected {
        return Err(DatasetError::WrongLength {
            path: path.to_owned(),
            found_bytes: found,
            expected: format!("{expected} after the header for {shape:?} of {}", data.dtype()),
        });
    }
    let data = if fortran_order && shape.len() > 1 { data.into_row_major(&shape) } else { data };
    Ok(NpyArray { shape, data })
}

/// Writes `values` as an `.npy` array of little-endian `float32`, row-major.
///
/// Errors: `InvalidInput` if `shape` does not hold `values.len()` elements; else what the writer says.
pub fn write_npy(writer: impl Write, shape: &[usize], values: &[f32]) -> io::Result<()> {
    if shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim)) != Some(values.len()) {
        let why = format!("shape {shape:?} does not hold {} values", values.len());
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    let shape: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
    let mut writer = io::BufWriter::with_capacity(1 << 16, writer);
    let mut npy = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut writer).begin_nd()?;
    npy.extend(values)?;
    npy.finish()?;
    writer.flush()
}

const TYPE_HINT: &str = "convert the array to a float, integer or bool type before numpy.save";
const RECORD_HINT: &str = "elements are of one float, integer or bool type: save each field by itself, as in \
                           numpy.save('a.npy', array['a'])";

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER_LEN_BYTES: u32 = 1 << 16;

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

fn read_header(reader: &mut dyn Read) -> io::Result<String> {
    let mut start = [0; 8];
    reader.read_exact(&mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(invalid("it does not begin with numpy's magic"));
    }
    let mut len = [0; 4];
    match start[6] {
        1 => reader.read_exact(&mut len[..2])?,
        2 | 3 => reader.read_exact(&mut len)?,
        _ => return Err(invalid("its format version is not 1, 2 or 3")),
    }
    let len = u32::from_le_bytes(len);
    if len > MAX_HEADER_LEN_BYTES {
        return Err(invalid("its header is longer than 64 KiB"));
    }
    let mut text = vec![0; len as usize];
    reader.read_exact(&mut text)?;
    String::from_utf8(text).map_err(|_| invalid("its header is not text"))
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// The three entries of a header. Our own parser because npyz's multiplies a hostile file's dimensions unchecked.
fn parse_header(text: &str) -> Result<Header, String> {
    let entry = |name: &str| {
        let quoted = format!("'{name}'");
        // A field of a record may have that name too.
        let after = |(at, name): (usize, &str)| text.get(at + name.len()..)?.trim_start().strip_prefix(':');
        let mut found = text.match_indices(&quoted).filter_map(after);
        found.next().map(str::trim_start).ok_or_else(|| format!("its header has no '{name}'"))
    };
    let fortran_order = match entry("fortran_order")? {
        value if value.starts_with("True") => true,
        value if value.starts_with("False") => false,
        _ => return Err("'fortran_order' is neither True nor False".to_owned()),
    };
    let shape = entry("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (dims, _) = shape.ok_or("'shape' is not a tuple")?;
    let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let shape = dims
        .map(|dim| dim.parse().map_err(|_| format!("dimension '{dim}' is not a number")))
        .collect::<Result<_, _>>()?;
    let descr = entry("descr")?;
    let plain = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    // What is no plain type is a list of record fields: kept as it is, to be named in the error.
    let descr = plain.map_or_else(|| record_descr(descr), |(descr, _)| descr.to_owned());
    Ok(Header { descr, fortran_order, shape })
}

/// A list of record fields, up to the bracket that closes it; the beginning of a long one.
fn record_descr(text: &str) -> String {
    const MOST: usize = 200;
    let mut depth = 0;
    let mut is_name = false;
    let end = text.char_indices().find(|(_, c)| {
        match *c {
            '\'' => is_name = !is_name,
            '[' if !is_name => depth += 1,
            ']' if !is_name => depth -= 1,
            _ => {}
        }
        *c == ']' && depth == 0
    });
    let whole = end.and_then(|(at, _)| text.get(..=at)).unwrap_or(text);
    match whole.char_indices().nth(MOST).and_then(|(at, _)| whole.get(..at)) {
        Some(begun) => format!("{begun}…"),
        None => whole.to_owned(),
    }
}

/// An element of fixed size.
trait Element: Copy {
    const LEN_BYTES: usize;
    fn from_le(bytes: &[u8]) -> Self;
    fn put_le(self, out: &mut Vec<u8>);
}

macro_rules! elements {
    ($($type:ty)*) => {
        $(impl Element for $type {
            const LEN_BYTES: usize = size_of::<$type>();

            fn from_le(bytes: &[u8]) -> $type {
                let mut array = [0; size_of::<$type>()];
                array.copy_from_slice(bytes);
                <$type>::from_le_bytes(array)
            }

            fn put_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

elements!(f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);

impl Element for bool {
    const LEN_BYTES: usize = 1;

    fn from_le(bytes: &[u8]) -> bool {
        bytes != [0]
    }

    fn put_le(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

/// Up to `count` elements, and the number of bytes the reader held. Memory grows with what is there, not with `count`.
fn read_elements<T: Element>(count: usize, big: bool, reader: &mut dyn Read) -> io::Result<(Vec<T>, u64)> {
    let (mut values, mut block, mut found) = (Vec::new(), Vec::new(), 0);
    let mut missing = count as u64 * T::LEN_BYTES as u64;
    while missing > 0 {
        block.clear();
        let n = reader.take(missing.min(1 << 18)).read_to_end(&mut block)? as u64;
        if n == 0 {
            return Ok((values, found));
        }
        if big {
            block.chunks_exact_mut(T::LEN_BYTES).for_each(<[u8]>::reverse);
        }
        values.extend(block.chunks_exact(T::LEN_BYTES).map(T::from_le));
        (found, missing) = (found + n, missing - n);
    }
    Ok((values, found + io::copy(reader, &mut io::sink())?))
}

/// Row-major elements from column-major ones.
fn transpose<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    while out.len() < values.len() {
        out.push(values[at]);
        // Counts the last axis fastest; `stride` is that of `axis`, whose column-major neighbours lie before it.
        let mut stride = values.len();
        for axis in (0..shape.len()).rev() {
            stride /= shape[axis];
            (index[axis], at) = (index[axis] + 1, at + stride);
            if index[axis] < shape[axis] {
                break;
            }
            (index[axis], at) = (0, at - stride * shape[axis]);
        }
    }
    out
}

/// Exact value of a `float16` from its bits.
fn half_to_f32(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if bits & 1023 == 0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests;
