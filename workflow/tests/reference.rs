//! Every layer kind, and training, against PyTorch. The fixtures are written by fixtures/make_reference.py.

use mistique_workflow::{Device, Executor, Network, Trainer, Weights};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn network(name: &str) -> Network {
    Network::parse(&String::from_utf8(fixture(&format!("{name}.yaml"))).unwrap()).unwrap()
}

fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{i}]: found {a}, expected {b}");
    }
}

fn compare(name: &str) {
    let network = network(name);
    let weights = Weights::load_safetensors(&fixture(&format!("{name}.safetensors"))).unwrap();
    let expected = Weights::load_safetensors(&fixture(&format!("{name}_outputs.safetensors"))).unwrap();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let input = executor.batch(expected.get("input").unwrap().values()).unwrap();
    let wanted: Vec<usize> = (0..network.layers().len()).collect();
    let mut seen = Vec::new();
    executor
        .forward(&input, &wanted, &mut |index, output| {
            let name = network.layers()[index].name();
            let expected = expected.get(name).unwrap_or_else(|| panic!("no reference for {name}"));
            assert_eq!(output.dims(), expected.shape(), "{name}");
            assert!(output.is_contiguous());
            assert_near(name, &output.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected.values(), 1e-5);
            seen.push(index);
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, wanted);
    assert_eq!(expected.iter().count(), wanted.len() + 1, "every reference output is compared");
}

#[test]
fn kinds_over_maps_equal_pytorch() {
    compare("reference");
}

#[test]
fn kinds_over_sequences_equal_pytorch() {
    compare("reference_ids");
}

/// Together the two descriptions must use every kind there is.
#[test]
fn every_kind_is_compared() {
    let networks = [network("reference"), network("reference_ids")];
    for kind in mistique_workflow::kinds() {
        assert!(networks.iter().any(|n| n.layers().iter().any(|l| l.op() == kind)), "{kind} has no PyTorch reference");
    }
}

/// Three Adam steps on one full batch: losses, weights and running statistics.
#[test]
fn training_equals_pytorch() {
    let network = Network::parse(
        "input: {shape: [2, 5, 5]}
layers:
  - {name: conv, op: conv2d, out: 4, kernel: 3, padding: 1, bias: false}
  - {name: bn, op: batch_norm}
  - {name: relu, op: relu}
  - {name: pool, op: max_pool, kernel: 3, stride: 2, padding: 1}
  - {name: flatten, op: flatten}
  - {name: fc, op: linear, out: 3}",
    )
    .unwrap();
    let weights = Weights::load_safetensors(&fixture("reference_training.safetensors")).unwrap();
    let expected = Weights::load_safetensors(&fixture("reference_training_outputs.safetensors")).unwrap();
    let labels: Vec<u32> = (0..8).map(|i| i % 3).collect();
    let mut trainer = Trainer::new(&network, &weights, 0.01, 1).unwrap();
    let images = expected.get("input").unwrap().values();
    let losses: Vec<f32> = (0..3).map(|_| trainer.train_epoch(images, &labels, 8, |_| {}).unwrap()).collect();
    assert_near("losses", &losses, expected.get("losses").unwrap().values(), 1e-5);
    for (name, weight) in trainer.weights().unwrap().iter() {
        let expected = expected.get(&format!("after.{name}")).unwrap();
        // Adam's first steps are lr·sign(gradient): where the gradient is nearly 0 they amplify rounding.
        assert_near(name, weight.values(), expected.values(), 1e-4);
    }
}
