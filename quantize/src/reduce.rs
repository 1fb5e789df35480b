//! Reducers: a scheme bound to a layout and its parameters.

use crate::{
    Code, MapShape, OnUnholdable, Params, Scheme,
    codebook::{Codebook, GRIDS, search},
    error::{QuantizeError, Result, check_len},
    params::Kind,
    pool,
    scheme::{Pool, Value},
    simd,
};

/// Bytes that the tables of an intermediate's codebooks take together; where they would take more, edges are searched.
const TABLE_BYTES: usize = 16 << 20;
/// Edges that are compared one after another behind a table; beyond, a search is as fast.
const MAX_PASSES: usize = 3;
/// Values pooled before they are quantized: they stay in the first-level cache.
const BLOCK: usize = 4096;

/// Codes of all floats by their top bits.
enum Table {
    Top16(Box<[u8; 1 << 16]>),
    Top18(Box<[u8; 1 << 18]>),
    /// And the edges that it leaves out of a cell at most.
    Top16Edges(Box<[u8; 1 << 16]>, usize),
}

/// One codebook, ready to encode and decode.
struct Book {
    table: Option<Table>,
    edges: Box<[f32; 256]>,
    reps: Box<[f32; 256]>,
    near_zero: u8,
    last: u8,
}

enum Quantizer {
    Float,
    Books(Vec<Book>),
    Thresholds(Vec<f32>),
}

/// A scheme bound to a layout and its parameters, with its look-up tables built.
pub struct Reducer {
    scheme: Scheme,
    code: Code,
    map: MapShape,
    stored: MapShape,
    n_units: usize,
    params: Params,
    quantizer: Quantizer,
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Reducer>();
};

impl std::fmt::Debug for Reducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reducer({}, {:?} x {})", self.scheme, self.map, self.n_units)
    }
}

