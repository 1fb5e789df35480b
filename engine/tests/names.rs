//! Names are data: any text is stored and found, and none becomes a path.

mod common;

use common::{batch, damage, read_tensor, spec};
use mistique_engine::{
    Content, EngineError, IfExists, IntermediateKey, Key, LogOptions, ModelKey, ModelSpec, Rows, Store,
};

fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "../../x",
        "/etc/passwd",
        "..",
        ".",
        "a/b\\c",
        "a\"b",
        "a'b",
        "\"",
        "\"\"",
        "a.b.c",
        "a@b",
        "a b",
        " ",
        "\n",
        "line\r\nline",
        "\t",
        "\0",
        "a\0b",
        "😀",
        "ünïcödé",
        "e\u{301}",
        "\u{202e}rtl",
        "%s%n",
        "*",
        "?",
        "u0..4",
        "u3[1,2]",
        "';DROP TABLE models;--",
        "NULL",
        "0",
        "-1",
        "1e9",
        "CON",
        "nul.txt",
        "~",
        "$HOME",
        "a,b",
        "(",
        "=",
        "\u{feff}",
    ]
    .map(String::from)
    .into();
    names.push("long ".repeat(2000));
    names
}

#[test]
fn any_text_is_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s").join("t").join("store.mq");
    let store = Store::open_or_create(&path).unwrap();
    let keys: Vec<IntermediateKey> = names()
        .into_iter()
        .map(|n| {
            let model = ModelKey { project: n.clone(), model: n.clone(), version: n.clone() };
            model.intermediate(n)
        })
        .collect();
    let mut log = store.logger(LogOptions::default()).unwrap();
    for (i, key) in keys.iter().enumerate() {
        let spec_of = ModelSpec { description: key.intermediate.clone(), ..ModelSpec::raw(key.model.clone()) };
        let model = log.model(&spec_of, IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec(&key.intermediate, &[4], "f32")).unwrap();
        log.append(handle, &[i as u64], batch(&[i as u64], 4)).unwrap();
    }
    log.commit().unwrap();
    drop((log, store));

    let store = Store::open(&path).unwrap();
    let models = store.models().unwrap();
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(models[i].spec.key, key.model);
        assert_eq!(models[i].spec.description, key.intermediate);
        let want = (vec![i as u64], batch(&[i as u64], 4));
        assert_eq!(read_tensor(&store, key, &Rows::All).unwrap(), want, "{key}");
        // As printed it is found again.
        let parsed: Key = key.to_string().parse().unwrap();
        assert_eq!(&parsed.intermediate, key);
    }
    assert_eq!(damage(&store), []);
    store.compact(&mut |_, _| {}).unwrap();
    drop(store);

    // Nothing but the files of FORMAT.md, and nothing outside of the store.
    let mut files = Vec::new();
    let mut folders = vec![dir.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let root = path.display();
    let names: Vec<String> = files.iter().map(|f| f.display().to_string().replace(&format!("{root}/"), "")).collect();
    assert_eq!(names, ["catalog.db", "partitions/0000000002.mqp", "writer.lock"]);
}

#[test]
fn names_that_differ_are_different() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(dir.path()).unwrap();
    let names = ["a", "A", "a ", "a\0", "a\0b", "\u{e9}", "e\u{301}"];
    let mut log = store.logger(LogOptions::default()).unwrap();
    for (i, name) in names.iter().enumerate() {
        let model = log.model(&ModelSpec::raw(ModelKey::new("p", *name)), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[1], "f32")).unwrap();
        log.append(handle, &[0], vec![i as f32]).unwrap();
    }
    log.commit().unwrap();
    drop(log);
    for (i, name) in names.iter().enumerate() {
        assert_eq!(read_tensor(&store, &common::key(name, "t"), &Rows::All).unwrap().1, [i as f32], "{name:?}");
    }
}

#[test]
fn columns_of_a_table_have_any_names() {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(dir.path()).unwrap();
    let column = |i: usize| -> ArrayRef { std::sync::Arc::new(Int64Array::from(vec![i as i64; 3])) };
    let batch = RecordBatch::try_from_iter(names().into_iter().enumerate().map(|(i, n)| (n, column(i)))).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.table(model, "t", 0, &batch.schema()).unwrap();
    log.append_table(handle, &[2, 1, 0], &batch).unwrap();
    log.commit().unwrap();
    drop(log);
    let record = store.intermediate(&common::key("m", "t")).unwrap();
    let Content::Table(content) = &*record.content else { panic!("no table") };
    for (i, name) in names().into_iter().enumerate() {
        assert_eq!(content.schema.index_of(&name).unwrap(), i);
        let plan = store.plan_rows(&record, &Rows::All).unwrap();
        assert_eq!(store.read_table(&record, &plan, &[i]).unwrap().column(0), &column(i));
    }
}

#[test]
fn empty_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(dir.path()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    for key in [ModelKey::new("", "m"), ModelKey::new("p", "")] {
        let refused = log.model(&ModelSpec::raw(key), IfExists::Continue);
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{refused:?}");
    }
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    assert!(matches!(log.tensor(model, &spec("", &[1], "f32")), Err(EngineError::Invalid { .. })));
}
