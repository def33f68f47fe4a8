//! `overlays:` — directories laid over the tree.

use crate::{
    BuildError, Result,
    inputs::{InputKind, Inputs},
    stage::Stage,
    steps::{accounts, attributes},
};
use aule_recipe::{Diagnostics, Merged};
use aule_tree::{Inode, Kind, Metadata, TreePath};
use std::collections::BTreeMap;

/// Lays every overlay over the tree, in order.
pub(crate) fn run(stage: &mut Stage, merged: &Merged, inputs: &dyn Inputs) -> Result<()> {
    for (number, overlay) in merged.recipe.overlays.iter().enumerate() {
        let key = format!("overlays[{number}]");
        let blame = |message: String| BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(&key, message)));
        let mut entries = inputs
            .directory(overlay)
            .map_err(|error| blame(format!("cannot read the overlay `{overlay}`: {error}")))?;

        let mut rules = BTreeMap::new();
        if let Some(at) = entries.iter().position(|entry| entry.path == attributes::FILE_NAME)
            && let InputKind::File { bytes, .. } = entries.remove(at).kind
        {
            let file = format!("{overlay}/aule.attrs");
            let bytes = bytes.read(1 << 20).map_err(|error| blame(format!("cannot read `{file}`: {error}")))?;
            rules = attributes::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|(line, what)| blame(format!("{file}:{line}: {what}")))?;
        }
        for entry in entries {
            let shown = || format!("`{overlay}/{}`", String::from_utf8_lossy(&entry.path));
            let path = TreePath::new(&entry.path).map_err(|error| blame(format!("{}: {error}", shown())))?;
            if let Some(above) = stage.blocked_by(&path)? {
                return Err(blame(format!("{}: {above} is not a directory in the image", shown())));
            }
            let rule = rules.remove(&entry.path).unwrap_or_default();
            let mut metadata = Metadata::root_owned(0o755, stage.date);
            if let Some(owner) = &rule.owner {
                metadata.uid = accounts::resolve(stage, merged, owner, "passwd", &key)?;
            }
            if let Some(group) = &rule.group {
                metadata.gid = accounts::resolve(stage, merged, group, "group", &key)?;
            }
            match entry.kind {
                InputKind::Directory => put_directory(stage, &path, metadata, &rule, &key)?,
                InputKind::Symlink(target) => {
                    metadata.mode = 0o777;
                    if target.is_empty() || target.len() > 4095 {
                        return Err(blame(format!("{} has an impossible target", shown())));
                    }
                    refuse_directory(stage, &path, "a symlink", &blame)?;
                    stage.put(&path, Inode { metadata, kind: Kind::Symlink(target) }, &key)?;
                }
                InputKind::File { bytes, executable } => {
                    metadata.mode = rule.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
                    refuse_directory(stage, &path, "a file", &blame)?;
                    stage.put_file(&path, bytes, metadata, &key)?;
                }
            }
        }
        if let Some(path) = rules.keys().next() {
            let path = String::from_utf8_lossy(path);
            return Err(blame(format!("{overlay}/aule.attrs names `{path}`, which the overlay does not have")));
        }
    }
    Ok(())
}

/// A directory that exists keeps its metadata, but for what `aule.attrs` says of it; a symlink to a directory stays.
fn put_directory(
    stage: &mut Stage,
    path: &TreePath,
    mut metadata: Metadata,
    rule: &attributes::Attributes,
    key: &str,
) -> Result<()> {
    let place = stage.tree.resolve(path, true)?;
    if let Some(there) = stage.tree.get(&place).filter(|there| there.is_directory()) {
        if *rule == attributes::Attributes::default() {
            return Ok(());
        }
        let owner = if rule.owner.is_some() { metadata.uid } else { there.metadata.uid };
        let group = if rule.group.is_some() { metadata.gid } else { there.metadata.gid };
        metadata = Metadata { mode: there.metadata.mode, uid: owner, gid: group, ..there.metadata.clone() };
    }
    metadata.mode = rule.mode.unwrap_or(metadata.mode);
    stage.put(&place, Inode { metadata, kind: Kind::Directory }, key)?;
    Ok(())
}

/// A file in place of a whole directory is nearly always a mistake; `files: {path: {remove: true}}` says it is not.
fn refuse_directory(stage: &Stage, path: &TreePath, what: &str, blame: &impl Fn(String) -> BuildError) -> Result<()> {
    let place = stage.place(path)?;
    if stage.tree.get(&place).is_some_and(Inode::is_directory) {
        return Err(blame(format!("{place} is a directory in the image, and {what} in the overlay")));
    }
    Ok(())
}
