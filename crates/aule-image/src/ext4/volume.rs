//! Blocks, group descriptors and inodes of an ext filesystem, as they are after its journal was replayed.

use super::{
    checksum::{crc16, crc32c},
    corrupt,
    inode::Inode,
    journal::{self, Replayed},
    superblock::{self, GroupChecksum, Superblock},
    unsupported,
};
use crate::{
    FilesystemError, ReadAt,
    bytes::{u16_at, u32_at},
};
use std::{collections::BTreeMap, io, sync::Arc};

pub(super) struct Volume {
    pub(super) superblock: Superblock,
    device: Arc<dyn ReadAt>,
    /// The newest version of each block that is in the journal only.
    replayed: BTreeMap<u64, Replayed>,
    /// The first block of each group's inode table.
    inode_tables: Vec<u64>,
}

impl Volume {
    /// `None` when there is no ext filesystem.
    pub(super) fn open(device: Arc<dyn ReadAt>) -> Result<Option<Self>, FilesystemError> {
        let Some(superblock) = read_superblock(&device)? else { return Ok(None) };
        let mut volume = Volume { superblock, device, replayed: BTreeMap::new(), inode_tables: Vec::new() };
        volume.check_size()?;
        volume.inode_tables = volume.read_descriptors()?;
        if volume.superblock.needs_recovery() {
            if volume.superblock.journal_inode == 0 {
                return Err(unsupported(
                    "it was not unmounted cleanly, and its journal is on another device; \
                     mount it once with Linux and unmount it"
                        .into(),
                ));
            }
            volume.replayed = journal::replay(&volume)?;
            // All may have changed now.
            volume.superblock =
                read_superblock(&volume)?.ok_or_else(|| corrupt("journal", "it erases the superblock"))?;
            volume.check_size()?;
            volume.inode_tables = volume.read_descriptors()?;
        }
        Ok(Some(volume))
    }

    fn check_size(&self) -> Result<(), FilesystemError> {
        let needed = self.superblock.blocks.saturating_mul(self.superblock.block_size);
        match self.device.known_size()? {
            Some(size) if size < needed => Err(corrupt(
                "superblock",
                format!("the filesystem has {needed} bytes, its partition or file only {size}: the image is truncated"),
            )),
            _ => Ok(()),
        }
    }

    fn read_descriptors(&self) -> Result<Vec<u64>, FilesystemError> {
        let superblock = &self.superblock;
        let per_block = superblock.block_size / superblock.descriptor_size;
        let mut tables = Vec::new();
        for index in 0..superblock.groups.div_ceil(per_block) {
            let block = self.block(superblock.descriptor_block(index))?;
            for descriptor in block.chunks_exact(superblock.descriptor_size as usize) {
                let group = tables.len() as u64;
                if group == superblock.groups {
                    break;
                }
                self.check_descriptor(group as u32, descriptor)?;
                let high = if superblock.descriptor_size >= 64 { u32_at(descriptor, 0x28) } else { 0 };
                let table = u64::from(u32_at(descriptor, 0x8)) | u64::from(high) << 32;
                let length = (u64::from(superblock.inodes_per_group) * superblock.inode_size as u64)
                    .div_ceil(superblock.block_size);
                if table == 0 || table.saturating_add(length) > superblock.blocks {
                    return Err(corrupt(format!("group {group}"), "its inode table is out of range"));
                }
                tables.push(table);
            }
        }
        Ok(tables)
    }

    fn check_descriptor(&self, group: u32, descriptor: &[u8]) -> Result<(), FilesystemError> {
        let (before, after) = (descriptor.get(..0x1e).unwrap_or_default(), descriptor.get(0x20..).unwrap_or_default());
        let number = group.to_le_bytes();
        let wanted = match self.superblock.group_checksum() {
            GroupChecksum::None => return Ok(()),
            GroupChecksum::Crc32c => {
                let crc = crc32c(crc32c(self.superblock.checksum_seed(), &number), before);
                crc32c(crc32c(crc, &[0, 0]), after) as u16
            }
            GroupChecksum::Crc16 => {
                let crc = crc16(crc16(crc16(!0, &self.superblock.uuid), &number), before);
                // Old 32-byte descriptors end with the checksum.
                crc16(crc, after)
            }
        };
        if u16_at(descriptor, 0x1e) == wanted {
            Ok(())
        } else {
            Err(corrupt(format!("group {group}"), "wrong checksum"))
        }
    }

    /// One block.
    pub(super) fn block(&self, number: u64) -> Result<Vec<u8>, FilesystemError> {
        if number >= self.superblock.blocks {
            return Err(corrupt(format!("block {number}"), "it is out of range"));
        }
        let mut block = vec![0; self.superblock.block_size as usize];
        self.read_at(number * self.superblock.block_size, &mut block)?;
        Ok(block)
    }

    /// One inode, checked.
    pub(super) fn inode(&self, number: u32) -> Result<Inode, FilesystemError> {
        let superblock = &self.superblock;
        if number == 0 || number > superblock.inodes {
            return Err(corrupt(format!("inode {number}"), "there is no such inode"));
        }
        let (group, index) = ((number - 1) / superblock.inodes_per_group, (number - 1) % superblock.inodes_per_group);
        let table = self.inode_tables.get(group as usize).copied().unwrap_or_default();
        let position = table * superblock.block_size + u64::from(index) * superblock.inode_size as u64;
        let mut raw = vec![0; superblock.inode_size];
        self.read_at(position, &mut raw)?;
        Inode::parse(number, raw, superblock)
    }
}

fn read_superblock(device: &dyn ReadAt) -> Result<Option<Superblock>, FilesystemError> {
    let mut bytes = [0; superblock::LENGTH];
    match device.read_at(superblock::POSITION, &mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    Superblock::parse(&bytes)
}

impl ReadAt for Volume {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, buffer)?;
        if self.replayed.is_empty() || buffer.is_empty() {
            return Ok(());
        }
        let size = self.superblock.block_size;
        let end = offset + buffer.len() as u64;
        for (&block, replayed) in self.replayed.range(offset / size..end.div_ceil(size)) {
            let mut bytes = vec![0; size as usize];
            self.device.read_at(replayed.position, &mut bytes)?;
            replayed.restore(&mut bytes);
            let (from, to) = ((block * size).max(offset), ((block + 1) * size).min(end));
            let target = buffer.get_mut((from - offset) as usize..(to - offset) as usize);
            let source = bytes.get((from - block * size) as usize..(to - block * size) as usize);
            if let (Some(target), Some(source)) = (target, source) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.device.size()
    }

    fn known_size(&self) -> io::Result<Option<u64>> {
        self.device.known_size()
    }
}
