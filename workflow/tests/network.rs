//! Descriptions: the builtin networks' shapes, what YAML and JSON mean, and what is refused.

use mistique_workflow::{Network, NetworkError, Source};

fn shape_list(network: &Network) -> Vec<(String, Vec<usize>)> {
    network.layers().iter().map(|l| (l.name().to_string(), l.shape().to_vec())).collect()
}

fn expect(name: &str, expected: &[(&str, &[usize])]) {
    let expected: Vec<_> = expected.iter().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    let network = Network::builtin(name).unwrap();
    assert_eq!(shape_list(&network), expected);
    assert_eq!(network.shapes(), expected.into_iter().map(|(_, s)| s).collect::<Vec<_>>());
}

/// Table 5.4 of the source (there height, width, channels; here channels first).
#[test]
fn vgg16_is_table_5_4() {
    expect(
        "vgg16",
        &[
            ("block1_conv1", &[64, 32, 32]),
            ("block1_conv2", &[64, 32, 32]),
            ("block1_pool", &[64, 16, 16]),
            ("block2_conv1", &[128, 16, 16]),
            ("block2_conv2", &[128, 16, 16]),
            ("block2_pool", &[128, 8, 8]),
            ("block3_conv1", &[256, 8, 8]),
            ("block3_conv2", &[256, 8, 8]),
            ("block3_conv3", &[256, 8, 8]),
            ("block3_pool", &[256, 4, 4]),
            ("block4_conv1", &[512, 4, 4]),
            ("block4_conv2", &[512, 4, 4]),
            ("block4_conv3", &[512, 4, 4]),
            ("block4_pool", &[512, 2, 2]),
            ("block5_conv1", &[512, 2, 2]),
            ("block5_conv2", &[512, 2, 2]),
            ("block5_conv3", &[512, 2, 2]),
            ("block5_pool", &[512, 1, 1]),
            ("flatten", &[512]),
            ("dense1", &[256]),
            ("logits", &[10]),
        ],
    );
    // Thirteen convolutions of the published VGG16, and the two dense layers.
    assert_eq!(Network::builtin("vgg16").unwrap().n_params(), 14_714_688 + 512 * 256 + 256 + 256 * 10 + 10);
}

#[test]
fn digits_and_cifar_shapes() {
    expect(
        "digits_cnn",
        &[
            ("conv1", &[16, 8, 8]),
            ("conv2", &[32, 8, 8]),
            ("pool1", &[32, 4, 4]),
            ("flatten", &[512]),
            ("dense1", &[64]),
            ("logits", &[10]),
        ],
    );
    expect(
        "cifar10_cnn",
        &[
            ("conv1", &[32, 32, 32]),
            ("conv2", &[32, 30, 30]),
            ("pool1", &[32, 15, 15]),
            ("drop1", &[32, 15, 15]),
            ("conv3", &[64, 15, 15]),
            ("conv4", &[64, 13, 13]),
            ("pool2", &[64, 6, 6]),
            ("drop2", &[64, 6, 6]),
            ("flatten", &[2304]),
            ("dense1", &[512]),
            ("drop3", &[512]),
            ("logits", &[10]),
        ],
    );
    // The Keras example prints this count.
    assert_eq!(Network::builtin("cifar10_cnn").unwrap().n_params(), 1_250_858);
}

#[test]
fn resnet20_shapes() {
    let mut expected: Vec<(String, Vec<usize>)> = Vec::new();
    let mut push = |name: String, c: usize, s: usize| expected.push((name, vec![c, s, s]));
    for name in ["conv1", "bn1", "relu1"] {
        push(name.into(), 16, 32);
    }
    for (stage, (c, s)) in [(16, 32), (32, 16), (64, 8)].into_iter().enumerate() {
        for block in 0..3 {
            let down: &[&str] = if stage > 0 && block == 0 { &["downsample.0", "downsample.1"] } else { &[] };
            for part in ["conv1", "bn1", "relu1", "conv2", "bn2"].iter().chain(down).chain(&["add", "relu2"]) {
                push(format!("layer{}.{block}.{part}", stage + 1), c, s);
            }
        }
    }
    expected.push(("avgpool".into(), vec![64]));
    expected.push(("fc".into(), vec![10]));
    let network = Network::builtin("resnet20").unwrap();
    assert_eq!(shape_list(&network), expected);
    // 269,722 without projections (He et al. give 0.27M), plus the two 1×1 convolutions and their batch norms.
    assert_eq!(network.n_params(), 269_722 + (16 * 32 + 64) + (32 * 64 + 128));
    let add = network.layer_index("layer2.0.add").unwrap();
    let inputs = [network.layer_index("layer2.0.bn2").unwrap(), network.layer_index("layer2.0.downsample.1").unwrap()];
    assert_eq!(network.layers()[add].inputs(), inputs.map(Source::Layer));
}

