use mistique_workflow::*;
fn main() {
    let n = Network::builtin("cifar10_cnn").unwrap();
    let x: Vec<f32> = (0..256 * 3072).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect();
    let y: Vec<u32> = (0..256).map(|i| i % 10).collect();
    let mut t = Trainer::new(&n, &Weights::init(&n, 1), 1e-3, 1).unwrap();
    for _ in 0..3 {
        let s = std::time::Instant::now();
        let l = t.train_epoch(&x, &y, 32, |_| {}).unwrap();
        println!("{:.0} img/s loss {l}", 256.0 / s.elapsed().as_secs_f64());
    }
}
