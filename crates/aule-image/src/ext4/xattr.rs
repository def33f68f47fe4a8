//! Extended attributes: after the inode, in a block, or with their values in inodes of their own (kernel documentation,
//! filesystems/ext4/attributes.rst).

use super::{
    blocks::{self, Claims},
    checksum::crc32c,
    corrupt,
    inode::{Format, Inode},
    volume::Volume,
};
use crate::{
    FilesystemError,
    bytes::{array, u8_at, u16_at, u32_at},
    filesystem::{FileData, FileHandle},
};
use aule_tree::Xattrs;

const MAGIC: u32 = 0xea02_0000;
/// The header of a block of attributes, in bytes.
const BLOCK_HEADER: usize = 32;
/// The header of one entry, in bytes.
const ENTRY: usize = 16;
/// The largest value that Linux gives out (`XATTR_SIZE_MAX`).
const MAX_VALUE: usize = 65536;
/// The most bytes that the names and values of one inode may have together: a full block and a few large values.
const MAX_TOTAL: usize = 1 << 20;

/// The attributes of an inode, and the part of its inline data that is kept like an attribute.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) xattrs: Xattrs,
    pub(super) inline_data: Option<Vec<u8>>,
    total: usize,
}

/// Reads all attributes of `inode`.
pub(super) fn read(volume: &Volume, inode: &Inode, claims: &mut Claims) -> Result<Attributes, FilesystemError> {
    let mut found = Attributes::default();
    let area = inode.attribute_area();
    if u32_at(area, 0) == MAGIC {
        let entries = area.get(4..).unwrap_or_default();
        found.add(volume, inode, entries, entries, claims)?;
    }
    if inode.attribute_block != 0 {
        let block = volume.block(inode.attribute_block)?;
        let wrong =
            |reason: &str| corrupt(format!("attribute block {} of {}", inode.attribute_block, inode.place()), reason);
        if u32_at(&block, 0) != MAGIC || u32_at(&block, 8) != 1 {
            return Err(wrong("wrong header"));
        }
        if volume.superblock.has_checksums() {
            let (before, after) = (block.get(..0x10).unwrap_or_default(), block.get(0x14..).unwrap_or_default());
            let crc = crc32c(volume.superblock.checksum_seed(), &inode.attribute_block.to_le_bytes());
            if crc32c(crc32c(crc32c(crc, before), &[0; 4]), after) != u32_at(&block, 0x10) {
                return Err(wrong("wrong checksum"));
            }
        }
        found.add(volume, inode, block.get(BLOCK_HEADER..).unwrap_or_default(), &block, claims)?;
    }
    Ok(found)
}

impl Attributes {
    /// Adds what the list `entries` names; their values lie in `values`.
    fn add(
        &mut self,
        volume: &Volume,
        inode: &Inode,
        entries: &[u8],
        values: &[u8],
        claims: &mut Claims,
    ) -> Result<(), FilesystemError> {
        let wrong = |reason: &str| corrupt(format!("attributes of {}", inode.place()), reason);
        let mut rest = entries;
        // Four zero bytes end the list; so does the end of the space where it is full.
        while rest.len() >= 4 && u32_at(rest, 0) != 0 {
            let name_length = usize::from(u8_at(rest, 0));
            let length = ENTRY + name_length.next_multiple_of(4);
            let Some((entry, after)) = rest.split_at_checked(length) else {
                return Err(wrong("an entry passes the end of their space"));
            };
            rest = after;
            let (offset, holder, size) = (u16_at(entry, 2), u32_at(entry, 4), u32_at(entry, 8) as usize);
            let suffix = entry.get(ENTRY..ENTRY + name_length).unwrap_or_default();
            if size > MAX_VALUE {
                return Err(wrong("a value is larger than 64 KiB"));
            }
            let value = if holder != 0 {
                held_value(volume, inode, holder, size, claims)?
            } else {
                let value = values.get(offset.into()..usize::from(offset) + size);
                value.ok_or_else(|| wrong("a value passes the end of their space"))?.to_vec()
            };
            self.total += name_length + value.len();
            if self.total > MAX_TOTAL {
                return Err(wrong("they have more than 1 MiB"));
            }
            let index = u8_at(entry, 1);
            if index == 7 && suffix == b"data" {
                self.inline_data = Some(value);
                continue;
            }
            let (prefix, is_acl): (&[u8], _) = match index {
                0 => (b"", false),
                1 => (b"user.", false),
                2 => (b"system.posix_acl_access", true),
                3 => (b"system.posix_acl_default", true),
                4 => (b"trusted.", false),
                6 => (b"security.", false),
                7 => (b"system.", false),
                8 => (b"system.richacl", false),
                // Lustre's, the encryption context and Hurd's: getxattr(2) shows none of them on Linux either.
                _ => continue,
            };
            let needs_suffix = prefix.is_empty() || prefix.ends_with(b".");
            if suffix.contains(&0) || suffix.is_empty() == needs_suffix {
                return Err(wrong("an impossible name"));
            }
            let name = [prefix, suffix].concat();
            let value =
                if is_acl { acl(&value).ok_or_else(|| wrong("an impossible access control list"))? } else { value };
            if self.xattrs.insert(name, value).is_some() {
                return Err(wrong("a name occurs twice"));
            }
        }
        Ok(())
    }
}

