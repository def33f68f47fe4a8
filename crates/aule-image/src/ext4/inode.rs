//! Inodes: kind, mode, owner, times, device numbers (kernel documentation, filesystems/ext4/inodes.rst).

use super::{checksum::crc32c, corrupt, superblock::Superblock, unsupported};
use crate::{
    FilesystemError,
    bytes::{array, u16_at, u32_at},
};
use aule_tree::Timestamp;

const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_INDEXED: u32 = 0x1000;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_EA_INODE: u32 = 0x20_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

/// The part of an inode that every version has, in bytes.
const BASE: usize = 128;
/// Where its map of blocks is.
const BLOCK_MAP: usize = 0x28;
pub(super) const BLOCK_MAP_LENGTH: usize = 60;

/// The format bits of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Fifo,
    CharDevice,
    Directory,
    BlockDevice,
    Regular,
    Symlink,
    Socket,
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) format: Format,
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u16,
    pub(super) mtime: Timestamp,
    /// Allocated space in sectors of 512 bytes, of use only to tell short symlinks.
    pub(super) sectors: u64,
    /// The block with extended attributes; 0 when there is none.
    pub(super) attribute_block: u64,
    flags: u32,
    /// What checksums of this inode's metadata start from.
    pub(super) checksum_seed: u32,
    raw: Vec<u8>,
    /// Length of the fields after the first 128 bytes.
    extra: usize,
}

impl Inode {
    pub(super) fn parse(number: u32, raw: Vec<u8>, superblock: &Superblock) -> Result<Self, FilesystemError> {
        let place = || format!("inode {number}");
        let raw_mode = u16_at(&raw, 0);
        if raw_mode == 0 || u16_at(&raw, 0x1a) == 0 {
            return Err(corrupt(place(), "a directory names it, but it is deleted"));
        }
        let extra = if raw.len() > BASE { u16_at(&raw, 0x80) as usize } else { 0 };
        if BASE + extra > raw.len() || !extra.is_multiple_of(4) {
            return Err(corrupt(place(), format!("{extra} bytes of extra fields are impossible")));
        }
        let seed = crc32c(superblock.checksum_seed(), &number.to_le_bytes());
        let checksum_seed = crc32c(seed, &array::<4>(&raw, 0x64));
        if superblock.has_checksums() && !checksum_is_right(&raw, extra, checksum_seed) {
            return Err(corrupt(place(), "wrong checksum"));
        }
        let format = match raw_mode >> 12 {
            0x1 => Format::Fifo,
            0x2 => Format::CharDevice,
            0x4 => Format::Directory,
            0x6 => Format::BlockDevice,
            0x8 => Format::Regular,
            0xa => Format::Symlink,
            0xc => Format::Socket,
            other => return Err(corrupt(place(), format!("unknown kind of file 0x{other:x}"))),
        };
        let flags = u32_at(&raw, 0x20);
        if flags & FLAG_ENCRYPTED != 0 {
            return Err(unsupported(format!("inode {number} is encrypted")));
        }
        let wide = |low: usize, high: usize| u32::from(u16_at(&raw, low)) | u32::from(u16_at(&raw, high)) << 16;
        let size = match format {
            Format::Regular | Format::Directory => u64::from(u32_at(&raw, 0x4)) | u64::from(u32_at(&raw, 0x6c)) << 32,
            _ => u32_at(&raw, 0x4).into(),
        };
        // Logical block numbers have 32 bits.
        if size > superblock.block_size << 32 {
            return Err(corrupt(place(), format!("a size of {size} bytes is impossible")));
        }
        // The field exists when the extra fields reach past it.
        let mtime_extra = if extra >= 0x8c - BASE { u32_at(&raw, 0x88) } else { 0 };
        Ok(Inode {
            number,
            format,
            mode: raw_mode & 0o7777,
            uid: wide(0x2, 0x78),
            gid: wide(0x18, 0x7a),
            size,
            links: u16_at(&raw, 0x1a),
            mtime: timestamp(u32_at(&raw, 0x10), mtime_extra).ok_or_else(|| corrupt(place(), "impossible mtime"))?,
            sectors: u64::from(u32_at(&raw, 0x1c)) | u64::from(u16_at(&raw, 0x74)) << 32,
            attribute_block: u64::from(u32_at(&raw, 0x68)) | u64::from(u16_at(&raw, 0x76)) << 32,
            flags,
            checksum_seed,
            raw,
            extra,
        })
    }

