//! What reduced values do to answers: Tables 5.5 and 5.6 of the source on a trained vgg16, layer by layer as there, and on
//! a trained cifar10_cnn; Fig. 5-11 on the latter.

mod common;

use std::path::Path;

use common::{at_least, at_most, images, plain, scratch, trained, wanted};
use mistique::diagnostics::{MapsAs, Measure, Metric, nearest_rows, similarity};
use mistique::{
    ChunkReader, Device, Executor, HeatMap, IfExists, LayerPattern, LogOptions, ModelKey, ModelSpec, Network, Picture,
    Request, Store, TensorSpec,
};

/// A network, and the layers that are compared.
struct Subject {
    network: &'static str,
    /// Of SVCCA with the logits: the layer, and its number in the source.
    svcca: &'static [(&'static str, &'static str)],
    /// Of kNN: the layer, and the overlap that is wanted where the source has one.
    knn: &'static [(&'static str, Option<f64>)],
}

const VGG16: Subject = Subject {
    network: "vgg16",
    svcca: &[
        ("block2_pool", "layer 6"),
        ("block4_conv1", "layer 11"),
        ("block5_conv2", "layer 16"),
        ("flatten", "layer 19"),
    ],
    knn: &[("block4_conv1", Some(0.97)), ("block5_conv2", Some(0.98)), ("flatten", Some(0.995))],
};
const CIFAR10_CNN: Subject = Subject {
    network: "cifar10_cnn",
    svcca: &[("conv1", ""), ("conv3", ""), ("conv4", ""), ("dense1", "")],
    knn: &[("conv4", None), ("dense1", None), ("logits", None)],
};
const SCHEMES: [&str; 9] = [
    "f32",
    "kbit(8)",
    "kbit(8,unit)",
    "lloyd(8)",
    "lloyd(8,unit)",
    "pool(2)+f16",
    "f16",
    "kbit(3)",
    "threshold(0.995)",
];
const IMAGES: usize = 4000;
/// Columns of cells that SVCCA compares: more take minutes.
const COLUMNS: usize = 768;
const K: usize = 50;
const QUERIES: usize = 50;

fn main() {
    for subject in [VGG16, CIFAR10_CNN] {
        if ["svcca", "knn", "vis"].iter().any(|part| asked(&subject, part)) {
            tables(&subject);
        }
    }
}

/// Whether that part of a network's tables was asked for.
fn asked(subject: &Subject, part: &str) -> bool {
    wanted(&format!("{} {part}", subject.network)) && (part != "vis" || subject.network == "cifar10_cnn")
}

fn tables(subject: &Subject) {
    let network = Network::builtin(subject.network).unwrap();
    let spec = images(IMAGES);
    let weights = trained(&network, &spec);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let n = dataset.n_rows().min(IMAGES);
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let index = |name: &str| LayerPattern::new(name).unwrap().select(&network).unwrap()[0];
    let mut layers = vec!["logits"];
    for layer in subject.svcca.iter().map(|(l, _)| l).chain(subject.knn.iter().map(|(l, _)| l)) {
        if !layers.contains(layer) {
            layers.push(layer);
        }
    }
    let mut log = store.logger(LogOptions::default()).unwrap();
    let mut handles = Vec::new();
    for scheme in SCHEMES {
        let model = log.model(&ModelSpec::raw(ModelKey::new("b", scheme)), IfExists::Continue).unwrap();
        for name in &layers {
            let layer = index(name);
            let shape = network.layers()[layer].shape();
            let spec = TensorSpec::new(*name, shape).with_scheme(scheme.parse().unwrap());
            handles.push((layer, log.tensor(model, &spec).unwrap()));
        }
    }
    let logits_layer = index("logits");
    let labels = dataset.labels().unwrap();
    let mut n_right = 0;
    let mut batch = Vec::new();
    let wanted_layers: Vec<usize> = layers.iter().map(|l| index(l)).collect();
    for start in (0..n as u64).step_by(250) {
        let rows: Vec<u64> = (start..(start + 250).min(n as u64)).collect();
        dataset.read_rows(&rows, &mut batch).unwrap();
        executor
            .forward(&executor.batch(&batch).unwrap(), &wanted_layers, &mut |layer, t| {
                let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                if layer == logits_layer {
                    let classes = values.len() / rows.len();
                    let predicted = |v: &[f32]| v.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
                    let pairs = values.chunks(classes).zip(&labels[start as usize..]);
                    n_right += pairs.filter(|(v, label)| predicted(v) == **label as usize).count();
                }
                for (_, handle) in handles.iter().filter(|(l, _)| *l == layer) {
                    log.append(*handle, &rows, values.clone()).unwrap();
                }
                Ok(())
            })
            .unwrap();
    }
    log.commit().unwrap();
    drop(log);
    println!("\n{}, trained: {:.0}% right of {n} images of {spec}", subject.network, 100.0 * n_right as f64 / n as f64);
    let reader = ChunkReader::new(&store);
    if asked(subject, "svcca") {
        table_5_5(subject, &network, &reader);
    }
    if asked(subject, "knn") {
        table_5_6(subject, n, &reader);
    }
    if asked(subject, "vis") {
        figure_5_11(&labels[..n], &reader);
    }
}

fn key(scheme: &str, rest: &str) -> Request {
    Request::new(format!("b.\"{scheme}\".{rest}").parse().unwrap())
}

