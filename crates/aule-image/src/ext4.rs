//! Reading ext2, ext3 and ext4.
//!
//! The reader is our own. The crate that was looked at (`rust-fs-ext4` 0.8) refuses names of attributes that are not
//! UTF-8, gives ACLs in their form on disk and shows inline data as an attribute, does not know the record lengths of
//! 64 KiB blocks, and reads through a cache with a lock; what remained of use (it writes too) was less than the code
//! that would have been needed around it.
//!
//! Bounds: files together map no more blocks than the filesystem has ([`blocks::Claims`]), no directory or inode is
//! visited twice, trees have the depth that the format allows, and all that is kept counts against a budget.

mod blocks;
mod checksum;
mod directory;
mod inode;
mod journal;
mod superblock;
mod volume;
mod xattr;

use crate::{
    Entry, EntryKind, FileHandle, Filesystem, FilesystemError, ReadAt,
    filesystem::{Budget, FileData, Run},
};
use aule_tree::{Metadata, TreePath};
use blocks::Claims;
use directory::Name;
use inode::{Format, Inode};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use volume::Volume;
use xattr::Attributes;

const KIND: &str = "ext4";
const ROOT: u32 = 2;
/// The longest symlink target (`PATH_MAX` without its NUL).
const MAX_TARGET: u64 = 4095;
/// Shorter targets are kept in the inode.
const SHORT_TARGET: u64 = 60;
/// How many bytes all directories may have together.
const MAX_DIRECTORIES: u64 = 8 << 30;

fn corrupt(place: impl Into<String>, reason: impl Into<String>) -> FilesystemError {
    FilesystemError::Corrupt { kind: KIND, place: place.into(), reason: reason.into() }
}

fn unsupported(reason: String) -> FilesystemError {
    FilesystemError::Unsupported { kind: KIND, reason }
}

/// An ext2, ext3 or ext4 filesystem.
pub(crate) struct Ext4 {
    volume: Volume,
}

impl Ext4 {
    /// `None` when there is none.
    pub(crate) fn open(device: Arc<dyn ReadAt>) -> Result<Option<Self>, FilesystemError> {
        Ok(Volume::open(device)?.map(|volume| Ext4 { volume }))
    }
}

impl Filesystem for Ext4 {
    fn label(&self) -> &[u8] {
        &self.volume.superblock.label
    }

    fn uuid(&self) -> String {
        let hex: String = self.volume.superblock.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }

    fn kind(&self) -> &'static str {
        self.volume.superblock.kind()
    }

    fn entries(&self) -> Result<Vec<Entry>, FilesystemError> {
        let mut walk = Walk {
            volume: &self.volume,
            claims: Claims(self.volume.superblock.blocks),
            budget: Budget::new(KIND),
            directory_bytes: MAX_DIRECTORIES,
            entries: Vec::new(),
        };
        walk.run()?;
        Ok(walk.entries)
    }

    fn read(&self, file: &FileHandle, offset: u64, buffer: &mut [u8]) -> Result<(), FilesystemError> {
        file.read(&self.volume, offset, buffer)
    }
}

