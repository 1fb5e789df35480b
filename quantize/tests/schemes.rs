//! Every scheme over awkward shapes and values, against naive oracles.

use mistique_quantize::{
    Code, MapShape, OnUnholdable, Params, QuantizeError, Reducer, Scheme, UnitError, page_stats, to_f32,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

const SCHEMES: [&str; 23] = [
    "f32",
    "f16",
    "bf16",
    "f64",
    "kbit(1)",
    "kbit(2,unit)",
    "kbit(4)",
    "kbit(8)",
    "kbit(8,unit)",
    "lloyd(1)",
    "lloyd(3,unit)",
    "lloyd(8)",
    "threshold(0.9)",
    "threshold(0.5,unit)",
    "threshold(=0.25)",
    "pool(2)+f16",
    "pool(3,max)+f32",
    "pool(S)+f32",
    "pool(S,max)+f32",
    "pool(5)+f64",
    "pool(2)+kbit(8)",
    "pool(2)+lloyd(8,unit)",
    "pool(4,max)+threshold(0.7,unit)",
];
const SHAPES: [(usize, usize); 8] = [(1, 1), (2, 2), (4, 4), (5, 7), (1, 9), (16, 16), (3, 64), (32, 32)];

fn scheme(text: &str) -> Scheme {
    text.parse().unwrap()
}

fn sample(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-2.0f32..1.5).max(-0.0) * rng.random_range(0.0..3.0)).collect()
}

fn naive_pool(text: &str, map: MapShape, one: &[f32]) -> Vec<f32> {
    let s = match text.split(['(', ')', ',']).nth(1) {
        Some("S") => map.h.max(map.w),
        Some(s) if text.starts_with("pool") => s.parse().unwrap(),
        _ => return one.to_vec(),
    };
    let mut out = Vec::new();
    for r0 in (0..map.h).step_by(s) {
        for c0 in (0..map.w).step_by(s) {
            let window: Vec<f64> = (r0..(r0 + s).min(map.h))
                .flat_map(|r| (c0..(c0 + s).min(map.w)).map(move |c| f64::from(one[r * map.w + c])))
                .collect();
            out.push(if text.contains("max") {
                window.iter().copied().fold(f64::NEG_INFINITY, f64::max) as f32
            } else {
                (window.iter().sum::<f64>() / window.len() as f64) as f32
            });
        }
    }
    out
}

