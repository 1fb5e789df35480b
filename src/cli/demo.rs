//! `mistique demo`: a network trained on real digits, every layer of every epoch logged, five questions answered.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::Value;

use super::get::{explanation_text, measure_all, reader};
use super::output::{Rows, bytes, count, float, seconds, times};
use super::{CliError, Result, print};
use crate::diagnostics::{Extreme, Metric, difference, histogram, nearest_rows, top_k};
use crate::{
    Answer, ChunkReader, Dedup, Device, Effort, Input, Key, LogOptions, ModelKey, Network, PlanChoice, Predicate,
    Request, RowSelection, RunOptions, Scheme, Spec, Store, Trainer, Weights, log_intermediates,
};

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Epochs to train.
    #[arg(long, default_value_t = 5)]
    epochs: u32,
    /// Where to leave the store (default: that of --store or MISTIQUE_STORE, else ./demo.mq; made anew).
    #[arg(long, value_name = "PATH")]
    into: Option<PathBuf>,
}

const SCHEMES: [&str; 6] = ["f32", "f16", "kbit(8)", "lloyd(8)", "pool(2)+f16", "threshold(0.995)"];

/// The labels.
fn truth() -> ModelKey {
    ModelKey::new("digits", "truth")
}

/// Whether a model is one that the demo makes, and may make anew.
fn is_own(key: &ModelKey) -> bool {
    let is_epoch = (key.project.as_str(), key.model.as_str()) == ("digits", "cnn") && key.version.starts_with("epoch-");
    is_epoch || *key == truth() || *key == compared() || SCHEMES.iter().any(|s| *key == ModelKey::new("schemes", *s))
}

/// The model whose plans are compared.
fn compared() -> ModelKey {
    ModelKey::new("plans", "cnn")
}

pub fn run(args: &DemoArgs, store: &Path) -> Result<()> {
    // --store names it as for any other command; where nothing was named, a demo is not the store of one's own.
    let named = (store != Path::new(super::DEFAULT_STORE)).then(|| store.to_path_buf());
    let path = args.into.clone().or(named).unwrap_or_else(|| PathBuf::from("demo.mq"));
    if path.exists() {
        if !path.join("catalog.db").is_file() {
            return Err(CliError::Content { path, why: "it is not a store; name another place with --into".into() });
        }
        let models = Store::open(&path)?.models()?;
        if let Some(model) = models.iter().find(|m| !is_own(&m.spec.key)) {
            let why =
                format!("the store holds {}, which is not the demo's; name another place with --into", model.spec.key);
            return Err(CliError::Content { path, why });
        }
        // In a demo's own place, one that was interrupted is made anew; elsewhere, it must have been finished.
        let is_elsewhere = path != Path::new("demo.mq") && !models.is_empty();
        if is_elsewhere && !models.iter().any(|m| m.spec.key == truth()) {
            let why = format!("the store lacks {}, as no demo's does; name another place with --into", truth());
            return Err(CliError::Content { path, why });
        }
        std::fs::remove_dir_all(&path).map_err(super::file_error(&path))?;
    }
    let spec: Spec = "digits".parse()?;
    let dataset = crate::datasets::open(&spec)?;
    let network = Network::builtin("digits_cnn")?;
    let labels = dataset.labels().unwrap_or_default().to_vec();
    let mut images = Vec::new();
    dataset.read_rows(&(0..dataset.n_rows() as u64).collect::<Vec<_>>(), &mut images)?;
    print(&format!(
        "Dataset: UCI optical digits, {} images of 8×8. Network: digits_cnn, {} parameters, {} layers.\n\n",
        count(dataset.n_rows() as u64),
        count(network.n_params() as u64),
        network.layers().len()
    ))?;

    let store = Store::open_or_create(&path)?;
    train_and_log(&store, &network, &spec, &*dataset, &images, &labels, args.epochs)?;
    label_table(&store, &labels)?;
    compare_schemes(&store, &network, &spec, &*dataset, args.epochs)?;
    questions(&store, args.epochs)?;
    plans(&store, &network, &spec, &*dataset, args.epochs)?;
    let (path, last) = (path.display(), version(args.epochs));
    print(&format!(
        "\nThe store is left in {path}. Try next:\n\n\
         \x20 mistique --store {path} get {last}.logits --where 'logits.argmax = 3'\n\
         \x20 mistique --store {path} explain {last}.conv1\n\
         \x20 mistique --store {path} ls\n"
    ))
}

