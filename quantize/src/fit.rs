//! Fitting parameters on a sample, and choosing a scheme by the error it makes there.

use crate::{
    Code, MapShape, OnUnholdable, Params, Reducer, Scheme, UnitError,
    codebook::{Bins, Codebook},
    error::{QuantizeError, Result, check_len},
    params::Kind,
    pool,
    reduce::check_shape,
    scheme::{Pool, Value},
};

/// Values that a codebook or a quantile is fitted on: of more, evenly many are taken.
const BOOK_VALUES: usize = 1 << 17;

impl Scheme {
    /// Parameters fitted on a sample; [`Params::none`] for schemes that need none.
    ///
    /// Shape: `sample` holds rows × `n_units` × cells values, row-major. Values that are not finite are left out.
    /// Errors: `Unresolved` for `auto`; `BadShape`; `Length` of a sample of partial rows; `EmptySample`.
    pub fn fit(&self, map: MapShape, n_units: usize, sample: &[f32]) -> Result<Params> {
        check_shape(map, n_units)?;
        let row = map.cells() * n_units;
        check_len("sample of whole rows", sample.len(), sample.len() / row * row)?;
        let per_unit = match self.value {
            Value::Auto(_) => return Err(QuantizeError::Unresolved),
            Value::Float(_) | Value::ThresholdAt(_) => return Ok(Params::none()),
            Value::Kbit { per_unit, .. } | Value::Threshold { per_unit, .. } => per_unit,
        };
        let mut pooled = Vec::new();
        let values = if self.pool == Pool::None {
            sample
        } else {
            pool::pool(self.pool, map, sample, &mut Vec::new(), &mut pooled);
            &pooled
        };
        if !values.iter().any(|x| x.is_finite()) {
            return Err(QuantizeError::EmptySample);
        }
        let cells = self.stored_map(map).cells();
        let n_groups = if per_unit { n_units } else { 1 };
        // Odd, so that no power of two makes it stay in one column of the maps.
        let every = (values.len() / n_groups).div_ceil(BOOK_VALUES) | 1;
        let groups = (0..n_groups).map(|unit| {
            let maps = values.chunks_exact(cells);
            let (skip, step) = if per_unit { (unit, n_units) } else { (0, 1) };
            let group = maps.skip(skip).step_by(step).flatten().step_by(every);
            let mut group: Vec<f32> = group.copied().filter(|x| x.is_finite()).collect();
            group.sort_unstable_by(f32::total_cmp);
            group
        });
        let kind = match self.value {
            Value::Kbit { bits, bins, .. } => Kind::Codebooks {
                bits,
                books: groups
                    .map(|g| if g.is_empty() { Codebook::zero() } else { Codebook::fit(&g, 1 << bits, bins) })
                    .collect(),
            },
            Value::Threshold { alpha, .. } => Kind::Thresholds(groups.map(|g| quantile(&g, alpha.get())).collect()),
            _ => Kind::None,
        };
        Ok(Params { kind })
    }

    /// The smallest scheme whose relative error on the sample is below `tol`: f32 if no smaller one is.
    ///
    /// The relative error is the rms error over the rms value of the whole sample, at its own resolution. A scheme that
    /// cannot hold the sample's values (NaN, in `kbit`), or of which no value tells an error, is passed over.
    /// Errors: as [`Scheme::fit`]; `BadScheme` for a `tol` that is negative or NaN.
    pub fn choose(tol: f64, map: MapShape, n_units: usize, sample: &[f32]) -> Result<Self> {
        check_shape(map, n_units)?;
        if tol.is_nan() || tol < 0.0 {
            return Err(QuantizeError::BadScheme {
                text: format!("auto({tol})"),
                why: "auto takes a relative error of 0 or more",
            });
        }
        for scheme in candidates(map) {
            match scheme.error_on(map, n_units, sample) {
                Ok(err) if err.n > 0 && err.relative() < tol => return Ok(scheme),
                Ok(_) | Err(QuantizeError::Unholdable { .. } | QuantizeError::EmptySample) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self::of(Pool::None, Value::Float(Code::F32)))
    }

    /// Error on a sample after fitting on it.
    fn error_on(&self, map: MapShape, n_units: usize, sample: &[f32]) -> Result<UnitError> {
        let reducer = Reducer::new(self, map, n_units, self.fit(map, n_units, sample)?)?;
        let mut total = UnitError::default();
        let mut errs = vec![UnitError::default(); n_units];
        let mut codes = Vec::new();
        for row in sample.chunks_exact(map.cells() * n_units) {
            codes.clear();
            reducer.encode(0, row, OnUnholdable::Error, &mut codes)?;
            reducer.measure(0, row, &codes, &mut errs)?;
        }
        for err in &errs {
            total.merge(err);
        }
        Ok(total)
    }
}

/// Candidates of [`Scheme::choose`] in order of bits per value, pooled ones only for maps.
fn candidates(map: MapShape) -> Vec<Scheme> {
    let values = [
        (Value::Kbit { bits: 4, per_unit: false, bins: Bins::LeastSquares }, 4.0),
        (Value::Kbit { bits: 8, per_unit: false, bins: Bins::LeastSquares }, 8.0),
        (Value::Float(Code::F16), 16.0),
    ];
    let mut all: Vec<(f64, Scheme)> = Vec::new();
    for pool in [Pool::None, Pool::Mean(2), Pool::Mean(4), Pool::Whole] {
        for (value, bits) in values {
            let scheme = Scheme::of(pool, value);
            let stored = scheme.stored_map(map).cells();
            if pool == Pool::None || stored < map.cells() {
                all.push((bits * stored as f64 / map.cells() as f64, scheme));
            }
        }
    }
    // Stable: of equal sizes the less pooled comes first.
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|(_, s)| s).collect()
}

/// Least value with at least a share `alpha` of the sorted values at or below it; 0 of none.
fn quantile(sorted: &[f32], alpha: f64) -> f32 {
    let at = (alpha * sorted.len() as f64).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}
