//! The canonical form of an Arrow column, for fingerprints.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::DatasetError;
use crate::fingerprint::Fingerprint;
use crate::table::arrow_error;

/// Adds a column's type and values.
///
/// Equal content gives an equal stream whichever way Arrow lays it out: texts and binaries of all offset widths are one
/// type each, dictionaries are looked up, and what lies under a null is not seen.
pub(crate) fn hash_column(
    hash: &mut Fingerprint,
    origin: &str,
    name: &str,
    column: &ArrayRef,
) -> Result<(), DatasetError> {
    let plain = |to: &DataType| cast(column, to).map_err(arrow_error(origin));
    hash.number(column.len() as u64);
    match column.data_type() {
        DataType::Null => hash.text("null"),
        DataType::Boolean => {
            hash.text("bool");
            column.as_boolean().iter().for_each(|value| hash.bytes(&[value.map_or(2, u8::from)]));
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            hash.text("utf8");
            for value in plain(&DataType::LargeUtf8)?.as_string::<i64>() {
                hash_optional(hash, value.map(str::as_bytes));
            }
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            hash.text("binary");
            for value in plain(&DataType::LargeBinary)?.as_binary::<i64>() {
                hash_optional(hash, value);
            }
        }
        DataType::Dictionary(_, values) => hash_column(hash, origin, name, &plain(values)?)?,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            hash.text("list");
            let lists = match column.data_type() {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    plain(&DataType::LargeList(item.clone()))?
                }
                _ => column.clone(),
            };
            for value in lists.as_list::<i64>().iter() {
                hash.number(u64::from(value.is_some()));
                if let Some(value) = value {
                    hash_column(hash, origin, name, &value)?;
                }
            }
        }
        DataType::Struct(fields) => {
            hash.text("struct");
            hash.number(fields.len() as u64);
            (0..column.len()).for_each(|row| hash.bytes(&[u8::from(column.is_null(row))]));
            for (field, child) in fields.iter().zip(column.as_struct().columns()) {
                hash.text(field.name());
                hash_column(hash, origin, name, child)?;
            }
        }
        data_type => match data_type.primitive_width() {
            Some(width) => {
                hash.text(&data_type.to_string());
                let data = column.to_data();
                let values = data.buffers()[0].as_slice();
                for row in 0..column.len() {
                    let at = (data.offset() + row) * width;
                    match column.is_null(row) {
                        true => hash.bytes(&[0]),
                        false => {
                            hash.bytes(&[1]);
                            hash.bytes(&values[at..at + width]);
                        }
                    }
                }
            }
            None => {
                return Err(DatasetError::Unsupported {
                    origin: origin.to_owned(),
                    what: format!("column '{name}' of type {data_type}"),
                    hint: "convert the column to a plain type or leave it out",
                });
            }
        },
    }
    Ok(())
}

fn hash_optional(hash: &mut Fingerprint, value: Option<&[u8]>) {
    hash.number(value.map_or(0, |value| 1 + value.len() as u64));
    hash.bytes(value.unwrap_or_default());
}
