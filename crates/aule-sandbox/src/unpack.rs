//! Making a tree in a directory: by numeric owners, with attributes and times. Runs in the helper.

use crate::{
    capture::OVERLAY,
    protocol::{Entry, Request, What, copy_exactly, receive},
};
use aule_tree::{Metadata, TreePath};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat, utimensat};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    io::{BufRead, BufWriter, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// The highest identifier that is mapped; the owner of what has a higher one is `nobody`.
const ID_MAX: u32 = 65_535;
const NOBODY: u32 = 65_534;

/// Reads entries up to `End` and makes them in `directory`, which must not exist.
pub(crate) fn unpack(input: &mut impl BufRead, directory: &Path) -> io::Result<()> {
    fs::create_dir(directory)?;
    let mut directories: BTreeMap<TreePath, (PathBuf, Metadata)> = BTreeMap::new();
    let at = |path: &TreePath| match path.is_root() {
        true => directory.to_path_buf(),
        false => directory.join(OsStr::from_bytes(path.as_bytes())),
    };
    loop {
        let entry = match receive(input)? {
            Request::Entry(entry) => entry,
            Request::End => break,
            _ => return Err(io::Error::other("a request in the middle of a tree")),
        };
        let place = at(&entry.path);
        // Only below what was made here as a directory: never through a symlink.
        let links = match &entry.what {
            What::Link(other) => other.parent(),
            _ => None,
        };
        let above = entry.path.parent().into_iter().chain(links);
        if above.into_iter().any(|path| !directories.contains_key(&path)) {
            return Err(io::Error::other(format!("/{}: it is in no directory of the tree", entry.path)));
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("/{}: {error}", entry.path));
        make(input, &place, &entry, &at, &mut directories).map_err(named)?;
    }
    // From the innermost: what is made in a directory changes its time.
    for (path, metadata) in directories.values().rev() {
        describe(path, metadata, true)?;
    }
    Ok(())
}

fn make(
    input: &mut impl BufRead,
    place: &Path,
    entry: &Entry,
    at: &impl Fn(&TreePath) -> PathBuf,
    directories: &mut BTreeMap<TreePath, (PathBuf, Metadata)>,
) -> io::Result<()> {
    match &entry.what {
        What::Directory { metadata, .. } => {
            if !entry.path.is_root() {
                fs::create_dir(place)?;
            }
            directories.insert(entry.path.clone(), (place.to_path_buf(), metadata.clone()));
        }
        What::File { metadata, size } => {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
            let mut file = BufWriter::new(file);
            copy_exactly(input, &mut file, *size)?;
            file.flush()?;
            describe(place, metadata, true)?;
        }
        What::Symlink { metadata, target } => {
            std::os::unix::fs::symlink(OsStr::from_bytes(target), place)?;
            describe(place, metadata, false)?;
        }
        What::Fifo { metadata } => {
            mknodat(CWD, place, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            describe(place, metadata, true)?;
        }
        What::Link(other) => fs::hard_link(at(other), place)?,
        What::Gone => return Err(io::Error::other("a tree does not say what is gone")),
    }
    Ok(())
}

/// Owner first (it takes setuid bits and capabilities away), then mode, attributes, time.
fn describe(place: &Path, metadata: &Metadata, has_mode: bool) -> io::Result<()> {
    let mapped = |id: u32| if id > ID_MAX { NOBODY } else { id };
    std::os::unix::fs::lchown(place, Some(mapped(metadata.uid)), Some(mapped(metadata.gid)))?;
    if has_mode {
        fs::set_permissions(place, fs::Permissions::from_mode(metadata.mode.into()))?;
    }
    // Those of overlayfs would be orders to the one that lies over this tree.
    for (name, value) in metadata.xattrs.iter().filter(|(name, _)| !name.starts_with(OVERLAY)) {
        match lsetxattr(place, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // Those of the security module that the image was made with are none of this host's, and cannot be set here.
            Err(_) if name.starts_with(b"security.") && name != b"security.capability" => {}
            Err(_) if name.starts_with(b"trusted.") => {}
            other => other?,
        }
    }
    let time = Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: metadata.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