impl Reducer {
    /// A reducer of intermediates with `n_units` maps of shape `map` per row.
    ///
    /// Errors: `Unresolved` for `auto`; `BadShape`; `WrongParams` where `params` are not what
    /// [`Scheme::fit`] of this scheme and number of units returns.
    pub fn new(scheme: &Scheme, map: MapShape, n_units: usize, params: Params) -> Result<Self> {
        check_shape(map, n_units)?;
        if scheme.is_auto().is_some() {
            return Err(QuantizeError::Unresolved);
        }
        let wrong = |why| Err(QuantizeError::WrongParams { why });
        let right_count = |per_unit, n| n == if per_unit { n_units } else { 1 };
        let quantizer = match (scheme.value, &params.kind) {
            (Value::Float(_) | Value::Auto(_), Kind::None) => Quantizer::Float,
            (Value::ThresholdAt(v), Kind::None) => Quantizer::Thresholds(vec![v.get() as f32]),
            (Value::Kbit { bits, per_unit, .. }, Kind::Codebooks { bits: b, books }) => {
                if *b != bits || !right_count(per_unit, books.len()) {
                    return wrong("number of bits or of codebooks");
                }
                Quantizer::Books(books.iter().map(|b| Book::new(b, TABLE_BYTES / books.len())).collect())
            }
            (Value::Threshold { per_unit, .. }, Kind::Thresholds(t)) => {
                if !right_count(per_unit, t.len()) {
                    return wrong("number of thresholds");
                }
                Quantizer::Thresholds(t.clone())
            }
            _ => return wrong("kind of parameters"),
        };
        Ok(Self {
            code: scheme.code(),
            stored: scheme.stored_map(map),
            scheme: scheme.clone(),
            map,
            n_units,
            params,
            quantizer,
        })
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Type of the codes.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Whether each unit is encoded by a look-up table of its own, too many to be in a core's cache together.
    #[must_use]
    pub fn has_tables(&self) -> bool {
        matches!(&self.quantizer, Quantizer::Books(books) if books.len() > 1)
    }

    /// Shape of the maps taken.
    #[must_use]
    pub const fn map(&self) -> MapShape {
        self.map
    }

    /// Shape of the maps stored.
    #[must_use]
    pub const fn stored_map(&self) -> MapShape {
        self.stored
    }

    /// Units per row.
    #[must_use]
    pub const fn n_units(&self) -> usize {
        self.n_units
    }

    /// The fitted parameters.
    #[must_use]
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// Number of values clamped; codes are appended to `out`.
    ///
    /// Shape: `maps` holds k whole maps of the consecutive units from `first_unit`; `out` grows by k stored maps.
    /// Errors: `Length`, `UnitRange`; `Unholdable` under [`OnUnholdable::Error`]; then `out` is as before.
    pub fn encode(&self, first_unit: usize, maps: &[f32], on_bad: OnUnholdable, out: &mut Vec<u8>) -> Result<u64> {
        let k = self.count_units(first_unit, maps.len(), self.map)?;
        let before = out.len();
        out.resize(before + k * self.stored.cells() * self.code.width(), 0);
        let done = self.encode_units(first_unit, maps, on_bad, &mut out[before..]);
        if done.is_err() {
            out.truncate(before);
        }
        done
    }

    fn encode_units(&self, first_unit: usize, maps: &[f32], on_bad: OnUnholdable, out: &mut [u8]) -> Result<u64> {
        if self.scheme.pool == Pool::None {
            return self.quantize(first_unit, maps, 0, on_bad, out);
        }
        let (cells, stored) = (self.map.cells(), self.stored.cells());
        let units = (BLOCK / cells).max(1);
        let (mut pooled, mut column) = (Vec::with_capacity(units * stored), Vec::new());
        let mut clamped = 0;
        let blocks = maps.chunks(units * cells).zip(out.chunks_mut(units * stored * self.code.width()));
        for (i, (maps, out)) in blocks.enumerate() {
            pooled.clear();
            pool::pool(self.scheme.pool, self.map, maps, &mut column, &mut pooled);
            clamped += self.quantize(first_unit + i * units, &pooled, i * units * stored, on_bad, out)?;
        }
        Ok(clamped)
    }

    /// Quantizes stored maps; `offset` is the index of the first value within the call.
    fn quantize(
        &self,
        first_unit: usize,
        v: &[f32],
        offset: usize,
        on_bad: OnUnholdable,
        out: &mut [u8],
    ) -> Result<u64> {
        let many = match &self.quantizer {
            Quantizer::Float => return quantize_float(self.code, v, offset, on_bad, out),
            Quantizer::Books(books) => books.len() > 1,
            Quantizer::Thresholds(t) => t.len() > 1,
        };
        let step = if many { self.stored.cells() } else { v.len().max(1) };
        let bad = |i, value| QuantizeError::Unholdable { value, index: i, code: self.code };
        let mut clamped = 0;
        for (i, (v, out)) in v.chunks(step).zip(out.chunks_mut(step)).enumerate() {
            let (unit, offset) = (if many { first_unit + i } else { 0 }, offset + i * step);
            clamped += match &self.quantizer {
                Quantizer::Float => 0,
                Quantizer::Books(books) => {
                    let book = &books[unit];
                    book.encode(v, out);
                    fix(v, offset, on_bad, bad, |i, x| {
                        out[i] = match x {
                            f32::INFINITY => book.last,
                            f32::NEG_INFINITY => 0,
                            _ => book.near_zero,
                        };
                    })?
                }
                Quantizer::Thresholds(t) => {
                    let t = t[unit];
                    simd::greater(v, t, out);
                    fix(v, offset, on_bad, bad, |i, x| {
                        if x.is_nan() {
                            out[i] = u8::from(0.0 > t);
                        }
                    })?
                }
            };
        }
        Ok(clamped)
    }

    /// Decodes codes of k units' stored maps to f32, at the stored resolution.
    ///
    /// Shape: `codes` holds k stored maps of the consecutive units from `first_unit`; `out` as many values.
    /// Errors: `Length`, `UnitRange`. A kbit code beyond the codebook decodes to its last representative.
    pub fn decode(&self, first_unit: usize, codes: &[u8], out: &mut [f32]) -> Result<()> {
        let k = self.count_units(first_unit, out.len(), self.stored)?;
        self.decode_rows(first_unit, k, codes, out)
    }

    /// Decodes a page, of any number of rows, in one go: as [`Reducer::decode`] of each row.
    ///
    /// Shape: `codes` holds rows × `k` stored maps of the consecutive units from `first_unit`; `out` as many values.
    /// Errors: as [`Reducer::decode`].
    pub fn decode_rows(&self, first_unit: usize, k: usize, codes: &[u8], out: &mut [f32]) -> Result<()> {
        let cells = self.stored.cells();
        self.check_units(first_unit, k)?;
        let row = k * cells;
        let partial = out.len().checked_rem(row).unwrap_or(out.len());
        check_len("whole rows", out.len(), out.len() - partial)?;
        check_len("codes", codes.len(), out.len() * self.code.width())?;
        match &self.quantizer {
            Quantizer::Float => crate::to_f32(self.code, codes, out)?,
            Quantizer::Books(books) => match &books[..] {
                [book] => simd::look_up(&book.reps, codes, out),
                books if k > 0 => {
                    for (codes, out) in codes.chunks_exact(row).zip(out.chunks_exact_mut(row)) {
                        let units = codes.chunks_exact(cells).zip(out.chunks_exact_mut(cells));
                        for ((codes, out), book) in units.zip(&books[first_unit..]) {
                            simd::look_up(&book.reps, codes, out);
                        }
                    }
                }
                _ => {}
            },
            Quantizer::Thresholds(_) => simd::bits_to_f32(codes, out),
        }
        Ok(())
    }

    /// What each code of `unit` decodes to, ascending, for `kbit` and `threshold`; `None` for floats. Codes beyond the
    /// last stand for the last.
    #[must_use]
    pub fn code_values(&self, unit: usize) -> Option<&[f32]> {
        match &self.quantizer {
            Quantizer::Float => None,
            Quantizer::Books(books) => {
                let book = if books.len() > 1 { books.get(unit) } else { books.first() };
                book.map(|b| &b.reps[..=usize::from(b.last)])
            }
            Quantizer::Thresholds(_) => Some(&[0.0, 1.0]),
        }
    }

    fn check_units(&self, first: usize, k: usize) -> Result<()> {
        match first.checked_add(k) {
            Some(end) if end <= self.n_units => Ok(()),
            end => Err(QuantizeError::UnitRange { first, end: end.unwrap_or(usize::MAX), n_units: self.n_units }),
        }
    }

    pub(crate) fn count_units(&self, first: usize, len: usize, map: MapShape) -> Result<usize> {
        let k = len / map.cells();
        check_len("whole maps", len, k * map.cells())?;
        self.check_units(first, k)?;
        Ok(k)
    }
}

impl Table {
    fn of(book: &Codebook, table_bytes: usize) -> Option<Self> {
        let top = |grid: u32| book.table(grid).into_boxed_slice();
        let fits = |grid: u32| table_bytes >> grid > 0;
        let [coarse, fine] = GRIDS;
        match book.edges_in_a_cell(coarse) {
            0 if fits(coarse) => Some(Self::Top16(top(coarse).try_into().ok()?)),
            _ if fits(fine) && book.edges_in_a_cell(fine) == 0 => Some(Self::Top18(top(fine).try_into().ok()?)),
            passes @ 1..=MAX_PASSES if fits(coarse) => Some(Self::Top16Edges(top(coarse).try_into().ok()?, passes)),
            _ => None,
        }
    }
}

impl Book {
    /// With a table of at most so many bytes, if there is one.
    fn new(book: &Codebook, table_bytes: usize) -> Self {
        let last = book.reps().len() - 1;
        let mut reps = Box::new([book.reps()[last]; 256]);
        reps[..=last].copy_from_slice(book.reps());
        let table = Table::of(book, table_bytes);
        Self { table, edges: book.padded_edges(), reps, near_zero: book.code_near_zero(), last: last as u8 }
    }

