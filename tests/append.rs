//! `append`: what files hold, and what becomes of it.

mod common;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float64Array, Int16Array, Int64Array, ListArray,
    RecordBatch,
};
use arrow::datatypes::{Float64Type, Int64Type};
use common::{json as answer, run};
use safetensors::Dtype;
use serde_json::{Value, json};

fn get(dir: &Path, key: &str) -> Value {
    answer(dir, &["get", key])[0].clone()
}

fn write_npy(path: &Path, descr: &str, shape: &str, bytes: &[u8]) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(bytes);
    std::fs::write(path, file).unwrap();
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn le<const N: usize>(words: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    words.into_iter().flatten().collect()
}

#[test]
fn row_ids_are_integers_of_any_width() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let x = || Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5])) as ArrayRef;
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.0, 3.0]));
    write_parquet(&dir.join("f.parquet"), vec![("row_id", floats), ("x", x())]);
    let error = run(dir, &["append", "p.m.y", "f.parquet"]).unwrap_err();
    assert!(error.contains("row_ids are integers") && error.contains("Float64"), "{error}");
    assert!(!dir.join("s.mq").exists(), "nothing is made before the file is read");

    let shorts: ArrayRef = Arc::new(Int16Array::from(vec![4, 2, 3]));
    write_parquet(&dir.join("i.parquet"), vec![("row_id", shorts), ("x", x())]);
    run(dir, &["append", "p.m.y", "i.parquet"]).unwrap();
    assert_eq!(get(dir, "p.m.y.x")["row_ids"], json!([2, 3, 4]));

    write_npy(&dir.join("v.npy"), "<f4", "(2,)", &le([1f32, 2.0].map(f32::to_le_bytes)));
    for (i, (descr, bytes)) in [
        ("<i2", le([5i16, 6].map(i16::to_le_bytes))),
        ("|i1", vec![5, 6]),
        ("|u1", vec![5, 6]),
        ("<u2", le([5u16, 6].map(u16::to_le_bytes))),
    ]
    .iter()
    .enumerate()
    {
        write_npy(&dir.join("ids.npy"), descr, "(2,)", bytes);
        let key = format!("p.m.t{i}");
        run(dir, &["append", &key, "v.npy", "--row-ids", "ids.npy"]).unwrap();
        assert_eq!(get(dir, &key)["row_ids"], json!([5, 6]), "{descr}");
    }
    write_npy(&dir.join("ids.npy"), "<i2", "(2,)", &le([5i16, -6].map(i16::to_le_bytes)));
    let error = run(dir, &["append", "p.m.neg", "v.npy", "--row-ids", "ids.npy"]).unwrap_err();
    assert!(error.contains("row_id -6 is negative"), "{error}");
    write_npy(&dir.join("ids.npy"), "<f4", "(2,)", &le([5f32, 6.0].map(f32::to_le_bytes)));
    let error = run(dir, &["append", "p.m.neg", "v.npy", "--row-ids", "ids.npy"]).unwrap_err();
    assert!(error.contains("row_ids are integers, this holds float32"), "{error}");
}

