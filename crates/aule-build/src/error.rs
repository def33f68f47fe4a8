//! What can go wrong in a build.

use aule_recipe::Diagnostics;
use aule_store::StoreError;
use aule_tree::{Digest, PathError, ResolveError, TreePath};
use std::{io, path::PathBuf};

/// An error of a build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe, or what it names, is wrong; shown with file, line and column.
    #[error(transparent)]
    Recipe(#[from] Diagnostics),
    /// The recipe in the source of a build is damaged.
    #[error(transparent)]
    Canonical(#[from] aule_recipe::CanonicalError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The upstream image cannot be opened.
    #[error("cannot read the image {path}: {source}")]
    OpenImage {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The upstream image cannot be imported.
    #[error("cannot import {image}: {source}")]
    Image {
        /// The image, as the recipe or the user names it.
        image: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The upstream image is none that could be used.
    #[error("cannot import {image}: {reason}")]
    UnusableImage {
        /// The image.
        image: String,
        /// Why.
        reason: String,
    },
    /// The upstream image is not the one that was asked for.
    #[error("{image} has the digest {found}, but {by} says {expected}")]
    WrongImage {
        /// The image.
        image: String,
        /// Who says what it should be: the recipe, the checksums, the lock.
        by: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A download failed.
    #[error("{0}")]
    Download(Box<dyn std::error::Error + Send + Sync>),
    /// A signature or a list of checksums is not to be trusted.
    #[error("cannot verify {what}: {source}")]
    Unverified {
        /// What should have been verified.
        what: String,
        /// Why it is not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A local input that goes to a path of the image cannot be read.
    #[error("cannot read what goes to {path}: {source}")]
    ReadInput {
        /// In the image.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// A file of the image is too large to be read or edited.
    #[error("cannot read {path} of the image: {source}")]
    ReadFile {
        /// In the image.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// An input changed between two looks at it.
    #[error("what goes to {0} changed during the build; build again")]
    InputChanged(TreePath),
    /// A path is no path in a tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path cannot be followed.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Packages cannot be resolved.
    #[error("cannot resolve the packages: {0}")]
    Packages(String),
    /// A look ahead cannot know it, as what it takes is neither in the store nor said by an index.
    #[error("{0}")]
    NotAtHand(String),
    /// The sandbox in which packages are installed failed, or this machine has none.
    #[error(transparent)]
    Sandbox(#[from] aule_sandbox::SandboxError),
    /// dpkg or a package's script failed.
    #[error("{what}: {how}; its last words:\n{output}")]
    Install {
        /// What was done.
        what: String,
        /// How it ended.
        how: String,
        /// The last lines that were printed.
        output: String,
    },
    /// A boot image cannot be made.
    #[error("cannot make the boot image: {0}")]
    Boot(String),
    /// The lock is not what `--locked` demands.
    #[error("{0}")]
    Locked(String),
    /// A reference leads to something that is no build of ours.
    #[error("{0} is not a build of Aulë: {1}")]
    NotABuild(Digest, String),
    /// A mistake in Aulë itself.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
}

/// The result of a build operation.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;
