//! What decides the results of steps and outputs, beside the layers below them: asked by the build and by the look ahead.

use crate::{
    BuildRequest, Result, import::BaseInfo, key::step_key, outputs::source::SourceBase, pins, pipeline, steps,
};
use aule_recipe::{Lock, Merged, Recipe};
use aule_store::StepKey;
use aule_tree::{Digest, TreePath};
use serde::Serialize;
use std::collections::BTreeMap;
use steps::seed::Seed;

/// For the step `files`; `fetched` has the digests of fetched files by URL.
pub(crate) fn files<'a>(
    request: &BuildRequest<'_>,
    merged: &'a Merged,
    fetched: &'a BTreeMap<String, Digest>,
    info: &'a BaseInfo,
) -> Result<impl Serialize + use<'a>> {
    let recipe = &merged.recipe;
    Ok((
        &recipe.files,
        recipe.overlays.len(),
        pins::inputs_digest(request, merged)?,
        fetched,
        &recipe.services,
        pipeline::over_nfs(merged).is_some(),
        &info.boot_mount,
    ))
}

/// For the step `config`.
pub(crate) fn config<'a>(recipe: &'a Recipe, seed: &'a Seed, info: &'a BaseInfo) -> impl Serialize + use<'a> {
    let documents = seed.on_boot_partition(&recipe.cloud_init);
    let digests: Vec<_> = documents.into_iter().map(|(name, bytes)| (name, Digest::of(bytes))).collect();
    let has_seed = recipe.cloud_init != Default::default();
    (&recipe.boot, &recipe.root, has_seed.then_some(digests), &info.boot_mount)
}

/// The paths that are rendered for each node: on the boot partition, and elsewhere.
pub(crate) fn templates(all: &[TreePath], boot_mount: Option<&TreePath>) -> (Vec<String>, Vec<String>) {
    let in_boot = |path: &&TreePath| boot_mount.is_some_and(|mount| path.starts_with(mount));
    let (boot, root): (Vec<_>, Vec<_>) = all.iter().partition(in_boot);
    let names = |paths: Vec<&TreePath>| -> Vec<String> {
        paths.into_iter().map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned()).collect()
    };
    (names(boot), names(root))
}

/// The key of the output `source`.
pub(crate) fn source_key(
    request: &BuildRequest<'_>,
    merged: &Merged,
    lock: &Lock,
    base: &SourceBase,
) -> Result<StepKey> {
    let inputs = (
        Digest::of(&aule_recipe::canonical(&merged.recipe)),
        &merged.variant,
        Digest::of(&lock.to_bytes()),
        base,
        pins::inputs_digest(request, merged)?,
        pins::seed_inputs(request, merged)?,
    );
    step_key("output source", &inputs)
}
