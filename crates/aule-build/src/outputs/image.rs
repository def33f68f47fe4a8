//! The root filesystem as a runnable `linux/arm64` image, and the index that is the build.

use crate::{FORMAT_VERSION, Result, stage::LayerRecord};
use aule_store::{
    ARTIFACT_NAME, FORMAT, Store,
    artifact::TEMPLATES,
    oci::{Annotations, Descriptor, History, ImageConfig, Index, Manifest, Platform, RootFs, RunConfig, media_type},
};
use aule_tree::Timestamp;

/// Puts configuration and manifest of the image that `layers` make up in the store. `names` says which step made each;
/// `templates` are the files that are to be rendered for each node.
pub(crate) fn put_image(
    store: &Store,
    layers: &[LayerRecord],
    names: &[&str],
    date: Timestamp,
    templates: &[String],
) -> Result<Descriptor> {
    let created = date.whole_seconds().to_string();
    let config = ImageConfig {
        created: Some(created.clone()),
        architecture: "arm64".into(),
        os: "linux".into(),
        config: RunConfig {
            cmd: vec!["/sbin/init".into()],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            labels: Annotations::new(),
        },
        rootfs: RootFs { kind: "layers".into(), diff_ids: layers.iter().map(|layer| layer.diff_id).collect() },
        history: names
            .iter()
            .map(|name| History { created: Some(created.clone()), created_by: format!("aule: {name}") })
            .collect(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: None,
        config: store.put_document(media_type::CONFIG, &config)?,
        layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        subject: None,
        annotations: template_annotation(templates),
    };
    let mut descriptor = store.put_document(media_type::MANIFEST, &manifest)?;
    descriptor.platform = Some(Platform { architecture: "arm64".into(), os: "linux".into() });
    descriptor.annotations.insert(ARTIFACT_NAME.into(), "oci".into());
    Ok(descriptor)
}

/// The annotation that names templates, where there are any.
pub(crate) fn template_annotation(templates: &[String]) -> Annotations {
    let joined = (!templates.is_empty()).then(|| (TEMPLATES.to_owned(), templates.join("\n")));
    joined.into_iter().collect()
}

/// Puts the index in the store: its digest is the identity of the build.
///
/// The root filesystem comes first, with its platform, and once more at the end without one: a tool on another
/// architecture that is not told which image to take (`skopeo inspect` on a PC) finds no match and then takes the entry
/// without a platform (containers/image, `OCI1Index.ChooseInstance`); with that entry alone, others (crane) would take
/// the image for linux/amd64.
pub(crate) fn put_index(
    store: &Store,
    recipe: &str,
    variant: &str,
    mut manifests: Vec<Descriptor>,
) -> Result<Descriptor> {
    if let Some(root) = manifests.first().cloned() {
        manifests.push(Descriptor { platform: None, annotations: Annotations::new(), ..root });
    }
    // skopeo 1.9 drops artifact types when it copies an index, and with them its digest; the manifests have them anyway.
    for manifest in &mut manifests {
        manifest.artifact_type = None;
    }
    let annotations = Annotations::from([
        (FORMAT.to_owned(), FORMAT_VERSION.to_string()),
        ("dev.aule.recipe".to_owned(), recipe.to_owned()),
        ("dev.aule.variant".to_owned(), variant.to_owned()),
    ]);
    let index =
        Index { schema_version: 2, media_type: media_type::INDEX.into(), artifact_type: None, manifests, annotations };
    Ok(store.put_document(media_type::INDEX, &index)?)
}
