//! Every encoding and effort over every type of code: round trips, fused decoding, damage.

use std::collections::HashSet;

use mistique_quantize::{
    Code, Effort, Encoding, Habit, QuantizeError, SharedDecoder, SharedEncoder, decode_page, decode_page_f32,
    encode_page, to_f32,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

const EFFORTS: [Effort; 12] = [
    Effort::Fast,
    Effort::Small,
    Effort::Column,
    Effort::Like(Habit::of(Encoding::Entropy)),
    Effort::Like(Habit::of(Encoding::Zstd)),
    Effort::Like(Habit::of(Encoding::ShuffledZstd)),
    Effort::Like(Habit::of(Encoding::Pco)),
    Effort::Like(Habit::of(Encoding::Decimal)),
    Effort::Like(Habit { encoding: Encoding::Pco, differences: false }),
    Effort::Like(Habit { encoding: Encoding::Decimal, differences: false }),
    Effort::Like(Habit::of(Encoding::Sparse)),
    Effort::Like(Habit::of(Encoding::Shared)),
];

fn codes() -> Vec<Code> {
    (0..=255).filter_map(|id| Code::from_id(id).ok()).collect()
}

/// Values as bytes of the code, from f32s that reach its special cases.
fn as_code(code: Code, v: &[f32]) -> Vec<u8> {
    v.iter()
        .flat_map(|&x| match code {
            Code::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
            Code::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
            Code::F32 => x.to_le_bytes().to_vec(),
            Code::F64 => f64::from(x).to_le_bytes().to_vec(),
            Code::Int(w) => ((x * 10.0) as i64).to_le_bytes()[..usize::from(w)].to_vec(),
            Code::Bit | Code::Kbit(_) => vec![(x * 20.0) as u8 & ((1u32 << code.bits()) - 1) as u8],
        })
        .collect()
}

fn relu(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut x = 0f32;
    (0..n)
        .map(|_| {
            x = 0.8 * x + rng.random_range(-1.0f32..1.0);
            (x - 0.3).max(0.0)
        })
        .collect()
}

fn data() -> Vec<(&'static str, Vec<f32>)> {
    let special = [
        0.0,
        -0.0,
        f32::NAN,
        f32::from_bits(0xFFC1_2345),
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-40,
        6e-8,
        -1.5,
        65504.0,
        f32::MAX,
    ];
    let mut rng = StdRng::seed_from_u64(5);
    vec![
        ("empty", vec![]),
        ("one", vec![1.25]),
        ("two", vec![0.0, 3.0]),
        ("zeros", vec![0.0; 777]),
        ("negative zeros", vec![-0.0; 300]),
        ("both zeros", (0..300).map(|i| if i % 3 == 0 { 0.0 } else { -0.0 }).collect()),
        ("constant", vec![2.5; 1000]),
        ("special", special.iter().cycle().take(1001).copied().collect()),
        ("no zeros", relu(3001, 1).iter().map(|x| x + 0.01).collect()),
        ("relu", relu(8192, 2)),
        ("odd relu", relu(16383, 3)),
        ("signed", relu(5000, 4).iter().enumerate().map(|(i, x)| if i % 2 == 0 { *x } else { -x }).collect()),
        ("noise", (0..4099).map(|_| rng.random_range(-1.0..1.0)).collect()),
        ("repeats", relu(64, 6).iter().cycle().take(9000).copied().collect()),
        ("mostly zero", (0..5003).map(|i| if i % 97 == 0 { i as f32 } else { 0.0 }).collect()),
        ("last only", (0..1030).map(|i| if i == 1029 { 1.0 } else { 0.0 }).collect()),
        ("long", relu(100_003, 7)),
    ]
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| x.to_bits()).collect()
}

fn round_trip(code: Code, codes: &[u8], map_w: usize, effort: Effort) -> (Encoding, Vec<u8>) {
    round_trip_with(code, codes, map_w, effort, None)
}