fn version(epoch: u32) -> ModelKey {
    ModelKey::new("digits", "cnn").at(format!("epoch-{epoch}"))
}

/// Trains, and logs all layers of all rows after every epoch at full precision.
fn train_and_log(
    store: &Store,
    network: &Network,
    spec: &Spec,
    dataset: &dyn crate::Dataset,
    images: &[f32],
    labels: &[u32],
    epochs: u32,
) -> Result<()> {
    let mut trainer = Trainer::new(network, &Weights::init(network, 1), 1e-3, 1)?;
    let mut rows =
        Rows::new(&["epoch", ">loss", ">accuracy", ">trained in", ">logged in", ">values logged", ">written"]);
    for epoch in 1..=epochs {
        let begun = Instant::now();
        let mut correct = 0;
        let loss = trainer.train_epoch(images, labels, 64, |batch| correct += batch.n_correct)?;
        let trained = begun.elapsed().as_secs_f64();
        let input = Input { name: "digits".into(), spec, dataset };
        let options = RunOptions { scheme: Some(scheme("f32")?), ..RunOptions::new()? };
        let report =
            log_intermediates(store, &version(epoch), network, &trainer.weights()?, &input, &options, &mut |_| {})?;
        rows.push(
            vec![
                epoch.to_string(),
                format!("{loss:.3}"),
                format!("{:.1} %", 100.0 * correct as f64 / labels.len() as f64),
                seconds(trained),
                seconds(report.seconds),
                bytes(report.log.logical_bytes),
                bytes(report.log.written_bytes),
            ],
            Value::Null,
        );
    }
    print(&format!(
        "Training, and logging every layer of every image after every epoch at full precision:\n\n{}\n",
        rows.table()
    ))
}

/// The labels, as a table of the same row_ids.
fn label_table(store: &Store, labels: &[u32]) -> Result<()> {
    let column: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::UInt32Array::from(labels.to_vec()));
    let batch = arrow::array::RecordBatch::try_from_iter([("label", column)]).map_err(crate::EngineError::from)?;
    let mut log = store.logger(LogOptions::default())?;
    let model = log.model(&crate::ModelSpec::raw(truth()), crate::IfExists::Continue)?;
    let table = log.table(model, "digits", 0, &batch.schema())?;
    log.append_table(table, &(0..labels.len() as u64).collect::<Vec<_>>(), &batch)?;
    log.complete(model)?;
    log.commit()?;
    Ok(())
}

fn scheme(text: &str) -> Result<Scheme> {
    text.parse().map_err(|e| CliError::Usage(format!("{text}: {e}")))
}

/// The last epoch under each scheme, beside what its values take plainly.
fn compare_schemes(
    store: &Store,
    network: &Network,
    spec: &Spec,
    dataset: &dyn crate::Dataset,
    epochs: u32,
) -> Result<()> {
    let weights = last_weights(store, epochs)?;
    let mut rows = Rows::new(&["scheme", ">values", ">stored", ">smaller", ">error"]);
    for text in SCHEMES {
        let key = ModelKey::new("schemes", text);
        let input = Input { name: "digits".into(), spec, dataset };
        let log = LogOptions::default().with_effort(Effort::Small).with_dedup(Dedup::Off);
        let options = RunOptions { scheme: Some(scheme(text)?), log, ..RunOptions::new()? };
        let report = log_intermediates(store, &key, network, &weights, &input, &options, &mut |_| {})?.log;
        let mut error = crate::UnitError::default();
        for record in store.intermediates(&store.model(&key)?)? {
            if let Some(errors) = store.catalog().errors(record.id)? {
                errors.units.iter().for_each(|u| error.merge(u));
            }
        }
        rows.push(
            vec![
                text.into(),
                bytes(report.logical_bytes),
                bytes(report.written_bytes),
                times(report.logical_bytes as f64, report.written_bytes as f64),
                if error.n == 0 { "exact".into() } else { format!("{:.2} %", 100.0 * error.relative()) },
            ],
            Value::Null,
        );
    }
    print(&format!(
        "All layers of the last epoch, {} images, by scheme:\n\n{}\n",
        count(dataset.n_rows() as u64),
        rows.table()
    ))
}

