//! What Linux says about a directory tree, for comparing with what was read out of an image.

use aule_tree::Timestamp;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

/// One path as lstat(2) and getxattr(2) see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// `file`, `directory` …, the words of [`aule_tree::Kind::word`].
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes of files, 0 of all else.
    pub size: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Inode number.
    pub inode: u64,
    /// How many names a file has; 1 for directories.
    pub links: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Content of a file or target of a symlink.
    pub content: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Everything below `root` but its `lost+found`, by path from `root` (which has the empty path).
///
/// # Panics
/// When something cannot be read.
pub fn of_directory(root: &Path) -> BTreeMap<Vec<u8>, Listed> {
    list(root, true)
}

/// As [`of_directory`] with no content of files, for trees that are larger than the memory.
///
/// # Panics
/// When something cannot be read.
pub fn without_contents(root: &Path) -> BTreeMap<Vec<u8>, Listed> {
    list(root, false)
}

fn list(root: &Path, with_contents: bool) -> BTreeMap<Vec<u8>, Listed> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(Vec::new(), root.to_path_buf())];
    while let Some((name, path)) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let file_type = metadata.file_type();
        let mut content = Vec::new();
        let kind = if file_type.is_dir() {
            for child in fs::read_dir(&path).unwrap() {
                let child = child.unwrap().file_name().into_vec();
                let prefix = if name.is_empty() { Vec::new() } else { [name.as_slice(), b"/"].concat() };
                if !(name.is_empty() && child == b"lost+found") {
                    let child_path = path.join(std::ffi::OsStr::from_bytes(&child));
                    pending.push(([prefix, child].concat(), child_path));
                }
            }
            "directory"
        } else if file_type.is_file() {
            if with_contents {
                content = fs::read(&path).unwrap();
            }
            "file"
        } else if file_type.is_symlink() {
            content = fs::read_link(&path).unwrap().into_os_string().into_vec();
            "symlink"
        } else if file_type.is_char_device() {
            "character device"
        } else if file_type.is_block_device() {
            "block device"
        } else if file_type.is_fifo() {
            "fifo"
        } else {
            "socket"
        };
        let listed = Listed {
            kind,
            mode: (metadata.mode() & 0o7777) as u16,
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: if file_type.is_file() { metadata.size() } else { 0 },
            mtime: Timestamp { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 },
            inode: metadata.ino(),
            links: if file_type.is_dir() { 1 } else { metadata.nlink() },
            device: device(metadata.rdev()),
            content,
            xattrs: xattrs(&path),
        };
        found.insert(name, listed);
    }
    found
}

/// Major and minor number out of a `dev_t` of glibc (`sys/sysmacros.h`).
fn device(rdev: u64) -> (u32, u32) {
    let major = ((rdev >> 8) & 0xfff) | ((rdev >> 32) & !0xfff);
    let minor = (rdev & 0xff) | ((rdev >> 12) & !0xff);
    (major as u32, minor as u32)
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let names = xattr::list(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    names.map(|name| (name.as_bytes().to_vec(), xattr::get(path, &name).unwrap().unwrap_or_default())).collect()
}
