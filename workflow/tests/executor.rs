//! Running: each layer kind against values computed by hand, skips, starting in the middle, and errors.

use candle_core::{Device as Target, Tensor};
use mistique_workflow::{Device, Executor, Network, NetworkError, Timings, Weights};

/// The output of a network of one layer named `l` for one batch.
fn one(shape: &str, layer: &str, weights: &[(&str, &[usize], &[f32])], input: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let network = Network::parse(&format!("input: {{shape: {shape}}}\nlayers:\n  - {{name: l, {layer}}}")).unwrap();
    let mut all = Weights::new();
    for (name, shape, values) in weights {
        all.insert(&format!("l.{name}"), shape, values.to_vec()).unwrap();
    }
    let executor = Executor::new(&network, &all, Device::Cpu).unwrap();
    let outputs = run(&executor, &executor.batch(input).unwrap(), &[0]);
    let (_, tensor) = outputs.into_iter().next().unwrap();
    (tensor.dims().to_vec(), values(&tensor))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).iter().map(|v| v.to_bits()).collect()
}

fn run(executor: &Executor, input: &Tensor, wanted: &[usize]) -> Vec<(usize, Tensor)> {
    let mut outputs = Vec::new();
    executor
        .forward(input, wanted, &mut |i, t| {
            outputs.push((i, t));
            Ok(())
        })
        .unwrap();
    outputs
}

fn input(network: &Network, rows: usize) -> Vec<f32> {
    let n = rows * network.input_shape().iter().product::<usize>();
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

#[track_caller]
fn near(found: (Vec<usize>, Vec<f32>), shape: &[usize], expected: &[f32]) {
    assert_eq!(found.0, shape);
    for (a, b) in found.1.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "found {:?}, expected {expected:?}", found.1);
    }
    assert_eq!(found.1.len(), expected.len());
}

#[test]
fn conv2d_by_hand() {
    let x = [1., 2., 3., 4., 5., 6., 7., 8., 9.];
    let cross: &[f32] = &[0., 1., 0., 1., -4., 1., 0., 1., 0.];
    let conv = |keys: &str, bias: f32| {
        one(
            "[1, 3, 3]",
            &format!("op: conv2d, out: 1, kernel: 3{keys}"),
            &[("weight", &[1, 1, 3, 3], cross), ("bias", &[1], &[bias])],
            &x,
        )
    };
    near(conv("", 0.5), &[1, 1, 1, 1], &[0.5]);
    near(conv(", padding: 1", 0.0), &[1, 1, 3, 3], &[2., 1., -4., -3., 0., -7., -16., -11., -22.]);
    near(conv(", padding: 1, activation: relu", 3.0), &[1, 1, 3, 3], &[5., 4., 0., 0., 3., 0., 0., 0., 0.]);
    near(conv(", padding: 1, stride: 2", 0.0), &[1, 1, 2, 2], &[2., -4., -16., -22.]);
    let twice = one(
        "[2, 1, 1]",
        "op: conv2d, out: 2, kernel: 1, groups: 2, bias: false",
        &[("weight", &[2, 1, 1, 1], &[2., 3.])],
        &[5., 7., 1., -1.],
    );
    near(twice, &[2, 2, 1, 1], &[10., 21., 2., -3.]);
}

#[test]
fn linear_by_hand() {
    let weights: &[(&str, &[usize], &[f32])] =
        &[("weight", &[2, 3], &[1., 2., 3., -1., 0., 1.]), ("bias", &[2], &[0.5, -3.])];
    near(one("[3]", "op: linear, out: 2", weights, &[1., 1., 2.]), &[1, 2], &[9.5, -2.]);
    near(one("[3]", "op: linear, out: 2, activation: relu", weights, &[1., 1., 2.]), &[1, 2], &[9.5, 0.]);
    let sequence = one("[2, 3]", "op: linear, out: 2", weights, &[1., 1., 2., 0., 0., 1.]);
    near(sequence, &[1, 2, 2], &[9.5, -2., 3.5, -2.]);
}

