//! The GUID partition table (UEFI specification 2.10, chapter 5).

use super::{Partition, PartitionError, PartitionKind, PartitionTable, TableKind, format_guid};
use crate::{
    ReadAt,
    bytes::{array, u8_at, u16_at, u32_at, u64_at},
};
use std::io;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_SIZE: usize = 92;
/// The specification reserves 16 KiB for the entries; nobody needs more than a thousand.
const MAX_TABLE: u64 = 1 << 20;
const PROTECTIVE: u8 = 0xee;
/// Attribute bit 2: legacy BIOS bootable (section 5.3.3).
const LEGACY_BOOT: u64 = 1 << 2;

/// The sector size of a disk with a GPT; `None` for a disk without one.
///
/// Only a protective MBR says that there is one, as for Linux: a header alone may be left from before.
pub(super) fn find(image: &dyn ReadAt, sector: &[u8]) -> Result<Option<u64>, PartitionError> {
    let protective = (0..4).any(|entry| u8_at(sector, 446 + 16 * entry + 4) == PROTECTIVE);
    if u16_at(sector, 510) != 0xaa55 || !protective {
        return Ok(None);
    }
    for sector_size in [512, 4096] {
        let mut signature = [0; 8];
        match image.read_at(sector_size, &mut signature) {
            Ok(()) if &signature == SIGNATURE => return Ok(Some(sector_size)),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error.into()),
        }
    }
    // There was one, and its backup may be right.
    Ok(Some(512))
}

pub(super) fn read(image: &dyn ReadAt, sector_size: u64) -> Result<PartitionTable, PartitionError> {
    let primary = match read_at(image, sector_size, 1) {
        Ok(table) => return Ok(table),
        Err(reason) => reason?,
    };
    let last = (image.size()? / sector_size).saturating_sub(1);
    match read_at(image, sector_size, last) {
        Ok(table) => Ok(table),
        Err(reason) => Err(PartitionError::Gpt { primary, backup: reason? }),
    }
}

/// The table whose header is in sector `lba`. The inner error is one of reading, which ends everything.
fn read_at(image: &dyn ReadAt, sector_size: u64, lba: u64) -> Result<PartitionTable, Result<String, PartitionError>> {
    let wrong = |reason: &str| Err(Ok(reason.to_owned()));
    let read = |offset: u64, buffer: &mut [u8]| match image.read_at(offset, buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Ok("it passes the end of the image".into())),
        result => result.map_err(|error| Err(error.into())),
    };
    let mut header = [0; HEADER_SIZE];
    read(lba.saturating_mul(sector_size), &mut header)?;
    if header.first_chunk() != Some(SIGNATURE) {
        return wrong("no signature");
    }
    let checksum = u32_at(&header, 16);
    if let Some(field) = header.get_mut(16..20) {
        field.fill(0);
    }
    // Every revision so far has 92 bytes; longer ones would need their reserved bytes in the checksum.
    if u32_at(&header, 12) as usize != HEADER_SIZE {
        return wrong("the header has an unknown size");
    }
    if crc32fast::hash(&header) != checksum {
        return wrong("wrong header checksum");
    }
    if u64_at(&header, 24) != lba {
        return wrong("the header names another place as its own");
    }
    let (count, entry_size) = (u64::from(u32_at(&header, 80)), u64::from(u32_at(&header, 84)));
    if !(128..=4096).contains(&entry_size) || !entry_size.is_multiple_of(8) || count * entry_size > MAX_TABLE {
        return wrong("impossible number or size of entries");
    }
    let mut table = vec![0; (count * entry_size) as usize];
    let Some(offset) = u64_at(&header, 72).checked_mul(sector_size) else { return wrong("entries out of range") };
    read(offset, &mut table)?;
    if crc32fast::hash(&table) != u32_at(&header, 88) {
        return wrong("wrong checksum of the entries");
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(entry_size as usize)) {
        let kind: [u8; 16] = array(entry, 0);
        if kind == [0; 16] {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let end = last.checked_add(1).and_then(|end| end.checked_mul(sector_size));
        let (Some(end), true) = (end, first <= last && first > 0) else {
            return wrong(&format!("partition {number} ends before it starts, or out of range"));
        };
        let name: Vec<u16> =
            entry.get(56..128).unwrap_or_default().chunks_exact(2).map(|unit| u16_at(unit, 0)).collect();
        let name = name.split(|&unit| unit == 0).next().unwrap_or_default();
        let start = first * sector_size;
        partitions.push(Partition {
            number,
            start,
            length: end - start,
            kind: PartitionKind::Gpt(kind),
            uuid: format_guid(&array(entry, 16)),
            name: String::from_utf16_lossy(name),
            bootable: u64_at(entry, 48) & LEGACY_BOOT != 0,
        });
    }
    Ok(PartitionTable { kind: TableKind::Gpt { guid: array(&header, 56) }, partitions })
}
