//! Parquet files.

use std::path::Path;

use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::files::open_file;
use crate::table::{Table, arrow_error, concat};
use crate::{Dataset, DatasetError, Loader, Spec, Target};

pub(crate) const LOADER: Loader = Loader {
    name: "parquet",
    usage: "parquet:FILE[?label=COLUMN]",
    about: "a Parquet file; its numeric columns are the features",
    target: Target::File,
    options: &["label"],
    path_options: &[],
    open,
};

fn open(spec: &Spec) -> Result<Box<dyn Dataset>, DatasetError> {
    let path = spec.target();
    Ok(Box::new(Table::new(&path.display().to_string(), read_parquet(&path)?, spec.option("label"))?))
}

/// The table in a Parquet file.
///
/// Errors: `NotFound`; `Parquet`, `Arrow` or `WrongFormat` for a damaged or foreign file.
pub fn read_parquet(path: impl AsRef<Path>) -> Result<RecordBatch, DatasetError> {
    let path = path.as_ref();
    // The parquet crate panics on some damaged pages. Nothing that it was working on is used afterwards.
    std::panic::catch_unwind(|| decode(path)).unwrap_or_else(|_| {
        Err(DatasetError::WrongFormat {
            path: path.to_owned(),
            expected: "a readable Parquet file",
            why: "its pages contradict its metadata".to_owned(),
            hint: "the file is damaged: copy or write it again",
        })
    })
}

fn decode(path: &Path) -> Result<RecordBatch, DatasetError> {
    let file = open_file(path, "a Parquet file", "check the path")?;
    let parquet_error = |source| DatasetError::Parquet { path: path.to_owned(), source };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(parquet_error)?;
    let schema = reader.schema().clone();
    let reader = reader.with_batch_size(1 << 16).build().map_err(parquet_error)?;
    let origin = path.display().to_string();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(arrow_error(&origin))?;
    concat(&origin, &schema, &batches)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::{open, read_csv};

    #[test]
    fn a_table_is_the_same_in_csv_and_parquet() {
        let dir = tempfile::tempdir().unwrap();
        let (csv, parquet) = (dir.path().join("t.csv"), dir.path().join("t.parquet"));
        fs::write(&csv, "a,b,day,name,yes\n1,0.5,2024-02-29,x,true\n2,,1969-12-31,,false\n").unwrap();
        let batch = read_csv(&csv).unwrap();
        let mut writer = ArrowWriter::try_new(fs::File::create(&parquet).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        assert_eq!(read_parquet(&parquet).unwrap(), batch);

        let load = |text: String| open(&text.parse().unwrap());
        let (a, b) =
            (load(format!("csv:{}", csv.display())).unwrap(), load(format!("parquet:{}", parquet.display())).unwrap());
        assert_eq!(a.fingerprint(), b.fingerprint());
        let labelled = load(format!("parquet:{}?label=a", parquet.display())).unwrap();
        assert_ne!(labelled.fingerprint(), b.fingerprint());
        assert_eq!((labelled.labels(), labelled.feature_names().unwrap()), (Some(&[1, 2][..]), &["b".to_owned()][..]));
        let error = load(format!("parquet:{}?label=c", parquet.display())).err().unwrap().to_string();
        assert!(error.contains("no column 'c'; the columns are a, b, day, name, yes"), "{error}");
    }

    #[test]
    fn damaged_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        assert!(matches!(read_parquet(&path), Err(DatasetError::NotFound { .. })));
        for content in [&b""[..], b"PAR1", b"a,b\n1,2\n", b"PAR1\0\0\0\0\xff\xff\xff\x7fPAR1"] {
            fs::write(&path, content).unwrap();
            let error = read_parquet(&path).unwrap_err();
            assert!(matches!(error, DatasetError::Parquet { .. }), "{error}");
            assert!(error.to_string().contains("t.parquet"));
        }
    }
}