#[test]
fn activations_by_hand() {
    let x = [-1., 0., 2., f32::NAN];
    let (_, relu) = one("[4]", "op: relu", &[], &x);
    assert_eq!(relu[..3], [0., 0., 2.]);
    assert!(relu[3].is_nan(), "NaN must stay visible");
    // x·Φ(x), Φ(-1) = 0.158655254, Φ(2) = 0.977249868: the exact form, not the tanh one (which gives -0.158808).
    near(one("[3]", "op: gelu", &[], &x[..3]), &[1, 3], &[-0.158_655_25, 0., 1.954_499_7]);
    near(one("[3]", "op: sigmoid", &[], &x[..3]), &[1, 3], &[0.268_941_43, 0.5, 0.880_797_1]);
    near(one("[3]", "op: tanh", &[], &x[..3]), &[1, 3], &[-0.761_594_2, 0., 0.964_027_6]);
}

#[test]
fn norms_by_hand() {
    let weights: &[(&str, &[usize], &[f32])] = &[
        ("weight", &[2], &[2., 1.]),
        ("bias", &[2], &[1., 0.]),
        ("running_mean", &[2], &[3., 0.]),
        ("running_var", &[2], &[4., 1.]),
    ];
    let found = one("[2, 1, 2]", "op: batch_norm, eps: 1.0e-12", weights, &[5., 1., 7., -7.]);
    near(found, &[1, 2, 1, 2], &[3., -1., 7., -7.]);
    // mean 2, variance 2/3
    let weights: &[(&str, &[usize], &[f32])] = &[("weight", &[3], &[1., 1., 2.]), ("bias", &[3], &[0., 5., 0.])];
    near(one("[3]", "op: layer_norm, eps: 1.0e-12", weights, &[1., 2., 3.]), &[1, 3], &[-1.224_744_9, 5., 2.449_489_7]);
}

#[test]
fn pools_by_hand() {
    let x: Vec<f32> = (1..=15).map(|i| if i % 2 == 0 { -(i as f32) } else { i as f32 }).collect();
    // 3×5, the last row and column do not fill a window:  1 -2 3 -4 5 | -6 7 -8 9 -10 | 11 -12 13 -14 15
    near(one("[1, 3, 5]", "op: max_pool, kernel: 2", &[], &x), &[1, 1, 1, 2], &[7., 9.]);
    near(one("[1, 3, 5]", "op: avg_pool, kernel: 2", &[], &x), &[1, 1, 1, 2], &[0., 0.]);
    near(
        one("[1, 3, 5]", "op: max_pool, kernel: 3, stride: 2, padding: 1", &[], &x),
        &[1, 1, 2, 3],
        &[7., 9., 9., 11., 13., 15.],
    );
    let ninths = [
        1. - 2. - 6. + 7.,
        -2. + 3. - 4. + 7. - 8. + 9.,
        -4. + 5. + 9. - 10.,
        -6. + 7. + 11. - 12.,
        7. - 8. + 9. - 12. + 13. - 14.,
        9. - 10. - 14. + 15.,
    ];
    near(
        one("[1, 3, 5]", "op: avg_pool, kernel: 3, stride: 2, padding: 1", &[], &x),
        &[1, 1, 2, 3],
        &ninths.map(|v: f32| v / 9.),
    );
    near(one("[1, 3, 5]", "op: max_pool, kernel: 1, stride: 2", &[], &x), &[1, 1, 2, 3], &[1., 3., 5., 11., 13., 15.]);
    near(one("[2, 1, 2]", "op: global_pool, mode: avg", &[], &[1., 2., -3., -5.]), &[1, 2], &[1.5, -4.]);
    near(one("[2, 1, 2]", "op: global_pool, mode: max", &[], &[1., 2., -3., -5.]), &[1, 2], &[2., -3.]);
    let (_, nan) = one("[1, 2, 2]", "op: max_pool, kernel: 2", &[], &[f32::NAN, 1., 2., 3.]);
    assert!(nan[0].is_nan());
}

