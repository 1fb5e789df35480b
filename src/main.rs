//! The `mistique` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    mistique::cli::run()
}
