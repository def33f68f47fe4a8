//! What a build reads beside the image, by digest: fetched files, which the lock pins, and local inputs.

use crate::{BuildError, BuildRequest, LockMode, Result, base::fetch_into_store, inputs::InputKind};
use aule_recipe::{Diagnostics, ImagePath, Lock, LockedFile, Merged, Url};
use aule_tree::{Digest, Hasher, TreePath};
use std::collections::BTreeMap;

/// The fetched files of a recipe.
pub(crate) struct Pins {
    /// Digests of fetched files by URL.
    pub(crate) files: BTreeMap<String, Digest>,
    /// The lock that pins them.
    pub(crate) lock: Lock,
}

/// Digests of all fetched files: from the lock, else the recipe, else fetched now.
pub(crate) fn pin_files(request: &BuildRequest<'_>, merged: &Merged) -> Result<Pins> {
    let mut pins = Pins { files: BTreeMap::new(), lock: Lock::default() };
    let mut files: BTreeMap<String, LockedFile> = BTreeMap::new();
    for (path, url, stated) in merged.recipe.fetched_files() {
        let stated = stated.map(|it| Digest::from_bytes(it.0));
        let pin = match locked_file(request, merged, path, url, stated)? {
            Some(locked) => locked,
            None => {
                let (digest, size) = fetch_into_store(request, url.as_str(), stated, None)?;
                LockedFile { url: url.as_str().into(), size, sha256: aule_recipe::Sha256(*digest.as_bytes()) }
            }
        };
        pins.files.insert(url.as_str().to_owned(), Digest::from_bytes(pin.sha256.0));
        files.insert(url.as_str().to_owned(), pin);
    }
    pins.lock.files = files.into_values().collect();
    Ok(pins)
}

/// What the lock says of a fetched file, if that is what the recipe says, too; with `--locked` it must be.
pub(crate) fn locked_file(
    request: &BuildRequest<'_>,
    merged: &Merged,
    path: &ImagePath,
    url: &Url,
    stated: Option<Digest>,
) -> Result<Option<LockedFile>> {
    let locked =
        request.lock.file(url).filter(|it| stated.is_none_or(|stated| stated == Digest::from_bytes(it.sha256.0)));
    if locked.is_none() && request.lock_mode == LockMode::Locked {
        let message = format!("`{}` is not in the lock, or with another digest", url.as_str());
        let diagnostic = merged.origins.diagnostic(&format!("files.{path}.url"), message);
        return Err(Diagnostics::from(diagnostic.help("run `aule lock`, and commit the result")).into());
    }
    Ok(locked.cloned())
}

/// The digest of all local inputs that the tree takes in: paths, kinds, executable bits and bytes.
pub(crate) fn inputs_digest(request: &BuildRequest<'_>, merged: &Merged) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let recipe = &merged.recipe;
    let failed = |key: &str, path: &aule_recipe::LocalPath, error: std::io::Error| {
        let message = format!("cannot read `{path}`: {error}");
        BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(key, message)))
    };
    for (number, overlay) in recipe.overlays.iter().enumerate() {
        let key = format!("overlays[{number}]");
        for entry in request.inputs.directory(overlay).map_err(|error| failed(&key, overlay, error))? {
            hasher.field(&entry.path);
            hash_input(&mut hasher, &entry.kind).map_err(|error| failed(&key, overlay, error))?;
        }
        hasher.field(b"end of overlay");
    }
    for (path, entry) in &recipe.files {
        if let aule_recipe::FileKind::Source(local) = &entry.kind {
            let key = format!("files.{path}");
            let kind = request.inputs.file(local).map_err(|error| failed(&key, local, error))?;
            hash_input(&mut hasher, &kind).map_err(|error| failed(&key, local, error))?;
        }
    }
    Ok(hasher.finish())
}

fn hash_input(hasher: &mut Hasher, kind: &InputKind) -> std::io::Result<()> {
    match kind {
        InputKind::Directory => hasher.field(b"directory"),
        InputKind::Symlink(target) => {
            hasher.field(b"symlink");
            hasher.field(target);
        }
        InputKind::File { bytes, executable } => {
            hasher.field(if *executable { b"program" } else { b"file" });
            hasher.field(bytes.digest()?.0.as_bytes());
        }
    }
    Ok(())
}

/// Digests of the local documents of the seed: the source holds them as they are, not merged.
pub(crate) fn seed_inputs(request: &BuildRequest<'_>, merged: &Merged) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for local in merged.recipe.cloud_init.documents().filter_map(|document| document.as_local()) {
        let place = TreePath::new(local.name()).unwrap_or_else(|_| TreePath::root());
        let failed = |source| BuildError::ReadInput { path: place.clone(), source };
        if let InputKind::File { bytes, .. } = request.inputs.file(local).map_err(failed)? {
            digests.push(bytes.digest().map_err(failed)?.0);
        }
    }
    Ok(digests)
}