/// The last epoch's weights.
fn last_weights(store: &Store, epochs: u32) -> Result<Weights> {
    let weights = store.model(&version(epochs))?.spec.weights;
    let weights = weights.ok_or_else(|| CliError::Usage("the demo's model has lost its weights".into()))?;
    Ok(Weights::load_safetensors(&store.operator(&weights)?)?)
}

/// A model of which one layer is stored and the others only named, and three requests: what is stored is read, what
/// lies behind a stored layer is run from there, what lies before is run from the images. Every possible plan runs.
fn plans(store: &Store, network: &Network, spec: &Spec, dataset: &dyn crate::Dataset, epochs: u32) -> Result<()> {
    let key = compared();
    let input = Input { name: "digits".into(), spec, dataset };
    let layers = crate::LayerPattern::new("flatten")?;
    let options = RunOptions { layers, scheme: Some(scheme("f32")?), ..RunOptions::new()? };
    log_intermediates(store, &key, network, &last_weights(store, epochs)?, &input, &options, &mut |_| {})?;
    let mut log = store.logger(LogOptions::default())?;
    let model = log.model(&store.model(&key)?.spec, crate::IfExists::Continue)?;
    for (position, layer) in network.layers().iter().enumerate() {
        let tensor = crate::TensorSpec::new(layer.name(), layer.shape()).at(position as i64);
        log.tensor(model, &tensor.with_scheme(scheme("f32")?))?;
    }
    log.complete(model)?;
    log.commit()?;
    drop(log);
    let last = version(epochs);
    let requests = [
        ("Stored: the dense layer of the last epoch.", request(&format!("{last}.dense1"), RowSelection::All)?),
        (
            "Not stored, but the layer before it is: the same of a model that keeps only flatten.",
            request("plans.cnn.dense1", RowSelection::All)?,
        ),
        (
            "Not stored, and nothing before it is: its second convolution of one image.",
            request("plans.cnn.conv2", RowSelection::List(vec![51]))?,
        ),
    ];
    let models = [store.model(&last)?, store.model(&key)?];
    let measured =
        reader(store, Device::Cpu).calibrate(&models, std::time::Duration::from_secs(3), &mut |_, _, _| {})?;
    print(&format!(
        "\nWhich way is faster? Predicted from {} measurements ({} of them by `mistique calibrate`, in {}), then every way \
         run, each in a session of its own, the shortest of three:\n",
        count(measured.figures.iter().map(|f| f.cost.n).sum()),
        count(measured.made),
        seconds(measured.took.as_secs_f64())
    ))?;
    for (what, request) in requests {
        store.clear_pool();
        let requests = [request];
        let mut explained = reader(store, Device::Cpu).explain_intermediates(&requests)?;
        measure_all(store, Device::Cpu, &requests, &mut explained)?;
        let text: String = explained.iter().map(explanation_text).collect();
        let indented: String = text.lines().map(|l| format!("   {l}\n")).collect();
        print(&format!("\n{what}\n{indented}"))?;
    }
    Ok(())
}

/// A question: what is asked, its category (Table 5.1), and how it is answered from values.
struct Question {
    what: String,
    category: &'static str,
    requests: Vec<Request>,
    answer: fn(&[Answer]) -> Result<String>,
}

fn request(key: &str, rows: RowSelection) -> Result<Request> {
    Ok(Request::new(key.parse::<Key>()?).with_rows(rows))
}

