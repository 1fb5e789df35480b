//! Fig. 5-7: two questions of each category, at the first, a middle and the last layer of a network, answered by READ and by
//! RERUN, from the request to the answer of the diagnostic, each in a new session.

mod common;

use std::time::Instant;

use common::{at_least, images, plain, scratch, trained, wanted};
use mistique::diagnostics::{
    By, Extreme, Labelled, MapsAs, Measure, Metric, Queries, class_metrics, confusion, corr, diff, dist, knn, mean,
    rowdiff, similarity, topk,
};
use mistique::operands::Wanted;
use mistique::{
    ChunkReader, Device, Input, LayerPattern, ModelKey, Network, NetworkRerun, PlanChoice, Request, RowSelection,
    RunOptions, Scheme, Store, Weights, log_intermediates,
};

const ROWS: u64 = 1000;
/// A question of which READ takes less is measured so often; the middle time counts.
const RUNS: usize = 5;

/// What the source's best question at the last layer was faster by.
const BEST_OF_SOURCE: f64 = 210.0;

struct Subject {
    network: &'static str,
    layers: [&'static str; 3],
}

const SUBJECTS: [Subject; 2] = [
    Subject { network: "cifar10_cnn", layers: ["conv1", "conv4", "logits"] },
    Subject { network: "vgg16", layers: ["block1_conv1", "block3_conv3", "logits"] },
];

/// What is asked of a layer: a name with its category, and the question.
type Question = (&'static str, fn(&Asked<'_>));

/// A layer of a model, the same layer of another one, and how they are to be answered.
struct Asked<'a> {
    reader: &'a ChunkReader<'a>,
    key: String,
    other: String,
    label: String,
    plan: PlanChoice,
}

impl Asked<'_> {
    fn request(&self, columns: &str) -> Request {
        self.of(&format!("{}{columns}", self.key))
    }

    /// The predictions of a last layer beside the labels.
    fn labelled(&self) -> Labelled<'_, '_> {
        let predicted = self.reader.operand(None, &self.key, Wanted::Number).unwrap();
        let predicted = predicted.argmax_of_many(self.reader).unwrap();
        let predicted = self.reader.operand_scan(&predicted, self.plan).unwrap();
        Labelled::open(self.reader, predicted, &self.label, PlanChoice::Auto).unwrap()
    }

    fn of(&self, key: &str) -> Request {
        Request::new(key.parse().unwrap()).with_plan(self.plan)
    }
}

const QUESTIONS: [Question; 8] = [
    ("FCFR POINTQ", |q| {
        let one = q.request(".u3").with_rows(RowSelection::Range(51..52));
        q.reader.get(&one).unwrap();
    }),
    ("FCFR TOPK", |q| {
        let by = (!q.key.ends_with("logits")).then_some(By::Max);
        topk(q.reader, &q.request(".u3"), 10, by, Extreme::Highest).unwrap();
    }),
    ("FCMR COL_DIST", |q| {
        dist(q.reader, &q.request(".u3"), None, 50, &[0.5]).unwrap();
    }),
    ("FCMR COL_DIFF", |q| {
        diff(q.reader, &q.request(".u3"), &q.of(&format!("{}.u3", q.other)), None).unwrap();
    }),
    ("MCFR ROW_DIFF", |q| {
        rowdiff(q.reader, &q.request(""), 51, 50).unwrap();
    }),
    ("MCFR KNN", |q| {
        knn(q.reader, &q.request(""), &Queries::Rows(vec![51]), 10, Metric::L2).unwrap();
    }),
    ("MCMR SVCCA", |q| {
        let (one, other) = (q.request(""), q.of(&q.other));
        similarity(q.reader, &one, &other, Measure::Svcca { threshold: 0.99 }, MapsAs::Mean).unwrap();
    }),
    ("MCMR VIS", |q| {
        let label = q.reader.operand(None, &q.label, Wanted::Number).unwrap();
        let label = q.reader.operand_scan(&label, PlanChoice::READ).unwrap();
        mean(q.reader, &q.request(""), &label).unwrap();
    }),
];

