//! `mistique calibrate`.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use super::get::reader;
use super::output::{Rows, count, pretty, seconds};
use super::{CliError, Result};
use crate::{Device, Figure, ModelKey, Store};

#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// project.model or project.model@version; all models for none.
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Where models run: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// About how long to measure.
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    seconds: f64,
}

pub fn run(args: &CalibrateArgs, store: &Store, as_json: bool) -> Result<String> {
    // What is measured is to be kept.
    store.check_writable()?;
    args.device.open()?;
    let models = if args.models.is_empty() {
        store.models()?
    } else {
        args.models.iter().map(|m| Ok(store.model(&m.parse::<ModelKey>()?)?)).collect::<Result<_>>()?
    };
    let budget = Duration::try_from_secs_f64(args.seconds)
        .map_err(|e| CliError::Usage(format!("--seconds {}: {e}", args.seconds)))?;
    let reader = reader(store, args.device);
    let done = reader.calibrate(&models, budget, &mut |what, done, all| {
        if !as_json {
            eprintln!("measuring {what} ({} of {all})", done + 1);
        }
    })?;
    if as_json {
        let figures: Vec<Value> = done.figures.iter().map(figure_json).collect();
        return Ok(pretty(&json!({"figures": figures, "measurements": done.made, "missing": done.missing,
                                 "seconds": done.took.as_secs_f64()})));
    }
    let mut rows = Rows::new(&["figure", "of", ">seconds", ">±", ">measured", ">ago"]);
    for f in &done.figures {
        let deviation = f.cost.variance.sqrt() / f.cost.mean.max(f64::MIN_POSITIVE);
        rows.push(
            vec![
                f.what.clone(),
                f.of.clone(),
                format!("{:.3e}", f.cost.mean),
                format!("{:.0} %", 100.0 * deviation),
                count(f.cost.n),
                seconds(age(f)),
            ],
            Value::Null,
        );
    }
    let missing: String = done.missing.iter().map(|m| format!("missing: {m}\n")).collect();
    Ok(format!(
        "{}{missing}{} measurements in {}; {} figures of this machine\n",
        rows.table(),
        count(done.made),
        seconds(done.took.as_secs_f64()),
        count(done.figures.len() as u64)
    ))
}

fn age(figure: &Figure) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    now.saturating_sub(figure.cost.updated).max(0) as f64
}

fn figure_json(f: &Figure) -> Value {
    json!({"figure": f.what, "of": f.of, "seconds": f.cost.mean, "deviation": f.cost.variance.sqrt(),
           "measurements": f.cost.n, "age_seconds": age(f)})
}
