//! Replaying a dirty journal in memory: which blocks have a newer version in the journal (kernel documentation,
//! filesystems/ext4/journal.rst; all its numbers are big-endian).
//!
//! Nothing is written: the image stays as it is, and readers are sent to the journal's copy of a block. Whatever is not
//! plainly right (a wrong checksum, fast commits) is refused, as a guess would give a tree that Linux never saw.

use super::{
    blocks::{self, Claims},
    checksum::crc32c,
    corrupt, unsupported,
    volume::Volume,
};
use crate::{
    FilesystemError,
    bytes::{be32_at, u8_at, u16_at, u32_at},
    filesystem::{FileData, FileHandle, Run},
};
use std::collections::{BTreeMap, HashMap};

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const COMPAT_CHECKSUM: u32 = 0x1;
const BIT64: u32 = 0x2;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Revoke, 64 bit, asynchronous commit, checksums, fast commit.
const KNOWN: u32 = 0x1 | BIT64 | 0x4 | CSUM_V2 | CSUM_V3 | FAST_COMMIT;

const TAG_ESCAPED: u32 = 0x1;
const TAG_SAME_UUID: u32 = 0x2;
const TAG_LAST: u32 = 0x8;

/// How many blocks of fast commits there are where the superblock says zero (`JBD2_DEFAULT_FAST_COMMIT_BLOCKS`).
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
const ADVICE: &str = "mount it once with Linux, or run e2fsck -f on it";

/// A block whose newest version is in the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replayed {
    /// Offset of that version in the filesystem.
    pub(super) position: u64,
    /// Its first four bytes are the journal's magic number, which the journal keeps as zeros.
    escaped: bool,
}

impl Replayed {
    /// Puts back what the journal had to change.
    pub(super) fn restore(&self, block: &mut [u8]) {
        if let (true, Some(start)) = (self.escaped, block.first_chunk_mut()) {
            *start = MAGIC.to_be_bytes();
        }
    }
}

struct Journal<'a> {
    volume: &'a Volume,
    file: FileHandle,
    incompatible: u32,
    first: u32,
    /// One past the last block of the ring.
    end: u32,
    /// Where fast commits start.
    fast_commits: u32,
    start: u32,
    sequence: u32,
    checksum_seed: u32,
}

fn wrong(reason: impl Into<String>) -> FilesystemError {
    corrupt("journal", format!("{}; {ADVICE}", reason.into()))
}

/// The newest version of all blocks that committed transactions wrote.
pub(super) fn replay(volume: &Volume) -> Result<BTreeMap<u64, Replayed>, FilesystemError> {
    let Some(journal) = Journal::open(volume)? else { return Ok(BTreeMap::new()) };
    let committed = journal.scan(|_| Ok(()))?;
    // A block that was freed must not be written by older transactions: the last that revoked it counts.
    let mut revoked: HashMap<u64, u32> = HashMap::new();
    journal.scan_until(committed, |record| {
        if let Record::Revoke { block, sequence } = record {
            revoked.insert(block, sequence);
            too_large(revoked.len())?;
        }
        Ok(())
    })?;
    let mut replayed = BTreeMap::new();
    journal.scan_until(committed, |record| {
        let Record::Block { block, at, escaped, sequence } = record else { return Ok(()) };
        if block >= volume.superblock.blocks {
            return Err(wrong(format!("it writes block {block}, which is out of range")));
        }
        if revoked.get(&block).is_none_or(|&by| is_after(sequence, by)) {
            replayed.insert(block, Replayed { position: journal.position(at)?, escaped });
            too_large(replayed.len())?;
        }
        Ok(())
    })?;
    journal.refuse_fast_commits(committed)?;
    Ok(replayed)
}

/// The largest journal of mke2fs has a few hundred thousand blocks.
fn too_large(records: usize) -> Result<(), FilesystemError> {
    const MAX_RECORDS: usize = 4 << 20;
    if records > MAX_RECORDS { Err(wrong("it has more than four million records")) } else { Ok(()) }
}

/// Whether sequence number `a` is later than `b`; they wrap around.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// What a scan finds.
enum Record {
    Revoke { block: u64, sequence: u32 },
    Block { block: u64, at: u32, escaped: bool, sequence: u32 },
}

