use mistique_quantize::*;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let (nu, cells, w): (usize, usize, usize) = (a[1].parse().unwrap(), a[2].parse().unwrap(), a[3].parse().unwrap());
    let b = std::fs::read(&a[0]).unwrap();
    let mut codes = Vec::new();
    for u in 0..nu.min(8) { for m in b.chunks(cells * 4).skip(u).step_by(nu) { let v: Vec<f32> = m.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
        for x in v { codes.extend(half::f16::from_f32(x).to_le_bytes()); } } }
    let mut bytes = Vec::new();
    let pages: Vec<_> = codes.chunks(16384).map(|p| { let f = bytes.len(); let e = encode_page(Code::F16, p, w, Effort::Small, &mut bytes).unwrap(); (e, f, bytes.len(), p.len() / 2) }).collect();
    let mut out = vec![0f32; 8192];
    for _ in 0..10 { let t = std::time::Instant::now();
    for _ in 0..20 { for &(e, f, g, n) in &pages { decode_page_f32(Code::F16, e, &bytes[f..g], n, w, &mut out[..n]).unwrap(); } }
    println!("{:.3} ns/value {:.2} us/page", t.elapsed().as_secs_f64() * 1e9 / 20.0 / (codes.len() / 2) as f64, t.elapsed().as_secs_f64() * 1e6 / 20.0 / pages.len() as f64); }
}
