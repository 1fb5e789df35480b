//! Sets of tables, as pipelines read them: the files of a folder, one file, or tables that a generator makes.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::csv::WriterBuilder;
use arrow::record_batch::RecordBatch;

use crate::files::{io_error, read_file};
use crate::fingerprint::Fingerprint;
use crate::spec::named;
use crate::table::{arrow_error, concat};
use crate::{DatasetError, Spec, Target, generate_housing, generate_zillow};

/// Named tables.
pub trait TableSet: Send + Sync {
    /// Default name of the set in a store.
    fn name(&self) -> String;

    /// Text from which [`open_tables`] opens it again, with absolute paths.
    fn source(&self) -> String;

    /// Names of its tables, where they are listed.
    fn files(&self) -> Vec<String>;

    /// The table called `file`.
    ///
    /// Errors: `NotFound` with the names that there are.
    fn file(&self, file: &str) -> Result<TableFile, DatasetError>;
}

/// A table of a [`TableSet`].
#[derive(Debug, Clone)]
pub enum TableFile {
    /// A file.
    Path(PathBuf),
    /// Made by a generator.
    Generated(Generated),
}

/// A generated table, not yet made.
#[derive(Debug, Clone)]
pub struct Generated {
    spec: Spec,
    file: &'static str,
    generator: &'static Generator,
}

/// Rows that a generator makes at a time, so that tables can be written that do not fit into memory.
const BLOCK: u64 = 1 << 16;

impl Generated {
    /// The table.
    ///
    /// Errors: `BadSpec` for options out of range, `Arrow`.
    pub fn make(&self) -> Result<RecordBatch, DatasetError> {
        let blocks = self.blocks()?.collect::<Result<Vec<_>, _>>()?;
        match &blocks[..] {
            [only] => Ok(only.clone()),
            _ => concat(self.file, &(self.generator.make)(&self.spec, self.file, 0..0)?.schema(), &blocks),
        }
    }

    /// Writes the table as CSV with a header line, block by block; the number of its rows.
    ///
    /// Errors: `BadSpec` for options out of range, `Arrow`; `Io`, which names `path`.
    pub fn write_csv(&self, out: &mut dyn Write, path: &Path) -> Result<u64, DatasetError> {
        let mut n_rows = 0;
        for (i, block) in self.blocks()?.enumerate() {
            let block = block?;
            n_rows += block.num_rows() as u64;
            let mut writer = WriterBuilder::new().with_header(i == 0).build(&mut *out);
            writer.write(&block).map_err(arrow_error(&path.display().to_string()))?;
        }
        out.flush().map_err(io_error(path, "write"))?;
        Ok(n_rows)
    }

    fn blocks(&self) -> Result<impl Iterator<Item = Result<RecordBatch, DatasetError>> + '_, DatasetError> {
        let n_rows = (self.generator.n_rows)(&self.spec)?;
        let starts = (0..n_rows).step_by(BLOCK as usize);
        Ok(starts.map(move |start| (self.generator.make)(&self.spec, self.file, start..n_rows.min(start + BLOCK))))
    }
}

impl TableFile {
    /// Hash of the content: of a file's bytes; of a generated table, of what it is made from.
    ///
    /// Errors: `NotFound`, `Io`.
    pub fn fingerprint(&self) -> Result<[u8; 16], DatasetError> {
        match self {
            TableFile::Path(path) => {
                let bytes = read_file(path, "a file", "check the path")?;
                let mut hash = Fingerprint::new("file");
                hash.number(bytes.len() as u64);
                hash.bytes(&bytes);
                Ok(hash.finish())
            }
            TableFile::Generated(g) => {
                let mut hash = Fingerprint::new("generated table");
                hash.number(g.generator.version);
                hash.text(&g.spec.to_string());
                hash.text(g.file);
                Ok(hash.finish())
            }
        }
    }
}

