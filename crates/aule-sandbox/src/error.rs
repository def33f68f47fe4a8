//! What can go wrong with a sandbox.

use std::io;

/// An error of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host lacks something that can be had.
    #[error("{what}")]
    Missing {
        /// What is missing, in a sentence.
        what: String,
        /// What to do, with the command that does it.
        help: String,
    },
    /// The helper could not be started.
    #[error("cannot start the sandbox: {0}")]
    Start(io::Error),
    /// The helper ended, or says what makes no sense.
    #[error("the sandbox broke: {0}")]
    Broken(String),
    /// Something in the sandbox failed.
    #[error("in the sandbox: {what}")]
    Failed {
        /// What.
        what: String,
        /// The kernel's error number, where there is one.
        errno: Option<i32>,
    },
    /// What goes into the sandbox could not be read.
    #[error("cannot fill the sandbox: {0}")]
    Input(io::Error),
    /// What comes out of the sandbox could not be kept.
    #[error("cannot keep what the sandbox made: {0}")]
    Output(io::Error),
}

/// The result of a sandbox's operation.
pub type Result<T, E = SandboxError> = std::result::Result<T, E>;
