//! Comparing what was read out of an image with what Linux lists.

#![allow(dead_code, reason = "not every test uses all of it")]

use aule_image::{EntryKind, FileHandle, Filesystem};
use aule_testkit::listing::Listed;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

/// How the contents of files are compared.
pub(crate) enum Contents<'a> {
    /// With those in the listing. Every file is read twice: at once and in pieces.
    Listed,
    /// With the files below this directory, piece by piece.
    Below(&'a Path),
}

/// Panics at the first difference.
pub(crate) fn compare(name: &str, filesystem: &dyn Filesystem, wanted: &BTreeMap<Vec<u8>, Listed>) {
    compare_with(name, filesystem, wanted, &Contents::Listed);
}

/// As [`compare`].
pub(crate) fn compare_with(
    name: &str,
    filesystem: &dyn Filesystem,
    wanted: &BTreeMap<Vec<u8>, Listed>,
    contents: &Contents<'_>,
) {
    let entries = filesystem.entries().unwrap_or_else(|error| panic!("{name}: {error}"));
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
    assert!(paths.is_sorted(), "{name}: not in canonical order");
    let got: Vec<_> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    let mut sorted = got.clone();
    sorted.sort();
    assert_eq!(sorted, wanted.keys().cloned().collect::<Vec<_>>(), "{name}: other paths");
    for entry in &entries {
        let place = format!("{name}: {}", entry.path);
        let listed = &wanted[entry.path.as_bytes()];
        let metadata = &entry.metadata;
        let mut device = (0, 0);
        let mut content = Vec::new();
        let mut size = 0;
        let kind = match &entry.what {
            EntryKind::Directory => "directory",
            EntryKind::File { handle, size: length, holes } => {
                size = *length;
                if let Contents::Below(root) = contents {
                    let path = root.join(OsStr::from_bytes(entry.path.as_bytes()));
                    compare_file(&place, filesystem, handle, size, &path);
                } else {
                    content = vec![1; *length as usize];
                    filesystem.read(handle, 0, &mut content).unwrap();
                    let mut pieces = vec![1; *length as usize];
                    for (index, piece) in pieces.chunks_mut(777_777).enumerate() {
                        filesystem.read(handle, index as u64 * 777_777, piece).unwrap();
                    }
                    assert!(pieces == content, "{place}: pieces differ");
                    if let Some(map) = holes {
                        let mut end = 0;
                        for extent in map.extents() {
                            assert!(
                                content[end..extent.offset as usize].iter().all(|&b| b == 0),
                                "{place}: data in a hole"
                            );
                            end = (extent.offset + extent.length) as usize;
                        }
                        assert!(map.data_length() + 65536 <= size, "{place}: holes that do not count");
                    }
                }
                "file"
            }
            EntryKind::Symlink(target) => {
                content = target.clone();
                "symlink"
            }
            EntryKind::CharDevice { major, minor } => {
                device = (*major, *minor);
                "character device"
            }
            EntryKind::BlockDevice { major, minor } => {
                device = (*major, *minor);
                "block device"
            }
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
        };
        let got = Listed {
            kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size,
            mtime: metadata.mtime,
            inode: listed.inode,
            links: listed.links,
            device,
            content: Vec::new(),
            xattrs: metadata.xattrs.clone(),
        };
        assert!(content == listed.content, "{place}: other content");
        assert_eq!(got, Listed { content: Vec::new(), ..listed.clone() }, "{place}");
        let link = (listed.links > 1).then_some(listed.inode);
        assert_eq!(entry.link, link, "{place}: hardlink");
    }
}

fn compare_file(place: &str, filesystem: &dyn Filesystem, handle: &FileHandle, size: u64, path: &Path) {
    let file = File::open(path).unwrap();
    let (mut got, mut wanted) = (vec![0; 1 << 20], vec![1; 1 << 20]);
    for offset in (0..size).step_by(1 << 20) {
        let length = (size - offset).min(1 << 20) as usize;
        filesystem.read(handle, offset, &mut got[..length]).unwrap();
        file.read_exact_at(&mut wanted[..length], offset).unwrap();
        assert!(got[..length] == wanted[..length], "{place}: other content from byte {offset}");
    }
}
