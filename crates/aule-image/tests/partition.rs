//! Partition tables, against sfdisk and sgdisk.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

use aule_image::{
    Partition, PartitionError, PartitionKind, PartitionTable, ReadAt, TableKind, format_guid, read_partitions,
};
use aule_testkit::{disk, fat, noise::damage, tool};
use std::io;

const MBR: &str = "label: dos\nlabel-id: 0xabcd1234\n\
    start=2048, size=2048, type=c, bootable\nstart=4096, size=4096, type=83\n\
    start=8192, size=20480, type=5\nstart=10240, size=2048, type=83\nstart=14336, size=2048, type=82\n\
    start=18432, size=1024, type=83\n";
const GPT: &str = "label: gpt\nlabel-id: 01234567-89AB-CDEF-0123-456789ABCDEF\n\
    start=2048, size=2048, type=uefi, name=\"boot ü\", uuid=11111111-2222-3333-4444-555555555555\n\
    start=8192, size=4096, type=linux, uuid=AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE, attrs=\"LegacyBIOSBootable\"\n";

fn read(image: &[u8]) -> Result<PartitionTable, PartitionError> {
    read_partitions(&image)
}

/// What sfdisk reads: number, start and length in bytes, uuid.
fn sfdisk(image: &[u8]) -> Vec<(u32, u64, u64, String)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, image).unwrap();
    let dump = String::from_utf8(tool::run("sfdisk", &["-d", tool::text(&path)])).unwrap();
    let id = dump.lines().find_map(|line| line.strip_prefix("label-id: ")).unwrap().to_lowercase();
    let mut found = Vec::new();
    for line in dump.lines().filter(|line| line.starts_with(tool::text(&path))) {
        let (name, fields) = line.split_once(" : ").unwrap();
        let number: u32 = name.strip_prefix(tool::text(&path)).unwrap().trim().parse().unwrap();
        let field = |key: &str| {
            let value = fields.split(',').find_map(|field| field.trim().strip_prefix(key)?.trim().strip_prefix('='));
            value.map(|value| value.trim().to_lowercase())
        };
        if field("type").is_some_and(|kind| kind == "5") {
            continue;
        }
        let bytes = |key: &str| field(key).unwrap().parse::<u64>().unwrap() * 512;
        let uuid = field("uuid").unwrap_or_else(|| format!("{}-{number:02x}", id.trim_start_matches("0x")));
        found.push((number, bytes("start"), bytes("size"), uuid));
    }
    found
}

fn short(partitions: &[Partition]) -> Vec<(u32, u64, u64, String)> {
    partitions.iter().map(|p| (p.number, p.start, p.length, p.uuid.clone())).collect()
}

#[test]
fn reads_what_sfdisk_wrote() {
    let mbr = disk::make(16, MBR);
    let table = read(&mbr).unwrap();
    assert_eq!(table.kind, TableKind::Mbr { disk_id: 0xabcd_1234 });
    assert_eq!(short(&table.partitions), sfdisk(&mbr));
    assert_eq!(table.partitions.len(), 5);
    assert_eq!(table.partitions[2].uuid, "abcd1234-05");
    assert_eq!(table.partitions[3].kind, PartitionKind::Mbr(0x82));
    assert!(table.partitions[0].bootable && !table.partitions[1].bootable);

    let gpt = disk::make(16, GPT);
    let table = read(&gpt).unwrap();
    let TableKind::Gpt { guid } = table.kind else { panic!("{table:?}") };
    assert_eq!(format_guid(&guid), "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(short(&table.partitions), sfdisk(&gpt));
    assert_eq!((table.partitions[0].name.as_str(), table.partitions[0].bootable), ("boot ü", false));
    assert!(table.partitions[1].bootable);
    let PartitionKind::Gpt(kind) = table.partitions[1].kind else { panic!("{table:?}") };
    assert_eq!(format_guid(&kind), "0fc63daf-8483-4772-8e79-3d69d8477de4");
}

#[test]
fn a_gpt_by_sgdisk_with_holes_in_its_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    disk::make_at(&path, 16, "label: gpt\n");
    let arguments = ["-n", "3:4096:8191", "-n", "7:2048:4095", "-c", "3:three", "-t", "3:8300", tool::text(&path)];
    tool::run("sgdisk", &arguments);
    let table = read(&std::fs::read(&path).unwrap()).unwrap();
    let numbers: Vec<_> = table.partitions.iter().map(|p| (p.number, p.start / 512, p.name.as_str())).collect();
    assert_eq!(numbers, [(3, 4096, "three"), (7, 2048, "")]);
}

