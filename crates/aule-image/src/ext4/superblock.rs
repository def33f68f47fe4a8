//! The superblock: geometry, features, and what they ask of a reader (kernel documentation, filesystems/ext4/super.rst).

use super::{checksum::crc32c, corrupt, unsupported};
use crate::{
    FilesystemError,
    bytes::{array, u8_at, u16_at, u32_at},
};

/// Where the superblock lies, and how long it is, in bytes.
pub(super) const POSITION: u64 = 1024;
pub(super) const LENGTH: usize = 1024;

/// Incompatible features; a reader that does not know one must not read.
pub(super) mod incompatible {
    pub(in crate::ext4) const COMPRESSION: u32 = 0x1;
    pub(in crate::ext4) const FILETYPE: u32 = 0x2;
    pub(in crate::ext4) const RECOVER: u32 = 0x4;
    pub(in crate::ext4) const JOURNAL_DEV: u32 = 0x8;
    pub(in crate::ext4) const META_BG: u32 = 0x10;
    pub(in crate::ext4) const EXTENTS: u32 = 0x40;
    pub(in crate::ext4) const BIT64: u32 = 0x80;
    pub(in crate::ext4) const MMP: u32 = 0x100;
    pub(in crate::ext4) const FLEX_BG: u32 = 0x200;
    pub(in crate::ext4) const EA_INODE: u32 = 0x400;
    pub(in crate::ext4) const DIRDATA: u32 = 0x1000;
    pub(in crate::ext4) const CSUM_SEED: u32 = 0x2000;
    pub(in crate::ext4) const LARGEDIR: u32 = 0x4000;
    pub(in crate::ext4) const INLINE_DATA: u32 = 0x8000;
    pub(in crate::ext4) const ENCRYPT: u32 = 0x1_0000;
    pub(in crate::ext4) const CASEFOLD: u32 = 0x2_0000;
}
use incompatible::*;

/// Encrypted inodes are refused one by one; the feature alone harms nothing.
const SUPPORTED: u32 = FILETYPE
    | RECOVER
    | META_BG
    | EXTENTS
    | BIT64
    | MMP
    | FLEX_BG
    | EA_INODE
    | CSUM_SEED
    | LARGEDIR
    | INLINE_DATA
    | ENCRYPT
    | CASEFOLD;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const RO_SPARSE_SUPER: u32 = 0x1;
const RO_LARGE_FILE: u32 = 0x2;
const RO_BTREE_DIR: u32 = 0x4;
const RO_GDT_CSUM: u32 = 0x10;
const RO_BIGALLOC: u32 = 0x200;
const RO_METADATA_CSUM: u32 = 0x400;
const RO_SHARED_BLOCKS: u32 = 0x4000;

/// 16 TiB in groups of 16 MiB, far more than an image has; it bounds the memory for their descriptors.
const MAX_GROUPS: u64 = 1 << 20;

/// How group descriptors are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupChecksum {
    None,
    Crc16,
    Crc32c,
}

/// What a reader needs of the superblock; sizes in bytes.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) blocks: u64,
    pub(super) first_data_block: u64,
    pub(super) block_size: u64,
    /// What is allocated at once: a block, or more with the feature `bigalloc`.
    pub(super) cluster_size: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes_per_group: u32,
    pub(super) groups: u64,
    pub(super) inode_size: usize,
    pub(super) first_inode: u32,
    pub(super) descriptor_size: u64,
    pub(super) first_meta_group: u64,
    pub(super) uuid: [u8; 16],
    pub(super) label: Vec<u8>,
    pub(super) journal_inode: u32,
    incompatible: u32,
    compatible: u32,
    ro_compatible: u32,
    backup_groups: [u32; 2],
    checksum_seed: u32,
}

