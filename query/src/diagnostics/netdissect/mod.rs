//! NetDissect: which concepts a unit's high activations cover.

mod counts;
mod quantile;
mod thresholds;
mod upsample;

use crate::answer::Source;
use crate::error::{QueryError, Result};
use crate::reader::{ChunkReader, Request};

use counts::Job;
pub use thresholds::{Thresholds, unit_thresholds};

/// Concepts and where they are.
pub trait Masks: Sync {
    /// Names.
    fn concepts(&self) -> &[String];

    /// Height and width, in pixels, of all masks of a concept.
    fn size(&self, concept: usize) -> (usize, usize);

    /// Whether each pixel of an example shows a concept, row by row; `None` where nothing of it is there.
    ///
    /// Errors: `Mask` where it cannot be read, or has another size.
    fn mask(&self, concept: usize, row: u64) -> Result<Option<Vec<bool>>>;
}

/// How well units and concepts overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Dissection {
    /// Key of the intermediate.
    pub key: String,
    /// Names of the units.
    pub units: Vec<String>,
    /// Names of the concepts.
    pub concepts: Vec<String>,
    /// T_k.
    pub thresholds: Thresholds,
    /// Intersection over union: units × concepts. NaN where neither is anywhere.
    pub iou: Vec<f64>,
    /// Examples.
    pub n_rows: u64,
    /// The largest row_id among them.
    pub last_row: u64,
    /// Pixels at which each concept is.
    pub n_pixels: Vec<u64>,
    /// Where the values came from.
    pub source: Source,
    /// Why thresholds that were computed are not kept for the next question.
    pub note: Option<String>,
}

/// Intersection over union of every unit's active pixels with every concept, in one pass over the layer.
///
/// A unit is active where its map, enlarged to the masks' size, lies above T_k. Maps are enlarged bilinearly between the
/// middles of cells, as the reference does; the bits of a threshold store, where the enlarged bit lies above a half. What
/// is active is strictly above T_k, as in the text and the reference, where Alg. 2 has ≥: so a dead unit, whose T_k is its
/// only value, detects nothing. Examples without a mask of a concept count as without the concept.
/// `known` are those of an earlier [`unit_thresholds`]; `None` takes those that are kept, or computes them in a pass of
/// their own. What is stored is met as codes: pages that hold nothing above T_k are not decoded.
///
/// Errors: as there; `Mask` for masks of a wrong size and those that cannot be read; `Undefined` without concepts or
/// where `known` are of another number of units. Source: Alg. 2.
pub fn netdissect(
    reader: &ChunkReader<'_>,
    request: &Request,
    masks: &dyn Masks,
    alpha: f64,
    known: Option<Thresholds>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Dissection> {
    let scan = reader.scan(request)?;
    let units = scan.units();
    let undefined = |why: String| QueryError::Undefined { what: format!("NetDissect of {}", scan.key()), why };
    if masks.concepts().is_empty() {
        return Err(undefined("there are no concepts".into()));
    }
    let n_rows = scan.rows().len() as u64;
    let last_row = scan.rows().iter().max().unwrap_or_default();
    let (mut before, mut note) = (0, None);
    let found = match known {
        Some(thresholds) => thresholds,
        None => {
            let found = thresholds::of(reader, &scan, alpha, &mut |done, all| {
                before = n_rows;
                progress(done, all + n_rows);
            })?;
            note = found.note;
            found.thresholds
        }
    };
    let limits: Vec<f64> = match &found {
        Thresholds::Values(values) if values.len() == units.len() => values.clone(),
        Thresholds::Values(values) => {
            return Err(undefined(format!("{} thresholds for {} units", values.len(), units.len())));
        }
        Thresholds::Stored { .. } => vec![0.5; units.len()],
    };
    let job = Job::new(masks, &scan, limits);
    let counts = job.count(&scan, &mut |done| progress(before + done, before + n_rows))?;
    Ok(Dissection {
        key: scan.key().to_string(),
        units: units.into_iter().map(|u| u.name).collect(),
        concepts: masks.concepts().to_vec(),
        thresholds: found,
        iou: job.iou(&counts),
        n_rows,
        last_row,
        n_pixels: counts.concept,
        source: scan.source(),
        note,
    })
}
