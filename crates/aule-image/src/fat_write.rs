//! Writing FAT32, as the Raspberry Pi's firmware and U-Boot read it.
//!
//! The writer is our own: a FAT that is written once, front to back, is a small format, and the crate tried before
//! (`hadris-fat` 3.0.0-rc.2) stores labels in upper case only, while Linux and Ubuntu look for `system-boot` exactly.
//! The same input gives the same bytes: order, clusters, short names and times depend on nothing else.

mod geometry;
mod names;
mod records;

use aule_tree::{Timestamp, TreePath};
use geometry::{FAT_COPIES, Geometry, RESERVED_SECTORS, ROOT_CLUSTER, SECTOR};
use std::{
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom, Write},
};

/// The largest file in bytes that the format can hold.
const MAX_FILE: u64 = u32::MAX as u64;
/// A directory has at most so many records (Microsoft's specification, section "FAT Directory Structure").
const MAX_RECORDS: usize = 65536;
const END_OF_CHAIN: u32 = 0x0fff_ffff;

/// Something to put on a FAT.
pub struct FatEntry<'a> {
    /// Where it is to be.
    pub path: TreePath,
    /// Its time. FAT keeps even seconds from 1980 to 2107, as local time; UTC is written here.
    pub mtime: Timestamp,
    /// What it is.
    pub what: FatContent<'a>,
}

/// What a [`FatEntry`] is.
pub enum FatContent<'a> {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Opens its content, which must have exactly that size. Called once, in canonical order of the paths.
        open: OpenContent<'a>,
    },
}

/// Opens a file's content.
pub type OpenContent<'a> = Box<dyn FnOnce() -> io::Result<Box<dyn Read + 'a>> + 'a>;

/// How a FAT is to be.
#[derive(Debug, Clone)]
pub struct FatOptions {
    /// Size in bytes, a multiple of 512; `None` takes the smallest multiple of 1 MiB that holds everything.
    pub size: Option<u64>,
    /// The volume label: up to 11 ASCII characters, written as they are.
    pub label: String,
    /// The serial number, which Linux shows as UUID `1234-ABCD`.
    pub volume_id: u32,
    /// The largest size in bytes when `size` is `None`.
    pub max_size: Option<u64>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FatSummary {
    /// Size of the filesystem in bytes.
    pub size: u64,
    /// Size of a cluster in bytes.
    pub cluster_size: u64,
    /// Free space in bytes.
    pub free: u64,
}

/// Why a FAT could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FatWriteError {
    /// A name holds a character that FAT does not allow.
    #[error("{path} cannot be on a FAT filesystem: its name holds {character:?}; rename it")]
    Character {
        /// The path.
        path: TreePath,
        /// The character.
        character: char,
    },
    /// A name is not text.
    #[error("{path} cannot be on a FAT filesystem: its name is not UTF-8; rename it")]
    NotUtf8 {
        /// The path.
        path: TreePath,
    },
    /// A name ends with a dot or space, which Windows and Linux drop.
    #[error("{path} cannot be on a FAT filesystem: its name ends with a dot or a space; rename it")]
    NameEnd {
        /// The path.
        path: TreePath,
    },
    /// Two names are the same to FAT.
    #[error("{first} and {second} cannot both be on a FAT filesystem: their names differ only in upper and lower case")]
    Case {
        /// The first in canonical order.
        first: TreePath,
        /// The other.
        second: TreePath,
    },
    /// The same path twice, or the root as a file.
    #[error("{path} is given twice")]
    Twice {
        /// The path.
        path: TreePath,
    },
    /// The directory of a path is missing in the list, or a file.
    #[error("{path} lies in a directory that is not to be written")]
    NoDirectory {
        /// The path.
        path: TreePath,
    },
    /// A file of 4 GiB or more.
    #[error("{path} has {size} bytes; on a FAT filesystem a file has at most 4294967295")]
    FileTooLarge {
        /// The path.
        path: TreePath,
        /// Its size in bytes.
        size: u64,
    },
    /// Too many names in a directory.
    #[error("the directory {path} has more names than a FAT directory can hold; split it")]
    DirectoryTooLarge {
        /// The path.
        path: TreePath,
    },
    /// Everything together is too large.
    #[error(
        "the files need a FAT filesystem of {needed} bytes, only {available} are available; make the boot partition larger or remove files"
    )]
    DoesNotFit {
        /// Bytes that all files need with their overhead.
        needed: u64,
        /// Bytes that were allowed.
        available: u64,
    },
    /// A size that FAT32 cannot have.
    #[error("a FAT32 filesystem cannot have {size} bytes: {reason}")]
    Size {
        /// The size that was asked for.
        size: u64,
        /// Why not.
        reason: String,
    },
    /// A label that FAT cannot have.
    #[error(
        "`{label}` cannot be the label of a FAT filesystem: up to 11 ASCII letters, digits, spaces and signs but \"*+,./:;<=>?[\\]| are possible"
    )]
    Label {
        /// The label.
        label: String,
    },
    /// A file's content is not as long as its size.
    #[error("{path} was to have {size} bytes, but its content is {}", if *is_longer { "longer" } else { "shorter" })]
    ContentLength {
        /// The path.
        path: TreePath,
        /// The size that was given.
        size: u64,
        /// Whether the content is longer.
        is_longer: bool,
    },
    /// Reading a file's content failed.
    #[error("reading {path} failed: {error}")]
    Read {
        /// The path.
        path: TreePath,
        /// What the system said.
        error: io::Error,
    },
    /// Writing failed.
    #[error("writing the FAT filesystem failed: {0}")]
    Write(io::Error),
}

