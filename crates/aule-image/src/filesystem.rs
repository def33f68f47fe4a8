//! What the filesystem readers have in common: entries, file handles, errors, and finding out which one it is.

use crate::{ReadAt, ext4::Ext4, fat::Fat};
use aule_tree::{Extent, Metadata, SparseMap, TreePath};
use std::{io, sync::Arc};

/// The most entries that are read from one filesystem.
pub(crate) const MAX_ENTRIES: usize = 10_000_000;
/// The most bytes that paths, link targets, attributes and maps of one filesystem may take in memory together.
pub(crate) const MAX_METADATA: usize = 512 << 20;
/// Shorter holes are read as zeros: a map entry would cost more than it saves.
pub(crate) const MIN_HOLE: u64 = 64 << 10;

/// One name in a filesystem.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is, from the root of this filesystem.
    pub path: TreePath,
    /// Mode, owner, time and attributes.
    pub metadata: Metadata,
    /// What kind of thing it is.
    pub what: EntryKind,
    /// The inode number of anything but a directory that has several names; entries with the same number are hardlinks.
    pub link: Option<u64>,
}

/// What kind of thing an entry is.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// For [`Filesystem::read`].
        handle: FileHandle,
        /// Size in bytes.
        size: u64,
        /// Where the data of a sparse file lies; `None` when it has no hole of at least 64 KiB.
        holes: Option<SparseMap>,
    },
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// Where a file's bytes lie, found once when the entries are read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileHandle {
    pub(crate) size: u64,
    pub(crate) data: FileData,
}

#[derive(Debug, Clone)]
pub(crate) enum FileData {
    /// The bytes themselves, where they are kept in the inode; zeros follow up to the file's size.
    Inline(Arc<[u8]>),
    /// Runs in order of their offsets in the file; between them are zeros.
    Runs(Arc<[Run]>),
}

/// Bytes of a file that lie in one piece; all numbers in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Offset in the file.
    pub(crate) offset: u64,
    /// Offset in the filesystem.
    pub(crate) position: u64,
    pub(crate) length: u64,
}

impl FileHandle {
    /// The offset in the filesystem of the file's first byte, for reading many files in the order of the disk. Files
    /// without stored bytes have none.
    pub fn position(&self) -> Option<u64> {
        match &self.data {
            FileData::Runs(runs) => runs.first().map(|run| run.position),
            FileData::Inline(_) => None,
        }
    }

    /// Reads from `device`, the filesystem's bytes.
    pub(crate) fn read(&self, device: &dyn ReadAt, offset: u64, buffer: &mut [u8]) -> Result<(), FilesystemError> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.size);
        let end = end.ok_or(FilesystemError::PastEnd { offset, length: buffer.len(), size: self.size })?;
        match &self.data {
            FileData::Inline(bytes) => {
                let stored = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
                let length = stored.len().min(buffer.len());
                let (data, zeros) = buffer.split_at_mut(length);
                data.copy_from_slice(stored.get(..length).unwrap_or_default());
                zeros.fill(0);
            }
            FileData::Runs(runs) => {
                let mut rest = buffer;
                let mut at = offset;
                let first = runs.partition_point(|run| run.offset + run.length <= offset);
                for run in runs.get(first..).unwrap_or_default() {
                    if run.offset >= end {
                        break;
                    }
                    let (gap, after) = rest.split_at_mut((run.offset.saturating_sub(at)) as usize);
                    gap.fill(0);
                    at += gap.len() as u64;
                    let length = (run.offset + run.length).min(end) - at;
                    let (target, after) = after.split_at_mut(length as usize);
                    device.read_at(run.position + (at - run.offset), target)?;
                    at += length;
                    rest = after;
                }
                rest.fill(0);
            }
        }
        Ok(())
    }

    /// The holes of at least 64 KiB, as a map of the data between them; `None` when there are none.
    pub(crate) fn holes(&self) -> Option<SparseMap> {
        let FileData::Runs(runs) = &self.data else { return None };
        let mut data: Vec<Extent> = Vec::new();
        let mut end = 0;
        for run in runs.iter() {
            match data.last_mut() {
                Some(last) if run.offset - end < MIN_HOLE => last.length = run.offset + run.length - last.offset,
                None if run.offset < MIN_HOLE => data.push(Extent { offset: 0, length: run.offset + run.length }),
                _ => data.push(Extent { offset: run.offset, length: run.length }),
            }
            end = run.offset + run.length;
        }
        if self.size - end < MIN_HOLE {
            match data.last_mut() {
                Some(last) => last.length = self.size - last.offset,
                None => return None,
            }
        }
        match data.as_slice() {
            [only] if only.offset == 0 && only.length == self.size => None,
            // Runs ascend and lie in the file, so this is always a map.
            _ => SparseMap::new(self.size, data).ok(),
        }
    }
}

