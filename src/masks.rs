//! Masks of concepts in a folder: a folder of PNGs or an `.npy` array for each concept.
//!
//! ```text
//! masks/
//!   wheel/17.png     a pixel that is not black shows the concept; row_ids may have leading zeros
//!   wheel/203.png
//!   sky.npy          rows × height × width: what is not zero shows the concept; the first axis is the row_id
//! ```
//!
//! An example without a file, or beyond an array's rows, is one without the concept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use mistique_engine::RowSet;
use mistique_query::QueryError;
use mistique_query::diagnostics::Masks;

/// Why a folder of masks cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// It.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// A file that is not what was expected.
    #[error("{path}: {why}")]
    Content {
        /// It.
        path: PathBuf,
        /// What was expected.
        why: String,
    },
}

/// Masks that lie in a folder. Arrays are held in memory; PNGs are read when they are needed.
#[derive(Debug)]
pub struct MaskFolder {
    concepts: Vec<String>,
    kinds: Vec<Kind>,
}

#[derive(Debug)]
enum Kind {
    Files {
        size: (usize, usize),
        by_row: HashMap<u64, PathBuf>,
    },
    /// A bit a pixel, rows × height × width.
    Array {
        size: (usize, usize),
        n_rows: u64,
        bits: Vec<u8>,
    },
}

fn content(path: &Path, why: impl Into<String>) -> MaskError {
    MaskError::Content { path: path.to_path_buf(), why: why.into() }
}

impl MaskFolder {
    /// The masks of a folder, by name of concept.
    ///
    /// Errors: `File`; `Content` for a folder without masks, a PNG that is named after no row_id, an array that has not
    /// three axes, and what cannot be decoded.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, MaskError> {
        let dir = dir.as_ref();
        let mut found: BTreeMap<String, Kind> = BTreeMap::new();
        for path in entries(dir)? {
            let stem = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_string();
            let (name, kind) = if path.is_dir() {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
                let Some(kind) = files(&path)? else { continue };
                (name, kind)
            } else if path.extension().is_some_and(|e| e == "npy") {
                (stem, array(&path)?)
            } else {
                continue;
            };
            if found.insert(name.clone(), kind).is_some() {
                return Err(content(&path, format!("{name} is a folder and an array; keep one")));
            }
        }
        if found.is_empty() {
            return Err(content(dir, "no masks; expected CONCEPT/ROW_ID.png or CONCEPT.npy (rows × height × width)"));
        }
        let (concepts, kinds) = found.into_iter().unzip();
        Ok(Self { concepts, kinds })
    }
}

impl MaskFolder {
    /// Concepts whose array ends before `row`, and the rows that it has: later examples show nothing of them.
    pub fn ending_before(&self, row: u64) -> Vec<(&str, u64)> {
        let arrays = self.concepts.iter().zip(&self.kinds).filter_map(|(name, kind)| match kind {
            Kind::Array { n_rows, .. } => Some((name.as_str(), *n_rows)),
            Kind::Files { .. } => None,
        });
        arrays.filter(|(_, n_rows)| *n_rows <= row).collect()
    }

    /// Concepts whose masks have fewer rows or columns than maps of that shape (`[units, height, width]`), and how many.
    pub fn smaller_than(&self, row_shape: &[usize]) -> Vec<(&str, (usize, usize))> {
        let [_, height, width] = *row_shape else { return Vec::new() };
        let sized = self.concepts.iter().zip(&self.kinds).map(|(name, kind)| match kind {
            Kind::Files { size, .. } | Kind::Array { size, .. } => (name.as_str(), *size),
        });
        sized.filter(|(_, (h, w))| *h < height || *w < width).collect()
    }

