//! A build in the store, opened for reading: its index, its root filesystem image and its artifacts.

use crate::{
    Result, Store, StoreError,
    layer::Contents,
    oci::{Descriptor, ImageConfig, Index, Manifest},
};
use aule_tree::{Digest, Tree};

/// The annotation that names an artifact within a build (`boot`, `nfs-root` …) on its descriptor in the index.
pub const ARTIFACT_NAME: &str = "dev.aule.artifact";
/// The annotation with the format version, on the index.
pub const FORMAT: &str = "dev.aule.format";

/// A build: an image index whose first manifest is the root filesystem.
#[derive(Debug, Clone)]
pub struct Build {
    /// Of the index.
    pub descriptor: Descriptor,
    /// The index.
    pub index: Index,
    /// The manifest of the root filesystem.
    pub manifest: Manifest,
    /// The configuration of the root filesystem.
    pub config: ImageConfig,
}

impl Build {
    /// Opens the build that `descriptor` stands for.
    ///
    /// # Errors
    /// When it is not a build of Aulë, or a document of it is missing or damaged.
    pub fn open(store: &Store, descriptor: Descriptor) -> Result<Build> {
        let not_ours = |reason: &str| StoreError::NotABuild { digest: descriptor.digest, reason: reason.into() };
        let index: Index = match store.read_document(descriptor.digest) {
            Err(StoreError::Json { .. }) => return Err(not_ours("it is no image index")),
            read => read?,
        };
        if !index.annotations.contains_key(FORMAT) {
            return Err(not_ours("it has no format version"));
        }
        let first = index.manifests.first().ok_or_else(|| not_ours("its index is empty"))?;
        let manifest: Manifest = store.read_document(first.digest)?;
        let config: ImageConfig = store.read_document(manifest.config.digest)?;
        Ok(Build { descriptor, index, manifest, config })
    }

    /// The layers of the root filesystem, the lowest first.
    pub fn layers(&self) -> Vec<Digest> {
        self.manifest.layers.iter().map(|layer| layer.digest).collect()
    }

    /// The merged tree and its contents.
    pub fn tree(&self, store: &Store) -> Result<(Tree, Contents)> {
        Contents::open(store, &self.layers())
    }

    /// The descriptor of the artifact with this name.
    pub fn artifact(&self, name: &str) -> Option<&Descriptor> {
        self.index.manifests.iter().find(|it| it.annotations.get(ARTIFACT_NAME).is_some_and(|it| it == name))
    }

    /// The manifest of the artifact with this name.
    pub fn artifact_manifest(&self, store: &Store, name: &str) -> Result<Option<Manifest>> {
        self.artifact(name).map(|it| store.read_document(it.digest)).transpose()
    }
}