#[test]
fn every_scheme_over_every_shape() {
    for text in SCHEMES {
        for (h, w) in SHAPES {
            let map = MapShape { h, w };
            let n_units = 5;
            let rows = 12;
            let values = sample(rows * n_units * map.cells(), 1);
            let s = scheme(text);
            let params = s.fit(map, n_units, &values).unwrap();
            assert_eq!(params.is_none(), !s.needs_fit());
            let params = Params::from_bytes(&params.to_bytes()).unwrap();
            let r = Reducer::new(&s, map, n_units, params.clone()).unwrap();
            assert_eq!((r.scheme(), r.map(), r.params(), r.code()), (&s, map, &params, s.code()));
            let stored = r.stored_map();
            assert_eq!(stored, s.stored_map(map));
            let mut whole = Vec::new();
            let mut errs = vec![UnitError::default(); n_units];
            let mut naive = vec![(0u64, 0f64, 0f64, 0f64); n_units];
            for row in values.chunks(n_units * map.cells()) {
                let mut codes = Vec::new();
                assert_eq!(r.encode(0, row, OnUnholdable::Error, &mut codes).unwrap(), 0);
                assert_eq!(codes.len(), n_units * stored.cells() * r.code().width());
                // Units one at a time give the same.
                let mut parts = Vec::new();
                for (u, one) in row.chunks(map.cells()).enumerate() {
                    r.encode(u, one, OnUnholdable::Clamp, &mut parts).unwrap();
                }
                assert_eq!(parts, codes, "{text} {map:?}");
                let mut back = vec![9.0; n_units * stored.cells()];
                r.decode(0, &codes, &mut back).unwrap();
                r.measure(0, row, &codes, &mut errs).unwrap();
                for (u, one) in row.chunks(map.cells()).enumerate() {
                    let pooled = naive_pool(text, map, one);
                    assert_eq!(pooled.len(), stored.cells());
                    let got = &back[u * stored.cells()..][..stored.cells()];
                    if s.code().is_float() {
                        let tol = match s.code() {
                            Code::F16 => 1e-3,
                            Code::BF16 => 8e-3,
                            _ => 1e-6,
                        };
                        for (g, p) in got.iter().zip(&pooled) {
                            assert!((g - p).abs() <= tol * p.abs().max(0.1), "{text} {map:?} {g} {p}");
                        }
                    }
                    let step = match text.split(['(', ')', ',']).nth(1) {
                        Some("S") => map.h.max(map.w),
                        Some(x) if text.starts_with("pool") => x.parse().unwrap(),
                        _ => 1,
                    };
                    for (i, x) in one.iter().enumerate() {
                        let y = got[i / map.w / step * stored.w + i % map.w / step];
                        let e = f64::from(*x) - f64::from(y);
                        naive[u].0 += 1;
                        naive[u].1 += e * e;
                        naive[u].2 = naive[u].2.max(e.abs());
                        naive[u].3 += f64::from(*x) * f64::from(*x);
                    }
                }
                whole.extend(codes);
            }
            for (e, (n, sq, max, sum)) in errs.iter().zip(naive) {
                let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
                assert!(
                    e.n == n && near(e.sum_sq_err, sq) && near(e.max(), max) && near(e.sum_sq, sum),
                    "{text} {map:?} {e:?}"
                );
                assert_eq!(UnitError::from_bytes(&e.to_bytes()).unwrap(), *e);
            }
            page_stats(r.code(), &whole).unwrap();
            // All rows at once decode as row by row.
            let row = n_units * stored.cells();
            let (mut all, mut each) = (vec![0.0; rows * row], vec![0.0; rows * row]);
            r.decode_rows(0, n_units, &whole, &mut all).unwrap();
            for (codes, out) in whole.chunks(row * r.code().width()).zip(each.chunks_mut(row)) {
                r.decode(0, codes, out).unwrap();
            }
            assert_eq!(all, each);
            assert!(r.decode_rows(1, n_units, &whole, &mut all).is_err());
            assert!(r.decode_rows(0, 0, &whole, &mut all).is_err());
            assert!(r.decode_rows(0, n_units, &[], &mut []).is_ok());
        }
    }
}

#[test]
fn lossless_schemes_keep_every_bit() {
    let v = [0.0, -0.0, 1e-45, f32::NAN, f32::from_bits(0xFFC0_1234), f32::INFINITY, f32::MIN, 1.1];
    let r = Reducer::new(&scheme("f32"), MapShape::VECTOR, 8, Params::none()).unwrap();
    let mut codes = Vec::new();
    r.encode(0, &v, OnUnholdable::Error, &mut codes).unwrap();
    let mut back = [0.0; 8];
    r.decode(0, &codes, &mut back).unwrap();
    assert_eq!(back.map(f32::to_bits), v.map(f32::to_bits));
    for text in ["f16", "bf16", "f64"] {
        let r = Reducer::new(&scheme(text), MapShape::VECTOR, 5, Params::none()).unwrap();
        codes.clear();
        let v = [-0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5];
        assert_eq!(r.encode(0, &v, OnUnholdable::Error, &mut codes).unwrap(), 0, "{text}");
        let mut back = [1.0; 5];
        r.decode(0, &codes, &mut back).unwrap();
        assert!(back[1].is_nan());
        assert_eq!([0, 2, 3, 4].map(|i| back[i].to_bits()), [0, 2, 3, 4].map(|i: usize| v[i].to_bits()), "{text}");
    }
    assert!(scheme("f32").is_lossless_for(Code::F16) && !scheme("pool(2)+f32").is_lossless_for(Code::F32));
    assert!(scheme("f64").is_lossless_for(Code::Int(4)) && !scheme("f16").is_lossless_for(Code::Int(2)));
}

