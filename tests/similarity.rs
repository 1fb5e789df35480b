//! Similarity and NetDissect on the command line, with pictures and folders of masks.

mod common;

use std::path::Path;

use common::{json, run};
use mistique::{IfExists, LogOptions, ModelKey, ModelSpec, Store, TensorSpec};

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 1e7
    };
    (0..n).map(|_| next()).collect()
}

/// Three epochs of a model with a map and a vector layer; the last two epochs of `maps` are equal.
fn store(dir: &Path) {
    let store = Store::open_or_create(dir.join("s.mq")).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let rows: Vec<u64> = (0..50).collect();
    for epoch in 1..=3u64 {
        let key = ModelKey::new("p", "m").at(format!("epoch-{epoch}"));
        let model = log.model(&ModelSpec::raw(key), IfExists::Continue).unwrap();
        let f32 = |name: &str, shape: &[usize]| TensorSpec::new(name, shape).with_scheme("f32".parse().unwrap());
        let maps = log.tensor(model, &f32("maps", &[3, 4, 4])).unwrap();
        log.append(maps, &rows, noise(epoch.min(2), 50 * 48)).unwrap();
        let dense = log.tensor(model, &f32("dense", &[6])).unwrap();
        log.append(dense, &rows, noise(10 + epoch, 300)).unwrap();
    }
    log.commit().unwrap();
}

/// The model without a version, logged before another epoch.
fn plain(dir: &Path) {
    let store = Store::open_or_create(dir.join("s.mq")).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    for (version, seed) in [("", 30), ("epoch-4", 31)] {
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m").at(version)), IfExists::Continue).unwrap();
        let dense = log.tensor(model, &TensorSpec::new("dense", &[6])).unwrap();
        log.append(dense, &(0..50).collect::<Vec<_>>(), noise(seed, 300)).unwrap();
    }
    log.commit().unwrap();
}

