//! Approximate nearest neighbours by a graph (HNSW, Malkov and Yashunin 2018), on vectors as f16, less their mean and scaled
//! so that what tells rows apart keeps its digits. Asked for by name only: an answer may lack a neighbour.

use half::f16;
use half::slice::HalfFloatSliceExt;
use instant_distance::{Builder, Hnsw, Point, Search};
use mistique_engine::{
    EngineError, IndexFile, IndexKind, IndexRecord, IntermediateKey, MapValue, NewIndex, RowMask, RowSet,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::group::Layer;
use crate::diagnostics::{self, Metric, Queries};
use crate::error::{QueryError, Result};
use crate::plan::PlanChoice;
use crate::reader::{ChunkReader, Request};
use crate::rows::RowSelection;

/// Candidates kept while the graph is built, and while it is searched: more find more and take longer.
const EF_CONSTRUCTION: usize = 200;
const EF_SEARCH: usize = 200;
/// Neighbours of a point in an upper layer; the lowest has twice as many.
const M: usize = 32;
/// A neighbour that is none.
const NONE: u32 = u32::MAX;
/// Rows of which the neighbours are looked up to measure recall, and how many neighbours of each.
const SAMPLE_ROWS: usize = 100;
const SAMPLE_K: usize = 10;
/// Bytes of the section that says what the others are.
const HEAD_LEN: usize = 16;
/// Its second byte, where the points are less a centre, and scaled.
const CENTRED: u8 = 1;
/// The largest deviation from the centre, scaled: far from what f16 ends at, and from where its digits end.
const LARGEST: f64 = 1024.0;
/// Bytes of values fetched at a time.
const FETCHED_BYTES: usize = 64 << 20;

/// A row's vector; of length 1 where angles are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Vector(Vec<f32>);

impl Point for Vector {
    /// Squared, since only the order counts.
    fn distance(&self, other: &Self) -> f32 {
        squared(&self.0, &other.0)
    }
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    let (a8, b8) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0f32; 8];
    for (x, y) in a8.0.iter().zip(b8.0) {
        for i in 0..8 {
            sums[i] += (x[i] - y[i]) * (x[i] - y[i]);
        }
    }
    sums.iter().sum::<f32>() + a8.1.iter().zip(b8.1).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
}

/// What the crate's graph is to serde: its fields are private, and files have a layout of their own (FORMAT.md).
#[derive(Serialize, Deserialize)]
struct Graph {
    ef_search: usize,
    points: Vec<Vector>,
    zero: Vec<[[u32; M]; 2]>,
    layers: Vec<Vec<[u32; M]>>,
}

/// What making an index gave.
#[derive(Debug, Clone, PartialEq)]
pub struct HnswMade {
    /// The index.
    pub index: IndexRecord,
    /// Share of the true nearest rows that it finds, measured on some of its own rows.
    pub recall: f64,
    /// How many rows, and how many neighbours of each.
    pub sample: (usize, usize),
}

/// Where the vectors of a graph lie: distances between them do not depend on it, but for the scale.
#[derive(Debug, Clone, PartialEq)]
struct Frame {
    /// What each number is less.
    centre: Vec<f32>,
    /// What the rest is multiplied by: a power of two.
    scale: f32,
}

impl Frame {
    /// Of vectors: their mean, and the scale under which their largest deviation is [`LARGEST`] at most.
    fn of(vectors: &[Vector], width: usize) -> Self {
        let finite = |v: f32| if v.is_finite() { f64::from(v) } else { 0.0 };
        let mut sums = vec![0f64; width];
        vectors.iter().for_each(|v| sums.iter_mut().zip(&v.0).for_each(|(sum, v)| *sum += finite(*v)));
        let centre: Vec<f32> = sums.iter().map(|s| (s / vectors.len().max(1) as f64) as f32).collect();
        let off =
            |v: &Vector| v.0.iter().zip(&centre).fold(0f64, |l, (v, c)| l.max((finite(*v) - f64::from(*c)).abs()));
        let largest = vectors.iter().map(off).fold(0.0, f64::max);
        // Neither beyond what an f32 holds, nor a scale of constants.
        let power = if largest > 0.0 { (LARGEST / largest).log2().floor().clamp(-100.0, 100.0) } else { 0.0 };
        Self { centre, scale: 2f32.powi(power as i32) }
    }

