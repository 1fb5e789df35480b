//! Operators against pandas and scikit-learn (fixtures/operators.py), and by hand.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::Value;

use super::super::operator::Input;
use super::super::table::Table;
use super::super::testing::{run_operator, run_with, table};

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/operators.json")).unwrap()
}

fn floats(v: &Value) -> ArrayRef {
    Arc::new(v.as_array().unwrap().iter().map(Value::as_f64).collect::<Float64Array>())
}

fn wholes(v: &Value) -> ArrayRef {
    Arc::new(v.as_array().unwrap().iter().map(Value::as_i64).collect::<Int64Array>())
}

fn texts(v: &Value) -> ArrayRef {
    Arc::new(v.as_array().unwrap().iter().map(Value::as_str).collect::<StringArray>())
}

fn sample() -> Table {
    let t = &fixture()["table"];
    table(vec![
        ("f", floats(&t["f"])),
        ("g", floats(&t["g"])),
        ("i", wholes(&t["i"])),
        ("t", texts(&t["t"])),
        ("key", wholes(&t["key"])),
    ])
}

fn close(found: &Table, column: &str, expected: &Value) {
    let found = found.numbers("", column).unwrap();
    let expected = floats(expected);
    assert_eq!(found.len(), expected.len(), "{column}");
    for (i, (a, b)) in found.iter().zip(expected.as_primitive::<Float64Type>()).enumerate() {
        let same = match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs().max(1.0),
            (a, b) => a == b,
        };
        assert!(same, "{column}, row {i}: {a:?}, expected {b:?}");
    }
}

fn one(op: &str, yaml: &str, tables: &[Table]) -> Table {
    run_operator(op, yaml, tables).unwrap_or_else(|e| panic!("{op} {yaml}: {e}")).tables.remove(0)
}

fn fails(op: &str, yaml: &str, tables: &[Table]) -> String {
    run_operator(op, yaml, tables).err().unwrap_or_else(|| panic!("{op} {yaml} was taken")).to_string()
}

#[test]
fn as_pandas_and_scikit_learn() {
    let (sample, fixture) = (sample(), fixture());
    let expected = &fixture["expected"];
    let filled = one("FillNA", "{strategy: mean, columns: [f, i]}", std::slice::from_ref(&sample));
    close(&filled, "f", &expected["mean"]["f"]);
    close(&filled, "i", &expected["mean"]["i"]);
    let filled = one("FillNA", "{strategy: median}", std::slice::from_ref(&sample));
    close(&filled, "f", &expected["median"]["f"]);
    close(&filled, "i", &expected["median"]["i"]);
    let filled = one("FillNA", "{strategy: mode, columns: [i, t]}", std::slice::from_ref(&sample));
    close(&filled, "i", &expected["mode"]["i"]);
    assert_eq!(filled.column("", "t").unwrap(), &texts(&expected["mode"]["t"]));
    let avg = one("Avg", "{columns: [f, g, i], output: m}", std::slice::from_ref(&sample));
    close(&avg, "m", &expected["avg"]);
    let labels = one("LabelIndexing", "{columns: [t]}", std::slice::from_ref(&sample));
    assert_eq!(labels.column("", "t").unwrap(), &wholes(&expected["labels"]));
    for method in ["standard", "min_max"] {
        let scaled = one("Scaling", &format!("{{method: {method}, columns: [f, g]}}"), std::slice::from_ref(&sample));
        close(&scaled, "f", &expected[method]["f"]);
        close(&scaled, "g", &expected[method]["g"]);
    }
    let hot = one("OneHotEncoding", "{columns: [t]}", std::slice::from_ref(&sample));
    let dummies = expected["dummies"].as_object().unwrap();
    assert_eq!(hot.names().len(), 4 + dummies.len());
    for (name, bits) in dummies {
        let bits: BooleanArray = bits.as_array().unwrap().iter().map(Value::as_bool).collect();
        assert_eq!(hot.column("", name).unwrap().as_boolean(), &bits, "{name}");
    }
    let right = table(vec![("key", wholes(&fixture["right"]["key"])), ("v", floats(&fixture["right"]["v"]))]);
    let both = [sample, right];
    let left = one("Join", "{on: key}", &both);
    close(&left, "v", &expected["left"]);
    assert_eq!(left.rows(), both[0].rows());
    let inner = one("Join", "{on: [key], how: inner}", &both);
    close(&inner, "v", &expected["inner"]);
    let rows: Vec<u64> = expected["inner_rows"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert_eq!(**inner.rows(), rows);
}

fn small() -> Table {
    table(vec![
        ("x", Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN), Some(-0.0)]))),
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(1)]))),
        ("t", Arc::new(StringArray::from(vec![Some("u"), Some("v"), None, Some("u")]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(false)]))),
    ])
}