#[test]
fn integers_and_booleans_are_held_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let large = (1i64 << 53) - 1;
    let wide = le([1, -2, large, 4].map(i64::to_le_bytes));
    write_npy(&dir.join("wide.npy"), "<i8", "(2, 2)", &wide);
    run(dir, &["append", "p.m.wide", "wide.npy"]).unwrap();
    assert_eq!(get(dir, "p.m.wide")["values"], json!([1.0, -2.0, large as f64, 4.0]));
    write_npy(&dir.join("wide.npy"), "<i8", "(1, 2)", &le([i64::MIN, 0].map(i64::to_le_bytes)));
    let error = run(dir, &["append", "p.m.wide", "wide.npy"]).unwrap_err();
    assert!(error.contains("-9223372036854775808") && error.contains("Parquet"), "{error}");

    let (labels, ids) = (le([7i64, i64::MAX].map(i64::to_le_bytes)), le([30i32, 20].map(i32::to_le_bytes)));
    let view =
        |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let bits = [1u8, 0, 0, 1];
    let tensors = [
        ("row_id", view(Dtype::I32, &[2], &ids)),
        ("label", view(Dtype::I64, &[2], &labels)),
        ("mask", view(Dtype::BOOL, &[2, 2], &bits)),
        ("tokens", view(Dtype::I64, &[2, 2], &wide)),
    ];
    std::fs::write(dir.join("s.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    run(dir, &["append", "p.torch", "s.safetensors"]).unwrap();
    let label = get(dir, "p.torch.label");
    assert_eq!(label["row_ids"], json!([20, 30]));
    let said: Vec<String> =
        label["values"].as_array().unwrap().iter().map(|v| v.to_string().trim_matches('"').to_string()).collect();
    assert_eq!(said, [i64::MAX.to_string(), "7".into()]);
    assert_eq!(get(dir, "p.torch.mask")["values"], json!([0.0, 1.0, 1.0, 0.0]));
    assert_eq!(get(dir, "p.torch.tokens")["values"], json!([large as f64, 4.0, 1.0, -2.0]));

    let odd = [0u8; 2];
    let tensors = [("x", view(Dtype::F8_E4M3, &[2, 1], &odd))];
    std::fs::write(dir.join("o.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let error = run(dir, &["append", "p.o", "o.safetensors"]).unwrap_err();
    assert!(error.contains("convert it to float32"), "{error}");
}

#[test]
fn columns_of_lists_are_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ids = || Arc::new(Int64Array::from(vec![8, 9])) as ArrayRef;
    let doubles = [Some(vec![Some(0.1), Some(2.0)]), Some(vec![Some(3.0), Some(1e300)])];
    let fixed: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(doubles, 2));
    let whole = [Some(vec![Some(1), Some(2), Some(3)]), Some(vec![Some(4), Some(5), Some(6)])];
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(whole));
    write_parquet(&dir.join("fixed.parquet"), vec![("row_id", ids()), ("x", fixed)]);
    write_parquet(&dir.join("list.parquet"), vec![("x", list.clone())]);
    run(dir, &["append", "p.m.fixed", "fixed.parquet"]).unwrap();
    run(dir, &["append", "p.m.list", "list.parquet"]).unwrap();
    let fixed = get(dir, "p.m.fixed");
    assert_eq!((&fixed["row_ids"], &fixed["values"]), (&json!([8, 9]), &json!([0.1, 2.0, 3.0, 1e300])));
    let list_got = get(dir, "p.m.list");
    assert_eq!((&list_got["shape"], &list_got["values"]), (&json!([3]), &json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));

    let uneven = [Some(vec![Some(1)]), Some(vec![Some(4), Some(5)])];
    let uneven: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(uneven));
    write_parquet(&dir.join("uneven.parquet"), vec![("x", uneven)]);
    let error = run(dir, &["append", "p.m.uneven", "uneven.parquet"]).unwrap_err();
    assert!(error.contains("row 0 has 1, row 1 has 2"), "{error}");
    let large = [Some(vec![Some(1i64 << 60)]), Some(vec![Some(4)])];
    let large: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(large));
    write_parquet(&dir.join("large.parquet"), vec![("x", large)]);
    let error = run(dir, &["append", "p.m.large", "large.parquet"]).unwrap_err();
    assert!(error.contains("a column of its own") && !error.contains("Parquet file"), "{error}");
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    write_parquet(&dir.join("beside.parquet"), vec![("x", list), ("flag", flags)]);
    let error = run(dir, &["append", "p.m.beside", "beside.parquet"]).unwrap_err();
    assert!(error.contains("alone in a file"), "{error}");
}