/// A file or directory with its place.
struct Node<'a> {
    path: TreePath,
    mtime: Timestamp,
    is_directory: bool,
    /// The content of a file, until it is written.
    open: Option<OpenContent<'a>>,
    parent: usize,
    children: Vec<usize>,
    /// Its record in its parent, but for cluster and size; empty for the root.
    names: names::Names,
    /// Size in bytes; of a directory that of its records.
    size: u64,
    first_cluster: u32,
    clusters: u32,
}

/// Writes a FAT32 filesystem with `entries` (in any order, the root may be among them) from the position of `out` on,
/// which must have nothing but zeros or its end there.
///
/// # Errors
/// When FAT cannot hold the entries, or reading or writing fails. Names and sizes are checked before anything is written.
pub fn write_fat<'a, W: Write + Seek>(
    mut out: W,
    entries: Vec<FatEntry<'a>>,
    options: &FatOptions,
) -> Result<FatSummary, FatWriteError> {
    let label = label(&options.label)?;
    let mut nodes = arrange(entries)?;
    let sizes: Vec<u64> = nodes.iter().map(|node| node.size).collect();
    let geometry = Geometry::choose(&sizes, options.size, options.max_size)?;
    let mut next = ROOT_CLUSTER;
    for node in &mut nodes {
        node.clusters = node.size.div_ceil(geometry.cluster_size) as u32;
        // A file without content has no cluster.
        node.first_cluster = if node.clusters == 0 { 0 } else { next };
        next += node.clusters;
    }
    let used = next - ROOT_CLUSTER;
    let start = out.stream_position().map_err(FatWriteError::Write)?;
    let mut out = Out { inner: &mut out, start, position: start };
    out.write(&geometry.boot_area(&label, options.volume_id, used))?;
    let table = table(&nodes);
    for copy in 0..FAT_COPIES {
        out.skip_to(RESERVED_SECTORS * SECTOR + copy * geometry.table_sectors * SECTOR)?;
        out.write(&table)?;
    }
    for index in 0..nodes.len() {
        let Some(node) = nodes.get_mut(index) else { break };
        if node.clusters > 0 {
            out.skip_to(geometry.cluster_position(node.first_cluster))?;
        }
        match node.open.take() {
            Some(open) => out.copy(&node.path, node.size, open)?,
            None => out.write(&directory(&nodes, index, &label))?,
        }
    }
    out.end_at(geometry.size)?;
    let free = u64::from(geometry.clusters - used) * geometry.cluster_size;
    Ok(FatSummary { size: geometry.size, cluster_size: geometry.cluster_size, free })
}

fn label(label: &str) -> Result<[u8; 11], FatWriteError> {
    let wrong = || FatWriteError::Label { label: label.into() };
    let is_allowed = |byte: u8| matches!(byte, 0x20..0x7f) && !b"\"*+,./:;<=>?[\\]|".contains(&byte);
    if label.len() > 11 || label.is_empty() || label.starts_with(' ') || !label.bytes().all(is_allowed) {
        return Err(wrong());
    }
    let mut bytes = [b' '; 11];
    bytes.get_mut(..label.len()).ok_or_else(wrong)?.copy_from_slice(label.as_bytes());
    Ok(bytes)
}