#[test]
fn the_rest_by_hand() {
    near(one("[2]", "op: softmax", &[], &[0., 3f32.ln()]), &[1, 2], &[0.25, 0.75]);
    near(one("[2, 2]", "op: softmax, axis: 0", &[], &[0., 0., 3f32.ln(), 0.]), &[1, 2, 2], &[0.25, 0.5, 0.75, 0.5]);
    near(one("[2]", "op: softmax", &[], &[1000., 1000.]), &[1, 2], &[0.5, 0.5]);
    near(one("[1, 2, 2]", "op: flatten", &[], &[1., 2., 3., 4.]), &[1, 4], &[1., 2., 3., 4.]);
    near(one("[2]", "op: dropout, rate: 0.9", &[], &[1., 2.]), &[1, 2], &[1., 2.]);
    let table: &[(&str, &[usize], &[f32])] = &[("weight", &[3, 2], &[1., 2., 3., 4., 5., 6.])];
    near(one("[2]", "op: embedding, vocab: 3, dim: 2", table, &[2., 0.]), &[1, 2, 2], &[5., 6., 1., 2.]);
    near(one("[2]", "op: add, inputs: [input, input]", &[], &[1., 2.]), &[1, 2], &[2., 4.]);
    near(one("[1, 1, 2]", "op: concat, inputs: [input, input]", &[], &[1., 2.]), &[1, 2, 1, 2], &[1., 2., 1., 2.]);
    near(one("[2, 1]", "op: concat, inputs: [input, input], axis: -1", &[], &[1., 2.]), &[1, 2, 2], &[1., 1., 2., 2.]);
}

fn skipping() -> (Network, Weights) {
    let text = "input: {shape: [3, 9, 7]}
layers:
  - {name: stem, op: conv2d, out: 8, kernel: 3, padding: 1, activation: relu}
  - {name: left, op: conv2d, out: 8, kernel: 3, padding: 1}
  - {name: right, op: conv2d, input: stem, out: 8, kernel: 1}
  - {name: sum, op: add, inputs: [left, right, stem]}
  - {name: pool, op: max_pool, kernel: 2}
  - {name: unused, op: relu, input: stem}
  - {name: head, op: global_pool, mode: avg, input: pool}
  - {name: logits, op: linear, out: 5}";
    let network = Network::parse(text).unwrap();
    let weights = Weights::init(&network, 2);
    (network, weights)
}

#[test]
fn starting_in_the_middle_gives_the_same_bits() {
    let (network, weights) = skipping();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let x = executor.batch(&input(&network, 6)).unwrap();
    let all: Vec<usize> = (0..network.layers().len()).collect();
    let full = run(&executor, &x, &all);
    assert_eq!(full.iter().map(|(i, _)| *i).collect::<Vec<_>>(), all);
    for given in [vec![0], vec![3], vec![0, 2], vec![0, 4], vec![6], vec![7], vec![1, 2, 0]] {
        let mut found = Vec::new();
        let at_hand = given.iter().map(|&i| (i, full[i].1.clone())).collect();
        let timings = executor
            .forward_from(at_hand, &[7], &mut |i, t| {
                found.push((i, t));
                Ok(())
            })
            .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(bits(&found[0].1), bits(&full[7].1), "from {given:?}");
        let ran: Vec<usize> = (0..8).filter(|&i| timings.seconds[i] > 0.0).collect();
        assert_eq!(ran, network.plan(&given, &[7], false).unwrap());
        assert_eq!(timings.n_rows, 6);
    }
}

#[test]
fn only_what_is_wanted_runs_and_in_order() {
    let (network, weights) = skipping();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let x = executor.batch(&input(&network, 2)).unwrap();
    let mut order = Vec::new();
    let timings: Timings = executor
        .forward(&x, &[3, 0, 3], &mut |i, _| {
            order.push(i);
            Ok(())
        })
        .unwrap();
    assert_eq!(order, [0, 3], "ascending, each once");
    assert!(timings.seconds[4..].iter().all(|&s| s == 0.0));
    assert!(timings.total() > 0.0);
    assert!(run(&executor, &x, &[]).is_empty());
    let empty = executor.batch(&[]).unwrap();
    assert_eq!(run(&executor, &empty, &[7])[0].1.dims(), [0, 5]);
}

