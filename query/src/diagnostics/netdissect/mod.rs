//! NetDissect: which concepts a unit's high activations cover.

mod quantile;
mod upsample;

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::answer::{Data, Source};
use crate::diagnostics::finite::Finite;
use crate::error::{QueryError, Result};
use crate::reader::{ChunkReader, Request};
use crate::scan::{Scan, Unit};

use quantile::Top;
use upsample::{Bits, Upsampling};

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

/// Above what a unit counts as active.
#[derive(Debug, Clone, PartialEq)]
pub enum Thresholds {
    /// T_k of each unit.
    Values(Vec<f64>),
    /// The store holds only whether a value lies above the threshold that was fitted when it was logged.
    Stored {
        /// Whether every unit had its own.
        per_unit: bool,
    },
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
    /// Pixels at which each concept is.
    pub n_pixels: Vec<u64>,
    /// Where the values came from.
    pub source: Source,
}

/// α that a threshold store was logged for, and whether by unit; `None` for any other scheme.
fn stored_alpha(source: &Source) -> Option<(Option<f64>, bool)> {
    let Source::Read { scheme, .. } = source else { return None };
    let arguments = scheme.rsplit('+').next()?.strip_prefix("threshold(")?.strip_suffix(')')?;
    let (quantile, per_unit) = match arguments.split_once(',') {
        Some((quantile, _)) => (quantile, true),
        None => (arguments, false),
    };
    Some((quantile.parse::<f64>().ok().map(|q| 1.0 - q), per_unit))
}

/// T_k of each unit: the value that a share `alpha` of all cells of its maps lies above (numpy's linear quantile), exact,
/// in one pass. Memory is that of the highest share of the values.
///
/// Errors: `Undefined` for an `alpha` outside of (0, 1), no rows, and a threshold store of another `alpha`; `NotFinite`;
/// those of [`ChunkReader::scan`]. Source: Alg. 2, lines 2 and 3.
pub fn unit_thresholds(
    reader: &ChunkReader<'_>,
    request: &Request,
    alpha: f64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Thresholds> {
    thresholds(&reader.scan(request)?, alpha, progress)
}

fn thresholds(scan: &Scan<'_, '_>, alpha: f64, progress: &mut dyn FnMut(u64, u64)) -> Result<Thresholds> {
    let what = || format!("NetDissect of {}", scan.key());
    if !(alpha > 0.0 && alpha < 1.0) {
        return Err(QueryError::Undefined { what: what(), why: format!("alpha lies between 0 and 1, got {alpha}") });
    }
    match stored_alpha(&scan.source()) {
        Some((Some(stored), per_unit)) if (stored - alpha).abs() < 1e-9 => return Ok(Thresholds::Stored { per_unit }),
        Some((stored, _)) => {
            let only = stored.map_or("a fixed value".into(), |a| format!("alpha {}", (a * 1e9).round() / 1e9));
            let why = format!(
                "what is stored says only which values lie above {only}, not above alpha {alpha}; ask for exact values, \
                 which runs the model again, or log it under another scheme"
            );
            return Err(QueryError::Undefined { what: what(), why });
        }
        None => {}
    }
    let units = scan.units();
    let n_rows = scan.rows().len();
    if n_rows == 0 {
        return Err(QueryError::Undefined { what: what(), why: "it has no rows".into() });
    }
    let mut tops: Vec<Top> = units.iter().map(|u| Top::new(n_rows * u.columns.len(), alpha)).collect();
    let mut finite = Finite::new(scan.columns().len());
    let mut done = 0;
    scan.for_each(|block| {
        done += block.rows.len() as u64;
        let width = block.width.max(1);
        match &block.data {
            Data::F32(values) => see(&mut tops, &units, &mut finite, values, width),
            Data::F64(values) => see(&mut tops, &units, &mut finite, values, width),
            Data::Table(batch) => see(&mut tops, &units, &mut finite, &crate::answer::table_f64(batch)?, width),
        }
        progress(done, n_rows as u64);
        Ok(())
    })?;
    finite.verdict(|c| (scan.key().to_string(), scan.columns().get(c).cloned().unwrap_or_default()))?;
    Ok(Thresholds::Values(tops.into_iter().map(Top::quantile).collect()))
}

/// Shows a block's values to the units' tops.
fn see<T: Copy + Into<f64> + Sync>(tops: &mut [Top], units: &[Unit], finite: &mut Finite, values: &[T], width: usize) {
    if !finite.see(values) {
        return;
    }
    tops.par_iter_mut().zip(units).for_each(|(top, unit)| {
        for row in values.chunks_exact(width) {
            row.get(unit.columns.clone()).unwrap_or_default().iter().for_each(|v| top.push((*v).into()));
        }
    });
}

/// Counts of pixels.
#[derive(Clone)]
struct Counts {
    /// sizes of masks × units.
    active: Vec<u64>,
    /// units × concepts.
    both: Vec<u64>,
    concept: Vec<u64>,
}

impl Counts {
    fn plus(mut self, other: &Self) -> Self {
        let add = |a: &mut [u64], b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.active, &other.active);
        add(&mut self.both, &other.both);
        add(&mut self.concept, &other.concept);
        self
    }
}

/// What all examples share.
struct Job<'m> {
    masks: &'m dyn Masks,
    units: Vec<Unit>,
    maps: Vec<(usize, usize)>,
    limits: Vec<f64>,
    /// Sizes of masks, each with its concepts.
    sizes: Vec<((usize, usize), Vec<usize>)>,
}

