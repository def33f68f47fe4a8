//! `aule verify --rebuild`: builds a build again from its own source and base layer, in a store that holds nothing else,
//! so that no result of an earlier step is taken over, and compares.

use super::{failed, parts, step_names, text};
use crate::{environment, failure::Failure, output, progress::Story};
use aule_build::{BuildOutcome, BuildRequest, LocalInputs, LockMode, Network, StepOutcome, read_provenance, rebuild};
use aule_recipe::Lock;
use aule_store::{
    ARTIFACT_NAME, Build, Reference, Store, StoreError,
    oci::{Descriptor, Manifest},
};
use aule_tree::{Digest, changes};
use std::fs;

/// How many differing paths of a layer are named.
const PATHS_MAX: usize = 10;

/// What came of it.
#[derive(serde::Serialize)]
pub(super) struct Rebuilt {
    /// Whether the digest is the same.
    pub(super) same: bool,
    digest: Digest,
    steps: Vec<StepOutcome>,
    differences: Vec<Difference>,
}

/// A part that came out as something else.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Difference {
    part: Part,
    name: String,
    expected: Option<Digest>,
    found: Option<Digest>,
    /// Of a layer: paths that are others after it, the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// The key of a step: its inputs were others.
    StepKey,
    Layer,
    Artifact,
}

/// Builds `build` again and compares.
pub(super) fn run(store: &Store, build: &Build, story: &Story) -> Result<Rebuilt, Failure> {
    // In the store's own place for unfinished files: on the same disk, so that blobs can be linked, and removed by the
    // next process if this one is killed.
    let place = store.root().join("tmp");
    let directory = tempfile::Builder::new()
        .prefix("rebuild-")
        .tempdir_in(&place)
        .map_err(|error| failed("create a directory in", &place, &error))?;
    let fresh = Store::open(directory.path())?;
    for digest in needed(store, build)? {
        let (from, to) = (store.blob_path(digest), fresh.blob_path(digest));
        if !to.exists() && fs::hard_link(&from, &to).is_err() {
            // Another filesystem, or one without links.
            fs::copy(&from, &to).map_err(|error| failed("copy", &from, &error))?;
        }
    }
    let request = BuildRequest {
        store: &fresh,
        inputs: &LocalInputs,
        jobs: environment::jobs(None),
        base: None,
        network: Network::default(),
        now: environment::now(),
        lock: Lock::default(),
        lock_mode: LockMode::Locked,
        sandbox: environment::sandbox(false),
        observer: story,
    };
    let outcome = rebuild(&request, &Build::open(&fresh, build.descriptor.clone())?)?;
    let same = outcome.digest == build.descriptor.digest;
    let differences = if same { Vec::new() } else { compare(store, build, &fresh, &outcome)? };
    Ok(Rebuilt { same, digest: outcome.digest, steps: outcome.steps, differences })
}

/// The blobs that the build can be made from: the image with its layers, and the source.
fn needed(store: &Store, build: &Build) -> Result<Vec<Digest>, Failure> {
    let source = build.artifact("source").ok_or_else(|| {
        Failure::new("the build has no `source` artifact, so it cannot be built again")
            .hint("without `--rebuild` its digests are checked")
    })?;
    let source_manifest: Manifest = store.read_document(source.digest)?;
    let mut needed = vec![build.descriptor.digest, source.digest, build.manifest.config.digest];
    needed.extend(build.index.manifests.first().map(|it| it.digest));
    needed.extend(source_manifest.layers.iter().chain(&build.manifest.layers).map(|it| it.digest));
    Ok(needed)
}

