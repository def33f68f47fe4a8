//! The difference between two trees: as a layer, and as a list of changes for people.

use crate::{InodeId, Layer, LayerEntry, Tree, TreePath, What};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How one path differs between two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only in the new tree.
    Added,
    /// Only in the old tree.
    Removed,
    /// In both, with another inode or another set of hardlinks.
    Changed,
}

/// The paths that differ, in canonical order.
pub fn changes(old: &Tree, new: &Tree) -> Vec<(TreePath, Change)> {
    let rewritten = rewritten(old, new);
    let mut changes: Vec<_> = new
        .iter()
        .filter(|(path, ..)| rewritten.contains(path))
        .map(|(path, ..)| (path.clone(), if old.id(path).is_some() { Change::Changed } else { Change::Added }))
        .chain(old.iter().filter(|(path, ..)| new.id(path).is_none()).map(|(path, ..)| (path.clone(), Change::Removed)))
        .collect();
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes
}

/// The layer that makes `new` out of `old`.
pub fn diff(old: &Tree, new: &Tree) -> Layer {
    let rewritten = rewritten(old, new);
    let mut entries = Vec::new();

    // What is gone: the topmost path of each lost subtree gets a whiteout; a directory that lost everything it held,
    // and it held more than one thing, is marked opaque instead.
    let mut gone: HashMap<TreePath, Vec<TreePath>> = HashMap::new();
    for (path, ..) in old.iter().filter(|(path, ..)| new.id(path).is_none()) {
        let Some(parent) = path.parent() else { continue };
        let parent_stays = new.get(&parent).is_some_and(crate::Inode::is_directory)
            && old.get(&parent).is_some_and(crate::Inode::is_directory);
        if parent_stays {
            gone.entry(parent).or_default().push(path.clone());
        }
    }
    for (directory, lost) in gone {
        let all = lost.len() > 1 && lost.len() == old.children(&directory).len();
        if all {
            entries.push(LayerEntry { path: directory, what: What::Opaque });
        } else {
            entries.extend(lost.into_iter().map(|path| LayerEntry { path, what: What::Whiteout }));
        }
    }

    let mut first_names: HashMap<InodeId, TreePath> = HashMap::new();
    for (path, id, inode) in new.iter().filter(|(path, ..)| rewritten.contains(path)) {
        let what = match first_names.get(&id) {
            Some(first) => What::Link(first.clone()),
            None => {
                first_names.insert(id, path.clone());
                What::Node(inode.clone())
            }
        };
        entries.push(LayerEntry { path: path.clone(), what });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| rank(&a.what).cmp(&rank(&b.what))));
    Layer { entries }
}

/// At one path: first what goes, then what comes. An opaque mark follows its directory's own entry in tar.
fn rank(what: &What) -> u8 {
    match what {
        What::Whiteout => 0,
        What::Node(_) | What::Link(_) => 1,
        What::Opaque => 2,
    }
}

/// The paths of `new` that a layer over `old` must write: those whose inode differs, and with one name of a hardlink
/// set all its names, as a layer cannot link to a name in another layer.
fn rewritten<'a>(old: &Tree, new: &'a Tree) -> HashSet<&'a TreePath> {
    let (old_sets, new_sets) = (old.hardlinks(), new.hardlinks());
    let alone = BTreeSet::new();
    let mut rewritten = HashSet::new();
    for (path, id, inode) in new.iter() {
        if rewritten.contains(path) {
            continue;
        }
        let same = old.get(path) == Some(inode)
            && old.id(path).and_then(|old_id| old_sets.get(&old_id)).unwrap_or(&alone)
                == new_sets.get(&id).unwrap_or(&alone);
        if !same {
            rewritten.insert(path);
            rewritten.extend(new_sets.get(&id).into_iter().flatten().copied());
        }
    }
    rewritten
}