impl<'a> Journal<'a> {
    /// `None` when there is nothing to replay.
    fn open(volume: &'a Volume) -> Result<Option<Self>, FilesystemError> {
        let inode = volume.inode(volume.superblock.journal_inode)?;
        let block_size = volume.superblock.block_size;
        let runs: Vec<Run> = blocks::runs(volume, &inode, &mut Claims(volume.superblock.blocks), blocks::MAX_RUNS)?;
        let file = FileHandle { size: inode.size, data: FileData::Runs(runs.into()) };
        let mut block = vec![0; block_size as usize];
        file.read(volume, 0, &mut block).map_err(|_| wrong("it is too short"))?;
        let version = be32_at(&block, 4);
        if be32_at(&block, 0) != MAGIC || !matches!(version, SUPERBLOCK_V1 | SUPERBLOCK_V2) {
            return Err(wrong("it has no superblock"));
        }
        let (compatible, incompatible) =
            if version == SUPERBLOCK_V2 { (be32_at(&block, 0x24), be32_at(&block, 0x28)) } else { (0, 0) };
        if incompatible & !KNOWN != 0 {
            return Err(unsupported(format!(
                "its journal must be replayed but has unknown features 0x{:x}; {ADVICE}",
                incompatible & !KNOWN
            )));
        }
        if compatible & COMPAT_CHECKSUM != 0 {
            return Err(unsupported(format!(
                "its journal must be replayed but has checksums of an old form; {ADVICE}"
            )));
        }
        if incompatible & (CSUM_V2 | CSUM_V3) != 0 {
            let (before, after) = (block.get(..0xfc).unwrap_or_default(), block.get(0x100..0x400).unwrap_or_default());
            if crc32c(crc32c(crc32c(!0, before), &[0; 4]), after) != be32_at(&block, 0xfc) {
                return Err(wrong("its superblock has a wrong checksum"));
            }
        }
        let (length, first, start) = (be32_at(&block, 0x10), be32_at(&block, 0x14), be32_at(&block, 0x1c));
        if start == 0 {
            return Ok(None);
        }
        let fast_commit_blocks = match be32_at(&block, 0x54) {
            _ if incompatible & FAST_COMMIT == 0 => 0,
            0 => DEFAULT_FAST_COMMIT_BLOCKS,
            blocks => blocks,
        };
        let end = length.saturating_sub(fast_commit_blocks);
        let fits = u64::from(be32_at(&block, 0xc)) == block_size && u64::from(length) * block_size <= inode.size;
        if !fits || first == 0 || first >= end || start < first || start >= end {
            return Err(wrong("its superblock has impossible sizes"));
        }
        Ok(Some(Journal {
            volume,
            file,
            incompatible,
            first,
            end,
            fast_commits: end,
            start,
            sequence: be32_at(&block, 0x18),
            checksum_seed: crc32c(!0, block.get(0x30..0x40).unwrap_or_default()),
        }))
    }

    fn has_checksums(&self) -> bool {
        self.incompatible & (CSUM_V2 | CSUM_V3) != 0
    }

    fn block(&self, at: u32) -> Result<Vec<u8>, FilesystemError> {
        let size = self.volume.superblock.block_size;
        let mut block = vec![0; size as usize];
        self.file.read(self.volume, u64::from(at) * size, &mut block)?;
        Ok(block)
    }

    /// Where block `at` of the journal lies in the filesystem.
    fn position(&self, at: u32) -> Result<u64, FilesystemError> {
        let offset = u64::from(at) * self.volume.superblock.block_size;
        let FileData::Runs(runs) = &self.file.data else { return Err(wrong("it is kept in its inode")) };
        let run = runs.iter().find(|run| (run.offset..run.offset + run.length).contains(&offset));
        let run = run.ok_or_else(|| wrong("it has holes"))?;
        Ok(run.position + (offset - run.offset))
    }

    fn after(&self, at: u32) -> u32 {
        if at + 1 >= self.end { self.first } else { at + 1 }
    }

    fn scan(&self, each: impl FnMut(Record) -> Result<(), FilesystemError>) -> Result<u32, FilesystemError> {
        self.pass(None, each)
    }

    fn scan_until(
        &self,
        end: u32,
        each: impl FnMut(Record) -> Result<(), FilesystemError>,
    ) -> Result<(), FilesystemError> {
        self.pass(Some(end), each).map(drop)
    }

