//! The ten Zillow templates, five settings each: what fifty pipelines take when every stage is stored plainly, with exact
//! and with approximate de-duplication; what logging costs; what READ gains over RERUN.
//!
//! `cargo bench --bench pipelines -- --quick` tries it with 5,000 properties; `rows=N` takes any number. `single` alone
//! compares single templates with their logs, `templates=4,9` some of them, `times=N` as often.

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{at_least, at_most, cache, median, plain, scratch, wanted};
use mistique::datasets::{TableFile, open_tables};
use mistique::pipeline::{
    Data, Fate, PipelineOptions, PipelineRerun, Plan, Table, Template, log_pipelines, plan_template,
};
use mistique::{ChunkReader, Dedup, LogOptions, LogReport, PlanChoice, Request, RowSelection, Store, diagnostics};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let asked = args.iter().find_map(|a| a.strip_prefix("rows=")).map(|n| n.parse().unwrap());
    let rows = asked.unwrap_or(if args.iter().any(|a| a == "--quick") { 5_000 } else { 100_000 });
    let dir = files(rows);
    println!("Fifty pipelines over the Zillow competition's files, generated, {rows} properties, read from CSV");
    if wanted("space") {
        space(&dir);
    }
    if wanted("single") {
        single(&dir, &args);
    }
    if wanted("fifty") {
        fifty(&dir);
    }
    if wanted("questions") {
        questions(&dir);
    }
}

/// The CSV files, written once and kept between benches.
fn files(rows: u64) -> PathBuf {
    let dir = cache().join(format!("zillow-{rows}"));
    std::fs::create_dir_all(&dir).unwrap();
    let set = open_tables(&format!("generated:zillow?rows={rows}")).unwrap();
    for file in set.files() {
        let (path, part) = (dir.join(&file), dir.join(format!("{file}.part")));
        if !path.exists() {
            let TableFile::Generated(table) = set.file(&file).unwrap() else { unreachable!() };
            table.write_csv(&mut BufWriter::new(File::create(&part).unwrap()), &part).unwrap();
            std::fs::rename(&part, &path).unwrap();
        }
    }
    dir
}

fn data(dir: &Path) -> Data {
    Data::open(dir.to_str().unwrap()).unwrap()
}

fn template(number: usize) -> Template {
    let file = format!("P{number}.yaml");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/zillow").join(&file);
    Template::parse(&file, &std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Seconds of running a setting of a template as a script of its own would: files read, nothing kept.
fn alone(number: usize, setting: usize, dir: &Path) -> f64 {
    let begun = Instant::now();
    let data = data(dir);
    let plan = plan_template(&template(number), &data, None).unwrap().swap_remove(setting);
    plan.run(&data, |_, _| Ok(())).unwrap();
    begun.elapsed().as_secs_f64()
}

/// Bytes of a table as Parquet under zstd.
fn parquet_bytes(table: &Table, path: &Path) -> u64 {
    let props = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap())).build();
    let batch = table.batch();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(props)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    path.metadata().unwrap().len()
}

/// Bytes of STORE_ALL, pipeline by pipeline. Equal stages have equal files: each is written once and counted every time.
fn store_all(dir: &Path) -> Vec<u64> {
    let scratch = scratch();
    let path = scratch.path().join("stage.parquet");
    let data = data(dir);
    let mut sizes: HashMap<[u8; 16], u64> = HashMap::new();
    let mut each = Vec::new();
    for number in 1..=10 {
        for plan in plan_template(&template(number), &data, None).unwrap() {
            let mut total = 0;
            plan.run(&data, |stage, ran| {
                let size = sizes
                    .entry(plan.stages[stage].fingerprint)
                    .or_insert_with(|| ran.outcome.tables.iter().map(|table| parquet_bytes(table, &path)).sum());
                total += *size;
                total += ran.learnt.as_ref().map_or(0, |learnt| learnt.bytes.len() as u64);
                Ok(())
            })
            .unwrap();
            each.push(total);
        }
    }
    each
}

fn folder_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => folder_bytes(&entry.path()),
        false => entry.metadata().unwrap().len(),
    });
    sizes.sum()
}

