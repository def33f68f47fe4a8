//! What can go wrong in the store.

use aule_tree::Digest;
use std::{io, path::PathBuf};

/// An error of the store. Messages name the file or blob; the source says why.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb: `read`, `write`, `lock`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory is something else than a store.
    #[error("{path} is not an Aulë store: {reason}")]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A digest stands for something else than a build.
    #[error("{digest} is not a build of Aulë: {reason}")]
    NotABuild {
        /// What was opened.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// An image that a name of somebody else's stands for cannot be opened.
    #[error("the image `{name}` cannot be opened: {source}")]
    Image {
        /// Its name.
        name: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// A blob that something names is not there.
    #[error("blob {0} is not in the store")]
    MissingBlob(Digest),
    /// A blob's bytes are not what its name says.
    #[error("blob {digest} is damaged: its bytes have the digest {found}")]
    DamagedBlob {
        /// The name.
        digest: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// A blob is longer than anything of its kind may be.
    #[error("blob {digest} has {size} bytes; at most {limit} are taken for {what}")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The most that is taken.
        limit: u64,
        /// What it should be.
        what: &'static str,
    },
    /// A JSON document of the store cannot be understood.
    #[error("{what} is not valid: {source}")]
    Json {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A layer blob cannot be understood.
    #[error("layer {layer} is damaged: {reason}")]
    Layer {
        /// The layer, or a word for one that is being written.
        layer: String,
        /// What is wrong.
        reason: String,
    },
    /// A file's content is not what was announced.
    #[error("{path} changed while it was read: expected {expected}, found {found}")]
    ContentChanged {
        /// The path in the image.
        path: String,
        /// What was announced.
        expected: String,
        /// What came.
        found: String,
    },
    /// Reading the content of a file that goes into a layer failed.
    #[error("cannot read the content of {path}: {source}")]
    Content {
        /// The path in the image.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A layer cannot hold it.
    #[error("{path} cannot be put in a layer: {reason}")]
    Unwritable {
        /// The path in the image.
        path: String,
        /// Why.
        reason: String,
    },
    /// No such ref.
    #[error("there is no `{name}` in the store{}", near(.known))]
    UnknownRef {
        /// What was asked for.
        name: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// A ref has nothing older to go back to.
    #[error("`{0}` has no older generation to go back to")]
    NoOlderGeneration(String),
    /// Not a ref.
    #[error("`{0}` is not a reference: write `name:variant`, `name:variant@sha256:…` or `sha256:…`")]
    BadRef(String),
    /// What a look at the store would have changed.
    #[error("the store at {0} is only looked at, and must stay as it is")]
    OnlyLookedAt(PathBuf),
    /// The store is in use where it must not be.
    #[error("another aule process is using the store at {0}; try again when it is done")]
    InUse(PathBuf),
}

fn near(known: &[String]) -> String {
    match known {
        [] => "; it is empty".into(),
        known => format!("; it holds {}", known.join(", ")),
    }
}

impl StoreError {
    /// For `map_err`: an [`io::Error`] with what was tried and where.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { action, path, source }
    }

    /// Whether the disk is full (or a quota is): the store stays valid, and the next run goes on.
    pub fn is_storage_full(&self) -> bool {
        let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            StoreError::Io { source, .. } | StoreError::Content { source, .. } => full(source),
            _ => false,
        }
    }
}

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
