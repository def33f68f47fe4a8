//! The boot sector: geometry, label and serial number, and from them which FAT it is.

use super::corrupt;
use crate::{
    FilesystemError, ReadAt,
    bytes::{array, u8_at, u16_at, u32_at},
    filesystem::Run,
};
use std::io;

/// FAT32 of 512-byte clusters and 16 GiB; it bounds the memory for the table.
const MAX_TABLE: u64 = 128 << 20;

/// The width of the table's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// What a reader needs of the boot sector; sizes and positions in bytes.
#[derive(Debug, Clone)]
pub(super) struct BootSector {
    pub(super) width: Width,
    pub(super) size: u64,
    pub(super) cluster_size: u64,
    /// Number of clusters; they are numbered from 2.
    pub(super) clusters: u32,
    pub(super) table_position: u64,
    /// How much of the table is in use.
    pub(super) table_length: usize,
    /// Where the root directory of FAT12 and FAT16 is.
    pub(super) fixed_root: Option<Run>,
    /// The root directory of FAT32.
    pub(super) root_cluster: u32,
    pub(super) label: Vec<u8>,
    pub(super) volume_id: u32,
    data_position: u64,
}

impl BootSector {
    /// `None` when this is no FAT; an error when it claims to be one but is corrupt.
    pub(super) fn read(device: &dyn ReadAt) -> Result<Option<Self>, FilesystemError> {
        let mut sector = [0; 512];
        match device.read_at(0, &mut sector) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let sector_size = u64::from(u16_at(&sector, 11));
        let sectors_per_cluster = u64::from(u8_at(&sector, 13));
        let reserved = u64::from(u16_at(&sector, 14));
        let tables = u64::from(u8_at(&sector, 16));
        let media = u8_at(&sector, 21);
        // What Linux asks of a boot sector (`fat_read_bpb`); other content hardly ever passes.
        let is_fat = reserved > 0
            && tables > 0
            && (media >= 0xf8 || media == 0xf0)
            && (512..=4096).contains(&sector_size)
            && sector_size.is_power_of_two()
            && sectors_per_cluster.is_power_of_two()
            && matches!(u8_at(&sector, 0), 0xeb | 0xe9);
        if !is_fat {
            return Ok(None);
        }
        let wrong = |reason: &str| Err(corrupt("boot sector", reason));
        let root_records = u64::from(u16_at(&sector, 17));
        let total = match u64::from(u16_at(&sector, 19)) {
            0 => u64::from(u32_at(&sector, 32)),
            total => total,
        };
        let short_table = u64::from(u16_at(&sector, 22));
        let table_sectors = if short_table != 0 { short_table } else { u64::from(u32_at(&sector, 36)) };
        let root_sectors = (root_records * 32).div_ceil(sector_size);
        let data = reserved + tables * table_sectors + root_sectors;
        if table_sectors == 0 || total <= data {
            return wrong("it has no room for data");
        }
        let clusters = (total - data) / sectors_per_cluster;
        // The number of clusters alone decides (section "FAT Type Determination"), but as Linux does, a table length of
        // 32 bits is FAT32 also when there are few.
        let width = match clusters {
            _ if short_table == 0 => Width::Fat32,
            ..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => return wrong("FAT16 with too many clusters"),
        };
        if clusters == 0 || clusters > 0x0fff_fff5 {
            return wrong("an impossible number of clusters");
        }
        let needed = match width {
            Width::Fat12 => (3 * (clusters + 2)).div_ceil(2),
            Width::Fat16 => 2 * (clusters + 2),
            Width::Fat32 => 4 * (clusters + 2),
        };
        if needed > table_sectors * sector_size {
            return wrong("its table is too short for its clusters");
        }
        if needed > MAX_TABLE {
            return wrong("its table has more than 128 MiB");
        }
        let is_32 = width == Width::Fat32;
        if is_32 && (root_records != 0 || u16_at(&sector, 42) != 0) {
            return wrong("an unknown version of FAT32");
        }
        if !is_32 && root_records == 0 {
            return wrong("it has no root directory");
        }
        // FAT32 put its fields before the extended ones.
        let extended = if is_32 { 64 } else { 36 };
        let has_extended = matches!(u8_at(&sector, extended + 2), 0x28 | 0x29);
        let label: [u8; 11] = array(&sector, extended + 7);
        let root_position = (reserved + tables * table_sectors) * sector_size;
        // Bit 7 says that only one table is live, the low bits which (`BPB_ExtFlags`).
        let flags = u16_at(&sector, 40);
        let active = if is_32 && flags & 0x80 != 0 { u64::from(flags & 0xf) } else { 0 };
        if active >= tables {
            return wrong("its live table does not exist");
        }
        Ok(Some(BootSector {
            width,
            size: total * sector_size,
            cluster_size: sectors_per_cluster * sector_size,
            clusters: clusters as u32,
            table_position: (reserved + active * table_sectors) * sector_size,
            table_length: needed as usize,
            fixed_root: (!is_32).then_some(Run { offset: 0, position: root_position, length: root_records * 32 }),
            root_cluster: if is_32 { u32_at(&sector, 44) } else { 0 },
            label: if has_extended { trimmed(&label) } else { Vec::new() },
            volume_id: if has_extended { u32_at(&sector, extended + 3) } else { 0 },
            data_position: data * sector_size,
        }))
    }

    /// Where a cluster lies; `None` when there is no such cluster.
    pub(super) fn cluster_position(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(2).filter(|&index| index < self.clusters)?;
        Some(self.data_position + u64::from(index) * self.cluster_size)
    }

    /// Whether an entry of the table ends a chain.
    pub(super) fn is_end(&self, entry: u32) -> bool {
        entry
            >= match self.width {
                Width::Fat12 => 0xff8,
                Width::Fat16 => 0xfff8,
                Width::Fat32 => 0x0fff_fff8,
            }
    }
}

/// A label without its padding; `NO NAME` means none.
pub(super) fn trimmed(label: &[u8]) -> Vec<u8> {
    let end = label.iter().rposition(|&byte| byte != b' ' && byte != 0).map_or(0, |last| last + 1);
    let label = label.get(..end).unwrap_or_default();
    if label == b"NO NAME" { Vec::new() } else { label.to_vec() }
}