const YAML: &str = "
name: odd
input: {shape: [2, 6, 6]}
layers:
  - {name: layer1.0.conv, op: conv2d, out: 4, kernel: 3}
  - name: 'quote\"d/name'
    op: relu
  - {name: skip, op: add, inputs: [layer1.0.conv, 'quote\"d/name']}
";

#[test]
fn json_and_yaml_mean_the_same() {
    let yaml = Network::parse(YAML).unwrap();
    let canonical = Network::parse(&yaml.to_json()).unwrap();
    assert_eq!(canonical.to_json(), yaml.to_json());
    assert_eq!(canonical.fingerprint(), yaml.fingerprint());
    let spelled = YAML.replace("kernel: 3", "kernel: 3, stride: 1, bias: true, input: input");
    assert_eq!(Network::parse(&spelled).unwrap().fingerprint(), yaml.fingerprint(), "defaults spelled out");
    for changed in
        [YAML.replace("kernel: 3", "kernel: 1"), YAML.replace("skip", "skip2"), YAML.replace("[2, 6", "[2, 7")]
    {
        assert_ne!(Network::parse(&changed).unwrap().fingerprint(), yaml.fingerprint());
    }
    let tabs = yaml.to_json().replace(":", ":\t").replace("{", "{\n\t\t");
    assert_eq!(Network::parse(&tabs).unwrap().fingerprint(), yaml.fingerprint(), "JSON may hold tabs");
    for name in mistique_workflow::BUILTIN {
        let network = Network::builtin(name).unwrap();
        assert_eq!(Network::parse(&network.to_json()).unwrap().fingerprint(), network.fingerprint(), "{name}");
    }
}

/// The fingerprint is stored with runs: it must not change from version to version.
#[test]
fn the_fingerprint_is_pinned() {
    let json = Network::parse(YAML).unwrap().to_json();
    assert_eq!(
        json,
        concat!(
            r#"{"input":{"shape":[2,6,6]},"layers":[{"activation":null,"bias":true,"dilation":1,"groups":1,"#,
            r#""inputs":["input"],"kernel":3,"name":"layer1.0.conv","op":"conv2d","out":4,"padding":0,"stride":1},"#,
            r#"{"inputs":["layer1.0.conv"],"name":"quote\"d/name","op":"relu"},"#,
            r#"{"inputs":["layer1.0.conv","quote\"d/name"],"name":"skip","op":"add"}],"name":"odd"}"#
        )
    );
}

/// The description with these layers on lines 3, 4, …
fn layers(lines: &[&str]) -> Result<Network, NetworkError> {
    let list: String = lines.iter().map(|l| format!("  - {{{l}}}\n")).collect();
    Network::parse(&format!("input: {{shape: [3, 8, 8]}}\nlayers:\n{list}"))
}

#[track_caller]
fn refused(lines: &[&str], parts: &[&str]) -> NetworkError {
    let error = layers(lines).expect_err("should be refused");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    error
}

