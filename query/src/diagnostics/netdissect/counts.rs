//! Pixels at which units are active, concepts are, and both: on codes where values are READ, else on values.

use std::collections::{BTreeMap, HashMap};

use mistique_engine::CodePage;
use rayon::prelude::*;

use super::Masks;
use super::upsample::{Bits, Upsampling};
use crate::codes::{CodeScan, CodeUnit};
use crate::error::{QueryError, Result};
use crate::scan::{Scan, Unit};

/// Counts of pixels.
#[derive(Clone)]
pub(super) struct Counts {
    /// sizes of masks × units.
    active: Vec<u64>,
    /// units × concepts.
    both: Vec<u64>,
    /// By concept.
    pub concept: Vec<u64>,
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

/// The masks of an example, by size: concepts that are there, and where.
type There = Vec<Vec<(usize, Bits)>>;

/// What all examples share.
pub(super) struct Job<'m> {
    masks: &'m dyn Masks,
    units: Vec<Unit>,
    maps: Vec<(usize, usize)>,
    limits: Vec<f64>,
    /// Sizes of masks, each with its concepts.
    sizes: Vec<((usize, usize), Vec<usize>)>,
}

/// How maps of a shape are enlarged to each size of masks.
struct Enlarged(Option<((usize, usize), Vec<Upsampling>)>);

impl<'m> Job<'m> {
    /// Counts the scan's units against masks; a unit is active above its limit.
    pub fn new(masks: &'m dyn Masks, scan: &Scan<'_, '_>, limits: Vec<f64>) -> Self {
        let units = scan.units();
        let maps = units.iter().map(|u| scan.map(u)).collect();
        let mut sizes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for concept in 0..masks.concepts().len() {
            sizes.entry(masks.size(concept)).or_default().push(concept);
        }
        Self { masks, units, maps, limits, sizes: sizes.into_iter().collect() }
    }

    /// One pass over the scan's rows.
    ///
    /// Errors: `Mask`; those of reading.
    pub fn count(&self, scan: &Scan<'_, '_>, progress: &mut dyn FnMut(u64)) -> Result<Counts> {
        match scan.on_codes(|codes| self.count_codes(codes, progress).map(Some))? {
            Some(counts) => Ok(counts),
            None => self.count_values(scan, progress),
        }
    }

    fn count_values(&self, scan: &Scan<'_, '_>, progress: &mut dyn FnMut(u64)) -> Result<Counts> {
        let mut counts = self.empty();
        let mut done = 0;
        scan.for_each(|block| {
            let (rows, width) = (block.rows.clone(), block.width.max(1));
            let values = block.into_f64()?;
            let example = |mut counts: Counts, (row, values): (&u64, &[f64])| {
                let there = self.there(*row, &mut counts)?;
                let mut enlarged = Enlarged(None);
                for (u, unit) in self.units.iter().enumerate() {
                    let cells = values.get(unit.columns.clone()).unwrap_or_default();
                    self.unit(u, cells, &there, &mut enlarged, &mut counts);
                }
                Ok::<_, QueryError>(counts)
            };
            let parts = rows.par_iter().zip(values.par_chunks_exact(width)).try_fold(|| self.empty(), example);
            counts = counts.clone().plus(&parts.try_reduce(|| self.empty(), |a, b| Ok(a.plus(&b)))?);
            done += rows.len() as u64;
            progress(done);
            Ok(())
        })?;
        Ok(counts)
    }

    /// RowBlock by RowBlock, so that the masks of its examples are read once for all units; its chunks side by side.
    fn count_codes(&self, codes: &CodeScan<'_>, progress: &mut dyn FnMut(u64)) -> Result<Counts> {
        let row_ids = codes.rows();
        let pages = codes.pages()?;
        let mut units: BTreeMap<usize, Vec<(usize, &CodeUnit)>> = BTreeMap::new();
        for (u, unit) in codes.units().iter().enumerate() {
            units.entry(unit.group).or_default().push((u, unit));
        }
        let mut counts = self.empty();
        let mut done = 0;
        for block in pages.chunk_by(|a, b| a.block == b.block) {
            let chunks: Vec<&[CodePage]> = block.chunk_by(|a, b| a.group == b.group).collect();
            let rows = chunks.first().into_iter().flat_map(|c| c.iter()).flat_map(|p| &p.rows);
            let positions: Vec<usize> = rows.flat_map(|r| r.position..r.position + r.len).collect();
            let masks = |position: &usize| {
                let mut counts = self.empty();
                let row = row_ids.get(*position).copied().unwrap_or_default();
                Ok::<_, QueryError>(((*position, self.there(row, &mut counts)?), counts.concept))
            };
            let read = positions.par_iter().map(masks).collect::<Result<Vec<_>>>()?;
            let mut there: HashMap<usize, There> = HashMap::with_capacity(read.len());
            for ((position, masks), n) in read {
                there.insert(position, masks);
                counts.concept.iter_mut().zip(n).for_each(|(sum, n)| *sum += n);
            }
            let chunk = |counts: Counts, pages: &&[CodePage]| {
                let units = pages.first().and_then(|p| units.get(&p.group)).map_or(&[][..], Vec::as_slice);
                self.count_chunk(codes, pages, units, &there, counts)
            };
            let parts = chunks.par_iter().try_fold(|| self.empty(), chunk);
            counts = counts.plus(&parts.try_reduce(|| self.empty(), |a, b| Ok(a.plus(&b)))?);
            done += positions.len() as u64;
            progress(done);
        }
        Ok(counts)
    }