fn round_trip_with(
    code: Code,
    codes: &[u8],
    map_w: usize,
    effort: Effort,
    shared: Option<&SharedEncoder>,
) -> (Encoding, Vec<u8>) {
    let tables = shared.map(|s| SharedDecoder::from_bytes(&s.to_bytes()).unwrap());
    let decoder = tables.as_ref();
    let n = codes.len() / code.width();
    let mut bytes = vec![0xAA];
    let enc = encode_page(code, codes, map_w, effort, shared, &mut bytes).unwrap();
    assert_eq!(bytes.remove(0), 0xAA, "appends");
    let mut again = Vec::new();
    assert_eq!(encode_page(code, codes, map_w, effort, shared, &mut again).unwrap(), enc);
    assert_eq!(again, bytes, "deterministic");
    assert!(bytes.len() <= codes.len(), "never larger");
    let mut back = vec![0x55; codes.len()];
    decode_page(code, enc, &bytes, n, map_w, decoder, &mut back).unwrap();
    assert!(back == codes, "{code:?} {enc:?} {effort:?} {map_w}");
    let mut floats = vec![7.0; n];
    let fused = decode_page_f32(code, enc, &bytes, n, map_w, decoder, &mut floats);
    if code.is_float() {
        fused.unwrap();
        let mut expected = vec![0.0; n];
        to_f32(code, codes, &mut expected).unwrap();
        assert_eq!(bits(&floats), bits(&expected), "{code:?} {enc:?} fused");
    } else {
        assert!(matches!(fused, Err(QuantizeError::UnsupportedCode { .. })));
    }
    (enc, bytes)
}

#[test]
fn every_code_and_effort_round_trips() {
    let mut seen = HashSet::new();
    for (name, v) in data() {
        for code in codes() {
            let bytes = as_code(code, &v);
            for effort in EFFORTS {
                for map_w in [0, 1, 7, 16, 64, 100, 1 << 40] {
                    if v.len() > 20_000 && map_w != 16 {
                        continue;
                    }
                    let (enc, _) = round_trip(code, &bytes, map_w, effort);
                    seen.insert(enc as u8);
                    if name == "zeros" {
                        assert_eq!(enc, Encoding::Constant);
                    }
                }
            }
        }
    }
    for enc in Encoding::ALL.into_iter().filter(|&e| e != Encoding::Shared && e != Encoding::Against) {
        assert!(seen.contains(&(enc as u8)), "{enc:?} was never chosen");
    }
}

#[test]
fn ids_of_encodings_are_fixed() {
    for (i, enc) in Encoding::ALL.into_iter().enumerate() {
        assert_eq!(enc as usize, i);
        assert_eq!(Encoding::try_from(i as u8), Ok(enc));
    }
    assert!(Encoding::try_from(200).is_err());
}

#[test]
fn small_beats_zstd_on_activations() {
    // 32 maps of 16 × 16 whose zeros lie in patches.
    let v: Vec<f32> = (0..8192)
        .map(|i| {
            let (m, y, x) = (i / 256, i / 16 % 16, i % 16);
            let wave = (m as f32 + y as f32 * 0.4).sin() + (x as f32 * 0.5 + m as f32).cos();
            (wave * (1.0 + (i * 7919 % 1000) as f32 * 1e-3) - 0.6).max(0.0)
        })
        .collect();
    for (code, share) in [(Code::F16, 0.9), (Code::F32, 0.95)] {
        let codes = as_code(code, &v);
        let mut small = Vec::new();
        encode_page(code, &codes, 16, Effort::Small, None, &mut small).unwrap();
        let zstd = zstd::bulk::compress(&codes, 3).unwrap();
        assert!((small.len() as f64) < share * zstd.len() as f64, "{code:?} {} {}", small.len(), zstd.len());
    }
}

#[test]
fn caller_mistakes_are_errors() {
    let mut out = Vec::new();
    assert!(encode_page(Code::F32, &[0; 5], 1, Effort::Fast, None, &mut out).is_err());
    assert!(encode_page(Code::Bit, &[2], 1, Effort::Fast, None, &mut out).is_err());
    assert!(encode_page(Code::Kbit(3), &[8, 0], 1, Effort::Small, None, &mut out).is_err());
    assert!(encode_page(Code::Kbit(9), &[0], 1, Effort::Small, None, &mut out).is_err());
    assert!(encode_page(Code::Int(3), &[0; 3], 1, Effort::Small, None, &mut out).is_err());
    assert!(out.is_empty());
    assert!(decode_page(Code::F32, Encoding::Plain, &[0; 4], 1, 1, None, &mut [0; 8]).is_err());
    assert!(decode_page(Code::F64, Encoding::Plain, &[], usize::MAX, 1, None, &mut []).is_err());
}