#[test]
fn by_hand() {
    let small = [small()];
    let filled = one("FillNA", "{value: 0.5}", &small);
    assert_eq!(filled.numbers("", "x").unwrap().values().to_vec(), [1.0, 0.5, 0.5, -0.0]);
    assert_eq!(filled.numbers("", "n").unwrap().values().to_vec(), [1.0, 0.5, 3.0, 1.0]);
    assert_eq!(filled.column("", "t").unwrap().null_count(), 1);
    let filled = one("FillNA", "{value: 7, columns: [n]}", &small);
    assert_eq!(filled.column("", "n").unwrap().as_primitive::<Int64Type>().values().to_vec(), [1, 7, 3, 1]);
    // Whole numbers that no float holds, or that are written as floats.
    for (value, expected) in [
        ("9007199254740993", 9_007_199_254_740_993),
        ("-9223372036854775808", i64::MIN),
        ("1.0e+18", 1_000_000_000_000_000_000),
    ] {
        let filled = one("FillNA", &format!("{{value: {value}, columns: [n]}}"), &small);
        let filled = filled.column("", "n").unwrap().as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(filled, [1, expected, 3, 1], "{value}");
    }
    let large = Int64Array::from(vec![Some(i64::MAX), None, Some(i64::MAX)]);
    let large = [table(vec![("n", Arc::new(large) as ArrayRef)])];
    let filled = one("FillNA", "{strategy: mode}", &large);
    assert_eq!(filled.column("", "n").unwrap().as_primitive::<Int64Type>().values().to_vec(), [i64::MAX; 3]);
    let filled = one("FillNA", "{value: none}", &small);
    assert_eq!(filled.column("", "t").unwrap().as_string::<i32>().value(2), "none");
    let filled = one("FillNA", "{value: false, columns: b}", &small);
    assert_eq!(
        filled.column("", "b").unwrap().as_boolean().values().iter().collect::<Vec<_>>(),
        [true, false, false, false]
    );
    let filled = one("FillNA", "{strategy: mode, columns: [x, b]}", &small);
    // -0 and 1 come once each: the smaller one; of the booleans false comes twice.
    assert_eq!(filled.numbers("", "x").unwrap().values().to_vec(), [1.0, 0.0, 0.0, -0.0]);
    assert!(!filled.column("", "b").unwrap().as_boolean().value(1));
    let recency = one("GetConstructionRecency", "{column: n, year: 10, output: r}", &small);
    assert_eq!(
        recency.column("", "r").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
        [Some(9), None, Some(7), Some(9)]
    );
    let residential = one("IsResidential", "{column: n, codes: [1, '9']}", &small);
    let of = |t: &Table| t.column("", "is_residential").unwrap().as_boolean().iter().collect::<Vec<_>>();
    assert_eq!(of(&residential), [Some(true), Some(false), Some(false), Some(true)]);
    assert_eq!(
        of(&one("IsResidential", "{column: t, codes: [v]}", &small)),
        [Some(false), Some(true), Some(false), Some(false)]
    );
    // Large whole numbers that are one float are two codes.
    let large = [9_007_199_254_740_992, 9_007_199_254_740_993, i64::MIN, 261];
    let large = [table(vec![("n", Arc::new(Int64Array::from(large.to_vec())) as ArrayRef)])];
    for (codes, expected) in [
        ("9007199254740993", [false, true, false, false]),
        ("'9007199254740993', 261.0", [false, true, false, true]),
        ("-9223372036854775808, '261.0', 261.5", [false, false, true, true]),
    ] {
        let found = one("IsResidential", &format!("{{column: n, codes: [{codes}]}}"), &large);
        assert_eq!(of(&found), expected.map(Some), "{codes}");
    }
    let few = one("Filter", "{where: n = 1}", &small);
    assert_eq!(**few.rows(), [0, 3]);
    assert_eq!(one("SelectColumn", "{columns: [t, x]}", &small).names(), ["t", "x"]);
    assert_eq!(one("DropColumns", "{columns: [t, x]}", &small).names(), ["n", "b"]);
    let constant = table(vec![("x", Arc::new(Float64Array::from(vec![4.0, 4.0])))]);
    assert_eq!(one("Scaling", "{}", &[constant]).numbers("", "x").unwrap().values().to_vec(), [0.0, 0.0]);
    // Of ten times 0.1 the mean is another number.
    let constant = table(vec![("x", Arc::new(Float64Array::from(vec![0.1; 10])) as ArrayRef)]);
    let new = table(vec![("x", Arc::new(Float64Array::from(vec![0.1, 1.1])) as ArrayRef)]);
    for yaml in ["{}", "{method: min_max}"] {
        let (learnt, scaled) = run_with("Scaling", yaml, vec![Input::Table(constant.clone())], None).unwrap();
        assert_eq!(scaled.tables[0].numbers("", "x").unwrap().values().to_vec(), [0.0; 10]);
        let applied = run_with("Scaling", yaml, vec![Input::Table(new.clone())], learnt).unwrap().1;
        let applied = applied.tables[0].numbers("", "x").unwrap();
        assert!(applied.value(0) == 0.0 && (applied.value(1) - 1.0).abs() < 1e-12, "{applied:?}");
    }
    let floats = |values: [f64; 3]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let both = [
        table(vec![("k", floats([0.0, -0.0, 1.0]))]),
        table(vec![("k", floats([-0.0, 1.0, f64::NAN])), ("v", floats([5.0, 6.0, 7.0]))]),
    ];
    let joined = one("Join", "{on: k}", &both);
    assert_eq!(joined.numbers("", "v").unwrap().values().to_vec(), [5.0, 5.0, 6.0]);
    // The key itself stays as it was.
    assert!(joined.numbers("", "k").unwrap().value(1).is_sign_negative());
    let empty = table(vec![("x", Arc::new(Float64Array::from(Vec::<f64>::new())))]);
    assert_eq!(one("Scaling", "{}", &[empty]).n_rows(), 0);
    let limited = one("OneHotEncoding", "{columns: [n, b], max_categories: 1}", &small);
    assert_eq!(limited.names(), ["x", "t", "n=1", "b=false"]);
}