/// Intersection over union of every unit's active pixels with every concept, in one pass over the layer.
///
/// A unit is active where its map, enlarged to the masks' size, lies above T_k. Maps are enlarged bilinearly between the
/// middles of cells, as the reference does; the bits of a threshold store, where the enlarged bit lies above a half. What
/// is active is strictly above T_k, as in the text and the reference, where Alg. 2 has ≥: so a dead unit, whose T_k is its
/// only value, detects nothing. Examples without a mask of a concept count as without the concept.
/// `thresholds` are those of an earlier [`unit_thresholds`]; `None` computes them, in a pass of their own.
///
/// Errors: as there; `Mask` for masks of a wrong size and those that cannot be read; `Undefined` without concepts or
/// where `thresholds` are of another number of units. Source: Alg. 2.
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
    let passes = if known.is_some() { 1 } else { 2 };
    let found = match known {
        Some(thresholds) => thresholds,
        None => thresholds(&scan, alpha, &mut |done, all| progress(done, all * passes))?,
    };
    let limits: Vec<f64> = match &found {
        Thresholds::Values(values) if values.len() == units.len() => values.clone(),
        Thresholds::Values(values) => {
            return Err(undefined(format!("{} thresholds for {} units", values.len(), units.len())));
        }
        Thresholds::Stored { .. } => vec![0.5; units.len()],
    };
    let maps: Vec<(usize, usize)> = units.iter().map(|u| scan.map(u)).collect();
    let n_concepts = masks.concepts().len();
    let mut sizes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for concept in 0..n_concepts {
        sizes.entry(masks.size(concept)).or_default().push(concept);
    }
    let job = Job { masks, units, maps, limits, sizes: sizes.into_iter().collect() };
    let n_units = job.units.len();
    let empty = Counts {
        active: vec![0; job.sizes.len() * n_units],
        both: vec![0; n_units * n_concepts],
        concept: vec![0; n_concepts],
    };
    let mut counts = empty.clone();
    let mut done = n_rows * (passes - 1);
    scan.for_each(|block| {
        let (rows, width) = (block.rows.clone(), block.width.max(1));
        let values = block.into_f64()?;
        let part = rows
            .par_iter()
            .zip(values.par_chunks_exact(width))
            .try_fold(|| empty.clone(), |counts, (row, values)| job.example(counts, *row, values))
            .try_reduce(|| empty.clone(), |a, b| Ok(a.plus(&b)))?;
        counts = counts.clone().plus(&part);
        done += rows.len() as u64;
        progress(done, n_rows * passes);
        Ok(())
    })?;
    let mut iou = vec![f64::NAN; counts.both.len()];
    for (s, (_, concepts)) in job.sizes.iter().enumerate() {
        for &concept in concepts {
            for unit in 0..n_units {
                let count = |list: &[u64], i: usize| list.get(i).copied().unwrap_or(0);
                let both = count(&counts.both, unit * n_concepts + concept);
                let either = count(&counts.active, s * n_units + unit) + count(&counts.concept, concept) - both;
                if let Some(iou) = iou.get_mut(unit * n_concepts + concept) {
                    *iou = both as f64 / either as f64;
                }
            }
        }
    }
    Ok(Dissection {
        key: scan.key().to_string(),
        units: job.units.into_iter().map(|u| u.name).collect(),
        concepts: masks.concepts().to_vec(),
        thresholds: found,
        iou,
        n_rows,
        n_pixels: counts.concept,
        source: scan.source(),
    })
}

impl Job<'_> {
    /// Counts one example.
    fn example(&self, mut counts: Counts, row: u64, values: &[f64]) -> Result<Counts> {
        let (n_units, n_concepts) = (self.units.len(), self.masks.concepts().len());
        for (s, (size, concepts)) in self.sizes.iter().enumerate() {
            let mut there = Vec::with_capacity(concepts.len());
            for &concept in concepts {
                let Some(on) = self.masks.mask(concept, row)? else { continue };
                if on.len() != size.0 * size.1 {
                    let name = self.masks.concepts().get(concept).cloned().unwrap_or_default();
                    let why = format!("{} pixels are no {} × {}", on.len(), size.0, size.1);
                    return Err(QueryError::Mask { concept: name, row, why });
                }
                let bits = Bits::of(on.into_iter());
                if let Some(n) = counts.concept.get_mut(concept) {
                    *n += bits.count();
                }
                there.push((concept, bits));
            }
            let mut cached: Option<((usize, usize), Upsampling)> = None;
            for (u, ((unit, map), limit)) in self.units.iter().zip(&self.maps).zip(&self.limits).enumerate() {
                let cells = values.get(unit.columns.clone()).unwrap_or_default();
                // Bilinear values never pass the largest cell.
                if !cells.iter().any(|v| v > limit) {
                    continue;
                }
                if cached.as_ref().is_none_or(|(m, _)| m != map) {
                    cached = Some((*map, Upsampling::new(*map, *size)));
                }
                let Some((_, upsampling)) = &mut cached else { continue };
                let bits = upsampling.above(cells, *limit);
                if let Some(n) = counts.active.get_mut(s * n_units + u) {
                    *n += bits.count();
                }
                for (concept, mask) in &there {
                    if let Some(n) = counts.both.get_mut(u * n_concepts + concept) {
                        *n += bits.both(mask);
                    }
                }
            }
        }
        Ok(counts)
    }
}