fn compare(store: &Store, old: &Build, fresh: &Store, outcome: &BuildOutcome) -> Result<Vec<Difference>, Failure> {
    let descriptor = fresh.resolve(&Reference { name: None, digest: Some(outcome.digest) })?;
    let new = Build::open(fresh, descriptor)?;
    let mut differences = Vec::new();
    let provenance = read_provenance(store, old.descriptor.digest)?;
    for step in provenance.iter().flat_map(|it| &it.steps) {
        let found = outcome.steps.iter().find(|it| it.name == step.name).map(|it| it.key);
        differences.extend(difference(Part::StepKey, &step.name, Some(step.key), found));
    }
    let layers =
        |build: &Build| -> Vec<(String, Digest)> { step_names(build).into_iter().zip(build.layers()).collect() };
    for mut it in by_name(Part::Layer, &layers(old), &layers(&new)) {
        it.paths = differing_paths(store, old, fresh, &new, &it.name)?;
        differences.push(it);
    }
    let artifacts = |build: &Build| -> Vec<(String, Digest)> {
        let name = |it: &Descriptor| it.annotations.get(ARTIFACT_NAME).cloned().unwrap_or_default();
        parts(&build.index).into_iter().map(|it| (name(it), it.digest)).collect()
    };
    differences.extend(by_name(Part::Artifact, &artifacts(old), &artifacts(&new)));
    Ok(differences)
}

fn difference(part: Part, name: &str, expected: Option<Digest>, found: Option<Digest>) -> Option<Difference> {
    (expected != found).then(|| Difference { part, name: name.into(), expected, found, paths: Vec::new() })
}

/// What differs between two lists of named digests: those of the old one in its order, then what only the new one has.
fn by_name(part: Part, old: &[(String, Digest)], new: &[(String, Digest)]) -> Vec<Difference> {
    let find = |list: &[(String, Digest)], name: &str| list.iter().find(|it| it.0 == name).map(|it| it.1);
    let lost = old.iter().filter_map(|(name, digest)| difference(part, name, Some(*digest), find(new, name)));
    let more = new.iter().filter(|(name, _)| find(old, name).is_none());
    lost.chain(more.filter_map(|(name, digest)| difference(part, name, None, Some(*digest)))).collect()
}

/// The first paths that differ after the layer of this step.
fn differing_paths(
    store: &Store,
    old: &Build,
    fresh: &Store,
    new: &Build,
    step: &str,
) -> Result<Vec<String>, StoreError> {
    let up_to = |build: &Build| -> Vec<Digest> {
        let count = step_names(build).iter().position(|name| name == step).map_or(0, |at| at + 1);
        build.layers().into_iter().take(count).collect()
    };
    let (a, _) = aule_store::layer::Contents::open(store, &up_to(old))?;
    let (b, _) = aule_store::layer::Contents::open(fresh, &up_to(new))?;
    Ok(changes(&a, &b).iter().take(PATHS_MAX).map(|(path, _)| text::path(path)).collect())
}

/// Writes what came of it.
pub(super) fn show(rebuilt: &Rebuilt) -> Result<(), Failure> {
    if rebuilt.same {
        return output::line("built again from its source: the same digest");
    }
    output::line(format!("built again from its source: {}", rebuilt.digest))?;
    for Difference { part, name, expected, found, paths } in &rebuilt.differences {
        let digest = |it: &Option<Digest>| it.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
        let what = match part {
            Part::StepKey => "the inputs of step",
            Part::Layer => "the layer of step",
            Part::Artifact => "the artifact",
        };
        output::line(format!("  {what} {name}: {} became {}", digest(expected), digest(found)))?;
        paths.iter().try_for_each(|path| output::line(format!("    {path}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let named = |names: &[(&str, &str)]| -> Vec<(String, Digest)> {
            names.iter().map(|(name, text)| ((*name).to_owned(), Digest::of(text.as_bytes()))).collect()
        };
        let old = named(&[("oci", "1"), ("boot", "2"), ("nfs-root", "3")]);
        let new = named(&[("oci", "1"), ("boot", "4"), ("seed", "5")]);
        let found: Vec<_> = by_name(Part::Artifact, &old, &new)
            .into_iter()
            .map(|it| (it.name, it.expected.is_some(), it.found.is_some()))
            .collect();
        let wanted = [("boot", true, true), ("nfs-root", true, false), ("seed", false, true)];
        assert_eq!(found, wanted.map(|(name, a, b)| (name.to_owned(), a, b)));
    }
}
