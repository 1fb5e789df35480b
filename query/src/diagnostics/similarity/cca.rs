//! Canonical correlations from covariances.
//!
//! Each side is whitened by the eigenvectors of its own covariance; the singular values of what the whitened sides share
//! are the canonical correlations. Squaring the data in covariances halves the digits of directions that hardly vary:
//! those below 10⁻¹⁰ of the largest variance are left out, where an SVD of the data could still see them.

use std::collections::BTreeMap;
use std::rc::Rc;

use faer::{Mat, MatRef, Side as Triangle};

use super::Similarity;
use super::moments::Moments;

/// Variances of directions below this share of the largest are rounding.
const RANK: f64 = 1e-10;

/// A side's columns that vary, and the directions kept of them, scaled to length one.
struct Whitened {
    columns: Vec<usize>,
    /// varying columns × directions.
    directions: Mat<f64>,
}

/// Sides whitened so far: a matrix of layers whitens each once.
pub(super) struct Whitener<'m> {
    moments: &'m Moments,
    threshold: f64,
    known: BTreeMap<usize, Rc<Whitened>>,
}

impl<'m> Whitener<'m> {
    /// For directions that explain `threshold` of a side's variance; with 1 for all that vary, columns scaled alike.
    pub fn new(moments: &'m Moments, threshold: f64) -> Self {
        Self { moments, threshold, known: BTreeMap::new() }
    }

    fn side(&mut self, side: usize) -> Result<Rc<Whitened>, String> {
        if let Some(known) = self.known.get(&side) {
            return Ok(Rc::clone(known));
        }
        let whitened = Rc::new(whiten(self.moments, side, self.threshold)?);
        self.known.insert(side, Rc::clone(&whitened));
        Ok(whitened)
    }
}

/// Mean of the canonical correlations. Errors: why it is undefined.
pub(super) fn cca(whitener: &mut Whitener<'_>, (a, b): (usize, usize)) -> Result<Similarity, String> {
    let (x, y, moments) = (whitener.side(a)?, whitener.side(b)?, whitener.moments);
    let shared = shared(moments, (a, &x), (b, &y))?;
    let coefficients = clamped(shared.as_ref().singular_values().map_err(diverged)?);
    let value = coefficients.iter().sum::<f64>() / coefficients.len().max(1) as f64;
    Ok(answer(moments, (a, &x), (b, &y), value, coefficients))
}

/// Mean of the canonical correlations weighted by Σ_j |⟨h_i, z_j⟩| over the columns z_j of the side with fewer columns that
/// vary (the first of equals), h_i its canonical variables. Errors: why it is undefined.
pub(super) fn pwcca(whitener: &mut Whitener<'_>, (a, b): (usize, usize)) -> Result<Similarity, String> {
    let (x, y, moments) = (whitener.side(a)?, whitener.side(b)?, whitener.moments);
    let svd = shared(moments, (a, &x), (b, &y))?.thin_svd().map_err(diverged)?;
    let coefficients = clamped(svd.S().column_vector().iter().copied().collect());
    let (side, whitened, turn) = if x.columns.len() <= y.columns.len() { (a, &x, svd.U()) } else { (b, &y, svd.V()) };
    let own = selected(moments, side, &whitened.columns, side, &whitened.columns)?;
    let projections = (&whitened.directions * turn).transpose() * &own;
    let weight = |i: usize| projections.row(i).iter().map(|v| v.abs()).sum::<f64>();
    let weights: Vec<f64> = (0..coefficients.len()).map(weight).collect();
    let total: f64 = weights.iter().sum();
    let value = coefficients.iter().zip(&weights).map(|(c, w)| c * w).sum::<f64>() / total;
    Ok(answer(moments, (a, &x), (b, &y), value, coefficients))
}

fn answer(
    moments: &Moments,
    (a, x): (usize, &Whitened),
    (b, y): (usize, &Whitened),
    value: f64,
    coefficients: Vec<f64>,
) -> Similarity {
    let constant = |side, w: &Whitened| moments.n_columns(side) - w.columns.len();
    let directions = [x.directions.ncols(), y.directions.ncols()];
    Similarity { value, coefficients, directions, constant: [constant(a, x), constant(b, y)] }
}

fn diverged<E: std::fmt::Debug>(e: E) -> String {
    format!("the decomposition did not converge ({e:?})")
}

fn clamped(mut values: Vec<f64>) -> Vec<f64> {
    values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Rows `rows` and columns `columns` of the product of two sides.
fn selected(moments: &Moments, a: usize, rows: &[usize], b: usize, columns: &[usize]) -> Result<Mat<f64>, String> {
    let product: MatRef<'_, f64> = moments.product(a, b).ok_or("the pair was not asked for")?;
    Ok(Mat::from_fn(rows.len(), columns.len(), |i, j| product[(rows[i], columns[j])]))
}

fn shared(moments: &Moments, (a, x): (usize, &Whitened), (b, y): (usize, &Whitened)) -> Result<Mat<f64>, String> {
    let between = selected(moments, a, &x.columns, b, &y.columns)?;
    Ok(x.directions.transpose() * between * &y.directions)
}

fn whiten(moments: &Moments, side: usize, threshold: f64) -> Result<Whitened, String> {
    let columns = moments.varying(side);
    if columns.is_empty() {
        return Err("no column of a side varies".into());
    }
    let mut own = selected(moments, side, &columns, side, &columns)?;
    // Without a threshold the answer does not depend on the columns' scales, and a common one costs no digits.
    let scales: Vec<f64> = match threshold < 1.0 {
        true => vec![1.0; columns.len()],
        false => (0..columns.len()).map(|i| own[(i, i)].sqrt()).collect(),
    };
    for (j, column) in own.col_iter_mut().enumerate() {
        for (v, scale) in column.iter_mut().zip(&scales) {
            *v /= scale * scales[j];
        }
    }
    let eigen = own.as_ref().self_adjoint_eigen(Triangle::Lower).map_err(diverged)?;
    // Nondecreasing as they come.
    let variances: Vec<f64> = eigen.S().column_vector().iter().rev().copied().collect();
    let largest = variances.first().copied().unwrap_or(0.0);
    let total: f64 = variances.iter().filter(|v| **v > 0.0).sum();
    let mut explained = 0.0;
    let mut kept = 0;
    for variance in variances.iter().take_while(|v| **v > RANK * largest) {
        if explained >= threshold * total {
            break;
        }
        explained += variance;
        kept += 1;
    }
    let n = columns.len();
    let directions = Mat::from_fn(n, kept, |i, j| eigen.U()[(i, n - 1 - j)] / (scales[i] * variances[j].sqrt()));
    Ok(Whitened { columns, directions })
}