fn table_5_5(subject: &Subject, network: &Network, reader: &ChunkReader<'_>) {
    println!("\nTable 5.5: mean CCA coefficient with the logits (source: 8BIT_QT within 0.0021, pool(2) within 0.28)");
    let logits = key("f32", "logits");
    for (layer, in_source) in subject.svcca {
        let shape = network.layers().iter().find(|l| l.name() == *layer).unwrap().shape();
        let cells: usize = shape[1..].iter().product();
        let units = (COLUMNS / cells).clamp(1, shape[0]);
        for (maps, columns) in [(MapsAs::Columns, format!("{layer}.u0..{units}")), (MapsAs::Mean, layer.to_string())] {
            if maps == MapsAs::Mean && cells == 1 {
                continue;
            }
            let value = |scheme: &str| {
                let measure = Measure::Svcca { threshold: 0.99 };
                similarity(reader, &key(scheme, &columns), &logits, measure, maps).unwrap().value
            };
            let full = value("f32");
            println!("  {columns} {in_source}, {}: full precision {full:.4}", maps.describe());
            let bits = value("kbit(8)");
            let (text, off) = (format!("    8BIT_QT {bits:.4}, off by"), (bits - full).abs());
            // The source compares cells; means of maps are ours.
            if maps == MapsAs::Columns {
                at_most(&text, off, "", 0.002)
            } else {
                plain(&text, off, "")
            }
            let lloyd = value("lloyd(8)");
            plain(&format!("    lloyd(8) {lloyd:.4}, off by"), (lloyd - full).abs(), "");
            let pooled = value("pool(2)+f16");
            plain(&format!("    pool(2) {pooled:.4}, off by"), (pooled - full).abs(), "");
        }
    }
}

fn table_5_6(subject: &Subject, n: usize, reader: &ChunkReader<'_>) {
    println!("\nTable 5.6: overlap of the {K} nearest rows with those of full precision, mean of {QUERIES} rows");
    if subject.knn.iter().any(|(_, target)| target.is_some()) {
        println!("  (source: 8BIT_QT 0.94, 0.96, 1.0; pool(2) 0.74, 0.84, 1.0; 0.995 is its 1.0)");
    }
    for (layer, target) in subject.knn {
        let rows: Vec<u64> = (0..n as u64).collect();
        let values = |scheme: &str| reader.get(&key(scheme, layer)).unwrap().into_f32().unwrap();
        let nearest = |values: &[f32]| -> Vec<Vec<u64>> {
            let width = values.len() / n;
            let query = |q: usize| &values[q * width..(q + 1) * width];
            let rows_of = |q| nearest_rows(&rows, values, query(q), K + 1, Metric::L2).unwrap();
            let others = |q: usize| rows_of(q).into_iter().map(|(r, _)| r).filter(|r| *r != q as u64).take(K).collect();
            (0..QUERIES).map(|i| others(i * n / QUERIES)).collect()
        };
        let full = nearest(&values("f32"));
        let overlap = |scheme: &str| {
            let found = nearest(&values(scheme));
            let shared: usize = full.iter().zip(&found).map(|(a, b)| a.iter().filter(|r| b.contains(r)).count()).sum();
            shared as f64 / (K * QUERIES) as f64
        };
        for scheme in ["kbit(8)", "kbit(8,unit)", "lloyd(8)", "lloyd(8,unit)"] {
            let text = format!("  {layer}: {scheme}");
            match target {
                Some(target) => at_least(&text, overlap(scheme), "", *target),
                None => plain(&text, overlap(scheme), ""),
            }
        }
        plain(&format!("  {layer}: f16"), overlap("f16"), "");
        plain(&format!("  {layer}: pool(2)"), overlap("pool(2)+f16"), "");
    }
}

fn figure_5_11(labels: &[u32], reader: &ChunkReader<'_>) {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fig-5-11");
    std::fs::create_dir_all(&out).unwrap();
    println!("\nFig. 5-11: mean activations of conv4 by class, in {}; against full precision:", out.display());
    let n_classes = labels.iter().max().map_or(0, |l| *l as usize + 1);
    let means = |scheme: &str| -> Vec<f64> {
        let answer = reader.get(&key(scheme, "conv4")).unwrap();
        let (units, cells) = (answer.shape[0], answer.shape[1..].iter().product::<usize>());
        let values = answer.into_f32().unwrap();
        let (mut sums, mut counts) = (vec![0.0; n_classes * units], vec![0.0f64; n_classes]);
        for (row, label) in values.chunks_exact(units * cells).zip(labels) {
            counts[*label as usize] += 1.0;
            for (u, map) in row.chunks_exact(cells).enumerate() {
                sums[*label as usize * units + u] += map.iter().map(|v| f64::from(*v)).sum::<f64>() / cells as f64;
            }
        }
        sums.iter().enumerate().map(|(i, s)| s / counts[i / units].max(1.0)).collect()
    };
    let full = means("f32");
    for scheme in SCHEMES {
        let values = means(scheme);
        // As a viewer sees it: the place in the colour bar.
        let scaled = |v: &[f64]| -> Vec<f64> {
            let high = v.iter().copied().fold(f64::MIN, f64::max);
            let low = v.iter().copied().fold(f64::MAX, f64::min);
            v.iter().map(|v| (v - low) / (high - low)).collect()
        };
        let off = scaled(&values).iter().zip(scaled(&full)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        plain(&format!("  {scheme}: largest difference in the colour bar"), off, "");
        let units = values.len() / n_classes;
        let name = |what: &str, n: usize| (0..n).map(|i| format!("{what}{i}")).collect();
        let map = HeatMap::new(name("class ", n_classes), name("u", units), values)
            .unwrap()
            .with_title(format!("conv4, mean activation, {scheme}"));
        let file = scheme.replace(['(', ')', '+'], "_");
        std::fs::write(out.join(format!("{file}.png")), map.render(Picture::Png).unwrap()).unwrap();
    }
}
