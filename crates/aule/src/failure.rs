//! How a command fails: a message with its place, a hint, and the exit code. Everything about it goes to stderr.

use aule_build::BuildError;
use aule_recipe::Diagnostics;
use aule_store::StoreError;
use std::{io::Write, process::ExitCode};

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened and where; without `error: ` before it.
    message: String,
    /// What to do about it.
    hints: Vec<String>,
    /// Diagnostics say `error:` themselves.
    rendered: bool,
    code: u8,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), hints: Vec::new(), rendered: false, code: 1 }
    }

    /// A wrong use of the command: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { code: 2, ..Failure::new(message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Writes it to stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let start = if self.rendered { "" } else { "error: " };
        let mut text = format!("{start}{}\n", self.message);
        for hint in &self.hints {
            text.push_str(&format!("hint: {hint}\n"));
        }
        // Nothing can be done when stderr is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Failure { rendered: true, ..Failure::new(diagnostics.to_string()) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            error if error.is_storage_full() => failure
                .hint("the disk is full; the store is valid, and the next run goes on from what is finished")
                .hint("`aule gc` removes what no build needs any more; `--store DIR` uses another disk"),
            StoreError::DamagedBlob { .. } | StoreError::Layer { .. } => {
                failure.hint("`aule verify --drop-damaged REF` checks every file of a build and removes what is damaged; then build again")
            }
            StoreError::UnknownRef { .. } => failure.hint("`aule list` shows what the store holds"),
            _ => failure,
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Recipe(diagnostics) => diagnostics.into(),
            BuildError::Store(error) => error.into(),
            BuildError::WrongImage { .. } => Failure::new(error.to_string()).hint(
                "the file is damaged or another one; fetch it again, or correct the checksum if you trust the file",
            ),
            BuildError::Unverified { .. } => {
                Failure::new(error.to_string()).hint("nothing was built; check keyring, signature and checksums")
            }
            error => {
                let mut message = error.to_string();
                // Where an error wraps another without showing it, the inner one is what people need.
                let mut source = std::error::Error::source(&error);
                while let Some(inner) = source {
                    let text = inner.to_string();
                    if !message.contains(&text) {
                        message.push_str(&format!(": {text}"));
                    }
                    source = inner.source();
                }
                Failure::new(message)
            }
        }
    }
}
