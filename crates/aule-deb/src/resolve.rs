//! Which packages are needed: those that are asked for and what they need, beside what is installed already.
//!
//! The question is put to a SAT solver (`resolvo`), in the terms in which apt decides: of each package only the version that
//! is installed and the one that the sources offer (apt's candidate) count, what is installed stays as it is unless it must
//! change, and of several ways the first that a package names is taken.

mod explain;
mod problem;
#[cfg(test)]
mod tests;
mod universe;

pub use universe::{Source, Universe};

use crate::index::{IndexError, Package};
use std::collections::BTreeSet;

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Packages to be installed, or brought to the version that the sources offer: `name`, `name:architecture`,
    /// `name=version`.
    pub install: Vec<String>,
    /// Packages that must not be there.
    pub remove: Vec<String>,
}

/// Name, architecture and version of a package as it is asked for.
fn parts(wanted: &str) -> (&str, Option<&str>, Option<&str>) {
    let (name, version) = wanted.split_once('=').map_or((wanted, None), |(name, version)| (name, Some(version)));
    let (name, architecture) = name.split_once(':').map_or((name, None), |(name, it)| (name, Some(it)));
    (name, architecture, version)
}

/// What has to be done.
#[derive(Debug, Clone)]
pub struct Solution<'a> {
    /// Packages that come anew or in another version, by name: the source's number, and the package.
    pub install: Vec<(usize, Package<'a>)>,
    /// Packages that go, by name.
    pub remove: Vec<Package<'a>>,
    /// Packages that were asked for and are there as they should be, by name.
    pub kept: Vec<Package<'a>>,
}

/// Why there is no solution.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// An index cannot be understood.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// No source has it.
    #[error("no source has a package `{name}`")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Names that look like it.
        similar: Vec<String>,
    },
    /// No source has it in this version.
    #[error("no source has version {version} of `{name}`; there is {there}")]
    NoVersion {
        /// The package.
        name: String,
        /// The version that was asked for.
        version: String,
        /// Those that are there.
        there: String,
    },
    /// It is asked for of another architecture.
    #[error(
        "`{name}` is asked for as {wanted}, and the image is {architecture}; packages of others cannot be installed"
    )]
    Architecture {
        /// The package.
        name: String,
        /// The architecture that was asked for.
        wanted: String,
        /// That of the image.
        architecture: String,
    },
    /// Several packages stand for it.
    #[error("`{name}` is no package, but provided by {}: ask for one of them", by.join(", "))]
    Virtual {
        /// The name that was asked for.
        name: String,
        /// Packages that provide it.
        by: Vec<String>,
    },
    /// It must not be removed.
    #[error("`{name}` cannot be removed: it is {why}")]
    Stays {
        /// The package.
        name: String,
        /// What it is.
        why: &'static str,
    },
    /// It is on hold, and another version is asked for.
    #[error("`{name}` is on hold in version {there}, and version {wanted} is asked for")]
    Held {
        /// The package.
        name: String,
        /// Its version.
        there: String,
        /// The version that was asked for.
        wanted: String,
    },
    /// What is wanted contradicts itself.
    #[error("the packages cannot be installed together:{}", .0.iter().map(|it| format!("\n{it}")).collect::<String>())]
    Contradiction(Vec<Reason>),
}

/// Something that is in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// What it is, in one line.
    pub what: String,
    /// How it came that the packages are needed, from what was asked for, each in one line.
    pub ways: Vec<String>,
    /// The names of packages that were asked for with which the ways begin.
    pub asked: Vec<String>,
    /// The names of all packages that are in the way; the first of several reasons has those of all.
    pub names: BTreeSet<String>,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        self.ways.iter().try_for_each(|way| write!(f, "\n  {way}"))
    }
}