/// The other rows of Table 5.1, which ask of predictions, and of every column what it has to do with one value a row.
const OF_PREDICTIONS: [Question; 3] = [
    ("FCMR confusion, predicted 6 and was 8", |q| {
        let mut both = q.labelled();
        confusion(&mut both, Some("6"), Some("8")).unwrap();
    }),
    ("FCFR, FCMR accuracy, curves, calibration", |q| {
        let mut both = q.labelled();
        class_metrics(q.reader, &q.request(""), &mut both, None, 10).unwrap();
    }),
    ("MCMR correlation of all columns with a value", |q| {
        let label = q.reader.operand(None, &q.label, Wanted::Number).unwrap();
        let label = q.reader.operand_scan(&label, PlanChoice::READ).unwrap();
        corr(q.reader, &q.request(""), &label, None).unwrap();
    }),
];

fn main() {
    for subject in &SUBJECTS {
        if wanted(&format!("fig 5-7 {}", subject.network)) {
            figure(subject);
        }
    }
}

fn figure(subject: &Subject) {
    let network = Network::builtin(subject.network).unwrap();
    let spec = images(ROWS as usize);
    let dataset = mistique::datasets::open(&spec).unwrap();
    let dir = scratch();
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let first = match subject.network {
        "cifar10_cnn" => trained(&network, &spec),
        _ => Weights::init(&network, 1),
    };
    for (version, weights) in [("a", first), ("b", Weights::init(&network, 2))] {
        let input = Input { name: "images".into(), spec: &spec, dataset: &*dataset };
        let options = RunOptions {
            layers: LayerPattern::new(&subject.layers.join(",")).unwrap(),
            scheme: Some("f16".parse::<Scheme>().unwrap()),
            rows: Some(0..ROWS),
            ..RunOptions::new().unwrap()
        };
        let key = ModelKey::new("bench", subject.network).at(version);
        log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
    }
    println!(
        "\nFig. 5-7, {}, {ROWS} images of {}, f16: ms of READ | of RERUN, how many times",
        subject.network,
        spec.name()
    );
    println!("  {:14}{}", "", subject.layers.map(|l| format!("{l:>36}")).concat());
    // Seconds of READ and of RERUN.
    let times = |ask: fn(&Asked<'_>), layer: &str| {
        let key = |version: &str| format!("bench.{}@{version}.{layer}", subject.network);
        let seconds = |plan: PlanChoice| {
            store.clear_pool();
            let reader = ChunkReader::new(&store).with_workflow(Box::new(NetworkRerun::new(&store, Device::Cpu)));
            let label = format!("bench.{}@a.label.index", subject.network);
            let asked = Asked { reader: &reader, key: key("a"), other: key("b"), label, plan };
            let begun = Instant::now();
            ask(&asked);
            begun.elapsed().as_secs_f64()
        };
        let mut reads: Vec<f64> = (0..RUNS).map(|_| seconds(PlanChoice::READ)).collect();
        reads.sort_by(f64::total_cmp);
        (reads[RUNS / 2], seconds(PlanChoice::RERUN))
    };
    let mut of_last = Vec::new();
    for (name, ask) in QUESTIONS {
        let mut row = format!("  {name:14}");
        for layer in subject.layers {
            let (read, rerun) = times(ask, layer);
            let cell = format!("{:.2} | {:.0} {:>7.0}×", read * 1e3, rerun * 1e3, rerun / read);
            row += &format!("{cell:>36}");
            if layer == subject.layers[2] {
                of_last.push(rerun / read);
            }
        }
        println!("{row}");
    }
    of_last.sort_by(f64::total_cmp);
    at_least("  last layer, READ faster than RERUN, least", of_last[0], "×", BEST_OF_SOURCE);
    plain("  the same, most", of_last[of_last.len() - 1], "×");
    for (name, ask) in OF_PREDICTIONS {
        let (read, rerun) = times(ask, subject.layers[2]);
        plain(&format!("  {name}: {:.2} | {:.0} ms", read * 1e3, rerun * 1e3), rerun / read, "×");
    }
}
