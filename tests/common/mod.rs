//! The program, as tests run it: in a folder of its own, with its store `s.mq` there.

#![allow(dead_code, reason = "each file of tests uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mistique"));
    command.env("MISTIQUE_STORE", dir.join("s.mq")).current_dir(dir).args(args).stdin(Stdio::null());
    command
}

pub fn output(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// Standard output where the command succeeds, standard error where it fails, which it does without a panic.
pub fn run(dir: &Path, args: &[&str]) -> Result<String, String> {
    let out = output(dir, args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if out.status.success() {
        return Ok(text(out.stdout));
    }
    let error = text(out.stderr);
    assert!(!error.contains("panicked"), "{args:?}: {error}");
    Err(error)
}

/// Standard output of a command that must succeed.
pub fn ok(dir: &Path, args: &[&str]) -> String {
    run(dir, args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

pub fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(dir, &[args, &["--json"]].concat())).unwrap()
}

/// Standard error of a command that must fail.
pub fn fails(dir: &Path, args: &[&str]) -> String {
    run(dir, args).expect_err(&format!("{args:?} succeeded"))
}

/// Shape and values of a `.npy` file.
pub fn npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let array = mistique::datasets::read_npy(path).unwrap();
    let shape = array.shape.clone();
    (shape, array.to_f32())
}

pub fn write_npy(path: &Path, shape: &[usize], values: &[f32]) {
    mistique::datasets::write_npy(std::fs::File::create(path).unwrap(), shape, values).unwrap();
}

/// A table with text, nulls and its own row_ids, as Parquet.
pub fn write_table(path: &Path) {
    use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
    use std::sync::Arc;
    let columns: [(&str, ArrayRef); 3] = [
        ("row_id", Arc::new(UInt64Array::from(vec![7, 8, 9, 1]))),
        ("name", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("b")]))),
        ("score", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(f64::INFINITY), Some(-3.0)]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    // `get` gives rows by row_id: 1, 7, 8, 9. The file is written in that order so that both can be compared.
    let order = UInt64Array::from(vec![3, 0, 1, 2]);
    let batch = arrow::compute::take_record_batch(&batch, &order).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The program in a folder that goes with it.
pub struct Cli {
    pub dir: tempfile::TempDir,
}

impl Cli {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        command(self.dir.path(), args)
    }

    pub fn output(&self, args: &[&str]) -> Output {
        output(self.dir.path(), args)
    }

    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        run(self.dir.path(), args)
    }

    pub fn ok(&self, args: &[&str]) -> String {
        ok(self.dir.path(), args)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        json(self.dir.path(), args)
    }

    pub fn fails(&self, args: &[&str]) -> String {
        fails(self.dir.path(), args)
    }

    /// Logs `digits_cnn` under a key.
    pub fn digits(&self, model: &str, more: &[&str]) -> String {
        let args = ["log", model, "--arch", "digits_cnn", "--init", "1", "--data", "digits"];
        self.ok(&[&args, more].concat())
    }
}