#[test]
fn what_was_learnt_is_applied_to_other_rows() {
    let seen = table(vec![
        ("t", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef),
        ("x", Arc::new(Float64Array::from(vec![1.0, 3.0]))),
    ]);
    let new = table(vec![
        ("t", Arc::new(StringArray::from(vec![Some("b"), Some("c"), None])) as ArrayRef),
        ("x", Arc::new(Float64Array::from(vec![5.0, 2.0, f64::NAN]))),
    ]);
    let apply = |op: &str, yaml: &str| {
        let (learnt, _) = run_with(op, yaml, vec![Input::Table(seen.clone())], None).unwrap();
        run_with(op, yaml, vec![Input::Table(new.clone())], learnt).unwrap().1.tables.remove(0)
    };
    assert_eq!(
        apply("LabelIndexing", "{columns: t}")
            .column("", "t")
            .unwrap()
            .as_primitive::<Int64Type>()
            .iter()
            .collect::<Vec<_>>(),
        [Some(1), None, None]
    );
    let scaled = apply("Scaling", "{columns: x}");
    let scaled = scaled.numbers("", "x").unwrap();
    assert_eq!((scaled.value(0), scaled.value(1)), (3.0, 0.0));
    assert!(scaled.value(2).is_nan());
    assert_eq!(
        apply("FillNA", "{strategy: mean, columns: x}").numbers("", "x").unwrap().values().to_vec(),
        [5.0, 2.0, 2.0]
    );
    let (learnt, _) = run_with("OneHotEncoding", "{columns: t}", vec![Input::Table(seen.clone())], None).unwrap();
    assert_eq!(
        std::str::from_utf8(&learnt.unwrap().bytes).unwrap(),
        r#"[{"column":"t","type":"text","categories":[{"text":"a"},{"text":"b"}]}]"#
    );
}

#[test]
fn neighbourhoods() {
    // Two towns, far apart, and a place that is not known.
    let places: Vec<(f64, f64)> = (0..40)
        .map(|i| if i % 2 == 0 { (34.0 + f64::from(i) * 1e-4, -118.0) } else { (37.0, -122.0 + f64::from(i) * 1e-4) })
        .collect();
    let column = |f: fn(&(f64, f64)) -> f64| {
        Arc::new(places.iter().map(|p| Some(f(p))).chain([None]).collect::<Float64Array>()) as ArrayRef
    };
    let homes = [table(vec![("latitude", column(|p| p.0)), ("longitude", column(|p| p.1))])];
    let of = |yaml: &str| {
        one("ComputeNeighborhood", yaml, &homes).column("", "neighborhood").unwrap().as_primitive::<Int64Type>().clone()
    };
    let towns = of("{clusters: 2, seed: 3}");
    assert!(towns.is_null(40) && towns.value(0) != towns.value(1));
    assert!((0..40).all(|i| towns.value(i) == towns.value(i % 2)));
    assert_eq!(towns, of("{clusters: 2, seed: 3}"));
    let grid = of("{method: grid, cells: 2}");
    // South-east and north-west of two by two cells.
    assert_eq!((grid.value(0), grid.value(1)), (1, 2));
}

