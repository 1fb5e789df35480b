use std::fs;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int64Type};

use super::*;
use crate::open;

fn table(content: impl AsRef<[u8]>) -> Result<RecordBatch, DatasetError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    fs::write(&path, content).unwrap();
    read_csv(&path)
}

#[test]
fn types_and_nulls() {
    let batch = table(
        "\u{feff}i,f,b,d,s,,none,id\r\n1,0.5,TRUE,2024-02-29,\"a,\nb\",x,,99999999999999999999\r\n\
         -2, 3 ,false,1970-01-01,,y,,1\r\n,,,,z,,,\r\n",
    )
    .unwrap();
    let schema = batch.schema();
    let types: Vec<(&str, &DataType)> = schema.fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect();
    assert_eq!(
        types,
        [
            ("i", &DataType::Int64),
            ("f", &DataType::Float64),
            ("b", &DataType::Boolean),
            ("d", &DataType::Date32),
            ("s", &DataType::Utf8),
            ("column_6", &DataType::Utf8),
            ("none", &DataType::Utf8),
            ("id", &DataType::Utf8),
        ]
    );
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), Some(-2), None]);
    assert_eq!(batch.column(1).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(0.5), Some(3.0), None]);
    assert_eq!(batch.column(3).as_primitive::<Date32Type>().iter().collect::<Vec<_>>(), [Some(19_782), Some(0), None]);
    assert_eq!(batch.column(4).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a,\nb"), None, Some("z")]);
    assert_eq!(batch.column(6).null_count(), 3);
}

#[test]
fn a_blank_line_of_one_column_is_a_null() {
    for (content, expected) in [
        ("a\n1\n\n3\n", &[Some(1), None, Some(3)][..]),
        ("a\r\n1\r\n\r\n\r\n3\r\n\r\n", &[Some(1), None, None, Some(3)]),
        ("a\r1\r\r3", &[Some(1), None, Some(3)]),
        ("a\n\n1", &[None, Some(1)]),
        ("\n\"a\"\n1\n\"\"\n\n2", &[Some(1), None, None, Some(2)]),
        // At the end they are none.
        ("a\n1\n\n\n", &[Some(1)]),
        // With two columns a row of nulls is written as `,`.
        ("a,b\n\n1,2\n\n,\n3,4\n", &[Some(1), None, Some(3)]),
    ] {
        let batch = table(content).unwrap();
        let found: Vec<Option<i64>> = batch.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(found, expected, "{content:?}");
    }
    assert_eq!(table("a\n\n\n").unwrap().num_rows(), 0);
    // In parts as in whole, and lines are counted with them.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    fs::write(&path, "a\n1\n\n\n4\n").unwrap();
    let (file, mut rows) = (CsvFile::open(&path, &[]).unwrap(), Vec::new());
    file.read(3, &mut |part| {
        rows.push(part.num_rows());
        Ok::<_, DatasetError>(())
    })
    .unwrap();
    assert_eq!((file.n_rows(), rows), (4, vec![3, 1]));
    let wrong = table("a\n1\n\n2,3\n").unwrap_err().to_string();
    assert!(wrong.contains("line 4, column 2: the line has 2 fields, the header 1"), "{wrong}");
}

#[test]
fn parts_are_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let lines: String = (0..10).map(|i| format!("{i},{},w{i}\n", if i < 5 { "" } else { "0.5" })).collect();
    fs::write(&path, format!("\u{feff}a,b,c\n{lines}")).unwrap();
    let types = [("a".to_owned(), DataType::Float32)];
    let (whole, file) = (read_csv_as(&path, &types).unwrap(), CsvFile::open(&path, &types).unwrap());
    assert_eq!((file.schema(), file.n_rows()), (whole.schema(), 10));
    for rows in [1, 4, 5, 10, 11] {
        let mut parts = Vec::new();
        file.read(rows, &mut |part| {
            parts.push(part);
            Ok::<_, DatasetError>(())
        })
        .unwrap();
        assert_eq!(parts.len(), 10usize.div_ceil(rows));
        assert_eq!(arrow::compute::concat_batches(&whole.schema(), &parts).unwrap(), whole, "{rows}");
    }
    // One without rows is read too, as a batch that knows its columns.
    fs::write(&path, "a,b\n").unwrap();
    let mut n = 0;
    CsvFile::open(&path, &[])
        .unwrap()
        .read(4, &mut |part| {
            n += 1;
            assert_eq!((part.num_rows(), part.num_columns()), (0, 2));
            Ok::<_, DatasetError>(())
        })
        .unwrap();
    assert_eq!(n, 1);
}

