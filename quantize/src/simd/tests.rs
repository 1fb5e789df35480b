//! Every form of every kernel that the machine can run, against the plain one.

use super::{Level, avx2, avx512, level, scalar, scalar_page};

/// Floats of all kinds, and bytes half of which are zero.
fn data(n: usize) -> (Vec<f32>, Vec<u8>) {
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, -1.5, 65519.9, 65520.0, 1e-7, 1e-40, f32::MAX, 3e-5];
    let mut x = 12345u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x
    };
    let mut v = Vec::new();
    let mut bytes = Vec::new();
    for i in 0..n {
        let any = f32::from_bits(next());
        v.push(if i % 3 == 0 || any.is_nan() { special[i / 3 % 11] } else { any });
        let byte = (next() >> 24) as u8;
        bytes.push(if byte & 1 == 0 { 0 } else { byte });
    }
    (v, bytes)
}

trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl Same for Vec<u8> {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Same for Vec<f32> {
    fn same(&self, other: &Self) -> bool {
        self.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

macro_rules! same {
    ($form:ident, $plain:ident, $out:expr, $name:ident($($arg:expr),*)) => {{
        let (mut a, mut b) = ($out, $out);
        $plain::$name($($arg,)* &mut a);
        // SAFETY: the caller checked the level.
        unsafe { $form::$name($($arg,)* &mut b) };
        assert!(a.same(&b), "{} of {} values", stringify!($name), a.len());
    }};
}

macro_rules! check {
    ($form:ident) => {
        let table_16: Vec<u8> = (0..1 << 16).map(|i: u32| (i.wrapping_mul(40_503) >> 8) as u8).collect();
        let table_16 = table_16.first_chunk().unwrap();
        let table_18: Vec<u8> = (0..1 << 18).map(|i: u32| (i.wrapping_mul(40_503) >> 9) as u8).collect();
        let table_18 = table_18.first_chunk().unwrap();
        let table: [f32; 256] = std::array::from_fn(|i| i as f32 * 0.5 - 3.0);
        for n in (0..140).chain([1000, 4096]) {
            let (v, bytes) = data(8 * n);
            let w = &v[..n];
            same!($form, scalar, vec![0u8; 2 * n], f32_to_f16(w));
            same!($form, scalar, vec![0u8; 2 * n], f32_to_bf16(w));
            same!($form, scalar, vec![0u8; 4 * n], f32_to_bytes(w));
            same!($form, scalar, vec![0u8; 8 * n], f32_to_f64(w));
            same!($form, scalar, vec![0u8; n], greater(w, 0.5));
            same!($form, scalar, vec![0u8; n], table_16(table_16, w));
            same!($form, scalar, vec![0u8; n], table_18(table_18, w));
            same!($form, scalar, vec![0u8; n], table_16_edges(table_16, &table, 2, w));
            same!($form, scalar, vec![0f32; n], look_up(&table, &bytes[..n]));
            same!($form, scalar, vec![0f32; n], bits_to_f32(&bytes[..n]));
            same!($form, scalar, vec![0f32; n], f16_to_f32(&bytes[..2 * n]));
            same!($form, scalar, vec![0f32; n], bf16_to_f32(&bytes[..2 * n]));
            same!($form, scalar, vec![0f32; n], bytes_to_f32(&bytes[..4 * n]));
            same!($form, scalar, vec![0f32; n], f64_to_f32(&bytes[..8 * n]));
            for w in [2, 4, 6, 8, 16, 32, 34] {
                let pairs = 4 * n / (2 * w);
                same!($form, scalar, vec![0f32; pairs * w / 2], mean_2x2(&v[..pairs * 2 * w], w));
            }
            for bits in 1..=8 {
                let packed = &bytes[..crate::page::packed_len(bits, n)];
                same!($form, scalar_page, vec![0u8; n], unpack(bits, packed));
            }
            for (width, rotation) in [(1, 0), (2, 0), (2, 1), (4, 0), (4, 1), (8, 1)] {
                let codes = &bytes[..width * n];
                same!($form, scalar_page, vec![0u8; width * n], to_planes(width, rotation, codes));
                same!($form, scalar_page, vec![0u8; width * n], from_planes(width, rotation, codes));
                for fill in [0, bytes.first().copied().unwrap_or(9)] {
                    let room = codes.len() + scalar_page::COMPRESS_SLACK;
                    let (mut bits, mut dense) = (vec![7; n.div_ceil(8)], vec![7; room]);
                    let (mut bits_b, mut dense_b) = (vec![9; n.div_ceil(8)], vec![9; room]);
                    let len = scalar_page::compress(width, codes, fill, &mut bits, &mut dense);
                    dense.truncate(len);
                    // SAFETY: the caller checked the level.
                    let len = unsafe { $form::compress(width, codes, fill, &mut bits_b, &mut dense_b) };
                    dense_b.truncate(len);
                    assert_eq!((&bits, &dense), (&bits_b, &dense_b), "compress {width} {n}");
                    // With and without room behind, and too short.
                    for extra in [0, 64] {
                        dense.resize(dense_b.len() + extra, 3);
                        same!($form, scalar_page, vec![0u8; width * n], expand(width, &bits, &dense, fill));
                        match width {
                            2 => {
                                same!($form, scalar_page, vec![0f32; n], expand_f16(&bits, &dense));
                                same!($form, scalar_page, vec![0f32; n], expand_bf16(&bits, &dense));
                            }
                            4 => same!($form, scalar_page, vec![0f32; n], expand_f32(&bits, &dense)),
                            _ => {}
                        }
                    }
                }
            }
            let (mut max, mut sum) = (v[n..2 * n].to_vec(), v[n..2 * n].to_vec());
            let (mut max_b, mut sum_b) = (max.clone(), sum.clone());
            scalar::max_into(&mut max, w);
            scalar::add_into(&mut sum, w);
            let sums = scalar::error_sums(w, &v[n..2 * n]);
            // SAFETY: the caller checked the level.
            let sums_b = unsafe {
                $form::max_into(&mut max_b, w);
                $form::add_into(&mut sum_b, w);
                assert_eq!($form::max_abs_bits(w), scalar::max_abs_bits(w));
                $form::error_sums(w, &v[n..2 * n])
            };
            let nan_is_nan = |v: Vec<f32>| v.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }).collect::<Vec<_>>();
            assert!(nan_is_nan(max).same(&nan_is_nan(max_b)));
            assert!(nan_is_nan(sum).same(&nan_is_nan(sum_b)));
            assert_eq!(format!("{sums:?}"), format!("{sums_b:?}"));
        }
    };
}

#[test]
fn avx2_agrees() {
    if level() >= Level::Avx2 {
        check!(avx2);
    }
}

#[test]
fn avx512_agrees() {
    if level() >= Level::Avx512 {
        check!(avx512);
    }
}