fn options(log: LogOptions) -> PipelineOptions {
    PipelineOptions { project: "zillow".into(), log, ..PipelineOptions::default() }
}

/// What a log of some pipelines did.
struct Logged {
    seconds: f64,
    ran: usize,
    stages: usize,
    log: LogReport,
}

/// Logs some plans as `mistique log` does, in a store opened for it.
fn log(store: &Path, number: usize, settings: std::ops::Range<usize>, dir: &Path, log: LogOptions) -> Logged {
    let begun = Instant::now();
    let store = Store::open_or_create(store).unwrap();
    let data = data(dir);
    let plans: Vec<Plan> = plan_template(&template(number), &data, Some(&store)).unwrap();
    let report = log_pipelines(&store, &plans[settings], &data, &options(log), &mut |_| {}).unwrap();
    let stages: Vec<Fate> = report.models.iter().flat_map(|m| m.stages.iter().map(|s| s.fate)).collect();
    let ran = stages.iter().filter(|f| **f == Fate::Ran).count();
    drop(store);
    Logged { seconds: begun.elapsed().as_secs_f64(), ran, stages: stages.len(), log: report.log }
}

/// Bytes of the store after each pipeline, logged one by one.
fn grown(dir: &Path, options: &dyn Fn() -> LogOptions) -> (tempfile::TempDir, Vec<u64>) {
    let scratch = scratch();
    let store = scratch.path().join("s.mq");
    let mut after = Vec::new();
    for number in 1..=10 {
        for setting in 0..5 {
            log(&store, number, setting..setting + 1, dir, options());
            after.push(folder_bytes(&store));
        }
    }
    (scratch, after)
}

fn space(dir: &Path) {
    let plainly = store_all(dir);
    let (_, exact) = grown(dir, &|| LogOptions::default().with_dedup(Dedup::Exact));
    let (kept, both) = grown(dir, &LogOptions::default);
    println!("\nCumulative bytes after each pipeline, MB");
    println!("{:10} {:>12} {:>12} {:>20} {:>9}", "pipeline", "STORE_ALL", "exact", "exact + approximate", "smaller");
    let mut sum = 0;
    for (i, plain) in plainly.iter().enumerate() {
        sum += plain;
        let (name, mb) = (format!("P{}@v{}", i / 5 + 1, i % 5 + 1), |bytes: u64| bytes as f64 / 1e6);
        let smaller = sum as f64 / both[i] as f64;
        println!("{name:10} {:>12.2} {:>12.3} {:>20.3} {smaller:>8.1}×", mb(sum), mb(exact[i]), mb(both[i]));
    }
    let last = |list: &[u64]| (list[49] - list[48]) as f64 / list[0] as f64 * 100.0;
    plain("exact: smaller than STORE_ALL by", sum as f64 / exact[49] as f64, "×");
    at_least("exact + approximate: smaller than STORE_ALL by", sum as f64 / both[49] as f64, "×", 150.0);
    plain("exact: the 50th pipeline of the first", last(&exact), "%");
    at_most("exact + approximate: the 50th pipeline of the first", last(&both), "%", 1.0);
    let store = Store::open(kept.path().join("s.mq")).unwrap();
    reading(&store);
}

/// One column of one stage, all rows: every column of a stage that was stored first, and of one near the end.
fn reading(store: &Store) {
    println!("\nReading one column of one stage, all rows, a fresh reader each time");
    for stage in ["P1@v1.properties", "P10@v5.homes_features", "P10@v5.predict_homes"] {
        let reader = ChunkReader::new(store);
        let all = Request::new(format!("zillow.{stage}").parse().unwrap()).with_rows(RowSelection::Range(0..1));
        let mut times = Vec::new();
        for column in reader.get(&all).unwrap().columns {
            let key = format!("zillow.{stage}.\"{column}\"").parse().unwrap();
            let request = Request::new(key).with_plan(PlanChoice::READ);
            let time = median(3, || {
                std::hint::black_box(reader.get(&request).unwrap());
            });
            times.push((time.as_secs_f64() * 1e3, column));
        }
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        plain(&format!("  {stage}: the median of {} columns", times.len()), times[times.len() / 2].0, "ms");
        let (slowest, column) = &times[times.len() - 1];
        at_most(&format!("  {stage}: the slowest, {column}"), *slowest, "ms", 2.0);
    }
}