#[test]
fn unholdable_values_are_errors_or_counted() {
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -7e4];
    for (text, n_bad, expected) in [
        ("f16", 2, [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65504.0, -65504.0]),
        ("f32", 0, bad),
        ("threshold(=0.5)", 3, [0.0, 1.0, 0.0, 1.0, 0.0]),
        ("threshold(=-1)", 3, [1.0, 1.0, 0.0, 1.0, 0.0]),
    ] {
        let r = Reducer::new(&scheme(text), MapShape::VECTOR, 5, Params::none()).unwrap();
        let mut codes = vec![1, 2];
        if n_bad > 0 {
            let e = r.encode(0, &bad, OnUnholdable::Error, &mut codes).unwrap_err();
            assert!(matches!(e, QuantizeError::Unholdable { .. }));
        }
        assert_eq!(codes, [1, 2], "nothing is appended on error");
        codes.clear();
        assert_eq!(r.encode(0, &bad, OnUnholdable::Clamp, &mut codes).unwrap(), n_bad, "{text}");
        let mut back = [0.0; 5];
        r.decode(0, &codes, &mut back).unwrap();
        for (b, e) in back.iter().zip(expected) {
            assert!(b == &e || b.is_nan() && e.is_nan(), "{text} {back:?}");
        }
    }
    let s = scheme("kbit(2)");
    let fit = s.fit(MapShape::VECTOR, 1, &[-1.0, f32::NAN, 0.0, 0.0, 2.0, f32::INFINITY]).unwrap();
    let r = Reducer::new(&s, MapShape::VECTOR, 1, fit).unwrap();
    for (x, y) in [(f32::NAN, 0.0), (f32::INFINITY, 2.0), (f32::NEG_INFINITY, -1.0), (-0.0, 0.0), (1e9, 2.0)] {
        let (mut codes, mut back) = (Vec::new(), [9.0]);
        let clamped = r.encode(0, &[x], OnUnholdable::Clamp, &mut codes).unwrap();
        r.decode(0, &codes, &mut back).unwrap();
        assert_eq!((back[0], clamped), (y, u64::from(!x.is_finite())), "{x}");
    }
    // A mean of finite values is finite, and a NaN in a window is not hidden.
    let r = Reducer::new(&scheme("pool(2)+f32"), MapShape { h: 2, w: 2 }, 1, Params::none()).unwrap();
    let mut codes = Vec::new();
    r.encode(0, &[f32::MAX; 4], OnUnholdable::Error, &mut codes).unwrap();
    assert_eq!(codes, f32::MAX.to_le_bytes());
    for text in ["pool(2)+f32", "pool(2,max)+f32", "pool(S)+f32", "pool(S,max)+f32"] {
        let r = Reducer::new(&scheme(text), MapShape { h: 2, w: 3 }, 1, Params::none()).unwrap();
        for i in 0..6 {
            let mut v = [1.0; 6];
            v[i] = f32::NAN;
            let (mut codes, mut back) = (Vec::new(), vec![0.0; r.stored_map().cells()]);
            r.encode(0, &v, OnUnholdable::Error, &mut codes).unwrap();
            r.decode(0, &codes, &mut back).unwrap();
            assert_eq!(back.iter().filter(|x| x.is_nan()).count(), 1, "{text} {i}");
        }
    }
}