    /// Goes through the log up to transaction `end`, or to its end; gives the first sequence number that is not committed.
    fn pass(
        &self,
        end: Option<u32>,
        mut each: impl FnMut(Record) -> Result<(), FilesystemError>,
    ) -> Result<u32, FilesystemError> {
        let (mut at, mut sequence) = (self.start, self.sequence);
        // Each step reads at least one block of the ring, and none can be live twice.
        let mut left = self.end - self.first;
        let mut step = |at: &mut u32| {
            *at = self.after(*at);
            left = left.checked_sub(1).ok_or_else(|| wrong("its log is a loop"))?;
            Ok::<_, FilesystemError>(())
        };
        while end != Some(sequence) {
            let block = self.block(at)?;
            if be32_at(&block, 0) != MAGIC || be32_at(&block, 8) != sequence {
                break;
            }
            match be32_at(&block, 4) {
                DESCRIPTOR => {
                    self.check_tail(&block)?;
                    step(&mut at)?;
                    for tag in self.tags(&block)? {
                        if end.is_some() {
                            self.check_data(&tag, at, sequence)?;
                        }
                        let escaped = tag.flags & TAG_ESCAPED != 0;
                        each(Record::Block { block: tag.block, at, escaped, sequence })?;
                        step(&mut at)?;
                    }
                    continue;
                }
                COMMIT => {
                    if self.has_checksums() {
                        let (before, after) =
                            (block.get(..16).unwrap_or_default(), block.get(20..).unwrap_or_default());
                        let crc = crc32c(crc32c(crc32c(self.checksum_seed, before), &[0; 4]), after);
                        if crc != be32_at(&block, 16) {
                            return Err(wrong(format!("the commit of transaction {sequence} has a wrong checksum")));
                        }
                    }
                    sequence = sequence.wrapping_add(1);
                }
                REVOKE => {
                    self.check_tail(&block)?;
                    let used = be32_at(&block, 12) as usize;
                    let width = if self.incompatible & BIT64 != 0 { 8 } else { 4 };
                    let records =
                        block.get(16..used).ok_or_else(|| wrong("a revoke block has an impossible length"))?;
                    for record in records.chunks_exact(width) {
                        let high = if width == 8 { u64::from(be32_at(record, 0)) << 32 } else { 0 };
                        let block = high | u64::from(be32_at(record, width - 4));
                        each(Record::Revoke { block, sequence })?;
                    }
                }
                _ => break,
            }
            step(&mut at)?;
        }
        Ok(sequence)
    }

    /// The checksum at the end of descriptor and revoke blocks.
    fn check_tail(&self, block: &[u8]) -> Result<(), FilesystemError> {
        let Some((checked, tail)) = block.split_at_checked(block.len().saturating_sub(4)) else {
            return Err(wrong("a block is too short"));
        };
        let is_right = crc32c(crc32c(self.checksum_seed, checked), &[0; 4]) == be32_at(tail, 0);
        if self.has_checksums() && !is_right { Err(wrong("a block has a wrong checksum")) } else { Ok(()) }
    }

    fn check_data(&self, tag: &Tag, at: u32, sequence: u32) -> Result<(), FilesystemError> {
        if !self.has_checksums() {
            return Ok(());
        }
        let crc = crc32c(crc32c(self.checksum_seed, &sequence.to_be_bytes()), &self.block(at)?);
        let is_right =
            if self.incompatible & CSUM_V3 != 0 { crc == tag.checksum } else { crc as u16 == tag.checksum as u16 };
        if is_right {
            return Ok(());
        }
        Err(wrong(format!("its copy of block {} in transaction {sequence} has a wrong checksum", tag.block)))
    }

    /// The tags of a descriptor block (`journal_block_tag_s`, `journal_block_tag3_s`).
    fn tags(&self, block: &[u8]) -> Result<Vec<Tag>, FilesystemError> {
        let wide = self.incompatible & BIT64 != 0;
        let length = if self.incompatible & CSUM_V3 != 0 {
            16
        } else {
            // Version 2 of the checksums made the tags two bytes longer by mistake (`journal_tag_bytes`).
            8 + if wide { 4 } else { 0 } + if self.incompatible & CSUM_V2 != 0 { 2 } else { 0 }
        };
        let tail = if self.has_checksums() { 4 } else { 0 };
        let mut rest = block.get(12..block.len().saturating_sub(tail)).unwrap_or_default();
        let mut tags = Vec::new();
        while let Some((tag, mut after)) = rest.split_at_checked(length) {
            let tag = if self.incompatible & CSUM_V3 != 0 {
                let high = if wide { be32_at(tag, 8) } else { 0 };
                Tag { block: join(high, be32_at(tag, 0)), flags: be32_at(tag, 4), checksum: be32_at(tag, 12) }
            } else {
                let high = if wide { be32_at(tag, 8) } else { 0 };
                let both = be32_at(tag, 4);
                Tag { block: join(high, be32_at(tag, 0)), flags: both & 0xffff, checksum: both >> 16 }
            };
            if tag.flags & TAG_SAME_UUID == 0 {
                after = after.get(16..).ok_or_else(|| wrong("a descriptor block is cut off"))?;
            }
            rest = after;
            let is_last = tag.flags & TAG_LAST != 0;
            tags.push(tag);
            if is_last {
                break;
            }
        }
        Ok(tags)
    }

    /// Fast commits are another log, of changes in place of blocks.
    fn refuse_fast_commits(&self, next: u32) -> Result<(), FilesystemError> {
        const TAG_HEAD: u16 = 9;
        if self.incompatible & FAST_COMMIT == 0 {
            return Ok(());
        }
        let head = self.block(self.fast_commits)?;
        let is_live = u16_at(&head, 0) == TAG_HEAD && u16_at(&head, 2) >= 8 && u32_at(&head, 8) == next;
        if is_live && u8_at(&head, 0) != 0 {
            return Err(unsupported(format!(
                "it was not unmounted cleanly and its journal has fast commits, which are not replayed here; {ADVICE}"
            )));
        }
        Ok(())
    }
}

struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
