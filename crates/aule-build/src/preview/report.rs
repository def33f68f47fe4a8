//! What a look ahead finds, as `--format json` shows it.

use aule_recipe::Lock;
use aule_store::{Build, StepKey, download::shown};
use aule_tree::{Digest, Tree};
use serde::Serialize;

/// What a build is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Comparison<'a> {
    /// An earlier build, and the reference that it was found by.
    pub build: Option<(&'a str, &'a Build)>,
    /// The lock as it is written.
    pub lock: &'a Lock,
}

/// What a build would do.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// The recipe's name.
    pub recipe: String,
    /// The variant.
    pub variant: String,
    /// The reference under which the build would be stored.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What packages are compared with, and files where it is a build.
    pub against: Against,
    /// The steps and outputs, in the order in which they would run.
    pub steps: Vec<Step>,
    /// What would be fetched; what the store has is not.
    pub downloads: Vec<Download>,
    /// Whether that is all; else packages may come that are not known yet.
    pub downloads_complete: bool,
    /// The packages.
    pub packages: Packages,
    /// The tree that would come out, or why it is not known.
    #[serde(skip)]
    pub tree: Result<Tree, String>,
    /// The lock as it would be, for this variant. What is not known of it is as it was.
    #[serde(skip)]
    pub lock: Lock,
    /// What is not known of the lock, in words.
    #[serde(skip)]
    pub lock_unknown: Vec<String>,
}

/// With what something was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Against {
    /// A build of the store.
    Build {
        /// The reference that it was found by.
        #[serde(rename = "ref")]
        reference: String,
        /// The digest of its index.
        digest: Digest,
    },
    /// What the lock pins, over what the base has.
    Lock,
    /// What the base has: there is neither a build nor anything locked.
    Base,
}

/// A step or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `base`, `packages`, `files`, `config`, or `output NAME`.
    pub name: String,
    /// What would happen to it.
    pub state: StepState,
    /// Its key, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<StepKey>,
    /// Why the state is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What would happen to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Its result is in the store.
    Cached,
    /// It would run.
    Runs,
    /// It is not known before another step has run.
    Unknown,
}

/// Something that would be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Download {
    /// What it is.
    pub kind: DownloadKind,
    /// Of a package its name and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where from. It is shown without what may be secret in it.
    #[serde(serialize_with = "without_secrets")]
    pub url: String,
    /// In bytes; `None` where nobody says it.
    pub size: Option<u64>,
    /// How many bytes of it are there already, from a run that was cut short.
    pub received: u64,
}

fn without_secrets<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(url))
}

impl Download {
    /// How many bytes are still to be fetched, where that is known.
    pub fn rest(&self) -> Option<u64> {
        self.size.map(|size| size.saturating_sub(self.received))
    }
}

/// The kind of a [`Download`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DownloadKind {
    /// The base image.
    Image,
    /// A Debian package.
    Package,
    /// A file that `files:` names by its URL.
    File,
}

/// The packages of the tree that would come out, compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packages {
    /// How they are known.
    pub state: Knowledge,
    /// What is not known, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many are as they were.
    pub unchanged: u64,
    /// Those that are not, by name.
    pub changes: Vec<PackageChange>,
}

/// How the packages are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// They are those that a build would have.
    Resolved,
    /// Some are only known as the lock pins them; whether the recipe still needs them, and what would go, is not known.
    Pinned,
    /// They are not known.
    Unknown,
}

/// How a package differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// In what.
    pub change: Change,
    /// Its name; `name:architecture` where that is not the tree's own.
    pub name: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The version that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The version that would be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// How many bytes of it would be fetched: 0 where the store has it; `None` for what comes with an image, and what goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<u64>,
    /// How much room it takes, in bytes, as it says itself (`Installed-Size`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_size: Option<u64>,
    /// The same of what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_installed_size: Option<u64>,
    /// How many files it brings; known only of packages that the store has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// What happens to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// A later version comes.
    Upgraded,
    /// An earlier version comes.
    Downgraded,
}