    /// A vector as distances are measured of it.
    fn place(&self, vector: Vec<f32>) -> Vector {
        let placed = |(v, c): (f32, &f32)| ((f64::from(v) - f64::from(*c)) * f64::from(self.scale)) as f32;
        Vector(vector.into_iter().zip(&self.centre).map(placed).collect())
    }
}

/// An index open for questions.
pub struct Neighbours {
    graph: Hnsw<Vector>,
    frame: Frame,
    most: usize,
    /// Row of each point.
    rows: Vec<u64>,
    metric: Metric,
    width: usize,
    index: IndexRecord,
    /// Rows that were logged later, or have a NaN, with their vectors.
    later: Vec<(u64, Vector)>,
}

impl ChunkReader<'_> {
    /// Builds the HNSW index of a layer's rows as vectors and keeps it in place of an earlier one of the same metric.
    /// Building is on one thread and from a fixed seed: equal values give an equal file. Rows that have a NaN are left out.
    ///
    /// Errors: `NotFound`, `Unsupported` for tables; `Mismatch` for the inner product, which is no metric, or a layer without
    /// rows; `Locked`, `Io`; what fetching the layer's values meets.
    pub fn create_hnsw_index(
        &self,
        key: &IntermediateKey,
        metric: Metric,
        exact: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<HnswMade> {
        let layer = Layer::new(self, key, MapValue::Cells, exact, PlanChoice::Auto)?;
        let refuse = |why: &str| QueryError::Mismatch { what: format!("hnsw index of {key}"), why: why.to_string() };
        if metric == Metric::Dot {
            return Err(refuse("the inner product is no metric; use l2 or cosine"));
        }
        if layer.is_wide {
            return Err(refuse(
                "its values are float64, of which an index of float32 would take other rows for the nearest",
            ));
        }
        let width = layer.layout.stored_values();
        let ids: Vec<u64> = layer.rows.iter().collect();
        let mut rows = Vec::with_capacity(ids.len());
        let mut points = Vec::with_capacity(ids.len());
        let batch = (FETCHED_BYTES / (width * 4).max(1)).clamp(1, 1024);
        for some in ids.chunks(batch) {
            let values = layer.fetch(self, "*", some)?.0;
            for (row, vector) in some.iter().zip(values.chunks_exact(width)) {
                if !vector.iter().any(|v| v.is_nan()) {
                    rows.push(*row);
                    points.push(Vector(prepared(vector, metric)));
                }
            }
            progress(rows.len() as u64, ids.len() as u64);
        }
        if points.is_empty() {
            return Err(refuse("it has no rows without NaN"));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.map_err(|e| EngineError::io("hnsw", "start a thread", std::io::Error::other(e)))?;
        let frame = Frame::of(&points, width);
        let points: Vec<Vector> = points.into_iter().map(|v| frame.place(v.0)).collect();
        let builder = Builder::default().seed(0).ef_construction(EF_CONSTRUCTION).ef_search(EF_SEARCH);
        let (graph, ids) = pool.install(|| builder.build_hnsw(points.iter().map(rounded).collect()));
        let mut places = vec![0u32; rows.len()];
        for (place, point) in ids.into_iter().enumerate() {
            if let Some(of) = places.get_mut(point.into_inner() as usize) {
                *of = place as u32;
            }
        }
        let (recall, sample) = recall(&graph, &places, &points);
        let values = layer.of.values.name();
        let params = format!(
            r#"{{"metric":"{}","values":"{values}","width":{width},"ef_construction":{EF_CONSTRUCTION},"ef_search":{EF_SEARCH},"recall":{recall:.4},"sample":{},"rows":{}}}"#,
            metric.name(),
            sample.0,
            rows.len()
        );
        let sections = sections(&graph, &places, metric, &frame)?;
        let new = NewIndex { kind: IndexKind::Hnsw, params, rows: RowSet::from_ids(&rows), sections };
        Ok(HnswMade { index: self.store().put_index(&layer.record, &new)?, recall, sample })
    }

    /// The HNSW index of a layer, open for questions; `None` where there is none of that metric.
    ///
    /// Errors: `NotFound`, `Corrupt`, `Io`; what fetching rows that were logged later meets.
    pub fn neighbours(&self, key: &IntermediateKey, metric: Metric, exact: bool) -> Result<Option<Neighbours>> {
        let layer = Layer::new(self, key, MapValue::Cells, exact, PlanChoice::Auto)?;
        let serves = |i: &IndexRecord| {
            i.kind == IndexKind::Hnsw.name()
                && i.param("metric").as_deref() == Some(metric.name())
                && i.param("values").as_deref() == Some(layer.of.values.name())
        };
        let Some(index) = self.store().indexes(Some(&layer.record))?.into_iter().rev().find(serves) else {
            return Ok(None);
        };
        let file = self.store().open_index(&index)?;
        let mut open = open(&file, index, metric)?;
        if open.width != layer.layout.stored_values() {
            return Err(damaged(&file, "its vectors have another length than the layer's rows"));
        }
        let mut covered = RowMask::default();
        covered.extend(file.rows());
        let later: Vec<u64> = layer.rows.iter().filter(|r| !covered.contains(*r)).collect();
        for some in later.chunks((FETCHED_BYTES / (open.width * 4).max(1)).clamp(1, 1024)) {
            let values = layer.fetch(self, "*", some)?.0;
            let vectors = some.iter().zip(values.chunks_exact(open.width));
            let vectors = vectors.filter(|(_, v)| !v.iter().any(|v| v.is_nan()));
            let later = vectors.map(|(row, v)| (*row, open.frame.place(prepared(v, metric))));
            open.later.extend(later.collect::<Vec<_>>());
        }
        Ok(Some(open))
    }
}

impl Neighbours {
    /// About the `k` nearest rows of each query, an example itself left out: which they are, the index says; how near, the
    /// rows' own values.
    ///
    /// Errors: as [`Neighbours::nearest`]; what fetching the rows meets.
    pub fn of_queries(
        &self,
        reader: &ChunkReader<'_>,
        request: &Request,
        queries: &Queries,
        k: usize,
    ) -> Result<Vec<diagnostics::Neighbours>> {
        let (rows, vectors) = match queries {
            Queries::Rows(rows) => {
                let request = request.clone().with_rows(RowSelection::List(rows.clone()));
                (Some(rows), reader.get(&request)?.into_f32()?)
            }
            Queries::Vectors(vectors) => (None, vectors.iter().map(|v| *v as f32).collect()),
        };
        if !vectors.len().is_multiple_of(self.width) {
            self.nearest(&vectors, k)?;
        }
        let own = |i: usize| rows.and_then(|r| r.get(i).copied());
        let near = |(i, vector): (usize, &[f32])| -> Result<Vec<u64>> {
            let found = self.nearest(vector, k + usize::from(own(i).is_some()))?;
            Ok(found.into_iter().map(|(row, _)| row).filter(|row| Some(*row) != own(i)).take(k).collect())
        };
        let found = vectors.chunks(self.width).enumerate().map(near).collect::<Result<Vec<_>>>()?;
        // The values of all that were found, in one go.
        let mut ids: Vec<u64> = found.iter().flatten().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let values = reader.get(&request.clone().with_rows(RowSelection::List(ids.clone())))?.into_f32()?;
        let scored = |((i, vector), found): ((usize, &[f32]), Vec<u64>)| {
            let value = |row: u64| {
                let at = ids.binary_search(&row).unwrap_or_default() * self.width;
                self.metric.exact(values.get(at..at + self.width).unwrap_or_default(), vector)
            };
            let mut rows: Vec<(u64, f64)> = found.into_iter().map(|row| (row, value(row))).collect();
            let near = |v: f64| if self.metric == Metric::Cosine { -v } else { v };
            rows.sort_by(|a, b| near(a.1).total_cmp(&near(b.1)).then(a.0.cmp(&b.0)));
            diagnostics::Neighbours { of: own(i), rows }
        };
        Ok(vectors.chunks(self.width).enumerate().zip(found).map(scored).collect())
    }

    /// About the `k` nearest rows to `vector`, nearest first: `(row_id, distance or similarity)` of the values as f16.
    /// At most 200, however large `k`.
    ///
    /// Errors: `Mismatch` when the vector has another length or a NaN.
    pub fn nearest(&self, vector: &[f32], k: usize) -> Result<Vec<(u64, f32)>> {
        if vector.len() != self.width || vector.iter().any(|v| v.is_nan()) {
            return Err(QueryError::Mismatch {
                what: "nearest neighbours".into(),
                why: format!("expected a vector of {} numbers, got {}, NaN or not", self.width, vector.len()),
            });
        }
        let query = self.frame.place(prepared(vector, self.metric));
        let mut search = Search::default();
        let found = self.graph.search(&query, &mut search);
        let found = found.filter_map(|i| self.rows.get(i.pid.into_inner() as usize).map(|row| (*row, i.distance)));
        let mut found: Vec<(u64, f32)> = found.collect();
        found.extend(self.later.iter().map(|(row, v)| (*row, v.distance(&query))));
        found.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        found.truncate(k);
        // Of vectors of length 1, |a − b|² = 2 − 2·cos.
        let score = |d: f32| if self.metric == Metric::Cosine { 1.0 - d * d / 2.0 } else { d };
        Ok(found.into_iter().map(|(row, d)| (row, score(d.sqrt() / self.frame.scale))).collect())
    }

    /// The most neighbours that it finds.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The index.
    pub fn index(&self) -> &IndexRecord {
        &self.index
    }
}

/// The vector whose distances the metric's are.
fn prepared(vector: &[f32], metric: Metric) -> Vec<f32> {
    let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    match metric {
        Metric::Cosine if norm > 0.0 => vector.iter().map(|v| (f64::from(*v) / norm) as f32).collect(),
        _ => vector.to_vec(),
    }
}

/// The same as it is kept.
fn rounded(vector: &Vector) -> Vector {
    // Of two infinities there is no distance.
    Vector(vector.0.iter().map(|v| f16::from_f32(*v).to_f32().clamp(-65_504.0, 65_504.0)).collect())
}

/// Recall on rows picked evenly, themselves left out, by the distances of the vectors before they were rounded.
fn recall(graph: &Hnsw<Vector>, places: &[u32], points: &[Vector]) -> (f64, (usize, usize)) {
    let step = points.len().div_ceil(SAMPLE_ROWS).max(1);
    let k = SAMPLE_K.min(points.len() - 1);
    let sample: Vec<usize> = (0..points.len()).step_by(step).collect();
    let hits: usize = sample
        .par_iter()
        .map(|&of| {
            let Some(query) = points.get(of) else { return 0 };
            let others = points.iter().enumerate().filter(|(i, _)| *i != of);
            let mut distances: Vec<f32> = others.map(|(_, p)| query.distance(p)).collect();
            if k == 0 {
                return 0;
            }
            let kth = *distances.select_nth_unstable_by(k - 1, f32::total_cmp).1;
            let mut search = Search::default();
            let found = graph.search(query, &mut search);
            let found =
                found.filter_map(|i| places.get(i.pid.into_inner() as usize)).filter(|place| **place != of as u32);
            let near = |place: &&u32| points.get(**place as usize).is_some_and(|p| query.distance(p) <= kth);
            found.take(k).filter(near).count()
        })
        .sum();
    let wanted = sample.len() * k;
    (if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 }, (sample.len(), k))
}

