//! The training loop: determinism, frozen layers, errors.

use mistique_workflow::{Device, Executor, Network, NetworkError, Trainer, Weights};

/// Noisy 8×8 pictures of ten classes: a bright bar whose place and direction give the class.
fn bars(n: usize) -> (Vec<f32>, Vec<u32>) {
    let mut state = 9u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut images = Vec::with_capacity(n * 64);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 10).collect();
    for &label in &labels {
        let line = (label % 5) as usize + 1;
        for y in 0..8 {
            for x in 0..8 {
                let on = if label < 5 { y == line } else { x == line };
                images.push(if on { 0.5 } else { 0.0 } + random() * 0.6);
            }
        }
    }
    (images, labels)
}

fn accuracy(network: &Network, weights: &Weights, images: &[f32], labels: &[u32]) -> f64 {
    let executor = Executor::new(network, weights, Device::Cpu).unwrap();
    let last = network.layers().len() - 1;
    let mut right = 0;
    executor
        .forward(&executor.batch(images).unwrap(), &[last], &mut |_, scores| {
            let best = scores.argmax(1).unwrap().to_vec1::<u32>().unwrap();
            right = best.iter().zip(labels).filter(|(a, b)| a == b).count();
            Ok(())
        })
        .unwrap();
    right as f64 / labels.len() as f64
}

#[test]
fn digits_cnn_learns_in_seconds() {
    let network = Network::builtin("digits_cnn").unwrap();
    let (images, labels) = bars(1797);
    let start = std::time::Instant::now();
    let mut trainer = Trainer::new(&network, &Weights::init(&network, 3), 2e-3, 3).unwrap();
    let mut batches = 0;
    let mut losses = Vec::new();
    for _ in 0..5 {
        losses.push(
            trainer
                .train_epoch(&images, &labels, 64, |report| {
                    assert_eq!(report.n_batches, 29);
                    batches += 1;
                })
                .unwrap(),
        );
    }
    println!("five epochs in {:.1} s, losses {losses:?}", start.elapsed().as_secs_f64());
    assert_eq!(batches, 5 * 29);
    assert!(losses[4] < losses[0]);
    let found = accuracy(&network, &trainer.weights().unwrap(), &images, &labels);
    assert!(found > 0.95, "accuracy {found}");
}

const SMALL: &str = "input: {shape: [1, 8, 8]}
layers:
  - {name: conv1, op: conv2d, out: 4, kernel: 3}
  - {name: bn1, op: batch_norm}
  - {name: relu1, op: relu}
  - {name: drop1, op: dropout, rate: 0.2}
  - {name: conv2, op: conv2d, out: 4, kernel: 3, stride: 2, activation: relu}
  - {name: bn2, op: batch_norm}
  - {name: flatten, op: flatten}
  - {name: dense1, op: linear, out: 8, activation: gelu}
  - {name: logits, op: linear, out: 10}";

#[test]
fn a_seed_gives_the_same_weights() {
    let network = Network::parse(SMALL).unwrap();
    let (images, labels) = bars(100);
    let run = |seed| {
        let mut trainer = Trainer::new(&network, &Weights::init(&network, 1), 1e-3, seed).unwrap();
        trainer.train_epoch(&images, &labels, 32, |_| {}).unwrap();
        trainer.weights().unwrap()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn frozen_layers_keep_weights_and_statistics() {
    let network = Network::parse(SMALL).unwrap();
    let (images, labels) = bars(64);
    let start = Weights::init(&network, 1);
    // conv1 and bn1 run as at inference; bn2 is frozen below trained layers, so gradients pass through it.
    for frozen in [vec!["conv1,bn*"], vec!["*conv*", "bn*"]] {
        let mut trainer = Trainer::with_frozen(&network, &start, 1e-2, 1, &frozen).unwrap();
        trainer.train_epoch(&images, &labels, 16, |_| {}).unwrap();
        let after = trainer.weights().unwrap();
        for (name, weight) in after.iter() {
            let layer = name.split('.').next().unwrap();
            let kept = layer.starts_with("bn") || layer == "conv1" || (layer == "conv2" && frozen.len() == 2);
            assert_eq!(start.get(name).unwrap() == weight, kept, "{name} with {frozen:?}");
        }
    }
    let mut trainer = Trainer::new(&network, &start, 1e-2, 1).unwrap();
    trainer.train_epoch(&images, &labels, 16, |_| {}).unwrap();
    let after = trainer.weights().unwrap();
    assert!(after.iter().all(|(name, weight)| start.get(name).unwrap() != weight), "all of them move otherwise");
}

#[test]
fn bad_calls_are_typed() {
    let network = Network::parse(SMALL).unwrap();
    let weights = Weights::init(&network, 1);
    assert!(matches!(Trainer::new(&network, &weights, 0.0, 1), Err(NetworkError::BadSetting { .. })));
    assert!(matches!(Trainer::with_frozen(&network, &weights, 0.1, 1, &["conf1"]), Err(NetworkError::NoMatch { .. })));
    let mut trainer = Trainer::new(&network, &weights, 0.1, 1).unwrap();
    let mut train = |images: &[f32], labels: &[u32], batch| trainer.train_epoch(images, labels, batch, |_| {});
    assert!(matches!(train(&[0.0; 64], &[1, 2], 1), Err(NetworkError::LabelCount { n_labels: 2, n_rows: 1 })));
    assert!(matches!(train(&[0.0; 65], &[1], 1), Err(NetworkError::PartialRow { row_len: 64, found: 65 })));
    assert!(matches!(train(&[0.0; 64], &[10], 1), Err(NetworkError::LabelRange { row: 0, label: 10, n_classes: 10 })));
    assert!(matches!(train(&[0.0; 64], &[1], 0), Err(NetworkError::BadSetting { name: "batch size", .. })));
    assert!(matches!(train(&[], &[], 1), Err(NetworkError::BadSetting { .. })));

    let linear = Network::parse("input: {shape: [2]}\nlayers:\n  - {name: l, op: linear, out: 2}").unwrap();
    let mut trainer = Trainer::new(&linear, &Weights::init(&linear, 1), 0.1, 1).unwrap();
    let before = trainer.weights().unwrap();
    let error = trainer.train_epoch(&[f32::NAN, 0.0], &[1], 1, |_| {});
    assert!(matches!(error, Err(NetworkError::Diverged { batch: 0, .. })));
    assert_eq!(trainer.weights().unwrap(), before, "a step without a loss changes nothing");

    let maps =
        Network::parse("input: {shape: [1, 4, 4]}\nlayers:\n  - {name: c, op: conv2d, out: 2, kernel: 1}").unwrap();
    let error = Trainer::new(&maps, &Weights::init(&maps, 1), 0.1, 1);
    assert!(matches!(error, Err(NetworkError::NotAClassifier { .. })));
}