#[test]
fn layers_and_epochs_are_compared_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let one = run(dir, &["query", "svcca", "p.m@epoch-1.maps", "p.m@epoch-1.dense.u3"]).unwrap();
    assert!(one.contains("SVCCA of p.m@epoch-1.maps with p.m@epoch-1.dense.u3") && one.contains("maps by their mean"));
    let same = json(dir, &["query", "pwcca", "p.m@epoch-2.maps", "p.m@epoch-3.maps", "--maps", "points"]);
    assert!((same["pairs"][0]["value"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{same}");
    assert_eq!((same["data_points"].as_u64(), same["rows"].as_u64()), (Some(800), Some(50)));

    let drawn = json(dir, &["query", "cka", "p.m@*.*", "-o", "cka.png"]);
    assert_eq!(drawn["pairs"].as_array().unwrap().len(), 36);
    let png = std::fs::read(dir.join("cka.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let text = run(dir, &["query", "svcca", "p.m@*.*", "--final-self", "-o", "f.svg"]).unwrap();
    let line = text.lines().find(|l| l.starts_with("maps")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert!(cells.len() == 4 && cells[1] != "1.0000" && cells[2..] == ["1.0000", "1.0000"], "{text}");
    assert!(std::fs::read_to_string(dir.join("f.svg")).unwrap().contains(">epoch-3</text>"));
    let rbf =
        json(dir, &["query", "cka", "p.m@epoch-1.maps", "p.m@epoch-2.maps", "--kernel", "rbf", "--max-points", "20"]);
    assert_eq!(rbf["data_points"].as_u64(), Some(20));

    // Without a version, a pattern means the model that has none, else the one logged last, as a key does.
    let keys = |pattern: &str| -> Vec<String> {
        let sides = json(dir, &["query", "cka", pattern]);
        sides["sides"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(keys("p.m.*"), ["p.m@epoch-3.maps", "p.m@epoch-3.dense"]);
    plain(dir);
    assert_eq!(keys("p.m.*"), ["p.m.dense"]);
    let error = run(dir, &["query", "cca", "p.m@epoch-1.denser", "p.m@epoch-1.maps"]).unwrap_err();
    assert!(error.contains("dense"), "{error}");
    let error = run(dir, &["query", "cca", "p.m@*.dense", "-o", "x.gif"]).unwrap_err();
    assert!(error.contains(".png or .svg"), "{error}");
    let error = run(dir, &["query", "svcca", "p.m@epoch-1.maps", "p.m@epoch-1.maps", "--rows", "4"]).unwrap_err();
    assert!(error.contains("at least two"), "{error}");
}

fn write_png(path: &Path, width: u32, height: u32, pixels: &[u8]) {
    write_png_of(path, width, height, png::BitDepth::Eight, pixels);
}

fn write_png_of(path: &Path, width: u32, height: u32, depth: png::BitDepth, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

#[test]
fn masks_come_from_png_and_npy() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let on = |row: usize, i: usize| (row * 31 + i * 17).is_multiple_of(5);
    let mut all = Vec::new();
    for row in 0..50 {
        let pixels: Vec<u8> = (0..64).map(|i| u8::from(on(row, i)) * 255).collect();
        all.extend(pixels.iter().map(|p| f32::from(*p)));
        if pixels.contains(&255) {
            write_png(&dir.join(format!("masks/as_png/{row:04}.png")), 8, 8, &pixels);
            // Sixteen bits of which only the lowest is ever set.
            let deep: Vec<u8> = pixels.iter().flat_map(|p| [0, p & 1]).collect();
            write_png_of(&dir.join(format!("masks/deep/{row}.png")), 8, 8, png::BitDepth::Sixteen, &deep);
        }
    }
    mistique_datasets::write_npy(std::fs::File::create(dir.join("masks/as_npy.npy")).unwrap(), &[50, 8, 8], &all)
        .unwrap();
    let ask = ["query", "netdissect", "p.m@epoch-1.maps", "--masks", "masks", "--alpha", "0.1"];
    let found = json(dir, &[&ask[..], &["-o", "n.png"]].concat());
    for unit in found["units"].as_array().unwrap() {
        let iou = &unit["iou"];
        assert!(
            iou["as_png"].as_f64().unwrap() > 0.0 && iou["as_png"] == iou["as_npy"] && iou["deep"] == iou["as_npy"],
            "{found}"
        );
    }
    assert!(std::fs::read(dir.join("n.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(run(dir, &ask).unwrap().contains("50 rows, 3 concepts, alpha 0.1"));
    assert!(found["note"].is_null(), "{found}");
    write_png(&dir.join("masks/as_png/900.png"), 8, 8, &[255; 64]);
    let note = json(dir, &ask)["note"].to_string();
    assert!(note.contains("as_png has masks of 1 examples that are not there"), "{note}");
    assert!(json(dir, &[&ask[..], &["--rows", "0..50"]].concat())["note"].is_null());
    std::fs::remove_file(dir.join("masks/as_png/900.png")).unwrap();

    write_png(&dir.join("masks/as_png/7.png"), 4, 8, &[0; 32]);
    assert!(run(dir, &ask).unwrap_err().contains("second mask of row 7"));
    std::fs::remove_file(dir.join("masks/as_png/0007.png")).unwrap();
    let error = run(dir, &ask).unwrap_err();
    assert!(error.contains("8 × 4 pixels") && error.contains("8 × 8"), "{error}");
    write_png(&dir.join("masks/as_png/x.png"), 8, 8, &[0; 64]);
    assert!(run(dir, &ask).unwrap_err().contains("named after their row_id"));
    std::fs::create_dir(dir.join("few")).unwrap();
    mistique_datasets::write_npy(std::fs::File::create(dir.join("few/dot.npy")).unwrap(), &[50, 1, 1], &[1.0; 50])
        .unwrap();
    let note = json(dir, &["query", "netdissect", "p.m@epoch-1.maps", "--masks", "few"])["note"].to_string();
    assert!(note.contains("dot has masks of 1 × 1, smaller than the maps"), "{note}");
    std::fs::create_dir(dir.join("none")).unwrap();
    let error = run(dir, &["query", "netdissect", "p.m@epoch-1.maps", "--masks", "none"]).unwrap_err();
    assert!(error.contains("no masks; expected"), "{error}");
}