fn unfit(e: postcard::Error) -> QueryError {
    QueryError::Mismatch { what: "hnsw index".into(), why: format!("the graph is not what this build knows: {e}") }
}

fn sections(graph: &Hnsw<Vector>, places: &[u32], metric: Metric, frame: &Frame) -> Result<Vec<Vec<u8>>> {
    let graph: Graph = postcard::from_bytes(&postcard::to_allocvec(graph).map_err(unfit)?).map_err(unfit)?;
    let mut head = vec![u8::from(metric == Metric::Cosine), CENTRED, 0, 0];
    for number in [frame.centre.len(), graph.ef_search, graph.layers.len()] {
        head.extend_from_slice(&(number as u32).to_le_bytes());
    }
    let numbers = |numbers: &mut dyn Iterator<Item = u32>| numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    let values = graph.points.iter().flat_map(|p| &p.0).flat_map(|v| f16::from_f32(*v).to_le_bytes());
    let mut sections = vec![
        head,
        numbers(&mut places.iter().copied()),
        values.collect(),
        numbers(&mut graph.zero.iter().flatten().flatten().copied()),
    ];
    sections.extend(graph.layers.iter().map(|layer| numbers(&mut layer.iter().flatten().copied())));
    sections.push([frame.scale].iter().chain(&frame.centre).flat_map(|v| v.to_le_bytes()).collect());
    Ok(sections)
}