    /// Counts the pages of one chunk; those that hold nothing above the units' limits are not decoded.
    fn count_chunk(
        &self,
        codes: &CodeScan<'_>,
        pages: &[CodePage],
        units: &[(usize, &CodeUnit)],
        there: &HashMap<usize, There>,
        mut counts: Counts,
    ) -> Result<Counts> {
        let limit = |u: usize| self.limits.get(u).copied().unwrap_or(f64::INFINITY);
        let reaches =
            |page: &CodePage, u: usize, unit: &CodeUnit| codes.range(page, unit).is_none_or(|(_, max)| max > limit(u));
        let pages: Vec<&CodePage> = pages.iter().collect();
        let (mut enlarged, mut map) = (Enlarged(None), Vec::new());
        codes.store().visit_pages(
            &pages,
            |page| units.iter().any(|(u, unit)| reaches(page, *u, unit)),
            |page, bytes| {
                for (u, unit) in units.iter().filter(|(u, unit)| reaches(page, *u, unit)) {
                    for rows in &page.rows {
                        for i in 0..rows.len {
                            let cells = codes.map(page, bytes, rows.row + i, unit, &mut map)?;
                            if let Some(there) = there.get(&(rows.position + i)) {
                                self.unit(*u, cells, there, &mut enlarged, &mut counts);
                            }
                        }
                    }
                }
                Ok::<(), QueryError>(())
            },
        )?;
        Ok(counts)
    }

    fn empty(&self) -> Counts {
        let (n_units, n_concepts) = (self.units.len(), self.masks.concepts().len());
        Counts {
            active: vec![0; self.sizes.len() * n_units],
            both: vec![0; n_units * n_concepts],
            concept: vec![0; n_concepts],
        }
    }

    /// The masks of an example, and their pixels counted.
    fn there(&self, row: u64, counts: &mut Counts) -> Result<There> {
        let mut all = Vec::with_capacity(self.sizes.len());
        for (size, concepts) in &self.sizes {
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
            all.push(there);
        }
        Ok(all)
    }

    /// Counts a unit's map of one example.
    fn unit<T: Copy + Into<f64>>(
        &self,
        u: usize,
        cells: &[T],
        there: &There,
        Enlarged(enlarged): &mut Enlarged,
        counts: &mut Counts,
    ) {
        let (Some(limit), Some(map)) = (self.limits.get(u).copied(), self.maps.get(u)) else { return };
        // Bilinear values never pass the largest cell.
        if !cells.iter().any(|v| (*v).into() > limit) {
            return;
        }
        if enlarged.as_ref().is_none_or(|(of, _)| of != map) {
            *enlarged = Some((*map, self.sizes.iter().map(|(size, _)| Upsampling::new(*map, *size)).collect()));
        }
        let Some((_, upsamplings)) = enlarged else { return };
        let (n_units, n_concepts) = (self.units.len(), self.masks.concepts().len());
        for (s, (upsampling, there)) in upsamplings.iter_mut().zip(there).enumerate() {
            let bits = upsampling.above(cells, limit);
            if let Some(n) = counts.active.get_mut(s * n_units + u) {
                *n += bits.count();
            }
            for (concept, mask) in there {
                if let Some(n) = counts.both.get_mut(u * n_concepts + concept) {
                    *n += bits.both(mask);
                }
            }
        }
    }

    /// Intersection over union: units × concepts; NaN where neither is anywhere.
    pub fn iou(&self, counts: &Counts) -> Vec<f64> {
        let (n_units, n_concepts) = (self.units.len(), self.masks.concepts().len());
        let mut iou = vec![f64::NAN; counts.both.len()];
        let count = |list: &[u64], i: usize| list.get(i).copied().unwrap_or(0);
        for (s, (_, concepts)) in self.sizes.iter().enumerate() {
            for &concept in concepts {
                for unit in 0..n_units {
                    let at = unit * n_concepts + concept;
                    let both = count(&counts.both, at);
                    let either = count(&counts.active, s * n_units + unit) + count(&counts.concept, concept) - both;
                    if let Some(iou) = iou.get_mut(at) {
                        *iou = both as f64 / either as f64;
                    }
                }
            }
        }
        iou
    }
}