/// Why a filesystem could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    /// Reading failed, or decoding the image did.
    #[error("reading the filesystem failed: {0}")]
    Read(#[from] io::Error),
    /// Neither ext4 nor FAT.
    #[error("no filesystem known here (ext2, ext3, ext4 or FAT) was found{0}")]
    Unknown(&'static str),
    /// The filesystem is corrupt.
    #[error("the {kind} filesystem is corrupt: {place}: {reason}")]
    Corrupt {
        /// `ext4`, `vfat` …
        kind: &'static str,
        /// Which structure: `inode 12`, `directory /etc` …
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// It uses something that this reader does not support.
    #[error("the {kind} filesystem cannot be read: {reason}")]
    Unsupported {
        /// `ext4`, `vfat` …
        kind: &'static str,
        /// What is not supported, and what to do.
        reason: String,
    },
    /// More than this reader holds in memory.
    #[error("the {kind} filesystem has more {what} than the limit of {limit}")]
    TooMany {
        /// `ext4`, `vfat` …
        kind: &'static str,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The caller read past a file's end.
    #[error("{length} bytes at byte {offset} pass the end of the file ({size} bytes)")]
    PastEnd {
        /// Where reading was to start.
        offset: u64,
        /// How many bytes were asked for.
        length: usize,
        /// The file's size.
        size: u64,
    },
}

/// A filesystem that can be read.
pub trait Filesystem: Send + Sync {
    /// The volume label; empty when there is none.
    fn label(&self) -> &[u8];

    /// The UUID as Linux writes it: five groups, or `1234-ABCD` for FAT.
    fn uuid(&self) -> String;

    /// `ext2`, `ext3`, `ext4` or `vfat`.
    fn kind(&self) -> &'static str;

    /// Every name in canonical order, the root first as [`TreePath::root`]. An empty `lost+found` at the root is left out.
    ///
    /// # Errors
    /// When anything is corrupt or too large; nothing is skipped.
    fn entries(&self) -> Result<Vec<Entry>, FilesystemError>;

    /// Fills `buffer` with a file's bytes from `offset`. Several threads may read at once.
    ///
    /// # Errors
    /// When reading fails, or passes the end of the file.
    fn read(&self, file: &FileHandle, offset: u64, buffer: &mut [u8]) -> Result<(), FilesystemError>;
}

/// Opens the filesystem in `part`, a partition or a file that holds nothing else.
///
/// # Errors
/// When it is no filesystem known here, or a corrupt one.
pub fn open(part: Arc<dyn ReadAt>) -> Result<Box<dyn Filesystem>, FilesystemError> {
    if let Some(ext4) = Ext4::open(part.clone())? {
        return Ok(Box::new(ext4));
    }
    if let Some(fat) = Fat::open(part.clone())? {
        return Ok(Box::new(fat));
    }
    let mut head = [0; 4096];
    let found = match part.read_at(0, &mut head) {
        Ok(()) if head.starts_with(b"hsqs") => "; it is a squashfs",
        Ok(()) if head.starts_with(b"XFSB") => "; it is an XFS",
        Ok(()) if head.iter().all(|&byte| byte == 0) => "; it starts with zeros",
        _ => "",
    };
    Err(FilesystemError::Unknown(found))
}

/// Counts what a reader keeps in memory against the limits.
pub(crate) struct Budget {
    kind: &'static str,
    entries: usize,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(kind: &'static str) -> Self {
        Budget { kind, entries: MAX_ENTRIES, bytes: MAX_METADATA }
    }

    /// Takes in one entry with `bytes` of path, target and attributes.
    pub(crate) fn entry(&mut self, bytes: usize) -> Result<(), FilesystemError> {
        let what = FilesystemError::TooMany { kind: self.kind, what: "entries", limit: MAX_ENTRIES };
        self.entries = self.entries.checked_sub(1).ok_or(what)?;
        self.bytes(bytes + size_of::<Entry>())
    }

    /// How many bytes may still be taken.
    pub(crate) fn left(&self) -> usize {
        self.bytes
    }

    /// Takes in so many bytes.
    pub(crate) fn bytes(&mut self, bytes: usize) -> Result<(), FilesystemError> {
        let what = FilesystemError::TooMany { kind: self.kind, what: "bytes of names and maps", limit: MAX_METADATA };
        self.bytes = self.bytes.checked_sub(bytes).ok_or(what)?;
        Ok(())
    }
}