impl Superblock {
    /// `None` when these bytes are no ext superblock.
    pub(super) fn parse(bytes: &[u8; LENGTH]) -> Result<Option<Self>, FilesystemError> {
        if u16_at(bytes, 0x38) != 0xef53 {
            return Ok(None);
        }
        let wrong = |reason: String| corrupt("superblock", reason);
        let old = u32_at(bytes, 0x4c) == 0;
        let (compatible, incompatible, ro_compatible) =
            if old { (0, 0, 0) } else { (u32_at(bytes, 0x5c), u32_at(bytes, 0x60), u32_at(bytes, 0x64)) };
        if ro_compatible & RO_METADATA_CSUM != 0 {
            if u8_at(bytes, 0x175) != 1 {
                return Err(unsupported(format!("unknown checksum algorithm {}", u8_at(bytes, 0x175))));
            }
            if crc32c(!0, bytes.get(..0x3fc).unwrap_or_default()) != u32_at(bytes, 0x3fc) {
                return Err(wrong("wrong checksum".into()));
            }
        }
        if incompatible & JOURNAL_DEV != 0 {
            return Err(unsupported("it is an external journal".into()));
        }
        let unknown = incompatible & !SUPPORTED;
        if unknown != 0 {
            let known = [(COMPRESSION, "compression"), (DIRDATA, "dirdata")];
            let names: Vec<_> = known.iter().filter(|(bit, _)| unknown & bit != 0).map(|(_, name)| *name).collect();
            return Err(unsupported(format!("it has unsupported features 0x{unknown:x} {}", names.join(", "))));
        }
        if ro_compatible & RO_SHARED_BLOCKS != 0 {
            return Err(unsupported("its files share blocks (feature shared_blocks)".into()));
        }
        let log_block_size = u32_at(bytes, 0x18);
        if log_block_size > 6 {
            return Err(wrong(format!("block size 2^{} is impossible", u64::from(log_block_size) + 10)));
        }
        let block_size = 1024u64 << log_block_size;
        let log_cluster_size = if ro_compatible & RO_BIGALLOC != 0 { u32_at(bytes, 0x1c) } else { log_block_size };
        // 1 GiB is the largest that mke2fs makes.
        if log_cluster_size < log_block_size || log_cluster_size > 20 {
            return Err(wrong(format!("cluster size 2^{} is impossible", u64::from(log_cluster_size) + 10)));
        }
        let wide = incompatible & BIT64 != 0;
        let blocks_high = if wide { u32_at(bytes, 0x150) } else { 0 };
        let blocks = u64::from(u32_at(bytes, 0x4)) | u64::from(blocks_high) << 32;
        let first_data_block = u64::from(u32_at(bytes, 0x14));
        let blocks_per_group = u64::from(u32_at(bytes, 0x20));
        let (inodes, inodes_per_group) = (u32_at(bytes, 0), u32_at(bytes, 0x28));
        let inode_size = if old { 128 } else { u16_at(bytes, 0x58) as usize };
        if inode_size < 128 || inode_size as u64 > block_size || !inode_size.is_power_of_two() {
            return Err(wrong(format!("inode size {inode_size} is impossible")));
        }
        let descriptor_size = if wide { u64::from(u16_at(bytes, 0xfe)) } else { 32 };
        if !(32..=1024).contains(&descriptor_size)
            || !descriptor_size.is_power_of_two()
            || (wide && descriptor_size < 64)
        {
            return Err(wrong(format!("group descriptor size {descriptor_size} is impossible")));
        }
        // 2^44 blocks are 16 PiB at least; below that no sum of offsets overflows.
        if first_data_block > 1 || blocks <= first_data_block || blocks >= 1 << 44 || blocks_per_group == 0 {
            return Err(wrong(format!("{blocks} blocks in groups of {blocks_per_group} are impossible")));
        }
        let groups = (blocks - first_data_block).div_ceil(blocks_per_group);
        if inodes_per_group == 0 || u64::from(inodes) != groups.saturating_mul(inodes_per_group.into()) {
            return Err(wrong(format!("{inodes} inodes in {groups} groups of {inodes_per_group} are impossible")));
        }
        if groups > MAX_GROUPS {
            return Err(wrong(format!("{groups} block groups, more than {MAX_GROUPS}")));
        }
        let uuid = array(bytes, 0x68);
        let label: [u8; 16] = array(bytes, 0x78);
        let checksum_seed = if incompatible & CSUM_SEED != 0 { u32_at(bytes, 0x270) } else { crc32c(!0, &uuid) };
        Ok(Some(Superblock {
            inodes,
            blocks,
            first_data_block,
            block_size,
            cluster_size: 1024 << log_cluster_size,
            blocks_per_group,
            inodes_per_group,
            groups,
            inode_size,
            first_inode: if old { 11 } else { u32_at(bytes, 0x54) },
            descriptor_size,
            first_meta_group: u32_at(bytes, 0x104).into(),
            uuid,
            label: label.split(|&byte| byte == 0).next().unwrap_or_default().to_vec(),
            journal_inode: u32_at(bytes, 0xe0),
            incompatible,
            compatible,
            ro_compatible,
            backup_groups: [u32_at(bytes, 0x24c), u32_at(bytes, 0x250)],
            checksum_seed,
        }))
    }

