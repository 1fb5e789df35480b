//! Weights: starting values, safetensors in and out, and checkpoints that do not fit.

use mistique_workflow::{Network, NetworkError, Weights};

fn digits() -> (Network, Weights) {
    let network = Network::builtin("digits_cnn").unwrap();
    let weights = Weights::init(&network, 4);
    (network, weights)
}

fn without(weights: &Weights, name: &str) -> Weights {
    let mut rest = Weights::new();
    for (n, w) in weights.iter().filter(|(n, _)| *n != name) {
        rest.insert(n, w.shape(), w.values().to_vec()).unwrap();
    }
    rest
}

#[test]
fn names_and_layouts_are_pytorchs() {
    let network = Network::builtin("resnet20").unwrap();
    let weights = Weights::init(&network, 1);
    weights.check(&network).unwrap();
    let shape = |name: &str| weights.get(name).unwrap_or_else(|| panic!("{name}")).shape().to_vec();
    assert_eq!(shape("layer2.0.downsample.0.weight"), [32, 16, 1, 1]);
    assert_eq!(shape("layer2.0.bn1.running_var"), [32]);
    assert_eq!(shape("fc.weight"), [10, 64]);
    assert!(weights.get("conv1.bias").is_none());
    assert_eq!(weights.iter().count(), network.params().len());
}

#[test]
fn starting_values_have_the_right_spread() {
    let (_, weights) = digits();
    let w = weights.get("conv2.weight").unwrap();
    assert_eq!(w.shape(), [32, 16, 3, 3]);
    let limit = (6.0f32 / 144.0).sqrt();
    let n = w.values().len() as f32;
    let mean = w.values().iter().sum::<f32>() / n;
    let var = w.values().iter().map(|v| v * v).sum::<f32>() / n;
    assert!(w.values().iter().all(|v| v.abs() <= limit));
    assert!(mean.abs() < limit * 0.03 && (var / (limit * limit / 3.0) - 1.0).abs() < 0.05, "{mean} {var}");
    assert!(weights.get("conv2.bias").unwrap().values().iter().all(|&v| v == 0.0));
}

#[test]
fn a_seed_gives_the_same_weights_forever() {
    let (network, weights) = digits();
    assert_eq!(weights, Weights::init(&network, 4));
    assert_ne!(weights.fingerprint(), Weights::init(&network, 5).fingerprint());
    assert_eq!(weights.get("conv1.weight").unwrap().values()[..3], PINNED);
}

const PINNED: [f32; 3] = [-0.5986204, 0.049344923, -0.21109541];

#[test]
fn safetensors_round_trip() {
    let (network, weights) = digits();
    let bytes = weights.to_safetensors().unwrap();
    assert_eq!(bytes, weights.clone().to_safetensors().unwrap(), "equal weights, equal bytes");
    let back = Weights::load_safetensors(&bytes).unwrap();
    assert_eq!(back, weights);
    assert_eq!(back.fingerprint(), weights.fingerprint());
    back.check(&network).unwrap();
    let mut odd = Weights::new();
    odd.insert("a \"b\".ü/", &[3], vec![f32::NAN, -0.0, f32::INFINITY]).unwrap();
    odd.insert("scalar", &[], vec![1.5]).unwrap();
    odd.insert("none", &[0, 4], vec![]).unwrap();
    let back = Weights::load_safetensors(&odd.to_safetensors().unwrap()).unwrap();
    let bits = |w: &Weights| w.get("a \"b\".ü/").unwrap().values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back), bits(&odd));
    assert_eq!(back.get("scalar").unwrap().shape(), [] as [usize; 0]);
    assert_eq!(back.get("none").unwrap().shape(), [0, 4]);
}

/// A safetensors file with one tensor of this type.
fn file(dtype: &str, name: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let header =
        format!("{{{name:?}:{{\"dtype\":{dtype:?},\"shape\":{shape:?},\"data_offsets\":[0,{}]}}}}", data.len());
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn other_float_types_become_f32() {
    let load = |dtype: &str, data: &[u8]| Weights::load_safetensors(&file(dtype, "w", &[2], data)).unwrap();
    let expected = [1.5f32, -0.25];
    assert_eq!(
        load("F64", &[1.5f64.to_le_bytes(), (-0.25f64).to_le_bytes()].concat()).get("w").unwrap().values(),
        expected
    );
    assert_eq!(load("F16", &[0x00, 0x3e, 0x00, 0xb4]).get("w").unwrap().values(), expected);
    assert_eq!(load("BF16", &[0xc0, 0x3f, 0x80, 0xbe]).get("w").unwrap().values(), expected);
    let error = Weights::load_safetensors(&file("I32", "w", &[1], &[0; 4])).unwrap_err();
    assert!(matches!(&error, NetworkError::TensorType { tensor, .. } if tensor == "w"), "{error:?}");
    let counter = Weights::load_safetensors(&file("I64", "bn.num_batches_tracked", &[], &[0; 8])).unwrap();
    assert_eq!(counter.iter().count(), 0);
}

#[test]
fn damaged_files_are_errors() {
    let (_, weights) = digits();
    let bytes = weights.to_safetensors().unwrap();
    for cut in [0, 1, 7, 8, 100, bytes.len() - 1] {
        assert!(matches!(Weights::load_safetensors(&bytes[..cut]), Err(NetworkError::Safetensors { .. })), "{cut}");
    }
    let mut header = bytes.clone();
    header[7] = 0xff;
    assert!(matches!(Weights::load_safetensors(&header), Err(NetworkError::Safetensors { .. })));
}

#[test]
fn wrong_checkpoints_name_the_tensor() {
    let (network, weights) = digits();
    let error = without(&weights, "conv1.weight").check(&network).unwrap_err();
    assert!(matches!(&error, NetworkError::MissingTensor { tensor, .. } if tensor == "conv1.weight"));
    assert!(error.to_string().contains("expected [16, 1, 3, 3]"), "{error}");

    let mut renamed = without(&weights, "conv1.weight");
    renamed.insert("conv1.weigth", &[16, 1, 3, 3], vec![0.0; 144]).unwrap();
    let error = renamed.check(&network).unwrap_err().to_string();
    assert!(error.contains("did you mean \"conv1.weigth\""), "{error}");

    let mut extra = weights.clone();
    extra.insert("conv9.weight", &[1], vec![0.0]).unwrap();
    let error = extra.check(&network).unwrap_err();
    assert!(matches!(&error, NetworkError::ExtraTensor { tensor, .. } if tensor == "conv9.weight"), "{error:?}");

    let mut shaped = weights.clone();
    shaped.insert("conv1.weight", &[16, 9], vec![0.0; 144]).unwrap();
    let error = shaped.check(&network).unwrap_err();
    assert_eq!(
        error.to_string(),
        "conv1.weight: expected [16, 1, 3, 3], found [16, 9]; the weights are of another network"
    );

    let error = Weights::new().insert("w", &[2, 3], vec![0.0; 5]).unwrap_err();
    assert_eq!(error.to_string(), "w: shape [2, 3] needs 6 values, found 5");
    let error = Weights::new().insert("w", &[usize::MAX, 3], vec![]).unwrap_err();
    assert!(!error.to_string().is_empty());
}