/// What logging costs a single pipeline: a template's first setting into an empty store.
fn single(dir: &Path, args: &[String]) {
    let setting = |name: &str| args.iter().find_map(|a| a.strip_prefix(name));
    let times: usize = setting("times=").map_or(3, |n| n.parse().unwrap());
    let numbers: Vec<usize> = match setting("templates=") {
        Some(list) => list.split(',').map(|n| n.parse().unwrap()).collect(),
        None => (1..=10).collect(),
    };
    println!("\nSeconds of each template's first setting, alone and logged into an empty store: medians of {times}");
    println!("{:10} {:>8} {:>8} {:>6}", "template", "alone", "logged", "");
    let mut worst = (0.0f64, 0);
    for number in numbers {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        // Turn by turn, so that a slow spell of the machine meets both.
        for _ in 0..times {
            without.push(alone(number, 0, dir));
            let scratch = scratch();
            with.push(log(&scratch.path().join("s.mq"), number, 0..1, dir, LogOptions::default()).seconds);
        }
        let [without, with] = [without, with].map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[times / 2]
        });
        println!("P{number:<9} {without:>8.3} {with:>8.3} {:>5.2}×", with / without);
        if with / without > worst.0 {
            worst = (with / without, number);
        }
    }
    at_most(&format!("a single template, at most (P{})", worst.1), worst.0, "×", 1.25);
}

/// What logging all fifty pipelines costs.
fn fifty(dir: &Path) {
    println!("\nSeconds of each template's five settings: alone, and logged into one store");
    println!("{:10} {:>8} {:>8} {:>12}", "template", "alone", "logged", "stages run");
    let scratch = scratch();
    let all_path = scratch.path().join("all.mq");
    let (mut searched, mut worked) = (0, 0);
    let (mut alone_sum, mut logged_sum) = (0.0, 0.0);
    for number in 1..=10 {
        let sum: f64 = (0..5).map(|setting| alone(number, setting, dir)).sum();
        let all = log(&all_path, number, 0..5, dir, LogOptions::default());
        (searched, worked) = (searched + all.log.search_ns, worked + all.log.work_ns);
        println!("P{number:<9} {sum:>8.2} {:>8.2} {:>5} of {}", all.seconds, all.ran, all.stages);
        (alone_sum, logged_sum) = (alone_sum + sum, logged_sum + all.seconds);
    }
    at_most("all fifty, logged with de-duplication, against alone", logged_sum / alone_sum, "×", 1.10);
    let searched = searched as f64 / 1e9;
    at_most("hashing, signatures and look-ups, of the time of logging", searched / logged_sum * 100.0, "%", 10.0);
    plain("the same, of the log's own work, operators left out", searched / (worked as f64 / 1e9) * 100.0, "%");
}