/// A generator of tables.
#[derive(Debug)]
pub(crate) struct Generator {
    /// Name of the loader whose specs it takes.
    pub(crate) loader: &'static str,
    /// Names of its tables, as the real files are called.
    pub(crate) files: &'static [&'static str],
    /// Changes whenever the values do that it makes.
    pub(crate) version: u64,
    /// Rows that a spec asks for.
    pub(crate) n_rows: fn(&Spec) -> Result<u64, DatasetError>,
    /// Makes these rows of a table, or what belongs to them; the same bits for the same spec, in whatever pieces.
    pub(crate) make: fn(&Spec, &str, Range<u64>) -> Result<RecordBatch, DatasetError>,
}

/// All generators of tables.
const GENERATORS: &[&Generator] = &[&generate_housing::TABLES, &generate_zillow::TABLES];

/// The tables that `text` names: a folder, a file, or a generator's spec such as `generated:housing?rows=1000`.
///
/// Errors: `BadSpec`, `NotFound`.
pub fn open_tables(text: &str) -> Result<Box<dyn TableSet>, DatasetError> {
    let path = Path::new(text);
    if path.is_dir() {
        return Ok(Box::new(Folder { path: absolute(path) }));
    }
    if path.is_file() {
        return Ok(Box::new(OneFile { path: absolute(path) }));
    }
    // A text that begins as a spec does is a spec, with its own mistakes.
    if named(text).is_some() {
        let spec = text.parse::<Spec>()?;
        if let Some(generator) = GENERATORS.iter().copied().find(|g| g.loader == spec.loader().name) {
            return Ok(Box::new(Made { spec, generator }));
        }
        if let (Target::File, Some(path)) = (spec.loader().target, spec.path()) {
            return Ok(Box::new(OneFile { path: absolute(path) }));
        }
    }
    let generators: Vec<&str> = GENERATORS.iter().map(|g| g.loader).collect();
    Err(DatasetError::BadSpec {
        spec: text.to_owned(),
        why: "it is neither a folder, a file nor a generator of tables".to_owned(),
        hint: format!("write a path, or one of {}", generators.join(", ")),
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn missing(path: PathBuf, known: &[String]) -> DatasetError {
    let hint = match known.is_empty() {
        true => "check --data and the stage's file".to_owned(),
        false => format!("there are {}; check --data and the stage's file", known.join(", ")),
    };
    DatasetError::NotFound { path, expected: "a table", hint }
}

struct Folder {
    path: PathBuf,
}

impl TableSet for Folder {
    fn name(&self) -> String {
        self.path.file_name().map_or_else(|| "data".into(), |n| n.to_string_lossy().into_owned())
    }

    fn source(&self) -> String {
        self.path.display().to_string()
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.filter(|e| e.path().is_file()).map(|e| e.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn file(&self, file: &str) -> Result<TableFile, DatasetError> {
        let path = self.path.join(file);
        if path.is_file() { Ok(TableFile::Path(path)) } else { Err(missing(path, &self.files())) }
    }
}

struct OneFile {
    path: PathBuf,
}

impl TableSet for OneFile {
    fn name(&self) -> String {
        self.path.file_stem().map_or_else(|| "data".into(), |n| n.to_string_lossy().into_owned())
    }

    fn source(&self) -> String {
        self.path.display().to_string()
    }

    fn files(&self) -> Vec<String> {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).into_iter().collect()
    }

    fn file(&self, file: &str) -> Result<TableFile, DatasetError> {
        let own = self.files();
        if own.iter().any(|f| f == file) && self.path.is_file() {
            Ok(TableFile::Path(self.path.clone()))
        } else {
            Err(missing(PathBuf::from(file), &own))
        }
    }
}

struct Made {
    spec: Spec,
    generator: &'static Generator,
}

impl TableSet for Made {
    fn name(&self) -> String {
        self.spec.to_string()
    }

    fn source(&self) -> String {
        self.spec.to_string()
    }

    fn files(&self) -> Vec<String> {
        self.generator.files.iter().map(|f| (*f).to_owned()).collect()
    }

    fn file(&self, file: &str) -> Result<TableFile, DatasetError> {
        match self.generator.files.iter().find(|f| **f == file) {
            Some(&file) => {
                Ok(TableFile::Generated(Generated { spec: self.spec.clone(), file, generator: self.generator }))
            }
            None => Err(missing(PathBuf::from(file), &self.files())),
        }
    }
}