#[test]
fn a_split_does_not_move_rows_when_others_come() {
    let of = |n: i64| {
        let t = table(vec![("x", Arc::new(Int64Array::from_iter_values(0..n)))]);
        run_operator("TrainTestSplit", "{test: 0.25, seed: 9}", &[t]).unwrap().tables
    };
    let (some, more) = (of(1000), of(4000));
    let test = some[1].n_rows();
    // Four standard deviations around a quarter.
    assert!((195..=305).contains(&test), "{test}");
    assert_eq!(some[0].n_rows() + test, 1000);
    assert_eq!(some[1].rows().as_slice(), &more[1].rows()[..test]);
    assert_eq!(
        some[1]
            .column("", "x")
            .unwrap()
            .as_primitive::<Int64Type>()
            .iter()
            .map(|v| v.unwrap() as u64)
            .collect::<Vec<_>>(),
        **some[1].rows()
    );
}

#[test]
fn mistakes() {
    let right = table(vec![
        ("n", Arc::new(Int64Array::from(vec![1, 3, 3, 1]))),
        ("r", Arc::new(Int64Array::from(vec![10, 30, 31, 11]))),
    ]);
    let both = [small(), right];
    let twice = fails("Join", "{on: n}", &both);
    assert!(twice.contains("2 rows whose n is 3") && twice.contains("on_duplicate"), "{twice}");
    let of = |yaml: &str| {
        one("Join", yaml, &both).column("", "r").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
    };
    assert_eq!(of("{on: n, on_duplicate: first}"), [Some(10), None, Some(30), Some(10)]);
    assert_eq!(of("{on: n, on_duplicate: last}"), [Some(11), None, Some(31), Some(11)]);
    for (op, yaml, expected) in [
        ("Join", "{left_on: [t], right_on: [n]}", "column n is int64; expected text, as t of the left side"),
        ("Join", "{left_on: x}", "needs `on`"),
        ("Join", "{on: []}", "`on` is []; expected at least one column"),
        ("Join", "{left_on: [], right_on: []}", "`left_on` is []; expected at least one column"),
        ("Join", "{left_on: x, right_on: []}", "`right_on` is []; expected at least one column"),
        ("Join", "{on: n, left_on: n, right_on: n}", "either by `on` or by `left_on` and `right_on`"),
    ] {
        let found = fails(op, yaml, &both);
        assert!(found.contains(expected), "{op} {yaml}: {found}");
    }
    for (op, yaml, expected) in [
        ("FillNA", "{strategy: mean, columns: [t]}", "column t is text; expected a number"),
        ("FillNA", "{strategy: mean, value: 3}", "`value` is 3; expected none, since the strategy is mean"),
        ("FillNA", "{}", "FillNA needs `value`"),
        ("FillNA", "{strategy: meen}", "one of constant, mean, median, mode (did you mean mean?)"),
        ("TrainTestSplit", "{test: 1.5}", "`test` is 1.5; expected a share between 0 and 1"),
        ("Filter", "{where: n + 1}", "a condition is true or false; this is int64"),
        ("Filter", "{where: 'n >'}", "`where` is \"n >\"; expected a value at the end"),
        ("GetConstructionRecency", "{}", "no column yearbuilt"),
        ("IsResidential", "{codes: 5, column: n}", "a list of codes"),
        ("IsResidential", "{codes: [1], column: b}", "column b is boolean; expected a code: a number or a text"),
        ("IsResidential", "{codes: [1, u], column: n}", "`codes`: column n is int64, so \"u\" is none of its codes"),
        ("IsResidential", "{codes: [u], column: x}", "`codes`: column x is float64, so \"u\" is none of its codes"),
        ("ComputeNeighborhood", "{latitude: t, longitude: x}", "column t is text; expected a number"),
        ("ReadCSV", "{file: x.csv, types: {a: int}}", "types among float64, float32, int64, boolean, date, text"),
    ] {
        let found = fails(op, yaml, &[small()]);
        assert!(found.contains(expected), "{op} {yaml}: {found}");
    }
    let old = [table(vec![("n", Arc::new(Int64Array::from(vec![Some(2000), None, Some(i64::MIN)])) as ArrayRef)])];
    let found = fails("GetConstructionRecency", "{column: n}", &old);
    assert!(found.contains("2016 - -9223372036854775808 is beyond int64"), "{found}");
    let narrow = [table(vec![("s", Arc::new(Float32Array::from(vec![Some(1.5), None])) as ArrayRef)])];
    let found = fails("FillNA", "{value: 1.0e+39}", &narrow);
    assert!(found.contains("`value`: column s is float32, which does not hold 1e39"), "{found}");
    assert_eq!(one("FillNA", "{value: 1.0e+38}", &narrow).numbers("", "s").unwrap().value(1), f64::from(1e38f32));
}