#[test]
fn damage_never_panics() {
    let mut rng = StdRng::seed_from_u64(11);
    for (_, v) in data().into_iter().filter(|d| d.1.len() < 10_000) {
        for code in [Code::Bit, Code::Kbit(3), Code::Kbit(8), Code::F16, Code::F32, Code::F64, Code::Int(4)] {
            let codes = as_code(code, &v);
            let n = v.len();
            let mut out = vec![0; codes.len()];
            let mut floats = vec![0.0; n];
            for effort in EFFORTS {
                let (enc, bytes) = round_trip(code, &codes, 16, effort);
                let mut check = |bytes: &[u8], enc| {
                    let _ = decode_page(code, enc, bytes, n, 16, None, &mut out);
                    let _ = decode_page_f32(code, enc, bytes, n, 16, None, &mut floats);
                };
                for _ in 0..60 {
                    // The front holds the tables, so look there more often.
                    let range = if rng.random() { bytes.len().min(40) } else { bytes.len() };
                    let mut bad = bytes.clone();
                    if range > 0 {
                        bad[rng.random_range(0..range)] ^= 1 << rng.random_range(0..8);
                        check(&bad, enc);
                        check(&bytes[..rng.random_range(0..range)], enc);
                    }
                    bad.push(0);
                    check(&bad, enc);
                    Encoding::ALL.into_iter().for_each(|enc| check(&bad, enc));
                }
            }
        }
    }
}

#[test]
fn truncation_is_an_error() {
    for code in [Code::Bit, Code::Kbit(5), Code::F16, Code::F32, Code::F64] {
        let codes = as_code(code, &relu(700, 9));
        for effort in EFFORTS {
            let (enc, bytes) = round_trip(code, &codes, 7, effort);
            let mut out = vec![0; codes.len()];
            for len in 0..bytes.len() {
                let r = decode_page(code, enc, &bytes[..len], 700, 7, None, &mut out);
                assert!(r.is_err(), "{code:?} {enc:?} cut to {len} of {}", bytes.len());
            }
        }
    }
}

/// Pages of a chunk and the tables for them, for every code and kind of data where sharing pays.
fn chunks() -> Vec<(Code, Vec<u8>, SharedEncoder)> {
    let mut out = Vec::new();
    for (_, v) in data() {
        for code in codes() {
            let bytes = as_code(code, &v);
            for map_w in [0, 1, 7, 16] {
                out.extend(SharedEncoder::train(code, &bytes, 1024, map_w).map(|s| (code, bytes.clone(), s)));
            }
        }
    }
    out
}