#[test]
fn kbit_bins_are_quantiles() {
    // Values too close for the 16-bit grid: edges stay exact. Of 256 codes 224 hold equal shares, 18 or 19 values each; of
    // those 32 are halved, the error of which is greatest: of equally spaced values all with 19, of which there are 64.
    let v: Vec<f32> = (0..4096).map(|i| 1.0 + i as f32 * 1e-6).collect();
    let s = scheme("kbit(8)");
    let r = Reducer::new(&s, MapShape::VECTOR, 1, s.fit(MapShape::VECTOR, 1, &v).unwrap()).unwrap();
    let mut codes = Vec::new();
    let mut back = vec![0.0; v.len()];
    for x in &v {
        r.encode(0, &[*x], OnUnholdable::Error, &mut codes).unwrap();
    }
    codes.iter().zip(&mut back).for_each(|(code, x)| r.decode(0, &[*code], std::slice::from_mut(x)).unwrap());
    assert!(codes.is_sorted() && codes[0] == 0 && codes[4095] == 255);
    let bins: Vec<&[u8]> = codes.chunk_by(|a, b| a == b).collect();
    let of_size = |n: usize| bins.iter().filter(|b| b.len() == n).count();
    assert_eq!((bins.len(), of_size(18), of_size(19), of_size(9) + of_size(10)), (256, 160, 32, 64));
    let mut at = 0;
    for bin in bins {
        let inside = at..at + bin.len();
        at = inside.end;
        let mean = v[inside.clone()].iter().map(|x| f64::from(*x)).sum::<f64>() / bin.len() as f64;
        assert!(back[inside].iter().all(|x| *x == mean as f32));
    }
    // Zeros have a code of their own; the other codes hold near-equal shares of the rest, two of them halved.
    let v: Vec<f32> =
        (0..30_000).map(|i| if i % 3 == 0 { (i as f32 * 0.618).fract() * 4.0 + 0.1 } else { 0.0 }).collect();
    let s = scheme("kbit(4)");
    let r = Reducer::new(&s, MapShape::VECTOR, 1, s.fit(MapShape::VECTOR, 1, &v).unwrap()).unwrap();
    let mut count = [0; 16];
    for x in &v {
        let mut codes = Vec::new();
        r.encode(0, &[*x], OnUnholdable::Error, &mut codes).unwrap();
        assert_eq!(codes[0] == 0, *x == 0.0);
        count[usize::from(codes[0])] += 1;
    }
    assert_eq!(count[0], 20_000);
    let within = |range: std::ops::Range<i32>| count[1..].iter().filter(|c| range.contains(c)).count();
    assert_eq!((within(300..470), within(670..870)), (4, 11), "{count:?}");
    // A long tail is divided until no bin leaves much more error than another: half a percent of what is there, where
    // 256 equal shares of these leave 4.5% (by numpy).
    let v: Vec<f32> = (1..=1 << 17).map(|i| -(i as f32 / ((1 << 17) as f32 + 1.0)).ln()).collect();
    let s = scheme("kbit(8)");
    let r = Reducer::new(&s, MapShape::VECTOR, 1, s.fit(MapShape::VECTOR, 1, &v).unwrap()).unwrap();
    let mut errors = [UnitError::default()];
    for x in &v {
        let mut codes = Vec::new();
        r.encode(0, &[*x], OnUnholdable::Error, &mut codes).unwrap();
        r.measure(0, &[*x], &codes, &mut errors).unwrap();
    }
    assert!((0.004..0.008).contains(&errors[0].relative()), "{}", errors[0].relative());
    // Few distinct values come back exactly.
    let s = scheme("kbit(4)");
    let v = [3.0, -1.0, 3.0, 0.5, 7.0, 0.0, 0.0];
    let r = Reducer::new(&s, MapShape::VECTOR, 7, s.fit(MapShape::VECTOR, 7, &v).unwrap()).unwrap();
    let (mut codes, mut back) = (Vec::new(), [9.0; 7]);
    r.encode(0, &v, OnUnholdable::Error, &mut codes).unwrap();
    r.decode(0, &codes, &mut back).unwrap();
    assert_eq!(back, v);
}

/// Mean squared error of values under a scheme fitted on them.
fn squared_error(text: &str, v: &[f32]) -> f64 {
    let s = scheme(text);
    let r = Reducer::new(&s, MapShape::VECTOR, v.len(), s.fit(MapShape::VECTOR, v.len(), v).unwrap()).unwrap();
    let (mut codes, mut back) = (Vec::new(), vec![0.0; v.len()]);
    r.encode(0, v, OnUnholdable::Error, &mut codes).unwrap();
    r.decode(0, &codes, &mut back).unwrap();
    v.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / v.len() as f64
}

