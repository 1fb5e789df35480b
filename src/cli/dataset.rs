//! `mistique dataset`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::Result;
use super::output::{Rows, bytes, count, pretty};
use super::progress::Progress;
use crate::Spec;
use crate::datasets::{KNOWN, LOADERS};

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
        DatasetCommand::Show { spec } => {
            let spec: Spec = spec.parse()?;
            let dataset = crate::datasets::open(&spec)?;
            let fingerprint: String = dataset.fingerprint().iter().map(|b| format!("{b:02x}")).collect();
            Ok(if as_json {
                pretty(&json!({
                    "name": spec.name(), "rows": dataset.n_rows(), "shape": dataset.row_shape(), "fingerprint": fingerprint,
                    "labels": dataset.labels().is_some(), "classes": dataset.class_names(),
                }))
            } else {
                format!(
                    "{}: {} rows of {:?}, {} labels, fingerprint {fingerprint}\n",
                    spec.name(),
                    count(dataset.n_rows() as u64),
                    dataset.row_shape(),
                    if dataset.labels().is_some() { "with" } else { "no" },
                )
            })
        }
    }
}
