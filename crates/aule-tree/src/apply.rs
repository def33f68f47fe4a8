//! Laying a layer over a tree.

use crate::{Inode, Layer, LayerEntry, Tree, TreePath, What};

/// A layer that does not fit the tree below it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// A hardlink names a path that is not there.
    #[error("{path} is a hardlink to {target}, which is neither in the layer nor below it")]
    DanglingLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// A hardlink names a directory.
    #[error("{path} is a hardlink to the directory {target}")]
    LinkToDirectory {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// The root is replaced by something that is not a directory, or whited out.
    #[error("a layer replaces or removes the root directory")]
    Root,
    /// An entry lies below something that is not a directory.
    #[error("{0} lies below something that is not a directory")]
    NotADirectory(TreePath),
}

impl Tree {
    /// Lays `layer` over this tree. Whiteouts and opaque marks work on the tree below only, wherever they stand in the
    /// layer, as the OCI image specification says; the rest is taken in order. On an error the tree is half changed.
    ///
    /// # Errors
    /// When a hardlink leads nowhere or to a directory, when the root would go, or when a path lies below a file.
    pub fn apply(&mut self, layer: &Layer) -> Result<(), ApplyError> {
        for LayerEntry { path, what } in &layer.entries {
            match what {
                What::Whiteout if path.is_root() => return Err(ApplyError::Root),
                What::Whiteout => {
                    self.remove(path);
                }
                What::Opaque => {
                    let children: Vec<TreePath> =
                        self.children(path).into_iter().map(|(child, _)| child.clone()).collect();
                    for child in children {
                        self.remove(&child);
                    }
                }
                What::Node(_) | What::Link(_) => {}
            }
        }
        for LayerEntry { path, what } in &layer.entries {
            if let (What::Node(_) | What::Link(_), Some(parent)) = (what, path.parent())
                && self.get(&parent).is_some_and(|parent| !parent.is_directory())
            {
                return Err(ApplyError::NotADirectory(path.clone()));
            }
            match what {
                What::Node(inode) if path.is_root() && !inode.is_directory() => return Err(ApplyError::Root),
                What::Node(inode) => {
                    self.insert(path, inode.clone());
                }
                What::Link(_) if path.is_root() => return Err(ApplyError::Root),
                What::Link(target) => {
                    let (path, target) = (path.clone(), target.clone());
                    match self.id(&target) {
                        None => return Err(ApplyError::DanglingLink { path, target }),
                        Some(_) if self.get(&target).is_some_and(Inode::is_directory) => {
                            return Err(ApplyError::LinkToDirectory { path, target });
                        }
                        Some(id) => self.link(&path, id),
                    }
                }
                What::Whiteout | What::Opaque => {}
            }
        }
        Ok(())
    }
}