/// N. S. Jayant and P. Noll, Digital Coding of Waveforms (1984), table 4.1 of Max quantizers: the error of the best quantizer
/// of a Laplacian of unit variance, in dB below it.
#[test]
fn lloyd_reaches_the_best_quantizers_of_the_table() {
    let n = 1 << 17;
    let laplacian: Vec<f32> = (0..n)
        .map(|i| (f64::from(i) + 0.5) / f64::from(n) - 0.5)
        .map(|u| (-u.signum() * (1.0 - 2.0 * u.abs()).ln() / 2f64.sqrt()) as f32)
        .collect();
    for (bits, db) in [(1, 3.01), (2, 7.54), (3, 12.64), (4, 18.13), (5, 23.87)] {
        let got = -10.0 * squared_error(&format!("lloyd({bits})"), &laplacian).log10();
        assert!((got - db).abs() < 0.1, "{bits} bits: {got} dB, the table has {db}");
    }
}

/// The least squared error that any `k` bins leave: every way to part the sorted values is tried (dynamic programming).
fn least_squared_error(v: &[f32], k: usize) -> f64 {
    let mut v: Vec<f64> = v.iter().map(|x| f64::from(*x)).collect();
    v.sort_by(f64::total_cmp);
    let sums = |f: &dyn Fn(f64) -> f64| v.iter().fold(vec![0.0], |mut a, x| (a.push(a[a.len() - 1] + f(*x)), a).1);
    let (one, two) = (sums(&|x| x), sums(&|x| x * x));
    let within = |a: usize, b: usize| two[b] - two[a] - (one[b] - one[a]).powi(2) / (b - a) as f64;
    let mut best: Vec<f64> = (0..=v.len()).map(|b| if b == 0 { 0.0 } else { within(0, b) }).collect();
    for _ in 1..k {
        best = (0..=v.len()).map(|b| (0..b).map(|a| best[a] + within(a, b)).fold(best[b], f64::min)).collect();
    }
    best[v.len()] / v.len() as f64
}

#[test]
fn lloyd_is_close_to_the_least_error_of_all() {
    for (seed, n) in [(1, 800), (2, 1200), (3, 1800)] {
        let smooth: Vec<f32> = sample(n, seed).into_iter().filter(|x| *x > 0.0).map(|x| x * x).collect();
        // One value far off does not take the codes of the others.
        let far: Vec<f32> = smooth.iter().copied().chain([40.0]).collect();
        for v in [&smooth, &far] {
            for bits in [2u32, 3, 5] {
                let least = least_squared_error(v, 1 << bits);
                let got = squared_error(&format!("lloyd({bits})"), v);
                assert!(got <= least * 1.35, "{bits} bits: {got}, where {least} is possible");
                let quantiles = squared_error(&format!("kbit({bits})"), v);
                assert!(got < quantiles / 1.5, "{bits} bits: {got}, by quantiles {quantiles}");
            }
        }
        // Nor does one that is as far as can be, such as what masks attention, and as many of it as there may be.
        for (masks, at) in [(1, f32::MIN), (n, f32::MIN), (1, f32::MAX)] {
            let masked: Vec<f32> = smooth.iter().copied().chain(std::iter::repeat_n(at, masks)).collect();
            let s = scheme("lloyd(5)");
            let r = Reducer::new(&s, MapShape::VECTOR, 1, s.fit(MapShape::VECTOR, 1, &masked).unwrap()).unwrap();
            let (mut codes, mut back) = (Vec::new(), vec![0.0; masked.len()]);
            for x in &masked {
                r.encode(0, &[*x], OnUnholdable::Error, &mut codes).unwrap();
            }
            back.chunks_mut(1).zip(&codes).for_each(|(x, c)| r.decode(0, &[*c], x).unwrap());
            let (values, others) = back.split_at(smooth.len());
            let error = smooth.iter().zip(values).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
            assert!(error / smooth.len() as f64 <= 1.5 * least_squared_error(&smooth, 31), "{masks} of {at}");
            assert!(others.iter().all(|x| *x == at), "{masks} of {at}");
        }
    }
    // Few distinct values come back exactly, however unlike their weights.
    let v = [0.0, 1e-30, 1.0, 1.5, 1e30, -3.0, -3.0, 0.0, 0.0];
    assert_eq!(squared_error("lloyd(3)", &v), 0.0);
    assert_eq!(squared_error("lloyd(1)", &[2.5; 40]), 0.0);
}

