//! An artifact: a manifest without a configuration whose layers are files (image-spec, "Guidelines for Artifact Usage").

use crate::Result;
use aule_store::{
    ARTIFACT_NAME, Store,
    oci::{Annotations, Descriptor, Manifest, Platform, TITLE, media_type},
};
use aule_tree::Digest;

pub use aule_store::artifact::types;

/// One file of an artifact, whose blob is in the store.
pub(crate) fn file(media_type: &str, name: &str, digest: Digest, size: u64) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.annotations.insert(TITLE.into(), name.into());
    descriptor
}

/// Puts the manifest of an artifact in the store and gives its descriptor for the index.
pub(crate) fn put(
    store: &Store,
    name: &str,
    artifact_type: &str,
    files: Vec<Descriptor>,
    annotations: Annotations,
    subject: Option<Descriptor>,
) -> Result<Descriptor> {
    let config = Descriptor::new(media_type::EMPTY, store.put(b"{}")?, 2);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: Some(artifact_type.into()),
        config,
        layers: files,
        subject,
        annotations,
    };
    let mut descriptor = store.put_document(media_type::MANIFEST, &manifest)?;
    descriptor.artifact_type = Some(artifact_type.into());
    // Tools that look for an image to run must pass it over.
    descriptor.platform = Some(Platform { architecture: "unknown".into(), os: "unknown".into() });
    descriptor.annotations.insert(ARTIFACT_NAME.into(), name.into());
    Ok(descriptor)
}

/// The digests that a step result with these descriptors needs: the manifests and all their files.
pub(crate) fn blobs(store: &Store, descriptors: &[Descriptor]) -> Result<Vec<Digest>> {
    let mut blobs = Vec::new();
    for descriptor in descriptors {
        let manifest: Manifest = store.read_document(descriptor.digest)?;
        blobs.push(descriptor.digest);
        blobs.push(manifest.config.digest);
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    Ok(blobs)
}