    pub(super) fn place(&self) -> String {
        format!("inode {}", self.number)
    }

    /// The 60 bytes that map blocks, or hold a short link's target, a device number or inline data.
    pub(super) fn block_map(&self) -> &[u8] {
        self.raw.get(BLOCK_MAP..BLOCK_MAP + BLOCK_MAP_LENGTH).unwrap_or_default()
    }

    /// What follows the inode's fields: extended attributes.
    pub(super) fn attribute_area(&self) -> &[u8] {
        if self.extra == 0 { &[] } else { self.raw.get(BASE + self.extra..).unwrap_or_default() }
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & FLAG_EXTENTS != 0
    }

    pub(super) fn has_inline_data(&self) -> bool {
        self.flags & FLAG_INLINE_DATA != 0
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.flags & FLAG_INDEXED != 0
    }

    pub(super) fn holds_an_attribute(&self) -> bool {
        self.flags & FLAG_EA_INODE != 0
    }

    /// Of an inode that holds an attribute's value: the value's checksum (`ext4_xattr_inode_get_hash`).
    pub(super) fn attribute_checksum(&self) -> u32 {
        u32_at(&self.raw, 0x8)
    }

    /// Major and minor number of a device: the old encoding of 16 bits, else the new one of 32 (`ext4_iget`, `kdev_t.h`).
    pub(super) fn device(&self) -> (u32, u32) {
        let (old, new) = (u32_at(&self.raw, BLOCK_MAP), u32_at(&self.raw, BLOCK_MAP + 4));
        if old != 0 {
            ((old >> 8) & 0xff, old & 0xff)
        } else {
            ((new & 0xf_ff00) >> 8, (new & 0xff) | ((new >> 12) & 0xf_ff00))
        }
    }
}

/// Seconds have 32 bits with sign; two more bits of epoch and 30 of nanoseconds are in the extra field
/// (`ext4_decode_extra_time`).
fn timestamp(seconds: u32, extra: u32) -> Option<Timestamp> {
    let seconds = i64::from(seconds.cast_signed()) + (i64::from(extra & 3) << 32);
    let nanoseconds = extra >> 2;
    (nanoseconds < 1_000_000_000).then_some(Timestamp { seconds, nanoseconds })
}

fn checksum_is_right(raw: &[u8], extra: usize, seed: u32) -> bool {
    let part = |from: usize, to: usize| raw.get(from..to.min(raw.len())).unwrap_or_default();
    let mut crc = crc32c(crc32c(crc32c(seed, part(0, 0x7c)), &[0, 0]), part(0x7e, BASE));
    let has_high = extra >= 4;
    if raw.len() > BASE {
        crc = crc32c(crc, part(BASE, 0x82));
        crc = if has_high {
            crc32c(crc32c(crc, &[0, 0]), part(0x84, raw.len()))
        } else {
            crc32c(crc, part(0x82, raw.len()))
        };
    }
    let stored = u32::from(u16_at(raw, 0x7c)) | u32::from(u16_at(raw, 0x82)) << 16;
    if has_high { crc == stored } else { crc as u16 == stored as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_1901_to_2446() {
        // The table of the kernel documentation, filesystems/ext4/inodes.rst, "Inode Timestamps".
        let cases = [
            (0x8000_0000, 0, -0x8000_0000),
            (0xffff_ffff, 0, -1),
            (0, 0, 0),
            (0x7fff_ffff, 0, 0x7fff_ffff),
            (0x8000_0000, 1, 0x8000_0000),
            (0xffff_ffff, 1, 0xffff_ffff),
            (0, 1, 0x1_0000_0000),
            (0x7fff_ffff, 3, 0x3_7fff_ffff),
        ];
        for (seconds, epoch, wanted) in cases {
            let got = timestamp(seconds, epoch | 999_999_999 << 2).unwrap();
            assert_eq!(got, Timestamp { seconds: wanted, nanoseconds: 999_999_999 });
        }
        assert_eq!(timestamp(0, 1_000_000_000 << 2), None);
    }
}
