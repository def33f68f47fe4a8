//! NFSACL, version 3: the side protocol by which Linux asks for access control lists (Linux, `fs/nfsd/nfs3acl.c`,
//! `fs/nfs_common/nfsacl.c`).
//!
//! It is no luxury: Linux marks every NFSv3 mount as one with lists, and overlayfs then asks for the list of an inode before
//! it lets anybody but the owner in. Where the server has none of this protocol, the answer is "not supported", and every
//! process that is not root's fails.

use super::{rpc::Credential, xdr::Writer};
use aule_tree::Inode;

/// The number of the program.
pub(crate) const PROGRAM: u32 = 100_227;
/// Its version.
pub(crate) const VERSION: u32 = 3;

/// Of GETACL: the bits that ask for lists, for how long they are, and the same of the default ones of directories.
const ASKED: u32 = 0x0f;
/// Marks entries of a default list.
const DEFAULT: u32 = 0x1000;

const ACCESS: &[u8] = b"system.posix_acl_access";
const USER_OBJECT: u32 = 0x01;
const USER: u32 = 0x02;
const GROUP_OBJECT: u32 = 0x04;
const GROUP: u32 = 0x08;
const MASK: u32 = 0x10;
const OTHER: u32 = 0x20;

/// What an entry is for, whose it is, and what it allows.
type Entry = (u32, u32, u32);

/// Writes what follows the attributes in an answer to GETACL.
pub(crate) fn write(writer: &mut Writer, inode: &Inode, asked: u32) {
    writer.u32(asked & ASKED);
    let access = list(inode, ACCESS).unwrap_or_else(|| of_mode(inode));
    entries(writer, &access, asked & 0x01 != 0, 0);
    let default = list(inode, b"system.posix_acl_default").unwrap_or_default();
    entries(writer, &default, asked & 0x04 != 0, DEFAULT);
}

/// How many entries there are, and then those that are wanted as an array, whose length comes first.
fn entries(writer: &mut Writer, list: &[Entry], wanted: bool, flag: u32) {
    writer.u32(list.len() as u32);
    writer.u32(if wanted { list.len() as u32 } else { 0 });
    for (tag, id, allowed) in list.iter().filter(|_| wanted) {
        [tag | flag, *id, *allowed].into_iter().for_each(|it| writer.u32(it));
    }
}

/// The list that says what the mode says. (With a mask, as Solaris wants one: four entries at least.)
fn of_mode(inode: &Inode) -> Vec<Entry> {
    let metadata = &inode.metadata;
    let bits = |shift: u32| u32::from(metadata.mode) >> shift & 7;
    vec![
        (USER_OBJECT, metadata.uid, bits(6)),
        (GROUP_OBJECT, metadata.gid, bits(3)),
        (MASK, 0, bits(3)),
        (OTHER, 0, bits(0)),
    ]
}

/// The list in an extended attribute (Linux, `uapi/linux/posix_acl_xattr.h`: version 2, then tag, permissions and id, all
/// little-endian); `None` where there is none, or one that cannot be understood.
fn list(inode: &Inode, name: &[u8]) -> Option<Vec<Entry>> {
    let body = inode.metadata.xattrs.get(name)?.strip_prefix(&[2, 0, 0, 0])?;
    if body.is_empty() || body.len() % 8 != 0 || body.len() > 8 * 1024 {
        return None;
    }
    let mut list: Vec<Entry> = Vec::with_capacity(body.len() / 8 + 1);
    for entry in body.chunks_exact(8) {
        let number = |at: usize| Some(u32::from(u16::from_le_bytes(entry.get(at..at + 2)?.try_into().ok()?)));
        let id = u32::from_le_bytes(entry.get(4..8)?.try_into().ok()?);
        let (tag, allowed) = (number(0)?, number(2)? & 7);
        let id = match tag {
            USER_OBJECT => inode.metadata.uid,
            GROUP_OBJECT => inode.metadata.gid,
            USER | GROUP => id,
            MASK | OTHER => 0,
            _ => return None,
        };
        list.push((tag, id, allowed));
    }
    if !list.iter().any(|(tag, ..)| *tag == MASK) {
        let group = list.iter().position(|(tag, ..)| *tag == GROUP_OBJECT)?;
        let allowed = list.get(group)?.2;
        list.insert(group + 1, (MASK, 0, allowed));
    }
    Some(list)
}

