//! Codebooks of `kbit` and `lloyd`: bins, exact repeated values apart; the mean of a bin stands for it.
//!
//! Activations are zero most of the time: a quantile grid over all values would spend most codes on one number.
//! So a value that alone fills a bin gets a code of its own, and the remaining codes share the rest: by quantile, or so that
//! the squared error is least.
//!
//! Source: MISTIQUE, section on `KBIT_QT`; deviates by the codes of repeated values, and by the mean of a bin
//! (which minimises the squared error) in place of its middle.

use crate::{
    error::{Result, corrupt},
    lloyd, quantiles,
};

/// How values are shared among bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bins {
    /// By equal numbers of values, the widest divided: `kbit`.
    Quantiles,
    /// By least squared error: `lloyd`.
    LeastSquares,
}

impl Bins {
    /// Name of the scheme.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quantiles => "kbit",
            Self::LeastSquares => "lloyd",
        }
    }
}

/// Growth of the squared error on the sample that is accepted for edges on a grid.
const GRID_LOSS: f64 = 1.02;
/// Grids that edges are put on, by the top bits of a float that tell its cell, coarser first: codes of values are then
/// looked up in a table of all cells, the smaller the faster.
pub(crate) const GRIDS: [u32; 2] = [16, 18];

/// Ascending edges and one representative per bin: bin i holds `edges[i-1] <= x < edges[i]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Codebook {
    edges: Vec<f32>,
    reps: Vec<f32>,
}

/// Floats in numeric order as integers; −0 directly below 0.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn from_key(k: u32) -> f32 {
    f32::from_bits(if k >> 31 == 1 { k ^ 1 << 31 } else { !k })
}

/// Keys of a cell of the grid.
const fn cell_keys(grid: u32) -> u32 {
    1 << (32 - grid)
}

/// The least key of a cell.
const fn cell_start(k: u32, grid: u32) -> u32 {
    k & !(cell_keys(grid) - 1)
}

const ZERO_KEY: u32 = 0x8000_0000;

/// No edge on a grid may part −0, which lies in the cell below, from 0, which compares equal.
const fn off_zero(k: u32, grid: u32) -> u32 {
    if k == ZERO_KEY { cell_start(ZERO_KEY - 1, grid) } else { k }
}

/// One bin of the sample: a range of distinct values, and whether it is a single repeated one.
pub(crate) struct Bin {
    pub first: usize,
    pub last: usize,
    pub atom: bool,
}

/// A distinct value of the sample, and how often it occurs.
pub(crate) type Run = (f32, u64);

impl Codebook {
    /// The codebook of `n_codes` codes at most for a sorted sample of finite values, not empty.
    pub(crate) fn fit(sorted: &[f32], n_codes: usize, how: Bins) -> Self {
        let runs = runs(sorted);
        let bins = match how {
            Bins::Quantiles => {
                let n_equal = n_codes - quantiles::kept_back(n_codes);
                let mut bins = bins(&runs, &runs.iter().map(|r| r.1 as f64).collect::<Vec<_>>(), n_equal);
                quantiles::divide(&runs, &mut bins, n_codes);
                bins
            }
            Bins::LeastSquares => {
                let mut bins = bins(&runs, &lloyd::weights(&runs), n_codes);
                lloyd::settle(&runs, &mut bins);
                bins
            }
        };
        let exact = edges(&runs, &bins, None);
        let (exact_reps, exact_sse) = reps(&runs, &exact);
        for grid in GRIDS {
            let edges = edges(&runs, &bins, Some(grid));
            let (reps, sse) = reps(&runs, &edges);
            if sse <= exact_sse * GRID_LOSS {
                return Self { edges, reps };
            }
        }
        Self { edges: exact, reps: exact_reps }
    }

