use super::super::columns::Columns;
use super::super::data::Data;
use super::super::testing;
use super::*;

fn data() -> Data {
    Data::open("generated:housing?rows=50").unwrap()
}

fn error(yaml: &str) -> String {
    match testing::plans(yaml, &data()) {
        Ok(_) => panic!("taken: {yaml}"),
        Err(e) => e.to_string(),
    }
}

const READ: &str = "name: p\nstages:\n  - {name: homes, op: ReadCSV, file: housing.csv}\n";

#[test]
fn mistakes_are_reported_with_their_place_and_the_nearest_name() {
    // The stage, where in it the mistake is (the last such text), and the message.
    for (stage, token, expected) in [
        (
            "{name: x, op: OneHotEncodng, inputs: [homes]}",
            "OneHotEncodng",
            "unknown operator OneHotEncodng at line 4: did you mean OneHotEncoding?",
        ),
        (
            "{name: x, op: Avg, inputs: [home], columns: [a], output: b}",
            "home]",
            "unknown stage home at line 4: did you mean homes?; known: homes, x",
        ),
        (
            "{name: x, op: DropColumns, inputs: [homes], colums: [a]}",
            "colums",
            "unknown parameter of DropColumns colums at line 4: did you mean columns?",
        ),
        (
            "{name: x, op: DropColumns, inputs: [homes]}",
            "{name",
            "stage x: DropColumns needs `columns` (names of columns)",
        ),
        (
            "{name: x, op: DropColumns, columns: [population]}",
            "{name",
            "stage x: DropColumns takes a table, found none; say `inputs: [stage]`",
        ),
        (
            "{name: x, op: DropColumns, inputs: [homes], columns: [1]}",
            "[1]",
            "`columns` is [1]; expected a list of texts, such as [a, b]",
        ),
        (
            "name: x\n    op: DropColumns\n    inputs: homes\n    columns:\n      - population\n      - total_room",
            "total_room",
            "stage x (DropColumns): no column total_room: did you mean total_rooms?; the columns are longitude, ",
        ),
        (
            "{name: x, op: Avg, inputs: [homes], columns: [ocean_proximity], output: b}",
            "ocean_proximity",
            "stage x (Avg): column ocean_proximity is text; expected a number, boolean or date",
        ),
        ("{name: homes, op: Avg, inputs: [homes]}", "{name", "the name homes is already taken on line 3"),
        (
            "{name: a, op: SelectColumn, inputs: [b], columns: [x]}\n  - {name: b, op: SelectColumn, inputs: [a], columns: [x]}",
            "a], columns",
            "the stages form a cycle: a -> b -> a",
        ),
        (
            "{name: x, op: SelectColumn, inputs: [homes/train], columns: [x]}",
            "homes/train",
            "unknown output homes/train at line 4",
        ),
        (
            "{name: x/y, op: SelectColumn, inputs: [homes], columns: [x]}",
            "x/y",
            "`name` is \"x/y\"; expected a name without `/`",
        ),
        (
            "{name: \"\", op: SelectColumn, inputs: [homes], columns: [x]}",
            "\"\"",
            "`name` is \"\"; expected a text that is not empty",
        ),
        (
            "{name: m, op: TrainElasticNet, inputs: [homes], target: population}\n  - {name: x, op: Predict, inputs: [m/train, homes]}",
            "m/train",
            "found m/train: m has no output train (its outputs: none); m alone is what it has learnt",
        ),
        (
            "{name: x, op: Predict, inputs: [homes/train, homes]}",
            "homes/train",
            "found homes/train: homes has no output train (its outputs: homes)",
        ),
        (
            "{name: x, op: Avg, inputs: [homes], columns: ['${c}'], output: b}",
            "'${c}'",
            "unknown parameter c at line 4; known: none",
        ),
        ("{name: x, inputs: [homes]}", "{name", "expected a key `op` that names its operator"),
        (
            "{name: x, op: Scaling, inputs: [homes], fit: homes}",
            "homes}",
            "Scaling takes as `fit` a stage of its own operator, found `fit: homes`, which is a ReadCSV",
        ),
        (
            "{name: x, op: Avg, inputs: [homes], fit: homes, columns: [y], output: z}",
            "homes, columns",
            "unknown parameter of Avg (it learns nothing) fit",
        ),
        (
            "{name: s, op: Scaling, inputs: [homes], columns: [households]}\n  - {name: x, op: Scaling, inputs: [homes], columns: [population], fit: s}",
            "columns: [population]",
            "`columns` is [\"population\"]; expected [\"households\"], as s decided, which `fit` applies: leave it out",
        ),
        (
            "{name: s, op: Scaling, inputs: [homes]}\n  - {name: y, op: Scaling, inputs: [homes], fit: s}\n  - {name: x, op: Scaling, inputs: [homes], fit: y}",
            "y}",
            "stage x: Scaling takes as `fit` a stage that learnt: use `fit: s`, found `fit: y`, which applies what s learnt",
        ),
        (
            "{name: x, op: Join, inputs: [homes, homes], on: []}",
            "[]",
            "`on` is []; expected at least one column, the key",
        ),
        (
            "{name: s, op: Scaling, inputs: [homes]}\n  - {name: x, op: Scaling, inputs: [homes], method: min_max, fit: s}",
            "method",
            "`method` is \"min_max\"; expected \"standard\", as s decided",
        ),
        (
            "{name: s, op: OneHotEncoding, inputs: [homes], columns: ocean_proximity}\n  - {name: x, op: OneHotEncoding, inputs: [homes], columns: ocean_proximity, max_categories: 2, fit: s}",
            "max_categories",
            "`max_categories` is 2; expected nothing, as s decided",
        ),
        (
            "{name: s, op: FillNA, inputs: [homes], value: 0}\n  - {name: x, op: FillNA, inputs: [homes], strategy: mean, fit: s}",
            "{name",
            "`value` is 0; expected none, since the strategy is mean",
        ),
        (
            "{name: few, op: SelectColumn, inputs: [homes], columns: [population]}\n  - {name: x, op: DropColumns, inputs: [few], columns: [population]}",
            "[population]",
            "stage x (DropColumns): `columns`: no column would be left; a table has at least one",
        ),
        (
            "name: x\n    op: Expression\n    inputs: homes\n    columns:\n      - {one: population}\n      - {each: one + ocean_proximity}",
            "each",
            "stage x (Expression): for each: + takes numbers, found",
        ),
        (
            "name: x\n    op: Expression\n    inputs: homes\n    columns: {one: population,\n      each: popul}",
            "each",
            "for each: no column popul",
        ),
        (
            "name: x\n    op: Expression\n    inputs: homes\n    columns:\n      - {one: population}\n      - {each: one +}",
            "each",
            "`columns` is \"one +\"; expected for each: ",
        ),
        (
            "{name: x, op: ReadCSV, file: housing.csv, types: {population: int64, households: flaot64}}",
            "households",
            "`types` is \"flaot64\"; expected types among float64, float32, int64, boolean, date, text (did you mean float64?)",
        ),
        (
            "{name: x, op: Avg, inputs: [homes], columns: [a], output: b, columns: [c]}",
            "columns",
            "the key `columns` is given twice; keep one of the two",
        ),
        (
            "name: x\n    op: Expression\n    inputs: homes\n    columns:\n      one: population\n      two: households\n      one: households",
            "one",
            "the key `one` is given twice; keep one of the two",
        ),
        (
            "{name: x, op: ReadCSV, file: housing.csv, types: {population: int64, median_income: int64}}",
            "median_income",
            "stage x (ReadCSV): housing.csv: row ",
        ),
        (
            "{name: x, op: Evaluate, inputs: [homes, homes], target: population, metrics: [mse, acuracy]}",
            "acuracy",
            "`metrics` is \"acuracy\"; expected some of mse, mae, accuracy, auroc (did you mean accuracy?)",
        ),
        (
            "{name: x, op: Filter, inputs: [hmoes], where: population > 0}",
            "hmoes",
            "unknown stage hmoes at line 4: did you mean homes?",
        ),
        (
            "{name: x, op: FillNA, inputs: [homes], stratgy: mean}",
            "stratgy",
            "unknown parameter of FillNA stratgy at line 4: did you mean strategy?",
        ),
        (
            "{name: x, op: ReadCSV, fiel: a.csv}",
            "fiel",
            "unknown parameter of ReadCSV fiel at line 4: did you mean file?",
        ),
        (
            "{name: x, op: Join, inputs: [homes, homes], onn: population}",
            "onn",
            "unknown parameter of Join onn at line 4: did you mean on?",
        ),
        (
            "{name: x, op: IsResidential, inputs: [homes], outptu: y}",
            "outptu",
            "unknown parameter of IsResidential outptu at line 4: did you mean output?",
        ),
        (
            "{name: x, op: DropColumns, imputs: [homes], columns: [population]}",
            "imputs",
            "unknown parameter of DropColumns imputs at line 4: did you mean inputs?",
        ),
        (
            "{name: x, op: Scaling, inputs: [homes], fti: homes}",
            "fti",
            "unknown parameter of Scaling fti at line 4: did you mean fit?",
        ),
        ("{name: x, op: Filter, inputs: [homes]}", "{name", "stage x: Filter needs `where` (a condition"),
        ("{name: x, opp: Filter, inputs: [homes]}", "opp", "unknown key of a stage opp at line 4: did you mean op?"),
        ("{name: x, on: a, inputs: [homes]}", "{name", "expected a key `op` that names its operator"),
        ("{nmae: x, op: Filter, inputs: [homes]}", "nmae", "unknown key of a stage nmae at line 4: did you mean name?"),
        (
            "{name: x, op: Avg, inputs: [homes], columns: [households], output: population}",
            "population}",
            "`output`: there is a column population already; choose another name",
        ),
        (
            "{name: x, op: IsResidential, inputs: [homes], codes: [1], column: households, output: population}",
            "population}",
            "`output`: there is a column population already",
        ),
        (
            "{name: x, op: GetConstructionRecency, inputs: [homes], column: households, output: population}",
            "population}",
            "`output`: there is a column population already",
        ),
        (
            "{name: x, op: ComputeNeighborhood, inputs: [homes], output: population}",
            "population}",
            "`output`: there is a column population already",
        ),
    ] {
        let yaml = format!("{READ}  - {stage}\n");
        let (line, column) = yaml.lines().zip(1..).filter_map(|(l, n)| Some((n, l.rfind(token)? + 1))).last().unwrap();
        let found = error(&yaml);
        assert!(found.contains(expected), "{stage}\n{found}");
        assert!(found.starts_with(&format!("test.yaml:{line}:{column}: ")), "{stage}\n{found}\nwanted {line}:{column}");
    }
    for (yaml, expected) in [
        ("name: p\nstags: []\n", "test.yaml:2:1: unknown key stags at line 2: did you mean stages?"),
        (
            "name: p\nstages: [{name: a, op: ReadCSV, file: housing.csv, columns: []}]\n",
            "test.yaml:2:61: stage a (ReadCSV): `columns`: no column would be left",
        ),
        ("name: p\n", "a pipeline needs `stages: [...]`"),
        ("stages: [{name: a, op: ReadCSV, file: housing.csv}]\n", "a pipeline needs `name: ...`"),
        (
            "name: p\nstages: [{name: a, op: ReadCSV, file: house.csv}]\n",
            "house.csv: not found, expected a table; there are housing.csv",
        ),
        ("name: p\n  x: [\n", "test.yaml:"),
        ("name: p\nname: q\nstages: []\n", "test.yaml:2:1: the key `name` is given twice; keep one of the two"),
        ("name: p\nstages: [a]\n---\nname: q\n", ": a second document begins behind the line `---`; a file holds one"),
        ("name: p\nstages: &a [*a]\n", ": an alias stands inside of what it stands for"),
        (
            "name: p\nstages: [{name: a, op: FillNA, inputs: [b], value: .inf}]\n",
            "test.yaml:2:52: .inf is not a finite number, as all numbers of a pipeline are",
        ),
        ("", "the file is empty; a pipeline needs `name: ...` and `stages: [...]`"),
        ("# later\n", "the file is empty"),
        ("- a\n", "expected a map with the keys `name` and `stages`"),
    ] {
        let found = error(yaml);
        assert!(found.contains(expected), "{yaml}\n{found}");
    }
    let unused = format!(
        "defaults: {{used: [population], unusd: 1}}\n{READ}  - {{name: x, op: DropColumns, inputs: [homes], columns: '${{used}}'}}\n"
    );
    assert!(
        error(&unused).contains("test.yaml:1:32: unknown parameter: no stage has ${} of it: unusd"),
        "{}",
        error(&unused)
    );
}