fn questions(store: &Store, epochs: u32) -> Result<()> {
    let last = version(epochs);
    let first = version(1);
    let all = || RowSelection::All;
    let threes = RowSelection::Where(Predicate::parse("logits.argmax = 3")?);
    let questions = [
        Question {
            what: "What did unit 5 of conv2 see in image 51?".into(),
            category: "POINTQ, few columns, few rows",
            requests: vec![request(&format!("{last}.conv2.u5"), RowSelection::List(vec![51]))?],
            answer: |a| {
                let (shape, values) = (a[0].shape.clone(), a[0].to_f64()?);
                Ok(format!("a {}×{} map, mean {}", shape[1], shape[2], float(mean(&values))))
            },
        },
        Question {
            what: "Which images excite unit 12 of the dense layer most?".into(),
            category: "TOPK, few columns, few rows",
            requests: vec![request(&format!("{last}.dense1.u12"), all())?],
            answer: |a| {
                let top = top_k(&a[0].rows, &f32s(&a[0])?, 5, Extreme::Highest);
                Ok(top.iter().map(|(row, v)| format!("{row} ({v:.2})")).collect::<Vec<_>>().join(", "))
            },
        },
        Question {
            what: "How is the score of class 3 spread over the images taken for a 3?".into(),
            category: "COL_DIST, few columns, many rows",
            requests: vec![request(&format!("{last}.logits.u3"), threes)?],
            answer: |a| {
                let h = histogram(&f32s(&a[0])?, 8);
                Ok(format!("{:.1} to {:.1}: {:?}", h.min, h.max, h.counts))
            },
        },
        Question {
            what: "Which images look most like image 51 to the dense layer?".into(),
            category: "KNN, many columns, few rows",
            requests: vec![request(&format!("{last}.dense1"), all())?],
            answer: |a| {
                let (values, width) = (f32s(&a[0])?, a[0].columns.len());
                let at = a[0].rows.iter().position(|r| *r == 51).unwrap_or_default();
                let near = nearest_rows(&a[0].rows, &values, &values[at * width..(at + 1) * width], 6, Metric::L2)?;
                Ok(near.iter().skip(1).map(|(row, d)| format!("{row} ({d:.2})")).collect::<Vec<_>>().join(", "))
            },
        },
        Question {
            what: format!("Which predictions changed between epoch 1 and epoch {epochs}?"),
            category: "COL_DIFF, few columns, many rows",
            requests: vec![request(&format!("{first}.logits"), all())?, request(&format!("{last}.logits"), all())?],
            answer: |a| {
                let d = difference(&a[0].rows, &f32s(&a[0])?, &f32s(&a[1])?)?;
                let some: Vec<String> =
                    d.changed_argmax.iter().take(3).map(|(row, a, b)| format!("{row}: {a}→{b}")).collect();
                Ok(format!("{} of {}, such as {}", d.changed_argmax.len(), a[0].rows.len(), some.join(", ")))
            },
        },
    ];
    print("Questions, answered from the store (READ) and by running the network again (RERUN):\n\n")?;
    for q in questions {
        let (text, read) = ask(store, &q, PlanChoice::READ)?;
        let (again, rerun) = ask(store, &q, PlanChoice::RERUN)?;
        let same = if text == again { String::new() } else { format!("\n   RERUN says {again}") };
        print(&format!(
            "{} [{}]\n   {text}{same}\n   READ {}, RERUN {}: READ is {} faster\n",
            q.what,
            q.category,
            seconds(read),
            seconds(rerun),
            times(rerun, read)
        ))?;
    }
    Ok(())
}

/// Asks once, as a new session would: nothing is held in memory yet.
fn ask(store: &Store, question: &Question, plan: PlanChoice) -> Result<(String, f64)> {
    store.clear_pool();
    let reader: ChunkReader<'_> = reader(store, Device::Cpu);
    let requests: Vec<Request> = question.requests.iter().map(|r| r.clone().with_plan(plan)).collect();
    let begun = Instant::now();
    let answers = reader.get_intermediates(&requests)?;
    let text = (question.answer)(&answers)?;
    Ok((text, begun.elapsed().as_secs_f64()))
}

fn f32s(answer: &Answer) -> Result<Vec<f32>> {
    Ok(answer.clone().into_f32()?)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