    pub(crate) fn from_parts(edges: Vec<f32>, reps: Vec<f32>) -> Result<Self> {
        let finite = |v: &[f32]| v.iter().all(|x| x.is_finite());
        if edges.len() + 1 != reps.len() || reps.len() > 256 || !finite(&edges) || !finite(&reps) {
            return Err(corrupt("codebook", "lengths or values"));
        }
        if !edges.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("codebook", "edges out of order"));
        }
        Ok(Self { edges, reps })
    }

    /// A codebook that knows only 0, for a unit without a single finite value.
    pub(crate) fn zero() -> Self {
        Self { edges: Vec::new(), reps: vec![0.0] }
    }

    pub(crate) fn edges(&self) -> &[f32] {
        &self.edges
    }

    pub(crate) fn reps(&self) -> &[f32] {
        &self.reps
    }

    /// Code whose representative is nearest 0; the first of equals.
    pub(crate) fn code_near_zero(&self) -> u8 {
        let near = |a: &(usize, &f32), b: &(usize, &f32)| a.1.abs().total_cmp(&b.1.abs());
        self.reps.iter().enumerate().min_by(near).map_or(0, |(i, _)| i as u8)
    }

    /// How many edges lie inside one cell of the grid at most: 0 where all lie between cells.
    pub(crate) fn edges_in_a_cell(&self, grid: u32) -> usize {
        let keys = self.edges.iter().map(|&e| key(e)).filter(|&k| k != cell_start(k, grid));
        let mut inside: Vec<u32> = keys.map(|k| cell_start(k, grid)).collect();
        // −0 lies in the cell below that of 0 and is not below an edge at 0.
        inside.extend(self.edges.iter().filter(|e| **e == 0.0).map(|_| cell_start(ZERO_KEY - 1, grid)));
        inside.sort_unstable();
        inside.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0)
    }

    /// Code of the least float of each cell of the grid: that of every float in it, but for the edges inside the cell.
    /// Entries of NaN are arbitrary.
    pub(crate) fn table(&self, grid: u32) -> Vec<u8> {
        // By key first, where a bin is one stretch; then each half to where the bits say.
        let mut by_key = vec![0u8; 1 << grid];
        let cell = |e: f32| key(e).div_ceil(cell_keys(grid)) as usize;
        for (i, &e) in self.edges.iter().enumerate() {
            let to = self.edges.get(i + 1).map_or(1 << grid, |&e| cell(e));
            by_key[cell(e)..to].fill((i + 1) as u8);
        }
        let (negative, positive) = by_key.split_at(1 << (grid - 1));
        let mut table = positive.to_vec();
        table.extend(negative.iter().rev());
        table
    }

    /// Edges padded with +∞ to 256, for [`search`].
    pub(crate) fn padded_edges(&self) -> Box<[f32; 256]> {
        let mut out = Box::new([f32::INFINITY; 256]);
        out[..self.edges.len()].copy_from_slice(&self.edges);
        out
    }
}

/// Number of edges not above `x`, by eight branchless halvings; `x` below +∞.
#[inline(always)]
pub(crate) fn search(edges: &[f32; 256], x: f32) -> u8 {
    let mut base = 0usize;
    for step in [128, 64, 32, 16, 8, 4, 2, 1] {
        base += if edges[(base + step - 1) & 255] <= x { step } else { 0 };
    }
    base as u8
}

/// Distinct values and how often each occurs; −0 counts as 0.
fn runs(sorted: &[f32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &x in sorted {
        match runs.last_mut() {
            Some((v, n)) if *v == x => *n += 1,
            _ => runs.push((x + 0.0, 1)),
        }
    }
    runs
}

pub(crate) fn mass(runs: &[Run]) -> u64 {
    runs.iter().map(|r| r.1).sum()
}

/// Bins of about equal weights, which are given for each of `runs`.
fn bins(runs: &[Run], weights: &[f64], n_codes: usize) -> Vec<Bin> {
    let mut by_mass: Vec<usize> = (0..runs.len()).collect();
    by_mass.sort_by_key(|&i| (std::cmp::Reverse(runs[i].1), i));
    // Heaviest first, a value is an atom as long as it outweighs an equal share of what is left.
    let mut rest = mass(runs);
    let mut n_atoms = 0;
    for &i in &by_mass {
        let share = rest as f64 / (n_codes - n_atoms) as f64;
        if n_codes - n_atoms <= 1 || (runs[i].1 as f64) < share || runs[i].1 < 2 {
            break;
        }
        rest -= runs[i].1;
        n_atoms += 1;
    }
    loop {
        let mut atoms = by_mass[..n_atoms].to_vec();
        atoms.sort_unstable();
        let segments = segments(&atoms, runs.len());
        if atoms.len() + segments.len() <= n_codes {
            let weights = at_most_a_bin(weights, &segments, n_codes - atoms.len());
            return cut(&weights, &atoms, &segments, n_codes - atoms.len());
        }
        n_atoms -= 1;
    }
}

/// Ranges of runs between atoms, none empty.
fn segments(atoms: &[usize], n_runs: usize) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let mut from = 0;
    for &a in atoms.iter().chain([&n_runs]) {
        if a > from {
            out.push(from..a);
        }
        from = a + 1;
    }
    out
}

