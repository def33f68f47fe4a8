//! From an inode to the runs of bytes on disk that hold its content: extent trees (kernel documentation,
//! filesystems/ext4/ifork.rst) and the older indirect blocks.

use super::{
    KIND,
    checksum::crc32c,
    corrupt,
    inode::{BLOCK_MAP_LENGTH, Inode},
    volume::Volume,
};
use crate::{
    FilesystemError,
    bytes::{u16_at, u32_at},
    filesystem::Run,
};

const EXTENT_MAGIC: u16 = 0xf30a;
/// Enough for 2^32 blocks (`EXT4_MAX_EXTENT_DEPTH`).
const MAX_DEPTH: u16 = 5;
/// The most runs of what is read at once: a journal, the value of an attribute.
pub(super) const MAX_RUNS: usize = 1 << 20;
/// Longer extents are allocated but not written: they read as zeros.
const MAX_WRITTEN: u64 = 32768;

/// How many blocks may still be mapped. Two files never share a block, so all of them together map no more blocks than
/// the filesystem has; this bounds what loops and repetitions in an image can cost.
pub(super) struct Claims(pub(super) u64);

impl Claims {
    fn take(&mut self, blocks: u64, inode: &Inode) -> Result<(), FilesystemError> {
        let wrong = || corrupt(inode.place(), "files have more blocks than the filesystem: blocks are used twice");
        self.0 = self.0.checked_sub(blocks).ok_or_else(wrong)?;
        Ok(())
    }
}

/// The runs of written data, cut to the inode's size: at most `limit`, as a file whose every other block is a hole has one
/// for each block.
pub(super) fn runs(
    volume: &Volume,
    inode: &Inode,
    claims: &mut Claims,
    limit: usize,
) -> Result<Vec<Run>, FilesystemError> {
    let mut map = Map { volume, inode, claims, limit, runs: Vec::new(), next: 0 };
    if inode.has_extents() {
        let depth = u16_at(inode.block_map(), 6);
        if depth > MAX_DEPTH {
            return Err(corrupt(inode.place(), format!("an extent tree of depth {depth} is impossible")));
        }
        map.extents(inode.block_map(), depth)?;
    } else {
        map.indirect()?;
    }
    let mut runs = map.runs;
    while let Some(last) = runs.last_mut() {
        if last.offset < inode.size {
            last.length = last.length.min(inode.size - last.offset);
            break;
        }
        // Space that was allocated past the end (FALLOC_FL_KEEP_SIZE).
        runs.pop();
    }
    Ok(runs)
}

struct Map<'a> {
    volume: &'a Volume,
    inode: &'a Inode,
    claims: &'a mut Claims,
    limit: usize,
    runs: Vec<Run>,
    /// The first logical block that may come next.
    next: u64,
}

impl Map<'_> {
    fn wrong(&self, reason: impl Into<String>) -> FilesystemError {
        corrupt(self.inode.place(), reason)
    }

    /// Adds `length` blocks of data.
    fn add(&mut self, logical: u64, physical: u64, length: u64) -> Result<(), FilesystemError> {
        let superblock = &self.volume.superblock;
        if physical <= superblock.first_data_block || physical.saturating_add(length) > superblock.blocks {
            return Err(
                self.wrong(format!("blocks {physical} to {} are out of range", physical.saturating_add(length)))
            );
        }
        self.claims.take(length, self.inode)?;
        let size = superblock.block_size;
        let run = Run { offset: logical * size, position: physical * size, length: length * size };
        let full = self.runs.len() >= self.limit;
        match self.runs.last_mut() {
            Some(last) if last.offset + last.length == run.offset && last.position + last.length == run.position => {
                last.length += run.length;
            }
            _ if full => {
                return Err(FilesystemError::TooMany { kind: KIND, what: "runs of blocks", limit: self.limit });
            }
            _ => self.runs.push(run),
        }
        Ok(())
    }

    /// A node of the extent tree: the root in the inode, or a block.
    fn extents(&mut self, node: &[u8], depth: u16) -> Result<(), FilesystemError> {
        let (entries, capacity) = (u16_at(node, 2) as usize, u16_at(node, 4) as usize);
        if u16_at(node, 0) != EXTENT_MAGIC || u16_at(node, 6) != depth {
            return Err(self.wrong("a node of the extent tree has a wrong header"));
        }
        if entries > capacity || 12 * (capacity + 1) > node.len() {
            return Err(self.wrong("a node of the extent tree has an impossible number of entries"));
        }
        if self.volume.superblock.has_checksums() && node.len() > BLOCK_MAP_LENGTH {
            let (checked, tail) = node.split_at(12 * (capacity + 1));
            if tail.len() >= 4 && crc32c(self.inode.checksum_seed, checked) != u32_at(tail, 0) {
                return Err(self.wrong("a node of the extent tree has a wrong checksum"));
            }
        }
        for entry in node.chunks_exact(12).skip(1).take(entries) {
            let logical = u64::from(u32_at(entry, 0));
            if logical < self.next {
                return Err(self.wrong("its extents overlap or are out of order"));
            }
            if depth > 0 {
                let block = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
                self.claims.take(1, self.inode)?;
                let child = self.volume.block(block)?;
                // The depth falls with each level, so a loop ends here as a wrong header.
                self.extents(&child, depth - 1)?;
                continue;
            }
            let length = u64::from(u16_at(entry, 4));
            let physical = u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32;
            if length == 0 {
                return Err(self.wrong("an extent is empty"));
            }
            if length <= MAX_WRITTEN {
                self.add(logical, physical, length)?;
                self.next = logical + length;
            } else {
                self.next = logical + length - MAX_WRITTEN;
            }
        }
        Ok(())
    }

    /// Twelve direct blocks, then one each of single, double and triple indirection.
    fn indirect(&mut self) -> Result<(), FilesystemError> {
        let per_block = self.volume.superblock.block_size / 4;
        let blocks = self.inode.size.div_ceil(self.volume.superblock.block_size);
        let map: Vec<u64> = self.inode.block_map().chunks_exact(4).map(|entry| u32_at(entry, 0).into()).collect();
        let mut logical = 0;
        for (index, &block) in map.iter().enumerate() {
            let depth = index.saturating_sub(11) as u32;
            if logical >= blocks {
                return Ok(());
            }
            self.indirect_block(block, depth, logical, per_block, blocks)?;
            logical += per_block.pow(depth);
        }
        if logical < blocks {
            return Err(self.wrong("it is larger than its map of blocks can be"));
        }
        Ok(())
    }

    fn indirect_block(
        &mut self,
        block: u64,
        depth: u32,
        logical: u64,
        per_block: u64,
        blocks: u64,
    ) -> Result<(), FilesystemError> {
        if block == 0 || logical >= blocks {
            return Ok(());
        }
        if depth == 0 {
            return self.add(logical, block, 1);
        }
        self.claims.take(1, self.inode)?;
        let entries = self.volume.block(block)?;
        let span = per_block.pow(depth - 1);
        for (index, entry) in (0..).zip(entries.chunks_exact(4)) {
            self.indirect_block(u32_at(entry, 0).into(), depth - 1, logical + index * span, per_block, blocks)?;
        }
        Ok(())
    }
}
