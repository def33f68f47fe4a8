//! Where results go: stdout, as text for people or as one JSON object on the last line.

use crate::failure::Failure;
use std::io::{self, Write};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object on the last line.
    Json,
}

/// Writes to stdout. A reader that went away (`aule ls … | head`) is no error: the process ends quietly.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(format!("cannot write to stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a line of text.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    write(format!("{}\n", text.as_ref()).as_bytes())
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::new(format!("the result cannot be written as JSON: {error}")))?;
    line(text)
}

/// A size as people read it: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