/// The way through all directories.
struct Walk<'a> {
    volume: &'a Volume,
    claims: Claims,
    budget: Budget,
    directory_bytes: u64,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), FilesystemError> {
        let mut directories = HashSet::new();
        // Of inodes with several names: the first entry. Of the others: none may come again.
        let mut first_names: HashMap<u32, Option<usize>> = HashMap::new();
        let mut pending = vec![(TreePath::root(), ROOT)];
        while let Some((path, number)) = pending.pop() {
            if let Some(&first) = first_names.get(&number) {
                let linked = first.and_then(|index| self.entries.get(index)).cloned();
                let Some(linked) = linked else {
                    return Err(corrupt(
                        format!("inode {number} ({path})"),
                        "it has several names but a link count of 1",
                    ));
                };
                self.budget.entry(path.as_bytes().len() + weight(&linked))?;
                self.entries.push(Entry { path, ..linked });
                continue;
            }
            let inode = self.volume.inode(number)?;
            if inode.format == Format::Directory {
                if !directories.insert(number) {
                    return Err(corrupt(
                        format!("directory {path}"),
                        format!("inode {number} is in two places: a loop"),
                    ));
                }
            } else if path.is_root() {
                return Err(corrupt("inode 2", "the root is not a directory"));
            }
            let attributes = xattr::read(self.volume, &inode, &mut self.claims)?;
            if inode.format == Format::Directory {
                let mut names = self.names(&inode, &attributes)?;
                // A stack: what comes first in canonical order is pushed last.
                names.sort_by(|a, b| b.cmp(a));
                if names.windows(2).any(|pair| matches!(pair, [a, b] if a.name == b.name)) {
                    return Err(corrupt(format!("directory {path}"), "a name occurs twice"));
                }
                if names.is_empty() && path.as_bytes() == b"lost+found" {
                    continue;
                }
                for Name { name, inode: number } in names {
                    if number < self.volume.superblock.first_inode {
                        return Err(corrupt(
                            format!("directory {path}"),
                            format!("it names the reserved inode {number}"),
                        ));
                    }
                    let child =
                        path.join(&name).map_err(|error| corrupt(format!("directory {path}"), error.to_string()))?;
                    self.budget.bytes(child.as_bytes().len() + size_of::<TreePath>())?;
                    pending.push((child, number));
                }
            }
            let link = (inode.format != Format::Directory && inode.links > 1).then_some(u64::from(number));
            if inode.format != Format::Directory {
                first_names.insert(number, link.map(|_| self.entries.len()));
            }
            let entry = self.entry(path, &inode, attributes, link)?;
            self.budget.entry(entry.path.as_bytes().len() + weight(&entry))?;
            self.entries.push(entry);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: TreePath,
        inode: &Inode,
        attributes: Attributes,
        link: Option<u64>,
    ) -> Result<Entry, FilesystemError> {
        let what = match inode.format {
            Format::Directory => EntryKind::Directory,
            Format::Regular => {
                let handle = self.file(inode, &attributes)?;
                let holes = handle.holes();
                EntryKind::File { size: inode.size, holes, handle }
            }
            Format::Symlink => EntryKind::Symlink(self.target(inode, &attributes)?),
            Format::CharDevice => {
                let (major, minor) = inode.device();
                EntryKind::CharDevice { major, minor }
            }
            Format::BlockDevice => {
                let (major, minor) = inode.device();
                EntryKind::BlockDevice { major, minor }
            }
            Format::Fifo => EntryKind::Fifo,
            Format::Socket => EntryKind::Socket,
        };
        let (mode, uid, gid, mtime) = (inode.mode, inode.uid, inode.gid, inode.mtime);
        Ok(Entry { path, metadata: Metadata { mode, uid, gid, mtime, xattrs: attributes.xattrs }, what, link })
    }

    /// Where the content lies.
    fn file(&mut self, inode: &Inode, attributes: &Attributes) -> Result<FileHandle, FilesystemError> {
        let data = if inode.has_inline_data() {
            let more = attributes.inline_data.as_deref().unwrap_or_default();
            let mut bytes = [inode.block_map(), more].concat();
            if inode.size > bytes.len() as u64 {
                return Err(corrupt(inode.place(), "its inline data is shorter than its size"));
            }
            bytes.truncate(inode.size as usize);
            FileData::Inline(bytes.into())
        } else {
            FileData::Runs(
                blocks::runs(self.volume, inode, &mut self.claims, self.budget.left() / size_of::<Run>())?.into(),
            )
        };
        Ok(FileHandle { size: inode.size, data })
    }

    fn target(&mut self, inode: &Inode, attributes: &Attributes) -> Result<Vec<u8>, FilesystemError> {
        let superblock = &self.volume.superblock;
        let wrong = |reason: &str| corrupt(inode.place(), format!("a symlink {reason}"));
        if inode.size == 0 || inode.size > MAX_TARGET {
            return Err(wrong("whose target is empty or longer than 4095 bytes"));
        }
        let attribute_sectors = if inode.attribute_block == 0 { 0 } else { superblock.cluster_size / 512 };
        // As `ext4_inode_is_fast_symlink`: by the size alone where attributes may take blocks of other inodes.
        let is_short = !inode.has_inline_data()
            && if superblock.has(superblock::incompatible::EA_INODE) {
                inode.size < SHORT_TARGET
            } else {
                inode.sectors == attribute_sectors
            };
        let target = if is_short {
            let target = inode.block_map().get(..inode.size as usize);
            target.ok_or_else(|| wrong("whose target is longer than its place"))?.to_vec()
        } else {
            let handle = self.file(inode, attributes)?;
            let mut target = vec![0; inode.size as usize];
            handle.read(self.volume, 0, &mut target)?;
            target
        };
        if target.contains(&0) { Err(wrong("whose target holds NUL")) } else { Ok(target) }
    }

    fn names(&mut self, inode: &Inode, attributes: &Attributes) -> Result<Vec<Name>, FilesystemError> {
        let superblock = &self.volume.superblock;
        let place = || format!("directory inode {}", inode.number);
        let left = self.directory_bytes.checked_sub(inode.size);
        self.directory_bytes = left.ok_or(FilesystemError::TooMany {
            kind: KIND,
            what: "bytes of directories",
            limit: MAX_DIRECTORIES as usize,
        })?;
        let mut names = Vec::new();
        if inode.has_inline_data() {
            // Four bytes name the parent; the rest and the attribute are records as in blocks.
            directory::records(inode.block_map().get(4..).unwrap_or_default(), superblock, inode, &mut names)?;
            if let Some(more) = &attributes.inline_data {
                directory::records(more, superblock, inode, &mut names)?;
            }
            return Ok(names);
        }
        if inode.size == 0 || !inode.size.is_multiple_of(superblock.block_size) {
            return Err(corrupt(place(), "its size is not a multiple of the block size"));
        }
        let FileHandle { data: FileData::Runs(runs), .. } = self.file(inode, attributes)? else {
            return Err(corrupt(place(), "it has no blocks"));
        };
        let mut places: Vec<_> = runs.iter().map(|run| (run.position, run.length)).collect();
        places.sort_unstable();
        if places.windows(2).any(|pair| matches!(pair, [(at, length), (next, _)] if at + length > *next)) {
            return Err(corrupt(place(), "its blocks are used twice"));
        }
        let mapped: u64 = runs.iter().map(|run| run.length).sum();
        if mapped != inode.size {
            return Err(corrupt(place(), "it has holes"));
        }
        let mut block = vec![0; superblock.block_size as usize];
        // What the names take is counted while they come: a directory may be larger than memory.
        let (mut counted, mut taken) = (0, 0);
        for Run { offset, position, length } in runs.iter().copied() {
            for within in (0..length).step_by(block.len()) {
                self.volume.read_at(position + within, &mut block)?;
                directory::check_block(&block, (offset + within) / superblock.block_size, superblock, inode)?;
                directory::records(&block, superblock, inode, &mut names)?;
                let new = names.get(counted..).unwrap_or_default();
                taken += new.iter().map(|name| name.name.len() + size_of::<Name>() + ALLOCATION).sum::<usize>();
                counted = names.len();
                if taken > self.budget.left() {
                    let what = "bytes of names in one directory";
                    return Err(FilesystemError::TooMany { kind: KIND, what, limit: self.budget.left() });
                }
            }
        }
        Ok(names)
    }
}

/// About what the allocator takes for each name beside its bytes.
const ALLOCATION: usize = 16;

/// Bytes of memory that an entry takes besides itself and its path.
fn weight(entry: &Entry) -> usize {
    let xattrs: usize = entry.metadata.xattrs.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
    let what = match &entry.what {
        EntryKind::Symlink(target) => target.len(),
        EntryKind::File { handle, holes, .. } => {
            let data = match &handle.data {
                FileData::Inline(bytes) => bytes.len(),
                FileData::Runs(runs) => size_of_val(&**runs),
            };
            data + holes.as_ref().map_or(0, |map| size_of_val(map.extents()))
        }
        _ => 0,
    };
    xattrs + what
}