#[test]
fn auto_keeps_float64_that_float32_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wave = |i: usize| (i as f64 * 0.37).sin();
    let one_large: Vec<f64> = (0..600).map(|i| if i == 0 { 1e300 } else { wave(i) }).collect();
    for (name, values, is_float64) in [
        ("usual", (0..600).map(wave).collect::<Vec<f64>>(), false),
        ("tiny", (0..600).map(|i| wave(i) * 1e-50).collect(), true),
        ("large", one_large, true),
    ] {
        let file = format!("{name}.npy");
        write_npy(&dir.join(&file), "<f8", "(300, 2)", &le(values.iter().map(|v| v.to_le_bytes())));
        let key = format!("p.m.{name}");
        let append = ["append", &key, &file, "--scheme", "auto(0.01)"];
        // 600 of 8 bytes, a page's directory and the chunk's: which scheme it will be is not known yet.
        let refused = run(dir, &[&append[..], &["--max-bytes", "8kB"]].concat()).unwrap_err();
        assert!(refused.contains("9.0 kB") || refused.contains("8.96 kB"), "{refused}");
        run(dir, &append).unwrap();
        let shown: Value = serde_json::from_str(&run(dir, &["show", &key, "--json"]).unwrap()).unwrap();
        assert_eq!(shown["scheme"] == "f64", is_float64, "{name}: {shown}");
    }
}

#[test]
fn what_a_scheme_cannot_hold_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Four values, which lloyd(4) holds exactly; and a NaN behind the rows from which `auto` chose.
    let mut values: Vec<f32> = (0..600).map(|i| (i % 4) as f32).collect();
    write_npy(&dir.join("first.npy"), "<f4", "(300, 2)", &le(values.iter().map(|v| v.to_le_bytes())));
    run(dir, &["append", "p.m.t", "first.npy", "--scheme", "auto(0.01)"]).unwrap();
    values[581] = f32::NAN;
    write_npy(&dir.join("v.npy"), "<f4", "(300, 2)", &le(values.iter().map(|v| v.to_le_bytes())));
    let error = run(dir, &["append", "p.m.t", "v.npy", "--scheme", "auto(0.01)"]).unwrap_err();
    for want in ["p.m.t", "NaN of row_id 590", "lloyd(4)", "--clamp", "f32 holds all values"] {
        assert!(error.contains(want), "{want}: {error}");
    }
    run(dir, &["append", "p.m.t", "v.npy", "--scheme", "auto(0.01)", "--clamp"]).unwrap();
    assert!(run(dir, &["show", "p.m.t"]).unwrap().contains("values clamped"));
    let shown: Value = serde_json::from_str(&run(dir, &["show", "p.m.t", "--json"]).unwrap()).unwrap();
    assert_eq!((&shown["values_clamped"], &shown["scheme"]), (&json!(1), &json!("lloyd(4)")));
    // Nothing but NaN tells nothing: it is kept as it is.
    write_npy(&dir.join("nan.npy"), "<f4", "(300, 2)", &le([f32::NAN; 600].map(f32::to_le_bytes)));
    run(dir, &["append", "p.m.nan", "nan.npy", "--scheme", "auto(0.01)"]).unwrap();
    let shown: Value = serde_json::from_str(&run(dir, &["show", "p.m.nan", "--json"]).unwrap()).unwrap();
    assert_eq!(shown["scheme"], "f32");

    values.fill(1.0);
    values[7] = 452_600.0;
    write_npy(&dir.join("large.npy"), "<f4", "(300, 2)", &le(values.iter().map(|v| v.to_le_bytes())));
    std::fs::write(dir.join("ids.txt"), (100..400).map(|i| format!("{i}\n")).collect::<String>()).unwrap();
    let error = run(dir, &["append", "p.m.large", "large.npy", "--row-ids", "ids.txt"]).unwrap_err();
    assert!(error.contains("value 452600 of row_id 103 cannot be held by f16"), "{error}");
    let wide = le(values.iter().map(|v| (f64::from(*v) * 1e60).to_le_bytes()));
    write_npy(&dir.join("wide.npy"), "<f8", "(300, 2)", &wide);
    let error = run(dir, &["append", "p.m.wide", "wide.npy", "--scheme", "f32"]).unwrap_err();
    assert!(error.contains("row_id 0") && error.contains("f64 holds all values"), "{error}");
    // The maximum of whole maps.
    write_npy(&dir.join("maps.npy"), "<f4", "(1, 2, 2, 3)", &le((0..12).map(|i| (i as f32).to_le_bytes())));
    run(dir, &["append", "p.m.maps", "maps.npy", "--scheme", "pool(S,max)+f32"]).unwrap();
    let maps = get(dir, "p.m.maps");
    assert_eq!((&maps["values"], &maps["shape"]), (&json!([5.0, 11.0]), &json!([2, 1, 1])));
}

