//! What reduced values do to answers: Tables 5.5 and 5.6 and Fig. 5-11 of the source, on a trained cifar10_cnn.

mod common;

use std::path::Path;

use common::{at_least, at_most, images, plain, scratch, trained, wanted};
use mistique::diagnostics::{MapsAs, Measure, Metric, nearest_rows, similarity};
use mistique::{
    ChunkReader, Device, Executor, HeatMap, IfExists, LayerPattern, LogOptions, ModelKey, ModelSpec, Network, Picture,
    Request, Store, TensorSpec,
};

const LAYERS: [&str; 5] = ["conv1", "conv3", "conv4", "dense1", "logits"];
const SCHEMES: [&str; 7] = ["f32", "kbit(8)", "lloyd(8)", "pool(2)+f16", "f16", "kbit(3)", "threshold(0.995)"];
/// Columns of cells that SVCCA compares: more take minutes.
const COLUMNS: usize = 768;
const K: usize = 50;
const QUERIES: usize = 50;

fn main() {
    let network = Network::builtin("cifar10_cnn").unwrap();
    let spec = images(4000);
    let weights = trained(&network, &spec);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let n = dataset.n_rows().min(4000);
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let executor = Executor::new(&network, &weights, Device::Cpu).unwrap();
    let layers: Vec<usize> =
        LAYERS.iter().flat_map(|l| LayerPattern::new(l).unwrap().select(&network).unwrap()).collect();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let mut handles = Vec::new();
    for scheme in SCHEMES {
        let model = log.model(&ModelSpec::raw(ModelKey::new("b", scheme)), IfExists::Continue).unwrap();
        for (name, layer) in LAYERS.iter().zip(&layers) {
            let shape = network.layers()[*layer].shape();
            let spec = TensorSpec::new(*name, shape).with_scheme(scheme.parse().unwrap());
            handles.push((*layer, log.tensor(model, &spec).unwrap()));
        }
    }
    let mut batch = Vec::new();
    for start in (0..n as u64).step_by(250) {
        let rows: Vec<u64> = (start..(start + 250).min(n as u64)).collect();
        dataset.read_rows(&rows, &mut batch).unwrap();
        executor
            .forward(&executor.batch(&batch).unwrap(), &layers, &mut |layer, t| {
                let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (_, handle) in handles.iter().filter(|(l, _)| *l == layer) {
                    log.append(*handle, &rows, values.clone()).unwrap();
                }
                Ok(())
            })
            .unwrap();
    }
    log.commit().unwrap();
    drop(log);
    println!("\ncifar10_cnn after two epochs, {n} images of {spec}");
    let reader = ChunkReader::new(&store);
    let key = |scheme: &str, rest: &str| Request::new(format!("b.\"{scheme}\".{rest}").parse().unwrap());

    if wanted("svcca") {
        println!(
            "\nTable 5.5: mean CCA coefficient with the logits (source: 8BIT_QT within 0.0021, pool(2) within 0.28)"
        );
        let logits = key("f32", "logits");
        for (layer, &index) in LAYERS.iter().zip(&layers).take(4) {
            let shape = network.layers()[index].shape();
            let cells: usize = shape[1..].iter().product();
            let units = (COLUMNS / cells).clamp(1, shape[0]);
            for (maps, columns) in
                [(MapsAs::Columns, format!("{layer}.u0..{units}")), (MapsAs::Mean, layer.to_string())]
            {
                if maps == MapsAs::Mean && cells == 1 {
                    continue;
                }
                let value = |scheme: &str| {
                    let measure = Measure::Svcca { threshold: 0.99 };
                    similarity(&reader, &key(scheme, &columns), &logits, measure, maps).unwrap().value
                };
                let full = value("f32");
                println!("  {columns}, {}: full precision {full:.4}", maps.describe());
                let bits = value("kbit(8)");
                at_most(&format!("    8BIT_QT {bits:.4}, off by"), (bits - full).abs(), "", 0.002);
                let lloyd = value("lloyd(8)");
                plain(&format!("    lloyd(8) {lloyd:.4}, off by"), (lloyd - full).abs(), "");
                let pooled = value("pool(2)+f16");
                plain(&format!("    pool(2) {pooled:.4}, off by"), (pooled - full).abs(), "");
            }
        }
    }
    if wanted("knn") {
        println!("\nTable 5.6: overlap of the {K} nearest rows with those of full precision, mean of {QUERIES} rows");
        for (layer, target) in [("conv4", 0.97), ("dense1", 0.98), ("logits", 1.0)] {
            let rows: Vec<u64> = (0..n as u64).collect();
            let values = |scheme: &str| reader.get(&key(scheme, layer)).unwrap().into_f32().unwrap();
            let nearest = |values: &[f32]| -> Vec<Vec<u64>> {
                let width = values.len() / n;
                let query = |q: usize| &values[q * width..(q + 1) * width];
                let rows_of = |q| nearest_rows(&rows, values, query(q), K + 1, Metric::L2).unwrap();
                let others =
                    |q: usize| rows_of(q).into_iter().map(|(r, _)| r).filter(|r| *r != q as u64).take(K).collect();
                (0..QUERIES).map(|i| others(i * n / QUERIES)).collect()
            };
            let full = nearest(&values("f32"));
            let overlap = |scheme: &str| {
                let found = nearest(&values(scheme));
                let shared: usize =
                    full.iter().zip(&found).map(|(a, b)| a.iter().filter(|r| b.contains(r)).count()).sum();
                shared as f64 / (K * QUERIES) as f64
            };
            at_least(&format!("  {layer}: 8BIT_QT"), overlap("kbit(8)"), "", target);
            plain(&format!("  {layer}: lloyd(8)"), overlap("lloyd(8)"), "");
            plain(&format!("  {layer}: pool(2)"), overlap("pool(2)+f16"), "");
        }
    }
    if wanted("vis") {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fig-5-11");
        std::fs::create_dir_all(&out).unwrap();
        println!("\nFig. 5-11: mean activations of conv4 by class, in {}; against full precision:", out.display());
        let labels = dataset.labels().unwrap();
        let n_classes = labels[..n].iter().max().map_or(0, |l| *l as usize + 1);
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
}