#[test]
fn shared_tables_round_trip() {
    let mut seen = HashSet::new();
    let chunks = chunks();
    for (code, bytes, shared) in &chunks {
        for map_w in [0, 1, 7, 16, 1 << 40] {
            // Whole chunks too: pages need not be as long as those that the tables were made for.
            for page in [1024, 100_003] {
                for codes in bytes.chunks(page * code.width()).take(4) {
                    let (enc, page) = round_trip_with(*code, codes, map_w, Effort::Small, Some(shared));
                    if enc == Encoding::Shared && seen.insert(code.to_id()) {
                        let mut out = vec![0; codes.len()];
                        let n = codes.len() / code.width();
                        let r = decode_page(*code, enc, &page, n, map_w, None, &mut out);
                        assert_eq!(r, Err(QuantizeError::NoSharedTables));
                        if code.is_float() {
                            let r = decode_page_f32(*code, enc, &page, n, map_w, None, &mut vec![0.0; n]);
                            assert_eq!(r, Err(QuantizeError::NoSharedTables));
                        }
                    }
                    let fast = round_trip_with(*code, codes, map_w, Effort::Fast, Some(shared));
                    assert_eq!(fast, round_trip(*code, codes, map_w, Effort::Fast));
                }
            }
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn shared_tables_of_another_chunk_are_no_failure() {
    let mut chunks = chunks();
    chunks.truncate(30);
    for (_, _, shared) in &chunks {
        for (code, bytes, _) in &chunks {
            for codes in bytes.chunks(1024 * code.width()).take(2) {
                round_trip_with(*code, codes, 16, Effort::Small, Some(shared));
            }
        }
    }
}

#[test]
fn sharing_pays_or_is_declined() {
    let v = relu(32 * 1024, 12);
    for code in [Code::F16, Code::BF16, Code::F32, Code::Kbit(8)] {
        let codes = as_code(code, &v);
        let shared = SharedEncoder::train(code, &codes, 1024, 16).unwrap();
        assert_eq!(shared.to_bytes(), SharedEncoder::train(code, &codes, 1024, 16).unwrap().to_bytes());
        let (mut own, mut with) = (0, shared.to_bytes().len());
        for page in codes.chunks(1024 * code.width()) {
            own += round_trip(code, page, 16, Effort::Small).1.len();
            with += round_trip_with(code, page, 16, Effort::Small, Some(&shared)).1.len();
        }
        assert!(with < own, "{code:?}: {with} of {own}");
    }
    let mut rng = StdRng::seed_from_u64(3);
    let noise: Vec<u8> = (0..65_536).map(|_| rng.random()).collect();
    assert!(SharedEncoder::train(Code::Int(1), &noise, 8192, 1).is_none());
    assert!(SharedEncoder::train(Code::F32, &[0; 65_536], 8192, 1).is_none());
    // A single page, none, and what is no page.
    assert!(SharedEncoder::train(Code::F16, &as_code(Code::F16, &v), v.len(), 1).is_none());
    assert!(SharedEncoder::train(Code::F16, &[], 8, 1).is_none());
    assert!(SharedEncoder::train(Code::F16, &[1; 64], 0, 1).is_none());
    assert!(SharedEncoder::train(Code::F16, &[1, 2, 3, 4, 5], 1, 1).is_none());
    assert!(SharedEncoder::train(Code::Int(3), &[1; 30], 5, 1).is_none());
}

#[test]
fn damaged_shared_tables_never_panic() {
    let mut rng = StdRng::seed_from_u64(13);
    for (code, bytes, shared) in chunks().into_iter().filter(|c| c.1.len() < 70_000) {
        let codes = &bytes[..bytes.len().min(1024 * code.width())];
        let n = codes.len() / code.width();
        let (enc, page) = round_trip_with(code, codes, 16, Effort::Small, Some(&shared));
        let tables = shared.to_bytes();
        let right = SharedDecoder::from_bytes(&tables).unwrap();
        let (mut out, mut floats) = (vec![0; codes.len()], vec![0.0; n]);
        let mut check = |page: &[u8], enc, tables: &SharedDecoder| {
            let _ = decode_page(code, enc, page, n, 16, Some(tables), &mut out);
            let _ = decode_page_f32(code, enc, page, n, 16, Some(tables), &mut floats);
        };
        for len in 0..tables.len() {
            assert!(SharedDecoder::from_bytes(&tables[..len]).is_err());
        }
        assert!(SharedDecoder::from_bytes(&[&tables[..], &[0]].concat()).is_err());
        for _ in 0..30 {
            let mut bad = tables.clone();
            bad[rng.random_range(0..tables.len())] ^= 1 << rng.random_range(0..8);
            if let Ok(tables) = SharedDecoder::from_bytes(&bad) {
                check(&page, enc, &tables);
            }
            let mut bad = page.clone();
            bad[rng.random_range(0..page.len().min(40))] ^= 1 << rng.random_range(0..8);
            check(&bad, enc, &right);
            check(&page[..rng.random_range(0..page.len())], enc, &right);
            Encoding::ALL.into_iter().for_each(|enc| check(&bad, enc, &right));
        }
        if enc == Encoding::Shared {
            for len in 0..page.len() {
                assert!(decode_page(code, enc, &page[..len], n, 16, Some(&right), &mut out).is_err());
            }
        }
    }
}

#[test]
fn decoders_go_across_threads() {
    fn check<T: Send + Sync>() {}
    check::<SharedDecoder>();
    check::<SharedEncoder>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_round_trip(
        id in prop::sample::select(codes().iter().map(|c| c.to_id()).collect::<Vec<_>>()),
        bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..3000),
        map_w in 0usize..70,
        small: bool,
    ) {
        let code = Code::from_id(id).unwrap();
        let mask = if code.width() == 1 { ((1u32 << code.bits()) - 1) as u8 } else { 255 };
        let whole = bytes.len() / code.width() * code.width();
        let codes: Vec<u8> = bytes[..whole].iter().map(|b| b & mask).collect();
        round_trip(code, &codes, map_w, if small { Effort::Small } else { Effort::Fast });
    }

    #[test]
    fn arbitrary_pages_decode_or_fail(id in 0u8..8, code in 0usize..17, bytes in prop::collection::vec(any::<u8>(), 0..400), n in 0usize..600, w in 0usize..70) {
        let code = codes()[code];
        let enc = Encoding::try_from(id).unwrap();
        let _ = decode_page(code, enc, &bytes, n, w, None, &mut vec![0; n * code.width()]);
        let _ = decode_page_f32(code, enc, &bytes, n, w, None, &mut vec![0.0; n]);
    }

    #[test]
    fn arbitrary_shared_tables_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), first in 0u8..16) {
        let _ = SharedDecoder::from_bytes(&[&[first, 0], &bytes[..]].concat());
        let _ = SharedDecoder::from_bytes(&bytes);
    }
}
