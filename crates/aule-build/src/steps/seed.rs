//! `cloud_init:` — the NoCloud seed: four documents, the same for every node before node values are filled in.

use crate::{
    BuildError, Result,
    inputs::{InputKind, Inputs},
    stage::Stage,
};
use aule_recipe::{CloudInit, Diagnostics, Document, Merged, merge_user_data, with_instance_id};
use aule_tree::{Digest, TreePath};
use std::path::PathBuf;

/// The largest document.
const DOCUMENT_MAX: u64 = 16 << 20;

/// The documents of a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) user_data: Vec<u8>,
    pub(crate) meta_data: Vec<u8>,
    pub(crate) vendor_data: Vec<u8>,
    pub(crate) network_config: Vec<u8>,
}

impl Seed {
    /// Name and bytes of each document, in the order in which cloud-init asks for them.
    pub(crate) fn documents(&self) -> [(&'static str, &[u8]); 4] {
        [
            ("network-config", &self.network_config),
            ("meta-data", &self.meta_data),
            ("user-data", &self.user_data),
            ("vendor-data", &self.vendor_data),
        ]
    }

    /// Reads and merges what the recipe names. Meta-data without an `instance-id` gets one derived from the seed: it
    /// changes when the seed does, and cloud-init then configures the machine anew.
    pub(crate) fn read(merged: &Merged, inputs: &dyn Inputs) -> Result<Seed> {
        let cloud_init = &merged.recipe.cloud_init;
        let several = |documents: &[Document], key: &str| -> Result<Vec<u8>> {
            let mut parts = Vec::new();
            for (number, document) in documents.iter().enumerate() {
                parts.push(read(merged, inputs, document, &format!("{key}[{number}]"))?);
            }
            if parts.is_empty() { Ok(Vec::new()) } else { Ok(merge_user_data(&parts)?) }
        };
        let one = |document: &Option<Document>, key: &str| -> Result<Vec<u8>> {
            document.as_ref().map_or(Ok(Vec::new()), |it| Ok(read(merged, inputs, it, key)?.1))
        };
        let mut seed = Seed {
            user_data: several(&cloud_init.user_data, "cloud_init.user_data")?,
            meta_data: one(&cloud_init.meta_data, "cloud_init.meta_data")?,
            vendor_data: several(&cloud_init.vendor_data, "cloud_init.vendor_data")?,
            network_config: one(&cloud_init.network_config, "cloud_init.network_config")?,
        };
        if seed.user_data.is_empty() {
            // NoCloud wants user-data to be there; an empty cloud-config says nothing.
            seed.user_data = b"#cloud-config\n{}\n".to_vec();
        }
        let all = seed.documents().map(|(_, bytes)| Digest::of(bytes).hex()).join("\n");
        let id = format!("aule-{}", Digest::of(all.as_bytes()).hex().get(..16).unwrap_or_default());
        let place = merged.origins.get("cloud_init.meta_data").map_or_else(|| PathBuf::from("meta-data"), |it| it.file);
        let place = cloud_init.meta_data.as_ref().and_then(|it| it.as_local()).map_or(place, |it| it.path().into());
        seed.meta_data = with_instance_id(&place, &seed.meta_data, &id)?;
        Ok(seed)
    }

    /// Name and bytes of the documents that [`Seed::put_on_boot_partition`] puts there.
    pub(crate) fn on_boot_partition(&self, cloud_init: &CloudInit) -> Vec<(&'static str, &[u8])> {
        let named = [
            cloud_init.network_config.is_some(),
            true,
            !cloud_init.user_data.is_empty(),
            !cloud_init.vendor_data.is_empty(),
        ];
        self.documents().into_iter().zip(named).filter(|(_, named)| *named).map(|(document, _)| document).collect()
    }

    /// For a root on disk: puts the documents that the recipe names on the boot partition, where Ubuntu's images have theirs;
    /// those stay where the recipe says nothing. Meta-data changes with the others: its id makes cloud-init look at them.
    pub(crate) fn put_on_boot_partition(
        &self,
        stage: &mut Stage,
        cloud_init: &CloudInit,
        boot_mount: &TreePath,
    ) -> Result<()> {
        for (name, bytes) in self.on_boot_partition(cloud_init) {
            if !bytes.is_empty() {
                stage.put_text(&boot_mount.join(name)?, bytes, 0o755, "cloud_init")?;
            }
        }
        Ok(())
    }
}

/// The bytes of one document, with the file that it is in.
pub(crate) fn read(merged: &Merged, inputs: &dyn Inputs, document: &Document, key: &str) -> Result<(PathBuf, Vec<u8>)> {
    let local = match document {
        Document::Inline(text) => {
            let file = merged.origins.get(key).map_or_else(|| PathBuf::from(key), |it| it.file);
            return Ok((file, text.clone().into_bytes()));
        }
        Document::File(local) => local,
    };
    let blame = |error: String| {
        let message = format!("cannot read `{local}`: {error}");
        BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(key, message)))
    };
    match inputs.file(local).map_err(|error| blame(error.to_string()))? {
        InputKind::File { bytes, .. } => {
            let bytes = bytes.read(DOCUMENT_MAX).map_err(|error| blame(error.to_string()))?;
            Ok((local.path().into(), bytes))
        }
        _ => Err(blame("it is not a file".into())),
    }
}
