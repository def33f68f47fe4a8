//! What the image says of packages itself: what is installed, where more comes from, and who may sign it.

use crate::{
    BuildError, Result,
    inputs::{InputKind, Inputs},
    stage::{Stage, TEXT_MAX},
};
use aule_deb::{
    control::paragraphs,
    index::Packages,
    sources::{Fingerprint, SOURCES_MAX, SignedBy, SourceList, deb822, first_mirror, one_line},
};
use aule_recipe::{Diagnostics, LocalPath, Merged};
use aule_tree::TreePath;
use std::{collections::BTreeSet, sync::Arc};

/// Where dpkg writes down what is installed.
pub(super) const STATUS: &str = "var/lib/dpkg/status";
/// Where apt writes down which packages nobody asked for by name.
pub(super) const EXTENDED: &str = "var/lib/apt/extended_states";
const SOURCES: &str = "etc/apt/sources.list";
const SOURCE_PARTS: &str = "etc/apt/sources.list.d";
/// The keys that apt trusts for every source that names none.
const TRUSTED: &str = "etc/apt/trusted.gpg";
const TRUSTED_PARTS: &str = "etc/apt/trusted.gpg.d";
/// What apt prefers to what (apt_preferences(5)).
const PREFERENCES: &str = "etc/apt/preferences";
const PREFERENCES_PARTS: &str = "etc/apt/preferences.d";
/// The largest key file of a recipe.
const KEY_MAX: u64 = 16 << 20;

/// What is known of the image.
pub(super) struct System {
    /// Its architecture, such as `arm64`.
    pub(super) architecture: String,
    /// dpkg's database.
    pub(super) installed: Packages,
    /// The packages that nobody asked for by name: apt may take them away when nobody needs them (apt-mark(8)).
    pub(super) automatic: BTreeSet<String>,
}

/// A source with the keys that may have signed it.
#[derive(Clone)]
pub(super) struct Trusted {
    pub(super) list: SourceList,
    /// Files of keys; one of them is enough.
    pub(super) keys: Arc<Vec<Vec<u8>>>,
    /// Only these of them, by fingerprint; all where it is empty.
    pub(super) fingerprints: Vec<Fingerprint>,
}

impl System {
    /// Reads it from the image's tree.
    pub(super) fn read(stage: &Stage, merged: &Merged) -> Result<System> {
        let status = stage.read_text(&TreePath::new(STATUS)?)?;
        let status = status.ok_or_else(|| {
            let message = format!("the image has no /{STATUS}: only an image with dpkg can have packages");
            BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic("packages", message)))
        })?;
        let installed = Packages::parse(status).map_err(|error| wrong(STATUS, &error))?;
        let dpkg = installed.iter().find(|it| it.name == "dpkg" && it.architecture != "all");
        let architecture = dpkg.map(|it| it.architecture.to_owned());
        let architecture = architecture.ok_or_else(|| wrong(STATUS, &"dpkg itself is not installed"))?;
        let states = stage.read_text(&TreePath::new(EXTENDED)?)?.unwrap_or_default();
        let automatic = paragraphs(&states).filter(|it| it.get("Auto-Installed").is_some_and(|it| it.trim() == "1"));
        let automatic = automatic.filter_map(|it| it.get("Package").map(str::to_owned)).collect();
        Ok(System { architecture, installed, automatic })
    }

    /// Where packages come from, with the keys of each: as the image has it; the recipe's repositories come last.
    pub(super) fn sources(stage: &Stage, merged: &Merged, inputs: &dyn Inputs) -> Result<Vec<Trusted>> {
        let system_keys = Arc::new(system_keys(stage)?);
        let mut lists = Vec::new();
        for path in files(stage, SOURCE_PARTS, &[".list", ".sources"])?.into_iter().chain([TreePath::new(SOURCES)?]) {
            let Some(text) = stage.read_text(&path)? else { continue };
            let read = if path.as_bytes().ends_with(b".sources") { deb822(&text) } else { one_line(&text) };
            lists.extend(read.map_err(|error| wrong(&path.to_string(), &error))?);
        }
        if lists.len() > SOURCES_MAX {
            return Err(wrong(SOURCE_PARTS, &format!("these are more than {SOURCES_MAX} sources")));
        }
        let mut sources = Vec::new();
        for mut list in lists {
            if let Some(mirrors) = list.mirror_list() {
                let text = stage.read_text(&TreePath::new(mirrors.trim_start_matches('/'))?)?.unwrap_or_default();
                let none = || wrong(mirrors.trim_start_matches('/'), &"it names no mirror, and a source asks for one");
                list = list.at(first_mirror(&text).ok_or_else(none)?);
            }
            if list.has_secret {
                let (uri, suite) = (&list.uri, &list.suite);
                // It would get into locks and artifacts, which are shared.
                let message = format!(
                    "the image's source {uri} {suite} has a user name or password in its address: use a mirror without"
                );
                return Err(BuildError::Packages(message));
            }
            let (keys, fingerprints) = match &list.signed_by {
                SignedBy::System => (system_keys.clone(), Vec::new()),
                SignedBy::Fingerprints(fingerprints) => (system_keys.clone(), fingerprints.clone()),
                SignedBy::Keys(text) => (Arc::new(vec![text.clone().into_bytes()]), Vec::new()),
                SignedBy::Files(paths) => {
                    let mut keys = Vec::new();
                    for path in paths {
                        let path = TreePath::new(path.trim_start_matches('/'))?;
                        let missing = || wrong(&path.to_string(), &"there is none, and a source is signed by it");
                        keys.push(stage.read(&path)?.ok_or_else(missing)?);
                    }
                    (Arc::new(keys), Vec::new())
                }
            };
            sources.push(Trusted { list, keys, fingerprints });
        }
        for (number, repository) in merged.recipe.packages.repositories.iter().enumerate() {
            let key = keys(merged, inputs, &repository.key, &format!("packages.repositories[{number}].key"))?;
            let list = SourceList {
                uri: repository.uri.as_str().trim_end_matches('/').to_owned(),
                suite: repository.suite.clone(),
                components: repository.components.clone(),
                ..SourceList::default()
            };
            sources.push(Trusted { list, keys: Arc::new(vec![key]), fingerprints: Vec::new() });
        }
        Ok(sources)
    }
}

