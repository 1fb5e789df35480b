//! Progress of long work: a bar on a terminal, plain lines elsewhere, on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::bytes;

/// What progress is counted in.
#[derive(Clone, Copy)]
enum Unit {
    Rows,
    Bytes,
    Stages,
}

/// Progress towards a total.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    unit: Unit,
    last: Instant,
    begun: Instant,
    quiet: bool,
}

impl Progress {
    /// Progress of `what`, counted in rows.
    pub fn rows(what: &'static str, quiet: bool) -> Self {
        Self::new(what, "{msg} {wide_bar} {pos}/{len} rows, {per_sec}, {eta} left", Unit::Rows, quiet)
    }

    /// Progress of `what`, counted in stages.
    pub fn stages(what: &'static str, quiet: bool) -> Self {
        Self::new(what, "{msg} {wide_bar} {pos}/{len} stages", Unit::Stages, quiet)
    }

    /// Progress of `what`, counted in bytes.
    pub fn bytes(what: &'static str, quiet: bool) -> Self {
        Self::new(what, "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {eta} left", Unit::Bytes, quiet)
    }

    fn new(what: &'static str, template: &str, unit: Unit, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(0).with_style(style).with_message(what);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, what, unit, last: Instant::now(), begun: Instant::now(), quiet }
    }

    /// Says how far it is.
    pub fn at(&mut self, done: u64, total: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            // Lines for logs: one every five seconds.
            None if !self.quiet && self.last.elapsed() >= Duration::from_secs(5) => {
                self.last = Instant::now();
                let (a, b, unit) = match self.unit {
                    Unit::Bytes => (bytes(done), bytes(total), ""),
                    Unit::Rows => (done.to_string(), total.to_string(), " rows"),
                    Unit::Stages => (done.to_string(), total.to_string(), " stages"),
                };
                eprintln!("{}: {a} of {b}{unit} after {:.0} s", self.what, self.begun.elapsed().as_secs_f64());
            }
            None => {}
        }
    }

    /// Says which stage of which model begins.
    pub fn stage(&mut self, model: &str, stage: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{model}: {stage}"));
        }
        self.at(done, total);
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