/// All nodes in canonical order, the root first, with their names checked and the sizes of directories known.
fn arrange(mut entries: Vec<FatEntry<'_>>) -> Result<Vec<Node<'_>>, FatWriteError> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let root = names::Names::default();
    let mut nodes = vec![Node::directory(TreePath::root(), Timestamp::default(), 0, root)];
    let mut directories = HashMap::from([(TreePath::root(), 0)]);
    for FatEntry { path, mtime, what } in entries {
        let is_repeated = nodes.last().is_some_and(|last| last.path == path && !path.is_root());
        let file = match what {
            FatContent::Directory if path.is_root() => continue,
            FatContent::Directory => None,
            FatContent::File { size, .. } if size > MAX_FILE => return Err(FatWriteError::FileTooLarge { path, size }),
            FatContent::File { size, open } => Some((size, open)),
        };
        let Some(parent) = path.parent() else { return Err(FatWriteError::Twice { path }) };
        if is_repeated {
            return Err(FatWriteError::Twice { path });
        }
        let Some(&parent) = directories.get(&parent) else { return Err(FatWriteError::NoDirectory { path }) };
        let index = nodes.len();
        let names = names::Names::new(&path)?;
        if file.is_none() {
            directories.insert(path.clone(), index);
        }
        let node = Node::directory(path, mtime, parent, names);
        nodes.push(match file {
            Some((size, open)) => Node { is_directory: false, size, open: Some(open), ..node },
            None => node,
        });
        if let Some(parent) = nodes.get_mut(parent) {
            parent.children.push(index);
        }
    }
    for index in 0..nodes.len() {
        let Some(node) = nodes.get(index).filter(|node| node.is_directory) else { continue };
        let children = node.children.clone();
        names::assign_short_names(&mut nodes, &children)?;
        // The root has the label's record, every other directory `.` and `..`.
        let own = if index == 0 { 1 } else { 2 };
        let records =
            own + children.iter().filter_map(|&child| nodes.get(child)).map(|c| c.names.records()).sum::<usize>();
        if let Some(node) = nodes.get_mut(index) {
            if records > MAX_RECORDS {
                return Err(FatWriteError::DirectoryTooLarge { path: node.path.clone() });
            }
            node.size = (records * records::LENGTH) as u64;
        }
    }
    Ok(nodes)
}

impl Node<'_> {
    fn directory(path: TreePath, mtime: Timestamp, parent: usize, names: names::Names) -> Self {
        let (is_directory, open, children) = (true, None, Vec::new());
        Node { path, mtime, is_directory, open, parent, children, names, size: 0, first_cluster: 0, clusters: 0 }
    }
}

/// The file allocation table up to the last cluster in use: every chain is one run.
fn table(nodes: &[Node<'_>]) -> Vec<u8> {
    // The first two entries hold the media byte and the flags of a clean volume.
    let mut table = [0x0fff_fff8u32, 0x0fff_ffff].map(u32::to_le_bytes).concat();
    for node in nodes.iter().filter(|node| node.clusters > 0) {
        let last = node.first_cluster + node.clusters - 1;
        for cluster in node.first_cluster..last {
            table.extend((cluster + 1).to_le_bytes());
        }
        table.extend(END_OF_CHAIN.to_le_bytes());
    }
    table
}

fn directory(nodes: &[Node<'_>], index: usize, label: &[u8; 11]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(node) = nodes.get(index) else { return bytes };
    if index == 0 {
        bytes.extend(records::volume_label(label));
    } else {
        let parent = nodes.get(node.parent);
        // The root counts as cluster 0 here (section "FAT Directory Structure").
        let parent_cluster = if node.parent == 0 { 0 } else { parent.map_or(0, |parent| parent.first_cluster) };
        let parent_time = parent.filter(|_| node.parent != 0).map_or(node.mtime, |parent| parent.mtime);
        bytes.extend(records::short(b".          ", true, node.mtime, node.first_cluster, 0));
        bytes.extend(records::short(b"..         ", true, parent_time, parent_cluster, 0));
    }
    for child in node.children.iter().filter_map(|&child| nodes.get(child)) {
        // Sizes of directories are not stored.
        let size = if child.is_directory { 0 } else { child.size as u32 };
        bytes.extend(child.names.long_records());
        bytes.extend(records::short(child.names.short(), child.is_directory, child.mtime, child.first_cluster, size));
    }
    bytes
}

/// Where the filesystem is written: offsets from its start, zeros by seeking.
struct Out<'w, W> {
    inner: &'w mut W,
    start: u64,
    position: u64,
}

impl<W: Write + Seek> Out<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), FatWriteError> {
        self.inner.write_all(bytes).map_err(FatWriteError::Write)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, offset: u64) -> Result<(), FatWriteError> {
        let wanted = self.start + offset;
        if wanted != self.position {
            self.position = self.inner.seek(SeekFrom::Start(wanted)).map_err(FatWriteError::Write)?;
        }
        Ok(())
    }

    /// Makes sure that the filesystem's last byte exists.
    fn end_at(&mut self, size: u64) -> Result<(), FatWriteError> {
        if self.position < self.start + size {
            self.skip_to(size - 1)?;
            self.write(&[0])?;
        }
        self.inner.flush().map_err(FatWriteError::Write)
    }

    fn copy(&mut self, path: &TreePath, size: u64, open: OpenContent<'_>) -> Result<(), FatWriteError> {
        let failed = |error| FatWriteError::Read { path: path.clone(), error };
        let mut content = open().map_err(failed)?;
        let mut buffer = vec![0; 128 << 10];
        let mut left = size;
        loop {
            let length = match content.read(&mut buffer) {
                Ok(length) => length.min(buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            if length == 0 && left == 0 {
                return Ok(());
            }
            if length == 0 || length as u64 > left {
                return Err(FatWriteError::ContentLength { path: path.clone(), size, is_longer: length > 0 });
            }
            self.write(buffer.get(..length).unwrap_or_default())?;
            left -= length as u64;
        }
    }
}