/// The files of apt's preferences that pin something; nothing here reads more of them.
pub(super) fn preferences(stage: &Stage) -> Result<Vec<TreePath>> {
    let mut pinning = Vec::new();
    for path in children(stage, PREFERENCES_PARTS)?.into_iter().chain([TreePath::new(PREFERENCES)?]) {
        // As apt chooses them: files without an ending, and `.pref`.
        let bytes = path.as_bytes();
        let name = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let counts = !name.contains(&b'.') || name.ends_with(b".pref");
        let text = if counts { stage.read_text(&path).ok().flatten() } else { None };
        if text.is_some_and(|text| paragraphs(&text).any(|it| it.get("Pin").is_some())) {
            pinning.push(path);
        }
    }
    Ok(pinning)
}

/// A file of keys that the recipe names at `place`.
pub(super) fn keys(merged: &Merged, inputs: &dyn Inputs, file: &LocalPath, place: &str) -> Result<Vec<u8>> {
    let bytes = inputs.file(file).and_then(|kind| match kind {
        InputKind::File { bytes, .. } => bytes.read(KEY_MAX),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    });
    bytes.map_err(|error| {
        let message = format!("cannot read `{file}`: {error}");
        BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(place, message)))
    })
}

fn wrong(path: &str, error: &dyn std::fmt::Display) -> BuildError {
    BuildError::Packages(format!("/{path} of the image: {error}"))
}

/// The keys that the system trusts.
fn system_keys(stage: &Stage) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    for path in files(stage, TRUSTED_PARTS, &[".gpg", ".asc"])?.into_iter().chain([TreePath::new(TRUSTED)?]) {
        keys.extend(stage.read(&path)?.filter(|bytes| !bytes.is_empty()));
    }
    Ok(keys)
}

/// The files of a directory whose names end so, in the order of their names.
fn files(stage: &Stage, directory: &str, ends: &[&str]) -> Result<Vec<TreePath>> {
    // (Symlinks to a file count as the file; TEXT_MAX bounds what is read of it.)
    const { assert!(TEXT_MAX > 0) };
    let children = children(stage, directory)?.into_iter();
    Ok(children.filter(|path| ends.iter().any(|end| path.as_bytes().ends_with(end.as_bytes()))).collect())
}

fn children(stage: &Stage, directory: &str) -> Result<Vec<TreePath>> {
    let directory = stage.tree.resolve(&TreePath::new(directory)?, true)?;
    Ok(stage.tree.children(&directory).into_iter().map(|(path, _)| path.clone()).collect())
}