    /// Concepts with masks of examples that are not among `rows`, and how many these are.
    pub fn beyond(&self, rows: &RowSet) -> Vec<(&str, u64)> {
        let ids: Option<HashSet<u64>> = match rows {
            RowSet::Range(_) => None,
            RowSet::List(ids) => Some(ids.iter().copied().collect()),
        };
        let lacks = |row: &u64| match (rows, &ids) {
            (RowSet::Range(range), _) => !range.contains(row),
            (_, ids) => ids.as_ref().is_some_and(|ids| !ids.contains(row)),
        };
        let beyond = self.concepts.iter().zip(&self.kinds).map(|(name, kind)| {
            let n = match kind {
                Kind::Array { n_rows, .. } => (0..*n_rows).filter(lacks).count(),
                Kind::Files { by_row, .. } => by_row.keys().filter(|row| lacks(row)).count(),
            };
            (name.as_str(), n as u64)
        });
        beyond.filter(|(_, n)| *n > 0).collect()
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, MaskError> {
    let file = |source| MaskError::File { path: dir.to_path_buf(), source };
    let mut paths =
        std::fs::read_dir(dir).map_err(file)?.map(|e| Ok(e.map_err(file)?.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

/// The PNGs of a concept; `None` where there are none.
fn files(dir: &Path) -> Result<Option<Kind>, MaskError> {
    let mut by_row = HashMap::new();
    let mut size = None;
    for path in entries(dir)? {
        if path.extension().is_none_or(|e| e != "png") {
            continue;
        }
        let row: Option<u64> = path.file_stem().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
        let row = row.ok_or_else(|| content(&path, "masks are named after their row_id, such as 17.png"))?;
        if size.is_none() {
            size = Some(open_png(&path)?.1);
        }
        if by_row.insert(row, path.clone()).is_some() {
            return Err(content(&path, format!("a second mask of row {row}")));
        }
    }
    Ok(size.map(|size| Kind::Files { size, by_row }))
}

fn array(path: &Path) -> Result<Kind, MaskError> {
    let array = mistique_datasets::read_npy(path).map_err(|e| content(path, e.to_string()))?;
    let [n_rows, height, width] = array.shape[..] else {
        return Err(content(path, format!("shape {:?}; expected rows × height × width", array.shape)));
    };
    if height * width == 0 {
        return Err(content(path, "masks without pixels"));
    }
    let mut bits = vec![0u8; array.data.len().div_ceil(8)];
    let mut part = Vec::new();
    for start in (0..array.data.len()).step_by(1 << 16) {
        part.clear();
        array.data.extend_f32(start..(start + (1 << 16)).min(array.data.len()), &mut part);
        if let Some(at) = part.iter().position(|v| v.is_nan()) {
            let row = (start + at) / (height * width);
            return Err(content(path, format!("NaN in the mask of row {row}: neither there nor not")));
        }
        for (i, v) in (start..).zip(&part) {
            if let Some(byte) = bits.get_mut(i / 8) {
                *byte |= u8::from(*v != 0.0) << (i % 8);
            }
        }
    }
    Ok(Kind::Array { size: (height, width), n_rows: n_rows as u64, bits })
}

type PngReader = png::Reader<BufReader<std::fs::File>>;

fn open_png(path: &Path) -> Result<(PngReader, (usize, usize)), MaskError> {
    let file = std::fs::File::open(path).map_err(|source| MaskError::File { path: path.to_path_buf(), source })?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::EXPAND);
    let reader = decoder.read_info().map_err(|e| content(path, e.to_string()))?;
    let size = (reader.info().height as usize, reader.info().width as usize);
    Ok((reader, size))
}

fn read_png(path: &Path, expected: (usize, usize)) -> Result<Vec<bool>, MaskError> {
    let (mut reader, size) = open_png(path)?;
    if size != expected {
        let why =
            format!("{} × {} pixels, where the concept's others have {} × {}", size.0, size.1, expected.0, expected.1);
        return Err(content(path, why));
    }
    let len = reader.output_buffer_size().ok_or_else(|| content(path, "too large"))?;
    let mut pixels = vec![0; len];
    let info = reader.next_frame(&mut pixels).map_err(|e| content(path, e.to_string()))?;
    let (channels, bytes) = (info.color_type.samples(), info.bit_depth as usize / 8);
    // Transparency is no colour.
    let colours = if matches!(channels, 2 | 4) { channels - 1 } else { channels };
    let marked = |pixel: &[u8]| pixel.iter().take(colours * bytes).any(|v| *v != 0);
    Ok(pixels.chunks_exact(channels * bytes).take(size.0 * size.1).map(marked).collect())
}

impl Masks for MaskFolder {
    fn concepts(&self) -> &[String] {
        &self.concepts
    }

    fn size(&self, concept: usize) -> (usize, usize) {
        match self.kinds.get(concept) {
            Some(Kind::Files { size, .. } | Kind::Array { size, .. }) => *size,
            None => (0, 0),
        }
    }

    fn mask(&self, concept: usize, row: u64) -> Result<Option<Vec<bool>>, QueryError> {
        match self.kinds.get(concept) {
            Some(Kind::Files { size, by_row }) => {
                let Some(path) = by_row.get(&row) else { return Ok(None) };
                let named = |e: MaskError| QueryError::Mask {
                    concept: self.concepts.get(concept).cloned().unwrap_or_default(),
                    row,
                    why: e.to_string(),
                };
                read_png(path, *size).map(Some).map_err(named)
            }
            Some(Kind::Array { size, n_rows, bits }) if row < *n_rows => {
                let n = size.0 * size.1;
                let start = row as usize * n;
                let bit = |i: usize| bits.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
                Ok(Some((start..start + n).map(bit).collect()))
            }
            _ => Ok(None),
        }
    }
}