#[test]
fn a_type_of_a_column_that_a_csv_file_does_not_have_is_found_at_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.csv"), "abc,k\n1,2\n").unwrap();
    let data = Data::open(dir.path().to_str().unwrap()).unwrap();
    for param in ["types: {abd: int64}", "columns: [abd]"] {
        let stage = format!("  - {{name: t, op: ReadCSV, file: t.csv, {param}}}");
        let column = stage.find("abd").unwrap() + 1;
        let found = testing::plans(&format!("name: p\nstages:\n{stage}\n"), &data).err().unwrap().to_string();
        let expected = "stage t (ReadCSV): no column abd: did you mean abc?; the columns are abc, k";
        assert_eq!(found, format!("test.yaml:3:{column}: {expected}"));
    }
}

#[test]
fn a_written_date_that_is_none_is_found_before_anything_runs() {
    let data = Data::open("generated:zillow?rows=100").unwrap();
    for (stage, token, expected) in [
        (
            "{name: x, op: Filter, inputs: [sales], where: \"transactiondate < '2016-02-30'\"}",
            "\"transactiondate",
            "stage x (Filter): `where`: '2016-02-30' is compared with a date and is none; write it as '2016-01-31'",
        ),
        (
            "{name: x, op: Expression, inputs: [sales], columns: {late: \"transactiondate > '2016-13-01'\"}}",
            "late",
            "stage x (Expression): for late: '2016-13-01' is compared with a date and is none",
        ),
    ] {
        let yaml =
            format!("name: p\nstages:\n  - {{name: sales, op: ReadCSV, file: train_2016_v2.csv}}\n  - {stage}\n");
        let column = stage.find(token).unwrap() + "  - ".len() + 1;
        let found = testing::plans(&yaml, &data).err().unwrap().to_string();
        assert!(found.starts_with(&format!("test.yaml:4:{column}: {expected}")), "{found}");
    }
}

