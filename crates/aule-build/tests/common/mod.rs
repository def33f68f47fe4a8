//! A store and a recipe directory for one test.

#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "test set-up; not every test file uses all of it")]

use aule_build::{BuildError, BuildOutcome, BuildRequest, LocalInputs, LockMode, Network, Observer, build, rebuild};
use aule_recipe::Lock;
use aule_store::{Build, Store, layer::Contents};
use aule_tree::{Digest, Tree};
use std::path::{Path, PathBuf};

struct Silent;

impl Observer for Silent {
    fn step(&self, _: &str, _: bool) {}
    fn note(&self, _: &str) {}
    fn progress(&self, _: &'static str, _: u64, _: Option<u64>) {}
}

/// A store in a temporary directory, and recipes in `tests/golden` or in the temporary directory.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    store: Store,
}

/// The directory with the golden recipe and its tiny image.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        Bench { directory, store }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a recipe with the tiny image as base into the temporary directory.
    pub(crate) fn recipe(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("test.yaml");
        let image = golden().join("tiny.img.xz");
        std::fs::write(&path, format!("name: test\nbase: {{image: {}}}\n{text}", image.display())).unwrap();
        path
    }

    pub(crate) fn build(&self, recipe: impl AsRef<Path>, variant: &str) -> Result<BuildOutcome, BuildError> {
        self.build_with_jobs(recipe, variant, 2)
    }

    pub(crate) fn build_with_jobs(
        &self,
        recipe: impl AsRef<Path>,
        variant: &str,
        jobs: usize,
    ) -> Result<BuildOutcome, BuildError> {
        let sources = |path: &Path| std::fs::read(path);
        let set = aule_recipe::load(&sources, &golden().join(recipe))?;
        build(&self.request(jobs), &set.variant(variant)?)
    }

    pub(crate) fn build_with_inputs(
        &self,
        inputs: &dyn aule_build::Inputs,
        recipe: &Path,
    ) -> Result<BuildOutcome, BuildError> {
        let sources = |path: &Path| std::fs::read(path);
        let set = aule_recipe::load(&sources, recipe)?;
        build(&BuildRequest { inputs, ..self.request(1) }, &set.variant("default")?)
    }

    pub(crate) fn rebuild(&self, build: Digest) -> Result<BuildOutcome, BuildError> {
        let descriptor = self.store.resolve(&build.to_string().parse().unwrap()).unwrap();
        rebuild(&self.request(1), &Build::open(&self.store, descriptor).unwrap())
    }

    pub(crate) fn request(&self, jobs: usize) -> BuildRequest<'_> {
        BuildRequest {
            store: &self.store,
            inputs: &LocalInputs,
            jobs,
            base: None,
            network: Network::default(),
            now: None,
            lock: Lock::default(),
            lock_mode: LockMode::Add,
            sandbox: None,
            observer: &Silent,
        }
    }

    /// The tree of a finished build.
    pub(crate) fn tree(&self, outcome: &BuildOutcome) -> (Tree, Contents) {
        let descriptor = self.store.resolve(&outcome.digest.to_string().parse().unwrap()).unwrap();
        Build::open(&self.store, descriptor).unwrap().tree(&self.store).unwrap()
    }
}