    /// Codes of values; those of values that are not finite are arbitrary.
    fn encode(&self, v: &[f32], out: &mut [u8]) {
        match &self.table {
            Some(Table::Top16(table)) => simd::table_16(table, v, out),
            Some(Table::Top18(table)) => simd::table_18(table, v, out),
            Some(Table::Top16Edges(table, passes)) => simd::table_16_edges(table, &self.edges, *passes, v, out),
            None => {
                for (x, o) in v.iter().zip(out) {
                    *o = search(&self.edges, *x);
                }
            }
        }
    }
}

fn quantize_float(code: Code, v: &[f32], offset: usize, on_bad: OnUnholdable, out: &mut [u8]) -> Result<u64> {
    // Least magnitudes that round to infinity.
    let (limit, largest) = match code {
        Code::F64 => {
            simd::f32_to_f64(v, out);
            return Ok(0);
        }
        Code::F16 => {
            simd::f32_to_f16(v, out);
            (0x477F_F000, 0x7BFFu16)
        }
        Code::BF16 => {
            simd::f32_to_bf16(v, out);
            (0x7F7F_8000, 0x7F7F)
        }
        _ => {
            simd::f32_to_bytes(v, out);
            return Ok(0);
        }
    };
    if simd::max_abs_bits(v) < limit {
        return Ok(0);
    }
    let mut clamped = 0;
    for (i, (x, o)) in v.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
        if x.is_finite() && x.abs().to_bits() >= limit {
            if on_bad == OnUnholdable::Error {
                return Err(QuantizeError::Unholdable { value: *x, index: offset + i, code });
            }
            let sign = (x.to_bits() >> 16 & 0x8000) as u16;
            *o = (largest | sign).to_le_bytes();
            clamped += 1;
        }
    }
    Ok(clamped)
}

/// Calls `set` for each value that is not finite, or fails on the first.
fn fix(
    v: &[f32],
    offset: usize,
    on_bad: OnUnholdable,
    error: impl Fn(usize, f32) -> QuantizeError,
    mut set: impl FnMut(usize, f32),
) -> Result<u64> {
    if simd::max_abs_bits(v) < 0x7F80_0000 {
        return Ok(0);
    }
    let mut n = 0;
    for (i, x) in v.iter().enumerate().filter(|(_, x)| !x.is_finite()) {
        if on_bad == OnUnholdable::Error {
            return Err(error(offset + i, *x));
        }
        set(i, *x);
        n += 1;
    }
    Ok(n)
}

pub(crate) fn check_shape(map: MapShape, n_units: usize) -> Result<()> {
    let row = map.h.checked_mul(map.w).and_then(|c| c.checked_mul(n_units));
    match row {
        Some(1..=0x7FFF_FFFF) => Ok(()),
        _ => Err(QuantizeError::BadShape { h: map.h, w: map.w, n_units }),
    }
}
