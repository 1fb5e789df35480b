//! Files that `append` reads, and that `get -o` and `export` write.

mod common;

use common::{Cli, npy, ok, write_npy, write_table};
use serde_json::Value;

#[test]
fn files_of_any_framework_are_appended() {
    let cli = Cli::new();
    let values: Vec<f32> = (0..5 * 3 * 2).map(|i| i as f32 - 7.5).collect();
    write_npy(&cli.path("a.npy"), &[5, 3, 2], &values);
    cli.ok(&["append", "p.m.t", "a.npy", "--scheme", "f32"]);
    // More rows go on after the last; given ids are taken as they are.
    cli.ok(&["append", "p.m.t", "a.npy"]);
    std::fs::write(cli.path("ids.txt"), "100\n90\n80\n70\n60\n").unwrap();
    cli.ok(&["append", "p.m.t", "a.npy", "--row-ids", "ids.txt"]);
    let twice = cli.fails(&["append", "p.m.t", "a.npy", "--row-ids", "ids.txt"]);
    assert!(twice.contains("row_id 100 is already logged"), "{twice}");
    cli.ok(&["get", "p.m.t", "-o", "all.npy"]);
    let (shape, all) = npy(&cli.path("all.npy"));
    assert_eq!(shape, [15, 3, 2]);
    assert_eq!(all[..30], values[..]);
    assert_eq!(all[30..60], values[..]);
    assert_eq!(all[60..66], values[24..30], "row 60 is the last of the file");
    // More axes than a map's two come back as they were.
    write_npy(&cli.path("deep.npy"), &[2, 3, 1, 2, 2], &values[..24]);
    cli.ok(&["append", "p.m.deep", "deep.npy", "--scheme", "f32"]);
    cli.ok(&["get", "p.m.deep", "-o", "deep2.npy"]);
    assert_eq!(npy(&cli.path("deep2.npy")), (vec![2, 3, 1, 2, 2], values[..24].to_vec()));
    assert_eq!(cli.json(&["get", "p.m.deep.u1"])[0]["shape"], serde_json::json!([1, 1, 2, 2]));
    // RERUN of raw values says why not.
    assert!(cli.fails(&["get", "p.m.t", "--plan", "rerun"]).contains("nothing can run it"));

    // What `get` writes, `append` reads.
    for file in ["o.parquet", "o.arrow", "o.csv", "o.safetensors"] {
        cli.ok(&["get", "p.m.t", "--rows", "0..5", "-o", file]);
    }
    let csv = std::fs::read_to_string(cli.path("o.csv")).unwrap();
    assert!(csv.starts_with("row_id,\"u0[0,0]\",\"u0[0,1]\","), "{csv}");
    assert_eq!(csv.lines().nth(1).unwrap(), "0,-7.5,-6.5,-5.5,-4.5,-3.5,-2.5");
    std::fs::write(cli.path("five.txt"), "0\n1\n2\n3\n4\n").unwrap();

    // Tables: a Parquet file with text, nulls and its own row_ids.
    let table = cli.path("t.parquet");
    write_table(&table);
    cli.ok(&["append", "p.m.table", "t.parquet"]);
    let text = cli.ok(&["get", "p.m.table", "--where", "table.name = 'b'"]);
    assert!(text.contains("8") && text.contains("2 rows") && text.contains("lossless"), "{text}");
    cli.ok(&["get", "p.m.table", "-o", "t2.parquet"]);
    let (a, b) = (
        mistique::datasets::read_parquet(table).unwrap(),
        mistique::datasets::read_parquet(cli.path("t2.parquet")).unwrap(),
    );
    assert_eq!(a.column_by_name("score"), b.column_by_name("score"));
    assert_eq!(a.column_by_name("name"), b.column_by_name("name"));

    // bf16 in stays bf16; several tensors of one file become intermediates of one model.
    let halves: Vec<u8> =
        [1.5f32, -2.0, 0.25, 3.0].iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![2, 2], &halves).unwrap();
    let bytes = safetensors::serialize([("layer1.0.x", view.clone()), ("y", view)], None).unwrap();
    std::fs::write(cli.path("s.safetensors"), bytes).unwrap();
    cli.ok(&["append", "p.torch", "s.safetensors"]);
    let shown = cli.json(&["show", "p.torch.\"layer1.0.x\""]);
    assert_eq!(shown["scheme"], "bf16");
    assert_eq!(cli.json(&["get", "p.torch.y"])[0]["values"], serde_json::json!([1.5, -2.0, 0.25, 3.0]));
    let several = cli.fails(&["append", "p.torch.z", "s.safetensors"]);
    assert!(several.contains("several tensors"), "{several}");

    cli.ok(&["export", "out"]);
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(cli.path("out/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["intermediates"].as_array().unwrap().len(), 5);
    assert!(cli.fails(&["export", "out"]).contains("not empty"));
}

#[test]
fn an_array_of_one_axis_comes_back_with_one() {
    let cli = Cli::new();
    let values = [1.5f32, -2.0, 0.25, 1e30];
    for (key, file, shape) in [("p.m.v", "v.npy", &[4][..]), ("p.m.w", "w.npy", &[4, 1])] {
        write_npy(&cli.path(file), shape, &values);
        let said = String::from_utf8(cli.output(&["append", key, file, "--scheme", "f32"]).stderr).unwrap();
        assert_eq!(said.contains("4 rows of one value, at most"), shape.len() == 1, "{said}");
        cli.ok(&["get", key, "-o", "back.npy"]);
        assert_eq!(npy(&cli.path("back.npy")), (shape.to_vec(), values.to_vec()));
        assert_eq!(cli.json(&["get", key])[0]["shape"], serde_json::json!(shape[1..]));
        cli.ok(&["get", key, "-o", "back.safetensors"]);
        let again = key.replace("p.m", "p.again");
        cli.ok(&["append", &again, "back.safetensors", "--scheme", "f32"]);
        assert_eq!(cli.json(&["ls", &again])[0]["kind"], cli.json(&["ls", key])[0]["kind"]);
    }
    assert!(cli.ok(&["get", "p.m.v"]).contains("4 rows of one value; source: read f32"));
    assert!(cli.ok(&["get", "p.m.w"]).contains("4 rows of [1]; source: read f32"));
    let listed = cli.ok(&["ls"]);
    assert!(listed.contains("one f32") && listed.contains("f32 [1]") && !listed.contains("[]"), "{listed}");
    cli.ok(&["get", "p.m.v.u0,u0", "-o", "twice.npy"]);
    assert_eq!(npy(&cli.path("twice.npy")).0, [4, 2]);
}

#[test]
fn what_get_writes_append_reads() {
    let cli = Cli::new();
    let values: Vec<f32> = (0..2 * 12).map(|i| i as f32 / 4.0).collect();
    write_npy(&cli.path("a.npy"), &[2, 3, 2, 2], &values);
    std::fs::write(cli.path("ids.txt"), "30\n10\n").unwrap();
    cli.ok(&["append", "p.m@1.t", "a.npy", "--row-ids", "ids.txt", "--scheme", "f32"]);
    for (file, key) in [("o.parquet", "q.a.t"), ("o.arrow", "q.b.t"), ("o.safetensors", "q.c.t")] {
        cli.ok(&["get", "p.m.t", "-o", file]);
        cli.ok(&["append", key, file, "--scheme", "f32"]);
        let (a, b) = (cli.json(&["get", "p.m.t"]), cli.json(&["get", key]));
        assert_eq!(
            (&a[0]["values"], &a[0]["row_ids"], &a[0]["shape"]),
            (&b[0]["values"], &b[0]["row_ids"], &b[0]["shape"])
        );
    }
    // Two versions of one layer are told apart.
    cli.ok(&["append", "p.m@2.t", "a.npy", "--row-ids", "ids.txt"]);
    cli.ok(&["get", "p.m@1.t", "p.m@2.t", "-o", "two.safetensors"]);
    cli.ok(&["get", "p.m@1.t", "p.m@2.t", "-o", "two.parquet"]);
    let two = mistique::datasets::read_parquet(cli.path("two.parquet")).unwrap();
    assert!(two.column_by_name("p.m@1.t").is_some() && two.column_by_name("p.m@2.t").is_some());
}

#[test]
fn what_get_writes_keeps_types_and_takes_a_file_s_place_at_once() {
    use arrow::array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray,
    };
    use std::sync::Arc;
    let cli = Cli::new();
    let columns: [(&str, ArrayRef); 5] = [
        ("n", Arc::new(Int64Array::from(vec![1, 1 << 60, -3]))),
        ("x", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(2.5)]))),
        ("yes", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("text", Arc::new(StringArray::from(vec![Some("a,b\u{7f}\u{85}"), Some(""), None]))),
        ("when", Arc::new(TimestampSecondArray::from(vec![0, 60, 86_400]).with_timezone("UTC"))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(
        std::fs::File::create(cli.path("t.parquet")).unwrap(),
        batch.schema(),
        None,
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    cli.ok(&["append", "p.m.t", "t.parquet"]);

    let json = &cli.json(&["get", "p.m.t.n,x,yes,text"])[0]["values"];
    let expected =
        serde_json::json!([1, 0.1, true, "a,b\u{7f}\u{85}", 1i64 << 60, null, false, "", -3, 2.5, true, null]);
    assert_eq!(*json, expected);
    let text = cli.ok(&["get", "p.m.t"]);
    assert!(text.contains("1970-01-01T00:01:00Z") && text.contains("null"), "{text}");
    assert!(cli.ok(&["get", "p.m.t.n", "--where", "t.when > '1970-01-01T00:00:30Z'"]).contains("2 rows"));

    // An array of one type; a single column is a vector, and null floats are NaN.
    cli.ok(&["get", "p.m.t.n", "-o", "n.npy"]);
    let bytes = std::fs::read(cli.path("n.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'descr': '<i8', 'fortran_order': False, 'shape': (3, )"));
    assert_eq!(bytes[128..], [1i64, 1 << 60, -3].map(i64::to_le_bytes).concat());
    cli.ok(&["get", "p.m.t.x", "-o", "x.npy"]);
    assert_eq!(std::fs::read(cli.path("x.npy")).unwrap()[128..136], 0.1f64.to_le_bytes());
    for (columns, why) in [("n,x", "one type"), ("text", "no nulls"), ("when", "holds no Timestamp")] {
        let failed = cli.fails(&["get", &format!("p.m.t.{columns}"), "-o", "keep.npy"]);
        assert!(failed.contains(why) && failed.contains(".parquet"), "{columns}: {failed}");
    }
    // What fails leaves what was there, and nothing beside it.
    std::fs::write(cli.path("keep.npy"), "mine").unwrap();
    cli.fails(&["get", "p.m.t.text", "-o", "keep.npy"]);
    assert_eq!(std::fs::read_to_string(cli.path("keep.npy")).unwrap(), "mine");
    // A link stays one, and a file keeps its permissions.
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        symlink("keep.npy", cli.path("link.npy")).unwrap();
        std::fs::set_permissions(cli.path("keep.npy"), std::fs::Permissions::from_mode(0o600)).unwrap();
        cli.ok(&["get", "p.m.t.n", "-o", "link.npy"]);
        assert!(std::fs::symlink_metadata(cli.path("link.npy")).unwrap().is_symlink());
        let kept = std::fs::metadata(cli.path("keep.npy")).unwrap();
        assert_eq!((kept.permissions().mode() & 0o777, kept.len()), (0o600, 152));
    }
    let names = || std::fs::read_dir(cli.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names().all(|n| !n.ends_with(".part")), "{:?}", names().collect::<Vec<_>>());
    cli.ok(&["get", "p.m.t", "-o", "t.csv"]);
    let csv = std::fs::read_to_string(cli.path("t.csv")).unwrap();
    assert_eq!(csv.lines().nth(2).unwrap(), "1,1152921504606846976,,false,\"\",1970-01-01T00:01:00Z");
    assert_eq!(csv.lines().nth(3).unwrap(), "2,-3,2.5,true,,1970-01-02T00:00:00Z");

    // Halves that were logged as halves are written as such.
    for (dtype, width) in [(safetensors::Dtype::BF16, 2), (safetensors::Dtype::F16, 2), (safetensors::Dtype::F32, 4)] {
        let bytes: Vec<u8> = (0..4u8).flat_map(|i| vec![0, 60 + i, 0, 0][..width].to_vec()).collect();
        let view = safetensors::tensor::TensorView::new(dtype, vec![2, 2], &bytes).unwrap();
        let file = safetensors::serialize([("y", view)], None).unwrap();
        std::fs::write(cli.path("in.safetensors"), file).unwrap();
        let model = format!("p.{dtype:?}").to_lowercase();
        cli.ok(&["append", &model, "in.safetensors"]);
        cli.ok(&["get", &format!("{model}.y"), "--plan", "read", "-o", "out.safetensors"]);
        let out = std::fs::read(cli.path("out.safetensors")).unwrap();
        let y = safetensors::SafeTensors::deserialize(&out).unwrap().tensor("y").unwrap().data().to_vec();
        if width == 2 {
            assert_eq!(y, bytes, "{dtype:?}");
        }
    }
    // Rows of the first key stand for those of the others, which is said.
    cli.ok(&["append", "p.m.u", "t.parquet"]);
    cli.ok(&["append", "p.m.u", "t.parquet"]);
    let out = cli.output(&["get", "p.m.t.n", "p.m.u.n"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("p.m.u has 6 rows; these are the 3 of p.m.t"), "{out:?}");
}

#[test]
fn large_answers_are_shown_and_written_in_parts() {
    let cli = Cli::new();
    // 147 MB, of which 128 MiB are a part.
    let shape = [4500, 8192];
    let values: Vec<f32> = (0..4500 * 8192u32).map(|i| (i % 8191 * (i / 8192 % 7)) as f32).collect();
    write_npy(&cli.path("in.npy"), &shape, &values);
    cli.ok(&["append", "p.m.t", "in.npy", "--scheme", "f32"]);
    let shown = cli.ok(&["get", "p.m.t"]);
    assert!(shown.contains("4,500 rows of [8192]; source: read f32 exact, these rows in"), "{shown}");
    assert!(shown.contains("4,480 more rows"), "{shown}");
    assert_eq!(cli.json(&["get", "p.m.t", "-o", "out.npy"])["rows"], 4500);
    assert!(npy(&cli.path("out.npy")) == (shape.to_vec(), values), "what was written is what was logged");
    let plans = cli.json(&["explain", "p.m.t"]);
    assert!(plans[0]["actual_seconds"].as_f64().unwrap() > 0.0, "{plans}");
    assert_eq!(plans[0]["considered"][0]["plan"], "READ");
    // One that selects nothing has no part to show.
    assert!(cli.ok(&["get", "p.m.t", "--where", "t.u0 < 0"]).contains(": 0 rows"));
}

#[test]
fn what_is_written_can_be_read_elsewhere() {
    use arrow::array::{ArrayRef, Date64Array, RecordBatch, TimestampSecondArray};
    use arrow::datatypes::{DataType, TimeUnit};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::sync::Arc;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let days: ArrayRef = Arc::new(Date64Array::from(vec![0, 86_400_000]));
    let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, 1]).with_timezone("UTC"));
    let batch = RecordBatch::try_from_iter([("day", days), ("time", times)]).unwrap();
    let file = std::fs::File::create(dir.join("t.arrow")).unwrap();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let schema = |file: &str| {
        let file = std::fs::File::open(dir.join(file)).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().schema().clone()
    };
    let names = |file: &str| schema(file).fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    // Parquet has no type for either.
    ok(dir, &["append", "p.m.t", "t.arrow"]);
    ok(dir, &["get", "p.m.t", "-o", "t.parquet"]);
    let types: Vec<DataType> = schema("t.parquet").fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types[1..], [DataType::Date32, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))]);

    // No two columns have one name.
    std::fs::write(dir.join("t.csv"), "row_id,a\n5,1\n").unwrap();
    std::fs::write(dir.join("t.yaml"), "name: t\nstages: [{name: r, op: ReadCSV, file: t.csv}]\n").unwrap();
    ok(dir, &["log", "t.yaml", "--data", "."]);
    ok(dir, &["get", "pipelines.t.r", "-o", "r.csv"]);
    let written = std::fs::read_to_string(dir.join("r.csv")).unwrap();
    assert_eq!(written.lines().next(), Some("row_id,pipelines.t.r.row_id,a"));
    ok(dir, &["get", "pipelines.t.r", "-o", "r.parquet"]);
    assert_eq!(names("r.parquet"), ["row_id", "pipelines.t.r.row_id", "a"]);
    write_npy(&dir.join("v.npy"), &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    ok(dir, &["append", "p.m.v", "v.npy"]);
    ok(dir, &["append", "p.m.row_id", "v.npy"]);
    ok(dir, &["get", "p.m.v.u0", "p.m.v.u1..3", "-o", "v.parquet"]);
    assert_eq!(names("v.parquet"), ["row_id", "p.m.v.u0", "p.m.v.u1..u2"]);
    ok(dir, &["get", "p.m.row_id", "-o", "r.parquet"]);
    assert_eq!(names("r.parquet"), ["row_id", "p.m.row_id"]);
    ok(dir, &["get", "p.m.v.u0", "p.m.v.u1..3", "p.m.row_id", "-o", "v.safetensors"]);
    let bytes = std::fs::read(dir.join("v.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found = file.names();
    found.sort_unstable();
    assert_eq!(found, ["p.m.row_id", "p.m.v.u0", "p.m.v.u1..u2", "row_id"]);
}