#[test]
fn the_same_batch_gives_the_same_bits_and_so_do_its_rows() {
    for name in ["digits_cnn", "resnet20"] {
        let network = Network::builtin(name).unwrap();
        let weights = Weights::init(&network, 2);
        let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
        let x = executor.batch(&input(&network, 9)).unwrap();
        let all: Vec<usize> = (0..network.layers().len()).collect();
        let full = run(&executor, &x, &all);
        for ((_, a), (_, b)) in full.iter().zip(&run(&executor, &x, &all)) {
            assert_eq!(bits(a), bits(b));
        }
        for (start, len) in [(0, 1), (8, 1), (3, 4)] {
            let part = run(&executor, &x.narrow(0, start, len).unwrap(), &all);
            for ((i, a), (_, b)) in full.iter().zip(&part) {
                let same = a.narrow(0, start, len).unwrap();
                assert_eq!(bits(&same), bits(b), "{name} {} rows {start}+{len}", network.layers()[*i].name());
            }
        }
    }
}

#[test]
fn describes_itself() {
    let (network, weights) = skipping();
    assert_eq!(Executor::new(&network, &weights, Device::Cpu).unwrap().describe(), "cpu: winograd/im2col+gemm");
}

#[test]
fn bad_calls_are_typed() {
    let (network, weights) = skipping();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let drop_all = &mut |_: usize, _: Tensor| Ok(());
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Target::Cpu).unwrap();

    assert!(matches!(executor.batch(&[0.0; 190]), Err(NetworkError::PartialRow { row_len: 189, found: 190 })));
    let error = executor.forward(&zeros(&[2, 3, 7, 9]), &[7], drop_all).unwrap_err();
    assert_eq!(error.to_string(), "the network's input: expected a batch of shape [rows, 3, 9, 7], found [2, 3, 7, 9]");
    let x = zeros(&[2, 3, 9, 7]);
    assert!(matches!(executor.forward(&x, &[8], drop_all), Err(NetworkError::LayerIndex { .. })));

    let stem = (0, zeros(&[2, 8, 9, 7]));
    assert!(executor.forward_from(vec![stem.clone()], &[7], drop_all).is_ok());
    let error = executor.forward_from(vec![(1, zeros(&[2, 8, 9, 7]))], &[7], drop_all).unwrap_err();
    assert!(matches!(&error, NetworkError::NotSufficient { wanted, .. } if wanted == "logits"), "{error:?}");
    assert!(matches!(executor.forward_from(vec![], &[7], drop_all), Err(NetworkError::NotSufficient { .. })));
    let error = executor.forward_from(vec![stem.clone(), (4, zeros(&[3, 8, 4, 3]))], &[7], drop_all).unwrap_err();
    assert!(matches!(error, NetworkError::RowCount { expected: 2, found: 3, .. }));
    let error = executor.forward_from(vec![(4, zeros(&[2, 8, 9, 7]))], &[7], drop_all).unwrap_err();
    assert!(matches!(error, NetworkError::BatchShape { .. }));
    assert!(matches!(
        executor.forward_from(vec![(9, x.clone())], &[7], drop_all),
        Err(NetworkError::LayerIndex { .. })
    ));

    let refuse =
        &mut |_: usize, _: Tensor| Err(NetworkError::Sink { layer: "stem".into(), source: "disk full".into() });
    let error = executor.forward(&x, &[0], refuse).unwrap_err();
    assert!(error.to_string().contains("disk full"), "{error}");

    let ids = Network::parse("input: {shape: [2]}\nlayers:\n  - {name: e, op: embedding, vocab: 3, dim: 2}").unwrap();
    let executor = Executor::new(&ids, &Weights::init(&ids, 1), Device::Cpu).unwrap();
    for bad in [3.0, -1.0, 0.5, f32::NAN] {
        let batch = executor.batch(&[0.0, 1.0, 2.0, bad]).unwrap();
        let error = executor.forward(&batch, &[0], drop_all).unwrap_err();
        assert!(matches!(error, NetworkError::BadId { row: 1, vocab: 3, .. }), "{bad}: {error:?}");
    }
    assert!(matches!(Executor::new(&network, &Weights::new(), Device::Cpu), Err(NetworkError::MissingTensor { .. })));
}