/// Weights of which none is more than an equal share, one for each of `codes`, of their sum within `segments`: a value
/// beyond that has a bin of its own and leaves the other codes to the rest.
fn at_most_a_bin(weights: &[f64], segments: &[std::ops::Range<usize>], codes: usize) -> Vec<f64> {
    let mut lightest_first: Vec<f64> = segments.iter().flat_map(|s| &weights[s.clone()]).copied().collect();
    lightest_first.sort_unstable_by(f64::total_cmp);
    // Sums grow from the lightest, so that a huge one takes no digits from those of the others.
    let mut sum = 0.0;
    let mut most = f64::INFINITY;
    for (i, w) in lightest_first.iter().enumerate() {
        sum += w;
        let left = codes.saturating_sub(lightest_first.len() - 1 - i);
        if left > 0 && *w <= sum / left as f64 {
            most = sum / left as f64;
        }
    }
    weights.iter().map(|w| w.min(most)).collect()
}

/// Shares the codes among the segments by weight and cuts each into bins of about equal weight.
fn cut(weights: &[f64], atoms: &[usize], segments: &[std::ops::Range<usize>], codes: usize) -> Vec<Bin> {
    let totals: Vec<f64> = segments.iter().map(|s| weights[s.clone()].iter().sum()).collect();
    let mut share = vec![1usize; segments.len()];
    for _ in segments.len()..codes {
        // The segment with the fullest bins that can still be divided takes the next code.
        let full = |i: usize| totals[i] / share[i] as f64;
        let open = (0..segments.len()).filter(|&i| share[i] < segments[i].len());
        let Some(i) = open.max_by(|&a, &b| full(a).total_cmp(&full(b)).then(b.cmp(&a))) else {
            break;
        };
        share[i] += 1;
    }
    let mut bins: Vec<Bin> = atoms.iter().map(|&a| Bin { first: a, last: a, atom: true }).collect();
    for ((segment, &c), &total) in segments.iter().zip(&share).zip(&totals) {
        let (mut first, mut seen, mut made) = (segment.start, 0.0, 0usize);
        for i in segment.clone() {
            seen += weights[i];
            let last = i + 1 == segment.end;
            // Where there is a code for each value, each has its own.
            let full = c == segment.len() || (made + 1 < c && seen * c as f64 >= total * (made + 1) as f64);
            if last || full {
                bins.push(Bin { first, last: i, atom: false });
                first = i + 1;
                // A heavy value may pass several bins' worth at once; their codes stay unused.
                made = ((seen * c as f64 / total) as usize).max(made + 1).min(c - 1);
            }
        }
    }
    bins.sort_unstable_by_key(|b| b.first);
    bins
}

/// Lower edges of all bins but the first; those on a grid are dropped where they fall together.
fn edges(runs: &[Run], bins: &[Bin], grid: Option<u32>) -> Vec<f32> {
    let mut out: Vec<f32> = Vec::with_capacity(bins.len());
    for pair in bins.windows(2) {
        let (below, above) = (runs[pair[0].last].0, runs[pair[1].first].0);
        let mid = below * 0.5 + above * 0.5;
        let mid = if mid > below { mid } else { above };
        let edge = match (pair[0].atom, pair[1].atom, grid) {
            (true, false, None) => below.next_up(),
            (false, true, None) => above,
            (_, _, None) => mid,
            (true, false, Some(grid)) => from_key(cell_start(key(below), grid) + cell_keys(grid)),
            (false, true, Some(grid)) => from_key(off_zero(cell_start(key(above), grid), grid)),
            (_, _, Some(grid)) => nearest_on_grid(runs, mid, grid),
        };
        if edge.is_finite() && out.last().is_none_or(|&e| e < edge) {
            out.push(edge);
        }
    }
    out
}

