//! Directories: the records in their blocks. Hash trees hide in records that look unused, so reading all blocks in
//! order gives every name (kernel documentation, filesystems/ext4/directory.rst).

use super::{
    checksum::crc32c,
    corrupt,
    inode::Inode,
    superblock::{Superblock, incompatible::FILETYPE},
};
use crate::{
    FilesystemError,
    bytes::{u8_at, u16_at, u32_at},
};

/// The record at the end of a block that holds its checksum, in bytes.
const TAIL: usize = 12;

/// A name in a directory, without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) inode: u32,
}

/// Reads the records of one block, or of an inline directory's pieces.
pub(super) fn records(
    bytes: &[u8],
    superblock: &Superblock,
    inode: &Inode,
    names: &mut Vec<Name>,
) -> Result<(), FilesystemError> {
    let wrong = |reason: &str| corrupt(format!("directory inode {}", inode.number), reason);
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = record_length(u16_at(rest, 4), superblock.block_size);
        // Before the feature `filetype`, lengths of names had 16 bits; names were never that long.
        let high = if superblock.has(FILETYPE) { 0 } else { usize::from(u8_at(rest, 7)) << 8 };
        let name_length = usize::from(u8_at(rest, 6)) | high;
        if length < 8 || !length.is_multiple_of(4) || length > rest.len() || 8 + name_length > length {
            return Err(wrong("a record has an impossible length"));
        }
        let (record, after) = rest.split_at(length);
        rest = after;
        let number = u32_at(record, 0);
        let name = record.get(8..8 + name_length).unwrap_or_default();
        if number == 0 || name == b"." || name == b".." {
            continue;
        }
        if name.is_empty() || name.len() > 255 || name.contains(&b'/') || name.contains(&0) {
            return Err(wrong("a name is empty, too long, or holds `/` or NUL"));
        }
        names.push(Name { name: name.to_vec(), inode: number });
    }
    Ok(())
}

/// Blocks of 64 KiB have records that are too long for 16 bits (`ext4_rec_len_from_disk`).
fn record_length(stored: u16, block_size: u64) -> usize {
    if block_size < 65536 {
        return stored.into();
    }
    match stored {
        0 | 65535 => 65536,
        _ => usize::from(stored & 65532) | usize::from(stored & 3) << 16,
    }
}

/// Checks the checksum of a block; `index` is its number in the directory.
pub(super) fn check_block(
    block: &[u8],
    index: u64,
    superblock: &Superblock,
    inode: &Inode,
) -> Result<(), FilesystemError> {
    if !superblock.has_checksums() {
        return Ok(());
    }
    let wrong = || {
        let place = format!("directory inode {}, block {index}", inode.number);
        Err(corrupt(place, "wrong checksum"))
    };
    if inode.is_indexed()
        && let Some(offset) = hash_tree_entries(block, index, superblock.block_size)
    {
        let (limit, count) = (u16_at(block, offset) as usize, u16_at(block, offset + 2) as usize);
        let tail = offset + 8 * limit;
        let (Some(checked), Some(tail)) = (block.get(..offset + 8 * count), block.get(tail..tail + 8)) else {
            return wrong();
        };
        let crc = crc32c(inode.checksum_seed, checked);
        let crc = crc32c(crc32c(crc, tail.get(..4).unwrap_or_default()), &[0; 4]);
        return if crc == u32_at(tail, 4) { Ok(()) } else { wrong() };
    }
    let Some((checked, tail)) = block.split_at_checked(block.len().saturating_sub(TAIL)) else { return wrong() };
    let is_tail = u32_at(tail, 0) == 0 && u16_at(tail, 4) as usize == TAIL && u16_at(tail, 6) == 0xde00;
    if is_tail && crc32c(inode.checksum_seed, checked) == u32_at(tail, 8) { Ok(()) } else { wrong() }
}

/// Where the entries of a block of the hash tree start; `None` for a block with names (`get_dx_countlimit`).
fn hash_tree_entries(block: &[u8], index: u64, block_size: u64) -> Option<usize> {
    let first = record_length(u16_at(block, 4), block_size) as u64;
    if index == 0 {
        let root_info = block.get(24..32)?;
        let is_root = first == 12
            && record_length(u16_at(block, 12 + 4), block_size) as u64 == block_size - 12
            && u32_at(root_info, 0) == 0
            && u8_at(root_info, 5) == 8;
        return is_root.then_some(32);
    }
    (first == block_size && u32_at(block, 0) == 0).then_some(8)
}
