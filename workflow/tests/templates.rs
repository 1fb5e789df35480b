//! The templates that ship: they parse, pass the check and run, and learn something.

use std::collections::BTreeMap;
use std::path::Path;

use mistique_workflow::pipeline::{Data, Pipeline, Plan, Template};

fn template(file: &str) -> Template {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets").join(file);
    Template::parse(file, &std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn plans(file: &str, data: &Data) -> Vec<Plan> {
    let template = template(file);
    let plan = |setting| {
        let pipeline = Pipeline::new(&template, setting).unwrap_or_else(|e| panic!("{e}"));
        Plan::new(pipeline, data, &|_| None).unwrap_or_else(|e| panic!("{e}"))
    };
    template.settings().iter().map(plan).collect()
}

fn operators(plan: &Plan) -> Vec<&str> {
    plan.pipeline.stages().iter().map(|stage| stage.op()).collect()
}

/// Table 5.3 of the paper, Evaluate aside.
const TABLE: [(&str, &[(&str, usize)]); 10] = [
    ("P1", &[("Join", 2), ("DropColumns", 2), ("TrainLightGBM", 1), ("Predict", 2)]),
    ("P2", &[("Join", 2), ("DropColumns", 2), ("TrainXGBoost", 1), ("Predict", 2)]),
    ("P3", &[("OneHotEncoding", 1), ("FillNA", 2), ("Join", 2), ("TrainElasticNet", 1), ("Predict", 2)]),
    ("P4", &[("Avg", 1), ("OneHotEncoding", 1), ("FillNA", 2), ("TrainElasticNet", 1), ("Predict", 2)]),
    ("P5", &[("TrainXGBoost", 1), ("TrainElasticNet", 1), ("Predict", 4), ("CombinePredictions", 2)]),
    ("P6", &[("Avg", 1), ("Join", 2), ("TrainLightGBM", 1), ("Predict", 2)]),
    ("P7", &[("Avg", 1), ("Join", 2), ("TrainXGBoost", 1), ("Predict", 2)]),
    ("P8", &[("Avg", 1), ("GetConstructionRecency", 1), ("OneHotEncoding", 1), ("FillNA", 2), ("TrainElasticNet", 1)]),
    ("P9", &[("Avg", 1), ("GetConstructionRecency", 1), ("ComputeNeighborhood", 1), ("TrainElasticNet", 1)]),
    ("P10", &[("ComputeNeighborhood", 1), ("IsResidential", 1), ("FillNA", 2), ("TrainElasticNet", 1)]),
];

#[test]
fn zillow_templates_are_those_of_the_paper_and_run() {
    let data = Data::open("generated:zillow?rows=6000").unwrap();
    for (name, stages) in TABLE {
        let plans = plans(&format!("zillow/{name}.yaml"), &data);
        assert_eq!(plans.len(), 5, "{name}");
        let found = operators(&plans[0]);
        for (operator, times) in stages.iter().chain(&[("ReadCSV", 3), ("SelectColumn", 1), ("TrainTestSplit", 1)]) {
            assert_eq!(found.iter().filter(|o| *o == operator).count(), *times, "{name}: {operator} in {found:?}");
        }
        let mut metrics = BTreeMap::new();
        let run = plans[0].run(&data, |_, ran| {
            metrics.extend(ran.outcome.metrics.clone());
            Ok(())
        });
        run.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(metrics["mse"] < 0.2 && metrics["mae"] < 0.3, "{name}: {metrics:?}");
    }
}

#[test]
fn variations_share_what_they_do_not_change() {
    let data = Data::open("generated:zillow?rows=300").unwrap();
    for name in ["P1", "P3", "P8"] {
        let plans = plans(&format!("zillow/{name}.yaml"), &data);
        let changed = plans[0].stages.iter().zip(&plans[1].stages).filter(|(a, b)| a.fingerprint != b.fingerprint);
        // The model, its two predictions and their evaluation.
        assert_eq!(changed.count(), 4, "{name}");
    }
    // Templates share the stages that they have in common, too.
    let first: Vec<_> = plans("zillow/P8.yaml", &data).remove(0).stages.iter().map(|s| s.fingerprint).collect();
    let second: Vec<_> = plans("zillow/P9.yaml", &data).remove(0).stages.iter().map(|s| s.fingerprint).collect();
    assert_eq!(first.iter().filter(|f| second.contains(f)).count(), 8);
}

#[test]
fn housing_examples_run_and_learn() {
    let data = Data::open("generated:housing?rows=3000").unwrap();
    for (name, metric, fits) in [
        ("H1", "mae", (|mae| mae < 80_000.0) as fn(f64) -> bool),
        ("H2", "mae", |mae| mae < 60_000.0),
        ("H3", "auroc", |auroc| auroc > 0.85),
    ] {
        for plan in plans(&format!("housing/{name}.yaml"), &data) {
            let mut found = None;
            let run = plan.run(&data, |_, ran| {
                found = ran.outcome.metrics.get(metric).copied().or(found);
                Ok(())
            });
            run.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(found.is_some_and(fits), "{name}: {metric} {found:?}");
        }
    }
}