#[test]
fn what_a_file_cannot_give_is_told_of_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let told = |args: &[&str], file: &str, wants: &[&str]| {
        let error = run(dir, &[&["append"], args].concat()).unwrap_err();
        assert!(error.contains(&format!("error: {file}: ")), "{error}");
        wants.iter().for_each(|want| assert!(error.contains(want), "{want}: {error}"));
        error
    };
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"a"[..], b"b"]));
    write_parquet(&dir.join("b.parquet"), vec![("x", bytes)]);
    told(&["p.m.b", "b.parquet"], "b.parquet", &["column \"x\" of type Binary", "convert it first"]);
    write_npy(&dir.join("nan.npy"), "<f4", "(300, 2)", &le([f32::NAN; 600].map(f32::to_le_bytes)));
    let wants = ["p.m.nan: lloyd(8) is fitted on the first 300 rows", "no value is finite", "f32 holds all values"];
    told(&["p.m.nan", "nan.npy", "--scheme", "lloyd(8)", "--clamp"], "nan.npy", &wants);

    write_npy(&dir.join("v.npy"), "<f4", "(3, 1)", &le([1f32, 2.0, 3.0].map(f32::to_le_bytes)));
    let ids = |ids: [u64; 3]| write_npy(&dir.join("ids.npy"), "<u8", "(3,)", &le(ids.map(u64::to_le_bytes)));
    let with_ids = |file| ["p.m.t", "v.npy", "--row-ids", file];
    ids([1, (1 << 63) + 5, 2]);
    told(&with_ids("ids.npy"), "ids.npy", &["row_id 9223372036854775813 of row 1 is too large", "below 2^63"]);
    // What is twice in a file is not replaced.
    ids([7, 3, 7]);
    std::fs::write(dir.join("ids.txt"), "7\n3\n7\n").unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![7, 3, 7]));
    write_parquet(&dir.join("twice.parquet"), vec![("row_id", column.clone()), ("x", column)]);
    for (args, file) in [
        (&with_ids("ids.npy")[..], "ids.npy"),
        (&with_ids("ids.txt"), "ids.txt"),
        (&["p.m.table", "twice.parquet"], "twice.parquet"),
    ] {
        let error = told(args, file, &["row_id 7 is given to two rows, 0 and 2 (counted from 0)"]);
        assert!(!error.contains("--replace"), "{error}");
    }
    // What is stored already is.
    ids([7, 3, 9]);
    run(dir, &[&["append"], &with_ids("ids.npy")[..]].concat()).unwrap();
    told(&with_ids("ids.npy"), "v.npy", &["p.m.t: row_id 7 is already logged", "--replace"]);
}

#[test]
fn names_do_not_reach_the_terminal_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_npy(&dir.join("v.npy"), "<f4", "(2, 1)", &le([1f32, 2.0].map(f32::to_le_bytes)));
    let key = "p.m.\"a\u{1b}[31m\nb\"";
    let texts = [
        run(dir, &["append", key, "v.npy"]).unwrap(),
        run(dir, &["ls"]).unwrap(),
        run(dir, &["show", key]).unwrap(),
        run(dir, &["show", "p.m"]).unwrap(),
        run(dir, &["get", "p.m.\"\u{1b}x\""]).unwrap_err(),
    ];
    assert!(texts.iter().all(|t| t.contains("\\u{1b}") && !t.contains('\u{1b}')), "{texts:?}");
    assert!(texts[1].contains("a\\u{1b}[31m\\nb"), "{}", texts[1]);
    let error = run(dir, &["get", "p.m@.t"]).unwrap_err();
    assert!(error.contains("a version follows the @"), "{error}");
}

