//! A build as a filesystem: its tree with every inode numbered, for servers that ask by number and by name.

use aule_store::{Build, Store, layer::Contents};
use aule_tree::{Digest, Inode, Kind, Tree, TreePath};
use std::collections::HashMap;

/// Names an inode within an export: its place in the canonical order of the tree, the root being 0. The same on every host.
pub type InodeNumber = u32;

/// The number of the root directory.
pub const ROOT: InodeNumber = 0;

/// An inode with what a filesystem says of it beside its metadata.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub inode: Inode,
    /// How many names it has; of a directory, as on disks, two and one for each directory in it.
    pub links: u32,
    /// The directory that holds it (its first name); the root is its own.
    pub parent: InodeNumber,
    /// Of a directory: what it holds, by name in byte order.
    pub children: Vec<(Box<[u8]>, InodeNumber)>,
}

/// A build that is served.
#[derive(Debug)]
pub struct Export {
    digest: Digest,
    nodes: Vec<Node>,
    contents: Contents,
    bytes: u64,
}

impl Export {
    /// Opens the root filesystem of a build.
    ///
    /// # Errors
    /// When a layer of it is missing or damaged.
    pub fn open(store: &Store, build: &Build) -> aule_store::Result<Export> {
        let (tree, contents) = build.tree(store)?;
        Ok(Export::new(build.descriptor.digest, &tree, contents))
    }

    /// A tree with its contents, under the digest that names it.
    pub fn new(digest: Digest, tree: &Tree, contents: Contents) -> Export {
        let mut numbers = HashMap::with_capacity(tree.len());
        let mut of_path: HashMap<&TreePath, InodeNumber> = HashMap::with_capacity(tree.len());
        let mut nodes: Vec<Node> = Vec::with_capacity(tree.len());
        let mut bytes = 0;
        for (path, id, inode) in tree.iter() {
            let parent = path.parent().and_then(|parent| of_path.get(&parent).copied()).unwrap_or(ROOT);
            let number = *numbers.entry(id).or_insert_with(|| {
                bytes += inode.content().map_or(0, aule_tree::Content::stored_length);
                nodes.push(Node { inode: inode.clone(), links: 0, parent, children: Vec::new() });
                nodes.len() as InodeNumber - 1
            });
            if inode.is_directory() {
                of_path.insert(path, number);
            }
            if let Some(node) = nodes.get_mut(number as usize) {
                node.links += if inode.is_directory() { 2 } else { 1 };
            }
            if !path.is_root()
                && let Some(directory) = nodes.get_mut(parent as usize)
            {
                directory.links += u32::from(inode.is_directory());
                directory.children.push((path.name().into(), number));
            }
        }
        for node in &mut nodes {
            node.children.sort_unstable();
        }
        Export { digest, nodes, contents, bytes }
    }

    /// The digest of the build.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What a number stands for.
    pub fn node(&self, number: InodeNumber) -> Option<&Node> {
        self.nodes.get(number as usize)
    }

    /// How many inodes there are.
    pub fn inodes(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// How many bytes all files have together, holes left out.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the contents of its files lie.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What a directory holds under this name.
    pub fn child(&self, directory: &Node, name: &[u8]) -> Option<InodeNumber> {
        let at = directory.children.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok()?;
        directory.children.get(at).map(|(_, number)| *number)
    }

    /// The inode at a path; symlinks are not followed.
    pub fn find(&self, path: &TreePath) -> Option<InodeNumber> {
        path.components().try_fold(ROOT, |number, name| {
            let directory = self.node(number).filter(|node| matches!(node.inode.kind, Kind::Directory))?;
            self.child(directory, name)
        })
    }
}
