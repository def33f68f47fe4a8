//! What a path names: kind, metadata and, for files, the digest of the content.

use crate::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Extended attributes: full name (with `user.`, `security.` …) to value, in byte order of the names.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What every kind of inode has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Extended attributes, file capabilities and POSIX ACLs among them, in the form that `getxattr(2)` gives.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Owner root, no attributes.
    pub fn root_owned(mode: u16, mtime: Timestamp) -> Self {
        Metadata { mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
    }
}

/// A run of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Where it starts in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// Where a sparse file has data; all else is holes, which read as zeros.
///
/// Extents ascend, do not touch, and are not empty, but for a last one of length 0 at the end of the file where that is
/// a hole: the form that tar's PAX format 1.0 writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SparseMap(Vec<Extent>);

/// Extents that are no sparse map.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the extents of a sparse file overlap, are out of order, or pass its end")]
pub struct SparseError;

impl SparseMap {
    /// A map for a file of `size` bytes from the extents that hold data. Touching extents are joined, empty ones dropped.
    ///
    /// # Errors
    /// When extents overlap, descend, or pass `size`.
    pub fn new(size: u64, data: impl IntoIterator<Item = Extent>) -> Result<Self, SparseError> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut end = 0;
        for extent in data {
            if extent.length == 0 {
                continue;
            }
            let next = extent.offset.checked_add(extent.length).ok_or(SparseError)?;
            if extent.offset < end || next > size {
                return Err(SparseError);
            }
            match extents.last_mut() {
                Some(last) if extent.offset == end => last.length += extent.length,
                _ => extents.push(extent),
            }
            end = next;
        }
        if end < size {
            extents.push(Extent { offset: size, length: 0 });
        }
        Ok(SparseMap(extents))
    }

    /// The extents in order.
    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// The size of the file.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |extent| extent.offset + extent.length)
    }

    /// How many bytes of data there are.
    pub fn data_length(&self) -> u64 {
        self.0.iter().map(|e| e.length).sum()
    }

    /// The map as tar's PAX sparse format 1.0 writes it before the data: decimal numbers (how many extents, then offset
    /// and length of each), each with a line feed, padded with NUL to a multiple of 512.
    /// (GNU tar manual, "PAX Format, Version 1.0".)
    pub fn to_pax(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.0.len());
        for extent in &self.0 {
            text.push_str(&format!("{}\n{}\n", extent.offset, extent.length));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

impl<'de> Deserialize<'de> for SparseMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let extents = Vec::<Extent>::deserialize(deserializer)?;
        let size = extents.last().map_or(Some(0), |e| e.offset.checked_add(e.length));
        let size = size.ok_or_else(|| serde::de::Error::custom(SparseError))?;
        let map = SparseMap::new(size, extents.iter().copied()).map_err(serde::de::Error::custom)?;
        if map.0 != extents { Err(serde::de::Error::custom(SparseError)) } else { Ok(map) }
    }
}

/// The content of a file, by name only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of the stored bytes. These are the file's bytes; for a sparse file [`SparseMap::to_pax`] and then the
    /// bytes of its extents, so that a terabyte of holes costs nothing.
    pub digest: Digest,
    /// The file's size in bytes, holes included.
    pub size: u64,
    /// Where the data of a sparse file lies; `None` when the file has no holes.
    pub sparse: Option<SparseMap>,
}

impl Content {
    /// The content of a file without holes.
    pub fn of(bytes: &[u8]) -> Self {
        Content { digest: Digest::of(bytes), size: bytes.len() as u64, sparse: None }
    }

    /// How many bytes are stored for it: its size, or map and data of a sparse file.
    pub fn stored_length(&self) -> u64 {
        match &self.sparse {
            None => self.size,
            Some(map) => map.to_pax().len() as u64 + map.data_length(),
        }
    }
}

/// What kind of thing an inode is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link with its target, which is any bytes but NUL.
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
    /// A Unix socket. Tar has no form for it, so importers drop sockets; it exists for completeness of reading.
    Socket,
}

impl Kind {
    /// The word that people use for it.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Directory => "directory",
            Kind::File(_) => "file",
            Kind::Symlink(_) => "symlink",
            Kind::CharDevice { .. } => "character device",
            Kind::BlockDevice { .. } => "block device",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// An inode: metadata and kind. Several paths of a tree may share one (hardlinks).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// Mode, owner, time, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    /// The content of a regular file.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn sparse_maps_are_canonical() {
        let map = SparseMap::new(100, [extent(0, 10), extent(10, 5), extent(20, 0), extent(50, 1)]).unwrap();
        assert_eq!(map.extents(), [extent(0, 15), extent(50, 1), extent(100, 0)]);
        assert_eq!(map.data_length(), 16);
        assert!(map.to_pax().starts_with(b"3\n0\n15\n50\n1\n100\n0\n\0"));
        assert_eq!(map.to_pax().len(), 512);
        assert_eq!(SparseMap::new(10, [extent(5, 6)]), Err(SparseError));
        assert_eq!(SparseMap::new(10, [extent(5, 2), extent(6, 1)]), Err(SparseError));
        assert_eq!(SparseMap::new(u64::MAX, [extent(u64::MAX, 2)]), Err(SparseError));
        assert_eq!(SparseMap::new(7, []).unwrap().extents(), [extent(7, 0)]);
    }
}
