//! What changed: the upper directory of the overlay, as entries in the order of their paths. Runs in the helper, when
//! nothing runs in the sandbox any more.

use crate::protocol::{Entry, Reply, What, copy_exactly, send};
use aule_tree::{Metadata, Timestamp, TreePath, Xattrs};
use rustix::{
    fs::{lgetxattr, llistxattr},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    io::Write,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

/// Attributes of overlayfs itself, where it is mounted with `userxattr` (kernel documentation, "Overlay Filesystem").
pub(crate) const OVERLAY: &[u8] = b"user.overlay.";
const OPAQUE: &[u8] = b"user.overlay.opaque";
/// The largest set of attributes that Linux gives for one file (XATTR_LIST_MAX), and the largest value (XATTR_SIZE_MAX).
const XATTR_MAX: usize = 65_536;

/// Sends all entries below `upper`.
pub(crate) fn capture(output: &mut impl Write, upper: &Path) -> io::Result<()> {
    walk(output, upper, &TreePath::root(), &mut HashMap::new())?;
    send(output, &Reply::End)
}

fn walk(output: &mut impl Write, place: &Path, path: &TreePath, links: &mut HashMap<u64, TreePath>) -> io::Result<()> {
    let found = fs::symlink_metadata(place)?;
    let kind = found.file_type();
    let mut entry = |what: What| send(output, &Reply::Entry(Entry { path: path.clone(), what }));
    if kind.is_char_device() && found.rdev() == 0 {
        return entry(What::Gone);
    }
    if kind.is_socket() {
        // Nobody listens on it any more.
        return Ok(());
    }
    if !kind.is_dir() && found.nlink() > 1 {
        if let Some(first) = links.get(&found.ino()) {
            return entry(What::Link(first.clone()));
        }
        links.insert(found.ino(), path.clone());
    }
    let (metadata, opaque) = describe(place, &found)?;
    if kind.is_dir() {
        entry(What::Directory { metadata, opaque })?;
        let mut names = fs::read_dir(place)?.map(|it| Ok(it?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let inner = path.join(name.as_bytes()).map_err(io::Error::other)?;
            walk(output, &place.join(&name), &inner, links)?;
        }
        Ok(())
    } else if kind.is_symlink() {
        entry(What::Symlink { metadata, target: fs::read_link(place)?.into_os_string().into_vec() })
    } else if kind.is_fifo() {
        entry(What::Fifo { metadata })
    } else if kind.is_file() {
        let mut file = fs::File::open(place)?;
        entry(What::File { metadata, size: found.len() })?;
        // What comes next would be taken for the rest of the file.
        copy_exactly(&mut file, output, found.len())
            .map_err(|error| io::Error::other(BrokenOff(format!("/{path}: {error}"))))
    } else {
        Err(io::Error::other(format!("/{path}: a device was made, which cannot be")))
    }
}

/// A file that could not be read to its end, after its size was told.
#[derive(Debug)]
pub(crate) struct BrokenOff(String);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenOff {}

/// Whether programs in the sandbox gave a file this attribute. Labels of a security module, a file system's properties and
/// the like are what the host has put on it.
fn is_of_the_tree(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

fn describe(place: &Path, found: &fs::Metadata) -> io::Result<(Metadata, bool)> {
    let mut xattrs = Xattrs::new();
    let mut opaque = false;
    let mut names = vec![0; XATTR_MAX];
    let length = match llistxattr(place, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name == OPAQUE {
            opaque = true;
        }
        if name.starts_with(OVERLAY) || !is_of_the_tree(name) {
            continue;
        }
        let mut value = vec![0; XATTR_MAX];
        let length = lgetxattr(place, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    let metadata = Metadata {
        mode: (found.mode() & 0o7777) as u16,
        uid: found.uid(),
        gid: found.gid(),
        mtime: Timestamp { seconds: found.mtime(), nanoseconds },
        xattrs,
    };
    Ok((metadata, opaque))
}
