//! File trees as values.
//!
//! A [`Tree`] maps paths (bytes, not text) to inodes, as one finds them in a root filesystem: modes, owners, times,
//! extended attributes, device numbers and hardlinks. File contents are named by digest only; where their bytes lie is
//! the store's business. A [`Layer`] is the difference between two trees in the terms of the OCI image specification
//! (whiteouts and opaque directories), so that `tree + layer = tree`.
//!
//! Nothing here does any I/O.

mod apply;
mod diff;
mod digest;
mod inode;
mod layer;
mod path;
mod resolve;
mod timestamp;
mod tree;

pub use apply::ApplyError;
pub use diff::{Change, changes, diff};
pub use digest::{Digest, DigestParseError, Hasher};
pub use inode::{Content, Extent, Inode, Kind, Metadata, SparseError, SparseMap, Xattrs};
pub use layer::{Layer, LayerEntry, What};
pub use path::{PathError, TreePath};
pub use resolve::ResolveError;
pub use timestamp::Timestamp;
pub use tree::{InodeId, Tree};
