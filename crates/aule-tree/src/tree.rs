//! The tree: names that point at inodes, as in a filesystem.

use crate::{Content, Digest, Hasher, Inode, Kind, TreePath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names an inode within one [`Tree`]. Two paths with the same id are hardlinks of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(usize);

/// A file tree. It always has a root directory; whether every parent is a directory is kept by its methods.
#[derive(Debug, Clone)]
pub struct Tree {
    names: BTreeMap<TreePath, InodeId>,
    inodes: Vec<Inode>,
}

impl Tree {
    /// A tree that holds nothing but its root directory, as described by `root`.
    pub fn new(root: crate::Metadata) -> Self {
        Tree {
            names: BTreeMap::from([(TreePath::root(), InodeId(0))]),
            inodes: vec![Inode { metadata: root, kind: Kind::Directory }],
        }
    }

    /// How many paths there are, the root included.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.names.len() <= 1
    }

    /// The inode that `path` names itself (a symlink is not followed).
    pub fn get(&self, path: &TreePath) -> Option<&Inode> {
        self.inode(self.id(path)?)
    }

    /// The id of the inode that `path` names.
    pub fn id(&self, path: &TreePath) -> Option<InodeId> {
        self.names.get(path).copied()
    }

    fn inode(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(id.0)
    }

    /// All paths in canonical order with their inodes, the root first.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, InodeId, &Inode)> {
        self.names.iter().filter_map(|(path, &id)| Some((path, id, self.inode(id)?)))
    }

    /// `directory` and everything below it, in canonical order.
    pub fn subtree(&self, directory: &TreePath) -> impl Iterator<Item = (&TreePath, InodeId, &Inode)> {
        let end = directory.after_subtree();
        self.names
            .range(directory.clone()..)
            .take_while(move |(path, _)| directory.is_root() || **path < end)
            .filter_map(|(path, &id)| Some((path, id, self.inode(id)?)))
    }

    /// The entries right in `directory`, in canonical order.
    pub fn children(&self, directory: &TreePath) -> Vec<(&TreePath, &Inode)> {
        let mut children = Vec::new();
        let mut subtree = self.names.range(directory.clone()..);
        while let Some((path, &id)) = subtree.next() {
            if path == directory {
                continue;
            }
            if !path.starts_with(directory) {
                break;
            }
            if let Some(inode) = self.inode(id) {
                children.push((path, inode));
                if inode.is_directory() {
                    subtree = self.names.range(path.after_subtree()..);
                }
            }
        }
        children
    }

    /// How many paths name each inode that has more than one name, with those paths in canonical order.
    pub fn hardlinks(&self) -> HashMap<InodeId, BTreeSet<&TreePath>> {
        let mut first: Vec<Option<&TreePath>> = vec![None; self.inodes.len()];
        let mut sets: HashMap<InodeId, BTreeSet<&TreePath>> = HashMap::new();
        for (path, &id) in &self.names {
            match first.get_mut(id.0) {
                Some(seen @ None) => *seen = Some(path),
                Some(Some(other)) => {
                    sets.entry(id).or_insert_with(|| BTreeSet::from([*other])).insert(path);
                }
                None => {}
            }
        }
        sets
    }

    /// Puts `inode` at `path`. What was there goes, with all below it, but a directory put on a directory keeps its
    /// contents and takes only the new metadata. Missing parents are made: directories 0755 of root with `inode`'s
    /// time. Something that is not a directory where a parent must be is replaced by one.
    pub fn insert(&mut self, path: &TreePath, inode: Inode) -> InodeId {
        let keep_contents = inode.is_directory() && self.get(path).is_some_and(Inode::is_directory);
        self.make_parents(path, inode.metadata.mtime);
        if !keep_contents {
            self.remove(path);
        }
        let id = InodeId(self.inodes.len());
        self.inodes.push(inode);
        self.names.insert(path.clone(), id);
        id
    }

    /// Gives the inode `id` one more name. What was at `path` goes.
    pub fn link(&mut self, path: &TreePath, id: InodeId) {
        if self.names.get(path) == Some(&id) {
            return;
        }
        if let Some(mtime) = self.inode(id).map(|inode| inode.metadata.mtime) {
            self.make_parents(path, mtime);
            self.remove(path);
            self.names.insert(path.clone(), id);
        }
    }

    fn make_parents(&mut self, path: &TreePath, mtime: crate::Timestamp) {
        let mut missing = Vec::new();
        let mut parent = path.parent();
        while let Some(directory) = parent {
            if self.get(&directory).is_some_and(Inode::is_directory) {
                break;
            }
            parent = directory.parent();
            missing.push(directory);
        }
        for directory in missing.into_iter().rev() {
            self.names.remove(&directory);
            let id = InodeId(self.inodes.len());
            self.inodes.push(Inode { metadata: crate::Metadata::root_owned(0o755, mtime), kind: Kind::Directory });
            self.names.insert(directory, id);
        }
    }

    /// Removes `path` and all below it; of the root only the contents. Says whether there was anything.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        // Nothing lies below a path that is not there.
        if !self.names.contains_key(path) {
            return false;
        }
        let gone: Vec<TreePath> =
            self.subtree(path).map(|(path, ..)| path.clone()).filter(|path| !path.is_root()).collect();
        for path in &gone {
            self.names.remove(path);
        }
        !gone.is_empty()
    }

    /// Changes the inode at `path` in place, for all its names.
    pub fn update(&mut self, path: &TreePath, change: impl FnOnce(&mut Inode)) -> bool {
        match self.id(path).and_then(|id| self.inodes.get_mut(id.0)) {
            Some(inode) => {
                change(inode);
                true
            }
            None => false,
        }
    }

    /// Changes every inode that has a name, each once.
    pub fn update_all(&mut self, mut change: impl FnMut(&mut Inode)) {
        let named: BTreeSet<InodeId> = self.names.values().copied().collect();
        for id in named {
            if let Some(inode) = self.inodes.get_mut(id.0) {
                change(inode);
            }
        }
    }

    /// A tree whose root is the directory `path` of this one; `None` when that is no directory. Hardlinks within it
    /// stay; names outside are lost.
    pub fn rooted_at(&self, path: &TreePath) -> Option<Tree> {
        let root = self.get(path).filter(|inode| inode.is_directory())?;
        let mut tree = Tree::new(root.metadata.clone());
        let mut ids = HashMap::new();
        for (full, id, inode) in self.subtree(path) {
            let Some(inner) = full.strip_prefix(path).filter(|inner| !inner.is_root()) else { continue };
            let new = *ids.entry(id).or_insert_with(|| {
                tree.inodes.push(inode.clone());
                InodeId(tree.inodes.len() - 1)
            });
            tree.names.insert(inner, new);
        }
        Some(tree)
    }

    /// The contents of all files, each digest once, in the canonical order of their first path.
    pub fn contents(&self) -> Vec<&Content> {
        let mut seen = std::collections::HashSet::new();
        self.iter().filter_map(|(_, _, inode)| inode.content()).filter(|content| seen.insert(content.digest)).collect()
    }

    /// A digest of everything that this tree says: paths, inodes, hardlink sets. Two trees with the same digest give
    /// the same archives. The form is private to this project and changes only with the format version.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        let mut first: HashMap<InodeId, &TreePath> = HashMap::new();
        for (path, id, inode) in self.iter() {
            hasher.field(path.as_bytes());
            if let Some(target) = first.get(&id) {
                hasher.field(b"link");
                hasher.field(target.as_bytes());
                continue;
            }
            first.insert(id, path);
            let Inode { metadata, kind } = inode;
            let mut head = Vec::with_capacity(32);
            head.extend_from_slice(&metadata.mode.to_le_bytes());
            head.extend_from_slice(&metadata.uid.to_le_bytes());
            head.extend_from_slice(&metadata.gid.to_le_bytes());
            head.extend_from_slice(&metadata.mtime.seconds.to_le_bytes());
            head.extend_from_slice(&metadata.mtime.nanoseconds.to_le_bytes());
            head.extend_from_slice(&(metadata.xattrs.len() as u64).to_le_bytes());
            hasher.field(kind.word().as_bytes());
            hasher.field(&head);
            for (name, value) in &metadata.xattrs {
                hasher.field(name);
                hasher.field(value);
            }
            match kind {
                Kind::File(content) => {
                    hasher.field(content.digest.as_bytes());
                    hasher.field(&content.size.to_le_bytes());
                    hasher.field(&content.sparse.as_ref().map(crate::SparseMap::to_pax).unwrap_or_default());
                }
                Kind::Symlink(target) => hasher.field(target),
                Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                    hasher.field(&[major.to_le_bytes(), minor.to_le_bytes()].concat());
                }
                Kind::Directory | Kind::Fifo | Kind::Socket => {}
            }
        }
        hasher.finish()
    }
}

