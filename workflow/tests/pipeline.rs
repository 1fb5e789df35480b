//! Two hand-made pipelines: what is shared runs once, what changed runs again, what is stored is what was computed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Float64Array};
use arrow::record_batch::RecordBatch;
use mistique_engine::{
    EngineError, Given, IfExists, IntermediateKey, MemoryStorage, ModelKey, Rerun, RerunValues, Rows, Store,
    StoreOptions,
};
use mistique_workflow::pipeline::{
    Data, Fate, PipelineError, PipelineOptions, PipelineReport, PipelineRerun, Plan, Template, log_pipelines,
    plan_template,
};

/// Homes with every type, nulls, NaN, -0 and infinities; sales of some of them.
fn write_data(dir: &Path) {
    let mut homes = String::from("id,area,rooms,garden,kind,built,sold,odd\n");
    let odd = ["nan", "-0.0", "inf", "-inf", "0.1", ""];
    for i in 0..2500u32 {
        let area = if i % 7 == 0 { String::new() } else { format!("{}.25", 40 + i % 160) };
        let rooms = if i % 11 == 0 { String::new() } else { (1 + i % 6).to_string() };
        let garden = ["true", "false", ""][i as usize % 3];
        let kind = ["flat", "house", "hut", "", "ünder, \"quoted\""][i as usize % 5].replace('"', "\"\"");
        let day = format!("2016-{:02}-{:02}", 1 + i % 12, 1 + i % 28);
        homes += &format!("{i},{area},{rooms},{garden},\"{kind}\",{},{day},{}\n", 1900 + i % 117, odd[i as usize % 6]);
    }
    std::fs::write(dir.join("homes.csv"), homes).unwrap();
    let mut sales = String::from("home,price\n");
    for i in (0..2500u32).step_by(3).chain([9999]) {
        sales += &format!("{i},{}\n", 1000 + i * 7 % 5000);
    }
    std::fs::write(dir.join("sales.csv"), sales).unwrap();
}

const SHARED: &str = "
project: town
stages:
  - {name: homes, op: ReadCSV, file: homes.csv}
  - {name: sales, op: ReadCSV, file: sales.csv}
  - {name: filled, op: FillNA, inputs: [homes], strategy: median, columns: [area, rooms]}
  - {name: joined, op: Join, inputs: [sales, filled], left_on: home, right_on: id, how: inner}
  - {name: split, op: TrainTestSplit, inputs: [joined], test: 0.3, seed: 7}
";

fn one() -> String {
    format!(
        "name: one\ndefaults: {{cells: 4}}\ngrid: [{{}}, {{cells: 5}}]\n{SHARED}
  - {{name: hot, op: OneHotEncoding, inputs: [split/train], columns: [kind, garden]}}
  - {{name: hot_test, op: OneHotEncoding, inputs: [split/test], fit: hot}}
  - {{name: place, op: ComputeNeighborhood, inputs: [hot], method: grid, cells: '${{cells}}', latitude: area, longitude: rooms}}
  - {{name: scaled, op: Scaling, inputs: [place], columns: [area, neighborhood]}}
"
    )
}

