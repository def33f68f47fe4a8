//! `aule`: the command line. It parses arguments, reads what the environment says, and words results and errors; all
//! work is done by the libraries.

mod arguments;
mod commands;
mod environment;
mod failure;
mod output;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the other side of a sandbox is this program too, and must be the only thread.
    if let Some(code) = aule_sandbox::helper() {
        return code;
    }
    // clap ends the process itself for --help (0) and wrong usage (2).
    let arguments = arguments::Arguments::parse();
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