#[test]
fn thresholds_are_quantiles() {
    let v: Vec<f32> = (0..1000).map(|i| ((i * 37) % 1000) as f32).collect();
    for (text, ones) in
        [("threshold(0.9)", 100), ("threshold(0)", 999), ("threshold(1)", 0), ("threshold(=499.5)", 500)]
    {
        let s = scheme(text);
        let r = Reducer::new(&s, MapShape::VECTOR, 1000, s.fit(MapShape::VECTOR, 1000, &v).unwrap()).unwrap();
        let mut codes = Vec::new();
        r.encode(0, &v, OnUnholdable::Error, &mut codes).unwrap();
        assert_eq!(codes.iter().filter(|c| **c == 1).count(), ones, "{text}");
        let stats = page_stats(Code::Bit, &codes).unwrap();
        assert_eq!(stats.n_zero, 1000 - ones as u64);
    }
}

#[test]
fn choose_takes_the_smallest_that_is_good_enough() {
    let map = MapShape { h: 8, w: 8 };
    let smooth: Vec<f32> = vec![1.5; 20 * 64];
    assert_eq!(Scheme::choose(0.01, map, 1, &smooth).unwrap().to_string(), "pool(S)+lloyd(4)");
    let rough = sample(20 * 64, 3);
    let mut last = 0.0;
    for tol in [0.0, 1e-5, 1e-3, 0.02, 0.2, 2.0] {
        let s = Scheme::choose(tol, map, 1, &rough).unwrap();
        let bits = f64::from(s.code().bits()) * s.stored_map(map).cells() as f64;
        assert!(tol == 0.0 || bits <= last, "{tol} {s}");
        last = bits;
    }
    assert_eq!(Scheme::choose(0.0, map, 1, &rough).unwrap(), scheme("f32"));
    assert_eq!(Scheme::choose(1e-3, map, 1, &rough).unwrap(), scheme("f16"));
    assert!(Scheme::choose(f64::NAN, map, 1, &rough).is_err());
    assert_eq!(Scheme::choose(0.1, map, 1, &vec![1e30; 128]).unwrap(), scheme("pool(S)+lloyd(4)"));
    // NaN and infinities: only what holds them; where no value tells an error, nothing is lost.
    let mut some = smooth.clone();
    some[70] = f32::NAN;
    some[300] = f32::INFINITY;
    let chosen = Scheme::choose(0.01, map, 1, &some).unwrap();
    let codes = chosen.fit(map, 1, &some).and_then(|p| {
        Reducer::new(&chosen, map, 1, p)?.encode(0, &some[64..128], OnUnholdable::Error, &mut Vec::new())
    });
    assert!(chosen.to_string().contains("f16") && codes.is_ok(), "{chosen}");
    assert_eq!(Scheme::choose(0.5, map, 1, &[f32::NAN; 128]).unwrap(), scheme("f32"));
}