#[test]
fn grids_expand() {
    let text = |grid: &str| {
        format!(
            "name: p\ndefaults: {{a: 1, b: x}}\n{grid}\nstages:\n  - {{name: s, op: X, k: '${{a}}', l: 'b ${{b}} ${{a}}'}}\n"
        )
    };
    let settings = |grid: &str| {
        let template = Template::parse("t", &text(grid)).unwrap();
        let of = |s: &Setting| (s.version.clone(), Value::Object(s.values()).to_string());
        template.settings().iter().map(of).collect::<Vec<_>>()
    };
    let list = |l: &[(&str, &str)]| l.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
    assert_eq!(settings(""), list(&[("", r#"{"a":1,"b":"x"}"#)]));
    let cross = settings("grid: {a: [1, 2], b: [y, z]}");
    assert_eq!(
        cross,
        list(&[
            ("v1", r#"{"a":1,"b":"y"}"#),
            ("v2", r#"{"a":1,"b":"z"}"#),
            ("v3", r#"{"a":2,"b":"y"}"#),
            ("v4", r#"{"a":2,"b":"z"}"#),
        ])
    );
    let given = settings("grid: [{a: 5}, {version: best, b: q}]");
    assert_eq!(given, list(&[("v1", r#"{"a":5,"b":"x"}"#), ("best", r#"{"a":1,"b":"q"}"#)]));
    let template = Template::parse("t", &text("grid: [{a: 0.5}]")).unwrap();
    let stages = template.stages(&template.settings()[0]).unwrap();
    let params: Vec<String> = stages[0].params.iter().map(|(_, v)| v.value().to_string()).collect();
    assert_eq!(params, ["0.5", "\"b x 0.5\""]);
    for (grid, expected) in [
        ("grid: [{version: v1, a: 2}, {version: v1, a: 3}]", "t:3:39: `version` is \"v1\"; expected another version"),
        ("grid: [{version: v2}, {a: 3}]", "t:3:23: `version` is \"v2\"; expected another than those above"),
    ] {
        let found = Template::parse("t", &text(grid)).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{found}");
    }
    assert!(Template::parse("t", &text("grid: {a: 3}")).is_err());
    let lacking = "name: p\ngrid: [{x: 1}, {}]\nstages:\n  - {name: s, op: X, k: '${x}'}\n";
    let template = Template::parse("t", lacking).unwrap();
    assert!(template.stages(&template.settings()[0]).is_ok());
    let found = template.stages(&template.settings()[1]).err().unwrap().to_string();
    assert!(found.starts_with("t:2:16: setting 2 of the grid has no x, which the stages use as ${x}"), "{found}");
}

#[test]
fn a_stage_whose_columns_depend_on_its_values_fails_when_none_is_left() {
    let yaml = format!(
        "{READ}  - {{name: odd, op: Expression, inputs: [homes], columns: {{odd: \"when(population < 0, 'a', null)\"}}}}
  - {{name: few, op: SelectColumn, inputs: [odd], columns: [odd]}}
  - {{name: hot, op: OneHotEncoding, inputs: [few], columns: [odd]}}\n"
    );
    let plan = testing::plans(&yaml, &data()).unwrap().remove(0);
    let error = plan.run(&data(), |_, _| Ok(())).unwrap_err().to_string();
    assert_eq!(error, "p: stage hot (OneHotEncoding) failed: no column is left; a table has at least one");
}

#[test]
fn a_fitted_stage_may_repeat_what_the_other_decided_and_name_columns_of_its_own() {
    for (op, given, repeated) in [
        ("Scaling", "method: min_max, columns: [population]", "columns: population, method: min_max"),
        ("LabelIndexing", "columns: [ocean_proximity]", "columns: ocean_proximity"),
        ("ComputeNeighborhood", "clusters: 3", "clusters: 3, output: other"),
    ] {
        let first = format!("  - {{name: s, op: {op}, inputs: [homes], {given}}}\n");
        let yaml = format!("{READ}{first}  - {{name: x, op: {op}, inputs: [homes], {repeated}, fit: s}}\n");
        let plans = testing::plans(&yaml, &data()).unwrap();
        assert_eq!(plans[0].stages[2].learns, Some(1), "{op}");
    }
    // A number of the second table that the first has not is not filled, and stays whole.
    let yaml = format!(
        "{READ}  - {{name: few, op: SelectColumn, inputs: [homes], columns: [median_income]}}
  - {{name: wide, op: Expression, inputs: [homes], columns: {{whole: int(population)}}}}
  - {{name: s, op: FillNA, inputs: [few], strategy: mean}}
  - {{name: x, op: FillNA, inputs: [wide], fit: s}}\n"
    );
    let mut checked = 0;
    let plan = testing::plans(&yaml, &data()).unwrap().remove(0);
    plan.run(&data(), |stage, ran| {
        for ((_, columns), table) in plan.stages[stage].outputs.iter().zip(&ran.outcome.tables) {
            assert_eq!(*columns, Columns::of(&table.schema()), "{stage}");
            checked += 1;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(checked, 5);
}

#[test]
fn stages_may_stand_in_any_order_and_as_a_map() {
    let yaml = "name: p\nstages:\n  last: {op: DropColumns, input: homes, columns: [population]}\n  homes: {op: ReadCSV, file: housing.csv}\n";
    let plans = testing::plans(yaml, &data()).unwrap();
    let names: Vec<&str> = plans[0].pipeline.stages().iter().map(|s| s.name()).collect();
    assert_eq!(names, ["homes", "last"]);
    assert!(is_pipeline(yaml) && !is_pipeline("layers:\n") && !is_pipeline("stages: ["));
    assert!(is_pipeline("\"stages\":\n  - a\n") && is_pipeline("{name: p, stages: [a]}") && !is_pipeline(""));
}
