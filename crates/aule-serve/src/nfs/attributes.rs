//! The attributes of an inode as NFS has them (RFC 1813, 2.5).

use super::xdr::Writer;
use crate::export::{Export, InodeNumber, Node};
use aule_tree::{Inode, Kind, Timestamp};

/// `fileid3`: never 0, which some clients take for a hole in a directory.
pub(super) fn file_id(number: InodeNumber) -> u64 {
    u64::from(number) + 1
}

/// `fattr3`.
pub(super) fn attributes(writer: &mut Writer, export: &Export, number: InodeNumber, node: &Node) {
    let Node { inode: Inode { metadata, kind }, links, .. } = node;
    let (kind_number, size, used, device) = match kind {
        Kind::File(content) => {
            let used = content.sparse.as_ref().map_or(content.size, aule_tree::SparseMap::data_length);
            (1, content.size, used, (0, 0))
        }
        Kind::Directory => (2, 4096, 4096, (0, 0)),
        Kind::BlockDevice { major, minor } => (3, 0, 0, (*major, *minor)),
        Kind::CharDevice { major, minor } => (4, 0, 0, (*major, *minor)),
        Kind::Symlink(target) => (5, target.len() as u64, target.len() as u64, (0, 0)),
        Kind::Socket => (6, 0, 0, (0, 0)),
        Kind::Fifo => (7, 0, 0, (0, 0)),
    };
    [kind_number, u32::from(metadata.mode), *links, metadata.uid, metadata.gid]
        .into_iter()
        .for_each(|it| writer.u32(it));
    writer.u64(size);
    writer.u64(used);
    writer.u32(device.0);
    writer.u32(device.1);
    let filesystem = export.digest().as_bytes().first_chunk().copied().unwrap_or_default();
    writer.u64(u64::from_be_bytes(filesystem));
    writer.u64(file_id(number));
    (0..3).for_each(|_| time(writer, metadata.mtime));
}

/// `nfstime3`: unsigned seconds, so what lies before 1970 becomes 1970, and what passes 2106 its end.
fn time(writer: &mut Writer, time: Timestamp) {
    match u32::try_from(time.seconds) {
        Ok(seconds) => {
            writer.u32(seconds);
            writer.u32(time.nanoseconds);
        }
        Err(_) => {
            writer.u32(if time.seconds < 0 { 0 } else { u32::MAX });
            writer.u32(0);
        }
    }
}
