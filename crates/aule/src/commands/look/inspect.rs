//! `aule inspect`: what a build is made of.

use super::{
    blobs, open, step_names,
    text::{Columns, Side},
};
use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_build::{TEMPLATES, read_provenance};
use aule_store::{
    ARTIFACT_NAME, Build, FORMAT, Store,
    oci::{Manifest, TITLE},
};
use aule_tree::Digest;
use std::collections::BTreeMap;

#[derive(serde::Serialize)]
struct Inspected<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    recipe: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    format_version: Option<String>,
    /// Of all blobs, each counted once, in bytes.
    size: u64,
    names: Vec<Name>,
    /// Where it came from, as far as the store knows.
    base: Option<Base>,
    layers: Vec<Layer>,
    artifacts: Vec<Artifact>,
}

#[derive(serde::Serialize)]
struct Name {
    #[serde(rename = "ref")]
    reference: String,
    generation: u64,
    current: bool,
}

#[derive(serde::Serialize)]
struct Base {
    image: String,
    /// Whether it was given in place of the recipe's.
    replaced: bool,
    digest: Digest,
    verified: String,
}

#[derive(serde::Serialize)]
struct Layer {
    step: String,
    digest: Digest,
    diff_id: Option<Digest>,
    size: u64,
    /// The step's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Digest>,
}

#[derive(serde::Serialize)]
struct Artifact {
    name: String,
    media_type: String,
    digest: Digest,
    /// Of its files together, in bytes.
    size: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(serde::Serialize)]
struct File {
    name: Option<String>,
    media_type: String,
    digest: Digest,
    size: u64,
}

/// Shows what a build is made of.
pub(super) fn run(store: &Store, reference: &str, format: Format) -> Result<(), Failure> {
    let build = open(store, reference)?;
    let inspected = inspect(store, &build, reference)?;
    match format {
        Format::Json => output::json(&inspected),
        Format::Text => show(&inspected),
    }
}

fn inspect<'a>(store: &Store, build: &Build, reference: &'a str) -> Result<Inspected<'a>, Failure> {
    let digest = build.descriptor.digest;
    let provenance = read_provenance(store, digest)?;
    let annotation = |key: &str| build.index.annotations.get(key).cloned();
    let key_of = |layer: Digest| {
        let steps = provenance.as_ref().map(|it| it.steps.as_slice()).unwrap_or_default();
        steps.iter().find(|step| step.layer == Some(layer)).map(|step| step.key)
    };
    let names = store.generations()?.into_iter().filter(|it| it.descriptor.digest == digest);
    let layers = build.manifest.layers.iter().zip(step_names(build)).enumerate();
    let mut artifacts = Vec::new();
    for descriptor in super::parts(&build.index) {
        let manifest: Manifest = store.read_document(descriptor.digest)?;
        artifacts.push(Artifact {
            name: descriptor.annotations.get(ARTIFACT_NAME).cloned().unwrap_or_default(),
            media_type: manifest.artifact_type.clone().unwrap_or_else(|| descriptor.media_type.clone()),
            digest: descriptor.digest,
            size: manifest.layers.iter().map(|file| file.size).sum(),
            // The files of the first one are the layers, which are shown by themselves.
            files: if artifacts.is_empty() { Vec::new() } else { manifest.layers.iter().map(File::of).collect() },
            annotations: manifest.annotations,
        });
    }
    Ok(Inspected {
        reference,
        digest,
        recipe: annotation("dev.aule.recipe"),
        variant: annotation("dev.aule.variant"),
        created: build.config.created.clone(),
        format_version: annotation(FORMAT),
        size: blobs(store, build)?.values().sum(),
        names: names.map(|it| Name { reference: it.name, generation: it.number, current: it.current }).collect(),
        layers: layers
            .map(|(number, (layer, step))| Layer {
                step,
                digest: layer.digest,
                diff_id: build.config.rootfs.diff_ids.get(number).copied(),
                size: layer.size,
                key: key_of(layer.digest),
            })
            .collect(),
        base: provenance.map(|it| Base {
            image: it.image,
            replaced: it.image_replaced,
            digest: it.image_digest,
            verified: it.verified,
        }),
        artifacts,
    })
}

impl File {
    fn of(descriptor: &aule_store::oci::Descriptor) -> File {
        File {
            name: descriptor.annotations.get(TITLE).cloned(),
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
        }
    }
}

fn show(it: &Inspected<'_>) -> Result<(), Failure> {
    let mut head = Columns::new("", [Side::Left, Side::Left]);
    let mut line = |name: &str, value: &str| head.row([name, value]);
    line("digest", &it.digest.to_string());
    for (name, value) in
        [("recipe", &it.recipe), ("variant", &it.variant), ("created", &it.created), ("format", &it.format_version)]
    {
        if let Some(value) = value {
            line(name, value);
        }
    }
    line("size", &output::size(it.size));
    for name in &it.names {
        let word = if name.current { "now" } else { "older" };
        line("name", &format!("{} (generation {}, {word})", name.reference, name.generation));
    }
    if let Some(base) = &it.base {
        let given = if base.replaced { " (given with --base)" } else { "" };
        line("image", &format!("{}{given}", base.image));
        line("", &format!("{} ({})", base.digest, base.verified));
    }
    let mut text = head.render();
    text.push_str("\nlayers\n");
    let mut layers = Columns::new("  ", [Side::Left, Side::Right, Side::Left]);
    it.layers.iter().for_each(|layer| layers.row([&layer.step, &output::size(layer.size), &layer.digest.to_string()]));
    text.push_str(&layers.render());
    text.push_str("\nartifacts\n");
    let mut artifacts = Columns::new("  ", [Side::Left, Side::Right, Side::Left]);
    for artifact in &it.artifacts {
        artifacts.row([&artifact.name, &output::size(artifact.size), &artifact.digest.to_string()]);
        for file in &artifact.files {
            let name = format!("  {}", file.name.as_deref().unwrap_or("(unnamed)"));
            artifacts.row([name, output::size(file.size), file.digest.to_string()]);
        }
        if let Some(templates) = artifact.annotations.get(TEMPLATES) {
            artifacts.row(["  templates".to_owned(), String::new(), templates.replace('\n', " ")]);
        }
    }
    text.push_str(&artifacts.render());
    output::write(text.as_bytes())
}
