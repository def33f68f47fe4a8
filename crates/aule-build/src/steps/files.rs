//! `files:` — single files, symlinks, directories and removals.

use crate::{
    BuildError, Result,
    inputs::{Bytes, InputKind, Inputs},
    stage::Stage,
    steps::accounts,
};
use aule_recipe::{Diagnostics, FileEntry, FileKind, Merged};
use aule_tree::{Inode, Kind, Metadata, TreePath};
use std::collections::BTreeMap;

/// Does what `files:` says, in the order of the paths. `fetched` holds the files that `url:` entries name.
pub(crate) fn run(
    stage: &mut Stage,
    merged: &Merged,
    inputs: &dyn Inputs,
    fetched: &BTreeMap<String, Bytes>,
) -> Result<()> {
    // Removals first: an entry below a removed directory is meant to be there afterwards.
    let (removed, put): (Vec<_>, Vec<_>) =
        merged.recipe.files.iter().partition(|(_, entry)| matches!(entry.kind, FileKind::Remove));
    for (path, _) in removed {
        let key = format!("files.{path}");
        let path = TreePath::new(path.as_str())?;
        if !stage.remove(&path, &key)? {
            return Err(blame(merged, &key, format!("{path} is not in the image, so it cannot be removed")));
        }
    }
    for (path, entry) in put {
        let key = format!("files.{path}");
        let path = TreePath::new(path.as_str())?;
        if let Some(above) = stage.blocked_by(&path)? {
            return Err(blame(
                merged,
                &key,
                format!("{above} is not a directory in the image, so {path} cannot be in it"),
            ));
        }
        let place = one(stage, merged, inputs, fetched, &path, entry, &key)?;
        if entry.template {
            stage.templates.push(place);
        }
    }
    Ok(())
}

fn blame(merged: &Merged, key: &str, message: String) -> BuildError {
    BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(key, message)))
}

fn one(
    stage: &mut Stage,
    merged: &Merged,
    inputs: &dyn Inputs,
    fetched: &BTreeMap<String, Bytes>,
    path: &TreePath,
    entry: &FileEntry,
    key: &str,
) -> Result<TreePath> {
    let (bytes, executable) = match &entry.kind {
        FileKind::Content(text) => (Bytes::Memory(text.as_bytes().into()), false),
        FileKind::Source(source) => match inputs.file(source) {
            Ok(InputKind::File { bytes, executable }) => (bytes, executable),
            Ok(_) => return Err(blame(merged, key, format!("`{source}` is not a file"))),
            Err(error) => return Err(blame(merged, key, format!("cannot read `{source}`: {error}"))),
        },
        FileKind::Url { url, .. } => match fetched.get(url.as_str()) {
            Some(bytes) => (bytes.clone(), false),
            None => return Err(BuildError::Internal("a file of a URL was not fetched")),
        },
        FileKind::Symlink(target) => {
            let place = stage.place(path)?;
            if stage.tree.get(&place).is_some_and(Inode::is_directory) {
                let message = format!("{place} is a directory in the image; a symlink cannot take its place");
                return Err(blame(merged, key, message));
            }
            let metadata = metadata(stage, merged, path, entry, 0o777, key)?;
            return stage.put(path, Inode { metadata, kind: Kind::Symlink(target.clone().into_bytes()) }, key);
        }
        FileKind::Directory => {
            let place = stage.tree.resolve(path, true)?;
            let metadata = metadata(stage, merged, &place, entry, 0o755, key)?;
            return stage.put(&place, Inode { metadata, kind: Kind::Directory }, key);
        }
        FileKind::Remove => return Ok(path.clone()),
    };
    let place = stage.place(path)?;
    if stage.tree.get(&place).is_some_and(Inode::is_directory) {
        return Err(blame(merged, key, format!("{place} is a directory in the image; a file cannot take its place")));
    }
    let metadata = metadata(stage, merged, &place, entry, if executable { 0o755 } else { 0o644 }, key)?;
    stage.put_file(&place, bytes, metadata, key)
}

/// What is there keeps owner, group and (where nothing else is said) mode; a new thing belongs to root.
fn metadata(
    stage: &Stage,
    merged: &Merged,
    path: &TreePath,
    entry: &FileEntry,
    default_mode: u16,
    key: &str,
) -> Result<Metadata> {
    let place = stage.place(path)?;
    let kept = stage.tree.get(&place).filter(|there| match entry.kind {
        FileKind::Directory => there.is_directory(),
        FileKind::Symlink(_) => matches!(there.kind, Kind::Symlink(_)),
        _ => there.content().is_some(),
    });
    let mut metadata = match kept {
        Some(there) if matches!(entry.kind, FileKind::Directory) => there.metadata.clone(),
        Some(there) => Metadata { mtime: stage.date, xattrs: Default::default(), ..there.metadata.clone() },
        None => Metadata::root_owned(default_mode, stage.date),
    };
    if let Some(mode) = entry.mode {
        metadata.mode = mode.bits();
    }
    if let Some(owner) = &entry.owner {
        metadata.uid = accounts::resolve(stage, merged, owner, "passwd", &format!("{key}.owner"))?;
    }
    if let Some(group) = &entry.group {
        metadata.gid = accounts::resolve(stage, merged, group, "group", &format!("{key}.group"))?;
    }
    Ok(metadata)
}
