//! The difference between two trees: as a layer, and as a list of changes for people.

use crate::{Inode, InodeId, Layer, LayerEntry, Tree, TreePath, What};
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
    let Difference { gone, mut rewritten, added } = Difference::between(old, new);
    let mut changes: Vec<_> = gone.into_iter().map(|path| (path.clone(), Change::Removed)).collect();
    changes.extend(added.iter().map(|path| ((*path).clone(), Change::Added)));
    rewritten.retain(|path| !added.contains(path));
    changes.extend(rewritten.into_iter().map(|path| (path.clone(), Change::Changed)));
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes
}

/// The layer that makes `new` out of `old`: what differs, and the directories above it.
pub fn diff(old: &Tree, new: &Tree) -> Layer {
    let Difference { gone, rewritten, .. } = Difference::between(old, new);
    let mut entries = Vec::new();

    // What is gone: the topmost path of each lost subtree gets a whiteout; a directory that lost everything it held,
    // and it held more than one thing, is marked opaque instead.
    let mut lost_in: HashMap<TreePath, Vec<TreePath>> = HashMap::new();
    for path in gone {
        let Some(parent) = path.parent() else { continue };
        let parent_stays =
            new.get(&parent).is_some_and(Inode::is_directory) && old.get(&parent).is_some_and(Inode::is_directory);
        if parent_stays {
            lost_in.entry(parent).or_default().push(path.clone());
        }
    }
    for (directory, lost) in lost_in {
        let all = lost.len() > 1 && lost.len() == old.children(&directory).len();
        if all {
            entries.push(LayerEntry { path: directory, what: What::Opaque });
        } else {
            entries.extend(lost.into_iter().map(|path| LayerEntry { path, what: What::Whiteout }));
        }
    }

    let mut first_names: HashMap<InodeId, &TreePath> = HashMap::new();
    for path in rewritten {
        let (Some(id), Some(inode)) = (new.id(path), new.get(path)) else { continue };
        let what = match first_names.get(&id) {
            Some(first) => What::Link((*first).clone()),
            None => {
                first_names.insert(id, path);
                What::Node(inode.clone())
            }
        };
        entries.push(LayerEntry { path: path.clone(), what });
    }
    // With each path all directories above it: tools that unpack a layer alone make those that are missing as they like
    // (0755, of root, now), and an overlay of layers then shows these in place of the true ones.
    let mut above: BTreeSet<TreePath> = BTreeSet::new();
    for entry in &entries {
        let mut parent = entry.path.parent();
        while let Some(path) = parent {
            parent = path.parent();
            if !above.insert(path) {
                break;
            }
        }
    }
    // An opaque mark stands in its directory.
    above.extend(entries.iter().filter(|it| it.what == What::Opaque).map(|it| it.path.clone()));
    let written: HashSet<&TreePath> =
        entries.iter().filter(|it| matches!(it.what, What::Node(_) | What::Link(_))).map(|it| &it.path).collect();
    let unchanged = above.into_iter().filter(|path| !written.contains(path));
    let unchanged: Vec<_> = unchanged
        .filter_map(|path| new.get(&path).cloned().map(|inode| LayerEntry { path, what: What::Node(inode) }))
        .collect();
    entries.extend(unchanged);
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

/// Which paths differ between two trees.
struct Difference<'a> {
    /// Only in the old tree.
    gone: Vec<&'a TreePath>,
    /// What a layer over the old tree must write: paths of the new one whose inode differs, and with one name of a
    /// hardlink set all its names, as a layer cannot link to a name in another layer.
    rewritten: BTreeSet<&'a TreePath>,
    /// Those of them that are only in the new tree.
    added: HashSet<&'a TreePath>,
}

impl<'a> Difference<'a> {
    /// Walks both trees side by side: each gives its paths in the same order.
    fn between(old: &'a Tree, new: &'a Tree) -> Self {
        let (old_sets, new_sets) = (old.hardlinks(), new.hardlinks());
        let alone = BTreeSet::new();
        let mut it = Difference { gone: Vec::new(), rewritten: BTreeSet::new(), added: HashSet::new() };
        let mut old_entries = old.iter().peekable();
        for (path, id, inode) in new.iter() {
            while let Some((passed, ..)) = old_entries.next_if(|(old_path, ..)| *old_path < path) {
                it.gone.push(passed);
            }
            let before = old_entries.next_if(|(old_path, ..)| *old_path == path);
            let same = before.is_some_and(|(_, old_id, old_inode)| {
                old_inode == inode && old_sets.get(&old_id).unwrap_or(&alone) == new_sets.get(&id).unwrap_or(&alone)
            });
            if before.is_none() {
                it.added.insert(path);
            }
            if !same {
                it.rewritten.insert(path);
                it.rewritten.extend(new_sets.get(&id).into_iter().flatten().copied());
            }
        }
        it.gone.extend(old_entries.map(|(path, ..)| path));
        it
    }
}
