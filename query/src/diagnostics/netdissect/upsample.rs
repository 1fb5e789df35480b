//! Maps enlarged to the size of masks, as bits.

/// Pixels, 64 a word.
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub fn of(on: impl Iterator<Item = bool>) -> Self {
        let mut words = Vec::new();
        for (i, on) in on.enumerate() {
            if i % 64 == 0 {
                words.push(0);
            }
            if let Some(word) = words.last_mut() {
                *word |= u64::from(on) << (i % 64);
            }
        }
        Self(words)
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    pub fn both(&self, other: &Self) -> u64 {
        self.0.iter().zip(&other.0).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }
}

/// A pixel between two cells: their indices, and how far it is from the first.
struct Between(usize, usize, f64);

/// Bilinear enlargement from one size to another, between the middles of cells; the outermost cells reach to the edge.
pub(super) struct Upsampling {
    rows: Vec<Between>,
    columns: Vec<Between>,
    width: usize,
    line: Vec<f64>,
}

fn axis(cells: usize, pixels: usize) -> Vec<Between> {
    let last = cells.saturating_sub(1);
    let place = |i: usize| {
        let at = ((i as f64 + 0.5) * cells as f64 / pixels as f64 - 0.5).clamp(0.0, last as f64);
        let from = at.floor() as usize;
        Between(from, (from + 1).min(last), at - at.floor())
    };
    (0..pixels).map(place).collect()
}

impl Upsampling {
    pub fn new((h, w): (usize, usize), (height, width): (usize, usize)) -> Self {
        Self { rows: axis(h, height), columns: axis(w, width), width: w, line: vec![0.0; w] }
    }

    /// Where the enlarged map of `cells` lies above `limit`.
    pub fn above<T: Copy + Into<f64>>(&mut self, cells: &[T], limit: f64) -> Bits {
        let Self { rows, columns, width, line } = self;
        let row = |r: usize| cells.get(r * *width..(r + 1) * *width).unwrap_or_default();
        let mut bits = Vec::with_capacity(rows.len() * columns.len());
        for Between(a, b, part) in rows.iter() {
            // This form gives equal cells back exactly.
            for ((v, a), b) in line.iter_mut().zip(row(*a)).zip(row(*b)) {
                let (a, b): (f64, f64) = ((*a).into(), (*b).into());
                *v = a + part * (b - a);
            }
            let at = |i: usize| line.get(i).copied().unwrap_or(f64::NEG_INFINITY);
            bits.extend(columns.iter().map(|Between(a, b, part)| at(*a) + part * (at(*b) - at(*a)) > limit));
        }
        Bits::of(bits.into_iter())
    }
}
