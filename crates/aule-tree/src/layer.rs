//! A layer: the difference between two trees in the terms of the OCI image specification, "Image Layer Filesystem
//! Changeset".

use crate::{Inode, TreePath};
use serde::{Deserialize, Serialize};

/// What a layer says of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The path of the tree below is gone, with all that it held. In tar: an empty file `.wh.NAME` beside it.
    Whiteout,
    /// All that the directory held below is gone. In tar: an empty file `.wh..wh..opq` in it.
    Opaque,
    /// The path names this inode.
    Node(Inode),
    /// The path is one more name of what that other path names.
    Link(TreePath),
}

/// One statement of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// The path that it is about.
    pub path: TreePath,
    /// What it says.
    pub what: What,
}

/// An ordered list of statements. Layers that [`crate::diff`] makes are in canonical order, whiteouts and opaque marks
/// before what is put in the same place, and each hardlink set is in it whole, first name first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// The statements.
    pub entries: Vec<LayerEntry>,
}
