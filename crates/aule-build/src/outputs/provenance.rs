//! The provenance: where a build and each of its paths came from. A referrer of the build, not a part of it, so that
//! a comment in the recipe or another place of the image file does not change the build's identity.

use crate::{
    Result,
    outputs::artifact::{self, types},
};
use aule_recipe::Location;
use aule_store::{
    Store,
    oci::{Annotations, Descriptor, Manifest, media_type},
};
use aule_tree::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a build came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The upstream image as the recipe names it.
    pub image: String,
    /// Whether a local file was given in its place (`--base`).
    pub image_replaced: bool,
    /// SHA-256 of the image file.
    pub image_digest: Digest,
    /// How the image was verified.
    pub verified: String,
    /// The steps in order, with the layer that each made.
    pub steps: Vec<ProvenanceStep>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenanceStep {
    /// `base`, `files`, `config`.
    pub name: String,
    /// Its key.
    pub key: Digest,
    /// Its layer; none when it changed nothing.
    pub layer: Option<Digest>,
    /// For each path that it touched (bytes that are not UTF-8 escaped), what asked for that.
    pub paths: BTreeMap<String, Origin>,
}

/// What asked for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The key in the recipe: `overlays[1]`, `files./etc/hostname`.
    pub key: String,
    /// The recipe file, as it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl Origin {
    pub(crate) fn new(key: &str, location: Option<Location>) -> Self {
        let (file, line, column) = match location {
            Some(it) => (Some(it.file.display().to_string()), Some(it.line), Some(it.column)),
            None => (None, None, None),
        };
        Origin { key: key.into(), file, line, column }
    }
}

/// Hangs the provenance on the build.
pub(crate) fn put(store: &Store, build: &Descriptor, provenance: &Provenance) -> Result<()> {
    let bytes = serde_json::to_vec(provenance)
        .map_err(|_| crate::BuildError::Internal("the provenance cannot be written as JSON"))?;
    let digest = store.put(&bytes)?;
    let file = artifact::file(types::PROVENANCE_DOCUMENT, "provenance.json", digest, bytes.len() as u64);
    let subject = Descriptor::new(media_type::INDEX, build.digest, build.size);
    let manifest =
        artifact::put(store, "provenance", types::PROVENANCE, vec![file], Annotations::new(), Some(subject))?;
    Ok(store.set_referrer(build.digest, &manifest)?)
}

/// The provenance of a build, if the store has it.
pub fn read(store: &Store, build: Digest) -> Result<Option<Provenance>> {
    for referrer in store.referrers(build)? {
        if referrer.artifact_type.as_deref() != Some(types::PROVENANCE) {
            continue;
        }
        let manifest: Manifest = store.read_document(referrer.digest)?;
        if let Some(file) = manifest.layers.first() {
            let bytes = store.read_blob(file.digest, 256 << 20, "a provenance")?;
            return Ok(serde_json::from_slice(&bytes).ok());
        }
    }
    Ok(None)
}