/// The tools here make no table for larger sectors on a file, so this one is made by hand: a header of 512-byte sectors
/// with its numbers put right.
#[test]
fn a_gpt_of_larger_sectors() {
    let small = disk::make(16, GPT);
    let mut entries = small[1024..1024 + 128 * 128].to_vec();
    for entry in entries.chunks_mut(128).take(2) {
        let first = u64::from_le_bytes(entry[32..40].try_into().unwrap()) / 8;
        let last = (u64::from_le_bytes(entry[40..48].try_into().unwrap()) + 1) / 8 - 1;
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    let mut header = small[512..604].to_vec();
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    header[16..20].fill(0);
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    let mut large = vec![0; small.len()];
    large[..512].copy_from_slice(&small[..512]);
    large[4096..4188].copy_from_slice(&header);
    large[8192..8192 + entries.len()].copy_from_slice(&entries);
    assert_eq!(read(&large).unwrap(), read(&small).unwrap());
}

#[test]
fn the_backup_of_a_gpt_counts_when_the_first_is_damaged() {
    let good = disk::make(16, GPT);
    let wanted = read(&good).unwrap();
    for damaged in [512..1024, 520..524, 512 + 56..512 + 57, 1024..1040] {
        let mut image = good.clone();
        image[damaged].fill(0x5a);
        assert_eq!(read(&image).unwrap(), wanted);
        let last = image.len() - 512;
        image[last..last + 8].fill(0);
        let error = read(&image).unwrap_err();
        assert!(matches!(&error, PartitionError::Gpt { backup, .. } if backup == "no signature"), "{error}");
    }
}

/// A disk that had a GPT before and has an MBR now: without a protective entry nobody looks at the remains.
#[test]
fn remains_of_a_gpt_are_not_one() {
    let mut image = disk::make(16, "label: dos\nstart=2048, size=2048, type=c\nstart=4096, size=4096, type=83\n");
    let wanted = read(&image).unwrap();
    let gpt = disk::make(16, GPT);
    image[512..34 * 512].copy_from_slice(&gpt[512..34 * 512]);
    assert_eq!(read(&image).unwrap(), wanted);
    assert_eq!(short(&wanted.partitions), sfdisk(&image));
}

#[test]
fn what_is_no_table_or_a_wrong_one_is_told() {
    let entry = |index: usize, flag: u8, kind: u8, start: u32, length: u32| {
        let mut image = vec![0; 8 << 20];
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        put(&mut image, 0, index, flag, kind, start, length);
        image
    };
    assert!(matches!(read(b""), Err(PartitionError::None)));
    assert!(matches!(read(&[0; 4096]), Err(PartitionError::None)));
    assert!(matches!(read(&fat::make(4096, &["-F12"], None)), Err(PartitionError::None)));
    assert!(matches!(read(&entry(0, 1, 0x83, 1, 1)), Err(PartitionError::None)));
    let past = read(&entry(0, 0, 0x83, 1, u32::MAX));
    assert!(matches!(past, Err(PartitionError::OutOfRange { number: 1, .. })), "{past:?}");
    let mut overlap = entry(0, 0, 0x83, 100, 100);
    put(&mut overlap, 0, 2, 0, 0x83, 199, 100);
    assert!(matches!(read(&overlap), Err(PartitionError::Overlap(1, 3))));
    // A chain that comes back to itself, and one that leaves its container.
    for (next, wanted) in [(0, "loop"), (100, "leaves")] {
        let mut image = entry(0, 0, 5, 1000, 100);
        image[1000 * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
        put(&mut image, 1000, 0, 0, 0x83, 1, 10);
        put(&mut image, 1000, 1, 0, 5, next, 10);
        let error = read(&image).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let error = read(&entry(0, 0, 5, 1000, 100)).unwrap_err().to_string();
    assert!(error.contains("sector 1000") && error.contains("no signature"), "{error}");
}

fn put(image: &mut [u8], sector: usize, index: usize, flag: u8, kind: u8, start: u32, length: u32) {
    let entry = &mut image[sector * 512 + 446 + 16 * index..][..16];
    entry[0] = flag;
    entry[4] = kind;
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&length.to_le_bytes());
}

#[test]
fn damaged_tables_give_errors_and_never_more() {
    for script in [MBR, GPT] {
        let image = disk::make(16, script);
        let end = image.len() - 33 * 512;
        // Only what is not zero matters; a small copy keeps this fast.
        let regions = [446..512, 512..604, 1024..1280, 8192 * 512 + 446..8192 * 512 + 512, end..image.len()];
        let mut failed = 0;
        for bytes in damage(&image, &regions, 80, 5) {
            failed += u32::from(read(&bytes).is_err());
        }
        assert!(failed > 5, "only {failed} damages were found");
    }
}

/// An image whose size is not known yet.
struct Growing(Vec<u8>);

impl ReadAt for Growing {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        panic!("this would wait for the whole image")
    }

    fn known_size(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

#[test]
fn a_table_is_read_before_the_image_is_complete() {
    for script in [MBR, GPT] {
        let image = Growing(disk::make(16, script)[..10_000_000].to_vec());
        let table = read_partitions(&image).unwrap();
        assert!(matches!(table.check_size(10 << 10), Err(PartitionError::OutOfRange { .. })));
        table.check_size(16 << 20).unwrap();
    }
}
