//! The commands that look at the store and its builds, and what they have in common: finding the build and the path
//! that are named, and saying what is near when there is no such thing.

mod content;
pub(super) mod diff;
mod directory;
mod entry;
mod export;
mod files;
mod gc;
mod inspect;
mod names;
mod rebuild;
mod sbom;
mod size;
mod text;
mod verify;
mod why;

use crate::{arguments::Command, environment, failure::Failure, output::Format};
use aule_recipe::nearest;
use aule_store::{
    Build, Store, StoreError,
    layer::Contents,
    oci::{Descriptor, Index},
};
use aule_tree::{Digest, Tree, TreePath};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Runs the command.
pub(super) fn run(command: Command, store: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let store = environment::store(store)?;
    match command {
        Command::List => names::list(&store, format),
        Command::Tag { reference, name } => names::tag(&store, &reference, &name, format),
        Command::Rm { names } => names::remove(&store, &names, format),
        Command::Rollback { name } => names::roll_back(&store, &name, format),
        Command::Inspect { reference } => inspect::run(&store, &reference, format),
        Command::Ls { reference, path, recursive } => files::list(&store, &reference, &path, recursive, format),
        Command::Cat { reference, path } => files::cat(&store, &reference, &path, format),
        Command::Sbom { reference, form } => sbom::run(&store, &reference, form),
        Command::Diff { old, new, brief } => diff::run(&store, &old, &new, brief, format),
        Command::Why { reference, path } => why::run(&store, &reference, &path, format),
        Command::Size { reference, top, depth } => size::run(&store, &reference, top, depth, format),
        Command::Verify { reference, rebuild, drop_damaged } => {
            verify::run(&store, &reference, verify::Options { rebuild, drop_damaged }, format)
        }
        Command::Export { reference, output } => export::run(&store, &reference, &output, format),
        Command::Gc { dry_run } => gc::run(&store, dry_run, format),
        // The caller runs these itself.
        Command::Build(_)
        | Command::Plan(_)
        | Command::Lock(_)
        | Command::Check(_)
        | Command::Recipe(_)
        | Command::Nodes { .. }
        | Command::Serve { .. }
        | Command::Site(_) => Err(Failure::usage("this command does not look at the store")),
    }
}

/// What a reference stands for.
fn resolve(store: &Store, reference: &str) -> Result<Descriptor, Failure> {
    let found = reference.parse().and_then(|reference| store.resolve(&reference));
    found.map_err(|error| wrong_reference(reference, error))
}

/// The build that a reference stands for.
pub(super) fn open(store: &Store, reference: &str) -> Result<Build, Failure> {
    let descriptor = resolve(store, reference)?;
    Build::open(store, descriptor).map_err(|error| match error {
        StoreError::NotABuild { reason, .. } => Failure::new(format!("`{reference}` is no build: {reason}"))
            .hint("`aule list` shows the builds in the store"),
        error => error.into(),
    })
}

/// The failure for a reference that leads nowhere.
fn wrong_reference(reference: &str, error: StoreError) -> Failure {
    let see = "`aule list` shows what the store holds";
    match error {
        StoreError::BadRef(_) => Failure::usage(error.to_string()),
        StoreError::UnknownRef { known, .. } => unknown_name(reference, &known),
        StoreError::MissingBlob(_) => Failure::new(format!("there is no `{reference}` in the store")).hint(see),
        StoreError::Json { .. } => {
            Failure::new(format!("`{reference}` is no build: it is not a JSON document")).hint(see)
        }
        error => error.into(),
    }
}

fn unknown_name(reference: &str, known: &[String]) -> Failure {
    let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    let see = "`aule list` shows what the store holds";
    if let Some(digest) = digest.filter(|_| known.iter().any(|it| it == name)) {
        return Failure::new(format!("`{name}` has no generation with the digest {digest}")).hint(see);
    }
    let variants: Vec<&str> = known
        .iter()
        .filter(|it| it.split_once(':').is_some_and(|(first, _)| first == name))
        .map(String::as_str)
        .collect();
    if variants.len() > 1 {
        return Failure::new(format!("`{name}` has several variants: {}", variants.join(", ")))
            .hint("write the one that you mean");
    }
    let failure = Failure::new(format!("there is no `{name}` in the store"));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => failure.hint("the store is empty; `aule build RECIPE` fills it"),
        None => failure.hint(see),
    }
}