/// The edge of the grid next to `edge` that moves fewer values of the sample to another bin.
fn nearest_on_grid(runs: &[Run], edge: f32, grid: u32) -> f32 {
    let down = cell_start(key(edge), grid);
    let [down, up] = [down, down.saturating_add(cell_keys(grid))].map(|k| from_key(off_zero(k, grid)));
    let at = |x: f32| runs.partition_point(|r| r.0 < x);
    let moved = |a: f32, b: f32| mass(&runs[at(a)..at(b).max(at(a))]);
    if moved(down, edge) <= moved(edge, up) { down } else { up }
}

/// Mean of each bin, and the squared error it leaves. An empty bin takes its lower edge.
fn reps(runs: &[Run], edges: &[f32]) -> (Vec<f32>, f64) {
    let mut reps = Vec::with_capacity(edges.len() + 1);
    let mut sse = 0.0;
    let mut at = 0;
    for bin in 0..=edges.len() {
        let end = edges.get(bin).map_or(runs.len(), |&e| at + runs[at..].partition_point(|r| r.0 < e));
        let inside = &runs[at..end];
        at = end;
        let n = mass(inside);
        let rep = match inside {
            [] => edges[bin.saturating_sub(1).min(edges.len() - 1)],
            [one] => one.0,
            _ => (inside.iter().map(|r| f64::from(r.0) * r.1 as f64).sum::<f64>() / n as f64) as f32,
        };
        sse += inside.iter().map(|r| (f64::from(r.0) - f64::from(rep)).powi(2) * r.1 as f64).sum::<f64>();
        reps.push(rep);
    }
    (reps, sse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order() {
        let v = [f32::NEG_INFINITY, -2.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, f32::INFINITY];
        assert!(v.map(key).is_sorted());
        assert_eq!(v.map(key).map(from_key).map(f32::to_bits), v.map(f32::to_bits));
    }

    #[test]
    fn table_agrees_with_search() {
        let mut sample: Vec<f32> = (0..20_000u32)
            .map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).powi(3) * 5.0)
            .flat_map(|x| [x, 0.0, if x > 2.0 { 2.5 } else { x }])
            .collect();
        sample.sort_unstable_by(f32::total_cmp);
        for n_codes in [2, 4, 16, 256] {
            let book = Codebook::fit(&sample, n_codes, Bins::Quantiles);
            // Edges of many codes lie on the finer grid.
            assert!(book.edges_in_a_cell(18) == 0 && book.reps().len() <= n_codes, "{n_codes}");
            let (table, fine, edges) = (book.table(16), book.table(18), book.padded_edges());
            let special = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, f32::MAX, f32::MIN];
            for x in sample.iter().copied().chain(special).chain(book.edges().iter().flat_map(|e| [*e, e.next_down()]))
            {
                let code = book.edges().iter().filter(|e| **e <= x).count();
                assert_eq!(usize::from(search(&edges, x)), code, "{x:e}");
                if book.edges_in_a_cell(16) == 0 {
                    assert_eq!(usize::from(table[(x.to_bits() >> 16) as usize]), code, "{x:e}");
                }
                assert_eq!(usize::from(fine[(x.to_bits() >> 14) as usize]), code, "{x:e}");
            }
        }
    }

    #[test]
    fn table_and_edges_in_its_cells_agree_with_search() {
        let off_grid = |n: i32| (-n..n).map(|i| (i as f32 / 9.7).powi(3) + 0.0123).collect::<Vec<_>>();
        let cluster = vec![-1.001, -1.0005, -1.0, 0.0, 1.5, 1.5f32.next_up(), 1.5001, 3.0];
        for edges in [off_grid(12), off_grid(127), cluster, vec![0.0], vec![-0.0, 1e-45], vec![]] {
            let book = Codebook::from_parts(edges.clone(), vec![0.0; edges.len() + 1]).unwrap();
            let (table, padded, passes) = (book.table(16), book.padded_edges(), book.edges_in_a_cell(16));
            let table: &[u8; 1 << 16] = table.first_chunk().unwrap();
            let special = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, f32::MAX, f32::MIN];
            let near = edges.iter().flat_map(|e| [*e, e.next_down(), e.next_up(), e * 1.001, e * 0.999]);
            let v: Vec<f32> = near.chain(special).collect();
            let mut codes = vec![0; v.len()];
            crate::simd::table_16_edges(table, &padded, passes, &v, &mut codes);
            for (x, code) in v.iter().zip(codes) {
                assert_eq!(code, search(&padded, *x), "{x:e} of {edges:?}");
            }
        }
    }
}