fn damaged(file: &IndexFile, why: &str) -> QueryError {
    EngineError::Corrupt { path: file.path().to_string(), offset: 0, why: why.to_string() }.into()
}

/// Nodes of a layer: as many numbers each, all of points that there are.
fn nodes<const N: usize>(bytes: &[u8], n_points: usize) -> Option<Vec<[u32; N]>> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers: Vec<u32> = numbers.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let known = numbers.iter().all(|n| *n == NONE || (*n as usize) < n_points);
    let (nodes, left) = numbers.as_chunks::<N>();
    (known && rest.is_empty() && left.is_empty() && nodes.len() <= n_points).then(|| nodes.to_vec())
}

fn open(file: &IndexFile, index: IndexRecord, metric: Metric) -> Result<Neighbours> {
    let bad = |why: &str| damaged(file, why);
    let n_points = file.rows().len();
    let head = file.bytes(0)?;
    let number = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let (Some(width), Some(ef_search), Some(n_layers), HEAD_LEN) = (number(4), number(8), number(12), head.len())
    else {
        return Err(bad("its first section has another length"));
    };
    let (width, n_layers) = (width as usize, n_layers as usize);
    let known = |centred| head.get(..4) == Some(&[u8::from(metric == Metric::Cosine), centred, 0, 0]);
    let frame = match file.n_sections().checked_sub(4 + n_layers) {
        Some(0) if known(0) => Frame { centre: vec![0.0; width], scale: 1.0 },
        Some(1) if known(CENTRED) => {
            let bytes = file.bytes(4 + n_layers)?;
            let mut numbers = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let scale = numbers.next().filter(|s| s.is_normal() && *s > 0.0);
            let centre: Vec<f32> = numbers.filter(|v| v.is_finite()).collect();
            match scale.filter(|_| centre.len() == width && bytes.len() == 4 * (1 + width)) {
                Some(scale) => Frame { centre, scale },
                None => return Err(bad("its centre is not one of its vectors' length")),
            }
        }
        _ => return Err(bad("its first section does not agree with the others")),
    };
    let ids: Vec<u64> = file.rows().iter().collect();
    let places = file.bytes(1)?;
    let places = places.as_chunks::<4>().0.iter().map(|b| ids.get(u32::from_le_bytes(*b) as usize).copied());
    let rows = places.collect::<Option<Vec<u64>>>().filter(|r| r.len() == n_points);
    let rows = rows.ok_or_else(|| bad("its points are not its rows"))?;
    let values = file.bytes(2)?;
    let halves: Vec<f16> = values.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
    if width == 0 || values.len() != n_points * width * 2 || halves.iter().any(|v| !v.is_finite()) {
        return Err(bad("its vectors are not what they should be"));
    }
    let points = halves.chunks_exact(width).map(|v| {
        let mut point = vec![0f32; width];
        v.convert_to_f32_slice(&mut point);
        Vector(point)
    });
    let zero: Vec<[u32; 2 * M]> = nodes(&file.bytes(3)?, n_points)
        .filter(|nodes| nodes.len() == n_points)
        .ok_or_else(|| bad("its lowest layer is not one"))?;
    let halved = |node: &[u32; 2 * M]| std::array::from_fn(|half| std::array::from_fn(|i| node[half * M + i]));
    let layer = |l: usize| nodes(&file.bytes(4 + l)?, n_points).ok_or_else(|| bad("an upper layer is not one"));
    let layers: Vec<Vec<[u32; M]>> = (0..n_layers).map(layer).collect::<Result<_>>()?;
    // A neighbour in an upper layer is a node of that layer.
    let inside = |layer: &Vec<[u32; M]>| layer.iter().flatten().all(|n| *n == NONE || (*n as usize) < layer.len());
    if !layers.iter().all(|l| !l.is_empty() && inside(l)) || layers.windows(2).any(|w| w[0].len() < w[1].len()) {
        return Err(bad("an upper layer names points that are not in it"));
    }
    let graph = Graph {
        ef_search: ef_search as usize,
        points: points.collect(),
        zero: zero.iter().map(halved).collect(),
        layers,
    };
    let graph = postcard::from_bytes(&postcard::to_allocvec(&graph).map_err(unfit)?).map_err(unfit)?;
    Ok(Neighbours { graph, frame, most: ef_search as usize, rows, metric, width, index, later: Vec::new() })
}