    pub(super) fn has(&self, feature: u32) -> bool {
        self.incompatible & feature != 0
    }

    /// Whether metadata carries CRC-32C checksums.
    pub(super) fn has_checksums(&self) -> bool {
        self.ro_compatible & RO_METADATA_CSUM != 0
    }

    /// What all checksums but the superblock's start from.
    pub(super) fn checksum_seed(&self) -> u32 {
        self.checksum_seed
    }

    pub(super) fn group_checksum(&self) -> GroupChecksum {
        if self.has_checksums() {
            GroupChecksum::Crc32c
        } else if self.ro_compatible & RO_GDT_CSUM != 0 {
            GroupChecksum::Crc16
        } else {
            GroupChecksum::None
        }
    }

    /// Whether the journal must be replayed before anything can be trusted.
    pub(super) fn needs_recovery(&self) -> bool {
        self.has(RECOVER) && self.compatible & COMPAT_HAS_JOURNAL != 0
    }

    /// The name of the format in the words of blkid: by the features, as the kernel's drivers of old took them.
    pub(super) fn kind(&self) -> &'static str {
        let old_incompatible = FILETYPE | META_BG | RECOVER;
        let old_ro = RO_SPARSE_SUPER | RO_LARGE_FILE | RO_BTREE_DIR;
        if self.incompatible & !old_incompatible != 0 || self.ro_compatible & !old_ro != 0 {
            "ext4"
        } else if self.compatible & COMPAT_HAS_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// The block that holds the descriptors of the groups from `index * per block` on.
    pub(super) fn descriptor_block(&self, index: u64) -> u64 {
        if !self.has(META_BG) || index < self.first_meta_group {
            // After the superblock, which lies at byte 1024: in block 1 of 1 KiB, else in block 0. The first data block is
            // no help, as it is 0 with clusters, whatever the size of blocks (`descriptor_loc` of the kernel).
            return 1024 / self.block_size + 1 + index;
        }
        let group = index * (self.block_size / self.descriptor_size);
        let after_superblock = u64::from(self.group_has_superblock(group));
        // With 1 KiB blocks and clusters, block 0 belongs to group 0, and its superblock is in block 1.
        let shifted = u64::from(self.block_size == 1024 && group == 0 && self.first_data_block == 0);
        self.first_data_block + group * self.blocks_per_group + after_superblock + shifted
    }

    fn group_has_superblock(&self, group: u64) -> bool {
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        if group == 0 {
            true
        } else if self.compatible & COMPAT_SPARSE_SUPER2 != 0 {
            self.backup_groups.iter().any(|&backup| u64::from(backup) == group)
        } else if self.ro_compatible & RO_SPARSE_SUPER == 0 {
            true
        } else {
            group == 1 || is_power(3) || is_power(5) || is_power(7)
        }
    }
}