#[test]
fn compressed_files_are_read() {
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let whole: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2000).map(|i| i / 100)));
    let batch = RecordBatch::try_from_iter([("x", whole)]).unwrap();
    let mut keys = Vec::new();
    // What pandas' to_feather writes, and zstd beside it.
    for (name, how) in [("lz4", CompressionType::LZ4_FRAME), ("zstd", CompressionType::ZSTD)] {
        let file = std::fs::File::create(dir.join(format!("{name}.feather"))).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(Some(how)).unwrap();
        let mut writer = FileWriter::try_new_with_options(file, &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        keys.push((format!("p.arrow.{name}"), format!("{name}.feather")));
    }
    for (name, how) in [
        ("lz4", Compression::LZ4),
        ("lz4_raw", Compression::LZ4_RAW),
        ("brotli", Compression::BROTLI(Default::default())),
    ] {
        let file = std::fs::File::create(dir.join(format!("{name}.parquet"))).unwrap();
        let properties = WriterProperties::builder().set_compression(how).build();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        keys.push((format!("p.parquet.{name}"), format!("{name}.parquet")));
    }
    for (key, file) in keys {
        run(dir, &["append", &key, &file]).unwrap();
        assert_eq!(get(dir, &format!("{key}.x"))["row_ids"].as_array().unwrap().len(), 2000, "{key}");
    }
}

#[test]
fn further_rows_are_announced_by_the_scheme_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // What is said of the bytes that will come, in kB.
    let most = |args: &[&str]| -> f64 {
        let said = String::from_utf8(common::output(dir, args).stderr).unwrap();
        let at = said.find("at most ").unwrap_or_else(|| panic!("{said}"));
        let mut words = said[at..].split_whitespace().skip(2);
        let (number, unit) = (words.next().unwrap().parse::<f64>().unwrap(), words.next().unwrap());
        number * if unit.starts_with("MB") { 1000.0 } else { 1.0 }
    };
    let digits = ["log", "d.cnn", "--arch", "digits_cnn", "--init", "1", "--data", "digits"];
    let first = most(&[&digits[..], &["--scheme", "f32", "--rows", "0..100"]].concat());
    assert_eq!(most(&[&digits[..], &["--rows", "100..200"]].concat()), first);
    let refused = run(dir, &[&digits[..], &["--rows", "200..300", "--max-bytes", "500KB"]].concat()).unwrap_err();
    assert!(refused.contains("--max-bytes"), "{refused}");
    let values = le((0..4000).map(|i| (i as f32).sin().to_le_bytes()));
    write_npy(&dir.join("v.npy"), "<f4", "(400, 10)", &values);
    let first = most(&["append", "p.m.v", "v.npy", "--scheme", "f32"]);
    assert_eq!(most(&["append", "p.m.v", "v.npy"]), first);
    assert!(most(&["append", "p.m.v", "v.npy", "--replace"]) < first);
}

#[test]
fn a_scheme_is_for_the_floats_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (floats, labels) =
        (le([0.5f32, 1.0, -2.0, 4.0].map(f32::to_le_bytes)), le([7i64, 70_001].map(i64::to_le_bytes)));
    let view =
        |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("x", view(Dtype::F32, &[2, 2], &floats)),
        ("label", view(Dtype::I64, &[2], &labels)),
        ("pairs", view(Dtype::I64, &[2, 1], &labels)),
    ];
    std::fs::write(dir.join("s.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    run(dir, &["append", "p.m", "s.safetensors", "--scheme", "f16"]).unwrap();
    let scheme = |key: &str| answer(dir, &["show", key])["scheme"].clone();
    assert_eq!((scheme("p.m.x"), scheme("p.m.pairs")), (json!("f16"), json!("f64")));
    assert_eq!(get(dir, "p.m.pairs")["values"], json!([7.0, 70_001.0]));
    assert!(get(dir, "p.m.label")["values"].to_string().contains("70001"));

    let tensors = [("label", view(Dtype::I64, &[2], &labels))];
    std::fs::write(dir.join("l.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let error = run(dir, &["append", "p.l", "l.safetensors", "--scheme", "f16"]).unwrap_err();
    assert!(error.contains("a table is stored as it is"), "{error}");
}