#[test]
fn dates() {
    for (text, days) in [
        ("1970-01-01", Some(0)),
        ("1969-12-31", Some(-1)),
        ("2000-03-01", Some(11_017)),
        ("0000-01-01", Some(-719_528)),
        ("9999-12-31", Some(2_932_896)),
        ("2023-02-29", None),
        ("1900-02-29", None),
        ("2000-02-29", Some(11_016)),
        ("2024-13-01", None),
        ("2024-04-31", None),
        ("2024-1-01", None),
        ("2024/01/01", None),
        ("+024-01-01", None),
    ] {
        assert_eq!(parse_date(text), days, "{text}");
    }
}

#[test]
fn numbers_beyond_int64_are_floats_among_measures_and_texts_among_identifiers() {
    let batch = table(
        "sci,late,early,id,odd,gap\n\
         1.5,1.5,100000000000000000000,1,-99999999999999999999,9223372036854775808\n\
         1e20,7,0.5,99999999999999999999,x,\n\
         -2E-3,-100000000000000000000,3,2,1.5,nan\n",
    )
    .unwrap();
    let numbers = |i: usize| batch.column(i).as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(numbers(0), [1.5, 1e20, -0.002]);
    assert_eq!(numbers(1), [1.5, 7.0, -1e20]);
    assert_eq!(numbers(2), [1e20, 0.5, 3.0]);
    let texts = |i: usize| batch.column(i).as_string::<i32>().iter().collect::<Vec<_>>();
    assert_eq!(texts(3), [Some("1"), Some("99999999999999999999"), Some("2")]);
    assert_eq!(texts(4), [Some("-99999999999999999999"), Some("x"), Some("1.5")]);
    assert_eq!(texts(5), [Some("9223372036854775808"), None, Some("nan")]);
}

#[test]
fn numbers_beyond_float32_are_no_float32() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let types = [("x".to_owned(), DataType::Float32)];
    fs::write(&path, "x\n0.1\n-3e38\ninf\n").unwrap();
    let x = read_csv_as(&path, &types).unwrap();
    assert_eq!(x.column(0).as_primitive::<Float32Type>().values().to_vec(), [0.1, -3e38, f32::INFINITY]);
    fs::write(&path, "x\n0.1\n4e38\n").unwrap();
    let wrong = read_csv_as(&path, &types).unwrap_err().to_string();
    assert!(wrong.contains("line 3, column x: \"4e38\" is not a number within float32"), "{wrong}");
}

#[test]
fn numbers_beyond_float64_are_no_floats_and_infinity_is_one_where_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let as_type = |data_type: DataType| read_csv_as(&path, &[("x".to_owned(), data_type)]);
    fs::write(&path, "x\n0.5\n-Infinity\ninf\n").unwrap();
    for batch in [as_type(DataType::Float64).unwrap(), read_csv(&path).unwrap()] {
        let found = batch.column(0).as_primitive::<Float64Type>().values().to_vec();
        assert_eq!(found, [0.5, f64::NEG_INFINITY, f64::INFINITY]);
    }
    for beyond in ["1e400".to_owned(), "-1e309".to_owned(), "9".repeat(400)] {
        fs::write(&path, format!("x\n0.5\n{beyond}\n")).unwrap();
        for (data_type, name) in [(DataType::Float64, "float64"), (DataType::Float32, "float32")] {
            let wrong = as_type(data_type).unwrap_err().to_string();
            let expected = format!("line 3, column x: \"{beyond}\" is not a number within {name}");
            assert!(wrong.contains(&expected), "{wrong}");
        }
        let batch = read_csv(&path).unwrap();
        assert_eq!(batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("0.5"), Some(beyond.as_str())]);
    }
}

