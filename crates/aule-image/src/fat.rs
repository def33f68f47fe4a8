//! Reading FAT12, FAT16 and FAT32 with long names (Microsoft "FAT: General Overview of On-Disk Format" 1.03).
//!
//! Bounds: each cluster belongs to one chain only, which rules out loops and cross-links at once.

mod boot_sector;
mod codepage;
mod directory;

pub(crate) use directory::{checksum, days};

use crate::{
    Entry, EntryKind, FileHandle, Filesystem, FilesystemError, ReadAt,
    bytes::{u16_at, u32_at},
    filesystem::{Budget, FileData, Run},
};
use aule_tree::{Metadata, TreePath};
use boot_sector::{BootSector, Width};
use directory::Record;
use std::{collections::HashSet, sync::Arc};

const KIND: &str = "vfat";
/// A directory has at most 65,536 records of 32 bytes.
const MAX_DIRECTORY: u64 = 2 << 20;
/// As Linux shows files when root mounts a FAT with the usual umask.
const MODE: u16 = 0o755;

fn corrupt(place: impl Into<String>, reason: impl Into<String>) -> FilesystemError {
    FilesystemError::Corrupt { kind: KIND, place: place.into(), reason: reason.into() }
}

/// A FAT filesystem.
pub(crate) struct Fat {
    device: Arc<dyn ReadAt>,
    boot: BootSector,
    /// The first copy of the table.
    table: Vec<u8>,
    label: Vec<u8>,
}

impl Fat {
    /// `None` when there is none.
    pub(crate) fn open(device: Arc<dyn ReadAt>) -> Result<Option<Self>, FilesystemError> {
        let Some(boot) = BootSector::read(&device)? else { return Ok(None) };
        if let Some(size) = device.known_size()?
            && size < boot.size
        {
            let reason = format!("the filesystem has {} bytes, its partition or file {size}: truncated", boot.size);
            return Err(corrupt("boot sector", reason));
        }
        let mut table = vec![0; boot.table_length];
        device.read_at(boot.table_position, &mut table)?;
        let mut fat = Fat { label: boot.label.clone(), device, boot, table };
        let (_, label) = fat.directory(None, &mut fat.unclaimed())?;
        if let Some(label) = label {
            fat.label = label;
        }
        Ok(Some(fat))
    }

    /// One flag for each cluster number.
    fn unclaimed(&self) -> Vec<bool> {
        vec![false; self.boot.clusters as usize + 2]
    }

    /// What the table says about `cluster`.
    fn next(&self, cluster: u32) -> u32 {
        let index = cluster as usize;
        match self.boot.width {
            Width::Fat12 => {
                let pair = u16_at(&self.table, index + index / 2);
                u32::from(if index.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 })
            }
            Width::Fat16 => u16_at(&self.table, 2 * index).into(),
            Width::Fat32 => u32_at(&self.table, 4 * index) & 0x0fff_ffff,
        }
    }

    /// The clusters from `first` on, as runs of up to `limit` bytes.
    fn chain(&self, first: u32, limit: u64, place: &str, claimed: &mut [bool]) -> Result<Vec<Run>, FilesystemError> {
        let wrong = |reason: String| corrupt(place, reason);
        let size = self.boot.cluster_size;
        let mut runs: Vec<Run> = Vec::new();
        let (mut cluster, mut offset) = (first, 0);
        while offset < limit {
            let position = self.boot.cluster_position(cluster);
            let Some(position) = position else {
                return Err(wrong(format!("its chain of clusters ends early, at {cluster:#x}, after {offset} bytes")));
            };
            match claimed.get_mut(cluster as usize) {
                Some(flag) if !*flag => *flag = true,
                _ => return Err(wrong(format!("cluster {cluster} is used twice: a loop or a cross-link"))),
            }
            match runs.last_mut() {
                Some(last) if last.position + last.length == position => last.length += size,
                _ => runs.push(Run { offset, position, length: size }),
            }
            offset += size;
            cluster = self.next(cluster);
            if self.boot.is_end(cluster) && limit == u64::MAX {
                break;
            }
        }
        if let Some(last) = runs.last_mut() {
            last.length = last.length.min(limit - last.offset);
        }
        Ok(runs)
    }

    /// The records of a directory, and the volume label if it has one; `None` is the root.
    fn directory(
        &self,
        at: Option<(&TreePath, u32)>,
        claimed: &mut [bool],
    ) -> Result<(Vec<Record>, Option<Vec<u8>>), FilesystemError> {
        let place = format!("directory {}", at.map_or_else(|| "/".into(), |(path, _)| path.to_string()));
        let runs = match (at, self.boot.fixed_root) {
            (None, Some(root)) => vec![root],
            (None, None) => self.chain(self.boot.root_cluster, u64::MAX, &place, claimed)?,
            (Some((_, cluster)), _) => self.chain(cluster, u64::MAX, &place, claimed)?,
        };
        let length: u64 = runs.iter().map(|run| run.length).sum();
        // A last cluster may pass the limit of the format; its records do not count.
        if length > MAX_DIRECTORY + self.boot.cluster_size {
            return Err(corrupt(place, "it has more than 65,536 records"));
        }
        let mut bytes = vec![0; length as usize];
        let handle = FileHandle { size: length, data: FileData::Runs(runs.into()) };
        handle.read(&self.device, 0, &mut bytes)?;
        directory::records(&bytes, self.boot.width == Width::Fat32).map_err(|reason| corrupt(place, reason))
    }
}

