//! What the fuzz targets do with their input; the tests run the same over seeds and regressions.
//!
//! The input is an image in pieces, each a position in units of 1 KiB (16 bits), a length (16 bits) and so many bytes;
//! all else of the image is zeros. So an image with metadata at both ends makes a small input.

use aule_image::{EntryKind, FilesystemError, ReadAt, open, read_partitions};
use std::{collections::BTreeMap, io, sync::Arc};

/// Positions of pieces are multiples of this.
pub const UNIT: usize = 1024;
/// The size of filesystems: as far as positions reach.
const FILESYSTEM: usize = UNIT << 16;
/// The size of disks with partitions, whose end matters.
const DISK: usize = 4 << 20;

/// An image: its units that are not zeros.
struct Image {
    units: BTreeMap<usize, [u8; UNIT]>,
    size: usize,
}

impl Image {
    fn new(mut input: &[u8], size: usize) -> Self {
        let mut image = Image { units: BTreeMap::new(), size };
        while let [p0, p1, l0, l1, rest @ ..] = input {
            let unit = usize::from(u16::from_le_bytes([*p0, *p1]));
            let length = usize::from(u16::from_le_bytes([*l0, *l1])).min(rest.len());
            let (piece, after) = rest.split_at(length);
            for (index, bytes) in piece.chunks(UNIT).enumerate() {
                image.put((unit + index) * UNIT, bytes);
            }
            input = after;
        }
        image
    }

    /// Writes bytes that lie in one unit.
    fn put(&mut self, position: usize, bytes: &[u8]) {
        let unit = self.units.entry(position / UNIT).or_insert([0; UNIT]);
        let start = position % UNIT;
        let length = bytes.len().min(UNIT - start);
        unit[start..start + length].copy_from_slice(&bytes[..length]);
    }

    fn get<const N: usize>(&self, position: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read_at(position as u64, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl ReadAt for Image {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.size as u64);
        let (start, end) = (offset as usize, end.ok_or(io::ErrorKind::UnexpectedEof)? as usize);
        buffer.fill(0);
        for (unit, bytes) in self.units.range(start / UNIT..end.div_ceil(UNIT)) {
            let (from, to) = (start.max(unit * UNIT), end.min((unit + 1) * UNIT));
            buffer[from - start..to - start].copy_from_slice(&bytes[from - unit * UNIT..to - unit * UNIT]);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size as u64)
    }
}

/// Makes the input for an image; the reverse of what the targets do. What positions do not reach is lost.
#[allow(dead_code, reason = "only those who make seeds need it")]
pub fn pack(image: &[u8]) -> Vec<u8> {
    let mut input: Vec<u8> = Vec::new();
    // Where the length of the piece is that can still grow, and where it ends in the image.
    let mut last: Option<(usize, usize)> = None;
    for (unit, bytes) in image.chunks(UNIT).take(1 << 16).enumerate() {
        if bytes.iter().all(|&byte| byte == 0) {
            continue;
        }
        let start = unit * UNIT;
        match last {
            Some((length_at, end)) if end == start => {
                let length = u16::from_le_bytes([input[length_at], input[length_at + 1]]);
                let Some(length) = length.checked_add(bytes.len() as u16) else {
                    last = Some(begin(&mut input, unit, bytes));
                    continue;
                };
                input[length_at..length_at + 2].copy_from_slice(&length.to_le_bytes());
                input.extend(bytes);
                last = Some((length_at, start + bytes.len()));
            }
            _ => last = Some(begin(&mut input, unit, bytes)),
        }
    }
    input
}

fn begin(input: &mut Vec<u8>, unit: usize, bytes: &[u8]) -> (usize, usize) {
    input.extend((unit as u16).to_le_bytes());
    let length_at = input.len();
    input.extend((bytes.len() as u16).to_le_bytes());
    input.extend(bytes);
    (length_at, unit * UNIT + bytes.len())
}

/// Reads a partition table. The checksums of a GPT are put right first, which no fuzzer would hit.
pub fn partition(input: &[u8]) {
    let mut image = Image::new(input, DISK);
    for header in [512, DISK - 512] {
        fix_gpt(&mut image, header);
    }
    if let Ok(table) = read_partitions(&image) {
        table.check_size(DISK as u64).expect("a partition passes the end");
    }
}

fn fix_gpt(image: &mut Image, header: usize) -> Option<()> {
    if &image.get::<8>(header)? != b"EFI PART" {
        return None;
    }
    let number = |image: &Image, at: usize| Some(u32::from_le_bytes(image.get(header + at)?) as usize);
    let start = number(image, 72)?.checked_mul(512)?;
    let length = number(image, 80)?.checked_mul(number(image, 84)?)?;
    if length <= DISK {
        let mut entries = vec![0; length];
        if image.read_at(start as u64, &mut entries).is_ok() {
            image.put(header + 88, &crc32fast::hash(&entries).to_le_bytes());
        }
    }
    image.put(header + 16, &[0; 4]);
    let crc = crc32fast::hash(&image.get::<92>(header)?);
    image.put(header + 16, &crc.to_le_bytes());
    Some(())
}

/// Opens a filesystem and reads all of it; files larger than the image only at both ends.
fn filesystem(input: &[u8]) -> Result<(), FilesystemError> {
    let filesystem = open(Arc::new(Image::new(input, FILESYSTEM)))?;
    let _ = (filesystem.label(), filesystem.uuid(), filesystem.kind());
    let entries = filesystem.entries()?;
    assert!(entries.is_sorted_by(|a, b| a.path < b.path), "not in canonical order");
    let mut buffer = vec![0; 1 << 16];
    for entry in entries {
        let EntryKind::File { handle, size, holes } = entry.what else { continue };
        if let Some(map) = holes {
            let end = map.extents().last().map_or(0, |extent| extent.offset + extent.length);
            assert!(end <= size, "a hole passes the end");
        }
        let length = size.min(buffer.len() as u64) as usize;
        for offset in [0, size / 2 - size.min(length as u64) / 2, size - length as u64] {
            filesystem.read(&handle, offset, &mut buffer[..length])?;
        }
        let past = filesystem.read(&handle, size, &mut [0]);
        assert!(matches!(past, Err(FilesystemError::PastEnd { .. })), "reads past the end of a file");
    }
    Ok(())
}

/// Reads a FAT filesystem.
pub fn fat(input: &[u8]) {
    let _ = filesystem(input);
}

/// Reads an ext filesystem, with its journal where that is dirty.
pub fn ext4(input: &[u8]) {
    let _ = filesystem(input);
}