fn two() -> String {
    format!(
        "name: two\n{SHARED}
  - {{name: rich, op: Expression, inputs: [split/train], columns: {{each: area / rooms, dear: \"when(price > 3000, 'dear', 'cheap')\", old: year(sold) - built}}}}
  - {{name: few, op: Filter, inputs: [rich], where: \"dear = 'dear' and odd is not null\"}}
  - {{name: labels, op: LabelIndexing, inputs: [few], columns: [kind]}}
"
    )
}

fn plans(text: &str, data: &Data, store: Option<&Store>) -> Vec<Plan> {
    plan_template(&Template::parse("t.yaml", text).unwrap(), data, store).unwrap()
}

fn memory_store() -> Store {
    Store::on(Arc::new(MemoryStorage::new(None).unwrap()), true, StoreOptions::default()).unwrap()
}

fn options() -> PipelineOptions {
    PipelineOptions { project: "town".into(), ..PipelineOptions::default() }
}

fn log(store: &Store, plans: &[Plan], data: &Data, options: &PipelineOptions) -> Result<PipelineReport, PipelineError> {
    log_pipelines(store, plans, data, options, &mut |_| {})
}

fn ran(report: &PipelineReport) -> Vec<String> {
    let of = |m: &mistique_workflow::pipeline::ModelReport| {
        let key = m.key.to_string();
        m.stages.iter().filter(|s| s.fate == Fate::Ran).map(move |s| format!("{key}.{}", s.name)).collect::<Vec<_>>()
    };
    report.models.iter().flat_map(of).collect()
}

fn read(store: &Store, key: &str) -> (Vec<u64>, RecordBatch) {
    let record = store.intermediate(&key.parse::<IntermediateKey>().unwrap()).unwrap();
    let plan = store.plan_rows(&record, &Rows::All).unwrap();
    let mistique_engine::Content::Table(table) = &*record.content else { panic!("{key} is no table") };
    let columns: Vec<usize> = (0..table.schema.fields().len()).collect();
    (plan.rows.iter().collect(), store.read_table(&record, &plan, &columns).unwrap())
}

/// Bit for bit: Arrow compares floats by their bits only where it is asked to.
fn assert_same(what: &str, a: &RecordBatch, b: &RecordBatch) {
    assert_eq!(a.schema(), b.schema(), "{what}");
    for (i, field) in a.schema().fields().iter().enumerate() {
        let (x, y) = (a.column(i), b.column(i));
        assert_eq!(x.len(), y.len(), "{what}.{}", field.name());
        match (x.as_any().downcast_ref::<Float64Array>(), y.as_any().downcast_ref::<Float64Array>()) {
            (Some(x), Some(y)) => {
                let bits = |v: &Float64Array| v.iter().map(|v| v.map(f64::to_bits)).collect::<Vec<_>>();
                assert_eq!(bits(x), bits(y), "{what}.{}", field.name());
            }
            _ => assert_eq!(x, y, "{what}.{}", field.name()),
        }
    }
}

/// Every intermediate of the plans without a store.
fn computed(plans: &[Plan], data: &Data) -> BTreeMap<String, (Vec<u64>, RecordBatch)> {
    let mut all = BTreeMap::new();
    for plan in plans {
        let key = ModelKey::new("town", plan.pipeline.name()).at(plan.pipeline.version());
        plan.run(data, |stage, ran| {
            for ((name, _), table) in plan.stages[stage].outputs.iter().zip(&ran.outcome.tables) {
                let key = key.intermediate(name.clone()).to_string();
                all.insert(key, (table.rows().to_vec(), table.batch().clone()));
            }
            Ok(())
        })
        .unwrap();
    }
    all
}

#[test]
fn shared_stages_run_once_and_a_changed_parameter_reruns_what_depends_on_it() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    let store = memory_store();
    let mut all = plans(&one(), &data, None);
    all.extend(plans(&two(), &data, None));
    let report = log(&store, &all, &data, &options()).unwrap();
    let names = |model: &str, stages: &[&str]| stages.iter().map(|s| format!("town.{model}.{s}")).collect::<Vec<_>>();
    let first = ["homes", "sales", "filled", "joined", "split", "hot", "hot_test", "place", "scaled"];
    let mut expected = names("one@v1", &first);
    expected.extend(names("one@v2", &["place", "scaled"]));
    expected.extend(names("two", &["rich", "few", "labels"]));
    assert_eq!(ran(&report), expected);

    // Stored once: the shared intermediates cost no chunk of their own.
    let a = store.intermediate(&"town.one@v1.joined".parse().unwrap()).unwrap();
    let b = store.intermediate(&"town.two.joined".parse().unwrap()).unwrap();
    let chunks =
        |r| store.catalog().blocks(r, 0, u64::MAX).unwrap().iter().map(|b| b.chunks.clone()).collect::<Vec<_>>();
    assert_eq!(chunks(&a), chunks(&b));
    assert!(a.stage.is_some() && a.stage == b.stage);

    // The same again runs nothing, neither in the same store nor with plans that know it.
    let again = plans(&one(), &data, Some(&store));
    assert_eq!(ran(&log(&store, &again, &data, &options()).unwrap()), Vec::<String>::new());

    // A changed parameter of one stage: that stage and those behind it; its inputs come from the store.
    let changed = one().replace("name: one", "name: three").replace("grid: [{}, {cells: 5}]", "grid: [{cells: 6}]");
    let changed = plans(&changed, &data, Some(&store));
    let report = log(&store, &changed, &data, &options()).unwrap();
    assert_eq!(ran(&report), names("three@v1", &["place", "scaled"]));

    // Everything stored is what is computed without the store.
    all.extend(plans(
        &one().replace("name: one", "name: three").replace("[{}, {cells: 5}]", "[{cells: 6}]"),
        &data,
        None,
    ));
    let computed = computed(&all, &data);
    assert_eq!(computed.len(), 4 * 6 + 3 * 4 + 3);
    for (key, (rows, batch)) in &computed {
        let (stored_rows, stored) = read(&store, key);
        assert_eq!(*rows, stored_rows, "{key}");
        assert_same(key, batch, &stored);
    }
    // What is odd about floats has survived.
    let (_, homes) = read(&store, "town.two.homes");
    let odd = homes.column_by_name("odd").unwrap();
    let odd = odd.as_any().downcast_ref::<Float64Array>().unwrap();
    assert!(odd.value(0).is_nan() && odd.value(1).to_bits() == (-0.0f64).to_bits() && odd.is_null(5));
}

#[test]
fn little_memory_reads_values_back_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    let all = plans(&two(), &data, None);
    let (plenty, none) = (memory_store(), memory_store());
    log(&plenty, &all, &data, &options()).unwrap();
    log(&none, &all, &data, &PipelineOptions { memory_bytes: 0, ..options() }).unwrap();
    for key in computed(&all, &data).keys() {
        let (a, b) = (read(&plenty, key), read(&none, key));
        assert_eq!(a.0, b.0);
        assert_same(key, &a.1, &b.1);
    }
}

#[test]
fn a_failing_stage_leaves_those_before_it_and_a_corrected_file_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    let store = memory_store();
    let text = two().replace("old: year(sold) - built", "old: home % (built - built)");
    let error = log(&store, &plans(&text, &data, None), &data, &options()).unwrap_err();
    assert!(matches!(&error, PipelineError::Stage { stage, .. } if stage == "rich"), "{error}");
    assert!(error.to_string().contains("two: stage rich (Expression) failed"), "{error}");
    let model = store.model(&ModelKey::new("town", "two")).unwrap();
    assert!(!model.complete);
    let kept: Vec<String> = store.intermediates(&model).unwrap().into_iter().map(|i| i.key.intermediate).collect();
    assert_eq!(kept, ["homes", "sales", "filled", "joined", "split/train", "split/test"]);
    // The same again fails again, and runs nothing that was done.
    assert!(log(&store, &plans(&text, &data, Some(&store)), &data, &options()).is_err());
    // Corrected, it goes on where it stopped: an unfinished model is not bound to the file that failed.
    let report = log(&store, &plans(&two(), &data, Some(&store)), &data, &options()).unwrap();
    let expected: Vec<String> = ["rich", "few", "labels"].iter().map(|s| format!("town.two.{s}")).collect();
    assert_eq!(ran(&report), expected);
    assert!(store.model(&ModelKey::new("town", "two")).unwrap().complete);
    let (_, rich) = read(&store, "town.two.rich");
    assert!(rich.column_by_name("old").is_some());
    // A finished one is: another content needs another version, or to be replaced.
    let other = plans(&two().replace("seed: 7", "seed: 8"), &data, Some(&store));
    let refused = log(&store, &other, &data, &options()).unwrap_err();
    assert!(matches!(refused, PipelineError::Engine(EngineError::Conflict { .. })), "{refused}");
    let report = log(&store, &other, &data, &PipelineOptions { if_exists: IfExists::Replace, ..options() }).unwrap();
    assert!(ran(&report).contains(&"town.two.split".to_string()));
    for (key, (rows, batch)) in &computed(&other, &data) {
        let (stored_rows, stored) = read(&store, key);
        assert_eq!(*rows, stored_rows, "{key}");
        assert_same(key, batch, &stored);
    }
}

#[test]
fn any_stage_runs_again_without_learning_and_gives_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let source = dir.path().to_str().unwrap();
    let data = Data::open(source).unwrap();
    let store = memory_store();
    let all: Vec<Plan> = plans(&one(), &data, None).into_iter().chain(plans(&two(), &data, None)).collect();
    log(&store, &all, &data, &options()).unwrap();
    store.gc().unwrap();
    let rerun = PipelineRerun::new(&store);
    for model in store.models().unwrap() {
        assert!(rerun.runs(&model) && rerun.unavailable(&model).is_none());
        let graph = rerun.graph(&model).unwrap();
        let names: Vec<String> = graph.iter().map(|n| n.name.clone()).collect();
        let own: Vec<String> = store.intermediates(&model).unwrap().into_iter().map(|i| i.key.intermediate).collect();
        assert_eq!(names, own);
        for (node, name) in graph.iter().zip(&names) {
            let (rows, stored) = read(&store, &model.spec.key.intermediate(name.clone()).to_string());
            let from_data = rerun.rerun(&model, std::slice::from_ref(name), &rows, &[]).unwrap();
            let RerunValues::Table(batch) = &from_data[0] else { panic!() };
            assert_same(name, batch, &stored);
            // The same from its inputs, read from the store.
            let inputs: Vec<(&str, RerunValues)> = node
                .inputs
                .iter()
                .map(|i| {
                    let input = model.spec.key.intermediate(names[*i].clone()).to_string();
                    (names[*i].as_str(), RerunValues::Table(read(&store, &input).1))
                })
                .collect();
            let given: Vec<Given<'_>> =
                inputs.iter().map(|(intermediate, values)| Given { intermediate, values }).collect();
            let some: Vec<u64> = rows.iter().rev().step_by(3).copied().collect();
            let picked = rerun.rerun(&model, std::slice::from_ref(name), &some, &given).unwrap();
            let RerunValues::Table(picked) = &picked[0] else { panic!() };
            let at: Vec<u32> = some.iter().map(|r| rows.binary_search(r).unwrap() as u32).collect();
            let expected = arrow::compute::take_record_batch(&stored, &arrow::array::UInt32Array::from(at)).unwrap();
            assert_same(name, picked, &expected);
        }
    }
    // One run serves several.
    let model = store.model(&ModelKey::new("town", "two")).unwrap();
    let rows = read(&store, "town.two.few").0;
    let several = rerun.rerun(&model, &["few".into(), "labels".into(), "homes".into()], &rows, &[]).unwrap();
    assert_eq!(several.len(), 3);

    // Another content of a file is refused, unless the run does not need it.
    let text = std::fs::read_to_string(dir.path().join("sales.csv")).unwrap();
    std::fs::write(dir.path().join("sales.csv"), text + "1,5\n").unwrap();
    let rerun = PipelineRerun::new(&store);
    let refused = rerun.rerun(&model, &["joined".into()], &[], &[]).unwrap_err().to_string();
    assert!(refused.contains("sales.csv") && refused.contains("has changed"), "{refused}");
    assert!(rerun.rerun(&model, &["filled".into()], &[0, 1], &[]).is_ok());
}

#[test]
fn a_bad_cell_is_named_by_row_and_column() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.csv"), "x,y\n1,2\n3,four\n").unwrap();
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    let text = "name: p\nstages:\n  - {name: a, op: ReadCSV, file: a.csv, types: {y: int64}}\n";
    let error = plan_template(&Template::parse("t.yaml", text).unwrap(), &data, None).err().unwrap().to_string();
    assert!(error.contains("line 3, column y: \"four\" is not a whole number"), "{error}");
    std::fs::write(dir.path().join("a.csv"), "x,y\n1,2\n3\n").unwrap();
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    let error = plan_template(&Template::parse("t.yaml", text).unwrap(), &data, None).err().unwrap().to_string();
    assert!(error.contains("line 3, column y: the line has 1 fields, the header 2"), "{error}");
}

#[test]
fn rows_logged_while_a_file_is_read_are_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let noise =
        |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40;
    // Two full RowBlocks and a part of one; the second alone has nulls, and texts of its own.
    let line = |i: u64| match i {
        8192..16384 if i.is_multiple_of(3) => format!("{i},,b{}\n", i % 7),
        _ => format!("{i},{},a{}\n", noise(i) as f64 / 8.0, i % 5),
    };
    let lines: String = (0..20_000).map(line).collect();
    std::fs::write(dir.path().join("a.csv"), format!("id,x,kind\n{lines}")).unwrap();
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    let text = "name: p\nproject: town\nstages:
  - {name: a, op: ReadCSV, file: a.csv, types: {id: float64}}
  - {name: b, op: DropColumns, inputs: [a], columns: [kind]}
";
    let store = memory_store();
    let plans = plans(text, &data, Some(&store));
    let report = log(&store, &plans, &data, &options()).unwrap();
    // What the second stage passes on is not stored again.
    assert_eq!((report.log.new_chunks, report.log.duplicate_chunks), (9, 6));
    plans[0]
        .run(&data, |stage, ran| {
            let name = ["a", "b"][stage];
            let (rows, batch) = read(&store, &format!("town.p.{name}"));
            assert_eq!(&rows, &**ran.outcome.tables[0].rows());
            assert_same(name, &batch, ran.outcome.tables[0].batch());
            Ok(())
        })
        .unwrap();
}