#[test]
fn keys_are_checked_with_name_and_line() {
    let conv = "name: c, op: conv2d, out: 4, kernel: 3";
    let e =
        refused(&[conv, "name: d, op: conv2d, out: 4, kernal: 3"], &["\"d\" (line 4)", "`kernel`", "needs the key"]);
    assert!(matches!(e, NetworkError::MissingKey { .. }));
    let e = refused(
        &["name: d, op: conv2d, out: 4, kernel: 3, pading: 1"],
        &["(line 3)", "`pading`", "did you mean \"padding\""],
    );
    assert!(matches!(e, NetworkError::UnknownKey { .. }));
    let e =
        refused(&["name: d, op: conv2, out: 4, kernel: 3"], &["\"conv2\"", "did you mean \"conv2d\"", "layer_norm"]);
    assert!(matches!(e, NetworkError::UnknownOp { .. }));
    refused(&["op: relu"], &["layer \"#1\" (line 3)", "`name`"]);
    refused(&["name: d"], &["layer \"d\"", "`op`"]);
    for (bad, parts) in [
        ("name: d, op: conv2d, out: 0, kernel: 3", &["`out` is 0", "at least 1", "from 1"][..1]),
        ("name: d, op: conv2d, out: many, kernel: 3", &["`out` is \"many\""][..]),
        ("name: d, op: conv2d, out: 4, kernel: 3, bias: 1", &["`bias` is 1", "true or false"][..]),
        ("name: d, op: conv2d, out: 4, kernel: 3, activation: swish", &["swish", "relu, gelu"][..]),
        ("name: d, op: conv2d, out: 4, kernel: 3, groups: 3", &["`groups` is 3", "a divisor of `out` (4)"][..]),
        ("name: d, op: dropout, rate: 1.5", &["`rate` is 1.5"][..]),
        ("name: d, op: max_pool, kernel: 2, padding: 2", &["`padding` is 2", "half the kernel"][..]),
        ("name: 7, op: relu", &["`name` is 7", "quote it"][..]),
        ("name: d, op: relu, input: a, inputs: [b]", &["not both"][..]),
        ("name: d, op: add, inputs: {a: 1}", &["a list of layer names"][..]),
        ("name: d, op: global_pool, mode: sum", &["sum", "avg, max"][..]),
        ("name: d, op: batch_norm, eps: 0", &["`eps` is 0"][..]),
        ("name: d, op: relu, version: 2", &["`version` is 2", "1: this build has no other version of relu"][..]),
    ] {
        let e = refused(&[bad], parts);
        assert!(matches!(e, NetworkError::BadValue { .. }), "{bad}: {e:?}");
    }
}

#[test]
fn the_graph_is_checked() {
    let relu = |name: &str, input: &str| format!("name: {name}, op: relu, input: {input}");
    let e = refused(&["name: a, op: relu", "name: a, op: relu"], &["\"a\" (line 4)", "line 3"]);
    assert!(matches!(e, NetworkError::DuplicateName { first_line: Some(3), .. }));
    let e = refused(
        &["name: conv1, op: relu", &relu("b", "conv2")],
        &["\"conv2\" is not a layer", "did you mean \"conv1\""],
    );
    assert!(matches!(e, NetworkError::UnknownInput { .. }));
    let e = refused(&[&relu("a", "b"), "name: b, op: relu, input: input"], &["further down", "\"b\""]);
    assert!(matches!(e, NetworkError::UsedBeforeDefined { .. }));
    let e = refused(&[&relu("a", "c"), "name: b, op: relu", &relu("c", "b")], &["a -> b -> c -> a"]);
    assert!(matches!(e, NetworkError::Cycle { .. }), "{e}");
    let e = refused(&[&relu("a", "a")], &["a -> a"]);
    assert!(matches!(e, NetworkError::Cycle { .. }));
    assert!(matches!(refused(&["name: input, op: relu"], &["network's input"]), NetworkError::ReservedName { .. }));
    assert!(matches!(refused(&["name: '', op: relu"], &[]), NetworkError::ReservedName { .. }));
    let e = refused(&["name: s, op: add, inputs: [input]"], &["two or more inputs", "found 1"]);
    assert!(matches!(e, NetworkError::InputCount { .. }));
    refused(&["name: s, op: relu, inputs: [input, input]"], &["one input", "found 2"]);
    refused(&["name: s, op: add"], &["two or more", "found 1"]);
}