/// A build with its root filesystem.
struct Root {
    build: Build,
    tree: Tree,
    contents: Contents,
}

impl Root {
    fn open(store: &Store, reference: &str) -> Result<Root, Failure> {
        let build = open(store, reference)?;
        let (tree, contents) = build.tree(store)?;
        Ok(Root { build, tree, contents })
    }
}

/// The path that was written, as a path of the tree: its directories' symlinks are followed, its own only with
/// `follow` or when it ends with a slash.
fn place(tree: &Tree, written: &OsStr, follow: bool) -> Result<TreePath, Failure> {
    let path = TreePath::new(written.as_bytes()).map_err(|error| Failure::usage(error.to_string()))?;
    let follow = follow || written.as_bytes().ends_with(b"/");
    tree.resolve(&path, follow).map_err(|error| Failure::new(error.to_string()))
}

/// The failure for a path that the tree does not have: with the nearest name that it has.
fn no_such_path(tree: &Tree, path: &TreePath, reference: &str) -> Failure {
    let failure = Failure::new(format!("there is no {} in {reference}", text::path(path)));
    let mut missing = path.clone();
    while let Some(parent) = missing.parent() {
        if let Some(there) = tree.get(&parent) {
            let directory = text::path(&parent);
            if !there.is_directory() {
                return failure.hint(format!("{directory} is a {}, so nothing lies below it", there.kind.word()));
            }
            let children = tree.children(&parent);
            let names: Vec<(String, &TreePath)> =
                children.iter().map(|(path, _)| (text::escape(path.name()), *path)).collect();
            let near = nearest(&text::escape(missing.name()), names.iter().map(|(name, _)| name.as_str()));
            let near = near.and_then(|near| names.iter().find(|(name, _)| name == near));
            return match near {
                Some((_, near)) => failure.hint(format!("did you mean {}?", text::path(near))),
                None => failure.hint(format!("the nearest directory that is there: {directory}")),
            };
        }
        missing = parent;
    }
    failure
}

/// The names of the steps that made the layers, the lowest first.
fn step_names(build: &Build) -> Vec<String> {
    (0..build.manifest.layers.len())
        .map(|number| {
            let made_by = build.config.history.get(number).map(|it| it.created_by.as_str()).unwrap_or_default();
            made_by.strip_prefix("aule: ").unwrap_or(made_by).to_owned()
        })
        .collect()
}

/// The manifests that an index lists, each once: the root filesystem stands in it twice, for tools that look for an
/// entry without a platform.
fn parts(index: &Index) -> Vec<&Descriptor> {
    let mut parts: Vec<&Descriptor> = Vec::new();
    for descriptor in &index.manifests {
        if !parts.iter().any(|it| it.digest == descriptor.digest && it.size == descriptor.size) {
            parts.push(descriptor);
        }
    }
    parts
}

/// All blobs of a build with their sizes, each once.
fn blobs(store: &Store, build: &Build) -> Result<BTreeMap<Digest, u64>, StoreError> {
    let mut blobs = BTreeMap::from([(build.descriptor.digest, build.descriptor.size)]);
    for descriptor in &build.index.manifests {
        let manifest: aule_store::oci::Manifest = store.read_document(descriptor.digest)?;
        blobs.insert(descriptor.digest, descriptor.size);
        blobs.extend(manifest.layers.iter().chain([&manifest.config]).map(|it| (it.digest, it.size)));
    }
    Ok(blobs)
}

/// `cannot VERB PATH: …`
fn failed(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(format!("cannot {verb} {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            failure.hint("the disk is full; what is finished stays, and the command can be run again")
        }
        _ => failure,
    }
}
