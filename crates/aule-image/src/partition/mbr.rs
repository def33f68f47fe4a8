//! The master boot record, and the chain of extended boot records with logical partitions.

use super::{Partition, PartitionError, PartitionKind, PartitionTable, SECTOR, TableKind};
use crate::{
    ReadAt,
    bytes::{u8_at, u16_at, u32_at},
};
use std::collections::HashSet;

/// Linux reads no more partitions of a disk than minor numbers allow (`DISK_MAX_PARTS`).
const MAX_LOGICAL: u32 = 256;

/// One of the four entries of a boot record; numbers in sectors.
struct Entry {
    flag: u8,
    kind: u8,
    start: u64,
    length: u64,
}

fn entries(sector: &[u8]) -> [Entry; 4] {
    [0, 1, 2, 3].map(|index| {
        let offset = 446 + 16 * index;
        Entry {
            flag: u8_at(sector, offset),
            kind: u8_at(sector, offset + 4),
            start: u32_at(sector, offset + 8).into(),
            length: u32_at(sector, offset + 12).into(),
        }
    })
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

pub(super) fn read(image: &dyn ReadAt, sector: &[u8]) -> Result<PartitionTable, PartitionError> {
    let entries = entries(sector);
    // A FAT boot sector has the same signature; what is code there is no valid flag here.
    if entries.iter().any(|entry| entry.flag & 0x7f != 0) {
        return Err(PartitionError::None);
    }
    let disk_id = u32_at(sector, 440);
    let mut partitions = Vec::new();
    let mut extended = None;
    for (number, entry) in (1..).zip(&entries) {
        if entry.kind == 0 || entry.length == 0 {
            continue;
        }
        if entry.start == 0 {
            return Err(PartitionError::None);
        }
        if !is_extended(entry.kind) {
            partitions.push(partition(number, disk_id, entry, entry.start));
        } else if extended.replace((entry.start, entry.length)).is_some() {
            return Err(PartitionError::Mbr { sector: 0, reason: "it has two extended partitions".into() });
        }
    }
    if let Some((start, length)) = extended {
        // The container is no partition of its own, but nothing else may lie in it.
        for primary in &partitions {
            let (first, last) = (primary.start / SECTOR, (primary.start + primary.length) / SECTOR);
            if first < start + length && start < last {
                let reason = format!("partition {} overlaps the extended partition", primary.number);
                return Err(PartitionError::Mbr { sector: 0, reason });
            }
        }
        read_logical(image, disk_id, start, length, &mut partitions)?;
    }
    // A boot sector of a filesystem without code looks like a table without entries.
    if partitions.is_empty() {
        return Err(PartitionError::None);
    }
    Ok(PartitionTable { kind: TableKind::Mbr { disk_id }, partitions })
}

fn partition(number: u32, disk_id: u32, entry: &Entry, start: u64) -> Partition {
    Partition {
        number,
        start: start * SECTOR,
        length: entry.length * SECTOR,
        kind: PartitionKind::Mbr(entry.kind),
        uuid: format!("{disk_id:08x}-{number:02x}"),
        name: String::new(),
        bootable: entry.flag & 0x80 != 0,
    }
}

fn read_logical(
    image: &dyn ReadAt,
    disk_id: u32,
    base: u64,
    length: u64,
    partitions: &mut Vec<Partition>,
) -> Result<(), PartitionError> {
    let mut at = base;
    let mut seen = HashSet::new();
    let mut number = 5;
    loop {
        let wrong = |reason: &str| PartitionError::Mbr { sector: at, reason: reason.into() };
        if !seen.insert(at) {
            return Err(wrong("the chain of logical partitions is a loop"));
        }
        if number >= 5 + MAX_LOGICAL || seen.len() > 2 * MAX_LOGICAL as usize {
            return Err(wrong("there are more than 256 logical partitions"));
        }
        let mut sector = [0; SECTOR as usize];
        image.read_at(at * SECTOR, &mut sector)?;
        if u16_at(&sector, 510) != 0xaa55 {
            return Err(wrong("an extended boot record has no signature"));
        }
        let [first, second, ..] = entries(&sector);
        let mut next = None;
        for entry in [first, second] {
            if entry.kind == 0 || entry.length == 0 {
                continue;
            }
            if is_extended(entry.kind) {
                next = Some(base + entry.start);
            } else {
                let start = at + entry.start;
                if start + entry.length > base + length {
                    return Err(wrong("a logical partition passes the end of the extended one"));
                }
                partitions.push(partition(number, disk_id, &entry, start));
                number += 1;
            }
        }
        match next {
            Some(sector) if sector >= base + length => {
                return Err(wrong("the chain of logical partitions leaves the extended one"));
            }
            Some(sector) => at = sector,
            None => return Ok(()),
        }
    }
}
