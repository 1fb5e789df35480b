//! The examples of docs/queries.md in other tools: run as they stand there, on what `mistique get -o` exports, and compared
//! with what the store itself answers. Where Python cannot install the tools, the test says on stderr that it did not run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const PACKAGES: [&str; 3] = ["duckdb", "polars", "datafusion"];

/// Past the test harness, which keeps what a passing test prints to itself.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn mistique(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mistique"));
    let out = command.env("MISTIQUE_STORE", dir.join("demo.mq")).current_dir(dir).args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    text(&out)
}

/// An interpreter that has the packages, or why there is none; kept between runs.
fn python() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-sql");
    let python = dir.join("bin/python");
    let run = |command: &mut Command| match command.output() {
        Ok(out) if out.status.success() => Ok(text(&out)),
        Ok(out) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("{command:?}: {e}")),
    };
    let script = format!("import {0}\nfor p in [{0}]: print(p.__name__, p.__version__)", PACKAGES.join(", "));
    let versions = || run(Command::new(&python).args(["-c", &script]));
    let found = match versions() {
        Ok(found) => found,
        Err(_) => {
            run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
            run(Command::new(&python)
                .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
                .args(PACKAGES))?;
            versions()?
        }
    };
    say(&format!("the examples of docs/queries.md run with {}", found.trim().replace('\n', ", ")));
    Ok(python)
}

/// The blocks of code, each with the output that is shown below it.
fn examples(doc: &str) -> Vec<(String, String)> {
    let block = |after: &str, fence: &str| -> Option<(String, usize)> {
        let start = after.find(fence)? + fence.len();
        let len = after[start..].find("```")?;
        Some((after[start..start + len].to_string(), start + len + 3))
    };
    let mut all = Vec::new();
    let mut rest = doc;
    while let Some((code, end)) = block(rest, "```python\n") {
        rest = &rest[end..];
        let (output, end) = block(rest, "```text\n").expect("output below the code");
        rest = &rest[end..];
        all.push((code, output));
    }
    all
}

/// Rows of a printed table: class, count, mean.
fn rows(table: &str) -> Vec<(String, u64, f64)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(['│', '┆', '|']).map(str::trim).filter(|c| !c.is_empty()).collect();
        let [name, n, mean] = cells[..] else { return None };
        Some((name.to_string(), n.parse().ok()?, mean.parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn the_documented_examples_run() {
    let doc = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/queries.md")).unwrap();
    let examples = examples(&doc);
    let named = |tool: &str| examples.iter().any(|(code, _)| code.to_lowercase().starts_with(&format!("# {tool}\n")));
    assert!(examples.len() == 3 && PACKAGES.into_iter().all(named));
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            say(&format!("NOT RUN: the DuckDB, Polars and DataFusion examples of docs/queries.md: {why}"));
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    mistique(dir, &["demo", "--epochs", "2"]);
    for line in doc[doc.find("## In other tools").unwrap()..].lines() {
        if let Some(command) = line.strip_prefix("    $ mistique ") {
            mistique(dir, &command.split(' ').collect::<Vec<_>>());
        }
    }
    let json = mistique(dir, &["query", "mean", "digits.cnn@epoch-2.dense1.u12", "--by", "label", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let groups = json["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 10);
    for (code, shown) in &examples {
        let tool = code.lines().next().unwrap();
        let out = Command::new(&python).current_dir(dir).args(["-c", code]).env("PYTHONUTF8", "1").output().unwrap();
        assert!(out.status.success(), "{tool}: {}", String::from_utf8_lossy(&out.stderr));
        let (got, shown) = (rows(&text(&out)), rows(shown));
        assert_eq!(got.len(), 10, "{tool}: {}", text(&out));
        // Means differ a little between processors, and are compared with the store's.
        let classes = |rows: &[(String, u64, f64)]| rows.iter().map(|r| (r.0.clone(), r.1)).collect::<Vec<_>>();
        assert_eq!(classes(&got), classes(&shown), "{tool}");
        for ((name, n, mean), group) in got.iter().zip(groups) {
            let of = |field: &str| group[field].clone();
            assert_eq!((of("group"), of("n_rows")), (name.as_str().into(), (*n).into()), "{tool}");
            let expected = group["means"][0].as_f64().unwrap();
            assert!((mean - expected).abs() < 6e-4, "{tool}: {name}: {mean}, the store says {expected}");
        }
    }
}
