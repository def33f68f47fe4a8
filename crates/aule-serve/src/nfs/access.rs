//! Who may do what with an inode.

use super::{acl, rpc::Credential};
use aule_tree::Inode;

/// Read a file, list a directory.
pub(super) const MAY_READ: u16 = 4;
/// Execute a file, look a name up in a directory.
pub(super) const MAY_EXECUTE: u16 = 1;

/// Whether the caller may do this: by the inode's list, or by owner, group and others; root may all but execute what nobody can.
pub(super) fn may(credential: &Credential, inode: &Inode, wanted: u16) -> bool {
    let metadata = &inode.metadata;
    if credential.uid == 0 {
        return wanted != MAY_EXECUTE || inode.is_directory() || metadata.mode & 0o111 != 0;
    }
    if let Some(allowed) = acl::allows(inode, credential, wanted) {
        return allowed;
    }
    let shift = if credential.uid == metadata.uid {
        6
    } else if credential.has_group(metadata.gid) {
        3
    } else {
        0
    };
    metadata.mode >> shift & wanted != 0
}
