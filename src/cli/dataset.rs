//! `mistique dataset`.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::log::{left_out_json, left_out_note};
use super::output::{Rows, bytes, count, pretty, shape_text};
use super::progress::Progress;
use super::{Result, file_error};
use crate::Spec;
use crate::datasets::{KNOWN, LOADERS, TableFile, open_tables};

#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Ways to name a dataset, and datasets that `fetch` knows.
    Ls,
    /// Download a known dataset, resuming and checking it.
    Fetch {
        /// Its name.
        name: String,
        /// Where to put it (default: ./data/NAME).
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Write a generator's tables as CSV files, such as the three of generated:zillow?rows=2985217.
    Write {
        /// Such as generated:zillow or 'generated:housing?rows=1000'.
        spec: String,
        /// Where to put them.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Rows, shape and fingerprint of a dataset.
    Show {
        /// Such as digits or cifar10:DIR.
        spec: String,
    },
}

pub fn run(command: &DatasetCommand, as_json: bool) -> Result<String> {
    match command {
        DatasetCommand::Ls => {
            let mut rows = Rows::new(&["spec", "what"]);
            for loader in LOADERS {
                rows.push(
                    vec![loader.usage.into(), loader.about.into()],
                    json!({"spec": loader.usage, "about": loader.about}),
                );
            }
            for known in KNOWN {
                let size: u64 = known.files.iter().map(|f| f.len_bytes).sum();
                let text = format!("{} ({} to download)", known.about, bytes(size));
                let json = json!({"fetch": known.name, "about": known.about, "bytes": size});
                rows.push(vec![format!("fetch {}", known.name), text], json);
            }
            Ok(rows.render(as_json))
        }
        DatasetCommand::Fetch { name, into } => {
            let dir = into.clone().unwrap_or_else(|| PathBuf::from("data").join(name));
            let mut progress = Progress::bytes("downloading", as_json);
            let files = crate::datasets::fetch(name, &dir, &mut |done, total| progress.at(done, total));
            progress.finish();
            let files: Vec<String> = files?.iter().map(|f| f.display().to_string()).collect();
            Ok(if as_json {
                pretty(&json!({ "files": files }))
            } else {
                format!("{}\nuse it as --data {name}:{}\n", files.join("\n"), dir.display())
            })
        }
        DatasetCommand::Write { spec, into } => write(spec, into, as_json),
        DatasetCommand::Show { spec } => {
            let spec: Spec = spec.parse()?;
            let dataset = crate::datasets::open(&spec)?;
            if !as_json {
                left_out_note(&*dataset);
            }
            let fingerprint: String = dataset.fingerprint().iter().map(|b| format!("{b:02x}")).collect();
            Ok(if as_json {
                pretty(&json!({
                    "name": spec.name(), "rows": dataset.n_rows(), "shape": dataset.row_shape(), "fingerprint": fingerprint,
                    "labels": dataset.labels().is_some(), "classes": dataset.class_names(),
                    "left_out": left_out_json(&*dataset),
                }))
            } else {
                format!(
                    "{}: {} rows of {}, {} labels, fingerprint {fingerprint}\n",
                    spec.name(),
                    count(dataset.n_rows() as u64),
                    shape_text(dataset.row_shape()),
                    if dataset.labels().is_some() { "with" } else { "no" },
                )
            })
        }
    }
}

fn write(spec: &str, into: &Path, as_json: bool) -> Result<String> {
    let set = open_tables(spec)?;
    std::fs::create_dir_all(into).map_err(file_error(into))?;
    let mut rows = Rows::new(&["file", "rows", "bytes"]);
    for file in set.files() {
        // Files are there already.
        let TableFile::Generated(table) = set.file(&file)? else { continue };
        let path = into.join(&file);
        let mut out = BufWriter::new(File::create(&path).map_err(file_error(&path))?);
        let n_rows = table.write_csv(&mut out, &path)?;
        let len_bytes = path.metadata().map_err(file_error(&path))?.len();
        rows.push(
            vec![path.display().to_string(), count(n_rows), bytes(len_bytes)],
            json!({"file": path.display().to_string(), "rows": n_rows, "bytes": len_bytes}),
        );
    }
    Ok(rows.render(as_json))
}