#[test]
fn bad_rows_name_line_and_column() {
    for (content, part) in [
        (&b"a,b,c\n1,2,3\n\n4,5\n"[..], "t.csv: line 4, column c: the line has 2 fields, the header 3"),
        (b"a,b\n\"x\ny\",1\n1,2,3\n", "line 4, column 3: the line has 3 fields, the header 2"),
        (b"a,b\r\n1,2\r\n\r\n1\r\n", "line 4, column b: the line has 1 fields, the header 2"),
        (b"\na,b\n1,2,3", "line 3, column 3: the line has 3 fields"),
        (b"a,b\n1,2\n1,\xff\n", "line 3, column b: the text is not UTF-8"),
        (b"a,\xff\n1,2\n", "line 1, column 2: the name is not UTF-8"),
        (b"a,b\n1,\"x\n2,3\n", "line 2, column 2: the quote that opens here is not closed"),
        (b"a,b\n1,2\n\n\"x\"\"\n2,3", "line 4, column 1: the quote that opens here is not closed"),
        (b"a,b\n1,\"x\ny\",\"z\n", "line 3, column 3: the quote that opens here is not closed"),
        (b"a,b\n1,\"x\n2,3\n4,\"y\"\n", "line 2, column 2: the quote that opens here is not closed"),
        (b"a,\"b\n1,2\n", "line 1, column 2: the quote that opens here is not closed"),
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
    ] {
        let error = table(content).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(table("a,b\n").unwrap().num_rows(), 0);
}

#[test]
fn numeric_view_and_labels() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    fs::write(&path, "x,kind,y,ok\n1,b,0.5,true\n2,a,,false\n3,b,1.5,true\n").unwrap();
    let load = |label: &str| open(&format!("csv:{}?label={label}", path.display()).parse().unwrap());
    let kind = load("kind").unwrap();
    assert_eq!(
        (kind.labels(), kind.class_names()),
        (Some(&[1, 0, 1][..]), Some(&["a".to_owned(), "b".to_owned()][..]))
    );
    assert_eq!((kind.row_shape(), kind.feature_names()), (&[2][..], Some(&["x".to_owned(), "y".to_owned()][..])));
    let mut out = Vec::new();
    kind.read_rows(&[2, 1], &mut out).unwrap();
    assert_eq!(out[..3], [3.0, 1.5, 2.0]);
    assert!(out[3].is_nan());
    assert_eq!(kind.table().unwrap().num_columns(), 4);

    assert_eq!((load("x").unwrap().labels(), load("x").unwrap().row_shape()), (Some(&[1, 2, 3][..]), &[1][..]));
    assert_eq!(load("ok").unwrap().class_names().unwrap(), ["false", "true"]);
    assert!(load("y").err().unwrap().to_string().contains("label of row 1 is missing"));
    fs::write(&path, "y\n1\n-1.5\n").unwrap();
    assert!(load("y").err().unwrap().to_string().contains("label of row 1 is -1.5"));
    fs::write(&path, "y,y\n1,2\n").unwrap();
    assert!(load("y").err().unwrap().to_string().contains("two columns called 'y'"));
}

#[test]
fn columns_that_are_no_features_say_since_which_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let lines = [
        "a,b,kind,ok,none,id,odd,big",
        "1,2,x,true,,1,99999999999999999999,1e20",
        "2,n/a,y,false,,1,0.5,99999999999999999999",
        "",
        "3,-,x,true,,99999999999999999999,0x,3",
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let table = open(&format!("csv:{}?label=kind", path.display()).parse().unwrap()).unwrap();
    let left_out: Vec<String> = table.left_out().iter().map(ToString::to_string).collect();
    let expected = [
        "b (text: line 3 has \"n/a\")",
        "ok (true or false)",
        "none (text)",
        "id (text: line 5 has \"99999999999999999999\")",
        "odd (text: line 5 has \"0x\")",
    ];
    assert_eq!(
        (left_out.as_slice(), table.feature_names()),
        (&expected.map(str::to_owned)[..], Some(&["a".to_owned(), "big".to_owned()][..]))
    );
}

#[test]
fn real_tables() {
    let dir = Path::new("../../shared/data");
    if !dir.exists() {
        eprintln!("skipped: {} is not there", dir.display());
        return;
    }
    let housing = read_csv(dir.join("housing.csv")).unwrap();
    assert_eq!((housing.num_rows(), housing.num_columns()), (20_640, 10));
    assert_eq!(housing.column_by_name("total_bedrooms").unwrap().null_count(), 207);
    assert_eq!(housing.schema(), crate::housing_batch(1, 0..5).unwrap().schema());
    let hr = read_csv(dir.join("hr-attrition.csv")).unwrap();
    assert_eq!((hr.num_rows(), hr.num_columns(), hr.schema().field(0).name().as_str()), (1_470, 35, "Age"));
}
