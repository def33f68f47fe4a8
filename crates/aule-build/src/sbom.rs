//! Bills of materials: which packages a tree holds, under which licences, and which files are of none. As SPDX 2.3 and
//! CycloneDX 1.6, made of the tree alone: the same tree gives the same bytes.

mod cyclonedx;
mod inventory;
mod licence;
mod spdx;

use crate::{
    BuildError, Result,
    outputs::artifact::{self, types},
    stage::Stage,
};
use aule_store::{
    Store,
    oci::{Annotations, Descriptor, Manifest, media_type},
};
use inventory::Inventory;
use serde::Serialize;

/// The form of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BillForm {
    /// SPDX 2.3 in JSON.
    Spdx,
    /// CycloneDX 1.6 in JSON.
    CycloneDx,
}

impl BillForm {
    const ALL: [BillForm; 2] = [BillForm::Spdx, BillForm::CycloneDx];

    /// The media type of the document, and of the referrer that has it.
    pub fn media_type(self) -> &'static str {
        match self {
            BillForm::Spdx => types::SPDX,
            BillForm::CycloneDx => types::CYCLONEDX,
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            BillForm::Spdx => "sbom.spdx.json",
            BillForm::CycloneDx => "sbom.cdx.json",
        }
    }
}

/// Makes both documents of a tree, and gives the manifest that holds them until they hang on a build.
pub(crate) fn make(store: &Store, stage: &Stage, name: &str) -> Result<Descriptor> {
    let inventory = Inventory::read(stage, name)?;
    let documents = [bytes(&spdx::document(&inventory))?, bytes(&cyclonedx::document(&inventory))?];
    let mut files = Vec::new();
    for (form, bytes) in BillForm::ALL.into_iter().zip(documents) {
        files.push(artifact::file(form.media_type(), form.file_name(), store.put(&bytes)?, bytes.len() as u64));
    }
    artifact::put(store, "sbom", types::SBOM, files, Annotations::new(), None)
}

fn bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|_| BuildError::Internal("a bill of materials cannot be written as JSON"))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Hangs the documents that [`make`] made on a build, each as a referrer of its own: tools look for one by its type.
pub(crate) fn put(store: &Store, build: &Descriptor, documents: &Descriptor) -> Result<()> {
    let manifest: Manifest = store.read_document(documents.digest)?;
    for file in manifest.layers {
        let subject = Descriptor::new(media_type::INDEX, build.digest, build.size);
        let media_type = file.media_type.clone();
        let referrer = artifact::put(store, "sbom", &media_type, vec![file], Annotations::new(), Some(subject))?;
        store.set_referrer(build.digest, &referrer)?;
    }
    Ok(())
}

/// The document of a build in this form, if the store has it.
///
/// # Errors
/// When the store cannot be read.
pub fn read_bill(store: &Store, build: aule_tree::Digest, form: BillForm) -> Result<Option<Vec<u8>>> {
    for referrer in store.referrers(build)? {
        if referrer.artifact_type.as_deref() == Some(form.media_type()) {
            let manifest: Manifest = store.read_document(referrer.digest)?;
            if let Some(file) = manifest.layers.first() {
                return Ok(Some(store.read_blob(file.digest, 1 << 30, "a bill of materials")?));
            }
        }
    }
    Ok(None)
}