impl Filesystem for Fat {
    fn label(&self) -> &[u8] {
        &self.label
    }

    fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.boot.volume_id >> 16, self.boot.volume_id & 0xffff)
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    fn entries(&self) -> Result<Vec<Entry>, FilesystemError> {
        let mut claimed = self.unclaimed();
        let mut budget = Budget::new(KIND);
        let root = Metadata::root_owned(MODE, directory::EPOCH);
        let mut entries =
            vec![Entry { path: TreePath::root(), metadata: root, what: EntryKind::Directory, link: None }];
        let mut pending = Vec::new();
        self.push_records(None, &mut pending, &mut claimed, &mut budget)?;
        while let Some((path, record)) = pending.pop() {
            let metadata = Metadata::root_owned(MODE, record.mtime);
            let what = if record.is_directory {
                self.push_records(Some((&path, record.cluster)), &mut pending, &mut claimed, &mut budget)?;
                EntryKind::Directory
            } else {
                let size = u64::from(record.size);
                let runs = self.chain(record.cluster, size, &format!("file {path}"), &mut claimed)?;
                budget.bytes(runs.len() * size_of::<Run>())?;
                let handle = FileHandle { size, data: FileData::Runs(runs.into()) };
                EntryKind::File { handle, size, holes: None }
            };
            budget.entry(path.as_bytes().len())?;
            entries.push(Entry { path, metadata, what, link: None });
        }
        Ok(entries)
    }

    fn read(&self, file: &FileHandle, offset: u64, buffer: &mut [u8]) -> Result<(), FilesystemError> {
        file.read(&self.device, offset, buffer)
    }
}

impl Fat {
    /// Puts what a directory holds on the stack, last in canonical order first.
    fn push_records(
        &self,
        at: Option<(&TreePath, u32)>,
        pending: &mut Vec<(TreePath, Record)>,
        claimed: &mut [bool],
        budget: &mut Budget,
    ) -> Result<(), FilesystemError> {
        let root = TreePath::root();
        let parent = at.map_or(&root, |(path, _)| path);
        let wrong = |reason: String| corrupt(format!("directory {parent}"), reason);
        let (mut records, _) = self.directory(at, claimed)?;
        let mut folded = HashSet::new();
        if let Some(twice) = records.iter().find(|record| !folded.insert(record.name.to_lowercase())) {
            return Err(wrong(format!("the name `{}` occurs twice", twice.name)));
        }
        records.sort_by(|a, b| b.name.as_bytes().cmp(a.name.as_bytes()));
        for record in records {
            if record.name.contains('/') {
                return Err(wrong(format!("the name `{}` holds `/`", record.name)));
            }
            let path = parent.join(&record.name).map_err(|error| wrong(error.to_string()))?;
            budget.bytes(path.as_bytes().len() + size_of::<Record>())?;
            pending.push((path, record));
        }
        Ok(())
    }
}
