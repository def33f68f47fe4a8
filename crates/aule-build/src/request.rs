//! What a build takes from outside, and what it gives.

use crate::{inputs::Inputs, packages::SandboxTools};
use aule_recipe::Lock;
use aule_store::{StepKey, Store, download::Proxies};
use aule_tree::{Digest, Timestamp};
use serde::Serialize;
use std::path::PathBuf;

/// Told what a build does, for people who wait.
pub trait Observer: Sync {
    /// A step is done.
    fn step(&self, name: &str, cached: bool);
    /// Something worth a line.
    fn note(&self, message: &str);
    /// `done` of `total` bytes.
    fn progress(&self, what: &'static str, done: u64, total: Option<u64>);
}

/// How the network is reached.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// The proxies to use.
    pub proxies: Option<Proxies>,
    /// PEM certificates to trust beside the built-in roots.
    pub extra_roots: Vec<u8>,
    /// The archive of Debian packages for a base that names none.
    pub mirror: Option<String>,
}

/// What may happen to the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// What is missing is added, what is unused is dropped.
    Add,
    /// Any difference is an error.
    Locked,
}

/// Everything that a build takes from outside.
pub struct BuildRequest<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// Where local inputs come from.
    pub inputs: &'a dyn Inputs,
    /// How many threads work; does not show in the result.
    pub jobs: usize,
    /// A local image in place of the recipe's.
    pub base: Option<PathBuf>,
    /// How the network is reached.
    pub network: Network,
    /// The time by which signatures are judged; `None` to judge them whatever the time.
    pub now: Option<Timestamp>,
    /// The lock as it is.
    pub lock: Lock,
    /// What may happen to it.
    pub lock_mode: LockMode,
    /// What it takes to run programs of the image; `None` where there is nothing to install.
    pub sandbox: Option<SandboxTools>,
    /// Told what happens.
    pub observer: &'a dyn Observer,
}

impl<'a> BuildRequest<'a> {
    /// The same request with other inputs.
    pub(crate) fn with_inputs<'b>(&self, inputs: &'b dyn Inputs) -> BuildRequest<'b>
    where
        'a: 'b,
    {
        BuildRequest {
            inputs,
            store: self.store,
            jobs: self.jobs,
            base: self.base.clone(),
            network: self.network.clone(),
            now: self.now,
            lock: self.lock.clone(),
            lock_mode: self.lock_mode,
            sandbox: self.sandbox.clone(),
            observer: self.observer,
        }
    }
}

/// A finished step, as `--format json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepOutcome {
    /// `base`, `packages`, `files`, `config`, or `output NAME`.
    pub name: String,
    /// Its key.
    pub key: StepKey,
    /// Whether its result was there already.
    pub cached: bool,
}

/// One artifact of a build, as `--format json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// `boot`, `nfs-root`, `oci`, `seed`, `source`.
    pub name: String,
    /// Of the manifest.
    pub media_type: String,
    /// Of the manifest.
    pub digest: Digest,
    /// Of all its files together, in bytes.
    pub size: u64,
    /// The files that the manifest lists.
    pub files: Vec<ArtifactFile>,
}

/// One file (or layer) of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtifactFile {
    /// The name that it is exported under; none for the layers of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of the blob.
    pub media_type: String,
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildOutcome {
    /// The recipe's name.
    pub recipe: String,
    /// The variant.
    pub variant: String,
    /// The reference under which it is stored.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The digest of its index: its identity.
    pub digest: Digest,
    /// What it is made of.
    pub artifacts: Vec<Artifact>,
    /// What was done.
    pub steps: Vec<StepOutcome>,
    /// The lock as it should be from now on.
    #[serde(skip)]
    pub lock: Lock,
}
