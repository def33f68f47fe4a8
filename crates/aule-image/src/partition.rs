//! Partition tables: MBR with logical partitions, and GPT.

mod gpt;
mod mbr;

use crate::{ReadAt, bytes::u16_at};
use std::io;

/// The sector size of MBR disks in bytes; GPT disks may have larger ones.
pub(crate) const SECTOR: u64 = 512;

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Which form it has.
    pub kind: TableKind,
    /// The partitions in order of their numbers.
    pub partitions: Vec<Partition>,
}

/// The form of a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// A master boot record.
    Mbr {
        /// The disk signature at byte 440.
        disk_id: u32,
    },
    /// A GUID partition table (UEFI specification 2.10, chapter 5).
    Gpt {
        /// The disk's GUID in the order of the disk; [`format_guid`] writes it as people do.
        guid: [u8; 16],
    },
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The number that Linux gives it, from 1; logical MBR partitions from 5.
    pub number: u32,
    /// Offset of its first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its type.
    pub kind: PartitionKind,
    /// The PARTUUID as Linux writes it: `1234abcd-01`, or a GUID in lower case.
    pub uuid: String,
    /// Its name; empty in an MBR.
    pub name: String,
    /// MBR: the active flag. GPT: the attribute for legacy BIOS boot.
    pub bootable: bool,
}

/// The type of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKind {
    /// The MBR type byte.
    Mbr(u8),
    /// The GPT type GUID in the order of the disk.
    Gpt([u8; 16]),
}

/// Why no partition table could be read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Reading failed, or decoding the image did.
    #[error("reading the partition table failed: {0}")]
    Read(#[from] io::Error),
    /// There is none.
    #[error("the image has no partition table: no MBR signature at byte 510, or no valid entries")]
    None,
    /// The MBR is corrupt.
    #[error("the MBR is corrupt (sector {sector}): {reason}")]
    Mbr {
        /// The sector of 512 bytes.
        sector: u64,
        /// What is wrong.
        reason: String,
    },
    /// Neither GPT header is right.
    #[error("the GUID partition table is corrupt: {primary}; and its backup: {backup}")]
    Gpt {
        /// What is wrong with the first header.
        primary: String,
        /// What is wrong with the backup.
        backup: String,
    },
    /// Two partitions share bytes.
    #[error("partitions {0} and {1} overlap")]
    Overlap(u32, u32),
    /// A partition passes the end of the image.
    #[error("partition {number} ends at byte {end}, after the end of the image ({size} bytes): the image is truncated")]
    OutOfRange {
        /// The partition's number.
        number: u32,
        /// Where it ends.
        end: u64,
        /// Size of the image.
        size: u64,
    },
}

impl PartitionTable {
    /// Checks that all partitions lie in an image of `size` bytes. [`read_partitions`] does so when the size is known
    /// without waiting.
    ///
    /// # Errors
    /// [`PartitionError::OutOfRange`].
    pub fn check_size(&self, size: u64) -> Result<(), PartitionError> {
        for partition in &self.partitions {
            let end = partition.start.saturating_add(partition.length);
            if end > size {
                return Err(PartitionError::OutOfRange { number: partition.number, end, size });
            }
        }
        Ok(())
    }

    fn check_overlaps(&self) -> Result<(), PartitionError> {
        let mut sorted: Vec<_> = self.partitions.iter().collect();
        sorted.sort_by_key(|partition| partition.start);
        for pair in sorted.windows(2) {
            if let [first, second] = pair
                && first.start.saturating_add(first.length) > second.start
            {
                return Err(PartitionError::Overlap(first.number, second.number));
            }
        }
        Ok(())
    }
}

/// Reads the partition table of a disk image.
///
/// # Errors
/// When there is none, it is corrupt, or its partitions overlap or pass the end of the image.
pub fn read_partitions(image: &dyn ReadAt) -> Result<PartitionTable, PartitionError> {
    let mut sector = [0; SECTOR as usize];
    match image.read_at(0, &mut sector) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PartitionError::None),
        result => result?,
    }
    let table = if let Some(sector_size) = gpt::find(image, &sector)? {
        gpt::read(image, sector_size)?
    } else if u16_at(&sector, 510) == 0xaa55 {
        mbr::read(image, &sector)?
    } else {
        return Err(PartitionError::None);
    };
    table.check_overlaps()?;
    if let Some(size) = image.known_size()? {
        table.check_size(size)?;
    }
    Ok(table)
}

/// A GUID in the mixed byte order of the disk as text in lower case (UEFI specification 2.10, appendix A).
pub fn format_guid(guid: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *guid;
    let first = u32::from_le_bytes([a, b, c, d]);
    let (second, third) = (u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
    let [i, j, node @ ..] = rest;
    let node: String = node.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{first:08x}-{second:04x}-{third:04x}-{i:02x}{j:02x}-{node}")
}