/// TRAD of the paper: READ against RERUN, question by question.
fn questions(dir: &Path) {
    let scratch = scratch();
    let path = scratch.path().join("s.mq");
    for number in [1, 10] {
        log(&path, number, 0..2, dir, LogOptions::default());
    }
    let store = Store::open(&path).unwrap();
    println!("\nREAD against RERUN, seconds to the answer (the source: 2.5 to 390 times)");
    println!("{:28} {:>10} {:>10} {:>9}", "question", "READ", "RERUN", "faster");
    for (name, keys, rows, answer) in QUESTIONS {
        let run = |plan: PlanChoice| {
            let mut times: Vec<f64> = (0..3)
                .map(|_| {
                    // Nothing is kept from the run before.
                    let reader = ChunkReader::new(&store).with_workflow(Box::new(PipelineRerun::new(&store)));
                    let begun = Instant::now();
                    let values: Vec<(Vec<u64>, Vec<f32>)> = keys
                        .iter()
                        .map(|key| {
                            let request = Request::new(key.parse().unwrap()).with_plan(plan);
                            let request = match rows {
                                [] => request,
                                rows => request.with_rows(RowSelection::List(rows.to_vec())),
                            };
                            let answer = reader.get(&request).unwrap();
                            (answer.rows.clone(), answer.into_f32().unwrap())
                        })
                        .collect();
                    std::hint::black_box(answer(&values));
                    begun.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            times[1]
        };
        let (read, rerun) = (run(PlanChoice::READ), run(PlanChoice::RERUN));
        println!("{name:28} {:>8.2}ms {:>8.1}ms {:>8.1}×", read * 1e3, rerun * 1e3, rerun / read);
    }
}

type Values = [(Vec<u64>, Vec<f32>)];
/// Name, keys that are read, rows (none: all), and what is computed of them.
type Question = (&'static str, &'static [&'static str], &'static [u64], fn(&Values) -> f64);

const FEATURES: &str = "zillow.P10@v1.homes_features";
const SALES: &str = "zillow.P10@v1.sales_features";
const FIRST: &str = "zillow.P10@v1.predict_homes.prediction";
const SECOND: &str = "zillow.P10@v2.predict_homes.prediction";

const QUESTIONS: [Question; 8] = [
    ("POINTQ a prediction", &[FIRST], &[51], |v| f64::from(v[0].1[0])),
    ("TOPK most underestimated", &[FIRST], &[], |v| {
        f64::from(diagnostics::top_k(&v[0].0, &v[0].1, 10, diagnostics::Extreme::Highest)[0].1)
    }),
    ("COL_DIFF of two settings", &[FIRST, SECOND], &[], |v| {
        diagnostics::difference(&v[0].0, &v[0].1, &v[1].1).unwrap().max_abs
    }),
    ("COL_DIST of predictions", &[FIRST], &[], |v| diagnostics::histogram(&v[0].1, 20).counts.len() as f64),
    ("KNN of a home", &[FEATURES], &[], |v| {
        let width = v[0].1.len() / v[0].0.len();
        let query = &v[0].1[51 * width..52 * width];
        let near = diagnostics::nearest_rows(&v[0].0, &v[0].1, query, 10, diagnostics::Metric::L2);
        near.unwrap()[0].0 as f64
    }),
    ("ROW_DIFF of two homes", &[FEATURES], &[51, 52], |v| {
        let (a, b) = v[0].1.split_at(v[0].1.len() / 2);
        a.iter().zip(b).filter(|(a, b)| a != b).count() as f64
    }),
    ("SVCCA correlation of sales", &[SALES], &[], |v| correlations(&v[0].1, v[0].1.len() / v[0].0.len())),
    ("VIS by neighbourhood", &["zillow.P10@v1.homes_features.neighborhood", FIRST], &[], |v| {
        let mut groups: HashMap<u32, (f64, f64)> = HashMap::new();
        for (group, value) in v[0].1.iter().zip(&v[1].1) {
            let (sum, n) = groups.entry(group.to_bits()).or_default();
            (*sum, *n) = (*sum + f64::from(*value), *n + 1.0);
        }
        groups.values().map(|(sum, n)| sum / n).fold(0.0, f64::max)
    }),
];

/// The largest correlation of two different columns.
fn correlations(values: &[f32], width: usize) -> f64 {
    let n = (values.len() / width) as f64;
    let column = |c: usize| -> Vec<f64> {
        let column: Vec<f64> = values.iter().skip(c).step_by(width).map(|v| f64::from(*v)).collect();
        let mean = column.iter().sum::<f64>() / n;
        let length = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>().sqrt();
        column.iter().map(|v| if length > 0.0 { (v - mean) / length } else { 0.0 }).collect()
    };
    let columns: Vec<Vec<f64>> = (0..width).map(column).collect();
    let pairs = (0..width).flat_map(|a| (0..a).map(move |b| (a, b)));
    let dot = |(a, b): (usize, usize)| columns[a].iter().zip(&columns[b]).map(|(x, y)| x * y).sum::<f64>();
    pairs.map(dot).fold(0.0, f64::max)
}