/// A value in an inode of its own (feature `ea_inode`).
fn held_value(
    volume: &Volume,
    owner: &Inode,
    number: u32,
    size: usize,
    claims: &mut Claims,
) -> Result<Vec<u8>, FilesystemError> {
    let holder = volume.inode(number)?;
    let wrong = |reason: &str| corrupt(format!("attribute value in inode {number} of {}", owner.place()), reason);
    if !holder.holds_an_attribute() || holder.format != Format::Regular || holder.size != size as u64 {
        return Err(wrong("the inode is not one for such a value"));
    }
    // Values may be shared, so the blocks cannot count against the filesystem's.
    let mut own = Claims(size as u64 / 1024 + 16);
    let runs = blocks::runs(volume, &holder, &mut own, blocks::MAX_RUNS)?;
    // The sum of what is read stays bounded all the same: one unit for each value.
    claims.0 = claims.0.checked_sub(1).ok_or_else(|| wrong("there are too many"))?;
    let handle = FileHandle { size: holder.size, data: FileData::Runs(runs.into()) };
    let mut value = vec![0; size];
    handle.read(volume, 0, &mut value)?;
    let is_right = crc32c(volume.superblock.checksum_seed(), &value) == holder.attribute_checksum();
    if volume.superblock.has_checksums() && !is_right {
        return Err(wrong("wrong checksum"));
    }
    Ok(value)
}

/// A POSIX ACL in the form of getxattr(2) (`linux/posix_acl_xattr.h`) from the one on disk (`fs/ext4/acl.h`), which
/// has another version number and leaves out unused ids.
fn acl(stored: &[u8]) -> Option<Vec<u8>> {
    const UNUSED_ID: [u8; 4] = [0xff; 4];
    const NAMED_USER: u16 = 0x02;
    const NAMED_GROUP: u16 = 0x08;
    let mut rest = stored.get(4..)?;
    if u32_at(stored, 0) != 1 {
        return None;
    }
    let mut list = 2u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let short = rest.get(..4)?;
        let tag = u16_at(short, 0);
        let named = matches!(tag, NAMED_USER | NAMED_GROUP);
        if !named && !matches!(tag, 0x01 | 0x04 | 0x10 | 0x20) {
            return None;
        }
        let length = if named { 8 } else { 4 };
        let entry = rest.get(..length)?;
        list.extend_from_slice(short);
        list.extend_from_slice(&if named { array::<4>(entry, 4) } else { UNUSED_ID });
        rest = rest.get(length..)?;
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_come_out_as_getxattr_gives_them() {
        // user::rw-, user:1000:r--, group::r--, mask::rw-, other::---
        let stored = b"\x01\0\0\0\x01\0\x06\0\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\x10\0\x06\0\x20\0\0\0";
        let wanted = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\
            \x04\0\x04\0\xff\xff\xff\xff\x10\0\x06\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
        assert_eq!(acl(stored).unwrap(), wanted);
        for cut in 1..stored.len() {
            if ![4, 8, 16, 20, 24].contains(&cut) {
                assert_eq!(acl(&stored[..cut]), None, "{cut}");
            }
        }
        assert_eq!(acl(b"\x02\0\0\0"), None);
        assert_eq!(acl(b"\x01\0\0\0\x03\0\x06\0"), None);
    }
}