#[test]
fn shapes_are_checked() {
    for (lines, parts) in [
        (
            &["name: f, op: flatten", "name: c, op: conv2d, out: 1, kernel: 1"][..],
            &["\"c\" (line 4)", "[192]", "[channels, height, width]"][..],
        ),
        (&["name: c, op: conv2d, out: 1, kernel: 9"], &["9×9 kernel", "[3, 8, 8]"]),
        (&["name: c, op: conv2d, out: 4, kernel: 1, groups: 2"], &["2 groups"]),
        (&["name: p, op: max_pool, kernel: 9"], &["9×9"]),
        (
            &["name: p, op: max_pool, kernel: 2", "name: a, op: add, inputs: [p, input]"],
            &["equal shape", "[3, 4, 4] and [3, 8, 8]"],
        ),
        (&["name: p, op: max_pool, kernel: 2", "name: a, op: concat, inputs: [p, input]"], &["only along axis 0"]),
        (&["name: s, op: softmax, axis: 3"], &["axis 3"]),
        (&["name: f, op: flatten", "name: g, op: global_pool, mode: avg"], &["[192]"]),
    ] {
        let e = refused(lines, parts);
        assert!(matches!(e, NetworkError::Shape { .. }), "{e:?}");
    }
    let e = refused(&["name: big, op: linear, out: 2147483648"], &["\"big\"", "more than"]);
    assert!(matches!(e, NetworkError::TooLarge { .. }));
    let e = refused(&["name: f, op: flatten", "name: big, op: linear, out: 2147483648"], &["its parameters"]);
    assert!(matches!(e, NetworkError::TooLarge { .. }));
    let e = refused(&["name: big, op: conv2d, out: 1, kernel: 2147483648, padding: 1073741824"], &["its parameters"]);
    assert!(matches!(e, NetworkError::TooLarge { .. }));
}

#[test]
fn the_frame_is_checked() {
    for text in
        ["", "[", "layers: []", "input: {shape: [1]}\nlayers: 3", "input: {shape: [1]}\nlayerz: []", "{\"input\": 1}"]
    {
        assert!(matches!(Network::parse(text), Err(NetworkError::Syntax { .. })), "{text:?}");
    }
    let error = Network::parse("input: {shape: [1]}\nlayers:\n  - {name: a, op: relu\n  - oops").unwrap_err();
    assert!(matches!(error, NetworkError::Syntax { line: Some(_), .. }), "{error:?}");
    assert!(matches!(Network::parse("input: {shape: [1]}\nlayers: []"), Err(NetworkError::NoLayers { .. })));
    for shape in ["[]", "[0]", "[1, 1, 1, 1, 1]", "[65536, 65536]"] {
        let text = format!("input: {{shape: {shape}}}\nlayers:\n  - {{name: a, op: relu}}");
        assert!(matches!(Network::parse(&text), Err(NetworkError::BadInputShape { .. })), "{shape}");
    }
    let error = Network::builtin("vgg-16").unwrap_err().to_string();
    assert!(error.contains("did you mean \"vgg16\""), "{error}");
}

#[test]
fn names_are_data() {
    let network = Network::parse(YAML).unwrap();
    assert_eq!(network.layer_index("quote\"d/name").unwrap(), 1);
    let error = network.layer_index("layer1.0.con").unwrap_err().to_string();
    assert!(error.contains("did you mean \"layer1.0.conv\""), "{error}");
}

/// Only what lies between what is at hand and what is wanted runs.
#[test]
fn plans() {
    let network = layers(&[
        "name: a, op: relu",
        "name: b, op: relu",
        "name: c, op: relu, input: a",
        "name: d, op: add, inputs: [b, c]",
        "name: e, op: relu",
    ])
    .unwrap();
    assert_eq!(network.plan(&[], &[4], true).unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(network.plan(&[], &[2], true).unwrap(), [0, 2]);
    assert_eq!(network.plan(&[0], &[4], false).unwrap(), [1, 2, 3, 4]);
    assert_eq!(network.plan(&[3], &[4], false).unwrap(), [4]);
    assert_eq!(network.plan(&[1, 2], &[3], false).unwrap(), [3]);
    assert_eq!(network.plan(&[3], &[3], false).unwrap(), [] as [usize; 0]);
    let error = network.plan(&[1], &[4], false).unwrap_err();
    assert!(matches!(error, NetworkError::NotSufficient { .. }));
    assert!(error.to_string().contains("\"e\"") && error.to_string().contains("\"a\""), "{error}");
    assert!(matches!(network.plan(&[], &[5], true), Err(NetworkError::LayerIndex { found: 5, n_layers: 5 })));
}