#[test]
fn mistakes_are_errors() {
    let map = MapShape { h: 2, w: 2 };
    let none = Params::none;
    assert_eq!(Reducer::new(&scheme("auto(0.1)"), map, 1, none()).unwrap_err(), QuantizeError::Unresolved);
    assert!(Reducer::new(&scheme("kbit(8)"), map, 1, none()).is_err());
    assert!(Reducer::new(&scheme("f16"), MapShape { h: 0, w: 2 }, 1, none()).is_err());
    assert!(Reducer::new(&scheme("f16"), MapShape { h: usize::MAX, w: 2 }, 1, none()).is_err());
    let s = scheme("kbit(4,unit)");
    let fit = s.fit(map, 3, &sample(24, 1)).unwrap();
    assert!(Reducer::new(&s, map, 2, fit.clone()).is_err());
    assert!(Reducer::new(&scheme("kbit(5,unit)"), map, 3, fit).is_err());
    assert_eq!(s.fit(map, 3, &[]).unwrap_err(), QuantizeError::EmptySample);
    assert_eq!(s.fit(map, 1, &[f32::NAN; 4]).unwrap_err(), QuantizeError::EmptySample);
    assert!(s.fit(map, 3, &[0.0; 13]).is_err());
    let r = Reducer::new(&scheme("f16"), map, 3, none()).unwrap();
    let mut out = Vec::new();
    assert!(r.encode(0, &[0.0; 5], OnUnholdable::Clamp, &mut out).is_err());
    assert!(r.encode(2, &[0.0; 8], OnUnholdable::Clamp, &mut out).is_err());
    assert!(r.encode(usize::MAX, &[0.0; 8], OnUnholdable::Clamp, &mut out).is_err());
    assert!(r.encode(3, &[], OnUnholdable::Clamp, &mut out).is_ok());
    assert!(r.decode(0, &[0; 7], &mut [0.0; 4]).is_err());
    assert!(to_f32(Code::Bit, &[0], &mut [0.0]).is_err());
}

#[test]
fn damaged_parameters_never_panic() {
    for text in ["kbit(8,unit)", "kbit(3)", "threshold(0.5,unit)", "f16"] {
        let bytes = scheme(text).fit(MapShape::VECTOR, 4, &sample(400, 1)).unwrap().to_bytes();
        for i in 0..bytes.len() {
            assert!(Params::from_bytes(&bytes[..i]).is_err());
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[i] ^= 1 << bit;
                if let Ok(p) = Params::from_bytes(&bad) {
                    assert_eq!(p.to_bytes(), bad);
                }
            }
        }
    }
}

#[test]
fn statistics_of_pages() {
    let v = [0.0, -0.0, f32::NAN, -2.0, f32::INFINITY, 1.0];
    let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    let s = page_stats(Code::F32, &bytes).unwrap();
    assert_eq!((s.min, s.max, s.n_nan, s.n_zero), (-2.0, f64::INFINITY, 1, 2));
    let s = page_stats(Code::F16, &[]).unwrap();
    assert_eq!((s.min, s.max, s.n_nan, s.n_zero), (f64::INFINITY, f64::NEG_INFINITY, 0, 0));
    let s = page_stats(Code::Int(2), &[0xFF, 0xFF, 3, 0, 0, 0]).unwrap();
    assert_eq!((s.min, s.max, s.n_zero), (-1.0, 3.0, 1));
    let s = page_stats(Code::Kbit(8), &[200, 7]).unwrap();
    assert_eq!((s.min, s.max, s.n_zero), (7.0, 200.0, 0));
    assert!(page_stats(Code::F32, &[0; 3]).is_err());
}

proptest! {
    #[test]
    fn any_floats_encode_under_clamp(v in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 36), text in prop::sample::select(&SCHEMES[..])) {
        let (map, s) = (MapShape { h: 3, w: 4 }, scheme(text));
        let fit = match s.fit(map, 3, &v) {
            Ok(fit) => fit,
            Err(e) => { prop_assert_eq!(e, QuantizeError::EmptySample); return Ok(()); }
        };
        let r = Reducer::new(&s, map, 3, Params::from_bytes(&fit.to_bytes()).unwrap()).unwrap();
        let mut codes = Vec::new();
        let clamped = r.encode(0, &v, OnUnholdable::Clamp, &mut codes).unwrap();
        prop_assert_eq!(r.encode(0, &v, OnUnholdable::Error, &mut Vec::new()).is_err(), clamped > 0);
        let mut back = vec![0.0; codes.len() / r.code().width()];
        r.decode(0, &codes, &mut back).unwrap();
        let mut errs = [UnitError::default(); 3];
        r.measure(0, &v, &codes, &mut errs).unwrap();
        if text == "f32" {
            prop_assert!(back.iter().zip(&v).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn arbitrary_scheme_text_never_panics(text in "[a-z0-9(),+=. S]{0,20}") {
        if let Ok(s) = text.parse::<Scheme>() {
            prop_assert_eq!(s.to_string().parse::<Scheme>().unwrap(), s);
        }
    }
}