/// Whether the list of an inode lets a caller do what `wanted` says (1, 2, 4 as in modes), if it has one (acl(5), "access
/// check algorithm").
pub(super) fn allows(inode: &Inode, credential: &Credential, wanted: u16) -> Option<bool> {
    let wanted = u32::from(wanted);
    let list = list(inode, ACCESS)?;
    let mask = list.iter().find(|(tag, ..)| *tag == MASK).map_or(7, |it| it.2);
    let first = |tag: u32, id: u32| list.iter().find(|it| it.0 == tag && it.1 == id).map(|it| it.2);
    if credential.uid == inode.metadata.uid {
        return first(USER_OBJECT, credential.uid).map(|it| it & wanted != 0);
    }
    if let Some(allowed) = first(USER, credential.uid) {
        return Some(allowed & mask & wanted != 0);
    }
    let mut groups =
        list.iter().filter(|it| [GROUP_OBJECT, GROUP].contains(&it.0) && credential.has_group(it.1)).peekable();
    if groups.peek().is_some() {
        return Some(groups.any(|it| it.2 & mask & wanted != 0));
    }
    first(OTHER, 0).map(|it| it & wanted != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_tree::{Kind, Metadata, Timestamp};

    fn words(inode: &Inode, asked: u32) -> Vec<u32> {
        let mut writer = Writer::default();
        write(&mut writer, inode, asked);
        writer.0.chunks_exact(4).map(|it| u32::from_be_bytes(it.try_into().unwrap())).collect()
    }

    #[test]
    fn a_mode_is_a_list_of_four() {
        let metadata = Metadata { uid: 7, gid: 8, ..Metadata::root_owned(0o4751, Timestamp::default()) };
        let inode = Inode { metadata, kind: Kind::Directory };
        assert_eq!(words(&inode, 5), [5, 4, 4, 1, 7, 7, 4, 8, 5, 0x10, 0, 5, 0x20, 0, 1, 0, 0]);
        assert_eq!(words(&inode, 0xa), [0xa, 4, 0, 0, 0], "only how many");
    }

    #[test]
    fn lists_of_the_image_are_given() {
        let mut metadata = Metadata::root_owned(0o750, Timestamp::default());
        let entry = |tag: u16, allowed: u16, id: u32| {
            [tag.to_le_bytes().as_slice(), &allowed.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list = [
            vec![2, 0, 0, 0],
            entry(1, 7, !0),
            entry(2, 5, 1000),
            entry(4, 5, !0),
            entry(0x10, 5, !0),
            entry(0x20, 0, !0),
        ];
        metadata.xattrs.insert(b"system.posix_acl_access".to_vec(), list.concat());
        metadata.xattrs.insert(b"system.posix_acl_default".to_vec(), vec![2, 0, 0, 0, 1]);
        let inode = Inode { metadata, kind: Kind::Directory };
        let wanted = [5, 5, 5, 1, 0, 7, 2, 1000, 5, 4, 0, 5, 0x10, 0, 5, 0x20, 0, 0, 0, 0];
        assert_eq!(words(&inode, 5), wanted, "and what cannot be understood is left out");
        let who = |uid, gid| {
            let mut credential = Credential::default();
            (credential.uid, credential.gid) = (uid, gid);
            credential
        };
        for (uid, gid, wanted, good) in [
            (0, 0, 2, true),
            (1000, 9, 4, true),
            (1000, 9, 2, false),
            (5, 0, 1, true),
            (5, 0, 2, false),
            (5, 5, 4, false),
        ] {
            assert_eq!(allows(&inode, &who(uid, gid), wanted), Some(good), "{uid} {gid} {wanted}");
        }
    }
}