/// Trees are equal when they hold the same paths, inodes and hardlink sets, however they came to be.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && crate::diff(self, other).entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metadata, Timestamp};

    fn directory() -> Inode {
        Inode { metadata: Metadata::root_owned(0o755, Timestamp::default()), kind: Kind::Directory }
    }

    fn file(text: &str) -> Inode {
        Inode {
            metadata: Metadata::root_owned(0o644, Timestamp::default()),
            kind: Kind::File(Content::of(text.as_bytes())),
        }
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn names(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, ..)| path.to_string()).collect()
    }

    #[test]
    fn inserting_makes_parents_and_keeps_directories() {
        let mut tree = Tree::new(directory().metadata);
        tree.insert(&path("etc/ssh/sshd_config"), file("x"));
        tree.insert(&path("etc"), Inode { metadata: Metadata::root_owned(0o700, Timestamp::default()), ..directory() });
        assert_eq!(names(&tree), ["/", "/etc", "/etc/ssh", "/etc/ssh/sshd_config"]);
        assert_eq!(tree.get(&path("etc")).unwrap().metadata.mode, 0o700);
        tree.insert(&path("etc"), file("y"));
        assert_eq!(names(&tree), ["/", "/etc"]);
        tree.insert(&path("etc/below"), file("z"));
        assert!(tree.get(&path("etc")).unwrap().is_directory());
        assert_eq!(tree.get(&path("etc/below")), Some(&file("z")));
    }

    #[test]
    fn children_skip_what_lies_deeper() {
        let mut tree = Tree::new(directory().metadata);
        for name in ["a/b/c", "a/b/d", "a/b-c", "a/e", "ab"] {
            tree.insert(&path(name), file(name));
        }
        let children = |of: &str| -> Vec<String> {
            tree.children(&path(of)).into_iter().map(|(path, _)| path.to_string()).collect()
        };
        assert_eq!(children("a"), ["/a/b", "/a/b-c", "/a/e"]);
        assert_eq!(children(""), ["/a", "/ab"]);
        assert_eq!(children("a/b"), ["/a/b/c", "/a/b/d"]);
        assert!(children("nothing").is_empty());
    }

    #[test]
    fn a_subtree_as_a_tree_keeps_its_hardlinks() {
        let mut tree = Tree::new(directory().metadata);
        let id = tree.insert(&path("boot/one"), file("1"));
        tree.link(&path("boot/two"), id);
        tree.link(&path("elsewhere"), id);
        let boot = tree.rooted_at(&path("boot")).unwrap();
        assert_eq!(names(&boot), ["/", "/one", "/two"]);
        assert_eq!(boot.id(&path("one")), boot.id(&path("two")));
        assert_ne!(boot.digest(), tree.digest());
    }
}
